//! What our `patronictl` and Python's make of the same keys, written by hand: no server runs, so they can be those of any
//! cluster.

use std::time::Duration;

use anyhow::{Result, ensure};
use primacy_dcs::{Change, Condition, Etcd3, Etcd3Config, Outcome, Store, Write};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{StoreKind, TestCluster};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::commands::Pair;

mod long {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "Python's start, two hundred times"]
    async fn both_command_lines_make_the_same_of_them() -> anyhow::Result<()> {
        super::both().await
    }
}

/// Members that nobody answers for; what is typed is declined or refused before they are asked.
const LINES: &[(&str, &str)] = &[
    ("list", ""),
    ("list -e", ""),
    ("list -f json", ""),
    ("list -f tsv", ""),
    ("list -e -f yaml", ""),
    ("list -e -f tsv standby", ""),
    ("list e2e standby nobody empty", ""),
    ("list grouped", ""),
    ("list grouped --group 1", ""),
    ("list grouped --group x", ""),
    ("topology", ""),
    ("topology standby nobody grouped", ""),
    ("history -f tsv", ""),
    ("history -f yaml", ""),
    ("history standby", ""),
    ("show-config", ""),
    ("show-config empty", ""),
    ("dsn -r standby", ""),
    ("dsn -r standby-leader", ""),
    ("dsn standby -r primary", ""),
    ("dsn nobody", ""),
    ("dsn nobody -r any", ""),
    ("switchover standby", "\n\n\nn\n"),
    (
        "switchover standby --force --scheduled 2040-01-01T00:00Z",
        "",
    ),
    ("switchover --candidate pg3 --force", ""),
    ("failover standby", "s1\nn\n"),
    ("failover nobody", "a\nn\n"),
    ("failover --candidate pg4 --force", ""),
    ("failover --candidate pg2", "y\nn\n"),
    ("restart e2e --pg-version 9.1 --force", ""),
    ("restart e2e --pg-version a.b --force", ""),
    ("restart e2e pg1", "\nmaybe\ny\n9.1\n"),
    (
        "restart e2e --pending --scheduled 2040-01-01T10:00+01:00",
        "n\n",
    ),
    ("restart e2e --any -r leader", "\nn\n"),
    (
        "restart standby --scheduled 2040-01-01T10:00+01:00",
        "y\n\n",
    ),
    ("restart standby -r primary", ""),
    ("restart e2e pg0 -r replica", ""),
    ("reload e2e pg1 pg0", "\n"),
    ("reinit e2e pg1", "n\n"),
    ("reinit nosuch", ""),
    ("flush e2e pg2 pg3 restart", "y\n"),
    ("flush e2e nosuch restart", ""),
    ("flush standby switchover", ""),
    ("remove -f json e2e", "\ne2e\nyes\n"),
    ("remove nosuch", "nosuch\nx\n"),
    ("demote-cluster standby --host h", ""),
    ("demote-cluster nobody --port 5", ""),
    ("promote-cluster standby", "n\n"),
    ("edit-config empty -s a=b", "n\n"),
    ("edit-config -s a=b=c -s =x -s postgresql=null", "n\n"),
    (
        "edit-config -s b=0x10 -s c=1e3 -s d=010 -s e=~ -s h=yes",
        "n\n",
    ),
    ("pause standby", ""),
];

/// With the configuration of a member of a Citus cluster's second group.
const GROUPED: &[(&str, &str)] = &[
    ("list", ""),
    ("list -e -f tsv", ""),
    ("list -f json", ""),
    ("list --group 0", ""),
    ("topology", ""),
    ("show-config", ""),
    ("history --group 0", ""),
    ("dsn", ""),
    ("dsn -r replica", ""),
    ("dsn -m n1b", ""),
    ("dsn -m n1b --group 0", ""),
    ("query -c x -m nosuch", ""),
    ("switchover --force", ""),
    ("switchover", "7\n"),
    ("switchover", "x\n1\n\n\n\nn\n"),
    ("failover", "0\nn0b\nn\n"),
    ("restart grouped", "\nn\n"),
    ("restart grouped n1a", "\nn\n"),
    ("restart grouped --group 0", "\nn\n"),
    ("reload grouped -r leader", "n\n"),
    ("reinit grouped n1b", "n\n"),
    ("flush grouped restart", "y\n"),
    ("flush grouped switchover", ""),
    ("demote-cluster --host h", "n\n"),
    ("promote-cluster", ""),
    ("remove grouped", ""),
    ("pause", ""),
];

