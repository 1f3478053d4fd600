//! An HTTP/1.1 client that is honest about whether a request was sent.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::body::{CollectError, collect};
use crate::connect::connect;
use crate::tls::{CurrentTls, refused_by_peer};
use crate::{KeepAlive, TlsClientOptions};

/// Sent as `User-Agent`.
const OUR_NAME: &str = concat!("primacy/", env!("CARGO_PKG_VERSION"));

/// How long a connection is kept for the next request: a few HA passes, so that a pass opens none.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Connections kept to one endpoint: its requests come one after the other, or two at a time.
const MAX_IDLE: usize = 2;

/// How an [`HttpClient`] behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// For name resolution, TCP and TLS together; a request's deadline may cut it shorter.
    pub connect_timeout: Duration,
    /// When to give up on silent connections.
    pub keep_alive: Option<KeepAlive>,
    /// For `https` URLs. Each new connection is made with what the files hold then.
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
    pub fn with_basic_auth(mut self, username: &str, password: &str) -> Self {
        let credentials = STANDARD.encode(format!("{username}:{password}"));
        if let Ok(mut value) = HeaderValue::try_from(format!("Basic {credentials}")) {
            value.set_sensitive(true);
            self.headers.insert(AUTHORIZATION, value);
        }
        self
    }
}

/// A client that keeps connections for later requests. It follows no redirects and takes no proxy from
/// the environment. Clones share connections.
#[derive(Clone)]
pub struct HttpClient {
    shared: Arc<Shared>,
}

struct Shared {
    options: ClientOptions,
    tls: CurrentTls,
    /// By endpoint; the last used is the last.
    idle: Mutex<HashMap<String, Vec<Idle>>>,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

type Sender = SendRequest<Full<Bytes>>;

/// A new connection, and how it ends.
type Opened = (Sender, JoinHandle<hyper::Result<()>>);

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
    body: Incoming,
    endpoint: String,
}

impl HttpStream {
    /// The next piece of the body, `None` at its end. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Bytes, HttpError>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(piece) => return Some(Ok(piece)),
                    Err(_trailers) => {}
                },
                Err(error) => return Some(Err(no_answer(&self.endpoint, &error))),
            }
        }
    }
}

impl HttpClient {
    /// A client; reads no file and opens no connection yet.
    pub fn new(options: ClientOptions) -> Self {
        let shared = Shared {
            tls: CurrentTls::new(options.tls.clone()),
            options,
            idle: Mutex::default(),
        };
        HttpClient {
            shared: Arc::new(shared),
        }
    }

