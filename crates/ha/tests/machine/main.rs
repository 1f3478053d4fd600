//! The machine's own duties: the lease by the clock, the fence, one thing after the other.

mod driver;
mod failsafe;
mod jobs;
mod journal;
mod late_lock;
mod pause;
mod schedule;
mod slots;
mod triggers;
mod watchdog;
mod weaknesses;
#[path = "../decide/world.rs"]
#[allow(dead_code)]
mod world;

use std::time::Duration;

use primacy_ha::{
    Action, Answer, CallbackEvent, Event, FenceOrder, Job, JobProgress, JobReport, Lease,
    OperatorRequest, RenewalResult, Step, StepOutcome,
};
use primacy_model::{ControlState, DataDirectory, Lsn, Process, Readiness, Role};

use driver::{Driver, TTL, kills};
use world::World;

#[test]
fn the_lease_is_renewed_by_the_clock_and_counted_from_before_the_request() {
    let mut driver = Driver::leading();
    let sent = driver.now + Duration::from_secs(10);
    driver.now = sent;
    let actions = driver.step(Event::Tick);
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Renew { sent: at, .. } if *at == sent))
    );
    driver.now = sent + Duration::from_secs(3);
    driver.step(Event::Renewed {
        sent,
        result: RenewalResult::Renewed,
    });
    assert_eq!(
        driver.machine.lease(),
        Lease::Held {
            until: sent + TTL,
            failing_since: None
        }
    );
}

#[test]
fn the_lease_is_renewed_although_a_pass_waits_for_the_store() {
    let mut driver = Driver::leading();
    driver.now = driver.now + Duration::from_secs(10);
    let actions = driver.step(Event::Tick);
    let sent = actions.iter().find_map(|action| match action {
        Action::Renew { sent, .. } => Some(*sent),
        _ => None,
    });
    driver.step(Event::Renewed {
        sent: sent.expect("a renewal"),
        result: RenewalResult::Renewed,
    });
    // Nobody answers ReadCluster and Observe.
    driver.now = driver.now + Duration::from_secs(10);
    let actions = driver.step(Event::Tick);
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Renew { .. })),
        "{actions:?}"
    );
}

#[test]
fn postgresql_is_killed_before_the_lease_ends_whatever_a_pass_waits_for() {
    let mut driver = Driver::leading();
    let Lease::Held { until, .. } = driver.machine.lease() else {
        panic!("no lease")
    };
    // Neither the store nor the server answers any more.
    while driver.now < until {
        driver.now = driver
            .machine
            .wake_at()
            .expect("something is due")
            .max(driver.now + Duration::from_millis(50));
        let actions = driver.step(Event::Tick);
        for action in actions {
            if let Action::Renew { sent, .. } = action {
                driver.step(Event::Renewed {
                    sent,
                    result: RenewalResult::Failed("lost".into()),
                });
            }
        }
        if driver.saw(kills) {
            assert!(driver.now < until, "too late");
            assert_eq!(driver.machine.lease(), Lease::None);
            return;
        }
    }
    panic!("the lease ended without a kill");
}

#[test]
fn a_frozen_agent_kills_first_and_does_not_believe_a_late_answer() {
    let mut driver = Driver::leading();
    driver.now = driver.now + Duration::from_secs(10);
    let sent = driver.now;
    driver.step(Event::Tick);
    driver.now = driver.now + 2 * TTL;
    let actions = driver.step(Event::Renewed {
        sent,
        result: RenewalResult::Renewed,
    });
    assert!(actions.iter().any(kills), "{actions:?}");
    assert_eq!(driver.machine.lease(), Lease::None);
}

#[test]
fn a_refused_renewal_kills_at_once() {
    let mut driver = Driver::leading();
    driver.now = driver.now + Duration::from_secs(10);
    let sent = driver.now;
    driver.step(Event::Tick);
    let actions = driver.step(Event::Renewed {
        sent,
        result: RenewalResult::Lapsed,
    });
    assert!(actions.iter().any(kills));
}

