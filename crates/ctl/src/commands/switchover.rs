use std::time::Duration;

use primacy_config::SynchronousMode;
use primacy_dcs::Expected;
use primacy_model::{Cluster, FailoverRequest, Member, MemberData};
use primacy_net::Method;
use serde_json::{Map, Value, json};

use crate::Failure;
use crate::clusters::Clusters;
use crate::context::{Context, Remote, Target, global_config, store_deadline};
use crate::http::{Answer, PROMPT};
use crate::members::leader;
use crate::schedule::{iso_8601, parse, precise_timestamp, suggestion};

/// Whether the leader hands over in good order, or a member takes over from whoever leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Switchover,
    Failover,
}

/// What the operator decided.
struct Plan {
    kind: Kind,
    leader: Option<Member>,
    candidate: Option<Member>,
    /// ISO 8601.
    scheduled_at: Option<String>,
}

impl Kind {
    fn verb(self) -> &'static str {
        match self {
            Kind::Switchover => "switchover",
            Kind::Failover => "failover",
        }
    }
}

/// `switchover`, `failover` (`patronictl.md` §7.6).
pub(super) async fn run(context: &mut Context, kind: Kind) -> Result<(), Failure> {
    let mut target = context.target()?;
    let remote = context.connect()?;
    let clusters = Clusters::read(context, &remote, &target).await?;
    context.console.print("Current cluster topology")?;
    context.show_all(&target, &clusters)?;
    if target.group.is_none() && context.configured_group().is_some() {
        if context.options.is_set("force") {
            return Err(Failure::refused(
                "For Citus clusters the --group must me specified",
            ));
        }
        target.group = Some(ask_group(context).await?);
    }
    let cluster = match clusters {
        Clusters::One(cluster) => *cluster,
        Clusters::Groups(_) => remote.read(&target).await?,
    };

    let plan = plan(context, &target, &cluster, kind).await?;
    match ask_member(&remote, &cluster, &plan).await {
        Ok(answer) => finish(context, &remote, &target, kind, &answer).await,
        Err(error) => {
            context.console.warn(&error);
            write_request(context, &remote, &target, &cluster, &plan).await
        }
    }
}

async fn ask_group(context: &mut Context) -> Result<u32, Failure> {
    loop {
        let text = context.console.prompt("Citus group", None).await?;
        match text.trim().parse() {
            Ok(group) => return Ok(group),
            Err(_) => context
                .console
                .print(&format!("Error: '{text}' is not a valid integer."))?,
        }
    }
}

/// Steps 3 to 10: asks for what the command line leaves open, and checks it.
async fn plan(
    context: &mut Context,
    target: &Target,
    cluster: &Cluster,
    kind: Kind,
) -> Result<Plan, Failure> {
    let scope = &target.scope;
    let leader = leader(cluster);
    if kind == Kind::Switchover {
        choose_leader(context, target, cluster).await?;
    }
    let candidate = choose_candidate(context, scope, cluster, kind).await?;
    if kind == Kind::Failover {
        confirm_asynchronous(context, cluster, candidate.as_ref()).await?;
    }
    let scheduled_at = match kind {
        Kind::Switchover => choose_time(context, cluster).await?,
        Kind::Failover => None,
    };

    let demoting = leader
        .as_ref()
        .map(|leader| format!(", demoting current leader {}", leader.name));
    let demoting = demoting.unwrap_or_default();
    let (question, refusal) = match (&scheduled_at, kind) {
        (Some(at), _) => (
            format!(
                "Are you sure you want to schedule switchover of cluster {scope} at {at}{demoting}?"
            ),
            "Aborting scheduled switchover",
        ),
        (None, Kind::Switchover) => (
            format!("Are you sure you want to switchover cluster {scope}{demoting}?"),
            "Aborting switchover",
        ),
        (None, Kind::Failover) => (
            format!("Are you sure you want to failover cluster {scope}{demoting}?"),
            "Aborting failover",
        ),
    };
    if !context.confirmed(&question).await? {
        return Err(Failure::refused(refusal));
    }
    Ok(Plan {
        kind,
        leader,
        candidate,
        scheduled_at,
    })
}

