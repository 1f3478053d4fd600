use primacy_model::{Lsn, SystemIdentifier, Timeline};
use tokio::time::Instant;

use crate::Error;
use crate::conninfo::Conninfo;
use crate::settings::Credentials;

/// IDENTIFY_SYSTEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// `systemid`.
    pub system_identifier: SystemIdentifier,
    /// `timeline`.
    pub timeline: Timeline,
    /// `xlogpos`.
    pub lsn: Lsn,
}

/// A connection in physical replication mode.
pub struct WalsenderClient {}

impl WalsenderClient {
    /// Connects and authenticates.
    pub async fn connect(
        target: &Conninfo,
        credentials: &Credentials,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let _ = (target, credentials, deadline);
        todo!()
    }

    /// IDENTIFY_SYSTEM.
    pub async fn identify_system(&mut self, deadline: Instant) -> Result<SystemIdentity, Error> {
        let _ = deadline;
        todo!()
    }

    /// TIMELINE_HISTORY: the file's text.
    pub async fn timeline_history(
        &mut self,
        timeline: Timeline,
        deadline: Instant,
    ) -> Result<String, Error> {
        let _ = (timeline, deadline);
        todo!()
    }
}
