//! TLS of the agent's own sessions (<https://www.postgresql.org/docs/current/libpq-ssl.html>).

use std::process::Command;

use primacy_postgres::{Credentials, Divergence, Error, Secret, WalsenderClient, describe};

use crate::scratch::{Node, Scratch, soon, until};
use crate::server_test;

/// An authority, and certificates for the server and for the role `certified`, whose key is encrypted as well.
const ISSUE: &str = r#"
set -e
authority() { openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$1" -keyout "$1.key" -out "$1.crt"; }
certificate() {
    openssl req -newkey rsa:2048 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA authority.crt -CAkey authority.key -CAcreateserial -days 2 -out "$1.crt" \
        -extfile <(echo "subjectAltName=IP:127.0.0.1")
}
authority authority
authority stranger
certificate server
certificate certified
openssl pkey -in certified.key -aes256 -passout pass:opens -out encrypted.key
chmod 600 *.key
"#;

/// A primary that takes sessions by TCP with TLS only, but for the role `plain`.
async fn encrypted(scratch: &Scratch, name: &str) -> Node {
    let node = scratch.node(name);
    let mut settings = (*node.server.settings()).clone();
    for (parameter, file) in [
        ("ssl_cert_file", "server.crt"),
        ("ssl_key_file", "server.key"),
        ("ssl_ca_file", "authority.crt"),
    ] {
        let path = scratch.path(file).display().to_string();
        settings.parameters.insert(parameter.into(), path);
    }
    settings.parameters.insert("ssl".into(), "on".into());
    settings.pg_hba = [
        "local all all trust",
        "hostssl all,replication certified 127.0.0.1/32 cert",
        "hostnossl all,replication plain 127.0.0.1/32 scram-sha-256",
        "hostssl all,replication plain 127.0.0.1/32 reject",
        "hostssl all,replication all 127.0.0.1/32 scram-sha-256",
    ]
    .map(str::to_owned)
    .to_vec();
    node.server.replace_settings(settings);
    node
}

fn role(name: &str, options: &[(&str, &str)]) -> Credentials {
    let mut credentials = Credentials {
        username: Some(name.into()),
        password: (name != "certified").then(|| Secret::new("secret")),
        ..Credentials::default()
    };
    let options = options.iter();
    credentials
        .options
        .extend(options.map(|(keyword, value)| (keyword.to_string(), value.to_string())));
    credentials
}

server_test!(encryption, sessions_are_encrypted_as_libpq_has_it, {
    let scratch = Scratch::new();
    let issued = Command::new("bash")
        .args(["-c", ISSUE])
        .current_dir(scratch.directory.path())
        .output()
        .unwrap();
    assert!(issued.status.success(), "{issued:?}");

    let primary = encrypted(&scratch, "pg1").await;
    primary.server.initdb(&[], until()).await.unwrap();
    primary.start(None).await;
    primary.server.post_bootstrap(None, until()).await.unwrap();
    for name in ["usual", "plain", "certified"] {
        primary.sql(&format!(
            "CREATE ROLE {name} LOGIN REPLICATION PASSWORD 'secret'"
        ));
    }

    let file = |name: &str| scratch.path(name).display().to_string();
    let (authority, stranger) = (file("authority.crt"), file("stranger.crt"));
    let (certificate, key, encrypted_key) = (
        file("certified.crt"),
        file("certified.key"),
        file("encrypted.key"),
    );
    let certified = [("sslcert", certificate.as_str()), ("sslkey", key.as_str())];
    let with_passphrase = [
        ("sslcert", certificate.as_str()),
        ("sslkey", encrypted_key.as_str()),
        ("sslpassword", "opens"),
    ];
    for (name, options, taken) in [
        ("usual", &[][..], true),
        ("usual", &[("sslmode", "prefer")], true),
        ("usual", &[("sslmode", "allow")], true),
        ("usual", &[("sslmode", "require")], true),
        ("usual", &[("sslmode", "disable")], false),
        (
            "usual",
            &[("sslmode", "verify-ca"), ("sslrootcert", &authority)],
            true,
        ),
        (
            "usual",
            &[("sslmode", "verify-full"), ("sslrootcert", &authority)],
            true,
        ),
        (
            "usual",
            &[("sslmode", "verify-ca"), ("sslrootcert", &stranger)],
            false,
        ),
        (
            "usual",
            &[("sslmode", "require"), ("sslrootcert", &stranger)],
            false,
        ),
        (
            "usual",
            &[("sslmode", "verify-ca"), ("sslrootcert", "/nowhere")],
            false,
        ),
        ("plain", &[], true),
        ("plain", &[("sslmode", "disable")], true),
        ("plain", &[("sslmode", "require")], false),
        ("certified", &[], false),
        ("certified", &certified, true),
        ("certified", &with_passphrase, true),
    ] {
        let credentials = role(name, options);
        let replication = WalsenderClient::connect(&primary.conninfo(), &credentials, soon()).await;
        let session = describe(&primary.conninfo(), &credentials, &["port"], soon()).await;
        let (replication, session) = (replication.err(), session.err());
        assert_eq!(
            replication.is_none(),
            taken,
            "{name} {options:?}: {replication:?}"
        );
        assert_eq!(session.is_none(), taken, "{name} {options:?}: {session:?}");
        // Refused in words that help, by this side or the other one.
        for error in [replication, session].into_iter().flatten() {
            let known = matches!(error, Error::Refused { .. } | Error::Unreachable { .. });
            assert!(known, "{error:?}");
        }
    }

    let standby = encrypted(&scratch, "pg2").await;
    let request = primacy_postgres::ReplicaRequest {
        source: Some(primary.conninfo()),
        ..primacy_postgres::ReplicaRequest::default()
    };
    standby
        .server
        .create_replica(request, until())
        .await
        .unwrap();
    standby.start(Some(&primary)).await;
    standby
        .until("streaming", |seen| {
            seen.wal.as_ref().is_some_and(|wal| wal.receiver.is_some())
        })
        .await;
    let compared = standby
        .server
        .check_divergence(&primary.conninfo(), soon())
        .await;
    assert_eq!(compared, Divergence::Same);
    let identity = standby.server.local_identity(soon()).await;
    assert!(identity.is_ok(), "{identity:?}");
});
