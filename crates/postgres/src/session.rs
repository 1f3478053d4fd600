//! SQL on the local server, and on others.

use std::sync::LazyLock;
use std::time::Duration;

use primacy_net::{SessionError, SessionTls};
use rustix::process::Signal;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::{Client, Config, SimpleQueryMessage, SimpleQueryRow};

use crate::command::Run;
use crate::conninfo::Conninfo;
use crate::settings::{Credentials, LocalAddress, Settings};
use crate::{Error, Server, Until};

/// For a connection to be there (`ha.md` §1.4).
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Over the server's own statement timeout of 2 s: it answers first if it can.
const QUERY_TIMEOUT: Duration = Duration::from_millis(2500);

/// The pooled connection.
#[derive(Default)]
pub(crate) struct Session(Mutex<Option<Connection>>);

/// An open connection. The task that drives it ends with it.
pub(crate) struct Connection {
    client: Client,
    driver: JoinHandle<()>,
    address: String,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects, with TLS as the target, the credentials, or libpq's environment have it.
    pub(crate) async fn open(
        target: &Conninfo,
        credentials: &Credentials,
        application_name: &str,
        statement_timeout: bool,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let address = target.address();
        let mut config = Config::new();
        for (host, port) in target.addresses() {
            config.host(host).port(port);
        }
        let timeouts = match statement_timeout {
            true => "-c statement_timeout=2000",
            false => "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0",
        };
        config
            .dbname(target.get("dbname").unwrap_or("postgres"))
            .user(user(credentials))
            .application_name(application_name)
            .connect_timeout(CONNECT_TIMEOUT)
            .options(format!(
                "{timeouts} -c search_path=pg_catalog -c pg_stat_statements.track=none"
            ));
        if target.get("target_session_attrs") == Some("read-write") {
            config.target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
        }
        if let Some(password) = &credentials.password {
            config.password(password.expose());
        }
        let deadline = deadline.min(Instant::now() + CONNECT_TIMEOUT);
        let tls = session_tls(target, credentials);
        let (client, connection) = match timeout_at(deadline, tls.connect(&config)).await {
            Ok(Ok(session)) => session,
            Ok(Err(SessionError::Driver(error))) => return Err(sql_error(&address, &error)),
            Ok(Err(SessionError::Tls(error))) => {
                return Err(Error::Unreachable {
                    address,
                    problem: error.to_string(),
                });
            }
            Err(_) => {
                return Err(Error::NoAnswer { address });
            }
        };
        let driver = tokio::spawn(async move {
            // Its end shows in the client.
            let _ = connection.await;
        });
        Ok(Connection {
            client,
            driver,
            address,
        })
    }

    /// Whether the other side ended it.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs statements; the rows of the last one that returned any.
    pub(crate) async fn query(
        &self,
        sql: &str,
        deadline: Instant,
    ) -> Result<Vec<SimpleQueryRow>, Error> {
        let messages = match timeout_at(deadline, self.client.simple_query(sql)).await {
            Ok(result) => result.map_err(|error| sql_error(&self.address, &error))?,
            Err(_) => {
                return Err(Error::NoAnswer {
                    address: self.address.clone(),
                });
            }
        };
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            })
            .collect())
    }

    /// The first column of the first row.
    pub(crate) async fn value(
        &self,
        sql: &str,
        deadline: Instant,
    ) -> Result<Option<String>, Error> {
        let rows = self.query(sql, deadline).await?;
        Ok(rows.first().and_then(|row| row.get(0)).map(str::to_owned))
    }
}

/// The target's own keywords count first, as in a connection string of libpq.
pub(crate) fn session_tls(target: &Conninfo, credentials: &Credentials) -> SessionTls {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let keyword = |name: &str| {
        let targets_own = target.get(name).map(str::to_owned);
        targets_own.or_else(|| credentials.options.get(name).cloned())
    };
    SessionTls::new(keyword, variable)
}

pub(crate) fn user(credentials: &Credentials) -> String {
    // Asked once: the answer may come from a directory service that is slow later.
    static SYSTEM: LazyLock<String> = LazyLock::new(|| {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
            .ok()
            .flatten();
        user.map_or_else(|| "postgres".to_owned(), |user| user.name)
    });
    credentials
        .username
        .clone()
        .unwrap_or_else(|| SYSTEM.clone())
}

