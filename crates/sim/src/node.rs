//! One machine with its agent and its fence: what `primacy-agent`'s shell does, done to the models.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use primacy_config::{GlobalConfig, TimingLimits};
use primacy_ha::{
    Action, DemotionMode, Event, FailsafeLeader, FenceOrder, FenceState, Job, JobProgress, Lease,
    Local, Machine, Moment, OperatorRequest, Over, PeerReport, Peers, RenewalResult, Step,
    StepOutcome, StopReason, StoreKey,
};
use primacy_model::{
    Cluster, MemberData, Observation, PostmasterIdentity, Process, Status, Tags, Version,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};

use crate::failsafe::Answered;
use crate::faults::Plan;
use crate::invariants::explained::Leaderless;
use crate::invariants::failsafe_return::Returned;
use crate::invariants::{explained, failsafe_return};
use crate::network::End;
use crate::store::{Expected, LeaseId, Unknown};
use crate::world::{Happening, Instant, NodeId, World};

/// The fence acts so long before the deadline (`fencing.rs` of the agent).
const FENCE_MARGIN: Duration = Duration::from_millis(250);
/// It takes so long to be told.
const FENCE_ANSWER: Duration = Duration::from_millis(3);
/// For a member's answer to another.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// The member key and `/status` are not worth waiting for longer.
const PUBLISH_BUDGET: Duration = Duration::from_secs(5);
/// A primary that a pause tolerated is stopped in so long after it.
const STOP_AFTER_PAUSE: Duration = Duration::from_secs(60);
/// After so long an agent knows its server.
const SETTLING: Duration = Duration::from_secs(60);
/// So soon after it learned of another leader it has its server follow nobody else.
const REPOINTING: Duration = Duration::from_secs(2);
/// A supervisor starts an agent that ended by itself again.
const SUPERVISOR: Duration = Duration::from_secs(5);

/// Which agent a task belongs to: one that is started later is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AgentTask {
    pub(crate) node: NodeId,
    number: u64,
}

/// A machine.
pub(crate) struct Node {
    id: NodeId,
    pub(crate) agent: Option<Agent>,
    /// How many faults freeze the agent, and the whole machine.
    pub(crate) frozen: u32,
    pub(crate) suspended: u32,
    /// How many faults keep the agent from being started.
    pub(crate) out: u32,
    /// How many faults keep watch events away.
    pub(crate) deaf: u32,
    /// What the agent finds when it goes on.
    inbox: VecDeque<(AgentTask, Happening)>,
    /// What the server does when it goes on, by the life of the server's processes.
    pub(crate) stalled: Vec<(u64, Happening)>,
    agents: u64,
    fence: Fence,
    /// Parts per million that its clocks run too fast.
    drift: i64,
    /// What its wall clock is off.
    pub(crate) wall_offset: i64,
    /// `patroni.dynamic.json`.
    dynamic: Map<String, Value>,
    tags: Tags,
    /// `remove_data_directory_on_diverged_timelines`.
    remove_diverged: bool,
    /// `fencing.mode` is `required`.
    fence_required: bool,
    /// `use_pg_rewind` is off.
    without_rewind: bool,
    /// The agent that was last here took the cluster for paused.
    last_paused: bool,
    /// When an agent here last learned that a pause is over.
    pause_left_at: Instant,
    /// An operator asked for a new copy.
    pub(crate) reinitialize_asked: bool,
}

/// The process apart. It survives the agent.
#[derive(Debug, Default)]
struct Fence {
    armed: Option<(Moment, PostmasterIdentity)>,
    /// Every change has its number: an alarm of an earlier one is nobody's.
    number: u64,
}

/// What the answer to a renewal told.
#[derive(Clone)]
struct Heard {
    revision: u64,
    at: Instant,
    /// The store as of then, for who has followed it.
    view: Option<Cluster>,
}

/// The agent's process.
pub(crate) struct Agent {
    task: AgentTask,
    pub(crate) machine: Machine,
    /// What the invariants know of it.
    pub(crate) leaderless: Leaderless,
    pub(crate) returned: Returned,
    tick_at: Option<Instant>,
    writes: VecDeque<Write>,
    writing: bool,
    /// The lock around the leader key's lease, and who waits for it.
    lease_busy: bool,
    lease_queue: VecDeque<Happening>,
    leader_lease: Option<(LeaseId, Duration)>,
    member_lease: Option<(LeaseId, Duration)>,
    /// The store's revision that was read or followed last; `None`: it has to be read again.
    read: Option<u64>,
    /// What the heartbeat heard of last.
    heard: Option<Heard>,
    /// The right to bootstrap the cluster.
    claim: Option<(LeaseId, Version)>,
    member_told: Option<MemberData>,
    status: Status,
    watched: Option<PostmasterIdentity>,
    fence_order: FenceOrder,
    pub(crate) cancelled: bool,
    pub(crate) job_number: u64,
    pub(crate) since: Instant,
    /// Who leads as far as it knows, and since when it takes that one for the leader.
    leader: Option<(NodeId, Instant)>,
    questions: u64,
    failsafe_questions: BTreeMap<u64, Answered>,
}

enum Write {
    Step(Box<Step>, Instant),
    Member(Box<MemberData>, Duration, bool),
    Status(Status),
    Failsafe(BTreeMap<primacy_model::MemberName, String>),
}

impl Node {
    pub(crate) fn new(id: NodeId, plan: &Plan, rng: &mut ChaCha8Rng) -> Self {
        Node {
            id,
            agent: None,
            frozen: 0,
            suspended: 0,
            out: 0,
            deaf: 0,
            inbox: VecDeque::new(),
            stalled: Vec::new(),
            agents: 0,
            fence: Fence::default(),
            drift: rng.random_range(-200..=200),
            wall_offset: 0,
            dynamic: plan.dynamic.clone(),
            tags: match &plan.tags {
                Some((of, tags)) if *of == id => Tags::from_json(tags),
                _ => Tags::default(),
            },
            without_rewind: plan.without_rewind,
            fence_required: plan.fence_required,
            remove_diverged: plan.remove_diverged,
            last_paused: false,
            pause_left_at: Duration::ZERO,
            reinitialize_asked: false,
        }
    }

    fn local(&self) -> Local {
        let name = World::name(self.id);
        Local {
            conn_url: format!("postgres://{name}:5432/postgres"),
            api_url: format!("http://{name}:8008/patroni"),
            name: name.into(),
            tags: self.tags.clone(),
            proxy_url: None,
            watchdog: Default::default(),
            fence_required: self.fence_required,
            citus_database: None,
            may_bootstrap: true,
            custom_bootstrap: false,
            replica_methods: Vec::new(),
            methods_without_source: Default::default(),
            use_pg_rewind: !self.without_rewind,
            remove_on_rewind_failure: self.remove_diverged,
            remove_on_divergence: self.remove_diverged,
        }
    }

