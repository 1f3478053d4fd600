//! `ha.md` §16 and what the other sections say of standby clusters.

use primacy_config::StandbyCluster;
use primacy_ha::{DemotionMode, Job, Remote, RewindState, Step, StopMode, StopReason, Upstream};
use primacy_model::{ConnUrl, ControlState, Initialize, Role};
use serde_json::json;

use crate::world::{NOW, POSITION, World, held};

const REMOTE: &str = "10.0.0.1";

/// This member, in recovery, in a standby cluster that streams from a host.
fn standby(me: &str) -> World {
    World::of(me).with(|w| {
        w.global.standby_cluster = Some(StandbyCluster {
            host: Some(REMOTE.into()),
            primary_slot_name: Some("Site-B".into()),
            ..StandbyCluster::default()
        });
        w.global.use_slots = true;
        w.cluster.members[0].data.role = Some(Role::StandbyLeader);
        if me == "pg1" {
            w.server = World::of("pg2").server;
            w.memory.role = Role::StandbyLeader;
        }
    })
}

/// The lock owner.
fn leading() -> World {
    standby("pg1").with(|w| w.lease = held())
}

fn unlocked(me: &str) -> World {
    standby(me).with(|w| {
        w.cluster.leader = None;
        w.lease = primacy_ha::Lease::None;
    })
}

fn target(step: &Step) -> &Upstream {
    match step {
        Step::Follow(upstream)
        | Step::StartJob(Job::Start { upstream } | Job::BootstrapStandbyLeader { upstream }) => {
            upstream
        }
        other => panic!("{other:?}"),
    }
}

fn remote(step: &Step) -> &Remote {
    match target(step) {
        Upstream::Remote(remote) => remote,
        other => panic!("{other:?}"),
    }
}

#[test]
fn s16_the_leader_follows_the_remote_primary_through_its_slot() {
    let step = leading().because("ha.md §9 follow 7");
    let remote = remote(&step);
    assert_eq!(remote.slot.as_deref(), Some("site_b"));
    let connection = remote.connection.as_ref().expect("a host");
    assert_eq!((&*connection.host, &*connection.port), (REMOTE, "5432"));
}

#[test]
fn s16_without_a_host_only_the_archive_is_read() {
    let world = leading().with(|w| {
        w.global.standby_cluster = Some(StandbyCluster {
            restore_command: Some("cp /archive/%f %p".into()),
            recovery_min_apply_delay: Some("5min".into()),
            ..StandbyCluster::default()
        });
    });
    let step = world.step();
    assert_eq!(
        remote(&step),
        &Remote {
            connection: None,
            slot: None,
            apply_delay: Some("5min".into())
        }
    );
}

#[test]
fn s16_the_leader_at_rest_is_not_promoted() {
    let world = leading();
    let following = world.step();
    let resting = leading().with(|w| {
        w.memory.following = Some((target(&following).clone(), crate::world::POSTMASTER));
        w.wal().slots = None;
    });
    let decision = resting.decide();
    assert_eq!(decision.step, Step::Wait);
    assert_eq!(
        decision.outcome,
        "no action. I am (pg1), the standby leader with the lock"
    );
}

#[test]
fn s16_others_stream_from_the_standby_leader() {
    let world = standby("pg2").with(|w| w.memory.following = None);
    assert!(matches!(target(&world.step()), Upstream::Member { name, .. } if *name == *"pg1"));
    let archive_only = standby("pg2").tags(json!({"nostream": true})).with(|w| {
        w.memory.following = None;
    });
    assert_eq!(*target(&archive_only.step()), Upstream::Nobody);
}

/// The slot is for one: a loser of the race that took it would keep the winner from streaming.
#[test]
fn s9_while_nobody_leads_the_remote_is_followed_without_the_slot() {
    let world = unlocked("pg2")
        .peers(&[("pg1", Some(POSITION.0)), ("pg3", Some(u64::MAX))])
        .with(|w| w.memory.following = None);
    assert_eq!(remote(&world.step()).slot, None);
    let paused = world.with(|w| w.global.pause = true);
    assert!(!matches!(paused.step(), Step::Follow(Upstream::Remote(_))));
}

#[test]
fn s10_the_race_is_open_in_a_standby_cluster() {
    let world = unlocked("pg2").peers(&[("pg3", Some(POSITION.0))]);
    assert_eq!(world.step(), Step::AcquireLeader { failover: None });
    let behind = unlocked("pg2").peers(&[("pg3", Some(u64::MAX))]);
    assert!(!matches!(behind.step(), Step::AcquireLeader { .. }));
}

#[test]
fn s16_lock_loss_never_stops_the_standby_leader() {
    for world in [
        standby("pg1").with(|w| w.reachable = false),
        unlocked("pg1").silence(),
    ] {
        let step = world.step();
        assert!(
            !matches!(step, Step::StartJob(Job::Stop { .. })),
            "{step:?}"
        );
    }
}

#[test]
fn s4_1_1_a_paused_standby_leader_keeps_its_lock() {
    let world = leading().with(|w| w.global.pause = true);
    assert!(!matches!(world.step(), Step::ReleaseLeader { .. }));
}

