//! A whole cluster: store, agents, servers.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Map, Value, json};

use crate::agent::Agent;
use crate::certificates::Certificates;
use crate::disk::Disk;
use crate::ledger::{self, Ledger};
use crate::network::{Network, address_of, free_port};
use crate::programs::{self, CommandLine};
use crate::scratch::Scratch;
use crate::settings::{self, MemberSettings, SCOPE};
use crate::store::Store;
use crate::wait::wait_until;
use crate::watchdog::WatchdogDevice;
use crate::writer::{Target, Writer};
use crate::{citus, health, patroni, sql};

/// The store that a test cluster agrees through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// The agents' own Raft group.
    Embedded,
    /// A three-member etcd, through its version 3 interface.
    Etcd3,
}

/// Whose programs a member, or an operator, uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Implementation {
    /// This project's.
    Primacy,
    /// Python's Patroni.
    Patroni,
}

/// The timing that a cluster runs with.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    pub ttl: Duration,
    pub loop_wait: Duration,
    pub retry_timeout: Duration,
}

impl Timing {
    /// As short as each store allows: tests wait for leases to lapse. 20 seconds is Patroni's least `ttl`, which the
    /// embedded store is not bound to.
    fn shortest(store: StoreKind) -> Self {
        let (ttl, loop_wait, retry_timeout) = match store {
            StoreKind::Embedded => (8, 2, 2),
            StoreKind::Etcd3 => (20, 5, 5),
        };
        Self {
            ttl: Duration::from_secs(ttl),
            loop_wait: Duration::from_secs(loop_wait),
            retry_timeout: Duration::from_secs(retry_timeout),
        }
    }

    /// The deadline for a new primary after the old one vanished: the lease lapses, the others notice within a loop,
    /// ask each other, and promote; the rest is for a busy machine.
    pub fn failover(self) -> Duration {
        self.ttl + self.loop_wait + self.retry_timeout + Duration::from_secs(20)
    }

    /// The deadline for all members to stream again after any fault: a failover, then rewind or base backup, and the
    /// loops in which the members see each other's states.
    pub fn recovery(self) -> Duration {
        self.failover() + 3 * self.loop_wait + Duration::from_secs(45)
    }
}

/// What a test cluster is made of.
#[derive(Debug)]
pub struct ClusterBuilder {
    store: StoreKind,
    executable: PathBuf,
    members: usize,
    dynamic: Map<String, Value>,
    merged: Vec<(String, Value)>,
    tags: Vec<(usize, Value)>,
    bootstrap: Map<String, Value>,
    postgresql: Map<String, Value>,
    replaced_names: bool,
    patroni: Vec<usize>,
    on_network: bool,
    listen_everywhere: bool,
    with_certificates: bool,
    disk_megabytes: Option<u32>,
    witness: bool,
    citus: Option<(String, Vec<u32>)>,
}

impl ClusterBuilder {
    pub fn store(&self) -> StoreKind {
        self.store
    }

    /// Makes the members the groups of a Citus cluster: for each member the number of its group. `database` is distributed.
    pub fn citus(mut self, database: &str, groups: &[u32]) -> Self {
        self.members = groups.len();
        self.citus = Some((database.to_owned(), groups.to_vec()));
        self
    }

    /// Adds a member to the embedded store that has no PostgreSQL.
    pub fn witness(mut self) -> Self {
        self.witness = true;
        self
    }

    /// Gives every member a disk of this size, for everything that it writes, logs and embedded store included.
    pub fn disks(mut self, megabytes: u32) -> Self {
        self.disk_megabytes = Some(megabytes);
        self
    }

    /// Gives every member, with its part of the store, a machine of its own on a network that can be cut.
    pub fn on_network(mut self) -> Self {
        self.on_network = true;
        self
    }

    /// Has every server listen at all addresses of its machine, those included that it has yet to get.
    pub fn listen_everywhere(mut self) -> Self {
        self.listen_everywhere = true;
        self
    }

