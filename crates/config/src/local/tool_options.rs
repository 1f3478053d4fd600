use serde_json::Value;

use crate::scalar::{python_repr, python_str, truthy};

/// Options for a PostgreSQL tool (§0.6).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ToolOptions {
    /// The accepted ones, in order.
    pub options: Vec<ToolOption>,
    /// What was wrong with the others.
    pub problems: Vec<String>,
}

/// `--name` or `--name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolOption {
    /// Without the dashes.
    pub name: String,
    /// Unquoted.
    pub value: Option<String>,
}

impl ToolOption {
    /// As a command line argument.
    pub fn argument(&self) -> String {
        match &self.value {
            Some(value) => format!("--{}={value}", self.name),
            None => format!("--{}", self.name),
        }
    }
}

impl ToolOptions {
    /// `tool` is the key of the section, `initdb`, `basebackup` or `rewind`.
    pub(crate) fn parse(tool: &str, value: Option<&Value>) -> ToolOptions {
        let mut parsed = ToolOptions::default();
        match value {
            None => {}
            Some(Value::Object(options)) => {
                for (name, value) in options {
                    if !name.is_empty() && truthy(value) {
                        parsed.add(tool, name, Some(&python_str(value)));
                    }
                }
            }
            Some(Value::Array(items)) => {
                for item in items {
                    parsed.item(tool, item);
                }
            }
            Some(value) if !truthy(value) => {}
            Some(_) => {
                parsed
                    .problems
                    .push(format!("{tool} options must be a list or a mapping"));
            }
        }
        parsed
    }

    fn item(&mut self, tool: &str, item: &Value) {
        if let Value::String(name) = item {
            return self.add(tool, name, None);
        }
        if let Value::Object(pair) = item
            && let (1, Some((name, Value::String(value)))) = (pair.len(), pair.iter().next())
        {
            return self.add(tool, name, Some(value));
        }
        self.problems.push(format!(
            "{tool} option {} cannot be used: write it as text, or as one key with a text value",
            python_repr(item)
        ));
    }

    fn add(&mut self, tool: &str, name: &str, value: Option<&str>) {
        if forbidden(tool).contains(&name) {
            self.problems
                .push(format!("{name} option for {tool} is not allowed"));
        } else {
            let value = value.map(unquoted);
            self.options.push(ToolOption {
                name: name.to_owned(),
                value,
            });
        }
    }
}

/// What the agent sets itself.
fn forbidden(tool: &str) -> &'static [&'static str] {
    match tool {
        "initdb" => &["pgdata", "nosync", "pwfile", "sync-only", "version"],
        "basebackup" => &[
            "pgdata",
            "format",
            "wal-method",
            "xlog-method",
            "gzip",
            "version",
            "dbname",
            "host",
            "port",
            "username",
            "password",
        ],
        "rewind" => &[
            "target-pgdata",
            "source-pgdata",
            "source-server",
            "write-recovery-conf",
            "dry-run",
            "restore-target-wal",
            "config-file",
            "no-ensure-shutdown",
            "version",
            "help",
        ],
        _ => &[],
    }
}

/// The text of one quoted word: `"a b"` gives `a b`.
fn unquoted(text: &str) -> String {
    match shell_words::split(text).as_deref() {
        Ok([word]) => word.clone(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// `configuration.md` §2.3, §2.13, §2.13.3.
    #[test]
    fn what_the_agent_sets_itself_is_refused() {
        let compared = |tool: &str, names: &[&str]| {
            for name in names {
                for value in [
                    json!([name]),
                    json!([{ *name: "x" }]),
                    json!({ *name: "x" }),
                ] {
                    let parsed = ToolOptions::parse(tool, Some(&value));
                    assert_eq!(parsed.options, [], "{value}");
                    let told = format!("{name} option for {tool} is not allowed");
                    assert_eq!(parsed.problems, [told]);
                }
            }
            let other = ToolOptions::parse(tool, Some(&json!(["no-clean"])));
            assert!(other.problems.is_empty() && other.options.len() == 1);
        };
        compared(
            "initdb",
            &["pgdata", "nosync", "pwfile", "sync-only", "version"],
        );
        compared(
            "basebackup",
            &[
                "pgdata",
                "format",
                "wal-method",
                "xlog-method",
                "gzip",
                "version",
                "dbname",
                "host",
                "port",
                "username",
                "password",
            ],
        );
        compared(
            "rewind",
            &[
                "target-pgdata",
                "source-pgdata",
                "source-server",
                "write-recovery-conf",
                "dry-run",
                "restore-target-wal",
                "config-file",
                "no-ensure-shutdown",
                "version",
                "help",
            ],
        );
    }

    #[test]
    fn options_are_a_list_or_a_mapping() {
        for (tool, value, arguments, problems) in [
            (
                "initdb",
                json!([{"encoding": "UTF8"}, "data-checksums"]),
                vec!["--encoding=UTF8", "--data-checksums"],
                0,
            ),
            (
                "initdb",
                json!({"encoding": "UTF8", "x": "", "wal-segsize": 16}),
                vec!["--encoding=UTF8", "--wal-segsize=16"],
                0,
            ),
            (
                "initdb",
                json!(["pgdata", {"pwfile": "x"}, {"a": 1}, {"a": "1", "b": "2"}, 5]),
                vec![],
                5,
            ),
            (
                "basebackup",
                json!([{"label": "'a b'"}, {"waldir": "\"/x y\""}]),
                vec!["--label=a b", "--waldir=/x y"],
                0,
            ),
            ("rewind", json!("x"), vec![], 1),
            ("rewind", json!(null), vec![], 0),
        ] {
            let parsed = ToolOptions::parse(tool, Some(&value));
            let written: Vec<_> = parsed.options.iter().map(ToolOption::argument).collect();
            assert_eq!(written, arguments, "{value}");
            assert_eq!(parsed.problems.len(), problems, "{:?}", parsed.problems);
        }
    }
}
