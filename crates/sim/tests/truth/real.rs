//! The scripts on real servers.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use primacy_model::{Lsn, Timeline};
use primacy_postgres::Divergence;
use tokio::time::{Instant, sleep};

use crate::scratch::{LONG, Node, Scratch, soon, until};
use crate::scripts::{self, Script};
use crate::server_test;
use crate::trace::{Entry, Facts, Look, Step, parse};

server_test!(real, waiting, { check(scripts::waiting()).await });
server_test!(real, crash, { check(scripts::crash()).await });
server_test!(real, switchover, { check(scripts::switchover()).await });
server_test!(real, apart, { check(scripts::apart()).await });

/// Between two looks; what stays the same over so many has settled.
const PAUSE: Duration = Duration::from_millis(100);
const SETTLED: usize = 4;
/// When a trace is recorded, nobody knows what is to be seen: longer than a standby keeps silent.
const SETTLED_UNKNOWN: usize = 20;

/// Performs the script, and sees the same as when it was recorded.
async fn check(script: Script) {
    let record = std::env::var_os("PRIMACY_TRACES");
    let stored = match record {
        Some(_) => Vec::new(),
        None => parse(script.stored),
    };
    let mut servers = Servers::new().await;
    let mut trace = String::new();
    for (number, step) in script.steps.iter().enumerate() {
        let found = servers.perform(step).await;
        let expected = stored.get(number).map(|entry| &entry.seen);
        let seen = servers.settled(found, expected).await;
        if record.is_none() {
            assert_eq!(
                Some(&seen),
                expected,
                "{} is not as it was recorded after step {}, {step:?}",
                script.name,
                number + 1
            );
        }
        let step = step.clone();
        trace += &serde_json::to_string(&Entry { step, seen }).unwrap();
        trace.push('\n');
    }
    if let Some(directory) = record {
        let file = Path::new(&directory).join(format!("{}.jsonl", script.name));
        std::fs::write(file, trace).unwrap();
    }
}

struct Servers {
    // Dropped in this order: clients, servers, their directory.
    clients: BTreeMap<String, Client>,
    nodes: BTreeMap<String, Node>,
    frozen: BTreeMap<String, Vec<Pid>>,
    sessions: BTreeMap<String, Session>,
    _scratch: Scratch,
}

