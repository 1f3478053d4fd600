//! Work on logical replication slots that may take long, beside the loop.

use std::time::Duration;

use primacy_ha::{Event, LogicalSlot, LogicalSlotChange, PrimarySlots, Source};
use primacy_postgres::{Error, Server, SlotError, SlotFile};
use tokio::time::Instant;

use crate::jobs::{chain, conninfo};

/// Creating a logical slot waits for the transactions that are open, moving one reads all WAL in between:
/// what ends it earlier is the end of the session. The limit only keeps the number of those bounded.
const WORK_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Creates and moves logical slots of a database, one after the other. Each is tried.
pub(crate) async fn change(
    server: &Server,
    database: String,
    changes: Vec<LogicalSlotChange>,
    connect_by: Instant,
) -> Event {
    let mut failed = None;
    let mut stuck = Vec::new();
    match server.logical_slot_session(&database, connect_by).await {
        Err(error) => failed = Some(chain(&error)),
        Ok(session) => {
            for change in changes {
                let deadline = Instant::now() + WORK_LIMIT;
                let result = match &change {
                    LogicalSlotChange::Create { name, plugin } => {
                        match session.create(name, plugin, deadline).await {
                            Ok(true) => {
                                tracing::info!("created logical replication slot {name}");
                                Ok(())
                            }
                            Ok(false) => Err(exists(name)),
                            Err(error) => Err(error),
                        }
                    }
                    LogicalSlotChange::Advance { name, to } => {
                        let moved = session.advance(name, *to, deadline).await;
                        if let Err(SlotError::WithoutWal { .. }) = moved {
                            stuck.push(name.clone());
                        }
                        moved
                    }
                };
                if let Err(error) = result {
                    failed.get_or_insert(chain(&error));
                }
            }
        }
    }
    Event::LogicalSlotsChanged {
        database,
        failed,
        stuck,
    }
}

/// The list of slots leaves temporary ones out.
pub(crate) fn exists(name: &str) -> SlotError {
    SlotError::Other(Error::NotPossible(format!(
        "a temporary replication slot of the name {name} exists; its session must end"
    )))
}

/// What the primary holds back for this standby.
pub(crate) async fn compare(
    server: &Server,
    source: &Source,
    physical: String,
    logical: Vec<String>,
    deadline: Instant,
) -> Event {
    let names: Vec<String> = std::iter::once(physical.clone()).chain(logical).collect();
    let primary = conninfo(&source.connection);
    let answer = server.slot_xmins(&primary, &names, deadline).await;
    Event::LogicalSlotsCompared(match answer {
        Err(error) => Err(chain(&error)),
        Ok(xmins) => {
            let mut slots = PrimarySlots::default();
            for slot in xmins {
                if slot.logical {
                    slots.logical.insert(slot.name, slot.catalog_xmin);
                } else if slot.name == physical {
                    slots.physical = slot.catalog_xmin;
                }
            }
            Ok(slots)
        }
    })
}

/// The files of these slots, from the primary; those that it does not have as they should be are left out.
pub(crate) async fn fetch(
    server: &Server,
    source: &Source,
    slots: &[LogicalSlot],
    deadline: Instant,
) -> Result<Vec<SlotFile>, Error> {
    let names: Vec<String> = slots.iter().map(|slot| slot.name.clone()).collect();
    let primary = conninfo(&source.connection);
    let files = server.read_slot_files(&primary, &names, deadline).await?;
    let mut useful = Vec::new();
    for file in files {
        let wanted = slots.iter().find(|slot| {
            slot.name == file.name && slot.database == file.database && slot.plugin == file.plugin
        });
        if let Some(slot) = wanted
            && (!slot.stuck || server.has_wal_from(file.restart_lsn, deadline).await?)
        {
            useful.push(file);
        }
    }
    let files = useful;
    if files.is_empty() {
        return Err(Error::NotPossible(format!(
            "none of these logical slots can be copied: {}; the {source} does not have them, or they need older WAL than \
             there is here until their consumers have read it",
            names.join(", ")
        )));
    }
    server.has_room_for_slots(&files, deadline).await?;
    Ok(files)
}
