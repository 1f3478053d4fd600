//! Where the programs are that tests run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The command that runs an agent, instead of the project's own, the configuration's path to be appended: the same
/// suite then shows how another implementation of the contract behaves.
pub const AGENT_COMMAND: &str = "PRIMACY_AGENT_COMMAND";
/// The command that stands for `patronictl`, likewise.
pub const CTL_COMMAND: &str = "PRIMACY_CTL_COMMAND";
/// The directory of PostgreSQL's programs, where it is not Debian's.
pub const PG_BIN: &str = "PRIMACY_TEST_PG_BIN";

/// A program and its first arguments.
#[derive(Debug, Clone)]
pub struct CommandLine {
    pub program: PathBuf,
    pub arguments: Vec<String>,
}

impl CommandLine {
    pub fn new(program: &Path, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        Self {
            program: program.to_owned(),
            arguments,
        }
    }

    /// The command in the environment variable `variable`, if there is one, else this.
    pub fn unless_set(self, variable: &str) -> Self {
        let set = std::env::var(variable).unwrap_or_default();
        let words: Vec<&str> = set.split_ascii_whitespace().collect();
        match words[..] {
            [] => self,
            [program, ref arguments @ ..] => Self::new(Path::new(program), arguments),
        }
    }
}

/// The directory of `initdb`, `postgres` and the others: the newest that Debian installed.
pub fn postgresql_bin_dir() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os(PG_BIN) {
        return Ok(PathBuf::from(directory));
    }
    let newest = std::fs::read_dir("/usr/lib/postgresql")
        .ok()
        .and_then(|versions| {
            versions
                .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
                .filter(|bin| bin.join("initdb").exists())
                .max_by_key(|bin| version_of(bin))
        });
    newest.with_context(|| {
        format!("no PostgreSQL in /usr/lib/postgresql: run `make setup`, or set {PG_BIN}")
    })
}

fn version_of(bin: &Path) -> u32 {
    bin.parent()
        .and_then(Path::file_name)
        .and_then(|name| name.to_str()?.parse().ok())
        .unwrap_or(0)
}
