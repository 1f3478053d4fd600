//! A standby cluster follows a primary outside of it (`ha.md` §16). Its leader streams from that primary, or
//! reads its archive, and is never promoted; the other members stream from the leader.
//!
//! A whole cluster changes sides on line: with `standby_cluster` added to the dynamic configuration its
//! primary stops in good order and comes back as standby leader, with the section removed its standby
//! leader is promoted. Neither moves the leader key.

use primacy_config::GlobalConfig;
use primacy_model::{Cluster, slot_name};

use super::{Reasons, demote, follow};
use crate::decision::{Address, DemotionMode, Remote, Source, Step, Upstream};
use crate::situation::Situation;

/// What libpq takes for a host that is not given.
const DEFAULT_HOST: &str = "localhost";
/// PostgreSQL's port.
const DEFAULT_PORT: &str = "5432";

/// I own the lock of a standby cluster, and PostgreSQL runs (`ha.md` §4.1.4).
pub(super) fn lead(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Step {
    if s.is_primary() {
        if s.global.pause {
            why.note("ha.md §9 follow 1", "paused: a primary stays what it is");
            why.outcome("PAUSE: continue to run as primary without lock");
            return Step::Wait;
        }
        why.note(
            "ha.md §16",
            "standby_cluster is configured, and I am a primary",
        );
        why.outcome("demoting self because this became a standby cluster");
        return demote(s, DemotionMode::DemoteCluster);
    }
    let step = follow::keep_following(s, cluster, why);
    if step == Step::Wait {
        why.outcome(format!(
            "no action. I am ({}), the standby leader with the lock",
            s.me()
        ));
    }
    step
}

/// Whether this member follows the remote primary itself (`ha.md` §9): the leader does, and everybody while
/// nobody leads.
pub(super) fn follows_remote(s: &Situation<'_>, cluster: &Cluster) -> bool {
    s.global.standby_cluster.is_some()
        && (cluster.is_led_by(s.me()) || cluster.is_unlocked() && !s.global.pause)
}

/// The remote primary as this member follows it. Only one can use the slot: the lock owner.
pub(super) fn remote(global: &GlobalConfig, leads: bool) -> Upstream {
    let Some(section) = &global.standby_cluster else {
        return Upstream::Nobody;
    };
    let slot = section.primary_slot_name.as_deref();
    Upstream::Remote(Remote {
        connection: connection(global),
        slot: slot.filter(|_| leads && global.use_slots).map(slot_name),
        apply_delay: section.recovery_min_apply_delay.clone(),
    })
}

/// The remote primary, to copy or to compare with; `None` when only its archive is known.
pub(super) fn source(global: &GlobalConfig) -> Option<Source> {
    let connection = connection(global)?;
    Some(Source {
        name: format!("remote {}:{}", connection.host, connection.port),
        connection,
    })
}

fn connection(global: &GlobalConfig) -> Option<Address> {
    let section = global.standby_cluster.as_ref()?;
    if section.host.is_none() && section.port.is_none() {
        return None;
    }
    Some(Address {
        host: section.host.clone().unwrap_or_else(|| DEFAULT_HOST.into()),
        port: section.port.clone().unwrap_or_else(|| DEFAULT_PORT.into()),
        database: None,
    })
}

/// A replica can be made without a source: by the methods of the standby cluster where this is one.
pub(super) fn has_method_without_source(s: &Situation<'_>) -> bool {
    let methods = match &s.global.standby_cluster {
        Some(section) => &section.create_replica_methods,
        None => &s.local.replica_methods,
    };
    methods
        .iter()
        .any(|name| s.local.methods_without_source.contains(name))
}
