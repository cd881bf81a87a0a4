//! The fetch behind a miss: a task of its own on the worker that began it.
//!
//! It outlives the client that caused it: that client, like every other one that waits, only reads what the fetch writes.
//! It reports once, when the response head has been judged; then it pumps the body into the store.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, HeaderValue, PRAGMA, RANGE};
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::attempts;
use super::context::{Exchange, Trace};
use super::dictionary::Member;
use super::fill::{self, Alone};
use super::forward::{self, Order, Reply};
use super::hints::{self, Page};
use super::question::Keys;
use super::rewrite;
use super::worker::{RefreshSlot, Worker};
use crate::body::{Body, Interim, Response, Sequence, SpoolReader};
use crate::clock::Now;
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::policy::cache::bypass::ReuseOnly;
use crate::policy::cache::directives::RequestDirectives;
use crate::policy::cache::stale::{self, Grant, Trouble};
use crate::policy::cache::storing::{self, NotStored, Storable};
use crate::policy::cache::validation::{HeadVerdict, StoredWhole};
use crate::policy::cache::vary::Selecting;
use crate::policy::cache::{CacheParams, RequestFacts, ResponseFacts, validation};
use crate::policy::dictionary::{AVAILABLE_DICTIONARY, DICTIONARY_ID, USE_AS_DICTIONARY};
use crate::snapshot::{CachePolicy, Route};
use crate::store::{Base, FetchLead, Fetched, Filling, Head, NotKept, RefreshTurn, Store};

/// Detail of an exchange whose fetch failed; why, `Proxy-Status` says.
pub(super) const FAILED: &str = "fetch_failed";

/// Why what a 304 confirms is not freshened: it is stored no more, or was purged since it was asked about.
const GONE: &str = "gone";

/// A fresh spool always has its beginning.
const FILL_WITHOUT_READER: ErrorKind = ErrorKind::Internal("fill_without_reader");

/// One fetch to be made.
pub(super) struct Job {
    pub(super) worker: Rc<Worker>,
    pub(super) route: Arc<Route>,
    pub(super) policy: Arc<CachePolicy>,
    /// What goes to the farm, before conditions are put on it.
    pub(super) order: Order,
    /// The duty towards everybody who waits.
    pub(super) lead: FetchLead,
    pub(super) keys: Keys,
    /// Normalised, client-facing.
    pub(super) path: Box<str>,
    /// The page that it is, where its head is to be learned.
    pub(super) page: Option<Rc<Page>>,
    /// The client's fields, cookies stripped: what `Vary` selects by.
    pub(super) request: HeaderMap,
    /// What the client says to caches: whether it would take a stored response in place of an error.
    pub(super) directives: RequestDirectives,
    /// The stored response to be validated.
    pub(super) validating: Option<Arc<Base>>,
    /// What becomes of it when nobody waits for it any more.
    pub(super) alone: Alone,
    /// Whether anybody waits for it.
    pub(super) behind: Behind,
}

/// What a fetch runs behind.
pub(super) enum Behind {
    /// Nothing: the client that caused it waits for it.
    Nobody,
    /// An answer from the store: nobody waits. Held until the fetch has ended, body and all.
    Answer { _turn: RefreshTurn, _slot: RefreshSlot },
}

impl Behind {
    fn is_answer(&self) -> bool {
        matches!(self, Self::Answer { .. })
    }
}

impl Job {
    /// The fetch for what `exchange` asks for.
    ///
    /// # Errors
    /// `BadRequest` when the route's path edits leave no path.
    pub(super) fn new(
        exchange: &Exchange,
        route: &Arc<Route>,
        policy: &Arc<CachePolicy>,
        keys: Keys,
        lead: FetchLead,
        validating: Option<Arc<Base>>,
    ) -> Result<Self, ProxyError> {
        // What is fetched is the whole, whatever the client conditions or cuts: nothing is selected by that.
        let mut request = exchange.head.headers.clone();
        validation::clear(&mut request);
        Ok(Self {
            worker: Rc::clone(&exchange.worker),
            order: forward::order(exchange, route, true)?,
            route: Arc::clone(route),
            policy: Arc::clone(policy),
            lead,
            keys,
            path: exchange.uri.path().into(),
            page: exchange.page.clone(),
            request,
            directives: policy.params.directives(&exchange.head.headers),
            validating,
            alone: Alone::of(&policy.params),
            behind: Behind::Nobody,
        })
    }

