//! Reading certificates and keys from PEM files.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::TlsError;
use super::verify::Trusted;

/// The certificates of a file, at least one.
pub(super) fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(what, path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(unusable(what, path, "it has no CERTIFICATE section"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unusable(what, path, error)),
    }
}

/// What a private key is encrypted with. Shows itself to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(String);

impl Passphrase {
    /// Takes the text.
    pub fn new(text: impl Into<String>) -> Self {
        Passphrase(text.into())
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(***)")
    }
}

/// The private key of a file, decrypted where it is encrypted. A passphrase that no key needs is overlooked, as
/// OpenSSL does.
pub(super) fn private_key(
    path: &Path,
    passphrase: Option<&Passphrase>,
) -> Result<PrivateKeyDer<'static>, TlsError> {
    const WHAT: &str = "private key";
    let text = read(WHAT, path)?;
    if let (Some(passphrase), Some(key)) = (passphrase, encrypted_key(&text)) {
        return decrypt(&key, passphrase).map_err(|reason| unusable(WHAT, path, reason));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let encrypted = [
            &b"BEGIN ENCRYPTED PRIVATE KEY"[..],
            b"Proc-Type: 4,ENCRYPTED",
        ];
        if encrypted
            .iter()
            .any(|mark| text.windows(mark.len()).any(|part| part == *mark))
        {
            unusable(
                WHAT,
                path,
                "it is encrypted, and no passphrase is set or it is not in PKCS #8: see `openssl pkey`",
            )
        } else if matches!(error, pem::Error::NoItemsFound) {
            unusable(WHAT, path, "it has no PRIVATE KEY section")
        } else {
            unusable(WHAT, path, error)
        }
    })
}

/// The DER of an encrypted PKCS #8 key in a PEM file, if there is one.
fn encrypted_key(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, rest) = text.split_once("-----BEGIN ENCRYPTED PRIVATE KEY-----")?;
    let (body, _) = rest.split_once("-----END ENCRYPTED PRIVATE KEY-----")?;
    let body: String = body.split_whitespace().collect();
    STANDARD.decode(body).ok()
}

fn decrypt(key: &[u8], passphrase: &Passphrase) -> Result<PrivateKeyDer<'static>, String> {
    let key = EncryptedPrivateKeyInfoRef::try_from(key).map_err(|error| error.to_string())?;
    let key = key
        .decrypt(&passphrase.0)
        .map_err(|error| format!("it cannot be decrypted, is the passphrase right? ({error})"))?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

/// The certificate authorities of a file, or of all files of a directory that hold certificates.
pub(super) fn authorities(path: &Path) -> Result<Trusted, TlsError> {
    const WHAT: &str = "certificate authority";
    if path.is_dir() {
        let unreadable = |reason| TlsError::Read {
            what: WHAT,
            path: path.to_owned(),
            reason,
        };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).map_err(unreadable)? {
            let file = entry.map_err(unreadable)?.path();
            found.extend(certificates(WHAT, &file).unwrap_or_default());
        }
        return Trusted::parsable(found)
            .ok_or_else(|| unusable(WHAT, path, "no file in it has a certificate"));
    }
    let certificates = certificates(WHAT, path)?;
    let mut anchors = RootCertStore::empty();
    for certificate in &certificates {
        anchors
            .add(certificate.clone())
            .map_err(|error| unusable(WHAT, path, error))?;
    }
    Ok(Trusted {
        anchors: Arc::new(anchors),
        certificates,
    })
}

pub(super) fn unusable(
    what: &'static str,
    path: &Path,
    reason: impl std::fmt::Display,
) -> TlsError {
    TlsError::Unusable {
        what,
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|reason| TlsError::Read {
        what,
        path: path.to_owned(),
        reason,
    })
}

/// What operators have in their files, spoiled; `make fuzz`.
#[cfg(test)]
mod fuzz {
    use super::*;

    #[test]
    #[ignore = "long: make fuzz"]
    fn pem_files() {
        let openssl = |arguments: &str| {
            let output = std::process::Command::new("openssl")
                .args(arguments.split(' '))
                .output();
            output.expect("openssl").stdout
        };
        let both = openssl("req -x509 -newkey ed25519 -nodes -subj /CN=a -keyout -");
        let curve = openssl("genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-256 -outform PEM");
        let encrypted = openssl("genpkey -algorithm ed25519 -aes256 -pass pass:x");
        let directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
        let path = directory.path().join("x.pem");
        let provider = crate::tls::provider();
        let samples = [both.as_slice(), &curve, &encrypted];
        primacy_fuzz::bytes(&samples, |input| {
            std::fs::write(&path, input).expect("a file");
            let authorities = authorities(&path).is_ok();
            let certificates = certificates("certificate", &path);
            assert!(certificates.is_ok() || !authorities);
            let key = private_key(&path, None);
            if let Ok(key) = &key {
                // What is no key of its kind is refused, where it is used.
                let _ = provider.key_provider.load_private_key(key.clone_key());
            }
            // It is not decrypted: how long that takes is up to the file.
            let encrypted = encrypted_key(input);
            let encrypted = encrypted
                .as_deref()
                .map(EncryptedPrivateKeyInfoRef::try_from);
            key.is_ok() || certificates.is_ok() || encrypted.is_some_and(|key| key.is_ok())
        });
    }
}