    /// Its clock at that true time.
    pub(crate) fn moment(&self, at: Instant) -> Moment {
        let nanos = i128::try_from(at.as_nanos()).unwrap_or(0);
        let mine = nanos + nanos * i128::from(self.drift) / 1_000_000;
        // Clocks of different machines began at different times.
        Moment(
            Duration::from_secs(1_000 * (self.id as u64 + 1))
                + Duration::from_nanos(u64::try_from(mine).unwrap_or(0)),
        )
    }

    /// The true time at which its clock shows that.
    fn true_time(&self, moment: Moment) -> Instant {
        let mine = moment
            .0
            .saturating_sub(Duration::from_secs(1_000 * (self.id as u64 + 1)));
        let nanos = i128::try_from(mine.as_nanos()).unwrap_or(0);
        let at = nanos * 1_000_000 / (1_000_000 + i128::from(self.drift));
        // Rounded up: an alarm never comes before its time.
        Duration::from_nanos(u64::try_from(at).unwrap_or(0)) + Duration::from_nanos(2_000)
    }

    fn still(&self) -> bool {
        self.frozen > 0 || self.suspended > 0
    }
}

impl World {
    pub(crate) fn removes_diverged(&self, node: NodeId) -> bool {
        self.nodes[node].remove_diverged
    }

    // ---- the agent's process --------------------------------------------------------------------------

    pub(crate) fn start_agent(&mut self, node: NodeId) {
        let now = self.now();
        let place = &mut self.nodes[node];
        if place.agent.is_some() || place.out > 0 {
            return;
        }
        place.agents += 1;
        let task = AgentTask {
            node,
            number: place.agents,
        };
        let (global, _) = GlobalConfig::from_dynamic(&place.dynamic, TimingLimits::EMBEDDED);
        let machine = Machine::new(
            place.local(),
            global,
            TimingLimits::EMBEDDED,
            place.moment(now),
        );
        place.agent = Some(Agent {
            task,
            machine,
            leaderless: Leaderless::default(),
            returned: Returned::default(),
            tick_at: None,
            writes: VecDeque::new(),
            writing: false,
            lease_busy: false,
            lease_queue: VecDeque::new(),
            leader_lease: None,
            member_lease: None,
            read: None,
            heard: None,
            claim: None,
            member_told: None,
            status: Status::default(),
            watched: None,
            fence_order: FenceOrder::Disarm,
            cancelled: false,
            job_number: 0,
            since: now,
            leader: None,
            questions: 0,
            failsafe_questions: BTreeMap::new(),
        });
        self.trace(
            |_| format!("{} agent starts", Self::name(node)),
            [20, node as u64, 0],
        );
        self.for_agent(task, move |world| world.step(task, Event::Tick));
    }

    /// SIGKILL of the agent. The fence and the server go on.
    pub(crate) fn kill_agent(&mut self, node: NodeId) {
        let paused = self.believes_in_pause(node);
        if self.nodes[node].agent.take().is_some() {
            self.nodes[node].last_paused = paused;
            self.nodes[node].inbox.clear();
            self.trace(
                |_| format!("{} agent is gone", Self::name(node)),
                [21, node as u64, 0],
            );
        }
    }

    /// SIGTERM.
    pub(crate) fn terminate_agent(&mut self, node: NodeId) {
        if let Some(task) = self.task(node) {
            self.for_agent(task, move |world| world.step(task, Event::Terminate));
        }
    }

    fn task(&self, node: NodeId) -> Option<AgentTask> {
        self.nodes[node].agent.as_ref().map(|agent| agent.task)
    }

    /// Has the agent do something: now, when it goes on, or never if it is gone.
    pub(crate) fn for_agent(&mut self, task: AgentTask, what: impl FnOnce(&mut World) + 'static) {
        if self.task(task.node) != Some(task) {
            return;
        }
        if self.nodes[task.node].still() {
            self.nodes[task.node]
                .inbox
                .push_back((task, Box::new(what)));
        } else {
            what(self);
        }
    }

    pub(crate) fn agent_after(
        &mut self,
        task: AgentTask,
        delay: Duration,
        what: impl FnOnce(&mut World) + 'static,
    ) {
        self.after(delay, move |world| world.for_agent(task, what));
    }

    /// The machine, or its agent, goes on: clocks first, as the fence's alarm is the kernel's.
    pub(crate) fn thaw(&mut self, node: NodeId) {
        if self.nodes[node].suspended == 0 {
            self.check_fence(node);
        }
        if self.nodes[node].still() {
            return;
        }
        if let Some(agent) = self.nodes[node].agent.as_mut() {
            agent.leaderless.interrupted();
        }
        let number = self.nodes[node].agents;
        let waiting = std::mem::take(&mut self.nodes[node].inbox);
        // What the kernel had for it comes in no particular order, timers among it.
        self.tick(AgentTask { node, number });
        for (task, what) in waiting {
            self.for_agent(task, what);
        }
    }

    pub(crate) fn step(&mut self, task: AgentTask, event: Event) {
        let now = self.now();
        let wall = self.wall();
        let node = &mut self.nodes[task.node];
        let moment = node.moment(now);
        let wall = wall + jiff::SignedDuration::from_secs(node.wall_offset);
        if let Event::Observed { observation, .. } = &event {
            self.saw(task, observation);
        }
        if self.task(task.node) == Some(task) {
            explained::heard(self, task.node, &event);
            failsafe_return::heard(self, task.node, &event);
        }
        let Some(agent) = self.nodes[task.node]
            .agent
            .as_mut()
            .filter(|agent| agent.task == task)
        else {
            return;
        };
        if let Event::ClusterRead(cluster) = &event {
            let leads = cluster.as_ref().ok().and_then(Cluster::leader_name);
            let leads = leads.and_then(|name| World::node_of(name));
            if leads != agent.leader.map(|(leader, _)| leader) {
                agent.leader = leads.map(|leader| (leader, now));
            }
        }
        let paused = agent.machine.global().pause;
        let actions = agent.machine.step(event, moment, wall);
        if paused && !agent.machine.global().pause {
            self.nodes[task.node].pause_left_at = now;
        }
        for action in actions {
            if self.task(task.node) != Some(task) {
                return;
            }
            self.perform(task, action);
        }
        self.schedule_tick(task);
    }

