//! A real etcd cluster whose members can be frozen, killed and started again.

use std::fs::OpenOptions;
use std::net::Ipv4Addr;
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::json;

use crate::http;
use crate::network::{self, Machine, Network, free_port};
use crate::processes;
use crate::scratch::Scratch;
use crate::wait::wait_until;

/// For a member to start or to elect another leader, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// For one question to a member.
const ANSWER: Duration = Duration::from_secs(2);

/// An etcd cluster on the loopback. Dropped, it takes its processes and its data with it.
#[derive(Debug)]
pub struct EtcdCluster {
    scratch: Scratch,
    members: Vec<Member>,
    extra_arguments: Vec<String>,
}

#[derive(Debug)]
struct Member {
    machine: Option<Machine>,
    client_port: u16,
    peer_port: u16,
    process: Mutex<Option<Child>>,
}

impl Member {
    fn address(&self) -> Ipv4Addr {
        network::address_of(&self.machine)
    }
}

impl EtcdCluster {
    /// Starts a cluster and waits until it has a leader.
    ///
    /// # Errors
    /// etcd is not installed, or does not start.
    pub async fn start(members: usize) -> Result<Self> {
        Self::start_with(members, &[]).await
    }

    /// The same with more command line arguments for every member.
    ///
    /// # Errors
    /// As [`EtcdCluster::start`].
    pub async fn start_with(members: usize, extra_arguments: &[&str]) -> Result<Self> {
        Self::run((0..members).map(|_| None).collect(), extra_arguments).await
    }

    /// Starts a cluster of three with each member on one of the network's first machines.
    ///
    /// # Errors
    /// As [`EtcdCluster::start`].
    pub async fn start_on(network: &Network) -> Result<Self> {
        let machines = (0..3).map(|member| Some(network.machine(member).clone()));
        Self::run(machines.collect(), &[]).await
    }

    async fn run(machines: Vec<Option<Machine>>, extra_arguments: &[&str]) -> Result<Self> {
        let member = |machine: Option<Machine>| -> Result<Member> {
            let (client_port, peer_port) = (free_port(&machine)?, free_port(&machine)?);
            Ok(Member {
                machine,
                client_port,
                peer_port,
                process: Mutex::default(),
            })
        };
        let cluster = EtcdCluster {
            scratch: Scratch::new()?,
            members: machines.into_iter().map(member).collect::<Result<_>>()?,
            extra_arguments: extra_arguments.iter().map(ToString::to_string).collect(),
        };
        cluster.start_all()?;
        cluster.wait_healthy().await?;
        Ok(cluster)
    }

    /// How many members there are.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// The member's address for clients: `127.0.0.1:2379`.
    pub fn host(&self, member: usize) -> String {
        let member = &self.members[member];
        format!("{}:{}", member.address(), member.client_port)
    }

    /// All ports that it uses.
    pub fn ports(&self) -> Vec<u16> {
        let ports = |member: &Member| [member.client_port, member.peer_port];
        self.members.iter().flat_map(ports).collect()
    }

