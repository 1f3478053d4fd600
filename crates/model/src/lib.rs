//! The vocabulary of a cluster: who its members are, what the DCS says of them, what one PostgreSQL
//! server looks like from outside, and the JSON in which all of this travels.
//!
//! Nothing here does I/O, reads a clock or draws a random number. Parsing follows one rule: what comes
//! from the DCS was written by some version of some agent, so a value that cannot be understood is
//! treated as absent where Patroni does so (`dcs.md` §2), and never makes a read fail.

mod cluster;
mod document;
mod failover;
mod group;
mod history;
mod journal;
mod lsn;
mod member;
mod name;
mod probes;
mod role;
mod server;
mod slot;
mod status;
mod sync;
mod tags;
mod time;

pub use cluster::{Cluster, DynamicConfig, Initialize, Leader, Session, Version};
pub use document::{cluster_document, json_line};
pub use failover::{FailoverRequest, ScheduledAt};
pub use group::CitusGroup;
pub use history::{History, HistoryEntry};
pub use journal::{JournalKind, JournalPeer, JournalReason, JournalRecord};
pub use lsn::{Lsn, ParseLsnError};
pub use member::{
    ConnUrl, Member, MemberData, PendingRestart, PendingRestartReasons, ReplicationState,
    ScheduledRestart,
};
pub use name::{MemberName, SystemIdentifier, Timeline};
pub use probes::Probes;
pub use role::{Role, State};
pub use server::{
    ControlData, ControlState, DataDirectory, Observation, PostmasterIdentity, Process, Readiness,
    ReplicationSlot, SlotKind, WalReceiver, WalSender, WalStatus,
};
pub use slot::slot_name;
pub use status::Status;
pub use sync::SyncState;
pub use tags::Tags;
pub use time::parse_time;

/// The version that this build publishes as its own in member keys (`ha.md` §25.1): digits and dots,
/// at least `4.1.4`, so that Patroni members treat it as a peer of the 4.1 line.
pub const PATRONI_VERSION: &str = "4.1.5";
