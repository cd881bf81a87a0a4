//! A cache of nothing but policy: what `pipeline` and `store` do with the decisions, without a socket, a task or a bound.

use std::collections::BTreeMap;
use std::hash::RandomState;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AGE, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, HOST, PRAGMA, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use tidegate::clock::{Clock, Now};
use tidegate::policy::cache::bypass::{self, Bypass, Participation, ReuseOnly};
use tidegate::policy::cache::directives::RequestDirectives;
use tidegate::policy::cache::invalidation::{self, TargetFacts};
use tidegate::policy::cache::key::{self, CacheKey, KeyFacts, Seeds};
use tidegate::policy::cache::next::{self, Next, NextFacts};
use tidegate::policy::cache::purge::{self, Target};
use tidegate::policy::cache::query::{self, ContentDigest};
use tidegate::policy::cache::range::{self, Wanted, WholeFacts};
use tidegate::policy::cache::refresh::{self, Setback};
use tidegate::policy::cache::reuse::Validate;
use tidegate::policy::cache::search::SearchRule;
use tidegate::policy::cache::stale::{self, Grant, Trouble};
use tidegate::policy::cache::status::{CacheStatus, Forwarded};
use tidegate::policy::cache::storing::{self, Storable, Terms};
use tidegate::policy::cache::tags::{self, Tags};
use tidegate::policy::cache::validation::{self, ConditionFacts, HeadVerdict, StoredView, StoredWhole};
use tidegate::policy::cache::vary::Selecting;
use tidegate::policy::cache::{CacheParams, RequestFacts, ResponseFacts, cookies, groups, targeted};
use tidegate::policy::fields::{self, Identity};
use tidegate::policy::route::behind_prefix;
use tidegate::policy::uri::{self, NormalUri};
use tidegate::store::HIT_FOR_MISS;

use super::format::{End, Exchange};
use super::{Asked, LOCAL, Outcome, Player, SharedScript};

/// Lots drawn for early fetches: half of all are smaller.
const LOT: u64 = u64::MAX / 2;

/// The site that every case asks.
pub const SITE: &str = "case.test";

/// Who asks it.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// See the module.
pub struct Model {
    params: CacheParams,
    seeds: Seeds,
    /// Newest first.
    stored: Vec<Stored>,
    refused: BTreeMap<u128, (&'static str, Now)>,
    /// By path.
    rules: BTreeMap<u128, Arc<SearchRule>>,
}

#[derive(Debug, Clone)]
struct Stored {
    key: CacheKey,
    status: StatusCode,
    headers: HeaderMap,
    terms: Terms,
    selecting: Selecting,
    body: String,
    setback: Option<Setback>,
    tags: Tags,
}

impl Stored {
    /// True when it answers the URL of this key.
    fn is_of(&self, exact: &CacheKey, seeds: &Seeds) -> bool {
        match &self.key.search {
            None => self.key.uri == exact.uri,
            Some(rule) => self.key.uri == exact.under(rule, seeds).uri,
        }
    }

    fn view(&self) -> StoredView<'_> {
        StoredView { headers: &self.headers, rules: 0 }
    }
}

/// A request on its way through.
struct Request<'a> {
    method: Method,
    uri: NormalUri,
    headers: HeaderMap,
    content: Option<&'a str>,
    now: Now,
}

impl Request<'_> {
    fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            method: &self.method,
            path: self.uri.path(),
            headers: &self.headers,
            has_body: self.content.is_some(),
        }
    }

    /// `pipeline::lookup::refresh`: what is asked on nobody's behalf.
    fn behind(&self) -> Self {
        let mut headers = self.headers.clone();
        for name in [RANGE, CACHE_CONTROL, PRAGMA] {
            headers.remove(name);
        }
        Self { method: storing::fetched_by(&self.method).clone(), uri: self.uri.clone(), headers, ..*self }
    }
}

/// The origin's answer.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
    complete: bool,
    sent: Now,
    received: Now,
}

impl Reply {
    fn facts(&self) -> ResponseFacts<'_> {
        ResponseFacts { status: self.status, headers: &self.headers, sent: self.sent, received: self.received }
    }

    fn passed_on(self) -> (StatusCode, HeaderMap, String, bool) {
        (self.status, self.headers, self.body, self.complete)
    }
}

/// The origin as this exchange reaches it.
struct Farm<'a> {
    script: &'a SharedScript,
    clock: &'a Clock,
}

