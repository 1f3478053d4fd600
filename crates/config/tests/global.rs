//! The cluster-wide settings, key by key.

use std::time::Duration;

use primacy_config::{ClusterType, GlobalConfig, Map, SynchronousMode, TimingLimits, Warning};
use primacy_model::SlotKind;
use serde_json::{Value, json};

fn read(dynamic: Value) -> (GlobalConfig, Vec<Warning>) {
    let dynamic: Map = dynamic.as_object().cloned().expect("a mapping");
    GlobalConfig::from_dynamic(&dynamic, TimingLimits::PATRONI)
}

fn quietly(dynamic: Value) -> GlobalConfig {
    let (global, warnings) = read(dynamic);
    assert_eq!(warnings, []);
    global
}

#[test]
fn nothing_is_the_defaults() {
    assert_eq!(quietly(json!({})), GlobalConfig::default());
}

/// §3.1: what is read of a key, that without the key, a value, and that with it. Nothing of it is worth a warning.
#[test]
fn every_key_of_3_1() {
    type Row = (
        &'static str,
        fn(&GlobalConfig) -> String,
        &'static str,
        Value,
        &'static str,
    );
    fn show(value: impl std::fmt::Debug) -> String {
        format!("{value:?}")
    }
    let rows: &[Row] = &[
        ("ttl", |g| show(g.ttl), "30s", json!("40"), "40s"),
        ("loop_wait", |g| show(g.loop_wait), "10s", json!(1), "1s"),
        (
            "retry_timeout",
            |g| show(g.retry_timeout),
            "10s",
            json!(3),
            "3s",
        ),
        (
            "maximum_lag_on_failover",
            |g| show(g.maximum_lag_on_failover),
            "1048576",
            json!("5"),
            "5",
        ),
        (
            "maximum_lag_on_failover",
            |g| show(g.maximum_lag_on_failover),
            "1048576",
            json!(-1),
            "0",
        ),
        (
            "maximum_lag_on_syncnode",
            |g| show(g.maximum_lag_on_syncnode),
            "None",
            json!(9),
            "Some(9)",
        ),
        (
            "maximum_lag_on_syncnode",
            |g| show(g.maximum_lag_on_syncnode),
            "None",
            json!(0),
            "None",
        ),
        (
            "max_timelines_history",
            |g| show(g.max_timelines_history),
            "0",
            json!(3),
            "3",
        ),
        (
            "max_timelines_history",
            |g| show(g.max_timelines_history),
            "0",
            json!(-3),
            "0",
        ),
        (
            "primary_start_timeout",
            |g| show(g.primary_start_timeout),
            "300s",
            json!(0),
            "0ns",
        ),
        (
            "master_start_timeout",
            |g| show(g.primary_start_timeout),
            "300s",
            json!(5),
            "5s",
        ),
        (
            "primary_stop_timeout",
            |g| show(g.primary_stop_timeout),
            "None",
            json!(7),
            "Some(7s)",
        ),
        (
            "primary_stop_timeout",
            |g| show(g.primary_stop_timeout),
            "None",
            json!(-7),
            "None",
        ),
        (
            "master_stop_timeout",
            |g| show(g.primary_stop_timeout),
            "None",
            json!(7),
            "Some(7s)",
        ),
        (
            "primary_hang_timeout",
            |g| show(g.primary_hang_timeout),
            "60s",
            json!(0),
            "0ns",
        ),
        (
            "primary_race_backoff",
            |g| show(g.primary_race_backoff),
            "0ns",
            json!(7),
            "7s",
        ),
        (
            "synchronous_mode",
            |g| show(g.synchronous_mode),
            "Off",
            json!("Quorum"),
            "Quorum",
        ),
        (
            "synchronous_mode",
            |g| show(g.synchronous_mode),
            "Off",
            json!("yes"),
            "On",
        ),
        (
            "synchronous_mode_strict",
            |g| show(g.synchronous_mode_strict),
            "false",
            json!("on"),
            "true",
        ),
        (
            "synchronous_node_count",
            |g| show(g.synchronous_node_count),
            "1",
            json!("2"),
            "2",
        ),
        (
            "failsafe_mode",
            |g| show(g.failsafe_mode),
            "false",
            json!(1),
            "true",
        ),
        (
            "check_timeline",
            |g| show(g.check_timeline),
            "false",
            json!("True"),
            "true",
        ),
        ("pause", |g| show(g.pause), "false", json!(true), "true"),
        (
            "member_slots_ttl",
            |g| show(g.member_slots_ttl),
            "Some(1800s)",
            json!("1h"),
            "Some(3600s)",
        ),
        (
            "member_slots_ttl",
            |g| show(g.member_slots_ttl),
            "Some(1800s)",
            json!("0"),
            "None",
        ),
        (
            "member_slots_ttl",
            |g| show(g.member_slots_ttl),
            "Some(1800s)",
            json!(-5),
            "None",
        ),
        (
            "slots",
            |g| show(g.permanent_slots.len()),
            "0",
            json!({"a": null}),
            "1",
        ),
        (
            "permanent_slots",
            |g| show(g.permanent_slots.len()),
            "0",
            json!({"a": null}),
            "1",
        ),
        (
            "permanent_replication_slots",
            |g| show(g.permanent_slots.len()),
            "0",
            json!({"a": null}),
            "1",
        ),
        (
            "ignore_slots",
            |g| show(g.ignore_slots.len()),
            "0",
            json!([{"name": "a"}]),
            "1",
        ),
        (
            "standby_cluster",
            |g| show(g.standby_cluster.is_some()),
            "false",
            json!({"port": 1}),
            "true",
        ),
        (
            "postgresql",
            |g| show(g.use_slots),
            "true",
            json!({"use_slots": "off"}),
            "false",
        ),
        (
            "postgresql",
            |g| show(g.use_slots),
            "true",
            json!({"use_slots": "?"}),
            "false",
        ),
    ];
    for (key, read, default, value, expected) in rows {
        assert_eq!(read(&quietly(json!({}))), *default, "{key} without a value");
        assert_eq!(
            read(&quietly(json!({ *key: value }))),
            *expected,
            "{key}: {value}"
        );
    }
    let both = quietly(json!({"master_start_timeout": 5, "primary_start_timeout": 0}));
    assert_eq!(both.primary_start_timeout, Duration::ZERO);
}

