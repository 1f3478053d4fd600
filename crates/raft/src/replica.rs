//! This member's copy of the state, for the consensus library and for readers.
//!
//! It lives in memory. On the disk are the last snapshot and the log behind it, from which it is made again
//! at the next start; the log is purged only up to a snapshot that is on the disk.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use openraft::{BasicNode, Entry, EntryPayload, StorageIOError, StoredMembership};
use tokio::sync::broadcast;

use crate::command::Answer;
use crate::disk::{Disk, DiskError, StoredSnapshot};
use crate::log::blocking;
use crate::machine::{Event, State};
use crate::types::{Group, LogId, Snapshot, SnapshotMeta, StorageError};

/// How many changes a watcher may lag behind before it is told to read again: some loops of a large cluster.
const WATCH_BACKLOG: usize = 1024;

/// What watchers are told.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    Changed(Arc<Event>),
    /// A snapshot replaced the state.
    Replaced,
}

/// A handle on the copy.
#[derive(Clone)]
pub(crate) struct Replica {
    disk: Arc<Disk>,
    copy: Arc<Mutex<Copy>>,
    group: Arc<OnceLock<String>>,
    notices: broadcast::Sender<Notice>,
}

#[derive(Clone, Default)]
struct Copy {
    state: State,
    applied: Option<LogId>,
    membership: StoredMembership<u64, BasicNode>,
}

impl Replica {
    /// The state of the last snapshot on the disk; the log behind it is applied by the library.
    pub(crate) fn load(disk: Arc<Disk>) -> Result<Replica, DiskError> {
        let (notices, _) = broadcast::channel(WATCH_BACKLOG);
        Self::load_for(disk, notices)
    }

    /// The same in another life of the member: whoever watches the former copy watches this one.
    pub(crate) fn load_again(&self, disk: Arc<Disk>) -> Result<Replica, DiskError> {
        let replica = Self::load_for(disk, self.notices.clone())?;
        let _ = replica.notices.send(Notice::Replaced);
        Ok(replica)
    }

    fn load_for(disk: Arc<Disk>, notices: broadcast::Sender<Notice>) -> Result<Replica, DiskError> {
        let copy = disk.snapshot()?.map_or_else(Copy::default, |stored| Copy {
            state: stored.state,
            applied: stored.meta.last_log_id,
            membership: stored.meta.last_membership,
        });
        let group = disk.group()?.map_or_else(OnceLock::new, OnceLock::from);
        Ok(Replica {
            disk,
            copy: Arc::new(Mutex::new(copy)),
            group: Arc::new(group),
            notices,
        })
    }

    /// Looks at the state as applied so far.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock().state)
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// The group's name, once this member knows it; it knows it from then on, restarts included.
    pub(crate) fn group(&self) -> Option<String> {
        self.group.get().cloned()
    }

    async fn learn_group(&self) -> Result<(), StorageError> {
        if self.group.get().is_some() {
            return Ok(());
        }
        let Some(group) = self.read(|state| state.group.clone()) else {
            return Ok(());
        };
        let name = group.clone();
        blocking(&self.disk, move |disk| disk.save_group(&name))
            .await
            .map_err(StorageIOError::write_state_machine)?;
        self.group.get_or_init(|| group);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Copy> {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, events: Vec<Event>) {
        for event in events {
            // Nobody listening is no error.
            let _ = self.notices.send(Notice::Changed(Arc::new(event)));
        }
    }
}

impl RaftStateMachine<Group> for Replica {
    type SnapshotBuilder = Builder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId>, StoredMembership<u64, BasicNode>), StorageError> {
        let copy = self.lock();
        Ok((copy.applied, copy.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answer>, StorageError>
    where
        I: IntoIterator<Item = Entry<Group>> + Send,
        I::IntoIter: Send,
    {
        let mut events = Vec::new();
        let mut answers = Vec::new();
        {
            let mut copy = self.lock();
            for entry in entries {
                copy.applied = Some(entry.log_id);
                answers.push(match entry.payload {
                    EntryPayload::Blank => Answer::Noted,
                    EntryPayload::Normal(command) => {
                        copy.state.apply(entry.log_id.index, command, &mut events)
                    }
                    EntryPayload::Membership(membership) => {
                        copy.membership = StoredMembership::new(Some(entry.log_id), membership);
                        Answer::Noted
                    }
                });
            }
        }
        self.learn_group().await?;
        self.notify(events);
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            disk: self.disk.clone(),
            copy: self.lock().clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<State>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        state: Box<State>,
    ) -> Result<(), StorageError> {
        let stored = save(
            &self.disk,
            StoredSnapshot {
                meta: meta.clone(),
                state: *state,
            },
        )
        .await?;
        *self.lock() = Copy {
            state: stored.state,
            applied: stored.meta.last_log_id,
            membership: stored.meta.last_membership,
        };
        self.learn_group().await?;
        let _ = self.notices.send(Notice::Replaced);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let stored = blocking(&self.disk, Disk::snapshot)
            .await
            .map_err(|error| StorageIOError::read_snapshot(None, error))?;
        Ok(stored.map(|stored| Snapshot {
            meta: stored.meta,
            snapshot: Box::new(stored.state),
        }))
    }
}

/// Saves the copy as it was when this was made.
pub(crate) struct Builder {
    disk: Arc<Disk>,
    copy: Copy,
}

impl RaftSnapshotBuilder<Group> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let Copy {
            state,
            applied,
            membership,
        } = self.copy.clone();
        let snapshot_id = applied.map_or_else(|| "empty".to_owned(), |log| log.to_string());
        let meta = SnapshotMeta {
            last_log_id: applied,
            last_membership: membership,
            snapshot_id,
        };
        let stored = save(&self.disk, StoredSnapshot { meta, state }).await?;
        Ok(Snapshot {
            meta: stored.meta,
            snapshot: Box::new(stored.state),
        })
    }
}

/// Returns the snapshot once it is on the disk.
async fn save(disk: &Arc<Disk>, stored: StoredSnapshot) -> Result<StoredSnapshot, StorageError> {
    let signature = stored.meta.signature();
    let saved = blocking(disk, move |disk| {
        disk.save_snapshot(&stored).map(|()| stored)
    })
    .await;
    saved.map_err(|error| StorageIOError::write_snapshot(Some(signature), error).into())
}
