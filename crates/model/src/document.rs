use std::fmt::Write as _;

use jiff::fmt::temporal::Pieces;
use jiff::tz::{Offset, TimeZone};
use serde_json::{Map, Value, json};

use crate::{Cluster, Lsn, Member, ScheduledAt};

/// The answer of `GET /cluster` (`rest-api.md` §7.1), which is also what the operator's `list` is drawn
/// from. `scope` is the cluster's name.
///
/// *Shape*: `members`, `pause`, `scheduled_switchover`, `scope`, in that order, absent where not told.
pub fn cluster_document(cluster: &Cluster, scope: &str) -> Map<String, Value> {
    let settings = Settings::of(cluster);
    let members = cluster
        .members
        .iter()
        .map(|member| member_document(cluster, &settings, member));
    let mut document = Map::new();
    document.insert("members".into(), Value::Array(members.collect()));
    if settings.paused {
        document.insert("pause".into(), Value::Bool(true));
    }
    if let Some(switchover) = scheduled_switchover(cluster) {
        document.insert("scheduled_switchover".into(), switchover);
    }
    document.insert("scope".into(), json!(scope));
    document
}

/// What the document needs of the dynamic configuration.
struct Settings {
    paused: bool,
    standby_cluster: bool,
    /// How a member listed in `/sync` is called, `None` while synchronous mode is off.
    synchronous_role: Option<&'static str>,
}

impl Settings {
    fn of(cluster: &Cluster) -> Self {
        let get = |key: &str| {
            cluster
                .config
                .as_ref()
                .and_then(|config| config.value.get(key))
        };
        let standby_cluster = ["host", "port", "restore_command"].iter().any(|key| {
            get("standby_cluster")
                .and_then(|standby| standby.get(key))
                .is_some_and(is_set)
        });
        let mode = get("synchronous_mode");
        let quorum = mode
            .and_then(Value::as_str)
            .is_some_and(|text| text.eq_ignore_ascii_case("quorum"));
        let synchronous_role = match mode {
            _ if standby_cluster => None,
            _ if quorum => Some("quorum_standby"),
            Some(value) if is_on(value) => Some("sync_standby"),
            _ => None,
        };
        Settings {
            paused: get("pause").is_some_and(is_on),
            standby_cluster,
            synchronous_role,
        }
    }
}

/// Whether a switch of the dynamic configuration is on: `true`, 1, or one of the words for it.
fn is_on(value: &Value) -> bool {
    match value {
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_i64() == Some(1),
        Value::String(text) => {
            matches!(
                text.to_ascii_lowercase().as_str(),
                "on" | "true" | "yes" | "1"
            )
        }
        _ => false,
    }
}

fn is_set(value: &Value) -> bool {
    !matches!(value, Value::Null) && *value != json!("") && *value != json!(0)
}

fn member_document(cluster: &Cluster, settings: &Settings, member: &Member) -> Value {
    let leads = cluster.is_led_by(&member.name);
    let role = match settings.synchronous_role {
        _ if leads && settings.standby_cluster => "standby_leader",
        _ if leads => "leader",
        Some(role) if cluster.sync.has_standby(&member.name) => role,
        _ => "replica",
    };
    let data = &member.data;
    let state = data.state.map(|state| state.as_str());
    let replication_state = data.replication_state.map(|state| state.as_str());
    let state = if role == "leader" {
        state
    } else {
        replication_state.or(state)
    };

    let mut map = Map::new();
    map.insert("name".into(), json!(member.name));
    map.insert("role".into(), json!(role));
    map.insert("state".into(), json!(state.unwrap_or_default()));
    map.insert("api_url".into(), json!(data.api_url));
    if let Some(connection) = data.connection() {
        map.insert("host".into(), json!(connection.host));
        map.insert("port".into(), json!(connection.port));
    }
    if let Some(timeline) = data.timeline {
        map.insert("timeline".into(), json!(timeline));
    }
    if let Some(pending) = &data.pending_restart {
        map.insert("pending_restart".into(), Value::Bool(true));
        if !pending.reasons.is_empty() {
            map.insert("pending_restart_reason".into(), pending.to_json());
        }
    }
    if let Some(restart) = &data.scheduled_restart {
        map.insert("scheduled_restart".into(), restart.to_json());
    }
    if !data.tags.is_empty() {
        map.insert("tags".into(), data.tags.to_json());
    }
    // Ours: only there when it tells something.
    if let Some(fence) = &data.fence {
        map.insert("fence".into(), json!(fence));
    }
    if !data.hang.is_empty() {
        map.insert("hang".into(), json!(data.hang));
    }
    if let Some(why) = &data.withdrawn {
        map.insert("withdrawn".into(), json!(why));
    }
    if !leads {
        let optime = cluster.status.optime;
        put_position(&mut map, "receive_", data.receive_lsn, optime);
        put_position(&mut map, "replay_", data.replay_lsn, optime);
        put_position(&mut map, "", data.xlog_location, optime);
    }
    Value::Object(map)
}

