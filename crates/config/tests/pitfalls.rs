//! What a configuration says to no effect is told, and what has its effect is not (`configuration.md` §9).

use primacy_config::{Effective, TimingLimits, scalar};
use serde_json::{Value, json};

/// The warnings of a small configuration with these changes, each cut before its reason.
fn told(local: Value, dynamic: Value) -> Vec<String> {
    let mut tree = json!({
        "scope": "demo",
        "name": "pg1",
        "restapi": {"listen": "127.0.0.1:8008"},
        "etcd3": {"host": "h"},
        "postgresql": {
            "listen": "127.0.0.1:5432",
            "data_dir": "/data",
            "authentication": {"superuser": {"username": "postgres"}},
        },
    });
    let (Value::Object(base), Value::Object(changes)) = (&mut tree, local) else {
        panic!("not a mapping")
    };
    scalar::patch(base, &changes);
    let effective =
        Effective::build(&tree, dynamic.as_object().unwrap(), TimingLimits::PATRONI).unwrap();
    effective.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_fence_leaves_time_to_renew_the_lock() {
    let rule = "Violated the rule \"fencing.safety_margin <= ttl - loop_wait - retry_timeout\"";
    for (margin, dynamic, expected) in [
        (json!(5), json!({}), None),
        (json!(10), json!({}), None),
        (json!(10.5), json!({}), Some("from 10.5 to 10")),
        (
            json!(5),
            json!({"ttl": 20, "loop_wait": 10, "retry_timeout": 5}),
            None,
        ),
        (
            json!(6),
            json!({"ttl": 20, "loop_wait": 10, "retry_timeout": 5}),
            Some("from 6 to 5"),
        ),
    ] {
        let told = told(json!({"fencing": {"safety_margin": margin}}), dynamic);
        match expected {
            None => assert_eq!(told, Vec::<String>::new()),
            Some(adjusted) => {
                assert_eq!(told.len(), 1, "{told:?}");
                assert!(told[0].starts_with(rule), "{told:?}");
                assert!(told[0].contains(adjusted), "{told:?}");
            }
        }
    }
}

#[test]
fn settings_of_a_member_that_do_nothing() {
    for (local, expected) in [
        (
            json!({"thread_pool_size": 5}),
            "thread_pool_size has no effect: ",
        ),
        (
            json!({"thread_stack_size": 65_536}),
            "thread_stack_size has no effect: ",
        ),
        (
            json!({"restapi": {"thread_pool_size": 5}}),
            "restapi.thread_pool_size has no effect: ",
        ),
        (
            json!({"ttl": 20}),
            "ttl has no effect: it is a setting of the whole cluster",
        ),
        (
            json!({"synchronous_mode": true}),
            "synchronous_mode has no effect: ",
        ),
        (
            json!({"standby_cluster": {"host": "h"}}),
            "standby_cluster has no effect: ",
        ),
        (
            json!({"pg_hba": ["local all all trust"]}),
            "pg_hba has no effect: it belongs under postgresql",
        ),
        (
            json!({"citus": {"group": "0", "database": "d"}}),
            "citus has no effect: group must be an integer",
        ),
        (
            json!({"raft": {"connection_retry_time": 5, "min_timeout": 0.4}}),
            "raft.connection_retry_time has no effect: a lost connection is made again",
        ),
        (
            json!({"raft": {"leader_fallback_timeout": 30}}),
            "raft.leader_fallback_timeout has no effect: a leader of the embedded store",
        ),
        (
            json!({"restapi": {"verify_client": "require", "certfile": "c"}}),
            "Bad value in the \"restapi.verify_client\": require",
        ),
        (
            json!({"restapi": {"server_tokens": "Off"}}),
            "restapi.server_tokens is set to \"Off\". ",
        ),
        (
            json!({"restapi": {"verify_client": "Required", "server_tokens": "ProductOnly"}}),
            "restapi.verify_client has no effect: without restapi.certfile",
        ),
        (
            json!({"restapi": {"ciphers": "HIGH"}}),
            "restapi.ciphers has no effect: ",
        ),
        (
            json!({"postgresql": {"use_slots": false}}),
            "postgresql.use_slots has no effect: it is a setting of the whole",
        ),
        (
            json!({"postgresql": {"failsafe_mode": true}}),
            "postgresql.failsafe_mode has no effect: ",
        ),
        (
            json!({"postgresql": {"parameters": {"Max_Connections": 300}}}),
            "postgresql.parameters.Max_Connections has no effect: it must be the same on all members",
        ),
        (
            json!({"postgresql": {"parameters": {"port": 5433}}}),
            "postgresql.parameters.port has no effect: it is taken from postgresql.listen",
        ),
        (
            json!({"postgresql": {"parameters": {"cluster_name": "x"}}}),
            "postgresql.parameters.cluster_name has no effect: it is taken from scope",
        ),
        (
            json!({"postgresql": {"parameters": {"restore_command": "x"}, "recovery_conf": {"recovery_end_command": "y"}}}),
            "postgresql.recovery_conf has no effect: postgresql.parameters.restore_command stands in its place",
        ),
        (
            json!({"postgresql": {"authentication": {"superuser": {"user": "x"}}}}),
            "postgresql.authentication.superuser.user has no effect: there is no such setting",
        ),
        (
            json!({"bootstrap": {"ttl": 20, "dcs": {}}}),
            "bootstrap.ttl has no effect: it belongs under bootstrap.dcs",
        ),
        (
            json!({"bootstrap": {"users": {"admin": {}}}}),
            "bootstrap.users has no effect: ",
        ),
        (
            json!({"bootstrap": {"method": "wal_g"}}),
            "bootstrap.method has no effect: bootstrap.wal_g.command is not",
        ),
        (
            json!({"bootstrap": {"pg_hba": ["a"]}, "postgresql": {"pg_hba": ["b"]}}),
            "bootstrap.pg_hba has no effect: postgresql.pg_hba is the whole file",
        ),
        (
            json!({"postgresql": {"use_pg_rewind": "false"}}),
            "postgresql.use_pg_rewind is the text 'false', which counts as true",
        ),
        (
            json!({"tags": {"nofailover": "no"}}),
            "tags.nofailover is the text 'no', which counts as true",
        ),
    ] {
        let warnings = told(local.clone(), json!({}));
        assert_eq!(warnings.len(), 1, "{local}: {warnings:?}");
        assert!(warnings[0].starts_with(expected), "{local}: {warnings:?}");
    }
}

#[test]
fn settings_of_the_cluster_that_do_nothing() {
    for (dynamic, expected) in [
        (
            json!({"tags": {"nofailover": true}}),
            "tags in the dynamic configuration has no effect: it is read from",
        ),
        (
            json!({"etcd3": {}}),
            "etcd3 in the dynamic configuration has no effect: ",
        ),
        (
            json!({"parameters": {"work_mem": "1MB"}}),
            "parameters in the dynamic configuration has no effect: it belongs under postgresql",
        ),
        (
            json!({"postgresql": {"listen": "*:1"}}),
            "postgresql.listen in the dynamic configuration has no effect: it is read from each",
        ),
        (
            json!({"postgresql": {"synchronous_mode": true}}),
            "postgresql.synchronous_mode in the dynamic configuration has no effect: it belongs to the top",
        ),
        (
            json!({"primary_start_timeout": 5, "master_start_timeout": 6}),
            "master_start_timeout in the dynamic configuration has no effect: primary_start_timeout is what counts",
        ),
        (
            json!({"slots": {"a": null}, "permanent_slots": {"b": null}}),
            "slots in the dynamic configuration has no effect: permanent_slots is what counts",
        ),
        (
            json!({"standby_cluster": {"primary_slot_name": "x"}}),
            "standby_cluster has no effect: it needs a host",
        ),
        (
            json!({"standby_cluster": {"host": "h", "port": 5433}}),
            "standby_cluster has neither primary_slot_name nor restore_command: the remote primary may remove WAL that is still needed here",
        ),
        (
            json!({"standby_cluster": {"host": "a,b"}}),
            "standby_cluster has neither primary_slot_name nor restore_command: the remote primary may remove WAL that is \
             still needed here, and whichever of its hosts",
        ),
        (
            json!({
                "standby_cluster": {"restore_command": "r"},
                "postgresql": {"create_replica_methods": ["archive"], "archive": {"command": "a"}},
            }),
            "postgresql.create_replica_methods has no effect: in a standby cluster",
        ),
        (
            json!({"slots": {"a": {"type": "physical", "cluster_type": "standby"}, "b": {"cluster_type": "primary"}}}),
            "slots.a.cluster_type has no effect: ",
        ),
        (
            json!({"standby_cluster": {"host": "h", "primary_slot_name": "s", "slot": "x"}}),
            "standby_cluster.slot has no effect: there is no such setting",
        ),
        (
            json!({"postgresql": {"remove_data_directory_on_diverged_timelines": "off"}}),
            "postgresql.remove_data_directory_on_diverged_timelines is the text 'off', which counts as true",
        ),
    ] {
        let warnings = told(json!({}), dynamic.clone());
        assert_eq!(warnings.len(), 1, "{dynamic}: {warnings:?}");
        assert!(warnings[0].starts_with(expected), "{dynamic}: {warnings:?}");
    }
}

#[test]
fn what_has_its_effect_is_not_told() {
    let local = json!({
        "bootstrap": {
            "method": "wal_g", "wal_g": {"command": "x"}, "pg_hba": ["a"],
            "dcs": {"ttl": 30, "synchronous_mode": true},
        },
        "postgresql": {
            "parameters": {"work_mem": "8MB"}, "use_pg_rewind": true, "use_unix_socket": "yes",
            "recovery_conf": {"restore_command": "x"},
            "authentication": {"replication": {"username": "r", "password": "p", "sslmode": "require"}},
        },
        "tags": {"nofailover": false, "mine": "false"},
        "x-anchors": {"ttl": 5},
    });
    let dynamic = json!({
        "ttl": 30, "permanent_slots": {}, "master_stop_timeout": 5,
        "standby_cluster": {"host": "h", "port": 5432, "create_replica_methods": ["basebackup"], "primary_slot_name": "s"},
        "slots": {"b": {"type": "physical", "cluster_type": "standby"}},
        "postgresql": {"create_replica_methods": ["x"], "use_slots": true, "parameters": {"max_connections": 200}, "pg_hba": ["a"]},
    });
    assert_eq!(told(local, dynamic), Vec::<String>::new());
}
