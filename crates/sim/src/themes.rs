//! Faults that belong together, in the order that hurts.
//!
//! What is drawn one by one meets a mistake that takes three faults in one order, within seconds, once in thousands of
//! hours. Every second seed has a theme: the same storm again and again, each time with other delays, and little else.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::faults::{Fault, LATER, Plan, What, Whom, whole_millis};

/// The seeds up to here are those of every test run. They keep the faults that they had before there were themes.
const WITHOUT_THEME: u64 = 120;
/// Of the faults that were drawn one by one, a seed with a theme keeps so many.
const KEPT: f64 = 0.1;
/// The cluster comes to rest between two storms.
const REST: f64 = 45.0;

/// One storm, as it is drawn; times are seconds.
struct Storm<'a> {
    rng: &'a mut ChaCha8Rng,
    /// The cluster's `ttl`.
    ttl: f64,
    nodes: usize,
    begin: f64,
    faults: Vec<Fault>,
}

/// What a theme asks of the cluster, and its storm.
struct Theme {
    prepare: fn(&mut Plan, &mut ChaCha8Rng),
    storm: fn(&mut Storm<'_>),
}

const THEMES: &[Theme] = &[
    Theme {
        prepare: |_, _| {},
        storm: agent_away_when_a_pause_ends,
    },
    Theme {
        prepare: |_, _| {},
        storm: former_primary_of_a_pause,
    },
    Theme {
        prepare: patient,
        storm: frozen_as_soon_as_it_leads,
    },
    Theme {
        prepare: synchronous,
        storm: late_writes_of_sync,
    },
    Theme {
        prepare: quorum_of_many,
        storm: standbys_come_and_go,
    },
    Theme {
        prepare: |plan, _| set(plan, "failsafe_mode", json!(true)),
        storm: promises_that_end,
    },
    Theme {
        prepare: |plan, _| set(plan, "synchronous_mode", json!(false)),
        storm: nobody_left_but_a_diverged_one,
    },
];

/// Those of the seeds from [`LATER`] on, in addition.
const LATER_THEMES: &[Theme] = &[
    Theme {
        prepare: |_, _| {},
        storm: slow_recovery,
    },
    Theme {
        prepare: synchronous,
        storm: weak_network,
    },
    Theme {
        prepare: |_, _| {},
        storm: no_space_for_wal,
    },
    Theme {
        prepare: |plan, rng| {
            synchronous(plan, rng);
            plan.impatient_clients = true;
        },
        storm: commits_that_are_not_waited_for,
    },
    Theme {
        prepare: |_, _| {},
        storm: rewinds_that_break_off,
    },
    Theme {
        prepare: |plan, _| set(plan, "failsafe_mode", json!(true)),
        storm: promises_that_hold,
    },
    Theme {
        prepare: |_, _| {},
        storm: promotions_that_outlive_their_agent,
    },
];

/// Gives every second plan a theme.
pub(crate) fn direct(plan: &mut Plan) {
    let mut rng = ChaCha8Rng::seed_from_u64(plan.seed ^ 0x7e3e_5707_12a9_c0de);
    if plan.seed <= WITHOUT_THEME || rng.random_bool(0.5) {
        return;
    }
    let later = match plan.seed < LATER {
        true => &[],
        false => LATER_THEMES,
    };
    let themes: Vec<&Theme> = THEMES.iter().chain(later).collect();
    let theme = themes[rng.random_range(0..themes.len())];
    (theme.prepare)(plan, &mut rng);
    plan.faults.retain(|_| rng.random_bool(KEPT));
    let ttl = plan.dynamic.get("ttl").and_then(Value::as_f64);
    let ttl = ttl.unwrap_or(30.0);
    let mut begin = 60.0;
    while whole_millis(begin) < plan.length {
        let mut storm = Storm {
            rng: &mut rng,
            ttl,
            nodes: plan.nodes,
            begin,
            faults: Vec::new(),
        };
        (theme.storm)(&mut storm);
        let ends = storm.faults.iter().map(|fault| fault.at + fault.lasts);
        let end = ends.max().unwrap_or(Duration::ZERO).as_secs_f64();
        let length = plan.length;
        let faults = storm.faults.into_iter().filter(|fault| fault.at < length);
        plan.faults.extend(faults);
        begin = end + REST + rng.random_range(0.0..ttl);
    }
    plan.faults.sort_by_key(|fault| fault.at);
}

fn set(plan: &mut Plan, key: &str, value: Value) {
    plan.dynamic.insert(key.into(), value);
}

/// Synchronous replication, and little patience with the store.
fn synchronous(plan: &mut Plan, rng: &mut ChaCha8Rng) {
    let (ttl, loop_wait, retry_timeout) = [(8, 2, 2), (20, 5, 5)][rng.random_range(0..2)];
    set(plan, "ttl", json!(ttl));
    set(plan, "loop_wait", json!(loop_wait));
    set(plan, "retry_timeout", json!(retry_timeout));
    let mode = [json!(true), json!("quorum")][rng.random_range(0..2)].clone();
    set(plan, "synchronous_mode", mode);
}

/// The store may take longer for an answer than another member for taking over.
fn patient(plan: &mut Plan, rng: &mut ChaCha8Rng) {
    let (ttl, retry_timeout) = [(30, 10), (60, 20)][rng.random_range(0..2)];
    set(plan, "ttl", json!(ttl));
    set(plan, "loop_wait", json!(10));
    set(plan, "retry_timeout", json!(retry_timeout));
    set(plan, "synchronous_mode", json!(false));
    set(plan, "failsafe_mode", json!(false));
}

fn quorum_of_many(plan: &mut Plan, rng: &mut ChaCha8Rng) {
    plan.nodes = rng.random_range(4..=5);
    set(plan, "synchronous_mode", json!("quorum"));
}

impl Storm<'_> {
    fn between(&mut self, from: f64, to: f64) -> f64 {
        self.rng.random_range(from..to)
    }

    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.rng.random_range(0..choices.len())].clone()
    }

    fn other(&mut self) -> Whom {
        Whom::Other(self.rng.random_range(0..self.nodes))
    }

    /// So long after the storm began.
    fn add(&mut self, after: f64, lasts: f64, whom: Whom, what: What) {
        let at = whole_millis(self.begin + after);
        let lasts = whole_millis(lasts);
        self.faults.push(Fault {
            at,
            lasts,
            whom,
            what,
        });
    }
}

