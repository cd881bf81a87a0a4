//! Sticky sessions: the client's cookie on its way in, a new one on its way out.
//!
//! The cookie is ours. It is taken out of the request before the cache judges it, so that it makes nothing uncacheable and
//! is in no key, and the farm does not see it. A fetch for the store follows it too, but only what goes to one client
//! alone brings a new one: nothing that is stored ever has it.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

use super::context::Exchange;
use super::forward::Reply;
use crate::policy::cache::cookies;
use crate::snapshot::{Destination, Route};
use crate::upstream::Pool;

/// Where a client is to stay.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// One of the route's pools.
    pub(super) pool: Arc<Pool>,
    /// The endpoint, as index into [`Pool::endpoints`].
    pub(super) endpoint: usize,
}

/// Takes our cookies out of the request, those of other routes' pools too: a browser sends them all. Of several of this
/// route's that stand for an endpoint the first wins.
pub(super) fn take(exchange: &mut Exchange, route: &Route) {
    let Some(forwarding) = route.forwarding() else { return };
    let headers = &exchange.head.headers;
    exchange.session = forwarding.destinations.iter().find_map(|Destination { pool, .. }| {
        let cookie = pool.cookie()?;
        let mut values = cookies::pairs(headers).filter(|(name, _)| *name == cookie);
        let endpoint = values.find_map(|(_, value)| pool.endpoint_of(value))?;
        Some(Session { pool: Arc::clone(pool), endpoint })
    });
    hide(&mut exchange.head.headers, route);
}

/// Removes the cookies of all sticky pools and looks at nothing.
pub(super) fn hide(headers: &mut HeaderMap, route: &Route) {
    cookies::strip(headers, &route.session_cookies);
}

/// Gives the client the cookie of the endpoint that answered, unless it has it already.
pub(super) fn give(exchange: &Exchange, pool: &Arc<Pool>, reply: &mut Reply) {
    let Some(sticky) = &pool.params.sticky else { return };
    let stayed = exchange
        .session
        .as_ref()
        .is_some_and(|session| session.pool.id == pool.id && session.endpoint == reply.endpoint);
    if stayed {
        return;
    }
    let named = pool.cookie().zip(pool.token_of(reply.endpoint));
    let cookie = named.and_then(|(name, token)| sticky.set_cookie(name, token, exchange.peer.tls.is_some()));
    if let Some(cookie) = cookie {
        let headers = &mut reply.response.headers;
        headers.append(SET_COOKIE, cookie);
        // For caches between here and the client: the answer may be anybody's, this field is not (RFC 9111 §5.2.2.4).
        headers.append(CACHE_CONTROL, HeaderValue::from_static("no-cache=\"set-cookie\""));
    }
}
