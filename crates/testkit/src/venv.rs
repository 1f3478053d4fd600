//! Programs from PyPI, each set in a virtual environment that is made once per machine.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Packages that are installed together. Not in a scratch directory: to install them takes longer than the tests that
/// use them, and scripts in the environment name its path.
#[derive(Debug)]
pub struct Venv {
    /// The environment's directory. Its name tells the versions apart.
    pub directory: &'static str,
    /// As pip is told them.
    pub packages: &'static [&'static str],
}

impl Venv {
    /// The directory of its programs; installs them if nobody did.
    pub fn bin(&self) -> Result<PathBuf> {
        let directory = Path::new(self.directory);
        let lock = std::fs::File::create(format!("{}.lock", self.directory))?;
        rustix::fs::flock(lock.as_fd(), rustix::fs::FlockOperation::LockExclusive)?;
        let complete = directory.join("complete");
        if !complete.exists() {
            self.install(directory).with_context(|| {
                format!(
                    "cannot install {} from PyPI (make setup brings python3-venv)",
                    self.packages.join(", ")
                )
            })?;
            std::fs::write(complete, self.packages.join("\n"))?;
        }
        Ok(directory.join("bin"))
    }

    /// Debian's own Python makes it: one in somebody's home cannot be run by the account that the servers have.
    fn install(&self, directory: &Path) -> Result<()> {
        if directory.exists() {
            std::fs::remove_dir_all(directory)?;
        }
        run(Command::new("/usr/bin/python3")
            .args(["-m", "venv"])
            .arg(directory))?;
        run(Command::new(directory.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check"])
            .args(self.packages))
    }
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
