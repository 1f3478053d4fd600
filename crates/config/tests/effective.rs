//! From a local tree and a dynamic one to the typed configuration.

use std::path::Path;
use std::time::Duration;

use primacy_config::local::{RaftTimings, ToolOption};
use primacy_config::{
    ClientConfig, DcsSection, Effective, GlobalConfig, HostPort, Map, SynchronousMode,
    TimingLimits, layers,
};
use serde_json::{Value, json};

fn map(value: Value) -> Map {
    value.as_object().cloned().expect("a mapping")
}

fn howto() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/howto.yml");
    layers::load(Some(&path), &primacy_config::from_environment([])).unwrap()
}

/// The smallest local configuration that will do, with `changes` laid over it.
fn local(changes: Value) -> Value {
    let mut tree = map(json!({
        "scope": "demo",
        "name": "pg1",
        "restapi": {"listen": "127.0.0.1:8008"},
        "raft": {"self_addr": "127.0.0.1:2222"},
        "postgresql": {
            "listen": "127.0.0.1:5432",
            "data_dir": "/data",
            "authentication": {"superuser": {"username": "postgres"}},
        },
    }));
    primacy_config::scalar::patch(&mut tree, &map(changes));
    Value::Object(tree)
}

fn build(local: &Value, dynamic: Value) -> Effective {
    Effective::build(local, &map(dynamic), TimingLimits::PATRONI).unwrap()
}

#[test]
fn a_published_how_to_is_accepted_as_it_stands() {
    let tree = howto();
    let first = build(&tree, json!({}));
    let bootstrap = first.local.bootstrap.clone().unwrap();
    let effective =
        Effective::build(&tree, &bootstrap.dcs, TimingLimits::of(&first.local.dcs)).unwrap();
    assert_eq!(effective.warnings, []);
    let Effective { local, global, .. } = effective;

    assert_eq!(local.dcs_path(), "/service/pgcluster");
    assert_eq!(local.name, "pg-node-1");
    assert_eq!(local.restapi.connect_address.to_string(), "10.0.0.11:8008");
    let DcsSection::Etcd3(etcd) = &local.dcs else {
        panic!("{:?}", local.dcs)
    };
    assert_eq!(
        etcd.endpoints[2],
        HostPort {
            host: "10.0.0.3".into(),
            port: 2379
        }
    );
    assert_eq!(
        bootstrap
            .initdb
            .options
            .iter()
            .map(ToolOption::argument)
            .collect::<Vec<_>>(),
        ["--encoding=UTF8", "--data-checksums"]
    );
    assert_eq!(bootstrap.pg_hba.len(), 2);

    let postgresql = &local.postgresql;
    assert_eq!(postgresql.listen.addresses(), "0.0.0.0");
    assert_eq!(postgresql.listen.local_host(), "localhost");
    assert_eq!(
        postgresql.binary("postgres"),
        Path::new("/usr/lib/postgresql/17/bin/postgres")
    );
    assert_eq!(
        postgresql.config_dir,
        Path::new("/var/lib/postgresql/17/main")
    );
    assert!(postgresql.use_pg_rewind);
    assert_eq!(
        postgresql.parameters.get("max_connections"),
        Some(&json!(200))
    );
    assert_eq!(
        postgresql.parameters.get("archive_command"),
        Some(&json!("wal-g wal-push %p"))
    );
    let replication = &postgresql.authentication.replication;
    assert_eq!(replication.password.as_ref().unwrap().expose(), "secret");
    assert!(!format!("{local:?}").contains("\"secret\""));

    let defaults = GlobalConfig::default();
    assert_eq!(
        global,
        GlobalConfig {
            synchronous_mode: SynchronousMode::On,
            ..defaults
        }
    );
}

