//! The validated configuration: every value in range, every name resolved, every default filled in.
//!
//! Only `config::validate` makes these; only `snapshot`, `cli` and `app` read them. Fields are named after their config
//! keys. Paths are absolute (or relative to the working directory) and were resolved against the file that named them.
//!
//! What can still fail when the configuration is put to work (keys that do not fit, addresses that cannot be bound)
//! carries its [`Location`] in a field `at`, so that the fault is shown where it was written.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use ipnet::IpNet;

use super::source::Location;
use crate::policy::balance::hash::HashBy;
use crate::policy::cache::CacheParams;
use crate::policy::encoding::CompressParams;
use crate::policy::fields::FieldEdits;
use crate::policy::mirror::MirrorParams;
use crate::policy::pool::{Address, PoolParams, RouteTimeouts};
use crate::policy::rewrite::RewriteParams;
use crate::policy::route::{RequestEdits, RouteMatch};

/// A whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[server]`
    pub server: ServerConfig,
    /// `[store]`
    pub store: StoreConfig,
    /// `[admin]`
    pub admin: AdminConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[demo]`; `None` = no demo origins.
    pub demo: Option<DemoConfig>,
    /// `[errors]`: status → body.
    pub errors: BTreeMap<u16, ErrorPage>,
    /// `[[listener]]` in file order.
    pub listeners: Vec<ListenerConfig>,
    /// `[[pool]]` in file order.
    pub pools: Vec<PoolConfig>,
    /// `[cache.NAME]`
    pub caches: Vec<CacheConfig>,
    /// `[rewrite.NAME]`
    pub rewrites: Vec<RewriteConfig>,
    /// `[compress.NAME]`
    pub compressions: Vec<CompressConfig>,
    /// `[[route]]` in file order.
    pub routes: Vec<RouteConfig>,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// `workers`; `None` = one per core.
    pub workers: Option<usize>,
    /// `state_dir`
    pub state_dir: PathBuf,
    /// `user` to become after binding.
    pub user: Option<UserConfig>,
    /// `shutdown_grace`
    pub shutdown_grace: Duration,
    /// `max_connections` over all listeners and workers.
    pub max_connections: usize,
    /// `max_misses`: exchanges with the farm at once; `None` = any number.
    pub max_misses: Option<u32>,
}

/// `server.user`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserConfig {
    /// As the system knows it.
    pub name: String,
    /// Where it stands.
    pub at: Location,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// `size` in bytes.
    pub size: u64,
}

/// `[admin]`
#[derive(Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// `address`; default 127.0.0.1:9180. TCP or unix socket, never a host name.
    pub address: Address,
    /// Where `address` stands.
    pub at: Location,
    /// Contents of `token_file`, trimmed.
    pub token: Option<String>,
}

impl std::fmt::Debug for AdminConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminConfig").field("address", &self.address).finish_non_exhaustive()
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `access`; `None` = off.
    pub access: Option<AccessLogConfig>,
    /// `level` of the process's own messages.
    pub level: String,
}

/// `access = { to, format }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLogConfig {
    /// `to`: "stdout", "stderr" or a file.
    pub to: LogTarget,
    /// `format`
    pub format: AccessFormat,
    /// Where `format` stands.
    pub at: Location,
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the value of the same name")]
pub enum LogTarget {
    Stdout,
    Stderr,
    File(PathBuf),
}

/// How an access record is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessFormat {
    /// One JSON object a line.
    Json,
    /// The combined format of Apache and nginx.
    Combined,
    /// A template with `{field}` placeholders, parsed into alternating text and field names.
    Template(Vec<TemplatePart>),
}

/// A piece of an access log template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    /// Copied as is.
    Text(String),
    /// The value of a field of the JSON format, or of `{req.NAME}` / `{res.NAME}`.
    Field(String),
}

/// `[demo]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoConfig {
    /// `origins`, 1..=16.
    pub origins: usize,
    /// `port`, 1..=65000: the first one's on 127.0.0.1; the others take those that follow.
    pub port: u16,
}

/// A body for a local reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPage {
    /// The file, read and watched.
    pub path: PathBuf,
    /// Its contents.
    pub body: Vec<u8>,
    /// By the file's extension.
    pub content_type: String,
}

/// `[[listener]]`
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// `name`
    pub name: String,
    /// `address`
    pub address: SocketAddr,
    /// Where `address` stands.
    pub at: Location,
    /// `protocols` contains "h2".
    pub h2: bool,
    /// `protocols` contains "http/1.1".
    pub http1: bool,
    /// `proxy_protocol.trusted`; `None` = off.
    pub proxy_protocol: Option<Vec<IpNet>>,
    /// `trusted_proxies`
    pub trusted_proxies: Vec<IpNet>,
    /// `timeouts`
    pub timeouts: ListenerTimeouts,
    /// `limits`
    pub limits: ListenerLimits,
    /// `tls`
    pub tls: Option<TlsConfig>,
    /// `redirect_to_https`
    pub redirect_to_https: Option<RedirectToHttps>,
}

/// `redirect_to_https`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectToHttps {
    /// The same host on this port (443 is left out of the URL).
    Port(u16),
    /// This base URL, without a trailing slash.
    Base(String),
}

