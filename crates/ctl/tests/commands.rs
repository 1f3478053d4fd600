//! What operators type and see, command by command (`patronictl.md` §7).

mod world;

use primacy_ctl::Program;
use primacy_dcs::Fault;
use serde_json::{Value, json};
use world::World;

const TABLE: &str = "\
+ Cluster: demo (7710395762296189624) -----------+----+-------------+-----+------------+-----+
| Member | Host            | Role    | State     | TL | Receive LSN | Lag | Replay LSN | Lag |
+--------+-----------------+---------+-----------+----+-------------+-----+------------+-----+
| pg0    | 10.0.0.11:15432 | Leader  | running   |  1 |             |     |            |     |
| pg1    | 10.0.0.12:15432 | Replica | streaming |  1 |   0/468B028 |   0 |  0/468B028 |   0 |
+--------+-----------------+---------+-----------+----+-------------+-----+------------+-----+
";

/// The table, then this.
fn after_table(text: &str) -> String {
    format!("{TABLE}{text}")
}

fn body(asked: &str) -> Value {
    serde_json::from_str(&asked[asked.find('{').unwrap()..]).unwrap()
}

#[tokio::test]
async fn list() {
    let world = World::demo().await;
    world.run("list", "").await.is(0, TABLE, "");
    world
        .run("list demo demo", "")
        .await
        .is(0, &format!("{TABLE}{TABLE}"), "");
    world
        .run("list -t", "")
        .await
        .is(0, &format!("TIME\n{TABLE}"), "");
    world.run("list nosuch -f json", "").await.is(0, "[]\n", "");
    world
        .run_as(Program::Primacy, "list demo", "")
        .await
        .is(0, TABLE, "");
    let topology = TABLE.replace("pg1    |", "+ pg1  |");
    world.run("topology", "").await.is(0, &topology, "");
}

#[tokio::test]
async fn command_lines_and_configurations_that_cannot_be_used() {
    let mut world = World::demo().await;
    world.run("restart demo --role bogus", "").await.is(
        2,
        "",
        "Usage: patronictl restart [OPTIONS] CLUSTER_NAME [MEMBER_NAMES]...\nTry 'patronictl restart --help' for help.\n\nError: Invalid value for '--role' / '-r': 'bogus' is not one of 'leader', 'primary', 'standby-leader', 'replica', 'standby', 'any'.\n",
    );
    world.run("flush demo", "").await.is(
        2,
        "",
        "Usage: patronictl flush [OPTIONS] CLUSTER_NAME [MEMBER_NAMES]...\n                        {restart|switchover}\nTry 'patronictl flush --help' for help.\n\nError: Missing argument '{restart|switchover}'. Choose from:\n\trestart,\n\tswitchover\n",
    );
    world.run("-c /nonexistent/x.yml list", "").await.is(
        1,
        "",
        "Error: Provided config file /nonexistent/x.yml not existing or no read rights. Check the -c/--config-file parameter\n",
    );
    let help = world.run("list --help", "").await;
    assert!(
        help.output
            .contains("Usage: patronictl list [OPTIONS] [CLUSTER_NAMES]..."),
        "{help:?}"
    );
    assert!(world.run("", "").await.errors.contains("edit-config"));

    world.variables.clear();
    world.variables.insert(
        "XDG_CONFIG_HOME".into(),
        world.directory.path().display().to_string(),
    );
    let unconfigured = world.run("list demo", "").await;
    assert!(unconfigured.errors.starts_with("Error: Can not find suitable configuration of distributed configuration store\nAvailable implementations: "), "{unconfigured:?}");
    world.run("list", "").await.is(
        0,
        "",
        "TIME - WARNING - Listing members: No cluster names were provided\n",
    );
    world
        .variables
        .insert("PATRONI_ETCD3_HOST".into(), "127.0.0.1:1".into());
    world.run("list demo", "").await.is(0, TABLE, "");
    world
        .run("-d redis://h list demo", "")
        .await
        .is(1, "", "Error: Unknown dcs scheme: redis\n");
    let nameless = world.run("history", "").await;
    assert!(
        nameless
            .errors
            .starts_with("Error: no cluster name was given"),
        "{nameless:?}"
    );
}

