use std::path::PathBuf;

use crate::scalar::parse_int_in;
use crate::section::Section;
use crate::{ConfigError, Map};

/// The least that is worth keeping.
const SIZE_MIN: u64 = 64 * 1024;
/// As much as weeks of ordinary life need, or many bad nights.
const SIZE_DEFAULT: u64 = 8 * 1024 * 1024;

/// The `journal` section: where it is kept that and why things were done. Ours; Patroni ignores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// Directory of the file; `None` is the one that the data directory is in. Never the data directory itself, which
    /// may be wiped or rewound.
    pub directory: Option<PathBuf>,
    /// Bytes, on disk and in memory.
    pub size: u64,
}

impl Default for Journal {
    fn default() -> Self {
        Journal {
            directory: None,
            size: SIZE_DEFAULT,
        }
    }
}

impl Journal {
    pub(crate) fn parse(root: &Map) -> Result<Journal, ConfigError> {
        let Some(section) = Section::of("journal", root, "journal")? else {
            return Ok(Journal::default());
        };
        let size = match section.get("size") {
            None => SIZE_DEFAULT,
            Some(value) => parse_int_in(value, Some("B"))
                .and_then(|bytes| u64::try_from(bytes).ok())
                .filter(|bytes| *bytes >= SIZE_MIN)
                .ok_or_else(|| {
                    section.invalid("size", value, "bytes, at least 64kB, such as 8MB")
                })?,
        };
        Ok(Journal {
            directory: section.text("directory")?.map(PathBuf::from),
            size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(section: Value) -> Result<Journal, ConfigError> {
        let mut root = Map::new();
        root.insert("journal".into(), section);
        Journal::parse(&root)
    }

    #[test]
    fn settings_of_the_journal() {
        assert_eq!(Journal::parse(&Map::new()).unwrap(), Journal::default());
        assert_eq!(parse(Value::Null).unwrap(), Journal::default());
        for (section, directory, size) in [
            (json!({"size": "1MB"}), None, 1 << 20),
            (json!({"size": 100_000}), None, 100_000),
            (
                json!({"directory": "/var/log/primacy", "size": "64kB"}),
                Some("/var/log/primacy"),
                64 << 10,
            ),
        ] {
            let journal = parse(section).unwrap();
            assert_eq!(
                (journal.directory, journal.size),
                (directory.map(PathBuf::from), size)
            );
        }
        for wrong in [json!({"size": "much"}), json!({"size": "1kB"}), json!("x")] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains("journal"), "{error}");
        }
    }
}
