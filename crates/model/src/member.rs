use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{Lsn, MemberName, Role, Session, State, Tags, Timeline, Version};

/// A member of the cluster as its key in the DCS shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name: the last element of the key.
    pub name: MemberName,
    /// The key's version.
    pub version: Version,
    /// The lease that the key hangs on, if the store has such.
    pub session: Option<Session>,
    /// The value.
    pub data: MemberData,
}

impl Member {
    /// The member that it asks to follow; its own name is nobody's (`configuration.md` §4).
    pub fn replicates_from(&self) -> Option<&str> {
        let source = self.data.tags.replicatefrom();
        source.filter(|source| *self.name != **source)
    }
}

/// The value of `members/<name>` (`dcs.md` §2.4).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MemberData {
    /// `postgres://host:port/dbname`, without credentials.
    pub conn_url: Option<String>,
    /// `http[s]://host:port/patroni`.
    pub api_url: Option<String>,
    /// As `conn_url`, through the member's proxy.
    pub proxy_url: Option<String>,
    /// What the server is doing.
    pub state: Option<State>,
    /// What the agent takes it for.
    pub role: Option<Role>,
    /// The agent's version, dotted digits.
    pub version: Option<String>,
    /// Effective tags.
    pub tags: Tags,
    /// WAL position, unless it could not be asked or a job is under way.
    pub xlog_location: Option<Lsn>,
    /// Timeline, as above.
    pub timeline: Option<Timeline>,
    /// In recovery: received.
    pub receive_lsn: Option<Lsn>,
    /// In recovery: replayed.
    pub replay_lsn: Option<Lsn>,
    /// In recovery: how it receives WAL.
    pub replication_state: Option<ReplicationState>,
    /// The leader has not made its first checkpoint since it was promoted: nobody may rewind against it.
    /// On the wire the field is `false` or absent.
    pub checkpoint_pending: bool,
    /// Parameters that wait for a restart.
    pub pending_restart: Option<PendingRestart>,
    /// A restart that somebody scheduled.
    pub scheduled_restart: Option<ScheduledRestart>,
    /// The member knows that the cluster is paused.
    pub pause: bool,
    /// Ours, which Patroni overlooks: what the fence says of itself, if anything.
    pub fence: Option<String>,
    /// Ours, which Patroni overlooks: the probes that the server does not answer.
    pub hang: Vec<String>,
    /// Ours, which Patroni overlooks: why the member tells for a while that it is no candidate, which only an operator's
    /// choice overrules.
    pub withdrawn: Option<String>,
    /// Fields that this version does not know, kept as they are.
    pub extra: Map<String, Value>,
}

/// How a server in recovery receives WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplicationState {
    /// From a walsender.
    Streaming,
    /// Through `restore_command`.
    InArchiveRecovery,
}

impl ReplicationState {
    /// The text in member keys and REST answers.
    pub fn as_str(self) -> &'static str {
        match self {
            ReplicationState::Streaming => "streaming",
            ReplicationState::InArchiveRecovery => "in archive recovery",
        }
    }
}

/// That a restart is pending, and why: parameter to (old value, new value).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PendingRestart {
    /// Empty where the writer gave no reasons.
    pub reasons: PendingRestartReasons,
}

/// Parameter to (old value, new value), both in human units.
pub type PendingRestartReasons = BTreeMap<String, (String, String)>;

/// A restart that was scheduled over REST (`dcs.md` §2.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledRestart {
    /// When: ISO 8601 with an offset.
    pub schedule: String,
    /// The postmaster that it is meant for; another one cancels the schedule.
    pub postmaster_start_time: Option<String>,
    /// The filters, as given: `role`, `postgres_version`, `restart_pending`, `timeout`.
    pub filters: Map<String, Value>,
}

/// Host and port of a `conn_url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnUrl {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port, 5432 when the URL has none.
    pub port: u16,
    /// Database, when given.
    pub database: Option<String>,
}

