use serde_json::Value;
use serde_json::map::Entry;

use super::text::python_str;
use crate::Map;

/// Lays `overlay` over `target` (`configuration.md` §0.4): null deletes, mappings merge, all else replaces if its
/// text differs. Tells whether anything changed.
pub fn patch(target: &mut Map, overlay: &Map) -> bool {
    let mut changed = false;
    for (key, value) in overlay {
        match target.entry(key.as_str()) {
            Entry::Vacant(_) if value.is_null() => {}
            Entry::Vacant(vacant) => {
                vacant.insert(value.clone());
                changed = true;
            }
            Entry::Occupied(occupied) if value.is_null() => {
                changed |= !occupied.shift_remove().is_null();
            }
            Entry::Occupied(mut occupied) => match (occupied.get_mut(), value) {
                (Value::Object(old), Value::Object(new)) => changed |= patch(old, new),
                (old, new @ Value::Object(_)) => {
                    *old = new.clone();
                    changed = true;
                }
                (old, new) if python_str(old) != python_str(new) => {
                    *old = new.clone();
                    changed = true;
                }
                _ => {}
            },
        }
    }
    changed
}

/// Whether two configurations are the same: the same keys, mappings compared inside, all else by its text.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        (Value::Object(_), _) | (_, Value::Object(_)) => false,
        (a, b) => python_str(a) == python_str(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patching() {
        for (target, overlay, result, changed) in [
            (json!({"a": 1}), json!({"a": null}), json!({}), true),
            (json!({"a": null}), json!({"a": null}), json!({}), false),
            (json!({}), json!({"a": null}), json!({}), false),
            (
                json!({}),
                json!({"a": {"b": null}}),
                json!({"a": {"b": null}}),
                true,
            ),
            (
                json!({"a": {"b": 1}}),
                json!({"a": {"c": 2}}),
                json!({"a": {"b": 1, "c": 2}}),
                true,
            ),
            (
                json!({"a": {"b": 1}}),
                json!({"a": {"b": 1}}),
                json!({"a": {"b": 1}}),
                false,
            ),
            (json!({"a": 5}), json!({"a": "5"}), json!({"a": 5}), false),
            (
                json!({"a": [1, 2]}),
                json!({"a": [3]}),
                json!({"a": [3]}),
                true,
            ),
            (
                json!({"a": 5}),
                json!({"a": {"b": 1}}),
                json!({"a": {"b": 1}}),
                true,
            ),
            (
                json!({"a": {"b": 1}}),
                json!({"a": 5}),
                json!({"a": 5}),
                true,
            ),
            (
                json!({"a": {}}),
                json!({"a": "{}"}),
                json!({"a": {}}),
                false,
            ),
        ] {
            let mut patched = target.as_object().unwrap().clone();
            assert_eq!(
                patch(&mut patched, overlay.as_object().unwrap()),
                changed,
                "{overlay}"
            );
            assert_eq!(Value::Object(patched), result);
        }
    }

    #[test]
    fn sameness() {
        for (a, b, expected) in [
            (json!(2), json!("2"), true),
            (json!(true), json!("True"), true),
            (json!(true), json!("true"), false),
            (json!([1]), json!(["1"]), false),
            (json!({"a": 1, "b": 2}), json!({"b": "2", "a": 1}), true),
            (json!({"a": 1}), json!({"a": 1, "b": null}), false),
            (json!({}), json!("{}"), false),
        ] {
            assert_eq!(same(&a, &b), expected, "{a} {b}");
        }
    }
}