    fn schedule_tick(&mut self, task: AgentTask) {
        let now = self.now();
        let node = &mut self.nodes[task.node];
        let Some(agent) = node.agent.as_ref() else {
            return;
        };
        let Some(wake_at) = agent.machine.wake_at() else {
            return;
        };
        let at = node.true_time(wake_at).max(now);
        if agent
            .tick_at
            .is_some_and(|scheduled| scheduled <= at && scheduled >= now)
        {
            return;
        }
        if let Some(agent) = node.agent.as_mut() {
            agent.tick_at = Some(at);
        }
        self.after(at - now, move |world| {
            let current = world.nodes[task.node]
                .agent
                .as_ref()
                .is_some_and(|agent| agent.task == task && agent.tick_at == Some(at));
            if current {
                world.for_agent(task, move |world| world.tick(task));
            }
        });
    }

    fn tick(&mut self, task: AgentTask) {
        let Some(agent) = self.nodes[task.node]
            .agent
            .as_mut()
            .filter(|agent| agent.task == task)
        else {
            return;
        };
        agent.tick_at = None;
        self.step(task, Event::Tick);
    }

    /// `Shell::saw`: remembers the look, aims the fence, has the postmaster watched.
    fn saw(&mut self, task: AgentTask, observation: &Observation) {
        let Some(agent) = self.nodes[task.node].agent.as_mut() else {
            return;
        };
        if let Process::Running(identity) = observation.process
            && agent.watched != Some(identity)
        {
            agent.watched = Some(identity);
            if agent.fence_order != FenceOrder::Disarm {
                self.tell_fence(task.node);
            }
            // It may have died between the look and now.
            let alive = self.servers[task.node]
                .running
                .as_ref()
                .is_some_and(|running| running.identity == identity);
            if !alive {
                self.agent_after(task, Duration::from_millis(1), move |world| {
                    world.step(task, Event::PostmasterChanged)
                });
            }
        }
    }

    /// The job tells which process it began; the fence is aimed at it (`Shell::watch`).
    pub(crate) fn spawned(&mut self, node: NodeId) {
        let running = self.servers[node].running.as_ref();
        let identity = running.map(|running| running.identity);
        if let (Some(identity), Some(agent)) = (identity, self.nodes[node].agent.as_mut()) {
            agent.watched = Some(identity);
            let task = agent.task;
            if agent.fence_order != FenceOrder::Disarm {
                self.tell_fence(node);
            }
            let event = Event::JobProgress(JobProgress::Spawned(identity));
            self.agent_after(task, Duration::ZERO, move |world| world.step(task, event));
        }
    }

    /// The kernel tells of a postmaster's end.
    pub(crate) fn postmaster_gone(&mut self, node: NodeId, pid: i32) {
        let watched = self.nodes[node]
            .agent
            .as_ref()
            .and_then(|agent| Some((agent.task, agent.watched?)));
        if let Some((task, identity)) = watched
            && identity.pid == pid
        {
            self.agent_after(task, Duration::from_millis(1), move |world| {
                world.step(task, Event::PostmasterChanged)
            });
        }
    }

    /// A watch event arrives.
    pub(crate) fn watched(&mut self, node: NodeId, key: StoreKey) {
        let Some(task) = self.task(node) else { return };
        self.for_agent(task, move |world| {
            if let Some(agent) = world.nodes[node].agent.as_mut() {
                if !matches!(key, StoreKey::Member(..)) {
                    agent.read = None;
                }
                if let StoreKey::Member(name, None) = &key
                    && World::node_of(name) == Some(node)
                {
                    agent.member_told = None;
                }
            }
            world.step(task, Event::StoreChanged(key));
        });
    }

    pub(crate) fn operate(&mut self, node: NodeId, request: OperatorRequest) {
        if let Some(task) = self.task(node) {
            self.for_agent(task, move |world| {
                world.step(task, Event::Operator(request))
            });
        }
    }

    // ---- the fence ------------------------------------------------------------------------------------

    fn tell_fence(&mut self, node: NodeId) {
        let place = &mut self.nodes[node];
        place.fence.number += 1;
        let agent = place.agent.as_ref();
        let watched = agent.and_then(|agent| agent.watched);
        let order = agent.map_or(FenceOrder::Disarm, |agent| agent.fence_order);
        place.fence.armed = match (order, watched) {
            (FenceOrder::Until(deadline), Some(target)) => Some((deadline - FENCE_MARGIN, target)),
            (FenceOrder::AtMost(deadline), Some(target)) => {
                let deadline = deadline - FENCE_MARGIN;
                let held = place.fence.armed.filter(|(_, armed)| *armed == target);
                Some((
                    held.map_or(deadline, |(held, _)| held.min(deadline)),
                    target,
                ))
            }
            (FenceOrder::Disarm, _) | (_, None) => None,
        };
        if let Some((at, _)) = place.fence.armed {
            let number = place.fence.number;
            let wait = place.true_time(at).saturating_sub(self.now());
            self.after(wait, move |world| {
                if world.nodes[node].fence.number == number && world.nodes[node].suspended == 0 {
                    world.check_fence(node);
                }
            });
        }
    }

    fn fence_answers(&mut self, task: AgentTask) {
        let agent = self.nodes[task.node].agent.as_ref();
        let state = match agent.map(|agent| agent.fence_order) {
            Some(FenceOrder::Until(_) | FenceOrder::AtMost(_)) => FenceState::Armed,
            Some(FenceOrder::Disarm) | None => FenceState::Disarmed,
        };
        if self
            .machine(task.node)
            .is_some_and(|machine| machine.memory().fence != state)
        {
            self.step(task, Event::Fence(state));
        }
    }

    fn check_fence(&mut self, node: NodeId) {
        let now = self.nodes[node].moment(self.now());
        if let Some((at, target)) = self.nodes[node].fence.armed
            && now >= at
        {
            self.nodes[node].fence.armed = None;
            let hit = self.servers[node]
                .running
                .as_ref()
                .is_some_and(|running| running.identity == target);
            if hit {
                self.report.fenced += 1;
                failsafe_return::demoted(self, node, "fenced");
                self.kill_server(node, "fence");
            }
        }
    }

    /// The machine is lost, its fence with it.
    pub(crate) fn lose_fence(&mut self, node: NodeId) {
        self.nodes[node].fence.armed = None;
        self.nodes[node].fence.number += 1;
    }

    // ---- actions --------------------------------------------------------------------------------------