/// A psql that commits one transaction.
struct Client {
    process: Child,
    answer: Option<&'static str>,
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Servers {
    async fn new() -> Self {
        let scratch = Scratch::new();
        let primary = scratch.primary("n1").await;
        for setting in [
            "wal_retrieve_retry_interval = '100ms'",
            "checkpoint_timeout = '1h'",
            "autovacuum = off",
            "wal_receiver_status_interval = '1s'",
            "wal_sender_timeout = '10min'",
            "wal_receiver_timeout = '10min'",
        ] {
            primary.sql(&format!("ALTER SYSTEM SET {setting}"));
        }
        primary.sql("SELECT pg_reload_conf()");
        primary.sql("CREATE TABLE commits (name text)");
        let mut nodes = BTreeMap::new();
        for name in ["n2", "n3"] {
            nodes.insert(name.to_owned(), scratch.standby(name, &primary).await);
        }
        nodes.insert("n1".to_owned(), primary);
        let sessions = nodes.keys().map(|name| (name.clone(), Session::default()));
        let sessions = sessions.collect();
        Servers {
            clients: BTreeMap::new(),
            nodes,
            frozen: BTreeMap::new(),
            sessions,
            _scratch: scratch,
        }
    }

    async fn perform(&mut self, step: &Step) -> Option<String> {
        match step {
            Step::Start(server, upstream) => {
                let upstream = upstream.as_ref().map(|upstream| &self.nodes[upstream]);
                self.nodes[server].start(upstream).await;
            }
            Step::Follow(server, upstream) => {
                let target = self.nodes[upstream].target();
                let server = &self.nodes[server].server;
                server.apply_follow_reload(&target, soon()).await.unwrap();
            }
            Step::StopFast(server) => stop(&self.nodes[server], "fast"),
            Step::StopImmediate(server) => stop(&self.nodes[server], "immediate"),
            Step::Freeze(server) => {
                let processes = processes(self.nodes[server].pid().await);
                signal(&processes, Signal::SIGSTOP);
                self.frozen.insert(server.clone(), processes);
            }
            Step::Thaw(server) => {
                let processes = self.frozen.remove(server).expect("it was frozen");
                signal(&processes, Signal::SIGCONT);
            }
            Step::Names(server, names) => {
                let node = &self.nodes[server];
                node.sql(&format!(
                    "ALTER SYSTEM SET synchronous_standby_names = '{names}'"
                ));
                node.sql("SELECT pg_reload_conf()");
            }
            Step::Commit(server, name, level) => {
                let client = Client::new(&self.nodes[server], name, level);
                self.clients.insert(name.clone(), client);
            }
            Step::Promote(server) => self.nodes[server].server.promote(soon()).await.unwrap(),
            Step::Recover(server) => {
                let recovered = self.nodes[server].server.crash_recovery(until()).await;
                recovered.unwrap();
            }
            Step::Compare(server, primary) => {
                let primary = self.nodes[primary].conninfo();
                let server = &self.nodes[server].server;
                let text = match server.check_divergence(&primary, soon()).await {
                    Divergence::Diverged => "diverged",
                    Divergence::Same => "same",
                    Divergence::Undecided => "undecided",
                };
                return Some(text.into());
            }
            Step::Rewind(server, source) => {
                let source = &self.nodes[source];
                // pg_rewind takes the source's timeline from its control file.
                source.sql("CHECKPOINT");
                return Some(dry_rewind(&self.nodes[server], source).into());
            }
        }
        None
    }

    /// Looks until nothing changes any more, and, where it is known, until what should be seen is.
    async fn settled(&mut self, found: Option<String>, expected: Option<&Look>) -> Look {
        let deadline = Instant::now() + LONG / 2;
        let needed = if expected.is_some() {
            SETTLED
        } else {
            SETTLED_UNKNOWN
        };
        let mut last = self.look(found.clone()).await;
        let mut same = 1;
        loop {
            sleep(PAUSE).await;
            let seen = self.look(found.clone()).await;
            same = if seen == last { same + 1 } else { 1 };
            last = seen;
            let settled =
                same >= needed && !last.commits.values().any(|answer| answer == UNDER_WAY);
            let late = Instant::now() >= deadline;
            if late || settled && expected.is_none_or(|expected| *expected == last) {
                return last;
            }
        }
    }

    async fn look(&mut self, found: Option<String>) -> Look {
        let mut waiting = Vec::new();
        let mut facts = BTreeMap::new();
        for (name, node) in &self.nodes {
            if self.frozen.contains_key(name) {
                continue;
            }
            let (fact, waits) = self.facts(name, node).await;
            waiting.extend(waits);
            facts.insert(name.clone(), fact);
        }
        let answers = self.clients.iter_mut().map(|(name, client)| {
            let waits = waiting.contains(name);
            (name.clone(), client.answer(waits).to_owned())
        });
        Look::new(answers.collect(), &facts, found)
    }

    /// What a server tells, and which of its clients wait for standbys.
    async fn facts(&self, name: &str, node: &Node) -> (Facts, Vec<String>) {
        let observation = node.observe().await;
        let mut facts = Facts {
            observation,
            timeline: 0,
            history: Vec::new(),
            visible: Vec::new(),
            streams_from: None,
        };
        let Some(wal) = &facts.observation.wal else {
            return (facts, Vec::new());
        };
        let receiver = wal.receiver.as_ref();
        let port = receiver
            .filter(|receiver| receiver.status == "streaming")
            .and_then(|receiver| receiver.sender_port);
        let upstream = self
            .nodes
            .iter()
            .find(|(_, node)| Some(node.server.settings().port) == port);
        facts.streams_from = upstream.map(|(name, _)| name.clone());
        if let Some(timeline) = wal.timeline_in_use() {
            facts.timeline = timeline.0;
            facts.history = history(node, timeline).await;
        }
        let rows = self.sessions[name].rows(node).await;
        let named = |kind: &str| -> Vec<String> {
            let rows = rows.iter().filter(|row| row.0 == kind);
            rows.map(|row| row.1.clone()).collect()
        };
        facts.visible = named("visible");
        (facts, named("waiting"))
    }
}

/// A kept connection: many looks are taken.
#[derive(Default)]
struct Session(tokio::sync::Mutex<Option<tokio_postgres::Client>>);

impl Session {
    /// What is visible, and who waits for standbys: kind and name. Nothing from a server that does not answer.
    async fn rows(&self, node: &Node) -> Vec<(String, String)> {
        let sql = "SELECT 'visible', name FROM commits UNION ALL \
                   SELECT 'waiting', application_name FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let mut kept = self.0.lock().await;
        let client = match kept.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => {
                let settings = node.server.settings();
                let connected = tokio_postgres::Config::new()
                    .host(settings.local.host())
                    .port(settings.port)
                    .user("boss")
                    .dbname("postgres")
                    .connect(tokio_postgres::NoTls)
                    .await;
                let Ok((client, connection)) = connected else {
                    return Vec::new();
                };
                tokio::spawn(connection);
                client
            }
        };
        let Ok(messages) = client.simple_query(sql).await else {
            return Vec::new();
        };
        *kept = Some(client);
        messages
            .iter()
            .filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => {
                    Some((row.get(0)?.to_owned(), row.get(1)?.to_owned()))
                }
                _ => None,
            })
            .collect()
    }
}

