//! What a member's tags ask of the others, with Python's Patroni and this project on either side (`ha.md` §17).

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use primacy_testkit::{Implementation, StoreKind, TestCluster, sql, wait_until};
use serde_json::{Value, json};

use Implementation::{Patroni, Primacy};

use crate::mixed::same_answer;
use crate::mixed_matrix::{THEIRS, have_lead, runs, wait_all_synchronous};
use crate::standby_cluster::upstream;

mod long {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "minutes"]
    async fn each_honours_the_others_tags() -> anyhow::Result<()> {
        super::both_ways().await
    }
}

/// How often the preferred one may take a free lock before the others have looked at it.
const ROUNDS: u32 = 5;

/// The members, by what they are to the one in the lead.
#[derive(Clone, Copy)]
struct Cast {
    leader: usize,
    /// Of the leader's implementation.
    mate: usize,
    /// Of the other one.
    strangers: [usize; 2],
}

/// Nothing writes but what a step needs: in the race, positions must be equal.
async fn both_ways() -> Result<()> {
    let logged = json!({"parameters": {"log_replication_commands": "on"}});
    let mut cluster = crate::cluster(StoreKind::Etcd3)
        .members(4)
        .patroni(&THEIRS)
        .dynamic("synchronous_node_count", json!(3))
        // A slot is kept for so long after the member that it is for wants none.
        .dynamic("member_slots_ttl", json!("20s"))
        .merge_dynamic("postgresql", &logged)
        .start()
        .await?;
    let port = cluster.agents[cluster.leader().await?].postgres_port;
    sql::execute(port, "create table rows (row bigserial)").await?;

    for leads in [Primacy, Patroni] {
        let cast = cast(&cluster, have_lead(&cluster, leads, true).await?)?;
        let steps = format!("with {leads:?} in the lead");
        roles(&cluster, cast).await.context(steps.clone())?;
        copies(&cluster, cast).await.context(steps.clone())?;
        chain(&mut cluster, cast).await.context(steps.clone())?;
        let mut cast = cast;
        for round in 1.. {
            if priority(&mut cluster, cast).await.context(steps.clone())? {
                break;
            }
            ensure!(
                round < ROUNDS,
                "{steps}: the preferred one was always the first"
            );
            cast = self::cast(&cluster, have_lead(&cluster, leads, true).await?)?;
        }
    }
    cluster.wait_healthy().await?;
    cluster.pass();
    Ok(())
}

fn cast(cluster: &TestCluster, leader: usize) -> Result<Cast> {
    let others = cluster.others(leader);
    let (mates, strangers): (Vec<usize>, Vec<usize>) = others
        .into_iter()
        .partition(|member| runs(*member) == runs(leader));
    let ([mate], [one, two]) = (&mates[..], &strangers[..]) else {
        anyhow::bail!("there are two of each");
    };
    Ok(Cast {
        leader,
        mate: *mate,
        strangers: [*one, *two],
    })
}

/// `nosync`, `noloadbalance`, `nofailover`, and tags that only filter health checks.
async fn roles(cluster: &TestCluster, cast: Cast) -> Result<()> {
    let Cast {
        leader,
        mate,
        strangers: [spared, barred],
    } = cast;
    let spare = json!({"noloadbalance": true, "nosync": true, "site": "a"});
    set_tags(cluster, spared, spare).await?;
    set_tags(cluster, mate, json!({"noloadbalance": true, "site": "a"})).await?;
    set_tags(cluster, barred, json!({"nofailover": true, "site": "b"})).await?;
    wait_synchronous(cluster, leader, &[mate, barred]).await?;

    for member in [spared, mate] {
        for (path, expected) in [
            ("/replica", 503),
            ("/replica?tag_site=a", 503),
            ("/read-only", 503),
            ("/health", 200),
        ] {
            check(cluster, member, path, expected).await?;
        }
    }
    for (path, expected) in [
        ("/replica?tag_site=b", 200),
        ("/replica?tag_site=a", 503),
        ("/replica?tag_nofailover=true", 200),
        ("/sync", 200),
    ] {
        check(cluster, barred, path, expected).await?;
    }

    let name = |member: usize| cluster.agents[member].name.as_str();
    for (path, request) in [
        (
            "/switchover",
            json!({"leader": name(leader), "candidate": name(barred)}),
        ),
        ("/failover", json!({"candidate": name(barred)})),
    ] {
        for asked in [leader, mate, barred] {
            let answer = cluster.agents[asked].send("POST", path, &request).await?;
            ensure!(
                answer.status == 412,
                "POST {path} for {} at {}: {answer:?}",
                name(barred),
                name(asked)
            );
        }
    }
    clear_tags(cluster).await
}

