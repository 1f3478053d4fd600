//! A member whose slots lack what consumers need leaves the lock to one that is as far and may have better ones (W23).

use std::collections::BTreeSet;
use std::time::Duration;

use primacy_model::{Cluster, MemberName, SlotKind};

use super::ahead_of_holders;
use crate::decide::Reasons;
use crate::decide::race::limitation;
use crate::decide::reach::Reach;
use crate::situation::Situation;
use crate::time::Moment;

/// A race in which some member does not answer takes two seconds: whoever wants the lock and may have it, has it by then.
const PATIENCE: Duration = Duration::from_secs(3);

/// `Some`: this member would win, and does not take the lock before then.
pub(in crate::decide) fn leave_lock_until(
    s: &Situation<'_>,
    cluster: &Cluster,
    why: &mut Reasons,
) -> Option<Moment> {
    let until = s.memory.unlocked_since? + PATIENCE;
    let chosen = cluster.failover.is_some();
    if s.now >= until || chosen || s.is_primary() || s.global.standby_cluster.is_some() {
        return None;
    }
    let lacking = lacking(s, cluster);
    if lacking.is_empty() {
        return None;
    }
    let other = as_good(s, cluster)?;
    let lacking: Vec<&str> = lacking.iter().map(String::as_str).collect();
    why.note(
        "ha.md W23",
        format!(
            "replication slots that lack something here: {}; {other} is as far, and may have better ones",
            lacking.join(", ")
        ),
    );
    Some(until)
}

/// Slots that are not what they were on the former leader, or are not here.
fn lacking(s: &Situation<'_>, cluster: &Cluster) -> BTreeSet<String> {
    let Some(existing) = s.wal().and_then(|wal| wal.slots.as_ref()) else {
        return BTreeSet::new();
    };
    let is_here = |name: &str| existing.iter().any(|slot| slot.name == name);
    let permanent = s.global.permanent_slots.iter();
    let missing = permanent.filter(|(name, slot)| {
        matches!(slot.kind, SlotKind::Logical { .. })
            && cluster.status.slots.contains_key(*name)
            && !is_here(name)
    });
    let mut lacking: BTreeSet<String> = missing.map(|(name, _)| name.clone()).collect();
    lacking.extend(s.memory.slots.unready.keys().cloned());
    lacking.extend(ahead_of_holders(cluster, s.global, existing));
    lacking
}

/// Another member that may win as well.
fn as_good<'a>(s: &Situation<'a>, cluster: &Cluster) -> Option<&'a MemberName> {
    let (mine, priority) = (Reach::of(s.wal()?), s.local.tags.failover_priority());
    let found = s.peers?.iter().find(|(name, peer)| {
        peer.as_ref().is_some_and(|peer| {
            peer.in_recovery
                && limitation(peer).is_none()
                && Reach::of_peer(peer).equals(mine)
                && peer.tags.failover_priority() >= priority
                && (!s.sync_is_active(cluster) || cluster.sync.has_member(name))
        })
    });
    found.map(|(name, _)| name)
}
