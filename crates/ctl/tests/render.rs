//! Member tables, compared with the original's character for character.

use primacy_ctl::render::{Format, Style, View, member_table};
use primacy_model::{
    Cluster, DynamicConfig, FailoverRequest, Initialize, Leader, Lsn, Member, MemberData, Status,
    SyncState, Version,
};
use serde_json::{Value, json};

const V: Version = Version(1);
const LIST: Style = Style::List(Format::Pretty);

fn cluster(
    identifier: &str,
    leader: Option<&str>,
    optime: u64,
    members: &[(&str, Value)],
) -> Cluster {
    Cluster {
        initialize: Initialize::parse(identifier),
        leader: leader.map(|name| Leader {
            name: name.into(),
            version: V,
            session: None,
        }),
        status: Status {
            optime: Lsn(optime),
            ..Status::default()
        },
        members: members
            .iter()
            .map(|(name, data)| Member {
                name: (*name).into(),
                version: V,
                session: None,
                data: MemberData::from_json(&data.to_string()),
            })
            .collect(),
        ..Cluster::default()
    }
}

/// A member's key: its server, state, timeline, and more fields.
fn member(host_port: &str, state: &str, timeline: Option<u32>, more: Value) -> Value {
    let mut data = json!({"conn_url": format!("postgres://{host_port}/postgres"), "state": state});
    let object = data.as_object_mut().unwrap();
    if let Some(timeline) = timeline {
        object.insert("timeline".into(), json!(timeline));
    }
    object.extend(more.as_object().unwrap().clone());
    data
}

/// A replica that streams: both positions, and more fields.
fn streaming(host_port: &str, timeline: u32, receive: u64, replay: u64, more: Value) -> Value {
    let mut data = member(host_port, "running", Some(timeline), more);
    let fields = json!({"replication_state": "streaming", "receive_lsn": receive, "replay_lsn": replay, "xlog_location": receive});
    data.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    data
}

fn configured(cluster: Cluster, value: Value) -> Cluster {
    let value = value.as_object().unwrap().clone();
    Cluster {
        config: Some(DynamicConfig { value, version: V }),
        ..cluster
    }
}

fn synchronous(cluster: Cluster, leader: &str, standbys: &[&str]) -> Cluster {
    let standbys = standbys.iter().map(|name| (*name).into()).collect();
    let sync = SyncState {
        leader: Some(leader.into()),
        standbys,
        quorum: 1,
        version: Some(V),
    };
    Cluster { sync, ..cluster }
}

#[track_caller]
fn assert_drawn(drawn: &str, expected: &str) {
    let expected = expected.trim_start_matches('\n');
    assert!(drawn == expected, "drawn:\n{drawn}\nexpected:\n{expected}");
}

fn demo(replica: Value) -> Cluster {
    cluster(
        "7710395762296189624",
        Some("pg0"),
        0x3AFFFC0,
        &[
            (
                "pg0",
                member("10.0.0.11:15432", "running", Some(1), json!({})),
            ),
            ("pg1", replica),
        ],
    )
}

#[test]
fn list() {
    let demo = demo(streaming(
        "10.0.0.12:15432",
        1,
        0x3AFFFC0,
        0x3000060,
        json!({}),
    ));
    assert_drawn(
        &member_table("demo", View::Cluster(&demo), false, LIST),
        r"
+ Cluster: demo (7710395762296189624) -----------+----+-------------+-----+------------+-----+
| Member | Host            | Role    | State     | TL | Receive LSN | Lag | Replay LSN | Lag |
+--------+-----------------+---------+-----------+----+-------------+-----+------------+-----+
| pg0    | 10.0.0.11:15432 | Leader  | running   |  1 |             |     |            |     |
| pg1    | 10.0.0.12:15432 | Replica | streaming |  1 |   0/3AFFFC0 |   0 |  0/3000060 |  11 |
+--------+-----------------+---------+-----------+----+-------------+-----+------------+-----+
",
    );
}

