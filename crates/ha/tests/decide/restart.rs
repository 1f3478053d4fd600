//! `ha.md` §3.2, §12.2, §10.0, §21: how long a start and a stop may take, the back-off of a race, the history.

use std::time::Duration;

use primacy_config::SynchronousMode;
use primacy_ha::{
    DemotionMode, Job, PendingOperation, RewindState, Shutdown, Step, StopReason, Upstream,
};
use primacy_model::{ControlState, History, Readiness, Role, State, Timeline};

use crate::world::{NOW, POSITION, World, primary_wal};

const HERE: u64 = POSITION.0;

fn starting(for_seconds: u64) -> World {
    World::of("pg1").with(|w| {
        w.server.wal = None;
        w.server.readiness = Readiness::Rejecting;
        w.memory.state = State::Starting;
        w.memory.starting_since = Some(NOW - Duration::from_secs(for_seconds));
    })
}

fn fails_over(step: &Step) -> bool {
    matches!(
        step,
        Step::StartJob(Job::Stop {
            reason: StopReason::Demotion(DemotionMode::Immediate),
            ..
        })
    )
}

#[test]
fn s3_2_a_leader_that_starts_for_longer_than_its_timeout_hands_over_if_somebody_can() {
    let candidate = |world: World| world.peers(&[("pg2", Some(HERE))]);
    let asked = |world: World, seconds| {
        world.with(|w| w.memory.start_timeout = Some(Duration::from_secs(seconds)))
    };
    assert_eq!(candidate(starting(299)).because("ha.md §3.2"), Step::Wait);
    assert!(fails_over(&candidate(starting(300)).because("ha.md §3.2")));
    assert_eq!(starting(900).silence().because("ha.md §11.4"), Step::Wait);
    // What an operator said of this restart counts instead.
    assert!(fails_over(&candidate(asked(starting(5), 5)).step()));
    assert_eq!(candidate(asked(starting(400), 900)).step(), Step::Wait);
    let follower = candidate(starting(900)).with(|w| {
        w.cluster.leader = Some(crate::world::leader("pg3"));
        w.lease = primacy_ha::Lease::None;
    });
    assert!(!fails_over(&follower.step()));
    let paused = candidate(starting(900)).with(|w| w.global.pause = true);
    assert!(!fails_over(&paused.step()));
}

#[test]
fn s12_2_2_primary_stop_timeout_bounds_an_orderly_stop_in_synchronous_mode() {
    let bounded = |world: World| match world.step() {
        Step::StartJob(Job::Stop { timeout, .. }) => timeout,
        other => panic!("{other:?}"),
    };
    let limit = Some(Duration::from_secs(9));
    let switchover = || {
        World::of("pg1")
            .failover(Some("pg1"), Some("pg2"))
            .peers(&[("pg2", Some(HERE))])
            .with(|w| w.global.primary_stop_timeout = limit)
    };
    assert_eq!(bounded(switchover()), None);
    assert_eq!(bounded(switchover().sync("pg1", &["pg2"])), limit);
    let ending = |mode| {
        World::of("pg1").with(|w| {
            w.global.primary_stop_timeout = limit;
            w.global.synchronous_mode = mode;
            w.memory.shutdown = Some(Shutdown {
                since: NOW,
                stopped: None,
                stop_failed: false,
                leave_server: None,
            });
        })
    };
    assert_eq!(bounded(ending(SynchronousMode::Off)), None);
    assert_eq!(bounded(ending(SynchronousMode::On)), limit);
}

/// 10 s of back-off with passes each 4 s, nobody leads for `unlocked`, WAL last moved `moved` ago.
fn backing_off(unlocked: u64, moved: Option<u64>) -> World {
    World::unlocked("pg2").silence().with(|w| {
        w.global.primary_race_backoff = Duration::from_secs(10);
        w.global.loop_wait = Duration::from_secs(4);
        w.memory.unlocked_since = Some(NOW - Duration::from_secs(unlocked));
        let moved = moved.map(|ago| NOW - Duration::from_secs(ago));
        w.memory.wal_moved = Some((POSITION, moved));
    })
}

