//! Asking other members, over connections that are kept and shared.
//!
//! Each partner is reached over a connection per [`Lane`], so that a heartbeat never waits behind a
//! snapshot or behind somebody's read. On a connection many questions are under way at once.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::faults::Faults;
use crate::frame::{Receiver, Sender};
use crate::handshake::{HandshakeError, Identity, Link};
use crate::message::{Question, Reply, Request, Response};
use crate::reports::Reports;

/// Questions waiting to be written. Full means that the other end does not read: better to know.
const QUEUE: usize = 64;

/// A connection on which nothing came for so long, though something was asked, is given up and made anew:
/// after a silent loss TCP alone would go on waiting for minutes.
const STALL: Duration = Duration::from_secs(3);

/// How long a partner that cannot be reached is left alone before the next try.
const REDIAL: Duration = Duration::from_millis(100);

/// The same for one that does not want us: a person must act first.
const REDIAL_REFUSED: Duration = Duration::from_secs(1);

/// What shares a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Votes, heartbeats and entries.
    Raft,
    /// Snapshots.
    Bulk,
    /// Requests to the store, and probes.
    Calls,
}

/// Why there is no reply.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The question never left.
    #[error("{0}")]
    NotSent(String),
    /// The question never left, since the other end does not want us.
    #[error("{0}")]
    Denied(String),
    /// The question left, and nothing came back.
    #[error("{0}")]
    Lost(String),
}

/// The connections to the other members.
pub(crate) struct Peers {
    identity: Arc<Identity>,
    slots: Mutex<HashMap<(String, Lane), Slot>>,
    reports: Arc<Reports>,
    stop: CancellationToken,
    faults: Arc<Faults>,
}

type Dialled = Option<Result<Arc<Connection>, (HandshakeError, Instant)>>;
type Slot = watch::Receiver<Dialled>;

impl Peers {
    pub(crate) fn new(
        identity: Arc<Identity>,
        stop: CancellationToken,
        faults: Arc<Faults>,
    ) -> Self {
        Peers {
            identity,
            slots: Mutex::default(),
            reports: Arc::default(),
            stop,
            faults,
        }
    }

    /// Asks the member at this address. Cancel safe; the question may have left then.
    pub(crate) async fn ask(
        &self,
        addr: &str,
        lane: Lane,
        request: &Request,
        deadline: Instant,
    ) -> Result<Reply, AskError> {
        let connection = timeout_at(deadline, self.connection(addr, lane))
            .await
            .unwrap_or_else(|_| Err(AskError::NotSent(format!("{addr} does not answer"))))?;
        connection.ask(addr, request, deadline).await
    }

    /// A connection of its own, for a watch.
    pub(crate) async fn dial(&self, addr: &str) -> Result<Link, AskError> {
        self.identity
            .dial(addr)
            .await
            .map_err(|error| ask_error(addr, error))
    }

    /// The connection of this lane. Dialling goes on when the caller gives up, so that a short deadline
    /// does not keep a connection from ever being made.
    async fn connection(&self, addr: &str, lane: Lane) -> Result<Arc<Connection>, AskError> {
        let mut slot = self.slot(addr, lane);
        let dialled = slot
            .wait_for(Option::is_some)
            .await
            .map(|dialled| dialled.clone());
        match dialled {
            Ok(Some(Ok(connection))) => Ok(connection),
            Ok(Some(Err((error, _)))) => Err(ask_error(addr, error)),
            Ok(None) | Err(_) => Err(AskError::NotSent("this member is stopping".into())),
        }
    }

    fn slot(&self, addr: &str, lane: Lane) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (addr.to_owned(), lane);
        if let Some(slot) = slots.get(&key) {
            let usable = match &*slot.borrow() {
                None => slot.has_changed().is_ok(),
                Some(Ok(connection)) => !connection.over.is_cancelled(),
                Some(Err((_, retry))) => Instant::now() < *retry,
            };
            if usable {
                return slot.clone();
            }
        }
        let slot = self.start_dialling(addr.to_owned());
        slots.insert(key, slot.clone());
        slot
    }

    fn start_dialling(&self, addr: String) -> Slot {
        let (done, slot) = watch::channel(None);
        let (identity, reports, faults) = (
            self.identity.clone(),
            self.reports.clone(),
            self.faults.clone(),
        );
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let dialling = identity.dial(&addr);
            let Some(dialled) = stop.run_until_cancelled(dialling).await else {
                return;
            };
            let _ = done.send(Some(match dialled {
                Ok(link) => {
                    reports.well(&addr, || format!("raft: connected with {addr}"));
                    Ok(Connection::start(link, stop.child_token(), faults))
                }
                Err(error) => {
                    reports.trouble(&addr, format!("raft: no connection with {addr}: {error}"));
                    let pause = match error {
                        HandshakeError::Lost(_) => REDIAL,
                        HandshakeError::Refused(_) => REDIAL_REFUSED,
                    };
                    Err((error, Instant::now() + pause))
                }
            }));
        });
        slot
    }
}

