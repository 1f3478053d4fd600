use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr;

/// A table of text (`patronictl.md` §4.1): ruled with `+` and `-`, cells may have several lines.
#[derive(Clone, Debug, Default)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

/// On which side of its cell the text stands; the header stands as its column does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Names and sentences.
    Left,
    /// Numbers and positions.
    Right,
}

impl Table {
    /// A table of these columns, which may repeat names, and no rows yet.
    pub fn new<S: Into<String>>(columns: impl IntoIterator<Item = (S, Align)>) -> Self {
        let columns = columns
            .into_iter()
            .map(|(name, align)| (name.into(), align))
            .collect();
        Table {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row. Missing cells are empty, cells beyond the last column are dropped.
    pub fn push(&mut self, mut row: Vec<String>) {
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }

    /// Draws the table, with the title written into its topmost rule. Ends without a newline.
    pub fn draw(&self, title: Option<&str>) -> String {
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| self.width(column))
            .collect();
        let rule = rule(&widths);
        let header: Vec<String> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        // A cell of several lines can only be told from the next row by a rule between them.
        let ruled = self
            .rows
            .iter()
            .chain([&header])
            .flatten()
            .any(|cell| cell.contains('\n'));

        let mut text = title.map_or_else(|| rule.clone(), |title| titled(&rule, title));
        self.draw_row(&mut text, &header, &widths);
        let _ = write!(text, "\n{rule}");
        for (index, row) in self.rows.iter().enumerate() {
            if ruled && index > 0 {
                let _ = write!(text, "\n{rule}");
            }
            self.draw_row(&mut text, row, &widths);
        }
        let _ = write!(text, "\n{rule}");
        text
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[column].as_str());
        cells
            .chain([self.columns[column].0.as_str()])
            .flat_map(|cell| cell.split('\n'))
            .map(UnicodeWidthStr::width)
            .max()
            .unwrap_or(0)
    }

    fn draw_row(&self, text: &mut String, row: &[String], widths: &[usize]) {
        let cells: Vec<Vec<&str>> = row.iter().map(|cell| cell.split('\n').collect()).collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or(1);
        for line in 0..height {
            text.push('\n');
            for ((cell, width), (_, align)) in cells.iter().zip(widths).zip(&self.columns) {
                let content = cell.get(line).copied().unwrap_or_default();
                let padding = " ".repeat(width.saturating_sub(content.width()));
                let _ = match align {
                    Align::Left => write!(text, "| {content}{padding} "),
                    Align::Right => write!(text, "| {padding}{content} "),
                };
            }
            text.push('|');
        }
    }
}

fn rule(widths: &[usize]) -> String {
    let mut rule: String = widths
        .iter()
        .map(|width| format!("+{}", "-".repeat(width + 2)))
        .collect();
    rule.push('+');
    rule
}

/// Overwrites the rule from its second character on; what does not fit is cut.
fn titled(rule: &str, title: &str) -> String {
    let room = rule.len().saturating_sub(2);
    let title: String = format!(" {title} ").chars().take(room).collect();
    format!("+{title}{}", &rule[1 + title.chars().count()..])
}

#[cfg(test)]
mod tests {
    use super::Align::{Left, Right};
    use super::*;

    #[test]
    fn wide_characters_count_twice() {
        let mut table = Table::new([("a", Left), ("b", Right)]);
        table.push(vec!["日本".into(), "1".into()]);
        table.push(vec!["x".into()]);
        assert_eq!(
            table.draw(None),
            "+------+---+\n| a    | b |\n+------+---+\n| 日本 | 1 |\n| x    |   |\n+------+---+"
        );
    }

    #[test]
    fn long_title_is_cut_at_the_corner() {
        let table = Table::new([("ab", Left)]);
        assert_eq!(table.draw(Some("title")), "+ tit+\n| ab |\n+----+\n+----+");
        assert_eq!(table.draw(Some("")).lines().next(), Some("+  --+"));
    }
}
