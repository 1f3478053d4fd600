//! A Citus cluster: a coordinator's group and a worker's, each with a standby (`ha.md` §16.1). Citus itself cannot be had
//! from Debian: an extension of its name stands in for it, with its table of nodes and the rules for changing that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{Implementation, StoreKind, TestCluster, sql, wait_until};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

use Implementation::{Patroni, Primacy};

/// The distributed database.
const DATABASE: &str = "app";
/// Members: the coordinator's group, then the worker's.
const GROUPS: [u32; 4] = [0, 0, 1, 1];
/// Longer than any wait that a pause of clients may cause.
const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_wait_for_workers_that_switch_over() -> Result<()> {
    of_two_groups(StoreKind::Embedded, &[]).await
}

/// In each group one member runs Python's Patroni.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_patroni_on_either_side() -> Result<()> {
    of_two_groups(StoreKind::Etcd3, &[1, 3]).await
}

async fn of_two_groups(store: StoreKind, patroni: &[usize]) -> Result<()> {
    let mut cluster = crate::cluster(store)
        .citus(DATABASE, &GROUPS)
        .patroni(patroni)
        // What a Citus cluster gets that says nothing of it.
        .dynamic("synchronous_mode", json!("quorum"))
        // A database that was made a moment ago takes minutes to be written out otherwise.
        .postgresql("basebackup", json!({"checkpoint": "fast"}))
        .prepare()
        .await?;
    cluster.start_all()?;
    let mut coordinator = wait_primary(&cluster, [0, 1]).await?;
    let mut worker = wait_primary(&cluster, [2, 3]).await?;
    wait_nodes(&cluster, coordinator, worker).await?;
    let id = worker_id(&cluster, coordinator).await?;
    let sql = "create table made (row int)";
    sql::execute(cluster.agents[worker].postgres_port, sql).await?;
    let client = Client::start(&cluster);

    for coordinator_moves in [false, true] {
        if coordinator_moves {
            coordinator = switch_over(&cluster, 0, coordinator).await?;
            wait_nodes(&cluster, coordinator, worker).await?;
        }
        client.progress().await?;
        worker = switch_over(&cluster, 1, worker).await?;
        wait_nodes(&cluster, coordinator, worker).await?;
        client.progress().await?;
    }
    let name = cluster.agents[worker].name.clone();
    let by = if patroni.is_empty() { Primacy } else { Patroni };
    let restart = ["restart", "--group", "1", SCOPE, &name, "--force"];
    let printed = cluster.control_by(by, &restart).await?;
    ensure!(printed.contains("Success"), "{printed}");
    client.progress().await?;
    // Nobody was sent to a server that took no writes.
    client.finish().await?;
    wait_nodes(&cluster, coordinator, worker).await?;

    let killed = worker;
    wait_synchronous(&cluster, killed).await?;
    cluster.agents[killed].kill_node().await?;
    worker = mate(killed);
    wait_nodes_of(&cluster, coordinator, &[(1, worker, "primary")]).await?;
    cluster.start_agent(killed)?;
    wait_nodes(&cluster, coordinator, worker).await?;
    ensure!(
        worker_id(&cluster, coordinator).await? == id,
        "the primary's row of the worker's group was replaced"
    );
    cluster.pass();
    Ok(())
}

/// The other member of a group.
fn mate(member: usize) -> usize {
    member ^ 1
}

/// Waits until the other member of the leader's group may take over: who has just come back is not in /sync yet, and
/// whether its WAL is the leader's is known once it streams.
async fn wait_synchronous(cluster: &TestCluster, leader: usize) -> Result<()> {
    let other = &cluster.agents[mate(leader)].name;
    let what = format!("{other} to be a synchronous standby");
    wait_until(&what, PATIENCE, async || {
        let document = cluster.agents[leader].get("/cluster").await?;
        let members = document["members"].as_array().into_iter().flatten();
        let mut members = members.filter(|member| member["name"] == **other);
        ensure!(
            members
                .any(|member| member["role"] == "quorum_standby" && member["state"] == "streaming"),
            "{document}"
        );
        Ok(())
    })
    .await
}

/// The one of the members that leads their group.
async fn wait_primary(cluster: &TestCluster, members: [usize; 2]) -> Result<usize> {
    let what = format!("a primary among members {members:?} (from 0)");
    wait_until(&what, cluster.timing.recovery(), async || {
        for member in members {
            if cluster.agents[member]
                .check("/primary")
                .await
                .is_ok_and(|status| status == 200)
            {
                return Ok(member);
            }
        }
        Err(anyhow!("none"))
    })
    .await
}

/// The group's new primary.
async fn switch_over(cluster: &TestCluster, group: u32, from: usize) -> Result<usize> {
    let to = mate(from);
    let name = &cluster.agents[to].name;
    let group = group.to_string();
    let command = [
        "switchover",
        "--group",
        &group,
        SCOPE,
        "--candidate",
        name,
        "--force",
    ];
    let printed = cluster.control_ok(&command).await?;
    ensure!(
        printed.contains("Successfully switched over to"),
        "{printed}"
    );
    wait_primary(cluster, [to, to]).await
}

