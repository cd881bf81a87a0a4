//! Keeps what is known by name up to date. Runs beside the workers, never on one.
//!
//! Two things are asked for: the endpoints of pools that `discover` them by DNS, and the addresses of endpoints that are
//! written as a name. Both go by [`crate::policy::discovery`]. A pool's endpoints are written into [`Findings`], which
//! rings when they have changed: whoever publishes snapshots then builds one with them. A name's addresses are kept by
//! its endpoint, where the next connection finds them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use super::endpoint::Endpoint;
use super::pool::Pool;
use super::resolver;
use crate::clock::Clock;
use crate::policy::discovery::{Answer, DiscoverParams, Discovered, Fault, Source, Step};
use crate::policy::pool::{Address, EndpointParams, PoolParams};

/// The longest time between two questions for an endpoint's name; the default `interval` of `discover`.
const NAME_INTERVAL: Duration = Duration::from_secs(10);

/// Addresses of an endpoint that are kept: a connection tries four of them.
const NAME_ADDRESSES: usize = 64;

/// How long a new pool's first answer may hold up its publication; what is not there by then comes later.
const FIRST_ANSWER: Duration = Duration::from_secs(2);

/// What was found up to some moment; see [`Findings::remember`].
#[derive(Debug)]
pub struct Remembered(HashMap<String, Finding>);

/// What has been found for each pool that discovers its endpoints, and how that went. Outlives reloads.
#[derive(Debug, Default)]
pub struct Findings {
    pools: Mutex<HashMap<String, Finding>>,
    changed: Notify,
}

#[derive(Debug, Clone)]
struct Finding {
    source: Source,
    /// Of `source`, by DNS.
    known: Discovered,
    /// The last good ones, maybe of the source before.
    endpoints: Vec<EndpointParams>,
    /// How long to wait before the next question.
    next: Duration,
    report: Report,
}

/// How discovery goes in one pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// What is asked or read, in words.
    pub source: String,
    /// Endpoints that the last good answer brought.
    pub found: usize,
    /// Those that it brought beyond `max`.
    pub left_off: usize,
    /// When the last good answer came; `None` = there was none.
    pub answered: Option<SystemTime>,
    /// Why the last question brought none, or not all: a stable token.
    pub fault: Option<&'static str>,
    /// What is wrong with files, one by one.
    pub details: Vec<String>,
    /// Good answers.
    pub answers: u64,
    /// Questions that brought none.
    pub failures: u64,
    /// Answers that changed the endpoints.
    pub changes: u64,
}

/// What became of one look at a source.
struct Outcome {
    /// The endpoints there are now; `None` = as before.
    endpoints: Option<Vec<EndpointParams>>,
    left_off: usize,
    answered: bool,
    fault: Option<&'static str>,
    details: Vec<String>,
}

impl Findings {
    /// What is known now, to be gone back to where a configuration that new questions were asked for is refused.
    #[must_use]
    pub fn remember(&self) -> Remembered {
        Remembered(self.lock().clone())
    }

    /// Goes back to what was known. An answer that came in between is asked for again when it is due.
    pub fn go_back_to(&self, before: Remembered) {
        *self.lock() = before.0;
    }

    /// How it goes in a pool; `None` when it does not discover anything, or has not begun to.
    #[must_use]
    pub fn report(&self, pool: &str) -> Option<Report> {
        self.lock().get(pool).map(|finding| finding.report.clone())
    }

    /// The pool with the endpoints that are known at present in place of those that were. One that is written keeps what is
    /// written about it.
    #[must_use]
    pub fn merge(&self, mut params: PoolParams) -> PoolParams {
        params.endpoints.retain(|endpoint| !endpoint.discovered);
        let pools = self.lock();
        let found = params.discover.as_ref().and_then(|_| pools.get(&params.name));
        let found = found.map_or(&[][..], |finding| &finding.endpoints);
        let is_written = |one: &&EndpointParams| params.endpoints.iter().any(|written| written.address == one.address);
        let further: Vec<_> = found.iter().filter(|one| !is_written(one)).cloned().collect();
        params.endpoints.extend(further);
        params
    }

    /// Until the endpoints of some pool have changed since the last call. Cancel-safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes in what the files of a directory say: the endpoints, where any could be read, and what is wrong with it.
    pub fn read(&self, pool: &str, params: &DiscoverParams, mut endpoints: Vec<EndpointParams>, details: Vec<String>) {
        let left_off = endpoints.len().saturating_sub(params.max);
        endpoints.truncate(params.max);
        let fault = if endpoints.is_empty() { Some(Fault::Empty.token()) } else { None };
        let fault = if details.is_empty() { fault } else { Some("faulty_file") };
        let answered = !endpoints.is_empty();
        let endpoints = answered.then_some(endpoints);
        self.update(pool, params, |_| Outcome { endpoints, left_off, answered, fault, details });
    }

