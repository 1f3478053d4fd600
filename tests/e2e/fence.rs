//! In asynchronous mode nothing but the fence keeps an old primary from acknowledging writes when its agent cannot
//! stop it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{Agent, Pid, Signal, StoreKind, TestCluster, processes, wait_until};
use serde_json::json;

use crate::freeze_agent::freeze;

on_both_stores!(
    agent_frozen_in_asynchronous_mode,
    agent_killed_in_asynchronous_mode
);

/// What is promised without synchronous mode. With it, not one commit is acknowledged twice: `freeze_agent`.
const OVERLAP_MAX: Duration = Duration::from_secs(2);

async fn agent_frozen_in_asynchronous_mode(store: StoreKind) -> Result<()> {
    let cluster = asynchronous(store).await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    freeze(&cluster, &writer).await?;

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    let overlap = ledger.overlap();
    println!("two servers acknowledged commits for {overlap:?}");
    ensure!(overlap <= OVERLAP_MAX, "two primaries for {overlap:?}");
    ledger.verify_single_writer()?;
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

/// The fence's own process is killed: it comes back. Where it cannot, and is required, another member leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fence_itself_is_killed() -> Result<()> {
    let mut cluster = crate::cluster(StoreKind::Embedded)
        .dynamic("synchronous_mode", json!(false))
        .prepare()
        .await?;
    for agent in &cluster.agents {
        let text = std::fs::read_to_string(&agent.config)?;
        cluster.scratch().account().write(
            &agent.config,
            &format!("{text}fencing: {{mode: required}}\n"),
        )?;
    }
    cluster.start_all()?;
    let leader = cluster.wait_healthy().await?;
    let within = cluster.timing.failover();

    let before = wait_until("the fence", within, async || {
        armed(&cluster.agents[leader]).await
    })
    .await?;
    processes::signal(before, Signal::SIGKILL);
    let after = wait_until("another fence", within, async || {
        let pid = armed(&cluster.agents[leader]).await?;
        ensure!(pid != before, "it is the old one");
        Ok(pid)
    })
    .await?;
    ensure!(cluster.wait_healthy().await? == leader);
    let listed = cluster.control_ok(&["list", "--extended", SCOPE]).await?;
    ensure!(listed.contains("armed"), "{listed}");

    // Without its executable it cannot be started again. Those of the others are there already.
    let aside = cluster.executable.with_extension("aside");
    std::fs::rename(&cluster.executable, &aside)?;
    processes::signal(after, Signal::SIGKILL);
    let new = cluster.wait_new_leader(leader).await?;
    std::fs::rename(&aside, &cluster.executable)?;
    let journal = cluster.agents[leader].get("/journal").await?.to_string();
    ensure!(
        journal.contains("demoting self because the fence cannot be started"),
        "{journal}"
    );
    ensure!(cluster.wait_healthy().await? == new);
    cluster.pass();
    Ok(())
}

/// The agent's fence, when it holds the deadline.
async fn armed(agent: &Agent) -> Result<Pid> {
    let status = agent.get("/patroni").await?;
    ensure!(status["fence"] == "armed", "{status}");
    let pid = agent.pid().context("the agent runs")?;
    let is_fence = |pid: &Pid| {
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
        command.is_ok_and(|command| command.split('\0').nth(1) == Some("fence"))
    };
    let below = processes::descendants(pid);
    below.into_iter().find(is_fence).context("no fence")
}
