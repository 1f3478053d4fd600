//! Restarts that wait for their time or their reason, and what becomes of a primary that dies. None of it depends on
//! the store.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{StoreKind, TestCluster, sql, wait_until};
use serde_json::{Value, json};

/// Long enough for a command to come before it, and the loops to sleep.
const AHEAD: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_and_switchovers_happen_when_they_are_due() -> Result<()> {
    // A standby waits for its release for two loops.
    let mut cluster = crate::cluster(StoreKind::Embedded)
        .dynamic("loop_wait", json!(3))
        .dynamic("ttl", json!(10))
        .start()
        .await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();
    let leader = cluster.leader().await?;

    // A parameter that takes a restart: told with both values, and no longer when it is taken back.
    let replica = cluster.others(leader)[0];
    set_max_connections(&cluster, 45).await?;
    let reason = json!({"max_connections": {"old_value": "40", "new_value": "45"}});
    wait_pending(&cluster, replica, &reason).await?;
    set_max_connections(&cluster, 40).await?;
    wait_pending(&cluster, replica, &Value::Null).await?;
    set_max_connections(&cluster, 45).await?;
    wait_pending(&cluster, replica, &reason).await?;

    scheduled_restart(&cluster, replica).await?;
    let connections = sql::text(
        cluster.agents[replica].postgres_port,
        "show max_connections",
    );
    ensure!(connections.await? == "45", "the restart changed nothing");
    wait_pending(&cluster, replica, &Value::Null).await?;
    ensure!(cluster.wait_healthy().await? == leader, "the lead moved");

    // A synchronous standby is released before it stops, by a restart and by the end of its agent.
    let standby = cluster.synchronous_standby().await?;
    let name = cluster.agents[standby].name.clone();
    cluster
        .control_ok(&["restart", SCOPE, &name, "--force"])
        .await?;
    released_first(&cluster, leader, standby, "restarting on request").await?;
    ensure!(cluster.wait_healthy().await? == leader, "the lead moved");
    let standby = cluster.synchronous_standby().await?;
    let status = cluster.agents[standby]
        .sigterm(Duration::from_secs(60))
        .await?;
    ensure!(status.success(), "the agent ended with {status}");
    writer.wait_progress(cluster.timing.failover()).await?;
    cluster.start_agent(standby)?;
    ensure!(cluster.wait_healthy().await? == leader, "the lead moved");
    released_first(&cluster, leader, standby, "shutting down").await?;

    scheduled_switchover(&cluster, leader).await?;
    writer.wait_progress(cluster.timing.failover()).await?;

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

/// A primary that dies is replaced at once with `primary_start_timeout: 0`, and started again otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn primary_start_timeout_decides_who_goes_on() -> Result<()> {
    let cluster = crate::cluster(StoreKind::Embedded)
        .dynamic("primary_start_timeout", json!(0))
        .start()
        .await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();
    let first = cluster.leader().await?;
    // A restart that somebody asked for is no crash.
    let name = &cluster.agents[first].name;
    cluster
        .control_ok(&["restart", SCOPE, name, "--force"])
        .await?;
    ensure!(
        cluster.wait_healthy().await? == first,
        "a restart moved the lead"
    );
    // It may have missed its standbys for a moment, and not told yet.
    wait_published(&cluster, first).await?;
    ensure!(cluster.wait_healthy().await? == first, "the lead moved");
    cluster.agents[first].sigkill_postmaster()?;
    let second = cluster.wait_new_leader(first).await?;
    ensure!(cluster.wait_healthy().await? == second, "the lead moved on");
    told(&cluster, first, |entry| {
        entry.text == "stopped PostgreSQL to fail over after a crash"
    })
    .await?;

    let arguments = [
        "edit-config",
        SCOPE,
        "-s",
        "primary_start_timeout=300",
        "--force",
    ];
    cluster.control_ok(&arguments).await?;
    let within = cluster.timing.failover();
    wait_until("the leader to know", within, async || {
        let config = cluster.agents[second].get("/config").await?;
        ensure!(config["primary_start_timeout"] == 300, "{config}");
        Ok(())
    })
    .await?;
    // The configuration is read at the beginning of a pass.
    tokio::time::timeout(within, writer.wait_progress(within)).await??;
    wait_published(&cluster, second).await?;
    let killed = cluster.agents[second].sigkill_postmaster()?;
    wait_until(
        "the server to run again",
        cluster.timing.recovery(),
        async || {
            let pid = cluster.agents[second].postmaster_pid();
            ensure!(pid.is_some_and(|pid| pid != killed), "{pid:?}");
            Ok(())
        },
    )
    .await?;
    ensure!(cluster.wait_healthy().await? == second, "the lead moved");
    told(&cluster, second, |entry| {
        entry.text == "starting primary after failure"
    })
    .await?;

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

async fn set_max_connections(cluster: &TestCluster, value: u32) -> Result<()> {
    let setting = format!("max_connections={value}");
    let arguments = ["edit-config", SCOPE, "--pg", &setting, "--force", "--quiet"];
    cluster.control_ok(&arguments).await?;
    Ok(())
}

/// Waits until the member tells this as the reason of its pending restart.
async fn wait_pending(cluster: &TestCluster, member: usize, reason: &Value) -> Result<()> {
    let within = cluster.timing.failover();
    wait_until("a pending restart to be told", within, async || {
        let status = cluster.agents[member].get("/patroni").await?;
        let told = &status["pending_restart_reason"];
        ensure!(told == reason, "{told}");
        ensure!(
            status["pending_restart"].is_null() == reason.is_null(),
            "{status}"
        );
        Ok(())
    })
    .await
}

/// Only if one is pending, at a time; it shows until then, and happens then.
async fn scheduled_restart(cluster: &TestCluster, member: usize) -> Result<()> {
    let agent = &cluster.agents[member];
    let before = agent.postmaster_pid();
    let due = Timestamp::now() + AHEAD;
    let arguments = [
        "restart",
        SCOPE,
        &agent.name,
        "--pending",
        "--force",
        "--scheduled",
        &due.to_string(),
    ];
    cluster.control_ok(&arguments).await?;
    let status = agent.get("/patroni").await?;
    ensure!(
        status["scheduled_restart"]["restart_pending"] == true,
        "no schedule in {status}"
    );
    let again = agent
        .send("POST", "/restart", &json!({"schedule": due.to_string()}))
        .await?;
    ensure!(again.status == 409, "{again:?}");
    wait_until(
        "the scheduled restart",
        AHEAD + cluster.timing.failover(),
        async || {
            ensure!(
                agent
                    .postmaster_pid()
                    .is_some_and(|pid| Some(pid) != before),
                "not yet"
            );
            ensure!(agent.check("/health").await? == 200, "it starts");
            Ok(())
        },
    )
    .await?;
    let restarted = told(cluster, member, |entry| {
        entry.text == "restarting on request"
    })
    .await?;
    ensure!(restarted.at >= due, "{} is before {due}", restarted.at);
    let status = agent.get("/patroni").await?;
    ensure!(status["scheduled_restart"].is_null(), "{status}");
    Ok(())
}

async fn scheduled_switchover(cluster: &TestCluster, leader: usize) -> Result<()> {
    // One that could not be acted on when it was due, since the store did not answer, is dropped: not in time is not asked for.
    let (candidate, due) = loop {
        let candidate = cluster.synchronous_standby().await?;
        let due = schedule_switchover(cluster, leader, candidate).await?;
        wait_until(
            "the switchover to be due",
            AHEAD + cluster.timing.failover(),
            async || {
                let document = cluster.agents[leader].get("/cluster").await?;
                ensure!(document["scheduled_switchover"].is_null(), "{document}");
                Ok(())
            },
        )
        .await?;
        let dropped = told(cluster, leader, |entry| {
            entry.at >= due && entry.text == "clearing the failover request"
        });
        if dropped.await.is_err() {
            break (candidate, due);
        }
    };
    let new = cluster.wait_new_leader(leader).await?;
    ensure!(new == candidate, "not the candidate leads");
    let demoted = told(cluster, leader, |entry| {
        entry.text == "switchover: demoting myself"
    })
    .await?;
    ensure!(demoted.at >= due, "{} is before {due}", demoted.at);
    ensure!(
        cluster.wait_healthy().await? == candidate,
        "the lead moved on"
    );
    Ok(())
}

/// To happen at the time that is returned.
async fn schedule_switchover(
    cluster: &TestCluster,
    leader: usize,
    candidate: usize,
) -> Result<Timestamp> {
    let due = Timestamp::now() + AHEAD;
    let (from, to) = (
        &cluster.agents[leader].name,
        &cluster.agents[candidate].name,
    );
    let arguments = [
        "switchover",
        SCOPE,
        "--leader",
        from,
        "--candidate",
        to,
        "--force",
        "--scheduled",
        &due.to_string(),
    ];
    cluster.control_ok(&arguments).await?;
    let document = cluster.agents[leader].get("/cluster").await?;
    ensure!(
        document["scheduled_switchover"]["to"] == **to,
        "no schedule in {document}"
    );
    Ok(due)
}

/// The leader took the standby out of `/sync` before the standby went on to stop.
async fn released_first(
    cluster: &TestCluster,
    leader: usize,
    standby: usize,
    stopping: &str,
) -> Result<()> {
    let name = &cluster.agents[standby].name;
    let stopped = told(cluster, standby, |entry| {
        entry.text == stopping && entry.step.starts_with("start: ")
    })
    .await?;
    let asked = told(cluster, standby, |entry| {
        entry.step == "ask to leave synchronous replication"
    })
    .await?;
    let released = entries(cluster, leader)
        .await?
        .into_iter()
        .rev()
        .find(|entry| {
            entry.step.starts_with("write /sync")
                && entry.at >= asked.at
                && entry.at <= stopped.at
                && !entry.step.contains(&format!("{name:?}"))
        });
    ensure!(
        released.is_some(),
        "{name} was not released between {} and {}",
        asked.at,
        stopped.at
    );
    Ok(())
}

/// What a journal says.
#[derive(Debug)]
struct Entry {
    at: Timestamp,
    text: String,
    step: String,
}

async fn entries(cluster: &TestCluster, member: usize) -> Result<Vec<Entry>> {
    let journal = cluster.agents[member].get("/journal?limit=5000").await?;
    let entries = journal.as_array().context("a journal")?.iter();
    entries
        .map(|entry| {
            Ok(Entry {
                at: entry["at"].as_str().context("a time")?.parse()?,
                text: entry["text"].as_str().unwrap_or_default().to_owned(),
                step: entry["step"].as_str().unwrap_or_default().to_owned(),
            })
        })
        .collect()
}

/// The newest entry that is like this.
async fn told(
    cluster: &TestCluster,
    member: usize,
    like: impl Fn(&Entry) -> bool,
) -> Result<Entry> {
    let entries = entries(cluster, member).await?;
    let name = &cluster.agents[member].name;
    match entries.iter().rposition(like) {
        Some(index) => Ok(entries.into_iter().nth(index).expect("it was found")),
        None => bail!("not told by {name}: {entries:#?}"),
    }
}

/// A whole loop has passed: the member read the configuration that was written before.
async fn wait_published(cluster: &TestCluster, member: usize) -> Result<()> {
    let seen = async || -> Result<i64> {
        let status = cluster.agents[member].get("/patroni").await?;
        status["dcs_last_seen"].as_i64().context("dcs_last_seen")
    };
    let before = seen().await?;
    wait_until("the next pass", cluster.timing.failover(), async || {
        ensure!(seen().await? > before + 1, "not yet");
        Ok(())
    })
    .await
}
