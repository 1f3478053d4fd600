//! What this member publishes of itself (`dcs.md` §2.4).

use primacy_config::GlobalConfig;
use primacy_model::{MemberData, Observation, PATRONI_VERSION, Role, State, Tags};

use crate::decision::Job;
use crate::situation::{JobInFlight, Local, Memory};

/// The configured tags, and what holds for a while: a member that leaves synchronous replication for a planned stop is
/// no synchronous standby, and one whose WAL left the leader's is no candidate, however much of it there is.
pub(crate) fn tags(local: &Local, memory: &Memory) -> Tags {
    let mut tags = local.tags.published();
    if memory.sync_withdrawn_at.is_some() {
        tags = tags.without_sync();
    }
    if memory.is_no_candidate().is_some() {
        tags = tags.without_failover();
    }
    tags
}

/// The member key's value.
pub(crate) fn data(
    local: &Local,
    global: &GlobalConfig,
    memory: &Memory,
    server: &Observation,
    job: Option<&JobInFlight>,
) -> MemberData {
    let mut data = MemberData {
        conn_url: Some(local.conn_url.clone()),
        api_url: Some(local.api_url.clone()),
        proxy_url: local.proxy_url.clone(),
        state: Some(memory.state),
        role: Some(memory.role),
        version: Some(PATRONI_VERSION.to_owned()),
        tags: tags(local, memory),
        pending_restart: memory.pending_restart.clone(),
        scheduled_restart: memory.scheduled_restart.clone(),
        pause: global.pause,
        fence: memory.fence.told().map(str::to_owned),
        hang: server
            .probes
            .unanswered()
            .map(|(name, _)| name.to_owned())
            .collect(),
        withdrawn: memory
            .is_no_candidate()
            .filter(|_| !local.tags.nofailover())
            .map(|(_, why)| why),
        ..MemberData::default()
    };
    let tells_positions = job.is_none_or(|job| job.job == Job::Promote)
        && matches!(
            memory.state,
            State::Running | State::Restarting | State::Starting
        );
    if let Some(wal) = server.wal.as_ref().filter(|_| tells_positions) {
        data.xlog_location = wal.position().known();
        if let Some(timeline) = wal.timeline {
            data.timeline = Some(timeline);
            // Withdrawn only once the control file has the new timeline (ha.md §25.7).
            data.checkpoint_pending = memory.checkpoint_done != Some(timeline)
                && wal.checkpoint_timeline != Some(timeline);
        } else {
            // One that reads an archive receives nothing: the control file tells.
            let restored = wal
                .checkpoint_timeline
                .filter(|_| memory.role == Role::StandbyLeader);
            data.timeline = wal.timeline_in_use().or(restored).or(memory.last_timeline);
            data.receive_lsn = wal.receive_lsn.known();
            data.replay_lsn = wal.replay_lsn.known();
            data.replication_state = wal.replication_state();
        }
    }
    data
}