#[test]
fn what_is_not_understood_takes_its_default_and_is_told() {
    let (global, warnings) = read(json!({
        "maximum_lag_on_failover": "1MB",
        "synchronous_mode": "maybe",
        "member_slots_ttl": "x",
        "primary_start_timeout": null,
    }));
    assert_eq!(global, GlobalConfig::default());
    assert_eq!(warnings.len(), 4);
    assert_eq!(
        warnings[0].to_string(),
        "maximum_lag_on_failover in the dynamic configuration is '1MB': expected an integer \
         without a unit; 1048576 is used"
    );
}

/// §1.6, §1.7.
#[test]
fn timings_that_are_no_numbers_leave_those_in_force() {
    let running = quietly(json!({"ttl": 60, "loop_wait": 5, "retry_timeout": 20}));
    for refused in [
        json!({"ttl": "40s", "loop_wait": 1, "pause": true}),
        json!({"ttl": 90, "retry_timeout": null, "pause": true}),
        json!({"loop_wait": [], "pause": true}),
    ] {
        let dynamic = refused.as_object().unwrap();
        let (global, warnings) = running.followed_by(dynamic, TimingLimits::PATRONI);
        let expected = GlobalConfig {
            pause: true,
            ..running.clone()
        };
        assert_eq!((global, warnings), (expected, vec![]), "{refused}");
    }
    let next = json!({"ttl": "40"});
    let next = next.as_object().unwrap();
    let (global, _) = running.followed_by(next, TimingLimits::PATRONI);
    assert_eq!(global.ttl, Duration::from_secs(40));
    assert_eq!(global.loop_wait, Duration::from_secs(10));
}

