//! A configuration to begin with, with or without a running server to make it from (`configuration.md` §7.3,
//! §7.4). What only a person knows is marked.

use serde_json::{Value, json};

use crate::command_line::ENFORCED;
use crate::local::STORES;
use crate::scalar::patch;
use crate::{Map, timing, yaml};

/// Stands where a person has to fill something in.
pub const FIXME: &str = "#FIXME";

/// The machine that the configuration is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name, which becomes the member's.
    pub name: String,
    /// The first address of that name.
    pub address: String,
}

/// A machine whose name or address cannot be found out.
impl Default for Host {
    fn default() -> Self {
        Host {
            name: FIXME.into(),
            address: FIXME.into(),
        }
    }
}

/// What a running server tells.
#[derive(Clone, Debug, Default)]
pub struct RunningServer {
    /// Parameters, as `current_setting` gives them.
    pub parameters: Vec<(String, String)>,
    /// How it was connected to: keys of `authentication.superuser`.
    pub superuser: Map,
    /// Port of that connection; the server's when it is unknown.
    pub port: Option<String>,
    /// Directory of its executables.
    pub bin_dir: String,
}

/// Commands, and files of the server's own: not for all members, so not dynamic.
const LOCAL_PARAMETERS: [&str; 8] = [
    "archive_command",
    "restore_command",
    "archive_cleanup_command",
    "recovery_end_command",
    "ssl_passphrase_command",
    "hba_file",
    "ident_file",
    "config_file",
];

/// Parameters that are always asked for, whatever set them.
pub fn required_parameters() -> impl Iterator<Item = &'static str> {
    let files = ["hba_file", "ident_file", "config_file", "data_directory"];
    let enforced = ENFORCED.iter().map(|enforced| enforced.name);
    files.into_iter().chain(enforced)
}

/// What both kinds begin with: defaults, and what the environment says over them.
///
/// Patroni's has the tag `nosync` as well, which its own `--validate-config` refuses beside `sync_priority`.
fn template(environment: &Map, host: &Host) -> Map {
    let Host { name, address } = host;
    let template = json!({
        "scope": FIXME,
        "name": name,
        "log": {
            "type": "plain",
            "level": "INFO",
            "traceback_level": "ERROR",
            "format": "%(asctime)s %(levelname)s: %(message)s",
            "max_queue_size": 1000,
        },
        "restapi": {"listen": format!("{address}:8008"), "connect_address": format!("{address}:8008")},
        "postgresql": {
            "data_dir": FIXME,
            "listen": format!("{address}:5432"),
            "connect_address": format!("{address}:5432"),
            "bin_dir": "",
            "authentication": {
                "superuser": {"username": "postgres", "password": FIXME},
                "replication": {"username": "replicator", "password": FIXME},
            },
        },
        "tags": {
            "failover_priority": 1,
            "sync_priority": 1,
            "noloadbalance": false,
            "clonefrom": true,
            "nostream": false,
        },
    });
    let mut tree = template.as_object().cloned().unwrap_or_default();
    patch(&mut tree, environment);

    let parameters: Map = ENFORCED
        .iter()
        .filter(|enforced| !enforced.name.starts_with("wal_keep_"))
        .filter_map(|enforced| Some((enforced.name.to_owned(), enforced.default?.value())))
        .collect();
    let mut dcs: Map = timing::DEFAULTS
        .map(|(key, default)| (key.to_owned(), default.into()))
        .into_iter()
        .collect();
    dcs.insert(
        "postgresql".into(),
        json!({"use_slots": true, "parameters": parameters}),
    );
    tree.insert("bootstrap".into(), json!({"dcs": dcs}));
    tree
}

/// A configuration of a new cluster, for a PostgreSQL of this version (150000 form).
pub fn sample(environment: &Map, host: &Host, server_version: u32) -> Map {
    let mut tree = template(environment, host);
    let method = if server_version >= 100_000 {
        "scram-sha-256"
    } else {
        "md5"
    };
    let postgresql = section(&mut tree, "postgresql");
    postgresql.insert("parameters".into(), json!({"password_encryption": method}));
    let authentication = section(postgresql, "authentication");
    let replication = section(authentication, "replication")
        .get("username")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if server_version >= 110_000 {
        let rewind = section(authentication, "rewind");
        if rewind.is_empty() {
            rewind.insert("username".into(), "rewind_user".into());
        }
        rewind.entry("password").or_insert_with(|| FIXME.into());
    }
    postgresql.insert(
        "pg_hba".into(),
        json!([
            format!("host all all all {method}"),
            format!("host replication {replication} all {method}"),
        ]),
    );

    let dynamic = section(
        section(section(&mut tree, "bootstrap"), "dcs"),
        "postgresql",
    );
    dynamic.insert("use_pg_rewind".into(), true.into());
    let parameters = section(dynamic, "parameters");
    let (keep, level) = (
        if server_version >= 130_000 {
            "wal_keep_size"
        } else {
            "wal_keep_segments"
        },
        if server_version >= 90_600 {
            "replica"
        } else {
            "hot_standby"
        },
    );
    let default = ENFORCED.iter().find(|enforced| enforced.name == keep);
    if let Some(default) = default.and_then(|enforced| enforced.default) {
        parameters.insert(keep.into(), default.value());
    }
    parameters.insert("wal_level".into(), level.into());
    tree
}

