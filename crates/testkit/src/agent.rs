//! One member of a test cluster: the agent's process, and the server that it owns.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

use crate::certificates::Certificates;
use crate::http::{self, Response};
use crate::network::{self, Machine};
use crate::processes;
use crate::programs::CommandLine;
use crate::scratch::Scratch;
use crate::wait::wait_until;

/// What is known already is answered at once, but for a machine that stands still for seconds; operations such as a
/// switchover take their time.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const OPERATION_WITHIN: Duration = Duration::from_secs(60);

/// The processes of a member at some time.
#[derive(Debug)]
pub struct Node {
    /// The agent, and all that it started but PostgreSQL.
    pub agent: BTreeSet<Pid>,
    /// The postmaster and its children.
    pub server: BTreeSet<Pid>,
}

/// A member: where it is, and its running agent, if any.
#[derive(Debug)]
pub struct Agent {
    pub name: String,
    pub dir: PathBuf,
    pub config: PathBuf,
    pub postgres_port: u16,
    pub rest_port: u16,
    /// Where the member runs, if not on the test's own machine.
    machine: Option<Machine>,
    /// How its REST API is asked, where that wants certificates.
    certificates: Option<Certificates>,
    command: CommandLine,
    environment: Vec<(String, String)>,
    process: Option<Child>,
}

impl Agent {
    /// A member whose agent is not started yet. `dir` exists and has the configuration file `config` in it.
    pub fn new(
        name: &str,
        dir: &Path,
        config: &Path,
        ports: (u16, u16),
        machine: Option<Machine>,
        command: &CommandLine,
    ) -> Self {
        Self {
            name: name.to_owned(),
            dir: dir.to_owned(),
            config: config.to_owned(),
            postgres_port: ports.0,
            rest_port: ports.1,
            machine,
            certificates: None,
            command: command.clone(),
            environment: Vec::new(),
            process: None,
        }
    }

    /// The same, with a REST API that wants certificates.
    pub fn with_certificates(mut self, certificates: Option<&Certificates>) -> Self {
        self.certificates = certificates.cloned();
        self
    }

    /// The address that the other members reach this one at.
    pub fn address(&self) -> Ipv4Addr {
        network::address_of(&self.machine)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn log_file(&self) -> PathBuf {
        self.dir.join("agent.log")
    }

    /// What the agents of this member have logged so far, over all their starts.
    pub fn log(&self) -> String {
        std::fs::read(self.log_file())
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .unwrap_or_default()
    }

    /// From its next start on, the agent is this program.
    pub fn run_by(&mut self, command: &CommandLine) {
        self.command = command.clone();
    }

    /// Sets a variable in the agent's environment, from its next start on; what it runs inherits it.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the agent.
    pub fn start(&mut self, scratch: &Scratch) -> Result<()> {
        ensure!(
            self.pid().is_none(),
            "the agent of {} runs already",
            self.name
        );
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())?;
        let mut command = scratch.command_on(self.machine.as_ref(), &self.command.program);
        command
            .args(&self.command.arguments)
            .arg(&self.config)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.dir)
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {}", self.command.program.display()))?;
        self.process = Some(child);
        Ok(())
    }

    /// The agent's pid, while it runs.
    pub fn pid(&self) -> Option<Pid> {
        let pid = Pid::from_raw(i32::try_from(self.process.as_ref()?.id()).ok()?);
        processes::alive(pid).then_some(pid)
    }

    /// The postmaster's pid, while it runs.
    pub fn postmaster_pid(&self) -> Option<Pid> {
        processes::postmaster_pid(&self.data_dir())
    }

    /// Sends a signal to the agent.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self
            .pid()
            .with_context(|| format!("the agent of {} does not run", self.name))?;
        processes::signal(pid, signal);
        Ok(())
    }

    /// Freezes the agent.
    pub fn sigstop(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets a frozen agent go on.
    pub fn sigcont(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Has the agent read its configuration again.
    pub fn sighup(&self) -> Result<()> {
        self.signal(Signal::SIGHUP)
    }

    /// Kills the agent, and only it.
    pub async fn sigkill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait_exit(Duration::from_secs(10)).await?;
        Ok(())
    }

    /// Asks the agent to stop, and waits until it has.
    pub async fn sigterm(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait_exit(within).await
    }

    /// Waits for the end of the agent's process.
    pub async fn wait_exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        let Some(mut child) = self.process.take() else {
            bail!("the agent of {name} was not started")
        };
        let ended = tokio::time::timeout(within, async {
            loop {
                if let Some(status) = child.try_wait()? {
                    return Ok::<_, std::io::Error>(status);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        match ended {
            Ok(status) => Ok(status?),
            Err(_) => {
                self.process = Some(child);
                bail!("the agent of {name} did not end within {within:?}")
            }
        }
    }

    /// Kills the postmaster, and only it: its children notice.
    pub fn sigkill_postmaster(&self) -> Result<Pid> {
        let pid = self
            .postmaster_pid()
            .with_context(|| format!("no postmaster runs on {}", self.name))?;
        processes::signal(pid, Signal::SIGKILL);
        Ok(pid)
    }

    /// All processes of the member.
    pub fn node(&self) -> Node {
        let with_children = |root: Option<Pid>| -> BTreeSet<Pid> {
            let below = root.into_iter().flat_map(processes::descendants);
            root.into_iter().chain(below).collect()
        };
        let server = with_children(self.postmaster_pid());
        let mut agent = with_children(self.pid());
        agent.retain(|pid| !server.contains(pid));
        Node { agent, server }
    }

    /// What the loss of the machine does, as near as one machine can: agent and server, with everything below them,
    /// are killed at once.
    pub async fn kill_node(&mut self) -> Result<()> {
        let postmaster = self.postmaster_pid();
        let Node { agent, server } = self.node();
        if self.pid().is_some() {
            self.sigkill().await?;
        }
        for pid in server.into_iter().chain(agent) {
            processes::signal(pid, Signal::SIGKILL);
        }
        let what = format!("the server of {} to be dead", self.name);
        wait_until(&what, Duration::from_secs(10), async || {
            ensure!(
                postmaster.is_none_or(|pid| !processes::alive(pid)),
                "the postmaster is alive"
            );
            Ok(())
        })
        .await
    }

    /// The status code of `OPTIONS path`, as HAProxy asks for it.
    pub async fn check(&self, path: &str) -> Result<u16> {
        Ok(self
            .request("OPTIONS", path, None, ANSWER_WITHIN)
            .await?
            .status)
    }

    /// A document of the REST API.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.request("GET", path, None, ANSWER_WITHIN).await?.json()
    }

    /// An operation of the REST API.
    pub async fn send(&self, method: &str, path: &str, body: &Value) -> Result<Response> {
        self.request(method, path, Some(body), OPERATION_WITHIN)
            .await
    }

    async fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        within: Duration,
    ) -> Result<Response> {
        let port = self.rest_port;
        match &self.certificates {
            None => http::request(port, method, path, body, within).await,
            Some(certificates) => certificates.request(port, method, path, body, within).await,
        }
    }
}
