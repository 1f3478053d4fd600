//! Running other programs: with a deadline, cancellable as a whole tree, their output in the log.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{Settings, postmaster};

/// How long a program may take to end after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(3);
/// How long the output of an ended program is read: something it left behind may hold the pipe open.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);
/// Lines kept for error texts.
const TAIL_LINES: usize = 12;
/// Standard output kept for the caller; the longest wanted is that of `postgres --describe-config`.
const CAPTURE_LIMIT: usize = 4 << 20;

/// How long something may take, and who may end it earlier.
#[derive(Clone, Debug)]
pub struct Until {
    /// Monotonic.
    pub deadline: Instant,
    /// Cancelled: the work stops as soon as it can, and kills what it started.
    pub cancel: CancellationToken,
}

impl Until {
    /// A deadline that nobody cancels.
    pub fn deadline(deadline: Instant) -> Self {
        Until {
            deadline,
            cancel: CancellationToken::new(),
        }
    }
}

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Not there, or may not be run.
    #[error("cannot run {program}; check postgresql.bin_dir or the configured command")]
    Spawn {
        /// Path or name.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Ended with something else than 0.
    #[error("{program} failed ({status}): {output}")]
    Failed {
        /// Path or name.
        program: PathBuf,
        /// `exit status: 1`, `signal: 9`.
        status: String,
        /// The last lines it printed.
        output: String,
    },
    /// Was killed at its deadline.
    #[error("{program} did not end in time and was killed")]
    Deadline {
        /// Path or name.
        program: PathBuf,
    },
    /// Was killed because somebody asked.
    #[error("{program} was cancelled")]
    Cancelled {
        /// Path or name.
        program: PathBuf,
    },
    /// The configured words are not shell words.
    #[error("cannot split the command {0:?} into words")]
    Words(String),
}

/// What an ended program left.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

type OnLine<'a> = Box<dyn FnMut(&str) + Send + 'a>;

/// A program about to be run.
pub(crate) struct Run<'a> {
    program: PathBuf,
    command: Command,
    quiet: bool,
    detached: bool,
    on_stderr_line: Option<OnLine<'a>>,
}

