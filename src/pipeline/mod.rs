//! ONE exchange, from a request head to the last word about its response.
//!
//! The order of the stages is written here and nowhere else. Data moves right only; a cache hit enters the same line
//! further right. A stage gathers facts, asks `policy`, and applies the decision: it has no rule of HTTP of its own.
//!
//! ```text
//! route ─► guard ─► (purge) ─► lookup ─► (fetch: forward ─► rewrite ─► fill) ─► encode ─► respond
//! ```

mod attempts;
mod context;
mod debug;
mod dictionary;
mod encode;
mod explain;
mod fetch;
mod fill;
mod forward;
mod guard;
mod hedge;
mod hints;
mod integrity;
mod lookup;
mod mirror;
mod purge;
mod query;
mod question;
mod range;
mod record;
mod respond;
mod rewrite;
mod route;
mod sticky;
mod study;
mod watched;
mod worker;
mod workshop;

use std::rc::Rc;

use crate::body::{Peer, Request, Response};
use crate::error::ProxyError;

pub use explain::{Supposed, explain};
pub use record::Record;
pub use respond::refuse;

use context::{Exchange, Ongoing};
use encode::Selected;
use lookup::Found;
use route::Routed;
pub use worker::{Shared, Worker};
pub use workshop::Workshop;

/// Answers one request. Errors become responses in `respond`, which also finishes the fields and opens the access
/// record; the driver hands the record back to [`Record::sent`] when the last byte is out.
///
/// The exchange is opened at once and not when the future is first polled, which would keep room for the request twice.
pub fn handle(worker: Rc<Worker>, peer: Rc<Peer>, request: Request) -> impl Future<Output = (Response, Record)> {
    let mut ongoing = Ongoing::open(worker, peer, request); // one snapshot, one clock reading
    async move {
        let outcome = run(ongoing.exchange()).await;
        respond::finish(ongoing.close(), outcome)
    }
}

async fn run(exchange: &mut Exchange) -> Result<Response, ProxyError> {
    let route = match route::run(exchange)? {
        Routed::Route(route) => route, // one form of the target for everything that follows
        Routed::Reply(reply) => return Ok(reply), // redirects and fixed responses need no farm
    };
    guard::run(exchange, &route)?; // cheap refusals come before anything is looked up or sent
    if let Some(told) = purge::run(exchange, &route).await? {
        return Ok(told); // PURGE is for us, not for the farm
    }
    let route = debug::take(exchange, route); // without what somebody with the key wants to do without
    sticky::take(exchange, &route); // our own cookie: neither the cache nor the farm sees it
    let selected = match lookup::run(exchange, &route).await? {
        Found::Selected(selected) => selected, // forward, rewrite and fill ran in the fetch that brought it
        Found::Forward(behind) => {
            hints::tell(exchange, &route); // the browser need not wait for all of what the farm is asked
            let reply = Box::pin(forward::run(exchange, &route)).await; // picks, sends, retries; hits carry none of it
            range::fill_behind(exchange, &route, behind, reply.as_ref()); // the whole, for others who want parts of it
            let reply = reply?;
            fill::invalidate(exchange, &reply.response).await; // what an unsafe request made untrue
            let method = &exchange.head.method;
            let rewritten = rewrite::run(&exchange.worker, &route, method, reply.response); // mandatory rules, in the stream
            let (worker, page, request) = (&exchange.worker, exchange.page.as_ref(), &exchange.head.headers);
            Selected::Passing(hints::learn(worker, page, request, rewritten.response))
        }
    };
    let mut response = encode::run(exchange, &route, selected).await?; // a hit serves what is ready, or a part of it
    debug::tell(exchange, &route, &mut response); // who has the key learns what the filters did
    Ok(response)
}
