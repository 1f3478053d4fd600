//! I7: every step has its reason in the journal.

use primacy_ha::JournalEntry;

use crate::world::{NodeId, World};

pub(crate) fn journaled(world: &mut World, node: NodeId, entry: &JournalEntry) {
    // Entries without a step tell of what happened, or why nothing was done.
    if !entry.step.is_empty() && entry.reasons.is_empty() {
        let text = format!("{}: {} without a reason", World::name(node), entry.step);
        world.violate("I7 explainable", text);
    }
}
