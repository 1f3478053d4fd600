//! Reading WAL with pg_waldump.

use primacy_model::{Lsn, Timeline};
use tokio::time::Instant;

use crate::command::Run;
use crate::{Error, Server, Until};

/// A record, as pg_waldump prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    lsn: Lsn,
    previous: Lsn,
    resource_manager: String,
    description: String,
}

/// How far the local WAL can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValidWal {
    /// As far as was asked.
    All,
    /// Up to where a record begins or ends.
    UpTo(Lsn),
    /// No record at all.
    Nothing,
}

impl Server {
    /// Whether the local WAL of a timeline has valid records from one position up to another one.
    pub(crate) async fn valid_wal(
        &self,
        start: Lsn,
        end: Lsn,
        timeline: Timeline,
        deadline: Instant,
    ) -> Result<ValidWal, Error> {
        let settings = self.settings();
        // The statistics, for the records themselves would be many.
        let output = Run::new(settings.binary("pg_waldump"))
            .arg("-p")
            .arg(settings.data_dir.join("pg_wal"))
            .args([
                "-z",
                "-t",
                &timeline.0.to_string(),
                "-s",
                &start.to_string(),
                "-e",
                &end.to_string(),
            ])
            .c_locale()
            .quiet()
            .output(&Until::deadline(deadline))
            .await?;
        Ok(match output.status.success() {
            true => ValidWal::All,
            false => last_valid(&output.stderr).map_or(ValidWal::Nothing, ValidWal::UpTo),
        })
    }

    /// The position that a replica must have to hold everything up to a shutdown checkpoint: the
    /// checkpoint, or the WAL switch record before it, which archiving leaves there (`ha.md` §12.2, *prev*).
    /// `None` when the records cannot be read.
    pub(crate) async fn position_before_checkpoint(
        &self,
        checkpoint: Lsn,
        timeline: Timeline,
        deadline: Instant,
    ) -> Option<Lsn> {
        let (records, _) = self.waldump(checkpoint, timeline, 1, deadline).await.ok()?;
        let record = records
            .first()
            .filter(|record| record.lsn == checkpoint && is_shutdown(record))?;
        let (records, _) = self
            .waldump(record.previous, timeline, 1, deadline)
            .await
            .ok()?;
        let before = records
            .first()
            .filter(|before| before.lsn == record.previous)?;
        let switch = before.resource_manager == "XLOG" && before.description.contains("SWITCH");
        Some(if switch { before.lsn } else { checkpoint })
    }

    /// Where the record of a shutdown checkpoint ends, if nothing valid follows it (`ha.md` §8.3.4).
    pub(crate) async fn end_of_checkpoint(
        &self,
        checkpoint: Lsn,
        timeline: Timeline,
        deadline: Instant,
    ) -> Option<Lsn> {
        let (records, errors) = self.waldump(checkpoint, timeline, 2, deadline).await.ok()?;
        match records.as_slice() {
            [record] if record.lsn == checkpoint && is_shutdown(record) => parse_end(&errors),
            _ => None,
        }
    }

    async fn waldump(
        &self,
        start: Lsn,
        timeline: Timeline,
        limit: u32,
        deadline: Instant,
    ) -> Result<(Vec<Record>, String), Error> {
        let settings = self.settings();
        let output = Run::new(settings.binary("pg_waldump"))
            .arg("-p")
            .arg(settings.data_dir.join("pg_wal"))
            .args([
                "-t",
                &timeline.0.to_string(),
                "-s",
                &start.to_string(),
                "-n",
                &limit.to_string(),
            ])
            .c_locale()
            .quiet()
            .output(&Until::deadline(deadline))
            .await?;
        Ok((
            output.stdout.lines().filter_map(parse_record).collect(),
            output.stderr,
        ))
    }
}

/// The name of the WAL segment that a position is in, without its timeline. The size must not be 0.
pub(crate) fn segment_name(lsn: Lsn, segment_size: u64) -> String {
    let (high, low) = (lsn.0 >> 32, (lsn.0 & 0xffff_ffff) / segment_size);
    format!("{high:08X}{low:08X}")
}

