//! The configuration in force: read at the start, changed by SIGHUP (local) and by the DCS (dynamic).

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use primacy_config::parameters::Managed;
use primacy_config::scalar;
use primacy_config::{ConfigError, Effective, Environment, TimingLimits, Warning, layers};
use primacy_model::{PendingRestartReasons, Role};
use primacy_postgres::{Server, SettingRow, Settings, is_recovery_guc};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::settings;

/// Where the configuration came from, and what it says now.
pub(crate) struct Configuration {
    path: Option<PathBuf>,
    environment: Environment,
    effective: Effective,
    limits: TimingLimits,
    /// Parameters that the installed server knows.
    known: Option<Vec<String>>,
    umask: u32,
    /// What was told of the server's settings when they were made last: they are made often.
    told: Mutex<Vec<Warning>>,
}

impl Configuration {
    /// Reads the local configuration, and the dynamic one that was cached in the data directory; without
    /// one, `bootstrap.dcs` is what a new cluster begins with.
    ///
    /// # Errors
    /// What is wrong, naming file and key.
    pub(crate) fn load(
        path: Option<PathBuf>,
        environment: Environment,
        umask: u32,
    ) -> Result<Self, ConfigError> {
        let tree = layers::load(path.as_deref(), &environment)?;
        let first = Effective::build(&tree, &Map::new(), TimingLimits::PATRONI)?;
        let limits = TimingLimits::of(&first.local.dcs);
        let data_dir = &first.local.postgresql.data_dir;
        let known = cached(data_dir).and_then(|dynamic| {
            let effective = Effective::build(&tree, &dynamic, limits);
            let warn = |error: &ConfigError| {
                let path = data_dir.join(CACHE);
                tracing::warn!("{} cannot be used, ignoring it: {error}", path.display());
            };
            effective.inspect_err(warn).ok()
        });
        let effective = match (known, &first.local.bootstrap) {
            (Some(known), _) => known,
            (None, Some(bootstrap)) => Effective::build(&tree, &bootstrap.dcs, limits)?,
            (None, None) => Effective::build(&tree, &Map::new(), limits)?,
        };
        Ok(Configuration {
            path,
            environment,
            effective,
            limits,
            known: None,
            umask,
            told: Mutex::default(),
        })
    }

    /// Both layers, typed.
    pub(crate) fn effective(&self) -> &Effective {
        &self.effective
    }

    /// The smallest timings that the store allows.
    pub(crate) fn limits(&self) -> TimingLimits {
        self.limits
    }

    /// The dynamic configuration in force, timings adjusted.
    pub(crate) fn dynamic(&self) -> &Map<String, Value> {
        &self.effective.dynamic
    }

    /// What the installed server knows is passed on to it also where no rule speaks of it.
    pub(crate) fn know(&mut self, parameters: Vec<String>) {
        self.known = Some(parameters);
    }

    /// Takes a dynamic configuration from the DCS. The old one stays when the new one cannot be used.
    pub(crate) fn take_dynamic(&mut self, dynamic: &Map<String, Value>) -> Result<(), ConfigError> {
        let effective = Effective::build(&self.effective.local_tree, dynamic, self.limits)?;
        self.replace(effective);
        Ok(())
    }

    /// What reads the local configuration again: from a disk, so on a thread that may hang.
    pub(crate) fn reader(&self) -> impl FnOnce() -> Result<Value, ConfigError> + use<> {
        let (path, environment) = (self.path.clone(), self.environment.clone());
        move || layers::load(path.as_deref(), &environment)
    }

    /// Takes what was read again. Returns whether it changed.
    pub(crate) fn take_local(&mut self, tree: Value) -> Result<bool, ConfigError> {
        if tree == self.effective.local_tree {
            return Ok(false);
        }
        let effective = Effective::build(&tree, &self.effective.dynamic, self.limits)?;
        self.replace(effective);
        Ok(true)
    }

