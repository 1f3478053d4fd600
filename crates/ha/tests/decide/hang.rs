//! `ha.md` W6: PostgreSQL runs and does not answer.

use std::time::Duration;

use primacy_ha::{DemotionMode, Job, Step, StopMode, StopReason};
use primacy_model::{DataDirectory, Probes, Role};

use crate::world::{NOW, POSITION, POSTMASTER, World, held, leader};

const LIMIT: Duration = Duration::from_secs(60);

fn hung(probes: Probes) -> World {
    World::of("pg1").with(|w| w.server.probes = probes)
}

fn connection(since: Duration) -> Probes {
    Probes {
        connection: Some(since),
        ..Probes::default()
    }
}

/// Everybody answers, and nobody lags.
fn answered(world: World) -> World {
    world.peers(&[("pg2", Some(POSITION.0)), ("pg3", Some(POSITION.0))])
}

fn handed_over(world: &World) -> bool {
    world.because("ha.md W6")
        == Step::StartJob(Job::Stop {
            mode: StopMode::Immediate,
            checkpoint: false,
            timeout: Some(world.global.retry_timeout),
            reason: StopReason::Demotion(DemotionMode::Immediate),
        })
}

#[test]
fn w6_a_hang_that_lasts_hands_over() {
    let world = hung(connection(LIMIT));
    assert!(
        matches!(world.because("ha.md W6"), Step::AskPeers(_)),
        "who can take over is asked first"
    );
    assert!(handed_over(&answered(world)));
    for probes in [
        Probes {
            query: Some(LIMIT),
            ..Probes::default()
        },
        Probes {
            wal: Some(LIMIT),
            wal_still: LIMIT,
            ..Probes::default()
        },
        Probes {
            disk: Some(LIMIT),
            wal_still: LIMIT,
            ..Probes::default()
        },
    ] {
        assert!(handed_over(&answered(hung(probes))), "{probes:?}");
    }
}

#[test]
fn w6_a_server_that_does_not_say_anything_at_all_is_handed_over_too() {
    let silent = hung(connection(LIMIT)).with(|w| {
        w.server.wal = None;
        w.server.system_identifier = None;
        w.server.data_directory = DataDirectory::Hanging("reading /data".into());
    });
    assert!(handed_over(&answered(silent)));
}

#[test]
fn w6_a_hang_that_may_pass_is_waited_for() {
    let world = hung(connection(LIMIT - Duration::from_secs(1)));
    let decision = world.decide();
    assert_eq!(decision.step, Step::Wait);
    assert!(
        decision
            .reasons
            .iter()
            .any(|reason| reason.text.contains("for 59 s < primary_hang_timeout 60 s")),
        "{decision:?}"
    );
}

#[test]
fn w6_a_slow_disk_is_no_hang_while_wal_is_flushed() {
    let busy = Probes {
        disk: Some(LIMIT * 10),
        wal_still: Duration::from_secs(3),
        ..Probes::default()
    };
    assert_eq!(answered(hung(busy)).step(), Step::Wait);
}

#[test]
fn w6_without_a_candidate_it_keeps_leading_and_says_so() {
    let alone = hung(connection(LIMIT)).silence();
    assert!(matches!(alone.because("ha.md §11.4"), Step::WaitUntil(_)));
    let outcome = alone.decide().outcome;
    assert!(
        outcome.contains("nobody can take over: pg1 keeps the leader lock"),
        "{outcome}"
    );
    let lagging = hung(connection(LIMIT))
        .with(|w| w.cluster.status.optime.0 += 1_000_000_000)
        .peers(&[("pg2", Some(POSITION.0)), ("pg3", Some(POSITION.0))]);
    assert!(matches!(lagging.step(), Step::WaitUntil(_)));
    let asynchronous = answered(hung(connection(LIMIT)).sync("pg1", &[]));
    assert!(
        matches!(asynchronous.step(), Step::WaitUntil(_)),
        "nobody is synchronous"
    );
}

