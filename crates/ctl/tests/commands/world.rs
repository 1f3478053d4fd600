//! A cluster in a store in memory, members that answer HTTP as the test tells them, and an operator who
//! types what the test says.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io::{Cursor, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use primacy_config::ClientConfig;
use primacy_ctl::{Console, Failure, OpenStore, Program, Surroundings};
use primacy_dcs::{Change, Condition, MemoryStore, Store, Write as StoreWrite};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

pub(crate) const CONFIG: &str = "\
scope: demo
etcd3:
  host: 127.0.0.1:1
restapi:
  listen: 127.0.0.1:1
  authentication:
    username: admin
    password: secret
";

pub(crate) struct World {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) directory: TempDir,
    pub(crate) variables: BTreeMap<String, String>,
    /// The members' port.
    pub(crate) port: u16,
    members: Arc<Mutex<Members>>,
}

#[derive(Default)]
struct Members {
    /// What was asked: `POST /restart {"timeout":"5"}`.
    asked: Vec<String>,
    answers: VecDeque<(u16, String)>,
    /// A key and its value, written when the next request comes.
    then: Option<(&'static str, String)>,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: ExitCode,
    pub(crate) output: String,
    pub(crate) errors: String,
}

impl Outcome {
    #[track_caller]
    pub(crate) fn is(&self, code: u8, output: &str, errors: &str) {
        let output = output.trim_start_matches('\n');
        assert!(
            self.code == ExitCode::from(code) && self.output == output && self.errors == errors,
            "{:?}\n--- output\n{}--- expected\n{output}--- errors\n{}--- expected\n{errors}",
            self.code,
            self.output,
            self.errors
        );
    }
}

impl World {
    /// Nothing in the store yet.
    pub(crate) async fn empty() -> World {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.yml"), CONFIG).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let members = Arc::new(Mutex::new(Members::default()));
        let store = MemoryStore::new();
        tokio::spawn(serve(listener, members.clone(), store.clone()));
        let config = directory.path().join("config.yml").display().to_string();
        let variables = [("PATRONICTL_CONFIG_FILE".to_owned(), config)].into();
        World {
            store,
            directory,
            variables,
            port,
            members,
        }
    }

