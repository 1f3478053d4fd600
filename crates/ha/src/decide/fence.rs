//! A member that may not lead without its fence (`fencing.mode: required`).

use std::time::Duration;

use super::{Reasons, demote};
use crate::decision::{DemotionMode, Step};
use crate::situation::{FenceState, Situation};

/// The fence answers within milliseconds.
const LOOK: Duration = Duration::from_millis(50);

/// Before this member is, or goes on being, the primary. `Some`: that comes first.
pub(super) fn before_leading(s: &Situation<'_>, why: &mut Reasons) -> Option<Step> {
    if !s.local.fence_required || s.global.pause {
        return None;
    }
    if let Some(problem) = limitation(s) {
        why.note("fencing.mode", problem);
        if s.is_primary() || s.may_be_promoted() {
            why.outcome("demoting self because the fence cannot be started");
            return Some(demote(s, DemotionMode::Immediate));
        }
        why.outcome("released leader key because the fence cannot be started");
        return Some(Step::ReleaseLeader { optime: None });
    }
    if s.memory.fence != FenceState::Armed && !s.is_primary() {
        why.note(
            "fencing.mode",
            "required: the fence does not hold the deadline yet",
        );
        why.outcome("waiting for the fence before the promotion");
        return Some(Step::WaitUntil(s.now + LOOK));
    }
    None
}

/// Why this member may not lead, as far as the fence is concerned.
pub(super) fn limitation(s: &Situation<'_>) -> Option<&'static str> {
    (s.local.fence_required && s.memory.fence == FenceState::Failed)
        .then_some("required: the fence cannot be started, or told the deadline")
}