impl<'a> Run<'a> {
    /// A program without arguments, with the agent's environment less its configuration and secrets.
    pub(crate) fn new(program: impl AsRef<Path>) -> Self {
        let program = program.as_ref().to_path_buf();
        let mut command = Command::new(&program);
        for (name, value) in std::env::vars_os() {
            if is_withheld(&name, &value) {
                command.env_remove(name);
            }
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        Run {
            program,
            command,
            quiet: false,
            detached: false,
            on_stderr_line: None,
        }
    }

    /// The words of a configured command; run without a shell (`configuration.md` §0.7).
    pub(crate) fn words(command: &str) -> Result<Self, CommandError> {
        let words = shell_words::split(command)
            .ok()
            .filter(|words| !words.is_empty());
        let words = words.ok_or_else(|| CommandError::Words(command.to_owned()))?;
        Ok(Run::new(&words[0]).args(&words[1..]))
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The Kerberos service of the servers that libpq is to reach from there (`configuration.md` §2.13 `krbsrvname`): a
    /// connection string that a person or a script makes does not name it.
    pub(crate) fn kerberos(self, settings: &Settings) -> Self {
        match &settings.krbsrvname {
            Some(name) => self.env("PGKRBSRVNAME", name),
            None => self,
        }
    }

    /// Messages in English, to be parsed.
    pub(crate) fn c_locale(self) -> Self {
        self.env("LANG", "C").env("LC_ALL", "C")
    }

    /// Output at debug level: run often.
    pub(crate) fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    pub(crate) fn current_dir(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Goes on when the future is dropped, so it must not depend on a pipe to this process: it writes to
    /// the agent's standard error.
    pub(crate) fn detached(mut self) -> Self {
        use std::os::fd::AsFd;
        for set in [Command::stdout::<Stdio>, Command::stderr::<Stdio>] {
            let stderr = std::io::stderr().as_fd().try_clone_to_owned();
            set(
                &mut self.command,
                stderr.map_or_else(|_| Stdio::null(), Stdio::from),
            );
        }
        self.detached = true;
        self
    }

    pub(crate) fn on_stderr_line(mut self, callback: impl FnMut(&str) + Send + 'a) -> Self {
        self.on_stderr_line = Some(Box::new(callback));
        self
    }

    /// Runs it; any other exit status than 0 is an error.
    pub(crate) async fn success(self, until: &Until) -> Result<Output, CommandError> {
        let program = self.program.clone();
        self.output(until).await?.success(program)
    }

    /// Runs it to its end, whatever its exit status. At the deadline, when cancelled, and when the future
    /// is dropped, the whole process tree is killed.
    pub(crate) async fn output(mut self, until: &Until) -> Result<Output, CommandError> {
        let program = self.program.clone();
        if until.cancel.is_cancelled() {
            return Err(CommandError::Cancelled { program });
        }
        self.command.kill_on_drop(!self.detached);
        let spawned = tokio::select! {
            spawned = spawn(self.command) => spawned,
            () = until.cancel.cancelled() => return Err(CommandError::Cancelled { program }),
            () = tokio::time::sleep_until(until.deadline) => return Err(CommandError::Deadline { program }),
        };
        let mut child = spawned.map_err(|source| CommandError::Spawn {
            program: program.clone(),
            source,
        })?;
        let pid = child.id().map_or(0, |pid| pid as i32);
        let mut tree = Tree {
            pid: if self.detached { 0 } else { pid },
        };
        let name = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let (quiet, mut on_line) = (self.quiet, self.on_stderr_line.take());
        let log = |line: &str| match quiet {
            true => debug!("{name}: {line}"),
            false => info!("{name}: {line}"),
        };

        let (mut stdout, mut stderr) = (String::new(), String::new());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let reading = async {
            tokio::join!(
                read_lines(out, &mut stdout, &log),
                read_lines(err, &mut stderr, |line| {
                    log(line);
                    if let Some(callback) = &mut on_line {
                        callback(line);
                    }
                })
            );
        };
        let mut reading = Box::pin(reading);
        let mut read_all = false;
        let ended = loop {
            tokio::select! {
                () = &mut reading, if !read_all => read_all = true,
                status = child.wait() => break Ok(status),
                () = until.cancel.cancelled() => break Err(CommandError::Cancelled { program: program.clone() }),
                () = tokio::time::sleep_until(until.deadline) => {
                    break Err(CommandError::Deadline { program: program.clone() });
                }
            }
        };
        let status = match ended {
            Ok(status) => status.map_err(|source| CommandError::Spawn { program, source })?,
            Err(error) => {
                tree.pid = pid;
                tree.terminate();
                // What is still running then is killed when `tree` is dropped.
                let _ = tokio::time::timeout(TERM_GRACE, child.wait()).await;
                return Err(error);
            }
        };
        if !read_all {
            let _ = tokio::time::timeout(OUTPUT_GRACE, &mut reading).await;
        }
        drop(reading);
        tree.leave();
        Ok(Output {
            status,
            stdout,
            stderr,
        })
    }
}

/// Starts a program on a thread that may hang: executables are read from disks, too (`ha.md` W5).
pub(crate) async fn spawn(mut command: Command) -> std::io::Result<Child> {
    let spawned = tokio::task::spawn_blocking(move || command.spawn());
    spawned
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

impl Output {
    /// Any other exit status than 0 is an error.
    pub(crate) fn success(self, program: impl Into<PathBuf>) -> Result<Self, CommandError> {
        match self.status.success() {
            true => Ok(self),
            false => Err(CommandError::Failed {
                program: program.into(),
                status: self.status.to_string(),
                output: self.tail(),
            }),
        }
    }

    /// The last lines, for an error text.
    pub(crate) fn tail(&self) -> String {
        let lines = self
            .stdout
            .lines()
            .chain(self.stderr.lines())
            .filter(|l| !l.trim().is_empty());
        let mut tail = VecDeque::new();
        for line in lines {
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        }
        tail.into_iter().collect::<Vec<_>>().join("; ")
    }
}

/// Names of variables that this process has understood itself.
static UNDERSTOOD: OnceLock<BTreeSet<String>> = OnceLock::new();

/// Keeps these variables of this process from everything that it starts from now on (`configuration.md` §1.1). The first call
/// counts: the environment is read once.
pub fn withhold(names: BTreeSet<String>) {
    UNDERSTOOD.get_or_init(|| names);
}

/// Whether a variable of the agent's must not reach its children: what is configuration, secrets, and the way to its supervisor,
/// to which a server that a script starts would speak as well.
pub(crate) fn is_withheld(name: &OsStr, value: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let understood = UNDERSTOOD.get();
    if understood.is_some_and(|names| names.contains(name.as_ref())) {
        return true;
    }
    let is_secret = || {
        name == "PATRONI_CONFIGURATION"
            || name.ends_with("PASSWORD")
            || name.ends_with("TOKEN")
            // `scheme://user:password@host`
            || value.as_encoded_bytes().contains(&b'@')
    };
    matches!(
        name.as_ref(),
        "NOTIFY_SOCKET" | "WATCHDOG_USEC" | "WATCHDOG_PID"
    ) || name.starts_with("PATRONI_") && is_secret()
}

/// A child and everything below it. Killed when dropped, unless [`Tree::leave`] was called.
pub(crate) struct Tree {
    pub(crate) pid: i32,
}

impl Tree {
    fn terminate(&self) {
        postmaster::signal_tree(self.pid, rustix::process::Signal::TERM);
    }

    /// It ended by itself; what it left running in the background is its own affair.
    pub(crate) fn leave(mut self) {
        self.pid = 0;
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.pid > 1 {
            postmaster::signal_tree(self.pid, rustix::process::Signal::KILL);
        }
    }
}

/// Splits a stream into lines at `\n` and `\r` (progress displays use the latter); collects them in `text`.
async fn read_lines(
    stream: Option<impl AsyncRead + Unpin>,
    text: &mut String,
    mut on_line: impl FnMut(&str),
) {
    let Some(mut stream) = stream else { return };
    let mut take = |bytes: &[u8]| {
        let line = String::from_utf8_lossy(bytes);
        if line.trim().is_empty() {
            return;
        }
        on_line(&line);
        if text.len() + line.len() < CAPTURE_LIMIT {
            text.push_str(&line);
            text.push('\n');
        }
    };
    let mut buffer = [0; 8192];
    let mut rest = Vec::new();
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        rest.extend_from_slice(&buffer[..count]);
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            take(&rest[..end]);
            rest.drain(..=end);
        }
    }
    take(&rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_the_supervisor_are_withheld() {
        let withheld = |name: &str, value: &str| is_withheld(name.as_ref(), value.as_ref());
        for (name, value) in [
            ("PATRONI_CONFIGURATION", "scope: demo"),
            ("PATRONI_SUPERUSER_PASSWORD", "secret"),
            ("PATRONI_RESTAPI_KEYFILE_PASSWORD", "secret"),
            ("PATRONI_CONSUL_TOKEN", "secret"),
            ("PATRONI_ETCD3_URL", "https://root:secret@10.0.0.11:2379"),
            ("NOTIFY_SOCKET", "/run/systemd/notify"),
            ("WATCHDOG_USEC", "30000000"),
        ] {
            assert!(withheld(name, value), "{name}");
        }
        for (name, value) in [
            ("PATRONI_SCOPE", "demo"),
            ("PATRONI_ETCD3_URL", "https://10.0.0.11:2379"),
            ("PGPASSWORD", "the user's own"),
            ("PATH", "/usr/bin"),
        ] {
            assert!(!withheld(name, value), "{name}");
        }
        // What the agent itself has understood; beside it, variables that only scripts read.
        withhold(BTreeSet::from(["PATRONI_SCOPE".to_owned()]));
        assert!(withheld("PATRONI_SCOPE", "demo"));
        assert!(!withheld("PATRONI_SITE", "east"));
    }

    fn shell(script: &str) -> Run<'static> {
        Run::new("sh").args(["-c", script])
    }

    fn soon() -> Until {
        Until::deadline(Instant::now() + Duration::from_secs(30))
    }

    /// Waits for the process whose number the script wrote to die.
    async fn dead(file: &Path) -> bool {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            let pid = std::fs::read_to_string(file)
                .ok()
                .and_then(|text| text.trim().parse().ok());
            if pid.is_some_and(|pid| postmaster::start_ticks(pid).is_none()) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    #[tokio::test]
    async fn output_and_exit_status() {
        let mut lines = Vec::new();
        let run = shell("echo out; printf 'a\\rb\\n' >&2")
            .on_stderr_line(|line| lines.push(line.to_owned()));
        let output = run.success(&soon()).await.unwrap();
        assert_eq!(
            (output.stdout.as_str(), output.stderr.as_str()),
            ("out\n", "a\nb\n")
        );
        assert_eq!(lines, ["a", "b"]);
        let error = shell("echo no >&2; exit 3")
            .success(&soon())
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "sh failed (exit status: 3): no");
        let error = Run::new("/no/such/program")
            .success(&soon())
            .await
            .unwrap_err();
        assert!(matches!(error, CommandError::Spawn { .. }), "{error}");
        assert!(matches!(Run::words("a 'b"), Err(CommandError::Words(_))));
        assert!(matches!(Run::words(" "), Err(CommandError::Words(_))));
    }

    #[tokio::test]
    async fn something_left_in_the_background_does_not_hold_up_the_answer() {
        let began = Instant::now();
        shell("sleep 20 & echo done")
            .success(&soon())
            .await
            .unwrap();
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn the_deadline_cancellation_and_a_drop_kill_the_tree() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        // Once the file has its name, the number is in it.
        let script = |name: &str| {
            let file = file(name);
            let file = file.display();
            format!("sleep 300 & echo $! > {file}.new; mv {file}.new {file}; wait")
        };

        let until = Until::deadline(Instant::now() + Duration::from_secs(3));
        let error = shell(&script("deadline"))
            .success(&until)
            .await
            .unwrap_err();
        assert!(matches!(error, CommandError::Deadline { .. }), "{error}");
        assert!(dead(&file("deadline")).await);

        let until = soon();
        let cancel = until.cancel.clone();
        let (result, ()) = tokio::join!(shell(&script("cancel")).success(&until), async {
            while !file("cancel").exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            cancel.cancel();
        });
        assert!(matches!(result, Err(CommandError::Cancelled { .. })));
        assert!(dead(&file("cancel")).await);

        let until = soon();
        tokio::select! {
            _ = shell(&script("drop")).success(&until) => panic!("ended"),
            () = async {
                while !file("drop").exists() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            } => {}
        }
        assert!(dead(&file("drop")).await);
    }
}
