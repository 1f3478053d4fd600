use std::collections::BTreeMap;

/// A libpq connection string: `keyword=value` pairs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conninfo {
    values: BTreeMap<String, String>,
}

/// Not a connection string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a connection string: {0}")]
pub struct ConninfoError(pub String);

impl Conninfo {
    /// With host, port and database.
    pub fn new(host: &str, port: u16, dbname: &str) -> Self {
        Conninfo::default()
            .with("host", host)
            .with("port", &port.to_string())
            .with("dbname", dbname)
    }

    /// Sets a keyword; an empty value removes it.
    pub fn with(mut self, keyword: &str, value: &str) -> Self {
        self.set(keyword, value);
        self
    }

    /// Sets a keyword; an empty value removes it.
    pub fn set(&mut self, keyword: &str, value: &str) {
        if value.is_empty() {
            self.values.remove(keyword);
        } else {
            self.values.insert(keyword.to_owned(), value.to_owned());
        }
    }

    /// Value of a keyword.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.values.get(keyword).map(String::as_str)
    }
}
