//! A directory that a test works in, which takes its processes and itself away at the end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::account::Account;
use crate::disk;
use crate::network::{self, Machine};
use crate::processes;

/// Set to any value, scratch directories stay (their processes do not).
pub const KEEP: &str = "PRIMACY_TEST_KEEP";

/// The scratch directories of this process, for the case that it is asked to end before its tests are through.
static LIVE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
static ON_SIGNAL: Once = Once::new();

/// A scratch directory under `/tmp` (short, since the paths of Unix sockets are limited to 107 bytes), owned by the
/// unprivileged account. Dropped, it ends every process that was marked with it, takes away the
/// disks below it, then removes itself.
///
/// # Panics
/// When dropped, if it cannot be removed: a test that leaves something behind fails.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    account: Account,
}

impl Scratch {
    pub fn new() -> Result<Self> {
        let account = Account::unprivileged()?;
        let path = tempfile::Builder::new()
            .prefix("primacy-")
            .tempdir_in("/tmp")
            .context("cannot create a scratch directory in /tmp")?
            .keep();
        account.own(&path)?;
        live().insert(path.clone());
        ON_SIGNAL.call_once(|| {
            std::thread::spawn(clean_up_on_signal);
        });
        Ok(Self { path, account })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn account(&self) -> &Account {
        &self.account
    }

    /// A command that runs as the unprivileged account, inside this directory, and ends with it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
        self.confine(self.account.command(program))
    }

    /// The same on a machine of a test's network, if it has one.
    pub fn command_on(
        &self,
        machine: Option<&Machine>,
        program: impl AsRef<std::ffi::OsStr>,
    ) -> std::process::Command {
        match machine {
            None => self.command(program),
            Some(machine) => self.confine(self.account.command_in(&machine.namespace, program)),
        }
    }

    /// The same as root, which alone may give a machine an address.
    pub fn root_command_on(
        &self,
        machine: &Machine,
        program: impl AsRef<std::ffi::OsStr>,
    ) -> std::process::Command {
        self.confine(Account::root_command_in(&machine.namespace, program))
    }

    fn confine(&self, mut command: std::process::Command) -> std::process::Command {
        processes::mark(&mut command, &self.path);
        command.current_dir(&self.path);
        command
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let removed = remove(&self.path);
        live().remove(&self.path);
        if let Err(why) = removed {
            // Hundreds of megabytes for each run of the suite fill a disk.
            assert!(std::thread::panicking(), "{why}");
            eprintln!("{why}");
        }
    }
}

fn live() -> std::sync::MutexGuard<'static, BTreeSet<PathBuf>> {
    LIVE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Says what stays, if anything does.
fn remove(path: &Path) -> Result<(), String> {
    disk::thaw_below(path);
    processes::end_all(path);
    disk::unmount_below(path);
    if std::env::var_os(KEEP).is_some() {
        eprintln!("kept: {}", path.display());
        return Ok(());
    }
    // What was ended may take a moment to be gone, and writes until then.
    let give_up = Instant::now() + Duration::from_secs(10);
    loop {
        match std::fs::remove_dir_all(path) {
            Err(_) if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(50)),
            removed => {
                return removed
                    .map_err(|error| format!("cannot remove {}: {error}", path.display()));
            }
        }
    }
}

/// A test that is told to stop (Ctrl-C, a runner's deadline) runs no destructors. Its processes would outlive it.
fn clean_up_on_signal() {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        return;
    };
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut interrupt), Ok(mut terminate)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        ) else {
            return;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    let paths = live().clone();
    for path in &paths {
        if let Err(why) = remove(path) {
            eprintln!("{why}");
        }
    }
    network::remove_live();
    std::process::exit(130);
}
