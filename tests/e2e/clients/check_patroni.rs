//! check_patroni, the Nagios plugin: each of its checks says the same whoever is asked, an agent of ours or of Patroni's,
//! in every role that either has.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use primacy_testkit::client::output;
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{Sample, StoreKind, TestCluster, Venv, wait_until};

const CHECK_PATRONI: Venv = Venv {
    directory: "/var/tmp/primacy-test-check-patroni-2.2.0",
    packages: &["check_patroni==2.2.0"],
};

/// A plugin's exit codes.
const OK: i32 = 0;
const WARNING: i32 = 1;
const CRITICAL: i32 = 2;

/// The checks of a cluster that is whole, but for its third member. In maintenance is what this plugin calls fine.
const WHOLE: &[(&str, i32)] = &[
    ("cluster_node_count", WARNING),
    ("cluster_node_count -w 2: -c 1:", WARNING),
    ("cluster_has_leader", OK),
    ("cluster_has_replica", WARNING),
    ("cluster_has_replica -w 1: -c 1:", OK),
    ("cluster_has_replica -w 1: --sync-type quorum", CRITICAL),
    ("cluster_config_has_changed", OK),
    ("cluster_is_in_maintenance", OK),
    ("cluster_has_scheduled_action", OK),
];

/// A switchover and a restart are scheduled, and both members wait for a restart.
const BUSY: &[(&str, i32)] = &[
    ("cluster_node_count", WARNING),
    ("cluster_has_leader", OK),
    ("cluster_has_replica -w 1: -c 1:", OK),
    ("cluster_config_has_changed", CRITICAL),
    ("cluster_has_scheduled_action", CRITICAL),
];

const PAUSED: &[(&str, i32)] = &[
    ("cluster_is_in_maintenance", CRITICAL),
    ("cluster_has_leader", OK),
    ("cluster_has_replica -w 1: -c 1:", OK),
];

/// The checks of a node: what the primary's agent gets, and what the synchronous standby's.
const NODE: &[(&str, i32, i32)] = &[
    ("node_is_alive", OK, OK),
    ("node_is_leader", OK, CRITICAL),
    ("node_is_leader --is-standby-leader", CRITICAL, CRITICAL),
    ("node_is_primary", OK, CRITICAL),
    ("node_is_replica", CRITICAL, OK),
    ("node_is_replica --max-lag 1GB", CRITICAL, OK),
    ("node_is_replica --is-sync", CRITICAL, OK),
    (
        "node_is_replica --is-sync --sync-type quorum",
        CRITICAL,
        CRITICAL,
    ),
    ("node_is_replica --is-async", CRITICAL, CRITICAL),
    ("node_is_pending_restart", OK, OK),
    ("node_patroni_version --patroni-version 4.1.5", OK, OK),
    (
        "node_patroni_version --patroni-version 3.0.4",
        CRITICAL,
        CRITICAL,
    ),
];

/// The checks of a standby cluster of two, in which nobody is synchronous, as the sample wants it.
const STANDBY_CLUSTER: &[(&str, i32)] = &[
    ("cluster_node_count", WARNING),
    ("cluster_has_leader", OK),
    ("cluster_has_replica -w 1: -c 1:", CRITICAL),
    (
        "cluster_has_replica -w 1: -c 1: --sync-warning 0: --sync-critical 0:",
        OK,
    ),
    ("cluster_config_has_changed", OK),
    ("cluster_is_in_maintenance", OK),
    ("cluster_has_scheduled_action", OK),
];

/// What the standby leader's agent gets, and what the replica's.
const STANDBY_NODE: &[(&str, i32, i32)] = &[
    ("node_is_alive", OK, OK),
    ("node_is_leader", OK, CRITICAL),
    ("node_is_leader --is-standby-leader", OK, CRITICAL),
    ("node_is_primary", CRITICAL, CRITICAL),
    ("node_is_replica", CRITICAL, OK),
    ("node_is_replica --max-lag 1GB", CRITICAL, OK),
    ("node_is_replica --is-sync", CRITICAL, CRITICAL),
    ("node_is_replica --is-async", CRITICAL, OK),
    ("node_is_pending_restart", OK, OK),
    ("node_patroni_version --patroni-version 4.1.5", OK, OK),
];

