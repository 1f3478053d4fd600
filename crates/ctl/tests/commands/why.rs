//! Ours: the members' journals as one.

use primacy_ctl::Program;
use serde_json::Value;

use crate::world::World;

#[tokio::test]
async fn why() {
    let world = World::demo().await;
    let entry = |member: &str, second: u32, text: &str, more: &str| {
        format!(
            r#"{{"at":"2040-01-01T02:00:{second:02}Z","member":"{member}","kind":"event","text":"{text}"{more}}}"#
        )
    };
    let led = r#","leader":"pg0""#;
    let reason = r#","reasons":[{"rule":"ha.md §11.4","text":"pg1 lags: 2097152 > maximum_lag_on_failover 1048576"}]"#;
    world.answer(
        200,
        &format!(
            "[{},{}]",
            entry("pg0", 1, "pg0 leads", led),
            entry("pg0", 5, "clearing the failover request", reason)
        ),
    );
    world.answer(200, &format!("[{}]", entry("pg1", 2, "pg0 leads", led)));
    let told = world
        .run_as(Program::Primacy, "why pg1 --at 2040-01-01T02:00:30Z", "")
        .await;
    let mut asked = world.asked();
    asked.sort();
    let request = "GET /journal?limit=2000&until=2040-01-01T02:01:30Z";
    assert_eq!(asked, [request, request]);
    assert_eq!(told.errors, "");
    for expected in [
        "pg0 by 2040-01-01",
        "pg1 lags: 2097152 > maximum_lag_on_failover 1048576 [ha.md §11.4]",
    ] {
        assert!(told.output.contains(expected), "{}", told.output);
    }

    // One that is gone, and one that runs Patroni.
    world.answer(200, r#"{"state": "running"}"#);
    let told = world
        .run_as(Program::Primacy, "why --since 02:00", "")
        .await;
    assert_eq!(told.output, "The journals tell nothing of that time.\n");
    assert!(
        told.errors
            .contains("is left out: it answers with status 200 and no journal"),
        "{}",
        told.errors
    );
    assert!(told.errors.contains("demo-pg1.journal"), "{}", told.errors);

    // Without anybody to ask: a file, whose last line is torn.
    let path = world.directory.path().join("demo-pg0.journal");
    let whole = entry("pg0", 1, "the agent begins", "");
    std::fs::write(&path, format!("{whole}\n{}", &whole[..40])).unwrap();
    let line = format!("why --cluster other -f json --file {}", path.display());
    let told = world.run_as(Program::Primacy, &line, "").await;
    let rows: Value = serde_json::from_str(&told.output).unwrap();
    assert_eq!(rows.as_array().map(Vec::len), Some(1), "{}", told.output);

    let refused = world
        .run_as(Program::Primacy, "why --at yesterday", "")
        .await;
    assert!(refused.errors.contains("is no time"), "{}", refused.errors);
    let unknown = world.run("why", "").await;
    assert!(
        unknown.errors.contains("No such command 'why'."),
        "{}",
        unknown.errors
    );
}
