//! What is done to a cluster as a whole.

use serde_json::json;

use crate::world::World;
use crate::{TABLE, after_table, body};

#[tokio::test]
async fn pause_and_resume() {
    let world = World::demo().await;
    world
        .run("resume", "")
        .await
        .is(1, "", "Error: Cluster is not paused\n");
    world.answer(200, "{}");
    world
        .run("pause", "")
        .await
        .is(0, "Success: cluster management is paused\n", "");
    assert_eq!(world.asked(), [r#"PATCH /config {"pause":true}"#]);
    world.put("config", r#"{"pause":true,"loop_wait":1}"#).await;
    world
        .run("pause", "")
        .await
        .is(1, "", "Error: Cluster is already paused\n");
    world.answer(401, "not authenticated");
    world.run("resume", "").await.is(
        0,
        "Failed: resume cluster management status code=401, (not authenticated)\n",
        "",
    );
    assert_eq!(world.asked(), [r#"PATCH /config {"pause":null}"#]);
    let alone = world.run("resume", "").await;
    assert!(
        alone
            .errors
            .ends_with("Error: Can not find accessible cluster member\n"),
        "{alone:?}"
    );
    assert!(
        alone
            .errors
            .contains("WARNING - Member pg0 is not accessible\n"),
        "{alone:?}"
    );

    let waiting = "'resume' request sent, waiting until it is recognized by all nodes\n";
    world.answer(200, "{}");
    world.run("resume --wait", "").await.is(
        0,
        &format!("{waiting}Success: cluster management is resumed\n"),
        "",
    );
    world.member("pg0", json!({"pause": true})).await;
    world.member("pg1", json!({"pause": true})).await;
    world.answer(200, "{}");
    world.then(
        "members/pg1",
        &json!({"api_url": "http://h/", "pause": true, "xlog_location": 1}).to_string(),
    );
    world.run("resume --wait", "").await.is(
        0,
        &format!("{waiting}pg1 members didn't recognized pause state after 1 seconds\n"),
        "",
    );
}

#[tokio::test]
async fn pause_and_resume_go_to_another_member_when_the_leader_does_not_answer() {
    let world = World::demo().await;
    world
        .member("pg0", json!({"api_url": "http://127.0.0.1:1/patroni"}))
        .await;
    world.member("pg2", json!({})).await;
    for (verb, paused, patch) in [("pause", false, "true"), ("resume", true, "null")] {
        let config = json!({"pause": paused}).to_string();
        world.put("config", &config).await;
        // The first answer ends the search, also a refusal.
        for (status, told) in [
            (200, format!("Success: cluster management is {verb}d\n")),
            (
                503,
                format!("Failed: {verb} cluster management status code=503, (no)\n"),
            ),
        ] {
            world.answer(status, "no");
            let outcome = world.run(verb, "").await;
            outcome.is(0, &told, &outcome.errors);
            let end = "WARNING - Member pg0 is not accessible\n";
            assert!(outcome.errors.ends_with(end), "{outcome:?}");
            assert_eq!(
                world.asked(),
                [format!(r#"PATCH /config {{"pause":{patch}}}"#)]
            );
        }
    }
}

#[tokio::test]
async fn members_that_stay_silent_do_not_spoil_a_resume() {
    let world = World::demo().await;
    world.put("config", r#"{"pause":true,"loop_wait":1}"#).await;
    world.member("pg1", json!({"pause": true})).await;
    // Nobody waits for who published no address.
    world.member("pg2", json!({"api_url": null})).await;
    world.answer(200, "{}");
    world.then("members/pg2", &json!({"pause": true}).to_string());
    world.run("resume --wait", "").await.is(
        0,
        "'resume' request sent, waiting until it is recognized by all nodes\nSuccess: cluster management is resumed\n",
        "",
    );
}

#[tokio::test]
async fn remove() {
    let world = World::demo().await;
    let one = "Please confirm the cluster name to remove: ";
    let two = "You are about to remove all information in DCS for demo, please type: \"Yes I am aware\": ";
    let three = "This cluster currently is healthy. Please specify the leader name to continue: ";
    world.run("remove demo", "demi\n").await.is(
        1,
        &after_table(one),
        "Error: Cluster names specified do not match\n",
    );
    world.run("remove demo", "demo\nyes\n").await.is(
        1,
        &after_table(&format!("{one}{two}")),
        "Error: You did not exactly type \"Yes I am aware\"\n",
    );
    let typed = "demo\nYes I am aware\npg1\n";
    world.run("remove demo", typed).await.is(
        1,
        &after_table(&format!("{one}{two}{three}")),
        "Error: You did not specify the current leader of the cluster\n",
    );
    assert!(world.get("config").await.is_some());
    world
        .run("remove demo", &typed.replace("pg1", "pg0"))
        .await
        .is(0, &after_table(&format!("{one}{two}{three}")), "");
    assert_eq!(world.get("config").await, None);
    let gone = world
        .run("remove demo -f tsv", "demo\nYes I am aware\n")
        .await;
    assert!(
        gone.output.ends_with(two) && gone.errors.is_empty(),
        "{gone:?}"
    );
}

#[tokio::test]
async fn demote_and_promote() {
    let world = World::demo().await;
    let refusals = [
        (
            "demote-cluster",
            "At least --host, --port or --restore-command should be specified",
        ),
        (
            "demote-cluster nosuch --host h",
            "Cluster has no leader, demotion is not possible",
        ),
        (
            "promote-cluster nosuch",
            "Cluster has no leader, promotion is not possible",
        ),
        (
            "promote-cluster",
            "Cluster is already in the required state",
        ),
    ];
    for (line, text) in refusals {
        world
            .run(line, "")
            .await
            .is(1, "", &format!("Error: {text}\n"));
    }
    let question = format!(
        "Current cluster topology\n{TABLE}Are you sure you want to demote demo cluster? [y/N]: "
    );
    let line = "demote-cluster --host h --port 5433 --primary-slot-name s";
    world
        .run(line, "n\n")
        .await
        .is(1, &question, "Error: Aborted cluster demotion\n");
    world.answer(401, "no auth header received");
    world.run(line, "y\n").await.is(
        1,
        &question,
        "Error: Failed to demote demo cluster: Failed to demote demo cluster: /config PATCH status code=401, (no auth header received)\n",
    );
    let patch = json!({"standby_cluster": {"host": "h", "port": 5433, "primary_slot_name": "s"}});
    assert_eq!(body(&world.asked()[0]), patch);

    world.answer(200, "{}");
    let standby = json!({"conn_url": "postgres://10.0.0.11:15432/p", "state": "running", "role": "standby_leader"});
    world.then("members/pg0", &standby.to_string());
    let demoted = world.run(line, "y\n").await;
    let told = format!("{question}TIME cluster is successfully demoted\n+ Cluster: demo (");
    assert!(demoted.output.starts_with(&told), "{demoted:?}");

    world.asked();
    world.member("pg0", json!({"role": "standby_leader"})).await;
    world.answer(503, "no");
    let refused = world.run("promote-cluster --force", "").await;
    refused.is(
        1,
        &refused.output,
        "Error: Failed to promote demo cluster: Failed to promote demo cluster: /config PATCH status code=503, (no)\n",
    );
    assert_eq!(world.asked(), [r#"PATCH /config {"standby_cluster":null}"#]);
    world.answer(200, "{}");
    let primary = json!({"state": "running", "role": "primary"});
    world.then("members/pg0", &primary.to_string());
    let promoted = world.run("promote-cluster --force", "").await;
    promoted.is(0, &promoted.output, "");
    assert!(
        promoted
            .output
            .contains("+\nTIME cluster is successfully promoted\n+ Cluster: demo ("),
        "{promoted:?}"
    );
}

#[tokio::test]
async fn demotion_and_promotion_fail_when_the_leader_does_not_answer() {
    let world = World::demo().await;
    for (line, verb, role) in [
        ("demote-cluster --host h --force", "demote", "primary"),
        ("promote-cluster --force", "promote", "standby_leader"),
    ] {
        let silent = json!({"role": role, "api_url": "http://127.0.0.1:1/patroni"});
        world.member("pg0", silent).await;
        let failed = world.run(line, "").await;
        let told = format!("Error: Failed to {verb} demo cluster: ");
        // Here the beginning is not repeated.
        let error = failed.errors.strip_prefix(&told).unwrap_or_default();
        assert!(
            error.starts_with("cannot connect to ") && error.lines().count() == 1,
            "{failed:?}"
        );
        failed.is(1, &failed.output, &failed.errors);
        assert!(world.asked().is_empty(), "nobody else is asked");
    }
}
