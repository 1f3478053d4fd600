use primacy_config::yaml;
use primacy_model::json_line;
use serde_json::{Map, Value};

use super::{Align, Table};

/// How a table is written (`patronictl.md` §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// Ruled, for people.
    #[default]
    Pretty,
    /// Cells parted by tabs, unquoted.
    Tsv,
    /// One line: an array of objects.
    Json,
    /// The same array in block style.
    Yaml,
}

impl Format {
    /// The names on the command line, in the order of the help.
    pub const NAMES: [&str; 5] = ["pretty", "tsv", "json", "yaml", "yml"];

    /// Reads a name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "pretty" => Format::Pretty,
            "tsv" => Format::Tsv,
            "json" => Format::Json,
            "yaml" | "yml" => Format::Yaml,
            _ => return None,
        })
    }
}

/// A column: its name in data formats, its header for people, its side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) header: &'static str,
    pub(super) align: Align,
}

impl Column {
    pub(super) const fn left(name: &'static str) -> Self {
        Column {
            name,
            header: name,
            align: Align::Left,
        }
    }

    pub(super) const fn right(name: &'static str) -> Self {
        Column {
            name,
            header: name,
            align: Align::Right,
        }
    }
}

/// Writes rows in a format. Cells are strings, numbers or objects; in data formats `keep_empty` decides
/// whether a cell without text is written. Ends with a newline.
pub(super) fn write_rows(
    columns: &[Column],
    rows: &[Vec<Value>],
    format: Format,
    title: Option<&str>,
    keep_empty: bool,
) -> String {
    match format {
        Format::Pretty => {
            let mut table = Table::new(columns.iter().map(|column| (column.header, column.align)));
            for row in rows {
                table.push(row.iter().map(cell_text).collect());
            }
            table.draw(title) + "\n"
        }
        Format::Tsv => {
            let header: Vec<&str> = columns.iter().map(|column| column.name).collect();
            let mut text = header.join("\t") + "\n";
            for row in rows {
                let cells: Vec<String> = row.iter().map(cell_text).collect();
                text.push_str(&cells.join("\t"));
                text.push('\n');
            }
            text
        }
        Format::Json => json_line(&objects(columns, rows, keep_empty)) + "\n",
        Format::Yaml => {
            yaml::to_block(&objects(columns, rows, keep_empty), yaml::KeyOrder::Sorted) + "\n"
        }
    }
}

fn objects(columns: &[Column], rows: &[Vec<Value>], keep_empty: bool) -> Value {
    let object = |row: &Vec<Value>| {
        let cells = columns.iter().zip(row);
        let cells = cells.filter(|(_, cell)| keep_empty || !is_empty(cell));
        Value::Object(
            cells
                .map(|(c, cell)| (c.name.to_owned(), cell.clone()))
                .collect::<Map<_, _>>(),
        )
    };
    Value::Array(rows.iter().map(object).collect())
}

fn is_empty(cell: &Value) -> bool {
    match cell {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn cell_text(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn empty_tables() {
        let columns = [Column::left("a")];
        let write = |format| write_rows(&columns, &[], format, None, false);
        assert_eq!(write(Format::Json), "[]\n");
        assert_eq!(write(Format::Yaml), "[]\n\n");
        assert_eq!(write(Format::Tsv), "a\n");
        assert_eq!(write(Format::Pretty), "+---+\n| a |\n+---+\n+---+\n");
    }

    #[test]
    fn empty_cells_are_dropped_unless_kept() {
        let columns = [Column::left("a"), Column::right("b")];
        let rows = [vec![json!(""), json!(0)]];
        assert_eq!(
            write_rows(&columns, &rows, Format::Json, None, false),
            "[{\"b\": 0}]\n"
        );
        assert_eq!(
            write_rows(&columns, &rows, Format::Json, None, true),
            "[{\"a\": \"\", \"b\": 0}]\n"
        );
    }
}
