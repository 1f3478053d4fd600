//! Starting the postmaster (`ha.md` §12.4).

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use indexmap::IndexMap;
use primacy_model::{PostmasterIdentity, Process, Readiness};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::command::is_withheld;
use crate::control::ControlFile;
use crate::follow::RecoveryTarget;
use crate::settings::Settings;
use crate::wal_marker::WalMarker;
use crate::{Error, Server, files, postmaster, session};

/// How often readiness is asked for.
const POLL: Duration = Duration::from_millis(50);
/// For the files, the control file and the spawning, together.
const PREPARE: Duration = Duration::from_secs(30);
/// For one answer to a connection attempt.
const PROBE: Duration = Duration::from_secs(1);
/// How much of the server's log goes into an error text.
const LOG_TAIL: u64 = 4096;

/// Parameters that a standby must not have lower than its primary had, with their names in the control
/// file (`configuration.md` §1.11).
const CONTROL_MINIMUMS: &[(&str, &str)] = &[
    ("max_connections", "max_connections setting"),
    ("max_prepared_transactions", "max_prepared_xacts setting"),
    ("max_locks_per_transaction", "max_locks_per_xact setting"),
    ("max_wal_senders", "max_wal_senders setting"),
    ("max_worker_processes", "max_worker_processes setting"),
];

/// The shell puts the postmaster into the background of a new session, says its number, and is gone:
/// the postmaster is nobody's child, outlives the agent, and needs no reaping by it. (PostgreSQL sets the
/// signals that a shell ignores for background commands itself.) It begins when it is given a line to read: whoever must
/// know its number first is told it before, and should the agent be gone by then, it never does.
const SPAWN: &str = r#"log=$1; shift; exec 3<&0
{ read -r line <&3 && exec "$@" </dev/null 3<&-; } >>"$log" 2>&1 & echo $!"#;

/// How to start.
#[derive(Clone, Debug, Default)]
pub struct StartRequest {
    /// As a standby of this. `None`: as the data directory says, which is as a primary when there is no
    /// signal file in it.
    pub recovery: Option<RecoveryTarget>,
    /// How long to wait for readiness; then the start has failed. `None` waits `pg_ctl_timeout` and
    /// leaves a server that is still starting alone.
    pub timeout: Option<Duration>,
    /// Stops the waiting; also the start itself when the postmaster was not spawned yet.
    pub cancel: CancellationToken,
    /// Told of the postmaster's process before it begins.
    pub spawned: Option<UnboundedSender<Spawning>>,
}

/// The process that is about to become the postmaster.
#[derive(Debug)]
pub struct Spawning {
    /// Which process.
    pub identity: PostmasterIdentity,
    /// It waits for this. When it is dropped instead, the start has failed.
    pub begin: oneshot::Sender<()>,
}

/// The postmaster runs.
#[derive(Clone, Debug)]
pub struct Started {
    /// Which process.
    pub identity: PostmasterIdentity,
    /// How far it got.
    pub state: StartedState,
    /// Parameters raised to what the control file demands of a standby (`configuration.md` §1.11): each
    /// is a reason for a pending restart.
    pub raised: Vec<RaisedParameter>,
}

/// How far a start got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartedState {
    /// Accepts connections.
    Ready,
    /// Alive, not accepting yet: recovery takes long.
    StillStarting,
}

/// A parameter with a higher value than configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaisedParameter {
    /// Which.
    pub name: String,
    /// In effect: from the control file.
    pub control: String,
    /// As configured.
    pub configured: String,
}

