//! Sockets in: accept, PROXY protocol, TLS, and the strict HTTP/1 and HTTP/2 drivers.
//!
//! This folder knows neither the pipeline nor the configuration: `app` hands it [`Settings`] and a [`Handler`]. It runs on
//! one worker at a time: a `LocalRuntime`, nothing here is `Send` but the [`Gate`] and the ticket keys.
//!
//! ```text
//! bind ── accept ── proxy_protocol ── tls ──┬── http1 ──┐
//!           │gate                           └── http2 ──┴── Handler
//! ```

mod accept;
mod connection;
mod date;
mod flow;
mod gate;
mod http1;
mod http2;
mod lifecycle;
mod proxy_protocol;
mod timer;
pub mod tls;
mod transport;

#[cfg(test)]
mod testing;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::body::{Peer, Request, Response, Sent};
use crate::error::ProxyError;

pub use accept::{bind, serve};
pub use gate::{Counters, Gate, Refusal, Tally};

/// What a driver calls for each exchange.
pub trait Handler: Clone + 'static {
    /// Travels with a response until its last byte is out; then [`Handler::sent`] gets it (the access record).
    type Record: 'static;

    /// Answers one request. Dropped when the client goes away first.
    fn handle(&self, peer: Rc<Peer>, request: Request) -> impl Future<Output = (Response, Self::Record)> + 'static;

    /// Answers what could not be read as a request: every fault the driver finds becomes a response here.
    fn refuse(&self, peer: &Rc<Peer>, error: ProxyError) -> (Response, Self::Record);

    /// The response has left, or the connection broke under it.
    fn sent(&self, record: Self::Record, sent: Sent);
}

/// What one listener does with its connections; a connection keeps the settings it began with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `name`
    pub name: Arc<str>,
    /// `protocols` contains "h2".
    pub h2: bool,
    /// `protocols` contains "http/1.1".
    pub http1: bool,
    /// `proxy_protocol.trusted`; `None` = off.
    pub proxy_protocol: Option<Vec<IpNet>>,
    /// `trusted_proxies`
    pub trusted_proxies: Vec<IpNet>,
    /// `timeouts`
    pub timeouts: Timeouts,
    /// `limits`
    pub limits: Limits,
    /// `tls`; `None` = plain.
    pub tls: Option<Arc<tls::ServerTls>>,
}

/// `timeouts` of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// PROXY header and TLS handshake together.
    pub handshake: Duration,
    /// From the first byte of a request to the end of its head.
    pub headers: Duration,
    /// Longest silence inside a request body.
    pub body: Duration,
    /// Longest time a write may make no progress.
    pub write: Duration,
    /// Longest silence between two requests.
    pub idle: Duration,
}

/// `limits` of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request head.
    pub header_bytes: usize,
    /// Number of fields.
    pub headers: usize,
    /// Bytes of the request target.
    pub uri: usize,
    /// Concurrent HTTP/2 streams.
    pub streams: u32,
    /// Connections of one client address (IPv6: of one /64).
    pub connections_per_client: usize,
}

/// Where a worker stands in its life; sent through a `watch` channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Accepting.
    #[default]
    Running,
    /// No new connections; idle ones close, busy ones finish their exchange (`Connection: close`, GOAWAY).
    Draining,
    /// Everything closes now.
    Closing,
}

/// True when `address` lies in one of `networks`; an IPv4-mapped IPv6 address counts as IPv4.
#[must_use]
pub fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}