#[test]
fn each_layer_has_its_say() {
    let local = local(json!({
        "ttl": 99,
        "postgresql": {
            "use_slots": false,
            "pg_hba": ["local all all trust"],
            "parameters": {"max_connections": 500, "work_mem": "8MB", "Shared_Buffers": "1GB"},
        },
    }));
    let dynamic = json!({
        "ttl": "40",
        "postgresql": {
            "listen": "evil:1",
            "use_pg_rewind": true,
            "pg_hba": ["host all all all md5"],
            "parameters": {
                "max_connections": "200",
                "shared_buffers": "128MB",
                "wal_keep_size": "1GB",
                "max_wal_senders": 1,
                "port": 7777,
                "hot_standby": "off",
            },
        },
    });
    let effective = build(&local, dynamic);
    let parameters = &effective.local.postgresql.parameters;
    for (name, value) in [
        ("max_connections", json!(200)),
        ("work_mem", json!("8MB")),
        ("shared_buffers", json!("1GB")),
        ("wal_keep_size", json!("1GB")),
        ("max_wal_senders", json!(10)),
        ("hot_standby", json!("on")),
        ("wal_level", json!("hot_standby")),
    ] {
        assert_eq!(parameters.get(name), Some(&value), "{name}");
    }
    assert!(!parameters.contains("port"));
    assert_eq!(effective.local.postgresql.listen.port, 5432);
    assert_eq!(
        effective.local.postgresql.pg_hba.unwrap(),
        ["local all all trust"]
    );
    assert!(effective.local.postgresql.use_pg_rewind);
    assert!(effective.global.use_slots);
    assert_eq!(effective.global.ttl, Duration::from_secs(40));
    // Those without an effect are told of too, see pitfalls.rs.
    let warnings = effective.warnings.iter().map(ToString::to_string);
    assert_eq!(
        warnings
            .filter(|warning| warning.contains("failed validation"))
            .collect::<Vec<_>>(),
        [
            "postgresql parameter max_wal_senders=1 failed validation, defaulting to 10",
            "postgresql parameter port=7777 failed validation, defaulting to None",
            "postgresql parameter hot_standby=off failed validation, defaulting to on",
        ]
    );
}

#[test]
fn a_data_directory_has_a_name_that_others_begin_with() {
    for (written, expected) in [
        ("/data/", "/data"),
        ("/pg//data/.", "/pg/data"),
        ("data/", "data"),
    ] {
        let given = local(json!({"postgresql": {"data_dir": written}}));
        let postgresql = build(&given, json!({})).local.postgresql;
        assert_eq!(postgresql.data_dir.as_os_str(), expected);
        assert_eq!(postgresql.config_dir.as_os_str(), expected);
    }
}

#[test]
fn timings_are_clamped_and_kept_for_the_cache() {
    let dynamic = json!({"ttl": 20, "loop_wait": 10, "retry_timeout": 10, "x": 1});
    let effective = build(&local(json!({})), dynamic);
    assert_eq!(
        Value::Object(effective.dynamic),
        json!({"ttl": 20, "loop_wait": 1, "retry_timeout": 9, "x": 1})
    );
    assert_eq!(effective.global.retry_timeout, Duration::from_secs(9));
    assert_eq!(effective.warnings.len(), 1);

    let dynamic = map(json!({"ttl": 5, "loop_wait": 1, "retry_timeout": 2}));
    let store = effective.local.dcs;
    let effective =
        Effective::build(&local(json!({})), &dynamic, TimingLimits::of(&store)).unwrap();
    assert_eq!(effective.global.ttl, Duration::from_secs(5));
    assert_eq!(effective.warnings, []);
}

