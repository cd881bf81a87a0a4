//! From an endpoint's address to a stream HTTP can be spoken on. Runs on workers and beside them (probes): `Send`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;

use super::endpoint::Endpoint;
use super::fault;
use super::names::Lead;
use super::pool::Pool;
use super::proxy_protocol;
use super::stream::{Plain, Stream};
use super::tls::ALPN_H2;
use crate::clock;
use crate::error::ErrorKind;
use crate::policy::pool::{Address, OriginProtocol};

/// Resolved addresses tried for one connection; the connect timeout spans them all.
const ADDRESSES_TRIED: usize = 4;

/// A fresh connection and how long its parts took.
pub(super) struct Connected {
    pub(super) stream: Stream,
    pub(super) connect: Duration,
    pub(super) tls: Option<Duration>,
    /// HTTP/2 is to be spoken on it.
    pub(super) http2: bool,
    /// Where it leads, of an endpoint whose address is a name.
    pub(super) lead: Option<Lead>,
}

/// What is particular about a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Opening {
    /// On whose behalf: its address, and the one it connected to (`send_proxy_protocol`).
    pub(super) client: Option<(SocketAddr, SocketAddr)>,
    /// HTTP/1.1 is wanted, whatever else the pool speaks.
    pub(super) http1: bool,
}

/// Opens a connection to endpoint `index` of `pool` within `limit` (name, TCP and TLS together).
///
/// # Errors
/// Connect, DNS and TLS kinds; nothing of a request has been sent in any of them.
pub(super) async fn connect(
    pool: &Pool,
    index: usize,
    limit: Duration,
    opening: Opening,
) -> Result<Connected, ErrorKind> {
    connect_by(now() + limit, pool, index, opening).await
}

/// The same until `deadline`.
pub(super) async fn connect_by(
    deadline: Instant,
    pool: &Pool,
    index: usize,
    opening: Opening,
) -> Result<Connected, ErrorKind> {
    let endpoint = pool.endpoints.get(index).ok_or(ErrorKind::NoEndpoint)?;
    let started = now();
    let opened = open(pool, endpoint, opening);
    let (plain, lead) = timeout_at(deadline.into(), opened).await.unwrap_or(Err(ErrorKind::ConnectTimeout))?;
    let opened = now();
    let connect = opened - started;
    let (Some(tls), Some(name)) = (&pool.tls, pool.server_name(index)) else {
        let http2 = pool.params.protocol == OriginProtocol::Http2 && !opening.http1;
        return Ok(Connected { stream: Stream::Plain(plain), connect, tls: None, http2, lead });
    };
    let connector = TlsConnector::from(if opening.http1 { tls.http1() } else { tls.config() });
    let handshake = timeout_at(deadline.into(), connector.connect(name.clone(), plain));
    let stream =
        handshake.await.map_err(|_late| ErrorKind::TlsTimeout)?.map_err(|error| fault::of_handshake(&error))?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_H2);
    if !http2 && pool.params.protocol == OriginProtocol::Http2 {
        return Err(ErrorKind::TlsHandshake);
    }
    Ok(Connected { stream: Stream::Tls(Box::new(stream)), connect, tls: Some(now() - opened), http2, lead })
}

/// A plain stream, with the PROXY protocol header already on its way, and where it leads.
async fn open(pool: &Pool, endpoint: &Endpoint, opening: Opening) -> Result<(Plain, Option<Lead>), ErrorKind> {
    let (mut plain, lead) = match endpoint.address() {
        Address::Ip(address) => (tcp(*address).await?, None),
        Address::Name(..) => named(endpoint).await?,
        Address::Unix(path) => {
            (Plain::Unix(UnixStream::connect(path).await.map_err(|error| fault::of_connect(&error))?), None)
        }
    };
    if let Some(version) = pool.params.proxy_protocol {
        let header = proxy_protocol::header(version, opening.client);
        plain.write_all(&header).await.map_err(|error| fault::of_connect(&error))?;
    }
    Ok((plain, lead))
}

async fn tcp(address: SocketAddr) -> Result<Plain, ErrorKind> {
    let stream = TcpStream::connect(address).await.map_err(|error| fault::of_connect(&error))?;
    // Heads and small bodies are written whole: waiting for more to fill a segment only adds latency.
    stream.set_nodelay(true).map_err(|error| fault::of_connect(&error))?;
    Ok(Plain::Tcp(stream))
}

/// Tries the resolved addresses in turn, from a different one each time.
async fn named(endpoint: &Endpoint) -> Result<(Plain, Option<Lead>), ErrorKind> {
    let (addresses, first) = endpoint.names.addresses().await;
    let mut last = ErrorKind::DnsError;
    for address in addresses.iter().cycle().skip(first).take(addresses.len().min(ADDRESSES_TRIED)) {
        match tcp(*address).await {
            Ok(plain) => return Ok((plain, Some(endpoint.names.lead(*address)))),
            Err(kind) => last = kind,
        }
    }
    Err(last)
}

/// Sockets live in real time, whatever the clock of a test says.
pub(super) fn now() -> Instant {
    clock::instant()
}
