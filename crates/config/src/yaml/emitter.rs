use serde_json::Value;

use super::resolver::{self, Meaning};
use crate::scalar::python_float;

/// Column after which text is folded, and after which the next item of a flow collection begins a line. What
/// the operator's commands show has this one.
const WIDE: usize = 200;

/// The same in configuration files, where it is PyYAML's default.
const NARROW: usize = 80;

/// A key longer than this (PyYAML counts its tag in) is written in the `? key` form.
const LONGEST_SIMPLE_KEY: usize = 127;

/// In which order the keys of a mapping are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOrder {
    /// By code point.
    Sorted,
    /// As they stand.
    Kept,
}

/// A document in block style, with a newline at its end: the text of PyYAML's `safe_dump` with
/// `default_flow_style=False, allow_unicode=True, width=200`.
///
/// One difference: text with the Unicode line breaks U+0085, U+2028 and U+2029 is double-quoted with
/// escapes, so that readers of YAML 1.1 and 1.2 agree on it.
pub fn to_block(value: &Value, order: KeyOrder) -> String {
    block(value, order, WIDE)
}

/// As [`to_block`] with sorted keys, but text is folded after 80 columns: for configuration files.
pub fn to_file(value: &Value) -> String {
    block(value, KeyOrder::Sorted, NARROW)
}

fn block(value: &Value, order: KeyOrder, width: usize) -> String {
    let mut emitter = Emitter {
        order,
        width,
        ..Emitter::default()
    };
    emitter.node(value, None);
    emitter.out.push('\n');
    if emitter.open_ended {
        emitter.out.push_str("...\n");
    }
    emitter.out
}

/// One line, such as `{nosync: true, replicatefrom: pg0}`, without a newline at its end; beyond 200 columns it
/// is folded. Keys are sorted.
pub fn to_flow(value: &Value) -> String {
    let mut emitter = Emitter {
        flow: value.is_array() || value.is_object(),
        ..Emitter::default()
    };
    emitter.node(value, None);
    emitter.out
}

struct Emitter {
    out: String,
    /// In characters.
    column: usize,
    width: usize,
    order: KeyOrder,
    /// Inside a flow collection.
    flow: bool,
    /// A plain scalar is the whole document.
    open_ended: bool,
}

impl Default for Emitter {
    fn default() -> Self {
        Emitter {
            out: String::new(),
            column: 0,
            width: WIDE,
            order: KeyOrder::Sorted,
            flow: false,
            open_ended: false,
        }
    }
}

impl Emitter {
    /// Writes a node at the current position. `indent` is that of the collection it stands in, `None` at
    /// the root.
    fn node(&mut self, value: &Value, indent: Option<usize>) {
        match value {
            Value::Array(items) if items.is_empty() => self.write("[]"),
            Value::Object(items) if items.is_empty() => self.write("{}"),
            Value::Array(items) if self.flow => self.flow_sequence(items, deeper(indent)),
            Value::Object(items) if self.flow => self.flow_mapping(items, deeper(indent)),
            Value::Array(items) => self.block_sequence(items, indent.map_or(0, |i| i + 2)),
            Value::Object(items) => self.block_mapping(items, indent.map_or(0, |i| i + 2)),
            scalar => {
                let plain = self.scalar(scalar, deeper(indent), false);
                self.open_ended = plain && indent.is_none();
            }
        }
    }

    /// The first key goes to the current position, the others to lines of their own.
    fn block_mapping(&mut self, items: &crate::Map, indent: usize) {
        for (index, (key, value)) in self.ordered(items).into_iter().enumerate() {
            if index > 0 {
                self.newline(indent);
            }
            let key = Value::String(key.clone());
            if is_simple_key(&key) {
                self.scalar(&key, indent + 2, true);
                self.write(":");
            } else {
                self.write("? ");
                self.scalar(&key, indent + 2, false);
                self.newline(indent);
                self.write(": ");
                self.node(value, Some(indent));
                continue;
            }
            match value {
                Value::Array(items) if !items.is_empty() => {
                    self.newline(indent);
                    self.block_sequence(items, indent);
                }
                Value::Object(items) if !items.is_empty() => {
                    self.newline(indent + 2);
                    self.block_mapping(items, indent + 2);
                }
                _ => {
                    self.write(" ");
                    self.node(value, Some(indent));
                }
            }
        }
    }