    /// Takes in what DNS said.
    fn heard(&self, pool: &str, params: &DiscoverParams, answer: &Result<Answer, Fault>) -> Duration {
        self.update(pool, params, |finding| {
            let Step { changed, next } = finding.known.observe(answer, params);
            finding.next = next;
            let fault = answer.as_ref().map_or_else(|fault| Some(*fault), |answer| answer.missing);
            Outcome {
                endpoints: changed.then(|| finding.known.endpoints()),
                left_off: finding.known.left_off(),
                answered: answer.is_ok(),
                fault: fault.map(Fault::token),
                details: Vec::new(),
            }
        })
    }

    /// Returns how long to wait before the next question.
    fn update(&self, pool: &str, params: &DiscoverParams, look: impl FnOnce(&mut Finding) -> Outcome) -> Duration {
        let mut pools = self.lock();
        let finding = pools.entry(pool.to_owned()).or_insert_with(|| Finding::new(params.source.clone()));
        if finding.source != params.source {
            // The endpoints stay until the new source has some.
            *finding =
                Finding { endpoints: std::mem::take(&mut finding.endpoints), ..Finding::new(params.source.clone()) };
        }
        let Outcome { endpoints, left_off, answered, fault, details } = look(finding);
        let changed = endpoints.is_some_and(|endpoints| {
            let changed = endpoints != finding.endpoints;
            finding.endpoints = endpoints;
            changed
        });
        let report = &mut finding.report;
        let news = (report.fault, &report.details) != (fault, &details);
        (report.found, report.left_off) = (finding.endpoints.len(), left_off);
        (report.fault, report.details) = (fault, details);
        report.changes += u64::from(changed);
        if answered {
            report.answers += 1;
            report.answered = Some(Clock::System.now().wall);
        } else {
            report.failures += 1;
        }
        if changed {
            let Report { source, found, left_off, .. } = report;
            tracing::info!(pool, source = *source, found = *found, left_off = *left_off, "endpoints are discovered");
            self.changed.notify_one();
        }
        match report.fault {
            // Not at each turn of what lasts.
            Some(reason) if news => {
                let Report { source, found, details, .. } = report;
                tracing::warn!(pool, source = *source, reason, stay = *found, "discovery fails");
                details.iter().for_each(|detail| tracing::warn!("{detail}"));
            }
            None if news => tracing::info!(pool, source = report.source, "discovery is well again"),
            _ => {}
        }
        finding.next
    }

