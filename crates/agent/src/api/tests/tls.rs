//! The API over TLS, and the exchange of certificates.

use std::process::Stdio;

use primacy_config::local::{BasicAuth, RestApi, VerifyClient};
use primacy_config::{Effective, Secret, TimingLimits};
use primacy_net::{
    ClientCertificate, ClientOptions, HeaderValue, HttpAnswer, HttpClient, HttpError, Method,
    Roots, Verify, header,
};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use super::bench::{Bench, PATIENCE, section};
use super::primary;
use crate::settings::peer_client;

/// A scratch directory with certificates and keys, as an operator would make them.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        primacy_net::install_crypto_provider();
        Files(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Makes `<name>.pem` and `<name>-key.pem`, signed by `authority`, or else an authority.
    async fn make(&self, name: &str, authority: Option<&str>) {
        let mut command = tokio::process::Command::new("openssl");
        command.args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split(' '),
        );
        command.args(["-subj", &format!("/CN={name}")]);
        command.args(["-out", &self.path(&format!("{name}.pem"))]);
        command.args(["-keyout", &self.path(&format!("{name}-key.pem"))]);
        if let Some(authority) = authority {
            command.args(["-CA", &self.path(&format!("{authority}.pem"))]);
            command.args(["-CAkey", &self.path(&format!("{authority}-key.pem"))]);
            command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
            command.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
        }
        let made = command.output().await.unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
    }

    /// HTTPS with the certificate `member` and clients' certificates by `ca`.
    fn section(&self, bench: &Bench, verify_client: VerifyClient) -> RestApi {
        let mut section = section();
        section.listen.port = bench.address.port();
        section.certfile = Some(self.path("member.pem"));
        section.keyfile = Some(self.path("member-key.pem"));
        section.cafile = Some(self.path("ca.pem"));
        section.verify_client = verify_client;
        section
    }

    /// A client that trusts `authority`, perhaps with a certificate of its own.
    fn client(&self, authority: &str, certificate: Option<&str>) -> HttpClient {
        let mut options = ClientOptions::default();
        options.tls.verify = Verify::Full;
        options.tls.roots = Roots::File(self.path(&format!("{authority}.pem")).into());
        options.tls.certificate = certificate.map(|name| ClientCertificate {
            cert: self.path(&format!("{name}.pem")).into(),
            key: self.path(&format!("{name}-key.pem")).into(),
            passphrase: None,
        });
        // Not one of the cluster: members' connections are not kept.
        let anybody = HeaderValue::from_static("monitoring");
        options.headers.insert(header::USER_AGENT, anybody);
        HttpClient::new(options)
    }
}

fn no_peers() -> HttpClient {
    HttpClient::new(ClientOptions::default())
}

async fn ask(
    bench: &Bench,
    client: &HttpClient,
    method: Method,
    path: &str,
) -> Result<HttpAnswer, HttpError> {
    let url = format!("https://{}{path}", bench.address);
    let deadline = Instant::now() + PATIENCE;
    client
        .request(
            method,
            &url,
            Default::default(),
            Default::default(),
            deadline,
        )
        .await
}

/// An exchange of plain for encrypted on a live listener; certificates that clients may show.
#[tokio::test]
async fn https_can_be_switched_on() {
    let files = Files::new();
    files.make("ca", None).await;
    files.make("member", Some("ca")).await;
    files.make("other", None).await;
    let mut bench = Bench::new(primary(), section()).await;
    let mut https = files.section(&bench, VerifyClient::Optional);
    https.http_extra_headers = [("X-Where".into(), "http".into())].into();
    https.https_extra_headers = [
        ("Strict-Transport-Security".into(), "max-age=1".into()),
        ("X-Where".into(), "https".into()),
    ]
    .into();
    bench.server.reconfigure(&https, no_peers()).await.unwrap();
    assert_eq!(
        bench.server.local_address().unwrap(),
        bench.address,
        "the listener stays"
    );

    let anonymous = files.client("ca", None);
    let status = ask(&bench, &anonymous, Method::GET, "/primary")
        .await
        .unwrap();
    assert_eq!(status.status, 200);
    assert_eq!(status.headers["Strict-Transport-Security"], "max-age=1");
    let given: Vec<_> = status.headers.get_all("X-Where").iter().collect();
    assert_eq!(given, ["https"], "in the place of the other");
    let refused = ask(&bench, &anonymous, Method::POST, "/reload")
        .await
        .unwrap();
    assert_eq!(
        (refused.status.as_u16(), &refused.body[..]),
        (403, &b"client certificate required"[..])
    );
    let known = files.client("ca", Some("member"));
    let accepted = ask(&bench, &known, Method::POST, "/reload").await.unwrap();
    assert_eq!(accepted.status, 202);
    let stranger = files.client("ca", Some("other"));
    assert!(
        ask(&bench, &stranger, Method::GET, "/primary")
            .await
            .is_err(),
        "§2.3: also what reads"
    );
    assert_eq!(
        bench
            .raw("GET /primary HTTP/1.0\r\n\r\n")
            .await
            .find("HTTP/1"),
        None,
        "plain HTTP"
    );

    bench.server.stop().await;
}

