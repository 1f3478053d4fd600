//! What operators ask of this member alone.

use primacy_model::{Cluster, DataDirectory};

use super::{Action, Answer, Machine, OperatorRequest};
use crate::situation::PendingOperation;

impl Machine {
    pub(super) fn operator(&mut self, request: OperatorRequest, actions: &mut Vec<Action>) {
        self.again = true;
        let job = self.job.as_ref().map(|job| job.job.name());
        // What waits for its time is as good as under way (`ha.md` §24), unless what is on the disk lets nothing begin but
        // a new copy.
        let waiting = self.memory.operation.as_ref().filter(|operation| {
            let usable = self.server.data_directory == DataDirectory::Valid
                && self.server.system_identifier.is_some();
            usable || matches!(operation, PendingOperation::Reinitialize { .. })
        });
        let busy = job.or_else(|| waiting.map(|operation| operation.name().into()));
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
                    let waiting = &self.memory.operation;
                    if matches!(waiting, Some(PendingOperation::Restart { .. }))
                        && let Some(id) = self.restart_reply.take()
                    {
                        // It was not begun, and will not be.
                        let answer = Answer::Failed;
                        actions.push(Action::Reply { id, answer });
                    }
                    self.memory.operation =
                        Some(PendingOperation::Reinitialize { from_leader, force });
                    Answer::Done
                };
                actions.push(Action::Reply { id, answer });
            }
            OperatorRequest::ScheduleRestart { id, restart } => {
                let answer = self.schedule_restart(restart);
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
}
