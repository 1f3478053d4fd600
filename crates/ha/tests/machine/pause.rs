//! `ha.md` §22: what the machine itself does differently in pause, and at its edges.

use std::time::Duration;

use primacy_config::{GlobalConfig, TimingLimits};
use primacy_ha::{
    Action, Event, FenceOrder, Job, Lease, Machine, RenewalResult, RewindState, Step,
};
use primacy_model::{Role, State, Version};

use crate::driver::{Driver, TTL, kills};
use crate::world::{self, World};

const CYCLE: Duration = Duration::from_secs(11);

fn set_pause(driver: &mut Driver, pause: bool) {
    let config = driver.cluster.config.as_mut().expect("a configuration");
    config.value.insert("pause".into(), pause.into());
    config.version = Version(config.version.0 + 1);
    let actions = driver.step(Event::StoreChanged(primacy_ha::StoreKey::Config));
    driver.finish(actions);
    driver.pass_time(CYCLE, |_| false);
    driver.seen.clear();
}

fn paused(mut driver: Driver) -> Driver {
    set_pause(&mut driver, true);
    driver
}

fn harms(action: &Action) -> bool {
    kills(action) || matches!(action, Action::StartJob(_))
}

// `configuration.md` §1.6, §1.7.
#[test]
fn a_ttl_that_is_no_number_leaves_the_one_in_force() {
    let mut driver = Driver::leading();
    let set = |driver: &mut Driver, ttl: serde_json::Value| {
        let config = driver.cluster.config.as_mut().expect("a configuration");
        config.value.insert("ttl".into(), ttl);
    };
    set(&mut driver, 60.into());
    set_pause(&mut driver, false);
    assert_eq!(driver.machine.global().ttl, Duration::from_secs(60));
    set(&mut driver, "40s".into());
    set_pause(&mut driver, true);
    assert_eq!(driver.machine.global().ttl, Duration::from_secs(60));
    // What is no business of the refused part is what the store says.
    assert!(driver.machine.global().pause);
}

#[test]
fn a_pause_keeps_the_primary_without_a_store() {
    let mut driver = Driver::leading();
    set_pause(&mut driver, true);
    driver.reachable = false;
    assert!(!driver.pass_time(3 * TTL, harms));
}

#[test]
fn s4_1_2_a_lock_that_is_lost_in_pause_stops_nothing_and_arms_no_fence() {
    let mut driver = paused(Driver::leading());
    driver.cluster.leader = Some(world::leader("pg2"));
    let sent = driver.now;
    let actions = driver.step(Event::Renewed {
        sent,
        result: RenewalResult::Lapsed,
    });
    driver.finish(actions);
    assert!(!driver.pass_time(2 * TTL, harms));
    assert_eq!(driver.machine.lease(), Lease::None);
    let armed =
        |action: &Action| matches!(action, Action::SetFence(order) if *order != FenceOrder::Disarm);
    assert!(!driver.saw(armed));
    // Resumed, it is one primary too many, and an agent that is frozen now does not stop it.
    let config = driver.cluster.config.as_mut().expect("a configuration");
    config.value.insert("pause".into(), false.into());
    config.version = Version(500);
    let stops = |action: &Action| matches!(action, Action::StartJob(Job::Stop { .. }));
    assert!(driver.pass_time(CYCLE, stops));
    assert!(driver.saw(armed));
}

/// In pause a primary runs on without the lock; none comes to be without it.
#[test]
fn a_promotion_under_way_is_under_the_fence_in_pause_and_goes_with_the_lease() {
    let mut driver = Driver::starting(World::unlocked("pg2").silence());
    driver.promotes = false;
    driver.rest();
    assert_eq!(driver.machine.memory().role, Role::Promoted);
    set_pause(&mut driver, true);
    let armed = |action: &Action| matches!(action, Action::SetFence(FenceOrder::Until(_)));
    let disarmed = |action: &Action| matches!(action, Action::SetFence(FenceOrder::Disarm));
    driver.pass_time(CYCLE, |_| false);
    assert!(driver.saw(armed) && !driver.saw(disarmed));
    driver.reachable = false;
    assert!(driver.pass_time(2 * TTL, kills));

    // The next agent, which finds what was asked of the server.
    let mut world = World::of("pg2");
    world.server.promoting = true;
    world
        .cluster
        .config
        .as_mut()
        .expect("a configuration")
        .value
        .insert("pause".into(), true.into());
    let mut driver = Driver::starting(world);
    driver.reachable = false;
    driver.rest();
    let limited = |action: &Action| matches!(action, Action::SetFence(FenceOrder::AtMost(_)));
    assert!(driver.saw(limited));
    driver.reachable = true;
    let stops = |action: &Action| matches!(action, Action::StartJob(Job::Stop { .. }));
    assert!(driver.pass_time(CYCLE, stops));
}

