//! `ha.md` §13.3 to §13.6, §14.4, §14.5: the rows that say when nothing is to be done, what strictness means, and who leaves
//! how.

use primacy_config::SynchronousMode;
use primacy_ha::{Job, PendingOperation, Shutdown, Step};
use primacy_model::{MemberName, Role, Tags, Version};
use serde_json::json;

use crate::world::{NOW, World, held, leader};

const PLACEHOLDER: &str = "__patroni_strict_sync_replica_placeholder__";

fn names(step: Step) -> String {
    match step {
        Step::SetSynchronousStandbyNames(Some(names)) => names,
        other => panic!("{other:?}"),
    }
}

fn strict(world: World) -> World {
    world.with(|w| w.global.synchronous_mode_strict = true)
}

fn quorum(world: World, quorum: u32) -> World {
    world.with(|w| {
        w.global.synchronous_mode = SynchronousMode::Quorum;
        w.cluster.sync.quorum = quorum;
    })
}

#[test]
fn s13_3_every_write_is_conditional_on_what_was_read() {
    let worlds = [
        World::of("pg1").sync("pg3", &["pg2"]),
        World::of("pg1").sync("pg1", &["pg2"]).names("pg2", &[]),
        quorum(World::of("pg1").sync("pg1", &["pg2", "pg3"]), 1).names("ANY 1 (pg2,pg3)", &[]),
    ];
    for world in worlds {
        match world.step() {
            Step::WriteSync(sync) => assert_eq!(sync.version, Some(Version(5))),
            other => panic!("{other:?}"),
        }
    }
    let off = World::of("pg1").sync("pg1", &["pg2"]);
    let off = off.with(|w| w.global.synchronous_mode = SynchronousMode::Off);
    assert_eq!(off.step(), Step::DeleteSync(Version(5)));
}

/// The mode was switched off while nobody led; once it is back, whom `/sync` names could be elected.
#[test]
fn s13_3_off_before_the_promotion_sync_goes_first() {
    let winner = World::of("pg2").sync("pg1", &["pg2", "pg3"]).with(|w| {
        w.global.synchronous_mode = SynchronousMode::Off;
        w.cluster.leader = Some(leader("pg2"));
        w.lease = held();
        w.memory.role = Role::Replica;
    });
    let step = winner.because("ha.md §13.3");
    assert_eq!(step, Step::DeleteSync(Version(5)));
}

#[test]
fn s13_3_off_without_anything_of_ours_leaves_the_users_names_alone() {
    let world = World::of("pg1")
        .names("audit", &[("pg2", "async")])
        .with(|w| w.memory.sync.managed = None);
    assert_eq!(world.step(), Step::Wait);
}

#[test]
fn s13_only_the_primary_changes_anything() {
    let world = World::of("pg2").sync("pg1", &[]);
    assert_eq!(world.step(), Step::Wait);
}

#[test]
fn s13_4_not_strict_the_names_are_cleared_when_nobody_is_left() {
    for found in ["pg2", "ANY 1 (pg2,pg3)", PLACEHOLDER] {
        let world = World::of("pg1").sync("pg1", &[]).names(found, &[]);
        assert_eq!(names(world.because("ha.md §13.3.7")), "", "{found}");
    }
}

#[test]
fn s13_4_w14_receivers_that_are_no_candidates_do_not_acknowledge() {
    let receivers = [("pg_receivewal", "async"), ("pg2", "async")];
    let world = strict(World::of("pg1").sync("pg1", &[]).names("", &receivers)).with(|w| {
        w.cluster.members[1].data.tags = Tags::from_json(&json!({"nosync": true}));
    });
    assert_eq!(names(world.because("ha.md §13.4")), PLACEHOLDER);
    let quorum = quorum(world, 0);
    assert_eq!(names(quorum.because("ha.md §13.4")), PLACEHOLDER);
}

#[test]
fn s13_4_a_standby_that_returns_takes_the_placeholders_place() {
    let returned = |names: &str, state: &str| {
        strict(
            World::of("pg1")
                .sync("pg1", &[])
                .names(names, &[("pg2", state)]),
        )
    };
    assert_eq!(names(returned(PLACEHOLDER, "async").step()), "pg2");
    assert!(
        matches!(returned("pg2", "sync").step(), Step::WaitUntil(_)),
        "not confirmed yet"
    );
    let ours = quorum(returned(PLACEHOLDER, "async"), 0);
    assert_eq!(names(ours.step()), "ANY 1 (pg2)");
}

#[test]
fn s13_4_the_standby_that_sync_still_names_is_synchronous_at_once_when_it_returns() {
    let world = World::of("pg1")
        .sync("pg1", &["pg2"])
        .names("pg2", &[("pg2", "sync")]);
    assert_eq!(strict(world).step(), Step::Wait);
}

#[test]
fn s13_4_in_quorum_mode_commits_wait_for_as_many_as_sync_says() {
    for (voters, quorum_of, expected) in [
        (&["pg2", "pg3"][..], 1, "ANY 1 (pg2,pg3)"),
        (&["pg2", "pg3"], 0, "ANY 2 (pg2,pg3)"),
        (&["pg2"], 0, "ANY 1 (pg2)"),
        (&[], 0, PLACEHOLDER),
    ] {
        let world = strict(World::of("pg1").sync("pg1", voters).names("", &[]));
        let step = quorum(world, quorum_of).because("ha.md §13.4");
        assert_eq!(names(step), expected, "{voters:?} {quorum_of}");
    }
}

