//! Which slots there should be on this member (`ha.md` §18.2, §18.3).

use std::collections::BTreeMap;

use primacy_config::{ClusterType, GlobalConfig, PermanentSlot};
use primacy_model::{Cluster, Lsn, Member, SlotKind, slot_name};

use super::path;
use crate::situation::Situation;

/// A slot that should exist.
pub(super) struct Wanted {
    pub(super) kind: SlotKind,
    pub(super) holder: Holder,
    /// Where it should be when nobody here moves it; `None` when nobody knows.
    pub(super) position: Option<Lsn>,
}

/// For whom a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// A member.
    Member {
        /// It streams from here now, as far as the configuration tells.
        expected_active: bool,
    },
    /// A member that was seen lately.
    Absent,
    /// Somebody outside the cluster.
    Permanent,
}

/// All slots that should exist here, by name.
pub(super) fn slots(s: &Situation<'_>, cluster: &Cluster) -> BTreeMap<String, Wanted> {
    let mut wanted = BTreeMap::new();
    if !s.global.use_slots {
        return wanted;
    }
    let own = slot_name(s.me());
    let nofailover = s.local.tags.nofailover();
    for member in others(s, cluster) {
        let expected_active = is_expected(s, cluster, member);
        let kept = s.global.member_slots_ttl.is_some()
            && (!nofailover || member.replicates_from() == Some(s.me().as_str()));
        let name = slot_name(&member.name);
        if (expected_active || kept) && name != own {
            let position = position(cluster, member, &name);
            add_member(&mut wanted, name, expected_active, position);
        }
    }
    if nofailover {
        return wanted;
    }
    let known = |name: &String| cluster.status.slots.get(name).copied();
    for name in cluster.status.retain_slots.iter().filter(|n| **n != own) {
        wanted.entry(name.clone()).or_insert_with(|| Wanted {
            kind: SlotKind::Physical,
            holder: Holder::Absent,
            position: known(name),
        });
    }
    let logical_too = s.global.standby_cluster.is_none()
        && (s.is_primary() || path::slot_on_primary(cluster, s.me(), &s.local.tags).is_some());
    for (name, slot) in &s.global.permanent_slots {
        let fits = match slot.kind {
            SlotKind::Physical => *name != own && (logical_too || is_for_this_cluster(s, slot)),
            SlotKind::Logical { .. } => logical_too && !belongs_to_member(cluster, name),
        };
        if fits {
            wanted.entry(name.clone()).or_insert_with(|| Wanted {
                kind: slot.kind.clone(),
                holder: Holder::Permanent,
                position: known(name),
            });
        }
    }
    wanted
}

/// Two members whose names make one slot name share it: nobody's WAL may go.
fn add_member(
    wanted: &mut BTreeMap<String, Wanted>,
    name: String,
    expected: bool,
    at: Option<Lsn>,
) {
    let other = wanted
        .get(&name)
        .map(|slot: &Wanted| (slot.holder, slot.position));
    let (expected_active, position) = match other {
        Some((holder, position)) => (
            expected
                || holder
                    == Holder::Member {
                        expected_active: true,
                    },
            at.min(position),
        ),
        None => (expected, at),
    };
    wanted.insert(
        name,
        Wanted {
            kind: SlotKind::Physical,
            holder: Holder::Member { expected_active },
            position,
        },
    );
}

/// The members that stream at all.
fn others<'a>(s: &Situation<'a>, cluster: &'a Cluster) -> impl Iterator<Item = &'a Member> {
    s.others(cluster)
        .filter(|member| !member.data.tags.nostream())
}

/// Whether that member should be streaming from here.
fn is_expected(s: &Situation<'_>, cluster: &Cluster, member: &Member) -> bool {
    let source = member.replicates_from();
    if cluster.is_led_by(s.me()) {
        source.is_none_or(|name| *s.me() == *name || cluster.member(name).is_none())
    } else {
        source == Some(s.me().as_str()) && !cluster.is_led_by(&member.name)
    }
}

/// How far the slot of a member may be moved where the member does not stream. The leader says so, unless
/// the member streams from another one, or the leader is too old to say.
fn position(cluster: &Cluster, member: &Member, slot: &str) -> Option<Lsn> {
    let published = cluster.status.slots.get(slot).copied();
    let leader_is_old = cluster
        .leader_member()
        .and_then(|leader| leader.data.version.as_deref())
        .and_then(|version| version.split('.').next()?.parse::<u32>().ok())
        .is_some_and(|major| major < 4);
    if member.replicates_from().is_some() || leader_is_old {
        published.max(member.data.xlog_location)
    } else {
        published
    }
}

/// `cluster_type` of a permanent slot, where it counts (`configuration.md` §3.3).
fn is_for_this_cluster(s: &Situation<'_>, slot: &PermanentSlot) -> bool {
    slot.cluster_type
        .is_none_or(|wanted| (wanted == ClusterType::Standby) == s.global.standby_cluster.is_some())
}

fn belongs_to_member(cluster: &Cluster, name: &str) -> bool {
    cluster
        .members
        .iter()
        .any(|member| !member.data.tags.nostream() && slot_name(&member.name) == *name)
}

/// What is wrong with the names, for people.
pub(crate) fn problems(cluster: &Cluster, global: &GlobalConfig) -> Vec<String> {
    if !global.use_slots {
        return Vec::new();
    }
    let mut problems = Vec::new();
    let mut names: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for member in &cluster.members {
        if !member.data.tags.nostream() {
            let sharing = names.entry(slot_name(&member.name)).or_default();
            sharing.push(member.name.as_str());
        }
    }
    for (slot, members) in names.iter().filter(|(_, members)| members.len() > 1) {
        problems.push(format!(
            "Following cluster members share a replication slot name: {} ('{slot}')",
            members.join(", ")
        ));
    }
    for (name, slot) in &global.permanent_slots {
        if slot.kind != SlotKind::Physical && names.contains_key(name) {
            problems.push(format!(
                "Permanent logical replication slot '{name}' is conflicting with physical replication slot for \
                 cluster member; it is not created"
            ));
        }
    }
    problems
}
