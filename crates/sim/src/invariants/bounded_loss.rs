//! I4: without synchronous mode, who takes a free lock is never further behind the last published position than
//! `maximum_lag_on_failover` allows.

use primacy_config::SynchronousMode;

use crate::world::{NodeId, World};

pub(crate) fn leader_taken(world: &mut World, node: NodeId) {
    let server = &world.servers[node];
    if world.synchronous_mode() != SynchronousMode::Off || !server.disk.valid || server.is_primary()
    {
        return;
    }
    let limit = world
        .store
        .config
        .as_ref()
        .and_then(|config| config.value.get("maximum_lag_on_failover")?.as_u64())
        .unwrap_or(1_048_576);
    let (published, has) = (world.store.status.optime.0, server.disk.flushed);
    let requested = world.store.read().failover.is_some();
    if published.saturating_sub(has) > limit && !requested {
        let text = format!(
            "{} took the lock at {has:X}, {} bytes behind {published:X}; maximum_lag_on_failover is {limit}",
            World::name(node),
            published - has
        );
        world.violate("I4 bounded loss", text);
    }
}
