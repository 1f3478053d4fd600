use tokio::time::Instant;

use crate::{Error, Server};

/// The oldest PostgreSQL that is managed.
pub const MIN_MAJOR: u32 = 12;
/// The newest PostgreSQL that is managed.
pub const MAX_MAJOR: u32 = 18;

impl Server {
    /// Major version of the installed binaries (`postgres --version`).
    ///
    /// Errors: [`Error::UnsupportedVersion`], or the binary is missing.
    pub async fn binaries_version(&self, deadline: Instant) -> Result<u32, Error> {
        let _ = deadline;
        todo!()
    }

    /// What would keep this process from managing the server: missing binaries, an unsupported version,
    /// running as root, no permission on the data directory. For the agent's start-up.
    pub async fn check(&self, deadline: Instant) -> Result<u32, Error> {
        let _ = deadline;
        todo!()
    }
}
