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

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use primacy_config::{GlobalConfig, SynchronousMode, TimingLimits};
use primacy_model::{
    Cluster, DataDirectory, Lsn, MemberData, MemberName, Observation, PendingRestart, Process,
    Readiness, Role, ScheduledAt, ScheduledRestart, State, Status, Timeline, Version,
};
use serde_json::{Map, Value};

use crate::decide::{decide, slots, sync};
use crate::decision::{Decision, DemotionMode, Exit, Job, Reason, Step, StopReason};
use crate::member;
use crate::situation::{
    Demotion, JobInFlight, Lease, Local, Memory, Peers, PendingOperation, RewindState, Shutdown,
    Situation, StoreView,
};
use crate::time::Moment;

/// After a step that could not be performed.
const RETRY: Duration = Duration::from_secs(1);
/// Between two tries to renew a lease.
const RENEWAL_RETRY: Duration = Duration::from_millis(500);
/// So long before the lease's deadline a server that may still accept writes is killed: SIGKILL of its
/// processes takes milliseconds, the rest is for a scheduler under load.
const FENCE_MARGIN: Duration = Duration::from_millis(500);
/// So many steps in one row are more than any situation needs: something does not come to rest.
const STEPS_IN_A_ROW_MAX: u32 = 60;

/// What the world reports.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// The cluster was read, or could not be read.
    ClusterRead(Result<Cluster, String>),
    /// The server was looked at.
    Observed(Observation),
    /// The members were asked.
    PeersAnswered(Peers),
    /// The lease was to be renewed.
    Renewed {
        /// When the request was sent.
        sent: Moment,
        /// What came of it.
        result: RenewalResult,
    },
    /// The step was performed.
    StepDone(StepOutcome),
    /// The checkpoint in the background ended.
    CheckpointDone(Result<(), String>),
    /// News from the job.
    JobProgress(JobProgress),
    /// The job ended.
    JobDone(JobReport),
    /// The postmaster died, or somebody started one.
    PostmasterChanged,
    /// A key of the cluster changed.
    StoreChanged(StoreKey),
    /// The local configuration was read again.
    Configured(Box<Local>),
    /// PostgreSQL's parameters were compared after a reload or a start.
    PendingRestart(Option<PendingRestart>),
    /// An operator asks.
    Operator(OperatorRequest),
    /// The process was told to end.
    Terminate,
}

/// What became of a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenewalResult {
    /// The key is mine, for another ttl since the request was sent.
    Renewed,
    /// The key is not mine any more.
    Lapsed,
    /// Nobody knows.
    Failed(String),
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// Done.
    Done,
    /// Refused for good: a condition did not hold.
    Refused,
    /// Following takes a restart.
    NeedsRestart,
    /// It failed, or nobody knows.
    Failed(String),
}

/// News from the job in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobProgress {
    /// The shutdown checkpoint is written, while the postmaster still lives.
    ShutdownCheckpoint(Lsn),
    /// For people: how far it is.
    Text(String),
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq)]
pub enum JobReport {
    /// Well.
    Done,
    /// PostgreSQL was started.
    Started {
        /// It accepts connections.
        ready: bool,
        /// Parameters that had to be raised for it.
        pending_restart: Option<PendingRestart>,
    },
    /// PostgreSQL was stopped.
    Stopped {
        /// Where its WAL ended, if it ended in good order.
        shutdown_lsn: Option<Lsn>,
    },
    /// The local WAL was compared: it left the leader's, or not, or nobody knows.
    Compared(Option<bool>),
    /// pg_rewind could not be run now.
    RewindLater(String),
    /// pg_rewind failed for good.
    RewindFailed(String),
    /// The `pre_promote` hook forbade the promotion.
    PrePromoteFailed,
    /// It failed.
    Failed(String),
    /// It was cancelled.
    Cancelled,
}

/// Which key changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKey {
    /// `/leader`, with its new value.
    Leader(Option<String>),
    /// `/config`.
    Config,
    /// `/failover`.
    Failover,
    /// `/sync`.
    Sync,
    /// `/initialize`.
    Initialize,
    /// `members/<name>`, with its new value.
    Member(String, Option<Box<MemberData>>),
    /// Something may have been missed.
    Unknown,
    /// A key that nobody has to act on.
    Other,
}