#[test]
fn a_store_that_stays_away_demotes_in_good_order_before_anything_is_killed() {
    let mut driver = Driver::leading();
    driver.reachable = false;
    let stops = |action: &Action| matches!(action, Action::StartJob(Job::Stop { .. }));
    assert!(driver.pass_time(TTL, stops), "no demotion");
    assert!(!driver.saw(kills));
    driver.rest();
    assert_eq!(
        driver.machine.memory().role,
        Role::Replica,
        "started read-only"
    );
}

#[test]
fn w7_the_fence_follows_every_renewal_and_is_kept_while_the_server_may_accept_writes() {
    let mut driver = Driver::starting(World::of("pg1"));
    driver.rest();
    let armed = |action: &Action| matches!(action, Action::SetFence(FenceOrder::Until(_)));
    assert!(driver.saw(armed));
    driver.seen.clear();
    driver.pass_time(Duration::from_secs(11), |_| false);
    assert!(driver.saw(armed), "moved with the renewal");
    driver.seen.clear();
    // The lock is lost while the server lives on as a primary.
    driver.cluster.leader = Some(world::leader("pg2"));
    driver.now = driver.now + Duration::from_secs(10);
    let sent = driver.now;
    let mut actions = driver.step(Event::Tick);
    actions.retain(|action| !matches!(action, Action::Renew { .. }));
    driver.step(Event::Renewed {
        sent,
        result: RenewalResult::Lapsed,
    });
    assert!(!driver.saw(|action| matches!(action, Action::SetFence(FenceOrder::Disarm))));
    driver.die();
    driver.finish(actions);
    driver.pass_time(Duration::from_secs(11), |_| false);
    assert!(driver.saw(|action| matches!(action, Action::SetFence(FenceOrder::Disarm))));
}

#[test]
fn a_returning_agent_adopts_server_and_lease_without_touching_the_server() {
    let mut driver = Driver::starting(World::of("pg1"));
    driver.rest();
    assert!(driver.machine.lease().is_held(driver.now));
    assert!(!driver.saw(|action| matches!(action, Action::StartJob(_) | Action::KillNow)));
}

/// Nobody else would stop it, should this agent be frozen before it has the lease, and an agent before this one may have
/// told the fence less: it ran on through a pause, for example.
#[test]
fn a_primary_that_is_found_without_a_lease_is_under_the_fence_before_the_lease_is_asked_for() {
    let mut driver = Driver::starting(World::of("pg1"));
    let mut queue = driver.step(Event::Tick);
    while !queue.is_empty() {
        let action = queue.remove(0);
        if matches!(action, Action::Renew { .. }) {
            break;
        }
        if let Some(event) = driver.answer(&action) {
            queue.extend(driver.step(event));
        }
    }
    assert_eq!(driver.machine.lease(), Lease::None, "not answered yet");
    let limit = driver.now + TTL;
    let limited = |action: &Action| matches!(action, Action::SetFence(FenceOrder::AtMost(deadline)) if *deadline <= limit);
    assert!(driver.saw(limited));
    // Told once: nothing puts it off but the lease.
    driver.seen.clear();
    driver.step(Event::Tick);
    assert!(!driver.saw(|action| matches!(action, Action::SetFence(_))));
}