/// The order of the two keys depends on whether the position is known; clients have seen both.
fn put_position(map: &mut Map<String, Value>, prefix: &str, position: Option<Lsn>, optime: Lsn) {
    let (lsn, lag) = (format!("{prefix}lsn"), format!("{prefix}lag"));
    match position.and_then(Lsn::known) {
        Some(position) => {
            map.insert(lag, json!(position.behind(optime)));
            map.insert(lsn, json!(position.to_string()));
        }
        None => {
            map.insert(lsn, json!("unknown"));
            map.insert(lag, json!("unknown"));
        }
    }
}

fn scheduled_switchover(cluster: &Cluster) -> Option<Value> {
    let request = cluster.failover.as_ref()?;
    let mut map = Map::new();
    map.insert("at".into(), json!(iso_8601(request.scheduled_at.as_ref()?)));
    if let Some(leader) = &request.leader {
        map.insert("from".into(), json!(leader));
    }
    if let Some(candidate) = &request.candidate {
        map.insert("to".into(), json!(candidate));
    }
    Some(Value::Object(map))
}

/// The instant in its canonical text, with the offset that it was written with.
fn iso_8601(at: &ScheduledAt) -> String {
    match at {
        ScheduledAt::Unusable(text) => text.clone(),
        ScheduledAt::At { timestamp, text } => {
            let offset = Pieces::parse(text)
                .ok()
                .and_then(|pieces| pieces.to_numeric_offset());
            let zone = TimeZone::fixed(offset.unwrap_or(Offset::UTC));
            let at = timestamp.to_zoned(zone);
            let form = match at.subsec_nanosecond() / 1000 {
                0 => "%Y-%m-%dT%H:%M:%S%:z",
                _ => "%Y-%m-%dT%H:%M:%S%.6f%:z",
            };
            at.strftime(form).to_string()
        }
    }
}

/// JSON as REST answers and the operator's `-f json` write it (`rest-api.md` §1.1): one line, `", "` and
/// `": "` between things, everything beyond ASCII escaped.
pub fn json_line(value: &Value) -> String {
    let mut text = String::new();
    write_json(&mut text, value);
    text
}

fn write_json(text: &mut String, value: &Value) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { ", " });
                write_json(text, item);
            }
            text.push(']');
        }
        Value::Object(map) => {
            text.push('{');
            for (index, (key, item)) in map.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { ", " });
                write_string(text, key);
                text.push_str(": ");
                write_json(text, item);
            }
            text.push('}');
        }
        Value::String(string) => write_string(text, string),
        scalar => text.push_str(&scalar.to_string()),
    }
}