    /// Has every member's REST API speak HTTPS, and want a certificate from every client.
    pub fn with_certificates(mut self) -> Self {
        self.with_certificates = true;
        self
    }

    /// Calls the executable by the names that it replaces, `patroni` and `patronictl`, with their command lines.
    pub fn by_replaced_names(mut self) -> Self {
        self.replaced_names = true;
        self
    }

    /// The number of members, three by default, `pg1` and so on.
    pub fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    /// Adds to, or replaces in, the top level of `bootstrap.dcs`.
    pub fn dynamic(mut self, key: &str, value: Value) -> Self {
        self.dynamic.insert(key.to_owned(), value);
        self
    }

    /// Adds to the tables of `bootstrap.dcs`, as a change of the dynamic configuration does.
    pub fn merge_dynamic(mut self, key: &str, value: &Value) -> Self {
        self.merged.push((key.to_owned(), value.clone()));
        self
    }

    /// The tags of one member.
    pub fn tags(mut self, member: usize, tags: Value) -> Self {
        self.tags.push((member, tags));
        self
    }

    /// Adds a key to `bootstrap` of every member.
    pub fn bootstrap(mut self, key: &str, value: Value) -> Self {
        self.bootstrap.insert(key.to_owned(), value);
        self
    }

    /// Adds a key to `postgresql` of every member.
    pub fn postgresql(mut self, key: &str, value: Value) -> Self {
        self.postgresql.insert(key.to_owned(), value);
        self
    }

    /// These members run Python's Patroni.
    pub fn patroni(mut self, members: &[usize]) -> Self {
        self.patroni = members.to_vec();
        self
    }

