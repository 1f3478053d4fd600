//! The loop as a machine without I/O: it owns the rhythm, the heartbeat and its deadlines, the job in flight
//! and what must be looked at again.
//!
//! The caller's duties, in this order:
//!
//! 1. Perform the actions of one [`Machine::step`] in their order, each without waiting for the one before,
//!    except that a write to the store must not overtake an earlier one of the same step.
//! 2. Report what came of each through an [`Event`]. Every action that has an answer must get one, by its
//!    deadline, also when the answer is that nobody knows.
//! 3. Call `step` with [`Event::Tick`] at the latest at [`Machine::wake_at`].
//!
//! The lease is kept apart from the passes: it is renewed by the clock, whatever a pass waits for. When its
//! deadline comes near without a renewal, [`Action::KillNow`] is emitted, whatever else is going on.

mod action;
mod event;
mod failsafe;
mod happenings;
mod journal;
mod lease;
mod operator;
mod outcome;
mod schedule;
mod sight;
mod slots;
mod standby_cluster;
mod watchdog;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use primacy_config::{GlobalConfig, SynchronousMode, TimingLimits};
use primacy_model::{
    Cluster, JournalKind, MemberData, Observation, Process, State, Status, Tags, Version,
};

use crate::decide::slots::{SlotChange, published};
use crate::decide::{decide, failsafe as failsafe_rules, slots as slot_rules};
use crate::decision::{Job, Step};
use crate::member;
use crate::situation::{
    FenceState, JobInFlight, Lease, Local, Memory, Peers, Shutdown, Situation, StoreView,
};
use crate::time::Moment;

pub use action::{Action, Answer, CallbackEvent, FenceOrder, LogLevel};
pub use event::{
    Event, JobProgress, JobReport, OperatorRequest, PrimarySlots, RenewalResult, StepOutcome,
    StoreKey,
};
pub use journal::JournalEntry;

/// Members have two seconds to answer. A view of the cluster that is older than this when they have is read again.
const RACE_VIEW_LIMIT: Duration = Duration::from_secs(4);

/// After a step that could not be performed.
const RETRY: Duration = Duration::from_secs(1);
/// Between two tries to renew a lease.
const RENEWAL_RETRY: Duration = Duration::from_millis(500);
/// So long before the lease's deadline a server that may still accept writes is killed: SIGKILL of its
/// processes takes milliseconds, the rest is for a scheduler under load.
const FENCE_MARGIN: Duration = Duration::from_millis(500);
/// So many steps in one row are more than any situation needs: something does not come to rest.
const STEPS_IN_A_ROW_MAX: u32 = 60;

