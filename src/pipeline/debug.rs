//! What an operator with the key sees of the filters: an answer without some of them, and what each of them did.

use std::sync::Arc;

use aws_lc_rs::hmac;
use http::header::{CACHE_CONTROL, ETAG};
use http::{HeaderMap, HeaderValue};

use super::context::Exchange;
use crate::body::Response;
use crate::policy::debug::{self, RULES, STATUS};
use crate::policy::dictionary::{DeltaCoding, NoFamily};
use crate::policy::filter::{Filter, Filters};
use crate::policy::immutable;
use crate::policy::optimise::{self, OptimiseFacts, Optimiser};
use crate::policy::own_tag;
use crate::policy::rewrite::{self, RewriteFacts};
use crate::policy::validators::EntityTag;
use crate::snapshot::Route;
use crate::store::Base;

/// Of an exchange that is looked into.
#[derive(Debug)]
pub(super) struct Debug {
    /// What the route has on.
    on: Filters,
    /// What the order has switched off.
    off: Filters,
    rules_off: bool,
    /// What the answer was made from.
    base: Option<Arc<Base>>,
}

/// The route as the client's order wants it, where there is one with the right signature; else the route itself. The field
/// goes no further. Cost on a route without a key: one comparison.
pub(super) fn take(exchange: &mut Exchange, route: Arc<Route>) -> Arc<Route> {
    let Some(key) = &route.debug_key else { return route };
    let ordered = debug::read(&exchange.head.headers, exchange.now).and_then(|order| {
        let message = format!("{}:{}", exchange.host(), order.signed);
        let signature = unhex(order.signature)?;
        hmac::verify(key, message.as_bytes(), &signature).ok()?;
        Some((order.off, order.rules_off))
    });
    exchange.head.headers.remove(debug::ORDER);
    let Some((off, rules_off)) = ordered else { return route };
    exchange.debug = Some(Box::new(Debug { on: route.filters, off, rules_off, base: None }));
    let mut changed = Route { filters: route.filters.minus(off), ..Route::clone(&route) };
    if rules_off && changed.rewrite.take().is_some() {
        // What is stored has been through the rules.
        changed.cache = None;
    }
    Arc::new(changed)
}

/// Remembers what the answer is made from. Cost without an order: one comparison.
pub(super) fn selected(exchange: &mut Exchange, base: &Arc<Base>) {
    if let Some(debug) = &mut exchange.debug {
        debug.base = Some(Arc::clone(base));
    }
}

/// Tells what each filter did. Nobody is to keep an answer that lacks some.
pub(super) fn tell(exchange: &Exchange, route: &Route, response: &mut Response) {
    let Some(debug) = &exchange.debug else { return };
    let told: Vec<_> = Filter::ALL
        .into_iter()
        .filter(|filter| debug.on.contains(*filter) && !filter.is_in_stream())
        .filter_map(|filter| Some((filter.token(), debug.outcome(filter, exchange, &response.headers)?)))
        .chain(debug.rules(route).map(|outcome| (RULES, outcome)))
        .map(|(name, outcome)| format!("{name}; {outcome}"))
        .collect();
    if let Ok(value) = HeaderValue::try_from(told.join(", ")) {
        response.headers.insert(STATUS, value);
    }
    if debug.off != Filters::default() || debug.rules_off {
        response.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

fn skipped(reason: &str) -> String {
    format!("skip={reason}")
}

impl Debug {
    /// What a filter did; `None` where it is for other types.
    fn outcome(&self, filter: Filter, exchange: &Exchange, headers: &HeaderMap) -> Option<String> {
        let done = |is: bool, reason: &str| if is { "done".to_owned() } else { skipped(reason) };
        if self.off.contains(filter) {
            return Some("off".to_owned());
        }
        let stored =
            |base: Option<&Arc<Base>>, reason: &str| skipped(if base.is_some() { reason } else { "not_stored" });
        match filter {
            Filter::Optimiser(optimiser) => match &self.base {
                Some(base) => optimised(optimiser, base, headers),
                None => Some(skipped("not_stored")),
            },
            Filter::EtagOwn => {
                let tag = headers.get(ETAG).and_then(|tag| EntityTag::parse(tag.as_bytes()));
                let is_own = tag.is_some_and(|tag| own_tag::digest(tag.split().0).is_some());
                let reason = if tag.is_some() { "tagged" } else { "not_yet" };
                Some(if is_own { done(true, "") } else { stored(self.base.as_ref(), reason) })
            }
            Filter::Immutable => {
                let Some(base) = &self.base else { return Some(skipped("not_stored")) };
                let reason = match immutable::version(base.life().key().place().path) {
                    None => "name",
                    Some(_) if !immutable::is_fit(base.head().status, &base.head().headers) => "life",
                    Some(_) => "not_proven",
                };
                Some(done(reason == "not_proven" && base.life().is_immutable(), reason))
            }
            // Told of with the rules.
            Filter::Lazy | Filter::ThirdPartyDefer => None,
            Filter::HintsPreload => {
                let reason = if exchange.page.is_some() { "not_learned" } else { "not_of_use" };
                Some(done(exchange.page.as_ref().is_some_and(|page| page.was_told()), reason))
            }
            Filter::Dict => {
                let Some(base) = &self.base else { return Some(skipped("not_stored")) };
                let family = base.offer(exchange.worker.shared.store.seeds());
                if matches!(family, Err(NoFamily::Type)) {
                    return None;
                }
                let reason = family.map_or_else(NoFamily::token, |_| exchange.dictionary.unwrap_or("not_offered"));
                Some(done(DeltaCoding::from_token(reason).is_some(), reason))
            }
        }
    }

    /// What the element rules did; `None` where there are none, or it cannot be told.
    fn rules(&self, route: &Route) -> Option<String> {
        if self.rules_off {
            return Some("off".to_owned());
        }
        let head = self.base.as_ref()?.head();
        let facts = RewriteFacts { status: head.status, headers: &head.headers };
        let applied = rewrite::applies(&facts, &route.rewrite.as_ref()?.params);
        Some(applied.map_or_else(|reason| skipped(reason.token()), |_plan| "done".to_owned()))
    }
}

/// What an optimiser did for a stored response; `None` where it is for other types.
fn optimised(optimiser: Optimiser, base: &Base, headers: &HeaderMap) -> Option<String> {
    let head = base.head();
    let facts = OptimiseFacts { status: head.status, headers: &head.headers };
    match optimise::decide(&facts, optimise::Optimisers::default().with(optimiser)) {
        Err((None, _)) => return None,
        Err((Some(_), reason)) => return Some(skipped(reason.token())),
        Ok(_) => {}
    }
    let tag = headers.get(ETAG).and_then(|tag| EntityTag::parse(tag.as_bytes()));
    let made = tag.and_then(|tag| tag.split().1).is_some_and(|made| made.rules == optimiser.fingerprint());
    if made {
        return Some("done".to_owned());
    }
    Some(skipped(base.life().refusal().unwrap_or("not_yet")))
}

/// The bytes that hexadecimal digits spell; `None` where they are no SHA-256.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    let bytes: Option<Vec<u8>> = pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect();
    bytes.filter(|bytes| bytes.len() == 32)
}