impl ConnUrl {
    /// Reads `postgres://[user@]host[:port][/database][?…]`.
    pub fn parse(url: &str) -> Option<Self> {
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))?;
        let rest = rest.split(['?', '#']).next()?;
        let (authority, database) = match rest.split_once('/') {
            Some((authority, database)) => (authority, Some(database)),
            None => (rest, None),
        };
        let host_port = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host_port)| host_port);
        let (host, port) = match host_port.strip_prefix('[') {
            Some(bracketed) => {
                let (host, rest) = bracketed.split_once(']')?;
                (host, rest.strip_prefix(':'))
            }
            None => match host_port.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (host_port, None),
            },
        };
        let port = match port {
            None | Some("") => 5432,
            Some(port) => port.parse().ok()?,
        };
        (!host.is_empty()).then(|| ConnUrl {
            host: host.to_owned(),
            port,
            database: database.filter(|name| !name.is_empty()).map(str::to_owned),
        })
    }
}

impl MemberData {
    /// Reads the key's value: JSON, or the bare URL of ancient versions. Anything else is empty data.
    pub fn from_json(text: &str) -> Self {
        match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(map)) => Self::from_map(map),
            _ if text.starts_with("postgres") => Self::from_legacy_url(text),
            _ => MemberData::default(),
        }
    }

    fn from_map(mut map: Map<String, Value>) -> Self {
        let mut text = |key: &str| match map.shift_remove(key) {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            _ => None,
        };
        let mut data = MemberData {
            conn_url: text("conn_url"),
            api_url: text("api_url"),
            proxy_url: text("proxy_url"),
            state: text("state").and_then(|text| State::parse(&text)),
            role: text("role").and_then(|text| Role::parse(&text)),
            version: text("version"),
            fence: text("fence"),
            withdrawn: text("withdrawn"),
            replication_state: text("replication_state").and_then(|text| match text.as_str() {
                "streaming" => Some(ReplicationState::Streaming),
                "in archive recovery" => Some(ReplicationState::InArchiveRecovery),
                _ => None,
            }),
            ..MemberData::default()
        };
        let mut lsn = |key: &str| {
            map.shift_remove(key)
                .as_ref()
                .and_then(Value::as_u64)
                .map(Lsn)
        };
        data.xlog_location = lsn("xlog_location");
        data.receive_lsn = lsn("receive_lsn");
        data.replay_lsn = lsn("replay_lsn");
        data.timeline = map
            .shift_remove("timeline")
            .as_ref()
            .and_then(Value::as_u64)
            .and_then(Timeline::known);
        data.tags = map
            .shift_remove("tags")
            .as_ref()
            .map(Tags::from_json)
            .unwrap_or_default();
        data.checkpoint_pending =
            map.shift_remove("checkpoint_after_promote") == Some(Value::Bool(false));
        if let Some(Value::Array(probes)) = map.shift_remove("hang") {
            let names = probes.iter().filter_map(Value::as_str);
            data.hang = names.map(str::to_owned).collect();
        }
        data.pause = map.shift_remove("pause") == Some(Value::Bool(true));
        let reasons = map.shift_remove("pending_restart_reason");
        if map.shift_remove("pending_restart") == Some(Value::Bool(true)) {
            data.pending_restart = Some(PendingRestart::from_json(reasons.as_ref()));
        }
        data.scheduled_restart = map
            .shift_remove("scheduled_restart")
            .as_ref()
            .and_then(ScheduledRestart::from_json);
        data.extra = map;
        data
    }

    fn from_legacy_url(url: &str) -> Self {
        let (conn_url, query) = url.split_once('?').unwrap_or((url, ""));
        let api_url = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("application_name="))
            .filter(|url| !url.is_empty());
        MemberData {
            conn_url: Some(conn_url.to_owned()),
            api_url: api_url.map(str::to_owned),
            ..MemberData::default()
        }
    }

    /// The value as Patroni writes it: flags and unknown values are left out rather than false or null.
    pub fn to_json(&self) -> String {
        let mut map = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(key.to_owned(), value);
            }
        };
        put("conn_url", self.conn_url.as_ref().map(|url| json!(url)));
        put("api_url", self.api_url.as_ref().map(|url| json!(url)));
        put("state", self.state.map(|state| json!(state.as_str())));
        put("role", self.role.map(|role| json!(role.as_str())));
        put(
            "version",
            self.version.as_ref().map(|version| json!(version)),
        );
        put("proxy_url", self.proxy_url.as_ref().map(|url| json!(url)));
        put("tags", (!self.tags.is_empty()).then(|| self.tags.to_json()));
        put("pause", self.pause.then_some(Value::Bool(true)));
        put(
            "checkpoint_after_promote",
            self.checkpoint_pending.then_some(Value::Bool(false)),
        );
        put("xlog_location", self.xlog_location.map(|lsn| json!(lsn)));
        put("receive_lsn", self.receive_lsn.map(|lsn| json!(lsn)));
        put("replay_lsn", self.replay_lsn.map(|lsn| json!(lsn)));
        put(
            "replication_state",
            self.replication_state.map(|state| json!(state.as_str())),
        );
        put("timeline", self.timeline.map(|timeline| json!(timeline)));
        if let Some(pending) = &self.pending_restart {
            put("pending_restart", Some(Value::Bool(true)));
            put("pending_restart_reason", Some(pending.to_json()));
        }
        put(
            "scheduled_restart",
            self.scheduled_restart
                .as_ref()
                .map(ScheduledRestart::to_json),
        );
        put("fence", self.fence.as_ref().map(|fence| json!(fence)));
        put("hang", (!self.hang.is_empty()).then(|| json!(self.hang)));
        put("withdrawn", self.withdrawn.as_ref().map(|why| json!(why)));
        map.extend(
            self.extra
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        Value::Object(map).to_string()
    }

    /// Whether an operator may choose it to lead where nobody does: it was not withdrawn by its configuration.
    pub fn may_be_chosen(&self) -> bool {
        !self.tags.nofailover() || self.withdrawn.is_some()
    }

    /// Where to connect to the server.
    pub fn connection(&self) -> Option<ConnUrl> {
        ConnUrl::parse(self.conn_url.as_deref()?)
    }
}

