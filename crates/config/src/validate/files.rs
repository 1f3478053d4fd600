use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Options;
use crate::Map;
use crate::parameters::STRICT_PLACEHOLDER;
use crate::scalar::python_str;

/// What must be found beside each other; pg_rewind may be missing.
const BINARIES: [&str; 6] = [
    "pg_ctl",
    "initdb",
    "pg_controldata",
    "pg_basebackup",
    "postgres",
    "pg_isready",
];

/// To which `bin_name` may give other names; its other keys mean nothing.
pub(super) fn renameable() -> impl Iterator<Item = &'static str> {
    BINARIES.into_iter().chain(["pg_rewind"])
}

/// `postgres --version` prints a line and exits; a disk that sleeps takes a few seconds.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn member_name(name: &str, _: Options) -> Result<(), String> {
    if name == STRICT_PLACEHOLDER {
        Err("Wrong value".into())
    } else {
        Ok(())
    }
}

/// The executables of a `postgresql` section.
pub(super) struct Binaries<'a> {
    dir: String,
    names: Option<&'a Map>,
}

impl<'a> Binaries<'a> {
    pub(super) fn of(postgresql: &'a Map) -> Binaries<'a> {
        Binaries {
            dir: postgresql
                .get("bin_dir")
                .and_then(|dir| dir.as_str())
                .unwrap_or("")
                .to_owned(),
            names: postgresql
                .get("bin_name")
                .and_then(|names| names.as_object()),
        }
    }

    fn name(&self, binary: &str) -> String {
        self.names
            .and_then(|names| names.get(binary))
            .map_or_else(|| binary.into(), python_str)
    }

    /// What is wrong with `bin_dir`; the texts stand for themselves.
    pub(super) fn faults(&self) -> Vec<String> {
        let dir = Path::new(&self.dir);
        if !self.dir.is_empty() && !dir.exists() {
            return vec![format!("Directory '{}' does not exist.", self.dir)];
        }
        if !self.dir.is_empty() && !dir.is_dir() {
            return vec![format!("'{}' is not a directory.", self.dir)];
        }
        BINARIES
            .iter()
            .filter_map(|binary| self.look_for(&self.name(binary)).err())
            .collect()
    }

    /// The executable of this name.
    pub(super) fn find(&self, name: &str) -> Result<PathBuf, String> {
        if name.is_empty() {
            return Err("is an empty string".into());
        }
        self.look_for(name)
    }

    fn look_for(&self, name: &str) -> Result<PathBuf, String> {
        let search = env::var_os("PATH").unwrap_or_default();
        let dirs = match self.dir.is_empty() {
            true => env::split_paths(&search).collect(),
            false => vec![PathBuf::from(&self.dir)],
        };
        dirs.into_iter()
            .map(|dir| dir.join(name))
            .find(|path| is_executable(path))
            .ok_or_else(|| {
                let place = if self.dir.is_empty() {
                    "$PATH"
                } else {
                    &self.dir
                };
                format!("does not contain '{name}' in '{place}'")
            })
    }

    /// Major version, as `PG_VERSION` has it: `15`, `9.6`.
    pub(super) fn version(&self) -> Result<String, String> {
        let failed = |reason: String| format!("Failed to get postgres version: {reason}");
        let name = self.name("postgres");
        let postgres = self.find(&name).map_err(|_| {
            let place = Path::new(&self.dir).join(&name);
            failed(format!("there is no executable '{}'", place.display()))
        })?;
        first_line(&postgres)
            .as_deref()
            .and_then(major_version)
            .ok_or_else(|| failed(format!("'{} --version' prints none", postgres.display())))
    }
}

/// From `postgres (PostgreSQL) 15.18 (Debian ...)`; before version 10 the second number belongs to it.
fn major_version(printed: &str) -> Option<String> {
    let number = printed
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut parts = number.split(|c: char| !c.is_ascii_digit());
    let first = parts.next()?;
    let old = first.parse::<u32>().ok()? < 10;
    Some(match parts.next().filter(|_| old) {
        Some(second) => format!("{first}.{second}"),
        None => first.to_owned(),
    })
}

/// A data directory that is absent, empty, or of a cluster of the right version.
pub(super) fn data_dir(text: &str, binaries: &Binaries<'_>) -> Result<(), String> {
    let path = Path::new(text);
    if text.is_empty() {
        return Err("is an empty string".into());
    }
    if !path.exists() {
        return Ok(());
    }
    if !path.is_dir() {
        return Err("is not a directory".into());
    }
    if !path.join("global/pg_control").exists() {
        let entries = fs::read_dir(path).map_err(|error| error.to_string())?;
        let ignored = |name: &str| name.starts_with('.') || name == "lost+found";
        if entries
            .flatten()
            .all(|entry| ignored(&entry.file_name().to_string_lossy()))
        {
            return Ok(());
        }
    }
    let version = fs::read_to_string(path.join("PG_VERSION"))
        .map_err(|_| "doesn't look like a valid data directory".to_owned())?;
    let version = version.trim();
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    let wal = if major.unwrap_or(0) >= 10 {
        "pg_wal"
    } else {
        "pg_xlog"
    };
    if !path.join(wal).is_dir() {
        return Err(format!(
            "data dir for the cluster is not empty, but doesn't contain \"{wal}\" directory"
        ));
    }
    let binary = binaries.version()?;
    if binary != version {
        return Err(format!(
            "data_dir directory postgresql version ({version}) doesn't match with \
             'postgres --version' output ({binary})"
        ));
    }
    Ok(())
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// What `<program> --version` prints, if it does within the deadline.
fn first_line(program: &Path) -> Option<String> {
    let mut child = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let deadline = Instant::now() + VERSION_TIMEOUT;
    while child.try_wait().ok()?.is_none() {
        if Instant::now() >= deadline {
            let _ = child.kill();
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().ok()?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::major_version;

    #[test]
    fn major_versions_are_as_in_pg_version() {
        for (printed, version) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0)", Some("15")),
            ("postgres (PostgreSQL) 18beta1", Some("18")),
            ("postgres (PostgreSQL) 9.6.24", Some("9.6")),
            ("postgres (PostgreSQL)", None),
        ] {
            assert_eq!(major_version(printed).as_deref(), version, "{printed}");
        }
    }
}