#[test]
fn s13_5_strict_nobody_acknowledges_before_a_standby_is_there() {
    let world = strict(World::of("pg2").sync("pg2", &[])).with(|w| {
        w.cluster.leader = Some(leader("pg2"));
        w.lease = held();
    });
    assert_eq!(names(world.because("ha.md §13.5")), PLACEHOLDER);
}

#[test]
fn s13_6_whoever_is_not_waited_for_stops_at_once() {
    let restart = |world: World| {
        world.with(|w| w.memory.operation = Some(PendingOperation::Restart { timeout: None }))
    };
    let worlds = [
        ("asynchronous", World::of("pg3").sync("pg1", &["pg2"])),
        (
            "the leader",
            World::of("pg1")
                .sync("pg1", &["pg2"])
                .names("pg2", &[("pg2", "sync")]),
        ),
        (
            "synchronous mode is off",
            World::of("pg2")
                .sync("pg1", &["pg2"])
                .with(|w| w.global.synchronous_mode = SynchronousMode::Off),
        ),
    ];
    for (what, world) in worlds {
        let step = restart(world).step();
        assert!(
            matches!(step, Step::StartJob(Job::Restart { .. })),
            "{what}: {step:?}"
        );
    }
}

#[test]
fn s13_6_the_agents_end_releases_a_synchronous_standby_first() {
    let ending = || {
        World::of("pg2").sync("pg1", &["pg2"]).with(|w| {
            w.memory.shutdown = Some(Shutdown {
                since: NOW,
                leave_server: None,
                stopped: None,
                stop_failed: false,
            })
        })
    };
    assert_eq!(ending().because("ha.md §13.6"), Step::WithdrawFromSync);
    assert_eq!(
        quorum(ending(), 0).because("ha.md §13.6"),
        Step::WithdrawFromSync
    );
    let released = ending().with(|w| {
        w.memory.sync_withdrawn_at = Some(NOW);
        w.cluster.sync.standbys.clear();
    });
    let stops = |step: &Step| matches!(step, Step::StartJob(Job::Stop { .. }));
    assert!(stops(&released.step()), "{:?}", released.step());
    let no_store = ending().with(|w| w.reachable = false);
    assert!(
        stops(&no_store.step()),
        "nobody could release it: {:?}",
        no_store.step()
    );
    let nobody_leads = ending().with(|w| w.cluster.leader = None);
    assert!(stops(&nobody_leads.step()), "{:?}", nobody_leads.step());
}

#[test]
fn s14_4_sync_needs_a_leader_first() {
    let world = quorum(World::of("pg1"), 0).names("", &[("pg2", "async")]);
    match world.because("ha.md §14.4") {
        Step::WriteSync(sync) => {
            assert_eq!(sync.leader, Some("pg1".into()));
            assert!(sync.standbys.is_empty() && sync.quorum == 0, "{sync:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn s14_4_the_names_take_the_quorum_form() {
    let world = quorum(
        World::of("pg1")
            .sync("pg1", &["pg2"])
            .names("pg2", &[("pg2", "sync")])
            .with(|w| {
                w.cluster.members.truncate(2);
            }),
        0,
    );
    assert_eq!(names(world.because("ha.md §14.4")), "ANY 1 (pg2)");
}

#[test]
fn s14_3_1_after_a_failover_the_voters_stay_what_they_were() {
    // pg1 led before; pg2 was promoted by the vote of one of two.
    let world = World::of("pg2").sync("pg1", &["pg2", "pg3"]).with(|w| {
        let primary = World::of("pg1").server;
        w.server = primary;
        w.cluster.leader = Some(leader("pg2"));
        w.lease = held();
        w.memory.role = Role::Primary;
    });
    let world = quorum(world, 1).names("ANY 1 (pg1,pg3)", &[("pg3", "quorum")]);
    match world.because("ha.md §14.3") {
        Step::WriteSync(sync) => {
            assert_eq!(sync.leader, Some("pg2".into()));
            assert_eq!(sync.standbys, ["pg1", "pg3"].map(MemberName::from));
            assert_eq!(sync.quorum, 1);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn s14_5_how_many_the_new_primary_waits_for() {
    // |M| - q - 1, one more for whoever is no member, at least one when strict.
    for (me, voters, quorum_of, is_strict, expected) in [
        ("pg2", &["pg2", "pg3"][..], 1, false, "ANY 1 (pg1,pg3)"),
        ("pg2", &["pg2", "pg3"], 0, false, "ANY 2 (pg1,pg3)"),
        ("pg2", &["pg2", "pg3"], 2, false, ""),
        ("pg2", &["pg2", "pg3"], 2, true, "ANY 1 (pg1,pg3)"),
        ("pg2", &["pg3"], 0, false, "ANY 2 (pg1,pg3)"),
        ("pg2", &["pg3"], 1, false, "ANY 1 (pg1,pg3)"),
    ] {
        let world = World::of(me).sync("pg1", voters).with(|w| {
            w.cluster.leader = Some(leader("pg2"));
            w.lease = held();
            w.memory.raced_for_sync = w.cluster.sync.version;
            w.memory.role = Role::Replica;
            w.global.synchronous_mode_strict = is_strict;
        });
        let world = quorum(world, quorum_of);
        // Whom /sync names as the primary may lead without votes: not the former one any more.
        let Step::WriteSync(sync) = world.because("ha.md §14.5") else {
            panic!("{:?}", world.step());
        };
        assert_eq!(sync.leader, Some(me.into()));
        assert_eq!(sync.quorum, quorum_of);
        let step = world.with(|w| w.cluster.sync = sync).because("ha.md §14.5");
        assert_eq!(
            names(step),
            expected,
            "{voters:?} {quorum_of} strict {is_strict}"
        );
    }
}
