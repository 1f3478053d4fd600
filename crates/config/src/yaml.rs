//! YAML 1.1 as Python's PyYAML reads and writes it (`configuration.md` §0.1).

use std::fmt;

/// A document that cannot be read: which file, where, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlError {
    /// The file, or how else the text is called.
    pub source_name: String,
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let YamlError {
            source_name,
            line,
            column,
            message,
        } = self;
        write!(f, "{source_name}, line {line}, column {column}: {message}")
    }
}

impl std::error::Error for YamlError {}
