//! What the world reports to the machine.

use std::collections::BTreeMap;
use std::time::Duration;

use primacy_model::{
    Cluster, Lsn, MemberData, MemberName, Observation, PendingRestart, PostmasterIdentity,
    ScheduledRestart,
};

use crate::situation::{FailsafeLeader, FailsafeReply, FenceState, Local, Peers};
use crate::time::Moment;

/// What the world reports.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// The cluster was read, or could not be read.
    ClusterRead(Result<Cluster, String>),
    /// The store says that the last view of the cluster still holds; only where that was asked for.
    ClusterUnchanged,
    /// The cluster as the watch of the store tells, which has told everything: members and `/status` may differ from the
    /// last view, nothing else does. Only where that was asked for.
    ClusterFollowed(Cluster),
    /// The server was looked at.
    Observed {
        /// When that look was asked for.
        sent: Moment,
        /// What was seen.
        observation: Observation,
    },
    /// The members were asked.
    PeersAnswered(Peers),
    /// The lease was to be renewed.
    Renewed {
        /// When the request was sent.
        sent: Moment,
        /// What came of it.
        result: RenewalResult,
    },
    /// The members were asked to accept this leader.
    FailsafeAnswered {
        /// When.
        sent: Moment,
        /// Each member's answer.
        answers: BTreeMap<MemberName, FailsafeReply>,
    },
    /// A leader without a store asks this member to accept it.
    FailsafeAsked {
        /// For the answer.
        id: u64,
        /// Who asks.
        leader: FailsafeLeader,
    },
    /// The step was performed.
    StepDone(StepOutcome),
    /// The checkpoint in the background ended.
    CheckpointDone(Result<(), String>),
    /// The work on the logical slots of a database ended.
    LogicalSlotsChanged {
        /// Which database.
        database: String,
        /// What failed.
        failed: Option<String>,
        /// Slots whose WAL is gone.
        stuck: Vec<String>,
    },
    /// The primary was asked what it holds back.
    LogicalSlotsCompared(Result<PrimarySlots, String>),
    /// News from the job.
    JobProgress(JobProgress),
    /// The job ended.
    JobDone(JobReport),
    /// The postmaster died, or somebody started one, or it no longer answers, or answers again.
    PostmasterChanged,
    /// What the fence says of itself, or that there is none.
    Fence(FenceState),
    /// A key of the cluster changed.
    StoreChanged(StoreKey),
    /// The local configuration was read again.
    Configured(Box<Local>),
    /// PostgreSQL's parameters were compared after a reload or a start.
    PendingRestart(Option<PendingRestart>),
    /// An operator asks.
    Operator(OperatorRequest),
    /// The process was told to end.
    Terminate,
}

/// What became of a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenewalResult {
    /// The key is mine, for another ttl since the request was sent.
    Renewed,
    /// The key is not mine any more.
    Lapsed,
    /// Nobody knows.
    Failed(String),
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// Done.
    Done,
    /// Refused for good: a condition did not hold.
    Refused,
    /// Following takes a restart.
    NeedsRestart,
    /// It failed, or nobody knows.
    Failed(String),
}

/// What a primary holds back: each slot's `catalog_xmin`, `None` where it has none.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PrimarySlots {
    /// Of the physical slot of the standby that asks; `None` also when there is no such slot.
    pub physical: Option<u64>,
    /// Of the logical slots that exist, by name.
    pub logical: BTreeMap<String, Option<u64>>,
}

/// News from the job in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobProgress {
    /// The postmaster lives; it is not ready yet.
    Spawned(PostmasterIdentity),
    /// The shutdown checkpoint is written, while the postmaster still lives.
    ShutdownCheckpoint(Lsn),
    /// No client is left to whom a commit could be acknowledged.
    NoBackends,
    /// For people: how far it is.
    Text(String),
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq)]
pub enum JobReport {
    /// Well.
    Done,
    /// PostgreSQL was started.
    Started {
        /// It accepts connections.
        ready: bool,
        /// Parameters that had to be raised for it.
        pending_restart: Option<PendingRestart>,
    },
    /// PostgreSQL was stopped.
    Stopped {
        /// Where its WAL ended, if it ended in good order.
        shutdown_lsn: Option<Lsn>,
    },
    /// The local WAL was compared: it left the leader's, or not, or nobody knows.
    Compared(Option<bool>),
    /// pg_rewind could not be run now.
    RewindLater(String),
    /// pg_rewind failed for good.
    RewindFailed(String),
    /// The `pre_promote` hook forbade the promotion.
    PrePromoteFailed,
    /// It failed.
    Failed(String),
    /// It was cancelled.
    Cancelled,
}

/// Which key changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKey {
    /// `/leader`, with its new value.
    Leader(Option<String>),
    /// `/config`.
    Config,
    /// `/failover`.
    Failover,
    /// `/sync`.
    Sync,
    /// `/initialize`.
    Initialize,
    /// `members/<name>`, with its new value.
    Member(String, Option<Box<MemberData>>),
    /// Something may have been missed.
    Unknown,
    /// A key that nobody has to act on.
    Other,
}

/// What an operator asks of this member.
#[derive(Clone, Debug, PartialEq)]
pub enum OperatorRequest {
    /// Look again now.
    WakeUp,
    /// Restart PostgreSQL.
    Restart {
        /// For the answer.
        id: u64,
        /// Only in this role.
        role: Option<String>,
        /// Only below this version, as `server_version_num`.
        below_version: Option<u32>,
        /// Only if a restart is pending.
        pending: bool,
        /// How long the start may take.
        timeout: Option<Duration>,
    },
    /// Copy the data directory anew.
    Reinitialize {
        /// For the answer.
        id: u64,
        /// Cancel what is under way.
        force: bool,
        /// Only from the leader.
        from_leader: bool,
    },
    /// Schedule a restart.
    ScheduleRestart {
        /// For the answer.
        id: u64,
        /// Which.
        restart: ScheduledRestart,
    },
    /// Forget the scheduled restart.
    DeleteScheduledRestart {
        /// For the answer.
        id: u64,
    },
}
