//! Recovery settings: what a standby should have, and how it is written (`configuration.md` §6.5).

use indexmap::IndexMap;

use crate::follow::RecoveryTarget;
use crate::settings::Settings;

/// Settings that belong to recovery (version 12 and later), with the last major version that has them.
pub(crate) const RECOVERY_GUCS: &[&str] = &[
    "archive_cleanup_command",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restore_command",
];

/// Targets that a standby has explicitly empty.
const EMPTY_TARGETS: &[&str] = &[
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
];

/// Whether the parameter belongs to recovery, in any version from 12 on.
pub fn is_recovery_guc(name: &str) -> bool {
    RECOVERY_GUCS
        .iter()
        .any(|guc| guc.eq_ignore_ascii_case(name))
}

/// What a standby that follows this target should have.
pub(crate) fn standby_settings(
    settings: &Settings,
    target: &RecoveryTarget,
    major: u32,
) -> IndexMap<String, String> {
    let mut wanted = IndexMap::new();
    for (name, value) in &settings.recovery_conf {
        let name = name.to_ascii_lowercase();
        let managed = name.starts_with("recovery_target")
            || name == "primary_conninfo"
            || name == "primary_slot_name";
        if !managed {
            insert(&mut wanted, &name, value, major);
        }
    }
    for (name, value) in &target.settings {
        insert(&mut wanted, name, value, major);
    }
    wanted.insert("recovery_target_timeline".into(), "latest".into());
    for name in EMPTY_TARGETS {
        wanted.insert((*name).into(), String::new());
    }
    if let Some(primary) = &target.primary {
        let conninfo = primary.primary_conninfo(settings, major).to_string();
        wanted.insert("primary_conninfo".into(), conninfo);
        if let Some(slot) = &target.slot {
            wanted.insert("primary_slot_name".into(), slot.clone());
        }
    }
    wanted
}

/// Settings of a custom bootstrap's `recovery_conf`, in the words of version 12 and later.
pub(crate) fn bootstrap_settings(
    conf: &IndexMap<String, String>,
    major: u32,
) -> IndexMap<String, String> {
    let mut wanted = IndexMap::new();
    for (name, value) in conf {
        if name.eq_ignore_ascii_case("pause_at_recovery_target") {
            let action = if is_on(value) { "pause" } else { "promote" };
            wanted
                .entry("recovery_target_action".into())
                .or_insert_with(|| action.into());
        } else {
            insert(&mut wanted, &name.to_ascii_lowercase(), value, major);
        }
    }
    wanted
}

/// Whether a custom bootstrap's `recovery_conf` asks for a standby. Names of settings ignore case.
pub(crate) fn wants_standby(conf: &IndexMap<String, String>) -> bool {
    let mode = conf
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("standby_mode"));
    mode.is_some_and(|(_, value)| is_on(value))
}

/// As Patroni reads a boolean (`configuration.md` §0.2).
fn is_on(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "on" | "true" | "yes" | "1"
    )
}

/// Keeps what the version knows; `trigger_file` got another name with 12 and went away with 16.
fn insert(wanted: &mut IndexMap<String, String>, name: &str, value: &str, major: u32) {
    let name = if name == "trigger_file" {
        "promote_trigger_file"
    } else {
        name
    };
    if is_recovery_guc(name) && !(name == "promote_trigger_file" && major >= 16) {
        wanted.insert(name.to_owned(), value.to_owned());
    }
}

/// Recovery settings that a configuration file has, as far as this agent would have written them.
pub(crate) fn parse_recovery_section(conf: &str) -> Option<IndexMap<String, String>> {
    let (_, section) = conf.split_once("\n# recovery.conf\n")?;
    Some(
        section
            .lines()
            .filter_map(parse_line)
            .filter(|(name, _)| is_recovery_guc(name))
            .collect(),
    )
}

fn parse_line(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once('=')?;
    let value = value.trim().strip_prefix('\'')?.strip_suffix('\'')?;
    Some((name.trim().to_owned(), unquote(value)))
}

/// A configuration value between its quotes.
pub(crate) fn quote(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('\'');
    for char in value.chars() {
        match char {
            '\'' | '\\' => quoted.extend([char, char]),
            // A line break would end the value.
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            _ => quoted.push(char),
        }
    }
    quoted.push('\'');
    quoted
}

fn unquote(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(char) = chars.next() {
        match char {
            '\'' => text.extend(chars.next()),
            '\\' => match chars.next() {
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                other => text.extend(other),
            },
            _ => text.push(char),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conninfo::Conninfo;
    use proptest::prelude::*;

    fn map(pairs: &[(&str, &str)]) -> IndexMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    #[test]
    fn what_a_standby_should_have() {
        let mut settings = Settings::new("pg2", "batman", "/data");
        settings.recovery_conf = map(&[
            ("restore_command", "cp"),
            ("standby_mode", "off"),
            ("recovery_target_time", "yesterday"),
            ("trigger_file", "go"),
            ("primary_slot_name", "other"),
        ]);
        let target = RecoveryTarget {
            primary: Some(Conninfo::new("h", 1, "d")),
            slot: Some("pg2".into()),
            settings: map(&[("restore_command", "fetch")]),
        };
        let wanted = standby_settings(&settings, &target, 15);
        assert_eq!(wanted["restore_command"], "fetch");
        assert_eq!(wanted["promote_trigger_file"], "go");
        assert_eq!(wanted["recovery_target_time"], "");
        assert_eq!(wanted["recovery_target_timeline"], "latest");
        assert_eq!(wanted["primary_slot_name"], "pg2");
        assert!(wanted["primary_conninfo"].contains("application_name=pg2"));
        assert!(!wanted.contains_key("standby_mode"));

        let alone = standby_settings(&settings, &RecoveryTarget::default(), 16);
        assert!(!alone.contains_key("primary_conninfo"));
        assert!(!alone.contains_key("primary_slot_name"));
        assert!(!alone.contains_key("promote_trigger_file"));
    }

    #[test]
    fn a_custom_bootstrap_may_pause_at_its_target() {
        let conf = map(&[
            ("pause_at_recovery_target", "true"),
            ("recovery_target_time", "t"),
        ]);
        let wanted = bootstrap_settings(&conf, 15);
        assert_eq!(wanted["recovery_target_action"], "pause");
        assert_eq!(wanted["recovery_target_time"], "t");
    }

    // `configuration.md` §2.3, §6.5.
    #[test]
    fn a_custom_bootstrap_makes_a_standby_where_standby_mode_is_on() {
        for (name, value, standby) in [
            ("standby_mode", "on", true),
            ("standby_mode", "True", true),
            ("Standby_Mode", "YES", true),
            ("STANDBY_MODE", "1", true),
            ("standby_mode", "off", false),
            ("standby_mode", "False", false),
            ("standby_mode", "0", false),
            ("standby_mode", "perhaps", false),
            ("standby_mode", "", false),
            ("restore_command", "on", false),
        ] {
            let conf = map(&[("recovery_target_time", "t"), (name, value)]);
            assert_eq!(wants_standby(&conf), standby, "{name} = {value}");
        }
    }

    proptest! {
        #[test]
        fn quoting_is_undone(value: String) {
            let quoted = quote(&value);
            prop_assert!(!quoted.contains('\n'));
            prop_assert_eq!(unquote(&quoted[1..quoted.len() - 1]), value);
        }
    }
}
