//! What is handed to PostgreSQL.

use primacy_config::local::Citus;
use primacy_config::parameters::{
    Managed, STRICT_PLACEHOLDER, ServerParameters, recovery_parameters, server_parameters,
};
use primacy_config::{Effective, GucMap, TimingLimits};
use primacy_model::{CitusGroup, Role};
use serde_json::{Value, json};

fn effective(postgresql: Value, dynamic: Value) -> Effective {
    let mut local = json!({
        "scope": "batman",
        "name": "pg1",
        "restapi": {"listen": "127.0.0.1:8008"},
        "etcd3": {"host": "h"},
        "postgresql": {
            "listen": "*:5433",
            "data_dir": "/data",
            "config_dir": "/etc/pg",
            "authentication": {"superuser": {"username": "postgres"}},
        },
    });
    let section = local["postgresql"].as_object_mut().unwrap();
    section.extend(postgresql.as_object().cloned().unwrap());
    Effective::build(&local, dynamic.as_object().unwrap(), TimingLimits::PATRONI).unwrap()
}

fn parameters(postgresql: Value, dynamic: Value, version: u32) -> ServerParameters {
    let managed = Managed::default();
    server_parameters(
        &effective(postgresql, dynamic),
        version,
        Some(Role::Primary),
        &managed,
    )
}

fn dynamic_parameters(parameters: Value) -> Value {
    json!({"postgresql": {"parameters": parameters}})
}

fn line(parameters: &ServerParameters) -> Vec<String> {
    parameters
        .command_line
        .iter()
        .map(|(name, value)| format!("--{name}={value}"))
        .collect()
}

#[test]
fn the_command_line_keeps_its_order() {
    let dynamic = dynamic_parameters(json!({
        "wal_log_hints": true, "max_connections": "200", "track_commit_timestamp": "on",
    }));
    let written = parameters(json!({}), dynamic, 150_018);
    assert_eq!(
        line(&written),
        [
            "--listen_addresses=*",
            "--port=5433",
            "--cluster_name=batman",
            "--wal_level=replica",
            "--hot_standby=on",
            "--max_connections=200",
            "--max_wal_senders=10",
            "--max_prepared_transactions=0",
            "--max_locks_per_transaction=64",
            "--track_commit_timestamp=on",
            "--max_replication_slots=10",
            "--max_worker_processes=8",
            "--wal_log_hints=True",
        ]
    );
    let conf: Vec<_> = written.conf.keys().map(String::as_str).collect();
    let mut sorted = conf.clone();
    sorted.sort_unstable();
    assert_eq!(conf, sorted);
    assert_eq!(written.conf["wal_keep_size"], "128MB");
    assert_eq!(written.conf["wal_log_hints"], "True");
    assert_eq!(written.warnings, []);
}

#[test]
fn wal_to_keep_is_said_in_the_versions_unit() {
    for (given, version, name, value) in [
        (json!({}), 120_000, "wal_keep_segments", "8"),
        (
            json!({"wal_keep_segments": 20}),
            130_000,
            "wal_keep_size",
            "320MB",
        ),
        (
            json!({"wal_keep_size": "1GB"}),
            120_000,
            "wal_keep_segments",
            "64",
        ),
        (
            json!({"wal_keep_size": "1GB", "wal_keep_segments": 2}),
            150_000,
            "wal_keep_size",
            "1GB",
        ),
    ] {
        let written = parameters(json!({}), dynamic_parameters(given), version);
        assert_eq!(written.conf[name], value);
        assert_eq!(
            written
                .conf
                .keys()
                .filter(|name| name.starts_with("wal_keep"))
                .count(),
            1
        );
    }
}