    /// Starts the store and writes the members' configurations, but starts no agent.
    pub async fn prepare(self) -> Result<TestCluster> {
        let scratch = Scratch::new()?;
        let executable = install(&scratch, &self.executable)?;
        let timing = Timing::shortest(self.store);
        let mut dynamic = settings::dynamic_configuration(
            timing.ttl.as_secs(),
            timing.loop_wait.as_secs(),
            timing.retry_timeout.as_secs(),
        );
        if let Value::Object(dynamic) = &mut dynamic {
            dynamic.extend(self.dynamic);
            for (key, value) in self.merged {
                merge(dynamic.entry(key).or_insert(Value::Null), value);
            }
        }
        let synchronous = dynamic["synchronous_mode"] != json!(false);
        let network = match self.on_network {
            true => Some(Network::new(self.members)?),
            false => None,
        };
        let clients = match &network {
            Some(network) => network.addresses(),
            None => "127.0.0.1/32".to_owned(),
        };
        let certificates = match self.with_certificates {
            true => Some(Certificates::issue(&scratch)?),
            false => None,
        };
        let restapi = certificates.as_ref().map(Certificates::restapi);
        let ctl = certificates.as_ref().map(Certificates::ctl);
        let (restapi, ctl) = (restapi.unwrap_or_default(), ctl.unwrap_or_default());
        let in_store = self.members + usize::from(self.witness);
        let store = Store::start(self.store, in_store, network.as_ref()).await?;
        let (agent, control, witness) = if self.replaced_names {
            let name = |name: &str| CommandLine::new(&executable.with_file_name(name), &[]);
            (
                name("patroni"),
                name("patronictl"),
                name("patroni_raft_controller"),
            )
        } else {
            let command = |arguments: &[&str]| CommandLine::new(&executable, arguments);
            (command(&["agent"]), command(&[]), command(&["witness"]))
        };
        let agent = agent.unless_set(programs::AGENT_COMMAND);
        let bin_dir = programs::postgresql_bin_dir()?;
        let bin_dir = match &self.citus {
            Some(_) => citus::postgresql_with_citus(&scratch, &bin_dir)?,
            None => bin_dir,
        };

        let (mut agents, mut disks) = (Vec::new(), Vec::new());
        for index in 0..self.members {
            let name = format!("pg{}", index + 1);
            let dir = scratch.path().join(&name);
            scratch.account().create_dir(&dir)?;
            if let Some(megabytes) = self.disk_megabytes {
                disks.push(Disk::mount(&dir, megabytes, scratch.account())?);
            }
            let machine = network
                .as_ref()
                .map(|network| network.machine(index).clone());
            let (postgres_port, rest_port) = (free_port(&machine)?, free_port(&machine)?);
            let listen = match self.listen_everywhere {
                true => "*".to_owned(),
                false => address_of(&machine).to_string(),
            };
            let none = json!({});
            let tags = self
                .tags
                .iter()
                .find(|(member, _)| *member == index)
                .map_or(&none, |(_, tags)| tags);
            let mut text = settings::agent_yaml(&MemberSettings {
                name: &name,
                host: address_of(&machine),
                listen: &listen,
                clients: &clients,
                postgres_port,
                rest_port,
                dir: &dir,
                bin_dir: &bin_dir,
                store: (store.section_name(), &store.section(index, &dir)),
                dynamic: &dynamic,
                restapi: &restapi,
                ctl: &ctl,
                bootstrap: &self.bootstrap,
                postgresql: &self.postgresql,
                tags,
            });
            if let Some((database, groups)) = &self.citus {
                let section = json!({"database": database, "group": groups[index]});
                text.push_str(&format!("citus: {section}\n"));
            }
            let config = dir.join("agent.yml");
            scratch.account().write(&config, &text)?;
            let ports = (postgres_port, rest_port);
            let member = Agent::new(&name, &dir, &config, ports, machine, &agent);
            agents.push(member.with_certificates(certificates.as_ref()));
        }
        let witness = match self.witness {
            true => {
                let dir = scratch.path().join("witness");
                scratch.account().create_dir(&dir)?;
                let config = dir.join("witness.yml");
                let section = store.section(self.members, &dir);
                let text = format!("{}: {section}\n", store.section_name());
                scratch.account().write(&config, &text)?;
                Some(Agent::new("witness", &dir, &config, (0, 0), None, &witness))
            }
            false => None,
        };
        let mut cluster = TestCluster {
            agents,
            witness,
            store,
            timing,
            synchronous,
            agent,
            control: control.unless_set(programs::CTL_COMMAND),
            executable,
            passed: false,
            disks,
            certificates,
            scratch,
            network,
        };
        for member in self.patroni {
            cluster.run_by(member, Implementation::Patroni)?;
        }
        Ok(cluster)
    }

    /// Starts everything, waits until all members stream, and creates the ledger's table.
    pub async fn start(self) -> Result<TestCluster> {
        let mut cluster = self.prepare().await?;
        cluster.start_all()?;
        let leader = cluster.wait_healthy().await?;
        cluster.create_ledger(leader).await?;
        Ok(cluster)
    }
}

/// Adds what `more` has to a table, table by table; anything else replaces.
fn merge(own: &mut Value, more: Value) {
    match (own, more) {
        (Value::Object(own), Value::Object(more)) => {
            for (key, value) in more {
                merge(own.entry(key).or_insert(Value::Null), value);
            }
        }
        (own, more) => *own = more,
    }
}

/// What a command printed that must have succeeded.
fn succeeded(output: Output, arguments: &[&str]) -> Result<String> {
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.success(),
        "`{}` ended with {}: {stdout}{stderr}",
        arguments.join(" "),
        output.status
    );
    Ok(stdout.into_owned())
}

/// Puts the executable where the unprivileged account can reach it, under its own name and those that it replaces.
fn install(scratch: &Scratch, executable: &Path) -> Result<PathBuf> {
    let bin = scratch.path().join("bin");
    scratch.account().create_dir(&bin)?;
    let installed = bin.join("primacy");
    if std::fs::hard_link(executable, &installed).is_err() {
        std::fs::copy(executable, &installed)
            .with_context(|| format!("cannot copy {}", executable.display()))?;
    }
    for name in ["patroni", "patronictl", "patroni_raft_controller"] {
        std::os::unix::fs::symlink(&installed, bin.join(name))?;
    }
    Ok(installed)
}