#[test]
fn errors_name_the_key_and_what_to_do() {
    for (changes, dynamic, expected) in [
        (
            json!({"scope": null}),
            json!({}),
            "scope is not defined. Give the cluster a name",
        ),
        (json!({"name": null}), json!({}), "name is not defined. "),
        (
            json!({"restapi": null}),
            json!({}),
            "restapi is not defined. Can not find \"restapi.listen\" config: set it to <host>:<port>",
        ),
        (
            json!({"restapi": {"listen": null}}),
            json!({}),
            "restapi.listen is not defined. Can not find \"restapi.listen\" config: set it to <host>:<port>",
        ),
        (
            json!({"restapi": {"listen": "x"}}),
            json!({}),
            "restapi.listen is \"x\": expected <host>:<port>. Invalid \"restapi\" config: expected <HOST>:<PORT> for \"listen\", but got \"x\"",
        ),
        (
            json!({"restapi": {"listen": "x:y"}}),
            json!({}),
            "restapi.listen is \"x:y\": expected ",
        ),
        (
            json!({"restapi": 5}),
            json!({}),
            "restapi is 5: expected a mapping",
        ),
        (
            json!({"restapi": {"authentication": {"username": "u"}}}),
            json!({}),
            "restapi.authentication.password is not defined. Set both",
        ),
        (
            json!({"restapi": {"authentication": {}}}),
            json!({}),
            "restapi.authentication.username is not defined. Set both",
        ),
        (
            json!({"restapi": {"auth": "s3cret"}}),
            json!({}),
            "restapi.auth is text without a colon: expected <username>:<password>",
        ),
        (
            json!({"raft": null}),
            json!({}),
            "Can not find suitable configuration of distributed",
        ),
        (
            json!({"raft": {"partner_addrs": ["a"]}}),
            json!({}),
            "raft.partner_addrs is \"a\": expected <host>:<port>",
        ),
        (
            json!({"raft": {"min_timeout": 0.1}}),
            json!({}),
            "raft.min_timeout is 100ms: expected more than three times append_entries_period, which is 100ms",
        ),
        (
            json!({"postgresql": {"data_dir": ""}}),
            json!({}),
            "postgresql.data_dir is not defined",
        ),
        (
            json!({"postgresql": {"authentication": null}}),
            json!({}),
            "postgresql.authentication is not defined",
        ),
        (
            json!({"postgresql": {"authentication": {"superuser": {"password": ["s3cret"]}}}}),
            json!({}),
            "postgresql.authentication.superuser.password is a list: expected text",
        ),
        (
            json!({"postgresql": {"parameters": ["x"]}}),
            json!({}),
            "postgresql.parameters is ['x']: expected a dictionary",
        ),
        (
            json!({"log": {"level": "info"}}),
            json!({}),
            "log.level is \"info\": expected one of ",
        ),
        (
            json!({"name": "__patroni_strict_sync_replica_placeholder__"}),
            json!({}),
            "Node 'name' can't be set to '__patroni_strict_sync_replica_placeholder__'",
        ),
        (
            json!({}),
            json!({"ttl": "40s"}),
            "ttl is '40s': expected a whole number of seconds",
        ),
    ] {
        let error = Effective::build(&local(changes), &map(dynamic), TimingLimits::PATRONI)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(expected), "{error}\nexpected {expected}");
        assert!(!error.contains("s3cret"));
    }
    let empty = Effective::build(&json!({}), &Map::new(), TimingLimits::PATRONI).unwrap_err();
    assert!(empty.to_string().starts_with("Config is empty."));
}

#[test]
fn old_spellings_still_count() {
    let old = json!({
        "scope": "s",
        "restapi": {"listen": "127.0.0.1:8008"},
        "zookeeper": {"exhibitor": {"hosts": ["a"], "port": 1}},
        "bootstrap": {"post_init": "/x"},
        "postgresql": {
            "name": "pg1",
            "listen": "127.0.0.1",
            "data_dir": "/data",
            "create_replica_method": ["wal_e", "basebackup"],
            "wal_e": {"command": "/bin/wal_e", "no_leader": 1, "threshold": 30},
            "replication": {"username": "rep", "password": "x", "network": "ignored"},
            "pg_rewind": {"username": "super"},
        },
    });
    let local = build(&old, json!({})).local;
    assert_eq!(local.name, "pg1");
    assert_eq!(local.dcs.name(), "exhibitor");
    assert_eq!(
        local.bootstrap.unwrap().post_bootstrap.as_deref(),
        Some("/x")
    );
    let postgresql = local.postgresql;
    assert!(postgresql.use_pg_rewind);
    assert_eq!(
        postgresql.authentication.superuser.username.as_deref(),
        Some("super")
    );
    assert_eq!(
        postgresql.authentication.replication.username.as_deref(),
        Some("rep")
    );
    assert_eq!(postgresql.create_replica_methods, ["wal_e", "basebackup"]);
    let method = &postgresql.replica_methods["wal_e"];
    assert!(method.no_leader && !method.no_params);
    assert_eq!(
        method.arguments,
        [
            ("no_leader".into(), "1".into()),
            ("threshold".into(), "30".into())
        ]
    );
}

