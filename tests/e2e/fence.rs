//! In asynchronous mode nothing but the fence keeps an old primary from acknowledging writes when its agent cannot
//! stop it.

use anyhow::{Result, ensure};
use primacy_testkit::{StoreKind, TestCluster, processes, wait_until};
use serde_json::json;

on_both_stores!(
    agent_frozen_in_asynchronous_mode,
    agent_killed_in_asynchronous_mode
);

async fn agent_frozen_in_asynchronous_mode(store: StoreKind) -> Result<()> {
    let cluster = asynchronous(store).await?;
    let writers = cluster.direct_writers();
    let old = cluster.leader().await?;
    let postmaster = cluster.agents[old].postmaster_pid();

    cluster.agents[old].sigstop()?;
    let new = cluster.wait_new_leader(old).await?;
    ensure!(
        !postmaster.is_some_and(processes::alive),
        "a replica took over while the old primary's server was alive"
    );
    cluster.agents[old].sigcont()?;
    ensure!(
        cluster.wait_healthy().await? == new,
        "the thawed primary took the lead again"
    );

    TestCluster::collect(writers)
        .await?
        .verify_single_writer()?;
    cluster.pass();
    Ok(())
}

async fn agent_killed_in_asynchronous_mode(store: StoreKind) -> Result<()> {
    let mut cluster = asynchronous(store).await?;
    let writers = cluster.direct_writers();
    let old = cluster.leader().await?;
    let postmaster = cluster.agents[old].postmaster_pid();

    cluster.agents[old].sigkill().await?;
    wait_until("the fence to act", cluster.timing.ttl * 2, async || {
        ensure!(
            !postmaster.is_some_and(processes::alive),
            "the old primary's server is alive"
        );
        Ok(())
    })
    .await?;
    let new = cluster.wait_new_leader(old).await?;
    cluster.start_agent(old)?;
    ensure!(
        cluster.wait_healthy().await? == new,
        "the returned primary took the lead again"
    );

    TestCluster::collect(writers)
        .await?
        .verify_single_writer()?;
    cluster.pass();
    Ok(())
}

async fn asynchronous(store: StoreKind) -> Result<TestCluster> {
    crate::cluster(store)
        .dynamic("synchronous_mode", json!(false))
        .start()
        .await
}