#[test]
fn w6_zero_turns_it_off_and_pause_suspends_it() {
    let off =
        hung(connection(LIMIT * 100)).with(|w| w.global.primary_hang_timeout = Duration::ZERO);
    assert_eq!(answered(off).step(), Step::Wait);
    let paused = hung(connection(LIMIT * 100)).with(|w| w.global.pause = true);
    assert_eq!(answered(paused).step(), Step::Wait);
}

#[test]
fn w6_a_switchover_waits_for_a_server_that_hangs_and_a_failover_does_not() {
    let hung = || hung(connection(Duration::from_secs(4)));
    let switchover = answered(hung().failover(Some("pg1"), Some("pg2")));
    assert!(matches!(switchover.because("ha.md W6"), Step::WaitUntil(_)));
    assert!(handed_over(&answered(hung().failover(None, Some("pg2")))));
}

#[test]
fn w6_a_stop_that_is_not_heard_is_given_up_and_judged_as_a_hang() {
    let stopping = |since| {
        hung(connection(since)).job(Job::Stop {
            mode: StopMode::Fast,
            checkpoint: true,
            timeout: None,
            reason: StopReason::Demotion(DemotionMode::Graceful),
        })
    };
    assert_eq!(stopping(LIMIT).because("ha.md W6"), Step::CancelJob);
    assert_eq!(stopping(LIMIT / 2).step(), Step::Wait);
    let slow = Probes {
        disk: Some(LIMIT),
        wal_still: LIMIT,
        ..Probes::default()
    };
    let slow = stopping(Duration::ZERO).with(|w| w.server.probes = slow);
    assert_eq!(slow.step(), Step::Wait, "a long shutdown checkpoint");
}

#[test]
fn w6_a_replica_that_hangs_does_not_race() {
    let healthy = World::unlocked("pg2").peers(&[("pg3", Some(POSITION.0))]);
    assert!(matches!(healthy.step(), Step::AcquireLeader { .. }));
    for probes in [
        connection(Duration::from_secs(3)),
        Probes {
            disk: Some(Duration::from_secs(5)),
            ..Probes::default()
        },
    ] {
        let hung = World::unlocked("pg2")
            .peers(&[("pg3", Some(POSITION.0))])
            .with(|w| w.server.probes = probes);
        assert!(!matches!(
            hung.because("ha.md W6"),
            Step::AcquireLeader { .. }
        ));
    }
}

#[test]
fn w5_nothing_is_started_beside_a_killed_server_that_the_disk_holds() {
    let dying = |me: &str, milliseconds: u64| {
        World::of(me)
            .stopped(primacy_model::ControlState::InProduction)
            .with(|w| {
                w.server.process = primacy_model::Process::Dying(POSTMASTER);
                w.memory.dying_since = Some(NOW - Duration::from_millis(milliseconds));
            })
    };
    assert_eq!(
        dying("pg1", 1000).because("ha.md W5"),
        Step::ReleaseLeader { optime: None },
        "nobody can write there"
    );
    assert_eq!(dying("pg2", 1000).step(), Step::Wait);
    // Every killed process is seen so for a moment: that alone moves no lead.
    for member in ["pg1", "pg2"] {
        let soon = NOW + Duration::from_millis(990);
        assert_eq!(dying(member, 10).because("ha.md W5"), Step::WaitUntil(soon));
    }
}

#[test]
fn w5_a_disk_that_does_not_answer_ends_no_leadership_by_itself() {
    let hanging = |me: &str| {
        World::of(me).with(|w| {
            w.server.data_directory = DataDirectory::Hanging("reading /data".into());
            w.server.system_identifier = None;
            w.server.wal = None;
        })
    };
    assert_eq!(hanging("pg1").step(), Step::Wait, "the server runs");
    let stale = hanging("pg1").with(|w| {
        w.cluster.leader = Some(leader("pg2"));
        w.lease = primacy_ha::Lease::None;
    });
    assert!(
        matches!(stale.step(), Step::StartJob(Job::Stop { .. })),
        "{:?}: a primary without the lock is stopped all the same",
        stale.step()
    );
    let dead = hanging("pg1").with(|w| {
        w.server.process = primacy_model::Process::Absent;
        w.lease = held();
        w.memory.role = Role::Primary;
    });
    assert_eq!(dead.step(), Step::ReleaseLeader { optime: None });
}
