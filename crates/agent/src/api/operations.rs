//! The other operations: reload, reinitialise, failsafe (`rest-api.md` §7.4, §8.6, §8.7).

use primacy_config::scalar::parse_bool;
use primacy_ha::FailsafeAnswer;
use primacy_model::{Role, State};
use primacy_net::{HeaderMap, RequestBody};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::answer::{Answer, ErrorPage};
use super::{Api, body};
use crate::citus::news;
use crate::failsafe;
use crate::request::Request;

impl Api {
    /// `POST /citus` and `/mpp` (§8): what a worker group's leader tells the coordinator's. Whoever is not that says OK.
    pub(super) async fn citus(&self, body: Map<String, Value>) -> Result<Answer, Answer> {
        if let Some(citus) = &self.citus
            && self.published().holds_lock(Instant::now())
        {
            let news = news(&body).map_err(|problem| Answer::text(400, problem))?;
            citus.hear(news).await;
        }
        Ok(Answer::text(200, "OK"))
    }

    pub(super) async fn reload(&self) -> Result<Answer, Answer> {
        self.send(Request::Reload).await?;
        Ok(Answer::text(202, "reload scheduled"))
    }

    /// §8.6. A field that is no boolean counts as false.
    pub(super) async fn reinitialize(&self, body: Map<String, Value>) -> Result<Answer, Answer> {
        let flag = |key: &str| body.get(key).and_then(parse_bool).unwrap_or(false);
        let (force, from_leader) = (flag("force"), flag("from_leader"));
        Ok(
            match self
                .ask(|reply| Request::Reinitialize {
                    force,
                    from_leader,
                    reply,
                })
                .await?
            {
                Ok(()) => Answer::text(200, "reinitialize started"),
                Err(text) => Answer::text(503, text),
            },
        )
    }

    /// §7.4, POST.
    pub(super) async fn post_failsafe(
        &self,
        headers: &HeaderMap,
        body: RequestBody,
    ) -> Result<Answer, Answer> {
        let published = self.published();
        if !published.global.failsafe_mode {
            return Err(Answer::Page(ErrorPage::BadGateway));
        }
        let body = body::required(headers, body).await?;
        let leads = || Answer::text(500, "Running as a leader");
        if published.state == State::Running && published.role == Role::Primary {
            return Err(leads());
        }
        let leader = failsafe::leader(&body)
            .ok_or_else(|| Answer::Dropped("name, conn_url or api_url is missing".into()))?;
        match self
            .ask(|reply| Request::Failsafe { leader, reply })
            .await?
        {
            FailsafeAnswer::Accepted(position) => {
                let accepted = Answer::text(200, failsafe::ACCEPTED);
                Ok(match position {
                    Some(position) => accepted.with_header(failsafe::LSN, position.0.to_string()),
                    None => accepted,
                })
            }
            FailsafeAnswer::Off => Err(Answer::Page(ErrorPage::BadGateway)),
            FailsafeAnswer::RunningAsLeader => Err(leads()),
            // The asking member takes anything but `Accepted` for a refusal.
            FailsafeAnswer::OtherLeader(name) => Err(Answer::text(
                500,
                format!("Another leader is known: {name}"),
            )),
        }
    }
}
