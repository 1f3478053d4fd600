//! What came of steps and jobs.

use primacy_config::SynchronousMode;
use primacy_model::{ControlState, Process, Role, State};

use super::{
    Action, Answer, CallbackEvent, JobReport, LogLevel, Machine, StepOutcome, suits_earlier_view,
};
use crate::decide::{bootstrap, sync};
use crate::decision::{DemotionMode, Exit, Job, Step, StopReason, Upstream};
use crate::situation::{JobInFlight, Lease, PendingOperation, RewindState};
use crate::time::Moment;

impl Machine {
    pub(super) fn step_done(
        &mut self,
        step: Step,
        outcome: StepOutcome,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let woken = std::mem::replace(&mut self.again, true);
        if let StepOutcome::Failed(reason) = &outcome {
            actions.push(Action::Log(
                LogLevel::Warning,
                format!("{step} failed: {reason}"),
            ));
            // The device is tried again after ttl; what to do without it is decided at once.
            if !matches!(step, Step::ActivateWatchdog { .. }) {
                self.retry_later(now);
            }
        }
        let done = outcome == StepOutcome::Done;
        match step {
            Step::AcquireLeader { .. } if matches!(outcome, StepOutcome::Failed(_)) => {
                self.acquisition_in_doubt = true;
                self.memory.unheard_acquisition = true;
            }
            Step::AcquireLeader { .. } if done => {
                self.memory.unheard_acquisition = false;
                self.leave_failsafe();
                // Counted from before the lease was granted.
                let sent = self.acting_since;
                self.lease = Lease::Held {
                    until: sent + self.requested_ttl,
                    failing_since: None,
                };
                self.next_renewal = sent + self.global.loop_wait;
                self.renewing = false;
                self.memory.bootstrapping = None;
                self.memory.demotion = None;
                self.memory.slots.seen.clear();
                self.memory.sync.doubtful = true;
                self.status = None;
            }
            Step::WriteSync(_) | Step::DeleteSync(_) => match outcome {
                StepOutcome::Done => self.memory.sync.doubtful = false,
                StepOutcome::Failed(_) => self.memory.sync.doubtful = true,
                _ => {}
            },
            Step::ReleaseLeader { .. } => {
                if let Some(demotion) = &mut self.memory.demotion
                    && done
                {
                    demotion.released_at = Some(now);
                }
                self.published = None;
            }
            Step::ClaimInitialize if done => {
                self.memory.bootstrapping = Some(None);
                self.start_job(bootstrap::first_job(&self.global), now, actions);
            }
            Step::ClaimInitialize if outcome == StepOutcome::Refused => self.retry_later(now),
            Step::WriteInitialize { .. }
                if outcome == StepOutcome::Refused && self.memory.bootstrapping.is_some() =>
            {
                // Another member makes, or made, the cluster.
                self.memory.bootstrapping = Some(Some(false));
            }
            Step::ForgetBootstrap if done => self.memory.bootstrapping = None,
            Step::CancelBootstrap => {
                let reason = "failed to bootstrap the cluster; the log above says why".to_owned();
                actions.push(Action::Exit(Exit { code: 1, reason }));
            }
            Step::SetSynchronousStandbyNames(value) => {
                // Not done, it may still come into force.
                self.memory.sync.obeyed = done.then(|| value.clone().unwrap_or_default());
                if done {
                    self.memory.sync.managed = value;
                }
            }
            // Not at once again, whatever the reason: other work is waiting.
            Step::ChangeSlots(_) => {
                self.memory.slots.retry_at = (!done).then(|| now + self.global.loop_wait);
                if done && suits_earlier_view(&step) {
                    // The next pass goes on at once, and needs no other view than this one did.
                    self.again = woken;
                    self.next_pass = now;
                }
            }
            Step::WriteHistory(timeline) => {
                self.memory.history_done = done.then_some(timeline);
                self.memory.history_failed_at = (!done).then_some(now);
            }
            Step::ActivateWatchdog { .. } => self.watchdog_activated(&outcome, now),
            Step::Follow(upstream) => match outcome {
                StepOutcome::Done => {
                    self.memory.follow_needs_restart = None;
                    if let Process::Running(identity) = self.server.process {
                        self.memory.following = Some((upstream, identity));
                    }
                }
                StepOutcome::NeedsRestart => self.memory.follow_needs_restart = Some(upstream),
                _ => {}
            },
            _ => {}
        }
    }