    /// `pg0` leads, `pg1` follows.
    pub(crate) async fn demo() -> World {
        let world = World::empty().await;
        world.put("initialize", "7710395762296189624").await;
        world.put("config", r#"{"ttl":30,"loop_wait":10,"retry_timeout":10,"maximum_lag_on_failover":1048576,"postgresql":{"use_pg_rewind":true,"parameters":{"max_connections":50}}}"#).await;
        world.put("leader", "pg0").await;
        world.put("status", r#"{"optime":73969704}"#).await;
        world
            .member("pg0", json!({"role": "primary", "xlog_location": 73969704}))
            .await;
        let positions = json!({"xlog_location": 73969704, "receive_lsn": 73969704, "replay_lsn": 73969704, "replication_state": "streaming"});
        world.member("pg1", positions).await;
        world
    }

    /// Publishes a running member, with more fields.
    pub(crate) async fn member(&self, name: &str, more: Value) {
        let host = 11 + name.bytes().last().unwrap() - b'0';
        let mut data = json!({
            "conn_url": format!("postgres://10.0.0.{host}:15432/postgres"),
            "api_url": format!("http://127.0.0.1:{}/patroni", self.port),
            "state": "running",
            "role": "replica",
            "timeline": 1,
        });
        data.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.put(&format!("members/{name}"), &data.to_string())
            .await;
    }

    pub(crate) async fn put(&self, key: &str, value: &str) {
        put(&self.store, key, value).await;
    }

    pub(crate) async fn get(&self, key: &str) -> Option<String> {
        let key = format!("/service/demo/{key}");
        let snapshot = self.store.read(&key, deadline()).await.unwrap();
        let entry = snapshot
            .entries
            .into_iter()
            .find(|entry| entry.key == key)?;
        Some(String::from_utf8(entry.value).unwrap())
    }

    /// What the members answer next; when nothing is left they hang up.
    pub(crate) fn answer(&self, status: u16, body: &str) {
        self.members
            .lock()
            .unwrap()
            .answers
            .push_back((status, body.to_owned()));
    }

    /// What is written into the store when a member is asked next.
    pub(crate) fn then(&self, key: &'static str, value: &str) {
        self.members.lock().unwrap().then = Some((key, value.to_owned()));
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.members.lock().unwrap().asked)
    }

    /// Carries out a command; words of the line are parted by blanks.
    pub(crate) async fn run(&self, line: &str, typed: &str) -> Outcome {
        self.run_as(Program::Patronictl, line, typed).await
    }

    pub(crate) async fn run_as(&self, program: Program, line: &str, typed: &str) -> Outcome {
        let (output, errors) = (Buffer::default(), Buffer::default());
        let console = Console::new(
            Cursor::new(typed.to_owned()),
            Box::new(output.clone()),
            Box::new(errors.clone()),
            false,
        );
        let surroundings = Surroundings {
            variables: self.variables.clone(),
            console,
            stores: Box::new(InMemory(self.store.clone())),
        };
        let arguments = line.split_whitespace().map(OsString::from).collect();
        let code = primacy_ctl::run(program, arguments, surroundings).await;
        Outcome {
            code,
            output: without_times(&output.text()),
            errors: without_times(&errors.text()),
        }
    }
}

async fn put(store: &MemoryStore, key: &str, value: &str) {
    let write = StoreWrite {
        key: format!("/service/demo/{key}"),
        change: Change::Put {
            value: value.as_bytes().to_vec(),
            lease: None,
        },
        condition: Condition::Always,
    };
    store.write(write, deadline()).await.unwrap();
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

struct InMemory(Arc<MemoryStore>);

impl OpenStore for InMemory {
    fn open(&self, _config: &ClientConfig) -> Result<Arc<dyn Store>, Failure> {
        Ok(self.0.clone())
    }
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Every run of digits that looks like this year's or next year's time of day becomes `TIME`, with a fraction of five
/// digits `PRECISE`.
fn without_times(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("20") {
        let (before, from) = rest.split_at(at);
        result.push_str(before);
        let length = from
            .find(|c: char| !(c.is_ascii_digit() || "-: T.,".contains(c)))
            .unwrap_or(from.len());
        let candidate = from[..length].trim_end_matches(|c: char| !c.is_ascii_digit());
        let is_time = candidate.len() >= 16
            && candidate.as_bytes()[4] == b'-'
            && !candidate.starts_with("2040");
        let taken = if is_time { candidate.len() } else { 2 };
        result.push_str(match candidate.len() {
            25 if is_time && candidate.as_bytes()[19] == b'.' => "PRECISE",
            _ if is_time => "TIME",
            _ => "20",
        });
        rest = &from[taken..];
    }
    result + rest
}

async fn serve(listener: TcpListener, members: Arc<Mutex<Members>>, store: Arc<MemoryStore>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(stream, members.clone(), store.clone()));
    }
}

async fn answer(
    stream: TcpStream,
    members: Arc<Mutex<Members>>,
    store: Arc<MemoryStore>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let request = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let (mut length, mut authorised) = (0, false);
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => authorised = value == "Basic YWRtaW46c2VjcmV0",
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let body = String::from_utf8(body).ok()?;
    let (answer, then) = {
        let mut members = members.lock().unwrap();
        members
            .asked
            .push(format!("{request} {body}").trim_end().to_owned());
        (members.answers.pop_front(), members.then.take())
    };
    if let Some((key, value)) = then {
        put(&store, key, &value).await;
    }
    let (status, text) = answer?;
    let (status, text) = if authorised {
        (status, text)
    } else {
        (401, "no auth header received".to_owned())
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    stream
        .write_all(format!("{head}{text}").as_bytes())
        .await
        .ok()
}
