//! Replication slots (`ha.md` §18): those of members, so that no standby loses WAL that it still needs, and
//! the permanent ones, physical and logical, which every member that may become the primary has, so that
//! their consumers go on after a failover.
//!
//! What takes no time is one step: create, drop and move physical slots. Creating a logical slot waits for
//! transactions, moving one reads WAL: both run in the background, one piece of work per database at a
//! time. A logical slot that a standby does not have is copied from the primary, which takes a restart.

mod logical;
mod path;
mod physical;
mod publication;
mod race;
mod wanted;

use primacy_model::{Cluster, Lsn, ReplicationSlot};

use super::Reasons;
use crate::citus::is_own_slot;
use crate::decision::Step;
use crate::situation::Situation;

pub(crate) use logical::{is_ready, logical_slots};
pub(crate) use path::hot_standby_feedback;
pub(crate) use physical::ahead_of_holders;
pub(crate) use publication::published;
pub(super) use race::leave_lock_until;
pub(crate) use wanted::problems;

/// One change to the slots of the local server that takes no time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotChange {
    /// Create a physical slot that reserves WAL at once.
    CreatePhysical {
        /// Its name.
        name: String,
    },
    /// Drop a slot that nobody uses.
    Drop {
        /// Its name.
        name: String,
    },
    /// Move a physical slot forward.
    Advance {
        /// Its name.
        name: String,
        /// Where to.
        to: Lsn,
    },
}

/// One change to the logical slots of one database, which may take long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogicalSlotChange {
    /// Create it on a primary.
    Create {
        /// Its name.
        name: String,
        /// Output plugin.
        plugin: String,
    },
    /// Move it forward on a standby.
    Advance {
        /// Its name.
        name: String,
        /// Where to.
        to: Lsn,
    },
}

/// A logical slot as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalSlot {
    /// Its name.
    pub name: String,
    /// Database that it decodes.
    pub database: String,
    /// Output plugin.
    pub plugin: String,
    /// It is here, without the WAL that it needs. Another copy helps once the primary's needs no older WAL than
    /// there is here.
    pub stuck: bool,
}

/// What must change; `None` when the slots are as they should be or were not looked at.
pub(super) fn decide(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    let existing = s.wal()?.slots.as_ref()?;
    // Without /config nobody knows what is wanted.
    cluster.config.as_ref()?;
    let wanted = wanted::slots(s, cluster);
    let may_change = s.memory.slots.retry_at.is_none_or(|at| s.now >= at);
    let changes = physical::plan(s, cluster, existing, &wanted);
    if may_change && !changes.is_empty() {
        why.note("ha.md §18.4", describe(&changes));
        for slot in existing.iter().filter(|slot| slot.lost) {
            if wanted.contains_key(&slot.name) {
                let text = "lost WAL that it had to keep (max_slot_wal_keep_size) or was invalidated; who reads it \
                            has a gap";
                why.note("ha.md §18.4", format!("{} {text}", slot.name));
            }
        }
        why.outcome("changing replication slots");
        return Some(Step::ChangeSlots(changes));
    }
    logical::decide(s, cluster, existing, &wanted, why)
}

/// The changes in words.
pub(crate) fn describe(changes: &[SlotChange]) -> String {
    let words: Vec<String> = changes
        .iter()
        .map(|change| match change {
            SlotChange::CreatePhysical { name } => format!("create {name}"),
            SlotChange::Drop { name } => format!("drop {name}"),
            SlotChange::Advance { name, to } => format!("advance {name} to {to}"),
        })
        .collect();
    words.join(", ")
}

/// The same of logical slots.
pub(crate) fn describe_logical(changes: &[LogicalSlotChange]) -> String {
    let words: Vec<String> = changes
        .iter()
        .map(|change| match change {
            LogicalSlotChange::Create { name, plugin } => format!("create {name} with {plugin}"),
            LogicalSlotChange::Advance { name, to } => format!("advance {name} to {to}"),
        })
        .collect();
    words.join(", ")
}

/// The administrator said that nobody may touch it, or Citus made it on this primary.
fn is_ignored(s: &Situation<'_>, slot: &ReplicationSlot) -> bool {
    let configured = &s.global.ignore_slots;
    let is_primary = s.wal().is_some_and(|wal| wal.is_primary());
    let citus = s.local.citus_database.as_ref().filter(|_| is_primary);
    configured
        .iter()
        .any(|matcher| matcher.matches(&slot.name, &slot.kind))
        || citus.is_some_and(|database| is_own_slot(&slot.name, &slot.kind, database))
}
