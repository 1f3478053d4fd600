//! etcd's third API through its JSON gateway (`dcs.md` §7).

mod call;
mod discovery;
mod endpoints;
#[cfg(test)]
mod fuzz;
mod section;
mod watch;
mod wire;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use primacy_model::{Session, Version};
use primacy_net::{
    ClientCertificate, ClientOptions, HttpClient, KeepAlive, Roots, TlsClientOptions, Uri, Verify,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::call::{Gateway, Repeat};
pub use self::discovery::Discovery;
use self::endpoints::Endpoints;
use crate::{Credentials, Entry, Outcome, Renewal, Snapshot, Store, StoreError, WatchEvent, Write};

const KIND: &str = "etcd3";

/// A member that is there accepts at once; the rest of a try is for its answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Calls have deadlines of their own; this is for watches, on which nothing may come for hours.
const KEEP_ALIVE: KeepAlive = KeepAlive {
    idle: Duration::from_secs(10),
    interval: Duration::from_secs(3),
    probes: 3,
    user_timeout: Duration::from_secs(20),
};

/// Events that wait for their receiver before the stream itself does.
const WATCH_BACKLOG: usize = 64;

/// How to reach etcd.
#[derive(Clone, Default)]
pub struct Etcd3Config {
    /// `http[s]://host:port`, at least one unless they can be discovered.
    pub endpoints: Vec<String>,
    /// Where to look for the endpoints first.
    pub discovery: Option<Discovery>,
    /// For etcd's own authentication.
    pub credentials: Option<Credentials>,
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
pub struct Etcd3 {
    gateway: Arc<Gateway>,
}

impl Etcd3 {
    /// A store; opens no connection yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// No endpoint, or one that is not a URL.
    pub fn new(config: Etcd3Config) -> Result<Self, Etcd3Error> {
        let Etcd3Config {
            endpoints,
            discovery,
            credentials,
            cacert,
            cert,
            key,
            use_proxies,
        } = config;
        if endpoints.is_empty() && discovery.is_none() {
            return Err(Etcd3Error("no endpoint is configured".into()));
        }
        let endpoints: Result<Vec<_>, _> = endpoints.iter().map(|url| endpoint(url)).collect();
        let certificate = cert.map(|cert| {
            let key = key.unwrap_or_else(|| cert.clone());
            ClientCertificate {
                cert,
                key,
                passphrase: None,
            }
        });
        let tls = TlsClientOptions {
            roots: cacert.map_or(Roots::System, Roots::File),
            certificate,
            verify: Verify::Full,
        };
        let options = ClientOptions {
            connect_timeout: CONNECT_TIMEOUT,
            keep_alive: Some(KEEP_ALIVE),
            tls,
            ..ClientOptions::default()
        };
        let endpoints = Endpoints::new(endpoints?, use_proxies, discovery);
        let gateway = Gateway::new(HttpClient::new(options), endpoints, credentials);
        Ok(Etcd3 {
            gateway: Arc::new(gateway),
        })
    }
}

impl Etcd3 {
    async fn transact(&self, body: &Value, deadline: Instant) -> Result<Outcome, StoreError> {
        let answer = self
            .gateway
            .call("/kv/txn", body, Repeat::Never, deadline)
            .await?;
        Ok(match answer["succeeded"].as_bool() {
            Some(true) => Outcome::Done(Version(wire::header(&answer).revision)),
            _ => Outcome::ConditionFailed,
        })
    }
}

fn endpoint(url: &str) -> Result<String, Etcd3Error> {
    let bad = |what: &str| Etcd3Error(format!("an endpoint {what}"));
    let uri: Uri = url.parse().map_err(|_| bad("is not a URL"))?;
    let scheme = uri
        .scheme_str()
        .filter(|scheme| matches!(*scheme, "http" | "https"));
    let scheme = scheme.ok_or_else(|| bad("does not begin with http:// or https://"))?;
    let authority = uri.authority().ok_or_else(|| bad("has no host"))?.as_str();
    if authority.contains('@') {
        return Err(bad(
            "holds credentials: they belong into username and password",
        ));
    }
    Ok(format!("{scheme}://{authority}"))
}

#[async_trait]
impl Store for Etcd3 {
    async fn read(&self, prefix: &str, deadline: Instant) -> Result<Snapshot, StoreError> {
        let range = wire::range(prefix);
        let answer = self
            .gateway
            .call("/kv/range", &range, Repeat::Freely, deadline)
            .await?;
        let pairs = answer["kvs"].as_array().into_iter().flatten();
        let mut entries: Vec<Entry> = pairs.map(wire::entry).collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Snapshot {
            entries,
            revision: Some(Version(wire::header(&answer).revision)),
        })
    }

    async fn write(&self, write: Write, deadline: Instant) -> Result<Outcome, StoreError> {
        self.transact(&wire::transaction(&write), deadline).await
    }

    async fn write_both(
        &self,
        conditional: Write,
        always: Write,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        let transaction = wire::transaction_of_both(&conditional, &always);
        self.transact(&transaction, deadline).await
    }

    async fn grant_lease(&self, ttl: Duration, deadline: Instant) -> Result<Session, StoreError> {
        // A lease of which nobody knows does no harm, it lapses.
        let seconds = ttl.as_millis().div_ceil(1000).max(1);
        let body = json!({"TTL": seconds.to_string()});
        let answer = self
            .gateway
            .call("/lease/grant", &body, Repeat::Freely, deadline)
            .await?;
        let lease = wire::text_number(&answer["ID"]);
        lease.map(Session).ok_or_else(|| StoreError::Unavailable {
            store: KIND,
            reason: "a lease was granted without an id".into(),
        })
    }

    async fn renew_lease(&self, lease: &Session, deadline: Instant) -> Result<Renewal, StoreError> {
        let body = json!({"ID": lease.0});
        let answer = self
            .gateway
            .call("/lease/keepalive", &body, Repeat::Freely, deadline)
            .await?;
        Ok(match wire::number(&answer["TTL"]) {
            0 => Renewal::Lapsed,
            // etcd fills the header before it renews: it may know of more by now, never of less.
            _ => Renewal::Renewed {
                revision: Some(Version(wire::header(&answer).revision)),
            },
        })
    }

    async fn revoke_lease(&self, lease: &Session, deadline: Instant) -> Result<(), StoreError> {
        let (path, body) = (self.gateway.revoke_path(), json!({"ID": lease.0}));
        match self
            .gateway
            .call(path, &body, Repeat::Freely, deadline)
            .await
        {
            Err(error) if !error.is_lease_lapsed() => Err(error),
            _ => Ok(()),
        }
    }

    async fn delete_prefix(&self, prefix: &str, deadline: Instant) -> Result<(), StoreError> {
        let range = wire::range(prefix);
        self.gateway
            .call("/kv/deleterange", &range, Repeat::Never, deadline)
            .await
            .map(drop)
    }

    fn watch(&self, prefix: &str) -> mpsc::Receiver<WatchEvent> {
        let (sender, receiver) = mpsc::channel(WATCH_BACKLOG);
        tokio::spawn(watch::run(
            Arc::clone(&self.gateway),
            prefix.to_owned(),
            sender,
        ));
        receiver
    }

    fn authenticate_as(&self, user: Option<Credentials>) {
        self.gateway.authenticate_as(user);
    }

    fn kind(&self) -> &'static str {
        KIND
    }
}
