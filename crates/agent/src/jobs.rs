//! Performs the long actions. Each runs in a task of its own and can be cancelled.

use std::time::Duration;

use primacy_config::StandbyCluster;
use primacy_ha::citus::CitusEvent;
use primacy_ha::{
    Address, DemotionMode, Job, JobProgress, JobReport, Lease, LogicalSlot, Source, StopMode,
    StopReason, Upstream,
};
use primacy_model::{ControlData, ControlState, Lsn, PendingRestart, slot_name};
use primacy_postgres as postgres;
use primacy_postgres::{
    Conninfo, CustomBootstrap, Divergence, RecoveryTarget, ReplicaRequest, RewindOutcome,
    RewindSource, Server, Spawning, StartRequest, Started, StartedState, StopEvent, StopRequest,
    Until, WalMarker,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::citus::CoordinatorClient;
use crate::fencing::Aimer;
use crate::{clock, slots};

/// A base backup or a rewind of a very large cluster may take days; what ends it earlier is its own failure
/// or an operator.
const COPY_LIMIT: Duration = Duration::from_secs(7 * 24 * 3600);
/// initdb, hooks and single-user recovery.
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// For small files.
const FILES: Duration = Duration::from_secs(30);
/// One WAL segment, by a command of the administrator.
const ARCHIVE_LIMIT: Duration = Duration::from_secs(60);
/// A comparison with the leader: a few queries and one look at a WAL file.
const COMPARISON_LIMIT: Duration = Duration::from_secs(10);
/// `pg_ctl promote` only sends a signal.
const PROMOTION_LIMIT: Duration = Duration::from_secs(10);

/// What a job works with, fixed when it begins.
pub(crate) struct JobContext {
    pub(crate) server: Server,
    pub(crate) cancel: CancellationToken,
    pub(crate) progress: mpsc::UnboundedSender<JobProgress>,
    /// The leadership as it is at every moment, not only when the job begins.
    pub(crate) lease: watch::Receiver<Lease>,
    pub(crate) recovery: RecoveryContext,
    pub(crate) retry_timeout: Duration,
    pub(crate) custom_bootstrap: Option<CustomBootstrap>,
    pub(crate) bootstrap_pg_hba: Vec<String>,
    pub(crate) post_bootstrap: Option<String>,
    /// Of a Citus cluster, when this member is in a worker group.
    pub(crate) coordinator: Option<CoordinatorClient>,
    pub(crate) fence: Aimer,
}

/// Runs the job to its end.
pub(crate) async fn run(job: Job, context: JobContext) -> JobReport {
    match perform(&job, &context).await {
        Ok(report) => report,
        Err(_) if context.cancel.is_cancelled() => JobReport::Cancelled,
        Err(error) => JobReport::Failed(chain(&error)),
    }
}

async fn perform(job: &Job, context: &JobContext) -> Result<JobReport, postgres::Error> {
    let server = &context.server;
    match job {
        Job::Bootstrap => {
            server
                .mark_bootstrap_begun(context.until(FILES).deadline)
                .await?;
            bootstrap(context).await
        }
        Job::BootstrapStandbyLeader { upstream } => {
            server
                .mark_bootstrap_begun(context.until(FILES).deadline)
                .await?;
            let connection = match upstream {
                Upstream::Remote(remote) => remote.connection.as_ref(),
                Upstream::Member { .. } | Upstream::Nobody => None,
            };
            create_replica(context, connection, false).await?;
            let recovery = Some(context.recovery_target(upstream));
            Ok(started(start(context, recovery, None).await?))
        }
        Job::PostBootstrap => {
            let hook = context.post_bootstrap.as_deref();
            server
                .post_bootstrap(hook, context.until(BOOTSTRAP_LIMIT))
                .await?;
            Ok(JobReport::Done)
        }
        Job::CreateReplica {
            source,
            reinitialize,
            basebackup_only,
        } => {
            if *reinitialize {
                let timeout = Some(context.retry_timeout);
                stop(context, StopMode::Immediate, false, timeout, None).await?;
            }
            let connection = source.as_ref().map(|source| &source.connection);
            create_replica(context, connection, *basebackup_only).await
        }
        Job::Start { upstream } => {
            let recovery = Some(context.recovery_target(upstream));
            Ok(started(start(context, recovery, None).await?))
        }
        Job::StartPrimary { timeout } => Ok(started(start(context, None, Some(*timeout)).await?)),
        Job::CrashRecovery => {
            server
                .crash_recovery(context.until(BOOTSTRAP_LIMIT))
                .await?;
            Ok(JobReport::Done)
        }
        Job::CheckDivergence { source } => {
            let deadline = Instant::now() + COMPARISON_LIMIT;
            let primary = conninfo(&source.connection);
            Ok(JobReport::Compared(
                match server.check_divergence(&primary, deadline).await {
                    Divergence::Diverged => {
                        let deadline = Instant::now() + COMPARISON_LIMIT;
                        if let Err(error) = server.mark_wal(WalMarker::Diverged, deadline).await {
                            tracing::warn!("{}", chain(&error));
                        }
                        Some(true)
                    }
                    Divergence::Same => Some(false),
                    Divergence::Undecided => None,
                },
            ))
        }
        Job::Rewind {
            source,
            checkpoint_confirmed,
        } => {
            let source = RewindSource {
                conninfo: conninfo(&source.connection),
                checkpoint_confirmed: *checkpoint_confirmed,
            };
            Ok(
                match server.rewind(&source, context.until(COPY_LIMIT)).await? {
                    RewindOutcome::Rewound => JobReport::Done,
                    RewindOutcome::SourceNotReady(why) | RewindOutcome::SourceLost(why) => {
                        JobReport::RewindLater(why)
                    }
                    RewindOutcome::Failed(why) => JobReport::RewindFailed(why),
                },
            )
        }
        Job::CopyLogicalSlots {
            source,
            slots,
            upstream,
        } => copy_logical_slots(context, source, slots, upstream).await,
        Job::Restart { upstream, timeout } => {
            let (before, after) = (context.told_before(job), job.told_coordinator_after());
            stop(context, StopMode::Fast, true, None, before).await?;
            let recovery = upstream
                .as_ref()
                .map(|upstream| context.recovery_target(upstream));
            let started = start(context, recovery, Some(*timeout)).await?;
            if started.state == StartedState::Ready
                && let (Some(coordinator), Some(event)) = (context.coordinator.clone(), after)
            {
                tokio::spawn(async move { coordinator.tell(event).await });
            }
            Ok(self::started(started))
        }
        Job::Promote => promote(context, job).await,
        Job::Stop {
            mode,
            checkpoint,
            timeout,
            reason,
        } => {
            let before = context.told_before(job);
            let shutdown_lsn = stop(context, *mode, *checkpoint, *timeout, before).await?;
            if *reason == StopReason::Demotion(DemotionMode::DemoteCluster)
                && let Err(error) = server
                    .archive_shutdown_checkpoint(&context.until(ARCHIVE_LIMIT))
                    .await
            {
                // The other site may stream, and has it then.
                tracing::error!(
                    "the segment of the shutdown checkpoint could not be archived: {}",
                    chain(&error)
                );
            }
            Ok(JobReport::Stopped { shutdown_lsn })
        }
    }
}

/// Everything that can be wrong is found out before the server is stopped; once it is, it is started again
/// whatever became of the files.
async fn copy_logical_slots(
    context: &JobContext,
    source: &Source,
    slots: &[LogicalSlot],
    upstream: &Upstream,
) -> Result<JobReport, postgres::Error> {
    let server = &context.server;
    let files = slots::fetch(server, source, slots, Instant::now() + COMPARISON_LIMIT).await?;
    if context.cancel.is_cancelled() {
        return Ok(JobReport::Cancelled);
    }
    stop(context, StopMode::Fast, true, None, None).await?;
    let names: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
    match server
        .write_slot_files(files, context.until(FILES).deadline)
        .await
    {
        Ok(()) => tracing::info!(
            "copied logical slots {} from the {source}",
            names.join(", ")
        ),
        Err(error) => tracing::error!("logical slots could not be copied: {}", chain(&error)),
    }
    let recovery = Some(context.recovery_target(upstream));
    Ok(started(start(context, recovery, None).await?))
}

async fn bootstrap(context: &JobContext) -> Result<JobReport, postgres::Error> {
    let until = context.until(BOOTSTRAP_LIMIT);
    match &context.custom_bootstrap {
        Some(method) => {
            let pg_hba = &context.bootstrap_pg_hba;
            context
                .server
                .custom_bootstrap(method, pg_hba, until)
                .await?;
        }
        None => {
            context
                .server
                .initdb(&context.bootstrap_pg_hba, until)
                .await?;
        }
    }
    Ok(started(start(context, None, None).await?))
}

async fn create_replica(
    context: &JobContext,
    connection: Option<&Address>,
    basebackup_only: bool,
) -> Result<JobReport, postgres::Error> {
    let (sender, mut progress) = watch::channel(Default::default());
    let request = ReplicaRequest {
        source: connection.map(conninfo),
        basebackup_only,
        progress: Some(sender),
    };
    let create = context
        .server
        .create_replica(request, context.until(COPY_LIMIT));
    tokio::pin!(create);
    loop {
        tokio::select! {
            result = &mut create => {
                result?;
                return Ok(JobReport::Done);
            }
            Ok(()) = progress.changed() => {
                let seen = *progress.borrow_and_update();
                let text = match seen.total_bytes {
                    0 => format!("{} bytes copied", seen.done_bytes),
                    total => format!("{} of {total} bytes copied", seen.done_bytes),
                };
                let _ = context.progress.send(JobProgress::Text(text));
            }
        }
    }
}

async fn start(
    context: &JobContext,
    recovery: Option<RecoveryTarget>,
    timeout: Option<Duration>,
) -> Result<Started, postgres::Error> {
    let left = context
        .server
        .kill_leftovers(Instant::now() + context.retry_timeout)
        .await?;
    if left > 0 {
        tracing::info!("killed {left} backends that outlived their postmaster");
    }
    let (sender, mut spawned) = mpsc::unbounded_channel();
    let request = StartRequest {
        recovery,
        timeout,
        cancel: context.cancel.clone(),
        spawned: Some(sender),
    };
    let start = context.server.start(request);
    tokio::pin!(start);
    loop {
        tokio::select! {
            biased;
            Some(Spawning { identity, begin }) = spawned.recv() => {
                let _ = context.progress.send(JobProgress::Spawned(identity));
                if context.fence.aim(identity).await {
                    let _ = begin.send(());
                }
            }
            started = &mut start => return started,
        }
    }
}

fn started(started: Started) -> JobReport {
    let raised = started
        .raised
        .into_iter()
        .map(|raised| (raised.name, (raised.control, raised.configured)));
    let reasons: std::collections::BTreeMap<_, _> = raised.collect();
    JobReport::Started {
        ready: started.state == StartedState::Ready,
        pending_restart: (!reasons.is_empty()).then_some(PendingRestart { reasons }),
    }
}

/// Stops PostgreSQL, tells of the shutdown checkpoint as soon as it is written, and returns where the WAL
/// ended, when it ended in good order. `before` is told to the coordinator of a Citus cluster.
async fn stop(
    context: &JobContext,
    mode: StopMode,
    checkpoint: bool,
    timeout: Option<Duration>,
    before: Option<CitusEvent>,
) -> Result<Option<Lsn>, postgres::Error> {
    let (sender, mut events) = mpsc::channel(8);
    let request = StopRequest {
        mode: match mode {
            StopMode::Fast => postgres::StopMode::Fast,
            StopMode::Immediate => postgres::StopMode::Immediate,
        },
        checkpoint,
        timeout,
        events: Some(sender),
    };
    let announcement = context.tell_coordinator(before);
    let stop = context.server.stop_announced(request, announcement);
    tokio::pin!(stop);
    let mut shutdown_lsn = None;
    let stopped = loop {
        tokio::select! {
            stopped = &mut stop => break stopped?,
            () = context.cancel.cancelled() => {
                let what = "the stop of PostgreSQL".into();
                return Err(postgres::Error::Cancelled { what });
            }
            Some(event) = events.recv() => {
                let progress = match event {
                    StopEvent::CheckpointWritten { checkpoint_lsn, previous_lsn, .. } => {
                        let lsn = previous_lsn.unwrap_or(checkpoint_lsn);
                        shutdown_lsn = Some(lsn);
                        JobProgress::ShutdownCheckpoint(lsn)
                    }
                    StopEvent::NoBackends => JobProgress::NoBackends,
                    StopEvent::Stopped => continue,
                };
                let _ = context.progress.send(progress);
            }
        }
    };
    if stopped.mode == Some(postgres::StopMode::Fast) && shutdown_lsn.is_none() {
        let deadline = Instant::now() + context.retry_timeout;
        let control = context.server.control_file(deadline).await;
        // A standby's last restartpoint says nothing of how far it got.
        let ended = |data: &ControlData| data.state == ControlState::ShutDown;
        shutdown_lsn = control
            .ok()
            .map(|control| control.data)
            .filter(ended)
            .map(|data| data.checkpoint_lsn);
    }
    Ok(shutdown_lsn)
}

async fn promote(context: &JobContext, job: &Job) -> Result<JobReport, postgres::Error> {
    if let Some(hook) = context.server.settings().pre_promote.clone()
        && let Err(error) = context
            .server
            .run_hook(&hook, context.until(BOOTSTRAP_LIMIT))
            .await
    {
        if context.cancel.is_cancelled() {
            return Ok(JobReport::Cancelled);
        }
        tracing::error!("pre_promote failed: {}", chain(&error));
        return Ok(JobReport::PrePromoteFailed);
    }
    if context.cancel.is_cancelled() {
        return Ok(JobReport::Cancelled);
    }
    context.tell_coordinator(context.told_before(job)).await;
    // Hook and coordinator may have taken longer than the lease, and a machine that slept meanwhile has not told anybody yet (W15).
    if !context.lease.borrow().is_held(clock::now()) {
        tracing::error!("the leader lock ended before the promotion: not promoting");
        return Ok(JobReport::Cancelled);
    }
    context
        .server
        .promote(Instant::now() + PROMOTION_LIMIT)
        .await?;
    Ok(JobReport::Done)
}

impl JobContext {
    fn until(&self, limit: Duration) -> Until {
        Until {
            deadline: Instant::now() + limit,
            cancel: self.cancel.clone(),
        }
    }

    fn recovery_target(&self, upstream: &Upstream) -> RecoveryTarget {
        recovery_target(upstream, &self.recovery)
    }

    fn told_before(&self, job: &Job) -> Option<CitusEvent> {
        job.told_coordinator_before(*self.lease.borrow() != Lease::None)
    }

    async fn tell_coordinator(&self, event: Option<CitusEvent>) {
        if let (Some(coordinator), Some(event)) = (&self.coordinator, event) {
            coordinator.tell(event).await;
        }
    }
}

/// What the recovery settings of this member depend on beside its upstream.
#[derive(Clone)]
pub(crate) struct RecoveryContext {
    pub(crate) member: String,
    pub(crate) use_slots: bool,
    /// Its commands take the place of the local ones, on every member.
    pub(crate) standby_cluster: Option<StandbyCluster>,
}

/// What a standby of this upstream is configured with (`configuration.md` §6.5).
pub(crate) fn recovery_target(upstream: &Upstream, context: &RecoveryContext) -> RecoveryTarget {
    let mut target = match upstream {
        Upstream::Nobody => RecoveryTarget::default(),
        Upstream::Member { connection, .. } => RecoveryTarget {
            primary: Some(conninfo(&connection.clone().into())),
            slot: context.use_slots.then(|| slot_name(&context.member)),
            ..RecoveryTarget::default()
        },
        Upstream::Remote(remote) => RecoveryTarget {
            primary: remote.connection.as_ref().map(|connection| {
                let several = connection.host.contains(',') && remote.slot.is_some();
                let attributes = if several { "read-write" } else { "" };
                conninfo(connection).with("target_session_attrs", attributes)
            }),
            slot: remote.slot.clone(),
            ..RecoveryTarget::default()
        },
    };
    let mut set = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            target.settings.insert(name.to_owned(), value.clone());
        }
    };
    if let Some(standby) = &context.standby_cluster {
        set("restore_command", &standby.restore_command);
        set("archive_cleanup_command", &standby.archive_cleanup_command);
    }
    if let Upstream::Remote(remote) = upstream {
        set("recovery_min_apply_delay", &remote.apply_delay);
    }
    target
}

