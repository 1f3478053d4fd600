//! I2: with synchronous mode or quorum commit, an acknowledged commit is on every later primary.

use crate::world::{NodeId, World};

pub(crate) fn became_primary(world: &mut World, node: NodeId) {
    if world.takes_for_paused(node) {
        // What a second primary does in pause is up to people.
        return;
    }
    if let Some((branch, end)) = world.first_missing(node) {
        let disk = &world.servers[node].disk;
        let text = format!(
            "{} became the primary with WAL up to {:X} on branch {}, without the commit at {end:X} on branch {branch} that was \
             acknowledged under synchronous replication",
            World::name(node),
            disk.flushed,
            disk.branch
        );
        world.violate("I2 no lost commit", text);
    }
}
