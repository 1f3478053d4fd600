//! `ha.md` §20, §11.3.1: restarts, and what is to happen at a chosen time.

use std::time::Duration;

use jiff::Timestamp;
use primacy_ha::{Action, Answer, CallbackEvent, Event, Job, JobReport, OperatorRequest, StoreKey};
use primacy_model::{FailoverRequest, Lsn, PendingRestart, ScheduledAt, ScheduledRestart, Version};
use serde_json::{Map, Value, json};

use crate::driver::Driver;
use crate::world::World;

const RESTARTS: fn(&Action) -> bool =
    |action| matches!(action, Action::StartJob(Job::Restart { .. }));

/// At rest, with a server that says when it was started.
fn leading() -> Driver {
    let mut world = World::of("pg1");
    world.wal().postmaster_start_time_text = "2026-11-21 02:00:00+00".into();
    let mut driver = Driver::starting(world);
    driver.rest();
    driver.seen.clear();
    driver
}

fn ask(driver: &mut Driver, request: OperatorRequest) {
    let actions = driver.step(Event::Operator(request));
    driver.finish(actions);
    driver.rest();
}

fn answer(driver: &Driver) -> Option<Answer> {
    driver.seen.iter().rev().find_map(|action| match action {
        Action::Reply { answer, .. } => Some(answer.clone()),
        _ => None,
    })
}

fn schedule(driver: &mut Driver, seconds: u64, filters: Value) -> Option<Answer> {
    let at: Timestamp = driver.wall() + Duration::from_secs(seconds);
    let Value::Object(filters) = filters else {
        panic!("{filters}")
    };
    let restart = ScheduledRestart {
        schedule: at.to_string(),
        postmaster_start_time: None,
        filters,
    };
    ask(driver, OperatorRequest::ScheduleRestart { id: 7, restart });
    answer(driver)
}

fn set_pause(driver: &mut Driver, pause: bool) {
    let config = driver.cluster.config.as_mut().expect("a configuration");
    config.value.insert("pause".into(), pause.into());
    config.version = Version(config.version.0 + 1);
    let actions = driver.step(Event::StoreChanged(StoreKey::Config));
    driver.finish(actions);
    driver.rest();
}

fn told(driver: &Driver, text: &str) -> bool {
    driver.saw(|action| matches!(action, Action::Journal(entry) if entry.outcome.contains(text)))
}

/// What the member key says of the schedule.
fn published(driver: &Driver) -> Option<ScheduledRestart> {
    let data = driver.seen.iter().rev().find_map(|action| match action {
        Action::PublishMember(data) => Some(data),
        _ => None,
    });
    data.and_then(|data| data.scheduled_restart.clone())
}

#[test]
fn s20_a_restart_has_conditions() {
    let request = |role: Option<&str>, below, pending| OperatorRequest::Restart {
        id: 1,
        role: role.map(str::to_owned),
        below_version: below,
        pending,
        timeout: None,
    };
    for (request, expected) in [
        (request(Some("replica"), None, false), Answer::NotMet),
        (request(None, Some(150_018), false), Answer::NotMet),
        (request(None, None, true), Answer::NotMet),
        (request(Some("primary"), Some(150_019), false), Answer::Done),
        (request(None, None, false), Answer::Done),
    ] {
        let mut driver = leading();
        ask(&mut driver, request.clone());
        assert_eq!(answer(&driver).as_ref(), Some(&expected), "{request:?}");
        assert_eq!(driver.saw(RESTARTS), expected == Answer::Done);
    }
    let mut pending = leading();
    pending.step(Event::PendingRestart(Some(PendingRestart::default())));
    ask(&mut pending, request(None, None, true));
    assert_eq!(answer(&pending), Some(Answer::Done));
    assert!(pending.machine.memory().pending_restart.is_none());
}

#[test]
fn s20_a_restart_while_something_else_is_done_is_refused() {
    let mut driver = leading();
    let restart = |id| OperatorRequest::Restart {
        id,
        role: None,
        below_version: None,
        pending: false,
        timeout: None,
    };
    driver.step(Event::Operator(restart(1)));
    driver.step(Event::Operator(restart(2)));
    assert_eq!(answer(&driver), Some(Answer::Busy("restart".into())));
}

#[test]
fn s20_w22_a_scheduled_restart_wakes_the_loop_and_is_executed_once() {
    let mut driver = leading();
    assert_eq!(schedule(&mut driver, 3603, json!({})), Some(Answer::Done));
    let restart = published(&driver).expect("published");
    assert_eq!(
        restart.postmaster_start_time.as_deref(),
        Some("2026-11-21 02:00:00+00")
    );
    assert_eq!(schedule(&mut driver, 60, json!({})), Some(Answer::NotMet));
    let due = driver.now + Duration::from_secs(3603);
    assert!(driver.pass_time(Duration::from_secs(3608), RESTARTS));
    assert!(driver.now >= due && driver.now.since(due) < Duration::from_millis(50));
    driver.seen.clear();
    assert!(!driver.pass_time(Duration::from_secs(60), RESTARTS));
    assert_eq!(published(&driver), None);
}