/// Waits until the table names these primaries, and their mates as secondaries, which may take over.
async fn wait_nodes(cluster: &TestCluster, coordinator: usize, worker: usize) -> Result<()> {
    for primary in [coordinator, worker] {
        let standby = &cluster.agents[mate(primary)];
        let what = format!("{} to be synchronous", standby.name);
        wait_until(&what, cluster.timing.recovery(), async || {
            let status = standby.check("/quorum").await?;
            ensure!(status == 200, "{status}");
            Ok(())
        })
        .await?;
    }
    let rows = |group, primary: usize| {
        [
            (group, primary, "primary"),
            (group, mate(primary), "secondary"),
        ]
    };
    let all = [rows(0, coordinator), rows(1, worker)].concat();
    wait_nodes_of(cluster, coordinator, &all).await
}

/// Waits until the coordinator's table has these rows (group, member, role) of their groups.
async fn wait_nodes_of(
    cluster: &TestCluster,
    coordinator: usize,
    wanted: &[(i32, usize, &str)],
) -> Result<()> {
    let port = |member: usize| i32::from(cluster.agents[member].postgres_port);
    let groups: Vec<i32> = wanted.iter().map(|(group, ..)| *group).collect();
    let mut wanted: Vec<(i32, i32, String)> = wanted
        .iter()
        .map(|(group, member, role)| (*group, port(*member), (*role).to_owned()))
        .collect();
    wanted.sort();
    let what = format!("pg_dist_node to be {wanted:?}");
    wait_until(&what, cluster.timing.recovery(), async || {
        let client =
            sql::connect_to(cluster.agents[coordinator].postgres_port, DATABASE, "test").await?;
        let sql = "select groupid, nodeport, noderole from pg_dist_node where groupid = any($1)";
        let rows = client.query(sql, &[&groups]).await?;
        let mut found: Vec<(i32, i32, String)> = rows
            .iter()
            .map(|row| (row.get(0), row.get(1), row.get(2)))
            .collect();
        found.sort();
        ensure!(found == wanted, "it is {found:?}");
        Ok(())
    })
    .await
}

/// The `nodeid` of the worker group's primary.
async fn worker_id(cluster: &TestCluster, coordinator: usize) -> Result<i32> {
    let client =
        sql::connect_to(cluster.agents[coordinator].postgres_port, DATABASE, "test").await?;
    let sql = "select nodeid from pg_dist_node where groupid = 1 and noderole = 'primary'";
    Ok(client.query_one(sql, &[]).await?.get(0))
}

/// What the coordinator does for a client: it looks up where the worker's primary is, and writes there, with a lock
/// that changes of the table wait for.
struct Client {
    written: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    task: JoinHandle<Result<()>>,
}

impl Client {
    fn start(cluster: &TestCluster) -> Self {
        let (written, ends) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let coordinators: Vec<u16> = cluster.agents[..2]
            .iter()
            .map(|agent| agent.postgres_port)
            .collect();
        let task = tokio::spawn(write(coordinators, Arc::clone(&written), Arc::clone(&ends)));
        Self {
            written,
            ends,
            task,
        }
    }

    /// Waits until it has written more.
    async fn progress(&self) -> Result<()> {
        let before = self.written.load(Ordering::Relaxed);
        wait_until("the client to write", PATIENCE, async || {
            ensure!(!self.task.is_finished(), "the client has failed");
            let now = self.written.load(Ordering::Relaxed);
            (now > before + 1)
                .then_some(())
                .ok_or_else(|| anyhow!("{now} rows"))
        })
        .await
    }

    /// Fails if the client ever did.
    async fn finish(self) -> Result<()> {
        self.ends.store(true, Ordering::Relaxed);
        timeout(PATIENCE, self.task)
            .await
            .context("the client hangs")??
    }
}

/// Only a coordinator may fail a client here: it does while it switches over itself.
async fn write(
    coordinators: Vec<u16>,
    written: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
) -> Result<()> {
    let mut pace = interval(Duration::from_millis(20));
    while !ends.load(Ordering::Relaxed) {
        pace.tick().await;
        for coordinator in &coordinators {
            let Ok(mut client) = sql::connect_to(*coordinator, DATABASE, "client").await else {
                continue;
            };
            let Ok(transaction) = client.transaction().await else {
                continue;
            };
            let sql = "select nodename, nodeport from pg_dist_node \
                       where groupid = 1 and noderole = 'primary' for share";
            let row = timeout(PATIENCE, transaction.query_one(sql, &[]))
                .await
                .context("no answer from the coordinator")?;
            let Ok(row) = row else {
                continue;
            };
            let (host, port): (String, i32) = (row.get(0), row.get(1));
            sql::execute(port.try_into()?, "insert into made values (1)")
                .await
                .with_context(|| format!("the worker at {host}:{port} takes no writes"))?;
            drop(transaction.commit().await);
            written.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}
