//! To the farm: the request as the origin is to see it, and what comes back.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, HOST, HeaderValue, IF_RANGE, RANGE};
use http::{HeaderMap, Version};

use super::attempts::send;
use super::context::Exchange;
use super::range;
use super::rewrite;
use super::sticky;
use crate::body::{self, Body, Gathered, Response};
use crate::clock::Now;
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::policy::balance::hash::{HashBy, HashFacts};
use crate::policy::fields;
use crate::policy::grpc;
use crate::policy::split;
use crate::policy::validators;
use crate::policy::websocket;
use crate::snapshot::{Destination, Forwarding, Mirror, Route};
use crate::upstream::{OutRequest, Pool};

/// A request ready for the farm.
pub(super) struct Order {
    /// Where to.
    pub(super) pool: Arc<Pool>,
    /// As the origin is to see it.
    pub(super) request: OutRequest,
    /// What a pool that balances by hash goes by.
    pub(super) key: Option<u64>,
    /// The endpoint where the client's session is.
    pub(super) stay: Option<usize>,
    /// Who gets a copy.
    pub(super) mirror: Option<Arc<Mirror>>,
    /// It is a copy itself.
    pub(super) is_copy: bool,
}

impl Order {
    /// The same order once more, of which there is no other copy. Orders for the cache have no body but one at hand, that of
    /// a QUERY.
    pub(super) fn repeat(&self) -> Self {
        Self { pool: Arc::clone(&self.pool), request: repeat(&self.request), mirror: None, ..*self }
    }

    /// The same order for all of it.
    fn of_whole(mut self) -> Self {
        for name in [RANGE, IF_RANGE] {
            self.request.headers.remove(name);
        }
        self
    }
}

/// A copy of a request, with its body where that is at hand.
pub(super) fn repeat(request: &OutRequest) -> OutRequest {
    OutRequest {
        method: request.method.clone(),
        target: request.target.clone(),
        headers: request.headers.clone(),
        body: request.body.at_hand().unwrap_or_default(),
        interim: request.interim.clone(),
        upgrade: request.upgrade,
        websocket_key: request.websocket_key.clone(),
        client: request.client,
        timeouts: request.timeouts.clone(),
    }
}

/// What came back.
pub(super) struct Reply {
    /// Hop-by-hop fields removed, `Via` added; nothing else is changed.
    pub(super) response: Response,
    /// When the last attempt began (RFC 9111 §4.2.3 `request_time`).
    pub(super) sent: Now,
    /// When the head arrived (`response_time`).
    pub(super) received: Now,
    /// Who answered, as index into [`Pool::endpoints`].
    pub(super) endpoint: usize,
}

/// Forwards the client's own request, body and all.
///
/// # Errors
/// Every upstream kind, and the client's own failures while its body was being sent.
pub(super) async fn run(exchange: &mut Exchange, route: &Route) -> Result<Reply, ProxyError> {
    let forwarding = route.forwarding();
    if let Some(bound) = forwarding.and_then(|to| to.buffer_request) {
        gather(exchange, bound).await?;
    }
    let mut order = order(exchange, route, false)?;
    order.request.body = std::mem::take(&mut exchange.body);
    let mut whole = None;
    if route.rewrite.is_some() {
        // What is going to be parsed should not have to be decoded first.
        order.request.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        // A range is no way around the rules: a part of what they apply to is asked for once more, as a whole.
        if range::is_asked(exchange) && matches!(order.request.body, Body::Empty) {
            whole = Some(order.repeat().of_whole());
        } else {
            order = order.of_whole();
        }
    }
    let worker = Rc::clone(&exchange.worker);
    let pool = Arc::clone(&order.pool);
    let mut reply = send(&worker, order, &mut exchange.trace).await?;
    if let Some(whole) = whole.filter(|_| rewrite::needs_whole(route, &reply.response)) {
        drop(reply);
        reply = send(&worker, whole, &mut exchange.trace).await?;
    }
    sticky::give(exchange, &pool, &mut reply);
    if let Some(limit) = forwarding.and_then(|to| to.buffer_response) {
        read_ahead(&mut reply.response, limit);
    }
    Ok(reply)
}

/// Takes the upload in before anything is taken for it, where it is no longer than `bound`: until all of it is here no
/// endpoint is held, and then it can be sent again. What both sides may stream at once is left alone.
async fn gather(exchange: &mut Exchange, bound: usize) -> Result<(), ProxyError> {
    let both_ways = exchange.head.upgrade.is_some() || grpc::is_call(&exchange.head.headers);
    let longer = exchange.body.exact_len().is_some_and(|length| length > bound as u64);
    if both_ways || longer || exchange.body.at_hand().is_some() {
        return Ok(());
    }
    // Boxed: what few routes do takes no room in all exchanges.
    exchange.body = match Box::pin(std::mem::take(&mut exchange.body).gather(bound as u64)).await? {
        Gathered::Whole(content) => Body::full(content),
        Gathered::Longer(body) => body,
    };
    Ok(())
}