    /// The URLs of all members, for clients.
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.members.len())
            .map(|member| format!("http://{}", self.host(member)))
            .collect()
    }

    /// Starts a member, with the data that it had if it ran before. Nothing happens if it runs.
    ///
    /// # Errors
    /// etcd cannot be executed.
    pub fn start_member(&self, member: usize) -> Result<()> {
        let mut process = self.process(member);
        if process.is_some() {
            return Ok(());
        }
        let url = |member: &Member, port: u16| format!("http://{}:{port}", member.address());
        let peers = (0..).zip(&self.members);
        let peers: Vec<String> = peers
            .map(|(index, member): (usize, _)| {
                format!("etcd{index}={}", url(member, member.peer_port))
            })
            .collect();
        let own = &self.members[member];
        let (client_url, peer_url) = (url(own, own.client_port), url(own, own.peer_port));
        let dir = self.scratch.path().join(format!("etcd{member}"));
        self.scratch.account().create_dir(&dir)?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.join("etcd.log"))?;
        let mut command = self.scratch.command_on(own.machine.as_ref(), "etcd");
        command.arg(format!("--name=etcd{member}"));
        command.arg(format!("--data-dir={}", dir.join("data").display()));
        command.arg(format!("--listen-client-urls={client_url}"));
        command.arg(format!("--advertise-client-urls={client_url}"));
        command.arg(format!("--listen-peer-urls={peer_url}"));
        command.arg(format!("--initial-advertise-peer-urls={peer_url}"));
        command.arg(format!("--initial-cluster={}", peers.join(",")));
        command.args(&self.extra_arguments);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command
            .spawn()
            .context("cannot run etcd: install etcd-server (make setup)")?;
        *process = Some(child);
        Ok(())
    }

    /// Starts every member that does not run.
    ///
    /// # Errors
    /// As [`EtcdCluster::start_member`].
    pub fn start_all(&self) -> Result<()> {
        (0..self.members.len()).try_for_each(|member| self.start_member(member))
    }

    /// Kills a member. Nothing happens if it does not run.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn kill_member(&self, member: usize) -> Result<()> {
        if let Some(mut process) = self.process(member).take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Stops a member: its connections stay and it says nothing.
    pub fn freeze_member(&self, member: usize) {
        self.signal(member, Signal::SIGSTOP);
    }

    /// Lets a stopped member go on.
    pub fn thaw_member(&self, member: usize) {
        self.signal(member, Signal::SIGCONT);
    }

    /// The member that leads, as a running member sees it.
    ///
    /// # Errors
    /// No member answers, or they see no leader.
    pub async fn leader(&self) -> Result<usize> {
        for (number, member) in self.members.iter().enumerate() {
            if self.process(number).is_none() {
                continue;
            }
            let path = "/v3/maintenance/status";
            let Ok(answer) =
                http::request(member.client_port, "POST", path, Some(&json!({})), ANSWER).await
            else {
                continue;
            };
            let status = answer.json()?;
            if status["leader"].is_string() && status["leader"] == status["header"]["member_id"] {
                return Ok(number);
            }
        }
        bail!("etcd has no leader")
    }

    /// Deletes a key that is there.
    ///
    /// # Errors
    /// The first member does not answer, or there is no such key.
    pub async fn delete(&self, key: &str) -> Result<()> {
        let body = json!({"key": BASE64_STANDARD.encode(key)});
        let port = self.members[0].client_port;
        let path = "/v3/kv/deleterange";
        let answer = http::request(port, "POST", path, Some(&body), ANSWER).await?;
        ensure!(answer.json()?["deleted"] == "1", "{}", answer.body);
        Ok(())
    }

    /// The running members' metrics, in Prometheus' text format.
    ///
    /// # Errors
    /// A running member does not answer.
    pub async fn metrics(&self) -> Result<Vec<String>> {
        let mut metrics = Vec::new();
        for (number, member) in self.members.iter().enumerate() {
            if self.process(number).is_some() {
                let answer =
                    http::request(member.client_port, "GET", "/metrics", None, ANSWER).await?;
                metrics.push(answer.body);
            }
        }
        Ok(metrics)
    }

    /// Waits until every running member sees a leader and serves.
    ///
    /// # Errors
    /// That does not come about.
    pub async fn wait_healthy(&self) -> Result<()> {
        wait_until("etcd to be healthy", PATIENCE, async || {
            for (number, member) in self.members.iter().enumerate() {
                if self.process(number).is_some() {
                    let health =
                        http::request(member.client_port, "GET", "/health", None, ANSWER).await?;
                    ensure!(health.status == 200, "member {number}: {}", health.body);
                }
            }
            self.leader().await.map(drop)
        })
        .await
    }

    fn signal(&self, member: usize, signal: Signal) {
        let pid = self
            .process(member)
            .as_ref()
            .and_then(|child| i32::try_from(child.id()).ok());
        if let Some(pid) = pid {
            processes::signal(Pid::from_raw(pid), signal);
        }
    }

    fn process(&self, member: usize) -> MutexGuard<'_, Option<Child>> {
        self.members[member]
            .process
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
