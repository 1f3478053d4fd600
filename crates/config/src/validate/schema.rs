use serde_json::Value;

use super::files::{self, Binaries};
use super::rule::{
    ALL_REACHABLE, IP_ADDRESS, LISTEN, LISTEN_LIST, NAME, NATURAL, PORT, PUBLIC, REACHABLE,
    REACHABLE_LIST, Rule, SECONDS, TEXTS, TEXTS_OR_DICTS, check,
};
use super::{Place, Report};
use crate::Map;
use crate::local::STORES;
use crate::scalar::python_str;

/// The whole local configuration, in the order in which faults are told.
pub(super) fn root(report: &mut Report, map: &Map) {
    let root = Place {
        path: String::new(),
        map,
    };
    report.required(&root, "name", &NAME);
    report.required(&root, "scope", &Rule::Text);
    report.optional(&root, "thread_pool_size", &Rule::IntegerIn(5, i64::MAX));
    report.optional(&root, "thread_stack_size", &Rule::StackSize);
    log(report, &root);
    if let Some(ctl) = report.enter(&root, "ctl", false) {
        report.optional(&ctl, "insecure", &Rule::Bool);
        report.all(
            &ctl,
            &["cacert", "certfile", "keyfile", "keyfile_password"],
            &Rule::Text,
        );
    }
    restapi(report, &root);
    bootstrap(report, &root);
    stores(report, &root);
    if let Some(citus) = report.enter(&root, "citus", false) {
        report.required(&citus, "database", &Rule::Text);
        report.required(&citus, "group", &Rule::IntegerIn(0, i64::MAX));
    }
    postgresql(report, &root);
    if let Some(watchdog) = report.enter(&root, "watchdog", false) {
        report.optional(&watchdog, "mode", &Rule::WatchdogMode);
        report.optional(&watchdog, "device", &Rule::Text);
        report.optional(&watchdog, "safety_margin", &Rule::IntegerIn(-1, i64::MAX));
    }
    if let Some(tags) = report.enter(&root, "tags", false) {
        let priority = Rule::IntegerIn(0, i64::MAX);
        let failover = [
            ("nofailover", &Rule::Bool),
            ("failover_priority", &priority),
        ];
        report.at_most_one(&tags, failover);
        report.all(&tags, &["clonefrom", "noloadbalance"], &Rule::Bool);
        report.optional(&tags, "replicatefrom", &Rule::Text);
        report.at_most_one(
            &tags,
            [("nosync", &Rule::Bool), ("sync_priority", &priority)],
        );
        report.optional(&tags, "nostream", &Rule::Bool);
    }
}

fn log(report: &mut Report, root: &Place<'_>) {
    const LEVELS: Rule = Rule::Word(&[
        "DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL",
    ]);
    let Some(log) = report.enter(root, "log", false) else {
        return;
    };
    report.optional(&log, "type", &Rule::Word(&["plain", "json"]));
    report.optional(&log, "level", &LEVELS);
    report.optional(&log, "traceback_level", &Rule::AnyCase(&["DEBUG", "ERROR"]));
    report.optional(&log, "format", &Rule::LogFormat);
    report.optional(&log, "dateformat", &Rule::Text);
    report.optional(&log, "static_fields", &Rule::Dict);
    report.optional(&log, "max_queue_size", &Rule::Integer);
    report.optional(&log, "dir", &Rule::Text);
    report.all(&log, &["file_num", "file_size"], &Rule::Integer);
    report.optional(&log, "mode", &Rule::IntegerIn(0, 511));
    report.optional(&log, "loggers", &Rule::Dict);
    report.optional(&log, "deduplicate_heartbeat_logs", &Rule::Bool);
}

