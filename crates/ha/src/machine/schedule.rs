//! What is to happen at a time that people chose. Nothing sleeps until then (`ha.md` W22): the machine wakes.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use primacy_model::{Cluster, JournalKind, ScheduledAt, ScheduledRestart};
use serde_json::Value;

use super::{Action, Answer, LogLevel, Machine};
use crate::situation::PendingOperation;
use crate::time::Moment;

impl Machine {
    /// One at a time, for the postmaster that runs now (`ha.md` §20). Without an answer of the server nobody could
    /// tell later whether it was restarted meanwhile.
    pub(super) fn schedule_restart(&mut self, mut restart: ScheduledRestart) -> Answer {
        if self.memory.scheduled_restart.is_some() {
            return Answer::NotMet;
        }
        let Some(wal) = &self.server.wal else {
            return Answer::Refused("PostgreSQL does not answer".into());
        };
        restart.postmaster_start_time = Some(wal.postmaster_start_time_text.clone());
        self.memory.scheduled_restart = Some(restart);
        Answer::Done
    }

    /// A scheduled restart whose time has come (`ha.md` §20): executed once, dropped when it is stale or when the
    /// server was restarted meanwhile. It waits while the cluster is paused, nobody leads, or something else is done.
    pub(super) fn due_restart(&mut self, now: Moment, wall: Timestamp, actions: &mut Vec<Action>) {
        let (Some(restart), Some(running)) = (&self.memory.scheduled_restart, &self.server.wal)
        else {
            return;
        };
        let started = &running.postmaster_start_time_text;
        if restart.postmaster_start_time.as_ref() != Some(started) {
            let text = format!("PostgreSQL was restarted meanwhile, it runs since {started}");
            return self.drop_scheduled_restart(&text, now, wall, actions);
        }
        let ScheduledAt::At { timestamp, .. } =
            ScheduledAt::parse(&restart.schedule, &TimeZone::UTC)
        else {
            return self.drop_scheduled_restart("its time cannot be read", now, wall, actions);
        };
        let late = wall.duration_since(timestamp);
        let busy = self.job.is_some() || self.memory.operation.is_some();
        let locked = self.view.as_ref().is_some_and(|view| view.leader.is_some());
        if late.is_negative() || self.global.pause || busy || !locked {
            return;
        }
        let stale = Duration::from_secs(self.global.loop_wait.as_secs() * 3 / 2);
        if late.unsigned_abs() > stale {
            let text = format!(
                "its time passed {:.0} s ago, more than {} s",
                late.as_secs_f64(),
                stale.as_secs()
            );
            return self.drop_scheduled_restart(&text, now, wall, actions);
        }
        let filters = restart.filters.clone();
        let text = |key: &str| filters.get(key).and_then(Value::as_str);
        let below = text("postgres_version").and_then(version_number);
        let pending = filters.contains_key("restart_pending");
        if !self.restart_applies(text("role"), below, pending) {
            let text = format!(
                "its conditions {} do not hold: role {}, version {}, a restart is {}pending",
                Value::Object(filters.clone()),
                self.memory.role.for_callbacks().as_str(),
                running.server_version,
                if self.memory.pending_restart.is_some() {
                    ""
                } else {
                    "not "
                }
            );
            return self.drop_scheduled_restart(&text, now, wall, actions);
        }
        self.memory.scheduled_restart = None;
        let timeout = filters.get("timeout").and_then(Value::as_u64);
        self.memory.operation = Some(PendingOperation::Restart {
            timeout: timeout.map(Duration::from_secs),
        });
        self.again = true;
        let text = "the scheduled restart is due".to_owned();
        self.tell(JournalKind::Event, text, now, wall, actions);
    }

    fn drop_scheduled_restart(
        &mut self,
        why: &str,
        now: Moment,
        wall: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        self.memory.scheduled_restart = None;
        let text = format!("the scheduled restart is dropped: {why}");
        actions.push(Action::Log(LogLevel::Warning, text.clone()));
        self.tell(JournalKind::Event, text, now, wall, actions);
    }

    /// When a scheduled switchover or restart wants the next pass.
    pub(super) fn next_schedule(
        &self,
        view: &Cluster,
        now: Moment,
        wall: Timestamp,
    ) -> Option<Moment> {
        let restart = self.memory.scheduled_restart.as_ref();
        let restart = restart.and_then(|restart| {
            match ScheduledAt::parse(&restart.schedule, &TimeZone::UTC) {
                ScheduledAt::At { timestamp, .. } => Some(timestamp),
                ScheduledAt::Unusable(_) => None,
            }
        });
        let switchover = crate::decide::next_schedule(view);
        // What is due already was looked at in this pass.
        let waits = [restart, switchover].into_iter().flatten();
        let waits = waits.map(|at| at.duration_since(wall));
        let wait = waits.filter(|wait| wait.is_positive()).min()?;
        Some(now + wait.unsigned_abs())
    }
}

/// `15.4` and `9.6.3` as `server_version_num`.
fn version_number(text: &str) -> Option<u32> {
    let parts: Vec<u32> = text
        .split('.')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    match parts.as_slice() {
        [major, minor] => Some(major * 10_000 + minor),
        [major, minor, patch] => Some(major * 10_000 + minor * 100 + patch),
        _ => None,
    }
}
