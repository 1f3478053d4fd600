//! One local PostgreSQL server, versions 12 to 18: look at it, start and stop it, write its files, make
//! it a replica, rewind it.
//!
//! Nothing here decides. Every operation is asked for by an agent, takes the policy it needs as
//! parameters, and ends by the deadline it was given, whatever the disk, the network or the server do.
//! An operation that breaks off leaves the server in a state that the next [`Server::observe`] shows.
//!
//! The server outlives the process that started it, and a second [`Server`] value, in another process,
//! takes it over without touching it.

mod archive;
mod bootstrap;
mod callbacks;
mod citus;
mod command;
mod conninfo;
mod control;
mod describe;
mod dsn;
mod error;
mod files;
mod follow;
#[cfg(test)]
mod fuzz;
mod history;
mod listening;
mod observe;
mod pgpass;
mod postmaster;
mod probe;
mod promoting;
mod recovery;
mod replica;
mod rewind;
mod same_wal;
mod server;
mod session;
mod settings;
mod slot_files;
mod slots;
mod start;
mod stop;
mod synchronous;
mod unfinished;
mod version;
mod wal;
mod wal_marker;
mod walsender_client;
mod wipe;

pub use bootstrap::{CustomBootstrap, Initialized};
pub use callbacks::{Callback, CallbackRunner};
pub use citus::{CitusDatabase, CitusNode, CitusSession};
pub use command::{CommandError, Until, withhold};
pub use conninfo::{Conninfo, ConninfoError};
pub use control::{ControlFile, parse_controldata};
pub use describe::{Description, describe};
pub use error::Error;
pub use follow::{FollowChange, RecoveryTarget};
pub use history::{HistoryLine, HistoryParseError, parse_history};
pub use observe::ObserveOptions;
pub use postmaster::{kill_leftovers, kill_now, postmaster_death};
pub use recovery::is_recovery_guc;
pub use replica::{BackupProgress, ReplicaRequest};
pub use rewind::{Divergence, LocalPosition, RewindOutcome, RewindSource, divergence};
pub use server::Server;
pub use session::SettingRow;
pub use settings::{
    Callbacks, Credentials, LocalAddress, ReplicaMethod, Secret, Settings, ToolOptions,
};
pub use slot_files::{SlotFile, SlotXmin};
pub use slots::{LogicalSlotSession, SlotError};
pub use start::{RaisedParameter, Spawning, StartRequest, Started, StartedState};
pub use stop::{StopEvent, StopMode, StopRequest, Stopped};
pub use version::{MAX_MAJOR, MIN_MAJOR};
pub use wal_marker::WalMarker;
pub use walsender_client::{SystemIdentity, WalsenderClient};
