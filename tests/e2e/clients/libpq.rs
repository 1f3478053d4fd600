//! Clients that find the server themselves: libpq with several hosts and `target_session_attrs`, as `psql` and psycopg
//! use it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use primacy_testkit::client::output;
use primacy_testkit::settings::SCOPE;
use primacy_testkit::sql::{SUPERUSER, SUPERUSER_PASSWORD};
use primacy_testkit::{Sample, StoreKind, TestCluster, Venv, wait_until};

const PSYCOPG: Venv = Venv {
    directory: "/var/tmp/primacy-test-psycopg-3.3.9",
    packages: &["psycopg[binary]==3.3.9"],
};

/// Prints what `psql` prints.
const CONNECT: &str = "
import sys, psycopg
with psycopg.connect(sys.argv[1]) as connection:
    print(*connection.execute(sys.argv[2]).fetchone(), sep='|')
";

const WHERE: &str = "select inet_server_port(), pg_is_in_recovery()::text";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follows_the_primary() -> Result<()> {
    let mut cluster = crate::cluster(StoreKind::Embedded).start().await?;
    let ports: Vec<String> = cluster
        .agents
        .iter()
        .map(|agent| agent.postgres_port.to_string())
        .collect();
    let services = Sample::read("pg_service.conf")?
        .with(
            "host=10.0.0.11,10.0.0.12,10.0.0.13",
            "host=127.0.0.1,127.0.0.1,127.0.0.1",
        )?
        .with("port=5432", &format!("port={}", ports.join(",")))?
        .write(cluster.scratch())?;
    let python = PSYCOPG.bin()?.join("python");
    let writer = cluster.writer().await?;

    both_reach(&cluster, &services, &python).await?;
    cluster
        .control_ok(&["switchover", SCOPE, "--force"])
        .await?;
    cluster.wait_healthy().await?;
    both_reach(&cluster, &services, &python).await?;
    let old = cluster.leader().await?;
    cluster.agents[old].kill_node().await?;
    cluster.wait_new_leader(old).await?;
    both_reach(&cluster, &services, &python).await?;

    cluster.start_agent(old)?;
    cluster.wait_healthy().await?;
    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

/// `psql` and psycopg get a session of each kind.
async fn both_reach(cluster: &TestCluster, services: &Path, python: &Path) -> Result<()> {
    let text = std::fs::read_to_string(services)?;
    for service in ["primary", "standby"] {
        let psql = || {
            let mut psql = cluster.scratch().command("psql");
            psql.env("PGSERVICEFILE", services)
                .args(["-X", "-t", "-A", "-c", WHERE])
                .arg(format!("service={service}"));
            psql
        };
        reaches(cluster, service, psql).await?;
        // Given a service with several hosts, psycopg 3.3.9 may wait for ever when a host refuses after one of the
        // wrong kind; given the hosts themselves, it tries each.
        let hosts = connection_string(&text, service)?;
        let psycopg = || {
            let mut psycopg = cluster.scratch().command(python);
            psycopg.args(["-c", CONNECT, &hosts, WHERE]);
            psycopg
        };
        reaches(cluster, service, psycopg).await?;
    }
    Ok(())
}

/// A section of the service file as a connection string.
fn connection_string(services: &str, service: &str) -> Result<String> {
    let heading = format!("[{service}]");
    let mut lines = services.lines().skip_while(|line| *line != heading);
    ensure!(lines.next().is_some(), "no {heading} in {services}");
    let settings: Vec<&str> = lines.take_while(|line| !line.starts_with('[')).collect();
    Ok(settings.join(" "))
}

/// A standby may be rewound first, when its primary is lost.
async fn reaches(cluster: &TestCluster, service: &str, client: impl Fn() -> Command) -> Result<()> {
    let what = format!("a session of a {service}");
    wait_until(&what, cluster.timing.recovery(), async || {
        let mut client = client();
        client
            .env("PGUSER", SUPERUSER)
            .env("PGPASSWORD", SUPERUSER_PASSWORD);
        let answered = output(client, Duration::from_secs(30)).await?;
        let printed = String::from_utf8_lossy(&answered.stdout);
        let (leader, expected) = (cluster.leader().await?, service == "standby");
        let leader = cluster.agents[leader].postgres_port.to_string();
        let (port, recovering) = printed.trim().split_once('|').unwrap_or_default();
        ensure!(
            recovering == expected.to_string() && (port == leader) != expected,
            "{service} is {printed:?}, the leader's port {leader}: {answered:?}"
        );
        Ok(())
    })
    .await
}