    /// Sends a request and reads the whole answer, of whatever status.
    ///
    /// # Errors
    /// [`HttpError::was_sent`] tells whether the server may have acted on the request.
    pub async fn request(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<HttpAnswer, HttpError> {
        let target = Target::parse(url)?;
        let request = self.build(method, &target, headers, body)?;
        let (response, sender) = self.send(&target, request, deadline).await?;
        let (head, body) = response.into_parts();
        let limit = self.shared.options.body_limit;
        let endpoint = target.endpoint;
        let body = match timeout_at(deadline, collect(body, limit)).await {
            Ok(Ok(body)) => body,
            Ok(Err(CollectError::TooLong)) => return Err(HttpError::TooLong { endpoint, limit }),
            Ok(Err(CollectError::Broken(error))) => return Err(no_answer(&endpoint, &error)),
            Err(_) => return Err(late(endpoint)),
        };
        self.shared.keep(endpoint, sender);
        Ok(HttpAnswer {
            status: head.status,
            headers: head.headers,
            body,
        })
    }

    /// Sends a request and returns once the answer's head is there; the deadline covers only that.
    ///
    /// # Errors
    /// As [`HttpClient::request`].
    pub async fn stream(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<HttpStream, HttpError> {
        let target = Target::parse(url)?;
        let request = self.build(method, &target, headers, body)?;
        let (response, _) = self.send(&target, request, deadline).await?;
        let (head, body) = response.into_parts();
        let Target { endpoint, .. } = target;
        Ok(HttpStream {
            status: head.status,
            headers: head.headers,
            body,
            endpoint,
        })
    }

    fn build(
        &self,
        method: Method,
        target: &Target,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, HttpError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = target.path.clone();
        let own = request.headers_mut();
        own.insert(HOST, target.host_header.clone());
        own.insert(USER_AGENT, HeaderValue::from_static(OUR_NAME));
        for (name, value) in &self.shared.options.headers {
            own.insert(name, value.clone());
        }
        for (name, value) in &headers {
            own.insert(name, value.clone());
        }
        Ok(request)
    }

    /// Sends over a kept connection or a new one. A kept one may turn out to be closed before anything was
    /// written to it: only then another is tried.
    async fn send(
        &self,
        target: &Target,
        mut request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<(Response<Incoming>, Sender), HttpError> {
        loop {
            let (mut sender, fresh) = match self.shared.take(&target.endpoint) {
                Some(sender) => (sender, None),
                None => {
                    let (sender, connection) = self.connect(target, deadline).await?;
                    (sender, Some(connection))
                }
            };
            let mut error = match timeout_at(deadline, sender.try_send_request(request)).await {
                Ok(Ok(response)) => return Ok((response, sender)),
                Ok(Err(error)) => error,
                Err(_) => return Err(late(target.endpoint.clone())),
            };
            request = match (error.take_message(), fresh) {
                (Some(request), None) => request,
                (Some(_), Some(connection)) => {
                    // The connection has ended already, and knows better why.
                    let ended = timeout_at(deadline, connection).await;
                    let error = match ended {
                        Ok(Ok(Err(cause))) => cause,
                        _ => error.into_error(),
                    };
                    return Err(not_sent(&target.endpoint, &error));
                }
                (None, _) => return Err(no_answer(&target.endpoint, &error.into_error())),
            };
        }
    }

    async fn connect(&self, target: &Target, deadline: Instant) -> Result<Opened, HttpError> {
        let Shared { options, tls, .. } = &*self.shared;
        let endpoint = || target.endpoint.clone();
        let refused = |error: io::Error| HttpError::Connect {
            endpoint: target.endpoint.clone(),
            reason: chain(&error),
        };
        let deadline = deadline.min(Instant::now() + options.connect_timeout);
        let stream = connect(&target.host, target.port, options.keep_alive, deadline)
            .await
            .map_err(refused)?;
        if !target.tls {
            return open(TokioIo::new(stream)).await.map_err(refused);
        }
        let bad = |reason: String| HttpError::Tls {
            endpoint: endpoint(),
            reason,
        };
        let tls = match timeout_at(deadline, tls.get()).await {
            Ok(tls) => tls.map_err(|error| bad(error.to_string()))?,
            Err(_) => return Err(bad("reading the certificates took too long".into())),
        };
        match timeout_at(deadline, tls.connect(&target.host, stream)).await {
            Ok(Ok(stream)) => open(TokioIo::new(stream)).await.map_err(refused),
            Ok(Err(error)) => Err(bad(chain(&error))),
            Err(_) => Err(bad("the handshake took too long".into())),
        }
    }
}

impl Shared {
    /// A kept connection that is still open, as far as one can know.
    fn take(&self, endpoint: &str) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(endpoint)?;
        while let Some(Idle { sender, since }) = kept.pop() {
            if sender.is_ready() && since.elapsed() < IDLE_TIMEOUT {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, endpoint: String, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.entry(endpoint).or_default();
        kept.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < IDLE_TIMEOUT);
        if kept.len() < MAX_IDLE {
            kept.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }
}

/// The connection lives in a task of its own, which ends when the sender and the last body are dropped.
async fn open<T>(io: T) -> io::Result<Opened>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
    Ok((sender, tokio::spawn(connection)))
}

/// Where a request goes, and the parts of it that come from there.
struct Target {
    tls: bool,
    host: String,
    port: u16,
    host_header: HeaderValue,
    path: Uri,
    endpoint: String,
}

impl Target {
    fn parse(url: &str) -> Result<Self, HttpError> {
        let bad = |reason: &str| HttpError::BadRequest {
            url: without_credentials(url),
            reason: reason.to_owned(),
        };
        let uri: Uri = url.parse().map_err(|_| bad("it is not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad("it does not begin with http:// or https://")),
        };
        let bracketed = uri.host().filter(|host| !host.is_empty());
        let bracketed = bracketed.ok_or_else(|| bad("it has no host"))?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let port = match (uri.port_u16(), authority.ends_with(bracketed)) {
            (Some(port), _) => port,
            (None, true) if tls => 443,
            (None, true) => 80,
            (None, false) => return Err(bad("its port is not a number")),
        };
        let host_header = match uri.port_u16() {
            Some(port) => format!("{bracketed}:{port}"),
            None => bracketed.to_owned(),
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let scheme = if tls { "https" } else { "http" };
        Ok(Target {
            tls,
            host: bracketed
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port,
            host_header: HeaderValue::try_from(host_header).map_err(|_| bad("bad host"))?,
            path: path.parse().map_err(|_| bad("bad path"))?,
            endpoint: format!("{scheme}://{bracketed}:{port}"),
        })
    }
}

fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or(authority);
    format!("{scheme}://{host}{path}")
}

fn late(endpoint: String) -> HttpError {
    HttpError::NoAnswer {
        endpoint,
        reason: "timed out".into(),
    }
}

fn not_sent(endpoint: &str, error: &hyper::Error) -> HttpError {
    let endpoint = endpoint.to_owned();
    match refused_by_peer(error) {
        Some(reason) => HttpError::Tls { endpoint, reason },
        None => HttpError::Connect {
            endpoint,
            reason: chain(error),
        },
    }
}

fn no_answer(endpoint: &str, error: &hyper::Error) -> HttpError {
    let endpoint = endpoint.to_owned();
    match refused_by_peer(error) {
        Some(reason) => HttpError::Tls { endpoint, reason },
        None => HttpError::NoAnswer {
            endpoint,
            reason: chain(error),
        },
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
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
