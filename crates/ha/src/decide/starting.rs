//! The postmaster lives and does not accept connections yet (`ha.md` §3.2).

use primacy_model::{Cluster, Process, Readiness};

use super::{Reasons, Verdict, demote, switchover};
use crate::decision::{DemotionMode, Step};
use crate::situation::Situation;

pub(super) fn decide(
    s: &Situation<'_>,
    cluster: &Cluster,
    why: &mut Reasons,
) -> Verdict<Option<Step>> {
    let starting = matches!(s.server.process, Process::Running(_))
        && s.server.wal.is_none()
        && s.server.readiness != Readiness::Accepting
        && s.memory.state == primacy_model::State::Starting;
    if !starting || s.global.pause || !cluster.is_led_by(s.me()) {
        return Ok(None);
    }
    if let Some(step) = switchover::leader_side(s, cluster, why)? {
        return Ok(Some(step));
    }
    let Some(since) = s.memory.starting_since else {
        why.outcome("PostgreSQL is still starting up, waiting");
        return Ok(Some(Step::Wait));
    };
    let timeout = s.memory.start_timeout;
    let timeout = timeout.unwrap_or(s.global.primary_start_timeout);
    let starting = s.now.since(since);
    let relation = if starting >= timeout { ">=" } else { "<" };
    why.note(
        "ha.md §3.2",
        format!(
            "starting for {:.0} s {relation} {} {} s",
            starting.as_secs_f64(),
            match s.memory.start_timeout {
                Some(_) => "the timeout of the restart",
                None => "primary_start_timeout",
            },
            timeout.as_secs()
        ),
    );
    if starting >= timeout && switchover::failover_is_possible(s, cluster, None, why)? {
        why.outcome("demoting self because postgres is still starting up");
        return Ok(Some(demote(s, DemotionMode::Immediate)));
    }
    why.outcome("PostgreSQL is still starting up, waiting");
    Ok(Some(Step::Wait))
}
