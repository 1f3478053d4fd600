//! What the agent tells systemd (`Type=notify`), when that started it: that it is ready, reloads, stops, what it does,
//! and that its loop is alive. Each is a datagram that nothing waits for; without `NOTIFY_SOCKET` nothing is told, and
//! nothing wakes up for it.

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::shell::until;

/// While it stops, systemd is asked for so much more time, again and again: how long a server needs is for
/// `primary_stop_timeout` to say. Whoever hangs does not ask.
const MORE_TIME: Duration = Duration::from_secs(60);
/// How often it asks while it stops.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// Pings in systemd's patience: one may come late.
const PINGS: u32 = 3;

/// The way to systemd.
#[derive(Debug, Default)]
pub(crate) struct Supervisor {
    socket: Option<UnixDatagram>,
    /// What `WatchdogSec` of the unit allows between two pings.
    patience: Option<Duration>,
    next: Option<Instant>,
    status: String,
    stopping: bool,
}

impl Supervisor {
    /// The one that the environment names.
    pub(crate) fn of_process() -> Self {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let patience = number("WATCHDOG_USEC").filter(|usec| meant && *usec > 0);
        let address = std::env::var_os("NOTIFY_SOCKET");
        Supervisor::at(address, patience.map(Duration::from_micros))
    }

    fn at(address: Option<OsString>, patience: Option<Duration>) -> Self {
        let Some(address) = address.filter(|address| !address.is_empty()) else {
            return Supervisor::default();
        };
        let socket = connect(&address)
            .inspect_err(|error| {
                tracing::warn!(
                    "systemd is not told anything: the socket {} cannot be used: {error}",
                    address.display()
                );
            })
            .ok();
        Supervisor {
            patience: patience.filter(|_| socket.is_some()),
            socket,
            ..Supervisor::default()
        }
    }

    /// Everything that a start must do is done, or waits for other machines.
    pub(crate) fn ready(&mut self) {
        self.tell("READY=1");
        self.next = self.patience.map(|_| Instant::now());
    }

    /// The configuration is read again; [`Supervisor::reloaded`] ends that.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// The reload is over, whether it changed anything or failed.
    pub(crate) fn reloaded(&self) {
        self.tell("READY=1");
    }

    /// The agent was asked to end.
    pub(crate) fn stopping(&mut self) {
        if !self.stopping {
            self.stopping = true;
            self.tell("STOPPING=1");
            self.ask_for_time();
            self.next = self.socket.as_ref().map(|_| Instant::now());
        }
    }

    /// Says that the agent is alive while it waits for `work`.
    pub(crate) async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            let due = self.due();
            tokio::select! {
                done = &mut work => return done,
                () = until(due) => self.tick(true),
            }
        }
    }

    /// For `systemctl status`.
    pub(crate) fn status(&mut self, text: &str) {
        if self.socket.is_some() && self.status != text {
            text.clone_into(&mut self.status);
            // A line of its own would be a message of its own.
            self.tell(&format!("STATUS={}", text.replace('\n', " ")));
        }
    }

    /// When [`Supervisor::tick`] is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.next
    }

    /// To be called from the loop, and by nobody else: that it is called is what is told. `on_time` is whether the loop
    /// also gets on: when it does not, systemd is left to draw its conclusion.
    pub(crate) fn tick(&mut self, on_time: bool) {
        if on_time {
            if self.patience.is_some() {
                self.tell("WATCHDOG=1");
            }
            if self.stopping {
                self.ask_for_time();
            }
        }
        let ping = self.patience.map(|patience| patience / PINGS);
        let ask = self.stopping.then_some(ASK_EVERY);
        let pause = ping.into_iter().chain(ask).min();
        self.next = pause.map(|pause| Instant::now() + pause);
    }

    fn ask_for_time(&self) {
        self.tell(&format!("EXTEND_TIMEOUT_USEC={}", MORE_TIME.as_micros()));
    }

    /// A full socket is systemd's affair: nothing here may wait for it.
    fn tell(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::debug!("systemd was not told {message:?}: {error}");
        }
    }
}

/// A path, or with an `@` in front a name that is in no file system.
fn connect(address: &OsStr) -> std::io::Result<UnixDatagram> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(listener: &UnixDatagram) -> Vec<String> {
        listener.set_nonblocking(true).unwrap();
        let mut messages = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length) = listener.recv(&mut buffer) {
            messages.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        messages
    }

    const ASKED: &str = "EXTEND_TIMEOUT_USEC=60000000";

    #[tokio::test(start_paused = true)]
    async fn systemd_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let mut supervisor = Supervisor::at(Some(path.into()), Some(Duration::from_secs(30)));
        assert_eq!(supervisor.due(), None, "no ping before it is ready");
        supervisor.ready();
        supervisor.status("no action");
        supervisor.status("no action");
        assert_eq!(told(&listener), ["READY=1", "STATUS=no action"]);

        assert_eq!(supervisor.due(), Some(Instant::now()));
        supervisor.tick(true);
        assert_eq!(told(&listener), ["WATCHDOG=1"]);
        supervisor
            .beside(tokio::time::sleep(Duration::from_secs(35)))
            .await;
        assert_eq!(told(&listener), ["WATCHDOG=1"; 3]);
        supervisor.tick(true);
        told(&listener);
        let third = Duration::from_secs(10);
        assert_eq!(supervisor.due(), Some(Instant::now() + third));
        supervisor.tick(false);
        assert!(
            told(&listener).is_empty(),
            "a loop that does not get on pings nobody"
        );

        supervisor.reloading();
        supervisor.reloaded();
        let reload = told(&listener);
        assert!(
            reload[0].starts_with("RELOADING=1\nMONOTONIC_USEC="),
            "{reload:?}"
        );
        assert_eq!(reload[1], "READY=1");

        supervisor.stopping();
        supervisor.stopping();
        assert_eq!(told(&listener), ["STOPPING=1", ASKED]);
        supervisor.tick(true);
        assert_eq!(told(&listener), ["WATCHDOG=1", ASKED]);
    }

    #[tokio::test(start_paused = true)]
    async fn names_outside_the_file_system_are_reached() {
        let name = format!("primacy-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        let mut supervisor = Supervisor::at(Some(format!("@{name}").into()), None);
        supervisor.ready();
        assert_eq!(told(&listener), ["READY=1"]);
        assert_eq!(
            supervisor.due(),
            None,
            "nothing wakes up for nobody's watchdog"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_systemd_nothing_wakes_up() {
        let mut supervisor = Supervisor::at(None, Some(Duration::from_secs(30)));
        supervisor.ready();
        supervisor.stopping();
        assert_eq!(supervisor.due(), None);
    }
}
