//! `ha.md` §8.2: what makes a member compare its WAL with the leader's, and what answers that without a comparison.

use std::time::Duration;

use primacy_ha::{Action, Event, Job, JobReport, RewindState, Step, Upstream};
use primacy_model::{ControlState, FailoverRequest, Role, SyncState, Timeline, Version};

use crate::driver::Driver;
use crate::late_lock::synchronous;
use crate::world::{self, World};

const CYCLE: Duration = Duration::from_secs(11);

fn compares(action: &Action) -> bool {
    matches!(action, Action::StartJob(Job::CheckDivergence { .. }))
}

/// A replica of `pg1`, streaming, at rest.
fn replica() -> Driver {
    let mut driver = Driver::starting(World::of("pg2"));
    driver.pass_time(CYCLE, |_| false);
    assert!(
        !driver.saw(compares),
        "it streams from the leader's timeline"
    );
    driver.seen.clear();
    driver
}

fn leader_is(driver: &mut Driver, name: &'static str, timeline: u32) {
    leader_publishes(driver, name, Some(Timeline(timeline)));
}

fn leader_publishes(driver: &mut Driver, name: &'static str, timeline: Option<Timeline>) {
    driver.cluster.leader = Some(world::leader(name));
    for member in &mut driver.cluster.members {
        let leads = member.name == *name;
        member.data.role = Some(if leads { Role::Primary } else { Role::Replica });
        if leads {
            member.data.timeline = timeline;
        }
    }
}

fn receives(driver: &mut Driver, timeline: Option<u32>) {
    let wal = driver.server.wal.as_mut().expect("a server");
    match (&mut wal.receiver, timeline) {
        (receiver, None) => *receiver = None,
        (Some(receiver), Some(timeline)) => receiver.timeline = Some(Timeline(timeline)),
        (None, Some(_)) => panic!("no receiver"),
    }
}

#[test]
fn s8_2_a_new_timeline_of_the_leader_is_compared_with_once() {
    let mut driver = replica();
    leader_is(&mut driver, "pg1", 2);
    assert!(driver.pass_time(CYCLE, compares));
    driver.seen.clear();
    assert!(!driver.pass_time(2 * CYCLE, compares), "it was answered");
    leader_is(&mut driver, "pg1", 3);
    assert!(driver.pass_time(CYCLE, compares));
}

/// It may be lost before it runs again, and the replica must be able to follow it then.
#[test]
fn s8_2_a_leader_that_restarts_is_not_compared_with_anew() {
    let mut driver = replica();
    let timeline = driver.cluster.leader_member().unwrap().data.timeline;
    leader_publishes(&mut driver, "pg1", None);
    assert!(!driver.pass_time(2 * CYCLE, compares), "it restarts");
    leader_publishes(&mut driver, "pg1", timeline);
    assert!(!driver.pass_time(2 * CYCLE, compares), "it is back");
    leader_publishes(&mut driver, "pg1", None);
    driver.pass_time(CYCLE, |_| false);
    leader_is(&mut driver, "pg1", 2);
    assert!(driver.pass_time(CYCLE, compares), "it was promoted anew");

    let mut driver = replica();
    leader_publishes(&mut driver, "pg3", None);
    assert!(driver.pass_time(CYCLE, compares), "another one");
}

/// What was found fit may have received more from its old upstream before it was pointed at the leader, or may have had
/// more than the control file of a standby that was killed tells.
#[test]
fn s8_2_who_does_not_stream_from_the_leader_is_compared_again_after_a_while() {
    // By what the store says, or by what it said last: nothing is done on that, and nothing is forgotten.
    for follows in [false, true] {
        let mut driver = replica();
        driver.follows = follows;
        leader_is(&mut driver, "pg1", 2);
        assert!(driver.pass_time(CYCLE, compares), "{follows}");
        driver.seen.clear();
        assert!(driver.pass_time(4 * CYCLE, compares), "{follows}");
        driver.seen.clear();
        receives(&mut driver, Some(2));
        assert!(!driver.pass_time(10 * CYCLE, compares), "it streams");
    }
}

