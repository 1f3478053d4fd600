//! Who trusts whom.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use primacy_net::{
    Bytes, ClientCertificate, ClientOptions, ClientVerification, Full, HeaderMap, HttpClient,
    HttpError, Method, Passphrase, Peer, Request, RequestBody, Response, Roots, ServerLimits,
    TlsClientOptions, TlsError, TlsServer, TlsServerOptions, Verify, serve,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A certificate authority in a scratch directory, and what it has signed.
struct Authority {
    directory: TempDir,
}

impl Authority {
    fn new() -> Self {
        let authority = Authority {
            directory: tempfile::tempdir().unwrap(),
        };
        authority.make("ca", &[]);
        authority
    }

    /// The file of that name.
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes `<name>.pem` and `<name>-key.pem`, good for a subject alternative name such as `IP:127.0.0.1`.
    fn sign(&self, name: &str, alternative_name: &str) {
        let path = |name| self.path(name).to_str().unwrap().to_owned();
        let alternative_name = format!("subjectAltName={alternative_name}");
        let not_ca = "basicConstraints=critical,CA:FALSE";
        let (ca, key) = (path("ca.pem"), path("ca-key.pem"));
        self.make(
            name,
            &[
                "-CA",
                &ca,
                "-CAkey",
                &key,
                "-addext",
                &alternative_name,
                "-addext",
                not_ca,
            ],
        );
    }

    fn make(&self, name: &str, more: &[&str]) {
        let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
        let files = format!("-subj /CN={name} -keyout {name}-key.pem -out {name}.pem");
        self.openssl(&format!("{new} {files}"), more);
    }

    /// Makes the same by way of a request, as most recipes do; without extensions that is X.509 version 1 before
    /// OpenSSL 3.2.
    fn answer(&self, name: &str, issuer: &str, days: i32, extensions: &str) {
        let new = "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        let files = format!("-subj /CN={name} -keyout {name}-key.pem -out request");
        self.openssl(&format!("{new} {files}"), &[]);
        let mut more = Vec::new();
        if !extensions.is_empty() {
            std::fs::write(self.path("extensions"), extensions).unwrap();
            more = vec!["-extfile", "extensions"];
        }
        let by = if issuer == name {
            format!("-signkey {name}-key.pem")
        } else {
            format!("-CA {issuer}.pem -CAkey {issuer}-key.pem -CAcreateserial")
        };
        let how = format!("x509 -req -in request -days {days} {by} -out {name}.pem");
        self.openssl(&how, &more);
    }

    /// In the directory; the first arguments are separated by blanks.
    fn openssl(&self, arguments: &str, more: &[&str]) {
        let made = Command::new("openssl")
            .args(arguments.split(' '))
            .args(more)
            .current_dir(self.directory.path())
            .output()
            .expect("openssl is installed");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{arguments}: {said}");
    }
}

async fn who(_: Request<RequestBody>, peer: Peer) -> Response<Full<Bytes>> {
    let text = format!("tls={} certificate={}", peer.tls, peer.client_certificate);
    Response::new(Full::new(text.into()))
}

fn options(authority: &Authority, name: &str) -> TlsServerOptions {
    TlsServerOptions {
        cert: authority.path(&format!("{name}.pem")),
        key: Some(authority.path(&format!("{name}-key.pem"))),
        passphrase: None,
        client_ca: Some(authority.path("ca.pem")),
        client_verification: ClientVerification::None,
        ciphers: None,
    }
}

async fn start(tls: TlsServer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(serve(
        listener,
        Some(tls),
        ServerLimits::default(),
        who,
        stop,
    ));
    address
}

fn client(tls: TlsClientOptions) -> HttpClient {
    HttpClient::new(ClientOptions {
        tls,
        ..ClientOptions::default()
    })
}

async fn ask(tls: TlsClientOptions, address: SocketAddr) -> Result<String, HttpError> {
    ask_by(&client(tls), address).await
}