    pub(super) fn start_job(&mut self, job: Job, now: Moment, actions: &mut Vec<Action>) {
        let as_primary = matches!(
            job,
            Job::StartPrimary { .. } | Job::Restart { upstream: None, .. }
        );
        if as_primary
            && self.memory.sync.managed.is_none()
            && let Some(cluster) = self.view.as_ref().or(self.last_healthy.as_ref())
            && (self.global.synchronous_mode != SynchronousMode::Off || cluster.sync.is_active())
        {
            // An earlier agent set the names. Files without them let commits through that nobody else has.
            let names = sync::names_by_sync(&self.global, &self.local.name, cluster);
            self.memory.sync.managed = Some(names);
        }
        let memory = &mut self.memory;
        match &job {
            Job::Bootstrap => {
                memory.state = match self.local.custom_bootstrap {
                    true => State::RunningCustomBootstrap,
                    false => State::InitializingNewCluster,
                };
            }
            Job::BootstrapStandbyLeader { .. } => memory.state = State::CreatingReplica,
            Job::CreateReplica { .. } => {
                memory.state = State::CreatingReplica;
                if matches!(
                    memory.operation,
                    Some(PendingOperation::Reinitialize { .. })
                ) {
                    memory.operation = None;
                }
                self.begins_copy();
            }
            Job::Start { .. } | Job::StartPrimary { .. } => {
                memory.state = State::Starting;
                memory.pending_restart = None;
            }
            Job::CopyLogicalSlots { .. } => memory.state = State::Restarting,
            Job::Restart { .. } => {
                memory.state = State::Restarting;
                memory.start_timeout = match memory.operation {
                    Some(PendingOperation::Restart { timeout }) => timeout,
                    _ => None,
                };
                memory.operation = None;
                memory.pending_restart = None;
                memory.follow_needs_restart = None;
            }
            Job::Stop { reason, .. } => {
                memory.state = State::Stopping;
                if let StopReason::Demotion(mode) = *reason {
                    self.begin_demotion(mode);
                }
            }
            Job::Rewind { .. } => memory.state = State::Stopping,
            Job::Promote => self.warn_of_unready_slots(actions),
            Job::PostBootstrap | Job::CrashRecovery | Job::CheckDivergence { .. } => {}
        }
        self.job = Some(JobInFlight {
            job: job.clone(),
            since: now,
            cancelling: false,
            no_backends: false,
            shutdown_lsn: None,
            progress: None,
        });
        actions.push(Action::StartJob(job));
    }

    pub(super) fn job_done(&mut self, report: JobReport, now: Moment, actions: &mut Vec<Action>) {
        let Some(JobInFlight { job, .. }) = self.job.take() else {
            return;
        };
        self.again = true;
        self.job_ended = true;
        if let JobReport::Failed(reason) = &report {
            actions.push(Action::Log(
                LogLevel::Error,
                format!("{} failed: {reason}", job.name()),
            ));
        }
        match job {
            Job::Bootstrap | Job::PostBootstrap => {
                let done = matches!(report, JobReport::Done | JobReport::Started { .. });
                if !done {
                    self.memory.bootstrapping = Some(Some(false));
                    // By how far it came.
                    self.memory.state = match self.memory.state {
                        State::InitializingNewCluster => State::InitdbFailed,
                        State::RunningCustomBootstrap => State::CustomBootstrapFailed,
                        State::Starting | State::StartingAfterCustomBootstrap => State::StartFailed,
                        other => other,
                    };
                } else if job == Job::PostBootstrap {
                    self.memory.bootstrapping = Some(Some(true));
                }
            }
            Job::BootstrapStandbyLeader { .. } => {
                // Its roles and databases are those of the remote cluster: nothing follows the start.
                let copied = matches!(report, JobReport::Started { .. });
                self.memory.bootstrapping = Some(Some(copied));
                self.memory.rewind = RewindState::NotNeeded;
                self.memory.former_primary = false;
            }
            Job::CreateReplica { .. } => {
                self.memory.state = State::Stopped;
                self.memory.rewind = RewindState::Initial;
                self.memory.crash_recovery_tried = false;
                self.memory.start_failed_at = None;
                if report == JobReport::Done {
                    self.memory.copied = true;
                    self.memory.former_primary = false;
                    self.memory.rewind = RewindState::NotNeeded;
                    self.memory.role = Role::Replica;
                } else {
                    self.retry_later(now);
                }
            }
            Job::Start { .. } | Job::StartPrimary { .. } | Job::Restart { .. } => {
                self.started(&job, report, now, actions);
            }
            Job::CopyLogicalSlots { .. } => self.slots_copied(&job, report, now, actions),
            Job::CrashRecovery => self.memory.crash_recovery_tried = true,
            Job::CheckDivergence { .. } => {
                self.memory.former_primary &= report != JobReport::Compared(Some(false));
                self.memory.rewind = match (report, self.memory.rewind) {
                    (JobReport::Compared(Some(true)), _) => RewindState::Needed,
                    (JobReport::Compared(Some(false)), _) if self.is_standby_at_rest() => {
                        RewindState::FitsSoFar
                    }
                    (JobReport::Compared(Some(false)), _) => RewindState::NotNeeded,
                    (
                        _,
                        RewindState::Check {
                            undecided: Some((_, tries)),
                        },
                    ) => RewindState::Check {
                        undecided: Some((now, tries.saturating_add(1))),
                    },
                    _ => RewindState::Check {
                        undecided: Some((now, 1)),
                    },
                };
            }
            Job::Rewind { .. } => {
                self.memory.state = State::Stopped;
                match report {
                    JobReport::Done => {
                        self.memory.rewind = RewindState::Succeeded;
                        self.memory.former_primary = false;
                    }
                    JobReport::RewindLater(reason) => {
                        actions.push(Action::Log(LogLevel::Info, reason));
                        self.retry_later(now);
                    }
                    JobReport::RewindFailed(reason) => {
                        actions.push(Action::Log(
                            LogLevel::Error,
                            format!("pg_rewind failed: {reason}"),
                        ));
                        self.memory.rewind = RewindState::Failed;
                    }
                    _ => self.retry_later(now),
                }
            }
            Job::Promote => match report {
                JobReport::Done => {
                    self.memory.role = Role::Promoted;
                    self.memory.rewind = RewindState::Initial;
                    actions.push(Action::Callback(CallbackEvent::OnRoleChange, Role::Primary));
                }
                JobReport::PrePromoteFailed => self.memory.pre_promote_failed_at = Some(now),
                _ => self.retry_later(now),
            },
            Job::Stop { reason, .. } => {
                self.stopped(reason, report, now, actions);
                self.tell_last_position(&job, actions);
            }
        }
    }

