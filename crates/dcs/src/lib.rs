//! The distributed configuration store: the contract ([`Store`]), the cluster view over any store
//! ([`ClusterStore`]), and the stores themselves: [`Etcd3`], and [`MemoryStore`] for tests.

mod cluster;
pub mod conformance;
mod etcd3;
#[cfg(test)]
mod fuzz;
mod memory;
mod mirror;
mod store;

pub use cluster::{ClusterStore, Expected, Subject};
pub use etcd3::{Discovery, Etcd3, Etcd3Config, Etcd3Error};
pub use memory::{Fault, MemoryStore};
pub use mirror::Mirror;
pub use store::{
    Change, Condition, Credentials, Entry, Outcome, Renewal, Snapshot, Store, StoreError,
    WatchEvent, Write,
};
