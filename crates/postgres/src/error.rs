use std::io;
use std::path::PathBuf;

use crate::command::CommandError;

/// Why an operation on the server failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The binaries or the data directory are of a version that is not managed.
    #[error(
        "PostgreSQL {found} in {place} is not supported; Primacy manages {} to {}",
        crate::MIN_MAJOR,
        crate::MAX_MAJOR
    )]
    UnsupportedVersion {
        /// As it calls itself.
        found: String,
        /// Binary or data directory.
        place: PathBuf,
    },
    /// A command could not be run, or failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file could not be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried: `read`, `write`, `remove`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{path}: {problem}")]
    BadFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// PostgreSQL refuses to run as root, and so does the agent.
    #[error("PostgreSQL does not run as root; start the agent as the user who owns {data_dir}")]
    RunningAsRoot {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// No connection, or it broke. What was asked may have been done.
    #[error("cannot talk to PostgreSQL at {address}: {problem}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        problem: String,
    },
    /// No answer came in time, to a new connection or to a query. What was asked may have been done.
    #[error("PostgreSQL at {address} did not answer in time")]
    NoAnswer {
        /// Where.
        address: String,
    },
    /// The server refused a statement.
    #[error("PostgreSQL at {address} refused: {problem}")]
    Refused {
        /// Where.
        address: String,
        /// SQLSTATE.
        code: String,
        /// Its message.
        problem: String,
    },
    /// The deadline passed. What was asked may still be happening.
    #[error("{what} did not end in time")]
    Deadline {
        /// What was waited for.
        what: String,
    },
    /// Asked to stop.
    #[error("{what} was cancelled")]
    Cancelled {
        /// What was stopped.
        what: String,
    },
    /// The process ended while it was waited for.
    #[error("PostgreSQL exited: {detail}")]
    Exited {
        /// Last lines of its log.
        detail: String,
    },
    /// The state of the server or its files does not allow the operation.
    #[error("{0}")]
    NotPossible(String),
    /// A part of the configuration cannot be used.
    #[error("{0}")]
    Configuration(String),
}

impl Error {
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::File {
            action,
            path,
            source,
        }
    }

    pub(crate) fn deadline(what: impl Into<String>) -> Self {
        Error::Deadline { what: what.into() }
    }
}