fn restapi(report: &mut Report, root: &Place<'_>) {
    let Some(restapi) = report.enter(root, "restapi", true) else {
        return;
    };
    report.optional(&restapi, "thread_pool_size", &Rule::IntegerIn(5, i64::MAX));
    report.required(&restapi, "listen", &LISTEN);
    report.required(&restapi, "connect_address", &PUBLIC);
    if let Some(authentication) = report.enter(&restapi, "authentication", false) {
        report.required(&authentication, "username", &Rule::Text);
        report.required(&authentication, "password", &Rule::Text);
    }
    let texts = [
        "certfile",
        "keyfile",
        "keyfile_password",
        "cafile",
        "ciphers",
    ];
    report.all(&restapi, &texts, &Rule::Text);
    report.optional(
        &restapi,
        "verify_client",
        &Rule::Word(&["none", "optional", "required"]),
    );
    report.optional(&restapi, "allowlist", &TEXTS);
    report.optional(&restapi, "allowlist_include_members", &Rule::Bool);
    report.all(
        &restapi,
        &["http_extra_headers", "https_extra_headers"],
        &Rule::Dict,
    );
    report.optional(&restapi, "request_queue_size", &Rule::IntegerIn(0, 4096));
    let tokens = Rule::AnyCase(&["minimal", "productonly", "original"]);
    report.optional(&restapi, "server_tokens", &tokens);
}

fn bootstrap(report: &mut Report, root: &Place<'_>) {
    let Some(bootstrap) = report.enter(root, "bootstrap", false) else {
        return;
    };
    if let Some(dcs) = report.enter(&bootstrap, "dcs", true) {
        report.optional(&dcs, "ttl", &Rule::Number(20, i64::MAX, None));
        report.optional(&dcs, "loop_wait", &Rule::Number(1, i64::MAX, None));
        report.optional(&dcs, "retry_timeout", &Rule::Number(3, i64::MAX, None));
        report.optional(&dcs, "maximum_lag_on_failover", &NATURAL);
        report.optional(
            &dcs,
            "maximum_lag_on_syncnode",
            &Rule::Number(-1, i64::MAX, None),
        );
        report.optional(&dcs, "member_slots_ttl", &SECONDS);
        dynamic_postgresql(report, &dcs);
        report.all(
            &dcs,
            &[
                "primary_start_timeout",
                "primary_stop_timeout",
                "primary_hang_timeout",
            ],
            &NATURAL,
        );
        if let Some(standby) = report.enter(&dcs, "standby_cluster", false) {
            let remote = [
                ("host", &Rule::Text),
                ("port", &PORT),
                ("restore_command", &Rule::Text),
            ];
            report.one_of(&standby, &remote);
            report.optional(&standby, "primary_slot_name", &Rule::Text);
            report.optional(&standby, "create_replica_methods", &TEXTS);
            let texts = ["archive_cleanup_command", "recovery_min_apply_delay"];
            report.all(&standby, &texts, &Rule::Text);
        }
        report.optional(&dcs, "synchronous_mode", &Rule::SynchronousMode);
        report.optional(&dcs, "synchronous_mode_strict", &Rule::Bool);
        report.optional(
            &dcs,
            "synchronous_node_count",
            &Rule::Number(1, i64::MAX, None),
        );
    }
    report.optional(&bootstrap, "initdb", &TEXTS_OR_DICTS);
    report.optional(&bootstrap, "method", &Rule::Text);
}

fn dynamic_postgresql(report: &mut Report, dcs: &Place<'_>) {
    let Some(postgresql) = report.enter(dcs, "postgresql", false) else {
        return;
    };
    if let Some(parameters) = report.enter(&postgresql, "parameters", false) {
        let counts = Rule::Number(0, 262_143, None);
        report.optional(
            &parameters,
            "max_connections",
            &Rule::Number(1, 262_143, None),
        );
        let locks = Rule::Number(10, 2_147_483_647, None);
        report.optional(&parameters, "max_locks_per_transaction", &locks);
        let names = [
            "max_prepared_transactions",
            "max_replication_slots",
            "max_wal_senders",
            "max_worker_processes",
        ];
        report.all(&parameters, &names, &counts);
    }
    report.optional(&postgresql, "use_pg_rewind", &Rule::Bool);
    report.all(&postgresql, &["pg_hba", "pg_ident"], &TEXTS);
    report.optional(&postgresql, "pg_ctl_timeout", &NATURAL);
    report.optional(&postgresql, "use_slots", &Rule::Bool);
}

