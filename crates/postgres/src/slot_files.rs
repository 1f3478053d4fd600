//! Logical slots of a primary, brought to a standby as files (`ha.md` §18.6). PostgreSQL before 17 knows no
//! other way to have one there.
//!
//! The hazard: PostgreSQL reads these files when it starts and does not start at all when there are more than
//! `max_replication_slots`, or a logical one while `wal_level` is lower. Both are looked at before anything
//! is written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use primacy_model::Lsn;
use tokio::time::Instant;

use crate::conninfo::Conninfo;
use crate::session::literal;
use crate::wal::segment_name;
use crate::{Error, Server, files};

/// A slot's state is a few hundred bytes.
const STATE_MAX: usize = 1_000_000;

/// A logical slot as the primary has it on its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotFile {
    /// Its name.
    pub name: String,
    /// Database that it decodes.
    pub database: String,
    /// Output plugin.
    pub plugin: String,
    /// The oldest WAL that it needs.
    pub restart_lsn: Lsn,
    state: Vec<u8>,
}

/// What a slot holds back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotXmin {
    /// Its name.
    pub name: String,
    /// It is a logical one.
    pub logical: bool,
    /// `catalog_xmin`.
    pub catalog_xmin: Option<u64>,
}

impl Server {
    /// Reads logical slots from a primary, as the rewind user. Those that do not exist, and those that PostgreSQL
    /// brings to standbys itself (17 and later), are left out.
    pub async fn read_slot_files(
        &self,
        primary: &Conninfo,
        names: &[String],
        deadline: Instant,
    ) -> Result<Vec<SlotFile>, Error> {
        let (_, connection) = self.find_primary(primary, deadline).await?;
        let version = connection
            .value("SHOW server_version_num", deadline)
            .await?
            .and_then(|text| text.parse::<u32>().ok());
        let copied = match version {
            Some(version) if version >= 170_000 => "NOT failover",
            _ => "true",
        };
        let sql = format!(
            "SELECT slot_name, database, plugin, restart_lsn, pg_catalog.encode(pg_catalog.pg_read_binary_file(\
             'pg_replslot/' || slot_name || '/state', 0, {STATE_MAX}, true), 'hex') \
             FROM pg_catalog.pg_replication_slots \
             WHERE slot_type = 'logical' AND NOT temporary AND {copied} AND NOT pg_catalog.pg_is_in_recovery() \
             AND slot_name IN ({})",
            list(names)
        );
        let rows = connection.query(&sql, deadline).await?;
        Ok(rows
            .iter()
            .filter_map(|row| {
                Some(SlotFile {
                    name: row.get(0)?.to_owned(),
                    database: row.get(1)?.to_owned(),
                    plugin: row.get(2)?.to_owned(),
                    restart_lsn: row.get(3)?.parse().ok()?,
                    state: from_hex(row.get(4)?).filter(|state| !state.is_empty())?,
                })
            })
            .collect())
    }

    /// What slots of a primary hold back, as the rewind user. Slots that do not exist are left out.
    pub async fn slot_xmins(
        &self,
        primary: &Conninfo,
        names: &[String],
        deadline: Instant,
    ) -> Result<Vec<SlotXmin>, Error> {
        let (_, connection) = self.find_primary(primary, deadline).await?;
        let sql = format!(
            "SELECT slot_name, slot_type, catalog_xmin FROM pg_catalog.pg_replication_slots \
             WHERE NOT pg_catalog.pg_is_in_recovery() AND slot_name IN ({})",
            list(names)
        );
        let rows = connection.query(&sql, deadline).await?;
        let xmin = |row: &tokio_postgres::SimpleQueryRow| {
            Some(SlotXmin {
                name: row.get(0)?.to_owned(),
                logical: row.get(1)? == "logical",
                catalog_xmin: row.get(2).and_then(|text| text.parse().ok()),
            })
        };
        Ok(rows.iter().filter_map(xmin).collect())
    }

    /// Whether this server has all WAL from there on.
    pub async fn has_wal_from(&self, lsn: Lsn, deadline: Instant) -> Result<bool, Error> {
        let sql = "SELECT pg_catalog.min(pg_catalog.right(name, 16)), \
                   (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size') \
                   FROM pg_catalog.pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'";
        let rows = self.query(sql, deadline).await?;
        let row = rows.first();
        let oldest = row.and_then(|row| row.get(0)).unwrap_or_default();
        let size = row.and_then(|row| row.get(1)?.parse().ok()).unwrap_or(0);
        Ok(!oldest.is_empty() && size > 0 && oldest <= segment_name(lsn, size).as_str())
    }

