//! One call: to whom it goes, whether it may be tried again, and what is known when it fails.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use primacy_net::{
    Bytes, HeaderMap, HeaderValue, HttpClient, HttpStream, Method, StatusCode, header,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::KIND;
use super::endpoints::{Endpoints, Freshness, share};
use super::wire::{self, Meaning, ServerError};
use crate::{Credentials, StoreError};

/// The pause after everybody has been tried in vain; doubles up to a second, and a random part is added
/// (`dcs.md` §5.2).
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const JITTER_MILLIS: u64 = 800;

/// For asking one endpoint who the members are.
const LISTING: Duration = Duration::from_secs(3);

/// Asks etcd to refuse at once, with nothing proposed, when it has no leader.
const NEEDS_LEADER: &str = "grpc-metadata-hasleader";

pub(super) struct Gateway {
    pub(super) http: HttpClient,
    pub(super) endpoints: Endpoints,
    session: Mutex<Session>,
}

/// What has been found out about the cluster, good for all its members.
#[derive(Clone, Default)]
struct Session {
    /// `/v3`, `/v3beta` or `/v3alpha`.
    prefix: Option<&'static str>,
    credentials: Option<Credentials>,
    token: Option<HeaderValue>,
    no_authentication: bool,
}

/// Whether a request may be sent again when its first outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It does no harm.
    Freely,
    /// It could be applied twice.
    Never,
}

/// Why one endpoint gave no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing was done, and another endpoint may do better.
    NotDone(String),
    /// It may have been done.
    MaybeDone(String),
    /// Nothing was done; log in anew.
    NotAuthenticated(String),
    /// Nothing was done, and it won't be elsewhere.
    Refused { reason: String, lease_lapsed: bool },
}

impl Gateway {
    pub(super) fn new(
        http: HttpClient,
        endpoints: Endpoints,
        credentials: Option<Credentials>,
    ) -> Self {
        Gateway {
            http,
            endpoints,
            session: Mutex::new(Session {
                credentials,
                ..Session::default()
            }),
        }
    }

    /// Requests from now on are made as this user, whom they log in first.
    pub(super) fn authenticate_as(&self, credentials: Option<Credentials>) {
        let mut session = self.session();
        if session.credentials != credentials {
            session.credentials = credentials;
            session.token = None;
            session.no_authentication = false;
        }
    }

