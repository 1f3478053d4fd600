//! Performs the small steps. Those that write to the store keep their order; the others run beside it.

use std::sync::Arc;
use std::time::Duration;

use primacy_dcs::{ClusterStore, Expected, Outcome, StoreError};
use primacy_ha::{Over, SlotChange, Step, StepOutcome, Upstream, merge_history};
use primacy_model::{FailoverRequest, MemberName, Timeline};
use primacy_postgres::{FollowChange, Server};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::jobs::{RecoveryContext, chain, recovery_target};
use crate::leases::Leases;
use crate::slots;

/// What steps work with.
#[derive(Clone)]
pub(crate) struct StepContext {
    pub(crate) store: ClusterStore,
    pub(crate) leases: Arc<Leases>,
    pub(crate) server: Server,
    pub(crate) name: MemberName,
    pub(crate) ttl: Duration,
    pub(crate) recovery: RecoveryContext,
    pub(crate) keep_timelines: usize,
    pub(crate) in_recovery: bool,
    pub(crate) dynamic: Map<String, Value>,
}

/// Whether the step only writes to the store, and must keep its place among other writes.
pub(crate) fn writes_to_store(step: &Step) -> bool {
    matches!(
        step,
        Step::AcquireLeader { .. }
            | Step::ReleaseLeader { .. }
            | Step::ClaimInitialize
            | Step::WriteInitialize { .. }
            | Step::WriteConfig(_)
            | Step::ClearFailover(_)
            | Step::WriteSync(_)
            | Step::DeleteSync(_)
            | Step::CancelBootstrap
    )
}

/// Performs it.
pub(crate) async fn perform(step: Step, context: &StepContext, deadline: Instant) -> StepOutcome {
    match step {
        Step::SetSynchronousStandbyNames(value) => set_names(context, value, deadline).await,
        Step::WriteHistory(timeline) => write_history(context, timeline, deadline).await,
        Step::ChangeSlots(changes) => change_slots(context, changes, deadline).await,
        Step::Follow(upstream) => follow(context, &upstream, deadline).await,
        Step::ForgetBootstrap => {
            from_server(context.server.mark_bootstrap_finished(deadline).await)
        }
        Step::ResumeReplay => from_server(context.server.resume_replay(deadline).await),
        step => match write(step, context, deadline).await {
            Ok(true) => StepOutcome::Done,
            Ok(false) => StepOutcome::Refused,
            Err(error) => StepOutcome::Failed(chain(&error)),
        },
    }
}

/// `false`: the condition did not hold.
async fn write(step: Step, context: &StepContext, deadline: Instant) -> Result<bool, StoreError> {
    let store = &context.store;
    let done = |outcome| outcome != Outcome::ConditionFailed;
    Ok(match step {
        Step::AcquireLeader { failover } => {
            if !context.leases.acquire(context.ttl, deadline).await? {
                return Ok(false);
            }
            if let Some((version, text)) = failover {
                // A request that was written since stands: the leader looks at it.
                let expected = Expected::Version(version);
                if let Err(error) = store.write_failover(&text, expected, deadline).await {
                    tracing::warn!("the failover request could not be cleared: {error}");
                }
            }
            true
        }
        Step::ReleaseLeader { optime } => {
            context.leases.release(optime, deadline).await?;
            true
        }
        Step::ClaimInitialize => {
            context
                .leases
                .claim_initialize(context.ttl, deadline)
                .await?
        }
        Step::WriteInitialize { identifier, over } => {
            let expected = match over {
                Over::Nothing => Expected::Absent,
                Over::OwnClaim => {
                    return context.leases.complete_claim(&identifier, deadline).await;
                }
                Over::Anything => Expected::Anything,
            };
            done(
                store
                    .write_initialize(&identifier, expected, deadline)
                    .await?,
            )
        }
        Step::WriteConfig(version) => done(
            store
                .write_config(&context.dynamic, Expected::from(version), deadline)
                .await?,
        ),
        Step::ClearFailover(version) => {
            let expected = Expected::Version(version);
            done(
                store
                    .write_failover(FailoverRequest::CLEARED, expected, deadline)
                    .await?,
            )
        }
        Step::WriteSync(sync) => done(store.write_sync(&sync, sync.version, deadline).await?),
        Step::DeleteSync(version) => done(store.delete_sync(version, deadline).await?),
        Step::CancelBootstrap => {
            context.leases.cancel_claim(deadline).await?;
            true
        }
        other => {
            tracing::error!("a step that is not performed here: {other:?}");
            false
        }
    })
}

async fn set_names(context: &StepContext, value: Option<String>, deadline: Instant) -> StepOutcome {
    if context.in_recovery {
        let server = &context.server;
        return from_server(
            server
                .prepare_synchronous_standby_names(value.as_deref(), deadline)
                .await,
        );
    }
    from_server(
        context
            .server
            .set_synchronous_standby_names(value.as_deref(), deadline)
            .await
            .map(drop),
    )
}

