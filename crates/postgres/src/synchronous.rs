//! `synchronous_standby_names`, and that every process of the server obeys it.

use std::collections::BTreeSet;
use std::time::Duration;

use primacy_model::Lsn;
use tokio::time::{Instant, sleep};

use crate::{Error, Server};

/// How often a condition in the server is looked at.
const POLL: Duration = Duration::from_millis(20);

impl Server {
    /// The value that later configuration files get (`None`: none at all), over the one in the settings;
    /// a server that runs is not told.
    pub fn remember_synchronous_standby_names(&self, value: Option<&str>) {
        self.memory(|memory| {
            memory
                .overrides
                .insert("synchronous_standby_names".into(), value.map(str::to_owned))
        });
    }

    /// Puts a value into the files (`None` removes it), over the one in the settings, and reloads, until sessions show
    /// it and commits obey it: all that there is to do before a promotion.
    ///
    /// Errors: [`Error::Deadline`] leaves the outcome unknown.
    pub async fn prepare_synchronous_standby_names(
        &self,
        value: Option<&str>,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.remember_synchronous_standby_names(value);
        self.write_files(None, deadline).await?;
        self.reload(deadline).await?;
        let wanted = value.unwrap_or_default();
        let show = "SELECT pg_catalog.current_setting('synchronous_standby_names')";
        loop {
            let rows = self.query(show, deadline).await?;
            if rows.first().and_then(|row| row.get(0)) == Some(wanted) {
                break;
            }
            if Instant::now() >= deadline {
                return Err(Error::deadline("the change of synchronous_standby_names"));
            }
            sleep(POLL).await;
        }
        if wanted.is_empty() {
            return Ok(());
        }
        self.everybody_obeys(deadline).await
    }

    /// Waits until no process acts on an older configuration. Sessions show the new `synchronous_standby_names` while
    /// * the checkpointer may still have to say that commits wait for standbys at all: only it sets that flag, and not
    ///   while it syncs files (`SyncRepUpdateSyncStandbysDefined`);
    /// * a walsender may still release commits by the old names, or by the old number of them: no view shows which.
    ///
    /// The postmaster accepts a new connection only after it has told all of its children to read the configuration,
    /// so whoever is seen idle from then on reads it before anything else (W2).
    async fn everybody_obeys(&self, deadline: Instant) -> Result<(), Error> {
        let later = self.connect(deadline).await?;
        let sql = "SELECT a.pid, pg_catalog.lower(a.wait_event) IN ('checkpointermain', 'checkpointwritedelay', \
                   'walsendermain', 'walsenderwaitforwal') \
                   FROM pg_catalog.pg_stat_activity a LEFT JOIN pg_catalog.pg_stat_replication r USING (pid) \
                   WHERE a.backend_type = 'checkpointer' OR r.state = 'streaming'";
        let mut waited_for: Option<BTreeSet<String>> = None;
        loop {
            let rows = later.query(sql, deadline).await?;
            let busy: BTreeSet<String> = rows
                .iter()
                .filter(|row| row.get(1) != Some("t"))
                .filter_map(|row| row.get(0).map(str::to_owned))
                .collect();
            let left: BTreeSet<String> = match waited_for {
                // One that began since has read the new configuration.
                Some(before) => before.intersection(&busy).cloned().collect(),
                None => busy,
            };
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let pids: Vec<String> = left.into_iter().collect();
                return Err(Error::deadline(format!(
                    "the taking over of synchronous_standby_names by the processes {}",
                    pids.join(", ")
                )));
            }
            waited_for = Some(left);
            sleep(POLL).await;
        }
    }

    /// Puts a value into effect (`None` removes it) and keeps it over the one in the settings: rewrites
    /// the files, reloads, waits until everybody obeys it, and writes a little WAL.
    /// Returns the flush position after the change was active: a standby that confirms it has confirmed
    /// under the new rule (`ha.md` §13.2, W2, W3).
    ///
    /// Errors: [`Error::Deadline`] leaves the outcome unknown.
    pub async fn set_synchronous_standby_names(
        &self,
        value: Option<&str>,
        deadline: Instant,
    ) -> Result<Lsn, Error> {
        self.prepare_synchronous_standby_names(value, deadline)
            .await?;
        let sql = "BEGIN; SET LOCAL synchronous_commit = off; SELECT pg_catalog.txid_current(); COMMIT; \
                   SELECT pg_catalog.pg_current_wal_flush_lsn()";
        let rows = self.query(sql, deadline).await?;
        let lsn = rows
            .last()
            .and_then(|row| row.get(0))
            .and_then(|text| text.parse().ok());
        lsn.ok_or_else(|| Error::NotPossible("PostgreSQL gave no flush position".into()))
    }
}