impl Farm<'_> {
    /// `None` when it closes without an answer. A request `for_cache` speaks for no client.
    fn ask(&self, request: &Request<'_>, headers: &HeaderMap, for_cache: bool) -> Option<Reply> {
        let sent = self.clock.now();
        let mut headers = headers.clone();
        let facts = fields::RequestFacts {
            version: Version::HTTP_11,
            https: false,
            port: 80,
            peer: (!for_cache).then_some(CLIENT),
            trusted: false,
            upgrade: None,
            request_id: HeaderValue::from_static("1"),
        };
        fields::forward_request(&mut headers, &facts, &Identity::new(1));
        let asked = Asked {
            method: request.method.to_string(),
            target: request.uri.as_str().into(),
            fields: joined(&headers),
            content: request.content.unwrap_or_default().into(),
        };
        let answer = self.script.lock().unwrap().answer(asked, self.clock);
        if answer.end == End::Close {
            return None;
        }
        let status = StatusCode::from_u16(answer.status).unwrap();
        let mut headers = field_map(&answer.fields);
        let bodiless = request.method == Method::HEAD || matches!(answer.status, 204 | 304);
        let body = answer.body.filter(|_| !bodiless).unwrap_or_default();
        if answer.end == End::Sized && !bodiless {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        let received = self.clock.now();
        let facts = fields::ResponseFacts { version: Version::HTTP_11, switching: false, now: received };
        fields::forward_response(&mut headers, facts, &Identity::new(1));
        Some(Reply { status, headers, body, complete: answer.end != End::Cut, sent, received })
    }
}

/// What goes to the client.
type Answer = (StatusCode, HeaderMap, String, bool);

impl Player for Model {
    fn exchange(&mut self, exchange: &Exchange, script: &SharedScript, clock: &Clock) -> Outcome {
        let mut headers = field_map(&exchange.fields);
        headers.insert(HOST, HeaderValue::from_static(SITE));
        cookies::strip(&mut headers, &self.params.strip_cookies);
        let request = Request {
            method: Method::from_bytes(exchange.method.as_bytes()).unwrap(),
            uri: uri::normalise(&Bytes::from(exchange.target.clone())).unwrap(),
            headers,
            content: exchange.content.as_deref(),
            now: clock.now(),
        };
        let mut cache = None;
        let answer = self.run(&request, &Farm { script, clock }, &mut cache);
        let (status, mut headers, body, complete) = answer;
        if let Some(cache) = cache {
            targeted::remove(&mut headers);
            cache.add_to(&mut headers);
        }
        tags::hide(&mut headers, &self.params.tags);
        let body =
            if request.method == Method::HEAD || status == StatusCode::NOT_MODIFIED { String::new() } else { body };
        Outcome { status: status.as_u16(), fields: joined(&headers), body, complete, asked: Vec::new() }
    }
}

impl Model {
    pub fn new(params: CacheParams) -> Self {
        let seeds = Seeds { first: RandomState::new(), second: RandomState::new() };
        Self { params, seeds, stored: Vec::new(), refused: BTreeMap::new(), rules: BTreeMap::new() }
    }

