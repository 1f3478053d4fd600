use primacy_dcs::Expected;
use primacy_model::{Cluster, FailoverRequest, Member};
use primacy_net::Method;

use super::written;
use crate::Failure;
use crate::clusters::{COORDINATOR, Clusters};
use crate::context::{Context, Remote, Target, store_deadline};
use crate::http::PROMPT;
use crate::members::{Purpose, choose_among, leader_first, names};
use crate::schedule::precise_timestamp;

/// `flush` (`patronictl.md` §7.11): what to discard is the last argument.
pub(super) async fn run(context: &mut Context) -> Result<(), Failure> {
    let mut members = context.options.texts("MEMBER_NAMES");
    let subject = members.pop();
    let target = context.target()?;
    match subject.as_deref() {
        Some("restart") => restarts(context, &target, members).await,
        Some("switchover") => switchover(context, &target).await,
        None => Err(context.options.invalid(
            "Missing argument '{restart|switchover}'. Choose from:\n\trestart,\n\tswitchover",
        )),
        Some(other) => Err(context.options.invalid(format!(
            "Invalid value for '{{restart|switchover}}': '{other}' is not one of 'restart', 'switchover'."
        ))),
    }
}

async fn restarts(
    context: &mut Context,
    target: &Target,
    members: Vec<String>,
) -> Result<(), Failure> {
    let role = context.options.role()?.unwrap_or("any").to_owned();
    let remote = context.connect()?;
    let clusters = Clusters::read(context, &remote, target).await?;
    let purpose = Purpose {
        action: "flush",
        role: &role,
        ask: false,
    };
    let members = choose_among(context, target, &clusters, purpose, members).await?;
    if !context
        .confirmed(&format!(
            "Are you sure you want to flush members {}?",
            names(&members)
        ))
        .await?
    {
        return Err(Failure::refused("Aborted flush"));
    }
    for member in &members {
        let line = match member.data.scheduled_restart {
            None => format!("No scheduled restart for member {}", member.name),
            Some(_) => match discard_restart(&remote, member).await {
                Ok(()) => format!(
                    "Success: flush scheduled restart for member {}",
                    member.name
                ),
                Err(line) => line,
            },
        };
        context.console.print(&line)?;
    }
    Ok(())
}

/// Discards the member's scheduled restart; the error is the line that says why not.
pub(super) async fn discard_restart(remote: &Remote, member: &Member) -> Result<(), String> {
    let failed = format!("Failed: flush scheduled restart for member {}", member.name);
    match remote
        .members
        .call(member, Method::DELETE, "restart", None, PROMPT)
        .await
    {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(format!(
            "{failed}, status code={}, ({})",
            answer.status, answer.body
        )),
        Err(error) => Err(format!("{failed}, ({error})")),
    }
}

async fn switchover(context: &mut Context, target: &Target) -> Result<(), Failure> {
    // The coordinator's group is the one that switchovers are scheduled in, unless another is named.
    let target = match (target.group, context.configured_group()) {
        (None, Some(_)) => target.in_group(COORDINATOR),
        _ => target.clone(),
    };
    let remote = context.connect()?;
    let cluster = remote.read(&target).await?;
    let scheduled = cluster
        .failover
        .as_ref()
        .filter(|request| request.scheduled_at.is_some());
    let Some(request) = scheduled else {
        return context.console.print("No pending scheduled switchover");
    };
    if ask_members(context, &remote, &cluster).await? {
        return Ok(());
    }
    context.console.warn("Failing over to DCS");
    context.console.print(&format!(
        "{} Could not find any accessible member of cluster {}",
        precise_timestamp(),
        target.scope
    ))?;
    let expected = Expected::Version(request.version);
    let outcome = remote
        .cluster(&target)
        .write_failover(FailoverRequest::CLEARED, expected, store_deadline())
        .await;
    written(
        outcome,
        "the scheduled switchover was changed meanwhile: look at it again",
    )
}

/// Whether a member gave a final answer.
async fn ask_members(
    context: &mut Context,
    remote: &Remote,
    cluster: &Cluster,
) -> Result<bool, Failure> {
    for member in leader_first(cluster) {
        match remote
            .members
            .call(&member, Method::DELETE, "switchover", None, PROMPT)
            .await
        {
            Ok(answer) => {
                let (line, last) = match answer.status {
                    200 => ("Success: scheduled switchover deleted".to_owned(), true),
                    404 => ("Failed: no switchover is scheduled".to_owned(), true),
                    status => {
                        let body = &answer.body;
                        (
                            format!(
                                "Failed: member={}, status_code={status}, ({body})",
                                member.name
                            ),
                            false,
                        )
                    }
                };
                context.console.print(&line)?;
                if last {
                    return Ok(true);
                }
            }
            Err(error) => {
                context.console.warn(&error);
                context
                    .console
                    .warn(&format!("Member {} is not accessible", member.name));
            }
        }
    }
    Ok(false)
}
