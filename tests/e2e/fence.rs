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

/// A margin that leaves no time to renew the lease, and memory that may not be locked, are told, and harm nothing. An agent
/// that comes back and wants no fence any more ends that of the agent before it, which would kill the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_configuration_wants_of_the_fence() -> Result<()> {
    // The margin is cut to what leaves `retry_timeout` and `loop_wait`: time for an agent that begins, too.
    let mut cluster = crate::cluster(StoreKind::Embedded)
        .dynamic("ttl", json!(16))
        .dynamic("retry_timeout", json!(8))
        .prepare()
        .await?;
    let configure = |cluster: &TestCluster, fencing: &str| -> Result<()> {
        for agent in &cluster.agents {
            let text = std::fs::read_to_string(&agent.config)?;
            let text = text.split("fencing:").next().unwrap_or_default();
            let text = format!("{text}fencing: {fencing}\n");
            cluster.scratch().account().write(&agent.config, &text)?;
        }
        Ok(())
    };
    configure(&cluster, "{safety_margin: 100}")?;
    cluster.start_all()?;
    let leader = cluster.wait_healthy().await?;
    cluster.create_ledger(leader).await?;
    let writer = cluster.writer().await?;
    let timing = cluster.timing;
    let postmaster = cluster.agents[leader].postmaster_pid();
    let runs_on = async |cluster: &TestCluster| {
        // Long enough for the fence to act, were it not told of the renewals.
        let quiet_until = tokio::time::Instant::now() + 2 * timing.ttl;
        while tokio::time::Instant::now() < quiet_until {
            writer.wait_progress(timing.ttl).await?;
            ensure!(
                cluster.agents[leader].postmaster_pid() == postmaster,
                "the server was restarted"
            );
        }
        Ok(())
    };
    runs_on(&cluster).await?;
    let fence = wait_until("the fence", timing.failover(), async || {
        armed(&cluster.agents[leader]).await
    })
    .await?;
    let log = cluster.agents[leader].log();
    ensure!(
        log.contains("Adjusting fencing.safety_margin from 100 to"),
        "the margin was not told"
    );
    let status = std::fs::read_to_string(format!("/proc/{fence}/status"))?;
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    let locked = locked.is_some_and(|locked| !locked.trim().starts_with('0'));
    ensure!(
        locked != log.contains("the fence may not lock itself into memory"),
        "locked: {locked}"
    );

    configure(&cluster, "{mode: off}")?;
    cluster.agents[leader].sigkill().await?;
    cluster.start_agent(leader)?;
    wait_until("the fence to be gone", timing.failover(), async || {
        ensure!(!processes::alive(fence), "it lives");
        let status = cluster.agents[leader].get("/patroni").await?;
        ensure!(status.get("fence").is_none(), "{status}");
        Ok(())
    })
    .await?;
    runs_on(&cluster).await?;
    ensure!(cluster.wait_healthy().await? == leader, "the lead moved");
    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
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
