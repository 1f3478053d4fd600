use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::scalar::{parse_bool, parse_int, parse_real};
use crate::{Map, Warning, yaml};

/// What the `PATRONI_*` variables say.
#[derive(Clone, PartialEq, Default)]
pub struct Environment {
    /// The configuration tree that they amount to.
    pub tree: Map,
    /// The text of `PATRONI_CONFIGURATION`.
    pub configuration: Option<String>,
    /// Names that were understood; they are kept out of the environment of children.
    pub consumed: BTreeSet<String>,
    /// Values that could not be read. The values themselves are not told, for they may be secret.
    pub warnings: Vec<Warning>,
}

/// Reads the environment (`configuration.md` §2.17).
pub fn from_environment(variables: impl IntoIterator<Item = (String, String)>) -> Environment {
    let mut variables: BTreeMap<String, String> = variables
        .into_iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?.to_owned(), value)))
        .collect();
    let mut environment = Environment::default();
    environment.configuration = environment.take(&mut variables, "CONFIGURATION");
    for (section, keys) in FIXED {
        for (suffix, shape) in keys.iter() {
            let name = match section.is_empty() {
                true => (*suffix).to_owned(),
                false => format!("{}_{suffix}", section.to_ascii_uppercase()),
            };
            let text = environment.take(&mut variables, &name);
            let old = RENAMED
                .iter()
                .find(|(_, new)| *new == name)
                .map(|(old, _)| *old);
            let old = old.and_then(|old| environment.take(&mut variables, old));
            let Some(text) = text.or(old).filter(|text| !text.is_empty()) else {
                continue;
            };
            if let Some(value) = environment.read(&name, *shape, &text) {
                environment.set(&path(section, suffix), value);
            }
        }
    }
    for (role, allowed) in ROLES {
        for suffix in *allowed {
            let name = format!("{}_{suffix}", role.to_ascii_uppercase());
            let Some(text) = environment.take(&mut variables, &name) else {
                continue;
            };
            if !text.is_empty() {
                let section = match *role {
                    "restapi" | "ctl" => format!("{role}.authentication"),
                    _ => format!("postgresql.authentication.{role}"),
                };
                environment.set(&path(&section, suffix), Value::String(text));
            }
        }
    }
    environment.generic(&mut variables);
    for (documented, real) in MISNAMED {
        if variables.contains_key(documented) {
            environment.warnings.push(Warning(format!(
                "The environment variable {PREFIX}{documented} has no effect: {real}"
            )));
        }
    }
    environment
}

const PREFIX: &str = "PATRONI_";

/// How the text of a variable is understood.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    Int,
    Real,
    Bool,
    List,
    Dict,
    /// A list unless it has a `%(name)` token.
    LogFormat,
}

use Shape::{Bool, Dict, Int, List, LogFormat, Real, Text};

/// Variables with names of their own, by section.
const FIXED: &[(&str, &[(&str, Shape)])] = &[
    (
        "",
        &[
            ("NAME", Text),
            ("NAMESPACE", Text),
            ("SCOPE", Text),
            ("THREAD_POOL_SIZE", Text),
            ("THREAD_STACK_SIZE", Text),
        ],
    ),
    (
        "log",
        &[
            ("TYPE", Text),
            ("LEVEL", Text),
            ("TRACEBACK_LEVEL", Text),
            ("FORMAT", LogFormat),
            ("DATEFORMAT", Text),
            ("STATIC_FIELDS", Dict),
            ("MAX_QUEUE_SIZE", Int),
            ("DIR", Text),
            ("MODE", Int),
            ("FILE_SIZE", Int),
            ("FILE_NUM", Int),
            ("LOGGERS", Dict),
            ("DEDUPLICATE_HEARTBEAT_LOGS", Bool),
        ],
    ),
    (
        "restapi",
        &[
            ("LISTEN", Text),
            ("CONNECT_ADDRESS", Text),
            ("CERTFILE", Text),
            ("KEYFILE", Text),
            ("KEYFILE_PASSWORD", Text),
            ("CAFILE", Text),
            ("CIPHERS", Text),
            ("VERIFY_CLIENT", Text),
            ("HTTP_EXTRA_HEADERS", Dict),
            ("HTTPS_EXTRA_HEADERS", Dict),
            ("ALLOWLIST", List),
            ("ALLOWLIST_INCLUDE_MEMBERS", Bool),
            ("REQUEST_QUEUE_SIZE", Int),
            ("SERVER_TOKENS", Text),
        ],
    ),
    (
        "ctl",
        &[
            ("INSECURE", Bool),
            ("CACERT", Text),
            ("CERTFILE", Text),
            ("KEYFILE", Text),
            ("KEYFILE_PASSWORD", Text),
        ],
    ),
    (
        "postgresql",
        &[
            ("LISTEN", Text),
            ("CONNECT_ADDRESS", Text),
            ("PROXY_ADDRESS", Text),
            ("CONFIG_DIR", Text),
            ("DATA_DIR", Text),
            ("PGPASS", Text),
            ("BIN_DIR", Text),
            ("BIN_PG_CTL", Text),
            ("BIN_INITDB", Text),
            ("BIN_PG_CONTROLDATA", Text),
            ("BIN_PG_BASEBACKUP", Text),
            ("BIN_POSTGRES", Text),
            ("BIN_PG_ISREADY", Text),
            ("BIN_PG_REWIND", Text),
        ],
    ),
    (
        "raft",
        &[
            ("DATA_DIR", Text),
            ("SELF_ADDR", Text),
            ("BIND_ADDR", Text),
            ("PARTNER_ADDRS", List),
            ("PASSWORD", Text),
            ("MIN_TIMEOUT", Real),
            ("MAX_TIMEOUT", Real),
            ("CONNECTION_TIMEOUT", Real),
            ("APPEND_ENTRIES_PERIOD", Real),
            ("CONNECTION_RETRY_TIME", Real),
            ("LEADER_FALLBACK_TIMEOUT", Real),
        ],
    ),
];

