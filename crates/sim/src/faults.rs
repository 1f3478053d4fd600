//! What goes wrong, as data: a plan is drawn from a seed, can be printed, replayed, and made smaller.

use std::time::Duration;

use primacy_ha::{Machine, OperatorRequest, RewindState};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::network::{End, Network};
use crate::themes;
use crate::world::{NodeId, World};

/// Everything that a run is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Of the random numbers during the run.
    pub seed: u64,
    /// How many members.
    pub nodes: usize,
    /// How long faults happen; the cluster then has time to heal.
    #[serde(with = "millis", rename = "length_ms")]
    pub length: Duration,
    /// The cluster's dynamic configuration at the start.
    pub dynamic: Map<String, Value>,
    /// `remove_data_directory_on_diverged_timelines`; else operators reinitialize such members in the end.
    #[serde(default)]
    pub remove_diverged: bool,
    /// `use_pg_rewind` is off: members whose WAL left the leader's are copied anew.
    #[serde(default)]
    pub without_rewind: bool,
    /// `fencing.mode` is `required`.
    #[serde(default)]
    pub fence_required: bool,
    /// pg_rewind is a process that breaks off with its agent or its source, and leaves what nobody can use.
    #[serde(default)]
    pub rewinds_break: bool,
    /// Some commits are cancelled while they wait for standbys, or their backends are terminated.
    #[serde(default)]
    pub impatient_clients: bool,
    /// The tags of a member, if one has any.
    #[serde(default)]
    pub tags: Option<(usize, Value)>,
    /// In the order of their beginning.
    pub faults: Vec<Fault>,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// When it begins.
    #[serde(with = "millis", rename = "at_ms")]
    pub at: Duration,
    /// How long it lasts; means nothing for what only happens.
    #[serde(with = "millis", rename = "for_ms")]
    pub lasts: Duration,
    /// To whom.
    pub whom: Whom,
    /// What.
    pub what: What,
}

/// A node, chosen when the fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whom {
    /// The one that holds the lock; any if nobody does.
    Leader,
    /// One that does not, by its number among those.
    Other(usize),
    /// By number.
    Node(usize),
    /// Whom a fault of the leader's hit last, whether it still leads or not.
    LastLeader,
}

/// What goes wrong, or what an operator does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum What {
    KillAgent,
    TerminateAgent,
    KillPostmaster,
    KillNode,
    FreezeAgent,
    SuspendNode,
    HangServer,
    FillDisk,
    /// The WAL is on a disk of its own: clients write until PostgreSQL panics.
    FillWal,
    SlowDisk,
    /// Recovery and promotions do not come to an end.
    SlowStart,
    /// A backend crashes, and the postmaster with all others recovers.
    CrashBackend,
    CutFromStore,
    CutToStore,
    CutAnswersOfStore,
    CutFromMembers,
    CutFromOne(usize),
    CutOneWay(usize),
    /// Everything takes long on all its links, those to the store among them.
    SlowNetwork,
    /// All its links lose packets.
    LossyNetwork,
    SlowLink(usize),
    LossyLink(usize),
    /// Its API answers nobody; it asks and is answered.
    SilenceApi,
    Isolate,
    MissWatches,
    JumpWallClock(i64),
    StoreWithoutMajority,
    StoreChangesLeader,
    StoreSlow,
    AnswersOfStoreLate,
    RequestsToStoreLate,
    StoreLosesAnswers(u32),
    Switchover {
        candidate: Option<usize>,
    },
    /// As long after it was asked for as the fault lasts.
    ScheduledSwitchover,
    Pause,
    Restart,
    Reinitialize,
    /// Whatever long action is under way.
    ReinitializeAtOnce,
    Configure(String, Value),
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

