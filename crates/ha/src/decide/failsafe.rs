//! DCS failsafe mode (`ha.md` §15): a leader that cannot reach the store stays primary as long as every member
//! that could take its place promises not to.
//!
//! Why there is never a second writer:
//!
//! 1. Only members named in `/failsafe` may race (`ha.md` §10.1 row 11), and the leader asks every one of them: all
//!    that the key may name, also when it is not known whether its last change arrived.
//! 2. The leader takes the time, `t`, before the first request leaves. It may write until `t + ttl`, and is killed
//!    half a second (by the fence: a quarter) before that.
//! 3. A member promises at some `r >= t`, until `r + ttl` or later: `ttl` travels with the question, because the
//!    member's own configuration may be another one. While the promise holds it sees a leader whatever the store
//!    says, so it neither races nor takes over a lock that an answer lost in the store's trouble left in its name.
//! 4. A member that leads, or has asked for the lock and does not know what came of it, does not promise.
//! 5. A promise is kept in memory. An agent that began less than `ttl` ago may have forgotten one: it takes no lock
//!    unless every member of `/failsafe` answers, and none is a primary or has promised. One that is not in `/failsafe`
//!    was not asked: chosen by an operator it takes the lock only if a member that was tells of no promise.
//! 6. A leader without the store may not know that the mode was switched off. Whom it asks tells it, so 5 holds for
//!    another `ttl` for them, or after the agent began to find it off. Nobody else does, so for them it holds until a
//!    leader that knows empties `/failsafe`, and does not lead by promises before the key was seen again.
//!
//! So `r + ttl >= t + ttl` ends no earlier than the right to write, as long as two clocks drift apart by less than
//! that half second within `ttl`.

use std::collections::BTreeMap;

use primacy_model::{Cluster, Leader, Lsn, Member, MemberData, MemberName, Role, State};
use primacy_model::{Version, slot_name};

use super::{Ask, Reasons, Verdict};
use crate::decision::{Job, Step};
use crate::situation::{
    FailsafeAnswer, FailsafeLeader, FailsafePromise, FailsafeReply, FailsafeVerdict, Lease,
    Situation, StoreView,
};
use crate::time::Moment;

/// Whether a primary goes on although its lock could not be renewed within `retry_timeout`.
pub(super) fn stays(s: &Situation<'_>, why: &mut Reasons) -> bool {
    if !s.global.failsafe_mode || !s.lease.is_held(s.now) {
        return false;
    }
    match &s.memory.failsafe.verdict {
        None => {
            why.note("ha.md §15", "asking all members whether they accept me");
            why.outcome("DCS is not accessible, asking the members in failsafe mode");
            true
        }
        Some(FailsafeVerdict::Accepted) => {
            why.note("ha.md §15", "every member promised not to take over");
            why.outcome(
                "continue to run as a leader because failsafe mode is enabled and all members are accessible",
            );
            true
        }
        Some(FailsafeVerdict::Refused(text)) => {
            why.note("ha.md §15", format!("failsafe mode: {text}"));
            false
        }
    }
}

/// The store answers again and the lock has lapsed meanwhile: the heartbeat takes it again. Nobody else may have.
pub(super) fn lock_lapsed(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    let leads = s.lease.is_held(s.now) && (s.is_primary() || s.job.is_some());
    if !cluster.is_unlocked() || !leads {
        return None;
    }
    why.note(
        "ha.md §15",
        "the lock lapsed while the members kept their promise: taking it again",
    );
    why.outcome("the leader key lapsed in failsafe mode, taking it again");
    Some(Step::Wait)
}

/// The lock is in this member's name although it promised another one not to take it: the answer to an earlier
/// attempt was lost.
pub(super) fn unwanted_lock(s: &Situation<'_>, why: &mut Reasons) -> Option<Step> {
    let promise = s.memory.failsafe.promise.as_ref()?;
    if s.now >= promise.until {
        return None;
    }
    let name = &promise.leader.name;
    why.note(
        "ha.md §15",
        format!("the lock is mine, but {name} was promised not to be replaced"),
    );
    why.outcome(format!(
        "released the leader key: {name} is the leader in failsafe mode"
    ));
    Some(Step::ReleaseLeader { optime: None })
}

/// The members to ask, each by its API address, not counting this one: all that were `seen` in `/failsafe`, and all
/// that may have been `written` there since. A key that was never seen binds nobody.
///
/// # Errors
/// Nobody can be asked, and why.
pub(crate) fn members_to_ask(
    me: &MemberName,
    seen: &BTreeMap<MemberName, String>,
    written: &BTreeMap<MemberName, String>,
) -> Result<BTreeMap<MemberName, String>, String> {
    if !seen.contains_key(me) {
        return Err(match seen.is_empty() {
            true => "no /failsafe key is known".into(),
            false => "I am not in the /failsafe key".into(),
        });
    }
    let mut others = written.clone();
    others.extend(seen.iter().map(|(name, url)| (name.clone(), url.clone())));
    others.remove(me);
    Ok(others)
}