/// Old names and what they became; the new one wins.
const RENAMED: [(&str, &str); 3] = [
    ("LOGLEVEL", "LOG_LEVEL"),
    ("LOGFORMAT", "LOG_FORMAT"),
    ("LOG_DATEFMT", "LOG_DATEFORMAT"),
];

/// Names that documentation has and nothing reads (§9, 1 to 3), and what to do instead.
const MISNAMED: [(&str, &str); 3] = [
    (
        "POSTGRESQL_BIN_IS_READY",
        "its name is PATRONI_POSTGRESQL_BIN_PG_ISREADY",
    ),
    (
        "RETRIABLE_HTTP_CODES",
        "its name is PATRONI_KUBERNETES_RETRIABLE_HTTP_CODES",
    ),
    ("CONSUL_SCHEME", "set scheme in the section consul"),
];

const PASSWORD: &[&str] = &["USERNAME", "PASSWORD"];
const LIBPQ: &[&str] = &[
    "USERNAME",
    "PASSWORD",
    "SSLMODE",
    "SSLCERT",
    "SSLKEY",
    "SSLPASSWORD",
    "SSLROOTCERT",
    "SSLCRL",
    "SSLCRLDIR",
    "GSSENCMODE",
    "CHANNEL_BINDING",
    "SSLNEGOTIATION",
];
const ROLES: &[(&str, &[&str])] = &[
    ("restapi", PASSWORD),
    ("ctl", PASSWORD),
    ("superuser", LIBPQ),
    ("replication", LIBPQ),
    ("rewind", LIBPQ),
];

/// What may follow any section name, for the stores.
const GENERIC: &[(&str, Shape)] = &[
    ("HOST", Text),
    ("HOSTS", List),
    ("PORT", Int),
    ("USE_PROXIES", Bool),
    ("PROTOCOL", Text),
    ("SRV", Text),
    ("SRV_SUFFIX", Text),
    ("URL", Text),
    ("PROXY", Text),
    ("CACERT", Text),
    ("CERT", Text),
    ("KEY", Text),
    ("VERIFY", Bool),
    ("TOKEN", Text),
    ("CHECKS", List),
    ("DC", Text),
    ("CONSISTENCY", Text),
    ("REGISTER_SERVICE", Bool),
    ("SERVICE_CHECK_INTERVAL", Text),
    ("SERVICE_CHECK_TLS_SERVER_NAME", Text),
    ("SERVICE_TAGS", List),
    ("NAMESPACE", Text),
    ("CONTEXT", Text),
    ("USE_ENDPOINTS", Bool),
    ("SCOPE_LABEL", Text),
    ("ROLE_LABEL", Text),
    ("POD_IP", Text),
    ("PORTS", List),
    ("LABELS", Dict),
    ("BYPASS_API_SERVICE", Bool),
    ("RETRIABLE_HTTP_CODES", List),
    ("KEY_PASSWORD", Text),
    ("USE_SSL", Text),
    ("SET_ACLS", Dict),
    ("GROUP", Int),
    ("DATABASE", Text),
    ("LEADER_LABEL_VALUE", Text),
    ("FOLLOWER_LABEL_VALUE", Text),
    ("STANDBY_LEADER_LABEL_VALUE", Text),
    ("TMP_ROLE_LABEL", Text),
    ("AUTH_DATA", Dict),
    ("BOOTSTRAP_LABELS", Dict),
];

