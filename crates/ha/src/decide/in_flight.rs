//! A long action is under way (`ha.md` §3.1). The lock is refreshed by the heartbeat meanwhile; here only
//! what must not wait for the action's end.

use primacy_model::Cluster;

use super::{Reasons, Verdict, hang, switchover};
use crate::decision::{Job, Step, StopMode, StopReason};
use crate::situation::{JobInFlight, Lease, PendingOperation, Situation};

pub(super) fn decide(
    s: &Situation<'_>,
    cluster: &Cluster,
    job: &JobInFlight,
    why: &mut Reasons,
) -> Verdict<Step> {
    why.outcome(format!("{} in progress", job.job.name()));
    if job.cancelling {
        return Ok(Step::Wait);
    }
    let owner = cluster.is_led_by(s.me()) && s.lease.is_held(s.now);

    if let Job::Stop {
        reason: StopReason::Demotion(mode),
        ..
    } = &job.job
        && mode.releases()
        && cluster.is_led_by(s.me())
        && s.lease != Lease::None
        && let Some(lsn) = job.shutdown_lsn
        && switchover::failover_is_possible(s, cluster, Some(lsn), why)?
    {
        // The shutdown checkpoint is written and a candidate has it: nothing can be lost any more, however
        // long the postmaster goes on archiving.
        why.note(
            "ha.md §12.2.2",
            format!("a candidate has the shutdown checkpoint {lsn}"),
        );
        return Ok(Step::ReleaseLeader { optime: Some(lsn) });
    }

    if let Job::Stop {
        mode: StopMode::Fast,
        reason: StopReason::Demotion(_),
        ..
    } = &job.job
        && owner
        && let Some(problem) = hang::stop_is_stuck(s)
    {
        // What follows is judged as any other hang.
        why.note("ha.md W6", problem);
        return Ok(Step::CancelJob);
    }

    if job.job == Job::CrashRecovery
        && owner
        && s.now.since(job.since) >= s.global.primary_start_timeout
        && switchover::failover_is_possible(s, cluster, None, why)?
    {
        why.note(
            "ha.md §3.1.1",
            format!(
                "crash recovery for {:.0} s >= primary_start_timeout {} s",
                s.now.since(job.since).as_secs_f64(),
                s.global.primary_start_timeout.as_secs()
            ),
        );
        return Ok(Step::CancelJob);
    }

    if let Job::StartPrimary { .. } = &job.job
        && !owner
        && !s.global.pause
    {
        why.note(
            "ha.md §3.1.4",
            "the lock was lost while PostgreSQL was being started as a primary",
        );
        return Ok(Step::CancelJob);
    }

    if job.job == Job::Promote && !owner && !s.global.pause {
        why.note("ha.md §3.1.3", "the lock was lost before the promotion");
        return Ok(Step::CancelJob);
    }

    if let Some(PendingOperation::Reinitialize { force: true, .. }) = s.memory.operation
        && !matches!(
            job.job,
            Job::CreateReplica {
                reinitialize: true,
                ..
            }
        )
    {
        why.note(
            "rest-api.md §8.6",
            "an operator asked to reinitialize at once",
        );
        return Ok(Step::CancelJob);
    }

    Ok(Step::Wait)
}