    /// `pipeline::lookup`
    fn run(&mut self, request: &Request<'_>, farm: &Farm<'_>, cache: &mut Option<CacheStatus<'static>>) -> Answer {
        if purge::is_purge(&request.method) {
            return self.purge(request);
        }
        let directives = RequestDirectives::parse(&request.headers);
        let directives = if self.params.ignore_request_directives { directives.without_wishes() } else { directives };
        let participation = bypass::decide(&request.facts(), &directives, &self.params);
        if let Participation::Bypass(reason) = participation {
            let forwarded = if reason == Bypass::Method { Forwarded::Method } else { Forwarded::Bypass };
            *cache = Some(alone(forwarded, reason.token()));
            return self.pass(request, farm);
        }
        let exact = self.key(request, &request.uri);
        let (key, found) = self.locate(request, &exact);
        let (terms, setback) = (found.map(|at| self.stored[at].terms), found.and_then(|at| self.stored[at].setback));
        let stored = match &terms {
            Some(terms) => next::Stored::Selected(terms),
            None if self.stored.iter().any(|stored| stored.key == key) => next::Stored::OtherVariants,
            None => next::Stored::Nothing,
        };
        let refused = self.refused.get(&key.hash).filter(|(_, until)| request.now.mono < until.mono);
        let facts = NextFacts { participation, request: &directives, stored };
        let next = next::decide(&facts, || setback, || refused.map(|(reason, _)| *reason), &self.params, request.now);
        let (forwarded, detail) = match (next, found) {
            (Next::Hit, Some(at)) => {
                let stored = &self.stored[at];
                let ttl = Some(stored.terms.freshness.ttl(request.now));
                let (answer, detail) = answer(request, stored, farm.clock.now(), true);
                // Cases leave nothing to chance: the lot is as good as certain either way.
                let due = self.params.early_refresh && refresh::is_due_early(&stored.terms, || LOT, request.now);
                let rests = stored.setback.is_some_and(|setback| setback.rests(request.now));
                let early = due && !rests && participation != Participation::ReuseOnly(ReuseOnly::RequestNoStore);
                let detail = early.then_some("early_refresh").or(detail);
                *cache = Some(CacheStatus { ttl, detail, ..CacheStatus::default() });
                if early {
                    self.fetch(&request.behind(), farm, (exact, key, found, true), &RequestDirectives::default());
                }
                return answer;
            }
            (Next::Stale(stale), Some(at)) => {
                let (told, answer) = stand_in(request, &self.stored[at], stale.grant, farm.clock);
                *cache = Some(told);
                if stale.refresh {
                    // Behind the answer: nobody sees what comes of it but the store.
                    self.fetch(&request.behind(), farm, (exact, key, found, true), &RequestDirectives::default());
                }
                return answer;
            }
            (Next::OnlyIfCached | Next::Hit | Next::Stale(_), _) => {
                *cache = Some(CacheStatus::only_if_cached());
                return local(StatusCode::GATEWAY_TIMEOUT);
            }
            (Next::Alone(forwarded, reason), _) => {
                *cache = Some(alone(forwarded, reason));
                return self.pass(request, farm);
            }
            // What is fetched behind a part is not played here.
            (Next::Part(forwarded), _) => {
                *cache = Some(alone(forwarded, ReuseOnly::Range.token()));
                return self.pass(request, farm);
            }
            (Next::Fetch(forwarded, validates), _) => (forwarded, validates.and_then(Validate::detail)),
        };
        let (told, answer) = self.fetch(request, farm, (exact, key, found, false), &directives);
        *cache = Some(CacheStatus { forwarded: Some(forwarded), detail: told.detail.or(detail), ..told });
        answer
    }

    /// `pipeline::question::locate`
    fn locate(&self, request: &Request<'_>, exact: &CacheKey) -> (CacheKey, Option<usize>) {
        let find = |key: &CacheKey| {
            self.stored.iter().position(|stored| stored.key == *key && stored.selecting.matches(&request.headers))
        };
        let heeds_rules = !query::takes_part(&request.method, &self.params);
        let rule = self.rules.get(&exact.path_hash(&self.seeds)).filter(|_| heeds_rules);
        let Some(rule) = rule else { return (exact.clone(), find(exact)) };
        let ruled = exact.under(rule, &self.seeds);
        let by_rule = find(&ruled);
        if by_rule.is_none() && self.stored.iter().any(|stored| stored.key == *exact) {
            return (exact.clone(), find(exact));
        }
        (ruled, by_rule)
    }

    fn key(&self, request: &Request<'_>, uri: &NormalUri) -> CacheKey {
        let content = query::takes_part(&request.method, &self.params);
        let content = content.then(|| ContentDigest::of(request.content.unwrap_or_default().as_bytes()));
        let facts = KeyFacts {
            scheme: "http",
            host: SITE,
            path: uri.path(),
            query: uri.query(),
            policy: "model",
            route: None,
            content: content.as_ref(),
            headers: &request.headers,
        };
        key::build(&facts, &self.params.key, &self.seeds)
    }

    /// `pipeline::forward`, and `pipeline::fill::invalidate` behind it.
    fn pass(&mut self, request: &Request<'_>, farm: &Farm<'_>) -> Answer {
        let Some(reply) = farm.ask(request, &request.headers, false) else { return local(StatusCode::BAD_GATEWAY) };
        if invalidation::applies(&request.method, reply.status) {
            let target = TargetFacts { scheme: "http", host: SITE, path: request.uri.path() };
            let also = invalidation::also(&target, &reply.headers);
            let named: Vec<_> = also.filter_map(|named| uri::normalise(&Bytes::from(named)).ok()).collect();
            for uri in named.iter().chain([&request.uri]) {
                self.invalidate(&self.key(request, uri));
            }
        }
        let groups = groups::invalidated(&request.method, &reply.headers);
        self.stored.retain(|stored| !stored.tags.groups().any(|group| groups.iter().any(|named| named == group)));
        reply.passed_on()
    }

