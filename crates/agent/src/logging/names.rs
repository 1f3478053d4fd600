//! What Patroni calls the logger of a line: `%(name)s`, and the keys of `log.loggers`.

use std::borrow::Cow;

/// Where a line comes from here, and the logger that says such things there. The first that fits counts.
const LOGGERS: [(&str, &str); 36] = [
    ("primacy_agent::api", "patroni.api"),
    ("primacy_agent::configuration", "patroni.config"),
    ("primacy_agent::failsafe", "patroni.ha"),
    ("primacy_agent::fencing", "patroni.watchdog.fence"),
    ("primacy_agent::jobs", "patroni.ha"),
    ("primacy_agent::leases", "patroni.ha"),
    ("primacy_agent::logging", "patroni.log"),
    ("primacy_agent::peers", "patroni.request"),
    ("primacy_agent::settings", "patroni.config"),
    ("primacy_agent::shell", "patroni.ha"),
    ("primacy_agent::slots", "patroni.postgresql.slots"),
    ("primacy_agent::steps", "patroni.ha"),
    ("primacy_agent::watchdog", "patroni.watchdog.base"),
    ("primacy_agent", "patroni.__main__"),
    ("primacy_config", "patroni.config"),
    ("primacy_dcs::etcd3", "patroni.dcs.etcd3"),
    ("primacy_dcs", "patroni.dcs"),
    ("primacy_fence", "patroni.watchdog.fence"),
    ("primacy_ha", "patroni.ha"),
    ("primacy_net", "patroni.request"),
    (
        "primacy_postgres::bootstrap",
        "patroni.postgresql.bootstrap",
    ),
    (
        "primacy_postgres::callbacks",
        "patroni.postgresql.callback_executor",
    ),
    (
        "primacy_postgres::command",
        "patroni.postgresql.cancellable",
    ),
    ("primacy_postgres::files", "patroni.postgresql.config"),
    ("primacy_postgres::follow", "patroni.postgresql.config"),
    ("primacy_postgres::recovery", "patroni.postgresql.config"),
    ("primacy_postgres::replica", "patroni.postgresql.bootstrap"),
    ("primacy_postgres::rewind", "patroni.postgresql.rewind"),
    ("primacy_postgres::session", "patroni.postgresql.connection"),
    ("primacy_postgres::settings", "patroni.postgresql.config"),
    ("primacy_postgres::slot_files", "patroni.postgresql.slots"),
    ("primacy_postgres::slots", "patroni.postgresql.slots"),
    ("primacy_postgres::start", "patroni.postgresql.postmaster"),
    ("primacy_postgres", "patroni.postgresql"),
    ("primacy_raft", "patroni.dcs.raft"),
    ("primacy_watchdog", "patroni.watchdog.linux"),
];

/// The logger of a target. A target that is a logger's name already, or a library's, keeps its name, with dots.
pub(super) fn logger(target: &str) -> Cow<'_, str> {
    let found = LOGGERS
        .iter()
        .find(|(module, _)| is_within(target, module, "::"));
    match found {
        Some((_, logger)) => Cow::Borrowed(logger),
        None if target.contains("::") => Cow::Owned(target.replace("::", ".")),
        None => Cow::Borrowed(target),
    }
}

/// Whether `name` is `parent` or below it.
pub(super) fn is_within(name: &str, parent: &str, separator: &str) -> bool {
    name.strip_prefix(parent)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(separator))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_have_patronis_names() {
        for (target, name) in [
            ("primacy_agent::shell", "patroni.ha"),
            ("primacy_agent::api::server", "patroni.api"),
            ("primacy_agent", "patroni.__main__"),
            ("primacy_agent::startup", "patroni.__main__"),
            ("primacy_postgres::rewind", "patroni.postgresql.rewind"),
            ("primacy_postgres::wal", "patroni.postgresql"),
            ("primacy_dcs::etcd3::watch", "patroni.dcs.etcd3"),
            ("patroni.__main__", "patroni.__main__"),
            ("openraft::engine", "openraft.engine"),
            ("primacy_agents", "primacy_agents"),
        ] {
            assert_eq!(logger(target), name, "{target}");
        }
    }
}
