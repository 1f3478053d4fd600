//! Disks that can be full: a file system of a few hundred megabytes, in memory, for one directory.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use crate::account::Account;

/// The mounts of this process, for the case that it is asked to end before its tests are through.
static LIVE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A mounted disk. Dropped, it is taken away with what it holds; the processes that use it must have ended.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts an empty disk on an existing directory, owned by the account as that was.
    ///
    /// # Errors
    /// The test may not mount: it does not run as root, or in a container without the capability.
    pub fn mount(path: &Path, megabytes: u32, account: &Account) -> Result<Self> {
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={megabytes}m,mode=0700"))
            .arg("primacy-test")
            .arg(path)
            .output()
            .context("cannot run mount")?;
        ensure!(
            output.status.success(),
            "mount {}: {}",
            path.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        live().push(path.to_owned());
        let disk = Self {
            path: path.to_owned(),
        };
        account.own(path)?;
        Ok(disk)
    }

    /// Leaves no byte free.
    pub fn fill(&self) -> Result<()> {
        let mut ballast = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.ballast())?;
        let mut block = vec![0; 1 << 20];
        while !block.is_empty() {
            match ballast.write(&block) {
                Ok(0) => bail!("the disk takes nothing"),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    // What is left may be less than a block.
                    let half = block.len() / 2;
                    block.truncate(half);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives back what [`Self::fill`] took.
    pub fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.path);
        live().retain(|path| *path != self.path);
    }
}

/// Takes away the disks of this process.
pub(crate) fn unmount_live() {
    let paths = live().clone();
    paths.iter().for_each(|path| unmount(path));
}

fn unmount(path: &Path) {
    // Lazily: a process that is being killed may have a file open for a moment still.
    let done = Command::new("umount").arg("--lazy").arg(path).status();
    if !done.is_ok_and(|status| status.success()) {
        eprintln!("cannot unmount {}", path.display());
    }
}

fn live() -> MutexGuard<'static, Vec<PathBuf>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}
