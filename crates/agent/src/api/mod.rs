//! The REST API, compatible with Patroni 4.1 (`rest-api.md`): health checks for load balancers, documents for
//! members and people, operations for operators.
//!
//! The way of a request: [`route`] finds the handler, [`access`] judges the caller, the handler makes an
//! [`answer::Answer`], and [`server`] puts it on the wire. Handlers read the published snapshot and send
//! requests to the machine; nothing is shared with it. What is answered from what is decided in pure
//! functions: [`status`], [`health`], [`metrics`], and the wishes of [`switchover`] and [`restart`].
//!
//! Three hazards are guarded against here:
//! 1. A member that races for the leadership reads a position that is no longer true. So `/patroni` tells members
//!    of PostgreSQL only what was observed after the request came.
//! 2. An agent that was frozen wakes up and still calls itself the leader. So the lock counts by its lease's
//!    deadline at the moment of the answer.
//! 3. A slow client or a slow store holds up the health checks. So no request waits for another one, and
//!    every wait has an end.

mod access;
mod answer;
mod body;
mod config;
mod health;
mod made;
mod metrics;
mod operations;
mod read;
mod restart;
mod route;
mod server;
mod settings;
mod status;
mod switchover;
#[cfg(test)]
mod tests;
mod time;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use primacy_config::{GlobalConfig, TimingLimits};
use primacy_dcs::{ClusterStore, StoreError};
use primacy_model::{Cluster, ConnUrl};
use primacy_net::{HeaderMap, HttpClient, Peer, Request as HttpRequest, RequestBody, header};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use self::access::Caller;
use self::answer::{Answer, ErrorPage};
use self::made::Made;
use self::route::{Query, Route};
use self::settings::Settings;
use self::switchover::Action;
use crate::citus::CitusHandle;
use crate::journal::Journal;
use crate::logging::LogQueue;
use crate::published::Published;
use crate::request::Request;

pub use self::server::{ApiError, ApiServer};

/// The channel to the machine is drained all the time; one that is full for so long means that it hangs.
const SEND_PATIENCE: Duration = Duration::from_secs(2);
/// For answers that the machine gives without doing anything first.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// What the handlers answer from.
pub struct Api {
    published: watch::Receiver<Arc<Published>>,
    requests: mpsc::Sender<Request>,
    store: ClusterStore,
    limits: TimingLimits,
    log: LogQueue,
    journal: Arc<Journal>,
    /// In the coordinator's group of a Citus cluster.
    citus: Option<CitusHandle>,
    /// The answers of `/patroni` and `/metrics`.
    status_made: Made,
    metrics_made: Made,
    /// The look after which another one was asked for, so that many requests ask for one.
    refreshed: Mutex<Option<Instant>>,
    changing: RwLock<Changing>,
}

/// What a reload exchanges.
struct Changing {
    settings: Arc<Settings>,
    peers: HttpClient,
}

impl Api {
    /// `limits` are those of the store, `peers` asks other members and carries the credentials for them,
    /// `log` tells of the log's own queue.
    pub fn new(
        published: watch::Receiver<Arc<Published>>,
        requests: mpsc::Sender<Request>,
        store: ClusterStore,
        limits: TimingLimits,
        peers: HttpClient,
        log: LogQueue,
    ) -> Self {
        let changing = RwLock::new(Changing {
            settings: Arc::default(),
            peers,
        });
        Api {
            published,
            requests,
            store,
            limits,
            log,
            journal: Arc::default(),
            citus: None,
            status_made: Made::default(),
            metrics_made: Made::default(),
            refreshed: Mutex::default(),
            changing,
        }
    }

    /// With the task that keeps `pg_dist_node`.
    pub fn with_citus(mut self, citus: Option<CitusHandle>) -> Self {
        self.citus = citus;
        self
    }

    /// With the journal that `GET /journal` serves.
    pub fn with_journal(mut self, journal: Arc<Journal>) -> Self {
        self.journal = journal;
        self
    }

    /// Answers one request.
    async fn answer(&self, request: HttpRequest<RequestBody>, peer: Peer) -> Answer {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let query = Query::parse(head.uri.query().unwrap_or_default());
        let method = head.method.as_str();
        let route = Route::find(method, path);
        let answer = match self.permit(route, &head.headers, &peer).await {
            Ok(()) => {
                self.handle(route, method, path, &query, &head.headers, body)
                    .await
            }
            Err(refusal) => Err(refusal),
        };
        let answer = answer.unwrap_or_else(|other| other);
        tracing::debug!(
            "{}",
            log_line(
                peer.address.ip(),
                &format!("{method} {} {:?}", head.uri, head.version),
                answer.code(),
                started.elapsed(),
            )
        );
        answer
    }

