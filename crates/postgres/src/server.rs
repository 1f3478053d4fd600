use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use indexmap::IndexMap;
use primacy_model::{Lsn, PostmasterIdentity, Probes, Process, Timeline};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use crate::listening::{self, Listening};
use crate::postmaster::Listens;
use crate::session::Session;
use crate::settings::Settings;
use crate::{Error, postmaster};

/// Disk operations at once. A hung disk holds at most so many threads; later ones fail at their deadline.
const DISK_THREADS: usize = 8;

/// The local server. Cheap to clone; clones share the pooled connection and the settings.
#[derive(Clone)]
pub struct Server {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    /// As configured, but for addresses that wait for a restart.
    settings: RwLock<Arc<Settings>>,
    memory: Mutex<Memory>,
    disk: Arc<Semaphore>,
    reloads: watch::Sender<u64>,
    pub(crate) session: Session,
    /// What the probes found last.
    pub(crate) probes: Mutex<Probes>,
}

/// What is remembered between operations.
#[derive(Default)]
pub(crate) struct Memory {
    /// Recovery settings last written to the configuration file; `None` when this agent wrote none yet.
    pub(crate) recovery: Option<IndexMap<String, String>>,
    /// Parameters over those of the settings; `None` removes one.
    pub(crate) overrides: IndexMap<String, Option<String>>,
    /// The postmaster seen last; it may be dead by now.
    pub(crate) postmaster: Option<PostmasterIdentity>,
    /// The settings that came last, as they came.
    pub(crate) configured: Option<Arc<Settings>>,
    /// Where a postmaster listens that was seen.
    pub(crate) listening: Option<Listening>,
    /// The major version of the data directory, once it was seen.
    pub(crate) major: Option<u32>,
    /// The timeline last seen replayed, by which run of the server, up to where.
    pub(crate) replayed: Option<(String, Lsn, Timeline)>,
    /// A custom bootstrap is under way.
    pub(crate) bootstrap: Option<BootstrapFiles>,
}

/// How the files differ during a custom bootstrap (`configuration.md` §6.3).
#[derive(Clone, Copy)]
pub(crate) struct BootstrapFiles {
    pub(crate) keep_recovery: bool,
    pub(crate) hot_standby_off: bool,
}

impl Server {
    /// A server as configured. Touches nothing.
    pub fn new(settings: Settings) -> Self {
        Server {
            inner: Arc::new(Inner {
                settings: RwLock::new(Arc::new(settings)),
                memory: Mutex::default(),
                disk: Arc::new(Semaphore::new(DISK_THREADS)),
                reloads: watch::Sender::default(),
                session: Session::default(),
                probes: Mutex::default(),
            }),
        }
    }

