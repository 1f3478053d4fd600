//! The lease is kept by the clock, beside the passes.

use jiff::Timestamp;
use primacy_model::{DataDirectory, JournalKind, Process, Readiness, Role};

use super::{
    Action, FENCE_MARGIN, FenceOrder, LogLevel, Machine, Pass, RENEWAL_RETRY, RenewalResult,
};
use crate::decision::{DemotionMode, Job, Reason, Step};
use crate::situation::{Demotion, Lease, RewindState};
use crate::time::Moment;

/// The step, in the journal.
const KILL: &str = "kill PostgreSQL";

impl Machine {
    /// Renews by the clock, and fences when the deadline comes near. Safety over availability: a server that
    /// could be killed a moment too early is better than one that acknowledges a commit too late.
    pub(super) fn keep_lease(&mut self, now: Moment, wall: Timestamp, actions: &mut Vec<Action>) {
        self.ask_for_promises(now, wall, actions);
        let Lease::Held { until, .. } = self.lease else {
            self.cancel_unentitled_start(actions);
            return;
        };
        if now + FENCE_MARGIN >= until {
            self.lease = Lease::None;
            self.leave_failsafe();
            self.again = true;
            if self.goes_with_the_lease() {
                let reason = Reason {
                    rule: "design.md idea 4",
                    text: format!("the lease ends at {until:?}, it is {now:?}"),
                };
                let outcome = "the leader lock could not be renewed in time: killed PostgreSQL";
                self.journal_forced(KILL, outcome, reason, wall, actions);
                actions.push(Action::KillNow);
                self.begin_demotion(DemotionMode::Offline);
            }
            self.cancel_unentitled_start(actions);
            return;
        }
        if !self.renewing && now >= self.next_renewal {
            self.renewing = true;
            self.requested_ttl = self.global.ttl;
            self.next_renewal = now + self.global.loop_wait;
            let deadline = (now + self.global.retry_timeout).min(until - FENCE_MARGIN);
            actions.push(Action::Renew {
                adopting: false,
                sent: now,
                deadline,
            });
        }
    }

    pub(super) fn renewed(
        &mut self,
        sent: Moment,
        result: RenewalResult,
        now: Moment,
        wall: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        self.renewing = false;
        let adopting = self.pass == Pass::Acting(Step::AdoptLease);
        if adopting {
            self.pass = Pass::Idle;
            self.again = true;
        }
        match result {
            RenewalResult::Renewed => {
                if adopting {
                    self.memory.sync.doubtful = true;
                }
                // A lease that was given up, or that ended, is not brought back by a late answer.
                if adopting || self.lease != Lease::None {
                    if self.failsafe_holds(now) {
                        self.regained_at = Some(now);
                        self.again = true;
                    }
                    self.leave_failsafe();
                    self.lease = Lease::Held {
                        until: sent + self.requested_ttl,
                        failing_since: None,
                    };
                    self.next_renewal = sent + self.global.loop_wait;
                }
            }
            RenewalResult::Lapsed if self.survives_lapse(now) => {}
            RenewalResult::Lapsed => {
                self.lease = Lease::None;
                self.leave_failsafe();
                self.again = true;
                actions.push(Action::Log(
                    LogLevel::Error,
                    "failed to update leader lock".into(),
                ));
                if self.goes_with_the_lease() {
                    // Somebody else may lead from now on.
                    let reason = Reason {
                        rule: "ha.md §5.3",
                        text: "the store says that the leader key is not mine any more".into(),
                    };
                    let outcome = "the leader lock is lost: killed PostgreSQL";
                    self.journal_forced(KILL, outcome, reason, wall, actions);
                    actions.push(Action::KillNow);
                    self.begin_demotion(DemotionMode::ImmediateNoLock);
                }
            }
            RenewalResult::Failed(_) if self.failsafe_holds(now) => {
                // The first failures were told. It is no hurry: the members' promises are renewed meanwhile.
                self.forget_lapse();
                self.next_renewal = now + self.global.loop_wait;
            }
            RenewalResult::Failed(reason) => {
                let text = format!("the leader lock could not be renewed: {reason}");
                self.tell(JournalKind::Event, text.clone(), now, wall, actions);
                actions.push(Action::Log(LogLevel::Warning, text));
                if adopting {
                    self.retry_later(now);
                }
                self.next_renewal = now + RENEWAL_RETRY;
                if let Lease::Held { failing_since, .. } = &mut self.lease {
                    let since = *failing_since.get_or_insert(sent);
                    self.again |= now.since(since) >= self.global.retry_timeout;
                }
            }
        }
    }