/// Nobody is there when a pause ends, and its fence is off: whoever comes back finds a primary without a lease, and something
/// happens to him before he has one.
fn agent_away_when_a_pause_ends(storm: &mut Storm<'_>) {
    let pause = storm.between(10.0, 40.0);
    let away = pause - storm.between(0.0, 10.0);
    let back = pause + storm.between(0.0, storm.ttl);
    storm.add(0.0, pause, Whom::Leader, What::Pause);
    storm.add(away, back - away, Whom::Leader, What::KillAgent);
    let slow = storm.one_of(&[
        What::AnswersOfStoreLate,
        What::RequestsToStoreLate,
        What::StoreSlow,
        What::CutAnswersOfStore,
        What::CutFromStore,
    ]);
    let (before, lasts) = (storm.between(0.0, 5.0), storm.between(5.0, 60.0));
    storm.add(back - before, lasts, Whom::LastLeader, slow);
    let blow = storm.one_of(&[
        What::FreezeAgent,
        What::FreezeAgent,
        What::SuspendNode,
        What::KillAgent,
        What::CutFromStore,
    ]);
    let (soon, lasts) = (storm.between(0.0, 10.0), storm.between(90.0, 200.0));
    storm.add(back + soon, lasts, Whom::LastLeader, blow);
}

/// Writes of the leader's arrive long after they were given up, and standbys come and go meanwhile.
fn late_writes_of_sync(storm: &mut Storm<'_>) {
    let lasts = storm.between(10.0, 60.0);
    let late = storm.one_of(&[
        What::RequestsToStoreLate,
        What::RequestsToStoreLate,
        What::StoreSlow,
        What::AnswersOfStoreLate,
    ]);
    storm.add(0.0, lasts, Whom::Leader, late);
    let mut at = 0.0;
    while at < lasts {
        at += storm.between(0.2, 6.0);
        let short = storm.between(0.2, 8.0);
        let whom = storm.other();
        let what = storm.one_of(&[
            What::CutFromMembers,
            What::KillPostmaster,
            What::SuspendNode,
            What::TerminateAgent,
            What::KillNode,
        ]);
        storm.add(at, short, whom, what);
        if storm.rng.random_bool(0.2) {
            let what = storm.one_of(&[
                What::KillAgent,
                What::KillPostmaster,
                What::Switchover { candidate: None },
                What::FreezeAgent,
                What::CutFromStore,
                What::RequestsToStoreLate,
            ]);
            let (soon, short) = (storm.between(0.0, 2.0), storm.between(0.2, 8.0));
            storm.add(at + soon, short, Whom::Leader, what);
        }
    }
}

