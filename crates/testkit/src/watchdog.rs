//! A watchdog device of a member, on machines that have none.
//!
//! The agent opens it, sends it requests and writes to it by the same calls as a device in `/dev`: a library that is
//! preloaded into its process (`watchdog.c`, compiled against the kernel's header) brings them here. Here is what the
//! kernel's watchdog core does with them, as its documentation has it: a timeout that is set counts from that moment,
//! any write is a ping, a `V` has the next close stop the device, and a close without one leaves it counting, such as
//! that of a process that was killed. A device that was not pinged in time resets the machine, which is told here, and
//! leaves the machine alone.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::agent::Agent;
use crate::scratch::Scratch;

// As watchdog.c has them.
const VARIABLE: &str = "PRIMACY_TEST_WATCHDOG";
const CAN_SET_TIMEOUT: i32 = 1;
const CAN_BE_CLOSED: i32 = 2;

/// What the device can do.
#[derive(Clone, Copy, Debug)]
pub struct Hardware {
    /// `WDIOF_SETTIMEOUT`.
    pub settable: bool,
    /// Its timeouts are multiples of this, in seconds; others are rounded up.
    pub step: u32,
    /// Its timeout until it is told another, in seconds.
    pub timeout: u32,
}

impl Default for Hardware {
    fn default() -> Self {
        Hardware {
            settable: true,
            step: 1,
            timeout: 60,
        }
    }
}

/// What the device was told, and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It counts from now on.
    Open {
        /// The member's server was in recovery, and had still to be promoted if at all.
        standby: bool,
    },
    /// Somebody else has it open.
    Busy,
    /// `WDIOC_GETSUPPORT`
    GetSupport,
    /// `WDIOC_SETTIMEOUT`, in seconds.
    SetTimeout(u32),
    /// `WDIOC_GETTIMEOUT`
    GetTimeout,
    /// A write, or `WDIOC_KEEPALIVE`.
    Ping,
    /// A write of `V`.
    MagicClose,
    /// It stopped counting with that.
    Closed,
    /// The file was closed, and it counts on.
    LeftCounting,
    /// Here the machine was reset.
    Reset,
}

/// All that a device was told, and when.
#[derive(Clone, Debug, Default)]
pub struct Log(Vec<(Instant, Told)>);

impl Log {
    /// What it was told, without the times.
    pub fn told(&self) -> Vec<Told> {
        self.0.iter().map(|(_, told)| *told).collect()
    }

    /// When it was told this for the last time.
    pub fn last(&self, what: Told) -> Option<Instant> {
        let found = self.0.iter().rfind(|(_, told)| *told == what);
        found.map(|(at, _)| *at)
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begin = self.0.first().map(|(at, _)| *at);
        for (at, told) in &self.0 {
            let seconds = begin.map_or(0.0, |begin| at.duration_since(begin).as_secs_f64());
            writeln!(f, "{seconds:8.3} {told:?}")?;
        }
        Ok(())
    }
}

/// A device, which is there until this is dropped.
#[derive(Debug)]
pub struct WatchdogDevice {
    path: PathBuf,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    log: Mutex<Log>,
    hardware: Mutex<Hardware>,
    /// In the data directory of a server that is in recovery.
    standby_signal: PathBuf,
}

