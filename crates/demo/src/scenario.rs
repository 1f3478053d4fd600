//! The cluster with its writer, the faults, and what must come after each.

use std::future::{Future, pending};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::Fault;
use crate::cluster::Cluster;
use crate::events::DEMO;
use crate::process::Life;
use crate::report::{Report, timeline};
use crate::setup::Setup;
use crate::status::{self, MemberStatus};
use crate::writer::{Writer, count_missing, streaming_standbys};

// The three together stay below two minutes.

/// From nothing to three members: initdb, two base backups, the first synchronous standby.
const READY: Duration = Duration::from_secs(45);
/// `ttl` is 5 s; the rest is for an election of the store and a promotion.
const TAKEOVER: Duration = Duration::from_secs(30);
/// Crash recovery, pg_rewind, perhaps a new base backup.
const REJOIN: Duration = Duration::from_secs(40);
/// Between looks at a condition.
const PAUSE: Duration = Duration::from_millis(50);
/// The writer is under way when so many transactions were acknowledged after the cluster was complete.
const WARM_UP: u64 = 100;

/// The running demo.
pub(crate) struct Demo {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) statuses: watch::Receiver<Vec<MemberStatus>>,
    pub(crate) writer: Writer,
    _followers: JoinSet<()>,
}

/// A fault that was inflicted.
pub(crate) struct Strike {
    fault: Fault,
    old_leader: usize,
    at: Timestamp,
    instant: Instant,
    /// The agents' answer, where the fault was asked of them.
    request: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Demo {
    pub(crate) fn start(setup: Setup) -> anyhow::Result<Self> {
        let cluster = Arc::new(Cluster::start(setup)?);
        let (statuses, followers) = status::follow(&cluster);
        let writer = Writer::start(cluster.clone(), statuses.clone());
        Ok(Demo {
            cluster,
            statuses,
            writer,
            _followers: followers,
        })
    }

    pub(crate) fn primary(&self) -> Option<usize> {
        status::primary(&self.statuses.borrow(), None)
    }

    /// Waits until the cluster is complete and written to.
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        let complete = async {
            loop {
                self.cluster.check_agents()?;
                let synchronous = self
                    .statuses
                    .borrow()
                    .iter()
                    .any(|status| status.told.as_ref().is_some_and(|told| told.sync_standby));
                if synchronous && self.all_stream().await {
                    break;
                }
                sleep(PAUSE).await;
            }
            let before = self.writer.tally().acknowledged.len();
            while self.writer.tally().acknowledged.len() < before + WARM_UP {
                sleep(PAUSE).await;
            }
            anyhow::Ok(())
        };
        self.within(READY, "the cluster was not complete", complete)
            .await
    }

    /// One member is the primary, both others live and stream from it.
    async fn all_stream(&self) -> bool {
        let statuses = self.statuses.borrow().clone();
        let Some(primary) = status::primary(&statuses, None) else {
            return false;
        };
        let timeline = |status: &MemberStatus| status.told.as_ref()?.timeline;
        let healthy = statuses.iter().all(|status| {
            status.agent == Life::Alive
                && status.postmaster == Life::Alive
                && status
                    .told
                    .as_ref()
                    .is_some_and(|told| told.state == "running")
                && timeline(status) == timeline(&statuses[primary])
        });
        if !healthy {
            return false;
        }
        let standbys = streaming_standbys(&self.cluster, primary)
            .await
            .unwrap_or_default();
        statuses
            .iter()
            .enumerate()
            .all(|(member, status)| member == primary || standbys.contains(&status.name))
    }

    /// Inflicts a fault on the primary.
    pub(crate) fn strike(&self, fault: Fault) -> anyhow::Result<Strike> {
        let old_leader = self.primary().context("there is no primary now")?;
        let (at, instant) = (Timestamp::now(), Instant::now());
        let mut request = None;
        match fault {
            Fault::KillNode => self.cluster.kill_node(old_leader),
            Fault::KillPostgres => self.cluster.kill_postgres(old_leader),
            Fault::FreezeAgent => self.cluster.freeze(old_leader),
            Fault::Switchover => {
                let cluster = self.cluster.clone();
                request = Some(tokio::spawn(async move {
                    cluster.switch_over(old_leader).await
                }));
            }
        }
        Ok(Strike {
            fault,
            old_leader,
            at,
            instant,
            request,
        })
    }