impl Plan {
    /// Draws a plan.
    pub fn draw(seed: u64, length: Duration) -> Plan {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5eed_0f91_a25e_ed00);
        let nodes = [3, 3, 3, 3, 2, 5, 4][rng.random_range(0..7)];
        let (ttl, loop_wait, retry_timeout) =
            [(30, 10, 10), (20, 5, 5), (8, 2, 2), (60, 10, 20)][rng.random_range(0..4)];
        let mode = [json!(false), json!(true), json!("quorum")][rng.random_range(0..3)].clone();
        let start_timeout = [0, 5, 300][rng.random_range(0..3)];
        let dynamic = json!({
            "ttl": ttl,
            "loop_wait": loop_wait,
            "retry_timeout": retry_timeout,
            "synchronous_mode": mode,
            "synchronous_mode_strict": rng.random_bool(0.25),
            "synchronous_node_count": rng.random_range(1..=2),
            "primary_start_timeout": start_timeout,
            "failsafe_mode": rng.random_bool(0.3),
            "maximum_lag_on_failover": 1_048_576,
            "postgresql": {"use_pg_rewind": true, "use_slots": false},
        });
        let remove_diverged = rng.random_bool(0.5);
        let mut dynamic = dynamic.as_object().cloned().unwrap_or_default();
        // Drawn apart, so that the faults of a seed stay what they were.
        let mut apart = ChaCha8Rng::seed_from_u64(seed ^ 0x0dd5_e771_a65b_a11e);
        let without_rewind = remove_diverged && apart.random_bool(0.2);
        let tags = [
            json!({"nofailover": true}),
            json!({"nosync": true}),
            json!({"failover_priority": 2}),
        ];
        let tags = apart.random_bool(0.3).then(|| {
            let tags = &tags[apart.random_range(0..tags.len())];
            (apart.random_range(0..nodes), tags.clone())
        });
        if apart.random_bool(0.5) {
            let timeout = [10, 20][apart.random_range(0..2)];
            dynamic.insert("primary_hang_timeout".into(), json!(timeout));
        }
        if apart.random_bool(0.2) {
            dynamic.insert("primary_race_backoff".into(), json!(5));
        }
        let fence_required = apart.random_bool(0.2);
        // Some runs have one fault at a time, some have storms.
        let pause = [30.0, 120.0, 400.0][rng.random_range(0..3)];
        let mut faults = Vec::new();
        let mut at = 60.0;
        loop {
            at += -pause * (1.0 - rng.random::<f64>()).ln();
            if Duration::from_secs_f64(at) >= length {
                break;
            }
            // Every second fault comes on top of another one.
            let together = if rng.random_bool(0.4) {
                rng.random_range(1..3)
            } else {
                0
            };
            for _ in 0..=together {
                let offset = if together > 0 {
                    rng.random_range(0.0..15.0)
                } else {
                    0.0
                };
                faults.push(draw_fault(&mut rng, whole_millis(at + offset), nodes));
            }
        }
        for what in [What::ScheduledSwitchover, What::ReinitializeAtOnce] {
            for _ in 0..apart.random_range(0..4) {
                let at = apart.random_range(0.0..length.as_secs_f64());
                let fault = draw_fault(&mut apart, whole_millis(at), nodes);
                let what = what.clone();
                faults.push(Fault { what, ..fault });
            }
        }
        // A link that fills up, and then is of no use at all.
        for _ in 0..apart.random_range(0..3) {
            let at = apart.random_range(0.0..length.as_secs_f64());
            let late = draw_fault(&mut apart, whole_millis(at), nodes);
            let cut = Fault {
                at: late.at + late.lasts,
                lasts: whole_millis(apart.random_range(10.0..90.0)),
                whom: late.whom,
                what: What::CutFromStore,
            };
            let what = What::AnswersOfStoreLate;
            faults.extend([Fault { what, ..late }, cut]);
        }
        faults.sort_by_key(|fault| fault.at);
        let mut plan = Plan {
            seed,
            nodes,
            length,
            dynamic,
            remove_diverged,
            without_rewind,
            fence_required,
            rewinds_break: false,
            impatient_clients: false,
            tags,
            faults,
        };
        if seed >= LATER {
            add_later(&mut plan);
        }
        themes::direct(&mut plan);
        plan
    }
}

/// Seeds before this one keep what was drawn for them when there were fewer faults: what they found is written down.
pub(crate) const LATER: u64 = 990_000;

