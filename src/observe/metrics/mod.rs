//! Metrics in Prometheus' text format (version 0.0.4).
//!
//! Two kinds: counters of exchanges, which workers add to, and readings of the process's state, which are taken from a
//! [`Status`] at scrape time. A worker owns its counters: an exchange finds them in the worker's own index by listener
//! and route and does a few relaxed additions that no other worker writes beside. Only the first exchange of a worker on
//! a pair takes a lock, to register its block with the scraper.
//!
//! Cardinality: listeners and routes come from the configuration, status classes, cache results and reasons from closed
//! lists. Pairs of listener and route beyond [`SERIES_MAX`] are counted under `other`.

mod page;
mod readings;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;

use super::status::{CacheAnswers, Status};
use page::{Kind, Page};

/// Pairs of listener and route with counters of their own, since the start of the process.
pub const SERIES_MAX: usize = 1000;
/// Pairs a worker's index remembers, those counted under `other` included.
const INDEX_MAX: usize = 8 * SERIES_MAX;
/// The `Content-Type` of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of the duration buckets, in microseconds with their label in seconds.
const BUCKETS: [(u64, &str); 14] = [
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (10_000_000, "10"),
    (60_000_000, "60"),
];
const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// `cache` labels; the last stands for tokens not listed, the first for routes without a cache.
const CACHE_RESULTS: [&str; 8] = ["none", "hit", "stale", "revalidated", "miss", "bypass", "collapsed", "other"];
/// `cache` results for which the farm was not asked anew.
const HITS: [&str; 3] = ["hit", "stale", "collapsed"];
/// Label of what has no counters of its own.
const OTHER: &str = "other";

/// What is counted of one finished exchange.
#[derive(Debug, Clone, Copy)]
pub struct ExchangeOutcome<'a> {
    /// Name of the listener.
    pub listener: &'a str,
    /// Name of the route; `None` when none matched.
    pub route: Option<&'a str>,
    /// Status of the answer.
    pub status: StatusCode,
    /// The access record's `cache` token.
    pub cache: Option<&'static str>,
    /// Why the cache did not answer by itself, and the reason behind that: tokens of closed lists, empty for none.
    pub cache_why: Option<(&'static str, &'static str)>,
    /// Body bytes sent.
    pub bytes: u64,
    /// From the complete request head to the last byte out.
    pub duration: Duration,
    /// Why it failed or was refused: a stable token.
    pub reason: Option<&'static str>,
}

/// The counters of the whole process.
#[derive(Debug, Default)]
pub struct Metrics {
    registry: Mutex<Registry>,
}

/// By listener and route: one block per worker that has served the pair.
type Blocks = BTreeMap<(Arc<str>, Arc<str>), Vec<Arc<Exchanges>>>;

/// Asked at every exchange; its keys come from the configuration and from closed lists, not from clients.
type FastMap<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// One worker's blocks, by listener and then by route.
type Index = FastMap<Arc<str>, FastMap<Arc<str>, Arc<Exchanges>>>;

#[derive(Debug, Default)]
struct Registry {
    exchanges: Blocks,
    reasons: Tokens,
    encodings: Tokens,
    dictionaries: Tokens,
    rewrites: Tokens,
    mirrored: Tokens,
    /// By `ExchangeOutcome::cache_why`: one counter per worker that has met it.
    cache_whys: Pairs,
    /// What was filled, and why it was not kept.
    not_kept: Pairs,
}

/// By two tokens: one counter per worker that has met them.
type Pairs = BTreeMap<(&'static str, &'static str), Vec<Arc<Counter>>>;

/// One worker's counters of such a family.
type PairIndex = RefCell<FastMap<(&'static str, &'static str), Arc<Counter>>>;

/// By token: one counter per worker that has met it.
type Tokens = BTreeMap<&'static str, Vec<Arc<Counter>>>;

/// One worker's counters of a family.
type TokenIndex = RefCell<FastMap<&'static str, Arc<Counter>>>;

/// One worker's counters of one pair. Aligned so that two workers never write to one cache line, nor to a pair of lines
/// that is fetched together.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Exchanges {
    requests: [[AtomicU64; CACHE_RESULTS.len()]; STATUS_CLASSES.len()],
    bytes: [AtomicU64; CACHE_RESULTS.len()],
    /// Not cumulative yet; those beyond the last bound are only in `requests`.
    durations: [AtomicU64; BUCKETS.len()],
    duration_micros: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// The blocks of all workers for one pair, added up.
