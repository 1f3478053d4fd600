//! One cluster in a store: its keys (`dcs.md` §1), read into a [`Cluster`], and the writes that the rules
//! of `dcs.md` §3 allow.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use primacy_model::{
    CitusGroup, Cluster, DynamicConfig, FailoverRequest, History, Initialize, Leader, Member,
    MemberData, MemberName, Session, Status, SyncState, SystemIdentifier, Version,
};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::{
    Change, Condition, Entry, Mirror, Outcome, Renewal, Store, StoreError, WatchEvent, Write,
};

/// One cluster's keys in a store. Clones share the store.
#[derive(Clone)]
pub struct ClusterStore {
    store: Arc<dyn Store>,
    base: String,
}

/// What a key must be for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Whatever it is.
    Anything,
    /// Not there.
    Absent,
    /// Of this version.
    Version(Version),
}

impl From<Expected> for Condition {
    fn from(expected: Expected) -> Self {
        match expected {
            Expected::Anything => Condition::Always,
            Expected::Absent => Condition::Absent,
            Expected::Version(version) => Condition::Version(version),
        }
    }
}

impl From<Option<Version>> for Expected {
    fn from(version: Option<Version>) -> Self {
        version.map_or(Expected::Absent, Expected::Version)
    }
}

/// What a [`WatchEvent`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `initialize`.
    Initialize,
    /// `config`.
    Config,
    /// `leader`.
    Leader,
    /// `members/<name>`.
    Member(MemberName),
    /// `status`, or the old `optime/leader`.
    Status,
    /// `history`.
    History,
    /// `failover`.
    Failover,
    /// `sync`.
    Sync,
    /// `failsafe`.
    Failsafe,
    /// A key that means nothing to us.
    Other,
    /// Possibly all of them: the watch may have missed something.
    Everything,
}

impl Subject {
    fn of_key(key: &str) -> Subject {
        match key {
            "initialize" => Subject::Initialize,
            "config" => Subject::Config,
            "leader" => Subject::Leader,
            "status" | "optime/leader" => Subject::Status,
            "history" => Subject::History,
            "failover" => Subject::Failover,
            "sync" => Subject::Sync,
            "failsafe" => Subject::Failsafe,
            _ => match key.strip_prefix("members/") {
                Some(name) if !name.is_empty() && !name.contains('/') => {
                    Subject::Member(name.into())
                }
                _ => Subject::Other,
            },
        }
    }
}

impl ClusterStore {
    /// The cluster `scope` in `namespace`; repeated slashes count as one (`dcs.md` §1).
    pub fn new(store: Arc<dyn Store>, namespace: &str, scope: &str) -> Self {
        let path = format!("{namespace}/{scope}");
        let elements = path.split('/').filter(|element| !element.is_empty());
        let base = elements.map(|element| format!("/{element}")).collect();
        ClusterStore { store, base }
    }

    /// The path below which all keys of the cluster are, without a trailing slash.
    pub fn base_path(&self) -> &str {
        &self.base
    }

    /// The store itself.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Everything that the store has of the cluster, at one instant no older than the call. No key at all
    /// is an empty cluster.
    pub async fn read(&self, deadline: Instant) -> Result<Cluster, StoreError> {
        let snapshot = self.store.read(&self.key(""), deadline).await?;
        Ok(assemble(&self.base, snapshot.entries))
    }

    /// The group of that number of this cluster, where that is one of Citus (`dcs.md` §13).
    pub fn in_group(&self, group: CitusGroup) -> Self {
        ClusterStore {
            store: Arc::clone(&self.store),
            base: self.key(&group.to_string()),
        }
    }

    /// All groups that have a key, at one instant no older than the call.
    pub async fn read_groups(
        &self,
        deadline: Instant,
    ) -> Result<BTreeMap<CitusGroup, Cluster>, StoreError> {
        let prefix = self.key("");
        let snapshot = self.store.read(&prefix, deadline).await?;
        let mut groups: BTreeMap<CitusGroup, Vec<Entry>> = BTreeMap::new();
        for entry in snapshot.entries {
            let relative = entry.key.strip_prefix(&prefix);
            let element = relative.and_then(|key| Some(key.split_once('/')?.0));
            if let Some(group) = element.and_then(CitusGroup::parse) {
                groups.entry(group).or_default().push(entry);
            }
        }
        let assembled = |(group, entries)| {
            let base = self.key(&format!("{group}"));
            (group, assemble(&base, entries))
        };
        Ok(groups.into_iter().map(assembled).collect())
    }