/// What came into the model later.
fn add_later(plan: &mut Plan) {
    let mut rng = ChaCha8Rng::seed_from_u64(plan.seed ^ 0x1a7e_2fa0_1750_0b0e);
    plan.rewinds_break = true;
    plan.impatient_clients = rng.random_bool(0.5);
    let (length, before) = (plan.length.as_secs_f64(), plan.faults.len());
    let other = rng.random_range(0..plan.nodes);
    for what in [
        What::SlowStart,
        What::CrashBackend,
        What::FillWal,
        What::SlowNetwork,
        What::LossyNetwork,
        What::SlowLink(other),
        What::LossyLink(other),
    ] {
        for _ in 0..rng.random_range(0..4) {
            // Half of them come with another fault.
            let at = match before > 0 && rng.random_bool(0.5) {
                true => plan.faults[rng.random_range(0..before)].at.as_secs_f64(),
                false => rng.random_range(0.0..length),
            };
            let fault = draw_fault(&mut rng, whole_millis(at), plan.nodes);
            let lasts = match what {
                // primary_start_timeout, of 300 s at most, ends meanwhile at times.
                What::SlowStart => whole_millis(5.0 * 80f64.powf(rng.random::<f64>())),
                _ => fault.lasts,
            };
            let what = what.clone();
            plan.faults.push(Fault {
                what,
                lasts,
                ..fault
            });
        }
    }
    plan.faults.sort_by_key(|fault| fault.at);
}

/// As a plan's file has it, so that a plan read back is the same plan.
pub(crate) fn whole_millis(seconds: f64) -> Duration {
    Duration::from_millis((seconds * 1000.0) as u64)
}

fn draw_fault(rng: &mut ChaCha8Rng, at: Duration, nodes: usize) -> Fault {
    let whom = match rng.random_range(0..10) {
        0..6 => Whom::Leader,
        6..9 => Whom::Other(rng.random_range(0..nodes)),
        _ => Whom::Node(rng.random_range(0..nodes)),
    };
    // From half a second to three minutes, as often short as long.
    let lasts = whole_millis(0.5 * 360f64.powf(rng.random::<f64>()));
    let other = rng.random_range(0..nodes);
    let what = match rng.random_range(0..100) {
        0..6 => What::KillAgent,
        6..9 => What::TerminateAgent,
        9..17 => What::KillPostmaster,
        17..25 => What::KillNode,
        25..32 => What::FreezeAgent,
        32..38 => What::SuspendNode,
        38..42 => What::HangServer,
        42..45 => What::FillDisk,
        45..48 => What::SlowDisk,
        48..52 => What::CutFromStore,
        52..54 => What::CutToStore,
        54..56 => What::CutAnswersOfStore,
        56..60 => What::CutFromMembers,
        60..62 => What::CutFromOne(other),
        62..65 => What::CutOneWay(other),
        65..71 => What::Isolate,
        71..73 => What::MissWatches,
        73..74 => What::JumpWallClock(rng.random_range(-100_000..100_000)),
        74..78 => What::StoreWithoutMajority,
        78..80 => What::StoreChangesLeader,
        80..82 => What::StoreSlow,
        82..85 => What::StoreLosesAnswers(rng.random_range(50..600)),
        85..90 => What::Switchover {
            candidate: rng.random_bool(0.5).then_some(other),
        },
        90..91 => What::Pause,
        91..94 => What::Restart,
        94..96 => What::Reinitialize,
        _ => match rng.random_range(0..4) {
            0 => What::Configure("synchronous_mode".into(), json!("quorum")),
            1 => What::Configure("synchronous_mode".into(), json!(true)),
            2 => What::Configure("synchronous_mode".into(), json!(false)),
            _ => What::Configure(
                "synchronous_node_count".into(),
                json!(rng.random_range(1..3)),
            ),
        },
    };
    Fault {
        at,
        lasts,
        whom,
        what,
    }
}

/// Puts all faults into the queue.
pub(crate) fn schedule(world: &mut World) {
    for index in 0..world.plan.faults.len() {
        let at = world.plan.faults[index].at;
        world.after(at, move |world| begin(world, index));
    }
}

