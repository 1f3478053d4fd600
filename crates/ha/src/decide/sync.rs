//! Synchronous standbys (`ha.md` §13).
//!
//! Two records say who is synchronous: `synchronous_standby_names`, which PostgreSQL obeys, and `/sync`, which
//! a failover obeys. The danger is a moment in which `/sync` names somebody who does not have every acknowledged
//! commit. So a standby is *added* to the names first, and to `/sync` only once it has confirmed everything
//! that was committed before; and it is *removed* from `/sync` first. Every rule here is one step of that
//! order, looked at afresh each time.

use std::collections::BTreeSet;
use std::time::Duration;

use primacy_model::{Cluster, Lsn, Member, MemberName, State, SyncState, WalSender};

use primacy_config::{GlobalConfig, SynchronousMode};

use super::Reasons;
use super::confirmation::position;
use super::quorum::{Goal, Names, State as QuorumState, Transition, transitions};
use super::synchronous_names::{
    STRICT_PLACEHOLDER, SynchronousStandbys, any_names, names, priority_names, quoted,
};
use super::walsenders::is_ambiguous;
use crate::decision::Step;
use crate::machine::LogLevel;
use crate::situation::Situation;

/// A standby that was added is looked at again so soon, until it has confirmed.
const CONFIRMATION_LOOK: Duration = Duration::from_millis(200);

/// What the primary does next about its synchronous standbys (`ha.md` §13.3); `None` when all is well.
pub(super) fn maintain(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    if !s.wants_sync() {
        return switch_off(s, cluster, why);
    }
    let wal = s.wal()?;
    why.outcome("adjusting the synchronous standbys");
    if s.global.synchronous_mode == SynchronousMode::Quorum {
        return maintain_quorum(s, cluster, why);
    }
    let sync = &cluster.sync;
    if !sync.has_leader(s.me()) {
        why.note("ha.md §13.3.1", "/sync does not name me");
        return Some(write(s, cluster, BTreeSet::new()));
    }
    let listed = SynchronousStandbys::parse(&wal.synchronous_standby_names);
    let voters: BTreeSet<MemberName> = sync.standbys.iter().cloned().collect();
    let active = wanted(s, cluster);
    let confirmed: BTreeSet<MemberName> = confirmed(s, cluster)
        .into_iter()
        .filter(|name| active.contains(name))
        .collect();

    // Removing: /sync first. Voters of a quorum are not taken over: each may lack what the others have.
    let kept: BTreeSet<MemberName> = match sync.quorum {
        0 => voters.intersection(&confirmed).cloned().collect(),
        _ => BTreeSet::new(),
    };
    if active.is_empty() && s.global.synchronous_mode_strict {
        let (doubtful, held): (BTreeSet<_>, BTreeSet<_>) = voters
            .iter()
            .cloned()
            .partition(|name| is_ambiguous(s, wal, name));
        if doubtful.is_empty() {
            return hold_strictly(s, &voters, 0, why);
        }
        let doubts: Vec<String> = doubtful
            .iter()
            .map(|name| unfit(s, cluster, name))
            .collect();
        why.note("ha.md W25", doubts.join(", "));
        return Some(write(
            s,
            cluster,
            if sync.quorum == 0 { held } else { kept },
        ));
    }
    if kept != voters {
        why.note(
            "ha.md §13.3.6",
            voters
                .difference(&kept)
                .map(|name| unfit(s, cluster, name))
                .collect::<Vec<_>>()
                .join(", "),
        );
        return Some(write(s, cluster, kept));
    }
    // Adding: the names first.
    let value = priority_names(&active);
    if listed.members
        != active
            .iter()
            .map(|name| name.to_lowercase())
            .collect::<BTreeSet<_>>()
        || listed.count != active.len()
        || listed.any
        || s.memory.sync.managed.as_deref() != Some(value.as_str())
        || !s.names_are_obeyed()
    {
        why.note(
            "ha.md §13.3.7",
            format!("synchronous_standby_names becomes {value:?}"),
        );
        return Some(Step::SetSynchronousStandbyNames(Some(value)));
    }
    if confirmed != voters {
        why.note(
            "ha.md §13.3.9",
            format!("{} confirmed", names(confirmed.difference(&voters))),
        );
        return Some(write(s, cluster, confirmed));
    }
    None
}