impl Server {
    /// Writes the files, starts the postmaster in a session of its own, waits until it is ready. A
    /// server that runs already is only waited for.
    ///
    /// Errors: [`Error::Exited`] with the end of its log, [`Error::Deadline`] when a timeout was given.
    /// Cancel safety: dropping the future leaves a started server running.
    pub async fn start(&self, request: StartRequest) -> Result<Started, Error> {
        let began = Instant::now();
        let prepare = began + PREPARE;
        self.refuse_root()?;
        self.close_session(prepare).await;
        let mut raised = Vec::new();
        let spawned = match self.process(prepare).await? {
            Process::Running(identity) => Spawned {
                identity,
                log_start: None,
            },
            Process::Dying(identity) => {
                return Err(Error::NotPossible(format!(
                    "the killed postmaster {} cannot end before its disk answers",
                    identity.pid
                )));
            }
            Process::SingleUser(identity) => {
                return Err(Error::NotPossible(format!(
                    "a single-user backend (process {}) holds the data directory",
                    identity.pid
                )));
            }
            Process::Absent => {
                self.check(prepare).await?;
                raised = self.prepare(request.recovery.as_ref(), prepare).await?;
                if request.cancel.is_cancelled() {
                    return Err(Error::Cancelled {
                        what: "the start of PostgreSQL".into(),
                    });
                }
                let (spawned, gate) = self.spawn(&raised, prepare).await?;
                self.saw(Process::Running(spawned.identity), None);
                self.begin(&spawned, gate, &request, prepare).await?;
                spawned
            }
        };
        let limit = request.timeout.unwrap_or(self.settings().pg_ctl_timeout);
        let state = self
            .wait_ready(&spawned, Instant::now() + limit, &request)
            .await?;
        Ok(Started {
            identity: spawned.identity,
            state,
            raised,
        })
    }

    /// Waits until a running server accepts connections, at most until the deadline.
    pub async fn wait_until_ready(
        &self,
        identity: PostmasterIdentity,
        deadline: Instant,
    ) -> Result<StartedState, Error> {
        let spawned = Spawned {
            identity,
            log_start: None,
        };
        self.wait_ready(&spawned, deadline, &StartRequest::default())
            .await
    }

    async fn wait_ready(
        &self,
        spawned: &Spawned,
        deadline: Instant,
        request: &StartRequest,
    ) -> Result<StartedState, Error> {
        let settings = self.settings();
        loop {
            if !postmaster::is_alive(spawned.identity) {
                let detail = self.log_tail(spawned.log_start).await;
                return Err(Error::Exited { detail });
            }
            let probe = deadline.min(Instant::now() + PROBE);
            if session::readiness(&settings, probe).await == Readiness::Accepting
                && postmaster::is_alive(spawned.identity)
            {
                self.keep_what_it_runs_with().await;
                return Ok(StartedState::Ready);
            }
            if Instant::now() >= deadline {
                return match request.timeout {
                    Some(_) => Err(Error::deadline("the start of PostgreSQL")),
                    None => Ok(StartedState::StillStarting),
                };
            }
            tokio::select! {
                () = request.cancel.cancelled() => {
                    return Err(Error::Cancelled { what: "waiting for PostgreSQL to start".into() });
                }
                () = sleep(POLL) => {}
            }
        }
    }

    /// The files that a server starts with are the ones to restore (`configuration.md` §6.1, §6.4). It runs all the same
    /// when they cannot be copied.
    async fn keep_what_it_runs_with(&self) {
        if self.memory(|memory| memory.bootstrap.is_some()) {
            return;
        }
        if let Err(error) = self.save_backups(Instant::now() + PREPARE).await {
            tracing::warn!("the configuration files were not backed up: {error}");
        }
    }

