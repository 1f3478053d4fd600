//! Documents that many clients ask for at once are made once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use primacy_net::Bytes;
use tokio::time::Instant;

use super::status::Status;
use crate::logging::QueueStatus;
use crate::published::Published;

/// Beside the snapshot a document tells of the time: whether the view and failsafe mode still count.
const FRESHNESS: Duration = Duration::from_millis(100);

/// The last document of a kind.
#[derive(Default)]
pub(super) struct Made(Mutex<Option<Document>>);

struct Document {
    published: Arc<Published>,
    log: QueueStatus,
    at: Instant,
    text: Bytes,
}

impl Made {
    /// The document of this snapshot and its own look at the server; `make` is called where the last one is not it.
    pub(super) fn get(
        &self,
        published: &Arc<Published>,
        log: QueueStatus,
        make: impl FnOnce(&Status<'_>) -> String,
    ) -> Bytes {
        let now = Instant::now();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.as_ref().filter(|last| {
            Arc::ptr_eq(&last.published, published)
                && last.log == log
                && now.saturating_duration_since(last.at) < FRESHNESS
        }) {
            return last.text.clone();
        }
        let status = Status::new(published, Some(&published.observation), log, now);
        let text = Bytes::from(make(&status));
        *last = Some(Document {
            published: Arc::clone(published),
            log,
            at: now,
            text: text.clone(),
        });
        text
    }
}
