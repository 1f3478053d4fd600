//! Replication slots (`ha.md` §18): those of members, so that no standby loses WAL that it still needs, and
//! the permanent ones.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use primacy_config::GlobalConfig;
use primacy_model::{
    Cluster, Lsn, Member, ReplicationSlot, SlotKind, Status, WalStatus, slot_name,
};

use super::Reasons;
use crate::decision::Step;
use crate::situation::{Local, Situation};
use crate::time::Moment;

/// One change to the slots of the local server.
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

/// What must change; `None` when the slots are as they should be or were not looked at.
pub(super) fn decide(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    let existing = s.wal()?.slots.as_ref()?;
    // Without /config nobody knows what is wanted.
    cluster.config.as_ref()?;
    let changes = plan(s, cluster, existing);
    if changes.is_empty() {
        return None;
    }
    why.note("ha.md §18.4", describe(&changes));
    why.outcome("changing replication slots");
    Some(Step::ChangeSlots(changes))
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

/// A slot that should exist.
struct Wanted {
    /// Its member streams through it now, as far as the configuration tells.
    expected_active: bool,
    /// Where it should be when nobody moves it.
    position: Option<Lsn>,
}

fn plan(s: &Situation<'_>, cluster: &Cluster, existing: &[ReplicationSlot]) -> Vec<SlotChange> {
    let wanted = wanted(s, cluster);
    let mut changes = Vec::new();
    for slot in existing {
        if wanted.contains_key(&slot.name) && slot.kind == SlotKind::Physical && !slot.lost {
            continue;
        }
        let ignored = s
            .global
            .ignore_slots
            .iter()
            .any(|m| m.matches(&slot.name, &slot.kind));
        let permanent = s.global.permanent_slots.contains_key(&slot.name);
        if !slot.active && !s.global.pause && !ignored && !permanent && !slot.failover {
            changes.push(SlotChange::Drop {
                name: slot.name.clone(),
            });
        }
    }
    for (name, wanted) in &wanted {
        let Some(slot) = existing.iter().find(|slot| slot.name == *name) else {
            changes.push(SlotChange::CreatePhysical { name: name.clone() });
            continue;
        };
        if wanted.expected_active || slot.active || slot.kind != SlotKind::Physical {
            continue;
        }
        let in_charge = cluster.leader.is_some() && (!cluster.is_led_by(s.me()) || s.is_primary());
        match (slot.restart_lsn, wanted.position) {
            _ if slot.has_xmin && in_charge => {
                changes.push(SlotChange::Drop { name: name.clone() })
            }
            (Some(at), Some(to)) if to > at && s.wal().is_some_and(|wal| to <= wal.position()) => {
                changes.push(SlotChange::Advance {
                    name: name.clone(),
                    to,
                });
            }
            _ => {}
        }
    }
    changes
}

fn wanted(s: &Situation<'_>, cluster: &Cluster) -> BTreeMap<String, Wanted> {
    let mut wanted = BTreeMap::new();
    if !s.global.use_slots {
        return wanted;
    }
    let nofailover = s.local.tags.nofailover();
    let own = slot_name(s.me());
    if !nofailover {
        for name in &cluster.status.retain_slots {
            wanted.insert(name.clone(), idle(cluster, name));
        }
        for (name, slot) in &s.global.permanent_slots {
            if slot.kind == SlotKind::Physical {
                wanted.insert(name.clone(), idle(cluster, name));
            }
        }
    }
    for member in s
        .others(cluster)
        .filter(|member| !member.data.tags.nostream())
    {
        let active = expected_active(s, cluster, member);
        let kept = s.global.member_slots_ttl.is_some()
            && (!nofailover || member.data.tags.replicatefrom() == Some(s.me().as_str()));
        if active || kept {
            let name = slot_name(&member.name);
            let mut slot = idle(cluster, &name);
            slot.expected_active = active;
            if member.data.tags.replicatefrom().is_some() {
                slot.position = slot.position.max(member.data.xlog_location);
            }
            wanted.insert(name, slot);
        }
    }
    wanted.remove(&own);
    wanted
}

fn idle(cluster: &Cluster, name: &str) -> Wanted {
    Wanted {
        expected_active: false,
        position: cluster.status.slots.get(name).copied(),
    }
}

/// Whether that member should be streaming from here (`ha.md` §18.2).
fn expected_active(s: &Situation<'_>, cluster: &Cluster, member: &Member) -> bool {
    let source = member.data.tags.replicatefrom();
    if cluster.is_led_by(s.me()) {
        source.is_none_or(|name| *s.me() == *name || cluster.member(name).is_none())
    } else {
        source == Some(s.me().as_str()) && !cluster.is_led_by(&member.name)
    }
}

/// What the leader tells of its slots in `/status` (`ha.md` §18.5): every slot's position, its own position
/// under its own slot name, and which slots of absent members are still to be kept.
pub(crate) fn published(
    local: &Local,
    wal: &WalStatus,
    cluster: &Cluster,
    global: &GlobalConfig,
    seen: &mut BTreeMap<String, Moment>,
    now: Moment,
) -> Status {
    let (me, position) = (&local.name, wal.position());
    let mut slots = BTreeMap::new();
    for slot in wal.slots.as_deref().unwrap_or_default() {
        let keep =
            global.member_slots_ttl.is_some() || global.permanent_slots.contains_key(&slot.name);
        let lsn = match slot.kind {
            SlotKind::Physical => slot.restart_lsn,
            SlotKind::Logical { .. } => slot.confirmed_flush_lsn,
        };
        if keep && let Some(lsn) = lsn {
            slots.insert(slot.name.clone(), lsn);
        }
    }
    slots.insert(slot_name(me), position);
    for member in cluster
        .members
        .iter()
        .filter(|member| !member.data.tags.nostream())
    {
        seen.insert(slot_name(&member.name), now);
    }
    for name in &cluster.status.retain_slots {
        seen.entry(name.clone()).or_insert(now);
    }
    if !local.tags.nostream() {
        seen.insert(slot_name(me), now);
    }
    let ttl = global.member_slots_ttl.unwrap_or(Duration::ZERO);
    seen.retain(|_, at| now.since(*at) < ttl);
    let retain: BTreeSet<&String> = seen
        .keys()
        .filter(|name| !global.permanent_slots.contains_key(*name))
        .collect();
    Status {
        optime: position,
        slots,
        retain_slots: retain.into_iter().cloned().collect(),
    }
}
