//! The administrator's archive, by `archive_command` and `restore_command`, while PostgreSQL does not run.

use std::path::Path;

use tokio::time::Instant;

use crate::command::Run;
use crate::{CommandError, Error, Server, Until};

/// Label of pg_controldata.
const CHECKPOINT_SEGMENT: &str = "Latest checkpoint's REDO WAL file";

impl Server {
    /// Fetches a segment from the archive; whether it worked.
    pub(crate) async fn fetch_wal(&self, segment: &str, configured: &str, until: &Until) -> bool {
        let settings = self.settings();
        let command = match configured {
            "" => settings
                .recovery_conf
                .get("restore_command")
                .cloned()
                .unwrap_or_default(),
            _ => configured.to_owned(),
        };
        if command.is_empty() {
            return false;
        }
        let fetched = run_command(&command, segment, &settings.data_dir, until).await;
        fetched
            .inspect_err(|error| tracing::warn!("restore_command: {error}"))
            .is_ok()
    }

    /// Archives what waits in `archive_status`: a rewind or a crash recovery would lose it.
    pub(crate) async fn archive_ready_wal(&self, until: &Until) -> Result<(), Error> {
        let settings = self.settings();
        let Some(command) = self.archive_command(until.deadline).await else {
            return Ok(());
        };
        let status = settings.data_dir.join("pg_wal/archive_status");
        let listed = status.clone();
        let mut segments = self
            .disk("reading archive_status", until.deadline, move || {
                let entries = std::fs::read_dir(&listed).map_err(Error::file("read", listed))?;
                let name = |entry: std::fs::DirEntry| {
                    Some(
                        entry
                            .file_name()
                            .to_str()?
                            .strip_suffix(".ready")?
                            .to_owned(),
                    )
                };
                Ok(entries.flatten().filter_map(name).collect::<Vec<_>>())
            })
            .await?;
        segments.sort();
        for segment in segments {
            if let Err(error) = run_command(&command, &segment, &settings.data_dir, until).await {
                if matches!(error, CommandError::Cancelled { .. }) {
                    return Err(error.into());
                }
                tracing::error!("WAL segment {segment} could not be archived: {error}");
                return Ok(());
            }
            let ready = status.join(format!("{segment}.ready"));
            let done = status.join(format!("{segment}.done"));
            std::fs::rename(&ready, done).map_err(Error::file("rename", ready))?;
        }
        Ok(())
    }

    /// Archives the segment that holds the shutdown checkpoint. PostgreSQL does not, since it is not full;
    /// a standby cluster that knows nothing but the archive would never get the end of the WAL.
    /// Nothing to do where nothing is archived.
    pub async fn archive_shutdown_checkpoint(&self, until: &Until) -> Result<(), Error> {
        let Some(command) = self.archive_command(until.deadline).await else {
            return Ok(());
        };
        let control = self.control_file(until.deadline).await?;
        let segment = control.fields.get(CHECKPOINT_SEGMENT);
        let segment = segment.ok_or_else(|| Error::BadFile {
            path: self.settings().data_dir.join("global/pg_control"),
            problem: "it does not name the segment of the last checkpoint".into(),
        })?;
        run_command(&command, segment, &self.settings().data_dir, until).await?;
        Ok(())
    }

    /// `archive_command`, where WAL is archived by one.
    async fn archive_command(&self, deadline: Instant) -> Option<String> {
        let value = async |name| self.configured_value(name, deadline).await.ok();
        let mode = value("archive_mode").await?;
        let command = value("archive_command").await?;
        (matches!(mode.as_str(), "on" | "always") && !command.is_empty()).then_some(command)
    }
}

/// Exit statuses by which a shell says that there is no such command, or none that it may run.
const NOT_FOUND: [i32; 2] = [126, 127];

