//! The member's one file: its vote, the log, the snapshot. Every write is on the disk when it returns.

use std::fs::{self, File, OpenOptions};
use std::ops::RangeBounds;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::RaftError;
use crate::machine::State;
use crate::types::{LogId, SnapshotMeta, Vote};

/// Raised when an older release could not read what is written.
const FORMAT: u64 = 1;
const MAGIC: &str = "primacy-raft";

/// The store is some hundred kilobytes; the default cache of a gigabyte is not for us.
const CACHE_BYTES: usize = 2 << 20;

/// Beyond this size the file is compacted when it is opened: ten times what a snapshot and a full log of
/// ordinary entries take.
const COMPACT_BYTES: u64 = 16 << 20;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

/// The open file.
pub(crate) struct Disk {
    path: PathBuf,
    /// `None` once closed: whoever still holds the disk after a shutdown gets errors, and the lock is free.
    db: RwLock<Option<Database>>,
}

/// What a failed access says; becomes an error of the consensus library or of the start.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub(crate) struct DiskError {
    path: PathBuf,
    reason: String,
}

/// What a member has promised and what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    pub(crate) vote: Option<Vote>,
    pub(crate) last_log: Option<LogId>,
    /// Set while a member that lost its file has not caught up with what the group may have counted on it
    /// for: it must not vote until it has applied this.
    pub(crate) recovering: Option<LogId>,
}

impl Standing {
    /// Nothing was ever promised with this file.
    pub(crate) fn is_fresh(&self) -> bool {
        self.vote.is_none() && self.last_log.is_none()
    }

    /// It has seen the group at work: more than the first entry, which every member writes by itself.
    pub(crate) fn is_founded(&self) -> bool {
        self.last_log.is_some_and(|log| log.index > 0)
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    magic: String,
    format: u64,
    member: String,
    members: Vec<String>,
}

/// A snapshot as it is stored.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredSnapshot {
    pub(crate) meta: SnapshotMeta,
    pub(crate) state: State,
}

impl Disk {
    /// Opens the file of this member, or makes it.
    pub(crate) fn open(dir: &Path, member: &str, members: &[String]) -> Result<Disk, RaftError> {
        let path = dir.join(file_name(member));
        make_file(dir, &path).map_err(|source| RaftError::DataDir {
            path: dir.to_owned(),
            source,
        })?;
        let mut db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(&path)
            .map_err(|error| open_error(&path, error))?;
        if fs::metadata(&path).is_ok_and(|file| file.len() > COMPACT_BYTES)
            && let Err(error) = db.compact()
        {
            tracing::warn!("raft: {} was not compacted: {error}", path.display());
        }
        let disk = Disk {
            path,
            db: RwLock::new(Some(db)),
        };
        disk.check_header(member, members)?;
        Ok(disk)
    }

