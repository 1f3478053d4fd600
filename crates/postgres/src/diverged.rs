//! The marker in a data directory whose WAL was found to have left its leader's. It is inside, since it belongs to the WAL:
//! a copy of the directory has it, what takes the directory's place has not, and pg_rewind removes it.

use std::path::{Path, PathBuf};

use tokio::time::Instant;

use crate::{Error, Server, files};

const TEXT: &str = "The WAL here left that of the cluster's leader. The agent removes this file once it is found not to, or was \
     rewound; until then this member is no candidate for a failover.\n";

/// Whether the marker is there.
pub(crate) fn is_marked(data_dir: &Path) -> bool {
    marker(data_dir).exists()
}

fn marker(data_dir: &Path) -> PathBuf {
    data_dir.join("primacy.diverged")
}

impl Server {
    /// Keeps in mind, durably and beyond the agent's end, that the WAL here left its leader's.
    pub async fn mark_diverged(&self, deadline: Instant) -> Result<(), Error> {
        let data_dir = self.settings().data_dir.clone();
        self.disk("marking diverged WAL", deadline, move || {
            files::write_if_changed(&marker(&data_dir), TEXT, files::data_file_mode(&data_dir))
                .map(drop)
        })
        .await
    }

    /// Removes the marker.
    pub async fn unmark_diverged(&self, deadline: Instant) -> Result<(), Error> {
        let marker = marker(&self.settings().data_dir);
        self.disk("removing the marker of diverged WAL", deadline, move || {
            files::remove(&marker)
        })
        .await
    }
}
