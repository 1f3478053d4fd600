//! What the `restapi` section says of answers and callers (`rest-api.md` §1.6, §1.8).

use primacy_config::local::{RestApi, ServerTokens};
use primacy_model::PATRONI_VERSION;
use primacy_net::{HeaderName, HeaderValue, header};

use super::access::Access;

/// The settings in force; a reload exchanges them as a whole.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) access: Access,
    /// The `Server` header.
    pub(crate) server: Option<HeaderValue>,
    /// Added to answers of shapes J and T, in the order configured.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Settings {
    /// Takes the section; resolves the host names of the allowlist.
    pub(crate) async fn new(section: &RestApi) -> Self {
        Settings {
            access: Access::new(section).await,
            server: HeaderValue::from_str(&server_token(section.server_tokens)).ok(),
            headers: headers(section),
        }
    }
}

/// Where an answer ends; a second opinion on it would break it.
const FRAMING: [HeaderName; 2] = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

fn server_token(tokens: ServerTokens) -> String {
    match tokens {
        ServerTokens::Minimal => format!("Patroni/{PATRONI_VERSION}"),
        ServerTokens::ProductOnly => "Patroni".into(),
        ServerTokens::Original => concat!("Primacy/", env!("CARGO_PKG_VERSION")).into(),
    }
}

fn headers(section: &RestApi) -> Vec<(HeaderName, HeaderValue)> {
    let mut merged = section.http_extra_headers.clone();
    if section.certfile.is_some() {
        merged.extend(section.https_extra_headers.clone());
    }
    let usable = |(name, value): (&String, &String)| {
        let header = HeaderName::try_from(name.as_str())
            .ok()
            .filter(|name| !FRAMING.contains(name))
            .zip(HeaderValue::from_str(value).ok());
        if header.is_none() {
            tracing::warn!(
                "restapi: the extra header {name:?} cannot be sent: not a valid name or value, or the server's own"
            );
        }
        header
    };
    merged.iter().filter_map(usable).collect()
}
