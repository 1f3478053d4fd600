//! Every key of a member's own configuration: its default, and what becomes of a value (`configuration.md` §2.2 to
//! §2.15). A row is the key, what is read of it, that without the key, a value, and that with it.

use std::fmt::Debug;

use primacy_config::local::{LocalConfig, RaftSection, RaftTimings};
use primacy_config::{DcsSection, Effective, Map, TimingLimits, WitnessConfig};
use serde_json::{Value, json};

/// The typed settings of a small configuration in which these keys have these values.
fn with(changes: &[(&str, Value)]) -> LocalConfig {
    let mut tree = json!({
        "scope": "demo",
        "name": "pg1",
        "restapi": {"listen": "127.0.0.1:8008"},
        "raft": {"self_addr": "127.0.0.1:2222"},
        "postgresql": {"listen": "127.0.0.1", "data_dir": "/data", "authentication": {}},
    });
    for (path, value) in changes {
        let mut place = &mut tree;
        for key in path.split('.') {
            place = &mut place[key];
        }
        *place = value.clone();
    }
    let effective = Effective::build(&tree, &Map::new(), TimingLimits::PATRONI);
    effective
        .unwrap_or_else(|error| panic!("{changes:?}: {error}"))
        .local
}

type Read = fn(&LocalConfig) -> String;
type Row = (&'static str, Read, &'static str, Value, &'static str);

fn walk(rows: &[Row]) {
    for (key, read, default, value, expected) in rows {
        assert_eq!(read(&with(&[])), *default, "{key} without a value");
        assert_eq!(
            read(&with(&[(key, value.clone())])),
            *expected,
            "{key}: {value}"
        );
    }
}

fn show(value: impl Debug) -> String {
    format!("{value:?}")
}

#[test]
fn top_level_2_1() {
    walk(&[
        ("scope", |c| c.scope.clone(), "demo", json!("s"), "s"),
        ("name", |c| c.name.to_string(), "pg1", json!(5), "5"),
        (
            "namespace",
            |c| c.dcs_path(),
            "/service/demo",
            json!("/a//b/"),
            "/a/b/demo",
        ),
        // Threads are the runtime's matter here.
        (
            "thread_pool_size",
            |c| c.scope.clone(),
            "demo",
            json!("many"),
            "demo",
        ),
        (
            "thread_stack_size",
            |c| c.scope.clone(),
            "demo",
            json!("512kB"),
            "demo",
        ),
        (
            "citus",
            |c| show(&c.citus),
            "None",
            json!({"group": 1, "database": "d"}),
            r#"Some((1, "d"))"#,
        ),
        (
            "citus",
            |c| show(&c.citus),
            "None",
            json!({"group": "1", "database": "d"}),
            "None",
        ),
    ]);
}

#[test]
fn log_2_2() {
    walk(&[
        (
            "log.type",
            |c| show(c.log.kind),
            "Plain",
            json!("json"),
            "Json",
        ),
        (
            "log.type",
            |c| show(c.log.kind),
            "Plain",
            json!("JSON"),
            "Plain",
        ),
        (
            "log.level",
            |c| c.log.level.clone(),
            "INFO",
            json!("FATAL"),
            "FATAL",
        ),
        (
            "log.traceback_level",
            |c| show(c.log.traceback_debug),
            "false",
            json!("debug"),
            "true",
        ),
        (
            "log.traceback_level",
            |c| show(c.log.traceback_debug),
            "false",
            json!("x"),
            "false",
        ),
        (
            "log.format",
            |c| show(&c.log.format),
            r#"Text("%(asctime)s %(levelname)s: %(message)s")"#,
            json!("%(message)s"),
            r#"Text("%(message)s")"#,
        ),
        (
            "log",
            |c| show(&c.log.format),
            r#"Text("%(asctime)s %(levelname)s: %(message)s")"#,
            json!({"type": "json", "format": ["message", {"levelname": "level"}]}),
            r#"Fields([("message", "message"), ("levelname", "level")])"#,
        ),
        (
            "log.format",
            |c| show(&c.log.format),
            r#"Text("%(asctime)s %(levelname)s: %(message)s")"#,
            json!(["message"]),
            r#"Text("%(asctime)s %(levelname)s: %(message)s")"#,
        ),
        (
            "log.dateformat",
            |c| show(&c.log.dateformat),
            "None",
            json!("%s"),
            r#"Some("%s")"#,
        ),
        (
            "log.dateformat",
            |c| show(&c.log.dateformat),
            "None",
            json!(""),
            "None",
        ),
        (
            "log.static_fields",
            |c| show(&c.log.static_fields),
            "{}",
            json!({"a": 1}),
            r#"{"a": Number(1)}"#,
        ),
        (
            "log.max_queue_size",
            |c| show(c.log.max_queue_size),
            "1000",
            json!(5),
            "5",
        ),
        (
            "log.dir",
            |c| show(&c.log.dir),
            "None",
            json!("/l"),
            r#"Some("/l")"#,
        ),
        (
            "log.mode",
            |c| show(c.log.mode),
            "None",
            json!("0640"),
            "Some(416)",
        ),
        (
            "log.mode",
            |c| show(c.log.mode),
            "None",
            json!(0o640),
            "Some(416)",
        ),
        ("log.file_num", |c| show(c.log.file_num), "4", json!(0), "0"),
        (
            "log.file_size",
            |c| show(c.log.file_size),
            "25000000",
            json!("9"),
            "9",
        ),
        (
            "log.loggers",
            |c| show(&c.log.loggers),
            "{}",
            json!({"patroni": "DEBUG"}),
            r#"{"patroni": "DEBUG"}"#,
        ),
        (
            "log.deduplicate_heartbeat_logs",
            |c| show(c.log.deduplicate_heartbeat_logs),
            "false",
            json!("on"),
            "true",
        ),
    ]);
}

#[test]
fn bootstrap_2_3() {
    fn read<T: Debug>(c: &LocalConfig, part: fn(&primacy_config::local::Bootstrap) -> T) -> String {
        c.bootstrap
            .as_ref()
            .map_or("no".to_owned(), |bootstrap| show(part(bootstrap)))
    }
    let method = json!({
        "method": "m",
        "m": {
            "command": "c d", "no_params": true, "keep_existing_recovery_conf": 1, "recovery_conf": {"a": "b"},
            "scope": "x", "datadir": "y", "stanza": "main", "fast": true,
        },
    });
    walk(&[
        (
            "bootstrap",
            |c| show(c.bootstrap.is_some()),
            "false",
            json!({}),
            "false",
        ),
        (
            "bootstrap.dcs",
            |c| read(c, |b| b.dcs.len()),
            "no",
            json!({"ttl": 5}),
            "1",
        ),
        (
            "bootstrap.initdb",
            |c| {
                read(c, |b| {
                    b.initdb
                        .options
                        .iter()
                        .map(|o| o.argument())
                        .collect::<Vec<_>>()
                })
            },
            "no",
            json!(["data-checksums", {"encoding": "UTF8"}]),
            r#"["--data-checksums", "--encoding=UTF8"]"#,
        ),
        (
            "bootstrap.initdb",
            |c| read(c, |b| b.initdb.problems.len()),
            "no",
            json!(["pgdata", "x"]),
            "1",
        ),
        (
            "bootstrap.post_bootstrap",
            |c| read(c, |b| b.post_bootstrap.clone()),
            "no",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "bootstrap.post_init",
            |c| read(c, |b| b.post_bootstrap.clone()),
            "no",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "bootstrap",
            |c| read(c, |b| b.post_bootstrap.clone()),
            "no",
            json!({"post_init": "old", "post_bootstrap": "new"}),
            r#"Some("new")"#,
        ),
        (
            "bootstrap.pg_hba",
            |c| read(c, |b| b.pg_hba.clone()),
            "no",
            json!(["a", 5]),
            r#"["a"]"#,
        ),
        (
            "bootstrap.method",
            |c| read(c, |b| b.method.is_some()),
            "no",
            json!("gone"),
            "false",
        ),
        (
            "bootstrap",
            |c| read(c, |b| b.method.is_some()),
            "no",
            json!({"method": "m", "m": {"fast": 1}}),
            "false",
        ),
        (
            "bootstrap",
            |c| read(c, |b| b.method.clone().map(|m| m.command)),
            "no",
            method.clone(),
            r#"Some("c d")"#,
        ),
        (
            "bootstrap",
            |c| read(c, |b| b.method.as_ref().map(|m| m.no_params)),
            "no",
            method.clone(),
            "Some(true)",
        ),
        (
            "bootstrap",
            |c| {
                read(c, |b| {
                    b.method.as_ref().map(|m| m.keep_existing_recovery_conf)
                })
            },
            "no",
            method.clone(),
            "Some(true)",
        ),
        (
            "bootstrap",
            |c| {
                read(c, |b| {
                    b.method.as_ref().is_some_and(|m| m.recovery_conf.is_some())
                })
            },
            "no",
            method.clone(),
            "true",
        ),
        (
            "bootstrap",
            |c| read(c, |b| b.method.clone().map(|m| m.arguments)),
            "no",
            method,
            r#"Some([("stanza", "main"), ("fast", "True")])"#,
        ),
    ]);
}

#[test]
fn etcd_2_6() {
    let read = |section: Value| {
        let mut tree = json!({
            "scope": "demo", "name": "pg1", "restapi": {"listen": "127.0.0.1:8008"},
            "postgresql": {"listen": "127.0.0.1", "data_dir": "/data", "authentication": {}},
        });
        tree["etcd3"] = section.clone();
        let effective = Effective::build(&tree, &Map::new(), TimingLimits::PATRONI);
        let DcsSection::Etcd3(etcd) = effective
            .unwrap_or_else(|e| panic!("{section}: {e}"))
            .local
            .dcs
        else {
            panic!("{section}")
        };
        etcd
    };
    for (section, endpoints, tls, fixed) in [
        (json!({"host": "a"}), "a:2379", false, false),
        (json!({"host": "a:1", "port": 5}), "a:1", false, false),
        (
            json!({"hosts": "a, b:2", "port": 5}),
            "a:5 b:2",
            false,
            false,
        ),
        (
            json!({"hosts": ["a:1", "[::1]:2"]}),
            "a:1 [::1]:2",
            false,
            false,
        ),
        (json!({"hosts": ["a:1"], "host": "b"}), "a:1", false, false),
        (
            json!({"host": "a", "protocol": "HTTPS"}),
            "a:2379",
            true,
            false,
        ),
        (
            json!({"url": "https://a:3/x", "hosts": "b"}),
            "a:3",
            true,
            false,
        ),
        (
            json!({"proxy": "http://a", "url": "https://b", "hosts": "c"}),
            "a:2379",
            false,
            true,
        ),
        (
            json!({"host": "a", "use_proxies": "on"}),
            "a:2379",
            false,
            true,
        ),
        (json!({"srv": "example.com"}), "", false, false),
    ] {
        let etcd = read(section.clone());
        let given: Vec<_> = etcd.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(
            (given.join(" ").as_str(), etcd.tls, etcd.use_proxies),
            (endpoints, tls, fixed),
            "{section}"
        );
    }
    let whole = read(json!({
        "host": "a", "username": "u", "password": "p", "cacert": "1", "cert": "2", "key": "3", "srv_suffix": "s",
    }));
    let texts = [
        whole.username,
        whole.cacert,
        whole.cert,
        whole.key,
        whole.srv_suffix,
    ];
    assert_eq!(texts.map(Option::unwrap_or_default).join(" "), "u 1 2 3 s");
    assert_eq!(whole.password.unwrap().expose(), "p");
    for alias in ["srv", "discovery_srv", "srv_domain"] {
        assert_eq!(
            read(json!({ alias: "d" })).srv.as_deref(),
            Some("d"),
            "{alias}"
        );
    }
}

#[test]
fn raft_2_10() {
    fn read<T: Debug>(c: &LocalConfig, part: fn(&RaftSection) -> T) -> String {
        match &c.dcs {
            DcsSection::Raft(raft) => show(part(raft)),
            other => other.name().to_owned(),
        }
    }
    let text = |c: &LocalConfig| read(c, |r| r.bind_addr.as_ref().map(ToString::to_string));
    walk(&[
        (
            "raft.self_addr",
            |c| read(c, |r| r.self_addr.as_ref().map(ToString::to_string)),
            r#"Some("127.0.0.1:2222")"#,
            json!("a:1"),
            r#"Some("a:1")"#,
        ),
        (
            "raft.bind_addr",
            text,
            r#"Some("127.0.0.1:2222")"#,
            json!("0.0.0.0:1"),
            r#"Some("0.0.0.0:1")"#,
        ),
        (
            "raft.partner_addrs",
            |c| read(c, |r| r.partner_addrs.len()),
            "0",
            json!(["a:1", "b:2"]),
            "2",
        ),
        (
            "raft.data_dir",
            |c| read(c, |r| r.data_dir.clone()),
            r#"".""#,
            json!("/r"),
            r#""/r""#,
        ),
        (
            "raft.password",
            |c| read(c, |r| r.password.is_some()),
            "false",
            json!("x"),
            "true",
        ),
    ]);
}

/// What is given is used, by agents, witness and commands alike; what is not has our own defaults.
#[test]
fn raft_timings_2_10() {
    let read = |raft: Value| {
        let raft = WitnessConfig::from_local(json!({ "raft": raft }))
            .map_err(|error| error.to_string())?
            .raft;
        let RaftTimings {
            append_entries_period,
            min_timeout,
            max_timeout,
            connection_timeout,
        } = raft.timings;
        let all = [
            append_entries_period,
            min_timeout,
            max_timeout,
            connection_timeout,
        ];
        Ok::<_, String>(all.map(|timing| timing.as_millis()))
    };
    for (given, expected) in [
        (json!({}), [100, 500, 1000, 3500]),
        (
            json!({"append_entries_period": 0.05}),
            [50, 500, 1000, 3500],
        ),
        (json!({"connection_timeout": "5"}), [100, 500, 1000, 5000]),
        // Patroni's own defaults, written out.
        (
            json!({"append_entries_period": 0.1, "min_timeout": 0.4, "max_timeout": 1.4,
                "connection_timeout": 3.5, "connection_retry_time": 5, "leader_fallback_timeout": 30}),
            [100, 400, 1400, 3500],
        ),
        // The other one of the pair gives way to the one that is given.
        (json!({"min_timeout": 0.4}), [100, 400, 1000, 3500]),
        (json!({"min_timeout": 1.2}), [100, 1200, 2400, 3500]),
        (json!({"max_timeout": 2}), [100, 500, 2000, 3500]),
        (json!({"max_timeout": 0.5}), [100, 400, 500, 3500]),
        // Without effect.
        (json!({"connection_retry_time": 0}), [100, 500, 1000, 3500]),
        (
            json!({"leader_fallback_timeout": 9}),
            [100, 500, 1000, 3500],
        ),
    ] {
        let mut section = json!({"self_addr": "a:1"});
        let object = section.as_object_mut().unwrap();
        object.extend(given.as_object().cloned().unwrap());
        assert_eq!(read(section), Ok(expected), "{given}");
    }
    for (given, expected) in [
        (
            json!({"append_entries_period": 0}),
            "raft.append_entries_period is 0ns: expected at least 1ms",
        ),
        (
            json!({"min_timeout": 0.3}),
            "raft.min_timeout is 300ms: expected more than three times append_entries_period, which is 100ms",
        ),
        (
            json!({"min_timeout": 2, "max_timeout": 2}),
            "raft.max_timeout is 2s: expected more than min_timeout, which is 2s",
        ),
        (
            json!({"max_timeout": 4}),
            "raft.connection_timeout is 3.5s: expected at least max_timeout, which is 4s",
        ),
        (
            json!({"leader_fallback_timeout": 0.1}),
            "raft.leader_fallback_timeout is 100ms: expected more than append_entries_period, which is 100ms",
        ),
        (
            json!({"max_timeout": -1}),
            "raft.max_timeout is -1: expected seconds, not below 0",
        ),
        (
            json!({"connection_retry_time": "soon"}),
            "raft.connection_retry_time is \"soon\": expected a number",
        ),
        // Nothing overflows.
        (
            json!({"append_entries_period": 1e19}),
            "raft.min_timeout is 500ms: expected more than three times append_entries_period, \
             which is 10000000000000000000s",
        ),
    ] {
        let mut section = json!({"self_addr": "a:1"});
        let object = section.as_object_mut().unwrap();
        object.extend(given.as_object().cloned().unwrap());
        assert_eq!(read(section), Err(expected.to_owned()), "{given}");
    }
}

#[test]
fn watchdog_2_12() {
    let mode = |c: &LocalConfig| show(c.watchdog.mode);
    let off = ["off", "OFF", "disable", "disabled", "false", "unheard of"];
    for text in off {
        walk(&[("watchdog.mode", mode, "Automatic", json!(text), "Off")]);
    }
    for text in ["auto", "Automatic"] {
        walk(&[("watchdog.mode", mode, "Automatic", json!(text), "Automatic")]);
    }
    for text in ["require", "REQUIRED"] {
        walk(&[("watchdog.mode", mode, "Automatic", json!(text), "Required")]);
    }
    walk(&[
        ("watchdog.mode", mode, "Automatic", json!(false), "Off"),
        ("watchdog", mode, "Automatic", json!({}), "Automatic"),
        (
            "watchdog.device",
            |c| c.watchdog.device.clone(),
            "/dev/watchdog",
            json!("/d"),
            "/d",
        ),
        (
            "watchdog.safety_margin",
            |c| show(c.watchdog.safety_margin),
            "5",
            json!(-1),
            "-1",
        ),
        (
            "watchdog.driver",
            |c| c.watchdog.driver.clone(),
            "default",
            json!("testing"),
            "testing",
        ),
    ]);
}

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

#[test]
fn restapi_2_14_and_ctl_2_15() {
    let verify = |c: &LocalConfig| show(c.restapi.verify_client);
    let tokens = |c: &LocalConfig| show(c.restapi.server_tokens);
    walk(&[
        (
            "restapi.listen",
            |c| c.restapi.listen.to_string(),
            "127.0.0.1:8008",
            json!("*:1"),
            "*:1",
        ),
        (
            "restapi.listen",
            |c| c.restapi.connect_address.to_string(),
            "127.0.0.1:8008",
            json!("a:1"),
            "a:1",
        ),
        (
            "restapi.connect_address",
            |c| c.restapi.connect_address.to_string(),
            "127.0.0.1:8008",
            json!("b:2"),
            "b:2",
        ),
        (
            "restapi.connect_address",
            |c| c.restapi.api_url(),
            "http://127.0.0.1:8008/patroni",
            json!("[fd00::1]:8009"),
            "http://[fd00::1]:8009/patroni",
        ),
        // Behind a proxy, at the protocol's own port.
        (
            "restapi.connect_address",
            |c| c.restapi.api_url(),
            "http://127.0.0.1:8008/patroni",
            json!("db.example"),
            "http://db.example/patroni",
        ),
        (
            "restapi.connect_address",
            |c| c.restapi.api_url(),
            "http://127.0.0.1:8008/patroni",
            json!("fd00::1:0"),
            "http://[fd00::1]/patroni",
        ),
        (
            "restapi.certfile",
            |c| c.restapi.api_url(),
            "http://127.0.0.1:8008/patroni",
            json!("c.pem"),
            "https://127.0.0.1:8008/patroni",
        ),
        (
            "restapi.authentication",
            |c| {
                show(
                    c.restapi
                        .authentication
                        .as_ref()
                        .map(|a| a.username.clone()),
                )
            },
            "None",
            json!({"username": "u", "password": "p"}),
            r#"Some("u")"#,
        ),
        (
            "restapi.certfile",
            |c| show(&c.restapi.certfile),
            "None",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "restapi.keyfile",
            |c| show(&c.restapi.keyfile),
            "None",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "restapi.keyfile_password",
            |c| show(c.restapi.keyfile_password.is_some()),
            "false",
            json!("x"),
            "true",
        ),
        (
            "restapi.cafile",
            |c| show(&c.restapi.cafile),
            "None",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "restapi.cafile",
            |c| show(&c.ctl.cacert),
            "None",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "restapi.ciphers",
            |c| show(&c.restapi.ciphers),
            "None",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "restapi.verify_client",
            verify,
            "None",
            json!("Optional"),
            "Optional",
        ),
        (
            "restapi.verify_client",
            verify,
            "None",
            json!("REQUIRED"),
            "Required",
        ),
        (
            "restapi.verify_client",
            verify,
            "None",
            json!("none"),
            "None",
        ),
        (
            "restapi.allowlist",
            |c| show(&c.restapi.allowlist),
            "[]",
            json!(["10.0.0.0/8", "h"]),
            r#"["10.0.0.0/8", "h"]"#,
        ),
        (
            "restapi.allowlist_include_members",
            |c| show(c.restapi.allowlist_include_members),
            "false",
            json!(true),
            "true",
        ),
        (
            "restapi.http_extra_headers",
            |c| show(&c.restapi.http_extra_headers),
            "{}",
            json!({"a": 1}),
            r#"{"a": "1"}"#,
        ),
        (
            "restapi.https_extra_headers",
            |c| show(&c.restapi.https_extra_headers),
            "{}",
            json!({"a": 1}),
            r#"{"a": "1"}"#,
        ),
        (
            "restapi.request_queue_size",
            |c| show(c.restapi.request_queue_size),
            "128",
            json!(5),
            "5",
        ),
        (
            "restapi.server_tokens",
            tokens,
            "Original",
            json!("Minimal"),
            "Minimal",
        ),
        (
            "restapi.server_tokens",
            tokens,
            "Original",
            json!("PRODUCTONLY"),
            "ProductOnly",
        ),
        (
            "restapi.server_tokens",
            tokens,
            "Original",
            json!("x"),
            "Original",
        ),
        (
            "restapi.thread_pool_size",
            |c| c.scope.clone(),
            "demo",
            json!("many"),
            "demo",
        ),
        (
            "ctl.authentication",
            |c| show(c.ctl.authentication.as_ref().map(|a| a.username.clone())),
            "None",
            json!({"username": "u", "password": "p"}),
            r#"Some("u")"#,
        ),
        (
            "ctl.insecure",
            |c| show(c.ctl.insecure),
            "false",
            json!("yes"),
            "true",
        ),
        (
            "ctl.cacert",
            |c| show(&c.ctl.cacert),
            "None",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "ctl.certfile",
            |c| show(&c.ctl.certfile),
            "None",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "ctl.keyfile",
            |c| show(&c.ctl.keyfile),
            "None",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "ctl.keyfile_password",
            |c| show(c.ctl.keyfile_password.is_some()),
            "false",
            json!("x"),
            "true",
        ),
    ]);
}