    /// How long to wait before the next question; `None` = it is the first one.
    fn next(&self, pool: &str, source: &Source) -> Option<Duration> {
        self.lock().get(pool).filter(|finding| finding.source == *source).map(|finding| finding.next)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Finding>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Finding {
    fn new(source: Source) -> Self {
        Self {
            report: Report { source: source.to_string(), ..Report::default() },
            source,
            known: Discovered::default(),
            endpoints: Vec::new(),
            next: Duration::ZERO,
        }
    }
}

/// What a task asks, and whom; replaced on reload.
#[derive(Debug, Clone, PartialEq)]
struct Question {
    params: DiscoverParams,
    servers: Vec<SocketAddr>,
}

impl Question {
    /// What is to be asked for a pool; nothing where it reads files, or discovers nothing.
    fn of(pool: &PoolParams) -> Option<Self> {
        let params = pool.discover.clone().filter(|params| !matches!(params.source, Source::Directory(_)))?;
        Some(Self { params, servers: pool.resolver.clone() })
    }

    async fn ask(&self) -> Result<Answer, Fault> {
        resolver::ask(&self.params.source, &self.servers).await
    }
}

/// The tasks that ask, one for each pool and each name of the running generation. Dropping it ends them.
#[derive(Debug)]
pub struct Discovery {
    runtime: Handle,
    findings: Arc<Findings>,
    pools: HashMap<String, watch::Sender<Question>>,
    names: HashMap<u64, watch::Sender<Question>>,
}

impl Discovery {
    /// Nothing is asked yet; tasks will run on `runtime` and write into `findings`.
    #[must_use]
    pub fn new(runtime: Handle, findings: Arc<Findings>) -> Self {
        Self { runtime, findings, pools: HashMap::new(), names: HashMap::new() }
    }

    /// Asks once for each of `pools` of which nothing is known, so that they begin with endpoints. Takes two seconds at
    /// most.
    pub async fn introduce(&self, pools: impl Iterator<Item = &PoolParams>) {
        let asked = pools.filter_map(|pool| {
            let question = Question::of(pool)?;
            self.findings.next(&pool.name, &question.params.source).is_none().then_some((pool, question))
        });
        let asked = asked.map(async |(pool, question)| {
            if let Ok(answer) = tokio::time::timeout(FIRST_ANSWER, question.ask()).await {
                self.findings.heard(&pool.name, &question.params, &answer);
            }
        });
        futures_util::future::join_all(asked).await;
    }

    /// Asks for exactly what `pools` have in names from now on, and forgets what was found for others.
    pub fn follow(&mut self, pools: &[Arc<Pool>]) {
        let discovers =
            |name: &String| pools.iter().any(|pool| pool.params.discover.is_some() && pool.params.name == *name);
        self.findings.lock().retain(|name, _| discovers(name));
        let (mut pools_before, mut names_before) = (std::mem::take(&mut self.pools), std::mem::take(&mut self.names));
        for pool in pools {
            if let Some(question) = Question::of(&pool.params) {
                let name = &pool.params.name;
                let task = |questions| ask_for_pool(name.clone(), questions, Arc::clone(&self.findings));
                let sender = self.keep_asking(pools_before.remove(name), question, task);
                self.pools.insert(name.clone(), sender);
            }
            for endpoint in &pool.endpoints {
                let Address::Name(name, port) = endpoint.address() else { continue };
                let source = Source::Addresses(name.clone(), *port);
                let params = DiscoverParams { source, interval: NAME_INTERVAL, max: NAME_ADDRESSES };
                let question = Question { params, servers: pool.params.resolver.clone() };
                let task = |questions| ask_for_name(Arc::clone(endpoint), questions);
                let sender = self.keep_asking(names_before.remove(&endpoint.id()), question, task);
                self.names.insert(endpoint.id(), sender);
            }
        }
    }

    /// Hands the task that there is its question, or starts one.
    fn keep_asking<F: Future<Output = ()> + Send + 'static>(
        &self,
        running: Option<watch::Sender<Question>>,
        question: Question,
        task: impl FnOnce(watch::Receiver<Question>) -> F,
    ) -> watch::Sender<Question> {
        let Some(sender) = running else {
            let (sender, questions) = watch::channel(question);
            self.runtime.spawn(task(questions));
            return sender;
        };
        sender.send_if_modified(|asked| std::mem::replace(asked, question.clone()) != question);
        sender
    }
}

/// Asks for a pool's endpoints until it is gone.
async fn ask_for_pool(pool: String, mut questions: watch::Receiver<Question>, findings: Arc<Findings>) {
    let known = findings.next(&pool, &questions.borrow().params.source);
    if !rest(&mut questions, known.unwrap_or_default()).await {
        return;
    }
    loop {
        let question = questions.borrow_and_update().clone();
        let answer = question.ask().await;
        // What was asked may no longer be what is wanted.
        let next = match questions.has_changed() {
            Ok(false) => findings.heard(&pool, &question.params, &answer),
            Ok(true) => Duration::ZERO,
            Err(_) => return,
        };
        if !rest(&mut questions, next).await {
            return;
        }
    }
}

/// Asks for an endpoint's name until the endpoint is gone.
async fn ask_for_name(endpoint: Arc<Endpoint>, mut questions: watch::Receiver<Question>) {
    let mut known = Discovered::default();
    let mut fault = None;
    loop {
        let question = questions.borrow_and_update().clone();
        let answer = question.ask().await;
        let Step { changed, next } = known.observe(&answer, &question.params);
        if changed {
            endpoint.names.keep(known.addresses().collect());
        } else {
            endpoint.names.miss();
        }
        if answer.as_ref().err() != fault.as_ref() {
            fault = answer.err();
            match fault {
                Some(fault) => {
                    let reason = fault.token();
                    tracing::warn!(endpoint = %endpoint.address(), reason, "name not resolved; the last good answer stays");
                }
                None => tracing::info!(endpoint = %endpoint.address(), "name is resolved again"),
            }
        }
        if !rest(&mut questions, next).await {
            return;
        }
    }
}

/// Waits, or until there is another question. False when there will be none.
async fn rest(questions: &mut watch::Receiver<Question>, time: Duration) -> bool {
    !matches!(tokio::time::timeout(time, questions.changed()).await, Ok(Err(_)))
}