    /// The settings in use.
    pub fn settings(&self) -> Arc<Settings> {
        self.inner
            .settings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes over new settings. Operations under way keep the ones they began with; no file is written. Where the server
    /// listens changes with its next start.
    pub fn replace_settings(&self, settings: Settings) {
        let settings = self.memory(|memory| {
            memory.configured = Some(Arc::new(settings.clone()));
            match &mut memory.listening {
                Some(listening) => listening.hold(settings),
                None => settings,
            }
        });
        self.put_in_force(Arc::new(settings));
    }

    /// Whether the server that runs is still found where an older configuration had it.
    pub fn listens_elsewhere(&self) -> bool {
        let configured = self.memory(|memory| memory.configured.clone());
        let in_force = self.settings();
        configured.is_some_and(|configured| {
            configured.port != in_force.port
                || configured.listen_addresses != in_force.listen_addresses
                || configured.local != in_force.local
                || configured.local_replication != in_force.local_replication
        })
    }

    fn put_in_force(&self, settings: Arc<Settings>) {
        *self
            .inner
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// Changes with every reload of the server's files, whatever it was for.
    pub fn reloads(&self) -> watch::Receiver<u64> {
        self.inner.reloads.subscribe()
    }

    pub(crate) fn reloaded(&self) {
        self.inner.reloads.send_modify(|count| *count += 1);
    }

    pub(crate) fn memory<T>(&self, use_it: impl FnOnce(&mut Memory) -> T) -> T {
        use_it(
            &mut self
                .inner
                .memory
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Does blocking work on a thread of its own; a hung disk cannot hang the caller (`ha.md` W5).
    pub(crate) async fn disk<T: Send + 'static>(
        &self,
        what: &str,
        deadline: Instant,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let late = || Error::deadline(what);
        let permit = timeout_at(deadline, self.inner.disk.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| late())?;
        let task = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        match timeout_at(deadline, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(Error::NotPossible(format!("{what} broke off: {panic}"))),
            Err(_) => Err(late()),
        }
    }

    /// The process that holds the data directory. While the disk does not answer that is the one seen last, as
    /// long as it lives.
    pub async fn process(&self, deadline: Instant) -> Result<Process, Error> {
        let data_dir = self.settings().data_dir.clone();
        let last = self.memory(|memory| memory.postmaster);
        let found = self
            .disk("reading postmaster.pid", deadline, move || {
                let process = postmaster::find(&data_dir, last)
                    .map_err(Error::file("read", data_dir.join("postmaster.pid")))?;
                let running = process.postmaster();
                let listens = running.and_then(|running| postmaster::listens(&data_dir, running));
                Ok((process, listens))
            })
            .await;
        match found {
            Ok((process, listens)) => {
                self.saw(process, listens.as_ref());
                Ok(process)
            }
            Err(error @ Error::Deadline { .. }) => match self.last_process() {
                Process::Absent => Err(error),
                process => Ok(process),
            },
            Err(error) => Err(error),
        }
    }

    /// Remembers the postmaster, and where it says that it listens: the configuration may have changed while no agent ran.
    pub(crate) fn saw(&self, process: Process, listens: Option<&Listens>) {
        let postmaster = process.postmaster();
        let anew = self.memory(|memory| {
            let last = memory.postmaster;
            // A look that began before the postmaster did does not have it forgotten.
            memory.postmaster = postmaster.or(last.filter(|last| postmaster::is_alive(*last)));
            let postmaster = postmaster?;
            let known = memory.listening.as_ref();
            if known.is_some_and(|listening| listening.is_of(postmaster)) {
                return None;
            }
            let configured = memory.configured.clone();
            let configured = configured.unwrap_or_else(|| self.settings());
            let mut in_force = Settings::clone(&configured);
            if let Some(listens) = listens {
                listening::adopt(&mut in_force, listens);
            }
            memory.configured = Some(configured);
            memory.listening = Some(Listening::new(postmaster, &in_force));
            Some(in_force)
        });
        if let Some(settings) = anew {
            self.put_in_force(Arc::new(settings));
        }
    }

    /// Kills backends whose postmaster died under them: what they were doing they may still commit.
    /// Returns how many there were.
    pub async fn kill_leftovers(&self, deadline: Instant) -> Result<usize, Error> {
        let data_dir = self.settings().data_dir.clone();
        let last = self.memory(|memory| memory.postmaster);
        self.disk(
            "looking for leftover backends",
            deadline,
            move || match postmaster::find(&data_dir, last) {
                Ok(Process::Absent) => Ok(postmaster::kill_leftovers(&data_dir)),
                Ok(_) => Ok(0),
                Err(source) => Err(Error::file("read", data_dir.join("postmaster.pid"))(source)),
            },
        )
        .await
    }

    /// The running postmaster, or an error that says that there is none.
    pub(crate) async fn running(&self, deadline: Instant) -> Result<PostmasterIdentity, Error> {
        match self.process(deadline).await? {
            Process::Running(identity) => Ok(identity),
            Process::Absent | Process::Dying(_) => {
                Err(Error::NotPossible("PostgreSQL is not running".into()))
            }
            Process::SingleUser(identity) => Err(Error::NotPossible(format!(
                "a single-user backend (process {}) holds the data directory",
                identity.pid
            ))),
        }
    }

    /// Sends a signal to the postmaster.
    pub(crate) fn signal(
        &self,
        identity: PostmasterIdentity,
        signal: rustix::process::Signal,
    ) -> Result<bool, Error> {
        postmaster::signal(identity, signal).map_err(|error: io::Error| {
            Error::NotPossible(format!(
                "cannot signal the postmaster {}: {error}",
                identity.pid
            ))
        })
    }
}
