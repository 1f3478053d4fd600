//! The lock, where others may have led between the race for it and its arrival.

use std::time::Duration;

use primacy_ha::{Action, Event, Job, Step, StepOutcome};
use primacy_model::{Role, Version};

use crate::driver::{Driver, TTL};
use crate::world::{self, World};

/// With `synchronous_mode` in `/config`.
pub(crate) fn synchronous(mut world: World) -> Driver {
    let config = world.cluster.config.as_mut().expect("a configuration");
    config.value.insert("synchronous_mode".into(), true.into());
    Driver::starting(world)
}

fn acquires(action: &Action) -> bool {
    matches!(
        action,
        Action::Perform {
            step: Step::AcquireLeader { .. },
            ..
        }
    )
}

fn promotes(action: &Action) -> bool {
    matches!(action, Action::StartJob(Job::Promote))
}

/// `pg2` asks for the lock. The next view that it gets is what `meanwhile` leaves.
fn asks_for_the_lock(
    driver: &mut Driver,
    outcome: StepOutcome,
    meanwhile: impl FnOnce(&mut Driver),
) {
    let mut queue = driver.step(Event::Tick);
    let mut meanwhile = Some(meanwhile);
    while !queue.is_empty() {
        let action = queue.remove(0);
        let event = match meanwhile.take_if(|_| acquires(&action)) {
            Some(meanwhile) => {
                meanwhile(driver);
                Some(Event::StepDone(outcome.clone()))
            }
            None => driver.answer(&action),
        };
        if let Some(event) = event {
            queue.extend(driver.step(event));
        }
    }
    assert!(meanwhile.is_none(), "it did not race");
}

/// `pg3` led, removed all others from `/sync`, committed alone, and released the lock; then the request arrived.
fn another_led(driver: &mut Driver) {
    driver.cluster.sync.leader = Some("pg3".into());
    driver.cluster.sync.standbys.clear();
    driver.cluster.sync.version = Some(Version(77));
    driver.cluster.leader = Some(world::leader("pg2"));
}

fn unlocked() -> World {
    World::unlocked("pg2").sync("pg1", &["pg2", "pg3"])
}

/// Commits that only `pg3` has would be lost.
#[test]
fn i2_a_lock_that_arrives_after_another_led_promotes_nobody_who_is_not_in_sync_any_more() {
    for outcome in [StepOutcome::Done, StepOutcome::Failed("no answer".into())] {
        let mut driver = synchronous(unlocked());
        asks_for_the_lock(&mut driver, outcome.clone(), another_led);
        driver.pass_time(TTL, |_| false);
        assert!(!driver.saw(promotes), "{outcome:?}");
        assert_eq!(driver.cluster.leader, None, "{outcome:?}");
        assert_eq!(driver.machine.memory().role, Role::Replica);
    }
}

/// An agent that was restarted does not know what its predecessor won the lock by.
#[test]
fn i2_a_lock_found_at_the_start_promotes_nobody_who_is_not_in_sync_any_more() {
    let mut driver = synchronous(unlocked());
    another_led(&mut driver);
    driver.pass_time(TTL, |_| false);
    assert!(!driver.saw(promotes));
    assert_eq!(driver.cluster.leader, None);
}

/// Without synchronous mode it is the position that decides: it was compared before the other one led.
#[test]
fn i4_a_lock_that_arrives_after_another_led_is_raced_for_again() {
    let late = |optime: u64| {
        let mut driver = Driver::starting(World::unlocked("pg2"));
        asks_for_the_lock(
            &mut driver,
            StepOutcome::Failed("no answer".into()),
            |driver| {
                // Seen without a leader once, so that it is not in doubt any more whether it was carried out.
                driver.cluster.leader = None;
            },
        );
        driver.cluster.status.optime.0 += optime;
        driver.cluster.leader = Some(world::leader("pg2"));
        driver.pass_time(TTL, |_| false);
        driver.saw(promotes)
    };
    assert!(late(0), "it wins the second race as well");
    assert!(!late(1 << 30), "it lags behind what was written since");
}

/// Whom an operator chose may be outside of `/sync`, and the request is cleared once the lock is won.
#[test]
fn s10_3_1a_a_chosen_member_is_promoted_also_from_outside_of_sync() {
    let world = World::unlocked("pg2")
        .sync("pg1", &["pg3"])
        .failover(None, Some("pg2"));
    let mut driver = synchronous(world);
    asks_for_the_lock(&mut driver, StepOutcome::Done, |driver| {
        driver.cluster.leader = Some(world::leader("pg2"));
        driver.cluster.failover = None;
    });
    driver.now = driver.now + Duration::from_secs(1);
    driver.rest();
    let publishes = |action: &Action| matches!(action, Action::Perform { step: Step::WriteSync(sync), .. } if sync.has_leader("pg2"));
    assert!(driver.saw(publishes), "{:#?}", driver.seen);
    assert_eq!(driver.cluster.leader, Some(world::leader("pg2")));
}
