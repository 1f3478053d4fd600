use indexmap::IndexMap;
use serde_json::Value;

use crate::scalar::python_str;
use crate::section::Section;
use crate::{ConfigError, Map, Warning};

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

const LEVELS: [&str; 8] = [
    "CRITICAL", "FATAL", "ERROR", "WARN", "WARNING", "INFO", "DEBUG", "NOTSET",
];

impl Log {
    pub(crate) fn parse(root: &Map, warnings: &mut Vec<Warning>) -> Result<Log, ConfigError> {
        let default = Log::default();
        let Some(section) = Section::of("log", root, "log")? else {
            return Ok(default);
        };
        let level = section.text("level")?.unwrap_or(default.level);
        if !LEVELS.contains(&level.as_str()) {
            let expected = format!("one of {} in capitals", LEVELS.join(", "));
            return Err(ConfigError::invalid(
                "log.level",
                format!("{level:?}"),
                expected,
            ));
        }
        let kind = match section.text("type")?.as_deref() {
            Some("json") => LogType::Json,
            _ => LogType::Plain,
        };
        let format = match section.get("format") {
            Some(Value::Array(_)) if kind == LogType::Plain => {
                warnings.push(Warning(
                    "log.format is a list, which needs log.type json; the default format is used"
                        .into(),
                ));
                default.format
            }
            Some(Value::Array(items)) => LogFormat::Fields(fields(items, section)?),
            Some(_) => section
                .text("format")?
                .map_or(default.format, LogFormat::Text),
            None => default.format,
        };
        let traceback_debug = section
            .text("traceback_level")?
            .is_some_and(|level| level.eq_ignore_ascii_case("debug"));
        let static_fields = section
            .object("static_fields")?
            .into_owned()
            .into_iter()
            .collect();
        Ok(Log {
            kind,
            level,
            traceback_debug,
            format,
            dateformat: section.text("dateformat")?,
            static_fields,
            max_queue_size: section
                .count("max_queue_size")?
                .unwrap_or(default.max_queue_size),
            dir: section.text("dir")?,
            mode: section.count("mode")?,
            file_num: section.count("file_num")?.unwrap_or(default.file_num),
            file_size: section.count("file_size")?.unwrap_or(default.file_size),
            loggers: section.table("loggers")?,
            deduplicate_heartbeat_logs: section.bool("deduplicate_heartbeat_logs")?,
        })
    }
}

/// Names of attributes, or `{attribute: name}`.
fn fields(items: &[Value], section: Section<'_>) -> Result<Vec<(String, String)>, ConfigError> {
    let mut fields = Vec::new();
    for item in items {
        match item {
            Value::String(name) => fields.push((name.clone(), name.clone())),
            Value::Object(map) => {
                fields.extend(map.iter().map(|(from, to)| (from.clone(), python_str(to))));
            }
            other => return Err(section.invalid("format", other, "names, or {attribute: name}")),
        }
    }
    Ok(fields)
}