    /// Takes it over, and tells what was set aside or adjusted, unless that was told before.
    fn replace(&mut self, mut effective: Effective) {
        effective.keep_until_restart(&self.effective);
        let before = std::mem::replace(&mut self.effective, effective);
        for warning in &self.effective.warnings {
            if !before.warnings.contains(warning) {
                tracing::warn!("{warning}");
            }
        }
    }

    /// The settings of the server, for its version and role.
    pub(crate) fn server_settings(
        &self,
        version: Option<u32>,
        role: Role,
        managed: Managed<'_>,
    ) -> Settings {
        let managed = Managed {
            known_to_server: self.known.as_deref(),
            ..managed
        };
        let (settings, warnings) =
            settings::server(&self.effective, version, role, &managed, self.umask);
        if version.is_some() {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            for warning in warnings.iter().filter(|warning| !told.contains(warning)) {
                tracing::warn!("{warning}");
            }
            *told = warnings;
        }
        settings
    }
}

/// In the data directory (`configuration.md` §6.9).
const CACHE: &str = "patroni.dynamic.json";

fn cached(data_dir: &Path) -> Option<Map<String, Value>> {
    let path = data_dir.join(CACHE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!("{} cannot be read, ignoring it: {error}", path.display());
            return None;
        }
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => Some(map),
        _ => {
            tracing::warn!("{} holds no JSON object, ignoring it", path.display());
            None
        }
    }
}

/// By then a change of settings is either in the server's files or given up.
pub(crate) fn apply_deadline() -> Instant {
    Instant::now() + std::time::Duration::from_secs(10)
}

/// Writes the dynamic configuration into the data directory, for a start without a DCS to ask.
pub(crate) async fn cache(
    server: &Server,
    dynamic: &Map<String, Value>,
    deadline: Instant,
) -> Result<(), primacy_postgres::Error> {
    server
        .keep_file(CACHE, spaced_json(dynamic), deadline)
        .await
}

/// JSON as Python writes it, with blanks, for people compare such files.
fn spaced_json(value: &Map<String, Value>) -> String {
    struct Spaced;
    impl serde_json::ser::Formatter for Spaced {
        fn begin_array_value<W: ?Sized + Write>(
            &mut self,
            to: &mut W,
            first: bool,
        ) -> io::Result<()> {
            to.write_all(if first { b"" } else { b", " })
        }
        fn begin_object_key<W: ?Sized + Write>(
            &mut self,
            to: &mut W,
            first: bool,
        ) -> io::Result<()> {
            to.write_all(if first { b"" } else { b", " })
        }
        fn begin_object_value<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
            to.write_all(b": ")
        }
    }
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Spaced);
    // Neither a tree of JSON values nor memory refuses to be written.
    let _ = value.serialize(&mut serializer);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Puts the access rules of a server right that does not let the agent in, and has it read them. The parameters wait until
/// it answers: written without the `synchronous_standby_names` in force, say, they would let commits through that nobody
/// else has.
pub(crate) async fn admit(
    server: &Server,
    always_reload: bool,
    deadline: Instant,
) -> Result<(), primacy_postgres::Error> {
    if server.write_access_rules(deadline).await? || always_reload {
        server.reload(deadline).await?;
    }
    Ok(())
}

/// Brings the files of a running server up to its settings, reloads it, and returns which parameters wait for
/// a restart: name to (value in force, value in the files) (`configuration.md` §5.3).
pub(crate) async fn apply_to_running(
    server: &Server,
    always_reload: bool,
    deadline: Instant,
) -> Result<PendingRestartReasons, primacy_postgres::Error> {
    if server.write_files(None, deadline).await? || always_reload {
        server.reload(deadline).await?;
        // The postmaster reads its files in its own time, and tells nobody when it has.
        tokio::time::sleep(RELOAD_SETTLES).await;
    }
    let mut pending = PendingRestartReasons::new();
    for row in server.pg_settings(deadline).await? {
        // These two kinds the agent itself changes as it goes.
        let own = row.name == "hot_standby" || is_recovery_guc(&row.name);
        if row.pending_restart && !own {
            let new = match server.configured_value(&row.name, deadline).await {
                Ok(value) => readable(&value, &row),
                Err(_) => "?".into(),
            };
            let old = row.display.or(row.setting).unwrap_or_default();
            pending.insert(row.name, (old, new));
        }
    }
    Ok(pending)
}