/// An agent that led before may have sent one, and of its own it may not have heard.
#[test]
fn s13_what_became_of_writes_of_sync_is_in_doubt_until_one_was_answered() {
    let mut world = World::of("pg1").sync("pg1", &["pg2"]);
    world
        .cluster
        .config
        .as_mut()
        .expect("a configuration")
        .value = [("synchronous_mode".to_owned(), true.into())]
        .into_iter()
        .collect();
    let published = world.cluster.sync.clone();
    let mut driver = Driver::starting(world);
    let is_write = |action: &Action| {
        matches!(
            action,
            Action::Perform {
                step: Step::WriteSync(_),
                ..
            }
        )
    };
    let mut queue = Vec::new();
    let mut unanswered = true;
    while unanswered || driver.machine.memory().sync.doubtful {
        let Some(action) = queue.pop() else {
            driver.now = driver.now + Duration::from_secs(1);
            queue = driver.step(Event::Tick);
            continue;
        };
        let event = if is_write(&action) && std::mem::take(&mut unanswered) {
            Some(Event::StepDone(StepOutcome::Failed("no answer".into())))
        } else {
            driver.answer(&action)
        };
        if let Some(event) = event {
            queue.extend(driver.step(event));
        }
    }
    let writes: Vec<_> = driver
        .seen
        .iter()
        .filter_map(|action| match action {
            Action::Perform {
                step: Step::WriteSync(sync),
                ..
            } => Some(sync.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(writes, [published.clone(), published], "nothing new, twice");
}

/// What a server that is no primary shows ends no doubt: `/sync` would name again, once it is promoted, whom its commits do
/// not wait for.
#[test]
fn s13_a_write_of_sync_in_doubt_is_settled_before_a_demoted_leader_is_promoted_again() {
    let mut world = World::of("pg1").sync("pg1", &[]);
    let config = world.cluster.config.as_mut().expect("a configuration");
    config.value.insert("synchronous_mode".into(), true.into());
    world.server.wal = Some(world::replica_wal());
    let published = world.cluster.sync.clone();
    let mut driver = Driver::starting(world);
    driver.rest();
    let steps = driver.seen.iter().filter_map(|action| match action {
        Action::Perform {
            step: Step::WriteSync(sync),
            ..
        } => Some(Some(sync)),
        Action::StartJob(Job::Promote) => Some(None),
        _ => None,
    });
    let steps: Vec<_> = steps.take(2).collect();
    assert_eq!(steps, [Some(&published), None], "written, then promoted");
}

/// On a machine that is short of everything, the server does not answer and its files are not read in time.
#[test]
fn s3_j_a_server_that_runs_is_whose_it_was() {
    let mut driver = Driver::leading();
    driver.server.wal = None;
    driver.server.control = None;
    driver.server.system_identifier = None;
    driver.pass_time(TTL / 3, |_| false);
    let outcome = driver.machine.outcome();
    assert!(outcome.contains("PostgreSQL does not answer"), "{outcome}");
}

/// It led before its agent was restarted, and hangs: unknown is not no.
#[test]
fn a_server_that_says_nothing_and_is_no_standby_by_its_files_is_stopped_where_another_leads() {
    let stopped = |standby: bool| {
        let mut world = World::of("pg1");
        world.cluster.leader = Some(world::leader("pg2"));
        world.server.wal = None;
        world.server.readiness = Readiness::NoAnswer;
        world.server.recovery_signal = standby;
        let mut driver = Driver::starting(world);
        let stops = |action: &Action| matches!(action, Action::StartJob(Job::Stop { .. }));
        let stopped = driver.pass_time(TTL, stops);
        let limited = |action: &Action| matches!(action, Action::SetFence(FenceOrder::AtMost(_)));
        assert_eq!(driver.saw(limited), stopped);
        stopped
    };
    assert!(stopped(false));
    assert!(!stopped(true));
}

#[test]
fn the_first_server_of_a_cluster_is_under_no_fence_before_it_holds_the_lock() {
    let mut world = World::of("pg1");
    world.server.unfinished_bootstrap = true;
    let mut driver = Driver::starting(world);
    let queue = driver.step(Event::Tick);
    for action in queue {
        if let Some(event) = driver.answer(&action) {
            driver.step(event);
        }
    }
    assert!(!driver.saw(|action| matches!(action, Action::SetFence(_))));
}

#[test]
fn a_free_lock_is_taken_and_the_winner_promoted() {
    let mut world = World::unlocked("pg2");
    world.cluster.members.retain(|member| member.name != "pg1");
    let mut driver = Driver::starting(world);
    driver.rest();
    driver.pass_time(Duration::from_secs(2), |_| false);
    assert!(driver.saw(|action| matches!(action, Action::StartJob(Job::Promote))));
    assert_eq!(driver.machine.memory().role, Role::Primary);
}

#[test]
fn an_acquisition_whose_answer_is_lost_is_looked_up_not_assumed() {
    let mut driver = Driver::starting(World::unlocked("pg2"));
    let mut queue = driver.step(Event::Tick);
    while !queue.is_empty() {
        let action = queue.remove(0);
        let event = match &action {
            Action::Perform {
                step: Step::AcquireLeader { .. },
                ..
            } => {
                // It was carried out, and nobody heard.
                driver.cluster.leader = Some(world::leader("pg2"));
                Some(Event::StepDone(StepOutcome::Failed(
                    "the answer was lost".into(),
                )))
            }
            other => driver.answer(other),
        };
        if let Some(event) = event {
            queue.extend(driver.step(event));
        }
    }
    assert_eq!(
        driver.machine.lease(),
        Lease::None,
        "an unknown outcome is no success"
    );
    driver.seen.clear();
    driver.pass_time(Duration::from_secs(3), |_| false);
    let steps = driver.seen.iter().filter_map(|action| match action {
        Action::Perform { step, .. } => Some(step),
        _ => None,
    });
    let steps: Vec<&Step> = steps.take(2).collect();
    assert!(
        matches!(
            steps[..],
            [Step::ReleaseLeader { .. }, Step::AcquireLeader { .. }]
        ),
        "others may have led meanwhile: raced for again, {steps:?}"
    );
    assert!(driver.machine.lease().is_held(driver.now));
}

#[test]
fn terminating_a_leader_stops_the_server_before_the_lock_goes() {
    let mut driver = Driver::leading();
    let actions = driver.step(Event::Terminate);
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, Action::Exit(_)))
    );
    driver.finish(actions);
    driver.pass_time(Duration::from_secs(5), |action| {
        matches!(action, Action::Exit(_))
    });
    let position = |what: &dyn Fn(&Action) -> bool| driver.seen.iter().position(what);
    let stop = position(&|action| matches!(action, Action::StartJob(Job::Stop { .. })));
    let release = position(&|action| {
        matches!(
            action,
            Action::Perform {
                step: Step::ReleaseLeader {
                    optime: Some(Lsn(7))
                },
                ..
            }
        )
    });
    let exit = position(&|action| matches!(action, Action::Exit(exit) if exit.code == 0));
    assert!(
        stop.is_some() && stop < release && release < exit,
        "{stop:?} {release:?} {exit:?}"
    );
}

