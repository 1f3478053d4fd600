//! What is only read: status, health, metrics, the cluster's documents.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use primacy_model::{Observation, cluster_document, json_line};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::answer::{Answer, ErrorPage, Headers};
use super::made::Made;
use super::route::Query;
use super::status::Status;
use super::{Api, health, metrics};
use crate::journal::JournalQuery;
use crate::published::Published;
use crate::request::Request;

/// How old an observation health checks and metrics are answered from. Load balancers ask every second or two, from
/// several places: one look at the server serves them all.
const HEALTH_FRESHNESS: Duration = Duration::from_secs(1);
/// The same for `/patroni` when no member asks: scripts compare positions with it, which they may have read from the
/// server a moment before.
const STATUS_FRESHNESS: Duration = Duration::from_millis(100);
/// How long a health check waits for a look at the server: load balancers give up after one to a few seconds,
/// and the lock part of the answer needs no look.
const HEALTH_PATIENCE: Duration = Duration::from_secs(1);
/// How long `/patroni` waits: racing members wait 2 s for the whole answer.
const STATUS_PATIENCE: Duration = Duration::from_millis(1500);
/// How old what is told of PostgreSQL is, at most; ours, ignored by everybody else.
const OBSERVED_AGO: &str = "X-Primacy-Observed-Ago-Ms";

/// How many entries of the journal are told when nobody says how many.
const JOURNAL_LIMIT: usize = 1000;

/// What this API is, for programs: the tests hold every answer to it.
const DESCRIPTION: &str = include_str!("openapi.json");

/// GET `/openapi.json`.
pub(super) fn description() -> Answer {
    Answer::Text {
        code: 200,
        text: DESCRIPTION.into(),
        content_type: "application/json",
        headers: Headers::new(),
    }
}

/// An observation that may be told of, and the snapshot that goes with it.
struct Sight {
    published: Arc<Published>,
    fresh: Option<Arc<Observation>>,
    /// Of the observation, or of the snapshot where there is none.
    age: Duration,
}

impl Sight {
    /// Whether it is the look that every reader of the snapshot has.
    fn is_last(&self) -> bool {
        let last = &self.published.observation;
        self.fresh
            .as_ref()
            .is_some_and(|look| Arc::ptr_eq(look, last))
    }

    /// Tells how old the sight is that the answer was made of.
    fn date(&self, answer: Answer) -> Answer {
        answer.with_header(OBSERVED_AGO, self.age.as_millis().to_string())
    }
}

impl Api {
    /// GET `/patroni`. For a member with a look that begins after the question: those that race for the lock rely on a
    /// position not being older than the lease that has just ended.
    pub(super) async fn status(&self, for_member: bool) -> Answer {
        let sight = match for_member {
            true => self.look(STATUS_PATIENCE).await,
            false => self.recent_look(STATUS_FRESHNESS, STATUS_PATIENCE).await,
        };
        self.tell_made(&self.status_made, &sight, "application/json", |status| {
            json_line(&status.to_json())
        })
    }

    /// A health check; `document` is false for HEAD and OPTIONS.
    pub(super) async fn health(&self, path: &str, query: &Query, document: bool) -> Answer {
        let sight = self.look_for_health().await;
        self.tell(&sight, |status| {
            let code = health::check(path, query, status);
            if document {
                Answer::json(code, status.to_json())
            } else {
                Answer::Status(code)
            }
        })
    }

    /// GET `/journal`: what was done and why, oldest first, the newest `limit` between `since` and `until` (RFC 3339).
    pub(super) fn journal(&self, query: &Query) -> Result<Answer, Answer> {
        let query = journal_query(query).map_err(|text| Answer::text(400, text))?;
        Ok(Answer::Text {
            code: 200,
            text: self.journal.to_json(query).into(),
            content_type: "application/json",
            headers: Headers::new(),
        })
    }

    /// GET `/metrics`.
    pub(super) async fn metrics(&self) -> Answer {
        let sight = self.look_for_health().await;
        self.tell_made(&self.metrics_made, &sight, "text/plain", metrics::text)
    }

    /// GET `/readiness`.
    pub(super) async fn readiness(&self, query: &Query) -> Answer {
        let published = self.published();
        let sight = if health::readiness_needs_status(&published, Instant::now()) {
            self.look_for_health().await
        } else {
            Sight {
                published,
                fresh: None,
                age: Duration::ZERO,
            }
        };
        self.tell(&sight, |status| match health::readiness(query, status) {
            Ok(()) => Answer::Status(200),
            Err(reason) => {
                tracing::debug!("not ready: {reason}");
                Answer::Status(503)
            }
        })
    }

