use primacy_model::{Cluster, Member, MemberData, Role, Version};

use crate::Failure;
use crate::clusters::Clusters;
use crate::context::{Context, Target};

/// Which members a command is about (`patronictl.md` §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Leader,
    Primary,
    StandbyLeader,
    Replica,
    Any,
}

impl Wanted {
    /// Reads the name of a role, which has been checked before; anything else is `any`.
    pub(crate) fn parse(name: &str) -> Self {
        match name {
            "leader" => Wanted::Leader,
            "primary" => Wanted::Primary,
            "standby-leader" => Wanted::StandbyLeader,
            "replica" | "standby" => Wanted::Replica,
            _ => Wanted::Any,
        }
    }
}

/// The holder of the leader key. One without a member key still leads, with nothing known of it.
pub(crate) fn leader(cluster: &Cluster) -> Option<Member> {
    let name = cluster.leader_name()?;
    Some(cluster.member(name).cloned().unwrap_or_else(|| Member {
        name: name.clone(),
        version: Version(0),
        session: None,
        data: MemberData::default(),
    }))
}

/// The members of a role, in the order of the store.
pub(crate) fn of_role(cluster: &Cluster, wanted: Wanted) -> Vec<Member> {
    let leader_unless =
        |role: Role| leader(cluster).filter(|leader| leader.data.role != Some(role));
    match wanted {
        Wanted::Leader => leader(cluster).into_iter().collect(),
        Wanted::Primary => leader_unless(Role::StandbyLeader).into_iter().collect(),
        Wanted::StandbyLeader => leader_unless(Role::Primary).into_iter().collect(),
        Wanted::Replica => {
            let others = cluster
                .members
                .iter()
                .filter(|member| !cluster.is_led_by(&member.name));
            others.cloned().collect()
        }
        Wanted::Any => cluster.members.clone(),
    }
}

/// The leader first, then all others: who is asked for something that any member can do.
pub(crate) fn leader_first(cluster: &Cluster) -> Vec<Member> {
    let mut members: Vec<Member> = leader(cluster).into_iter().collect();
    members.extend(of_role(cluster, Wanted::Replica));
    members.retain(|member| member.data.api_url.is_some());
    members
}

/// What members are chosen for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Purpose<'a> {
    /// The verb in questions: `restart`.
    pub(crate) action: &'a str,
    /// The role as the operator wrote it.
    pub(crate) role: &'a str,
    /// Ask whom to act on when nobody was named: `reinit`.
    pub(crate) ask: bool,
}

/// Shows the members and chooses those to act on (`patronictl.md` §6.2, steps 1 to 4). Unknown names among
/// known ones are dropped with a warning.
pub(crate) async fn choose(
    context: &mut Context,
    target: &Target,
    clusters: &Clusters,
    purpose: Purpose<'_>,
) -> Result<Vec<Member>, Failure> {
    let names = context.options.texts("MEMBER_NAMES");
    choose_among(context, target, clusters, purpose, names).await
}

pub(crate) async fn choose_among(
    context: &mut Context,
    target: &Target,
    clusters: &Clusters,
    purpose: Purpose<'_>,
    names: Vec<String>,
) -> Result<Vec<Member>, Failure> {
    let candidates = clusters.of_role(Wanted::parse(purpose.role));
    if candidates.is_empty() && names.is_empty() {
        return Err(Failure::refused(format!(
            "{} cluster doesn't have any members",
            target.scope
        )));
    }
    context.show_all(target, clusters)?;

    let named = |names: &[String]| -> Vec<Member> {
        candidates
            .iter()
            .filter(|member| names.iter().any(|name| member.name == **name))
            .cloned()
            .collect()
    };
    if !names.is_empty() {
        let chosen = named(&names);
        if chosen.is_empty() {
            let role = purpose.role;
            let role = if purpose.ask {
                role.to_owned()
            } else {
                format!("'{role}'")
            };
            return Err(Failure::refused(format!(
                "No {role} among provided members"
            )));
        }
        for name in names
            .iter()
            .filter(|name| !chosen.iter().any(|member| member.name == ***name))
        {
            context.console.warn(&format!(
                "{name} is left out: it is no member in the role {}",
                purpose.role
            ));
        }
        return Ok(chosen);
    }
    if !purpose.ask {
        return Ok(candidates);
    }
    if context.options.is_set("force") {
        return Ok(Vec::new());
    }
    let all: Vec<&str> = candidates
        .iter()
        .map(|member| member.name.as_str())
        .collect();
    let question = format!(
        "Which member do you want to {} [{}]?",
        purpose.action,
        all.join(", ")
    );
    let name = context.console.prompt(&question, Some("")).await?;
    let chosen = named(std::slice::from_ref(&name));
    if chosen.is_empty() {
        return Err(Failure::refused(format!(
            "{name} is not a member of cluster"
        )));
    }
    Ok(chosen)
}

/// `a, b`.
pub(crate) fn names(members: &[Member]) -> String {
    members
        .iter()
        .map(|member| member.name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use primacy_model::Leader;

    fn cluster(leader: Option<&str>, members: &[(&str, Role)]) -> Cluster {
        let version = Version(1);
        Cluster {
            leader: leader.map(|name| Leader {
                name: name.into(),
                version,
                session: None,
            }),
            members: members
                .iter()
                .map(|(name, role)| Member {
                    name: (*name).into(),
                    version,
                    session: None,
                    data: MemberData {
                        role: Some(*role),
                        ..MemberData::default()
                    },
                })
                .collect(),
            ..Cluster::default()
        }
    }

    #[test]
    fn roles_choose_members() {
        use Role::{Primary, Replica, StandbyLeader};
        let primary = cluster(Some("b"), &[("a", Replica), ("b", Primary)]);
        let standby = cluster(Some("b"), &[("a", Replica), ("b", StandbyLeader)]);
        let unled = cluster(None, &[("a", Replica), ("b", Replica)]);
        let ghost = cluster(Some("x"), &[("a", Replica)]);
        for (cluster, role, expected) in [
            (&primary, "leader", "b"),
            (&primary, "primary", "b"),
            (&primary, "standby-leader", ""),
            (&primary, "replica", "a"),
            (&primary, "standby", "a"),
            (&primary, "any", "a, b"),
            (&standby, "leader", "b"),
            (&standby, "primary", ""),
            (&standby, "standby-leader", "b"),
            (&unled, "leader", ""),
            (&unled, "replica", "a, b"),
            (&ghost, "leader", "x"),
            (&ghost, "primary", "x"),
            (&ghost, "any", "a"),
        ] {
            assert_eq!(
                names(&of_role(cluster, Wanted::parse(role))),
                expected,
                "{role} of {cluster:?}"
            );
        }
    }
}
