//! The end of a leadership, after PostgreSQL was stopped (`ha.md` §12.2).

use std::time::Duration;

use primacy_model::Cluster;

use super::Reasons;
use crate::decision::{DemotionMode, Step};
use crate::situation::{Demotion, Situation};

/// How long a former leader holds back so that the others can race. Two seconds as in Patroni: its members
/// notice a deleted key within one.
const HOLD_BACK: Duration = Duration::from_secs(2);

/// `None` when the demotion is over and the ordinary rules apply again.
pub(super) fn decide(
    s: &Situation<'_>,
    cluster: &Cluster,
    demotion: &Demotion,
    why: &mut Reasons,
) -> Option<Step> {
    if !demotion.stopped {
        return None;
    }
    if demotion.mode.releases() && demotion.released_at.is_none() && cluster.is_led_by(s.me()) {
        why.note("ha.md §12.2.5", "PostgreSQL has stopped: the key may go");
        why.outcome("released leader key voluntarily");
        return Some(Step::ReleaseLeader {
            optime: demotion.shutdown_lsn,
        });
    }
    if demotion.mode == DemotionMode::Offline {
        return None;
    }
    let until = demotion.released_at? + HOLD_BACK;
    if cluster.is_unlocked() && s.now < until {
        why.note(
            "ha.md §12.2.5",
            "the key was released: the others race first",
        );
        why.outcome("demoted, waiting for the others to take the lock");
        return Some(Step::WaitUntil(until));
    }
    None
}
