//! What a member does when it is asked something.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use openraft::error::{ClientWriteError, RaftError};
use primacy_dcs::WatchEvent;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Reign, boottime};
use crate::command::{Action, Answer, Command};
use crate::disk::Disk;
use crate::faults::Faults;
use crate::message::{Body, Call, Reply, Request};
use crate::peers::{AskError, Lane, Peers};
use crate::replica::{Notice, Replica};
use crate::reports::Reports;
use crate::types::{Metrics, Raft, Snapshot};
use crate::watch::event;

/// Events that one watcher may leave unread before its backlog grows in the replica.
const WATCH_QUEUE: usize = 64;

/// A member's parts.
pub(crate) struct Core {
    /// Its own address.
    pub(crate) addr: String,
    /// All members' addresses.
    pub(crate) members: Vec<String>,
    pub(crate) life: RwLock<Arc<Life>>,
    pub(crate) peers: Arc<Peers>,
    /// Set while it leads and may serve.
    pub(crate) reign: Mutex<Option<Reign>>,
    /// It lost its file and must not vote yet.
    pub(crate) recovering: AtomicBool,
    /// Why it does not take part.
    pub(crate) trouble: Mutex<Option<String>>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) faults: Arc<Faults>,
    pub(crate) reports: Reports,
}

/// What a member has from the opening of its file to the closing. The consensus library stops for good when the disk
/// fails it; the member then begins another life from what is on the disk, as if its process had been started again.
pub(crate) struct Life {
    pub(crate) disk: Arc<Disk>,
    pub(crate) replica: Replica,
    /// Set once the member has joined.
    pub(crate) raft: OnceLock<Raft>,
}

impl Life {
    pub(crate) fn new(disk: Arc<Disk>, replica: Replica) -> Arc<Life> {
        Arc::new(Life {
            disk,
            replica,
            raft: OnceLock::new(),
        })
    }
}

