//! Machines of their own on one network, which can be cut: a network namespace each, joined by a bridge.
//!
//! The bridge is in a namespace too, so that no firewall of the test's own machine has a say, and nothing of the
//! network is left when its namespaces are gone. The test itself is on the bridge, outside of all cuts: what listens
//! on a port of a machine is reached at the same port of 127.0.0.1 ([`free_port`]), whatever the machines can or
//! cannot say to each other. So a test's client is on every side of a partition.
//!
//! A cut is a rule of the receiver's that drops packets without a word, as a broken switch does. A cut in one
//! direction lets requests arrive whose answers do not.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::ports;

const LEASES: &str = "/tmp/primacy-test-networks";
/// Where `ip netns` keeps its names.
const NAMESPACES: &str = "/run/netns";

/// The networks of this process, for the case that it is asked to end before its tests are through.
static LIVE: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// A network of machines. Dropped, it is taken away; the processes on its machines must have ended.
#[derive(Debug)]
pub struct Network {
    number: u8,
    machines: Vec<Machine>,
    _lease: File,
}

/// One machine of a network.
#[derive(Debug, Clone)]
pub struct Machine {
    pub address: Ipv4Addr,
    pub(crate) namespace: PathBuf,
    /// What carries the test's connections to this machine.
    forwarders: Arc<Mutex<JoinSet<()>>>,
}

impl Network {
    /// Sets up a network.
    ///
    /// # Errors
    /// The test does not run as root, or `ip` and `nft` (iproute2, nftables) are not installed.
    pub fn new(machines: usize) -> Result<Self> {
        let (number, lease) = lease()?;
        // What a killed test left behind under this number.
        remove(number);
        live().push(number);
        let name = |machine: usize| format!("{}{machine}", prefix(number));
        let machine = |index: usize| -> Result<Machine> {
            Ok(Machine {
                address: Ipv4Addr::new(198, 18, number, u8::try_from(index + 1)?),
                namespace: Path::new(NAMESPACES).join(name(index + 1)),
                forwarders: Arc::default(),
            })
        };
        // From here on, its destructor cleans up.
        let network = Self {
            number,
            machines: (0..machines).map(machine).collect::<Result<_>>()?,
            _lease: lease,
        };

        let (hub, link) = (format!("{}hub", prefix(number)), link(number));
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link add bridge type bridge"))?;
        ip(&format!("-n {hub} link set bridge up"))?;
        ip(&format!(
            "link add {link} type veth peer name test netns {hub}"
        ))?;
        ip(&format!("-n {hub} link set test master bridge up"))?;
        ip(&format!("address add 198.18.{number}.254/24 dev {link}"))?;
        ip(&format!("link set {link} up"))?;
        for (index, machine) in (1..).zip(&network.machines) {
            let (name, address) = (name(index), machine.address);
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link set lo up"))?;
            ip(&format!(
                "-n {hub} link add m{index} type veth peer name eth0 netns {name}"
            ))?;
            ip(&format!("-n {hub} link set m{index} master bridge up"))?;
            ip(&format!("-n {name} address add {address}/24 dev eth0"))?;
            ip(&format!("-n {name} link set eth0 up"))?;
            machine.filter(
                "add table ip cut\n\
                 add chain ip cut input { type filter hook input priority 0; }\n",
            )?;
        }
        Ok(network)
    }

    /// The machine of member `index`.
    pub fn machine(&self, index: usize) -> &Machine {
        &self.machines[index]
    }

    /// All its addresses, as `pg_hba.conf` has them.
    pub fn addresses(&self) -> String {
        format!("198.18.{}.0/24", self.number)
    }

