//! Performs the long actions. Each runs in a task of its own and can be cancelled.

use std::time::Duration;

use primacy_ha::{Job, JobProgress, JobReport, StopMode, Upstream};
use primacy_model::{ConnUrl, Lsn, PendingRestart, slot_name};
use primacy_postgres as postgres;
use primacy_postgres::{
    Conninfo, CustomBootstrap, Divergence, RecoveryTarget, ReplicaRequest, RewindOutcome,
    RewindSource, Server, StartRequest, Started, StartedState, StopEvent, StopRequest, Until,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A base backup or a rewind of a very large cluster may take days; what ends it earlier is its own failure
/// or an operator.
const COPY_LIMIT: Duration = Duration::from_secs(7 * 24 * 3600);
/// initdb, hooks and single-user recovery.
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// A comparison with the leader: a few queries and one look at a WAL file.
const COMPARISON_LIMIT: Duration = Duration::from_secs(10);
/// `pg_ctl promote` only sends a signal.
const PROMOTION_LIMIT: Duration = Duration::from_secs(10);

/// What a job works with, fixed when it begins.
pub(crate) struct JobContext {
    pub(crate) server: Server,
    pub(crate) cancel: CancellationToken,
    pub(crate) progress: mpsc::UnboundedSender<JobProgress>,
    pub(crate) member: String,
    pub(crate) use_slots: bool,
    pub(crate) retry_timeout: Duration,
    pub(crate) custom_bootstrap: Option<CustomBootstrap>,
    pub(crate) bootstrap_pg_hba: Vec<String>,
    pub(crate) post_bootstrap: Option<String>,
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
        Job::Bootstrap => bootstrap(context).await,
        Job::PostBootstrap => {
            let hook = context.post_bootstrap.as_deref();
            server
                .post_bootstrap(hook, context.until(BOOTSTRAP_LIMIT))
                .await?;
            Ok(JobReport::Done)
        }
        Job::CreateReplica {
            connection,
            reinitialize,
            basebackup_only,
            ..
        } => {
            if *reinitialize {
                stop(
                    context,
                    StopMode::Immediate,
                    false,
                    Some(context.retry_timeout),
                )
                .await?;
            }
            create_replica(context, connection.as_ref(), *basebackup_only).await
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
        Job::CheckDivergence { connection, .. } => {
            let deadline = Instant::now() + COMPARISON_LIMIT;
            let primary = conninfo(connection);
            Ok(JobReport::Compared(
                match server.check_divergence(&primary, deadline).await {
                    Divergence::Diverged => Some(true),
                    Divergence::Same => Some(false),
                    Divergence::Undecided => None,
                },
            ))
        }
        Job::Rewind {
            connection,
            checkpoint_confirmed,
            ..
        } => {
            let source = RewindSource {
                conninfo: conninfo(connection),
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
        Job::Restart { upstream, timeout } => {
            stop(context, StopMode::Fast, true, None).await?;
            let recovery = upstream
                .as_ref()
                .map(|upstream| context.recovery_target(upstream));
            Ok(started(start(context, recovery, Some(*timeout)).await?))
        }
        Job::Promote => promote(context).await,
        Job::Stop {
            mode,
            checkpoint,
            timeout,
            ..
        } => {
            let shutdown_lsn = stop(context, *mode, *checkpoint, *timeout).await?;
            Ok(JobReport::Stopped { shutdown_lsn })
        }
    }
}

async fn bootstrap(context: &JobContext) -> Result<JobReport, postgres::Error> {
    let until = context.until(BOOTSTRAP_LIMIT);
    match &context.custom_bootstrap {
        Some(method) => {
            context.server.custom_bootstrap(method, until).await?;
            Ok(JobReport::Done)
        }
        None => {
            context
                .server
                .initdb(&context.bootstrap_pg_hba, until)
                .await?;
            Ok(started(start(context, None, None).await?))
        }
    }
}

async fn create_replica(
    context: &JobContext,
    connection: Option<&ConnUrl>,
    basebackup_only: bool,
) -> Result<JobReport, postgres::Error> {
    let (sender, mut progress) = watch::channel(Default::default());
    let request = ReplicaRequest {
        source: connection.map(conninfo),
        basebackup_only,
        methods: None,
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
    let request = StartRequest {
        recovery,
        timeout,
        cancel: context.cancel.clone(),
    };
    context.server.start(request).await
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
/// ended, when it ended in good order.
async fn stop(
    context: &JobContext,
    mode: StopMode,
    checkpoint: bool,
    timeout: Option<Duration>,
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
    let stop = context.server.stop(request);
    tokio::pin!(stop);
    let mut shutdown_lsn = None;
    let stopped = loop {
        tokio::select! {
            stopped = &mut stop => break stopped?,
            Some(event) = events.recv() => {
                if let StopEvent::CheckpointWritten { checkpoint_lsn, previous_lsn, .. } = event {
                    let lsn = previous_lsn.unwrap_or(checkpoint_lsn);
                    shutdown_lsn = Some(lsn);
                    let _ = context.progress.send(JobProgress::ShutdownCheckpoint(lsn));
                }
            }
        }
    };
    if stopped.mode == Some(postgres::StopMode::Fast) && shutdown_lsn.is_none() {
        let deadline = Instant::now() + context.retry_timeout;
        let control = context.server.control_file(deadline).await;
        shutdown_lsn = control.ok().map(|control| control.data.checkpoint_lsn);
    }
    Ok(shutdown_lsn)
}

async fn promote(context: &JobContext) -> Result<JobReport, postgres::Error> {
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
        recovery_target(upstream, &self.member, self.use_slots)
    }
}

/// What a standby of this upstream is configured with.
pub(crate) fn recovery_target(
    upstream: &Upstream,
    member: &str,
    use_slots: bool,
) -> RecoveryTarget {
    match upstream {
        Upstream::Nobody => RecoveryTarget::default(),
        Upstream::Member { connection, .. } => RecoveryTarget {
            primary: Some(conninfo(connection)),
            slot: use_slots.then(|| slot_name(member)),
            ..RecoveryTarget::default()
        },
    }
}

fn conninfo(connection: &ConnUrl) -> Conninfo {
    let database = connection.database.as_deref().unwrap_or("postgres");
    Conninfo::new(&connection.host, connection.port, database)
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