    /// Whether the server would start with these slots; the error says why not.
    pub async fn has_room_for_slots(
        &self,
        slots: &[SlotFile],
        deadline: Instant,
    ) -> Result<(), Error> {
        let settings = self.settings();
        let given = |name: &str| {
            let mut arguments = settings.command_line.iter();
            arguments
                .find(|(argument, _)| argument == name)
                .map(|(_, value)| value.clone())
        };
        let wal_level = given("wal_level").unwrap_or_default();
        if wal_level != "logical" {
            return Err(Error::NotPossible(format!(
                "logical slots cannot be copied: wal_level is {wal_level}; set it to logical in the dynamic configuration"
            )));
        }
        let allowed: usize = given("max_replication_slots")
            .and_then(|text| text.parse().ok())
            .unwrap_or_default();
        let directory = settings.data_dir.join("pg_replslot");
        let names: Vec<String> = slots.iter().map(|slot| slot.name.clone()).collect();
        let others = self
            .disk("counting replication slots", deadline, move || {
                count_others(&directory, &names).map_err(Error::file("read", &directory))
            })
            .await?;
        if others + slots.len() > allowed {
            return Err(Error::NotPossible(format!(
                "logical slots cannot be copied: there are {others} others, and max_replication_slots is {allowed}; \
                 raise it in the dynamic configuration"
            )));
        }
        Ok(())
    }

    /// Puts slots in place in the data directory of a stopped server, durably; one of the same name gives way.
    pub async fn write_slot_files(
        &self,
        slots: Vec<SlotFile>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let data_dir = self.settings().data_dir.clone();
        self.disk("writing replication slots", deadline, move || {
            let directory = data_dir.join("pg_replslot");
            let mode = files::data_file_mode(&data_dir);
            for slot in &slots {
                write_slot(&directory, slot, mode)
                    .map_err(Error::file("write", directory.join(&slot.name)))?;
            }
            File::open(&directory)
                .and_then(|directory| directory.sync_all())
                .map_err(Error::file("write", &directory))
        })
        .await
    }
}

fn list(names: &[String]) -> String {
    let literals: Vec<String> = names.iter().map(|name| literal(name)).collect();
    literals.join(", ")
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

fn count_others(directory: &Path, names: &[String]) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // PostgreSQL removes these when it starts.
        let leftover = name.ends_with(".tmp");
        count += usize::from(!leftover && !names.contains(&name));
    }
    Ok(count)
}

/// Made aside under a name that PostgreSQL takes for a leftover, then renamed.
fn write_slot(directory: &Path, slot: &SlotFile, mode: u32) -> io::Result<()> {
    let place = directory.join(&slot.name);
    let aside = directory.join(format!("{}.tmp", slot.name));
    for old in [&aside, &place] {
        match fs::remove_dir_all(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let directory_mode = if mode == 0o640 { 0o750 } else { 0o700 };
    DirBuilder::new().mode(directory_mode).create(&aside)?;
    let mut state = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(aside.join("state"))?;
    state.write_all(&slot.state)?;
    state.sync_all()?;
    File::open(&aside)?.sync_all()?;
    fs::rename(&aside, &place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal() {
        assert_eq!(from_hex("a01c1f05"), Some(vec![0xa0, 0x1c, 0x1f, 0x05]));
        assert_eq!(from_hex(""), Some(vec![]));
        assert_eq!(from_hex("0"), Some(vec![0]));
        assert_eq!(from_hex("xy"), None);
    }

    #[test]
    fn segments_by_name() {
        for (lsn, size, name) in [
            (0x0000_0000_0500_0000, 16 << 20, "0000000000000005"),
            (0x0000_0001_ff00_0028, 16 << 20, "00000001000000FF"),
            (0x0000_0001_ff00_0028, 1 << 30, "0000000100000003"),
        ] {
            assert_eq!(segment_name(Lsn(lsn), size), name);
        }
    }

    #[test]
    fn a_slot_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let slot = |state: &[u8]| SlotFile {
            name: "logical".into(),
            database: "postgres".into(),
            plugin: "pgoutput".into(),
            restart_lsn: Lsn(1),
            state: state.into(),
        };
        fs::create_dir(directory.path().join("logical.tmp")).unwrap();
        fs::create_dir(directory.path().join("other")).unwrap();
        for state in [b"one", b"two"] {
            write_slot(directory.path(), &slot(state), 0o600).unwrap();
            let written = fs::read(directory.path().join("logical/state")).unwrap();
            assert_eq!(written, state);
        }
        assert!(!directory.path().join("logical.tmp").exists());
        let count = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            count_others(directory.path(), &names).unwrap()
        };
        assert_eq!((count(&[]), count(&["logical"])), (2, 1));
    }
}