/// A primary runs on through a pause without an agent. Another one leads after the pause, and is lost when the first one's agent
/// is back.
fn former_primary_of_a_pause(storm: &mut Storm<'_>) {
    let pause = storm.between(10.0, 20.0);
    let away = pause - storm.between(0.0, 8.0);
    let lost = pause + storm.ttl + storm.between(0.0, 15.0);
    let back = lost + storm.between(-10.0, storm.ttl);
    storm.add(0.0, pause, Whom::Leader, What::Pause);
    storm.add(away, back - away, Whom::Leader, What::KillAgent);
    let lasts = storm.between(60.0, 180.0);
    storm.add(lost, lasts, Whom::Leader, What::KillNode);
    if storm.rng.random_bool(0.7) {
        let (soon, lasts) = (storm.between(-5.0, 5.0), storm.between(30.0, 180.0));
        let whom = storm.other();
        storm.add(lost + soon, lasts, whom, What::KillNode);
    }
}

/// A member takes the lock while the store's answers are late, and is frozen before the first renewal.
fn frozen_as_soon_as_it_leads(storm: &mut Storm<'_>) {
    let frozen = storm.between(8.0, 35.0);
    for node in 0..storm.nodes {
        storm.add(0.0, frozen, Whom::Node(node), What::AnswersOfStoreLate);
    }
    let (change, lasts) = (storm.between(0.0, 4.0), storm.between(1.0, 60.0));
    let what = storm.one_of(&[
        What::Switchover { candidate: None },
        What::TerminateAgent,
        What::KillNode,
    ]);
    storm.add(change, lasts, Whom::Leader, what);
    let lasts = storm.ttl * 1.5 + storm.between(5.0, 20.0);
    let what = storm.one_of(&[What::FreezeAgent, What::KillAgent]);
    storm.add(frozen, lasts, Whom::Leader, what);
}

/// In quorum mode, several standbys are lost and return while the names and `/sync` still follow the change before.
fn standbys_come_and_go(storm: &mut Storm<'_>) {
    let lasts = storm.between(20.0, 90.0);
    let mut at = 0.0;
    while at < lasts {
        at += storm.between(0.1, 6.0);
        let short = storm.between(0.5, 20.0);
        let whom = storm.other();
        let count = storm.rng.random_range(1..=3);
        let what = storm.one_of(&[
            What::CutFromMembers,
            What::CutFromMembers,
            What::KillPostmaster,
            What::SuspendNode,
            What::KillNode,
            What::SlowDisk,
            What::Configure("synchronous_node_count".into(), json!(count)),
        ]);
        storm.add(at, short, whom, what);
    }
    if storm.rng.random_bool(0.3) {
        let short = storm.between(1.0, 20.0);
        storm.add(lasts, short, Whom::Leader, What::KillNode);
    }
}

/// In failsafe mode the leader that lives by promises says nothing any more, and those who promised are restarted.
fn promises_that_end(storm: &mut Storm<'_>) {
    let silent = storm.ttl * storm.between(0.7, 3.0);
    let lasts = storm.ttl * 1.5 + storm.between(5.0, 20.0);
    storm.add(0.0, silent + lasts, Whom::Leader, What::CutFromStore);
    if storm.rng.random_bool(0.4) {
        return mode_is_switched_off(storm, silent, lasts);
    }
    let what = storm.one_of(&[
        What::FreezeAgent,
        What::FreezeAgent,
        What::CutFromMembers,
        What::SuspendNode,
    ]);
    storm.add(silent, lasts, Whom::LastLeader, what);
    for _ in 0..storm.rng.random_range(0..=2) {
        let (soon, short) = (storm.between(-3.0, 5.0), storm.between(0.2, 4.0));
        let whom = storm.other();
        storm.add(silent + soon, short, whom, What::KillAgent);
    }
}

/// Who promised does so no more, or forgets it, and cannot ask the leader, which does not know that the mode is off.
fn mode_is_switched_off(storm: &mut Storm<'_>, after: f64, lasts: f64) {
    let switched = |on: bool| What::Configure("failsafe_mode".into(), json!(on));
    if storm.rng.random_bool(0.5) {
        storm.add(0.0, after + lasts, Whom::LastLeader, What::SilenceApi);
    } else {
        let (soon, short) = (storm.between(0.0, 3.0), storm.between(0.2, 4.0));
        let whom = storm.other();
        storm.add(after + soon, short, whom, What::KillAgent);
    }
    storm.add(after, 1.0, Whom::Leader, switched(false));
    storm.add(after + lasts, 1.0, Whom::Leader, switched(true));
}