fn stores(report: &mut Report, root: &Place<'_>) {
    if !STORES.iter().any(|store| root.map.contains_key(*store)) {
        for store in STORES {
            report.missing(store);
        }
        return;
    }
    if let Some(consul) = report.enter(root, "consul", false) {
        report.one_of(&consul, &[("host", &REACHABLE), ("url", &Rule::Text)]);
        report.optional(&consul, "port", &PORT);
        report.all(&consul, &["scheme", "token"], &Rule::Text);
        report.optional(&consul, "verify", &Rule::Bool);
        report.all(&consul, &["cacert", "cert", "key", "dc"], &Rule::Text);
        report.optional(&consul, "checks", &TEXTS);
        report.optional(&consul, "register_service", &Rule::Bool);
        report.optional(&consul, "service_tags", &TEXTS);
        let texts = ["service_check_interval", "service_check_tls_server_name"];
        report.all(&consul, &texts, &Rule::Text);
        let levels = Rule::Word(&["default", "consistent", "stale"]);
        report.optional(&consul, "consistency", &levels);
    }
    for store in ["etcd", "etcd3"] {
        let Some(etcd) = report.enter(root, store, false) else {
            continue;
        };
        let places = [
            ("host", &REACHABLE),
            ("hosts", &REACHABLE_LIST),
            ("srv", &Rule::Text),
            ("srv_suffix", &Rule::Text),
            ("url", &Rule::Text),
            ("proxy", &Rule::Text),
        ];
        report.one_of(&etcd, &places);
        let texts = ["protocol", "username", "password", "cacert", "cert", "key"];
        report.all(&etcd, &texts, &Rule::Text);
    }
    if let Some(exhibitor) = report.enter(root, "exhibitor", false) {
        report.required(&exhibitor, "hosts", &TEXTS);
        report.required(&exhibitor, "port", &PORT);
        report.optional(&exhibitor, "poll_interval", &Rule::IntegerIn(1, i64::MAX));
    }
    kubernetes(report, root);
    if let Some(raft) = report.enter(root, "raft", false) {
        report.required(&raft, "self_addr", &PUBLIC);
        report.optional(&raft, "bind_addr", &LISTEN);
        report.required(&raft, "partner_addrs", &ALL_REACHABLE);
        report.all(&raft, &["data_dir", "password"], &Rule::Text);
        let timeouts = [
            "min_timeout",
            "max_timeout",
            "connection_timeout",
            "append_entries_period",
            "leader_fallback_timeout",
        ];
        report.all(&raft, &timeouts, &Rule::Positive { or_zero: false });
        report.optional(
            &raft,
            "connection_retry_time",
            &Rule::Positive { or_zero: true },
        );
    }
    if let Some(zookeeper) = report.enter(root, "zookeeper", false) {
        report.required(&zookeeper, "hosts", &REACHABLE_LIST);
        report.optional(&zookeeper, "use_ssl", &Rule::Bool);
        let texts = ["cacert", "cert", "key", "key_password"];
        report.all(&zookeeper, &texts, &Rule::Text);
        report.optional(&zookeeper, "verify", &Rule::Bool);
        report.all(&zookeeper, &["set_acls", "auth_data"], &Rule::Dict);
    }
}