/// Reads the answer ahead of its client, so that a slow one does not hold the endpoint.
fn read_ahead(response: &mut Response, limit: usize) {
    if matches!(response.body, Body::Stream(_)) {
        let (ahead, reading) = body::read_ahead(std::mem::take(&mut response.body), limit);
        response.body = ahead;
        tokio::task::spawn_local(reading);
    }
}

/// The request head as the origin is to see it. With `for_cache` it says nothing about the client that happens to ask.
///
/// # Errors
/// `BadRequest` when the route's path edits leave no path.
pub(super) fn order(exchange: &Exchange, route: &Route, for_cache: bool) -> Result<Order, ProxyError> {
    let forwarding = route.forwarding();
    let chosen = forwarding.and_then(|forwarding| choose(forwarding, exchange));
    let chosen = chosen.ok_or_else(|| ProxyError::new(ErrorKind::Internal("route_without_pool"), Stage::Forward))?;
    let pool = &chosen.pool;
    let target = route.request.apply(&exchange.uri);
    let target = target.map_err(|fault| ProxyError::new(ErrorKind::BadRequest(fault.token()), Stage::Forward))?;
    let upgrade = exchange.head.upgrade.as_deref().filter(|protocol| !for_cache && fields::may_upgrade(protocol));
    let mut headers = fields::copy_with_room(&exchange.head.headers);
    name_host(&mut headers, exchange);
    if !for_cache {
        // Tags that were derived here mean nothing to the origin.
        validators::translate(&mut headers, rewrite::rules(route));
    }
    fields::forward_request(
        &mut headers,
        &fields::RequestFacts {
            version: exchange.head.version,
            https: exchange.peer.tls.is_some(),
            port: exchange.peer.local.port(),
            peer: (!for_cache).then(|| exchange.peer.client.ip()),
            trusted: exchange.peer.trusted,
            upgrade,
            request_id: exchange.request_id.clone(),
        },
        &exchange.worker.shared.identity,
    );
    let websocket_key = upgrade.and_then(|protocol| websocket_key(exchange, protocol));
    if let Some(key) = &websocket_key {
        headers.insert(websocket::KEY, key.clone());
    }
    route.request.fields.apply(&mut headers);
    let request = OutRequest {
        method: exchange.head.method.clone(),
        target: Bytes::copy_from_slice(target.as_str().as_bytes()),
        upgrade: upgrade.is_some(),
        websocket_key,
        client: (!for_cache).then_some((exchange.peer.client, exchange.peer.local)),
        headers,
        // The client's own goes with the client's own request alone.
        body: if for_cache { exchange.body.at_hand().unwrap_or_default() } else { Body::Empty },
        // Of many who wait for one fetch it is the client that caused it who gets them.
        interim: exchange.head.interim.clone(),
        timeouts: chosen.timeouts.clone(),
    };
    let stay = exchange.session.as_ref().map(|session| session.endpoint);
    let key = pool.params.hash.as_ref().and_then(|by| hash_key(exchange, by));
    let mirror = forwarding.and_then(|to| to.mirror.clone());
    Ok(Order { pool: Arc::clone(pool), request, key, stay, mirror, is_copy: false })
}

/// What the exchange is hashed by. A fetch for the store goes where the client that caused it belongs: that says nothing
/// about the client to anybody.
fn hash_key(exchange: &Exchange, by: &HashBy) -> Option<u64> {
    let facts = HashFacts { client: exchange.peer.client.ip(), uri: &exchange.uri, headers: &exchange.head.headers };
    by.key(&facts)
}

/// The key of a handshake whose client brought none, as over HTTP/2 (RFC 8441 §5.1).
fn websocket_key(exchange: &Exchange, protocol: &str) -> Option<HeaderValue> {
    let missing = protocol.eq_ignore_ascii_case(websocket::PROTOCOL) && exchange.head.version == Version::HTTP_2;
    let random = || u128::from(exchange.worker.random()) << 64 | u128::from(exchange.worker.random());
    missing.then(|| websocket::key(random()))
}

/// Makes `Host` the one form that routing and the cache key saw. `A.example:80` and `a.example.` share a stored response
/// with `a.example`: an origin that writes the host it was asked for into links must not write one client's spelling.
fn name_host(headers: &mut HeaderMap, exchange: &Exchange) {
    let host = exchange.host();
    let named = headers.get(HOST).is_some_and(|sent| sent.as_bytes() == host.as_bytes());
    if !named
        && !host.is_empty()
        && let Ok(host) = HeaderValue::from_str(host)
    {
        headers.insert(HOST, host);
    }
}

/// The pool that has the client's session, or the one that its key or chance falls on.
fn choose<'a>(forwarding: &'a Forwarding, exchange: &Exchange) -> Option<&'a Destination> {
    let destinations = &forwarding.destinations;
    if let Some(session) = &exchange.session {
        return destinations.iter().find(|to| to.pool.id == session.pool.id);
    }
    if let [only] = &destinations[..] {
        return Some(only);
    }
    let parts = destinations.iter().map(|to| to.part);
    let index = match forwarding.split_by.as_ref().and_then(|by| hash_key(exchange, by)) {
        Some(key) => split::by_key(parts, key),
        None => split::by_chance(parts, exchange.worker.random()),
    };
    destinations.get(index?)
}