#[derive(Default)]
struct Totals {
    requests: [[u64; CACHE_RESULTS.len()]; STATUS_CLASSES.len()],
    bytes: [u64; CACHE_RESULTS.len()],
    durations: [u64; BUCKETS.len()],
    duration_micros: u64,
}

/// One worker's way to its counters. Not shared between threads: its index needs no lock.
#[derive(Debug)]
pub struct WorkerMetrics {
    metrics: Arc<Metrics>,
    exchanges: RefCell<Index>,
    /// Pairs in `exchanges`.
    indexed: Cell<usize>,
    /// Counts what has no block of its own.
    other: Arc<Exchanges>,
    reasons: TokenIndex,
    encodings: TokenIndex,
    dictionaries: TokenIndex,
    rewrites: TokenIndex,
    mirrored: TokenIndex,
    cache_whys: PairIndex,
    not_kept: PairIndex,
}

impl Metrics {
    /// Counters at zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The counters of one more worker; to be made on that worker's thread.
    #[must_use]
    pub fn worker(self: &Arc<Self>) -> WorkerMetrics {
        let other = Arc::<Exchanges>::default();
        self.lock().exchanges.entry((OTHER.into(), OTHER.into())).or_default().push(other.clone());
        WorkerMetrics {
            metrics: self.clone(),
            exchanges: RefCell::default(),
            indexed: Cell::new(0),
            other,
            reasons: RefCell::default(),
            cache_whys: RefCell::default(),
            not_kept: RefCell::default(),
            encodings: RefCell::default(),
            dictionaries: RefCell::default(),
            rewrites: RefCell::default(),
            mirrored: RefCell::default(),
        }
    }

    /// The whole exposition: these counters summed over the workers, and what `status` says. Series at zero are left
    /// out of the request counts.
    #[must_use]
    pub fn render(&self, status: &Status) -> String {
        let mut page = Page::default();
        self.render_exchanges(&mut page);
        readings::render(&mut page, status);
        page.into_text()
    }

    fn render_exchanges(&self, page: &mut Page) {
        let registry = self.lock();
        let totals: Vec<_> = registry
            .exchanges
            .iter()
            .map(|((listener, route), blocks)| {
                ([("listener", &**listener), ("route", &**route)], Totals::of(blocks.iter().map(|block| &**block)))
            })
            .filter(|(_, totals)| totals.count() > 0)
            .collect();

        page.family("tidegate_requests_total", Kind::Counter, "Finished exchanges.");
        for (labels, totals) in &totals {
            totals.render_requests(page, *labels);
        }
        page.family("tidegate_response_body_bytes_total", Kind::Counter, "Body bytes sent to clients.");
        for (labels, totals) in &totals {
            page.sample("", labels, totals.bytes.iter().sum::<u64>());
        }
        page.family(
            "tidegate_request_duration_seconds",
            Kind::Histogram,
            "From the complete request head to the last byte of the response.",
        );
        for (labels, totals) in &totals {
            totals.render_durations(page, *labels);
        }
        let mut by_token = |name, help, label, tokens: &Tokens| {
            page.family(name, Kind::Counter, help);
            for (token, counters) in tokens {
                let count: u64 = counters.iter().map(|counter| counter.0.load(Ordering::Relaxed)).sum();
                page.sample("", &[(label, token)], count);
            }
        };
        let help = "Exchanges that failed or were refused, by reason.";
        by_token("tidegate_errors_total", help, "reason", &registry.reasons);
        let help = "Bodies that a content coding was put on; each stored one ideally once.";
        by_token("tidegate_encodings_total", help, "coding", &registry.encodings);
        let help = "Requests that offered a dictionary for what is stored, by the coding they got or why none.";
        by_token("tidegate_dictionary_requests_total", help, "outcome", &registry.dictionaries);
        let help = "Answers of routes with element rules, by whether these were applied or why not.";
        by_token("tidegate_rewrites_total", help, "outcome", &registry.rewrites);
        let help = "Requests of routes with a mirror, by what became of their copies or why there was none.";
        by_token("tidegate_mirrored_total", help, "outcome", &registry.mirrored);
        let help = "Exchanges on routes with a cache, by why it did not answer by itself and the reason behind that.";
        page.family("tidegate_cache_requests_total", Kind::Counter, help);
        for ((forwarded, reason), counters) in &registry.cache_whys {
            let count: u64 = counters.iter().map(|counter| counter.0.load(Ordering::Relaxed)).sum();
            page.sample("", &[("forwarded", forwarded), ("reason", reason)], count);
        }
        let help =
            "Bodies of responses that may be stored, and codings of them, that were not kept after all, by reason.";
        page.family("tidegate_cache_not_kept_total", Kind::Counter, help);
        for ((kind, reason), counters) in &registry.not_kept {
            let count: u64 = counters.iter().map(|counter| counter.0.load(Ordering::Relaxed)).sum();
            page.sample("", &[("kind", kind), ("reason", reason)], count);
        }
    }

