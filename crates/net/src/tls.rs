//! TLS on both ends of a connection.

use std::path::PathBuf;

/// Chooses the cryptography for the whole process. Call it first thing in `main`; more calls do nothing.
pub fn install_crypto_provider() {
    unimplemented!()
}

/// How a client proves itself and what it trusts. Nothing is read until the first `https` connection.
#[derive(Clone, Debug, Default)]
pub struct TlsClientOptions {
    /// Who may vouch for the server.
    pub roots: Roots,
    /// What the client shows when asked for a certificate.
    pub certificate: Option<ClientCertificate>,
    /// How much of the server's certificate is checked.
    pub verify: Verify,
}

/// Who may vouch for a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// The certificate authorities of the operating system.
    #[default]
    System,
    /// Those in a PEM file.
    File(PathBuf),
}

/// A certificate and its key, both PEM. The two may be one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain, own certificate first.
    pub cert: PathBuf,
    /// The private key, not encrypted.
    pub key: PathBuf,
}

/// How much of a server's certificate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Nothing: any certificate will do. Encrypts, but does not tell who answers.
    None,
    /// That one of the roots vouches for it, not its name.
    Chain,
    /// The chain and the name.
    #[default]
    Full,
}

/// What a server shows and what it asks of its clients.
#[derive(Clone, Debug)]
pub struct TlsServerOptions {
    /// PEM: the chain, own certificate first.
    pub cert: PathBuf,
    /// PEM: the private key, not encrypted; `None` when it is in the same file.
    pub key: Option<PathBuf>,
    /// PEM: who may vouch for clients. Needed unless the verification is `None`.
    pub client_ca: Option<PathBuf>,
    /// Whether clients must show a certificate.
    pub client_verification: ClientVerification,
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientVerification {
    /// They are not asked.
    #[default]
    None,
    /// They may; one that is shown must be good.
    Optional,
    /// They must.
    Required,
}

/// The TLS end of a server; its certificates can be exchanged while it serves. Clones share them.
#[derive(Clone)]
pub struct TlsServer {}

impl TlsServer {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file cannot be read, or holds something else than it should.
    pub fn new(_options: &TlsServerOptions) -> Result<Self, TlsError> {
        unimplemented!()
    }

    /// Reads the files and uses them for all connections from now on. On error the old ones stay.
    ///
    /// # Errors
    /// As [`TlsServer::new`].
    pub fn replace(&self, _options: &TlsServerOptions) -> Result<(), TlsError> {
        unimplemented!()
    }
}

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {what} from {}", path.display())]
    Read {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
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
    /// The settings do not go together.
    #[error("TLS settings: {0}")]
    Settings(String),
}
