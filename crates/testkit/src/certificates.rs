//! An authority of a test's own, and what it vouches for: members, clients.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use primacy_net::{
    Bytes, ClientCertificate, ClientOptions, HeaderMap, HeaderName, HeaderValue, HttpClient,
    Method, Roots, TlsClientOptions, Verify,
};
use serde_json::{Map, Value, json};

use crate::http::Response;
use crate::scratch::Scratch;

/// The files of an authority, all in one directory: `ca.pem`, and for `member` and `client` a certificate, a key
/// (`-key.pem`) and both in one file (`-both.pem`), as HAProxy wants them.
#[derive(Debug, Clone)]
pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Makes them.
    ///
    /// # Errors
    /// openssl is not installed (`make setup` does it).
    pub fn issue(scratch: &Scratch) -> Result<Self> {
        let directory = scratch.path().join("certificates");
        scratch.account().create_dir(&directory)?;
        let own = Self { directory };
        for name in ["ca", "member", "client"] {
            own.make(scratch, name)?;
        }
        Ok(own)
    }

    fn make(&self, scratch: &Scratch, name: &str) -> Result<()> {
        let (certificate, key) = (
            self.file(&format!("{name}.pem")),
            self.file(&format!("{name}-key.pem")),
        );
        let mut command = scratch.command("openssl");
        command.args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split(' '),
        );
        command.args(["-subj", &format!("/CN={name}")]);
        command.args(["-keyout", &key, "-out", &certificate]);
        if name != "ca" {
            command.args([
                "-CA",
                &self.file("ca.pem"),
                "-CAkey",
                &self.file("ca-key.pem"),
            ]);
            command.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
            command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        }
        let output = command.output().context("cannot run openssl")?;
        ensure!(
            output.status.success(),
            "openssl: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let both = std::fs::read_to_string(certificate)? + &std::fs::read_to_string(key)?;
        let path = self.directory.join(format!("{name}-both.pem"));
        scratch.account().write(&path, &both)
    }

    /// The path of one of the files.
    pub fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// What makes a member's REST API speak HTTPS, and want a certificate from every client.
    pub(crate) fn restapi(&self) -> Map<String, Value> {
        section(json!({
            "certfile": self.file("member.pem"),
            "keyfile": self.file("member-key.pem"),
            "cafile": self.file("ca.pem"),
            "verify_client": "required",
        }))
    }

    /// How members and operators ask such an API.
    pub(crate) fn ctl(&self) -> Map<String, Value> {
        section(json!({
            "certfile": self.file("client.pem"),
            "keyfile": self.file("client-key.pem"),
            "cacert": self.file("ca.pem"),
        }))
    }

    /// Sends one request to 127.0.0.1, with the client's certificate; the server's must be right, too.
    pub(crate) async fn request(
        &self,
        port: u16,
        method: &str,
        path: &str,
        body: Option<&Value>,
        within: Duration,
    ) -> Result<Response> {
        let client = HttpClient::new(ClientOptions {
            tls: TlsClientOptions {
                roots: Roots::File(self.directory.join("ca.pem")),
                certificate: Some(ClientCertificate {
                    cert: self.directory.join("client.pem"),
                    key: self.directory.join("client-key.pem"),
                    passphrase: None,
                }),
                verify: Verify::Full,
            },
            ..ClientOptions::default()
        });
        let url = format!("https://127.0.0.1:{port}{path}");
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let deadline = tokio::time::Instant::now() + within;
        let answer = client
            .request(
                Method::try_from(method)?,
                &url,
                HeaderMap::new(),
                body,
                deadline,
            )
            .await
            .map_err(|error| anyhow!("{method} {url}: {error}"))?;
        let header = |(name, value): (&HeaderName, &HeaderValue)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.to_string(), value)
        };
        Ok(Response {
            status: answer.status.as_u16(),
            headers: answer.headers.iter().map(header).collect(),
            body: String::from_utf8_lossy(&answer.body).into_owned(),
        })
    }
}

fn section(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(section) => section,
        _ => Map::new(),
    }
}
