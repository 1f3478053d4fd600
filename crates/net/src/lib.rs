//! HTTP client and server plumbing, TLS, also that of sessions with PostgreSQL, deadlines.
//!
//! Every type of the TLS library stays inside this crate. What a caller needs of HTTP's vocabulary
//! ([`Method`], [`StatusCode`], [`HeaderMap`], [`header`]) is re-exported, so that nobody else has to
//! agree with this crate about versions.

mod body;
mod client;
mod connect;
mod libpq;
mod server;
mod srv;
mod tls;

pub use bytes::Bytes;
pub use http_body_util::Full;
pub use hyper::header::{HeaderMap, HeaderName, HeaderValue};
pub use hyper::{Method, Request, Response, StatusCode, Uri, Version, header};

pub use client::{ClientOptions, HttpAnswer, HttpClient, HttpError, HttpStream};
pub use connect::KeepAlive;
pub use libpq::{Session, SessionError, SessionTls, SessionWay, may_take_another_way};
pub use server::{BodyError, Handler, HangUp, Peer, RequestBody, ServerLimits, serve};
pub use srv::{SrvError, SrvResolver};
pub use tls::{
    Ciphers, ClientCertificate, ClientVerification, Duplex, Passphrase, Roots, TlsClient,
    TlsClientOptions, TlsError, TlsServer, TlsServerOptions, Verify, install_crypto_provider,
};
