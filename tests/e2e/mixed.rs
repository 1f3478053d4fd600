//! Agents of Python's Patroni and of this project in one cluster, on etcd: they see each other as equals.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::store::Store;
use primacy_testkit::{Implementation, StoreKind, TestCluster, wait_until};
use serde_json::{Value, json};

use Implementation::{Patroni, Primacy};

use crate::slots;

/// A cluster of Patroni's becomes one of Primacy's, node by node, and goes back, while a client writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_replacement_and_back() -> Result<()> {
    let mut cluster = crate::cluster(StoreKind::Etcd3)
        .patroni(&[0, 1, 2])
        .start()
        .await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    for (old, new) in [(Patroni, Primacy), (Primacy, Patroni)] {
        let leader = cluster.leader().await?;
        for member in cluster.others(leader) {
            replace(&mut cluster, member, new).await?;
            ensure!(
                cluster.wait_healthy().await? == leader,
                "replacing a replica moved the lead"
            );
        }
        // The last of the old ones hands over by the commands it came with.
        let printed = cluster
            .control_by(old, &["switchover", SCOPE, "--force"])
            .await?;
        ensure!(
            printed.contains("Successfully switched over to"),
            "{printed}"
        );
        ensure!(
            cluster.wait_healthy().await? != leader,
            "the lead did not move"
        );
        replace(&mut cluster, leader, new).await?;
        cluster.wait_healthy().await?;
        writer.wait_progress(cluster.timing.failover()).await?;
    }

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

async fn replace(cluster: &mut TestCluster, member: usize, by: Implementation) -> Result<()> {
    cluster.agents[member]
        .sigterm(cluster.timing.recovery())
        .await?;
    cluster.run_by(member, by)?;
    cluster.start_agent(member)
}

/// One member of each: whoever is lost, the other takes over, with its slots, and takes the lost one back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_takes_over_from_the_other() -> Result<()> {
    let mut cluster = crate::cluster(StoreKind::Etcd3)
        .members(2)
        .patroni(&[1])
        .dynamic("postgresql", slots::decoding())
        .start()
        .await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();
    slots::make_permanent_slots(&cluster).await?;
    let port = cluster.agents[cluster.leader().await?].postgres_port;
    slots::create_feed(port).await?;

    for round in 0..2 {
        for member in [0, 1] {
            slots::wait_slot(&cluster, member, "backup", true).await?;
            slots::wait_slot(&cluster, member, "cdc", true).await?;
        }
        let old = cluster.wait_healthy().await?;
        let ids = 100 * round..=100 * round + 99;
        slots::feed(cluster.agents[old].postgres_port, ids.clone()).await?;
        cluster.agents[old].kill_node().await?;
        let new = cluster.wait_new_leader(old).await?;
        let consumed = slots::consume(cluster.agents[new].postgres_port, "cdc").await?;
        ensure!(
            ids.clone().all(|id| consumed.contains(&id)),
            "the consumer misses changes of {ids:?}: {consumed:?}"
        );
        cluster.start_agent(old)?;
        cluster.wait_healthy().await?;
    }
    for _ in 0..2 {
        let old = cluster.leader().await?;
        cluster.agents[old]
            .sigterm(cluster.timing.recovery())
            .await?;
        cluster.wait_new_leader(old).await?;
        cluster.start_agent(old)?;
        cluster.wait_healthy().await?;
    }

    writer.wait_progress(cluster.timing.failover()).await?;
    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

/// Python's commands against our agents, and ours against Python's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_obeys_the_others_commands() -> Result<()> {
    let cluster = crate::cluster(StoreKind::Etcd3)
        .patroni(&[1])
        .start()
        .await?;
    let writer = cluster.writer().await?;
    let name = |member: usize| cluster.agents[member].name.as_str();

    for control in [Patroni, Primacy] {
        for _ in 0..2 {
            let leader = cluster.leader().await?;
            let candidate = cluster.synchronous_standby().await?;
            let printed = cluster
                .control_by(
                    control,
                    &[
                        "switchover",
                        SCOPE,
                        "--leader",
                        name(leader),
                        "--candidate",
                        name(candidate),
                        "--force",
                    ],
                )
                .await?;
            ensure!(
                printed.contains("Successfully switched over to"),
                "{control:?}: {printed}"
            );
            ensure!(
                cluster.wait_healthy().await? == candidate,
                "{control:?}: not the candidate leads"
            );
        }

        cluster
            .control_by(control, &["pause", "--wait", SCOPE])
            .await?;
        ensure!(is_paused(&cluster).await?, "{control:?}: not paused");
        cluster
            .control_by(control, &["resume", "--wait", SCOPE])
            .await?;
        ensure!(!is_paused(&cluster).await?, "{control:?}: still paused");

        for member in 0..3 {
            let printed = cluster
                .control_by(control, &["restart", SCOPE, name(member), "--force"])
                .await?;
            ensure!(
                printed.contains(&format!("Success: restart on member {}", name(member))),
                "{control:?}: {printed}"
            );
            cluster.wait_healthy().await?;
        }
        let leader = cluster.leader().await?;
        for member in cluster.others(leader) {
            let printed = cluster
                .control_by(
                    control,
                    &["reinit", SCOPE, name(member), "--force", "--wait"],
                )
                .await?;
            ensure!(
                printed.contains("Success: reinitialize for member"),
                "{control:?}: {printed}"
            );
            cluster.wait_healthy().await?;
        }
        cluster
            .control_by(
                control,
                &[
                    "edit-config",
                    SCOPE,
                    "--force",
                    "-s",
                    &format!(
                        "maximum_lag_on_failover={}",
                        2_000_000 + u32::from(control == Patroni)
                    ),
                ],
            )
            .await?;
    }
    for command in [
        &["list", SCOPE][..],
        &["list", "-f", "json", SCOPE],
        &["topology", SCOPE],
        &["history", SCOPE],
        &["show-config", SCOPE],
    ] {
        same_answer(&cluster, command).await?;
    }

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

