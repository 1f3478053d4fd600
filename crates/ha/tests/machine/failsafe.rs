//! `ha.md` §15: failsafe mode, from the side of the leader and of those that it asks.

use std::time::Duration;

use primacy_ha::{
    Action, Event, FailsafeAnswer, FailsafeLeader, FailsafeReply, FenceOrder, Job, Lease, Moment,
    RenewalResult, Step, StepOutcome,
};
use primacy_model::{Lsn, Role, Timeline, Version};
use serde_json::json;

use crate::driver::{Driver, TTL, kills};
use crate::world::{self, World};

const SECOND: Duration = Duration::from_secs(1);

fn failsafe(mut world: World) -> World {
    let config = world.cluster.config.as_mut().expect("a configuration");
    config.value.insert("failsafe_mode".into(), json!(true));
    for member in &world.cluster.members {
        let url = member.data.api_url.clone().expect("an address");
        world.cluster.failsafe.insert(member.name.clone(), url);
    }
    world.cluster.has_failsafe = true;
    world
}

/// `pg1` leads, all members are in `/failsafe`.
fn leading() -> Driver {
    let mut driver = Driver::starting(failsafe(World::of("pg1")));
    driver.rest();
    assert!(driver.machine.lease().is_held(driver.now));
    driver.seen.clear();
    driver
}

/// `pg2` follows `pg1`.
fn following() -> Driver {
    let mut driver = Driver::starting(failsafe(World::of("pg2")));
    driver.rest();
    driver.seen.clear();
    driver
}

fn until(driver: &Driver) -> Moment {
    match driver.machine.lease() {
        Lease::Held { until, .. } => until,
        Lease::None => panic!("no lease"),
    }
}

fn asks(action: &Action) -> bool {
    matches!(action, Action::AskFailsafe { .. })
}

fn demotes(action: &Action) -> bool {
    kills(action) || matches!(action, Action::StartJob(Job::Stop { .. }))
}

fn asking(name: &str) -> FailsafeLeader {
    FailsafeLeader {
        name: name.into(),
        conn_url: format!("postgres://{name}:5432/postgres"),
        api_url: format!("http://{name}:8008/patroni"),
        slots: None,
        ttl: None,
    }
}

fn post(driver: &mut Driver, leader: FailsafeLeader) -> FailsafeAnswer {
    let actions = driver.step(Event::FailsafeAsked { id: 7, leader });
    let answer = actions.iter().find_map(|action| match action {
        Action::AnswerFailsafe { id: 7, answer } => Some(answer.clone()),
        _ => None,
    });
    driver.finish(actions);
    answer.expect("an answer")
}

#[test]
fn s15_a_leader_that_all_members_accept_stays_however_long_the_store_is_away() {
    let mut driver = leading();
    driver.reachable = false;
    assert!(!driver.pass_time(10 * TTL, demotes));
    assert!(driver.machine.lease().is_held(driver.now));
    assert!(driver.machine.failsafe_until().is_some());
    let told = driver.seen.iter().find_map(|action| match action {
        Action::AskFailsafe {
            members, leader, ..
        } => Some((members.clone(), leader.clone())),
        _ => None,
    });
    let (members, leader) = told.expect("a question");
    assert_eq!(
        members.keys().map(|name| name.as_str()).collect::<Vec<_>>(),
        ["pg2", "pg3"]
    );
    assert_eq!(leader.name, *"pg1");
    assert_eq!(leader.ttl, Some(TTL));
    let slots = leader.slots.expect("positions");
    assert_eq!(slots.get("pg1"), Some(&world::POSITION));
    assert_eq!(
        driver.machine.memory().failsafe.positions.get("pg2"),
        Some(&Lsn(5))
    );
}

#[test]
fn s15_the_right_is_counted_from_before_the_question_and_renewed_once_a_cycle() {
    let mut driver = leading();
    driver.reachable = false;
    driver.pass_time(TTL, asks);
    let sent = |driver: &Driver| {
        let mut sent = driver.seen.iter().filter_map(|action| match action {
            Action::AskFailsafe { sent, .. } => Some(*sent),
            _ => None,
        });
        sent.next_back().expect("a question")
    };
    let first = sent(&driver);
    assert_eq!(until(&driver), first + TTL);
    assert!(driver.saw(
        |action| matches!(action, Action::SetFence(FenceOrder::Until(deadline)) if *deadline == first + TTL)
    ));
    driver.seen.clear();
    driver.pass_time(TTL, asks);
    assert_eq!(sent(&driver), first + Duration::from_secs(10));
    assert_eq!(until(&driver), sent(&driver) + TTL);
}

