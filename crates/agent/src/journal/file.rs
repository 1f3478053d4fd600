//! The journal's file: a JSON object per line. It is two files, the current one and the one before, each of at most
//! half the size; a full one takes the place of the older.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use primacy_model::JournalRecord;

/// What is kept where.
#[derive(Debug)]
pub(super) struct JournalFile {
    path: PathBuf,
    /// Of one file.
    limit: u64,
    open: Option<(File, u64)>,
}

impl JournalFile {
    pub(super) fn new(path: PathBuf, size: u64) -> Self {
        JournalFile {
            path,
            limit: size / 2,
            open: None,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn before(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".1");
        path.into()
    }

    /// Appends whole lines, durably. After an error the file is opened anew the next time.
    pub(super) fn append(&mut self, lines: &str) -> io::Result<()> {
        let (mut file, mut size) = match self.open.take() {
            Some(open) => open,
            None => open(&self.path)?,
        };
        for line in lines.split_inclusive('\n') {
            if size > 0 && size + line.len() as u64 > self.limit {
                file.sync_data()?;
                std::fs::rename(&self.path, self.before())?;
                (file, size) = open(&self.path)?;
            }
            file.write_all(line.as_bytes())?;
            size += line.len() as u64;
        }
        file.sync_data()?;
        self.open = Some((file, size));
        Ok(())
    }
}

/// Opens for appending, readable by its owner only. A line that an earlier write left unfinished gets its end, so that
/// it spoils no other one.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let no_links = rustix::fs::OFlags::NOFOLLOW.bits();
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(no_links as i32)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    let mut size = file.metadata()?.len();
    if size > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            size += 1;
        }
    }
    Ok((file, size))
}

/// The entries of both files, oldest first; what is torn or none of ours is left out. A file that is not there, or
/// cannot be read, has none.
pub(super) fn read(file: &JournalFile) -> Vec<(Timestamp, String)> {
    let mut entries = Vec::new();
    for path in [&file.before(), &file.path] {
        let Ok(open) = File::open(path) else {
            continue;
        };
        // One that somebody put there may be of any size.
        let mut bytes = Vec::new();
        if let Err(error) = open.take(2 * file.limit).read_to_end(&mut bytes) {
            tracing::warn!("the journal {} cannot be read: {error}", path.display());
        }
        let text = String::from_utf8_lossy(&bytes);
        entries.extend(text.lines().filter_map(|line| {
            let record = JournalRecord::from_line(line)?;
            Some((record.at, line.to_owned()))
        }));
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(number: i64, text: &str) -> String {
        let at = Timestamp::from_second(number).unwrap();
        let record = JournalRecord::event(at, "pg1".into(), text);
        record.to_line() + "\n"
    }

    fn numbers(file: &JournalFile) -> Vec<i64> {
        read(file).iter().map(|(at, _)| at.as_second()).collect()
    }

    #[test]
    fn files_are_bounded_and_their_owners_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("demo-pg1.journal");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let size = 20 * line(1000, "text").len() as u64;
        let mut file = JournalFile::new(path.clone(), size);
        for number in 1000..1100 {
            file.append(&line(number, "text")).unwrap();
        }
        let told = numbers(&file);
        assert!(told.len() > 10 && told.len() <= 20, "{told:?}");
        assert_eq!(told, (1100 - told.len() as i64..1100).collect::<Vec<_>>());
        let mut total = 0;
        for path in [path, file.before()] {
            let metadata = std::fs::metadata(path).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
            total += metadata.len();
        }
        assert!(total <= size);
    }

    #[test]
    fn a_directory_that_comes_later_is_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("later");
        let mut file = JournalFile::new(below.join("j"), 1 << 20);
        assert!(file.append(&line(1, "lost")).is_err());
        std::fs::create_dir(&below).unwrap();
        file.append(&line(2, "kept")).unwrap();
        assert_eq!(numbers(&file), [2]);
    }

    #[test]
    fn a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("j");
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(JournalFile::new(path, 1 << 20).append("x\n").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A crash may cut the file at any byte: what was written before is read, and what is written after.
        #[test]
        fn a_file_cut_at_any_byte_is_readable(
            texts in prop::collection::vec(any::<String>(), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("j");
            let mut file = JournalFile::new(path.clone(), 1 << 20);
            let mut ends = Vec::new();
            let mut length = 0;
            for (number, text) in texts.iter().enumerate() {
                let line = line(number as i64, text);
                length += line.len();
                ends.push(length);
                file.append(&line).unwrap();
            }
            let cut = cut.index(length);
            File::options().write(true).open(&path).unwrap().set_len(cut as u64).unwrap();
            // A line without its end is whole.
            let mut expected: Vec<i64> =
                (0..texts.len()).filter(|n| ends[*n] <= cut + 1).map(|n| n as i64).collect();
            prop_assert_eq!(numbers(&file), expected.clone());
            let mut again = JournalFile::new(path, 1 << 20);
            again.append(&line(99, "after")).unwrap();
            expected.push(99);
            prop_assert_eq!(numbers(&again), expected);
        }

        /// Whatever is in the file, it is read without an end of the agent.
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("j");
            std::fs::write(&path, bytes).unwrap();
            read(&JournalFile::new(path, 1 << 20));
        }
    }
}
