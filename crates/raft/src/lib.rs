//! The embedded store: a Raft group inside the agents

mod client;
mod config;
mod error;
mod node;

pub use client::RaftClient;
pub use config::{RaftConfig, Timings, node_id};
pub use error::RaftError;
pub use node::{NodeStatus, RaftNode};
