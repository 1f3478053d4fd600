//! Emptying the data directory, and setting it aside.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use primacy_model::{PostmasterIdentity, Process};
use tokio::time::Instant;

use crate::unfinished::Unfinished;
use crate::{Error, Server, postmaster};

impl Server {
    /// Removes the data directory's contents, those of a WAL directory that `pg_wal` links to, and this
    /// cluster's part of its tablespaces. The directories themselves stay; no other link is followed.
    ///
    /// Errors: [`Error::NotPossible`] while a process holds the directory.
    pub async fn wipe_data_directory(&self, deadline: Instant) -> Result<(), Error> {
        self.memory(|memory| memory.recovery = None);
        self.close_session(deadline).await;
        let data_dir = self.settings().data_dir.clone();
        let last = self.memory(|memory| memory.postmaster);
        self.disk("removing the data directory", deadline, move || {
            refuse_while_used(&data_dir, last)?;
            tracing::info!("removing the contents of {}", data_dir.display());
            for tablespace in tablespaces(&data_dir) {
                for part in own_parts(&data_dir, &tablespace) {
                    std::fs::remove_dir_all(&part).map_err(Error::file("remove", part))?;
                }
            }
            if let Some(wal) = linked(&data_dir.join("pg_wal")) {
                empty(&wal)?;
            }
            empty(&data_dir)?;
            Unfinished::Rewind.unmark(&data_dir)?;
            close(&data_dir)
        })
        .await
    }

    /// Renames the data directory to `<dir>.failed`, replacing an older one; likewise a WAL directory that
    /// `pg_wal` links to and this cluster's part of its tablespaces (`ha.md` §6.2).
    pub async fn move_data_directory_aside(&self, deadline: Instant) -> Result<(), Error> {
        self.memory(|memory| memory.recovery = None);
        self.close_session(deadline).await;
        let data_dir = self.settings().data_dir.clone();
        let last = self.memory(|memory| memory.postmaster);
        self.disk("setting the data directory aside", deadline, move || {
            refuse_while_used(&data_dir, last)?;
            for tablespace in tablespaces(&data_dir) {
                for part in own_parts(&data_dir, &tablespace) {
                    set_aside(&part)?;
                }
            }
            if let Some(wal) = linked(&data_dir.join("pg_wal")) {
                set_aside(&wal)?;
            }
            set_aside(&data_dir)?;
            Unfinished::Rewind.unmark(&data_dir)
        })
        .await
    }
}

/// What fills an existing directory keeps its mode, and PostgreSQL does not start in one that others may read.
fn close(data_dir: &Path) -> Result<(), Error> {
    let Ok(metadata) = std::fs::metadata(data_dir) else {
        return Ok(());
    };
    if matches!(metadata.permissions().mode() & 0o777, 0o700 | 0o750) {
        return Ok(());
    }
    let closed = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(data_dir, closed).map_err(Error::file("change the mode of", data_dir))
}

fn refuse_while_used(data_dir: &Path, last: Option<PostmasterIdentity>) -> Result<(), Error> {
    if data_dir.parent().is_none() || !data_dir.is_absolute() {
        return Err(Error::Configuration(format!(
            "{} cannot be a data directory; set postgresql.data_dir to an absolute path",
            data_dir.display()
        )));
    }
    match postmaster::find(data_dir, last)
        .map_err(Error::file("read", data_dir.join("postmaster.pid")))?
    {
        Process::Absent => {
            postmaster::kill_leftovers(data_dir);
            Ok(())
        }
        Process::Running(identity) | Process::SingleUser(identity) | Process::Dying(identity) => {
            Err(Error::NotPossible(format!(
                "{} is used by process {}; stop it first",
                data_dir.display(),
                identity.pid
            )))
        }
    }
}

/// Where a symbolic link to a directory leads.
fn linked(path: &Path) -> Option<PathBuf> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    let target = metadata
        .is_symlink()
        .then(|| path.canonicalize().ok())
        .flatten()?;
    target.is_dir().then_some(target)
}