/// The same in quorum mode (`ha.md` §14.4): one change at a time, each worked out from what is in force.
fn maintain_quorum(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    let wal = s.wal()?;
    let sync = &cluster.sync;
    let Some(leader) = &sync.leader else {
        why.note("ha.md §14.4", "/sync names no leader");
        return Some(write(s, cluster, BTreeSet::new()));
    };
    let listed = SynchronousStandbys::parse(&wal.synchronous_standby_names);
    if !listed.members.is_empty() && !s.names_are_obeyed() {
        let value = wal.synchronous_standby_names.clone();
        why.note(
            "ha.md W2",
            format!("synchronous_standby_names is {value:?}, and commits may not obey it yet"),
        );
        return Some(Step::SetSynchronousStandbyNames(Some(value)));
    }
    let active: Names = wanted(s, cluster)
        .iter()
        .map(|name| name.to_lowercase())
        .collect();
    if active.is_empty() && s.global.synchronous_mode_strict && sync.has_leader(s.me()) {
        let voters = sync.standbys.iter().cloned().collect();
        return hold_strictly(s, &voters, sync.quorum as usize, why);
    }
    let state = QuorumState {
        leader: leader.to_lowercase(),
        quorum: sync.quorum as usize,
        voters: sync
            .standbys
            .iter()
            .map(|name| name.to_lowercase())
            .collect(),
        count: listed.count.min(listed.members.len()),
        standbys: listed.members.clone(),
    };
    let goal = Goal {
        me: s.me().to_lowercase(),
        confirmed: quorum_confirmed(s, &listed, &active),
        wanted: node_count(s),
        active,
    };
    let spelled = |names: &Names| spell(names, cluster);
    match transitions(state, &goal).into_iter().next() {
        Some(Transition::Sync { count, standbys }) => {
            let value = any_names(count, &spelled(&standbys));
            why.note(
                "ha.md §14.3",
                format!("synchronous_standby_names becomes {value:?}"),
            );
            Some(Step::SetSynchronousStandbyNames(Some(value)))
        }
        Some(Transition::Quorum { quorum, voters, .. }) => {
            let voters = spelled(&voters);
            why.note(
                "ha.md §14.3",
                format!("quorum {quorum} of {}", names(voters.iter())),
            );
            Some(Step::WriteSync(SyncState {
                leader: Some(s.me().clone()),
                standbys: voters,
                quorum: u32::try_from(quorum).unwrap_or(u32::MAX),
                version: sync.version,
            }))
        }
        Some(Transition::Restart) | None => {
            let value = any_names(listed.count, &spelled(&listed.members));
            let priority_form = !listed.members.is_empty() && !listed.any;
            if priority_form || s.memory.sync.managed.is_none() {
                why.note("ha.md §14.4", "the names take the quorum form");
                return Some(Step::SetSynchronousStandbyNames(Some(value)));
            }
            None
        }
    }
}

/// How many of the listed standbys have confirmed everything from before the names took effect. The resolver takes them
/// for some of the active ones: whoever streams and is not to be synchronous any more does not count.
fn quorum_confirmed(s: &Situation<'_>, listed: &SynchronousStandbys, active: &Names) -> usize {
    let Some(wal) = s.wal() else {
        return 0;
    };
    let progress = &s.memory.sync;
    if progress.names.as_deref() != Some(wal.synchronous_standby_names.as_str()) {
        return 0;
    }
    let confirmed: BTreeSet<String> = wal
        .senders
        .iter()
        .filter(|sender| matches!(sender.sync_state.as_str(), "quorum" | "sync"))
        .map(|sender| sender.application_name.to_lowercase())
        .filter(|name| listed.members.contains(name) && active.contains(name))
        .filter(|name| !is_ambiguous(s, wal, &MemberName::new(name.clone())))
        .filter(|name| {
            progress
                .confirmed
                .iter()
                .any(|known| known.matches_application_name(name))
        })
        .collect();
    confirmed.len()
}

