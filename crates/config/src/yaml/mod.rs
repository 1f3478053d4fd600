//! YAML 1.1 as Python's PyYAML reads and writes it (`configuration.md` §0.1).
//!
//! The hazard: files written for YAML 1.1 mean something else to a YAML 1.2 reader. `on` is true,
//! `0640` is octal, `10:30` is 630. A reader that disagrees with the one that a file was written for
//! changes a running cluster without a word. So the grammar comes from a parser, and the meaning of plain
//! scalars is decided here.

mod emitter;
mod reader;
mod resolver;

use std::fmt;

pub use emitter::{KeyOrder, to_block, to_file, to_flow};
pub use reader::{MAX_BYTES, MAX_DEPTH, parse, parse_bytes};

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
        write!(
            f,
            "{source_name}, line {line}, column {column}: invalid YAML: {message}"
        )
    }
}

impl std::error::Error for YamlError {}