impl WatchdogDevice {
    /// Gives the member one, from its agent's next start on.
    ///
    /// # Errors
    /// No C compiler, or no kernel headers.
    pub fn plug_into(agent: &mut Agent, scratch: &Scratch) -> Result<Self> {
        let library = library(scratch)?;
        let path = agent.dir.join("watchdog");
        let listener = UnixListener::bind(&path)?;
        scratch.account().own(&path)?;
        agent.set_variable("LD_PRELOAD", &library.display().to_string());
        agent.set_variable(VARIABLE, &path.display().to_string());
        let shared = Arc::new(Shared {
            log: Mutex::default(),
            hardware: Mutex::default(),
            standby_signal: agent.data_dir().join("standby.signal"),
        });
        let device = Device {
            shared: Arc::clone(&shared),
            open: None,
            timeout: Duration::ZERO,
            resets_at: None,
            stops_with_close: false,
        };
        let task = tokio::spawn(device.serve(listener));
        Ok(WatchdogDevice { path, shared, task })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From when it is opened again on, it is such a device.
    pub fn replace(&self, hardware: Hardware) {
        *lock(&self.shared.hardware) = hardware;
    }

    /// What it was told so far.
    pub fn log(&self) -> Log {
        lock(&self.shared.log).clone()
    }
}

impl Drop for WatchdogDevice {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The library to preload, where the unprivileged account can read it.
fn library(scratch: &Scratch) -> Result<PathBuf> {
    let (source, library) = ("bin/watchdog.c", "bin/watchdog.so");
    let [source, library] = [source, library].map(|path| scratch.path().join(path));
    if library.exists() {
        return Ok(library);
    }
    let account = scratch.account();
    account.write(&source, include_str!("watchdog.c"))?;
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([&library, &source])
        .output()
        .context("cannot run cc: install build-essential (make setup)")?;
    ensure!(
        output.status.success(),
        "cc: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    account.own(&library)?;
    Ok(library)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The device itself.
struct Device {
    shared: Arc<Shared>,
    /// Whoever has it open.
    open: Option<BufReader<UnixStream>>,
    timeout: Duration,
    /// It counts.
    resets_at: Option<Instant>,
    stops_with_close: bool,
}

impl Device {
    async fn serve(mut self, listener: UnixListener) {
        loop {
            tokio::select! {
                opening = listener.accept() => if let Ok((stream, _)) = opening {
                    self.open(stream).await;
                },
                byte = next_byte(&mut self.open) => match byte {
                    Some(0) => self.request().await,
                    Some(byte) => self.write(byte),
                    None => self.close(),
                },
                () = at(self.resets_at) => {
                    self.resets_at = None;
                    self.note(Told::Reset);
                }
            }
        }
    }

    fn note(&self, told: Told) {
        lock(&self.shared.log).0.push((Instant::now(), told));
    }

    fn hardware(&self) -> Hardware {
        *lock(&self.shared.hardware)
    }

    fn count_anew(&mut self) {
        self.resets_at = Some(Instant::now() + self.timeout);
    }

    async fn open(&mut self, mut stream: UnixStream) {
        if self.open.is_some() {
            self.note(Told::Busy);
            let _ = stream.write_all(&line(Err(Errno::EBUSY))).await;
            return;
        }
        let standby = self.shared.standby_signal.exists();
        self.note(Told::Open { standby });
        if stream.write_all(&line(Ok(0))).await.is_ok() {
            self.open = Some(BufReader::new(stream));
        }
        if self.resets_at.is_none() {
            self.timeout = Duration::from_secs(self.hardware().timeout.into());
        }
        self.stops_with_close = false;
        self.count_anew();
    }

    fn write(&mut self, byte: u8) {
        self.stops_with_close = byte == b'V';
        self.note(match self.stops_with_close {
            true => Told::MagicClose,
            false => Told::Ping,
        });
        self.count_anew();
    }

    fn close(&mut self) {
        self.open = None;
        if self.stops_with_close {
            self.resets_at = None;
            self.note(Told::Closed);
        } else {
            self.note(Told::LeftCounting);
        }
    }

    async fn request(&mut self) {
        let Some(stream) = &mut self.open else {
            return;
        };
        let mut text = String::new();
        if stream.read_line(&mut text).await.is_err() {
            return;
        }
        let answer = self.answer(&text);
        if let Some(stream) = &mut self.open {
            let _ = stream.write_all(&line(answer)).await;
        }
    }

    fn answer(&mut self, request: &str) -> Result<i32, Errno> {
        let hardware = self.hardware();
        let (name, value) = request.trim().split_once(' ').ok_or(Errno::ENOTTY)?;
        let value: u32 = value.parse().map_err(|_| Errno::EINVAL)?;
        match name {
            "GETSUPPORT" => {
                self.note(Told::GetSupport);
                let set = i32::from(hardware.settable) * CAN_SET_TIMEOUT;
                Ok(set | CAN_BE_CLOSED)
            }
            "SETTIMEOUT" => {
                self.note(Told::SetTimeout(value));
                if !hardware.settable {
                    return Err(Errno::EOPNOTSUPP);
                }
                let chosen = value.next_multiple_of(hardware.step);
                self.timeout = Duration::from_secs(chosen.into());
                self.count_anew();
                i32::try_from(chosen).map_err(|_| Errno::EINVAL)
            }
            "GETTIMEOUT" => {
                self.note(Told::GetTimeout);
                i32::try_from(self.timeout.as_secs()).map_err(|_| Errno::EINVAL)
            }
            "KEEPALIVE" => {
                self.note(Told::Ping);
                self.count_anew();
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }
}

fn line(answer: Result<i32, Errno>) -> Vec<u8> {
    let (error, value) = match answer {
        Ok(value) => (0, value),
        Err(errno) => (errno as i32, 0),
    };
    format!("{error} {value}\n").into_bytes()
}

/// `None`: it was closed.
async fn next_byte(open: &mut Option<BufReader<UnixStream>>) -> Option<u8> {
    match open {
        Some(stream) => stream.read_u8().await.ok(),
        None => std::future::pending().await,
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