#[test]
fn s15_one_member_that_does_not_accept_is_enough_to_demote_in_good_order() {
    for reply in [
        FailsafeReply::Silent("connection refused".into()),
        FailsafeReply::Refused("500 Running as a leader".into()),
        FailsafeReply::Refused("502".into()),
    ] {
        let mut driver = leading();
        driver.replies.insert("pg3".into(), reply.clone());
        driver.reachable = false;
        assert!(driver.pass_time(TTL, demotes), "{reply:?}");
        assert!(driver.saw(asks));
        assert!(!driver.saw(kills), "{reply:?}: the lease still holds");
    }
}

#[test]
fn s15_a_member_that_dies_later_ends_it_as_well() {
    let mut driver = leading();
    driver.reachable = false;
    assert!(!driver.pass_time(3 * TTL, demotes));
    driver
        .replies
        .insert("pg3".into(), FailsafeReply::Silent("no route".into()));
    assert!(driver.pass_time(TTL, demotes));
}

#[test]
fn s15_without_answers_the_server_is_killed_before_the_right_ends() {
    let mut driver = leading();
    driver.reachable = false;
    driver.pass_time(TTL, asks);
    let end = until(&driver);
    // From now on nobody answers anything.
    while driver.now < end && !driver.saw(kills) {
        driver.now = driver
            .machine
            .wake_at()
            .expect("something is due")
            .max(driver.now + SECOND / 20);
        driver.step(Event::Tick);
    }
    assert!(driver.saw(kills));
    assert!(driver.now < end, "too late");
}

/// Its answer is for the next pass. Of two reads under way, nobody could tell which one was answered, and a view from before
/// a pass would count as what it saw.
#[test]
fn s15_a_leadership_ends_while_the_store_is_read_and_it_is_not_read_twice() {
    let mut driver = leading();
    driver.reachable = false;
    driver.pass_time(TTL, asks);
    let mut queue = Vec::new();
    let (mut read, mut question) = (None, None);
    while read.is_none() || question.is_none() {
        match queue.pop() {
            Some(action @ Action::ReadCluster { .. }) => read = driver.answer(&action),
            Some(Action::AskFailsafe { sent, .. }) => question = Some(sent),
            Some(action) => {
                let event = driver.answer(&action);
                queue.extend(event.into_iter().flat_map(|event| driver.step(event)));
            }
            None => {
                driver.now = driver.machine.wake_at().expect("something is due");
                queue = driver.step(Event::Tick);
            }
        }
    }
    let reads = |action: &Action| matches!(action, Action::ReadCluster { .. });
    let looks = |action: &Action| matches!(action, Action::Observe { .. });

    let actions = driver.step(Event::FailsafeAnswered {
        sent: question.expect("a question"),
        answers: [("pg3".into(), FailsafeReply::Silent("no route".into()))].into(),
    });
    assert!(actions.iter().any(demotes), "{actions:?}");

    let actions = driver.step(Event::PostmasterChanged);
    assert!(
        actions.iter().any(looks) && !actions.iter().any(reads),
        "{actions:?}"
    );

    let look = actions.iter().find(|action| looks(action)).expect("a look");
    let look = driver.answer(look).expect("an answer");
    driver.step(look);
    let outcome = driver.machine.outcome().to_owned();
    driver.step(read.expect("an answer"));
    assert_ne!(driver.machine.outcome(), outcome, "that was the next pass");
}

#[test]
fn s15_a_late_acceptance_does_not_bring_a_leadership_back() {
    let mut driver = leading();
    driver.reachable = false;
    driver.pass_time(TTL, asks);
    let sent = driver.now;
    driver.now = driver.now + 2 * TTL;
    let answers = ["pg2", "pg3"].map(|name| (name.into(), FailsafeReply::Accepted(None)));
    let actions = driver.step(Event::FailsafeAnswered {
        sent,
        answers: answers.into(),
    });
    assert!(actions.iter().any(kills));
    assert_eq!(driver.machine.lease(), Lease::None);
}

