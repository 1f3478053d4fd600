//! What an operator asked of this member alone: restart, reinitialize (`ha.md` §20).

use std::time::Duration;

use primacy_model::{Cluster, DataDirectory};

use super::{Reasons, bootstrap, follow, rewind};
use crate::decision::{Job, Step, Upstream};
use crate::situation::{PendingOperation, Situation};

/// The default of `primary_start_timeout`.
const RESTART_PATIENCE: Duration = Duration::from_secs(300);

pub(super) fn decide(
    s: &Situation<'_>,
    cluster: &Cluster,
    operation: &PendingOperation,
    why: &mut Reasons,
) -> Step {
    match operation {
        PendingOperation::Restart { timeout } => {
            if let Some(step) = leave_sync(s, cluster, why) {
                return step;
            }
            let primary =
                s.is_primary() && cluster.is_led_by(s.me()) || is_primary_in_pause(s, cluster);
            let timeout = timeout.unwrap_or_else(|| patience(s));
            why.note(
                "ha.md §20",
                format!(
                    "an operator or a schedule asked for it; it may take {} s",
                    timeout.as_secs()
                ),
            );
            why.outcome("restarting on request");
            let may_not_fit = s.left_the_leader() || rewind::is_to_be_compared(s);
            let apart = may_not_fit && !s.global.pause || rewind::is_to_be_promoted(s, cluster);
            let upstream = || match apart {
                true => Upstream::Nobody,
                false => follow::upstream(s, cluster),
            };
            Step::StartJob(Job::Restart {
                upstream: (!primary).then(upstream),
                timeout,
            })
        }
        PendingOperation::Reinitialize { from_leader, .. } => {
            let leader = cluster
                .leader_member()
                .filter(|leader| leader.name != *s.me());
            let source = match leader {
                Some(leader) if *from_leader => bootstrap::member_source(leader, true),
                Some(_) => bootstrap::clone_source(s, cluster),
                None => None,
            };
            let Some(source) = source else {
                why.note("ha.md §20", "nobody leads whom this member could copy");
                why.outcome("waiting for a member to reinitialize from");
                return Step::Wait;
            };
            why.note("ha.md §20", "an operator asked for a new copy");
            why.outcome(format!("reinitialize from {source}"));
            Step::StartJob(Job::CreateReplica {
                source: Some(source),
                reinitialize: true,
                basebackup_only: *from_leader,
            })
        }
    }
}

/// An operator wants the data directory anew: whatever is wrong with it does not matter, but that it may hold something
/// else than a cluster (I6).
pub(super) fn replaces_data(s: &Situation<'_>, operation: &PendingOperation) -> bool {
    matches!(operation, PendingOperation::Reinitialize { .. })
        && matches!(
            s.server.data_directory,
            DataDirectory::Valid | DataDirectory::Empty | DataDirectory::HalfRewound(_)
        )
}

/// How long a server that is restarted on purpose may take when nobody said. `primary_start_timeout: 0` says what
/// happens after a crash; a restart is none.
pub(super) fn patience(s: &Situation<'_>) -> Duration {
    match s.global.primary_start_timeout {
        Duration::ZERO => RESTART_PATIENCE,
        timeout => timeout,
    }
}

/// In pause a primary without the lock is one still after a restart. So is one that was stopped by hand, unless another
/// member leads or has led since: nobody asked for a second primary.
fn is_primary_in_pause(s: &Situation<'_>, cluster: &Cluster) -> bool {
    let control = s.server.control.as_ref();
    let timeline = control.and_then(|control| control.checkpoint_timeline);
    let published = s.others(cluster).filter_map(|member| member.data.timeline);
    let newest = published.chain(cluster.timeline()).max();
    let stopped_primary = !s.server.process.is_alive()
        && s.server.data_directory == DataDirectory::Valid
        && !s.server.recovery_signal
        && s.memory.demotion.is_none()
        && (cluster.leader.is_none() || cluster.is_led_by(s.me()))
        && timeline >= newest;
    s.global.pause && (s.is_primary() || stopped_primary)
}

/// A synchronous standby that is about to stop asks to be released first, so that commits do not stall
/// (`ha.md` §13.6). It does not wait for ever.
pub(super) fn leave_sync(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    let concerned = s.sync_is_active(cluster)
        && cluster.leader.is_some()
        && !cluster.is_led_by(s.me())
        && cluster.sync.has_standby(s.me())
        && s.server.process.is_alive();
    if !concerned {
        return None;
    }
    let Some(since) = s.memory.sync_withdrawn_at else {
        why.note(
            "ha.md §13.6",
            "a synchronous standby leaves before it stops",
        );
        why.outcome("asking to leave synchronous replication");
        return Some(Step::WithdrawFromSync);
    };
    let until = since + 2 * s.global.loop_wait;
    if s.now >= until {
        why.note(
            "ha.md §13.6",
            "the leader did not release this standby in time",
        );
        return None;
    }
    why.outcome("waiting to be released from synchronous replication");
    Some(Step::WaitUntil(until))
}
