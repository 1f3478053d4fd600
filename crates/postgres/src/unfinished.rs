//! The markers beside a data directory that something is being done to which must come to its end. They cannot be inside:
//! initdb wants an empty directory, and pg_rewind removes what its source has not.

use std::path::{Path, PathBuf};

use tokio::time::Instant;

use crate::{Error, Server, files};

/// What was begun and not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfinished {
    /// A new cluster was being made (`ha.md` W11): what is in the directory is no cluster of anybody.
    Bootstrap,
    /// pg_rewind was writing: its documentation says of what it leaves then that it cannot be recovered.
    Rewind,
}

impl Unfinished {
    /// Whether it is marked.
    pub(crate) fn is_marked(self, data_dir: &Path) -> bool {
        self.marker(data_dir).exists()
    }

    /// `/var/lib/postgresql/15/main.bootstrap`
    pub(crate) fn marker(self, data_dir: &Path) -> PathBuf {
        let mut name = data_dir.as_os_str().to_owned();
        name.push(match self {
            Unfinished::Bootstrap => ".bootstrap",
            Unfinished::Rewind => ".rewind",
        });
        PathBuf::from(name)
    }

    /// Marks the data directory, durably.
    fn mark(self, data_dir: &Path) -> Result<(), Error> {
        let marker = self.marker(data_dir);
        let write = || -> std::io::Result<()> {
            if let Some(parent) = marker.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(&marker, self.text())?;
            std::fs::File::open(&marker)?.sync_all()?;
            match marker.parent() {
                Some(parent) => std::fs::File::open(parent)?.sync_all(),
                None => Ok(()),
            }
        };
        write().map_err(Error::file("write", &marker))
    }

    fn text(self) -> &'static str {
        match self {
            Unfinished::Bootstrap => {
                "A new cluster was being made in the directory beside this file. The agent removes it.\n"
            }
            Unfinished::Rewind => {
                "pg_rewind was writing in the directory beside this file. If it is still here though no pg_rewind runs, the data \
                 there cannot be recovered: reinitialize this member. The agent removes this file then. Who has replaced the \
                 data by hand removes it by hand.\n"
            }
        }
    }

    /// Removes the marker.
    pub(crate) fn unmark(self, data_dir: &Path) -> Result<(), Error> {
        files::remove(&self.marker(data_dir))
    }
}

impl Server {
    /// Marks the data directory, durably, before anything is put there.
    pub async fn mark_bootstrap_begun(&self, deadline: Instant) -> Result<(), Error> {
        self.mark_begun(Unfinished::Bootstrap, deadline).await
    }

    /// Removes the marker.
    pub async fn mark_bootstrap_finished(&self, deadline: Instant) -> Result<(), Error> {
        self.mark_finished(Unfinished::Bootstrap, deadline).await
    }

    pub(crate) async fn mark_begun(&self, what: Unfinished, by: Instant) -> Result<(), Error> {
        let data_dir = self.settings().data_dir.clone();
        self.disk("marking what is begun", by, move || what.mark(&data_dir))
            .await
    }

    pub(crate) async fn mark_finished(&self, what: Unfinished, by: Instant) -> Result<(), Error> {
        let data_dir = self.settings().data_dir.clone();
        self.disk("removing a marker", by, move || what.unmark(&data_dir))
            .await
    }
}
