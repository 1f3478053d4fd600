//! Following (`ha.md` §9).

use std::time::Duration;

use primacy_model::{Cluster, Member, Process};

use super::{Reasons, demote, operation, rewind, slots, standby_cluster};
use crate::decision::{DemotionMode, Job, Step, Upstream};
use crate::situation::{Lease, RewindState, Situation};

use super::Verdict;

/// A receiver that was told to end is looked at again so soon.
const RECEIVER_LOOK: Duration = Duration::from_millis(200);

/// Somebody else holds the lock.
pub(super) fn decide(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Verdict<Step> {
    let leader = cluster.leader_name().map_or("nobody", |name| name.as_str());
    if s.is_primary() && !may_follow_in_pause(s) {
        if s.global.pause {
            why.note("ha.md §9 follow 1", "paused: a second primary is tolerated");
            why.outcome("PAUSE: continue to run as primary without lock");
            return Ok(Step::Wait);
        }
        why.note(
            "ha.md §9 follow 2",
            format!("{leader} holds the lock, and I am a primary"),
        );
        why.outcome(format!(
            "demoting self because i do not have the lock and i was a leader; lock owner: {leader}"
        ));
        debug_assert!(s.lease == Lease::None || cluster.leader_name() != Some(s.me()));
        return Ok(demote(s, DemotionMode::ImmediateNoLock));
    }
    Ok(keep_following(s, cluster, why))
}

fn may_follow_in_pause(s: &Situation<'_>) -> bool {
    s.global.pause && s.can_repair_divergence() && s.memory.rewind == RewindState::Needed
}

/// A standby, whoever leads.
pub(super) fn keep_following(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Step {
    if let Some(step) = set_apart(s, cluster, why) {
        return step;
    }
    if (s.memory.rewind != RewindState::Initial || !s.global.pause)
        && let Some(step) = rewind::decide(s, cluster, why)
    {
        return step;
    }
    if let Some(wal) = s.wal()
        && wal.replay_paused
        && !s.global.pause
        && s.server.major_version.is_some_and(|major| major >= 14)
    {
        why.note(
            "ha.md §9 follow 5",
            "replay is paused and the cluster is not",
        );
        why.outcome("resuming replay");
        return Step::ResumeReplay;
    }
    if rewind::is_to_be_compared(s) {
        why.note("ha.md §8.2", "not compared with the leader yet");
    } else if rewind::is_to_be_promoted(s, cluster) {
        why.note(
            "ha.md §8.2",
            "the leader is not promoted yet: it keeps the upstream that it has",
        );
    } else if let Some(step) = point_at(s, cluster, &upstream(s, cluster), why) {
        return step;
    }
    if let Some(step) = slots::decide(s, cluster, why) {
        return step;
    }
    if s.left_the_leader() {
        why.note(
            "ha.md §8.4.3",
            "the local WAL left the leader's, and neither pg_rewind nor the configuration helps",
        );
        why.outcome("my WAL left the leader's: this member must be reinitialized");
        return Step::Wait;
    }
    why.outcome(match cluster.leader_name() {
        Some(leader) => {
            format!(
                "no action. I am ({}), a secondary, and following a leader ({leader})",
                s.me()
            )
        }
        None => format!(
            "no action. I am ({}), a secondary, there is no leader",
            s.me()
        ),
    });
    Step::Wait
}

/// WAL that left the leader's gets no more from anywhere, and WAL that may have left it none from other servers: PostgreSQL
/// would stream what does not fit, and what comes while the WAL is compared would never be compared.
fn set_apart(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    if s.is_primary() || !s.left_the_leader() && !may_get_more_than_is_compared(s, cluster) {
        return None;
    }
    if let Some(step) = point_at(s, cluster, &Upstream::Nobody, why) {
        return Some(step);
    }
    if !s.left_the_leader() && s.wal()?.receiver.is_some() {
        // PostgreSQL ends it once what it received is replayed.
        why.note("ha.md §8.2", "WAL still arrives from the former upstream");
        why.outcome("waiting for the WAL receiver to end before the comparison");
        return Some(Step::WaitUntil(s.now + RECEIVER_LOOK));
    }
    None
}

/// The WAL is about to be compared with the leader's, and comes from somebody else.
fn may_get_more_than_is_compared(s: &Situation<'_>, cluster: &Cluster) -> bool {
    let Some(leader) = cluster.leader_member() else {
        return false;
    };
    let following = s.memory.following.as_ref().map(|(upstream, _)| upstream);
    // Before 13 it takes a restart: only where it is not known whom an earlier agent had it follow.
    let reload = s.server.major_version.is_some_and(|major| major >= 13);
    rewind::is_to_be_compared(s)
        && !rewind::is_to_be_promoted(s, cluster)
        && following != reachable(leader).as_ref()
        && (reload || following.is_none())
}

/// Makes the running standby follow the target, unless it does.
fn point_at(
    s: &Situation<'_>,
    cluster: &Cluster,
    upstream: &Upstream,
    why: &mut Reasons,
) -> Option<Step> {
    let Process::Running(identity) = s.server.process else {
        return None;
    };
    s.wal()?;
    // The key of a leader that took its lock again may be there before its member key is.
    let unpublished =
        cluster.leader_member().is_none() && !s.local.tags.nostream() && !s.left_the_leader();
    let apart = s.left_the_leader() || rewind::is_to_be_compared(s);
    if *upstream == Upstream::Nobody
        && (s.global.pause && !apart || cluster.is_unlocked() || unpublished)
    {
        // A standby that keeps its upstream while nobody leads loses nothing, and gets what a primary that
        // is cut off from the store still writes (ha.md W20).
        return None;
    }
    if s.memory.follow_needs_restart.as_ref() == Some(upstream) {
        why.note(
            "ha.md §9 follow 7",
            "the change of upstream needs a restart",
        );
        why.outcome("changing primary_conninfo and restarting");
        return Some(Step::StartJob(Job::Restart {
            upstream: Some(upstream.clone()),
            timeout: operation::patience(s),
        }));
    }
    if s.memory.following.as_ref() == Some(&(upstream.clone(), identity)) {
        return None;
    }
    why.note("ha.md §9 follow 7", format!("following {upstream}"));
    why.outcome(format!("following {upstream}"));
    Some(Step::Follow(upstream.clone()))
}

/// Whom to follow (`ha.md` §9 target).
pub(super) fn upstream(s: &Situation<'_>, cluster: &Cluster) -> Upstream {
    if s.local.tags.nostream() {
        return Upstream::Nobody;
    }
    if standby_cluster::follows_remote(s, cluster) {
        return standby_cluster::remote(s.global, cluster.is_led_by(s.me()));
    }
    if s.left_the_leader() {
        // PostgreSQL would stream from a timeline that only has the same number.
        return Upstream::Nobody;
    }
    let named = s.local.tags.replicatefrom().filter(|name| *s.me() != *name);
    named
        .and_then(|name| cluster.member(name))
        .and_then(reachable)
        .or_else(|| {
            cluster
                .leader_member()
                .filter(|leader| leader.name != *s.me())
                .and_then(reachable)
        })
        .unwrap_or_default()
}

fn reachable(member: &Member) -> Option<Upstream> {
    let connection = member.data.connection()?;
    Some(Upstream::Member {
        name: member.name.clone(),
        connection,
    })
}
