//! SQL on the local server.
use std::time::Duration;

use primacy_model::Lsn;
use tokio::time::Instant;

use crate::{Error, Server};

#[derive(Default)]
pub(crate) struct Session {}

/// A parameter whose change waits for a restart, or a row of `pg_settings`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingRow {
    /// Name.
    pub name: String,
    /// Value in the base unit.
    pub setting: Option<String>,
    /// Base unit.
    pub unit: Option<String>,
    /// `bool`, `integer`, `real`, `enum`, `string`.
    pub vartype: String,
    /// `postmaster`, `sighup`, …
    pub context: String,
    /// Changed in the files, waits for a restart.
    pub pending_restart: bool,
}

impl Server {
    /// Asks the server to become a primary; returns when it was told (`ha.md` §12.6), not when it did.
    pub async fn promote(&self, deadline: Instant) -> Result<(), Error> {
        let _ = deadline;
        todo!()
    }

    /// Tells the postmaster to read its files again.
    pub async fn reload(&self, deadline: Instant) -> Result<(), Error> {
        let _ = deadline;
        todo!()
    }

    /// CHECKPOINT, on a connection of its own.
    pub async fn checkpoint(&self, deadline: Instant) -> Result<(), Error> {
        let _ = deadline;
        todo!()
    }

    /// Resumes WAL replay.
    pub async fn resume_replay(&self, deadline: Instant) -> Result<(), Error> {
        let _ = deadline;
        todo!()
    }

    /// Puts a value into effect (`None` removes it): rewrites the files, reloads, waits until sessions
    /// show it, and writes a little WAL. Returns the flush position after the change was active: a
    /// standby that confirms it has confirmed under the new rule (`ha.md` §13.2, W3).
    pub async fn set_synchronous_standby_names(
        &self,
        value: Option<&str>,
        deadline: Instant,
    ) -> Result<Lsn, Error> {
        let _ = (value, deadline);
        todo!()
    }

    /// All rows of `pg_settings`.
    pub async fn pg_settings(&self, deadline: Instant) -> Result<Vec<SettingRow>, Error> {
        let _ = deadline;
        todo!()
    }

    /// Runs a hook (`pre_promote`, `before_stop`): words without a shell. `Ok` when it exited with 0.
    pub async fn run_hook(&self, command: &str, until: crate::Until) -> Result<(), Error> {
        let _ = (command, until, Duration::ZERO);
        todo!()
    }
}
