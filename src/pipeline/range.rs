//! Parts: cut from what is stored or on its way into the store; and the whole behind a part that the farm was asked for.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::context::Exchange;
use super::fetch::{self, Job};
use super::forward::Reply;
use super::question::Asked;
use super::question::Keys;
use super::rewrite;
use crate::body::{Arriving, Body, Response, Sequence, SpoolReader, StoredBody};
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::policy::cache::ResponseFacts;
use crate::policy::cache::range::{self, Part, Wanted, WholeFacts};
use crate::snapshot::{CachePolicy, Route};
use crate::store::{Done, Filling, Found, Joined, PartLead};

/// How far behind the last byte that has arrived a part may begin to be waited for. Who seeks further is served sooner
/// by the farm itself.
const NEAR: u64 = 1024 * 1024;

/// How long: an origin that sends less than that in a second may well send the part sooner.
const PATIENCE: Duration = Duration::from_secs(1);

/// True when the request asks for a part.
pub(super) fn is_asked(exchange: &Exchange) -> bool {
    range::is_asked(&exchange.head.method, &exchange.head.headers)
}

/// The part that the client asked for of `whole`, whose head is the one that goes with all of it, and whose `length`
/// bytes are in `body`, the only ones of their date or not. `Err` hands `body` back: the client gets the whole, and its record says why.
///
/// # Errors
/// `RangeNotSatisfiable`.
pub(super) fn answer(
    exchange: &mut Exchange,
    whole: Response,
    (length, dated_alone): (u64, bool),
    body: Body,
) -> Result<Result<Response, Body>, ProxyError> {
    let facts = WholeFacts { status: whole.status, headers: &whole.headers, length, dated_alone };
    match (range::decide(&exchange.head.method, &exchange.head.headers, &facts), body) {
        (Wanted::Nothing, _) => Err(ProxyError::new(ErrorKind::RangeNotSatisfiable(length), Stage::Encode)),
        (Wanted::One(part), Body::Stored(body)) => {
            Ok(Ok(one(whole, part, length, Body::Stored(body.slice(part.range())))))
        }
        (Wanted::One(part), Body::Spool(reader)) => {
            Ok(Ok(one(whole, part, length, Body::stream(Arriving::new(reader, part.range())))))
        }
        (Wanted::Several(parts), Body::Stored(body)) => {
            let boundary = format!("{:016x}{:016x}", exchange.worker.random(), exchange.worker.random());
            Ok(Ok(several(whole, &parts, length, &body, &boundary)))
        }
        (wanted, body) => {
            let reason = match wanted {
                Wanted::Whole(reason) => reason.token(),
                // Several parts of what is still arriving would have to be waited for one after the other.
                _ => Some("range_arriving"),
            };
            if let Some(cache) = &mut exchange.cache {
                cache.detail = cache.detail.or(reason);
            }
            Ok(Err(body))
        }
    }
}

fn one(mut whole: Response, part: Part, length: u64, body: Body) -> Response {
    range::mend_one(&mut whole.headers, part, length);
    Response { status: StatusCode::PARTIAL_CONTENT, body, ..whole }
}

fn several(mut whole: Response, parts: &[Part], length: u64, body: &StoredBody, boundary: &str) -> Response {
    let media_type = range::mend_several(&mut whole.headers, boundary);
    let pieces = parts.iter().enumerate().flat_map(|(number, part)| {
        let head = range::part_head(boundary, number == 0, media_type.as_ref(), *part, length);
        [Body::Full(head), Body::Stored(body.slice(part.range()))]
    });
    let pieces = pieces.chain([Body::Full(range::multipart_end(boundary))]);
    Response { status: StatusCode::PARTIAL_CONTENT, body: Body::stream(Sequence::new(pieces)), ..whole }
}

/// Whether a response that is still arriving can answer this request soon: all of it, or a part whose first byte is
/// here, or the next to come, or becomes that within [`PATIENCE`].
pub(super) async fn is_near(exchange: &Exchange, filling: &Filling, reader: &mut SpoolReader) -> bool {
    if !is_asked(exchange) {
        return true;
    }
    let Some(length) = reader.expected() else { return false };
    let head = filling.head();
    // What is too little to answer with a part gets the whole, which is here as well.
    let facts = WholeFacts { status: head.status, headers: &head.headers, length, dated_alone: true };
    match range::decide(&exchange.head.method, &exchange.head.headers, &facts) {
        Wanted::Whole(_) | Wanted::Nothing => true,
        Wanted::One(part) => {
            let arrived = reader.arrived();
            let here = poll_fn(|cx| reader.poll_arrived(cx, part.first));
            part.first <= arrived
                || part.first - arrived <= NEAR && tokio::time::timeout(PATIENCE, here).await.unwrap_or(false)
        }
        Wanted::Several(_) => false,
    }
}

/// The whole of something that a part is forwarded of, as `lookup` left it.
pub(super) struct Behind {
    pub(super) policy: Arc<CachePolicy>,
    pub(super) keys: Keys,
    /// The variant to ask for.
    pub(super) variant: u64,
    /// The duty towards those who wait for the whole to be begun; `None` where the part lies too far behind.
    pub(super) lead: Option<PartLead>,
}

/// True when a fetch of the whole would bring the part that is asked for soon.
pub(super) fn begins_near(exchange: &Exchange) -> bool {
    range::begins_within(&exchange.head.headers, NEAR)
}

/// Fetches the whole behind a part that the farm has answered, for those who wait for it and those who ask next: in a
/// task of its own, one for each whole, where it would be kept, and while the worker has no more such tasks than it may.
/// Those who wait fail as the part did, or go their own way where nothing is fetched.
pub(super) fn fill_behind(
    exchange: &Exchange,
    route: &Arc<Route>,
    behind: Option<Behind>,
    reply: Result<&Reply, &ProxyError>,
) {
    let Some(mut behind) = behind else { return };
    let lead = behind.lead.take();
    let begun = reply.map(|reply| begin(exchange, route, behind, reply));
    let Some(lead) = lead else { return };
    match begun {
        Ok(Ok(())) => drop(lead.share(Done)),
        Ok(Err(reason)) => lead.release(reason),
        Err(error) => lead.fail(*error),
    }
}

/// Begins the fetch, unless it is under way or done.
fn begin(exchange: &Exchange, route: &Arc<Route>, behind: Behind, reply: &Reply) -> Result<(), &'static str> {
    let Behind { policy, keys, variant, .. } = behind;
    let response = ResponseFacts {
        status: reply.response.status,
        headers: &reply.response.headers,
        sent: reply.sent,
        received: reply.received,
    };
    let store = &exchange.worker.shared.store;
    if let Err(reason) = range::worth_filling(&Asked::of(exchange).facts(), &response, &policy.params) {
        if reason.is_lasting() {
            store.remember_refusal(keys.asked.hash, reason.token(), reply.received);
        }
        tracing::debug!(reason = reason.token(), "the whole is not fetched behind a part");
        return Err(reason.token());
    }
    let place = Arc::clone(&exchange.worker.behind).try_acquire_owned().map_err(|_full| "too_many_fills")?;
    let Joined::Leader(lead) = store.join(&keys.asked, variant) else { return Ok(()) };
    // The fetch that brought it may have ended between the look and the join.
    if let Found::Base(_) = store.find(keys.asked.hash, &exchange.head.headers, rewrite::fingerprint(route)) {
        return Ok(());
    }
    let job = Job::new(exchange, route, &policy, keys, lead, None).map_err(|error| error.kind.row().reason)?;
    fetch::start_behind(job, place);
    Ok(())
}