/// How far the WAL of a standby goes is not known before it is replayed.
#[test]
fn s8_3_a_standby_that_fits_by_its_control_file_is_started_apart_and_compared_again() {
    for state in [
        ControlState::InArchiveRecovery,
        ControlState::ShutDownInRecovery,
    ] {
        let mut driver = replica();
        driver.die();
        driver.server.control = Some(world::control(state));
        leader_is(&mut driver, "pg3", 2);
        driver.seen.clear();
        driver.pass_time(CYCLE, |_| false);
        let steps = driver.seen.iter().filter_map(|action| match action {
            Action::StartJob(Job::CheckDivergence { .. }) => Some("compares".to_owned()),
            Action::StartJob(Job::Start { upstream }) => Some(format!("starts: {upstream}")),
            Action::Perform {
                step: Step::Follow(upstream),
                ..
            } => Some(format!("follows: {upstream}")),
            _ => None,
        });
        let steps: Vec<_> = steps.collect();
        let expected = [
            "compares",
            "starts: nobody",
            "follows: nobody",
            "compares",
            "follows: pg3",
        ];
        assert_eq!(steps, expected, "{state:?}");
    }
}

/// Until then whom /sync names as a standby alone is no candidate, and in nobody's way.
#[test]
fn w1_the_wal_of_a_former_primary_is_its_own_until_it_is_known_to_fit() {
    let is_former = |driver: &Driver| driver.machine.memory().former_primary;
    let mut driver = synchronous(World::of("pg2"));
    driver.pass_time(CYCLE, |_| false);
    assert!(!is_former(&driver));
    driver.die();
    driver.server.control = Some(world::control(ControlState::InProduction));
    driver.diverged = None;
    leader_is(&mut driver, "pg3", 2);
    driver.pass_time(CYCLE, |_| false);
    assert!(is_former(&driver), "nothing could be compared");
    for (quorum, withdraws) in [(1, true), (0, false)] {
        driver.cluster.leader = None;
        driver.cluster.sync = SyncState {
            leader: Some("pg3".into()),
            standbys: vec!["pg1".into()],
            quorum,
            version: Some(Version(1)),
        };
        driver.pass_time(CYCLE, |_| false);
        let tags = driver.machine.effective_tags();
        assert_eq!(tags.nofailover(), withdraws, "quorum {quorum}");
    }
    leader_is(&mut driver, "pg3", 2);
    driver.diverged = Some(false);
    driver.pass_time(CYCLE, |_| false);
    assert!(!is_former(&driver), "it fits");

    let mut driver = Driver::leading();
    assert!(is_former(&driver));
    driver.server = replica().server;
    leader_is(&mut driver, "pg3", 2);
    receives(&mut driver, Some(2));
    driver.pass_time(CYCLE, |_| false);
    assert!(!is_former(&driver), "it streams");
}

/// A former primary, found as a standby; nobody leads, and `/sync` names the one after it.
fn superseded() -> Driver {
    let mut world = World::unlocked("pg2");
    world.server.former_primary = true;
    let mut driver = synchronous(world);
    receives(&mut driver, None);
    driver.cluster.sync = SyncState {
        leader: Some("pg3".into()),
        standbys: vec!["pg1".into()],
        quorum: 1,
        version: Some(Version(1)),
    };
    driver
}

/// The agent that saw it as a primary ended, and who led after it was lost before anything was compared.
#[test]
fn w1_an_agent_that_finds_a_former_primary_as_a_standby_knows_it() {
    let forgets = |action: &Action| *action == Action::ForgetFormerPrimary;
    let found = |change: fn(&mut Driver)| {
        let mut driver = superseded();
        change(&mut driver);
        driver
    };
    let mut driver = superseded();
    assert!(!driver.pass_time(4 * CYCLE, forgets));
    assert!(driver.machine.effective_tags().nofailover());
    assert_eq!(driver.cluster.leader, None, "it does not race");

    let mut compared = found(|driver| leader_is(driver, "pg3", 2));
    assert!(compared.pass_time(CYCLE, compares));
    assert!(compared.pass_time(CYCLE, forgets));
    assert!(!compared.machine.memory().former_primary);

    let mut streams = found(|driver| {
        leader_is(driver, "pg3", 2);
        driver.server.wal = World::of("pg2").server.wal;
        receives(driver, Some(2));
    });
    assert!(streams.pass_time(CYCLE, forgets));

    let mut primary = found(|driver| driver.server.wal = World::of("pg1").server.wal);
    assert!(primary.pass_time(CYCLE, forgets), "a copy must not have it");
    assert!(primary.machine.memory().former_primary);
}

