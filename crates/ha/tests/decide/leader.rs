//! `ha.md` §4: the lock is mine.

use std::time::Duration;

use primacy_ha::{DemotionMode, Job, Over, Step, StopReason};
use primacy_model::{DynamicConfig, History, Initialize, Lsn, Role, Timeline, Version};

use crate::world::{NOW, POSITION, World, held, leader};

fn winner() -> World {
    World::of("pg2").with(|w| {
        w.cluster.leader = Some(leader("pg2"));
        w.lease = held();
    })
}

#[test]
fn s4_3_2_a_primary_with_the_lock_has_nothing_to_do() {
    let decision = World::of("pg1").decide();
    assert_eq!(decision.step, Step::Wait);
    assert_eq!(
        decision.outcome,
        "no action. I am (pg1), the leader with the lock"
    );
}

#[test]
fn s4_3_4_a_replica_with_the_lock_is_promoted() {
    assert_eq!(
        winner().because("ha.md §4.3.4"),
        Step::StartJob(Job::Promote)
    );
    let promoted = winner().with(|w| w.memory.role = Role::Promoted);
    assert!(matches!(promoted.step(), Step::WaitUntil(_)));
}

/// Whether it came to be asked is not known, and it does no harm to be asked twice.
#[test]
fn s4_3_4_a_promotion_that_an_earlier_agent_asked_for_is_asked_for_again() {
    let asked = || winner().with(|w| w.server.promoting = true);
    assert_eq!(
        asked().because("ha.md §4.3.4"),
        Step::StartJob(Job::Promote)
    );
    let paused = asked().with(|w| w.global.pause = true);
    assert_eq!(paused.step(), Step::StartJob(Job::Promote));
    // The lock would be free before the server is stopped.
    let outdated = asked().sync("pg1", &["pg3"]);
    assert!(matches!(
        outdated.because("ha.md §13.1 I3"),
        Step::StartJob(Job::Stop {
            reason: StopReason::Demotion(DemotionMode::Immediate),
            ..
        })
    ));
}

#[test]
fn s4_3_1_a_failed_pre_promote_gives_the_lock_back() {
    let world =
        winner().with(|w| w.memory.pre_promote_failed_at = Some(NOW - Duration::from_secs(1)));
    assert_eq!(
        world.because("ha.md §4.3.1"),
        Step::ReleaseLeader { optime: None }
    );
}

#[test]
fn s5_4_without_a_confirmed_lease_nothing_is_promoted() {
    let world = winner().with(|w| {
        w.lease = primacy_ha::Lease::Held {
            until: NOW - Duration::from_secs(1),
            failing_since: None,
        };
    });
    assert_ne!(world.step(), Step::StartJob(Job::Promote));
}

#[test]
fn s3_d_the_owner_repairs_keys() {
    let world = World::of("pg1").with(|w| w.cluster.initialize = Initialize::Absent);
    assert!(matches!(
        world.because("ha.md §3 D"),
        Step::WriteInitialize {
            over: Over::Nothing,
            ..
        }
    ));
    let missing = World::of("pg1").with(|w| w.cluster.config = None);
    assert_eq!(missing.because("ha.md §3 D"), Step::WriteConfig(None));
    let empty = World::of("pg1").with(|w| {
        w.cluster.config = Some(DynamicConfig {
            value: Default::default(),
            version: Version(1),
        });
    });
    assert_eq!(empty.step(), Step::WriteConfig(Some(Version(1))));
}

/// Of a write of `/sync` whose answer did not come, its own or that of an agent that led before, nobody knows whether it is
/// over: one more write makes sure that it is, before anything relies on what `/sync` holds.
#[test]
fn s13_a_write_of_sync_without_an_answer_is_followed_by_one_with_an_answer() {
    let doubtful = |leader: &str| {
        let world = World::of("pg1").sync(leader, &["pg3"]);
        world.with(|w| w.memory.sync.doubtful = true)
    };
    let once_more = Step::WriteSync(doubtful("pg1").cluster.sync);
    assert_eq!(doubtful("pg1").because("ha.md §13"), once_more);
    let settled = doubtful("pg1").with(|w| w.memory.sync.doubtful = false);
    assert_ne!(settled.step(), once_more);
    // Where another is named, it is written anyway.
    let other = Step::WriteSync(doubtful("pg2").cluster.sync);
    assert_ne!(doubtful("pg2").step(), other);
}

/// Nobody could lead if the primary were lost between the two: some would be on a timeline that was left, the others too
/// far behind a position on it.
#[test]
fn s21_a_status_of_the_timeline_before_is_replaced_before_history_ends_that_timeline() {
    let promoted = |status: u64| {
        World::of("pg1").with(|w| {
            w.wal().timeline = Some(Timeline(2));
            w.cluster.status.optime = Lsn(status);
        })
    };
    let writes = |step: Step| matches!(step, Step::WriteHistory(_));
    assert!(writes(promoted(POSITION.0).step()));
    assert!(!writes(promoted(POSITION.0 + 1).step()));
}

#[test]
fn s21_history_leads_up_to_the_timeline() {
    let on = |timeline: u32, history: &str| {
        World::of("pg1").with(|w| {
            w.wal().timeline = Some(Timeline(timeline));
            w.wal().checkpoint_timeline = Some(Timeline(timeline));
            w.memory.checkpoint_done = Some(Timeline(timeline));
            w.cluster.history = History::from_json(history);
        })
    };
    assert_eq!(
        on(2, "[]").because("ha.md §21"),
        Step::WriteHistory(Timeline(2))
    );
    assert_eq!(
        on(2, r#"[[1,5,"r"]]"#).step(),
        Step::WriteHistory(Timeline(2))
    );
    assert_eq!(on(2, r#"[[1,5,"r","t","pg1"]]"#).step(), Step::Wait);
    assert_eq!(on(1, "{}").step(), Step::Wait);
}

#[test]
fn s8_6_the_first_checkpoint_after_a_promotion() {
    let promoted = || {
        World::of("pg1").with(|w| {
            w.wal().timeline = Some(Timeline(2));
            w.cluster.history = History::from_json(r#"[[1,5,"r","t","pg1"]]"#);
        })
    };
    assert_eq!(promoted().because("ha.md §8.6"), Step::Checkpoint);
    assert_eq!(
        promoted()
            .with(|w| w.memory.checkpoint_running = true)
            .step(),
        Step::Wait
    );
    assert_eq!(
        promoted()
            .with(|w| w.memory.checkpoint_done = Some(Timeline(2)))
            .step(),
        Step::Wait
    );
}

#[test]
fn s3_l_who_leads_leads_who_does_not_follows_and_without_a_leader_all_race() {
    let outcome = |world: World| world.decide().outcome;
    let led = "no action. I am (pg1), the leader with the lock";
    assert_eq!(outcome(World::of("pg1")), led);
    let followed = outcome(World::of("pg2"));
    assert!(
        followed.contains("a secondary, and following"),
        "{followed}"
    );
    let raced = outcome(World::unlocked("pg2").silence());
    assert_eq!(raced, "acquired session lock as a leader");
}
