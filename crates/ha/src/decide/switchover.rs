//! An operator wants the leadership to move (`ha.md` §11).

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use primacy_model::{Cluster, FailoverRequest, Lsn, MemberName, ScheduledAt};

use super::race::{everybody, limitation};
use super::{Ask, Reasons, Verdict, demote, hang};
use crate::decision::{DemotionMode, Step};
use crate::situation::Situation;

/// A switchover that waits for a server to answer again looks so often.
const HANG_LOOK: Duration = Duration::from_secs(1);

/// The lock owner's side (`ha.md` §11.3).
pub(super) fn leader_side(
    s: &Situation<'_>,
    cluster: &Cluster,
    why: &mut Reasons,
) -> Verdict<Option<Step>> {
    let Some(request) = &cluster.failover else {
        return Ok(None);
    };
    let clear = |why: &mut Reasons, text: String| {
        why.note("ha.md §11.3.2", text);
        why.outcome("clearing the failover request");
        Ok(Some(Step::ClearFailover(request.version)))
    };
    match due(s, request) {
        Due::NotYet => return Ok(None),
        Due::Unusable(text) => return clear(why, text),
        Due::Now => {}
    }
    if let Some(leader) = &request.leader
        && leader != s.me()
    {
        return clear(
            why,
            format!("the request is for {leader}, and I am the leader"),
        );
    }
    if request.candidate.as_ref() == Some(s.me()) {
        return clear(why, "I am the candidate, and lead already".into());
    }
    if request.candidate.is_none() && s.global.pause {
        return clear(why, "paused: only a named candidate can take over".into());
    }
    if !possible_for(s, cluster, Some(request), None, None, why)? {
        return clear(why, "nobody can take over now".into());
    }
    if let Some(hang) = hang::limitation(s) {
        // It would not stop in good order, or not at all.
        why.note("ha.md W6", hang);
        if request.is_switchover() {
            why.outcome("the switchover waits: PostgreSQL hangs; a failover would not wait");
            return Ok(Some(Step::WaitUntil(s.now + HANG_LOOK)));
        }
        why.outcome("manual failover: demoting myself");
        return Ok(Some(hang::give_up(s)));
    }
    why.outcome(if request.is_switchover() {
        "switchover: demoting myself"
    } else {
        "manual failover: demoting myself"
    });
    Ok(Some(demote(s, DemotionMode::Graceful)))
}

enum Due {
    Now,
    /// The machine wakes in time.
    NotYet,
    Unusable(String),
}

fn due(s: &Situation<'_>, request: &FailoverRequest) -> Due {
    let timestamp = match &request.scheduled_at {
        None => return Due::Now,
        Some(ScheduledAt::Unusable(text)) => {
            return Due::Unusable(format!("the scheduled time {text:?} is not a timestamp"));
        }
        Some(ScheduledAt::At { timestamp, .. }) => *timestamp,
    };
    if s.global.pause {
        return Due::NotYet;
    }
    let late = s.wall.duration_since(timestamp);
    if late.is_negative() {
        return Due::NotYet;
    }
    let stale = Duration::from_secs(s.global.loop_wait.as_secs() * 3 / 2);
    if late.unsigned_abs() > stale {
        return Due::Unusable(format!(
            "the scheduled time {timestamp} passed {:.0} s ago while nobody could act on it, more than {} s",
            late.as_secs_f64(),
            stale.as_secs()
        ));
    }
    Due::Now
}

/// Whether it is scheduled for a time to come.
pub(super) fn lies_ahead(s: &Situation<'_>, request: &FailoverRequest) -> bool {
    request.scheduled_at.is_some() && matches!(due(s, request), Due::NotYet)
}

/// When the machine must look again for a scheduled switchover.
pub(crate) fn next_schedule(cluster: &Cluster) -> Option<Timestamp> {
    match cluster.failover.as_ref()?.scheduled_at.as_ref()? {
        ScheduledAt::At { timestamp, .. } => Some(*timestamp),
        ScheduledAt::Unusable(_) => None,
    }
}

/// Whether another member could take over now (`ha.md` §11.4), by the request in `/failover` if there is one.
pub(super) fn failover_is_possible(
    s: &Situation<'_>,
    cluster: &Cluster,
    min_lsn: Option<Lsn>,
    why: &mut Reasons,
) -> Verdict<bool> {
    possible_for(s, cluster, cluster.failover.as_ref(), None, min_lsn, why)
}

/// The same, whatever was requested, not counting `excluded`.
pub(super) fn anybody_can_take_over(
    s: &Situation<'_>,
    cluster: &Cluster,
    excluded: Option<&MemberName>,
    why: &mut Reasons,
) -> Verdict<bool> {
    possible_for(s, cluster, None, excluded, None, why)
}

