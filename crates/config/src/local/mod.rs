//! The typed settings of one member (`configuration.md` §2).

mod bootstrap;
mod dcs;
mod journal;
mod log;
mod postgresql;
mod restapi;
mod tool_options;
mod watchdog;

use primacy_model::{CitusGroup, MemberName, Tags};
use serde_json::Value;

pub use bootstrap::{Bootstrap, BootstrapMethod};
pub(crate) use dcs::STORES;
pub use dcs::{DcsSection, EtcdSection, RaftSection, RaftTimings, RawSection};
pub use journal::Journal;
pub use log::{Log, LogFormat, LogType};
pub(crate) use postgresql::LIBPQ_SETTINGS;
pub use postgresql::{
    Authentication, Callbacks, Credentials, Postgresql, ReplicaMethod, RoleOverride,
};
pub use restapi::{BasicAuth, Ctl, RestApi, ServerTokens, VerifyClient};
pub use tool_options::{ToolOption, ToolOptions};
pub use watchdog::{Watchdog, WatchdogMode};

use crate::scalar::{parse_int, python_str, truthy};
use crate::section::Section;
use crate::{ConfigError, Map, Warning};

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
    /// Why things were done, kept.
    pub journal: Journal,
    /// Which store, and how to reach it.
    pub dcs: DcsSection,
    /// The group of a Citus cluster that this member is in.
    pub citus: Option<Citus>,
}

/// The `citus` section (`configuration.md` §2.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Citus {
    /// Which group.
    pub group: CitusGroup,
    /// The database that is distributed.
    pub database: String,
}

impl LocalConfig {
    /// `/<namespace>/<scope>` with repeated slashes collapsed: the prefix of every key of this cluster.
    pub fn dcs_path(&self) -> String {
        dcs_path(&self.namespace, &self.scope)
    }
}

/// Taken by the value of `synchronous_standby_names` that stands for "nobody yet".
const RESERVED_NAME: &str = "__patroni_strict_sync_replica_placeholder__";

impl LocalConfig {
    /// Reads the effective tree.
    pub(crate) fn parse(
        root: &Map,
        warnings: &mut Vec<Warning>,
    ) -> Result<LocalConfig, ConfigError> {
        let section = Section::new("", root);
        let name = section.required("name", "Give this member a name, unique in its cluster")?;
        if name == RESERVED_NAME {
            return Err(ConfigError::ReservedName(RESERVED_NAME));
        }
        let empty = Value::Null;
        Ok(LocalConfig {
            scope: section.required("scope", "Give the cluster a name, the same on all members")?,
            name: MemberName::new(name),
            namespace: namespace(section)?,
            restapi: RestApi::parse(root)?,
            ctl: Ctl::parse(root)?,
            log: Log::parse(root, warnings)?,
            bootstrap: Bootstrap::parse(root)?,
            postgresql: Postgresql::parse(root)?,
            tags: tags(root.get("tags").unwrap_or(&empty), warnings),
            watchdog: Watchdog::parse(root, warnings)?,
            journal: Journal::parse(root)?,
            dcs: DcsSection::parse(root)?,
            citus: root.get("citus").and_then(citus),
        })
    }
}

pub(crate) fn namespace(root: Section<'_>) -> Result<String, ConfigError> {
    Ok(root.text("namespace")?.unwrap_or_else(|| "service".into()))
}

/// Reads the tags, and tells contradictions (§4).
fn tags(value: &Value, warnings: &mut Vec<Warning>) -> Tags {
    let tags = Tags::from_json(value);
    for (boolean, priority) in [
        ("nofailover", "failover_priority"),
        ("nosync", "sync_priority"),
    ] {
        let (Some(flag), Some(level)) = (tags.get(boolean), tags.get(priority)) else {
            continue;
        };
        let forbids = parse_int(level).is_some_and(|level| level <= 0);
        if !flag.is_null() && truthy(flag) != forbids {
            let (flag, level) = (python_str(flag), python_str(level));
            warnings.push(Warning(format!(
                "Conflicting configuration between {boolean}: {flag} and {priority}: {level}. \
                 Defaulting to {boolean}: {flag}"
            )));
        }
    }
    tags
}

/// Both of the right type, or nothing (§2.4).
pub(crate) fn citus(value: &Value) -> Option<Citus> {
    Some(Citus {
        group: CitusGroup(value.get("group")?.as_u64()?.try_into().ok()?),
        database: value.get("database")?.as_str()?.to_owned(),
    })
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
