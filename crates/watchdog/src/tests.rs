use std::io;
use std::sync::{Arc, Mutex};

use super::*;

/// A device as some hardware is.
#[derive(Clone)]
struct Hardware {
    settable: bool,
    closable: bool,
    timeout: u32,
    /// Its timeouts are multiples of this, in seconds.
    step: u32,
    told: Arc<Mutex<Vec<String>>>,
}

impl Hardware {
    fn new() -> Self {
        Hardware {
            settable: true,
            closable: true,
            timeout: 60,
            step: 1,
            told: Arc::default(),
        }
    }

    fn tell(&self, what: impl Into<String>) -> io::Result<()> {
        self.told.lock().unwrap().push(what.into());
        Ok(())
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    fn activate(&self, wanted: u64) -> (Watchdog, Result<Activated, WatchdogError>) {
        let mut watchdog = Watchdog::new("/dev/watchdog", Driver::Linux);
        let seconds = Duration::from_secs;
        let activated =
            watchdog.activate_device(Box::new(self.clone()), seconds(wanted), seconds(10));
        (watchdog, activated)
    }
}

impl Device for Hardware {
    fn can_set_timeout(&self) -> bool {
        self.settable
    }
    fn can_be_closed(&self) -> bool {
        self.closable
    }
    fn set_timeout(&mut self, seconds: u32) -> io::Result<()> {
        self.timeout = seconds.next_multiple_of(self.step);
        self.tell(format!("timeout {seconds}"))
    }
    fn timeout(&mut self) -> io::Result<u32> {
        Ok(self.timeout)
    }
    fn ping(&mut self) -> io::Result<()> {
        self.tell("ping")
    }
    fn close(&mut self) -> io::Result<()> {
        self.tell("close")
    }
}

#[test]
fn s19_a_device_is_set_pinged_and_closed() {
    let hardware = Hardware::new();
    let (mut watchdog, activated) = hardware.activate(25);
    let activated = activated.unwrap();
    assert_eq!(activated.timeout, Duration::from_secs(25));
    assert!(activated.unsafe_because.is_none());
    watchdog.ping(Duration::from_secs(25)).unwrap();
    watchdog.ping(Duration::from_millis(20_900)).unwrap();
    assert!(watchdog.disable().unwrap());
    assert!(watchdog.disable().unwrap(), "once is enough");
    watchdog.ping(Duration::from_secs(25)).unwrap();
    assert_eq!(
        hardware.told(),
        ["timeout 25", "ping", "timeout 20", "ping", "close"]
    );
}

#[test]
fn s19_a_timeout_that_outlasts_the_lease_protects_nobody() {
    let stubborn = Hardware {
        settable: false,
        ..Hardware::new()
    };
    let (_, activated) = stubborn.activate(25);
    assert!(matches!(
        activated.unwrap().unsafe_because,
        Some(WatchdogError::TooLong {
            actual: 60,
            wanted: 25,
            ..
        })
    ));
}

#[test]
fn s19_a_device_that_rounds_up_is_asked_for_less() {
    let coarse = Hardware {
        step: 4,
        ..Hardware::new()
    };
    let (mut watchdog, activated) = coarse.activate(25);
    assert_eq!(activated.unwrap().timeout, Duration::from_secs(24));
    watchdog.ping(Duration::from_secs(25)).unwrap();
    watchdog.ping(Duration::from_secs(21)).unwrap();
    assert_eq!(
        coarse.told(),
        [
            "timeout 25",
            "timeout 24",
            "ping",
            "timeout 21",
            "timeout 20",
            "ping"
        ]
    );
    // Shorter than its hardware can be.
    let outlasts = watchdog.ping(Duration::from_secs(3));
    assert!(matches!(
        outlasts,
        Err(WatchdogError::TooLong {
            actual: 4,
            wanted: 3,
            ..
        })
    ));
}

#[test]
fn s19_a_timeout_shorter_than_a_loop_is_switched_off_where_that_can_be() {
    let hasty = Hardware {
        settable: false,
        timeout: 5,
        ..Hardware::new()
    };
    let (_, activated) = hasty.activate(25);
    assert!(matches!(
        activated,
        Err(WatchdogError::TooShort { actual: 5, .. })
    ));
    assert_eq!(hasty.told(), ["close"]);
    let fatal = Hardware {
        closable: false,
        ..hasty
    };
    let (_, activated) = fatal.activate(25);
    assert!(activated.unwrap().unsafe_because.is_some());
}

#[test]
fn s19_a_device_without_magic_close_is_pinged_once_more() {
    let endless = Hardware {
        closable: false,
        ..Hardware::new()
    };
    let (mut watchdog, activated) = endless.activate(25);
    activated.unwrap();
    assert!(!watchdog.disable().unwrap());
    assert_eq!(endless.told(), ["timeout 25", "ping"]);
}

#[test]
fn s19_what_is_no_watchdog_is_told_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(is_usable(&file));
    let mut watchdog = Watchdog::new(&file, Driver::Linux);
    let refused = watchdog.activate(Duration::from_secs(25), Duration::from_secs(10));
    assert!(matches!(refused, Err(WatchdogError::Unusable { .. })));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");

    let missing = directory.path().join("missing");
    assert!(!is_usable(&missing));
    let mut watchdog = Watchdog::new(missing, Driver::Linux);
    let refused = watchdog.activate(Duration::from_secs(25), Duration::from_secs(10));
    assert!(matches!(refused, Err(WatchdogError::Unusable { .. })));
}

#[test]
fn the_testing_driver_writes_what_harnesses_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("device");
    std::fs::write(&file, "").unwrap();
    let mut watchdog = Watchdog::new(&file, Driver::Testing);
    let second = Duration::from_secs(1);
    watchdog.activate(25 * second, 10 * second).unwrap();
    watchdog.ping(25 * second).unwrap();
    watchdog.ping(20 * second).unwrap();
    watchdog.disable().unwrap();
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        "Ctimeout=25\n1Ctimeout=20\n1V"
    );
}