    /// A [`Mirror`] of the cluster that knows nothing yet.
    pub fn mirror(&self) -> Mirror {
        Mirror::new(&self.base)
    }

    /// As [`ClusterStore::read`]; what was read is shown to the mirror as well. The revision comes with it, where the
    /// store counts that.
    pub async fn read_mirrored(
        &self,
        mirror: &Mutex<Mirror>,
        deadline: Instant,
    ) -> Result<(Cluster, Option<Version>), StoreError> {
        let locked = || mirror.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = locked().mark();
        let snapshot = self.store.read(&self.key(""), deadline).await?;
        locked().adopt(mark, &snapshot);
        let revision = snapshot.revision;
        Ok((assemble(&self.base, snapshot.entries), revision))
    }

    /// Reports changes of the cluster from about now on; [`ClusterStore::subject`] tells what they are about.
    pub fn watch(&self) -> mpsc::Receiver<WatchEvent> {
        self.store.watch(&self.key(""))
    }

    /// What an event is about.
    pub fn subject(&self, event: &WatchEvent) -> Subject {
        subject(&self.base, event)
    }

    /// See [`Store::grant_lease`].
    pub async fn grant_lease(
        &self,
        ttl: Duration,
        deadline: Instant,
    ) -> Result<Session, StoreError> {
        self.store.grant_lease(ttl, deadline).await
    }

    /// See [`Store::renew_lease`].
    pub async fn renew_lease(
        &self,
        lease: &Session,
        deadline: Instant,
    ) -> Result<Renewal, StoreError> {
        self.store.renew_lease(lease, deadline).await
    }

    /// See [`Store::revoke_lease`].
    pub async fn revoke_lease(&self, lease: &Session, deadline: Instant) -> Result<(), StoreError> {
        self.store.revoke_lease(lease, deadline).await
    }

    /// Takes the leader key if nobody has it. `ConditionFailed` is a lost race.
    pub async fn acquire_leader(
        &self,
        name: &MemberName,
        lease: &Session,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        self.put(
            "leader",
            name.as_bytes(),
            Some(lease),
            Condition::Absent,
            deadline,
        )
        .await
    }

    /// Renews the lease, and makes sure that the leader key names `name` and hangs on that lease: a key that
    /// is gone is created, one that names `name` under another lease is moved to this one. `holds` says
    /// whether it is known to do so as of a revision of the store, and is asked before it is looked at.
    ///
    /// `Lapsed` means that the leadership is lost: the lease is gone, or another member holds the key. An
    /// error means that nothing is known. Count the lease from before the call.
    pub async fn renew_leader(
        &self,
        name: &MemberName,
        lease: &Session,
        holds: impl FnOnce(Version) -> bool,
        deadline: Instant,
    ) -> Result<Renewal, StoreError> {
        match self.store.renew_lease(lease, deadline).await? {
            Renewal::Renewed { revision } if revision.is_some_and(holds) => {
                Ok(Renewal::Renewed { revision })
            }
            Renewal::Renewed { .. } => {
                let gone = Some(Condition::Absent);
                self.move_leader(name, lease, gone, deadline).await
            }
            Renewal::Lapsed => Ok(Renewal::Lapsed),
        }
    }

    /// As [`Self::renew_leader`], of a lease that the leader key was never seen to hang on: a key that is gone is not
    /// created. Others may have led since it was there.
    pub async fn adopt_leader(
        &self,
        name: &MemberName,
        lease: &Session,
        deadline: Instant,
    ) -> Result<Renewal, StoreError> {
        match self.store.renew_lease(lease, deadline).await? {
            Renewal::Renewed { .. } => self.move_leader(name, lease, None, deadline).await,
            Renewal::Lapsed => Ok(Renewal::Lapsed),
        }
    }

    /// `gone` is the condition on which a key that is not there is created.
    async fn move_leader(
        &self,
        name: &MemberName,
        lease: &Session,
        gone: Option<Condition>,
        deadline: Instant,
    ) -> Result<Renewal, StoreError> {
        let key = self.key("leader");
        let snapshot = self.store.read(&key, deadline).await?;
        let revision = snapshot.revision;
        let condition = match snapshot.entries.into_iter().find(|entry| entry.key == key) {
            None => gone,
            Some(entry) if entry.value != name.as_bytes() => None,
            Some(entry) if entry.lease.as_ref() == Some(lease) => {
                return Ok(Renewal::Renewed { revision });
            }
            Some(entry) => Some(Condition::Version(entry.version)),
        };
        let Some(condition) = condition else {
            return Ok(Renewal::Lapsed);
        };
        match self
            .put("leader", name.as_bytes(), Some(lease), condition, deadline)
            .await
        {
            Ok(Outcome::Done(_)) => Ok(Renewal::Renewed { revision: None }),
            Ok(Outcome::ConditionFailed) => Ok(Renewal::Lapsed),
            Err(error) if error.is_lease_lapsed() => Ok(Renewal::Lapsed),
            Err(error) => Err(error),
        }
    }

