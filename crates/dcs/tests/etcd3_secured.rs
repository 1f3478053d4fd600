//! An etcd that wants certificates, a user and a password.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use primacy_dcs::{
    Change, Condition, Credentials, Etcd3, Etcd3Config, Store, StoreError, WatchEvent, Write,
};
use primacy_net::{
    Bytes, ClientCertificate, ClientOptions, HeaderMap, HttpClient, Method, Roots, header,
};
use primacy_testkit::{Scratch, ports};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(30);

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn credentials(username: &str, password: &str) -> Credentials {
    Credentials {
        username: username.into(),
        password: password.into(),
    }
}

fn put(key: &str, value: &str) -> Write {
    let change = Change::Put {
        value: value.into(),
        lease: None,
    };
    Write {
        key: key.into(),
        change,
        condition: Condition::Always,
    }
}

/// Makes `<name>.pem` and `<name>-key.pem`; but for `ca`, signed by `ca`.
///
/// Without a common name: with one, etcd refuses requests through its gateway once authentication is on.
fn certificate(scratch: &Scratch, name: &str) {
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let mut command = scratch.command("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ]);
    command.args(["-nodes", "-days", "2", "-subj", &format!("/O={name}")]);
    command.args(["-keyout", &path(&format!("{name}-key.pem"))]);
    command.args(["-out", &path(&format!("{name}.pem"))]);
    if name != "ca" {
        command.args(["-CA", &path("ca.pem"), "-CAkey", &path("ca-key.pem")]);
        command.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    }
    let made = command.output().expect("openssl is installed");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}

/// One member, which ends with the scratch directory; returns its URL.
fn start(scratch: &Scratch, token_ttl_s: u32) -> (String, Child) {
    let file = |name: &str| scratch.path().join(name).display().to_string();
    let url = format!("https://127.0.0.1:{}", ports::free().unwrap());
    let peer = format!("http://127.0.0.1:{}", ports::free().unwrap());
    let mut command: Command = scratch.command("etcd");
    command.arg(format!("--data-dir={}", file("data")));
    command.arg(format!("--listen-client-urls={url}"));
    command.arg(format!("--advertise-client-urls={url}"));
    command.arg(format!("--listen-peer-urls={peer}"));
    command.arg(format!("--initial-advertise-peer-urls={peer}"));
    command.arg(format!("--initial-cluster=default={peer}"));
    command.arg(format!("--cert-file={}", file("server.pem")));
    command.arg(format!("--key-file={}", file("server-key.pem")));
    command.arg(format!("--trusted-ca-file={}", file("ca.pem")));
    command.arg("--client-cert-auth");
    command.arg(format!("--auth-token-ttl={token_ttl_s}"));
    let log = std::fs::File::create(scratch.path().join("etcd.log")).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    (url, command.spawn().expect("etcd is installed"))
}

fn config(scratch: &Path, url: &str) -> Etcd3Config {
    Etcd3Config {
        endpoints: vec![url.to_owned()],
        cacert: Some(scratch.join("ca.pem")),
        cert: Some(scratch.join("client.pem")),
        key: Some(scratch.join("client-key.pem")),
        ..Etcd3Config::default()
    }
}

struct Administrator {
    http: HttpClient,
    url: String,
    token: Option<String>,
}

impl Administrator {
    async fn ask(&self, path: &str, body: Value) -> Value {
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.token {
            headers.insert(header::AUTHORIZATION, token.parse().unwrap());
        }
        let (url, body) = (
            format!("{}/v3{path}", self.url),
            Bytes::from(body.to_string()),
        );
        let answer = self
            .http
            .request(Method::POST, &url, headers, body, soon())
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status.is_success(), "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Users `root`, and `agent` who may do anything below `/service/`.
    async fn enable_authentication(&mut self) {
        for (user, password) in [("root", "root secret"), ("agent", "agent secret")] {
            self.ask(
                "/auth/user/add",
                json!({"name": user, "password": password}),
            )
            .await;
            self.ask("/auth/role/add", json!({"name": user})).await;
            self.ask("/auth/user/grant", json!({"user": user, "role": user}))
                .await;
        }
        self.allow("/service/", "/service0").await;
        self.ask("/auth/enable", json!({})).await;
        self.log_in().await;
    }

    /// Its token lapses as everybody's does.
    async fn log_in(&mut self) {
        self.token = None;
        let login = json!({"name": "root", "password": "root secret"});
        let answer = self.ask("/auth/authenticate", login).await;
        self.token = Some(answer["token"].as_str().unwrap().to_owned());
    }

    async fn allow(&self, key: &str, end: &str) {
        use base64::Engine;
        let encode = |text| base64::engine::general_purpose::STANDARD.encode(text);
        let permission =
            json!({"permType": "READWRITE", "key": encode(key), "range_end": encode(end)});
        self.ask(
            "/auth/role/grant",
            json!({"name": "agent", "perm": permission}),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_passwords() {
    let scratch = Scratch::new().unwrap();
    for name in ["ca", "server", "client"] {
        certificate(&scratch, name);
    }
    let (url, mut process) = start(&scratch, 3);
    let with_certificate = config(scratch.path(), &url);
    let store = Etcd3::new(with_certificate.clone()).unwrap();
    store
        .write(put("/service/a", "1"), Instant::now() + PATIENCE)
        .await
        .unwrap();

    // Without a certificate, or without trust, nothing comes about, and that is definite.
    let without = Etcd3Config {
        cert: None,
        key: None,
        ..with_certificate.clone()
    };
    let distrusting = Etcd3Config {
        cacert: None,
        ..with_certificate.clone()
    };
    let missing = Etcd3Config {
        cacert: Some("/nonexistent/ca.pem".into()),
        ..with_certificate.clone()
    };
    for (config, says) in [
        (without, "127.0.0.1"),
        (distrusting, "127.0.0.1"),
        (missing, "/nonexistent/ca.pem"),
    ] {
        let deadline = Instant::now() + Duration::from_secs(3);
        let error = Etcd3::new(config)
            .unwrap()
            .read("/", deadline)
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }

    // A password that nobody asks for does no harm, and works once somebody does.
    let user = |name: &str, password: &str| {
        let credentials = Some(credentials(name, password));
        Etcd3::new(Etcd3Config {
            credentials,
            ..with_certificate.clone()
        })
        .unwrap()
    };
    let early = user("agent", "agent secret");
    early.write(put("/service/a", "2"), soon()).await.unwrap();
    let mut options = ClientOptions::default();
    options.tls.roots = Roots::File(scratch.path().join("ca.pem"));
    options.tls.certificate = Some(ClientCertificate {
        cert: scratch.path().join("client.pem"),
        key: scratch.path().join("client-key.pem"),
        passphrase: None,
    });
    let http = HttpClient::new(options);
    let mut administrator = Administrator {
        http,
        url: url.clone(),
        token: None,
    };
    administrator.enable_authentication().await;

    let agent = user("agent", "agent secret");
    agent.write(put("/service/a", "3"), soon()).await.unwrap();
    early.write(put("/service/a", "4"), soon()).await.unwrap();
    let nobody = store
        .write(put("/service/a", "5"), soon())
        .await
        .unwrap_err();
    assert!(
        matches!(
            nobody,
            StoreError::Refused {
                lease_lapsed: false,
                ..
            }
        ),
        "{nobody}"
    );
    let wrong = user("agent", "wrong secret")
        .read("/service/", soon())
        .await
        .unwrap_err();
    assert!(matches!(wrong, StoreError::Refused { .. }), "{wrong}");
    assert!(!wrong.to_string().contains("secret"), "{wrong}");
    let elsewhere = agent
        .write(put("/elsewhere", "x"), soon())
        .await
        .unwrap_err();
    assert!(
        matches!(elsewhere, StoreError::Refused { .. }),
        "{elsewhere}"
    );

    // A changed password is used from the next request on, also if the user was logged in by the old one.
    let change = json!({"name": "agent", "password": "new secret"});
    administrator.log_in().await;
    administrator.ask("/auth/user/changepw", change).await;
    let outdated = agent.read("/service/", soon()).await.unwrap_err();
    assert!(matches!(outdated, StoreError::Refused { .. }), "{outdated}");
    agent.authenticate_as(Some(credentials("agent", "new secret")));
    agent.write(put("/service/a", "5"), soon()).await.unwrap();

    // Tokens lapse after three seconds without use; the agent logs in again and nobody notices.
    let mut watch = agent.watch("/service/");
    let event = timeout(PATIENCE, watch.recv()).await.unwrap();
    assert_eq!(event, Some(WatchEvent::Resync), "the watch is live");
    let lease = agent
        .grant_lease(Duration::from_secs(30), soon())
        .await
        .unwrap();
    sleep(Duration::from_secs(5)).await;
    agent.renew_lease(&lease, soon()).await.unwrap();
    agent.write(put("/service/a", "6"), soon()).await.unwrap();
    let seen = async {
        loop {
            match watch.recv().await.expect("a watch does not end") {
                WatchEvent::Put(entry) if entry.value == b"6" => return,
                _ => {}
            }
        }
    };
    timeout(PATIENCE, seen)
        .await
        .expect("the watch sees the write");
    agent.revoke_lease(&lease, soon()).await.unwrap();
    agent.delete_prefix("/service/", soon()).await.unwrap();
    drop(scratch);
    process.wait().unwrap();
}
