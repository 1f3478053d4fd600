use std::time::Duration;

use primacy_model::{Cluster, MemberName, Role, State};
use primacy_net::Method;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use crate::Failure;
use crate::clusters::Clusters;
use crate::context::{Context, Remote, Target};
use crate::http::PROMPT;
use crate::members::leader;
use crate::schedule::timestamp;

/// How often the cluster is looked at while it changes.
const LOOK: Duration = Duration::from_secs(1);

/// For the change to come about: a shutdown with a large checkpoint, or the end of recovery.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What becomes of the whole cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its leader follows a primary elsewhere.
    Demote,
    /// It stands alone.
    Promote,
}

impl Kind {
    fn verb(self) -> &'static str {
        match self {
            Kind::Demote => "demote",
            Kind::Promote => "promote",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Kind::Demote => "demotion",
            Kind::Promote => "promotion",
        }
    }

    /// The leader's role when it is done.
    fn target_role(self) -> Role {
        match self {
            Kind::Demote => Role::StandbyLeader,
            Kind::Promote => Role::Primary,
        }
    }
}

/// `demote-cluster`, `promote-cluster` (`patronictl.md` §7.13).
pub(super) async fn run(context: &mut Context, kind: Kind) -> Result<(), Failure> {
    let section = match kind {
        Kind::Demote => Value::Object(remote_primary(context)?),
        Kind::Promote => Value::Null,
    };
    let target = context.target()?;
    let remote = context.connect()?;
    let clusters = Clusters::read(context, &remote, &target).await?;
    let cluster = clusters.main();
    let (verb, noun) = (kind.verb(), kind.noun());
    let Some(leader) = leader(cluster) else {
        return Err(Failure::refused(format!(
            "Cluster has no leader, {noun} is not possible"
        )));
    };
    if leader.data.role == Some(kind.target_role()) {
        return Err(Failure::refused("Cluster is already in the required state"));
    }
    context.console.print("Current cluster topology")?;
    context.show_all(&target, &clusters)?;
    let scope = &target.scope;
    let question = format!("Are you sure you want to {verb} {scope} cluster?");
    if !context.confirmed(&question).await? {
        return Err(Failure::refused(format!("Aborted cluster {noun}")));
    }

    let patch = json!({"standby_cluster": section});
    let failed =
        |text: String| Failure::refused(format!("Failed to {verb} {scope} cluster: {text}"));
    let answer = remote
        .members
        .call(&leader, Method::PATCH, "config", Some(&patch), PROMPT)
        .await
        .map_err(failed)?;
    if answer.status != 200 {
        // Scripts know the text with its beginning twice.
        return Err(failed(format!(
            "Failed to {verb} {scope} cluster: /config PATCH status code={}, ({})",
            answer.status, answer.body
        )));
    }
    wait_for(context, &remote, &target, kind, &leader.name).await
}

/// The section that the command line describes.
fn remote_primary(context: &Context) -> Result<Map<String, Value>, Failure> {
    let mut section = Map::new();
    let options = &context.options;
    for (option, key) in [
        ("host", "host"),
        ("port", "port"),
        ("primary-slot-name", "primary_slot_name"),
        ("restore-command", "restore_command"),
    ] {
        let Some(text) = options.text(option).filter(|text| !text.is_empty()) else {
            continue;
        };
        let value = match key {
            "port" => {
                let port: u16 = text.parse().map_err(|_| {
                    options.invalid(format!(
                        "Invalid value for '--port': '{text}' is not a valid integer."
                    ))
                })?;
                json!(port)
            }
            _ => json!(text),
        };
        section.insert(key.to_owned(), value);
    }
    if ["host", "port", "restore_command"]
        .iter()
        .all(|key| !section.contains_key(*key))
    {
        return Err(Failure::refused(
            "At least --host, --port or --restore-command should be specified",
        ));
    }
    Ok(section)
}

/// Tells how it goes until the leader has its new role.
async fn wait_for(
    context: &mut Context,
    remote: &Remote,
    target: &Target,
    kind: Kind,
    before: &MemberName,
) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let clusters = Clusters::read(context, remote, target).await?;
        let cluster = clusters.main();
        let now = timestamp();
        if is_done(cluster, kind, before) {
            context
                .console
                .print(&format!("{now} cluster is successfully {}d", kind.verb()))?;
            return context.show_all(target, &clusters);
        }
        let text = progress(cluster, kind, before);
        context.console.print(&format!("{now} {text}"))?;
        if Instant::now() > deadline {
            return Err(Failure::refused(format!(
                "The configuration is changed, but {} is not {}d after an hour: look at the leader's log",
                target.scope,
                kind.verb()
            )));
        }
        sleep(LOOK).await;
    }
}

fn is_done(cluster: &Cluster, kind: Kind, before: &MemberName) -> bool {
    let running = |name: &str| {
        cluster
            .member(name)
            .is_some_and(|member| member.data.state == Some(State::Running))
    };
    let leads = cluster.leader_member().is_some_and(|leader| {
        leader.data.role == Some(kind.target_role()) && running(&leader.name)
    });
    leads && (kind == Kind::Promote || running(before))
}

fn progress(cluster: &Cluster, kind: Kind, before: &MemberName) -> String {
    let unlocked = if cluster.is_unlocked() {
        "True"
    } else {
        "False"
    };
    let leader = leader(cluster);
    let data = leader.as_ref().map(|leader| &leader.data);
    let role = data.and_then(|data| data.role).map_or("None", Role::as_str);
    let state = data
        .and_then(|data| data.state)
        .map_or("None", State::as_str);
    let mut text =
        format!("cluster is unlocked: {unlocked}, leader role: {role}, leader state: {state}");
    let state = cluster.member(before).and_then(|member| member.data.state);
    if kind == Kind::Demote
        && leader.is_some_and(|leader| leader.name != *before)
        && let Some(state) = state
    {
        text.push_str(&format!(", previous leader state: '{}'", state.as_str()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use primacy_model::{Leader, Member, MemberData, Version};

    /// `b` leads now, `a` did before.
    fn changing(role: Role, before: State) -> Cluster {
        let version = Version(1);
        let member = |name: &str, role, state| Member {
            name: name.into(),
            version,
            session: None,
            data: MemberData {
                role: Some(role),
                state: Some(state),
                ..MemberData::default()
            },
        };
        Cluster {
            leader: Some(Leader {
                name: "b".into(),
                version,
                session: None,
            }),
            members: vec![
                member("a", Role::Replica, before),
                member("b", role, State::Running),
            ],
            ..Cluster::default()
        }
    }

    #[test]
    fn it_is_told_what_is_waited_for() {
        let a = MemberName::from("a");
        let stopped = changing(Role::StandbyLeader, State::Stopped);
        assert_eq!(
            progress(&stopped, Kind::Demote, &a),
            "cluster is unlocked: False, leader role: standby_leader, leader state: running, previous leader state: 'stopped'"
        );
        assert_eq!(
            progress(&stopped, Kind::Promote, &a),
            "cluster is unlocked: False, leader role: standby_leader, leader state: running"
        );
        assert_eq!(
            progress(&Cluster::default(), Kind::Promote, &a),
            "cluster is unlocked: True, leader role: None, leader state: None"
        );
        assert!(!is_done(&stopped, Kind::Demote, &a));
        let all = changing(Role::StandbyLeader, State::Running);
        assert!(is_done(&all, Kind::Demote, &a) && !is_done(&all, Kind::Promote, &a));
        let promoted = changing(Role::Primary, State::Stopped);
        assert!(is_done(&promoted, Kind::Promote, &a));
    }
}