/// A cluster under test. Dropped before [`TestCluster::finish`] succeeded, it prints the ends of its logs.
#[derive(Debug)]
pub struct TestCluster {
    pub agents: Vec<Agent>,
    /// The member of the store that has no PostgreSQL, if there is one.
    pub witness: Option<Agent>,
    pub store: Store,
    pub timing: Timing,
    /// The project's executable, where the unprivileged account can run it.
    pub executable: PathBuf,
    /// It began in synchronous mode: a whole cluster has a synchronous standby.
    pub synchronous: bool,
    agent: CommandLine,
    control: CommandLine,
    passed: bool,
    /// The members' disks, where they have disks of their own.
    pub disks: Vec<Disk>,
    /// What their REST APIs want to see, where they want any.
    pub certificates: Option<Certificates>,
    // After the others, whose destructors find the directory still there.
    scratch: Scratch,
    // After the processes on its machines, which the scratch directory takes away.
    network: Option<Network>,
}

impl TestCluster {
    pub fn builder(store: StoreKind, executable: impl Into<PathBuf>) -> ClusterBuilder {
        ClusterBuilder {
            store,
            executable: executable.into(),
            members: 3,
            dynamic: Map::new(),
            merged: Vec::new(),
            tags: Vec::new(),
            bootstrap: Map::new(),
            postgresql: Map::new(),
            replaced_names: false,
            patroni: Vec::new(),
            on_network: false,
            listen_everywhere: false,
            with_certificates: false,
            disk_megabytes: None,
            witness: false,
            citus: None,
        }
    }

    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The network that the members are on.
    ///
    /// # Errors
    /// The cluster was not made [`ClusterBuilder::on_network`].
    pub fn network(&self) -> Result<&Network> {
        self.network.as_ref().context("the cluster has no network")
    }

    /// The ports that servers and agents listen at, of all members.
    pub fn member_ports(&self) -> Vec<u16> {
        let ports = |agent: &Agent| [agent.postgres_port, agent.rest_port];
        self.agents.iter().flat_map(ports).collect()
    }

    /// From its next start on, the member's agent is of this implementation.
    pub fn run_by(&mut self, member: usize, implementation: Implementation) -> Result<()> {
        let command = match implementation {
            Implementation::Primacy => self.agent.clone(),
            Implementation::Patroni => patroni::agent()?,
        };
        self.agents[member].run_by(&command);
        Ok(())
    }

    /// The member of the store that has no PostgreSQL.
    ///
    /// # Errors
    /// The cluster was not made with a [`ClusterBuilder::witness`].
    pub fn witness(&mut self) -> Result<&mut Agent> {
        self.witness.as_mut().context("the cluster has no witness")
    }

    /// Gives a member a watchdog device, from its agent's next start on.
    pub fn plug_watchdog_into(&mut self, member: usize) -> Result<WatchdogDevice> {
        WatchdogDevice::plug_into(&mut self.agents[member], &self.scratch)
    }

    /// Starts the agent of one member.
    pub fn start_agent(&mut self, member: usize) -> Result<()> {
        self.agents[member].start(&self.scratch)
    }

    /// Starts the member of the store that has no PostgreSQL, if there is one.
    pub fn start_witness(&mut self) -> Result<()> {
        match &mut self.witness {
            Some(witness) => witness.start(&self.scratch),
            None => Ok(()),
        }
    }

    /// Starts all agents that do not run, and the witness.
    pub fn start_all(&mut self) -> Result<()> {
        let all = self.agents.iter_mut().chain(&mut self.witness);
        for agent in all.filter(|agent| agent.pid().is_none()) {
            agent.start(&self.scratch)?;
        }
        Ok(())
    }

