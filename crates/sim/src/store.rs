//! The store: linearizable keys with versions and leases. It never lies; what goes wrong is that it is slow, cannot be
//! reached, has no majority, or that an answer gets lost after the write was applied.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use primacy_ha::StoreKey;
use primacy_model::{
    Cluster, DynamicConfig, FailoverRequest, History, Initialize, Leader, Member, MemberData,
    MemberName, Status, SyncState, Version,
};
use serde_json::{Map, Value};

use crate::faults::Plan;
use crate::history::Branch;
use crate::invariants;
use crate::network::End;
use crate::node::AgentTask;
use crate::world::{Happening, Instant, NodeId, World};

/// The number of a lease.
pub(crate) type LeaseId = u64;

/// A request that waits for a majority this long is dropped by the store.
const PARKED: Duration = Duration::from_secs(8);

/// A server of the store that tells of its revision may have missed what was written within this time, in milliseconds.
const LAG: u64 = 1000;
/// Older changes were heard of everywhere.
const REVISIONS: usize = 64;

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    expires: Instant,
}

/// A key's value with its version.
#[derive(Clone, Debug)]
pub(crate) struct Keyed<T> {
    pub(crate) value: T,
    version: Version,
    lease: Option<LeaseId>,
}

/// What must be there for a write to be done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected {
    Absent,
    Version(Version),
    Anything,
}

/// The keys of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Store {
    initialize: Option<Keyed<String>>,
    pub(crate) config: Option<Keyed<Map<String, Value>>>,
    pub(crate) leader: Option<Keyed<NodeId>>,
    members: BTreeMap<String, Keyed<MemberData>>,
    pub(crate) status: Status,
    /// Which WAL the position in `/status` is of.
    pub(crate) status_of: Branch,
    failover: Option<Keyed<String>>,
    pub(crate) sync: Option<SyncState>,
    history: Option<History>,
    failsafe: BTreeMap<MemberName, String>,
    leases: BTreeMap<LeaseId, Lease>,
    next: u64,
    /// When keys were written or removed last, each change with its number.
    revisions: VecDeque<(Instant, u64)>,
    /// The last change of something else than members and `/status`.
    settled: u64,
    /// How many faults took the majority away.
    pub(crate) down: u32,
    parked: Vec<(Instant, Parked)>,
}

struct Parked(Happening);

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("request")
    }
}

/// No answer: it may have been applied or not.
#[derive(Debug)]
pub(crate) struct Unknown;

impl Store {
    pub(crate) fn new(_plan: &Plan) -> Self {
        Store::default()
    }

    fn version(&mut self) -> Version {
        self.next += 1;
        Version(self.next)
    }

    /// Everything, as a read at this instant shows it.
    pub(crate) fn read(&self) -> Cluster {
        Cluster {
            initialize: self
                .initialize
                .as_ref()
                .map_or(Initialize::Absent, |key| Initialize::parse(&key.value)),
            config: self.config.as_ref().map(|config| DynamicConfig {
                value: config.value.clone(),
                version: config.version,
            }),
            unreadable_config: None,
            leader: self.leader.as_ref().map(|leader| Leader {
                name: World::name(leader.value).into(),
                version: leader.version,
                session: None,
            }),
            members: self
                .members
                .iter()
                .map(|(name, member)| Member {
                    name: name.as_str().into(),
                    version: member.version,
                    session: None,
                    data: member.value.clone(),
                })
                .collect(),
            status: self.status.clone(),
            failover: self
                .failover
                .as_ref()
                .and_then(|failover| FailoverRequest::parse(&failover.value, failover.version)),
            sync: self.sync.clone().unwrap_or_default(),
            history: self.history.clone(),
            failsafe: self.failsafe.clone(),
            has_failsafe: !self.failsafe.is_empty(),
        }
    }

    pub(crate) fn is_led_by(&self, node: NodeId) -> bool {
        self.leader
            .as_ref()
            .is_some_and(|leader| leader.value == node)
    }

    /// How often keys were written or removed.
    pub(crate) fn revision(&self) -> u64 {
        self.revisions.back().map_or(0, |(_, revision)| *revision)
    }

    fn alive(&self, lease: LeaseId) -> bool {
        self.leases.contains_key(&lease)
    }
}

