//! A real HAProxy in front of a test cluster, with the usual two listeners.

use std::fmt::Write as _;
use std::fs::File;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpStream;

use crate::cluster::TestCluster;
use crate::ports;
use crate::wait::wait_until;

/// A running HAProxy. It ends with the cluster's scratch directory.
#[derive(Debug)]
pub struct HaProxy {
    /// Connections to this port reach the primary.
    pub primary_port: u16,
    /// Connections to this port reach a replica.
    pub replica_port: u16,
    _process: Child,
}

impl HaProxy {
    /// Starts HAProxy in front of all members of the cluster.
    ///
    /// # Errors
    /// HAProxy is not installed (`make setup` does it), or does not listen within ten seconds.
    pub async fn start(cluster: &TestCluster) -> Result<Self> {
        let (primary_port, replica_port) = (ports::free()?, ports::free()?);
        let scratch = cluster.scratch();
        let config = scratch.path().join("haproxy.cfg");
        scratch
            .account()
            .write(&config, &configuration(cluster, primary_port, replica_port))?;
        let log = File::create(scratch.path().join("haproxy.log"))?;
        let process = scratch
            .command("haproxy")
            .env(
                "PATH",
                "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin",
            )
            .args(["-db", "-f"])
            .arg(&config)
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run haproxy: install it (make setup)")?;
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

fn configuration(cluster: &TestCluster, primary_port: u16, replica_port: u16) -> String {
    let mut text = String::from(
        "global
    maxconn 200

defaults
    mode tcp
    retries 2
    timeout client 30m
    timeout connect 4s
    timeout server 30m
    timeout check 5s
",
    );
    for (name, port) in [("primary", primary_port), ("replica", replica_port)] {
        let _ = write!(
            text,
            "
listen {name}
    bind 127.0.0.1:{port}
    option httpchk OPTIONS /{name}
    http-check expect status 200
    default-server inter 1s fall 3 rise 2 on-marked-down shutdown-sessions
"
        );
        for agent in &cluster.agents {
            let _ = writeln!(
                text,
                "    server {} 127.0.0.1:{} maxconn 40 check port {}",
                agent.name, agent.postgres_port, agent.rest_port
            );
        }
    }
    text
}
