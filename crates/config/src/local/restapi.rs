use indexmap::IndexMap;

use crate::{HostPort, Secret};

/// The `restapi` section (`configuration.md` §2.14).
#[derive(Clone, Debug, PartialEq)]
pub struct RestApi {
    /// Where to listen; the host `*` or an empty one means all addresses.
    pub listen: HostPort,
    /// Where others reach it; `listen` when not configured.
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
    /// Listen backlog.
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