fn kubernetes(report: &mut Report, root: &Place<'_>) {
    let Some(kubernetes) = report.enter(root, "kubernetes", false) else {
        return;
    };
    report.required(&kubernetes, "labels", &Rule::Dict);
    report.optional(&kubernetes, "bypass_api_service", &Rule::Bool);
    let texts = [
        "namespace",
        "scope_label",
        "role_label",
        "leader_label_value",
        "follower_label_value",
        "standby_leader_label_value",
        "tmp_role_label",
    ];
    report.all(&kubernetes, &texts, &Rule::Text);
    report.optional(&kubernetes, "use_endpoints", &Rule::Bool);
    report.optional(&kubernetes, "pod_ip", &IP_ADDRESS);
    let ports = kubernetes.map.get("ports").and_then(Value::as_array);
    if let Some(ports) = ports.filter(|ports| !ports.is_empty()) {
        for (index, port) in ports.iter().enumerate() {
            let path = format!("{}.{index}", kubernetes.key("ports"));
            let Value::Object(map) = port else {
                report.line(&path, &python_str(port), "is not a dictionary");
                continue;
            };
            for (key, rule) in [("name", &Rule::Text), ("port", &PORT)] {
                let path = format!("{path}.{key}");
                // The whole element is shown, whichever part of it is wrong.
                let Some(value) = map.get(key) else {
                    report.line(&path, &python_str(port), "is not defined.");
                    continue;
                };
                for fault in check(value, rule, report.options) {
                    report.line(&path, &python_str(port), &fault.text);
                }
            }
        }
    } else {
        report.optional(&kubernetes, "ports", &Rule::List(&Rule::Dict));
    }
    report.optional(&kubernetes, "cacert", &Rule::Text);
    let codes = Rule::Either(&[Rule::Integer, Rule::List(&Rule::Integer)]);
    report.optional(&kubernetes, "retriable_http_codes", &codes);
    report.optional(&kubernetes, "bootstrap_labels", &Rule::Dict);
}

fn postgresql(report: &mut Report, root: &Place<'_>) {
    let Some(postgresql) = report.enter(root, "postgresql", true) else {
        return;
    };
    report.required(&postgresql, "listen", &LISTEN_LIST);
    report.required(&postgresql, "connect_address", &PUBLIC);
    report.optional(&postgresql, "proxy_address", &PUBLIC);
    if let Some(authentication) = report.enter(&postgresql, "authentication", true) {
        for (role, required) in [
            ("replication", true),
            ("superuser", true),
            ("rewind", false),
        ] {
            if let Some(role) = report.enter(&authentication, role, required) {
                report.required(&role, "username", &Rule::Text);
                report.optional(&role, "password", &Rule::Text);
            }
        }
    }
    let binaries = Binaries::of(postgresql.map);
    let path = postgresql.key("data_dir");
    match postgresql.map.get("data_dir") {
        None => report.missing(&path),
        Some(Value::String(dir)) => {
            if let Err(detail) = files::data_dir(dir, &binaries) {
                report.line(&path, dir, &format!("didn't pass validation: {detail}"));
            }
        }
        Some(other) => report.line(&path, &python_str(other), "is not a string"),
    }
    if let Some(names) = report.enter(&postgresql, "bin_name", false) {
        for binary in files::renameable() {
            let path = names.key(binary);
            match names.map.get(binary) {
                None => {}
                Some(Value::String(name)) => {
                    if let Err(detail) = binaries.find(name) {
                        report.line(&path, name, &format!("didn't pass validation: {detail}"));
                    }
                }
                Some(other) => report.line(&path, &python_str(other), "is not a string"),
            }
        }
    }
    let path = postgresql.key("bin_dir");
    match postgresql.map.get("bin_dir") {
        // Patroni does not look for the executables of an empty one, and neither refuses it.
        Some(Value::Null) => {}
        Some(Value::String(_)) | None => {
            for fault in binaries.faults() {
                report.line(&path, "", &fault);
            }
        }
        Some(other) => report.line(&path, &python_str(other), "is not a string"),
    }
    if let Some(parameters) = report.enter(&postgresql, "parameters", false) {
        report.optional(&parameters, "unix_socket_directories", &Rule::Text);
    }
    report.all(&postgresql, &["pg_hba", "pg_ident"], &TEXTS);
    report.optional(&postgresql, "pg_ctl_timeout", &NATURAL);
    report.optional(&postgresql, "use_pg_rewind", &Rule::Bool);
}