/// Where a pass is.
#[derive(Clone, Debug, PartialEq)]
enum Pass {
    /// Between passes.
    Idle,
    /// Waiting for the cluster and the server.
    Gathering { cluster: bool, server: bool },
    /// Waiting for the members.
    Asking,
    /// Waiting for a step.
    Acting(Step),
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    local: Local,
    global: GlobalConfig,
    limits: TimingLimits,
    memory: Memory,
    lease: Lease,
    renewing: bool,
    /// The time to live that the request under way asked for; the configuration may change meanwhile.
    requested_ttl: Duration,
    next_renewal: Moment,
    asking: failsafe::Asking,
    /// The lock was taken again then, after it had lapsed while the members kept their promises.
    regained_at: Option<Moment>,
    /// This member asked for the lock, and no view since then has told what came of it.
    acquisition_in_doubt: bool,
    /// What the fence was told; `None`: nothing yet, so that it may hold the deadline of an agent before this one.
    fence: Option<FenceOrder>,
    /// The end of the lease that the watchdog was last pinged for.
    watched_until: Option<Moment>,
    view: Option<Cluster>,
    view_at: Moment,
    config_version: Option<Version>,
    last_healthy: Option<Cluster>,
    server: Observation,
    observed_at: Moment,
    job: Option<JobInFlight>,
    pass: Pass,
    /// The view was asked for, and there is no answer yet. A pass that ends before leaves it to the next: of two reads
    /// nobody could tell which is answered, nor from when a view is.
    reading: bool,
    /// When the view of the pass under way was asked for.
    gathering_since: Moment,
    /// The leader key changed since then.
    leader_changed: bool,
    /// When the pass under way asked for a look at the server. One that began earlier is none of it.
    looking_since: Moment,
    /// A job ended since then: what that pass sees of the server may be from before.
    job_ended: bool,
    /// The view of the pass under way is an earlier one that is said to hold: enough to find that there is nothing to
    /// do, and nothing is done on it.
    view_is_earlier: bool,
    /// When the step under way was handed out.
    acting_since: Moment,
    /// A loop began, and what it came to was not logged yet: one line per loop, whatever steps it takes.
    line_due: bool,
    peers: Option<Peers>,
    /// Something happened that this pass may not have seen.
    again: bool,
    next_pass: Moment,
    next_regular_pass: Moment,
    steps_in_a_row: u32,
    /// The leader and its timeline that the local WAL was last found fit for.
    compared_with: Option<sight::LeaderKey>,
    /// When that was, or when it last streamed from there.
    compared_at: Option<Moment>,
    published: Option<MemberData>,
    published_at: Moment,
    status: Option<Status>,
    outcome: String,
    /// The last pass without a step that was logged.
    logged: String,
    /// What else the log has of the last pass.
    said: Vec<(LogLevel, String)>,
    rations: journal::Rations,
    seen: happenings::Seen,
    restart_reply: Option<u64>,
    /// A server was started and was not ready then.
    call_when_ready: Option<CallbackEvent>,
    was_paused: bool,
    /// What is wrong with the names of slots, as last told.
    slot_problems: Vec<String>,
}

impl Machine {
    /// A machine that knows nothing yet.
    pub fn new(local: Local, global: GlobalConfig, limits: TimingLimits, now: Moment) -> Self {
        Machine {
            local,
            global,
            limits,
            memory: Memory {
                began: now,
                ..Memory::default()
            },
            lease: Lease::None,
            renewing: false,
            requested_ttl: Duration::ZERO,
            next_renewal: now,
            asking: failsafe::Asking::default(),
            regained_at: None,
            acquisition_in_doubt: false,
            fence: None,
            watched_until: None,
            view: None,
            view_at: now,
            config_version: None,
            last_healthy: None,
            server: Observation::default(),
            observed_at: now,
            job: None,
            pass: Pass::Idle,
            reading: false,
            gathering_since: now,
            leader_changed: false,
            looking_since: now,
            job_ended: false,
            view_is_earlier: false,
            acting_since: now,
            line_due: false,
            peers: None,
            again: true,
            next_pass: now,
            next_regular_pass: now,
            steps_in_a_row: 0,
            compared_with: None,
            compared_at: None,
            published: None,
            published_at: now,
            status: None,
            outcome: String::new(),
            logged: String::new(),
            said: Vec::new(),
            rations: journal::Rations::default(),
            seen: happenings::Seen::default(),
            restart_reply: None,
            call_when_ready: None,
            was_paused: false,
            slot_problems: Vec::new(),
        }
    }

    /// Takes an event, returns what to do. Never blocks, never fails.
    pub fn step(&mut self, event: Event, now: Moment, wall: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        self.take(event, now, wall, &mut actions);
        self.keep_lease(now, wall, &mut actions);
        self.tell_changes(now, wall, &mut actions);
        self.set_fence(now, &mut actions);
        self.keep_watchdog(now, &mut actions);
        if self.pass == Pass::Idle && (self.again || now >= self.next_pass) {
            self.begin_pass(now, &mut actions);
        }
        actions
    }

    /// When [`Event::Tick`] is due at the latest. `None`: nothing is due before the next event, since a pass waits
    /// for an answer, and every answer comes by its deadline.
    pub fn wake_at(&self) -> Option<Moment> {
        let pass = (self.pass == Pass::Idle).then_some(self.next_pass);
        let lease = match self.lease {
            Lease::Held { until, .. } if self.renewing => Some(until - FENCE_MARGIN),
            Lease::Held { until, .. } => Some(self.next_renewal.min(until - FENCE_MARGIN)),
            Lease::None => None,
        };
        let due = pass.into_iter().chain(lease);
        due.chain(self.failsafe_due()).min()
    }

