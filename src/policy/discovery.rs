//! Endpoints that are discovered: what becomes of an answer, and when to ask again.
//!
//! A whole answer replaces the one before it. What is no answer (no such name, a server's failure, silence, a list
//! without addresses) changes nothing: the last good one stays for as long as it takes. An answer of which a part could
//! not be had adds endpoints and removes none.
//!
//! The next question comes when the records have run out, but never sooner than a second and never later than the
//! interval; after a failure it comes soon, and less soon with every further one.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::balance::AdminState;
use super::pool::{Address, EndpointParams, MAX_WEIGHT};

/// The shortest time between two questions, unless the interval is shorter: records with TTL 0 would have us ask without
/// end.
const FLOOR: Duration = Duration::from_secs(1);

/// `discover`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoverParams {
    /// What is asked.
    pub source: Source,
    /// `interval`: the longest time between two questions.
    pub interval: Duration,
    /// `max`: endpoints that are taken of an answer.
    pub max: usize,
}

/// Where endpoints are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The A and AAAA records of a name, with this port.
    Addresses(String, u16),
    /// The SRV records of a service (RFC 2782).
    Services(String),
    /// The files of a directory.
    Directory(PathBuf),
}

impl Source {
    /// The name that the certificates of endpoints found here are for: their addresses are in none. Of a service it is the
    /// domain that was asked, as what a record points to is the word of whoever answered.
    #[must_use]
    pub fn certificate_name(&self) -> Option<&str> {
        match self {
            Self::Addresses(name, _) => Some(name.trim_end_matches('.')),
            Self::Services(name) => {
                let mut rest = name.trim_end_matches('.');
                while let Some((_, domain)) = rest.split_once('.').filter(|(label, _)| label.starts_with('_')) {
                    rest = domain;
                }
                Some(rest)
            }
            Self::Directory(_) => None,
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Addresses(name, port) => write!(f, "dns {name}:{port}"),
            Self::Services(name) => write!(f, "dns {name}"),
            Self::Directory(path) => write!(f, "directory {}", path.display()),
        }
    }
}

/// Why there is no answer, or not the whole of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The name does not exist.
    NoSuchName,
    /// It exists and has no address, or its service is decidedly not available.
    Empty,
    /// A server said that it cannot or will not answer.
    ServerFailure,
    /// Nobody answered in time.
    Timeout,
    /// No server could be asked, or what came was no answer.
    Unreachable,
}

impl Fault {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::NoSuchName => "no_such_name",
            Self::Empty => "empty",
            Self::ServerFailure => "server_failure",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
        }
    }

    /// A name without records of the kind that was asked for: an answer, if others bring some.
    #[must_use]
    pub fn is_absence(self) -> bool {
        matches!(self, Self::NoSuchName | Self::Empty)
    }
}

/// One address of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub address: SocketAddr,
    /// Of a service: lower ones first.
    pub priority: u16,
    /// Of a service: its share among equals.
    pub weight: u16,
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// In any order.
    pub found: Vec<Found>,
    /// How long it may be believed.
    pub ttl: Duration,
    /// Why a part of it is missing; `None` = it is whole.
    pub missing: Option<Fault>,
}

/// What an outcome led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The endpoints are others than before.
    pub changed: bool,
    /// How long to wait before the next question.
    pub next: Duration,
}

/// What is known of one source: a machine that is told every outcome.
#[derive(Debug, Clone, Default)]
pub struct Discovered {
    found: Vec<Found>,
    left_off: usize,
    failures: u32,
}

