//! The parameters handed to PostgreSQL (`configuration.md` §1.8, §1.9, Appendix A).

mod rules;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use primacy_model::Role;
use serde_json::Value;

use self::rules::{Table, Verdict};
use crate::command_line::{self, ENFORCED};
use crate::scalar::{parse_bool, parse_int, parse_int_in, python_str};
use crate::{Effective, GucMap, SynchronousMode, Warning};

/// What the caller knows beside the configuration.
#[derive(Clone, Debug, Default)]
pub struct Managed<'a> {
    /// The value of `synchronous_standby_names` that is in force, in synchronous mode.
    pub synchronous_standby_names: Option<&'a str>,
    /// `hot_standby_feedback` must be on, for logical slots.
    pub force_hot_standby_feedback: bool,
    /// Parameters that the server itself lists (`postgres --describe-config`). Those that neither it nor
    /// the table knows are left out.
    pub known_to_server: Option<&'a [String]>,
}

/// Parameters ready to be written.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ServerParameters {
    /// For `postgresql.conf`, sorted by name.
    pub conf: IndexMap<String, String>,
    /// For the postmaster's command line, in the order of §1.8.
    pub command_line: Vec<(String, String)>,
    /// Recovery settings found among the parameters: they take the place of `recovery_conf`.
    pub recovery_conf: Option<IndexMap<String, String>>,
    /// What was removed or clamped.
    pub warnings: Vec<Warning>,
}

impl ServerParameters {
    /// Overrides a parameter, in the file and on the command line if it stands there: for values that the
    /// control file dictates to a standby (§1.11), and for `hot_standby` during a bootstrap.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        for (known, text) in &mut self.command_line {
            if known == name {
                text.clone_from(&value);
            }
        }
        self.conf.insert(name.to_owned(), value);
        self.conf.sort_keys();
    }
}

/// What synchronous mode writes when no standby is synchronous yet and none may be missing.
pub const STRICT_PLACEHOLDER: &str = "__patroni_strict_sync_replica_placeholder__";

/// Works out the parameters for a server of `server_version` (150018 form) in `role`; without a role nothing
/// is overridden for one.
pub fn server_parameters(
    effective: &Effective,
    server_version: u32,
    role: Option<Role>,
    managed: &Managed<'_>,
) -> ServerParameters {
    let postgresql = &effective.local.postgresql;
    let mut warnings = Vec::new();
    let mut parameters = postgresql.parameters.clone();
    if let Some(overrides) = role.and_then(|role| postgresql.overrides(role)) {
        for (name, value) in overrides.parameters.iter() {
            if command_line::find(name).is_some() {
                warnings.push(Warning(format!(
                    "Role-based config attempted to override protected parameter '{name}', ignoring"
                )));
            } else {
                parameters.insert(name, value.clone());
            }
        }
    }
    parameters.insert("cluster_name", effective.local.scope.as_str());
    parameters.insert("listen_addresses", postgresql.listen.addresses());
    parameters.insert("port", postgresql.listen.port.to_string());
    manage_synchronous_standby_names(effective, role, managed, &mut parameters);
    if parameters
        .get("wal_level")
        .is_some_and(|l| python_str(l).eq_ignore_ascii_case("hot_standby"))
    {
        parameters.insert("wal_level", "replica");
    }
    translate_wal_keep(&mut parameters, server_version);
    if effective.local.citus.is_some() {
        prepare_citus(&mut parameters, effective);
    }
    for newer in ENFORCED
        .iter()
        .filter(|enforced| enforced.since > server_version)
    {
        parameters.remove(newer.name);
    }
    for file in ["hba_file", "ident_file"] {
        if let Some(path) = parameters
            .get(file)
            .map(python_str)
            .filter(|path| !path.is_empty())
        {
            let path = postgresql.config_dir.join(path);
            parameters.insert(file, path.to_string_lossy().into_owned());
        }
    }

    let command_line = ENFORCED
        .iter()
        .filter(|enforced| enforced.on_command_line)
        .filter_map(|enforced| Some((enforced.name, parameters.get(enforced.name)?)))
        .map(|(name, value)| (name.to_owned(), python_str(value)))
        .collect();
    let recovery: GucMap = parameters
        .iter()
        .filter(|(name, _)| Table::recovery().contains(name))
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect();
    let recovery_conf = (!recovery.is_empty()).then(|| {
        let (settings, told) = recovery_parameters(&recovery, server_version);
        warnings.extend(told);
        settings
    });

    let mut conf = BTreeMap::new();
    for (name, value) in parameters
        .iter()
        .filter(|(name, _)| !Table::recovery().contains(name))
    {
        let known = |name: &str| {
            let listed = managed.known_to_server.unwrap_or_default();
            name.contains('.') || listed.iter().any(|known| known.eq_ignore_ascii_case(name))
        };
        if let Some(text) = judged(
            Table::ordinary(),
            name,
            value,
            server_version,
            known,
            &mut warnings,
        ) {
            conf.insert(name.to_owned(), text);
        }
    }
    if managed.force_hot_standby_feedback {
        conf.retain(|name, _| !name.eq_ignore_ascii_case("hot_standby_feedback"));
        conf.insert("hot_standby_feedback".to_owned(), "on".to_owned());
    }
    ServerParameters {
        conf: conf.into_iter().collect(),
        command_line,
        recovery_conf,
        warnings,
    }
}