/// `ha.md` W26: those who follow the demoted cluster must know how far its WAL goes.
#[test]
fn w26_a_demoted_cluster_tells_where_its_wal_ended_and_its_leader_keeps_the_lock() {
    let mut driver = Driver::leading();
    let config = driver.cluster.config.as_mut().expect("a configuration");
    config.version = primacy_model::Version(2);
    config.value.insert(
        "standby_cluster".into(),
        serde_json::json!({"host": "10.0.0.1"}),
    );
    let actions = driver.step(Event::StoreChanged(primacy_ha::StoreKey::Config));
    driver.finish(actions);
    driver.pass_time(Duration::from_secs(20), |_| false);
    let told =
        |action: &Action| matches!(action, Action::WriteStatus(status) if status.optime == Lsn(7));
    assert!(driver.saw(told), "{:#?}", driver.seen);
    assert!(!driver.saw(|action| matches!(
        action,
        Action::Perform {
            step: Step::ReleaseLeader { .. },
            ..
        }
    )));
    assert_eq!(driver.machine.memory().role, Role::StandbyLeader);
    let called: Vec<_> = driver
        .seen
        .iter()
        .filter_map(|action| match action {
            Action::Callback(event, role) => Some((*event, *role)),
            _ => None,
        })
        .collect();
    assert_eq!(
        called,
        [
            (CallbackEvent::OnStop, Role::Primary),
            (CallbackEvent::OnRoleChange, Role::StandbyLeader)
        ]
    );
}

#[test]
fn s3_c_a_member_key_that_is_gone_is_published_again_at_once() {
    let mut driver = Driver::leading();
    let publishes = |action: &Action| matches!(action, Action::PublishMember(_));
    driver.cluster.members.retain(|member| member.name != "pg1");
    let actions = driver.step(Event::StoreChanged(primacy_ha::StoreKey::Member(
        "pg1".into(),
        None,
    )));
    driver.finish(actions);
    assert!(driver.saw(publishes));
}

