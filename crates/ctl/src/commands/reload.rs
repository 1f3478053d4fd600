use primacy_net::Method;

use super::all_answered;
use crate::Failure;
use crate::clusters::Clusters;
use crate::context::{Context, global_config};
use crate::http::PROMPT;
use crate::members::{Purpose, choose, names};

/// `reload` (`patronictl.md` §7.8).
pub(super) async fn run(context: &mut Context) -> Result<(), Failure> {
    let target = context.target()?;
    let role = context.options.role()?.unwrap_or("any").to_owned();
    let remote = context.connect()?;
    let clusters = Clusters::read(context, &remote, &target).await?;
    let purpose = Purpose {
        action: "reload",
        role: &role,
        ask: false,
    };
    let members = choose(context, &target, &clusters, purpose).await?;
    if !context
        .confirmed(&format!(
            "Are you sure you want to reload members {}?",
            names(&members)
        ))
        .await?
    {
        return Err(Failure::refused("Aborted reload"));
    }
    let loop_wait = global_config(clusters.main()).loop_wait.as_secs();
    let mut silent = Vec::new();
    for member in &members {
        let name = &member.name;
        let line = match remote
            .members
            .call(member, Method::POST, "reload", None, PROMPT)
            .await
        {
            Ok(answer) if answer.status == 200 => format!("No changes to apply on member {name}"),
            Ok(answer) if answer.status == 202 => format!(
                "Reload request received for member {name} and will be processed within {loop_wait} seconds"
            ),
            Ok(answer) => {
                format!(
                    "Failed: reload for member {name}, status code={}, ({})",
                    answer.status, answer.body
                )
            }
            Err(error) => {
                silent.push(name);
                format!("Failed: reload for member {name}, ({error})")
            }
        };
        context.console.print(&line)?;
    }
    all_answered(&silent)
}
