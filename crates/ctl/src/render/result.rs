use primacy_config::scalar::python_str;
use primacy_config::yaml;
use primacy_model::json_line;
use serde_json::{Map, Value};

use super::{Align, Format, Table};

/// The answer to a query, or one row that tells why there is none: that has no column names
/// (`patronictl.md` §7.3). Ends with a newline.
pub fn write_result(
    columns: Option<&[String]>,
    rows: &[Vec<Value>],
    format: Format,
    delimiter: &str,
) -> String {
    let width = columns.map_or_else(|| rows.first().map_or(0, Vec::len), <[String]>::len);
    let named: Vec<String> = match columns {
        Some(columns) => columns.to_vec(),
        None => (1..=width)
            .map(|number| format!("Field {number}"))
            .collect(),
    };
    let texts = |row: &Vec<Value>| row.iter().map(python_str).collect::<Vec<_>>();
    match format {
        Format::Tsv => {
            let header = columns.filter(|columns| !columns.is_empty());
            let lines = header
                .map(<[String]>::to_vec)
                .into_iter()
                .chain(rows.iter().map(texts));
            lines.map(|line| line.join(delimiter) + "\n").collect()
        }
        Format::Pretty => {
            let mut table = Table::new(named.into_iter().map(|name| (name, Align::Left)));
            for row in rows {
                table.push(texts(row));
            }
            table.draw(None) + "\n"
        }
        Format::Json => json_line(&objects(&named, rows)) + "\n",
        Format::Yaml => yaml::to_block(&objects(&named, rows), yaml::KeyOrder::Sorted) + "\n",
    }
}

/// Of columns with the same name the last one counts.
fn objects(names: &[String], rows: &[Vec<Value>]) -> Value {
    let object = |row: &Vec<Value>| {
        let pairs = names.iter().cloned().zip(row.iter().cloned());
        Value::Object(pairs.collect::<Map<_, _>>())
    };
    Value::Array(rows.iter().map(object).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn formats() {
        let columns = ["a".to_owned(), "b".to_owned(), "a".to_owned()];
        let rows = [vec![json!(1), json!(null), json!("x\ny")]];
        let write = |format| write_result(Some(&columns), &rows, format, ";");
        assert_eq!(write(Format::Tsv), "a;b;a\n1;None;x\ny\n");
        assert_eq!(write(Format::Json), "[{\"a\": \"x\\ny\", \"b\": null}]\n");
        assert_eq!(
            write(Format::Pretty),
            "+---+------+---+\n| a | b    | a |\n+---+------+---+\n| 1 | None | x |\n|   |      | y |\n+---+------+---+\n"
        );
        assert_eq!(
            write_result(Some(&columns[..1]), &[], Format::Yaml, ";"),
            "[]\n\n"
        );
    }

    #[test]
    fn a_row_without_columns_is_a_line() {
        let write = |format| write_result(Some(&[]), &[vec![]], format, "\t");
        assert_eq!(write(Format::Tsv), "\n");
        assert_eq!(write(Format::Json), "[{}]\n");
    }

    #[test]
    fn a_failure_has_no_header() {
        let rows = [vec![json!("then"), json!("ERROR, SQLSTATE: 42703")]];
        let write = |format| write_result(None, &rows, format, "\t");
        assert_eq!(write(Format::Tsv), "then\tERROR, SQLSTATE: 42703\n");
        assert!(write(Format::Pretty).contains("| Field 1 | Field 2 "));
        assert_eq!(
            write(Format::Json),
            "[{\"Field 1\": \"then\", \"Field 2\": \"ERROR, SQLSTATE: 42703\"}]\n"
        );
    }
}
