//! What a pass sees, and what makes the next one look again.

use primacy_config::SynchronousMode;
use primacy_model::{
    Cluster, DataDirectory, Member, MemberName, Observation, Process, Readiness, Role, State,
    Timeline, WalReceiver, WalStatus,
};

use super::standby_cluster::COMPARISON_INTERVAL;
use super::{Action, Machine, StoreKey, slots};
use crate::decide::confirmation;
use crate::decision::Job;
use crate::situation::{Lease, PendingOperation, RewindState};
use crate::time::Moment;

impl Machine {
    /// Forgets what was true of another postmaster only.
    pub(super) fn saw_process(&mut self, process: Process) {
        if process == self.server.process {
            return;
        }
        self.server.process = process;
        self.memory.sync.obeyed = None;
        if self.memory.role == Role::Promoted {
            // The promotion did not come to its end in the postmaster that it was asked of.
            self.memory.role = Role::Replica;
        }
    }

    pub(super) fn absorb(&mut self, mut observation: Observation, now: Moment) {
        if observation.process.is_alive()
            && observation.process == self.server.process
            && observation.control.is_none()
        {
            // Neither the server nor its files told: it is whose it was.
            let known = self.server.system_identifier.clone();
            observation.system_identifier = observation.system_identifier.or(known);
        }
        self.saw_process(observation.process);
        let memory = &mut self.memory;
        let starting = matches!(observation.process, Process::Running(_))
            && observation.wal.is_none()
            && observation.readiness == Readiness::Rejecting;
        if self
            .job
            .as_ref()
            .is_none_or(|job| !determines_state(&job.job))
        {
            match (&observation.wal, observation.process) {
                (Some(_), _) => memory.state = State::Running,
                (None, Process::Absent | Process::Dying(_)) => {
                    if matches!(
                        memory.state,
                        State::Running
                            | State::Starting
                            | State::StartingAfterCustomBootstrap
                            | State::Restarting
                    ) {
                        // In pause people stop servers.
                        memory.state = match self.global.pause {
                            true => State::Stopped,
                            false => State::Crashed,
                        };
                    }
                }
                (None, _)
                    if starting
                        && !matches!(
                            memory.state,
                            State::Running | State::StartingAfterCustomBootstrap
                        ) =>
                {
                    memory.state = State::Starting;
                }
                _ => {}
            }
            match &observation.wal {
                Some(wal) if wal.is_primary() => memory.role = Role::Primary,
                Some(_) if !matches!(memory.role, Role::Promoted | Role::StandbyLeader) => {
                    memory.role = Role::Replica;
                }
                Some(_) => {}
                None if observation.data_directory == DataDirectory::Empty => {
                    memory.role = Role::Uninitialized;
                }
                None if memory.role == Role::Uninitialized
                    && observation.data_directory == DataDirectory::Valid =>
                {
                    // Found like this: a primary's data unless it says otherwise, and a primary if it runs and hangs.
                    let standby = observation.recovery_signal || starting;
                    memory.role = match observation.process {
                        Process::Running(_) if !standby => Role::Primary,
                        process if standby || process.is_alive() => Role::Replica,
                        _ => Role::Demoted,
                    };
                }
                None => {}
            }
        }
        memory.dying_since = match observation.process {
            Process::Dying(_) => memory.dying_since.or(Some(now)),
            _ => None,
        };
        memory.starting_since = if starting {
            memory.starting_since.or(Some(now))
        } else {
            None
        };
        if let Some(wal) = &observation.wal {
            memory.copied = false;
            memory.last_timeline = wal.timeline_in_use().or(memory.last_timeline);
            memory.crash_recovery_tried = false;
            memory.start_failed_at = None;
            memory.start_timeout = None;
            let position = wal.position();
            memory.wal_moved = match memory.wal_moved {
                Some((before, moved)) if before == position => Some((position, moved)),
                before => Some((position, before.map(|_| now))),
            };
            if wal.timeline.is_some() && wal.checkpoint_timeline == wal.timeline {
                memory.checkpoint_done = wal.timeline;
            }
            if wal.is_primary() {
                memory.former_primary = true;
                memory.rewind = RewindState::Initial;
                memory.following = None;
                memory.pre_promote_failed_at = None;
            }
            let wants_sync = self.global.synchronous_mode != SynchronousMode::Off;
            if wants_sync && wal.is_primary() && memory.sync.managed.is_none() {
                // An agent that takes a primary over goes on from the names in force: files written without
                // them would let commits through that nobody else has.
                memory.sync.managed = Some(wal.synchronous_standby_names.clone());
            }
            confirmation::observe(&mut memory.sync, wal);
        }
        memory.former_primary |= (observation.former_primary || is_a_primarys(&observation))
            && memory.rewind == RewindState::Initial
            && !memory.copied;
        slots::observe(&mut memory.slots, &observation);
        if !observation.process.is_alive()
            && self.job.is_none()
            && let Some(demotion) = &mut memory.demotion
            && !demotion.stopped
        {
            // Killed by the fence, or gone by itself meanwhile.
            demotion.stopped = true;
            demotion.released_at = demotion
                .released_at
                .or((!demotion.mode.releases()).then_some(now));
            memory.role = Role::Demoted;
            memory.state = State::Stopped;
        }
        self.server = observation;
        self.observed_at = now;
    }