    /// An address that no machine has, for one that moves between them.
    pub fn free_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 100)
    }

    /// From now on, what `from` sends does not reach `to`: all of it, or what comes from and goes to these ports.
    pub fn cut(&self, from: usize, to: usize, ports: Option<&[u16]>) -> Result<()> {
        let sender = self.machines[from].address;
        let rules = match ports {
            None => format!("add rule ip cut input ip saddr {sender} drop\n"),
            Some(ports) => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                let rule = |side| {
                    let ports = ports.join(", ");
                    format!(
                        "add rule ip cut input ip saddr {sender} tcp {side} {{ {ports} }} drop\n"
                    )
                };
                rule("sport") + &rule("dport")
            }
        };
        self.machines[to].filter(&rules)
    }

    /// Cuts a machine off from all others, in both directions: everything, or these ports.
    pub fn cut_off(&self, machine: usize, ports: Option<&[u16]>) -> Result<()> {
        self.mute(machine, ports)?;
        self.deafen(machine, ports)
    }

    /// The others hear nothing from this machine any more; it hears them.
    pub fn mute(&self, machine: usize, ports: Option<&[u16]>) -> Result<()> {
        let mut others = (0..self.machines.len()).filter(|other| *other != machine);
        others.try_for_each(|other| self.cut(machine, other, ports))
    }

    /// This machine hears nothing from the others any more; they hear it.
    pub fn deafen(&self, machine: usize, ports: Option<&[u16]>) -> Result<()> {
        let mut others = (0..self.machines.len()).filter(|other| *other != machine);
        others.try_for_each(|other| self.cut(other, machine, ports))
    }

    /// Ends all cuts.
    pub fn heal(&self) -> Result<()> {
        let mut machines = self.machines.iter();
        machines.try_for_each(|machine| machine.filter("flush chain ip cut input\n"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(self.number);
        live().retain(|number| *number != self.number);
    }
}

impl Machine {
    /// Changes what this machine drops.
    fn filter(&self, rules: &str) -> Result<()> {
        let mut nft = Command::new("nsenter")
            .arg(format!("--net={}", self.namespace.display()))
            .args(["--", "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run nsenter")?;
        let mut stdin = nft.stdin.take().context("nft has no input")?;
        stdin.write_all(rules.as_bytes())?;
        drop(stdin);
        let output = nft.wait_with_output()?;
        ensure!(
            output.status.success(),
            "nft (make setup installs nftables) refused {rules:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Carries connections from a port of 127.0.0.1 to the same port of this machine.
    fn forward(&self, port: u16) -> Result<()> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = self.address;
        let mut forwarders = self
            .forwarders
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        forwarders.spawn(async move {
            // Its members end with it, when it is aborted.
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(async move {
                    if let Ok(mut server) = TcpStream::connect((address, port)).await {
                        let _ = client.set_nodelay(true);
                        let _ = server.set_nodelay(true);
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Ok(())
    }
}

/// A port that is free on the machine (or on the test's own), and at which the test reaches what listens there, at
/// 127.0.0.1.
pub(crate) fn free_port(machine: &Option<Machine>) -> Result<u16> {
    let port = ports::free()?;
    if let Some(machine) = machine {
        machine.forward(port)?;
    }
    Ok(port)
}

pub(crate) fn address_of(machine: &Option<Machine>) -> Ipv4Addr {
    match machine {
        Some(machine) => machine.address,
        None => Ipv4Addr::LOCALHOST,
    }
}

/// A number that no other network on this machine has. Its addresses are 198.18.NUMBER.0/24, from the block that is
/// reserved for testing networks.
fn lease() -> Result<(u8, File)> {
    for number in 0..=u8::MAX {
        if let Some(lease) = ports::lease(Path::new(LEASES), u16::from(number))? {
            return Ok((number, lease));
        }
    }
    bail!("all networks for tests are leased by running processes (see {LEASES})")
}

fn prefix(number: u8) -> String {
    format!("primacy-{number}-")
}

/// The test's own end of its connection to the bridge.
fn link(number: u8) -> String {
    format!("primacy{number}")
}

/// Takes away whatever there is of this network.
fn remove(number: u8) {
    // It is not there, or goes with the namespace of its other end.
    let _ = ip(&format!("link delete {}", link(number)));
    let namespaces = std::fs::read_dir(NAMESPACES).into_iter().flatten();
    for namespace in namespaces.flatten() {
        let name = namespace.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with(&prefix(number))
            && let Err(error) = ip(&format!("netns delete {name}"))
        {
            eprintln!("{error:#}");
        }
    }
}

/// Takes away the networks of this process.
pub(crate) fn remove_live() {
    let numbers = live().clone();
    numbers.into_iter().for_each(remove);
}

fn live() -> MutexGuard<'static, Vec<u8>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .context("cannot run ip: install iproute2 (make setup)")?;
    ensure!(
        output.status.success(),
        "`ip {arguments}`: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
