//! What the cache would do with a request, without doing it: the same questions to the same policies, and nothing else.

use std::sync::Arc;

use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, ETAG, LAST_MODIFIED, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, Method, uri::Scheme};

use super::question::{Asked, Question, passed_by};
use super::rewrite;
use super::sticky;
use crate::authority::Authority;
use crate::clock::Now;
use crate::observe::explanation::{
    ChildNote, Explanation, RefusalNote, StoredNote, TAGS_SHOWN, VaryNote, WouldStore, shown,
};
use crate::policy::cache::cookies;
use crate::policy::cache::directives::RequestDirectives;
use crate::policy::cache::key::CacheKey;
use crate::policy::cache::next::Next;
use crate::policy::cache::query::{self, ContentDigest};
use crate::policy::cache::reuse::{self, Reuse, Validate};
use crate::policy::cache::stale::{self, StaleFacts};
use crate::policy::cache::storing;
use crate::policy::cache::{CacheParams, RequestFacts, ResponseFacts};
use crate::policy::uri::NormalUri;
use crate::snapshot::Route;
use crate::store::{Base, Found, Store};

/// A request nobody made, without content.
#[derive(Debug, Clone)]
pub struct Supposed<'a> {
    /// The method.
    pub method: &'a Method,
    /// By the listener it would come by.
    pub scheme: &'a Scheme,
    /// Host and port.
    pub authority: &'a Authority,
    /// In normal form.
    pub uri: &'a NormalUri,
    /// The client's fields.
    pub headers: HeaderMap,
}

/// What the cache of `route` would do with a request; `None` where the route has none. Nothing is counted, fetched or
/// moved. Cost: a copy of what is stored but the bodies, and short locks.
#[must_use]
pub fn explain(mut supposed: Supposed<'_>, route: &Route, store: &Store, now: Now) -> Option<Explanation> {
    let policy = route.cache.as_ref()?;
    let params = &policy.params;
    sticky::hide(&mut supposed.headers, route);
    cookies::strip(&mut supposed.headers, &params.strip_cookies);
    let asked = Asked {
        method: supposed.method,
        scheme: supposed.scheme.as_str(),
        host: supposed.authority.for_scheme(supposed.scheme),
        uri: supposed.uri,
        headers: &supposed.headers,
        has_body: false,
        content: query::takes_part(supposed.method, params).then(|| ContentDigest::of(&[])),
    };
    let told = Explanation { policy: policy.name.to_string(), ..Explanation::default() };
    let question = match Question::put(&asked, route, policy, store.seeds()) {
        Ok(question) => question,
        Err(reason) => {
            let (bypass, fwd) = (Some(reason.token()), Some(passed_by(reason).token()));
            return Some(Explanation { bypass, next: "bypass", reason: bypass, fwd, ..told });
        }
    };
    let rules = rewrite::fingerprint(route);
    let look = |key: &CacheKey| store.peek(key, &supposed.headers, rules);
    let (ruled, shelf) = question.locate(store, look, |shelf| &shelf.found);
    let key = ruled.as_ref().unwrap_or(&question.key);
    let next = question.next(key, &shelf.found, store, params, now);
    let (selected, variant) = match &shelf.found {
        Found::Base(base) => (Some(base), base.head().selecting.hash(store.seeds())),
        Found::OtherVariants(variant) => (None, *variant),
        Found::Nothing => (None, 0),
    };
    let newest = shelf.bases.iter().map(|base| base.head().terms.freshness.received).max_by_key(|now| now.mono);
    let refusal = shelf.refusal.filter(|refusal| refusal.is_newer_than(newest));
    let refused = selected.and_then(|base| stale_refused(base, &question.directives, params, now));
    let (fwd, detail) = match next {
        Next::Alone(forwarded, reason) => (Some(forwarded), Some(reason)),
        Next::Part(forwarded) => (Some(forwarded), Some("range")),
        Next::Fetch(forwarded, validates) => (Some(forwarded), validates.map(Validate::token)),
        Next::Stale(stale) => (None, Some(stale.grant.token())),
        Next::Hit | Next::OnlyIfCached => (None, None),
    };
    let goes = matches!(next, Next::Part(_) | Next::Fetch(..));
    Some(Explanation {
        key: Some(shown(key.text.as_bytes())),
        reuse_only: question.reuse_only(),
        next: next.token(),
        reason: detail,
        fwd: fwd.map(|forwarded| forwarded.token()),
        stale_refused: refused.filter(|_| goes),
        joins: goes && shelf.fetches.contains(&variant) || matches!(next, Next::Part(_)) && shelf.is_part_asked,
        fetches: shelf.fetches.len(),
        refusal: refusal
            .map(|refusal| RefusalNote { reason: refusal.reason, alone_for: refusal.until.since(now).as_secs() }),
        would_store: selected.map(|base| would_store(base, &asked, params)),
        stored: shelf.bases.iter().map(|base| note(base, selected, route, store, now)).collect(),
        ..told
    })
}