/// §2.3: nobody gets in without one, not even for `/liveness`. Without an authority, `optional` still begins.
#[tokio::test]
async fn certificates_can_be_required() {
    let files = Files::new();
    files.make("ca", None).await;
    files.make("member", Some("ca")).await;
    let mut bench = Bench::new(primary(), section()).await;
    let required = files.section(&bench, VerifyClient::Required);
    bench
        .server
        .reconfigure(&required, no_peers())
        .await
        .unwrap();
    let anonymous = files.client("ca", None);
    let known = files.client("ca", Some("member"));
    assert!(
        ask(&bench, &anonymous, Method::GET, "/liveness")
            .await
            .is_err()
    );
    assert_eq!(
        ask(&bench, &known, Method::GET, "/liveness")
            .await
            .unwrap()
            .status,
        200
    );

    let mut optional = files.section(&bench, VerifyClient::Optional);
    optional.cafile = None;
    bench
        .server
        .reconfigure(&optional, no_peers())
        .await
        .unwrap();
    for client in [files.client("ca", None), files.client("ca", Some("member"))] {
        assert_eq!(
            ask(&bench, &client, Method::GET, "/liveness")
                .await
                .unwrap()
                .status,
            200
        );
        assert_eq!(
            ask(&bench, &client, Method::POST, "/reload")
                .await
                .unwrap()
                .status,
            403
        );
    }
}

/// §2.3: which requests need a certificate, and that one by a stranger is refused before any. 0 is no connection.
#[tokio::test]
async fn certificates_are_needed_by_mode_and_request() {
    let files = Files::new();
    files.make("ca", None).await;
    files.make("member", Some("ca")).await;
    files.make("other", None).await;
    let bodiless = [
        (Method::GET, "/liveness", 200),
        (Method::GET, "/primary", 200),
        (Method::OPTIONS, "/primary", 200),
        (Method::GET, "/metrics", 200),
        (Method::GET, "/config", 502),
        (Method::POST, "/nowhere", 501),
        (Method::PATCH, "/config", 411),
        (Method::PUT, "/config", 411),
        (Method::POST, "/reload", 202),
        (Method::POST, "/restart", 200),
        (Method::POST, "/reinitialize", 503),
        (Method::POST, "/failover", 411),
        (Method::POST, "/switchover", 411),
        (Method::POST, "/failsafe", 502),
        (Method::POST, "/sigterm", 202),
        (Method::POST, "/citus", 411),
        (Method::POST, "/mpp", 411),
        (Method::DELETE, "/restart", 404),
        (Method::DELETE, "/switchover", 404),
    ];
    let reads = |method: &Method, path: &str| {
        [Method::GET, Method::OPTIONS].contains(method) || path == "/nowhere"
    };
    use VerifyClient::{None as Never, Optional, Required};
    for mode in [Never, Optional, Required] {
        for shown in [None, Some("member"), Some("other")] {
            let mut bench = Bench::new(primary(), section()).await;
            let https = files.section(&bench, mode);
            bench.server.reconfigure(&https, no_peers()).await.unwrap();
            let client = files.client("ca", shown);
            for (method, path, code) in &bodiless {
                let expected = match (mode, shown) {
                    (Never, _) | (_, Some("member")) => *code,
                    (Optional, None) if reads(method, path) => *code,
                    (Optional, None) => 403,
                    _ => 0,
                };
                let answer = ask(&bench, &client, method.clone(), path).await;
                let given = answer.as_ref().map_or(0, |answer| answer.status.as_u16());
                assert_eq!(
                    given, expected,
                    "{mode:?} {shown:?} {method} {path}: {answer:?}"
                );
            }
        }
    }
}

