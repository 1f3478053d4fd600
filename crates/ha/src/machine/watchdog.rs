//! The watchdog device follows the lease, beside the passes.

use primacy_config::WatchdogMode;

use super::{Action, Machine, StepOutcome};
use crate::decide::watchdog;
use crate::decision::Job;
use crate::situation::Lease;
use crate::time::Moment;

impl Machine {
    /// Pings the device when the lease was prolonged, and only then; closes it once no server here can accept writes,
    /// or nobody wants it. Without either it goes on counting: that is what it is for.
    pub(super) fn keep_watchdog(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if !self.memory.watchdog.active {
            return;
        }
        if self.global.pause
            || self.local.watchdog.mode == WatchdogMode::Off
            || self.accepts_no_commits(now)
        {
            self.memory.watchdog.active = false;
            self.watched_until = None;
            actions.push(Action::DisableWatchdog);
            return;
        }
        if let Lease::Held { until, .. } = self.lease
            && self.watched_until != Some(until)
        {
            self.watched_until = Some(until);
            // An answer that came late leaves less of the lease than the device would count.
            let left = until.since(now);
            let timeout = watchdog::timeout(&self.local.watchdog, &self.global)
                .map_or(left, |timeout| timeout.min(left));
            actions.push(Action::PingWatchdog { timeout, until });
        }
    }

    pub(super) fn watchdog_activated(&mut self, outcome: &StepOutcome, now: Moment) {
        let active = *outcome == StepOutcome::Done;
        self.memory.watchdog.active = active;
        self.memory.watchdog.failed_at = (!active).then_some(now);
        self.watched_until = match self.lease {
            Lease::Held { until, .. } if active => Some(until),
            _ => None,
        };
    }

    /// The mode is `required`, and the device cannot be used (`rest-api.md` §5).
    pub fn watchdog_failed(&self, now: Moment) -> bool {
        self.local.watchdog.mode == WatchdogMode::Required
            && !self.memory.watchdog.active
            && watchdog::problem_of(
                &self.local.watchdog,
                &self.global,
                self.server.watchdog_usable,
                self.memory.watchdog.failed_at,
                now,
            )
            .is_some()
    }

    /// Nobody's commit is acknowledged by this server any more, or yet.
    fn accepts_no_commits(&self, now: Moment) -> bool {
        let stopping = self
            .job
            .as_ref()
            .is_some_and(|job| matches!(job.job, Job::Stop { .. }) && job.no_backends);
        let recovering = self
            .server
            .wal
            .as_ref()
            .is_some_and(|wal| !wal.is_primary())
            && !self.may_accept_writes()
            && !self.lease.is_held(now);
        stopping || recovering || !self.server.process.is_alive()
    }
}
