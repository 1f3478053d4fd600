//! `ha.md` §19: the watchdog device follows the lease.

use std::time::Duration;

use primacy_config::WatchdogMode;
use primacy_ha::{Action, Event, JobProgress, RenewalResult};

use crate::driver::{Driver, TTL};
use crate::world::World;

fn ping(action: &Action) -> Option<Duration> {
    match action {
        Action::PingWatchdog { timeout, .. } => Some(*timeout),
        _ => None,
    }
}

fn disables(action: &Action) -> bool {
    matches!(action, Action::DisableWatchdog)
}

/// A leader whose device is active.
fn watched() -> Driver {
    let mut driver = Driver::starting(World::of("pg1").with(|w| {
        w.local.watchdog.mode = WatchdogMode::Required;
        w.server.watchdog_usable = true;
    }));
    driver.rest();
    assert!(driver.machine.memory().watchdog.active);
    driver.seen.clear();
    driver
}

#[test]
fn s19_it_is_pinged_by_confirmed_renewals_alone() {
    let mut driver = watched();
    driver.pass_time(Duration::from_secs(9), |_| false);
    assert!(!driver.saw(|action| ping(action).is_some()));
    driver.pass_time(Duration::from_secs(2), |_| false);
    assert!(driver.saw(|action| ping(action) == Some(Duration::from_secs(25))));
    driver.seen.clear();

    driver.reachable = false;
    driver.pass_time(TTL, |_| false);
    assert!(
        !driver.saw(|action| ping(action).is_some()),
        "the store is away"
    );
}

#[test]
fn s19_a_late_answer_leaves_it_no_longer_than_the_lease() {
    let mut driver = watched();
    let sent = driver.now;
    driver.now = sent + Duration::from_secs(8);
    let actions = driver.step(Event::Renewed {
        sent: sent + Duration::from_secs(1),
        result: RenewalResult::Renewed,
    });
    assert_eq!(
        actions.iter().find_map(ping),
        Some(TTL - Duration::from_secs(7)),
    );
}

#[test]
fn s19_it_is_closed_once_nobody_can_commit_here() {
    let mut driver = watched();
    driver.die();
    driver.pass_time(Duration::from_secs(11), |_| false);
    assert!(driver.saw(disables), "the server is gone");
    assert!(!driver.machine.memory().watchdog.active);

    let mut driver = watched();
    let actions = driver.step(Event::Terminate);
    let mut stopping = Vec::new();
    for action in actions {
        if let Some(event) = driver.answer(&action) {
            stopping.extend(driver.step(event));
        }
    }
    assert!(
        driver.saw(|action| matches!(action, Action::StartJob(_))),
        "{stopping:?}"
    );
    assert!(!driver.saw(disables), "clients may still commit");
    let actions = driver.step(Event::JobProgress(JobProgress::NoBackends));
    assert!(actions.iter().any(disables), "the safepoint");
}

#[test]
fn s19_a_lease_that_ends_leaves_it_counting_while_the_server_lives() {
    let mut driver = watched();
    driver.reachable = false;
    let killed = driver.pass_time(TTL, |action| matches!(action, Action::StartJob(_)));
    assert!(killed);
    let before = driver.seen.iter().position(disables);
    let stop = driver
        .seen
        .iter()
        .position(|action| matches!(action, Action::StartJob(_)));
    assert!(before.is_none_or(|at| Some(at) > stop), "{:?}", driver.seen);
}

#[test]
fn s19_an_activation_that_failed_is_told_to_others() {
    let mut driver = Driver::starting(World::of("pg1").with(|w| {
        w.local.watchdog.mode = WatchdogMode::Required;
    }));
    driver.rest();
    assert!(driver.machine.watchdog_failed(driver.now));
    assert!(!watched().machine.watchdog_failed(driver.now));
}
