//! The content coding a client gets, and the answer to its conditions.
//!
//! A stored response is coded once per coding: the first client that wants it starts the making, everybody who comes
//! meanwhile reads along, everybody after that gets the finished child. A response that is not stored is coded in its
//! own stream. What is asked for often is made better in the workshop; once that is ready, hits get it instead.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{AGE, ETAG};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use super::context::Exchange;
use super::debug;
use super::dictionary::{Member, Ready};
use super::fill::{self, Alone};
use super::range;
use super::rewrite;
use super::worker::Worker;
use crate::body::{Body, Filtered, Response, SpoolReader};
use crate::error::{ProxyError, Stage};
use crate::policy::cache::range::offer as offer_ranges;
use crate::policy::cache::validation::{self, ConditionFacts};
use crate::policy::dictionary::{self, Delta};
use crate::policy::encoding::{self, Breach, Coding, CompressParams, EncodeFacts};
use crate::policy::filter::{Filter, Filters};
use crate::policy::immutable;
use crate::policy::mend;
use crate::policy::optimise::{self, Made, OptimiseFacts, Recipe, is_in_demand};
use crate::policy::own_tag;
use crate::policy::validators::{self, Derivation};
use crate::snapshot::Route;
use crate::store::{Base, Child, ChildKind, Filling, Head, Joined, Life, MakeLead, Outcome};
use crate::transform::coding::{DECODED_MAX, Decoder, Encoder, fast_level};

/// The response that the stages to the left settled on.
pub(super) enum Selected {
    /// Not stored: the origin's answer to the client's own request.
    Passing(Response),
    /// Not stored: the origin's answer to a request made for the store, which asked for its own choice of codings.
    Alone(Response),
    /// Stored.
    Stored(Arc<Base>),
    /// On its way into the store, with a reader that was taken while the beginning was still there.
    Filling(Arc<Filling>, SpoolReader),
}

/// Gives the client the coding it asked for, or the part, or a 304.
///
/// # Errors
/// `RangeNotSatisfiable`.
pub(super) async fn run(exchange: &mut Exchange, route: &Route, selected: Selected) -> Result<Response, ProxyError> {
    let compress = route.compress.as_deref();
    let params = route.cache.as_ref().map(|policy| &policy.params);
    let limit = params.map_or(0, |params| params.max_object);
    let alone = params.map_or(Alone::GoesOn, Alone::of);
    match selected {
        Selected::Passing(response) => Ok(passing(exchange, route, response)),
        Selected::Alone(response) => {
            let plan = Plan::of_response(exchange, compress, &response);
            Ok(code(exchange, plan, response))
        }
        Selected::Stored(base) => {
            if exchange.peer.tls.is_none() && exchange.head.version < Version::HTTP_2 {
                exchange.worker.shared.store.prefer_file(&base);
            }
            let length = Some(base.body().remaining());
            if route.heeds_integrity && optimise::may_name_others(&base.head().headers) {
                exchange.worker.shared.workshop.search(base.life());
            }
            debug::selected(exchange, &base);
            if route.filters.study_bodies() {
                exchange.worker.shared.workshop.study(&base);
            }
            let (recipe, filters) = (route.recipe, route.filters);
            let member = Member::of(&exchange.worker, route, &base);
            let kept = Kept { head: base.head(), life: base.life(), length, limit, alone, recipe, filters, member };
            kept.answer(exchange, compress, Body::Stored(base.body().clone())).await
        }
        Selected::Filling(filling, reader) => {
            let (recipe, filters) = (Recipe::default(), route.filters);
            let member = Member::of_filling(&exchange.worker, route, &filling);
            let (head, life) = (filling.head(), filling.life());
            let kept = Kept { head, life, length: None, limit, alone, recipe, filters, member };
            kept.answer(exchange, compress, Body::Spool(reader)).await
        }
    }
}

