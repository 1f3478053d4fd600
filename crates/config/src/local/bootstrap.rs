use super::ToolOptions;
use crate::{GucMap, Map};

/// The `bootstrap` section (`configuration.md` §2.3).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Bootstrap {
    /// The dynamic configuration of the new cluster.
    pub dcs: Map,
    /// The custom method to use; `None`: initdb.
    pub method: Option<BootstrapMethod>,
    /// Options of initdb. A problem among them aborts the bootstrap.
    pub initdb: ToolOptions,
    /// Command run on the new primary.
    pub post_bootstrap: Option<String>,
    /// Lines appended to `pg_hba.conf` when nothing else manages it.
    pub pg_hba: Vec<String>,
}

/// A custom bootstrap method, `bootstrap.<name>`.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapMethod {
    /// Name of its section.
    pub name: String,
    /// Command; exit code 0 is success.
    pub command: String,
    /// Do not pass `--scope` and `--datadir`.
    pub no_params: bool,
    /// Keep the recovery settings that the command produced.
    pub keep_existing_recovery_conf: bool,
    /// Recovery settings written before the start.
    pub recovery_conf: Option<GucMap>,
    /// Further arguments, `--<name>=<value>`, in order.
    pub arguments: Vec<(String, String)>,
}
