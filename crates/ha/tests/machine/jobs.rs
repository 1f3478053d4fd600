//! What the end of a job does to the pass that is under way.

use std::time::Duration;

use primacy_ha::{Action, Event, Job, JobProgress, JobReport, Step};
use primacy_model::{
    Cluster, ControlState, DataDirectory, Initialize, Observation, Process, Readiness, Role, State,
};

use crate::driver::{Driver, TTL};
use crate::world::{self, World};

/// Answers these actions and all that follow from them, but not the job that begins: it is under way then.
fn begin_job(driver: &mut Driver, mut queue: Vec<Action>, begins: impl Fn(&Job) -> bool) {
    while !queue.is_empty() {
        let action = queue.remove(0);
        if matches!(&action, Action::StartJob(job) if begins(job)) {
            continue;
        }
        if let Some(event) = driver.answer(&action) {
            queue.extend(driver.step(event));
        }
    }
    let job = driver.machine.job().map(|job| &job.job);
    assert!(job.is_some_and(begins), "{job:?}");
}

/// The job ends with the server as it is afterwards, while a pass waits for the store and for a look at the server that
/// was begun before.
fn end_during_a_pass(driver: &mut Driver, afterwards: Observation) -> Vec<Action> {
    driver.seen.clear();
    driver.now = driver.machine.wake_at().expect("something is due");
    let mut asked = driver.step(Event::Tick);
    asked.retain(|action| matches!(action, Action::ReadCluster { .. } | Action::Observe { .. }));
    assert_eq!(asked.len(), 2, "a pass has begun");
    let answers: Vec<Event> = asked.iter().filter_map(|it| driver.answer(it)).collect();
    driver.server = afterwards;
    driver.step(Event::JobDone(JobReport::Started {
        ready: true,
        pending_restart: None,
    }));
    answers.into_iter().flat_map(|it| driver.step(it)).collect()
}

fn looks(action: &Action) -> bool {
    matches!(action, Action::Observe { .. })
}

/// A member that makes the cluster, and the server that will be there.
fn bootstrapping() -> (Driver, Observation) {
    bootstrapping_by(false)
}

fn bootstrapping_by(custom: bool) -> (Driver, Observation) {
    let mut world = World::of("pg1").stopped(ControlState::ShutDown);
    let there = World::of("pg1").server;
    world.server.data_directory = DataDirectory::Empty;
    world.server.system_identifier = None;
    world.server.control = None;
    world.cluster = Cluster::default();
    world.local.custom_bootstrap = custom;
    let mut driver = Driver::starting(world);
    let actions = driver.step(Event::Tick);
    begin_job(&mut driver, actions, |job| *job == Job::Bootstrap);
    driver.cluster.initialize = Initialize::Running;
    (driver, there)
}

#[test]
fn s6_1_how_far_a_bootstrap_came_is_told() {
    use State::*;
    for (custom, runs, fails, starts) in [
        (false, InitializingNewCluster, InitdbFailed, Starting),
        (
            true,
            RunningCustomBootstrap,
            CustomBootstrapFailed,
            StartingAfterCustomBootstrap,
        ),
    ] {
        let state = |driver: &Driver| driver.machine.memory().state;
        let failed = || Event::JobDone(JobReport::Failed("exit code 1".into()));
        let (mut driver, _) = bootstrapping_by(custom);
        assert_eq!(state(&driver), runs);
        driver.step(failed());
        assert_eq!(state(&driver), fails);

        let (mut driver, _) = bootstrapping_by(custom);
        driver.step(Event::JobProgress(JobProgress::Spawned(world::POSTMASTER)));
        assert_eq!(state(&driver), starts);
        driver.step(failed());
        assert_eq!(state(&driver), StartFailed);
    }
}

/// It may have to recover for long, and tells nothing meanwhile.
#[test]
fn s6_1_a_server_that_recovers_after_a_custom_bootstrap_is_called_so_until_it_answers() {
    let (mut driver, there) = bootstrapping_by(true);
    driver.server = Observation {
        wal: None,
        readiness: Readiness::Rejecting,
        ..there.clone()
    };
    let actions = driver.step(Event::JobProgress(JobProgress::Spawned(world::POSTMASTER)));
    driver.finish(actions);
    let actions = driver.step(Event::JobDone(JobReport::Started {
        ready: false,
        pending_restart: None,
    }));
    driver.finish(actions);
    let state = driver.machine.memory().state;
    assert_eq!(state, State::StartingAfterCustomBootstrap);

    driver.server = there;
    driver.now = driver.machine.wake_at().expect("something is due");
    let actions = driver.step(Event::Tick);
    begin_job(&mut driver, actions, |job| *job == Job::PostBootstrap);
    assert_eq!(driver.machine.memory().state, State::Running);
}