#[test]
fn credentials_of_the_api_may_stand_together() {
    let credentials = |changes: Value| {
        let local = build(&local(changes), json!({})).local;
        [local.restapi.authentication, local.ctl.authentication]
            .map(|own| own.map(|own| format!("{} {}", own.username, own.password.expose())))
    };
    let some = |text: &str| Some(text.to_owned());
    for (changes, expected) in [
        (json!({}), [None, None]),
        (
            json!({"restapi": {"auth": "u:p:q"}}),
            [some("u p:q"), some("u p:q")],
        ),
        (json!({"ctl": {"auth": "u:p"}}), [None, some("u p")]),
        (
            json!({"restapi": {"auth": "x:y", "authentication": {"username": "u", "password": "p"}}}),
            [some("u p"), some("u p")],
        ),
    ] {
        assert_eq!(credentials(changes.clone()), expected, "{changes}");
    }
}

#[test]
fn the_store_is_the_first_section_there_is() {
    let store = |changes: Value| build(&local(changes), json!({})).local.dcs;
    let DcsSection::Etcd(etcd) =
        store(json!({"etcd": {"hosts": "a:1, b", "port": 5, "protocol": "HTTPS"}}))
    else {
        panic!()
    };
    assert_eq!(
        etcd.endpoints,
        [("a", 1), ("b", 5)].map(|(h, p)| HostPort {
            host: h.into(),
            port: p
        })
    );
    assert!(etcd.tls && !etcd.use_proxies);
    let section = json!({"url": "https://u:pw@[::1]:99/x", "username": "other"});
    let DcsSection::Etcd3(etcd) = store(json!({"etcd3": section})) else {
        panic!()
    };
    assert_eq!(
        etcd.endpoints,
        [HostPort {
            host: "::1".into(),
            port: 99
        }]
    );
    assert_eq!(etcd.endpoints[0].to_string(), "[::1]:99");
    assert_eq!(
        (etcd.username.as_deref(), etcd.password.unwrap().expose()),
        (Some("u"), "pw")
    );
    let DcsSection::Raft(raft) =
        store(json!({"raft": {"partner_addrs": ["10.0.0.2:1"], "data_dir": "/r"}}))
    else {
        panic!()
    };
    assert_eq!(raft.bind_addr, raft.self_addr);
    assert_eq!(raft.timings, RaftTimings::default());
    assert_eq!(store(json!({"consul": {"host": "x"}})).name(), "consul");
}

#[test]
fn a_client_needs_little() {
    let tree = json!({
        "etcd3": {"host": "h"},
        "restapi": {"authentication": {"username": "u", "password": "p"}, "cafile": "/ca"},
    });
    let client = ClientConfig::from_local(&tree).unwrap();
    assert_eq!((client.scope, client.namespace.as_str()), (None, "service"));
    assert_eq!(client.ctl.authentication.unwrap().username, "u");
    assert_eq!(client.ctl.cacert.as_deref(), Some("/ca"));
    assert!(client.restapi.is_none());
    assert!(ClientConfig::from_local(&json!({})).is_err());
}

#[test]
fn contradicting_tags_are_told() {
    let tags = json!({"tags": {"nofailover": true, "failover_priority": 2, "nosync": false}});
    let effective = build(&local(tags), json!({}));
    assert!(effective.local.tags.nofailover());
    assert_eq!(
        effective.warnings[0].to_string(),
        "Conflicting configuration between nofailover: True and failover_priority: 2. \
         Defaulting to nofailover: True"
    );

    let tags = json!({"tags": {"nosync": true, "sync_priority": 1}});
    let effective = build(&local(tags), json!({}));
    assert!(effective.local.tags.nosync());
    assert_eq!(
        effective.warnings[0].to_string(),
        "Conflicting configuration between nosync: True and sync_priority: 1. \
         Defaulting to nosync: True"
    );
    let tags = json!({"tags": {"nosync": true, "sync_priority": 0, "nofailover": false, "failover_priority": 2}});
    assert_eq!(build(&local(tags), json!({})).warnings, []);
}