fn write_string(text: &mut String, string: &str) {
    text.push('"');
    for character in string.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            ' '..='~' => text.push(character),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DynamicConfig, FailoverRequest, Leader, MemberData, Status, SyncState, Version};
    use proptest::prelude::*;

    const V: Version = Version(1);

    fn member(name: &str, data: &str) -> Member {
        Member {
            name: name.into(),
            version: V,
            session: None,
            data: MemberData::from_json(data),
        }
    }

    fn config(value: Value) -> Option<DynamicConfig> {
        Some(DynamicConfig {
            value: value.as_object().unwrap().clone(),
            version: V,
        })
    }

    fn demo() -> Cluster {
        Cluster {
            leader: Some(Leader {
                name: "pg0".into(),
                version: V,
                session: None,
            }),
            members: vec![
                member(
                    "pg0",
                    r#"{"conn_url":"postgres://10.0.0.11:15432/postgres","api_url":"http://10.0.0.11:8008/patroni","state":"running","role":"primary","xlog_location":61865984,"timeline":1}"#,
                ),
                member(
                    "pg1",
                    r#"{"conn_url":"postgres://10.0.0.12:15432/postgres","api_url":"http://10.0.0.12:8008/patroni","state":"running","role":"replica","xlog_location":61865920,"receive_lsn":61865920,"replay_lsn":50331744,"replication_state":"streaming","timeline":1}"#,
                ),
            ],
            status: Status {
                optime: Lsn(61865920),
                ..Status::default()
            },
            ..Cluster::default()
        }
    }

    fn text(cluster: &Cluster) -> String {
        json_line(&Value::Object(cluster_document(cluster, "demo")))
    }

    #[test]
    fn document_is_what_patroni_answers() {
        assert_eq!(
            text(&demo()),
            r#"{"members": [{"name": "pg0", "role": "leader", "state": "running", "api_url": "http://10.0.0.11:8008/patroni", "host": "10.0.0.11", "port": 15432, "timeline": 1}, {"name": "pg1", "role": "replica", "state": "streaming", "api_url": "http://10.0.0.12:8008/patroni", "host": "10.0.0.12", "port": 15432, "timeline": 1, "receive_lag": 0, "receive_lsn": "0/3AFFFC0", "replay_lag": 11534176, "replay_lsn": "0/3000060", "lag": 0, "lsn": "0/3AFFFC0"}], "scope": "demo"}"#
        );
    }

    #[test]
    fn unknown_positions_and_schedules_are_told() {
        let mut cluster = demo();
        cluster.members = vec![member(
            "pg2",
            r#"{"conn_url":"postgres://10.0.0.13:15432/postgres","api_url":"http://10.0.0.13:8008/patroni","state":"stopped","role":"replica","tags":{"replicatefrom":"pg0","nosync":true}}"#,
        )];
        cluster.config = config(json!({"pause": true}));
        cluster.failover = FailoverRequest::parse(
            r#"{"leader":"pg0","member":"pg1","scheduled_at":"2040-01-01 10:00+01"}"#,
            V,
        );
        assert_eq!(
            text(&cluster),
            r#"{"members": [{"name": "pg2", "role": "replica", "state": "stopped", "api_url": "http://10.0.0.13:8008/patroni", "host": "10.0.0.13", "port": 15432, "tags": {"replicatefrom": "pg0", "nosync": true}, "receive_lsn": "unknown", "receive_lag": "unknown", "replay_lsn": "unknown", "replay_lag": "unknown", "lsn": "unknown", "lag": "unknown"}], "pause": true, "scheduled_switchover": {"at": "2040-01-01T10:00:00+01:00", "from": "pg0", "to": "pg1"}, "scope": "demo"}"#
        );
    }

    #[test]
    fn roles_follow_the_mode() {
        let roles = |configured: Value| {
            let mut cluster = demo();
            cluster.config = config(configured);
            cluster.sync = SyncState {
                leader: Some("pg0".into()),
                standbys: vec!["pg1".into()],
                quorum: 0,
                version: Some(V),
            };
            let document = cluster_document(&cluster, "demo");
            let role = |index: usize| {
                document["members"][index]["role"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            };
            (role(0), role(1))
        };
        let both = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        for (configured, expected) in [
            (json!({}), both("leader", "replica")),
            (
                json!({"synchronous_mode": "on"}),
                both("leader", "sync_standby"),
            ),
            (
                json!({"synchronous_mode": "Quorum"}),
                both("leader", "quorum_standby"),
            ),
            (
                json!({"standby_cluster": {"host": "h"}, "synchronous_mode": true}),
                both("standby_leader", "replica"),
            ),
            (
                json!({"standby_cluster": {"host": ""}}),
                both("leader", "replica"),
            ),
        ] {
            assert_eq!(roles(configured.clone()), expected, "{configured}");
        }
    }

    /// As Python writes them, however the time stands in the key.
    #[test]
    fn schedules_are_told_in_one_form() {
        let cases = [
            ("2040-01-01 10:00+01", "2040-01-01T10:00:00+01:00"),
            ("2040-01-01T10:00:00.5Z", "2040-01-01T10:00:00.500000+00:00"),
            (
                "2040-01-01T10:00:00.123456-03:30",
                "2040-01-01T10:00:00.123456-03:30",
            ),
        ];
        for (at, expected) in cases {
            let mut cluster = demo();
            let key = json!({"leader": "pg0", "scheduled_at": at}).to_string();
            cluster.failover = FailoverRequest::parse(&key, V);
            let told = &cluster_document(&cluster, "demo")["scheduled_switchover"];
            assert_eq!(*told, json!({"at": expected, "from": "pg0"}));
        }
    }

    /// §7.1: what a member's key tells, in this order, and nothing of what it does not.
    #[test]
    fn members_are_told_as_their_keys_have_them() {
        let mut cluster = demo();
        cluster.leader = None;
        cluster.members = vec![
            member(
                "a",
                r#"{"conn_url":"postgres://10.0.0.11/postgres","state":"running"}"#,
            ),
            member(
                "b",
                r#"{"tags":{"x":1},"timeline":3,"xlog_location":99999999,"pending_restart":true,"pending_restart_reason":{"p":{"old_value":"1","new_value":"2"}},"scheduled_restart":{"schedule":"2040-01-01T00:00:00+01:00","postmaster_start_time":"t","role":"replica"},"api_url":"https://b:8008/patroni"}"#,
            ),
        ];
        assert_eq!(
            text(&cluster),
            r#"{"members": [{"name": "a", "role": "replica", "state": "running", "api_url": null, "host": "10.0.0.11", "port": 5432, "receive_lsn": "unknown", "receive_lag": "unknown", "replay_lsn": "unknown", "replay_lag": "unknown", "lsn": "unknown", "lag": "unknown"}, {"name": "b", "role": "replica", "state": "", "api_url": "https://b:8008/patroni", "timeline": 3, "pending_restart": true, "pending_restart_reason": {"p": {"old_value": "1", "new_value": "2"}}, "scheduled_restart": {"schedule": "2040-01-01T00:00:00+01:00", "postmaster_start_time": "t", "role": "replica"}, "tags": {"x": 1}, "receive_lsn": "unknown", "receive_lag": "unknown", "replay_lsn": "unknown", "replay_lag": "unknown", "lag": 0, "lsn": "0/5F5E0FF"}], "scope": "demo"}"#
        );
    }

    #[test]
    fn beyond_ascii_is_escaped() {
        assert_eq!(
            json_line(&json!({"é": "\u{1f600}\n\u{7f}"})),
            "{\"\\u00e9\": \"\\ud83d\\ude00\\n\\u007f\"}"
        );
    }

    proptest! {
        #[test]
        fn json_lines_are_json(text: String, number: i64) {
            let value = json!({text.clone(): [text, number, null]});
            let line = json_line(&value);
            prop_assert!(line.is_ascii() && !line.contains('\n'));
            prop_assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
        }
    }
}