/// What the answers come to: every one must be an acceptance.
pub(crate) fn verdict(answers: &BTreeMap<MemberName, FailsafeReply>) -> FailsafeVerdict {
    let refusal = answers.iter().find_map(|(name, reply)| match reply {
        FailsafeReply::Accepted(_) => None,
        FailsafeReply::Refused(text) => Some(format!("{name} does not accept me: {text}")),
        FailsafeReply::Silent(text) => Some(format!("{name} does not answer: {text}")),
    });
    match refusal {
        None => FailsafeVerdict::Accepted,
        Some(text) => FailsafeVerdict::Refused(text),
    }
}

/// Whether this member promises not to take over from `asking`. `acquiring`: it has asked the store for the lock,
/// and what came of that is not known.
pub(crate) fn answer(
    s: &Situation<'_>,
    acquiring: bool,
    asking: &FailsafeLeader,
) -> FailsafeAnswer {
    if !s.global.failsafe_mode {
        return FailsafeAnswer::Off;
    }
    let promoting = matches!(s.job.map(|job| &job.job), Some(Job::Promote));
    let names_me = matches!(s.store, StoreView::Seen(cluster) if cluster.is_led_by(s.me()));
    if acquiring
        || promoting
        || names_me
        || s.lease != Lease::None
        || s.memory.role.accepts_writes()
        || s.server.promoting
        || asking.name == *s.me()
    {
        return FailsafeAnswer::RunningAsLeader;
    }
    if let Some(other) = other_leader(s, asking) {
        return FailsafeAnswer::OtherLeader(other);
    }
    FailsafeAnswer::Accepted(s.wal().map(primacy_model::WalStatus::position))
}

/// The leader that this member knows better than the one that asks (W9): the store says so, it was promised to, or
/// the local WAL went on to a timeline that the one that asks had not reached when its leadership ended.
fn other_leader(s: &Situation<'_>, asking: &FailsafeLeader) -> Option<MemberName> {
    let differs = |name: &&MemberName| **name != asking.name;
    if let StoreView::Seen(cluster) = s.store
        && cluster.leader.is_some()
    {
        return cluster.leader_name().filter(differs).cloned();
    }
    let known = s.last_healthy.and_then(Cluster::leader_name);
    if let Some(promise) = &s.memory.failsafe.promise
        && s.now < promise.until
        && promise.leader.name != asking.name
        && known != Some(&asking.name)
    {
        return Some(promise.leader.name.clone());
    }
    let theirs = s.last_healthy?.member(&asking.name)?.data.timeline;
    known
        .filter(differs)
        .filter(|_| theirs.is_some() && s.memory.last_timeline > theirs)
        .cloned()
}

/// The view with the leader in it that this member promised not to replace; `None` when the view stands as it is.
pub(crate) fn with_promised_leader(
    view: &Cluster,
    promise: Option<&FailsafePromise>,
    now: Moment,
) -> Option<Cluster> {
    let FailsafePromise { leader, .. } = promise.filter(|promise| now < promise.until)?;
    if !view.is_unlocked() {
        return None;
    }
    let mut cluster = view.clone();
    cluster.leader = Some(Leader {
        name: leader.name.clone(),
        version: Version(0),
        session: None,
    });
    if let Some(slots) = &leader.slots {
        cluster.status.slots.clone_from(slots);
        if let Some(position) = slots.get(&slot_name(&leader.name)) {
            cluster.status.optime = cluster.status.optime.max(*position);
        }
    }
    let addresses = |data: &mut MemberData| {
        data.conn_url = Some(leader.conn_url.clone());
        data.api_url = Some(leader.api_url.clone());
    };
    match cluster
        .members
        .iter_mut()
        .find(|member| member.name == leader.name)
    {
        Some(member) => addresses(&mut member.data),
        None => {
            let mut data = MemberData {
                state: Some(State::Running),
                role: Some(Role::Primary),
                ..MemberData::default()
            };
            addresses(&mut data);
            cluster.members.push(Member {
                name: leader.name.clone(),
                version: Version(0),
                session: None,
                data,
            });
        }
    }
    Some(cluster)
}