    /// Finds who answers. Both sides are answers; `Err` ends a handler early.
    async fn handle(
        &self,
        route: Route,
        method: &str,
        path: &str,
        query: &Query,
        headers: &HeaderMap,
        body: RequestBody,
    ) -> Result<Answer, Answer> {
        match route {
            Route::Health => Ok(self.health(path, query, method == "GET").await),
            Route::Liveness => Ok(Answer::Status(health::liveness(
                &self.published(),
                Instant::now(),
            ))),
            Route::Readiness => Ok(self.readiness(query).await),
            Route::Status => Ok(self.status(server::is_member(headers)).await),
            Route::Cluster => self.cluster().await,
            Route::History => self.history().await,
            Route::Config => self.config().await,
            Route::Metrics => Ok(self.metrics().await),
            Route::Failsafe => self.failsafe(),
            Route::Journal => self.journal(query),
            Route::Description => Ok(read::description()),
            Route::PatchConfig => {
                self.patch_config(body::required(headers, body).await?)
                    .await
            }
            Route::PutConfig => self.put_config(body::required(headers, body).await?).await,
            Route::Failover => {
                self.switchover(Action::Failover, body::required(headers, body).await?)
                    .await
            }
            Route::Switchover => {
                self.switchover(Action::Switchover, body::required(headers, body).await?)
                    .await
            }
            Route::Restart => self.restart(body::optional(headers, body).await?).await,
            Route::Reinitialize => {
                self.reinitialize(body::optional(headers, body).await?)
                    .await
            }
            Route::Reload => self.reload().await,
            Route::PostFailsafe => self.post_failsafe(headers, body).await,
            // Accepted and without effect, as in the original outside of its own tests.
            Route::Sigterm => Ok(Answer::text(202, "shutdown scheduled")),
            Route::Multi => self.citus(body::required(headers, body).await?).await,
            Route::DeleteRestart => self.delete_restart().await,
            Route::DeleteSwitchover => self.delete_switchover().await,
            Route::Unsupported => Err(Answer::Page(ErrorPage::UnsupportedMethod(
                method.to_owned(),
            ))),
        }
    }

    /// Access control, before the body is read.
    async fn permit(&self, route: Route, headers: &HeaderMap, peer: &Peer) -> Result<(), Answer> {
        if !route.is_protected() {
            return Ok(());
        }
        let settings = self.settings();
        let caller = Caller {
            address: peer.address.ip(),
            certificate: peer.client_certificate,
            authorization: headers
                .get(header::AUTHORIZATION)
                .map(|value| value.as_bytes()),
        };
        let failsafe = route == Route::PostFailsafe;
        let members = match !failsafe && settings.access.needs_members(caller.address) {
            true => self.member_addresses().await,
            false => Vec::new(),
        };
        settings.access.check(caller, &members, failsafe)
    }

    /// The addresses of the members' APIs, by the view; of a Citus coordinator's those of all groups.
    async fn member_addresses(&self) -> Vec<IpAddr> {
        let published = self.published();
        let view = published.view(Instant::now());
        let members = view.map_or(&[][..], |view| &view.members);
        let own = members
            .iter()
            .filter_map(|member| member.data.api_url.clone());
        let others = self.citus.as_ref().map(CitusHandle::api_urls);
        let mut addresses = Vec::new();
        for url in own.chain(others.unwrap_or_default()) {
            if let Some(host) = host(&url) {
                addresses.extend(access::resolve(&host).await);
            }
        }
        addresses
    }

    fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.borrow())
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(
            &self
                .changing
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .settings,
        )
    }

    fn peers(&self) -> HttpClient {
        self.changing
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .peers
            .clone()
    }

    fn change(&self, change: impl FnOnce(&mut Changing)) {
        change(
            &mut self
                .changing
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Until when a call to the store may take: what the operator grants every operation on it.
    fn store_deadline(&self) -> Instant {
        Instant::now() + self.published().global.retry_timeout
    }

    /// A fresh read. Without the store the connection is dropped, since patronictl then goes on to the next
    /// member or writes by itself, while any answer makes it stop (A4).
    async fn read_cluster(&self) -> Result<Cluster, Answer> {
        let read = self.read_store(self.store_deadline()).await;
        read.map_err(|error| Answer::Dropped(error.to_string()))
    }

    async fn read_store(&self, deadline: Instant) -> Result<Cluster, StoreError> {
        let cluster = self.store.read(deadline).await?;
        // Once a second is enough for `dcs_last_seen`, and a busy loop has seen the store itself.
        if self.published().dcs_last_seen < Timestamp::now().as_second() {
            let _ = self.requests.try_send(Request::StoreRead);
        }
        Ok(cluster)
    }

    /// The settings that a cluster's own configuration gives, else those last known.
    fn global_of(&self, cluster: &Cluster) -> GlobalConfig {
        match &cluster.config {
            Some(config) => {
                self.published()
                    .global
                    .followed_by(&config.value, self.limits)
                    .0
            }
            None => (*self.published().global).clone(),
        }
    }

    async fn send(&self, request: Request) -> Result<(), Answer> {
        self.requests
            .send_timeout(request, SEND_PATIENCE)
            .await
            .map_err(|error| {
                Answer::Dropped(format!("the agent's loop takes no requests: {error}"))
            })
    }

    /// Sends a request and waits for what needs no long work.
    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Answer> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply)).await?;
        match tokio::time::timeout(ANSWER_PATIENCE, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err(Answer::Dropped("the agent's loop gave no answer".into())),
        }
    }
}

/// A request in the log (§1.7), in Patroni's form.
fn log_line(client: IpAddr, request: &str, code: u16, latency: Duration) -> String {
    let (client, latency) = (client.to_canonical(), latency.as_secs_f64() * 1e3);
    format!("API thread: {client} - - \"{request}\" {code} - latency: {latency:.3} ms")
}

/// The host of `http[s]://host[:port]/path`.
fn host(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    ConnUrl::parse(&format!("postgres://{rest}")).map(|url| url.host)
}