async fn choose_leader(
    context: &mut Context,
    target: &Target,
    cluster: &Cluster,
) -> Result<(), Failure> {
    let Some(current) = cluster.leader_name() else {
        return Err(Failure::refused("This cluster has no leader"));
    };
    let given = context.options.text("leader").map(str::to_owned);
    let named = match given {
        Some(given) => given,
        None if context.options.is_set("force") => current.to_string(),
        None => {
            let standby = global_config(cluster).standby_cluster.is_some();
            let title = if standby { "Standby Leader" } else { "Primary" };
            context.console.prompt(title, Some(current)).await?
        }
    };
    if *current != *named {
        return Err(Failure::refused(format!(
            "Member {named} is not the leader of cluster {}",
            target.scope
        )));
    }
    Ok(())
}

async fn choose_candidate(
    context: &mut Context,
    scope: &str,
    cluster: &Cluster,
    kind: Kind,
) -> Result<Option<Member>, Failure> {
    // Where nobody leads an operator may choose one that withdrew itself.
    let by_hand = kind == Kind::Failover && cluster.is_unlocked();
    let is_candidate = |data: &MemberData| match by_hand {
        true => data.may_be_chosen(),
        false => !data.tags.nofailover(),
    };
    let mut candidates: Vec<&Member> = cluster
        .members
        .iter()
        .filter(|member| !cluster.is_led_by(&member.name) && is_candidate(&member.data))
        .collect();
    candidates.sort_by(|a, b| a.name.cmp(&b.name));
    if candidates.is_empty() {
        return Err(Failure::refused(format!(
            "No candidates found to {} to",
            kind.verb()
        )));
    }
    let given = context.options.text("candidate").map(str::to_owned);
    let named = match given {
        Some(given) => given,
        None if context.options.is_set("force") => String::new(),
        None => {
            let names: Vec<String> = candidates
                .iter()
                .map(|member| format!("'{}'", member.name))
                .collect();
            context
                .console
                .prompt(&format!("Candidate [{}]", names.join(", ")), Some(""))
                .await?
        }
    };
    if named.is_empty() {
        return match kind {
            Kind::Switchover => Ok(None),
            Kind::Failover => Err(Failure::refused(
                "Failover could be performed only to a specific candidate",
            )),
        };
    }
    if cluster.is_led_by(&named) {
        return Err(Failure::refused(format!(
            "Member {named} is already the leader of cluster {scope}"
        )));
    }
    match candidates.into_iter().find(|member| member.name == *named) {
        Some(member) => Ok(Some(member.clone())),
        None => Err(Failure::refused(format!(
            "Member {named} does not exist in cluster {scope} or is tagged as nofailover"
        ))),
    }
}

async fn confirm_asynchronous(
    context: &mut Context,
    cluster: &Cluster,
    candidate: Option<&Member>,
) -> Result<(), Failure> {
    let synchronous = global_config(cluster).synchronous_mode != SynchronousMode::Off;
    let Some(candidate) = candidate.filter(|member| {
        synchronous && cluster.sync.is_active() && !cluster.sync.has_member(&member.name)
    }) else {
        return Ok(());
    };
    let question = format!(
        "Are you sure you want to failover to the asynchronous node {}?",
        candidate.name
    );
    match context.confirmed(&question).await? {
        true => Ok(()),
        false => Err(Failure::refused("Aborting failover")),
    }
}

