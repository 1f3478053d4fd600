use indexmap::IndexMap;
use tokio::time::Instant;

use crate::conninfo::Conninfo;
use crate::{Error, Server};

/// What a standby receives WAL from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecoveryTarget {
    /// Host, port and database of the source, and `target_session_attrs` where it is wanted. User,
    /// password file, TLS and `application_name` are added by the server. `None`: archive only.
    pub primary: Option<Conninfo>,
    /// Slot on the source.
    pub slot: Option<String>,
    /// Settings over those of `recovery_conf`: `restore_command`, `archive_cleanup_command`,
    /// `recovery_min_apply_delay` of a standby cluster.
    pub settings: IndexMap<String, String>,
}

/// What it takes to follow a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FollowChange {
    /// Nothing.
    NoChange,
    /// New files and a reload; these parameters differ.
    ReloadNeeded(Vec<String>),
    /// New files and a restart; these parameters differ.
    RestartNeeded(Vec<String>),
}

impl Server {
    /// Compares what the running standby does with what it should do (`configuration.md` §6.5).
    pub async fn compare_follow(
        &self,
        target: &RecoveryTarget,
        deadline: Instant,
    ) -> Result<FollowChange, Error> {
        let _ = (target, deadline);
        todo!()
    }

    /// Writes the recovery settings and reloads.
    pub async fn apply_follow_reload(
        &self,
        target: &RecoveryTarget,
        deadline: Instant,
    ) -> Result<(), Error> {
        let _ = (target, deadline);
        todo!()
    }
}
