//! `ha.md` §11: an operator wants the leadership to move.

use jiff::{SignedDuration, Timestamp};
use primacy_ha::{DemotionMode, Job, Step, StopMode, StopReason};
use primacy_model::{Lsn, ScheduledAt, Version};

use crate::world::{POSITION, World};

const HERE: u64 = POSITION.0;

fn hands_over(step: &Step) -> bool {
    matches!(
        step,
        Step::StartJob(Job::Stop {
            mode: StopMode::Fast,
            checkpoint: true,
            reason: StopReason::Demotion(DemotionMode::Graceful),
            ..
        })
    )
}

const CLEARED: Step = Step::ClearFailover(Version(9));

#[test]
fn s11_3_2_the_leader_hands_over_when_somebody_can_take_over() {
    let asked = || World::of("pg1").failover(Some("pg1"), Some("pg2"));
    assert!(matches!(asked().step(), Step::AskPeers(_)));
    assert!(hands_over(&asked().peers(&[("pg2", Some(HERE))]).step()));
    assert_eq!(asked().silence().because("ha.md §11.3.2"), CLEARED);
}

#[test]
fn s11_3_2_requests_that_make_no_sense_are_cleared() {
    let others = World::of("pg1").failover(Some("pg3"), Some("pg2"));
    assert_eq!(others.because("ha.md §11.3.2"), CLEARED);
    let already = World::of("pg1").failover(None, Some("pg1"));
    assert_eq!(already.because("ha.md §11.3.2"), CLEARED);
    let paused = World::of("pg1")
        .failover(Some("pg1"), None)
        .with(|w| w.global.pause = true);
    assert_eq!(paused.because("ha.md §11.3.2"), CLEARED);
}

#[test]
fn s11_4_a_lagging_candidate_is_none() {
    let lagging = World::of("pg1").failover(Some("pg1"), None).peers(&[
        ("pg2", Some(HERE - 2_097_152)),
        ("pg3", Some(HERE - 1_048_577)),
    ]);
    assert_eq!(lagging.because("ha.md §11.4"), CLEARED);
    let one = World::of("pg1")
        .failover(Some("pg1"), None)
        .peers(&[("pg2", Some(HERE - 2_097_152)), ("pg3", Some(HERE))]);
    assert!(hands_over(&one.step()));
}

#[test]
fn s11_4_in_synchronous_mode_only_synchronous_standbys_count_but_a_manual_failover_may_go_elsewhere()
 {
    let answers = [("pg2", Some(HERE)), ("pg3", Some(HERE))];
    let switchover = World::of("pg1")
        .sync("pg1", &["pg2"])
        .failover(Some("pg1"), Some("pg3"))
        .peers(&answers);
    assert_eq!(switchover.step(), CLEARED);
    let by_hand = World::of("pg1")
        .sync("pg1", &["pg2"])
        .failover(None, Some("pg3"))
        .peers(&answers);
    assert!(hands_over(&by_hand.step()));
}

#[test]
fn s11_3_1_schedules() {
    let at = |seconds: i64| {
        World::of("pg1")
            .failover(Some("pg1"), Some("pg2"))
            .peers(&[("pg2", Some(HERE))])
            .with(|w| {
                let timestamp = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
                let request = w.cluster.failover.as_mut().expect("a request");
                request.scheduled_at = Some(ScheduledAt::At {
                    timestamp,
                    text: timestamp.to_string(),
                });
            })
    };
    assert_eq!(at(60).step(), Step::Wait);
    assert!(hands_over(&at(-14).step()));
    assert_eq!(at(-16).step(), CLEARED);
    let paused = at(-1).with(|w| w.global.pause = true);
    assert_eq!(paused.step(), Step::Wait);
    let unusable = World::of("pg1")
        .failover(Some("pg1"), Some("pg2"))
        .with(|w| {
            let request = w.cluster.failover.as_mut().expect("a request");
            request.scheduled_at = Some(ScheduledAt::Unusable("tomorrow".into()));
        });
    assert_eq!(unusable.step(), CLEARED);
}

#[test]
fn s12_2_2_the_key_is_released_as_soon_as_a_candidate_has_the_shutdown_checkpoint() {
    let stopping = |reached: u64| {
        let job = Job::Stop {
            mode: StopMode::Fast,
            checkpoint: true,
            timeout: None,
            reason: StopReason::Demotion(DemotionMode::Graceful),
        };
        World::of("pg1")
            .failover(Some("pg1"), Some("pg2"))
            .job(job)
            .peers(&[("pg2", Some(reached))])
            .with(|w| w.job.as_mut().expect("a job").shutdown_lsn = Some(Lsn(HERE + 8)))
    };
    let released = Step::ReleaseLeader {
        optime: Some(Lsn(HERE + 8)),
    };
    assert_eq!(stopping(HERE + 8).because("ha.md §12.2.2"), released);
    assert_eq!(stopping(HERE).step(), Step::Wait);
}
