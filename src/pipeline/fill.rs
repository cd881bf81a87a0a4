//! Into the store: pumping a body into a fill, and forgetting what an unsafe request made untrue.

use bytes::Bytes;

use super::context::Exchange;
use super::lookup::{build_key, key_of};
use crate::body::{Body, Response};
use crate::policy::cache::invalidation::{self, TargetFacts};
use crate::policy::uri;
use crate::snapshot::Route;
use crate::store::{NotKept, Sink};

/// Pumps `body` into `sink`, at the speed of the source while everything is kept, at that of the fastest reader
/// otherwise. `faultless` is asked at the end: a body whose transformation failed half way has reached its readers as it
/// could, but is not kept. `refused` is told as soon as it is clear that a body will not be kept.
pub(super) async fn pump(
    mut sink: impl Sink,
    mut body: Body,
    faultless: impl Fn() -> bool,
    mut refused: impl FnMut(NotKept),
) {
    let mut told = false;
    let mut trailers = None;
    loop {
        if !std::future::poll_fn(|cx| sink.poll_ready(cx)).await {
            return;
        }
        match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(chunk) => {
                    sink.push(chunk);
                    if let Some(reason) = sink.refused().filter(|_| !told) {
                        told = true;
                        refused(reason);
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
            Some(Err(error)) => return sink.fail(error),
            None => break,
        }
    }
    let not_kept = if faultless() { sink.finish(trailers).err() } else { Some(sink.finish_unkept(trailers)) };
    if let Some(reason) = not_kept {
        tracing::debug!(reason = reason.token(), "a response was not kept");
    }
}

/// After an unsafe request that went well: what is stored for its target, and for what the answer names besides, is
/// untrue now (RFC 9111 §4.4).
pub(super) fn invalidate(exchange: &Exchange, route: &Route, response: &Response) {
    let Some(policy) = &route.cache else { return };
    if !invalidation::applies(&exchange.head.method, response.status) {
        return;
    }
    let store = &exchange.worker.shared.store;
    store.invalidate(build_key(exchange, route, policy).uri);
    let target =
        TargetFacts { scheme: exchange.head.scheme.as_str(), host: &exchange.host(), path: exchange.uri.path() };
    for named in invalidation::also(&target, &response.headers) {
        if let Ok(named) = uri::normalise(&Bytes::from(named)) {
            store.invalidate(key_of(exchange, route, policy, &named).uri);
        }
    }
}