    fn perform(&mut self, task: AgentTask, action: Action) {
        let node = task.node;
        match action {
            Action::ReadCluster {
                deadline,
                followed_within,
            } => {
                let deadline = self.nodes[node].true_time(deadline);
                self.read_cluster(task, followed_within, deadline);
            }
            Action::Observe { sent, deadline, .. } => {
                let budget = self.nodes[node]
                    .true_time(deadline)
                    .saturating_sub(self.now());
                // A server that hangs is waited for.
                let delay = if self.servers[node].hung > 0 {
                    budget
                } else {
                    self.millis(1, 20)
                };
                self.agent_after(task, delay, move |world| {
                    let observation = world.observe(node);
                    world.step(task, Event::Observed { sent, observation });
                });
            }
            Action::AskPeers { members } => self.ask_peers(task, members.into_keys().collect()),
            Action::AskFailsafe {
                sent,
                deadline,
                members,
                leader,
            } => {
                let deadline = self.nodes[node].true_time(deadline);
                let members = members.into_keys().collect();
                self.ask_failsafe(task, sent, deadline, members, &leader);
            }
            Action::AnswerFailsafe { id, answer } => {
                let agent = self.nodes[node].agent.as_mut();
                if let Some(answered) = agent.and_then(|agent| agent.failsafe_questions.remove(&id))
                {
                    answered(self, answer);
                }
            }
            Action::Renew {
                adopting,
                sent,
                deadline,
            } => {
                let ttl = self
                    .machine(node)
                    .map_or(Duration::ZERO, |machine| machine.global().ttl);
                let deadline = self.nodes[node].true_time(deadline);
                self.with_lease(task, move |world| {
                    world.renew(task, adopting, sent, ttl, deadline)
                });
            }
            Action::Perform { step, deadline } => {
                let deadline = self.nodes[node].true_time(deadline);
                self.perform_step(task, step, deadline);
            }
            Action::StartJob(job) => {
                // An operator asks for a graceful one.
                if let Job::Stop {
                    reason: StopReason::Demotion(mode),
                    ..
                } = &job
                    && *mode != DemotionMode::Graceful
                {
                    failsafe_return::demoted(self, node, &format!("demotion, {mode:?}"));
                }
                self.start_job(task, job);
            }
            Action::CancelJob => {
                if let Some(agent) = self.nodes[node].agent.as_mut() {
                    agent.cancelled = true;
                }
            }
            Action::KillNow => {
                let watched = self.nodes[node]
                    .agent
                    .as_ref()
                    .and_then(|agent| agent.watched);
                let running = self.servers[node]
                    .running
                    .as_ref()
                    .map(|running| running.identity);
                if watched.is_some() && watched == running {
                    failsafe_return::demoted(self, node, "killed with its lease");
                    self.kill_server(node, "lease");
                }
            }
            Action::SetFence(order) => {
                if let Some(agent) = self.nodes[node].agent.as_mut() {
                    agent.fence_order = order;
                }
                self.tell_fence(node);
                // Elsewhere nothing depends on what it says.
                if self.nodes[node].fence_required {
                    self.agent_after(task, FENCE_ANSWER, move |world| world.fence_answers(task));
                }
            }
            Action::ForgetDivergence => self.servers[node].disk.diverged = false,
            Action::ForgetFormerPrimary => self.servers[node].disk.former_primary = false,
            Action::PublishMember(data) => {
                let ttl = self
                    .machine(node)
                    .map_or(Duration::ZERO, |machine| machine.global().ttl);
                let leads = self
                    .machine(node)
                    .is_some_and(|machine| machine.lease() != Lease::None);
                self.enqueue(task, Write::Member(data, ttl, leads));
            }
            Action::WriteStatus(status) => self.enqueue(task, Write::Status(status)),
            Action::WriteFailsafe(map) => self.enqueue(task, Write::Failsafe(map)),
            // The model has neither slots nor watchdog devices.
            Action::ForceHotStandbyFeedback(_)
            | Action::PingWatchdog { .. }
            | Action::DisableWatchdog => {}
            Action::ApplyDynamic(dynamic) => self.nodes[node].dynamic = dynamic,
            Action::Journal(entry) => {
                explained::journaled(self, node, &entry);
                self.report.journaled(&entry);
                let key = entry.step.len() as u64;
                self.trace(
                    move |_| {
                        let reasons: Vec<&str> = entry
                            .reasons
                            .iter()
                            .map(|reason| reason.text.as_str())
                            .collect();
                        format!(
                            "{} {} [{}] ({})",
                            Self::name(node),
                            entry.outcome,
                            entry.step,
                            reasons.join("; ")
                        )
                    },
                    [22, node as u64, key],
                );
            }
            Action::Exit(exit) => {
                self.trace(
                    move |_| format!("{} agent ends: {}", Self::name(node), exit.reason),
                    [23, node as u64, 0],
                );
                let paused = self
                    .machine(node)
                    .is_some_and(|machine| machine.global().pause);
                if paused || self.servers[node].running.is_none() {
                    self.lose_fence(node);
                }
                self.kill_agent(node);
                self.after(SUPERVISOR, move |world| world.start_agent(node));
            }
            Action::Callback(..) | Action::Reply { .. } | Action::Log(..) => {}
        }
    }

    pub(crate) fn machine(&self, node: NodeId) -> Option<&Machine> {
        self.nodes[node].agent.as_ref().map(|agent| &agent.machine)
    }

    /// Whether the agent, or the last one, takes the cluster for paused: then it demotes nobody and has no fence
    /// (ha.md §22), and if it dies or is cut off before it hears of the end, nobody does (what operators are told).
    pub(crate) fn takes_for_paused(&self, node: NodeId) -> bool {
        let left_at = self.nodes[node].pause_left_at;
        self.believes_in_pause(node) || self.now() < left_at + STOP_AFTER_PAUSE
    }

    /// An agent that has just begun, and could not look at its server yet, is no better than the last one.
    fn believes_in_pause(&self, node: NodeId) -> bool {
        let last = self.nodes[node].last_paused;
        self.machine(node).map_or(last, |machine| {
            machine.global().pause || last && machine.outcome().is_empty()
        })
    }

    pub(crate) fn failsafe_is_active(&self, node: NodeId) -> bool {
        let now = self.nodes[node].moment(self.now());
        let until = self.machine(node).and_then(Machine::failsafe_until);
        until.is_some_and(|until| now < until)
    }

    /// Whether an agent is there that can keep its server from streaming from there: it has been for a while, can act, knows
    /// who leads, and has known it for long enough, unless that is whom it follows.
    pub(crate) fn is_attended(&self, node: NodeId, upstream: NodeId) -> bool {
        let Some(agent) = &self.nodes[node].agent else {
            return false;
        };
        let leads = self.store.leader.as_ref().map(|leader| leader.value);
        let knows = agent.leader.is_some_and(|(leader, since)| {
            Some(leader) == leads && (leader == upstream || self.now() > since + REPOINTING)
        });
        knows && self.now() > agent.since + SETTLING && !self.nodes[node].still()
    }