fn acquires(action: &Action) -> bool {
    matches!(
        action,
        Action::Perform {
            step: Step::AcquireLeader { .. },
            ..
        }
    )
}

/// `design.md` I4: the members take their time to answer, and meanwhile somebody takes the lock, writes, and gives it up.
#[test]
fn a_race_that_somebody_else_won_and_left_meanwhile_is_begun_anew() {
    begins_anew(|driver| {
        for leader in [Some("pg3".to_owned()), None] {
            driver.step(Event::StoreChanged(primacy_ha::StoreKey::Leader(leader)));
        }
    });
}

/// The same, while this machine was suspended: nothing of it was heard.
#[test]
fn a_race_that_a_suspension_interrupted_is_begun_anew() {
    begins_anew(|driver| driver.now = driver.now + TTL);
}

/// The answer to a read that was asked for before the suspension: nobody has to be asked, for nobody else is known.
#[test]
fn a_race_on_a_view_from_before_a_suspension_is_begun_anew() {
    let mut driver = Driver::starting(World::unlocked("pg2"));
    driver.cluster.members.retain(|member| member.name == "pg2");
    let before = Event::ClusterRead(Ok(driver.cluster.clone()));
    let asked = driver.step(Event::Tick);
    assert!(
        asked
            .iter()
            .any(|action| matches!(action, Action::ReadCluster { .. }))
    );
    let observed = Event::Observed {
        sent: driver.now,
        observation: driver.server.clone(),
    };
    driver.step(observed);
    driver.now = driver.now + TTL;
    driver.cluster.status.optime = Lsn(u64::MAX / 2);
    let actions = driver.step(before);
    assert!(!actions.iter().any(acquires), "{actions:?}");
    driver.finish(actions);
    assert!(!driver.saw(acquires), "it lags behind what was written");
}

/// `ha.md` §5.3: an agent finds its server leading, and is frozen until another member has led and is gone. A renewal would
/// create the key that names nobody any more, without a race.
#[test]
fn s5_3_a_lease_is_not_taken_over_on_a_view_from_before_a_freeze() {
    let mut driver = Driver::starting(World::of("pg1"));
    let before = Event::ClusterRead(Ok(driver.cluster.clone()));
    let observed = Event::Observed {
        sent: driver.now,
        observation: driver.server.clone(),
    };
    driver.step(Event::Tick);
    driver.step(observed);
    driver.now = driver.now + TTL * 3;
    driver.cluster.leader = None;
    let actions = driver.step(before);
    let renews = |action: &Action| matches!(action, Action::Renew { .. });
    assert!(!actions.iter().any(renews), "{actions:?}");
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::ReadCluster { .. }))
    );
    driver.finish(actions);
    assert!(
        driver.saw(acquires),
        "with the lock free, it races for it like everybody"
    );
}

fn begins_anew(meanwhile: impl FnOnce(&mut Driver)) {
    let mut driver = Driver::starting(World::unlocked("pg2"));
    let mut queue = driver.step(Event::Tick);
    let members = loop {
        let action = queue.remove(0);
        match &action {
            Action::AskPeers { members } => break members.clone(),
            other => {
                if let Some(event) = driver.answer(other) {
                    queue.extend(driver.step(event));
                }
            }
        }
    };
    meanwhile(&mut driver);
    driver.cluster.status.optime = Lsn(u64::MAX / 2);
    let answers = members.into_keys().map(|name| (name, None)).collect();
    let actions = driver.step(Event::PeersAnswered(answers));
    assert!(!actions.iter().any(acquires), "{actions:?}");
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::ReadCluster { .. }))
    );
    driver.finish(actions);
    assert!(!driver.saw(acquires), "it lags behind what was written");
}