#[test]
fn list_without_members() {
    assert_drawn(
        &member_table("demo", View::Cluster(&Cluster::default()), false, LIST),
        r"
+ Cluster: demo (uninitialized) ----+-------------+-----+------------+-----+
| Member | Host | Role | State | TL | Receive LSN | Lag | Replay LSN | Lag |
+--------+------+------+-------+----+-------------+-----+------------+-----+
+--------+------+------+-------+----+-------------+-----+------------+-----+
",
    );
    assert_drawn(
        &member_table("nosuch", View::Cluster(&Cluster::default()), false, LIST),
        r"
+ Cluster: nosuch (uninitialized) --+-------------+-----+------------+-----+
| Member | Host | Role | State | TL | Receive LSN | Lag | Replay LSN | Lag |
+--------+------+------+-------+----+-------------+-----+------------+-----+
+--------+------+------+-------+----+-------------+-----+------------+-----+
",
    );
    let initializing = Cluster {
        initialize: Initialize::Running,
        ..Cluster::default()
    };
    let drawn = member_table("demo", View::Cluster(&initializing), false, LIST);
    assert!(
        drawn.starts_with("+ Cluster: demo (initializing) +----+--"),
        "{drawn}"
    );
}

#[test]
fn title_longer_than_the_table() {
    let scope = "a-very-long-cluster-name-that-is-longer-than-the-table-width-for-sure";
    let one = cluster(
        "",
        None,
        0,
        &[("pg1", member("10.0.0.12:15432", "x", None, json!({})))],
    );
    let drawn = member_table(scope, View::Cluster(&one), false, LIST);
    let rule = drawn.lines().last().unwrap().len();
    let full = format!("+ Cluster: {scope} (initializing) ");
    assert_eq!(
        drawn.lines().next().unwrap(),
        format!("{}+", &full[..rule - 1])
    );
}

#[test]
fn data_formats() {
    let restart = json!({"scheduled_restart": {"schedule": "2040-01-01T00:00:00+01:00", "postgres_version": "15.20"}});
    let mut demo = demo(streaming(
        "10.0.0.12:15432",
        1,
        0x3000060,
        0x3000060,
        restart,
    ));
    demo.status.optime = Lsn(0x3000060);
    let draw = |format| member_table("demo", View::Cluster(&demo), false, Style::List(format));
    assert_drawn(
        &draw(Format::Json),
        r#"
[{"Cluster": "demo", "Member": "pg0", "Host": "10.0.0.11:15432", "Role": "Leader", "State": "running", "TL": 1}, {"Cluster": "demo", "Member": "pg1", "Host": "10.0.0.12:15432", "Role": "Replica", "State": "streaming", "TL": 1, "Receive LSN": "0/3000060", "Receive Lag": 0, "Replay LSN": "0/3000060", "Replay Lag": 0, "Scheduled restart": "2040-01-01T00:00:00+01:00 if version < 15.20"}]
"#,
    );
    assert_drawn(
        &draw(Format::Tsv),
        "Cluster\tMember\tHost\tRole\tState\tTL\tReceive LSN\tReceive Lag\tReplay LSN\tReplay Lag\tScheduled restart
demo\tpg0\t10.0.0.11:15432\tLeader\trunning\t1\t\t\t\t\t
demo\tpg1\t10.0.0.12:15432\tReplica\tstreaming\t1\t0/3000060\t0\t0/3000060\t0\t2040-01-01T00:00:00+01:00 if version < 15.20
",
    );
    assert_drawn(
        &draw(Format::Yaml),
        r"
- Cluster: demo
  Host: 10.0.0.11:15432
  Member: pg0
  Role: Leader
  State: running
  TL: 1
- Cluster: demo
  Host: 10.0.0.12:15432
  Member: pg1
  Receive LSN: 0/3000060
  Receive Lag: 0
  Replay LSN: 0/3000060
  Replay Lag: 0
  Role: Replica
  Scheduled restart: 2040-01-01T00:00:00+01:00 if version < 15.20
  State: streaming
  TL: 1

",
    );
}

