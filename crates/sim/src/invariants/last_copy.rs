//! I6: no data directory is wiped, and none is rewound, unless an operator asked for it or the member that it copies has what it
//! had of what was promised. What an interrupted pg_rewind left is used for nothing.

use crate::world::{NodeId, World};

pub(crate) fn wiped(world: &mut World, node: NodeId, source: Option<NodeId>) {
    let asked = std::mem::take(&mut world.nodes[node].reinitialize_asked);
    let configured = world.removes_diverged(node);
    match source {
        _ if asked => {}
        Some(source) if configured => rewound(world, node, source),
        _ => world.violate(
            "I6 last copy",
            format!("{} was wiped, and nobody asked for it", World::name(node)),
        ),
    }
}

pub(crate) fn rewound(world: &mut World, node: NodeId, source: NodeId) {
    if let Some((branch, end)) = world.first_given_up(node, source) {
        let text = format!(
            "{} is rewound to {}, which lacks what it has of branch {branch}, acknowledged up to {end:X}",
            World::name(node),
            World::name(source)
        );
        world.violate("I6 last copy", text);
    }
}

/// The data is used: a server is started on it, it is compared, or goes by what it has into a race.
pub(crate) fn used(world: &mut World, node: NodeId, how: &str) {
    if world.servers[node].disk.half_rewound {
        let text = format!(
            "what an interrupted pg_rewind left on {} is {how}",
            World::name(node)
        );
        world.violate("I6 last copy", text);
    }
}