    /// The cluster-wide configuration in force.
    pub fn global(&self) -> &GlobalConfig {
        &self.global
    }

    /// What the machine remembers.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The tags that are published.
    pub fn effective_tags(&self) -> Tags {
        member::tags(&self.local, &self.memory)
    }

    /// What it knows of its leadership.
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// The last view of the cluster, and when it was read. `None` after a read that failed.
    pub fn view(&self) -> Option<(&Cluster, Moment)> {
        self.view.as_ref().map(|view| (view, self.view_at))
    }

    /// The last look at the server, and when it was taken.
    pub fn server(&self) -> (&Observation, Moment) {
        (&self.server, self.observed_at)
    }

    /// The job in flight.
    pub fn job(&self) -> Option<&JobInFlight> {
        self.job.as_ref()
    }

    /// When the next regular pass is due.
    pub fn next_regular_pass(&self) -> Moment {
        self.next_regular_pass
    }

    /// What the last pass came to.
    pub fn outcome(&self) -> &str {
        &self.outcome
    }

    fn take(&mut self, event: Event, now: Moment, wall: Timestamp, actions: &mut Vec<Action>) {
        match event {
            Event::Tick => {}
            Event::ClusterRead(result) => {
                self.reading = false;
                self.view_is_earlier = false;
                self.cluster_read(result, now, actions);
            }
            Event::ClusterFollowed(cluster) => {
                if cluster.leader.is_some() {
                    self.last_healthy = Some(cluster.clone());
                }
                self.view = Some(cluster);
                self.has_view(now);
            }
            Event::ClusterUnchanged => self.has_view(now),
            Event::Observed { sent, .. } if sent < self.looking_since => {}
            Event::Observed { observation, .. } => {
                // Begun before a job ended, it would say that what the job did was undone.
                if !self.job_ended {
                    self.absorb(observation, now);
                    if self.server.wal.is_some() && self.job.is_none() {
                        self.call_waiting(actions);
                    }
                }
                if let Pass::Gathering { server, .. } = &mut self.pass {
                    *server = true;
                }
            }
            Event::PeersAnswered(peers) => {
                let stale = now.since(self.view_at) > RACE_VIEW_LIMIT;
                if self.pass == Pass::Asking && (self.leader_changed || stale || self.job_ended) {
                    // Somebody led meanwhile, or may have while this machine was suspended: neither the view nor the
                    // answers tell how far the WAL got. Or the server is not what it was.
                    self.begin_anew();
                } else if self.pass == Pass::Asking {
                    self.peers = Some(peers);
                    self.decide(now, wall, actions);
                }
            }
            Event::Renewed { sent, result } => self.renewed(sent, result, now, wall, actions),
            Event::FailsafeAnswered { sent, answers } => {
                self.members_answered(sent, &answers, now, wall, actions);
            }
            Event::FailsafeAsked { id, leader } => {
                self.asked_for_promise(id, leader, now, wall, actions);
            }
            Event::StepDone(outcome) => {
                if let Pass::Acting(step) = std::mem::replace(&mut self.pass, Pass::Idle) {
                    self.tell_step(&step, &outcome, now, wall, actions);
                    self.step_done(step, outcome, now, actions);
                }
            }
            Event::CheckpointDone(result) => {
                self.memory.checkpoint_running = false;
                match result {
                    Ok(()) => {
                        self.memory.checkpoint_done =
                            self.server.wal.as_ref().and_then(|wal| wal.timeline);
                        self.again = true;
                    }
                    Err(reason) => actions.push(Action::Log(
                        LogLevel::Warning,
                        format!("CHECKPOINT after the promotion failed: {reason}"),
                    )),
                }
            }
            Event::LogicalSlotsChanged {
                database,
                failed,
                stuck,
            } => self.logical_slots_changed(database, failed, stuck, now, actions),
            Event::LogicalSlotsCompared(result) => self.logical_slots_compared(result, actions),
            Event::JobProgress(progress) => {
                if let Some(job) = &mut self.job {
                    match progress {
                        JobProgress::Spawned(identity) => {
                            if job.job == Job::Bootstrap {
                                self.memory.state = match self.memory.state {
                                    State::RunningCustomBootstrap => {
                                        State::StartingAfterCustomBootstrap
                                    }
                                    _ => State::Starting,
                                };
                            }
                            self.saw_process(Process::Running(identity));
                            self.again = true;
                            if self.restarts_primary() && !self.may_start_primary(now) {
                                actions.push(Action::KillNow);
                            }
                        }
                        JobProgress::ShutdownCheckpoint(lsn) => {
                            job.shutdown_lsn = Some(lsn);
                            self.again = true;
                        }
                        JobProgress::NoBackends => job.no_backends = true,
                        JobProgress::Text(text) => job.progress = Some(text),
                    }
                }
            }
            Event::JobDone(report) => {
                self.tell_job(&report, now, wall, actions);
                let unentitled = self.restarts_primary() && !self.may_start_primary(now);
                self.job_done(report, now, actions);
                if unentitled && self.server.process.is_alive() {
                    actions.push(Action::KillNow);
                }
            }
            Event::PostmasterChanged => self.again = true,
            Event::Fence(state) => {
                let text = match state {
                    FenceState::Fired => Some("the fence killed PostgreSQL: the lease had ended"),
                    FenceState::Failed => Some("the fence cannot be started, or told the deadline"),
                    FenceState::Armed | FenceState::Disarmed => None,
                };
                if let Some(text) = text {
                    self.tell(JournalKind::Event, text.into(), now, wall, actions);
                }
                self.memory.fence = state;
                self.again = true;
            }
            Event::StoreChanged(key) => {
                self.leader_changed |= matches!(key, StoreKey::Leader(_));
                self.again |= self.concerns_me(&key);
            }
            Event::Configured(local) => {
                self.local = *local;
                self.memory.following = None;
                self.again = true;
            }
            Event::PendingRestart(pending) => self.memory.pending_restart = pending,
            Event::Operator(request) => {
                self.tell_request(&request, now, wall, actions);
                self.operator(request, actions);
            }
            Event::Terminate => {
                let text = "the agent is told to end".to_owned();
                self.tell(JournalKind::Event, text, now, wall, actions);
                self.memory.shutdown.get_or_insert(Shutdown {
                    since: now,
                    stopped: None,
                    stop_failed: false,
                    leave_server: None,
                });
                self.again = true;
            }
        }
        if self.pass
            == (Pass::Gathering {
                cluster: true,
                server: true,
            })
        {
            // What is seen may be from before what was done.
            match self.job_ended || self.acting_since > self.gathering_since {
                true => self.begin_anew(),
                false => self.decide(now, wall, actions),
            }
        }
    }

