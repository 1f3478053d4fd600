//! I7: what is told.

use std::time::Duration;

use primacy_ha::{Action, JournalEntry, LogLevel};
use primacy_model::{JournalKind, Lsn, SyncState, Tags, Version};
use serde_json::json;

use crate::driver::Driver;
use crate::world::{self, World};

fn journaled(driver: &Driver) -> Vec<JournalEntry> {
    let entries = driver.seen.iter().filter_map(|action| match action {
        Action::Journal(entry) => Some(entry.clone()),
        _ => None,
    });
    entries.collect()
}

/// I7: a failover that was not done is told with the values compared; again when somebody else leads, not each
/// second.
#[test]
fn i7_a_failover_not_done_is_told_with_its_values_and_not_each_second() {
    let mut world = World::unlocked("pg2");
    world.cluster.status.optime = Lsn(world::POSITION.0 + 2_097_152);
    let mut driver = Driver::starting(world);
    driver.rest();
    driver.pass_time(Duration::from_secs(3600), |_| false);
    let told: Vec<JournalEntry> = journaled(&driver)
        .into_iter()
        .filter(|entry| entry.kind == JournalKind::Wait)
        .collect();
    let lag = "lag 2097152 > maximum_lag_on_failover 1048576";
    assert!(
        told[0]
            .reasons
            .iter()
            .any(|reason| reason.rule == "ha.md §10.2.1" && reason.text == lag),
        "{told:#?}"
    );
    assert!((5..10).contains(&told.len()), "{}", told.len());
    let passes: u32 = told.iter().map(|entry| entry.repeated + 1).sum();
    assert!(passes > 2000, "{passes} of 3600 are accounted for");

    driver.seen.clear();
    driver.cluster.leader = Some(world::leader("pg3"));
    driver.pass_time(Duration::from_secs(11), |_| false);
    driver.cluster.leader = None;
    driver.pass_time(Duration::from_secs(11), |_| false);
    let texts: Vec<String> = journaled(&driver).into_iter().map(|e| e.outcome).collect();
    let gone = texts
        .iter()
        .position(|text| text == "nobody leads; before pg3 did");
    let refused = texts
        .iter()
        .rposition(|text| text.contains("not the healthiest"));
    assert!(gone.is_some() && gone < refused, "{texts:#?}");
}

/// I7: what happened, every step, and what came of it.
#[test]
fn i7_what_happens_and_what_comes_of_it_is_told() {
    let mut driver = Driver::starting(World::unlocked("pg2"));
    driver.rest();
    driver.pass_time(Duration::from_secs(2), |_| false);
    let entries = journaled(&driver);
    let acquired = entries
        .iter()
        .find(|entry| entry.step == "acquire the leader key")
        .expect("the step");
    assert_eq!(
        acquired
            .peers
            .keys()
            .map(|name| name.as_str())
            .collect::<Vec<_>>(),
        ["pg1", "pg3"]
    );
    let texts: Vec<&str> = entries.iter().map(|entry| entry.outcome.as_str()).collect();
    for expected in [
        "nobody leads",
        "pg2 leads",
        "promote: done, after 0.0 s",
        "PostgreSQL: primary, running, timeline 1; before promoted, running",
    ] {
        assert!(texts.contains(&expected), "{expected} in {texts:#?}");
    }
}

fn logged(driver: &Driver, level: LogLevel, begins: &str) -> usize {
    let matches = |action: &&Action| matches!(action, Action::Log(at, text) if *at == level && text.starts_with(begins));
    driver.seen.iter().filter(matches).count()
}

/// `process.md`: what alerts are matched on has its level, and is there again with every line of a pass at rest.
#[test]
fn sentences_that_alerts_are_matched_on_are_logged_at_their_level() {
    let mut driver = Driver::leading();
    let config = driver.cluster.config.as_mut().expect("a configuration");
    config.value.insert("synchronous_mode".into(), true.into());
    config
        .value
        .insert("synchronous_mode_strict".into(), true.into());
    config.version = Version(500);
    driver.cluster.sync = SyncState {
        leader: Some("pg1".into()),
        version: Some(Version(501)),
        ..SyncState::default()
    };
    driver.pass_time(Duration::from_secs(30), |_| false);
    let alone = "No active replication connections from Patroni members and synchronous_mode_strict is requested";
    assert!((2..6).contains(&logged(&driver, LogLevel::Warning, alone)));
    for line in [
        "Lock owner: pg1; I am pg1",
        "no action. I am (pg1), the leader with the lock",
    ] {
        assert!(
            (2..6).contains(&logged(&driver, LogLevel::Info, line)),
            "{line}"
        );
    }

    let ahead = World::unlocked("pg2").peers(&[("pg3", Some(world::POSITION.0 + 8))]);
    let mut preferred = World::unlocked("pg2").peers(&[("pg3", Some(world::POSITION.0))]);
    for report in preferred
        .peers
        .iter_mut()
        .flat_map(|peers| peers.values_mut())
        .flatten()
    {
        report.tags = Tags::from_json(&json!({"failover_priority": 2}));
    }
    for (world, line) in [
        (ahead, "Wal position of pg3 is ahead of my wal position"),
        (
            preferred,
            "pg3 has equally tolerable WAL position and priority 2, while this node has priority 1",
        ),
    ] {
        let mut driver = Driver::starting(world);
        driver.rest();
        assert_eq!(logged(&driver, LogLevel::Info, line), 1, "{line}");
        driver.pass_time(Duration::from_secs(30), |_| false);
        assert!(
            (2..6).contains(&logged(&driver, LogLevel::Info, line)),
            "{line}"
        );
    }

    let follows = World::of("pg2");
    let withdrawn = World::unlocked("pg2").tags(json!({"nofailover": true}));
    for (world, owner, outcome) in [
        (
            follows,
            "pg1",
            "no action. I am (pg2), a secondary, and following a leader (pg1)",
        ),
        (
            withdrawn,
            "None",
            "following a different leader because I am not allowed to promote",
        ),
    ] {
        let mut driver = Driver::starting(world);
        driver.rest();
        let owner = format!("Lock owner: {owner}; I am pg2");
        for line in [owner.as_str(), outcome] {
            assert!(logged(&driver, LogLevel::Info, line) > 0, "{line}");
        }
    }
}
