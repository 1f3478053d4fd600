use std::borrow::Cow;

use indexmap::IndexMap;
use serde_json::Value;

use crate::scalar::{parse_bool, parse_int, parse_real, python_str, truthy};
use crate::{ConfigError, GucMap, Map, Secret};

/// A mapping of the configuration tree that knows where it stands, so that errors name the key. Null values
/// count as absent.
#[derive(Clone, Copy)]
pub(crate) struct Section<'a> {
    path: &'a str,
    map: &'a Map,
}

impl<'a> Section<'a> {
    /// `path` is empty for the root.
    pub(crate) fn new(path: &'a str, map: &'a Map) -> Self {
        Section { path, map }
    }

    /// The mapping at `key`, if there is one; an empty or null one counts as absent where a section is.
    pub(crate) fn of(
        path: &'a str,
        parent: &'a Map,
        key: &str,
    ) -> Result<Option<Self>, ConfigError> {
        match parent.get(key) {
            Some(Value::Object(map)) => Ok(Some(Section { path, map })),
            Some(value) if truthy(value) => Err(ConfigError::invalid(
                path,
                describe(value),
                "a mapping of keys to values",
            )),
            _ => Ok(None),
        }
    }

    pub(crate) fn map(&self) -> &'a Map {
        self.map
    }

    pub(crate) fn key(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Text; numbers and booleans are taken as they print. Empty text counts as absent.
    pub(crate) fn text(&self, key: &str) -> Result<Option<String>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            // What is left of an empty value at the top (`configuration.md` §1.4 B).
            Some(Value::Object(map)) if map.is_empty() => Ok(None),
            Some(value @ (Value::Array(_) | Value::Object(_))) => {
                Err(self.invalid(key, value, "text"))
            }
            Some(value) => Ok(Some(python_str(value)).filter(|text| !text.is_empty())),
        }
    }

    pub(crate) fn secret(&self, key: &str) -> Result<Option<Secret>, ConfigError> {
        Ok(self.text(key)?.map(Secret::new))
    }

    pub(crate) fn required(&self, key: &str, hint: &str) -> Result<String, ConfigError> {
        self.text(key)?
            .ok_or_else(|| ConfigError::missing(self.key(key), hint))
    }

    pub(crate) fn int(&self, key: &str) -> Result<Option<i64>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => parse_int(value)
                .map(Some)
                .ok_or_else(|| self.invalid(key, value, "an integer")),
        }
    }

    /// An integer of at least zero.
    pub(crate) fn count<T: TryFrom<i64>>(&self, key: &str) -> Result<Option<T>, ConfigError> {
        match self.int(key)? {
            None => Ok(None),
            Some(number) => T::try_from(number).map(Some).map_err(|_| {
                ConfigError::invalid(self.key(key), number.to_string(), "a number in range")
            }),
        }
    }

    pub(crate) fn real(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => parse_real(value)
                .map(Some)
                .ok_or_else(|| self.invalid(key, value, "a number")),
        }
    }

    /// `on true yes 1` and their opposites; absent is false.
    pub(crate) fn bool(&self, key: &str) -> Result<bool, ConfigError> {
        match self.get(key) {
            None => Ok(false),
            Some(value) => {
                parse_bool(value).ok_or_else(|| self.invalid(key, value, "true or false"))
            }
        }
    }

    /// Python's truth: the text `false` is true (`configuration.md` §9, 30).
    pub(crate) fn truthy(&self, key: &str) -> bool {
        self.get(key).is_some_and(truthy)
    }

    /// A list of text, or text with commas.
    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
        let expected = "a list of text";
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| match item {
                    Value::Array(_) | Value::Object(_) | Value::Null => {
                        Err(self.invalid(key, item, expected))
                    }
                    item => Ok(python_str(item).trim().to_owned()),
                })
                .collect::<Result<_, _>>()
                .map(Some),
            Some(Value::String(text)) => Ok(Some(
                text.split(',')
                    .map(|item| item.trim().to_owned())
                    .filter(|item| !item.is_empty())
                    .collect(),
            )),
            Some(other) => Err(self.invalid(key, other, expected)),
        }
    }

    /// The lines of a file: a list, of which only the text items count.
    pub(crate) fn lines(&self, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(
                items
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect(),
            )),
            Some(other) => Err(self.invalid(key, other, "a list with one line per item")),
        }
    }

    /// A mapping whose values are taken as they print.
    pub(crate) fn table(&self, key: &str) -> Result<IndexMap<String, String>, ConfigError> {
        Ok(self
            .object(key)?
            .iter()
            .map(|(name, value)| (name.clone(), python_str(value)))
            .collect())
    }

    /// A mapping; an absent one is empty.
    pub(crate) fn object(&self, key: &str) -> Result<Cow<'a, Map>, ConfigError> {
        match self.get(key) {
            Some(Value::Object(map)) => Ok(Cow::Borrowed(map)),
            Some(value) if truthy(value) => {
                Err(self.invalid(key, value, "a mapping of keys to values"))
            }
            _ => Ok(Cow::Owned(Map::new())),
        }
    }

    /// A mapping of PostgreSQL parameters; an absent one is empty.
    pub(crate) fn gucs(&self, key: &str) -> Result<GucMap, ConfigError> {
        let object = self.object(key)?;
        Ok(GucMap::from_object(&object))
    }

    pub(crate) fn invalid(&self, key: &str, value: &Value, expected: &str) -> ConfigError {
        let found = if key.contains("password") {
            kind(value).into()
        } else {
            describe(value)
        };
        ConfigError::invalid(self.key(key), found, expected)
    }
}

/// A scalar as it prints; the kind of a collection, whose content may be secret.
fn describe(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Array(_) | Value::Object(_) => kind(value).to_owned(),
        scalar => python_str(scalar),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}
