//! What the shell must do for the machine.

use std::collections::BTreeMap;
use std::time::Duration;

use primacy_model::{MemberData, MemberName, Role, Status};
use serde_json::{Map, Value};

use super::JournalEntry;
use crate::decision::{Exit, Job, Step};
use crate::situation::{FailsafeAnswer, FailsafeLeader};
use crate::time::Moment;

/// The answer to an operator's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done, or was begun.
    Done,
    /// The conditions do not hold, or there is nothing to do.
    NotMet,
    /// Another long action is under way.
    Busy(String),
    /// Not done, and why.
    Refused(String),
    /// It was begun and did not come to its end in time.
    TimedOut,
    /// It failed.
    Failed,
}

/// What the fence is told: when to kill PostgreSQL's processes unless it is told otherwise before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceOrder {
    /// Never.
    Disarm,
    /// At this moment, whatever it was told before.
    Until(Moment),
    /// At this moment, or at an earlier one that an agent before this one told it for the same server.
    AtMost(Moment),
}

/// What the shell must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Read the cluster; answer with [`Event::ClusterRead`].
    ReadCluster {
        /// By then.
        deadline: Moment,
        /// If given, [`Event::ClusterUnchanged`] and [`Event::ClusterFollowed`] are as good an answer: the store says
        /// that its watch has told everything that was written since the last read. It must say so now, or have said so
        /// to the heartbeat within this time.
        followed_within: Option<Duration>,
    },
    /// Look at the server; answer with [`Event::Observed`].
    Observe {
        /// Now.
        sent: Moment,
        /// By then.
        deadline: Moment,
        /// Slots, too.
        slots: bool,
    },
    /// Ask the members; answer with [`Event::PeersAnswered`].
    AskPeers {
        /// Name to API address.
        members: BTreeMap<MemberName, String>,
    },
    /// Ask the members to accept this leader without a store (`POST /failsafe`), each at most twice; answer with
    /// [`Event::FailsafeAnswered`].
    AskFailsafe {
        /// Handed back in the answer.
        sent: Moment,
        /// By then.
        deadline: Moment,
        /// Name to API address.
        members: BTreeMap<MemberName, String>,
        /// What to tell them.
        leader: FailsafeLeader,
    },
    /// Answer a leader that asked this member.
    AnswerFailsafe {
        /// Which request.
        id: u64,
        /// The answer.
        answer: FailsafeAnswer,
    },
    /// Renew the lease of the leader key; answer with [`Event::Renewed`].
    Renew {
        /// The key was found to name this member, without a lease that is known here: one that is gone by now is not
        /// created.
        adopting: bool,
        /// Handed back in the answer.
        sent: Moment,
        /// By then.
        deadline: Moment,
    },
    /// Perform a step; answer with [`Event::StepDone`], or for those that run in the background with
    /// [`Event::CheckpointDone`], [`Event::LogicalSlotsChanged`], [`Event::LogicalSlotsCompared`].
    Perform {
        /// Which.
        step: Step,
        /// By then.
        deadline: Moment,
    },
    /// Begin a job; answer with [`Event::JobProgress`] and once with [`Event::JobDone`].
    StartJob(Job),
    /// Cancel the job; it still answers.
    CancelJob,
    /// SIGKILL PostgreSQL's processes at once. The lease is about to end.
    KillNow,
    /// Tell the fence, a process apart, when to do that.
    SetFence(FenceOrder),
    /// Have the watchdog device, which is active, begin to count anew, with this timeout.
    PingWatchdog {
        /// From now.
        timeout: Duration,
        /// The end of the lease, which the device must not outlast however late it hears this.
        until: Moment,
    },
    /// Close the watchdog device so that it resets nothing.
    DisableWatchdog,
    /// Keep no longer in mind that the WAL here left its leader's ([`Job::CheckDivergence`]).
    ForgetDivergence,
    /// Keep no longer in mind that the standby here was started over a primary's WAL.
    ForgetFormerPrimary,
    /// Publish the member key.
    PublishMember(Box<MemberData>),
    /// Write `/status`, if this member still leads.
    WriteStatus(Status),
    /// Write `/failsafe`, if this member still leads.
    WriteFailsafe(BTreeMap<MemberName, String>),
    /// Take over a new dynamic configuration.
    ApplyDynamic(Map<String, Value>),
    /// From now on `hot_standby_feedback` is forced on, or is as configured.
    ForceHotStandbyFeedback(bool),
    /// Run a callback.
    Callback(CallbackEvent, Role),
    /// Answer an operator.
    Reply {
        /// Which request.
        id: u64,
        /// The answer.
        answer: Answer,
    },
    /// Keep this; steps are logged, too.
    Journal(JournalEntry),
    /// Log this.
    Log(LogLevel, String),
    /// End the process.
    Exit(Exit),
}

/// Which callback (`ha.md` §23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackEvent {
    /// The server became ready.
    OnStart,
    /// It was stopped.
    OnStop,
    /// It became ready again.
    OnRestart,
    /// It was promoted or demoted.
    OnRoleChange,
}

/// How loud a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Someone must look.
    Error,
    /// Something degrades.
    Warning,
    /// Role or decision.
    Info,
    /// Details.
    Debug,
}
