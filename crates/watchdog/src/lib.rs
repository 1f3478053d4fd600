//! The watchdog device: hardware, or the kernel, that resets the machine unless it is told in time not to.
//!
//! The hazard: agent and fence may both be unable to stop PostgreSQL when the lease ends, because the machine starves or
//! hangs. A device that was told "in 25 seconds" at the last renewal needs neither of them.
//!
//! 1. It is opened, and counts from then on, before a server may accept writes.
//! 2. It is pinged only after a renewal of the lease was confirmed, with a timeout that ends before the lease.
//! 3. It is closed in order, by the magic character, only once no server here can accept writes any more. One that an
//!    agent leaves behind by dying resets the machine.
//!
//! When to do what is decided elsewhere. Every call may block as long as the device does: call from a thread that may.

mod device;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use device::{Device, Driver};

/// The device cannot be used as it would have to be.
#[derive(Debug, thiserror::Error)]
pub enum WatchdogError {
    /// It could not be opened, or is no watchdog.
    #[error("the watchdog device {path} cannot be used")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It resets the machine later than the lease ends, and cannot be told otherwise.
    #[error(
        "the watchdog device {path} has a timeout of {actual} s, which cannot be set to {wanted} s"
    )]
    TooLong {
        /// Which.
        path: PathBuf,
        /// Seconds.
        actual: u32,
        /// Seconds.
        wanted: u32,
    },
    /// It would reset the machine before the next renewal.
    #[error(
        "the watchdog device {path} has a timeout of {actual} s, shorter than the {least} s from one ping to the next"
    )]
    TooShort {
        /// Which.
        path: PathBuf,
        /// Seconds.
        actual: u32,
        /// Seconds.
        least: u32,
    },
    /// It was not heard.
    #[error(
        "the watchdog device {path} could not be told, and resets this machine unless it hears the next ping"
    )]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How the device was activated.
#[derive(Debug)]
pub struct Activated {
    /// Its timeout.
    pub timeout: Duration,
    /// It counts, and does not protect: why.
    pub unsafe_because: Option<WatchdogError>,
}

/// One device, open or not.
pub struct Watchdog {
    path: PathBuf,
    driver: Driver,
    device: Option<Box<dyn Device>>,
    /// The timeout that it was last told, in seconds.
    wanted: u32,
}

impl Watchdog {
    /// Touches nothing.
    pub fn new(path: impl Into<PathBuf>, driver: Driver) -> Self {
        Watchdog {
            path: path.into(),
            driver,
            device: None,
            wanted: 0,
        }
    }

    /// Opens the device, which counts from now on, with this timeout. `least` is the time from one ping to the next.
    ///
    /// # Errors
    /// It is not open: it could not be opened, or would reset the machine between two pings and was closed again.
    /// One whose timeout is too long, or that is too short and cannot be closed, is open and says so in
    /// [`Activated::unsafe_because`].
    pub fn activate(
        &mut self,
        wanted: Duration,
        least: Duration,
    ) -> Result<Activated, WatchdogError> {
        let device = self
            .driver
            .open(&self.path)
            .map_err(|source| self.unusable(source))?;
        self.activate_device(device, wanted, least)
    }

    fn activate_device(
        &mut self,
        mut device: Box<dyn Device>,
        wanted: Duration,
        least: Duration,
    ) -> Result<Activated, WatchdogError> {
        let (wanted, least) = (seconds(wanted), seconds(least));
        let set = match device.can_set_timeout() {
            true => set_timeout(device.as_mut(), wanted),
            false => device.timeout(),
        };
        let actual = match set {
            Ok(actual) => actual,
            Err(source) => {
                let error = self.unusable(source);
                self.close(device)?;
                return Err(error);
            }
        };
        let path = self.path.clone();
        let mut unsafe_because = (actual > wanted).then(|| WatchdogError::TooLong {
            path: path.clone(),
            actual,
            wanted,
        });
        if actual < least {
            let error = WatchdogError::TooShort {
                path,
                actual,
                least,
            };
            if device.can_be_closed() {
                self.close(device)?;
                return Err(error);
            }
            unsafe_because = Some(error);
        }
        self.device = Some(device);
        self.wanted = wanted;
        Ok(Activated {
            timeout: Duration::from_secs(actual.into()),
            unsafe_because,
        })
    }

    /// Counting begins anew, with this timeout from now on where the device can be told one.
    ///
    /// # Errors
    /// The device did not hear it, and goes on counting from the ping before; or it heard, and has no timeout as short
    /// as this.
    pub fn ping(&mut self, timeout: Duration) -> Result<(), WatchdogError> {
        let wanted = seconds(timeout);
        let path = &self.path;
        let failed = |source| WatchdogError::Write {
            path: path.clone(),
            source,
        };
        let Some(device) = &mut self.device else {
            return Ok(());
        };
        let mut actual = wanted;
        if device.can_set_timeout() && wanted != self.wanted {
            actual = set_timeout(device.as_mut(), wanted).map_err(failed)?;
            self.wanted = wanted;
        }
        device.ping().map_err(failed)?;
        match actual > wanted {
            true => Err(WatchdogError::TooLong {
                path: self.path.clone(),
                actual,
                wanted,
            }),
            false => Ok(()),
        }
    }

    /// It resets nothing any more. `false`: it cannot be stopped, was pinged for the last time, and resets the machine.
    ///
    /// # Errors
    /// It was not heard, and resets the machine.
    pub fn disable(&mut self) -> Result<bool, WatchdogError> {
        match self.device.take() {
            Some(device) => self.close(device),
            None => Ok(true),
        }
    }

    fn close(&self, mut device: Box<dyn Device>) -> Result<bool, WatchdogError> {
        let can_be_closed = device.can_be_closed();
        let told = match can_be_closed {
            true => device.close(),
            false => device.ping(),
        };
        told.map_err(|source| WatchdogError::Write {
            path: self.path.clone(),
            source,
        })?;
        Ok(can_be_closed)
    }

    fn unusable(&self, source: io::Error) -> WatchdogError {
        WatchdogError::Unusable {
            path: self.path.clone(),
            source,
        }
    }
}

/// Has the device take the longest of its timeouts that is no longer than this, and returns it. Devices have timeouts in
/// steps of their own, and may take the next longer one: then they are asked for less.
///
/// The shortest that the device has is longer: returns what it took.
fn set_timeout(device: &mut dyn Device, wanted: u32) -> io::Result<u32> {
    device.set_timeout(wanted)?;
    let mut actual = device.timeout()?;
    for less in (1..wanted).rev() {
        if actual <= wanted || device.set_timeout(less).is_err() {
            break;
        }
        actual = device.timeout()?;
    }
    Ok(actual)
}

/// Whether the device is there and may be opened for writing: what a member can know that must not open it yet.
pub fn is_usable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