impl Core {
    /// The present life. Nothing of an earlier one may reach it: its replica and its file are its own.
    pub(crate) fn life(&self) -> Arc<Life> {
        self.life
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn begin(&self, life: Arc<Life>) {
        *self.life.write().unwrap_or_else(PoisonError::into_inner) = life;
    }

    /// Answers a partner (`from` is its address) or a client.
    pub(crate) async fn answer(
        &self,
        from: Option<&str>,
        request: Request,
        deadline: Instant,
    ) -> Reply {
        let life = self.life();
        match request {
            Request::Probe => match life.disk.standing() {
                Ok(standing) => Reply::Standing(standing),
                Err(error) => unavailable(error),
            },
            Request::Call(call) => self.call(call, deadline).await,
            Request::Watch { .. } => unavailable("a watch needs a connection of its own"),
            _ if from.is_none() => unavailable("only members take part in the consensus"),
            request => match life.raft.get() {
                Some(raft) => self.take_part(raft, request).await,
                None => unavailable(self.trouble().unwrap_or_else(|| "still joining".into())),
            },
        }
    }

    async fn take_part(&self, raft: &Raft, request: Request) -> Reply {
        match request {
            Request::Append { group, rpc } => match self.foreign(group.as_deref()) {
                Some(reason) => unavailable(reason),
                None => raft
                    .append_entries(rpc)
                    .await
                    .map_or_else(unavailable, Reply::Appended),
            },
            Request::Vote { group, rpc } => match self.foreign(group.as_deref()) {
                Some(reason) => unavailable(reason),
                None if self.recovering.load(Ordering::Relaxed) => unavailable(
                    "this member lost its file and has not caught up: it does not vote yet",
                ),
                None => raft.vote(rpc).await.map_or_else(unavailable, Reply::Voted),
            },
            Request::Snapshot { vote, meta, state } => match self.foreign(state.group.as_deref()) {
                Some(reason) => unavailable(reason),
                None => raft
                    .install_full_snapshot(
                        vote,
                        Snapshot {
                            meta,
                            snapshot: state,
                        },
                    )
                    .await
                    .map_or_else(unavailable, Reply::Installed),
            },
            Request::Probe | Request::Call(_) | Request::Watch { .. } => {
                unavailable("not about the consensus")
            }
        }
    }

    /// Members whose files come from different groups must not mix their logs.
    fn foreign(&self, theirs: Option<&str>) -> Option<String> {
        let ours = self.life().replica.group()?;
        let theirs = theirs.filter(|theirs| *theirs != ours)?;
        let reason = format!(
            "{} belongs to group {ours}, not to group {theirs}: one of both was founded anew after its files \
             were lost; move away the file of the member that is to lose its data",
            self.addr
        );
        self.reports.trouble(theirs, format!("raft: {reason}"));
        Some(reason)
    }

    /// Carries out a request to the store, here or at the leader.
    pub(crate) async fn call(&self, call: Call, deadline: Instant) -> Reply {
        if let Some(reason) = self.trouble() {
            return Reply::Unavailable { reason };
        }
        if let Some(reason) = self.foreign(call.group.as_deref()) {
            return Reply::Unavailable { reason };
        }
        let life = self.life();
        let Some(raft) = life.raft.get() else {
            return unavailable("this member has not joined yet");
        };
        let reign = *self.lock_reign();
        if let Some(reign) = reign {
            return match call.body {
                Body::Read { prefix } => self.read(&life, raft, &prefix, deadline).await,
                Body::Change { id, op } => {
                    let action = Action::Serve { id, op };
                    match propose(raft, reign, action, deadline).await {
                        Ok(Answer::Superseded) => unavailable("the leader has just changed"),
                        Ok(answer) => Reply::Answer(answer),
                        Err(reply) => reply,
                    }
                }
            };
        }
        let Some(leader) = self.leader().filter(|leader| *leader != self.addr) else {
            return unavailable("no leader is known");
        };
        if call.forwarded {
            return unavailable(format!("{} does not lead, {leader} does", self.addr));
        }
        let request = Request::Call(Call {
            forwarded: true,
            group: life.replica.group(),
            ..call
        });
        match self
            .peers
            .ask(&leader, Lane::Calls, &request, deadline)
            .await
        {
            Ok(reply) => reply,
            Err(AskError::Lost(reason)) => Reply::Lost { reason },
            Err(error) => unavailable(error),
        }
    }

    async fn read(&self, life: &Life, raft: &Raft, prefix: &str, deadline: Instant) -> Reply {
        match timeout_at(deadline, raft.ensure_linearizable()).await {
            Ok(Ok(_)) => Reply::Items(life.replica.read(|state| {
                let below = state.keys.range(prefix.to_owned()..);
                let below = below.take_while(|(key, _)| key.starts_with(prefix));
                below
                    .map(|(key, item)| (key.clone(), item.clone()))
                    .collect()
            })),
            Ok(Err(error)) => unavailable(error),
            Err(_) => unavailable(format!("{} leads, but finds no majority", self.addr)),
        }
    }

    /// Reports changes below the prefix from now on.
    pub(crate) fn watch(&self, prefix: &str) -> mpsc::Receiver<WatchEvent> {
        let (events, receiver) = mpsc::channel(WATCH_QUEUE);
        let mut notices = self.life().replica.subscribe();
        let prefix = prefix.to_owned();
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            loop {
                let notice = tokio::select! {
                    () = stop.cancelled() => return,
                    () = events.closed() => return,
                    notice = notices.recv() => notice,
                };
                let event = match notice {
                    Ok(Notice::Changed(change)) if !change.key().starts_with(&prefix) => continue,
                    Ok(Notice::Changed(change)) => event(&change),
                    Ok(Notice::Replaced) | Err(broadcast::error::RecvError::Lagged(_)) => {
                        WatchEvent::Resync
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                };
                tokio::select! {
                    () = stop.cancelled() => return,
                    sent = events.send(event) => if sent.is_err() { return },
                }
            }
        });
        receiver
    }

    /// The leader's address, when known.
    pub(crate) fn leader(&self) -> Option<String> {
        let metrics = self.metrics()?;
        let leader = metrics.current_leader?;
        metrics
            .membership_config
            .membership()
            .get_node(&leader)
            .map(|node| node.addr.clone())
    }

    pub(crate) fn metrics(&self) -> Option<Metrics> {
        Some(self.life().raft.get()?.metrics().borrow().clone())
    }

    /// Why this member takes no part, if it does not.
    pub(crate) fn trouble(&self) -> Option<String> {
        if let Some(metrics) = self.metrics()
            && let Err(fatal) = metrics.running_state
        {
            return Some(format!("the raft core of {} stopped: {fatal}", self.addr));
        }
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub(crate) fn lock_reign(&self) -> MutexGuard<'_, Option<Reign>> {
        self.reign.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a command in the log and waits until it is applied.
pub(crate) async fn propose(
    raft: &Raft,
    reign: Reign,
    action: Action,
    deadline: Instant,
) -> Result<Answer, Reply> {
    let command = Command {
        reign: reign.index,
        at: reign.at(boottime()),
        action,
    };
    match timeout_at(deadline, raft.client_write(command)).await {
        Ok(Ok(done)) => Ok(done.data),
        // Either it was never in the log, or another leader's log has replaced it for good.
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
            Err(unavailable("the leader has just changed"))
        }
        Ok(Err(error)) => Err(Reply::Lost {
            reason: error.to_string(),
        }),
        Err(_) => Err(Reply::Lost {
            reason: "no majority confirmed the write in time".into(),
        }),
    }
}

pub(crate) fn unavailable(reason: impl ToString) -> Reply {
    Reply::Unavailable {
        reason: reason.to_string(),
    }
}
