//! Leases: what hangs on one lives as long as it, neither shorter nor longer.

use std::time::Duration;

use primacy_model::Session;
use tokio::time::{Instant, sleep};

use crate::conformance::{Fixture, done, put, put_leased, read, scratch, soon, value};
use crate::{Condition, Renewal, Store};

const POLL: Duration = Duration::from_millis(50);

/// Keys vanish with their lease and not before; renewing keeps them; a lapsed lease stays lapsed.
pub async fn leases(fixture: &dyn Fixture) {
    lapse(fixture).await;
    renewal(fixture).await;
    revocation(fixture).await;
    other_lease(fixture).await;
}

async fn grant(fixture: &dyn Fixture, store: &dyn Store) -> Session {
    store
        .grant_lease(fixture.ttl(), soon())
        .await
        .expect("a lease can be had")
}

/// One that no slow machine makes lapse.
pub(super) async fn grant_lasting(fixture: &dyn Fixture, store: &dyn Store) -> Session {
    store
        .grant_lease(fixture.ttl() + fixture.patience(), soon())
        .await
        .expect("a lease can be had")
}

async fn renew(store: &dyn Store, lease: &Session) -> Renewal {
    store
        .renew_lease(lease, soon())
        .await
        .expect("a renewal is answered")
}

/// The owner falls silent: its key goes, not early, and the owner learns of it.
async fn lapse(fixture: &dyn Fixture) {
    let (owner, other, key) = (fixture.client(0), fixture.client(1), scratch("lapse"));
    let lease = grant(fixture, &*owner).await;
    done(&*owner, put_leased(&key, "alive", &lease)).await;
    assert_eq!(read(&*other, &key).await[0].lease.as_ref(), Some(&lease));
    let begin = Instant::now();
    assert!(matches!(
        renew(&*owner, &lease).await,
        Renewal::Renewed { .. }
    ));
    while value(&*other, &key).await.is_some() {
        assert!(
            begin.elapsed() < fixture.ttl() + fixture.patience(),
            "the key outlives its lease"
        );
        sleep(POLL).await;
    }
    assert!(
        begin.elapsed() >= fixture.ttl(),
        "lapsed after {:?} already",
        begin.elapsed()
    );
    assert_eq!(renew(&*owner, &lease).await, Renewal::Lapsed);
    let error = owner
        .write(put_leased(&key, "again", &lease), soon())
        .await
        .unwrap_err();
    assert!(
        error.is_lease_lapsed(),
        "a put on a lapsed lease must say so, not: {error}"
    );
    assert_eq!(value(&*other, &key).await, None);
    owner
        .revoke_lease(&lease, soon())
        .await
        .expect("revoking what is gone is a success");
}

async fn renewal(fixture: &dyn Fixture) {
    let (store, key) = (fixture.client(0), scratch("renewal"));
    let lease = grant(fixture, &*store).await;
    done(&*store, put_leased(&key, "alive", &lease)).await;
    let begin = Instant::now();
    while begin.elapsed() < fixture.ttl() * 2 {
        sleep(fixture.ttl() / 4).await;
        assert!(matches!(
            renew(&*store, &lease).await,
            Renewal::Renewed { .. }
        ));
        assert!(
            value(&*fixture.client(1), &key).await.is_some(),
            "a renewed lease keeps its key"
        );
    }
    store
        .revoke_lease(&lease, soon())
        .await
        .expect("a lease can be revoked");
}

async fn revocation(fixture: &dyn Fixture) {
    let (store, base) = (fixture.client(0), scratch("revocation"));
    let lease = grant_lasting(fixture, &*store).await;
    let kept = grant_lasting(fixture, &*store).await;
    for key in ["a", "b"] {
        done(&*store, put_leased(&format!("{base}/{key}"), "x", &lease)).await;
    }
    done(&*store, put_leased(&format!("{base}/kept"), "x", &kept)).await;
    store
        .revoke_lease(&lease, soon())
        .await
        .expect("a lease can be revoked");
    let left: Vec<String> = read(&*store, &base)
        .await
        .into_iter()
        .map(|e| e.key)
        .collect();
    assert_eq!(
        left,
        [format!("{base}/kept")],
        "a lease takes its keys with it and no others"
    );
    assert_eq!(renew(&*store, &lease).await, Renewal::Lapsed);
    store
        .revoke_lease(&kept, soon())
        .await
        .expect("a lease can be revoked");
}

/// A put says on what the key hangs from now on: another lease, or none.
async fn other_lease(fixture: &dyn Fixture) {
    let (store, base) = (fixture.client(0), scratch("other"));
    let (moved, freed) = (format!("{base}/moved"), format!("{base}/freed"));
    let old = grant_lasting(fixture, &*store).await;
    let new = grant_lasting(fixture, &*store).await;
    for key in [&moved, &freed] {
        done(&*store, put_leased(key, "x", &old)).await;
    }
    done(&*store, put_leased(&moved, "x", &new)).await;
    done(&*store, put(&freed, "x", Condition::Always)).await;
    store
        .revoke_lease(&old, soon())
        .await
        .expect("a lease can be revoked");
    let entries = read(&*store, &base).await;
    assert_eq!(entries.len(), 2, "neither key hangs on the old lease");
    assert_eq!(
        (&entries[0].lease, &entries[1].lease),
        (&None, &Some(new.clone()))
    );
    store
        .revoke_lease(&new, soon())
        .await
        .expect("a lease can be revoked");
    assert_eq!(value(&*store, &moved).await, None);
    assert!(value(&*store, &freed).await.is_some());
}
