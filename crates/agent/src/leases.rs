//! The leases behind the keys of this member, and what they spare. Nothing but the heartbeat renews the lease of the
//! leader key, so publishing a member never keeps a leadership alive (`ha.md` W18). A leader's member key hangs on
//! the same lease; everybody else's on one of its own, which is renewed when the cluster is looked at. The answer to a
//! renewal tells whether anything was written since the last read, so an idle member sends one request per loop.

use std::sync::{Mutex as PlainMutex, MutexGuard, PoisonError};
use std::time::Duration;

use primacy_dcs::{ClusterStore, Expected, Outcome, Renewal, StoreError};
use primacy_model::{Cluster, MemberData, MemberName, Session, Status, SystemIdentifier, Version};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The keys that this member holds.
pub(crate) struct Leases {
    store: ClusterStore,
    name: MemberName,
    leader: Mutex<Option<Leading>>,
    member: Mutex<Option<Published>>,
    claim: Mutex<Option<Claim>>,
    status: Mutex<Status>,
    view: PlainMutex<View>,
}

/// The lease of the leader key.
struct Leading {
    session: Session,
    ttl: Duration,
    /// The store's revision when the key was last found to be this member's, and when that was asked for.
    seen: Option<(Version, Instant)>,
}

/// What was read last.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct View {
    /// As which revision; `None`: it has to be read again.
    revision: Option<Version>,
    /// Counts the changes that the watch told of.
    changes: u64,
}

/// The right to bootstrap the cluster: an empty `/initialize` that goes when this agent does (`ha.md` W11).
struct Claim {
    session: Session,
    version: Version,
}

/// The member key.
struct Published {
    /// The lease that it hangs on.
    session: Session,
    ttl: Duration,
    /// When the renewal of a lease of its own was last asked for.
    renewed: Instant,
    /// `None`: it has to be written.
    data: Option<MemberData>,
}

/// A member's lease that was renewed so short a part of its time to live ago is not renewed again.
const RECENTLY: u32 = 6;

impl Leases {
    pub(crate) fn new(store: ClusterStore, name: MemberName) -> Self {
        Leases {
            store,
            name,
            leader: Mutex::default(),
            member: Mutex::default(),
            claim: Mutex::default(),
            status: Mutex::default(),
            view: PlainMutex::default(),
        }
    }

    /// Reads the cluster. `None`: nothing was written since the last read, as the store said now, or to the leader's
    /// heartbeat within `unchanged_within`; asked for only if that is given.
    pub(crate) async fn read_cluster(
        &self,
        unchanged_within: Option<Duration>,
        deadline: Instant,
    ) -> Result<Option<Cluster>, StoreError> {
        let view = *self.view();
        if let (Some(within), Some(read)) = (unchanged_within, view.revision)
            && self.revision(within, deadline).await? == Some(read)
            && *self.view() == view
        {
            return Ok(None);
        }
        let changes = self.view().changes;
        let (cluster, revision) = self.store.read_revision(deadline).await?;
        let mut view = self.view();
        view.revision = revision.filter(|_| view.changes == changes);
        Ok(Some(cluster))
    }