/// Runs an archive or restore command as PostgreSQL does: in the data directory, with a path relative to it. What is not found
/// from there is looked for from the agent's working directory, for Patroni runs its archive commands there
/// (`process.md`), with an absolute path.
async fn run_command(
    command: &str,
    segment: &str,
    data_dir: &Path,
    until: &Until,
) -> Result<(), CommandError> {
    let wal = Path::new("pg_wal");
    let output = shell(command, segment, wal)
        .current_dir(data_dir)
        .output(until)
        .await?;
    let code = output.status.code();
    let output = match code.filter(|code| NOT_FOUND.contains(code)) {
        Some(_) => {
            let data_dir = std::path::absolute(data_dir);
            let data_dir = data_dir.map_err(|source| CommandError::Spawn {
                program: "sh".into(),
                source,
            })?;
            let run = shell(command, segment, &data_dir.join(wal));
            run.output(until).await?
        }
        None => output,
    };
    output.success("sh").map(drop)
}

/// A command for a shell, with its placeholders filled in.
fn shell(command: &str, segment: &str, wal: &Path) -> Run<'static> {
    let mut text = String::with_capacity(command.len());
    let mut chars = command.chars().peekable();
    while let Some(char) = chars.next() {
        let placeholder = if char == '%' {
            chars.next_if(|next| "pfr%".contains(*next))
        } else {
            None
        };
        match placeholder {
            Some('p') => text.push_str(&wal.join(segment).display().to_string()),
            Some('f') => text.push_str(segment),
            // The oldest segment that must be kept: this one.
            Some('r') => text.push_str(segment),
            Some(other) => text.push(other),
            None => text.push(char),
        }
    }
    Run::new("sh").args(["-c", &text])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn soon() -> Until {
        Until::deadline(Instant::now() + std::time::Duration::from_secs(30))
    }

    #[tokio::test]
    async fn placeholders_are_filled_in() {
        let output = shell("echo %f '%p' %% %x", "0A", Path::new("pg_wal"))
            .success(&soon())
            .await
            .unwrap();
        assert_eq!(output.stdout, "0A pg_wal/0A % %x\n");
    }

    // `process.md`, working directory.
    #[tokio::test]
    async fn a_relative_command_is_found_from_the_data_directory_else_from_the_agents() {
        let place = tempfile::tempdir().unwrap();
        let working_directory = std::env::current_dir().unwrap();
        let depth = working_directory.components().count();
        // So deep that what leads from the working directory to the root does not lead there from here.
        let data_dir = place.path().join("d/".repeat(depth)).join("data");
        std::fs::create_dir_all(&data_dir).unwrap();
        let told = place.path().join("told");
        let script = |path: &Path| {
            let text = format!("#!/bin/sh\necho \"$PWD $1\" >> {}\n", told.display());
            std::fs::write(path, text).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        script(&place.path().join("archive"));
        script(&data_dir.join("archive"));
        let run = async |command: &str| {
            let result = run_command(command, "0A", &data_dir, &soon()).await;
            let told = std::fs::read_to_string(&told).unwrap_or_default();
            (result, told.lines().last().unwrap_or_default().to_owned())
        };

        let (result, told) = run("./archive %p").await;
        result.unwrap();
        assert_eq!(told, format!("{} pg_wal/0A", data_dir.display()));

        let to_root = "../".repeat(depth - 1);
        let from_here = format!("{to_root}{}/archive", place.path().display());
        let (result, told) = run(&format!("{} %p", from_here.replace("//", "/"))).await;
        result.unwrap();
        let wal = data_dir.join("pg_wal/0A");
        assert_eq!(
            told,
            format!("{} {}", working_directory.display(), wal.display())
        );

        let (result, _) = run("./nowhere %p").await;
        let error = result.unwrap_err().to_string();
        assert!(error.contains("exit status: 127"), "{error}");
        // A command that was found and failed is not run again.
        let (result, told) = run("./archive once; exit 1").await;
        result.unwrap_err();
        assert_eq!(told, format!("{} once", data_dir.display()));
    }
}