fn is_shutdown(record: &Record) -> bool {
    record.resource_manager == "XLOG" && record.description.contains("CHECKPOINT_SHUTDOWN")
}

/// `rmgr: XLOG  len (rec/tot): 114/ 114, tx: 0, lsn: 0/01000028, prev 0/00000000, desc: CHECKPOINT_…`
pub(crate) fn parse_record(line: &str) -> Option<Record> {
    let after = |label: &str| line.split_once(label).map(|(_, rest)| rest.trim_start());
    let word = |rest: &str| {
        rest.split(|char: char| char == ',' || char.is_whitespace())
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    Some(Record {
        resource_manager: word(after("rmgr: ")?),
        lsn: parse_padded(&word(after(" lsn: ")?))?,
        previous: parse_padded(&word(after(" prev ")?))?,
        description: after(" desc: ")?.to_owned(),
    })
}

/// The end of WAL in pg_waldump's complaint: `error in WAL record at 0/2000028: invalid record length at
/// 0/20000A0: wanted 24, got 0`.
pub(crate) fn parse_end(errors: &str) -> Option<Lsn> {
    let mut complaints = errors
        .lines()
        .filter(|line| line.contains("error in WAL record at "));
    let complaint = complaints.next()?;
    if complaints.next().is_some() {
        return None;
    }
    let (_, reason) = complaint
        .split_once("error in WAL record at ")?
        .1
        .split_once(": ")?;
    let (_, place) = reason.split_once(" at ")?;
    parse_padded(place.split([':', ',', ' ']).next()?)
}

/// Where WAL is certainly valid, by the same complaint: up to its end if that is told, else to where the last valid
/// record begins.
fn last_valid(errors: &str) -> Option<Lsn> {
    if errors.contains(": invalid record length at ") {
        return parse_end(errors);
    }
    let (_, complaint) = errors.split_once("error in WAL record at ")?;
    parse_padded(complaint.split_once(": ")?.0)
}

/// pg_waldump pads the low half with zeros.
fn parse_padded(text: &str) -> Option<Lsn> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let line = "rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/03000028, \
                    prev 0/02000110, desc: CHECKPOINT_SHUTDOWN redo 0/3000028; tli 1";
        let record = parse_record(line).unwrap();
        assert_eq!(
            (record.lsn, record.previous),
            (Lsn(0x300_0028), Lsn(0x200_0110))
        );
        assert!(is_shutdown(&record));
        assert_eq!(parse_record("pg_waldump: fatal: no"), None);
    }

    #[test]
    fn the_end_is_in_the_complaint() {
        for (errors, end) in [
            (
                "pg_waldump: error: error in WAL record at 0/2000028: invalid record length at 0/20000A0: wanted 24, got 0\n",
                Some(Lsn(0x200_00A0)),
            ),
            (
                "pg_waldump: error: error in WAL record at 0/2000028: invalid record length at 0/20000A0: expected at least 24, got 0\n",
                Some(Lsn(0x200_00A0)),
            ),
            (
                "pg_waldump: fatal: error in WAL record at 0/2000028: invalid magic number 0000 in log segment\n",
                None,
            ),
            ("", None),
        ] {
            assert_eq!(parse_end(errors), end, "{errors}");
        }
    }

    #[test]
    fn the_last_valid_record_is_in_the_complaint() {
        for (errors, valid) in [
            (
                "pg_waldump: error: error in WAL record at 0/2000028: invalid record length at 0/20000A0: wanted 24, got 0\n",
                Some(Lsn(0x200_00A0)),
            ),
            (
                "pg_waldump: first record is after 0/2000000, at 0/2000028, skipping over 40 bytes\n\
                 pg_waldump: error: error in WAL record at 0/2001F28: there is no contrecord flag at 0/2002000\n",
                Some(Lsn(0x200_1F28)),
            ),
            (
                "pg_waldump: error: could not find a valid record after 0/2000000\n",
                None,
            ),
            ("", None),
        ] {
            assert_eq!(last_valid(errors), valid, "{errors}");
        }
    }
}
