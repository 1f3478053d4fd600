//! Nothing of the demo outlives it.
//!
//! A second process of the same executable waits on a pipe that the demo holds open. The pipe closes when the
//! demo ends, by whatever: the last key, an error, a panic, SIGKILL. Then that process stops everything that
//! was started, and removes the directory. It is also how the demo ends in the ordinary case, so that there is
//! one way only.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;

use crate::process::{of_demo, postmaster, runs_server, signal};
use crate::setup::{DIRECTORY_PREFIX, data_directories};

/// For an orderly stop of agents and servers. Small servers need far less.
const ORDERLY: Duration = Duration::from_secs(5);
/// For a server that was sent SIGQUIT to free its shared memory.
const IMMEDIATE: Duration = Duration::from_secs(2);
/// For the kernel, after SIGKILL.
const KILLED: Duration = Duration::from_secs(10);
/// How often the process table is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// The waiting process. Dropping this makes it clean up and waits until it has done so.
pub(crate) struct Cleaner {
    process: Child,
}

impl Cleaner {
    /// Starts the process that will clean up `directory`.
    pub(crate) fn start(directory: &Path, keep: bool) -> anyhow::Result<Self> {
        let executable =
            std::env::current_exe().context("the path of this executable is unknown")?;
        let mut command = Command::new(&executable);
        command.args(["demo", "--clean-up"]).arg(directory);
        if keep {
            command.arg("--keep");
        }
        let process = command
            .current_dir("/")
            // Ctrl-C in the terminal goes to the demo's process group, and must not reach this one.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", executable.display()))?;
        Ok(Cleaner { process })
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let deadline = Instant::now() + ORDERLY + IMMEDIATE + KILLED * 2;
        while Instant::now() < deadline && matches!(self.process.try_wait(), Ok(None)) {
            sleep(PAUSE);
        }
    }
}

/// What the waiting process does: waits for the end of its input, then cleans up.
pub(crate) fn wait_and_clean_up(directory: &Path, keep: bool) -> anyhow::Result<()> {
    let name = directory.file_name().and_then(|name| name.to_str());
    ensure!(
        name.is_some_and(|name| name.starts_with(DIRECTORY_PREFIX)),
        "{} is not a directory of the demo; nothing was removed",
        directory.display()
    );
    let _ = io::stdin().read_to_end(&mut Vec::new());
    stop_everything(directory);
    if keep {
        return Ok(());
    }
    remove(directory)
        .with_context(|| format!("cannot remove {}; remove it by hand", directory.display()))
}

/// Agents are asked first, which lets them stop their servers in an orderly way.
fn stop_everything(directory: &Path) {
    for pid in of_demo(directory) {
        if !runs_server(pid) {
            signal(pid, Signal::SIGTERM);
            signal(pid, Signal::SIGCONT);
        }
    }
    wait_until_none(directory, ORDERLY);
    for data_dir in data_directories(directory) {
        if let Some(pid) = postmaster(&data_dir) {
            signal(pid, Signal::SIGCONT);
            signal(pid, Signal::SIGQUIT);
        }
    }
    wait_until_none(directory, IMMEDIATE);
    let deadline = Instant::now() + KILLED;
    while Instant::now() < deadline {
        let left = of_demo(directory);
        if left.is_empty() {
            break;
        }
        for pid in left {
            signal(pid, Signal::SIGKILL);
        }
        sleep(PAUSE);
    }
    for data_dir in data_directories(directory) {
        release_shared_memory(&data_dir);
    }
}

fn wait_until_none(directory: &Path, within: Duration) {
    let deadline = Instant::now() + within;
    while Instant::now() < deadline && !of_demo(directory).is_empty() {
        sleep(PAUSE);
    }
}

/// A server that was killed leaves the small System V segment behind by which it would have known that
/// another server runs on its directory. Line 7 of its pid file names it: key and identifier.
fn release_shared_memory(data_dir: &Path) {
    let pid_file = fs::read_to_string(data_dir.join("postmaster.pid")).unwrap_or_default();
    let Some(line) = pid_file.lines().nth(6) else {
        return;
    };
    let segment: Vec<&str> = line.split_whitespace().collect();
    let [key, id] = segment[..] else { return };
    // The numbers may have been given to someone else's segment since: it must still be one that nobody uses.
    let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let unused = segments.lines().any(|line| {
        let column: Vec<&str> = line.split_whitespace().collect();
        column.len() > 6 && column[0] == key && column[1] == id && column[6] == "0"
    });
    if unused {
        let _ = Command::new("ipcrm").args(["-m", id]).status();
    }
}

/// Removes the directory; tried again, since a process that was just killed may have made one more file.
fn remove(directory: &Path) -> io::Result<()> {
    let deadline = Instant::now() + KILLED;
    loop {
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) if Instant::now() < deadline => sleep(PAUSE),
            result => return result,
        }
    }
}
