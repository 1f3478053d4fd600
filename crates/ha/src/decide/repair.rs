//! Keys that the lock owner puts right (`ha.md` §3 D).

use primacy_model::{Cluster, Initialize};

use super::{Reasons, bootstrap};
use crate::decision::Step;
use crate::situation::Situation;

/// Over what was seen there, and over nothing that was written since (W19).
pub(super) fn write_config(cluster: &Cluster) -> Step {
    let empty = cluster.config.as_ref().map(|config| config.version);
    Step::WriteConfig(empty.or(cluster.unreadable_config))
}

pub(super) fn decide(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    if s.memory.bootstrapping.is_some() || s.memory.demotion.is_some() {
        return None;
    }
    let known = matches!(cluster.initialize, Initialize::Done(_));
    if !known && let Some(mine) = &s.server.system_identifier {
        why.note("ha.md §3 D", "/initialize holds no system identifier");
        why.outcome("writing the system ID of the cluster");
        return Some(Step::WriteInitialize {
            identifier: mine.clone(),
            over: bootstrap::over(&cluster.initialize),
        });
    }
    let usable = cluster
        .config
        .as_ref()
        .is_some_and(|config| !config.value.is_empty());
    if !usable {
        why.note("ha.md §3 D", "/config is missing, empty or unreadable");
        why.outcome("writing the dynamic configuration");
        return Some(write_config(cluster));
    }
    if s.memory.sync.doubtful && s.wants_sync() && cluster.sync.has_leader(s.me()) {
        why.note(
            "ha.md §13",
            "a write of /sync may arrive yet: whatever follows relies on what it holds now",
        );
        why.outcome("writing /sync once more");
        return Some(Step::WriteSync(cluster.sync.clone()));
    }
    None
}
