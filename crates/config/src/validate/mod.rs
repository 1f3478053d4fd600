//! `--validate-config`: every fault of a local configuration at once, one line each, in a fixed order
//! (`configuration.md` §7.2, §8).
//!
//! Scripts match on the lines, so they keep the wording. Values of secret keys are not shown.

mod address;
mod files;
mod rule;
mod schema;

use serde_json::Value;

use self::rule::{Fault, Rule, check};
use crate::Map;
use crate::scalar::python_str;

/// How to validate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A port in use is no fault: the configuration is that of a running agent.
    pub ignore_listen_port: bool,
}

/// The faults of a local tree, none if it is valid. Looks at directories and executables, resolves
/// names, and connects to the addresses named.
pub fn validate(local: &Value, options: Options) -> Vec<String> {
    let nothing = Map::new();
    let mut report = Report {
        lines: Vec::new(),
        options,
    };
    schema::root(&mut report, local.as_object().unwrap_or(&nothing));
    report.lines
}

/// Version of the `postgres` that this configuration names, without its minor part (150000 form).
///
/// # Errors
/// It cannot be run, in the words that a person sees.
pub fn server_version(local: &Map) -> Result<u32, String> {
    let nothing = Map::new();
    let postgresql = local.get("postgresql").and_then(Value::as_object);
    let version = files::Binaries::of(postgresql.unwrap_or(&nothing)).version()?;
    let mut parts = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let (first, second) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    Ok(first.saturating_mul(10_000) + second * 100)
}

/// The tree as `--print` shows it: `postgresql.bin_dir` is there even when it was not configured.
pub fn with_defaults(local: &Value) -> Value {
    let mut tree = local.clone();
    if let Some(Value::Object(postgresql)) = tree.get_mut("postgresql") {
        postgresql.entry("bin_dir").or_insert_with(|| "".into());
    }
    tree
}

struct Report {
    lines: Vec<String>,
    options: Options,
}

/// A mapping, and where it stands.
struct Place<'a> {
    path: String,
    map: &'a Map,
}

impl<'a> Place<'a> {
    fn key(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

impl Report {
    fn line(&mut self, path: &str, value: &str, text: &str) {
        let key = path.rsplit('.').next().unwrap_or(path);
        let secret = key.ends_with("password") || key == "token" || key == "auth_data";
        let value = if secret && !value.is_empty() {
            "***"
        } else {
            value
        };
        self.lines.push(format!("{path} {value} {text}"));
    }

    fn missing(&mut self, path: &str) {
        self.line(path, "", "is not defined.");
    }

    /// A key that may be left out.
    fn optional(&mut self, place: &Place<'_>, key: &str, rule: &Rule) {
        if let Some(value) = place.map.get(key) {
            self.value(&place.key(key), value, rule);
        }
    }

    /// Several of the same kind.
    fn all(&mut self, place: &Place<'_>, keys: &[&str], rule: &Rule) {
        for key in keys {
            self.optional(place, key, rule);
        }
    }

    fn required(&mut self, place: &Place<'_>, key: &str, rule: &Rule) {
        match place.map.get(key) {
            Some(value) => self.value(&place.key(key), value, rule),
            None => self.missing(&place.key(key)),
        }
    }

    /// At least one of the keys; each that is there must be right.
    fn one_of(&mut self, place: &Place<'_>, rules: &[(&str, &Rule)]) {
        let missing = !rules.iter().any(|(key, _)| place.map.contains_key(*key));
        for (key, rule) in rules {
            if missing {
                self.missing(&place.key(key));
            } else {
                self.optional(place, key, rule);
            }
        }
    }

    /// At most one of the keys.
    fn at_most_one(&mut self, place: &Place<'_>, rules: [(&str, &Rule); 2]) {
        if rules.iter().all(|(key, _)| place.map.contains_key(*key)) {
            let [(a, _), (b, _)] = rules;
            self.line(
                &place.path,
                "",
                &format!("Multiple of ('{a}', '{b}') provided"),
            );
        } else {
            for (key, rule) in rules {
                self.optional(place, key, rule);
            }
        }
    }

    /// Enters a mapping. `None`, and a line, when the value is something else; `None` alone when an optional
    /// one is absent.
    fn enter<'a>(&mut self, place: &Place<'a>, key: &str, required: bool) -> Option<Place<'a>> {
        let path = place.key(key);
        match place.map.get(key) {
            Some(Value::Object(map)) => Some(Place { path, map }),
            Some(value) => {
                self.line(&path, &python_str(value), "is not a dictionary");
                None
            }
            None => {
                if required {
                    self.missing(&path);
                }
                None
            }
        }
    }

    fn value(&mut self, path: &str, value: &Value, rule: &Rule) {
        for Fault {
            below, shown, text, ..
        } in check(value, rule, self.options)
        {
            self.line(&format!("{path}{below}"), &shown, &text);
        }
    }
}
