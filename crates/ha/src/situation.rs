use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use primacy_config::{GlobalConfig, SynchronousMode, Watchdog};
use primacy_model::{
    Cluster, Lsn, Member, MemberName, Observation, PendingRestart, PostmasterIdentity, Role,
    ScheduledRestart, State, Tags, Timeline, Version, WalStatus,
};

use crate::decision::{DemotionMode, Job, Upstream};
use crate::time::Moment;

/// Everything that a decision may depend on: a complete, immutable picture of one instant.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The instant, for deadlines.
    pub now: Moment,
    /// The instant, for schedules that people made.
    pub wall: Timestamp,
    /// This member, as its configuration has it.
    pub local: &'a Local,
    /// The cluster-wide configuration.
    pub global: &'a GlobalConfig,
    /// The cluster, as the DCS has it.
    pub store: StoreView<'a>,
    /// The newest view that had a leader, or the first one: its members take part in a race even after
    /// their keys are gone.
    pub last_healthy: Option<&'a Cluster>,
    /// What this member knows of its leadership.
    pub lease: Lease,
    /// The server.
    pub server: &'a Observation,
    /// What earlier passes left.
    pub memory: &'a Memory,
    /// The long action under way.
    pub job: Option<&'a JobInFlight>,
    /// What the members answered, if they were asked in this pass.
    pub peers: Option<&'a Peers>,
}

/// The DCS in this pass.
#[derive(Clone, Copy, Debug)]
pub enum StoreView<'a> {
    /// It answered.
    Seen(&'a Cluster),
    /// It did not answer within `retry_timeout`.
    Unreachable,
}

/// What this member is, from its local configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Local {
    /// Its name.
    pub name: MemberName,
    /// Configured tags.
    pub tags: Tags,
    /// `conn_url` of the member key.
    pub conn_url: String,
    /// `api_url` of the member key.
    pub api_url: String,
    /// `proxy_url` of the member key.
    pub proxy_url: Option<String>,
    /// The configuration has a `bootstrap` section: this member may start a new cluster.
    pub may_bootstrap: bool,
    /// It makes a new cluster by a command of its own instead of initdb.
    pub custom_bootstrap: bool,
    /// `create_replica_methods`.
    pub replica_methods: Vec<String>,
    /// The methods that work without a source.
    pub methods_without_source: BTreeSet<String>,
    /// `use_pg_rewind`.
    pub use_pg_rewind: bool,
    /// `remove_data_directory_on_rewind_failure`.
    pub remove_on_rewind_failure: bool,
    /// `remove_data_directory_on_diverged_timelines`.
    pub remove_on_divergence: bool,
    /// The watchdog device.
    pub watchdog: Watchdog,
    /// `fencing.mode` is `required`: nobody leads here without the fence.
    pub fence_required: bool,
    /// The database that is distributed, in a Citus cluster.
    pub citus_database: Option<String>,
}

/// What this member knows of its leadership. Only a renewal that was answered in time makes it true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Lease {
    /// It does not lead.
    #[default]
    None,
    /// It leads until then, counted from before the last successful renewal was sent.
    Held {
        /// The deadline.
        until: Moment,
        /// Since when renewals fail; `None` when the last one succeeded.
        failing_since: Option<Moment>,
    },
}

impl Lease {
    /// Whether it leads at that moment.
    pub fn is_held(self, now: Moment) -> bool {
        matches!(self, Lease::Held { until, .. } if now < until)
    }
}