#[tokio::test]
async fn store_that_does_not_answer_is_an_error() {
    let world = World::demo().await;
    world.store.set_fault(Fault::Unavailable);
    let outcome = world.run("list", "").await;
    assert!(
        outcome.errors.starts_with("Error: ") && outcome.output.is_empty(),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn dsn_history_show_config() {
    let world = World::demo().await;
    world
        .run("dsn", "")
        .await
        .is(0, "host=10.0.0.11 port=15432\n", "");
    world
        .run("dsn -r replica", "")
        .await
        .is(0, "host=10.0.0.12 port=15432\n", "");
    world
        .run("dsn demo -m nope", "")
        .await
        .is(1, "", "Error: Can not find a suitable member\n");
    world.run("dsn -m pg0 -r any", "").await.is(
        1,
        "",
        "Error: --role and --member are mutually exclusive options\n",
    );
    world
        .run("history -f tsv", "")
        .await
        .is(0, "TL\tLSN\tReason\tTimestamp\tNew Leader\n", "");
    world.put("history", r#"[[1,5,"r","t","pg0"]]"#).await;
    world.run("history -f tsv", "").await.is(
        0,
        "TL\tLSN\tReason\tTimestamp\tNew Leader\n1\t5\tr\tt\tpg0\n",
        "",
    );
    world.run("show-config", "").await.is(
        0,
        "loop_wait: 10\nmaximum_lag_on_failover: 1048576\npostgresql:\n  parameters:\n    max_connections: 50\n  use_pg_rewind: true\nretry_timeout: 10\nttl: 30\n\n",
        "",
    );
    world.run("show-config nosuch", "").await.is(0, "", "");
}

/// What needs no server; tests/e2e/commands.rs asks one.
#[tokio::test]
async fn query() {
    let world = World::demo().await;
    let refusals = [
        ("query", "You need to specify either --command or --file"),
        (
            "query -c x -f /dev/null",
            "--file and --command are mutually exclusive options",
        ),
        (
            "query -c x -m pg0 -r any",
            "--role and --member are mutually exclusive options",
        ),
    ];
    for (line, text) in refusals {
        world
            .run(line, "")
            .await
            .is(1, "", &format!("Error: {text}\n"));
    }
    let usage = "Usage: patronictl query [OPTIONS] [CLUSTER_NAME]\nTry 'patronictl query --help' for help.\n\nError: Invalid value for ";
    world.run("query -f /nonexistent/x", "").await.is(
        2,
        "",
        &format!("{usage}'--file' / '-f': '/nonexistent/x': No such file or directory\n"),
    );
    world.run("query -c x --format xml", "").await.is(
        2,
        "",
        &format!(
            "{usage}'--format': 'xml' is not one of 'pretty', 'tsv', 'json', 'yaml', 'yml'.\n"
        ),
    );
    for (line, told) in [
        (
            "query -c x -m nope",
            "No connection to member nope is available",
        ),
        (
            "query -c x -r standby-leader",
            "No connection to role 'standby-leader' is available",
        ),
        ("query nosuch -c x", "No connection is available"),
    ] {
        world
            .run(line, "")
            .await
            .is(0, &format!("TIME\t{told}\n"), "");
    }
    world
        .member(
            "pg0",
            json!({"conn_url": "postgres://127.0.0.1:1/postgres"}),
        )
        .await;
    world
        .run_as(
            Program::Primacy,
            "query -f - --password -d x --format json",
            "select 1",
        )
        .await
        .is(1, "", "Password: Aborted!\n");
    let unreachable = "ERROR, SQLSTATE: connection to server at \"127.0.0.1\", port 1 failed: Connection refused ";
    world.run("query -c x --password", "secret\n").await.is(
        0,
        &format!("TIME\t{unreachable}\n"),
        "Password: \n",
    );
}

#[tokio::test]
async fn version() {
    let world = World::demo().await;
    world
        .run("version", "")
        .await
        .is(0, "patronictl version 4.1.5\n", "");
    world.answer(
        200,
        r#"{"state": "running", "server_version": 150018, "patroni": {"version": "4.1.4"}}"#,
    );
    world.answer(
        503,
        r#"{"state": "stopped", "patroni": {"version": "4.1.5"}}"#,
    );
    let expected =
        "patronictl version 4.1.5\n\npg0: Patroni 4.1.4 PostgreSQL 15.18\npg1: Patroni 4.1.5\n";
    world.run("version demo", "").await.is(0, expected, "");
    assert_eq!(world.asked(), ["GET /patroni", "GET /patroni"]);
    world.answer(200, "oops");
    let expected = "patronictl version 4.1.5\n\npg1: failed to get version: the answer is not JSON (status code 200)\n";
    world.run("version demo pg1", "").await.is(0, expected, "");
}

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
    let aborted = world.run("switchover", "pg0\n").await;
    assert!(
        aborted.output.ends_with("Candidate ['pg1'] []: ") && aborted.errors == "Aborted!\n",
        "{aborted:?}"
    );

    world.answer(412, "candidate name does not match with sync_standby");
    let failed = world.run("switchover --force", "").await;
    assert!(
        failed.output.ends_with(
            "-+\nSwitchover failed, details: 412, candidate name does not match with sync_standby\n"
        ),
        "{failed:?}"
    );
    world.answer(503, "Switchover status unknown");
    let unknown = world.run("switchover --force", "").await;
    assert!(
        unknown
            .output
            .ends_with("\nSwitchover result unknown, details: 503, Switchover status unknown\n"),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn members_that_do_not_answer_find_the_request_in_the_store() {
    let world = World::demo().await;
    let outcome = world.run("switchover --candidate pg1 --force", "").await;
    let expected = format!(
        "Current cluster topology\n{TABLE}PRECISE Could not switchover using Patroni api, falling back to DCS\n{TABLE}"
    );
    assert_eq!(outcome.output, expected);
    assert!(
        outcome.errors.contains("WARNING - Failing over to DCS\n"),
        "{outcome:?}"
    );
    assert_eq!(
        world.get("failover").await.unwrap(),
        r#"{"leader":"pg0","member":"pg1"}"#
    );
    world.run("failover --candidate pg1 --force", "").await;
    assert_eq!(world.get("failover").await.unwrap(), r#"{"member":"pg1"}"#);
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
}

#[tokio::test]
async fn reload() {
    let world = World::demo().await;
    world.answer(202, "reload scheduled");
    world.answer(401, "no auth header received");
    let lines = "Reload request received for member pg0 and will be processed within 10 seconds\nFailed: reload for member pg1, status code=401, (no auth header received)\n";
    let question = "Are you sure you want to reload members pg0, pg1? [y/N]: ";
    world.run("reload demo", "maybe\ny\n").await.is(
        0,
        &after_table(&format!(
            "{question}Error: invalid input\n{question}{lines}"
        )),
        "",
    );
    world.answer(200, "OK");
    world.run("reload demo -r replica --force", "").await.is(
        0,
        &after_table("No changes to apply on member pg1\n"),
        "",
    );
    world
        .run("reload demo", "")
        .await
        .is(1, &after_table(question), "Aborted!\n");
}

#[tokio::test]
async fn reinit() {
    let world = World::demo().await;
    world.answer(503, "reinitialize already in progress");
    world.answer(200, "reinitialize started");
    world.run("reinit demo", "pg1\ny\ny\n").await.is(
        0,
        &after_table("Which member do you want to reinitialize [pg1]? []: Are you sure you want to reinitialize members pg1? [y/N]: Failed: reinitialize for member pg1, status code=503, (reinitialize already in progress)\nDo you want to cancel it and reinitialize anyway? [y/N]: Success: reinitialize for member pg1\n"),
        "",
    );
    let asked: Vec<Value> = world.asked().iter().map(|asked| body(asked)).collect();
    assert_eq!(
        asked,
        [
            json!({"force": false, "from_leader": false}),
            json!({"force": true, "from_leader": false})
        ]
    );
    world.run("reinit demo --force", "").await.is(0, TABLE, "");
    world.run("reinit demo pg0", "").await.is(
        1,
        TABLE,
        "Error: No replica among provided members\n",
    );
    assert_eq!(
        world.run("reinit demo", "pg0\n").await.errors,
        "Error: pg0 is not a member of cluster\n"
    );
}

#[tokio::test]
async fn reinit_waits_until_the_copy_is_up() {
    let world = World::demo().await;
    let status = |state: &str, started: &str| {
        json!({"state": state, "postmaster_start_time": started}).to_string()
    };
    world.answer(200, &status("running", "1"));
    world.answer(200, "reinitialize started");
    // still the old server
    world.answer(200, &status("running", "1"));
    world.answer(200, &status("creating replica", "1"));
    world.answer(200, &status("running", "2"));
    world.run("reinit demo pg1 --force --wait", "").await.is(
        0,
        &after_table("Success: reinitialize for member pg1\nWaiting for reinitialize to complete on: pg1\nReinitialize is completed on: pg1\n"),
        "",
    );
    assert_eq!(world.asked().len(), 5);
}

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

const DIFF: &str = "\
--- \n+++ \n@@ -2,7 +2,7 @@
 maximum_lag_on_failover: 1048576
 postgresql:
   parameters:
-    max_connections: 50
+    max_connections: 60
   use_pg_rewind: true
 retry_timeout: 10
 ttl: 30
";

#[tokio::test]
async fn edit_config_with_options() {
    let world = World::demo().await;
    let before = world.get("config").await;
    world
        .run("edit-config -p max_connections=60", "n\n")
        .await
        .is(0, &format!("{DIFF}Apply these changes? [y/N]: "), "");
    assert_eq!(world.get("config").await, before);
    world
        .run("edit-config -p max_connections=60 --force", "")
        .await
        .is(0, &format!("{DIFF}Configuration changed\n"), "");
    assert!(
        world
            .get("config")
            .await
            .unwrap()
            .contains(r#""max_connections":60"#)
    );
    world
        .run("edit-config -p max_connections=60", "")
        .await
        .is(0, "Not changed\n", "");
    world
        .run("edit-config -q -s ttl=20 --force", "")
        .await
        .is(0, "Configuration changed\n", "");
    world
        .run("edit-config -q -s ttl=20", "")
        .await
        .is(0, "", "");
    world
        .run("edit-config -s ttl", "")
        .await
        .is(1, "", "Error: Invalid parameter setting ttl\n");
    world.run("edit-config nosuch -s ttl=1", "").await.is(
        1,
        "",
        "Error: The config key does not exist in the cluster nosuch\n",
    );
    let typed = "ttl: 40\n";
    let piped = world.run("edit-config -q --apply -", typed).await;
    piped.is(0, "Use --force option to apply changes\n", "");
    world
        .run("edit-config -q --replace - --force", typed)
        .await
        .is(0, "Configuration changed\n", "");
    assert_eq!(world.get("config").await.unwrap(), r#"{"ttl":40}"#);
    let missing = world.run("edit-config --apply /nonexistent/x", "").await;
    assert!(
        missing
            .errors
            .starts_with("Error: cannot read /nonexistent/x: "),
        "{missing:?}"
    );
}

#[tokio::test]
async fn edit_config_in_an_editor() {
    let mut world = World::demo().await;
    let script = |text: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = world.directory.path().join("my-editor");
        // By another name first: a file that is open for writing cannot be run.
        let draft = world.directory.path().join("draft");
        std::fs::write(&draft, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&draft, &path).unwrap();
        path.display().to_string()
    };
    let editor = script(r#"sed -i "$1" "$2""#);
    world
        .variables
        .insert("EDITOR".into(), format!("{editor} 's/: 50/: 60/'"));
    let changed = world.run("edit-config", "y\n").await;
    changed.is(
        0,
        &format!("{DIFF}Apply these changes? [y/N]: Configuration changed\n"),
        "",
    );
    let unchanged = world.run("edit-config", "").await;
    unchanged.is(0, "Not changed\n", "");

    world
        .variables
        .insert("EDITOR".into(), format!("{editor} d"));
    let emptied = world.run("edit-config --force", "").await;
    assert!(
        emptied
            .errors
            .starts_with("Error: The edited configuration is empty"),
        "{emptied:?}"
    );
    world
        .variables
        .insert("EDITOR".into(), format!("{editor} 's/: 30/: {{/'"));
    let invalid = world.run("edit-config", "").await;
    assert!(
        invalid
            .errors
            .starts_with("Error: the edited configuration, line "),
        "{invalid:?}"
    );
    world.variables.insert("EDITOR".into(), "false".into());
    world
        .variables
        .insert("PATH".into(), "/usr/bin:/bin".into());
    world
        .run("edit-config", "")
        .await
        .is(1, "", "Error: Editor exited with return code 1\n");
    world.variables.remove("EDITOR");
    world.variables.insert("PATH".into(), "/nonexistent".into());
    world.run("edit-config", "").await.is(
        1,
        "",
        "Error: EDITOR environment variable is not set. editor or vi are not available\n",
    );
}

#[tokio::test]
async fn edit_config_loses_against_a_concurrent_change() {
    let mut world = World::demo().await;
    // The editor's time is when somebody else writes: it waits for a file that appears after the write.
    let (begun, go) = (
        world.directory.path().join("begun"),
        world.directory.path().join("go"),
    );
    let script = format!(
        "sh -c 'touch {}; until test -e {}; do sleep 0.01; done; echo ttl: 1 > $0'",
        begun.display(),
        go.display()
    );
    world.variables.insert("EDITOR".into(), script);
    let other = async {
        while !begun.exists() {
            tokio::task::yield_now().await;
        }
        world.put("config", r#"{"ttl":99}"#).await;
        std::fs::write(&go, "").unwrap();
    };
    let (outcome, ()) = tokio::join!(world.run("edit-config -q --force", ""), other);
    outcome.is(
        1,
        "",
        "Error: Config modification aborted due to concurrent changes\n",
    );
    assert_eq!(world.get("config").await.unwrap(), r#"{"ttl":99}"#);
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
}

#[tokio::test]
async fn groups_have_paths_of_their_own() {
    let world = World::demo().await;
    world.put("1/initialize", "7000000000000000001").await;
    world
        .put(
            "1/members/n1a",
            r#"{"conn_url":"postgres://10.0.1.1/p","state":"running"}"#,
        )
        .await;
    let group = world.run("list --group 1", "").await;
    assert!(
        group
            .output
            .starts_with("+ Citus cluster: demo (group: 1, 7000000000000000001) ")
            && group.output.contains("| n1a "),
        "{group:?}"
    );
}

/// Ours: the members' journals as one.
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
    let rows: serde_json::Value = serde_json::from_str(&told.output).unwrap();
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
