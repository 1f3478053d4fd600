use primacy_model::History;
use serde_json::{Value, json};

use super::format::{Column, Format, write_rows};

const COLUMNS: [Column; 5] = [
    Column::right("TL"),
    Column::right("LSN"),
    Column::left("Reason"),
    Column::left("Timestamp"),
    Column::left("New Leader"),
];

/// The timelines that ended (`patronictl.md` §7.4). Ends with a newline.
pub fn history(history: &History, format: Format) -> String {
    let rows: Vec<Vec<Value>> = history
        .entries
        .iter()
        .map(|entry| {
            vec![
                json!(entry.timeline),
                json!(entry.switch_lsn),
                json!(entry.reason),
                json!(entry.timestamp.as_deref().unwrap_or_default()),
                json!(entry.new_leader.as_deref().unwrap_or_default()),
            ]
        })
        .collect();
    write_rows(&COLUMNS, &rows, format, None, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"[[1,73970000,"no recovery target specified","2026-11-20T23:21:35.134349+00:00","pg1"],[2,73972328,"no recovery target specified","2026-11-20T23:22:03.194351+00:00","pg0"]]"#;

    #[test]
    fn history_is_drawn_as_patronictl_draws_it() {
        let two = History::from_json(TWO).unwrap();
        assert_eq!(
            history(&two, Format::Pretty),
            "\
+----+----------+------------------------------+----------------------------------+------------+
| TL |      LSN | Reason                       | Timestamp                        | New Leader |
+----+----------+------------------------------+----------------------------------+------------+
|  1 | 73970000 | no recovery target specified | 2026-11-20T23:21:35.134349+00:00 | pg1        |
|  2 | 73972328 | no recovery target specified | 2026-11-20T23:22:03.194351+00:00 | pg0        |
+----+----------+------------------------------+----------------------------------+------------+
"
        );
        let one = History {
            entries: two.entries[..1].to_vec(),
        };
        assert_eq!(
            history(&one, Format::Json),
            "[{\"TL\": 1, \"LSN\": 73970000, \"Reason\": \"no recovery target specified\", \"Timestamp\": \"2026-11-20T23:21:35.134349+00:00\", \"New Leader\": \"pg1\"}]\n"
        );
    }

    #[test]
    fn short_rows_are_padded() {
        let short = History::from_json(r#"[[1,5,"r"]]"#).unwrap();
        assert_eq!(
            history(&short, Format::Tsv),
            "TL\tLSN\tReason\tTimestamp\tNew Leader\n1\t5\tr\t\t\n"
        );
    }
}