fn begin(world: &mut World, index: usize) {
    let fault = world.plan.faults[index].clone();
    let leader = world.store.leader.as_ref().map(|leader| leader.value);
    let count = world.nodes.len();
    let node = match fault.whom {
        Whom::Leader => leader.unwrap_or(index % count),
        Whom::LastLeader => world.last_hit,
        Whom::Other(number) => {
            let others: Vec<NodeId> = (0..count).filter(|node| Some(*node) != leader).collect();
            others[number % others.len()]
        }
        Whom::Node(number) => number % count,
    };
    if fault.whom == Whom::Leader {
        world.last_hit = node;
    }
    let what = resolve(fault.what, node, count);
    *world.report.faults.entry(kind(&what)).or_default() += 1;
    let told = what.clone();
    world.trace(
        move |_| format!("FAULT {} {told:?} for {:?}", World::name(node), fault.lasts),
        [40, index as u64, node as u64],
    );
    world.disturbed_at = world.now();
    apply(world, node, &what, fault.lasts, true);
    world.active.push((index, node, what));
    world.after(fault.lasts, move |world| end(world, index));
}

/// Numbers of other nodes become such.
fn resolve(what: What, node: NodeId, count: usize) -> What {
    let other = |number: usize| {
        let number = number % count;
        if number == node {
            (number + 1) % count
        } else {
            number
        }
    };
    match what {
        What::CutFromOne(number) => What::CutFromOne(other(number)),
        What::CutOneWay(number) => What::CutOneWay(other(number)),
        What::SlowLink(number) => What::SlowLink(other(number)),
        What::LossyLink(number) => What::LossyLink(other(number)),
        What::Switchover { candidate } => What::Switchover {
            candidate: candidate.map(other),
        },
        what => what,
    }
}

fn end(world: &mut World, index: usize) {
    if let Some(position) = world
        .active
        .iter()
        .position(|(number, _, _)| *number == index)
    {
        world.disturbed_at = world.now();
        let (_, node, what) = world.active.remove(position);
        apply(world, node, &what, Duration::ZERO, false);
    }
}

/// No fault lasts longer.
pub(crate) fn end_all(world: &mut World) {
    world.disturbed_at = world.now();
    for (_, node, what) in std::mem::take(&mut world.active) {
        apply(world, node, &what, Duration::ZERO, false);
    }
    world.network.mend_all();
    for node in 0..world.nodes.len() {
        world.start_agent(node);
    }
    world.pump_all();
}