    /// Another member's agent asks this one to promise that it does not take over.
    pub(crate) fn failsafe_asked(
        &mut self,
        node: NodeId,
        leader: FailsafeLeader,
        answered: Answered,
    ) {
        let Some(task) = self.task(node) else { return };
        self.for_agent(task, move |world| {
            let Some(agent) = world.nodes[node].agent.as_mut() else {
                return;
            };
            agent.questions += 1;
            let id = agent.questions;
            agent.failsafe_questions.insert(id, answered);
            world.step(task, Event::FailsafeAsked { id, leader });
        });
    }

    /// `peers::ask_members`: all at once, each with a look of its own, the dead one not waited for any longer.
    fn ask_peers(&mut self, task: AgentTask, members: Vec<primacy_model::MemberName>) {
        use std::cell::RefCell;
        use std::rc::Rc;
        let node = task.node;
        let answers: Rc<RefCell<Peers>> = Rc::new(RefCell::new(
            members.iter().map(|name| (name.clone(), None)).collect(),
        ));
        let left = Rc::new(RefCell::new(members.len()));
        let finish = Rc::new(RefCell::new(Some(Rc::clone(&answers))));
        for name in members {
            let Some(peer) = Self::node_of(&name) else {
                continue;
            };
            if !self.network.reaches_api(node, peer) {
                continue;
            }
            let there = self.delay_between(node, peer);
            let (look, back) = (self.millis(1, 30), self.delay_between(peer, node));
            let (answers, left, finish) =
                (Rc::clone(&answers), Rc::clone(&left), Rc::clone(&finish));
            self.after(there, move |world| {
                let Some(asked) = world.task(peer) else {
                    return;
                };
                world.agent_after(asked, look, move |world| {
                    let report = world.observe(peer).wal.map(|wal| PeerReport {
                        in_recovery: !wal.is_primary(),
                        position: wal.position(),
                        timeline: wal.timeline_in_use(),
                        tags: world
                            .machine(peer)
                            .map_or_else(Tags::default, Machine::effective_tags),
                        watchdog_failed: false,
                        failsafe_active: world.failsafe_is_active(peer),
                    });
                    if !world.network.passes(End::Node(peer), End::Node(node)) {
                        return;
                    }
                    world.agent_after(task, back, move |world| {
                        answers.borrow_mut().insert(name, report);
                        *left.borrow_mut() -= 1;
                        if *left.borrow() == 0
                            && let Some(answers) = finish.borrow_mut().take()
                        {
                            let answers = answers.borrow().clone();
                            world.step(task, Event::PeersAnswered(answers));
                        }
                    });
                });
            });
        }
        self.agent_after(task, ASK_TIMEOUT, move |world| {
            if let Some(answers) = finish.borrow_mut().take() {
                let answers = answers.borrow().clone();
                world.step(task, Event::PeersAnswered(answers));
            }
        });
    }

    // ---- the lease (`leases.rs` of the agent) ---------------------------------------------------------

    /// Takes the lock around the leader key's lease; whoever does calls [`World::lease_done`].
    fn with_lease(&mut self, task: AgentTask, what: impl FnOnce(&mut World) + 'static) {
        let Some(agent) = self.nodes[task.node].agent.as_mut() else {
            return;
        };
        if agent.lease_busy {
            agent.lease_queue.push_back(Box::new(what));
        } else {
            agent.lease_busy = true;
            what(self);
        }
    }

    fn lease_done(&mut self, task: AgentTask) {
        let Some(agent) = self.nodes[task.node]
            .agent
            .as_mut()
            .filter(|agent| agent.task == task)
        else {
            return;
        };
        match agent.lease_queue.pop_front() {
            Some(next) => next(self),
            None => agent.lease_busy = false,
        }
    }

    fn set_leader_lease(&mut self, task: AgentTask, lease: Option<(LeaseId, Duration)>) {
        if let Some(agent) = self.nodes[task.node]
            .agent
            .as_mut()
            .filter(|agent| agent.task == task)
        {
            agent.leader_lease = lease;
        }
    }

    /// `Leases::look_at_cluster`.
    fn read_cluster(&mut self, task: AgentTask, within: Option<Duration>, deadline: Instant) {
        let (node, now) = (task.node, self.now());
        let Some(agent) = self.nodes[node].agent.as_ref() else {
            return;
        };
        let (Some(read), Some(within)) = (agent.read, within) else {
            return self.read_anew(task, deadline);
        };
        if let (Some(_), Some(heard)) = (agent.leader_lease, agent.heard.clone())
            && heard.at + within >= now
        {
            return self.agent_after(task, Duration::ZERO, move |world| {
                world.told_revision(task, read, heard.revision, heard.view, deadline);
            });
        }
        let Some((lease, _)) = agent
            .member_lease
            .filter(|own| agent.leader_lease.is_none_or(|leaders| leaders.0 != own.0))
        else {
            return self.read_anew(task, deadline);
        };
        self.ask_store(
            task,
            deadline,
            move |world| {
                let heard = world.heard_revision();
                let view = world.followed(read, heard);
                world.keep_alive(lease).then_some((heard, view))
            },
            move |world, answer| {
                let Some(agent) = world.nodes[node].agent.as_mut() else {
                    return;
                };
                match answer {
                    Ok(Some((heard, view))) => {
                        world.told_revision(task, read, heard, view, deadline)
                    }
                    Ok(None) => {
                        agent.member_lease = None;
                        world.read_anew(task, deadline);
                    }
                    Err(Unknown) => {
                        let answer = Err("no answer".to_owned());
                        world.step(task, Event::ClusterRead(answer));
                    }
                }
            },
        );
    }

    /// The store told its revision: nothing is read where the watch has told everything since the last read.
    fn told_revision(
        &mut self,
        task: AgentTask,
        read: u64,
        heard: u64,
        view: Option<Cluster>,
        deadline: Instant,
    ) {
        let place = &mut self.nodes[task.node];
        let (deaf, Some(agent)) = (place.deaf > 0, place.agent.as_mut()) else {
            return;
        };
        match view {
            _ if agent.read != Some(read) => self.read_anew(task, deadline),
            _ if heard == read => self.step(task, Event::ClusterUnchanged),
            Some(view) if !deaf && heard > read => {
                agent.read = Some(heard);
                self.step(task, Event::ClusterFollowed(view));
            }
            _ => self.read_anew(task, deadline),
        }
    }

