//! What a driver hands to the pipeline and gets back: HTTP messages without a trace of the wire format.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Body;
use crate::authority::Authority;
use crate::error::ProxyError;

/// A request whose head has been read and found well-formed; its body is still to come.
#[derive(Debug)]
pub struct Request {
    /// As sent; case matters (RFC 9110 §9.1).
    pub method: Method,
    /// `http` or `https`: by the listener's TLS, not by what the client claims.
    pub scheme: http::uri::Scheme,
    /// `Host`, or the authority of an absolute target, or `:authority`; one per request: the driver
    /// has refused a request where they disagree (RFC 9112 §3.2). Empty only for HTTP/1.0 without `Host`.
    pub authority: Authority,
    /// Path and query as sent (origin form; `*` for OPTIONS); not normalised.
    pub target: Bytes,
    /// The version the client spoke on this hop.
    pub version: Version,
    /// All fields, hop-by-hop ones included; `Host` is in `authority` *and* here.
    pub headers: HeaderMap,
    /// The body; back-pressure reaches the client.
    pub body: Body,
    /// Where 1xx answers go.
    pub interim: Interim,
    /// Set when the client asks to leave HTTP on this connection (RFC 9110 §7.8): the protocol it named.
    pub upgrade: Option<Box<str>>,
}

/// A response on its way to the driver. Framing fields (`Content-Length`, `Transfer-Encoding`, `Connection`) are the
/// driver's business: it derives them from the body, and drops any it finds here.
#[derive(Debug)]
pub struct Response {
    /// The final status.
    pub status: StatusCode,
    /// End-to-end fields only.
    pub headers: HeaderMap,
    /// The body. For an answer to HEAD, or a 304: empty, with `content_length` saying what GET would send.
    pub body: Body,
    /// `Content-Length` to announce when there is no body to take it from (HEAD, 304).
    pub content_length: Option<u64>,
    /// Close the client's connection after this response.
    pub close: bool,
    /// Present with status 101 (or 200 to an extended CONNECT): the origin's side of the tunnel.
    pub upgrade: Option<Box<Upgrade>>,
}

impl Response {
    /// A response with no fields.
    #[must_use]
    pub fn new(status: StatusCode, body: Body) -> Self {
        Self { status, headers: HeaderMap::new(), body, content_length: None, close: false, upgrade: None }
    }
}

/// How a response left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Body bytes written to the connection (before TLS).
    pub body_bytes: u64,
    /// False when the client or the body broke off before the end.
    pub complete: bool,
    /// The error that broke it off, if the body or connection gave one.
    pub error: Option<ProxyError>,
}

/// The origin's side of an upgraded connection; the driver copies both ways until either side ends.
pub struct Upgrade {
    /// The raw stream.
    pub io: Box<dyn Tunnel>,
    /// What the origin sent behind its head already.
    pub read_ahead: Bytes,
    /// Longest silence in both directions together before the tunnel is cut.
    pub idle: std::time::Duration,
    /// Released when the tunnel ends: the endpoint's in-flight count, the access record.
    pub guard: Box<dyn std::any::Any>,
}

impl std::fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upgrade").field("read_ahead", &self.read_ahead.len()).finish_non_exhaustive()
    }
}

/// A two-way byte stream.
pub trait Tunnel: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Tunnel for T {}

/// Who is at the other end of a client connection. One per connection, shared by its exchanges.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Name of the listener (`[[listener]] name`).
    pub listener: Arc<str>,
    /// The client's address: the transport's, or the one a trusted PROXY protocol header gave.
    pub client: SocketAddr,
    /// The address the client connected to (likewise).
    pub local: SocketAddr,
    /// True when `client` is one of the listener's `trusted_proxies`: its forwarding fields are believed.
    pub trusted: bool,
    /// Present on TLS connections.
    pub tls: Option<TlsPeer>,
}

/// What the TLS handshake settled.
#[derive(Debug, Clone)]
pub struct TlsPeer {
    /// Server name the client sent, lower-cased.
    pub server_name: Option<Box<str>>,
    /// Index of the certificate (group) shown to the client; two names with the same index are interchangeable.
    pub certificate: usize,
    /// True when the listener asks clients for certificates: then a `Host` outside `certificate` is misdirected (421).
    pub client_auth: bool,
    /// True when the client showed a certificate that was verified.
    pub client_verified: bool,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// True when the session was resumed.
    pub resumed: bool,
}

/// A small bounded queue of 1xx heads from the pipeline to the driver of the same connection (RFC 9110 §15.2).
///
/// At most [`Interim::CAPACITY`] wait; more are dropped, as an interim answer may be (§15.2). Cheap to clone: one `Rc`.
#[derive(Debug, Clone, Default)]
pub struct Interim(Rc<RefCell<InterimQueue>>);

#[derive(Debug, Default)]
struct InterimQueue {
    heads: VecDeque<(StatusCode, HeaderMap)>,
    waker: Option<Waker>,
}

impl Interim {
    /// How many interim heads may wait for a slow client.
    pub const CAPACITY: usize = 8;

    /// Queues an interim head; returns false when it was dropped because the queue is full.
    pub fn send(&self, status: StatusCode, headers: HeaderMap) -> bool {
        let mut queue = self.0.borrow_mut();
        if queue.heads.len() >= Self::CAPACITY {
            return false;
        }
        queue.heads.push_back((status, headers));
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
        true
    }

    /// Takes the oldest waiting head. Only the driver calls this.
    #[must_use]
    pub fn take(&self) -> Option<(StatusCode, HeaderMap)> {
        self.0.borrow_mut().heads.pop_front()
    }

    /// Takes the oldest waiting head, or remembers to wake the caller when one comes. Only the driver calls this.
    pub fn poll_take(&self, cx: &mut std::task::Context<'_>) -> std::task::Poll<(StatusCode, HeaderMap)> {
        let mut queue = self.0.borrow_mut();
        match queue.heads.pop_front() {
            Some(head) => std::task::Poll::Ready(head),
            None => {
                queue.waker = Some(cx.waker().clone());
                std::task::Poll::Pending
            }
        }
    }
}
