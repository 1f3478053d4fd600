//! Finding etcd by the SRV records of a domain (`configuration.md` §2.6).

use std::net::SocketAddr;

use primacy_net::{Bytes, HeaderMap, HttpClient, Method, SrvError, SrvResolver, StatusCode};
use serde_json::Value;
use tokio::time::Instant;

use super::call::client_urls;

/// The names under which etcd may be found, in the order in which they are tried. The last two are of its peers, who are
/// asked for the addresses that serve clients.
const SERVICES: [&str; 6] = [
    "-client-ssl",
    "-client",
    "-ssl",
    "",
    "-server-ssl",
    "-server",
];

/// Where the SRV records of etcd are.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// The domain.
    pub domain: String,
    /// Tells one cluster of a domain from the others.
    pub suffix: Option<String>,
    /// Whom to ask; those of the system when empty.
    pub name_servers: Vec<SocketAddr>,
}

impl Discovery {
    /// The endpoints by the first name that has any.
    ///
    /// # Errors
    /// Why there are none.
    pub(super) async fn endpoints(
        &self,
        http: &HttpClient,
        deadline: Instant,
    ) -> Result<Vec<String>, String> {
        let told = |error: SrvError| match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        let resolver = match self.name_servers.as_slice() {
            [] => SrvResolver::of_system().await.map_err(told)?,
            servers => SrvResolver::new(servers.to_vec()),
        };
        let mut why = format!("the domain {} has no SRV records of etcd", self.domain);
        for service in SERVICES {
            let suffix = self.suffix.iter().map(|suffix| format!("-{suffix}"));
            let suffix: String = suffix.collect();
            let name = format!("_etcd{service}{suffix}._tcp.{}", self.domain);
            let hosts = match resolver.lookup(&name, deadline).await {
                Ok(hosts) => hosts,
                // Some name servers refuse what they know nothing of.
                Err(error) => {
                    why = told(error);
                    continue;
                }
            };
            let scheme = if service.contains("-ssl") {
                "https"
            } else {
                "http"
            };
            let mut found = Vec::new();
            for (host, port) in hosts {
                let url = format!("{scheme}://{host}:{port}");
                if service.starts_with("-server") {
                    found = of_peer(http, &url, deadline).await;
                    if !found.is_empty() {
                        break;
                    }
                } else {
                    found.push(url);
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Err(why)
    }
}

/// What a peer tells of the members; none if it tells nothing.
async fn of_peer(http: &HttpClient, peer: &str, deadline: Instant) -> Vec<String> {
    let url = format!("{peer}/members");
    let asked = http.request(Method::GET, &url, HeaderMap::new(), Bytes::new(), deadline);
    match asked.await {
        Ok(answer) if answer.status == StatusCode::OK => {
            let members: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            client_urls(&members)
        }
        Ok(answer) => {
            tracing::debug!("{url} answers {}", answer.status);
            Vec::new()
        }
        Err(error) => {
            tracing::debug!("{error}");
            Vec::new()
        }
    }
}