    /// What the pass under way saw is not what there is.
    fn begin_anew(&mut self) {
        self.pass = Pass::Idle;
        self.again = true;
    }

    fn begin_pass(&mut self, now: Moment, actions: &mut Vec<Action>) {
        self.peers = None;
        if now >= self.next_regular_pass {
            self.line_due = true;
            self.next_regular_pass = now + self.global.loop_wait;
            self.steps_in_a_row = 0;
        }
        self.next_pass = self.next_regular_pass;
        self.pass = Pass::Gathering {
            cluster: false,
            server: false,
        };
        if self.reading {
            // Where that may say that the last view holds, what happened since then asks for more.
            self.again &= self.view_is_earlier;
        } else {
            self.ask_for_view(now, actions);
            self.again = false;
        }
        self.looking_since = now;
        self.job_ended = false;
        actions.push(Action::Observe {
            sent: now,
            deadline: now + self.observation_budget(),
            slots: true,
        });
    }

    fn ask_for_view(&mut self, now: Moment, actions: &mut Vec<Action>) {
        self.reading = true;
        self.view_is_earlier = !self.again && self.view.is_some() && !self.acquisition_in_doubt;
        self.gathering_since = now;
        self.leader_changed = false;
        let patience = match self.lease {
            // What is left of the lease is for acting on the store's silence as well.
            Lease::Held {
                until,
                failing_since: Some(_),
            } => self.global.retry_timeout.min(until.since(now) / 2),
            _ => self.global.retry_timeout,
        };
        actions.push(Action::ReadCluster {
            deadline: now + patience,
            followed_within: self
                .view_is_earlier
                .then_some(self.global.loop_wait + RENEWAL_RETRY),
        });
    }

