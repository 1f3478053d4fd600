//! The tests that every store must pass, whatever it is made of. They panic where it breaks the contract
//! of [`Store`].
//!
//! A store's own tests make a [`Fixture`] and call the suites that it can take part in:
//! [`writes`], [`reads`], [`leases`] and [`watches`] need nothing but clients; [`lost_answers`],
//! [`frozen_member`], [`leader_loss`] and [`quorum_loss`] need the hooks that make things go wrong. A suite
//! works below a prefix of its own, so that several can run on one store, but one at a time.

mod faults;
mod leases;
mod watches;
mod writes;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use primacy_model::{Session, Version};
use tokio::time::{Instant, sleep};

use crate::{Change, Condition, Entry, Outcome, Store, StoreError, Write};

pub use faults::{frozen_member, leader_loss, lost_answers, quorum_loss};
pub use leases::leases;
pub use watches::watches;
pub use writes::{reads, writes};

/// One store with several clients, and what can be done to it.
///
/// The hooks have no effect on the clients themselves, only on what answers them. Each returns once its
/// effect is there. Members are numbered as the fixture likes.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The store as seen by one of three clients, `0..3`: always the same client for the same number.
    fn client(&self, number: usize) -> Arc<dyn Store>;

    /// A short time to live that the store grants as it is, and long enough for some requests on a busy machine.
    fn ttl(&self) -> Duration {
        Duration::from_secs(4)
    }

    /// How long a key may outlive its lease, and how long the store may take to work again after a fault.
    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }

    /// From now on requests of this client arrive and their answers do not, or all is well again.
    async fn lose_answers(&self, _client: usize, _lose: bool) {
        panic!("this fixture cannot lose answers")
    }

    /// Stops a member without ending it: it holds its connections and says nothing.
    async fn freeze_member(&self, _member: usize) {
        panic!("this fixture cannot freeze a member")
    }

    /// Lets a frozen member go on.
    async fn thaw_member(&self, _member: usize) {
        panic!("this fixture cannot thaw a member")
    }

    /// Ends the member that leads the store, without warning. The others can go on.
    async fn kill_leader(&self) {
        panic!("this fixture cannot kill the leader")
    }

    /// Takes so many members away that the rest cannot decide anything. At least one stays, and every
    /// client may ask it.
    async fn lose_quorum(&self) {
        panic!("this fixture cannot lose its quorum")
    }

    /// Undoes [`Fixture::kill_leader`] and [`Fixture::lose_quorum`]: all members run. Need not wait until
    /// the store works again.
    async fn restore(&self) {
        panic!("this fixture cannot be restored")
    }
}

/// A call must end within its deadline, but for what it takes to be scheduled on a busy machine.
const SCHEDULING: Duration = Duration::from_secs(5);

/// The deadline of a call that is expected to succeed.
const AMPLE: Duration = Duration::from_secs(15);

fn soon() -> Instant {
    Instant::now() + AMPLE
}

/// A prefix that nobody else uses.
fn scratch(suite: &str) -> String {
    format!("/conformance/{suite}-{:08x}", rand::random::<u32>())
}

fn put(key: &str, value: &str, condition: Condition) -> Write {
    let change = Change::Put {
        value: value.into(),
        lease: None,
    };
    Write {
        key: key.into(),
        change,
        condition,
    }
}

fn put_leased(key: &str, value: &str, lease: &Session) -> Write {
    let change = Change::Put {
        value: value.into(),
        lease: Some(lease.clone()),
    };
    Write {
        key: key.into(),
        change,
        condition: Condition::Always,
    }
}

fn delete(key: &str, condition: Condition) -> Write {
    Write {
        key: key.into(),
        change: Change::Delete,
        condition,
    }
}

/// Writes, and must not fail.
async fn write(store: &dyn Store, write: Write) -> Outcome {
    let what = format!("{write:?}");
    store
        .write(write, soon())
        .await
        .unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// Writes, and must be done.
async fn done(store: &dyn Store, what: Write) -> Version {
    let text = format!("{what:?}");
    match write(store, what).await {
        Outcome::Done(version) => version,
        Outcome::ConditionFailed => panic!("{text}: the condition should have held"),
    }
}

/// Reads, and must not fail.
async fn read(store: &dyn Store, prefix: &str) -> Vec<Entry> {
    match store.read(prefix, soon()).await {
        Ok(snapshot) => snapshot.entries,
        Err(error) => panic!("cannot read {prefix}: {error}"),
    }
}

async fn value(store: &dyn Store, key: &str) -> Option<String> {
    let entries = read(store, key).await;
    let entry = entries.into_iter().find(|entry| entry.key == key)?;
    Some(String::from_utf8(entry.value).expect("the suite writes text"))
}

/// Makes a call with a deadline, and sees that the deadline is kept.
async fn within<T, F: Future<Output = Result<T, StoreError>>>(
    time: Duration,
    what: &str,
    call: impl FnOnce(Instant) -> F,
) -> Result<T, StoreError> {
    let begin = Instant::now();
    let answer = call(begin + time).await;
    let took = begin.elapsed();
    assert!(
        took < time + SCHEDULING,
        "{what} had {time:?} and took {took:?}"
    );
    answer
}

/// Waits for the store to work again: tries until a write is done.
async fn until_writable(fixture: &dyn Fixture, store: &dyn Store, key: &str) {
    let limit = Instant::now() + fixture.patience();
    loop {
        let attempt = store.write(
            put(key, "works", Condition::Always),
            Instant::now() + AMPLE / 5,
        );
        match attempt.await {
            Ok(_) => return,
            Err(error) if Instant::now() > limit => panic!("the store does not recover: {error}"),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}
