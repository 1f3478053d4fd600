use std::fmt;

use serde_json::Value;

use crate::local::{Ctl, DcsSection, LocalConfig, RestApi};
use crate::{ConfigError, GlobalConfig, Map, TimingLimits, Warning};

/// Local and dynamic configuration laid together (`configuration.md` §1.4), and the typed views of it.
#[derive(Clone, PartialEq)]
pub struct Effective {
    /// The typed settings of this member. Its `postgresql` section holds what both layers gave.
    pub local: LocalConfig,
    /// The cluster-wide settings.
    pub global: GlobalConfig,
    /// The effective tree.
    pub tree: Map,
    /// The local layer as given: environment over file.
    pub local_tree: Value,
    /// The dynamic layer, its timings clamped (§3.2); this is what `patroni.dynamic.json` keeps.
    pub dynamic: Map,
    /// What was set aside or adjusted.
    pub warnings: Vec<Warning>,
}

impl Effective {
    /// Builds the effective configuration. `limits` are those of the store; [`TimingLimits::of`] tells.
    ///
    /// # Errors
    /// A required key is missing or a value cannot be used; the text names the key.
    pub fn build(
        local: &Value,
        dynamic: &Map,
        limits: TimingLimits,
    ) -> Result<Effective, ConfigError> {
        let _ = (local, dynamic, limits);
        Err(ConfigError::Empty)
    }
}

/// Leaves the trees out, which hold passwords.
impl fmt::Debug for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Effective")
            .field("local", &self.local)
            .field("global", &self.global)
            .finish_non_exhaustive()
    }
}

/// What an operator's command needs of the configuration: how to reach the store and the members. Nothing
/// about PostgreSQL is required here.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientConfig {
    /// Cluster name, unless given on the command line.
    pub scope: Option<String>,
    /// First component of the store's paths, without slashes around it.
    pub namespace: String,
    /// The store.
    pub dcs: DcsSection,
    /// Credentials and certificates for the members' REST API; what `ctl` leaves out is taken from `restapi`.
    pub ctl: Ctl,
    /// The `restapi` section, if there is a usable one.
    pub restapi: Option<RestApi>,
    /// The local layer as given.
    pub tree: Value,
}

impl ClientConfig {
    /// Reads the local tree.
    ///
    /// # Errors
    /// No store is configured, or one of the sections cannot be used.
    pub fn from_local(local: &Value) -> Result<ClientConfig, ConfigError> {
        let _ = local;
        Err(ConfigError::Empty)
    }
}
