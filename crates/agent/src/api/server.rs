//! The listening side: binding, exchanging listener and certificates at a reload, and answers on the wire.

use std::borrow::Cow;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::ext::ReasonPhrase;
use primacy_config::HostPort;
use primacy_config::local::{RestApi, VerifyClient};
use primacy_model::json_line;
use primacy_net::{
    Bytes, Ciphers, ClientVerification, Full, HangUp, HeaderMap, HeaderName, HeaderValue,
    HttpClient, Method, Passphrase, Peer, Request as HttpRequest, RequestBody, Response,
    ServerLimits, StatusCode, TlsError, TlsServer, TlsServerOptions, header, serve,
};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Api;
use super::answer::Answer;
use super::settings::Settings;

/// A client that says nothing for so long is hung up on, also between two requests; it holds no one up meanwhile.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How the requests of members and of their commands begin to say from whom they are.
const MEMBERS: [&str; 2] = ["Patroni/", "primacy/"];
/// At least so many connections wait for a busy accept loop: a client that finds the queue full tries again only
/// after a second, which for a health check is too late.
const LEAST_BACKLOG: u32 = 128;
/// A listener that is exchanged lets its requests end. The longest wait for a switchover of at least 20 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// The same when the agent stops: PostgreSQL is stopped after that.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address cannot be listened on; the text is Patroni's.
    #[error(
        "Couldn't start a service on '{address}', please check your `restapi.listen` configuration: {reason}"
    )]
    Bind {
        /// `host:port` as configured.
        address: String,
        /// Why not.
        reason: io::Error,
    },
    /// The certificate, the key or the list of ciphers cannot be used.
    #[error("restapi: HTTPS cannot be set up")]
    Tls(#[from] TlsError),
}

impl ApiError {
    fn is_address_in_use(&self) -> bool {
        matches!(self, ApiError::Bind { reason, .. } if reason.kind() == io::ErrorKind::AddrInUse)
    }
}

/// The API being served. Dropping it without [`ApiServer::stop`] cuts every request off.
pub struct ApiServer {
    api: Arc<Api>,
    listener: Listener,
    accepting: Accepting,
}

/// A listening socket. It is kept beside the task that accepts from it, so that the task can be exchanged
/// while clients wait in the kernel's queue.
struct Listener {
    listen: HostPort,
    /// `None` when the address had to be given up and could not be had again.
    socket: Option<StdListener>,
}

struct Accepting {
    tls: Option<TlsServer>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl ApiServer {
    /// Binds the address and begins to serve.
    ///
    /// # Errors
    /// [`ApiError`]: nothing is served.
    pub async fn start(api: Api, section: &RestApi) -> Result<Self, ApiError> {
        let api = Arc::new(api);
        let tls = tls_options(section)?
            .map(|options| TlsServer::new(&options))
            .transpose()?;
        let listener = Listener::bind(section).await?;
        let settings = Arc::new(Settings::new(section).await);
        api.change(|changing| changing.settings = settings);
        let accepting = listener
            .accept(&api, tls)
            .map_err(|reason| bind_error(section, reason))?;
        Ok(ApiServer {
            api,
            listener,
            accepting,
        })
    }

    /// The address that is listened on.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.socket()?.local_addr()
    }

    /// Takes new settings and certificates, and re-binds where the address changed: the new listener first,
    /// then the old one goes, its requests ending as they may. Call it at every reload, since certificates
    /// are read anew.
    ///
    /// # Errors
    /// [`ApiError`]: the old settings are still in force, unless the same port had to be given up first and
    /// the new address could not be bound either.
    pub async fn reconfigure(
        &mut self,
        section: &RestApi,
        peers: HttpClient,
    ) -> Result<(), ApiError> {
        let current = self.accepting.tls.clone();
        let tls = match tls_options(section)? {
            Some(options) => Some(read_certificates(options, current).await?),
            None => None,
        };
        if self.listener.listen != section.listen {
            self.move_to(section, tls).await?;
        } else if tls.is_some() != self.accepting.tls.is_some() {
            self.exchange(tls)
                .map_err(|reason| bind_error(section, reason))?;
        }
        let settings = Arc::new(Settings::new(section).await);
        self.api.change(|changing| {
            changing.settings = settings;
            changing.peers = peers;
        });
        Ok(())
    }

