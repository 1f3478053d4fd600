//! `ha.md` §13.2: who should be synchronous, in which order, and how many of them; §14.2: the same in quorum mode.

use primacy_config::SynchronousMode;
use primacy_ha::Step;
use primacy_model::{Lsn, Tags};
use serde_json::{Value, json};

use crate::world::{POSITION, World, member};

/// The primary with nobody synchronous yet, these members streaming, and what their tags are.
fn streaming(members: &[(&str, Value)]) -> World {
    let senders: Vec<(&str, &str)> = members.iter().map(|(name, _)| (*name, "async")).collect();
    World::of("pg1")
        .sync("pg1", &[])
        .with(|w| {
            w.cluster.members.truncate(1);
            for (name, tags) in members {
                let mut member = member(name);
                member.data.tags = Tags::from_json(tags);
                w.cluster.members.push(member);
            }
        })
        .names("", &senders)
}

/// `synchronous_standby_names` as it becomes.
fn chosen(world: &World) -> String {
    match world.step() {
        Step::SetSynchronousStandbyNames(Some(names)) => names,
        Step::Wait => String::new(),
        other => panic!("{other:?}"),
    }
}

fn count(mut world: World, count: u32) -> World {
    world.global.synchronous_node_count = count;
    world
}

#[test]
fn s13_2_sync_priority_comes_first() {
    let world = streaming(&[
        ("pg2", json!({})),
        ("pg3", json!({"sync_priority": 7})),
        ("pg4", json!({"sync_priority": 3})),
    ]);
    assert_eq!(chosen(&world), "pg3");
    assert_eq!(chosen(&count(world, 2)), "2 (pg3,pg4)");
}

#[test]
fn s13_2_whoever_is_synchronous_stays_preferred_then_whoever_is_further() {
    for (state, preferred) in [
        ("sync", "pg3"),
        ("quorum", "pg3"),
        ("potential", "pg3"),
        ("async", "pg2"),
    ] {
        let mut world = streaming(&[("pg2", json!({})), ("pg3", json!({}))]);
        world.wal().senders[0].flush_lsn = Some(Lsn(POSITION.0 + 100));
        world.wal().senders[1].sync_state = state.into();
        assert_eq!(chosen(&world), preferred, "pg3 is {state} and behind");
    }
    let mut world = streaming(&[("pg2", json!({})), ("pg3", json!({"sync_priority": 2}))]);
    world.wal().senders[0].sync_state = "sync".into();
    assert_eq!(
        chosen(&world),
        "pg3",
        "a priority is stronger than the present state"
    );
}

#[test]
fn s13_2_nofailover_comes_last_whatever_its_priority() {
    let nofailover = json!({"nofailover": true, "sync_priority": 9});
    let world = streaming(&[("pg2", nofailover), ("pg3", json!({}))]);
    assert_eq!(chosen(&world), "pg3");
    assert_eq!(chosen(&count(world, 2)), "2 (pg2,pg3)");
}

#[test]
fn s13_2_the_position_is_the_one_that_commits_wait_for() {
    for (commit, expected) in [
        ("remote_apply", "pg2"),
        ("remote_write", "pg3"),
        ("on", "pg4"),
        ("local", "pg4"),
    ] {
        let mut world = streaming(&[("pg2", json!({})), ("pg3", json!({})), ("pg4", json!({}))]);
        let ahead = Some(Lsn(POSITION.0 + 100));
        let wal = world.wal();
        wal.synchronous_commit = commit.into();
        wal.senders[0].replay_lsn = ahead;
        wal.senders[1].write_lsn = ahead;
        wal.senders[2].flush_lsn = ahead;
        assert_eq!(chosen(&world), expected, "synchronous_commit = {commit}");
    }
    let mut world = streaming(&[("pg2", json!({}))]);
    world.wal().senders[0].flush_lsn = None;
    assert_eq!(
        chosen(&world),
        "",
        "a receiver that reports no position, as pg_receivewal"
    );
}

#[test]
fn s13_2_only_streaming_members() {
    let mut backup = streaming(&[("pg2", json!({}))]);
    backup.wal().senders[0].state = "backup".into();
    assert_eq!(chosen(&backup), "");
    let mut stranger = streaming(&[("pg2", json!({}))]);
    stranger.wal().senders[0].application_name = "pg_receivewal".into();
    assert_eq!(chosen(&stranger), "");
    let mut otherwise_spelled = streaming(&[("pg2", json!({}))]);
    otherwise_spelled.wal().senders[0].application_name = "PG2".into();
    assert_eq!(
        chosen(&otherwise_spelled),
        "pg2",
        "PostgreSQL ignores case here"
    );
}

