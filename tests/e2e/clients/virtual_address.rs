//! An address that follows the primary: vip-manager, which asks etcd or the agent, and keepalived with the usual check
//! script. Every member has a machine of its own, which the address is given to and taken from.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use primacy_testkit::client::output;
use primacy_testkit::settings::SCOPE;
use primacy_testkit::sql::{SUPERUSER, SUPERUSER_PASSWORD};
use primacy_testkit::store::Store;
use primacy_testkit::{Client, Sample, Signal, StoreKind, TestCluster, account, wait_until};

/// Where `scripts/vip-manager.sh` puts it.
const VIP_MANAGER: &str = "/var/tmp/primacy-test-vip-manager-3/usr/bin/vip-manager";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vip_manager_by_etcd() -> Result<()> {
    follows_the_primary(StoreKind::Etcd3, Lost::Agent, |cluster, member| {
        let Store::Etcd3(etcd) = &cluster.store else {
            bail!("not on etcd")
        };
        let sample = Sample::read("vip-manager-etcd.yml")?
            .with(
                "[http://10.0.0.21:2379, http://10.0.0.22:2379, http://10.0.0.23:2379]",
                &format!("[{}]", etcd.endpoints().join(", ")),
            )?
            .with("/service/demo/leader", &format!("/service/{SCOPE}/leader"))?
            .with("pg1", &cluster.agents[member].name)?;
        vip_manager(cluster, member, sample)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vip_manager_by_rest() -> Result<()> {
    // While its agent does not answer, vip-manager 3.0.0 leaves things as they are.
    follows_the_primary(StoreKind::Embedded, Lost::Machine, |cluster, member| {
        let sample = Sample::read("vip-manager.yml")?
            .with("127.0.0.1:8008", &rest_address(cluster, member))?;
        vip_manager(cluster, member, sample)
    })
    .await
}

fn vip_manager(cluster: &TestCluster, member: usize, sample: Sample) -> Result<Client> {
    let config = write(cluster, member, sample, "vip-manager.yml")?;
    let program = Path::new(VIP_MANAGER);
    ensure!(program.exists(), "run scripts/vip-manager.sh");
    start(cluster, member, program, &["--config", &config])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keepalived() -> Result<()> {
    follows_the_primary(StoreKind::Embedded, Lost::Agent, |cluster, member| {
        let sample = Sample::read("keepalived.conf")?
            .with("127.0.0.1:8008", &rest_address(cluster, member))?;
        let config = write(cluster, member, sample, "keepalived.conf")?;
        let dir = cluster.agents[member].dir.display();
        let (pid, child) = (format!("{dir}/keepalived.pid"), format!("{dir}/vrrp.pid"));
        let arguments = "--vrrp --dont-fork --log-console --log-detail --use-file";
        let mut arguments: Vec<&str> = arguments.split(' ').collect();
        arguments.extend([&config, "--pid", &pid, "--vrrp_pid", &child]);
        start(cluster, member, Path::new("keepalived"), &arguments)
    })
    .await
}

/// What is lost of a machine.
#[derive(PartialEq)]
enum Lost {
    /// Agent and server; the client is still there to give the address up.
    Agent,
    /// The client and the address, too.
    Machine,
}

/// Runs a client on every member's machine, and moves the lead.
async fn follows_the_primary(
    store: StoreKind,
    lost: Lost,
    client: impl Fn(&TestCluster, usize) -> Result<Client>,
) -> Result<()> {
    if !account::may_act_as_root()? {
        return Ok(());
    }
    let cluster = crate::cluster(store).on_network().listen_everywhere();
    let mut cluster = cluster.start().await?;
    let writer = cluster.writer().await?;
    let clients: Result<Vec<Client>> = (0..cluster.agents.len())
        .map(|member| client(&cluster, member))
        .collect();
    let mut clients = clients?;

    let first = cluster.leader().await?;
    wait_address(&cluster, first, &clients).await?;
    cluster
        .control_ok(&["switchover", SCOPE, "--force"])
        .await?;
    let second = cluster.wait_healthy().await?;
    ensure!(second != first, "the lead did not move");
    wait_address(&cluster, second, &clients).await?;
    cluster.agents[second].kill_node().await?;
    if lost == Lost::Machine {
        clients.remove(second).stop(Signal::SIGINT).await?;
    }
    let third = cluster.wait_new_leader(second).await?;
    wait_address(&cluster, third, &clients).await?;

    cluster.start_agent(second)?;
    cluster.wait_healthy().await?;
    // vip-manager knows no other signal, and keepalived takes any for the end.
    for client in clients {
        client.stop(Signal::SIGINT).await?;
    }
    let address = cluster.network()?.free_address();
    for (member, agent) in cluster.agents.iter().enumerate() {
        let left = has_address(&cluster, member, address).await?;
        ensure!(!left, "the address was left behind on {}", agent.name);
    }
    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

/// Waits until this member's machine alone has the address, and others find the member's server there.
async fn wait_address(cluster: &TestCluster, member: usize, clients: &[Client]) -> Result<()> {
    let agent = &cluster.agents[member];
    let address = cluster.network()?.free_address();
    let waited = wait_until("the address", Duration::from_secs(30), async || {
        for other in 0..cluster.agents.len() {
            let name = &cluster.agents[other].name;
            let there = has_address(cluster, other, address).await?;
            ensure!(there == (other == member), "{name} has it: {there}");
        }
        // From outside, as an application comes.
        let mut psql = cluster.scratch().command("psql");
        psql.args(["-X", "-t", "-A", "-d", "postgres", "-U", SUPERUSER])
            .args(["-h", &address.to_string()])
            .args(["-p", &agent.postgres_port.to_string()])
            .args(["-c", "select host(inet_server_addr()), pg_is_in_recovery()"])
            .env("PGPASSWORD", SUPERUSER_PASSWORD)
            .env("PGCONNECT_TIMEOUT", "2");
        let answer = output(psql, Duration::from_secs(5)).await?;
        let printed = String::from_utf8_lossy(&answer.stdout);
        ensure!(printed.trim() == format!("{address}|f"), "{answer:?}");
        Ok(())
    })
    .await;
    let logs = || {
        clients
            .iter()
            .map(Client::log)
            .collect::<Vec<_>>()
            .join("\n")
    };
    waited.with_context(|| {
        format!(
            "{} is the primary; the clients say:\n{}",
            agent.name,
            logs()
        )
    })
}

async fn has_address(cluster: &TestCluster, member: usize, address: Ipv4Addr) -> Result<bool> {
    let machine = cluster.network()?.machine(member);
    let mut ip = cluster.scratch().root_command_on(machine, "ip");
    ip.args(["-4", "-oneline", "address", "show"]);
    let shown = output(ip, Duration::from_secs(5)).await?;
    Ok(String::from_utf8_lossy(&shown.stdout).contains(&format!(" {address}/")))
}

fn rest_address(cluster: &TestCluster, member: usize) -> String {
    let agent = &cluster.agents[member];
    format!("{}:{}", agent.address(), agent.rest_port)
}

/// Writes a sample with the test's address in it. Returns its path.
fn write(cluster: &TestCluster, member: usize, sample: Sample, name: &str) -> Result<String> {
    let address = cluster.network()?.free_address().to_string();
    let path = cluster.agents[member].dir.join(name);
    sample
        .with("10.0.0.100", &address)?
        .write_to(&path, cluster.scratch())?;
    Ok(path.display().to_string())
}

fn start(
    cluster: &TestCluster,
    member: usize,
    program: &Path,
    arguments: &[&str],
) -> Result<Client> {
    let machine = cluster.network()?.machine(member);
    let mut command = cluster.scratch().root_command_on(machine, program);
    command.args(arguments);
    let name = format!("client-{}", cluster.agents[member].name);
    Client::start(cluster.scratch(), &name, command)
}
