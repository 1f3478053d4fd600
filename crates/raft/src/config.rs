//! What a member or a client of the group is told.

use std::fmt;
use std::path::PathBuf;

use primacy_config::local::{RaftSection, RaftTimings};
use sha2::{Digest, Sha256};

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
    pub timings: RaftTimings,
}

impl From<&RaftSection> for RaftConfig {
    fn from(section: &RaftSection) -> Self {
        let partners = section.partner_addrs.iter();
        RaftConfig {
            self_addr: section.self_addr.as_ref().map(ToString::to_string),
            bind_addr: section.bind_addr.as_ref().map(ToString::to_string),
            partner_addrs: partners.map(ToString::to_string).collect(),
            data_dir: section.data_dir.clone(),
            password: section.password.as_ref().map(|it| it.expose().to_owned()),
            timings: section.timings,
        }
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

#[cfg(test)]
mod tests {
    use primacy_config::WitnessConfig;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_member_is_what_the_section_says() {
        let section = json!({
            "self_addr": "10.0.0.1:2380", "bind_addr": "0.0.0.0:2380", "partner_addrs": ["10.0.0.2:2380"],
            "data_dir": "/raft", "password": "secret", "append_entries_period": 0.2, "min_timeout": 0.7,
        });
        let section = WitnessConfig::from_local(json!({ "raft": section })).unwrap();
        let config = RaftConfig::from(&section.raft);
        assert_eq!(config.members(), ["10.0.0.1:2380", "10.0.0.2:2380"]);
        assert_eq!(config.bind_addr.as_deref(), Some("0.0.0.0:2380"));
        assert_eq!(config.data_dir, PathBuf::from("/raft"));
        assert_eq!(config.password.as_deref(), Some("secret"));
        assert_eq!(config.timings, section.raft.timings);
        assert_eq!(config.timings.min_timeout.as_millis(), 700);
    }
}