    /// `pipeline::purge`, of what this policy keeps.
    fn purge(&mut self, request: &Request<'_>) -> Answer {
        let sender = purge::Sender { address: CLIENT, headers: &request.headers };
        match self.params.purge.as_ref().map(|params| params.admit(&sender)) {
            Some(Ok(())) => {}
            Some(Err(_)) => return local(StatusCode::FORBIDDEN),
            None => return local(StatusCode::METHOD_NOT_ALLOWED),
        }
        let ask = purge::Ask::read(SITE, &request.uri, &request.headers, &self.params.tags);
        let Ok(purge::Ask { target, soft }) = ask else { return local(StatusCode::BAD_REQUEST) };
        let exact = self.key(request, &request.uri);
        let (named, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.stored).into_iter().partition(|stored| self.names(&target, stored, &exact));
        let body = format!("{{\"purged\":{},\"arriving\":0}}\n", named.len());
        let status = if named.is_empty() { StatusCode::NOT_FOUND } else { StatusCode::OK };
        let softened =
            named.into_iter().map(|stored| Stored { terms: Terms { purged: true, ..stored.terms }, ..stored });
        self.stored = softened.filter(|_| soft).chain(others).collect();
        (status, HeaderMap::new(), body, true)
    }

    fn names(&self, target: &Target, stored: &Stored, exact: &CacheKey) -> bool {
        match target {
            Target::All | Target::Host(_) => true,
            Target::Url { .. } => stored.is_of(exact, &self.seeds),
            Target::Prefix { path, .. } => behind_prefix(stored.key.place().path, path).is_some(),
            Target::Tags(tags) => tags.iter().any(|tag| stored.tags.names().any(|name| name == tag)),
            Target::Groups { groups, .. } => groups.iter().any(|group| stored.tags.groups().any(|name| name == group)),
        }
    }

    fn invalidate(&mut self, exact: &CacheKey) {
        let seeds = &self.seeds;
        self.stored.retain(|stored| !stored.is_of(exact, seeds));
    }

    /// `pipeline::fetch`, of a key, to validate what is stored, behind an answer or not.
    fn fetch(
        &mut self,
        request: &Request<'_>,
        farm: &Farm<'_>,
        (exact, key, validating, behind): (CacheKey, CacheKey, Option<usize>, bool),
        directives: &RequestDirectives,
    ) -> (CacheStatus<'static>, Answer) {
        let mut headers = request.headers.clone();
        validation::clear(&mut headers);
        let unconditional = headers.clone();
        if let Some(at) = validating {
            validation::ask(&mut headers, self.stored[at].view());
        }
        let mut reply = farm.ask(request, &headers, true);
        if let (Some(at), Some(not_modified)) = (validating, &reply)
            && not_modified.status == StatusCode::NOT_MODIFIED
        {
            if validation::confirms(&not_modified.headers, self.stored[at].view()) {
                return self.freshen(request, not_modified, at, farm.clock);
            }
            reply = farm.ask(request, &unconditional, true);
        }
        let mut verdict = None;
        if let (Some(at), Some(head), &Method::HEAD) = (validating, &reply, &request.method) {
            let stored = &self.stored[at];
            let whole = StoredWhole { status: stored.status, view: stored.view(), length: stored.body.len() as u64 };
            match validation::compare_head(head.status, &head.headers, &whole) {
                HeadVerdict::Confirms => return self.freshen(request, head, at, farm.clock),
                other => verdict = Some(other),
            }
        }
        let trouble = match &reply {
            Some(reply) => Trouble::of_status(reply.status),
            None => Some(Trouble::Unreachable),
        };
        let forwarded_status = reply.as_ref().map(|reply| reply.status);
        if let Some(at) = validating
            && let Some(trouble) = trouble.or_else(|| self.breaks_off(at, reply.as_ref()?, directives))
        {
            let now = farm.clock.now();
            let stored = &mut self.stored[at];
            stored.setback = Some(Setback::after(stored.setback, Some(trouble), now));
            let grant = stale::in_trouble(&stored.terms, directives, &self.params, trouble, now);
            if let Some(grant) = grant.ok().or(behind.then_some(Grant::WhileRevalidate)) {
                let (told, answer) = stand_in(request, stored, grant, farm.clock);
                return (CacheStatus { forwarded_status, ..told }, answer);
            }
        }
        match reply {
            Some(reply) if request.method == Method::HEAD => {
                let differs = verdict == Some(HeadVerdict::Contradicts);
                if let Some(at) = validating.filter(|_| differs) {
                    self.stored[at].terms.purged = true;
                }
                let detail = Some(if differs { "head_differs" } else { "head" });
                (CacheStatus { detail, ..CacheStatus::default() }, reply.passed_on())
            }
            Some(reply) => self.take_in(request, reply, (exact, key, validating)),
            None => {
                let told = CacheStatus { detail: Some("fetch_failed"), ..CacheStatus::default() };
                (told, local(StatusCode::BAD_GATEWAY))
            }
        }
    }

