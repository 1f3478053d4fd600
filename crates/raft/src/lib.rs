//! The embedded store: a Raft group inside the agents.
//!
//! Every member keeps the whole store, a map of some hundred keys, in memory (`machine`), and on its disk
//! the log and a snapshot it can be made from (`disk`). Requests go to the member that leads; a write is
//! answered when a majority has it on disk and the leader has applied it; a read when a majority has
//! confirmed that the leader still leads. Whoever is no member asks one ([`RaftClient`]).
//!
//! # Time, and the hazards in it
//!
//! A lease must never lapse before its time to live has passed since its last renewal began, and must lapse
//! soon after. The members' clocks differ, jump and stop, and the state must come out the same on all of
//! them. What can go wrong, and what is done:
//!
//! 1. *A member applies an entry later than another, looks at its own clock, and finds a lease lapsed that
//!    is alive elsewhere.* Applying never looks at a clock. Every command carries the time `at` which the
//!    leader proposes; the group's time is the latest `at` applied, and what lies before it has lapsed.
//! 2. *Somebody sets the wall clock.* The leader counts with the clock since boot, which nobody sets and
//!    which goes on while the machine is suspended. Only differences on one machine count (`clock`).
//! 3. *The leader changes, and the clock of the next one shows something else.* A leader's first entry
//!    (`Lead`) begins a *reign*: the group's time stands still where it was, goes on from there at the new
//!    leader's pace, and every lease gets its full time to live again, since nobody knows how much of it
//!    passed between two leaders. A lease may so live longer than its time, never shorter.
//! 4. *An old leader wakes up and proposes a time counted from its own reign, ahead of the present one:
//!    leases would lapse early.* Every command names the reign it was proposed under (the log index of its
//!    `Lead`), and does nothing in another.
//! 5. *The leader sleeps; a renewal waits in its socket while the lease lapses.* That renewal was not
//!    answered. Its owner counts from before it asked, and has stopped relying on the lease by then.
//! 6. *Rounding.* Times are whole milliseconds, rounded down, times to live rounded up, and a lease lapses
//!    strictly after its deadline.
//!
//! # Repetition
//!
//! 1. A leader dies before it answers. Has the write been applied?
//! 2. The request is sent again, to the next leader, under the same id. The state remembers the answers of
//!    requests that are still open, so it is applied once, and the second time answered as the first.
//! 3. When the deadline comes first, the outcome is unknown. Every later request of the same client says
//!    from where on its requests are open: a straggling copy of one that was given up does nothing.
//!
//! # Forgetting
//!
//! A member that comes back without its file is told of at the head of `join`.

mod client;
mod clock;
mod command;
mod config;
mod core;
mod disk;
mod error;
mod faults;
mod frame;
mod handshake;
mod join;
mod log;
mod machine;
mod message;
mod network;
mod node;
mod peers;
mod reign;
mod replica;
mod reports;
mod server;
mod store;
mod types;
mod watch;

pub use client::RaftClient;
pub use config::{RaftConfig, node_id};
pub use error::RaftError;
pub use node::{NodeStatus, RaftNode};

#[cfg(test)]
mod tests;
