//! `ha.md` §26: known weaknesses of the algorithm, closed by the machine.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use primacy_ha::{Action, Event, Lease};
use primacy_model::{Lsn, Version, WalSender};
use serde_json::json;

use crate::driver::{Driver, TTL, kills};
use crate::world::{self, POSITION, World};

fn synchronous(mode: serde_json::Value) -> Driver {
    let mut world = World::of("pg1");
    let config = world.cluster.config.as_mut().expect("a configuration");
    config.value.insert("synchronous_mode".into(), mode);
    config.version = Version(2);
    let mut driver = Driver::starting(world);
    driver.rest();
    driver
}

/// What a session of the agent's shows, and what the walsenders say.
fn shows(driver: &mut Driver, names: &str, position: Lsn, senders: &[WalSender]) {
    let mut server = driver.server.clone();
    let wal = server.wal.as_mut().expect("a running server");
    wal.synchronous_standby_names = names.into();
    wal.flush_lsn = position;
    wal.senders = senders.to_vec();
    driver.step(Event::Observed(server));
}

fn at(mut sender: WalSender, position: Lsn) -> WalSender {
    sender.flush_lsn = Some(position);
    sender
}

fn confirmed(driver: &Driver) -> Vec<String> {
    let confirmed = &driver.machine.memory().sync.confirmed;
    confirmed.iter().map(ToString::to_string).collect()
}

#[test]
fn w2_names_count_once_every_walsender_works_by_them() {
    let mut driver = synchronous(json!(true));
    let (before, after) = (POSITION, Lsn(POSITION.0 + 100));
    // The session shows the new names; the walsender of pg2 still works by the old ones and has everything.
    let lagging = at(world::sender("pg2", "async"), after);
    shows(&mut driver, "pg2", before, std::slice::from_ref(&lagging));
    assert_eq!(driver.machine.memory().sync.position, None);
    assert!(confirmed(&driver).is_empty());
    // Now it works by them: what was acknowledged until now went by the old names.
    let caught_up = at(world::sender("pg2", "sync"), before);
    shows(&mut driver, "pg2", after, &[caught_up]);
    assert_eq!(driver.machine.memory().sync.position, Some(after));
    assert!(confirmed(&driver).is_empty());
    let confirming = at(world::sender("pg2", "sync"), after);
    shows(&mut driver, "pg2", after, &[confirming]);
    assert_eq!(confirmed(&driver), ["pg2"]);
}

#[test]
fn w3_confirmations_under_a_smaller_count_say_nothing_about_a_larger_one() {
    let mut driver = synchronous(json!("quorum"));
    let senders = |positions: [u64; 2]| {
        [
            at(world::sender("pg2", "quorum"), Lsn(positions[0])),
            at(world::sender("pg3", "quorum"), Lsn(positions[1])),
        ]
    };
    let here = POSITION.0;
    shows(
        &mut driver,
        "ANY 1 (pg2,pg3)",
        POSITION,
        &senders([here; 2]),
    );
    assert_eq!(confirmed(&driver), ["pg2", "pg3"]);
    // The count grows. A commit that pg2 alone acknowledged came before.
    let later = Lsn(here + 50);
    shows(
        &mut driver,
        "ANY 2 (pg2,pg3)",
        later,
        &senders([here + 50, here]),
    );
    assert_eq!(confirmed(&driver), ["pg2"], "pg3 lacks that commit");
    shows(
        &mut driver,
        "ANY 2 (pg2,pg3)",
        later,
        &senders([here + 50; 2]),
    );
    assert_eq!(confirmed(&driver), ["pg2", "pg3"]);
}

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
    driver.pass_time(TTL, |_| false);
    let asked = |driver: &Driver| {
        let mut asked = driver.seen.iter().filter_map(|action| match action {
            Action::AskPeers { members } => Some(members.len()),
            _ => None,
        });
        asked.next_back()
    };
    driver.cluster.status.optime = Lsn::ZERO;
    driver.cluster.members.push(world::member("pg4"));
    driver.pass_time(Duration::from_secs(2), |action| {
        matches!(action, Action::AskPeers { .. })
    });
    assert_eq!(asked(&driver), Some(3));
}
