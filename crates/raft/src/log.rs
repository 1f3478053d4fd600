//! The log and the vote, for the consensus library.

use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::Arc;

use openraft::storage::{LogFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{AnyError, Entry, StorageIOError};

use crate::disk::{Disk, DiskError};
use crate::types::{Group, LogId, StorageError, Vote};

/// The log of this member. Reads are short and mostly cached; writes wait for the disk, so they run where
/// waiting disturbs nobody.
#[derive(Clone)]
pub(crate) struct Log {
    disk: Arc<Disk>,
}

impl Log {
    pub(crate) fn new(disk: Arc<Disk>) -> Self {
        Log { disk }
    }
}

/// Runs a waiting disk access outside the event loop.
pub(crate) async fn blocking<T: Send + 'static>(
    disk: &Arc<Disk>,
    work: impl FnOnce(&Disk) -> Result<T, DiskError> + Send + 'static,
) -> Result<T, AnyError> {
    let disk = disk.clone();
    match tokio::task::spawn_blocking(move || work(&disk)).await {
        Ok(done) => done.map_err(|error| AnyError::new(&error)),
        Err(error) => Err(AnyError::new(&error)),
    }
}

impl RaftLogReader<Group> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry<Group>>, StorageError> {
        self.disk
            .entries(range)
            .map_err(|error| StorageIOError::read_logs(&error).into())
    }
}

impl RaftLogStorage<Group> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> Result<LogState<Group>, StorageError> {
        let state = || {
            Ok::<_, DiskError>(LogState {
                last_purged_log_id: self.disk.purged()?,
                last_log_id: self.disk.last_log()?,
            })
        };
        state().map_err(|error| StorageIOError::read_logs(&error).into())
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        blocking(&self.disk, move |disk| disk.save_vote(&vote))
            .await
            .map_err(|error| StorageIOError::write_vote(error).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.disk
            .vote()
            .map_err(|error| StorageIOError::read_vote(&error).into())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        flushed: LogFlushed<Group>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry<Group>> + Send,
        I::IntoIter: Send,
    {
        let encode = |entry: Entry<Group>| Ok((entry.log_id.index, serde_json::to_vec(&entry)?));
        let rows = entries
            .into_iter()
            .map(encode)
            .collect::<Result<Vec<_>, serde_json::Error>>()
            .map_err(|error| StorageIOError::write_logs(&error))?;
        let appended = blocking(&self.disk, move |disk| disk.append(&rows)).await;
        match appended {
            Ok(()) => flushed.log_io_completed(Ok(())),
            Err(error) => {
                flushed.log_io_completed(Err(std::io::Error::other(error.to_string())));
                return Err(StorageIOError::write_logs(error).into());
            }
        }
        Ok(())
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError> {
        blocking(&self.disk, move |disk| disk.truncate(since.index))
            .await
            .map_err(|error| StorageIOError::write_logs(error).into())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        blocking(&self.disk, move |disk| disk.purge(&upto))
            .await
            .map_err(|error| StorageIOError::write_logs(error).into())
    }
}
