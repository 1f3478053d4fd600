//! Listening to members and clients.

use std::sync::Arc;
use std::time::Duration;

use primacy_dcs::WatchEvent;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, interval, sleep, timeout};

use crate::core::{Core, unavailable};
use crate::frame::{Receiver, Sender};
use crate::handshake::{HandshakeError, Identity, Link};
use crate::machine::{Event, Item};
use crate::message::{Question, Reply, Request, Response};
use crate::reports::Reports;

/// Connections at a time: three lanes for each of a handful of members, and many clients.
const MAX_CONNECTIONS: usize = 512;

/// Questions of one connection that are worked on at a time.
const MAX_UNDER_WAY: usize = 256;

/// Replies of one connection that wait to be written.
const QUEUE: usize = 64;

/// A connection on which nothing is asked for so long is closed; its owner makes a new one when needed.
const IDLE: Duration = Duration::from_secs(60);

/// How long writing one frame may take: the largest one over a slow line.
const WRITE: Duration = Duration::from_secs(10);

/// How often a watch is told that it is alive.
pub(crate) const ALIVE: Duration = Duration::from_secs(2);

/// No question is worked on for longer, whatever its asker says.
const MAX_BUDGET: Duration = Duration::from_secs(300);

/// Serves until the member stops.
pub(crate) async fn serve(core: Arc<Core>, identity: Arc<Identity>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let reports = Arc::new(Reports::default());
    loop {
        let accepted = tokio::select! {
            () = core.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: others may be closed meanwhile.
                reports.trouble(
                    "accept",
                    format!("raft: cannot accept connections: {error}"),
                );
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            reports.trouble(
                "accept",
                format!("raft: more than {MAX_CONNECTIONS} connections"),
            );
            continue;
        };
        let (core, identity, reports) = (core.clone(), identity.clone(), reports.clone());
        core.tasks.clone().spawn(async move {
            let _place = place;
            let stop = core.stop.clone();
            stop.run_until_cancelled(async {
                match meet(&identity, stream).await {
                    Ok(link) => {
                        reports.well(&peer.ip().to_string(), || {
                            format!("raft: {peer} is welcome now")
                        });
                        converse(core, link).await;
                    }
                    Err(HandshakeError::Lost(_)) => {}
                    Err(HandshakeError::Refused(reason)) => {
                        let what =
                            format!("raft: refused a connection from {}: {reason}", peer.ip());
                        reports.trouble(&peer.ip().to_string(), what);
                    }
                }
            })
            .await;
        });
    }
}

async fn meet(identity: &Identity, stream: TcpStream) -> Result<Link, HandshakeError> {
    identity.welcome(stream).await
}

/// Answers what is asked on one connection.
async fn converse(core: Arc<Core>, link: Link) {
    let Link {
        mut receiver,
        sender,
        member,
    } = link;
    let member: Option<Arc<str>> = member.map(Arc::from);
    let (replies, outgoing) = mpsc::channel::<Response>(QUEUE);
    let faults = core.faults.clone();
    let places = Arc::new(Semaphore::new(MAX_UNDER_WAY));
    let mut sender = Some(sender);
    let mut outgoing = Some(outgoing);
    loop {
        let Ok(Ok(question)) = timeout(IDLE, receiver.receive::<Question<Request>>()).await else {
            return;
        };
        if faults.deaf() {
            continue;
        }
        let Question {
            id,
            budget_ms,
            request,
        } = question;
        if let Request::Watch { prefix } = request {
            // A connection is for one watch, or for everything else.
            if let Some(sender) = sender.take() {
                feed(core, id, prefix, receiver, sender).await;
            }
            return;
        }
        if let (Some(sender), Some(outgoing)) = (sender.take(), outgoing.take()) {
            core.tasks.spawn(
                core.stop
                    .clone()
                    .run_until_cancelled_owned(write(sender, outgoing)),
            );
        }
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let (core, member, replies, faults) = (
            core.clone(),
            member.clone(),
            replies.clone(),
            faults.clone(),
        );
        core.tasks.clone().spawn(async move {
            let budget = Duration::from_millis(budget_ms).min(MAX_BUDGET);
            let answering = core.answer(member.as_deref(), request, Instant::now() + budget);
            // Whoever waits for longer has gone.
            let answered = core
                .stop
                .run_until_cancelled(timeout(budget + ALIVE, answering))
                .await;
            if let Some(Ok(reply)) = answered
                && !faults.mute()
            {
                // The asker may have gone.
                let _ = replies.send(Response { id, reply }).await;
            }
            drop(place);
        });
    }
}

async fn write(mut sender: Sender, mut outgoing: mpsc::Receiver<Response>) {
    while let Some(response) = outgoing.recv().await {
        if !matches!(timeout(WRITE, sender.send(&response)).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// Tells a client of changes until it hangs up.
async fn feed(
    core: Arc<Core>,
    id: u64,
    prefix: String,
    mut receiver: Receiver,
    mut sender: Sender,
) {
    let mut events = core.watch(&prefix);
    let mut alive = interval(ALIVE);
    let hung_up = async { while receiver.receive::<Question<Request>>().await.is_ok() {} };
    let feeding = async {
        loop {
            let reply = tokio::select! {
                event = events.recv() => match event {
                    Some(WatchEvent::Put(entry)) => Reply::Changed(Event::Put(
                        entry.key,
                        Item {
                            value: crate::command::Blob(entry.value),
                            version: entry.version.0,
                            lease: entry.lease.map(|session| session.0),
                        },
                    )),
                    Some(WatchEvent::Delete { key }) => Reply::Changed(Event::Delete(key)),
                    // This store does not count its revisions.
                    Some(WatchEvent::Reached(_)) => continue,
                    Some(WatchEvent::Resync) => Reply::Resync,
                    None => return,
                },
                _ = alive.tick() => match core.trouble() {
                    Some(reason) => unavailable(reason),
                    None => Reply::Alive,
                },
            };
            if core.faults.mute() {
                continue;
            }
            if !matches!(
                timeout(WRITE, sender.send(&Response { id, reply })).await,
                Ok(Ok(()))
            ) {
                return;
            }
        }
    };
    tokio::select! {
        () = hung_up => {}
        () = feeding => {}
    }
}
