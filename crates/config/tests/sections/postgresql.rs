use primacy_config::local::LocalConfig;
use serde_json::json;

use crate::{show, walk, with};

#[test]
fn postgresql_2_13() {
    let connect = |c: &LocalConfig| c.postgresql.connect_address.to_string();
    let methods = |c: &LocalConfig| show(&c.postgresql.create_replica_methods);
    let hba = |c: &LocalConfig| show(&c.postgresql.pg_hba);
    walk(&[
        (
            "postgresql.listen",
            |c| show(c.postgresql.listen.port),
            "5432",
            json!("a,b:5433"),
            "5433",
        ),
        (
            "postgresql.listen",
            |c| c.postgresql.listen.addresses(),
            "127.0.0.1",
            json!("a,b:5433"),
            "a,b",
        ),
        (
            "postgresql.connect_address",
            connect,
            "localhost:5432",
            json!("h"),
            "h:5432",
        ),
        (
            "postgresql.connect_address",
            connect,
            "localhost:5432",
            json!("h:1"),
            "h:1",
        ),
        (
            "postgresql.proxy_address",
            |c| show(c.postgresql.proxy_address.is_some()),
            "false",
            json!("h:1"),
            "true",
        ),
        (
            "postgresql.data_dir",
            |c| show(&c.postgresql.data_dir),
            r#""/data""#,
            json!("/d"),
            r#""/d""#,
        ),
        (
            "postgresql.data_dir",
            |c| show(&c.postgresql.config_dir),
            r#""/data""#,
            json!("/d"),
            r#""/d""#,
        ),
        (
            "postgresql.config_dir",
            |c| show(&c.postgresql.config_dir),
            r#""/data""#,
            json!("/c"),
            r#""/c""#,
        ),
        (
            "postgresql.config_base_name",
            |c| c.postgresql.config_base_name.clone(),
            "postgresql",
            json!("pg"),
            "pg",
        ),
        (
            "postgresql.database",
            |c| c.postgresql.database.clone(),
            "postgres",
            json!("d"),
            "d",
        ),
        (
            "postgresql.bin_dir",
            |c| show(c.postgresql.binary("initdb")),
            r#""initdb""#,
            json!("/b"),
            r#""/b/initdb""#,
        ),
        (
            "postgresql.bin_name",
            |c| show(c.postgresql.binary("pg_ctl")),
            r#""pg_ctl""#,
            json!({"pg_ctl": "ctl"}),
            r#""ctl""#,
        ),
        (
            "postgresql.krbsrvname",
            |c| show(&c.postgresql.krbsrvname),
            "None",
            json!("k"),
            r#"Some("k")"#,
        ),
        (
            "postgresql.pgpass",
            |c| show(&c.postgresql.pgpass),
            "None",
            json!("/p"),
            r#"Some("/p")"#,
        ),
        (
            "postgresql.create_replica_methods",
            methods,
            r#"["basebackup"]"#,
            json!(["a"]),
            r#"["a"]"#,
        ),
        (
            "postgresql.create_replica_methods",
            methods,
            r#"["basebackup"]"#,
            json!([]),
            r#"["basebackup"]"#,
        ),
        (
            "postgresql.create_replica_method",
            methods,
            r#"["basebackup"]"#,
            json!(["a"]),
            r#"["a"]"#,
        ),
        (
            "postgresql.basebackup",
            |c| show(c.postgresql.basebackup.options.len()),
            "0",
            json!({"max-rate": "1M", "pgdata": "x"}),
            "1",
        ),
        (
            "postgresql.rewind",
            |c| show(c.postgresql.rewind.options.len()),
            "0",
            json!(["debug", "dry-run"]),
            "1",
        ),
        (
            "postgresql.parameters",
            |c| show(c.postgresql.parameters.get("work_mem")),
            "None",
            json!({"WORK_MEM": 5}),
            "Some(Number(5))",
        ),
        (
            "postgresql.pg_hba",
            hba,
            "None",
            json!(["a", {"b": 1}]),
            r#"Some(["a"])"#,
        ),
        (
            "postgresql.pg_ident",
            |c| show(&c.postgresql.pg_ident),
            "None",
            json!(["a"]),
            r#"Some(["a"])"#,
        ),
        (
            "postgresql.parameters_standby_leader",
            |c| {
                show(
                    c.postgresql
                        .on_standby_leader
                        .parameters
                        .contains("work_mem"),
                )
            },
            "false",
            json!({"work_mem": 1}),
            "true",
        ),
        (
            "postgresql.pg_ident_primary",
            |c| show(&c.postgresql.on_primary.pg_ident),
            "None",
            json!([]),
            "Some([])",
        ),
        (
            "postgresql.pg_hba_replica",
            |c| show(&c.postgresql.on_replica.pg_hba),
            "None",
            json!(["a"]),
            r#"Some(["a"])"#,
        ),
        (
            "postgresql.recovery_conf",
            |c| show(c.postgresql.recovery_conf.contains("restore_command")),
            "false",
            json!({"restore_command": "x"}),
            "true",
        ),
        (
            "postgresql.custom_conf",
            |c| show(&c.postgresql.custom_conf),
            "None",
            json!("c"),
            r#"Some("c")"#,
        ),
        (
            "postgresql.use_pg_rewind",
            |c| show(c.postgresql.use_pg_rewind),
            "false",
            json!(true),
            "true",
        ),
        // Any text is true.
        (
            "postgresql.use_pg_rewind",
            |c| show(c.postgresql.use_pg_rewind),
            "false",
            json!("false"),
            "true",
        ),
        (
            "postgresql.use_pg_rewind",
            |c| show(c.postgresql.use_pg_rewind),
            "false",
            json!(0),
            "false",
        ),
        (
            "postgresql.remove_data_directory_on_rewind_failure",
            |c| show(c.postgresql.remove_data_directory_on_rewind_failure),
            "false",
            json!(true),
            "true",
        ),
        (
            "postgresql.remove_data_directory_on_diverged_timelines",
            |c| show(c.postgresql.remove_data_directory_on_diverged_timelines),
            "false",
            json!(1),
            "true",
        ),
        (
            "postgresql.use_unix_socket",
            |c| show(c.postgresql.use_unix_socket),
            "false",
            json!(true),
            "true",
        ),
        (
            "postgresql.use_unix_socket_repl",
            |c| show(c.postgresql.use_unix_socket_repl),
            "false",
            json!(true),
            "true",
        ),
        (
            "postgresql.pg_ctl_timeout",
            |c| show(c.postgresql.pg_ctl_timeout),
            "60s",
            json!("1.5"),
            "1.5s",
        ),
        (
            "postgresql.pg_ctl_timeout",
            |c| show(c.postgresql.pg_ctl_timeout),
            "60s",
            json!("long"),
            "60s",
        ),
        (
            "postgresql.pre_promote",
            |c| show(&c.postgresql.pre_promote),
            "None",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "postgresql.before_stop",
            |c| show(&c.postgresql.before_stop),
            "None",
            json!("x"),
            r#"Some("x")"#,
        ),
    ]);
    for callback in [
        "on_start",
        "on_stop",
        "on_restart",
        "on_reload",
        "on_role_change",
    ] {
        let config = with(&[(
            "postgresql.callbacks",
            json!({callback: "x", "on_fire": "y"}),
        )]);
        let shown = show(&config.postgresql.callbacks);
        assert!(
            shown.contains(&format!(r#"{callback}: Some("x")"#)),
            "{shown}"
        );
        assert_eq!(shown.matches("Some").count(), 1, "{shown}");
    }
}

#[test]
fn authentication_2_13_1() {
    let settings = [
        "sslmode",
        "sslcert",
        "sslkey",
        "sslpassword",
        "sslrootcert",
        "sslcrl",
        "sslcrldir",
        "gssencmode",
        "channel_binding",
        "sslnegotiation",
    ];
    let mut section = json!({"username": "u", "password": 5, "network": "unknown"});
    for name in settings {
        section[name] = json!(format!("of {name}"));
    }
    for role in ["superuser", "replication", "rewind"] {
        let config = with(&[("postgresql.authentication", json!({ role: section }))]);
        let authentication = config.postgresql.authentication;
        let credentials = match role {
            "superuser" => authentication.superuser,
            "replication" => authentication.replication,
            _ => authentication.rewind.unwrap(),
        };
        assert_eq!(credentials.username.as_deref(), Some("u"));
        assert_eq!(credentials.password.unwrap().expose(), "5");
        let given: Vec<_> = credentials
            .settings
            .iter()
            .map(|(k, v)| (k.as_str(), v.expose().to_owned()))
            .collect();
        let expected: Vec<_> = settings
            .iter()
            .map(|name| (*name, format!("of {name}")))
            .collect();
        assert_eq!(given, expected, "{role}");
    }
}
