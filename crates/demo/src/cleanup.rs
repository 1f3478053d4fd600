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

/// For an orderly stop of agents and servers. Small servers need far less; an agent that is left alone may
/// wait longer for a store that no longer has a majority.
const ORDERLY: Duration = Duration::from_secs(3);
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
    let mut segments = shared_memory(directory);
    for agent in of_demo(directory)
        .into_iter()
        .filter(|pid| !runs_server(*pid))
    {
        signal(agent, Signal::SIGTERM);
        signal(agent, Signal::SIGCONT);
    }
    wait_until_none(directory, ORDERLY);
    for agent in of_demo(directory)
        .into_iter()
        .filter(|pid| !runs_server(*pid))
    {
        signal(agent, Signal::SIGKILL);
    }
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
    segments.extend(shared_memory(directory));
    release(&segments);
}

fn wait_until_none(directory: &Path, within: Duration) {
    let deadline = Instant::now() + within;
    while Instant::now() < deadline && !of_demo(directory).is_empty() {
        sleep(PAUSE);
    }
}

/// A System V shared memory segment: key and identifier.
type Segment = (String, String);

/// The small segments by which a server knows that another one runs on its directory, as line 7 of the pid
/// files names them. A server that is killed leaves its segment behind.
fn shared_memory(directory: &Path) -> Vec<Segment> {
    data_directories(directory)
        .filter_map(|data_dir| {
            let pid_file = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
            let mut words = pid_file.lines().nth(6)?.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        })
        .collect()
}

/// Removes those segments that are still there and that nobody uses: the numbers may be others' by now.
fn release(segments: &[Segment]) {
    let existing = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    for line in existing.lines() {
        let column: Vec<&str> = line.split_whitespace().collect();
        // key shmid perms size cpid lpid nattch ...
        let [key, id, _, _, _, _, "0", ..] = column[..] else {
            continue;
        };
        if segments
            .iter()
            .any(|segment| segment.0 == key && segment.1 == id)
        {
            let _ = Command::new("ipcrm").args(["-m", id]).status();
        }
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