fn apply(world: &mut World, node: NodeId, what: &What, lasts: Duration, begins: bool) {
    let count = world.nodes.len();
    match what {
        What::KillAgent => {
            out(world, node, begins);
            if begins {
                world.kill_agent(node);
            }
        }
        What::TerminateAgent => {
            if begins {
                world.terminate_agent(node);
            }
        }
        What::KillPostmaster => {
            if begins {
                world.kill_server(node, "SIGKILL");
            }
        }
        What::KillNode => {
            out(world, node, begins);
            if begins {
                world.kill_agent(node);
                world.lose_fence(node);
                world.kill_server(node, "machine");
            }
        }
        What::FreezeAgent => {
            count_fault(&mut world.nodes[node].frozen, begins);
            if !begins {
                world.thaw(node);
            }
        }
        What::SuspendNode => {
            count_fault(&mut world.nodes[node].suspended, begins);
            let now = world.now();
            world.servers[node].hang(begins, now);
            if !begins {
                world.thaw(node);
                resume_server(world, node);
            }
        }
        What::HangServer => {
            let now = world.now();
            world.servers[node].hang(begins, now);
            if !begins {
                resume_server(world, node);
            }
        }
        What::FillDisk => count_fault(&mut world.servers[node].full, begins),
        What::FillWal => count_fault(&mut world.servers[node].wal_full, begins),
        What::SlowStart => count_fault(&mut world.servers[node].slow_start, begins),
        What::CrashBackend => {
            if begins && world.servers[node].hung == 0 {
                world.crash_restart(node, "SIGKILL of a backend");
            }
        }
        What::SlowDisk => count_fault(&mut world.servers[node].slow, begins),
        What::CutFromStore => {
            link(world, End::Node(node), End::Store, begins);
            link(world, End::Store, End::Node(node), begins);
        }
        What::CutToStore => link(world, End::Node(node), End::Store, begins),
        What::CutAnswersOfStore => link(world, End::Store, End::Node(node), begins),
        What::CutFromMembers => {
            for other in (0..count).filter(|other| *other != node) {
                both(world, node, other, begins);
            }
        }
        What::CutFromOne(other) => both(world, node, *other, begins),
        What::CutOneWay(other) => link(world, End::Node(node), End::Node(*other), begins),
        What::SlowNetwork => weaken(world, node, &everybody(world, node), Network::slow, begins),
        What::LossyNetwork => weaken(world, node, &everybody(world, node), Network::lossy, begins),
        What::SlowLink(other) => weaken(world, node, &[End::Node(*other)], Network::slow, begins),
        What::LossyLink(other) => weaken(world, node, &[End::Node(*other)], Network::lossy, begins),
        What::SilenceApi => count_fault(&mut world.network.silent_api[node], begins),
        What::Isolate => {
            for other in (0..count).filter(|other| *other != node) {
                both(world, node, other, begins);
            }
            link(world, End::Node(node), End::Store, begins);
            link(world, End::Store, End::Node(node), begins);
        }
        What::MissWatches => count_fault(&mut world.nodes[node].deaf, begins),
        What::JumpWallClock(seconds) => {
            if begins {
                world.nodes[node].wall_offset += seconds;
            }
        }
        What::StoreWithoutMajority => {
            count_fault(&mut world.store.down, begins);
            if !begins && world.store.down == 0 {
                world.store_returns();
            }
        }
        What::StoreChangesLeader => {
            if begins {
                world.renew_all_leases();
            }
        }
        What::StoreSlow => count_fault(&mut world.network.slow_store, begins),
        What::AnswersOfStoreLate => count_fault(&mut world.network.late_store[node], begins),
        What::RequestsToStoreLate => count_fault(&mut world.network.late_requests[node], begins),
        What::StoreLosesAnswers(often) => {
            world.network.lossy_store = if begins { *often } else { 0 }
        }
        What::Switchover { candidate } => {
            if begins && let Some(leader) = world.store.leader.as_ref().map(|leader| leader.value) {
                let candidate = candidate
                    .filter(|candidate| *candidate != leader)
                    .map(World::name);
                let text = json!({"leader": World::name(leader), "member": candidate}).to_string();
                world.write_failover(&text, None);
            }
        }
        What::ScheduledSwitchover => {
            if begins && let Some(leader) = world.store.leader.as_ref().map(|leader| leader.value) {
                let at = (world.wall() + lasts).to_string();
                let text = json!({"leader": World::name(leader), "scheduled_at": at}).to_string();
                world.write_failover(&text, None);
            }
        }
        What::Pause => configure(world, "pause", json!(begins)),
        What::Restart => {
            if begins {
                let request = OperatorRequest::Restart {
                    id: 1,
                    role: None,
                    below_version: None,
                    pending: false,
                    timeout: None,
                };
                world.operate(node, request);
            }
        }
        What::Reinitialize => {
            if begins {
                reinitialize(world, node, false);
            }
        }
        What::ReinitializeAtOnce => {
            if begins {
                reinitialize(world, node, true);
            }
        }
        What::Configure(key, value) => {
            if begins {
                configure(world, key, value.clone());
            }
        }
    }
}

fn count_fault(counter: &mut u32, begins: bool) {
    *counter = if begins {
        *counter + 1
    } else {
        counter.saturating_sub(1)
    };
}

fn out(world: &mut World, node: NodeId, begins: bool) {
    count_fault(&mut world.nodes[node].out, begins);
    if !begins {
        world.start_agent(node);
    }
}

fn resume_server(world: &mut World, node: NodeId) {
    if world.servers[node].hung == 0 {
        world.unstall(node);
    }
}

