//! Which process the server is, and what lives below it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use primacy_model::{PostmasterIdentity, Process};
use procfs::process::Process as Proc;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

/// How far the start time in `postmaster.pid` may be from that of the process (`ha.md` §1.5).
const START_TIME_TOLERANCE: u64 = 3;
/// How often a process without a pidfd is looked at.
const POLL: Duration = Duration::from_millis(200);

/// `postmaster.pid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PidFile {
    /// Positive.
    pub(crate) pid: i32,
    /// Written by a backend in single-user mode.
    pub(crate) single_user: bool,
    /// Seconds since the epoch.
    pub(crate) start_time: Option<u64>,
    /// The port of the addresses and of the sockets.
    pub(crate) port: Option<u16>,
    /// Directory of the first socket; not there yet while it starts.
    pub(crate) socket_directory: Option<PathBuf>,
    /// The first of the `listen_addresses`, as it was written there.
    pub(crate) address: Option<String>,
}

/// Reads the text of `postmaster.pid`; `None` when it names no process.
pub(crate) fn parse_pid_file(text: &str) -> Option<PidFile> {
    let mut lines = text.lines();
    let pid: i32 = lines.next()?.trim().parse().ok()?;
    let start_time = lines.nth(1).and_then(|line| line.trim().parse().ok());
    let port = lines.next().and_then(|line| line.trim().parse().ok());
    let mut text = || {
        let line = lines.next().map(str::trim)?;
        (!line.is_empty()).then(|| line.to_owned())
    };
    let (socket_directory, address) = (text().map(PathBuf::from), text());
    (pid != 0 && pid != i32::MIN).then(|| PidFile {
        pid: pid.abs(),
        single_user: pid < 0,
        start_time,
        port,
        socket_directory,
        address,
    })
}

/// Where a postmaster says that it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listens {
    pub(crate) port: Option<u16>,
    /// The first one.
    pub(crate) socket_directory: Option<PathBuf>,
    /// `listen_addresses`, or the first of them.
    pub(crate) addresses: Option<String>,
    /// All of them are told.
    pub(crate) all: bool,
}

/// Where this postmaster says that it listens: in its file, and on the command line with which agents start it. `None`
/// while the file does not name it. Reads the disk.
pub(crate) fn listens(data_dir: &Path, postmaster: PostmasterIdentity) -> Option<Listens> {
    let text = std::fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let file = parse_pid_file(&text).filter(|file| file.pid == postmaster.pid)?;
    let command_line = Proc::new(postmaster.pid).and_then(|process| process.cmdline());
    let given = command_line.ok().and_then(|arguments| {
        let given = |argument: &String| Some(argument.strip_prefix("--listen_addresses=")?.into());
        arguments.iter().find_map(given)
    });
    Some(Listens {
        port: file.port,
        socket_directory: file.socket_directory,
        all: given.is_some(),
        addresses: given.or(file.address),
    })
}

/// The process that holds a data directory. Reads the disk.
pub(crate) fn find(data_dir: &Path) -> io::Result<Process> {
    let text = match std::fs::read_to_string(data_dir.join("postmaster.pid")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Process::Absent),
        Err(error) => return Err(error),
    };
    let Some(file) = parse_pid_file(&text) else {
        return Ok(Process::Absent);
    };
    Ok(match identify(file.pid, file.start_time, data_dir) {
        None => Process::Absent,
        Some(identity) if is_doomed(identity) => Process::Dying(identity),
        Some(identity) if file.single_user => Process::SingleUser(identity),
        Some(identity) => Process::Running(identity),
    })
}

/// The number that `postmaster.pid` names when no postmaster of this directory has it any more. PostgreSQL
/// must be told to overlook it (`PG_GRANDPARENT_PID`): the number may belong to somebody else by now, or to
/// a zombie that nobody has reaped yet, and PostgreSQL takes either for a postmaster that lives.
pub(crate) fn stale_pid(data_dir: &Path) -> Option<i32> {
    let text = std::fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let file = parse_pid_file(&text)?;
    identify(file.pid, file.start_time, data_dir)
        .is_none()
        .then_some(file.pid)
}

fn identify(pid: i32, started: Option<u64>, data_dir: &Path) -> Option<PostmasterIdentity> {
    let own = std::process::id() as i32;
    let start_ticks = start_ticks(pid)?;
    if pid == own || Some(pid) == parent(own) {
        return None;
    }
    let hz = procfs::ticks_per_second();
    let boot = procfs::boot_time_secs().ok()?;
    let in_time = started
        .is_some_and(|started| (boot + start_ticks / hz).abs_diff(started) <= START_TIME_TOLERANCE);
    // A clock that was set since the start makes the times differ.
    (in_time || is_postgres_in(pid, data_dir)).then_some(PostmasterIdentity { pid, start_ticks })
}

