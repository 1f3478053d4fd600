//! Python's Patroni, the other half of a mixed cluster.

use std::path::PathBuf;

use anyhow::Result;

use crate::programs::CommandLine;
use crate::venv::Venv;

/// The release that mixed clusters are tested with.
const PATRONI: Venv = Venv {
    directory: "/var/tmp/primacy-test-patroni-4.1.5",
    packages: &["patroni[etcd3]==4.1.5", "psycopg2-binary"],
};

/// The command that runs its agent, the configuration's path to be appended.
pub fn agent() -> Result<CommandLine> {
    Ok(CommandLine::new(&PATRONI.bin()?.join("patroni"), &[]))
}

/// Its operator's command.
pub fn control() -> Result<CommandLine> {
    Ok(CommandLine::new(&PATRONI.bin()?.join("patronictl"), &[]))
}

/// One of the programs that come beside it.
pub fn program(name: &str) -> Result<PathBuf> {
    Ok(PATRONI.bin()?.join(name))
}
