//! The table.

use std::fmt;

use primacy_testkit::Implementation;

/// Which direction is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Less,
    More,
}

/// One row: a measurement of both.
#[derive(Debug)]
struct Row {
    name: String,
    unit: &'static str,
    better: Better,
    primacy: f64,
    patroni: f64,
}

/// All rows, in the order in which they were measured first.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn add(
        &mut self,
        implementation: Implementation,
        name: &str,
        unit: &'static str,
        better: Better,
        value: f64,
    ) {
        eprintln!("  {name}: {value:.2} {unit}");
        let index = self.rows.iter().position(|row| row.name == name);
        let index = index.unwrap_or_else(|| {
            self.rows.push(Row {
                name: name.to_owned(),
                unit,
                better,
                primacy: f64::NAN,
                patroni: f64::NAN,
            });
            self.rows.len() - 1
        });
        match implementation {
            Implementation::Primacy => self.rows[index].primacy = value,
            Implementation::Patroni => self.rows[index].patroni = value,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| | unit | Primacy | Patroni | times better |")?;
        writeln!(f, "|---|---|---:|---:|---:|")?;
        for row in &self.rows {
            let ratio = match row.better {
                Better::Less => row.patroni / row.primacy,
                Better::More => row.primacy / row.patroni,
            };
            writeln!(
                f,
                "| {} | {} | {:.1} | {:.1} | {ratio:.1} |",
                row.name, row.unit, row.primacy, row.patroni
            )?;
        }
        Ok(())
    }
}
