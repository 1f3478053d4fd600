//! Reading certificates and keys from PEM files.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;

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

/// The private key of a file.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    const WHAT: &str = "private key";
    let text = read(WHAT, path)?;
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
                "it is encrypted: decrypt it with `openssl pkey`",
            )
        } else if matches!(error, pem::Error::NoItemsFound) {
            unusable(WHAT, path, "it has no PRIVATE KEY section")
        } else {
            unusable(WHAT, path, error)
        }
    })
}

/// The certificate authorities of a file, or of all files of a directory that hold certificates.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    const WHAT: &str = "certificate authority";
    let mut roots = RootCertStore::empty();
    if path.is_dir() {
        let unreadable = |reason| TlsError::Read {
            what: WHAT,
            path: path.to_owned(),
            reason,
        };
        for entry in std::fs::read_dir(path).map_err(unreadable)? {
            let file = entry.map_err(unreadable)?.path();
            roots.add_parsable_certificates(certificates(WHAT, &file).unwrap_or_default());
        }
        if roots.is_empty() {
            return Err(unusable(WHAT, path, "no file in it has a certificate"));
        }
        return Ok(roots);
    }
    for certificate in certificates(WHAT, path)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(WHAT, path, error))?;
    }
    Ok(roots)
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
