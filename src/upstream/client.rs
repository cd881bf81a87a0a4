//! The HTTP client of one worker: pick, send, and the wait for the response head.
//!
//! One attempt of one exchange is: [`Connections::pick`] a slot, [`Connections::send`] the request on an idle connection
//! or a new one, read the answer's body. The timeouts of the pool, or of the route, hold throughout: `connect` for TCP and TLS, `idle` for
//! an origin that does not take the request body, `first_byte` from the last byte sent to the head, `idle` again inside
//! the answer's body, `total` over all of it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Method};

use super::attempt::Attempt;
use super::connect::{Opening, connect, now};
use super::endpoint::{Endpoint, InFlightGuard, Slot};
use super::http2::{self, Acquired, Lease, Place, Sessions};
use super::idle::IdleSets;
use super::link::Link;
use super::numbers::OwnNumbers;
use super::owed::Owed;
use super::pool::{Pool, PoolId};
use crate::body::{Body, Interim, Response};
use crate::clock::Now;
use crate::error::{ErrorKind, ProxyError, Retry, Stage};
use crate::policy::balance::{Balance, EndpointView, NoEndpoint, PickFacts, Picker};
use crate::policy::health::outlier::Failing;
use crate::policy::pool::{OriginProtocol, PoolTimeouts, QueueParams};

/// A request as the origin is to see it.
#[derive(Debug)]
pub struct OutRequest {
    /// As the client sent it.
    pub method: Method,
    /// Origin form: path and query, or `*`.
    pub target: Bytes,
    /// Everything that is forwarded, this hop's `Connection` included. `Host` is overwritten when the pool says so;
    /// framing fields are set here, whatever is in them.
    pub headers: HeaderMap,
    /// Sent as it comes.
    pub body: Body,
    /// Where 1xx heads of the origin go, 100 and 101 excepted.
    pub interim: Interim,
    /// The client wants to leave HTTP, and `headers` say so: only then may the origin answer 101.
    pub upgrade: bool,
    /// A `Sec-WebSocket-Key` that was made here, for a client that has none to send: whether the origin has read it is
    /// checked here too.
    pub websocket_key: Option<HeaderValue>,
    /// The client's address and the one it connected to, for `send_proxy_protocol`; `None` = on behalf of nobody.
    pub client: Option<(SocketAddr, SocketAddr)>,
    /// How long the origin may take; `None` = as long as its pool says.
    pub timeouts: Option<Arc<PoolTimeouts>>,
}

impl OutRequest {
    /// How long an origin of `pool` may take.
    pub(super) fn timeouts<'a>(&'a self, pool: &'a Pool) -> &'a PoolTimeouts {
        self.timeouts.as_deref().unwrap_or(&pool.params.timeouts)
    }

    /// Takes back what a failed attempt left of an upload: `None` = there was none, `Some(None)` = a part of it is gone.
    /// Returns whether the request is as it was.
    #[expect(clippy::option_option, reason = "the outer one is the upload")]
    pub(super) fn take_back(&mut self, left: Option<Option<Body>>) -> bool {
        match left {
            None => true,
            Some(Some(body)) => {
                self.body = body;
                true
            }
            Some(None) => false,
        }
    }
}

/// A response head with its body still to come.
#[derive(Debug)]
pub struct Answer {
    /// Fields as received, hop-by-hop ones included: removing them is for `policy::fields`. The body knows its length
    /// where the origin gave it; with status 101 `upgrade` holds the stream.
    pub response: Response,
    /// A kept-alive connection was used.
    pub reused: bool,
    /// How long the parts took.
    pub timings: Timings,
    /// The endpoint, as index into [`Pool::endpoints`].
    pub index: usize,
}

/// How long the parts of an attempt took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// Name and TCP; `None` = kept-alive connection.
    pub connect: Option<Duration>,
    /// TLS handshake.
    pub tls: Option<Duration>,
    /// From the beginning of the request to the end of the head.
    pub first_byte: Duration,
}

/// What an exchange wants of a pick.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Endpoints it has tried already.
    pub tried: &'a [usize],
    /// What it is hashed by; `None` = any endpoint will do.
    pub key: Option<u64>,
    /// Where its session is.
    pub stay: Option<usize>,
    /// Any number.
    pub random: u64,
    /// It has been with the farm already: it does not queue behind those that have not begun.
    pub under_way: bool,
    /// It is a copy that nobody waits for: it takes no place of those that `server.max_misses` leaves to clients.
    pub is_copy: bool,
}