#[test]
fn s3_k_stopped_and_started_by_hand_the_lock_goes_and_comes_back() {
    let mut driver = paused(Driver::leading());
    let running = driver.server.clone();
    driver.die();
    let actions = driver.step(Event::PostmasterChanged);
    driver.finish(actions);
    let released = |action: &Action| {
        matches!(
            action,
            Action::Perform {
                step: Step::ReleaseLeader { .. },
                ..
            }
        )
    };
    assert!(driver.saw(released));
    assert_eq!(driver.machine.memory().state, State::Stopped);
    assert!(!driver.pass_time(2 * TTL, harms), "it was started");
    driver.server = running;
    driver.pass_time(CYCLE, |_| false);
    assert!(driver.machine.lease().is_held(driver.now));
    assert_eq!(driver.machine.memory().role, Role::Primary);
    assert!(!driver.saw(harms));
}

#[test]
fn s22_a_replica_promoted_by_hand_takes_the_lock_once_it_is_free() {
    let mut driver = Driver::starting(World::of("pg2"));
    driver.rest();
    let mut driver = paused(driver);
    driver.server.wal = Some(world::primary_wal());
    assert!(
        !driver.pass_time(2 * TTL, harms),
        "parallel primaries are tolerated"
    );
    assert_eq!(driver.machine.lease(), Lease::None);
    driver.cluster.leader = None;
    driver.pass_time(CYCLE, |_| false);
    let took = |action: &Action| {
        matches!(
            action,
            Action::Perform {
                step: Step::AcquireLeader { .. },
                ..
            }
        )
    };
    assert!(driver.saw(took));
}

#[test]
fn s3_b_a_standby_that_loses_its_upstream_after_a_pause_is_compared_and_follows_again() {
    let mut driver = Driver::starting(World::of("pg2"));
    driver.rest();
    let mut driver = paused(driver);
    set_pause(&mut driver, false);
    let receiver = driver
        .server
        .wal
        .as_mut()
        .expect("a running server")
        .receiver
        .take();
    assert!(receiver.is_some());
    let compares =
        |action: &Action| matches!(action, Action::StartJob(Job::CheckDivergence { .. }));
    assert!(driver.pass_time(CYCLE, compares));
}

#[test]
fn s3_b_leaving_pause_forgets_what_was_known_of_divergence() {
    let mut driver = Driver::starting(World::of("pg2").with(|w| {
        // Does not stream, and nobody can compare it.
        w.wal().receiver = None;
        w.local.use_pg_rewind = true;
    }));
    driver.pass_time(CYCLE, |_| false);
    let mut driver = paused(driver);
    driver.die();
    driver.pass_time(CYCLE, |_| false);
    let before = driver.machine.memory().rewind;
    assert_ne!(before, RewindState::Initial);
    let config = driver.cluster.config.as_mut().expect("a configuration");
    config.value.insert("pause".into(), false.into());
    config.version = Version(500);
    let compares =
        |action: &Action| matches!(action, Action::StartJob(Job::CheckDivergence { .. }));
    assert!(driver.pass_time(CYCLE, compares), "compared afresh");
}

#[test]
fn what_an_earlier_agent_told_the_fence_stands_until_the_store_tells_of_the_pause() {
    let disarms = |action: &Action| matches!(action, Action::SetFence(FenceOrder::Disarm));
    let mut driver = Driver::starting(World::of("pg1"));
    let paused = GlobalConfig {
        pause: true,
        ..GlobalConfig::default()
    };
    driver.machine = Machine::new(
        World::of("pg1").local,
        paused,
        TimingLimits::PATRONI,
        driver.now,
    );
    let config = driver.cluster.config.as_mut().expect("a configuration");
    config.value.insert("pause".into(), true.into());
    driver.reachable = false;
    driver.rest();
    assert!(
        !driver.saw(disarms),
        "known from the cached configuration alone"
    );
    driver.reachable = true;
    assert!(driver.pass_time(CYCLE, disarms));
}
