//! Whether this server's WAL is the same as another one's, by its bytes.
//!
//! Two members that were promoted from the same timeline at the same position, without knowing of each other, have
//! timelines of the same number and the same history files. Only what they wrote tells them apart: each begins with a
//! record that holds the time of the promotion. A standby that goes on from the wrong one stops with a broken record at
//! best.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::RangeInclusive;

use primacy_model::{Lsn, Timeline};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::rewind::LocalPosition;
use crate::session::Connection;
use crate::wal::{ValidWal, segment_name};
use crate::{Error, Server};

/// So much before the position is compared at most.
const COMPARED: u64 = 16 << 20;

impl Server {
    /// Compares what is in the last WAL segment up to the local position with the primary's, which may have it under
    /// any timeline from the local one to its own. `None`: one of them does not have that segment any more, or the
    /// rewind user may not read it.
    ///
    /// The WAL of a stopped server may end before the position: pg_rewind copies WAL while the source goes on, and then
    /// demands that recovery reaches what the source had got to when everything was copied. Then as much of it is
    /// compared as there is.
    pub(crate) async fn has_same_wal(
        &self,
        local: LocalPosition,
        primary: &Connection,
        primary_timeline: Timeline,
        deadline: Instant,
    ) -> Result<Option<bool>, Error> {
        let size =
            "SELECT pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size'))";
        let size = primary.value(size, deadline).await?;
        let size = size.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let mut end = local.lsn;
        loop {
            let Some(part) = Part::before(end, size) else {
                return Ok(None);
            };
            let Some(mine) = self.local_digest(part, local.timeline, deadline).await? else {
                return Ok(None);
            };
            let timelines = local.timeline.0..=primary_timeline.0;
            let Some(theirs) = primary_digest(primary, part, timelines, deadline).await? else {
                return Ok(None);
            };
            if theirs == mine {
                return Ok(Some(true));
            }
            let begin = Lsn(end.0 - part.length);
            let valid = self.valid_wal(begin, end, local.timeline, deadline);
            match valid.await? {
                ValidWal::All => return Ok(Some(false)),
                ValidWal::UpTo(valid) if begin < valid && valid < end => end = valid,
                ValidWal::UpTo(_) | ValidWal::Nothing => return Ok(None),
            }
        }
    }

    /// SHA-256 of a part of the local WAL, in hexadecimal; `None` without the segment.
    async fn local_digest(
        &self,
        part: Part,
        timeline: Timeline,
        deadline: Instant,
    ) -> Result<Option<String>, Error> {
        let path = self
            .settings()
            .data_dir
            .join("pg_wal")
            .join(part.file(timeline));
        self.disk("reading the last WAL segment", deadline, move || {
            let digest = |mut file: File| -> std::io::Result<String> {
                file.seek(SeekFrom::Start(part.offset))?;
                let mut hasher = Sha256::new();
                std::io::copy(&mut file.take(part.length), &mut hasher)?;
                let hex = hasher
                    .finalize()
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                Ok(hex)
            };
            match File::open(&path).and_then(digest) {
                Ok(digest) => Ok(Some(digest)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(Error::file("read", path)(source)),
            }
        })
        .await
    }
}

/// As [`Server::local_digest`], of the primary's WAL, under the first of these timelines that has the segment.
async fn primary_digest(
    primary: &Connection,
    part: Part,
    timelines: RangeInclusive<u32>,
    deadline: Instant,
) -> Result<Option<String>, Error> {
    for timeline in timelines {
        let sql = format!(
            "SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.pg_read_binary_file('pg_wal/{}', {}, {}, true)), 'hex')",
            part.file(Timeline(timeline)),
            part.offset,
            part.length
        );
        if let Some(digest) = primary.value(&sql, deadline).await? {
            return Ok(Some(digest));
        }
    }
    Ok(None)
}

/// A part of a WAL segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// The last byte.
    last: Lsn,
    segment_size: u64,
    offset: u64,
    length: u64,
}

impl Part {
    /// What ends at this position, in the segment that it is in.
    fn before(position: Lsn, segment_size: u64) -> Option<Part> {
        let last = position.0.checked_sub(1)?;
        let end = last.checked_rem(segment_size)? + 1;
        let length = end.min(COMPARED);
        Some(Part {
            last: Lsn(last),
            segment_size,
            offset: end - length,
            length,
        })
    }

    /// The file's name on that timeline.
    fn file(&self, timeline: Timeline) -> String {
        let segment = segment_name(self.last, self.segment_size);
        format!("{:08X}{segment}", timeline.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_before_a_position() {
        let part = |lsn, size| Part::before(Lsn(lsn), size).unwrap();
        let within = part(0x1_0300_0028, 16 << 20);
        assert_eq!(within.file(Timeline(7)), "000000070000000100000003");
        assert_eq!((within.offset, within.length), (0, 0x28));
        let boundary = part(0x300_0000, 16 << 20);
        assert_eq!(boundary.file(Timeline(1)), "000000010000000000000002");
        assert_eq!((boundary.offset, boundary.length), (0, 16 << 20));
        let large = part(0x1_3000_0000, 1 << 30);
        assert_eq!(large.file(Timeline(1)), "000000010000000100000000");
        assert_eq!((large.offset, large.length), (0x2f00_0000, COMPARED));
        assert_eq!(Part::before(Lsn(0), 16 << 20), None);
        assert_eq!(Part::before(Lsn(1), 0), None);
    }
}