pub(crate) fn conninfo(address: &Address) -> Conninfo {
    let database = address.database.as_deref().unwrap_or("postgres");
    Conninfo::default()
        .with("host", &address.host)
        .with("port", &address.port)
        .with("dbname", database)
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use primacy_ha::Remote;

    use super::*;

    /// There is no server to promote: whoever tries fails.
    async fn promotion(lease: Lease) -> JobReport {
        let directory = tempfile::tempdir().unwrap();
        let settings = postgres::Settings::new("pg1", "demo", directory.path());
        let (progress, _news) = mpsc::unbounded_channel();
        let (_leadership, lease) = watch::channel(lease);
        let context = JobContext {
            server: Server::new(settings),
            cancel: CancellationToken::new(),
            progress,
            lease,
            recovery: RecoveryContext {
                member: "pg1".into(),
                use_slots: true,
                standby_cluster: None,
            },
            retry_timeout: FILES,
            custom_bootstrap: None,
            bootstrap_pg_hba: Vec::new(),
            post_bootstrap: None,
            coordinator: None,
            fence: Aimer::nobody(),
        };
        run(Job::Promote, context).await
    }

    #[tokio::test]
    async fn w15_nobody_is_promoted_on_a_lease_that_ended() {
        let until = |until| Lease::Held {
            until,
            failing_since: None,
        };
        for ended in [Lease::None, until(clock::now())] {
            assert_eq!(promotion(ended).await, JobReport::Cancelled);
        }
        let tried = promotion(until(clock::now() + FILES)).await;
        assert!(matches!(tried, JobReport::Failed(_)), "{tried:?}");
    }

    /// `ha.md` §9: of several hosts, only the primary has the slot.
    #[test]
    fn s9_several_hosts_of_a_remote_primary_are_all_tried() {
        let rows = [
            // Hosts, ports, slot; host, port and target_session_attrs of primary_conninfo.
            (
                "a,b,c",
                "5432",
                Some("site_b"),
                "a,b,c",
                "5432",
                Some("read-write"),
            ),
            (
                "a,b",
                "5432,5433",
                Some("site_b"),
                "a,b",
                "5432,5433",
                Some("read-write"),
            ),
            ("a,b", "5432,5433", None, "a,b", "5432,5433", None),
            ("a", "5432", Some("site_b"), "a", "5432", None),
        ];
        let context = RecoveryContext {
            member: "pg1".into(),
            use_slots: true,
            standby_cluster: None,
        };
        for (hosts, ports, slot, host, port, attributes) in rows {
            let remote = Remote {
                connection: Some(Address {
                    host: hosts.into(),
                    port: ports.into(),
                    database: None,
                }),
                slot: slot.map(str::to_owned),
                apply_delay: None,
            };
            let target = recovery_target(&Upstream::Remote(remote), &context);
            let primary = target.primary.expect("a primary");
            let expected = [
                ("host", Some(host)),
                ("port", Some(port)),
                ("target_session_attrs", attributes),
            ];
            for (keyword, value) in expected {
                let given = primary.get(keyword).filter(|value| !value.is_empty());
                assert_eq!(given, value, "{keyword} of {hosts}, {slot:?}");
            }
            assert_eq!(target.slot.as_deref(), slot);
        }
    }
}
