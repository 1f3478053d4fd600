//! TLS on both ends of a connection.

mod ciphers;
mod client;
mod current;
mod pem;
mod server;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use ciphers::Ciphers;
pub(crate) use client::refused_by_peer;
pub use client::{ClientCertificate, Duplex, Roots, TlsClient, TlsClientOptions, Verify};
pub(crate) use current::CurrentTls;
pub use pem::Passphrase;
pub use server::{ClientVerification, TlsServer, TlsServerOptions};

/// Chooses the cryptography for the whole process: libraries that set TLS up themselves need that. Call
/// it first thing in `main`; more calls do nothing. This crate's own TLS does not depend on it.
pub fn install_crypto_provider() {
    // An error means that it has been done already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {what} from {}: {reason}", path.display())]
    Read {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: std::io::Error,
    },
    /// A file holds something else.
    #[error("{} has no usable {what}: {reason}", path.display())]
    Unusable {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The settings do not go together, or the system lacks something.
    #[error("{0}")]
    Settings(String),
}