/// A value in the parameter's base unit, as `SHOW` would print it.
fn readable(value: &str, row: &SettingRow) -> String {
    let unit = row.unit.as_deref().unwrap_or_default();
    let (integer, real) = (value.parse().ok(), value.parse().ok());
    match (row.vartype.as_str(), integer, real) {
        ("integer", Some(number), _) => scalar::format_integer(number, unit),
        ("real", _, Some(number)) => scalar::format_real(number, unit),
        _ => value.to_owned(),
    }
}

/// As long as Patroni waits.
const RELOAD_SETTLES: std::time::Duration = std::time::Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_cache_is_written_as_python_does() {
        let dynamic =
            json!({"ttl": 30, "a": {"b": [1, null, "x\"y"], "c": {}, "d": []}, "e": true});
        let dynamic = dynamic.as_object().unwrap();
        assert_eq!(
            spaced_json(dynamic),
            r#"{"ttl": 30, "a": {"b": [1, null, "x\"y"], "c": {}, "d": []}, "e": true}"#
        );
    }

    /// `configuration.md` §1.7, process start.
    #[test]
    fn an_agent_begins_with_what_was_cached_else_with_what_a_new_cluster_has() {
        let place = tempfile::tempdir().unwrap();
        let data_dir = place.path().join("data");
        std::fs::create_dir(&data_dir).unwrap();
        let file = place.path().join("patroni.yml");
        let local = json!({
            "scope": "demo", "name": "pg1",
            "restapi": {"listen": "127.0.0.1:8008"},
            "raft": {"self_addr": "127.0.0.1:2222"},
            "bootstrap": {"dcs": {"ttl": 50, "pause": true}},
            "postgresql": {"listen": "127.0.0.1", "data_dir": data_dir, "authentication": {}},
        });
        std::fs::write(&file, local.to_string()).unwrap();
        let dynamic = || {
            let environment = primacy_config::from_environment([]);
            let configuration = Configuration::load(Some(file.clone()), environment, 0o77).unwrap();
            (
                configuration.dynamic().clone(),
                configuration.effective().global.ttl.as_secs(),
            )
        };
        let map = |value: Value| value.as_object().cloned().unwrap();
        let bootstrap = (map(json!({"ttl": 50, "pause": true})), 50);
        assert_eq!(dynamic(), bootstrap);

        let cache = data_dir.join(CACHE);
        std::fs::write(&cache, r#"{"ttl": 40}"#).unwrap();
        assert_eq!(dynamic(), (map(json!({"ttl": 40})), 40));

        for unusable in ["", "{\"ttl\": 4", "[1]", "null", "{\"ttl\": \"40s\"}"] {
            std::fs::write(&cache, unusable).unwrap();
            assert_eq!(dynamic(), bootstrap, "{unusable:?}");
        }
        std::fs::write(&cache, b"{\"a\": \"\xff\"}").unwrap();
        assert_eq!(dynamic(), bootstrap);
        std::fs::remove_file(&cache).unwrap();
        std::fs::create_dir(&cache).unwrap();
        assert_eq!(dynamic(), bootstrap);
    }

    #[test]
    fn values_are_told_as_people_read_them() {
        let row = |vartype: &str, unit: Option<&str>| SettingRow {
            name: "x".into(),
            setting: None,
            unit: unit.map(str::to_owned),
            vartype: vartype.into(),
            context: "postmaster".into(),
            pending_restart: true,
            display: None,
            source_file: None,
        };
        for (value, vartype, unit, expected) in [
            ("3072", "integer", Some("8kB"), "24MB"),
            ("300", "integer", None, "300"),
            ("0", "integer", Some("ms"), "0"),
            ("0.5", "real", Some("ms"), "500us"),
            ("on", "bool", None, "on"),
            ("a,b", "string", None, "a,b"),
        ] {
            assert_eq!(readable(value, &row(vartype, unit)), expected);
        }
    }
}
