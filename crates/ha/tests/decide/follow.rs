//! `ha.md` §8.2-8.4, §9: somebody else holds the lock.

use primacy_ha::{Job, RewindState, Step, Upstream};
use primacy_model::{ControlState, Role};
use serde_json::json;

use crate::world::{NOW, World, leader};

fn follows(step: &Step) -> String {
    match step {
        Step::Follow(upstream) | Step::StartJob(Job::Start { upstream }) => upstream.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn s9_at_rest() {
    let decision = World::of("pg2").decide();
    assert_eq!(decision.step, Step::Wait);
    assert_eq!(
        decision.outcome,
        "no action. I am (pg2), a secondary, and following a leader (pg1)"
    );
}

#[test]
fn s9_target() {
    let forgetful = |tags| {
        World::of("pg2")
            .tags(tags)
            .with(|w| w.memory.following = None)
    };
    assert_eq!(follows(&forgetful(json!({})).step()), "pg1");
    assert_eq!(
        follows(&forgetful(json!({"replicatefrom": "pg3"})).step()),
        "pg3"
    );
    assert_eq!(
        follows(&forgetful(json!({"replicatefrom": "gone"})).step()),
        "pg1"
    );
    assert_eq!(
        follows(&forgetful(json!({"replicatefrom": "pg2"})).step()),
        "pg1"
    );
    assert_eq!(
        follows(&forgetful(json!({"nostream": true})).step()),
        "nobody"
    );
}

#[test]
fn s9_7_a_new_leader_is_followed() {
    let led_by_pg3 = |role| {
        World::of("pg2").with(|w| {
            w.cluster.leader = Some(leader("pg3"));
            w.cluster.members[2].data.role = Some(role);
            w.memory.rewind = RewindState::NotNeeded;
        })
    };
    let promoted = led_by_pg3(Role::Primary);
    assert_eq!(follows(&promoted.because("ha.md §9 follow 7")), "pg3");
    // What one that is still to be promoted has may be another timeline of the same number.
    assert_eq!(led_by_pg3(Role::Replica).because("ha.md §8.2"), Step::Wait);
    let paused = led_by_pg3(Role::Replica).with(|w| w.global.pause = true);
    assert_eq!(paused.because("ha.md §8.2"), Step::Wait);
    let stopped = led_by_pg3(Role::Replica).stopped(ControlState::ShutDownInRecovery);
    let stopped = stopped.with(|w| w.memory.rewind = RewindState::NotNeeded);
    assert_eq!(follows(&stopped.because("ha.md §7.9")), "nobody");
    let restart = World::of("pg2").with(|w| {
        w.memory.follow_needs_restart = w.memory.following.take().map(|(upstream, _)| upstream);
    });
    assert!(matches!(
        restart.step(),
        Step::StartJob(Job::Restart {
            upstream: Some(_),
            ..
        })
    ));
}

#[test]
fn s9_5_a_paused_replay_is_resumed() {
    let world = World::of("pg2").with(|w| w.wal().replay_paused = true);
    assert_eq!(world.because("ha.md §9 follow 5"), Step::ResumeReplay);
    let old = World::of("pg2").with(|w| {
        w.wal().replay_paused = true;
        w.server.major_version = Some(13);
    });
    assert_eq!(old.step(), Step::Wait);
}

#[test]
fn w20_an_upstream_is_kept_while_nobody_leads() {
    let world = World::unlocked("pg2").peers(&[("pg3", Some(u64::MAX))]);
    assert!(!matches!(world.step(), Step::Follow(Upstream::Nobody)));
    // A leader that took its lapsed lock again has a leader key before it has a member key.
    let unpublished = World::of("pg2").with(|w| {
        w.cluster.members.remove(0);
    });
    assert_eq!(unpublished.step(), Step::Wait);
    let archive_only = World::of("pg2")
        .tags(serde_json::json!({"nostream": true}))
        .with(|w| {
            w.cluster.members.remove(0);
        });
    assert_eq!(archive_only.step(), Step::Follow(Upstream::Nobody));
}

#[test]
fn s8_3_the_wal_is_compared_before_a_former_primary_follows() {
    let stopped = || World::of("pg2").stopped(ControlState::ShutDown);
    assert!(matches!(
        stopped().step(),
        Step::StartJob(Job::CheckDivergence { .. })
    ));
    let unready =
        stopped().with(|w| w.cluster.members[0].data.role = Some(primacy_model::Role::Replica));
    assert!(matches!(
        unready.because("ha.md §8.3.2"),
        Step::WaitUntil(_)
    ));
    let same = stopped().with(|w| w.memory.rewind = RewindState::NotNeeded);
    assert_eq!(follows(&same.because("ha.md §7.9")), "pg1");
}

#[test]
fn s8_3_a_comparison_that_cannot_be_made_does_not_keep_a_server_down_for_ever() {
    let tried = |tries| {
        World::of("pg2").stopped(ControlState::ShutDown).with(|w| {
            w.memory.rewind = RewindState::Check {
                undecided: Some((NOW, tries)),
            };
        })
    };
    assert!(matches!(tried(1).step(), Step::WaitUntil(_)));
    assert_eq!(follows(&tried(20).because("ha.md §8.3")), "nobody");
}

/// A timeline of the same number need not be the same one: PostgreSQL would stream whatever comes next.
#[test]
fn s8_2_a_member_that_is_to_be_compared_gets_wal_from_nobody_else() {
    let unknown = RewindState::Check { undecided: None };
    let tried = RewindState::Check {
        undecided: Some((NOW, 1)),
    };
    let led_by_pg3 = |rewind| {
        World::of("pg2").with(|w| {
            w.cluster.leader = Some(leader("pg3"));
            w.cluster.members[2].data.role = Some(Role::Primary);
            w.memory.rewind = rewind;
        })
    };
    // It still gets WAL from pg1, or would if that came back.
    for rewind in [unknown, tried] {
        assert_eq!(follows(&led_by_pg3(rewind).step()), "nobody");
        let paused = led_by_pg3(rewind).with(|w| w.global.pause = true);
        assert_eq!(follows(&paused.step()), "nobody");
        let forgotten = led_by_pg3(rewind).with(|w| w.memory.following = None);
        assert_eq!(follows(&forgotten.step()), "nobody");
    }
    let apart = |rewind| {
        led_by_pg3(rewind).with(|w| {
            w.memory.following = Some((Upstream::Nobody, crate::world::POSTMASTER));
        })
    };
    assert!(matches!(
        apart(unknown).because("ha.md §8.2"),
        Step::WaitUntil(_)
    ));
    let ended = |rewind| apart(rewind).with(|w| w.wal().receiver = None);
    assert!(matches!(
        ended(unknown).step(),
        Step::StartJob(Job::CheckDivergence { .. })
    ));
    assert_eq!(ended(tried).because("ha.md §8.2"), Step::Wait);
    let same = ended(RewindState::NotNeeded);
    assert_eq!(follows(&same.because("ha.md §9 follow 7")), "pg3");
    // What pg1 itself sends is what it is compared with.
    let from_leader = World::of("pg2").with(|w| w.memory.rewind = unknown);
    assert!(matches!(
        from_leader.step(),
        Step::StartJob(Job::CheckDivergence { .. })
    ));
    let restarts = led_by_pg3(unknown).with(|w| w.server.major_version = Some(12));
    assert!(matches!(
        restarts.step(),
        Step::StartJob(Job::CheckDivergence { .. })
    ));
}

#[test]
fn s8_4_divergence_is_repaired_by_what_is_configured() {
    let diverged = |change: fn(&mut World)| {
        World::of("pg2").stopped(ControlState::ShutDown).with(|w| {
            w.memory.rewind = RewindState::Needed;
            change(w);
        })
    };
    assert!(matches!(
        diverged(|_| ()).because("ha.md §8.4.1"),
        Step::StartJob(Job::Rewind { .. })
    ));
    let copied = diverged(|w| {
        w.local.use_pg_rewind = false;
        w.local.remove_on_divergence = true;
    });
    let step = copied.because("ha.md §8.4.2");
    assert!(
        matches!(
            step,
            Step::StartJob(Job::CreateReplica {
                reinitialize: true,
                ..
            })
        ),
        "{step:?}"
    );
    let neither = diverged(|w| w.local.use_pg_rewind = false);
    assert_eq!(
        follows(&neither.step()),
        "nobody",
        "it does not fit the leader's WAL"
    );
    let unrewindable = diverged(|w| {
        w.server.control.as_mut().expect("control data").rewindable = false;
    });
    assert_eq!(
        follows(&unrewindable.step()),
        "nobody",
        "I6: nothing is wiped unasked"
    );
}

#[test]
fn s8_5_3_w24_nobody_rewinds_before_the_leaders_checkpoint() {
    let world = World::of("pg2").stopped(ControlState::ShutDown).with(|w| {
        w.memory.rewind = RewindState::Needed;
        w.cluster.members[0].data.checkpoint_pending = true;
    });
    assert!(matches!(world.because("ha.md §8.5.3"), Step::WaitUntil(_)));
}

#[test]
fn s8_5_6_a_failed_rewind_wipes_only_where_that_is_configured() {
    let failed = |remove| {
        World::of("pg2").stopped(ControlState::ShutDown).with(|w| {
            w.memory.rewind = RewindState::Failed;
            w.local.remove_on_rewind_failure = remove;
        })
    };
    assert!(matches!(
        failed(true).step(),
        Step::StartJob(Job::CreateReplica { .. })
    ));
    assert_eq!(follows(&failed(false).step()), "nobody");
}
