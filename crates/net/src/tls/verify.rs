//! Certificates that OpenSSL takes and the TLS library by itself does not: those that `openssl` makes unless it is told
//! otherwise. The library judges first; what it refuses for its form alone is looked at again here.

use std::sync::Arc;
use std::time::Duration;

use pkcs8::der::asn1::{AnyRef, BitStringRef, GeneralizedTime, UtcTime};
use pkcs8::der::{self, Decode, Encode, Reader, SliceReader, Tag, Tagged};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, InconsistentKeys, OtherError,
    RootCertStore, SignatureScheme,
};
use webpki::RawPublicKeyEntity;

/// Whom one trusts.
#[derive(Clone, Debug)]
pub(super) struct Trusted {
    /// As issuers.
    pub(super) anchors: Arc<RootCertStore>,
    /// The same, byte by byte.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

/// Why a certificate is not taken, where the library's words do not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error(
        "it is that of a certificate authority (CA:TRUE) and not itself among the trusted ones: \
         make it with `openssl req -x509 -addext basicConstraints=critical,CA:FALSE`, or trust this very certificate"
    )]
    Authority,
    #[error(
        "it is of X.509 version 1 and has no names that could be checked: make one of version 3 \
         with `openssl x509 -req -extfile FILE`, the file saying subjectAltName=DNS:HOST"
    )]
    Nameless,
}

impl From<Refused> for rustls::Error {
    fn from(refused: Refused) -> Self {
        CertificateError::Other(OtherError(Arc::new(refused))).into()
    }
}

/// What [`Refused`] says of an error, if it is one.
pub(super) fn refused(error: &rustls::Error) -> Option<Refused> {
    other(error)
}

fn other<T: std::error::Error + Clone + 'static>(error: &rustls::Error) -> Option<T> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            other.0.downcast_ref().cloned()
        }
        _ => None,
    }
}

fn is_version_1(error: &rustls::Error) -> bool {
    other(error) == Some(webpki::Error::UnsupportedCertVersion)
}

impl Trusted {
    /// Those that can be read; `None` if that is none.
    pub(super) fn parsable(certificates: Vec<CertificateDer<'static>>) -> Option<Self> {
        let mut anchors = RootCertStore::empty();
        let (added, _) = anchors.add_parsable_certificates(certificates.iter().cloned());
        (added > 0).then(|| Trusted {
            anchors: Arc::new(anchors),
            certificates,
        })
    }

    /// Looks again at a certificate that the library has refused. Not at its name.
    pub(super) fn reconsider(
        &self,
        error: rustls::Error,
        certificate: &CertificateDer<'_>,
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), rustls::Error> {
        if other(&error) == Some(webpki::Error::CaUsedAsEndEntity) {
            // The library looks at the time first. The issuer is who is trusted.
            return match self.certificates.contains(certificate) {
                true => Ok(()),
                false => Err(Refused::Authority.into()),
            };
        }
        if !is_version_1(&error) {
            return Err(error);
        }
        let parsed = Version1::parse(certificate)?;
        let now = Duration::from_secs(now.as_secs());
        if now < parsed.not_before {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > parsed.not_after {
            return Err(CertificateError::Expired.into());
        }
        let signed_by = |anchor: &TrustAnchor<'_>| parsed.is_signed_by(anchor, algorithms);
        match self.anchors.roots.iter().any(signed_by) {
            true => Ok(()),
            false => Err(CertificateError::UnknownIssuer.into()),
        }
    }
}

/// Checks whether a certificate that was found good is the host's.
pub(super) fn verify_name(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
) -> Result<(), rustls::Error> {
    match ParsedCertificate::try_from(certificate) {
        Ok(parsed) => rustls::client::verify_server_name(&parsed, name),
        Err(error) if is_version_1(&error) => Err(Refused::Nameless.into()),
        Err(error) => Err(error),
    }
}

/// Whether who showed a certificate has its key.
pub(super) fn tls12_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let error = match verify_tls12_signature(message, certificate, signed, algorithms) {
        Err(error) if is_version_1(&error) => error,
        verified => return verified,
    };
    let parsed = Version1::parse(certificate)?;
    let key = RawPublicKeyEntity::try_from(&parsed.key).map_err(|_| error)?;
    let of_scheme = algorithms
        .mapping
        .iter()
        .filter(|(scheme, _)| *scheme == signed.scheme);
    let mut candidates = of_scheme.flat_map(|(_, algorithms)| algorithms.iter());
    let fits = candidates.any(|algorithm| {
        key.verify_signature(*algorithm, message, signed.signature())
            .is_ok()
    });
    match fits {
        true => Ok(HandshakeSignatureValid::assertion()),
        false => Err(CertificateError::BadSignature.into()),
    }
}

/// As [`tls12_signature`].
pub(super) fn tls13_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    match verify_tls13_signature(message, certificate, signed, algorithms) {
        Err(error) if is_version_1(&error) => {
            let parsed = Version1::parse(certificate)?;
            verify_tls13_signature_with_raw_key(message, &parsed.key, signed, algorithms)
        }
        verified => verified,
    }
}

