//! What a member's tags do, in real failovers and on real connections (`ha.md` §17).

use anyhow::{Result, ensure};
use primacy_testkit::{StoreKind, TestCluster, wait_until};
use serde_json::{Value, json};

use crate::mixed_matrix::wait_all_synchronous;
use crate::mixed_tags::{
    check, set_tags, wait_all_everywhere, wait_slot, wait_synchronous, wait_upstream,
};
use crate::synchrony::configure;

/// Nothing writes: in the race by priority, positions must be equal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leads_and_who_is_synchronous() -> Result<()> {
    let mut cluster = crate::cluster(StoreKind::Embedded)
        .members(4)
        .start()
        .await?;
    let leader = cluster.leader().await?;

    // nosync takes the place away from who has it, sync_priority takes it from who is as good otherwise.
    let first = cluster.synchronous_standby().await?;
    let aside = json!({"nosync": true, "noloadbalance": true});
    set_tags(&cluster, first, aside).await?;
    let rest = wait_until(
        "another synchronous standby",
        cluster.timing.recovery(),
        async || {
            let standby = cluster.synchronous_standby().await?;
            ensure!(standby != first, "it is still the same");
            Ok(standby)
        },
    )
    .await?;
    let mut preferred = cluster.others(leader);
    preferred.retain(|member| ![first, rest].contains(member));
    let preferred = preferred[0];
    set_tags(&cluster, preferred, json!({"sync_priority": 2})).await?;
    wait_synchronous(&cluster, leader, &[preferred]).await?;
    for (member, path, expected) in [
        (preferred, "/sync", 200),
        (rest, "/sync", 503),
        (rest, "/async", 200),
        (rest, "/replica", 200),
        (first, "/replica", 503),
        (first, "/health", 200),
    ] {
        check(&cluster, member, path, expected).await?;
    }

    // The only one that has everything is nofailover: nobody leads, be it asked for or needed.
    let synchronous = json!({"sync_priority": 2, "nofailover": true});
    set_tags(&cluster, preferred, synchronous).await?;
    set_tags(&cluster, rest, json!({"nosync": true})).await?;
    wait_synchronous(&cluster, leader, &[preferred]).await?;
    let name = |member: usize| &cluster.agents[member].name;
    for (path, request) in [
        (
            "/switchover",
            json!({"leader": name(leader), "candidate": name(preferred)}),
        ),
        ("/failover", json!({"candidate": name(preferred)})),
    ] {
        let answer = cluster.agents[rest].send("POST", path, &request).await?;
        ensure!(answer.status == 412, "{path}: {answer:?}");
    }
    cluster.agents[leader].kill_node().await?;
    wait_told(&cluster, preferred, "tagged nofailover").await?;
    for member in [first, rest] {
        wait_told(&cluster, member, "I am not in /sync").await?;
    }
    wait_nobody_leads(&cluster).await?;
    set_tags(&cluster, preferred, json!({"sync_priority": 2})).await?;
    let new = cluster.wait_new_leader(leader).await?;
    ensure!(new == preferred, "{} leads", cluster.agents[new].name);
    cluster.start_agent(leader)?;
    cluster.wait_healthy().await?;
    for member in 0..cluster.agents.len() {
        set_tags(&cluster, member, json!({})).await?;
    }

    // Of those that have everything, the one with the highest failover_priority leads.
    configure(&cluster, new, json!({"synchronous_node_count": 3})).await?;
    wait_all_synchronous(&cluster).await?;
    for (member, priority) in cluster.others(new).into_iter().zip([1, 3, 2]) {
        set_tags(&cluster, member, json!({"failover_priority": priority})).await?;
    }
    let expected = cluster.others(new)[1];
    wait_all_everywhere(&cluster, new).await?;
    cluster.agents[new].kill_node().await?;
    let leads = cluster.wait_new_leader(new).await?;
    ensure!(leads == expected, "{} leads", cluster.agents[leads].name);
    cluster.start_agent(new)?;
    cluster.wait_healthy().await?;
    cluster.pass();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_streams_from_whom() -> Result<()> {
    let logged = json!({"parameters": {"log_replication_commands": "on"}});
    let mut cluster = crate::cluster(StoreKind::Embedded)
        .members(4)
        .dynamic("synchronous_node_count", json!(3))
        // A slot is kept for so long after the member that it is for wants none.
        .dynamic("member_slots_ttl", json!("4s"))
        .merge_dynamic("postgresql", &logged)
        .start()
        .await?;
    let leader = cluster.leader().await?;
    let [source, last, cut_off] = cluster.others(leader)[..] else {
        anyhow::bail!("there are four");
    };
    let from = json!({"replicatefrom": cluster.agents[source].name});
    set_tags(&cluster, source, json!({"clonefrom": true})).await?;
    set_tags(&cluster, last, from).await?;
    set_tags(&cluster, cut_off, json!({"nostream": true})).await?;
    wait_upstream(&cluster, last, Some(source)).await?;
    wait_upstream(&cluster, cut_off, None).await?;
    wait_slot(&cluster, source, last, "true").await?;
    wait_slot(&cluster, leader, last, "false").await?;
    for member in [leader, source, last] {
        wait_slot(&cluster, member, cut_off, "").await?;
    }
    // Neither who streams from another standby nor who does not stream can hold commits up.
    wait_synchronous(&cluster, leader, &[source]).await?;

    let backups = |member: usize| -> Result<usize> {
        let log = cluster.agents[member].dir.join("log/postgresql.log");
        let log = String::from_utf8_lossy(&std::fs::read(log)?).into_owned();
        let command = "received replication command: BASE_BACKUP";
        Ok(log.matches(command).count())
    };
    let before = (backups(leader)?, backups(source)?);
    let agent = &cluster.agents[cut_off];
    let postmaster = agent.postmaster_pid();
    let answer = agent.send("POST", "/reinitialize", &json!({})).await?;
    ensure!(answer.status == 200, "{answer:?}");
    wait_until("the copy", cluster.timing.recovery(), async || {
        ensure!(agent.postmaster_pid() != postmaster, "not begun");
        let status = agent.get("/patroni").await?;
        ensure!(status["state"] == "running", "{status}");
        Ok(())
    })
    .await?;
    let after = (backups(leader)?, backups(source)?);
    ensure!(
        after == (before.0, before.1 + 1),
        "copies of the leader and of the one to clone from: {before:?} before, {after:?} after"
    );

    // Without its source, a standby streams from the leader, until the source is back.
    cluster.agents[source].kill_node().await?;
    wait_upstream(&cluster, last, Some(leader)).await?;
    wait_synchronous(&cluster, leader, &[last]).await?;
    cluster.start_agent(source)?;
    wait_upstream(&cluster, last, Some(source)).await?;
    for member in cluster.others(leader) {
        set_tags(&cluster, member, json!({})).await?;
    }
    ensure!(cluster.wait_healthy().await? == leader, "the lead moved");
    wait_slot(&cluster, leader, cut_off, "true").await?;
    cluster.pass();
    Ok(())
}

