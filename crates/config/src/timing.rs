use crate::scalar::{parse_int, python_repr};
use crate::{ConfigError, DcsSection, Map, Warning};

/// The smallest timings that a store allows (`configuration.md` §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimingLimits {
    /// Whole seconds.
    pub ttl: i64,
    /// Whole seconds.
    pub loop_wait: i64,
    /// Whole seconds.
    pub retry_timeout: i64,
}

impl TimingLimits {
    /// Patroni's, for every store that Patroni members may share.
    pub const PATRONI: TimingLimits = TimingLimits {
        ttl: 20,
        loop_wait: 1,
        retry_timeout: 3,
    };
    /// For the embedded store, where every member is one of ours: its leases need no slack for a slow
    /// external service.
    pub const EMBEDDED: TimingLimits = TimingLimits {
        ttl: 4,
        loop_wait: 1,
        retry_timeout: 1,
    };

    /// The limits of the store.
    pub fn of(store: &DcsSection) -> TimingLimits {
        match store {
            DcsSection::Raft(_) => TimingLimits::EMBEDDED,
            _ => TimingLimits::PATRONI,
        }
    }
}

/// The timings and their defaults, in seconds.
pub(crate) const DEFAULTS: [(&str, i64); 3] =
    [("ttl", 30), ("loop_wait", 10), ("retry_timeout", 10)];

/// Whether each timing that is there is a number (§1.4 A).
pub(crate) fn check(dynamic: &Map) -> Result<(), ConfigError> {
    let keys = DEFAULTS.map(|(key, _)| key).into_iter();
    let mut given = keys.filter_map(|key| Some((key, dynamic.get(key)?)));
    match given.find(|(_, value)| parse_int(value).is_none()) {
        None => Ok(()),
        Some((key, value)) => Err(ConfigError::invalid(
            key,
            python_repr(value),
            "a whole number of seconds, without a unit",
        )),
    }
}

/// Raises timings below the limits, and keeps `loop_wait + 2*retry_timeout <= ttl` (§3.2), so that a leader
/// that cannot reach the store gives up before its lock runs out. What is not a number is left alone.
pub(crate) fn clamp(dynamic: &mut Map, limits: TimingLimits, warnings: &mut Vec<Warning>) {
    let least = [
        ("loop_wait", limits.loop_wait),
        ("retry_timeout", limits.retry_timeout),
        ("ttl", limits.ttl),
    ];
    for (key, least) in least {
        let value = get(dynamic, key);
        if value < least {
            warnings.push(Warning(format!(
                "{key}={value} can't be smaller than {least}, adjusting..."
            )));
            dynamic.insert(key.into(), least.into());
        }
    }
    let [ttl, loop_wait, retry_timeout] = DEFAULTS.map(|(key, _)| get(dynamic, key));
    let rule = "Violated the rule \"loop_wait + 2*retry_timeout <= ttl\"";
    if retry_timeout
        .saturating_mul(2)
        .saturating_add(limits.loop_wait)
        > ttl
    {
        let (new_loop_wait, new_retry_timeout) = (limits.loop_wait, (ttl - limits.loop_wait) / 2);
        warnings.push(Warning(format!(
            "{rule}, where ttl={ttl}. Adjusting loop_wait from {loop_wait} to {new_loop_wait} \
             and retry_timeout from {retry_timeout} to {new_retry_timeout}"
        )));
        dynamic.insert("loop_wait".into(), new_loop_wait.into());
        dynamic.insert("retry_timeout".into(), new_retry_timeout.into());
    } else if retry_timeout.saturating_mul(2).saturating_add(loop_wait) > ttl {
        let new_loop_wait = ttl - 2 * retry_timeout;
        warnings.push(Warning(format!(
            "{rule}, where ttl={ttl} and retry_timeout={retry_timeout}. \
             Adjusting loop_wait from {loop_wait} to {new_loop_wait}"
        )));
        dynamic.insert("loop_wait".into(), new_loop_wait.into());
    }
}

fn get(dynamic: &Map, key: &str) -> i64 {
    let default = DEFAULTS
        .iter()
        .find(|(name, _)| *name == key)
        .map_or(0, |(_, default)| *default);
    dynamic.get(key).and_then(parse_int).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn clamped(timings: [i64; 3], limits: TimingLimits) -> ([i64; 3], usize) {
        let [ttl, loop_wait, retry_timeout] = timings;
        let given = json!({"ttl": ttl, "loop_wait": loop_wait, "retry_timeout": retry_timeout});
        let mut dynamic = given.as_object().cloned().unwrap_or_default();
        let mut warnings = Vec::new();
        clamp(&mut dynamic, limits, &mut warnings);
        (DEFAULTS.map(|(key, _)| get(&dynamic, key)), warnings.len())
    }

    #[test]
    fn timings_are_brought_into_the_rule() {
        for (given, limits, expected, warnings) in [
            ([30, 10, 10], TimingLimits::PATRONI, [30, 10, 10], 0),
            ([20, 10, 10], TimingLimits::PATRONI, [20, 1, 9], 1),
            ([20, 11, 5], TimingLimits::PATRONI, [20, 10, 5], 1),
            ([5, 0, 1], TimingLimits::PATRONI, [20, 1, 3], 3),
            ([5, 1, 2], TimingLimits::EMBEDDED, [5, 1, 2], 0),
            ([4, 2, 1], TimingLimits::EMBEDDED, [4, 2, 1], 0),
            ([1, 1, 1], TimingLimits::EMBEDDED, [4, 1, 1], 1),
            ([4, 1, 2], TimingLimits::EMBEDDED, [4, 1, 1], 1),
        ] {
            assert_eq!(clamped(given, limits), (expected, warnings), "{given:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_rule_holds_whatever_is_given(
            given in [-5i64..200, -5i64..200, -5i64..200],
            embedded: bool,
        ) {
            let limits = if embedded { TimingLimits::EMBEDDED } else { TimingLimits::PATRONI };
            let ([ttl, loop_wait, retry_timeout], _) = clamped(given, limits);
            prop_assert!(loop_wait + 2 * retry_timeout <= ttl);
            prop_assert!(ttl >= limits.ttl && loop_wait >= limits.loop_wait);
            prop_assert!(retry_timeout >= limits.retry_timeout);
        }
    }
}