/// `nostream` has nobody keep a slot for the member; who is copied streams from the one with `clonefrom`.
async fn copies(cluster: &TestCluster, cast: Cast) -> Result<()> {
    let Cast {
        leader,
        mate,
        strangers: [cut_off, source],
    } = cast;
    set_tags(cluster, source, json!({"clonefrom": true})).await?;
    set_tags(cluster, cut_off, json!({"nostream": true})).await?;
    wait_synchronous(cluster, leader, &[mate, source]).await?;
    for member in [leader, mate, source] {
        wait_slot(cluster, member, cut_off, "").await?;
    }
    wait_upstream(cluster, cut_off, None).await?;

    let agents = &cluster.agents;
    let backups = |member: usize| -> Result<usize> {
        let log = agents[member].dir.join("log/postgresql.log");
        let log = String::from_utf8_lossy(&std::fs::read(log)?).into_owned();
        Ok(log
            .matches("received replication command: BASE_BACKUP")
            .count())
    };
    let before = (backups(leader)?, backups(source)?);
    let postmaster = agents[mate].postmaster_pid();
    let answer = agents[mate]
        .send("POST", "/reinitialize", &json!({}))
        .await?;
    ensure!(answer.status == 200, "{answer:?}");
    wait_until("the copy", cluster.timing.recovery(), async || {
        ensure!(agents[mate].postmaster_pid() != postmaster, "not begun");
        Ok(())
    })
    .await?;
    wait_upstream(cluster, mate, Some(leader)).await?;
    let after = (backups(leader)?, backups(source)?);
    ensure!(
        after == (before.0, before.1 + 1),
        "base backups taken of the leader and of the member to clone from: {before:?} before, {after:?} after"
    );
    clear_tags(cluster).await?;
    wait_slot(cluster, leader, cut_off, "true").await
}

/// `replicatefrom`: a stranger streams from the leader, the mate from that, the other stranger from the mate.
async fn chain(cluster: &mut TestCluster, cast: Cast) -> Result<()> {
    let Cast {
        leader,
        mate,
        strangers: [first, last],
    } = cast;
    let from = |member: usize| json!({"replicatefrom": cluster.agents[member].name});
    let (of_mate, of_last) = (from(first), from(mate));
    set_tags(cluster, mate, of_mate).await?;
    set_tags(cluster, last, of_last).await?;
    wait_upstream(cluster, mate, Some(first)).await?;
    wait_upstream(cluster, last, Some(mate)).await?;
    wait_slot(cluster, first, mate, "true").await?;
    wait_slot(cluster, mate, last, "true").await?;
    wait_synchronous(cluster, leader, &[first]).await?;
    for command in [&["list", "e2e"][..], &["topology", "e2e"]] {
        same_answer(cluster, command).await?;
    }
    wait_row(cluster, leader, last).await?;
    // What nobody streams through must not keep WAL for ever.
    for member in [mate, last] {
        wait_slot_moves(cluster, leader, member).await?;
    }

    cluster.agents[first].kill_node().await?;
    wait_upstream(cluster, mate, Some(leader)).await?;
    wait_upstream(cluster, last, Some(mate)).await?;
    wait_row(cluster, leader, last).await?;
    cluster.start_agent(first)?;
    wait_upstream(cluster, mate, Some(first)).await?;
    clear_tags(cluster).await
}

