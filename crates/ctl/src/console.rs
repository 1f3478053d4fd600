use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::oneshot;

use crate::Failure;
use crate::schedule::log_timestamp;

/// The operator's side: what a command prints and asks.
///
/// Prompts are asked also when the input is a pipe (`patronictl.md` §3), so that `echo y |` works.
pub struct Console {
    input: mpsc::Sender<Request>,
    output: Box<dyn Write + Send>,
    errors: ErrorStream,
    terminal: bool,
    warnings: bool,
    lent: Arc<AtomicBool>,
    asking: Arc<AtomicBool>,
    /// Whether somebody may sit at the process's terminal, whatever its streams are.
    of_process: bool,
}

/// The error stream, which outlives a command that was interrupted.
#[derive(Clone)]
pub(crate) struct ErrorStream(Arc<Mutex<Box<dyn Write + Send>>>);

impl ErrorStream {
    pub(crate) fn of(console: &Console) -> Self {
        console.errors.clone()
    }

    /// When even this stream is gone, there is nobody left to tell.
    pub(crate) fn write(&mut self, text: &str) {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = stream.write_all(text.as_bytes());
        let _ = stream.flush();
    }
}

enum Request {
    Line(oneshot::Sender<io::Result<String>>),
    Everything(oneshot::Sender<io::Result<String>>),
}

impl Console {
    /// The process's own standard streams.
    pub fn standard() -> Self {
        let terminal = io::stdout().is_terminal();
        let input = io::BufReader::new(io::stdin());
        let (output, errors) = (Box::new(io::stdout()), Box::new(io::stderr()));
        Console {
            of_process: true,
            ..Console::new(input, output, errors, terminal)
        }
    }

