//! The local layer: a file or a directory of files, and the environment over it (`configuration.md` §1.1,
//! §1.2).

use std::path::Path;

use serde_json::Value;

use crate::{ConfigError, Environment};

/// Loads the local configuration tree. A path that does not exist counts as none.
///
/// # Errors
/// A file cannot be read, is not YAML or holds no mapping; or there is no configuration at all.
pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Value, ConfigError> {
    let _ = (path, environment);
    Err(ConfigError::Empty)
}
