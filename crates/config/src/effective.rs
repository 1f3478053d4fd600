use std::fmt;

use serde_json::Value;

use crate::command_line::{self, ENFORCED};
use crate::local::{self, Ctl, DcsSection, LocalConfig, RestApi};
use crate::scalar::{parse_int, python_repr, python_str, truthy};
use crate::section::Section;
use crate::{ConfigError, GlobalConfig, GucMap, Map, TimingLimits, Warning, pitfalls, timing};

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
        let Value::Object(local_map) = local else {
            return Err(ConfigError::Empty);
        };
        if local_map.is_empty() {
            return Err(ConfigError::Empty);
        }
        let mut warnings = Vec::new();
        pitfalls::of_member(local_map, &mut warnings);
        pitfalls::of_cluster(dynamic, &mut warnings);
        let mut dynamic = dynamic.clone();
        timing::check(&dynamic)?;
        timing::clamp(&mut dynamic, limits, &mut warnings);

        let mut tree = from_dynamic(&dynamic, &mut warnings);
        overlay_local(&mut tree, local_map)?;
        translate_legacy_keys(&mut tree);
        pitfalls::of_both(&tree, &dynamic, &mut warnings);
        let local_config = LocalConfig::parse(&tree, &mut warnings)?;
        // The timings are within the limits already, so what is told here is told once.
        let (global, global_warnings) = GlobalConfig::from_dynamic(&dynamic, limits);
        warnings.extend(global_warnings);
        pitfalls::of_fencing(&tree, &global, &mut warnings);
        Ok(Effective {
            local: local_config,
            global,
            tree,
            local_tree: local.clone(),
            dynamic,
            warnings,
        })
    }
}

impl Effective {
    /// Keeps what needs a new agent (`configuration.md` §5.4) as the `running` agent has it, and warns of what waits for
    /// that. Credentials of etcd do not.
    pub fn keep_until_restart(&mut self, running: &Effective) {
        let (new, old) = (&mut self.local, &running.local);
        let mut store = old.dcs.clone();
        if let (DcsSection::Etcd3(store), DcsSection::Etcd3(new)) = (&mut store, &new.dcs) {
            store.username.clone_from(&new.username);
            store.password.clone_from(&new.password);
        }
        let kept = [
            ("scope", keep(&mut new.scope, &old.scope)),
            ("name", keep(&mut new.name, &old.name)),
            ("namespace", keep(&mut new.namespace, &old.namespace)),
            ("citus", keep(&mut new.citus, &old.citus)),
            (store.name(), keep(&mut new.dcs, &store)),
        ];
        let (new, old) = (&mut new.postgresql, &old.postgresql);
        let kept_of_postgresql = [
            (
                "postgresql.data_dir",
                keep(&mut new.data_dir, &old.data_dir),
            ),
            (
                "postgresql.config_dir",
                keep(&mut new.config_dir, &old.config_dir),
            ),
            (
                "postgresql.config_base_name",
                keep(&mut new.config_base_name, &old.config_base_name),
            ),
            ("postgresql.bin_dir", keep(&mut new.bin_dir, &old.bin_dir)),
            (
                "postgresql.database",
                keep(&mut new.database, &old.database),
            ),
            ("postgresql.pgpass", keep(&mut new.pgpass, &old.pgpass)),
        ];
        let waiting = kept
            .into_iter()
            .chain(kept_of_postgresql)
            .filter_map(|(key, differs)| differs.then_some(key));
        self.warnings.extend(waiting.map(|key| {
            Warning(format!(
                "{key} was changed: that takes effect when this agent starts again"
            ))
        }));
    }
}

/// Returns whether something else was wanted.
fn keep<T: Clone + PartialEq>(new: &mut T, running: &T) -> bool {
    let differs = new != running;
    if differs {
        new.clone_from(running);
    }
    differs
}

/// The sub-keys that mean something (§3.5).
pub(crate) const STANDBY_CLUSTER: [&str; 7] = [
    "create_replica_methods",
    "host",
    "port",
    "primary_slot_name",
    "restore_command",
    "archive_cleanup_command",
    "recovery_min_apply_delay",
];

