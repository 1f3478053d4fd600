use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::section::Section;
use crate::{ConfigError, HostPort, Map, Secret};

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
    /// How patient its members are with each other.
    pub timings: RaftTimings,
}

/// How patient the members of the embedded store are with each other: the same on every one of them, agents and
/// witness. What is not given has our own defaults and not Patroni's, which are for another implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftTimings {
    /// `append_entries_period`: time between two messages of the leader.
    pub append_entries_period: Duration,
    /// `min_timeout`: shortest silence of the leader before an election.
    pub min_timeout: Duration,
    /// `max_timeout`: longest silence of the leader before an election.
    pub max_timeout: Duration,
    /// `connection_timeout`: how long making a connection may take, authentication included.
    pub connection_timeout: Duration,
}

impl Default for RaftTimings {
    /// A lost leader is noticed within a second. Worst case until the next one leads: a silence of `max_timeout`, a
    /// round of votes, and once more as long if two candidates split the votes.
    fn default() -> Self {
        RaftTimings {
            append_entries_period: Duration::from_millis(100),
            min_timeout: Duration::from_millis(500),
            max_timeout: Duration::from_millis(1000),
            connection_timeout: Duration::from_millis(3500),
        }
    }
}

/// Their sections, in the order in which they are looked for.
pub(crate) const STORES: [&str; 7] = [
    "consul",
    "etcd",
    "etcd3",
    "exhibitor",
    "kubernetes",
    "raft",
    "zookeeper",
];

impl DcsSection {
    /// Chooses the store.
    ///
    /// # Errors
    /// No store is configured, or the chosen section cannot be used.
    pub(crate) fn parse(root: &Map) -> Result<DcsSection, ConfigError> {
        let name = STORES
            .into_iter()
            .find(|name| root.contains_key(*name))
            .ok_or(ConfigError::NoStore)?;
        let nothing = Map::new();
        let section = Section::of(name, root, name)?.unwrap_or(Section::new(name, &nothing));
        let raw = || RawSection(Value::Object(section.map().clone()));
        Ok(match name {
            "consul" => DcsSection::Consul(raw()),
            "etcd" => DcsSection::Etcd(EtcdSection::parse(section)?),
            "etcd3" => DcsSection::Etcd3(EtcdSection::parse(section)?),
            "exhibitor" => DcsSection::Exhibitor(raw()),
            "kubernetes" => DcsSection::Kubernetes(raw()),
            "raft" => DcsSection::Raft(RaftSection::parse(section)?),
            _ => DcsSection::Zookeeper(raw()),
        })
    }

    /// The name of its section.
    pub fn name(&self) -> &'static str {
        match self {
            DcsSection::Consul(_) => "consul",
            DcsSection::Etcd(_) => "etcd",
            DcsSection::Etcd3(_) => "etcd3",
            DcsSection::Exhibitor(_) => "exhibitor",
            DcsSection::Kubernetes(_) => "kubernetes",
            DcsSection::Raft(_) => "raft",
            DcsSection::Zookeeper(_) => "zookeeper",
        }
    }
}

impl EtcdSection {
    fn parse(section: Section<'_>) -> Result<EtcdSection, ConfigError> {
        let default_port = section.count("port")?.unwrap_or(2379);
        let mut tls = section
            .text("protocol")?
            .is_some_and(|p| p.eq_ignore_ascii_case("https"));
        let mut username = section.text("username")?;
        let mut password = section.secret("password")?;
        let srv = match (section.text("srv")?, section.text("discovery_srv")?) {
            (Some(srv), _) | (None, Some(srv)) => Some(srv),
            (None, None) => section.text("srv_domain")?,
        };

        let proxy = section.text("proxy")?;
        let use_proxies = proxy.is_some() || section.bool("use_proxies")?;
        let key = if proxy.is_some() { "proxy" } else { "url" };
        let endpoints = if let Some(url) = proxy.or(section.text("url")?) {
            let url = Url::parse(&section.key(key), &url)?;
            tls = url.tls;
            // Credentials in the URL are the more specific ones.
            username = url.username.or(username);
            password = url.password.or(password);
            vec![url.address]
        } else if let Some(hosts) = section.texts("hosts")? {
            let key = section.key("hosts");
            hosts
                .iter()
                .map(|host| HostPort::parse(&key, host, default_port))
                .collect::<Result<_, _>>()?
        } else if let Some(host) = section.text("host")? {
            vec![HostPort::parse(&section.key("host"), &host, default_port)?]
        } else {
            Vec::new()
        };
        if endpoints.is_empty() && srv.is_none() {
            let hint = "List the servers as <host>:<port>, or set host, url, proxy or srv";
            return Err(ConfigError::missing(section.key("hosts"), hint));
        }
        Ok(EtcdSection {
            endpoints,
            use_proxies,
            srv,
            srv_suffix: section.text("srv_suffix")?,
            tls,
            username,
            password,
            cacert: section.text("cacert")?,
            cert: section.text("cert")?,
            key: section.text("key")?,
        })
    }
}

