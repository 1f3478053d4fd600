//! The watchdog device (`ha.md` §19): it is set before the server may accept writes, and a member that needs one and has
//! none does not lead.

use std::time::Duration;

use primacy_config::{GlobalConfig, Watchdog, WatchdogMode};

use super::{Reasons, demote};
use crate::decision::{DemotionMode, Step};
use crate::situation::{Lease, Situation};
use crate::time::Moment;

/// One whose lease is about to be renewed looks again so soon.
const RENEWAL_LOOK: Duration = Duration::from_millis(500);

/// The device's timeout; `None` when the configured times leave none that is at least as long as a loop.
pub(crate) fn timeout(config: &Watchdog, global: &GlobalConfig) -> Option<Duration> {
    let timeout = match u64::try_from(config.safety_margin) {
        Ok(margin) => global.ttl.checked_sub(Duration::from_secs(margin))?,
        Err(_) => Duration::from_secs(global.ttl.as_secs() / 2),
    };
    (timeout >= global.loop_wait && !timeout.is_zero()).then_some(timeout)
}

/// Before this member is, or goes on being, the primary (`ha.md` §4.3.1). `Some`: that comes first.
pub(super) fn before_leading(s: &Situation<'_>, why: &mut Reasons) -> Option<Step> {
    let config = &s.local.watchdog;
    if s.global.pause || config.mode == WatchdogMode::Off || s.memory.watchdog.active {
        return None;
    }
    let Some(problem) = problem(s) else {
        let Lease::Held { until, .. } = s.lease else {
            return None;
        };
        // Counted from its activation, the device must not outlast the lease.
        let timeout =
            timeout(config, s.global)?.min(Duration::from_secs(until.since(s.now).as_secs()));
        if timeout >= s.global.loop_wait {
            why.note("ha.md §19", format!("{} is not active yet", config.device));
            why.outcome("activating the watchdog");
            return Some(Step::ActivateWatchdog { timeout });
        }
        why.note(
            "ha.md §19",
            "the watchdog is activated after the next renewal",
        );
        return match s.is_primary() {
            true => None,
            false => Some(Step::WaitUntil(s.now + RENEWAL_LOOK)),
        };
    };
    if config.mode != WatchdogMode::Required {
        return None;
    }
    why.note(
        "ha.md §4.3.1",
        format!("watchdog.mode is required: {problem}"),
    );
    if s.is_primary() || s.may_be_promoted() {
        why.outcome("Demoting self because watchdog could not be activated");
        return Some(demote(s, DemotionMode::Immediate));
    }
    why.outcome("Not promoting self because watchdog could not be activated");
    Some(Step::ReleaseLeader { optime: None })
}

/// Why this member may not lead, as far as the watchdog is concerned (`ha.md` §10.1 row 10).
pub(crate) fn limitation(s: &Situation<'_>) -> Option<String> {
    (s.local.watchdog.mode == WatchdogMode::Required && !s.memory.watchdog.active)
        .then(|| problem(s))
        .flatten()
}

fn problem(s: &Situation<'_>) -> Option<String> {
    problem_of(
        &s.local.watchdog,
        s.global,
        s.server.watchdog_usable,
        s.memory.watchdog.failed_at,
        s.now,
    )
}

/// What keeps the device from being used.
pub(crate) fn problem_of(
    config: &Watchdog,
    global: &GlobalConfig,
    usable: bool,
    failed_at: Option<Moment>,
    now: Moment,
) -> Option<String> {
    if timeout(config, global).is_none() {
        return Some(format!(
            "ttl {} s less safety_margin {} s is less than loop_wait {} s",
            global.ttl.as_secs(),
            config.safety_margin,
            global.loop_wait.as_secs()
        ));
    }
    if !usable {
        return Some(format!("{} is not there, or not writable", config.device));
    }
    let ago = now.since(failed_at?);
    (ago < global.ttl).then(|| {
        format!(
            "{} could not be activated {} s ago, less than ttl {} s",
            config.device,
            ago.as_secs(),
            global.ttl.as_secs()
        )
    })
}