/// `ha.md` §24: a restart that waits until its standby is released from `/sync` is under way for whoever asked for it.
#[test]
fn s24_a_restart_that_waits_is_not_replaced_and_its_caller_hears_of_its_end() {
    let waiting = || {
        let mut driver = late_lock::synchronous(World::of("pg2").sync("pg1", &["pg2"]));
        driver.rest();
        let actions = driver.step(Event::Operator(OperatorRequest::Restart {
            id: 1,
            role: None,
            below_version: None,
            pending: false,
            timeout: None,
        }));
        driver.finish(actions);
        assert!(driver.machine.job().is_none(), "it waits");
        driver
    };
    let reinitialize = |driver: &mut Driver, force: bool| {
        driver.step(Event::Operator(OperatorRequest::Reinitialize {
            id: 2,
            force,
            from_leader: false,
        }))
    };
    let told = |driver: &Driver, told: u64| {
        driver.seen.iter().find_map(|action| match action {
            Action::Reply { id, answer } if *id == told => Some(answer.clone()),
            _ => None,
        })
    };
    let mut driver = waiting();
    let actions = reinitialize(&mut driver, false);
    assert_eq!(told(&driver, 2), Some(Answer::Busy("restart".into())));
    driver.finish(actions);
    let restarts = |action: &Action| matches!(action, Action::StartJob(Job::Restart { .. }));
    assert!(driver.pass_time(TTL, restarts), "the restart stands");
    // Who wants it by force ends what waits.
    let mut driver = waiting();
    reinitialize(&mut driver, true);
    assert_eq!(told(&driver, 1), Some(Answer::Failed));
    assert_eq!(told(&driver, 2), Some(Answer::Done));
    // The other way round.
    let again = driver.step(Event::Operator(OperatorRequest::Restart {
        id: 3,
        role: None,
        below_version: None,
        pending: false,
        timeout: None,
    }));
    assert_eq!(told(&driver, 3), Some(Answer::Busy("reinitialize".into())));
    driver.finish(again);
    // What a broken pg_rewind left is never restarted: it must not keep a new copy waiting.
    let mut driver = waiting();
    driver.server.data_directory = DataDirectory::HalfRewound("no end".into());
    let actions = driver.step(Event::PostmasterChanged);
    driver.finish(actions);
    reinitialize(&mut driver, false);
    assert_eq!(told(&driver, 1), Some(Answer::Failed));
    assert_eq!(told(&driver, 2), Some(Answer::Done));
}

/// `rest-api.md` §8.6, rows 1 and 2.
#[test]
fn who_cannot_be_reinitialized_is_told_why() {
    let answer = |member: &str, unlocked: bool| {
        let mut driver = Driver::starting(World::of(member));
        driver.rest();
        if unlocked {
            // Nobody may take the lock: this is about what is answered meanwhile.
            driver.cluster.leader = None;
            driver.peers.clear();
            let look = driver.machine.wake_at().expect("something is due");
            driver.now = look;
            let actions = driver.step(Event::Tick);
            let read = actions
                .iter()
                .find(|action| matches!(action, Action::ReadCluster { .. }));
            let event = driver.answer(read.expect("a look at the store"));
            driver.step(event.expect("an answer"));
        }
        let actions = driver.step(Event::Operator(OperatorRequest::Reinitialize {
            id: 1,
            force: false,
            from_leader: false,
        }));
        actions.into_iter().find_map(|action| match action {
            Action::Reply { id: 1, answer } => Some(answer),
            _ => None,
        })
    };
    let refused = |why: &str| Some(Answer::Refused(why.into()));
    assert_eq!(
        answer("pg2", true),
        refused("Cluster has no leader, can not reinitialize")
    );
    assert_eq!(
        answer("pg1", false),
        refused("I am the leader, can not reinitialize")
    );
    assert_eq!(answer("pg2", false), Some(Answer::Done));
}

/// `design.md` I6.
#[test]
fn a_member_is_not_reinitialized_when_there_is_nobody_left_to_copy() {
    let mut driver = Driver::starting(World::of("pg2"));
    driver.rest();
    let actions = driver.step(Event::Operator(OperatorRequest::Reinitialize {
        id: 1,
        force: false,
        from_leader: false,
    }));
    assert!(driver.machine.memory().operation.is_some());
    driver.cluster.leader = None;
    driver.finish(actions);
    driver.pass_time(Duration::from_secs(3), |_| false);
    assert_eq!(driver.machine.memory().operation, None);
    assert!(!driver.saw(|action| matches!(action, Action::StartJob(Job::CreateReplica { .. }))));
    assert_eq!(driver.machine.memory().role, Role::Primary, "it leads now");
}