fn ask_error(addr: &str, error: HandshakeError) -> AskError {
    match error {
        HandshakeError::Lost(reason) => AskError::NotSent(format!("{addr}: {reason}")),
        HandshakeError::Refused(reason) => AskError::Denied(format!("{addr}: {reason}")),
    }
}

/// One connection and the questions under way on it.
struct Connection {
    queue: mpsc::Sender<Vec<u8>>,
    pending: Arc<Mutex<Pending>>,
    next_id: AtomicU64,
    over: CancellationToken,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Pending {
    replies: HashMap<u64, oneshot::Sender<Reply>>,
    /// The first question since something came last.
    silent_since: Option<Instant>,
    over: bool,
}

impl Connection {
    fn start(link: Link, over: CancellationToken, faults: Arc<Faults>) -> Arc<Connection> {
        let (queue, outgoing) = mpsc::channel(QUEUE);
        let pending = Arc::new(Mutex::new(Pending::default()));
        let Link {
            receiver, sender, ..
        } = link;
        tokio::spawn({
            let (over, pending, faults) = (over.clone(), pending.clone(), faults.clone());
            async move {
                tokio::select! {
                    () = over.cancelled() => {}
                    () = write(sender, outgoing) => {}
                    () = read(receiver, &pending, &faults) => {}
                }
                over.cancel();
                let mut pending = lock(&pending);
                pending.over = true;
                pending.replies.clear();
            }
        });
        Arc::new(Connection {
            queue,
            pending,
            next_id: AtomicU64::new(0),
            over,
            faults,
        })
    }

    async fn ask(
        &self,
        addr: &str,
        request: &Request,
        deadline: Instant,
    ) -> Result<Reply, AskError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let budget_ms = deadline
            .saturating_duration_since(Instant::now())
            .as_millis() as u64;
        let question = serde_json::to_vec(&Question {
            id,
            budget_ms,
            request,
        })
        .map_err(|error| AskError::NotSent(error.to_string()))?;
        let Ok(Ok(place)) = timeout_at(deadline, self.queue.reserve()).await else {
            return Err(AskError::NotSent(format!(
                "{addr}: the connection is lost or not read from"
            )));
        };
        let (reply, answered) = oneshot::channel();
        {
            let mut pending = lock(&self.pending);
            if pending.over {
                return Err(AskError::NotSent(format!("{addr}: the connection is lost")));
            }
            pending.silent_since.get_or_insert_with(Instant::now);
            pending.replies.insert(id, reply);
        }
        let _forget = Forget {
            id,
            pending: &self.pending,
        };
        if !self.faults.mute() {
            place.send(question);
        }
        match timeout_at(deadline, answered).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(AskError::Lost(format!("{addr}: the connection was lost"))),
            Err(_) => Err(AskError::Lost(format!("{addr} did not answer in time"))),
        }
    }
}

/// Takes the question off the list, however it ended.
struct Forget<'a> {
    id: u64,
    pending: &'a Mutex<Pending>,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.pending).replies.remove(&self.id);
    }
}

fn lock(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes until the other end is gone or does not read.
async fn write(mut sender: Sender, mut outgoing: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = outgoing.recv().await {
        if !matches!(timeout(STALL, sender.send_bytes(&frame)).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// Hands out replies until the other end is gone or silent.
async fn read(mut receiver: Receiver, pending: &Mutex<Pending>, faults: &Faults) {
    loop {
        let mut frame = pin!(receiver.receive::<Response>());
        let response = loop {
            tokio::select! {
                response = &mut frame => break response,
                () = sleep(STALL) => {
                    if lock(pending).silent_since.is_some_and(|since| since.elapsed() > STALL) {
                        return;
                    }
                }
            }
        };
        let Ok(Response { id, reply }) = response else {
            return;
        };
        if faults.deaf() {
            continue;
        }
        let mut pending = lock(pending);
        pending.silent_since = None;
        if let Some(asker) = pending.replies.remove(&id) {
            // The asker may have given up meanwhile.
            let _ = asker.send(reply);
        }
    }
}
