//! The store's contract, over any way to the leader.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use primacy_dcs::{Outcome, Renewal, Snapshot, Store, StoreError, WatchEvent, Write};
use primacy_model::{Session, Version};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use crate::clock::millis;
use crate::command::{Answer, Op, RequestId};
use crate::core::Core;
use crate::machine::Item;
use crate::message::{Body, Call, Reply};
use crate::peers::AskError;
use crate::watch::entry;

const KIND: &str = "raft";

/// Between two attempts: an election takes some of these.
const PAUSE: Duration = Duration::from_millis(50);

/// How long one attempt waits for its answer before the request is sent again: longer than an election, so
/// that what comes next is another leader.
const PATIENCE: Duration = Duration::from_secs(2);

/// A way to the leader.
#[async_trait]
pub(crate) trait Route: Send + Sync + 'static {
    /// Sends the request once.
    async fn attempt(&self, body: Body, deadline: Instant) -> Result<Reply, AskError>;

    fn watch(&self, prefix: &str) -> mpsc::Receiver<WatchEvent>;
}

#[async_trait]
impl Route for Arc<Core> {
    async fn attempt(&self, body: Body, deadline: Instant) -> Result<Reply, AskError> {
        Ok(self
            .call(
                Call {
                    body,
                    forwarded: false,
                    group: None,
                },
                deadline,
            )
            .await)
    }

    fn watch(&self, prefix: &str) -> mpsc::Receiver<WatchEvent> {
        Core::watch(self, prefix)
    }
}

/// The store.
pub(crate) struct RaftStore<R> {
    route: R,
    /// Marks this handle's requests, so that a repetition is known as one.
    client: String,
    requests: Mutex<Requests>,
}

#[derive(Default)]
struct Requests {
    next: u64,
    open: BTreeSet<u64>,
}

/// What came of a request.
enum Settled {
    Items(Vec<(String, Item)>),
    Answer(Answer),
}

impl<R: Route> RaftStore<R> {
    pub(crate) fn new(route: R) -> Self {
        let client = format!("{:032x}", rand::random::<u128>());
        RaftStore {
            route,
            client,
            requests: Mutex::default(),
        }
    }

    /// Sends the request until it is settled or the deadline has come.
    async fn settle(&self, body: Body, deadline: Instant) -> Result<Settled, StoreError> {
        let mut lost = None;
        let mut refused = "the deadline of the request had passed".to_owned();
        while Instant::now() < deadline {
            let until = deadline.min(Instant::now() + PATIENCE);
            let attempt = timeout_at(until, self.route.attempt(body.clone(), until)).await;
            match attempt {
                Ok(Ok(Reply::Items(items))) => return Ok(Settled::Items(items)),
                Ok(Ok(Reply::Answer(Answer::Forgotten))) => {
                    lost = Some("the group has forgotten what came of it".to_owned());
                    break;
                }
                Ok(Ok(Reply::Answer(answer))) => return Ok(Settled::Answer(answer)),
                Ok(Ok(Reply::Unavailable { reason }) | Err(AskError::NotSent(reason))) => {
                    refused = reason
                }
                Ok(Ok(Reply::Lost { reason }) | Err(AskError::Lost(reason))) => lost = Some(reason),
                Ok(Err(AskError::Denied(reason))) if lost.is_none() => {
                    return Err(StoreError::Refused {
                        store: KIND,
                        reason,
                        lease_lapsed: false,
                    });
                }
                Ok(Err(AskError::Denied(reason))) => refused = reason,
                Ok(Ok(_)) => lost = Some("the reply does not fit the question".to_owned()),
                Err(_) => lost = Some("no answer in time".to_owned()),
            }
            if deadline.saturating_duration_since(Instant::now()) <= PAUSE {
                break;
            }
            sleep(PAUSE).await;
        }
        Err(match lost {
            Some(reason) if matches!(body, Body::Change { .. }) => StoreError::Unknown {
                store: KIND,
                reason,
            },
            Some(reason) => StoreError::Unavailable {
                store: KIND,
                reason,
            },
            None => StoreError::Unavailable {
                store: KIND,
                reason: refused,
            },
        })
    }