/// §2.12.
#[test]
fn an_unknown_watchdog_mode_is_told() {
    let effective = build(&local(json!({"watchdog": {"mode": "perhaps"}})), json!({}));
    let told: Vec<_> = effective.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["watchdog.mode perhaps is unknown, watchdog is off; set it to off, automatic or required"]
    );
    for mode in ["off", "Automatic", "required"] {
        let effective = build(&local(json!({"watchdog": {"mode": mode}})), json!({}));
        assert_eq!(effective.warnings, [], "{mode}");
    }
}

/// §1.4 C 7.
#[test]
fn a_citus_cluster_begins_in_quorum_mode() {
    let citus = json!({"group": 0, "database": "citus"});
    for (citus, bootstrap, expected) in [
        (&citus, json!(null), Some(json!("quorum"))),
        (&citus, json!({"initdb": []}), Some(json!("quorum"))),
        (&citus, json!({"dcs": {"ttl": 40}}), Some(json!("quorum"))),
        (
            &citus,
            json!({"dcs": {"synchronous_mode": false}}),
            Some(json!(false)),
        ),
        (
            &citus,
            json!({"dcs": {"synchronous_mode": true}}),
            Some(json!(true)),
        ),
        // A section that cannot be used is none.
        (
            &json!({"group": "0", "database": "citus"}),
            json!({"dcs": {}}),
            None,
        ),
        (&json!({"group": 0}), json!({"dcs": {}}), None),
    ] {
        let given = local(json!({"citus": citus, "bootstrap": bootstrap}));
        let dcs = build(&given, json!({})).local.bootstrap.unwrap().dcs;
        assert_eq!(dcs.get("synchronous_mode"), expected.as_ref(), "{given}");
        let ttl = bootstrap.get("dcs").and_then(|dcs| dcs.get("ttl"));
        assert_eq!(dcs.get("ttl"), ttl, "{given}");
    }
}

/// §1.8: what is refused is told, and the default holds.
#[test]
fn values_of_the_command_line_that_the_dynamic_configuration_may_have() {
    for (name, default, accepted, refused) in [
        ("listen_addresses", json!(null), json!({}), json!(["*"])),
        ("port", json!(null), json!({}), json!([5433])),
        ("cluster_name", json!(null), json!({}), json!(["other"])),
        (
            "wal_level",
            json!("hot_standby"),
            json!({"replica": "replica", "LOGICAL": "LOGICAL", "Hot_Standby": "Hot_Standby"}),
            json!(["minimal", "", true, null]),
        ),
        (
            "hot_standby",
            json!("on"),
            json!({"on": "on", "TRUE": "TRUE", "1": "1"}),
            json!(["off", false, 0, "t", null]),
        ),
        (
            "max_connections",
            json!(100),
            json!({"25": 25, "200.0": 200, "0x20": 32}),
            json!([24, "24", -1, "many", true, null]),
        ),
        ("max_wal_senders", json!(10), json!({"3": 3}), json!([2])),
        (
            "wal_keep_segments",
            json!(null),
            json!({"1": 1}),
            json!([0, "16MB"]),
        ),
        (
            "wal_keep_size",
            json!(null),
            json!({"16": 16, "16MB": "16MB", "1GB": "1GB", "16384kB": "16384kB"}),
            json!([15, "15MB", "1kB", "16mb"]),
        ),
        (
            "max_prepared_transactions",
            json!(0),
            json!({"0": 0, "5": 5}),
            json!([-1]),
        ),
        (
            "max_locks_per_transaction",
            json!(64),
            json!({"32": 32}),
            json!([31]),
        ),
        (
            "track_commit_timestamp",
            json!("off"),
            json!({"on": "on", "False": "False", "yes": "yes"}),
            json!(["maybe", 2, null]),
        ),
        (
            "max_replication_slots",
            json!(10),
            json!({"4": 4}),
            json!([3]),
        ),
        (
            "max_worker_processes",
            json!(8),
            json!({"2": 2, "8.0": 8}),
            json!([1]),
        ),
        (
            "wal_log_hints",
            json!("on"),
            json!({"off": "off", "1": "1"}),
            json!(["2", null]),
        ),
    ] {
        let of = |value: &Value| {
            let dynamic = json!({"postgresql": {"parameters": {name: value}}});
            let effective = build(&local(json!({})), dynamic);
            let parameters = effective.local.postgresql.parameters;
            let told = effective
                .warnings
                .iter()
                .any(|warning| warning.to_string().contains("failed validation"));
            (parameters.get(name).cloned().unwrap_or(Value::Null), told)
        };
        for (given, taken) in &map(accepted) {
            assert_eq!(of(&json!(given)), (taken.clone(), false), "{name}: {given}");
        }
        for given in refused.as_array().unwrap() {
            let told = if name.starts_with("wal_keep_") {
                // The default depends on the version (§1.9), and is not among these parameters.
                of(given).1
            } else {
                assert_eq!(of(given).0, default, "{name}: {given}");
                of(given).1
            };
            assert!(told, "{name}: {given}");
        }
    }
}