/// A primary that wrote what nobody else has returns when another one leads, which is lost before the first one was rewound.
fn nobody_left_but_a_diverged_one(storm: &mut Storm<'_>) {
    let apart = storm.between(0.0, 20.0);
    let cut = storm.ttl + storm.between(2.0, 10.0);
    storm.add(0.0, apart + cut, Whom::Leader, What::CutFromMembers);
    storm.add(apart, cut, Whom::LastLeader, What::Isolate);
    let back = apart + cut;
    let (lost, lasts) = (storm.between(-1.0, 20.0), storm.between(40.0, 120.0));
    let what = storm.one_of(&[What::KillNode, What::Isolate]);
    storm.add(back + lost, lasts, Whom::Leader, what);
    if storm.rng.random_bool(0.7) {
        let (soon, lasts) = (storm.between(-5.0, 5.0), storm.between(30.0, 120.0));
        let whom = storm.other();
        storm.add(back + lost + soon, lasts, whom, What::KillNode);
    }
}

/// A primary, or who takes its place, takes longer to come up than `primary_start_timeout`, or than anybody would wait.
fn slow_recovery(storm: &mut Storm<'_>) {
    let slow = 10.0 * 40f64.powf(storm.between(0.0, 1.0));
    storm.add(0.0, slow, Whom::Leader, What::SlowStart);
    let blow = storm.one_of(&[
        What::KillPostmaster,
        What::CrashBackend,
        What::KillNode,
        What::Restart,
        What::SuspendNode,
        What::KillAgent,
    ]);
    let (soon, lasts) = (storm.between(0.0, 5.0), storm.between(0.5, 20.0));
    storm.add(soon, lasts, Whom::LastLeader, blow);
    if storm.rng.random_bool(0.5) {
        // Whoever is promoted then.
        let (soon, lasts) = (storm.between(0.0, 10.0), storm.between(10.0, 120.0));
        let whom = storm.other();
        storm.add(soon, lasts, whom, What::SlowStart);
    }
    let next = storm.one_of(&[
        What::CutFromStore,
        What::KillPostmaster,
        What::KillAgent,
        What::FreezeAgent,
        What::StoreWithoutMajority,
        What::Switchover { candidate: None },
    ]);
    let whom = storm.one_of(&[Whom::Leader, Whom::LastLeader]);
    let (later, lasts) = (storm.between(2.0, slow), storm.between(1.0, 60.0));
    storm.add(later, lasts, whom, next);
}

/// Links that delay and lose, while leadership changes.
fn weak_network(storm: &mut Storm<'_>) {
    let lasts = storm.between(20.0, 180.0);
    for _ in 0..storm.rng.random_range(1..=3) {
        let to = storm.rng.random_range(0..storm.nodes);
        let what = storm.one_of(&[
            What::SlowNetwork,
            What::LossyNetwork,
            What::SlowLink(to),
            What::LossyLink(to),
        ]);
        let other = storm.other();
        let whom = storm.one_of(&[Whom::Leader, other]);
        storm.add(0.0, lasts, whom, what);
    }
    let mut at = 0.0;
    while at < lasts {
        at += storm.between(1.0, 30.0);
        let what = storm.one_of(&[
            What::KillPostmaster,
            What::KillAgent,
            What::KillNode,
            What::CrashBackend,
            What::Switchover { candidate: None },
            What::CutFromStore,
            What::CutFromMembers,
            What::FreezeAgent,
        ]);
        let short = storm.between(0.2, 40.0);
        let other = storm.other();
        let whom = storm.one_of(&[Whom::Leader, Whom::Leader, other]);
        storm.add(at, short, whom, what);
    }
}

/// The disk of the WAL fills up, here or on several members, and has space again.
fn no_space_for_wal(storm: &mut Storm<'_>) {
    let full = storm.between(1.0, 120.0);
    storm.add(0.0, full, Whom::Leader, What::FillWal);
    for _ in 0..storm.rng.random_range(0..=2) {
        let (soon, lasts) = (storm.between(0.0, 20.0), storm.between(1.0, 120.0));
        let whom = storm.other();
        storm.add(soon, lasts, whom, What::FillWal);
    }
    if storm.rng.random_bool(0.5) {
        let what = storm.one_of(&[
            What::KillAgent,
            What::Switchover { candidate: None },
            What::CutFromStore,
            What::Restart,
            What::Pause,
        ]);
        let (soon, lasts) = (storm.between(0.0, full), storm.between(1.0, 40.0));
        storm.add(soon, lasts, Whom::Leader, what);
    }
}