    fn block_sequence(&mut self, items: &[Value], indent: usize) {
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.newline(indent);
            }
            self.write("- ");
            self.node(item, Some(indent));
        }
    }

    fn flow_sequence(&mut self, items: &[Value], indent: usize) {
        self.write("[");
        for (index, item) in items.iter().enumerate() {
            self.next_flow_item(index, indent);
            self.node(item, Some(indent));
        }
        self.write("]");
    }

    fn flow_mapping(&mut self, items: &crate::Map, indent: usize) {
        self.write("{");
        for (index, (key, value)) in self.ordered(items).into_iter().enumerate() {
            self.next_flow_item(index, indent);
            let key = Value::String(key.clone());
            if is_simple_key(&key) {
                self.scalar(&key, indent + 2, true);
                self.write(": ");
            } else {
                self.write("? ");
                self.scalar(&key, indent + 2, false);
                if self.column > self.width {
                    self.newline(indent);
                    self.write(": ");
                } else {
                    self.write(" : ");
                }
            }
            self.node(value, Some(indent));
        }
        self.write("}");
    }

    fn next_flow_item(&mut self, index: usize, indent: usize) {
        if index > 0 {
            self.write(",");
        }
        if self.column > self.width {
            self.newline(indent);
        } else if index > 0 {
            self.write(" ");
        }
    }

    fn ordered<'m>(&self, items: &'m crate::Map) -> Vec<(&'m String, &'m Value)> {
        let mut entries: Vec<_> = items.iter().collect();
        if self.order == KeyOrder::Sorted {
            entries.sort_by(|a, b| a.0.cmp(b.0));
        }
        entries
    }

    /// Writes a scalar; `indent` is that of its continuation lines. Tells whether it was written plain.
    fn scalar(&mut self, value: &Value, indent: usize, simple_key: bool) -> bool {
        let text = match value {
            Value::String(text) => text,
            Value::Null => "null",
            Value::Bool(true) => "true",
            Value::Bool(false) => "false",
            Value::Number(number) => &match number.as_f64().filter(|_| number.is_f64()) {
                Some(float) => yaml_float(float),
                None => number.to_string(),
            },
            Value::Array(_) | Value::Object(_) => return false,
        };
        if !value.is_string() {
            self.write(text);
            return true;
        }
        let analysis = Analysis::of(text);
        let plain = if self.flow {
            analysis.flow_plain
        } else {
            analysis.block_plain
        };
        if plain && resolver::meaning(text) == Meaning::Text {
            self.plain(text, indent, !simple_key);
            return true;
        }
        if analysis.single_quoted && !(simple_key && analysis.multiline) {
            self.single_quoted(text, indent, !simple_key);
        } else {
            self.double_quoted(text, indent, !simple_key);
        }
        false
    }

    fn plain(&mut self, text: &str, indent: usize, fold: bool) {
        for run in runs(text) {
            if fold && run == " " && self.column > self.width {
                self.newline(indent);
            } else {
                self.write(run);
            }
        }
    }

    fn single_quoted(&mut self, text: &str, indent: usize, fold: bool) {
        self.write("'");
        let mut at = 0;
        for run in runs(text) {
            let inside = at > 0 && at + run.len() < text.len();
            at += run.len();
            if run.starts_with('\n') {
                // One break reads as a blank, so each takes a line more.
                for _ in 0..run.len() {
                    self.newline(0);
                }
                self.newline(indent);
            } else if fold && run == " " && inside && self.column > self.width {
                self.newline(indent);
            } else {
                self.write(&run.replace('\'', "''"));
            }
        }
        self.write("'");
    }

    /// Folds before a blank, or after an escape, with a backslash at the end of the line.
    fn double_quoted(&mut self, text: &str, indent: usize, fold: bool) {
        self.write("\"");
        let mut pending = String::new();
        let mut chars = text.chars().enumerate().peekable();
        let last = text.chars().count().saturating_sub(1);
        while let Some((index, c)) = chars.next() {
            let escaped = escape(c);
            let foldable = c == ' ' || pending.is_empty() || escaped.is_some();
            if let Some(escaped) = &escaped {
                self.write(&std::mem::take(&mut pending));
                self.write(escaped);
            }
            // The line may be one longer when the escape itself is the last thing on it.
            let full = match &escaped {
                Some(_) => self.column > self.width + 1,
                None => self.column + pending.chars().count() > self.width,
            };
            if fold && foldable && full && index > 0 && index < last {
                self.write(&std::mem::take(&mut pending));
                self.write("\\");
                self.newline(indent);
                let next = if escaped.is_some() {
                    chars.peek().map(|(_, c)| *c)
                } else {
                    Some(c)
                };
                if next == Some(' ') {
                    self.write("\\");
                }
            }
            if escaped.is_none() {
                pending.push(c);
            }
        }
        self.write(&pending);
        self.write("\"");
    }

    fn write(&mut self, text: &str) {
        self.column += text.chars().count();
        self.out.push_str(text);
    }

    fn newline(&mut self, indent: usize) {
        self.out.push('\n');
        self.out.extend(std::iter::repeat_n(' ', indent));
        self.column = indent;
    }
}

