//! `ha.md` §6: a new cluster, a new member.

use primacy_ha::{Job, Over, PendingOperation, Step};
use primacy_model::{
    Cluster, ControlState, DataDirectory, Initialize, Role, SystemIdentifier, Tags,
};
use serde_json::json;

use crate::world::{World, leader, system};

fn empty(me: &str) -> World {
    World::of(me).stopped(ControlState::ShutDown).with(|w| {
        w.server.data_directory = DataDirectory::Empty;
        w.server.system_identifier = None;
        w.server.control = None;
        w.memory.role = Role::Uninitialized;
        w.memory.joined = false;
    })
}

fn nothing_yet(me: &str) -> World {
    empty(me).with(|w| {
        w.cluster = Cluster::default();
        w.last_healthy = None;
    })
}

#[test]
fn s6_1_1_one_member_bids_for_the_bootstrap() {
    assert_eq!(
        nothing_yet("pg1").because("ha.md §6.1.1"),
        Step::ClaimInitialize
    );
    let nofailover = nothing_yet("pg1").tags(json!({"nofailover": true}));
    assert_eq!(nofailover.because("ha.md §6.1.1"), Step::Wait);
    let joiner = nothing_yet("pg1").with(|w| w.local.may_bootstrap = false);
    assert_eq!(joiner.because("ha.md §6.1.1"), Step::Wait);
    let running = nothing_yet("pg1").with(|w| w.cluster.initialize = Initialize::Running);
    assert_eq!(running.step(), Step::Wait);
}

