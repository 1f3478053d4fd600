//! What operators ask of this member alone.

use std::time::Duration;

use jiff::Timestamp;
use primacy_model::{Cluster, ScheduledAt};
use serde_json::Value;

use super::{Action, Answer, LogLevel, Machine, OperatorRequest};
use crate::situation::PendingOperation;

impl Machine {
    pub(super) fn operator(&mut self, request: OperatorRequest, actions: &mut Vec<Action>) {
        self.again = true;
        let busy = self.job.as_ref().map(|job| job.job.name());
        match request {
            OperatorRequest::WakeUp => {}
            OperatorRequest::Restart {
                id,
                role,
                below_version,
                pending,
                timeout,
            } => {
                let answer = if !self.restart_applies(role.as_deref(), below_version, pending) {
                    Answer::NotMet
                } else if let Some(busy) = busy {
                    Answer::Busy(busy)
                } else if self.memory.operation.is_some() {
                    Answer::Busy("restart".into())
                } else {
                    self.memory.operation = Some(PendingOperation::Restart { timeout });
                    self.restart_reply = Some(id);
                    return;
                };
                actions.push(Action::Reply { id, answer });
            }
            OperatorRequest::Reinitialize {
                id,
                force,
                from_leader,
            } => {
                let leader = self.view.as_ref().and_then(Cluster::leader_name);
                let answer = if leader.is_none() {
                    Answer::Refused("Cluster has no leader, can not reinitialize".into())
                } else if leader == Some(&self.local.name) {
                    Answer::Refused("I am the leader, can not reinitialize".into())
                } else if let Some(busy) = busy.filter(|_| !force) {
                    Answer::Busy(busy)
                } else {
                    self.memory.operation =
                        Some(PendingOperation::Reinitialize { from_leader, force });
                    Answer::Done
                };
                actions.push(Action::Reply { id, answer });
            }
            OperatorRequest::ScheduleRestart { id, mut restart } => {
                let answer = if self.memory.scheduled_restart.is_some() {
                    Answer::NotMet
                } else {
                    restart.postmaster_start_time = self
                        .server
                        .wal
                        .as_ref()
                        .map(|wal| wal.postmaster_start_time_text.clone());
                    self.memory.scheduled_restart = Some(restart);
                    Answer::Done
                };
                actions.push(Action::Reply { id, answer });
            }
            OperatorRequest::DeleteScheduledRestart { id } => {
                let had = self.memory.scheduled_restart.take().is_some();
                let answer = if had { Answer::Done } else { Answer::NotMet };
                actions.push(Action::Reply { id, answer });
            }
        }
    }

    pub(super) fn restart_applies(
        &self,
        role: Option<&str>,
        below: Option<u32>,
        pending: bool,
    ) -> bool {
        let version = self.server.wal.as_ref().map(|wal| wal.server_version);
        role.is_none_or(|role| role == self.memory.role.for_callbacks().as_str())
            && below.is_none_or(|below| version.is_some_and(|version| version < below))
            && (!pending || self.memory.pending_restart.is_some())
    }

    /// A scheduled restart whose time has come (`ha.md` §20): executed once, dropped when it is stale or when
    /// the server was restarted meanwhile.
    pub(super) fn due_restart(&mut self, wall: Timestamp, actions: &mut Vec<Action>) {
        let Some(restart) = &self.memory.scheduled_restart else {
            return;
        };
        let running = self
            .server
            .wal
            .as_ref()
            .map(|wal| &wal.postmaster_start_time_text);
        if running.is_some() && restart.postmaster_start_time.as_ref() != running {
            actions.push(Action::Log(
                LogLevel::Warning,
                "the scheduled restart is dropped: PostgreSQL was restarted meanwhile".into(),
            ));
            self.memory.scheduled_restart = None;
            return;
        }
        let locked = self.view.as_ref().is_some_and(|view| view.leader.is_some());
        if self.global.pause || self.job.is_some() || !locked {
            return;
        }
        let ScheduledAt::At { timestamp, .. } =
            ScheduledAt::parse(&restart.schedule, &jiff::tz::TimeZone::UTC)
        else {
            self.memory.scheduled_restart = None;
            return;
        };
        let late = wall.duration_since(timestamp);
        if late.is_negative() {
            return;
        }
        let Some(restart) = self.memory.scheduled_restart.take() else {
            return;
        };
        let stale = Duration::from_secs(self.global.loop_wait.as_secs() * 3 / 2);
        let text = |key: &str| restart.filters.get(key).and_then(Value::as_str);
        let below = text("postgres_version").and_then(version_number);
        let pending = restart.filters.contains_key("restart_pending");
        if late.unsigned_abs() <= stale && self.restart_applies(text("role"), below, pending) {
            let timeout = restart.filters.get("timeout").and_then(Value::as_u64);
            self.memory.operation = Some(PendingOperation::Restart {
                timeout: timeout.map(Duration::from_secs),
            });
            self.again = true;
        } else {
            actions.push(Action::Log(
                LogLevel::Info,
                "the scheduled restart is dropped: its conditions do not hold".into(),
            ));
        }
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