    /// What makes the next decision look for divergence (`ha.md` §8.2), and the edges of pause.
    pub(super) fn look_for_triggers(&mut self, now: Moment) {
        if self.was_paused && !self.global.pause {
            self.memory.rewind = RewindState::Initial;
            self.compared_with = None;
        }
        self.was_paused = self.global.pause;
        if let Some(demotion) = &self.memory.demotion
            && demotion.stopped
            && self.server.process.is_alive()
            && self.job.is_none()
        {
            self.memory.demotion = None;
        }
        if let Some(view) = &self.view
            && (view.is_unlocked() || view.is_led_by(&self.local.name))
            && matches!(
                self.memory.operation,
                Some(PendingOperation::Reinitialize { .. })
            )
        {
            // There is nobody to copy any more: what is here may be all that is left.
            self.memory.operation = None;
        }
        let Some(view) = &self.view else { return };
        let wal = self.server.wal.as_ref();
        if let Some(wal) = wal {
            self.memory.left_history = match wal.is_primary() {
                true => None,
                false => view.left_timeline_before(wal.timeline_in_use(), wal.position()),
            };
        }
        let votes_count = view.is_unlocked()
            && self.global.synchronous_mode != SynchronousMode::Off
            && view.sync.quorum > 0;
        let in_sync = view.sync.leader.as_ref();
        self.memory.superseded_by = in_sync
            .filter(|name| votes_count && self.memory.former_primary && **name != self.local.name)
            .cloned();
        self.memory.chosen = view.is_unlocked()
            && view.failover.as_ref().is_some_and(|request| {
                !request.is_switchover() && request.candidate.as_ref() == Some(&self.local.name)
            });
        let Some(leader) = view.leader_member() else {
            return;
        };
        if wal.is_some_and(WalStatus::is_primary) || leader.name == self.local.name {
            self.compared_with = None;
            return;
        }
        let job = self.job.as_ref().map(|job| &job.job);
        // What a comparison under way comes to is about the leader that it began with.
        if leader.data.role != Some(Role::Primary)
            || matches!(job, Some(Job::CheckDivergence { .. }))
        {
            return;
        }
        let key = leader_key(leader);
        let restarts = key.1.is_none();
        let compared = self
            .compared_with
            .as_ref()
            .is_some_and(|with| answers_for(with, &key));
        let Some(wal) = wal else {
            // In pause it stays as it is, and with it why it was stopped.
            let at_rest = job.is_none() && !self.server.process.is_alive() && !self.global.pause;
            if at_rest && !compared {
                self.compare_again(key, now);
            }
            return;
        };
        if self.streams_from(leader, wal) {
            self.compared_with = Some(key);
            self.compared_at = Some(now);
            self.memory.former_primary = false;
            if matches!(
                self.memory.rewind,
                RewindState::Check { .. } | RewindState::FitsSoFar | RewindState::Succeeded
            ) {
                self.memory.rewind = RewindState::NotNeeded;
            }
        } else if !compared
            || !restarts
                && (self.memory.rewind == RewindState::Initial
                    || self
                        .compared_at
                        .is_none_or(|at| now.since(at) >= COMPARISON_INTERVAL))
        {
            // Initial: what was known was forgotten. What was found fit may have got more from its old upstream since.
            self.compare_again(key, now);
        }
    }

    /// What the leader would not send to WAL that left its own.
    fn streams_from(&self, leader: &Member, wal: &WalStatus) -> bool {
        let cascades = self.local.tags.replicatefrom().is_some();
        wal.receiver.as_ref().is_some_and(|receiver| {
            receiver.status == "streaming"
                && receiver.timeline.is_some()
                && receiver.timeline == leader.data.timeline
                && (cascades || comes_from(receiver, leader))
        })
    }

