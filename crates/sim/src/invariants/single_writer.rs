//! I1: at no instant do two servers both acknowledge commits to clients.
//!
//! Each promotion begins a branch, and branches are numbered in the order of their promotions. So once a commit was
//! acknowledged on a branch, none may be on an earlier one: that would be an old primary which goes on after its
//! successor's first. In pause a parallel primary is tolerated.

use crate::history::Branch;
use crate::world::{NodeId, World};

pub(crate) fn acknowledged(world: &mut World, node: NodeId, branch: Branch) {
    if world.takes_for_paused(node) {
        return;
    }
    match world.clients.newest {
        Some(newest) if branch < newest => {
            let (old, new) = (
                world.history.timeline(branch),
                world.history.timeline(newest),
            );
            let text = format!(
                "{} acknowledged a commit on timeline {old} (branch {branch}) after one was on timeline {new} (branch {newest})",
                World::name(node)
            );
            world.violate("I1 single writer", text);
        }
        _ => world.clients.newest = Some(branch),
    }
}
