//! I own the lock, and PostgreSQL runs (`ha.md` §4.1, §4.3).

use std::time::Duration;

use primacy_model::{Cluster, Role};

use super::{
    Reasons, Verdict, demote, fence, history, slots, standby_cluster, switchover, sync, watchdog,
};
use crate::decision::{DemotionMode, Job, Step};
use crate::situation::Situation;

/// A server that was just promoted is looked at again so soon.
const PROMOTION_LOOK: Duration = Duration::from_millis(50);

pub(super) fn decide(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Verdict<Step> {
    let primary = s.is_primary();
    let standby = s.global.standby_cluster.is_some();
    if s.global.pause && !primary && !standby && !s.may_be_promoted() {
        let chosen = cluster
            .failover
            .as_ref()
            .and_then(|request| request.candidate.as_ref());
        if chosen != Some(s.me()) {
            why.note("ha.md §4.1.1", "paused, and the lock owner is no primary");
            why.outcome("PAUSE: removed leader lock because postgres is not running as primary");
            return Ok(Step::ReleaseLeader { optime: None });
        }
    }
    if !s.lease.is_held(s.now) {
        why.note("ha.md §5.4", "the lease is not confirmed");
        why.outcome("waiting for the leader lock to be confirmed");
        return Ok(Step::Wait);
    }
    if (primary || !s.global.pause)
        && let Some(step) = switchover::leader_side(s, cluster, why)?
    {
        return Ok(step);
    }
    if standby {
        return Ok(standby_cluster::lead(s, cluster, why));
    }
    if let Some(step) = fence::before_leading(s, why) {
        return Ok(step);
    }
    if let Some(step) = watchdog::before_leading(s, why) {
        return Ok(step);
    }
    if let Some(at) = s.memory.pre_promote_failed_at
        && !primary
        && s.now.since(at) < s.global.ttl
    {
        why.note(
            "ha.md §4.3.1",
            format!(
                "pre_promote failed {:.0} s ago, less than ttl {} s",
                s.now.since(at).as_secs_f64(),
                s.global.ttl.as_secs()
            ),
        );
        why.outcome("released leader key because pre_promote script failed");
        return Ok(Step::ReleaseLeader { optime: None });
    }
    if primary {
        Ok(lead(s, cluster, why))
    } else {
        Ok(promote(s, cluster, why))
    }
}

/// I am the primary.
fn lead(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Step {
    why.outcome(format!(
        "no action. I am ({}), the leader with the lock",
        s.me()
    ));
    if let Some(step) = sync::maintain(s, cluster, why) {
        return step;
    }
    let Some(wal) = s.wal() else {
        why.outcome(format!(
            "no action. I am ({}), the leader with the lock; PostgreSQL does not answer",
            s.me()
        ));
        return Step::Wait;
    };
    if let Some(step) = history::decide(s, cluster, why) {
        return step;
    }
    if let Some(timeline) = wal.timeline
        && s.memory.checkpoint_done != Some(timeline)
        && !s.memory.checkpoint_running
        && wal.checkpoint_timeline != Some(timeline)
    {
        why.note(
            "ha.md §8.6",
            format!("no checkpoint on timeline {timeline} yet"),
        );
        why.outcome("making the first checkpoint after the promotion");
        return Step::Checkpoint;
    }
    if let Some(step) = slots::decide(s, cluster, why) {
        return step;
    }
    why.outcome(format!(
        "no action. I am ({}), the leader with the lock",
        s.me()
    ));
    sync::next_look(s, cluster)
}

/// I hold the lock and am not the primary yet (`ha.md` §4.3.4).
fn promote(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Step {
    if s.memory.role == Role::Promoted {
        why.outcome("waiting for the promotion to finish");
        return Step::WaitUntil(s.now + PROMOTION_LOOK);
    }
    if s.wal().is_none() {
        why.outcome("waiting for postgres to answer before the promotion");
        return Step::WaitUntil(s.now + PROMOTION_LOOK);
    }
    if let Some(problem) = sync::outdated_race(s, cluster) {
        why.note("ha.md §13.1 I3", problem);
        if s.is_being_promoted() {
            why.outcome("demoting self because /sync is not what the lock was won by");
            return demote(s, DemotionMode::Immediate);
        }
        why.outcome("released leader key voluntarily: /sync is not what the lock was won by");
        return Step::ReleaseLeader { optime: None };
    }
    if let Some(step) = sync::before_promotion(s, cluster, why) {
        return step;
    }
    why.note("ha.md §4.3.4", "I hold the lock: promoting");
    why.outcome("promoted self to leader by acquiring session lock");
    Step::StartJob(Job::Promote)
}