    fn observation_budget(&self) -> Duration {
        (self.global.retry_timeout / 2).clamp(Duration::from_secs(1), Duration::from_secs(5))
    }

    fn has_view(&mut self, now: Moment) {
        self.reading = false;
        self.view_at = now;
        if let Pass::Gathering { cluster, .. } = &mut self.pass {
            *cluster = true;
        }
    }

    fn cluster_read(
        &mut self,
        result: Result<Cluster, String>,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        match result {
            Ok(cluster) => {
                self.memory.store_seen = true;
                if cluster.leader.is_some() || self.last_healthy.is_none() {
                    self.last_healthy = Some(cluster.clone());
                }
                // In failsafe mode the lock may lapse; the heartbeat takes it again.
                let kept = cluster.is_unlocked()
                    && (self.failsafe_holds(now)
                        || self
                            .regained_at
                            .is_some_and(|at| at >= self.gathering_since));
                if !cluster.is_led_by(&self.local.name) && !kept {
                    self.lease = Lease::None;
                }
                self.acquisition_in_doubt = false;
                self.saw_failsafe_map(&cluster, now);
                self.take_configuration(&cluster, now, actions);
                self.view = Some(cluster);
                self.view_at = now;
            }
            Err(reason) => {
                actions.push(Action::Log(LogLevel::Warning, reason));
                self.view = None;
            }
        }
        if let Pass::Gathering { cluster, .. } = &mut self.pass {
            *cluster = true;
        }
    }

    fn take_configuration(&mut self, cluster: &Cluster, now: Moment, actions: &mut Vec<Action>) {
        let Some(config) = cluster
            .config
            .as_ref()
            .filter(|config| !config.value.is_empty())
        else {
            return;
        };
        if self.config_version == Some(config.version) {
            return;
        }
        self.config_version = Some(config.version);
        let (global, warnings) = self.global.followed_by(&config.value, self.limits);
        for warning in warnings {
            actions.push(Action::Log(LogLevel::Warning, warning.to_string()));
        }
        if self.global.standby_cluster != global.standby_cluster {
            self.memory.following = None;
        }
        if self.global.failsafe_mode != global.failsafe_mode {
            self.memory.failsafe.off_since = (!global.failsafe_mode).then_some(now);
        }
        self.global = global;
        actions.push(Action::ApplyDynamic(config.value.clone()));
    }

    fn decide(&mut self, now: Moment, wall: Timestamp, actions: &mut Vec<Action>) {
        self.tell_changes(now, wall, actions);
        let compared_at = self.compared_at;
        let before = self
            .view_is_earlier
            .then(|| (self.memory.clone(), self.compared_with.clone()));
        self.look_for_triggers(now);
        self.name_standby_leader(actions);
        self.compare_with_remote(now);
        self.remember_wal(actions);
        let promise = self.memory.failsafe.promise.as_ref();
        let promised = self
            .view
            .as_ref()
            .and_then(|view| failsafe_rules::with_promised_leader(view, promise, now));
        if let Some(view) = promised.as_ref().or(self.view.as_ref()) {
            let since = &mut self.memory.unlocked_since;
            *since = view.is_unlocked().then(|| since.unwrap_or(now));
        }
        let situation = self.situation(promised.as_ref(), now, wall);
        let decision = decide(&situation);
        if let Some((memory, compared_with)) = before
            && (!suits_earlier_view(&decision.step)
                || memory != self.memory
                || compared_with != self.compared_with)
        {
            // Nothing is remembered on it, either.
            self.memory = memory;
            self.compared_with = compared_with;
            self.compared_at = compared_at;
            self.begin_anew();
            return;
        }
        let asked = now.since(self.gathering_since);
        if matches!(decision.step, Step::AcquireLeader { .. } | Step::AdoptLease)
            && asked > self.global.retry_timeout + RACE_VIEW_LIMIT
        {
            // Only an agent that was frozen, or suspended, reads for so long: others may have led since.
            self.begin_anew();
            return;
        }
        let feedback = self
            .view
            .as_ref()
            .map(|view| slot_rules::hot_standby_feedback(&situation, view));
        self.force_feedback(feedback, actions);
        self.journal(&decision, now, wall, actions);
        self.perform(decision.step, now, wall, actions);
    }

