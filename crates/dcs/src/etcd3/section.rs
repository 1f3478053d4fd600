//! What the configuration says of etcd (`configuration.md` §3.3).

use primacy_config::local::EtcdSection;

use super::{Discovery, Etcd3Config};
use crate::Credentials;

impl From<&EtcdSection> for Etcd3Config {
    fn from(section: &EtcdSection) -> Self {
        let scheme = if section.tls { "https" } else { "http" };
        let discovery = section.srv.clone().filter(|_| !section.use_proxies);
        let endpoints = section.endpoints.iter();
        Etcd3Config {
            discovery: discovery.map(|domain| Discovery {
                domain,
                suffix: section.srv_suffix.clone(),
                ..Discovery::default()
            }),
            endpoints: endpoints.map(|at| format!("{scheme}://{at}")).collect(),
            credentials: Credentials::of(section),
            cacert: section.cacert.as_ref().map(Into::into),
            cert: section.cert.as_ref().map(Into::into),
            key: section.key.as_ref().map(Into::into),
            use_proxies: section.use_proxies,
        }
    }
}

impl Credentials {
    /// Whom etcd knows its clients as, where it asks.
    pub fn of(section: &EtcdSection) -> Option<Credentials> {
        let password = section.password.as_ref();
        section.username.as_ref().map(|username| Credentials {
            username: username.clone(),
            password: password.map_or_else(String::new, |password| password.expose().to_owned()),
        })
    }
}
