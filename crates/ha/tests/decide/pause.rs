//! `ha.md` §22: maintenance.

use primacy_ha::{
    Demotion, DemotionMode, Job, Lease, PendingOperation, RewindState, Shutdown, SlotChange, Step,
    Upstream,
};
use primacy_model::{
    ControlState, DataDirectory, History, Initialize, Lsn, Readiness, ReplicationSlot, Role,
    ScheduledAt, SlotKind, State, SystemIdentifier, Timeline, Version,
};

use crate::world::{NOW, POSITION, World, held, leader};

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
fn s4_1_1_an_owner_that_may_still_be_promoted_keeps_the_lock() {
    let owner = || {
        paused(World::of("pg2").with(|w| {
            w.cluster.leader = Some(leader("pg2"));
            w.lease = held();
        }))
    };
    // Hung in the middle of a promotion that an agent before this one asked for.
    let silent = owner().with(|w| {
        w.server.wal = None;
        w.server.recovery_signal = true;
    });
    let asked = owner().with(|w| w.memory.role = Role::Promoted);
    for world in [silent, asked] {
        let step = world.step();
        assert!(matches!(step, Step::WaitUntil(_)), "{step:?}");
    }
}

#[test]
fn s10_3_1b_only_the_named_candidate_takes_a_free_lock() {
    let chosen = paused(World::unlocked("pg2").failover(Some("pg1"), Some("pg2")));
    let step = chosen.step();
    assert_eq!(
        step,
        Step::AcquireLeader {
            failover: Some((Version(9), r#"{"member":"pg2"}"#.into()))
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

fn takes_the_lock(step: &Step) -> bool {
    matches!(step, Step::AcquireLeader { .. })
}

fn starts(step: &Step) -> bool {
    matches!(
        step,
        Step::StartJob(
            Job::Start { .. }
                | Job::StartPrimary { .. }
                | Job::CrashRecovery
                | Job::CheckDivergence { .. }
        )
    )
}

#[test]
fn s3_i_an_empty_data_directory_is_left_empty() {
    let world = paused(World::of("pg2").stopped(ControlState::ShutDown).with(|w| {
        w.server.data_directory = DataDirectory::Empty;
        w.server.control = None;
    }));
    assert_eq!(world.step(), Step::Wait);
}

#[test]
fn s3_j_data_of_another_cluster_gives_the_lock_up_and_is_tolerated() {
    let foreign = |me: &str| {
        paused(World::of(me).with(|w| {
            let other = SystemIdentifier::parse("7710395762296180000").expect("an identifier");
            w.cluster.initialize = Initialize::Done(other);
        }))
    };
    assert_eq!(
        foreign("pg1").because("ha.md §3 J"),
        Step::ReleaseLeader { optime: None }
    );
    assert_eq!(foreign("pg2").because("ha.md §3 J"), Step::Wait);
    let unlocked = foreign("pg1").with(|w| {
        w.cluster.leader = None;
        w.lease = Lease::None;
    });
    let step = unlocked.step();
    assert!(!takes_the_lock(&step), "row 4: {step:?}");
}

#[test]
fn s3_k_a_server_stopped_by_hand_gives_the_lock_up_and_stays_stopped() {
    let owner = paused(World::of("pg1").stopped(ControlState::ShutDown));
    assert_eq!(
        owner.because("ha.md §3 K"),
        Step::ReleaseLeader { optime: None }
    );
    for rewind in [
        RewindState::Initial,
        RewindState::NotNeeded,
        RewindState::Failed,
        RewindState::Check { undecided: None },
    ] {
        let other = paused(
            World::of("pg2")
                .stopped(ControlState::ShutDownInRecovery)
                .with(|w| w.memory.rewind = rewind),
        );
        assert_eq!(other.because("ha.md §22"), Step::Wait, "{rewind:?}");
    }
}

#[test]
fn s3_k_a_server_that_the_agent_stopped_is_started() {
    let stopped = || {
        paused(World::of("pg1").stopped(ControlState::ShutDown).with(|w| {
            w.cluster.leader = Some(leader("pg2"));
            w.cluster.members[1].data.role = Some(Role::Primary);
            w.lease = Lease::None;
            w.memory.role = Role::Demoted;
        }))
    };
    assert_eq!(stopped().because("ha.md §22"), Step::Wait);
    let handed_over = stopped().with(|w| {
        w.memory.demotion = Some(Demotion {
            mode: DemotionMode::Graceful,
            stopped: true,
            shutdown_lsn: Some(POSITION),
            released_at: Some(NOW),
        });
    });
    assert!(starts(&handed_over.because("ha.md §3 K")));
    for rewind in [
        RewindState::Succeeded,
        RewindState::Needed,
        RewindState::Check { undecided: None },
    ] {
        let step = stopped()
            .with(|w| w.memory.rewind = rewind)
            .because("ha.md §3 K");
        let acts = starts(&step) || matches!(step, Step::StartJob(Job::Rewind { .. }));
        assert!(acts, "{rewind:?}: {step:?}");
    }
    // A start that fails is not tried again at once.
    let failed = handed_over.with(|w| w.memory.start_failed_at = Some(NOW));
    assert!(matches!(failed.because("ha.md §3 H1"), Step::WaitUntil(_)));
}

#[test]
fn s3_2_a_server_that_starts_is_waited_for_without_a_limit() {
    let world = paused(World::of("pg1").with(|w| {
        w.server.wal = None;
        w.server.readiness = Readiness::Rejecting;
        w.memory.state = State::Starting;
        w.memory.starting_since = Some(NOW - 10 * w.global.primary_start_timeout);
    }));
    assert_eq!(world.silence().step(), Step::Wait);
}

#[test]
fn s4_1_1_the_leader_of_a_standby_cluster_keeps_the_lock() {
    let world = paused(World::of("pg2").with(|w| {
        w.cluster.leader = Some(leader("pg2"));
        w.lease = held();
        w.memory.role = Role::StandbyLeader;
        let section = serde_json::json!({"standby_cluster": {"host": "10.0.0.9"}});
        let (global, _) = primacy_config::GlobalConfig::from_dynamic(
            section.as_object().expect("an object"),
            primacy_config::TimingLimits::PATRONI,
        );
        w.global.standby_cluster = global.standby_cluster;
    }));
    let step = world.step();
    assert!(
        !matches!(step, Step::ReleaseLeader { .. } | Step::StartJob(_)),
        "{step:?}"
    );
}

#[test]
fn s9_1_a_standby_follows_a_new_leader_and_keeps_its_upstream_without_one() {
    let unlocked = paused(World::unlocked("pg2"));
    assert_eq!(unlocked.step(), Step::Wait);
    let moved = paused(World::of("pg2").with(|w| {
        w.cluster.leader = Some(leader("pg3"));
        w.cluster.members[2].data.role = Some(Role::Primary);
    }));
    assert!(matches!(
        moved.step(),
        Step::Follow(Upstream::Member { name, .. }) if name == *"pg3"
    ));
}

#[test]
fn s10_1_row_2_the_chosen_one_takes_the_lock_unless_tagged_nofailover() {
    let chosen = || paused(World::unlocked("pg2").failover(Some("pg1"), Some("pg2")));
    assert!(takes_the_lock(&chosen().because("ha.md §10.3.1a")));
    let tagged = chosen().tags(serde_json::json!({"nofailover": true}));
    assert!(!takes_the_lock(&tagged.because("ha.md §10.1 row 6")));
    let later = chosen().with(|w| {
        let request = w.cluster.failover.as_mut().expect("a request");
        request.scheduled_at = Some(ScheduledAt::Unusable("later".into()));
    });
    assert!(!takes_the_lock(&later.because("ha.md §10.1 row 6")));
}

#[test]
fn s10_1_row_4_a_running_primary_of_this_cluster_takes_a_free_lock() {
    assert!(takes_the_lock(&paused(World::unlocked("pg1")).step()));
    let fresh = paused(World::unlocked("pg1").with(|w| w.cluster.initialize = Initialize::Absent));
    assert!(takes_the_lock(&fresh.step()));
}

#[test]
fn s10_1_row_4_a_primary_that_others_went_on_from_leads_again_only_as_a_candidate() {
    let stale = || {
        paused(World::unlocked("pg1").with(|w| {
            w.cluster.history = History::from_json(r#"[[1,5,"r","t","pg2"]]"#);
        }))
    };
    assert_eq!(stale().because("ha.md §10.1 row 4"), Step::Wait);
    let chosen = stale().failover(None, Some("pg1"));
    assert!(takes_the_lock(&chosen.because("ha.md §10.3.1a")));
}

#[test]
fn w1_in_pause_a_primary_before_the_one_in_sync_leads_again_only_as_a_candidate() {
    let before = || paused(World::unlocked("pg1").sync("pg2", &[]));
    assert_eq!(before().because("ha.md W1"), Step::Wait);
    let chosen = before().failover(None, Some("pg1"));
    assert!(takes_the_lock(&chosen.because("ha.md §10.3.1a")));
    let promoted_by_hand = before().with(|w| w.wal().timeline = Some(Timeline(2)));
    assert!(takes_the_lock(&promoted_by_hand.step()));
}

#[test]
fn s10_1_row_6_no_replica_races() {
    let world = paused(World::unlocked("pg2")).peers(&[("pg3", Some(1))]);
    assert!(!takes_the_lock(&world.because("ha.md §10.1 row 6")));
}

#[test]
fn s10_3_2_without_a_candidate_nobody_takes_over() {
    let world = paused(World::unlocked("pg2").failover(Some("pg1"), None));
    assert!(!takes_the_lock(&world.because("ha.md §10.3.2")));
}

#[test]
fn s11_3_a_named_candidate_gets_the_lead_and_schedules_wait() {
    let asked = || paused(World::of("pg1").failover(Some("pg1"), Some("pg2")));
    let step = asked().peers(&[("pg2", Some(POSITION.0))]).step();
    assert!(matches!(step, Step::StartJob(Job::Stop { .. })), "{step:?}");
    let scheduled = asked().with(|w| {
        let request = w.cluster.failover.as_mut().expect("a request");
        request.scheduled_at = Some(ScheduledAt::parse(
            "1970-01-01T00:00:00+00:00",
            &jiff::tz::TimeZone::UTC,
        ));
    });
    assert_eq!(scheduled.step(), Step::Wait);
}

#[test]
fn s18_4_slots_that_nobody_wants_are_kept() {
    let world = |pause: bool| {
        World::of("pg1").with(|w| {
            w.global.use_slots = true;
            w.global.pause = pause;
            w.wal().slots = Some(vec![ReplicationSlot {
                name: "stray".into(),
                kind: SlotKind::Physical,
                active: false,
                restart_lsn: Some(Lsn(1)),
                confirmed_flush_lsn: None,
                has_xmin: false,
                catalog_xmin: None,
                lost: false,
                failover: false,
                synced: false,
            }]);
        })
    };
    let drops = |step: Step| match step {
        Step::ChangeSlots(changes) => changes
            .iter()
            .any(|change| matches!(change, SlotChange::Drop { name } if name == "stray")),
        _ => false,
    };
    assert!(drops(world(false).step()));
    assert!(!drops(world(true).step()));
}

#[test]
fn s20_a_primary_stays_one_when_it_is_restarted_without_the_lock() {
    let asked = |world: World| {
        paused(world.with(|w| {
            w.cluster.leader = Some(leader("pg2"));
            w.lease = Lease::None;
            w.memory.operation = Some(PendingOperation::Restart { timeout: None });
        }))
    };
    let as_primary =
        |step: &Step| matches!(step, Step::StartJob(Job::Restart { upstream: None, .. }));
    assert!(as_primary(&asked(World::of("pg1")).step()));
    let stopped = || asked(World::of("pg1").stopped(ControlState::ShutDown));
    assert!(!as_primary(&stopped().step()), "another member leads");
    let alone = || stopped().with(|w| w.cluster.leader = None);
    assert!(as_primary(&alone().step()));
    let stopped = alone;
    let standby = stopped().with(|w| w.server.recovery_signal = true);
    assert!(!as_primary(&standby.step()));
    let replaced = stopped().with(|w| {
        w.cluster.history = History::from_json(r#"[[1,100,"r","t","pg2"]]"#);
    });
    assert!(!as_primary(&replaced.step()), "another member led");
    let demoted = stopped().with(|w| {
        w.memory.demotion = Some(Demotion {
            mode: DemotionMode::Offline,
            stopped: true,
            shutdown_lsn: None,
            released_at: Some(crate::world::NOW),
        });
    });
    assert!(!as_primary(&demoted.step()));
}

#[test]
fn s20_a_member_is_reinitialized_on_request_and_started() {
    let asked = |change: fn(&mut World)| {
        paused(
            World::of("pg2")
                .stopped(ControlState::ShutDownInRecovery)
                .with(|w| {
                    w.memory.operation = Some(PendingOperation::Reinitialize {
                        from_leader: false,
                        force: false,
                    });
                    change(w);
                }),
        )
    };
    let copies = |step: &Step| matches!(step, Step::StartJob(Job::CreateReplica { .. }));
    assert!(copies(&asked(|_| ()).step()));
    assert!(copies(
        &asked(|w| w.server.data_directory = DataDirectory::Empty).step()
    ));
    assert!(
        copies(&asked(|w| w.server.system_identifier = None).step()),
        "needs to be reinitialized"
    );
    let foreign = asked(|w| {
        w.server.data_directory = DataDirectory::Foreign("holds photographs".into());
    });
    assert_eq!(foreign.because("design.md I6"), Step::Wait);
    let copied = paused(
        World::of("pg2")
            .stopped(ControlState::InProduction)
            .with(|w| {
                w.server.backup_label = true;
                w.memory.copied = true;
                w.memory.rewind = RewindState::NotNeeded;
            }),
    );
    assert!(starts(&copied.because("ha.md §3 K")));
}

#[test]
fn s21_the_agent_ends_and_leaves_the_server_and_the_key() {
    let ending = || {
        paused(World::of("pg1").with(|w| {
            w.memory.shutdown = Some(Shutdown {
                since: NOW,
                stopped: None,
                stop_failed: false,
                leave_server: None,
            });
        }))
    };
    assert!(matches!(
        ending().because("ha.md §21"),
        Step::Exit(exit) if exit.code == 0
    ));
    let busy = ending().job(Job::Restart {
        upstream: None,
        timeout: std::time::Duration::from_secs(60),
    });
    assert_eq!(busy.because("ha.md §21"), Step::CancelJob);
}
