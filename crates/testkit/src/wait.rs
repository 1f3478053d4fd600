//! Waiting for a condition.

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::Instant;

/// How often a condition is looked at. Short enough not to add to what is measured, long enough not to load the
/// machine that the clusters run on.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until `probe` returns `Ok`, and returns its value. An `Err` of the probe means "not yet", and says what it
/// saw instead.
///
/// # Errors
/// `within` has passed: the error names what was waited for and what the probe saw last.
pub async fn wait_until<T, F, P>(what: &str, within: Duration, mut probe: F) -> Result<T>
where
    F: FnMut() -> P,
    P: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + within;
    let mut seen = anyhow!("nothing yet");
    loop {
        // A probe that hangs must not outlive the wait.
        match tokio::time::timeout_at(deadline, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => seen = error,
            Err(_) => return Err(anyhow!("waited {within:?} for {what}; last seen: {seen:#}")),
        }
        if Instant::now() + PAUSE >= deadline {
            return Err(anyhow!("waited {within:?} for {what}; last seen: {seen:#}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
