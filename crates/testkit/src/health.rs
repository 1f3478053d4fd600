//! What a healthy cluster looks like, to the REST API, to SQL and to `list`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::TestCluster;
use crate::sql;

/// One server as SQL shows it.
struct Truth {
    in_recovery: bool,
    timeline: i64,
    /// The port of the server that it streams from, if it streams.
    streams_from: Option<i32>,
}

const TRUTH: &str = "select pg_is_in_recovery(), \
     case when pg_is_in_recovery() then received_tli::bigint \
          else ('x' || lpad(substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), 16, '0'))::bit(64)::bigint end, \
     case when status = 'streaming' then sender_port end \
     from (select 1) one left join pg_stat_wal_receiver on true";

async fn truth(cluster: &TestCluster, member: usize) -> Result<Truth> {
    let agent = &cluster.agents[member];
    let rows = sql::rows(agent.postgres_port, TRUTH)
        .await
        .with_context(|| agent.name.clone())?;
    let row = rows.first().context("no row")?;
    Ok(Truth {
        in_recovery: row.try_get(0)?,
        timeline: row
            .try_get::<_, Option<i64>>(1)?
            .with_context(|| format!("{} receives nothing", agent.name))?,
        streams_from: row.try_get(2)?,
    })
}

/// Checks that there is one primary, which all others stream from, and returns it.
pub(crate) async fn check(cluster: &TestCluster) -> Result<usize> {
    let leader = cluster.leader().await?;
    let document = cluster.agents[leader].get("/cluster").await?;
    check_document(cluster, leader, &document)
        .with_context(|| format!("in /cluster {document}"))?;
    check_truth(cluster, leader).await?;
    Ok(leader)
}

fn check_document(cluster: &TestCluster, leader: usize, document: &Value) -> Result<()> {
    let members = document["members"].as_array().context("no members")?;
    ensure!(
        members.len() == cluster.agents.len(),
        "{} members",
        members.len()
    );
    let mut synchronous = 0;
    for (index, agent) in cluster.agents.iter().enumerate() {
        let member = members.iter().find(|member| member["name"] == *agent.name);
        let member = member.with_context(|| format!("no {}", agent.name))?;
        let (role, state) = (
            member["role"].as_str().unwrap_or(""),
            member["state"].as_str().unwrap_or(""),
        );
        let expected = if index == leader {
            "running"
        } else {
            "streaming"
        };
        ensure!(
            state == expected,
            "{} is {state:?}, not {expected}",
            agent.name
        );
        ensure!(
            (role == "leader") == (index == leader),
            "{} is {role:?}",
            agent.name
        );
        ensure!(
            member["timeline"].as_i64().is_some(),
            "{} has no timeline",
            agent.name
        );
        synchronous += usize::from(matches!(role, "sync_standby" | "quorum_standby"));
    }
    ensure!(
        synchronous > 0 || cluster.agents.len() == 1 || !cluster.synchronous,
        "no synchronous standby"
    );
    Ok(())
}

async fn check_truth(cluster: &TestCluster, leader: usize) -> Result<()> {
    let primary = truth(cluster, leader).await?;
    ensure!(
        !primary.in_recovery,
        "{} is in recovery",
        cluster.agents[leader].name
    );
    for member in cluster.others(leader) {
        let replica = truth(cluster, member).await?;
        let name = &cluster.agents[member].name;
        ensure!(replica.in_recovery, "{name} is not in recovery");
        let leader_port = i32::from(cluster.agents[leader].postgres_port);
        ensure!(
            replica.streams_from == Some(leader_port),
            "{name} streams from {:?}",
            replica.streams_from
        );
        ensure!(
            replica.timeline == primary.timeline,
            "{name} is on timeline {}, the primary on {}",
            replica.timeline,
            primary.timeline
        );
    }
    Ok(())
}

/// Compares the rows of `list -f json` with what the servers say.
pub(crate) async fn check_list(cluster: &TestCluster, listed: &Value) -> Result<()> {
    let listed = listed.as_array().context("`list` printed no array")?;
    ensure!(
        listed.len() == cluster.agents.len(),
        "`list` has {} rows",
        listed.len()
    );
    let leader = cluster.leader().await?;
    let synchronous = sql::rows(
        cluster.agents[leader].postgres_port,
        "select application_name, sync_state from pg_stat_replication where sync_state in ('sync', 'quorum')",
    )
    .await?;
    let synchronous: BTreeMap<String, String> = synchronous
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    for (index, agent) in cluster.agents.iter().enumerate() {
        let truth = truth(cluster, index).await?;
        let expected = if !truth.in_recovery {
            ("Leader", "running")
        } else {
            let role = match synchronous.get(&agent.name).map(String::as_str) {
                Some("quorum") => "Quorum Standby",
                Some(_) => "Sync Standby",
                None => "Replica",
            };
            (role, "streaming")
        };
        let row = listed.iter().find(|row| row["Member"] == *agent.name);
        let row = row.with_context(|| format!("`list` has no {}", agent.name))?;
        ensure!(
            row["Role"] == expected.0 && row["State"] == expected.1,
            "{} is {expected:?}, but `list` has {row}",
            agent.name
        );
        ensure!(
            row["TL"] == truth.timeline,
            "{} is on timeline {}, but `list` has {row}",
            agent.name,
            truth.timeline
        );
        ensure!(
            row["Host"] == format!("{}:{}", agent.address(), agent.postgres_port),
            "the host of {row}"
        );
    }
    Ok(())
}
