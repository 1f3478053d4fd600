//! Every variable there is, and where its value goes (`configuration.md` §2.17 and appendix B).

use primacy_config::{Environment, from_environment};
use serde_json::{Value, json};

fn read(variables: &[(&str, &str)]) -> Environment {
    let owned = variables.iter().map(|(name, value)| {
        let name = format!("PATRONI_{name}");
        (name, (*value).to_owned())
    });
    from_environment(owned)
}

/// `{"a": {"b": value}}` of `a.b`.
fn tree(path: &str, value: Value) -> Value {
    path.rsplit('.')
        .fold(value, |inner, key| json!({ key: inner }))
}

const LIBPQ: &str = "USERNAME PASSWORD SSLMODE SSLCERT SSLKEY SSLPASSWORD SSLROOTCERT SSLCRL SSLCRLDIR GSSENCMODE CHANNEL_BINDING SSLNEGOTIATION";

/// Shape, section, beginning of the names, and their ends, which are the keys.
const VARIABLES: &[(&str, &str, &str, &str)] = &[
    (
        "text",
        "",
        "",
        "NAME NAMESPACE SCOPE THREAD_POOL_SIZE THREAD_STACK_SIZE",
    ),
    (
        "text",
        "log.",
        "LOG_",
        "TYPE LEVEL TRACEBACK_LEVEL DATEFORMAT DIR",
    ),
    ("list", "log.", "LOG_", "FORMAT"),
    ("dict", "log.", "LOG_", "STATIC_FIELDS LOGGERS"),
    (
        "int",
        "log.",
        "LOG_",
        "MAX_QUEUE_SIZE MODE FILE_SIZE FILE_NUM",
    ),
    ("bool", "log.", "LOG_", "DEDUPLICATE_HEARTBEAT_LOGS"),
    (
        "text",
        "restapi.",
        "RESTAPI_",
        "LISTEN CONNECT_ADDRESS CERTFILE KEYFILE KEYFILE_PASSWORD CAFILE CIPHERS VERIFY_CLIENT SERVER_TOKENS",
    ),
    (
        "dict",
        "restapi.",
        "RESTAPI_",
        "HTTP_EXTRA_HEADERS HTTPS_EXTRA_HEADERS",
    ),
    ("list", "restapi.", "RESTAPI_", "ALLOWLIST"),
    ("bool", "restapi.", "RESTAPI_", "ALLOWLIST_INCLUDE_MEMBERS"),
    ("int", "restapi.", "RESTAPI_", "REQUEST_QUEUE_SIZE"),
    (
        "text",
        "restapi.authentication.",
        "RESTAPI_",
        "USERNAME PASSWORD",
    ),
    ("bool", "ctl.", "CTL_", "INSECURE"),
    (
        "text",
        "ctl.",
        "CTL_",
        "CACERT CERTFILE KEYFILE KEYFILE_PASSWORD",
    ),
    ("text", "ctl.authentication.", "CTL_", "USERNAME PASSWORD"),
    (
        "text",
        "postgresql.",
        "POSTGRESQL_",
        "LISTEN CONNECT_ADDRESS PROXY_ADDRESS CONFIG_DIR DATA_DIR PGPASS BIN_DIR",
    ),
    (
        "text",
        "postgresql.bin_name.",
        "POSTGRESQL_BIN_",
        "PG_CTL INITDB PG_CONTROLDATA PG_BASEBACKUP POSTGRES PG_ISREADY PG_REWIND",
    ),
    (
        "text",
        "postgresql.authentication.superuser.",
        "SUPERUSER_",
        LIBPQ,
    ),
    (
        "text",
        "postgresql.authentication.replication.",
        "REPLICATION_",
        LIBPQ,
    ),
    (
        "text",
        "postgresql.authentication.rewind.",
        "REWIND_",
        LIBPQ,
    ),
    (
        "text",
        "raft.",
        "RAFT_",
        "DATA_DIR SELF_ADDR PASSWORD BIND_ADDR",
    ),
    ("list", "raft.", "RAFT_", "PARTNER_ADDRS"),
    (
        "real",
        "raft.",
        "RAFT_",
        "MIN_TIMEOUT MAX_TIMEOUT CONNECTION_TIMEOUT APPEND_ENTRIES_PERIOD CONNECTION_RETRY_TIME LEADER_FALLBACK_TIMEOUT",
    ),
    ("int", "citus.", "CITUS_", "GROUP"),
    ("text", "citus.", "CITUS_", "DATABASE"),
    (
        "text",
        "consul.",
        "CONSUL_",
        "HOST URL TOKEN CACERT CERT KEY DC CONSISTENCY SERVICE_CHECK_INTERVAL SERVICE_CHECK_TLS_SERVER_NAME",
    ),
    ("int", "consul.", "CONSUL_", "PORT"),
    ("bool", "consul.", "CONSUL_", "VERIFY REGISTER_SERVICE"),
    ("list", "consul.", "CONSUL_", "CHECKS SERVICE_TAGS"),
    (
        "text",
        "etcd.",
        "ETCD_",
        "HOST URL PROXY SRV SRV_SUFFIX PROTOCOL CACERT CERT KEY",
    ),
    ("int", "etcd.", "ETCD_", "PORT"),
    ("bool", "etcd.", "ETCD_", "USE_PROXIES"),
    ("list", "etcd.", "ETCD_", "HOSTS"),
    (
        "text",
        "etcd3.",
        "ETCD3_",
        "HOST URL PROXY SRV SRV_SUFFIX PROTOCOL CACERT CERT KEY",
    ),
    ("int", "etcd3.", "ETCD3_", "PORT"),
    ("bool", "etcd3.", "ETCD3_", "USE_PROXIES"),
    ("list", "etcd3.", "ETCD3_", "HOSTS"),
    ("list", "zookeeper.", "ZOOKEEPER_", "HOSTS"),
    (
        "text",
        "zookeeper.",
        "ZOOKEEPER_",
        "USE_SSL CACERT CERT KEY KEY_PASSWORD",
    ),
    ("bool", "zookeeper.", "ZOOKEEPER_", "VERIFY"),
    ("dict", "zookeeper.", "ZOOKEEPER_", "SET_ACLS AUTH_DATA"),
    ("list", "exhibitor.", "EXHIBITOR_", "HOSTS"),
    ("int", "exhibitor.", "EXHIBITOR_", "PORT"),
    (
        "text",
        "kubernetes.",
        "KUBERNETES_",
        "NAMESPACE SCOPE_LABEL ROLE_LABEL LEADER_LABEL_VALUE FOLLOWER_LABEL_VALUE STANDBY_LEADER_LABEL_VALUE TMP_ROLE_LABEL POD_IP CACERT CONTEXT",
    ),
    (
        "dict",
        "kubernetes.",
        "KUBERNETES_",
        "LABELS BOOTSTRAP_LABELS",
    ),
    (
        "bool",
        "kubernetes.",
        "KUBERNETES_",
        "USE_ENDPOINTS BYPASS_API_SERVICE",
    ),
    (
        "list",
        "kubernetes.",
        "KUBERNETES_",
        "PORTS RETRIABLE_HTTP_CODES",
    ),
];

