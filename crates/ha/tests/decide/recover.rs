//! `ha.md` §3 H-K, §7: PostgreSQL does not run.

use std::time::Duration;

use primacy_ha::{
    Demotion, DemotionMode, Job, PendingOperation, RewindState, Step, StopReason, Upstream,
};
use primacy_model::{ControlState, DataDirectory, Process, Role, State};

use crate::world::{NOW, POSITION, POSTMASTER, World, held, leader};

fn crashed() -> World {
    World::of("pg1")
        .stopped(ControlState::InProduction)
        .with(|w| {
            w.memory.state = State::Crashed;
            w.memory.role = Role::Primary;
        })
}

#[test]
fn s7_3_a_crashed_primary_with_the_lock_is_started_again_without_a_new_timeline() {
    let step = crashed().because("ha.md §7.3");
    assert_eq!(
        step,
        Step::StartJob(Job::StartPrimary {
            timeout: Duration::from_secs(300)
        })
    );
}

#[test]
fn s7_1_with_primary_start_timeout_0_another_member_takes_over_if_one_can() {
    let at_once = || crashed().with(|w| w.global.primary_start_timeout = Duration::ZERO);
    let step = at_once()
        .peers(&[("pg2", Some(POSITION.0))])
        .because("ha.md §7.1");
    let Step::StartJob(Job::Stop { reason, .. }) = step else {
        panic!("{step:?}")
    };
    assert_eq!(reason, StopReason::Demotion(DemotionMode::Immediate));
    assert!(matches!(
        at_once().silence().step(),
        Step::StartJob(Job::CrashRecovery)
    ));
}

#[test]
fn s7_5_what_did_not_stop_in_good_order_recovers_first() {
    for state in [
        ControlState::InProduction,
        ControlState::ShuttingDown,
        ControlState::InCrashRecovery,
    ] {
        let world = World::of("pg2").stopped(state);
        assert_eq!(
            world.because("ha.md §7.5"),
            Step::StartJob(Job::CrashRecovery)
        );
        let tried = World::of("pg2")
            .stopped(state)
            .with(|w| w.memory.crash_recovery_tried = true);
        assert_ne!(tried.step(), Step::StartJob(Job::CrashRecovery));
    }
    let backup = World::of("pg2")
        .stopped(ControlState::InProduction)
        .with(|w| w.server.backup_label = true);
    assert_ne!(backup.step(), Step::StartJob(Job::CrashRecovery));
}

#[test]
fn s7_7_with_the_lock_it_starts_read_only_and_is_promoted_later() {
    let world = World::of("pg2").stopped(ControlState::ShutDown).with(|w| {
        w.cluster.leader = Some(leader("pg2"));
        w.lease = held();
    });
    assert!(matches!(
        world.because("ha.md §7.7"),
        Step::StartJob(Job::Start { .. })
    ));
}

#[test]
fn s3_h1_a_leader_whose_start_failed_gives_the_lock_up_and_others_wait_a_loop() {
    let failed = |me| {
        World::of(me)
            .stopped(ControlState::ShutDown)
            .with(|w| w.memory.start_failed_at = Some(NOW - Duration::from_secs(1)))
    };
    assert_eq!(
        failed("pg1").because("ha.md §3 H1"),
        Step::ReleaseLeader { optime: None }
    );
    assert!(matches!(
        failed("pg2").because("ha.md §3 H1"),
        Step::WaitUntil(_)
    ));
}

#[test]
fn s3_i_an_owner_without_data_gives_the_lock_up() {
    let world = World::of("pg1").stopped(ControlState::ShutDown).with(|w| {
        w.server.data_directory = DataDirectory::Empty;
    });
    assert_eq!(
        world.because("ha.md §3 I"),
        Step::ReleaseLeader { optime: None }
    );
}

#[test]
fn i6_a_directory_that_holds_something_else_is_left_alone() {
    let world = World::of("pg2").stopped(ControlState::ShutDown).with(|w| {
        w.server.data_directory = DataDirectory::Foreign("/data holds no cluster".into());
    });
    assert_eq!(world.because("design.md I6"), Step::Wait);
}

