//! Leading: taking over the group's clock, and letting leases lapse.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use tokio::time::{Instant, sleep};

use crate::clock::{Reign, boottime};
use crate::command::{Action, Answer, Command};
use crate::core::{Core, propose};
use crate::message::Reply;
use crate::types::{Raft, Vote};

/// How often the next deadline is looked for at least. A lease with a longer time to live lapses on the
/// millisecond; and a machine that was suspended, where timers stand still, notices within this time.
const LOOK: Duration = Duration::from_millis(500);

/// How long a proposal of the leader's own may take before it is made again.
const PATIENCE: Duration = Duration::from_secs(2);

/// Leads whenever this member is the leader, until it stops.
pub(crate) async fn lead(core: Arc<Core>, raft: Raft) {
    let mut metrics = raft.server_metrics();
    loop {
        let leading = metrics
            .wait_for(|metrics| metrics.state == ServerState::Leader)
            .await;
        let Ok(vote) = leading.map(|metrics| metrics.vote) else {
            return;
        };
        match take_over(&raft).await {
            Some(reign) => {
                tracing::info!("raft: {} leads the group", core.addr);
                *core.lock_reign() = Some(reign);
                keep(&core, &raft, reign, vote).await;
                *core.lock_reign() = None;
                tracing::info!("raft: {} leads the group no more", core.addr);
            }
            None => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn take_over(raft: &Raft) -> Option<Reign> {
    let group = format!("{:032x}", rand::random::<u128>());
    let command = Command {
        reign: 0,
        at: 0,
        action: Action::Lead { group },
    };
    let written = tokio::time::timeout(PATIENCE, raft.client_write(command)).await;
    match written.ok()?.ok()?.data {
        // The clock starts after the entry was applied: what it counts is never too much.
        Answer::Led { reign, now } => Some(Reign {
            index: reign,
            base: now,
            anchor: boottime(),
        }),
        _ => None,
    }
}

/// Lets leases lapse in time, as long as the reign lasts.
async fn keep(core: &Core, raft: &Raft, reign: Reign, vote: Vote) {
    let mut metrics = raft.server_metrics();
    let replica = core.life().replica.clone();
    loop {
        let leading = {
            let metrics = metrics.borrow_and_update();
            metrics.state == ServerState::Leader && metrics.vote == vote
        };
        let (present, next) = replica.read(|state| (state.reign, state.next_deadline()));
        if !leading || present != reign.index {
            return;
        }
        let now = reign.at(boottime());
        let pause = match next {
            Some(deadline) if deadline < now => {
                match propose(raft, reign, Action::Tick, Instant::now() + PATIENCE).await {
                    Ok(_) => continue,
                    Err(Reply::Lost { .. }) => Duration::ZERO,
                    Err(_) => Duration::from_millis(50),
                }
            }
            Some(deadline) => LOOK.min(Duration::from_millis(deadline - now + 1)),
            None => LOOK,
        };
        tokio::select! {
            () = sleep(pause) => {}
            changed = metrics.changed() => if changed.is_err() { return },
        }
    }
}
