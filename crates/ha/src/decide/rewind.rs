//! Whether the local WAL left the leader's, and what to do about it (`ha.md` §8).

use std::time::Duration;

use primacy_model::{Cluster, Member, Role};

use super::Reasons;
use crate::decision::{Job, Step};
use crate::situation::{RewindState, Situation};

/// Between two comparisons that could not be made.
const RETRY: Duration = Duration::from_millis(500);
/// After so many of them a stopped server is started all the same: it does not stream what it should not,
/// and is compared again while it runs.
const TRIES_BEFORE_START: u32 = 20;

/// The step that divergence needs, if it needs one.
pub(super) fn decide(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    if !s.can_repair_divergence() {
        return None;
    }
    let leader = cluster
        .leader_member()
        .filter(|leader| leader.name != *s.me())?;
    let stopped = !s.server.process.is_alive();
    match s.memory.rewind {
        RewindState::Initial if stopped => Some(check(s, leader, why)),
        RewindState::Check { undecided: None } => Some(check(s, leader, why)),
        RewindState::Check {
            undecided: Some((_, tries)),
        } if stopped && tries >= TRIES_BEFORE_START => {
            why.note(
                "ha.md §8.3",
                "the comparison with the leader cannot be made now",
            );
            None
        }
        RewindState::Check {
            undecided: Some((at, _)),
        } if s.now >= at + RETRY => Some(check(s, leader, why)),
        RewindState::Check {
            undecided: Some((at, _)),
        } if stopped => {
            why.outcome(format!(
                "waiting for {} to be ready for a comparison",
                leader.name
            ));
            Some(Step::WaitUntil(at + RETRY))
        }
        RewindState::Needed => repair(s, cluster, leader, why),
        RewindState::Failed if s.local.remove_on_rewind_failure || s.local.remove_on_divergence => {
            why.note(
                "ha.md §8.5.6",
                "pg_rewind failed, and the configuration asks for a new copy then",
            );
            why.outcome(format!(
                "reinitialize from {} after a failed pg_rewind",
                leader.name
            ));
            Some(Step::StartJob(reinitialize(leader)))
        }
        _ => None,
    }
}

/// Steps 2 of `ha.md` §8.3: a leader that has not been promoted yet cannot be compared with.
fn check(s: &Situation<'_>, leader: &Member, why: &mut Reasons) -> Step {
    let connection = leader.data.connection();
    let (Some(Role::Primary), Some(connection)) = (leader.data.role, connection) else {
        why.note(
            "ha.md §8.3.2",
            format!("{} leads, and is not a primary yet", leader.name),
        );
        why.outcome(format!("waiting for {} to be promoted", leader.name));
        return Step::WaitUntil(s.now + RETRY);
    };
    why.outcome(format!(
        "comparing the local WAL with that of {}",
        leader.name
    ));
    Step::StartJob(Job::CheckDivergence {
        leader: leader.name.clone(),
        connection,
    })
}

/// `ha.md` §8.4.
fn repair(
    s: &Situation<'_>,
    cluster: &Cluster,
    leader: &Member,
    why: &mut Reasons,
) -> Option<Step> {
    let connection = leader.data.connection()?;
    if s.can_rewind() {
        if leader.data.checkpoint_pending {
            why.note(
                "ha.md §8.5.3",
                format!("{} has made no checkpoint since its promotion", leader.name),
            );
            why.outcome(format!(
                "waiting for checkpoint on {} before rewind",
                leader.name
            ));
            return Some(Step::WaitUntil(s.now + RETRY));
        }
        let crashed_standby =
            s.server.control.as_ref().is_some_and(|control| {
                control.state == primacy_model::ControlState::InArchiveRecovery
            });
        if crashed_standby && !s.server.process.is_alive() && !s.memory.crash_recovery_tried {
            why.note(
                "ha.md §8.4.1",
                "pg_rewind needs a server that was shut down in good order",
            );
            why.outcome("doing crash recovery in a single user mode");
            return Some(Step::StartJob(Job::CrashRecovery));
        }
        why.note("ha.md §8.4.1", "the local WAL left the leader's");
        why.outcome(format!("running pg_rewind from {}", leader.name));
        return Some(Step::StartJob(Job::Rewind {
            leader: leader.name.clone(),
            connection,
            checkpoint_confirmed: cluster.is_led_by(&leader.name) && leader.data.version.is_some(),
        }));
    }
    if s.local.remove_on_divergence {
        why.note(
            "ha.md §8.4.2",
            "the local WAL left the leader's, pg_rewind cannot be used",
        );
        why.outcome(format!(
            "reinitialize due to diverged timelines, from {}",
            leader.name
        ));
        return Some(Step::StartJob(reinitialize(leader)));
    }
    None
}

fn reinitialize(leader: &Member) -> Job {
    Job::CreateReplica {
        source: Some(leader.name.clone()),
        connection: leader.data.connection(),
        reinitialize: true,
        basebackup_only: false,
    }
}