/// An attempt that gave no response head.
#[derive(Debug)]
pub struct Failure {
    /// What happened and whether it may be tried again.
    pub error: ProxyError,
    /// The request can be sent once more: nothing of its body has gone, or the body is at hand.
    pub replayable: bool,
}

/// What wants to go out, and where to.
struct Going<'a> {
    pool: &'a Pool,
    index: usize,
    endpoint: &'a Arc<Endpoint>,
    allow_reuse: bool,
    request: &'a OutRequest,
}

/// What an exchange goes out on, and whether that was there before.
struct Carried {
    carrier: Carrier,
    reused: bool,
}

enum Carrier {
    Link(Box<Link>),
    Stream(Lease),
}

/// One worker's connections and pick state. Not `Send`: a connection stays on the worker that opened it.
pub struct Connections {
    idle: RefCell<IdleSets>,
    http2: Sessions,
    /// Whose turn it is, per pool and algorithm.
    picks: RefCell<HashMap<(PoolId, Balance), Picker, OwnNumbers>>,
    /// The endpoints of the snapshot it follows; `None` before the first one.
    followed: RefCell<Option<HashSet<u64, OwnNumbers>>>,
    /// Kept for its allocation.
    views: RefCell<Vec<EndpointView>>,
    /// The worker's coarse clock, moved by `sweep`: good enough for keep-alive times.
    coarse: Cell<Instant>,
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").field("idle", &self.idle()).finish_non_exhaustive()
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self::new()
    }
}

