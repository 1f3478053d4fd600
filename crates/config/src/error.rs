use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::yaml::YamlError;

/// Why a configuration cannot be used. Each text names the file or the key and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither file nor environment gave anything.
    #[error("Config is empty. Give a configuration file, or set PATRONI_* environment variables")]
    Empty,
    /// The reserved member name.
    #[error("Node 'name' can't be set to '{0}'")]
    ReservedName(&'static str),
    /// A required key is absent.
    #[error("{key} is not defined. {hint}")]
    Missing {
        /// Dotted path.
        key: String,
        /// What to write there.
        hint: String,
    },
    /// A key holds something that cannot be used.
    #[error("{key} is {found}: expected {expected}")]
    Invalid {
        /// Dotted path.
        key: String,
        /// The value, in short, or its type where it may be secret.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// No section of any store.
    #[error(
        "Can not find suitable configuration of distributed configuration store\nAvailable implementations: etcd3, raft"
    )]
    NoStore,
    /// The file cannot be read.
    #[error("cannot read configuration {}: check that it exists and is readable", path.display())]
    Read {
        /// File or directory.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The path is neither a file nor a directory.
    #[error("invalid config path {}: it is neither a file nor a directory", .0.display())]
    InvalidPath(PathBuf),
    /// The file holds no mapping.
    #[error("invalid config file {}: it must hold a mapping of keys to values", .0.display())]
    NotAMapping(PathBuf),
    /// Not YAML.
    #[error("{0}")]
    Yaml(YamlError),
}

impl ConfigError {
    pub(crate) fn missing(key: impl Into<String>, hint: impl Into<String>) -> Self {
        ConfigError::Missing {
            key: key.into(),
            hint: hint.into(),
        }
    }

    pub(crate) fn invalid(
        key: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        ConfigError::Invalid {
            key: key.into(),
            found: found.into(),
            expected: expected.into(),
        }
    }
}

/// Something in the configuration that was set aside or adjusted; to be logged once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub String);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