impl Discovered {
    /// Takes an outcome. At most `params.max` addresses are kept: the lowest priorities first, then those that were there
    /// before, so that an answer that is too large brings no unrest.
    pub fn observe(&mut self, outcome: &Result<Answer, Fault>, params: &DiscoverParams) -> Step {
        let floor = FLOOR.min(params.interval);
        let answer = match outcome {
            Ok(answer) if !answer.found.is_empty() => answer,
            Ok(_) | Err(_) => {
                let next = floor.saturating_mul(1 << self.failures.min(16)).min(params.interval);
                self.failures = self.failures.saturating_add(1);
                return Step { changed: false, next };
            }
        };
        self.failures = 0;
        let mut found = answer.found.clone();
        if answer.missing.is_some() {
            found.extend(self.found.iter().filter(|kept| !is_among(kept, &answer.found)));
        }
        let order = |one: &Found| (one.priority, !is_among(one, &self.found), Reverse(one.weight), one.address);
        found.sort_by_key(order);
        let mut seen = std::collections::HashSet::new();
        found.retain(|one| seen.insert(one.address));
        self.left_off = found.len().saturating_sub(params.max);
        found.truncate(params.max);
        found.sort_by_key(|one| (one.priority, one.address));
        let changed = found != self.found;
        self.found = found;
        Step { changed, next: answer.ttl.clamp(floor, params.interval) }
    }

    /// The endpoints, in an order that depends on nothing but themselves. The lowest priority is the first tier, the next
    /// one that there is its backup, and so on. Weight 0 of a service is a very small share, not none (RFC 2782); weights
    /// beyond what a pool has are scaled down together.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointParams> {
        let heaviest = self.found.iter().map(|one| one.weight).max().unwrap_or_default().max(MAX_WEIGHT);
        let mut tiers: Vec<u16> = self.found.iter().map(|one| one.priority).collect();
        tiers.dedup(); // they are sorted
        let endpoint = |one: &Found| EndpointParams {
            address: Address::Ip(one.address),
            weight: scaled(one.weight, heaviest),
            max_connections: None,
            tier: tiers
                .iter()
                .position(|tier| *tier == one.priority)
                .map_or(0, |tier| u8::try_from(tier).unwrap_or(u8::MAX)),
            state: AdminState::Up,
            discovered: true,
        };
        self.found.iter().map(endpoint).collect()
    }

    /// The addresses alone.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.found.iter().map(|one| one.address)
    }

    /// Addresses of the last good answer that were left off for being too many.
    #[must_use]
    pub fn left_off(&self) -> usize {
        self.left_off
    }
}

fn is_among(one: &Found, others: &[Found]) -> bool {
    others.iter().any(|other| other.address == one.address)
}