#[test]
fn synchronous_modes() {
    for (dynamic, mode, count) in [
        (json!({"synchronous_mode": "on"}), SynchronousMode::On, 1),
        (
            json!({"synchronous_mode": "QUORUM", "synchronous_node_count": 2}),
            SynchronousMode::Quorum,
            2,
        ),
        (json!({"synchronous_mode": false}), SynchronousMode::Off, 1),
        (
            json!({"synchronous_node_count": 0}),
            SynchronousMode::Off,
            0,
        ),
        (
            json!({"synchronous_mode": true, "synchronous_mode_strict": 1, "synchronous_node_count": 0}),
            SynchronousMode::On,
            1,
        ),
        (
            json!({"synchronous_mode": "quorum", "standby_cluster": {"host": "h"}}),
            SynchronousMode::Off,
            1,
        ),
        (
            json!({"synchronous_mode": true, "standby_cluster": {"primary_slot_name": "h"}}),
            SynchronousMode::On,
            1,
        ),
    ] {
        let global = quietly(dynamic.clone());
        assert_eq!(
            (global.synchronous_mode, global.synchronous_node_count),
            (mode, count),
            "{dynamic}"
        );
    }
}

#[test]
fn standby_clusters() {
    let cluster = quietly(json!({"standby_cluster": {
        "host": "a,b", "port": "5433", "create_replica_methods": ["x"], "restore_command": "",
    }}))
    .standby_cluster
    .unwrap();
    assert_eq!(
        (cluster.host.as_deref(), cluster.port.as_deref()),
        (Some("a,b"), Some("5433"))
    );
    assert_eq!(cluster.create_replica_methods, ["x"]);
    assert_eq!(cluster.restore_command, None);
    for (port, expected) in [
        (json!(5433), Some("5433")),
        (json!("5433,5434"), Some("5433,5434")),
    ] {
        let cluster = quietly(json!({"standby_cluster": {"host": "a,b", "port": port}}));
        let cluster = cluster.standby_cluster.unwrap();
        assert_eq!(cluster.port.as_deref(), expected, "{port}");
    }
    for (delay, expected) in [
        (json!("5min"), Some("5min")),
        (json!("1 h"), Some("1 h")),
        (json!(3000), Some("3000")),
        (json!(0), None),
    ] {
        let cluster =
            quietly(json!({"standby_cluster": {"host": "a", "recovery_min_apply_delay": delay}}));
        let cluster = cluster.standby_cluster.unwrap();
        assert_eq!(
            cluster.recovery_min_apply_delay.as_deref(),
            expected,
            "{delay}"
        );
    }
    // What PostgreSQL would not start with.
    for (key, value, expected, warning) in [
        (
            "port",
            json!("abc"),
            (None, None),
            "standby_cluster.port is 'abc': expected a port, or one for each host; 5432 is used",
        ),
        (
            "port",
            json!("5432,70000"),
            (None, None),
            "standby_cluster.port is '5432,70000': ",
        ),
        (
            "recovery_min_apply_delay",
            json!("soon"),
            (None, None),
            "Removing integer parameter=recovery_min_apply_delay from the config due to the invalid value=soon",
        ),
        (
            "recovery_min_apply_delay",
            json!("-5"),
            (None, Some("0")),
            "Value=-5 of parameter=recovery_min_apply_delay is too low, increasing to 0ms",
        ),
    ] {
        let dynamic = json!({"standby_cluster": {"host": "a", key: value}});
        let (global, warnings) =
            GlobalConfig::from_dynamic(dynamic.as_object().unwrap(), TimingLimits::PATRONI);
        let cluster = global.standby_cluster.unwrap();
        let read = (
            cluster.port.as_deref(),
            cluster.recovery_min_apply_delay.as_deref(),
        );
        assert_eq!(read, expected, "{dynamic}");
        assert_eq!(warnings.len(), 1, "{dynamic}");
        let told = warnings[0].to_string();
        assert!(told.starts_with(warning), "{told}");
    }
    assert_eq!(
        quietly(json!({"standby_cluster": {}})).standby_cluster,
        None
    );
    assert_eq!(
        quietly(json!({"standby_cluster": "x"})).standby_cluster,
        None
    );
}