    /// The watch told of a change: what was read before is not to be relied upon.
    pub(crate) fn changed(&self) {
        let mut view = self.view();
        view.changes += 1;
        view.revision = None;
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store's revision, from a renewal that is due anyway. `None`: there is none, or it did not tell.
    async fn revision(
        &self,
        within: Duration,
        deadline: Instant,
    ) -> Result<Option<Version>, StoreError> {
        let mut leaders = None;
        if let Some(leading) = self.leader.lock().await.as_ref() {
            let seen = leading.seen.filter(|(_, sent)| sent.elapsed() <= within);
            if let Some((revision, _)) = seen {
                return Ok(Some(revision));
            }
            leaders = Some(leading.session.clone());
        }
        let mut published = self.member.lock().await;
        let Some(own) = published
            .as_mut()
            .filter(|published| Some(&published.session) != leaders.as_ref())
        else {
            return Ok(None);
        };
        let sent = Instant::now();
        match self.store.renew_lease(&own.session, deadline).await? {
            Renewal::Renewed { revision } => {
                own.renewed = sent;
                Ok(revision)
            }
            Renewal::Lapsed => {
                *published = None;
                Ok(None)
            }
        }
    }

    /// Claims the bootstrap. `false`: somebody else has. After an error nothing is claimed, or a claim that
    /// lapses by itself.
    pub(crate) async fn claim_initialize(
        &self,
        ttl: Duration,
        deadline: Instant,
    ) -> Result<bool, StoreError> {
        let mut claim = self.claim.lock().await;
        let session = self.store.grant_lease(ttl, deadline).await?;
        let outcome = self.store.claim_initialize(&session, deadline).await;
        if let Ok(Outcome::Done(version)) = outcome {
            *claim = Some(Claim { session, version });
            return Ok(true);
        }
        let _ = self.store.revoke_lease(&session, deadline).await;
        outcome.map(|_| false)
    }

    /// Puts the system identifier in the place of this agent's own claim, for good. `false`: there is none.
    pub(crate) async fn complete_claim(
        &self,
        identifier: &SystemIdentifier,
        deadline: Instant,
    ) -> Result<bool, StoreError> {
        let mut held = self.claim.lock().await;
        let Some(claim) = held.as_ref() else {
            return Ok(false);
        };
        let expected = Expected::Version(claim.version);
        let outcome = self
            .store
            .write_initialize(identifier, expected, deadline)
            .await?;
        if let Some(claim) = held.take() {
            let _ = self.store.revoke_lease(&claim.session, deadline).await;
        }
        Ok(outcome != Outcome::ConditionFailed)
    }

    /// Gives the claim up, if there is one.
    pub(crate) async fn cancel_claim(&self, deadline: Instant) -> Result<(), StoreError> {
        let Some(claim) = self.claim.lock().await.take() else {
            return Ok(());
        };
        self.store
            .cancel_initialize(claim.version, deadline)
            .await?;
        let _ = self.store.revoke_lease(&claim.session, deadline).await;
        Ok(())
    }

    async fn renew_claim(&self, deadline: Instant) -> Result<(), StoreError> {
        let mut held = self.claim.lock().await;
        let Some(claim) = held.as_ref() else {
            return Ok(());
        };
        if self.store.renew_lease(&claim.session, deadline).await? == Renewal::Lapsed {
            tracing::warn!("the claim to bootstrap the cluster lapsed; another member may make it");
            *held = None;
        }
        Ok(())
    }

    /// Creates the leader key under a lease that is granted for it. `false` is a lost race.
    pub(crate) async fn acquire(
        &self,
        ttl: Duration,
        deadline: Instant,
    ) -> Result<bool, StoreError> {
        self.claim.lock().await.take();
        let mut held = self.leader.lock().await;
        let session = self.store.grant_lease(ttl, deadline).await?;
        // Kept also when the answer is lost: if the key was created, it hangs on this lease.
        *held = Some(Leading {
            session: session.clone(),
            ttl,
            seen: None,
        });
        if self
            .store
            .acquire_leader(&self.name, &session, deadline)
            .await?
            == Outcome::ConditionFailed
        {
            *held = None;
            drop(held);
            let _ = self.store.revoke_lease(&session, deadline).await;
            return Ok(false);
        }
        Ok(true)
    }

    /// Renews the leader key, or takes one that names this member over to a new lease.
    pub(crate) async fn renew(
        &self,
        ttl: Duration,
        deadline: Instant,
    ) -> Result<Renewal, StoreError> {
        let mut held = self.leader.lock().await;
        if held.as_ref().is_none_or(|leading| leading.ttl != ttl) {
            *held = Some(Leading {
                session: self.store.grant_lease(ttl, deadline).await?,
                ttl,
                seen: None,
            });
        }
        let Some(leading) = held.as_mut() else {
            return Ok(Renewal::Lapsed);
        };
        let sent = Instant::now();
        let seen = leading.seen.take().map(|(revision, _)| revision);
        let renewal = self
            .store
            .renew_leader(&self.name, &leading.session, seen, deadline)
            .await?;
        match renewal {
            Renewal::Renewed { revision } => {
                leading.seen = revision.map(|revision| (revision, sent));
            }
            Renewal::Lapsed => *held = None,
        }
        Ok(renewal)
    }

    /// Deletes the leader key. `/status` is told the last position first.
    pub(crate) async fn release(
        &self,
        optime: Option<primacy_model::Lsn>,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let mut held = self.leader.lock().await;
        if let Some(optime) = optime {
            let status = Status {
                optime,
                ..self.status.lock().await.clone()
            };
            if let Err(error) = self.store.write_status(&self.name, &status, deadline).await {
                tracing::warn!("the position at the shutdown could not be told: {error}");
            }
        }
        self.store.release_leader(&self.name, deadline).await?;
        if let Some(leading) = held.take() {
            let published = self.member.lock().await;
            // With the leader key gone, a lease that the member key hangs on is the member's own.
            if published
                .as_ref()
                .is_none_or(|published| published.session != leading.session)
            {
                let _ = self.store.revoke_lease(&leading.session, deadline).await;
            }
        }
        Ok(())
    }

    /// Writes `/status`, if this member leads.
    pub(crate) async fn write_status(
        &self,
        status: Status,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        self.store
            .write_status(&self.name, &status, deadline)
            .await?;
        *self.status.lock().await = status;
        Ok(())
    }

    /// Publishes the member key, or keeps it alive when nothing changed. So does a claim to the bootstrap. Who `leads`
    /// has it hang on the lease of the leader key, which the heartbeat renews.
    pub(crate) async fn publish(
        &self,
        data: MemberData,
        ttl: Duration,
        leads: bool,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        self.renew_claim(deadline).await?;
        let leading = self.leader.lock().await;
        let leaders = leading
            .as_ref()
            .map(|leading| (leading.session.clone(), leading.ttl));
        drop(leading);
        let mut published = self.member.lock().await;
        let on_leaders = match (&leaders, published.as_ref()) {
            (Some((session, _)), Some(published)) => published.session == *session,
            _ => false,
        };
        match (leaders, published.as_mut()) {
            (Some(_), _) if leads && on_leaders => {}
            (Some((session, ttl)), _) if leads => {
                *published = Some(Published::under(session, ttl));
            }
            // What keeps the member must not keep the leader key.
            (_, Some(own)) if on_leaders || own.ttl != ttl => *published = None,
            (_, Some(own)) if own.renewed.elapsed() >= ttl / RECENTLY => {
                let sent = Instant::now();
                match self.store.renew_lease(&own.session, deadline).await? {
                    Renewal::Renewed { .. } => own.renewed = sent,
                    Renewal::Lapsed => *published = None,
                }
            }
            _ => {}
        }
        if let Some(published) = published.as_mut() {
            match self.put(published, &data, deadline).await {
                Err(error) if error.is_lease_lapsed() => {}
                result => return result,
            }
        }
        let sent = Instant::now();
        let session = self.store.grant_lease(ttl, deadline).await?;
        let own = published.insert(Published {
            renewed: sent,
            ..Published::under(session, ttl)
        });
        self.put(own, &data, deadline).await
    }

    async fn put(
        &self,
        published: &mut Published,
        data: &MemberData,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        if published.data.as_ref() == Some(data) {
            return Ok(());
        }
        published.data = None;
        self.store
            .put_member(&self.name, data, &published.session, deadline)
            .await?;
        published.data = Some(data.clone());
        Ok(())
    }

    /// The member key is gone, whoever deleted it: publish it again.
    pub(crate) async fn forget_member(&self) {
        if let Some(published) = self.member.lock().await.as_mut() {
            published.data = None;
        }
    }
}

impl Published {
    fn under(session: Session, ttl: Duration) -> Self {
        Published {
            session,
            ttl,
            renewed: Instant::now(),
            data: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;
    use primacy_dcs::{MemoryStore, Snapshot, Store, WatchEvent, Write};
    use tokio::sync::mpsc;

    use super::*;

    const TTL: Duration = Duration::from_secs(20);
    const LOOP_WAIT: Duration = Duration::from_secs(5);

    fn soon() -> Instant {
        Instant::now() + TTL
    }

    fn at(position: u64) -> MemberData {
        MemberData {
            xlog_location: Some(primacy_model::Lsn(position)),
            ..MemberData::default()
        }
    }

    /// W18: a member that publishes itself, and has stopped to renew its leadership, loses that alone; whether it
    /// still takes itself for the leader or not.
    #[tokio::test(start_paused = true)]
    async fn w18_publishing_a_member_keeps_no_leadership_alive() {
        for leads in [false, true] {
            let store = ClusterStore::new(MemoryStore::new(), "service", "demo");
            let leases = Leases::new(store.clone(), "pg1".into());
            assert!(leases.acquire(TTL, soon()).await.unwrap());
            for second in 0..=21 {
                leases
                    .publish(at(second), TTL, leads, soon())
                    .await
                    .unwrap();
                leases.read_cluster(Some(LOOP_WAIT), soon()).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let cluster = store.read(soon()).await.unwrap();
            assert!(cluster.member("pg1").is_some(), "leads: {leads}");
            assert_eq!(cluster.leader, None, "leads: {leads}");
            // A renewal of what has lapsed does not bring it back by itself.
            assert_eq!(leases.renew(TTL, soon()).await.unwrap(), Renewal::Lapsed);
        }
    }

    /// The member key outlives the leader key that it shared a lease with, and does not keep it from going.
    #[tokio::test(start_paused = true)]
    async fn a_member_that_led_stays_one() {
        let store = ClusterStore::new(MemoryStore::new(), "service", "demo");
        let leases = Leases::new(store.clone(), "pg1".into());
        leases.publish(at(1), TTL, false, soon()).await.unwrap();
        assert!(leases.acquire(TTL, soon()).await.unwrap());
        leases.publish(at(1), TTL, true, soon()).await.unwrap();
        let cluster = store.read(soon()).await.unwrap();
        let shared = cluster.leader.as_ref().unwrap().session.clone();
        assert_eq!(cluster.member("pg1").unwrap().session, shared);

        leases.release(None, soon()).await.unwrap();
        for _ in 0..10 {
            tokio::time::sleep(LOOP_WAIT).await;
            leases.publish(at(1), TTL, false, soon()).await.unwrap();
        }
        let cluster = store.read(soon()).await.unwrap();
        assert_eq!(cluster.leader, None);
        assert!(cluster.member("pg1").is_some());
    }

    /// An idle member sends one request per loop, and hears of what somebody else writes in the next one.
    #[tokio::test(start_paused = true)]
    async fn an_idle_member_sends_one_request_per_loop() {
        for leads in [false, true] {
            let store = Arc::new(Counting {
                store: MemoryStore::new(),
                requests: AtomicU32::new(0),
            });
            let cluster = ClusterStore::new(store.clone(), "service", "demo");
            let leases = Leases::new(cluster.clone(), "pg1".into());
            if leads {
                assert!(leases.acquire(TTL, soon()).await.unwrap());
            }
            // As the machine has it done, with nothing new to tell.
            let pass = async || {
                if leads {
                    assert_ne!(leases.renew(TTL, soon()).await.unwrap(), Renewal::Lapsed);
                }
                let read = leases.read_cluster(Some(LOOP_WAIT), soon()).await.unwrap();
                leases.publish(at(1), TTL, leads, soon()).await.unwrap();
                tokio::time::sleep(LOOP_WAIT).await;
                read
            };
            for _ in 0..3 {
                pass().await;
            }
            for _ in 0..5 {
                let before = store.requests.load(Ordering::Relaxed);
                assert_eq!(pass().await, None);
                let requests = store.requests.load(Ordering::Relaxed) - before;
                assert_eq!(requests, 1, "leads: {leads}");
            }
            let other = Leases::new(cluster, "pg2".into());
            other.publish(at(1), TTL, false, soon()).await.unwrap();
            let read = pass().await.expect("there is another member");
            assert!(read.member("pg2").is_some());

            // What the watch told is newer than what the heartbeat heard.
            pass().await;
            leases.changed();
            assert!(pass().await.is_some());
        }
    }

    struct Counting {
        store: Arc<MemoryStore>,
        requests: AtomicU32,
    }

    impl Counting {
        fn counted(&self) -> &MemoryStore {
            self.requests.fetch_add(1, Ordering::Relaxed);
            &self.store
        }
    }

    #[async_trait]
    impl Store for Counting {
        async fn read(&self, prefix: &str, deadline: Instant) -> Result<Snapshot, StoreError> {
            self.counted().read(prefix, deadline).await
        }

        async fn write(&self, write: Write, deadline: Instant) -> Result<Outcome, StoreError> {
            self.counted().write(write, deadline).await
        }

        async fn grant_lease(&self, ttl: Duration, by: Instant) -> Result<Session, StoreError> {
            self.counted().grant_lease(ttl, by).await
        }

        async fn renew_lease(&self, lease: &Session, by: Instant) -> Result<Renewal, StoreError> {
            self.counted().renew_lease(lease, by).await
        }

        async fn revoke_lease(&self, lease: &Session, by: Instant) -> Result<(), StoreError> {
            self.counted().revoke_lease(lease, by).await
        }

        async fn delete_prefix(&self, prefix: &str, by: Instant) -> Result<(), StoreError> {
            self.counted().delete_prefix(prefix, by).await
        }

        fn watch(&self, prefix: &str) -> mpsc::Receiver<WatchEvent> {
            self.store.watch(prefix)
        }

        fn kind(&self) -> &'static str {
            "counted"
        }
    }
}
