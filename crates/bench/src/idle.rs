//! What agents cost that have nothing to do.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use primacy_testkit::store::Store;
use primacy_testkit::{Pid, TestCluster, sql};

/// A server whose WAL did not move for so long has nothing to write before its next checkpoint, and its members have
/// published where it ended.
const REST: Duration = Duration::from_secs(25);
/// It is never at rest for so long.
const REST_LIMIT: Duration = Duration::from_secs(180);

/// One agent's cost, the mean over the members, and the store's load by all of them.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) resident_mb: f64,
    pub(crate) threads: f64,
    pub(crate) cpu_ms_per_second: f64,
    pub(crate) wakeups_per_second: f64,
    pub(crate) store_requests_per_minute: f64,
}

/// Counters of a process since its start.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    cpu_ms: f64,
    wakeups: f64,
}

/// Watches a cluster without clients for so long.
pub(crate) async fn watch(cluster: &TestCluster, period: Duration) -> Result<Idle> {
    let pids: Vec<Pid> = cluster
        .agents
        .iter()
        .filter_map(|agent| agent.pid())
        .collect();
    wait_rest(cluster).await?;
    let before = counters(&pids)?;
    let store_requests_per_minute = store_load(cluster, period).await?;
    let after = counters(&pids)?;

    let agents = pids.len() as f64;
    let seconds = period.as_secs_f64();
    let mean = |key: &str| -> Result<f64> {
        let values: Result<Vec<f64>> = pids.iter().map(|pid| status(*pid, key)).collect();
        Ok(values?.iter().sum::<f64>() / agents)
    };
    Ok(Idle {
        resident_mb: mean("VmRSS")? / 1024.0,
        threads: mean("Threads")?,
        cpu_ms_per_second: (after.cpu_ms - before.cpu_ms) / agents / seconds,
        wakeups_per_second: (after.wakeups - before.wakeups) / agents / seconds,
        store_requests_per_minute,
    })
}

/// The requests per minute that reach the store, over so long a time.
pub(crate) async fn store_load(cluster: &TestCluster, period: Duration) -> Result<f64> {
    let before = store_requests(cluster).await?;
    tokio::time::sleep(period).await;
    let mut requests = 0.0;
    for (method, count) in store_requests(cluster).await? {
        let more = count - before.get(&method).copied().unwrap_or_default();
        requests += more;
        if more > 0.0 {
            eprintln!("  store requests: {more} {method}");
        }
    }
    Ok(requests / period.as_secs_f64() * 60.0)
}

/// What the members did to become whole, and what their servers write a while after that, is not idleness.
async fn wait_rest(cluster: &TestCluster) -> Result<()> {
    let port = cluster.agents[cluster.leader().await?].postgres_port;
    let (mut position, mut since) = (String::new(), Instant::now());
    let limit = Instant::now() + REST_LIMIT;
    while since.elapsed() < REST && Instant::now() < limit {
        let now = sql::text(port, "select pg_current_wal_insert_lsn()::text").await?;
        if now != position {
            (position, since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

fn counters(pids: &[Pid]) -> Result<Counters> {
    let mut sum = Counters::default();
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .split_whitespace()
            .collect();
        // utime and stime, in ticks of 10 ms.
        for field in &fields[11..13] {
            sum.cpu_ms += field.parse::<f64>()? * 10.0;
        }
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = fs::read_to_string(task?.path().join("status"))?;
            sum.wakeups += number(&text, "voluntary_ctxt_switches")?;
        }
    }
    Ok(sum)
}

fn status(pid: Pid, key: &str) -> Result<f64> {
    number(&fs::read_to_string(format!("/proc/{pid}/status"))?, key)
}

fn number(status: &str, key: &str) -> Result<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let value = line.and_then(|line| line.split_whitespace().next());
    Ok(value.with_context(|| format!("no {key}"))?.parse()?)
}

/// All requests that reached etcd's members since their start, by method: the messages, so that many in one stream count
/// as many.
async fn store_requests(cluster: &TestCluster) -> Result<BTreeMap<String, f64>> {
    let mut requests = BTreeMap::new();
    let Store::Etcd3(etcd) = &cluster.store else {
        return Ok(requests);
    };
    for metrics in etcd.metrics().await? {
        let received = metrics
            .lines()
            .filter(|line| line.starts_with("grpc_server_msg_received_total"));
        // etcd's own health checks and the members' talk among each other are not the agents' requests.
        for line in received.filter(|line| line.contains("etcdserverpb.")) {
            let method = line
                .split_once("grpc_method=\"")
                .and_then(|(_, rest)| rest.split('"').next());
            let value = line.rsplit(' ').next().unwrap_or("0");
            *requests
                .entry(method.unwrap_or("?").to_owned())
                .or_default() += value.parse::<f64>()?;
        }
    }
    Ok(requests)
}
