//! `ha.md` §15, §10.1 row 11, §3.3: failsafe mode in the decision.

use std::collections::BTreeMap;
use std::time::Duration;

use primacy_ha::{
    Failsafe, FailsafeLeader, FailsafePromise, FailsafeVerdict, Lease, SlotChange, Step,
};
use primacy_model::{Lsn, ReplicationSlot, Role, SlotKind, Tags};
use serde_json::json;

use crate::world::{NOW, POSITION, World};

const HERE: u64 = POSITION.0;

fn failsafe(world: World) -> World {
    world.with(|w| {
        w.global.failsafe_mode = true;
        for name in ["pg1", "pg2", "pg3"] {
            w.cluster.failsafe.insert(name.into(), "u".into());
        }
    })
}

fn acquires(step: &Step) -> bool {
    matches!(step, Step::AcquireLeader { .. })
}

/// This agent began a moment ago.
fn young(world: World) -> World {
    world.with(|w| w.memory.began = NOW - Duration::from_secs(5))
}

/// The member answers that it has promised.
fn promised(world: World, name: &str) -> World {
    world.with(|w| {
        let answers = w.peers.as_mut().expect("answers");
        let answer = answers.get_mut(name).and_then(Option::as_mut);
        answer.expect("an answer").failsafe_active = true;
    })
}

#[test]
fn s15_an_agent_that_began_a_moment_ago_may_have_forgotten_a_promise() {
    let world = || young(failsafe(World::unlocked("pg2")));
    assert!(matches!(world().step(), Step::AskPeers(members) if members.len() == 2));
    let silent = world().peers(&[("pg3", Some(HERE))]);
    assert!(!acquires(&silent.because("ha.md §15")), "pg1 is silent");
    let primary = world().peers(&[("pg1", None), ("pg3", Some(HERE))]);
    assert!(!acquires(&primary.because("ha.md §15")), "pg1 leads");
    let told = promised(
        world().peers(&[("pg1", Some(HERE)), ("pg3", Some(HERE))]),
        "pg3",
    );
    assert!(!acquires(&told.because("ha.md §15")), "pg3 has promised");
    let free = world().peers(&[("pg1", Some(HERE)), ("pg3", Some(HERE))]);
    assert!(acquires(&free.step()));
    // An operator's choice does not change that.
    let chosen = world().failover(None, Some("pg2")).silence();
    assert!(!acquires(&chosen.because("ha.md §15")));
    let old = failsafe(World::unlocked("pg2")).silence();
    assert!(acquires(&old.step()), "it would know of a promise");
    let off = young(World::unlocked("pg2")).silence();
    assert!(acquires(&off.step()), "the mode is off, and never was on");
}

#[test]
fn s15_an_agent_that_began_a_moment_ago_does_not_know_since_when_the_mode_is_off() {
    let off = || failsafe(World::unlocked("pg2")).with(|w| w.global.failsafe_mode = false);
    let silent = || off().peers(&[("pg3", Some(HERE))]);
    assert!(
        !acquires(&young(silent()).because("ha.md §15")),
        "pg1 may lead by what this member promised"
    );
    assert!(
        acquires(&silent().step()),
        "it has been off for longer than that"
    );
    let free = off().peers(&[("pg1", Some(HERE)), ("pg3", Some(HERE))]);
    assert!(acquires(&young(free).step()), "nobody promised anything");
}

#[test]
fn s15_who_is_not_in_the_map_was_not_asked_and_leads_only_if_nobody_promised() {
    let world = || {
        failsafe(World::unlocked("pg2"))
            .with(|w| {
                w.cluster.failsafe.remove("pg2");
            })
            .failover(None, Some("pg2"))
    };
    assert!(!acquires(&world().silence().because("ha.md §15")));
    let told = promised(world().peers(&[("pg3", Some(HERE))]), "pg3");
    assert!(!acquires(&told.because("ha.md §15")));
    let primary = world().peers(&[("pg1", None), ("pg3", Some(HERE))]);
    assert!(!acquires(&primary.because("ha.md §15")));
    // The old leader is dead; pg3 promised nobody anything.
    let free = world().peers(&[("pg3", Some(HERE))]);
    assert!(acquires(&free.because("ha.md §10.3.1a")));
}

