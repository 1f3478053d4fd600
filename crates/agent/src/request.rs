//! What others may ask of the machine, over a channel; each request carries the way for its answer.

use primacy_ha::{FailsafeAnswer, FailsafeLeader};
use primacy_model::{Observation, ScheduledRestart};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A request to the machine's task.
#[derive(Debug)]
pub enum Request {
    /// Run a pass now: something in the DCS was changed through this member.
    WakeUp,
    /// The store was read beside the loop.
    StoreRead,
    /// Look at the server now; answered with the new observation once it is taken. Requests that come in
    /// while a look is under way share the next one.
    Observe {
        /// The answer.
        reply: oneshot::Sender<Arc<Observation>>,
    },
    /// Restart PostgreSQL (`rest-api.md` §8.4).
    Restart {
        /// The filters, as given.
        filters: RestartFilters,
        /// How long the start may take; `primary_start_timeout` when absent.
        timeout: Option<Duration>,
        /// The answer, once it is over.
        reply: oneshot::Sender<RestartAnswer>,
    },
    /// Schedule a restart. Refused with `Err` when one is scheduled already, or PostgreSQL does not answer.
    ScheduleRestart {
        /// What was scheduled; `postmaster_start_time` is filled in by the machine.
        restart: ScheduledRestart,
        /// The answer.
        reply: oneshot::Sender<Result<(), NotScheduled>>,
    },
    /// Forget the scheduled restart; answered with whether there was one.
    DeleteScheduledRestart {
        /// The answer.
        reply: oneshot::Sender<bool>,
    },
    /// Copy the data directory anew (`rest-api.md` §8.6).
    Reinitialize {
        /// Cancel the running long action first.
        force: bool,
        /// Copy from the leader only.
        from_leader: bool,
        /// The answer: started, or why not (the exact text of the specification).
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Re-read the local configuration, as SIGHUP does.
    Reload,
    /// A primary that cannot reach the DCS asks whether it may stay (`rest-api.md` §7.4).
    Failsafe {
        /// The asking leader.
        leader: FailsafeLeader,
        /// The answer.
        reply: oneshot::Sender<FailsafeAnswer>,
    },
}

/// Conditions of a restart (`rest-api.md` §8.4).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RestartFilters {
    /// Only in this role.
    pub role: Option<String>,
    /// Only if the running version is below this one, as `server_version_num`.
    pub below_version: Option<u32>,
    /// Only if a restart is pending.
    pub pending: bool,
}

/// How a restart ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestartAnswer {
    /// `restarted successfully`
    Restarted,
    /// `restart conditions are not satisfied`
    ConditionsNotMet,
    /// `<action> already in progress`
    Busy(String),
    /// `postgres is still starting`
    StillStarting,
    /// `restart failed`
    Failed,
}

/// Why a restart is not scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotScheduled {
    /// Another one is already.
    Already,
    /// PostgreSQL does not answer: nobody could tell later whether it was restarted meanwhile.
    NoAnswer,
}
