//! PostgreSQL runs and does not answer (W6): its postmaster is stopped, its storage hangs, or it is stuck. A hang that
//! lasts hands over, where somebody can take over.

use std::time::Duration;

use primacy_model::{Cluster, Probes, Process};

use super::{Reasons, Verdict, demote_within, switchover};
use crate::decision::{DemotionMode, Step};
use crate::situation::Situation;

/// A lock owner whose server hangs looks for somebody to take over so often.
const LOOK: Duration = Duration::from_secs(5);
/// A killed server that lasts longer is held by its disk. One that does not is the lock owner's to start again.
const DYING: Duration = Duration::from_secs(1);

/// What keeps the server from serving, and for how long: the probe without an answer for longest that says so by
/// itself. A disk that does not answer says nothing while WAL is still being flushed: it is busy.
fn verdict(probes: &Probes) -> Option<(&'static str, Duration)> {
    let mut verdict = *probes;
    verdict.disk = probes.disk.map(|disk| disk.min(probes.wal_still));
    verdict.unanswered().max_by_key(|(_, since)| *since)
}

/// The lock is mine. `Some`: nothing else is to be done now.
pub(super) fn decide(
    s: &Situation<'_>,
    cluster: &Cluster,
    why: &mut Reasons,
) -> Verdict<Option<Step>> {
    let limit = s.global.primary_hang_timeout;
    let Some((probe, hung)) = verdict(&s.server.probes) else {
        return Ok(None);
    };
    if s.global.pause
        || limit.is_zero()
        || !cluster.is_led_by(s.me())
        || !matches!(s.server.process, Process::Running(_))
    {
        return Ok(None);
    }
    let compared = |relation: &str| {
        format!(
            "no answer to the {probe} probe for {} s {relation} primary_hang_timeout {} s",
            hung.as_secs(),
            limit.as_secs()
        )
    };
    if hung < limit {
        why.note("ha.md W6", compared("<"));
        return Ok(None);
    }
    why.note("ha.md W6", compared(">="));
    if !switchover::anybody_can_take_over(s, cluster, None, why)? {
        why.outcome(format!(
            "PostgreSQL hangs ({probe}), and nobody can take over: {} keeps the leader lock",
            s.me()
        ));
        return Ok(Some(Step::WaitUntil(s.now + LOOK)));
    }
    why.outcome(format!("demoting self because PostgreSQL hangs ({probe})"));
    Ok(Some(give_up(s)))
}

/// Stops a server that may not hear the signal to stop: SIGKILL follows soon.
pub(super) fn give_up(s: &Situation<'_>) -> Step {
    demote_within(DemotionMode::Immediate, Some(s.global.retry_timeout))
}

/// Why a fast stop that is under way will not come to its end: the postmaster does not hear it. Only new connections tell;
/// a server that is stopping answers them with a refusal, however long its last checkpoint takes.
pub(super) fn stop_is_stuck(s: &Situation<'_>) -> Option<String> {
    let limit = s.global.primary_hang_timeout;
    let hung = s.server.probes.connection?;
    (!limit.is_zero() && hung >= limit).then(|| {
        format!(
            "no answer to the connection probe for {} s >= primary_hang_timeout {} s: the stop is not heard",
            hung.as_secs(),
            limit.as_secs()
        )
    })
}

/// A killed server has not ended yet: that takes milliseconds, unless its disk does not let it end.
pub(super) fn dying(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Step {
    why.note(
        "ha.md W5",
        "the killed server accepts nothing any more; nothing is started beside it",
    );
    let patience = s.memory.dying_since.unwrap_or(s.now) + DYING;
    if s.now < patience {
        why.outcome("waiting for the killed PostgreSQL to end");
        return Step::WaitUntil(patience);
    }
    if cluster.is_led_by(s.me()) {
        why.outcome("released leader key voluntarily: the disk does not let PostgreSQL end");
        return Step::ReleaseLeader { optime: None };
    }
    why.outcome("waiting for the disk to let the killed PostgreSQL end");
    Step::Wait
}

/// Why this member's server may not take part in a race, if it hangs: it could not be promoted.
pub(super) fn limitation(s: &Situation<'_>) -> Option<String> {
    let (probe, hung) = s
        .server
        .probes
        .unanswered()
        .max_by_key(|(_, since)| *since)?;
    Some(format!(
        "PostgreSQL has not answered the {probe} probe for {} s",
        hung.as_secs()
    ))
}
