//! What a member or a client of the group is told.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::RaftError;

/// The `raft` section of the configuration (`configuration.md §2.10`).
#[derive(Clone)]
pub struct RaftConfig {
    /// This member's `host:port` as every other member spells it. `None`: not a member; see
    /// [`crate::RaftClient`].
    pub self_addr: Option<String>,
    /// What to listen on; `self_addr` when absent.
    pub bind_addr: Option<String>,
    /// The other members, each `host:port`.
    pub partner_addrs: Vec<String>,
    /// Where the member's file lives.
    pub data_dir: PathBuf,
    /// What the members know of each other, and nobody else.
    pub password: Option<String>,
    /// How patient the members are.
    pub timings: Timings,
}

/// How patient the members of a group are with each other. The same on every member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// How often the leader is heard of: `append_entries_period`.
    pub heartbeat: Duration,
    /// The shortest silence of the leader before an election: `min_timeout`.
    pub election_min: Duration,
    /// The longest silence of the leader before an election: `max_timeout`.
    pub election_max: Duration,
    /// How long making a connection may take, authentication included: `connection_timeout`.
    pub connect: Duration,
}

impl Default for Timings {
    /// A lost leader is noticed within a second. Worst case until the next one leads: a silence of
    /// `election_max`, a round of votes, and once more as long if two candidates split the votes.
    fn default() -> Self {
        Timings {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(500),
            election_max: Duration::from_millis(1000),
            connect: Duration::from_millis(3500),
        }
    }
}

impl Timings {
    /// Checks the rules of `configuration.md §2.10`.
    pub fn check(&self) -> Result<(), RaftError> {
        let refuse = |what: &str| {
            Err(RaftError::Config {
                what: what.to_owned(),
            })
        };
        if self.heartbeat < Duration::from_millis(1) {
            return refuse("append_entries_period must be at least a millisecond");
        }
        if self.election_min <= self.heartbeat * 3 {
            return refuse("min_timeout must be more than three times append_entries_period");
        }
        if self.election_max <= self.election_min {
            return refuse("max_timeout must be more than min_timeout");
        }
        if self.connect < self.election_max {
            return refuse("connection_timeout must not be less than max_timeout");
        }
        Ok(())
    }
}

impl RaftConfig {
    /// Every member's address, sorted: the set that all members must agree on.
    pub(crate) fn members(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .partner_addrs
            .iter()
            .chain(&self.self_addr)
            .map(|a| canonical(a))
            .collect();
        all.sort();
        all.dedup();
        all
    }
}

impl fmt::Debug for RaftConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftConfig")
            .field("self_addr", &self.self_addr)
            .field("bind_addr", &self.bind_addr)
            .field("partner_addrs", &self.partner_addrs)
            .field("data_dir", &self.data_dir)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("timings", &self.timings)
            .finish()
    }
}

/// One spelling per address: without blanks around, host in lower case.
pub(crate) fn canonical(addr: &str) -> String {
    addr.trim().to_lowercase()
}

/// A member's number in the group, the same on every machine and for ever: made of its address.
pub fn node_id(addr: &str) -> u64 {
    let digest = Sha256::digest(canonical(addr).as_bytes());
    digest
        .iter()
        .take(8)
        .fold(0, |id, byte| id << 8 | u64::from(*byte))
}