/// Failsafe mode is on, or was until less than `ttl` ago: a leader that cannot reach the store learns that by asking. An agent
/// that began since then cannot know when it was switched off.
fn may_be_relied_on(s: &Situation<'_>) -> bool {
    let off_since = s.memory.failsafe.off_since.unwrap_or(s.memory.began);
    s.global.failsafe_mode || s.now.since(off_since) < s.global.ttl
}

/// Whether somebody may lead by promises that this member knows nothing of, whatever an operator chose: it began less
/// than `ttl` ago and may have given one itself, or it is not in `/failsafe` and was not asked.
pub(super) fn others_may_have_promised(
    s: &Situation<'_>,
    cluster: &Cluster,
    everybody: impl FnOnce() -> BTreeMap<MemberName, String>,
    why: &mut Reasons,
) -> Verdict<bool> {
    let young = s.now.since(s.memory.began) < s.global.ttl;
    let others = || cluster.failsafe.iter().filter(|(name, _)| *name != s.me());
    let concerned = match cluster.failsafe.contains_key(s.me()) {
        true => young && may_be_relied_on(s),
        // Without an operator's wish, row 11 keeps it from the race. A failover is the way out once the mode is off, and those
        // in the key are gone.
        false => (cluster.failover.as_ref())
            .is_some_and(|request| request.is_switchover() || may_be_relied_on(s)),
    };
    if !concerned || others().next().is_none() {
        return Ok(false);
    }
    let Some(peers) = s.peers else {
        let mut members = everybody();
        for (name, url) in others() {
            members.entry(name.clone()).or_insert_with(|| url.clone());
        }
        return Err(Ask(members));
    };
    let answer = |name: &MemberName| peers.get(name).and_then(Option::as_ref);
    let tells = others().find_map(|(name, _)| {
        let peer = answer(name)?;
        let how = match peer {
            peer if !peer.in_recovery => "is a primary",
            peer if peer.failsafe_active => "has promised",
            _ => return None,
        };
        Some(format!("{name} {how}"))
    });
    let silent = others().find(|(name, _)| answer(name).is_none());
    let danger = match (tells, silent) {
        (Some(text), _) => Some(text),
        // Every member's promise is needed: one that gave none is enough, unless all of them may have forgotten.
        (None, Some((name, _))) if young || others().all(|(name, _)| answer(name).is_none()) => {
            Some(format!("{name} does not answer"))
        }
        (None, _) => None,
    };
    if let Some(text) = &danger {
        let mine = match young {
            true => "this agent began less than ttl ago",
            false => "I am not in /failsafe",
        };
        why.note(
            "ha.md §15",
            format!("{mine}, and {text}: somebody may lead in failsafe mode"),
        );
    }
    Ok(danger.is_some())
}

/// Whether everybody in `/failsafe` tells that it is no primary and promised nobody anything: the leader that wrote the key
/// is one of them. Patroni's members keep from the race whoever is not in there, for ever if those who are cannot lead.
pub(super) fn nobody_leads_by_promises(
    s: &Situation<'_>,
    cluster: &Cluster,
    everybody: impl FnOnce() -> BTreeMap<MemberName, String>,
) -> Verdict<bool> {
    let Some(peers) = s.peers else {
        let mut members = everybody();
        for (name, url) in &cluster.failsafe {
            members.entry(name.clone()).or_insert_with(|| url.clone());
        }
        return Err(Ask(members));
    };
    Ok(cluster.failsafe.keys().all(|name| {
        let peer = peers.get(name).and_then(Option::as_ref);
        peer.is_some_and(|peer| peer.in_recovery && !peer.failsafe_active)
    }))
}

/// The cluster as far as it is known while the store is out of reach and promises hold: for the slots, so that they do
/// not hold back WAL for as long as that lasts.
pub(super) fn view_without_store(s: &Situation<'_>) -> Option<Cluster> {
    let mut view = s.last_healthy?.clone();
    let failsafe = &s.memory.failsafe;
    if s.is_primary() {
        let leads = failsafe.verdict == Some(FailsafeVerdict::Accepted) && s.lease.is_held(s.now);
        if !leads || !view.is_led_by(s.me()) {
            return None;
        }
        for member in &mut view.members {
            let told = failsafe.positions.get(&member.name).copied();
            member.data.xlog_location = member.data.xlog_location.max(told);
        }
        return Some(view);
    }
    view.leader = None;
    with_promised_leader(&view, failsafe.promise.as_ref(), s.now)
}

/// The question that the leader asks.
pub(crate) fn question(s: &Situation<'_>, slots: Option<BTreeMap<String, Lsn>>) -> FailsafeLeader {
    FailsafeLeader {
        name: s.me().clone(),
        conn_url: s.local.conn_url.clone(),
        api_url: s.local.api_url.clone(),
        slots,
        ttl: Some(s.global.ttl),
    }
}
