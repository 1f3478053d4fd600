//! The files that are written for PostgreSQL (`configuration.md` §6).
use crate::follow::RecoveryTarget;
use crate::{Error, Server};
use tokio::time::Instant;

impl Server {
    /// Writes the configuration file, `pg_hba.conf` and `pg_ident.conf` from the settings, keeping the
    /// recovery settings of the target. Does not reload. Returns whether a file changed.
    pub async fn write_files(
        &self,
        target: Option<&RecoveryTarget>,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let _ = (target, deadline);
        todo!()
    }

    /// Copies the configuration files to their backups (`configuration.md` §6.4).
    pub async fn save_backups(&self, deadline: Instant) -> Result<(), Error> {
        let _ = deadline;
        todo!()
    }

    /// Restores missing configuration files from their backups; for after a clone.
    pub async fn restore_backups(&self, deadline: Instant) -> Result<(), Error> {
        let _ = deadline;
        todo!()
    }

    /// Removes the data directory's contents, its WAL directory's and its tablespaces' (of this
    /// cluster only). The directories themselves stay.
    ///
    /// Errors: [`Error::NotPossible`] while a postmaster runs.
    pub async fn wipe_data_directory(&self, deadline: Instant) -> Result<(), Error> {
        let _ = deadline;
        todo!()
    }

    /// Renames the data directory to `<dir>.failed`, replacing an older one.
    pub async fn move_data_directory_aside(&self, deadline: Instant) -> Result<(), Error> {
        let _ = deadline;
        todo!()
    }
}
