use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::{HostPort, Secret};

/// The store that the configuration chooses: the first section present in the order of
/// `configuration.md` §2.11. Stores without a typed section here keep their raw value.
#[derive(Clone, Debug, PartialEq)]
pub enum DcsSection {
    /// Consul.
    Consul(RawSection),
    /// etcd, protocol version 2.
    Etcd(EtcdSection),
    /// etcd, protocol version 3.
    Etcd3(EtcdSection),
    /// ZooKeeper found through Exhibitor.
    Exhibitor(RawSection),
    /// Kubernetes objects.
    Kubernetes(RawSection),
    /// The embedded store.
    Raft(RaftSection),
    /// ZooKeeper.
    Zookeeper(RawSection),
}

/// A section as written. Not shown by `Debug`, for it may hold credentials.
#[derive(Clone, PartialEq)]
pub struct RawSection(pub Value);

impl std::fmt::Debug for RawSection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawSection(..)")
    }
}

/// `etcd` or `etcd3` (§2.6).
#[derive(Clone, Debug, PartialEq)]
pub struct EtcdSection {
    /// Servers to ask first: `hosts`, or `host`, or those of `url` or `proxy`.
    pub endpoints: Vec<HostPort>,
    /// Speak to `endpoints` only, and do not ask them for the others.
    pub use_proxies: bool,
    /// Domain of SRV records that name the servers.
    pub srv: Option<String>,
    /// Suffix of the SRV names.
    pub srv_suffix: Option<String>,
    /// `https` rather than `http`.
    pub tls: bool,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// Authority of the servers' certificates.
    pub cacert: Option<String>,
    /// Client certificate.
    pub cert: Option<String>,
    /// Its key.
    pub key: Option<String>,
}

/// `raft`, the embedded store (§2.10).
#[derive(Clone, Debug, PartialEq)]
pub struct RaftSection {
    /// This node's address; `None`: a client that does not vote.
    pub self_addr: Option<HostPort>,
    /// Where to listen; `self_addr` when not configured.
    pub bind_addr: Option<HostPort>,
    /// The other voters.
    pub partner_addrs: Vec<HostPort>,
    /// Shared secret that nodes prove to each other.
    pub password: Option<Secret>,
    /// Where the log is kept.
    pub data_dir: PathBuf,
    /// Time between two messages of the leader.
    pub append_entries_period: Duration,
    /// Shortest election timeout.
    pub min_timeout: Duration,
    /// Longest election timeout.
    pub max_timeout: Duration,
    /// A connection silent for so long is given up.
    pub connection_timeout: Duration,
    /// Time between two tries to connect.
    pub connection_retry_time: Duration,
    /// A leader without majority for so long steps down.
    pub leader_fallback_timeout: Duration,
}