/// What is to be done to a body that has (or has not) a coding, for one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    /// Take this coding off.
    decode: Option<Coding>,
    /// Put this one on.
    encode: Option<Coding>,
    /// The answer depends on `Accept-Encoding`, whatever this client gets.
    varies: bool,
    /// The coding the client gets in the end.
    coding: Option<Coding>,
    /// Of the encoder; 0 without a coding.
    level: u8,
    /// The optimisers; 0 = none.
    rules: u64,
    /// Bytes of padding.
    padding: u8,
    /// Coded against a dictionary, in place of `encode`.
    delta: Option<Delta>,
}

impl Plan {
    /// Asks the policy. `own` is the coding the body has.
    fn of(request: &HeaderMap, facts: &EncodeFacts<'_>, compress: Option<&CompressParams>) -> Self {
        let own = mend::only_coding(facts.headers).filter(|_| encoding::is_whole(facts).is_ok());
        let offered = compress.filter(|params| match own {
            Some(_) => encoding::worth_recoding(facts, params).is_ok(),
            None => encoding::worth_encoding(facts, params).is_ok(),
        });
        let offered = offered.map_or(&[][..], |params| &params.codings);
        match own {
            None if offered.is_empty() => Self::new(None, None, None, false),
            None => {
                let choice = encoding::negotiate(request, offered).ok();
                Self::new(None, choice, choice, true)
            }
            Some(own) => {
                let choice = encoding::negotiate(request, &[&[own], offered].concat()).ok();
                let as_it_is = choice == Some(own);
                Self::new((!as_it_is).then_some(own), choice.filter(|_| !as_it_is), choice, true)
            }
        }
    }

    /// What can be done while a client waits.
    fn new(decode: Option<Coding>, encode: Option<Coding>, coding: Option<Coding>, varies: bool) -> Self {
        Self { decode, encode, varies, coding, level: encode.map_or(0, fast_level), rules: 0, padding: 0, delta: None }
    }

    /// The same with the child that was made for its coding.
    fn better(self, level: u8, rules: u64) -> Self {
        Self { decode: None, encode: self.coding, level, rules, ..self }
    }

    /// The same with a delta.
    fn by_delta(self, ready: &Ready) -> Self {
        Self { decode: None, encode: None, level: ready.level, rules: ready.rules, delta: Some(ready.delta), ..self }
    }

    /// The same for a response that is not stored.
    fn of_response(exchange: &Exchange, compress: Option<&CompressParams>, response: &Response) -> Self {
        let length = response.body.exact_len().filter(|_| exchange.head.method != Method::HEAD);
        let length = length.or(response.content_length);
        let facts = EncodeFacts { status: response.status, headers: &response.headers, length };
        let request = &exchange.head.headers;
        let breach = compress.map_or(Breach::Off, |params| params.breach);
        let (Some(params), true) = (compress.filter(|_| breach != Breach::Off), encoding::is_personal(request)) else {
            return Self::of(request, &facts, compress);
        };
        let mut codings = params.codings.clone();
        codings.retain(|coding| breach == Breach::Pad && encoding::can_pad(*coding));
        let plan = Self::of(request, &facts, Some(&CompressParams { codings, ..params.clone() }));
        let padding = exchange.worker.random().to_le_bytes()[0];
        let padding = if plan.encode.is_some() { padding } else { 0 };
        Self { padding, varies: plan.varies || Self::of(request, &facts, compress).varies, ..plan }
    }

    /// For a part: the bytes as they are, or relieved of their own coding where the client cannot read it. Why a part is
    /// never cut from what is coded here stands in `policy::cache::range`.
    fn uncoded(self, request: &HeaderMap, facts: &EncodeFacts<'_>) -> Self {
        Self { varies: self.varies, ..Self::of(request, facts, None) }
    }

    fn changes(self) -> bool {
        self.decode.is_some() || self.encode.is_some() || self.rules != 0 || self.delta.is_some()
    }

    /// How the changed bytes are named. The rules are in the stored tag already.
    fn derivation(self) -> Derivation {
        Derivation { coding: self.encode, level: self.level, rules: self.rules, delta: self.delta }
    }