    /// GET `/cluster`: a fresh read, always.
    pub(super) async fn cluster(&self) -> Result<Answer, Answer> {
        let cluster = self.read_cluster().await?;
        Ok(Answer::json(
            200,
            cluster_document(&cluster, &self.published().scope),
        ))
    }

    /// GET `/history`.
    pub(super) async fn history(&self) -> Result<Answer, Answer> {
        let published = self.published();
        let history = match published.view(Instant::now()) {
            Some(view) => view.history.clone(),
            None => self.read_cluster().await?.history,
        };
        let text = history.unwrap_or_default().to_json();
        Ok(Answer::json(
            200,
            serde_json::from_str::<Value>(&text).unwrap_or_default(),
        ))
    }

    /// GET `/config`.
    pub(super) async fn config(&self) -> Result<Answer, Answer> {
        let published = self.published();
        let config = match published.view(Instant::now()) {
            Some(view) => view.config.clone(),
            None => self.read_cluster().await?.config,
        };
        match config {
            Some(config) => Ok(Answer::json(200, config.value)),
            None => Err(Answer::Page(ErrorPage::BadGateway)),
        }
    }

    /// GET `/failsafe`.
    pub(super) fn failsafe(&self) -> Result<Answer, Answer> {
        match &self.published().failsafe_map {
            Some(map @ Value::Object(_)) => Ok(Answer::json(200, map.clone())),
            _ => Err(Answer::Page(ErrorPage::BadGateway)),
        }
    }

    fn tell(&self, sight: &Sight, answer: impl FnOnce(&Status<'_>) -> Answer) -> Answer {
        let status = Status::new(
            &sight.published,
            sight.fresh.as_deref(),
            self.log.status(),
            Instant::now(),
        );
        sight.date(answer(&status))
    }

    /// As [`Api::tell`], from what was made for another request where it is of the same look.
    fn tell_made(
        &self,
        made: &Made,
        sight: &Sight,
        content_type: &'static str,
        make: impl FnOnce(&Status<'_>) -> String,
    ) -> Answer {
        let answer = |text| Answer::Made {
            text,
            content_type,
            headers: Headers::new(),
        };
        if sight.is_last() {
            sight.date(answer(made.get(&sight.published, self.log.status(), make)))
        } else {
            self.tell(sight, |status| answer(make(status).into()))
        }
    }

    async fn look_for_health(&self) -> Sight {
        self.recent_look(HEALTH_FRESHNESS, HEALTH_PATIENCE).await
    }

    /// The last look, where it is younger than this. In the second half of that time the next one is asked for, so that
    /// who asks often never waits for one.
    async fn recent_look(&self, freshness: Duration, patience: Duration) -> Sight {
        let published = self.published();
        let age = published.observed_at.elapsed();
        if age >= freshness {
            return self.look(patience).await;
        }
        if age >= freshness / 2 {
            self.refresh(published.observed_at);
        }
        let fresh = Some(Arc::clone(&published.observation));
        Sight {
            published,
            fresh,
            age,
        }
    }

    /// Asks for the look that comes after the one of then, once.
    fn refresh(&self, observed_at: Instant) {
        let mut refreshed = self
            .refreshed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *refreshed != Some(observed_at) {
            let (reply, _) = oneshot::channel();
            // Where the machine takes no requests the next one waits for it.
            let _ = self.requests.try_send(Request::Observe { reply });
            *refreshed = Some(observed_at);
        }
    }

    /// Asks for a look at the server. Where none comes in time, the snapshot alone is told of, without
    /// anything that an old look would say of PostgreSQL.
    async fn look(&self, patience: Duration) -> Sight {
        let asked = Instant::now();
        let observed = tokio::time::timeout(patience, async {
            let (reply, answer) = oneshot::channel();
            self.requests.send(Request::Observe { reply }).await.ok()?;
            answer.await.ok()
        });
        let fresh = observed.await.ok().flatten();
        let published = self.published();
        let age = match fresh {
            Some(_) => asked.elapsed(),
            None => published.observed_at.elapsed(),
        };
        Sight {
            published,
            fresh,
            age,
        }
    }
}

fn journal_query(query: &Query) -> Result<JournalQuery, String> {
    let time = |name: &str| match query.get(name) {
        None => Ok(None),
        Some(text) => text.parse::<Timestamp>().map(Some).map_err(|_| {
            format!("{name} is {text:?}: write a time as 2026-11-21T02:13:05Z, with its offset")
        }),
    };
    let limit = match query.get("limit") {
        None => JOURNAL_LIMIT,
        Some(text) => text
            .parse()
            .map_err(|_| format!("limit is {text:?}: write a number"))?,
    };
    Ok(JournalQuery {
        since: time("since")?,
        until: time("until")?,
        limit,
    })
}
