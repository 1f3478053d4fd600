//! The `/history` key (`ha.md` §21): the leader keeps it right. Stale primaries are told by it, so it is
//! written as soon as a promotion is seen.

use primacy_model::{Cluster, History, HistoryEntry, Lsn, Timeline};

use super::Reasons;
use crate::decision::Step;
use crate::situation::Situation;

pub(super) fn decide(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    let wal = s.wal()?;
    let timeline = wal.timeline?;
    if cluster.status.optime > wal.flush_lsn {
        // That is from the timeline before, beyond where this one began. Once /history says that it was left, nobody on it
        // leads again, and by that position nobody on this one would either: /status first.
        return None;
    }
    let failed = s.memory.history_failed_at;
    if s.memory.history_done == Some(timeline) && cluster.history.is_some()
        || failed.is_some_and(|at| s.now.since(at) < s.global.loop_wait)
    {
        return None;
    }
    let right = match cluster
        .history
        .as_ref()
        .and_then(|history| history.entries.last())
    {
        None => timeline == Timeline(1),
        Some(last) => {
            last.timeline.next() == timeline
                && last.timestamp.is_some()
                && last.new_leader.is_some()
        }
    };
    if right {
        return None;
    }
    why.outcome("writing the history of timelines");
    why.note(
        "ha.md §21",
        format!("/history does not lead up to timeline {timeline}"),
    );
    Some(Step::WriteHistory(timeline))
}

/// The new value of `/history` from the lines of the local history file. The last entry gets the time and the
/// name of this promotion; older ones keep what is stored of them.
pub fn merge(
    lines: &[(Timeline, Lsn, String)],
    promoted_at: &str,
    me: &str,
    stored: Option<&History>,
    keep_newest: usize,
) -> History {
    let mut entries: Vec<HistoryEntry> = lines
        .iter()
        .map(|(timeline, switch_lsn, reason)| {
            let known = stored.and_then(|stored| {
                stored
                    .entries
                    .iter()
                    .find(|entry| entry.timeline == *timeline && entry.switch_lsn == *switch_lsn)
            });
            HistoryEntry {
                timeline: *timeline,
                switch_lsn: *switch_lsn,
                reason: reason.clone(),
                timestamp: known.and_then(|entry| entry.timestamp.clone()),
                new_leader: known.and_then(|entry| entry.new_leader.clone()),
            }
        })
        .collect();
    if let Some(last) = entries.last_mut()
        && (last.timestamp.is_none() || last.new_leader.is_none())
    {
        last.timestamp = Some(promoted_at.to_owned());
        last.new_leader = Some(me.to_owned());
    }
    if keep_newest > 0 && entries.len() > keep_newest {
        entries.drain(..entries.len() - keep_newest);
    }
    History { entries }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_entry_is_dated_and_old_ones_keep_what_is_stored() {
        let stored = History::from_json(r#"[[1,100,"r","t1","a"],[2,150,"other","t","x"]]"#);
        let lines = [
            (Timeline(1), Lsn(100), "r".to_owned()),
            (Timeline(2), Lsn(200), "s".to_owned()),
        ];
        let merged = merge(&lines, "t2", "b", stored.as_ref(), 0);
        assert_eq!(
            merged.to_json(),
            r#"[[1,100,"r","t1","a"],[2,200,"s","t2","b"]]"#
        );
        assert_eq!(
            merge(&lines, "t2", "b", None, 1).to_json(),
            r#"[[2,200,"s","t2","b"]]"#
        );
    }
}
