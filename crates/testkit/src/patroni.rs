//! Python's Patroni, the other half of a mixed cluster, in a virtual environment that is made once per machine.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::programs::CommandLine;

/// The release that mixed clusters are tested with.
pub const VERSION: &str = "4.1.5";

/// Where the environment is. Not in a scratch directory: to install it takes longer than the tests that use it, and
/// scripts in it name this path.
const DIRECTORY: &str = "/var/tmp/primacy-test-patroni-4.1.5";

/// The command that runs its agent, the configuration's path to be appended.
pub fn agent() -> Result<CommandLine> {
    Ok(CommandLine::new(&installed()?.join("patroni"), &[]))
}

/// Its operator's command.
pub fn control() -> Result<CommandLine> {
    Ok(CommandLine::new(&installed()?.join("patronictl"), &[]))
}

/// The directory of its programs; installs them if nobody did.
fn installed() -> Result<PathBuf> {
    let directory = Path::new(DIRECTORY);
    let lock = std::fs::File::create(format!("{DIRECTORY}.lock"))?;
    rustix::fs::flock(lock.as_fd(), rustix::fs::FlockOperation::LockExclusive)?;
    let complete = directory.join("complete");
    if !complete.exists() {
        install(directory)
            .context("Patroni cannot be installed from PyPI (make setup brings python3-venv)")?;
        std::fs::write(complete, VERSION)?;
    }
    Ok(directory.join("bin"))
}

/// Debian's own Python makes it: one in somebody's home cannot be run by the account that the servers have.
fn install(directory: &Path) -> Result<()> {
    if directory.exists() {
        std::fs::remove_dir_all(directory)?;
    }
    run(Command::new("/usr/bin/python3")
        .args(["-m", "venv"])
        .arg(directory))?;
    let packages = [
        format!("patroni[etcd3]=={VERSION}"),
        "psycopg2-binary".to_owned(),
    ];
    run(Command::new(directory.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .args(packages))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