#[test]
fn s15_who_was_not_seen_in_the_map_asks_nobody() {
    for known in [false, true] {
        let mut world = failsafe(World::of("pg1"));
        world.cluster.failsafe.clear();
        if known {
            world.cluster.failsafe.insert("pg2".into(), "u".into());
        }
        // Nobody knows whether the write of the map arrives: it binds nobody until it was seen.
        let mut driver = Driver::starting(world);
        let map = driver.cluster.failsafe.clone();
        driver.rest();
        driver.cluster.failsafe = map;
        driver.seen.clear();
        driver.reachable = false;
        assert!(driver.pass_time(TTL, demotes), "known {known}");
        assert!(!driver.saw(asks), "known {known}");
    }
}

#[test]
fn s15_failsafe_mode_off_asks_nobody() {
    let mut driver = Driver::leading();
    driver.reachable = false;
    assert!(driver.pass_time(TTL, demotes));
    assert!(!driver.saw(asks));
}

#[test]
fn s15_a_leader_whose_key_lapsed_meanwhile_takes_it_again_without_a_break() {
    let mut driver = leading();
    driver.reachable = false;
    driver.pass_time(3 * TTL, |_| false);
    driver.seen.clear();
    // The store is back; it has forgotten the lease.
    driver.cluster.leader = None;
    driver.reachable = true;
    let mut renewals = 0;
    for _ in 0..2_000 {
        driver.now = driver
            .machine
            .wake_at()
            .expect("something is due")
            .max(driver.now + SECOND / 100);
        let mut queue = driver.step(Event::Tick);
        while !queue.is_empty() {
            let action = queue.remove(0);
            let event = match &action {
                Action::Renew { sent, .. } => {
                    renewals += 1;
                    let result = if renewals == 1 {
                        RenewalResult::Lapsed
                    } else {
                        driver.cluster.leader = Some(world::leader("pg1"));
                        RenewalResult::Renewed
                    };
                    Some(Event::Renewed {
                        sent: *sent,
                        result,
                    })
                }
                action => driver.answer(action),
            };
            if let Some(event) = event {
                queue.extend(driver.step(event));
            }
            assert!(driver.machine.lease().is_held(driver.now), "{action:?}");
        }
        if renewals > 3 {
            break;
        }
    }
    assert!(renewals > 3);
    assert!(!driver.saw(demotes));
    assert_eq!(driver.machine.memory().failsafe.verdict, None);
    let races = |action: &Action| {
        matches!(
            action,
            Action::Perform {
                step: Step::AcquireLeader { .. },
                ..
            }
        )
    };
    assert!(!driver.saw(races), "the heartbeat takes it");
    let adopts = |action: &Action| matches!(action, Action::Renew { adopting: true, .. });
    assert!(!driver.saw(adopts), "which may create the key");
}

#[test]
fn s15_a_key_that_somebody_else_holds_ends_it_at_once() {
    let mut driver = leading();
    driver.reachable = false;
    driver.pass_time(2 * TTL, |_| false);
    driver.seen.clear();
    for _ in 0..100 {
        driver.now = driver
            .machine
            .wake_at()
            .expect("something is due")
            .max(driver.now + SECOND / 100);
        let mut queue = driver.step(Event::Tick);
        while !queue.is_empty() {
            let action = queue.remove(0);
            let event = match &action {
                Action::Renew { sent, .. } => Some(Event::Renewed {
                    sent: *sent,
                    result: RenewalResult::Lapsed,
                }),
                action => driver.answer(action),
            };
            if let Some(event) = event {
                queue.extend(driver.step(event));
            }
        }
        if driver.saw(kills) {
            assert_eq!(driver.machine.lease(), Lease::None);
            return;
        }
    }
    panic!("no kill");
}

#[test]
fn s15_who_promised_neither_races_nor_stops_following_until_ttl_after_the_last_question() {
    let mut driver = following();
    driver.reachable = false;
    driver.now = driver.now + SECOND;
    assert!(matches!(
        post(&mut driver, asking("pg1")),
        FailsafeAnswer::Accepted(Some(position)) if position == world::POSITION
    ));
    let promised = driver.now + TTL;
    assert_eq!(driver.machine.failsafe_until(), Some(promised));
    // The store is back and the leader key gone.
    driver.reachable = true;
    driver.cluster.leader = None;
    driver
        .cluster
        .members
        .retain(|member| member.name != *"pg1");
    let acts = |action: &Action| matches!(action, Action::Perform { .. } | Action::StartJob(_));
    assert!(!driver.pass_time(promised.since(driver.now) - SECOND / 100, acts));
    assert!(
        driver
            .machine
            .outcome()
            .contains("following a leader (pg1)"),
        "{}",
        driver.machine.outcome()
    );
    assert!(driver.pass_time(2 * SECOND, acts), "it races afterwards");
}

