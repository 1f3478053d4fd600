//! The replicated state, on its own.

use std::time::Duration;

use proptest::prelude::*;

use crate::clock::{Reign, millis};
use crate::command::{Action, Answer, Blob, Command, Condition, Millis, Op, RequestId};
use crate::machine::{Event, State};

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["/a", "/a/b", "/b"]).prop_map(str::to_owned)
}

fn blob() -> impl Strategy<Value = Blob> {
    prop::sample::select(vec!["", "x", "y"]).prop_map(|text| Blob(text.into()))
}

/// Leases are named after the entry that made them: small indexes hit.
fn lease() -> impl Strategy<Value = String> {
    (1..40_u64).prop_map(|index| format!("{index:016x}"))
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::Always),
        Just(Condition::Absent),
        (1..40_u64).prop_map(Condition::Version),
        blob().prop_map(Condition::Value),
        (key(), blob()).prop_map(|(key, value)| Condition::Holds { key, value }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (key(), blob(), prop::option::of(lease()), condition()).prop_map(
            |(key, value, lease, condition)| Op::Put {
                key,
                value,
                lease,
                condition
            }
        ),
        (key(), condition()).prop_map(|(key, condition)| Op::Delete { key, condition }),
        (0..50_u64).prop_map(|ttl| Op::GrantLease { ttl }),
        lease().prop_map(|lease| Op::RenewLease { lease }),
        lease().prop_map(|lease| Op::RevokeLease { lease }),
        key().prop_map(|prefix| Op::DeletePrefix { prefix }),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        1 => "[a-z]{4}".prop_map(|group| Action::Lead { group }),
        2 => Just(Action::Tick),
        10 => (0..3_u8, 0..10_u64, 0..5_u64, op()).prop_map(|(client, seq, settled, op)| Action::Serve {
            id: RequestId { client: client.to_string(), seq, settled: settled.min(seq) },
            op,
        }),
    ]
}

/// Commands of the present reign, now and then of one that is over, with a clock that mostly moves on.
fn commands() -> impl Strategy<Value = Vec<(bool, Millis, Action)>> {
    prop::collection::vec((prop::bool::weighted(0.9), 0..30_u64, action()), 0..60)
}

fn run(
    state: &mut State,
    steps: Vec<(bool, Millis, Action)>,
    mut each: impl FnMut(&State, &State, &[Event]),
) {
    let mut clock = 0;
    for (index, (present, pace, action)) in (1_u64..).zip(steps) {
        clock += pace;
        let reign = if present {
            state.reign
        } else {
            state.reign + 1000
        };
        let before = state.clone();
        let mut events = Vec::new();
        state.apply(
            index,
            Command {
                reign,
                at: clock,
                action,
            },
            &mut events,
        );
        each(&before, state, &events);
    }
}

proptest! {
    #[test]
    fn two_replicas_that_apply_the_same_log_are_equal(steps in commands(), cut in 0..60_usize) {
        let mut one = State::default();
        run(&mut one, steps.clone(), |_, _, _| {});
        // The other one stops on the way, and goes on from its snapshot.
        let mut other = State::default();
        let mut kept = None;
        let mut index = 0;
        run(&mut other, steps, |_, after, _| {
            index += 1;
            if index == cut {
                kept = Some(serde_json::to_string(after).unwrap());
            }
        });
        prop_assert_eq!(serde_json::to_string(&one).unwrap(), serde_json::to_string(&other).unwrap());
        if let Some(kept) = kept {
            let back: State = serde_json::from_str(&kept).unwrap();
            prop_assert_eq!(serde_json::to_string(&back).unwrap(), kept);
        }
    }

    #[test]
    fn the_events_tell_every_change(steps in commands()) {
        let mut seen = std::collections::BTreeMap::new();
        let mut state = State::default();
        run(&mut state, steps, |_, after, events| {
            for event in events {
                match event {
                    Event::Put(key, item) => seen.insert(key.clone(), item.clone()),
                    Event::Delete(key) => seen.remove(key),
                };
            }
            assert_eq!(seen, after.keys);
        });
    }

    #[test]
    fn a_lease_lapses_neither_early_nor_unnoticed(steps in commands()) {
        let mut state = State::default();
        run(&mut state, steps.clone(), |before, after, events| {
            assert!(before.now <= after.now, "time went back");
            for (id, lease) in &after.leases {
                assert!(lease.deadline >= after.now, "{id} is past its deadline");
            }
            for item in after.keys.values() {
                let alive = item.lease.as_ref().is_none_or(|id| after.leases.contains_key(id));
                assert!(alive, "a key has outlived its lease");
            }
            let _ = events;
        });
        // Who is renewed at every step within its time never goes.
        let mut state = State::default();
        let grant = serve(0, Op::GrantLease { ttl: 100 });
        let answer = state.apply(1, Command { reign: 0, at: 0, action: grant }, &mut Vec::new());
        let Answer::Granted { lease } = answer else { panic!("{answer:?}") };
        let mut at = 0;
        for (index, (_, pace, _)) in (2_u64..).zip(steps) {
            at += pace;
            let renew = serve(index, Op::RenewLease { lease: lease.clone() });
            let answer = state.apply(index, Command { reign: 0, at, action: renew }, &mut Vec::new());
            prop_assert_eq!(answer, Answer::Renewed);
        }
    }
}

