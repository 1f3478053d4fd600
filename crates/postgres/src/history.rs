use primacy_model::{Lsn, Timeline};
use tokio::time::Instant;

use crate::{Error, Server};

/// A line of a timeline history file: the timeline ended there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryLine {
    /// The timeline that was left.
    pub timeline: Timeline,
    /// Where.
    pub switch_lsn: Lsn,
    /// Why.
    pub reason: String,
}

/// A line that is neither empty, a comment, nor a history line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a line of a timeline history: {0:?}")]
pub struct HistoryParseError(pub String);

/// Reads a timeline history file.
pub fn parse_history(text: &str) -> Result<Vec<HistoryLine>, HistoryParseError> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| parse_line(line).ok_or_else(|| HistoryParseError(line.to_owned())))
        .collect()
}

fn parse_line(line: &str) -> Option<HistoryLine> {
    let (timeline, rest) = line.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let (lsn, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    Some(HistoryLine {
        timeline: Timeline::known(u64::from(timeline.parse::<u32>().ok()?))?,
        switch_lsn: lsn.parse().ok()?,
        reason: reason.trim().to_owned(),
    })
}

impl Server {
    /// The local history file of a timeline with its modification time; `None` when there is none.
    pub async fn local_history(
        &self,
        timeline: Timeline,
        deadline: Instant,
    ) -> Result<Option<(Vec<HistoryLine>, jiff::Timestamp)>, Error> {
        let path = self
            .settings()
            .data_dir
            .join("pg_wal")
            .join(format!("{:08X}.history", timeline.0));
        self.disk("reading the timeline history", deadline, move || {
            let read = std::fs::read_to_string(&path)
                .and_then(|text| Ok((text, std::fs::metadata(&path)?.modified()?)));
            let (text, modified) = match read {
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(source) => return Err(Error::file("read", path)(source)),
            };
            let bad = |problem: String| Error::BadFile {
                path: path.clone(),
                problem,
            };
            let lines = parse_history(&text).map_err(|error| bad(error.to_string()))?;
            let modified = modified
                .try_into()
                .map_err(|error: jiff::Error| bad(error.to_string()))?;
            Ok(Some((lines, modified)))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_comments_and_nothing() {
        let text =
            "1\t0/3000060\tno recovery target specified\n\n# note\n2\t16/B374D848\tbefore 2026\n";
        let lines = parse_history(text).unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].timeline, Timeline(1));
        assert_eq!(lines[0].reason, "no recovery target specified");
        assert_eq!(lines[1].switch_lsn, Lsn(0x16_B374_D848));
        assert_eq!(parse_history("").unwrap(), []);
    }

    #[test]
    fn broken_lines_are_refused() {
        for text in [
            "1",
            "x\t0/1\t",
            "0\t0/1\treason",
            "1\t0-1\treason",
            "-1\t0/1\tr",
        ] {
            assert!(parse_history(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(tl in 1u32.., lsn: u64, reason in "[a-z]([a-z ]*[a-z])?") {
            let text = format!("{tl}\t{}\t{reason}\n", Lsn(lsn));
            let expected = HistoryLine { timeline: Timeline(tl), switch_lsn: Lsn(lsn), reason };
            prop_assert_eq!(parse_history(&text), Ok(vec![expected]));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text: String) {
            let _ = parse_history(&text);
        }
    }
}
