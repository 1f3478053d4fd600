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

#[test]
fn numbers_and_durations() {
    let seconds = Duration::from_secs;
    assert_eq!(
        quietly(json!({"maximum_lag_on_failover": "5"})).maximum_lag_on_failover,
        5
    );
    assert_eq!(
        quietly(json!({"maximum_lag_on_syncnode": 0})).maximum_lag_on_syncnode,
        None
    );
    assert_eq!(
        quietly(json!({"maximum_lag_on_syncnode": 9})).maximum_lag_on_syncnode,
        Some(9)
    );
    assert_eq!(
        quietly(json!({"max_timelines_history": 3})).max_timelines_history,
        3
    );
    assert_eq!(
        quietly(json!({"master_start_timeout": 5})).primary_start_timeout,
        seconds(5)
    );
    let both = quietly(json!({"master_start_timeout": 5, "primary_start_timeout": 0}));
    assert_eq!(both.primary_start_timeout, Duration::ZERO);
    assert_eq!(
        quietly(json!({"primary_stop_timeout": 7})).primary_stop_timeout,
        Some(seconds(7))
    );
    assert_eq!(
        quietly(json!({"primary_stop_timeout": -7})).primary_stop_timeout,
        None
    );
    assert_eq!(
        quietly(json!({"primary_race_backoff": 7})).primary_race_backoff,
        seconds(7)
    );
    assert_eq!(
        quietly(json!({"member_slots_ttl": "1h"})).member_slots_ttl,
        Some(seconds(3600))
    );
    assert_eq!(
        quietly(json!({"member_slots_ttl": 0})).member_slots_ttl,
        None
    );
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
        (cluster.host.as_deref(), cluster.port),
        (Some("a,b"), Some(5433))
    );
    assert_eq!(cluster.create_replica_methods, ["x"]);
    assert_eq!(cluster.restore_command, None);
    assert_eq!(
        quietly(json!({"standby_cluster": {}})).standby_cluster,
        None
    );
    assert_eq!(
        quietly(json!({"standby_cluster": "x"})).standby_cluster,
        None
    );
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
        "ignore_slots": [{"name": "b", "type": "logical", "plugin": ""}, {}],
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
    let [named, any] = &global.ignore_slots[..] else {
        panic!()
    };
    assert!(named.matches("b", &logical));
    assert!(!named.matches("b", &SlotKind::Physical));
    assert!(!named.matches("c", &logical));
    assert!(any.matches("whatever", &SlotKind::Physical));
}
