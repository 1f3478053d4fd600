use std::io;
use std::path::PathBuf;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long something may take, and who may end it earlier.
#[derive(Clone, Debug)]
pub struct Until {
    /// Monotonic.
    pub deadline: Instant,
    /// Cancelled: the work stops as soon as it can, and kills what it started.
    pub cancel: CancellationToken,
}

impl Until {
    /// A deadline that nobody cancels.
    pub fn deadline(deadline: Instant) -> Self {
        Until {
            deadline,
            cancel: CancellationToken::new(),
        }
    }
}

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Not there, or may not be run.
    #[error("cannot run {program}; is bin_dir or the command right?")]
    Spawn {
        /// Path or name.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Ended with something else than 0.
    #[error("{program} failed ({status}): {output}")]
    Failed {
        /// Path or name.
        program: PathBuf,
        /// `exit status: 1`, `signal: 9`.
        status: String,
        /// The last lines it printed.
        output: String,
    },
    /// Was killed at its deadline.
    #[error("{program} did not end in time and was killed")]
    Deadline {
        /// Path or name.
        program: PathBuf,
    },
    /// Was killed because somebody asked.
    #[error("{program} was cancelled")]
    Cancelled {
        /// Path or name.
        program: PathBuf,
    },
    /// The configured words are not shell words.
    #[error("cannot split the command {0:?} into words")]
    Words(String),
}
