//! `ha.md` §10: nobody holds the lock.

use std::time::Duration;

use primacy_config::SynchronousMode;
use primacy_ha::{DemotionMode, Job, PeerReport, RewindState, Step, StopReason};
use primacy_model::{History, Lsn, Role, Tags, Timeline, Version};
use serde_json::json;

use crate::world::{NOW, POSITION, World, leader, primary_wal};

const HERE: u64 = POSITION.0;

fn acquires(step: &Step) -> bool {
    matches!(step, Step::AcquireLeader { .. })
}

fn demotes(step: &Step, mode: DemotionMode) -> bool {
    matches!(step, Step::StartJob(Job::Stop { reason: StopReason::Demotion(m), .. }) if *m == mode)
}

fn as_primary(mut world: World) -> World {
    world.server.wal = Some(primary_wal());
    world.memory.role = Role::Primary;
    world
}

#[test]
fn row_1_no_race_for_ttl_after_a_failed_pre_promote() {
    let world = World::unlocked("pg2").silence();
    assert!(acquires(&world.step()));
    let failed = |ago| {
        World::unlocked("pg2")
            .silence()
            .with(|w| w.memory.pre_promote_failed_at = Some(NOW - Duration::from_secs(ago)))
    };
    assert!(!acquires(&failed(29).because("ha.md §10.1 row 1")));
    assert!(acquires(&failed(31).step()));
}

#[test]
fn row_3_a_server_that_does_not_answer_does_not_race() {
    let world = World::unlocked("pg2")
        .silence()
        .with(|w| w.server.wal = None);
    assert!(!acquires(&world.because("ha.md §10.1 row 3")));
}

#[test]
fn rows_4_and_6_paused_only_a_primary_of_this_cluster_takes_the_lock() {
    let paused = |world: World| world.with(|w| w.global.pause = true);
    assert!(acquires(&paused(as_primary(World::unlocked("pg2"))).step()));
    assert!(!acquires(
        &paused(World::unlocked("pg2").silence()).because("ha.md §10.1 row 6")
    ));
}

#[test]
fn row_5_a_primary_takes_the_lock_unless_the_cluster_got_further() {
    assert!(acquires(
        &as_primary(World::unlocked("pg1")).because("ha.md §10.1 row 5")
    ));
    let stale = as_primary(World::unlocked("pg1")).with(|w| {
        w.cluster.history = History::from_json(r#"[[1,5,"r","t","pg2"]]"#);
    });
    let step = stale.because("ha.md §10.1 row 5");
    assert!(demotes(&step, DemotionMode::ImmediateNoLock), "{step:?}");
}

#[test]
fn w1_an_old_primary_does_not_retake_the_lock_while_sync_names_another() {
    let world = as_primary(World::unlocked("pg1")).sync("pg2", &["pg3"]);
    let step = world.because("ha.md W1");
    assert!(demotes(&step, DemotionMode::ImmediateNoLock), "{step:?}");
    assert!(acquires(
        &as_primary(World::unlocked("pg1"))
            .sync("pg1", &["pg2"])
            .step()
    ));
}

/// Another one has led since, and named it in /sync as one of its standbys; their new timelines may have one number.
#[test]
fn w1_a_former_primary_is_no_candidate_before_it_was_compared_with_the_next() {
    let world = |superseded_by: Option<&'static str>| {
        let mut world = World::unlocked("pg2").sync("pg1", &["pg2", "pg3"]);
        world.global.synchronous_mode = SynchronousMode::Quorum;
        world.memory.superseded_by = superseded_by.map(Into::into);
        world.peers(&[("pg3", Some(HERE))])
    };
    assert!(acquires(&world(None).step()));
    assert!(!acquires(&world(Some("pg1")).because("ha.md W1")));
}

#[test]
fn row_7_nofailover_never_races() {
    for tags in [json!({"nofailover": true}), json!({"failover_priority": 0})] {
        let world = World::unlocked("pg2").silence().tags(tags);
        assert!(!acquires(&world.because("ha.md §10.1 row 7")));
        assert_eq!(
            world.decide().outcome,
            "following a different leader because I am not allowed to promote"
        );
    }
}

