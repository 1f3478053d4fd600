//! The watchdog device, by the driver that writes what a device would be told, since test machines have none.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{Agent, StoreKind, TestCluster, wait_until};
use serde_json::json;

/// Set before the promotion, pinged by renewals, stopped in pause and with the server; and a member whose device is none
/// does not lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_required_watchdog_decides_who_leads() -> Result<()> {
    let mut cluster = crate::cluster(StoreKind::Embedded)
        .dynamic("synchronous_mode", json!(false))
        .prepare()
        .await?;
    for agent in &cluster.agents {
        cluster.scratch().account().write(&device(agent), "")?;
        configure(&cluster, agent, "testing", &device(agent))?;
    }
    cluster.start_all()?;
    let leader = cluster.wait_healthy().await?;
    let others = cluster.others(leader);
    let within = cluster.timing.failover();
    // The lease, less the safety margin of five seconds.
    let set = format!("Ctimeout={}\n1", cluster.timing.ttl.as_secs() - 5);
    wait_until("pings", within, async || {
        let told = told(&cluster.agents[leader])?;
        ensure!(told.starts_with(&format!("{set}1")), "{told:?}");
        Ok(())
    })
    .await?;
    for other in &others {
        let told = told(&cluster.agents[*other])?;
        ensure!(told.is_empty(), "a replica's device was told {told:?}");
    }

    cluster.control_ok(&["pause", SCOPE, "--wait"]).await?;
    wait_until("the device to be stopped", within, async || {
        let told = told(&cluster.agents[leader])?;
        ensure!(told.ends_with('V'), "{told:?}");
        Ok(())
    })
    .await?;
    cluster.control_ok(&["resume", SCOPE, "--wait"]).await?;
    wait_until("the device to be set again", within, async || {
        let told = told(&cluster.agents[leader])?;
        ensure!(told.contains(&format!("V{set}")), "{told:?}");
        Ok(())
    })
    .await?;

    // One has no device any more, the other a file that is none.
    let (missing, no_device) = (&cluster.agents[others[0]], &cluster.agents[others[1]]);
    configure(
        &cluster,
        missing,
        "default",
        &device(missing).with_extension("gone"),
    )?;
    configure(&cluster, no_device, "default", &device(no_device))?;
    for agent in [missing, no_device] {
        agent.sighup()?;
    }
    wait_until("the missing device to be told", within, async || {
        let status = missing.get("/patroni").await?;
        ensure!(status["watchdog_failed"] == true, "{status}");
        Ok(())
    })
    .await?;
    cluster.agents[leader].sigterm(within).await?;
    ensure!(told(&cluster.agents[leader])?.ends_with('V'));
    let no_device = &cluster.agents[others[1]];
    wait_until("the refusal to lead", within, async || {
        let journal = no_device.get("/journal").await?.to_string();
        ensure!(
            journal.contains("Not promoting self because watchdog could not be activated"),
            "{journal}"
        );
        let status = no_device.get("/patroni").await?;
        ensure!(status["watchdog_failed"] == true, "{status}");
        Ok(())
    })
    .await?;
    ensure!(told(no_device)?.is_empty(), "the file was written to");
    cluster.start_agent(leader)?;
    ensure!(cluster.wait_healthy().await? == leader);
    cluster.pass();
    Ok(())
}

fn device(agent: &Agent) -> PathBuf {
    agent.dir.join("watchdog")
}

/// What the device was told so far.
fn told(agent: &Agent) -> Result<String> {
    fs::read_to_string(device(agent)).context("no device")
}

/// Puts the section, which is the last one, into the configuration.
fn configure(cluster: &TestCluster, agent: &Agent, driver: &str, device: &PathBuf) -> Result<()> {
    let text = fs::read_to_string(&agent.config)?;
    let text = text.split("watchdog:").next().unwrap_or_default();
    let section = json!({"mode": "required", "driver": driver, "device": device});
    cluster
        .scratch()
        .account()
        .write(&agent.config, &format!("{text}watchdog: {section}\n"))
}
