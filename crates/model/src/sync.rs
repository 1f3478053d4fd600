use serde_json::{Map, Value, json};

use crate::{MemberName, Version};

/// The `/sync` key (`dcs.md` §2.7): who may be promoted without losing an acknowledged commit.
///
/// Without a leader, synchronous replication is not active and the standbys mean nothing.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SyncState {
    /// The primary that wrote it. Present before that primary accepts its first write (`ha.md` §13.1).
    pub leader: Option<MemberName>,
    /// The voters, sorted.
    pub standbys: Vec<MemberName>,
    /// How many voters besides itself a candidate needs; 0 outside quorum mode.
    pub quorum: u32,
    /// The version to compare with when changing the key; `None` when there is no key.
    pub version: Option<Version>,
}

impl SyncState {
    /// Reads the key's value. What cannot be read is an inactive state *with* the version, so that
    /// repairing it still is a compare-and-set.
    pub fn from_json(text: &str, version: Version) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        let leader = value
            .get("leader")
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty());
        let Some(leader) = leader else {
            return SyncState {
                version: Some(version),
                ..SyncState::default()
            };
        };
        let standbys = value
            .get("sync_standby")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let quorum = match value.get("quorum") {
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            _ => None,
        };
        let mut standbys: Vec<MemberName> = standbys
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(MemberName::from)
            .collect();
        standbys.sort();
        standbys.dedup();
        SyncState {
            leader: Some(leader.into()),
            standbys,
            quorum: quorum.and_then(|q| u32::try_from(q).ok()).unwrap_or(0),
            version: Some(version),
        }
    }

    /// The value as Patroni writes it: `sync_standby` is null when empty, `quorum` always a number.
    pub fn to_json(&self) -> String {
        let mut names: Vec<&str> = self.standbys.iter().map(MemberName::as_str).collect();
        names.sort_unstable();
        let mut map = Map::new();
        map.insert(
            "leader".into(),
            self.leader.as_ref().map_or(Value::Null, |l| json!(l)),
        );
        map.insert("quorum".into(), json!(self.quorum));
        map.insert(
            "sync_standby".into(),
            if names.is_empty() {
                Value::Null
            } else {
                json!(names.join(","))
            },
        );
        Value::Object(map).to_string()
    }

    /// Whether a primary has published itself here.
    pub fn is_active(&self) -> bool {
        self.leader.is_some()
    }

    /// Whether the name is a voter.
    pub fn has_standby(&self, name: &str) -> bool {
        self.standbys
            .iter()
            .any(|standby| standby.matches_application_name(name))
    }

    /// Whether the name is the leader or a voter: one of those who may be promoted.
    pub fn has_member(&self, name: &str) -> bool {
        self.has_leader(name) || self.has_standby(name)
    }

    /// Whether the name is the primary that wrote the key.
    pub fn has_leader(&self, name: &str) -> bool {
        self.leader
            .as_ref()
            .is_some_and(|leader| leader.matches_application_name(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V: Version = Version(7);

    #[test]
    fn value_is_what_patroni_writes() {
        let state = SyncState {
            leader: Some("a".into()),
            standbys: vec!["c".into(), "b".into()],
            quorum: 1,
            version: None,
        };
        assert_eq!(
            state.to_json(),
            r#"{"leader":"a","quorum":1,"sync_standby":"b,c"}"#
        );
        assert_eq!(
            SyncState {
                leader: Some("a".into()),
                ..SyncState::default()
            }
            .to_json(),
            r#"{"leader":"a","quorum":0,"sync_standby":null}"#
        );
    }

    #[test]
    fn odd_values_are_read_as_patroni_reads_them() {
        let read =
            SyncState::from_json(r#"{"leader":"a","quorum":"1","sync_standby":" b, ,c"}"#, V);
        assert_eq!((read.quorum, read.standbys.len()), (1, 2));
        assert!(read.has_member("B") && read.has_member("A") && !read.has_standby("a"));
        let inactive = SyncState::from_json(r#"{"leader":null,"quorum":3,"sync_standby":"b"}"#, V);
        assert_eq!(
            inactive,
            SyncState {
                version: Some(V),
                ..SyncState::default()
            }
        );
        assert!(!SyncState::from_json("[1", V).is_active());
    }

    proptest! {
        #[test]
        fn values_round_trip(leader in "[a-z0-9-]{1,8}", mut names in prop::collection::btree_set("[a-z0-9-]{1,8}", 0..5), quorum in 0u32..6) {
            names.remove(&leader);
            let state = SyncState {
                leader: Some(leader.into()),
                standbys: names.into_iter().map(MemberName::from).collect(),
                quorum,
                version: Some(V),
            };
            prop_assert_eq!(SyncState::from_json(&state.to_json(), V), state);
        }

        #[test]
        fn any_text_is_read(text: String) {
            let _ = SyncState::from_json(&text, V);
        }
    }
}