/// Of those that have everything, the one with the highest `failover_priority` leads next. Whether the one of the other
/// implementation raced before, and left the lock to it.
async fn priority(cluster: &mut TestCluster, cast: Cast) -> Result<bool> {
    let Cast {
        leader,
        mate,
        strangers: [preferred, _],
    } = cast;
    let reason = format!(
        "{} has equally tolerable WAL position and priority 5, while this node has priority 1",
        cluster.agents[preferred].name
    );
    let refusals = |cluster: &TestCluster| {
        let log = cluster.agents[mate].log();
        let told = |line: &&str| line.contains(" INFO: ") && line.contains(&reason);
        log.lines().filter(told).count()
    };
    let before = refusals(cluster);
    set_tags(cluster, preferred, json!({"failover_priority": 5})).await?;
    wait_all_everywhere(cluster, leader).await?;
    cluster.agents[leader].kill_node().await?;
    let new = cluster.wait_new_leader(leader).await?;
    ensure!(
        new == preferred,
        "{} leads, not {}",
        cluster.agents[new].name,
        cluster.agents[preferred].name
    );
    let left = refusals(cluster) > before;
    cluster.start_agent(leader)?;
    cluster.wait_healthy().await?;
    clear_tags(cluster).await?;
    Ok(left)
}

/// Waits until all others have received exactly what the leader, to which nobody but the server itself writes, has.
pub(crate) async fn wait_all_everywhere(cluster: &TestCluster, leader: usize) -> Result<()> {
    let within = cluster.timing.recovery();
    wait_until("everything to be everywhere", within, async || {
        let port = |member: usize| cluster.agents[member].postgres_port;
        let position = sql::text(port(leader), "select pg_current_wal_lsn()::text").await?;
        for member in cluster.others(leader) {
            let received = "select pg_last_wal_receive_lsn()::text";
            let received = sql::text(port(member), received).await?;
            ensure!(received == position, "{received}, not {position}");
        }
        Ok(())
    })
    .await
}

/// Writes the tags into the member's file, has it read again, and waits until it has told the others of them.
pub(crate) async fn set_tags(cluster: &TestCluster, member: usize, tags: Value) -> Result<()> {
    let agent = &cluster.agents[member];
    let text = std::fs::read_to_string(&agent.config)?;
    let rest: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("tags:"))
        .collect();
    let text = format!("{}\ntags: {tags}\n", rest.join("\n"));
    cluster.scratch().account().write(&agent.config, &text)?;
    agent.sighup()?;
    let what = format!("the tags of {} to be published", agent.name);
    wait_until(&what, cluster.timing.recovery(), async || {
        let told = row(cluster, member, member).await?;
        let published = told.get("tags").cloned().unwrap_or(json!({}));
        ensure!(published == tags, "{told}");
        Ok(())
    })
    .await
}

/// Takes all tags away, and waits until the cluster is as it was before.
async fn clear_tags(cluster: &TestCluster) -> Result<()> {
    for member in 0..cluster.agents.len() {
        set_tags(cluster, member, json!({})).await?;
    }
    cluster.wait_healthy().await?;
    wait_all_synchronous(cluster).await
}

/// What `/cluster` of one member tells of another.
async fn row(cluster: &TestCluster, asked: usize, member: usize) -> Result<Value> {
    let document = cluster.agents[asked].get("/cluster").await?;
    let name = &cluster.agents[member].name;
    let mut members = document["members"].as_array().into_iter().flatten();
    let row = members.find(|row| row["name"] == **name);
    row.cloned()
        .with_context(|| format!("no {name} in {document}"))
}

pub(crate) async fn check(
    cluster: &TestCluster,
    member: usize,
    path: &str,
    expected: u16,
) -> Result<()> {
    let agent = &cluster.agents[member];
    let what = format!("{path} at {}", agent.name);
    wait_until(&what, cluster.timing.failover(), async || {
        let status = agent.check(path).await?;
        ensure!(status == expected, "{status}, not {expected}");
        Ok(())
    })
    .await
}