    fn read_anew(&mut self, task: AgentTask, deadline: Instant) {
        self.ask_store(
            task,
            deadline,
            |world| (world.store.read(), world.store.revision()),
            move |world, answer| {
                let answer = answer.map_err(|Unknown| "no answer".to_owned());
                let answer = answer.map(|(cluster, revision)| {
                    if let Some(agent) = world.nodes[task.node].agent.as_mut() {
                        agent.read = Some(revision);
                    }
                    cluster
                });
                world.step(task, Event::ClusterRead(answer));
            },
        );
    }

    /// `Leases::renew`.
    fn renew(
        &mut self,
        task: AgentTask,
        adopting: bool,
        sent: Moment,
        ttl: Duration,
        deadline: Instant,
    ) {
        let held = self.nodes[task.node]
            .agent
            .as_ref()
            .and_then(|agent| agent.leader_lease);
        match held.filter(|(_, of)| *of == ttl) {
            Some((lease, _)) => self.renew_with(task, adopting, sent, lease, deadline),
            None => self.ask_store(
                task,
                deadline,
                move |world| world.grant(ttl),
                move |world, granted| match granted {
                    Ok(lease) => {
                        world.set_leader_lease(task, Some((lease, ttl)));
                        world.renew_with(task, adopting, sent, lease, deadline);
                    }
                    Err(Unknown) => {
                        world.renewed(task, sent, RenewalResult::Failed("no answer".into()))
                    }
                },
            ),
        }
    }

    fn renew_with(
        &mut self,
        task: AgentTask,
        adopting: bool,
        sent: Moment,
        lease: LeaseId,
        deadline: Instant,
    ) {
        let (node, asked) = (task.node, self.now());
        self.ask_store(
            task,
            deadline,
            move |world| {
                let revision = world.heard_revision();
                let read = world.nodes[node]
                    .agent
                    .as_ref()
                    .and_then(|agent| agent.read);
                let view = read.and_then(|read| world.followed(read, revision));
                let heard = Heard {
                    revision,
                    at: asked,
                    view,
                };
                world.renew_leader(node, lease, adopting).then_some(heard)
            },
            move |world, answer| {
                let result = match answer {
                    Ok(Some(heard)) => {
                        if let Some(agent) = world.nodes[node].agent.as_mut() {
                            agent.heard = Some(heard);
                        }
                        RenewalResult::Renewed
                    }
                    Ok(None) => {
                        world.set_leader_lease(task, None);
                        RenewalResult::Lapsed
                    }
                    Err(Unknown) => RenewalResult::Failed("no answer".into()),
                };
                world.renewed(task, sent, result);
            },
        );
    }

    fn renewed(&mut self, task: AgentTask, sent: Moment, result: RenewalResult) {
        self.lease_done(task);
        self.step(task, Event::Renewed { sent, result });
    }

    // ---- writes, in order -----------------------------------------------------------------------------

    fn enqueue(&mut self, task: AgentTask, write: Write) {
        let Some(agent) = self.nodes[task.node].agent.as_mut() else {
            return;
        };
        agent.writes.push_back(write);
        if !agent.writing {
            agent.writing = true;
            self.next_write(task);
        }
    }

    fn next_write(&mut self, task: AgentTask) {
        let Some(agent) = self.nodes[task.node]
            .agent
            .as_mut()
            .filter(|agent| agent.task == task)
        else {
            return;
        };
        let Some(write) = agent.writes.pop_front() else {
            agent.writing = false;
            return;
        };
        let node = task.node;
        let by = self.now() + PUBLISH_BUDGET;
        match write {
            Write::Step(step, deadline) => self.write_step(task, *step, deadline),
            Write::Member(data, ttl, leads) => self.publish_member(task, *data, ttl, leads, by),
            Write::Status(status) => {
                let told = status.clone();
                self.ask_store(
                    task,
                    by,
                    move |world| world.write_status(node, told),
                    move |world, answer| {
                        if answer.is_ok()
                            && let Some(agent) = world.nodes[node].agent.as_mut()
                        {
                            agent.status = status;
                        }
                        world.next_write(task);
                    },
                );
            }
            Write::Failsafe(map) => {
                self.ask_store(
                    task,
                    by,
                    move |world| world.write_failsafe(node, map),
                    move |world, _| world.next_write(task),
                );
            }
        }
    }

    /// `Leases::publish`.
    fn publish_member(
        &mut self,
        task: AgentTask,
        data: MemberData,
        ttl: Duration,
        leads: bool,
        by: Instant,
    ) {
        let Some(agent) = self.nodes[task.node].agent.as_mut() else {
            return;
        };
        let leaders = agent.leader_lease;
        let on_leaders = leaders.is_some_and(|(leaders, _)| {
            agent
                .member_lease
                .is_some_and(|(lease, _)| lease == leaders)
        });
        if let (Some(lease), true) = (leaders, leads) {
            if !on_leaders {
                agent.member_lease = Some(lease);
                agent.member_told = None;
            }
            return self.put(task, data, lease, by, true);
        }
        let held = agent
            .member_lease
            .filter(|(_, of)| *of == ttl && !on_leaders);
        let Some(lease) = held else {
            return self.publish_anew(task, data, ttl, by);
        };
        let claim = agent.claim;
        let keep = move |world: &mut World| {
            if let Some((claim, _)) = claim {
                world.keep_alive(claim);
            }
            world.keep_alive(lease.0)
        };
        self.ask_store(task, by, keep, move |world, alive| match alive {
            Ok(true) => world.put(task, data, lease, by, true),
            Ok(false) => world.publish_anew(task, data, ttl, by),
            Err(Unknown) => world.next_write(task),
        });
    }

    fn publish_anew(&mut self, task: AgentTask, data: MemberData, ttl: Duration, by: Instant) {
        self.ask_store(
            task,
            by,
            move |world| world.grant(ttl),
            move |world, granted| match granted {
                Ok(lease) => {
                    if let Some(agent) = world.nodes[task.node].agent.as_mut() {
                        agent.member_lease = Some((lease, ttl));
                        agent.member_told = None;
                    }
                    world.put(task, data, (lease, ttl), by, false);
                }
                Err(Unknown) => world.next_write(task),
            },
        );
    }

    fn put(
        &mut self,
        task: AgentTask,
        data: MemberData,
        (lease, ttl): (LeaseId, Duration),
        by: Instant,
        again: bool,
    ) {
        let node = task.node;
        let Some(agent) = self.nodes[node].agent.as_mut() else {
            return;
        };
        if agent.member_told.as_ref() == Some(&data) {
            return self.next_write(task);
        }
        agent.member_told = None;
        let told = data.clone();
        self.ask_store(
            task,
            by,
            move |world| world.put_member(node, told, lease),
            move |world, answer| {
                match (answer, world.nodes[node].agent.as_mut()) {
                    (Ok(true), Some(agent)) => agent.member_told = Some(data),
                    (Ok(false), _) if again => return world.publish_anew(task, data, ttl, by),
                    _ => {}
                }
                world.next_write(task);
            },
        );
    }