/// Keys of `postgresql` that are this member's own.
pub(crate) const LOCAL_POSTGRESQL: [&str; 7] = [
    "connect_address",
    "proxy_address",
    "listen",
    "config_dir",
    "data_dir",
    "pgpass",
    "authentication",
];

/// The defaults and what the dynamic configuration says over them (§1.3, §1.4 A).
fn from_dynamic(dynamic: &Map, warnings: &mut Vec<Warning>) -> Map {
    let mut parameters = GucMap::new();
    for enforced in ENFORCED.iter().filter(|e| !e.name.starts_with("wal_keep_")) {
        if let Some(default) = enforced.default {
            parameters.insert(enforced.name, default.value());
        }
    }
    let mut postgresql = Map::new();
    postgresql.insert("use_slots".into(), true.into());
    for (key, value) in object(dynamic, "postgresql") {
        match (key.as_str(), value) {
            ("parameters", Value::Object(given)) => {
                for (name, value) in given {
                    let Some(enforced) = command_line::find(name) else {
                        parameters.insert(name, value.clone());
                        continue;
                    };
                    match enforced.accepts.check(value) {
                        Some(value) => parameters.insert(name, value),
                        None => {
                            let default = enforced.default.map_or(Value::Null, |d| d.value());
                            warnings.push(Warning(format!(
                                "postgresql parameter {name}={} failed validation, \
                                 defaulting to {}",
                                python_str(value),
                                python_str(&default)
                            )));
                        }
                    }
                }
            }
            ("parameters", _) => {}
            (key, _) if LOCAL_POSTGRESQL.contains(&key) => {}
            (key, value) => {
                postgresql.insert(key.to_owned(), value.clone());
            }
        }
    }
    postgresql.insert("parameters".into(), parameters.to_object().into());

    let given = object(dynamic, "standby_cluster");
    let standby_cluster: Map = STANDBY_CLUSTER
        .into_iter()
        .map(|key| {
            (
                key.to_owned(),
                given.get(key).cloned().unwrap_or_else(|| "".into()),
            )
        })
        .collect();
    let mut tree = Map::new();
    for (key, default) in timing::DEFAULTS {
        let value = dynamic.get(key).and_then(parse_int).unwrap_or(default);
        tree.insert(key.into(), value.into());
    }
    tree.insert("standby_cluster".into(), standby_cluster.into());
    tree.insert("postgresql".into(), postgresql.into());
    tree
}

/// This member's own configuration over it (§1.4 B).
fn overlay_local(tree: &mut Map, local: &Map) -> Result<(), ConfigError> {
    for (key, value) in local {
        match (key.as_str(), value) {
            ("citus", value) => {
                if local::citus(value).is_some() {
                    tree.insert("citus".into(), value.clone());
                }
            }
            ("postgresql", Value::Object(own)) => overlay_postgresql(tree, own)?,
            (key, _) if tree.contains_key(key) => {}
            (key, value) => {
                let value = if truthy(value) {
                    value.clone()
                } else {
                    Map::new().into()
                };
                tree.insert(key.to_owned(), value);
            }
        }
    }
    Ok(())
}

fn overlay_postgresql(tree: &mut Map, own: &Map) -> Result<(), ConfigError> {
    let Some(Value::Object(postgresql)) = tree.get_mut("postgresql") else {
        return Ok(());
    };
    for (key, value) in own {
        match (key.as_str(), value) {
            ("use_slots", _) => {}
            ("parameters", Value::Object(own)) => {
                let mut parameters = GucMap::from_object(object(postgresql, "parameters"));
                for (name, value) in own.iter().filter(|(n, _)| command_line::find(n).is_none()) {
                    parameters.insert(name, value.clone());
                }
                postgresql.insert("parameters".into(), parameters.to_object().into());
            }
            ("parameters", value) if truthy(value) => {
                return Err(ConfigError::invalid(
                    "postgresql.parameters",
                    python_repr(value),
                    "a dictionary of parameters and their values",
                ));
            }
            ("parameters", _) => {}
            (key, value) => {
                postgresql.insert(key.to_owned(), value.clone());
            }
        }
    }
    Ok(())
}

