//! The first stage: one normal form of the target, and the route that wins.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, StatusCode};

use super::context::Exchange;
use crate::body::{Body, Response};
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::policy::admission::{self, AdmissionFacts, TlsFacts};
use crate::policy::cache::purge;
use crate::policy::route::{RouteFacts, expand_redirect};
use crate::policy::uri::{self, NormalUri};
use crate::snapshot::{Action, Listener, RedirectToHttps, Route};

/// What becomes of an admitted request.
pub(super) enum Routed {
    /// It goes this way.
    Route(Arc<Route>),
    /// The listener or the route answers without a farm: a redirect, a fixed response.
    Reply(Response),
}

/// Admits the request, normalises its target and picks its route.
///
/// # Errors
/// `MethodRefused`, `ExpectationFailed`, `BadRequest`, `AmbiguousFraming` for what no route may see, `Misdirected` for
/// a host outside of what the connection's client authentication vouched for, `NoRoute` when none matches.
pub(super) fn run(exchange: &mut Exchange) -> Result<Routed, ProxyError> {
    let refused = |kind| ProxyError::new(kind, Stage::Route);
    let uri = uri::normalise(&exchange.head.target).map_err(|fault| refused(ErrorKind::BadRequest(fault.token())))?;
    admission::admit(&AdmissionFacts {
        method: &exchange.head.method,
        version: exchange.head.version,
        path: uri.path(),
        headers: &exchange.head.headers,
        upgrade: exchange.head.upgrade.is_some(),
    })
    .map_err(refused)?;
    let authority = &exchange.head.authority;
    let listener = exchange.listener();
    if misdirected(exchange, listener, authority.host()) {
        return Err(refused(ErrorKind::Misdirected));
    }
    if let Some(redirect) = listener.and_then(|listener| listener.redirect.as_ref()) {
        return Ok(Routed::Reply(to_https(redirect, authority.host(), &uri)));
    }
    let found = exchange.snapshot.table.find(&RouteFacts {
        listener: &exchange.peer.listener,
        listener_redirects: false,
        host: authority.host(),
        path: uri.path(),
        query: uri.query(),
        method: routed_as(&exchange.head.method),
        headers: &exchange.head.headers,
        client: exchange.peer.client.ip(),
    });
    let route = found.and_then(|index| exchange.snapshot.routes.get(index)).cloned();
    let scheme = exchange.head.scheme.as_str();
    let reply = route.as_ref().and_then(|route| local_reply(&route.action, scheme, authority.host(), &uri));
    exchange.uri = uri;
    exchange.route.clone_from(&route);
    let route = route.ok_or_else(|| refused(ErrorKind::NoRoute))?;
    Ok(reply.map_or(Routed::Route(route), Routed::Reply))
}

/// A PURGE goes the way of the request whose answer it is about.
fn routed_as(method: &Method) -> &Method {
    if purge::is_purge(method) { &Method::GET } else { method }
}

fn misdirected(exchange: &Exchange, listener: Option<&Listener>, host: &str) -> bool {
    let (Some(tls), Some(listener)) = (&exchange.peer.tls, listener) else { return false };
    let facts = TlsFacts {
        client_auth: tls.client_auth,
        server_name: tls.server_name.as_deref(),
        certificate: tls.certificate,
    };
    let certificate = listener.settings.tls.as_ref().map(|tls| tls.certificate_for(host));
    admission::misdirected(host, certificate, &facts)
}

/// `redirect_to_https`: 308 keeps method and body (RFC 9110 §15.4.9).
fn to_https(redirect: &RedirectToHttps, host: &str, uri: &NormalUri) -> Response {
    let location = match redirect {
        RedirectToHttps::Port(443) => format!("https://{host}{}", uri.as_str()),
        RedirectToHttps::Port(port) => format!("https://{host}:{port}{}", uri.as_str()),
        RedirectToHttps::Base(base) => format!("{base}{}", uri.as_str()),
    };
    redirection(StatusCode::PERMANENT_REDIRECT, location)
}

fn redirection(status: StatusCode, location: String) -> Response {
    let mut response = Response::new(status, Body::Empty);
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers.insert(LOCATION, location);
    }
    response
}

/// What a route answers by itself, if it does.
fn local_reply(action: &Action, scheme: &str, host: &str, uri: &NormalUri) -> Option<Response> {
    match action {
        Action::Forward(_) => None,
        Action::Redirect(to, status) => Some(redirection(*status, expand_redirect(to, scheme, host, uri))),
        Action::Respond(status, body, content_type) => {
            let mut response = Response::new(*status, Body::full(Bytes::clone(body)));
            if !body.is_empty() {
                response.headers.insert(CONTENT_TYPE, content_type.clone());
            }
            Some(response)
        }
    }
}