#[test]
fn s13_2_cascading_members_are_left_out_while_what_they_follow_streams_from_here() {
    let follows = |name: &str| json!({ "replicatefrom": name });
    for (tags, expected) in [
        // Directly, and through another one that does not stream from here.
        ([json!({}), follows("pg2"), follows("pg3")], "pg2"),
        // What it follows is not there, or nothing that can be synchronous: it streams from here itself.
        ([json!({}), follows("gone"), follows("pg2")], "2 (pg2,pg3)"),
        (
            [json!({"nosync": true}), follows("pg2"), json!({})],
            "2 (pg3,pg4)",
        ),
        // Itself, which is nobody.
        (
            [follows("pg2"), follows("pg2"), json!({"nosync": true})],
            "pg2",
        ),
        // In a circle.
        (
            [json!({"nosync": true}), follows("pg4"), follows("pg3")],
            "",
        ),
    ] {
        let [pg2, pg3, pg4] = tags.clone();
        let world = streaming(&[("pg2", pg2), ("pg3", pg3), ("pg4", pg4)]);
        assert_eq!(chosen(&count(world, 2)), expected, "{tags:?}");
    }
    let world = streaming(&[("pg2", json!({})), ("pg3", follows("pg4"))]).with(|w| {
        let mut between = member("pg4");
        between.data.tags = Tags::from_json(&follows("pg2"));
        w.cluster.members.push(between);
    });
    assert_eq!(
        chosen(&count(world, 2)),
        "pg2",
        "pg3 follows pg2 through pg4"
    );
}

#[test]
fn s13_2_a_single_candidate_is_measured_by_the_primarys_own_position() {
    let behind = |bytes: u64| {
        let mut world = streaming(&[("pg2", json!({}))]);
        world.global.maximum_lag_on_syncnode = Some(100);
        world.wal().senders[0].flush_lsn = Some(Lsn(POSITION.0 - bytes));
        world
    };
    assert_eq!(chosen(&behind(100)), "pg2");
    assert_eq!(chosen(&behind(101)), "");
}

#[test]
fn s13_2_several_candidates_are_measured_by_the_furthest() {
    let mut world = streaming(&[("pg2", json!({})), ("pg3", json!({}))]);
    world.global.maximum_lag_on_syncnode = Some(100);
    for sender in &mut world.wal().senders {
        sender.flush_lsn = Some(Lsn(POSITION.0 - 1000));
    }
    assert_eq!(
        chosen(&count(world, 2)),
        "2 (pg2,pg3)",
        "far behind the primary, but together"
    );
}

#[test]
fn s13_2_a_synchronous_standby_that_falls_behind_is_replaced() {
    let mut world = World::of("pg1")
        .sync("pg1", &["pg2"])
        .names("pg2", &[("pg2", "sync"), ("pg3", "async")]);
    world.global.maximum_lag_on_syncnode = Some(100);
    world.wal().senders[0].flush_lsn = Some(Lsn(POSITION.0 - 101));
    match world.because("ha.md §13.3.6") {
        Step::WriteSync(sync) => assert!(sync.standbys.is_empty(), "{sync:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn s13_2_the_count_is_at_least_one_when_strict() {
    let none = count(streaming(&[("pg2", json!({}))]), 0);
    assert_eq!(chosen(&none), "");
    let strict = none.with(|w| w.global.synchronous_mode_strict = true);
    assert_eq!(chosen(&strict), "pg2");
}

#[test]
fn s14_2_in_quorum_mode_all_are_wanted_but_nofailover_only_where_others_are_too_few() {
    let world = |members: &[(&str, Value)]| {
        streaming(members).with(|w| w.global.synchronous_mode = SynchronousMode::Quorum)
    };
    let all = world(&[("pg2", json!({})), ("pg3", json!({})), ("pg4", json!({}))]);
    assert_eq!(chosen(&all), "ANY 1 (pg2,pg3,pg4)");
    let nofailover = json!({"nofailover": true});
    let enough = world(&[
        ("pg2", nofailover.clone()),
        ("pg3", json!({})),
        ("pg4", json!({})),
    ]);
    assert_eq!(chosen(&enough), "ANY 1 (pg3,pg4)");
    let too_few = count(world(&[("pg2", nofailover), ("pg3", json!({}))]), 2);
    assert_eq!(chosen(&too_few), "ANY 2 (pg2,pg3)");
    let nosync = world(&[("pg2", json!({"nosync": true})), ("pg3", json!({}))]);
    assert_eq!(chosen(&nosync), "ANY 1 (pg3)");
}

/// Of all who confirmed, the resolver takes so many for active ones: `pg3` does not vouch for `pg2`, which may lack what was
/// committed before.
#[test]
fn s14_2_who_confirmed_and_is_not_to_be_synchronous_does_not_count() {
    let world = |without_pg3: bool| {
        World::of("pg1")
            .sync("pg1", &["pg4"])
            .names("ANY 1 (pg2,pg3)", &[("pg2", "quorum"), ("pg3", "quorum")])
            .with(|w| {
                w.global.synchronous_mode = SynchronousMode::Quorum;
                w.cluster.sync.quorum = 1;
                w.cluster.sync.standbys.clear();
                w.memory.sync.confirmed = ["pg3".into()].into();
                if without_pg3 {
                    w.cluster.members[2].data.tags = Tags::from_json(&json!({"nosync": true}));
                }
            })
    };
    let publishes = |world: World| matches!(world.step(), Step::WriteSync(_));
    assert!(publishes(world(false)));
    assert!(!publishes(world(true)), "{:?}", world(true).decide());
}
