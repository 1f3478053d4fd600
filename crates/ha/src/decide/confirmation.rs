//! Who has confirmed everything that was committed before the names took effect (`ha.md` §13.2, W2, W3).

use primacy_model::{Lsn, MemberName, WalSender, WalStatus};

use super::synchronous_names::SynchronousStandbys;
use crate::situation::SyncProgress;

/// Takes a look at the server into account (`ha.md` §13.2 *confirmed*, W2): the position that standbys must
/// confirm is taken only once commits wait and every walsender works with the names in effect; until then some
/// backend may still be released by the old ones, or wait for nobody.
pub(crate) fn observe(progress: &mut SyncProgress, wal: &WalStatus) {
    if !wal.is_primary() {
        // Whether a write of `/sync` may arrive yet has nothing to do with the server: that doubt stays.
        progress.confirmed.clear();
        progress.names = None;
        progress.position = None;
        return;
    }
    if progress.names.as_deref() != Some(wal.synchronous_standby_names.as_str()) {
        // Confirmations from before the change say nothing about commits that were acknowledged under the
        // old names (W3).
        progress.confirmed.clear();
        progress.names = Some(wal.synchronous_standby_names.clone());
        progress.position = None;
    }
    let listed = SynchronousStandbys::parse(&wal.synchronous_standby_names);
    if progress.position.is_none() {
        let settled = progress.obeys(&wal.synchronous_standby_names)
            && wal
                .senders
                .iter()
                .filter(|sender| sender.state == "streaming")
                .all(|sender| {
                    let is_listed = listed
                        .members
                        .contains(&sender.application_name.to_lowercase());
                    is_listed
                        == matches!(sender.sync_state.as_str(), "sync" | "quorum" | "potential")
                });
        if !settled {
            return;
        }
        progress.position = Some(wal.flush_lsn);
    }
    let Some(required) = progress.position else {
        return;
    };
    for sender in &wal.senders {
        let reached = position(&wal.synchronous_commit, sender).is_some_and(|lsn| lsn >= required);
        if matches!(sender.sync_state.as_str(), "sync" | "quorum")
            && reached
            && listed
                .members
                .contains(&sender.application_name.to_lowercase())
        {
            progress
                .confirmed
                .insert(MemberName::new(sender.application_name.clone()));
        }
    }
}

/// The position that `synchronous_commit` makes commits wait for.
pub(super) fn position(synchronous_commit: &str, sender: &WalSender) -> Option<Lsn> {
    match synchronous_commit {
        "remote_apply" => sender.replay_lsn,
        "remote_write" => sender.write_lsn,
        _ => sender.flush_lsn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(name: &str, sync_state: &str, flushed: u64) -> WalSender {
        WalSender {
            application_name: name.into(),
            state: "streaming".into(),
            sync_state: sync_state.into(),
            flush_lsn: Some(Lsn(flushed)),
            ..WalSender::default()
        }
    }

    fn look(progress: &mut SyncProgress, names: &str, flushed: u64, senders: &[WalSender]) {
        let wal = WalStatus {
            timeline: Some(primacy_model::Timeline(1)),
            synchronous_standby_names: names.into(),
            flush_lsn: Lsn(flushed),
            senders: senders.to_vec(),
            ..WalStatus::default()
        };
        observe(progress, &wal);
    }

    fn confirmed(progress: &SyncProgress) -> Vec<&str> {
        progress
            .confirmed
            .iter()
            .map(|name| name.as_str())
            .collect()
    }

    #[test]
    fn w2_names_count_once_every_process_works_by_them() {
        let mut progress = SyncProgress::default();
        // Sessions show the new names; whether commits wait by them is not known.
        look(&mut progress, "pg2", 100, &[sender("pg2", "sync", 100)]);
        assert_eq!((progress.position, confirmed(&progress)), (None, vec![]));
        // They do, and the walsender of pg2 still shows that it works by the old ones.
        progress.obeyed = Some("pg2".into());
        look(&mut progress, "pg2", 150, &[sender("pg2", "async", 200)]);
        assert_eq!((progress.position, confirmed(&progress)), (None, vec![]));
        // What was acknowledged until now went by the old names.
        look(&mut progress, "pg2", 200, &[sender("pg2", "sync", 150)]);
        assert_eq!(
            (progress.position, confirmed(&progress)),
            (Some(Lsn(200)), vec![])
        );
        look(&mut progress, "pg2", 250, &[sender("pg2", "sync", 200)]);
        assert_eq!(confirmed(&progress), ["pg2"]);
    }

    #[test]
    fn w3_confirmations_under_a_smaller_count_say_nothing_about_a_larger_one() {
        let mut progress = SyncProgress::default();
        let senders = |a, b| [sender("pg2", "quorum", a), sender("pg3", "quorum", b)];
        let (one, two) = ("ANY 1 (pg2,pg3)", "ANY 2 (pg2,pg3)");
        progress.obeyed = Some(one.into());
        look(&mut progress, one, 100, &senders(100, 100));
        assert_eq!(confirmed(&progress), ["pg2", "pg3"]);
        // The count grows. A commit that pg2 alone acknowledged came before.
        progress.obeyed = Some(two.into());
        look(&mut progress, two, 150, &senders(150, 100));
        assert_eq!(confirmed(&progress), ["pg2"], "pg3 lacks that commit");
        look(&mut progress, two, 150, &senders(150, 150));
        assert_eq!(confirmed(&progress), ["pg2", "pg3"]);
    }
}