/// `design.md` I1: the lease ends while the server is down, about to come back as a primary.
#[test]
fn a_primary_that_is_being_started_when_its_lease_ends_does_not_come_up() {
    let starting = || {
        let mut driver = Driver::leading();
        driver.die();
        let control = driver.server.control.as_mut().expect("a control file");
        control.state = ControlState::InProduction;
        let mut queue = driver.step(Event::PostmasterChanged);
        while !queue.is_empty() {
            let action = queue.remove(0);
            if matches!(action, Action::StartJob(Job::StartPrimary { .. })) {
                continue;
            }
            if let Some(event) = driver.answer(&action) {
                queue.extend(driver.step(event));
            }
        }
        let job = driver.machine.job().map(|job| job.job.name());
        assert_eq!(job.as_deref(), Some("starting primary after failure"));
        driver
    };
    let spawned = |driver: &mut Driver| {
        driver.server.process = primacy_model::Process::Running(world::POSTMASTER);
        driver.step(Event::JobProgress(JobProgress::Spawned(world::POSTMASTER)))
    };

    let mut driver = starting();
    assert!(
        !driver.saw(|action| matches!(action, Action::SetFence(FenceOrder::Disarm))),
        "the fence stays armed from the crash on, and is aimed as soon as there is a process"
    );
    spawned(&mut driver);
    driver.reachable = false;
    driver.pass_time(TTL, kills);
    assert!(driver.saw(|action| matches!(action, Action::CancelJob)));
    assert!(driver.saw(kills));

    let mut driver = starting();
    driver.reachable = false;
    driver.pass_time(TTL, |action| matches!(action, Action::CancelJob));
    assert_eq!(driver.machine.lease(), Lease::None);
    assert!(!driver.saw(kills), "there was nothing to kill");
    assert!(spawned(&mut driver).iter().any(kills));
    let started = driver.step(Event::JobDone(JobReport::Started {
        ready: true,
        pending_restart: None,
    }));
    assert!(started.iter().any(kills), "the cancellation came too late");
}

#[test]
fn s18_5_slots_of_an_absent_member_are_retained_for_member_slots_ttl() {
    let mut driver = Driver::leading();
    driver.cluster.members.retain(|member| member.name != "pg3");
    let retained = |driver: &mut Driver, seconds| {
        driver.seen.clear();
        driver.pass_time(Duration::from_secs(seconds), |_| false);
        let mut told = driver.seen.iter().filter_map(|action| match action {
            Action::WriteStatus(status) => Some(status.retain_slots.clone()),
            _ => None,
        });
        told.next_back().expect("a status")
    };
    assert_eq!(retained(&mut driver, 1700), ["pg1", "pg2", "pg3"]);
    assert_eq!(retained(&mut driver, 200), ["pg1", "pg2"]);
}

/// A pass that waits for an answer needs no tick: the agent would be woken again and again for nothing.
#[test]
fn nothing_is_due_while_a_pass_waits_for_an_answer() {
    let mut driver = Driver::starting(World::of("pg2"));
    let actions = driver.step(Event::Tick);
    assert!(!actions.is_empty());
    assert_eq!(driver.machine.wake_at(), None);
}

/// The promotion was asked of a postmaster that is gone since.
#[test]
fn a_promotion_that_a_restart_interrupted_is_asked_for_again() {
    let mut driver = Driver::starting(World::unlocked("pg2").silence());
    driver.promotes = false;
    let promotes = |action: &Action| matches!(action, Action::StartJob(Job::Promote));
    driver.rest();
    assert!(driver.saw(promotes), "{:?}", driver.seen);
    assert_eq!(driver.machine.memory().role, Role::Promoted);
    driver.seen.clear();
    let Process::Running(mut identity) = driver.server.process else {
        panic!("no postmaster")
    };
    identity.pid += 1;
    driver.server.process = Process::Running(identity);
    driver.now = driver.now + TTL / 3;
    driver.rest();
    assert!(driver.saw(promotes), "{:?}", driver.seen);
}

