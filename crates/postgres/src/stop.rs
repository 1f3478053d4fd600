use std::time::Duration;

use primacy_model::{Lsn, Timeline};
use tokio::sync::mpsc;

use crate::{Error, Server};

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
    /// When to escalate (fast to immediate to SIGKILL); `None` waits for ever in the first mode.
    pub timeout: Option<Duration>,
    /// Told what happens, as it happens. Never blocks the stop: events that find no room are dropped.
    pub events: Option<mpsc::Sender<StopEvent>>,
}

/// What happened on the way down, in this order, each at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopEvent {
    /// No client backend is left: nobody can acknowledge a commit any more (`ha.md` §12.3 safepoint).
    NoBackends,
    /// The control file says "shut down" while the postmaster still lives, archiving or sending WAL.
    CheckpointWritten {
        /// Where the shutdown checkpoint is.
        checkpoint_lsn: Lsn,
        /// The position that a replica must have: the checkpoint, or the WAL switch record before it.
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

impl Server {
    /// Stops the server (`ha.md` §12.3). Ends with no process left, or an error.
    pub async fn stop(&self, request: StopRequest) -> Result<Stopped, Error> {
        let _ = request;
        todo!()
    }
}
