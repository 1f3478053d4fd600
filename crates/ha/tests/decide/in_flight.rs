//! `ha.md` §3.1, §24: a long action is under way.

use std::time::Duration;

use primacy_ha::{DemotionMode, Job, Lease, PendingOperation, Step, StopMode, StopReason};
use primacy_model::ControlState;

use crate::world::{NOW, POSITION, World};

fn recovering(for_seconds: u64) -> World {
    let world = World::of("pg1")
        .stopped(ControlState::InCrashRecovery)
        .job(Job::CrashRecovery)
        .peers(&[("pg2", Some(POSITION.0))]);
    world.with(|w| {
        w.job.as_mut().expect("a job").since = NOW - Duration::from_secs(for_seconds);
    })
}

#[test]
fn s3_1_1_crash_recovery_that_takes_too_long_hands_over_if_somebody_can() {
    assert_eq!(recovering(299).step(), Step::Wait);
    assert_eq!(recovering(300).because("ha.md §3.1.1"), Step::CancelJob);
    let alone = recovering(300).silence();
    assert_eq!(alone.because("ha.md §11.4"), Step::Wait);
}

#[test]
fn s3_1_2_a_long_action_of_the_lock_owner_is_waited_for() {
    for job in [
        Job::Promote,
        Job::StartPrimary {
            timeout: Duration::from_secs(300),
        },
        Job::Restart {
            upstream: None,
            timeout: Duration::from_secs(300),
        },
    ] {
        assert_eq!(World::of("pg1").job(job).step(), Step::Wait);
    }
}

#[test]
fn s24_one_that_is_cancelled_is_waited_for_and_a_forced_reinitialize_cancels() {
    let restart = || Job::Restart {
        upstream: None,
        timeout: Duration::from_secs(300),
    };
    let forced = |force| {
        World::of("pg2").job(restart()).with(|w| {
            w.memory.operation = Some(PendingOperation::Reinitialize {
                from_leader: false,
                force,
            });
        })
    };
    assert_eq!(forced(false).step(), Step::Wait);
    assert_eq!(forced(true).step(), Step::CancelJob);
    let cancelled = forced(true).with(|w| w.job.as_mut().expect("a job").cancelling = true);
    assert_eq!(cancelled.step(), Step::Wait);
}

#[test]
fn s12_1_modes() {
    use DemotionMode::{DemoteCluster, Graceful, Immediate, ImmediateNoLock, Offline};
    for (mode, stop, releases) in [
        (Graceful, StopMode::Fast, true),
        (Immediate, StopMode::Immediate, true),
        (ImmediateNoLock, StopMode::Immediate, false),
        (Offline, StopMode::Fast, false),
        // The key stays here: see the table of differences in ARCHITECTURE.md.
        (DemoteCluster, StopMode::Fast, false),
    ] {
        assert_eq!(
            (mode.stop_mode(), mode.releases()),
            (stop, releases),
            "{mode:?}"
        );
    }
    let graceful = World::of("pg1")
        .failover(Some("pg1"), Some("pg2"))
        .peers(&[("pg2", Some(POSITION.0))]);
    let Step::StartJob(Job::Stop {
        checkpoint, reason, ..
    }) = graceful.step()
    else {
        panic!("no stop")
    };
    assert!(checkpoint && reason == StopReason::Demotion(Graceful));
}

/// W16: the demotion of a leader whose store is away waits for the action under way, as everything else does; what ends
/// the server meanwhile is the lease.
#[test]
fn w16_no_demotion_begins_beside_a_long_action() {
    let away = || {
        World::of("pg1").with(|w| {
            w.reachable = false;
            w.lease = Lease::Held {
                until: NOW + Duration::from_secs(2),
                failing_since: Some(NOW - Duration::from_secs(20)),
            };
        })
    };
    assert!(matches!(away().step(), Step::StartJob(Job::Stop { .. })));
    let restart = Job::Restart {
        upstream: None,
        timeout: Duration::from_secs(300),
    };
    let copy = Job::CreateReplica {
        source: None,
        reinitialize: true,
        basebackup_only: false,
    };
    for job in [restart, copy, Job::Promote, Job::PostBootstrap] {
        assert_eq!(away().job(job.clone()).step(), Step::Wait, "{job:?}");
    }
}
