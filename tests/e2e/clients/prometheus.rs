//! Prometheus: its own parser reads the metrics, and a server with the sample's configuration and alerts scrapes them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use primacy_testkit::client::output;
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{Client, Sample, StoreKind, TestCluster, http, ports, wait_until};
use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scrapes_and_alerts() -> Result<()> {
    let cluster = crate::cluster(StoreKind::Embedded)
        .members(2)
        .start()
        .await?;
    let writer = cluster.writer().await?;
    for member in 0..2 {
        promtool_understands(&cluster, member).await?;
    }

    let prometheus = Prometheus::start(&cluster)?;
    prometheus.wait_value("sum(up)", "2").await?;
    prometheus
        .wait_value("sum by (scope) (patroni_primary)", "1")
        .await?;
    prometheus
        .wait_value(&format!("sum(patroni_replica{{scope=\"{SCOPE}\"}})"), "1")
        .await?;
    prometheus.wait_alerts(&[]).await?;
    cluster.control_ok(&["pause", "--wait", SCOPE]).await?;
    prometheus.wait_alerts(&["ClusterIsPaused"]).await?;
    cluster.control_ok(&["resume", "--wait", SCOPE]).await?;

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

/// `promtool check metrics` ends with 3 where it would have chosen other names, and with 1 where it cannot read.
async fn promtool_understands(cluster: &TestCluster, member: usize) -> Result<()> {
    let agent = &cluster.agents[member];
    let metrics = http::request(agent.rest_port, "GET", "/metrics", None, WITHIN).await?;
    let file = agent.dir.join("metrics");
    std::fs::write(&file, metrics.body)?;
    let mut promtool = cluster.scratch().command("sh");
    promtool
        .args(["-c", "promtool check metrics < \"$0\""])
        .arg(&file);
    let output = output(promtool, WITHIN).await?;
    let printed = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    let mut lines = printed.lines();
    ensure!(
        // The names that it does not like are Patroni's.
        matches!(code, Some(0 | 3)) && lines.all(|line| line.starts_with("patroni_")),
        "promtool ended with {code:?} for {}: {printed}",
        agent.name
    );
    Ok(())
}

struct Prometheus {
    port: u16,
    _process: Client,
}

impl Prometheus {
    fn start(cluster: &TestCluster) -> Result<Self> {
        let scratch = cluster.scratch();
        Sample::read("prometheus-rules.yml")?.write(scratch)?;
        let target = |member: usize| format!("127.0.0.1:{}", cluster.agents[member].rest_port);
        let config = Sample::read("prometheus.yml")?
            .with("10.0.0.11:8008", &target(0))?
            .with("10.0.0.12:8008", &target(1))?
            .with(", '10.0.0.13:8008'", "")?
            .with("interval: 15s", "interval: 1s")?
            .with("timeout: 5s", "timeout: 1s")?
            .write(scratch)?;
        let port = ports::free()?;
        let mut command = scratch.command("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                scratch.path().join("prometheus").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        Ok(Self {
            port,
            _process: Client::start(scratch, "prometheus", command)?,
        })
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let answer = http::request(self.port, "GET", path, None, WITHIN).await?;
        ensure!(answer.status == 200, "{path}: {answer:?}");
        Ok(answer.json()?["data"].take())
    }

    /// Waits until a query has one result with this value.
    async fn wait_value(&self, query: &str, expected: &str) -> Result<()> {
        let path = format!("/api/v1/query?query={}", query.replace(' ', "+"));
        wait_until(query, WITHIN, async || {
            let answer = self.get(&path).await?;
            let results = answer["result"].as_array().context("no result")?;
            ensure!(
                results.len() == 1 && results[0]["value"][1] == expected,
                "not {expected}: {answer}"
            );
            Ok(())
        })
        .await
    }

    /// Waits until every rule can be evaluated, and exactly these have something to say.
    async fn wait_alerts(&self, expected: &[&str]) -> Result<()> {
        wait_until("alerts", WITHIN, async || {
            let answer = self.get("/api/v1/rules").await?;
            let rules = answer["groups"][0]["rules"]
                .as_array()
                .context("no rules")?;
            ensure!(!rules.is_empty(), "{answer}");
            ensure!(rules.iter().all(|rule| rule["health"] == "ok"), "{answer}");
            let active = rules.iter().filter(|rule| rule["state"] != "inactive");
            let names: Vec<&Value> = active.map(|rule| &rule["name"]).collect();
            ensure!(names == expected, "{names:?}, not {expected:?}");
            Ok(())
        })
        .await
    }
}