    async fn change(&self, op: Op, deadline: Instant) -> Result<Answer, StoreError> {
        let request = Open::begin(self);
        let body = Body::Change {
            id: request.id.clone(),
            op,
        };
        match self.settle(body, deadline).await? {
            Settled::Answer(Answer::NoSuchLease) => Err(StoreError::Refused {
                store: KIND,
                reason: "the lease that the key shall hang on is gone".into(),
                lease_lapsed: true,
            }),
            Settled::Answer(Answer::Refused { reason }) => Err(StoreError::Refused {
                store: KIND,
                reason,
                lease_lapsed: false,
            }),
            Settled::Answer(answer) => Ok(answer),
            Settled::Items(_) => Err(misfit()),
        }
    }
}

/// A request that has not ended. Dropped, it has: a copy of it that is still under way will do nothing
/// once any later request has been applied.
struct Open<'a> {
    id: RequestId,
    requests: &'a Mutex<Requests>,
}

impl<'a> Open<'a> {
    fn begin<R>(store: &'a RaftStore<R>) -> Self {
        let mut requests = store
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let seq = requests.next;
        requests.next += 1;
        requests.open.insert(seq);
        let settled = requests.open.first().copied().unwrap_or(seq);
        Open {
            id: RequestId {
                client: store.client.clone(),
                seq,
                settled,
            },
            requests: &store.requests,
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .open
            .remove(&self.id.seq);
    }
}

/// The answer does not fit the request: members of different releases, perhaps. It was carried out.
fn misfit() -> StoreError {
    StoreError::Unknown {
        store: KIND,
        reason: "the answer does not fit the request".into(),
    }
}

#[async_trait]
impl<R: Route> Store for RaftStore<R> {
    async fn read(&self, prefix: &str, deadline: Instant) -> Result<Snapshot, StoreError> {
        match self
            .settle(
                Body::Read {
                    prefix: prefix.to_owned(),
                },
                deadline,
            )
            .await?
        {
            Settled::Items(items) => Ok(Snapshot {
                entries: items
                    .into_iter()
                    .map(|(key, item)| entry(key, item))
                    .collect(),
                revision: None,
            }),
            Settled::Answer(_) => Err(StoreError::Unavailable {
                store: KIND,
                reason: "the reply does not fit the question".into(),
            }),
        }
    }

    async fn write(&self, write: Write, deadline: Instant) -> Result<Outcome, StoreError> {
        match self.change(write.into(), deadline).await? {
            Answer::Done { version } => Ok(Outcome::Done(Version(version))),
            Answer::ConditionFailed => Ok(Outcome::ConditionFailed),
            _ => Err(misfit()),
        }
    }

    async fn grant_lease(&self, ttl: Duration, deadline: Instant) -> Result<Session, StoreError> {
        match self
            .change(Op::GrantLease { ttl: millis(ttl) }, deadline)
            .await?
        {
            Answer::Granted { lease } => Ok(Session(lease)),
            _ => Err(misfit()),
        }
    }

    async fn renew_lease(&self, lease: &Session, deadline: Instant) -> Result<Renewal, StoreError> {
        match self
            .change(
                Op::RenewLease {
                    lease: lease.0.clone(),
                },
                deadline,
            )
            .await?
        {
            Answer::Renewed => Ok(Renewal::Renewed { revision: None }),
            Answer::Lapsed => Ok(Renewal::Lapsed),
            _ => Err(misfit()),
        }
    }

    async fn revoke_lease(&self, lease: &Session, deadline: Instant) -> Result<(), StoreError> {
        match self
            .change(
                Op::RevokeLease {
                    lease: lease.0.clone(),
                },
                deadline,
            )
            .await?
        {
            Answer::Done { .. } => Ok(()),
            _ => Err(misfit()),
        }
    }

    async fn delete_prefix(&self, prefix: &str, deadline: Instant) -> Result<(), StoreError> {
        match self
            .change(
                Op::DeletePrefix {
                    prefix: prefix.to_owned(),
                },
                deadline,
            )
            .await?
        {
            Answer::Done { .. } => Ok(()),
            _ => Err(misfit()),
        }
    }

    fn watch(&self, prefix: &str) -> mpsc::Receiver<WatchEvent> {
        self.route.watch(prefix)
    }

    fn kind(&self) -> &'static str {
        KIND
    }
}
