//! Primacy and Patroni side by side: the same measurements, on clusters of the same settings, in one run on one
//! machine, printed as ratios. Numbers of different runs or machines say little; ratios of one run do.

mod idle;
mod outage;
mod report;
mod requests;
mod start;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{Implementation, StoreKind, Target, TestCluster, Writer};
use serde_json::json;

use report::{Better, Report};

/// What is measured of REST: health checks are asked for most often, by load balancers; the other two by monitoring.
const ENDPOINTS: [(&str, &str); 3] = [
    ("OPTIONS", "/primary"),
    ("GET", "/patroni"),
    ("GET", "/metrics"),
];

/// The number of the client that keeps a cluster busy; those that time outages count from 0.
const BUSY_WRITER: i32 = 1000;

/// Measure Primacy and Patroni side by side
#[derive(Debug, Parser)]
struct Options {
    /// The executable to measure
    #[arg(long, default_value = "target/release/primacy")]
    executable: PathBuf,
    /// How long idle agents are watched, in seconds
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// How long each REST endpoint is asked, in seconds
    #[arg(long, default_value_t = 5)]
    load: u64,
    /// How often each fault is inflicted; the median counts
    #[arg(long, default_value_t = 3)]
    faults: usize,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let options = Options::parse();
    let mut report = Report::default();
    for implementation in [Implementation::Primacy, Implementation::Patroni] {
        eprintln!("measuring {implementation:?}");
        measure(implementation, &options, &mut report).await?;
    }
    print!("{report}");
    Ok(())
}

async fn measure(
    implementation: Implementation,
    options: &Options,
    report: &mut Report,
) -> Result<()> {
    let members: &[usize] = match implementation {
        Implementation::Primacy => &[],
        Implementation::Patroni => &[0, 1, 2],
    };
    let mut cluster = TestCluster::builder(StoreKind::Etcd3, &options.executable)
        .patroni(members)
        // Equal and as short as both allow; a crashed primary hands over instead of recovering.
        .dynamic("primary_start_timeout", json!(0))
        .start()
        .await?;
    let mut add = |name: &str, unit, better, value| {
        report.add(implementation, name, unit, better, value);
    };

    let idle = idle::watch(&cluster, Duration::from_secs(options.idle)).await?;
    add(
        "idle agent: resident memory",
        "MB",
        Better::Less,
        idle.resident_mb,
    );
    add("idle agent: threads", "", Better::Less, idle.threads);
    add(
        "idle agent: CPU",
        "ms/s",
        Better::Less,
        idle.cpu_ms_per_second,
    );
    add(
        "idle agent: wake-ups",
        "/s",
        Better::Less,
        idle.wakeups_per_second,
    );
    add(
        "idle cluster: store requests",
        "/min",
        Better::Less,
        idle.store_requests_per_minute,
    );

    let members = cluster.agents.iter();
    let members = members.map(|agent| (agent.rest_port, agent.postgres_port));
    let writer = Writer::start(BUSY_WRITER, Target::Primary(members.collect()));
    writer.wait_progress(cluster.timing.failover()).await?;
    add(
        "busy cluster: store requests",
        "/min",
        Better::Less,
        idle::store_load(&cluster, Duration::from_secs(options.idle)).await?,
    );
    TestCluster::collect([writer]).await?;

    let leader = cluster.leader().await?;
    let replica = cluster.others(leader)[0];
    add(
        "start to first REST answer",
        "ms",
        Better::Less,
        start::first_answer(&mut cluster, replica).await?,
    );
    cluster.wait_healthy().await?;

    let port = cluster.agents[leader].rest_port;
    for (method, path) in ENDPOINTS {
        let load = requests::load(port, method, path, Duration::from_secs(options.load)).await?;
        let name = |what: &str| format!("{method} {path}: {what}");
        add(&name("answers"), "/s", Better::More, load.per_second);
        add(&name("p50"), "ms", Better::Less, load.median_ms);
        add(&name("p99"), "ms", Better::Less, load.p99_ms);
    }
    add(
        "list",
        "ms",
        Better::Less,
        time_of_list(&cluster, implementation).await?,
    );

    for fault in outage::FAULTS {
        let outage = outage::median_of(&mut cluster, implementation, fault, options.faults).await?;
        add(
            &format!("write outage: {fault}"),
            "ms",
            Better::Less,
            outage,
        );
    }
    cluster.pass();
    Ok(())
}

/// The median of five.
async fn time_of_list(cluster: &TestCluster, implementation: Implementation) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..5 {
        let begin = Instant::now();
        cluster.control_by(implementation, &["list", SCOPE]).await?;
        times.push(milliseconds(begin.elapsed()));
    }
    Ok(median(times))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
