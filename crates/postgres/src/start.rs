use std::time::Duration;

use primacy_model::PostmasterIdentity;
use tokio_util::sync::CancellationToken;

use crate::follow::RecoveryTarget;
use crate::{Error, Server};

/// How to start.
#[derive(Clone, Debug)]
pub struct StartRequest {
    /// As a standby of this, or, when `None`, as a primary.
    pub recovery: Option<RecoveryTarget>,
    /// How long to wait for readiness; then the start has failed. `None` waits `pg_ctl_timeout` and
    /// leaves a server that is still starting alone.
    pub timeout: Option<Duration>,
    /// Stops the waiting; also the start itself when the postmaster was not spawned yet.
    pub cancel: CancellationToken,
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
        let _ = request;
        todo!()
    }
}
