//! The log, as Patroni writes it (`configuration.md` §2.2, `process.md`).
//!
//! A line that is logged must never hold up the loop that logs it: the disk may hang just when the lease
//! has to be renewed. So a record is put into a bounded queue, one thread writes, and what does not fit is
//! lost and counted.

mod file;
mod format;
mod names;
mod writer;

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use jiff::Timestamp;
use primacy_config::local::Log;
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use self::writer::Output;

/// Logs at Python's highest level, which the tracing library does not have: for the last words of a process
/// that cannot go on.
#[macro_export]
macro_rules! critical {
    ($($argument:tt)+) => { ::tracing::error!(critical = true, $($argument)+) };
}

/// The target of a pass's outcome: it has a logger of its own in Patroni.
pub(crate) const OUTCOME: &str = "patroni.__main__";

/// Python's levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    NotSet = 0,
    Debug = 10,
    Info = 20,
    Warning = 30,
    Error = 40,
    Critical = 50,
    /// Above all of them: nothing is logged.
    Silent = 60,
}

impl Level {
    fn parse(name: &str) -> Result<Self, LogError> {
        Ok(match name.to_ascii_uppercase().as_str() {
            "CRITICAL" | "FATAL" => Level::Critical,
            "ERROR" => Level::Error,
            "WARN" | "WARNING" => Level::Warning,
            "INFO" => Level::Info,
            "DEBUG" => Level::Debug,
            "NOTSET" => Level::NotSet,
            _ => return Err(LogError::Level(name.to_owned())),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Level::NotSet => "NOTSET",
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Warning => "WARNING",
            Level::Error => "ERROR",
            Level::Critical => "CRITICAL",
            Level::Silent => "SILENT",
        }
    }
}

impl From<&tracing::Level> for Level {
    fn from(level: &tracing::Level) -> Self {
        match *level {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warning,
            tracing::Level::INFO => Level::Info,
            tracing::Level::DEBUG | tracing::Level::TRACE => Level::Debug,
        }
    }
}

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Not one of Python's levels.
    #[error(
        "log.level: unknown level {0:?}; use one of CRITICAL, FATAL, ERROR, WARN, WARNING, INFO, DEBUG, NOTSET"
    )]
    Level(String),
    /// The file cannot be written.
    #[error("log.dir: cannot write {}; the directory must exist and be writable: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: io::Error,
    },
    /// No thread could be started for it.
    #[error("cannot start the thread that writes the log")]
    Thread(#[source] io::Error),
    /// A process has one log.
    #[error("the log of this process is set up already")]
    Installed,
}

/// The log of this process.
pub struct Logging {
    shared: Arc<Shared>,
    writer: JoinHandle<()>,
}

/// How the queue between those who log and the one who writes is doing.
#[derive(Clone, Debug, Default)]
pub struct LogQueue(Arc<Counters>);

/// A look at the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStatus {
    /// Records that are not written yet.
    pub queued: usize,
    /// Records that did not fit.
    pub lost: usize,
}

#[derive(Debug, Default)]
struct Counters {
    queued: AtomicUsize,
    lost: AtomicUsize,
    /// Records that may be queued; 0: any number.
    limit: AtomicUsize,
}

impl LogQueue {
    /// A look at it.
    pub fn status(&self) -> QueueStatus {
        QueueStatus {
            queued: self.0.queued.load(Ordering::Relaxed),
            lost: self.0.lost.load(Ordering::Relaxed),
        }
    }

    fn is_full(&self) -> bool {
        let limit = self.0.limit.load(Ordering::Relaxed);
        limit > 0 && self.0.queued.load(Ordering::Relaxed) >= limit
    }
}

/// What a reload exchanges: the filter for those who log, the output for the one who writes.
struct Shared {
    filter: RwLock<Filter>,
    output: Arc<RwLock<Arc<Output>>>,
    queue: LogQueue,
    umask: u32,
}

impl Shared {
    /// Opens what the section names. Without a mode the file gets what the process was started with: the umask in
    /// force is stricter, and whoever collects logs reads them as somebody else.
    fn output(section: &Log, umask: u32) -> Result<Arc<Output>, LogError> {
        let section = Log {
            mode: Some(section.mode.unwrap_or(0o666 & !umask)),
            ..section.clone()
        };
        Ok(Arc::new(Output::new(&section)?))
    }

    fn passes(&self, target: &str, level: Level) -> bool {
        let filter = self.filter.read().unwrap_or_else(PoisonError::into_inner);
        filter.passes(target, level)
    }
}

