//! How long nobody can write.

use std::fmt;

use anyhow::Result;
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{Implementation, Target, TestCluster, Writer};

use crate::{median, milliseconds};

/// What is done to the primary.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Switchover,
    PostmasterKilled,
    NodeKilled,
}

pub(crate) const FAULTS: [Fault; 3] = [
    Fault::Switchover,
    Fault::PostmasterKilled,
    Fault::NodeKilled,
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Switchover => "switchover",
            Fault::PostmasterKilled => "postmaster killed",
            Fault::NodeKilled => "node killed",
        })
    }
}

/// The median over so many faults of the longest time between two acknowledged commits of a client that follows the
/// primary, in milliseconds. Nothing acknowledged may be missing afterwards.
pub(crate) async fn median_of(
    cluster: &mut TestCluster,
    implementation: Implementation,
    fault: Fault,
    times: usize,
) -> Result<f64> {
    let mut outages = Vec::new();
    for number in 0..times {
        let writer = writer(cluster, fault as usize * times + number).await?;
        let leader = cluster.leader().await?;
        match fault {
            Fault::Switchover => {
                cluster
                    .control_by(implementation, &["switchover", SCOPE, "--force"])
                    .await?;
            }
            Fault::PostmasterKilled => {
                cluster.agents[leader].sigkill_postmaster()?;
                cluster.wait_new_leader(leader).await?;
            }
            Fault::NodeKilled => {
                cluster.agents[leader].kill_node().await?;
                cluster.wait_new_leader(leader).await?;
            }
        }
        writer.wait_progress(cluster.timing.failover()).await?;
        if matches!(fault, Fault::NodeKilled) {
            cluster.start_agent(leader)?;
        }
        let primary = cluster.wait_healthy().await?;
        let ledger = TestCluster::collect([writer]).await?;
        ledger
            .verify_durable(cluster.agents[primary].postgres_port)
            .await?;
        outages.push(milliseconds(ledger.longest_outage()));
    }
    Ok(median(outages))
}

/// A client that follows the primary, and has made its first commits. Each writes rows of its own: what another one wrote
/// before would be refused, and look like an outage.
async fn writer(cluster: &TestCluster, number: usize) -> Result<Writer> {
    let members = cluster.agents.iter();
    let members = members.map(|agent| (agent.rest_port, agent.postgres_port));
    let writer = Writer::start(i32::try_from(number)?, Target::Primary(members.collect()));
    writer.wait_progress(cluster.timing.failover()).await?;
    Ok(writer)
}
