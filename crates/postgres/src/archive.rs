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
        let fetched = shell(&command, segment, &settings.data_dir)
            .success(until)
            .await;
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
            if let Err(error) = shell(&command, &segment, &settings.data_dir)
                .success(until)
                .await
            {
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
        shell(&command, segment, &self.settings().data_dir)
            .success(until)
            .await?;
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

/// An archive or restore command: by a shell, in the data directory, with its placeholders filled in.
fn shell(command: &str, segment: &str, data_dir: &Path) -> Run<'static> {
    let mut text = String::with_capacity(command.len());
    let mut chars = command.chars().peekable();
    while let Some(char) = chars.next() {
        let placeholder = if char == '%' {
            chars.next_if(|next| "pfr%".contains(*next))
        } else {
            None
        };
        match placeholder {
            Some('p') => text.push_str(&format!("pg_wal/{segment}")),
            Some('f') => text.push_str(segment),
            // The oldest segment that must be kept: this one.
            Some('r') => text.push_str(segment),
            Some(other) => text.push(other),
            None => text.push(char),
        }
    }
    Run::new("sh").args(["-c", &text]).current_dir(data_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn placeholders_are_filled_in() {
        let until = Until::deadline(Instant::now() + std::time::Duration::from_secs(30));
        let output = shell("echo %f '%p' %% %x", "0A", Path::new("/"))
            .success(&until)
            .await
            .unwrap();
        assert_eq!(output.stdout, "0A pg_wal/0A % %x\n");
    }
}
