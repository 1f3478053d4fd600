//! The API over TLS, and the exchange of certificates.

use primacy_config::Secret;
use primacy_config::local::VerifyClient;
use primacy_net::{ClientOptions, HttpClient};
use tokio::time::Instant;

use super::bench::{Bench, PATIENCE, section};
use super::primary;

/// Certificates as an operator would make them, and an exchange of plain for encrypted on a live listener.
#[tokio::test]
async fn https_can_be_switched_on() {
    primacy_net::install_crypto_provider();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let certificate = async |name: &str, more: &[&str]| {
        let (key, cert) = (
            path(&format!("{name}-key.pem")),
            path(&format!("{name}.pem")),
        );
        let made = tokio::process::Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args([
                "-days",
                "2",
                "-subj",
                &format!("/CN={name}"),
                "-keyout",
                &key,
                "-out",
                &cert,
            ])
            .args(more)
            .output();
        assert!(made.await.unwrap().status.success());
    };
    certificate("ca", &[]).await;
    let (ca, ca_key) = (path("ca.pem"), path("ca-key.pem"));
    let leaf = [
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ];
    certificate("member", &leaf).await;
    let (cert, key) = (path("member.pem"), path("member-key.pem"));
    let mut bench = Bench::new(primary(), section()).await;
    let mut https = section();
    https.certfile = Some(cert.clone());
    https.keyfile = Some(key.clone());
    https.cafile = Some(ca.clone());
    https.verify_client = VerifyClient::Optional;
    https.https_extra_headers = [("Strict-Transport-Security".into(), "max-age=1".into())].into();
    let client = |options: ClientOptions| {
        let mut options = options;
        options.tls.verify = primacy_net::Verify::None;
        HttpClient::new(options)
    };
    bench
        .server
        .reconfigure(&https, client(ClientOptions::default()))
        .await
        .unwrap();
    assert_eq!(
        bench.server.local_address().unwrap(),
        bench.address,
        "the listener stays"
    );

    let ask = async |client: &HttpClient, method, path: &str| {
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
            .unwrap()
    };
    let anonymous = client(ClientOptions::default());
    let status = ask(&anonymous, primacy_net::Method::GET, "/primary").await;
    assert_eq!(status.status, 200);
    assert_eq!(status.headers["Strict-Transport-Security"], "max-age=1");
    let refused = ask(&anonymous, primacy_net::Method::POST, "/reload").await;
    assert_eq!(
        (refused.status.as_u16(), &refused.body[..]),
        (403, &b"client certificate required"[..])
    );
    let mut options = ClientOptions::default();
    options.tls.certificate = Some(primacy_net::ClientCertificate {
        cert: cert.clone().into(),
        key: key.clone().into(),
    });
    let accepted = ask(&client(options), primacy_net::Method::POST, "/reload").await;
    assert_eq!(accepted.status, 202);

    let mut encrypted = https.clone();
    encrypted.keyfile_password = Some(Secret::new("x"));
    let error = bench
        .server
        .reconfigure(&encrypted, anonymous)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains(&key), "{error}");
    bench.server.stop().await;
}