#[test]
fn s12_demote_cluster_stops_in_good_order_and_keeps_the_key() {
    let world = World::of("pg1").with(|w| {
        w.global.standby_cluster = standby("pg1").global.standby_cluster;
    });
    let step = world.because("ha.md §16");
    let Step::StartJob(Job::Stop {
        mode,
        timeout,
        reason,
        ..
    }) = step
    else {
        panic!("{step:?}");
    };
    assert_eq!((mode, timeout), (StopMode::Fast, None));
    assert_eq!(reason, StopReason::Demotion(DemotionMode::DemoteCluster));
    assert!(!DemotionMode::DemoteCluster.releases());
    let paused = world.with(|w| w.global.pause = true);
    assert_eq!(paused.step(), Step::Wait);
}

/// Safety first: a primary that does not own the lock may not take its time.
#[test]
fn s9_2_a_primary_without_the_lock_is_killed_there_too() {
    let world = standby("pg2").with(|w| {
        w.server.wal = Some(crate::world::primary_wal());
        w.memory.role = Role::Primary;
    });
    let step = world.step();
    assert!(
        matches!(
            step,
            Step::StartJob(Job::Stop {
                mode: StopMode::Immediate,
                ..
            })
        ),
        "{step:?}"
    );
}

#[test]
fn s16_promote_cluster_promotes_the_lock_owner() {
    let world = leading().with(|w| {
        w.global.standby_cluster = None;
        w.global.use_slots = false;
    });
    assert_eq!(world.because("ha.md §4.3.4"), Step::StartJob(Job::Promote));
}

#[test]
fn s7_8_a_stopped_leader_starts_as_standby_of_the_remote_primary() {
    let world = leading().stopped(ControlState::ShutDown).with(|w| {
        w.memory.rewind = RewindState::NotNeeded;
    });
    assert_eq!(
        remote(&world.because("ha.md §7.9")).slot.as_deref(),
        Some("site_b")
    );
}

#[test]
fn s8_4_every_member_is_compared_with_the_remote_primary_and_rewound_to_it() {
    for me in ["pg1", "pg2"] {
        let stopped = || {
            let world = if me == "pg1" { leading() } else { standby(me) };
            world.stopped(ControlState::ShutDown)
        };
        let checked = stopped().step();
        let Step::StartJob(Job::CheckDivergence { source }) = &checked else {
            panic!("{checked:?}");
        };
        assert_eq!(source.connection.host, REMOTE);
        let rewound = stopped()
            .with(|w| w.memory.rewind = RewindState::Needed)
            .step();
        let Step::StartJob(Job::Rewind {
            source,
            checkpoint_confirmed,
        }) = rewound
        else {
            panic!("{rewound:?}");
        };
        assert_eq!(source.connection.host, REMOTE);
        assert!(!checkpoint_confirmed, "nobody publishes it");
    }
}

#[test]
fn s8_4_2_a_copy_is_not_made_anew_for_a_standby_cluster() {
    let world = standby("pg2").stopped(ControlState::ShutDown).with(|w| {
        w.local.use_pg_rewind = false;
        w.local.remove_on_divergence = true;
        w.memory.rewind = RewindState::Needed;
    });
    assert!(!matches!(
        world.step(),
        Step::StartJob(Job::CreateReplica { .. })
    ));
}

/// While two sites change roles the other one is a standby, too: nobody can be compared with yet.
#[test]
fn s8_3_a_remote_that_is_no_primary_does_not_keep_a_server_down() {
    let world = leading().stopped(ControlState::ShutDown).with(|w| {
        w.memory.rewind = RewindState::Check {
            undecided: Some((NOW, 1)),
        };
    });
    remote(&world.because("ha.md §7.9"));
}

#[test]
fn s6_1_replicas_are_made_by_the_methods_of_the_standby_cluster() {
    let empty = |methods: &[&str]| {
        unlocked("pg2").stopped(ControlState::Unknown).with(|w| {
            w.server.data_directory = primacy_model::DataDirectory::Empty;
            w.server.control = None;
            w.cluster.initialize = Initialize::Done(crate::world::system());
            w.local.methods_without_source = ["archive".to_owned()].into();
            w.local.replica_methods = vec!["archive".into()];
            let section = w.global.standby_cluster.as_mut().expect("configured");
            section.create_replica_methods = methods.iter().map(|name| (*name).into()).collect();
        })
    };
    assert!(matches!(
        empty(&["archive"]).because("ha.md §6.1.3"),
        Step::StartJob(Job::CreateReplica { source: None, .. })
    ));
    assert_eq!(empty(&[]).step(), Step::Wait);
}

#[test]
fn s6_1_a_member_of_a_standby_cluster_copies_its_leader() {
    let world = standby("pg2").stopped(ControlState::Unknown).with(|w| {
        w.server.data_directory = primacy_model::DataDirectory::Empty;
    });
    let step = world.because("ha.md §6.1.2");
    let Step::StartJob(Job::CreateReplica {
        source: Some(source),
        ..
    }) = step
    else {
        panic!("{step:?}");
    };
    let leader = ConnUrl::parse("postgres://pg1:5432/postgres").expect("a URL");
    assert_eq!(source.connection, leader.into());
}
