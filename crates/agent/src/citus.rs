//! The two sides of a Citus cluster (`ha.md` §16.1): a worker group's leader tells the coordinator group's what it is
//! about to do, and that keeps `pg_dist_node`. What is done to the table, and when, [`CitusCoordinator`] says.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use primacy_dcs::{ClusterStore, WatchEvent};
use primacy_ha::citus::{
    Change, CitusCoordinator, CitusEvent, CitusNews, NodeAddress, NodeRole, NodeRow, Outcome,
    Statement, Work,
};
use primacy_model::{CitusGroup, Cluster, MemberName, Role};
use primacy_net::{Bytes, HeaderMap, HttpClient, Method};
use primacy_postgres::{CitusSession, Server};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::clock;
use crate::jobs::chain;
use crate::published::Published;
use crate::shell::until;

/// For everything but the wait that `before_demote` asks for.
const TELL: Duration = Duration::from_secs(2);
/// For a connection, and for reading the table.
const SHORT: Duration = Duration::from_secs(10);
/// Adding a node copies what every node has. When PostgreSQL itself hangs, that is noticed elsewhere.
const LONG: Duration = Duration::from_secs(3600);
/// By it nobody is reached: clients wait for the transaction that gave it. Patroni has the same.
const PAUSED: &str = "-demoted";
/// Events that wait for the coordinator; their senders wait for seconds at most.
const HEARD_MAX: usize = 64;

/// What a worker group's leader needs to tell the coordinator something.
#[derive(Clone)]
pub(crate) struct CoordinatorClient {
    /// The coordinator's group.
    pub(crate) store: ClusterStore,
    pub(crate) client: HttpClient,
    pub(crate) group: CitusGroup,
    pub(crate) name: MemberName,
    pub(crate) ttl: Duration,
    pub(crate) retry_timeout: Duration,
}

impl CoordinatorClient {
    /// Tells it, once. A coordinator that is not told finds out by itself, with its clients failing until then, so
    /// nothing waits for it for long.
    pub(crate) async fn tell(&self, event: CitusEvent) {
        let patience = match event {
            CitusEvent::BeforeDemote => self.ttl,
            CitusEvent::BeforePromote | CitusEvent::AfterPromote => TELL,
        };
        if let Err(problem) = self.post(event, Instant::now() + patience).await {
            tracing::warn!(
                "the Citus coordinator was not told {}: {problem}",
                event.as_str()
            );
        }
    }

    async fn post(&self, event: CitusEvent, deadline: Instant) -> Result<(), String> {
        let read = self.store.read(deadline.min(Instant::now() + TELL)).await;
        let cluster = read.map_err(|error| chain(&error))?;
        let leader = cluster.leader_member().ok_or("its group has no leader")?;
        let api_url = leader.data.api_url.as_deref().unwrap_or_default();
        let (base, _) = api_url
            .rsplit_once('/')
            .ok_or_else(|| format!("its leader {} tells no API address", leader.name))?;
        let news = CitusNews {
            event,
            group: self.group,
            leader: self.name.clone(),
            timeout: self.ttl,
            cooldown: self.retry_timeout,
        };
        let url = format!("{base}/citus");
        let body = Bytes::from(body(&news).to_string());
        let headers = HeaderMap::new();
        let sent = self
            .client
            .request(Method::POST, &url, headers, body, deadline);
        match sent.await {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(answer) => Err(format!("{} answered {}", leader.name, answer.status)),
            Err(error) => Err(format!("{}: {}", leader.name, chain(&error))),
        }
    }
}

fn body(news: &CitusNews) -> Value {
    json!({
        "type": news.event.as_str(),
        "group": news.group.0,
        "leader": news.leader,
        "timeout": news.timeout.as_secs(),
        "cooldown": news.cooldown.as_secs(),
    })
}

/// Reads the body. The error says what is wrong with it.
pub(crate) fn news(body: &Map<String, Value>) -> Result<CitusNews, String> {
    let field = |name: &str| body.get(name).ok_or_else(|| format!("{name} is missing"));
    let text = |name: &str| {
        let value = field(name)?.as_str();
        value.ok_or_else(|| format!("{name} must be a text"))
    };
    let seconds = |name: &str| {
        let value = field(name)?.as_f64();
        value
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .ok_or_else(|| format!("{name} must be a number of seconds"))
    };
    let group = field("group")?.as_u64();
    Ok(CitusNews {
        event: CitusEvent::parse(text("type")?)
            .ok_or("type must be before_demote, before_promote or after_promote")?,
        group: group
            .and_then(|group| group.try_into().ok().map(CitusGroup))
            .ok_or("group must be a number")?,
        leader: text("leader")?.into(),
        timeout: seconds("timeout")?,
        cooldown: seconds("cooldown")?,
    })
}

/// The way to the coordinator's task, for the API.
#[derive(Clone)]
pub struct CitusHandle {
    heard: mpsc::Sender<Heard>,
    api_urls: watch::Receiver<Vec<String>>,
}

struct Heard {
    news: CitusNews,
    reply: oneshot::Sender<()>,
}

