//! The typed settings of one member (`configuration.md` §2).

mod bootstrap;
mod dcs;
mod log;
mod postgresql;
mod restapi;
mod watchdog;

use primacy_model::{MemberName, Tags};

pub use bootstrap::{Bootstrap, BootstrapMethod};
pub use dcs::{DcsSection, EtcdSection, RaftSection, RawSection};
pub use log::{Log, LogFormat, LogType};
pub use postgresql::{
    Authentication, Callbacks, Credentials, Postgresql, ReplicaMethod, RoleOverride, ToolOption,
    ToolOptions,
};
pub use restapi::{BasicAuth, Ctl, RestApi, ServerTokens, VerifyClient};
pub use watchdog::{Watchdog, WatchdogMode};

/// The member's own settings. The `postgresql` section is built from the effective configuration, since
/// the dynamic layer sets parts of it too (§1.5).
#[derive(Clone, Debug, PartialEq)]
pub struct LocalConfig {
    /// Cluster name.
    pub scope: String,
    /// Member name, unique in the cluster; also `application_name` of its replication connections.
    pub name: MemberName,
    /// First component of the store's paths, as configured (`service` when it is not).
    pub namespace: String,
    /// The REST API that this member serves.
    pub restapi: RestApi,
    /// How this member calls the REST API of others.
    pub ctl: Ctl,
    /// Logging.
    pub log: Log,
    /// Present: this member may initialise a new cluster.
    pub bootstrap: Option<Bootstrap>,
    /// PostgreSQL.
    pub postgresql: Postgresql,
    /// Tags.
    pub tags: Tags,
    /// The watchdog device.
    pub watchdog: Watchdog,
    /// Which store, and how to reach it.
    pub dcs: DcsSection,
    /// Citus group and database, when both are set rightly.
    pub citus: Option<(i64, String)>,
}

impl LocalConfig {
    /// `/<namespace>/<scope>` with repeated slashes collapsed: the prefix of every key of this cluster.
    pub fn dcs_path(&self) -> String {
        dcs_path(&self.namespace, &self.scope)
    }
}

/// `/<namespace>/<scope>` with repeated slashes collapsed.
pub fn dcs_path(namespace: &str, scope: &str) -> String {
    let mut path = String::new();
    for part in namespace
        .split('/')
        .chain(scope.split('/'))
        .filter(|part| !part.is_empty())
    {
        path.push('/');
        path.push_str(part);
    }
    path
}
