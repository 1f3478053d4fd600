//! What was done and why, kept. `GET /journal` serves it from memory; a file survives the agent.
//!
//! The one who decides only hands a line to a thread that writes: a disk that hangs delays nobody, and a line that
//! the thread has no room for is counted and still served.

mod file;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use primacy_config::local::{self, LocalConfig};
use primacy_model::JournalRecord;

use file::{JournalFile, read};

/// Lines that wait for the disk: more than any minute of a bad night has.
const QUEUE_MAX: usize = 4096;

/// The journal of one member.
pub struct Journal {
    lines: Mutex<Lines>,
    writer: Option<SyncSender<Message>>,
    lost: Arc<AtomicUsize>,
}

enum Message {
    Line(Arc<str>),
    /// Answer when everything before is on disk.
    Flush(SyncSender<()>),
}

/// The newest lines, as many as fit.
struct Lines {
    lines: VecDeque<(Timestamp, Arc<str>)>,
    bytes: u64,
    limit: u64,
}

/// Which entries are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalQuery {
    /// Not older.
    pub since: Option<Timestamp>,
    /// Not newer.
    pub until: Option<Timestamp>,
    /// The newest of them, so many.
    pub limit: usize,
}

impl Default for Journal {
    fn default() -> Self {
        Journal::in_memory(local::Journal::default().size)
    }
}

impl Journal {
    /// One that ends with the process.
    pub fn in_memory(limit: u64) -> Self {
        Journal {
            lines: Mutex::new(Lines {
                lines: VecDeque::new(),
                bytes: 0,
                limit,
            }),
            writer: None,
            lost: Arc::default(),
        }
    }

    /// The journal of this member, with what agents before this one left. It works without a disk: one that cannot
    /// be written to is told, and tried again with every line.
    pub fn open(config: &LocalConfig) -> Self {
        let section = &config.journal;
        let directory = match &section.directory {
            Some(directory) => directory.as_path(),
            None => config
                .postgresql
                .data_dir
                .parent()
                .unwrap_or(Path::new("/")),
        };
        let name = format!("{}-{}.journal", config.scope, config.name).replace('/', "_");
        let path = directory.join(name);
        let mut journal = Journal::in_memory(section.size);
        let file = JournalFile::new(path, section.size);
        for (at, line) in read(&file) {
            journal.remember(at, line.into());
        }
        let (writer, messages) = sync_channel(QUEUE_MAX);
        let lost = Arc::clone(&journal.lost);
        let thread = std::thread::Builder::new().name("journal".into());
        match thread.spawn(move || write(file, &messages, &lost)) {
            Ok(_) => journal.writer = Some(writer),
            Err(error) => tracing::error!(
                "the journal is kept in memory only: no thread can be started for its file: {error}"
            ),
        }
        journal
    }

    /// Keeps an entry. Never waits.
    pub fn keep(&self, record: &JournalRecord) {
        let line: Arc<str> = record.to_line().into();
        self.remember(record.at, Arc::clone(&line));
        if let Some(writer) = &self.writer
            && let Err(TrySendError::Full(_)) = writer.try_send(Message::Line(line))
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn remember(&self, at: Timestamp, line: Arc<str>) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.bytes += line.len() as u64;
        lines.lines.push_back((at, line));
        while lines.bytes > lines.limit
            && let Some((_, oldest)) = lines.lines.pop_front()
        {
            lines.bytes -= oldest.len() as u64;
        }
    }

    /// The entries, oldest first, as a JSON array of [`JournalRecord`].
    pub fn to_json(&self, query: JournalQuery) -> String {
        let chosen = self.choose(query);
        let length: usize = chosen.iter().map(|line| line.len() + 2).sum();
        let mut text = String::with_capacity(length + 4);
        text.push('[');
        for (index, line) in chosen.iter().rev().enumerate() {
            if index > 0 {
                text.push_str(",\n");
            }
            text.push_str(line);
        }
        text.push_str("]\n");
        text
    }

    /// Newest first. Only pointers are copied while the one who decides may have to wait.
    fn choose(&self, query: JournalQuery) -> Vec<Arc<str>> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = |at: Timestamp| {
            query.since.is_none_or(|since| at >= since)
                && query.until.is_none_or(|until| at <= until)
        };
        let lines = lines.lines.iter().rev();
        lines
            .filter(|(at, _)| asked(*at))
            .take(query.limit)
            .map(|(_, line)| Arc::clone(line))
            .collect()
    }

    /// Waits until what was kept is on disk, for so long at most.
    pub fn flush(&self, patience: Duration) {
        let (done, flushed) = sync_channel(1);
        if let Some(writer) = &self.writer
            && writer.try_send(Message::Flush(done)).is_ok()
        {
            let _ = flushed.recv_timeout(patience);
        }
    }
}

/// The thread: one write and one fsync for all lines that wait.
fn write(mut file: JournalFile, messages: &Receiver<Message>, lost: &AtomicUsize) {
    let mut complained = false;
    while let Ok(first) = messages.recv() {
        let mut text = String::new();
        let mut flushes = Vec::new();
        for message in std::iter::once(first).chain(messages.try_iter()) {
            match message {
                Message::Line(line) => {
                    text.push_str(&line);
                    text.push('\n');
                }
                Message::Flush(done) => flushes.push(done),
            }
        }
        match file.append(&text) {
            Ok(()) => complained = false,
            Err(error) if !complained => {
                complained = true;
                tracing::warn!(
                    "the journal {} cannot be written, it is kept in memory meanwhile; the directory must be writable \
                     (journal.directory chooses another): {error}",
                    file.path().display()
                );
            }
            Err(_) => {}
        }
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!("{lost} entries of the journal are not on disk: it was too slow");
        }
        for done in flushes {
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use primacy_model::{JournalKind, JournalReason};

    fn record(second: i64) -> JournalRecord {
        JournalRecord {
            at: Timestamp::from_second(second).unwrap(),
            member: "pg1".into(),
            kind: JournalKind::Wait,
            text: format!("entry {second}"),
            step: String::new(),
            reasons: vec![JournalReason {
                rule: "ha.md §10.2.1".into(),
                text: "lag 2097152 > maximum_lag_on_failover 1048576".into(),
            }],
            leader: None,
            peers: Default::default(),
            repeated: 0,
        }
    }

    fn seconds(journal: &Journal, query: JournalQuery) -> Vec<i64> {
        let records: Vec<JournalRecord> = serde_json::from_str(&journal.to_json(query)).unwrap();
        records.iter().map(|record| record.at.as_second()).collect()
    }

    #[test]
    fn queries_choose_the_newest_in_a_window() {
        let journal = Journal::default();
        for second in 0..10 {
            journal.keep(&record(second));
        }
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let query = |since, until, limit| JournalQuery {
            since,
            until,
            limit,
        };
        assert_eq!(seconds(&journal, query(None, None, 3)), [7, 8, 9]);
        assert_eq!(seconds(&journal, query(at(2), at(5), 100)), [2, 3, 4, 5]);
        assert_eq!(seconds(&journal, query(at(2), at(5), 2)), [4, 5]);
        assert_eq!(seconds(&journal, query(at(20), None, 2)), [0; 0]);
    }

    #[test]
    fn memory_is_bounded() {
        let length = record(1000).to_line().len();
        let journal = Journal::in_memory(10 * length as u64);
        for second in 1000..1100 {
            journal.keep(&record(second));
        }
        let all = JournalQuery {
            limit: usize::MAX,
            ..JournalQuery::default()
        };
        assert_eq!(seconds(&journal, all), (1090..1100).collect::<Vec<_>>());
    }
}
