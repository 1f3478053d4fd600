//! The old primary has WAL that nobody else has: it must be rewound before it can follow.

use anyhow::{Result, ensure};
use primacy_testkit::{Pid, Signal, StoreKind, TestCluster, processes, sql};

on_both_stores!(diverged_primary_returns);

async fn diverged_primary_returns(store: StoreKind) -> Result<()> {
    let mut cluster = crate::cluster(store)
        .postgresql("remove_data_directory_on_rewind_failure", false.into())
        .start()
        .await?;
    let writer = cluster.writer().await?;

    let old = cluster.leader().await?;
    let port = cluster.agents[old].postgres_port;
    sql::execute(port, "create table only_here (id int)").await?;
    // With its walsenders frozen, the primary's WAL stays at home.
    let senders = sql::rows(port, "select pid from pg_stat_replication").await?;
    ensure!(senders.len() == 2, "{} walsenders", senders.len());
    for sender in &senders {
        processes::signal(Pid::from_raw(sender.get(0)), Signal::SIGSTOP);
    }
    sql::execute(
        port,
        "set synchronous_commit = local; insert into only_here select generate_series(1, 1000)",
    )
    .await?;
    let log_before = cluster.agents[old].log().len();
    cluster.agents[old].kill_node().await?;

    let new = cluster.wait_new_leader(old).await?;
    writer.wait_progress(cluster.timing.failover()).await?;
    cluster.start_agent(old)?;
    ensure!(
        cluster.wait_healthy().await? == new,
        "the returned primary took the lead again"
    );

    let log = cluster.agents[old].log().split_off(log_before);
    ensure!(
        log.contains("pg_rewind"),
        "the diverged primary came back without pg_rewind"
    );
    for agent in &cluster.agents {
        let count = sql::text(agent.postgres_port, "select count(*)::text from only_here").await?;
        ensure!(
            count == "0",
            "{} has {count} rows that were never replicated",
            agent.name
        );
    }

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}
