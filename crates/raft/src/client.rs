//! The store for those who are no members: operators' commands.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use primacy_dcs::{Store, WatchEvent};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::faults::Faults;
use crate::handshake::{Identity, Link};
use crate::message::{Body, Call, Question, Reply, Request, Response};
use crate::peers::{AskError, Lane, Peers};
use crate::server::ALIVE;
use crate::store::{RaftStore, Route};
use crate::watch::event;
use crate::{RaftConfig, RaftError};

/// A watch that hears nothing for so long tries another member.
const DEAF: Duration = ALIVE.saturating_mul(3);

/// Between two tries of a watch.
const REDIAL: Duration = Duration::from_millis(500);

/// Events of a watch that the receiver has not taken yet.
const WATCH_QUEUE: usize = 64;

/// The store as seen from outside the group: asks any member that answers.
#[derive(Clone)]
pub struct RaftClient {
    outside: Arc<Outside>,
}

struct Outside {
    peers: Peers,
    members: Vec<String>,
    /// The member that answered last.
    present: AtomicUsize,
    /// What the members said that did not want us.
    denials: Mutex<Vec<Option<String>>>,
    #[cfg_attr(not(test), expect(dead_code, reason = "tests set them"))]
    faults: Arc<Faults>,
    _stop: DropGuard,
}

impl RaftClient {
    /// A client of the members that the configuration names, `self_addr` included. Connects when asked
    /// something.
    ///
    /// # Errors
    /// [`RaftError::Config`] if no member is named.
    pub fn new(config: &RaftConfig) -> Result<RaftClient, RaftError> {
        let members = config.members();
        if members.is_empty() {
            return Err(RaftError::Config {
                what: "neither self_addr nor partner_addrs is set".into(),
            });
        }
        let stop = CancellationToken::new();
        let faults = Arc::new(Faults::default());
        let identity = Arc::new(Identity::new(config, None));
        let peers = Peers::new(identity, stop.clone(), faults.clone());
        let denials = Mutex::new(vec![None; members.len()]);
        let present = AtomicUsize::new(0);
        let _stop = stop.drop_guard();
        Ok(RaftClient {
            outside: Arc::new(Outside {
                peers,
                members,
                present,
                denials,
                faults,
                _stop,
            }),
        })
    }

    /// The store.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::new(RaftStore::new(self.clone()))
    }

    #[cfg(test)]
    pub(crate) fn faults(&self) -> &Faults {
        &self.outside.faults
    }
}

impl Outside {
    fn member(&self) -> (usize, &str) {
        let which = self.present.load(Ordering::Relaxed) % self.members.len();
        (which, &self.members[which])
    }

    fn try_next(&self, after: usize) {
        self.present
            .store((after + 1) % self.members.len(), Ordering::Relaxed);
    }

    /// All members' words once none of them wants us.
    fn denied(&self, which: usize, words: Option<String>) -> Option<String> {
        let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
        denials[which] = words;
        denials
            .iter()
            .cloned()
            .collect::<Option<Vec<_>>>()
            .map(|all| all.join("; "))
    }

    /// Follows one member until it is lost. Whatever happened before it answered may have been missed.
    async fn follow(
        &self,
        prefix: &str,
        events: &mpsc::Sender<WatchEvent>,
    ) -> Result<(), AskError> {
        let (which, member) = self.member();
        let followed = self.follow_member(member, prefix, events).await;
        if followed.is_err() {
            self.try_next(which);
        }
        followed
    }

    async fn follow_member(
        &self,
        member: &str,
        prefix: &str,
        events: &mpsc::Sender<WatchEvent>,
    ) -> Result<(), AskError> {
        let lost = |reason: &str| AskError::Lost(format!("{member}: {reason}"));
        let Link {
            mut receiver,
            mut sender,
            ..
        } = self.peers.dial(member).await?;
        let request = Request::Watch {
            prefix: prefix.to_owned(),
        };
        let question = Question {
            id: 0,
            budget_ms: 0,
            request,
        };
        sender
            .send(&question)
            .await
            .map_err(|error| lost(&error.to_string()))?;
        let mut begun = false;
        loop {
            let Response { reply, .. } = timeout(DEAF, receiver.receive())
                .await
                .map_err(|_| lost("nothing heard"))?
                .map_err(|error| lost(&error.to_string()))?;
            if !begun {
                begun = true;
                if events.send(WatchEvent::Resync).await.is_err() {
                    return Ok(());
                }
            }
            let event = match reply {
                Reply::Changed(change) => event(&change),
                Reply::Resync => WatchEvent::Resync,
                Reply::Alive => continue,
                Reply::Unavailable { reason } => return Err(AskError::NotSent(reason)),
                _ => return Err(lost("the reply does not fit the question")),
            };
            if events.send(event).await.is_err() {
                return Ok(());
            }
        }
    }
}

#[async_trait]
impl Route for RaftClient {
    async fn attempt(&self, body: Body, deadline: Instant) -> Result<Reply, AskError> {
        let (which, member) = self.outside.member();
        let request = Request::Call(Call {
            body,
            forwarded: false,
            group: None,
        });
        let reply = self
            .outside
            .peers
            .ask(member, Lane::Calls, &request, deadline)
            .await;
        if !matches!(reply, Ok(Reply::Items(_) | Reply::Answer(_))) {
            self.outside.try_next(which);
        }
        match reply {
            Err(AskError::Denied(words)) => match self.outside.denied(which, Some(words.clone())) {
                Some(all) => Err(AskError::Denied(all)),
                None => Err(AskError::NotSent(words)),
            },
            other => {
                self.outside.denied(which, None);
                other
            }
        }
    }

    fn watch(&self, prefix: &str) -> mpsc::Receiver<WatchEvent> {
        let (events, receiver) = mpsc::channel(WATCH_QUEUE);
        let outside = self.outside.clone();
        let prefix = prefix.to_owned();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = events.closed() => return,
                    followed = outside.follow(&prefix, &events) => if let Err(error) = followed {
                        tracing::debug!("raft: watch of {prefix}: {error}");
                    },
                }
                tokio::select! {
                    () = events.closed() => return,
                    () = sleep(REDIAL) => {}
                }
            }
        });
        receiver
    }
}
