//! The server's end, whose certificates can be exchanged while it serves.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::pem::{self, Passphrase};
use super::verify::{ClientChecks, own_certificate};
use super::{Ciphers, TlsError, provider};

/// What a server shows and what it asks of its clients.
#[derive(Clone, Debug)]
pub struct TlsServerOptions {
    /// PEM: the chain, own certificate first.
    pub cert: PathBuf,
    /// PEM: the private key; `None` when it is in the same file.
    pub key: Option<PathBuf>,
    /// What the key is encrypted with, if it is.
    pub passphrase: Option<Passphrase>,
    /// PEM: who may vouch for clients. Needed unless the verification is `None`.
    pub client_ca: Option<PathBuf>,
    /// Whether clients must show a certificate.
    pub client_verification: ClientVerification,
    /// What is offered, the preferred one first; `None`: all that there is, and the client chooses.
    pub ciphers: Option<Ciphers>,
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

/// The TLS end of a server. Clones share their certificates.
#[derive(Clone)]
pub struct TlsServer {
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

impl TlsServer {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// When a file cannot be read, or holds something else than it should.
    pub fn new(options: &TlsServerOptions) -> Result<Self, TlsError> {
        let config = server_config(options)?;
        Ok(TlsServer {
            config: Arc::new(RwLock::new(Arc::new(config))),
        })
    }

    /// Reads the files and uses them for all connections from now on; one that is open carries at most one more
    /// request. On error the old certificates stay. Blocks.
    ///
    /// # Errors
    /// As [`TlsServer::new`].
    pub fn replace(&self, options: &TlsServerOptions) -> Result<(), TlsError> {
        let config = Arc::new(server_config(options)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Makes a TCP connection a TLS one. Also returns what it was made with, for [`TlsServer::is_current`].
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Arc<ServerConfig>)> {
        let config = self.config();
        let stream = TlsAcceptor::from(Arc::clone(&config))
            .accept(stream)
            .await?;
        Ok((stream, config))
    }

    /// Whether nothing was exchanged since a connection was made.
    pub(crate) fn is_current(&self, config: &Arc<ServerConfig>) -> bool {
        Arc::ptr_eq(&self.config(), config)
    }

    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer").finish_non_exhaustive()
    }
}

fn server_config(options: &TlsServerOptions) -> Result<ServerConfig, TlsError> {
    let mut provider = provider();
    if let Some(ciphers) = &options.ciphers {
        Arc::make_mut(&mut provider).cipher_suites = ciphers.suites().to_vec();
    }
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Settings(error.to_string()))?;
    let builder = match (options.client_verification, &options.client_ca) {
        (ClientVerification::None, _) => builder.with_no_client_auth(),
        (_, None) => {
            return Err(TlsError::Settings(
                "clients' certificates cannot be verified without a CA file".into(),
            ));
        }
        (verification, Some(path)) => {
            let optional = verification == ClientVerification::Optional;
            let checks =
                ClientChecks::new(pem::authorities(path)?, optional, Arc::clone(&provider))
                    .map_err(|error| pem::unusable("certificate authority", path, error))?;
            builder.with_client_cert_verifier(Arc::new(checks))
        }
    };
    let chain = pem::certificates("server certificate", &options.cert)?;
    let key = options.key.as_ref().unwrap_or(&options.cert);
    let key = pem::private_key(key, options.passphrase.as_ref())?;
    let own = own_certificate(chain, key, &provider)
        .map_err(|error| pem::unusable("server certificate", &options.cert, error))?;
    let mut config = builder.with_cert_resolver(own);
    config.ignore_client_order = options.ciphers.is_some();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
