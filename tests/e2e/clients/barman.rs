//! Barman: WAL and backups from whoever leads, replicas made from its backups, and a new cluster from them. What has it
//! recover is a stand-in for pg-backup-api, which is no package; the recoveries are Barman's own.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use primacy_testkit::client::output;
use primacy_testkit::settings::SCOPE;
use primacy_testkit::sql::{SUPERUSER, SUPERUSER_PASSWORD};
use primacy_testkit::{
    Client, ClusterBuilder, Sample, Scratch, StoreKind, TestCluster, http, ports, programs, sql,
    wait_until,
};

use super::with_parts;

const API: &str = include_str!("barman_api.py");
/// Instead of ssh, whose first argument is the host.
const SSH: &str = "shift\nexec sh -c \"$*\"\n";
/// Of one command, and of several tries of it.
const WITHIN: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backs_up_and_restores() -> Result<()> {
    let barman = Barman::start().await?;
    lost_cluster(&barman).await?;

    let one = crate::cluster(StoreKind::Embedded).members(1);
    let cluster = barman.cluster(one, &["barman-bootstrap.yml"]).await?;
    let leader = cluster.leader().await?;
    restored(&cluster, leader)?;
    let marks = "select string_agg(mark, ', ' order by mark) from marks";
    let marks = sql::text(cluster.agents[leader].postgres_port, marks).await?;
    ensure!(marks == "after, before", "{marks}");
    // What was restored has the old cluster's.
    sql::execute(cluster.agents[leader].postgres_port, "truncate ledger").await?;
    let ledger = TestCluster::collect([cluster.writer().await?]).await?;
    cluster.finish(ledger).await
}

