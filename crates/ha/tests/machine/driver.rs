//! A machine, and the world that answers it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use primacy_config::{GlobalConfig, TimingLimits};
use primacy_ha::{
    Action, Event, FailsafeReply, Job, JobReport, Machine, Moment, PeerReport, RenewalResult, Step,
    StepOutcome, Upstream,
};
use primacy_model::{Cluster, Lsn, MemberName, Observation, Process};

use crate::world::{self, World};

pub(crate) const TTL: Duration = Duration::from_secs(30);

/// A machine and the answers that it gets.
pub(crate) struct Driver {
    pub(crate) machine: Machine,
    pub(crate) now: Moment,
    pub(crate) cluster: Cluster,
    pub(crate) server: Observation,
    pub(crate) reachable: bool,
    /// The watch tells what changed, when that is enough.
    pub(crate) follows: bool,
    /// What members answer a leader in failsafe mode, unless they accept it.
    pub(crate) replies: BTreeMap<MemberName, FailsafeReply>,
    /// What members tell of themselves; the others do not answer.
    pub(crate) peers: BTreeMap<MemberName, Option<PeerReport>>,
    /// A promotion that is asked for comes to its end at once.
    pub(crate) promotes: bool,
    /// What a comparison with the leader comes to.
    pub(crate) diverged: Option<bool>,
    pub(crate) seen: Vec<Action>,
}

impl Driver {
    /// The agent of that member has just started; what it will find is what `world` says.
    pub(crate) fn starting(world: World) -> Driver {
        let now = Moment(Duration::from_secs(5_000));
        let global = GlobalConfig {
            use_slots: false,
            ..GlobalConfig::default()
        };
        Driver {
            machine: Machine::new(world.local, global, TimingLimits::PATRONI, now),
            now,
            cluster: world.cluster,
            server: world.server,
            reachable: true,
            follows: false,
            replies: BTreeMap::new(),
            peers: world.peers.unwrap_or_default(),
            promotes: true,
            diverged: Some(false),
            seen: Vec::new(),
        }
    }

    /// The leader `pg1` with its lease, at rest.
    pub(crate) fn leading() -> Driver {
        let mut driver = Driver::starting(World::of("pg1"));
        driver.rest();
        assert!(driver.machine.lease().is_held(driver.now));
        driver.seen.clear();
        driver
    }

    pub(crate) fn step(&mut self, event: Event) -> Vec<Action> {
        let actions = self.machine.step(event, self.now, self.wall());
        self.seen.extend(actions.iter().cloned());
        actions
    }

    /// The wall clock, which goes with the other one.
    pub(crate) fn wall(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + self.now.0
    }

    /// Answers everything at once until nothing is asked any more.
    pub(crate) fn rest(&mut self) {
        let actions = self.step(Event::Tick);
        self.finish(actions);
    }

    /// Answers these actions and all that follow from them.
    pub(crate) fn finish(&mut self, mut queue: Vec<Action>) {
        for _ in 0..200 {
            if queue.is_empty() {
                return;
            }
            let action = queue.remove(0);
            if let Some(event) = self.answer(&action) {
                queue.extend(self.step(event));
            }
        }
        panic!(
            "does not come to rest: {:#?}",
            self.seen.iter().rev().take(10).collect::<Vec<_>>()
        );
    }

