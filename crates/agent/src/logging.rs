//! The log, as Patroni writes it (`configuration.md` §2.2, `process.md`).
//!
//! A line that is logged must never hold up the loop that logs it: the disk may hang just when the lease
//! has to be renewed. So a record is put into a bounded queue, one thread writes, and what does not fit is
//! lost and counted.

mod file;
mod format;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use jiff::Timestamp;
use primacy_config::local::Log;
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

/// Python's levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    NotSet = 0,
    Debug = 10,
    Info = 20,
    Warning = 30,
    Error = 40,
    Critical = 50,
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
}

impl LogQueue {
    /// A look at it.
    pub fn status(&self) -> QueueStatus {
        QueueStatus {
            queued: self.0.queued.load(Ordering::Relaxed),
            lost: self.0.lost.load(Ordering::Relaxed),
        }
    }
}

/// What a reload exchanges: the filter for those who log, the output for the one who writes.
struct Shared {
    filter: RwLock<Filter>,
    output: Arc<RwLock<Arc<Output>>>,
    queue: LogQueue,
}

impl Shared {
    fn passes(&self, target: &str, level: Level) -> bool {
        let filter = self.filter.read().unwrap_or_else(PoisonError::into_inner);
        filter.passes(target, level)
    }
}

/// What is logged at all.
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    level: Level,
    /// Target, or a module above it, to level.
    loggers: IndexMap<String, Level>,
}

impl Filter {
    fn new(section: &Log) -> Result<Self, LogError> {
        let logger = |(name, level): (&String, &String)| Ok((target(name), Level::parse(level)?));
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
        let named = self
            .loggers
            .iter()
            .filter(|(name, _)| is_within(target, name));
        let threshold = match named.max_by_key(|(name, _)| name.len()) {
            Some((_, level)) => *level,
            // The embedded store tells of its troubles itself; its library takes every lost connection for an
            // error.
            None if target.starts_with("openraft") => Level::Critical,
            // Libraries are let through when something is wrong; their diaries are not ours.
            None if !target.starts_with("primacy") => self.level.max(Level::Warning),
            None => self.level,
        };
        level >= threshold
    }
}

/// `patroni.postmaster` is `primacy_postmaster` or `primacy::postmaster` here: the closest there is.
fn target(logger: &str) -> String {
    let logger = match logger.strip_prefix("patroni") {
        Some(rest) => format!("primacy{rest}"),
        None => logger.to_owned(),
    };
    logger.replace('.', "::")
}

fn is_within(target: &str, module: &str) -> bool {
    target
        .strip_prefix(module)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::") || rest.starts_with('_'))
}

/// Reconfigures the log of this process.
#[derive(Clone)]
pub struct LogHandle(Arc<Shared>);

impl LogHandle {
    /// Takes new settings; only the queue keeps its size. Opens the file: call from a thread that may hang.
    ///
    /// # Errors
    /// [`LogError`]; the old settings stay.
    pub fn reconfigure(&self, section: &Log) -> Result<(), LogError> {
        let filter = Filter::new(section)?;
        let output = Arc::new(Output::new(section)?);
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
    /// Sets up the log of this process.
    ///
    /// # Errors
    /// [`LogError`]; nothing is logged then.
    pub fn install(section: &Log) -> Result<Self, LogError> {
        let (layer, logging) = Logging::new(section)?;
        tracing_subscriber::registry()
            .with(layer)
            .try_init()
            .map_err(|_| LogError::Installed)?;
        Ok(logging)
    }

    /// The layer, not installed yet.
    fn new(section: &Log) -> Result<(QueueLayer, Self), LogError> {
        let shared = Arc::new(Shared {
            filter: RwLock::new(Filter::new(section)?),
            output: Arc::new(RwLock::new(Arc::new(Output::new(section)?))),
            queue: LogQueue::default(),
        });
        let (sender, receiver) = sync_channel(section.max_queue_size.max(1));
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
}

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
}

/// Puts records into the queue.
struct QueueLayer {
    sender: SyncSender<Record>,
    shared: Arc<Shared>,
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
            thread: std::thread::current()
                .name()
                .unwrap_or("MainThread")
                .to_owned(),
            message: text.finish(),
        };
        let counters = &self.shared.queue.0;
        counters.queued.fetch_add(1, Ordering::Relaxed);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.sender.try_send(record)
        {
            counters.queued.fetch_sub(1, Ordering::Relaxed);
            counters.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The message of an event, and behind it what else it carries.
#[derive(Default)]
struct Text {
    message: String,
    fields: Vec<String>,
    critical: bool,
}

impl Text {
    fn finish(self) -> String {
        if self.fields.is_empty() {
            return self.message;
        }
        format!("{} ({})", self.message, self.fields.join(", "))
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            // What the log crate adds about its own call sites.
            name if name.starts_with("log.") => {}
            name => self.fields.push(format!("{name}={value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        match field.name() {
            "critical" => self.critical = value,
            _ => self.record_debug(field, &value),
        }
    }
}

#[cfg(test)]
mod tests;