/// Names as their owners spell them.
fn spell(lower: &Names, cluster: &Cluster) -> Vec<MemberName> {
    let members = cluster.members.iter().map(|member| &member.name);
    let known: Vec<&MemberName> = members
        .chain(&cluster.sync.standbys)
        .chain(&cluster.sync.leader)
        .collect();
    lower
        .iter()
        .map(|name| {
            let spelled = known
                .iter()
                .find(|known| known.matches_application_name(name));
            spelled.map_or_else(|| MemberName::new(name.clone()), |known| (*known).clone())
        })
        .collect()
}

/// When a pass with nothing left to do must be followed by another one early.
pub(super) fn next_look(s: &Situation<'_>, cluster: &Cluster) -> Step {
    if !s.wants_sync() {
        return Step::Wait;
    }
    let voters: BTreeSet<MemberName> = cluster.sync.standbys.iter().cloned().collect();
    let active: BTreeSet<MemberName> = wanted(s, cluster).into_iter().collect();
    let unsettled = s.global.synchronous_mode == SynchronousMode::Quorum
        && cluster.sync.quorum as usize != active.len().saturating_sub(node_count(s));
    if active.is_empty() && s.global.synchronous_mode_strict {
        // Held on to: nothing changes before a standby is back.
        return Step::Wait;
    }
    if active != voters || unsettled {
        Step::WaitUntil(s.now + CONFIRMATION_LOOK)
    } else {
        Step::Wait
    }
}

/// Why `/sync` does not let a replica be promoted that holds the lock. The lock may have been acquired long after the race
/// for it was judged, or by an agent before this one: others may have led since, removed this member from `/sync` and
/// acknowledged commits without it. Whoever leads publishes itself there first, so nobody did while `/sync` is what the race
/// was judged by, or names this member as the primary. Of an operator's choice the request tells until the lock is won,
/// and in pause until the promotion.
pub(super) fn outdated_race(s: &Situation<'_>, cluster: &Cluster) -> Option<String> {
    let sync = &cluster.sync;
    if !s.sync_is_active(cluster) || sync.has_leader(s.me()) {
        return None;
    }
    let judged = s.memory.raced_for_sync.is_some() && s.memory.raced_for_sync == sync.version;
    let request = cluster.failover.as_ref();
    let chosen = request.is_some_and(|request| {
        !request.is_switchover() && request.candidate.as_ref() == Some(s.me())
    });
    if judged || chosen {
        return None;
    }
    let members = names(sync.leader.iter().chain(&sync.standbys));
    if s.needs_votes(cluster) {
        // Members told how far they are when /sync was another one.
        return Some(format!(
            "the votes were not counted by this /sync, quorum {} of {members}",
            sync.quorum
        ));
    }
    let member = sync.has_member(s.me());
    (!member).then(|| format!("synchronous mode, and I am not in /sync: {members}"))
}