    /// The other members' indices.
    pub fn others(&self, member: usize) -> Vec<usize> {
        (0..self.agents.len())
            .filter(|other| *other != member)
            .collect()
    }

    /// The one member whose agent says that it is the primary.
    ///
    /// # Errors
    /// None does, or more than one.
    pub async fn leader(&self) -> Result<usize> {
        let mut leaders = Vec::new();
        for (index, agent) in self.agents.iter().enumerate() {
            if agent
                .check("/primary")
                .await
                .is_ok_and(|status| status == 200)
            {
                leaders.push(index);
            }
        }
        match leaders[..] {
            [leader] => Ok(leader),
            [] => bail!("no member is the primary"),
            _ => bail!("members {leaders:?} (from 0) all are the primary"),
        }
    }

    /// Waits for a primary other than `old` that has ended its recovery.
    pub async fn wait_new_leader(&self, old: usize) -> Result<usize> {
        self.wait_leader_other_than(old, self.timing.failover())
            .await
    }

    /// As [`Self::wait_new_leader`], with a deadline of its own.
    pub async fn wait_leader_other_than(&self, old: usize, within: Duration) -> Result<usize> {
        wait_until(
            &format!("a leader other than {}", self.agents[old].name),
            within,
            async || {
                for index in self.others(old) {
                    let agent = &self.agents[index];
                    if agent
                        .check("/primary")
                        .await
                        .is_ok_and(|status| status == 200)
                    {
                        let recovering =
                            sql::text(agent.postgres_port, "select pg_is_in_recovery()::text")
                                .await?;
                        ensure!(
                            recovering == "false",
                            "{} has the lock, but is in recovery",
                            agent.name
                        );
                        return Ok(index);
                    }
                }
                Err(anyhow!("none"))
            },
        )
        .await
    }

    /// Waits until the cluster is whole: exactly one primary, all others stream from it, at least one synchronously,
    /// and the REST API and SQL agree on that. Returns the leader.
    pub async fn wait_healthy(&self) -> Result<usize> {
        wait_until(
            "one primary and all others streaming",
            self.timing.recovery(),
            || health::check(self),
        )
        .await
    }

    /// The member that the store lists as synchronous standby.
    pub async fn synchronous_standby(&self) -> Result<usize> {
        let document = self.agents[self.leader().await?].get("/cluster").await?;
        let is_standby = |agent: &Agent| {
            let members = document["members"].as_array().into_iter().flatten();
            members
                .into_iter()
                .any(|member| member["name"] == *agent.name && member["role"] == "sync_standby")
        };
        self.agents
            .iter()
            .position(is_standby)
            .with_context(|| format!("no synchronous standby in {document}"))
    }

    /// Kills a majority of the store's members, without touching the leader's agent or any server.
    pub async fn take_quorum_away(&mut self, leader: usize) -> Result<()> {
        match &self.store {
            Store::Embedded { .. } => {
                for member in self.others(leader) {
                    self.agents[member].sigkill().await?;
                }
                Ok(())
            }
            Store::Etcd3(etcd) => {
                etcd.kill_member(0)?;
                etcd.kill_member(1)
            }
        }
    }

    /// Starts what [`Self::take_quorum_away`] killed.
    pub async fn give_quorum_back(&mut self) -> Result<()> {
        match &self.store {
            Store::Embedded { .. } => self.start_all(),
            Store::Etcd3(etcd) => {
                etcd.start_all()?;
                etcd.wait_healthy().await
            }
        }
    }

    /// Creates the table that writers write to.
    pub async fn create_ledger(&self, leader: usize) -> Result<()> {
        sql::execute(self.agents[leader].postgres_port, ledger::CREATE_TABLE).await
    }

    /// A writer that follows the primary, as a load balancer's client does. It has made its first commits.
    pub async fn writer(&self) -> Result<Writer> {
        let members = self
            .agents
            .iter()
            .map(|agent| (agent.rest_port, agent.postgres_port))
            .collect();
        let writer = Writer::start(0, Target::Primary(members));
        writer.wait_progress(self.timing.failover()).await?;
        Ok(writer)
    }

