//! Making a replica (`ha.md` §6.3, `configuration.md` §2.13.3).

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::command::Run;
use crate::conninfo::Conninfo;
use crate::settings::ReplicaMethod;
use crate::unfinished::Unfinished;
use crate::{CommandError, Error, Server, Until, pgpass};

/// Attempts of pg_basebackup, and the time between them.
const ATTEMPTS: u32 = 2;
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(5);
/// For emptying the data directory after a failure: the caller's deadline may be over by then.
const CLEAN_UP: Duration = Duration::from_secs(3600);
/// For small files.
const FILES: Duration = Duration::from_secs(30);

/// Arguments of every custom method, unless it has `no_params`.
const OWN_ARGUMENTS: [&str; 4] = ["scope", "role", "datadir", "connstring"];

/// How far a base backup is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupProgress {
    /// Bytes copied.
    pub done_bytes: u64,
    /// Estimate of all bytes; 0 when not known yet.
    pub total_bytes: u64,
}

/// How to make this a replica.
#[derive(Clone, Debug, Default)]
pub struct ReplicaRequest {
    /// Host, port and database of the source; `None` leaves only methods that need none.
    pub source: Option<Conninfo>,
    /// Nothing but `basebackup` (a reinitialization from the leader).
    pub basebackup_only: bool,
    /// Told of the progress of pg_basebackup.
    pub progress: Option<watch::Sender<BackupProgress>>,
}

impl Server {
    /// Fills the data directory by the configured methods (`ha.md` §6.3), wiping what they want wiped.
    /// After it the configuration files are restored; the server is not started. Returns the method.
    ///
    /// On failure or cancellation the data directory is wiped, except by methods with `keep_data`.
    /// Errors: [`Error::NotPossible`] when something runs on it, or when no method is left.
    pub async fn create_replica(
        &self,
        request: ReplicaRequest,
        until: Until,
    ) -> Result<String, Error> {
        self.refuse_root()?;
        let mut failure =
            Error::NotPossible("no replica creation method can be used without a source".into());
        for method in self.methods(&request) {
            if request.source.is_none() && !method.no_leader {
                continue;
            }
            let attempt = match method.name.as_str() {
                "basebackup" => self.base_backup(&request, &until).await,
                _ => {
                    self.custom_replica(&method, request.source.as_ref(), &until)
                        .await
                }
            };
            match attempt {
                Ok(()) => {
                    tracing::info!("replica has been created using {}", method.name);
                    let soon = Instant::now() + FILES;
                    // A method that keeps the data has put right what it found.
                    self.mark_finished(Unfinished::Rewind, soon).await?;
                    self.restore_backups(soon).await?;
                    return Ok(method.name);
                }
                Err(error) => {
                    tracing::error!("replica creation by {} failed: {error}", method.name);
                    failure = error;
                }
            }
            if until.cancel.is_cancelled() || Instant::now() >= until.deadline {
                break;
            }
        }
        Err(failure)
    }

    fn methods(&self, request: &ReplicaRequest) -> Vec<ReplicaMethod> {
        let settings = self.settings();
        if request.basebackup_only || settings.replica_methods.is_empty() {
            vec![ReplicaMethod {
                name: "basebackup".into(),
                ..ReplicaMethod::default()
            }]
        } else {
            settings.replica_methods.clone()
        }
    }

