//! PostgreSQL runs and does not answer: its postmaster is stopped, its disk hangs, or it only looks like that.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{
    Agent, Disk, Signal, StoreKind, TestCluster, account, processes, sql, wait_until,
};
use serde_json::{Value, json};
use tokio::time::Instant;

on_both_stores!(stopped_postmaster_is_handed_over);

/// Seconds. Probes take five to notice, and a hand-over begins as soon as they have.
const HANG_TIMEOUT_S: u64 = 4;
/// For a hang to be seen, or its end: a round of probes, its pause, and a busy machine.
const NOTICED: Duration = Duration::from_secs(40);

/// A replica whose postmaster is stopped counts for nobody; a primary hands over, and comes back as a replica.
async fn stopped_postmaster_is_handed_over(store: StoreKind) -> Result<()> {
    let cluster = crate::cluster(store)
        .dynamic("primary_hang_timeout", json!(HANG_TIMEOUT_S))
        .start()
        .await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();
    let leader = cluster.leader().await?;

    let replica = cluster.others(leader)[0];
    let stopped = signal_postmaster(&cluster, replica, Signal::SIGSTOP)?;
    wait_until("the replica's hang to be seen", NOTICED, async || {
        let status = cluster.agents[replica].get("/patroni").await?;
        ensure!(status["hang"]["connection"].is_u64(), "{status}");
        ensure!(status.get("xlog").is_none(), "{status}");
        ensure!(cluster.agents[replica].check("/replica").await? == 503);
        Ok(())
    })
    .await?;
    processes::signal(stopped, Signal::SIGCONT);
    ensure!(cluster.wait_healthy().await? == leader);

    let stopped = signal_postmaster(&cluster, leader, Signal::SIGSTOP)?;
    wait_until("the primary's hang to be told", NOTICED, async || {
        let listed = cluster.control_ok(&["list", "-f", "json", SCOPE]).await?;
        let rows: Value = serde_json::from_str(&listed)?;
        // The replica's may be told still.
        let is_leader = |row: &&Value| row["Member"] == *cluster.agents[leader].name;
        let row = rows.as_array().into_iter().flatten().find(is_leader);
        let hang = row.and_then(|row| row["Hang"].as_str()).unwrap_or_default();
        ensure!(hang.starts_with("connection"), "{listed}");
        Ok(())
    })
    .await?;
    let new = cluster
        .wait_leader_other_than(leader, cluster.timing.failover() + NOTICED)
        .await?;
    ensure!(
        !processes::alive(stopped),
        "another leads while the stopped postmaster lives"
    );
    let journal = cluster.agents[leader].get("/journal").await?.to_string();
    ensure!(
        journal.contains("demoting self because PostgreSQL hangs (connection)"),
        "{journal}"
    );
    writer.wait_progress(cluster.timing.failover()).await?;
    ensure!(cluster.wait_healthy().await? == new);

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

/// What looks like a hang and is none keeps its leader, and so does a hang when nobody can take over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_must_stay_stays() -> Result<()> {
    let cluster = crate::cluster(StoreKind::Embedded)
        .dynamic("primary_hang_timeout", json!(HANG_TIMEOUT_S))
        .start()
        .await?;
    let leader = cluster.leader().await?;
    let agent = &cluster.agents[leader];
    let writers = cluster.direct_writers();

    // All connections are taken, and checkpoints follow each other.
    let mut taken = Vec::new();
    while let Ok(client) = sql::connect(agent.postgres_port, "crowd").await {
        taken.push(client);
    }
    let crowd = taken.first().context("no connection at all")?;
    let until = Instant::now() + Duration::from_secs(4 * HANG_TIMEOUT_S);
    while Instant::now() < until {
        crowd
            .batch_execute(
                "create temporary table if not exists t(x text); \
                            insert into t select repeat('x', 1000) from generate_series(1, 3000)",
            )
            .await?;
        crowd.batch_execute("checkpoint").await?;
        let status = agent.get("/patroni").await?;
        ensure!(status.get("hang").is_none(), "{status}");
        ensure!(agent.check("/primary").await? == 200);
    }
    drop(taken);
    ensure!(cluster.wait_healthy().await? == leader);

    // Nobody else could serve either.
    for other in cluster.others(leader) {
        signal_postmaster(&cluster, other, Signal::SIGSTOP)?;
    }
    for other in cluster.others(leader) {
        wait_until("the standby's hang to be seen", NOTICED, async || {
            let status = cluster.agents[other].get("/patroni").await?;
            ensure!(status["hang"]["connection"].is_u64(), "{status}");
            Ok(())
        })
        .await?;
    }
    let stopped = signal_postmaster(&cluster, leader, Signal::SIGSTOP)?;
    wait_until("the leader to say that it stays", NOTICED, async || {
        let journal = agent.get("/journal").await?.to_string();
        ensure!(journal.contains("nobody can take over"), "{journal}");
        Ok(())
    })
    .await?;
    ensure!(processes::alive(stopped) && cluster.leader().await? == leader);
    for member in 0..cluster.agents.len() {
        signal_postmaster(&cluster, member, Signal::SIGCONT)?;
    }
    cluster.wait_healthy().await?;

    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

/// The primary's disk answers nothing any more: another takes over, though the killed processes cannot even end. The
/// agent goes on answering, and the member comes back when the disk does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_is_handed_over() -> Result<()> {
    if !account::may_act_as_root()? {
        return Ok(());
    }
    let mut cluster = crate::cluster(StoreKind::Embedded)
        .dynamic("primary_hang_timeout", json!(HANG_TIMEOUT_S))
        .prepare()
        .await?;
    let mut disks = Vec::new();
    for agent in &cluster.agents {
        disks.push(disk(&cluster, &agent.data_dir())?);
    }
    cluster.start_all()?;
    let leader = cluster.wait_healthy().await?;
    cluster.create_ledger(leader).await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    disks[leader].freeze()?;
    let new = cluster
        .wait_leader_other_than(leader, cluster.timing.failover() + NOTICED)
        .await?;
    writer.wait_progress(cluster.timing.failover()).await?;
    let old = &cluster.agents[leader];
    let status = old.get("/patroni").await?;
    ensure!(status["role"] != "primary", "{status}");
    ensure!(old.check("/primary").await? == 503);
    disks[leader].thaw()?;
    ensure!(cluster.wait_healthy().await? == new);

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

/// The disk that the log goes to answers nothing any more, and the agent is told to open another log there: it goes on
/// deciding and renewing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_disk_that_hangs_stops_nothing() -> Result<()> {
    if !account::may_act_as_root()? {
        return Ok(());
    }
    let mut cluster = crate::cluster(StoreKind::Embedded).prepare().await?;
    let mut disks = Vec::new();
    for agent in &cluster.agents {
        disks.push(disk(&cluster, &agent.dir.join("logs"))?);
        log_to(&cluster, agent, &json!({"dir": agent.dir.join("logs")}))?;
    }
    cluster.start_all()?;
    let leader = cluster.wait_healthy().await?;
    cluster.create_ledger(leader).await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    disks[leader].freeze()?;
    let agent = &cluster.agents[leader];
    log_to(
        &cluster,
        agent,
        &json!({"dir": agent.dir.join("logs"), "mode": 0o644}),
    )?;
    agent.sighup()?;
    let until = Instant::now() + 3 * cluster.timing.ttl;
    while Instant::now() < until {
        ensure!(agent.check("/primary").await? == 200);
        writer.wait_progress(cluster.timing.ttl).await?;
    }
    disks[leader].thaw()?;
    ensure!(cluster.wait_healthy().await? == leader);

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

/// Puts the section, which is the last one, into the configuration.
fn log_to(cluster: &TestCluster, agent: &Agent, section: &Value) -> Result<()> {
    let text = std::fs::read_to_string(&agent.config)?;
    let text = text.split("\nlog:").next().unwrap_or_default();
    let account = cluster.scratch().account();
    account.write(&agent.config, &format!("{text}\nlog: {section}\n"))
}

fn signal_postmaster(
    cluster: &TestCluster,
    member: usize,
    signal: Signal,
) -> Result<primacy_testkit::Pid> {
    let agent = &cluster.agents[member];
    let pid = agent
        .postmaster_pid()
        .with_context(|| format!("no postmaster runs on {}", agent.name))?;
    processes::signal(pid, signal);
    Ok(pid)
}

/// Makes the directory, with a disk of its own that can be made to hang.
fn disk(cluster: &TestCluster, directory: &Path) -> Result<Disk> {
    std::fs::create_dir(directory)?;
    Disk::mount_file(directory, 400, cluster.scratch().account())
}
