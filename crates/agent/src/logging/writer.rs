//! The thread that writes, and what it leaves out.

use std::io::{self, Write};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::tz::TimeZone;
use primacy_config::local::Log;

use super::file::RotatedFile;
use super::format::Format;
use super::{Level, LogError, OUTCOME, Record};

/// Where records go and in what form.
#[derive(Debug)]
pub(super) struct Output {
    format: Format,
    /// `None`: standard error. Only the writing thread locks it.
    file: Option<Mutex<RotatedFile>>,
    /// At this level exactly the lock owner is told only when the pass had something to do.
    info: bool,
    deduplicate: bool,
}

impl Output {
    pub(super) fn new(section: &Log) -> Result<Self, LogError> {
        let file = section
            .dir
            .as_deref()
            .map(|directory| RotatedFile::open(directory, section));
        Ok(Output {
            format: Format::new(section),
            file: file.transpose()?.map(Mutex::new),
            info: Level::parse(&section.level)? == Level::Info,
            deduplicate: section.deduplicate_heartbeat_logs,
        })
    }

    fn write(&self, record: &Record) {
        let line = self.format.line(record, &TimeZone::system());
        let Some(file) = &self.file else {
            // There is nowhere left to tell that standard error is gone.
            let _ = io::stderr().write_all(line.as_bytes());
            return;
        };
        let written = file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(&line);
        if let Err(error) = written {
            let _ = write!(io::stderr(), "cannot write the log file ({error}): {line}");
        }
    }
}

/// Writes until nobody can log any more. `done` is called for each record once it is dealt with.
pub(super) fn run(records: &Receiver<Record>, output: &RwLock<Arc<Output>>, done: impl Fn()) {
    let mut repetition = Repetition::default();
    while let Ok(record) = records.recv() {
        let output = Arc::clone(&output.read().unwrap_or_else(PoisonError::into_inner));
        for record in repetition.sift(record, &output) {
            output.write(&record);
        }
        done();
    }
}

/// Leaves out what says the same again and again (`configuration.md` §2.2).
#[derive(Default)]
struct Repetition {
    lock_owner: Option<Record>,
    heartbeat: String,
}

impl Repetition {
    /// What is to be written now: the line that was held back, the record, both or none.
    fn sift(&mut self, record: Record, output: &Output) -> Vec<Record> {
        if !output.info {
            return vec![record];
        }
        if record.message.starts_with("Lock owner: ") {
            self.lock_owner = Some(record);
            return Vec::new();
        }
        // What others say meanwhile is none of the loop's business.
        let held = match is_of_the_loop(record.target) {
            true => self.lock_owner.take(),
            false => None,
        };
        let Some(held) = held else {
            return vec![record];
        };
        if !is_heartbeat(&record.message) {
            self.heartbeat.clear();
            return vec![held, record];
        }
        if output.deduplicate && self.heartbeat == record.message {
            return Vec::new();
        }
        self.heartbeat.clone_from(&record.message);
        vec![record]
    }
}

/// The machine tells of a pass through the shell.
fn is_of_the_loop(target: &str) -> bool {
    target == "primacy_agent::shell" || target == OUTCOME
}

fn is_heartbeat(message: &str) -> bool {
    message.starts_with("no action. ") || message.starts_with("PAUSE: no action")
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn sift(section: &Log, messages: &[&'static str]) -> Vec<String> {
        let output = Output::new(section).unwrap();
        let mut repetition = Repetition::default();
        let record = |message: &str| Record {
            time: Timestamp::UNIX_EPOCH,
            level: Level::Info,
            target: OUTCOME,
            path: None,
            line: None,
            thread: String::new(),
            message: message.into(),
            fields: Vec::new(),
        };
        let sifted = messages
            .iter()
            .flat_map(|message| repetition.sift(record(message), &output));
        sifted.map(|record| record.message).collect()
    }

    const OWNER: &str = "Lock owner: pg1; I am pg2";
    const IDLE: &str = "no action. I am (pg2), a secondary, and following a leader (pg1)";

    #[test]
    fn lock_owner_is_told_only_when_something_happens() {
        let info = Log::default();
        assert_eq!(sift(&info, &[OWNER, IDLE, OWNER, IDLE]), [IDLE, IDLE]);
        assert_eq!(
            sift(&info, &[OWNER, "promoted self to leader"]),
            [OWNER, "promoted self to leader"]
        );
        assert_eq!(sift(&info, &[OWNER, OWNER, IDLE]), [IDLE]);
        let debug = Log {
            level: "DEBUG".into(),
            ..Log::default()
        };
        assert_eq!(sift(&debug, &[OWNER, IDLE]), [OWNER, IDLE]);
    }

    #[test]
    fn repeated_heartbeats_can_be_left_out() {
        let section = Log {
            deduplicate_heartbeat_logs: true,
            ..Log::default()
        };
        assert_eq!(
            sift(
                &section,
                &[
                    OWNER, IDLE, OWNER, IDLE, OWNER, "other", OWNER, IDLE, OWNER, IDLE
                ]
            ),
            [IDLE, OWNER, "other", IDLE]
        );
        assert_eq!(
            sift(&section, &[OWNER, IDLE, "beside the passes", OWNER, IDLE]),
            [IDLE, "beside the passes"]
        );
        assert_eq!(
            sift(&Log::default(), &[OWNER, IDLE, OWNER, IDLE]),
            [IDLE, IDLE]
        );
    }
}