/// Of each shape: a text, what it becomes, and one that is dropped.
fn shape(name: &str) -> (&'static str, Value, Option<&'static str>) {
    match name {
        "int" => ("0644", json!(420), Some("1x")),
        "real" => ("0.5", json!(0.5), Some("soon")),
        "bool" => ("Off", json!(false), Some("maybe")),
        "list" => ("a:1, b", json!(["a:1", "b"]), Some("a, {b")),
        "dict" => ("a: 1, b: x", json!({"a": 1, "b": "x"}), Some("{a")),
        _ => ("on", json!("on"), None),
    }
}

/// Sections whose names are not fixed: an empty value overrides the file there.
const GENERIC: [&str; 7] = [
    "citus.",
    "consul.",
    "etcd.",
    "etcd3.",
    "zookeeper.",
    "exhibitor.",
    "kubernetes.",
];

#[test]
fn every_variable_has_its_place_and_shape() {
    for (kind, section, beginning, ends) in VARIABLES {
        for end in ends.split_whitespace() {
            let name = format!("{beginning}{end}");
            let path = format!("{section}{}", end.to_lowercase());
            let (text, value, bad) = shape(kind);
            let environment = read(&[(&name, text)]);
            assert_eq!(
                Value::Object(environment.tree),
                tree(&path, value),
                "{name}={text}"
            );
            assert!(
                environment.consumed.contains(&format!("PATRONI_{name}")),
                "{name}"
            );
            assert_eq!(environment.warnings, [], "{name}={text}");

            if let Some(bad) = bad {
                let environment = read(&[(&name, bad)]);
                assert!(
                    environment.tree.is_empty(),
                    "{name}={bad}: {:?}",
                    environment.tree
                );
                assert_eq!(environment.warnings.len(), 1, "{name}={bad}");
            }
            let empty = match (GENERIC.contains(section), *kind) {
                (true, "dict") => tree(&path, json!({})),
                (true, "bool") | (false, _) => json!({}),
                (true, _) => tree(&path, json!("")),
            };
            assert_eq!(
                Value::Object(read(&[(&name, "")]).tree),
                empty,
                "{name} empty"
            );
        }
    }
}

