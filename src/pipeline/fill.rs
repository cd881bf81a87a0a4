//! Into the store: pumping a body into a fill, and forgetting what an unsafe request made untrue.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;

use super::context::Exchange;
use super::lookup::{build_key, key_of};
use crate::body::{Body, Response};
use crate::policy::cache::CacheParams;
use crate::policy::cache::invalidation::{self, TargetFacts};
use crate::policy::uri;
use crate::snapshot::Route;
use crate::store::{NotKept, Sink};

/// What becomes of a fill whose readers have all left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alone {
    /// It goes on, for those who come later.
    GoesOn,
    /// It is given up: the policy has `fill_after_abort = false`.
    Stops,
}

impl Alone {
    pub(super) fn of(params: &CacheParams) -> Self {
        if params.fill_after_abort { Self::GoesOn } else { Self::Stops }
    }
}

/// How long the slower readers of a body that is not kept may hold up the fastest: long enough that nobody is cut for a
/// hiccup, and that whoever reads a window in that time (1 MiB/s) never is.
const LAG: Duration = Duration::from_secs(1);

/// Pumps `body` into `sink`, at the speed of the source while everything is kept, at that of its readers otherwise. `faultless` is asked at the end: a body whose transformation failed half way has reached its readers as it
/// could, but is not kept. `refused` is told as soon as it is clear that a body will not be kept.
pub(super) async fn pump(
    mut sink: impl Sink,
    mut body: Body,
    alone: Alone,
    faultless: impl Fn() -> bool,
    mut refused: impl FnMut(NotKept),
) {
    let mut told = false;
    let mut trailers = None;
    loop {
        if !room(&mut sink).await {
            return;
        }
        let frame = poll_fn(|cx| {
            if alone == Alone::Stops && sink.poll_abandoned(cx).is_ready() {
                return Poll::Ready(None);
            }
            Pin::new(&mut body).poll_frame(cx).map(Some)
        });
        let Some(frame) = frame.await else { return };
        match frame {
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

/// Waits until `sink` takes more, and cuts whoever keeps it from doing so for too long; false when nobody wants more.
async fn room(sink: &mut impl Sink) -> bool {
    loop {
        let ready = poll_fn(|cx| sink.poll_ready(cx));
        match tokio::time::timeout(LAG, ready).await {
            Ok(wanted) => return wanted,
            Err(_elapsed) => sink.cut_laggards(),
        }
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