const UNDER_WAY: &str = "under way";

/// Bytes of WAL beside a commit's own: of two servers that were promoted apart, the one with more commits is further,
/// whatever checkpoints and snapshots of running transactions either has written meanwhile.
const PADDING: usize = 64 * 1024;

impl Client {
    fn new(node: &Node, name: &str, level: &str) -> Client {
        let process = node
            .psql(&format!(
                "INSERT INTO commits VALUES ('{name}'); \
                 SELECT pg_logical_emit_message(true, '', repeat('x', {PADDING}))"
            ))
            .env("PGAPPNAME", name)
            .env("PGOPTIONS", format!("-c synchronous_commit={level}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Client {
            process,
            answer: None,
        }
    }

    /// `waits`: its server shows that it waits for standbys.
    fn answer(&mut self, waits: bool) -> &'static str {
        if self.answer.is_none()
            && let Some(status) = self.process.try_wait().unwrap()
        {
            self.answer = Some(if status.success() {
                "acknowledged"
            } else {
                "unanswered"
            });
        }
        self.answer
            .unwrap_or(if waits { "waits" } else { UNDER_WAY })
    }
}

async fn history(node: &Node, timeline: Timeline) -> Vec<(u32, Lsn)> {
    let lines = node.server.local_history(timeline, soon()).await;
    let lines = lines.ok().flatten().map_or(Vec::new(), |(lines, _)| lines);
    lines
        .into_iter()
        .map(|line| (line.timeline.0, line.switch_lsn))
        .collect()
}

/// Tells the server to stop and does not wait for it.
fn stop(node: &Node, mode: &str) {
    let settings = node.server.settings();
    let status = Command::new(settings.binary("pg_ctl"))
        .args(["stop", "-W", "-s", "-m", mode, "-D"])
        .arg(&node.data_dir)
        .status()
        .unwrap();
    assert!(status.success());
}

fn dry_rewind(node: &Node, source: &Node) -> &'static str {
    let settings = source.server.settings();
    let output = Command::new(settings.binary("pg_rewind"))
        .args(["--dry-run", "--no-ensure-shutdown", "--target-pgdata"])
        .arg(&node.data_dir)
        .arg(format!(
            "--source-server=host={} port={} user=boss dbname=postgres",
            settings.local.host(),
            settings.port
        ))
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    if text.contains("no rewind required") {
        "nothing to do"
    } else {
        "rewinds"
    }
}

/// The postmaster and its children.
fn processes(postmaster: i32) -> Vec<Pid> {
    let path = format!("/proc/{postmaster}/task/{postmaster}/children");
    let children = std::fs::read_to_string(path).unwrap();
    let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
    std::iter::once(postmaster)
        .chain(children)
        .map(Pid::from_raw)
        .collect()
}

fn signal(processes: &[Pid], signal: Signal) {
    for process in processes {
        // One that ended meanwhile needs none.
        let _ = kill(*process, signal);
    }
}