/// What earlier passes left for later ones. The machine writes it, decisions read it.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// When this process began.
    pub began: Moment,
    /// The store has answered since then.
    pub store_seen: bool,
    /// What the agent takes its server for.
    pub role: Role,
    /// What is being done to the server.
    pub state: State,
    /// The server was seen healthy since this process began.
    pub joined: bool,
    /// A new cluster is being made here: the result of what follows the first start, once known.
    pub bootstrapping: Option<Option<bool>>,
    /// The server has been starting since then.
    pub starting_since: Option<Moment>,
    /// Since when a killed server has been seen that has not ended yet.
    pub dying_since: Option<Moment>,
    /// How long the start under way may take, where an operator said so.
    pub start_timeout: Option<Duration>,
    /// The last start failed then.
    pub start_failed_at: Option<Moment>,
    /// Single-user crash recovery was run since the last successful start.
    pub crash_recovery_tried: bool,
    /// The data directory was filled from another member, and was not started since.
    pub copied: bool,
    /// Divergence and rewind.
    pub rewind: RewindState,
    /// The local WAL goes on where `/history` says that the cluster left its timeline: there.
    pub left_history: Option<(Timeline, Lsn)>,
    /// An agent before this one found that the local WAL left its leader's, and it was not compared since.
    pub found_diverged: bool,
    /// The local WAL is that of a primary, and has neither been compared with a later one's nor streamed from it since: it
    /// may go on where nobody else's does.
    pub former_primary: bool,
    /// It is, nobody leads, and votes count: `/sync` names this primary after it.
    pub superseded_by: Option<MemberName>,
    /// Nobody leads, and an operator chose this member to.
    pub chosen: bool,
    /// A leadership is being ended.
    pub demotion: Option<Demotion>,
    /// The fence.
    pub fence: FenceState,
    /// The watchdog device.
    pub watchdog: WatchdogProgress,
    /// The agent is to end.
    pub shutdown: Option<Shutdown>,
    /// What an operator asked for and has not been begun.
    pub operation: Option<PendingOperation>,
    /// When this member gave the lock up because `pre_promote` failed.
    pub pre_promote_failed_at: Option<Moment>,
    /// The timeline whose first checkpoint after the promotion is known to be done.
    pub checkpoint_done: Option<Timeline>,
    /// A checkpoint runs in the background.
    pub checkpoint_running: bool,
    /// What the running standby was last made to follow, and which postmaster that was.
    pub following: Option<(Upstream, PostmasterIdentity)>,
    /// It takes a restart to follow this.
    pub follow_needs_restart: Option<Upstream>,
    /// An acquisition of the lock had no answer, and none had one since: it may arrive at any time, after others have led.
    pub unheard_acquisition: bool,
    /// The version of the `/sync` that the race for the lock was judged by.
    pub raced_for_sync: Option<Version>,
    /// Synchronous standbys.
    pub sync: SyncProgress,
    /// When this member asked to leave synchronous replication.
    pub sync_withdrawn_at: Option<Moment>,
    /// Parameters that wait for a restart.
    pub pending_restart: Option<PendingRestart>,
    /// A restart that was scheduled.
    pub scheduled_restart: Option<ScheduledRestart>,
    /// When the local WAL was last compared with the remote primary of a standby cluster.
    pub remote_compared_at: Option<Moment>,
    /// Since when nobody leads, as far as views tell, nor was promised not to be replaced.
    pub unlocked_since: Option<Moment>,
    /// The WAL position last seen, and when it was seen to move.
    pub wal_moved: Option<(Lsn, Option<Moment>)>,
    /// The timeline last seen in use here.
    pub last_timeline: Option<Timeline>,
    /// `/history` was found or made right for this timeline.
    pub history_done: Option<Timeline>,
    /// `/history` could not be made right then.
    pub history_failed_at: Option<Moment>,
    /// Replication slots.
    pub slots: SlotsProgress,
    /// Failsafe mode.
    pub failsafe: Failsafe,
}

impl Default for Memory {
    fn default() -> Self {
        Memory {
            began: Moment::default(),
            store_seen: false,
            role: Role::Uninitialized,
            state: State::Stopped,
            joined: false,
            bootstrapping: None,
            starting_since: None,
            dying_since: None,
            start_timeout: None,
            start_failed_at: None,
            crash_recovery_tried: false,
            copied: false,
            rewind: RewindState::Initial,
            left_history: None,
            found_diverged: false,
            former_primary: false,
            superseded_by: None,
            chosen: false,
            demotion: None,
            fence: FenceState::default(),
            watchdog: WatchdogProgress::default(),
            shutdown: None,
            operation: None,
            pre_promote_failed_at: None,
            checkpoint_done: None,
            checkpoint_running: false,
            following: None,
            follow_needs_restart: None,
            unheard_acquisition: false,
            raced_for_sync: None,
            sync: SyncProgress::default(),
            sync_withdrawn_at: None,
            pending_restart: None,
            scheduled_restart: None,
            remote_compared_at: None,
            unlocked_since: None,
            wal_moved: None,
            last_timeline: None,
            history_done: None,
            history_failed_at: None,
            slots: SlotsProgress::default(),
            failsafe: Failsafe::default(),
        }
    }
}