/// A cluster whose replica comes from Barman once there is a backup, and whose lead moves. It leaves a row from before its
/// last backup, and one from after it; then it is gone.
async fn lost_cluster(barman: &Barman) -> Result<()> {
    let two = crate::cluster(StoreKind::Embedded).members(2);
    let cluster = barman.cluster(two, &[]).await?;
    // Barman archives a segment when it has a part of the next one.
    let writer = cluster.writer().await?;
    barman.follow(&cluster).await?;
    let leader = cluster.leader().await?;
    let replica = 1 - leader;
    let made_by = |method: &str| {
        let told = format!("replica has been created using {method}");
        let log = cluster.agents[replica].log();
        ensure!(log.contains(&told), "no {told:?} in the log: {log}");
        Ok(())
    };
    // Barman had nothing yet.
    made_by("basebackup")?;
    barman.run("backup --wait main").await?;
    let name = cluster.agents[replica].name.clone();
    cluster
        .control_ok(&["reinit", SCOPE, &name, "--force", "--wait"])
        .await?;
    ensure!(cluster.wait_healthy().await? == leader, "the lead moved");
    made_by("barman")?;
    restored(&cluster, replica)?;

    // Barman goes where the lead goes.
    cluster
        .control_ok(&["switchover", SCOPE, "--force"])
        .await?;
    let leader = cluster.wait_healthy().await?;
    barman.wait_streaming().await?;
    let port = cluster.agents[leader].postgres_port;
    sql::execute(port, "create table marks as select 'before' mark").await?;
    barman.run("backup --wait main").await?;
    sql::execute(port, "insert into marks values ('after')").await?;
    barman
        .run("switch-wal --force --archive --archive-timeout 50 main")
        .await?;
    barman.run("check main").await?;
    barman.run("check-backup main latest").await?;

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

/// Barman's host.
struct Barman {
    scratch: Scratch,
    config: PathBuf,
    program: PathBuf,
    api_port: u16,
    _api: Client,
}

impl Barman {
    async fn start() -> Result<Self> {
        let scratch = Scratch::new()?;
        let (account, dir) = (scratch.account(), scratch.path());
        let config = dir.join("barman.conf");
        let text = format!(
            "[barman]\nbarman_user = {user}\nbarman_home = {dir}/home\nbarman_lock_directory = {dir}\n\
             log_file = {dir}/barman.log\nconfiguration_files_directory = {dir}/barman.d\n",
            user = account.name(),
            dir = dir.display(),
        );
        account.write(&config, &text)?;
        account.create_dir(&dir.join("barman.d"))?;
        account.write(&dir.join("ssh"), SSH)?;
        let passwords = format!(
            "*:*:*:{SUPERUSER}:{SUPERUSER_PASSWORD}\n*:*:*:replicator:replication secret\n"
        );
        account.write(&dir.join("pgpass"), &passwords)?;
        std::fs::set_permissions(dir.join("pgpass"), Permissions::from_mode(0o600))?;

        let api_port = ports::free()?;
        let mut command = scratch.command("python3");
        let arguments = [API.to_owned(), api_port.to_string()];
        command.arg("-c").args(arguments).arg(&config);
        let api = Client::start(&scratch, "api", command)?;
        wait_until("the API to answer", WITHIN, async || {
            http::request(api_port, "GET", "/status", None, WITHIN)
                .await
                .with_context(|| api.log())
        })
        .await?;
        Ok(Self {
            program: crate::auxiliary::called(&scratch, "patroni_barman")?,
            scratch,
            config,
            api_port,
            _api: api,
        })
    }

    /// A sample of an agent's configuration.
    fn sample(&self, name: &str) -> Result<Sample> {
        let ssh = format!(
            "sh {}/ssh postgres@localhost",
            self.scratch.path().display()
        );
        Sample::read(name)?
            .with("10.0.0.20:7480", &format!("127.0.0.1:{}", self.api_port))?
            .with("ssh postgres@10.0.0.11", &ssh)?
            .with(" recover ", " recover --loop-wait 1 ")?
            .with("patroni_barman", &self.program.display().to_string())
    }

    /// A cluster whose members come from here, with the parts of these samples as well.
    async fn cluster(&self, builder: ClusterBuilder, more: &[&str]) -> Result<TestCluster> {
        let mut builder = with_parts(builder, self.sample("barman.yml")?)?;
        for name in more {
            builder = with_parts(builder, self.sample(name)?)?;
        }
        builder.start().await
    }

    /// Has Barman take WAL from the cluster.
    async fn follow(&self, cluster: &TestCluster) -> Result<()> {
        let [first, second] = [0, 1].map(|member| cluster.agents[member].postgres_port);
        let bin_dir = programs::postgresql_bin_dir()?;
        Sample::read("barman.conf")?
            .with("10.0.0.11,10.0.0.12,10.0.0.13", "127.0.0.1,127.0.0.1")?
            .with("port=5432", &format!("port={first},{second}"))?
            .with("user=barman", &format!("user={SUPERUSER}"))?
            .with("user=streaming_barman", "user=replicator")?
            .with("/usr/lib/postgresql/15/bin", &bin_dir.display().to_string())?
            .write_to(
                &self.scratch.path().join("barman.d/main.conf"),
                &self.scratch,
            )?;
        self.wait_streaming().await
    }

    /// What its timer does each minute, until WAL arrives: whatever takes it ends with the server that it comes from.
    async fn wait_streaming(&self) -> Result<()> {
        wait_until("Barman to take WAL", WITHIN, async || {
            self.run("cron").await?;
            self.run("switch-wal --force --archive --archive-timeout 5 main")
                .await?;
            self.run("check main").await
        })
        .await
    }

    async fn run(&self, arguments: &str) -> Result<()> {
        let mut command = self.scratch.command("barman");
        command
            .env("PGPASSFILE", self.scratch.path().join("pgpass"))
            .arg("--config")
            .arg(&self.config)
            .args(arguments.split(' '));
        let output = output(command, WITHIN).await?;
        ensure!(output.status.success(), "barman {arguments}: {output:?}");
        Ok(())
    }
}

/// The member's data directory is what Barman made.
fn restored(cluster: &TestCluster, member: usize) -> Result<()> {
    let note = cluster.agents[member]
        .data_dir()
        .join(".barman-recover.info");
    ensure!(note.exists(), "no {}", note.display());
    Ok(())
}
