use tokio::sync::watch;

use crate::conninfo::Conninfo;
use crate::{Error, Server, Until};

/// How far a base backup is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupProgress {
    /// Bytes copied.
    pub done_bytes: u64,
    /// Estimate of all bytes; 0 when not known yet.
    pub total_bytes: u64,
}

/// How to make this a replica.
#[derive(Clone, Debug, Default)]
pub struct ReplicaRequest {
    /// Host, port and database of the source; `None` leaves only methods that need none.
    pub source: Option<Conninfo>,
    /// Nothing but `basebackup` (a reinitialization from the leader).
    pub basebackup_only: bool,
    /// Methods instead of the configured ones (a standby cluster's names).
    pub methods: Option<Vec<String>>,
    /// Told of the progress of pg_basebackup.
    pub progress: Option<watch::Sender<BackupProgress>>,
}

impl Server {
    /// Fills the data directory by the configured methods (`ha.md` §6.3), wiping what they want wiped.
    /// After it the configuration files are restored; the server is not started. Returns the method.
    ///
    /// On failure or cancellation the data directory is wiped, except by methods with `keep_data`.
    pub async fn create_replica(
        &self,
        request: ReplicaRequest,
        until: Until,
    ) -> Result<String, Error> {
        let _ = (request, until);
        todo!()
    }
}