    /// The picture to decide by; `view` takes the place of what the store said.
    fn situation<'a>(
        &'a self,
        view: Option<&'a Cluster>,
        now: Moment,
        wall: Timestamp,
    ) -> Situation<'a> {
        Situation {
            now,
            wall,
            local: &self.local,
            global: &self.global,
            store: match view.or(self.view.as_ref()) {
                Some(view) => StoreView::Seen(view),
                None => StoreView::Unreachable,
            },
            last_healthy: self.last_healthy.as_ref(),
            lease: self.lease,
            server: &self.server,
            memory: &self.memory,
            job: self.job.as_ref(),
            peers: self.peers.as_ref(),
        }
    }

    fn perform(&mut self, step: Step, now: Moment, wall: Timestamp, actions: &mut Vec<Action>) {
        match step {
            Step::Wait => self.end_pass(now, wall, actions),
            Step::WaitUntil(at) => {
                self.next_pass = self.next_pass.min(at);
                self.end_pass(now, wall, actions);
            }
            Step::AskPeers(members) => {
                self.pass = Pass::Asking;
                actions.push(Action::AskPeers { members });
            }
            Step::AdoptLease => {
                self.pass = Pass::Acting(Step::AdoptLease);
                self.renewing = true;
                self.requested_ttl = self.global.ttl;
                actions.push(Action::Renew {
                    adopting: true,
                    sent: now,
                    deadline: now + self.global.retry_timeout,
                });
            }
            Step::StartJob(job) => {
                self.start_job(job, now, actions);
                self.end_pass(now, wall, actions);
            }
            Step::CancelJob => {
                if let Some(job) = &mut self.job {
                    job.cancelling = true;
                    actions.push(Action::CancelJob);
                }
                self.end_pass(now, wall, actions);
            }
            Step::Checkpoint => {
                self.memory.checkpoint_running = true;
                actions.push(Action::Perform {
                    step,
                    deadline: now + Duration::from_secs(3600),
                });
                self.pass = Pass::Idle;
                self.again = true;
            }
            Step::ChangeLogicalSlots { .. } | Step::CompareLogicalSlots { .. } => {
                self.begin_slot_work(&step, now);
                actions.push(Action::Perform {
                    step,
                    deadline: now + self.observation_budget(),
                });
                self.pass = Pass::Idle;
                self.again = true;
            }
            Step::WithdrawFromSync => {
                self.memory.sync_withdrawn_at = Some(now);
                self.again = true;
                self.end_pass(now, wall, actions);
            }
            Step::Exit(exit) => {
                self.publish_member(now, actions);
                self.pass = Pass::Acting(Step::Exit(exit.clone()));
                actions.push(Action::Exit(exit));
            }
            step => {
                self.steps_in_a_row += 1;
                if self.steps_in_a_row > STEPS_IN_A_ROW_MAX {
                    actions.push(Action::Log(
                        LogLevel::Warning,
                        format!(
                            "{} steps in a row without coming to rest",
                            self.steps_in_a_row
                        ),
                    ));
                    self.retry_later(now);
                    self.pass = Pass::Idle;
                    return;
                }
                if matches!(step, Step::ReleaseLeader { .. }) {
                    self.lease = Lease::None;
                }
                if matches!(step, Step::CancelBootstrap) {
                    self.memory.bootstrapping = Some(Some(false));
                }
                let budget = match step {
                    Step::SetSynchronousStandbyNames(_)
                    | Step::ChangeSlots(_)
                    | Step::Follow(_) => self.observation_budget(),
                    Step::CancelBootstrap | Step::AbandonBootstrap => self.global.retry_timeout * 2,
                    _ => self.global.retry_timeout,
                };
                self.pass = Pass::Acting(step.clone());
                self.acting_since = now;
                if matches!(self.pass, Pass::Acting(Step::AcquireLeader { .. })) {
                    self.requested_ttl = self.global.ttl;
                    let sync = self.view.as_ref().map(|view| &view.sync);
                    let wanted = self.global.synchronous_mode != SynchronousMode::Off;
                    self.memory.raced_for_sync =
                        sync.filter(|_| wanted).and_then(|sync| sync.version);
                }
                actions.push(Action::Perform {
                    step,
                    deadline: now + budget,
                });
            }
        }
    }

    fn end_pass(&mut self, now: Moment, wall: Timestamp, actions: &mut Vec<Action>) {
        self.pass = Pass::Idle;
        if let Some(at) = self
            .view
            .as_ref()
            .and_then(|view| self.next_schedule(view, now, wall))
        {
            self.next_pass = self.next_pass.min(at);
        }
        let healthy = self.server.wal.is_some() && self.view.is_some() && self.job.is_none();
        if healthy && !self.memory.joined && self.memory.bootstrapping.is_none() {
            self.memory.joined = true;
            actions.push(Action::Callback(
                CallbackEvent::OnStart,
                self.memory.role.for_callbacks(),
            ));
        }
        if let Some(promise) = &self.memory.failsafe.promise
            && now < promise.until
        {
            self.next_pass = self.next_pass.min(promise.until);
        }
        self.due_restart(now, wall, actions);
        self.write_status(now, actions);
        if self.view.is_some() {
            self.publish_member(now, actions);
        }
    }

    fn write_status(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let (Some(view), Some(wal)) = (&self.view, &self.server.wal) else {
            return;
        };
        let confirmed = matches!(
            self.lease,
            Lease::Held {
                failing_since: None,
                ..
            }
        );
        let leads = wal.is_primary() || self.global.standby_cluster.is_some();
        if !confirmed || !view.is_led_by(&self.local.name) || !leads {
            return;
        }
        let status = published(
            &self.local,
            wal,
            view,
            &self.global,
            &mut self.memory.slots.seen,
            now,
        );
        if self.status.as_ref() != Some(&status) || view.status != status {
            self.status = Some(status.clone());
            actions.push(Action::WriteStatus(status));
        }
        let map = match self.global.failsafe_mode {
            true => self.failsafe_members(view),
            // Who is not in it cannot know that this leader knows.
            false => BTreeMap::new(),
        };
        if map != view.failsafe {
            self.writes_failsafe_map(&map, now);
            actions.push(Action::WriteFailsafe(map));
        }
    }

    /// At the end of every regular pass, and at once when something that others act on has changed.
    fn publish_member(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let data = member::data(
            &self.local,
            &self.global,
            &self.memory,
            &self.server,
            self.job.as_ref(),
        );
        let missing = self
            .view
            .as_ref()
            .is_some_and(|view| view.member(&self.local.name).is_none());
        let due =
            now.since(self.published_at) + Duration::from_millis(200) >= self.global.loop_wait;
        let told = self.published.as_ref().is_some_and(|published| {
            let calm = |data: &MemberData| MemberData {
                xlog_location: None,
                receive_lsn: None,
                replay_lsn: None,
                ..data.clone()
            };
            calm(published) == calm(&data)
        });
        if missing || due || !told {
            self.published = Some(data.clone());
            self.published_at = now;
            actions.push(Action::PublishMember(Box::new(data)));
        }
    }

    fn retry_later(&mut self, now: Moment) {
        let at = now + RETRY.min(self.global.loop_wait);
        self.again = false;
        self.next_pass = if self.next_pass > now {
            self.next_pass.min(at)
        } else {
            at
        };
    }
}

/// What may be decided on a view that was not read for it: nothing, or to move slots forward, to where their holders
/// and the leader said that they are. None of them goes back.
fn suits_earlier_view(step: &Step) -> bool {
    match step {
        Step::Wait | Step::WaitUntil(_) => true,
        Step::ChangeSlots(changes) => changes
            .iter()
            .all(|change| matches!(change, SlotChange::Advance { .. })),
        _ => false,
    }
}