fn link(world: &mut World, from: End, to: End, begins: bool) {
    if begins {
        world.network.cut(from, to);
    } else {
        world.network.mend(from, to);
    }
    if let (End::Node(from), End::Node(to)) = (from, to) {
        if begins {
            world.link_cut(from, to);
        } else {
            world.pump_all();
        }
    }
}

fn everybody(world: &World, but: NodeId) -> Vec<End> {
    let nodes = (0..world.nodes.len()).filter(|node| *node != but);
    nodes.map(End::Node).chain([End::Store]).collect()
}

/// The links between a node and these ends, in both directions.
fn weaken(
    world: &mut World,
    node: NodeId,
    ends: &[End],
    how: fn(&mut Network, End, End) -> &mut u32,
    begins: bool,
) {
    for end in ends {
        count_fault(how(&mut world.network, End::Node(node), *end), begins);
        count_fault(how(&mut world.network, *end, End::Node(node)), begins);
    }
}

fn both(world: &mut World, one: NodeId, other: NodeId, begins: bool) {
    link(world, End::Node(one), End::Node(other), begins);
    link(world, End::Node(other), End::Node(one), begins);
}

/// `edit-config`.
fn configure(world: &mut World, key: &str, value: Value) {
    let Some(config) = &world.store.config else {
        return;
    };
    let mut dynamic = config.value.clone();
    dynamic.insert(key.to_owned(), value);
    world.write_config(dynamic);
    if world.synchronous_mode() == primacy_config::SynchronousMode::Off {
        world.history_of_commits().forget_guarantees();
    }
}

fn kind(what: &What) -> &'static str {
    match what {
        What::KillAgent => "agent killed",
        What::TerminateAgent => "agent terminated",
        What::KillPostmaster => "postmaster killed",
        What::KillNode => "machine lost",
        What::FreezeAgent => "agent frozen",
        What::SuspendNode => "machine suspended",
        What::HangServer => "server hangs",
        What::FillDisk => "disk full",
        What::FillWal => "disk of the WAL full",
        What::SlowDisk => "disk slow",
        What::SlowStart => "start slow",
        What::CrashBackend => "backend crashed",
        What::CutFromStore => "cut from the store",
        What::CutToStore => "cut towards the store",
        What::CutAnswersOfStore => "cut from the store's answers",
        What::CutFromMembers => "cut from all members",
        What::CutFromOne(_) => "cut from one member",
        What::CutOneWay(_) => "cut from one member, one way",
        What::SlowNetwork => "network slow",
        What::LossyNetwork => "network lossy",
        What::SlowLink(_) => "link slow",
        What::LossyLink(_) => "link lossy",
        What::SilenceApi => "API silent",
        What::Isolate => "isolated",
        What::MissWatches => "watches missed",
        What::JumpWallClock(_) => "wall clock jumps",
        What::StoreWithoutMajority => "store without majority",
        What::StoreChangesLeader => "store changes its leader",
        What::StoreSlow => "store slow",
        What::AnswersOfStoreLate => "store's answers late",
        What::RequestsToStoreLate => "requests to the store late",
        What::StoreLosesAnswers(_) => "store's answers lost",
        What::Switchover { .. } => "switchover",
        What::ScheduledSwitchover => "switchover, scheduled",
        What::Pause => "pause",
        What::Restart => "restart",
        What::Reinitialize => "reinitialize",
        What::ReinitializeAtOnce => "reinitialize, at once",
        What::Configure(..) => "configuration changed",
    }
}

fn reinitialize(world: &mut World, node: NodeId, force: bool) {
    world.nodes[node].reinitialize_asked = true;
    let request = OperatorRequest::Reinitialize {
        id: 2,
        force,
        from_leader: false,
    };
    world.operate(node, request);
}

/// What operators do about members that say that they need it.
pub(crate) fn reinitialize_diverged(world: &mut World) {
    for node in 0..world.nodes.len() {
        let failed = |machine: &Machine| machine.memory().rewind == RewindState::Failed;
        let half_rewound = world.servers[node].disk.half_rewound;
        if half_rewound || world.machine(node).is_some_and(failed) {
            reinitialize(world, node, false);
        }
    }
}
