//! A member of the group.

use std::sync::Arc;

use primacy_dcs::Store;

use crate::{RaftConfig, RaftError};

/// A member: an agent's, or a witness without PostgreSQL.
pub struct RaftNode {}

/// What a member knows of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its own address.
    pub addr: String,
    /// All members' addresses.
    pub members: Vec<String>,
    /// The leader's address, when known.
    pub leader: Option<String>,
    /// The term.
    pub term: u64,
    /// The last log index applied here.
    pub applied: u64,
    /// `joining`, `recovering`, `learner`, `follower`, `candidate`, `leader`, `stopped`.
    pub state: &'static str,
    /// Why it does not take part, when it does not.
    pub trouble: Option<String>,
}

impl RaftNode {
    /// Opens the file, listens, and joins the group in the background. Does not wait for a leader.
    pub async fn start(_config: RaftConfig) -> Result<RaftNode, RaftError> {
        Err(RaftError::Core {
            reason: "not built yet".into(),
        })
    }

    /// The store, as seen from this member.
    pub fn store(&self) -> Arc<dyn Store> {
        unreachable!("start never succeeds yet")
    }

    /// What the member knows now.
    pub fn status(&self) -> NodeStatus {
        unreachable!("start never succeeds yet")
    }

    /// Leaves the group's talk, closes the file and the port.
    pub async fn shutdown(self) {}
}
