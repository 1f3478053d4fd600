//! TLS of sessions with PostgreSQL, as libpq's keywords have it
//! (<https://www.postgresql.org/docs/current/libpq-ssl.html>).

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Client, Config, Connection, Socket};

use crate::{
    ClientCertificate, Duplex, Passphrase, Roots, TlsClient, TlsClientOptions, TlsError, Verify,
};

/// `SSLRequest`: its length, and the number that stands where others have the protocol's version.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// `invalid_authorization_specification`: no line of `pg_hba.conf` is for such a connection.
const NO_SUCH_LINE: &str = "28000";

/// Whether a session is encrypted, and what with.
#[derive(Clone, Debug)]
pub struct SessionTls {
    /// In this order, as long as the server refuses.
    ways: &'static [SslMode],
    options: TlsClientOptions,
}

/// A session, and what must be polled for it to go on.
pub type Session = (Client, Connection<Socket, Secured>);

/// No session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A file cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What the driver says.
    #[error(transparent)]
    Driver(#[from] tokio_postgres::Error),
}

/// One way to connect.
#[derive(Clone)]
pub struct SessionWay {
    mode: SslMode,
    /// `None` where nothing is encrypted.
    tls: Option<TlsClient>,
}

impl SessionTls {
    /// `keyword` gives what is set for one (`sslmode`, `sslrootcert`, `sslcert`, `sslkey`, `sslpassword`), `variable` what is in
    /// the environment, which counts where nothing is set, as do the files in the home directory. A root certificate makes
    /// `require` check who answers.
    pub fn new(
        keyword: impl Fn(&str) -> Option<String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let value = |name: &str| {
            let variable = || variable(&format!("PG{}", name.to_ascii_uppercase()));
            keyword(name).or_else(variable)
        };
        let file = |name: &str, usual: &str| {
            let usual = || {
                let home = PathBuf::from(variable("HOME")?);
                Some(home.join(".postgresql").join(usual)).filter(|path| path.exists())
            };
            value(name).map(PathBuf::from).or_else(usual)
        };
        let root = file("sslrootcert", "root.crt");
        let (ways, verify): (&[SslMode], _) = match value("sslmode").as_deref() {
            Some("disable") => (&[SslMode::Disable], Verify::None),
            Some("allow") => (&[SslMode::Disable, SslMode::Require], Verify::None),
            Some("require") if root.is_some() => (&[SslMode::Require], Verify::Chain),
            Some("require") => (&[SslMode::Require], Verify::None),
            Some("verify-ca") => (&[SslMode::Require], Verify::Chain),
            Some("verify-full") => (&[SslMode::Require], Verify::Full),
            _ => (&[SslMode::Prefer, SslMode::Disable], Verify::None),
        };
        let certificate = file("sslcert", "postgresql.crt").zip(file("sslkey", "postgresql.key"));
        SessionTls {
            ways,
            options: TlsClientOptions {
                roots: match root {
                    Some(root) if root.as_os_str() != "system" => Roots::File(root),
                    _ => Roots::System,
                },
                certificate: certificate.map(|(cert, key)| ClientCertificate {
                    cert,
                    key,
                    // It has no variable.
                    passphrase: keyword("sslpassword").map(Passphrase::new),
                }),
                verify,
            },
        }
    }

    /// Connects as the driver's settings have it, which say nothing of TLS.
    ///
    /// # Errors
    /// Those of the way that was tried last.
    pub async fn connect(&self, config: &Config) -> Result<Session, SessionError> {
        let host = match config.get_hosts().first() {
            Some(Host::Unix(directory)) => directory.to_string_lossy(),
            Some(Host::Tcp(host)) => host.into(),
            None => "".into(),
        };
        let mut ways = self.ways(&host).await?.into_iter().peekable();
        let mut config = config.clone();
        loop {
            let way = ways.next().expect("at least one");
            let connected = config.ssl_mode(way.mode).connect(Connector(way.tls)).await;
            match connected {
                Err(error) if ways.peek().is_some() && is_about_encryption(&error) => {}
                other => return Ok(other?),
            }
        }
    }

    /// The ways to connect to a host, in the order in which they are tried. Nothing is encrypted through a socket in the
    /// file system.
    ///
    /// # Errors
    /// A file that cannot be used, where TLS is a must.
    pub async fn ways(&self, host: &str) -> Result<Vec<SessionWay>, TlsError> {
        let plain = SessionWay {
            mode: SslMode::Disable,
            tls: None,
        };
        if host.starts_with('/') || self.ways == [SslMode::Disable] {
            return Ok(vec![plain]);
        }
        let tls = match self.options.files().is_empty() && self.options.verify == Verify::None {
            true => TlsClient::new(&self.options),
            false => {
                let options = self.options.clone();
                let read = tokio::task::spawn_blocking(move || TlsClient::new(&options)).await;
                read.map_err(|error| TlsError::Settings(error.to_string()))?
            }
        };
        let tls = match tls {
            Ok(tls) => tls,
            Err(error) if !self.ways.contains(&SslMode::Disable) => return Err(error),
            Err(_) => return Ok(vec![plain]),
        };
        let way = |mode: &SslMode| SessionWay {
            mode: *mode,
            tls: (*mode != SslMode::Disable).then(|| tls.clone()),
        };
        Ok(self.ways.iter().map(way).collect())
    }
}

impl SessionWay {
    /// Agrees with the server on TLS, on a connection on which nothing was said yet.
    ///
    /// # Errors
    /// The connection broke, the handshake failed, or the server does not speak TLS where it must.
    pub async fn negotiate(
        &self,
        host: &str,
        mut stream: Box<dyn Duplex>,
    ) -> io::Result<Box<dyn Duplex>> {
        let Some(tls) = &self.tls else {
            return Ok(stream);
        };
        stream.write_all(&SSL_REQUEST).await?;
        match stream.read_u8().await? {
            b'S' => tls.upgrade(host, stream).await,
            _ if self.mode == SslMode::Prefer => Ok(stream),
            _ => Err(io::Error::other("server does not support TLS")),
        }
    }
}

/// Whether a server that refused one way to connect may take another one. `code`: its SQLSTATE.
pub fn may_take_another_way(code: &str) -> bool {
    code == NO_SUCH_LINE
}

fn is_about_encryption(error: &tokio_postgres::Error) -> bool {
    match error.as_db_error() {
        Some(refusal) => may_take_another_way(refusal.code().code()),
        // The driver has no other way to tell it.
        None => error
            .to_string()
            .starts_with("error performing TLS handshake"),
    }
}

struct Connector(Option<TlsClient>);

struct Handshake {
    tls: Option<TlsClient>,
    host: String,
}

/// An encrypted connection.
pub struct Secured(Box<dyn Duplex>);

impl<S: Duplex + 'static> MakeTlsConnect<S> for Connector {
    type Stream = Secured;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Handshake> {
        Ok(Handshake {
            tls: self.0.clone(),
            host: host.to_owned(),
        })
    }
}

impl<S: Duplex + 'static> TlsConnect<S> for Handshake {
    type Stream = Secured;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Secured>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let none = || io::Error::other("this session is not to be encrypted");
            let tls = self.tls.ok_or_else(none)?;
            Ok(Secured(tls.upgrade(&self.host, stream).await?))
        })
    }
}

impl TlsStream for Secured {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
