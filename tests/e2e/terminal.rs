//! What the commands do for somebody at a terminal, and for no pipe (`patronictl.md` §3, §7).

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::sql::SUPERUSER_PASSWORD;
use primacy_testkit::{StoreKind, TestCluster};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// For a command that is shown something, or ends.
const WITHIN: Duration = Duration::from_secs(60);
const CLEAR: &str = "\u{1b}[2J";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_sits_at_a_terminal() -> Result<()> {
    let cluster = crate::cluster(StoreKind::Embedded)
        .members(1)
        .start()
        .await?;

    // What is typed for a password is not shown. The answers of a watched query are told one below the other.
    let query = [
        "query",
        SCOPE,
        "-c",
        "'select 6 * 7 as answer'",
        "--password",
        "-w",
        "0.2",
    ];
    let mut terminal = Terminal::open(&cluster, &query)?;
    terminal.wait_shown("Password: ").await?;
    terminal.enter(SUPERUSER_PASSWORD).await?;
    for _ in 0..2 {
        terminal.wait_shown("answer\r\n42\r\n").await?;
    }
    terminal.interrupt().await?;
    let (code, shown) = terminal.end().await?;
    ensure!(code == Some(1) && !shown.contains(CLEAR), "{shown:?}");
    ensure!(!shown.contains(SUPERUSER_PASSWORD), "{shown:?}");

    // A change is shown in colours by the pager, and asked about; the answer is.
    let edit = ["edit-config", SCOPE, "-p", "work_mem=5MB"];
    let mut terminal = Terminal::open(&cluster, &edit)?;
    terminal.wait_shown("[y/N]: ").await?;
    terminal.enter("y").await?;
    let (code, shown) = terminal.end().await?;
    ensure!(code == Some(0), "{shown}");
    ensure!(
        shown.contains("\u{1b}[32m+    work_mem: 5MB\u{1b}[0m"),
        "{shown}"
    );
    ensure!(shown.contains("[y/N]: y\r\n"), "{shown}");

    // A table that is watched is drawn in the same place again and again, until Ctrl-C.
    let mut terminal = Terminal::open(&cluster, &["list", "-w", "0.2"])?;
    for _ in 0..2 {
        terminal.wait_shown(CLEAR).await?;
        terminal.wait_shown(&cluster.agents[0].name).await?;
    }
    terminal.interrupt().await?;
    let (code, shown) = terminal.end().await?;
    ensure!(
        code == Some(1) && shown.ends_with("Aborted!\r\n"),
        "{shown:?}"
    );
    cluster.pass();
    Ok(())
}

/// A command at a terminal of its own, which `script` makes.
struct Terminal {
    process: Child,
    keyboard: ChildStdin,
    screen: ChildStdout,
    shown: String,
    /// Up to where it has been waited for.
    waited: usize,
}

impl Terminal {
    /// A terminal shows what is typed, unless it is told not to.
    fn open(cluster: &TestCluster, arguments: &[&str]) -> Result<Self> {
        let patronictl = cluster.executable.with_file_name("patronictl");
        let config = &cluster.agents[0].config;
        let line = format!(
            "exec {} -c {} {}",
            patronictl.display(),
            config.display(),
            arguments.join(" ")
        );
        let mut command = cluster.scratch().command("script");
        command
            .args([
                "--quiet",
                "--return",
                "--flush",
                "--echo",
                "always",
                "--command",
            ])
            .args([&line, "/dev/null"])
            .env("PAGER", "cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Command::from(command).kill_on_drop(true).spawn()?;
        Ok(Terminal {
            keyboard: process.stdin.take().context("no keyboard")?,
            screen: process.stdout.take().context("no screen")?,
            process,
            shown: String::new(),
            waited: 0,
        })
    }

    /// Waits until it shows this text, once more than was waited for before.
    async fn wait_shown(&mut self, text: &str) -> Result<()> {
        loop {
            if let Some(at) = self.shown[self.waited..].find(text) {
                self.waited += at + text.len();
                return Ok(());
            }
            ensure!(self.read().await?, "{text:?} is not in {:?}", self.shown);
        }
    }

    async fn enter(&mut self, line: &str) -> Result<()> {
        self.type_in(&format!("{line}\n")).await
    }

    async fn interrupt(&mut self) -> Result<()> {
        self.type_in("\u{3}").await
    }

    async fn type_in(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes()).await?;
        Ok(self.keyboard.flush().await?)
    }

    /// Waits until the command has ended. Its exit code, and all that it showed.
    async fn end(mut self) -> Result<(Option<i32>, String)> {
        while self.read().await? {}
        let status = self.process.wait().await?;
        Ok((status.code(), self.shown))
    }

    /// Whether there was anything more.
    async fn read(&mut self) -> Result<bool> {
        let mut bytes = [0; 4096];
        let read = tokio::time::timeout(WITHIN, self.screen.read(&mut bytes)).await;
        let length = read.with_context(|| format!("nothing more than {:?}", self.shown))??;
        self.shown
            .push_str(&String::from_utf8_lossy(&bytes[..length]));
        Ok(length > 0)
    }
}
