use std::time::Duration;

use indexmap::IndexMap;
use primacy_model::SlotKind;

use crate::{DcsSection, Map, Warning};

/// The cluster-wide settings, the same for every member (`configuration.md` §3).
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalConfig {
    /// Lifetime of the leader lock.
    pub ttl: Duration,
    /// Time between two passes.
    pub loop_wait: Duration,
    /// Budget for the retries of one operation on the store or on PostgreSQL.
    pub retry_timeout: Duration,
    /// Bytes; a replica further behind the last known leader position is no candidate.
    pub maximum_lag_on_failover: u64,
    /// Bytes; a synchronous standby further behind is exchanged. `None`: never.
    pub maximum_lag_on_syncnode: Option<u64>,
    /// How many of the newest timelines `/history` keeps. 0: all.
    pub max_timelines_history: usize,
    /// How long a failed primary may take to come back before another takes over.
    pub primary_start_timeout: Duration,
    /// How long a primary may take to stop in synchronous mode before it is killed. `None`: for ever.
    pub primary_stop_timeout: Option<Duration>,
    /// How long the race is put off while WAL still arrives. Zero: not at all.
    pub primary_race_backoff: Duration,
    /// Off in a standby cluster, whatever is configured.
    pub synchronous_mode: SynchronousMode,
    /// Never fall back to asynchronous.
    pub synchronous_mode_strict: bool,
    /// How many synchronous standbys are wanted.
    pub synchronous_node_count: u32,
    /// Keep the primary while the store is away and every member answers.
    pub failsafe_mode: bool,
    /// Members behind the known timeline are no candidates.
    pub check_timeline: bool,
    /// Maintenance: observe, do not act.
    pub pause: bool,
    /// How long the slot of a member that is gone is kept. `None`: drop at once.
    pub member_slots_ttl: Option<Duration>,
    /// Set when this whole cluster follows another one.
    pub standby_cluster: Option<StandbyCluster>,
    /// Use replication slots.
    pub use_slots: bool,
    /// Slots to keep through failovers, by name.
    pub permanent_slots: IndexMap<String, PermanentSlot>,
    /// Slots to leave alone.
    pub ignore_slots: Vec<SlotMatcher>,
}

/// How commits wait for standbys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SynchronousMode {
    /// They do not.
    #[default]
    Off,
    /// Named standbys.
    On,
    /// Any so many of the named standbys.
    Quorum,
}

/// The remote primary that a standby cluster follows (`configuration.md` §3.5). At least one of host, port
/// and restore command is set.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StandbyCluster {
    /// Remote address; a comma-separated list is allowed.
    pub host: Option<String>,
    /// Remote port; the default is 5432.
    pub port: Option<u16>,
    /// Slot to use on the remote side, as configured. `None`: no slot.
    pub primary_slot_name: Option<String>,
    /// Clone methods of all members; empty: `basebackup`.
    pub create_replica_methods: Vec<String>,
    /// Overrides `recovery_conf` on all members.
    pub restore_command: Option<String>,
    /// Overrides `recovery_conf` on all members.
    pub archive_cleanup_command: Option<String>,
    /// On the member that follows the remote.
    pub recovery_min_apply_delay: Option<String>,
}

/// A replication slot that the cluster keeps on every potential leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermanentSlot {
    /// Physical, or logical with database and plugin.
    pub kind: SlotKind,
    /// Where it is wanted; `None`: in both.
    pub cluster_type: Option<ClusterType>,
}

/// Value of `cluster_type` of a permanent slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterType {
    /// A cluster of its own.
    Primary,
    /// A standby cluster.
    Standby,
}

/// Matches slots that nobody may touch (`configuration.md` §3.4). An absent field matches anything.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SlotMatcher {
    /// Slot name.
    pub name: Option<String>,
    /// `physical` or `logical`.
    pub kind: Option<String>,
    /// Database of a logical slot.
    pub database: Option<String>,
    /// Output plugin of a logical slot.
    pub plugin: Option<String>,
}

/// The smallest timings that a store allows (`configuration.md` §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimingLimits {
    /// Whole seconds.
    pub ttl: i64,
    /// Whole seconds.
    pub loop_wait: i64,
    /// Whole seconds.
    pub retry_timeout: i64,
}

impl TimingLimits {
    /// Patroni's, for every store that Patroni members may share.
    pub const PATRONI: TimingLimits = TimingLimits {
        ttl: 20,
        loop_wait: 1,
        retry_timeout: 3,
    };
    /// For the embedded store, where every member is one of ours: its leases need no slack for a slow
    /// external service.
    pub const EMBEDDED: TimingLimits = TimingLimits {
        ttl: 4,
        loop_wait: 1,
        retry_timeout: 1,
    };

    /// The limits of the store.
    pub fn of(store: &DcsSection) -> TimingLimits {
        match store {
            DcsSection::Raft(_) => TimingLimits::EMBEDDED,
            _ => TimingLimits::PATRONI,
        }
    }
}

impl GlobalConfig {
    /// Reads the dynamic configuration; what cannot be understood takes its default, and is told.
    pub fn from_dynamic(dynamic: &Map, limits: TimingLimits) -> (GlobalConfig, Vec<Warning>) {
        let _ = (dynamic, limits);
        (GlobalConfig::default(), Vec::new())
    }
}

/// The built-in defaults.
impl Default for GlobalConfig {
    fn default() -> Self {
        GlobalConfig {
            ttl: Duration::from_secs(30),
            loop_wait: Duration::from_secs(10),
            retry_timeout: Duration::from_secs(10),
            maximum_lag_on_failover: 1_048_576,
            maximum_lag_on_syncnode: None,
            max_timelines_history: 0,
            primary_start_timeout: Duration::from_secs(300),
            primary_stop_timeout: None,
            primary_race_backoff: Duration::ZERO,
            synchronous_mode: SynchronousMode::Off,
            synchronous_mode_strict: false,
            synchronous_node_count: 1,
            failsafe_mode: false,
            check_timeline: false,
            pause: false,
            member_slots_ttl: Some(Duration::from_secs(1800)),
            standby_cluster: None,
            use_slots: true,
            permanent_slots: IndexMap::new(),
            ignore_slots: Vec::new(),
        }
    }
}

impl SlotMatcher {
    /// Whether the slot is one to leave alone.
    pub fn matches(&self, name: &str, kind: &SlotKind) -> bool {
        let (type_, database, plugin) = match kind {
            SlotKind::Physical => ("physical", None, None),
            SlotKind::Logical { database, plugin } => {
                ("logical", Some(database.as_str()), Some(plugin.as_str()))
            }
        };
        let accepts = |wanted: &Option<String>, actual: Option<&str>| {
            wanted
                .as_deref()
                .is_none_or(|wanted| Some(wanted) == actual)
        };
        accepts(&self.name, Some(name))
            && accepts(&self.kind, Some(type_))
            && accepts(&self.database, database)
            && accepts(&self.plugin, plugin)
    }
}
