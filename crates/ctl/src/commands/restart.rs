use std::time::Duration;

use jiff::Zoned;
use primacy_model::Member;
use primacy_net::Method;
use rand::seq::IndexedRandom;
use serde_json::{Map, Value, json};

use super::all_answered;
use super::flush::discard_restart;
use crate::Failure;
use crate::clusters::Clusters;
use crate::context::{Context, Remote, global_config};
use crate::http::PROMPT;
use crate::members::{Purpose, choose, names};
use crate::schedule::{iso_8601, parse, suggestion};

/// How long an immediate restart may take when no timeout is given: the checkpoint before the shutdown
/// of a large and busy server, and the crash recovery that may follow.
const PATIENCE: Duration = Duration::from_secs(3600);

/// `restart` (`patronictl.md` §7.7).
pub(super) async fn run(context: &mut Context) -> Result<(), Failure> {
    let target = context.target()?;
    let role = context.options.role()?.unwrap_or("any").to_owned();
    let remote = context.connect()?;
    let clusters = Clusters::read(context, &remote, &target).await?;
    let purpose = Purpose {
        action: "restart",
        role: &role,
        ask: false,
    };
    let mut members = choose(context, &target, &clusters, purpose).await?;

    let scheduled = choose_time(context).await?;
    let pending = context.options.is_set("pending");
    if pending && scheduled.is_none() {
        members.retain(|member| member.data.pending_restart.is_some());
    }
    if context.options.is_set("any") {
        members = members
            .choose(&mut rand::rng())
            .cloned()
            .into_iter()
            .collect();
    }
    confirm(context, &members, scheduled.as_ref(), pending).await?;
    let version = choose_version(context).await?;
    if scheduled.is_some() && global_config(clusters.main()).pause {
        return Err(Failure::refused(
            "Can't schedule restart in the paused state",
        ));
    }

    let body = body(context, scheduled.as_ref(), version, pending);
    // A member refuses a time that is over: what is scheduled there stays then.
    let moves =
        context.options.is_set("force") && scheduled.as_ref().is_some_and(|at| *at > Zoned::now());
    let mut silent = Vec::new();
    for member in &members {
        let told = restart(context, &remote, member, &body, moves).await?;
        if told.is_err() {
            silent.push(&member.name);
        }
        let (Ok(line) | Err(line)) = told;
        context.console.print(&line)?;
    }
    all_answered(&silent)
}

async fn choose_time(context: &mut Context) -> Result<Option<Zoned>, Failure> {
    let given = context.options.text("scheduled").map(str::to_owned);
    match given {
        Some(given) => parse(&given),
        None if context.options.is_set("force") => Ok(None),
        None => {
            let question = format!(
                "When should the restart take place (e.g. {}) ",
                suggestion()
            );
            parse(&context.console.prompt(&question, Some("now")).await?)
        }
    }
}

async fn confirm(
    context: &mut Context,
    members: &[Member],
    scheduled: Option<&Zoned>,
    pending: bool,
) -> Result<(), Failure> {
    let names = names(members);
    let (question, refusal) = match scheduled {
        None => (format!("Are you sure you want to restart members {names}?"), "Aborted restart"),
        Some(_) if pending => (
            "The nodes needing a restart will be identified at the scheduled time, and might be different from the ones showing pending restart right now. Is this fine?".to_owned(),
            "Aborted scheduled restart",
        ),
        Some(at) => (
            format!("Are you sure you want to schedule restart of members {names} at {}?", iso_8601(at, ' ')),
            "Aborted scheduled restart",
        ),
    };
    match context.confirmed(&question).await? {
        true => Ok(()),
        false => Err(Failure::refused(refusal)),
    }
}

async fn choose_version(context: &mut Context) -> Result<Option<String>, Failure> {
    let given = context.options.text("pg-version").map(str::to_owned);
    let text = match given {
        Some(given) => given,
        None if context.options.is_set("force") => return Ok(None),
        None => {
            let question = "Restart if the PostgreSQL version is less than provided (e.g. 9.5.2) ";
            context.console.prompt(question, Some("")).await?
        }
    };
    if text.is_empty() {
        return Ok(None);
    }
    check_version(&text)?;
    Ok(Some(text))
}

/// `X.Y` from version 10 on, or `X.Y.Z`, which counts as it is written also from 10 on: every 15 is below 15.1.1.
fn check_version(text: &str) -> Result<(), Failure> {
    let parts: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
    match parts.as_deref() {
        Err(_) => Err(Failure::refused(format!(
            "Invalid PostgreSQL version: {text}"
        ))),
        Ok([major, _]) if *major >= 10 => Ok(()),
        Ok([_, _, _]) => Ok(()),
        Ok(_) => Err(Failure::refused(format!(
            "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: {text}"
        ))),
    }
}

fn body(
    context: &Context,
    scheduled: Option<&Zoned>,
    version: Option<String>,
    pending: bool,
) -> Value {
    let mut body = Map::new();
    if pending {
        body.insert("restart_pending".into(), json!(true));
    }
    if let Some(version) = version {
        body.insert("postgres_version".into(), json!(version));
    }
    if let Some(at) = scheduled {
        body.insert("schedule".into(), json!(iso_8601(at, 'T')));
    }
    if let Some(timeout) = context.options.text("timeout") {
        body.insert("timeout".into(), json!(timeout));
    }
    Value::Object(body)
}

/// Asks one member; the line that tells what came of it, an error if that is no answer. With `moves` a restart that is scheduled already makes way.
async fn restart(
    context: &mut Context,
    remote: &Remote,
    member: &Member,
    body: &Value,
    moves: bool,
) -> Result<Result<String, String>, Failure> {
    let name = &member.name;
    let scheduled = body.get("schedule").is_some();
    let moved = moves && member.data.scheduled_restart.is_some();
    if moved && let Err(line) = discard_restart(remote, member).await {
        context.console.print(&line)?;
    }
    let patience = if scheduled { PROMPT } else { PATIENCE };
    let asked = remote
        .members
        .call(member, Method::POST, "restart", Some(body), patience);
    let told = asked.await.map(|answer| match answer.status {
        200 => format!("Success: restart on member {name}"),
        202 => format!("Success: restart scheduled on member {name}"),
        409 => format!("Failed: another restart is already scheduled on member {name}"),
        status => format!(
            "Failed: restart for member {name}, status code={status}, ({})",
            answer.body
        ),
    });
    Ok(told.map_err(|error| format!("Failed: restart for member {name}, ({error})")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions() {
        let refusal = |text: &str| check_version(text).err().map(|failure| failure.to_string());
        for text in ["9.5.2", "15.18", "10.0", "15.1.1"] {
            assert_eq!(refusal(text), None, "{text}");
        }
        for text in ["9.1", "15", "9.5.2.1"] {
            let expected =
                format!("Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: {text}");
            assert_eq!(refusal(text), Some(expected));
        }
        assert_eq!(
            refusal("a.b"),
            Some("Invalid PostgreSQL version: a.b".into())
        );
    }

    proptest! {
        #[test]
        fn any_version_is_accepted_or_refused(text: String) {
            let _ = check_version(&text);
        }
    }
}
