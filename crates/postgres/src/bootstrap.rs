use indexmap::IndexMap;
use primacy_model::SystemIdentifier;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::{Error, Server, Until};

/// A custom bootstrap method (`configuration.md` §2.3).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CustomBootstrap {
    /// Command words.
    pub command: String,
    /// Do not pass `--scope` and `--datadir`.
    pub no_params: bool,
    /// Keep the recovery settings that the command left.
    pub keep_existing_recovery_conf: bool,
    /// Recovery settings for the start.
    pub recovery_conf: Option<IndexMap<String, String>>,
    /// Passed as `--key=value`.
    pub parameters: Map<String, Value>,
}

/// A new cluster is in the data directory, not started yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initialized {
    /// Its identifier.
    pub system_identifier: Option<SystemIdentifier>,
}

impl Server {
    /// initdb, then `pg_hba` lines of the bootstrap section if none are managed. Does not start.
    pub async fn initdb(
        &self,
        bootstrap_pg_hba: &[String],
        until: Until,
    ) -> Result<Initialized, Error> {
        let _ = (bootstrap_pg_hba, until);
        todo!()
    }

    /// Runs a custom bootstrap method and starts the server.
    pub async fn custom_bootstrap(
        &self,
        method: &CustomBootstrap,
        until: Until,
    ) -> Result<Initialized, Error> {
        let _ = (method, until);
        todo!()
    }

    /// Roles and hook on the new primary (`ha.md` §6.2).
    pub async fn post_bootstrap(
        &self,
        hook: Option<&str>,
        after_custom: bool,
        until: Until,
    ) -> Result<(), Error> {
        let _ = (hook, after_custom, until);
        todo!()
    }

    /// The system identifier of the data directory.
    pub async fn system_identifier(&self, deadline: Instant) -> Result<SystemIdentifier, Error> {
        let _ = deadline;
        todo!()
    }
}