#[test]
fn pending_restart_and_tags() {
    let pending = json!({"pending_restart": true, "pending_restart_reason": {
        "max_connections": {"old_value": "50", "new_value": "61"},
        "max_wal_senders": {"old_value": "10", "new_value": "12"},
        "shared_preload_libraries": {"old_value": "", "new_value": "pg_stat_statements,auto_explain"},
    }});
    let mut tagged = pending.clone();
    tagged["tags"] = json!({"region": "eu-1", "clonefrom": true});
    let demo = cluster(
        "7710395762296189624",
        Some("pg0"),
        0x4670B00,
        &[
            (
                "pg0",
                member("10.0.0.11:15432", "running", Some(1), pending),
            ),
            (
                "pg1",
                streaming("10.0.0.12:15432", 1, 0x4670B00, 0x4670B00, tagged),
            ),
        ],
    );
    assert_drawn(
        &member_table("demo", View::Cluster(&demo), false, LIST),
        r"
+ Cluster: demo (7710395762296189624) -----------+----+-------------+-----+------------+-----+-----------------+-----------------------------------------------+-----------------+
| Member | Host            | Role    | State     | TL | Receive LSN | Lag | Replay LSN | Lag | Pending restart | Pending restart reason                        | Tags            |
+--------+-----------------+---------+-----------+----+-------------+-----+------------+-----+-----------------+-----------------------------------------------+-----------------+
| pg0    | 10.0.0.11:15432 | Leader  | running   |  1 |             |     |            |     | *               | max_connections: 50->61                       |                 |
|        |                 |         |           |    |             |     |            |     |                 | max_wal_senders: 10->12                       |                 |
|        |                 |         |           |    |             |     |            |     |                 | shared_preload_libraries: [hidden - too long] |                 |
+--------+-----------------+---------+-----------+----+-------------+-----+------------+-----+-----------------+-----------------------------------------------+-----------------+
| pg1    | 10.0.0.12:15432 | Replica | streaming |  1 |   0/4670B00 |   0 |  0/4670B00 |   0 | *               | max_connections: 50->61                       | clonefrom: true |
|        |                 |         |           |    |             |     |            |     |                 | max_wal_senders: 10->12                       | region: eu-1    |
|        |                 |         |           |    |             |     |            |     |                 | shared_preload_libraries: [hidden - too long] |                 |
+--------+-----------------+---------+-----------+----+-------------+-----+------------+-----+-----------------+-----------------------------------------------+-----------------+
",
    );
    let json = member_table(
        "demo",
        View::Cluster(&demo),
        false,
        Style::List(Format::Json),
    );
    assert!(json.contains(r#""Pending restart": "*", "Pending restart reason": "max_connections: 50->61\nmax_wal_senders: 10->12\nshared_preload_libraries: ->pg_stat_statements,auto_explain", "Tags": {"region": "eu-1", "clonefrom": true}}"#), "{json}");
}

#[test]
fn a_fence_and_a_server_that_hangs_have_columns_of_their_own() {
    let demo = |fence: &str| {
        cluster(
            "7710395762296189624",
            Some("pg0"),
            0x4670B00,
            &[
                (
                    "pg0",
                    member(
                        "10.0.0.11:5432",
                        "running",
                        Some(1),
                        json!({"fence": fence}),
                    ),
                ),
                (
                    "pg1",
                    streaming(
                        "10.0.0.12:5432",
                        1,
                        0x4670B00,
                        0x4670B00,
                        json!({"hang": ["connection", "disk"]}),
                    ),
                ),
            ],
        )
    };
    let armed = demo("armed");
    let table = member_table("demo", View::Cluster(&armed), false, LIST);
    assert!(!table.contains("Fence"), "all is well: {table}");
    let table = member_table("demo", View::Cluster(&armed), true, LIST);
    assert!(table.contains("armed"), "{table}");
    assert_drawn(
        &member_table("demo", View::Cluster(&demo("failed")), false, LIST),
        r"
+ Cluster: demo (7710395762296189624) -----+----+-------------+-----+------------+-----+--------+------------------+
| Member | Host      | Role    | State     | TL | Receive LSN | Lag | Replay LSN | Lag | Fence  | Hang             |
+--------+-----------+---------+-----------+----+-------------+-----+------------+-----+--------+------------------+
| pg0    | 10.0.0.11 | Leader  | running   |  1 |             |     |            |     | failed |                  |
| pg1    | 10.0.0.12 | Replica | streaming |  1 |   0/4670B00 |   0 |  0/4670B00 |   0 |        | connection, disk |
+--------+-----------+---------+-----------+----+-------------+-----+------------+-----+--------+------------------+
",
    );
}

#[test]
fn extended_list_has_the_columns_about_restarts() {
    let tags = json!({"tags": {"replicatefrom": 1}});
    let demo = demo(streaming("10.0.0.12:15432", 1, 0x3AFFFC0, 0x3000060, tags));
    let drawn = member_table("demo", View::Cluster(&demo), true, LIST);
    assert_eq!(
        drawn.lines().nth(1).unwrap(),
        "| Member | Host            | Role    | State     | TL | Receive LSN | Lag | Replay LSN | Lag | Pending restart | Pending restart reason | Scheduled restart | Tags             |"
    );
    // Also where nobody has anything to show there.
    let tsv = Style::List(Format::Tsv);
    assert_eq!(
        member_table("demo", View::Cluster(&Cluster::default()), true, tsv),
        "Cluster\tMember\tHost\tRole\tState\tTL\tReceive LSN\tReceive Lag\tReplay LSN\tReplay Lag\tPending restart\tPending restart reason\tScheduled restart\tTags\n"
    );
}

#[test]
fn lag_is_rounded_half_to_even() {
    const MB: u64 = 1 << 20;
    for (lag, shown) in [
        (MB / 2, 0),
        (MB / 2 + 1, 1),
        (MB * 3 / 2 - 1, 1),
        (MB * 3 / 2, 2),
        (MB * 5 / 2, 2),
        (MB * 7 / 2, 4),
    ] {
        let at = 0x3AFFFC0 - lag;
        let mut demo = demo(streaming("10.0.0.12:15432", 1, at, at, json!({})));
        demo.status.optime = Lsn(0x3AFFFC0);
        let tsv = Style::List(Format::Tsv);
        let drawn = member_table("demo", View::Cluster(&demo), false, tsv);
        let cells: Vec<&str> = drawn.trim_end().rsplit('\t').take(3).collect();
        let shown = shown.to_string();
        assert_eq!((cells[0], cells[2]), (&*shown, &*shown), "{lag} bytes");
    }
}

#[test]
fn reasons_are_shown_up_to_fifty_characters() {
    let kept = format!("x: é->{}", "b".repeat(44));
    assert_eq!(kept.chars().count(), 50);
    for (length, line) in [(44, &*kept), (45, "x: [hidden - too long]")] {
        let reason = json!({"x": {"old_value": "é", "new_value": "b".repeat(length)}});
        let pending = json!({"pending_restart": true, "pending_restart_reason": reason});
        let demo = demo(streaming("10.0.0.12:15432", 1, 1, 1, pending));
        for style in [LIST, Style::Topology] {
            let drawn = member_table("demo", View::Cluster(&demo), false, style);
            let row = drawn.lines().nth(4).unwrap();
            assert!(row.contains(&format!("| * {:14}| {line} ", "")), "{drawn}");
        }
    }
}

#[test]
fn topology() {
    let at = 0x6000060;
    let tags = json!({"tags": {"replicatefrom": "pg0", "nosync": true}});
    let demo = cluster(
        "7710395762296189624",
        Some("pg1"),
        at,
        &[
            ("pg0", streaming("10.0.0.11:15432", 5, at, at, json!({}))),
            (
                "pg1",
                member("10.0.0.12:15432", "running", Some(5), json!({})),
            ),
            ("pg2", streaming("10.0.0.13:15432", 5, at, at, tags)),
        ],
    );
    let demo = synchronous(
        configured(demo, json!({"synchronous_mode": true})),
        "pg1",
        &["pg0"],
    );
    assert_drawn(
        &member_table("demo", View::Cluster(&demo), false, Style::Topology),
        r"
+ Cluster: demo (7710395762296189624) -----+-----------+----+-------------+-----+------------+-----+------------------------------------+
| Member  | Host            | Role         | State     | TL | Receive LSN | Lag | Replay LSN | Lag | Tags                               |
+---------+-----------------+--------------+-----------+----+-------------+-----+------------+-----+------------------------------------+
| pg1     | 10.0.0.12:15432 | Leader       | running   |  5 |             |     |            |     |                                    |
| + pg0   | 10.0.0.11:15432 | Sync Standby | streaming |  5 |   0/6000060 |   0 |  0/6000060 |   0 |                                    |
|   + pg2 | 10.0.0.13:15432 | Replica      | streaming |  5 |   0/6000060 |   0 |  0/6000060 |   0 | {nosync: true, replicatefrom: pg0} |
+---------+-----------------+--------------+-----------+----+-------------+-----+------------+-----+------------------------------------+
",
    );
}

#[test]
fn topology_without_leader_with_members_of_old_releases() {
    let old = |position: u64, state: &str, tags: Value| json!({"xlog_location": position, "replication_state": state, "tags": tags});
    let fake = cluster(
        "7277694203142172922",
        None,
        0x4045848,
        &[
            ("a", member("10.0.0.1:5432", "running", Some(3), json!({}))),
            (
                "b",
                streaming("10.0.0.2:5432", 3, 0x4045848, 0x3938700, json!({})),
            ),
            (
                "c",
                member(
                    "10.0.0.3:5432",
                    "running",
                    Some(3),
                    old(
                        0x3FE56C0,
                        "in archive recovery",
                        json!({"nofailover": true, "replicatefrom": "b"}),
                    ),
                ),
            ),
            (
                "d",
                member(
                    "10.0.0.4:5432",
                    "starting",
                    None,
                    json!({"tags": {"replicatefrom": "zz"}}),
                ),
            ),
            (
                "e",
                member(
                    "10.0.0.5:5432",
                    "running",
                    Some(3),
                    old(0x3FE56C0, "streaming", json!({"replicatefrom": "c"})),
                ),
            ),
        ],
    );
    assert_drawn(
        &member_table("fake", View::Cluster(&fake), false, Style::Topology),
        r"
+ Cluster: fake (7277694203142172922) ---------------+----+-------------+-----+------------+-----+--------------------------------------+
| Member  | Host     | Role    | State               | TL | Receive LSN | Lag | Replay LSN | Lag | Tags                                 |
+---------+----------+---------+---------------------+----+-------------+-----+------------+-----+--------------------------------------+
| + a     | 10.0.0.1 | Replica | running             |  3 |     unknown |     |    unknown |     |                                      |
| + b     | 10.0.0.2 | Replica | streaming           |  3 |   0/4045848 |   0 |  0/3938700 |   7 |                                      |
|   + c   | 10.0.0.3 | Replica | in archive recovery |  3 |     unknown |     |  0/3FE56C0 |   0 | {nofailover: true, replicatefrom: b} |
|     + e | 10.0.0.5 | Replica | streaming           |  3 |   0/3FE56C0 |   0 |    unknown |     | {replicatefrom: c}                   |
| + d     | 10.0.0.4 | Replica | starting            |    |     unknown |     |    unknown |     | {replicatefrom: zz}                  |
+---------+----------+---------+---------------------+----+-------------+-----+------------+-----+--------------------------------------+
",
    );
}

#[test]
fn after_a_switchover_and_in_a_standby_cluster() {
    let switched = cluster(
        "7710395762296189624",
        Some("pg1"),
        0x468B028,
        &[
            ("pg0", member("10.0.0.11:15432", "stopped", None, json!({}))),
            (
                "pg1",
                member("10.0.0.12:15432", "running", Some(1), json!({})),
            ),
        ],
    );
    assert_drawn(
        &member_table("demo", View::Cluster(&switched), false, LIST),
        r"
+ Cluster: demo (7710395762296189624) ---------+----+-------------+-----+------------+-----+
| Member | Host            | Role    | State   | TL | Receive LSN | Lag | Replay LSN | Lag |
+--------+-----------------+---------+---------+----+-------------+-----+------------+-----+
| pg0    | 10.0.0.11:15432 | Replica | stopped |    |     unknown |     |    unknown |     |
| pg1    | 10.0.0.12:15432 | Leader  | running |  1 |             |     |            |     |
+--------+-----------------+---------+---------+----+-------------+-----+------------+-----+
",
    );
    let at = 0x5658DF50;
    let standby = cluster(
        "7710395762296189624",
        Some("pg0"),
        at,
        &[
            (
                "pg0",
                member("10.0.0.11:15432", "running", Some(5), json!({})),
            ),
            ("pg1", streaming("10.0.0.12:15432", 5, at, at, json!({}))),
        ],
    );
    let standby = configured(standby, json!({"standby_cluster": {"host": "10.9.9.9"}}));
    assert_drawn(
        &member_table("demo", View::Cluster(&standby), false, LIST),
        r"
+ Cluster: demo (7710395762296189624) ------+-----------+----+-------------+-----+------------+-----+
| Member | Host            | Role           | State     | TL | Receive LSN | Lag | Replay LSN | Lag |
+--------+-----------------+----------------+-----------+----+-------------+-----+------------+-----+
| pg0    | 10.0.0.11:15432 | Standby Leader | running   |  5 |             |     |            |     |
| pg1    | 10.0.0.12:15432 | Replica        | streaming |  5 |  0/5658DF50 |   0 | 0/5658DF50 |   0 |
+--------+-----------------+----------------+-----------+----+-------------+-----+------------+-----+
",
    );
}

#[test]
fn footer() {
    let mut demo = configured(
        demo(streaming("10.0.0.12:15432", 1, 1, 1, json!({}))),
        json!({"pause": true}),
    );
    let footer = |demo: &Cluster, style| {
        let drawn = member_table("demo", View::Cluster(demo), false, style);
        drawn
            .lines()
            .skip(6)
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    demo.failover = FailoverRequest::parse(
        r#"{"leader":"pg0","member":"pg1","scheduled_at":"2040-01-01T10:00:00+01:00"}"#,
        V,
    );
    let expected = r"
 Maintenance mode: on
 Switchover scheduled at: 2040-01-01T10:00:00+01:00
                    from: pg0
                      to: pg1
";
    assert_drawn(&footer(&demo, LIST), expected);
    assert_drawn(&footer(&demo, Style::Topology), expected);
    assert_eq!(footer(&demo, Style::List(Format::Json)), "");
}

#[test]
fn hosts_show_ports_when_they_tell_something() {
    let hosts = |addresses: &[&str]| {
        let names = ["a", "b", "c"];
        let members: Vec<(&str, Value)> = names
            .into_iter()
            .zip(addresses)
            .map(|(name, address)| (name, member(address, "running", None, json!({}))))
            .collect();
        let drawn = member_table(
            "x",
            View::Cluster(&cluster("", None, 0, &members)),
            false,
            Style::List(Format::Tsv),
        );
        drawn
            .lines()
            .skip(1)
            .map(|line| line.split('\t').nth(2).unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(hosts(&["h1", "h2:5432"]), ["h1", "h2"]);
    assert_eq!(hosts(&["h1", "h1"]), ["h1:5432", "h1:5432"]);
    assert_eq!(
        hosts(&["h1", "[fe80::1]:5433"]),
        ["h1:5432", "fe80::1:5433"]
    );
    assert_eq!(hosts(&["", "h1", ""]), ["", "h1", ""]);
}

#[test]
fn citus() {
    let group = |group: u32, identifier: &str| {
        let (a, b) = (format!("n{group}a"), format!("n{group}b"));
        let made = cluster(
            identifier,
            Some(&a),
            0x4045848,
            &[
                (
                    &a,
                    member(&format!("10.0.{group}.1"), "running", Some(3), json!({})),
                ),
                (
                    &b,
                    streaming(
                        &format!("10.0.{group}.2"),
                        3,
                        0x4045848,
                        0x4045848,
                        json!({}),
                    ),
                ),
            ],
        );
        synchronous(
            configured(
                made,
                json!({"synchronous_mode": "quorum", "pause": group == 1}),
            ),
            &a,
            &[&b],
        )
    };
    let groups = [
        (0, group(0, "7000000000000000000")),
        (1, group(1, "7000000000000000001")),
    ];
    assert_drawn(
        &member_table("cc", View::Groups(&groups), false, LIST),
        r"
+ Citus cluster: cc --------+----------------+-----------+----+-------------+-----+------------+-----+
| Group | Member | Host     | Role           | State     | TL | Receive LSN | Lag | Replay LSN | Lag |
+-------+--------+----------+----------------+-----------+----+-------------+-----+------------+-----+
|     0 | n0a    | 10.0.0.1 | Leader         | running   |  3 |             |     |            |     |
|     0 | n0b    | 10.0.0.2 | Quorum Standby | streaming |  3 |   0/4045848 |   0 |  0/4045848 |   0 |
|     1 | n1a    | 10.0.1.1 | Leader         | running   |  3 |             |     |            |     |
|     1 | n1b    | 10.0.1.2 | Quorum Standby | streaming |  3 |   0/4045848 |   0 |  0/4045848 |   0 |
+-------+--------+----------+----------------+-----------+----+-------------+-----+------------+-----+
Citus group: 1
 Maintenance mode: on
",
    );
    assert_drawn(
        &member_table("cc", View::Group(1, &groups[1].1), false, LIST),
        r"
+ Citus cluster: cc (group: 1, 7000000000000000001) --+-------------+-----+------------+-----+
| Member | Host     | Role           | State     | TL | Receive LSN | Lag | Replay LSN | Lag |
+--------+----------+----------------+-----------+----+-------------+-----+------------+-----+
| n1a    | 10.0.1.1 | Leader         | running   |  3 |             |     |            |     |
| n1b    | 10.0.1.2 | Quorum Standby | streaming |  3 |   0/4045848 |   0 |  0/4045848 |   0 |
+--------+----------+----------------+-----------+----+-------------+-----+------------+-----+
 Maintenance mode: on
",
    );
    let json = member_table(
        "cc",
        View::Group(1, &groups[1].1),
        false,
        Style::List(Format::Json),
    );
    assert!(
        json.starts_with(r#"[{"Cluster": "cc", "Group": 1, "Member": "n1a""#),
        "{json}"
    );
}