#[test]
fn s6_1_2_a_new_member_copies_the_leader_or_whoever_offers() {
    let source = |world: World| match world.because("ha.md §6.1.2") {
        Step::StartJob(Job::CreateReplica {
            source: Some(source),
            reinitialize: false,
            ..
        }) => source.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(source(empty("pg2")), "leader 'pg1'");
    let offered = empty("pg2").with(|w| {
        w.cluster.members[2].data.tags = Tags::from_json(&json!({"clonefrom": true}));
    });
    assert_eq!(source(offered), "replica 'pg3'");
}

/// `rest-api.md` §8.6.
#[test]
fn s20_who_is_to_copy_the_leader_does_not_copy_whoever_offers() {
    for (from_leader, expected) in [(true, "leader 'pg1'"), (false, "replica 'pg3'")] {
        let world = World::of("pg2").with(|w| {
            w.cluster.members[2].data.tags = Tags::from_json(&json!({"clonefrom": true}));
            w.memory.operation = Some(PendingOperation::Reinitialize {
                from_leader,
                force: false,
            });
        });
        match world.because("ha.md §20") {
            Step::StartJob(Job::CreateReplica {
                source: Some(source),
                reinitialize: true,
                basebackup_only,
            }) => assert_eq!(
                (&*source.to_string(), basebackup_only),
                (expected, from_leader)
            ),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn s6_1_3_methods_without_a_source() {
    let world = empty("pg2").with(|w| {
        w.cluster.leader = None;
        w.local.replica_methods = vec!["basebackup".into(), "archive".into()];
        w.local.methods_without_source = ["archive".to_owned()].into();
    });
    let step = world.because("ha.md §6.1.3");
    assert!(
        matches!(
            step,
            Step::StartJob(Job::CreateReplica { source: None, .. })
        ),
        "{step:?}"
    );
}

#[test]
fn s6_2_the_new_cluster_is_published_key_by_key_the_leader_key_last() {
    let done = |initialize, configured: bool, led: bool| {
        World::of("pg1").with(|w| {
            w.memory.bootstrapping = Some(Some(true));
            w.lease = primacy_ha::Lease::None;
            w.cluster.initialize = initialize;
            if !configured {
                w.cluster.config = None;
            }
            w.cluster.leader = led.then(|| leader("pg2"));
        })
    };
    let step = done(Initialize::Running, false, false).step();
    assert!(
        matches!(
            step,
            Step::WriteInitialize {
                over: Over::OwnClaim,
                ..
            }
        ),
        "{step:?}"
    );
    assert_eq!(
        done(Initialize::Done(system()), false, false).step(),
        Step::WriteConfig(None)
    );
    let step = done(Initialize::Done(system()), true, false).step();
    assert_eq!(step, Step::AcquireLeader { failover: None });
    assert_eq!(
        done(Initialize::Done(system()), true, true).step(),
        Step::CancelBootstrap
    );
}

#[test]
fn s6_2_a_bootstrap_that_failed_is_taken_back() {
    let failed = World::unlocked("pg1").with(|w| {
        w.memory.bootstrapping = Some(Some(false));
        w.cluster.initialize = Initialize::Running;
    });
    assert_eq!(failed.because("ha.md §6.2"), Step::CancelBootstrap);
    let primary = World::unlocked("pg1").with(|w| w.memory.bootstrapping = Some(None));
    assert_eq!(primary.step(), Step::StartJob(Job::PostBootstrap));
}

#[test]
fn s3_j_existing_data_starts_a_cluster_that_was_never_initialized() {
    let adopted = |me| {
        World::unlocked(me).with(|w| {
            w.cluster.initialize = Initialize::Absent;
            w.memory.joined = false;
        })
    };
    let step = adopted("pg1").because("ha.md §3 J");
    assert!(
        matches!(
            step,
            Step::WriteInitialize {
                over: Over::Nothing,
                ..
            }
        ),
        "{step:?}"
    );
    assert!(matches!(adopted("pg2").because("ha.md §3 J"), Step::Exit(exit) if exit.code == 1));
}

/// `ha.md` W11: what a dead bootstrapper left looks like a cluster, and is none.
#[test]
fn w11_an_unfinished_bootstrap_of_ones_own_is_moved_aside() {
    let restarted = |initialize| {
        World::unlocked("pg1")
            .stopped(ControlState::InProduction)
            .with(|w| {
                w.cluster.initialize = initialize;
                w.server.unfinished_bootstrap = true;
                w.memory.joined = false;
            })
    };
    let other = SystemIdentifier::parse("7710395762296189999").expect("an identifier");
    for initialize in [
        Initialize::Absent,
        Initialize::Running,
        Initialize::Done(other),
    ] {
        let world = restarted(initialize);
        assert_eq!(world.because("ha.md W11"), Step::AbandonBootstrap);
    }
    let published = restarted(Initialize::Done(system()));
    assert_eq!(published.step(), Step::ForgetBootstrap);
    let nothing_left = restarted(Initialize::Absent).with(|w| {
        w.server.data_directory = DataDirectory::Empty;
        w.server.system_identifier = None;
    });
    assert_eq!(nothing_left.step(), Step::ForgetBootstrap);
    let paused = restarted(Initialize::Absent).with(|w| w.global.pause = true);
    assert_eq!(paused.step(), Step::Wait);
    let under_way = restarted(Initialize::Running).with(|w| {
        w.memory.bootstrapping = Some(None);
    });
    assert_eq!(under_way.step(), Step::CancelBootstrap);
}

/// Its maker never heard that it is published, and was demoted: nobody could make another one.
#[test]
fn w11_a_new_cluster_that_is_published_is_not_given_up() {
    let worlds = [
        World::unlocked("pg1").stopped(ControlState::ShutDown),
        World::unlocked("pg1"),
    ];
    for world in worlds {
        let world = world.with(|w| w.memory.bootstrapping = Some(Some(false)));
        assert_eq!(world.because("ha.md W11"), Step::ForgetBootstrap);
    }
}

/// `ha.md` W11: a claim that lapsed may be another member's now.
#[test]
fn w11_a_new_cluster_is_published_over_ones_own_claim_only() {
    let done = |initialize| {
        World::of("pg1")
            .with(|w| {
                w.memory.bootstrapping = Some(Some(true));
                w.lease = primacy_ha::Lease::None;
                w.cluster.leader = None;
                w.cluster.initialize = initialize;
            })
            .step()
    };
    assert!(matches!(
        done(Initialize::Running),
        Step::WriteInitialize {
            over: Over::OwnClaim,
            ..
        }
    ));
    assert!(matches!(
        done(Initialize::Absent),
        Step::WriteInitialize {
            over: Over::Nothing,
            ..
        }
    ));
}