    /// The same behind an answer. Neither a part nor a head alone could be kept, and what the client said to caches it said
    /// about its own answer.
    pub(super) fn behind(mut self, turn: RefreshTurn, slot: RefreshSlot) -> Self {
        let method = storing::fetched_by(&self.order.request.method).clone();
        self.order.request.method = method;
        // The answer it runs behind is final.
        self.order.request.interim = Interim::default();
        for name in [RANGE, CACHE_CONTROL, PRAGMA] {
            self.order.request.headers.remove(name);
        }
        Self { behind: Behind::Answer { _turn: turn, _slot: slot }, ..self }
    }
}

/// What the client that caused the fetch learns when the head is there.
pub(super) struct Report {
    pub(super) landed: Result<Landed, ProxyError>,
    pub(super) trace: Trace,
    /// The origin's status, where it is not the one of `landed`.
    pub(super) forwarded_status: Option<StatusCode>,
    /// The answer is being kept.
    pub(super) stored: bool,
    /// Why it is not.
    pub(super) detail: Option<&'static str>,
}

/// What the fetch brought.
pub(super) enum Landed {
    /// A response on its way into the store, with a reader from its first byte.
    Filling(Arc<Filling>, SpoolReader),
    /// The stored response, confirmed.
    Validated(Arc<Base>),
    /// The stored response, in place of the answer that the origin in its trouble could not give.
    Stale(Arc<Base>, Grant),
    /// A response for this client alone.
    Alone(Response),
}

/// Starts the fetch; the receiver gets its report.
pub(super) fn start(job: Job) -> oneshot::Receiver<Report> {
    let (report, receiver) = oneshot::channel();
    tokio::task::spawn_local(run(job, report));
    receiver
}

/// Starts a fetch that no client waits for; it keeps its `place` to the end.
pub(super) fn start_behind(job: Job, place: OwnedSemaphorePermit) {
    let mut job = Job { alone: Alone::GoesOn, ..job };
    job.order.request.interim = Interim::default();
    tokio::task::spawn_local(async move {
        let (report, nobody) = oneshot::channel();
        // Not kept for the time of the fetch: the report may hold a reader, which would be waited for.
        drop(nobody);
        run(job, report).await;
        drop(place);
    });
}

/// The fixed `Accept-Encoding` of a fetch for the store. What is rewritten or coded here should come as it is; otherwise
/// one coding that every client of the last twenty years can read, decoded here for those that cannot.
fn accept_encoding(route: &Route) -> HeaderValue {
    let plain = route.rewrite.is_some() || route.compress.is_some();
    HeaderValue::from_static(if plain { "identity" } else { "gzip" })
}

async fn run(job: Job, mut report: oneshot::Sender<Report>) {
    let Job { worker, route, policy, order, lead, keys, path, page, request, directives, validating, alone, behind } =
        job;
    let mut trace = Trace::default();
    let method = storing::fetched_by(&order.request.method).clone();
    let answer = {
        let mut asking = std::pin::pin!(ask(&worker, &route, order, validating.clone(), &mut trace));
        tokio::select! {
            biased;
            answer = &mut asking => answer,
            () = report.closed(), if alone == Alone::Stops && !behind.is_answer() => {
                if !lead.is_followed() {
                    return;
                }
                asking.await
            }
        }
    };
    let standby = validating.map(|base| Standby { base, directives, params: &policy.params, behind: &behind });
    let alone = if behind.is_answer() { Alone::GoesOn } else { alone };
    let judge =
        Judge { worker: &worker, route: &route, policy: &policy, method, path: &path, page, request: &request, alone };
    let trouble = match &answer {
        Ok(Answer::Confirmed(..)) => None,
        Ok(Answer::New(reply) | Answer::Head(reply, _)) => Trouble::of_status(reply.response.status),
        Err(error) => Trouble::of_error(error.kind),
    };
    if let (Some(standby), Some(trouble)) = (&standby, trouble)
        && let Some(grant) = standby.relieve(trouble, worker.now())
    {
        let status = answer.as_ref().ok().map(|answer| answer.status());
        match answer {
            // A follower for whom nothing stored may answer goes alone: the error has a body of its own.
            Ok(_) => lead.release(ORIGIN_ERROR),
            Err(error) => lead.fail(error),
        }
        return tell(report, Ok(Landed::Stale(Arc::clone(&standby.base), grant)), trace, status, Err(ORIGIN_ERROR));
    }
    match answer {
        Ok(Answer::Confirmed(base, reply)) => {
            let status = Some(reply.response.status);
            let (base, kept) = judge.freshen(&base, &reply, lead.epoch());
            base.life().recover();
            match kept {
                // Purged or evicted meanwhile: whoever waits may have asked after that, and must ask again.
                Err(GONE) => drop(lead),
                // Followers wait for this very answer; nobody may join it later.
                _ => drop(lead.share(Fetched::Validated(Arc::clone(&base)))),
            }
            tell(report, Ok(Landed::Validated(base)), trace, status, kept);
        }
        Ok(Answer::Head(reply, verdict)) => {
            if let (Some(standby), HeadVerdict::Contradicts) = (&standby, verdict) {
                worker.shared.store.outdate(&standby.base);
            }
            // It is about this one request: cookies and credentials went along.
            lead.release(HEAD);
            let rewritten = rewrite::run(&worker, &route, &Method::HEAD, reply.response);
            tell(report, Ok(Landed::Alone(rewritten.response)), trace, None, Err(told_of_head(verdict)));
        }
        Ok(Answer::New(reply)) => judge.take_in(reply, lead, keys, standby.as_ref(), report, trace).await,
        Err(error) => {
            lead.fail(error);
            tell(report, Err(error), trace, None, Err(FAILED));
        }
    }
}