/// §3.4: which of three slots are left alone. The rows of lists of mappings were compared with Patroni's.
#[test]
fn ignored_slots() {
    let logical = |plugin: &str| SlotKind::Logical {
        database: "postgres".into(),
        plugin: plugin.into(),
    };
    let slots = [
        ("phys", SlotKind::Physical),
        ("log", logical("test_decoding")),
        ("pgo", logical("pgoutput")),
    ];
    let ignored = |value: &Value| {
        let (global, warnings) = read(json!({ "ignore_slots": value }));
        let names: Vec<_> = slots
            .iter()
            .filter(|(name, kind)| {
                let mut matchers = global.ignore_slots.iter();
                matchers.any(|matcher| matcher.matches(name, kind))
            })
            .map(|(name, _)| *name)
            .collect();
        (names.join(" "), warnings)
    };
    for (value, expected) in [
        (json!(null), ""),
        (json!([]), ""),
        (json!([{"name": "phys"}]), "phys"),
        (json!([{"name": "Phys"}]), ""),
        (json!([{"name": "", "type": "physical"}]), ""),
        (json!([{"name": null, "type": "physical"}]), "phys"),
        (json!([{"name": "phys", "type": null}]), "phys"),
        (json!([{"type": "Physical"}]), ""),
        (json!([{"type": "logical"}]), "log pgo"),
        (json!([{"database": "postgres"}]), "log pgo"),
        (json!([{"database": "other"}]), ""),
        (json!([{"plugin": "pgoutput", "x": 1}]), "pgo"),
        (json!([{"name": "log", "plugin": ""}]), "log"),
        (json!([{"name": "log", "plugin": "pgoutput"}]), ""),
        (
            json!([{"name": "log", "type": "logical", "database": "postgres", "plugin": "test_decoding"}]),
            "log",
        ),
        (json!([{"name": "log"}, {"name": "phys"}]), "phys log"),
        (json!([{}]), "phys log pgo"),
    ] {
        let (names, warnings) = ignored(&value);
        assert_eq!(names, expected, "{value}");
        assert!(warnings.is_empty(), "{value}: {warnings:?}");
    }
    // Nobody knows which slots are meant: none is dropped.
    for value in [
        json!(["phys"]),
        json!([{"name": "phys"}, "log"]),
        json!([null]),
        json!({"name": "phys"}),
        json!("phys"),
        json!(true),
    ] {
        let (names, warnings) = ignored(&value);
        assert_eq!(names, "phys log pgo", "{value}");
        assert_eq!(warnings.len(), 1, "{value}: {warnings:?}");
        let told = warnings[0].to_string();
        assert!(told.contains("no slot is dropped meanwhile"), "{told}");
    }
}

#[test]
fn slots() {
    let (global, warnings) = read(json!({
        "permanent_slots": {},
        "slots": {
            "phys": null,
            "zero": 0,
            "typed": {"type": "physical", "cluster_type": "standby"},
            "log": {"database": "d", "plugin": "pgoutput", "lsn": 5},
            "half": {"database": "d"},
            "bad": {"type": "logical", "database": "d"},
            "worse": 5,
            "Upper": null,
        },
        "postgresql": {"use_slots": "maybe"},
    }));
    let names: Vec<_> = global.permanent_slots.keys().collect();
    assert_eq!(names, ["phys", "zero", "typed", "log", "half"]);
    assert_eq!(
        global.permanent_slots["typed"].cluster_type,
        Some(ClusterType::Standby)
    );
    let logical = SlotKind::Logical {
        database: "d".into(),
        plugin: "pgoutput".into(),
    };
    assert_eq!(global.permanent_slots["log"].kind, logical);
    assert_eq!(global.permanent_slots["half"].kind, SlotKind::Physical);
    assert_eq!(warnings.len(), 4);
    assert!(!global.use_slots);
}