    /// Asks one member after the other until one answers or the deadline is there.
    pub(super) async fn call(
        self: &Arc<Self>,
        path: &str,
        body: &Value,
        repeat: Repeat,
        deadline: Instant,
    ) -> Result<Value, StoreError> {
        let mut pause = FIRST_PAUSE;
        let mut reason = String::from("the deadline has passed");
        let mut logged_in = false;
        let mut order = self.endpoints.in_order();
        if order.is_empty() {
            match self.discover(deadline).await {
                Ok(()) => order = self.endpoints.in_order(),
                Err(why) => reason = why,
            }
        }
        self.list_members(false);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (count, each) = share(left, order.len());
            for endpoint in order.iter().take(count) {
                let now = Instant::now();
                if now >= deadline {
                    break;
                }
                let limit = deadline.min(now + each);
                let mut answer = self.ask(endpoint, path, body, repeat, limit).await;
                if matches!(answer, Err(Failure::NotAuthenticated(_))) && !logged_in {
                    logged_in = true;
                    self.forget_login();
                    answer = self.ask(endpoint, path, body, repeat, limit).await;
                }
                match answer {
                    Ok(answer) => {
                        self.endpoints.prefer(endpoint);
                        return Ok(answer);
                    }
                    Err(Failure::Refused {
                        reason,
                        lease_lapsed,
                    }) => {
                        return Err(StoreError::Refused {
                            store: KIND,
                            reason,
                            lease_lapsed,
                        });
                    }
                    Err(Failure::NotAuthenticated(reason)) => {
                        let lease_lapsed = false;
                        return Err(StoreError::Refused {
                            store: KIND,
                            reason,
                            lease_lapsed,
                        });
                    }
                    Err(Failure::MaybeDone(why)) if repeat == Repeat::Never => {
                        self.endpoints.avoid(endpoint);
                        return Err(StoreError::Unknown {
                            store: KIND,
                            reason: why,
                        });
                    }
                    Err(Failure::NotDone(why) | Failure::MaybeDone(why)) => {
                        tracing::debug!(%endpoint, path, reason = %why, "etcd did not answer");
                        self.endpoints.avoid(endpoint);
                        reason = why;
                    }
                }
            }
            let delay = pause + Duration::from_millis(rand::random_range(0..JITTER_MILLIS));
            if Instant::now() + delay >= deadline {
                return Err(StoreError::Unavailable {
                    store: KIND,
                    reason,
                });
            }
            self.list_members(true);
            sleep(delay).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            order = self.endpoints.all();
        }
    }

    /// Asks one endpoint once.
    async fn ask(
        &self,
        endpoint: &str,
        path: &str,
        body: &Value,
        repeat: Repeat,
        limit: Instant,
    ) -> Result<Value, Failure> {
        let prefix = self.prefix(endpoint, limit).await?;
        let token = self.token(endpoint, prefix, limit).await?;
        let url = format!("{endpoint}{prefix}{path}");
        let answer = self.post(&url, token, body, limit).await?;
        let answer = match answer.get("result") {
            Some(result) => result.clone(),
            None => answer,
        };
        // A stale member may give a stale answer. What it says to have written is written all the same.
        if self.endpoints.judge(wire::header(&answer)) == Freshness::Stale {
            if repeat == Repeat::Freely {
                let reason = format!("{endpoint} has missed an election");
                return Err(Failure::NotDone(reason));
            }
            self.endpoints.avoid(endpoint);
        }
        Ok(answer)
    }

    async fn post(
        &self,
        url: &str,
        token: Option<HeaderValue>,
        body: &Value,
        limit: Instant,
    ) -> Result<Value, Failure> {
        let body = Bytes::from(body.to_string());
        let sent = self
            .http
            .request(Method::POST, url, headers(token), body, limit)
            .await;
        let answer = sent.map_err(|error| match error.was_sent() {
            true => Failure::MaybeDone(error.to_string()),
            false => Failure::NotDone(error.to_string()),
        })?;
        let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
        if let Some(error) = body.as_ref().and_then(ServerError::from_answer) {
            return Err(self.failure(url, &error));
        }
        match (answer.status, body) {
            (StatusCode::OK, Some(body)) => Ok(body),
            (StatusCode::NOT_FOUND, _) => {
                self.session().prefix = None;
                Err(Failure::NotDone(format!(
                    "{url} does not exist: etcd's gRPC gateway is switched off, or this is not etcd"
                )))
            }
            (status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN), _) => {
                let reason = format!("{url} answers {status}");
                Err(Failure::Refused {
                    reason,
                    lease_lapsed: false,
                })
            }
            (status, _) => Err(Failure::MaybeDone(format!("{url} answers {status}"))),
        }
    }

    fn failure(&self, url: &str, error: &ServerError) -> Failure {
        let reason = format!("{url}: {}", error.message);
        match error.meaning() {
            Meaning::NotDone => Failure::NotDone(reason),
            Meaning::MaybeDone => Failure::MaybeDone(reason),
            Meaning::NotAuthenticated if self.session().credentials.is_some() => {
                Failure::NotAuthenticated(reason)
            }
            meaning => Failure::Refused {
                reason,
                lease_lapsed: meaning == Meaning::NoLease,
            },
        }
    }

    /// Where the gateway lives in this release (`dcs.md` §7, Transport).
    async fn prefix(&self, endpoint: &str, limit: Instant) -> Result<&'static str, Failure> {
        if let Some(prefix) = self.session().prefix {
            return Ok(prefix);
        }
        let not_done = |reason: String| Failure::NotDone(reason);
        let url = format!("{endpoint}/version");
        let asked = self
            .http
            .request(Method::GET, &url, HeaderMap::new(), Bytes::new(), limit);
        let answer = asked.await.map_err(|error| not_done(error.to_string()))?;
        let versions: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let version = [&versions["etcdcluster"], &versions["etcdserver"]];
        let version = version
            .iter()
            .find_map(|version| parse_version(version.as_str()?));
        let version = version.ok_or_else(|| not_done(format!("{url} does not tell a version")))?;
        let prefix = match version {
            (..3, _) => return Err(not_done(format!("{endpoint} is older than etcd 3.0"))),
            (3, ..3) => "/v3alpha",
            (3, 3) => "/v3beta",
            _ => "/v3",
        };
        self.session().prefix = Some(prefix);
        Ok(prefix)
    }

    /// Logs in unless that has been done, or is not wanted.
    async fn token(
        &self,
        endpoint: &str,
        prefix: &str,
        limit: Instant,
    ) -> Result<Option<HeaderValue>, Failure> {
        let session = self.session().clone();
        let Some(credentials) = session.credentials else {
            return Ok(None);
        };
        if session.token.is_some() || session.no_authentication {
            return Ok(session.token);
        }
        let url = format!("{endpoint}{prefix}/auth/authenticate");
        let login = json!({"name": credentials.username, "password": credentials.password});
        let body = Bytes::from(login.to_string());
        let asked = self
            .http
            .request(Method::POST, &url, headers(None), body, limit);
        // To log in changes nothing that matters here: whatever fails, nothing was done.
        let answer = asked
            .await
            .map_err(|error| Failure::NotDone(error.to_string()))?;
        let answer: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if let Some(error) = ServerError::from_answer(&answer) {
            let reason = format!("{url}: {}", error.message);
            return match error.meaning() {
                Meaning::NoAuthentication => {
                    self.session().no_authentication = true;
                    Ok(None)
                }
                Meaning::NotDone | Meaning::MaybeDone => Err(Failure::NotDone(reason)),
                _ => Err(Failure::Refused {
                    reason,
                    lease_lapsed: false,
                }),
            };
        }
        let token = answer["token"]
            .as_str()
            .and_then(|token| HeaderValue::try_from(token).ok());
        let Some(mut token) = token else {
            return Err(Failure::NotDone(format!("{url} gives no token")));
        };
        token.set_sensitive(true);
        let mut session = self.session();
        // Of somebody else, if the credentials changed meanwhile.
        if session.credentials.as_ref() == Some(&credentials) {
            session.token = Some(token.clone());
        }
        Ok(Some(token))
    }

    /// Opens a stream at one endpoint.
    pub(super) async fn stream(
        &self,
        endpoint: &str,
        path: &str,
        body: &Value,
        limit: Instant,
    ) -> Result<HttpStream, Failure> {
        let prefix = self.prefix(endpoint, limit).await?;
        let token = self.token(endpoint, prefix, limit).await?;
        let url = format!("{endpoint}{prefix}{path}");
        let body = Bytes::from(body.to_string());
        let opened = self
            .http
            .stream(Method::POST, &url, headers(token), body, limit)
            .await;
        let stream = opened.map_err(|error| Failure::NotDone(error.to_string()))?;
        if stream.status != StatusCode::OK {
            self.forget_login();
            return Err(Failure::NotDone(format!("{url} answers {}", stream.status)));
        }
        Ok(stream)
    }

    /// What was found out about logging in may be too old: the token, or that none is needed.
    pub(super) fn forget_login(&self) {
        let mut session = self.session();
        session.token = None;
        session.no_authentication = false;
    }

    /// How leases are revoked was moved in etcd 3.4.
    pub(super) fn revoke_path(&self) -> &'static str {
        match self.session().prefix {
            Some("/v3alpha" | "/v3beta") => "/kv/lease/revoke",
            _ => "/lease/revoke",
        }
    }

    /// Has the list of members brought up to date in the background, if it is time for that.
    fn list_members(self: &Arc<Self>, nobody_answers: bool) {
        if !self.endpoints.claim_listing(nobody_answers) {
            return;
        }
        let gateway = Arc::clone(self);
        tokio::spawn(async move {
            let mut members = None;
            if nobody_answers {
                // They may have moved.
                let _ = gateway.discover(Instant::now() + LISTING).await;
            }
            for endpoint in gateway.endpoints.all() {
                let limit = Instant::now() + LISTING;
                let path = "/cluster/member/list";
                let answer = gateway
                    .ask(&endpoint, path, &json!({}), Repeat::Freely, limit)
                    .await;
                if let Ok(answer) = answer {
                    members = Some(client_urls(&answer["members"]));
                    break;
                }
            }
            gateway.endpoints.listed(members);
        });
    }

    /// Has the endpoints looked up, where they are to be looked up.
    ///
    /// # Errors
    /// Why there are none.
    async fn discover(&self, deadline: Instant) -> Result<(), String> {
        let Some(discovery) = &self.endpoints.discovery else {
            return Ok(());
        };
        let (found, why) = match discovery.endpoints(&self.http, deadline).await {
            Ok(found) => (found, String::new()),
            Err(why) => (Vec::new(), why),
        };
        match self.endpoints.discovered(found) {
            true => Ok(()),
            false => Err(why),
        }
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn headers(token: Option<HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NEEDS_LEADER, HeaderValue::from_static("true"));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    if let Some(token) = token {
        headers.insert(header::AUTHORIZATION, token);
    }
    headers
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The addresses of the members that have been started; learners serve no clients.
pub(super) fn client_urls(members: &Value) -> Vec<String> {
    let members = members.as_array().into_iter().flatten();
    members
        .filter(|member| member["isLearner"] != json!(true))
        .flat_map(|member| member["clientURLs"].as_array().into_iter().flatten())
        .filter_map(|url| Some(url.as_str()?.trim_end_matches('/').to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_listed_by_their_client_urls() {
        let answer = json!({"members": [
            {"name": "a", "clientURLs": ["http://10.0.0.1:2379/"]},
            {"name": "b", "clientURLs": ["http://10.0.0.2:2379", "http://[::1]:2379"]},
            {"name": "learner", "isLearner": true, "clientURLs": ["http://10.0.0.3:2379"]},
            {"name": "not started"},
        ]});
        let urls = [
            "http://10.0.0.1:2379",
            "http://10.0.0.2:2379",
            "http://[::1]:2379",
        ];
        assert_eq!(client_urls(&answer["members"]), urls);
    }

    #[test]
    fn versions() {
        assert_eq!(parse_version("3.4.0"), Some((3, 4)));
        assert_eq!(parse_version("3.6.0-rc.1"), Some((3, 6)));
        assert_eq!(parse_version("not_decided"), None);
    }
}