fn is_postgres_in(pid: i32, data_dir: &Path) -> bool {
    let Ok(process) = Proc::new(pid) else {
        return false;
    };
    let name = |path: PathBuf| {
        path.file_name().map(|name| {
            name.to_string_lossy()
                .trim_end_matches(" (deleted)")
                .to_owned()
        })
    };
    let postgres = process
        .exe()
        .ok()
        .and_then(name)
        .is_some_and(|name| name == "postgres" || name == "postmaster");
    postgres && process.cwd().is_ok_and(|cwd| cwd == data_dir)
}

/// Start time of a live process; `None` when it is gone or a zombie.
pub(crate) fn start_ticks(pid: i32) -> Option<u64> {
    let stat = Proc::new(pid).ok()?.stat().ok()?;
    (!matches!(stat.state, 'Z' | 'X' | 'x')).then_some(stat.starttime)
}

/// Whether exactly this process lives.
pub(crate) fn is_alive(identity: PostmasterIdentity) -> bool {
    start_ticks(identity.pid) == Some(identity.start_ticks)
}

/// Whether SIGKILL was sent to it and only the kernel still holds it, in a disk operation that does not end: nothing
/// of it ever runs again. [`kill_now`] kills what is below a postmaster before the postmaster itself.
pub(crate) fn is_doomed(identity: PostmasterIdentity) -> bool {
    const SIGKILL: u64 = 1 << (9 - 1);
    let status = Proc::new(identity.pid).and_then(|process| process.status());
    status.is_ok_and(|status| (status.sigpnd | status.shdpnd) & SIGKILL != 0) && is_alive(identity)
}

fn parent(pid: i32) -> Option<i32> {
    Some(Proc::new(pid).ok()?.stat().ok()?.ppid)
}

/// Resolves when this process is dead: gone, a zombie, or its number belongs to another one. Works for
/// processes that are not children of this one.
pub async fn postmaster_death(identity: PostmasterIdentity) {
    #[expect(
        deprecated,
        reason = "its replacement is unsafe; an OwnedFd keeps what that asks for"
    )]
    let watch = open(identity).and_then(|fd| AsyncFd::new(fd).ok());
    if let Some(watch) = watch {
        // Readable as soon as the process has ended, reaped or not.
        let _ = watch.readable().await;
        return;
    }
    // No pidfd (an old kernel, or descriptors ran out).
    while is_alive(identity) {
        tokio::time::sleep(POLL).await;
    }
}

/// A descriptor of exactly this process.
fn open(identity: PostmasterIdentity) -> Option<std::os::fd::OwnedFd> {
    let fd = pidfd_open(Pid::from_raw(identity.pid)?, PidfdFlags::empty()).ok()?;
    // Compared after opening: from here on the number cannot change hands unseen.
    is_alive(identity).then_some(fd)
}

/// Sends a signal to exactly this process; `Ok(false)` when it is dead.
pub(crate) fn signal(identity: PostmasterIdentity, signal: Signal) -> io::Result<bool> {
    let result = match open(identity) {
        Some(fd) => pidfd_send_signal(fd, signal),
        None if !is_alive(identity) => return Ok(false),
        None => match Pid::from_raw(identity.pid) {
            Some(pid) => kill_process(pid, signal),
            None => return Ok(false),
        },
    };
    match result {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The fence: SIGKILL to the postmaster and everything below it, without touching a disk. Takes
/// milliseconds. `Ok` also when nothing was alive; the signals are sent when it returns, and nothing of the
/// killed processes reaches a client any more.
pub fn kill_now(identity: PostmasterIdentity) -> io::Result<()> {
    // Stopped first, so that it starts no backend that the list below would miss.
    if !signal(identity, Signal::STOP)? {
        return Ok(());
    }
    for pid in descendants(identity.pid) {
        kill(pid, Signal::KILL);
    }
    signal(identity, Signal::KILL).map(|_| ())
}

/// Kills backends whose postmaster died under them: they may still commit what they were doing.
/// They are known by their working directory. Returns how many there were.
pub fn kill_leftovers(data_dir: &Path) -> usize {
    let Ok(data_dir) = data_dir.canonicalize() else {
        return 0;
    };
    let leftovers: Vec<i32> = pids()
        .filter(|&pid| is_postgres_in(pid, &data_dir))
        .collect();
    for &pid in &leftovers {
        kill(pid, Signal::KILL);
    }
    leftovers.len()
}

/// Signals a process group and everything below its leader.
pub(crate) fn signal_tree(pid: i32, signal: Signal) {
    let below = descendants(pid);
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process_group(pid, signal);
    }
    for pid in below {
        kill(pid, signal);
    }
}

fn kill(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid).filter(|pid| pid.as_raw_nonzero().get() > 1) {
        let _ = kill_process(pid, signal);
    }
}

