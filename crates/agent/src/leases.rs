//! The leases behind the keys of this member, and what they spare. Nothing but the heartbeat renews the lease of the
//! leader key, so publishing a member never keeps a leadership alive (`ha.md` W18). A leader's member key hangs on
//! the same lease; everybody else's on one of its own, which is renewed when the cluster is looked at. The answer to a
//! renewal tells the store's revision: where the watch has told everything up to there, nothing is read, so a member
//! that has nothing to write sends one request per loop.

use std::sync::{Mutex as PlainMutex, MutexGuard, PoisonError};
use std::time::Duration;

use primacy_dcs::{ClusterStore, Expected, Mirror, Outcome, Renewal, StoreError, WatchEvent};
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
    mirror: PlainMutex<Mirror>,
    /// The revision of what was told last.
    told: PlainMutex<Option<Version>>,
}

/// How the cluster was found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sight {
    /// By a read.
    Read(Cluster),
    /// By the watch: members and `/status` may differ from what was told before, and nothing else does.
    Followed(Cluster),
    /// As it was told before.
    Unchanged,
}

/// The lease of the leader key.
struct Leading {
    session: Session,
    ttl: Duration,
    /// When a renewal was asked for whose answer told that the mirror was up to date.
    confirmed: Option<Instant>,
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
    /// The same, of one whose answer told that the mirror was up to date.
    confirmed: Option<Instant>,
    /// `None`: it has to be written.
    data: Option<MemberData>,
}

/// A pass that goes on where the last one ended relies on the renewal that was made for that.
const JUST_NOW: Duration = Duration::from_secs(1);

/// A member's lease that was renewed so short a part of its time to live ago is not renewed again.
const RECENTLY: u32 = 6;

impl Leases {
    pub(crate) fn new(store: ClusterStore, name: MemberName) -> Self {
        let mirror = PlainMutex::new(store.mirror());
        Leases {
            store,
            name,
            leader: Mutex::default(),
            member: Mutex::default(),
            claim: Mutex::default(),
            status: Mutex::default(),
            mirror,
            told: PlainMutex::default(),
        }
    }

    /// Looks at the cluster. It is not read where the watch has told everything that was written until now, as the store
    /// said now, or to the leader's heartbeat within `followed_within`; asked for only if that is given.
    pub(crate) async fn look_at_cluster(
        &self,
        followed_within: Option<Duration>,
        deadline: Instant,
    ) -> Result<Sight, StoreError> {
        if let Some(within) = followed_within
            && self.mirror().revision().is_some()
            && self.is_followed(within, deadline).await?
            && let Some(sight) = self.followed()
        {
            return Ok(sight);
        }
        let (cluster, revision) = self.store.read_mirrored(&self.mirror, deadline).await?;
        *self.told() = revision;
        Ok(Sight::Read(cluster))
    }

    /// The watch told something.
    pub(crate) fn watched(&self, event: WatchEvent) {
        self.mirror().take(event);
    }

    fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, Option<Version>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: the mirror was lost meanwhile.
    fn followed(&self) -> Option<Sight> {
        let mirror = self.mirror();
        let revision = mirror.revision()?;
        let before = self.told().replace(revision);
        if before == Some(revision) {
            return Some(Sight::Unchanged);
        }
        mirror.cluster().map(Sight::Followed)
    }

    /// Whether the mirror is up to date, by a renewal that is due anyway.
    async fn is_followed(&self, within: Duration, deadline: Instant) -> Result<bool, StoreError> {
        let mut leaders = None;
        if let Some(leading) = self.leader.lock().await.as_ref() {
            let confirmed = leading.confirmed.filter(|sent| sent.elapsed() <= within);
            if confirmed.is_some() {
                return Ok(true);
            }
            leaders = Some(leading.session.clone());
        }
        let mut published = self.member.lock().await;
        let Some(own) = published
            .as_mut()
            .filter(|published| Some(&published.session) != leaders.as_ref())
        else {
            return Ok(false);
        };
        if own.confirmed.is_some_and(|sent| sent.elapsed() <= JUST_NOW) {
            return Ok(true);
        }
        let sent = Instant::now();
        match self.store.renew_lease(&own.session, deadline).await? {
            Renewal::Renewed { revision } => {
                let mirrored = revision.is_some_and(|revision| self.is_mirrored(revision));
                own.renewed = sent;
                own.confirmed = mirrored.then_some(sent);
                Ok(mirrored)
            }
            Renewal::Lapsed => {
                *published = None;
                Ok(false)
            }
        }
    }

