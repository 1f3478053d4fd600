//! `ha.md` §10, §13.1 I3: a lock that came late, or to an agent that does not know how, is judged by what is there now.

use primacy_config::{StandbyCluster, SynchronousMode};
use primacy_ha::{DemotionMode, Job, Lease, Step, StopReason};
use primacy_model::{ControlState, History, Role, State, Version};

use crate::world::{World, held, leader};

/// `pg2`, a replica, has the lock.
fn owner() -> World {
    World::of("pg2").with(|w| {
        w.cluster.leader = Some(leader("pg2"));
        w.lease = held();
    })
}

fn raced(world: World, version: u64) -> World {
    world.with(|w| w.memory.raced_for_sync = Some(Version(version)))
}

fn quorum(world: World, quorum: u32) -> World {
    world.with(|w| {
        w.global.synchronous_mode = SynchronousMode::Quorum;
        w.cluster.sync.quorum = quorum;
    })
}

const RELEASED: Step = Step::ReleaseLeader { optime: None };

/// The `/sync` of these worlds has the version 5.
#[test]
fn i3_who_owns_the_lock_is_promoted_only_if_sync_lets_it() {
    let outside = || owner().sync("pg1", &["pg3"]);
    let inside = || owner().sync("pg1", &["pg2", "pg3"]);
    let rows = [
        ("outside of /sync", outside(), true),
        ("/sync changed since the race", raced(outside(), 4), true),
        ("in /sync", inside(), false),
        ("in /sync, which changed", raced(inside(), 4), false),
        (
            "the last to name itself the primary",
            owner().sync("pg2", &["pg3"]),
            false,
        ),
        (
            "chosen by an operator: the race was judged by this /sync, the request is gone",
            raced(outside(), 5),
            false,
        ),
        (
            "chosen by an operator, whose request is still there in pause",
            outside()
                .failover(None, Some("pg2"))
                .with(|w| w.global.pause = true),
            false,
        ),
        (
            "votes, counted by this /sync",
            raced(quorum(inside(), 1), 5),
            false,
        ),
        (
            "votes from outside, counted by this /sync",
            raced(quorum(outside(), 1), 5),
            false,
        ),
        (
            "votes, counted by another /sync",
            raced(quorum(inside(), 1), 4),
            true,
        ),
        (
            "votes, counted by an agent before this one",
            quorum(inside(), 1),
            true,
        ),
        (
            "votes are needed for as long as /sync asks for them",
            quorum(inside(), 1).with(|w| w.global.synchronous_mode = SynchronousMode::On),
            true,
        ),
        (
            "the primary that /sync names needs no votes",
            quorum(owner().sync("pg2", &["pg1", "pg3"]), 1),
            false,
        ),
        (
            "synchronous mode is off",
            outside().with(|w| w.global.synchronous_mode = SynchronousMode::Off),
            false,
        ),
        (
            "nobody published anything yet",
            outside().with(|w| w.cluster.sync = Default::default()),
            false,
        ),
        (
            "the leader of a standby cluster is not promoted",
            outside().with(|w| {
                w.global.synchronous_mode = SynchronousMode::Off;
                w.global.standby_cluster = Some(StandbyCluster {
                    host: Some("10.0.0.1".into()),
                    ..StandbyCluster::default()
                });
            }),
            false,
        ),
        (
            "the primary that runs is in /sync, and no member of it",
            World::of("pg1")
                .sync("pg1", &["pg2"])
                .names("pg2", &[("pg2", "sync")]),
            false,
        ),
        (
            "a new cluster's primary, before /sync",
            World::of("pg1").with(|w| w.global.synchronous_mode = SynchronousMode::On),
            false,
        ),
        (
            "a primary that crashed is started as one",
            World::of("pg1")
                .sync("pg1", &["pg2"])
                .stopped(ControlState::InProduction)
                .with(|w| w.memory.state = State::Crashed),
            false,
        ),
        (
            "a primary that was started read-only is promoted again",
            owner()
                .sync("pg2", &["pg1"])
                .with(|w| w.memory.role = Role::Replica),
            false,
        ),
    ];
    for (what, world, released) in rows {
        let decision = world.decide();
        assert_eq!(decision.step == RELEASED, released, "{what}: {decision:#?}");
        let by_rule = decision
            .reasons
            .iter()
            .any(|reason| reason.rule == "ha.md §13.1 I3");
        assert_eq!(by_rule, released, "{what}: {decision:#?}");
    }
}

/// Another member may have led, committed and released the lock between the question and its late arrival.
#[test]
fn s10_a_lock_by_an_acquisition_without_an_answer_is_raced_for_again() {
    let unheard = |world: World| {
        world.with(|w| {
            w.lease = Lease::None;
            w.memory.unheard_acquisition = true;
        })
    };
    let left_behind = |world: World| {
        unheard(world).with(|w| {
            w.cluster.history = History::from_json(r#"[[1, 7, "no recovery target specified"]]"#);
        })
    };
    let standby_cluster =
        |w: &mut World| w.global.standby_cluster = Some(StandbyCluster::default());
    let rows = [
        ("a replica", unheard(owner()), RELEASED),
        (
            "a replica, whatever /sync says",
            unheard(owner().sync("pg1", &["pg2"])),
            RELEASED,
        ),
        (
            "a server that does not run",
            unheard(owner().stopped(ControlState::ShutDown)),
            RELEASED,
        ),
        (
            "an agent that asked for nothing",
            owner().with(|w| w.lease = Lease::None),
            Step::AdoptLease,
        ),
        (
            "the leader of a standby cluster",
            unheard(owner()).with(standby_cluster),
            Step::AdoptLease,
        ),
        (
            "a primary that may lead by what is there",
            unheard(World::of("pg1").sync("pg1", &["pg2"])),
            Step::AdoptLease,
        ),
        (
            "paused, a primary that the cluster went on from",
            left_behind(World::of("pg1")).with(|w| w.global.pause = true),
            RELEASED,
        ),
    ];
    for (what, world, expected) in rows {
        assert_eq!(world.step(), expected, "{what}");
    }
    for (what, world) in [
        (
            "another published itself",
            unheard(World::of("pg1").sync("pg3", &[])),
        ),
        (
            "the cluster went on without it",
            left_behind(World::of("pg1")),
        ),
    ] {
        let step = world.step();
        assert!(
            matches!(
                step,
                Step::StartJob(Job::Stop {
                    reason: StopReason::Demotion(DemotionMode::Immediate),
                    ..
                })
            ),
            "{what}: {step:?}"
        );
    }
}
