//! The machine's clock: CLOCK_BOOTTIME, which counts the time that the machine was suspended. A lease does not
//! stop while its holder sleeps.

use std::time::Duration;

use primacy_ha::Moment;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// Now.
pub(crate) fn now() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Moment(Duration::new(seconds, nanoseconds))
}

/// The same point on the clock that the runtime's timers use. That clock stands still while the machine is
/// suspended, so the result is only good from now until the next suspension; it must not be kept.
pub(crate) fn instant(at: Moment) -> Instant {
    let (moment, instant) = (now(), Instant::now());
    if at >= moment {
        instant + at.since(moment)
    } else {
        instant.checked_sub(moment.since(at)).unwrap_or(instant)
    }
}
