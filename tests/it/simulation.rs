//! A farm simulated: thousands of picks, failures, probes, reloads and answers of DNS by a seed, with a clock moved by hand.
//!
//! Only the policies are real; sockets and time are not. After every step the promises are checked by rules written down
//! here once more, not by asking the policy. A failing seed is in the panic's message: `REPLAY_SEED=N cargo test --test it
//! simulation` replays it.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use tidegate::error::{ErrorKind, ProxyError, Retry, Stage};
use tidegate::policy::balance::peak_ewma::Latency;
use tidegate::policy::balance::{AdminState, Balance, EndpointView, NoEndpoint, PickFacts, Picker};
use tidegate::policy::discovery::{Answer, DiscoverParams, Discovered, Fault, Found, Source, Step};
use tidegate::policy::health::active::ActiveHealth;
use tidegate::policy::health::outlier::{Failing, Failure as Failed, OutlierParams, Outliers};
use tidegate::policy::health::{HealthParams, ProbeKind, slow_start};
use tidegate::policy::retry::budget::{Budget, FLOOR};
use tidegate::policy::retry::{self, Again, Failure, RetryFacts, RetryParams};

use crate::support::rng::Rng;

const SEEDS: u64 = 12;
const STEPS: u32 = 4_000;
const ALGORITHMS: [Balance; 5] =
    [Balance::RoundRobin, Balance::LeastConnections, Balance::RandomTwo, Balance::PeakEwma, Balance::Hash];
const PANIC: f64 = 0.3;
const BUDGET: f64 = 0.2;
const MAX_EJECTED: f64 = 0.5;
const RAMP: Duration = Duration::from_secs(5);
const PROBES: Duration = Duration::from_secs(2);
/// Of those endpoints that are found.
const MAX_FOUND: usize = 5;
const INTERVAL: Duration = Duration::from_secs(4);

/// How an endpoint does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// Every third answer is a 503, probes pass.
    Shaky,
    /// Connections break.
    Resetting,
    /// Nobody listens.
    Dead,
}

#[derive(Debug, Clone)]
struct Endpoint {
    id: u64,
    /// By DNS; `None` = it is written.
    found: Option<SocketAddr>,
    weight: u16,
    tier: u8,
    state: AdminState,
    max_connections: u32,
    mood: Mood,
    health: ActiveHealth,
    probed: Duration,
    in_flight: u32,
    streak: u32,
    attempts: u64,
    ejected_until: Duration,
    back: Option<Duration>,
    latency: Latency,
}

impl Endpoint {
    fn new(id: u64, rng: &mut Rng) -> Self {
        Self {
            id,
            found: None,
            weight: [1, 1, 2, 3, 5][rng.below(5)],
            tier: u8::from(rng.below(8) == 0),
            state: AdminState::Up,
            max_connections: [4, 20, 1000][rng.below(3)],
            mood: Mood::Well,
            health: ActiveHealth::default(),
            probed: Duration::ZERO,
            in_flight: 0,
            streak: 0,
            attempts: 0,
            ejected_until: Duration::ZERO,
            back: None,
            latency: Latency::default(),
        }
    }

    fn is_up(&self) -> bool {
        self.state == AdminState::Up && self.weight > 0
    }

    fn is_well(&self, now: Duration) -> bool {
        self.health.is_healthy() && self.ejected_until <= now
    }
}

struct Farm {
    seed: u64,
    step: u32,
    rng: Rng,
    balance: Balance,
    picker: Picker,
    endpoints: Vec<Endpoint>,
    next_id: u64,
    now: Duration,
    known: Discovered,
    /// When DNS is asked again.
    due: Duration,
    /// Exchanges under way: whose, and when they end.
    running: Vec<(u64, Duration)>,
    outliers: Outliers,
    budget: Budget,
    /// Attempts of endpoints that have left.
    gone: u64,
    /// When attempts were made, and charged retries, over the last ten seconds.
    attempts: VecDeque<Duration>,
    retries: VecDeque<Duration>,
    /// What happened, so that a run in which nothing happens is noticed.
    ejections: u32,
    denied: u32,
    retried: u32,
    sick: u32,
    moves: u32,
    misses: u32,
}

