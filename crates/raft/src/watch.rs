//! Changes, as the store's contract has them.

use primacy_dcs::{Entry, WatchEvent};
use primacy_model::{Session, Version};

use crate::machine::{Event, Item};

impl Event {
    pub(crate) fn key(&self) -> &str {
        match self {
            Event::Put(key, _) | Event::Delete(key) => key,
        }
    }
}

/// What a watcher is told of a change.
pub(crate) fn event(change: &Event) -> WatchEvent {
    match change {
        Event::Put(key, item) => WatchEvent::Put(entry(key.clone(), item.clone())),
        Event::Delete(key) => WatchEvent::Delete { key: key.clone() },
    }
}

/// A key, as the contract has it.
pub(crate) fn entry(key: String, item: Item) -> Entry {
    Entry {
        key,
        value: item.value.0,
        version: Version(item.version),
        lease: item.lease.map(Session),
    }
}