/// `configuration.md` §5.4, "daemon restart": the agent goes on as what it was started as.
#[test]
fn what_needs_a_new_agent_waits_for_it() {
    let secured = |changes: Value| {
        let mut tree = map(local(json!({
            "raft": null,
            "etcd3": {"hosts": "10.0.0.1:2379", "username": "patroni", "password": "old"},
        })));
        primacy_config::scalar::patch(&mut tree, &map(changes));
        build(&Value::Object(tree), json!({}))
    };
    let running = secured(json!({}));
    for (changes, key) in [
        (json!({"scope": "other"}), "scope"),
        (json!({"name": "pg2"}), "name"),
        (json!({"namespace": "/db/"}), "namespace"),
        (json!({"citus": {"group": 1, "database": "citus"}}), "citus"),
        (json!({"etcd3": {"hosts": "10.0.0.2:2379"}}), "etcd3"),
        (json!({"etcd3": {"cacert": "/ca.pem"}}), "etcd3"),
        (
            json!({"etcd3": null, "raft": {"self_addr": "127.0.0.1:2222"}}),
            "etcd3",
        ),
        (
            json!({"postgresql": {"data_dir": "/new"}}),
            "postgresql.data_dir",
        ),
        (
            json!({"postgresql": {"config_dir": "/etc/pg"}}),
            "postgresql.config_dir",
        ),
        (
            json!({"postgresql": {"config_base_name": "pg"}}),
            "postgresql.config_base_name",
        ),
        (
            json!({"postgresql": {"bin_dir": "/usr/bin"}}),
            "postgresql.bin_dir",
        ),
        (
            json!({"postgresql": {"database": "app"}}),
            "postgresql.database",
        ),
        (
            json!({"postgresql": {"pgpass": "/tmp/pgpass"}}),
            "postgresql.pgpass",
        ),
    ] {
        let mut changed = secured(changes.clone());
        changed.keep_until_restart(&running);
        // What a new cluster would begin with follows from `citus`.
        changed.local.bootstrap.clone_from(&running.local.bootstrap);
        assert_eq!(changed.local, running.local, "{changes}");
        let told: Vec<String> = changed.warnings.iter().map(ToString::to_string).collect();
        let told_of = |key: &str| {
            told.iter()
                .any(|text| text.starts_with(&format!("{key} was changed")))
        };
        assert!(told_of(key), "{changes}: {told:?}");
    }

    // Who the agent is to etcd changes while it runs, and so does all the rest.
    let mut changed = secured(json!({
        "etcd3": {"hosts": "10.0.0.1:2379", "username": "agent", "password": "new"},
        "tags": {"nosync": true},
    }));
    changed.keep_until_restart(&running);
    let DcsSection::Etcd3(etcd) = &changed.local.dcs else {
        panic!("{:?}", changed.local.dcs)
    };
    assert_eq!(etcd.username.as_deref(), Some("agent"));
    assert_eq!(etcd.password.as_ref().map(|p| p.expose()), Some("new"));
    assert_ne!(changed.local.tags, running.local.tags);
    assert_eq!(changed.warnings, running.warnings);
}