/// `http[s]://[user[:password]@]host[:port][/...]`.
struct Url {
    tls: bool,
    address: HostPort,
    username: Option<String>,
    password: Option<Secret>,
}

impl Url {
    fn parse(key: &str, text: &str) -> Result<Url, ConfigError> {
        // The text may hold a password, and is not told.
        let wrong = || ConfigError::invalid(key, "no such URL", "http[s]://<host>:<port>");
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(wrong()),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        // The port of an IPv6 address follows its bracket.
        let address = match address
            .strip_suffix(']')
            .and_then(|host| host.strip_prefix('['))
        {
            Some(host) => HostPort {
                host: host.to_owned(),
                port: 2379,
            },
            None => HostPort::parse(key, address, 2379)?,
        };
        if address.host.is_empty() {
            return Err(wrong());
        }
        let (username, password) = match user.map(|user| user.split_once(':').unwrap_or((user, "")))
        {
            Some((username, password)) => (Some(username.to_owned()), Some(password)),
            None => (None, None),
        };
        let password = password
            .filter(|password| !password.is_empty())
            .map(Secret::new);
        Ok(Url {
            tls,
            address,
            username,
            password,
        })
    }
}

impl RaftSection {
    /// The section of `root`, empty when it is absent.
    pub(crate) fn of(root: &Map) -> Result<RaftSection, ConfigError> {
        let nothing = Map::new();
        let section = Section::of("raft", root, "raft")?;
        RaftSection::parse(section.unwrap_or(Section::new("raft", &nothing)))
    }

    fn parse(section: Section<'_>) -> Result<RaftSection, ConfigError> {
        let address = |key: &str| -> Result<Option<HostPort>, ConfigError> {
            let Some(text) = section.text(key)? else {
                return Ok(None);
            };
            HostPort::parse_with_port(&section.key(key), &text).map(Some)
        };
        let partners = section.texts("partner_addrs")?.unwrap_or_default();
        let self_addr = address("self_addr")?;
        Ok(RaftSection {
            bind_addr: address("bind_addr")?.or_else(|| self_addr.clone()),
            self_addr,
            partner_addrs: partners
                .iter()
                .map(|partner| HostPort::parse_with_port(&section.key("partner_addrs"), partner))
                .collect::<Result<_, _>>()?,
            password: section.secret("password")?,
            data_dir: PathBuf::from(section.text("data_dir")?.unwrap_or_else(|| ".".into())),
            timings: RaftTimings::parse(section)?,
        })
    }
}

impl RaftTimings {
    fn parse(section: Section<'_>) -> Result<RaftTimings, ConfigError> {
        let seconds = |key: &str| -> Result<Option<Duration>, ConfigError> {
            let Some(value) = section.real(key)? else {
                return Ok(None);
            };
            let duration = Duration::try_from_secs_f64(value).map_err(|_| {
                ConfigError::invalid(section.key(key), value.to_string(), "seconds, not below 0")
            })?;
            Ok(Some(duration))
        };
        // There is nothing to be set by these two, which is told (`pitfalls.rs`). Text that is no number is an error
        // nevertheless.
        seconds("connection_retry_time")?;
        let fallback = seconds("leader_fallback_timeout")?;
        let (min, max) = (seconds("min_timeout")?, seconds("max_timeout")?);
        let own = RaftTimings::default();
        let timings = RaftTimings {
            append_entries_period: seconds("append_entries_period")?
                .unwrap_or(own.append_entries_period),
            // Of a pair of which one is given, the other's default gives way: a file may have set one of Patroni's.
            min_timeout: min.unwrap_or(match max {
                Some(max) => own.min_timeout.min(max / 5 * 4),
                None => own.min_timeout,
            }),
            max_timeout: max.unwrap_or(match min {
                Some(min) => own.max_timeout.max(min.saturating_mul(2)),
                None => own.max_timeout,
            }),
            connection_timeout: seconds("connection_timeout")?.unwrap_or(own.connection_timeout),
        };
        let RaftTimings {
            append_entries_period: period,
            min_timeout,
            max_timeout,
            connection_timeout,
        } = timings;
        for (holds, key, value, rule) in [
            (
                period >= Duration::from_millis(1),
                "append_entries_period",
                period,
                "at least 1ms".to_owned(),
            ),
            (
                min_timeout > period.saturating_mul(3),
                "min_timeout",
                min_timeout,
                format!("more than three times append_entries_period, which is {period:?}"),
            ),
            (
                max_timeout > min_timeout,
                "max_timeout",
                max_timeout,
                format!("more than min_timeout, which is {min_timeout:?}"),
            ),
            (
                connection_timeout >= max_timeout,
                "connection_timeout",
                connection_timeout,
                format!("at least max_timeout, which is {max_timeout:?}"),
            ),
            (
                fallback.is_none_or(|fallback| fallback > period),
                "leader_fallback_timeout",
                fallback.unwrap_or_default(),
                format!("more than append_entries_period, which is {period:?}"),
            ),
        ] {
            if !holds {
                let found = format!("{value:?}");
                return Err(ConfigError::invalid(section.key(key), found, rule));
            }
        }
        Ok(timings)
    }
}