    fn kind(self) -> ChildKind {
        ChildKind { coding: self.encode, level: self.level, rules: self.rules, delta: self.delta }
    }

    /// Puts a body through what is planned.
    fn apply(self, worker: &Worker, mut body: Body) -> Body {
        if let Some(coding) = self.decode {
            body = Body::stream(Filtered::new(body, Decoder::new(coding, DECODED_MAX), Stage::Encode));
        }
        if let Some(coding) = self.encode {
            worker.metrics.encoding(coding.token());
            body = Body::stream(Filtered::new(body, Encoder::padded(coding, self.level, self.padding), Stage::Encode));
        }
        body
    }

    /// Makes the fields fit.
    fn mend(self, headers: &mut HeaderMap) {
        if self.changes() {
            mend::recoded(headers, self.derivation());
            if self.rules != 0 {
                mend::undate_untagged(headers);
            }
            if self.padding > 0 {
                mend::weaken(headers);
            }
        }
        if self.varies {
            mend::varies_by_coding(headers);
        }
    }
}

/// A response that is not stored.
fn passing(exchange: &Exchange, route: &Route, mut response: Response) -> Response {
    let request = &exchange.head.headers;
    if response.status == StatusCode::NOT_MODIFIED
        && let Some(tag) = validators::known_to_client(request, &response.headers, rewrite::rules(route))
    {
        response.headers.insert(ETAG, tag);
        mend::varies_by_coding(&mut response.headers);
    }
    let mut plan = Plan::of_response(exchange, route.compress.as_deref(), &response);
    // What the origin coded for this very client is not taken off again.
    if plan.decode.is_some() {
        plan = Plan::new(None, None, None, plan.varies);
    }
    code(exchange, plan, response)
}

/// Does to a response what is planned.
fn code(exchange: &Exchange, plan: Plan, mut response: Response) -> Response {
    plan.mend(&mut response.headers);
    if plan.changes() {
        response.content_length = None;
        if exchange.head.method != Method::HEAD {
            response.body = plan.apply(&exchange.worker, response.body);
        }
    }
    response
}

/// A response of the store, complete or growing.
struct Kept<'a> {
    head: &'a Head,
    life: &'a Arc<Life>,
    /// `None` while it grows.
    length: Option<u64>,
    /// `max_object`, which holds for children as well: the base may outgrow it yet.
    limit: u64,
    /// What becomes of a child whose readers have all left.
    alone: Alone,
    /// What the route wants made of what is stored.
    recipe: Recipe,
    /// What it wants said of it.
    filters: Filters,
    /// What it is a version of, where the route has dictionaries.
    member: Option<Member<'a>>,
}

