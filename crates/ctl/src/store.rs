use std::sync::Arc;

use primacy_config::{ClientConfig, DcsSection};
use primacy_dcs::{Etcd3, Store};
use primacy_raft::RaftClient;
use serde_json::{Map, Value, json};

use crate::Failure;
use crate::error::chain;

/// Where the store comes from.
pub trait OpenStore: Send + Sync {
    /// Opens the store; asks it nothing yet.
    ///
    /// # Errors
    /// The store is not one of those supported, or its settings cannot be used.
    fn open(&self, config: &ClientConfig) -> Result<Arc<dyn Store>, Failure>;
}

/// The store that the configuration names.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConfiguredStore;

impl OpenStore for ConfiguredStore {
    fn open(&self, config: &ClientConfig) -> Result<Arc<dyn Store>, Failure> {
        let unsupported = |kind: &str, hint: &str| {
            Err(Failure::refused(format!(
                "the store {kind} is not supported yet, only etcd3 and raft are{hint}"
            )))
        };
        match &config.dcs {
            DcsSection::Etcd3(section) => match Etcd3::new(section.into()) {
                Ok(store) => Ok(Arc::new(store)),
                Err(error) => Err(Failure::refused(chain(&error))),
            },
            DcsSection::Raft(section) => match RaftClient::new(&section.into()) {
                Ok(client) => Ok(client.store()),
                Err(error) => Err(Failure::refused(chain(&error))),
            },
            DcsSection::Etcd(_) => unsupported(
                "etcd (protocol version 2)",
                ": name the section etcd3, or give the URL as etcd3://HOST:PORT",
            ),
            DcsSection::Consul(_) => unsupported("consul", ""),
            DcsSection::Exhibitor(_) => unsupported("exhibitor", ""),
            DcsSection::Kubernetes(_) => unsupported("kubernetes", ""),
            DcsSection::Zookeeper(_) => unsupported("zookeeper", ""),
        }
    }
}

/// The stores that a URL can name, and their usual ports.
const SCHEMES: [(&str, u16); 5] = [
    ("etcd", 2379),
    ("etcd3", 2379),
    ("consul", 8500),
    ("zookeeper", 2181),
    ("exhibitor", 8181),
];

/// Puts `[SCHEME://][HOST][:PORT][/NAMESPACE]` in the place of the configured store (`patronictl.md` §1.3).
/// What that loses comes back as warnings.
///
/// # Errors
/// An unknown scheme, or a port that is none.
pub(crate) fn override_store(
    tree: &mut Map<String, Value>,
    url: &str,
) -> Result<Vec<String>, Failure> {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (Some(scheme.to_lowercase()), rest),
        None => (None, url),
    };
    let (authority, namespace) = rest.split_once('/').unwrap_or((rest, ""));
    let authority = authority
        .rsplit_once('@')
        .map_or(authority, |(_, authority)| authority);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = match port.filter(|port| !port.is_empty()) {
        None => None,
        Some(port) => Some(port.parse::<u16>().map_err(|_| {
            Failure::refused(format!("the DCS URL {url} has no usable port: {port}"))
        })?),
    };
    let by_port = |port: u16| match port {
        2379 => None,
        port => SCHEMES
            .iter()
            .find(|(_, usual)| *usual == port)
            .map(|(scheme, _)| (*scheme).to_owned()),
    };
    let mut warnings = Vec::new();
    let scheme = scheme.unwrap_or_else(|| {
        port.and_then(by_port).unwrap_or_else(|| {
            warnings.push(format!("{url} names no scheme and is taken for etcd with protocol version 2; for version 3 give etcd3://{rest}"));
            "etcd".to_owned()
        })
    });
    let Some((_, usual_port)) = SCHEMES.iter().find(|(known, _)| *known == scheme) else {
        return Err(Failure::refused(format!("Unknown dcs scheme: {scheme}")));
    };
    for (section, _) in SCHEMES {
        let lost = tree.shift_remove(section);
        let secured = ["username", "password", "cacert", "cert", "key", "token"];
        if lost.is_some_and(|lost| secured.iter().any(|key| lost.get(key).is_some())) {
            warnings.push(format!("the credentials and TLS settings of the section {section} are not used with a DCS URL"));
        }
    }
    let host = if host.is_empty() { "localhost" } else { host };
    let port = port.unwrap_or(*usual_port);
    let section = match scheme.as_str() {
        "zookeeper" => json!({"hosts": [format!("{host}:{port}")]}),
        "exhibitor" => json!({"hosts": [host], "port": port}),
        _ => json!({"host": format!("{host}:{port}")}),
    };
    tree.insert(scheme, section);
    if !namespace.is_empty() {
        tree.insert("namespace".into(), json!(namespace));
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overridden(url: &str) -> Result<(String, usize), String> {
        let mut tree = json!({"scope": "demo", "namespace": "kept", "etcd3": {"hosts": "a:1", "username": "u"}, "raft": {}});
        let tree = tree.as_object_mut().unwrap();
        let warnings = override_store(tree, url).map_err(|failure| failure.to_string())?;
        tree.retain(|key, _| !["scope", "raft"].contains(&key.as_str()));
        tree.sort_keys();
        Ok((Value::Object(tree.clone()).to_string(), warnings.len()))
    }

    #[test]
    fn urls_replace_the_store() {
        for (url, expected, warnings) in [
            (
                "etcd3://h:1/ns",
                r#"{"etcd3":{"host":"h:1"},"namespace":"ns"}"#,
                1,
            ),
            (
                "ETCD3://",
                r#"{"etcd3":{"host":"localhost:2379"},"namespace":"kept"}"#,
                1,
            ),
            (
                "h:2379",
                r#"{"etcd":{"host":"h:2379"},"namespace":"kept"}"#,
                2,
            ),
            (
                ":8500/",
                r#"{"consul":{"host":"localhost:8500"},"namespace":"kept"}"#,
                1,
            ),
            (
                "h:2181",
                r#"{"namespace":"kept","zookeeper":{"hosts":["h:2181"]}}"#,
                1,
            ),
            (
                "h:8181",
                r#"{"exhibitor":{"hosts":["h"],"port":8181},"namespace":"kept"}"#,
                1,
            ),
            (
                "consul://h",
                r#"{"consul":{"host":"h:8500"},"namespace":"kept"}"#,
                1,
            ),
            (
                "zookeeper://h",
                r#"{"namespace":"kept","zookeeper":{"hosts":["h:2181"]}}"#,
                1,
            ),
            (
                "exhibitor://h",
                r#"{"exhibitor":{"hosts":["h"],"port":8181},"namespace":"kept"}"#,
                1,
            ),
            (
                "etcd3://u:p@[::1]:99",
                r#"{"etcd3":{"host":"[::1]:99"},"namespace":"kept"}"#,
                1,
            ),
            (
                "etcd3://[::1]",
                r#"{"etcd3":{"host":"[::1]:2379"},"namespace":"kept"}"#,
                1,
            ),
        ] {
            assert_eq!(
                overridden(url),
                Ok((expected.to_owned(), warnings)),
                "{url}"
            );
        }
        assert_eq!(
            overridden("redis://h"),
            Err("Unknown dcs scheme: redis".into())
        );
        assert!(overridden("etcd3://h:x").is_err());
    }
}
