//! The policy of high availability: [`decide`], a pure function from a [`Situation`] to a [`Decision`], and
//! the [`Machine`] around it, which owns the rhythm. Neither does I/O, reads a clock or draws a random
//! number, so that the agent, the simulator and the tables of tests run the very same code.
//!
//! A pass of the machine gathers a situation, asks `decide` for the *one* next step, has it performed, and
//! looks again, until there is nothing to do. "Acquired the lock" is never followed by "so promote" in the
//! code: the next look sees a replica that owns the lock.

pub mod citus;
mod decide;
mod decision;
mod describe;
mod machine;
mod member;
mod situation;
mod time;

pub use decide::decide;
pub use decide::history::merge as merge_history;
pub use decide::slots::{LogicalSlot, LogicalSlotChange, SlotChange};
pub use decision::{
    Address, Decision, DemotionMode, Exit, Job, Over, Reason, Remote, Source, Step, StopMode,
    StopReason, Upstream,
};
pub use machine::{
    Action, Answer, CallbackEvent, Event, FenceOrder, JobProgress, JobReport, JournalEntry,
    LogLevel, Machine, OperatorRequest, PrimarySlots, RenewalResult, StepOutcome, StoreKey,
};
pub use situation::{
    Demotion, Failsafe, FailsafeAnswer, FailsafeLeader, FailsafePromise, FailsafeReply,
    FailsafeVerdict, FenceState, JobInFlight, Lease, Local, Memory, PeerReport, Peers,
    PendingOperation, RewindState, Shutdown, Situation, SlotsProgress, StoreView, SyncProgress,
    WatchdogProgress,
};
pub use time::Moment;
