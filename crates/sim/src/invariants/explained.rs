//! I7: every step has its reason in the journal, and so has every failover that is not taken: a replica that sees no leader
//! and does not race tells by which rule, and with which values.

use primacy_ha::{Event, JournalEntry};

use crate::world::{NodeId, World};

/// So often in a row an agent may look at a cluster without a leader before it has told why it does nothing about that. The journal
/// tells it at the first look; an agent that asks members first decides after their answers.
const LOOKS: u32 = 3;

/// What an agent has told since it sees no leader.
#[derive(Debug, Default)]
pub(crate) struct Leaderless {
    looks: u32,
    seen: bool,
    told: bool,
}

impl Leaderless {
    /// The agent did not move for a while: what it looked at before is out of date, and it looks anew before it decides.
    pub(crate) fn interrupted(&mut self) {
        self.looks = 0;
    }

    /// It races: that is no failover which is not taken, and the journal tells a step only so often.
    pub(crate) fn races(&mut self) {
        self.told = true;
    }
}

pub(crate) fn journaled(world: &mut World, node: NodeId, entry: &JournalEntry) {
    // Entries without a step tell of what happened, or why nothing was done.
    if !entry.step.is_empty() && entry.reasons.is_empty() {
        let text = format!("{}: {} without a reason", World::name(node), entry.step);
        world.violate("I7 explainable", text);
    }
    let mut reasons = entry.reasons.iter();
    let told = reasons.any(|reason| !reason.rule.is_empty() && !reason.text.is_empty());
    if let Some(agent) = world.nodes[node].agent.as_mut()
        && agent.leaderless.seen
    {
        agent.leaderless.told |= told;
    }
}

/// The agent hears of the cluster, and decides after that.
pub(crate) fn heard(world: &mut World, node: NodeId, event: &Event) {
    let promised = world.failsafe_is_active(node);
    let server = &world.servers[node];
    let replica = server.answers() && !server.is_primary();
    let Some(agent) = world.nodes[node].agent.as_mut() else {
        return;
    };
    let busy = agent.machine.job().is_some();
    let leaderless = &mut agent.leaderless;
    match event {
        Event::ClusterRead(Ok(cluster)) | Event::ClusterFollowed(cluster)
            if cluster.leader.is_some() =>
        {
            *leaderless = Leaderless::default();
            return;
        }
        Event::ClusterRead(Ok(_)) | Event::ClusterFollowed(_) => leaderless.seen = true,
        // What it looked at before that is out of date as well.
        Event::ClusterRead(Err(_)) => return leaderless.interrupted(),
        Event::ClusterUnchanged if leaderless.seen => {}
        _ => return,
    }
    // Who promised not to take over takes the leader in failsafe mode for the cluster's: what it was about to decide before
    // is out of date, and what it told before counts after.
    if promised {
        leaderless.interrupted();
    } else if replica && !busy {
        leaderless.looks += 1;
    }
    if leaderless.looks > LOOKS && !leaderless.told {
        let text = format!(
            "{} saw no leader {} times, does not race, and has not told why: {}",
            World::name(node),
            leaderless.looks - 1,
            agent.machine.outcome()
        );
        world.violate("I7 explainable", text);
    }
}
