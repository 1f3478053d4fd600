//! The marker beside a data directory in which a new cluster is being made (`ha.md` W11). It cannot be inside: initdb
//! wants an empty directory. Whoever finds it knows that what is in the directory is no cluster of anybody.

use std::path::{Path, PathBuf};

use tokio::time::Instant;

use crate::{Error, Server, files};

const TEXT: &str =
    "A new cluster was being made in the directory beside this file. The agent removes it.\n";

/// Whether the directory's cluster was begun and not finished.
pub(crate) fn is_marked(data_dir: &Path) -> bool {
    marker(data_dir).exists()
}

/// `/var/lib/postgresql/15/main.bootstrap`
fn marker(data_dir: &Path) -> PathBuf {
    let mut name = data_dir.as_os_str().to_owned();
    name.push(".bootstrap");
    PathBuf::from(name)
}

impl Server {
    /// Marks the data directory, durably, before anything is put there.
    pub async fn mark_bootstrap_begun(&self, deadline: Instant) -> Result<(), Error> {
        let marker = marker(&self.settings().data_dir);
        self.disk("marking the bootstrap", deadline, move || {
            let write = || -> std::io::Result<()> {
                if let Some(parent) = marker.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                std::fs::write(&marker, TEXT)?;
                std::fs::File::open(&marker)?.sync_all()?;
                match marker.parent() {
                    Some(parent) => std::fs::File::open(parent)?.sync_all(),
                    None => Ok(()),
                }
            };
            write().map_err(Error::file("write", &marker))
        })
        .await
    }

    /// Removes the marker.
    pub async fn mark_bootstrap_finished(&self, deadline: Instant) -> Result<(), Error> {
        let marker = marker(&self.settings().data_dir);
        self.disk(
            "removing the marker of the bootstrap",
            deadline,
            move || files::remove(&marker),
        )
        .await
    }
}
