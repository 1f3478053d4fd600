//! I5, in failsafe mode: a leader that lived by promises goes on when the store answers again, whether its key is still there or
//! gone. Whoever else might have taken the key has promised not to.
//!
//! Judged where nothing else happens meanwhile: from the store's first answer on for a `ttl`, without any fault, among agents that
//! have been there for a while. One that is being started makes no promise, and a request that the fault held up may fail yet.

use primacy_ha::{Event, FailsafeReply, FailsafeVerdict, RenewalResult};

use crate::world::{Instant, NodeId, World};

/// When the store answered a leader that lived by promises.
#[derive(Debug, Default)]
pub(crate) struct Returned(Option<Instant>);

/// The store answers an agent, or does not.
pub(crate) fn heard(world: &mut World, node: NodeId, event: &Event) {
    let answers = match event {
        Event::ClusterRead(Ok(cluster)) | Event::ClusterFollowed(cluster) => {
            let leads = cluster.leader_name().map(|name| World::node_of(name));
            cluster.failover.is_none() && leads.is_none_or(|leads| leads == Some(node))
        }
        // A member that does not promise any more, or answers too late, ends it.
        Event::FailsafeAnswered { answers, .. } => {
            let mut answers = answers.values();
            if answers.all(|answer| matches!(answer, FailsafeReply::Accepted(_))) {
                return;
            }
            false
        }
        Event::Renewed { result, .. } => !matches!(result, RenewalResult::Failed(_)),
        _ => return,
    };
    let now = world.nodes[node].moment(world.now());
    let primary = world.servers[node].writable();
    let at = world.now();
    let Some(agent) = world.nodes[node].agent.as_mut() else {
        return;
    };
    let machine = &agent.machine;
    let by_promises = machine.memory().failsafe.verdict == Some(FailsafeVerdict::Accepted);
    if !answers {
        agent.returned = Returned::default();
    } else if by_promises && primary && !machine.global().pause && machine.lease().is_held(now) {
        agent.returned = Returned(Some(at));
        world.report.returns += 1;
    }
}

/// The leadership of a node ends.
pub(crate) fn demoted(world: &mut World, node: NodeId, how: &str) {
    let Some(agent) = &world.nodes[node].agent else {
        return;
    };
    let ttl = agent.machine.global().ttl;
    let Some(at) = agent.returned.0 else { return };
    let mut agents = world.nodes.iter().map(|node| node.agent.as_ref());
    let settled = agents.all(|agent| agent.is_some_and(|agent| agent.since + ttl <= at));
    let undisturbed = settled && world.active.is_empty() && world.disturbed_at <= at;
    let leader = world.store.leader.as_ref().map(|leader| leader.value);
    let others = leader.is_some_and(|leader| leader != node);
    if undisturbed && !others && world.now() <= at + ttl {
        let text = format!(
            "{} lived by promises until the store answered at {at:?}, and is not let lead on: {how}",
            World::name(node)
        );
        world.violate("I5 liveness", text);
    }
}