/// What an operator asks of this member.
#[derive(Clone, Debug, PartialEq)]
pub enum OperatorRequest {
    /// Look again now.
    WakeUp,
    /// Restart PostgreSQL.
    Restart {
        /// For the answer.
        id: u64,
        /// Only in this role.
        role: Option<String>,
        /// Only below this version, as `server_version_num`.
        below_version: Option<u32>,
        /// Only if a restart is pending.
        pending: bool,
        /// How long the start may take.
        timeout: Option<Duration>,
    },
    /// Copy the data directory anew.
    Reinitialize {
        /// For the answer.
        id: u64,
        /// Cancel what is under way.
        force: bool,
        /// Only from the leader.
        from_leader: bool,
    },
    /// Schedule a restart.
    ScheduleRestart {
        /// For the answer.
        id: u64,
        /// Which.
        restart: ScheduledRestart,
    },
    /// Forget the scheduled restart.
    DeleteScheduledRestart {
        /// For the answer.
        id: u64,
    },
}

/// The answer to an operator's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done, or was begun.
    Done,
    /// The conditions do not hold, or there is nothing to do.
    NotMet,
    /// Another long action is under way.
    Busy(String),
    /// Not done, and why.
    Refused(String),
    /// It was begun and did not come to its end in time.
    TimedOut,
    /// It failed.
    Failed,
}

/// What the shell must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Read the cluster; answer with [`Event::ClusterRead`].
    ReadCluster {
        /// By then.
        deadline: Moment,
    },
    /// Look at the server; answer with [`Event::Observed`].
    Observe {
        /// By then.
        deadline: Moment,
        /// Slots, too.
        slots: bool,
    },
    /// Ask the members; answer with [`Event::PeersAnswered`].
    AskPeers {
        /// Name to API address.
        members: BTreeMap<MemberName, String>,
    },
    /// Renew the lease of the leader key; answer with [`Event::Renewed`].
    Renew {
        /// Handed back in the answer.
        sent: Moment,
        /// By then.
        deadline: Moment,
    },
    /// Perform a step; answer with [`Event::StepDone`], or [`Event::CheckpointDone`] for a checkpoint.
    Perform {
        /// Which.
        step: Step,
        /// By then.
        deadline: Moment,
    },
    /// Begin a job; answer with [`Event::JobProgress`] and once with [`Event::JobDone`].
    StartJob(Job),
    /// Cancel the job; it still answers.
    CancelJob,
    /// SIGKILL PostgreSQL's processes at once. The lease is about to end.
    KillNow,
    /// Have the fence, a process apart, do that at this moment unless told otherwise before; `None` disarms
    /// it.
    SetFence(Option<Moment>),
    /// Publish the member key.
    PublishMember(Box<MemberData>),
    /// Write `/status`, if this member still leads.
    WriteStatus(Status),
    /// Write `/failsafe`, if this member still leads.
    WriteFailsafe(BTreeMap<MemberName, String>),
    /// Take over a new dynamic configuration.
    ApplyDynamic(Map<String, Value>),
    /// Run a callback.
    Callback(CallbackEvent, Role),
    /// Answer an operator.
    Reply {
        /// Which request.
        id: u64,
        /// The answer.
        answer: Answer,
    },
    /// Keep this, and log it.
    Journal(JournalEntry),
    /// Log this.
    Log(LogLevel, String),
    /// End the process.
    Exit(Exit),
}

/// Which callback (`ha.md` §23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackEvent {
    /// The server became ready.
    OnStart,
    /// It was stopped.
    OnStop,
    /// It became ready again.
    OnRestart,
    /// It was promoted or demoted.
    OnRoleChange,
}

/// How loud a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Someone must look.
    Error,
    /// Something degrades.
    Warning,
    /// Role or decision.
    Info,
    /// Details.
    Debug,
}