    /// What is short enough to be read before it is believed, and breaks off; looked at only where what is stored could
    /// answer instead.
    fn breaks_off(&self, at: usize, reply: &Reply, directives: &RequestDirectives) -> Option<Trouble> {
        let trouble = Trouble::CutOff;
        let grant = stale::in_trouble(&self.stored[at].terms, directives, &self.params, trouble, reply.received);
        let storable = storing::decide(
            &RequestFacts { method: &Method::GET, path: "/", headers: &HeaderMap::new(), has_body: false },
            &reply.facts(),
            &self.params,
        );
        (!reply.complete && grant.is_ok() && storable.is_ok()).then_some(trouble)
    }

    fn may_store(&self, request: &Request<'_>, response: &ResponseFacts<'_>) -> Result<Storable, &'static str> {
        let facts = RequestFacts { method: storing::fetched_by(&request.method), has_body: false, ..request.facts() };
        storing::decide(&facts, response, &self.params).map_err(storing::NotStored::token)
    }

    fn freshen(
        &mut self,
        request: &Request<'_>,
        reply: &Reply,
        at: usize,
        clock: &Clock,
    ) -> (CacheStatus<'static>, Answer) {
        let mut stored = self.stored.remove(at);
        let headers = validation::freshen(stored.view(), &reply.headers, reply.received);
        let facts = ResponseFacts { status: stored.status, headers: &headers, ..reply.facts() };
        let told = CacheStatus { forwarded_status: Some(reply.status), ..CacheStatus::default() };
        match self.may_store(request, &facts) {
            Ok(storable) if storable.search.as_ref() != stored.key.search.as_deref() => {
                let (answer, _) = answer(request, &stored, clock.now(), true);
                let ttl = Some(stored.terms.freshness.ttl(clock.now()));
                (CacheStatus { ttl, detail: Some("gone"), ..told }, answer)
            }
            Ok(storable) => {
                stored.terms = storable.terms;
                stored.tags = storable.tags;
                stored.selecting = Selecting::new(&storable.vary, &request.headers);
                stored.headers = headers;
                stored.setback = None;
                let (answer, detail) = answer(request, &stored, clock.now(), true);
                let ttl = Some(stored.terms.freshness.ttl(clock.now()));
                self.stored.insert(0, stored);
                (CacheStatus { stored: true, ttl, detail, ..told }, answer)
            }
            Err(reason) => {
                self.stored.retain(|other| other.key.uri != stored.key.uri);
                let (answer, _) = answer(request, &stored, clock.now(), true);
                let ttl = Some(stored.terms.freshness.ttl(clock.now()));
                (CacheStatus { ttl, detail: Some(reason), ..told }, answer)
            }
        }
    }

    fn take_in(
        &mut self,
        request: &Request<'_>,
        reply: Reply,
        (exact, key, validating): (CacheKey, CacheKey, Option<usize>),
    ) -> (CacheStatus<'static>, Answer) {
        let facts = RequestFacts { method: storing::fetched_by(&request.method), has_body: false, ..request.facts() };
        let storable = match storing::decide(&facts, &reply.facts(), &self.params) {
            Ok(storable) => storable,
            Err(reason) => {
                if reason.is_lasting() {
                    self.refused.insert(key.hash, (reason.token(), reply.received.plus(HIT_FOR_MISS)));
                }
                match validating {
                    Some(at) if reason.is_lasting() => drop(self.stored.remove(at)),
                    Some(at) => {
                        let stored = &mut self.stored[at];
                        stored.setback = Some(Setback::after(stored.setback, None, reply.received));
                    }
                    None => {}
                }
                let told = CacheStatus { detail: Some(reason.token()), ..CacheStatus::default() };
                return (told, reply.passed_on());
            }
        };
        let (now, complete) = (reply.received, reply.complete);
        let asked = key.hash;
        let key = match &storable.search {
            rule if rule.as_ref() == key.search.as_deref() => key,
            None => exact,
            Some(rule) => exact.under(&Arc::new(rule.clone()), &self.seeds),
        };
        if let Some(rule) = &key.search {
            self.rules.insert(key.path_hash(&self.seeds), Arc::clone(rule));
        }
        if let Some(at) = validating.filter(|_| key.hash != asked) {
            self.stored.remove(at);
        }
        let stored = Stored {
            key,
            status: reply.status,
            headers: reply.headers,
            terms: storable.terms,
            selecting: Selecting::new(&storable.vary, &request.headers),
            body: reply.body,
            setback: None,
            tags: storable.tags,
        };
        let ((status, headers, body, _), detail) = answer(request, &stored, now, false);
        let ttl = Some(stored.terms.freshness.ttl(now));
        if complete {
            self.stored.retain(|old| old.key != stored.key || old.selecting != stored.selecting);
            self.stored.insert(0, stored);
        }
        (CacheStatus { stored: true, ttl, detail, ..CacheStatus::default() }, (status, headers, body, complete))
    }
}

