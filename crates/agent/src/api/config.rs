//! PATCH and PUT `/config` (`rest-api.md` §7.3).

use std::time::Duration;

use primacy_config::scalar::{patch, same};
use primacy_dcs::{Expected, Outcome};
use primacy_model::Version;
use serde_json::{Map, Value};

use super::Api;
use super::answer::{Answer, ErrorPage};
use crate::request::Request;

/// How long the answer to a write waits for the loop to have read what was written, so that a GET that
/// follows shows it (A7). The write has happened; past this the answer goes out anyway.
const READ_YOUR_WRITES: Duration = Duration::from_secs(1);

impl Api {
    /// Merges the body into the stored configuration.
    pub(super) async fn patch_config(&self, changes: Map<String, Value>) -> Result<Answer, Answer> {
        let Some(stored) = self.read_cluster().await?.config else {
            return Err(Answer::Page(ErrorPage::Unavailable));
        };
        let mut config = stored.value;
        if patch(&mut config, &changes) {
            self.warn_of_unusable_values(&config);
            let expected = Expected::Version(stored.version);
            match self
                .store
                .write_config(&config, expected, self.store_deadline())
                .await
            {
                Ok(Outcome::Done(version)) => self.wait_until_read(version).await,
                Ok(Outcome::ConditionFailed) => return Err(Answer::Page(ErrorPage::Conflict)),
                Err(error) => {
                    return Err(Answer::Dropped(format!(
                        "cannot write the configuration: {error}"
                    )));
                }
            }
        } else {
            self.send(Request::WakeUp).await?;
        }
        Ok(Answer::json(200, config))
    }

    /// Replaces the stored configuration.
    pub(super) async fn put_config(&self, config: Map<String, Value>) -> Result<Answer, Answer> {
        let stored = self
            .read_cluster()
            .await?
            .config
            .map(|stored| Value::Object(stored.value));
        let config = Value::Object(config);
        if let Value::Object(object) = &config
            && stored.is_none_or(|stored| !same(&config, &stored))
        {
            self.warn_of_unusable_values(object);
            match self
                .store
                .write_config(object, Expected::Anything, self.store_deadline())
                .await
            {
                Ok(Outcome::Done(version)) => self.wait_until_read(version).await,
                Ok(Outcome::ConditionFailed) => return Err(Answer::Page(ErrorPage::BadGateway)),
                Err(error) => {
                    tracing::error!("cannot write the configuration: {error}");
                    return Err(Answer::Page(ErrorPage::BadGateway));
                }
            }
        }
        Ok(Answer::json(200, config))
    }

    /// Whatever is written is stored (A10), but somebody should know that it does not mean anything.
    fn warn_of_unusable_values(&self, config: &Map<String, Value>) {
        let (_, warnings) = self.published().global.followed_by(config, self.limits);
        for warning in warnings {
            tracing::warn!("Configuration written through the REST API: {warning}");
        }
    }

    async fn wait_until_read(&self, version: Version) {
        if self.send(Request::WakeUp).await.is_err() {
            return;
        }
        let mut published = self.published.clone();
        let seen = published.wait_for(|published| {
            let config = published
                .view
                .as_ref()
                .and_then(|view| view.config.as_ref());
            config.is_some_and(|config| config.version == version)
        });
        let _ = tokio::time::timeout(READ_YOUR_WRITES, seen).await;
    }
}
