//! The contract that every store keeps.
//!
//! A store is a flat map from keys to bytes with atomic conditional writes, leases, a consistent prefix
//! read, and a watch. Whoever calls it relies on four promises:
//!
//! 1. A write is applied at most once, and its answer is the truth: *done* and *condition failed* are
//!    definite. Everything else is an error, and the error says whether the write may have been applied.
//! 2. A read shows one instant, no older than the beginning of the call.
//! 3. A key that hangs on a lease is gone once the lease has lapsed, and a lease never lapses before its
//!    time to live has passed since the last renewal *began*.
//! 4. No call outlives its deadline.
//!
//! What is left to the caller: to count a lease from before the renewing request was sent, and to treat an
//! unknown outcome as neither success nor failure.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use primacy_model::{Session, Version};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A key-value store with compare-and-set, leases and a watch.
///
/// Keys are absolute paths without a trailing slash: `/service/demo/leader`.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Everything whose key begins with `prefix`, at one instant no older than the call.
    async fn read(&self, prefix: &str, deadline: Instant) -> Result<Snapshot, StoreError>;

    /// Applies one conditional write.
    async fn write(&self, write: Write, deadline: Instant) -> Result<Outcome, StoreError>;

    /// Applies `conditional` if its condition holds, and `always` whether it does or not; the answer is of the first. In
    /// one request, and at one instant, where the store can.
    ///
    /// # Errors
    /// Of either; the other one may have been applied all the same.
    async fn write_both(
        &self,
        conditional: Write,
        always: Write,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        let outcome = self.write(conditional, deadline).await;
        self.write(always, deadline).await?;
        outcome
    }

    /// Makes a lease that lapses `ttl` after its last renewal.
    async fn grant_lease(&self, ttl: Duration, deadline: Instant) -> Result<Session, StoreError>;

    /// Renews a lease.
    async fn renew_lease(&self, lease: &Session, deadline: Instant) -> Result<Renewal, StoreError>;

    /// Ends a lease and with it its keys. A lease that is gone already is a success.
    async fn revoke_lease(&self, lease: &Session, deadline: Instant) -> Result<(), StoreError>;

    /// Removes everything whose key begins with `prefix`.
    async fn delete_prefix(&self, prefix: &str, deadline: Instant) -> Result<(), StoreError>;

    /// Reports changes below `prefix` from about now on. The watch reconnects by itself; whenever it may
    /// have missed something it reports [`WatchEvent::Resync`]. Dropping the receiver ends it. A receiver
    /// that does not keep up loses events, and then gets a `Resync`.
    fn watch(&self, prefix: &str) -> mpsc::Receiver<WatchEvent>;

    /// Makes its requests as this user from now on, whom it logs in first. Stores that know no users ignore it.
    fn authenticate_as(&self, _user: Option<Credentials>) {}

    /// How the store is called in messages: `etcd3`, `raft`.
    fn kind(&self) -> &'static str;
}

/// A user of the store's own authentication. Not shown by `Debug`, for it holds a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Who.
    pub username: String,
    /// As the store knows it.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// The result of a prefix read.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Sorted by key.
    pub entries: Vec<Entry>,
    /// What the store as a whole was when it was read, where it counts that; see [`Renewal::Renewed`].
    pub revision: Option<Version>,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The absolute key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// Changes with every write of the key, and is never used again for another value of it.
    pub version: Version,
    /// The lease that it hangs on.
    pub lease: Option<Session>,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The absolute key.
    pub key: String,
    /// What to do with it.
    pub change: Change,
    /// What must hold for it to be done, checked atomically with the change.
    pub condition: Condition,
}

/// What a write does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets the value, and the lease that the key hangs on from now on.
    Put {
        /// The value.
        value: Vec<u8>,
        /// The lease; `None` makes the key permanent.
        lease: Option<Session>,
    },
    /// Removes the key. Removing an absent key under [`Condition::Always`] is done.
    Delete,
}

/// What must hold for a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// The key does not exist.
    Absent,
    /// The key has this version.
    Version(Version),
    /// The key has this value, whoever's lease it hangs on.
    Value(Vec<u8>),
    /// Another key has this value: a write that only its holder may make.
    Holds {
        /// The other key.
        key: String,
        /// Its value.
        value: Vec<u8>,
    },
}

/// A definite answer to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Applied; the version that the key has now (of a delete: of the deletion).
    Done(Version),
    /// Not applied: the condition did not hold.
    ConditionFailed,
}

/// A definite answer to a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Alive for another time to live, counted from when the request was sent.
    Renewed {
        /// What the store as a whole was then, as far as the server that answered had heard, where the store
        /// counts that. A [`Snapshot`] of the same revision still holds: no key was written or removed since.
        revision: Option<Version>,
    },
    /// Gone, with every key that hung on it.
    Lapsed,
}

/// A change that a watch saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// The key was set.
    Put(Entry),
    /// The key was removed, or its lease lapsed.
    Delete {
        /// The absolute key.
        key: String,
    },
    /// Every change below the prefix up to this revision of the store has been told; from a store that counts its
    /// revisions. What was told since the last of these belongs together.
    Reached(Version),
    /// Something may have been missed: read again.
    Resync,
}

/// Why a call has no definite answer, or a definite refusal that is not about its condition.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The request did not reach the store, or the store had no quorum to act: nothing was applied. Also
    /// the answer to a read, a grant or a renewal that did not come: repeating those does no harm, and a
    /// lease of which nobody knows lapses. (After a renewal without an answer, do not count on it.)
    #[error("{store} does not answer: {reason}")]
    Unavailable {
        /// The kind of store.
        store: &'static str,
        /// What was tried, and what came of it.
        reason: String,
    },
    /// The request was sent and its answer was lost: it may have been applied, now or later.
    #[error("the answer of {store} was lost, the request may have been carried out: {reason}")]
    Unknown {
        /// The kind of store.
        store: &'static str,
        /// What happened.
        reason: String,
    },
    /// The store refused for good: credentials, permissions, a lease that does not exist.
    #[error("{store} refused the request: {reason}")]
    Refused {
        /// The kind of store.
        store: &'static str,
        /// Its words.
        reason: String,
        /// The lease named in a put is gone: grant another one.
        lease_lapsed: bool,
    },
}

impl StoreError {
    /// Whether the write may have been applied.
    pub fn is_unknown(&self) -> bool {
        matches!(self, StoreError::Unknown { .. })
    }

    /// Whether a put was refused because its lease is gone.
    pub fn is_lease_lapsed(&self) -> bool {
        matches!(
            self,
            StoreError::Refused {
                lease_lapsed: true,
                ..
            }
        )
    }
}