async fn ask_by(client: &HttpClient, address: SocketAddr) -> Result<String, HttpError> {
    let (url, deadline) = (
        format!("https://{address}/"),
        Instant::now() + Duration::from_secs(20),
    );
    let answer = client
        .request(Method::POST, &url, HeaderMap::new(), "x".into(), deadline)
        .await?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

#[tokio::test]
async fn servers_are_checked_as_far_as_wanted() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    ours.sign("named", "IP:127.0.0.1");
    ours.sign("other", "DNS:elsewhere");
    let named = start(TlsServer::new(&options(&ours, "named")).unwrap()).await;
    let other = start(TlsServer::new(&options(&ours, "other")).unwrap()).await;
    for (authority, server, verify, trusted) in [
        (&ours, named, Verify::Full, true),
        (&ours, other, Verify::Full, false),
        (&theirs, named, Verify::Full, false),
        (&ours, other, Verify::Chain, true),
        (&theirs, named, Verify::Chain, false),
        (&theirs, other, Verify::None, true),
    ] {
        let roots = Roots::File(authority.path("ca.pem"));
        let answer = ask(
            TlsClientOptions {
                roots,
                verify,
                certificate: None,
            },
            server,
        )
        .await;
        match answer {
            Ok(answer) => assert!(
                trusted && answer == "tls=true certificate=false",
                "{verify:?}"
            ),
            Err(error) => {
                assert!(
                    matches!(error, HttpError::Tls { .. }) && !error.was_sent(),
                    "{error}"
                );
                assert!(!trusted, "{verify:?}: {error}");
            }
        }
    }
}

/// The directory holds keys as well.
#[tokio::test]
async fn authorities_of_a_directory() {
    let authority = Authority::new();
    authority.sign("server", "IP:127.0.0.1");
    let server = start(TlsServer::new(&options(&authority, "server")).unwrap()).await;
    let trusting = |directory: &std::path::Path| TlsClientOptions {
        roots: Roots::File(directory.to_owned()),
        ..TlsClientOptions::default()
    };
    ask(trusting(authority.directory.path()), server)
        .await
        .unwrap();
    let empty = tempfile::tempdir().unwrap();
    let error = ask(trusting(empty.path()), server).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no file in it has a certificate"),
        "{error}"
    );
}

#[tokio::test]
async fn clients_are_checked_as_far_as_wanted() {
    use ClientVerification::{None, Optional, Required};
    let (ours, theirs) = (Authority::new(), Authority::new());
    for (authority, name) in [(&ours, "server"), (&ours, "client"), (&theirs, "client")] {
        authority.sign(name, "IP:127.0.0.1");
    }
    // One of them with its key encrypted.
    let (plain, encrypted) = (ours.path("client-key.pem"), ours.path("encrypted.pem"));
    let made = Command::new("openssl")
        .args(["pkcs8", "-topk8", "-passout", "pass:sesame", "-in"])
        .args([&plain, Path::new("-out"), &encrypted])
        .status()
        .unwrap();
    assert!(made.success());
    std::fs::rename(&encrypted, &plain).unwrap();
    let certificate = |authority: &Authority| ClientCertificate {
        cert: authority.path("client.pem"),
        key: authority.path("client-key.pem"),
        passphrase: Some(Passphrase::new("sesame")),
    };
    let cases = [
        (None, Some(&ours), Ok(false)),
        (Optional, Option::None, Ok(false)),
        (Optional, Some(&ours), Ok(true)),
        (Optional, Some(&theirs), Err(())),
        (Required, Option::None, Err(())),
        (Required, Some(&ours), Ok(true)),
        (Required, Some(&theirs), Err(())),
    ];
    for (client_verification, shown, expected) in cases {
        let server = TlsServerOptions {
            client_verification,
            ..options(&ours, "server")
        };
        let server = start(TlsServer::new(&server).unwrap()).await;
        let roots = Roots::File(ours.path("ca.pem"));
        let certificate = shown.map(certificate);
        let answer = ask(
            TlsClientOptions {
                roots,
                certificate,
                verify: Verify::Full,
            },
            server,
        )
        .await;
        match (answer, expected) {
            (Ok(answer), Ok(known)) => assert_eq!(answer, format!("tls=true certificate={known}")),
            // The refusal may be overtaken by the end of the connection; then nothing is known.
            (Err(HttpError::Tls { .. } | HttpError::NoAnswer { .. }), Err(())) => {}
            (answer, _) => panic!("{client_verification:?}: {answer:?}"),
        }
    }
}

#[tokio::test]
async fn certificates_are_exchanged_while_serving() {
    let (old, new) = (Authority::new(), Authority::new());
    old.sign("server", "IP:127.0.0.1");
    new.sign("server", "IP:127.0.0.1");
    let server = TlsServer::new(&options(&old, "server")).unwrap();
    let address = start(server.clone()).await;
    let trusting = |authority: &Authority| TlsClientOptions {
        roots: Roots::File(authority.path("ca.pem")),
        ..TlsClientOptions::default()
    };
    ask(trusting(&old), address).await.unwrap();
    server.replace(&options(&new, "nothing")).unwrap_err();
    ask(trusting(&old), address).await.unwrap();
    server.replace(&options(&new, "server")).unwrap();
    ask(trusting(&new), address).await.unwrap();
    ask(trusting(&old), address).await.unwrap_err();
}