/// Before a replica that holds the lock is promoted (`ha.md` §13.5): `/sync` names it as the primary, with the
/// primary before and the standbys that were synchronous with it, and its own `synchronous_standby_names` asks for
/// the same ones. No commit can be acknowledged in between, and when the promotion does not come about, because
/// of a crash or because `pre_promote` forbids it, any of them can lead (W12).
pub(super) fn before_promotion(
    s: &Situation<'_>,
    cluster: &Cluster,
    why: &mut Reasons,
) -> Option<Step> {
    if !s.wants_sync() {
        // Its commits would wait for nobody, and whom /sync still names could be elected once the mode is back.
        return unpublish(cluster, why);
    }
    if s.global.synchronous_mode == SynchronousMode::Quorum && cluster.sync.is_active() {
        return before_quorum_promotion(s, cluster, why);
    }
    if !cluster.sync.has_leader(s.me()) || cluster.sync.quorum > 0 {
        // Where a quorum was enough, no standby alone is known to have every commit.
        let complete = cluster.sync.quorum == 0;
        let members = cluster.sync.standbys.iter().chain(&cluster.sync.leader);
        let standbys = members
            .filter(|name| complete && *name != s.me())
            .cloned()
            .collect();
        why.note(
            "ha.md §13.5",
            "publishing myself in /sync before the promotion",
        );
        why.outcome("publishing the synchronous state before the promotion");
        return Some(write(s, cluster, standbys));
    }
    let value = names_by_sync(s.global, s.me(), cluster);
    if !s.memory.sync.obeys(&value) {
        why.note(
            "ha.md §13.5",
            format!("synchronous_standby_names is {value:?} before the promotion"),
        );
        why.outcome("setting synchronous_standby_names before the promotion");
        return Some(Step::SetSynchronousStandbyNames(Some(value)));
    }
    None
}

/// Whom the commits of a primary must wait for that goes by `/sync` alone: one that is about to be promoted, or one that
/// is started and never knew, or forgot, what it had set.
pub(crate) fn names_by_sync(global: &GlobalConfig, me: &MemberName, cluster: &Cluster) -> String {
    let sync = &cluster.sync;
    let members: Vec<&MemberName> = sync.standbys.iter().chain(&sync.leader).collect();
    let others: Vec<MemberName> = members
        .iter()
        .filter(|name| **name != me)
        .map(|name| (*name).clone())
        .collect();
    if others.is_empty() && global.synchronous_mode_strict {
        return quoted(STRICT_PLACEHOLDER);
    }
    if global.synchronous_mode != SynchronousMode::Quorum && sync.quorum == 0 {
        return priority_names(&others);
    }
    let least = usize::from(global.synchronous_mode_strict);
    let all = others.len() + 1;
    let count = all
        .saturating_sub(sync.quorum as usize + 1)
        .max(least)
        .min(others.len());
    any_names(count, &others)
}

/// In quorum mode the members of `/sync` and the votes that it asks for stay as they are until the new primary has looked
/// around; its own commits wait for enough of the same members (`ha.md` §14.5). It names itself as the primary, though:
/// whom `/sync` calls so may lead without votes, and the former one will lack what is committed now.
fn before_quorum_promotion(
    s: &Situation<'_>,
    cluster: &Cluster,
    why: &mut Reasons,
) -> Option<Step> {
    let sync = &cluster.sync;
    if !sync.has_leader(s.me()) {
        let members: BTreeSet<&MemberName> = sync.standbys.iter().chain(&sync.leader).collect();
        why.note("ha.md §14.5", "naming myself in /sync before the promotion");
        why.outcome("publishing the synchronous state before the promotion");
        return Some(Step::WriteSync(SyncState {
            leader: Some(s.me().clone()),
            standbys: members
                .into_iter()
                .filter(|name| *name != s.me())
                .cloned()
                .collect(),
            quorum: sync.quorum,
            version: sync.version,
        }));
    }
    let value = names_by_sync(s.global, s.me(), cluster);
    if s.memory.sync.obeys(&value) {
        return None;
    }
    why.note(
        "ha.md §14.5",
        format!("synchronous_standby_names is {value:?} before the promotion"),
    );
    why.outcome("setting synchronous_standby_names before the promotion");
    Some(Step::SetSynchronousStandbyNames(Some(value)))
}

/// Synchronous mode is off: `/sync` goes first, then the names.
fn switch_off(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    if let Some(step) = unpublish(cluster, why) {
        return Some(step);
    }
    if s.memory.sync.managed.is_some() {
        why.note(
            "ha.md §13.3",
            "synchronous mode is off: the user's own names apply",
        );
        return Some(Step::SetSynchronousStandbyNames(None));
    }
    None
}

