//! Another leader: at once, in time, and by way of the store.

use serde_json::json;

use crate::world::World;
use crate::{TABLE, body};

#[tokio::test]
async fn switchover_with_all_questions() {
    let world = World::demo().await;
    world.answer(200, "Successfully switched over to \"pg1\"");
    world.then("leader", "pg1");
    let outcome = world.run("switchover demo", "\n\n\ny\n").await;
    let questions = "\
Primary [pg0]: Candidate ['pg1'] []: When should the switchover take place (e.g. TIME )  [now]: \
Are you sure you want to switchover cluster demo, demoting current leader pg0? [y/N]: \
PRECISE Successfully switched over to \"pg1\"\n";
    let expected = format!("Current cluster topology\n{TABLE}{questions}");
    assert!(outcome.output.starts_with(&expected), "{}", outcome.output);
    let fresh = &outcome.output[expected.len()..];
    assert!(
        fresh.starts_with("+ Cluster: demo (")
            && fresh.contains("| pg1    | 10.0.0.12:15432 | Leader  |"),
        "{fresh}"
    );
    let asked = world.asked();
    assert!(asked[0].starts_with("POST /switchover "), "{asked:?}");
    assert_eq!(body(&asked[0]), json!({"candidate": null, "leader": "pg0"}));
}

#[tokio::test]
async fn switchover_at_a_time() {
    let world = World::demo().await;
    let typed = "pg0\npg1\n2040-01-01T10:00:00+01:00\nn\n";
    let outcome = world.run("switchover", typed).await;
    assert!(outcome.output.ends_with("Are you sure you want to schedule switchover of cluster demo at 2040-01-01T10:00:00+01:00, demoting current leader pg0? [y/N]: "), "{outcome:?}");
    assert_eq!(outcome.errors, "Error: Aborting scheduled switchover\n");

    world
        .put(
            "failover",
            r#"{"leader":"pg0","scheduled_at":"2041-01-01T00:00:00+00:00"}"#,
        )
        .await;
    world.answer(202, "Switchover scheduled");
    let outcome = world
        .run(
            "switchover --candidate pg1 --scheduled 2040-01-01T10:00+01:00 --force",
            "",
        )
        .await;
    assert!(
        outcome.output.contains("PRECISE Switchover scheduled\n"),
        "{outcome:?}"
    );
    assert!(
        outcome
            .errors
            .contains("WARNING - This replaces the switchover that is scheduled at "),
        "{outcome:?}"
    );
    let expected =
        json!({"candidate": "pg1", "leader": "pg0", "scheduled_at": "2040-01-01T10:00:00+01:00"});
    assert_eq!(body(&world.asked()[0]), expected);
}

#[tokio::test]
async fn switchover_refused() {
    let world = World::demo().await;
    world
        .member("pg2", json!({"tags": {"nofailover": true}}))
        .await;
    for (line, refusal) in [
        (
            "switchover --leader pg1",
            "Member pg1 is not the leader of cluster demo",
        ),
        (
            "switchover --force --candidate pg0",
            "Member pg0 is already the leader of cluster demo",
        ),
        (
            "switchover --force --candidate pg2",
            "Member pg2 does not exist in cluster demo or is tagged as nofailover",
        ),
        (
            "switchover --force --scheduled soon",
            "Unable to parse scheduled timestamp (soon). It should be in an unambiguous format (e.g. ISO 8601)",
        ),
        ("switchover nosuch --force", "This cluster has no leader"),
        (
            "failover --force",
            "Failover could be performed only to a specific candidate",
        ),
        ("failover nosuch", "No candidates found to failover to"),
    ] {
        let outcome = world.run(line, "").await;
        assert_eq!(outcome.errors, format!("Error: {refusal}\n"), "{line}");
    }
    for verb in ["switchover", "failover"] {
        let tagged = World::demo().await;
        let tags = json!({"tags": {"failover_priority": 0}});
        tagged.member("pg1", tags).await;
        let outcome = tagged.run(&format!("{verb} --force"), "").await;
        let refusal = format!("Error: No candidates found to {verb} to\n");
        assert_eq!(outcome.errors, refusal);
    }
    let why = json!({"tags": {"nofailover": true}, "withdrawn": "my WAL left the last leader's"});
    world.member("pg2", why).await;
    let led = world.run("failover --force --candidate pg2", "").await;
    assert!(led.errors.contains("is tagged as nofailover"), "{led:?}");

    let aborted = world.run("switchover", "pg0\n").await;
    assert!(
        aborted.output.ends_with("Candidate ['pg1'] []: ") && aborted.errors == "Aborted!\n",
        "{aborted:?}"
    );

    let differs = "candidate name does not match with sync_standby";
    for (line, status, body, told) in [
        ("switchover", 412, differs, "Switchover failed"),
        ("failover --candidate pg1", 412, differs, "Failover failed"),
        (
            "switchover",
            503,
            "Switchover status unknown",
            "Switchover result unknown",
        ),
        (
            "failover --candidate pg1",
            503,
            "Failover status unknown",
            "Failover result unknown",
        ),
    ] {
        world.answer(status, body);
        let outcome = world.run(&format!("{line} --force"), "").await;
        let end = format!("-+\n{told}, details: {status}, {body}\n");
        assert!(outcome.output.ends_with(&end), "{outcome:?}");
        outcome.is(0, &outcome.output, "");
    }
}

