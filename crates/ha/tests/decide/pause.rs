//! `ha.md` §22: maintenance.

use primacy_ha::{Lease, Step};

use crate::world::{World, held, leader};

fn paused(world: World) -> World {
    world.with(|w| w.global.pause = true)
}

#[test]
fn a_second_primary_is_tolerated() {
    let world = paused(World::of("pg1").with(|w| {
        w.cluster.leader = Some(leader("pg2"));
        w.lease = Lease::None;
    }));
    let decision = world.decide();
    assert_eq!(decision.step, Step::Wait);
    assert_eq!(
        decision.outcome,
        "PAUSE: continue to run as primary without lock"
    );
}

#[test]
fn s4_1_1_an_owner_that_is_no_primary_gives_the_lock_up_unless_it_was_chosen() {
    let owner = || {
        paused(World::of("pg2").with(|w| {
            w.cluster.leader = Some(leader("pg2"));
            w.lease = held();
        }))
    };
    assert_eq!(
        owner().because("ha.md §4.1.1"),
        Step::ReleaseLeader { optime: None }
    );
    let chosen = owner().failover(None, Some("pg2"));
    assert!(matches!(
        chosen.step(),
        Step::StartJob(primacy_ha::Job::Promote)
    ));
}

#[test]
fn s10_3_1b_only_the_named_candidate_takes_a_free_lock() {
    let chosen = paused(World::unlocked("pg2").failover(Some("pg1"), Some("pg2")));
    let step = chosen.step();
    assert_eq!(
        step,
        Step::AcquireLeader {
            failover: Some(r#"{"member":"pg2"}"#.into())
        }
    );
    let other = paused(World::unlocked("pg3").failover(Some("pg1"), Some("pg2")));
    assert!(!matches!(
        other.because("ha.md §10.3.1b"),
        Step::AcquireLeader { .. }
    ));
}

#[test]
fn replay_is_not_resumed() {
    let world = paused(World::of("pg2").with(|w| w.wal().replay_paused = true));
    assert_eq!(world.step(), Step::Wait);
}