/// Has all checks say of a standby cluster of one of each what they ought to, in the same words whoever is asked.
/// Returns what those of a node say, to be compared when the other leads.
pub(crate) async fn of_standby_cluster(
    cluster: &TestCluster,
    leader: usize,
) -> Result<Vec<(Said, Said)>> {
    let check = Check::prepare(cluster)?;
    check.run(0, "cluster_config_has_changed --save").await?;
    check.both_say(STANDBY_CLUSTER).await?;
    check.nodes(leader, STANDBY_NODE).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_check_says_what_it_says_of_patroni() -> Result<()> {
    let cluster = crate::cluster(StoreKind::Etcd3)
        .members(2)
        .patroni(&[1])
        .start()
        .await?;
    let writer = cluster.writer().await?;
    let check = Check::prepare(&cluster)?;

    check.run(0, "cluster_config_has_changed --save").await?;
    check.both_say(WHOLE).await?;
    let first = check.nodes(cluster.leader().await?, NODE).await?;
    cluster
        .control_ok(&["switchover", SCOPE, "--force"])
        .await?;
    let leader = cluster.wait_healthy().await?;
    let second = check.nodes(leader, NODE).await?;
    ensure!(
        first == second,
        "with the roles exchanged, the checks say\n{second:#?}\nnot\n{first:#?}"
    );

    let scheduled = ["--scheduled", "2040-01-01T00:00:00Z", "--force"];
    let commands = [
        &["switchover", SCOPE][..],
        &["restart", SCOPE, &cluster.agents[0].name],
    ];
    for command in commands {
        cluster.control_ok(&[command, &scheduled].concat()).await?;
    }
    let setting = "postgresql.parameters.max_connections=45";
    cluster
        .control_ok(&["edit-config", SCOPE, "--force", "-s", setting])
        .await?;
    check.both_say(BUSY).await?;
    for member in 0..2 {
        check
            .wait(member, "node_is_pending_restart", CRITICAL)
            .await?;
    }

    for command in ["switchover", "restart"] {
        cluster
            .control_ok(&["flush", SCOPE, command, "--force"])
            .await?;
    }
    cluster.control_ok(&["pause", "--wait", SCOPE]).await?;
    check.both_say(PAUSED).await?;
    cluster.control_ok(&["resume", "--wait", SCOPE]).await?;

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

struct Check<'a> {
    cluster: &'a TestCluster,
    program: PathBuf,
    config: PathBuf,
}

/// What a check ended with, and what it printed.
pub(crate) type Said = (i32, String);

impl<'a> Check<'a> {
    fn prepare(cluster: &'a TestCluster) -> Result<Self> {
        let state = cluster.scratch().path().join("check_patroni.state");
        let config = Sample::read("check_patroni.ini")?
            .with(
                "http://10.0.0.11:8008, http://10.0.0.12:8008, http://10.0.0.13:8008",
                &endpoint(cluster, 0),
            )?
            .with("/var/lib/nagios/patroni-config", &path(&state))?
            .write(cluster.scratch())?;
        Ok(Self {
            cluster,
            program: CHECK_PATRONI.bin()?.join("check_patroni"),
            config,
        })
    }

    /// Asks one member's agent.
    async fn run(&self, member: usize, check: &str) -> Result<Said> {
        let mut command = self.cluster.scratch().command(&self.program);
        command
            .args(["--config", &path(&self.config)])
            .args(["-e", &endpoint(self.cluster, member)])
            .args(check.split(' '));
        let output = output(command, Duration::from_secs(30)).await?;
        let code = output.status.code().context("killed by a signal")?;
        Ok((code, String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// Both members' agents say so of the cluster, in the same words. Positions move, so it may take another look.
    async fn both_say(&self, checks: &[(&str, i32)]) -> Result<()> {
        for (check, expected) in checks {
            self.wait(0, check, *expected).await?;
            wait_until(check, self.cluster.timing.failover(), async || {
                let (ours, theirs) = tokio::try_join!(self.run(0, check), self.run(1, check))?;
                ensure!(ours == theirs, "ours: {ours:?}\ntheirs: {theirs:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    async fn wait(&self, member: usize, check: &str, expected: i32) -> Result<Said> {
        wait_until(check, self.cluster.timing.failover(), async || {
            let said = self.run(member, check).await?;
            ensure!(said.0 == expected, "expected {expected}, got {said:?}");
            Ok(said)
        })
        .await
    }

    /// What the checks of a node say of the leader, and of the other member.
    async fn nodes(&self, leader: usize, checks: &[(&str, i32, i32)]) -> Result<Vec<(Said, Said)>> {
        let standby = 1 - leader;
        let mut told = Vec::new();
        for (check, of_leader, of_standby) in checks {
            told.push(tokio::try_join!(
                self.wait(leader, check, *of_leader),
                self.wait(standby, check, *of_standby),
            )?);
        }
        // It moves with every switchover, so it is no part of what is compared.
        let status = self.cluster.agents[leader].get("/patroni").await?;
        for (timeline, expected) in [
            (status["timeline"].to_string(), OK),
            ("99".into(), CRITICAL),
        ] {
            let check = format!("node_tl_has_changed --timeline {timeline}");
            tokio::try_join!(
                self.wait(leader, &check, expected),
                self.wait(standby, &check, expected),
            )?;
        }
        Ok(told)
    }
}

fn endpoint(cluster: &TestCluster, member: usize) -> String {
    format!("http://127.0.0.1:{}", cluster.agents[member].rest_port)
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
