//! Which values a version of PostgreSQL accepts for a parameter.
//!
//! The tables are text, a parameter per line: `name: rule; rule`. A rule is a code, the versions
//! `from-till` (till excluded, open when left out), and what the code needs: `min..max` and `[unit]` for
//! the numbers I and R, `{words}` for the enumerations E and EB. B is a boolean, EB a boolean or one of the
//! words, S any text. The first rule whose versions fit counts.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::Warning;
use crate::scalar::{parse_bool, parse_int_in, parse_real_in, python_str};

static ORDINARY: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("ordinary.txt")));
static RECOVERY: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("recovery.txt")));

/// The rules of all parameters, by name in lower case.
pub(super) struct Table(HashMap<String, Vec<Rule>>);

struct Rule {
    from: u32,
    till: Option<u32>,
    accepts: Accepts,
}

enum Accepts {
    Bool,
    Int(Range),
    Real(Range),
    Enum(Vec<&'static str>),
    EnumBool(Vec<&'static str>),
    Text,
}

/// The bounds as they are written, for they are what an excessive value is replaced by.
struct Range {
    min: &'static str,
    max: &'static str,
    unit: Option<&'static str>,
}

/// What becomes of a value.
pub(super) enum Verdict {
    /// Written as given.
    Kept(String),
    /// Written as the nearest bound.
    Clamped(String, Warning),
    /// Not written.
    Removed(Warning),
    /// No rule for this parameter in this version.
    Unknown,
}

impl Table {
    /// Parameters that are not about recovery.
    pub(super) fn ordinary() -> &'static Table {
        &ORDINARY
    }

    /// Parameters of recovery.
    pub(super) fn recovery() -> &'static Table {
        &RECOVERY
    }

    /// Whether any version knows the parameter.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(&name.to_ascii_lowercase())
    }

    /// Judges a value for a server of this version.
    pub(super) fn judge(&self, name: &str, value: &Value, server_version: u32) -> Verdict {
        let rules = self
            .0
            .get(&name.to_ascii_lowercase())
            .map_or(&[][..], Vec::as_slice);
        let fits = |rule: &&Rule| {
            rule.from <= server_version && rule.till.is_none_or(|till| server_version < till)
        };
        let Some(rule) = rules.iter().find(fits) else {
            return Verdict::Unknown;
        };
        let text = python_str(value);
        let one_of = |words: &[&str]| words.contains(&text.to_lowercase().as_str());
        let (kind, accepted) = match &rule.accepts {
            Accepts::Text => ("string", true),
            Accepts::Bool => ("bool", parse_bool(value).is_some()),
            Accepts::Enum(words) => ("enum", one_of(words)),
            Accepts::EnumBool(words) => ("enum", parse_bool(value).is_some() || one_of(words)),
            Accepts::Int(range) => {
                let number = parse_int_in(value, range.unit).map(|number| number as f64);
                return range.judge("integer", name, text, number);
            }
            Accepts::Real(range) => {
                return range.judge("real", name, text, parse_real_in(value, range.unit));
            }
        };
        if accepted {
            Verdict::Kept(text)
        } else {
            removed(kind, name, &text)
        }
    }

    fn parse(text: &'static str) -> Table {
        let mut table = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, rules)) = line.split_once(": ") {
                let rules = rules.split("; ").filter_map(Rule::parse).collect();
                table.insert(name.to_ascii_lowercase(), rules);
            }
        }
        Table(table)
    }
}

impl Range {
    fn judge(&self, kind: &str, name: &str, text: String, number: Option<f64>) -> Verdict {
        let bound = |bound: &str| bound.parse::<f64>().unwrap_or_default();
        let unit = self.unit.unwrap_or_default();
        let (change, to) = match number {
            None => return removed(kind, name, &text),
            Some(number) if number < bound(self.min) => ("too low, increasing", self.min),
            Some(number) if number > bound(self.max) => ("too big, decreasing", self.max),
            Some(_) => return Verdict::Kept(text),
        };
        let told = format!("Value={text} of parameter={name} is {change} to {to}{unit}");
        Verdict::Clamped(to.to_owned(), Warning(told))
    }
}

fn removed(kind: &str, name: &str, text: &str) -> Verdict {
    Verdict::Removed(Warning(format!(
        "Removing {kind} parameter={name} from the config due to the invalid value={text}"
    )))
}

