//! The leases behind the keys of this member. The leader key and the member key hang on leases of their own,
//! so that publishing a member never keeps a leadership alive (`ha.md` W18).

use std::time::Duration;

use primacy_dcs::{ClusterStore, Expected, Outcome, Renewal, StoreError};
use primacy_model::{MemberData, MemberName, Session, Status, SystemIdentifier, Version};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The keys that this member holds.
pub(crate) struct Leases {
    store: ClusterStore,
    name: MemberName,
    leader: Mutex<Option<Lease>>,
    member: Mutex<Option<Published>>,
    claim: Mutex<Option<Claim>>,
    status: Mutex<Status>,
}

#[derive(Clone)]
struct Lease {
    session: Session,
    ttl: Duration,
}

/// The right to bootstrap the cluster: an empty `/initialize` that goes when this agent does (`ha.md` W11).
struct Claim {
    session: Session,
    version: Version,
}

struct Published {
    lease: Lease,
    data: Option<MemberData>,
}

impl Leases {
    pub(crate) fn new(store: ClusterStore, name: MemberName) -> Self {
        Leases {
            store,
            name,
            leader: Mutex::default(),
            member: Mutex::default(),
            claim: Mutex::default(),
            status: Mutex::default(),
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
        *held = Some(Lease {
            session: session.clone(),
            ttl,
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
        let lease = match held.as_ref().filter(|lease| lease.ttl == ttl) {
            Some(lease) => lease.clone(),
            None => {
                let lease = Lease {
                    session: self.store.grant_lease(ttl, deadline).await?,
                    ttl,
                };
                *held = Some(lease.clone());
                lease
            }
        };
        let renewal = self
            .store
            .renew_leader(&self.name, &lease.session, deadline)
            .await?;
        if renewal == Renewal::Lapsed {
            *held = None;
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
        if let Some(lease) = held.take() {
            let _ = self.store.revoke_lease(&lease.session, deadline).await;
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

    /// Publishes the member key, or keeps it alive when nothing changed. So does a claim to the bootstrap.
    pub(crate) async fn publish(
        &self,
        data: MemberData,
        ttl: Duration,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        self.renew_claim(deadline).await?;
        let mut published = self.member.lock().await;
        let alive = match published
            .as_ref()
            .filter(|published| published.lease.ttl == ttl)
        {
            Some(published) => {
                let renewal = self
                    .store
                    .renew_lease(&published.lease.session, deadline)
                    .await?;
                renewal == Renewal::Renewed
            }
            None => false,
        };
        if !alive {
            let session = self.store.grant_lease(ttl, deadline).await?;
            *published = Some(Published {
                lease: Lease { session, ttl },
                data: None,
            });
        }
        let Some(published) = published.as_mut() else {
            return Ok(());
        };
        if published.data.as_ref() == Some(&data) {
            return Ok(());
        }
        published.data = None;
        self.store
            .put_member(&self.name, &data, &published.lease.session, deadline)
            .await?;
        published.data = Some(data);
        Ok(())
    }

    /// The member key is gone, whoever deleted it: publish it again.
    pub(crate) async fn forget_member(&self) {
        if let Some(published) = self.member.lock().await.as_mut() {
            published.data = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use primacy_dcs::MemoryStore;

    /// W18: a member that publishes itself, and has stopped to renew its leadership, loses that alone.
    #[tokio::test(start_paused = true)]
    async fn w18_publishing_a_member_keeps_no_leadership_alive() {
        let store = ClusterStore::new(MemoryStore::new(), "service", "demo");
        let leases = Leases::new(store.clone(), "pg1".into());
        let ttl = Duration::from_secs(8);
        let soon = || Instant::now() + ttl;
        assert!(leases.acquire(ttl, soon()).await.unwrap());
        for second in 0..=9 {
            let data = MemberData {
                xlog_location: Some(primacy_model::Lsn(second)),
                ..MemberData::default()
            };
            leases.publish(data, ttl, soon()).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let cluster = store.read(soon()).await.unwrap();
        assert!(cluster.member("pg1").is_some());
        assert_eq!(cluster.leader, None);
        // A renewal of what has lapsed does not bring it back by itself.
        assert_eq!(leases.renew(ttl, soon()).await.unwrap(), Renewal::Lapsed);
    }
}