async fn is_paused(cluster: &TestCluster) -> Result<bool> {
    let document = cluster.agents[0].get("/cluster").await?;
    Ok(document["pause"] == json!(true))
}

/// Positions move between two questions, so the answers must be the same once.
pub(crate) async fn same_answer(cluster: &TestCluster, command: &[&str]) -> Result<()> {
    wait_until(
        &format!("the same answer to {command:?}"),
        Duration::from_secs(60),
        async || {
            let theirs = cluster.control_by(Patroni, command).await?;
            let ours = cluster.control_by(Primacy, command).await?;
            ensure!(ours == theirs, "ours:\n{ours}\ntheirs:\n{theirs}");
            Ok(())
        },
    )
    .await
}

/// Quorum commit, with a Python leader and with one of ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quorum_commit_with_either_leader() -> Result<()> {
    let mut cluster = crate::cluster(StoreKind::Etcd3)
        .members(4)
        .dynamic("synchronous_mode", json!("quorum"))
        .dynamic("synchronous_node_count", json!(2))
        .patroni(&[1, 3])
        .start()
        .await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    let mut led = [false; 2];
    while led != [true; 2] {
        let old = cluster.leader().await?;
        led[old % 2] = true;
        wait_full_quorum(&cluster).await?;
        cluster.agents[old].kill_node().await?;
        let new = cluster.wait_new_leader(old).await?;
        cluster.start_agent(old)?;
        cluster.wait_healthy().await?;
        if led[new % 2] && led != [true; 2] {
            let other = cluster
                .others(new)
                .into_iter()
                .find(|member| !led[member % 2]);
            let candidate = cluster.agents[other.expect("one of each among the others")]
                .name
                .clone();
            cluster
                .control_by(
                    Patroni,
                    &["switchover", SCOPE, "--candidate", &candidate, "--force"],
                )
                .await?;
            cluster.wait_healthy().await?;
        }
    }
    writer.wait_progress(cluster.timing.failover()).await?;
    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

async fn wait_full_quorum(cluster: &TestCluster) -> Result<()> {
    wait_until(
        "all others to be quorum standbys",
        cluster.timing.recovery(),
        async || {
            let document = cluster.agents[cluster.leader().await?]
                .get("/cluster")
                .await?;
            let members = document["members"].as_array().into_iter().flatten();
            let standbys = members
                .filter(|member: &&Value| member["role"] == "quorum_standby")
                .count();
            ensure!(standbys == cluster.agents.len() - 1, "{document}");
            Ok(())
        },
    )
    .await
}

/// Failsafe mode: each stays primary without the store as long as the other accepts it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_accepts_the_other_in_failsafe_mode() -> Result<()> {
    let cluster = crate::cluster(StoreKind::Etcd3)
        .members(2)
        .patroni(&[1])
        .dynamic("failsafe_mode", json!(true))
        .start()
        .await?;
    let Store::Etcd3(etcd) = &cluster.store else {
        bail!("not on etcd")
    };
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    for handover in [false, true] {
        if handover {
            cluster
                .control_ok(&["switchover", SCOPE, "--force"])
                .await?;
        }
        let leader = cluster.wait_healthy().await?;
        let agent = &cluster.agents[leader];
        wait_until(
            "both members in /failsafe",
            cluster.timing.failover(),
            async || {
                let map = agent.get("/failsafe").await?;
                ensure!(map.as_object().is_some_and(|map| map.len() == 2), "{map}");
                Ok(())
            },
        )
        .await?;
        for member in 0..etcd.members() {
            etcd.kill_member(member)?;
        }
        let until = tokio::time::Instant::now() + cluster.timing.ttl + 2 * cluster.timing.loop_wait;
        while tokio::time::Instant::now() < until {
            ensure!(cluster.leader().await? == leader, "the lead moved");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        for agent in &cluster.agents {
            let status = agent.get("/patroni").await?;
            ensure!(
                status["failsafe_mode_is_active"] == true,
                "{}: {status}",
                agent.name
            );
        }
        writer.wait_progress(cluster.timing.failover()).await?;
        etcd.start_all()?;
        etcd.wait_healthy().await?;
        ensure!(cluster.wait_healthy().await? == leader, "the lead moved");
    }

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}
