//! pgBackRest: the archive, replicas made from its repository, and new clusters from its backups, all of it or up to a
//! point in time.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use primacy_testkit::client::output;
use primacy_testkit::settings::SCOPE;
use primacy_testkit::sql::{SUPERUSER, SUPERUSER_PASSWORD};
use primacy_testkit::{ClusterBuilder, Sample, Scratch, StoreKind, TestCluster, sql};

use super::with_parts;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archives_and_restores() -> Result<()> {
    let repository = Scratch::new()?;
    let moment = lost_cluster(&repository).await?;
    from_everything(&repository).await?;
    from_a_point_in_time(&repository, &moment).await
}

/// A cluster that archives, whose replicas come from the repository once there is a backup. It leaves a row from before
/// the moment that is returned, and one from after it; then it is gone.
async fn lost_cluster(repository: &Scratch) -> Result<String> {
    let cluster = start(
        crate::cluster(StoreKind::Embedded).members(2),
        &[],
        repository,
    )
    .await?;
    let writer = cluster.writer().await?;
    let leader = cluster.leader().await?;
    for command in ["stanza-create", "check", "backup"] {
        pgbackrest(&cluster, leader, command).await?;
    }

    let replica = 1 - leader;
    let made_by = |method: &str| {
        let told = format!("replica has been created using {method}");
        ensure!(
            cluster.agents[replica].log().contains(&told),
            "no {told:?} in the log"
        );
        Ok(())
    };
    // There was no backup yet.
    made_by("basebackup")?;
    let name = cluster.agents[replica].name.clone();
    cluster
        .control_ok(&["reinit", SCOPE, &name, "--force", "--wait"])
        .await?;
    ensure!(cluster.wait_healthy().await? == leader, "the lead moved");
    made_by("pgbackrest")?;

    // The new primary archives on.
    cluster
        .control_ok(&["switchover", SCOPE, "--force"])
        .await?;
    let leader = cluster.wait_healthy().await?;
    let port = cluster.agents[leader].postgres_port;
    sql::execute(port, "create table marks as select 'before' mark").await?;
    let moment = sql::text(port, "select clock_timestamp()::text").await?;
    sql::execute(port, "insert into marks values ('after')").await?;
    // Switches to a new segment, and waits until the old one is archived.
    pgbackrest(&cluster, leader, "check").await?;

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await?;
    Ok(moment)
}

async fn from_everything(repository: &Scratch) -> Result<()> {
    let one = crate::cluster(StoreKind::Embedded).members(1);
    let cluster = start(
        one,
        &[Sample::read("pgbackrest-bootstrap.yml")?],
        repository,
    )
    .await?;
    ensure!(marks(&cluster).await? == "after, before");
    let ledger = TestCluster::collect([cluster.writer().await?]).await?;
    cluster.finish(ledger).await
}

async fn from_a_point_in_time(repository: &Scratch, moment: &str) -> Result<()> {
    let restored =
        Sample::read("pgbackrest-point-in-time.yml")?.with("2026-01-31 14:30:00+00", moment)?;
    let two = crate::cluster(StoreKind::Embedded).members(2);
    let cluster = start(two, &[restored], repository).await?;
    ensure!(marks(&cluster).await? == "before");
    // Nothing of the target is left that would stop a member's recovery from now on.
    let writer = cluster.writer().await?;
    for _ in 0..2 {
        cluster
            .control_ok(&["switchover", SCOPE, "--force"])
            .await?;
        cluster.wait_healthy().await?;
    }
    let leader = cluster.leader().await?;
    pgbackrest(&cluster, leader, "check").await?;
    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

async fn marks(cluster: &TestCluster) -> Result<String> {
    let port = cluster.agents[cluster.leader().await?].postgres_port;
    sql::text(
        port,
        "select string_agg(mark, ', ' order by mark) from marks",
    )
    .await
}

/// A cluster with the parts of these samples, whose members share the repository.
async fn start(
    mut builder: ClusterBuilder,
    more: &[Sample],
    repository: &Scratch,
) -> Result<TestCluster> {
    builder = with_parts(builder, Sample::read("pgbackrest.yml")?)?;
    for sample in more {
        builder = with_parts(builder, sample.clone())?;
    }
    let mut cluster = builder.prepare().await?;
    for member in 0..cluster.agents.len() {
        let config = configure(&cluster, member, repository)?;
        // Where it is /etc/pgbackrest/pgbackrest.conf, nobody needs to be told.
        cluster.agents[member].set_variable("PGBACKREST_CONFIG", &config.display().to_string());
    }
    cluster.start_all()?;
    let leader = cluster.wait_healthy().await?;
    cluster.create_ledger(leader).await?;
    // What was restored has the old cluster's.
    sql::execute(cluster.agents[leader].postgres_port, "truncate ledger").await?;
    Ok(cluster)
}

fn configure(cluster: &TestCluster, member: usize, repository: &Scratch) -> Result<PathBuf> {
    let (agent, account) = (&cluster.agents[member], cluster.scratch().account());
    account.create_dir(&agent.data_dir())?;
    let dir = agent.dir.display();
    let config = agent.dir.join("pgbackrest.conf");
    Sample::read("pgbackrest.conf")?
        .with(
            "/var/lib/pgbackrest",
            &repository.path().display().to_string(),
        )?
        .with("/var/log/pgbackrest", &format!("{dir}/pgbackrest-log"))?
        .with("/tmp/pgbackrest", &format!("{dir}/pgbackrest-lock"))?
        .with("/var/lib/postgresql/15/main", &format!("{dir}/data"))?
        .with("5432", &agent.postgres_port.to_string())?
        .with("/var/run/postgresql", &dir.to_string())?
        .write_to(&config, cluster.scratch())?;
    account.create_dir(&agent.dir.join("pgbackrest-log"))?;
    Ok(config)
}

/// What an operator does on a member.
async fn pgbackrest(cluster: &TestCluster, member: usize, arguments: &str) -> Result<()> {
    let mut command = cluster.scratch().command("pgbackrest");
    command
        .env(
            "PGBACKREST_CONFIG",
            cluster.agents[member].dir.join("pgbackrest.conf"),
        )
        .env("PGPASSWORD", SUPERUSER_PASSWORD)
        .env("PGUSER", SUPERUSER)
        .arg("--stanza=main")
        .args(arguments.split(' '));
    let output = output(command, Duration::from_secs(90)).await?;
    ensure!(
        output.status.success(),
        "pgbackrest {arguments}: {output:?}"
    );
    Ok(())
}
