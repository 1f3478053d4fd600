//! Stopping the server (`ha.md` §12.3).

use std::time::Duration;

use primacy_model::{ControlState, Lsn, PostmasterIdentity, Process, Readiness, Timeline};
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{Error, Server, Until, postmaster, session};

/// For reading files and sending the signal.
const PREPARE: Duration = Duration::from_secs(10);
/// For a CHECKPOINT before the signal when the request has no timeout: what remains is written by the
/// shutdown checkpoint.
const CHECKPOINT: Duration = Duration::from_secs(300);
/// For the `before_stop` hook when the request has no timeout.
const HOOK: Duration = Duration::from_secs(300);
/// An immediate shutdown takes no longer than this when the system works: the postmaster kills what has
/// not ended in 5 s.
const IMMEDIATE: Duration = Duration::from_secs(20);
/// A killed process is gone by then, unless the kernel holds it.
const DYING: Duration = Duration::from_secs(1);
/// For killed processes to be gone.
const KILLED: Duration = Duration::from_secs(10);
/// How often backends are looked for.
const POLL: Duration = Duration::from_millis(50);
/// How often the control file is read.
const CONTROL_POLL: Duration = Duration::from_millis(200);

/// PostgreSQL's shutdown modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Waits for clients to leave.
    Smart,
    /// Ends sessions, writes the shutdown checkpoint.
    Fast,
    /// Ends at once; crash recovery at the next start.
    Immediate,
}

/// How to stop.
#[derive(Clone, Debug)]
pub struct StopRequest {
    /// Mode to begin with.
    pub mode: StopMode,
    /// CHECKPOINT before the signal, so that the shutdown checkpoint is short.
    pub checkpoint: bool,
    /// When to escalate (fast to immediate to SIGKILL), counted for each mode. `None` waits in a smart or
    /// fast shutdown until it is done: dropping the future ends the wait.
    pub timeout: Option<Duration>,
    /// Told what happens, as it happens. Never blocks the stop: events that find no room are dropped, so
    /// leave room for three.
    pub events: Option<mpsc::Sender<StopEvent>>,
}

/// What happened on the way down, each at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopEvent {
    /// No client backend is left: nobody can acknowledge a commit any more (`ha.md` §12.3, safepoint).
    NoBackends,
    /// The control file says "shut down". The postmaster may still live, archiving or sending WAL.
    CheckpointWritten {
        /// Where the shutdown checkpoint is.
        checkpoint_lsn: Lsn,
        /// The position that a replica must have: the checkpoint, or the WAL switch record before it.
        /// `None` when it could not be found out.
        previous_lsn: Option<Lsn>,
        /// Its timeline.
        timeline: Option<Timeline>,
    },
    /// No process is left.
    Stopped,
}

/// The server is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// A signal was sent: it had been running.
    pub was_running: bool,
    /// The mode that ended it; `None` when it took SIGKILL, or nothing.
    pub mode: Option<StopMode>,
}

impl StopMode {
    fn signal(self) -> Signal {
        match self {
            StopMode::Smart => Signal::TERM,
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        }
    }
}

impl Server {
    /// Stops the server (`ha.md` §12.3). Ends with no process left, or with processes that were killed and hang in
    /// the kernel, which never get back to acknowledge anything; or an error. Runs `before_stop`.
    ///
    /// Cancel safety: dropping the future leaves the server where it is on its way down.
    pub async fn stop(&self, request: StopRequest) -> Result<Stopped, Error> {
        self.stop_announced(request, async {}).await
    }

    /// As [`Server::stop`], with something that is done, and waited for, after checkpoint and `before_stop`, right before a
    /// server that runs is told to stop. It must come to an end by itself.
    pub async fn stop_announced(
        &self,
        request: StopRequest,
        announcement: impl Future<Output = ()>,
    ) -> Result<Stopped, Error> {
        let mut events = Events {
            sender: request.events.clone(),
            no_backends: false,
            checkpoint: false,
        };
        let prepare = Instant::now() + PREPARE;
        let identity = match self.process(prepare).await? {
            Process::Running(identity) => identity,
            Process::Absent => {
                self.kill_leftovers(prepare).await?;
                events.no_backends();
                events.send(StopEvent::Stopped);
                return Ok(Stopped {
                    was_running: false,
                    mode: None,
                });
            }
            Process::Dying(_) => {
                events.no_backends();
                events.send(StopEvent::Stopped);
                return Ok(Stopped {
                    was_running: true,
                    mode: None,
                });
            }
            Process::SingleUser(identity) => {
                return Err(Error::NotPossible(format!(
                    "a single-user backend (process {}) holds the data directory; it is left to finish",
                    identity.pid
                )));
            }
        };
        self.before_signal(&request).await;
        announcement.await;
        // Our own session would keep a smart shutdown waiting.
        self.close_session(Instant::now() + PREPARE).await;
        self.signal(identity, request.mode.signal())?;
        let deadline = match (request.mode, request.timeout) {
            (StopMode::Immediate, timeout) => Some(Instant::now() + timeout.unwrap_or(IMMEDIATE)),
            (_, timeout) => timeout.map(|timeout| Instant::now() + timeout),
        };
        let mut mode = Some(request.mode);
        if !self
            .descend(identity, request.mode, deadline, &mut events)
            .await
        {
            mode = self
                .escalate(identity, request.mode, request.timeout)
                .await?;
        }
        // A postmaster that was killed may leave backends.
        match self.kill_leftovers(Instant::now() + PREPARE).await {
            // It was killed together with all of them; only the disk cannot be asked.
            Err(error @ Error::Deadline { .. }) if mode.is_none() => tracing::warn!("{error}"),
            result => drop(result?),
        }
        events.no_backends();
        if mode == Some(StopMode::Fast) || mode == Some(StopMode::Smart) {
            self.look_for_checkpoint(Instant::now() + PREPARE, &mut events)
                .await;
        }
        events.send(StopEvent::Stopped);
        Ok(Stopped {
            was_running: true,
            mode,
        })
    }

