//! Into the store: pumping a body into a fill, and forgetting what an unsafe request made untrue.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;

use super::context::Exchange;
use crate::body::{Body, Response};
use crate::policy::cache::CacheParams;
use crate::policy::cache::groups;
use crate::policy::cache::invalidation::{self, TargetFacts};
use crate::policy::cache::purge::Target;
use crate::policy::uri;
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

/// Pumps `body` into `sink`, at the speed of the source while everything is kept, at that of its readers otherwise.
/// `faultless` is asked at the end: a body whose transformation failed half way has reached its readers as it could, but is
/// not kept. `refused` is told as soon as it is clear that a body will not be kept.
///
/// # Errors
/// Why the body was not kept.
pub(super) async fn pump(
    mut sink: impl Sink,
    mut body: Body,
    alone: Alone,
    faultless: impl Fn() -> bool,
    mut refused: impl FnMut(NotKept),
) -> Result<(), NotKept> {
    let mut told = false;
    let mut trailers = None;
    loop {
        if !room(&mut sink).await {
            return Err(sink.refused().unwrap_or(NotKept::CutShort));
        }
        let frame = poll_fn(|cx| {
            if alone == Alone::Stops && sink.poll_abandoned(cx).is_ready() {
                return Poll::Ready(None);
            }
            Pin::new(&mut body).poll_frame(cx).map(Some)
        });
        let Some(frame) = frame.await else { return Err(sink.refused().unwrap_or(NotKept::CutShort)) };
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
            Some(Err(error)) => {
                sink.fail(error);
                return Err(NotKept::CutShort);
            }
            None => break,
        }
    }
    let kept = if faultless() { sink.finish(trailers).map(|_| ()) } else { Err(sink.finish_unkept(trailers)) };
    kept.inspect_err(|reason| tracing::debug!(reason = reason.token(), "a response was not kept"))
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
/// untrue now, whatever policy keeps it (RFC 9111 §4.4); and so are the cache groups that the answer names (RFC 9875 §3).
pub(super) async fn invalidate(exchange: &Exchange, response: &Response) {
    let (snapshot, shared) = (&exchange.snapshot, &exchange.worker.shared);
    if snapshot.caches.is_empty() {
        return;
    }
    let (method, scheme, host) = (&exchange.head.method, exchange.head.scheme.as_str(), exchange.host());
    if invalidation::applies(method, response.status) {
        let target = TargetFacts { scheme, host, path: exchange.uri.path() };
        let also = invalidation::also(&target, &response.headers);
        let also = also.filter_map(|named| uri::normalise(&Bytes::from(named)).ok());
        for uri in std::iter::once(exchange.uri.clone()).chain(also) {
            for url in snapshot.locations(host, &uri, shared.store.seeds()) {
                if let Some(others) = shared.purger.invalidate_url(&url) {
                    // It fails only when the process ends.
                    let _ = others.await;
                }
            }
        }
    }
    let groups = groups::invalidated(method, &response.headers);
    if !groups.is_empty() {
        let target = Target::Groups { scheme: scheme.to_owned(), host: host.to_owned(), groups };
        let purge = snapshot.purge(target, false, None, shared.store.seeds());
        shared.purger.run(purge, "origin", false).await;
    }
}