impl PendingRestart {
    fn from_json(reasons: Option<&Value>) -> Self {
        let text = |value: &Value, key: &str| match value.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let reasons = reasons.and_then(Value::as_object).into_iter().flatten();
        PendingRestart {
            reasons: reasons
                .map(|(name, value)| {
                    (
                        name.clone(),
                        (text(value, "old_value"), text(value, "new_value")),
                    )
                })
                .collect(),
        }
    }

    /// Parameter to `{old_value, new_value}`.
    pub fn to_json(&self) -> Value {
        Value::Object(
            self.reasons
                .iter()
                .map(|(name, (old, new))| {
                    (name.clone(), json!({"old_value": old, "new_value": new}))
                })
                .collect(),
        )
    }
}

impl ScheduledRestart {
    fn from_json(value: &Value) -> Option<Self> {
        let mut filters = value.as_object()?.clone();
        let Some(Value::String(schedule)) = filters.shift_remove("schedule") else {
            return None;
        };
        let start_time = filters.shift_remove("postmaster_start_time");
        Some(ScheduledRestart {
            schedule,
            postmaster_start_time: start_time
                .as_ref()
                .and_then(Value::as_str)
                .map(str::to_owned),
            filters,
        })
    }

    /// As in the member key.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        map.insert("schedule".into(), json!(self.schedule));
        if let Some(start_time) = &self.postmaster_start_time {
            map.insert("postmaster_start_time".into(), json!(start_time));
        }
        map.extend(self.filters.clone());
        Value::Object(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A replica's key as Patroni 4.1 writes it, with a field of some later version.
    const REPLICA: &str = r#"{"conn_url":"postgres://10.0.0.12:15432/postgres","api_url":"http://10.0.0.12:8008/patroni","state":"running","role":"replica","version":"4.1.4","tags":{"clonefrom":true,"region":"eu-1"},"pause":true,"xlog_location":50331744,"receive_lsn":50331744,"replay_lsn":50331700,"replication_state":"streaming","timeline":1,"pending_restart":true,"pending_restart_reason":{"max_connections":{"old_value":"50","new_value":"61"}},"scheduled_restart":{"schedule":"2040-01-01T00:00:00+01:00","postmaster_start_time":"2026-11-20 23:13:38.535128+00:00","role":"replica"},"from_the_future":[1]}"#;

    #[test]
    fn what_patroni_writes_is_read_and_written_back_whole() {
        let data = MemberData::from_json(REPLICA);
        assert_eq!(data.state, Some(State::Running));
        assert_eq!(data.role, Some(Role::Replica));
        assert_eq!(data.xlog_location, Some(Lsn(50331744)));
        assert!(data.tags.clonefrom() && data.pause && !data.checkpoint_pending);
        let (old, new) = &data.pending_restart.as_ref().unwrap().reasons["max_connections"];
        assert_eq!((old.as_str(), new.as_str()), ("50", "61"));
        let written: Value = serde_json::from_str(&data.to_json()).unwrap();
        assert_eq!(written, serde_json::from_str::<Value>(REPLICA).unwrap());
    }

    #[test]
    fn checkpoint_pending_is_false_or_absent_on_the_wire() {
        let pending = MemberData {
            checkpoint_pending: true,
            ..MemberData::default()
        };
        assert_eq!(pending.to_json(), r#"{"checkpoint_after_promote":false}"#);
        assert!(MemberData::from_json(&pending.to_json()).checkpoint_pending);
        assert!(!MemberData::from_json("{}").checkpoint_pending);
    }

    #[test]
    fn a_member_that_withdrew_itself_may_be_chosen_and_one_that_its_configuration_withdrew_not() {
        let member = |text: &str| MemberData::from_json(text);
        assert!(member("{}").may_be_chosen());
        assert!(!member(r#"{"tags":{"nofailover":true}}"#).may_be_chosen());
        let itself = r#"{"tags":{"nofailover":true},"withdrawn":"my WAL left"}"#;
        assert!(member(itself).may_be_chosen());
        assert_eq!(member(itself).to_json(), itself);
    }

    #[test]
    fn legacy_url_is_read() {
        let data = MemberData::from_json(
            "postgres://h:5433/postgres?application_name=http://h:8008/patroni",
        );
        assert_eq!(data.conn_url.as_deref(), Some("postgres://h:5433/postgres"));
        assert_eq!(data.api_url.as_deref(), Some("http://h:8008/patroni"));
        assert_eq!(MemberData::from_json("garbage"), MemberData::default());
    }

    #[test]
    fn connection_urls() {
        let parse = |url| ConnUrl::parse(url).map(|c| (c.host, c.port, c.database));
        let some = |host: &str, port, db: Option<&str>| {
            Some((host.to_owned(), port, db.map(str::to_owned)))
        };
        assert_eq!(parse("postgres://h/db"), some("h", 5432, Some("db")));
        assert_eq!(parse("postgres://u@h:1"), some("h", 1, None));
        assert_eq!(
            parse("postgres://[fe80::1]:5433/x?y=z"),
            some("fe80::1", 5433, Some("x"))
        );
        assert_eq!(parse("postgres://h:port/db"), None);
        assert_eq!(parse("http://h"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text: String) {
            let _ = MemberData::from_json(&text);
            let _ = ConnUrl::parse(&text);
        }
    }
}
