//! How a member's WAL comes from the primary: what it passes through must hold back what logical slots need.

use primacy_model::{Cluster, Member, MemberName, SlotKind, Tags, slot_name};

use crate::situation::Situation;

/// The slot on the primary that holds back vacuum for this member: its own, or that of the member through
/// which it cascades. `None` where somebody on the way does not stream.
pub(super) fn slot_on_primary(cluster: &Cluster, name: &MemberName, tags: &Tags) -> Option<String> {
    let (mut name, mut tags) = (name, tags);
    let mut seen = vec![name];
    loop {
        if tags.nostream() {
            return None;
        }
        let source = tags
            .replicatefrom()
            .filter(|source| *source != name.as_str() && !cluster.is_led_by(source))
            .and_then(|source| cluster.member(source));
        let Some(source) = source else {
            return Some(slot_name(name));
        };
        if seen.contains(&&source.name) {
            return None;
        }
        (name, tags) = (&source.name, &source.data.tags);
        seen.push(name);
    }
}

/// Whether this standby must tell its upstream what it still reads (`ha.md` §18.7): its own logical slots,
/// or those of a member that cascades through it, decode with catalog rows that the primary must not remove.
pub(crate) fn hot_standby_feedback(s: &Situation<'_>, cluster: &Cluster) -> bool {
    let has_logical = s
        .global
        .permanent_slots
        .values()
        .any(|slot| slot.kind != SlotKind::Physical);
    s.global.use_slots
        && s.global.standby_cluster.is_none()
        && has_logical
        && carries_logical(cluster, s.me(), &s.local.tags, &mut Vec::new())
}

fn carries_logical<'a>(
    cluster: &'a Cluster,
    name: &'a MemberName,
    tags: &Tags,
    seen: &mut Vec<&'a MemberName>,
) -> bool {
    if seen.contains(&name) || slot_on_primary(cluster, name, tags).is_none() {
        return false;
    }
    seen.push(name);
    let cascades = |member: &&Member| {
        member.replicates_from() == Some(name.as_str()) && !cluster.is_led_by(&member.name)
    };
    !tags.nofailover()
        || cluster
            .members
            .iter()
            .filter(cascades)
            .any(|member| carries_logical(cluster, &member.name, &member.data.tags, seen))
}
