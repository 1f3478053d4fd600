//! What a supervisor that listens is told (`Type=notify`), by an agent that begins, reloads, is frozen, and ends.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use primacy_testkit::programs::CommandLine;
use primacy_testkit::{StoreKind, wait_until};
use tokio::net::UnixDatagram;
use tokio::time::timeout;

/// Far above what the agent needs, and far below what the test waits for.
const PATIENCE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_is_told() -> Result<()> {
    let mut cluster = crate::cluster(StoreKind::Embedded)
        .members(1)
        .dynamic("synchronous_mode", false.into())
        .prepare()
        .await?;
    let path = cluster.scratch().path().join("notify");
    let mut listener = Listener(UnixDatagram::bind(&path)?);
    cluster.scratch().account().own(&path)?;
    let executable = cluster.executable.display().to_string();
    cluster.agents[0].run_by(&CommandLine::new(
        Path::new("/usr/bin/env"),
        &[
            &format!("NOTIFY_SOCKET={}", path.display()),
            &format!("WATCHDOG_USEC={}", PATIENCE.as_micros()),
            &executable,
            "agent",
        ],
    ));
    cluster.start_agent(0)?;

    listener.wait("READY=1").await?;
    listener.wait("WATCHDOG=1").await?;
    listener
        .wait("STATUS=no action. I am (pg1), the leader with the lock")
        .await?;

    // The server speaks to systemd as well, when it is let.
    let postmaster = cluster.agents[0]
        .postmaster_pid()
        .map_or(0, |pid| pid.as_raw());
    let environment = std::fs::read_to_string(format!("/proc/{postmaster}/environ"))?;
    ensure!(
        !environment.contains("NOTIFY_SOCKET") && !environment.contains("WATCHDOG_USEC"),
        "the server inherited the agent's supervisor"
    );

    // A reload changes where and how it logs.
    let config = cluster.agents[0].config.clone();
    let log = serde_json::json!({
        "dir": cluster.agents[0].dir,
        "type": "json",
        "format": ["asctime", {"levelname": "level"}, "message"],
        "static_fields": {"app": "e2e"},
    });
    let text = std::fs::read_to_string(&config)?;
    let account = cluster.scratch().account();
    account.write(&config, &format!("{text}\nlog: {log}\n"))?;
    cluster.agents[0].sighup()?;
    listener.wait("RELOADING=1\nMONOTONIC_USEC=").await?;
    listener.wait("READY=1").await?;
    let line = first_json_line(&cluster.agents[0].dir.join("patroni.log")).await?;
    ensure!(
        line["level"] == "INFO" && line["app"] == "e2e" && line["message"].is_string(),
        "{line}"
    );

    // One that is frozen does not say that it is alive.
    cluster.agents[0].sigstop()?;
    listener.wait_silence().await?;
    cluster.agents[0].sigcont()?;
    listener.wait("WATCHDOG=1").await?;

    let status = cluster.agents[0].sigterm(Duration::from_secs(60)).await?;
    ensure!(status.success(), "the agent ended with {status}");
    listener.wait("STOPPING=1").await?;
    listener.wait("EXTEND_TIMEOUT_USEC=").await?;
    cluster.pass();
    Ok(())
}

/// Waits for the log file's first line. The file is for whom the umask of the start lets read it: the agent's own is stricter.
async fn first_json_line(path: &Path) -> Result<serde_json::Value> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let umask = u32::from_str_radix(umask.context("no umask")?.trim(), 8)?;
    wait_until("the log file", Duration::from_secs(30), async || {
        let text = std::fs::read_to_string(path)?;
        let line = text.lines().next().context("it is empty")?;
        let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
        ensure!(mode == 0o666 & !umask, "its mode is {mode:o}");
        Ok(serde_json::from_str(line)?)
    })
    .await
}

struct Listener(UnixDatagram);

impl Listener {
    async fn next(&mut self) -> Result<String> {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).await?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// Waits for a message that begins so, whatever comes before it.
    async fn wait(&mut self, beginning: &str) -> Result<()> {
        let mut heard = Vec::new();
        let come = timeout(Duration::from_secs(60), async {
            loop {
                let message = self.next().await?;
                if message.starts_with(beginning) {
                    return anyhow::Ok(());
                }
                heard.push(message);
            }
        });
        match come.await {
            Ok(result) => result,
            Err(_) => bail!("{beginning:?} did not come, but {heard:?}"),
        }
    }

    /// Waits until nothing is said for as long as systemd would have patience.
    async fn wait_silence(&mut self) -> Result<()> {
        let silent = async { while timeout(PATIENCE, self.next()).await.is_ok() {} };
        timeout(Duration::from_secs(60), silent)
            .await
            .context("it goes on speaking")
    }
}
