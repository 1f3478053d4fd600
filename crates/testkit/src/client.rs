//! Programs of others that tests run against a cluster.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::processes;
use crate::scratch::Scratch;
use crate::wait::wait_until;

/// A client that runs beside a cluster. It ends when it is dropped, or with the scratch directory.
#[derive(Debug)]
pub struct Client {
    process: Child,
    log: PathBuf,
}

impl Client {
    /// Starts what `command`, one of the scratch directory's, says. Its output goes to `NAME.log`.
    ///
    /// # Errors
    /// The program is not installed: `make test` installs all of them.
    pub fn start(scratch: &Scratch, name: &str, mut command: Command) -> Result<Self> {
        let log = scratch.path().join(format!("{name}.log"));
        let file = File::create(&log)?;
        let process = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot run {name} (make test installs it): {command:?}"))?;
        Ok(Self { process, log })
    }

    /// Asks it to end, by a signal, and waits until it has.
    ///
    /// # Errors
    /// It did not end within ten seconds.
    pub async fn stop(mut self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.process.id())?);
        processes::signal(pid, signal);
        let log = self.log.clone();
        wait_until("a client to end", Duration::from_secs(10), async || {
            ensure!(!processes::alive(pid), "it runs on: {}", log.display());
            Ok(())
        })
        .await?;
        self.process.wait()?;
        Ok(())
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs `command` to its end.
///
/// # Errors
/// It cannot be run, or did not end in time.
pub async fn output(mut command: Command, within: Duration) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let what = format!("{command:?}");
    let mut command = tokio::process::Command::from(command);
    tokio::time::timeout(within, command.kill_on_drop(true).output())
        .await
        .map_err(|_| anyhow!("{what} did not end within {within:?}"))?
        .with_context(|| format!("cannot run {what}"))
}