/// Waits until the member's journal has this, be it of now or of before.
pub(crate) async fn wait_told(cluster: &TestCluster, member: usize, text: &str) -> Result<()> {
    let agent = &cluster.agents[member];
    let what = format!("{} to tell {text:?}", agent.name);
    let within = cluster.timing.recovery();
    wait_until(&what, within, async || {
        let journal = agent.get("/journal?limit=5000").await?;
        let entries = journal.as_array().into_iter().flatten();
        let last: Vec<&Value> = entries.clone().rev().take(5).collect();
        let mut told = entries.map(Value::to_string);
        ensure!(told.any(|entry| entry.contains(text)), "{last:?}");
        Ok(())
    })
    .await
}

/// Waits until all members that run see that nobody holds the lock, and none of them is a primary.
pub(crate) async fn wait_nobody_leads(cluster: &TestCluster) -> Result<()> {
    let what = "nobody to lead, and all to know";
    wait_until(what, cluster.timing.failover(), async || {
        let running = cluster.agents.iter().filter(|agent| agent.pid().is_some());
        for agent in running {
            let status = agent.get("/patroni").await?;
            ensure!(status["role"] == "replica", "{status}");
            ensure!(status["cluster_unlocked"] == true, "{status}");
        }
        Ok(())
    })
    .await
}
