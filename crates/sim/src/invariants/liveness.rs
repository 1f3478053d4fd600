//! I5: when the faults are over and some time has passed, there is one primary, it has the lock, and all others stream
//! from it.

use crate::world::{NodeId, World};

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