impl Environment {
    /// Takes a variable out, and keeps its name.
    fn take(&mut self, variables: &mut BTreeMap<String, String>, name: &str) -> Option<String> {
        let value = variables.remove(name)?;
        self.consumed.insert(format!("{PREFIX}{name}"));
        Some(value)
    }

    /// `PATRONI_<SECTION>_<SUFFIX>`. An empty value is kept here, and overrides the file.
    fn generic(&mut self, variables: &mut BTreeMap<String, String>) {
        for name in variables.keys().cloned().collect::<Vec<_>>() {
            let Some((section, suffix)) = name.split_once('_') else {
                continue;
            };
            let known = GENERIC.iter().find(|(known, _)| *known == suffix);
            let citus = section == "CITUS" && !matches!(suffix, "GROUP" | "DATABASE");
            let Some((_, shape)) = known.filter(|_| !section.is_empty() && !citus) else {
                continue;
            };
            let Some(text) = self.take(variables, &name) else {
                continue;
            };
            let value = match (text.is_empty(), shape) {
                (true, Dict) => Some(Value::Object(Map::new())),
                (true, Bool) => None,
                (true, _) => Some(Value::String(text)),
                (false, shape) => self.read(&name, *shape, &text),
            };
            if let Some(value) = value {
                self.set(&path(&section.to_lowercase(), suffix), value);
            }
        }
        for section in ["etcd", "etcd3"] {
            let configured = self.tree.contains_key(section);
            for suffix in PASSWORD {
                let name = format!("{}_{suffix}", section.to_uppercase());
                let Some(text) = self.take(variables, &name).filter(|text| !text.is_empty()) else {
                    continue;
                };
                if configured {
                    self.set(&path(section, suffix), Value::String(text));
                } else {
                    self.warnings.push(Warning(format!(
                        "The environment variable {PREFIX}{name} has no effect: it is read only where another \
                         variable of the section {section} is set, such as PATRONI_{}_HOSTS",
                        section.to_uppercase()
                    )));
                }
            }
        }
    }

    fn read(&mut self, name: &str, shape: Shape, text: &str) -> Option<Value> {
        let as_text = Value::String(text.to_owned());
        let value = match shape {
            Text => Some(as_text),
            Int => parse_int(&as_text).map(Value::from),
            Real => parse_real(&as_text).map(Value::from),
            Bool => parse_bool(&as_text).map(Value::from),
            LogFormat if has_log_token(text) => Some(as_text),
            List | LogFormat => {
                let bare = text.starts_with('-') || text.contains('[');
                let document = if bare {
                    text.to_owned()
                } else {
                    format!("[{text}]")
                };
                yaml::parse(name, &document).ok()
            }
            Dict => {
                let bare = text.starts_with('{');
                let document = if bare {
                    text.to_owned()
                } else {
                    format!("{{{text}}}")
                };
                yaml::parse(name, &document).ok().filter(Value::is_object)
            }
        };
        if value.is_none() {
            let expected = match shape {
                Int => "an integer",
                Real => "a number",
                Bool => "a boolean",
                Dict => "a mapping such as key: value",
                List | Text | LogFormat => "a list such as a,b",
            };
            self.warnings.push(Warning(format!(
                "The environment variable {PREFIX}{name} is ignored: expected {expected}"
            )));
        }
        value
    }

    /// Puts a value at a dotted path. The paths come from the tables above, and never end at a section.
    fn set(&mut self, path: &str, value: Value) {
        let (sections, key) = path.rsplit_once('.').unwrap_or(("", path));
        let mut map = &mut self.tree;
        for section in sections.split('.').filter(|section| !section.is_empty()) {
            let entry = map
                .entry(section)
                .or_insert_with(|| Value::Object(Map::new()));
            match entry {
                Value::Object(inner) => map = inner,
                _ => return,
            }
        }
        map.insert(key.to_owned(), value);
    }
}

fn path(section: &str, suffix: &str) -> String {
    let key = suffix.to_ascii_lowercase();
    match (
        section,
        key.strip_prefix("bin_").filter(|binary| *binary != "dir"),
    ) {
        ("", _) => key,
        ("postgresql", Some(binary)) => format!("postgresql.bin_name.{binary}"),
        _ => format!("{section}.{key}"),
    }
}

fn has_log_token(format: &str) -> bool {
    format.split("%(").skip(1).any(|rest| {
        rest.split_once(')')
            .is_some_and(|(name, _)| !name.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Environment {
        from_environment(
            variables
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned())),
        )
    }

    #[test]
    fn warnings_do_not_tell_values() {
        let bad = read(&[("PATRONI_LOG_STATIC_FIELDS", "}s3cret"), ("PATRONI_X", "y")]);
        assert_eq!(bad.warnings.len(), 1);
        assert!(!bad.warnings[0].0.contains("s3cret"));
        assert!(!bad.consumed.contains("PATRONI_X"));
    }
}
