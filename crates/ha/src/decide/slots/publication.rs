//! What the leader tells of its slots in `/status` (`ha.md` §18.5).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use primacy_config::{ClusterType, GlobalConfig};
use primacy_model::{Cluster, SlotKind, Status, WalStatus, slot_name};

use crate::situation::Local;
use crate::time::Moment;

/// Every slot's position, the leader's own under its own slot name, and which slots of absent members are
/// still to be kept. `seen` remembers when which member was.
pub(crate) fn published(
    local: &Local,
    wal: &WalStatus,
    cluster: &Cluster,
    global: &GlobalConfig,
    seen: &mut BTreeMap<String, Moment>,
    now: Moment,
) -> Status {
    let own = slot_name(&local.name);
    let streaming: BTreeSet<String> = cluster
        .members
        .iter()
        .filter(|member| !member.data.tags.nostream())
        .map(|member| slot_name(&member.name))
        .collect();
    let mut slots = BTreeMap::new();
    for slot in wal.slots.as_deref().unwrap_or_default() {
        let (permanent, lsn) = match slot.kind {
            SlotKind::Physical => (true, slot.restart_lsn),
            SlotKind::Logical { .. } => (!streaming.contains(&slot.name), slot.confirmed_flush_lsn),
        };
        let keep = global.member_slots_ttl.is_some()
            || permanent && global.permanent_slots.contains_key(&slot.name);
        if keep && let Some(lsn) = lsn {
            slots.insert(slot.name.clone(), lsn);
        }
    }
    slots.insert(own.clone(), wal.position());

    for name in &cluster.status.retain_slots {
        seen.entry(name.clone()).or_insert(now);
    }
    seen.extend(streaming.into_iter().map(|name| (name, now)));
    if cluster.member(&local.name).is_none() {
        // Its key may be gone for a moment; it is here.
        seen.insert(own, now);
    }
    let ttl = global.member_slots_ttl.unwrap_or(Duration::ZERO);
    seen.retain(|_, at| now.since(*at) < ttl);
    let retain = seen.keys().filter(|name| !is_permanent(global, name));
    Status {
        optime: wal.position(),
        slots,
        retain_slots: retain.cloned().collect(),
    }
}

/// A physical slot that is kept for ever in this kind of cluster.
fn is_permanent(global: &GlobalConfig, name: &str) -> bool {
    global.permanent_slots.get(name).is_some_and(|slot| {
        let elsewhere =
            slot.cluster_type == Some(ClusterType::Standby) && global.standby_cluster.is_none();
        slot.kind == SlotKind::Physical && !elsewhere
    })
}