async fn choose_time(context: &mut Context, cluster: &Cluster) -> Result<Option<String>, Failure> {
    let given = context.options.text("scheduled").map(str::to_owned);
    let text = match given {
        Some(given) => given,
        None if context.options.is_set("force") => return Ok(None),
        None => {
            let question = format!(
                "When should the switchover take place (e.g. {} ) ",
                suggestion()
            );
            context.console.prompt(&question, Some("now")).await?
        }
    };
    let Some(at) = parse(&text)? else {
        return Ok(None);
    };
    if global_config(cluster).pause {
        return Err(Failure::refused(
            "Can't schedule switchover in the paused state",
        ));
    }
    let pending = cluster
        .failover
        .as_ref()
        .and_then(|request| request.scheduled_at.as_ref());
    if let Some(pending) = pending {
        context.console.warn(&format!(
            "This replaces the switchover that is scheduled at {}",
            pending.text()
        ));
    }
    Ok(Some(iso_8601(&at, 'T')))
}

/// Steps 11 and 12.
async fn ask_member(remote: &Remote, cluster: &Cluster, plan: &Plan) -> Result<Answer, String> {
    let name = |member: &Option<Member>| {
        member
            .as_ref()
            .map_or(Value::Null, |member| json!(member.name))
    };
    let mut body = Map::new();
    body.insert("candidate".into(), name(&plan.candidate));
    if plan.kind == Kind::Switchover {
        body.insert("leader".into(), name(&plan.leader));
    }
    if let Some(at) = &plan.scheduled_at {
        body.insert("scheduled_at".into(), json!(at));
    }
    let body = Value::Object(body);
    let asked = plan
        .leader
        .as_ref()
        .or(plan.candidate.as_ref())
        .ok_or("the cluster has no leader")?;
    // The member itself waits for the outcome: twice the longer of ten seconds and loop_wait.
    let patience = global_config(cluster)
        .loop_wait
        .max(Duration::from_secs(10))
        * 2
        + PROMPT;
    let post = |endpoint| {
        remote
            .members
            .call(asked, Method::POST, endpoint, Some(&body), patience)
    };
    let answer = post(plan.kind.verb()).await?;
    if answer.status == 501
        && answer
            .body
            .contains("Server does not support this operation")
    {
        return post("failover").await;
    }
    Ok(answer)
}

/// Steps 13 and 14.
async fn finish(
    context: &mut Context,
    remote: &Remote,
    target: &Target,
    kind: Kind,
    answer: &Answer,
) -> Result<(), Failure> {
    let Answer { status, body } = answer;
    if matches!(status, 200 | 202) {
        context
            .console
            .print(&format!("{} {body}", precise_timestamp()))?;
        let cluster = remote.read(target).await?;
        return context.show_members(target, &cluster);
    }
    let action = match kind {
        Kind::Switchover => "Switchover",
        Kind::Failover => "Failover",
    };
    let outcome = if body.to_lowercase().contains("status unknown") {
        "result unknown"
    } else {
        "failed"
    };
    context
        .console
        .print(&format!("{action} {outcome}, details: {status}, {body}"))
}

/// Step 15: nobody answers, so the request is written where the members will find it. None of the members'
/// own checks has been made then.
async fn write_request(
    context: &mut Context,
    remote: &Remote,
    target: &Target,
    cluster: &Cluster,
    plan: &Plan,
) -> Result<(), Failure> {
    let verb = plan.kind.verb();
    context.console.warn("Failing over to DCS");
    context.console.warn(&format!(
        "No member has checked whether this {verb} is possible"
    ));
    context.console.print(&format!(
        "{} Could not {verb} using Patroni api, falling back to DCS",
        precise_timestamp()
    ))?;
    let leader = plan
        .leader
        .as_ref()
        .filter(|_| plan.kind == Kind::Switchover);
    let text = FailoverRequest::to_json(
        leader.map(|member| member.name.as_str()),
        plan.candidate.as_ref().map(|member| member.name.as_str()),
        plan.scheduled_at.as_deref(),
    );
    remote
        .cluster(target)
        .write_failover(&text, Expected::Anything, store_deadline())
        .await?;
    context.show_members(target, cluster)
}
