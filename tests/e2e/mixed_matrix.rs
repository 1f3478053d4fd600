//! Every way to lose a primary, in every mode of replication, with Python's Patroni and this project on either side.

use anyhow::{Context, Result, bail, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{Implementation, StoreKind, TestCluster, wait_until};
use serde_json::{Value, json};

use Implementation::{Patroni, Primacy};

use crate::clients::check_patroni;
use crate::mixed::same_answer;
use crate::standby_cluster::wait_standby_leader;

/// The members that Python's Patroni runs; the first and the third are ours.
pub(crate) const THEIRS: [usize; 2] = [1, 3];

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The machine of the primary.
    Node,
    Postmaster,
    /// The agent is told to end, and stops its server.
    Agent,
    /// Ours is frozen for longer than its lease: the fence kills the server. Python's has none.
    Freeze,
    /// A standby of each, while the primary goes on.
    Standbys,
}

mod long {
    use serde_json::json;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "minutes"]
    async fn asynchronous() -> anyhow::Result<()> {
        super::every_fault(json!(false), false).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "minutes"]
    async fn synchronous() -> anyhow::Result<()> {
        super::every_fault(json!(true), false).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "minutes"]
    async fn strictly_synchronous() -> anyhow::Result<()> {
        super::every_fault(json!(true), true).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "minutes"]
    async fn quorum() -> anyhow::Result<()> {
        super::every_fault(json!("quorum"), false).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "minutes"]
    async fn two_mixed_sites() -> anyhow::Result<()> {
        super::sites().await
    }
}

pub(crate) fn runs(member: usize) -> Implementation {
    match THEIRS.contains(&member) {
        true => Patroni,
        false => Primacy,
    }
}

async fn every_fault(mode: Value, strict: bool) -> Result<()> {
    let synchronous = mode != json!(false);
    let mut cluster = crate::cluster(StoreKind::Etcd3)
        .members(4)
        .patroni(&THEIRS)
        .dynamic("synchronous_mode", mode)
        .dynamic("synchronous_mode_strict", json!(strict))
        // Whoever is to lead next has everything.
        .dynamic("synchronous_node_count", json!(3))
        .start()
        .await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    for leads in [Primacy, Patroni] {
        for fault in [
            Fault::Standbys,
            Fault::Node,
            Fault::Postmaster,
            Fault::Agent,
            Fault::Freeze,
        ] {
            if matches!((leads, fault), (Patroni, Fault::Freeze)) {
                continue;
            }
            let old = have_lead(&cluster, leads, synchronous).await?;
            println!("{fault:?} with {} in the lead", cluster.agents[old].name);
            inflict(&mut cluster, fault, old)
                .await
                .with_context(|| format!("{fault:?} with {leads:?} in the lead"))?;
            writer.wait_progress(cluster.timing.recovery()).await?;
            cluster.start_all()?;
            cluster.wait_healthy().await?;
        }
    }

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    match synchronous {
        true => cluster.finish(ledger).await,
        false => {
            // What only the lost primary had is lost with it, in asynchronous replication.
            ledger.verify_single_writer()?;
            cluster.pass();
            Ok(())
        }
    }
}

async fn inflict(cluster: &mut TestCluster, fault: Fault, old: usize) -> Result<()> {
    match fault {
        Fault::Node => {
            cluster.agents[old].kill_node().await?;
            cluster.wait_new_leader(old).await?;
        }
        Fault::Postmaster => {
            cluster.agents[old].sigkill_postmaster()?;
        }
        Fault::Agent => {
            cluster.agents[old]
                .sigterm(cluster.timing.recovery())
                .await?;
            cluster.wait_new_leader(old).await?;
        }
        Fault::Freeze => {
            cluster.agents[old].sigstop()?;
            let new = cluster.wait_new_leader(old).await;
            cluster.agents[old].sigcont()?;
            new?;
        }
        Fault::Standbys => {
            let others = cluster.others(old);
            let ours = others.iter().find(|member| runs(**member) == Primacy);
            let theirs = others.iter().find(|member| runs(**member) == Patroni);
            for standby in [ours, theirs].into_iter().flatten() {
                cluster.agents[*standby].kill_node().await?;
            }
        }
    }
    Ok(())
}