/// Why a selected response that needs a validation may not answer at once.
fn stale_refused(base: &Base, directives: &RequestDirectives, params: &CacheParams, now: Now) -> Option<&'static str> {
    let terms = base.terms();
    let facts = StaleFacts { terms: &terms, request: directives, setback: base.life().setback() };
    stale::at_once(&facts, params, now).err().map(|reason| reason.token())
}

/// What would become of an answer to this request that came like the stored one did.
fn would_store(base: &Base, asked: &Asked<'_>, params: &CacheParams) -> WouldStore {
    let head = base.head();
    let received = head.terms.freshness.received;
    let response = ResponseFacts { status: head.status, headers: &head.headers, sent: received, received };
    match storing::decide(
        &RequestFacts { method: storing::fetched_by(asked.method), ..asked.facts() },
        &response,
        params,
    ) {
        Ok(storable) => WouldStore { stored: true, reason: storable.terms.freshness.lifetime.source.token() },
        Err(reason) => WouldStore { stored: false, reason: reason.token() },
    }
}

/// A field by which clients identify themselves: whoever reads an explanation is not to become one of them.
fn is_secret(name: &HeaderName) -> bool {
    [COOKIE, AUTHORIZATION, PROXY_AUTHORIZATION].contains(name)
}

fn note(base: &Arc<Base>, selected: Option<&Arc<Base>>, route: &Route, store: &Store, now: Now) -> StoredNote {
    let (head, terms) = (base.head(), base.terms());
    let rules = rewrite::fingerprint(route);
    let dictionary = route.dictionaries.as_ref().map(|policy| match base.offer(store.seeds()) {
        Ok(offer) => format!("{}; {} kept", shown(offer.value.as_bytes()), policy.shelf.kept(offer)),
        Err(reason) => reason.token().to_owned(),
    });
    let seconds = |duration: std::time::Duration| duration.as_secs();
    let field = |name: HeaderName| head.headers.get(name).map(|value| shown(value.as_bytes()));
    let state = match reuse::decide(&terms, &RequestDirectives::default(), now) {
        Reuse::Fresh => "fresh",
        Reuse::Validate(why) | Reuse::OnlyIfCached(why) => why.token(),
    };
    let vary = head.selecting.fields().map(|(name, value)| VaryNote {
        name: name.to_string(),
        value: value.map(|value| if is_secret(name) { format!("({} bytes)", value.len()) } else { shown(value) }),
    });
    let children = store.children(base.life()).into_iter().map(|(kind, child)| ChildNote {
        coding: kind.token(),
        level: kind.level,
        body: child.body().remaining(),
    });
    StoredNote {
        selected: selected.is_some_and(|selected| selected.life().id() == base.life().id()),
        rules_in_force: head.rules == rules,
        status: head.status.as_u16(),
        state,
        age: seconds(terms.freshness.age(now)),
        ttl: terms.freshness.ttl(now),
        lifetime: seconds(terms.freshness.lifetime.duration),
        lifetime_by: terms.freshness.lifetime.source.token(),
        must_revalidate: terms.must_revalidate,
        stale_while_revalidate: terms.stale_while_revalidate.map(seconds),
        stale_if_error: terms.stale_if_error.map(seconds),
        received: terms.freshness.received.wall,
        etag: field(ETAG),
        last_modified: field(LAST_MODIFIED),
        content_type: field(CONTENT_TYPE),
        content_encoding: field(CONTENT_ENCODING),
        vary: vary.collect(),
        tags: head.tags.names().take(TAGS_SHOWN).map(shown).collect(),
        tags_total: head.tags.names().len(),
        body: base.body().remaining(),
        bytes: base.bytes(),
        in_file: base.body().is_in_file(),
        hits: base.life().hits(),
        refreshing: base.life().is_refreshing(),
        dictionary,
        failing: base.life().setback().is_some_and(|setback| setback.counts(now)),
        children: children.collect(),
    }
}