    /// Waits until another member leads and the writer has an acknowledgement from it.
    pub(crate) async fn takeover(&self, strike: &mut Strike) -> anyhow::Result<usize> {
        let taken_over = async {
            loop {
                let leader = self.primary().filter(|leader| *leader != strike.old_leader);
                let written = self.writer.tally().last.map(|last| last.member);
                if let Some(leader) = leader
                    && written == Some(leader)
                {
                    return leader;
                }
                sleep(PAUSE).await;
            }
        };
        let refused = async {
            if let Some(request) = &mut strike.request
                && let Ok(Err(error)) = request.await
            {
                return error;
            }
            pending().await
        };
        let outcome = async {
            tokio::select! {
                leader = taken_over => Ok(leader),
                error = refused => Err(error),
            }
        };
        self.within(TAKEOVER, "nobody took over", outcome).await
    }

    /// Waits until all members stream, the struck one too.
    async fn rejoin(&self) -> anyhow::Result<()> {
        let rejoined = async {
            while !self.all_stream().await {
                sleep(PAUSE).await;
            }
            Ok(())
        };
        self.within(REJOIN, "not all members stream", rejoined)
            .await
    }

    async fn within<T>(
        &self,
        limit: Duration,
        failure: &str,
        wait: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        match timeout(limit, wait).await {
            Ok(result) => result,
            Err(_) => {
                let statuses = self.statuses.borrow();
                let members: Vec<String> = statuses.iter().map(describe).collect();
                bail!(
                    "{failure} after {} s: {}",
                    limit.as_secs(),
                    members.join("; ")
                )
            }
        }
    }

    /// The account of what `new_leader` took over.
    pub(crate) async fn report(&self, strike: &Strike, new_leader: Option<usize>) -> Report {
        let tally = self.writer.tally();
        let name = |member: usize| self.cluster.name(member).to_owned();
        let mut report = Report {
            scenario: strike.fault,
            outage_ms: new_leader.map(|_| tally.outage_since(strike.instant).as_millis() as u64),
            acknowledged: tally.acknowledged.len(),
            lost: None,
            old_leader: name(strike.old_leader),
            new_leader: new_leader.map(name),
            rejoined: false,
            timeline: Vec::new(),
            unknown: tally.unknown,
            problem: None,
        };
        if let Some(leader) = new_leader {
            match count_missing(&self.cluster, leader, &tally.acknowledged).await {
                Ok(missing) => report.lost = Some(missing),
                Err(error) => report.problem = Some(format!("{error:#}")),
            }
        }
        report.timeline = timeline(&self.cluster, strike.at).await;
        report
    }
}

fn describe(status: &MemberStatus) -> String {
    let MemberStatus {
        name,
        agent,
        postmaster,
        told,
        ..
    } = status;
    match told {
        Some(told) => format!("{name} is {}", told.summary()),
        None => format!("{name} does not answer, agent {agent:?}, postmaster {postmaster:?}"),
    }
}

/// Inflicts one fault on a complete cluster and sees it through until all members stream again.
pub(crate) async fn run(demo: &Demo, fault: Fault) -> anyhow::Result<Report> {
    let mut strike = demo.strike(fault)?;
    let taken_over = demo.takeover(&mut strike).await;
    let outage = demo.writer.tally().outage_since(strike.instant);
    let rejoined = match &taken_over {
        Ok(_) => {
            demo.cluster.bring_back(strike.old_leader)?;
            demo.rejoin().await
        }
        Err(_) => Ok(()),
    };
    if taken_over.is_ok() && rejoined.is_ok() {
        demo.cluster.events.add(DEMO, "all members stream");
    }
    // Should the leadership have moved on meanwhile, the one who leads now must have everything.
    let leader = taken_over
        .as_ref()
        .ok()
        .map(|leader| demo.primary().unwrap_or(*leader));
    let mut report = demo.report(&strike, leader).await;
    report.rejoined = taken_over.is_ok() && rejoined.is_ok();
    match (taken_over, rejoined) {
        (Err(error), _) => report.problem = Some(format!("{error:#}")),
        (Ok(leader), outcome) => {
            report.new_leader = Some(demo.cluster.name(leader).to_owned());
            // Of the takeover alone, not of pauses while the old leader came back.
            report.outage_ms = Some(outage.as_millis() as u64);
            if let Err(error) = outcome {
                report.problem = Some(format!("{error:#}"));
            }
        }
    }
    Ok(report)
}
