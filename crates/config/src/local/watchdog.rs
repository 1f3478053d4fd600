use crate::scalar::python_str;
use crate::section::Section;
use crate::{ConfigError, Map, Warning};

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

impl Watchdog {
    pub(crate) fn parse(root: &Map, warnings: &mut Vec<Warning>) -> Result<Watchdog, ConfigError> {
        let default = Watchdog::default();
        let Some(section) = Section::of("watchdog", root, "watchdog")? else {
            return Ok(default);
        };
        let mode = match section.get("mode") {
            None => WatchdogMode::Automatic,
            Some(value) => match python_str(value).to_lowercase().as_str() {
                "false" | "off" | "disable" | "disabled" => WatchdogMode::Off,
                "auto" | "automatic" => WatchdogMode::Automatic,
                "require" | "required" => WatchdogMode::Required,
                other => {
                    warnings.push(Warning(format!(
                        "watchdog.mode {other} is unknown, watchdog is off; set it to off, \
                         automatic or required"
                    )));
                    WatchdogMode::Off
                }
            },
        };
        Ok(Watchdog {
            mode,
            device: section.text("device")?.unwrap_or(default.device),
            safety_margin: section
                .int("safety_margin")?
                .unwrap_or(default.safety_margin),
            driver: section.text("driver")?.unwrap_or(default.driver),
        })
    }
}
