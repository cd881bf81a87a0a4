//! What a request comes to before the store is asked: whether the cache takes part, under which key it looks, and what
//! comes next with what it finds. Asked by the stage that looks up, for a client, and by the one that explains.

use std::sync::Arc;

use http::{HeaderMap, Method};

use super::context::Exchange;
use crate::clock::Now;
use crate::policy::cache::bypass::{self, Bypass, Participation};
use crate::policy::cache::directives::RequestDirectives;
use crate::policy::cache::key::{self, CacheKey, KeyFacts, Seeds};
use crate::policy::cache::next::{self, Next, NextFacts, Stored};
use crate::policy::cache::query::ContentDigest;
use crate::policy::cache::search::SearchRule;
use crate::policy::cache::status::Forwarded;
use crate::policy::cache::{CacheParams, RequestFacts};
use crate::policy::uri::NormalUri;
use crate::snapshot::{CachePolicy, Route};
use crate::store::{Found, Store};

/// What the stage sees of a request, from a client or from an operator who wants to know. `headers` are those after
/// `strip_cookies`.
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) scheme: &'a str,
    pub(super) host: &'a str,
    pub(super) uri: &'a NormalUri,
    pub(super) headers: &'a HeaderMap,
    pub(super) has_body: bool,
    /// Of a QUERY that takes part: what was gathered of it.
    pub(super) content: Option<ContentDigest>,
}

impl<'a> Asked<'a> {
    pub(super) fn of(exchange: &'a Exchange) -> Self {
        Self {
            method: &exchange.head.method,
            scheme: exchange.head.scheme.as_str(),
            host: exchange.host(),
            uri: &exchange.uri,
            headers: &exchange.head.headers,
            has_body: exchange.body.exact_len() != Some(0),
            content: None,
        }
    }

    pub(super) fn facts(&self) -> RequestFacts<'_> {
        RequestFacts { method: self.method, path: self.uri.path(), headers: self.headers, has_body: self.has_body }
    }
}

/// What the store is asked.
pub(super) struct Question {
    /// Of exactly what is asked for; what origins said of queries may lead to another, see [`Question::locate`].
    pub(super) key: CacheKey,
    pub(super) directives: RequestDirectives,
    pub(super) participation: Participation,
    /// What origins said of queries concerns it.
    heeds_rules: bool,
}

impl Question {
    /// The question a request comes to.
    ///
    /// # Errors
    /// Why the request passes the cache by.
    pub(super) fn put(asked: &Asked<'_>, route: &Route, policy: &CachePolicy, seeds: &Seeds) -> Result<Self, Bypass> {
        let directives = policy.params.directives(asked.headers);
        let participation = bypass::decide(&asked.facts(), &directives, &policy.params);
        if let Participation::Bypass(reason) = participation {
            return Err(reason);
        }
        let heeds_rules = asked.content.is_none();
        Ok(Self { key: key_of(asked, route, policy, seeds), directives, participation, heeds_rules })
    }

    /// Why its answer could not be stored whatever it is.
    pub(super) fn reuse_only(&self) -> Option<&'static str> {
        match self.participation {
            Participation::ReuseOnly(reason) => Some(reason.token()),
            Participation::Full | Participation::Bypass(_) => None,
        }
    }

    /// The keys of a fetch that is asked for under `key`.
    pub(super) fn keys(&self, key: &CacheKey) -> Keys {
        Keys { asked: key.clone(), exact: key.search.is_some().then(|| self.key.clone()) }
    }

    /// Where the answer stands, and what `look` sees there: by the rule that the origin stated for queries of this path,
    /// else under the key itself, which `None` stands for. What is not there either is to be fetched by the rule, for
    /// everybody who asks for the same.
    pub(super) fn locate<T>(
        &self,
        store: &Store,
        look: impl Fn(&CacheKey) -> T,
        found: impl Fn(&T) -> &Found,
    ) -> (Option<CacheKey>, T) {
        let ruled = if self.heeds_rules { store.ruled(&self.key) } else { None };
        let Some(ruled) = ruled else { return (None, look(&self.key)) };
        let by_rule = look(&ruled);
        if matches!(found(&by_rule), Found::Base(_)) {
            return (Some(ruled), by_rule);
        }
        let exact = look(&self.key);
        if matches!(found(&exact), Found::Nothing) { (Some(ruled), by_rule) } else { (None, exact) }
    }

    /// What comes next, given what the store holds under `key`.
    pub(super) fn next(&self, key: &CacheKey, found: &Found, store: &Store, params: &CacheParams, now: Now) -> Next {
        let terms = if let Found::Base(base) = found { Some(base.terms()) } else { None };
        let stored = match (found, &terms) {
            (Found::Base(_), Some(terms)) => Stored::Selected(terms),
            (Found::OtherVariants(_), _) => Stored::OtherVariants,
            _ => Stored::Nothing,
        };
        let facts = NextFacts { participation: self.participation, request: &self.directives, stored };
        let setback = || if let Found::Base(base) = found { base.life().setback() } else { None };
        next::decide(&facts, setback, || store.refusal(key.hash, now), params, now)
    }
}

/// The keys of one fetch.
pub(super) struct Keys {
    /// By which others find it.
    pub(super) asked: CacheKey,
    /// Of exactly what is asked for; `None` = `asked`.
    exact: Option<CacheKey>,
}

impl Keys {
    /// The key to store the answer under, which may state another rule of queries than the one it was asked for by.
    pub(super) fn of_answer(self, rule: Option<SearchRule>, seeds: &Seeds) -> CacheKey {
        if rule.as_ref() == self.asked.search.as_deref() {
            return self.asked;
        }
        let exact = self.exact.unwrap_or(self.asked);
        match rule {
            Some(rule) => exact.under(&Arc::new(rule), seeds),
            None => exact,
        }
    }
}

/// How a request that passes the cache by is told of.
pub(super) fn passed_by(reason: Bypass) -> Forwarded {
    if reason == Bypass::Method { Forwarded::Method } else { Forwarded::Bypass }
}

/// The primary key (DESIGN: scheme, host, normalised client-facing path and query, policy, route, and what the policy
/// adds).
fn key_of(asked: &Asked<'_>, route: &Route, policy: &CachePolicy, seeds: &Seeds) -> CacheKey {
    let facts = KeyFacts {
        scheme: asked.scheme,
        host: asked.host,
        path: asked.uri.path(),
        query: asked.uri.query(),
        policy: &policy.name,
        route: route.in_key.then_some(&*route.name),
        content: asked.content.as_ref(),
        headers: asked.headers,
    };
    key::build(&facts, &policy.params.key, seeds)
}
