//! `PURGE` from a client of a listener: who may is said by the `purge` tables of the cache policies, and it reaches what
//! those policies keep that admit the sender.
//!
//! | answer | when |
//! |---|---|
//! | 200 | something was purged; how much is in the body |
//! | 400 | it cannot be told what is meant; nothing is purged |
//! | 403 | no policy admits the sender |
//! | 404 | nothing of the kind is stored |
//! | 405 | no policy has a `purge` table |

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};

use super::context::Exchange;
use crate::body::{Body, Response};
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::policy::cache::purge::{self, Ask, NotAdmitted, Sender};
use crate::snapshot::{CachePolicy, Route};
use crate::store::Purged;

/// Answers a PURGE; `None` for every other method, and where it is the farm's business: on a route without a cache while
/// nobody may purge here.
///
/// # Errors
/// `MethodRefused`, `PurgeRefused` and `BadRequest`; see the module.
pub(super) async fn run(exchange: &Exchange, route: &Route) -> Result<Option<Response>, ProxyError> {
    if !purge::is_purge(&exchange.head.method) {
        return Ok(None);
    }
    let refused = |kind| ProxyError::new(kind, Stage::Lookup);
    let policies = match admitting(exchange) {
        Ok(policies) => policies,
        Err(NotAdmitted::Disabled) if route.cache.is_none() => return Ok(None),
        Err(NotAdmitted::Disabled) => return Err(refused(ErrorKind::MethodRefused)),
        Err(reason) => return Err(refused(ErrorKind::PurgeRefused(reason.token()))),
    };
    let mut fields: Vec<HeaderName> = policies.iter().flat_map(|policy| &policy.params.tags).cloned().collect();
    fields.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    fields.dedup();
    let ask = Ask::read(exchange.host(), &exchange.uri, &exchange.head.headers, &fields);
    let Ask { target, soft } = ask.map_err(|reason| refused(ErrorKind::BadRequest(reason)))?;
    let shared = &exchange.worker.shared;
    let purge = exchange.snapshot.purge(target, soft, Some(&policies), shared.store.seeds());
    let purged = shared.purger.run(purge, &exchange.peer.client.ip().to_string(), false).await;
    Ok(Some(answer(&purged)))
}

/// The policies that let this sender purge, or why none does.
fn admitting(exchange: &Exchange) -> Result<Vec<Arc<CachePolicy>>, NotAdmitted> {
    let sender = Sender { address: exchange.peer.client.ip(), headers: &exchange.head.headers };
    let mut why = NotAdmitted::Disabled;
    let mut policies = Vec::new();
    for policy in &exchange.snapshot.caches {
        match policy.params.purge.as_ref().map(|params| params.admit(&sender)) {
            Some(Ok(())) => policies.push(Arc::clone(policy)),
            Some(Err(reason)) => why = reason,
            None => {}
        }
    }
    if policies.is_empty() { Err(why) } else { Ok(policies) }
}

fn answer(purged: &Purged) -> Response {
    let found = purged.responses + purged.arriving > 0;
    let body = format!("{{\"purged\":{},\"arriving\":{}}}\n", purged.responses, purged.arriving);
    let mut response = Response::new(if found { StatusCode::OK } else { StatusCode::NOT_FOUND }, Body::full(body));
    response.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
