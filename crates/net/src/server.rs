//! Serving HTTP/1: the accept loop, its limits, and the drain at the end.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::TlsServer;

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
pub struct RequestBody {}

impl RequestBody {
    /// Reads it whole.
    ///
    /// # Errors
    /// When it is longer than the server's limit, takes too long, or breaks off.
    pub async fn read(self) -> Result<Bytes, BodyError> {
        unimplemented!()
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
    _listener: TcpListener,
    _tls: Option<TlsServer>,
    _limits: ServerLimits,
    _handler: H,
    _shutdown: CancellationToken,
) {
    unimplemented!()
}
