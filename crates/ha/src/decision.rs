use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use primacy_model::{ConnUrl, Lsn, MemberName, SyncState, SystemIdentifier, Timeline, Version};

use crate::decide::slots::{LogicalSlot, LogicalSlotChange, SlotChange};
use crate::machine::LogLevel;
use crate::time::Moment;

/// One next step and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What to do.
    pub step: Step,
    /// The rules that led here, with the values they compared, in the order in which they were applied.
    pub reasons: Vec<Reason>,
    /// The pass in one sentence, in Patroni's words where it has some: log lines are matched on it.
    pub outcome: String,
    /// What else the log gets, in Patroni's words: alerts are matched on these, too (`process.md`).
    pub said: Vec<(LogLevel, String)>,
}

/// A rule that had a say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Where the rule is written down: `ha.md §10.2.1`.
    pub rule: &'static str,
    /// What it compared and what came of it.
    pub text: String,
}

/// What to do next. Each step is small, and is looked at again after it was performed.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing until the next pass.
    Wait,
    /// Nothing until then, at the latest.
    WaitUntil(Moment),
    /// Ask these members for their status (name to API address), then decide again.
    AskPeers(BTreeMap<MemberName, String>),
    /// The leader key names me, and I hold no lease: make it hang on mine.
    AdoptLease,
    /// Create the leader key; if that succeeds, change `/failover`.
    AcquireLeader {
        /// The version that `/failover` must still have, and its new value.
        failover: Option<(Version, String)>,
    },
    /// Delete the leader key, having told this position in `/status`.
    ReleaseLeader {
        /// Position to tell.
        optime: Option<Lsn>,
    },
    /// Create an empty `/initialize`.
    ClaimInitialize,
    /// Write `/initialize`.
    WriteInitialize {
        /// The cluster's system identifier.
        identifier: SystemIdentifier,
        /// What may be there before.
        over: Over,
    },
    /// The bootstrap failed: give the claim in `/initialize` up, move the data directory aside, end.
    CancelBootstrap,
    /// The data directory holds what an earlier agent's bootstrap left: stop it, move it aside.
    AbandonBootstrap,
    /// The bootstrap is over: remove its marker.
    ForgetBootstrap,
    /// Write the dynamic configuration that this member runs with to `/config` if the key still has this version;
    /// `None`: if there is none.
    WriteConfig(Option<Version>),
    /// Write the empty request to `/failover` if it still has this version.
    ClearFailover(Version),
    /// Write `/sync`; its `version` is what must be there now, `None` that the key must be absent.
    WriteSync(SyncState),
    /// Delete `/sync` if it still has this version.
    DeleteSync(Version),
    /// Set `synchronous_standby_names`, and wait until it is in effect; `None` returns to the user's own
    /// value.
    SetSynchronousStandbyNames(Option<String>),
    /// Bring `/history` up to this, the current timeline.
    WriteHistory(Timeline),
    /// Create, drop and advance replication slots.
    ChangeSlots(Vec<SlotChange>),
    /// Create or advance logical slots of one database in the background; nothing but the end of the session
    /// limits it.
    ChangeLogicalSlots {
        /// Which database.
        database: String,
        /// What to do there.
        changes: Vec<LogicalSlotChange>,
    },
    /// Ask the primary, in the background, what it holds back for logical slots.
    CompareLogicalSlots {
        /// The primary.
        source: Source,
        /// The physical slot there that this member's WAL comes through.
        physical: String,
        /// The logical slots.
        logical: Vec<String>,
    },
    /// Make the running standby follow this.
    Follow(Upstream),
    /// Resume a replay that PostgreSQL paused.
    ResumeReplay,
    /// Make a checkpoint in the background: followers may rewind only after it (`ha.md` §8.6).
    Checkpoint,
    /// Open the watchdog device, with this timeout.
    ActivateWatchdog {
        /// Whole seconds.
        timeout: Duration,
    },
    /// Publish that this member wants to leave synchronous replication.
    WithdrawFromSync,
    /// Begin a long action.
    StartJob(Job),
    /// Cancel the long action under way.
    CancelJob,
    /// End the process.
    Exit(Exit),
}

/// What a write of `/initialize` may take the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Nothing: somebody else may be writing another one.
    Nothing,
    /// This member's claim to the bootstrap.
    OwnClaim,
    /// Whatever is there.
    Anything,
}

/// How the process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code.
    pub code: i32,
    /// Why, for the last log line.
    pub reason: String,
}

/// A long action: at most one is under way (`ha.md` §24).
#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    /// initdb or a custom bootstrap, and the first start.
    Bootstrap,
    /// Copy the remote primary and follow it: the first member of a new standby cluster.
    BootstrapStandbyLeader {
        /// The remote primary.
        upstream: Upstream,
    },
    /// Roles, hook: what follows the first start of a new cluster.
    PostBootstrap,
    /// Fill the empty data directory from a member, or by a method that needs none.
    CreateReplica {
        /// Whom to copy; `None` leaves only methods without a source.
        source: Option<Source>,
        /// Stop PostgreSQL and wipe the data directory first: an operator asked for it, or the data
        /// directory cannot follow the leader.
        reinitialize: bool,
        /// Only `basebackup`.
        basebackup_only: bool,
    },
    /// Start as a standby.
    Start {
        /// What to follow.
        upstream: Upstream,
    },
    /// Start as a primary: no timeline is begun.
    StartPrimary {
        /// How long it may take before another member takes over.
        timeout: Duration,
    },
    /// Let PostgreSQL recover in single-user mode.
    CrashRecovery,
    /// Find out whether the local WAL left the leader's; if it did, keep that in mind for agents to come.
    CheckDivergence {
        /// The primary to compare with.
        source: Source,
    },
    /// pg_rewind.
    Rewind {
        /// The primary to rewind to.
        source: Source,
        /// It publishes that its checkpoint after the promotion was made.
        checkpoint_confirmed: bool,
    },
    /// Copy logical slots from the primary: their files can be put in place only while the server is stopped.
    CopyLogicalSlots {
        /// The primary.
        source: Source,
        /// Which.
        slots: Vec<LogicalSlot>,
        /// What to follow afterwards.
        upstream: Box<Upstream>,
    },
    /// Stop and start.
    Restart {
        /// As a standby of this; `None` as a primary.
        upstream: Option<Upstream>,
        /// How long the start may take.
        timeout: Duration,
    },
    /// Promote.
    Promote,
    /// Stop.
    Stop {
        /// How.
        mode: StopMode,
        /// CHECKPOINT first.
        checkpoint: bool,
        /// When to become rougher.
        timeout: Option<Duration>,
        /// What for.
        reason: StopReason,
    },
}

