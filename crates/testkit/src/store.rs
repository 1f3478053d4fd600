//! The store behind a test cluster, and how it loses its quorum.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cluster::StoreKind;
use crate::etcd::EtcdCluster;
use crate::network::{Network, address_of, free_port};

/// What the members of an embedded store have in common.
pub const PASSWORD: &str = "raft secret";

/// A running store.
#[derive(Debug)]
pub enum Store {
    /// Within the agents: the addresses of their Raft members.
    Embedded {
        addresses: Vec<String>,
    },
    Etcd3(EtcdCluster),
}

impl Store {
    /// Starts a store for so many members, witnesses included; on a network, each of its members on a machine of the cluster's.
    pub(crate) async fn start(
        kind: StoreKind,
        members: usize,
        network: Option<&Network>,
    ) -> Result<Self> {
        match kind {
            StoreKind::Embedded => {
                let address = |member| -> Result<String> {
                    let machine = network.map(|network| network.machine(member).clone());
                    let port = free_port(&machine)?;
                    Ok(format!("{}:{port}", address_of(&machine)))
                };
                let addresses: Result<Vec<String>> = (0..members).map(address).collect();
                Ok(Self::Embedded {
                    addresses: addresses?,
                })
            }
            StoreKind::Etcd3 => {
                let etcd = match network {
                    None => EtcdCluster::start(3).await?,
                    Some(network) => EtcdCluster::start_on(network).await?,
                };
                Ok(Self::Etcd3(etcd))
            }
        }
    }

    /// All ports that its members and its clients use.
    pub fn ports(&self) -> Vec<u16> {
        match self {
            Self::Embedded { addresses } => {
                let port = |address: &String| address.rsplit(':').next()?.parse().ok();
                addresses.iter().filter_map(port).collect()
            }
            Self::Etcd3(etcd) => etcd.ports(),
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
            Self::Etcd3(etcd) => (0..etcd.members())
                .map(|member| etcd.host(member))
                .collect(),
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
                    "password": PASSWORD,
                })
            }
            Self::Etcd3(_) => json!({ "hosts": self.hosts() }),
        }
    }
}
