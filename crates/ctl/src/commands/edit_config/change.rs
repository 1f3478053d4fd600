use primacy_config::scalar::patch;
use primacy_config::{Map, yaml};
use serde_json::Value;

use crate::Failure;

/// The place below which a name is one name, dots and all: parameters of extensions have dots.
const PARAMETERS: [&str; 2] = ["postgresql", "parameters"];

/// Merges a file into the configuration, by the rules of `PATCH /config`.
pub(super) fn apply(config: &mut Map, text: &str, path: &str) -> Result<(), Failure> {
    let source = if path == "-" { "the input" } else { path };
    match yaml::parse(source, text).map_err(|error| Failure::refused(error.to_string()))? {
        Value::Object(overlay) => {
            patch(config, &overlay);
            Ok(())
        }
        _ => Err(Failure::refused(format!(
            "{source} holds no mapping of keys to values"
        ))),
    }
}

/// Carries out `PATH=VALUE`: the path is parted by dots, the value is YAML, null removes the key and with it
/// the objects that become empty. Whatever is in the way of the path is replaced.
pub(super) fn set(config: &mut Map, assignment: &str) -> Result<(), Failure> {
    let (path, value) = parse(assignment)?;
    let mut path: Vec<&str> = path.split('.').collect();
    let name;
    if path.len() > PARAMETERS.len() && path.starts_with(&PARAMETERS) {
        name = path.split_off(PARAMETERS.len()).join(".");
        path.push(&name);
    }
    assign(config, &path, value)
}

/// Carries out `NAME=VALUE` below `postgresql.parameters`.
pub(super) fn set_parameter(config: &mut Map, assignment: &str) -> Result<(), Failure> {
    let (name, value) = parse(assignment)?;
    assign(config, &[PARAMETERS[0], PARAMETERS[1], name], value)
}

fn parse(assignment: &str) -> Result<(&str, Value), Failure> {
    let (path, text) = assignment
        .split_once('=')
        .ok_or_else(|| Failure::refused(format!("Invalid parameter setting {assignment}")))?;
    let value = yaml::parse(&format!("the value of {path}"), text);
    Ok((
        path,
        value.map_err(|error| Failure::refused(error.to_string()))?,
    ))
}