impl Job {
    /// The name that REST answers carry: `<name> already in progress` (`rest-api.md` §8.6).
    pub fn name(&self) -> String {
        match self {
            Job::Bootstrap => "bootstrap".into(),
            Job::BootstrapStandbyLeader { .. } => "bootstrap_standby_leader".into(),
            Job::PostBootstrap => "post_bootstrap".into(),
            Job::CreateReplica {
                reinitialize: true, ..
            } => "reinitialize".into(),
            Job::CreateReplica {
                source: Some(source),
                ..
            } => format!("bootstrap from {source}"),
            Job::CreateReplica { source: None, .. } => "bootstrap without leader".into(),
            Job::Start { .. } => "restarting after failure".into(),
            Job::StartPrimary { .. } => "starting primary after failure".into(),
            Job::CrashRecovery => "doing crash recovery in a single user mode".into(),
            Job::CheckDivergence { .. } => "checking for divergence".into(),
            Job::Rewind { source, .. } => format!("running pg_rewind from {source}"),
            Job::CopyLogicalSlots { .. } => "copy_logical_slots".into(),
            Job::Restart { .. } => "restart".into(),
            Job::Promote => "promote".into(),
            Job::Stop { reason, .. } => match reason {
                StopReason::Demotion(DemotionMode::Graceful) => "switchover: demote".into(),
                StopReason::Demotion(DemotionMode::DemoteCluster) => {
                    "demoting to a standby cluster".into()
                }
                StopReason::Demotion(_) => "demote".into(),
                StopReason::Shutdown => "shutdown".into(),
                StopReason::StaleData => "stop".into(),
            },
        }
    }
}

/// What a standby follows.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Upstream {
    /// Nothing: the archive only, or nobody leads.
    #[default]
    Nobody,
    /// A member.
    Member {
        /// Its name.
        name: MemberName,
        /// Where it is.
        connection: ConnUrl,
    },
    /// The primary of another cluster, which this standby cluster follows (`ha.md` §16).
    Remote(Remote),
}

/// Where a server is that may be outside of the cluster, in libpq's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Host, or several of them, separated by commas.
    pub host: String,
    /// Port of them all, or one for each, separated by commas.
    pub port: String,
    /// Database, when given.
    pub database: Option<String>,
}

impl From<ConnUrl> for Address {
    fn from(url: ConnUrl) -> Self {
        Address {
            host: url.host,
            port: url.port.to_string(),
            database: url.database,
        }
    }
}

/// The server outside the cluster that a standby cluster follows.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Remote {
    /// Where it is, one host or several; `None` when only the archive is read.
    pub connection: Option<Address>,
    /// The slot to stream through, by the name that the remote side has it under.
    pub slot: Option<String>,
    /// `recovery_min_apply_delay`.
    pub apply_delay: Option<String>,
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Upstream::Nobody => f.write_str("nobody"),
            Upstream::Member { name, .. } => name.fmt(f),
            Upstream::Remote(Remote {
                connection: Some(connection),
                ..
            }) => write!(f, "the remote {}:{}", connection.host, connection.port),
            Upstream::Remote(_) => f.write_str("the archive"),
        }
    }
}

/// Another server, to copy or to compare with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What it is called in log and REST answers: `leader 'pg1'`.
    pub name: String,
    /// Where it is.
    pub connection: Address,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// PostgreSQL's shutdown modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Sessions end, the shutdown checkpoint is written, standbys get all WAL.
    Fast,
    /// Everything ends at once; crash recovery at the next start.
    Immediate,
}

/// What a stop is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The leadership ends.
    Demotion(DemotionMode),
    /// The agent ends.
    Shutdown,
    /// The data directory is gone or unreadable under the running server.
    StaleData,
}

/// The ways to end a leadership (`ha.md` §12.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DemotionMode {
    /// Switchover: everything reaches the candidates, then the key is released.
    Graceful,
    /// Cannot stay: the key is released so that another takes over now.
    Immediate,
    /// The key is lost already.
    ImmediateNoLock,
    /// The store is out of reach: nothing can be told to anybody.
    Offline,
    /// The cluster becomes a standby cluster: the key stays here, the server goes on as standby leader.
    DemoteCluster,
}

impl DemotionMode {
    /// How PostgreSQL is stopped.
    pub fn stop_mode(self) -> StopMode {
        match self {
            DemotionMode::Graceful | DemotionMode::Offline | DemotionMode::DemoteCluster => {
                StopMode::Fast
            }
            DemotionMode::Immediate | DemotionMode::ImmediateNoLock => StopMode::Immediate,
        }
    }

    /// Whether the leader key is deleted once PostgreSQL has stopped.
    pub fn releases(self) -> bool {
        matches!(self, DemotionMode::Graceful | DemotionMode::Immediate)
    }
}