fn sql_error(address: &str, error: &tokio_postgres::Error) -> Error {
    let address = address.to_owned();
    match error.as_db_error() {
        Some(db) => Error::Refused {
            address,
            code: db.code().code().to_owned(),
            problem: db.message().to_owned(),
        },
        None => {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
            Error::Unreachable {
                address,
                problem: format!("{error}{}", cause.unwrap_or_default()),
            }
        }
    }
}

/// A literal for a statement.
pub(crate) fn literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text)
        .trim()
        .to_owned()
}

/// An identifier for a statement.
pub(crate) fn identifier(text: &str) -> String {
    postgres_protocol::escape::escape_identifier(text)
}

impl Settings {
    /// Where superuser sessions of this agent go.
    pub(crate) fn local_conninfo(&self) -> Conninfo {
        Conninfo::new(&self.local.host(), self.port, &self.database)
    }
}

/// What the server says to a connection attempt, from its first answer to a startup packet
/// (`ha.md` §3.2).
pub(crate) async fn readiness(settings: &Settings, deadline: Instant) -> primacy_model::Readiness {
    use primacy_model::Readiness;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let ask = async {
        let mut packet = bytes::BytesMut::new();
        let user = user(&settings.superuser);
        let parameters = [
            ("user", user.as_str()),
            ("database", settings.database.as_str()),
        ];
        postgres_protocol::message::frontend::startup_message(parameters, &mut packet)?;
        let mut answer = [0; 1024];
        let mut length = 0;
        let mut stream: Box<dyn Stream> = match &settings.local {
            LocalAddress::Tcp(host) => {
                Box::new(TcpStream::connect((host.as_str(), settings.port)).await?)
            }
            LocalAddress::Unix(directory) => Box::new(
                UnixStream::connect(directory.join(format!(".s.PGSQL.{}", settings.port))).await?,
            ),
        };
        stream.write_all(&packet).await?;
        while length < answer.len() && !is_complete(&answer[..length]) {
            match stream.read(&mut answer[length..]).await? {
                0 => break,
                count => length += count,
            }
        }
        Ok::<_, std::io::Error>(classify(&answer[..length]))
    };
    match timeout_at(deadline, ask).await {
        Ok(Ok(readiness)) => readiness,
        Ok(Err(_)) | Err(_) => Readiness::NoAnswer,
    }
}

pub(crate) trait Stream:
    tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin
{
}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

pub(crate) fn is_complete(answer: &[u8]) -> bool {
    let length = answer
        .get(1..5)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_be_bytes);
    length.is_some_and(|length| answer.len() > length as usize)
}

pub(crate) fn classify(answer: &[u8]) -> primacy_model::Readiness {
    use primacy_model::Readiness;
    match answer.first() {
        // cannot_connect_now: starting up, shutting down, not yet consistent.
        Some(b'E') if answer.windows(7).any(|field| field == b"C57P03\0") => Readiness::Rejecting,
        Some(b'E' | b'R' | b'v') => Readiness::Accepting,
        _ => Readiness::NoAnswer,
    }
}

/// A row of `pg_settings`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingRow {
    /// Name.
    pub name: String,
    /// Value in the base unit.
    pub setting: Option<String>,
    /// Base unit.
    pub unit: Option<String>,
    /// `bool`, `integer`, `real`, `enum`, `string`.
    pub vartype: String,
    /// `postmaster`, `sighup`, …
    pub context: String,
    /// Changed in the files, waits for a restart.
    pub pending_restart: bool,
    /// `current_setting`: with a unit that people read.
    pub display: Option<String>,
    /// The file that the value comes from.
    pub source_file: Option<String>,
}