fn serve(seq: u64, op: Op) -> Action {
    Action::Serve {
        id: RequestId {
            client: "c".into(),
            seq,
            settled: 0,
        },
        op,
    }
}

fn put(value: &str) -> Op {
    Op::Put {
        key: "/k".into(),
        value: Blob(value.into()),
        lease: None,
        condition: Condition::Always,
    }
}

fn apply(state: &mut State, index: u64, at: Millis, action: Action) -> Answer {
    let reign = state.reign;
    state.apply(index, Command { reign, at, action }, &mut Vec::new())
}

#[test]
fn a_lease_lapses_strictly_after_its_time() {
    let mut state = State::default();
    apply(&mut state, 1, 1000, serve(0, Op::GrantLease { ttl: 50 }));
    apply(&mut state, 2, 1050, Action::Tick);
    assert_eq!(state.leases.len(), 1);
    apply(&mut state, 3, 1051, Action::Tick);
    assert!(state.leases.is_empty());
}

#[test]
fn a_new_leader_gives_every_lease_its_full_time_and_ends_the_old_clock() {
    let mut state = State::default();
    apply(&mut state, 1, 1000, serve(0, Op::GrantLease { ttl: 50 }));
    apply(&mut state, 2, 1040, Action::Tick);
    let led = apply(&mut state, 3, 0, Action::Lead { group: "g".into() });
    assert_eq!(
        led,
        Answer::Led {
            reign: 3,
            now: 1040
        }
    );
    assert_eq!(state.next_deadline(), Some(1090));
    // What the old leader still had to say came too late.
    let stale = Command {
        reign: 0,
        at: 9999,
        action: serve(1, put("late")),
    };
    assert_eq!(state.apply(4, stale, &mut Vec::new()), Answer::Superseded);
    assert_eq!((state.now, state.keys.len()), (1040, 0));
}

#[test]
fn a_repeated_request_is_applied_once() {
    let mut state = State::default();
    let first = apply(&mut state, 1, 0, serve(0, put("a")));
    apply(&mut state, 2, 0, serve(1, put("b")));
    assert_eq!(apply(&mut state, 3, 0, serve(0, put("a"))), first);
    assert_eq!(state.keys["/k"].value, Blob("b".into()));
}

#[test]
fn a_request_that_was_given_up_is_not_applied_any_more() {
    let mut state = State::default();
    let later = Action::Serve {
        id: RequestId {
            client: "c".into(),
            seq: 5,
            settled: 5,
        },
        op: put("new"),
    };
    apply(&mut state, 1, 0, later);
    assert_eq!(
        apply(&mut state, 2, 0, serve(4, put("old"))),
        Answer::Forgotten
    );
    assert_eq!(state.keys["/k"].value, Blob("new".into()));
}

#[test]
fn what_is_too_big_is_refused() {
    let mut state = State::default();
    let value = "x".repeat(crate::machine::MAX_ITEM_BYTES);
    assert!(matches!(
        apply(&mut state, 1, 0, serve(0, put(&value))),
        Answer::Refused { .. }
    ));
    let most = crate::machine::MAX_ITEM_BYTES - 100;
    let mut refused = 0;
    for number in 1..=20 {
        let op = Op::Put {
            key: format!("/{number}"),
            value: Blob(vec![0; most]),
            lease: None,
            condition: Condition::Always,
        };
        refused += u32::from(matches!(
            apply(&mut state, number, 0, serve(number, op)),
            Answer::Refused { .. }
        ));
    }
    assert_eq!(
        refused, 4,
        "sixteen of a megabyte each are all there may be"
    );
}

#[test]
fn the_leaders_clock_counts_from_its_own_start() {
    let reign = Reign {
        index: 7,
        base: 500,
        anchor: Duration::from_millis(90_000),
    };
    assert_eq!(reign.at(Duration::from_micros(90_001_999)), 501);
    assert_eq!(reign.at(Duration::ZERO), 500);
    assert_eq!(millis(Duration::from_micros(1_000_001)), 1001);
}