    async fn move_to(&mut self, section: &RestApi, tls: Option<TlsServer>) -> Result<(), ApiError> {
        let same_port = self
            .local_address()
            .is_ok_and(|old| old.port() == section.listen.port);
        match Listener::bind(section).await {
            // The old listener itself may be in the way: `*` and an address of the same port.
            Err(error) if same_port && error.is_address_in_use() => {
                self.move_on_port(section, tls).await
            }
            bound => {
                self.listener = bound?;
                self.exchange(tls)
                    .map_err(|reason| bind_error(section, reason))
            }
        }
    }

    /// Gives the old address up for the new one, and takes it back when the new one cannot be had.
    async fn move_on_port(
        &mut self,
        section: &RestApi,
        tls: Option<TlsServer>,
    ) -> Result<(), ApiError> {
        let old = self.local_address();
        self.accepting.stop.cancel();
        self.listener.socket = None;
        let (tls, outcome) = match Listener::rebind(section).await {
            Ok(listener) => {
                self.listener = listener;
                (tls, Ok(()))
            }
            Err(error) => {
                self.listener.socket = old.and_then(|address| listen_on(address, section)).ok();
                (self.accepting.tls.clone(), Err(error))
            }
        };
        let accepting = self
            .exchange(tls)
            .map_err(|reason| bind_error(section, reason));
        outcome.and(accepting)
    }

    /// Accepts from the listener anew, and lets the requests of the task before end.
    fn exchange(&mut self, tls: Option<TlsServer>) -> io::Result<()> {
        let new = self.listener.accept(&self.api, tls)?;
        let old = std::mem::replace(&mut self.accepting, new);
        old.stop.cancel();
        Ok(())
    }

    /// Stops accepting, lets requests end for a short while, and returns.
    pub async fn stop(self) {
        self.accepting.stop.cancel();
        drop(self.listener);
        let mut task = self.accepting.task;
        if tokio::time::timeout(STOP_TIMEOUT, &mut task).await.is_err() {
            task.abort();
        }
    }
}

impl Listener {
    async fn bind(section: &RestApi) -> Result<Self, ApiError> {
        let mut problem = io::Error::from(io::ErrorKind::AddrNotAvailable);
        let addresses = addresses(&section.listen)
            .await
            .map_err(|reason| bind_error(section, reason))?;
        for address in addresses {
            match listen_on(address, section) {
                Ok(socket) => {
                    return Ok(Listener {
                        listen: section.listen.clone(),
                        socket: Some(socket),
                    });
                }
                Err(error) => problem = error,
            }
        }
        Err(bind_error(section, problem))
    }