fn tablespaces(data_dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data_dir.join("pg_tblspc"))
        .into_iter()
        .flatten()
        .flatten();
    entries.filter_map(|entry| linked(&entry.path())).collect()
}

/// What this cluster's major version keeps in a tablespace: `PG_15_202209061`.
fn own_parts(data_dir: &Path, tablespace: &Path) -> Vec<PathBuf> {
    let Ok(version) = std::fs::read_to_string(data_dir.join("PG_VERSION")) else {
        return Vec::new();
    };
    let prefix = format!("PG_{}_", version.trim());
    let entries = std::fs::read_dir(tablespace)
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with(&prefix) && !name.ends_with(".failed")
        })
        .map(|entry| entry.path())
        .collect()
}

/// Removes what is in a directory. Links are removed, not followed.
fn empty(directory: &Path) -> Result<(), Error> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::file("read", directory)(source)),
    };
    for entry in entries {
        let entry = entry.map_err(Error::file("read", directory))?;
        let path = entry.path();
        if entry.file_name() == "lost+found" {
            continue;
        }
        let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if directory {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.map_err(Error::file("remove", path))?;
    }
    Ok(())
}

fn set_aside(path: &Path) -> Result<(), Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".failed");
    let aside = path.with_file_name(name);
    match std::fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::file("remove", aside)(error));
        }
        _ => {}
    }
    tracing::info!("renaming {} to {}", path.display(), aside.display());
    std::fs::rename(path, &aside).map_err(Error::file("rename", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    /// A data directory with linked WAL, a tablespace shared with another cluster, and a link elsewhere.
    fn cluster(root: &Path) -> Server {
        let data = root.join("data");
        for directory in [
            "data/pg_tblspc",
            "data/base/1",
            "data/lost+found",
            "wal",
            "space/PG_15_1/2",
            "space/PG_14_1",
            "other",
        ] {
            create_dir_all(root.join(directory)).unwrap();
        }
        write(data.join("PG_VERSION"), "15\n").unwrap();
        for file in [
            "data/base/1/2",
            "wal/1",
            "space/PG_15_1/2/3",
            "space/PG_14_1/keep",
            "other/keep",
        ] {
            write(root.join(file), "x").unwrap();
        }
        symlink(root.join("wal"), data.join("pg_wal")).unwrap();
        symlink(root.join("space"), data.join("pg_tblspc/16384")).unwrap();
        symlink(root.join("other"), data.join("log")).unwrap();
        Server::new(Settings::new("pg1", "batman", data))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[tokio::test]
    async fn a_wipe_takes_this_cluster_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        cluster(root.path())
            .wipe_data_directory(soon())
            .await
            .unwrap();
        for gone in [
            "data/base",
            "data/pg_wal",
            "data/PG_VERSION",
            "wal/1",
            "space/PG_15_1",
            "data/log",
        ] {
            assert!(!root.path().join(gone).exists(), "{gone}");
        }
        for kept in ["data/lost+found", "wal", "space/PG_14_1/keep", "other/keep"] {
            assert!(root.path().join(kept).exists(), "{kept}");
        }
    }

    #[tokio::test]
    async fn an_older_failed_directory_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let server = cluster(root.path());
        create_dir_all(root.path().join("data.failed/old")).unwrap();
        server.move_data_directory_aside(soon()).await.unwrap();
        assert!(!root.path().join("data").exists());
        assert!(!root.path().join("data.failed/old").exists());
        assert!(root.path().join("data.failed/base/1/2").exists());
        assert!(root.path().join("wal.failed/1").exists());
        assert!(root.path().join("space/PG_15_1.failed/2/3").exists());
        assert!(root.path().join("space/PG_14_1/keep").exists());
    }

    #[tokio::test]
    async fn the_root_directory_is_not_wiped() {
        let server = Server::new(Settings::new("pg1", "batman", "/"));
        assert!(server.wipe_data_directory(soon()).await.is_err());
    }
}