/// What one shows oneself.
pub(super) fn own_certificate(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<Arc<SingleCertAndKey>, rustls::Error> {
    let key = provider.key_provider.load_private_key(key)?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(error) if is_version_1(&error) => {
            let parsed = Version1::parse(certified.end_entity_cert()?)?;
            if certified
                .key
                .public_key()
                .is_some_and(|key| key != parsed.key)
            {
                return Err(InconsistentKeys::KeyMismatch.into());
            }
        }
        Err(error) => return Err(error),
    }
    Ok(Arc::new(certified.into()))
}

/// Checks the certificates of clients.
#[derive(Debug)]
pub(super) struct ClientChecks {
    inner: Arc<dyn ClientCertVerifier>,
    trusted: Trusted,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientChecks {
    pub(super) fn new(
        trusted: Trusted,
        optional: bool,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, rustls::server::VerifierBuilderError> {
        let algorithms = provider.signature_verification_algorithms;
        let anchors = Arc::clone(&trusted.anchors);
        let builder = WebPkiClientVerifier::builder_with_provider(anchors, provider);
        let builder = match optional {
            true => builder.allow_unauthenticated(),
            false => builder,
        };
        Ok(ClientChecks {
            inner: builder.build()?,
            trusted,
            algorithms,
        })
    }
}

impl ClientCertVerifier for ClientChecks {
    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now);
        verified.or_else(|error| {
            self.trusted
                .reconsider(error, end_entity, now, &self.algorithms)?;
            Ok(ClientCertVerified::assertion())
        })
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

/// A certificate of X.509 version 1, which `openssl x509 -req` without extensions makes: no names besides the subject,
/// and nothing about what it is for.
struct Version1<'a> {
    /// What the issuer has signed.
    signed: &'a [u8],
    /// How, without the outer tag; likewise the issuer.
    algorithm: &'a [u8],
    issuer: &'a [u8],
    /// Since 1970, both included.
    not_before: Duration,
    not_after: Duration,
    key: SubjectPublicKeyInfoDer<'a>,
    signature: &'a [u8],
}

impl<'a> Version1<'a> {
    fn parse(certificate: &'a [u8]) -> Result<Self, CertificateError> {
        read_version_1(certificate).map_err(|_| CertificateError::BadEncoding)
    }

    /// Whether an anchor is the issuer. One that limits whom it vouches for has no say here, since that is by names.
    fn is_signed_by(
        &self,
        anchor: &TrustAnchor<'_>,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> bool {
        if anchor.subject.as_ref() != self.issuer || anchor.name_constraints.is_some() {
            return false;
        }
        let Ok(key) = tagged(&anchor.subject_public_key_info) else {
            return false;
        };
        let key = SubjectPublicKeyInfoDer::from(key);
        let Ok(key) = RawPublicKeyEntity::try_from(&key) else {
            return false;
        };
        let mut algorithms = algorithms.all.iter();
        algorithms.any(|algorithm| {
            algorithm.signature_alg_id().as_ref() == self.algorithm
                && key
                    .verify_signature(*algorithm, self.signed, self.signature)
                    .is_ok()
        })
    }
}

/// Puts the tag of a sequence before its content.
fn tagged(content: &[u8]) -> der::Result<Vec<u8>> {
    der::asn1::Any::new(Tag::Sequence, content)?.to_der()
}

/// RFC 5280 section 4.1, without what has come after version 1: trailing fields are an error.
fn read_version_1(certificate: &[u8]) -> der::Result<Version1<'_>> {
    let mut reader = SliceReader::new(certificate)?;
    let (signed, algorithm, signature) = reader.sequence(|certificate| -> der::Result<_> {
        let signed = certificate.tlv_bytes()?;
        let algorithm = sequence(certificate)?;
        let signature = BitStringRef::decode(certificate)?;
        Ok((signed, algorithm, signature.as_bytes()))
    })?;
    reader.finish()?;
    let mut reader = SliceReader::new(signed)?;
    let parsed = reader.sequence(|content| -> der::Result<_> {
        AnyRef::decode(content)?.tag().assert_eq(Tag::Integer)?; // the serial number
        if sequence(content)? != algorithm {
            return Err(Tag::Sequence.value_error().into());
        }
        let issuer = sequence(content)?;
        let (not_before, not_after) =
            content.sequence(|validity| Ok::<_, der::Error>((time(validity)?, time(validity)?)))?;
        sequence(content)?; // the subject
        Ok(Version1 {
            signed,
            algorithm,
            issuer,
            not_before,
            not_after,
            key: content.tlv_bytes()?.into(),
            signature: signature.ok_or_else(|| Tag::BitString.value_error())?,
        })
    })?;
    reader.finish()?;
    Ok(parsed)
}

