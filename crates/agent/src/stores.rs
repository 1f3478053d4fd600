//! The store that the configuration names.

use std::sync::Arc;

use primacy_config::{DcsSection, LocalConfig};
use primacy_dcs::{Credentials, Etcd3, Store};
use primacy_raft::RaftNode;

/// An open store.
pub(crate) struct OpenStore {
    /// The store.
    pub(crate) store: Arc<dyn Store>,
    /// The member of the embedded store that runs in this process, when that is the store.
    pub(crate) node: Option<RaftNode>,
}

/// Opens it. For the embedded store this starts a member of its group.
pub(crate) async fn open(section: &DcsSection) -> anyhow::Result<OpenStore> {
    match section {
        DcsSection::Etcd3(section) => {
            let store = Etcd3::new(section.into())?;
            Ok(OpenStore {
                store: Arc::new(store),
                node: None,
            })
        }
        DcsSection::Raft(section) => {
            let node = RaftNode::start(section.into()).await?;
            Ok(OpenStore {
                store: node.store(),
                node: Some(node),
            })
        }
        other => Err(unsupported(other)),
    }
}

/// Whether an agent can do what is configured, as far as that shows without a network.
pub(crate) fn check(config: &LocalConfig) -> anyhow::Result<()> {
    match &config.dcs {
        DcsSection::Etcd3(_) | DcsSection::Raft(_) => Ok(()),
        other => Err(unsupported(other)),
    }
}

fn unsupported(section: &DcsSection) -> anyhow::Error {
    anyhow::anyhow!(
        "the store `{}` is not supported by this version: use `etcd3`, or the embedded store `raft`",
        section.name()
    )
}

/// Whom the store knows this agent as.
pub(crate) fn user(section: &DcsSection) -> Option<Credentials> {
    match section {
        DcsSection::Etcd3(section) => Credentials::of(section),
        _ => None,
    }
}