/// Followers of a fetch that was answered with an error are released with this reason, where they do not get what is
/// stored instead.
const ORIGIN_ERROR: &str = "origin_error";

/// The answer to a HEAD that validated what is stored is not stored itself.
const HEAD: &str = ReuseOnly::Head.token();

/// What the answer to a HEAD, passed on, did to what is stored.
fn told_of_head(verdict: HeadVerdict) -> &'static str {
    if verdict == HeadVerdict::Contradicts { "head_differs" } else { HEAD }
}

/// The stored response behind a fetch, ready to stand in for the answer.
struct Standby<'a> {
    base: Arc<Base>,
    directives: RequestDirectives,
    params: &'a CacheParams,
    behind: &'a Behind,
}

impl Standby<'_> {
    /// Notes the trouble, and says what allows the stored response to answer in its place; behind an answer it has done so
    /// already, and stays.
    fn relieve(&self, trouble: Trouble, now: Now) -> Option<Grant> {
        self.base.life().set_back(Some(trouble), now);
        self.grant(trouble, now).or(self.behind.is_answer().then_some(Grant::WhileRevalidate))
    }

    fn grant(&self, trouble: Trouble, now: Now) -> Option<Grant> {
        stale::in_trouble(&self.base.terms(), &self.directives, self.params, trouble, now).ok()
    }

    /// The origin has an answer that is not stored: what is stored is outdated where that says something about the
    /// resource and not about this one request.
    fn superseded(&self, store: &Store, reason: NotStored, now: Now) {
        if reason.is_lasting() {
            store.discard(&self.base);
        } else {
            self.base.life().set_back(None, now);
        }
    }

    /// Reads as much of `body` as shows that it is usable, where the stored response could answer in its place: all of a
    /// short one, the first piece of any other.
    ///
    /// # Errors
    /// The body broke off within that.
    async fn try_out(&self, mut body: Body, now: Now) -> Result<Body, ProxyError> {
        if self.grant(Trouble::CutOff, now).is_none() {
            return Ok(body);
        }
        // Of a body of unknown or great length the first piece is enough.
        let mut wanted = body.exact_len().filter(|length| *length <= TRIED_OUT).unwrap_or(1);
        let mut read = Vec::new();
        while wanted > 0
            && let Some(frame) = body.frame().await
        {
            // Trailers this early end a body without content; they describe nothing, and are left out.
            let Ok(chunk) = frame?.into_data() else { break };
            wanted = wanted.saturating_sub(chunk.len() as u64);
            read.push(Body::full(chunk));
        }
        Ok(Body::stream(Sequence::new(read.into_iter().chain([body]))))
    }
}

/// Longest body that is read to its end before its head is believed, while a stored response stands by: what arrives in
/// a few reads anyway, so that waiting for it costs nothing worth speaking of.
const TRIED_OUT: u64 = 64 * 1024;

/// What the origin said.
enum Answer {
    /// What is stored still holds; the reply is a 304, or an answer to HEAD that says the same.
    Confirmed(Arc<Base>, Reply),
    /// A response of its own.
    New(Reply),
    /// The head of one, and what it says of the stored response.
    Head(Reply, HeadVerdict),
}

impl Answer {
    fn status(&self) -> StatusCode {
        match self {
            Self::Confirmed(_, reply) | Self::New(reply) | Self::Head(reply, _) => reply.response.status,
        }
    }
}