    async fn before_signal(&self, request: &StopRequest) {
        if request.checkpoint {
            let deadline = Instant::now() + request.timeout.unwrap_or(CHECKPOINT);
            if let Err(error) = self.checkpoint(deadline).await {
                tracing::warn!("no checkpoint before the stop: {error}");
            }
        }
        let Some(hook) = self.settings().before_stop.clone() else {
            return;
        };
        let server = self.clone();
        let until = Until::deadline(Instant::now() + request.timeout.unwrap_or(HOOK));
        let run = async move {
            if let Err(error) = server.run_hook(&hook, until).await {
                tracing::warn!("before_stop: {error}");
            }
        };
        if request.mode == StopMode::Immediate {
            // A server that may not accept writes any more waits for nobody.
            tokio::spawn(run);
        } else {
            run.await;
        }
    }

    /// Follows the shutdown; whether it ended in time.
    async fn descend(
        &self,
        identity: PostmasterIdentity,
        mode: StopMode,
        deadline: Option<Instant>,
        events: &mut Events,
    ) -> bool {
        let follow = async {
            if mode != StopMode::Immediate {
                self.until_no_backends(identity).await;
                events.no_backends();
                while events.sender.is_some() && !events.checkpoint {
                    self.look_for_checkpoint(Instant::now() + PREPARE, events)
                        .await;
                    sleep(CONTROL_POLL).await;
                }
            }
            std::future::pending::<()>().await;
        };
        let ended = async {
            tokio::select! {
                () = postmaster::postmaster_death(identity) => {}
                () = follow => {}
            }
        };
        match deadline {
            Some(deadline) => timeout_at(deadline, ended).await.is_ok(),
            None => {
                ended.await;
                true
            }
        }
    }

    /// The postmaster takes no more clients, and none is left.
    async fn until_no_backends(&self, identity: PostmasterIdentity) {
        let settings = self.settings();
        while session::readiness(&settings, Instant::now() + PREPARE).await == Readiness::Accepting
        {
            sleep(POLL).await;
        }
        let cluster_name = settings
            .parameters
            .get("cluster_name")
            .unwrap_or(&settings.scope)
            .clone();
        while !postmaster::client_backends(identity.pid, &cluster_name).is_empty() {
            sleep(POLL).await;
        }
    }

    async fn look_for_checkpoint(&self, deadline: Instant, events: &mut Events) {
        if events.checkpoint || events.sender.is_none() {
            return;
        }
        let Ok(control) = self.control_file(deadline).await else {
            return;
        };
        if control.data.state != ControlState::ShutDown {
            return;
        }
        let checkpoint_lsn = control.data.checkpoint_lsn;
        let timeline = control.data.checkpoint_timeline;
        let previous_lsn = match timeline {
            Some(timeline) => {
                self.position_before_checkpoint(checkpoint_lsn, timeline, deadline)
                    .await
            }
            None => None,
        };
        events.checkpoint = true;
        events.send(StopEvent::CheckpointWritten {
            checkpoint_lsn,
            previous_lsn,
            timeline,
        });
    }

    /// Fast did not do: immediate, then SIGKILL. Returns the mode that worked.
    async fn escalate(
        &self,
        identity: PostmasterIdentity,
        mode: StopMode,
        timeout: Option<Duration>,
    ) -> Result<Option<StopMode>, Error> {
        let limit = timeout.unwrap_or(IMMEDIATE);
        if mode != StopMode::Immediate {
            tracing::warn!("PostgreSQL did not stop in time; stopping it with mode immediate");
            self.signal(identity, StopMode::Immediate.signal())?;
            let gone = postmaster::postmaster_death(identity);
            if timeout_at(Instant::now() + limit, gone).await.is_ok() {
                return Ok(Some(StopMode::Immediate));
            }
        }
        tracing::warn!("PostgreSQL did not stop in time; killing it");
        postmaster::kill_now(identity)
            .map_err(|error| Error::NotPossible(format!("cannot kill the postmaster: {error}")))?;
        let gone = || postmaster::postmaster_death(identity);
        if timeout_at(Instant::now() + DYING, gone()).await.is_ok() {
            return Ok(None);
        }
        if postmaster::is_doomed(identity) {
            tracing::warn!(
                "the killed postmaster {} cannot end before its disk answers",
                identity.pid
            );
            return Ok(None);
        }
        match timeout_at(Instant::now() + KILLED, gone()).await {
            Ok(()) => Ok(None),
            Err(_) => Err(Error::deadline(format!(
                "the end of the killed postmaster {}",
                identity.pid
            ))),
        }
    }
}

struct Events {
    sender: Option<mpsc::Sender<StopEvent>>,
    no_backends: bool,
    checkpoint: bool,
}

impl Events {
    fn no_backends(&mut self) {
        if !std::mem::replace(&mut self.no_backends, true) {
            self.send(StopEvent::NoBackends);
        }
    }

    fn send(&self, event: StopEvent) {
        if let Some(sender) = &self.sender {
            let _ = sender.try_send(event);
        }
    }
}