/// Failsafe mode (`ha.md` §15), both sides of it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Failsafe {
    /// As the leader: what the members answered last, since the lock cannot be renewed.
    pub verdict: Option<FailsafeVerdict>,
    /// As another member: the promise not to take over.
    pub promise: Option<FailsafePromise>,
    /// Members' WAL positions, from their answers.
    pub positions: BTreeMap<MemberName, Lsn>,
    /// When the mode was seen to be switched off.
    pub off_since: Option<Moment>,
}

/// What the members' answers came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailsafeVerdict {
    /// All accepted: the lease was prolonged.
    Accepted,
    /// One did not, and why.
    Refused(String),
}

/// A promise not to take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailsafePromise {
    /// From whom.
    pub leader: FailsafeLeader,
    /// Until when.
    pub until: Moment,
}

/// The leader that asks the members, as it describes itself: the body of `POST /failsafe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailsafeLeader {
    /// Its name.
    pub name: MemberName,
    /// Where its PostgreSQL is.
    pub conn_url: String,
    /// Where its API is.
    pub api_url: String,
    /// Slot to position, its own position under its own slot name; `None` when it does not know.
    pub slots: Option<BTreeMap<String, Lsn>>,
    /// For how long the promise must hold; `None` from Patroni, which takes it from the configuration.
    pub ttl: Option<Duration>,
}

/// This member's answer to a leader that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailsafeAnswer {
    /// It promises, and tells its WAL position if it knows it.
    Accepted(Option<Lsn>),
    /// Failsafe mode is off.
    Off,
    /// It leads itself, or may.
    RunningAsLeader,
    /// It knows another leader (W9).
    OtherLeader(MemberName),
}

/// A member's answer to this leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailsafeReply {
    /// It promised, and told its WAL position.
    Accepted(Option<Lsn>),
    /// It said something else.
    Refused(String),
    /// It did not answer in time.
    Silent(String),
}

/// The fence: the process that kills PostgreSQL when the lease ends and the agent cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FenceState {
    /// It holds no deadline, or does not run and is not needed.
    #[default]
    Disarmed,
    /// It holds the deadline.
    Armed,
    /// It has killed the server.
    Fired,
    /// It is needed, and cannot be started or told.
    Failed,
}

impl FenceState {
    /// As status documents, member keys and `list` have it, when there is something to say.
    pub fn told(self) -> Option<&'static str> {
        match self {
            FenceState::Disarmed => None,
            FenceState::Armed => Some("armed"),
            FenceState::Fired => Some("fired"),
            FenceState::Failed => Some("failed"),
        }
    }
}

/// The watchdog device (`ha.md` §19).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct WatchdogProgress {
    /// It is open and counts.
    pub active: bool,
    /// When it was last tried in vain.
    pub failed_at: Option<Moment>,
}

/// Divergence and rewind (`ha.md` §8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RewindState {
    /// Nothing to look at.
    #[default]
    Initial,
    /// The local WAL must be compared with the leader's; the last look that could not tell was then.
    Check {
        /// When the last comparison could not be made, and how many could not.
        undecided: Option<(Moment, u32)>,
    },
    /// What the control file of a stopped standby tells of is part of the leader's. Its WAL may go further: only replay
    /// tells how far, and until then nobody sends it any.
    FitsSoFar,
    /// It left the leader's.
    Needed,
    /// It did not.
    NotNeeded,
    /// pg_rewind succeeded; the next start shows it.
    Succeeded,
    /// pg_rewind failed for good.
    Failed,
}

/// The end of a leadership (`ha.md` §12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demotion {
    /// Which way.
    pub mode: DemotionMode,
    /// PostgreSQL has stopped.
    pub stopped: bool,
    /// Where the WAL ended, if it ended in good order.
    pub shutdown_lsn: Option<Lsn>,
    /// When the key was released, or known to be lost.
    pub released_at: Option<Moment>,
}

/// The end of the agent (`ha.md` §21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Since when.
    pub since: Moment,
    /// PostgreSQL has stopped by it, and where its WAL ended.
    pub stopped: Option<Option<Lsn>>,
    /// The stop failed: nothing more can be done.
    pub stop_failed: bool,
    /// Leave PostgreSQL running: this member never joined.
    pub leave_server: Option<i32>,
}

