//! Why a member does not start.

use std::path::PathBuf;

/// Why a member does not start.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// The configuration contradicts itself.
    #[error("raft configuration: {what}")]
    Config {
        /// What to set right.
        what: String,
    },
    /// The directory cannot be made or written.
    #[error("raft data_dir {path} cannot be written: make it a directory of the agent's user")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is locked.
    #[error(
        "another process has {path} open: is a second agent or witness running with this data_dir?"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by another release, or is none of ours.
    #[error(
        "{path} has format {found}, this release reads format {expected}: start the release that wrote it, or \
             move the file away to let the member join again with nothing"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What is read.
        expected: u64,
    },
    /// The file belongs to another member or another set of members.
    #[error(
        "{path} belongs to {found}, the configuration says {expected}: correct self_addr and partner_addrs, \
             or move the file away to let the member join with nothing"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// The file cannot be read or written.
    #[error("{path}: {reason}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the storage said.
        reason: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {addr} for the raft group")]
    Bind {
        /// The address.
        addr: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The consensus core did not start or has died.
    #[error("the raft core stopped: {reason}")]
    Core {
        /// Its words.
        reason: String,
    },
}