/// What is nested too deep could be stored, and edited no more.
fn assign(config: &mut Map, path: &[&str], value: Value) -> Result<(), Failure> {
    if path.len() + depth(&value) > yaml::MAX_DEPTH {
        return Err(Failure::refused(format!(
            "{} is nested more than {} levels deep",
            path.join("."),
            yaml::MAX_DEPTH
        )));
    }
    put(config, path, value);
    Ok(())
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

fn put(map: &mut Map, path: &[&str], value: Value) {
    match path {
        [] => {}
        [key] if value.is_null() => {
            map.shift_remove(*key);
        }
        [key] => {
            map.insert((*key).to_owned(), value);
        }
        [key, rest @ ..] => {
            let child = map.entry(*key).or_insert(Value::Null);
            if !child.is_object() {
                *child = Value::Object(Map::new());
            }
            if let Value::Object(inner) = child {
                put(inner, rest, value);
                if inner.is_empty() {
                    map.shift_remove(*key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn after(stored: Value, assignments: &[&str]) -> Value {
        let Value::Object(mut config) = stored else {
            unreachable!()
        };
        for assignment in assignments {
            set(&mut config, assignment).unwrap();
        }
        Value::Object(config)
    }

    #[test]
    fn what_no_editor_could_read_again_is_refused() {
        let mut config = Map::new();
        let path = |levels: usize| vec!["a"; levels].join(".");
        set(&mut config, &format!("{}=1", path(64))).unwrap();
        let written = yaml::to_block(&Value::Object(config.clone()), yaml::KeyOrder::Sorted);
        assert!(yaml::parse("x", &written).is_ok());
        let before = config.clone();
        for (levels, value) in [(65, "1"), (63, "[[1]]"), (63, "{b: {c: 1}}")] {
            let refused = set(&mut config, &format!("{}={value}", path(levels)));
            assert!(refused.is_err(), "{levels} levels, {value}");
        }
        assert_eq!(config, before);
    }

    #[test]
    fn assignments() {
        for (stored, assignment, expected) in [
            (json!({}), "ttl=10", json!({"ttl": 10})),
            (json!({}), "ttl=\"10\"", json!({"ttl": "10"})),
            (
                json!({}),
                "synchronous_mode=on",
                json!({"synchronous_mode": true}),
            ),
            (json!({}), "a={b: 1}", json!({"a": {"b": 1}})),
            (json!({}), "a=b=c", json!({"a": "b=c"})),
            (json!({"a": 1}), "a.b.c=2", json!({"a": {"b": {"c": 2}}})),
            (
                json!({"a": {"b": {"c": 2}}, "d": 1}),
                "a.b.c=null",
                json!({"d": 1}),
            ),
            (
                json!({"a": {"b": 1, "c": 2}}),
                "a.b=",
                json!({"a": {"c": 2}}),
            ),
            (
                json!({}),
                "postgresql.parameters.plpgsql.extra_warnings=all",
                json!({"postgresql": {"parameters": {"plpgsql.extra_warnings": "all"}}}),
            ),
            (
                json!({}),
                "postgresql.x.y=1",
                json!({"postgresql": {"x": {"y": 1}}}),
            ),
            (
                json!({}),
                "postgresql.parameters={a: 1}",
                json!({"postgresql": {"parameters": {"a": 1}}}),
            ),
        ] {
            assert_eq!(after(stored, &[assignment]), expected, "{assignment}");
        }
    }

    #[test]
    fn what_is_no_assignment_is_refused() {
        let refusal = |assignment: &str| set(&mut Map::new(), assignment).unwrap_err().to_string();
        assert_eq!(refusal("ttl"), "Invalid parameter setting ttl");
        assert!(
            refusal("ttl={").contains("invalid YAML"),
            "{}",
            refusal("ttl={")
        );
    }

    #[test]
    fn files_merge_and_nothing_else_does() {
        let mut config = json!({"ttl": 30, "x": {"y": 1}})
            .as_object()
            .unwrap()
            .clone();
        apply(
            &mut config,
            "ttl: \"30\"\nx:\n  z: 2\nloop_wait: null\n",
            "f.yml",
        )
        .unwrap();
        assert_eq!(
            Value::Object(config.clone()),
            json!({"ttl": 30, "x": {"y": 1, "z": 2}})
        );
        assert!(
            apply(&mut config, "- 1\n", "f.yml")
                .unwrap_err()
                .to_string()
                .contains("f.yml")
        );
    }

    proptest! {
        #[test]
        fn any_assignment_is_carried_out_or_refused(assignment: String) {
            let _ = set(&mut Map::new(), &assignment);
        }

        #[test]
        fn what_is_set_is_found_and_what_is_removed_is_gone(
            path in prop::collection::vec("[a-z]{1,4}", 1..5),
            number: i32,
            other in "[a-z]{5}",
        ) {
            prop_assume!(!(path.len() > 2 && path[0] == "postgresql"));
            let stored = json!({other: {"kept": [1]}});
            let path = path.join(".");
            let pointer = format!("/{}", path.replace('.', "/"));
            let set = after(stored.clone(), &[&format!("{path}={number}")]);
            prop_assert_eq!(set.pointer(&pointer), Some(&json!(number)));
            prop_assert_eq!(after(set, &[&format!("{path}=null")]), stored);
        }

        #[test]
        fn parameters_keep_their_dots(name in "[a-z]{1,5}(\\.[a-z]{1,5}){0,3}", number: u16) {
            let mut short = Map::new();
            set_parameter(&mut short, &format!("{name}={number}")).unwrap();
            let long = after(json!({}), &[&format!("postgresql.parameters.{name}={number}")]);
            prop_assert_eq!(Value::Object(short), long.clone());
            prop_assert_eq!(&long["postgresql"]["parameters"][&name], &json!(number));
        }
    }
}

/// What operators type, spoiled; `make fuzz`.
#[cfg(test)]
mod fuzz {
    use super::*;
    use serde_json::json;

    /// What a path leads to is what was typed, and nothing beside it is touched.
    #[test]
    #[ignore = "long: make fuzz"]
    fn assignments() {
        let samples = [
            "postgresql.parameters.pg_stat_statements.max=1000",
            "synchronous_mode=on",
            "slots.a={type: logical, database: d, plugin: p}",
            "postgresql.pg_hba=[local all all trust]",
            "standby_cluster=null",
            "a..b.=1.5e3",
            "kept.b=",
            "=",
        ];
        primacy_fuzz::text(&samples, |input| {
            let stored = json!({"kept": {"a": [1]}, "other": "x"});
            let mut config = stored.as_object().cloned().unwrap_or_default();
            let _ = set_parameter(&mut config.clone(), input);
            if set(&mut config, input).is_err() {
                assert_eq!(Value::Object(config), stored);
                return false;
            }
            let (path, value) = parse(input).expect("it was understood");
            if !path.starts_with("other") {
                assert_eq!(config["other"], "x");
            }
            let mut place = Some(&config);
            let mut keys: Vec<&str> = path.split('.').collect();
            let name;
            if keys.len() > 2 && keys.starts_with(&PARAMETERS) {
                name = keys.split_off(2).join(".");
                keys.push(&name);
            }
            let last = keys.pop().unwrap_or_default();
            for key in keys {
                place = place.and_then(|map| map.get(key)?.as_object());
            }
            let found = place.and_then(|map| map.get(last));
            assert_eq!(found, Some(&value).filter(|value| !value.is_null()));
            // The store keeps JSON, and the next editor is given YAML.
            let config = Value::Object(config);
            let written = yaml::to_block(&config, yaml::KeyOrder::Sorted);
            assert_eq!(yaml::parse("x", &written).as_ref(), Ok(&config));
            let stored: Result<Value, _> = serde_json::from_str(&config.to_string());
            assert_eq!(stored.ok(), Some(config));
            true
        });
    }
}
