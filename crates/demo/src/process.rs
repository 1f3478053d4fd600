//! Processes of the demo, as `/proc` has them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// In the environment of every agent, and so of whatever it starts: the demo's directory.
pub(crate) const MARKER: &str = "PRIMACY_DEMO_DIRECTORY";

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It runs, or could.
    Alive,
    /// SIGSTOP holds it.
    Frozen,
    /// It is gone; a zombie that nobody has reaped yet counts.
    Dead,
}

pub(crate) fn life(pid: Pid) -> Life {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return Life::Dead;
    };
    // The name in parentheses may hold anything; the state is the first letter after it.
    match stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next())
    {
        None | Some('Z' | 'X') => Life::Dead,
        Some('T') => Life::Frozen,
        Some(_) => Life::Alive,
    }
}

/// Sends a signal; that the process is gone already is no error here.
pub(crate) fn signal(pid: Pid, signal: Signal) {
    let _ = kill(pid, signal);
}

/// The postmaster that runs on a data directory. Its pid file may be stale and the pid another's by now, so
/// the process must also live in that directory.
pub(crate) fn postmaster(data_dir: &Path) -> Option<Pid> {
    let file = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let pid = Pid::from_raw(file.lines().next()?.trim().parse().ok()?);
    (life(pid) != Life::Dead && is_server_in(pid, data_dir)).then_some(pid)
}

/// Every living process of the demo in `directory`: those whose environment names it, and PostgreSQL's,
/// which work inside of it (their environment is overwritten by their titles).
pub(crate) fn of_demo(directory: &Path) -> Vec<Pid> {
    let mut marker = OsString::from(MARKER);
    marker.push("=");
    marker.push(directory);
    let marked = |pid: Pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == marker.as_bytes())
    };
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .filter(|pid| life(*pid) != Life::Dead)
        .filter(|pid| marked(*pid) || is_server_in(*pid, directory))
        .collect()
}

/// Whether this is a process of PostgreSQL's server with its working directory in `directory`.
fn is_server_in(pid: Pid, directory: &Path) -> bool {
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).unwrap_or_default();
    link("cwd").starts_with(directory) && is_server(&link("exe"))
}

fn is_server(executable: &Path) -> bool {
    executable
        .file_name()
        .is_some_and(|name| name == "postgres")
}

/// Whether PostgreSQL's server is what this process runs.
pub(crate) fn runs_server(pid: Pid) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|executable| is_server(&executable))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn marked_processes_are_found_frozen_ones_too() {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep")
            .arg("600")
            .env(MARKER, directory.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        assert_eq!(life(pid), Life::Alive);
        signal(pid, Signal::SIGSTOP);
        while life(pid) != Life::Frozen {
            std::thread::yield_now();
        }
        assert_eq!(of_demo(directory.path()), [pid]);
        assert_eq!(of_demo(&directory.path().join("other")), []);
        signal(pid, Signal::SIGKILL);
        child.wait().unwrap();
        assert_eq!(life(pid), Life::Dead);
        assert_eq!(of_demo(directory.path()), []);
    }

    #[test]
    fn stale_pid_file_names_no_postmaster() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(postmaster(directory.path()), None);
        let own = std::process::id();
        fs::write(directory.path().join("postmaster.pid"), format!("{own}\n")).unwrap();
        assert_eq!(postmaster(directory.path()), None);
    }
}