/// One decision, kept.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalEntry {
    /// When.
    pub at: Timestamp,
    /// The pass in one sentence.
    pub outcome: String,
    /// The step.
    pub step: String,
    /// The rules that led to it.
    pub reasons: Vec<Reason>,
}

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
    /// The deadline that the fence was told.
    fence: Option<Moment>,
    view: Option<Cluster>,
    view_at: Moment,
    config_version: Option<Version>,
    last_healthy: Option<Cluster>,
    server: Observation,
    observed_at: Moment,
    job: Option<JobInFlight>,
    pass: Pass,
    /// When the step under way was handed out.
    acting_since: Moment,
    /// The pass under way is the one of the rhythm, not one that an event asked for.
    regular_pass: bool,
    peers: Option<Peers>,
    /// Something happened that this pass may not have seen.
    again: bool,
    next_pass: Moment,
    next_regular_pass: Moment,
    steps_in_a_row: u32,
    /// The leader and its timeline that the local WAL was last found fit for.
    compared_with: Option<(MemberName, Option<Timeline>)>,
    published: Option<MemberData>,
    published_at: Moment,
    status: Option<Status>,
    outcome: String,
    journaled: String,
    restart_reply: Option<u64>,
    was_paused: bool,
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
            fence: None,
            view: None,
            view_at: now,
            config_version: None,
            last_healthy: None,
            server: Observation::default(),
            observed_at: now,
            job: None,
            pass: Pass::Idle,
            acting_since: now,
            regular_pass: false,
            peers: None,
            again: true,
            next_pass: now,
            next_regular_pass: now,
            steps_in_a_row: 0,
            compared_with: None,
            published: None,
            published_at: now,
            status: None,
            outcome: String::new(),
            journaled: String::new(),
            restart_reply: None,
            was_paused: false,
        }
    }

    /// Takes an event, returns what to do. Never blocks, never fails.
    pub fn step(&mut self, event: Event, now: Moment, wall: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        self.take(event, now, wall, &mut actions);
        self.keep_lease(now, wall, &mut actions);
        self.set_fence(&mut actions);
        if self.pass == Pass::Idle && (self.again || now >= self.next_pass) {
            self.begin_pass(now, &mut actions);
        }
        actions
    }

    /// When [`Event::Tick`] is due at the latest.
    pub fn wake_at(&self) -> Moment {
        let mut at = if self.pass == Pass::Idle {
            self.next_pass
        } else {
            self.next_regular_pass
        };
        if let Lease::Held { until, .. } = self.lease {
            at = at.min(until - FENCE_MARGIN);
            if !self.renewing {
                at = at.min(self.next_renewal);
            }
        }
        at
    }

    /// The cluster-wide configuration in force.
    pub fn global(&self) -> &GlobalConfig {
        &self.global
    }

    /// What the machine remembers.
    pub fn memory(&self) -> &Memory {
        &self.memory
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
            Event::ClusterRead(result) => self.cluster_read(result, now, actions),
            Event::Observed(observation) => {
                self.absorb(observation, now);
                if let Pass::Gathering { server, .. } = &mut self.pass {
                    *server = true;
                }
            }
            Event::PeersAnswered(peers) => {
                if self.pass == Pass::Asking {
                    self.peers = Some(peers);
                    self.decide(now, wall, actions);
                }
            }
            Event::Renewed { sent, result } => self.renewed(sent, result, now, actions),
            Event::StepDone(outcome) => {
                if let Pass::Acting(step) = std::mem::replace(&mut self.pass, Pass::Idle) {
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
            Event::JobProgress(progress) => {
                if let Some(job) = &mut self.job {
                    match progress {
                        JobProgress::ShutdownCheckpoint(lsn) => {
                            job.shutdown_lsn = Some(lsn);
                            self.again = true;
                        }
                        JobProgress::Text(text) => job.progress = Some(text),
                    }
                }
            }
            Event::JobDone(report) => self.job_done(report, now, actions),
            Event::PostmasterChanged => self.again = true,
            Event::StoreChanged(key) => self.again |= self.concerns_me(&key),
            Event::Configured(local) => {
                self.local = *local;
                self.memory.following = None;
                self.again = true;
            }
            Event::PendingRestart(pending) => self.memory.pending_restart = pending,
            Event::Operator(request) => self.operator(request, actions),
            Event::Terminate => {
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
            self.decide(now, wall, actions);
        }
    }

    // ---- the lease -------------------------------------------------------------------------------------

    /// Renews by the clock, and fences when the deadline comes near. Safety over availability: a server that
    /// could be killed a moment too early is better than one that acknowledges a commit too late.
    fn keep_lease(&mut self, now: Moment, wall: Timestamp, actions: &mut Vec<Action>) {
        let Lease::Held { until, .. } = self.lease else {
            return;
        };
        if now + FENCE_MARGIN >= until {
            self.lease = Lease::None;
            self.again = true;
            if self.may_accept_writes() && !self.global.pause {
                let reason = Reason {
                    rule: "design.md idea 4",
                    text: format!("the lease ends at {until:?}, it is {now:?}"),
                };
                actions.push(Action::Journal(JournalEntry {
                    at: wall,
                    outcome: "the leader lock could not be renewed in time: killed PostgreSQL"
                        .into(),
                    step: "KillNow".into(),
                    reasons: vec![reason],
                }));
                actions.push(Action::KillNow);
                self.begin_demotion(DemotionMode::Offline);
            }
            return;
        }
        if !self.renewing && now >= self.next_renewal {
            self.renewing = true;
            self.requested_ttl = self.global.ttl;
            self.next_renewal = now + self.global.loop_wait;
            let deadline = (now + self.global.retry_timeout).min(until - FENCE_MARGIN);
            actions.push(Action::Renew {
                sent: now,
                deadline,
            });
        }
    }

    fn renewed(
        &mut self,
        sent: Moment,
        result: RenewalResult,
        now: Moment,
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
                // A lease that was given up, or that ended, is not brought back by a late answer.
                if adopting || self.lease != Lease::None {
                    self.lease = Lease::Held {
                        until: sent + self.requested_ttl,
                        failing_since: None,
                    };
                    self.next_renewal = sent + self.global.loop_wait;
                }
            }
            RenewalResult::Lapsed => {
                self.lease = Lease::None;
                self.again = true;
                actions.push(Action::Log(
                    LogLevel::Error,
                    "failed to update leader lock".into(),
                ));
                if self.may_accept_writes() && !self.global.pause {
                    // Somebody else may lead from now on.
                    actions.push(Action::KillNow);
                    self.begin_demotion(DemotionMode::ImmediateNoLock);
                }
            }
            RenewalResult::Failed(reason) => {
                actions.push(Action::Log(
                    LogLevel::Warning,
                    format!("the leader lock could not be renewed: {reason}"),
                ));
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
    fn set_fence(&mut self, actions: &mut Vec<Action>) {
        let wanted = match self.lease {
            _ if self.global.pause || !self.server.process.is_alive() => None,
            Lease::Held { until, .. } => Some(until),
            Lease::None if self.may_accept_writes() => self.fence,
            Lease::None => None,
        };
        if wanted != self.fence {
            self.fence = wanted;
            actions.push(Action::SetFence(wanted));
        }
    }

    fn may_accept_writes(&self) -> bool {
        self.server.process.is_alive()
            && (self.memory.role.accepts_writes()
                || self.server.wal.as_ref().is_some_and(|wal| wal.is_primary())
                || matches!(self.job.as_ref().map(|job| &job.job), Some(Job::Promote)))
    }

    fn begin_demotion(&mut self, mode: DemotionMode) {
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

    fn local_can_repair(&self) -> bool {
        self.local.use_pg_rewind || self.local.remove_on_divergence
    }

    // ---- a pass ----------------------------------------------------------------------------------------

    fn begin_pass(&mut self, now: Moment, actions: &mut Vec<Action>) {
        self.again = false;
        self.peers = None;
        self.regular_pass = now >= self.next_regular_pass;
        if self.regular_pass {
            self.next_regular_pass = now + self.global.loop_wait;
            self.steps_in_a_row = 0;
        }
        self.next_pass = self.next_regular_pass;
        self.pass = Pass::Gathering {
            cluster: false,
            server: false,
        };
        actions.push(Action::ReadCluster {
            deadline: now + self.global.retry_timeout,
        });
        actions.push(Action::Observe {
            deadline: now + self.observation_budget(),
            slots: true,
        });
    }

    fn observation_budget(&self) -> Duration {
        (self.global.retry_timeout / 2).clamp(Duration::from_secs(1), Duration::from_secs(5))
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
                if !cluster.is_led_by(&self.local.name) {
                    self.lease = Lease::None;
                }
                self.take_configuration(&cluster, actions);
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

    fn take_configuration(&mut self, cluster: &Cluster, actions: &mut Vec<Action>) {
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
        let (global, warnings) = GlobalConfig::from_dynamic(&config.value, self.limits);
        for warning in warnings {
            actions.push(Action::Log(LogLevel::Warning, warning.to_string()));
        }
        self.global = global;
        actions.push(Action::ApplyDynamic(config.value.clone()));
    }

    fn decide(&mut self, now: Moment, wall: Timestamp, actions: &mut Vec<Action>) {
        self.look_for_triggers();
        let store = match &self.view {
            Some(view) => StoreView::Seen(view),
            None => StoreView::Unreachable,
        };
        let decision = decide(&Situation {
            now,
            wall,
            local: &self.local,
            global: &self.global,
            store,
            last_healthy: self.last_healthy.as_ref(),
            lease: self.lease,
            server: &self.server,
            memory: &self.memory,
            job: self.job.as_ref(),
            peers: self.peers.as_ref(),
        });
        self.journal(&decision, wall, actions);
        self.perform(decision.step, now, wall, actions);
    }

    /// Passes that only repeat the last one are not kept again.
    fn journal(&mut self, decision: &Decision, wall: Timestamp, actions: &mut Vec<Action>) {
        if matches!(decision.step, Step::AskPeers(_)) {
            return;
        }
        if !decision.outcome.is_empty() {
            self.outcome.clone_from(&decision.outcome);
        }
        let resting = matches!(decision.step, Step::Wait | Step::WaitUntil(_));
        if resting && (self.regular_pass || self.outcome != self.journaled) {
            actions.push(Action::Log(LogLevel::Info, self.outcome.clone()));
        }
        if !resting || self.outcome != self.journaled {
            self.journaled.clone_from(&self.outcome);
            actions.push(Action::Journal(JournalEntry {
                at: wall,
                outcome: decision.outcome.clone(),
                step: step_name(&decision.step),
                reasons: decision.reasons.clone(),
            }));
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
                    Step::CancelBootstrap => self.global.retry_timeout * 2,
                    _ => self.global.retry_timeout,
                };
                self.pass = Pass::Acting(step.clone());
                self.acting_since = now;
                if matches!(self.pass, Pass::Acting(Step::AcquireLeader { .. })) {
                    self.requested_ttl = self.global.ttl;
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
            .and_then(|view| next_schedule(view, self, now, wall))
        {
            self.next_pass = self.next_pass.min(at);
        }
        let healthy = self.server.wal.is_some() && self.view.is_some() && self.job.is_none();
        if healthy && !self.memory.joined {
            self.memory.joined = true;
            actions.push(Action::Callback(
                CallbackEvent::OnStart,
                self.memory.role.for_callbacks(),
            ));
        }
        self.due_restart(wall, actions);
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
        if !confirmed || !view.is_led_by(&self.local.name) || !wal.is_primary() {
            return;
        }
        let status = slots::published(
            &self.local,
            wal,
            view,
            &self.global,
            &mut self.memory.slots_seen,
            now,
        );
        if self.status.as_ref() != Some(&status) || view.status != status {
            self.status = Some(status.clone());
            actions.push(Action::WriteStatus(status));
        }
        if self.global.failsafe_mode {
            let mut map: BTreeMap<MemberName, String> = view
                .members
                .iter()
                .filter_map(|member| Some((member.name.clone(), member.data.api_url.clone()?)))
                .collect();
            map.insert(self.local.name.clone(), self.local.api_url.clone());
            if map != view.failsafe {
                actions.push(Action::WriteFailsafe(map));
            }
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

    // ---- what a pass sees ------------------------------------------------------------------------------

    fn absorb(&mut self, observation: Observation, now: Moment) {
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
                (None, Process::Absent) => {
                    if matches!(
                        memory.state,
                        State::Running | State::Starting | State::Restarting
                    ) {
                        memory.state = State::Crashed;
                    }
                }
                (None, _) if starting && memory.state != State::Running => {
                    memory.state = State::Starting;
                }
                _ => {}
            }
            match &observation.wal {
                Some(wal) if wal.is_primary() => memory.role = Role::Primary,
                Some(_) if memory.role != Role::Promoted => memory.role = Role::Replica,
                Some(_) => {}
                None if observation.data_directory == DataDirectory::Empty => {
                    memory.role = Role::Uninitialized;
                }
                None if memory.role == Role::Uninitialized
                    && observation.data_directory == DataDirectory::Valid =>
                {
                    // Found like this: a primary's data unless it says otherwise. It is not a primary now.
                    memory.role = if observation.recovery_signal || observation.process.is_alive() {
                        Role::Replica
                    } else {
                        Role::Demoted
                    };
                }
                None => {}
            }
        }
        memory.starting_since = if starting {
            memory.starting_since.or(Some(now))
        } else {
            None
        };
        if let Some(wal) = &observation.wal {
            let receiver = wal.receiver.as_ref().and_then(|receiver| receiver.timeline);
            memory.last_timeline = wal.timeline.or(receiver).or(memory.last_timeline);
            memory.crash_recovery_tried = false;
            memory.start_failed_at = None;
            if wal.timeline.is_some() && wal.checkpoint_timeline == wal.timeline {
                memory.checkpoint_done = wal.timeline;
            }
            if wal.is_primary() {
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
            sync::observe(&mut memory.sync, wal);
        }
        if observation.process == Process::Absent
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
    fn look_for_triggers(&mut self) {
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
        let (Some(view), Some(wal)) = (&self.view, &self.server.wal) else {
            return;
        };
        let Some(leader) = view.leader_member() else {
            return;
        };
        if wal.is_primary() || leader.name == self.local.name {
            self.compared_with = None;
            return;
        }
        if leader.data.role != Some(Role::Primary) {
            return;
        }
        let key = Some((leader.name.clone(), leader.data.timeline));
        let streams = wal.receiver.as_ref().is_some_and(|receiver| {
            receiver.status == "streaming"
                && receiver.timeline.is_some()
                && receiver.timeline == leader.data.timeline
        });
        if streams {
            self.compared_with = key;
            if matches!(
                self.memory.rewind,
                RewindState::Check { .. } | RewindState::Succeeded
            ) {
                self.memory.rewind = RewindState::NotNeeded;
            }
        } else if self.compared_with != key {
            self.compared_with = key;
            if self.local_can_repair()
                && matches!(
                    self.memory.rewind,
                    RewindState::Initial | RewindState::NotNeeded
                )
            {
                self.memory.rewind = RewindState::Check { undecided: None };
            }
        }
    }

    fn concerns_me(&self, key: &StoreKey) -> bool {
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

    // ---- what came of it -------------------------------------------------------------------------------

    fn step_done(
        &mut self,
        step: Step,
        outcome: StepOutcome,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        self.again = true;
        if let StepOutcome::Failed(reason) = &outcome {
            actions.push(Action::Log(
                LogLevel::Warning,
                format!("{} failed: {reason}", step_name(&step)),
            ));
            self.retry_later(now);
        }
        let done = outcome == StepOutcome::Done;
        match step {
            Step::AcquireLeader { .. } if done => {
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
                self.memory.slots_seen.clear();
                self.status = None;
            }
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
                self.start_job(Job::Bootstrap, now, actions);
            }
            Step::ClaimInitialize if outcome == StepOutcome::Refused => self.retry_later(now),
            Step::CancelBootstrap => {
                let reason = "failed to bootstrap the cluster; the log above says why".to_owned();
                actions.push(Action::Exit(Exit { code: 1, reason }));
            }
            Step::SetSynchronousStandbyNames(value) if done => {
                self.memory.sync.managed = value;
            }
            Step::WriteHistory(timeline) if done => self.memory.history_done = Some(timeline),
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

    fn start_job(&mut self, job: Job, now: Moment, actions: &mut Vec<Action>) {
        let memory = &mut self.memory;
        match &job {
            Job::Bootstrap => memory.state = State::InitializingNewCluster,
            Job::CreateReplica { .. } => {
                memory.state = State::CreatingReplica;
                if matches!(
                    memory.operation,
                    Some(PendingOperation::Reinitialize { .. })
                ) {
                    memory.operation = None;
                }
            }
            Job::Start { .. } | Job::StartPrimary { .. } => {
                memory.state = State::Starting;
                memory.pending_restart = None;
            }
            Job::Restart { .. } => {
                memory.state = State::Restarting;
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
            Job::PostBootstrap
            | Job::CrashRecovery
            | Job::CheckDivergence { .. }
            | Job::Promote => {}
        }
        self.job = Some(JobInFlight {
            job: job.clone(),
            since: now,
            cancelling: false,
            shutdown_lsn: None,
            progress: None,
        });
        actions.push(Action::StartJob(job));
    }

    fn job_done(&mut self, report: JobReport, now: Moment, actions: &mut Vec<Action>) {
        let Some(JobInFlight { job, .. }) = self.job.take() else {
            return;
        };
        self.again = true;
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
                } else if job == Job::PostBootstrap {
                    self.memory.bootstrapping = Some(Some(true));
                }
            }
            Job::CreateReplica { .. } => {
                self.memory.state = State::Stopped;
                self.memory.rewind = RewindState::Initial;
                self.memory.crash_recovery_tried = false;
                self.memory.start_failed_at = None;
                if report == JobReport::Done {
                    self.memory.rewind = RewindState::NotNeeded;
                    self.memory.role = Role::Replica;
                } else {
                    self.retry_later(now);
                }
            }
            Job::Start { .. } | Job::StartPrimary { .. } | Job::Restart { .. } => {
                self.started(&job, report, now, actions);
            }
            Job::CrashRecovery => self.memory.crash_recovery_tried = true,
            Job::CheckDivergence { .. } => {
                self.memory.rewind = match (report, self.memory.rewind) {
                    (JobReport::Compared(Some(true)), _) => RewindState::Needed,
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
                    JobReport::Done => self.memory.rewind = RewindState::Succeeded,
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
            Job::Stop { reason, .. } => self.stopped(reason, report, now, actions),
        }
    }

    fn started(&mut self, job: &Job, report: JobReport, now: Moment, actions: &mut Vec<Action>) {
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
                    Job::Start { .. } => self.memory.role = Role::Replica,
                    _ => {}
                }
                let event = match job {
                    Job::Restart { .. } => CallbackEvent::OnRestart,
                    _ if was_demoted && self.memory.joined => CallbackEvent::OnRoleChange,
                    _ => CallbackEvent::OnStart,
                };
                if ready && (self.memory.joined || event != CallbackEvent::OnStart) {
                    actions.push(Action::Callback(event, self.memory.role.for_callbacks()));
                }
                if ready {
                    Answer::Done
                } else {
                    Answer::TimedOut
                }
            }
            _ => {
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

    fn stopped(
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
                }
            }
            StopReason::Shutdown => {
                if let Some(shutdown) = &mut self.memory.shutdown {
                    shutdown.stopped = Some(shutdown_lsn);
                }
                actions.push(Action::Callback(
                    CallbackEvent::OnStop,
                    self.memory.role.for_callbacks(),
                ));
            }
            StopReason::StaleData => {}
        }
    }

    // ---- operators -------------------------------------------------------------------------------------

    fn operator(&mut self, request: OperatorRequest, actions: &mut Vec<Action>) {
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

    fn restart_applies(&self, role: Option<&str>, below: Option<u32>, pending: bool) -> bool {
        let version = self.server.wal.as_ref().map(|wal| wal.server_version);
        role.is_none_or(|role| role == self.memory.role.for_callbacks().as_str())
            && below.is_none_or(|below| version.is_some_and(|version| version < below))
            && (!pending || self.memory.pending_restart.is_some())
    }

    /// A scheduled restart whose time has come (`ha.md` §20): executed once, dropped when it is stale or when
    /// the server was restarted meanwhile.
    fn due_restart(&mut self, wall: Timestamp, actions: &mut Vec<Action>) {
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

/// Jobs that say themselves what is being done to the server.
fn determines_state(job: &Job) -> bool {
    !matches!(
        job,
        Job::Promote | Job::CheckDivergence { .. } | Job::PostBootstrap
    )
}

/// When a scheduled switchover or restart wants the next pass.
fn next_schedule(
    view: &Cluster,
    machine: &Machine,
    now: Moment,
    wall: Timestamp,
) -> Option<Moment> {
    let restart = machine
        .memory
        .scheduled_restart
        .as_ref()
        .and_then(|restart| {
            match ScheduledAt::parse(&restart.schedule, &jiff::tz::TimeZone::UTC) {
                ScheduledAt::At { timestamp, .. } => Some(timestamp),
                ScheduledAt::Unusable(_) => None,
            }
        });
    let switchover = crate::decide::next_schedule(view);
    let at = [restart, switchover].into_iter().flatten().min()?;
    let wait = at.duration_since(wall);
    // What is past already was looked at in this pass.
    (!wait.is_negative()).then(|| now + wait.unsigned_abs())
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

/// The step's name and what identifies it, for people.
fn step_name(step: &Step) -> String {
    match step {
        Step::StartJob(job) => format!("start: {}", job.name()),
        Step::WriteSync(sync) => format!("write /sync {}", sync.to_json()),
        Step::AskPeers(_) => "ask the members".into(),
        other => format!("{other:?}"),
    }
}