/// §10: members bring the credentials of `ctl`, else of `restapi`. Whom they ask is verified only with a client certificate
/// to show, and then without looking at the name.
#[tokio::test]
async fn members_ask_each_other() {
    let files = Files::new();
    files.make("ca", None).await;
    files.make("member", Some("ca")).await;
    files.make("other", None).await;
    let member = |restapi: Value, ctl: Value| {
        let mut restapi = restapi;
        restapi["listen"] = "127.0.0.1:8008".into();
        let tree = json!({
            "scope": "demo", "name": "pg1", "restapi": restapi, "ctl": ctl, "etcd3": {"host": "h"},
            "postgresql": {
                "listen": "127.0.0.1:5432", "data_dir": "/data",
                "authentication": {"superuser": {"username": "postgres"}},
            },
        });
        let effective = Effective::build(&tree, &Map::new(), TimingLimits::PATRONI).unwrap();
        peer_client(&effective.local)
    };
    let user = |password: &str| json!({"username": "patroni", "password": password});
    let certificate =
        json!({"certfile": files.path("member.pem"), "keyfile": files.path("member-key.pem")});
    let with_cafile = || json!({"cafile": files.path("ca.pem"), "authentication": user("secret")});
    let mut by_ctl = certificate.clone();
    by_ctl["authentication"] = user("secret");
    by_ctl["cacert"] = files.path("ca.pem").into();
    // What `POST /reload` of a server with the first and of one with the second certificate answers.
    let cases = [
        (json!({}), json!({}), [401, 401]),
        (
            json!({"authentication": user("wrong")}),
            json!({}),
            [401, 401],
        ),
        (with_cafile(), json!({}), [202, 202]),
        (with_cafile(), certificate, [202, 0]),
        (json!({"authentication": user("wrong")}), by_ctl, [202, 0]),
    ];
    for (restapi, ctl, expected) in cases {
        let asked = format!("{restapi} {ctl}");
        let client = member(restapi, ctl);
        for (server, expected) in ["member", "other"].into_iter().zip(expected) {
            let mut bench = Bench::new(primary(), section()).await;
            let mut https = files.section(&bench, VerifyClient::None);
            https.certfile = Some(files.path(&format!("{server}.pem")));
            https.keyfile = Some(files.path(&format!("{server}-key.pem")));
            https.authentication = Some(BasicAuth {
                username: "patroni".into(),
                password: Secret::new("secret"),
            });
            bench.server.reconfigure(&https, no_peers()).await.unwrap();
            // Neither certificate is of that name.
            let url = format!("https://localhost:{}/reload", bench.address.port());
            let deadline = Instant::now() + PATIENCE;
            let (headers, body) = Default::default();
            let answer = client
                .request(Method::POST, &url, headers, body, deadline)
                .await;
            let given = answer.as_ref().map_or(0, |answer| answer.status.as_u16());
            assert_eq!(given, expected, "{server} {asked}: {answer:?}");
        }
    }
}

/// `keyfile_password`, for keys as OpenSSL encrypts them, now and in former days.
#[tokio::test]
async fn keys_may_be_encrypted() {
    let files = Files::new();
    files.make("ca", None).await;
    files.make("member", Some("ca")).await;
    let plain = files.path("member-key.pem");
    for cipher in ["-v2 aes-256-cbc", "-scrypt", "-v2 des3 -v2prf hmacWithSHA1"] {
        let mut bench = Bench::new(primary(), section()).await;
        let mut https = files.section(&bench, VerifyClient::None);
        let encrypted = files.path("encrypted.pem");
        let made = tokio::process::Command::new("openssl")
            .args(["pkcs8", "-topk8", "-in", &plain, "-out", &encrypted])
            .args(["-passout", "pass:open sesame"])
            .args(cipher.split(' '))
            .output();
        assert!(made.await.unwrap().status.success(), "{cipher}");
        https.keyfile = Some(encrypted.clone());
        for (password, told) in [
            (None, "no passphrase is set"),
            (Some("close"), "is the passphrase right?"),
        ] {
            https.keyfile_password = password.map(Secret::new);
            let error = bench.server.reconfigure(&https, no_peers()).await;
            let error = std::error::Error::source(&error.unwrap_err())
                .unwrap()
                .to_string();
            assert!(
                error.contains(told) && error.contains(&encrypted),
                "{cipher}: {error}"
            );
        }
        https.keyfile_password = Some(Secret::new("open sesame"));
        bench.server.reconfigure(&https, no_peers()).await.unwrap();
        let client = files.client("ca", None);
        let answer = ask(&bench, &client, Method::GET, "/liveness").await;
        assert_eq!(answer.unwrap().status, 200, "{cipher}");
    }
}