/// Agents live for months, short-lived certificates for hours.
#[tokio::test]
async fn renewed_files_are_used_by_new_connections() {
    let (old, new) = (Authority::new(), Authority::new());
    for authority in [&old, &new] {
        authority.sign("server", "IP:127.0.0.1");
        authority.sign("client", "IP:127.0.0.1");
    }
    let server = |authority: &Authority| {
        let required = TlsServerOptions {
            client_verification: ClientVerification::Required,
            ..options(authority, "server")
        };
        start(TlsServer::new(&required).unwrap())
    };
    let (old_server, new_server) = (server(&old).await, server(&new).await);
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str| files.path().join(name);
    // As renewals do it: in place, or by a name that comes to mean another file.
    let copy = |authority: &Authority, name: &str| {
        std::fs::copy(authority.path(name), file(name)).unwrap();
    };
    let exchange = |authority: &Authority, name: &str| {
        std::fs::copy(authority.path(name), file("new")).unwrap();
        std::fs::rename(file("new"), file(name)).unwrap();
    };
    for name in ["ca.pem", "client.pem", "client-key.pem"] {
        copy(&old, name);
    }
    let client = client(TlsClientOptions {
        roots: Roots::File(file("ca.pem")),
        certificate: Some(ClientCertificate {
            cert: file("client.pem"),
            key: file("client-key.pem"),
            passphrase: None,
        }),
        verify: Verify::Full,
    });
    ask_by(&client, old_server).await.unwrap();
    ask_by(&client, new_server).await.unwrap_err();

    // Half of it: what there was before stays. The server is a new one, since connections are kept.
    exchange(&new, "client.pem");
    let another_old = server(&old).await;
    ask_by(&client, another_old).await.unwrap();
    std::fs::remove_file(file("ca.pem")).unwrap();
    let another_old = server(&old).await;
    ask_by(&client, another_old).await.unwrap();

    exchange(&new, "client-key.pem");
    copy(&new, "ca.pem");
    // A look at the files that takes long on a busy machine is for the connection after it.
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = ask_by(&client, new_server).await {
        assert!(Instant::now() < deadline, "{error}");
    }
    let another_old = server(&old).await;
    ask_by(&client, another_old).await.unwrap_err();
}

/// What `openssl` makes by the usual recipes: of version 1, or the certificate of an authority.
fn usual_certificates() -> Authority {
    let authority = Authority::new();
    let here = "subjectAltName=IP:127.0.0.1";
    for (name, extension) in [
        ("self", &["-addext", here][..]),
        (
            "self-elsewhere",
            &["-addext", "subjectAltName=DNS:elsewhere"],
        ),
        ("self-nameless", &[]),
        (
            "limited",
            &["-addext", "nameConstraints=permitted;DNS:elsewhere"],
        ),
        (
            "authority-by-ca",
            &["-CA", "ca.pem", "-CAkey", "ca-key.pem", "-addext", here],
        ),
    ] {
        authority.make(name, extension);
    }
    let ca_true = format!("basicConstraints=CA:TRUE\n{here}");
    for (name, issuer, days, extensions) in [
        ("self-expired", "self-expired", -1, &*ca_true),
        ("old", "ca", 2, ""),
        ("old-expired", "ca", -1, ""),
        ("old-by-limited", "limited", 2, ""),
        ("old-self", "old-self", 2, ""),
        ("old-self-expired", "old-self-expired", -1, ""),
        ("new", "ca", 2, here),
    ] {
        authority.answer(name, issuer, days, extensions);
    }
    authority
}

/// What is shown, what is trusted, and what comes of it, or is in the reason why not: without names, and with them.
type Usual = (
    &'static str,
    &'static str,
    Result<(), &'static str>,
    Result<(), &'static str>,
);

const EXPIRED: Result<(), &str> = Err("Expired");
const UNKNOWN: Result<(), &str> = Err("UnknownIssuer");
const NOT_TRUSTED: Result<(), &str> = Err("or trust this very certificate");
const NO_NAME: Result<(), &str> = Err("name");

const USUAL: [Usual; 18] = [
    ("new", "ca", Ok(()), Ok(())),
    ("self", "self", Ok(()), Ok(())),
    ("self-elsewhere", "self-elsewhere", Ok(()), NO_NAME),
    ("self-nameless", "self-nameless", Ok(()), NO_NAME),
    ("self-expired", "self-expired", EXPIRED, EXPIRED),
    ("self", "ca", NOT_TRUSTED, NOT_TRUSTED),
    // Another one of the same name, as an impostor has it.
    ("self", "other/self", NOT_TRUSTED, NOT_TRUSTED),
    ("authority-by-ca", "ca", NOT_TRUSTED, NOT_TRUSTED),
    ("authority-by-ca", "authority-by-ca", Ok(()), Ok(())),
    ("old", "ca", Ok(()), NO_NAME),
    ("old", "old", UNKNOWN, UNKNOWN),
    ("old", "self", UNKNOWN, UNKNOWN),
    // Another authority of the same name.
    ("old", "other/ca", UNKNOWN, UNKNOWN),
    ("old-expired", "ca", EXPIRED, EXPIRED),
    // Whoever may vouch for some names only has not seen any.
    ("old-by-limited", "limited", UNKNOWN, UNKNOWN),
    ("old-self", "old-self", Ok(()), NO_NAME),
    ("old-self", "ca", UNKNOWN, UNKNOWN),
    ("old-self-expired", "old-self-expired", EXPIRED, EXPIRED),
];