/// The content of a sequence.
fn sequence<'a>(reader: &mut impl Reader<'a>) -> der::Result<&'a [u8]> {
    let any = AnyRef::decode(reader)?;
    any.tag().assert_eq(Tag::Sequence)?;
    Ok(any.value())
}

fn time<'a>(reader: &mut impl Reader<'a>) -> der::Result<Duration> {
    let any = AnyRef::decode(reader)?;
    match any.tag() {
        Tag::UtcTime => Ok(any.decode_as::<UtcTime>()?.to_unix_duration()),
        _ => Ok(any.decode_as::<GeneralizedTime>()?.to_unix_duration()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use rustls::ServerConfig;
    use rustls::version::{TLS12, TLS13};
    use tokio_rustls::TlsAcceptor;

    use super::super::{
        Roots, TlsClient, TlsClientOptions, Verify, install_crypto_provider, pem, provider,
    };
    use super::*;

    fn openssl(directory: &Path, arguments: &str) {
        let made = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(directory)
            .output()
            .expect("openssl is installed");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{arguments}: {said}");
    }

    /// A certificate is no secret: who shows it must have its key.
    #[tokio::test]
    async fn a_trusted_certificate_without_its_key_is_refused() {
        install_crypto_provider();
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x";
        for command in [
            format!("req -x509 {new} -keyout authority-key -out authority"),
            format!("req -new {new} -keyout old-key -out request"),
            "x509 -req -in request -signkey old-key -out old".into(),
            "genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-256 -out stolen-key".into(),
        ] {
            openssl(directory.path(), &command);
        }
        let provider = provider();
        for (name, verify, version) in [
            ("authority", Verify::Chain, &TLS12),
            ("authority", Verify::Chain, &TLS13),
            ("authority", Verify::None, &TLS13),
            ("old", Verify::Chain, &TLS12),
            ("old", Verify::Chain, &TLS13),
            ("old", Verify::None, &TLS12),
            ("old", Verify::None, &TLS13),
        ] {
            let client = TlsClient::new(&TlsClientOptions {
                roots: Roots::File(path(name)),
                verify,
                certificate: None,
            })
            .unwrap();
            for (key, good) in [(format!("{name}-key"), true), ("stolen-key".into(), false)] {
                let chain = pem::certificates("certificate", &path(name)).unwrap();
                let key = pem::private_key(&path(&key), None).unwrap();
                let key = provider.key_provider.load_private_key(key).unwrap();
                let shown = SingleCertAndKey::from(CertifiedKey::new(chain, key));
                let config = ServerConfig::builder_with_protocol_versions(&[version])
                    .with_no_client_auth()
                    .with_cert_resolver(Arc::new(shown));
                let (here, there) = tokio::io::duplex(1 << 16);
                let server = tokio::spawn(TlsAcceptor::from(Arc::new(config)).accept(there));
                let outcome = client.connect("localhost", here).await;
                let case = format!("{name} {verify:?} {version:?} {good}");
                match outcome {
                    Ok(_) => assert!(good, "{case}"),
                    Err(error) => {
                        assert!(!good, "{case}: {error}");
                        assert!(
                            error.to_string().contains("BadSignature"),
                            "{case}: {error}"
                        );
                    }
                }
                drop(server.await);
            }
        }
    }
}

/// What whoever connects shows as a certificate, spoiled; `make fuzz`.
#[cfg(test)]
mod fuzz {
    use std::process::Command;

    use super::super::provider;
    use super::*;

    #[test]
    #[ignore = "long: make fuzz"]
    fn certificates_of_version_1() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        for arguments in [
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=a -keyout key -out request",
            "x509 -req -in request -signkey key -outform DER -out signed-by-itself",
            "req -x509 -newkey ed25519 -nodes -subj /CN=b -keyout other-key -outform DER -out of-version-3",
        ] {
            let mut openssl = Command::new("openssl");
            openssl
                .args(arguments.split(' '))
                .current_dir(directory.path());
            assert!(
                openssl.output().expect("openssl").status.success(),
                "{arguments}"
            );
        }
        let [good, other] = ["signed-by-itself", "of-version-3"]
            .map(|name| std::fs::read(path(name)).expect("a certificate"));
        let original = Version1::parse(&good).expect("what openssl makes");
        let trusted = Trusted::parsable(vec![CertificateDer::from(good.as_slice()).into_owned()])
            .expect("an anchor");
        let algorithms = provider().signature_verification_algorithms;
        let is_trusted = |parsed: &Version1<'_>| {
            let mut anchors = trusted.anchors.roots.iter();
            anchors.any(|anchor| parsed.is_signed_by(anchor, &algorithms))
        };
        assert!(is_trusted(&original));
        primacy_fuzz::bytes(&[good.as_slice(), &other], |input| {
            let Ok(parsed) = Version1::parse(input) else {
                return false;
            };
            if is_trusted(&parsed) {
                assert_eq!(parsed.signed, original.signed, "nobody has signed this");
            }
            true
        });
    }
}