#[tokio::test]
async fn members_that_do_not_answer_find_the_request_in_the_store() {
    let world = World::demo().await;
    for (verb, request) in [
        ("switchover", r#"{"leader":"pg0","member":"pg1"}"#),
        ("failover", r#"{"member":"pg1"}"#),
    ] {
        let line = format!("{verb} --candidate pg1 --force");
        let outcome = world.run(&line, "").await;
        let expected = format!(
            "Current cluster topology\n{TABLE}PRECISE Could not {verb} using Patroni api, falling back to DCS\n{TABLE}"
        );
        outcome.is(0, &expected, &outcome.errors);
        let warnings = format!(
            "TIME - WARNING - Failing over to DCS\nTIME - WARNING - No member has checked whether this {verb} is possible\n"
        );
        assert!(outcome.errors.ends_with(&warnings), "{outcome:?}");
        assert_eq!(world.get("failover").await.unwrap(), request);
    }
}

#[tokio::test]
async fn failover_to_an_asynchronous_member_is_asked_about() {
    let world = World::demo().await;
    world.put("config", r#"{"synchronous_mode":true}"#).await;
    world
        .put("sync", r#"{"leader":"pg0","sync_standby":null}"#)
        .await;
    let declined = world.run("failover --candidate pg1", "n\n").await;
    assert!(
        declined
            .output
            .ends_with("Are you sure you want to failover to the asynchronous node pg1? [y/N]: "),
        "{declined:?}"
    );
    assert_eq!(declined.errors, "Error: Aborting failover\n");
    world.answer(200, "Successfully failed over to \"pg1\"");
    let done = world.run("failover --candidate pg1", "y\nyes\n").await;
    assert!(done.output.contains("Are you sure you want to failover cluster demo, demoting current leader pg0? [y/N]: PRECISE Successfully failed over to \"pg1\"\n"), "{done:?}");
    assert_eq!(body(&world.asked()[0]), json!({"candidate": "pg1"}));
}

/// One whose WAL may be none of what clients were told; what its configuration withdrew stays that.
#[tokio::test]
async fn failover_to_a_member_that_withdrew_itself_where_nobody_leads() {
    let world = World::empty().await;
    world
        .member(
            "pg1",
            json!({"tags": {"nofailover": true}, "withdrawn": "my WAL left the last leader's"}),
        )
        .await;
    world
        .member("pg2", json!({"tags": {"nofailover": true}}))
        .await;
    let refused = world.run("failover demo --force --candidate pg2", "").await;
    assert!(
        refused.errors.contains("is tagged as nofailover"),
        "{refused:?}"
    );
    world.answer(200, "Successfully failed over to \"pg1\"");
    let done = world.run("failover demo --force --candidate pg1", "").await;
    assert!(
        done.output.contains("Successfully failed over to \"pg1\""),
        "{done:?}"
    );
}

/// Members of before there were two endpoints.
#[tokio::test]
async fn switchover_that_a_member_does_not_know_becomes_a_failover() {
    let world = World::demo().await;
    world.answer(501, "Server does not support this operation");
    world.answer(200, "Successfully failed over to \"pg1\"");
    let outcome = world.run("switchover --candidate pg1 --force", "").await;
    assert!(
        outcome
            .output
            .contains("PRECISE Successfully failed over to \"pg1\"\n"),
        "{outcome:?}"
    );
    let asked = world.asked();
    assert!(
        asked[0].starts_with("POST /switchover ") && asked[1].starts_with("POST /failover "),
        "{asked:?}"
    );
    assert_eq!(body(&asked[0]), body(&asked[1]));
}
