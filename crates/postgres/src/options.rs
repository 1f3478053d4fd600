//! Option lists of tools (`configuration.md` §0.6).

use serde_json::{Map, Value};

/// Options as arguments, and what was wrong with the rest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ToolOptions {
    pub(crate) arguments: Vec<String>,
    pub(crate) problems: Vec<String>,
}

/// Reads an option list. `allowed` says why an option, with its value, may not be given.
pub(crate) fn tool_options(
    tool: &str,
    section: &Value,
    refused: impl Fn(&str, &str) -> bool,
) -> ToolOptions {
    let mut options = ToolOptions::default();
    let mut add = |name: &str, value: Option<&str>| {
        let value = value.map(unquote);
        if refused(name, value.as_deref().unwrap_or_default()) {
            options
                .problems
                .push(format!("{name} option for {tool} is not allowed"));
            return;
        }
        options.arguments.push(match value {
            Some(value) => format!("--{name}={value}"),
            None => format!("--{name}"),
        });
    };
    let mut problems = Vec::new();
    match section {
        Value::Null => {}
        Value::Object(map) => {
            for (name, value) in map {
                let value = plain(value);
                if !name.is_empty() && !value.is_empty() {
                    add(name, Some(&value));
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::String(name) => add(name, None),
                    Value::Object(map) => match single(map) {
                        Some((name, value)) => add(name, Some(value)),
                        None => problems.push(format!(
                            "error when parsing {tool} key {item}: one key with a string value is expected"
                        )),
                    },
                    _ => problems.push(format!(
                        "error when parsing {tool} option {item}: a string or a single key-value pair \
                         is expected"
                    )),
                }
            }
        }
        _ => problems.push(format!("{tool} options must be a list or a dict")),
    }
    options.problems.extend(problems);
    options
}

fn single(map: &Map<String, Value>) -> Option<(&str, &str)> {
    let mut entries = map.iter();
    match (entries.next(), entries.next()) {
        (Some((name, Value::String(value))), None) => Some((name, value)),
        _ => None,
    }
}

/// The text of one quoted word: `"a b"` gives `a b`.
fn unquote(value: &str) -> String {
    match shell_words::split(value).as_deref() {
        Ok([word]) => word.clone(),
        _ => value.to_owned(),
    }
}

/// A scalar as it is passed on a command line; `True` and `False` as Python prints them.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Truthiness of a flag in a method's section.
pub(crate) fn truthy(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => *flag,
        Some(Value::String(text)) => !matches!(
            text.to_ascii_lowercase().as_str(),
            "" | "off" | "false" | "no" | "0"
        ),
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(section: Value) -> (Vec<String>, usize) {
        let options = tool_options("initdb", &section, |name, _| name == "pgdata");
        (options.arguments, options.problems.len())
    }

    #[test]
    fn lists_and_maps() {
        for (section, arguments, problems) in [
            (json!(null), vec![], 0),
            (
                json!(["data-checksums", {"encoding": "UTF8"}]),
                vec!["--data-checksums", "--encoding=UTF8"],
                0,
            ),
            (
                json!({"encoding": "UTF8", "locale": "", "n": 3}),
                vec!["--encoding=UTF8", "--n=3"],
                0,
            ),
            (
                json!([{"label": "\"a b\""}, {"label": "a b"}]),
                vec!["--label=a b", "--label=a b"],
                0,
            ),
            (json!(["pgdata", {"pgdata": "/x"}, "ok"]), vec!["--ok"], 2),
            (json!([{"a": "1", "b": "2"}, {"a": 1}, 5]), vec![], 3),
            (json!("x"), vec![], 1),
        ] {
            let (found, wrong) = read(section.clone());
            assert_eq!(
                (found.as_slice(), wrong),
                (arguments.map_strings().as_slice(), problems),
                "{section}"
            );
        }
    }

    trait MapStrings {
        fn map_strings(self) -> Vec<String>;
    }

    impl MapStrings for Vec<&str> {
        fn map_strings(self) -> Vec<String> {
            self.into_iter().map(str::to_owned).collect()
        }
    }
}
