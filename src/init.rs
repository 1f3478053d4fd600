//! Process 1 of a container: whatever loses its parent becomes its child and must be collected, and signals without a
//! handler are lost. So the daemon runs as a child of a process that does these two things, and nothing else.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

/// Whether this process is the first of its container.
pub(crate) fn is_first() -> bool {
    std::process::id() == 1
}

/// Runs this executable again, as `called` and with the same arguments, hands signals on to it, and ends as it does.
pub(crate) async fn supervise(called: OsString, arguments: Vec<OsString>) -> ExitCode {
    match run("/proc/self/exe", called, arguments).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("Error: the daemon cannot be started below process 1: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(program: &str, called: OsString, arguments: Vec<OsString>) -> io::Result<u8> {
    // Before there is a child, so that no signal is missed.
    let mut ended = signal(SignalKind::child())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut user1 = signal(SignalKind::user_defined1())?;
    let mut user2 = signal(SignalKind::user_defined2())?;
    let mut abort = signal(SignalKind::from_raw(Signal::ABORT.as_raw()))?;
    let child = Command::new(program).arg0(called).args(arguments).spawn()?;
    let child = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let child = child.ok_or(io::ErrorKind::InvalidData)?;
    loop {
        let handed_on = tokio::select! {
            _ = ended.recv() => None,
            _ = hangup.recv() => Some(Signal::HUP),
            _ = interrupt.recv() => Some(Signal::INT),
            _ = quit.recv() => Some(Signal::QUIT),
            _ = terminate.recv() => Some(Signal::TERM),
            _ = user1.recv() => Some(Signal::USR1),
            _ = user2.recv() => Some(Signal::USR2),
            _ = abort.recv() => Some(Signal::ABORT),
        };
        match handed_on {
            Some(signal) => kill_process(child, signal)?,
            None => {
                if let Some(status) = collect(child)? {
                    return Ok(exit_code(status));
                }
            }
        }
    }
}

/// Collects everything that has ended; one signal may stand for many. Returns how `child` ended, if it did.
fn collect(child: Pid) -> io::Result<Option<WaitStatus>> {
    let mut ended = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => ended = Some(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(ended),
            Err(error) => return Err(error.into()),
        }
    }
}

/// As a shell tells it.
fn exit_code(status: WaitStatus) -> u8 {
    let signal = status.terminating_signal().map(|signal| 128 + signal);
    let code = status.exit_status().or(signal);
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    // `configuration.md` §7.
    #[tokio::test]
    async fn signals_are_handed_on_to_the_daemon() {
        for name in ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "ABRT"] {
            let script = format!(
                "trap 'exit 7' {name}; kill -{name} $PPID; \
                 i=0; while [ $i -lt 300 ]; do sleep 0.1; i=$((i + 1)); done"
            );
            let code = run("/bin/sh", "sh".into(), vec!["-c".into(), script.into()]).await;
            assert_eq!(code.unwrap(), 7, "{name}");
        }
    }
}
