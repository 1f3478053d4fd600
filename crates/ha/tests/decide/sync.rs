//! `ha.md` §13: `synchronous_standby_names` and `/sync`, one in front of the other.

use primacy_config::SynchronousMode;
use primacy_ha::{Job, Step};
use primacy_model::{MemberName, Role, State};
use serde_json::json;

use crate::world::{NOW, World, leader};

fn writes_sync(step: Step) -> (String, Vec<String>, u32) {
    match step {
        Step::WriteSync(sync) => (
            sync.leader.map(|name| name.to_string()).unwrap_or_default(),
            sync.standbys.iter().map(ToString::to_string).collect(),
            sync.quorum,
        ),
        other => panic!("{other:?}"),
    }
}

fn sets_names(step: Step) -> String {
    match step {
        Step::SetSynchronousStandbyNames(Some(names)) => names,
        other => panic!("{other:?}"),
    }
}

fn confirmed(world: World, names: &[&str]) -> World {
    world.with(|w| {
        w.memory.sync.confirmed = names.iter().map(|name| MemberName::from(*name)).collect()
    })
}

#[test]
fn s13_3_1_the_primary_publishes_itself_first() {
    let world = World::of("pg1").with(|w| w.global.synchronous_mode = SynchronousMode::On);
    assert_eq!(
        writes_sync(world.because("ha.md §13.3.1")),
        ("pg1".into(), vec![], 0)
    );
    let other = World::of("pg1").sync("pg3", &["pg2"]);
    assert_eq!(writes_sync(other.step()), ("pg1".into(), vec![], 0));
}

#[test]
fn s13_1_a_standby_is_added_to_the_names_first_and_to_sync_once_confirmed() {
    let streaming = [("pg2", "async")];
    let found = World::of("pg1").sync("pg1", &[]).names("", &streaming);
    assert_eq!(sets_names(found.because("ha.md §13.3.7")), "pg2");

    let listed = World::of("pg1")
        .sync("pg1", &[])
        .names("pg2", &[("pg2", "sync")]);
    assert!(
        matches!(listed.step(), Step::WaitUntil(_)),
        "not confirmed yet"
    );

    let listed = World::of("pg1")
        .sync("pg1", &[])
        .names("pg2", &[("pg2", "sync")]);
    let step = confirmed(listed, &["pg2"]).because("ha.md §13.3.9");
    assert_eq!(writes_sync(step), ("pg1".into(), vec!["pg2".into()], 0));
}

#[test]
fn s13_1_a_standby_is_removed_from_sync_first_and_then_from_the_names() {
    let gone = World::of("pg1")
        .sync("pg1", &["pg2"])
        .names("pg2", &[("pg3", "async")]);
    assert_eq!(
        writes_sync(gone.because("ha.md §13.3.6")),
        ("pg1".into(), vec![], 0)
    );
    let removed = World::of("pg1")
        .sync("pg1", &[])
        .names("pg2", &[("pg3", "async")]);
    assert_eq!(sets_names(removed.step()), "pg3");
    let nobody = World::of("pg1").sync("pg1", &[]).names("pg2", &[]);
    assert_eq!(sets_names(nobody.step()), "");
}

#[test]
fn s13_3_5_at_rest() {
    let world = World::of("pg1")
        .sync("pg1", &["pg2"])
        .names("pg2", &[("pg2", "sync"), ("pg3", "async")]);
    assert_eq!(world.step(), Step::Wait);
}

#[test]
fn s13_1_whoever_is_in_sync_but_not_in_the_names_in_force_is_taken_out() {
    // Somebody reset the parameter behind our back.
    let world = World::of("pg1")
        .sync("pg1", &["pg2"])
        .names("", &[("pg2", "async")]);
    assert_eq!(writes_sync(world.step()), ("pg1".into(), vec![], 0));
}

#[test]
fn s13_2_who_is_no_candidate() {
    let refused = [
        json!({"nosync": true}),
        json!({"sync_priority": 0}),
        json!({"replicatefrom": "pg3"}),
    ];
    for tags in refused {
        let world = World::of("pg1")
            .sync("pg1", &[])
            .names("pg3", &[("pg2", "async"), ("pg3", "sync")])
            .with(|w| {
                w.cluster.members[1].data.tags = primacy_model::Tags::from_json(&tags);
                w.global.synchronous_node_count = 2;
            });
        let step = confirmed(world, &["pg3"]).step();
        assert_eq!(writes_sync(step).1, ["pg3"], "{tags}");
    }
    let starting = World::of("pg1")
        .sync("pg1", &[])
        .names("", &[("pg2", "async")]);
    let starting = starting.with(|w| w.cluster.members[1].data.state = Some(State::Starting));
    assert_eq!(starting.step(), Step::Wait);
}