    async fn base_backup(&self, request: &ReplicaRequest, until: &Until) -> Result<(), Error> {
        let Some(source) = &request.source else {
            return Err(Error::NotPossible("pg_basebackup needs a source".into()));
        };
        let mut attempt = 1;
        loop {
            self.wipe_data_directory(until.deadline).await?;
            let error = match self
                .run_base_backup(source, request.progress.as_ref(), until)
                .await
            {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let over = until.cancel.is_cancelled() || Instant::now() >= until.deadline;
            if over || attempt == ATTEMPTS {
                self.wipe_data_directory(Instant::now() + CLEAN_UP).await?;
                return Err(error);
            }
            attempt += 1;
            tracing::warn!("{error}; trying again");
            tokio::select! {
                () = until.cancel.cancelled() => {}
                () = sleep(BETWEEN_ATTEMPTS) => {}
            }
        }
    }

    async fn run_base_backup(
        &self,
        source: &Conninfo,
        progress: Option<&watch::Sender<BackupProgress>>,
        until: &Until,
    ) -> Result<(), Error> {
        let settings = self.settings();
        let major = self.binaries_version(until.deadline).await?;
        let compresses_here = |argument: &String| match argument.strip_prefix("--compress") {
            Some(rest) if rest.is_empty() || rest.starts_with('=') => {
                major < 15 || !rest.starts_with("=server")
            }
            _ => false,
        };
        let (refused, options): (Vec<_>, Vec<_>) = settings
            .basebackup_options
            .arguments
            .iter()
            .partition(|argument| compresses_here(argument));
        for problem in &settings.basebackup_options.problems {
            tracing::error!("{problem}");
        }
        if !refused.is_empty() {
            tracing::error!("compress option for basebackup is not allowed");
        }
        let dsn = source
            .clone()
            .with_credentials(&settings.replication)
            .for_version(major);
        let passwords = self.password_file(source, &settings.replication)?;
        let mut run = Run::new(settings.binary("pg_basebackup"))
            .arg(format!("--pgdata={}", settings.data_dir.display()))
            .args(["-X", "stream"])
            .arg(format!("--dbname={dsn}"))
            .args(&options)
            .kerberos(&settings)
            .c_locale();
        if let Some(file) = &passwords {
            run = run.env("PGPASSFILE", file.path());
        }
        if let Some(progress) = progress {
            progress.send_replace(BackupProgress::default());
            if !options.iter().any(|argument| *argument == "--progress") {
                run = run.arg("--progress");
            }
            run = run.quiet().on_stderr_line(|line| {
                if let Some(seen) = parse_progress(line) {
                    progress.send_replace(seen);
                }
            });
        }
        run.success(until).await?;
        Ok(())
    }

    async fn custom_replica(
        &self,
        method: &ReplicaMethod,
        source: Option<&Conninfo>,
        until: &Until,
    ) -> Result<(), Error> {
        let settings = self.settings();
        // `keep_data` counts with `no_params` as well, where Patroni forgets it and wipes what was to be kept.
        if !method.keep_data {
            self.wipe_data_directory(until.deadline).await?;
        }
        let mut run = Run::words(&method.command)?.kerberos(&settings);
        for (name, value) in &method.arguments {
            if method.no_params || !OWN_ARGUMENTS.contains(&name.as_str()) {
                run = run.arg(format!("--{name}={value}"));
            }
        }
        let mut passwords = None;
        let mut connstring = String::new();
        if let Some(source) = source {
            let major = self.binaries_version(until.deadline).await?;
            let dsn = source
                .clone()
                .with_credentials(&settings.replication)
                .for_version(major);
            connstring = dsn.to_string();
            passwords = self.password_file(source, &settings.replication)?;
        }
        if !method.no_params {
            run = run
                .arg(format!("--scope={}", settings.scope))
                .arg("--role=replica")
                .arg(format!("--datadir={}", settings.data_dir.display()))
                .arg(format!("--connstring={connstring}"));
        }
        if let Some(file) = &passwords {
            run = run.env("PGPASSFILE", file.path());
        }
        let result = run.success(until).await;
        if result.is_err() && !method.keep_data {
            self.wipe_data_directory(Instant::now() + CLEAN_UP).await?;
        }
        result.map(drop).map_err(Error::from)
    }

    /// A password file for one command, next to the one for the walreceiver.
    pub(crate) fn password_file(
        &self,
        target: &Conninfo,
        credentials: &crate::Credentials,
    ) -> Result<Option<tempfile::NamedTempFile>, Error> {
        let settings = self.settings();
        let lines = pgpass::lines(target, credentials);
        if lines.is_empty() {
            return Ok(None);
        }
        let directory = settings
            .pgpass
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(std::path::Path::new("."));
        std::fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
        pgpass::temporary(directory, &lines)
            .map(Some)
            .map_err(Error::file("write", directory))
    }
}

/// `  23456/ 98765 kB (23%), 0/1 tablespace`
pub(crate) fn parse_progress(line: &str) -> Option<BackupProgress> {
    let (done, rest) = line.trim().split_once('/')?;
    let total = rest.trim_start().split_once(" kB")?.0;
    let bytes = |text: &str| text.trim().parse::<u64>().ok()?.checked_mul(1024);
    Some(BackupProgress {
        done_bytes: bytes(done)?,
        total_bytes: bytes(total)?,
    })
}

impl Error {
    /// Whether somebody asked for the work to end.
    pub fn is_cancelled(&self) -> bool {
        matches!(
            self,
            Error::Cancelled { .. } | Error::Command(CommandError::Cancelled { .. })
        )
    }

    /// Whether the deadline ended the work.
    pub fn is_deadline(&self) -> bool {
        matches!(
            self,
            Error::Deadline { .. } | Error::Command(CommandError::Deadline { .. })
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_lines() {
        let seen = parse_progress("    0/22789 kB (0%), 0/1 tablespace").unwrap();
        assert_eq!(
            seen,
            BackupProgress {
                done_bytes: 0,
                total_bytes: 22789 * 1024
            }
        );
        let seen = parse_progress("22799/22799 kB (100%), 1/1 tablespace").unwrap();
        assert_eq!(seen.done_bytes, 22799 * 1024);
        assert_eq!(
            parse_progress("pg_basebackup: waiting for checkpoint"),
            None
        );
        assert_eq!(parse_progress("  123 kB (100%), 1/1 tablespace"), None);
    }
}