fn pids() -> impl Iterator<Item = i32> {
    let own = std::process::id() as i32;
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(move |&pid| pid != own)
}

/// Every process below `root`, not itself.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for pid in pids() {
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        for &child in children.get(&pid).into_iter().flatten() {
            if found.insert(child) {
                next.push(child);
            }
        }
    }
    found.into_iter().collect()
}

/// What the postmaster's children call themselves when they serve no client.
const AUXILIARY: &[&str] = &[
    "archiver",
    "autovacuum",
    "background writer",
    "bgwriter",
    "checkpointer",
    "io worker",
    "logger",
    "logical replication",
    "slotsync worker",
    "startup",
    "stats collector",
    "walreceiver",
    "walsender",
    "walsummarizer",
    "walwriter",
    "wal writer",
];

/// Children of the postmaster that may serve a client. Anything unknown counts as one.
pub(crate) fn client_backends(postmaster: i32, cluster_name: &str) -> Vec<i32> {
    let serves_client = |pid: &i32| {
        let Ok(process) = Proc::new(*pid) else {
            return false;
        };
        let live = process
            .stat()
            .is_ok_and(|stat| stat.ppid == postmaster && stat.state != 'Z');
        let title = process.cmdline().unwrap_or_default().join(" ");
        live && !is_auxiliary(&title, cluster_name)
    };
    descendants(postmaster)
        .into_iter()
        .filter(serves_client)
        .collect()
}

fn is_auxiliary(title: &str, cluster_name: &str) -> bool {
    let Some(title) = title.strip_prefix("postgres: ") else {
        return false;
    };
    let title = title
        .strip_prefix(cluster_name)
        .and_then(|rest| rest.strip_prefix(": "))
        .unwrap_or(title);
    AUXILIARY.iter().any(|name| title.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pid_files() {
        let full = "1234\n/data\n1700000000\n5432\n/tmp\nlocalhost\n  5432001    32768\nready   \n";
        let expected = PidFile {
            pid: 1234,
            single_user: false,
            start_time: Some(1_700_000_000),
            port: Some(5432),
            socket_directory: Some("/tmp".into()),
            address: Some("localhost".into()),
        };
        assert_eq!(parse_pid_file(full), Some(expected.clone()));
        let starting = PidFile {
            port: Some(5432),
            socket_directory: None,
            address: None,
            ..expected
        };
        assert_eq!(
            parse_pid_file("1234\n/data\n1700000000\n5432\n\n"),
            Some(starting.clone())
        );
        let single = PidFile {
            pid: 77,
            single_user: true,
            start_time: Some(5),
            port: None,
            ..starting.clone()
        };
        assert_eq!(parse_pid_file("-77\n/data\n5\n"), Some(single));
        assert_eq!(
            parse_pid_file("1234"),
            Some(PidFile {
                start_time: None,
                port: None,
                ..starting
            })
        );
        for text in ["", "\n", "x\n", "0\n/data\n1\n", "99999999999\n"] {
            assert_eq!(parse_pid_file(text), None, "{text:?}");
        }
    }

    #[test]
    fn titles_of_auxiliary_processes() {
        for title in [
            "postgres: batman: checkpointer ",
            "postgres: checkpointer",
            "postgres: batman: walsender rep 127.0.0.1(1) streaming 0/1",
            "postgres: batman: startup recovering 00000001",
        ] {
            assert!(is_auxiliary(title, "batman"), "{title}");
        }
        for title in [
            "postgres: batman: joe db [local] idle",
            "postgres: joe db idle",
            "cp a b",
            "",
        ] {
            assert!(!is_auxiliary(title, "batman"), "{title}");
        }
    }

    #[tokio::test]
    async fn the_death_of_a_process_is_noticed_before_it_is_reaped() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        let identity = PostmasterIdentity {
            pid,
            start_ticks: start_ticks(pid).unwrap(),
        };
        assert!(is_alive(identity));
        kill_now(identity).unwrap();
        tokio::time::timeout(Duration::from_secs(10), postmaster_death(identity))
            .await
            .unwrap();
        assert!(!is_alive(identity));
        child.wait().unwrap();
        postmaster_death(identity).await;
        kill_now(identity).unwrap();
    }

    proptest! {
        #[test]
        fn any_pid_file_is_parsed_or_refused(text: String) {
            if let Some(file) = parse_pid_file(&text) {
                prop_assert!(file.pid > 0);
            }
        }
    }
}
