//! A real HAProxy in front of a test cluster, by the sample that users copy.

use std::time::Duration;

use anyhow::Result;
use tokio::net::TcpStream;

use crate::certificates::Certificates;
use crate::client::Client;
use crate::cluster::TestCluster;
use crate::ports;
use crate::sample::Sample;
use crate::wait::wait_until;

/// A running HAProxy. It ends with the cluster's scratch directory.
#[derive(Debug)]
pub struct HaProxy {
    /// Connections to this port reach the primary.
    pub primary_port: u16,
    /// Connections to this port reach a replica.
    pub replica_port: u16,
    _process: Client,
}

impl HaProxy {
    /// Starts HAProxy in front of the three members' servers; where the agents want certificates, with one.
    ///
    /// # Errors
    /// HAProxy is not installed (`make setup` does it), or does not listen within ten seconds.
    pub async fn start(cluster: &TestCluster) -> Result<Self> {
        let servers = cluster.agents.iter().map(|agent| agent.postgres_port);
        Self::start_before(cluster, &servers.collect::<Vec<_>>()).await
    }

    /// The same in front of what listens at these ports, one for each member.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_before(cluster: &TestCluster, servers: &[u16]) -> Result<Self> {
        let (primary_port, replica_port) = (ports::free()?, ports::free()?);
        let mut sample = match &cluster.certificates {
            None => Sample::read("haproxy.cfg")?.with("*:7000", &local(ports::free()?))?,
            Some(certificates) => with_files(Sample::read("haproxy-tls.cfg")?, certificates)?,
        };
        sample = sample
            .with("*:5000", &local(primary_port))?
            .with("*:5001", &local(replica_port))?;
        for (number, (agent, server)) in (1..).zip(cluster.agents.iter().zip(servers)) {
            sample = sample.with(
                &format!("10.0.0.1{number}:5432 maxconn 100 check port 8008"),
                &format!(
                    "{} maxconn 100 check port {}",
                    local(*server),
                    agent.rest_port
                ),
            )?;
        }
        let scratch = cluster.scratch();
        let config = sample.write(scratch)?;
        let mut command = scratch.command("haproxy");
        command.args(["-db", "-f"]).arg(&config);
        let process = Client::start(scratch, "haproxy", command)?;
        wait_until("HAProxy to listen", Duration::from_secs(10), async || {
            TcpStream::connect(("127.0.0.1", primary_port)).await?;
            Ok(())
        })
        .await?;
        Ok(Self {
            primary_port,
            replica_port,
            _process: process,
        })
    }
}

fn with_files(sample: Sample, certificates: &Certificates) -> Result<Sample> {
    sample
        .with("/etc/haproxy/ca.pem", &certificates.file("ca.pem"))?
        .with(
            "/etc/haproxy/haproxy.pem",
            &certificates.file("client-both.pem"),
        )
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}