#[test]
fn s15_a_promise_holds_for_the_longer_of_both_times_to_live() {
    let mut driver = following();
    let leader = FailsafeLeader {
        ttl: Some(2 * TTL),
        ..asking("pg1")
    };
    post(&mut driver, leader);
    assert_eq!(driver.machine.failsafe_until(), Some(driver.now + 2 * TTL));
    let leader = FailsafeLeader {
        ttl: Some(SECOND),
        ..asking("pg1")
    };
    post(&mut driver, leader);
    assert_eq!(driver.machine.failsafe_until(), Some(driver.now + TTL));
}

#[test]
fn s15_receiver_refusals() {
    let mut off = Driver::starting(World::of("pg2"));
    off.rest();
    assert_eq!(post(&mut off, asking("pg1")), FailsafeAnswer::Off);
    let mut leader = leading();
    assert_eq!(
        post(&mut leader, asking("pg2")),
        FailsafeAnswer::RunningAsLeader
    );
    let mut myself = following();
    assert_eq!(
        post(&mut myself, asking("pg2")),
        FailsafeAnswer::RunningAsLeader
    );
}

#[test]
fn w9_who_knows_another_leader_or_a_newer_timeline_refuses() {
    // The store says that somebody else leads.
    let mut driver = following();
    assert_eq!(
        post(&mut driver, asking("pg3")),
        FailsafeAnswer::OtherLeader("pg1".into())
    );
    // The store is away; a promise was given to another one.
    driver.reachable = false;
    driver.pass_time(Duration::from_secs(21), |_| false);
    assert!(matches!(
        post(&mut driver, asking("pg1")),
        FailsafeAnswer::Accepted(_)
    ));
    assert_eq!(
        post(&mut driver, asking("pg3")),
        FailsafeAnswer::OtherLeader("pg1".into())
    );
    // pg1 leads on timeline 2 and I follow it there; pg3 was last seen on timeline 1.
    let mut world = failsafe(World::of("pg2"));
    let receiver = world.wal().receiver.as_mut().expect("a receiver");
    receiver.timeline = Some(Timeline(2));
    world.cluster.members[0].data.timeline = Some(Timeline(2));
    let mut driver = Driver::starting(world);
    driver.rest();
    driver.reachable = false;
    driver.pass_time(Duration::from_secs(21), |_| false);
    assert_eq!(
        post(&mut driver, asking("pg3")),
        FailsafeAnswer::OtherLeader("pg1".into())
    );
    assert!(matches!(
        post(&mut driver, asking("pg1")),
        FailsafeAnswer::Accepted(_)
    ));
}

#[test]
fn s15_who_is_about_to_take_the_lock_or_does_not_know_refuses() {
    let mut world = failsafe(World::unlocked("pg2"));
    world.cluster.members.retain(|member| member.name != *"pg1");
    world.cluster.failsafe.remove("pg1");
    world.cluster.failsafe.remove("pg3");
    let mut driver = Driver::starting(world);
    let mut queue = driver.step(Event::Tick);
    while !queue.is_empty() {
        let action = queue.remove(0);
        let event = match &action {
            Action::Perform {
                step: Step::AcquireLeader { .. },
                ..
            } => {
                assert_eq!(
                    post(&mut driver, asking("pg1")),
                    FailsafeAnswer::RunningAsLeader
                );
                driver.reachable = false;
                Some(Event::StepDone(StepOutcome::Failed("lost".into())))
            }
            other => driver.answer(other),
        };
        if let Some(event) = event {
            queue.extend(driver.step(event));
        }
    }
    assert_eq!(
        post(&mut driver, asking("pg1")),
        FailsafeAnswer::RunningAsLeader,
        "its write may have arrived"
    );
    // Now it is known that it did not.
    driver.reachable = true;
    driver.cluster.leader = Some(world::leader("pg1"));
    driver.pass_time(2 * SECOND, |_| false);
    assert!(matches!(
        post(&mut driver, asking("pg1")),
        FailsafeAnswer::Accepted(_)
    ));
    // It arrives after all.
    driver.cluster.leader = Some(world::leader("pg2"));
    driver.seen.clear();
    let releases = |action: &Action| {
        matches!(
            action,
            Action::Perform {
                step: Step::ReleaseLeader { optime: None },
                ..
            }
        )
    };
    assert!(driver.pass_time(TTL / 2, releases));
    assert!(!driver.saw(|action| matches!(action, Action::StartJob(Job::Promote))));
}