    // ---- steps (`steps.rs` of the agent) --------------------------------------------------------------

    fn perform_step(&mut self, task: AgentTask, step: Step, deadline: Instant) {
        let node = task.node;
        match step {
            Step::AcquireLeader { .. }
            | Step::ReleaseLeader { .. }
            | Step::ClaimInitialize
            | Step::WriteInitialize { .. }
            | Step::WriteConfig(_)
            | Step::ClearFailover(_)
            | Step::WriteSync(_)
            | Step::DeleteSync(_)
            | Step::CancelBootstrap => {
                if step == Step::CancelBootstrap {
                    self.abandon_bootstrap(node);
                }
                self.enqueue(task, Write::Step(Box::new(step), deadline));
            }
            Step::AbandonBootstrap => {
                self.abandon_bootstrap(node);
                self.agent_after(task, Duration::from_millis(50), move |world| {
                    world.step(task, Event::StepDone(StepOutcome::Done));
                });
            }
            Step::ForgetBootstrap => {
                self.servers[node].disk.unfinished = false;
                self.agent_after(task, Duration::from_millis(1), move |world| {
                    world.step(task, Event::StepDone(StepOutcome::Done));
                });
            }
            Step::SetSynchronousStandbyNames(value) => {
                self.set_names(task, value.unwrap_or_default(), deadline)
            }
            Step::Checkpoint => {
                let delay = self.millis(50, 8_000);
                self.agent_after(task, delay, move |world| {
                    let possible = world.servers[node].writable();
                    if possible {
                        world.checkpoint(node);
                    }
                    let result = if possible {
                        Ok(())
                    } else {
                        Err("the server does not answer".into())
                    };
                    world.step(task, Event::CheckpointDone(result));
                });
            }
            Step::WriteHistory(_) => self.write_history_step(task, deadline),
            Step::Follow(upstream) => {
                let delay = self.millis(5, 100);
                self.agent_after(task, delay, move |world| {
                    let outcome = if !world.servers[node].answers() {
                        StepOutcome::Failed("the server does not answer".into())
                    } else if !world.has_standby_signal(node) {
                        StepOutcome::NeedsRestart
                    } else {
                        world.follow(node, upstream_of(&upstream));
                        StepOutcome::Done
                    };
                    world.step(task, Event::StepDone(outcome));
                });
            }
            Step::ChangeSlots(_)
            | Step::ChangeLogicalSlots { .. }
            | Step::CompareLogicalSlots { .. }
            | Step::ActivateWatchdog { .. }
            | Step::ResumeReplay => {
                let delay = self.millis(1, 20);
                self.agent_after(task, delay, move |world| {
                    world.step(task, Event::StepDone(StepOutcome::Done))
                });
            }
            // Performed by the machine itself.
            Step::Wait
            | Step::WaitUntil(_)
            | Step::AskPeers(_)
            | Step::AdoptLease
            | Step::WithdrawFromSync
            | Step::StartJob(_)
            | Step::CancelJob
            | Step::Exit(_) => {}
        }
    }

    /// `steps::set_names`: files and a reload, and it is waited for that sessions show it and commits obey it.
    fn set_names(&mut self, task: AgentTask, value: String, deadline: Instant) {
        let node = task.node;
        let delay = self.millis(2, 30);
        self.agent_after(task, delay, move |world| {
            world.trace(
                |_| format!("{} names are {value:?}", World::name(node)),
                [24, node as u64, 0],
            );
            world.servers[node].disk.names = value;
            world.reload(node);
            world.await_names(task, deadline);
        });
    }

    fn await_names(&mut self, task: AgentTask, deadline: Instant) {
        let node = task.node;
        if self.servers[node].answers() && self.names_in_force(node) {
            return self.step(task, Event::StepDone(StepOutcome::Done));
        }
        if self.now() >= deadline || self.servers[node].running.is_none() {
            let outcome = StepOutcome::Failed("not in force in time".into());
            return self.step(task, Event::StepDone(outcome));
        }
        self.agent_after(task, Duration::from_millis(50), move |world| {
            world.await_names(task, deadline)
        });
    }

    fn write_history_step(&mut self, task: AgentTask, deadline: Instant) {
        let node = task.node;
        let branch = self.branch_of(node);
        let lines: Vec<_> = self
            .history
            .lines(branch)
            .into_iter()
            .map(|(timeline, at)| {
                (
                    timeline,
                    primacy_model::Lsn(at),
                    "no recovery target specified".to_owned(),
                )
            })
            .collect();
        self.ask_store(
            task,
            deadline,
            |world| world.stored_history(),
            move |world, stored| {
                let Ok(stored) = stored else {
                    return world.step(
                        task,
                        Event::StepDone(StepOutcome::Failed("no answer".into())),
                    );
                };
                let name = World::name(node);
                let history = primacy_ha::merge_history(
                    &lines,
                    "2027-01-15T08:00:00+00:00",
                    &name,
                    stored.as_ref(),
                    0,
                );
                world.ask_store(
                    task,
                    deadline,
                    move |world| world.write_history(node, history),
                    move |world, answer| {
                        world.step_written(task, answer);
                    },
                );
            },
        );
    }

    fn step_written(&mut self, task: AgentTask, answer: Result<bool, Unknown>) {
        let outcome = match answer {
            Ok(true) => StepOutcome::Done,
            Ok(false) => StepOutcome::Refused,
            Err(Unknown) => StepOutcome::Failed("no answer".into()),
        };
        self.step(task, Event::StepDone(outcome));
    }