fn unpublish(cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    let version = cluster.sync.version.filter(|_| cluster.sync.is_active())?;
    why.outcome("leaving synchronous mode");
    why.note("ha.md §13.3", "synchronous mode is off: /sync goes first");
    Some(Step::DeleteSync(version))
}

/// Strict mode without a candidate (`ha.md` §13.4): `/sync` is left alone, and commits wait for those who are
/// in it, or for a name that nobody has.
fn hold_strictly(
    s: &Situation<'_>,
    voters: &BTreeSet<MemberName>,
    quorum: usize,
    why: &mut Reasons,
) -> Option<Step> {
    let wal = s.wal()?;
    let count = voters.len().saturating_sub(quorum).max(1);
    let voters = voters.iter().filter(|name| !is_ambiguous(s, wal, name));
    let voters: Vec<MemberName> = voters.cloned().collect();
    let quorum_mode = s.global.synchronous_mode == SynchronousMode::Quorum;
    let value = if voters.is_empty() || quorum_mode && count > voters.len() {
        quoted(STRICT_PLACEHOLDER)
    } else if quorum_mode {
        any_names(count, &voters)
    } else {
        priority_names(&voters)
    };
    why.say(
        "ha.md §13.4",
        LogLevel::Warning,
        "No active replication connections from Patroni members and synchronous_mode_strict is requested: commits wait",
    );
    let in_effect = s.wal().map(|wal| wal.synchronous_standby_names.as_str());
    if in_effect != Some(value.as_str())
        || s.memory.sync.managed.as_deref() != Some(value.as_str())
        || !s.names_are_obeyed()
    {
        return Some(Step::SetSynchronousStandbyNames(Some(value)));
    }
    None
}

fn write(s: &Situation<'_>, cluster: &Cluster, standbys: BTreeSet<MemberName>) -> Step {
    Step::WriteSync(SyncState {
        leader: Some(s.me().clone()),
        standbys: standbys.into_iter().collect(),
        quorum: 0,
        version: cluster.sync.version,
    })
}

/// Who should be synchronous (`ha.md` §13.2), in the order of preference.
fn wanted(s: &Situation<'_>, cluster: &Cluster) -> Vec<MemberName> {
    let Some(wal) = s.wal() else {
        return Vec::new();
    };
    let mut candidates: Vec<(&Member, &WalSender, Lsn)> = wal
        .senders
        .iter()
        .filter(|sender| sender.state == "streaming")
        .filter_map(|sender| {
            let member = s.others(cluster).find(|member| {
                member
                    .name
                    .matches_application_name(&sender.application_name)
            })?;
            Some((member, sender, position(&wal.synchronous_commit, sender)?))
        })
        .filter(|(member, ..)| {
            member.data.state == Some(State::Running)
                && !member.data.tags.nosync()
                && !is_ambiguous(s, wal, &member.name)
        })
        .collect();
    let eligible: BTreeSet<&str> = candidates.iter().map(|(m, ..)| m.name.as_str()).collect();
    candidates.retain(|(member, ..)| !cascades_from(member, cluster, &eligible));
    candidates.sort_by(|(a, sender_a, lsn_a), (b, sender_b, lsn_b)| {
        let key = |member: &Member, sender: &WalSender, lsn: Lsn| {
            (
                member.data.tags.sync_priority(),
                preference(&sender.sync_state),
                lsn,
            )
        };
        key(b, sender_b, *lsn_b)
            .cmp(&key(a, sender_a, *lsn_a))
            .then_with(|| a.name.cmp(&b.name))
    });
    candidates.sort_by_key(|(member, ..)| member.data.tags.nofailover());
    if let Some(limit) = s.global.maximum_lag_on_syncnode {
        let furthest = if candidates.len() == 1 {
            wal.flush_lsn
        } else {
            candidates
                .iter()
                .map(|(.., lsn)| *lsn)
                .max()
                .unwrap_or_default()
        };
        candidates.retain(|(.., lsn)| lsn.behind(furthest) <= limit);
    }
    let count = node_count(s);
    let quorum = s.global.synchronous_mode == SynchronousMode::Quorum;
    candidates
        .into_iter()
        .enumerate()
        .filter(|(index, (member, ..))| {
            *index < count || (quorum && !member.data.tags.nofailover())
        })
        .map(|(_, (member, ..))| member.name.clone())
        .collect()
}