fn deeper(indent: Option<usize>) -> usize {
    indent.map_or(2, |indent| indent + 2)
}

fn is_simple_key(key: &Value) -> bool {
    let text = key.as_str().unwrap_or_default();
    let tag = "!!str".len();
    !text.is_empty() && text.chars().count() + tag <= LONGEST_SIMPLE_KEY && !text.contains(is_break)
}

/// Splits into runs of blanks, of line feeds and of anything else.
fn runs(text: &str) -> impl Iterator<Item = &str> {
    let kind = |c: char| match c {
        ' ' => 0,
        '\n' => 1,
        _ => 2,
    };
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = kind(rest.chars().next()?);
        let end = rest.find(|c| kind(c) != first).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        rest = after;
        Some(run)
    })
}

/// The text that reads back as this float.
fn yaml_float(float: f64) -> String {
    let text = python_float(float);
    if text.contains('.') {
        text
    } else {
        text.replacen('e', ".0e", 1)
    }
}

/// In which styles a text can be written.
struct Analysis {
    multiline: bool,
    flow_plain: bool,
    block_plain: bool,
    single_quoted: bool,
}

impl Analysis {
    fn of(text: &str) -> Analysis {
        let chars: Vec<char> = text.chars().collect();
        let (Some(&first), Some(&last)) = (chars.first(), chars.last()) else {
            return Analysis {
                multiline: false,
                flow_plain: false,
                block_plain: true,
                single_quoted: true,
            };
        };
        let blank_at = |index: usize| {
            chars
                .get(index)
                .is_none_or(|c| matches!(c, '\0' | ' ' | '\t' | '\r') || is_break(*c))
        };
        let multiline = chars.iter().any(|c| is_break(*c));
        let special = chars.iter().any(|c| is_special(*c));

        let marker = text.starts_with("---") || text.starts_with("...");
        let mut block_indicator =
            marker || "#,[]{}&*!|>'\"%@`".contains(first) || ("?:-".contains(first) && blank_at(1));
        let mut flow_indicator = block_indicator || "?:".contains(first);
        for (index, c) in chars.iter().enumerate().skip(1) {
            flow_indicator |= ",?[]{}:".contains(*c);
            let significant =
                (*c == ':' && blank_at(index + 1)) || (*c == '#' && blank_at(index - 1));
            block_indicator |= significant;
            flow_indicator |= significant;
        }

        let at_edge = [first, last].iter().any(|c| *c == ' ' || is_break(*c));
        let follows = |a: fn(char) -> bool, b: fn(char) -> bool| {
            chars.windows(2).any(|pair| a(pair[0]) && b(pair[1]))
        };
        let is_blank = |c: char| c == ' ';
        let blank_after_break = follows(is_break, is_blank);
        let blank_before_break = follows(is_blank, is_break);
        let plain = !(at_edge || multiline || special);
        Analysis {
            multiline,
            flow_plain: plain && !flow_indicator,
            block_plain: plain && !block_indicator,
            single_quoted: !(special || blank_after_break || blank_before_break),
        }
    }
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Must be written as an escape.
fn is_special(c: char) -> bool {
    !matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{fefe}'
        | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..='\u{10fffe}')
}

/// How a character is written between double quotes; `None`: as it is.
fn escape(c: char) -> Option<String> {
    let short = match c {
        '\0' => '0',
        '\x07' => 'a',
        '\x08' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\x0b' => 'v',
        '\x0c' => 'f',
        '\r' => 'r',
        '\x1b' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        _ if !is_special(c) && c <= '\u{ffff}' => return None,
        _ if c <= '\u{ff}' => return Some(format!("\\x{:02X}", c as u32)),
        _ if c <= '\u{ffff}' => return Some(format!("\\u{:04X}", c as u32)),
        _ => return Some(format!("\\U{:08X}", c as u32)),
    };
    Some(format!("\\{short}"))
}
