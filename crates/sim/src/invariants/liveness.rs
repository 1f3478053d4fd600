//! I5: when the faults are over, somebody leads within `ttl`, `loop_wait` and a promotion; some time later there is one primary, it
//! has the lock, and all others stream from it.

use std::time::Duration;

use crate::world::{Instant, NodeId, World};

/// A promotion and what comes before it: a server that is being stopped waits for its standbys for up to
/// `wal_sender_timeout`, others recover or are compared, which takes seconds. The longest time that 500 cluster-hours
/// needed in all was 23 s.
const PROMOTION: Duration = Duration::from_secs(60);

/// So soon after the faults somebody leads: the lease of who is lost ends, the others look, and one is promoted.
pub(crate) fn allowed(world: &World) -> Duration {
    let value = |key: &str, default: u64| {
        let config = world.store.config.as_ref();
        let value = config.and_then(|config| config.value.get(key)?.as_u64());
        Duration::from_secs(value.unwrap_or(default))
    };
    value("ttl", 30) + value("loop_wait", 10) + PROMOTION
}

/// There is a primary that holds the lock and takes writes.
pub(crate) fn somebody_leads(world: &World) -> bool {
    let leader = world.store.leader.as_ref().map(|leader| leader.value);
    leader.is_some_and(|leader| world.servers[leader].writable())
}

/// Nobody led in time.
pub(crate) fn late(world: &mut World, since: Instant) {
    let waited = world.now() - since;
    let text = format!(
        "nobody leads {waited:?} after the faults; {}",
        summary(world)
    );
    world.violate("I5 liveness", text);
}

pub(crate) fn check(world: &mut World) {
    if let Err(text) = healed(world) {
        world.violate("I5 liveness", text);
    }
}

fn healed(world: &World) -> Result<(), String> {
    let Some(leader) = world.store.leader.as_ref().map(|leader| leader.value) else {
        return Err(format!("nobody leads; {}", summary(world)));
    };
    let is_whole = |node: NodeId| {
        let server = &world.servers[node];
        if node == leader {
            server.writable()
        } else {
            server.answers() && !server.is_primary() && server.streams_from() == Some(leader)
        }
    };
    match (0..world.nodes.len()).find(|node| !is_whole(*node)) {
        None => Ok(()),
        Some(node) => Err(format!(
            "{} leads, and {} is not what it should be; {}",
            World::name(leader),
            World::name(node),
            summary(world)
        )),
    }
}

fn summary(world: &World) -> String {
    let one = |node: NodeId| {
        let server = &world.servers[node];
        format!(
            "{}: {}",
            World::name(node),
            match (&server.running, world.machine(node)) {
                (_, None) => "no agent".to_owned(),
                (None, Some(machine)) => format!(
                    "no server, {:?}: {}",
                    machine.memory().state,
                    machine.outcome()
                ),
                (Some(running), Some(machine)) => format!(
                    "{} {:?} at {:X} on branch {}, from {:?}: {}",
                    if running.primary {
                        "primary"
                    } else {
                        "standby"
                    },
                    running.phase,
                    server.disk.flushed,
                    server.disk.branch,
                    server.streams_from().map(World::name),
                    machine.outcome()
                ),
            }
        )
    };
    (0..world.nodes.len())
        .map(one)
        .collect::<Vec<_>>()
        .join(" | ")
}
