//! What devices there are.

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `/dev/watchdog` and its like, by the ioctls of Linux.
    Linux,
    /// A file or FIFO that is told in text what a device would be told, for tests.
    Testing,
}

/// An open device, which counts.
pub trait Device: Send {
    /// It takes a timeout.
    fn can_set_timeout(&self) -> bool;
    /// It can be stopped.
    fn can_be_closed(&self) -> bool;
    /// Sets the timeout, in seconds; the device may choose another. Counting begins anew.
    fn set_timeout(&mut self, seconds: u32) -> io::Result<()>;
    /// The timeout in force, in seconds.
    fn timeout(&mut self) -> io::Result<u32>;
    /// Counting begins anew.
    fn ping(&mut self) -> io::Result<()>;
    /// The next close of the file stops the device.
    fn close(&mut self) -> io::Result<()>;
}

impl Driver {
    pub(crate) fn open(self, path: &Path) -> io::Result<Box<dyn Device>> {
        let mut options = std::fs::OpenOptions::new();
        // A FIFO without a reader is an error then, instead of a wait.
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        // What a testing device was told before is kept.
        let append = self == Driver::Testing;
        let file = options
            .write(true)
            .append(append)
            .custom_flags(nonblocking)
            .open(path)?;
        Ok(match self {
            Driver::Linux => Box::new(LinuxDevice::new(file)?),
            Driver::Testing => Box::new(TestingDevice {
                file,
                timeout: TESTING_TIMEOUT,
            }),
        })
    }
}

/// `struct watchdog_info`.
#[derive(Default)]
#[repr(C)]
struct Info {
    options: u32,
    _firmware_version: u32,
    _identity: [u8; 32],
}

const SETTIMEOUT: u32 = 0x0080;
const MAGICCLOSE: u32 = 0x0100;

/// The requests of `linux/watchdog.h`, by the C library, so that a test can take the place of a device.
mod request {
    use std::ffi::c_int;

    nix::ioctl_read!(getsupport, b'W', 0, super::Info);
    nix::ioctl_readwrite!(settimeout, b'W', 6, c_int);
    nix::ioctl_read!(gettimeout, b'W', 7, c_int);
}

struct LinuxDevice {
    file: File,
    options: u32,
}

impl LinuxDevice {
    fn new(file: File) -> io::Result<Self> {
        let info = support(&file)?;
        Ok(LinuxDevice {
            file,
            options: info.options,
        })
    }
}

impl Device for LinuxDevice {
    fn can_set_timeout(&self) -> bool {
        self.options & SETTIMEOUT != 0
    }

    fn can_be_closed(&self) -> bool {
        self.options & MAGICCLOSE != 0
    }

    fn set_timeout(&mut self, seconds: u32) -> io::Result<()> {
        let seconds = c_int::try_from(seconds).unwrap_or(c_int::MAX);
        set_timeout(&self.file, seconds)
    }

    fn timeout(&mut self) -> io::Result<u32> {
        let seconds = timeout(&self.file)?;
        u32::try_from(seconds).map_err(io::Error::other)
    }

    fn ping(&mut self) -> io::Result<()> {
        self.file.write_all(b"1")
    }

    fn close(&mut self) -> io::Result<()> {
        self.file.write_all(b"V")
    }
}

#[expect(
    unsafe_code,
    reason = "the ioctls of the watchdog API; no crate that we know wraps them"
)]
fn support(file: &File) -> io::Result<Info> {
    let mut info = Info::default();
    // SAFETY: WDIOC_GETSUPPORT fills a `struct watchdog_info`, which `Info` is laid out as; all of its bit patterns are
    // valid. A file that is no watchdog refuses the request by its number, which also encodes the length.
    unsafe { request::getsupport(file.as_raw_fd(), &raw mut info) }?;
    Ok(info)
}

#[expect(
    unsafe_code,
    reason = "the ioctls of the watchdog API; no crate that we know wraps them"
)]
fn set_timeout(file: &File, mut seconds: c_int) -> io::Result<()> {
    // SAFETY: WDIOC_SETTIMEOUT reads one int and writes the one that the device chose in its place.
    unsafe { request::settimeout(file.as_raw_fd(), &raw mut seconds) }?;
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "the ioctls of the watchdog API; no crate that we know wraps them"
)]
fn timeout(file: &File) -> io::Result<c_int> {
    let mut seconds = 0;
    // SAFETY: WDIOC_GETTIMEOUT writes one int.
    unsafe { request::gettimeout(file.as_raw_fd(), &raw mut seconds) }?;
    Ok(seconds)
}

/// The timeout of a testing device that was not told any, in seconds.
const TESTING_TIMEOUT: u32 = 60;

struct TestingDevice {
    file: File,
    timeout: u32,
}

impl Device for TestingDevice {
    fn can_set_timeout(&self) -> bool {
        true
    }

    fn can_be_closed(&self) -> bool {
        true
    }

    fn set_timeout(&mut self, seconds: u32) -> io::Result<()> {
        self.timeout = seconds;
        self.file
            .write_all(format!("Ctimeout={seconds}\n").as_bytes())
    }

    fn timeout(&mut self) -> io::Result<u32> {
        Ok(self.timeout)
    }

    fn ping(&mut self) -> io::Result<()> {
        self.file.write_all(b"1")
    }

    fn close(&mut self) -> io::Result<()> {
        self.file.write_all(b"V")
    }
}
