use indexmap::IndexMap;

use crate::section::Section;
use crate::{ConfigError, HostPort, Map, Secret};

/// Patroni's 5 is less than a burst of health checks from a few load balancers: whom the queue has no place for tries again
/// after a second.
const BACKLOG: u32 = 128;

/// The `restapi` section (`configuration.md` §2.14).
#[derive(Clone, Debug, PartialEq)]
pub struct RestApi {
    /// Where to listen; the host `*` or an empty one means all addresses.
    pub listen: HostPort,
    /// Where others reach it; `listen` when not configured. Port 0: the usual one of the protocol, behind a proxy, say.
    pub connect_address: HostPort,
    /// Required of callers of unsafe endpoints.
    pub authentication: Option<BasicAuth>,
    /// Server certificate (PEM); set: the API speaks HTTPS.
    pub certfile: Option<String>,
    /// Key, if it is not in `certfile`.
    pub keyfile: Option<String>,
    /// Passphrase of the key.
    pub keyfile_password: Option<Secret>,
    /// Authority that client certificates must come from.
    pub cafile: Option<String>,
    /// OpenSSL cipher list.
    pub ciphers: Option<String>,
    /// Whether callers need a certificate.
    pub verify_client: VerifyClient,
    /// Hosts, addresses and networks that may call unsafe endpoints; empty: all.
    pub allowlist: Vec<String>,
    /// Members of the cluster may as well.
    pub allowlist_include_members: bool,
    /// Headers of every answer.
    pub http_extra_headers: IndexMap<String, String>,
    /// Further headers when HTTPS is on.
    pub https_extra_headers: IndexMap<String, String>,
    /// What the `Server` header tells.
    pub server_tokens: ServerTokens,
    /// Listen backlog; [`BACKLOG`] unless configured.
    pub request_queue_size: u32,
}

/// User name and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicAuth {
    /// User name.
    pub username: String,
    /// Password.
    pub password: Secret,
}

/// `restapi.verify_client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum VerifyClient {
    /// No certificate is asked for.
    #[default]
    None,
    /// Unsafe requests need one.
    Optional,
    /// All requests need one.
    Required,
}

/// `restapi.server_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ServerTokens {
    /// Name and version.
    Minimal,
    /// Name only.
    ProductOnly,
    /// What the HTTP server says of itself.
    #[default]
    Original,
}

/// The `ctl` section (§2.15).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Ctl {
    /// Credentials for the members' REST API; those of `restapi` when not configured.
    pub authentication: Option<BasicAuth>,
    /// Do not check certificates.
    pub insecure: bool,
    /// Authority of the members' certificates; `restapi.cafile` when not configured.
    pub cacert: Option<String>,
    /// Client certificate.
    pub certfile: Option<String>,
    /// Its key.
    pub keyfile: Option<String>,
    /// Passphrase of the key.
    pub keyfile_password: Option<Secret>,
}

/// In Patroni's words, as in what is said of a `listen` that cannot be used: the log is searched for them.
const NO_LISTEN: &str =
    "Can not find \"restapi.listen\" config: set it to <host>:<port>, such as 0.0.0.0:8008";

impl RestApi {
    /// What the member publishes of itself, such as `http://10.0.0.11:8008/patroni` (`rest-api.md` §1.8).
    pub fn api_url(&self) -> String {
        let scheme = match self.certfile {
            Some(_) => "https",
            None => "http",
        };
        let address = self.connect_address.to_string();
        let address = address.strip_suffix(":0").unwrap_or(&address);
        format!("{scheme}://{address}/patroni")
    }