impl Farm {
    fn new(seed: u64, balance: Balance) -> Self {
        let mut rng = Rng::seeded(seed);
        let endpoints = (1..=6).map(|id| Endpoint::new(id, &mut rng)).collect();
        Self {
            seed,
            step: 0,
            rng,
            balance,
            picker: Picker::new(balance),
            endpoints,
            next_id: 7,
            now: Duration::from_secs(100),
            known: Discovered::default(),
            due: Duration::ZERO,
            running: Vec::new(),
            outliers: Outliers::default(),
            budget: Budget::default(),
            gone: 0,
            attempts: VecDeque::new(),
            retries: VecDeque::new(),
            ejections: 0,
            denied: 0,
            retried: 0,
            sick: 0,
            moves: 0,
            misses: 0,
        }
    }

    #[track_caller]
    fn check(&self, holds: bool, promise: &str) {
        let Self { seed, step, balance, .. } = self;
        assert!(
            holds,
            "{promise}\n{balance:?}, step {step}; REPLAY_SEED={seed} cargo test --test it simulation\n{:#?}",
            self.endpoints
        );
    }

    fn millis(&self) -> u32 {
        u32::try_from(self.now.as_millis()).unwrap()
    }

    fn views(&self, tried: &[usize]) -> Vec<EndpointView> {
        let view = |(index, endpoint): (usize, &Endpoint)| EndpointView {
            weight: slow_start::share(endpoint.weight, endpoint.back.map(|back| self.now.saturating_sub(back)), RAMP),
            in_flight: endpoint.in_flight,
            max_connections: endpoint.max_connections,
            healthy: endpoint.is_well(self.now),
            state: endpoint.state,
            tier: endpoint.tier,
            tried: tried.contains(&index),
            latency: endpoint.latency.micros(self.millis()),
            seed: endpoint.id.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        self.endpoints.iter().enumerate().map(view).collect()
    }

    /// Below this share of the well among those that are up health counts for nothing, unless a backup is well.
    fn panics(&self) -> bool {
        let up = |backup: bool| self.endpoints.iter().filter(move |e| e.is_up() && (e.tier > 0) == backup);
        let well = up(false).filter(|e| e.is_well(self.now)).count() as f64;
        !up(true).any(|e| e.is_well(self.now)) && well < PANIC * up(false).count() as f64
    }

    fn pick(&mut self, tried: &[usize]) -> Option<usize> {
        let facts = PickFacts { panic: PANIC, random: self.rng.next(), key: None, stay: None };
        let views = self.views(tried);
        let picked = self.picker.pick(&views, &facts);
        let panics = self.panics();
        let may = |index: usize, e: &Endpoint| {
            e.is_up() && (panics || e.is_well(self.now)) && e.in_flight < e.max_connections && !tried.contains(&index)
        };
        let somebody = self.endpoints.iter().enumerate().any(|(index, e)| may(index, e));
        match picked {
            Ok(index) => {
                let allowed = may(index, &self.endpoints[index]);
                self.check(allowed, "nobody is picked who is down, full or tried");
                let tier = self.endpoints[index].tier;
                let first = self.endpoints.iter().enumerate().any(|(index, e)| e.tier < tier && may(index, e));
                self.check(!first, "backups wait for the others to fail");
            }
            Err(NoEndpoint::NoneHealthy | NoEndpoint::AllFull | NoEndpoint::AllTried) => {
                self.check(!somebody, "somebody with room is picked");
            }
            Err(other) => self.check(false, other.token()),
        }
        picked.ok()
    }

    /// One exchange with all its attempts.
    fn exchange(&mut self) {
        let params = RetryParams { attempts: 3, on_status: vec![503], ..RetryParams::default() };
        let mut tried = Vec::new();
        loop {
            let Some(index) = self.pick(&tried) else { return };
            let Some(failure) = self.attempt(index) else { return };
            let facts = RetryFacts {
                failure,
                method: &Method::GET,
                attempts: u32::try_from(tried.len() + 1).unwrap(),
                silent_used: true,
                replayable: true,
            };
            if retry::may_retry(&facts, &params) != Ok(Again::Attempt) {
                return;
            }
            tried.push(index);
            let charged = !retry::is_unsent(failure);
            if charged && !self.take_retry() {
                self.denied += 1;
                return;
            }
            self.retried += 1;
        }
    }

    fn take_retry(&mut self) -> bool {
        let total = self.gone + self.endpoints.iter().map(|e| e.attempts).sum::<u64>();
        if !self.budget.take(total, self.now, BUDGET) {
            return false;
        }
        self.retries.push_back(self.now);
        let since = |age| self.now.saturating_sub(Duration::from_secs(age));
        let recent = self.retries.iter().filter(|at| **at > since(5)).count() as u64;
        let all = self.retries.iter().filter(|at| **at > since(10)).count();
        let exchanges = (self.attempts.len() - all.min(self.attempts.len()) + 1) as f64;
        // In any five seconds, against the traffic of ten: what two stretches of five cannot exceed.
        let bound = FLOOR.max((BUDGET * (exchanges + all as f64)) as u64);
        self.check(recent <= bound, "retries stay under the budget");
        true
    }

    /// One attempt; how it failed.
    fn attempt(&mut self, index: usize) -> Option<Failure> {
        let (now, millis) = (self.now, self.millis());
        self.attempts.push_back(now);
        let shaky = self.rng.below(3) == 0;
        let lasts = Duration::from_millis(self.rng.below(200) as u64);
        let endpoint = &mut self.endpoints[index];
        endpoint.attempts += 1;
        let error = |kind, retry| Failure::Error(ProxyError::new(kind, Stage::Forward).with_retry(retry));
        let failed = match endpoint.mood {
            Mood::Dead => Some((error(ErrorKind::ConnectRefused, Retry::NothingSent), Failing::Connect)),
            Mood::Resetting => Some((error(ErrorKind::ConnectionReset, Retry::IfIdempotent), Failing::Reset)),
            Mood::Shaky if shaky => Some((Failure::Status(503), Failing::ServerError)),
            Mood::Shaky | Mood::Well => None,
        };
        endpoint.latency = endpoint.latency.observe(Duration::from_millis(2), failed.is_some(), millis);
        let Some((failure, failing)) = failed else {
            endpoint.streak = 0;
            endpoint.in_flight += 1;
            self.running.push((endpoint.id, now + lasts));
            return None;
        };
        endpoint.streak += 1;
        let seen = Failed { endpoint: endpoint.id, failing, streak: endpoint.streak, attempts: endpoint.attempts };
        self.blame(index, &seen);
        Some(failure)
    }

    fn blame(&mut self, index: usize, seen: &Failed) {
        let params = OutlierParams {
            consecutive_errors: 4,
            error_share: Some(0.3),
            on: vec![Failing::Connect, Failing::Reset, Failing::ServerError],
            eject_for: Duration::from_secs(1),
            max_ejected: MAX_EJECTED,
        };
        let up: Vec<u64> = self.endpoints.iter().filter(|e| e.is_up()).map(|e| e.id).collect();
        if let Some(ejection) = self.outliers.observe(seen, &up, self.now, &params) {
            self.ejections += 1;
            let endpoint = &mut self.endpoints[index];
            (endpoint.ejected_until, endpoint.back, endpoint.streak) = (ejection.until, Some(ejection.until), 0);
            let out = self.endpoints.iter().filter(|e| e.is_up() && e.ejected_until > self.now).count() as f64;
            self.check(out <= MAX_EJECTED * up.len() as f64, "no more than the share is ejected");
        }
    }

    /// Time goes on: exchanges end, probes come back.
    fn pass(&mut self, by: Duration) {
        self.now += by;
        let now = self.now;
        for (id, _) in self.running.extract_if(.., |(_, ends)| *ends <= now) {
            if let Some(endpoint) = self.endpoints.iter_mut().find(|e| e.id == id) {
                endpoint.in_flight -= 1;
            }
        }
        for old in [&mut self.attempts, &mut self.retries] {
            while old.front().is_some_and(|at| *at + Duration::from_secs(10) <= now) {
                old.pop_front();
            }
        }
        let total = self.gone + self.endpoints.iter().map(|e| e.attempts).sum::<u64>();
        self.budget.follow(total, now);
        let params = HealthParams {
            kind: ProbeKind::Tcp,
            interval: PROBES,
            fast_interval: PROBES / 4,
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 2,
        };
        for endpoint in self.endpoints.iter_mut().filter(|e| e.state != AdminState::Down) {
            let interval = if endpoint.health.is_settled() { params.interval } else { params.fast_interval };
            if now.saturating_sub(endpoint.probed) < interval {
                continue;
            }
            endpoint.probed = now;
            let was = endpoint.health.is_healthy();
            endpoint.health.observe(matches!(endpoint.mood, Mood::Well | Mood::Shaky), &params);
            match (was, endpoint.health.is_healthy()) {
                (false, true) => endpoint.back = Some(now),
                (true, false) => self.sick += 1,
                _ => {}
            }
        }
    }

    /// An edit of the file: endpoints come, go, and change; what stays keeps its state.
    fn reload(&mut self) {
        let written: Vec<usize> = (0..self.endpoints.len()).filter(|i| self.endpoints[*i].found.is_none()).collect();
        match self.rng.below(4) {
            0 if written.len() < 8 => {
                let mut joined = Endpoint::new(self.next_id, &mut self.rng);
                self.next_id += 1;
                joined.back = Some(self.now);
                self.endpoints.push(joined);
            }
            1 if written.len() > 2 => {
                let index = written[self.rng.below(written.len())];
                self.gone += self.endpoints.remove(index).attempts;
            }
            2 => {
                let index = self.rng.below(self.endpoints.len());
                self.endpoints[index].weight = self.rng.below(6) as u16;
            }
            _ => {
                let index = self.rng.below(self.endpoints.len());
                self.endpoints[index].state =
                    [AdminState::Up, AdminState::Up, AdminState::Drain, AdminState::Down][self.rng.below(4)];
            }
        }
    }

    /// DNS says what it likes; what is made of it is checked by what an operator is told.
    fn discover(&mut self) {
        let anybody = |rng: &mut Rng| Found {
            address: SocketAddr::from(([10, 0, 0, rng.below(9) as u8], 80)),
            priority: 0,
            weight: rng.below(4) as u16,
        };
        let ttl = Duration::from_millis(self.rng.below(6_000) as u64);
        let found: Vec<Found> = (0..self.rng.below(14)).map(|_| anybody(&mut self.rng)).collect();
        let outcome = match self.rng.below(6) {
            0 => Err([Fault::NoSuchName, Fault::Empty, Fault::ServerFailure, Fault::Timeout][self.rng.below(4)]),
            1 => Ok(Answer { found, ttl, missing: Some(Fault::Timeout) }),
            _ => Ok(Answer { found, ttl, missing: None }),
        };
        let before: BTreeSet<SocketAddr> = self.endpoints.iter().filter_map(|e| e.found).collect();
        let source = Source::Addresses("web.internal".into(), 80);
        let params = DiscoverParams { source, interval: INTERVAL, max: MAX_FOUND };
        let Step { next, .. } = self.known.observe(&outcome, &params);
        self.due = self.now + next;
        self.check((Duration::from_secs(1)..=INTERVAL).contains(&next), "questions are neither hasty nor rare");

        // As a pool is built: who stays keeps its state, who leaves is forgotten, who joins warms up.
        let wanted = self.known.endpoints();
        let addresses: BTreeSet<SocketAddr> = self.known.addresses().collect();
        for left in self.endpoints.extract_if(.., |e| e.found.is_some_and(|address| !addresses.contains(&address))) {
            self.gone += left.attempts;
        }
        for (params, address) in wanted.iter().zip(self.known.addresses()) {
            self.check((1..=3).contains(&params.weight), "nobody is found with weight 0");
            match self.endpoints.iter_mut().find(|e| e.found == Some(address)) {
                Some(stays) => stays.weight = params.weight,
                None => {
                    let new = Endpoint::new(self.next_id, &mut self.rng);
                    let (found, back) = (Some(address), Some(self.now));
                    self.next_id += 1;
                    self.endpoints.push(Endpoint { found, back, weight: params.weight, tier: params.tier, ..new });
                }
            }
        }
        self.check(addresses.len() <= MAX_FOUND, "endpoints that are found are bounded");
        self.check(before.is_empty() || !addresses.is_empty(), "whoever had endpoints keeps some");
        let said = |answer: &Answer| answer.found.iter().map(|one| one.address).collect::<BTreeSet<_>>();
        match &outcome {
            Ok(answer) if !answer.found.is_empty() => {
                let said = said(answer);
                let all = if answer.missing.is_some() { &said | &before } else { said };
                self.check(addresses.is_subset(&all), "nobody is made up");
                self.check(addresses.len() == all.len().min(MAX_FOUND), "nobody is left off for whom there is room");
                self.check((&before & &all).is_subset(&addresses), "who is there stays before others join");
                self.moves += u32::from(addresses != before);
            }
            Ok(_) | Err(_) => {
                self.misses += 1;
                self.check(addresses == before, "what is no answer changes nothing");
            }
        }
    }

    fn step(&mut self) {
        self.step += 1;
        match self.rng.below(100) {
            0 => self.reload(),
            31..=33 if self.now >= self.due => self.discover(),
            1..=3 => {
                let index = self.rng.below(self.endpoints.len());
                self.endpoints[index].mood =
                    [Mood::Well, Mood::Well, Mood::Shaky, Mood::Resetting, Mood::Dead][self.rng.below(5)];
            }
            4..=30 => {
                let by = Duration::from_millis(self.rng.below(80) as u64);
                self.pass(by);
            }
            _ => self.exchange(),
        }
        let counted: u32 = self.endpoints.iter().map(|e| e.in_flight).sum();
        let running = self.running.iter().filter(|(id, _)| self.endpoints.iter().any(|e| e.id == *id)).count();
        self.check(counted as usize == running, "what is in flight is counted");
    }

    /// Everybody is well again and takes traffic; once the past is over, shares are the weights.
    fn settle(&mut self) {
        for endpoint in &mut self.endpoints {
            endpoint.mood = Mood::Well;
            endpoint.state = AdminState::Up;
            endpoint.weight = endpoint.weight.max(1);
            endpoint.max_connections = u32::MAX;
            endpoint.tier = 0;
        }
        for _ in 0..400 {
            self.pass(Duration::from_secs(1));
        }
        let first: Vec<u64> = self.endpoints.iter().map(|e| e.attempts).collect();
        for _ in 0..10_000 {
            self.exchange();
            // A bound on the load moves shares where little is in flight: keys stay where they belong when nothing is.
            self.pass(Duration::from_millis(if self.balance == Balance::Hash { 200 } else { 1 }));
        }
        let weights: f64 = self.endpoints.iter().map(|e| f64::from(e.weight)).sum();
        for (endpoint, first) in self.endpoints.iter().zip(first) {
            let share = (endpoint.attempts - first) as f64 / 10_000.0;
            let fair = f64::from(endpoint.weight) / weights;
            self.check((share - fair).abs() <= 0.02, &format!("shares are the weights: {share} is not {fair}"));
        }
    }
}

#[test]
fn a_farm_keeps_its_promises() {
    let replayed = std::env::var("REPLAY_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seeds: Vec<u64> = replayed.map_or_else(|| (1..=SEEDS).collect(), |seed| vec![seed]);
    let mut seen = [0; 6];
    for &seed in &seeds {
        for balance in ALGORITHMS {
            let mut farm = Farm::new(seed, balance);
            for _ in 0..STEPS {
                farm.step();
            }
            let counts = [farm.ejections, farm.denied, farm.retried, farm.sick, farm.moves, farm.misses];
            for (sum, count) in seen.iter_mut().zip(counts) {
                *sum += count;
            }
            farm.settle();
        }
    }
    let enough = replayed.is_some() || seen.iter().all(|count| *count > 100);
    assert!(
        enough,
        "ejections, denied and made retries, sick endpoints, answers, failures: {seen:?} is not much of a test"
    );
}