/// Hands the lead to a member of that implementation, by the other one's command, unless it has it.
pub(crate) async fn have_lead(
    cluster: &TestCluster,
    wanted: Implementation,
    synchronous: bool,
) -> Result<usize> {
    let leader = cluster.wait_healthy().await?;
    if synchronous {
        wait_all_synchronous(cluster).await?;
    }
    if runs(leader) == wanted {
        return Ok(leader);
    }
    let candidate = cluster
        .others(leader)
        .into_iter()
        .find(|member| runs(*member) == wanted);
    let candidate = candidate.context("there are two of each")?;
    let name = cluster.agents[candidate].name.clone();
    let control = match wanted {
        Primacy => Patroni,
        Patroni => Primacy,
    };
    let command = ["switchover", SCOPE, "--candidate", &name, "--force"];
    let printed = cluster.control_by(control, &command).await?;
    ensure!(
        printed.contains("Successfully switched over to"),
        "{printed}"
    );
    ensure!(
        cluster.wait_healthy().await? == candidate,
        "{name} does not lead"
    );
    if synchronous {
        wait_all_synchronous(cluster).await?;
    }
    Ok(candidate)
}

pub(crate) async fn wait_all_synchronous(cluster: &TestCluster) -> Result<()> {
    wait_until(
        "all standbys to be synchronous",
        cluster.timing.recovery(),
        async || {
            let leader = cluster.leader().await?;
            let document = cluster.agents[leader].get("/cluster").await?;
            let members = document["members"].as_array().into_iter().flatten();
            let standbys = members
                .filter(|member: &&Value| {
                    member["role"] == "sync_standby" || member["role"] == "quorum_standby"
                })
                .count();
            ensure!(standbys == cluster.agents.len() - 1, "{document}");
            Ok(())
        },
    )
    .await
}

/// A standby cluster of one of each follows a primary elsewhere; either leads it, and the commands of both show it alike
/// and change its role. So do the checks of check_patroni.
async fn sites() -> Result<()> {
    let first = crate::cluster(StoreKind::Embedded)
        .members(1)
        .dynamic("slots", json!({"site_b": {"type": "physical"}}))
        .start()
        .await?;
    let host = json!({
        "host": "127.0.0.1",
        "port": first.agents[0].postgres_port,
        "primary_slot_name": "site_b",
    });
    let mut second = crate::cluster(StoreKind::Etcd3)
        .members(2)
        .patroni(&[1])
        .dynamic("standby_cluster", host)
        .prepare()
        .await?;
    second.start_all()?;

    let mut checks = None;
    for _ in 0..2 {
        let old = wait_standby_leader(&second).await?;
        for command in ["list", "topology", "history", "show-config"] {
            same_answer(&second, &[command, SCOPE]).await?;
        }
        let told = check_patroni::of_standby_cluster(&second, old).await?;
        let before = checks.get_or_insert_with(|| told.clone());
        ensure!(
            told == *before,
            "with the roles exchanged, the checks say\n{told:#?}\nnot\n{before:#?}"
        );
        second.agents[old].kill_node().await?;
        let new = second.others(old)[0];
        wait_until(
            "the other to lead the standby cluster",
            second.timing.failover(),
            async || {
                let status = second.agents[new].check("/standby-leader").await?;
                ensure!(status == 200, "{status}");
                Ok(())
            },
        )
        .await?;
        second.start_agent(old)?;
        if wait_standby_leader(&second).await? != new {
            bail!("the lead of the standby cluster moved");
        }
    }
    // The sites change roles, by Python's command, and change back by ours.
    move_to(&second, &first, Patroni).await?;
    second.wait_healthy().await?;
    wait_standby_leader(&first).await?;
    move_to(&first, &second, Primacy).await?;
    wait_standby_leader(&second).await?;
    first.pass();
    second.pass();
    Ok(())
}

/// The site `to` becomes the primary one, and `from` follows it.
async fn move_to(to: &TestCluster, from: &TestCluster, control: Implementation) -> Result<()> {
    let host = wait_standby_leader(to).await?;
    let port = to.agents[host].postgres_port.to_string();
    let command = [
        "demote-cluster",
        SCOPE,
        "--host",
        "127.0.0.1",
        "--port",
        &port,
        "--force",
    ];
    from.control_ok(&command).await?;
    to.control_by(control, &["promote-cluster", SCOPE, "--force"])
        .await?;
    Ok(())
}