    /// Releases the file.
    pub(crate) fn close(&self) {
        self.db
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn check_header(&self, member: &str, members: &[String]) -> Result<(), RaftError> {
        let disk_error = |error: DiskError| RaftError::Disk {
            path: error.path,
            reason: error.reason,
        };
        match self.get::<Header>("header").map_err(disk_error)? {
            None => {
                let header = Header {
                    magic: MAGIC.into(),
                    format: FORMAT,
                    member: member.into(),
                    members: members.into(),
                };
                self.write(|txn| {
                    put(txn, "header", &header)?;
                    txn.open_table(LOG)?;
                    Ok(())
                })
                .map_err(disk_error)
            }
            Some(header) if header.magic != MAGIC || header.format != FORMAT => {
                Err(RaftError::Format {
                    path: self.path.clone(),
                    found: format!("{} {}", header.magic, header.format),
                    expected: FORMAT,
                })
            }
            Some(header) if header.member != member || header.members != members => {
                Err(RaftError::Foreign {
                    path: self.path.clone(),
                    found: format!("member {} of {}", header.member, header.members.join(", ")),
                    expected: format!("member {member} of {}", members.join(", ")),
                })
            }
            Some(_) => Ok(()),
        }
    }

    pub(crate) fn standing(&self) -> Result<Standing, DiskError> {
        Ok(Standing {
            vote: self.vote()?,
            last_log: self.last_log()?,
            recovering: self.get::<Option<LogId>>("recovering")?.flatten(),
        })
    }

    /// A member that lost its file takes over what the others know to have been promised, in one stroke.
    pub(crate) fn adopt(
        &self,
        vote: Option<Vote>,
        recovering: Option<LogId>,
    ) -> Result<(), DiskError> {
        self.write(|txn| {
            if let Some(vote) = vote {
                put(txn, "vote", &vote)?;
            }
            put(txn, "recovering", &recovering)
        })
    }

    /// It has caught up.
    pub(crate) fn recovered(&self) -> Result<(), DiskError> {
        self.write(|txn| put(txn, "recovering", &None::<LogId>))
    }

    pub(crate) fn vote(&self) -> Result<Option<Vote>, DiskError> {
        self.get("vote")
    }

    pub(crate) fn save_vote(&self, vote: &Vote) -> Result<(), DiskError> {
        self.write(|txn| put(txn, "vote", vote))
    }

    pub(crate) fn purged(&self) -> Result<Option<LogId>, DiskError> {
        self.get("purged")
    }

    /// The last entry, or the last one purged when there is none.
    pub(crate) fn last_log(&self) -> Result<Option<LogId>, DiskError> {
        let last = self.read(|txn| {
            let log = txn.open_table(LOG)?;
            let last = log.last()?;
            last.map(|(_, bytes)| decode::<EntryHead>(bytes.value()))
                .transpose()
        })?;
        Ok(match last {
            Some(head) => Some(head.log_id),
            None => self.purged()?,
        })
    }

    pub(crate) fn entries<T: DeserializeOwned>(
        &self,
        range: impl RangeBounds<u64>,
    ) -> Result<Vec<T>, DiskError> {
        self.read(|txn| {
            let log = txn.open_table(LOG)?;
            let range = (range.start_bound().cloned(), range.end_bound().cloned());
            log.range::<u64>(range)?
                .map(|row| decode(row?.1.value()))
                .collect()
        })
    }

    pub(crate) fn append(&self, entries: &[(u64, Vec<u8>)]) -> Result<(), DiskError> {
        self.write(|txn| {
            let mut log = txn.open_table(LOG)?;
            for (index, entry) in entries {
                log.insert(index, entry.as_slice())?;
            }
            Ok(())
        })
    }

    /// Removes everything from this index on.
    pub(crate) fn truncate(&self, from: u64) -> Result<(), DiskError> {
        self.write(|txn| Ok(txn.open_table(LOG)?.retain_in(from.., |_, _| false)?))
    }

    /// Removes everything up to this entry.
    pub(crate) fn purge(&self, upto: &LogId) -> Result<(), DiskError> {
        self.write(|txn| {
            txn.open_table(LOG)?
                .retain_in(..=upto.index, |_, _| false)?;
            put(txn, "purged", upto)
        })
    }

    pub(crate) fn snapshot(&self) -> Result<Option<StoredSnapshot>, DiskError> {
        self.get("snapshot")
    }

    pub(crate) fn save_snapshot(&self, snapshot: &StoredSnapshot) -> Result<(), DiskError> {
        self.write(|txn| put(txn, "snapshot", snapshot))
    }

    /// The name of the group that this member belongs to, once it is known.
    pub(crate) fn group(&self) -> Result<Option<String>, DiskError> {
        self.get("group")
    }

    pub(crate) fn save_group(&self, group: &str) -> Result<(), DiskError> {
        self.write(|txn| put(txn, "group", &group))
    }

    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, DiskError> {
        self.read(|txn| match txn.open_table(META) {
            Ok(meta) => meta
                .get(key)?
                .map(|bytes| decode(bytes.value()))
                .transpose(),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        })
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&redb::ReadTransaction) -> Result<T, Failure>,
    ) -> Result<T, DiskError> {
        self.with(|db| work(&db.begin_read()?))
    }

    /// One durable transaction.
    fn write<T>(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, DiskError> {
        self.with(|db| {
            let txn = db.begin_write()?;
            let done = work(&txn)?;
            txn.commit()?;
            Ok(done)
        })
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, DiskError> {
        let guard = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let result = guard
            .as_ref()
            .ok_or_else(|| Failure::from("the file is closed"))
            .and_then(work);
        result.map_err(|reason| DiskError {
            path: self.path.clone(),
            reason: reason.to_string(),
        })
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The part of an entry that says which it is.
#[derive(Deserialize)]
struct EntryHead {
    log_id: LogId,
}

fn put(txn: &redb::WriteTransaction, key: &str, value: &impl Serialize) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(value)?;
    txn.open_table(META)?.insert(key, bytes.as_slice())?;
    Ok(())
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    Ok(serde_json::from_slice(bytes)?)
}

/// `10.0.0.1_5010.raft`: several members may share a directory, and an address names at most one file.
fn file_name(member: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' || c == '-' {
            c
        } else {
            '_'
        }
    };
    format!("{}.raft", member.chars().map(plain).collect::<String>())
}

/// Makes the file where it is missing, readable by nobody else, and its name durable.
fn make_file(dir: &Path, path: &Path) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    File::open(dir)?.sync_all()
}

fn open_error(path: &Path, error: DatabaseError) -> RaftError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => RaftError::InUse { path },
        DatabaseError::UpgradeRequired(version) => RaftError::Format {
            path,
            found: format!("redb {version}"),
            expected: FORMAT,
        },
        error => RaftError::Disk {
            path,
            reason: error.to_string(),
        },
    }
}