    /// Gives the leader key up if it names `name`. `ConditionFailed` means that it did not.
    pub async fn release_leader(
        &self,
        name: &MemberName,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        self.delete(
            "leader",
            Condition::Value(name.as_bytes().to_vec()),
            deadline,
        )
        .await
    }

    /// Publishes a member.
    ///
    /// # Errors
    /// [`StoreError::is_lease_lapsed`]: grant another lease and publish again.
    pub async fn put_member(
        &self,
        name: &MemberName,
        data: &MemberData,
        lease: &Session,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        let key = format!("members/{name}");
        self.put(
            &key,
            data.to_json().as_bytes(),
            Some(lease),
            Condition::Always,
            deadline,
        )
        .await
    }

    /// Takes a member out of the cluster.
    pub async fn delete_member(
        &self,
        name: &MemberName,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        self.delete(&format!("members/{name}"), Condition::Always, deadline)
            .await
    }

    /// Claims the right to bootstrap the cluster for as long as the lease lives. `ConditionFailed` means that
    /// somebody else has.
    pub async fn claim_initialize(
        &self,
        lease: &Session,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        self.put("initialize", b"", Some(lease), Condition::Absent, deadline)
            .await
    }

    /// Writes the cluster's system identifier.
    pub async fn write_initialize(
        &self,
        identifier: &SystemIdentifier,
        expected: Expected,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        let value = identifier.as_str().as_bytes();
        self.put("initialize", value, None, expected.into(), deadline)
            .await
    }

    /// Gives up a bootstrap, so that somebody else may try; `claim` is the version that claiming it returned.
    pub async fn cancel_initialize(
        &self,
        claim: Version,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        self.delete("initialize", Condition::Version(claim), deadline)
            .await
    }

    /// Writes the dynamic configuration.
    pub async fn write_config(
        &self,
        config: &Map<String, Value>,
        expected: Expected,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        let text = Value::Object(config.clone()).to_string();
        self.put("config", text.as_bytes(), None, expected.into(), deadline)
            .await
    }

    /// Writes the failover key: the text of [`FailoverRequest::to_json`] or [`FailoverRequest::CLEARED`].
    pub async fn write_failover(
        &self,
        text: &str,
        expected: Expected,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        self.put("failover", text.as_bytes(), None, expected.into(), deadline)
            .await
    }

    /// Writes the sync key, only ever as a compare-and-set on what was last seen (`dcs.md` §14): a version, or
    /// `None` for no key. The version that it has now comes back.
    pub async fn write_sync(
        &self,
        sync: &SyncState,
        expected: Option<Version>,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        let condition = Expected::from(expected).into();
        self.put("sync", sync.to_json().as_bytes(), None, condition, deadline)
            .await
    }

    /// Removes the sync key if it has this version.
    pub async fn delete_sync(
        &self,
        version: Version,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        self.delete("sync", Condition::Version(version), deadline)
            .await
    }

    /// Writes the leader's position and slots, if `leader` still holds the leader key.
    pub async fn write_status(
        &self,
        leader: &MemberName,
        status: &Status,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        self.put_as_leader("status", &status.to_json(), leader, deadline)
            .await
    }

    /// Publishes the leader's member key, and with it what [`Self::write_status`] does, which the answer is of.
    pub async fn write_status_and_member(
        &self,
        leader: &MemberName,
        status: &Status,
        data: &MemberData,
        lease: &Session,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        let (status, data) = (status.to_json(), data.to_json());
        let key = format!("members/{leader}");
        let status = self.write_of("status", status.as_bytes(), None, self.is_held_by(leader));
        let member = self.write_of(&key, data.as_bytes(), Some(lease), Condition::Always);
        self.store.write_both(status, member, deadline).await
    }

    /// Writes the timelines that ended, if `leader` still holds the leader key.
    pub async fn write_history(
        &self,
        leader: &MemberName,
        history: &History,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        self.put_as_leader("history", &history.to_json(), leader, deadline)
            .await
    }

