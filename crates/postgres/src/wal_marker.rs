//! The markers in a data directory that tell of its WAL what nothing of PostgreSQL's does. They are inside, since they belong
//! to the WAL: a copy of the directory has them, what takes the directory's place has not, and pg_rewind removes them.

use std::path::{Path, PathBuf};

use tokio::time::Instant;

use crate::{Error, Server, files};

/// What an agent knew of the WAL in a data directory, and the next one must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalMarker {
    /// It was found to have left its leader's.
    Diverged,
    /// It is that of a primary which was started as a standby, and was not compared with a later primary's.
    FormerPrimary,
}

impl WalMarker {
    pub(crate) fn is_set(self, data_dir: &Path) -> bool {
        self.file(data_dir).exists()
    }

    /// Durably, for agents after this one.
    pub(crate) fn set(self, data_dir: &Path) -> Result<(), Error> {
        let text = match self {
            WalMarker::Diverged => {
                "The WAL here left that of the cluster's leader. The agent removes this file once it is found not to, or was \
                 rewound; until then this member is no candidate for a failover.\n"
            }
            WalMarker::FormerPrimary => {
                "The server here was a primary before it was a standby, and its WAL was not compared with that of a later \
                 primary since. The agent removes this file once it is, or streams from one.\n"
            }
        };
        let mode = files::data_file_mode(data_dir);
        files::write_if_changed(&self.file(data_dir), text, mode).map(drop)
    }

    fn file(self, data_dir: &Path) -> PathBuf {
        data_dir.join(match self {
            WalMarker::Diverged => "primacy.diverged",
            WalMarker::FormerPrimary => "primacy.former_primary",
        })
    }
}

impl Server {
    /// Keeps in mind, durably and beyond the agent's end, what holds of the WAL here.
    pub async fn mark_wal(&self, marker: WalMarker, deadline: Instant) -> Result<(), Error> {
        let data_dir = self.settings().data_dir.clone();
        self.disk("writing a marker of the WAL", deadline, move || {
            marker.set(&data_dir)
        })
        .await
    }

    /// Removes the marker.
    pub async fn unmark_wal(&self, marker: WalMarker, deadline: Instant) -> Result<(), Error> {
        let file = marker.file(&self.settings().data_dir);
        self.disk("removing a marker of the WAL", deadline, move || {
            files::remove(&file)
        })
        .await
    }
}