/// What an interrupted pg_rewind left is neither started nor promoted nor rewound, and replaced only where that is asked for.
#[test]
fn s8_5_6_what_an_interrupted_rewind_left_is_not_used() {
    let world = |me: &str, change: fn(&mut World)| {
        World::of(me).stopped(ControlState::ShutDown).with(|w| {
            w.server.data_directory = DataDirectory::HalfRewound("pg_rewind broke off".into());
            change(w);
        })
    };
    let copies = |world: &World| {
        matches!(
            world.step(),
            Step::StartJob(Job::CreateReplica {
                reinitialize: true,
                ..
            })
        )
    };
    for (case, me, change, expected) in [
        ("stopped", "pg2", (|_| {}) as fn(&mut World), Step::Wait),
        (
            "nobody leads",
            "pg2",
            |w| w.cluster.leader = None,
            Step::Wait,
        ),
        (
            "started by hand",
            "pg2",
            |w| w.server.process = Process::Running(POSTMASTER),
            Step::Wait,
        ),
        (
            "an agent before this one had it in mind",
            "pg2",
            |w| w.memory.rewind = RewindState::Needed,
            Step::Wait,
        ),
        (
            "the lock is mine",
            "pg1",
            |_| {},
            Step::ReleaseLeader { optime: None },
        ),
        (
            "paused",
            "pg2",
            |w| {
                w.local.remove_on_rewind_failure = true;
                w.global.pause = true;
            },
            Step::Wait,
        ),
    ] {
        let world = world(me, change);
        assert_eq!(world.because("ha.md §8.5.6"), expected, "{case}");
    }
    let without_store = world("pg2", |w| {
        w.reachable = false;
        w.memory.demotion = Some(Demotion {
            mode: DemotionMode::Offline,
            stopped: true,
            shutdown_lsn: None,
            released_at: Some(NOW),
        });
    });
    assert_eq!(without_store.step(), Step::Wait);
    assert!(copies(&world("pg2", |w| {
        w.local.remove_on_rewind_failure = true;
    })));
    assert!(copies(&world("pg2", |w| {
        w.local.remove_on_divergence = true;
    })));
    assert!(copies(&world("pg2", |w| {
        w.memory.operation = Some(PendingOperation::Reinitialize {
            from_leader: false,
            force: false,
        });
    })));
}

#[test]
fn s3_j_a_system_identifier_that_was_not_read_is_not_called_invalid() {
    let unread = World::of("pg2").stopped(ControlState::ShutDown).with(|w| {
        w.server.system_identifier = None;
        w.server.control = None;
    });
    let decision = unread.decide();
    assert_eq!(decision.step, Step::Wait);
    assert_eq!(decision.outcome, "waiting for the control file to be read");
    let invalid = World::of("pg2")
        .stopped(ControlState::ShutDown)
        .with(|w| w.server.system_identifier = None);
    let outcome = invalid.decide().outcome;
    assert_eq!(
        outcome,
        "system ID is invalid, pg2 needs to be reinitialized"
    );
}

#[test]
fn s3_j_data_of_another_cluster_ends_the_agent() {
    let world = World::of("pg2").with(|w| {
        w.server.system_identifier = primacy_model::SystemIdentifier::parse("1111111111111");
    });
    let Step::Exit(exit) = world.because("ha.md §3 J") else {
        panic!("{:?}", world.step())
    };
    assert_eq!(exit.code, 1);
}

#[test]
fn s3_k_paused_a_stopped_server_stays_stopped_and_the_lock_goes() {
    let paused = |me| {
        World::of(me)
            .stopped(ControlState::ShutDown)
            .with(|w| w.global.pause = true)
    };
    assert_eq!(
        paused("pg1").because("ha.md §3 K"),
        Step::ReleaseLeader { optime: None }
    );
    assert_eq!(paused("pg2").because("ha.md §22"), Step::Wait);
}

#[test]
fn s7_2_without_a_control_file_nothing_is_started() {
    let world = crashed().with(|w| {
        w.server.control = None;
        w.memory.role = Role::Replica;
    });
    assert_eq!(world.because("ha.md §7.2"), Step::Wait);
}

#[test]
fn s7_9_a_stopped_replica_is_started_behind_the_leader() {
    let world = World::of("pg2")
        .stopped(ControlState::ShutDownInRecovery)
        .with(|w| w.memory.rewind = RewindState::NotNeeded);
    let Step::StartJob(Job::Start { upstream }) = world.because("ha.md §7.9") else {
        panic!("{:?}", world.step());
    };
    assert!(
        matches!(&upstream, Upstream::Member { name, .. } if *name == "pg1"),
        "{upstream}"
    );
}
