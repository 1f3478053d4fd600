use primacy_model::Lsn;
use tokio::time::Instant;

use crate::{Error, Server};

/// Why a slot was not changed.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// Somebody uses it.
    #[error("replication slot {0} is active")]
    Active(String),
    /// There is none.
    #[error("replication slot {0} does not exist")]
    Missing(String),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] Error),
}

impl Server {
    /// Creates a physical slot that reserves WAL at once. `Ok(false)` when it exists already.
    pub async fn create_physical_slot(
        &self,
        name: &str,
        deadline: Instant,
    ) -> Result<bool, SlotError> {
        let _ = (name, deadline);
        todo!()
    }

    /// Drops a slot that nobody uses. `Ok(false)` when there is none.
    pub async fn drop_slot(&self, name: &str, deadline: Instant) -> Result<bool, SlotError> {
        let _ = (name, deadline);
        todo!()
    }

    /// Moves a slot forward, never back; returns where it ended.
    pub async fn advance_slot(
        &self,
        name: &str,
        to: Lsn,
        deadline: Instant,
    ) -> Result<Lsn, SlotError> {
        let _ = (name, to, deadline);
        todo!()
    }
}
