//! Replication slots (`ha.md` §18). Policy, which slots there should be, is the caller's.

use primacy_model::Lsn;
use tokio::time::Instant;
use tokio_postgres::SimpleQueryRow;

use crate::session::{Connection, literal};
use crate::{Error, Server};

/// SQLSTATE of a slot that is there already, is missing, is in use.
const DUPLICATE: &str = "42710";
const UNDEFINED: &str = "42704";
const IN_USE: &str = "55006";
/// A WAL file is missing; the slot was invalidated.
const NO_WAL: &str = "58P01";
const NOT_USABLE: &str = "55000";

/// Why a slot was not changed.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// Somebody uses it.
    #[error("replication slot {0} is active")]
    Active(String),
    /// There is none.
    #[error("replication slot {0} does not exist")]
    Missing(String),
    /// WAL from its position on is not here, or it was invalidated: it never moves again.
    #[error("replication slot {name} cannot be moved, what it needs is gone")]
    WithoutWal {
        /// Its name.
        name: String,
        /// What the server said.
        #[source]
        source: Error,
    },
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

    /// Moves a physical slot forward, never back; returns where it ended.
    pub async fn advance_slot(
        &self,
        name: &str,
        to: Lsn,
        deadline: Instant,
    ) -> Result<Lsn, SlotError> {
        let sql = format!(
            "SELECT restart_lsn FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
            literal(name)
        );
        let rows = self.query(&sql, deadline).await?;
        let row = rows
            .first()
            .ok_or_else(|| SlotError::Missing(name.into()))?;
        let current: Lsn = row
            .get(0)
            .and_then(|text| text.parse().ok())
            .unwrap_or_default();
        if current >= to {
            return Ok(current);
        }
        match self.query(&advance(name, to), deadline).await {
            Ok(rows) => Ok(first_lsn(&rows).unwrap_or(current)),
            Err(error) => Err(because(name, error)),
        }
    }

    /// A session in that database for work on its logical slots, without statement timeout: they may take
    /// as long as a transaction, or as reading all WAL that a slot keeps.
    pub async fn logical_slot_session(
        &self,
        database: &str,
        deadline: Instant,
    ) -> Result<LogicalSlotSession, Error> {
        let settings = self.settings();
        let target = settings.local_conninfo().with("dbname", database);
        let superuser = &settings.superuser;
        let connection =
            Connection::open(&target, superuser, "Patroni slots", false, deadline).await?;
        Ok(LogicalSlotSession { connection })
    }
}

/// See [`Server::logical_slot_session`]. What it has begun goes on in the server when it is dropped.
pub struct LogicalSlotSession {
    connection: Connection,
}

impl LogicalSlotSession {
    /// Creates a slot on a primary. `Ok(false)` when one of the name exists.
    pub async fn create(
        &self,
        name: &str,
        plugin: &str,
        deadline: Instant,
    ) -> Result<bool, SlotError> {
        let sql = format!(
            "SELECT pg_catalog.pg_create_logical_replication_slot({}, {})",
            literal(name),
            literal(plugin)
        );
        match self.connection.query(&sql, deadline).await {
            Ok(_) => Ok(true),
            Err(Error::Refused { code, .. }) if code == DUPLICATE => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves a slot forward.
    pub async fn advance(&self, name: &str, to: Lsn, deadline: Instant) -> Result<(), SlotError> {
        let moved = self.connection.query(&advance(name, to), deadline).await;
        moved.map(drop).map_err(|error| because(name, error))
    }
}

fn advance(name: &str, to: Lsn) -> String {
    format!(
        "SELECT end_lsn FROM pg_catalog.pg_replication_slot_advance({}, '{to}')",
        literal(name)
    )
}

fn first_lsn(rows: &[SimpleQueryRow]) -> Option<Lsn> {
    rows.first()?.get(0)?.parse().ok()
}

/// What the refusal to move a slot means.
fn because(name: &str, error: Error) -> SlotError {
    let Error::Refused { code, .. } = &error else {
        return error.into();
    };
    match code.as_str() {
        UNDEFINED => SlotError::Missing(name.into()),
        IN_USE => SlotError::Active(name.into()),
        NO_WAL | NOT_USABLE => SlotError::WithoutWal {
            name: name.into(),
            source: error,
        },
        _ => error.into(),
    }
}
