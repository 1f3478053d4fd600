//! Permanent logical slots (`ha.md` §18.4, §18.6).
//!
//! PostgreSQL before 17 has them on the primary alone. Here a standby has a copy of each, made from the
//! primary's file, and moves it after the primary's. A copy is good for decoding once the catalog rows
//! that it needs are held back for it: when the primary's physical slot of this standby, by way of
//! `hot_standby_feedback`, holds at least what the primary's logical slot held at that time.

use std::collections::BTreeMap;

use primacy_model::{Cluster, ReplicationSlot, Role, SlotKind};

use super::wanted::Wanted;
use super::{LogicalSlot, LogicalSlotChange, describe_logical, is_ignored, path, physical};
use crate::decide::{Reasons, bootstrap, follow, operation};
use crate::decision::{Job, Source, Step};
use crate::situation::Situation;

pub(super) fn decide(
    s: &Situation<'_>,
    cluster: &Cluster,
    existing: &[ReplicationSlot],
    wanted: &BTreeMap<String, Wanted>,
    why: &mut Reasons,
) -> Option<Step> {
    if let Some(step) = in_background(s, existing, wanted, why) {
        return Some(step);
    }
    if s.is_primary() {
        return None;
    }
    let leader = cluster
        .leader_member()
        .filter(|leader| leader.name != *s.me() && leader.data.role == Some(Role::Primary))?;
    let source = bootstrap::member_source(leader, true)?;
    copy(s, cluster, existing, wanted, &source, why).or_else(|| compare(s, cluster, source, why))
}

/// Creates and moves logical slots, the databases in turn.
fn in_background(
    s: &Situation<'_>,
    existing: &[ReplicationSlot],
    wanted: &BTreeMap<String, Wanted>,
    why: &mut Reasons,
) -> Option<Step> {
    let mut work: BTreeMap<&String, Vec<LogicalSlotChange>> = BTreeMap::new();
    for (name, wanted) in wanted {
        let SlotKind::Logical { database, plugin } = &wanted.kind else {
            continue;
        };
        let slot = existing.iter().find(|slot| slot.name == *name);
        let change = match slot {
            None if s.is_primary() => Some(LogicalSlotChange::Create {
                name: name.clone(),
                plugin: plugin.clone(),
            }),
            Some(slot) if !s.is_primary() => advance(s, slot, wanted),
            _ => None,
        };
        if let Some(change) = change {
            work.entry(database).or_default().push(change);
        }
    }
    let (database, changes) = work
        .into_iter()
        .find(|(database, _)| s.memory.slots.may_work_in(database, s.now))?;
    why.note(
        "ha.md §18.4",
        format!("in database {database}: {}", describe_logical(&changes)),
    );
    why.outcome("changing logical replication slots");
    Some(Step::ChangeLogicalSlots {
        database: database.clone(),
        changes,
    })
}

/// Moves a slot of a standby after the primary's, as far as this standby is.
fn advance(
    s: &Situation<'_>,
    slot: &ReplicationSlot,
    wanted: &Wanted,
) -> Option<LogicalSlotChange> {
    let usable = slot.kind == wanted.kind && !slot.lost && !slot.active && !slot.synced;
    if !usable || s.memory.slots.stuck.contains(&slot.name) || is_ignored(s, slot) {
        return None;
    }
    let to = wanted.position?.min(physical::reached(s));
    (to > slot.confirmed_flush_lsn?).then(|| LogicalSlotChange::Advance {
        name: slot.name.clone(),
        to,
    })
}

/// Copies what is missing, and what cannot be moved because WAL that it needs is gone. Stops the server.
fn copy(
    s: &Situation<'_>,
    cluster: &Cluster,
    existing: &[ReplicationSlot],
    wanted: &BTreeMap<String, Wanted>,
    source: &Source,
    why: &mut Reasons,
) -> Option<Step> {
    let promised = s
        .memory
        .failsafe
        .promise
        .as_ref()
        .is_some_and(|promise| s.now < promise.until);
    // A primary without a store relies on this member to run and to answer (`ha.md` §15).
    if s.global.pause || promised {
        return None;
    }
    let slots: Vec<LogicalSlot> = wanted
        .iter()
        .filter_map(|(name, wanted)| {
            let SlotKind::Logical { database, plugin } = &wanted.kind else {
                return None;
            };
            // The primary has it, or had it a moment ago.
            wanted.position?;
            let last = s.memory.slots.copy_at.get(name);
            if last.is_some_and(|again| s.now < *again) {
                return None;
            }
            let stuck = s.memory.slots.stuck.contains(name);
            let absent = existing.iter().all(|slot| slot.name != *name);
            (absent || stuck).then(|| LogicalSlot {
                name: name.clone(),
                database: database.clone(),
                plugin: plugin.clone(),
                stuck: !absent,
            })
        })
        .collect();
    if slots.is_empty() {
        return None;
    }
    if let Some(step) = operation::leave_sync(s, cluster, why) {
        return Some(step);
    }
    let names: Vec<&str> = slots.iter().map(|slot| slot.name.as_str()).collect();
    why.note(
        "ha.md §18.6",
        format!("not here, or without its WAL: {}", names.join(", ")),
    );
    why.outcome(format!(
        "Copying logical slots {} from the primary",
        names.join(", ")
    ));
    Some(Step::StartJob(Job::CopyLogicalSlots {
        source: source.clone(),
        slots,
        upstream: Box::new(follow::upstream(s, cluster)),
    }))
}

/// Asks the primary what it holds back, for slots that are not known to be good.
fn compare(
    s: &Situation<'_>,
    cluster: &Cluster,
    source: Source,
    why: &mut Reasons,
) -> Option<Step> {
    let slots = &s.memory.slots;
    let due = slots
        .compared_at
        .is_none_or(|at| s.now.since(at) >= s.global.loop_wait);
    if slots.unready.is_empty() || slots.comparing || !due {
        return None;
    }
    let physical = path::slot_on_primary(cluster, s.me(), &s.local.tags)?;
    let logical: Vec<String> = slots.unready.keys().cloned().collect();
    why.note(
        "ha.md §18.6",
        format!("not known to be good: {}", logical.join(", ")),
    );
    why.outcome("asking the primary about logical slots");
    Some(Step::CompareLogicalSlots {
        source,
        physical,
        logical,
    })
}

/// The logical slots of a standby that were made by hand or copied: not those that the server itself keeps.
pub(crate) fn logical_slots(slots: &[ReplicationSlot]) -> impl Iterator<Item = &ReplicationSlot> {
    slots
        .iter()
        .filter(|slot| slot.kind != SlotKind::Physical && !slot.synced)
}

/// Whether a copy may be used after a promotion: the catalog rows that it needs are held back by the physical
/// slot, and that holds what the primary's own logical slot held when the physical one began to.
pub(crate) fn is_ready(primary_logical: u64, primary_physical: u64, local: u64) -> bool {
    precedes_or_equals(primary_logical, primary_physical)
        && precedes_or_equals(primary_physical, local)
}

/// Transaction numbers go round in 32 bits.
fn precedes_or_equals(a: u64, b: u64) -> bool {
    (a as u32).wrapping_sub(b as u32) as i32 <= 0
}
