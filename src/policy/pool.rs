//! Parameters of a pool: what `[[pool]]` says, apart from key material.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::adaptive::AdaptiveParams;
use super::balance::hash::HashBy;
use super::balance::sticky::StickyParams;
use super::balance::{AdminState, Balance};
use super::discovery::DiscoverParams;
use super::health::HealthParams;
use super::health::outlier::OutlierParams;
use super::retry::RetryParams;

/// `[[pool]]` without `tls`.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolParams {
    /// `name`
    pub name: String,
    /// `balance`
    pub balance: Balance,
    /// `hash`: what `Balance::Hash` goes by; `None` with every other algorithm.
    pub hash: Option<HashBy>,
    /// `slow_start`: how long an endpoint that comes back takes to get its whole share; `None` = no time at all.
    pub slow_start: Option<Duration>,
    /// `sticky`; `None` = sessions go anywhere.
    pub sticky: Option<StickyParams>,
    /// `endpoints` in file order, and behind them those that were discovered.
    pub endpoints: Vec<EndpointParams>,
    /// `discover`; `None` = what is written is all there is.
    pub discover: Option<DiscoverParams>,
    /// `resolver`: DNS servers to be asked for names of this pool; empty = the system's.
    pub resolver: Vec<SocketAddr>,
    /// `host`
    pub host: HostHeader,
    /// `queue`; `None` = a full pool refuses.
    pub queue: Option<QueueParams>,
    /// `max_in_flight`: exchanges at once, over all endpoints and workers; `None` = any number.
    pub max_in_flight: Option<u32>,
    /// `adaptive`; `None` = what is written is the bound.
    pub adaptive: Option<AdaptiveParams>,
    /// `health`; `None` = no probes.
    pub health: Option<HealthParams>,
    /// `outlier`; `None` = nobody is ejected.
    pub outlier: Option<OutlierParams>,
    /// `panic` as a share 0..=1: below this share of healthy endpoints health is ignored.
    pub panic: f64,
    /// `retry`
    pub retry: RetryParams,
    /// `hedge.after`: how long the first attempt has before a second one is made beside it; `None` = for ever.
    pub hedge: Option<Duration>,
    /// `timeouts`
    pub timeouts: PoolTimeouts,
    /// `keep_alive`
    pub keep_alive: KeepAlive,
    /// `protocol`
    pub protocol: OriginProtocol,
    /// `send_proxy_protocol`; `None` = no.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// The largest weight of an endpoint.
pub const MAX_WEIGHT: u16 = 1000;

/// One of `endpoints`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointParams {
    /// `address`
    pub address: Address,
    /// `weight`, 0..=[`MAX_WEIGHT`]; default 1.
    pub weight: u16,
    /// `max_connections`
    pub max_connections: Option<u32>,
    /// Endpoints of a tier are used only when none of those before it can be: 0 is first, `backup = true` is 1.
    pub tier: u8,
    /// `state`
    pub state: AdminState,
    /// Written in no configuration file.
    pub discovered: bool,
}

/// `queue`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueParams {
    /// `max`: exchanges that wait, over all workers.
    pub max: u32,
    /// `timeout`: how long one waits.
    pub timeout: Duration,
}

/// `host:port`, `[v6]:port` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A name to be resolved, and a port.
    Name(String, u16),
    /// `unix:/path`
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `host` of a pool: what `Host` the origin sees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HostHeader {
    /// The client's.
    #[default]
    Preserve,
    /// The endpoint's address as written.
    Endpoint,
    /// This one.
    Name(String),
}

/// `send_proxy_protocol` of a pool: which version of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// `protocol` of a pool: what is spoken to the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OriginProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: over TLS by ALPN, else by prior knowledge.
    Http2,
    /// What ALPN chooses; HTTP/1.1 without TLS.
    Auto,
}

/// `timeouts` of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolTimeouts {
    /// `connect`: TCP and TLS together.
    pub connect: Duration,
    /// `first_byte`: from the last byte sent to the end of the response head.
    pub first_byte: Duration,
    /// `idle`: longest silence inside a body.
    pub idle: Duration,
    /// `total`; `None` = no limit (`"0s"`).
    pub total: Option<Duration>,
}

impl Default for PoolTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            total: None,
        }
    }
}

/// `timeouts` of a route; what is `None` is as its pool says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteTimeouts {
    /// `connect`
    pub connect: Option<Duration>,
    /// `first_byte`
    pub first_byte: Option<Duration>,
    /// `idle`
    pub idle: Option<Duration>,
    /// `total`; zero = no limit.
    pub total: Option<Duration>,
}

impl RouteTimeouts {
    /// Those of the route's exchanges with `pool`.
    #[must_use]
    pub fn over(&self, pool: &PoolTimeouts) -> PoolTimeouts {
        PoolTimeouts {
            connect: self.connect.unwrap_or(pool.connect),
            first_byte: self.first_byte.unwrap_or(pool.first_byte),
            idle: self.idle.unwrap_or(pool.idle),
            total: match self.total {
                Some(total) => (!total.is_zero()).then_some(total),
                None => pool.total,
            },
        }
    }
}

/// `keep_alive`, per endpoint and worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// `idle`: connections kept.
    pub idle: usize,
    /// `timeout`: how long one is kept.
    pub timeout: Duration,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self { idle: 64, timeout: Duration::from_secs(50) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_has_its_way_key_by_key() {
        let seconds = Duration::from_secs;
        let pool =
            PoolTimeouts { connect: seconds(1), first_byte: seconds(2), idle: seconds(3), total: Some(seconds(4)) };
        let none = RouteTimeouts::default();
        let table = [
            (none, pool),
            (RouteTimeouts { connect: Some(seconds(9)), ..none }, PoolTimeouts { connect: seconds(9), ..pool }),
            (RouteTimeouts { first_byte: Some(seconds(9)), ..none }, PoolTimeouts { first_byte: seconds(9), ..pool }),
            (RouteTimeouts { idle: Some(seconds(9)), ..none }, PoolTimeouts { idle: seconds(9), ..pool }),
            (RouteTimeouts { total: Some(seconds(9)), ..none }, PoolTimeouts { total: Some(seconds(9)), ..pool }),
            (RouteTimeouts { total: Some(Duration::ZERO), ..none }, PoolTimeouts { total: None, ..pool }),
        ];
        for (route, expected) in table {
            assert_eq!(route.over(&pool), expected, "{route:?}");
        }
    }
}
