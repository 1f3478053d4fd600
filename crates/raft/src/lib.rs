//! The embedded store: a Raft group inside the agents.

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
pub use config::{RaftConfig, Timings, node_id};
pub use error::RaftError;
pub use node::{NodeStatus, RaftNode};

#[cfg(test)]
mod tests;
