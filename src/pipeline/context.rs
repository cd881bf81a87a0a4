//! What one exchange knows about itself. Each field is written by one stage, once, and read by the stages to its right.

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Version};

use crate::authority::Authority;
use crate::body::{Body, Interim, Peer, Request};
use crate::clock::Now;
use crate::observe::{Attempt, Phases};
use crate::policy::cache::status::CacheStatus;
use crate::policy::fields;
use crate::policy::uri::NormalUri;
use crate::snapshot::{Listener, Route, Snapshot};

use super::debug::Debug;
use super::hints::Page;
use super::record::Record;
use super::sticky::Session;
use super::worker::Worker;

/// One request and all that was found out about it.
pub(super) struct Exchange {
    /// The worker that owns the client's connection.
    pub(super) worker: Rc<Worker>,
    /// The one snapshot this exchange decides by.
    pub(super) snapshot: Arc<Snapshot>,
    /// Who is asking.
    pub(super) peer: Rc<Peer>,
    /// When the request head was complete.
    pub(super) now: Now,
    /// The request head as received.
    pub(super) head: Head,
    /// The request body; `forward` takes it.
    pub(super) body: Body,
    /// `route`: the one form of the target that everything uses; `/` until then.
    pub(super) uri: NormalUri,
    /// `route`: the route that won.
    pub(super) route: Option<Arc<Route>>,
    /// `route`: names this exchange in logs here and at the origin.
    pub(super) request_id: HeaderValue,
    /// `sticky`: where the client is to stay.
    pub(super) session: Option<Session>,
    /// `forward`, `lookup`: what happened upstream.
    pub(super) trace: Trace,
    /// `lookup`: what the cache did; `None` on routes without a cache.
    pub(super) cache: Option<CacheStatus<'static>>,
    /// `hints`: the page that the farm is asked for, where that is to be told or learned.
    pub(super) page: Option<Rc<Page>>,
    /// `debug`: somebody with the key looks into this exchange.
    pub(super) debug: Option<Box<Debug>>,
    /// `encode`: what came of the dictionary the client has; `None` where it has none.
    pub(super) dictionary: Option<&'static str>,
    /// `lookup`: the key's text, where the policy shows it.
    pub(super) cache_key: Option<Box<str>>,
}

/// An exchange under way. Dropped before [`Ongoing::close`], the client went away before it was answered: that is
/// counted and logged too, with the status 499 that log tools know.
pub(super) struct Ongoing(Option<Box<Exchange>>);

impl Ongoing {
    /// Opens an exchange.
    pub(super) fn open(worker: Rc<Worker>, peer: Rc<Peer>, request: Request) -> Self {
        Self(Some(Box::new(Exchange::open(worker, peer, request))))
    }

    /// What the stages work on.
    #[expect(clippy::expect_used, reason = "only close and drop take it, and both end this value")]
    pub(super) fn exchange(&mut self) -> &mut Exchange {
        self.0.as_mut().expect("an exchange that is not closed")
    }

    /// Ends it with an answer.
    #[expect(clippy::expect_used, reason = "only close and drop take it, and both end this value")]
    pub(super) fn close(mut self) -> Box<Exchange> {
        self.0.take().expect("an exchange that is not closed")
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        if let Some(exchange) = self.0.take() {
            Record::abandoned(exchange);
        }
    }
}

/// A request head without its body.
#[derive(Debug)]
pub(super) struct Head {
    /// The method, as sent.
    pub(super) method: Method,
    /// By the listener's TLS.
    pub(super) scheme: http::uri::Scheme,
    /// The host the client asked for, and its port; empty only for HTTP/1.0 without `Host`.
    pub(super) authority: Authority,
    /// Path and query as sent.
    pub(super) target: bytes::Bytes,
    /// What the client spoke.
    pub(super) version: Version,
    /// All fields.
    pub(super) headers: HeaderMap,
    /// 1xx answers go here.
    pub(super) interim: Interim,
    /// The protocol the client wants to switch to.
    pub(super) upgrade: Option<Box<str>>,
}

/// What happened on the way to the origin.
#[derive(Debug, Default, Clone)]
pub(super) struct Trace {
    /// Name of the pool.
    pub(super) pool: Option<Arc<str>>,
    /// Every attempt, in order; bounded by `retry.attempts` and one silent retry.
    pub(super) attempts: Vec<Attempt>,
    /// Whose answer it is, where that is not the endpoint of the last attempt.
    pub(super) answered: Option<Arc<str>>,
    /// Where the time of the last attempt went.
    pub(super) phases: Phases,
}

impl Exchange {
    /// Takes the snapshot and the time, once.
    #[must_use]
    pub(super) fn open(worker: Rc<Worker>, peer: Rc<Peer>, request: Request) -> Self {
        let Request { method, scheme, authority, target, version, headers, body, interim, upgrade } = request;
        let head = Head { method, scheme, authority, target, version, headers, interim, upgrade };
        let (snapshot, now) = (worker.snapshot(), worker.now());
        let request_id = request_id(&head.headers, peer.trusted, &worker);
        Self {
            snapshot,
            now,
            head,
            body,
            uri: NormalUri::default(),
            route: None,
            request_id,
            session: None,
            trace: Trace::default(),
            cache: None,
            page: None,
            debug: None,
            dictionary: None,
            cache_key: None,
            worker,
            peer,
        }
    }

    /// Host and port as keys and origins see them.
    #[must_use]
    pub(super) fn host(&self) -> &str {
        self.head.authority.for_scheme(&self.head.scheme)
    }

    /// The listener the client came through, as the snapshot has it.
    #[must_use]
    pub(super) fn listener(&self) -> Option<&Listener> {
        self.snapshot.listeners.iter().find(|listener| *listener.settings.name == *self.peer.listener)
    }
}

/// A trusted peer's `X-Request-ID`, or a new random one of 128 bits.
fn request_id(headers: &HeaderMap, trusted: bool, worker: &Worker) -> HeaderValue {
    if let Some(kept) = fields::kept_request_id(headers, trusted) {
        return kept.clone();
    }
    let random = u128::from(worker.random()) << 64 | u128::from(worker.random());
    HeaderValue::from_bytes(&hex(random)).unwrap_or(HeaderValue::from_static("none"))
}

/// The 32 digits of `number`; made for every exchange, hence without `format!`.
fn hex(mut number: u128) -> [u8; 32] {
    let mut digits = [b'0'; 32];
    for digit in digits.iter_mut().rev() {
        let nibble = (number & 15) as u8;
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        number >>= 4;
    }
    digits
}