#[test]
fn parameters_are_judged_before_they_are_written() {
    let own = json!({"parameters": {
        "work_mem": 1, "fsync": "maybe", "DateStyle": "iso", "pg_stat_statements.max": 5,
        "made_up": 1, "vendors_own": 2, "hba_file": "hba.conf", "ident_file": "/abs/ident",
    }});
    let listed = ["vendors_own".to_owned()];
    let managed = Managed {
        known_to_server: Some(&listed),
        ..Managed::default()
    };
    let written = server_parameters(&effective(own, json!({})), 150_018, None, &managed);
    for (name, value) in [
        ("work_mem", Some("64")),
        ("fsync", None),
        ("DateStyle", Some("iso")),
        ("pg_stat_statements.max", Some("5")),
        ("made_up", None),
        ("vendors_own", Some("2")),
        ("hba_file", Some("/etc/pg/hba.conf")),
        ("ident_file", Some("/abs/ident")),
    ] {
        assert_eq!(written.conf.get(name).map(String::as_str), value, "{name}");
    }
    assert_eq!(
        written.conf.keys().next().map(String::as_str),
        Some("DateStyle")
    );
    assert_eq!(written.warnings.len(), 3);
}

#[test]
fn a_parameter_without_a_value_is_not_written() {
    let own = json!({"parameters": {
        "search_path": null, "track_functions": null, "my.own": null, "vendors_own": null, "work_mem": null,
    }});
    let dynamic = dynamic_parameters(json!({"search_path": "x", "work_mem": "5MB"}));
    let listed = ["vendors_own".to_owned()];
    let managed = Managed {
        known_to_server: Some(&listed),
        ..Managed::default()
    };
    let written = server_parameters(&effective(own.clone(), dynamic), 150_018, None, &managed);
    for name in own["parameters"].as_object().unwrap().keys() {
        assert_eq!(written.conf.get(name), None, "{name}");
    }
    assert_eq!(written.warnings, []);
    let recovery: GucMap = [("restore_command".to_owned(), Value::Null)]
        .into_iter()
        .collect();
    assert_eq!(recovery_parameters(&recovery, 150_018).0.len(), 0);
}

#[test]
fn roles_override_but_not_what_is_protected() {
    let own = json!({
        "parameters": {"work_mem": "4MB"},
        "parameters_primary": {"WORK_MEM": "8MB", "max_connections": 5},
        "pg_hba": ["a"],
        "pg_hba_replica": ["b"],
    });
    let effective = effective(own, json!({}));
    let managed = Managed::default();
    let primary = server_parameters(&effective, 150_018, Some(Role::Promoted), &managed);
    assert_eq!(primary.conf["WORK_MEM"], "8MB");
    assert_eq!(primary.conf["max_connections"], "100");
    assert_eq!(
        primary.warnings[0].to_string(),
        "Role-based config attempted to override protected parameter 'max_connections', ignoring"
    );
    let replica = server_parameters(&effective, 150_018, Some(Role::Demoted), &managed);
    assert_eq!(replica.conf["work_mem"], "4MB");
    assert_eq!(
        effective.local.postgresql.pg_hba(Role::Replica).unwrap(),
        ["b"]
    );
    assert_eq!(
        effective.local.postgresql.pg_hba(Role::Primary).unwrap(),
        ["a"]
    );
}

#[test]
fn synchronous_standby_names_are_the_agents_in_synchronous_mode() {
    let own = json!({"parameters": {"synchronous_standby_names": "mine"}});
    let name = "synchronous_standby_names";
    for (dynamic, role, names, expected) in [
        (json!({}), Role::Primary, Some("x"), Some("mine")),
        (
            json!({"synchronous_mode": true}),
            Role::Primary,
            Some("x"),
            Some("x"),
        ),
        (
            json!({"synchronous_mode": "quorum"}),
            Role::Primary,
            None,
            None,
        ),
        (
            json!({"synchronous_mode": true, "synchronous_mode_strict": true}),
            Role::Primary,
            None,
            Some(STRICT_PLACEHOLDER),
        ),
        (
            json!({"synchronous_mode": true, "synchronous_mode_strict": true}),
            Role::Replica,
            None,
            None,
        ),
        (
            json!({"synchronous_mode": true, "standby_cluster": {"host": "h"}}),
            Role::Primary,
            None,
            Some("mine"),
        ),
    ] {
        let effective = effective(own.clone(), dynamic.clone());
        let managed = Managed {
            synchronous_standby_names: names,
            ..Managed::default()
        };
        let written = server_parameters(&effective, 150_018, Some(role), &managed);
        assert_eq!(
            written.conf.get(name).map(String::as_str),
            expected,
            "{dynamic} {role}"
        );
    }
}

