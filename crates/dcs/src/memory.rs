//! A store in memory, for tests: leases lapse by tokio's clock, and faults can be switched on.

use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use primacy_model::{Session, Version};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::{
    Change, Condition, Entry, Outcome, Renewal, Snapshot, Store, StoreError, WatchEvent, Write,
};

const KIND: &str = "memory";

/// What a watch may lag behind before it loses events.
const WATCH_BACKLOG: usize = 256;

/// One client of a store in memory. Needs a tokio runtime with time; paused time works.
pub struct MemoryStore {
    shared: Arc<Shared>,
    fault: Mutex<Fault>,
}

/// What goes wrong between one client and the store. Watches are not affected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Every call fails at once, definitely.
    Unavailable,
    /// Every request is carried out, and its answer takes so long.
    Slow(Duration),
    /// Every request is carried out, and no answer comes.
    AnswerLost,
    /// No request arrives, and the client cannot tell.
    RequestLost,
}

struct Shared {
    state: Mutex<State>,
    events: broadcast::Sender<WatchEvent>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    leases: HashMap<Session, Lease>,
    revision: u64,
}

struct Lease {
    ttl: Duration,
    lapses: Instant,
}

impl MemoryStore {
    /// An empty store and its first client.
    pub fn new() -> Arc<Self> {
        let (events, _) = broadcast::channel(WATCH_BACKLOG);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            events,
        });
        Arc::new(MemoryStore {
            shared,
            fault: Mutex::default(),
        })
    }

    /// Another client of the same store, without faults.
    pub fn client(&self) -> Arc<Self> {
        let shared = Arc::clone(&self.shared);
        Arc::new(MemoryStore {
            shared,
            fault: Mutex::default(),
        })
    }

    /// From now on this goes wrong for this client.
    pub fn set_fault(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Carries a request out as far as the fault allows. `idempotent`: a lost answer does no harm.
    async fn call<T>(
        &self,
        idempotent: bool,
        deadline: Instant,
        act: impl FnOnce(&Shared) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        // No store answers without letting others run.
        yield_now().await;
        let fault = *self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let unavailable = |reason: &str| StoreError::Unavailable {
            store: KIND,
            reason: reason.into(),
        };
        let lost = |reason: &str| match idempotent {
            true => unavailable(reason),
            false => StoreError::Unknown {
                store: KIND,
                reason: reason.into(),
            },
        };
        let wait = match fault {
            _ if Instant::now() >= deadline => return Err(unavailable("the deadline has passed")),
            Fault::Unavailable => return Err(unavailable("switched off")),
            Fault::None => return act(&self.shared),
            Fault::Slow(delay) => Some(delay),
            Fault::AnswerLost | Fault::RequestLost => None,
        };
        let answer = (fault != Fault::RequestLost).then(|| act(&self.shared));
        let wait = async {
            match wait {
                Some(delay) => sleep(delay).await,
                None => pending().await,
            }
        };
        match (timeout_at(deadline, wait).await, answer) {
            (Ok(()), Some(answer)) => answer,
            _ => Err(lost("no answer")),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let lapsed = state.leases.iter().filter(|(_, lease)| lease.lapses <= now);
        let lapsed: Vec<Session> = lapsed.map(|(session, _)| session.clone()).collect();
        for session in &lapsed {
            self.end_lease(&mut state, session);
        }
        state
    }

    fn end_lease(&self, state: &mut State, session: &Session) {
        state.leases.remove(session);
        let keys = state
            .entries
            .values()
            .filter(|entry| entry.lease.as_ref() == Some(session));
        let keys: Vec<String> = keys.map(|entry| entry.key.clone()).collect();
        self.remove(state, keys);
    }

    /// Removes the keys, as one revision.
    fn remove(&self, state: &mut State, keys: Vec<String>) {
        state.revision += 1;
        for key in keys {
            if state.entries.remove(&key).is_some() {
                self.report(WatchEvent::Delete { key });
            }
        }
        self.report(WatchEvent::Reached(Version(state.revision)));
    }

    fn report(&self, event: WatchEvent) {
        // An error means that nobody watches.
        let _ = self.events.send(event);
    }

    fn write(&self, write: Write) -> Result<Outcome, StoreError> {
        let mut state = self.state();
        let Write {
            key,
            change,
            condition,
        } = write;
        if !state.holds(&key, &condition) {
            return Ok(Outcome::ConditionFailed);
        }
        match change {
            Change::Delete => self.remove(&mut state, vec![key]),
            Change::Put { value, lease } => {
                if let Some(lease) = lease
                    .as_ref()
                    .filter(|lease| !state.leases.contains_key(lease))
                {
                    return Err(StoreError::Refused {
                        store: KIND,
                        reason: format!("there is no lease {}", lease.0),
                        lease_lapsed: true,
                    });
                }
                state.revision += 1;
                let version = Version(state.revision);
                let entry = Entry {
                    key: key.clone(),
                    value,
                    version,
                    lease,
                };
                state.entries.insert(key, entry.clone());
                self.report(WatchEvent::Put(entry));
                self.report(WatchEvent::Reached(version));
            }
        }
        Ok(Outcome::Done(Version(state.revision)))
    }
}

impl State {
    fn holds(&self, key: &str, condition: &Condition) -> bool {
        let entry = self.entries.get(key);
        match condition {
            Condition::Always => true,
            Condition::Absent => entry.is_none(),
            Condition::Version(version) => entry.is_some_and(|entry| entry.version == *version),
            Condition::Value(value) => entry.is_some_and(|entry| entry.value == *value),
            Condition::Holds { key, value } => self
                .entries
                .get(key)
                .is_some_and(|entry| entry.value == *value),
        }
    }

    fn below(&self, prefix: &str) -> impl Iterator<Item = &Entry> {
        let from = self
            .entries
            .range(prefix.to_owned()..)
            .map(|(_, entry)| entry);
        from.take_while(move |entry| entry.key.starts_with(prefix))
    }
}

/// Ends the lease when it lapses, also when nobody calls.
async fn lapse(shared: Weak<Shared>, session: Session) {
    loop {
        let lapses = match shared.upgrade() {
            Some(shared) => shared
                .state()
                .leases
                .get(&session)
                .map(|lease| lease.lapses),
            None => None,
        };
        let Some(lapses) = lapses else { return };
        sleep_until(lapses).await;
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn read(&self, prefix: &str, deadline: Instant) -> Result<Snapshot, StoreError> {
        self.call(true, deadline, |shared| {
            let state = shared.state();
            Ok(Snapshot {
                entries: state.below(prefix).cloned().collect(),
                revision: Some(Version(state.revision)),
            })
        })
        .await
    }

    async fn write(&self, write: Write, deadline: Instant) -> Result<Outcome, StoreError> {
        self.call(false, deadline, |shared| shared.write(write))
            .await
    }

    async fn grant_lease(&self, ttl: Duration, deadline: Instant) -> Result<Session, StoreError> {
        self.call(true, deadline, |shared| {
            let mut state = shared.state();
            state.revision += 1;
            let session = Session(state.revision.to_string());
            state.leases.insert(
                session.clone(),
                Lease {
                    ttl,
                    lapses: Instant::now() + ttl,
                },
            );
            tokio::spawn(lapse(Arc::downgrade(&self.shared), session.clone()));
            Ok(session)
        })
        .await
    }

    async fn renew_lease(&self, lease: &Session, deadline: Instant) -> Result<Renewal, StoreError> {
        self.call(true, deadline, |shared| {
            let mut state = shared.state();
            let revision = Some(Version(state.revision));
            match state.leases.get_mut(lease) {
                Some(lease) => {
                    lease.lapses = Instant::now() + lease.ttl;
                    Ok(Renewal::Renewed { revision })
                }
                None => Ok(Renewal::Lapsed),
            }
        })
        .await
    }

    async fn revoke_lease(&self, lease: &Session, deadline: Instant) -> Result<(), StoreError> {
        self.call(false, deadline, |shared| {
            shared.end_lease(&mut shared.state(), lease);
            Ok(())
        })
        .await
    }

    async fn delete_prefix(&self, prefix: &str, deadline: Instant) -> Result<(), StoreError> {
        self.call(false, deadline, |shared| {
            let mut state = shared.state();
            let keys = state.below(prefix).map(|entry| entry.key.clone()).collect();
            shared.remove(&mut state, keys);
            Ok(())
        })
        .await
    }

    fn watch(&self, prefix: &str) -> mpsc::Receiver<WatchEvent> {
        let mut events = self.shared.events.subscribe();
        let (sender, receiver) = mpsc::channel(WATCH_BACKLOG);
        let prefix = prefix.to_owned();
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    () = sender.closed() => return,
                    event = events.recv() => event,
                };
                let event = match event {
                    Ok(WatchEvent::Put(entry)) if !entry.key.starts_with(&prefix) => continue,
                    Ok(WatchEvent::Delete { key }) if !key.starts_with(&prefix) => continue,
                    Ok(event) => event,
                    Err(RecvError::Lagged(_)) => WatchEvent::Resync,
                    Err(RecvError::Closed) => return,
                };
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        });
        receiver
    }

    fn kind(&self) -> &'static str {
        KIND
    }
}
