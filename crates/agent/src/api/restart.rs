//! POST and DELETE `/restart` (`rest-api.md` §8.4, §8.5).

use std::time::Duration;

use jiff::Timestamp;
use primacy_config::scalar::{parse_int_in, python_str};
use primacy_model::ScheduledRestart;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::Api;
use super::answer::Answer;
use super::time::Schedule;
use crate::request::{NotScheduled, Request, RestartAnswer, RestartFilters};

/// A restart that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wish {
    /// When; `None` is at once.
    pub(crate) schedule: Option<String>,
    pub(crate) filters: RestartFilters,
    pub(crate) timeout: Option<Duration>,
    /// The filters as they are published.
    pub(crate) given: Map<String, Value>,
}

impl Wish {
    /// Checks the fields in the order in which they stand in the body.
    pub(crate) fn new(
        body: &Map<String, Value>,
        paused: bool,
        now: Timestamp,
    ) -> Result<Self, Answer> {
        let refuse = |text: String| Err(Answer::text(400, text));
        if paused && body.contains_key("schedule") {
            return Err(Answer::text(
                500,
                "Can't schedule restart in the paused state",
            ));
        }
        let mut wish = Wish {
            schedule: None,
            filters: RestartFilters::default(),
            timeout: None,
            given: Map::new(),
        };
        for (key, value) in body {
            let mut given = value.clone();
            match key.as_str() {
                "schedule" => {
                    wish.schedule = Some(Schedule::parse(value, "restart", now)?.to_string());
                    continue;
                }
                "role" => match value.as_str() {
                    Some(role @ ("primary" | "standby_leader" | "replica")) => {
                        wish.filters.role = Some(role.to_owned());
                    }
                    _ => {
                        return refuse(
                            "PostgreSQL role should be either primary, standby_leader, or replica"
                                .into(),
                        );
                    }
                },
                "postgres_version" => {
                    let Some(text) = value.as_str() else {
                        let text =
                            format!("postgres_version is {}, not a string", python_str(value));
                        return Err(Answer::Dropped(text));
                    };
                    match version(text) {
                        Ok(number) => wish.filters.below_version = Some(number),
                        Err(text) => return refuse(text),
                    }
                }
                "timeout" => match parse_int_in(value, Some("s"))
                    .and_then(|s| u64::try_from(s).ok())
                {
                    Some(seconds @ 1..) => {
                        wish.timeout = Some(Duration::from_secs(seconds));
                        given = json!(seconds);
                    }
                    _ => return refuse("Timeout should be a positive number of seconds".into()),
                },
                "restart_pending" => wish.filters.pending = true,
                _ => return refuse(format!("Unknown filter for the scheduled restart: {key}")),
            }
            wish.given.insert(key.clone(), given);
        }
        Ok(wish)
    }
}

/// `15.4` is 150004, `9.6.3` is 90603.
fn version(text: &str) -> Result<u32, String> {
    let parts: Option<Vec<u32>> = text
        .split('.')
        .map(|part| part.trim().parse().ok())
        .collect();
    let number = |major: u32, minor: u32, patch: u32| {
        major
            .checked_mul(10_000)?
            .checked_add(minor.checked_mul(100)?)?
            .checked_add(patch)
    };
    let number = match parts.as_deref() {
        None => return Err(format!("Invalid PostgreSQL version: {text}")),
        Some(&[major, minor]) if major >= 10 => number(major, 0, minor),
        Some(&[major, minor, patch]) => number(major, minor, patch),
        Some(_) => None,
    };
    number.ok_or_else(|| {
        format!("Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: {text}")
    })
}

impl Api {
    /// §8.4. How long an immediate restart may take is the machine's business: it answers in the end, or it
    /// is gone and with it the channel.
    pub(super) async fn restart(&self, body: Map<String, Value>) -> Result<Answer, Answer> {
        let wish = Wish::new(&body, self.published().global.pause, Timestamp::now())?;
        let Some(schedule) = wish.schedule else {
            let (reply, answer) = oneshot::channel();
            let request = Request::Restart {
                filters: wish.filters,
                timeout: wish.timeout,
                reply,
            };
            self.send(request).await?;
            return Ok(match answer.await {
                Ok(answer) => restart_answer(answer),
                Err(_) => Answer::text(400, "restart failed"),
            });
        };
        let restart = ScheduledRestart {
            schedule,
            postmaster_start_time: None,
            filters: wish.given,
        };
        match self
            .ask(|reply| Request::ScheduleRestart { restart, reply })
            .await?
        {
            Ok(()) => Ok(Answer::text(202, "Restart scheduled")),
            Err(NotScheduled::Already) => {
                Err(Answer::text(409, "Another restart is already scheduled"))
            }
            Err(NotScheduled::NoAnswer) => {
                Err(Answer::Dropped("PostgreSQL does not answer".into()))
            }
        }
    }

    /// §8.5.
    pub(super) async fn delete_restart(&self) -> Result<Answer, Answer> {
        Ok(
            match self
                .ask(|reply| Request::DeleteScheduledRestart { reply })
                .await?
            {
                true => Answer::text(200, "scheduled restart deleted"),
                false => Answer::text(404, "no restarts are scheduled"),
            },
        )
    }
}

pub(super) fn restart_answer(answer: RestartAnswer) -> Answer {
    match answer {
        RestartAnswer::Restarted => Answer::text(200, "restarted successfully"),
        RestartAnswer::ConditionsNotMet => {
            Answer::text(503, "restart conditions are not satisfied")
        }
        RestartAnswer::Busy(action) => Answer::text(503, format!("{action} already in progress")),
        RestartAnswer::StillStarting => Answer::text(503, "postgres is still starting"),
        RestartAnswer::Failed => Answer::text(503, "restart failed"),
    }
}
