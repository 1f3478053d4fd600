//! The world: one queue of what happens next, one random number generator, and everything that the run is made of.
//!
//! A run is a function of its [`Plan`]. Nothing in it looks at a clock, starts a thread or iterates over something
//! without an order, so the same plan gives the same run, event by event.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use jiff::Timestamp;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::clients::Clients;
use crate::faults::{self, Plan, What};
use crate::history::{Branch, History};
use crate::invariants::{self, Violation};
use crate::network::Network;
use crate::node::Node;
use crate::postgres::Server;
use crate::report::Report;
use crate::store::Store;

/// The number of a node, from zero. Its member is called `n1` and so on.
pub(crate) type NodeId = usize;

/// True time since the run began. Nodes have clocks of their own.
pub(crate) type Instant = Duration;

/// Something that happens at its time.
pub(crate) type Happening = Box<dyn FnOnce(&mut World)>;

struct Scheduled {
    at: Instant,
    number: u64,
    what: Happening,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Everything.
pub(crate) struct World {
    now: Instant,
    queue: BinaryHeap<Reverse<Scheduled>>,
    next_number: u64,
    rng: ChaCha8Rng,
    pub(crate) plan: Plan,
    pub(crate) nodes: Vec<Node>,
    pub(crate) servers: Vec<Server>,
    pub(crate) store: Store,
    pub(crate) network: Network,
    pub(crate) history: History,
    pub(crate) clients: Clients,
    pub(crate) report: Report,
    pub(crate) violation: Option<Violation>,
    /// Faults that last: number, node, what.
    pub(crate) active: Vec<(usize, NodeId, What)>,
    /// When a fault began or ended last.
    pub(crate) disturbed_at: Instant,
    /// Whom a fault of the leader's hit last.
    pub(crate) last_hit: NodeId,
    trace: Option<Vec<String>>,
    /// Of everything that was traced, or would have been.
    hash: u64,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// What was violated, if anything was.
    pub violation: Option<Violation>,
    /// Counters.
    pub report: Report,
    /// Equal for equal runs.
    pub hash: u64,
    /// The events in readable form, if they were asked for.
    pub trace: Vec<String>,
}

/// After the faults the cluster gets so long to heal.
const HEALING: Duration = Duration::from_secs(900);

/// So often it is looked at who leads after the faults.
const LOOK: Duration = Duration::from_millis(500);

/// Runs the plan to its end, or to the first violation.
pub fn run(plan: Plan, trace: bool) -> Outcome {
    let mut world = World::new(plan, trace);
    world.run();
    Outcome {
        violation: world.violation,
        report: world.report,
        hash: world.hash,
        trace: world.trace.unwrap_or_default(),
    }
}

impl World {
    pub(crate) fn new(plan: Plan, trace: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
        let count = plan.nodes;
        let nodes = (0..count)
            .map(|id| Node::new(id, &plan, &mut rng))
            .collect();
        World {
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            next_number: 0,
            nodes,
            servers: (0..count).map(|_| Server::default()).collect(),
            store: Store::new(&plan),
            network: Network::new(count),
            history: History::default(),
            clients: Clients::default(),
            report: Report::default(),
            violation: None,
            active: Vec::new(),
            disturbed_at: Duration::ZERO,
            last_hit: 0,
            trace: trace.then(Vec::new),
            hash: 0xcbf2_9ce4_8422_2325,
            rng,
            plan,
        }
    }

    fn run(&mut self) {
        for node in 0..self.nodes.len() {
            let delay = self.millis(0, 3_000);
            self.after(delay, move |world| world.start_agent(node));
            self.schedule_client(node);
        }
        faults::schedule(self);
        let end = self.plan.length;
        self.run_until(end);
        if self.violation.is_none() {
            faults::end_all(self);
            // What came on top of a late fault may begin after the end.
            let late = self.plan.faults.iter().filter(|fault| fault.at > end);
            let late = late.map(|fault| fault.at + fault.lasts).max();
            self.await_primary(late.unwrap_or(end));
            self.run_until(end + HEALING / 2);
            faults::reinitialize_diverged(self);
            self.run_until(end + HEALING);
        }
        if self.violation.is_none() {
            invariants::liveness::check(self);
        }
        self.report.simulated = self.now;
    }

    /// Until somebody leads after the faults.
    fn await_primary(&mut self, end: Instant) {
        self.run_until(end);
        let latest = end + invariants::liveness::allowed(self);
        while self.violation.is_none() && !invariants::liveness::somebody_leads(self) {
            if self.now >= latest {
                return invariants::liveness::late(self, end);
            }
            self.run_until((self.now + LOOK).min(latest));
        }
        self.report.longest_return = self.now - end;
    }

    fn run_until(&mut self, end: Instant) {
        while self.violation.is_none() {
            match self.queue.peek() {
                Some(Reverse(next)) if next.at <= end => {}
                _ => break,
            }
            let Some(Reverse(next)) = self.queue.pop() else {
                break;
            };
            self.now = next.at;
            self.report.events += 1;
            (next.what)(self);
        }
        if self.violation.is_none() {
            self.now = end;
        }
    }

    /// What happens in that time, whatever it violates: servers without agents do as they are told.
    pub(crate) fn let_pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.run_until(end);
            self.violation = None;
        }
    }

    /// True time.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// The true wall clock; nodes' may be off.
    pub(crate) fn wall(&self) -> Timestamp {
        let start = Timestamp::from_second(1_800_000_000).unwrap_or_default();
        start + self.now
    }

    /// Has something happen later.
    pub(crate) fn after(&mut self, delay: Duration, what: impl FnOnce(&mut World) + 'static) {
        self.next_number += 1;
        self.queue.push(Reverse(Scheduled {
            at: self.now + delay,
            number: self.next_number,
            what: Box::new(what),
        }));
    }

    /// A time between these many milliseconds, evenly, to the microsecond.
    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.rng.random_range(from * 1000..=to * 1000))
    }

    /// A number from zero to below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.rng.random_range(0..end)
    }

    /// True so many times in a thousand.
    pub(crate) fn chance(&mut self, in_a_thousand: u32) -> bool {
        self.rng.random_range(0..1000) < in_a_thousand
    }

    /// Notes what happened: into the hash always, into the trace if it was asked for.
    pub(crate) fn trace(&mut self, text: impl FnOnce(&World) -> String, key: [u64; 3]) {
        for value in [u64::try_from(self.now.as_micros()).unwrap_or(0)]
            .iter()
            .chain(&key)
        {
            self.hash = (self.hash ^ value).wrapping_mul(0x0100_0000_01b3);
        }
        if self.trace.is_some() {
            let line = format!("{:>12.6} {}", self.now.as_secs_f64(), text(self));
            if let Some(trace) = &mut self.trace {
                trace.push(line);
            }
        }
    }

    /// The run ends here.
    pub(crate) fn violate(&mut self, invariant: &'static str, text: String) {
        if self.violation.is_none() {
            self.trace(|_| format!("VIOLATION of {invariant}: {text}"), [99, 0, 0]);
            self.violation = Some(Violation {
                invariant,
                at: self.now,
                text,
            });
        }
    }

    /// A name for people and keys.
    pub(crate) fn name(node: NodeId) -> String {
        format!("n{}", node + 1)
    }

    /// The node of that name.
    pub(crate) fn node_of(name: &str) -> Option<NodeId> {
        name.strip_prefix('n')?
            .parse::<usize>()
            .ok()?
            .checked_sub(1)
    }

    /// The branch that a server's WAL is on.
    pub(crate) fn branch_of(&self, node: NodeId) -> Branch {
        self.servers[node].disk.branch
    }
}