impl Connections {
    /// No connections yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            idle: RefCell::default(),
            http2: Sessions::default(),
            picks: RefCell::default(),
            followed: RefCell::default(),
            views: RefCell::default(),
            coarse: Cell::new(now()),
        }
    }

    /// A slot at the endpoint whose turn it is. Cost: no allocation, no lock.
    ///
    /// # Errors
    /// Why no endpoint of the pool can take the exchange.
    pub fn pick(&self, pool: &Arc<Pool>, wanted: &Wanted<'_>) -> Result<Slot, NoEndpoint> {
        self.pick_now(pool, wanted, false)
    }

    /// A slot for an exchange that found the pool full, once it is its turn and there is one.
    ///
    /// # Errors
    /// `QueueFull`, `QueueTimeout`, or why no endpoint of the pool can take the exchange.
    pub async fn wait(&self, pool: &Arc<Pool>, queue: QueueParams, wanted: &Wanted<'_>) -> Result<Slot, NoEndpoint> {
        let ticket = pool.room.join(queue.max).ok_or(NoEndpoint::QueueFull)?;
        let turn = async {
            loop {
                ticket.called().await;
                match self.pick_now(pool, wanted, true) {
                    Err(NoEndpoint::AllFull) => {}
                    outcome => return outcome,
                }
            }
        };
        tokio::time::timeout(queue.timeout, turn).await.unwrap_or_else(|_| {
            pool.room.count_timeout();
            Err(NoEndpoint::QueueTimeout)
        })
    }

    fn pick_now(&self, pool: &Arc<Pool>, wanted: &Wanted<'_>, waited: bool) -> Result<Slot, NoEndpoint> {
        let entry = pool.enter(waited || wanted.under_way, wanted.is_copy)?;
        match self.pick_endpoint(pool, wanted) {
            Ok((index, guard)) => Ok(Slot { index, guard: guard.with(entry) }),
            Err(nobody) => {
                if let Some(entry) = entry {
                    entry.give_up();
                }
                Err(nobody)
            }
        }
    }

    fn pick_endpoint(&self, pool: &Arc<Pool>, wanted: &Wanted<'_>) -> Result<(usize, InFlightGuard), NoEndpoint> {
        let mut picks = self.picks.borrow_mut();
        let balance = pool.params.balance;
        let picker = picks.entry((pool.id, balance)).or_insert_with(|| Picker::new(balance));
        let mut views = self.views.borrow_mut();
        let Wanted { key, stay, random, .. } = *wanted;
        let facts = PickFacts { panic: pool.params.panic, random, key, stay };
        // Other workers may fill an endpoint between view and take. Each round the view is newer; one round per
        // endpoint is enough for any pool that is not full.
        for _ in 0..=pool.endpoints.len() {
            pool.view(wanted.tried, &mut views);
            let index = picker.pick(&views, &facts)?;
            let limit = views.get(index).map_or(0, |view| view.max_connections);
            if let Some(guard) = pool.endpoints.get(index).and_then(|endpoint| endpoint.take(limit)) {
                return Ok((index, guard));
            }
        }
        Err(NoEndpoint::AllFull)
    }

    /// Sends `request` to the endpoint of `slot` and waits for the response head. With `allow_reuse` an idle connection
    /// is taken if there is one; the silent retry after [`Retry::StaleConnection`] passes false. The request stays with
    /// the caller, for another attempt; a body that streams is gone from it once a part of it is.
    ///
    /// Dropping the future at any point closes the connection and releases the slot; so does dropping the body of the
    /// answer before its end.
    ///
    /// # Errors
    /// Every upstream kind, and the client's own failures while its body was being sent.
    pub async fn send(
        self: &Rc<Self>,
        pool: &Arc<Pool>,
        slot: Slot,
        request: &mut OutRequest,
        allow_reuse: bool,
    ) -> Result<Answer, Failure> {
        let started = now();
        let endpoint = Arc::clone(slot.guard.endpoint());
        let index = slot.index;
        let mut timings = Timings::default();
        let owed = Owed::new(pool, &endpoint, &request.body, started);
        let going = Going { pool, index, endpoint: &endpoint, allow_reuse, request };
        // Boxed, and the handshake in `link` too: an exchange on a kept-alive connection carries neither in its future.
        let carrier = match pool.params.protocol {
            OriginProtocol::Http2 => Box::pin(self.carrier(&going, &mut timings)).await,
            // A WebSocket is the one thing every origin takes over HTTP/1.1.
            OriginProtocol::Auto if pool.tls.is_some() && !request.upgrade => {
                Box::pin(self.carrier(&going, &mut timings)).await
            }
            OriginProtocol::Http1 | OriginProtocol::Auto => self.link(&going, &mut timings).await,
        };
        let Carried { carrier, reused } = match carrier {
            Ok(carried) => carried,
            Err(kind) => {
                endpoint.count_attempt(false);
                endpoint.count_failure(kind);
                let ended = now();
                owed.end(ended);
                if pool.learns {
                    pool.learn(&endpoint, Some(ended - started), Failing::of_error(kind));
                }
                let error = ProxyError::new(kind, Stage::Forward).with_retry(Retry::NothingSent);
                return Err(Failure { error, replayable: true });
            }
        };
        endpoint.count_attempt(reused);
        let shared = Arc::clone(pool);
        let outcome = match carrier {
            Carrier::Link(link) => {
                let connections = Rc::clone(self);
                Attempt { connections, pool: shared, link, slot, started, reused }.run(request, &owed).await
            }
            Carrier::Stream(lease) => {
                Box::pin(http2::Attempt { pool: shared, lease, slot, started, reused }.run(request, &owed)).await
            }
        };
        let ended = now();
        timings.first_byte = ended - started;
        let took = owed.end(ended);
        if pool.learns
            && let Some(failing) = verdict(&outcome)
        {
            pool.learn(&endpoint, took, failing);
        }
        outcome.map(|response| Answer { response, reused, timings, index })
    }

    /// A connection that speaks HTTP/1.1: an idle one, or a new one.
    async fn link(&self, going: &Going<'_>, timings: &mut Timings) -> Result<Carried, ErrorKind> {
        let idle = going.allow_reuse.then(|| self.checkout(going)).flatten();
        let reused = idle.is_some();
        let link = match idle {
            Some(link) => link,
            None => Box::pin(open(going, timings)).await?,
        };
        Ok(Carried { carrier: Carrier::Link(link), reused })
    }

    fn checkout(&self, going: &Going<'_>) -> Option<Box<Link>> {
        self.idle.borrow_mut().checkout(going.pool, going.endpoint, self.coarse.get())
    }

    /// A stream of an HTTP/2 connection, or, where the origin chose HTTP/1.1, a connection of that kind. A connection
    /// that has died has said so to its task; without `allow_reuse` one that has refused a request comes last.
    async fn carrier(&self, going: &Going<'_>, timings: &mut Timings) -> Result<Carried, ErrorKind> {
        let Going { pool, index, endpoint, allow_reuse, request } = *going;
        let may_be_http1 = pool.params.protocol == OriginProtocol::Auto && !self.http2.are_there(pool, endpoint);
        if may_be_http1
            && allow_reuse
            && let Some(link) = self.checkout(going)
        {
            return Ok(Carried { carrier: Carrier::Link(link), reused: true });
        }
        let place = Place {
            pool,
            index,
            endpoint,
            limit: connect_limit(request.timeouts(pool)),
            tunnel: request.upgrade,
            again: !allow_reuse,
        };
        Ok(match self.http2.acquire(place, timings).await? {
            Acquired::Stream(lease, reused) => Carried { carrier: Carrier::Stream(lease), reused },
            Acquired::Http1(stream, lead) => {
                let link = Link::new(stream, lead, Arc::clone(endpoint), request.timeouts(pool));
                Carried { carrier: Carrier::Link(Box::new(link)), reused: false }
            }
        })
    }

    /// Drops idle connections that have ended, outlived `keep_alive.timeout` or lost their endpoint. The worker calls this each second.
    pub fn sweep(&self, now: Now) {
        self.coarse.set(now.mono);
        // A sweep may look at more sockets than one turn of a task may use; without its budget's end in sight, tokio
        // would report the rest as quiet.
        let all = std::future::poll_fn(|_| {
            self.idle.borrow_mut().sweep(now.mono);
            Poll::Ready(())
        });
        self.http2.sweep(now.mono);
        self.forget_departed();
        let swept = tokio::task::coop::unconstrained(all).now_or_never();
        debug_assert!(swept.is_some(), "a sweep waits for nothing");
    }

    /// Follows a snapshot: drops the idle connections of endpoints that are in none of `pools`, and forgets whose turn it
    /// was in pools that are gone. In the others turns go on: a farm that is discovered may change every second.
    pub fn follow(&self, pools: &[Arc<Pool>]) {
        let endpoints = pools.iter().flat_map(|pool| &pool.endpoints).map(|endpoint| endpoint.id());
        *self.followed.borrow_mut() = Some(endpoints.collect());
        self.forget_departed();
        let same = |(id, balance): &(PoolId, Balance)| {
            pools.iter().any(|pool| pool.id == *id && pool.params.balance == *balance)
        };
        self.picks.borrow_mut().retain(|key, _| same(key));
    }

    /// Drops the connections of endpoints that are in no pool any more. An exchange may have outlived its endpoint's place
    /// in the snapshot and left one behind.
    fn forget_departed(&self) {
        let followed = self.followed.borrow();
        let Some(endpoints) = &*followed else { return };
        let keep = |endpoint: &Endpoint| endpoints.contains(&endpoint.id());
        self.idle.borrow_mut().retain(keep);
        self.http2.retain(keep);
    }

    /// How many idle connections there are.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle.borrow().len() + self.http2.idle()
    }

    /// Takes back the connection of a finished exchange.
    pub(super) fn park(&self, pool: &Pool, endpoint: &Arc<Endpoint>, link: Box<Link>) {
        self.idle.borrow_mut().park(pool, endpoint, link, self.coarse.get());
    }
}

