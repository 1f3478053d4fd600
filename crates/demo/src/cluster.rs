//! The three agents as processes: started, killed, frozen, brought back.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use primacy_net::{Bytes, ClientOptions, HeaderMap, HttpAnswer, HttpClient, Method};
use serde_json::json;
use tokio::time::Instant;
use tokio_postgres::{Config, NoTls};

use crate::events::{DEMO, Events};
use crate::process::{self, Life, signal};
use crate::setup::{Place, Setup};

/// `POST /switchover` polls for up to 20 s before it answers (`rest-api.md` §8.1).
const SWITCHOVER_ANSWER: Duration = Duration::from_secs(25);
/// Of an agent's log, shown when it ended by itself: enough for its reason.
const LOG_TAIL: i64 = 2048;

/// The cluster.
pub(crate) struct Cluster {
    setup: Setup,
    agents: Vec<Mutex<Option<Child>>>,
    http: HttpClient,
    pub(crate) events: Events,
}

impl Cluster {
    /// Starts all agents.
    pub(crate) fn start(setup: Setup) -> anyhow::Result<Self> {
        let agents = setup.members.iter().map(|_| Mutex::default()).collect();
        let cluster = Cluster {
            setup,
            agents,
            http: HttpClient::new(ClientOptions::default()),
            events: Events::default(),
        };
        for member in 0..cluster.members().len() {
            cluster.start_agent(member)?;
        }
        Ok(cluster)
    }

    /// Where the members are; elsewhere a member is an index into this.
    pub(crate) fn members(&self) -> &[Place] {
        &self.setup.members
    }

