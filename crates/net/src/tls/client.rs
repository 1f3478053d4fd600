//! The client's end: whom it trusts, and what it shows.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::pem::Passphrase;
use super::verify::{
    Trusted, own_certificate, refused, tls12_signature, tls13_signature, verify_name,
};
use super::{TlsError, pem, provider};

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
    /// Those in a PEM file, or in the PEM files of a directory.
    File(PathBuf),
}

/// A certificate and its key, both PEM. The two may be one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain, own certificate first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// Of the key, where that is encrypted.
    pub passphrase: Option<Passphrase>,
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

impl TlsClientOptions {
    /// The files and directories that are read.
    pub(crate) fn files(&self) -> Vec<&Path> {
        let mut files = Vec::new();
        if let (Roots::File(path), Verify::Chain | Verify::Full) = (&self.roots, self.verify) {
            files.push(path.as_path());
        }
        if let Some(certificate) = &self.certificate {
            files.extend([certificate.cert.as_path(), &certificate.key]);
        }
        files
    }
}

/// The options with their files read.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
}

impl TlsClient {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// A file that cannot be read or holds something else.
    pub fn new(options: &TlsClientOptions) -> Result<Self, TlsError> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Settings(error.to_string()))?;
        let builder = builder.dangerous();
        let builder = match options.verify {
            Verify::None => {
                let algorithms = provider.signature_verification_algorithms;
                builder.with_custom_certificate_verifier(Arc::new(AnyCertificate { algorithms }))
            }
            Verify::Chain | Verify::Full => {
                let checks = ServerChecks::new(
                    roots(&options.roots)?,
                    options.verify == Verify::Full,
                    Arc::clone(&provider),
                )
                .map_err(|error| TlsError::Settings(error.to_string()))?;
                builder.with_custom_certificate_verifier(Arc::new(checks))
            }
        };
        let config = match &options.certificate {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let chain = pem::certificates("client certificate", &files.cert)?;
                let key = pem::private_key(&files.key, files.passphrase.as_ref())?;
                let own = own_certificate(chain, key, &provider)
                    .map_err(|error| pem::unusable("client certificate", &files.cert, error))?;
                builder.with_client_cert_resolver(own)
            }
        };
        Ok(TlsClient {
            config: Arc::new(config),
        })
    }

    /// Speaks TLS on a stream whose protocol begins without.
    ///
    /// # Errors
    /// The handshake failed: what one side showed is not what the other wants to see.
    pub async fn upgrade(
        &self,
        host: &str,
        stream: impl Duplex + 'static,
    ) -> io::Result<Box<dyn Duplex>> {
        Ok(Box::new(self.connect(host, stream).await?))
    }

    /// Makes a connection a TLS one.
    pub(crate) async fn connect<S: Duplex>(
        &self,
        host: &str,
        stream: S,
    ) -> io::Result<TlsStream<S>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        TlsConnector::from(Arc::clone(&self.config))
            .connect(name, stream)
            .await
            .map_err(in_words)
    }
}

/// Both directions of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

fn roots(roots: &Roots) -> Result<Trusted, TlsError> {
    match roots {
        Roots::File(path) => pem::authorities(path),
        Roots::System => Trusted::parsable(rustls_native_certs::load_native_certs().certs)
            .ok_or_else(|| {
                TlsError::Settings(
                    "this system has no certificate authorities: install ca-certificates, or name a CA file"
                        .into(),
                )
            }),
    }
}

/// Has the reason for a refusal told in our words, where there are such.
fn in_words(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner.and_then(refused) {
        Some(refused) => io::Error::new(
            error.kind(),
            format!("the server's certificate cannot be used: {refused}"),
        ),
        None => error,
    }
}

/// Whether an error is the server's refusal of our certificate. In TLS 1.3 it arrives only after our
/// first bytes were sent, but the server has not looked at them.
pub(crate) fn refused_by_peer(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if let Some(rustls::Error::AlertReceived(alert)) =
            inner.and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            let about_certificate = matches!(
                alert,
                AlertDescription::CertificateRequired
                    | AlertDescription::NoCertificate
                    | AlertDescription::BadCertificate
                    | AlertDescription::UnsupportedCertificate
                    | AlertDescription::CertificateRevoked
                    | AlertDescription::CertificateExpired
                    | AlertDescription::CertificateUnknown
                    | AlertDescription::UnknownCA
            );
            return about_certificate
                .then(|| format!("the server refused our certificate or its lack ({alert:?})"));
        }
        next = error.source();
    }
    None
}

/// Checks the chain, and the name where that is wanted.
#[derive(Debug)]
struct ServerChecks {
    inner: Arc<WebPkiServerVerifier>,
    trusted: Trusted,
    with_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerChecks {
    fn new(
        trusted: Trusted,
        with_name: bool,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let algorithms = provider.signature_verification_algorithms;
        let anchors = Arc::clone(&trusted.anchors);
        Ok(ServerChecks {
            inner: WebPkiServerVerifier::builder_with_provider(anchors, provider).build()?,
            trusted,
            with_name,
            algorithms,
        })
    }
}

impl ServerCertVerifier for ServerChecks {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // The name is what is checked last.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.with_name => {}
            Err(error) => {
                self.trusted
                    .reconsider(error, end_entity, now, &self.algorithms)?;
                if self.with_name {
                    verify_name(end_entity, server_name)?;
                }
            }
            Ok(_) => {}
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Takes any certificate whose key the server has.
#[derive(Debug)]
struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
