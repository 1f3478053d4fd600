//! `ha.md` §19: the watchdog device.

use std::time::Duration;

use primacy_config::WatchdogMode;
use primacy_ha::{DemotionMode, Job, Lease, Step, StopReason};
use primacy_model::Role;

use crate::world::{NOW, World, held, leader};

/// A leader that is not the primary yet, with a device that can be used.
fn winner(mode: WatchdogMode) -> World {
    World::of("pg2").with(|w| {
        w.cluster.leader = Some(leader("pg2"));
        w.lease = held();
        w.local.watchdog.mode = mode;
        w.server.watchdog_usable = true;
    })
}

fn primary(mode: WatchdogMode) -> World {
    World::of("pg1").with(|w| {
        w.local.watchdog.mode = mode;
        w.server.watchdog_usable = true;
    })
}

fn activated() -> Step {
    Step::ActivateWatchdog {
        timeout: Duration::from_secs(25),
    }
}

#[test]
fn s19_it_is_activated_before_the_promotion_and_on_a_primary() {
    for mode in [WatchdogMode::Automatic, WatchdogMode::Required] {
        assert_eq!(winner(mode).because("ha.md §19"), activated());
        assert_eq!(primary(mode).because("ha.md §19"), activated());
        let active = winner(mode).with(|w| w.memory.watchdog.active = true);
        assert_eq!(active.step(), Step::StartJob(Job::Promote));
    }
    assert_eq!(
        winner(WatchdogMode::Off).step(),
        Step::StartJob(Job::Promote)
    );
    let paused = primary(WatchdogMode::Required).with(|w| w.global.pause = true);
    assert_eq!(paused.step(), Step::Wait);
}

#[test]
fn s19_counted_from_its_activation_it_does_not_outlast_the_lease() {
    let until = |seconds: u64| {
        winner(WatchdogMode::Required).with(|w| {
            w.lease = Lease::Held {
                until: NOW + Duration::from_millis(seconds * 1000 + 900),
                failing_since: None,
            };
        })
    };
    assert_eq!(
        until(17).step(),
        Step::ActivateWatchdog {
            timeout: Duration::from_secs(17)
        }
    );
    assert!(
        matches!(until(9).step(), Step::WaitUntil(_)),
        "less than a loop: after the next renewal"
    );
}

#[test]
fn s4_3_1_required_and_not_to_be_had_nobody_leads_here() {
    let missing = |w: &mut World| w.server.watchdog_usable = false;
    let failed = |w: &mut World| w.memory.watchdog.failed_at = Some(NOW - Duration::from_secs(5));
    let too_short = |w: &mut World| w.local.watchdog.safety_margin = 21;
    let tests: [fn(&mut World); 3] = [missing, failed, too_short];
    for change in tests {
        assert_eq!(
            winner(WatchdogMode::Required)
                .with(change)
                .because("ha.md §4.3.1"),
            Step::ReleaseLeader { optime: None }
        );
        let demoted = primary(WatchdogMode::Required).with(change);
        assert!(matches!(
            demoted.because("ha.md §4.3.1"),
            Step::StartJob(Job::Stop {
                reason: StopReason::Demotion(DemotionMode::Immediate),
                ..
            })
        ));
        let active = primary(WatchdogMode::Required)
            .with(change)
            .with(|w| w.memory.watchdog.active = true);
        assert_eq!(active.step(), Step::Wait, "it works");
    }
}

#[test]
fn s4_3_1_a_server_that_may_be_promoted_yet_is_stopped_before_its_lock_goes() {
    let missing = |w: &mut World| w.server.watchdog_usable = false;
    let winner = || winner(WatchdogMode::Required).with(missing);
    let asked = winner().with(|w| w.memory.role = Role::Promoted);
    let silent = winner().with(|w| w.server.wal = None);
    for world in [asked, silent] {
        let step = world.because("ha.md §4.3.1");
        assert!(
            matches!(
                step,
                Step::StartJob(Job::Stop {
                    reason: StopReason::Demotion(DemotionMode::Immediate),
                    ..
                })
            ),
            "{step:?}"
        );
    }
}

#[test]
fn s19_automatic_goes_on_without_it() {
    let missing = |w: &mut World| w.server.watchdog_usable = false;
    let automatic = winner(WatchdogMode::Automatic).with(missing);
    assert_eq!(automatic.step(), Step::StartJob(Job::Promote));
    let failed = primary(WatchdogMode::Automatic)
        .with(|w| w.memory.watchdog.failed_at = Some(NOW - Duration::from_secs(29)));
    assert_eq!(failed.step(), Step::Wait);
    let later = primary(WatchdogMode::Automatic)
        .with(|w| w.memory.watchdog.failed_at = Some(NOW - Duration::from_secs(30)));
    assert_eq!(later.step(), activated(), "tried again after ttl");
}

#[test]
fn row_10_a_member_that_needs_one_and_has_none_does_not_race() {
    let world = |mode, usable| {
        World::unlocked("pg2")
            .silence()
            .with(|w| w.local.watchdog.mode = mode)
            .with(|w| w.server.watchdog_usable = usable)
    };
    let refused = world(WatchdogMode::Required, false);
    assert!(!matches!(
        refused.because("ha.md §10.1 row 10"),
        Step::AcquireLeader { .. }
    ));
    for world in [
        world(WatchdogMode::Required, true),
        world(WatchdogMode::Automatic, false),
    ] {
        assert!(matches!(world.step(), Step::AcquireLeader { .. }));
    }
}

#[test]
fn s19_half_of_ttl() {
    let half = winner(WatchdogMode::Required).with(|w| w.local.watchdog.safety_margin = -1);
    assert_eq!(
        half.step(),
        Step::ActivateWatchdog {
            timeout: Duration::from_secs(15)
        }
    );
    assert_eq!(half.memory.role, Role::Replica);
}
