//! What members are asked for, but for restarts.

use serde_json::{Value, json};

use crate::world::World;
use crate::{TABLE, after_table, body};

#[tokio::test]
async fn reload() {
    let world = World::demo().await;
    world.answer(202, "reload scheduled");
    world.answer(401, "no auth header received");
    let lines = "Reload request received for member pg0 and will be processed within 10 seconds\nFailed: reload for member pg1, status code=401, (no auth header received)\n";
    let question = "Are you sure you want to reload members pg0, pg1? [y/N]: ";
    world.run("reload demo", "maybe\nY\n").await.is(
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
    for (typed, told) in [("", "Aborted!\n"), ("NO\n", "Error: Aborted reload\n")] {
        world
            .run("reload demo", typed)
            .await
            .is(1, &after_table(question), told);
    }
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
    world.answer(200, "reinitialize started");
    world
        .run("reinit demo pg1 --force --from-leader", "")
        .await
        .is(
            0,
            &after_table("Success: reinitialize for member pg1\n"),
            "",
        );
    let expected = json!({"force": true, "from_leader": true});
    assert_eq!(body(&world.asked()[0]), expected);
    world.run("reinit demo --force", "").await.is(0, TABLE, "");
    world.run("reinit demo pg0", "").await.is(
        1,
        TABLE,
        "Error: No replica among provided members\n",
    );
    for (typed, refusal) in [
        ("pg0\n", "pg0 is not a member of cluster"),
        ("\n", " is not a member of cluster"),
        ("pg1\nn\n", "Aborted reinitialize"),
    ] {
        assert_eq!(
            world.run("reinit demo", typed).await.errors,
            format!("Error: {refusal}\n")
        );
    }
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
