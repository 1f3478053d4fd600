//! How far behind is too far: for a synchronous standby, and for the next leader, in bytes and in timelines.

use anyhow::{Result, ensure};
use primacy_model::Lsn;
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{Pid, Signal, StoreKind, TestCluster, processes, sql, wait_until};
use serde_json::json;

use crate::mixed_tags::{set_tags, wait_synchronous, wait_upstream};
use crate::synchrony::configure;
use crate::tags::{wait_nobody_leads, wait_told};

/// More than the two limits in bytes.
const MUCH: &str = "set synchronous_commit = local; \
    insert into volume select i, repeat('x', 1000) from generate_series(1, 3000) i";
/// Seconds. Longer than `loop_wait`, which is waited for in any case.
const BACKOFF: u64 = 4;

/// What was acknowledged is lost here on purpose: there is no ledger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_behind_is_passed_over() -> Result<()> {
    let mut cluster = crate::cluster(StoreKind::Embedded)
        .dynamic("maximum_lag_on_syncnode", json!(65536))
        .dynamic("check_timeline", json!(true))
        .dynamic("max_timelines_history", json!(1))
        .dynamic("primary_race_backoff", json!(BACKOFF))
        .start()
        .await?;
    let old = cluster.leader().await?;
    let port = cluster.agents[old].postgres_port;
    sql::execute(port, "create table volume (id int, text text)").await?;

    // A synchronous standby that gets nothing any more loses its place to one that does, while it is connected.
    let behind = cluster.synchronous_standby().await?;
    let ahead = 3 - old - behind;
    let receiver = "select pid from pg_stat_wal_receiver";
    let receiver = freeze(&cluster, behind, receiver).await?;
    sql::execute(port, MUCH).await?;
    wait_synchronous(&cluster, old, &[ahead]).await?;
    processes::signal(receiver, Signal::SIGCONT);
    ensure!(cluster.wait_healthy().await? == old, "the lead moved");

    // The leader is lost with more than anybody may lack: nobody leads until that is allowed.
    configure(&cluster, old, json!({"synchronous_mode": false})).await?;
    wait_until("asynchrony", cluster.timing.recovery(), async || {
        let names = sql::text(port, "show synchronous_standby_names").await?;
        ensure!(names.is_empty(), "{names}");
        Ok(())
    })
    .await?;
    cluster.synchronous = false;
    for standby in [behind, ahead] {
        let name = &cluster.agents[standby].name;
        let sender =
            format!("select pid from pg_stat_replication where application_name = '{name}'");
        freeze(&cluster, old, &sender).await?;
    }
    sql::execute(port, MUCH).await?;
    // Told to the store: the leader itself knows before. A lag alone may be the one of the first volume.
    let written = sql::text(port, "select pg_current_wal_flush_lsn()::text").await?;
    let written: Lsn = written.parse()?;
    wait_until(
        "the lag to be told",
        cluster.timing.recovery(),
        async || {
            let document = cluster.agents[ahead].get("/cluster").await?;
            let members = document["members"].as_array().into_iter().flatten();
            let lagging = members.filter(|row| {
                let received = row["receive_lsn"].as_str().and_then(|lsn| lsn.parse().ok());
                let lag = row["receive_lag"].as_u64().unwrap_or_default();
                let told = |received: Lsn| received.0 + lag >= written.0;
                lag > 1_048_576 && received.is_some_and(told)
            });
            ensure!(lagging.count() == 2, "{written}: {document}");
            Ok(())
        },
    )
    .await?;
    cluster.agents[old].kill_node().await?;
    for standby in [behind, ahead] {
        let reason = "> maximum_lag_on_failover 1048576";
        wait_told(&cluster, standby, reason).await?;
        let reason = format!("< primary_race_backoff {BACKOFF} s");
        wait_told(&cluster, standby, &reason).await?;
    }
    wait_nobody_leads(&cluster).await?;
    let more = json!({"maximum_lag_on_failover": 100_000_000});
    configure(&cluster, ahead, more).await?;
    let second = cluster.wait_new_leader(old).await?;
    cluster.start_agent(old)?;
    ensure!(cluster.wait_healthy().await? == second, "the lead moved");

    // Two timelines later nobody leads who is still on the last but one.
    let others = cluster.others(second);
    let (late, third) = (others[0], others[1]);
    set_tags(&cluster, late, json!({"nostream": true})).await?;
    wait_upstream(&cluster, late, None).await?;
    let name = cluster.agents[third].name.clone();
    cluster
        .control_ok(&["switchover", SCOPE, "--candidate", &name, "--force"])
        .await?;
    ensure!(cluster.wait_new_leader(second).await? == third);
    wait_upstream(&cluster, second, Some(third)).await?;
    wait_history(&cluster, third).await?;
    set_tags(&cluster, second, json!({"nofailover": true})).await?;
    cluster.agents[third].kill_node().await?;
    wait_told(&cluster, late, "check_timeline: my timeline ").await?;
    wait_nobody_leads(&cluster).await?;
    set_tags(&cluster, second, json!({})).await?;
    ensure!(cluster.wait_new_leader(third).await? == second);
    set_tags(&cluster, late, json!({})).await?;
    cluster.start_agent(third)?;
    ensure!(cluster.wait_healthy().await? == second, "the lead moved");
    wait_history(&cluster, second).await?;
    cluster.pass();
    Ok(())
}

/// Freezes the one process that this tells: its connection stays, and brings nothing.
async fn freeze(cluster: &TestCluster, member: usize, statement: &str) -> Result<Pid> {
    let found = sql::rows(cluster.agents[member].postgres_port, statement).await?;
    let [row] = &found[..] else {
        anyhow::bail!("{} processes: {statement}", found.len());
    };
    let pid = Pid::from_raw(row.get(0));
    processes::signal(pid, Signal::SIGSTOP);
    Ok(pid)
}

/// Waits until the history tells how the timeline before this one ended, and, as `max_timelines_history` says, of no
/// other.
async fn wait_history(cluster: &TestCluster, leader: usize) -> Result<()> {
    let agent = &cluster.agents[leader];
    wait_until("the history", cluster.timing.recovery(), async || {
        let timeline = agent.get("/patroni").await?["timeline"].as_u64();
        let history = agent.get("/history").await?;
        let lines = history.as_array().into_iter().flatten();
        let ended: Vec<Option<u64>> = lines.map(|line| line[0].as_u64()).collect();
        ensure!(
            timeline > Some(2) && ended == [timeline.map(|timeline| timeline - 1)],
            "{history} on timeline {timeline:?}"
        );
        Ok(())
    })
    .await
}