    /// What an earlier agent knew of the WAL holds until more is known: it was compared anew or rewound, streams, or is a
    /// primary's by now.
    pub(super) fn remember_wal(&mut self, actions: &mut Vec<Action>) {
        if self.server.data_directory != DataDirectory::Valid {
            return;
        }
        let wal = self.server.wal.as_ref();
        let leader = self.view.as_ref().and_then(Cluster::leader_member);
        let refuted = wal.is_some_and(|wal| {
            wal.is_primary() || leader.is_some_and(|leader| self.streams_from(leader, wal))
        });
        let open = matches!(
            self.memory.rewind,
            RewindState::Initial | RewindState::Check { .. } | RewindState::FitsSoFar
        );
        self.memory.found_diverged = self.server.diverged && open && !refuted;
        let holds = self.memory.found_diverged || self.memory.left_the_leader();
        if self.server.diverged && !holds {
            actions.push(Action::ForgetDivergence);
        }
        let is_primary = wal.is_some_and(WalStatus::is_primary);
        if self.server.former_primary && (is_primary || !self.memory.former_primary) {
            actions.push(Action::ForgetFormerPrimary);
        }
    }

    fn compare_again(&mut self, key: LeaderKey, now: Moment) {
        self.compared_with = Some(key);
        self.compared_at = Some(now);
        let found = matches!(
            self.memory.rewind,
            RewindState::Initial
                | RewindState::FitsSoFar
                | RewindState::NotNeeded
                | RewindState::Succeeded
        );
        if found && self.local_can_repair() {
            self.memory.rewind = RewindState::Check { undecided: None };
        }
    }

    /// A copy that is begun now needs no comparison with the leader of now.
    pub(super) fn begins_copy(&mut self) {
        let leader = self.view.as_ref().and_then(Cluster::leader_member);
        self.compared_with = leader.map(leader_key);
    }

    pub(super) fn concerns_me(&self, key: &StoreKey) -> bool {
        match key {
            StoreKey::Leader(name) => {
                let known = self.view.as_ref().and_then(Cluster::leader_name);
                known.map(MemberName::as_str) != name.as_deref()
            }
            StoreKey::Config | StoreKey::Failover | StoreKey::Initialize | StoreKey::Unknown => {
                true
            }
            StoreKey::Sync => self.memory.sync_withdrawn_at.is_some(),
            StoreKey::Member(name, data) => {
                if self.local.name == *name.as_str() {
                    return data.is_none();
                }
                let leads = self.lease != Lease::None;
                let known = self.view.as_ref().and_then(|view| view.member(name));
                match (known, data) {
                    (None, Some(_)) => leads,
                    (Some(known), Some(data)) => {
                        let changed = known.data.state != data.state
                            || known.data.tags != data.tags
                            || known.data.role != data.role
                            || known.data.timeline != data.timeline
                            || known.data.replication_state != data.replication_state
                            || known.data.checkpoint_pending != data.checkpoint_pending;
                        let is_leader = self.view.as_ref().is_some_and(|view| view.is_led_by(name));
                        changed && (leads || is_leader)
                    }
                    (Some(_), None) => leads,
                    (None, None) => false,
                }
            }
            StoreKey::Other => false,
        }
    }
}

/// What a comparison with a leader is good for.
pub(super) type LeaderKey = (MemberName, Option<Timeline>);

fn leader_key(leader: &Member) -> LeaderKey {
    (leader.name.clone(), leader.data.timeline)
}

/// A leader that restarts publishes no timeline meanwhile. Whoever it is lost to then must not have forgotten that
/// its WAL fits: it may be the one that can lead.
fn answers_for((name, timeline): &LeaderKey, (leader, now): &LeaderKey) -> bool {
    name == leader && (now.is_none() || timeline == now)
}

/// The data of a primary that does not run. A copy has the control file of what it was copied from.
fn is_a_primarys(observation: &Observation) -> bool {
    let control = observation.control.as_ref();
    control.is_some_and(|control| control.state.is_a_primarys()) && !observation.backup_label
}

/// Jobs that say themselves what is being done to the server.
fn determines_state(job: &Job) -> bool {
    !matches!(
        job,
        Job::Promote | Job::CheckDivergence { .. } | Job::PostBootstrap
    )
}

/// A receiver may still hang on the leader before, whose timeline may have the same number. Before PostgreSQL 11
/// it does not tell.
fn comes_from(receiver: &WalReceiver, leader: &Member) -> bool {
    let (Some(host), Some(port)) = (&receiver.sender_host, receiver.sender_port) else {
        return true;
    };
    let connection = leader.data.connection();
    connection.is_none_or(|leader| leader.host == *host && leader.port == port)
}
