use std::collections::BTreeMap;
use std::time::Duration;

use primacy_model::{Member, MemberName};
use primacy_net::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::all_answered;
use crate::Failure;
use crate::clusters::Clusters;
use crate::context::{Context, Remote};
use crate::http::PROMPT;
use crate::members::{Purpose, choose, names};

/// Between two looks at the members.
const PERIOD: Duration = Duration::from_secs(2);
/// Time within which a member that accepted is taken to have begun: it stops its server first. One that is
/// seen doing anything else after that has nothing more to do.
const BEGIN: Duration = Duration::from_secs(60);
/// When waiting ends, whatever the members do: a base backup of many terabytes takes less.
const PATIENCE: Duration = Duration::from_secs(48 * 3600);

const CREATING: &str = "creating replica";

/// `reinit` (`patronictl.md` §7.9).
pub(super) async fn run(context: &mut Context) -> Result<(), Failure> {
    let target = context.target()?;
    let wait = context.options.is_set("wait");
    let remote = context.connect()?;
    let clusters = Clusters::read(context, &remote, &target).await?;
    let purpose = Purpose {
        action: "reinitialize",
        role: "replica",
        ask: true,
    };
    let members = choose(context, &target, &clusters, purpose).await?;
    if members.is_empty() {
        return Ok(());
    }
    if !context
        .confirmed(&format!(
            "Are you sure you want to reinitialize members {}?",
            names(&members)
        ))
        .await?
    {
        return Err(Failure::refused("Aborted reinitialize"));
    }
    let (mut waiting, mut silent) = (Vec::new(), Vec::new());
    for member in &members {
        let before = if wait {
            look(&remote, member).await
        } else {
            None
        };
        match reinitialize(context, &remote, member).await? {
            Reply::Accepted if wait => {
                waiting.push((member.clone(), before.and_then(|look| look.started)));
            }
            Reply::Accepted | Reply::Refused => {}
            Reply::None => silent.push(&member.name),
        }
    }
    wait_for(context, &remote, waiting).await?;
    all_answered(&silent)
}

/// What a member made of the request.
enum Reply {
    Accepted,
    Refused,
    None,
}

async fn reinitialize(
    context: &mut Context,
    remote: &Remote,
    member: &Member,
) -> Result<Reply, Failure> {
    let name = &member.name;
    let mut force = context.options.is_set("force");
    loop {
        let body = json!({"force": force, "from_leader": context.options.is_set("from-leader")});
        let answer = match remote
            .members
            .call(member, Method::POST, "reinitialize", Some(&body), PROMPT)
            .await
        {
            Ok(answer) => answer,
            Err(error) => {
                context.console.print(&format!(
                    "Failed: reinitialize for member {name}, ({error})"
                ))?;
                return Ok(Reply::None);
            }
        };
        if answer.status == 200 {
            context
                .console
                .print(&format!("Success: reinitialize for member {name}"))?;
            return Ok(Reply::Accepted);
        }
        let line = format!(
            "Failed: reinitialize for member {name}, status code={}, ({})",
            answer.status, answer.body
        );
        context.console.print(&line)?;
        let question = "Do you want to cancel it and reinitialize anyway?";
        if force
            || !answer.body.ends_with(" already in progress")
            || !context.console.confirm(question).await?
        {
            return Ok(Reply::Refused);
        }
        force = true;
    }
}

/// What `GET /patroni` says.
struct Look {
    state: String,
    /// When its postmaster was started: changes when the new copy comes up.
    started: Option<String>,
}

async fn look(remote: &Remote, member: &Member) -> Option<Look> {
    let answer = remote
        .members
        .call(member, Method::GET, "patroni", None, PROMPT)
        .await
        .ok()?;
    let status: Value = serde_json::from_str(&answer.body).ok()?;
    let text = |key: &str| status.get(key).and_then(Value::as_str).map(str::to_owned);
    Some(Look {
        state: text("state")?,
        started: text("postmaster_start_time"),
    })
}

/// A member is done when it has been seen copying and copies no more, or when its server is another one than
/// before. A member that does not answer is waited for.
async fn wait_for(
    context: &mut Context,
    remote: &Remote,
    mut waiting: Vec<(Member, Option<String>)>,
) -> Result<(), Failure> {
    let begin = Instant::now();
    let mut copying: BTreeMap<MemberName, bool> = BTreeMap::new();
    let mut told = 0;
    while !waiting.is_empty() {
        let members: Vec<Member> = waiting.iter().map(|(member, _)| member.clone()).collect();
        if told != waiting.len() {
            context.console.print(&format!(
                "Waiting for reinitialize to complete on: {}",
                names(&members)
            ))?;
            told = waiting.len();
        }
        if begin.elapsed() > PATIENCE {
            return Err(Failure::refused(format!(
                "{} did not complete within {} hours: look at their logs",
                names(&members),
                PATIENCE.as_secs() / 3600
            )));
        }
        sleep(PERIOD).await;
        for member in members {
            let Some(look) = look(remote, &member).await else {
                continue;
            };
            let seen = copying.entry(member.name.clone()).or_default();
            *seen |= look.state == CREATING;
            let before = waiting.iter().find(|(other, _)| other.name == member.name);
            let replaced = look.started.is_some()
                && before.is_some_and(|(_, started)| look.started != *started);
            if look.state != CREATING && (*seen || replaced || begin.elapsed() > BEGIN) {
                context
                    .console
                    .print(&format!("Reinitialize is completed on: {}", member.name))?;
                waiting.retain(|(other, _)| other.name != member.name);
            }
        }
    }
    Ok(())
}
