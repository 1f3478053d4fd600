//! Every key of a member's own configuration: its default, and what becomes of a value (`configuration.md` §2.2 to
//! §2.15). A row is the key, what is read of it, that without the key, a value, and that with it.

mod bootstrap;
mod log;
mod postgresql;
mod restapi;
mod stores;

use std::fmt::Debug;

use primacy_config::local::LocalConfig;
use primacy_config::{Effective, Map, TimingLimits};
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
            r#"Some(Citus { group: CitusGroup(1), database: "d" })"#,
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
