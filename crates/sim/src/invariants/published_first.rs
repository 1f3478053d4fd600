//! I3: a standby counts for a failover only once it has confirmed what was acknowledged.
//!
//! Stronger than the order of two writes: at every instant, of the members that `/sync` lets be elected, so few lack
//! something acknowledged that any set which may elect one has a member that lacks nothing.

use crate::world::World;

pub(crate) fn sync_written(world: &mut World) {
    check(world);
}

pub(crate) fn check(world: &mut World) {
    let Some(sync) = world.store.sync.clone() else {
        return;
    };
    if world.synchronous_mode() == primacy_config::SynchronousMode::Off {
        return;
    }
    let lacking: Vec<String> = sync
        .standbys
        .iter()
        .filter(|name| {
            World::node_of(name)
                .is_some_and(|node| world.servers[node].disk.valid && !world.has_promised(node))
        })
        .map(|name| {
            let missing = World::node_of(name).and_then(|node| world.first_missing(node));
            let (branch, end) = missing.unwrap_or_default();
            format!("{name} lacks {end:X} on branch {branch}")
        })
        .collect();
    if lacking.len() > sync.quorum as usize {
        let text = format!(
            "/sync is {}, but of what was acknowledged {}",
            sync.to_json(),
            lacking.join(", ")
        );
        world.violate("I3 published before relied upon", text);
    }
}
