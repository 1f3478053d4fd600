//! The marker in a data directory whose server was asked to promote. Nothing that PostgreSQL shows tells a standby that is
//! being promoted from one that is not, and a promotion may outlive the agent that asked for it. It names the postmaster:
//! for another one, after a restart or in a copy of the directory, it means nothing.

use std::path::{Path, PathBuf};

use primacy_model::PostmasterIdentity;
use tokio::time::Instant;

use crate::{Error, Server, files};

/// Whether this postmaster was asked to promote, as far as the marker says.
pub(crate) fn is_marked(data_dir: &Path, postmaster: PostmasterIdentity) -> bool {
    std::fs::read_to_string(marker(data_dir)).is_ok_and(|present| present == text(postmaster))
}

fn marker(data_dir: &Path) -> PathBuf {
    data_dir.join("primacy.promoting")
}

fn text(postmaster: PostmasterIdentity) -> String {
    format!(
        "The agent asked the postmaster with process id {}, started {} clock ticks after the machine, to promote. It removes \
         this file once that is a primary.\n",
        postmaster.pid, postmaster.start_ticks
    )
}

impl Server {
    /// Keeps in mind, beyond the agent's end, that the server is asked to promote. Not beyond the machine's, so nothing
    /// waits for the disk.
    pub(crate) async fn mark_promoting(&self, deadline: Instant) -> Result<(), Error> {
        let postmaster = self.running(deadline).await?;
        let data_dir = self.settings().data_dir.clone();
        self.disk("marking the promotion", deadline, move || {
            let marker = marker(&data_dir);
            std::fs::write(&marker, text(postmaster)).map_err(Error::file("write", &marker))
        })
        .await
    }

    /// Removes the marker.
    pub(crate) async fn unmark_promoting(&self, deadline: Instant) -> Result<(), Error> {
        let marker = marker(&self.settings().data_dir);
        self.disk("removing the marker of a promotion", deadline, move || {
            files::remove(&marker)
        })
        .await
    }
}