async fn both() -> Result<()> {
    let cluster = crate::cluster(StoreKind::Etcd3)
        .members(1)
        .by_replaced_names()
        .prepare()
        .await?;
    write_keys(&cluster).await?;
    let mut pair = Pair::new(&cluster)?;
    for line in LINES {
        pair.agree(&[*line]).await?;
    }
    let citus = cluster.scratch().path().join("citus.yml");
    let text = format!(
        "scope: grouped\netcd3: {{hosts: {}}}\ncitus: {{group: 1, database: postgres}}\n",
        json!(cluster.store.hosts())
    );
    cluster.scratch().account().write(&citus, &text)?;
    pair.config = citus;
    for line in GROUPED {
        pair.agree(&[*line]).await?;
    }
    cluster.pass();
    Ok(())
}

async fn write_keys(cluster: &TestCluster) -> Result<()> {
    let hosts = cluster.store.hosts();
    let store = Etcd3::new(Etcd3Config {
        endpoints: hosts.iter().map(|host| format!("http://{host}")).collect(),
        ..Etcd3Config::default()
    })?;
    let mut keys = unusual();
    keys.extend(standby());
    keys.extend((0..2).flat_map(group));
    keys.push(("nobody/initialize".into(), String::new()));
    keys.push(member("nobody", "a", &json!({"state": "running"})));
    let follower = json!({"state": "running", "tags": {"replicatefrom": "a"}});
    keys.push(member("nobody", "b", &follower));
    keys.push(("empty/config".into(), "{}".into()));
    for (key, value) in keys {
        let write = Write {
            key: format!("/service/{key}"),
            change: Change::Put {
                value: value.into_bytes(),
                lease: None,
            },
            condition: Condition::Always,
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        let outcome = store.write(write, deadline).await?;
        ensure!(matches!(outcome, Outcome::Done(_)), "{key} is not written");
    }
    Ok(())
}

type Key = (String, String);

/// The key of a member whose host is its name, and that nobody answers for.
fn member(cluster: &str, name: &str, more: &Value) -> Key {
    let mut data = json!({
        "conn_url": format!("postgres://{name}:5432/postgres"),
        "api_url": "http://127.0.0.1:1/patroni",
        "role": "replica",
        "version": "4.1.5",
    });
    let more = more.as_object().into_iter().flatten();
    for (key, value) in more {
        data[key] = value.clone();
    }
    (format!("{cluster}/members/{name}"), data.to_string())
}

/// Published by a replica that has everything.
fn streaming() -> Value {
    json!({
        "state": "running",
        "timeline": 3,
        "xlog_location": 73_969_704,
        "receive_lsn": 73_969_704,
        "replay_lsn": 73_969_704,
        "replication_state": "streaming",
    })
}

/// All that a table has columns, footers and branches for, and YAML quotes.
fn unusual() -> Vec<Key> {
    let key = |key: &str, value: &str| (format!("{SCOPE}/{key}"), value.to_owned());
    let parameters = json!({
        "max_connections": 50,
        "long": "a b c d e f g h ".repeat(16),
        "umlaut": "ä", "no": "no", "date": "2020-01-01", "n": "1_000", "null": null, "colon": "a: b",
        "empty": "", "lines": "a\nb", "tab": "a\tb", "float": 1e30, "list": [1, [2, 3], {"a": {}}],
        "map": {}, "none": [], "star": "*a", "tick": "it's", "hash": "a #b",
    });
    let config = json!({
        "ttl": 30, "loop_wait": 10, "synchronous_mode": true, "postgresql": {"parameters": parameters},
    });
    let reasons = json!({
        "max_connections": {"old_value": "50", "new_value": "61"},
        "shared_preload_libraries": {"old_value": "", "new_value": "a".repeat(60)},
    });
    let mut late = streaming();
    late["replay_lsn"] = json!(70_000_000);
    late["tags"] =
        json!({"nosync": true, "list": [1, "a"], "map": {"b": 1.5}, "s": "yes", "null": null});
    late["scheduled_restart"] =
        json!({"schedule": "2040-01-01T00:00:00+01:00", "postgres_version": "15.20"});
    vec![
        key("initialize", "7710395762296189624"),
        key("config", &config.to_string()),
        key("leader", "pg0"),
        key("status", r#"{"optime":73969704}"#),
        key("sync", r#"{"leader":"pg0","sync_standby":"pg1"}"#),
        key(
            "history",
            r#"[[1,73970000,"no recovery target specified","2026-11-20T23:21:35.134349+00:00","pg1"],[2,73972328,"before 2000-01-01 00:00:00+00"],[3,9,"ä"]]"#,
        ),
        key(
            "failover",
            r#"{"leader":"pg0","member":"pg1","scheduled_at":"2040-01-01T10:00:00+01:00"}"#,
        ),
        member(
            SCOPE,
            "pg0",
            &json!({
                "role": "primary", "state": "running", "timeline": 3, "xlog_location": 73_969_704,
                "pending_restart": true, "pending_restart_reason": reasons,
            }),
        ),
        member(SCOPE, "pg1", &late),
        // Of a release that published one position.
        member(
            SCOPE,
            "pg2",
            &json!({
                "state": "running", "timeline": 3, "xlog_location": 73_969_704, "version": "4.0.1",
                "tags": {"replicatefrom": "pg1"},
            }),
        ),
        member(
            SCOPE,
            "pg3",
            &json!({
                "state": "stopped", "conn_url": "postgres://[fe80::1]:5433/postgres",
                "tags": {"nofailover": true, "replicatefrom": "pg2"},
            }),
        ),
        member(
            SCOPE,
            "pg4",
            &json!({
                "state": "creating replica",
                "tags": {"replicatefrom": "nosuch", "failover_priority": 0},
            }),
        ),
        member(
            SCOPE,
            "pgé",
            &json!({
                "state": "running", "timeline": 2, "xlog_location": 1, "receive_lsn": 1, "replay_lsn": 1,
                "replication_state": "in archive recovery",
            }),
        ),
    ]
}

/// A standby cluster in pause.
fn standby() -> Vec<Key> {
    let key = |key: &str, value: &str| (format!("standby/{key}"), value.to_owned());
    let mut leader = streaming();
    leader["role"] = json!("standby_leader");
    vec![
        key("initialize", "7710395762296189625"),
        key(
            "config",
            r#"{"loop_wait":1,"pause":true,"standby_cluster":{"host":"h","port":5432}}"#,
        ),
        key("leader", "s0"),
        key("status", r#"{"optime":73969704}"#),
        key("history", "[]"),
        member("standby", "s0", &leader),
        member("standby", "s1", &streaming()),
    ]
}

/// A group of a Citus cluster; the second one is in pause.
fn group(number: u32) -> Vec<Key> {
    let scope = format!("grouped/{number}");
    let key = |key: &str, value: String| (format!("{scope}/{key}"), value);
    let (a, b) = (format!("n{number}a"), format!("n{number}b"));
    let config = json!({"loop_wait": 10, "pause": number == 1, "synchronous_mode": "quorum"});
    vec![
        key("initialize", format!("700000000000000000{number}")),
        key("config", config.to_string()),
        key("leader", a.clone()),
        key("status", r#"{"optime":73969704}"#.into()),
        key(
            "sync",
            json!({"leader": a, "sync_standby": b, "quorum": 0}).to_string(),
        ),
        member(
            &scope,
            &a,
            &json!({"role": "primary", "state": "running", "timeline": 3}),
        ),
        member(&scope, &b, &streaming()),
    ]
}