/// `restapi.ciphers`: what a client finds with OpenSSL, and what is refused.
#[tokio::test]
async fn ciphers_can_be_chosen() {
    let files = Files::new();
    files.make("ca", None).await;
    files.make("member", Some("ca")).await;
    let mut bench = Bench::new(primary(), section()).await;
    let mut https = files.section(&bench, VerifyClient::None);
    let handshake = async |options: &str| {
        let mut command = tokio::process::Command::new("openssl");
        command.args(["s_client", "-brief", "-connect", &bench.address.to_string()]);
        command.args(options.split(' ')).stdin(Stdio::null());
        let output = command.output().await.unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let suite = told
            .lines()
            .find_map(|line| line.strip_prefix("Ciphersuite: "));
        suite.map(str::to_owned)
    };
    let (aes128, aes256) = (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
    );
    let tls12 = |ciphers: &str| format!("-tls1_2 -cipher {ciphers}");
    let both = tls12(&format!("{aes256}:{aes128}"));

    https.ciphers = Some(format!("{aes128}:DHE-RSA-AES256-GCM-SHA384:!SSLv3"));
    bench.server.reconfigure(&https, no_peers()).await.unwrap();
    assert_eq!(handshake(&both).await.as_deref(), Some(aes128));
    assert_eq!(handshake(&tls12(aes256)).await, None);
    assert!(
        handshake("-tls1_3").await.is_some(),
        "of which the list says nothing"
    );

    https.ciphers = Some("TLS_CHACHA20_POLY1305_SHA256".into());
    bench.server.reconfigure(&https, no_peers()).await.unwrap();
    assert_eq!(
        handshake("-tls1_3").await.as_deref(),
        Some("TLS_CHACHA20_POLY1305_SHA256")
    );
    assert_eq!(handshake(&both).await, None);

    https.ciphers = Some("DHE-RSA-AES256-GCM-SHA384".into());
    let error = bench
        .server
        .reconfigure(&https, no_peers())
        .await
        .unwrap_err();
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        error.to_string().starts_with("restapi: ")
            && reason.contains("ECDHE-RSA-AES256-GCM-SHA384"),
        "{error}: {reason}"
    );
    assert!(handshake("-tls1_3").await.is_some(), "the old ones stay");
}

/// A reload reads the files anew; those who are connected come in anew, too.
#[tokio::test]
async fn certificates_are_exchanged_at_a_reload() {
    let files = Files::new();
    for authority in ["ca", "new-ca"] {
        files.make(authority, None).await;
    }
    files.make("member", Some("ca")).await;
    files.make("new-member", Some("new-ca")).await;
    let mut bench = Bench::new(primary(), section()).await;
    let https = files.section(&bench, VerifyClient::None);
    bench.server.reconfigure(&https, no_peers()).await.unwrap();
    let (old, new) = (files.client("ca", None), files.client("new-ca", None));
    assert_eq!(
        ask(&bench, &old, Method::GET, "/liveness")
            .await
            .unwrap()
            .status,
        200
    );
    assert!(ask(&bench, &new, Method::GET, "/liveness").await.is_err());

    for suffix in [".pem", "-key.pem"] {
        std::fs::copy(
            files.path(&format!("new-member{suffix}")),
            files.path(&format!("member{suffix}")),
        )
        .unwrap();
    }
    assert_eq!(
        ask(&bench, &old, Method::GET, "/liveness")
            .await
            .unwrap()
            .status,
        200,
        "not before the reload"
    );
    bench.server.reconfigure(&https, no_peers()).await.unwrap();
    assert_eq!(
        ask(&bench, &new, Method::GET, "/liveness")
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(
        ask(&bench, &old, Method::GET, "/liveness")
            .await
            .unwrap()
            .status,
        200,
        "on the kept connection"
    );
    assert!(
        ask(&bench, &old, Method::GET, "/liveness").await.is_err(),
        "on a new one"
    );

    // What cannot be used is not taken.
    std::fs::write(files.path("member.pem"), "no certificate").unwrap();
    bench
        .server
        .reconfigure(&https, no_peers())
        .await
        .unwrap_err();
    assert_eq!(
        ask(&bench, &new, Method::GET, "/liveness")
            .await
            .unwrap()
            .status,
        200
    );
}
