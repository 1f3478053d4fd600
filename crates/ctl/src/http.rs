use std::path::PathBuf;
use std::time::Duration;

use primacy_config::ClientConfig;
use primacy_model::Member;
use primacy_net::{
    Bytes, ClientCertificate, ClientOptions, HeaderMap, HttpClient, Method, Passphrase, Roots,
    TlsClientOptions, Verify,
};
use serde_json::Value;
use tokio::time::Instant;

use crate::error::chain;

/// For calls that a member answers at once. A member whose store is away answers after its
/// `retry_timeout`, 10 s by default.
pub(crate) const PROMPT: Duration = Duration::from_secs(30);

/// The members' REST API (`patronictl.md` §2.2).
pub(crate) struct MemberApi {
    client: HttpClient,
}

/// What a member answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl MemberApi {
    /// `insecure` as given on the command line. Files of TLS are read when a member is asked by `https`: commands
    /// that ask nobody need none of them.
    pub(crate) fn new(config: &ClientConfig, insecure: bool) -> Self {
        let mut options = ClientOptions {
            tls: tls_options(config, insecure),
            ..ClientOptions::default()
        };
        if let Some(credentials) = &config.ctl.authentication {
            options = options.with_basic_auth(&credentials.username, credentials.password.expose());
        }
        MemberApi {
            client: HttpClient::new(options),
        }
    }

    /// Asks a member; the path of its address is replaced by `endpoint`, unless that is empty.
    ///
    /// # Errors
    /// In words: no address, no connection, no answer in time.
    pub(crate) async fn call(
        &self,
        member: &Member,
        method: Method,
        endpoint: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<Answer, String> {
        let api_url = member.data.api_url.as_deref();
        let api_url =
            api_url.ok_or_else(|| format!("member {} publishes no api_url", member.name))?;
        let url = if endpoint.is_empty() {
            api_url.to_owned()
        } else {
            with_path(api_url, endpoint)
        };
        let body = body
            .map(|body| Bytes::from(body.to_string()))
            .unwrap_or_default();
        let deadline = Instant::now() + patience;
        let answer = self
            .client
            .request(method, &url, HeaderMap::new(), body, deadline)
            .await;
        let answer = answer.map_err(|error| chain(&error))?;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        Ok(Answer {
            status: answer.status.as_u16(),
            body,
        })
    }
}

fn with_path(url: &str, endpoint: &str) -> String {
    let authority = url.find("://").map_or(0, |scheme| scheme + 3);
    let end = url[authority..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |path| authority + path);
    format!("{}/{endpoint}", &url[..end])
}

/// The table of `patronictl.md` §2.3: with a client certificate the chain is verified even if the operator
/// asked for no verification.
fn tls_options(config: &ClientConfig, insecure: bool) -> TlsClientOptions {
    let ctl = &config.ctl;
    let insecure = insecure || ctl.insecure;
    let verify = match (insecure, &ctl.certfile) {
        (false, _) => Verify::Full,
        (true, None) => Verify::None,
        (true, Some(_)) => Verify::Chain,
    };
    let roots = ctl
        .cacert
        .as_ref()
        .map_or(Roots::System, |path| Roots::File(PathBuf::from(path)));
    let certificate = ctl.certfile.as_ref().map(|cert| ClientCertificate {
        cert: PathBuf::from(cert),
        key: PathBuf::from(ctl.keyfile.as_ref().unwrap_or(cert)),
        passphrase: ctl
            .keyfile_password
            .as_ref()
            .map(|password| Passphrase::new(password.expose())),
    });
    TlsClientOptions {
        roots,
        certificate,
        verify,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn table_of_verifications() {
        let options = |ctl: Value, insecure: bool| {
            let tree = json!({"scope": "demo", "etcd3": {"host": "h:1"}, "ctl": ctl});
            tls_options(&ClientConfig::from_local(&tree).unwrap(), insecure)
        };
        for (ctl, insecure, verify) in [
            (json!({}), false, Verify::Full),
            (json!({}), true, Verify::None),
            (json!({"insecure": true}), false, Verify::None),
            (
                json!({"certfile": "/c", "keyfile": "/k"}),
                false,
                Verify::Full,
            ),
            (json!({"certfile": "/c"}), true, Verify::Chain),
            (
                json!({"certfile": "/c", "insecure": true}),
                false,
                Verify::Chain,
            ),
        ] {
            assert_eq!(
                options(ctl.clone(), insecure).verify,
                verify,
                "{ctl} {insecure}"
            );
        }
        // A key without its certificate counts for nothing, and the certificate may hold its key.
        assert!(
            options(json!({"keyfile": "/k"}), false)
                .certificate
                .is_none()
        );
        let both = options(json!({"certfile": "/c", "cacert": "/ca"}), false);
        assert_eq!(both.roots, Roots::File("/ca".into()));
        assert_eq!(both.certificate.unwrap().key, PathBuf::from("/c"));
    }

    #[test]
    fn path_is_replaced() {
        for (url, expected) in [
            (
                "http://10.0.0.11:8008/patroni",
                "http://10.0.0.11:8008/restart",
            ),
            (
                "https://[::1]:8008/patroni?x=1",
                "https://[::1]:8008/restart",
            ),
            ("http://h", "http://h/restart"),
        ] {
            assert_eq!(with_path(url, "restart"), expected);
        }
    }
}