    /// The fence follows the lease. Once the lease is gone the last deadline stands until the server is seen to
    /// accept no writes: an agent that cannot stop it must not take the fence away either.
    pub(super) fn set_fence(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let wanted = match self.lease {
            // What an agent before this one told is not undone by a pause that the store may not know any more.
            _ if self.global.pause && !self.is_being_promoted() => {
                (self.memory.store_seen || self.fence.is_some()).then_some(FenceOrder::Disarm)
            }
            // A primary that is being started is under the fence from its first moment, whatever becomes of the agent.
            _ if !self.server.process.is_alive() && !self.restarts_primary() => {
                self.fence.map(|_| FenceOrder::Disarm)
            }
            Lease::Held { until, .. } => Some(FenceOrder::Until(until)),
            Lease::None if self.is_primary_without_fence() => {
                Some(FenceOrder::AtMost(now + self.global.ttl))
            }
            Lease::None if self.may_accept_writes() => self.fence,
            Lease::None => self.fence.map(|_| FenceOrder::Disarm),
        };
        if let Some(order) = wanted.filter(|_| wanted != self.fence) {
            self.fence = wanted;
            actions.push(Action::SetFence(order));
        }
    }

    /// A primary was found that this agent has no lease for: it ran on under an agent before this one, perhaps through a
    /// pause, or somebody promoted it by hand. Should this agent be frozen before it has the lease or has stopped the
    /// server, nobody else would. A cluster's first server needs no lock before it is ready.
    fn is_primary_without_fence(&self) -> bool {
        let told = matches!(
            self.fence,
            Some(FenceOrder::Until(_) | FenceOrder::AtMost(_))
        );
        let first = self.memory.bootstrapping.is_some()
            || self.server.unfinished_bootstrap
            || matches!(
                self.job.as_ref().map(|job| &job.job),
                Some(Job::Bootstrap | Job::PostBootstrap)
            );
        // One that says nothing is none only if its files say so.
        let primary = match &self.server.wal {
            Some(wal) => wal.is_primary() || self.server.promoting,
            None => {
                !self.server.recovery_signal
                    && self.server.data_directory == DataDirectory::Valid
                    && matches!(self.server.process, Process::Running(_))
            }
        };
        primary && !told && !first
    }

    /// Unknown is not no: a server that does not answer was started as a primary or promoted, perhaps under an agent before
    /// this one, or was asked to promote and will, once it goes on. Only a standby that says that it is starting is none.
    pub(super) fn may_accept_writes(&self) -> bool {
        let starting_standby =
            self.server.recovery_signal && self.server.readiness == Readiness::Rejecting;
        let untold = self.server.wal.is_none()
            && self.server.data_directory == DataDirectory::Valid
            && !starting_standby;
        self.server.process.is_alive()
            && (untold
                || self.memory.role.accepts_writes()
                || self.server.wal.as_ref().is_some_and(|wal| wal.is_primary())
                || self.is_being_promoted())
    }

    /// A standby that was asked to promote, or is about to be, and has not come to the end of it.
    fn is_being_promoted(&self) -> bool {
        let asked = self.memory.role == Role::Promoted
            || self.server.promoting
            || matches!(self.job.as_ref().map(|job| &job.job), Some(Job::Promote));
        let done = self.server.wal.as_ref().is_some_and(|wal| wal.is_primary());
        asked && !done
    }

    /// In pause a primary runs on without the lock, but none comes to be without it: a promotion may take minutes, and
    /// somebody else lead by then.
    fn goes_with_the_lease(&self) -> bool {
        self.may_accept_writes() && (!self.global.pause || self.is_being_promoted())
    }

    /// The primary is down for a moment, by this agent's hand.
    pub(super) fn restarts_primary(&self) -> bool {
        matches!(
            self.job.as_ref().map(|job| &job.job),
            Some(Job::StartPrimary { .. } | Job::Restart { upstream: None, .. })
        )
    }

    /// A server may be started as a primary only under the lease, or in pause.
    pub(super) fn may_start_primary(&self, now: Moment) -> bool {
        self.global.pause || self.lease.is_held(now)
    }

    /// The lease ended while a primary was being started: there is nothing to kill yet, perhaps, and there must be
    /// nothing to accept writes later. What is spawned all the same is killed when it is told of.
    fn cancel_unentitled_start(&mut self, actions: &mut Vec<Action>) {
        if self.global.pause || !self.restarts_primary() {
            return;
        }
        let Some(job) = self.job.as_mut().filter(|job| !job.cancelling) else {
            return;
        };
        job.cancelling = true;
        actions.push(Action::Log(
            LogLevel::Error,
            "the leader lock is lost while PostgreSQL is being started as a primary".into(),
        ));
        actions.push(Action::CancelJob);
        if self.server.process.is_alive() {
            actions.push(Action::KillNow);
        }
        self.begin_demotion(DemotionMode::Offline);
    }

    pub(super) fn begin_demotion(&mut self, mode: DemotionMode) {
        if self.memory.bootstrapping.is_some() {
            // Another member may make the cluster meanwhile: this one is given up.
            self.memory.bootstrapping = Some(Some(false));
        }
        self.memory.demotion = Some(Demotion {
            mode,
            stopped: false,
            shutdown_lsn: None,
            released_at: None,
        });
        if self.local_can_repair() && self.memory.rewind != RewindState::Needed {
            self.memory.rewind = RewindState::Check { undecided: None };
        }
    }

    pub(super) fn local_can_repair(&self) -> bool {
        self.local.use_pg_rewind || self.local.remove_on_divergence
    }
}
