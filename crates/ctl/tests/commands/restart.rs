//! Restarts, and their schedules.

use serde_json::json;

use crate::world::World;
use crate::{TABLE, after_table, body};

#[tokio::test]
async fn restart() {
    let world = World::demo().await;
    let questions = "\
When should the restart take place (e.g. TIME)  [now]: \
Are you sure you want to restart members pg0, pg1? [y/N]: \
Restart if the PostgreSQL version is less than provided (e.g. 9.5.2)  []: ";
    world.answer(200, "restarted successfully");
    world.answer(503, "restart conditions are not satisfied");
    let lines = "Success: restart on member pg0\nFailed: restart for member pg1, status code=503, (restart conditions are not satisfied)\n";
    world.run("restart demo", "\ny\n\n").await.is(
        0,
        &after_table(&format!("{questions}{lines}")),
        "",
    );
    assert_eq!(world.asked(), ["POST /restart {}", "POST /restart {}"]);

    world.run("restart demo nosuch --force", "").await.is(
        1,
        TABLE,
        "Error: No 'any' among provided members\n",
    );
    let line = "restart demo pg1 nosuch --force --pg-version 15.20 --timeout 5 --scheduled 2040-01-01T10:00Z";
    world.answer(202, "Restart scheduled");
    world.run(line, "").await.is(
        0,
        &after_table("Success: restart scheduled on member pg1\n"),
        "TIME - WARNING - nosuch is left out: it is no member in the role any\n",
    );
    let expected = json!({"postgres_version": "15.20", "schedule": "2040-01-01T10:00:00+00:00", "timeout": "5"});
    assert_eq!(body(&world.asked()[0]), expected);

    let refused = world.run("restart demo pg1", "2040-01-01T10:00Z\n").await;
    assert!(refused.output.ends_with("Are you sure you want to schedule restart of members pg1 at 2040-01-01 10:00:00+00:00? [y/N]: "), "{refused:?}");
    assert_eq!(
        world.run("restart demo", "\nn\n").await.errors,
        "Error: Aborted restart\n"
    );
    for (line, typed) in [
        ("restart demo", "soon\n"),
        ("restart demo --force --scheduled soon", ""),
    ] {
        assert_eq!(
            world.run(line, typed).await.errors,
            "Error: Unable to parse scheduled timestamp (soon). It should be in an unambiguous format (e.g. ISO 8601)\n"
        );
    }
    world
        .run("restart demo --pending --force", "")
        .await
        .is(0, TABLE, "");
    assert_eq!(
        world.run("restart nosuch", "").await.errors,
        "Error: nosuch cluster doesn't have any members\n"
    );
}

#[tokio::test]
async fn restart_goes_on_after_a_member_that_does_not_answer() {
    let world = World::demo().await;
    world
        .member("pg0", json!({"api_url": "http://127.0.0.1:1/patroni"}))
        .await;
    world.answer(409, "Another restart is already scheduled");
    let outcome = world.run("restart demo --force", "").await;
    // Who is silent is told by the exit code, who refuses is not.
    outcome.is(1, &outcome.output, "Error: no answer from pg0\n");
    assert!(
        outcome
            .output
            .contains("Failed: restart for member pg0, (cannot connect to "),
        "{outcome:?}"
    );
    assert!(
        outcome
            .output
            .ends_with("Failed: another restart is already scheduled on member pg1\n"),
        "{outcome:?}"
    );
    for command in ["reload demo pg0 --force", "reload demo -r leader --force"] {
        let outcome = world.run(command, "").await;
        outcome.is(1, &outcome.output, "Error: no answer from pg0\n");
    }
    world
        .member("pg1", json!({"api_url": "http://127.0.0.1:1/patroni"}))
        .await;
    let outcome = world.run("reinit demo pg1 --force", "").await;
    outcome.is(1, &outcome.output, "Error: no answer from pg1\n");
    let outcome = world.run("version --group x", "").await;
    outcome.is(2, "", &outcome.errors);
}

#[tokio::test]
async fn schedule_is_kept_when_the_new_one_would_be_refused() {
    let world = World::demo().await;
    world
        .member(
            "pg1",
            json!({"scheduled_restart": {"schedule": "2040-01-01T10:00:00+00:00"}}),
        )
        .await;
    world.answer(422, "Cannot schedule restart in the past");
    let past = world
        .run("restart demo pg1 --force --scheduled 2001-01-01T10:00Z", "")
        .await;
    assert!(
        past.output.ends_with("Failed: restart for member pg1, status code=422, (Cannot schedule restart in the past)\n"),
        "{past:?}"
    );
    assert!(world.asked()[0].starts_with("POST /restart "));
    world.answer(200, "scheduled restart deleted");
    world.answer(202, "Restart scheduled");
    let moved = world
        .run("restart demo pg1 --force --scheduled 2041-01-01T10:00Z", "")
        .await;
    assert!(
        moved
            .output
            .ends_with("Success: restart scheduled on member pg1\n"),
        "{moved:?}"
    );
    assert_eq!(world.asked()[0], "DELETE /restart");
    // The old one may be gone by now.
    world.answer(404, "no restarts are scheduled");
    world.answer(202, "Restart scheduled");
    let moved = world
        .run("restart demo pg1 --force --scheduled 2041-01-01T10:00Z", "")
        .await;
    let lines = "+\nFailed: flush scheduled restart for member pg1, status code=404, (no restarts are scheduled)\nSuccess: restart scheduled on member pg1\n";
    assert!(moved.output.ends_with(lines), "{moved:?}");
    moved.is(0, &moved.output, "");
    let asked = world.asked();
    assert!(
        asked.len() == 2 && asked[1].starts_with("POST /restart "),
        "{asked:?}"
    );
}

