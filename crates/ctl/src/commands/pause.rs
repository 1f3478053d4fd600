use std::time::Duration;

use primacy_model::{Cluster, Member};
use primacy_net::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::Failure;
use crate::context::{Context, Remote, Target, global_config};
use crate::http::PROMPT;
use crate::members::leader_first;

/// `pause`, `resume` (`patronictl.md` §7.10).
pub(super) async fn run(context: &mut Context, pause: bool) -> Result<(), Failure> {
    let target = context.target_of_own_group()?;
    let remote = context.connect()?;
    let cluster = remote.read(&target).await?;
    match (global_config(&cluster).pause, pause) {
        (true, true) => return Err(Failure::refused("Cluster is already paused")),
        (false, false) => return Err(Failure::refused("Cluster is not paused")),
        _ => {}
    }
    let verb = if pause { "pause" } else { "resume" };
    let patch = json!({"pause": pause.then_some(true)});
    for member in leader_first(&cluster) {
        match remote
            .members
            .call(&member, Method::PATCH, "config", Some(&patch), PROMPT)
            .await
        {
            Ok(answer) if answer.status == 200 => {
                if context.options.is_set("wait") {
                    context.console.print(&format!(
                        "'{verb}' request sent, waiting until it is recognized by all nodes"
                    ))?;
                    if let Some(late) = wait_for(&remote, &target, &cluster, pause).await? {
                        return context.console.print(&late);
                    }
                }
                let state = if pause { "paused" } else { "resumed" };
                return context
                    .console
                    .print(&format!("Success: cluster management is {state}"));
            }
            Ok(answer) => {
                return context.console.print(&format!(
                    "Failed: {verb} cluster management status code={}, ({})",
                    answer.status, answer.body
                ));
            }
            Err(error) => {
                context.console.warn(&error);
                context
                    .console
                    .warn(&format!("Member {} is not accessible", member.name));
            }
        }
    }
    Err(Failure::refused("Can not find accessible cluster member"))
}

/// Waits until every member publishes the state; the text about those that published something else since.
async fn wait_for(
    remote: &Remote,
    target: &Target,
    before: &Cluster,
    pause: bool,
) -> Result<Option<String>, Failure> {
    let loop_wait = global_config(before).loop_wait;
    let deadline = Instant::now() + loop_wait + Duration::from_secs(1);
    let addressed: Vec<&Member> = before
        .members
        .iter()
        .filter(|member| member.data.api_url.is_some())
        .collect();
    loop {
        let now = remote.read(target).await?;
        let differing: Vec<(&Member, &Member)> = addressed
            .iter()
            .filter_map(|then| Some((*then, now.member(&then.name)?)))
            .filter(|(_, now)| now.data.pause != pause)
            .collect();
        if differing.is_empty() {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            let spoken = differing
                .iter()
                .filter(|(then, now)| then.version != now.version);
            let names: Vec<&str> = spoken.map(|(_, now)| now.name.as_str()).collect();
            return Ok((!names.is_empty()).then(|| {
                format!(
                    "{} members didn't recognized pause state after {} seconds",
                    names.join(", "),
                    loop_wait.as_secs()
                )
            }));
        }
        sleep(Duration::from_secs(1)).await;
    }
}
