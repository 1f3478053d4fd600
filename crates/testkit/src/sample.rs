//! The configuration samples that users copy (`packaging/samples`), with a test's own addresses and paths in them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::scratch::Scratch;

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/samples");

/// The beginning of every member's and store's address in the samples.
const ADDRESSES: &str = "10.0.0.";

/// A sample on its way into a test.
#[derive(Debug, Clone)]
pub struct Sample {
    name: String,
    text: String,
}

impl Sample {
    /// Reads a sample by its file name.
    pub fn read(name: &str) -> Result<Self> {
        let path = Path::new(SAMPLES).join(name);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self {
            name: name.to_owned(),
            text,
        })
    }

    /// Puts the test's own text in place of the sample's, everywhere.
    ///
    /// # Errors
    /// The sample has no such text: it was changed, and so must the test be.
    pub fn with(mut self, theirs: &str, ours: &str) -> Result<Self> {
        ensure!(
            self.text.contains(theirs),
            "{} has no {theirs:?}: {}",
            self.name,
            self.text
        );
        self.text = self.text.replace(theirs, ours);
        Ok(self)
    }

    /// The text, once nothing outside of comments is left that leads to somebody else's machines.
    pub fn text(self) -> Result<String> {
        let mut lines = self.text.lines().map(str::trim_start);
        let left =
            lines.find(|line| line.contains(ADDRESSES) && !line.starts_with(['#', ';', '!']));
        ensure!(left.is_none(), "{} still has {left:?}", self.name);
        Ok(self.text)
    }

    /// Writes it into the scratch directory, under its own name.
    pub fn write(self, scratch: &Scratch) -> Result<PathBuf> {
        let path = scratch.path().join(&self.name);
        self.write_to(&path, scratch)?;
        Ok(path)
    }

    /// Writes it to `path`.
    pub fn write_to(self, path: &Path, scratch: &Scratch) -> Result<()> {
        scratch.account().write(path, &self.text()?)
    }
}