#[tokio::test]
async fn flush() {
    let world = World::demo().await;
    let question = "Are you sure you want to flush members pg0, pg1? [y/N]: ";
    let lines = "No scheduled restart for member pg0\nNo scheduled restart for member pg1\n";
    world.run("flush demo restart", "y\n").await.is(
        0,
        &after_table(&format!("{question}{lines}")),
        "",
    );
    world
        .run("flush demo restart --force", "")
        .await
        .is(0, &after_table(lines), "");
    world.run("flush demo restart", "NO\n").await.is(
        1,
        &after_table(question),
        "Error: Aborted flush\n",
    );
    world
        .run("flush demo switchover", "")
        .await
        .is(0, "No pending scheduled switchover\n", "");
    let request = r#"{"leader":"pg0","scheduled_at":"2040-01-01T00:00:00+00:00"}"#;
    world.put("failover", request).await;
    world.answer(200, "scheduled switchover deleted");
    world.run("flush demo switchover", "").await.is(
        0,
        "Success: scheduled switchover deleted\n",
        "",
    );
    assert_eq!(world.asked(), ["DELETE /switchover"]);
    let alone = world.run("flush demo switchover", "").await;
    assert_eq!(
        alone.output,
        "PRECISE Could not find any accessible member of cluster demo\n"
    );
    assert_eq!(world.get("failover").await.unwrap(), "{}");
    world
        .member(
            "pg1",
            json!({"scheduled_restart": {"schedule": "2040-01-01T10:00:00+00:00"}}),
        )
        .await;
    world.answer(404, "no restarts are scheduled");
    let failed = world.run("flush demo pg1 restart --force", "").await;
    assert!(failed.output.ends_with("Failed: flush scheduled restart for member pg1, status code=404, (no restarts are scheduled)\n"), "{failed:?}");
}

#[tokio::test]
async fn flush_of_a_switchover_goes_on_until_a_member_decides() {
    let world = World::demo().await;
    for name in ["pg2", "pg3", "pg4"] {
        world.member(name, json!({})).await;
    }
    world
        .member("pg1", json!({"api_url": "http://127.0.0.1:1/patroni"}))
        .await;
    let request = r#"{"leader":"pg0","scheduled_at":"2040-01-01T00:00:00+00:00"}"#;
    world.put("failover", request).await;
    for (last, told) in [
        (404, "Failed: no switchover is scheduled\n"),
        (200, "Success: scheduled switchover deleted\n"),
    ] {
        world.answer(503, "busy");
        world.answer(401, "no auth header received");
        world.answer(last, "whatever");
        let outcome = world.run("flush demo switchover", "").await;
        let refusals = "Failed: member=pg0, status_code=503, (busy)\nFailed: member=pg2, status_code=401, (no auth header received)\n";
        outcome.is(0, &format!("{refusals}{told}"), &outcome.errors);
        assert!(
            outcome
                .errors
                .ends_with("WARNING - Member pg1 is not accessible\n"),
            "{outcome:?}"
        );
        assert_eq!(world.asked(), ["DELETE /switchover"; 3]);
        assert_eq!(world.get("failover").await.unwrap(), request);
    }
}

#[tokio::test]
async fn restart_of_those_that_wait_for_one_and_of_any() {
    let world = World::demo().await;
    world.member("pg1", json!({"pending_restart": true})).await;
    world.answer(200, "restarted successfully");
    let outcome = world.run("restart demo --pending --force", "").await;
    outcome.is(0, &outcome.output, "");
    assert!(
        outcome
            .output
            .ends_with("\nSuccess: restart on member pg1\n"),
        "{outcome:?}"
    );
    assert_eq!(world.asked(), [r#"POST /restart {"restart_pending":true}"#]);

    // Who waits for one then is not known yet.
    for _ in 0..2 {
        world.answer(202, "Restart scheduled");
    }
    let line = "restart demo --pending --scheduled 2040-01-01T10:00Z";
    let outcome = world.run(line, "y\n\n").await;
    let question = "The nodes needing a restart will be identified at the scheduled time, and might be different from the ones showing pending restart right now. Is this fine? [y/N]: ";
    assert!(outcome.output.contains(question), "{outcome:?}");
    assert_eq!(world.asked().len(), 2);

    world.answer(200, "restarted successfully");
    world.run("restart demo --any --force", "").await;
    assert_eq!(world.asked().len(), 1);
}