    /// One writer per member, which writes to that member all the time, whatever its role.
    pub fn direct_writers(&self) -> Vec<Writer> {
        (1..)
            .zip(&self.agents)
            .map(|(number, agent)| Writer::start(number, Target::Port(agent.postgres_port)))
            .collect()
    }

    /// Runs an operator's command, such as `["list", "-f", "json"]`, with the configuration of the first member.
    pub async fn control(&self, arguments: &[&str]) -> Result<Output> {
        self.run_control(&self.control, arguments).await
    }

    /// As [`Self::control_ok`], with the command of this implementation.
    pub async fn control_by(
        &self,
        implementation: Implementation,
        arguments: &[&str],
    ) -> Result<String> {
        let control = match implementation {
            Implementation::Primacy => self.control.clone(),
            Implementation::Patroni => patroni::control()?,
        };
        succeeded(self.run_control(&control, arguments).await?, arguments)
    }

    async fn run_control(&self, control: &CommandLine, arguments: &[&str]) -> Result<Output> {
        let mut command = self.scratch.command(&control.program);
        command
            .args(&control.arguments)
            .arg("-c")
            .arg(&self.agents[0].config)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        let output =
            tokio::time::timeout(Duration::from_secs(90), command.kill_on_drop(true).output())
                .await
                .map_err(|_| anyhow!("`{}` did not end", arguments.join(" ")))?
                .with_context(|| format!("cannot run {}", control.program.display()))?;
        Ok(output)
    }

    /// As [`Self::control`], for a command that must succeed; returns what it printed.
    pub async fn control_ok(&self, arguments: &[&str]) -> Result<String> {
        succeeded(self.control(arguments).await?, arguments)
    }

    /// Waits until `list` shows what SQL shows. It may be behind by as long as members take to publish.
    pub async fn wait_list_true(&self) -> Result<()> {
        let within = 3 * self.timing.loop_wait + Duration::from_secs(15);
        wait_until("`list` to agree with SQL", within, async || {
            let listed = self.control_ok(&["list", "-f", "json", SCOPE]).await?;
            let rows = serde_json::from_str(&listed)
                .with_context(|| format!("`list -f json` printed {listed:?}"))?;
            health::check_list(self, &rows).await
        })
        .await
    }

    /// Stops the writers and returns what they were told.
    pub async fn collect(writers: impl IntoIterator<Item = Writer>) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        for writer in writers {
            ledger.merge(writer.stop().await?);
        }
        Ok(ledger)
    }

    /// What must hold after every scenario: one primary, all stream, nothing acknowledged is lost, never two writable
    /// servers, `list` is true.
    pub async fn finish(mut self, ledger: Ledger) -> Result<()> {
        let leader = self.wait_healthy().await?;
        ensure!(!ledger.acknowledged.is_empty(), "the writers wrote nothing");
        ledger.verify_single_writer()?;
        ledger
            .verify_durable(self.agents[leader].postgres_port)
            .await?;
        self.wait_list_true().await?;
        println!(
            "{} commits acknowledged, {} unknown, longest outage {:?}",
            ledger.acknowledged.len(),
            ledger.unknown.len(),
            ledger.longest_outage()
        );
        self.passed = true;
        Ok(())
    }

    /// For scenarios without a cluster to be left behind whole.
    pub fn pass(mut self) {
        self.passed = true;
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if self.passed {
            return;
        }
        for agent in &self.agents {
            for (log, lines) in [
                (agent.log_file(), 120),
                (agent.dir.join("log/postgresql.log"), 30),
            ] {
                let text = std::fs::read(&log).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                let all: Vec<&str> = text.lines().collect();
                eprintln!("--- {} ({} lines)", log.display(), all.len());
                for line in &all[all.len().saturating_sub(lines)..] {
                    eprintln!("{line}");
                }
            }
        }
    }
}