    /// Writes who must be asked in failsafe mode, if `leader` still holds the leader key.
    pub async fn write_failsafe(
        &self,
        leader: &MemberName,
        members: &BTreeMap<MemberName, String>,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        let text = serde_json::json!(members).to_string();
        self.put_as_leader("failsafe", &text, leader, deadline)
            .await
    }

    /// Removes every key of the cluster.
    pub async fn delete_cluster(&self, deadline: Instant) -> Result<(), StoreError> {
        self.store.delete_prefix(&self.key(""), deadline).await
    }

    fn key(&self, relative: &str) -> String {
        format!("{}/{relative}", self.base)
    }

    async fn put(
        &self,
        key: &str,
        value: &[u8],
        lease: Option<&Session>,
        condition: Condition,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        let write = self.write_of(key, value, lease, condition);
        self.store.write(write, deadline).await
    }

    fn write_of(
        &self,
        key: &str,
        value: &[u8],
        lease: Option<&Session>,
        condition: Condition,
    ) -> Write {
        Write {
            key: self.key(key),
            change: Change::Put {
                value: value.to_vec(),
                lease: lease.cloned(),
            },
            condition,
        }
    }

    /// A deposed leader must not overwrite what its successor has written.
    async fn put_as_leader(
        &self,
        key: &str,
        text: &str,
        leader: &MemberName,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        let holds = self.is_held_by(leader);
        self.put(key, text.as_bytes(), None, holds, deadline).await
    }

    fn is_held_by(&self, leader: &MemberName) -> Condition {
        Condition::Holds {
            key: self.key("leader"),
            value: leader.as_bytes().to_vec(),
        }
    }

    async fn delete(
        &self,
        key: &str,
        condition: Condition,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        let write = Write {
            key: self.key(key),
            change: Change::Delete,
            condition,
        };
        self.store.write(write, deadline).await
    }
}

/// See [`ClusterStore::subject`].
pub(crate) fn subject(base: &str, event: &WatchEvent) -> Subject {
    let key = match event {
        WatchEvent::Put(entry) => &entry.key,
        WatchEvent::Delete { key } => key,
        WatchEvent::Reached(_) => return Subject::Other,
        WatchEvent::Resync => return Subject::Everything,
    };
    let relative = key.strip_prefix(base);
    let relative = relative.and_then(|key| key.strip_prefix('/'));
    relative.map_or(Subject::Other, Subject::of_key)
}

pub(crate) fn assemble(base: &str, entries: impl IntoIterator<Item = Entry>) -> Cluster {
    let mut cluster = Cluster::default();
    let mut optime = None;
    let mut status = None;
    for Entry {
        key,
        value,
        version,
        lease,
    } in entries
    {
        let Some(key) = key.strip_prefix(base).and_then(|key| key.strip_prefix('/')) else {
            continue;
        };
        let text = String::from_utf8_lossy(&value);
        match Subject::of_key(key) {
            Subject::Initialize => cluster.initialize = Initialize::parse(&text),
            Subject::Config => match serde_json::from_str(&text) {
                Ok(Value::Object(value)) => {
                    cluster.config = Some(DynamicConfig { value, version });
                }
                _ => cluster.unreadable_config = Some(version),
            },
            Subject::Leader => {
                let name = MemberName::from(&*text);
                cluster.leader = Some(Leader {
                    name,
                    version,
                    session: lease,
                });
            }
            Subject::Member(name) => {
                let data = MemberData::from_json(&text);
                cluster.members.push(Member {
                    name,
                    version,
                    session: lease,
                    data,
                });
            }
            Subject::Status if key == "status" => status = Some(Status::from_json(&text)),
            Subject::Status => optime = Some(Status::from_json(&text)),
            Subject::History => cluster.history = History::from_json(&text),
            Subject::Failover => cluster.failover = FailoverRequest::parse(&text, version),
            Subject::Sync => cluster.sync = SyncState::from_json(&text, version),
            Subject::Failsafe => {
                let members = failsafe(&text);
                cluster.has_failsafe = members.is_some();
                cluster.failsafe = members.unwrap_or_default();
            }
            Subject::Other | Subject::Everything => {}
        }
    }
    cluster.members.sort_by(|a, b| a.name.cmp(&b.name));
    cluster.status = status.or(optime).unwrap_or_default();
    cluster
}

/// Member to API address; what is not an object of texts is ignored.
fn failsafe(text: &str) -> Option<BTreeMap<MemberName, String>> {
    let Ok(Value::Object(map)) = serde_json::from_str(text) else {
        return None;
    };
    let texts = map
        .into_iter()
        .filter_map(|(name, url)| Some((name.into(), url.as_str()?.to_owned())));
    Some(texts.collect())
}
