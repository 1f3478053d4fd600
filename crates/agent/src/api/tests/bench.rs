//! An API over real sockets, with a made-up machine and a store in memory behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use primacy_config::local::{RestApi, ServerTokens, VerifyClient};
use primacy_config::{HostPort, TimingLimits};
use primacy_dcs::{ClusterStore, MemoryStore, Store};
use primacy_ha::FailsafeAnswer;
use primacy_model::Lsn;
use primacy_net::{ClientOptions, HttpClient};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::super::{Api, ApiServer};
use super::gated::{Gated, Reads};
use crate::citus::CitusHandle;
use crate::logging::LogQueue;
use crate::published::Published;
use crate::request::{Request, RestartAnswer};

/// Generous: the machine may be busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// An API with a made-up machine behind it.
pub(super) struct Bench {
    pub(super) server: ApiServer,
    pub(super) address: SocketAddr,
    pub(super) store: ClusterStore,
    pub(super) memory: Arc<MemoryStore>,
    pub(super) published: watch::Sender<Arc<Published>>,
}

impl Bench {
    pub(super) async fn new(published: Published, section: RestApi) -> Self {
        let memory = MemoryStore::new();
        Bench::with_store(published, section, memory.clone(), memory, None).await
    }

    /// With a store whose reads wait to be let through.
    pub(super) async fn gated(published: Published, section: RestApi) -> (Self, Reads) {
        let memory = MemoryStore::new();
        let (gated, reads) = Gated::new(memory.clone());
        let bench = Bench::with_store(published, section, memory, gated, None).await;
        (bench, reads)
    }

    /// Of a member of the coordinator's group.
    pub(super) async fn of_coordinator(published: Published, section: RestApi) -> Self {
        let memory = MemoryStore::new();
        let citus = Some(CitusHandle::unheard());
        Bench::with_store(published, section, memory.clone(), memory, citus).await
    }

    /// `api_store` is how the API sees `memory`.
    async fn with_store(
        published: Published,
        section: RestApi,
        memory: Arc<MemoryStore>,
        api_store: Arc<dyn Store>,
        citus: Option<CitusHandle>,
    ) -> Self {
        let store = ClusterStore::new(memory.client(), "/service/", "demo");
        let (publish, published) = watch::channel(Arc::new(published));
        let (requests, received) = mpsc::channel(8);
        tokio::spawn(machine(received, published.clone()));
        let peers = HttpClient::new(ClientOptions::default());
        let api_store = ClusterStore::new(api_store, "/service/", "demo");
        let api = Api::new(
            published,
            requests,
            api_store,
            TimingLimits::PATRONI,
            peers,
            LogQueue::default(),
        )
        .with_citus(citus);
        let server = ApiServer::start(api, &section).await.unwrap();
        let address = server.local_address().unwrap();
        Bench {
            server,
            address,
            store,
            memory,
            published: publish,
        }
    }

    /// Sends text as it is, and returns everything that comes back until the end.
    pub(super) async fn raw(&self, text: &str) -> String {
        raw(self.address, text).await
    }

    pub(super) async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, String) {
        let body = body.map(|body| body.to_string());
        let length = body
            .as_ref()
            .map(|body| format!("Content-Length: {}\r\n", body.len()));
        let (length, body) = (length.unwrap_or_default(), body.unwrap_or_default());
        let answer = self
            .raw(&format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}\r\n{body}"
            ))
            .await;
        let code = answer
            .split(' ')
            .nth(1)
            .unwrap_or_else(|| panic!("{answer:?}"))
            .parse()
            .unwrap();
        (code, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}

pub(super) async fn raw(address: SocketAddr, text: &str) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The server closes, perhaps with a reset where it did not read the body.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .expect("the answer does not end")
}

/// Answers as the machine would.
async fn machine(
    mut requests: mpsc::Receiver<Request>,
    published: watch::Receiver<Arc<Published>>,
) {
    let mut scheduled = false;
    while let Some(request) = requests.recv().await {
        match request {
            Request::WakeUp | Request::Reload => {}
            Request::Observe { reply } => {
                let observation = Arc::clone(&published.borrow().observation);
                let _ = reply.send(observation);
            }
            Request::Restart { filters, reply, .. } => {
                let pending = if filters.pending {
                    RestartAnswer::ConditionsNotMet
                } else {
                    RestartAnswer::Restarted
                };
                let _ = reply.send(pending);
            }
            Request::ScheduleRestart { reply, .. } => {
                let _ = reply.send(if scheduled {
                    Err(crate::request::NotScheduled::Already)
                } else {
                    Ok(())
                });
                scheduled = true;
            }
            Request::DeleteScheduledRestart { reply } => {
                let _ = reply.send(std::mem::take(&mut scheduled));
            }
            Request::Reinitialize {
                force,
                from_leader,
                reply,
            } => {
                let busy = !(force && from_leader);
                let _ = reply.send(if busy {
                    Err("restart already in progress".into())
                } else {
                    Ok(())
                });
            }
            Request::Failsafe { leader, reply } => {
                let _ = reply.send(match leader.name.as_str() {
                    "pg0" => FailsafeAnswer::Accepted(Some(Lsn(73_973_584))),
                    other => FailsafeAnswer::OtherLeader(other.into()),
                });
            }
            #[allow(unreachable_patterns)]
            _ => {}
        }
    }
}

pub(super) fn section() -> RestApi {
    let listen = HostPort {
        host: "127.0.0.1".into(),
        port: 0,
    };
    RestApi {
        connect_address: listen.clone(),
        listen,
        authentication: None,
        certfile: None,
        keyfile: None,
        keyfile_password: None,
        cafile: None,
        ciphers: None,
        verify_client: VerifyClient::None,
        allowlist: Vec::new(),
        allowlist_include_members: false,
        http_extra_headers: Default::default(),
        https_extra_headers: Default::default(),
        server_tokens: ServerTokens::Minimal,
        request_queue_size: 5,
    }
}

pub(super) fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
