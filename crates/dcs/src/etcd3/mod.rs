//! etcd's third API through its JSON gateway (`dcs.md` §7).

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use primacy_model::Session;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::{Outcome, Renewal, Snapshot, Store, StoreError, WatchEvent, Write};

/// How to reach etcd.
#[derive(Clone, Default)]
pub struct Etcd3Config {
    /// `http[s]://host:port`, at least one.
    pub endpoints: Vec<String>,
    /// For etcd's own authentication.
    pub username: Option<String>,
    /// As above.
    pub password: Option<String>,
    /// PEM: who may vouch for etcd; the system's authorities when absent.
    pub cacert: Option<PathBuf>,
    /// PEM: our certificate.
    pub cert: Option<PathBuf>,
    /// PEM: our key; in `cert`'s file when absent.
    pub key: Option<PathBuf>,
    /// The endpoints are all there is: don't ask etcd for its members.
    pub use_proxies: bool,
}

impl fmt::Debug for Etcd3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd3Config")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("etcd3: {0}")]
pub struct Etcd3Error(String);

/// A store in an etcd cluster.
pub struct Etcd3 {}

impl Etcd3 {
    /// A store; opens no connection yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// No endpoint, or one that is not a URL.
    pub fn new(_config: Etcd3Config) -> Result<Self, Etcd3Error> {
        unimplemented!()
    }
}

#[async_trait]
impl Store for Etcd3 {
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
        "etcd3"
    }
}
