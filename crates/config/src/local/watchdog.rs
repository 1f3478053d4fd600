/// The `watchdog` section (`configuration.md` §2.12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchdog {
    /// Whether to use it.
    pub mode: WatchdogMode,
    /// Device file.
    pub device: String,
    /// Seconds between the watchdog's timeout and the end of the lock; -1: half of the ttl.
    pub safety_margin: i64,
    /// `default`, or `testing`.
    pub driver: String,
}

/// `watchdog.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WatchdogMode {
    /// Never.
    Off,
    /// If it works.
    #[default]
    Automatic,
    /// No leader without it.
    Required,
}

impl Default for Watchdog {
    fn default() -> Self {
        Watchdog {
            mode: WatchdogMode::Automatic,
            device: "/dev/watchdog".into(),
            safety_margin: 5,
            driver: "default".into(),
        }
    }
}