/// How many standbys a commit should wait for.
fn node_count(s: &Situation<'_>) -> usize {
    let at_least = u32::from(s.global.synchronous_mode_strict);
    s.global.synchronous_node_count.max(at_least) as usize
}

/// Those who are synchronous now stay preferred.
fn preference(sync_state: &str) -> u8 {
    match sync_state {
        "sync" => 3,
        "quorum" => 2,
        "potential" => 1,
        _ => 0,
    }
}

/// The member follows another one that is eligible itself, directly or through others.
fn cascades_from(member: &Member, cluster: &Cluster, eligible: &BTreeSet<&str>) -> bool {
    let mut at = member;
    for _ in 0..cluster.members.len() {
        let Some(source) = at.replicates_from() else {
            return false;
        };
        if eligible.contains(source) {
            return true;
        }
        match cluster.member(source) {
            Some(next) => at = next,
            None => return false,
        }
    }
    false
}

/// Why a synchronous standby is no longer one.
fn unfit(s: &Situation<'_>, cluster: &Cluster, name: &MemberName) -> String {
    let Some(member) = cluster.member(name) else {
        return format!("{name} publishes nothing any more");
    };
    if member.data.tags.nosync() {
        return format!("{name} does not want to be synchronous");
    }
    if s.wal().is_some_and(|wal| is_ambiguous(s, wal, name)) {
        return format!(
            "another server streams as {name}, PostgreSQL cannot tell them apart (W25)"
        );
    }
    let senders = s.wal().map_or(&[][..], |wal| &wal.senders);
    let sender = senders
        .iter()
        .find(|sender| name.matches_application_name(&sender.application_name));
    match (member.data.state, sender) {
        (_, None) => format!("{name} receives nothing from here"),
        (Some(State::Running), Some(sender)) if sender.state != "streaming" => {
            format!("{name} does not stream: {}", sender.state)
        }
        (Some(State::Running), Some(_)) => {
            let limit = match s.global.maximum_lag_on_syncnode {
                Some(limit) => format!("; maximum_lag_on_syncnode {limit}"),
                None => String::new(),
            };
            format!("others are to be synchronous instead of {name}{limit}")
        }
        (state, Some(_)) => {
            let state = state.map_or("in no known state", State::as_str);
            format!("{name} is {state}")
        }
    }
}

/// Who has everything that was acknowledged (`ha.md` §13.2): listed in the names in effect, synchronous by
/// PostgreSQL's own account, and either in `/sync` already or past the position at which the names took
/// effect.
fn confirmed(s: &Situation<'_>, cluster: &Cluster) -> BTreeSet<MemberName> {
    let Some(wal) = s.wal() else {
        return BTreeSet::new();
    };
    let listed = SynchronousStandbys::parse(&wal.synchronous_standby_names);
    let progress = &s.memory.sync;
    s.others(cluster)
        .filter(|member| {
            let sender = wal.senders.iter().find(|sender| {
                member
                    .name
                    .matches_application_name(&sender.application_name)
                    && sender.sync_state == "sync"
            });
            sender.is_some()
                && listed.members.contains(&member.name.to_lowercase())
                && ((cluster.sync.quorum == 0 && cluster.sync.has_standby(&member.name))
                    || (progress.names.as_deref() == Some(wal.synchronous_standby_names.as_str())
                        && progress.confirmed.contains(&member.name)))
        })
        .map(|member| member.name.clone())
        .collect()
}
