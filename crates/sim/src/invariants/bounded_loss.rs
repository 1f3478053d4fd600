//! I4: without synchronous mode, who takes a free lock lacks no more of the WAL up to the last published position than
//! `maximum_lag_on_failover` allows, however far its own WAL goes.

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
    let disk = &server.disk;
    let history = &world.history;
    // Of a timeline that the cluster has left only what it went on from counts: the rest was lost when that was decided.
    let cluster = world.store.read();
    let status = world.store.status.optime;
    let timeline = history.timeline(world.store.status_of);
    let left = cluster.left_timeline_before(Some(timeline), status);
    let published = left.map_or(status, |(_, at)| at).0;
    let own = (disk.branch, disk.flushed);
    let same = history.shared(own, (world.store.status_of, published));
    // Timelines of one number that were begun apart look the same to who was not compared, and so does what came after
    // them: only the position tells who goes on (docs/simulator.md).
    let of_theirs = history.on_timeline(own, timeline);
    let of_mine = history.on_timeline(
        (world.store.status_of, published),
        history.timeline(disk.branch),
    );
    let twin = of_theirs.is_some_and(|(branch, _)| branch != world.store.status_of)
        || of_mine.is_some_and(|(branch, _)| branch != disk.branch);
    let reach = match twin && !disk.diverged {
        true => disk.flushed,
        false => same,
    };
    let lacking = published.saturating_sub(reach);
    let requested = cluster.failover.is_some();
    if lacking > limit && !requested {
        let text = format!(
            "{} took the lock at {:X}, with the leader's WAL up to {same:X}, {} bytes short of {published:X}; maximum_lag_on_failover is {limit}",
            World::name(node),
            disk.flushed,
            lacking
        );
        world.violate("I4 bounded loss", text);
    }
}