/// `pipeline::lookup::stale_hit`
fn stand_in(request: &Request<'_>, stored: &Stored, grant: Grant, clock: &Clock) -> (CacheStatus<'static>, Answer) {
    let ttl = Some(stored.terms.freshness.ttl(clock.now()));
    let told = CacheStatus { ttl, stale: true, detail: Some(grant.token()), ..CacheStatus::default() };
    (told, answer(request, stored, clock.now(), true).0)
}

/// `pipeline::encode`, without codings, and `pipeline::range`; with the reason why a part is not given.
fn answer(request: &Request<'_>, stored: &Stored, now: Now, from_cache: bool) -> (Answer, Option<&'static str>) {
    let mut headers = stored.headers.clone();
    if from_cache {
        headers.insert(AGE, HeaderValue::from(stored.terms.freshness.age(now).as_secs()));
    }
    let conditions =
        ConditionFacts { status: stored.status, headers: &headers, received: stored.terms.freshness.received.wall };
    if validation::is_not_modified(&request.headers, &conditions) {
        validation::strip_for_not_modified(&mut headers);
        return ((StatusCode::NOT_MODIFIED, headers, String::new(), true), None);
    }
    if from_cache && stored.status == StatusCode::OK {
        range::offer(&mut headers);
    }
    let length = stored.body.len();
    let facts = WholeFacts { status: stored.status, headers: &headers, length: length as u64, dated_alone: true };
    match range::decide(&request.method, &request.headers, &facts) {
        Wanted::Whole(reason) => ((stored.status, headers, stored.body.clone(), true), reason.token()),
        Wanted::Nothing => {
            let mut local = local(StatusCode::RANGE_NOT_SATISFIABLE);
            local.1.insert(CONTENT_RANGE, range::unsatisfied(length as u64));
            (local, None)
        }
        Wanted::One(part) => {
            range::mend_one(&mut headers, part, length as u64);
            headers.insert(CONTENT_LENGTH, HeaderValue::from(part.len()));
            let at = |position: u64| usize::try_from(position).unwrap();
            let body = stored.body[at(part.first)..=at(part.last)].to_owned();
            ((StatusCode::PARTIAL_CONTENT, headers, body, true), None)
        }
        Wanted::Several(_) => unreachable!("the boundary is random: played over sockets only"),
    }
}

fn alone(forwarded: Forwarded, detail: &'static str) -> CacheStatus<'static> {
    CacheStatus { forwarded: Some(forwarded), detail: Some(detail), ..CacheStatus::default() }
}

fn local(status: StatusCode) -> Answer {
    (status, HeaderMap::new(), LOCAL.into(), true)
}

fn field_map(fields: &[(String, String)]) -> HeaderMap {
    let pair = |(name, value): &(String, String)| -> (HeaderName, HeaderValue) {
        (name.parse().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    fields.iter().map(pair).collect()
}

fn joined(headers: &HeaderMap) -> BTreeMap<String, String> {
    let values = |name: &HeaderName| {
        let lines = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        lines.collect::<Vec<_>>().join(", ")
    };
    headers.keys().map(|name| (name.as_str().to_owned(), values(name))).collect()
}
