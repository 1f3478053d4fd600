//! `fencing.mode: required` holds for as long as a member leads.

use primacy_ha::{DemotionMode, FenceState, Job, Step, StopReason};
use primacy_model::Role;

use crate::world::{World, held, leader};

fn winner(fence: FenceState) -> World {
    World::of("pg2").with(|w| {
        w.cluster.leader = Some(leader("pg2"));
        w.lease = held();
        w.local.fence_required = true;
        w.memory.fence = fence;
    })
}

#[test]
fn a_member_that_needs_its_fence_is_promoted_when_that_holds_the_deadline() {
    assert_eq!(
        winner(FenceState::Armed).step(),
        Step::StartJob(Job::Promote)
    );
    assert!(matches!(
        winner(FenceState::Disarmed).because("fencing.mode"),
        Step::WaitUntil(_)
    ));
    assert_eq!(
        winner(FenceState::Failed).because("fencing.mode"),
        Step::ReleaseLeader { optime: None }
    );
    let automatic = winner(FenceState::Failed).with(|w| w.local.fence_required = false);
    assert_eq!(automatic.step(), Step::StartJob(Job::Promote));
}

#[test]
fn a_primary_that_needs_its_fence_and_cannot_start_it_hands_over() {
    let primary = |fence| {
        World::of("pg1").with(|w| {
            w.local.fence_required = true;
            w.memory.fence = fence;
        })
    };
    assert!(matches!(
        primary(FenceState::Failed).because("fencing.mode"),
        Step::StartJob(Job::Stop {
            reason: StopReason::Demotion(DemotionMode::Immediate),
            ..
        })
    ));
    for fence in [FenceState::Armed, FenceState::Disarmed] {
        assert_eq!(primary(fence).step(), Step::Wait, "being started again");
    }
    let paused = primary(FenceState::Failed).with(|w| w.global.pause = true);
    assert_eq!(paused.step(), Step::Wait);
}

#[test]
fn a_server_that_may_be_promoted_yet_is_stopped_before_its_lock_goes() {
    let asked = winner(FenceState::Failed).with(|w| w.memory.role = Role::Promoted);
    let silent = winner(FenceState::Failed).with(|w| w.server.wal = None);
    for world in [asked, silent] {
        let step = world.because("fencing.mode");
        assert!(
            matches!(
                step,
                Step::StartJob(Job::Stop {
                    reason: StopReason::Demotion(DemotionMode::Immediate),
                    ..
                })
            ),
            "{step:?}"
        );
    }
}

#[test]
fn a_member_that_needs_its_fence_and_cannot_start_it_does_not_race() {
    let world = World::unlocked("pg2").silence().with(|w| {
        w.local.fence_required = true;
        w.memory.fence = FenceState::Failed;
    });
    assert!(!matches!(
        world.because("fencing.mode"),
        Step::AcquireLeader { .. }
    ));
}