impl Kept<'_> {
    async fn answer(
        &self,
        exchange: &mut Exchange,
        compress: Option<&CompressParams>,
        mut source: Body,
    ) -> Result<Response, ProxyError> {
        let Head { status, headers, terms, .. } = self.head;
        let length = self.length.or_else(|| announced(headers));
        let facts = EncodeFacts { status: *status, headers, length };
        let mut plan = Plan::of(&exchange.head.headers, &facts, compress);
        let mut better = self.better(exchange, plan);
        if let Some(child) = &better {
            plan = child.0;
        }
        let mut response = self.whole(exchange, plan);
        let conditions =
            ConditionFacts { status: *status, headers: &response.headers, received: terms.freshness.received.wall };
        if validation::is_not_modified(&exchange.head.headers, &conditions) {
            validation::strip_for_not_modified(&mut response.headers);
            response.status = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        // Not before it is clear that the client needs the body.
        if let Some((delta, child)) = self.delta(exchange, plan).await {
            plan = delta;
            response = self.whole(exchange, plan);
            better = Some((plan, child));
        }
        if let Some(member) = self.member.as_ref().filter(|_| self.length.is_some()) {
            member.keep(&exchange.worker, self.life, plan.rules);
        }
        if let Some((_, child)) = better {
            response.content_length = Some(child.body().remaining());
            response.body = ready(&child);
            return Ok(response);
        }
        if exchange.head.method == Method::HEAD {
            response.content_length = length.filter(|_| !plan.changes());
            return Ok(response);
        }
        if range::is_asked(exchange) {
            let uncoded = plan.uncoded(&exchange.head.headers, &facts);
            match self.part(exchange, uncoded, source)? {
                Ok(part) => return Ok(part),
                Err(body) => source = body,
            }
        }
        response.body = match plan.changes().then(|| exchange.worker.shared.store.child(self.life, plan.kind())) {
            None => source,
            Some(Some(child)) => ready(&child),
            // Boxed: a hit carries none of it.
            Some(None) => Box::pin(self.make_or_follow(&exchange.worker, plan, source)).await,
        };
        Ok(response)
    }

    /// The delta for a client that has a dictionary. Boxed: most have none.
    async fn delta(&self, exchange: &mut Exchange, plan: Plan) -> Option<(Plan, Arc<Child>)> {
        let (member, length) = (self.member.as_ref()?, self.length?);
        dictionary::offered(&exchange.head.headers)?;
        let may_be_altered = |rules| !self.life.is_pinned() && self.may_be_altered(rules);
        let ready = Box::pin(member.delta(exchange, (self.life, self.head, length), may_be_altered)).await?;
        Some((plan.by_delta(&ready), ready.child))
    }

    /// The child that the workshop made for the coding of `plan`, with the plan for it. Where there is none yet and the
    /// base is in demand, one is ordered. A part is cut from the base. Cost without a recipe: nothing; else an atomic load,
    /// and a moka read where there is one.
    fn better(&self, exchange: &Exchange, plan: Plan) -> Option<(Plan, Arc<Child>)> {
        let length = self.length.filter(|_| !self.recipe.is_empty() && !range::is_asked(exchange))?;
        let shared = &exchange.worker.shared;
        match self.life.made(plan.coding, self.recipe) {
            Made::Child { rules, .. } if rules != 0 && !self.may_be_altered(rules) => None,
            Made::Child { level, rules } => {
                let plan = plan.better(level, rules);
                let child = shared.store.child(self.life, plan.kind());
                if child.is_none() {
                    // Evicted: to be made again while it is in demand.
                    self.life.settle(plan.coding, self.recipe, Made::Unasked);
                }
                child.map(|child| (plan, child))
            }
            Made::Unasked if is_in_demand(self.life.hits(), length) => {
                shared.workshop.ask(self.life, plan.coding, self.recipe);
                None
            }
            Made::Unasked | Made::UnderWay | Made::Nothing => None,
        }
    }

    /// Whether the head, which may have changed since, still allows what these optimisers made.
    fn may_be_altered(&self, rules: u64) -> bool {
        optimise::decide(&self.facts(), self.recipe.optimisers).is_ok_and(|optimiser| {
            optimiser.fingerprint() == rules && self.filters.contains(Filter::Optimiser(optimiser))
        })
    }

    fn facts(&self) -> OptimiseFacts<'_> {
        OptimiseFacts { status: self.head.status, headers: &self.head.headers }
    }

    /// True when no other bytes than those of `plan` go out under the same date: no coding and no optimiser is for them.
    fn is_dated_alone(&self, plan: Plan) -> bool {
        !plan.varies && optimise::decide(&self.facts(), self.recipe.optimisers).is_err()
    }

    /// The head that goes with all of it.
    fn whole(&self, exchange: &Exchange, plan: Plan) -> Response {
        let Head { status, headers, terms, .. } = self.head;
        let mut response = Response::new(*status, Body::Empty);
        response.headers = headers.clone();
        self.say_more(&mut response.headers);
        plan.mend(&mut response.headers);
        if let Some(member) = &self.member {
            member.announce(&mut response.headers);
        }
        if self.is_from_cache(exchange) {
            response.headers.insert(AGE, HeaderValue::from(terms.freshness.age(exchange.worker.now()).as_secs()));
        }
        if self.length.is_some()
            && *status == StatusCode::OK
            && plan.encode.is_none()
            && plan.rules == 0
            && plan.delta.is_none()
        {
            // Whatever the origin can do: this is cut here.
            offer_ranges(&mut response.headers);
        }
        response
    }

    /// Adds what the body's study brought to light.
    fn say_more(&self, headers: &mut HeaderMap) {
        if self.filters.contains(Filter::EtagOwn)
            && own_tag::is_wanted(self.head.status, headers)
            && let Some(tag) = self.life.own_tag()
        {
            headers.insert(ETAG, tag.clone());
        }
        if self.filters.contains(Filter::Immutable)
            && self.life.is_immutable()
            && immutable::is_fit(self.head.status, headers)
        {
            immutable::mark(headers);
        }
    }

    /// A part, where all of it is at hand or known to come; otherwise the body back.
    fn part(&self, exchange: &mut Exchange, plan: Plan, source: Body) -> Result<Result<Response, Body>, ProxyError> {
        let dated_alone = self.is_dated_alone(plan);
        if !plan.changes() {
            return match source.exact_len() {
                Some(length) => range::answer(exchange, self.whole(exchange, plan), (length, dated_alone), source),
                None => Ok(Err(source)),
            };
        }
        let Some(child) = exchange.worker.shared.store.child(self.life, plan.kind()) else { return Ok(Err(source)) };
        let length = child.body().remaining();
        let cut = range::answer(exchange, self.whole(exchange, plan), (length, dated_alone), ready(&child))?;
        Ok(cut.map_err(|_child| source))
    }

    /// False for the client whose request fetched it: to that one it is the origin's answer, which says its own `Age`
    /// where it has one (RFC 9111 §5.1).
    fn is_from_cache(&self, exchange: &Exchange) -> bool {
        self.length.is_some() || exchange.cache.as_ref().is_some_and(|cache| cache.collapsed)
    }

    /// The body in another coding that was not there a moment ago: being made, or made now.
    async fn make_or_follow(&self, worker: &Rc<Worker>, plan: Plan, source: Body) -> Body {
        let store = &worker.shared.store;
        match store.join_child(self.life, plan.kind()) {
            Joined::Leader(lead) => match store.child(self.life, plan.kind()) {
                Some(child) => ready(&child),
                None => self.make(worker, lead, plan, source),
            },
            Joined::Follower(handle) => match handle.outcome().await {
                Outcome::Shared(making) => match making.reader() {
                    Some(reader) => Body::Spool(reader),
                    None => plan.apply(worker, source),
                },
                Outcome::Released(_) | Outcome::Failed(_) | Outcome::LeaderGone => plan.apply(worker, source),
            },
        }
    }

    /// Starts making the child, in a task that outlives this client, and follows it like everybody else.
    fn make(&self, worker: &Rc<Worker>, lead: MakeLead, plan: Plan, source: Body) -> Body {
        match worker.shared.store.begin_child(lead, self.life, self.limit) {
            Ok(making) => {
                let Some(reader) = making.filling().reader() else { return plan.apply(worker, source) };
                let coded = plan.apply(worker, source);
                let alone = self.alone;
                let worker = Rc::clone(worker);
                tokio::task::spawn_local(async move {
                    // Its readers have got it as it came.
                    if let Err(reason) = fill::pump(making, coded, alone, || true, |_| ()).await {
                        worker.metrics.not_kept("coding", reason.token());
                    }
                });
                Body::Spool(reader)
            }
            Err((lead, reason)) => {
                lead.release(reason.token());
                plan.apply(worker, source)
            }
        }
    }
}

fn ready(child: &Child) -> Body {
    Body::Stored(child.body().clone())
}

/// `Content-Length` of a response that is still arriving.
fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