#[test]
fn s11_3_1_w22_a_scheduled_switchover_wakes_the_loop() {
    let mut driver = leading();
    let timestamp = driver.wall() + Duration::from_secs(3603);
    driver.cluster.failover = Some(FailoverRequest {
        leader: Some("pg1".into()),
        candidate: Some("pg2".into()),
        scheduled_at: Some(ScheduledAt::At {
            timestamp,
            text: timestamp.to_string(),
        }),
        version: Version(9),
    });
    let due = driver.now + Duration::from_secs(3603);
    let asks = |action: &Action| matches!(action, Action::AskPeers { .. });
    assert!(driver.pass_time(Duration::from_secs(3608), asks));
    assert!(driver.now >= due && driver.now.since(due) < Duration::from_millis(50));
}

#[test]
fn s20_a_server_that_was_restarted_meanwhile_is_not_restarted_again() {
    let mut driver = leading();
    schedule(&mut driver, 60, json!({}));
    let wal = driver.server.wal.as_mut().expect("a server");
    wal.postmaster_start_time_text = "2026-11-21 03:00:00+00".into();
    assert!(!driver.pass_time(Duration::from_secs(100), RESTARTS));
    assert!(told(&driver, "PostgreSQL was restarted meanwhile"));
    assert!(driver.machine.memory().scheduled_restart.is_none());
}

#[test]
fn s20_a_schedule_waits_in_pause_and_becomes_stale() {
    for (paused_for, executed) in [(70, true), (100, false)] {
        let mut driver = leading();
        schedule(&mut driver, 60, json!({}));
        set_pause(&mut driver, true);
        assert!(!driver.pass_time(Duration::from_secs(paused_for), RESTARTS));
        set_pause(&mut driver, false);
        driver.pass_time(Duration::from_secs(5), |_| false);
        assert_eq!(driver.saw(RESTARTS), executed, "{paused_for}");
        assert_eq!(
            told(&driver, "its time passed 40 s ago, more than 15 s"),
            !executed
        );
        assert!(driver.machine.memory().scheduled_restart.is_none());
    }
}

#[test]
fn s20_a_schedule_waits_while_nobody_leads() {
    let mut driver = Driver::starting(World::of("pg2"));
    driver.rest();
    driver.cluster.members.retain(|member| member.name == "pg2");
    schedule(&mut driver, 60, json!({}));
    driver.cluster.leader = None;
    driver.cluster.status.optime = primacy_model::Lsn(u64::MAX);
    assert!(!driver.pass_time(Duration::from_secs(70), RESTARTS));
    driver.cluster.leader = Some(crate::world::leader("pg1"));
    assert!(driver.pass_time(Duration::from_secs(5), RESTARTS));
}

#[test]
fn s20_the_conditions_of_a_schedule_are_looked_at_when_it_is_due() {
    for (filters, executed) in [
        (json!({"role": "replica"}), false),
        (json!({"postgres_version": "15.18"}), false),
        (json!({"restart_pending": true}), false),
        (
            json!({"role": "primary", "postgres_version": "15.19"}),
            true,
        ),
    ] {
        let mut driver = leading();
        assert_eq!(
            schedule(&mut driver, 60, filters.clone()),
            Some(Answer::Done)
        );
        driver.pass_time(Duration::from_secs(70), |_| false);
        assert_eq!(driver.saw(RESTARTS), executed, "{filters}");
        assert_eq!(
            told(&driver, "do not hold: role primary, version 150018"),
            !executed
        );
        assert!(driver.machine.memory().scheduled_restart.is_none());
    }
}

#[test]
fn s20_nothing_is_scheduled_for_a_server_that_does_not_answer() {
    let mut driver = leading();
    driver.server.wal = None;
    driver.pass_time(Duration::from_secs(11), |_| false);
    let refused = schedule(&mut driver, 60, json!({}));
    assert_eq!(
        refused,
        Some(Answer::Refused("PostgreSQL does not answer".into()))
    );
}

#[test]
fn s20_a_schedule_is_forgotten_on_request() {
    let mut driver = leading();
    let forget = || OperatorRequest::DeleteScheduledRestart { id: 3 };
    ask(&mut driver, forget());
    assert_eq!(answer(&driver), Some(Answer::NotMet));
    schedule(&mut driver, 60, Value::Object(Map::new()));
    ask(&mut driver, forget());
    assert_eq!(answer(&driver), Some(Answer::Done));
    assert!(!driver.pass_time(Duration::from_secs(100), RESTARTS));
}