    /// Files, directories, signal files; returns what had to be raised.
    async fn prepare(
        &self,
        target: Option<&RecoveryTarget>,
        deadline: Instant,
    ) -> Result<Vec<RaisedParameter>, Error> {
        self.kill_leftovers(deadline).await?;
        let settings = self.settings();
        let data_dir = settings.data_dir.clone();
        let standby = target.is_some();
        let signal = self
            .disk("writing the signal file", deadline, move || {
                let standby_signal = data_dir.join("standby.signal");
                let recovery_signal = data_dir.join("recovery.signal");
                if standby {
                    let mode = files::data_file_mode(&data_dir);
                    if !standby_signal.exists() {
                        files::write_if_changed(&standby_signal, "", mode)?;
                    }
                    files::remove(&recovery_signal)?;
                }
                Ok(standby_signal.exists() || recovery_signal.exists())
            })
            .await?;
        let mut raised = Vec::new();
        if signal {
            let control = self.control_file(deadline).await?;
            raised = self::raised(&settings, &control);
            let data_dir = settings.data_dir.clone();
            let was_primary = standby && control.data.state.is_a_primarys();
            self.disk("marking a former primary", deadline, move || {
                // What was copied has the control file of where it comes from.
                match was_primary && !data_dir.join("backup_label").exists() {
                    true => WalMarker::FormerPrimary.set(&data_dir),
                    false => Ok(()),
                }
            })
            .await?;
        }
        let mut plan = self.file_plan(target, deadline).await?;
        for parameter in &raised {
            plan.overrides
                .insert(parameter.name.clone(), Some(parameter.control.clone()));
        }
        self.disk("making directories", deadline, move || {
            make_directories(&settings)
        })
        .await?;
        self.write_plan(plan, deadline).await?;
        Ok(raised)
    }

    /// Lets the postmaster begin, once everybody knows of it.
    async fn begin(
        &self,
        spawned: &Spawned,
        mut gate: ChildStdin,
        request: &StartRequest,
        deadline: Instant,
    ) -> Result<(), Error> {
        let identity = spawned.identity;
        if let Some(sender) = &request.spawned {
            let (begin, told) = oneshot::channel();
            let _ = sender.send(Spawning { identity, begin });
            let told = timeout_at(deadline, told).await;
            told.map_err(|_| Error::deadline("the start of PostgreSQL"))?
                .map_err(|_| Error::NotPossible("the fence cannot be told of it".into()))?;
        }
        if request.cancel.is_cancelled() {
            return Err(Error::Cancelled {
                what: "the start of PostgreSQL".into(),
            });
        }
        if gate.write_all(b"\n").await.is_err() {
            let detail = self.log_tail(spawned.log_start).await;
            return Err(Error::Exited { detail });
        }
        Ok(())
    }