/// Taken for what it is, the earlier look would say that the new cluster did not come up.
#[test]
fn s6_2_a_new_cluster_is_not_judged_by_a_look_from_before_it_was_there() {
    let (mut driver, there) = bootstrapping();

    let actions = end_during_a_pass(&mut driver, there);
    assert!(actions.iter().any(looks), "{actions:?}");
    assert_eq!(driver.machine.server().0.process, Process::Absent);
    begin_job(&mut driver, actions, |job| *job == Job::PostBootstrap);
}

/// The store went away, and the server was demoted: another member may have made the cluster meanwhile.
#[test]
fn s6_2_a_new_cluster_whose_server_was_demoted_is_given_up() {
    assert_eq!(demoted_in_bootstrap(None), Step::CancelBootstrap);
}

/// Unless the cluster is the one that was made here: the answer to that write was lost.
#[test]
fn w11_a_new_cluster_that_is_published_is_led_although_its_server_was_demoted() {
    let leads = demoted_in_bootstrap(Some(Initialize::Done(world::system())));
    assert_eq!(leads, Step::AcquireLeader { failover: None });
}

/// What is done when the store is back, and says that of the cluster.
fn demoted_in_bootstrap(initialize: Option<Initialize>) -> Step {
    let (mut driver, there) = bootstrapping();

    driver.reachable = false;
    let actions = end_during_a_pass(&mut driver, there);
    driver.finish(actions);
    let stops = |action: &Action| matches!(action, Action::StartJob(Job::Stop { .. }));
    assert!(driver.saw(stops) || driver.pass_time(TTL, stops));
    driver.pass_time(TTL, |_| false);
    driver.reachable = true;
    driver.cluster.initialize = initialize.unwrap_or(Initialize::Running);
    let mut queue = Vec::new();
    for _ in 0..100 {
        let Some(action) = queue.pop() else {
            driver.now = driver.machine.wake_at().expect("something is due");
            queue = driver.step(Event::Tick);
            continue;
        };
        if let Action::Perform { step, .. } = &action
            && matches!(step, Step::CancelBootstrap | Step::AcquireLeader { .. })
        {
            return step.clone();
        }
        let event = driver.answer(&action);
        queue.extend(event.into_iter().flat_map(|event| driver.step(event)));
    }
    panic!("neither given up nor led: {}", driver.machine.outcome());
}

#[test]
fn a_standby_that_was_started_is_not_taken_for_crashed_by_a_look_from_before() {
    let world = World::of("pg2").stopped(ControlState::ShutDownInRecovery);
    let mut driver = Driver::starting(world);
    let actions = driver.step(Event::Tick);
    begin_job(&mut driver, actions, |job| matches!(job, Job::Start { .. }));

    let actions = end_during_a_pass(&mut driver, World::of("pg2").server);
    assert_eq!(driver.machine.memory().state, State::Running);
    driver.finish(actions);
    assert_eq!(driver.machine.memory().role, Role::Replica);
    assert!(!driver.saw(|action| matches!(action, Action::StartJob(_))));
    assert_eq!(
        driver.machine.server().0.process,
        Process::Running(world::POSTMASTER)
    );
}

/// Somebody had asked for that look, and no pass waited for it.
#[test]
fn a_standby_that_was_started_is_not_taken_for_crashed_by_the_look_of_somebody_else() {
    let world = World::of("pg2").stopped(ControlState::ShutDownInRecovery);
    let mut driver = Driver::starting(world);
    let actions = driver.step(Event::Tick);
    begin_job(&mut driver, actions, |job| matches!(job, Job::Start { .. }));
    driver.seen.clear();
    let before = Event::Observed {
        sent: driver.now,
        observation: driver.server.clone(),
    };

    driver.now = driver.now + Duration::from_secs(1);
    driver.server = World::of("pg2").server;
    let actions = driver.step(Event::JobDone(JobReport::Started {
        ready: true,
        pending_restart: None,
    }));
    driver.step(before);
    driver.finish(actions);
    assert!(!driver.saw(|action| matches!(action, Action::StartJob(Job::Start { .. }))));
    let process = Process::Running(world::POSTMASTER);
    assert_eq!(driver.machine.server().0.process, process);
}