    /// The demo's directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.setup.directory
    }

    pub(crate) fn name(&self, member: usize) -> &str {
        &self.setup.members[member].name
    }

    fn start_agent(&self, member: usize) -> anyhow::Result<()> {
        let place = &self.setup.members[member];
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(place.log())
            .with_context(|| format!("cannot open {}", place.log().display()))?;
        let mut command = Command::new(&self.setup.executable);
        command
            .arg("agent")
            .arg(place.config())
            .env(process::MARKER, &self.setup.directory)
            // So that the log's times can be read without knowing the machine's zone.
            .env("TZ", "UTC")
            // What is left of its temporary files goes with the demo, and root's directory for them is not for it.
            .env("TMPDIR", &place.dir)
            .current_dir(&place.dir)
            // Ctrl-C in the terminal is for the demo alone.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(account) = self.setup.account {
            command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
        }
        let agent = command
            .spawn()
            .with_context(|| format!("cannot run {}", self.setup.executable.display()))?;
        *self.agent(member) = Some(agent);
        Ok(())
    }

    fn agent(&self, member: usize) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.agents[member]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent's process, unless it ended.
    fn agent_pid(&self, member: usize) -> Option<Pid> {
        let mut agent = self.agent(member);
        let agent = agent.as_mut()?;
        matches!(agent.try_wait(), Ok(None)).then(|| Pid::from_raw(agent.id() as i32))
    }

    pub(crate) fn agent_life(&self, member: usize) -> Life {
        self.agent_pid(member).map_or(Life::Dead, process::life)
    }

    pub(crate) fn postmaster_life(&self, member: usize) -> Life {
        process::postmaster(&self.members()[member].data_dir()).map_or(Life::Dead, process::life)
    }

    /// SIGKILL to agent and postmaster.
    pub(crate) fn kill_node(&self, member: usize) {
        if let Some(agent) = self.agent_pid(member) {
            signal(agent, Signal::SIGKILL);
        }
        self.kill_postmaster(member);
        self.events.add(
            DEMO,
            format!(
                "killed {}: SIGKILL to agent and postmaster",
                self.name(member)
            ),
        );
    }

    /// SIGKILL to the postmaster.
    pub(crate) fn kill_postgres(&self, member: usize) {
        self.kill_postmaster(member);
        self.events.add(
            DEMO,
            format!(
                "killed PostgreSQL of {}: SIGKILL to its postmaster",
                self.name(member)
            ),
        );
    }

    fn kill_postmaster(&self, member: usize) {
        if let Some(postmaster) = process::postmaster(&self.members()[member].data_dir()) {
            signal(postmaster, Signal::SIGKILL);
        }
    }

    /// SIGSTOP to the agent.
    pub(crate) fn freeze(&self, member: usize) {
        if let Some(agent) = self.agent_pid(member) {
            signal(agent, Signal::SIGSTOP);
            self.events.add(
                DEMO,
                format!("froze the agent of {}: SIGSTOP", self.name(member)),
            );
        }
    }

    /// Starts a dead agent, lets a frozen one go on. Does nothing to one that lives: a server that died
    /// alone is its agent's affair.
    pub(crate) fn bring_back(&self, member: usize) -> anyhow::Result<()> {
        match self.agent_life(member) {
            Life::Alive => {}
            Life::Frozen => {
                if let Some(agent) = self.agent_pid(member) {
                    signal(agent, Signal::SIGCONT);
                }
                self.events.add(
                    DEMO,
                    format!("let the agent of {} go on: SIGCONT", self.name(member)),
                );
            }
            Life::Dead => {
                self.start_agent(member)?;
                self.events.add(
                    DEMO,
                    format!("started the agent of {} again", self.name(member)),
                );
            }
        }
        Ok(())
    }

    /// Asks for a switchover and waits for the agents' answer.
    pub(crate) async fn switch_over(&self, leader: usize) -> anyhow::Result<()> {
        let name = self.name(leader);
        self.events
            .add(DEMO, format!("asked for a switchover from {name}"));
        let body = json!({ "leader": name }).to_string();
        let answer = self
            .send(
                leader,
                Method::POST,
                "/switchover",
                body.into(),
                SWITCHOVER_ANSWER,
            )
            .await
            .context("the switchover got no answer")?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(
            answer.status.is_success(),
            "the switchover was refused: {text}"
        );
        self.events.add(DEMO, text);
        Ok(())
    }

    /// Asks the member's REST API.
    pub(crate) async fn ask(
        &self,
        member: usize,
        method: Method,
        path: &str,
        within: Duration,
    ) -> anyhow::Result<HttpAnswer> {
        self.send(member, method, path, Bytes::new(), within).await
    }

    async fn send(
        &self,
        member: usize,
        method: Method,
        path: &str,
        body: Bytes,
        within: Duration,
    ) -> anyhow::Result<HttpAnswer> {
        let url = format!("http://{}{path}", self.members()[member].rest);
        let deadline = Instant::now() + within;
        Ok(self
            .http
            .request(method, &url, HeaderMap::new(), body, deadline)
            .await?)
    }

    /// Opens a session as the superuser; the caller drives the connection.
    pub(crate) async fn connect(
        &self,
        member: usize,
        application_name: &str,
        within: Duration,
    ) -> anyhow::Result<(
        tokio_postgres::Client,
        tokio_postgres::Connection<tokio_postgres::Socket, tokio_postgres::tls::NoTlsStream>,
    )> {
        let address = self.members()[member].postgres;
        let mut config = Config::new();
        config
            .host(address.ip().to_string())
            .port(address.port())
            .user("postgres")
            .dbname("postgres")
            .password(&self.setup.password)
            .application_name(application_name)
            .connect_timeout(within);
        match tokio::time::timeout(within, config.connect(NoTls)).await {
            Ok(session) => Ok(session?),
            Err(_) => bail!(
                "{} did not open a session within {within:?}",
                self.name(member)
            ),
        }
    }

    /// Fails if an agent ended by itself; its log says why.
    pub(crate) fn check_agents(&self) -> anyhow::Result<()> {
        for (member, place) in self.members().iter().enumerate() {
            if let Some(status) = self.exit_status(member) {
                bail!(
                    "the agent of {} ended with {status}; the end of its log is\n{}",
                    place.name,
                    log_tail(place).trim_end()
                );
            }
        }
        Ok(())
    }

    fn exit_status(&self, member: usize) -> Option<ExitStatus> {
        self.agent(member).as_mut()?.try_wait().ok()?
    }
}

fn log_tail(place: &Place) -> String {
    let mut tail = Vec::new();
    if let Ok(mut log) = File::open(place.log()) {
        // Seeking before the start fails, and leaves a short log to be read whole.
        let _ = log.seek(SeekFrom::End(-LOG_TAIL));
        let _ = log.read_to_end(&mut tail);
    }
    String::from_utf8_lossy(&tail).into_owned()
}