fn trusted_file(ours: &Authority, other: &Authority, name: &str) -> PathBuf {
    match name.strip_prefix("other/") {
        Some(name) => other.path(&format!("{name}.pem")),
        None => ours.path(&format!("{name}.pem")),
    }
}

#[tokio::test]
async fn servers_with_what_openssl_makes() {
    let (ours, other) = (usual_certificates(), usual_certificates());
    for (shown, trusted, chain, full) in USUAL {
        let server = start(TlsServer::new(&options(&ours, shown)).unwrap()).await;
        let roots = Roots::File(trusted_file(&ours, &other, trusted));
        for (verify, expected) in [
            (Verify::None, Ok(())),
            (Verify::Chain, chain),
            (Verify::Full, full),
        ] {
            let tls = TlsClientOptions {
                roots: roots.clone(),
                verify,
                certificate: None,
            };
            let case = format!("{shown} by who trusts {trusted}, {verify:?}");
            match (ask(tls, server).await, expected) {
                (Ok(_), Ok(())) => {}
                (Err(error @ HttpError::Tls { .. }), Err(reason)) => {
                    assert!(error.to_string().contains(reason), "{case}: {error}");
                }
                (answer, _) => panic!("{case}: {answer:?}"),
            }
        }
    }
}

#[tokio::test]
async fn clients_with_what_openssl_makes() {
    let (ours, other) = (usual_certificates(), usual_certificates());
    for (shown, trusted, chain, _) in USUAL {
        let server = TlsServerOptions {
            client_ca: Some(trusted_file(&ours, &other, trusted)),
            client_verification: ClientVerification::Required,
            ..options(&ours, "new")
        };
        let server = start(TlsServer::new(&server).unwrap()).await;
        let tls = TlsClientOptions {
            roots: Roots::File(ours.path("ca.pem")),
            verify: Verify::Full,
            certificate: Some(ClientCertificate {
                cert: ours.path(&format!("{shown}.pem")),
                key: ours.path(&format!("{shown}-key.pem")),
                passphrase: None,
            }),
        };
        match (ask(tls, server).await, chain) {
            (Ok(answer), Ok(())) => assert_eq!(answer, "tls=true certificate=true"),
            // The refusal may be overtaken by the end of the connection; then nothing is known.
            (Err(HttpError::Tls { .. } | HttpError::NoAnswer { .. }), Err(_)) => {}
            (answer, _) => panic!("{shown} to who trusts {trusted}: {answer:?}"),
        }
    }
}

#[test]
fn bad_files_are_named() {
    let authority = Authority::new();
    authority.sign("server", "IP:127.0.0.1");
    authority.answer("old", "ca", 2, "");
    let good = options(&authority, "server");
    let cert = || good.cert.clone();
    let encrypted = authority.path("encrypted.pem");
    std::fs::write(
        &encrypted,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    for (options, says) in [
        (
            TlsServerOptions {
                cert: authority.path("missing"),
                ..good.clone()
            },
            "missing",
        ),
        (
            TlsServerOptions {
                key: Some(cert()),
                ..good.clone()
            },
            "PRIVATE KEY section",
        ),
        (
            TlsServerOptions {
                cert: authority.path("server-key.pem"),
                ..good.clone()
            },
            "CERTIFICATE section",
        ),
        (
            TlsServerOptions {
                key: Some(encrypted),
                ..good.clone()
            },
            "openssl pkey",
        ),
        (
            TlsServerOptions {
                key: Some(authority.path("ca-key.pem")),
                ..good.clone()
            },
            "server.pem",
        ),
        (
            TlsServerOptions {
                cert: authority.path("old.pem"),
                ..good.clone()
            },
            "KeyMismatch",
        ),
        (
            TlsServerOptions {
                client_ca: None,
                client_verification: ClientVerification::Required,
                ..good.clone()
            },
            "CA file",
        ),
    ] {
        let error: TlsError = TlsServer::new(&options).unwrap_err();
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
}
