//! No postmaster, not paused (`ha.md` §7).

use std::time::Duration;

use primacy_model::{Cluster, ControlState, Role, State};

use super::{Reasons, Verdict, demote, follow, rewind, switchover};
use crate::decision::{DemotionMode, Job, Step, Upstream};
use crate::situation::Situation;

pub(super) fn decide(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Verdict<Step> {
    let leads = cluster.is_led_by(s.me()) && s.lease.is_held(s.now);
    if leads
        && s.global.primary_start_timeout == Duration::ZERO
        && s.memory.state == State::Crashed
        && switchover::failover_is_possible(s, cluster, None, why)?
    {
        why.note(
            "ha.md §7.1",
            "PostgreSQL died, primary_start_timeout is 0: another member takes over",
        );
        why.outcome("stopped PostgreSQL to fail over after a crash");
        return Ok(demote(s, DemotionMode::Immediate));
    }
    let Some(control) = &s.server.control else {
        why.note("ha.md §7.2", "the control file cannot be read");
        why.outcome("waiting: the control file cannot be read");
        return Ok(Step::Wait);
    };
    let died_as_primary = control.state.is_a_primarys()
        && s.memory.state == State::Crashed
        && s.memory.role == Role::Primary
        && !s.server.recovery_signal;
    if leads && s.global.primary_start_timeout > Duration::ZERO && died_as_primary {
        why.note(
            "ha.md §7.3",
            "the primary died and still holds the lock: starting it again",
        );
        why.outcome("starting primary after failure");
        return Ok(Step::StartJob(Job::StartPrimary {
            timeout: s.global.primary_start_timeout,
        }));
    }
    if let Some(step) = crash_recovery(s, cluster, control.state, why) {
        return Ok(step);
    }
    if leads && s.global.standby_cluster.is_none() {
        why.note(
            "ha.md §7.7",
            "I hold the lock: starting read-only, the promotion follows",
        );
        why.outcome("starting as readonly because i had the session lock");
        return Ok(Step::StartJob(Job::Start {
            upstream: Upstream::Nobody,
        }));
    }
    if let Some(step) = rewind::decide(s, cluster, why) {
        return Ok(step);
    }
    let upstream = match rewind::is_to_be_compared(s) || rewind::is_to_be_promoted(s, cluster) {
        true => Upstream::Nobody,
        false => follow::upstream(s, cluster),
    };
    why.note("ha.md §7.9", format!("starting as a replica of {upstream}"));
    why.outcome("starting as a secondary");
    Ok(Step::StartJob(Job::Start { upstream }))
}

/// A primary that did not stop in good order cannot become a standby, nor be rewound, before it has
/// recovered (`ha.md` §7.5).
fn crash_recovery(
    s: &Situation<'_>,
    cluster: &Cluster,
    state: ControlState,
    why: &mut Reasons,
) -> Option<Step> {
    let crashed = matches!(
        state,
        ControlState::InProduction | ControlState::ShuttingDown | ControlState::InCrashRecovery
    );
    let backup = s.server.backup_label && s.server.major_version.is_some_and(|major| major >= 15);
    if !crashed || backup || s.memory.crash_recovery_tried {
        return None;
    }
    if !cluster.is_unlocked() && !s.can_rewind() {
        return None;
    }
    why.note(
        "ha.md §7.5",
        format!("the control file says {state:?}: recovering before anything else"),
    );
    why.outcome("doing crash recovery in a single user mode");
    Some(Step::StartJob(Job::CrashRecovery))
}
