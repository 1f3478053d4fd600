//! Scratch PostgreSQL servers, stores and agents for tests; never a normal dependency.
//!
//! What a test gets here is real: real servers, real stores, real processes that are really killed. Three promises:
//!
//! 1. Nothing survives a test. Every process carries a mark of the scratch directory that it belongs to
//!    ([`processes`]), and a scratch directory takes its processes with it ([`scratch`]).
//! 2. Tests do not get into each other's way. Ports are leased machine-wide ([`ports`]).
//! 3. No wait is a sleep. A wait has a condition, a deadline, and says what it saw last ([`wait`]).

pub mod account;
pub mod agent;
pub mod certificates;
mod citus;
pub mod client;
pub mod cluster;
pub mod disk;
pub mod etcd;
pub mod haproxy;
mod health;
pub mod http;
pub mod ledger;
pub mod network;
pub mod openapi;
pub mod patroni;
pub mod ports;
pub mod processes;
pub mod programs;
pub mod sample;
pub mod scratch;
pub mod settings;
pub mod sql;
pub mod store;
pub mod venv;
pub mod wait;
pub mod watchdog;
pub mod writer;

pub use account::Account;
pub use agent::Agent;
pub use client::Client;
pub use cluster::{ClusterBuilder, Implementation, StoreKind, TestCluster};
pub use disk::Disk;
pub use haproxy::HaProxy;
pub use ledger::Ledger;
pub use network::Network;
pub use nix::sys::signal::Signal;
pub use nix::unistd::Pid;
pub use sample::Sample;
pub use scratch::Scratch;
pub use venv::Venv;
pub use wait::wait_until;
pub use watchdog::WatchdogDevice;
pub use writer::{Target, Writer};
