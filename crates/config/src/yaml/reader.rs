use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};
use serde_json::Value;

use super::YamlError;
use super::resolver::{self, Meaning};
use crate::Map;

/// The largest document that is read. Configuration files have kilobytes.
pub const MAX_BYTES: usize = 4 << 20;

/// Nesting beyond which a document is refused.
pub const MAX_DEPTH: usize = 64;

/// What a document may amount to once its aliases are followed: bytes of text, and [`NODE_BYTES`] per node.
/// Bounds what a few lines of nested aliases can blow up to.
const MAX_EXPANDED_BYTES: usize = 4 * MAX_BYTES;
const NODE_BYTES: usize = 16;

/// Reads one document; an empty one is null. `source_name` is how errors call it.
///
/// Keys that are not text take the form that JSON gives them (`true`, `1`).
///
/// # Errors
/// Not YAML, more than one document, unknown tags, or beyond the bounds on size and nesting.
pub fn parse(source_name: &str, text: &str) -> Result<Value, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        source_name,
        anchors: HashMap::new(),
        expanded: 0,
    };
    if text.len() > MAX_BYTES {
        let start = Marker::new(0, 1, 0);
        return Err(reader.error(start, format!("larger than {MAX_BYTES} bytes")));
    }
    if let Some((at, c)) = text.char_indices().find(|(_, c)| !is_printable(*c)) {
        let code = c as u32;
        return Err(locate(
            source_name,
            &text.as_bytes()[..at],
            format!(
                "the control character U+{code:04X} is not allowed; escape it in double quotes"
            ),
        ));
    }
    reader.document(&mut Parser::new_from_str(text))
}

/// As [`parse`], from bytes that ought to be UTF-8.
pub fn parse_bytes(source_name: &str, bytes: &[u8]) -> Result<Value, YamlError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(source_name, text),
        Err(error) => {
            let before = &bytes[..error.valid_up_to()];
            Err(locate(source_name, before, "not UTF-8 text".to_owned()))
        }
    }
}

/// An error right after `before`.
fn locate(source_name: &str, before: &[u8], message: String) -> YamlError {
    let line_start = before
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    YamlError {
        source_name: source_name.to_owned(),
        line: before.iter().filter(|b| **b == b'\n').count() + 1,
        column: String::from_utf8_lossy(&before[line_start..])
            .chars()
            .count()
            + 1,
        message,
    }
}

fn is_printable(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{85}')
        || (!c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}'))
}

struct Reader<'a> {
    source_name: &'a str,
    /// Value and expanded size by anchor. An anchor whose node is still being read is not here yet.
    anchors: HashMap<usize, (Value, usize)>,
    /// Expanded size so far.
    expanded: usize,
}

/// A collection whose end has not come yet.
struct Open {
    anchor: usize,
    /// Expanded size before it.
    before: usize,
    items: Items,
}

enum Items {
    List(Vec<Value>),
    Mapping {
        merged: Vec<(String, Value)>,
        own: Vec<(String, Value)>,
        key: Option<Key>,
    },
}

enum Key {
    Name(String),
    Merge,
}