#[test]
fn logical_slots_need_feedback() {
    let own = json!({"parameters": {"Hot_Standby_Feedback": "off"}});
    let managed = Managed {
        force_hot_standby_feedback: true,
        ..Managed::default()
    };
    let written = server_parameters(&effective(own, json!({})), 150_018, None, &managed);
    assert_eq!(written.conf["hot_standby_feedback"], "on");
    assert!(!written.conf.contains_key("Hot_Standby_Feedback"));
}

#[test]
fn recovery_settings_among_the_parameters_take_the_place_of_recovery_conf() {
    let own = json!({
        "parameters": {"restore_command": "cp %f %p", "trigger_file": "/t"},
        "recovery_conf": {"archive_cleanup_command": "x"},
    });
    let written = parameters(own.clone(), json!({}), 150_018);
    assert!(!written.conf.contains_key("restore_command"));
    let recovery = written.recovery_conf.unwrap();
    assert_eq!(
        recovery
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>(),
        ["restore_command=cp %f %p", "promote_trigger_file=/t"]
    );
    let written = parameters(own, json!({}), 170_000);
    assert_eq!(written.recovery_conf.unwrap().len(), 1);
    assert_eq!(
        parameters(json!({}), json!({}), 150_018).recovery_conf,
        None
    );
}

#[test]
fn recovery_settings_are_judged_too() {
    let settings: GucMap = [
        ("pause_at_recovery_target", json!("off")),
        ("recovery_min_apply_delay", json!("5min")),
        ("recovery_target", json!("sometime")),
        ("standby_mode", json!("on")),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    let (written, warnings) = recovery_parameters(&settings, 150_000);
    assert_eq!(
        written.into_iter().collect::<Vec<_>>(),
        [
            ("recovery_min_apply_delay".to_owned(), "5min".to_owned()),
            ("recovery_target_action".to_owned(), "promote".to_owned())
        ]
    );
    assert_eq!(warnings.len(), 2);
}

#[test]
fn the_control_file_may_raise_a_parameter() {
    let mut written = parameters(json!({}), json!({}), 150_018);
    written.set("max_connections", "300");
    assert_eq!(written.conf["max_connections"], "300");
    assert!(line(&written).contains(&"--max_connections=300".to_owned()));
}

#[test]
fn citus_needs_its_library() {
    let mut effective = effective(
        json!({"parameters": {"shared_preload_libraries": "pg_stat_statements, citus"}}),
        json!({}),
    );
    effective.local.citus = Some(Citus {
        group: CitusGroup(0),
        database: "db".into(),
    });
    let written = server_parameters(&effective, 150_018, None, &Managed::default());
    assert_eq!(
        written.conf["shared_preload_libraries"],
        "citus,pg_stat_statements"
    );
    assert_eq!(written.conf["max_prepared_transactions"], "200");
    assert_eq!(written.conf["wal_level"], "logical");
    assert_eq!(written.conf["citus.local_hostname"], "localhost");
}

#[test]
fn citus_reaches_the_server_as_the_agent_does() {
    for (postgresql, expected) in [
        (
            json!({"parameters": {"unix_socket_directories": "/tmp"}}),
            "localhost",
        ),
        (
            json!({"use_unix_socket": true, "parameters": {"unix_socket_directories": "@x, /tmp,/run"}}),
            "/tmp",
        ),
        (
            json!({"use_unix_socket": true, "parameters": {"unix_socket_directories": "@x"}}),
            "localhost",
        ),
        (
            json!({"use_unix_socket": true, "use_unix_socket_repl": true}),
            "localhost",
        ),
        (
            json!({"use_unix_socket_repl": true, "parameters": {"unix_socket_directories": "/tmp"}}),
            "localhost",
        ),
    ] {
        let mut effective = effective(postgresql.clone(), json!({}));
        effective.local.citus = Some(Citus {
            group: CitusGroup(0),
            database: "db".into(),
        });
        let written = server_parameters(&effective, 150_018, None, &Managed::default());
        assert_eq!(
            written.conf["citus.local_hostname"], expected,
            "{postgresql}"
        );
    }
}