impl Server {
    /// Runs a query on the pooled connection, opening it if needed. A connection that broke, or that did
    /// not answer in time, is given up.
    pub(crate) async fn query(
        &self,
        sql: &str,
        deadline: Instant,
    ) -> Result<Vec<SimpleQueryRow>, Error> {
        let settings = self.settings();
        let late = || Error::deadline("waiting for the pooled connection");
        let mut pooled = timeout_at(deadline, self.inner.session.0.lock())
            .await
            .map_err(|_| late())?;
        let connection = match pooled.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => {
                let target = settings.local_conninfo();
                let name = "Patroni heartbeat";
                Connection::open(&target, &settings.superuser, name, true, deadline).await?
            }
        };
        let answer = connection
            .query(sql, deadline.min(Instant::now() + QUERY_TIMEOUT))
            .await;
        if !matches!(
            answer,
            Err(Error::Unreachable { .. } | Error::NoAnswer { .. })
        ) {
            *pooled = Some(connection);
        }
        answer
    }

    /// Closes the pooled connection; the next query opens another.
    pub(crate) async fn close_session(&self, deadline: Instant) {
        if let Ok(mut pooled) = timeout_at(deadline, self.inner.session.0.lock()).await {
            pooled.take();
        }
    }

    /// A connection of its own, without statement timeout.
    pub(crate) async fn connect(&self, deadline: Instant) -> Result<Connection, Error> {
        let settings = self.settings();
        let target = settings.local_conninfo();
        Connection::open(&target, &settings.superuser, "Patroni", false, deadline).await
    }

    /// Asks the server to become a primary; returns when it was told (`ha.md` §12.6), not when it did. Until it has, every
    /// look at it tells that it was asked.
    pub async fn promote(&self, deadline: Instant) -> Result<(), Error> {
        self.mark_promoting(deadline).await?;
        let settings = self.settings();
        Run::new(settings.binary("pg_ctl"))
            .args(["promote", "-W", "-s", "-D"])
            .arg(&settings.data_dir)
            .c_locale()
            .success(&Until::deadline(deadline))
            .await?;
        Ok(())
    }

    /// Tells the postmaster to read its files again.
    pub async fn reload(&self, deadline: Instant) -> Result<(), Error> {
        let identity = self.running(deadline).await?;
        match self.signal(identity, Signal::HUP)? {
            true => {
                self.reloaded();
                Ok(())
            }
            false => Err(Error::NotPossible("PostgreSQL is not running".into())),
        }
    }

    /// CHECKPOINT, on a connection of its own. Cancel safety: the checkpoint goes on.
    pub async fn checkpoint(&self, deadline: Instant) -> Result<(), Error> {
        self.connect(deadline)
            .await?
            .query("CHECKPOINT", deadline)
            .await
            .map(drop)
    }

    /// Resumes WAL replay.
    pub async fn resume_replay(&self, deadline: Instant) -> Result<(), Error> {
        self.query("SELECT pg_catalog.pg_wal_replay_resume()", deadline)
            .await
            .map(drop)
    }

    /// All rows of `pg_settings`.
    pub async fn pg_settings(&self, deadline: Instant) -> Result<Vec<SettingRow>, Error> {
        let sql = "SELECT name, setting, unit, vartype, context, pending_restart, \
                   pg_catalog.current_setting(name, true), sourcefile FROM pg_catalog.pg_settings";
        let text = |row: &SimpleQueryRow, column: usize| row.get(column).map(str::to_owned);
        let rows = self.query(sql, deadline).await?;
        let setting = |row: &SimpleQueryRow| SettingRow {
            name: text(row, 0).unwrap_or_default(),
            setting: text(row, 1),
            unit: text(row, 2),
            vartype: text(row, 3).unwrap_or_default(),
            context: text(row, 4).unwrap_or_default(),
            pending_restart: row.get(5) == Some("t"),
            display: text(row, 6),
            source_file: text(row, 7),
        };
        Ok(rows.iter().map(setting).collect())
    }

    /// The value that the files, as they are now, would give a parameter after a restart
    /// (`postgres -C`, `configuration.md` §5.3).
    pub async fn configured_value(&self, name: &str, deadline: Instant) -> Result<String, Error> {
        let settings = self.settings();
        let output = Run::new(settings.binary("postgres"))
            .arg("-D")
            .arg(&settings.data_dir)
            .args(["-C", name])
            .arg(format!(
                "--config-file={}",
                settings.config_file().display()
            ))
            .quiet()
            .success(&Until::deadline(deadline))
            .await?;
        Ok(output.stdout.trim_end_matches('\n').to_owned())
    }

    /// Runs a hook (`pre_promote`, `before_stop`): words without a shell. `Ok` when it exited with 0.
    pub async fn run_hook(&self, command: &str, until: Until) -> Result<(), Error> {
        Run::words(command)?.success(&until).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use primacy_model::Readiness;

    #[test]
    fn first_answers() {
        assert_eq!(classify(b"R\0\0\0\x08\0\0\0\0"), Readiness::Accepting);
        assert_eq!(
            classify(b"E\0\0\0\x20SFATAL\0C57P03\0Mstarting\0\0"),
            Readiness::Rejecting
        );
        assert_eq!(
            classify(b"E\0\0\0\x20SFATAL\0C28000\0Mno entry\0\0"),
            Readiness::Accepting
        );
        assert_eq!(classify(b""), Readiness::NoAnswer);
        assert_eq!(classify(b"HTTP/1.1 400"), Readiness::NoAnswer);
    }
}