    pub(crate) fn answer(&mut self, action: &Action) -> Option<Event> {
        Some(match action {
            Action::ReadCluster {
                followed_within: Some(_),
                ..
            } if self.follows => match self.machine.view() {
                Some((view, _)) if *view == self.cluster => Event::ClusterUnchanged,
                _ => Event::ClusterFollowed(self.cluster.clone()),
            },
            Action::ReadCluster { .. } if self.reachable => {
                Event::ClusterRead(Ok(self.cluster.clone()))
            }
            Action::ReadCluster { .. } => Event::ClusterRead(Err("the store is away".into())),
            Action::Observe { sent, .. } => {
                let mut server = self.server.clone();
                if let Some(wal) = &mut server.wal {
                    wal.slots = None;
                }
                Event::Observed {
                    sent: *sent,
                    observation: server,
                }
            }
            Action::AskPeers { members } => {
                let answer = |name| self.peers.get(name).cloned().flatten();
                let answers = members.keys().map(|name| (name.clone(), answer(name)));
                Event::PeersAnswered(answers.collect())
            }
            Action::Renew { sent, .. } if self.reachable => Event::Renewed {
                sent: *sent,
                result: RenewalResult::Renewed,
            },
            Action::Renew { sent, .. } => Event::Renewed {
                sent: *sent,
                result: RenewalResult::Failed("away".into()),
            },
            Action::AskFailsafe { sent, members, .. } => Event::FailsafeAnswered {
                sent: *sent,
                answers: members
                    .keys()
                    .map(|name| {
                        let reply = self.replies.get(name).cloned();
                        let reply = reply.unwrap_or(FailsafeReply::Accepted(Some(Lsn(5))));
                        (name.clone(), reply)
                    })
                    .collect(),
            },
            Action::WriteFailsafe(map) => {
                if self.reachable {
                    self.cluster.failsafe.clone_from(map);
                    self.cluster.has_failsafe = true;
                }
                return None;
            }
            Action::Perform {
                step: Step::Checkpoint,
                ..
            } => Event::CheckpointDone(Ok(())),
            Action::Perform { step, .. } => {
                self.carry_out(step);
                Event::StepDone(StepOutcome::Done)
            }
            Action::StartJob(job) => Event::JobDone(self.run(job)),
            _ => return None,
        })
    }

    pub(crate) fn carry_out(&mut self, step: &Step) {
        match step {
            Step::AcquireLeader { .. } => self.cluster.leader = Some(world::leader(self.me())),
            Step::ReleaseLeader { .. } => self.cluster.leader = None,
            Step::ClearFailover(_) => self.cluster.failover = None,
            Step::WriteSync(sync) => self.cluster.sync = sync.clone(),
            Step::SetSynchronousStandbyNames(names) => {
                if let Some(wal) = &mut self.server.wal {
                    wal.synchronous_standby_names = names.clone().unwrap_or_default();
                }
            }
            Step::Follow(Upstream::Nobody) => {
                if let Some(wal) = &mut self.server.wal {
                    wal.receiver = None;
                }
            }
            _ => {}
        }
    }

    pub(crate) fn me(&self) -> &'static str {
        match self.machine.view().map(|(view, _)| view.members.len()) {
            _ if self.server.wal.as_ref().is_some_and(|wal| wal.is_primary()) => "pg1",
            _ => "pg2",
        }
    }

    pub(crate) fn run(&mut self, job: &Job) -> JobReport {
        match job {
            Job::Stop { .. } => {
                self.die();
                JobReport::Stopped {
                    shutdown_lsn: Some(Lsn(7)),
                }
            }
            Job::CheckDivergence { .. } => JobReport::Compared(self.diverged),
            Job::Promote => {
                if self.promotes {
                    self.server.wal = Some(world::primary_wal());
                }
                JobReport::Done
            }
            Job::Restart { upstream: None, .. } => {
                if let Some(wal) = &mut self.server.wal {
                    wal.postmaster_start_time_text.push_str(" again");
                }
                JobReport::Started {
                    ready: true,
                    pending_restart: None,
                }
            }
            Job::Start { .. } => {
                self.server = World::of("pg2").server;
                JobReport::Started {
                    ready: true,
                    pending_restart: None,
                }
            }
            _ => JobReport::Done,
        }
    }

    pub(crate) fn die(&mut self) {
        self.server.process = Process::Absent;
        self.server.wal = None;
        self.server.control = Some(world::control(primacy_model::ControlState::ShutDown));
    }

    /// Time passes; the machine is woken whenever it asked for it. Stops at the first action that `until` likes.
    pub(crate) fn pass_time(&mut self, time: Duration, until: impl Fn(&Action) -> bool) -> bool {
        let end = self.now + time;
        while self.now < end {
            let next = self.machine.wake_at().unwrap_or(end);
            self.now = next.max(self.now + Duration::from_millis(10)).min(end);
            let before = self.seen.len();
            self.rest();
            if self.seen[before..].iter().any(&until) {
                return true;
            }
        }
        false
    }

    pub(crate) fn saw(&self, what: impl Fn(&Action) -> bool) -> bool {
        self.seen.iter().any(what)
    }
}

pub(crate) fn kills(action: &Action) -> bool {
    matches!(action, Action::KillNow)
}