/// Asks the origin for the response, or whether the stored one still holds (RFC 9111 §4.3.1).
async fn ask(
    worker: &Rc<Worker>,
    route: &Route,
    mut order: Order,
    validating: Option<Arc<Base>>,
    trace: &mut Trace,
) -> Result<Answer, ProxyError> {
    order.request.headers.insert(ACCEPT_ENCODING, accept_encoding(route));
    // What is stored is for clients that have other dictionaries, or none.
    for name in [AVAILABLE_DICTIONARY, DICTIONARY_ID] {
        order.request.headers.remove(name);
    }
    validation::clear(&mut order.request.headers);
    let Some(base) = validating else { return attempts::send(worker, order, trace).await.map(Answer::New) };
    let unconditional = order.repeat();
    let is_head = order.request.method == Method::HEAD;
    validation::ask(&mut order.request.headers, base.head().view());
    let mut reply = attempts::send(worker, order, trace).await?;
    if reply.response.status == StatusCode::NOT_MODIFIED {
        if validation::confirms(&reply.response.headers, base.head().view()) {
            return Ok(Answer::Confirmed(base, reply));
        }
        // A 304 about something we do not have is no answer (RFC 9111 §4.3.3).
        reply = attempts::send(worker, unconditional, trace).await?;
    }
    Ok(if is_head { judge_head(base, reply) } else { Answer::New(reply) })
}

fn judge_head(base: Arc<Base>, reply: Reply) -> Answer {
    let head = base.head();
    let stored = StoredWhole { status: head.status, view: head.view(), length: base.body().remaining() };
    match validation::compare_head(reply.response.status, &reply.response.headers, &stored) {
        HeadVerdict::Confirms => Answer::Confirmed(base, reply),
        verdict => Answer::Head(reply, verdict),
    }
}

fn tell(
    report: oneshot::Sender<Report>,
    landed: Result<Landed, ProxyError>,
    trace: Trace,
    forwarded_status: Option<StatusCode>,
    kept: Result<(), &'static str>,
) {
    let told = Report { landed, trace, forwarded_status, stored: kept.is_ok(), detail: kept.err() };
    // The client that caused the fetch may have gone; the fetch is for everybody.
    let _gone = report.send(told);
}

/// Asks `policy::cache` about a response.
struct Judge<'a> {
    worker: &'a Worker,
    route: &'a Route,
    policy: &'a CachePolicy,
    method: Method,
    path: &'a str,
    page: Option<Rc<Page>>,
    request: &'a HeaderMap,
    alone: Alone,
}

