//! The store behind a test cluster, and how it loses its quorum.

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::StoreKind;
use crate::http;
use crate::ports;
use crate::scratch::Scratch;
use crate::wait::wait_until;

/// A running store.
#[derive(Debug)]
pub enum Store {
    /// Within the agents: the addresses of their Raft members.
    Embedded {
        addresses: Vec<String>,
    },
    Etcd3(Etcd),
}

impl Store {
    pub(crate) async fn start(kind: StoreKind, scratch: &Scratch, members: usize) -> Result<Self> {
        match kind {
            StoreKind::Embedded => {
                let addresses: Result<Vec<String>> = (0..members)
                    .map(|_| Ok(format!("127.0.0.1:{}", ports::free()?)))
                    .collect();
                Ok(Self::Embedded {
                    addresses: addresses?,
                })
            }
            StoreKind::Etcd3 => Ok(Self::Etcd3(Etcd::start(scratch, 3).await?)),
        }
    }

    pub fn kind(&self) -> StoreKind {
        match self {
            Self::Embedded { .. } => StoreKind::Embedded,
            Self::Etcd3(_) => StoreKind::Etcd3,
        }
    }

    /// The addresses that members reach the store at.
    pub fn hosts(&self) -> Vec<String> {
        match self {
            Self::Embedded { addresses } => addresses.clone(),
            Self::Etcd3(etcd) => etcd.hosts(),
        }
    }

    /// The configuration's section.
    pub(crate) fn section_name(&self) -> &'static str {
        match self {
            Self::Embedded { .. } => "raft",
            Self::Etcd3(_) => "etcd3",
        }
    }

    /// The section's value for one member, which keeps its files in `dir`.
    pub(crate) fn section(&self, member: usize, dir: &Path) -> Value {
        match self {
            Self::Embedded { addresses } => {
                let own = &addresses[member];
                let partners: Vec<&String> =
                    addresses.iter().filter(|address| *address != own).collect();
                json!({
                    "self_addr": own,
                    "partner_addrs": partners,
                    "data_dir": dir.join("raft"),
                    "password": "raft secret",
                })
            }
            Self::Etcd3(etcd) => json!({ "hosts": etcd.hosts() }),
        }
    }
}

/// A real etcd of several members.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<EtcdMember>,
}

#[derive(Debug)]
struct EtcdMember {
    client_port: u16,
    peer_port: u16,
    process: Option<Child>,
}

impl Etcd {
    async fn start(scratch: &Scratch, members: usize) -> Result<Self> {
        let members: Result<Vec<EtcdMember>> = (0..members)
            .map(|_| {
                Ok(EtcdMember {
                    client_port: ports::free()?,
                    peer_port: ports::free()?,
                    process: None,
                })
            })
            .collect();
        let mut etcd = Self { members: members? };
        for member in 0..etcd.members.len() {
            etcd.start_member(scratch, member)?;
        }
        etcd.wait_healthy().await?;
        Ok(etcd)
    }

    /// The members' client addresses.
    pub fn hosts(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|member| format!("127.0.0.1:{}", member.client_port))
            .collect()
    }

    /// Starts a member, with the data that it had if it ran before.
    pub fn start_member(&mut self, scratch: &Scratch, member: usize) -> Result<()> {
        let peers: Vec<String> = (0..)
            .zip(&self.members)
            .map(|(index, member)| format!("etcd{index}=http://127.0.0.1:{}", member.peer_port))
            .collect();
        let (name, dir) = (
            format!("etcd{member}"),
            scratch.path().join(format!("etcd{member}")),
        );
        scratch.account().create_dir(&dir)?;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.join("etcd.log"))?;
        let this = &mut self.members[member];
        let client = format!("http://127.0.0.1:{}", this.client_port);
        let peer = format!("http://127.0.0.1:{}", this.peer_port);
        let process = scratch
            .command("etcd")
            .args(["--name", &name, "--data-dir"])
            .arg(dir.join("data"))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args([
                "--initial-cluster",
                &peers.join(","),
                "--initial-cluster-state",
                "new",
            ])
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run etcd: install etcd-server (make setup)")?;
        this.process = Some(process);
        Ok(())
    }

    /// Kills a member.
    pub fn kill_member(&mut self, member: usize) -> Result<()> {
        let mut process = self.members[member]
            .process
            .take()
            .context("that etcd member does not run")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    /// Waits until the running members have a leader.
    pub async fn wait_healthy(&self) -> Result<()> {
        wait_until(
            "etcd to have a leader",
            Duration::from_secs(30),
            async || {
                for member in self
                    .members
                    .iter()
                    .filter(|member| member.process.is_some())
                {
                    let health = http::request(
                        member.client_port,
                        "GET",
                        "/health",
                        None,
                        Duration::from_secs(3),
                    )
                    .await?;
                    ensure!(
                        health.status == 200,
                        "health of port {}: {}",
                        member.client_port,
                        health.body
                    );
                }
                Ok(())
            },
        )
        .await
    }
}