/// Waits until these, and no others, are synchronous: in the store, and by the primary.
pub(crate) async fn wait_synchronous(
    cluster: &TestCluster,
    leader: usize,
    members: &[usize],
) -> Result<()> {
    let names = members.iter().map(|m| cluster.agents[*m].name.clone());
    let names: BTreeSet<String> = names.collect();
    let what = format!("{names:?} to be synchronous");
    wait_until(&what, cluster.timing.recovery(), async || {
        let document = cluster.agents[leader].get("/cluster").await?;
        let rows = document["members"].as_array().into_iter().flatten();
        let stored: BTreeSet<String> = rows
            .filter(|row| row["role"] == "sync_standby")
            .filter_map(|row| Some(row["name"].as_str()?.to_owned()))
            .collect();
        let obeyed = "select coalesce(string_agg(application_name, ' '), '') \
            from pg_stat_replication where sync_state in ('sync', 'quorum')";
        let obeyed = sql::text(cluster.agents[leader].postgres_port, obeyed).await?;
        let obeyed: BTreeSet<String> = obeyed.split(' ').map(str::to_owned).collect();
        ensure!(
            stored == names && obeyed == names,
            "{stored:?} in the store, {obeyed:?} by the primary"
        );
        Ok(())
    })
    .await
}

pub(crate) async fn wait_upstream(
    cluster: &TestCluster,
    member: usize,
    from: Option<usize>,
) -> Result<()> {
    let wanted = from.map(|from| cluster.agents[from].postgres_port.to_string());
    let what = format!("{} to stream from {wanted:?}", cluster.agents[member].name);
    wait_until(&what, cluster.timing.recovery(), async || {
        let port = upstream(cluster, member).await?;
        ensure!(port == wanted.clone().unwrap_or_default(), "from {port:?}");
        Ok(())
    })
    .await
}

/// Waits until the slot for `member` on `keeper` is active as given: `true`, `false`, or empty where there is none.
pub(crate) async fn wait_slot(
    cluster: &TestCluster,
    keeper: usize,
    member: usize,
    active: &str,
) -> Result<()> {
    let (keeper, name) = (&cluster.agents[keeper], &cluster.agents[member].name);
    let what = format!("the slot for {name} on {} to be {active:?}", keeper.name);
    let statement = format!(
        "select (select active::text from pg_replication_slots where slot_name = '{name}')"
    );
    wait_until(&what, cluster.timing.recovery(), async || {
        let is = sql::text(keeper.postgres_port, &statement).await?;
        ensure!(is == active, "{is:?}");
        Ok(())
    })
    .await
}

/// Writes a row, and waits until it has come down to the member.
async fn wait_row(cluster: &TestCluster, leader: usize, member: usize) -> Result<()> {
    let count = "select count(*)::text from rows";
    let port = cluster.agents[leader].postgres_port;
    sql::execute(port, "insert into rows default values").await?;
    let rows = sql::text(port, count).await?;
    wait_until("a row to arrive", cluster.timing.recovery(), async || {
        let arrived = sql::text(cluster.agents[member].postgres_port, count).await?;
        ensure!(arrived == rows, "{arrived} of {rows}");
        Ok(())
    })
    .await
}

/// Waits until the leader's slot for a member that streams from somebody else has come to where the leader is now.
async fn wait_slot_moves(cluster: &TestCluster, leader: usize, member: usize) -> Result<()> {
    let port = cluster.agents[leader].postgres_port;
    let now = sql::text(port, "select pg_current_wal_flush_lsn()::text").await?;
    let name = &cluster.agents[member].name;
    let statement = format!(
        "select (restart_lsn >= '{now}')::text from pg_replication_slots where slot_name = '{name}'"
    );
    let what = format!("the leader's slot for {name} to come to {now}");
    wait_until(&what, cluster.timing.recovery(), async || {
        ensure!(sql::text(port, &statement).await? == "true", "not there");
        Ok(())
    })
    .await
}
