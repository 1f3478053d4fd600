//! Serving HTTP/1: the accept loop, its limits, and the drain at the end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::{CollectError, collect};
use crate::connect::set_options;
use crate::{KeepAlive, TlsServer};

/// A head longer than this is refused.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Between two attempts to accept when the first failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A client that does not take its answer is given up after half a minute.
const CLIENT_KEEP_ALIVE: KeepAlive = KeepAlive {
    idle: Duration::from_secs(30),
    interval: Duration::from_secs(10),
    probes: 3,
    user_timeout: Duration::from_secs(30),
};

/// Bounds that keep a server alive among slow and greedy clients.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Connections at the same time; more wait in the kernel's queue.
    pub connections: usize,
    /// For the TLS handshake, and again for the head of a request, from the first byte or the end of the
    /// request before: a client that says nothing for so long is hung up on.
    pub header_timeout: Duration,
    /// The longest body that a handler gets.
    pub body_limit: usize,
    /// For the body of a request.
    pub body_timeout: Duration,
    /// For requests that are being answered when the server is told to stop.
    pub drain_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        ServerLimits {
            connections: 512,
            header_timeout: Duration::from_secs(10),
            body_limit: 1024 * 1024,
            body_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// The connection is encrypted.
    pub tls: bool,
    /// The client has shown a certificate, and it was good.
    pub client_certificate: bool,
}

/// The body of a request, not read yet.
pub struct RequestBody {
    body: Either<Incoming, Full<Bytes>>,
    limit: usize,
    timeout: Duration,
}

impl RequestBody {
    /// Reads it whole.
    ///
    /// # Errors
    /// When it is longer than the server's limit, takes too long, or breaks off.
    pub async fn read(self) -> Result<Bytes, BodyError> {
        let RequestBody {
            body,
            limit,
            timeout,
        } = self;
        match tokio::time::timeout(timeout, collect(body, limit)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(CollectError::TooLong)) => Err(BodyError::TooLong(limit)),
            Ok(Err(CollectError::Broken(_))) => Err(BodyError::Broken),
            Err(_) => Err(BodyError::TimedOut),
        }
    }
}

/// A body that is there already, to call a handler without a connection.
impl From<Bytes> for RequestBody {
    fn from(body: Bytes) -> Self {
        let ServerLimits {
            body_limit: limit,
            body_timeout: timeout,
            ..
        } = ServerLimits::default();
        RequestBody {
            body: Either::Right(Full::new(body)),
            limit,
            timeout,
        }
    }
}

/// A request's body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Answer 413.
    #[error("the request body is longer than {0} bytes")]
    TooLong(usize),
    /// Answer 408.
    #[error("the request body did not arrive in time")]
    TimedOut,
    /// Answer 400.
    #[error("the request body broke off")]
    Broken,
}

/// Answers requests: any `async fn(Request<RequestBody>, Peer) -> Response<Full<Bytes>>` that can be shared.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one request. A connection that the client closes drops the future.
    fn handle(
        &self,
        request: Request<RequestBody>,
        peer: Peer,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

impl<F, R> Handler for F
where
    F: Fn(Request<RequestBody>, Peer) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Full<Bytes>>> + Send,
{
    fn handle(
        &self,
        request: Request<RequestBody>,
        peer: Peer,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send {
        self(request, peer)
    }
}

/// Serves until `shutdown`, then lets the requests that are being answered end, and returns when all
/// connections are closed, at the latest after the drain timeout. A client that speaks HTTP/1.0 gets an
/// answer that ends with the connection.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    tls: Option<TlsServer>,
    limits: ServerLimits,
    handler: H,
    shutdown: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let (tls, handler, shutdown) = (tls.clone(), handler.clone(), shutdown.clone());
                connections.spawn(async move {
                    let _permit = permit;
                    connection(stream, address, tls, limits, handler, shutdown).await;
                });
            }
            Err(error) => {
                // Out of file descriptors, or the client is gone again. The first does not pass at once.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Serves one client to the end.
async fn connection<H: Handler>(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsServer>,
    limits: ServerLimits,
    handler: H,
    shutdown: CancellationToken,
) {
    if let Err(error) = set_options(&stream, Some(CLIENT_KEEP_ALIVE)) {
        tracing::debug!(%address, %error, "the connection is gone before it began");
        return;
    }
    let Some(tls) = tls else {
        let peer = Peer {
            address,
            tls: false,
            client_certificate: false,
        };
        return requests(stream, peer, limits, handler, shutdown, || true).await;
    };
    let handshake = tokio::time::timeout(limits.header_timeout, tls.accept(stream));
    let handshake = tokio::select! {
        () = shutdown.cancelled() => return,
        handshake = handshake => handshake,
    };
    match handshake {
        Ok(Ok((stream, config))) => {
            let client_certificate = stream.get_ref().1.peer_certificates().is_some();
            let peer = Peer {
                address,
                tls: true,
                client_certificate,
            };
            // Whoever was let in by a certificate that is no longer trusted comes in anew.
            let is_current = || tls.is_current(&config);
            requests(stream, peer, limits, handler, shutdown, is_current).await;
        }
        Ok(Err(error)) => tracing::debug!(%address, %error, "no TLS connection"),
        Err(_) => tracing::debug!(%address, "the TLS handshake took too long"),
    }
}

/// In a response's extensions: close the connection without a byte of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request is not answered")]
pub struct HangUp;

async fn requests<H: Handler>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    limits: ServerLimits,
    handler: H,
    shutdown: CancellationToken,
    may_go_on: impl Fn() -> bool + Send + Sync,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let handler = handler.clone();
        let old = request.version() < Version::HTTP_11;
        let last = old || !may_go_on();
        async move {
            let request = request.map(|body| RequestBody {
                body: Either::Left(body),
                limit: limits.body_limit,
                timeout: limits.body_timeout,
            });
            let mut response = handler.handle(request, peer).await;
            if response.extensions().get::<HangUp>().is_some() {
                return Err(HangUp);
            }
            if old {
                // Else a client that asked for it is told `close, keep-alive`.
                *response.version_mut() = Version::HTTP_10;
            }
            if last {
                response
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        // As most servers write them: scripts look for `Content-Type` in what curl prints.
        .title_case_headers(true)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(limits.drain_timeout, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!(address = %peer.address, "still answering at the end"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(address = %peer.address, %error, "a connection ended badly");
    }
}