#[test]
fn s13_2_maximum_lag_on_syncnode() {
    let world = World::of("pg1")
        .sync("pg1", &[])
        .names("", &[("pg2", "async"), ("pg3", "async")])
        .with(|w| {
            w.global.maximum_lag_on_syncnode = Some(100);
            w.wal().senders[0].flush_lsn = Some(primacy_model::Lsn(1));
        });
    assert_eq!(sets_names(world.step()), "pg3");
}

#[test]
fn s13_3_several_names_are_all_waited_for() {
    let world = World::of("pg1")
        .sync("pg1", &[])
        .names("", &[("pg2", "async"), ("pg3", "async")]);
    let world = world.with(|w| w.global.synchronous_node_count = 2);
    assert_eq!(sets_names(world.step()), "2 (pg2,pg3)");
}

#[test]
fn s13_4_strict_mode_waits_for_a_name_that_nobody_has() {
    let strict = |voters: &[&str], names: &str| {
        World::of("pg1")
            .sync("pg1", voters)
            .names(names, &[])
            .with(|w| w.global.synchronous_mode_strict = true)
    };
    let placeholder = "__patroni_strict_sync_replica_placeholder__";
    assert_eq!(
        sets_names(strict(&[], "").because("ha.md §13.4")),
        placeholder
    );
    // /sync is left alone: the last standby may still be promoted.
    assert_eq!(sets_names(strict(&["pg2"], "").step()), "pg2");
    assert_eq!(strict(&["pg2"], "pg2").step(), Step::Wait);
}

#[test]
fn s13_3_switching_off_empties_sync_before_the_names() {
    let off = World::of("pg1")
        .sync("pg1", &["pg2"])
        .names("pg2", &[("pg2", "sync")]);
    let off = off.with(|w| w.global.synchronous_mode = SynchronousMode::Off);
    assert!(matches!(off.step(), Step::DeleteSync(_)));
    let then = World::of("pg1").names("pg2", &[("pg2", "sync")]);
    assert_eq!(then.step(), Step::SetSynchronousStandbyNames(None));
}

#[test]
fn s13_5_w12_before_the_promotion_sync_names_the_new_primary_and_keeps_the_others() {
    let winner = || {
        World::of("pg2").sync("pg1", &["pg2", "pg3"]).with(|w| {
            w.cluster.leader = Some(leader("pg2"));
            w.lease = crate::world::held();
        })
    };
    let step = winner().because("ha.md §13.5");
    assert_eq!(
        writes_sync(step),
        ("pg2".into(), vec!["pg1".into(), "pg3".into()], 0)
    );
    let published = winner().with(|w| {
        w.cluster.sync.leader = Some("pg2".into());
        w.cluster.sync.standbys = vec!["pg3".into()];
    });
    assert_eq!(sets_names(published.step()), "pg3");
    let ready = winner().with(|w| {
        w.cluster.sync.leader = Some("pg2".into());
        w.cluster.sync.standbys = vec!["pg3".into()];
        w.memory.sync.obeyed = Some("pg3".into());
    });
    assert_eq!(ready.step(), Step::StartJob(Job::Promote));
}

#[test]
fn s13_6_a_synchronous_standby_asks_to_leave_before_it_restarts() {
    let asked = || {
        World::of("pg2").sync("pg1", &["pg2"]).with(|w| {
            w.memory.operation = Some(primacy_ha::PendingOperation::Restart { timeout: None });
        })
    };
    assert_eq!(asked().because("ha.md §13.6"), Step::WithdrawFromSync);
    let waiting = asked().with(|w| w.memory.sync_withdrawn_at = Some(NOW));
    assert!(matches!(waiting.step(), Step::WaitUntil(_)));
    let released = asked().with(|w| {
        w.memory.sync_withdrawn_at = Some(NOW);
        w.cluster.sync.standbys.clear();
    });
    assert!(matches!(
        released.step(),
        Step::StartJob(Job::Restart {
            upstream: Some(_),
            ..
        })
    ));
    let long_enough = std::time::Duration::from_secs(20);
    let ignored = asked().with(|w| w.memory.sync_withdrawn_at = Some(NOW - long_enough));
    assert!(matches!(
        ignored.step(),
        Step::StartJob(Job::Restart { .. })
    ));
}