    /// What came of exchanges on routes with a cache. Cost: a lock, and a look at every block.
    #[must_use]
    pub fn cache_answers(&self) -> CacheAnswers {
        let mut answers = CacheAnswers::default();
        for blocks in self.lock().exchanges.values() {
            Totals::of(blocks.iter().map(|block| &**block)).add_to(&mut answers);
        }
        answers
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // A poisoned lock means a panic between two insertions; the registry is still whole.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WorkerMetrics {
    /// Counts one exchange. Cost: two look-ups in the worker's own index and four relaxed additions.
    pub fn observe(&self, outcome: &ExchangeOutcome<'_>) {
        let route = outcome.route.unwrap_or_default();
        let indexed = self
            .exchanges
            .borrow()
            .get(outcome.listener)
            .and_then(|routes| routes.get(route))
            .map(|block| block.add(outcome))
            .is_some();
        if !indexed {
            self.index(outcome.listener, route).add(outcome);
        }
        if let Some(reason) = outcome.reason {
            self.reason(reason);
        }
        if let Some(why) = outcome.cache_why {
            self.count_pair(&self.cache_whys, why, |registry| &mut registry.cache_whys);
        }
    }

    /// Counts a failure that belongs to no exchange of its own (a refused connection, a failed handshake).
    pub fn reason(&self, reason: &'static str) {
        self.count(&self.reasons, reason, |registry| &mut registry.reasons);
    }

    /// Counts a body that a content coding is put on.
    pub fn encoding(&self, coding: &'static str) {
        self.count(&self.encodings, coding, |registry| &mut registry.encodings);
    }

    /// Counts a request that offered a dictionary.
    pub fn dictionary(&self, outcome: &'static str) {
        self.count(&self.dictionaries, outcome, |registry| &mut registry.dictionaries);
    }

    /// Counts an answer that element rules were applied to, or why they were not.
    pub fn rewrite(&self, outcome: &'static str) {
        self.count(&self.rewrites, outcome, |registry| &mut registry.rewrites);
    }

    /// Counts what became of the copy of a request, or why there was none.
    pub fn mirror(&self, outcome: &'static str) {
        self.count(&self.mirrored, outcome, |registry| &mut registry.mirrored);
    }

    fn count(&self, index: &TokenIndex, token: &'static str, family: fn(&mut Registry) -> &mut Tokens) {
        let mut index = index.borrow_mut();
        let counter = index.entry(token).or_insert_with(|| {
            let counter = Arc::<Counter>::default();
            family(&mut self.metrics.lock()).entry(token).or_default().push(counter.clone());
            counter
        });
        counter.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a body that was on its way into the store and is not kept: `kind` is `response` or `coding`.
    pub fn not_kept(&self, kind: &'static str, reason: &'static str) {
        self.count_pair(&self.not_kept, (kind, reason), |registry| &mut registry.not_kept);
    }

    fn count_pair(
        &self,
        index: &PairIndex,
        pair: (&'static str, &'static str),
        family: fn(&mut Registry) -> &mut Pairs,
    ) {
        let mut index = index.borrow_mut();
        let counter = index.entry(pair).or_insert_with(|| {
            let counter = Arc::<Counter>::default();
            family(&mut self.metrics.lock()).entry(pair).or_default().push(counter.clone());
            counter
        });
        counter.0.fetch_add(1, Ordering::Relaxed);
    }

    /// A block for a pair this worker has not met: registered, or `other` when there are too many.
    #[cold]
    fn index(&self, listener: &str, route: &str) -> Arc<Exchanges> {
        if self.indexed.get() >= INDEX_MAX {
            return self.other.clone();
        }
        self.indexed.set(self.indexed.get() + 1);
        let (listener, route): (Arc<str>, Arc<str>) = (listener.into(), route.into());
        let mut registry = self.metrics.lock();
        let key = (listener.clone(), route.clone());
        let block = if registry.exchanges.len() < SERIES_MAX || registry.exchanges.contains_key(&key) {
            let block = Arc::<Exchanges>::default();
            registry.exchanges.entry(key).or_default().push(block.clone());
            block
        } else {
            self.other.clone()
        };
        self.exchanges.borrow_mut().entry(listener).or_default().insert(route, block.clone());
        block
    }
}

impl Exchanges {
    fn add(&self, outcome: &ExchangeOutcome<'_>) {
        let class = usize::from(outcome.status.as_u16() / 100).clamp(1, STATUS_CLASSES.len()) - 1;
        let cache = outcome.cache.unwrap_or("none");
        let cache = CACHE_RESULTS.iter().position(|known| *known == cache).unwrap_or(CACHE_RESULTS.len() - 1);
        let micros = u64::try_from(outcome.duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.partition_point(|(bound, _)| *bound < micros);
        let add = |counter: Option<&AtomicU64>, by: u64| {
            if let Some(counter) = counter {
                counter.fetch_add(by, Ordering::Relaxed);
            }
        };
        add(self.requests.get(class).and_then(|results| results.get(cache)), 1);
        add(self.durations.get(bucket), 1);
        add(Some(&self.duration_micros), micros);
        add(self.bytes.get(cache), outcome.bytes);
    }
}

impl Totals {
    fn of<'a>(blocks: impl Iterator<Item = &'a Exchanges>) -> Self {
        let sum = |total: &mut u64, counter: &AtomicU64| *total += counter.load(Ordering::Relaxed);
        blocks.fold(Self::default(), |mut totals, block| {
            let requests = totals.requests.as_flattened_mut().iter_mut().zip(block.requests.as_flattened());
            let durations = totals.durations.iter_mut().zip(&block.durations);
            let bytes = totals.bytes.iter_mut().zip(&block.bytes);
            requests.chain(durations).chain(bytes).for_each(|(total, counter)| sum(total, counter));
            sum(&mut totals.duration_micros, &block.duration_micros);
            totals
        })
    }

    fn count(&self) -> u64 {
        self.requests.as_flattened().iter().sum()
    }

    /// Adds what was answered on routes with a cache.
    fn add_to(&self, answers: &mut CacheAnswers) {
        for (place, result) in CACHE_RESULTS.iter().enumerate().filter(|(_, result)| **result != "none") {
            let requests: u64 = self.requests.iter().filter_map(|results| results.get(place)).sum();
            let bytes = self.bytes.get(place).copied().unwrap_or_default();
            answers.requests += requests;
            answers.bytes += bytes;
            if HITS.contains(result) {
                answers.hits += requests;
                answers.hit_bytes += bytes;
            }
        }
    }

    fn render_requests(&self, page: &mut Page, [listener, route]: [(&str, &str); 2]) {
        for (class, results) in STATUS_CLASSES.iter().zip(&self.requests) {
            for (cache, count) in CACHE_RESULTS.iter().zip(results).filter(|(_, count)| **count > 0) {
                page.sample("", &[listener, route, ("status", class), ("cache", cache)], *count);
            }
        }
    }

    fn render_durations(&self, page: &mut Page, [listener, route]: [(&str, &str); 2]) {
        let mut below = 0;
        for ((_, bound), count) in BUCKETS.iter().zip(&self.durations) {
            below += count;
            page.sample("_bucket", &[listener, route, ("le", bound)], below);
        }
        // Workers go on counting while this is read: the total may have moved, but must not fall behind its buckets.
        let count = self.count().max(below);
        page.sample("_bucket", &[listener, route, ("le", "+Inf")], count);
        page.sample("_sum", &[listener, route], Duration::from_micros(self.duration_micros).as_secs_f64());
        page.sample("_count", &[listener, route], count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::status::tests::sample;
    use std::collections::HashSet;

    fn outcome<'a>(listener: &'a str, route: Option<&'a str>) -> ExchangeOutcome<'a> {
        ExchangeOutcome {
            listener,
            route,
            status: StatusCode::OK,
            cache: None,
            cache_why: None,
            bytes: 10,
            duration: Duration::from_millis(2),
            reason: None,
        }
    }

    /// Reads an exposition as strictly as a scraper: every sample belongs to the family above it, has a number, and
    /// comes once. Returns the samples by name and labels.
    fn parse(text: &str) -> HashMap<String, f64> {
        let (mut family, mut families, mut samples) = ("", HashSet::new(), HashMap::new());
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(families.insert(name), "{name} once");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
                family = name;
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = series.split('{').next().unwrap();
                assert!(name.starts_with(family) && name.starts_with("tidegate_"), "{name} in {family}");
                assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{series} once");
            }
        }
        samples
    }

    #[test]
    fn workers_add_up() {
        let metrics = Metrics::new();
        let (one, two) = (metrics.worker(), metrics.worker());
        one.observe(&outcome("https", Some("static")));
        one.observe(&ExchangeOutcome { cache: Some("hit"), ..outcome("https", Some("static")) });
        two.observe(&ExchangeOutcome {
            cache: Some("hit"),
            cache_why: Some(("none", "")),
            ..outcome("https", Some("static"))
        });
        let why = Some(("uri-miss", "private"));
        two.observe(&ExchangeOutcome { cache: Some("new token"), cache_why: why, ..outcome("https", Some("static")) });
        let failed = ExchangeOutcome {
            status: StatusCode::BAD_GATEWAY,
            duration: Duration::from_secs(61),
            reason: Some("connect_refused"),
            ..outcome("https", None)
        };
        one.observe(&failed);
        two.observe(&failed);
        one.not_kept("response", "too_large");
        two.not_kept("response", "too_large");
        drop(two);

        let samples = parse(&metrics.render(&Status { cache: metrics.cache_answers(), ..sample() }));
        let check = |series: &str, expected: f64| assert_eq!(samples.get(series), Some(&expected), "{series}");
        let pair = r#"listener="https",route="static""#;
        check(&format!(r#"tidegate_requests_total{{{pair},status="2xx",cache="none"}}"#), 1.0);
        check(&format!(r#"tidegate_requests_total{{{pair},status="2xx",cache="hit"}}"#), 2.0);
        check(&format!(r#"tidegate_requests_total{{{pair},status="2xx",cache="other"}}"#), 1.0);
        check(&format!("tidegate_response_body_bytes_total{{{pair}}}"), 40.0);
        check(r#"tidegate_cache_requests_total{forwarded="uri-miss",reason="private"}"#, 1.0);
        check(r#"tidegate_cache_requests_total{forwarded="none",reason=""}"#, 1.0);
        check(r#"tidegate_cache_not_kept_total{kind="response",reason="too_large"}"#, 2.0);
        check(r#"tidegate_cache_hit_ratio{by="requests"}"#, 2.0 / 3.0);
        check(r#"tidegate_cache_hit_ratio{by="bytes"}"#, 20.0 / 30.0);
        check(&format!(r#"tidegate_request_duration_seconds_bucket{{{pair},le="0.001"}}"#), 0.0);
        check(&format!(r#"tidegate_request_duration_seconds_bucket{{{pair},le="0.0025"}}"#), 4.0);
        check(&format!(r#"tidegate_request_duration_seconds_bucket{{{pair},le="+Inf"}}"#), 4.0);
        check(&format!("tidegate_request_duration_seconds_sum{{{pair}}}"), 0.008);
        check(&format!("tidegate_request_duration_seconds_count{{{pair}}}"), 4.0);
        let unrouted = r#"listener="https",route="""#;
        check(&format!(r#"tidegate_requests_total{{{unrouted},status="5xx",cache="none"}}"#), 2.0);
        check(&format!(r#"tidegate_request_duration_seconds_bucket{{{unrouted},le="60"}}"#), 0.0);
        check(&format!(r#"tidegate_request_duration_seconds_bucket{{{unrouted},le="+Inf"}}"#), 2.0);
        check(r#"tidegate_errors_total{reason="connect_refused"}"#, 2.0);
    }

    #[test]
    fn a_duration_on_a_bound_is_within_it() {
        let check = |micros, bound: &str, below: &str| {
            let metrics = Metrics::new();
            metrics
                .worker()
                .observe(&ExchangeOutcome { duration: Duration::from_micros(micros), ..outcome("l", Some("r")) });
            let samples = parse(&metrics.render(&sample()));
            let bucket = |le| {
                samples[&format!(r#"tidegate_request_duration_seconds_bucket{{listener="l",route="r",le="{le}"}}"#)]
            };
            assert_eq!((bucket(bound), bucket(below)), (1.0, 0.0), "{micros} µs");
        };
        check(1_000, "0.001", "0.0005");
        check(1_001, "0.0025", "0.001");
        check(60_000_000, "60", "10");
    }

    #[test]
    fn names_beyond_the_cap_are_counted_together() {
        let metrics = Metrics::new();
        let worker = metrics.worker();
        for number in 0..SERIES_MAX + 5 {
            worker.observe(&outcome("l", Some(&format!("route {number}"))));
        }
        let samples = parse(&metrics.render(&sample()));
        let count = |pair: &str| samples.get(&format!("tidegate_response_body_bytes_total{{{pair}}}")).copied();
        assert_eq!(count(r#"listener="l",route="route 0""#), Some(10.0));
        // `other` itself is one of the pairs.
        assert_eq!(count(r#"listener="other",route="other""#), Some(60.0));
        assert_eq!(samples.keys().filter(|key| key.contains("body_bytes")).count(), SERIES_MAX);
        for number in 0..INDEX_MAX + 5 {
            worker.observe(&outcome("l", Some(&format!("later {number}"))));
        }
        assert_eq!(worker.indexed.get(), INDEX_MAX);
        let counted: f64 = parse(&metrics.render(&sample()))
            .iter()
            .filter_map(|(series, value)| series.contains("duration_seconds_count").then_some(value))
            .sum();
        assert_eq!(counted, (SERIES_MAX + 5 + INDEX_MAX + 5) as f64, "nothing is lost");
    }

    #[test]
    fn the_state_of_the_process_is_read_out() {
        let samples = parse(&Metrics::new().render(&sample()));
        let check = |series: &str, expected: f64| assert_eq!(samples.get(series), Some(&expected), "{series}");
        check(r#"tidegate_build_info{version="0.1.0"}"#, 1.0);
        check("tidegate_config_generation", 7.0);
        check(r#"tidegate_worker_config_generation{worker="1"}"#, 6.0);
        check(r#"tidegate_config_reloads_total{result="failed"}"#, 1.0);
        check("tidegate_config_last_reload_successful", 0.0);
        check("tidegate_config_last_reload_timestamp_seconds", 1_795_416_099.0);
        check("tidegate_access_log_lines_dropped_total", 3.0);
        check("tidegate_connections", 4.0);
        check(r#"tidegate_connections_refused_total{reason="max_connections"}"#, 2.0);
        let soonest = r#"tidegate_certificate_expiry_timestamp_seconds{listener="https",name="shop.example"}"#;
        check(soonest, 1_800_000_000.0);
        check(r#"tidegate_endpoint_healthy{pool="web",endpoint="10.0.0.11:8080"}"#, 0.0);
        check(r#"tidegate_endpoint_in_flight{pool="web",endpoint="10.0.0.11:8080"}"#, 5.0);
        check(r#"tidegate_cache_hit_ratio{by="bytes"}"#, 0.9);
        check("tidegate_purges_total", 3.0);
        check(r#"tidegate_purged_responses_total{kind="removed"}"#, 20.0);
        check("tidegate_store_size_bytes", 2000.0);
        check(r#"tidegate_store_policy_bytes{policy="api"}"#, 100.0);
    }

    #[test]
    fn labels_are_escaped() {
        let metrics = Metrics::new();
        metrics.worker().observe(&outcome("a\"b\\c\nd", Some("r")));
        let text = metrics.render(&sample());
        assert!(text.contains(r#"{listener="a\"b\\c\nd",route="r"} 10"#), "{text}");
    }
}