#[test]
fn s10_0_a_replica_that_still_gets_wal_leaves_the_lock_to_its_primary() {
    let races = |world: &World| matches!(world.step(), Step::AcquireLeader { .. });
    // The first loop_wait is left to it whatever arrives.
    assert!(!races(&backing_off(3, None)));
    backing_off(3, None).because("ha.md §10.0");
    assert!(races(&backing_off(4, None)));
    assert!(races(&backing_off(5, Some(4))));
    // WAL arrives: until the back-off is over.
    assert!(!races(&backing_off(9, Some(1))));
    assert_eq!(
        backing_off(9, Some(1)).decide().outcome,
        "the old primary may still be alive, wal position moved since last heart beat loop: not racing for the lock yet"
    );
    assert!(races(&backing_off(10, Some(1))));
    let silent = backing_off(9, Some(1)).with(|w| w.wal().receiver = None);
    assert!(races(&silent));
    // It does not apply.
    assert!(races(
        &backing_off(1, None).with(|w| w.global.primary_race_backoff = Duration::ZERO)
    ));
    assert!(races(
        &backing_off(1, None).with(|w| w.memory.wal_moved = None)
    ));
    assert!(races(
        &backing_off(1, None).failover(Some("pg1"), Some("pg2"))
    ));
    let primary = backing_off(1, None).with(|w| w.server.wal = Some(primary_wal()));
    assert!(races(&primary), "a primary takes its lock back at once");
}

#[test]
fn s21_history_of_another_cluster_is_emptied_on_the_first_timeline() {
    let stale = World::of("pg1").with(|w| {
        w.cluster.history = History::from_json(r#"[[1,5,"r","t","pg9"],[2,9,"r","t","pg9"]]"#);
    });
    assert_eq!(stale.because("ha.md §21"), Step::WriteHistory(Timeline(1)));
    let incomplete = |text: &str| {
        World::of("pg1").with(|w| {
            w.wal().timeline = Some(Timeline(2));
            w.wal().checkpoint_timeline = Some(Timeline(2));
            w.memory.checkpoint_done = Some(Timeline(2));
            w.cluster.history = History::from_json(text);
        })
    };
    assert_eq!(incomplete(r#"[[1,5,"r","t","pg1"]]"#).step(), Step::Wait);
    for text in [r#"[[1,5,"r"]]"#, "[]", r#"[[2,5,"r","t","pg1"]]"#] {
        assert_eq!(
            incomplete(text).step(),
            Step::WriteHistory(Timeline(2)),
            "{text}"
        );
    }
}

#[test]
fn s21_a_history_that_was_deleted_is_written_again_and_one_that_cannot_be_holds_nothing_up() {
    let second = || {
        World::of("pg1").with(|w| {
            w.wal().timeline = Some(Timeline(2));
            w.wal().checkpoint_timeline = Some(Timeline(2));
            w.memory.checkpoint_done = Some(Timeline(2));
            w.memory.history_done = Some(Timeline(2));
            w.cluster.history = None;
        })
    };
    assert_eq!(second().step(), Step::WriteHistory(Timeline(2)));
    let failed =
        |ago| second().with(|w| w.memory.history_failed_at = Some(NOW - Duration::from_secs(ago)));
    assert_eq!(failed(9).step(), Step::Wait);
    assert_eq!(failed(10).step(), Step::WriteHistory(Timeline(2)));
}

#[test]
fn s20_a_restart_on_purpose_is_no_crash_and_may_take_its_time() {
    let timeout = |asked: Option<u64>, configured| {
        let world = World::of("pg1").with(|w| {
            w.global.primary_start_timeout = Duration::from_secs(configured);
            w.memory.operation = Some(PendingOperation::Restart {
                timeout: asked.map(Duration::from_secs),
            });
        });
        match world.because("ha.md §20") {
            Step::StartJob(Job::Restart { timeout, .. }) => timeout.as_secs(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(timeout(Some(5), 0), 5);
    assert_eq!(timeout(None, 20), 20);
    assert_eq!(timeout(None, 0), 300);
}

#[test]
fn s20_a_restart_follows_nobody_whose_wal_may_be_another_one() {
    let upstream = |world: World| {
        let restart = Some(PendingOperation::Restart { timeout: None });
        match world
            .with(|w| w.memory.operation = restart)
            .because("ha.md §20")
        {
            Step::StartJob(Job::Restart { upstream, .. }) => upstream,
            other => panic!("{other:?}"),
        }
    };
    let streams = upstream(World::of("pg2"));
    assert!(
        matches!(streams, Some(Upstream::Member { .. })),
        "{streams:?}"
    );
    // A primary of before, which had stopped when another one was promoted: nobody has compared them yet.
    let stopped = || World::of("pg2").stopped(ControlState::ShutDown);
    assert_eq!(upstream(stopped()), Some(Upstream::Nobody));
    let diverged = World::of("pg2").with(|w| w.memory.rewind = RewindState::Needed);
    assert_eq!(upstream(diverged), Some(Upstream::Nobody));
    let compared = stopped().with(|w| w.memory.rewind = RewindState::NotNeeded);
    assert!(matches!(upstream(compared), Some(Upstream::Member { .. })));
    // What its new timeline forks from is not known before it has begun.
    let promoting = World::of("pg2").with(|w| w.cluster.members[0].data.role = Some(Role::Replica));
    assert_eq!(upstream(promoting), Some(Upstream::Nobody));
}