impl Reader<'_> {
    fn document<'t>(
        &mut self,
        parser: &mut Parser<'t, saphyr_parser::StrInput<'t>>,
    ) -> Result<Value, YamlError> {
        let mut open: Vec<Open> = Vec::new();
        let mut root: Option<Value> = None;
        while let Some(next) = parser.next_event() {
            let (event, span) = next.map_err(|error| self.scan_error(&error))?;
            let at = span.start;
            let (value, anchor, plain_key) = match event {
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {
                    continue;
                }
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(self.error(at, "a second document begins; only one is expected"));
                }
                Event::DocumentStart(_) => continue,
                Event::SequenceStart(anchor, tag) => {
                    self.collection_tag(at, tag.as_deref(), "seq")?;
                    self.open(at, &mut open, anchor, Items::List(Vec::new()))?;
                    continue;
                }
                Event::MappingStart(anchor, tag) => {
                    self.collection_tag(at, tag.as_deref(), "map")?;
                    let items = Items::Mapping {
                        merged: Vec::new(),
                        own: Vec::new(),
                        key: None,
                    };
                    self.open(at, &mut open, anchor, items)?;
                    continue;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let Some(closed) = open.pop() else { continue };
                    let value = closed.items.into_value();
                    if closed.anchor > 0 {
                        let size = self.expanded - closed.before;
                        self.anchors.insert(closed.anchor, (value.clone(), size));
                    }
                    (value, 0, None)
                }
                Event::Alias(anchor) => {
                    let Some((value, size)) = self.anchors.get(&anchor) else {
                        return Err(self.error(at, "an alias stands inside the node it names"));
                    };
                    let (value, size) = (value.clone(), *size);
                    self.count(at, size)?;
                    (value, 0, None)
                }
                Event::Scalar(text, style, anchor, tag) => {
                    self.count(at, NODE_BYTES + text.len())?;
                    // The tag `!` says no more than none does.
                    let tag = tag.as_deref().filter(|tag| core_tag(tag) != Some("!"));
                    let plain = style == ScalarStyle::Plain && tag.is_none();
                    let value = self.scalar(at, &text, plain, tag)?;
                    let is_merge = plain && resolver::meaning(&text) == Meaning::Merge;
                    (value, anchor, is_merge.then_some(Key::Merge))
                }
            };
            if anchor > 0 {
                let size = NODE_BYTES + value.as_str().map_or(0, str::len);
                self.anchors.insert(anchor, (value.clone(), size));
            }
            match open.last_mut() {
                Some(parent) => self.place(at, &mut parent.items, value, plain_key)?,
                None => root = Some(value),
            }
        }
        Ok(root.unwrap_or(Value::Null))
    }

    fn open(
        &mut self,
        at: Marker,
        open: &mut Vec<Open>,
        anchor: usize,
        items: Items,
    ) -> Result<(), YamlError> {
        if open.len() >= MAX_DEPTH {
            return Err(self.error(at, format!("nested more than {MAX_DEPTH} levels deep")));
        }
        let before = self.expanded;
        self.count(at, NODE_BYTES)?;
        open.push(Open {
            anchor,
            before,
            items,
        });
        Ok(())
    }

    fn count(&mut self, at: Marker, bytes: usize) -> Result<(), YamlError> {
        self.expanded = self.expanded.saturating_add(bytes);
        if self.expanded > MAX_EXPANDED_BYTES {
            return Err(self.error(at, "its aliases amount to too much data"));
        }
        Ok(())
    }

    fn scalar(
        &self,
        at: Marker,
        text: &str,
        plain: bool,
        tag: Option<&Tag>,
    ) -> Result<Value, YamlError> {
        let unusable = |what: &str| self.error(at, format!("{text:?} is not {what}"));
        let Some(tag) = tag else {
            return if plain {
                resolver::resolve(text).map_err(|message| self.error(at, message))
            } else {
                Ok(Value::String(text.to_owned()))
            };
        };
        let resolved = || resolver::resolve(text).map_err(|message| self.error(at, message));
        match core_tag(tag) {
            Some("str") => Ok(Value::String(text.to_owned())),
            Some("null") => Ok(Value::Null),
            Some("bool") => match resolver::meaning(&text.to_ascii_lowercase()) {
                Meaning::Bool(value) => Ok(Value::Bool(value)),
                _ => Err(unusable("a boolean")),
            },
            Some("int") if resolver::meaning(text) == Meaning::Int => resolved(),
            Some("int") => Err(unusable("an integer")),
            Some("float") => match resolver::meaning(text) {
                Meaning::Float => resolved(),
                Meaning::Int => Ok(resolved()?.as_f64().map_or(Value::Null, Value::from)),
                _ => text
                    .parse::<f64>()
                    .map(Value::from)
                    .map_err(|_| unusable("a number")),
            },
            Some("timestamp") if resolver::meaning(text) == Meaning::Timestamp => resolved(),
            Some("timestamp") => Err(unusable("a date")),
            _ => Err(self.unknown_tag(at, tag)),
        }
    }

    fn collection_tag(
        &self,
        at: Marker,
        tag: Option<&Tag>,
        expected: &str,
    ) -> Result<(), YamlError> {
        match tag {
            Some(tag) if !matches!(core_tag(tag), Some(name) if name == expected || name == "!") => {
                Err(self.unknown_tag(at, tag))
            }
            _ => Ok(()),
        }
    }

    fn unknown_tag(&self, at: Marker, tag: &Tag) -> YamlError {
        self.error(
            at,
            format!("the tag {}{} cannot be used here", tag.handle, tag.suffix),
        )
    }

    /// Puts a finished node into its parent.
    fn place(
        &self,
        at: Marker,
        items: &mut Items,
        value: Value,
        merge: Option<Key>,
    ) -> Result<(), YamlError> {
        match items {
            Items::List(list) => list.push(value),
            Items::Mapping { merged, own, key } => match key.take() {
                None => {
                    *key = Some(match merge {
                        Some(merge) => merge,
                        None => Key::Name(self.key(at, value)?),
                    });
                }
                Some(Key::Name(name)) => own.push((name, value)),
                Some(Key::Merge) => self.merge(at, merged, value)?,
            },
        }
        Ok(())
    }

    /// The entries of `<<`: of one mapping, or of a list of them, where the first one wins.
    fn merge(
        &self,
        at: Marker,
        merged: &mut Vec<(String, Value)>,
        value: Value,
    ) -> Result<(), YamlError> {
        let wrong = || self.error(at, "<< needs a mapping, or a list of mappings");
        match value {
            Value::Object(entries) => merged.extend(entries),
            Value::Array(list) => {
                for item in list.into_iter().rev() {
                    let Value::Object(entries) = item else {
                        return Err(wrong());
                    };
                    merged.extend(entries);
                }
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn key(&self, at: Marker, value: Value) -> Result<String, YamlError> {
        match value {
            Value::String(text) => Ok(text),
            Value::Array(_) | Value::Object(_) => {
                Err(self.error(at, "a list or a mapping cannot be a key"))
            }
            scalar => Ok(scalar.to_string()),
        }
    }

    fn error(&self, at: Marker, message: impl Into<String>) -> YamlError {
        YamlError {
            source_name: self.source_name.to_owned(),
            line: at.line().max(1),
            column: at.col() + 1,
            message: message.into(),
        }
    }

    fn scan_error(&self, error: &ScanError) -> YamlError {
        self.error(*error.marker(), error.info())
    }
}

impl Items {
    fn into_value(self) -> Value {
        match self {
            Items::List(list) => Value::Array(list),
            // A later entry wins and keeps the place of the earlier one; own entries come last.
            Items::Mapping { merged, own, .. } => {
                let mut map = Map::new();
                for (name, value) in merged.into_iter().chain(own) {
                    map.insert(name, value);
                }
                Value::Object(map)
            }
        }
    }
}

/// The name of a standard tag; `!` for the one without a name.
fn core_tag(tag: &Tag) -> Option<&str> {
    match (tag.handle.as_str(), tag.suffix.as_str()) {
        ("tag:yaml.org,2002:", name) => Some(name),
        ("", "!") | ("!", "") => Some("!"),
        ("", full) => full.strip_prefix("tag:yaml.org,2002:"),
        _ => None,
    }
}