/// The configuration of a member that takes this server over.
pub fn from_server(environment: &Map, host: &Host, server: &RunningServer) -> Map {
    let mut tree = template(environment, host);
    let mut dynamic = Map::new();
    let mut local = Map::new();
    let (mut listen, mut port) = (String::new(), String::new());
    for (name, value) in &server.parameters {
        match name.as_str() {
            "data_directory" => {
                section(&mut tree, "postgresql").insert("data_dir".into(), value.as_str().into());
            }
            "cluster_name" if !value.is_empty() => {
                tree.insert("scope".into(), value.as_str().into());
            }
            "listen_addresses" => listen.clone_from(value),
            "port" => port.clone_from(value),
            name if LOCAL_PARAMETERS.contains(&name) => {
                local.insert(name.into(), value.as_str().into());
            }
            name => {
                dynamic.insert(name.into(), value.as_str().into());
            }
        }
    }
    let bootstrap = section(section(&mut tree, "bootstrap"), "dcs");
    let parameters = section(section(bootstrap, "postgresql"), "parameters");
    parameters.extend(dynamic);

    let postgresql = section(&mut tree, "postgresql");
    let address = postgresql
        .get("connect_address")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let connect = format!("{host}:{}", server.port.as_ref().unwrap_or(&port));
    postgresql.insert("connect_address".into(), connect.into());
    postgresql.insert("listen".into(), format!("{listen}:{port}").into());
    postgresql.insert("bin_dir".into(), server.bin_dir.as_str().into());
    postgresql.insert(
        "authentication".into(),
        json!({
            "superuser": server.superuser,
            "replication": {"username": FIXME, "password": FIXME},
        }),
    );
    section(postgresql, "parameters").extend(local);
    tree
}

/// The lines of the server's `pg_hba.conf` that mean something, for a server of this version (150000 form).
pub fn hba_lines(text: &str, server_version: u32) -> Vec<String> {
    const RECORDS: [&str; 6] = [
        "local",
        "host",
        "hostssl",
        "hostnossl",
        "hostgssenc",
        "hostnogssenc",
    ];
    const INCLUDES: [&str; 3] = ["include", "include_if_exists", "include_dir"];
    let counts = |line: &&str| {
        let first = line.split_whitespace().next().unwrap_or_default();
        RECORDS.contains(&first) || (server_version >= 160_000 && INCLUDES.contains(&first))
    };
    let lines = text.lines().map(str::trim).filter(counts);
    lines.map(str::to_owned).collect()
}

/// The lines of the server's `pg_ident.conf` that mean something.
pub fn ident_lines(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// The mapping at a key, made where there is none.
fn section<'m>(map: &'m mut Map, key: &str) -> &'m mut Map {
    let value = map.entry(key).or_insert(Value::Null);
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(section) => section,
        _ => unreachable!("it was made a mapping"),
    }
}

/// Sections in the order of the file; the stores and `bootstrap` stand between.
const BEFORE: [&str; 7] = [
    "scope",
    "namespace",
    "name",
    "log",
    "restapi",
    "ctl",
    "citus",
];
const AFTER: [&str; 3] = ["postgresql", "watchdog", "tags"];

/// The text of the file, without a newline at its end.
pub fn to_text(tree: &Map) -> String {
    let mut lines = Vec::new();
    let sections = |lines: &mut Vec<String>, names: &[&str]| {
        for name in names {
            let Some(value) = tree.get(*name) else {
                continue;
            };
            if value.is_object() {
                lines.push(String::new());
            }
            lines.push(block(name, value, ""));
        }
    };
    sections(&mut lines, &BEFORE);
    sections(&mut lines, &STORES);
    let dcs = tree.get("bootstrap").and_then(|section| section.get("dcs"));
    if let Some(Value::Object(dcs)) = dcs {
        let comments = [
            "",
            "# For the member that makes a new cluster; afterwards nobody reads this section.",
            "bootstrap:",
            "  # What the cluster-wide configuration is at first: the key /<namespace>/<scope>/config in the store.",
            "  # To change it later, use `edit-config`.",
            "  dcs:",
        ];
        lines.extend(comments.map(str::to_owned));
        let first = ["loop_wait", "retry_timeout", "ttl"];
        let rest = dcs.keys().map(String::as_str);
        let rest = rest.filter(|key| !first.contains(key));
        for key in first.into_iter().chain(rest) {
            if let Some(value) = dcs.get(key) {
                lines.push(block(key, value, "    "));
            }
        }
    }
    sections(&mut lines, &AFTER);
    lines.join("\n")
}

/// One key with its value, every line indented.
fn block(key: &str, value: &Value, indent: &str) -> String {
    let text = yaml::to_file(&json!({ key: value }));
    let newline = format!("\n{indent}");
    format!("{indent}{}", text.trim().replace('\n', &newline))
}