impl World {
    /// Asks the store from a node: `apply` happens there, then `answered` here; by the deadline at the latest, with
    /// [`Unknown`] if no answer has come. `task` is the agent that asks: gone, nobody is answered.
    pub(crate) fn ask_store<R: 'static>(
        &mut self,
        task: AgentTask,
        deadline: Instant,
        apply: impl FnOnce(&mut World) -> R + 'static,
        answered: impl FnOnce(&mut World, Result<R, Unknown>) + 'static,
    ) {
        let node = task.node;
        type Slot<R> = Rc<RefCell<Option<Box<dyn FnOnce(&mut World, Result<R, Unknown>)>>>>;
        let slot: Slot<R> = Rc::new(RefCell::new(Some(Box::new(answered))));
        let late = Rc::clone(&slot);
        let wait = deadline.saturating_sub(self.now());
        self.after(wait, move |world| {
            world.for_agent(task, move |world| {
                if let Some(answered) = late.borrow_mut().take() {
                    world.report.unknown_answers += 1;
                    answered(world, Err(Unknown));
                }
            });
        });
        if !self.network.passes(End::Node(node), End::Store) {
            return;
        }
        let there = self.store_request_delay(node);
        self.after(there, move |world| {
            world.at_store(Box::new(move |world| {
                let answer = apply(world);
                let lost = world.network.lossy_store;
                if world.chance(lost) || !world.network.passes(End::Store, End::Node(node)) {
                    return;
                }
                let back = world.store_answer_delay(node);
                world.after(back, move |world| {
                    world.for_agent(task, move |world| {
                        if let Some(answered) = slot.borrow_mut().take() {
                            answered(world, Ok(answer));
                        }
                    });
                });
            }));
        });
    }

    fn at_store(&mut self, request: Happening) {
        if self.store.down == 0 {
            request(self);
        } else {
            let until = self.now() + PARKED;
            self.store.parked.push((until, Parked(request)));
        }
    }

    /// The majority is back: leases have their full time again, and some of the requests that waited are applied.
    pub(crate) fn store_returns(&mut self) {
        let now = self.now();
        self.renew_all_leases();
        for (until, Parked(request)) in std::mem::take(&mut self.store.parked) {
            if until > now && self.chance(600) {
                request(self);
            }
        }
    }

    /// Another member of the store leads it: it knows of no lease how much of it has passed.
    pub(crate) fn renew_all_leases(&mut self) {
        let now = self.now();
        let leases: Vec<LeaseId> = self.store.leases.keys().copied().collect();
        for id in leases {
            if let Some(lease) = self.store.leases.get_mut(&id) {
                lease.expires = now + lease.ttl;
                let ttl = lease.ttl;
                self.after(ttl, move |world| world.expire(id));
            }
        }
    }

    pub(crate) fn grant(&mut self, ttl: Duration) -> LeaseId {
        self.store.next += 1;
        let id = self.store.next;
        let expires = self.now() + ttl;
        self.store.leases.insert(id, Lease { ttl, expires });
        self.after(ttl, move |world| world.expire(id));
        id
    }

    /// Keeps a lease alive; `false`: it is gone.
    pub(crate) fn keep_alive(&mut self, id: LeaseId) -> bool {
        let now = self.now();
        let Some(lease) = self.store.leases.get_mut(&id) else {
            return false;
        };
        lease.expires = now + lease.ttl;
        let ttl = lease.ttl;
        self.after(ttl, move |world| world.expire(id));
        true
    }

    fn expire(&mut self, id: LeaseId) {
        let now = self.now();
        let due = self
            .store
            .leases
            .get(&id)
            .is_some_and(|lease| lease.expires <= now);
        if due && self.store.down == 0 {
            self.revoke(id);
        }
    }

    pub(crate) fn revoke(&mut self, id: LeaseId) {
        self.store.leases.remove(&id);
        if self
            .store
            .leader
            .as_ref()
            .is_some_and(|leader| leader.lease == Some(id))
        {
            self.set_leader(None);
        }
        if self
            .store
            .initialize
            .as_ref()
            .is_some_and(|claim| claim.lease == Some(id))
        {
            self.store.initialize = None;
            self.notify(StoreKey::Initialize);
        }
        let gone: Vec<String> = self
            .store
            .members
            .iter()
            .filter(|(_, member)| member.lease == Some(id))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.store.members.remove(&name);
            self.notify(StoreKey::Member(name, None));
        }
    }

    fn set_leader(&mut self, leader: Option<(NodeId, LeaseId)>) {
        let version = self.store.version();
        self.store.leader = leader.map(|(value, lease)| Keyed {
            value,
            version,
            lease: Some(lease),
        });
        let name = leader.map(|(node, _)| World::name(node));
        let told = name.clone();
        self.trace(
            move |_| format!("store: leader is {told:?}"),
            [10, leader.map_or(99, |(node, _)| node as u64), 0],
        );
        self.notify(StoreKey::Leader(name));
    }

    // ---- the requests, each as it is applied -----------------------------------------------------------

    /// Creates the leader key. `None`: the lease is gone.
    pub(crate) fn create_leader(&mut self, node: NodeId, lease: LeaseId) -> Option<bool> {
        if !self.store.alive(lease) {
            return None;
        }
        if self.store.leader.is_some() {
            return Some(false);
        }
        invariants::bounded_loss::leader_taken(self, node);
        invariants::last_copy::used(self, node, "a leader's");
        if self.servers[node].is_primary() && self.takes_for_paused(node) {
            // Whichever primary takes a free lock in pause leads: people see to it that it is the right one.
            self.history_of_commits().forget_guarantees();
        }
        self.set_leader(Some((node, lease)));
        Some(true)
    }

    /// Keeps the leader key, or takes one that names the node over to this lease. `false`: it is not the node's. Who
    /// only found it, `adopting`, creates none.
    pub(crate) fn renew_leader(&mut self, node: NodeId, lease: LeaseId, adopting: bool) -> bool {
        if !self.keep_alive(lease) {
            return false;
        }
        match &self.store.leader {
            Some(leader) if leader.value != node => false,
            Some(leader) if leader.lease == Some(lease) => true,
            None if adopting => false,
            _ => {
                self.set_leader(Some((node, lease)));
                true
            }
        }
    }

    pub(crate) fn delete_leader(&mut self, node: NodeId) {
        if self.store.is_led_by(node) {
            self.set_leader(None);
        }
    }

    pub(crate) fn put_member(&mut self, node: NodeId, data: MemberData, lease: LeaseId) -> bool {
        if !self.store.alive(lease) {
            return false;
        }
        let (name, version) = (World::name(node), self.store.version());
        let told = StoreKey::Member(name.clone(), Some(Box::new(data.clone())));
        self.store.members.insert(
            name,
            Keyed {
                value: data,
                version,
                lease: Some(lease),
            },
        );
        self.notify(told);
        true
    }

    pub(crate) fn write_status(&mut self, node: NodeId, status: Status) {
        if self.store.is_led_by(node) {
            self.store.status = status;
            self.store.status_of = self.branch_of(node);
            self.revise(false);
        }
    }

    pub(crate) fn write_failsafe(&mut self, node: NodeId, map: BTreeMap<MemberName, String>) {
        if self.store.is_led_by(node) {
            self.store.failsafe = map;
            self.revise(true);
        }
    }

    pub(crate) fn write_history(&mut self, node: NodeId, history: History) -> bool {
        let led = self.store.is_led_by(node);
        if led {
            self.store.history = Some(history);
            self.revise(true);
        }
        led
    }

    pub(crate) fn stored_history(&self) -> Option<History> {
        self.store.history.clone()
    }

    /// The claim to the bootstrap: an empty key that goes with its lease. `None`: somebody else's is there.
    pub(crate) fn create_claim(&mut self, lease: LeaseId) -> Option<Version> {
        if self.store.initialize.is_some() || !self.store.alive(lease) {
            return None;
        }
        let version = self.store.version();
        self.store.initialize = Some(Keyed {
            value: String::new(),
            version,
            lease: Some(lease),
        });
        self.notify(StoreKey::Initialize);
        Some(version)
    }

    pub(crate) fn write_initialize(&mut self, value: String, expected: Expected) -> bool {
        let present = self.store.initialize.as_ref().map(|key| key.version);
        let met = match expected {
            Expected::Absent => present.is_none(),
            Expected::Version(version) => present == Some(version),
            Expected::Anything => true,
        };
        if met {
            let version = self.store.version();
            self.store.initialize = Some(Keyed {
                value,
                version,
                lease: None,
            });
            self.notify(StoreKey::Initialize);
        }
        met
    }

    /// The end of a bootstrap that failed.
    pub(crate) fn cancel_initialize(&mut self, claim: Version) {
        if self
            .store
            .initialize
            .as_ref()
            .is_some_and(|key| key.version == claim)
        {
            self.store.initialize = None;
            self.notify(StoreKey::Initialize);
        }
    }

    /// An agent's, which has looked before. `None`: there was no key.
    pub(crate) fn write_config_at(
        &mut self,
        expected: Option<Version>,
        value: Map<String, Value>,
    ) -> bool {
        let present = self.store.config.as_ref().map(|config| config.version);
        if present == expected {
            self.write_config(value);
        }
        present == expected
    }

    pub(crate) fn write_config(&mut self, value: Map<String, Value>) {
        let version = self.store.version();
        self.store.config = Some(Keyed {
            value,
            version,
            lease: None,
        });
        self.notify(StoreKey::Config);
    }

    pub(crate) fn write_failover(&mut self, text: &str, expected: Option<Version>) -> bool {
        let present = self
            .store
            .failover
            .as_ref()
            .map(|failover| failover.version);
        if expected.is_some() && expected != present {
            return false;
        }
        let version = self.store.version();
        self.store.failover = Some(Keyed {
            value: text.to_owned(),
            version,
            lease: None,
        });
        self.notify(StoreKey::Failover);
        true
    }

    /// Compare-and-set on the version; `None` expects no key.
    pub(crate) fn write_sync(&mut self, node: NodeId, mut sync: SyncState) -> bool {
        let present = self.store.sync.as_ref().and_then(|present| present.version);
        if present != sync.version {
            return false;
        }
        sync.version = Some(self.store.version());
        let text = sync.to_json();
        self.trace(
            move |_| format!("store: /sync by {} is {text}", World::name(node)),
            [11, node as u64, 0],
        );
        self.store.sync = Some(sync);
        invariants::published_first::sync_written(self);
        self.notify(StoreKey::Sync);
        true
    }

    pub(crate) fn delete_sync(&mut self, expected: Version) -> bool {
        let present = self.store.sync.as_ref().and_then(|present| present.version);
        if present != Some(expected) {
            return false;
        }
        self.trace(|_| "store: /sync is deleted".into(), [12, 0, 0]);
        self.store.sync = None;
        // From here on an asynchronous failover is what the operator asked for.
        self.history_of_commits().forget_guarantees();
        self.notify(StoreKey::Sync);
        true
    }

    /// What the store as a whole is, as far as one of its servers has heard.
    pub(crate) fn heard_revision(&mut self) -> u64 {
        let lag = self.millis(0, LAG);
        let then = self.now().saturating_sub(lag);
        let heard = self.store.revisions.iter().rev();
        heard
            .copied()
            .find_map(|(at, revision)| (at <= then).then_some(revision))
            .unwrap_or(0)
    }

    /// The store as of this revision, for who has followed it until now since that one, and may go by it.
    pub(crate) fn followed(&self, read: u64, heard: u64) -> Option<Cluster> {
        let follows = self.store.settled <= read && heard == self.store.revision();
        follows.then(|| self.store.read())
    }

    /// `settles`: something else than members and `/status`.
    fn revise(&mut self, settles: bool) {
        let next = self.store.revision() + 1;
        if settles {
            self.store.settled = next;
        }
        let now = self.now();
        self.store.revisions.push_back((now, next));
        if self.store.revisions.len() > REVISIONS {
            self.store.revisions.pop_front();
        }
    }

    /// Tells every agent that is connected; some do not hear of it.
    fn notify(&mut self, key: StoreKey) {
        self.revise(!matches!(key, StoreKey::Member(..)));
        for node in 0..self.nodes.len() {
            if self.nodes[node].deaf > 0 || !self.network.passes(End::Store, End::Node(node)) {
                continue;
            }
            let (delay, key) = (self.watch_delay(node), key.clone());
            self.after(delay, move |world| world.watched(node, key));
        }
    }
}