    /// Other streams; `terminal` tells whether `output` is one.
    pub fn new(
        input: impl BufRead + Send + 'static,
        output: Box<dyn Write + Send>,
        errors: Box<dyn Write + Send>,
        terminal: bool,
    ) -> Self {
        let lent = Arc::new(AtomicBool::new(false));
        let errors = ErrorStream(Arc::new(Mutex::new(errors)));
        Console {
            input: read_on_request(input),
            output,
            errors,
            terminal,
            warnings: true,
            lent,
            asking: Arc::default(),
            of_process: false,
        }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether warnings are shown: the level of the client's own log.
    pub(crate) fn show_warnings(&mut self, show: bool) {
        self.warnings = show;
    }

    /// Set while another program has the terminal, to which Ctrl-C then belongs.
    pub(crate) fn lent(&self) -> Arc<AtomicBool> {
        self.lent.clone()
    }

    /// Set while a question waits for its answer: the end of it is on the question's line then.
    pub(crate) fn asking(&self) -> Arc<AtomicBool> {
        self.asking.clone()
    }

    pub(crate) fn lend(&self, lent: bool) {
        self.lent.store(lent, Ordering::Relaxed);
    }

    /// Prints as it is.
    pub(crate) fn write(&mut self, text: &str) -> Result<(), Failure> {
        self.output.write_all(text.as_bytes())?;
        Ok(self.output.flush()?)
    }

    /// Prints a line.
    pub(crate) fn print(&mut self, line: &str) -> Result<(), Failure> {
        self.write(&format!("{line}\n"))
    }

    /// Text on the error stream.
    pub(crate) fn error(&mut self, text: &str) {
        self.errors.write(text);
    }

    /// A line of the client's own log.
    pub(crate) fn warn(&mut self, text: &str) {
        if self.warnings {
            self.error(&format!("{} - WARNING - {text}\n", log_timestamp()));
        }
    }

    /// Asks for a text. Empty input takes the default; without one it asks again.
    pub(crate) async fn prompt(
        &mut self,
        text: &str,
        default: Option<&str>,
    ) -> Result<String, Failure> {
        let question = match default {
            Some(default) => format!("{text} [{default}]: "),
            None => format!("{text}: "),
        };
        loop {
            self.write(&question)?;
            match (self.line().await?, default) {
                (line, _) if !line.is_empty() => return Ok(line),
                (_, Some(default)) => return Ok(default.to_owned()),
                (_, None) => {}
            }
        }
    }

    /// Asks for a text that is not shown: at the terminal, wherever the streams go; without one on the error
    /// stream.
    pub(crate) async fn password(&mut self, text: &str) -> Result<String, Failure> {
        loop {
            let terminal = self.of_process.then(SilentTerminal::open).flatten();
            let line = match terminal {
                Some(terminal) => terminal.ask(&format!("{text}: ")).await?,
                None => {
                    self.error(&format!("{text}: "));
                    let line = self.line().await?;
                    self.error("\n");
                    line
                }
            };
            if !line.is_empty() {
                return Ok(line);
            }
        }
    }

    /// Asks yes or no; no is the default.
    pub(crate) async fn confirm(&mut self, text: &str) -> Result<bool, Failure> {
        loop {
            self.write(&format!("{text} [y/N]: "))?;
            match self.line().await?.trim().to_lowercase().as_str() {
                "y" | "yes" => return Ok(true),
                "" | "n" | "no" => return Ok(false),
                _ => self.print("Error: invalid input")?,
            }
        }
    }

    /// Everything that is left of the input.
    pub(crate) async fn read_everything(&mut self) -> Result<String, Failure> {
        self.ask(Request::Everything).await
    }

    async fn line(&mut self) -> Result<String, Failure> {
        self.asking.store(true, Ordering::Relaxed);
        let line = self.ask(Request::Line).await?;
        self.asking.store(false, Ordering::Relaxed);
        if line.is_empty() {
            return Err(Failure::Aborted);
        }
        Ok(line.trim_end_matches(['\n', '\r']).to_owned())
    }

    async fn ask(
        &mut self,
        request: fn(oneshot::Sender<io::Result<String>>) -> Request,
    ) -> Result<String, Failure> {
        let (reply, answer) = oneshot::channel();
        self.input
            .send(request(reply))
            .map_err(|_| Failure::Aborted)?;
        match answer.await {
            Ok(Ok(text)) => Ok(text),
            Ok(Err(error)) => Err(Failure::refused(format!("cannot read the input: {error}"))),
            Err(_) => Err(Failure::Aborted),
        }
    }
}

/// Reads only when asked to, for the editor and the pager need the same terminal. On a thread of its own,
/// which nobody waits for: a read from a terminal cannot be cancelled, Ctrl-C must work all the same.
fn read_on_request(mut input: impl BufRead + Send + 'static) -> mpsc::Sender<Request> {
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for request in requests {
            let mut text = String::new();
            let (reply, outcome) = match request {
                Request::Line(reply) => (reply, input.read_line(&mut text)),
                Request::Everything(reply) => (reply, input.read_to_string(&mut text)),
            };
            let _ = reply.send(outcome.map(|_| text));
        }
    });
    sender
}

/// The terminal, which does not show what is typed for as long as this lives.
struct SilentTerminal {
    file: File,
    before: Termios,
}

impl SilentTerminal {
    fn open() -> Option<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .ok()?;
        let before = tcgetattr(&file).ok()?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&file, OptionalActions::Flush, &silent).ok()?;
        Some(SilentTerminal { file, before })
    }

    async fn ask(mut self, question: &str) -> Result<String, Failure> {
        self.file.write_all(question.as_bytes())?;
        let file = self.file.try_clone()?;
        // Not waited for when Ctrl-C ends this: a read from a terminal cannot be cancelled.
        let reading = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            io::BufReader::new(file).read_line(&mut line).map(|_| line)
        });
        let line = reading.await.map_err(|_| Failure::Aborted)??;
        self.file.write_all(b"\n")?;
        if line.is_empty() {
            return Err(Failure::Aborted);
        }
        Ok(line.trim_end_matches(['\n', '\r']).to_owned())
    }
}

impl Drop for SilentTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.file, OptionalActions::Flush, &self.before);
    }
}