impl Rule {
    fn parse(text: &'static str) -> Option<Rule> {
        let (code, rest) = text.split_once(' ')?;
        let (versions, details) = rest.split_once(' ').unwrap_or((rest, ""));
        let (from, till) = versions.split_once('-')?;
        let accepts = match code {
            "B" => Accepts::Bool,
            "S" => Accepts::Text,
            "I" => Accepts::Int(Range::parse(details)?),
            "R" => Accepts::Real(Range::parse(details)?),
            "E" => Accepts::Enum(words(details)?),
            "EB" => Accepts::EnumBool(words(details)?),
            _ => return None,
        };
        let till = if till.is_empty() {
            None
        } else {
            Some(till.parse().ok()?)
        };
        Some(Rule {
            from: from.parse().ok()?,
            till,
            accepts,
        })
    }
}

impl Range {
    fn parse(text: &'static str) -> Option<Range> {
        let (range, unit) = match text.split_once(' ') {
            Some((range, unit)) => (range, Some(unit.strip_prefix('[')?.strip_suffix(']')?)),
            None => (text, None),
        };
        let (min, max) = range.split_once("..")?;
        (min.parse::<f64>().is_ok() && max.parse::<f64>().is_ok()).then_some(Range {
            min,
            max,
            unit,
        })
    }
}

/// `{a, b}`; `''` is the empty word.
fn words(text: &'static str) -> Option<Vec<&'static str>> {
    let inside = text.strip_prefix('{')?.strip_suffix('}')?;
    Some(
        inside
            .split(", ")
            .map(|word| if word == "''" { "" } else { word })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_line_of_the_tables_is_understood() {
        for (text, count) in [
            (include_str!("ordinary.txt"), 404),
            (include_str!("recovery.txt"), 18),
        ] {
            let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
            assert_eq!(lines.len(), count);
            for line in lines {
                let (_, rules) = line.split_once(": ").unwrap();
                assert!(
                    rules.split("; ").all(|rule| Rule::parse(rule).is_some()),
                    "{line}"
                );
            }
            assert_eq!(Table::parse(text).0.len(), count);
        }
    }

    #[test]
    fn values_are_judged_by_version() {
        let judge = |name: &str, value: Value, version| match Table::ordinary()
            .judge(name, &value, version)
        {
            Verdict::Kept(text) => format!("kept {text}"),
            Verdict::Clamped(text, warning) => format!("clamped {text}: {warning}"),
            Verdict::Removed(warning) => format!("removed: {warning}"),
            Verdict::Unknown => "unknown".to_owned(),
        };
        for (name, value, version, expected) in [
            ("Work_Mem", json!("4MB"), 150_018, "kept 4MB"),
            (
                "work_mem",
                json!(1),
                150_018,
                "clamped 64: Value=1 of parameter=work_mem is too low, increasing to 64kB",
            ),
            (
                "max_connections",
                json!(999_999_999),
                150_018,
                "clamped 262143: Value=999999999 of parameter=max_connections is too big, \
                 decreasing to 262143",
            ),
            (
                "work_mem",
                json!("x"),
                150_018,
                "removed: Removing integer parameter=work_mem from the config due to the \
                 invalid value=x",
            ),
            ("fsync", json!(true), 150_018, "kept True"),
            ("wal_level", json!("Logical"), 150_018, "kept Logical"),
            (
                "synchronous_commit",
                json!("remote_apply"),
                150_018,
                "kept remote_apply",
            ),
            ("huge_pages", json!("TRY"), 150_018, "kept TRY"),
            ("wal_keep_segments", json!(8), 150_018, "unknown"),
            ("wal_keep_segments", json!(8), 120_000, "kept 8"),
            (
                "restrict_nonsystem_relation_kind",
                json!("view"),
                150_007,
                "unknown",
            ),
            (
                "restrict_nonsystem_relation_kind",
                json!("view"),
                150_008,
                "kept view",
            ),
            (
                "jit_above_cost",
                json!(-2),
                150_018,
                "clamped -1: Value=-2 of parameter=\
             jit_above_cost is too low, increasing to -1",
            ),
            ("ssl_max_protocol_version", json!(""), 150_018, "kept "),
            ("nonsense", json!(1), 150_018, "unknown"),
        ] {
            assert_eq!(judge(name, value, version), expected);
        }
    }
}
