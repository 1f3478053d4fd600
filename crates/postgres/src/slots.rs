//! Replication slots (`ha.md` §18). Policy, which slots there should be, is the caller's.

use primacy_model::Lsn;
use tokio::time::Instant;

use crate::session::literal;
use crate::{Error, Server};

/// SQLSTATE of a slot that is there already, is missing, is in use.
const DUPLICATE: &str = "42710";
const UNDEFINED: &str = "42704";
const IN_USE: &str = "55006";

/// Why a slot was not changed.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// Somebody uses it.
    #[error("replication slot {0} is active")]
    Active(String),
    /// There is none.
    #[error("replication slot {0} does not exist")]
    Missing(String),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] Error),
}

impl Server {
    /// Creates a physical slot that reserves WAL at once. `Ok(false)` when it exists already.
    pub async fn create_physical_slot(
        &self,
        name: &str,
        deadline: Instant,
    ) -> Result<bool, SlotError> {
        let sql = format!(
            "SELECT pg_catalog.pg_create_physical_replication_slot({}, true)",
            literal(name)
        );
        match self.query(&sql, deadline).await {
            Ok(_) => Ok(true),
            Err(Error::Refused { code, .. }) if code == DUPLICATE => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Drops a slot that nobody uses. `Ok(false)` when there is none.
    pub async fn drop_slot(&self, name: &str, deadline: Instant) -> Result<bool, SlotError> {
        let sql = format!(
            "SELECT pg_catalog.pg_drop_replication_slot({})",
            literal(name)
        );
        match self.query(&sql, deadline).await {
            Ok(_) => Ok(true),
            Err(Error::Refused { code, .. }) if code == UNDEFINED => Ok(false),
            Err(Error::Refused { code, .. }) if code == IN_USE => {
                Err(SlotError::Active(name.into()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Moves a slot forward, never back; returns where it ended. A logical slot is moved in a session of
    /// its own database without statement timeout, which may take long.
    pub async fn advance_slot(
        &self,
        name: &str,
        to: Lsn,
        deadline: Instant,
    ) -> Result<Lsn, SlotError> {
        let sql = format!(
            "SELECT slot_type, database, coalesce(confirmed_flush_lsn, restart_lsn) \
             FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
            literal(name)
        );
        let rows = self.query(&sql, deadline).await?;
        let row = rows
            .first()
            .ok_or_else(|| SlotError::Missing(name.into()))?;
        let current: Lsn = row
            .get(2)
            .and_then(|text| text.parse().ok())
            .unwrap_or_default();
        if current >= to {
            return Ok(current);
        }
        let sql = format!(
            "SELECT end_lsn FROM pg_catalog.pg_replication_slot_advance({}, '{to}')",
            literal(name)
        );
        let advanced = match row.get(1) {
            Some(database) => {
                let settings = self.settings();
                let target = settings.local_conninfo().with("dbname", database);
                let name = "Patroni slots";
                let connection = crate::session::Connection::open(
                    &target,
                    &settings.superuser,
                    name,
                    false,
                    deadline,
                );
                connection.await?.query(&sql, deadline).await
            }
            None => self.query(&sql, deadline).await,
        };
        match advanced {
            Ok(rows) => {
                let end = rows
                    .first()
                    .and_then(|row| row.get(0))
                    .and_then(|text| text.parse().ok());
                Ok(end.unwrap_or(current))
            }
            Err(Error::Refused { code, .. }) if code == UNDEFINED => {
                Err(SlotError::Missing(name.into()))
            }
            Err(Error::Refused { code, .. }) if code == IN_USE => {
                Err(SlotError::Active(name.into()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Creates a logical slot in a database of a primary. `Ok(false)` when a slot of the name exists.
    pub async fn create_logical_slot(
        &self,
        name: &str,
        database: &str,
        plugin: &str,
        deadline: Instant,
    ) -> Result<bool, SlotError> {
        let settings = self.settings();
        let target = settings.local_conninfo().with("dbname", database);
        let superuser = &settings.superuser;
        let connection =
            crate::session::Connection::open(&target, superuser, "Patroni slots", false, deadline)
                .await?;
        let sql = format!(
            "SELECT pg_catalog.pg_create_logical_replication_slot({}, {})",
            literal(name),
            literal(plugin)
        );
        match connection.query(&sql, deadline).await {
            Ok(_) => Ok(true),
            Err(Error::Refused { code, .. }) if code == DUPLICATE => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