    fn write_step(&mut self, task: AgentTask, step: Step, deadline: Instant) {
        let node = task.node;
        let ended = move |world: &mut World, answer: Result<bool, Unknown>| {
            world.step_written(task, answer);
            world.next_write(task);
        };
        match step {
            Step::AcquireLeader { failover } => {
                if let Some(agent) = self.nodes[node].agent.as_mut() {
                    agent.leaderless.races();
                }
                let ttl = self
                    .machine(node)
                    .map_or(Duration::ZERO, |machine| machine.global().ttl);
                self.with_lease(task, move |world| {
                    world.acquire(task, ttl, failover, deadline)
                });
            }
            Step::ReleaseLeader { optime } => {
                self.with_lease(task, move |world| {
                    world.release_leader(task, optime, deadline)
                });
            }
            Step::ClaimInitialize => self.claim_initialize(task, deadline),
            Step::WriteInitialize { identifier, over } => {
                let claim = self.nodes[node]
                    .agent
                    .as_mut()
                    .and_then(|agent| agent.claim.take_if(|_| over == Over::OwnClaim));
                let expected = match (over, claim) {
                    (Over::Nothing, _) => Expected::Absent,
                    (Over::OwnClaim, Some((_, version))) => Expected::Version(version),
                    (Over::OwnClaim, None) => return ended(self, Ok(false)),
                    (Over::Anything, _) => Expected::Anything,
                };
                self.ask_store(
                    task,
                    deadline,
                    move |world| world.write_initialize(identifier.to_string(), expected),
                    move |world, answer| {
                        if let (Err(Unknown), Some(agent)) =
                            (&answer, world.nodes[node].agent.as_mut())
                        {
                            agent.claim = claim;
                        }
                        ended(world, answer);
                    },
                );
            }
            Step::WriteConfig(version) => {
                let dynamic = self.nodes[node].dynamic.clone();
                let write = move |world: &mut World| world.write_config_at(version, dynamic);
                self.ask_store(task, deadline, write, ended);
            }
            Step::ClearFailover(version) => {
                self.ask_store(
                    task,
                    deadline,
                    move |world| world.write_failover("{}", Some(version)),
                    ended,
                );
            }
            Step::WriteSync(sync) => self.ask_store(
                task,
                deadline,
                move |world| world.write_sync(node, sync),
                ended,
            ),
            Step::DeleteSync(version) => self.ask_store(
                task,
                deadline,
                move |world| world.delete_sync(version),
                ended,
            ),
            _ => match self.nodes[node]
                .agent
                .as_mut()
                .and_then(|agent| agent.claim.take())
            {
                None => ended(self, Ok(true)),
                Some((lease, version)) => {
                    let cancel = move |world: &mut World| {
                        world.cancel_initialize(version);
                        world.revoke(lease);
                        true
                    };
                    self.ask_store(task, deadline, cancel, ended);
                }
            },
        }
    }

    /// `Leases::claim_initialize`.
    fn claim_initialize(&mut self, task: AgentTask, deadline: Instant) {
        let ttl = self
            .machine(task.node)
            .map_or(Duration::ZERO, |machine| machine.global().ttl);
        self.ask_store(
            task,
            deadline,
            move |world| world.grant(ttl),
            move |world, granted| {
                let Ok(lease) = granted else {
                    world.step_written(task, Err(Unknown));
                    return world.next_write(task);
                };
                world.ask_store(
                    task,
                    deadline,
                    move |world| world.create_claim(lease),
                    move |world, claimed| {
                        let answer = match claimed {
                            Ok(version) => {
                                if let (Some(version), Some(agent)) =
                                    (version, world.nodes[task.node].agent.as_mut())
                                {
                                    agent.claim = Some((lease, version));
                                }
                                Ok(version.is_some())
                            }
                            Err(Unknown) => Err(Unknown),
                        };
                        world.step_written(task, answer);
                        world.next_write(task);
                    },
                );
            },
        );
    }

    /// `abandon` of the shell.
    fn abandon_bootstrap(&mut self, node: NodeId) {
        self.stop_server(node, false);
        self.wipe(node);
        self.servers[node].disk.unfinished = false;
    }

    /// `Leases::acquire`, and the request that is answered by it.
    fn acquire(
        &mut self,
        task: AgentTask,
        ttl: Duration,
        failover: Option<(Version, String)>,
        deadline: Instant,
    ) {
        let node = task.node;
        self.ask_store(
            task,
            deadline,
            move |world| world.grant(ttl),
            move |world, granted| {
                let Ok(lease) = granted else {
                    return world.acquired(task, Err(Unknown));
                };
                world.set_leader_lease(task, Some((lease, ttl)));
                world.ask_store(
                    task,
                    deadline,
                    move |world| world.create_leader(node, lease),
                    move |world, created| match created {
                        Ok(Some(true)) => match failover {
                            Some((version, text)) => {
                                let write = move |world: &mut World| {
                                    world.write_failover(&text, Some(version))
                                };
                                world.ask_store(task, deadline, write, move |world, _| {
                                    world.acquired(task, Ok(true))
                                });
                            }
                            None => world.acquired(task, Ok(true)),
                        },
                        Ok(Some(false)) => {
                            world.set_leader_lease(task, None);
                            let revoke = move |world: &mut World| world.revoke(lease);
                            world.ask_store(task, deadline, revoke, move |world, _| {
                                world.acquired(task, Ok(false))
                            });
                        }
                        Ok(None) | Err(Unknown) => world.acquired(task, Err(Unknown)),
                    },
                );
            },
        );
    }

    fn acquired(&mut self, task: AgentTask, answer: Result<bool, Unknown>) {
        self.lease_done(task);
        self.step_written(task, answer);
        self.next_write(task);
    }

    /// `Leases::release`.
    fn release_leader(
        &mut self,
        task: AgentTask,
        optime: Option<primacy_model::Lsn>,
        deadline: Instant,
    ) {
        let node = task.node;
        let status = self.nodes[node]
            .agent
            .as_ref()
            .map(|agent| agent.status.clone())
            .unwrap_or_default();
        let told = optime.map(|optime| Status { optime, ..status });
        let tell = move |world: &mut World| {
            if let Some(status) = told {
                world.write_status(node, status);
            }
        };
        self.ask_store(task, deadline, tell, move |world, _| {
            world.ask_store(
                task,
                deadline,
                move |world| world.delete_leader(node),
                move |world, deleted| {
                    let Ok(()) = deleted else {
                        return world.acquired(task, Err(Unknown));
                    };
                    let lease = world.nodes[node].agent.as_mut().and_then(|agent| {
                        let leaders = agent.leader_lease.take();
                        leaders.filter(|(lease, _)| {
                            agent.member_lease.is_none_or(|(own, _)| own != *lease)
                        })
                    });
                    match lease {
                        Some((lease, _)) => {
                            let revoke = move |world: &mut World| world.revoke(lease);
                            world.ask_store(task, deadline, revoke, move |world, _| {
                                world.acquired(task, Ok(true))
                            });
                        }
                        None => world.acquired(task, Ok(true)),
                    }
                },
            );
        });
    }
}

/// The node that an upstream names.
pub(crate) fn upstream_of(upstream: &primacy_ha::Upstream) -> Option<NodeId> {
    match upstream {
        primacy_ha::Upstream::Nobody | primacy_ha::Upstream::Remote(_) => None,
        primacy_ha::Upstream::Member { name, .. } => World::node_of(name),
    }
}