impl Judge<'_> {
    fn may_store(&self, status: StatusCode, headers: &HeaderMap, reply: &Reply) -> Result<Storable, NotStored> {
        let request = RequestFacts { method: &self.method, path: self.path, headers: self.request, has_body: false };
        let response = ResponseFacts { status, headers, sent: reply.sent, received: reply.received };
        storing::decide(&request, &response, &self.policy.params)
    }

    fn head(&self, status: StatusCode, mut headers: HeaderMap, storable: &Storable) -> Head {
        // Nobody would get what the origin offers: it is asked for without a dictionary.
        headers.remove(USE_AS_DICTIONARY);
        let selecting = Selecting::new(&storable.vary, self.request);
        let (terms, tags) = (storable.terms, storable.tags.clone());
        Head { status, headers, terms, selecting, tags, rules: rewrite::fingerprint(self.route) }
    }

    /// Puts the head of a 304 on the stored response. What the origin does not allow to be stored any more still answers
    /// those who asked, and goes; where the reason lies in the request that asked, it stays as it was.
    fn freshen(&self, base: &Arc<Base>, reply: &Reply, epoch: u64) -> (Arc<Base>, Result<(), &'static str>) {
        let stored = base.head();
        let headers = validation::freshen(stored.view(), &reply.response.headers, reply.received);
        let store = &self.worker.shared.store;
        match self.may_store(stored.status, &headers, reply) {
            Ok(storable) if storable.search.as_ref() != base.life().key().search.as_deref() => {
                // It answers other queries by now than those it is found by: whoever waits asks again.
                store.discard(base);
                (Arc::clone(base), Err(GONE))
            }
            Ok(storable) => {
                let head = self.head(stored.status, headers, &storable);
                match store.freshen(base, head, epoch) {
                    Some(fresh) => (fresh, Ok(())),
                    None => (Arc::clone(base), Err(GONE)),
                }
            }
            Err(reason) if !reason.is_lasting() => (Arc::clone(base), Err(reason.token())),
            Err(reason) => {
                // Of very many, the last go a moment later; nothing here waits for them.
                drop(self.worker.shared.purger.invalidate(base.life().key().uri));
                (Arc::clone(base), Err(reason.token()))
            }
        }
    }

    /// Stores the response, or hands it to the one client it is for.
    async fn take_in(
        &self,
        reply: Reply,
        lead: FetchLead,
        keys: Keys,
        standby: Option<&Standby<'_>>,
        report: oneshot::Sender<Report>,
        trace: Trace,
    ) {
        let store = &self.worker.shared.store;
        let verdict = self.may_store(reply.response.status, &reply.response.headers, &reply);
        let mut rewritten = rewrite::run(self.worker, self.route, &self.method, reply.response);
        rewritten.response = hints::learn(self.worker, self.page.as_ref(), self.request, rewritten.response);
        let alone = |lead: FetchLead, reason: &'static str, response, report| {
            lead.release(reason);
            tell(report, Ok(Landed::Alone(response)), trace.clone(), None, Err(reason));
        };
        let storable = match verdict {
            Ok(storable) => storable,
            Err(reason) => {
                if reason.is_lasting() {
                    store.remember_refusal(keys.asked.hash, reason.token(), reply.received);
                }
                if let Some(standby) = standby {
                    standby.superseded(store, reason, reply.received);
                }
                return alone(lead, reason.token(), rewritten.response, report);
            }
        };
        let Response { status, headers, mut body, .. } = rewritten.response;
        if let Some(standby) = standby {
            body = match standby.try_out(body, reply.received).await {
                Ok(body) => body,
                Err(error) => {
                    let grant = standby.relieve(Trouble::CutOff, self.worker.now());
                    lead.fail(error);
                    let landed = grant.map(|grant| Landed::Stale(Arc::clone(&standby.base), grant)).ok_or(error);
                    return tell(report, landed, trace, Some(status), Err(ORIGIN_ERROR));
                }
            };
        }
        let head = self.head(status, headers, &storable);
        let bounds = (body.exact_len(), self.policy.params.max_object);
        let key = keys.of_answer(storable.search, store.seeds());
        let primary = key.hash;
        if let Some(standby) = standby.filter(|standby| standby.base.life().key().hash != primary) {
            // What is stored now says something else of queries, and answers in its place.
            store.discard(&standby.base);
        }
        match store.begin(lead, key, &self.policy.share, head.clone(), bounds) {
            Ok(fill) => {
                let filling = Arc::clone(fill.filling());
                if self.route.heeds_integrity {
                    // It is searched as it passes.
                    filling.life().begin_search();
                }
                let (life, member) =
                    (Arc::clone(filling.life()), Member::of_filling(self.worker, self.route, &filling));
                // Taken before a byte is written: once the body outgrows its bound, the beginning goes.
                let reader = filling.reader().ok_or_else(|| ProxyError::new(FILL_WITHOUT_READER, Stage::Fill));
                tell(report, reader.map(|reader| Landed::Filling(filling, reader)), trace, None, Ok(()));
                let faultless = || rewritten.failure.get().is_none();
                // The next one will most likely outgrow its bound as well: it need not be held for anybody.
                let refused = |reason: NotKept| {
                    // A purge says nothing of the next one.
                    if reason != NotKept::Invalidated {
                        store.remember_refusal(primary, reason.token(), self.worker.now());
                    }
                };
                let kept = fill::pump(fill, body, self.alone, faultless, refused).await;
                match (kept, member) {
                    (Err(reason), _) => self.worker.metrics.not_kept("response", reason.token()),
                    // Who fetched it may come back with it on the day of the next release.
                    (Ok(()), Some(member)) => member.keep(self.worker, &life, 0),
                    (Ok(()), None) => {}
                }
                if let (Some(standby), Err(reason)) = (standby, kept) {
                    let trouble = (reason == NotKept::CutShort).then_some(Trouble::CutOff);
                    standby.base.life().set_back(trouble, self.worker.now());
                }
            }
            Err((lead, reason)) => {
                if let Some(standby) = standby {
                    standby.base.life().set_back(None, reply.received);
                }
                let mut response = Response::new(head.status, body);
                response.headers = head.headers;
                if reason == NotKept::Invalidated {
                    // Whoever waits may have asked after the purge: one of them asks again for all.
                    drop(lead);
                    return tell(report, Ok(Landed::Alone(response)), trace, None, Err(reason.token()));
                }
                // What finds no room now will hardly find it with the next request.
                store.remember_refusal(primary, reason.token(), self.worker.now());
                alone(lead, reason.token(), response, report);
            }
        }
    }
}
