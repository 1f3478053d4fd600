//! The leader's clock.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::command::Millis;

/// Time since boot, suspension included; never set by anybody.
pub(crate) fn boottime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

/// One leadership: the group's time goes on from `base` at the pace of this machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reign {
    /// The log index of the entry that began it.
    pub(crate) index: u64,
    /// The group's time when it began.
    pub(crate) base: Millis,
    /// This machine's time since boot when it began.
    pub(crate) anchor: Duration,
}

impl Reign {
    /// The group's time at this moment of the machine, rounded down.
    pub(crate) fn at(&self, now: Duration) -> Millis {
        let elapsed = now.saturating_sub(self.anchor).as_millis();
        self.base
            .saturating_add(u64::try_from(elapsed).unwrap_or(Millis::MAX))
    }
}

/// A time to live, rounded up.
pub(crate) fn millis(ttl: Duration) -> Millis {
    Millis::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(Millis::MAX)
}
