//! What an EC2 instance can learn of itself: the instance metadata service, by tokens (IMDSv2) where it has them.

use std::time::Duration;

use aws_credential_types::Credentials;
use primacy_net::{
    Bytes, ClientOptions, HeaderMap, HeaderName, HeaderValue, HttpAnswer, HttpClient, HttpError,
    Method, StatusCode,
};
use serde_json::Value;
use tokio::time::Instant;

/// The service answers from the same host, or is not there. A token that does not come in this time was lost on its way into a
/// container, since answers with one may make a single hop only.
const ANSWER_WITHIN: Duration = Duration::from_millis(2100);

const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
const TOKEN_TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");

/// Who this instance is.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) id: String,
    pub(super) region: String,
}

/// Why the service does not tell. Never has an answer's body, which may be a secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum MetadataError {
    #[error("AWS_EC2_METADATA_DISABLED is set")]
    Disabled,
    #[error("{0}")]
    Http(#[from] HttpError),
    #[error("/{path} is answered with status {status}")]
    Refused { path: String, status: StatusCode },
    #[error("/{path} is not as it should be: {problem}")]
    Unintelligible { path: String, problem: &'static str },
    #[error("AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not")]
    HalfOfThem,
}

/// The service of this instance.
pub(super) struct Metadata {
    client: HttpClient,
    /// Ends with a slash; none where the service must not be asked.
    base: Option<String>,
}

impl Metadata {
    /// As the environment has it.
    pub(super) fn of(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let is = |name, value: &str| {
            variable(name).is_some_and(|set: String| set.eq_ignore_ascii_case(value))
        };
        let disabled = is("AWS_EC2_METADATA_DISABLED", "true");
        let base = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| {
            let by_ipv6 = is("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ipv6");
            let host = if by_ipv6 {
                "[fd00:ec2::254]"
            } else {
                "169.254.169.254"
            };
            format!("http://{host}")
        });
        Metadata {
            client: HttpClient::new(ClientOptions::default()),
            base: (!disabled).then(|| format!("{}/", base.trim_end_matches('/'))),
        }
    }

    /// This instance.
    pub(super) async fn instance(&self) -> Result<Instance, MetadataError> {
        let path = "latest/dynamic/instance-identity/document";
        let token = self.token().await?;
        let document = Document::read(path, &self.get(path, token).await?)?;
        let region = document.text("region")?;
        // It becomes part of a host's name.
        if !region
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return Err(document.problem("region is none"));
        }
        Ok(Instance {
            id: document.text("instanceId")?,
            region,
        })
    }

    /// Those of the environment, else of the instance's role. They end some time: to be asked for anew before each use.
    pub(super) async fn credentials(
        &self,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Credentials, MetadataError> {
        if let Some(id) = variable("AWS_ACCESS_KEY_ID") {
            let secret = variable("AWS_SECRET_ACCESS_KEY").ok_or(MetadataError::HalfOfThem)?;
            let session = variable("AWS_SESSION_TOKEN");
            return Ok(Credentials::new(id, secret, session, None, "environment"));
        }
        let roles = "latest/meta-data/iam/security-credentials/";
        let token = self.token().await?;
        let role = self.get(roles, token.clone()).await?;
        // One per instance.
        let role = role.lines().next().unwrap_or_default();
        let path = format!("{roles}{role}");
        let document = Document::read(&path, &self.get(&path, token).await?)?;
        Ok(Credentials::new(
            document.text("AccessKeyId")?,
            document.text("SecretAccessKey")?,
            Some(document.text("Token")?),
            None,
            "instance",
        ))
    }

    /// What later questions are to be asked with; none where the service knows of no tokens, or keeps them from us.
    async fn token(&self) -> Result<Option<HeaderValue>, MetadataError> {
        let seconds = HeaderMap::from_iter([(TOKEN_TTL, HeaderValue::from_static("21600"))]);
        let answer = match self.ask(Method::PUT, "latest/api/token", seconds).await {
            Ok(answer) if answer.status == StatusCode::OK => answer,
            Err(MetadataError::Disabled) => return Err(MetadataError::Disabled),
            Ok(_) | Err(_) => return Ok(None),
        };
        let Ok(mut token) = HeaderValue::from_bytes(&answer.body) else {
            return Ok(None);
        };
        token.set_sensitive(true);
        Ok(Some(token))
    }

    async fn get(&self, path: &str, token: Option<HeaderValue>) -> Result<String, MetadataError> {
        let headers = token.into_iter().map(|token| (TOKEN, token)).collect();
        let answer = self.ask(Method::GET, path, headers).await?;
        if answer.status != StatusCode::OK {
            return Err(MetadataError::Refused {
                path: path.to_owned(),
                status: answer.status,
            });
        }
        let text = std::str::from_utf8(&answer.body).unwrap_or_default();
        if text.is_empty() {
            return Err(unintelligible(path, "it is no text"));
        }
        Ok(text.to_owned())
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
    ) -> Result<HttpAnswer, MetadataError> {
        let base = self.base.as_ref().ok_or(MetadataError::Disabled)?;
        let deadline = Instant::now() + ANSWER_WITHIN;
        let url = format!("{base}{path}");
        let asked = self
            .client
            .request(method, &url, headers, Bytes::new(), deadline);
        Ok(asked.await?)
    }
}

/// An answer in JSON.
struct Document<'a> {
    path: &'a str,
    fields: Value,
}

impl<'a> Document<'a> {
    fn read(path: &'a str, text: &str) -> Result<Self, MetadataError> {
        let fields =
            serde_json::from_str(text).map_err(|_| unintelligible(path, "it is not JSON"))?;
        Ok(Document { path, fields })
    }

    fn text(&self, field: &'static str) -> Result<String, MetadataError> {
        match self.fields.get(field) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
            _ => Err(self.problem(field)),
        }
    }

    fn problem(&self, problem: &'static str) -> MetadataError {
        unintelligible(self.path, problem)
    }
}

fn unintelligible(path: &str, problem: &'static str) -> MetadataError {
    MetadataError::Unintelligible {
        path: path.to_owned(),
        problem,
    }
}

/// What the service answers, spoiled; `make fuzz`.
#[cfg(test)]
mod fuzz {
    use super::*;

    #[test]
    #[ignore = "long: make fuzz"]
    fn answers_of_the_metadata_service() {
        let samples = [
            r#"{"instanceId": "i-1", "region": "eu-west-1", "accountId": "1"}"#,
            r#"{"AccessKeyId": "A", "SecretAccessKey": "s", "Token": "t", "Expiration": "2040-01-01T00:00:00Z"}"#,
        ];
        primacy_fuzz::text(&samples, |input| {
            let Ok(document) = Document::read("x", input) else {
                return false;
            };
            let fields = [
                "instanceId",
                "region",
                "AccessKeyId",
                "SecretAccessKey",
                "Token",
            ];
            fields
                .iter()
                .filter(|field| document.text(field).is_ok())
                .count()
                > 1
        });
    }
}