/// `timeouts` of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the config key of the same name")]
pub struct ListenerTimeouts {
    pub handshake: Duration,
    pub headers: Duration,
    pub body: Duration,
    pub write: Duration,
    pub idle: Duration,
}

/// `limits` of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the config key of the same name")]
pub struct ListenerLimits {
    pub header_bytes: usize,
    pub headers: usize,
    pub uri: usize,
    pub streams: u32,
    pub connections_per_client: usize,
}

/// `tls` of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// `certificates`, contents read; several may serve one name with other key types.
    pub certificates: Vec<CertificateConfig>,
    /// `self_signed`: names for a certificate made on first start and kept in `state_dir`.
    pub self_signed: Vec<String>,
    /// `min_version = "1.3"`
    pub tls13_only: bool,
    /// `strict_sni`
    pub strict_sni: bool,
    /// `client_auth`
    pub client_auth: Option<ClientAuthConfig>,
    /// Where `tls` stands.
    pub at: Location,
}

/// A certificate chain and its key as files and as read.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateConfig {
    /// `cert`
    pub cert: PathBuf,
    /// `key`
    pub key: PathBuf,
    /// PEM text of the chain.
    pub cert_pem: Vec<u8>,
    /// PEM text of the key.
    pub key_pem: Vec<u8>,
    /// Where `cert` stands.
    pub at: Location,
    /// Where `key` stands.
    pub key_at: Location,
}

impl std::fmt::Debug for CertificateConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateConfig").field("cert", &self.cert).field("key", &self.key).finish_non_exhaustive()
    }
}

/// `client_auth`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuthConfig {
    /// `ca`: PEM text of the authorities.
    pub ca_pem: Vec<u8>,
    /// Where `ca` stands.
    pub at: Location,
    /// `mode = "require"`; otherwise "request".
    pub required: bool,
}

/// `[[pool]]`
#[derive(Debug, Clone, PartialEq)]
pub struct PoolConfig {
    /// Everything but key material.
    pub params: PoolParams,
    /// `tls`; `None` = plain.
    pub tls: Option<UpstreamTlsConfig>,
    /// Where each endpoint's `address` stands, in the order of `params.endpoints`.
    pub endpoints_at: Vec<Location>,
}

/// `tls` of a pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpstreamTlsConfig {
    /// `server_name`; `None` = the endpoint's host name or address.
    pub server_name: Option<String>,
    /// `ca`: PEM text; `None` = the system's roots.
    pub ca_pem: Option<Vec<u8>>,
    /// `client`
    pub client: Option<CertificateConfig>,
    /// `insecure`: do not verify.
    pub insecure: bool,
    /// Where `ca` stands, or `tls` when there is none.
    pub at: Location,
}

/// `[cache.NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// NAME
    pub name: String,
    /// `max_bytes`; `None` = the whole store.
    pub max_bytes: Option<u64>,
    /// Everything that decides.
    pub params: CacheParams,
}

/// `[rewrite.NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewriteConfig {
    /// NAME
    pub name: String,
    /// The mandatory rules.
    pub params: RewriteParams,
    /// Where each of `params.elements` stands.
    pub elements_at: Vec<Location>,
}

/// `[compress.NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompressConfig {
    /// NAME
    pub name: String,
    /// Everything that decides.
    pub params: CompressParams,
}

/// `[[route]]`
#[derive(Debug, Clone)]
pub struct RouteConfig {
    /// When it applies; carries the name.
    pub matching: RouteMatch,
    /// What it does.
    pub action: RouteAction,
    /// Index into `caches`.
    pub cache: Option<usize>,
    /// Index into `rewrites`.
    pub rewrite: Option<usize>,
    /// Index into `compressions`.
    pub compress: Option<usize>,
    /// `request`
    pub request: RequestEdits,
    /// `response`
    pub response: FieldEdits,
}

/// Where the exchanges of a route go, and how.
#[derive(Debug, Clone)]
pub struct ForwardConfig {
    /// `pool` or `split`: indices into `pools` with weights.
    pub pools: Vec<(usize, u32)>,
    /// `split_by`; `None` = chance.
    pub split_by: Option<HashBy>,
    /// `timeouts`
    pub timeouts: Option<RouteTimeouts>,
    /// `mirror`
    pub mirror: Option<MirrorConfig>,
    /// `buffer_request` in bytes; `None` = bodies stream.
    pub buffer_request: Option<usize>,
    /// `buffer_response` in bytes; `None` = nothing is read ahead.
    pub buffer_response: Option<usize>,
}

/// `mirror` of a route.
#[derive(Debug, Clone)]
pub struct MirrorConfig {
    /// Index into `pools`.
    pub pool: usize,
    /// What is copied.
    pub params: MirrorParams,
}

/// What a route does with what it matches.
#[derive(Debug, Clone)]
pub enum RouteAction {
    /// `pool` or `split`
    Forward(ForwardConfig),
    /// `redirect`
    Redirect {
        /// `to`, with `$uri`, `$host`, `$path`, `$query` expanded per request.
        to: String,
        /// `status`: 301, 302, 303, 307 or 308.
        status: StatusCode,
    },
    /// `respond`
    Respond {
        /// `status`
        status: StatusCode,
        /// `body` or the contents of `body_file`.
        body: Vec<u8>,
        /// By `content_type`, or the file's extension, or text/plain.
        content_type: String,
    },
}