/// What is logged at all.
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    level: Level,
    /// Logger, by Patroni's name, to level.
    loggers: IndexMap<String, Level>,
}

impl Filter {
    fn new(section: &Log) -> Result<Self, LogError> {
        let logger = |(name, level): (&String, &String)| {
            let name = names::logger(name).into_owned();
            Ok((name, Level::parse(level)?))
        };
        Ok(Filter {
            level: Level::parse(&section.level)?,
            loggers: section
                .loggers
                .iter()
                .map(logger)
                .collect::<Result<_, LogError>>()?,
        })
    }

    fn passes(&self, target: &str, level: Level) -> bool {
        let threshold = match self.named(target) {
            Some(level) => level,
            // The embedded store tells of its troubles itself; its library takes every lost connection for an
            // error.
            None if target.starts_with("openraft") => Level::Critical,
            // Libraries are let through when something is wrong; their diaries are not ours.
            None if !target.starts_with("primacy") && !target.starts_with("patroni") => {
                self.level.max(Level::Warning)
            }
            None => self.level,
        };
        level >= threshold
    }

    /// The level of the logger, or of the closest above it that has one.
    fn named(&self, target: &str) -> Option<Level> {
        if self.loggers.is_empty() {
            return None;
        }
        let name = names::logger(target);
        self.loggers
            .iter()
            .filter(|(above, _)| names::is_within(&name, above, "."))
            .max_by_key(|(above, _)| above.len())
            .map(|(_, level)| *level)
    }
}

/// Reconfigures the log of this process.
#[derive(Clone)]
pub struct LogHandle(Arc<Shared>);

impl LogHandle {
    /// Takes new settings. Opens the file: call from a thread that may hang.
    ///
    /// # Errors
    /// [`LogError`]; the old settings stay.
    pub fn reconfigure(&self, section: &Log) -> Result<(), LogError> {
        let filter = Filter::new(section)?;
        let output = Shared::output(section, self.0.umask)?;
        let limit = &self.0.queue.0.limit;
        limit.store(section.max_queue_size, Ordering::Relaxed);
        *self
            .0
            .filter
            .write()
            .unwrap_or_else(PoisonError::into_inner) = filter;
        *self
            .0
            .output
            .write()
            .unwrap_or_else(PoisonError::into_inner) = output;
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }
}

impl Logging {
    /// Sets up the log of this process, which was started with that umask.
    ///
    /// # Errors
    /// [`LogError`]; nothing is logged then.
    pub fn install(section: &Log, umask: u32) -> Result<Self, LogError> {
        let (layer, logging) = Logging::new(section, umask)?;
        tracing_subscriber::registry()
            .with(layer)
            .try_init()
            .map_err(|_| LogError::Installed)?;
        Ok(logging)
    }

    /// The layer, not installed yet.
    fn new(section: &Log, umask: u32) -> Result<(QueueLayer, Self), LogError> {
        let shared = Arc::new(Shared {
            filter: RwLock::new(Filter::new(section)?),
            output: Arc::new(RwLock::new(Shared::output(section, umask)?)),
            queue: LogQueue::default(),
            umask,
        });
        let limit = &shared.queue.0.limit;
        limit.store(section.max_queue_size, Ordering::Relaxed);
        // Bounded by the layer: a reload changes by how much.
        let (sender, receiver) = channel();
        let (output, queue) = (Arc::clone(&shared.output), shared.queue.clone());
        let writer = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || {
                writer::run(&receiver, &output, || {
                    queue.0.queued.fetch_sub(1, Ordering::Relaxed);
                })
            })
            .map_err(LogError::Thread)?;
        Ok((
            QueueLayer {
                sender,
                shared: Arc::clone(&shared),
            },
            Logging { shared, writer },
        ))
    }

    /// For reconfiguring it from elsewhere.
    pub fn handle(&self) -> LogHandle {
        LogHandle(Arc::clone(&self.shared))
    }

    /// The queue, for those who tell of it.
    pub fn queue(&self) -> LogQueue {
        self.shared.queue.clone()
    }

    /// Waits until everything logged so far is written. False when that does not happen in time, or when
    /// the writer is gone. Blocks the thread.
    pub fn flush(&self, patience: Duration) -> bool {
        const PAUSE: Duration = Duration::from_millis(5);
        let deadline = Instant::now() + patience;
        while self.shared.queue.status().queued > 0 {
            if self.writer.is_finished() || Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(PAUSE);
        }
        true
    }

    /// The last [`Logging::flush`]. False when the queue is still full after it: what the log should hold is lost, and
    /// the process should end with [`BROKEN`].
    pub fn close(&self, patience: Duration) -> bool {
        self.flush(patience) || !self.shared.queue.is_full()
    }
}