#[test]
fn some_are_read_only_beside_others_or_under_another_name() {
    for (variables, expected, warnings) in [
        (&[("ETCD3_USERNAME", "u")][..], json!({}), 1),
        (
            &[("ETCD_PASSWORD", "p"), ("ETCD3_HOST", "h")],
            json!({"etcd3": {"host": "h"}}),
            1,
        ),
        (
            &[
                ("ETCD3_HOST", "h"),
                ("ETCD3_USERNAME", "u"),
                ("ETCD3_PASSWORD", "p"),
            ],
            json!({"etcd3": {"host": "h", "username": "u", "password": "p"}}),
            0,
        ),
        (
            &[("LOGLEVEL", "DEBUG"), ("LOG_LEVEL", "ERROR")],
            json!({"log": {"level": "ERROR"}}),
            0,
        ),
        (
            &[("LOGFORMAT", "x, y")],
            json!({"log": {"format": ["x", "y"]}}),
            0,
        ),
        (
            &[("LOG_DATEFMT", "%s")],
            json!({"log": {"dateformat": "%s"}}),
            0,
        ),
        (&[("POSTGRESQL_BIN_IS_READY", "x")], json!({}), 1),
        (&[("RETRIABLE_HTTP_CODES", "500")], json!({}), 1),
        (&[("CONSUL_SCHEME", "https")], json!({}), 1),
        (&[("RESTAPI_THREAD_POOL_SIZE", "9")], json!({}), 0),
        (&[("CITUS_HOST", "h")], json!({}), 0),
        (&[("FOO_PORT", "5")], json!({"foo": {"port": 5}}), 0),
        (
            &[("LOG_FORMAT", "%(message)s, x")],
            json!({"log": {"format": "%(message)s, x"}}),
            0,
        ),
        (
            &[("RAFT_PARTNER_ADDRS", "- a:1\n- b:2")],
            json!({"raft": {"partner_addrs": ["a:1", "b:2"]}}),
            0,
        ),
        (
            &[("RAFT_PARTNER_ADDRS", "['a:1']")],
            json!({"raft": {"partner_addrs": ["a:1"]}}),
            0,
        ),
        (
            &[("LOG_LOGGERS", "{a: X}")],
            json!({"log": {"loggers": {"a": "X"}}}),
            0,
        ),
    ] {
        let environment = read(variables);
        assert_eq!(Value::Object(environment.tree), expected, "{variables:?}");
        assert_eq!(environment.warnings.len(), warnings, "{variables:?}");
    }
}