    pub(crate) fn parse(root: &Map) -> Result<RestApi, ConfigError> {
        let section = Section::of("restapi", root, "restapi")?
            .ok_or_else(|| ConfigError::missing("restapi", NO_LISTEN))?;
        let listen = section.required("listen", NO_LISTEN)?;
        let listen = HostPort::parse_with_port("restapi.listen", &listen).map_err(|error| {
            match error {
                ConfigError::Invalid {
                    key,
                    found,
                    expected,
                } => ConfigError::Invalid {
                    key,
                    found,
                    expected: format!(
                        "{expected}. Invalid \"restapi\" config: expected <HOST>:<PORT> for \"listen\", but got \"{listen}\""
                    ),
                },
                other => other,
            }
        })?;
        let connect_address = match section.text("connect_address")? {
            Some(text) => HostPort::parse("restapi.connect_address", &text, 0)?,
            None => listen.clone(),
        };
        Ok(RestApi {
            listen,
            connect_address,
            authentication: BasicAuth::parse(section, "restapi.authentication")?,
            certfile: section.text("certfile")?,
            keyfile: section.text("keyfile")?,
            keyfile_password: section.secret("keyfile_password")?,
            cafile: section.text("cafile")?,
            ciphers: section.text("ciphers")?,
            verify_client: match section
                .text("verify_client")?
                .map(|v| v.to_lowercase())
                .as_deref()
            {
                Some("optional") => VerifyClient::Optional,
                Some("required") => VerifyClient::Required,
                _ => VerifyClient::None,
            },
            allowlist: section.texts("allowlist")?.unwrap_or_default(),
            allowlist_include_members: section.bool("allowlist_include_members")?,
            http_extra_headers: section.table("http_extra_headers")?,
            https_extra_headers: section.table("https_extra_headers")?,
            server_tokens: match section
                .text("server_tokens")?
                .map(|v| v.to_lowercase())
                .as_deref()
            {
                Some("minimal") => ServerTokens::Minimal,
                Some("productonly") => ServerTokens::ProductOnly,
                _ => ServerTokens::Original,
            },
            request_queue_size: section.count("request_queue_size")?.unwrap_or(BACKLOG),
        })
    }
}

impl BasicAuth {
    fn parse(section: Section<'_>, path: &str) -> Result<Option<BasicAuth>, ConfigError> {
        if !section.map().contains_key("authentication") {
            return BasicAuth::together(section);
        }
        // An empty one is a mistake: the API would be open to everybody.
        let nothing = Map::new();
        let section = Section::of(path, section.map(), "authentication")?
            .unwrap_or(Section::new(path, &nothing));
        let hint = "Set both username and password, or leave authentication out";
        Ok(Some(BasicAuth {
            username: section.required("username", hint)?,
            password: Secret::new(section.required("password", hint)?),
        }))
    }

    /// `auth: <username>:<password>`, the form of old files, without which their API would be open to everybody.
    fn together(section: Section<'_>) -> Result<Option<BasicAuth>, ConfigError> {
        let Some(text) = section.text("auth")? else {
            return Ok(None);
        };
        let (username, password) = text.split_once(':').ok_or_else(|| {
            // What is there may be the password.
            ConfigError::invalid(
                section.key("auth"),
                "text without a colon",
                "<username>:<password>",
            )
        })?;
        Ok(Some(BasicAuth {
            username: username.to_owned(),
            password: Secret::new(password),
        }))
    }
}

impl Ctl {
    /// What the section leaves out is taken from `restapi` (§2.15).
    pub(crate) fn parse(root: &Map) -> Result<Ctl, ConfigError> {
        let nothing = Map::new();
        let section = Section::of("ctl", root, "ctl")?.unwrap_or(Section::new("ctl", &nothing));
        let restapi =
            Section::of("restapi", root, "restapi")?.unwrap_or(Section::new("restapi", &nothing));
        let authentication = match BasicAuth::parse(section, "ctl.authentication")? {
            Some(own) => Some(own),
            None => BasicAuth::parse(restapi, "restapi.authentication")?,
        };
        let cacert = match section.text("cacert")? {
            Some(own) => Some(own),
            None => restapi.text("cafile")?,
        };
        Ok(Ctl {
            authentication,
            insecure: section.bool("insecure")?,
            cacert,
            certfile: section.text("certfile")?,
            keyfile: section.text("keyfile")?,
            keyfile_password: section.secret("keyfile_password")?,
        })
    }
}
