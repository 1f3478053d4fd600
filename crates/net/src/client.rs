//! An HTTP/1.1 client that is honest about whether a request was sent.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};
use tokio::time::Instant;

use crate::{KeepAlive, TlsClientOptions};

/// How an [`HttpClient`] behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// For name resolution, TCP and TLS together; a request's deadline may cut it shorter.
    pub connect_timeout: Duration,
    /// When to give up on silent connections.
    pub keep_alive: Option<KeepAlive>,
    /// For `https` URLs.
    pub tls: TlsClientOptions,
    /// Sent with every request that does not set them itself; `User-Agent` is set unless it is here.
    pub headers: HeaderMap,
    /// The longest body that is accepted from a server.
    pub body_limit: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            connect_timeout: Duration::from_secs(5),
            keep_alive: None,
            tls: TlsClientOptions::default(),
            headers: HeaderMap::new(),
            body_limit: 16 * 1024 * 1024,
        }
    }
}

impl ClientOptions {
    /// Adds HTTP basic authentication to every request.
    pub fn with_basic_auth(self, _username: &str, _password: &str) -> Self {
        unimplemented!()
    }
}

/// A client that keeps connections for later requests. It follows no redirects and takes no proxy from
/// the environment. Clones share connections.
#[derive(Clone)]
pub struct HttpClient {}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// An answer whose body comes piece by piece. Dropping it closes the connection.
pub struct HttpStream {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
}

impl HttpStream {
    /// The next piece of the body, `None` at its end. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Bytes, HttpError>> {
        unimplemented!()
    }
}

impl HttpClient {
    /// A client; reads no file and opens no connection yet.
    pub fn new(_options: ClientOptions) -> Self {
        unimplemented!()
    }

    /// Sends a request and reads the whole answer, of whatever status.
    ///
    /// # Errors
    /// [`HttpError::was_sent`] tells whether the server may have acted on the request.
    pub async fn request(
        &self,
        _method: Method,
        _url: &str,
        _headers: HeaderMap,
        _body: Bytes,
        _deadline: Instant,
    ) -> Result<HttpAnswer, HttpError> {
        unimplemented!()
    }

    /// Sends a request and returns once the answer's head is there; the deadline covers only that.
    ///
    /// # Errors
    /// As [`HttpClient::request`].
    pub async fn stream(
        &self,
        _method: Method,
        _url: &str,
        _headers: HeaderMap,
        _body: Bytes,
        _deadline: Instant,
    ) -> Result<HttpStream, HttpError> {
        unimplemented!()
    }
}

/// Why a request has no answer. `endpoint` is scheme, host and port: never a path, a query or credentials.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The request makes no sense; nothing was sent.
    #[error("cannot ask {url:?}: {reason}")]
    BadRequest {
        /// The URL, without credentials.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// No connection came about; nothing was sent.
    #[error("cannot connect to {endpoint}: {reason}")]
    Connect {
        /// Whom.
        endpoint: String,
        /// Why not.
        reason: String,
    },
    /// The two sides do not agree about TLS; nothing was sent that the server would act on.
    #[error("no TLS connection to {endpoint}: {reason}")]
    Tls {
        /// Whom.
        endpoint: String,
        /// Why not.
        reason: String,
    },
    /// The request was sent, or may have been, and no whole answer came: its outcome is not known.
    #[error("no answer from {endpoint}: {reason}")]
    NoAnswer {
        /// Whom.
        endpoint: String,
        /// What happened.
        reason: String,
    },
    /// The answer was longer than allowed. The server has acted on the request.
    #[error("the answer of {endpoint} is longer than {limit} bytes")]
    TooLong {
        /// Whom.
        endpoint: String,
        /// The limit.
        limit: usize,
    },
}

impl HttpError {
    /// Whether the server may have acted on the request.
    pub fn was_sent(&self) -> bool {
        matches!(self, HttpError::NoAnswer { .. } | HttpError::TooLong { .. })
    }
}
