//! The agent is to end (`ha.md` §21). The lock is refreshed and the API answers until PostgreSQL has stopped
//! (W8).

use primacy_model::Cluster;

use super::{Reasons, Verdict, operation, switchover};
use crate::decision::{Exit, Job, Step, StopMode, StopReason};
use crate::situation::{Lease, Shutdown, Situation, StoreView};

pub(super) fn decide(s: &Situation<'_>, shutdown: &Shutdown, why: &mut Reasons) -> Verdict<Step> {
    why.note("ha.md §21", "the agent was told to end");
    why.outcome("shutting down");
    let end = |code: i32, reason: &str| {
        Ok(Step::Exit(Exit {
            code,
            reason: reason.into(),
        }))
    };
    if let Some(code) = shutdown.leave_server {
        return end(code, "PostgreSQL is left as it is");
    }
    if s.global.pause && s.job.is_none() {
        why.note("ha.md §21", "paused: PostgreSQL and the leader key stay");
        return end(0, "paused: PostgreSQL keeps running");
    }
    let cluster = match s.store {
        StoreView::Seen(cluster) => Some(cluster),
        StoreView::Unreachable => None,
    };
    if let Some(job) = s.job {
        if let Job::Stop {
            reason: StopReason::Shutdown,
            ..
        } = job.job
        {
            return release_early(s, cluster, job.shutdown_lsn, why);
        }
        if matches!(job.job, Job::Stop { .. }) || job.cancelling {
            return Ok(Step::Wait);
        }
        why.note("ha.md §21", "the long action under way is cancelled first");
        return Ok(Step::CancelJob);
    }
    if let Some(cluster) = cluster
        && shutdown.stopped.is_none()
        && let Some(step) = operation::leave_sync(s, cluster, why)
    {
        return Ok(step);
    }
    if s.server.process.is_alive() && !shutdown.stop_failed {
        return Ok(Step::StartJob(Job::Stop {
            mode: StopMode::Fast,
            checkpoint: s.is_primary(),
            timeout: match s.is_primary() && s.wants_sync() {
                true => s.global.primary_stop_timeout,
                false => None,
            },
            reason: StopReason::Shutdown,
        }));
    }
    if s.server.process.is_alive() {
        why.note(
            "ha.md §21",
            "PostgreSQL could not be stopped: the key is left to expire",
        );
        return end(1, "PostgreSQL could not be stopped");
    }
    if let Some(cluster) = cluster
        && cluster.is_led_by(s.me())
        && s.lease != Lease::None
    {
        why.note("ha.md §21", "PostgreSQL has stopped: the key may go");
        return Ok(Step::ReleaseLeader {
            optime: shutdown.stopped.flatten(),
        });
    }
    end(0, "shut down")
}

/// As soon as a candidate has the shutdown checkpoint, it may take over (`ha.md` §12.2.2).
fn release_early(
    s: &Situation<'_>,
    cluster: Option<&Cluster>,
    shutdown_lsn: Option<primacy_model::Lsn>,
    why: &mut Reasons,
) -> Verdict<Step> {
    if let (Some(cluster), Some(lsn)) = (cluster, shutdown_lsn)
        && cluster.is_led_by(s.me())
        && s.lease != Lease::None
        && switchover::failover_is_possible(s, cluster, Some(lsn), why)?
    {
        why.note(
            "ha.md §12.2.2",
            format!("a candidate has the shutdown checkpoint {lsn}"),
        );
        return Ok(Step::ReleaseLeader { optime: Some(lsn) });
    }
    Ok(Step::Wait)
}