    /// A standby that does not run, by its control file.
    fn is_standby_at_rest(&self) -> bool {
        let control = self.server.control.as_ref();
        !self.server.process.is_alive()
            && control.is_some_and(|control| {
                matches!(
                    control.state,
                    ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery
                )
            })
    }

    pub(super) fn started(
        &mut self,
        job: &Job,
        report: JobReport,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let restart = matches!(job, Job::Restart { .. });
        let was_demoted = self.memory.role == Role::Demoted;
        self.memory.sync_withdrawn_at = None;
        let answer = match report {
            JobReport::Started {
                ready,
                pending_restart,
            } => {
                if pending_restart.is_some() {
                    self.memory.pending_restart = pending_restart;
                }
                self.memory.start_failed_at = None;
                self.memory.state = if ready {
                    State::Running
                } else {
                    State::Starting
                };
                self.memory.demotion = None;
                self.memory.following = None;
                if self.memory.rewind == RewindState::Succeeded {
                    self.memory.rewind = RewindState::Initial;
                }
                match job {
                    Job::StartPrimary { .. } => self.memory.role = Role::Primary,
                    Job::Start {
                        upstream: Upstream::Remote(_),
                    } if self.leads_standby_cluster() => self.memory.role = Role::StandbyLeader,
                    Job::Start { .. } => self.memory.role = Role::Replica,
                    _ => {}
                }
                let event = match job {
                    Job::Restart { .. } => CallbackEvent::OnRestart,
                    _ if was_demoted && self.memory.joined => CallbackEvent::OnRoleChange,
                    _ => CallbackEvent::OnStart,
                };
                if self.memory.joined || event != CallbackEvent::OnStart {
                    self.call_when_ready = Some(event);
                }
                if ready {
                    self.call_waiting(actions);
                }
                if ready {
                    Answer::Done
                } else {
                    Answer::TimedOut
                }
            }
            _ => {
                self.lost_by_a_failed_start(actions);
                self.memory.start_failed_at = Some(now);
                self.memory.state = if restart {
                    State::RestartFailed
                } else {
                    State::StartFailed
                };
                Answer::Failed
            }
        };
        if restart && let Some(id) = self.restart_reply.take() {
            actions.push(Action::Reply { id, answer });
        }
    }

    /// The callback of a start is called once the server accepts connections (`ha.md` §3.2).
    pub(super) fn call_waiting(&mut self, actions: &mut Vec<Action>) {
        if let Some(event) = self.call_when_ready.take() {
            actions.push(Action::Callback(event, self.memory.role.for_callbacks()));
        }
    }

    pub(super) fn stopped(
        &mut self,
        reason: StopReason,
        report: JobReport,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let JobReport::Stopped { shutdown_lsn } = report else {
            self.memory.state = State::StopFailed;
            if let Some(shutdown) = &mut self.memory.shutdown {
                shutdown.stop_failed = reason == StopReason::Shutdown;
            }
            self.retry_later(now);
            return;
        };
        self.memory.state = State::Stopped;
        actions.push(Action::Callback(
            CallbackEvent::OnStop,
            self.memory.role.for_callbacks(),
        ));
        match reason {
            StopReason::Demotion(mode) => {
                self.memory.role = Role::Demoted;
                if let Some(demotion) = &mut self.memory.demotion {
                    demotion.stopped = true;
                    demotion.shutdown_lsn = shutdown_lsn;
                    if !mode.releases() {
                        demotion.released_at = Some(now);
                    }
                }
                if mode == DemotionMode::ImmediateNoLock || mode == DemotionMode::Offline {
                    self.lease = Lease::None;
                    self.leave_failsafe();
                }
            }
            StopReason::Shutdown => {
                if let Some(shutdown) = &mut self.memory.shutdown {
                    shutdown.stopped = Some(shutdown_lsn);
                }
            }
            StopReason::StaleData => {}
        }
    }
}