    /// As [`Listener::bind`], for an address that is being given up: the task that accepts from it still
    /// has to let go.
    async fn rebind(section: &RestApi) -> Result<Self, ApiError> {
        const PATIENCE: Duration = Duration::from_secs(2);
        const PAUSE: Duration = Duration::from_millis(20);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match Listener::bind(section).await {
                Err(_) if tokio::time::Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                bound => return bound,
            }
        }
    }

    fn socket(&self) -> io::Result<&StdListener> {
        self.socket
            .as_ref()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn accept(&self, api: &Arc<Api>, tls: Option<TlsServer>) -> io::Result<Accepting> {
        let listener = TcpListener::from_std(self.socket()?.try_clone()?)?;
        let stop = CancellationToken::new();
        let limits = ServerLimits {
            header_timeout: HEADER_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
            ..ServerLimits::default()
        };
        let api = Arc::clone(api);
        let handler = move |request: HttpRequest<RequestBody>, peer: Peer| {
            let api = Arc::clone(&api);
            async move {
                let reusable = is_reusable(&request);
                let answer = api.answer(request, peer).await;
                let mut response = render(answer, &api.settings());
                if !reusable {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                response
            }
        };
        let task = tokio::spawn(serve(listener, tls.clone(), limits, handler, stop.clone()));
        Ok(Accepting { tls, stop, task })
    }
}

/// Where to listen, the best first. All addresses means one dual-stack socket where the system has it.
async fn addresses(listen: &HostPort) -> io::Result<Vec<SocketAddr>> {
    let port = listen.port;
    if matches!(listen.host.as_str(), "" | "*") {
        let all: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
        return Ok(all.map(|address| SocketAddr::new(address, port)).to_vec());
    }
    let mut found: Vec<_> = tokio::net::lookup_host((listen.host.as_str(), port))
        .await?
        .collect();
    found.sort_by_key(|address| !address.is_ipv6());
    Ok(found)
}

fn listen_on(address: SocketAddr, section: &RestApi) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let backlog = section.request_queue_size.max(LEAST_BACKLOG);
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

fn bind_error(section: &RestApi, reason: io::Error) -> ApiError {
    ApiError::Bind {
        address: format!("{}:{}", section.listen.host, section.listen.port),
        reason,
    }
}

/// Their disk may hang, which costs a thread and not the runtime.
async fn read_certificates(
    options: TlsServerOptions,
    current: Option<TlsServer>,
) -> Result<TlsServer, TlsError> {
    let read = move || match current {
        Some(current) => current.replace(&options).map(|()| current),
        None => TlsServer::new(&options),
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(read) => read,
        Err(error) => Err(TlsError::Settings(error.to_string())),
    }
}

fn tls_options(section: &RestApi) -> Result<Option<TlsServerOptions>, TlsError> {
    let Some(cert) = &section.certfile else {
        return Ok(None);
    };
    let ciphers = section.ciphers.as_deref().map(Ciphers::parse).transpose()?;
    let unknown = ciphers.as_ref().map_or(&[][..], Ciphers::unknown);
    if !unknown.is_empty() {
        tracing::warn!(
            "restapi.ciphers: {} cannot be offered; the others on the list are",
            unknown.join(", ")
        );
    }
    Ok(Some(TlsServerOptions {
        cert: PathBuf::from(cert),
        key: section.keyfile.as_ref().map(PathBuf::from),
        passphrase: section
            .keyfile_password
            .as_ref()
            .map(|password| Passphrase::new(password.expose())),
        client_ca: section.cafile.as_ref().map(PathBuf::from),
        client_verification: match (section.verify_client, &section.cafile) {
            (VerifyClient::None, _) => ClientVerification::None,
            (VerifyClient::Optional, None) => {
                tracing::warn!(
                    "restapi.verify_client is optional and restapi.cafile is not set: no certificate can be \
                     verified, so every request that needs one is refused"
                );
                ClientVerification::None
            }
            (VerifyClient::Optional, Some(_)) => ClientVerification::Optional,
            (VerifyClient::Required, _) => ClientVerification::Required,
        },
        ciphers,
    }))
}

/// Whether the client may send another request over the connection. Nobody may after an operation. Members may
/// not: they ask once per `loop_wait`, and a question that meets a connection just being closed for its silence
/// makes this member count as unreachable, in a race or in failsafe mode.
fn is_reusable(request: &HttpRequest<RequestBody>) -> bool {
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    reads && !is_member(request.headers())
}

/// Whether a member asks, or a command of one's.
pub(super) fn is_member(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT);
    let agent = agent.map_or(&b""[..], |agent| agent.as_bytes());
    MEMBERS
        .iter()
        .any(|name| agent.starts_with(name.as_bytes()))
}

/// An answer as a response.
fn render(answer: Answer, settings: &Settings) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let code = answer.code();
    let reason = match &answer {
        Answer::Page(page) => ReasonPhrase::try_from(page.reason().into_owned()).ok(),
        _ => None,
    };
    let headers = response.headers_mut();
    if let (Some(server), false) = (&settings.server, matches!(answer, Answer::Status(_))) {
        headers.insert(header::SERVER, server.clone());
    }
    let (own, content_type, body) = match answer {
        Answer::Status(_) => (None, None, Bytes::new()),
        Answer::Json {
            document, headers, ..
        } => (
            Some(headers),
            Some("application/json"),
            json_line(&document).into(),
        ),
        Answer::Text {
            text,
            headers,
            content_type,
            ..
        } => (Some(headers), Some(content_type), bytes(text)),
        Answer::Made {
            text,
            content_type,
            headers,
        } => (Some(headers), Some(content_type), text),
        Answer::Page(page) => (None, Some("text/html;charset=utf-8"), page.html().into()),
        Answer::Dropped(reason) => {
            tracing::warn!("API: a request cannot be answered: {reason}");
            response.extensions_mut().insert(HangUp);
            return response;
        }
    };
    if let Some(content_type) = content_type {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    if let Some(own) = own {
        for (name, value) in own {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
            {
                headers.insert(name, value);
            }
        }
        for (name, value) in &settings.headers {
            headers.append(name.clone(), value.clone());
        }
    }
    if let Some(reason) = reason {
        response.extensions_mut().insert(reason);
    }
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    *response.body_mut() = Full::new(body);
    response
}

fn bytes(text: Cow<'static, str>) -> Bytes {
    match text {
        Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        Cow::Owned(text) => text.into(),
    }
}