async fn write_history(
    context: &StepContext,
    timeline: Timeline,
    deadline: Instant,
) -> StepOutcome {
    let local = match context.server.local_history(timeline, deadline).await {
        Ok(local) => local,
        Err(error) => return StepOutcome::Failed(chain(&error)),
    };
    let (lines, promoted_at) = match local {
        Some(local) => local,
        // The first timeline has none: what is stored is of another cluster.
        None if timeline == Timeline(1) => (Vec::new(), jiff::Timestamp::UNIX_EPOCH),
        None => {
            return StepOutcome::Failed(format!(
                "there is no history file of timeline {timeline} in pg_wal: /history stays as it is"
            ));
        }
    };
    let lines: Vec<_> = lines
        .into_iter()
        .map(|line| (line.timeline, line.switch_lsn, line.reason))
        .collect();
    let promoted_at = promoted_at
        .to_zoned(jiff::tz::TimeZone::system())
        .strftime("%Y-%m-%dT%H:%M:%S%.6f%:z")
        .to_string();
    let result = async {
        let stored = context.store.read(deadline).await?.history;
        let history = merge_history(
            &lines,
            &promoted_at,
            &context.name,
            stored.as_ref(),
            context.keep_timelines,
        );
        context
            .store
            .write_history(&context.name, &history, deadline)
            .await
    };
    match result.await {
        Ok(Outcome::ConditionFailed) => StepOutcome::Refused,
        Ok(_) => StepOutcome::Done,
        Err(error) => StepOutcome::Failed(chain(&error)),
    }
}

/// Every change is tried; the first that fails is reported, the next pass looks at what came of them.
async fn change_slots(
    context: &StepContext,
    changes: Vec<SlotChange>,
    deadline: Instant,
) -> StepOutcome {
    let server = &context.server;
    let mut failed = None;
    for change in changes {
        let result = match &change {
            SlotChange::CreatePhysical { name } => {
                match server.create_physical_slot(name, deadline).await {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(slots::exists(name)),
                    Err(error) => Err(error),
                }
            }
            SlotChange::Drop { name } => server.drop_slot(name, deadline).await.map(drop),
            SlotChange::Advance { name, to } => {
                server.advance_slot(name, *to, deadline).await.map(drop)
            }
        };
        if let Err(error) = result {
            failed.get_or_insert(format!("{change:?}: {}", chain(&error)));
        }
    }
    failed.map_or(StepOutcome::Done, StepOutcome::Failed)
}

async fn follow(context: &StepContext, upstream: &Upstream, deadline: Instant) -> StepOutcome {
    let target = recovery_target(upstream, &context.recovery);
    match context.server.compare_follow(&target, deadline).await {
        Ok(FollowChange::NoChange) => StepOutcome::Done,
        Ok(FollowChange::ReloadNeeded(changed)) => {
            tracing::info!("following {upstream}: changing {}", changed.join(", "));
            from_server(context.server.apply_follow_reload(&target, deadline).await)
        }
        Ok(FollowChange::RestartNeeded(changed)) => {
            tracing::info!(
                "following {upstream} takes a restart: {}",
                changed.join(", ")
            );
            StepOutcome::NeedsRestart
        }
        Err(error) => StepOutcome::Failed(chain(&error)),
    }
}

fn from_server(result: Result<(), primacy_postgres::Error>) -> StepOutcome {
    match result {
        Ok(()) => StepOutcome::Done,
        Err(error) => StepOutcome::Failed(chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use primacy_dcs::MemoryStore;
    use primacy_model::History;
    use primacy_postgres::Settings;

    const SOON: Duration = Duration::from_secs(5);

    /// `ha.md` §21: a primary on its first timeline has no history file, and what is stored is of another cluster.
    #[tokio::test]
    async fn s21_history_of_another_cluster_is_emptied_and_a_missing_file_leaves_it_alone() {
        let directory = tempfile::tempdir().unwrap();
        let store = ClusterStore::new(MemoryStore::new(), "service", "demo");
        let leases = Arc::new(Leases::new(store.clone(), "pg1".into()));
        let soon = || Instant::now() + SOON;
        assert!(leases.acquire(SOON, soon()).await.unwrap());
        let name = MemberName::from("pg1");
        let stale = History::from_json(r#"[[4,9,"r","t","pg9"]]"#).unwrap();
        store.write_history(&name, &stale, soon()).await.unwrap();
        let context = StepContext {
            store: store.clone(),
            leases,
            server: Server::new(Settings::new("pg1", "demo", directory.path())),
            name,
            ttl: SOON,
            recovery: RecoveryContext {
                member: "pg1".into(),
                use_slots: true,
                standby_cluster: None,
            },
            keep_timelines: 0,
            in_recovery: false,
            dynamic: Map::new(),
        };
        let stored = async || {
            store
                .read(soon())
                .await
                .unwrap()
                .history
                .unwrap_or_default()
        };

        let outcome = perform(Step::WriteHistory(Timeline(5)), &context, soon()).await;
        assert!(matches!(outcome, StepOutcome::Failed(_)), "{outcome:?}");
        assert_eq!(stored().await, stale);
        let outcome = perform(Step::WriteHistory(Timeline(1)), &context, soon()).await;
        assert_eq!(outcome, StepOutcome::Done);
        assert_eq!(stored().await, History::default());
    }
}