/// What an operator asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PendingOperation {
    /// Restart PostgreSQL.
    Restart {
        /// How long the start may take.
        timeout: Option<Duration>,
    },
    /// Copy the data directory anew.
    Reinitialize {
        /// Only from the leader.
        from_leader: bool,
        /// The long action under way is to be cancelled first.
        force: bool,
    },
}

impl PendingOperation {
    /// As operators are told of it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            PendingOperation::Restart { .. } => "restart",
            PendingOperation::Reinitialize { .. } => "reinitialize",
        }
    }
}

/// What is known of the synchronous standbys (`ha.md` §13.2).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SyncProgress {
    /// `synchronous_standby_names` that the agent manages; `None` while it manages none.
    pub managed: Option<String>,
    /// The value that this postmaster is known to obey: sessions show another one earlier than commits wait for
    /// it (W2).
    pub obeyed: Option<String>,
    /// The value that the confirmations below are for.
    pub names: Option<String>,
    /// The flush position once that value was in effect in every walsender: who has it has everything that
    /// was acknowledged before.
    pub position: Option<Lsn>,
    /// The standbys that have confirmed it.
    pub confirmed: BTreeSet<MemberName>,
    /// What became of a write of `/sync` is not known, or the lock is new and other agents may have sent one: it may
    /// arrive yet, over what `/sync` holds now.
    pub doubtful: bool,
}

impl Memory {
    /// Why, however far its WAL goes, it is not what clients were told: the rule, and what shows it. An operator who
    /// chooses this member all the same has it: it may be all that is left.
    pub(crate) fn is_no_candidate(&self) -> Option<(&'static str, String)> {
        if self.chosen {
            return None;
        }
        if let Some((timeline, at)) = self.left_history {
            let text =
                format!("the cluster left timeline {timeline} at {at}, and my WAL goes on there");
            return Some(("ha.md §10.2.2", text));
        }
        if let Some(name) = &self.superseded_by {
            // W1, for one that has been started as a standby. Whoever won after it named it in /sync as one of those that may
            // be synchronous; its own WAL may be on a timeline of the number that the winner's has, and longer.
            let text = format!(
                "I was a primary, the one in /sync is {name}, and my WAL was not compared with that of a primary since"
            );
            return Some(("ha.md W1", text));
        }
        let left = self.left_the_leader() || self.found_diverged;
        left.then(|| {
            let text = "my WAL left the last leader's: however much of it there is, it is not what clients were told";
            ("ha.md §8.4", text.to_owned())
        })
    }

    pub(crate) fn left_the_leader(&self) -> bool {
        matches!(self.rewind, RewindState::Needed | RewindState::Failed)
    }
}

impl SyncProgress {
    pub(crate) fn obeys(&self, names: &str) -> bool {
        self.obeyed.as_deref() == Some(names)
    }
}

/// What is known of the replication slots (`ha.md` §18).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SlotsProgress {
    /// When members were last seen, by slot name; the leader's.
    pub seen: BTreeMap<String, Moment>,
    /// A change failed; no other before then.
    pub retry_at: Option<Moment>,
    /// Databases in whose logical slots something is being changed.
    pub working_in: BTreeSet<String>,
    /// Databases where that failed; not again before then.
    pub failed_in: BTreeMap<String, Moment>,
    /// Logical slots of this standby that cannot be moved, because WAL that they need is gone.
    pub stuck: BTreeSet<String>,
    /// Slots that were copied, or could not be; not again before then.
    pub copy_at: BTreeMap<String, Moment>,
    /// Logical slots of this standby that may lack catalog rows if they were used after a promotion, with the
    /// `catalog_xmin` of the primary's slot when the primary began to hold rows back for this standby.
    pub unready: BTreeMap<String, Option<u64>>,
    /// The run of the standby that `unready` is of.
    pub unready_in: Option<PostmasterIdentity>,
    /// The primary is being asked.
    pub comparing: bool,
    /// When it was asked last.
    pub compared_at: Option<Moment>,
    /// `hot_standby_feedback` must be on.
    pub hot_standby_feedback: bool,
}

impl SlotsProgress {
    /// Nothing is under way there, and the last failure is long enough ago.
    pub(crate) fn may_work_in(&self, database: &str, now: Moment) -> bool {
        !self.working_in.contains(database)
            && self.failed_in.get(database).is_none_or(|at| now >= *at)
    }
}