impl CitusHandle {
    /// Hands an event over; waits for what is to be done before a worker goes down, for the other events for nothing.
    pub(crate) async fn hear(&self, news: CitusNews) {
        let patience = news.timeout;
        let waits = news.event == CitusEvent::BeforeDemote;
        let (reply, done) = oneshot::channel();
        if self.heard.try_send(Heard { news, reply }).is_err() {
            tracing::warn!("too much is asked of pg_dist_node at once; the event is dropped");
        } else if waits {
            let _ = tokio::time::timeout(patience, done).await;
        }
    }

    /// Of a task that has ended: whatever is said to it is dropped.
    #[cfg(test)]
    pub(crate) fn unheard() -> Self {
        CitusHandle {
            heard: mpsc::channel(1).0,
            api_urls: watch::channel(Vec::new()).1,
        }
    }

    /// The API addresses of all groups' members.
    pub(crate) fn api_urls(&self) -> Vec<String> {
        self.api_urls.borrow().clone()
    }
}

/// Keeps `pg_dist_node` while this member leads the coordinator's group.
struct Coordinator {
    /// All groups.
    scope: ClusterStore,
    server: Server,
    database: String,
    published: watch::Receiver<Arc<Published>>,
    heard: mpsc::Receiver<Heard>,
    api_urls: watch::Sender<Vec<String>>,
    plan: CitusCoordinator,
    session: Option<CitusSession>,
    replies: HashMap<u64, oneshot::Sender<()>>,
    last_reply: u64,
}

/// Starts the coordinator's task; it ends with the agent. `scope` has all groups.
pub(crate) fn start(
    scope: ClusterStore,
    server: Server,
    database: String,
    published: watch::Receiver<Arc<Published>>,
) -> CitusHandle {
    let (sender, heard) = mpsc::channel(HEARD_MAX);
    let (api_urls, known) = watch::channel(Vec::new());
    let coordinator = Coordinator {
        scope,
        server,
        database,
        published,
        heard,
        api_urls,
        plan: CitusCoordinator::default(),
        session: None,
        replies: HashMap::new(),
        last_reply: 0,
    };
    tokio::spawn(coordinator.run());
    CitusHandle {
        heard: sender,
        api_urls: known,
    }
}

impl Coordinator {
    async fn run(mut self) {
        let mut watch = self.scope.watch();
        let mut read_at = Instant::now();
        loop {
            let wake = self.plan.wake_at().map(clock::instant);
            tokio::select! {
                changed = self.published.changed() => if changed.is_err() { return },
                Some(heard) = self.heard.recv() => self.hear(heard).await,
                Some(event) = watch.recv() => if is_leader_key(&event) { read_at = Instant::now() },
                () = until(wake) => {}
                () = tokio::time::sleep_until(read_at) => {
                    self.read().await;
                    read_at = Instant::now() + self.published.borrow().global.loop_wait;
                }
            }
            self.work().await;
        }
    }

    async fn hear(&mut self, heard: Heard) {
        let Heard { news, reply } = heard;
        tracing::info!(
            "group {} tells {} of {}",
            news.group,
            news.event.as_str(),
            news.leader
        );
        // The reply is dropped, and with it given, where nothing is to be waited for.
        if !self.leads() {
            return;
        }
        let store = self.scope.in_group(news.group);
        let group = match store.read(Instant::now() + self.retry_timeout()).await {
            Ok(group) => group,
            Err(error) => {
                tracing::warn!("group {} cannot be read: {}", news.group, chain(&error));
                return;
            }
        };
        self.last_reply += 1;
        self.replies.insert(self.last_reply, reply);
        let answered = self.plan.hear(self.last_reply, &news, &group);
        if answered == Some(self.last_reply) {
            tracing::info!("{} does not lead group {}", news.leader, news.group);
        }
        self.answer(answered);
    }

    /// Once a loop, and when a leader changed: what the workers' leaders did not manage to tell.
    async fn read(&mut self) {
        let deadline = Instant::now() + self.retry_timeout();
        let groups = match self.scope.read_groups(deadline).await {
            Ok(groups) => groups,
            Err(error) => {
                tracing::warn!("the groups cannot be read: {}", chain(&error));
                return;
            }
        };
        self.api_urls.send_replace(api_urls(&groups));
        if self.leads() {
            self.plan.reconcile(&groups, clock::now());
        }
    }

    async fn work(&mut self) {
        while self.leads()
            && let Some(work) = self.plan.next(clock::now())
        {
            let mut published = self.published.clone();
            let deposed = async {
                while leads(&published.borrow_and_update()) {
                    if published.changed().await.is_err() {
                        return;
                    }
                }
            };
            let outcome = tokio::select! {
                outcome = self.perform(&work) => outcome,
                () = deposed => Outcome::Failed,
            };
            if outcome == Outcome::Failed {
                self.session = None;
            }
            self.plan.done(&work, outcome, clock::now());
            self.answer(work.answers);
        }
        if !self.leads() {
            self.session = None;
            let answers = self.plan.forget();
            answers.into_iter().for_each(|id| self.answer(Some(id)));
        } else if self.session.as_ref().is_some_and(CitusSession::is_closed) {
            self.session = None;
            self.plan.session_lost();
        }
    }

