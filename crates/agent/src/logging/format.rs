//! The text of a line: Python's `%(attribute)s` formats, and JSON.

use std::fmt::Write as _;

use indexmap::IndexMap;
use jiff::tz::TimeZone;
use primacy_config::local::{Log, LogFormat, LogType};
use primacy_model::json_line;
use serde_json::{Map, Value, json};

use super::Record;
use super::names::logger;

/// What Patroni writes when nothing is configured.
const DEFAULT: &str = "%(asctime)s %(levelname)s: %(message)s";

/// How records become lines.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Format {
    shape: Shape,
    dateformat: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Plain(Vec<Token>),
    Json {
        fields: Vec<(String, String)>,
        static_fields: IndexMap<String, Value>,
    },
}

/// A piece of a format.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Literal(String),
    Attribute {
        name: String,
        left: bool,
        zero: bool,
        width: usize,
        precision: Option<usize>,
    },
}

impl Format {
    pub(super) fn new(section: &Log) -> Self {
        let dateformat = section
            .dateformat
            .clone()
            .filter(|format| !format.is_empty());
        let shape = match (section.kind, &section.format) {
            (LogType::Plain, LogFormat::Text(text)) => Shape::Plain(tokens(text)),
            // The configuration has warned of this one.
            (LogType::Plain, LogFormat::Fields(_)) => Shape::Plain(tokens(DEFAULT)),
            (LogType::Json, format) => Shape::Json {
                fields: match format {
                    LogFormat::Fields(fields) => fields.clone(),
                    LogFormat::Text(text) => attributes(text),
                },
                static_fields: section.static_fields.clone(),
            },
        };
        Format { shape, dateformat }
    }

    /// The line, with its end.
    pub(super) fn line(&self, record: &Record, zone: &TimeZone) -> String {
        let value = |name: &str| attribute(record, name, self.dateformat.as_deref(), zone);
        let mut line = match &self.shape {
            Shape::Plain(tokens) => {
                let mut line = String::new();
                // Here the message is the only place for what else the event carries.
                let value = |name: &str| match name {
                    "message" => Some(json!(record.text())),
                    name => value(name),
                };
                for token in tokens {
                    token.append(&mut line, value);
                }
                line
            }
            Shape::Json {
                fields,
                static_fields,
            } => {
                let mut map = Map::new();
                for (name, output) in fields {
                    map.insert(output.clone(), value(name).unwrap_or(Value::Null));
                }
                map.extend(
                    static_fields
                        .iter()
                        .map(|(name, value)| (name.clone(), value.clone())),
                );
                for field in &record.fields {
                    map.entry(field.name).or_insert_with(|| field.value.clone());
                }
                json_line(&Value::Object(map))
            }
        };
        line.push('\n');
        line
    }
}

impl Token {
    fn append(&self, line: &mut String, value: impl Fn(&str) -> Option<Value>) {
        let (name, left, zero, width, precision) = match self {
            Token::Literal(text) => return line.push_str(text),
            Token::Attribute {
                name,
                left,
                zero,
                width,
                precision,
            } => (name, left, zero, *width, precision),
        };
        let mut text = match value(name) {
            Some(Value::String(text)) => text,
            Some(value) => value.to_string(),
            None => String::new(),
        };
        if let Some(precision) = precision {
            text = text.chars().take(*precision).collect();
        }
        let _ = match (left, zero) {
            (true, _) => write!(line, "{text:<width$}"),
            (false, true) => write!(line, "{text:0>width$}"),
            (false, false) => write!(line, "{text:>width$}"),
        };
    }
}

/// `None` for a name that is no attribute of a record.
fn attribute(
    record: &Record,
    name: &str,
    dateformat: Option<&str>,
    zone: &TimeZone,
) -> Option<Value> {
    let file = || {
        record
            .path
            .and_then(|path| path.rsplit('/').next())
            .unwrap_or_default()
    };
    Some(match name {
        "asctime" => json!(time(record, dateformat, zone)),
        "created" => json!(record.time.as_microsecond() as f64 / 1e6),
        "msecs" => json!(record.time.subsec_millisecond()),
        "levelname" => json!(record.level.name()),
        "levelno" => json!(record.level as u8),
        "message" => json!(record.message),
        "name" => json!(logger(record.target)),
        "process" => json!(std::process::id()),
        "processName" => json!("MainProcess"),
        "pathname" => json!(record.path.unwrap_or_default()),
        "filename" => json!(file()),
        "lineno" => json!(record.line.unwrap_or(0)),
        // Functions have no names at run time; the module is the closest.
        "module" | "funcName" => json!(record.target.rsplit("::").next().unwrap_or_default()),
        "threadName" => json!(record.thread),
        _ => return None,
    })
}