    async fn spawn(
        &self,
        raised: &[RaisedParameter],
        deadline: Instant,
    ) -> Result<(Spawned, ChildStdin), Error> {
        let settings = self.settings();
        let hot_standby_off =
            self.memory(|memory| memory.bootstrap.is_some_and(|files| files.hot_standby_off));
        let arguments = arguments(&settings, raised, hot_standby_off);
        let data_dir = settings.data_dir.clone();
        let log = settings
            .server_log
            .clone()
            .unwrap_or_else(|| PathBuf::from("/dev/null"));
        let seen_log = log.clone();
        let (stale, log_start) = self
            .disk("reading postmaster.pid", deadline, move || {
                let length = std::fs::metadata(&seen_log).map_or(0, |metadata| metadata.len());
                Ok((postmaster::stale_pid(&data_dir), length))
            })
            .await?;

        let mut command = Command::new("setsid");
        command.args(["sh", "-c", SPAWN, "sh"]).arg(&log);
        command.arg(settings.binary("postgres")).args(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        hand_on(std::env::vars_os(), &mut command);
        if let Some(pid) = stale {
            command.env("PG_GRANDPARENT_PID", pid.to_string());
        }
        let failed = |source| {
            Error::from(crate::CommandError::Spawn {
                program: settings.binary("postgres"),
                source,
            })
        };
        let mut shell = timeout_at(deadline, crate::command::spawn(command))
            .await
            .map_err(|_| Error::deadline("spawning the postmaster"))?
            .map_err(failed)?;
        let gate = shell.stdin.take().ok_or_else(|| {
            Error::NotPossible("the shell that starts PostgreSQL has no input".into())
        })?;
        let mut text = String::new();
        let answer = async {
            if let Some(stdout) = &mut shell.stdout {
                stdout.read_to_string(&mut text).await?;
            }
            shell.wait().await
        };
        timeout_at(deadline, answer)
            .await
            .map_err(|_| Error::deadline("spawning the postmaster"))?
            .map_err(failed)?;
        let pid: i32 = text.trim().parse().map_err(|_| {
            Error::NotPossible(format!(
                "the shell that starts PostgreSQL said {text:?}, not a process id"
            ))
        })?;
        tracing::info!("postmaster pid={pid}");
        match postmaster::start_ticks(pid) {
            Some(start_ticks) => {
                let identity = PostmasterIdentity { pid, start_ticks };
                let log_start = Some(log_start);
                Ok((
                    Spawned {
                        identity,
                        log_start,
                    },
                    gate,
                ))
            }
            None => Err(Error::Exited {
                detail: self.log_tail(Some(log_start)).await,
            }),
        }
    }

    /// What the server wrote to its log since it was started.
    async fn log_tail(&self, start: Option<u64>) -> String {
        let log = self.settings().server_log.clone();
        let (Some(log), Some(start)) = (log, start) else {
            return "see its log for the reason".into();
        };
        let read = self.disk(
            "reading the server log",
            Instant::now() + PROBE,
            move || {
                let mut file = std::fs::File::open(&log).map_err(Error::file("read", &log))?;
                let length = file.metadata().map_or(0, |metadata| metadata.len());
                let from = start.max(length.saturating_sub(LOG_TAIL));
                let mut bytes = Vec::new();
                file.seek(SeekFrom::Start(from))
                    .and_then(|_| file.take(LOG_TAIL).read_to_end(&mut bytes))
                    .map_err(Error::file("read", &log))?;
                Ok(String::from_utf8_lossy(&bytes).trim().replace('\n', "; "))
            },
        );
        read.await
            .unwrap_or_else(|_| "its log could not be read".into())
    }
}

struct Spawned {
    identity: PostmasterIdentity,
    /// Length of the log before the start.
    log_start: Option<u64>,
}

/// Variables of the agent that PostgreSQL has no business with (`configuration.md` §1.8).
fn is_agents_own(name: &str) -> bool {
    name.starts_with("PATRONI_") || name.starts_with("KUBERNETES_")
}

/// What the postmaster gets of the agent's environment (`configuration.md` §1.8).
fn hand_on(environment: impl Iterator<Item = (OsString, OsString)>, command: &mut Command) {
    for (name, value) in environment {
        if is_agents_own(&name.to_string_lossy()) || is_withheld(&name, &value) {
            command.env_remove(&name);
        }
        if name == "PG_MALLOC_ARENA_MAX" {
            command.env_remove(&name).env("MALLOC_ARENA_MAX", value);
        }
    }
}

/// The postmaster's arguments (`configuration.md` §1.8).
fn arguments(
    settings: &Settings,
    raised: &[RaisedParameter],
    hot_standby_off: bool,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["-D".into(), settings.data_dir.clone().into()];
    arguments.push(format!("--config-file={}", settings.config_file().display()).into());
    for (name, value) in &settings.command_line {
        let control = raised.iter().find(|parameter| parameter.name == *name);
        let value = match control {
            Some(raised) => &raised.control,
            None if hot_standby_off && name == "hot_standby" => "off",
            None => value,
        };
        arguments.push(format!("--{name}={value}").into());
    }
    arguments
}

/// What the control file demands beyond the configuration.
fn raised(settings: &Settings, control: &ControlFile) -> Vec<RaisedParameter> {
    let command_line: IndexMap<_, _> = settings
        .command_line
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let mut raised = Vec::new();
    for (name, label) in CONTROL_MINIMUMS {
        let configured = command_line
            .get(name)
            .copied()
            .or_else(|| settings.parameters.get(*name).map(String::as_str));
        let Some(configured) = configured else {
            continue;
        };
        let Some(control) = control.fields.get(*label) else {
            tracing::warn!("pg_controldata shows no {label}; {name} stays as configured");
            continue;
        };
        let number = |text: &str| text.trim().parse::<i64>().ok();
        if number(control) > number(configured) {
            raised.push(RaisedParameter {
                name: (*name).into(),
                control: control.clone(),
                configured: configured.into(),
            });
        }
    }
    raised
}

/// Directories that the server writes to (`configuration.md` §6.8).
fn make_directories(settings: &Settings) -> Result<(), Error> {
    let listed = |name: &str| {
        settings
            .parameters
            .get(name)
            .map(String::as_str)
            .unwrap_or_default()
    };
    let sockets = listed("unix_socket_directories").split(',').map(str::trim);
    let mut directories: Vec<PathBuf> = sockets
        .chain([listed("stats_temp_directory").trim()])
        // Linux sockets in the abstract namespace begin with @ and have no directory.
        .filter(|path| !path.is_empty() && !path.starts_with('@'))
        .map(|path| settings.data_dir.join(path))
        .collect();
    if settings.krbsrvname.is_none() && settings.replication.password.is_some() {
        directories.extend(
            settings
                .pgpass
                .parent()
                .filter(|p| !p.as_os_str().is_empty())
                .map(Path::to_path_buf),
        );
    }
    for directory in directories {
        std::fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
        rustix::fs::access(&directory, rustix::fs::Access::WRITE_OK)
            .map_err(|error| Error::file("write into", &directory)(error.into()))?;
    }
    if let Some(log) = &settings.server_log {
        // Opened here first, so that a wrong path is an error that says so.
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .map_err(Error::file("write", log))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::parse_controldata;

    fn settings() -> Settings {
        let mut settings = Settings::new("pg1", "batman", "/data");
        settings.command_line = [
            ("max_connections", "100"),
            ("hot_standby", "on"),
            ("max_wal_senders", "10"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        settings
            .parameters
            .insert("max_worker_processes".into(), "8".into());
        settings
    }

    // `configuration.md` §1.8.
    #[test]
    fn the_postmaster_gets_the_agents_environment_without_what_is_the_agents_own() {
        let agents = [
            ("PATRONI_SCOPE", "demo"),
            ("PATRONI_SITE", "east"),
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
            ("NOTIFY_SOCKET", "/run/systemd/notify"),
            ("PG_MALLOC_ARENA_MAX", "2"),
            ("PGTZ", "UTC"),
            ("MY_PATRONI_SCOPE", "demo"),
        ];
        let mut command = Command::new("postgres");
        let words = |(name, value): (&str, &str)| (name.into(), value.into());
        hand_on(agents.into_iter().map(words), &mut command);
        // Everything that is not named here is inherited.
        let mut changed: Vec<_> = command
            .as_std()
            .get_envs()
            .map(|(name, value)| (name.to_str().unwrap(), value.map(|v| v.to_str().unwrap())))
            .collect();
        changed.sort_unstable();
        assert_eq!(
            changed,
            [
                ("KUBERNETES_SERVICE_HOST", None),
                ("MALLOC_ARENA_MAX", Some("2")),
                ("NOTIFY_SOCKET", None),
                ("PATRONI_SCOPE", None),
                ("PATRONI_SITE", None),
                ("PG_MALLOC_ARENA_MAX", None),
            ]
        );
    }

    #[test]
    fn a_standby_gets_what_its_primary_had() {
        let control = parse_controldata(
            "Database cluster state: in archive recovery\nmax_connections setting: 200\n\
             max_wal_senders setting: 5\nmax_worker_processes setting: 9\nmax_prepared_xacts setting: 7\n",
        );
        let raised = raised(&settings(), &control.unwrap());
        let names: Vec<_> = raised
            .iter()
            .map(|p| (p.name.as_str(), p.control.as_str()))
            .collect();
        assert_eq!(
            names,
            [("max_connections", "200"), ("max_worker_processes", "9")]
        );
        let arguments = arguments(&settings(), &raised, true);
        let expected = [
            "-D",
            "/data",
            "--config-file=/data/postgresql.conf",
            "--max_connections=200",
            "--hot_standby=off",
            "--max_wal_senders=10",
        ];
        assert_eq!(arguments, expected);
    }
}
