use indexmap::IndexMap;
use serde_json::Value;

/// The `log` section (`configuration.md` §2.2).
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Plain text or JSON lines.
    pub kind: LogType,
    /// Level name, one of `CRITICAL FATAL ERROR WARN WARNING INFO DEBUG NOTSET`.
    pub level: String,
    /// Stack traces only at debug level.
    pub traceback_debug: bool,
    /// Format of a line.
    pub format: LogFormat,
    /// `strftime` format of the time.
    pub dateformat: Option<String>,
    /// Further fields of JSON lines.
    pub static_fields: IndexMap<String, Value>,
    /// Records kept in memory while the output does not keep up.
    pub max_queue_size: usize,
    /// Directory of `patroni.log`; `None`: standard error.
    pub dir: Option<String>,
    /// Mode of the file.
    pub mode: Option<u32>,
    /// Rotated files kept.
    pub file_num: usize,
    /// Bytes after which the file is rotated.
    pub file_size: u64,
    /// Levels of single loggers.
    pub loggers: IndexMap<String, String>,
    /// Leave out repeated heartbeat lines.
    pub deduplicate_heartbeat_logs: bool,
}

/// `log.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogType {
    /// Text lines.
    #[default]
    Plain,
    /// One JSON object per line.
    Json,
}

/// `log.format`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Python's printf-style names of log record attributes.
    Text(String),
    /// Attributes and the JSON names they get.
    Fields(Vec<(String, String)>),
}

impl Default for Log {
    fn default() -> Self {
        Log {
            kind: LogType::Plain,
            level: "INFO".into(),
            traceback_debug: false,
            format: LogFormat::Text("%(asctime)s %(levelname)s: %(message)s".into()),
            dateformat: None,
            static_fields: IndexMap::new(),
            max_queue_size: 1000,
            dir: None,
            mode: None,
            file_num: 4,
            file_size: 25_000_000,
            loggers: IndexMap::new(),
            deduplicate_heartbeat_logs: false,
        }
    }
}