/// Keys of old releases in the places of today (§1.4 C).
fn translate_legacy_keys(tree: &mut Map) {
    if let Some(Value::Object(zookeeper)) = tree.get_mut("zookeeper")
        && let Some(exhibitor) = zookeeper.shift_remove("exhibitor")
    {
        tree.shift_remove("zookeeper");
        tree.insert("exhibitor".into(), exhibitor);
    }
    if tree.contains_key("citus") {
        let bootstrap = tree.entry("bootstrap").or_insert_with(|| Map::new().into());
        if let Value::Object(bootstrap) = bootstrap
            && let Value::Object(dcs) = bootstrap.entry("dcs").or_insert_with(|| Map::new().into())
        {
            dcs.entry("synchronous_mode")
                .or_insert_with(|| "quorum".into());
        }
    }
    let has_name = tree.get("name").is_some_and(truthy);
    let Some(Value::Object(postgresql)) = tree.get_mut("postgresql") else {
        return;
    };
    if !postgresql.contains_key("authentication") {
        let mut authentication = Map::new();
        for role in ["replication", "superuser"] {
            if let Some(credentials) = postgresql.get(role).filter(|role| role.is_object()) {
                authentication.insert(role.into(), credentials.clone());
            }
        }
        if !authentication.is_empty() {
            let use_pg_rewind = postgresql.contains_key("pg_rewind");
            postgresql.insert("use_pg_rewind".into(), use_pg_rewind.into());
            postgresql.insert("authentication".into(), authentication.into());
        }
    }
    let pg_rewind = postgresql
        .get("pg_rewind")
        .filter(|role| role.is_object())
        .cloned();
    if let (Some(Value::Object(authentication)), Some(pg_rewind)) =
        (postgresql.get_mut("authentication"), pg_rewind)
    {
        authentication.entry("superuser").or_insert(pg_rewind);
    }
    if !has_name && let Some(name) = postgresql.get("name").cloned() {
        tree.insert("name".into(), name);
    }
}

/// The mapping at a key; what is none counts as an empty one.
pub(crate) fn object<'m>(map: &'m Map, key: &str) -> &'m Map {
    static EMPTY: std::sync::OnceLock<Map> = std::sync::OnceLock::new();
    map.get(key)
        .and_then(Value::as_object)
        .unwrap_or_else(|| EMPTY.get_or_init(Map::new))
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
#[derive(Clone, PartialEq)]
pub struct ClientConfig {
    /// Cluster name, unless given on the command line.
    pub scope: Option<String>,
    /// First component of the store's paths, as configured (`service` when it is not).
    pub namespace: String,
    /// The store.
    pub dcs: DcsSection,
    /// Credentials and certificates for the members' REST API; what `ctl` leaves out is taken from `restapi`.
    pub ctl: Ctl,
    /// The `restapi` section, if there is a usable one.
    pub restapi: Option<RestApi>,
    /// The group of a Citus cluster that the configuration is of.
    pub citus: Option<local::Citus>,
    /// The local layer as given.
    pub tree: Value,
}

/// Leaves the tree out, which holds passwords.
impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("scope", &self.scope)
            .field("namespace", &self.namespace)
            .field("dcs", &self.dcs)
            .field("ctl", &self.ctl)
            .finish_non_exhaustive()
    }
}

impl ClientConfig {
    /// Reads the local tree.
    ///
    /// # Errors
    /// No store is configured, or one of the sections cannot be used.
    pub fn from_local(local: &Value) -> Result<ClientConfig, ConfigError> {
        let empty = Map::new();
        let mut root = local.as_object().unwrap_or(&empty).clone();
        translate_legacy_keys(&mut root);
        let section = Section::new("", &root);
        let usable_restapi = object(&root, "restapi").contains_key("listen");
        Ok(ClientConfig {
            scope: section.text("scope")?,
            namespace: local::namespace(section)?,
            dcs: DcsSection::parse(&root)?,
            ctl: Ctl::parse(&root)?,
            restapi: if usable_restapi {
                Some(RestApi::parse(&root)?)
            } else {
                None
            },
            citus: root.get("citus").and_then(local::citus),
            tree: local.clone(),
        })
    }
}