#[test]
fn row_8_a_switchover_in_synchronous_mode_is_for_members_of_sync() {
    let world = World::unlocked("pg2")
        .sync("pg1", &["pg3"])
        .failover(Some("pg1"), Some("pg2"));
    assert!(!acquires(&world.because("ha.md §10.1 row 8")));
}

#[test]
fn row_11_failsafe_members_only() {
    let world = World::unlocked("pg2").silence().with(|w| {
        w.global.failsafe_mode = true;
        w.cluster.failsafe.insert("pg1".into(), "u".into());
    });
    assert!(!acquires(&world.because("ha.md §10.1 row 11")));
    // The leader that wrote the key is one of those in it: when all of them tell that they do not lead, nobody does.
    let answered = |change: fn(&mut PeerReport)| {
        let mut world = World::unlocked("pg2")
            .peers(&[("pg1", Some(HERE))])
            .with(|w| {
                w.global.failsafe_mode = true;
                w.cluster.failsafe.insert("pg1".into(), "u".into());
            });
        for peer in world.peers.iter_mut().flat_map(|peers| peers.values_mut()) {
            change(peer.as_mut().expect("an answer"));
        }
        acquires(&world.step())
    };
    assert!(answered(|_| ()));
    assert!(!answered(|peer| peer.failsafe_active = true));
    assert!(!answered(|peer| peer.in_recovery = false));
}

#[test]
fn row_12_synchronous_members_only() {
    let outside = World::unlocked("pg2").silence().sync("pg1", &["pg3"]);
    assert!(!acquires(&outside.because("ha.md §10.1 row 12")));
    let inside = World::unlocked("pg2").silence().sync("pg1", &["pg2"]);
    assert!(acquires(&inside.step()));
    // Without a leader in /sync nothing is synchronous yet.
    let inactive = World::unlocked("pg2")
        .silence()
        .with(|w| w.global.synchronous_mode = SynchronousMode::On);
    assert!(acquires(&inactive.step()));
}

#[test]
fn s10_2_1_too_far_behind_the_last_known_position() {
    let behind = |bytes: u64| {
        World::unlocked("pg2")
            .silence()
            .with(|w| w.cluster.status.optime = Lsn(HERE + bytes))
    };
    assert!(acquires(&behind(1_048_576).step()));
    assert!(!acquires(&behind(1_048_577).because("ha.md §10.2.1")));
}

