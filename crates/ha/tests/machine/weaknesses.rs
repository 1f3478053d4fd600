//! `ha.md` §26: known weaknesses of the algorithm, closed by the machine.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use primacy_ha::{Event, Lease};
use primacy_model::Lsn;

use crate::driver::{Driver, TTL, kills};
use crate::world::World;

#[test]
fn w4_a_wall_clock_that_jumps_moves_no_deadline() {
    let mut driver = Driver::leading();
    let Lease::Held { until, .. } = driver.machine.lease() else {
        panic!("no lease")
    };
    let wake = driver.machine.wake_at();
    for hours in [-10_000, 10_000] {
        let wall = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours);
        let actions = driver.machine.step(Event::Tick, driver.now, wall);
        assert!(!actions.iter().any(kills), "{actions:?}");
    }
    assert_eq!(driver.machine.wake_at(), wake);
    assert!(matches!(driver.machine.lease(), Lease::Held { until: same, .. } if same == until));
}

#[test]
fn w29_who_is_remembered_does_not_grow_while_nobody_leads() {
    let mut driver = Driver::starting(World::of("pg2"));
    driver.rest();
    driver.cluster.leader = None;
    driver.cluster.status.optime = Lsn(u64::MAX / 2);
    driver.pass_time(Duration::from_secs(2), |_| false);
    // Whatever it is that remembers a member, it says so.
    let remembered = |driver: &Driver| format!("{:?}", driver.machine).matches("pg3:8008").count();
    let before = remembered(&driver);
    assert!(before > 1, "in the view, and in the last one with a leader");
    driver.pass_time(TTL, |_| false);
    assert_eq!(remembered(&driver), before);
}