#[test]
fn s15_an_agent_that_began_a_moment_ago_may_have_promised_before() {
    // Nobody answers: the leader of before may be alive.
    let mut driver = Driver::starting(failsafe(World::unlocked("pg2")));
    let promotes = |action: &Action| matches!(action, Action::StartJob(Job::Promote));
    assert!(!driver.pass_time(TTL - SECOND, promotes));
    assert!(driver.pass_time(3 * SECOND, promotes));
    assert_eq!(driver.machine.memory().role, Role::Primary);
}

#[test]
fn s15_who_left_the_cluster_is_not_asked() {
    let mut driver = leading();
    for name in ["pg4", "pg5"] {
        driver.cluster.members.push(world::member(name));
        driver.pass_time(Duration::from_secs(11), |_| false);
        driver.cluster.members.pop();
        driver.pass_time(Duration::from_secs(22), |_| false);
    }
    driver.reachable = false;
    driver.pass_time(TTL, asks);
    let asked = driver.seen.iter().find_map(|action| match action {
        Action::AskFailsafe { members, .. } => Some(members.len()),
        _ => None,
    });
    assert_eq!(asked, Some(2));
}

#[test]
fn s15_the_map_that_may_not_have_arrived_counts_as_well_as_the_one_before() {
    let mut driver = leading();
    // A fourth member joins; the write of the map with it gets lost, or does not.
    driver.cluster.members.push(world::member("pg4"));
    driver.cluster.config.as_mut().expect("one").version = Version(50);
    let map = driver.cluster.failsafe.clone();
    driver.pass_time(Duration::from_secs(11), |action| {
        matches!(action, Action::WriteFailsafe(_))
    });
    driver.cluster.failsafe = map;
    driver.reachable = false;
    driver.pass_time(TTL, asks);
    let asked = driver.seen.iter().find_map(|action| match action {
        Action::AskFailsafe { members, .. } => Some(members.contains_key("pg4")),
        _ => None,
    });
    assert_eq!(asked, Some(true));
}

#[test]
fn s15_a_leader_that_knows_that_the_mode_is_off_empties_the_map() {
    let mut driver = leading();
    let map = driver.cluster.failsafe.clone();
    switch(&mut driver, false);
    let empties = |action: &Action| matches!(action, Action::WriteFailsafe(map) if map.is_empty());
    assert!(driver.pass_time(TTL, empties));

    // It may not have arrived yet when the mode is on again, and arrive when the leader has lost the store.
    driver.cluster.failsafe = map;
    switch(&mut driver, true);
    driver.pass_time(11 * SECOND, |_| false);
    assert!(driver.machine.global().failsafe_mode);
    driver.seen.clear();
    driver.reachable = false;
    assert!(driver.pass_time(TTL, demotes));
    assert!(!driver.saw(asks));
}

#[test]
fn s15_a_mode_that_is_on_again_is_relied_on_once_the_map_was_seen() {
    let mut driver = leading();
    switch(&mut driver, false);
    driver.pass_time(TTL, |_| false);
    assert!(driver.cluster.failsafe.is_empty());
    let told = driver.machine.failsafe_map();
    assert!(
        told.is_some_and(|map| map.is_empty()),
        "the key stays: {told:?}"
    );
    switch(&mut driver, true);
    driver.pass_time(TTL, |_| false);
    assert_eq!(driver.cluster.failsafe.len(), 3);
    driver.seen.clear();
    driver.reachable = false;
    driver.pass_time(2 * TTL, |_| false);
    assert!(driver.saw(asks));
    assert!(!driver.saw(demotes));
}

#[test]
fn s15_who_sees_the_mode_switched_off_remembers_since_when() {
    let mut driver = following();
    let off_since = |driver: &Driver| driver.machine.memory().failsafe.off_since;
    assert_eq!(off_since(&driver), None);
    let switched = driver.now;
    switch(&mut driver, false);
    driver.pass_time(2 * TTL, |_| false);
    let seen = off_since(&driver).expect("it was seen");
    assert!(seen.since(switched) < TTL, "{seen:?}");
    switch(&mut driver, true);
    driver.pass_time(TTL, |_| false);
    assert_eq!(off_since(&driver), None);
}

fn switch(driver: &mut Driver, mode: bool) {
    let config = driver.cluster.config.as_mut().expect("a configuration");
    config.value.insert("failsafe_mode".into(), json!(mode));
    config.version = Version(config.version.0 + 1);
}
