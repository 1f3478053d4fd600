//! The distributed configuration store: the contract ([`Store`]), the cluster view over any store, and
//! the stores themselves.

mod store;

pub use store::{
    Change, Condition, Entry, Outcome, Renewal, Snapshot, Store, StoreError, WatchEvent, Write,
};