/// How an attempt speaks for (`Some(None)`) or against its endpoint; `None` when it says nothing about it: the client went
/// away, or a connection that had been idle turned out closed.
#[expect(clippy::option_option, reason = "three answers: nothing, well, failing")]
fn verdict(outcome: &Result<Response, Failure>) -> Option<Option<Failing>> {
    match outcome {
        Ok(response) => Some(response.status.is_server_error().then_some(Failing::ServerError)),
        Err(failure) if matches!(failure.error.retry, Retry::StaleConnection | Retry::Unprocessed) => None,
        Err(failure) => Failing::of_error(failure.error.kind).map(Some),
    }
}

async fn open(going: &Going<'_>, timings: &mut Timings) -> Result<Box<Link>, ErrorKind> {
    let Going { pool, index, endpoint, request, .. } = *going;
    let opening = Opening { client: request.client, http1: true };
    let bounds = request.timeouts(pool);
    let connected = connect(pool, index, connect_limit(bounds), opening).await?;
    endpoint.count_connect();
    timings.connect = Some(connected.connect);
    timings.tls = connected.tls;
    Ok(Box::new(Link::new(connected.stream, connected.lead, Arc::clone(endpoint), bounds)))
}

fn connect_limit(bounds: &PoolTimeouts) -> Duration {
    bounds.total.map_or(bounds.connect, |total| total.min(bounds.connect))
}
