use std::fmt;

use serde_json::Value;

use crate::local::{Log, RaftSection};
use crate::{ConfigError, Map, Warning};

/// What a member of the embedded store without PostgreSQL needs of the configuration (`configuration.md` §7.5): one
/// section, and the log. An agent's file serves as well; what else it has is left unread.
#[derive(Clone, PartialEq)]
pub struct WitnessConfig {
    /// The store. `self_addr` is set.
    pub raft: RaftSection,
    /// Logging.
    pub log: Log,
    /// What was set aside or adjusted.
    pub warnings: Vec<Warning>,
    /// The local layer as given.
    pub tree: Value,
}

/// Leaves the tree out, which holds a password.
impl fmt::Debug for WitnessConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WitnessConfig")
            .field("raft", &self.raft)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

impl WitnessConfig {
    /// Reads the local tree.
    ///
    /// # Errors
    /// There is no `raft` section, it has no `self_addr`, or one of both sections cannot be used.
    pub fn from_local(tree: Value) -> Result<WitnessConfig, ConfigError> {
        let empty = Map::new();
        let root = tree.as_object().unwrap_or(&empty);
        let raft = RaftSection::of(root)?;
        if raft.self_addr.is_none() {
            return Err(ConfigError::missing(
                "raft.self_addr",
                "A witness is a member of the store: give the host:port at which the others reach it",
            ));
        }
        let mut warnings = Vec::new();
        let log = Log::parse(root, &mut warnings)?;
        Ok(WitnessConfig {
            raft,
            log,
            warnings,
            tree,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_section_is_enough() {
        let tree = json!({
            "raft": {"self_addr": "10.0.0.3:2380", "partner_addrs": ["10.0.0.1:2380"], "password": "secret"},
            "log": {"level": "DEBUG"},
        });
        let config = WitnessConfig::from_local(tree).unwrap();
        assert_eq!(
            config.raft.self_addr.as_ref().unwrap().to_string(),
            "10.0.0.3:2380"
        );
        assert_eq!(config.log.level, "DEBUG");
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn what_is_missing_is_named() {
        for tree in [
            json!({"raft": {"partner_addrs": ["10.0.0.1:2380"]}}),
            json!({"etcd3": {"host": "10.0.0.1:2379"}}),
            json!({}),
        ] {
            let error = WitnessConfig::from_local(tree).unwrap_err().to_string();
            assert!(
                error.starts_with("raft.self_addr is not defined"),
                "{error}"
            );
        }
    }
}
