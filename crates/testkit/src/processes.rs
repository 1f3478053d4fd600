//! Processes of a test: finding them, signalling them, and leaving none behind.
//!
//! The hazard: an agent starts PostgreSQL, which must outlive the agent, in a session of its own. After the agent is
//! killed nothing leads from the test to the server any more: not the parent, not the process group. So each process
//! is started with a mark in its environment ([`MARK`]), which its children inherit, and which the kernel shows in
//! `/proc/PID/environ`. PostgreSQL's backends overwrite that memory with their title; they are found as descendants
//! of their postmaster, and a postmaster also by its pid file.
//!
//! A zombie counts as dead: an orphan may wait a while for pid 1 to collect it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The environment variable that names the scratch directory a process belongs to.
pub const MARK: &str = "PRIMACY_TEST_SCRATCH";

/// Marks what `command` starts, and everything below it, as belonging to `scratch`.
pub fn mark(command: &mut Command, scratch: &Path) {
    command.env(MARK, scratch);
}

/// Whether the process runs (or is stopped by a signal): a zombie does not.
pub fn alive(pid: Pid) -> bool {
    stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// Sends a signal; a process that is gone already is no error.
pub fn signal(pid: Pid, signal: Signal) {
    let _ = kill(pid, signal);
}

/// The pid in a `postmaster.pid`, if that postmaster is alive.
pub fn postmaster_pid(data_dir: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let pid = Pid::from_raw(text.lines().next()?.trim().parse::<i32>().ok()?.abs());
    (pid.as_raw() > 1 && alive(pid)).then_some(pid)
}

/// All live processes below `root`, itself not included.
pub fn descendants(root: Pid) -> BTreeSet<Pid> {
    descendants_of(&BTreeSet::from([root]), &live_processes())
}

/// Ends everything that belongs to the scratch directory. Postmasters get a moment for an immediate shutdown, in
/// which they give their shared memory segment back to the system; everything else is killed at once.
pub fn end_all(scratch: &Path) {
    let give_up = Instant::now() + Duration::from_secs(10);
    let postmasters_until = Instant::now() + Duration::from_secs(3);
    let mut asked = BTreeSet::new();
    while Instant::now() < give_up {
        let (postmasters, others) = belonging_to(scratch);
        if postmasters.is_empty() && others.is_empty() {
            return;
        }
        // Agents and fences first: they would start the server again, or wait for it.
        for pid in &others {
            signal(*pid, Signal::SIGKILL);
        }
        for pid in postmasters {
            if Instant::now() > postmasters_until {
                signal(pid, Signal::SIGKILL);
            } else if others.is_empty() && asked.insert(pid) {
                signal(pid, Signal::SIGQUIT);
                signal(pid, Signal::SIGCONT);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    eprintln!("processes of {} could not be ended", scratch.display());
}

/// Postmasters, and all the others, a postmaster's own children left out.
fn belonging_to(scratch: &Path) -> (BTreeSet<Pid>, BTreeSet<Pid>) {
    let processes = live_processes();
    let marked: BTreeSet<Pid> = processes
        .iter()
        .map(|(pid, _)| *pid)
        .filter(|pid| is_marked(*pid, scratch))
        .collect();
    let is_server = |pid: &Pid| is_postmaster(*pid);
    let mut postmasters: BTreeSet<Pid> = marked.iter().copied().filter(is_server).collect();
    // A forked backend may still look like its postmaster for an instant: the topmost is the postmaster.
    let nested = descendants_of(&postmasters, &processes);
    postmasters.retain(|pid| !nested.contains(pid));
    let below_postmasters = descendants_of(&postmasters, &processes);
    let mut others = descendants_of(&marked, &processes);
    others.extend(&marked);
    others.retain(|pid| !postmasters.contains(pid) && !below_postmasters.contains(pid));
    (postmasters, others)
}

fn is_marked(pid: Pid, scratch: &Path) -> bool {
    let wanted = format!("{MARK}={}", scratch.display());
    std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
        environ
            .split(|byte| *byte == 0)
            .any(|entry| entry == wanted.as_bytes())
    })
}

fn is_postmaster(pid: Pid) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe"))
        .is_ok_and(|exe| exe.file_name().is_some_and(|name| name == "postgres"))
}

struct Stat {
    state: char,
    parent: Pid,
}

fn stat(pid: Pid) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name is in parentheses and may itself contain anything.
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = Pid::from_raw(fields.next()?.parse().ok()?);
    Some(Stat { state, parent })
}

fn live_processes() -> Vec<(Pid, Pid)> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .filter_map(|pid| {
            let stat = stat(pid)?;
            (!matches!(stat.state, 'Z' | 'X')).then_some((pid, stat.parent))
        })
        .collect()
}

fn descendants_of(roots: &BTreeSet<Pid>, processes: &[(Pid, Pid)]) -> BTreeSet<Pid> {
    let mut found = BTreeSet::new();
    loop {
        let before = found.len();
        for (pid, parent) in processes {
            if roots.contains(parent) || found.contains(parent) {
                found.insert(*pid);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}