    /// Whether the mirror shows this revision of the store. One that is ahead may be of a store that was restored since.
    fn is_mirrored(&self, revision: Version) -> bool {
        self.mirror().revision() == Some(revision)
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
            confirmed: None,
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

    /// Renews the leader key. One that is gone is created again, also under a new lease: who led by promises
    /// (`ha.md` §15) knows that nobody else did.
    pub(crate) async fn renew(
        &self,
        ttl: Duration,
        deadline: Instant,
    ) -> Result<Renewal, StoreError> {
        self.keep(false, ttl, deadline).await
    }

    /// Takes a leader key that names this member over, and creates none: since it was seen, another member may have led
    /// and been lost.
    pub(crate) async fn adopt(
        &self,
        ttl: Duration,
        deadline: Instant,
    ) -> Result<Renewal, StoreError> {
        self.keep(true, ttl, deadline).await
    }

    async fn keep(
        &self,
        adopting: bool,
        ttl: Duration,
        deadline: Instant,
    ) -> Result<Renewal, StoreError> {
        let mut held = self.leader.lock().await;
        if held.as_ref().is_none_or(|leading| leading.ttl != ttl) {
            *held = Some(Leading {
                session: self.store.grant_lease(ttl, deadline).await?,
                ttl,
                confirmed: None,
            });
        }
        let Some(leading) = held.as_mut() else {
            return Ok(Renewal::Lapsed);
        };
        let sent = Instant::now();
        let (store, session) = (&self.store, &leading.session);
        let renewal = if adopting {
            store.adopt_leader(&self.name, session, deadline).await?
        } else {
            let holds = |revision| {
                self.is_mirrored(revision) && self.mirror().is_led_by(&self.name, session)
            };
            store
                .renew_leader(&self.name, session, holds, deadline)
                .await?
        };
        match renewal {
            Renewal::Renewed { revision } => {
                let mirrored = revision.is_some_and(|revision| self.is_mirrored(revision));
                leading.confirmed = mirrored.then_some(sent);
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

    /// As [`Self::write_status`] and then [`Self::publish`] of who leads; in one request where both have to be written.
    pub(crate) async fn publish_with_status(
        &self,
        status: Status,
        data: MemberData,
        ttl: Duration,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        if let Some(result) = self.put_both(&status, &data, deadline).await {
            return result;
        }
        let told = self.write_status(status, deadline).await;
        self.publish(data, ttl, true, deadline).await?;
        told
    }

    /// `None`: nothing was written, since the member key has to get another lease first, or need not be written.
    async fn put_both(
        &self,
        status: &Status,
        data: &MemberData,
        deadline: Instant,
    ) -> Option<Result<(), StoreError>> {
        let leading = self.leader.lock().await;
        let leaders = leading.as_ref().map(|leading| leading.session.clone())?;
        drop(leading);
        let mut published = self.member.lock().await;
        let published = published
            .as_mut()
            .filter(|it| it.session == leaders && it.data.as_ref() != Some(data))?;
        published.data = None;
        let written = self
            .store
            .write_status_and_member(&self.name, status, data, &leaders, deadline)
            .await;
        match written {
            Ok(_) => {
                published.data = Some(data.clone());
                *self.status.lock().await = status.clone();
                Some(Ok(()))
            }
            Err(error) if error.is_lease_lapsed() => None,
            Err(error) => Some(Err(error)),
        }
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
            confirmed: None,
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
                let read = leases.look_at_cluster(Some(LOOP_WAIT), soon()).await;
                assert!(read.is_ok());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let cluster = store.read(soon()).await.unwrap();
            assert!(cluster.member("pg1").is_some(), "leads: {leads}");
            assert_eq!(cluster.leader, None, "leads: {leads}");
            // A renewal of what has lapsed does not bring it back by itself.
            assert_eq!(leases.renew(TTL, soon()).await.unwrap(), Renewal::Lapsed);
        }
    }

    /// ha.md §5.3: who takes a lease over moves a key that is there. While it was gone, another member may have led and
    /// been lost.
    #[tokio::test(start_paused = true)]
    async fn s5_3_a_key_that_is_gone_is_not_taken_over() {
        let store = ClusterStore::new(MemoryStore::new(), "service", "demo");
        let before = Leases::new(store.clone(), "pg1".into());
        assert!(before.acquire(TTL, soon()).await.unwrap());
        let leases = Leases::new(store.clone(), "pg1".into());
        assert_ne!(leases.adopt(TTL, soon()).await.unwrap(), Renewal::Lapsed);
        assert!(store.read(soon()).await.unwrap().leader.is_some());

        leases.release(None, soon()).await.unwrap();
        assert_eq!(leases.adopt(TTL, soon()).await.unwrap(), Renewal::Lapsed);
        assert_eq!(store.read(soon()).await.unwrap().leader, None);
        // Who led by promises has it again.
        assert_ne!(leases.renew(TTL, soon()).await.unwrap(), Renewal::Lapsed);
        assert!(store.read(soon()).await.unwrap().leader.is_some());
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

    /// A member with nothing to write sends one request per loop, whatever the others write, as long as the watch tells
    /// of it, and of nothing that decides who leads.
    #[tokio::test(start_paused = true)]
    async fn a_member_with_nothing_to_write_sends_one_request_per_loop() {
        for leads in [false, true] {
            let store = Arc::new(Counting {
                store: MemoryStore::new(),
                requests: AtomicU32::new(0),
            });
            let cluster = ClusterStore::new(store.clone(), "service", "demo");
            let other = Leases::new(
                ClusterStore::new(store.store.client(), "service", "demo"),
                "pg2".into(),
            );
            let mut watch = cluster.watch();
            let mut hear = async |leases: &Leases| {
                tokio::time::sleep(LOOP_WAIT / 2).await;
                while let Ok(event) = watch.try_recv() {
                    leases.watched(event);
                }
            };
            let leases = Leases::new(cluster, "pg1".into());
            if leads {
                assert!(leases.acquire(TTL, soon()).await.unwrap());
            }
            // As the machine has it done, with nothing new to tell.
            let pass = async || {
                let before = store.requests.load(Ordering::Relaxed);
                if leads {
                    assert_ne!(leases.renew(TTL, soon()).await.unwrap(), Renewal::Lapsed);
                }
                let sight = leases.look_at_cluster(Some(LOOP_WAIT), soon()).await;
                leases.publish(at(1), TTL, leads, soon()).await.unwrap();
                tokio::time::sleep(LOOP_WAIT / 2).await;
                let requests = store.requests.load(Ordering::Relaxed) - before;
                (sight.unwrap(), requests)
            };
            for _ in 0..3 {
                hear(&leases).await;
                pass().await;
            }
            for _ in 0..5 {
                hear(&leases).await;
                assert_eq!(pass().await, (Sight::Unchanged, 1), "leads: {leads}");
            }

            for position in 1..5 {
                other
                    .publish(at(position), TTL, false, soon())
                    .await
                    .unwrap();
                hear(&leases).await;
                let (sight, requests) = pass().await;
                let now = other.store.read(soon()).await.unwrap();
                assert_eq!(
                    (sight, requests),
                    (Sight::Followed(now), 1),
                    "leads: {leads}"
                );
            }

            // The watch is late.
            other.publish(at(5), TTL, false, soon()).await.unwrap();
            let read = async |why: &str| {
                let (sight, _) = pass().await;
                let now = other.store.read(soon()).await.unwrap();
                assert_eq!(sight, Sight::Read(now), "leads: {leads}, {why}");
            };
            read("the watch is late").await;
            hear(&leases).await;
            assert_eq!(pass().await, (Sight::Unchanged, 1), "leads: {leads}");

            leases.watched(WatchEvent::Resync);
            read("the watch has a gap").await;
            let absent = Expected::Absent;
            let written = other.store.write_failover("{}", absent, soon()).await;
            assert!(written.is_ok());
            hear(&leases).await;
            read("the operator asks for something").await;
        }
    }

    /// So does a leader whose clients write, whose position is told in two keys: one renewal and one write.
    #[tokio::test(start_paused = true)]
    async fn a_leader_tells_its_position_in_one_request() {
        let store = Arc::new(Counting {
            store: MemoryStore::new(),
            requests: AtomicU32::new(0),
        });
        let leases = Leases::new(
            ClusterStore::new(store.clone(), "service", "demo"),
            "pg1".into(),
        );
        let other = ClusterStore::new(store.store.client(), "service", "demo");
        assert!(leases.acquire(TTL, soon()).await.unwrap());
        let tell = async |position: u64| {
            let before = store.requests.load(Ordering::Relaxed);
            let status = Status {
                optime: primacy_model::Lsn(position),
                ..Status::default()
            };
            let told = leases.publish_with_status(status, at(position), TTL, soon());
            told.await.unwrap();
            store.requests.load(Ordering::Relaxed) - before
        };
        let told = async || {
            let cluster = other.read(soon()).await.unwrap();
            let member = cluster.member("pg1").unwrap();
            (
                cluster.status.optime.0,
                member.data.xlog_location.unwrap().0,
            )
        };
        // The member key has no lease yet.
        tell(1).await;
        for position in 2..5 {
            assert_eq!(tell(position).await, 1);
            assert_eq!(told().await, (position, position));
        }
        // The member's position is published already.
        leases.publish(at(5), TTL, true, soon()).await.unwrap();
        assert_eq!(tell(5).await, 1);
        assert_eq!(told().await, (5, 5));
        // Somebody else leads.
        other.release_leader(&"pg1".into(), soon()).await.unwrap();
        tell(6).await;
        assert_eq!(told().await, (5, 6));
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

        async fn write_both(
            &self,
            conditional: Write,
            always: Write,
            deadline: Instant,
        ) -> Result<Outcome, StoreError> {
            let store = self.counted();
            store.write_both(conditional, always, deadline).await
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
