//! Disks of a test's own, for one directory: such as can be full, and such as can hang.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use crate::account::Account;

/// The mounts of this process: a scratch directory takes those below it away before itself.
static LIVE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A mounted disk, which goes with its scratch directory.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts an empty disk on an existing directory, owned by the account as that was. It is in memory.
    ///
    /// # Errors
    /// The test may not mount: it does not run as root, or in a container without the capability.
    pub fn mount(path: &Path, megabytes: u32, account: &Account) -> Result<Self> {
        let options = format!("size={megabytes}m,mode=0700");
        let what = ["-t", "tmpfs", "-o", &options, "primacy-test"];
        Self::mount_as(&what, path, account)
    }

    /// The same on a file system in a file beside the directory, which can be made to hang.
    ///
    /// # Errors
    /// As [`Disk::mount`], and if no such file can be made.
    pub fn mount_file(path: &Path, megabytes: u32, account: &Account) -> Result<Self> {
        let image = path.with_extension("img");
        File::create_new(&image)
            .and_then(|file| file.set_len(u64::from(megabytes) << 20))
            .with_context(|| format!("cannot create {}", image.display()))?;
        run("mkfs.ext4", &["-q", "-F"], &image)?;
        let image = image.to_string_lossy();
        let disk = Self::mount_as(&["-o", "loop", &image], path, account)?;
        // initdb wants an empty directory, and the servers one that nobody else can read.
        std::fs::remove_dir(path.join("lost+found"))?;
        run("chmod", &["0700"], path)?;
        Ok(disk)
    }

    fn mount_as(what: &[&str], path: &Path, account: &Account) -> Result<Self> {
        run("mount", what, path)?;
        live().push(path.to_owned());
        account.own(path)?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Lets everybody who writes to it wait. Only a file system in a file can do that.
    pub fn freeze(&self) -> Result<()> {
        run("fsfreeze", &["--freeze"], &self.path)
    }

    pub fn thaw(&self) -> Result<()> {
        run("fsfreeze", &["--unfreeze"], &self.path)
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

/// Wakes who waits for a disk below the directory: nothing else could end them.
pub(crate) fn thaw_below(directory: &Path) {
    for path in live_below(directory) {
        // That it does not hang, or cannot, is no error.
        let _ = run("fsfreeze", &["--unfreeze"], &path);
    }
}

/// Takes away the disks below the directory.
pub(crate) fn unmount_below(directory: &Path) {
    for path in live_below(directory) {
        // Lazily: a process that is being killed may have a file open for a moment still.
        if let Err(error) = run("umount", &["--lazy"], &path) {
            eprintln!("{error:#}");
        }
        live().retain(|mounted| *mounted != path);
    }
}

fn live_below(directory: &Path) -> Vec<PathBuf> {
    let mut paths = live().clone();
    paths.retain(|path| path.starts_with(directory));
    paths
}

fn live() -> MutexGuard<'static, Vec<PathBuf>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(program: &str, arguments: &[&str], path: &Path) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .arg(path)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} {}: {text}",
        path.display()
    );
    Ok(())
}
