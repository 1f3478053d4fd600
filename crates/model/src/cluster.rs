use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    FailoverRequest, History, Lsn, Member, MemberName, Status, SyncState, SystemIdentifier,
    Timeline,
};

/// The version of one key: opaque, only ever compared for equality and handed back to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

/// What keeps a key alive: a lease, a session, an ephemeral owner. Opaque.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Session(pub String);

/// Everything that the DCS has of one cluster, read at one instant.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Cluster {
    /// The `/initialize` key.
    pub initialize: Initialize,
    /// The `/config` key, `None` when it is missing or not a JSON object.
    pub config: Option<DynamicConfig>,
    /// The version of a `/config` key that is not a JSON object.
    pub unreadable_config: Option<Version>,
    /// The `/leader` key.
    pub leader: Option<Leader>,
    /// The member keys, sorted by name.
    pub members: Vec<Member>,
    /// The `/status` key; empty when there is none.
    pub status: Status,
    /// The `/failover` key when it requests something.
    pub failover: Option<FailoverRequest>,
    /// The `/sync` key; inactive when there is none.
    pub sync: SyncState,
    /// The `/history` key, `None` when missing or unreadable.
    pub history: Option<History>,
    /// The `/failsafe` key: member to API address. Empty when missing.
    pub failsafe: BTreeMap<MemberName, String>,
    /// That key is there and holds an object, perhaps an empty one.
    pub has_failsafe: bool,
}

/// The `/initialize` key (`dcs.md` §2.1).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Initialize {
    /// Never bootstrapped.
    #[default]
    Absent,
    /// A bootstrap is running, or its member died: the empty string.
    Running,
    /// Bootstrapped.
    Done(SystemIdentifier),
    /// Neither empty nor a system identifier.
    Invalid(String),
}

impl Initialize {
    /// Reads the key's value.
    pub fn parse(text: &str) -> Self {
        match SystemIdentifier::parse(text) {
            _ if text.is_empty() => Initialize::Running,
            Some(identifier) => Initialize::Done(identifier),
            None => Initialize::Invalid(text.to_owned()),
        }
    }

    /// The cluster's system identifier, when it is known.
    pub fn system_identifier(&self) -> Option<&SystemIdentifier> {
        match self {
            Initialize::Done(identifier) => Some(identifier),
            _ => None,
        }
    }
}

/// The `/config` key: the dynamic configuration as the operator wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicConfig {
    /// The object, key order kept.
    pub value: Map<String, Value>,
    /// To compare with when changing it, and to notice changes by.
    pub version: Version,
}

/// The `/leader` key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Who holds it.
    pub name: MemberName,
    /// The key's version.
    pub version: Version,
    /// The lease that the key hangs on, if the store has such.
    pub session: Option<Session>,
}

impl Cluster {
    /// The member of that name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == *name)
    }

    /// The leader's name.
    pub fn leader_name(&self) -> Option<&MemberName> {
        self.leader.as_ref().map(|leader| &leader.name)
    }

    /// Whether that member holds the leader key.
    pub fn is_led_by(&self, name: &str) -> bool {
        self.leader
            .as_ref()
            .is_some_and(|leader| leader.name == *name)
    }

    /// Nobody holds the leader key.
    pub fn is_unlocked(&self) -> bool {
        self.leader.is_none()
    }

    /// The leader's member key. A leader without one still leads, with nothing known of it.
    pub fn leader_member(&self) -> Option<&Member> {
        self.member(self.leader_name()?)
    }

    /// Where the cluster left that timeline by its history, when it was before this position: WAL that goes on there is
    /// none of the cluster's.
    pub fn left_timeline_before(
        &self,
        timeline: Option<Timeline>,
        position: Lsn,
    ) -> Option<(Timeline, Lsn)> {
        let entries = &self.history.as_ref()?.entries;
        let left = entries
            .iter()
            .find(|entry| Some(entry.timeline) == timeline)?;
        (left.switch_lsn < position).then_some((left.timeline, left.switch_lsn))
    }

    /// The cluster's timeline by its history (`ha.md` §10.1 row 5); `None` when the history is unknown.
    pub fn timeline(&self) -> Option<Timeline> {
        self.history.as_ref().map(History::cluster_timeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wal_that_goes_on_where_the_cluster_left_its_timeline() {
        let cluster = Cluster {
            history: History::from_json(r#"[[1,100,"r","t","a"],[2,200,"r","t","b"]]"#),
            ..Cluster::default()
        };
        let left = |timeline, position| {
            cluster.left_timeline_before(Some(Timeline(timeline)), Lsn(position))
        };
        assert_eq!(left(1, 100), None, "what everybody has");
        assert_eq!(left(1, 101), Some((Timeline(1), Lsn(100))));
        assert_eq!(left(2, 150), None);
        assert_eq!(left(3, 900), None, "the timeline that the cluster is on");
        assert_eq!(cluster.left_timeline_before(None, Lsn(900)), None);
        assert_eq!(
            Cluster::default().left_timeline_before(Some(Timeline(1)), Lsn(9)),
            None
        );
    }

    #[test]
    fn initialize_values() {
        assert_eq!(Initialize::parse(""), Initialize::Running);
        assert!(
            Initialize::parse("7710395762296189624")
                .system_identifier()
                .is_some()
        );
        assert_eq!(
            Initialize::parse("123456789"),
            Initialize::Invalid("123456789".into())
        );
    }
}