#[test]
fn s14_quorum_mode_takes_the_resolvers_first_step() {
    let quorum = |world: World| world.with(|w| w.global.synchronous_mode = SynchronousMode::Quorum);
    let begin = quorum(
        World::of("pg1")
            .sync("pg1", &[])
            .names("", &[("pg2", "async"), ("pg3", "async")]),
    );
    assert_eq!(sets_names(begin.because("ha.md §14.3")), "ANY 1 (pg2,pg3)");
    let listed = World::of("pg1")
        .sync("pg1", &[])
        .names("ANY 1 (pg2,pg3)", &[("pg2", "quorum"), ("pg3", "quorum")]);
    let step = confirmed(quorum(listed), &["pg2", "pg3"]).step();
    assert_eq!(
        writes_sync(step),
        ("pg1".into(), vec!["pg2".into(), "pg3".into()], 1)
    );
}

#[test]
fn s14_5_before_the_promotion_in_quorum_mode_the_winner_takes_the_place_of_the_primary() {
    let winner = World::of("pg2").sync("pg1", &["pg2", "pg3"]).with(|w| {
        w.global.synchronous_mode = SynchronousMode::Quorum;
        w.cluster.sync.quorum = 1;
        w.cluster.leader = Some(leader("pg2"));
        w.lease = crate::world::held();
        w.memory.raced_for_sync = w.cluster.sync.version;
        w.memory.role = Role::Replica;
    });
    let (name, standbys, quorum) = writes_sync(winner.because("ha.md §14.5"));
    assert_eq!((name.as_str(), quorum), ("pg2", 1));
    assert_eq!(standbys, ["pg1", "pg3"]);
    let published = winner.with(|w| {
        w.cluster.sync.leader = Some("pg2".into());
        w.cluster.sync.standbys = ["pg1", "pg3"].map(Into::into).into();
    });
    let step = published.because("ha.md §14.5");
    assert_eq!(sets_names(step), "ANY 1 (pg1,pg3)");
}

/// The mode was switched from `quorum` to `on`: one standby of two had to confirm each commit, so neither of them alone
/// may be promoted before it has confirmed all of them.
#[test]
fn s13_1_voters_of_a_quorum_are_not_taken_over_as_synchronous() {
    let switched = |names: &str, state: &str| {
        World::of("pg1")
            .sync("pg1", &["pg2", "pg3"])
            .names(names, &[("pg2", state), ("pg3", state)])
            .with(|w| {
                w.global.synchronous_node_count = 2;
                w.cluster.sync.quorum = 1;
            })
    };
    for (names, state) in [("ANY 1 (pg2,pg3)", "quorum"), ("2 (pg2,pg3)", "sync")] {
        let world = confirmed(switched(names, state), &["pg2", "pg3"]);
        let step = world.because("ha.md §13.3.6");
        assert_eq!(writes_sync(step), ("pg1".into(), vec![], 0), "{names}");
    }
}

#[test]
fn s13_5_before_the_promotion_voters_of_a_quorum_are_not_published_as_synchronous() {
    let winner = World::of("pg2").sync("pg1", &["pg2", "pg3"]).with(|w| {
        w.cluster.sync.quorum = 1;
        w.cluster.leader = Some(leader("pg2"));
        w.lease = crate::world::held();
        w.memory.raced_for_sync = w.cluster.sync.version;
        w.memory.role = Role::Replica;
    });
    assert_eq!(
        writes_sync(winner.because("ha.md §13.5")),
        ("pg2".into(), vec![], 0)
    );
}

/// The reverse needs no such step: who is synchronous in `on` has every commit.
#[test]
fn s14_switching_from_on_to_quorum_keeps_the_synchronous_standbys() {
    let world = World::of("pg1")
        .sync("pg1", &["pg2"])
        .names("pg2", &[("pg2", "sync"), ("pg3", "async")])
        .with(|w| w.global.synchronous_mode = SynchronousMode::Quorum);
    let step = confirmed(world, &["pg2"]).because("ha.md §14.3");
    assert_eq!(
        writes_sync(step),
        ("pg1".into(), vec!["pg2".into(), "pg3".into()], 1)
    );
}

/// A session shows names that commits do not obey yet, for instance because the checkpointer was too busy to read
/// them: nothing is relied upon before they are known to be in force.
#[test]
fn w2_names_that_may_not_be_obeyed_are_set_again() {
    let unsure = |mode, names: &str, state: &str| {
        World::of("pg1")
            .sync("pg1", &["pg2"])
            .names(names, &[("pg2", state)])
            .with(|w| {
                w.global.synchronous_mode = mode;
                w.memory.sync.obeyed = None;
            })
    };
    let quorum = unsure(SynchronousMode::Quorum, "ANY 1 (pg2)", "quorum");
    assert_eq!(sets_names(quorum.because("ha.md W2")), "ANY 1 (pg2)");
    let on = unsure(SynchronousMode::On, "pg2", "sync");
    assert_eq!(sets_names(on.because("ha.md §13.3.7")), "pg2");
}