#[test]
fn s15_row_11_counts_until_the_key_is_empty_though_the_mode_is_off() {
    let off = || {
        failsafe(World::unlocked("pg2")).with(|w| {
            w.global.failsafe_mode = false;
            w.cluster.failsafe.remove("pg2");
            w.memory.failsafe.off_since = Some(NOW - Duration::from_secs(3600));
        })
    };
    // Those that a leader without the store asks may not have the store, either.
    let leads = off().peers(&[("pg1", None), ("pg3", Some(HERE))]);
    assert!(!acquires(&leads.because("ha.md §10.1 row 11")));
    let silent = || off().peers(&[("pg3", Some(HERE))]);
    assert!(!acquires(&silent().because("ha.md §10.1 row 11")));
    let switchover = silent().failover(Some("pg1"), Some("pg2"));
    let promised = promised(switchover, "pg3");
    assert!(!acquires(&promised.because("ha.md §15")));

    let free = off().peers(&[("pg1", Some(HERE)), ("pg3", Some(HERE))]);
    assert!(acquires(&free.step()));
    let emptied = silent().with(|w| w.cluster.failsafe.clear());
    assert!(acquires(&emptied.step()));
    let chosen = off().silence().failover(None, Some("pg2"));
    assert!(acquires(&chosen.step()), "an operator's way out");
    // Who leads without the store may learn only now that the mode is off.
    let too_early = off().silence().failover(None, Some("pg2")).with(|w| {
        w.memory.failsafe.off_since = Some(NOW - Duration::from_secs(29));
    });
    assert!(!acquires(&too_early.because("ha.md §15")));
}

#[test]
fn s3_3_the_verdict_decides_whether_a_primary_stays() {
    let away = |verdict: Option<FailsafeVerdict>| {
        failsafe(World::of("pg1")).with(|w| {
            w.reachable = false;
            w.lease = Lease::Held {
                until: NOW + Duration::from_secs(10),
                failing_since: Some(NOW - Duration::from_secs(15)),
            };
            w.memory.failsafe = Failsafe {
                verdict,
                ..Failsafe::default()
            };
        })
    };
    assert_eq!(away(None).because("ha.md §15"), Step::Wait, "asking");
    let stays = away(Some(FailsafeVerdict::Accepted));
    let decision = stays.decide();
    assert_eq!(decision.step, Step::Wait);
    assert_eq!(
        decision.outcome,
        "continue to run as a leader because failsafe mode is enabled and all members are accessible"
    );
    let refused = away(Some(FailsafeVerdict::Refused("pg3: no".into())));
    assert!(matches!(refused.because("ha.md §15"), Step::StartJob(_)));
    // Reads that succeed while renewals fail are no different.
    let seen = away(Some(FailsafeVerdict::Accepted)).with(|w| w.reachable = true);
    assert_eq!(seen.step(), Step::Wait);
    let seen = away(Some(FailsafeVerdict::Refused("no".into()))).with(|w| w.reachable = true);
    assert!(matches!(seen.step(), Step::StartJob(_)));
}

fn idle_slot(name: &str) -> ReplicationSlot {
    ReplicationSlot {
        name: name.into(),
        kind: SlotKind::Physical,
        active: false,
        restart_lsn: Some(Lsn(1)),
        confirmed_flush_lsn: None,
        has_xmin: false,
        catalog_xmin: None,
        lost: false,
        failover: false,
        synced: false,
    }
}

fn advances(step: Step, name: &str, to: u64) -> bool {
    match step {
        Step::ChangeSlots(changes) => changes.contains(&SlotChange::Advance {
            name: name.into(),
            to: Lsn(to),
        }),
        _ => false,
    }
}

#[test]
fn s15_slots_move_by_what_the_answers_tell() {
    let world = failsafe(World::of("pg1")).with(|w| {
        w.global.use_slots = true;
        // pg3 streams from pg2: nobody uses its slot here.
        w.cluster.members[2].data.tags = Tags::from_json(&json!({"replicatefrom": "pg2"}));
        w.last_healthy = Some(w.cluster.clone());
        w.reachable = false;
        w.lease = Lease::Held {
            until: NOW + Duration::from_secs(10),
            failing_since: Some(NOW - Duration::from_secs(15)),
        };
        w.memory.failsafe.verdict = Some(FailsafeVerdict::Accepted);
        w.memory.failsafe.positions = BTreeMap::from([("pg3".into(), Lsn(HERE - 9))]);
        w.wal().slots = Some(vec![idle_slot("pg2"), idle_slot("pg3")]);
    });
    assert!(advances(world.step(), "pg3", HERE - 9));
}

#[test]
fn s15_slots_move_by_what_the_question_told() {
    let world = failsafe(World::of("pg2")).with(|w| {
        w.global.use_slots = true;
        w.last_healthy = Some(w.cluster.clone());
        w.reachable = false;
        w.wal().slots = Some(vec![idle_slot("pg1"), idle_slot("pg3")]);
        let leader = FailsafeLeader {
            name: "pg1".into(),
            conn_url: "postgres://pg1:5432/postgres".into(),
            api_url: "http://pg1:8008/patroni".into(),
            slots: Some(BTreeMap::from([("pg3".into(), Lsn(HERE - 7))])),
            ttl: None,
        };
        w.memory.failsafe.promise = Some(FailsafePromise {
            leader,
            until: NOW + Duration::from_secs(20),
        });
    });
    assert!(advances(world.step(), "pg3", HERE - 7));
    let over = world.with(|w| {
        let promise = w.memory.failsafe.promise.as_mut().expect("a promise");
        promise.until = NOW;
    });
    assert_eq!(over.step(), Step::Wait);
    assert_eq!(over.memory.role, Role::Replica);
}