fn possible_for(
    s: &Situation<'_>,
    cluster: &Cluster,
    request: Option<&FailoverRequest>,
    excluded: Option<&MemberName>,
    min_lsn: Option<Lsn>,
    why: &mut Reasons,
) -> Verdict<bool> {
    let candidate = request.and_then(|request| request.candidate.as_ref());
    let by_hand = request.is_some_and(|request| !request.is_switchover());
    let candidates: BTreeMap<MemberName, String> = s
        .others(cluster)
        .filter(|member| !member.data.tags.nofailover())
        .filter(|member| candidate.is_none_or(|candidate| *candidate == member.name))
        .filter(|member| excluded != Some(&member.name))
        .filter(|member| {
            by_hand || !s.sync_is_active(cluster) || cluster.sync.has_standby(&member.name)
        })
        .filter_map(|member| Some((member.name.clone(), member.data.api_url.clone()?)))
        .collect();
    if candidates.is_empty() {
        why.note(
            "ha.md §11.4",
            nobody(s, cluster, candidate, excluded, by_hand),
        );
        return Ok(false);
    }
    let Some(peers) = s.peers else {
        return Err(Ask(everybody(s, cluster, candidates)));
    };
    let able = candidates.keys().filter(|name| match peers.get(*name) {
        Some(Some(peer)) => is_able(s, cluster, name, peer, min_lsn, why),
        _ => {
            why.note(
                "ha.md §11.4",
                format!("{name} does not answer: it does not count"),
            );
            false
        }
    });
    let able = able.count();
    if s.needs_votes(cluster) && candidate.is_none() {
        let needed = cluster.sync.quorum as usize + 1;
        why.note(
            "ha.md §11.4",
            format!("{able} able candidates, quorum mode needs {needed}"),
        );
        return Ok(able >= needed);
    }
    Ok(able > 0)
}

/// Why there is no candidate to ask.
fn nobody(
    s: &Situation<'_>,
    cluster: &Cluster,
    candidate: Option<&MemberName>,
    excluded: Option<&MemberName>,
    by_hand: bool,
) -> String {
    let sync = !by_hand && s.sync_is_active(cluster);
    let reasons: Vec<String> = s
        .others(cluster)
        .map(|member| {
            let name = &member.name;
            if member.data.tags.nofailover() {
                format!("{name} is tagged nofailover")
            } else if candidate.is_some_and(|candidate| candidate != name) || excluded == Some(name)
            {
                format!("{name} is not the one to take over")
            } else if sync && !cluster.sync.has_standby(name) {
                format!("{name} is not in /sync")
            } else {
                format!("{name} publishes no api_url")
            }
        })
        .collect();
    if reasons.is_empty() {
        "there is no candidate: there are no other members".into()
    } else {
        format!("there is no candidate: {}", reasons.join(", "))
    }
}

fn is_able(
    s: &Situation<'_>,
    cluster: &Cluster,
    name: &MemberName,
    peer: &crate::situation::PeerReport,
    min_lsn: Option<Lsn>,
    why: &mut Reasons,
) -> bool {
    if let Some(limitation) = limitation(peer) {
        why.note("ha.md §11.4", format!("{name} is {limitation}"));
        return false;
    }
    if let (Some(theirs), Some(mine)) = (peer.timeline, s.memory.last_timeline)
        && theirs < mine
    {
        // However far its WAL goes, it is not the one that is handed over.
        why.note(
            "ha.md §11.4",
            format!("{name} is on timeline {theirs}, before mine, {mine}"),
        );
        return false;
    }
    if let Some(min_lsn) = min_lsn {
        if peer.position < min_lsn {
            why.note(
                "ha.md §11.4",
                format!("{name} is at {}, before {min_lsn}", peer.position),
            );
            return false;
        }
        why.note(
            "ha.md §11.4",
            format!("{name} is at {}, not before {min_lsn}", peer.position),
        );
    } else {
        let lag = peer.position.behind(cluster.status.optime);
        let limit = s.global.maximum_lag_on_failover;
        let relation = if lag > limit { ">" } else { "<=" };
        why.note(
            "ha.md §11.4",
            format!("{name} lags {lag} {relation} maximum_lag_on_failover {limit}"),
        );
        if lag > limit {
            return false;
        }
    }
    if s.global.check_timeline
        && let Some(known) = cluster.timeline()
        && peer.timeline.is_none_or(|timeline| timeline < known)
    {
        why.note(
            "ha.md §11.4",
            match peer.timeline {
                Some(theirs) => format!(
                    "check_timeline: {name} is on timeline {theirs} < the cluster's {known}"
                ),
                None => format!(
                    "check_timeline: the timeline of {name} is unknown, the cluster's is {known}"
                ),
            },
        );
        return false;
    }
    true
}