/// A recovery setting as the newest servers take it; what they do not take is told and left out (A.1).
pub(crate) fn recovery_parameter(
    name: &str,
    value: &Value,
    warnings: &mut Vec<Warning>,
) -> Option<String> {
    judged(
        Table::recovery(),
        name,
        value,
        u32::MAX,
        |_| false,
        warnings,
    )
}

/// Recovery settings as a server of this version takes them: old names translated, values judged (§6.5, A.1).
pub fn recovery_parameters(
    settings: &GucMap,
    server_version: u32,
) -> (IndexMap<String, String>, Vec<Warning>) {
    let mut settings = settings.clone();
    let (old, new) = match server_version {
        120_000.. => ("trigger_file", "promote_trigger_file"),
        _ => ("promote_trigger_file", "trigger_file"),
    };
    if let Some(file) = settings.remove(old)
        && !settings.contains(new)
    {
        settings.insert(new, file);
    }
    if let Some(pause) = settings.remove("pause_at_recovery_target")
        && !settings.contains("recovery_target_action")
        && let Some(pause) = parse_bool(&pause)
    {
        settings.insert(
            "recovery_target_action",
            if pause { "pause" } else { "promote" },
        );
    }
    let mut warnings = Vec::new();
    let mut written = IndexMap::new();
    for (name, value) in settings.iter() {
        let known = |name: &str| server_version < 120_000 && Table::recovery().contains(name);
        if let Some(text) = judged(
            Table::recovery(),
            name,
            value,
            server_version,
            known,
            &mut warnings,
        ) {
            written.insert(name.to_owned(), text);
        }
    }
    (written, warnings)
}

/// Whether the parameter is one of recovery: never written as an ordinary one.
pub fn is_recovery_parameter(name: &str) -> bool {
    Table::recovery().contains(name)
}

/// Whether only the dynamic configuration may set the parameter (§1.8).
pub fn is_enforced(name: &str) -> bool {
    command_line::find(name).is_some()
}

/// The text to write, if any. `known` tells of parameters without a rule.
fn judged(
    table: &Table,
    name: &str,
    value: &Value,
    server_version: u32,
    known: impl Fn(&str) -> bool,
    warnings: &mut Vec<Warning>,
) -> Option<String> {
    // Taken back: the server's own default.
    if value.is_null() {
        return None;
    }
    match table.judge(name, value, server_version) {
        Verdict::Kept(text) => Some(text),
        Verdict::Clamped(text, warning) => {
            warnings.push(warning);
            Some(text)
        }
        Verdict::Removed(warning) => {
            warnings.push(warning);
            None
        }
        Verdict::Unknown if known(name) => Some(python_str(value)),
        Verdict::Unknown => {
            warnings.push(Warning(format!(
                "Removing unexpected parameter={name} value={} from the config",
                python_str(value)
            )));
            None
        }
    }
}

/// In synchronous mode the agent alone decides this one.
fn manage_synchronous_standby_names(
    effective: &Effective,
    role: Option<Role>,
    managed: &Managed<'_>,
    parameters: &mut GucMap,
) {
    let name = "synchronous_standby_names";
    if effective.global.synchronous_mode == SynchronousMode::Off {
        return;
    }
    let strict = effective.global.synchronous_mode_strict && role.is_some_and(Role::accepts_writes);
    match managed.synchronous_standby_names {
        Some(names) => parameters.insert(name, names),
        None if strict => parameters.insert(name, STRICT_PLACEHOLDER),
        None => {
            parameters.remove(name);
        }
    }
}

/// WAL to keep, in the unit that the version knows: segments of 16 MB until 12, a size since 13.
fn translate_wal_keep(parameters: &mut GucMap, server_version: u32) {
    let (segments, size) = ("wal_keep_segments", "wal_keep_size");
    if server_version >= 130_000 {
        let given = parameters
            .remove(segments)
            .as_ref()
            .and_then(parse_int)
            .unwrap_or(8);
        if !parameters.contains(size) {
            parameters.insert(size, format!("{}MB", given.saturating_mul(16)));
        }
    } else {
        let given = parameters.remove(size);
        let megabytes = given
            .and_then(|size| parse_int_in(&size, Some("MB")))
            .unwrap_or(128);
        if !parameters.contains(segments) {
            parameters.insert(segments, megabytes.saturating_add(8) / 16);
        }
    }
}

/// What the extension needs to distribute data.
fn prepare_citus(parameters: &mut GucMap, effective: &Effective) {
    let libraries = parameters
        .get("shared_preload_libraries")
        .map(python_str)
        .unwrap_or_default();
    let others = libraries
        .split(',')
        .map(str::trim)
        .filter(|library| !library.is_empty() && *library != "citus");
    let libraries: Vec<&str> = std::iter::once("citus").chain(others).collect();
    parameters.insert("shared_preload_libraries", libraries.join(","));
    let number = |name: &str| parameters.get(name).and_then(parse_int).unwrap_or(0);
    if number("max_prepared_transactions") == 0 {
        parameters.insert(
            "max_prepared_transactions",
            number("max_connections").saturating_mul(2),
        );
    }
    parameters.insert("wal_level", "logical");
    let section = &effective.local.postgresql;
    let directories = parameters
        .get("unix_socket_directories")
        .filter(|directories| !directories.is_null())
        .map(python_str);
    let host = section.local_host(section.use_unix_socket, directories.as_deref());
    let host = host.unwrap_or_else(|| "localhost".to_owned());
    parameters.insert("citus.local_hostname", host);
}
