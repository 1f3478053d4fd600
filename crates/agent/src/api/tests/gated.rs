//! A store of which a test says what happens between a look at it and the writes that rely on the look.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use primacy_dcs::{MemoryStore, Outcome, Renewal, Snapshot, Store, StoreError, WatchEvent, Write};
use primacy_model::Session;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Tells of every read that was carried out, and keeps its answer back until it is let through.
pub(super) struct Gated {
    memory: Arc<MemoryStore>,
    reads: mpsc::Sender<oneshot::Sender<()>>,
}

/// The reads of a gated store.
pub(super) struct Reads(mpsc::Receiver<oneshot::Sender<()>>);

impl Gated {
    pub(super) fn new(memory: Arc<MemoryStore>) -> (Arc<Self>, Reads) {
        let (reads, told) = mpsc::channel(1);
        (Arc::new(Gated { memory, reads }), Reads(told))
    }
}

impl Reads {
    /// Waits for the next read, and has this happen before its answer is seen.
    pub(super) async fn then<T>(&mut self, meanwhile: impl Future<Output = T>) -> T {
        let open = self.0.recv().await.expect("nobody reads any more");
        let done = meanwhile.await;
        let _ = open.send(());
        done
    }
}

#[async_trait]
impl Store for Gated {
    async fn read(&self, prefix: &str, deadline: Instant) -> Result<Snapshot, StoreError> {
        let snapshot = self.memory.read(prefix, deadline).await;
        let (open, opened) = oneshot::channel();
        self.reads.send(open).await.expect("the test is over");
        opened.await.expect("the test is over");
        snapshot
    }

    async fn write(&self, write: Write, deadline: Instant) -> Result<Outcome, StoreError> {
        self.memory.write(write, deadline).await
    }

    async fn grant_lease(&self, ttl: Duration, deadline: Instant) -> Result<Session, StoreError> {
        self.memory.grant_lease(ttl, deadline).await
    }

    async fn renew_lease(&self, lease: &Session, deadline: Instant) -> Result<Renewal, StoreError> {
        self.memory.renew_lease(lease, deadline).await
    }

    async fn revoke_lease(&self, lease: &Session, deadline: Instant) -> Result<(), StoreError> {
        self.memory.revoke_lease(lease, deadline).await
    }

    async fn delete_prefix(&self, prefix: &str, deadline: Instant) -> Result<(), StoreError> {
        self.memory.delete_prefix(prefix, deadline).await
    }

    fn watch(&self, prefix: &str) -> mpsc::Receiver<WatchEvent> {
        self.memory.watch(prefix)
    }

    fn kind(&self) -> &'static str {
        self.memory.kind()
    }
}
