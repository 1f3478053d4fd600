//! Which process the server is, and what lives below it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use primacy_model::{PostmasterIdentity, Process};
use procfs::process::Process as Proc;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal, test_kill_process,
};
use rustix::time::{ClockId, clock_gettime};
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
    /// The shared memory segment that it made; not there yet while it starts.
    pub(crate) shared_memory: Option<i32>,
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
    let shared_memory = text().and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    (pid != 0 && pid != i32::MIN).then(|| PidFile {
        pid: pid.abs(),
        single_user: pid < 0,
        start_time,
        port,
        socket_directory,
        address,
        shared_memory,
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

/// The process that holds a data directory. The one that was seen last is that as long as it lives, whatever became of its
/// file. Reads the disk.
///
/// Errors: the file cannot be read, or the process that it names cannot be told from a postmaster.
pub(crate) fn find(data_dir: &Path, last: Option<PostmasterIdentity>) -> io::Result<Process> {
    let file = match std::fs::read_to_string(data_dir.join("postmaster.pid")) {
        Ok(text) => parse_pid_file(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let named = match &file {
        Some(file) => identify(file, data_dir)?,
        None => None,
    };
    let single_user = file.is_some_and(|file| file.single_user);
    Ok(match named {
        Some(identity) if is_doomed(identity) => Process::Dying(identity),
        Some(identity) if single_user => Process::SingleUser(identity),
        Some(identity) => Process::Running(identity),
        None => as_seen(last),
    })
}

/// What a postmaster is by now that was seen before. Reads no disk.
pub(crate) fn as_seen(last: Option<PostmasterIdentity>) -> Process {
    match last.filter(|identity| is_alive(*identity)) {
        Some(identity) if is_doomed(identity) => Process::Dying(identity),
        Some(identity) => Process::Running(identity),
        None => Process::Absent,
    }
}

/// The number that `postmaster.pid` names when no postmaster of this directory has it any more. PostgreSQL
/// must be told to overlook it (`PG_GRANDPARENT_PID`): the number may belong to somebody else by now, or to
/// a zombie that nobody has reaped yet, and PostgreSQL takes either for a postmaster that lives.
pub(crate) fn stale_pid(data_dir: &Path) -> Option<i32> {
    let text = std::fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let file = parse_pid_file(&text)?;
    matches!(identify(&file, data_dir), Ok(None)).then_some(file.pid)
}

/// The process that the file of this directory names, if it is what wrote it. Start times tell as long as nobody set the
/// clock; where the process works, and whose shared memory it is, do so always.
fn identify(file: &PidFile, data_dir: &Path) -> io::Result<Option<PostmasterIdentity>> {
    let (pid, own) = (file.pid, std::process::id() as i32);
    let Some(start_ticks) = start_ticks(pid) else {
        return Ok(None);
    };
    if pid == own || Some(pid) == parent(own) {
        return Ok(None);
    }
    let identity = Some(PostmasterIdentity { pid, start_ticks });
    let began = boot_time() + start_ticks / procfs::ticks_per_second();
    if file
        .start_time
        .is_some_and(|written| began.abs_diff(written) <= START_TIME_TOLERANCE)
    {
        return Ok(identity);
    }
    // Somebody else's. PostgreSQL itself asks the same.
    if Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid) == Err(Errno::PERM)) {
        return Ok(None);
    }
    let made_memory = file.shared_memory.map(|id| made_shared_memory(pid, id));
    match std::fs::metadata(format!("/proc/{pid}/cwd")) {
        Ok(works_in) => {
            let data_dir = std::fs::metadata(data_dir)?;
            let here = (works_in.dev(), works_in.ino()) == (data_dir.dev(), data_dir.ino());
            let ours = here && (is_postgres(pid) || made_memory == Some(true));
            Ok(identity.filter(|_| ours))
        }
        // It ended meanwhile.
        Err(_) if self::start_ticks(pid) != Some(start_ticks) => Ok(None),
        // An executable with capabilities hides where it works.
        Err(error) => match made_memory {
            Some(ours) => Ok(identity.filter(|_| ours)),
            None => Err(error),
        },
    }
}

/// When the system was started, by the clock as it is now, in seconds since the epoch.
fn boot_time() -> u64 {
    let seconds = |clock| u64::try_from(clock_gettime(clock).tv_sec).unwrap_or_default();
    seconds(ClockId::Realtime).saturating_sub(seconds(ClockId::Boottime))
}

/// Whether this process made that segment of System V shared memory.
fn made_shared_memory(pid: i32, id: i32) -> bool {
    std::fs::read_to_string("/proc/sysvipc/shm").is_ok_and(|table| maker(&table, id) == Some(pid))
}

/// Who made a segment, by the kernel's table of them.
fn maker(table: &str, id: i32) -> Option<i32> {
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1)?.parse() == Ok(id)).then(|| fields.get(4)?.parse().ok())?
    })
}

fn is_postgres(pid: i32) -> bool {
    let executable = Proc::new(pid).and_then(|process| process.exe());
    executable.is_ok_and(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        matches!(
            name.trim_end_matches(" (deleted)"),
            "postgres" | "postmaster"
        )
    })
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
    let works_in = |pid: i32| Proc::new(pid).and_then(|process| process.cwd());
    let leftovers: Vec<i32> = pids()
        .filter(|&pid| is_postgres(pid) && works_in(pid).is_ok_and(|place| place == data_dir))
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
            shared_memory: Some(32768),
        };
        assert_eq!(parse_pid_file(full), Some(expected.clone()));
        let starting = PidFile {
            port: Some(5432),
            socket_directory: None,
            address: None,
            shared_memory: None,
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
    fn who_made_a_shared_memory_segment() {
        let table = "       key      shmid perms                  size  cpid  lpid nattch\n    \
                     6160408          7   600                    56 24870 24873      6\n  \
                     -12345678          8   600                    56   311   311      1\n";
        assert_eq!(maker(table, 7), Some(24870));
        assert_eq!(maker(table, 8), Some(311));
        assert_eq!(maker(table, 600), None);
        assert_eq!(maker("", 7), None);
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