/// The receiver hangs on the leader before, whose timeline has the same number as the new one's: that says nothing.
#[test]
fn s8_2_a_stream_from_another_server_is_no_proof_that_the_wal_is_the_leaders() {
    let compares = |sender: &str| {
        let mut driver = Driver::starting(World::of("pg2"));
        let wal = driver.server.wal.as_mut().expect("a running server");
        let receiver = wal.receiver.as_mut().expect("a receiver");
        receiver.sender_host = Some(sender.into());
        receiver.sender_port = Some(5432);
        driver.rest();
        driver.saw(|action| matches!(action, Action::StartJob(Job::CheckDivergence { .. })))
    };
    let leader = World::of("pg2").cluster.members[0].data.connection();
    let leader = leader.expect("an address");
    assert_eq!(leader.port, 5432);
    assert!(!compares(&leader.host));
    assert!(compares("somewhere.else"));
}

/// In pause an operator restarts a primary that an earlier agent ran: its commits wait for whom `/sync` names.
#[test]
fn s13_a_primary_that_is_started_anew_waits_for_whom_sync_names() {
    let mut world = World::of("pg1").stopped(ControlState::ShutDown);
    let config = world.cluster.config.as_mut().expect("a configuration");
    config.version = primacy_model::Version(2);
    config.value.insert("synchronous_mode".into(), true.into());
    config.value.insert("pause".into(), true.into());
    let mut world = world.sync("pg1", &["pg2"]);
    world.cluster.leader = None;
    let mut driver = Driver::starting(world);
    driver.rest();
    let actions = driver.step(Event::Operator(OperatorRequest::Restart {
        id: 1,
        role: None,
        below_version: None,
        pending: false,
        timeout: None,
    }));
    driver.finish(actions);
    let starts = |action: &Action| {
        matches!(
            action,
            Action::StartJob(Job::Restart { upstream: None, .. })
        )
    };
    assert!(driver.saw(starts), "{:?}", driver.seen);
    let names = driver.machine.memory().sync.managed.as_deref();
    assert_eq!(names, Some("pg2"));
}

/// `design.md` I1: a primary hangs, and its agent is restarted: the new one sees a postmaster that says nothing. It takes
/// the leader key over, and loses it.
#[test]
fn a_server_that_says_nothing_is_killed_with_the_lease_unless_it_is_a_standby_that_starts() {
    let loses = |standby: bool, readiness: Readiness| {
        let mut world = World::of("pg1");
        world.server.wal = None;
        world.server.readiness = readiness;
        world.server.recovery_signal = standby;
        let mut driver = Driver::starting(world);
        driver.rest();
        assert!(driver.machine.lease().is_held(driver.now), "taken over");
        driver.reachable = false;
        let ends =
            |action: &Action| kills(action) || matches!(action, Action::StartJob(Job::Stop { .. }));
        driver.pass_time(2 * TTL, ends)
    };
    assert!(loses(false, Readiness::NoAnswer));
    assert!(loses(false, Readiness::Rejecting));
    assert!(loses(true, Readiness::NoAnswer), "it may be promoting");
    assert!(!loses(true, Readiness::Rejecting));
}

/// Another member may lead by then.
#[test]
fn s7_6_after_crash_recovery_the_view_is_read_again() {
    let mut driver = Driver::starting(World::of("pg2").stopped(ControlState::InProduction));
    let mut queue = driver.step(Event::Tick);
    let recovers = |action: &Action| matches!(action, Action::StartJob(Job::CrashRecovery));
    while !queue.iter().any(recovers) {
        let action = queue.remove(0);
        if let Some(event) = driver.answer(&action) {
            queue.extend(driver.step(event));
        }
    }
    let actions = driver.step(Event::JobDone(JobReport::Done));
    let reads = |action: &Action| {
        matches!(
            action,
            Action::ReadCluster {
                followed_within: None,
                ..
            }
        )
    };
    assert!(actions.iter().any(reads), "{actions:?}");
}
