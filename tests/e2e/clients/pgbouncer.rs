//! PgBouncer beside every server, HAProxy in front of them.

use anyhow::{Result, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::sql::{SUPERUSER, SUPERUSER_PASSWORD};
use primacy_testkit::{Client, HaProxy, Sample, StoreKind, Target, TestCluster, Writer, ports};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_haproxy() -> Result<()> {
    let mut cluster = crate::cluster(StoreKind::Embedded).start().await?;
    let (mut poolers, mut pooler_ports) = (Vec::new(), Vec::new());
    for member in 0..cluster.agents.len() {
        let port = ports::free()?;
        poolers.push(start_pooler(&cluster, member, port)?);
        pooler_ports.push(port);
    }
    let proxy = HaProxy::start_before(&cluster, &pooler_ports).await?;
    let writer = Writer::start(100, Target::Port(proxy.primary_port));
    writer_reaches(&cluster, &writer, cluster.leader().await?).await?;

    // The old primary runs on as a replica: its pooler has sessions with it, and new ones are welcome.
    let old = cluster.leader().await?;
    cluster
        .control_ok(&["switchover", SCOPE, "--force"])
        .await?;
    let new = cluster.wait_new_leader(old).await?;
    writer_reaches(&cluster, &writer, new).await?;

    let old = new;
    cluster.wait_healthy().await?;
    cluster.agents[old].kill_node().await?;
    let new = cluster.wait_new_leader(old).await?;
    writer_reaches(&cluster, &writer, new).await?;

    cluster.start_agent(old)?;
    cluster.wait_healthy().await?;
    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

fn start_pooler(cluster: &TestCluster, member: usize, port: u16) -> Result<Client> {
    let (agent, scratch) = (&cluster.agents[member], cluster.scratch());
    let users = agent.dir.join("userlist.txt");
    let listed = format!("\"{SUPERUSER}\" \"{SUPERUSER_PASSWORD}\"\n");
    scratch.account().write(&users, &listed)?;
    let config = agent.dir.join("pgbouncer.ini");
    Sample::read("pgbouncer.ini")?
        .with("port=5432", &format!("port={}", agent.postgres_port))?
        .with("listen_addr = *", "listen_addr = 127.0.0.1")?
        .with("listen_port = 6432", &format!("listen_port = {port}"))?
        .with("/etc/pgbouncer/userlist.txt", &users.display().to_string())?
        .write_to(&config, scratch)?;
    let mut command = scratch.command("pgbouncer");
    command.arg(&config);
    Client::start(scratch, &format!("pgbouncer-{}", agent.name), command)
}

async fn writer_reaches(cluster: &TestCluster, writer: &Writer, member: usize) -> Result<()> {
    let agent = &cluster.agents[member];
    writer.wait_progress(cluster.timing.failover()).await?;
    let last = writer.last().map(|last| last.port);
    ensure!(
        last == Some(i32::from(agent.postgres_port)),
        "the proxy leads to port {last:?}, not to {}",
        agent.name
    );
    Ok(())
}