/// How long what is logged already may take to be written, once nobody holds the log any more.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Drop for Logging {
    /// Tasks that nobody waits for may still log something: that is left out, so that the reason why a process ended
    /// is its last line.
    fn drop(&mut self) {
        let mut filter = self
            .shared
            .filter
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *filter = Filter {
            level: Level::Silent,
            loggers: IndexMap::new(),
        };
        drop(filter);
        tracing::callsite::rebuild_interest_cache();
        self.flush(LAST_WORDS);
    }
}

/// The exit code of a process whose log could not be written at its end.
pub const BROKEN: u8 = 5;

/// One line, before it is text.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    time: Timestamp,
    level: Level,
    target: &'static str,
    path: Option<&'static str>,
    line: Option<u32>,
    thread: String,
    message: String,
    fields: Vec<LogField>,
}

/// What an event carries beside its message.
#[derive(Clone, Debug)]
struct LogField {
    name: &'static str,
    value: Value,
    /// Said by the message already: only JSON has it as well.
    detail: bool,
}

impl Record {
    /// The message, and behind it what else the event carries.
    fn text(&self) -> Cow<'_, str> {
        let field = |field: &LogField| match &field.value {
            Value::String(text) => format!("{}={text}", field.name),
            value => format!("{}={value}", field.name),
        };
        let shown = self.fields.iter().filter(|field| !field.detail);
        let fields: Vec<String> = shown.map(field).collect();
        match fields.is_empty() {
            true => Cow::Borrowed(&self.message),
            false => Cow::Owned(format!("{} ({})", self.message, fields.join(", "))),
        }
    }
}

/// Puts records into the queue.
struct QueueLayer {
    sender: Sender<Record>,
    shared: Arc<Shared>,
}

impl QueueLayer {
    /// False when it did not fit.
    fn queue(&self, record: Record) -> bool {
        let queue = &self.shared.queue;
        if queue.is_full() {
            return false;
        }
        queue.0.queued.fetch_add(1, Ordering::Relaxed);
        let sent = self.sender.send(record).is_ok();
        if !sent {
            queue.0.queued.fetch_sub(1, Ordering::Relaxed);
        }
        sent
    }

    /// There is room again: says what is missing.
    fn report_lost(&self) {
        let lost = self.shared.queue.0.lost.swap(0, Ordering::Relaxed);
        if lost == 0 {
            return;
        }
        let record = Record {
            time: Timestamp::now(),
            level: Level::Warning,
            target: module_path!(),
            path: Some(file!()),
            line: Some(line!()),
            thread: thread_name(),
            message: format!("QueueHandler has lost {lost} log records"),
            fields: Vec::new(),
        };
        if !self.queue(record) {
            self.shared.queue.0.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }
}

fn thread_name() -> String {
    let thread = std::thread::current();
    thread.name().unwrap_or("MainThread").to_owned()
}

impl<S: Subscriber> Layer<S> for QueueLayer {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        // The level can change at any time.
        tracing::subscriber::Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        // Whether an error is critical shows only when it is told.
        let level = match Level::from(metadata.level()) {
            Level::Error => Level::Critical,
            level => level,
        };
        self.shared.passes(metadata.target(), level)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        let level = match text.critical {
            true => Level::Critical,
            false => Level::from(metadata.level()),
        };
        if !self.shared.passes(metadata.target(), level) {
            return;
        }
        let record = Record {
            time: Timestamp::now(),
            level,
            target: metadata.target(),
            path: metadata.file(),
            line: metadata.line(),
            thread: thread_name(),
            message: text.message,
            fields: text.fields,
        };
        if self.queue(record) {
            self.report_lost();
        } else {
            let lost = &self.shared.queue.0.lost;
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What an event says.
#[derive(Default)]
struct Text {
    message: String,
    fields: Vec<LogField>,
    critical: bool,
}

impl Text {
    fn push(&mut self, field: &Field, value: Value) {
        let (name, detail) = match field.name().strip_prefix("detail.") {
            Some(name) => (name, true),
            None => (field.name(), false),
        };
        // What the log crate adds about its own call sites.
        if !name.starts_with("log.") {
            self.fields.push(LogField {
                name,
                value,
                detail,
            });
        }
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            _ => self.push(field, json!(format!("{value:?}"))),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, json!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        match field.name() {
            "critical" => self.critical = value,
            _ => self.push(field, json!(value)),
        }
    }
}

#[cfg(test)]
mod tests;