/// The long action under way.
#[derive(Clone, Debug, PartialEq)]
pub struct JobInFlight {
    /// Which.
    pub job: Job,
    /// Since when.
    pub since: Moment,
    /// It was told to end.
    pub cancelling: bool,
    /// Stop: no client is left to whom a commit could be acknowledged.
    pub no_backends: bool,
    /// Stop: the shutdown checkpoint is written, the postmaster still lives.
    pub shutdown_lsn: Option<Lsn>,
    /// How far it is, for people.
    pub progress: Option<String>,
}

/// What the members answered.
pub type Peers = BTreeMap<MemberName, Option<PeerReport>>;

/// A member's answer to `GET /patroni` (`rest-api.md` §10).
#[derive(Clone, Debug, PartialEq)]
pub struct PeerReport {
    /// It does not accept writes.
    pub in_recovery: bool,
    /// The further of received and replayed; zero on a primary.
    pub position: Lsn,
    /// Its timeline.
    pub timeline: Option<Timeline>,
    /// Its tags.
    pub tags: Tags,
    /// Its watchdog is required and does not work.
    pub watchdog_failed: bool,
    /// It promised somebody not to take over, or stays primary by such promises.
    pub failsafe_active: bool,
}

impl<'a> Situation<'a> {
    /// This member's name.
    pub(crate) fn me(&self) -> &'a MemberName {
        &self.local.name
    }

    /// The status query's answer.
    pub(crate) fn wal(&self) -> Option<&'a WalStatus> {
        self.server.wal.as_ref()
    }

    /// Whether the server is a primary (`ha.md` §1.4): what it says, or, when it says nothing, what it
    /// was. A server that was promoted a moment ago counts (W15).
    pub(crate) fn is_primary(&self) -> bool {
        match self.wal() {
            Some(wal) => wal.is_primary(),
            None => self.server.process.is_alive() && self.memory.role.accepts_writes(),
        }
    }

    /// A server that is no primary may become one yet, since it says nothing or was asked to: its lock is not given up before
    /// it is known, or stopped.
    pub(crate) fn may_be_promoted(&self) -> bool {
        self.wal().is_none() || self.is_being_promoted()
    }

    /// A standby that was asked to promote, by this agent or one before it, and has not come to the end of it.
    pub(crate) fn is_being_promoted(&self) -> bool {
        let asked = self.memory.role == Role::Promoted || self.server.promoting;
        asked && self.wal().is_some_and(|wal| !wal.is_primary())
    }

    /// Synchronous replication is wanted.
    pub(crate) fn wants_sync(&self) -> bool {
        self.global.synchronous_mode != SynchronousMode::Off
    }

    /// Synchronous replication is wanted and published: only members of `/sync` may be promoted.
    pub(crate) fn sync_is_active(&self, cluster: &Cluster) -> bool {
        self.wants_sync() && cluster.sync.is_active()
    }

    /// A candidate needs the votes of `/sync`'s members. What was committed by quorum stays so for as long as `/sync`
    /// says it, also after the mode was switched: any one of its members alone may lack a commit then.
    pub(crate) fn needs_votes(&self, cluster: &Cluster) -> bool {
        self.sync_is_active(cluster)
            && (self.global.synchronous_mode == SynchronousMode::Quorum || cluster.sync.quorum > 0)
    }

    /// The local WAL is known to have left the leader's.
    pub(crate) fn left_the_leader(&self) -> bool {
        self.memory.left_the_leader()
    }

    /// Commits wait as the `synchronous_standby_names` that sessions show say.
    pub(crate) fn names_are_obeyed(&self) -> bool {
        self.wal()
            .is_some_and(|wal| self.memory.sync.obeys(&wal.synchronous_standby_names))
    }

    /// The members except this one.
    pub(crate) fn others(&self, cluster: &'a Cluster) -> impl Iterator<Item = &'a Member> {
        let me = self.me();
        cluster
            .members
            .iter()
            .filter(move |member| member.name != *me)
    }

    /// Divergence can be repaired here (`ha.md` §8.1).
    pub(crate) fn can_repair_divergence(&self) -> bool {
        self.can_rewind() || self.local.remove_on_divergence
    }

    /// pg_rewind can be used, as far as is known.
    pub(crate) fn can_rewind(&self) -> bool {
        let rewindable = self
            .server
            .control
            .as_ref()
            .is_none_or(|control| control.rewindable);
        self.local.use_pg_rewind && rewindable
    }
}
