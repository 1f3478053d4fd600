//! A store in memory, for tests: leases lapse by tokio's clock, and faults can be switched on.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use primacy_model::Session;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::{Outcome, Renewal, Snapshot, Store, StoreError, WatchEvent, Write};

/// One client of a store in memory. Needs a tokio runtime with time; paused time works.
pub struct MemoryStore {}

/// What goes wrong between one client and the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Every call fails at once, definitely.
    Unavailable,
    /// Every request is carried out, and its answer takes so long.
    Slow(Duration),
    /// Every request is carried out, and no answer comes.
    AnswerLost,
    /// No request arrives, and the client cannot tell.
    RequestLost,
}

impl MemoryStore {
    /// An empty store and its first client.
    pub fn new() -> Arc<Self> {
        unimplemented!()
    }

    /// Another client of the same store, without faults.
    pub fn client(&self) -> Arc<Self> {
        unimplemented!()
    }

    /// From now on this goes wrong for this client.
    pub fn set_fault(&self, _fault: Fault) {
        unimplemented!()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn read(&self, _prefix: &str, _deadline: Instant) -> Result<Snapshot, StoreError> {
        unimplemented!()
    }
    async fn write(&self, _write: Write, _deadline: Instant) -> Result<Outcome, StoreError> {
        unimplemented!()
    }
    async fn grant_lease(&self, _ttl: Duration, _deadline: Instant) -> Result<Session, StoreError> {
        unimplemented!()
    }
    async fn renew_lease(
        &self,
        _lease: &Session,
        _deadline: Instant,
    ) -> Result<Renewal, StoreError> {
        unimplemented!()
    }
    async fn revoke_lease(&self, _lease: &Session, _deadline: Instant) -> Result<(), StoreError> {
        unimplemented!()
    }
    async fn delete_prefix(&self, _prefix: &str, _deadline: Instant) -> Result<(), StoreError> {
        unimplemented!()
    }
    fn watch(&self, _prefix: &str) -> mpsc::Receiver<WatchEvent> {
        unimplemented!()
    }
    fn kind(&self) -> &'static str {
        "memory"
    }
}
