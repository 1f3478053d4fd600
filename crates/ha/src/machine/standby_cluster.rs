//! What the machine remembers of a standby cluster: who is its leader in name, and when its WAL was last
//! compared with the remote primary's.

use std::time::Duration;

use primacy_model::{Role, Status};

use super::{Action, CallbackEvent, Machine};
use crate::decision::{DemotionMode, Job};
use crate::situation::{Lease, RewindState};
use crate::time::Moment;

/// A member that gets no WAL compares itself with the primary so often at most.
pub(super) const COMPARISON_INTERVAL: Duration = Duration::from_secs(30);

impl Machine {
    /// This is a standby cluster, and the lock is mine.
    pub(super) fn leads_standby_cluster(&self) -> bool {
        self.global.standby_cluster.is_some()
            && self.lease != Lease::None
            && self
                .view
                .as_ref()
                .is_some_and(|view| view.is_led_by(&self.local.name))
    }

    /// A server in recovery is called standby leader as long as it leads a standby cluster (`ha.md` §9
    /// follow 6). While the store is away everybody stays what they are.
    pub(super) fn name_standby_leader(&mut self, actions: &mut Vec<Action>) {
        let recovering = self
            .server
            .wal
            .as_ref()
            .is_some_and(|wal| !wal.is_primary());
        let own_demotion = self
            .memory
            .demotion
            .is_some_and(|demotion| demotion.mode != DemotionMode::DemoteCluster);
        let settled = self.view.is_some() && self.job.is_none() && !own_demotion;
        let role = match self.memory.role {
            Role::Replica if self.leads_standby_cluster() => Role::StandbyLeader,
            // One that is about to be promoted is told as a primary, when it is one.
            Role::StandbyLeader if !self.leads() => Role::Replica,
            _ => return,
        };
        if !recovering || !settled {
            return;
        }
        self.memory.role = role;
        if self.memory.joined {
            actions.push(Action::Callback(CallbackEvent::OnRoleChange, role));
        }
    }

    fn leads(&self) -> bool {
        self.view
            .as_ref()
            .is_some_and(|view| view.is_led_by(&self.local.name))
    }

    /// A leader whose server cannot be started is none any more (`ha.md` §3 H1).
    pub(super) fn lost_by_a_failed_start(&mut self, actions: &mut Vec<Action>) {
        if self.leads() && matches!(self.memory.role, Role::Primary | Role::StandbyLeader) {
            self.memory.role = Role::Demoted;
            actions.push(Action::Callback(CallbackEvent::OnRoleChange, Role::Demoted));
        }
    }

    /// The remote primary may have been promoted past the WAL that this member has, and nobody in this cluster
    /// can tell: a member that does not stream looks for itself (`ha.md` §8.2).
    pub(super) fn compare_with_remote(&mut self, now: Moment) {
        let Some(section) = &self.global.standby_cluster else {
            self.memory.remote_compared_at = None;
            return;
        };
        let Some(wal) = self.server.wal.as_ref().filter(|wal| !wal.is_primary()) else {
            return;
        };
        let streams = wal
            .receiver
            .as_ref()
            .is_some_and(|receiver| receiver.status == "streaming");
        if streams {
            self.memory.remote_compared_at = None;
            if matches!(
                self.memory.rewind,
                RewindState::Check { .. } | RewindState::FitsSoFar | RewindState::Succeeded
            ) {
                self.memory.rewind = RewindState::NotNeeded;
            }
            return;
        }
        let due = self
            .memory
            .remote_compared_at
            .is_none_or(|at| now.since(at) >= COMPARISON_INTERVAL);
        let reachable = section.host.is_some() || section.port.is_some();
        let settled = matches!(
            self.memory.rewind,
            RewindState::Initial | RewindState::NotNeeded
        );
        if due && reachable && settled && self.local_can_repair() && !self.global.pause {
            self.memory.remote_compared_at = Some(now);
            self.memory.rewind = RewindState::Check { undecided: None };
        }
    }

    /// The last position as a primary is where those who follow must get to (W26).
    pub(super) fn tell_last_position(&mut self, job: &Job, actions: &mut Vec<Action>) {
        let Some(demotion) = &self.memory.demotion else {
            return;
        };
        let (Job::Stop { .. }, DemotionMode::DemoteCluster, Some(optime)) =
            (job, demotion.mode, demotion.shutdown_lsn)
        else {
            return;
        };
        let last = self.status.clone().or_else(|| {
            let view = self.view.as_ref()?;
            Some(view.status.clone())
        });
        let status = Status {
            optime,
            ..last.unwrap_or_default()
        };
        self.status = Some(status.clone());
        actions.push(Action::WriteStatus(status));
    }
}
