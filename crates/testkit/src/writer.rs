//! Clients that commit small transactions all the time, and remember what they were told.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::http;
use crate::ledger::{Acknowledged, Entry, Ledger};
use crate::sql;
use crate::wait::wait_until;

/// Whom a writer writes to.
#[derive(Debug, Clone)]
pub enum Target {
    /// The server whose agent answers 200 to `OPTIONS /primary`, as a load balancer would choose: pairs of REST and
    /// PostgreSQL port.
    Primary(Vec<(u16, u16)>),
    /// One fixed port, whatever is behind it: a server in any role, or a load balancer.
    Port(u16),
}

/// Between two transactions. A few hundred commits per second per writer show an interleaving of acknowledgements, and
/// leave the machine to the cluster.
const PAUSE: Duration = Duration::from_millis(5);
/// After a failed try.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// An answer that takes longer is unknown. A synchronous commit waits this long for its standby at times.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
const CHECK_WITHIN: Duration = Duration::from_millis(500);

/// The commit tells which server made it, and on which timeline.
const INSERT: &str = "insert into ledger (writer, seq) values ($1, $2) \
     returning inet_server_port(), substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)";

/// A running writer.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Mutex<Ledger>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Starts writing as writer number `number`, to whatever `target` is at the time. The ledger's table must be, or
    /// come to be, there.
    pub fn start(number: i32, target: Target) -> Self {
        let shared = Arc::new(Mutex::new(Ledger::default()));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(write_until_stopped(
            number,
            target,
            Arc::clone(&shared),
            stopped,
        ));
        Self { shared, stop, task }
    }

    /// How many commits are acknowledged by now.
    pub fn acknowledged(&self) -> usize {
        lock(&self.shared).acknowledged.len()
    }

    /// When the last acknowledgement came, and from which port.
    pub fn last(&self) -> Option<Acknowledged> {
        lock(&self.shared).acknowledged.last().copied()
    }

    /// Waits for a further acknowledgement, of a transaction that may have been under way at the call.
    pub async fn wait_progress(&self, within: Duration) -> Result<()> {
        // The first may have been on its way already, the second was sent after this call.
        let before = self.acknowledged();
        wait_until("further acknowledged commits", within, async || {
            let now = self.acknowledged();
            (now >= before + 2)
                .then_some(())
                .with_context(|| format!("{now} commits, {before} before"))
        })
        .await
    }

    /// Ends the writer and returns what it was told.
    pub async fn stop(self) -> Result<Ledger> {
        let _ = self.stop.send(true);
        self.task.await.context("the writer failed")?;
        Ok(std::mem::take(&mut *lock(&self.shared)))
    }
}

fn lock(shared: &Mutex<Ledger>) -> std::sync::MutexGuard<'_, Ledger> {
    shared
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

async fn write_until_stopped(
    number: i32,
    target: Target,
    shared: Arc<Mutex<Ledger>>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut client: Option<Client> = None;
    for seq in 0.. {
        if *stopped.borrow() {
            return;
        }
        let entry = Entry {
            writer: number,
            seq,
        };
        let pause = match write(&mut client, &target, entry, &shared).await {
            Ok(()) => PAUSE,
            Err(_) => {
                client = None;
                RETRY_PAUSE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stopped.changed() => {}
        }
    }
}

async fn write(
    client: &mut Option<Client>,
    target: &Target,
    entry: Entry,
    shared: &Mutex<Ledger>,
) -> Result<()> {
    let connected = match client.take() {
        Some(connected) => client.insert(connected),
        None => client.insert(sql::connect(port_of(target).await?, "writer").await?),
    };
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&entry.writer, &entry.seq];
    lock(shared).unknown.insert(entry);
    let answer = tokio::time::timeout(ANSWER_WITHIN, connected.query_one(INSERT, &parameters))
        .await
        .map_err(|_| anyhow!("no answer within {ANSWER_WITHIN:?}"));
    let at = Instant::now();
    match answer {
        Ok(Ok(row)) => {
            let timeline = u32::from_str_radix(row.get(1), 16)?;
            let mut ledger = lock(shared);
            ledger.unknown.remove(&entry);
            ledger.acknowledged.push(Acknowledged {
                entry,
                at,
                port: row.get(0),
                timeline,
            });
            Ok(())
        }
        Ok(Err(error)) => {
            // An ERROR is a rollback. A FATAL (a server shutting down) and a broken connection tell nothing.
            if error
                .as_db_error()
                .is_some_and(|error| error.severity() == "ERROR")
            {
                lock(shared).unknown.remove(&entry);
            }
            Err(error.into())
        }
        Err(timed_out) => Err(timed_out),
    }
}

async fn port_of(target: &Target) -> Result<u16> {
    match target {
        Target::Port(port) => Ok(*port),
        Target::Primary(members) => {
            for (rest_port, postgres_port) in members {
                let check =
                    http::request(*rest_port, "OPTIONS", "/primary", None, CHECK_WITHIN).await;
                if check.is_ok_and(|response| response.status == 200) {
                    return Ok(*postgres_port);
                }
            }
            Err(anyhow!("no member says that it is the primary"))
        }
    }
}
