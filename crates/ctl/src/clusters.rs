use primacy_model::{Cluster, Member};

use crate::Failure;
use crate::context::{Context, Remote, Target, store_deadline};
use crate::members::{Wanted, of_role};
use crate::render::View;

/// What a command is about: one cluster, or every group of a Citus cluster where none is named (`patronictl.md` §8).
pub(crate) enum Clusters {
    One(Box<Cluster>),
    /// In ascending order; the first is the coordinator's, 0, also while it has no key.
    Groups(Vec<(u32, Cluster)>),
}

impl Clusters {
    pub(crate) async fn read(
        context: &Context,
        remote: &Remote,
        target: &Target,
    ) -> Result<Self, Failure> {
        if target.group.is_some() || context.configured_group().is_none() {
            return Ok(Clusters::One(Box::new(remote.read(target).await?)));
        }
        let mut groups = Vec::new();
        for group in numbers(remote, target).await? {
            groups.push((group, remote.read(&target.in_group(group)).await?));
        }
        Ok(Clusters::Groups(groups))
    }

    /// The one whose settings count: the coordinator's among groups.
    pub(crate) fn main(&self) -> &Cluster {
        match self {
            Clusters::One(cluster) => cluster,
            Clusters::Groups(groups) => &groups[0].1,
        }
    }

    /// The members of a role, the coordinator's first.
    pub(crate) fn of_role(&self, wanted: Wanted) -> Vec<Member> {
        match self {
            Clusters::One(cluster) => of_role(cluster, wanted),
            Clusters::Groups(groups) => {
                let members = groups.iter().flat_map(|(_, group)| of_role(group, wanted));
                members.collect()
            }
        }
    }

    /// The first member of that name or, without one, of that role: the leader unless a role is given.
    pub(crate) fn find(&self, name: Option<&str>, role: Option<&str>) -> Option<Member> {
        let wanted = match name {
            Some(_) => Wanted::Any,
            None => role.map_or(Wanted::Leader, Wanted::parse),
        };
        let mut members = self.of_role(wanted).into_iter();
        members.find(|member| name.is_none_or(|name| member.name == *name))
    }

    pub(crate) fn view(&self, target: &Target) -> View<'_> {
        match self {
            Clusters::One(cluster) => target.view(cluster),
            Clusters::Groups(groups) => View::Groups(groups),
        }
    }
}

/// The coordinator's group, and all others that have a key.
async fn numbers(remote: &Remote, target: &Target) -> Result<Vec<u32>, Failure> {
    let prefix = format!("{}/", remote.cluster(target).base_path());
    let keys = remote.store.read(&prefix, store_deadline()).await?;
    let group = |key: &str| key.strip_prefix(&prefix)?.split_once('/')?.0.parse().ok();
    let mut numbers: Vec<u32> = keys
        .entries
        .iter()
        .filter_map(|entry| group(&entry.key))
        .chain([COORDINATOR])
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// The group of a Citus cluster's coordinator.
pub(crate) const COORDINATOR: u32 = 0;
