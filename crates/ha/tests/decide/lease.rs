//! `ha.md` §3.1, §3.3, §5: the lock, and the store out of reach.

use std::time::Duration;

use primacy_ha::{DemotionMode, Job, Lease, Step, StopReason};
use primacy_model::{ControlState, Role};

use crate::world::{NOW, World, held, leader};

fn demotes(step: &Step, mode: DemotionMode) -> bool {
    matches!(step, Step::StartJob(Job::Stop { reason: StopReason::Demotion(m), .. }) if *m == mode)
}

fn failing(seconds: u64) -> Lease {
    Lease::Held {
        until: NOW + Duration::from_secs(10),
        failing_since: Some(NOW - Duration::from_secs(seconds)),
    }
}

#[test]
fn s3_3_a_primary_without_the_store_demotes_once_renewals_failed_for_retry_timeout() {
    let away = |lease| {
        World::of("pg1").with(|w| {
            w.reachable = false;
            w.lease = lease;
        })
    };
    assert_eq!(away(held()).step(), Step::Wait);
    assert_eq!(away(failing(9)).step(), Step::Wait);
    assert!(demotes(
        &away(failing(10)).because("ha.md §3.3"),
        DemotionMode::Offline
    ));
}

#[test]
fn s3_3_renewals_that_fail_while_reads_succeed_demote_as_well() {
    let world = World::of("pg1").with(|w| w.lease = failing(10));
    assert!(demotes(&world.because("ha.md §3.3"), DemotionMode::Offline));
}

#[test]
fn s3_3_paused_nobody_is_demoted() {
    let world = World::of("pg1").with(|w| {
        w.reachable = false;
        w.lease = failing(60);
        w.global.pause = true;
    });
    assert_eq!(world.because("ha.md §3.3"), Step::Wait);
}

#[test]
fn s3_3_a_replica_without_the_store_stays_as_it_is() {
    let world = World::of("pg2").with(|w| w.reachable = false);
    assert_eq!(world.step(), Step::Wait);
}

#[test]
fn s3_3_an_agent_that_begins_gives_the_store_as_long_as_a_lock_lasts() {
    let beginning = |seconds| {
        World::of("pg1").with(|w| {
            w.reachable = false;
            w.lease = Lease::None;
            w.memory.store_seen = false;
            w.memory.began = NOW - Duration::from_secs(seconds);
        })
    };
    // Less what the server has to stop in good order.
    assert_eq!(beginning(19).step(), Step::Wait);
    assert!(demotes(&beginning(20).step(), DemotionMode::Offline));
}

#[test]
fn s12_1_after_an_offline_demotion_the_server_is_started_read_only() {
    let world = World::of("pg1").stopped(ControlState::ShutDown).with(|w| {
        w.reachable = false;
        w.lease = Lease::None;
        w.memory.role = Role::Demoted;
        w.memory.demotion = Some(primacy_ha::Demotion {
            mode: DemotionMode::Offline,
            stopped: true,
            shutdown_lsn: None,
            released_at: Some(NOW),
        });
    });
    assert!(matches!(
        world.because("ha.md §12.1"),
        Step::StartJob(Job::Start { .. })
    ));
}

#[test]
fn s5_3_a_returning_agent_takes_the_lease_over() {
    let world = World::of("pg1").with(|w| w.lease = Lease::None);
    assert_eq!(world.because("ha.md §5.3"), Step::AdoptLease);
}

#[test]
fn s9_2_a_primary_that_sees_another_leader_demotes_at_once() {
    let world = World::of("pg1").with(|w| {
        w.cluster.leader = Some(leader("pg2"));
        w.lease = Lease::None;
    });
    assert!(demotes(
        &world.because("ha.md §9 follow 2"),
        DemotionMode::ImmediateNoLock
    ));
}

#[test]
fn w6_a_primary_that_answers_nothing_is_still_one() {
    let world = World::of("pg1").with(|w| {
        w.server.wal = None;
        w.cluster.leader = Some(leader("pg2"));
        w.lease = Lease::None;
    });
    assert!(demotes(&world.step(), DemotionMode::ImmediateNoLock));
}

#[test]
fn w15_a_server_just_promoted_counts_as_a_primary() {
    let world = World::of("pg1").with(|w| {
        w.server.wal = None;
        w.memory.role = Role::Promoted;
        w.cluster.leader = Some(leader("pg2"));
        w.lease = Lease::None;
    });
    assert!(demotes(&world.step(), DemotionMode::ImmediateNoLock));
}

/// Others may have led since it was asked to promote, and may lead by the time that it has.
#[test]
fn w15_a_server_that_is_being_promoted_without_the_lock_is_stopped() {
    for earlier_agent in [true, false] {
        for unlocked in [true, false] {
            for pause in [true, false] {
                let world = match unlocked {
                    true => World::unlocked("pg2"),
                    false => World::of("pg2"),
                };
                let world = world.with(|w| {
                    w.global.pause = pause;
                    match earlier_agent {
                        true => w.server.promoting = true,
                        false => w.memory.role = Role::Promoted,
                    }
                });
                let step = world.because("ha.md W15");
                assert!(demotes(&step, DemotionMode::ImmediateNoLock), "{step:?}");
            }
        }
    }
    let away = |seen: bool| {
        World::of("pg2").with(|w| {
            w.reachable = false;
            w.server.promoting = true;
            w.memory.store_seen = seen;
            w.memory.began = NOW;
        })
    };
    assert!(demotes(&away(true).step(), DemotionMode::Offline));
    assert_eq!(away(false).step(), Step::Wait, "the lock may be its own");
}

#[test]
fn s3_1_3_a_promotion_without_the_lock_is_cancelled() {
    let world = World::of("pg2").job(Job::Promote);
    assert_eq!(world.because("ha.md §3.1.3"), Step::CancelJob);
    let owner = World::of("pg2").job(Job::Promote).with(|w| {
        w.cluster.leader = Some(leader("pg2"));
        w.lease = held();
    });
    assert_eq!(owner.step(), Step::Wait);
}

#[test]
fn s3_1_4_starting_as_a_primary_without_the_lock_is_cancelled() {
    let job = Job::StartPrimary {
        timeout: Duration::from_secs(300),
    };
    let world = World::of("pg1")
        .stopped(ControlState::InProduction)
        .job(job)
        .with(|w| {
            w.cluster.leader = Some(leader("pg2"));
            w.lease = Lease::None;
        });
    assert_eq!(world.because("ha.md §3.1.4"), Step::CancelJob);
}