/// §3.2: the callback of a restart comes when the server accepts connections, also when that is later than the
/// restart's own patience.
#[test]
fn s3_2_the_callback_of_a_slow_start_is_called_when_it_is_ready() {
    let mut driver = leading();
    let calls = |action: &Action| matches!(action, Action::Callback(CallbackEvent::OnRestart, _));
    let mut queue = driver.step(Event::Operator(OperatorRequest::Restart {
        id: 1,
        role: None,
        below_version: None,
        pending: false,
        timeout: Some(Duration::from_secs(5)),
    }));
    let wal = driver.server.wal.clone();
    while let Some(action) = (!queue.is_empty()).then(|| queue.remove(0)) {
        let event = if RESTARTS(&action) {
            driver.server.wal = None;
            driver.server.readiness = primacy_model::Readiness::Rejecting;
            let report = JobReport::Started {
                ready: false,
                pending_restart: None,
            };
            Some(Event::JobDone(report))
        } else {
            driver.answer(&action)
        };
        if let Some(event) = event {
            queue.extend(driver.step(event));
        }
    }
    assert_eq!(answer(&driver), Some(Answer::TimedOut));
    assert_eq!(
        driver.machine.memory().start_timeout,
        Some(Duration::from_secs(5))
    );
    assert!(!driver.saw(calls));
    driver.server.wal = wal;
    assert!(driver.pass_time(Duration::from_secs(11), calls));
    assert_eq!(driver.machine.memory().start_timeout, None);
}

/// W21: nobody waits for the next pass of the rhythm when the postmaster dies.
#[test]
fn w21_a_dead_postmaster_is_looked_at_at_once() {
    let mut driver = leading();
    driver.die();
    let actions = driver.step(Event::PostmasterChanged);
    let looks = |action: &Action| matches!(action, Action::Observe { .. });
    assert!(actions.iter().any(looks), "{actions:?}");
}

/// W8: the shutdown of the agent renews the lock until PostgreSQL has stopped, however long that takes.
#[test]
fn w8_the_lock_is_renewed_while_the_server_of_a_leader_that_ends_is_stopped() {
    let mut driver = leading();
    let mut queue = driver.step(Event::Terminate);
    let mut stopping = false;
    while let Some(action) = (!queue.is_empty()).then(|| queue.remove(0)) {
        // The stop takes its time.
        if matches!(action, Action::StartJob(Job::Stop { .. })) {
            stopping = true;
        } else if let Some(event) = driver.answer(&action) {
            queue.extend(driver.step(event));
        }
    }
    assert!(stopping);
    for _ in 0..6 {
        driver.seen.clear();
        driver.pass_time(Duration::from_secs(10), |_| false);
        assert!(driver.saw(|action| matches!(action, Action::Renew { .. })));
        assert!(driver.machine.lease().is_held(driver.now));
        assert!(!driver.saw(|action| matches!(action, Action::Exit(_))));
    }
    let actions = driver.step(Event::JobDone(JobReport::Stopped { shutdown_lsn: None }));
    driver.die();
    driver.seen.clear();
    driver.finish(actions);
    driver.rest();
    assert!(driver.saw(|action| matches!(action, Action::Exit(_))));
}

/// A view that is said to hold, or that the watch made, is enough to find that there is nothing to do. What is done is
/// decided on one that was read for it, and so is what somebody woke the loop for.
#[test]
fn nothing_is_done_on_a_view_that_was_not_read() {
    let mut driver = Driver::leading();
    let content = |action: &Action| {
        matches!(
            action,
            Action::ReadCluster {
                followed_within: Some(_),
                ..
            }
        )
    };
    let reads = |action: &Action| {
        matches!(
            action,
            Action::ReadCluster {
                followed_within: None,
                ..
            }
        )
    };
    driver.follows = true;
    driver.pass_time(Duration::from_secs(60), |_| false);
    assert!(driver.saw(content) && !driver.saw(reads));
    let published = |action: &Action| matches!(action, Action::PublishMember(_));
    assert!(driver.saw(published), "the pass comes to its end");

    let position = Some(Lsn(0x700_0000));
    driver.cluster.members[1].data.xlog_location = position;
    driver.pass_time(Duration::from_secs(20), |_| false);
    let (view, read) = driver.machine.view().unwrap();
    assert_eq!(view.members[1].data.xlog_location, position);
    assert!(!driver.saw(reads) && driver.now.since(read) < Duration::from_secs(11));

    // The primary is gone: what is done about it needs to know who leads now.
    driver.seen.clear();
    driver.die();
    driver.pass_time(Duration::from_secs(20), |action| {
        matches!(action, Action::StartJob(_) | Action::Perform { .. })
    });
    assert!(driver.saw(reads));
    let before = driver.seen.iter().position(reads);
    let begun = |action: &Action| matches!(action, Action::StartJob(_) | Action::Perform { .. });
    assert!(before < driver.seen.iter().position(begun));

    let mut driver = Driver::leading();
    driver.follows = true;
    ask(&mut driver, OperatorRequest::WakeUp);
    assert!(driver.saw(reads) && !driver.saw(content));
}
