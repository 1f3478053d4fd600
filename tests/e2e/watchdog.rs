//! The watchdog device. Test machines have none, so that one of the test's takes its place in the agents' own calls
//! (`crates/testkit/src/watchdog.rs`).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::watchdog::{Hardware, Told};
use primacy_testkit::{Agent, StoreKind, TestCluster, WatchdogDevice, wait_until};
use serde_json::json;

/// Seconds between the end of the device's time and of the lease's. The default would leave a leader that has lost its
/// store too little to demote itself: the leases of these tests are short.
const SAFETY_MARGIN: u64 = 2;
/// More than the least, so that a leader which has lost its store has done its demotion before the device's time is over.
/// etcd's least has room for that.
fn ttl(store: StoreKind) -> u64 {
    match store {
        StoreKind::Embedded => 10,
        StoreKind::Etcd3 => 20,
    }
}

/// Set before the promotion, pinged by renewals alone, stopped in pause and with the server, left counting by an agent
/// that is killed, and done before its lease; and a member whose device will not do does not lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_required_watchdog_decides_who_leads() -> Result<()> {
    let builder = crate::cluster(StoreKind::Embedded);
    let ttl = ttl(builder.store());
    let mut cluster = builder
        .dynamic("synchronous_mode", json!(false))
        .dynamic("ttl", json!(ttl))
        .prepare()
        .await?;
    let mut devices = Vec::new();
    for member in 0..cluster.agents.len() {
        let device = cluster.plug_watchdog_into(member)?;
        require(&cluster, &cluster.agents[member], device.path())?;
        devices.push(device);
    }
    cluster.start_all()?;
    let first = cluster.wait_healthy().await?;
    let within = cluster.timing.failover();
    let timeout = u32::try_from(ttl - SAFETY_MARGIN)?;
    // What is heard late sets what is left of the lease first.
    let activates = |told: &[Told], standby| {
        told.starts_with(&[Told::Open { standby }, Told::GetSupport])
            && told
                .windows(3)
                .any(|told| told == [Told::SetTimeout(timeout), Told::GetTimeout, Told::Ping])
    };
    wait_until("pings", within, async || {
        let told = devices[first].log().told();
        let pings = told.ends_with(&[Told::Ping; 2]);
        ensure!(pings && activates(&told, false), "{told:?}");
        Ok(())
    })
    .await?;
    for other in cluster.others(first) {
        let told = devices[other].log().told();
        ensure!(told.is_empty(), "a replica's device was told {told:?}");
    }

    cluster.control_ok(&["pause", SCOPE, "--wait"]).await?;
    wait_stopped(&cluster, &devices[first]).await?;
    cluster.control_ok(&["resume", SCOPE, "--wait"]).await?;
    wait_until("the device to be set again", within, async || {
        let told = devices[first].log().told();
        let closed = told.iter().rposition(|told| *told == Told::Closed);
        let since = &told[closed.context("never closed")? + 1..];
        ensure!(activates(since, false), "{told:?}");
        Ok(())
    })
    .await?;

    // Without its agent a device counts on. Nobody opens one before the lease of the last leader has ended.
    cluster.agents[first].sigkill().await?;
    let second = cluster.wait_new_leader(first).await?;
    let (left, taken) = (devices[first].log(), devices[second].log());
    ensure!(
        left.told().ends_with(&[Told::LeftCounting, Told::Reset]),
        "{left}"
    );
    let told = taken.told();
    ensure!(
        told.starts_with(&[Told::Open { standby: true }, Told::GetSupport]),
        "{taken}"
    );
    let (reset, opened) = (
        left.last(Told::Reset),
        taken.last(Told::Open { standby: true }),
    );
    ensure!(reset < opened, "the lease ended first:\n{left}{taken}");
    cluster.start_agent(first)?;
    ensure!(cluster.wait_healthy().await? == second);

    // One member has no device any more, another one that resets too late and cannot be told otherwise.
    let third = 3 - first - second;
    let missing = &cluster.agents[first];
    require(
        &cluster,
        missing,
        &devices[first].path().with_extension("gone"),
    )?;
    missing.sighup()?;
    devices[third].replace(Hardware {
        settable: false,
        ..Hardware::default()
    });
    wait_failed(&cluster, missing).await?;
    cluster.agents[second].sigterm(within).await?;
    let told = devices[second].log().told();
    ensure!(
        told.ends_with(&[Told::MagicClose, Told::Closed]),
        "{told:?}"
    );
    wait_until("the refusal to lead", within, async || {
        let journal = cluster.agents[third].get("/journal").await?.to_string();
        let refusal = "Not promoting self because watchdog could not be activated";
        ensure!(journal.contains(refusal), "{journal}");
        Ok(())
    })
    .await?;
    wait_failed(&cluster, &cluster.agents[third]).await?;
    let told = devices[third].log().told();
    let refused = [
        Told::Open { standby: true },
        Told::GetSupport,
        Told::GetTimeout,
        Told::MagicClose,
        Told::Closed,
    ];
    let tries = told.chunks(refused.len());
    ensure!(
        tries.len() > 0 && tries.into_iter().all(|told| told == refused),
        "{told:?}"
    );
    cluster.start_agent(second)?;
    ensure!(cluster.wait_healthy().await? == second);

    // No renewal is confirmed any more but one that was under way.
    cluster.take_quorum_away(second).await?;
    let before = pings(&devices[second]);
    wait_stopped(&cluster, &devices[second]).await?;
    let log = devices[second].log();
    ensure!(
        pings(&devices[second]) <= before + 1,
        "{before} pings:\n{log}"
    );
    ensure!(!log.told().contains(&Told::Reset), "{log}");
    cluster.pass();
    Ok(())
}

/// Puts the section, which is the last one, into the configuration.
fn require(cluster: &TestCluster, agent: &Agent, device: &Path) -> Result<()> {
    let text = fs::read_to_string(&agent.config)?;
    let text = text.split("watchdog:").next().unwrap_or_default();
    let section = json!({"mode": "required", "device": device, "safety_margin": SAFETY_MARGIN});
    cluster
        .scratch()
        .account()
        .write(&agent.config, &format!("{text}watchdog: {section}\n"))
}

/// Waits until the member says that it may not lead.
async fn wait_failed(cluster: &TestCluster, agent: &Agent) -> Result<()> {
    let within = cluster.timing.failover();
    wait_until("the device's failure to be told", within, async || {
        let status = agent.get("/patroni").await?;
        ensure!(status["watchdog_failed"] == true, "{status}");
        Ok(())
    })
    .await
}

async fn wait_stopped(cluster: &TestCluster, device: &WatchdogDevice) -> Result<()> {
    let within = cluster.timing.failover();
    wait_until("the device to be stopped", within, async || {
        let told = device.log().told();
        let stopped = [Told::MagicClose, Told::Closed];
        ensure!(told.ends_with(&stopped), "{told:?}");
        Ok(())
    })
    .await
}

fn pings(device: &WatchdogDevice) -> usize {
    let told = device.log().told();
    told.iter().filter(|told| **told == Told::Ping).count()
}