#[test]
fn w1_an_operator_may_choose_a_member_that_withdrew_itself() {
    let published = |driver: &Driver| {
        let published = driver.seen.iter().rev().find_map(|action| match action {
            Action::PublishMember(data) => Some(data.clone()),
            _ => None,
        });
        published.expect("a member key")
    };
    let mut driver = superseded();
    driver.pass_time(4 * CYCLE, |_| false);
    let data = published(&driver);
    assert!(data.tags.nofailover() && data.may_be_chosen(), "{data:?}");
    let why = data.withdrawn.unwrap();
    assert!(why.contains("the one in /sync is pg3"), "{why}");
    let ask = |driver: &mut Driver, leader: Option<&str>, candidate: &str| {
        driver.cluster.failover = Some(FailoverRequest {
            leader: leader.map(Into::into),
            candidate: Some(candidate.into()),
            scheduled_at: None,
            version: Version(1),
        });
        driver.pass_time(CYCLE, |_| false);
        driver.cluster.leader.is_some()
    };
    assert!(!ask(&mut driver, Some("pg3"), "pg2"), "a switchover");
    assert!(ask(&mut driver, None, "pg2"));
    assert_eq!(published(&driver).withdrawn, None);
}

/// Its control file is still that of the server it was copied from.
#[test]
fn s8_3_a_copy_is_started_apart_at_once_where_nothing_tells_of_its_wal() {
    let mut driver = replica();
    driver.die();
    driver.server.control = Some(world::control(ControlState::InProduction));
    driver.server.backup_label = true;
    driver.diverged = None;
    leader_is(&mut driver, "pg3", 2);
    driver.seen.clear();
    assert!(driver.pass_time(CYCLE, compares));
    driver.pass_time(Duration::from_secs(1), |_| false);
    let nobody = Action::StartJob(Job::Start {
        upstream: Upstream::Nobody,
    });
    assert!(driver.seen.contains(&nobody));
}

#[test]
fn s8_2_another_leader_is_compared_with_unless_its_wal_streams() {
    let mut driver = replica();
    leader_is(&mut driver, "pg3", 2);
    receives(&mut driver, None);
    assert!(driver.pass_time(CYCLE, compares));

    let mut driver = replica();
    leader_is(&mut driver, "pg3", 2);
    receives(&mut driver, Some(2));
    assert!(!driver.pass_time(10 * CYCLE, compares));
}

/// What was found fit for one leader is started as a standby of another one.
#[test]
fn s8_2_a_stopped_member_is_compared_with_a_new_leader_before_it_is_started() {
    let mut driver = replica();
    leader_is(&mut driver, "pg1", 2);
    assert!(driver.pass_time(CYCLE, compares));
    assert_eq!(driver.machine.memory().rewind, RewindState::NotNeeded);
    driver.seen.clear();
    driver.die();
    leader_is(&mut driver, "pg3", 2);
    let starts = |action: &Action| matches!(action, Action::StartJob(Job::Start { .. }));
    assert!(driver.pass_time(CYCLE, starts));
    let first = |what: fn(&Action) -> bool| driver.seen.iter().position(what);
    let (compared, started) = (first(compares), first(starts));
    assert!(
        compared.is_some() && compared < started,
        "{compared:?} {started:?}"
    );
}

