//! The parameters handed to PostgreSQL (`configuration.md` §1.8, §1.9, Appendix A).

use indexmap::IndexMap;

use crate::{Effective, Warning};

/// What the caller knows beside the configuration.
#[derive(Clone, Debug, Default)]
pub struct Managed<'a> {
    /// The value of `synchronous_standby_names` that is in force, in synchronous mode.
    pub synchronous_standby_names: Option<&'a str>,
    /// `hot_standby_feedback` must be on, for logical slots.
    pub force_hot_standby_feedback: bool,
    /// Parameters that the server itself lists (`postgres --describe-config`); `None`: not asked.
    pub known_to_server: Option<&'a [String]>,
}

/// Parameters ready to be written.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ServerParameters {
    /// For `postgresql.conf`, sorted by name.
    pub conf: IndexMap<String, String>,
    /// For the postmaster's command line, in the order of §1.8.
    pub command_line: Vec<(String, String)>,
    /// Recovery settings found among the parameters: they take the place of `recovery_conf`.
    pub recovery_conf: Option<IndexMap<String, String>>,
    /// What was removed or clamped.
    pub warnings: Vec<Warning>,
}

/// Works out the parameters for a server of `server_version` (150018 form) in `role`.
pub fn server_parameters(
    effective: &Effective,
    server_version: u32,
    role: Option<primacy_model::Role>,
    managed: &Managed<'_>,
) -> ServerParameters {
    let _ = (effective, server_version, role, managed);
    ServerParameters::default()
}