fn time(record: &Record, dateformat: Option<&str>, zone: &TimeZone) -> String {
    let zoned = record.time.to_zoned(zone.clone());
    let configured = dateformat.and_then(|format| jiff::fmt::strtime::format(format, &zoned).ok());
    configured.unwrap_or_else(|| {
        format!(
            "{},{:03}",
            zoned.strftime("%Y-%m-%d %H:%M:%S"),
            zoned.millisecond()
        )
    })
}

/// The attributes that a text format names, under their own names.
fn attributes(format: &str) -> Vec<(String, String)> {
    let attribute = |token| match token {
        Token::Attribute { name, .. } => Some((name.clone(), name)),
        Token::Literal(_) => None,
    };
    tokens(format).into_iter().filter_map(attribute).collect()
}

/// Reads `text %(attribute)-8s text`. What does not look like that stays as it is.
fn tokens(format: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut literal = String::new();
    let mut rest = format;
    while let Some(position) = rest.find('%') {
        literal.push_str(&rest[..position]);
        rest = &rest[position + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            literal.push('%');
            rest = after;
        } else if let Some((token, after)) = specification(rest) {
            if !literal.is_empty() {
                tokens.push(Token::Literal(std::mem::take(&mut literal)));
            }
            tokens.push(token);
            rest = after;
        } else {
            literal.push('%');
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        tokens.push(Token::Literal(literal));
    }
    tokens
}

/// What stands behind the `%`: `(attribute)`, flags, width, precision, and the type.
fn specification(text: &str) -> Option<(Token, &str)> {
    let (name, rest) = text.strip_prefix('(')?.split_once(')')?;
    let flags = rest.len() - rest.trim_start_matches(['-', '0', '+', ' ', '#']).len();
    let (flags, rest) = rest.split_at(flags);
    let (width, rest) = digits(rest);
    let (precision, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => (None, rest),
    };
    let kind = rest.chars().next().filter(char::is_ascii_alphabetic)?;
    let token = Token::Attribute {
        name: name.to_owned(),
        left: flags.contains('-'),
        zero: flags.contains('0'),
        width: width.unwrap_or(0).min(MOST),
        // Of a number the precision is the least number of digits, which nobody asks for.
        precision: precision.filter(|_| matches!(kind, 's' | 'r' | 'a')),
    };
    Some((token, &rest[kind.len_utf8()..]))
}

/// A wider column is a mistake, and would be a way to fill the disk.
const MOST: usize = 1000;

fn digits(text: &str) -> (Option<usize>, &str) {
    let rest = text.trim_start_matches(|character: char| character.is_ascii_digit());
    (text[..text.len() - rest.len()].parse().ok(), rest)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use proptest::prelude::*;

    fn record() -> Record {
        Record {
            time: "2026-01-02T03:04:05.006789Z".parse().unwrap(),
            level: Level::Warning,
            target: "primacy_agent::api",
            path: Some("crates/agent/src/api/mod.rs"),
            line: Some(42),
            thread: "tokio-rt-worker".into(),
            message: "it's über 100%".into(),
            fields: Vec::new(),
        }
    }

    fn line(section: Log) -> String {
        Format::new(&section).line(&record(), &TimeZone::UTC)
    }

    #[test]
    fn plain_formats() {
        let cases = [
            (DEFAULT, "2026-01-02 03:04:05,006 WARNING: it's über 100%\n"),
            (
                "%(levelname)-9s|%(levelname)9s|%(levelname).4s",
                "WARNING  |  WARNING|WARN\n",
            ),
            (
                "%(name)s %(pathname)s:%(lineno)05d",
                "patroni.api crates/agent/src/api/mod.rs:00042\n",
            ),
            (
                "%(filename)s %(threadName)s %(funcName)s",
                "mod.rs tokio-rt-worker api\n",
            ),
            ("100%% %(nothing)s %x % %(message", "100%  %x % %(message\n"),
        ];
        for (format, expected) in cases {
            let section = Log {
                format: LogFormat::Text(format.into()),
                ..Log::default()
            };
            assert_eq!(line(section), expected, "{format}");
        }
    }

    #[test]
    fn date_formats() {
        let date = |format: &str| {
            line(Log {
                format: LogFormat::Text("%(asctime)s".into()),
                dateformat: Some(format.into()),
                ..Log::default()
            })
        };
        assert_eq!(date("%d.%m.%Y %H:%M:%S %z"), "02.01.2026 03:04:05 +0000\n");
        assert_eq!(date(""), "2026-01-02 03:04:05,006\n");
        assert_eq!(date("%!"), "2026-01-02 03:04:05,006\n");
    }

    #[test]
    fn json_lines() {
        let json = Log {
            kind: LogType::Json,
            ..Log::default()
        };
        assert_eq!(
            line(json.clone()),
            "{\"asctime\": \"2026-01-02 03:04:05,006\", \"levelname\": \"WARNING\", \"message\": \"it's \\u00fcber 100%\"}\n"
        );
        let fields = [
            ("message", "message"),
            ("levelname", "level"),
            ("nothing", "n"),
        ];
        let fields = fields.map(|(name, output)| (name.to_owned(), output.to_owned()));
        let static_fields = [("app".to_owned(), json!("patroni"))];
        assert_eq!(
            line(Log {
                format: LogFormat::Fields(fields.to_vec()),
                static_fields: static_fields.into_iter().collect(),
                ..json
            }),
            "{\"message\": \"it's \\u00fcber 100%\", \"level\": \"WARNING\", \"n\": null, \"app\": \"patroni\"}\n"
        );
    }

    proptest! {
        #[test]
        fn any_format_is_taken(format in "[%()a-z0-9.\\- ]{0,40}") {
            let _ = line(Log { format: LogFormat::Text(format), ..Log::default() });
        }
    }
}

/// What operators have in `log.format` and `log.dateformat`, spoiled; `make fuzz`.
#[cfg(test)]
mod fuzz {
    use super::super::Level;
    use super::*;

    #[test]
    #[ignore = "long: make fuzz"]
    fn log_formats() {
        let record = Record {
            time: "2026-01-02T03:04:05.006789Z".parse().expect("a time"),
            level: Level::Warning,
            target: "primacy_agent::api",
            path: Some("crates/agent/src/api/mod.rs"),
            line: Some(42),
            thread: "tokio-rt-worker".into(),
            message: "it's \u{fc}ber 100%".into(),
            fields: vec![],
        };
        let samples = [
            "%(asctime)s %(levelname)-8.3s %(lineno)05d %(name)s: %(message)s",
            "%% %(created)f%(msecs)03d [%(process)d] %(unknown)+ #9x %Y-%m-%dT%H:%M:%S.%3f%z",
        ];
        primacy_fuzz::text(&samples, |input| {
            let tokens = tokens(input);
            let columns = tokens.len() * (MOST + record.message.len());
            let known = tokens
                .iter()
                .any(|token| matches!(token, Token::Attribute { .. }));
            for kind in [LogType::Plain, LogType::Json] {
                let section = Log {
                    kind,
                    format: LogFormat::Text(input.to_owned()),
                    dateformat: Some(input.to_owned()),
                    ..Log::default()
                };
                let line = Format::new(&section).line(&record, &TimeZone::UTC);
                assert!(line.ends_with('\n'));
                if kind == LogType::Json {
                    serde_json::from_str::<Map<String, Value>>(&line).expect("an object");
                    assert_eq!(line.lines().count(), 1);
                } else if !input.contains("asctime") {
                    assert!(
                        line.len() <= input.len() + 4 * columns + 1,
                        "a column has no end"
                    );
                }
            }
            known
        });
    }
}
