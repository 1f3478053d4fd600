//! What to create, drop and move at once (`ha.md` §18.4).

use std::collections::BTreeMap;

use primacy_config::GlobalConfig;
use primacy_model::{Cluster, Lsn, ReplicationSlot, SlotKind};

use super::wanted::{Holder, Wanted};
use super::{SlotChange, is_ignored};
use crate::situation::Situation;

pub(super) fn plan(
    s: &Situation<'_>,
    cluster: &Cluster,
    existing: &[ReplicationSlot],
    wanted: &BTreeMap<String, Wanted>,
) -> Vec<SlotChange> {
    let mut changes: Vec<SlotChange> = existing
        .iter()
        .filter(|slot| {
            !slot.active
                && !is_ignored(s, slot)
                && must_go(s, cluster, slot, wanted.get(&slot.name))
        })
        .map(|slot| SlotChange::Drop {
            name: slot.name.clone(),
        })
        .collect();
    for (name, wanted) in wanted {
        if wanted.kind != SlotKind::Physical {
            continue;
        }
        match existing.iter().find(|slot| slot.name == *name) {
            None => changes.push(SlotChange::CreatePhysical { name: name.clone() }),
            Some(slot) if slot.kind == SlotKind::Physical && !slot.lost && !is_ignored(s, slot) => {
                changes.extend(tend(s, cluster, slot, wanted));
            }
            Some(_) => {}
        }
    }
    changes
}

/// Whether a slot that nobody uses may not stay.
fn must_go(
    s: &Situation<'_>,
    cluster: &Cluster,
    slot: &ReplicationSlot,
    wanted: Option<&Wanted>,
) -> bool {
    let others_lead = cluster
        .leader_name()
        .is_some_and(|leader| *leader != *s.me());
    if slot.failover && !s.is_primary() {
        // The server itself keeps those that it has from the primary; one that was made here, before a
        // demotion, stands in its way (17 and later).
        return !slot.synced && others_lead && !s.global.pause;
    }
    match wanted {
        Some(wanted) if wanted.kind != slot.kind => true,
        // All that it was kept for is gone.
        Some(_) => slot.lost && !s.global.pause,
        // Somebody outside the cluster relies on it, whatever this member's tags say.
        None if s.is_primary() && is_configured(s, slot) => false,
        None => !s.global.pause && !slot.failover,
    }
}

fn is_configured(s: &Situation<'_>, slot: &ReplicationSlot) -> bool {
    s.global
        .permanent_slots
        .get(&slot.name)
        .is_some_and(|configured| configured.kind == slot.kind)
}

/// A physical slot that is wanted and there.
fn tend(
    s: &Situation<'_>,
    cluster: &Cluster,
    slot: &ReplicationSlot,
    wanted: &Wanted,
) -> Option<SlotChange> {
    let expected_active = wanted.holder
        == Holder::Member {
            expected_active: true,
        };
    if expected_active || slot.active {
        return None;
    }
    let name = slot.name.clone();
    let in_charge = cluster.leader.is_some() && (!cluster.is_led_by(s.me()) || s.is_primary());
    // An xmin that nobody moves any more holds back vacuum for ever. The slot of somebody who may come back
    // here, within member_slots_ttl or at any time, keeps it.
    let stale_xmin = slot.has_xmin
        && in_charge
        && match wanted.holder {
            Holder::Member { .. } => true,
            Holder::Absent => false,
            Holder::Permanent => !s.is_primary(),
        };
    let Some(at) = slot.restart_lsn.filter(|_| !stale_xmin) else {
        // Made again, it reserves WAL at once.
        return Some(SlotChange::Drop { name });
    };
    // No further than the server itself is.
    let to = wanted.position?.min(reached(s));
    (to > at).then_some(SlotChange::Advance { name, to })
}

/// Slots that begin after where their holders are, as the leader said last: WAL from before may not be here
/// (W23).
pub(crate) fn ahead_of_holders(
    cluster: &Cluster,
    global: &GlobalConfig,
    existing: &[ReplicationSlot],
) -> Vec<String> {
    let matters = |name: &String| {
        global.permanent_slots.contains_key(name) || cluster.status.retain_slots.contains(name)
    };
    existing
        .iter()
        .filter(|slot| slot.kind == SlotKind::Physical && !slot.active && matters(&slot.name))
        .filter(|slot| {
            let holder = cluster.status.slots.get(&slot.name);
            slot.restart_lsn
                .zip(holder)
                .is_some_and(|(here, there)| here > *there)
        })
        .map(|slot| slot.name.clone())
        .collect()
}

/// How far a slot of this server can be moved.
pub(super) fn reached(s: &Situation<'_>) -> Lsn {
    match s.wal() {
        Some(wal) if wal.is_primary() => wal.flush_lsn,
        Some(wal) => wal.replay_lsn,
        None => Lsn::ZERO,
    }
}
