use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use jiff::Zoned;

/// Lines as the agent writes them: time, level, text.
pub(crate) struct Log(Box<dyn Write + Send>);

impl Log {
    /// On the error stream, which the agent that runs the program has in its own log.
    pub(crate) fn on_stderr() -> Self {
        Log(Box::new(io::stderr()))
    }

    /// Appends to a file.
    pub(crate) fn to_file(path: &Path) -> io::Result<Self> {
        Ok(Log(Box::new(
            File::options().append(true).create(true).open(path)?,
        )))
    }

    pub(crate) fn info(&mut self, text: &str) {
        self.write("INFO", text);
    }

    pub(crate) fn warning(&mut self, text: &str) {
        self.write("WARNING", text);
    }

    pub(crate) fn error(&mut self, text: &str) {
        self.write("ERROR", text);
    }

    fn write(&mut self, level: &str, text: &str) {
        let now = Zoned::now().strftime("%Y-%m-%d %H:%M:%S,%3f").to_string();
        // Nobody is left to tell when even this cannot be written.
        let _ = writeln!(self.0, "{now} {level}: {text}");
    }
}
