//! The store for those who are no members: operators' commands.

use std::sync::Arc;

use primacy_dcs::Store;

use crate::{RaftConfig, RaftError};

/// The store as seen from outside the group: asks any member that answers.
pub struct RaftClient {}

impl RaftClient {
    /// A client of the members that the configuration names, `self_addr` included. Connects when asked
    /// something.
    pub fn new(_config: &RaftConfig) -> Result<RaftClient, RaftError> {
        Err(RaftError::Core {
            reason: "not built yet".into(),
        })
    }

    /// The store.
    pub fn store(&self) -> Arc<dyn Store> {
        unreachable!("new never succeeds yet")
    }
}
