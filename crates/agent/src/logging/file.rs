//! The log file and its rotation by size: `patroni.log`, `patroni.log.1`, …, the oldest with the highest number.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use primacy_config::local::Log;

use super::LogError;

/// The file's name in `log.dir`.
const NAME: &str = "patroni.log";

/// A log file that is rotated.
#[derive(Debug)]
pub(super) struct RotatedFile {
    path: PathBuf,
    file: File,
    /// Bytes in the file, or written since it could not be rotated.
    size: u64,
    limit: u64,
    kept: usize,
    mode: Option<u32>,
}

impl RotatedFile {
    pub(super) fn open(directory: &str, section: &Log) -> Result<Self, LogError> {
        let path = Path::new(directory).join(NAME);
        let file = open(&path, section.mode);
        let (file, size) = file.map_err(|reason| LogError::File {
            path: path.clone(),
            reason,
        })?;
        Ok(RotatedFile {
            path,
            file,
            size,
            limit: section.file_size,
            kept: section.file_num,
            mode: section.mode,
        })
    }

    /// Writes a line, after a rotation if it would make the file too large. A file that cannot be rotated
    /// goes on growing: a log that is too large is better than none.
    pub(super) fn write(&mut self, line: &str) -> io::Result<()> {
        let length = line.len() as u64;
        let is_full =
            self.kept > 0 && self.limit > 0 && self.size > 0 && self.size + length >= self.limit;
        if is_full && let Err(error) = self.rotate() {
            // Tried again once as much more was written, lest every line moves the older files.
            self.size = 0;
            let path = self.path.display();
            let _ = writeln!(
                io::stderr(),
                "cannot rotate {path} ({error}): it goes on growing"
            );
        }
        self.file.write_all(line.as_bytes())?;
        self.size += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: usize| {
            let mut path = self.path.clone().into_os_string();
            path.push(format!(".{number}"));
            PathBuf::from(path)
        };
        for number in (1..self.kept).rev() {
            ignore_missing(fs::rename(numbered(number), numbered(number + 1)))?;
        }
        ignore_missing(fs::rename(&self.path, numbered(1)))?;
        (self.file, self.size) = open(&self.path, self.mode)?;
        Ok(())
    }
}

/// Opens for appending; without a mode the umask decides.
fn open(path: &Path, mode: Option<u32>) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(mode.unwrap_or(0o666))
        .open(path)?;
    if let Some(mode) = mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(file_num: usize, file_size: u64, mode: Option<u32>) -> Log {
        Log {
            file_num,
            file_size,
            mode,
            ..Log::default()
        }
    }

    #[test]
    fn files_are_rotated_by_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let mut file = RotatedFile::open(path, &section(2, 10, Some(0o640))).unwrap();
        for line in ["first\n", "second\n", "third\n", "4\n", "fifth\n"] {
            file.write(line).unwrap();
        }
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).ok();
        assert_eq!(read("patroni.log").as_deref(), Some("fifth\n"));
        assert_eq!(read("patroni.log.1").as_deref(), Some("third\n4\n"));
        assert_eq!(read("patroni.log.2").as_deref(), Some("second\n"));
        assert_eq!(read("patroni.log.3"), None);
        let mode = fs::metadata(directory.path().join("patroni.log"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn an_old_file_is_continued_and_counts() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(NAME), "old line\n").unwrap();
        let mut file =
            RotatedFile::open(directory.path().to_str().unwrap(), &section(1, 12, None)).unwrap();
        file.write("new\n").unwrap();
        assert_eq!(
            fs::read_to_string(directory.path().join("patroni.log.1")).unwrap(),
            "old line\n"
        );
    }

    #[test]
    fn a_file_that_cannot_be_rotated_goes_on_growing() {
        let directory = tempfile::tempdir().unwrap();
        // No file takes the place of a directory, whoever asks.
        fs::create_dir(directory.path().join("patroni.log.1")).unwrap();
        let mut file =
            RotatedFile::open(directory.path().to_str().unwrap(), &section(1, 10, None)).unwrap();
        for line in ["first\n", "second\n", "third\n"] {
            file.write(line).unwrap();
        }
        let path = directory.path().join(NAME);
        assert_eq!(fs::read_to_string(&path).unwrap(), "first\nsecond\nthird\n");
        fs::remove_dir(directory.path().join("patroni.log.1")).unwrap();
        file.write("fourth\n").unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "fourth\n");
    }

    #[test]
    fn a_missing_directory_is_told() {
        let error = RotatedFile::open("/nonexistent/directory", &section(1, 1, None)).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("/nonexistent/directory/patroni.log"),
            "{error}"
        );
    }
}