#[test]
fn s10_2_2_check_timeline() {
    let world = World::unlocked("pg2").silence().with(|w| {
        w.global.check_timeline = true;
        w.memory.last_timeline = Some(Timeline(1));
        w.cluster.history = History::from_json(r#"[[1,5,"r","t","pg3"]]"#);
    });
    assert!(!acquires(&world.because("ha.md §10.2.2")));
}

#[test]
fn s10_2_3_members_are_asked_first_also_those_whose_keys_are_gone() {
    let world = World::unlocked("pg2").with(|w| w.cluster.members.retain(|m| m.name == "pg2"));
    let Step::AskPeers(asked) = world.step() else {
        panic!("{:?}", world.step());
    };
    assert_eq!(
        asked.keys().map(|name| name.as_str()).collect::<Vec<_>>(),
        ["pg1", "pg3"]
    );
}

#[test]
fn s10_2_3_members_that_do_not_answer_do_not_block() {
    assert!(acquires(
        &World::unlocked("pg2").silence().because("ha.md §10.2.3")
    ));
}

#[test]
fn s10_2_4_a_living_primary_blocks() {
    let world = World::unlocked("pg2").peers(&[("pg1", None), ("pg3", Some(HERE))]);
    assert!(!acquires(&world.because("ha.md §10.2.4")));
}

#[test]
fn s10_2_4_a_member_further_ahead_blocks_unless_it_cannot_take_over() {
    let ahead = World::unlocked("pg2").peers(&[("pg3", Some(HERE + 1))]);
    assert!(!acquires(&ahead.because("ha.md §10.2.4")));
    let unable = World::unlocked("pg2")
        .peers(&[("pg3", Some(HERE + 1))])
        .with(|w| {
            for report in w
                .peers
                .iter_mut()
                .flat_map(|peers| peers.values_mut())
                .flatten()
            {
                report.tags = Tags::from_json(&json!({"nofailover": true}));
            }
        });
    assert!(acquires(&unable.step()));
    // The former synchronous primary may be ahead by what nobody acknowledged.
    let former = World::unlocked("pg2")
        .sync("pg1", &["pg2"])
        .peers(&[("pg1", Some(HERE + 1))]);
    assert!(acquires(&former.step()));
}

#[test]
fn s10_2_4_priority_decides_between_equals_but_not_against_the_old_leader() {
    let priority = |name: &str| {
        World::unlocked("pg2")
            .peers(&[(name, Some(HERE))])
            .with(|w| {
                for report in w
                    .peers
                    .iter_mut()
                    .flat_map(|peers| peers.values_mut())
                    .flatten()
                {
                    report.tags = Tags::from_json(&json!({"failover_priority": 2}));
                }
            })
    };
    let decision = priority("pg3").decide();
    assert!(!acquires(&decision.step));
    let said =
        "pg3 has equally tolerable WAL position and priority 2, while this node has priority 1";
    assert!(
        decision.reasons.iter().any(|reason| reason.text == said),
        "{decision:#?}"
    );
    assert!(acquires(&priority("pg1").step()));
}

#[test]
fn s10_2_5_quorum_mode_counts_votes() {
    let race = |answers: &[(&str, Option<u64>)], quorum: u32| {
        World::unlocked("pg2")
            .sync("pg1", &["pg2", "pg3"])
            .peers(answers)
            .with(|w| {
                w.global.synchronous_mode = SynchronousMode::Quorum;
                w.cluster.sync.quorum = quorum;
            })
    };
    assert!(acquires(&race(&[("pg3", Some(HERE))], 1).step()));
    assert!(!acquires(&race(&[], 1).because("ha.md §10.2.5")));
    assert!(!acquires(&race(&[("pg3", Some(HERE + 1))], 1).step()));
    assert!(acquires(&race(&[], 0).step()));
    // Whoever is no voter needs one vote more.
    let outsider = World::unlocked("pg2")
        .sync("pg1", &["pg3"])
        .peers(&[("pg3", Some(HERE))]);
    let outsider = outsider.with(|w| {
        w.global.synchronous_mode = SynchronousMode::Quorum;
        w.cluster.sync.quorum = 1;
    });
    assert!(!acquires(&outsider.because("ha.md §10.2.5")));
}

/// Voters tell how far their WAL goes, not whose it is: two timelines of one number may have been begun apart.
#[test]
fn s10_2_5_who_is_no_voter_and_was_not_compared_needs_more_than_votes() {
    let race = |standbys: &[&str], state| {
        World::unlocked("pg2")
            .sync("pg1", standbys)
            .peers(&[("pg1", Some(HERE)), ("pg3", Some(HERE))])
            .with(|w| {
                w.global.synchronous_mode = SynchronousMode::Quorum;
                w.memory.rewind = state;
            })
    };
    let pending = RewindState::Check { undecided: None };
    assert!(!acquires(&race(&[], pending).because("ha.md §10.2.5")));
    assert!(acquires(&race(&[], RewindState::NotNeeded).step()));
    assert!(acquires(&race(&["pg2"], pending).step()));
    // Nobody has led since the agent began.
    let begun = |standbys: &[&str]| {
        let world = race(standbys, RewindState::Initial);
        world.with(|w| w.last_healthy.as_mut().expect("a view").leader = None)
    };
    assert!(!acquires(&begun(&[]).because("ha.md §10.2.5")));
    assert!(acquires(&begun(&["pg2"]).step()));
    assert!(acquires(&race(&[], RewindState::Initial).step()));
}

/// The mode was switched to `on`, and the primary is lost before it could publish that.
#[test]
fn s10_2_5_votes_count_for_as_long_as_sync_has_a_quorum() {
    let race = |answers: &[(&str, Option<u64>)]| {
        World::unlocked("pg2")
            .sync("pg1", &["pg2", "pg3"])
            .peers(answers)
            .with(|w| w.cluster.sync.quorum = 1)
    };
    assert!(!acquires(&race(&[]).because("ha.md §10.2.5")));
    assert!(acquires(&race(&[("pg3", Some(HERE))]).step()));
}

/// An agent that was restarted sees nobody but itself: that is no election.
#[test]
fn s10_2_5_in_quorum_mode_a_member_without_others_has_no_votes() {
    let alone = |quorum| {
        World::unlocked("pg2")
            .sync("pg1", &["pg2", "pg3"])
            .with(|w| {
                w.global.synchronous_mode = SynchronousMode::Quorum;
                w.cluster.sync.quorum = quorum;
                w.cluster.members.retain(|member| *member.name == *"pg2");
                w.last_healthy = None;
            })
    };
    assert!(!acquires(&alone(1).because("ha.md §10.2.5")));
    assert!(acquires(&alone(0).step()));
}

#[test]
fn s10_3_1a_the_chosen_candidate_takes_the_lock() {
    let world = World::unlocked("pg2").failover(None, Some("pg2"));
    let step = world.because("ha.md §10.3.1a");
    assert_eq!(
        step,
        Step::AcquireLeader {
            failover: Some((Version(9), "{}".into()))
        }
    );
}

#[test]
fn s10_3_1c_in_synchronous_mode_only_a_member_of_sync_stands_in_for_the_chosen_one() {
    let chosen = |standbys: &[&str]| {
        World::unlocked("pg2")
            .sync("pg1", standbys)
            .failover(None, Some("pg9"))
            .silence()
    };
    assert!(!acquires(&chosen(&["pg3"]).because("ha.md §10.3.1c")));
    assert!(acquires(&chosen(&["pg2"]).step()));
}

#[test]
fn s10_3_1d_others_leave_it_to_a_candidate_that_can() {
    let able = World::unlocked("pg2")
        .failover(None, Some("pg3"))
        .peers(&[("pg3", Some(HERE))]);
    assert!(!acquires(&able.because("ha.md §10.3.1d")));
    let dead = World::unlocked("pg2").failover(None, Some("pg3")).silence();
    assert!(acquires(&dead.because("ha.md §10.3.1d")));
}

/// It publishes `nofailover` until it has seen the request.
#[test]
fn w1_others_leave_it_to_a_candidate_that_withdrew_itself_too() {
    let request = |leader: Option<&str>, withdrawn: bool| {
        let mut world = World::unlocked("pg2")
            .failover(leader, Some("pg3"))
            .peers(&[("pg3", Some(HERE))]);
        let peers = world.peers.as_mut().unwrap();
        let tags = Tags::from_json(&json!({"nofailover": true}));
        peers.get_mut("pg3").unwrap().as_mut().unwrap().tags = tags.clone();
        let mut members = world.cluster.members.iter_mut();
        let chosen = members.find(|member| member.name == *"pg3").unwrap();
        chosen.data.tags = tags;
        chosen.data.withdrawn = withdrawn.then(|| "my WAL left".into());
        world.step()
    };
    assert!(!acquires(&request(None, true)));
    assert!(acquires(&request(None, false)), "by its configuration");
    assert!(acquires(&request(Some("pg1"), true)), "a switchover");
}

/// Row 8 of `ha.md` §10.1 holds such a candidate back for ever: who waited for it would, too.
#[test]
fn s10_3_1d_nobody_waits_for_a_candidate_outside_sync() {
    let request = |candidate| {
        World::unlocked("pg2")
            .sync("pg1", &["pg2"])
            .failover(Some("pg1"), Some(candidate))
            .peers(&[("pg3", Some(HERE))])
    };
    assert!(acquires(&request("pg3").step()));
    let by_hand = request("pg3").failover(None, Some("pg3"));
    assert!(!acquires(&by_hand.because("ha.md §10.3.1d")));
}

/// The leader died before it handed over: to be a voter is not to have every commit.
#[test]
fn w10_the_candidate_of_a_switchover_must_find_the_votes_of_a_quorum() {
    let race = |me, answers: &[(&str, Option<u64>)]| {
        World::unlocked(me)
            .sync("pg1", &["pg2", "pg3"])
            .failover(Some("pg1"), Some("pg2"))
            .peers(answers)
            .with(|w| {
                w.global.synchronous_mode = SynchronousMode::Quorum;
                w.cluster.sync.quorum = 1;
            })
    };
    assert!(!acquires(&race("pg2", &[]).step()));
    assert!(!acquires(&race("pg2", &[("pg3", Some(HERE + 1))]).step()));
    assert!(acquires(&race("pg2", &[("pg3", Some(HERE))]).step()));
    // Nor do others leave the lock to one that is behind them.
    assert!(acquires(&race("pg3", &[("pg2", Some(HERE - 1))]).step()));
    assert!(!acquires(&race("pg3", &[("pg2", Some(HERE))]).step()));
    // Everybody waits for it, also who has a higher priority.
    let preferred = race("pg2", &[("pg3", Some(HERE))]).with(|w| {
        for peer in w.peers.iter_mut().flat_map(|peers| peers.values_mut()) {
            peer.as_mut().expect("an answer").tags =
                Tags::from_json(&json!({"failover_priority": 2}));
        }
    });
    assert!(acquires(&preferred.step()));
    // The mode was switched meanwhile; what was committed by a quorum was committed by one.
    let switched = race("pg2", &[]).with(|w| w.global.synchronous_mode = SynchronousMode::On);
    assert!(!acquires(&switched.step()));
    // Whoever wants to lose commits asks for a failover, in pause, too.
    let paused =
        |answers: &[(&str, Option<u64>)]| race("pg2", answers).with(|w| w.global.pause = true);
    assert!(!acquires(&paused(&[]).step()));
    assert!(acquires(&paused(&[("pg3", Some(HERE))]).step()));
    let stranger = paused(&[]).sync("pg1", &["pg3"]);
    assert!(!acquires(&stranger.because("ha.md §10.1 row 8")));
}

/// Who was the primary for a moment has WAL of its own, however long, and the others went on with the next leader.
#[test]
fn s10_2_4_a_later_timeline_is_further_however_short_its_wal() {
    let race = |mine: u32, theirs: u32, position| {
        let mut world = World::unlocked("pg2")
            .sync("pg1", &["pg2", "pg3"])
            .peers(&[("pg3", Some(position))])
            .with(|w| {
                w.global.synchronous_mode = SynchronousMode::Quorum;
                w.cluster.sync.quorum = 1;
                let wal = w.server.wal.as_mut().expect("a server");
                wal.receiver = None;
                wal.replay_timeline = Some(Timeline(mine));
            });
        for peer in world.peers.iter_mut().flat_map(|peers| peers.values_mut()) {
            peer.as_mut().expect("an answer").timeline = Timeline::known(theirs.into());
        }
        acquires(&world.step())
    };
    assert!(!race(4, 5, HERE - 1), "my WAL is longer and older");
    assert!(race(5, 4, HERE + 1), "it votes: it has nothing that I lack");
    assert!(race(5, 5, HERE - 1));
    assert!(!race(5, 5, HERE + 1));
    assert!(
        !race(5, 0, HERE + 1),
        "who tells no timeline is judged by its position"
    );
}

/// Another led since.
#[test]
fn s10_2_5_the_primary_in_sync_needs_votes_when_it_was_not_the_last_one() {
    let race = |last: &str| {
        let world = World::unlocked("pg1")
            .sync("pg1", &["pg2", "pg3"])
            .silence()
            .with(|w| {
                w.global.synchronous_mode = SynchronousMode::Quorum;
                w.cluster.sync.quorum = 1;
                w.server.wal = Some(crate::world::replica_wal());
                w.memory.role = Role::Replica;
                let seen = w.last_healthy.as_mut().expect("a view");
                seen.leader = Some(leader(last));
            });
        acquires(&world.step())
    };
    assert!(race("pg1"));
    assert!(!race("pg2"));
}

/// However far its WAL goes, it is not what clients were told.
#[test]
fn s8_4_a_member_whose_wal_left_the_leaders_is_no_candidate() {
    for state in [RewindState::Needed, RewindState::Failed] {
        let world = World::unlocked("pg2").with(|w| w.memory.rewind = state);
        assert!(!acquires(&world.because("ha.md §8.4")));
    }
    let earlier_agent = World::unlocked("pg2").with(|w| w.memory.found_diverged = true);
    assert!(!acquires(&earlier_agent.because("ha.md §8.4")));
    // Nobody could compare it, but /history tells.
    let world =
        || World::unlocked("pg2").with(|w| w.memory.left_history = Some((Timeline(1), Lsn(100))));
    assert!(!acquires(&world().because("ha.md §10.2.2")));
    // It may be all that is left, and an operator who says so has it.
    let chosen = world()
        .failover(None, Some("pg2"))
        .with(|w| w.memory.chosen = true);
    assert!(acquires(&chosen.because("ha.md §10.3.1a")));
}

#[test]
fn s10_3_3_the_former_leader_leaves_it_to_others_that_can() {
    let handed_over = World::unlocked("pg1").failover(Some("pg1"), None);
    let able = World {
        memory: Default::default(),
        ..handed_over
    }
    .with(|w| {
        w.server.wal = World::of("pg2").server.wal;
        w.memory = World::of("pg2").memory;
    });
    assert!(!acquires(
        &able.peers(&[("pg2", Some(HERE))]).because("ha.md §10.3.3")
    ));
}

#[test]
fn s10_4_whoever_is_not_the_healthiest_keeps_following() {
    let world = World::unlocked("pg2").peers(&[("pg3", Some(HERE + 1))]);
    assert!(matches!(world.step(), Step::WaitUntil(_)));
    let outcome = world.decide().outcome;
    assert_eq!(
        outcome,
        "following a different leader because i am not the healthiest node"
    );
}

/// A request decides for everybody who came so far; what lag, `/failsafe` and `/sync` say comes after it.
#[test]
fn row_9_a_request_decides_before_the_rows_after_it() {
    let barred = |me: &str| {
        World::unlocked(me).failover(None, Some("pg2")).with(|w| {
            w.cluster.status.optime = Lsn(u64::MAX / 2);
            w.global.failsafe_mode = true;
            w.cluster.failsafe = [("pg1".into(), "http://pg1:8008/patroni".into())].into();
        })
    };
    let answers = [("pg1", None), ("pg2", Some(HERE)), ("pg3", Some(HERE))];
    let unanswered = barred("pg2").with(|w| w.cluster.failsafe.clear());
    assert!(acquires(&unanswered.because("ha.md §10.3.1a")));
    let able = World::unlocked("pg3")
        .failover(None, Some("pg2"))
        .peers(&answers);
    assert!(!acquires(&able.because("ha.md §10.3.1d")));
    // Without a request the same member is too far behind.
    let alone = unanswered.silence().with(|w| w.cluster.failover = None);
    assert!(!acquires(&alone.because("ha.md §10.2.1")));
}

#[test]
fn row_13_who_is_asked() {
    let asked = |world: World| match world.step() {
        Step::AskPeers(members) => members.keys().map(|name| name.to_string()).collect(),
        other => panic!("{other:?}"),
    };
    let names = |names: &[&str]| -> Vec<String> { names.iter().map(|it| (*it).into()).collect() };
    let more = |world: World| {
        world.with(|w| {
            // In the last view with a leader, and in /failsafe alone.
            w.cluster.members.retain(|member| member.name != "pg3");
            w.cluster.members.push(crate::world::member("pg4"));
            w.global.failsafe_mode = true;
            let known = ["pg1", "pg2", "pg5"].map(|name| (name.into(), format!("http://{name}")));
            w.cluster.failsafe = known.into();
        })
    };
    let everybody: Vec<String> = asked(more(World::unlocked("pg2")));
    assert_eq!(everybody, names(&["pg1", "pg3", "pg4", "pg5"]));
    let synchronous = World::unlocked("pg2").sync("pg1", &["pg2", "pg3"]);
    let voters: Vec<String> = asked(synchronous.with(|w| {
        w.cluster.members.push(crate::world::member("pg4"));
    }));
    assert_eq!(voters, names(&["pg1", "pg3"]));
}