#[test]
fn s8_2_a_comparison_says_nothing_about_a_leader_that_came_meanwhile() {
    let mut driver = replica();
    receives(&mut driver, None);
    leader_is(&mut driver, "pg1", 2);
    let mut queue = Vec::new();
    while !queue.iter().any(compares) {
        driver.now = driver.machine.wake_at().expect("something is due");
        queue = driver.step(Event::Tick);
        while let Some(at) = queue.iter().position(|action| !compares(action)) {
            let action = queue.remove(at);
            if let Some(event) = driver.answer(&action) {
                queue.extend(driver.step(event));
            }
        }
    }
    leader_is(&mut driver, "pg3", 2);
    driver.pass_time(CYCLE, |_| false);
    driver.seen.clear();
    let actions = driver.step(Event::JobDone(JobReport::Compared(Some(false))));
    driver.finish(actions);
    assert!(driver.saw(compares), "not with pg3");
}

#[test]
fn s8_2_a_leader_that_is_no_primary_yet_is_not_compared_with() {
    let mut driver = replica();
    leader_is(&mut driver, "pg3", 2);
    driver.cluster.members[2].data.role = Some(Role::Replica);
    receives(&mut driver, None);
    assert!(!driver.pass_time(3 * CYCLE, compares));
}

#[test]
fn s8_2_the_end_of_a_leadership_leads_to_a_comparison() {
    let mut driver = Driver::leading();
    leader_is(&mut driver, "pg2", 2);
    driver.cluster.config.as_mut().expect("one").version = Version(7);
    assert!(driver.pass_time(2 * CYCLE, compares));
    let stopped = driver
        .seen
        .iter()
        .position(|action| matches!(action, Action::StartJob(Job::Stop { .. })));
    let compared = driver.seen.iter().position(compares);
    assert!(stopped.is_some() && stopped < compared);
}

#[test]
fn s8_2_who_cannot_repair_anything_compares_nothing() {
    let mut world = World::of("pg2");
    world.local.use_pg_rewind = false;
    let mut driver = Driver::starting(world);
    driver.rest();
    leader_is(&mut driver, "pg1", 2);
    receives(&mut driver, None);
    assert!(!driver.pass_time(3 * CYCLE, compares));
    assert_eq!(driver.machine.memory().rewind, RewindState::Initial);
}

/// The leader was lost before anybody could compare with it.
#[test]
fn s10_2_2_who_went_on_where_the_cluster_left_its_timeline_is_no_candidate() {
    let history = |switch: u64| {
        let mut driver = replica();
        let text = format!(r#"[[1,{switch},"r","t","pg3"]]"#);
        driver.cluster.history = primacy_model::History::from_json(&text);
        driver.cluster.leader = None;
        receives(&mut driver, None);
        let wal = driver.server.wal.as_mut().expect("a server");
        wal.replay_timeline = Some(Timeline(1));
        driver.pass_time(CYCLE, |_| false);
        driver.machine.effective_tags().nofailover()
    };
    let here = crate::world::POSITION.0;
    assert!(history(here - 1));
    assert!(!history(here));
}

/// The agent that found it ended, and so did the leader: nobody can compare anew.
#[test]
fn s8_4_what_an_earlier_agent_found_holds_until_more_is_known() {
    let forgets = |action: &Action| *action == Action::ForgetDivergence;
    let diverged = |leads: bool| {
        let mut world = World::unlocked("pg2");
        world.server.diverged = true;
        let mut driver = Driver::starting(world);
        receives(&mut driver, None);
        if leads {
            leader_is(&mut driver, "pg1", 2);
        }
        driver
    };
    let mut driver = diverged(false);
    assert!(!driver.pass_time(4 * CYCLE, forgets));
    assert!(driver.machine.effective_tags().nofailover());
    assert_eq!(driver.cluster.leader, None, "it does not race");

    let mut compared = diverged(true);
    assert!(compared.pass_time(CYCLE, compares));
    assert!(compared.pass_time(CYCLE, forgets));
    assert!(!compared.machine.effective_tags().nofailover());

    let mut streams = diverged(true);
    streams.server.wal = World::of("pg2").server.wal;
    receives(&mut streams, Some(2));
    assert!(streams.pass_time(CYCLE, forgets));
    assert!(!streams.machine.effective_tags().nofailover());

    let mut promoted = diverged(true);
    leader_is(&mut promoted, "pg2", 2);
    promoted.server.wal = Some(world::primary_wal());
    assert!(promoted.pass_time(CYCLE, forgets), "by hand, in a pause");
}