    async fn perform(&mut self, work: &Work) -> Outcome {
        match self.run_statements(work).await {
            Ok(outcome) => outcome,
            Err(error) => {
                let group = work.group;
                tracing::error!("pg_dist_node, group {group}: {}", chain(&error));
                Outcome::Failed
            }
        }
    }

    async fn run_statements(&mut self, work: &Work) -> Result<Outcome, primacy_postgres::Error> {
        let (mut loaded, mut added) = (Vec::new(), Vec::new());
        for statement in &work.statements {
            let session = match &mut self.session {
                Some(session) => session,
                none => {
                    let by = Instant::now() + SHORT;
                    none.insert(self.server.citus_session(&self.database, by).await?)
                }
            };
            tracing::debug!("group {}: {statement:?}", work.group);
            let (short, long) = (Instant::now() + SHORT, Instant::now() + LONG);
            match statement {
                Statement::Load => {
                    loaded = session.nodes(short).await?.into_iter().map(row).collect();
                }
                Statement::Begin => session.begin(short).await?,
                Statement::Commit => session.commit(long).await?,
                Statement::Rollback => {
                    tracing::warn!(
                        "nobody accepts writes in group {} in time: its clients go on without",
                        work.group
                    );
                    session.rollback(short).await?;
                }
                Statement::Change(Change::Update {
                    id,
                    address,
                    paused,
                }) => {
                    let host = match paused {
                        true => format!("{}{PAUSED}", address.host),
                        false => address.host.clone(),
                    };
                    let cooldown = work.cooldown;
                    session
                        .update_node(*id, &host, address.port, cooldown, long)
                        .await?;
                }
                Statement::Change(Change::Add { address, role }) => {
                    let (host, port) = (&address.host, address.port);
                    let (group, role) = (work.group.0, role.as_str());
                    added.push(session.add_node(host, port, group, role, long).await?);
                }
                Statement::Change(Change::Remove(address)) => {
                    session
                        .remove_node(&address.host, address.port, long)
                        .await?;
                }
            }
        }
        Ok(Outcome::Done { loaded, added })
    }

    fn answer(&mut self, id: Option<u64>) {
        if let Some(reply) = id.and_then(|id| self.replies.remove(&id)) {
            let _ = reply.send(());
        }
    }

    fn leads(&self) -> bool {
        leads(&self.published.borrow())
    }

    fn retry_timeout(&self) -> Duration {
        self.published.borrow().global.retry_timeout
    }
}

/// A standby cluster's coordinator has the table from where it streams.
fn leads(published: &Published) -> bool {
    published.holds_lock(Instant::now()) && published.role == Role::Primary
}

fn is_leader_key(event: &WatchEvent) -> bool {
    match event {
        WatchEvent::Put(entry) => entry.key.ends_with("/leader"),
        WatchEvent::Delete { key } => key.ends_with("/leader"),
        WatchEvent::Reached(_) => false,
        WatchEvent::Resync => true,
    }
}

fn api_urls(groups: &BTreeMap<CitusGroup, Cluster>) -> Vec<String> {
    let members = groups.values().flat_map(|group| &group.members);
    members
        .filter_map(|member| member.data.api_url.clone())
        .collect()
}

fn row(node: primacy_postgres::CitusNode) -> NodeRow {
    NodeRow {
        id: node.id,
        group: CitusGroup(node.group),
        address: NodeAddress {
            host: node.host,
            port: node.port,
        },
        role: match node.is_primary {
            true => NodeRole::Primary,
            false => NodeRole::Secondary,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_its_own_inverse_and_what_is_wrong_with_one_is_said() {
        let sent = CitusNews {
            event: CitusEvent::BeforeDemote,
            group: CitusGroup(2),
            leader: "w2a".into(),
            timeout: Duration::from_secs(30),
            cooldown: Duration::from_secs(10),
        };
        let told = body(&sent);
        assert_eq!(
            told,
            json!({"type": "before_demote", "group": 2, "leader": "w2a", "timeout": 30, "cooldown": 10})
        );
        assert_eq!(news(told.as_object().unwrap()), Ok(sent));
        for (field, value, problem) in [
            ("type", Value::Null, "type must be a text"),
            ("type", json!("before"), "type must be before_demote"),
            ("group", json!("2"), "group must be a number"),
            ("group", json!(-1), "group must be a number"),
            ("leader", json!(2), "leader must be a text"),
            ("timeout", json!(-1), "timeout must be a number of seconds"),
            (
                "cooldown",
                json!("10"),
                "cooldown must be a number of seconds",
            ),
        ] {
            let mut wrong = told.clone();
            wrong[field] = value;
            let error = news(wrong.as_object().unwrap()).unwrap_err();
            assert!(error.starts_with(problem), "{error}");
            wrong.as_object_mut().unwrap().remove(field);
            let error = news(wrong.as_object().unwrap()).unwrap_err();
            assert_eq!(error, format!("{field} is missing"));
        }
    }
}