/// Commits wait for standbys that are away, are cancelled, and the primary is lost or crashes.
fn commits_that_are_not_waited_for(storm: &mut Storm<'_>) {
    let lasts = storm.between(5.0, 40.0);
    for node in 0..storm.nodes {
        if storm.rng.random_bool(0.7) {
            let (soon, away) = (storm.between(0.0, 5.0), storm.between(3.0, lasts));
            let what = storm.one_of(&[
                What::CutFromMembers,
                What::SuspendNode,
                What::KillPostmaster,
                What::SlowNetwork,
            ]);
            storm.add(soon, away, Whom::Other(node), what);
        }
    }
    let (after, away) = (storm.between(0.0, lasts), storm.between(1.0, 60.0));
    let what = storm.one_of(&[
        What::CrashBackend,
        What::KillPostmaster,
        What::KillNode,
        What::Isolate,
        What::Switchover { candidate: None },
    ]);
    storm.add(after, away, Whom::Leader, what);
}

/// A former primary is rewound, and loses its agent, its machine, its source or its space meanwhile.
fn rewinds_that_break_off(storm: &mut Storm<'_>) {
    let away = storm.ttl * storm.between(1.2, 2.0) + 5.0;
    let what = storm.one_of(&[What::Isolate, What::Isolate, What::KillNode]);
    storm.add(0.0, away, Whom::Leader, what);
    for _ in 0..storm.rng.random_range(1..=3) {
        let (after, lasts) = (storm.between(0.0, 25.0), storm.between(0.5, 40.0));
        let (whom, what) = storm.one_of(&[
            (Whom::LastLeader, What::KillAgent),
            (Whom::LastLeader, What::KillAgent),
            (Whom::LastLeader, What::KillNode),
            (Whom::LastLeader, What::FillWal),
            (Whom::LastLeader, What::CutFromMembers),
            (Whom::Leader, What::CrashBackend),
            (Whom::Leader, What::KillPostmaster),
            (Whom::Leader, What::KillNode),
        ]);
        storm.add(away + after, lasts, whom, what);
    }
}

/// The leader loses the store for a while or for long, lives by promises, and finds its key or none.
fn promises_that_hold(storm: &mut Storm<'_>) {
    let lasts = storm.ttl * storm.between(0.3, 3.0);
    let what = storm.one_of(&[
        What::CutFromStore,
        What::CutToStore,
        What::CutAnswersOfStore,
        What::StoreWithoutMajority,
    ]);
    storm.add(0.0, lasts, Whom::Leader, what);
    // The store may be hard to reach when it is back.
    if storm.rng.random_bool(0.5) {
        let (soon, late) = (storm.between(0.0, lasts), storm.between(1.0, 20.0));
        let what = storm.one_of(&[
            What::AnswersOfStoreLate,
            What::RequestsToStoreLate,
            What::StoreSlow,
            What::SlowNetwork,
        ]);
        storm.add(soon, late, Whom::LastLeader, what);
    }
}

/// Whoever takes over is a standby for minutes yet, and his agent is away, perhaps in a pause, for long enough that others
/// lead meanwhile.
fn promotions_that_outlive_their_agent(storm: &mut Storm<'_>) {
    let slow = storm.between(30.0, 300.0);
    for node in 0..storm.nodes {
        if storm.rng.random_bool(0.7) {
            storm.add(0.0, slow, Whom::Other(node), What::SlowStart);
        }
    }
    let what = storm.one_of(&[
        What::KillNode,
        What::KillNode,
        What::Isolate,
        What::Switchover { candidate: None },
    ]);
    let lasts = storm.ttl + storm.between(5.0, 60.0);
    storm.add(1.0, lasts, Whom::Leader, what);
    let asked = storm.ttl + storm.between(1.0, 15.0);
    if storm.rng.random_bool(0.6) {
        let (soon, lasts) = (storm.between(-5.0, 10.0), storm.between(5.0, 60.0));
        storm.add(asked + soon, lasts, Whom::Leader, What::Pause);
    }
    let blow = storm.one_of(&[
        What::KillAgent,
        What::KillAgent,
        What::KillAgent,
        What::FreezeAgent,
        What::CutFromStore,
        What::SuspendNode,
        What::StoreWithoutMajority,
    ]);
    let (soon, lasts) = (
        storm.between(0.0, 30.0),
        storm.ttl * storm.between(0.1, 3.0),
    );
    storm.add(asked + soon, lasts, Whom::Leader, blow);
}