/// `weight` where `heaviest` is the most a pool has; never nothing.
fn scaled(weight: u16, heaviest: u16) -> u16 {
    let scaled = u32::from(weight) * u32::from(MAX_WEIGHT) / u32::from(heaviest);
    u16::try_from(scaled).unwrap_or(MAX_WEIGHT).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn params(max: usize) -> DiscoverParams {
        DiscoverParams { source: Source::Addresses("web.internal".into(), 80), interval: SECOND * 10, max }
    }

    fn at(last: u8) -> Found {
        Found { address: SocketAddr::from(([10, 0, 0, last], 80)), priority: 0, weight: 1 }
    }

    fn answer(found: impl IntoIterator<Item = Found>, ttl: Duration) -> Result<Answer, Fault> {
        Ok(Answer { found: found.into_iter().collect(), ttl, missing: None })
    }

    fn lasts(known: &Discovered) -> Vec<u8> {
        known.addresses().filter_map(|address| address.to_string().split(['.', ':']).nth(3)?.parse().ok()).collect()
    }

    /// Each outcome, whether it changed anything, the seconds to the next question, and who is there then.
    #[test]
    fn an_answer_replaces_the_last_one_and_a_failure_does_not() {
        let part = |found: Vec<Found>| Ok(Answer { found, ttl: SECOND * 5, missing: Some(Fault::Timeout) });
        let cases = [
            ("nothing yet", Err(Fault::Timeout), false, 1, vec![]),
            ("and again", Err(Fault::Timeout), false, 2, vec![]),
            ("five", answer([5, 1, 3, 2, 4].map(at), SECOND * 5), true, 5, vec![1, 2, 3, 4, 5]),
            ("in another order", answer([1, 4, 2, 5, 3].map(at), SECOND * 5), false, 5, vec![1, 2, 3, 4, 5]),
            ("shrunk to one", answer([at(3)], SECOND * 5), true, 5, vec![3]),
            ("gone", Err(Fault::NoSuchName), false, 1, vec![3]),
            ("still gone", Err(Fault::NoSuchName), false, 2, vec![3]),
            ("failing", Err(Fault::ServerFailure), false, 4, vec![3]),
            ("silent", Err(Fault::Timeout), false, 8, vec![3]),
            ("no longer apart than the interval", Err(Fault::Timeout), false, 10, vec![3]),
            ("empty", answer([], SECOND * 5), false, 10, vec![3]),
            ("back with TTL 0", answer([at(3), at(4)], Duration::ZERO), true, 1, vec![3, 4]),
            ("one failure is one again", Err(Fault::Empty), false, 1, vec![3, 4]),
            ("a long TTL", answer([at(3), at(4)], SECOND * 3600), false, 10, vec![3, 4]),
            ("a part adds and removes nobody", part(vec![at(4), at(9)]), true, 5, vec![3, 4, 9]),
            ("twice the same", answer([at(7), at(7)], SECOND * 5), true, 5, vec![7]),
        ];
        let mut known = Discovered::default();
        for (name, outcome, changed, next, expected) in cases {
            let step = known.observe(&outcome, &params(100));
            assert_eq!((step.changed, step.next.as_secs()), (changed, next), "{name}");
            assert_eq!(lasts(&known), expected, "{name}");
        }
    }

    #[test]
    fn an_answer_that_is_too_large_keeps_who_is_there() {
        let mut known = Discovered::default();
        known.observe(&answer([8, 9].map(at), SECOND), &params(4));
        for _ in 0..2 {
            known.observe(&answer((1..=200).map(at), SECOND), &params(4));
            assert_eq!((lasts(&known), known.left_off()), (vec![1, 2, 8, 9], 196));
        }
        known.observe(&answer([8, 9].map(at), SECOND), &params(4));
        assert_eq!((lasts(&known), known.left_off()), (vec![8, 9], 0));
    }

    #[test]
    fn a_short_interval_is_its_own_floor() {
        let hasty = DiscoverParams { interval: SECOND / 10, ..params(1) };
        let mut known = Discovered::default();
        for outcome in [answer([at(1)], Duration::ZERO), Err(Fault::Timeout), Err(Fault::Timeout)] {
            assert_eq!(known.observe(&outcome, &hasty).next, SECOND / 10);
        }
    }

    #[test]
    fn priorities_become_tiers_and_weights_weights() {
        for (services, expected) in [
            (vec![(10, 3), (10, 1), (20, 0)], vec![(0, 3), (0, 1), (1, 1)]),
            (vec![(0, 0), (0, 0), (65535, 9), (7, 9)], vec![(0, 1), (0, 1), (1, 9), (2, 9)]),
            (vec![(0, 65535), (0, 6554), (0, 1)], vec![(0, 1000), (0, 100), (0, 1)]),
        ] {
            let found =
                services.iter().zip(1..).map(|(&(priority, weight), last)| Found { priority, weight, ..at(last) });
            let mut known = Discovered::default();
            known.observe(&answer(found, SECOND), &params(100));
            let got: Vec<_> = known.endpoints().iter().map(|endpoint| (endpoint.tier, endpoint.weight)).collect();
            assert_eq!(got, expected, "{services:?}");
        }
    }

    #[test]
    fn certificates_are_for_the_name_that_was_asked() {
        for (source, expected) in [
            (Source::Addresses("web.internal.".into(), 80), Some("web.internal")),
            (Source::Services("_http._tcp.web.internal".into()), Some("web.internal")),
            (Source::Services("web.service.consul".into()), Some("web.service.consul")),
            (Source::Directory("endpoints".into()), None),
        ] {
            assert_eq!(source.certificate_name(), expected);
        }
    }
}
