//! The live state of one endpoint, shared by all workers, the probes and the admin side.
//!
//! Everything the request path touches is an atomic. What may change on reload (`weight`, `state`, `max_connections`,
//! `backup`) is *not* here: it belongs to the generation's [`Pool`](super::Pool).

use std::collections::VecDeque;
use std::mem::discriminant;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::connect::now;
use super::moment::{millis, present};
use super::names::{Lead, Names};
use super::room::Entry;
use crate::clock::Now;
use crate::error::ErrorKind;
use crate::policy::balance::AdminState;
use crate::policy::balance::hash::digest;
use crate::policy::balance::peak_ewma::Latency;
use crate::policy::pool::Address;

/// Probe results kept per endpoint: enough for `/status` to show a fall and what led to it.
const PROBES_KEPT: usize = 16;

/// The failures that are counted one by one; the order is that of the counters.
const FAILURES: [ErrorKind; 16] = [
    ErrorKind::ConnectRefused,
    ErrorKind::ConnectTimeout,
    ErrorKind::DestinationUnroutable,
    ErrorKind::DnsError,
    ErrorKind::TlsTimeout,
    ErrorKind::TlsHandshake,
    ErrorKind::TlsCertificate,
    ErrorKind::ConnectionReset,
    ErrorKind::ConnectionClosed,
    ErrorKind::FirstByteTimeout,
    ErrorKind::ReadTimeout,
    ErrorKind::WriteTimeout,
    ErrorKind::TotalTimeout,
    ErrorKind::MalformedResponse(MALFORMED),
    ErrorKind::ResponseHeaderTooLarge,
    ErrorKind::ResponseTruncated,
];

/// What an operator may have said of an endpoint; the first is nothing.
const OVERRIDES: [Option<AdminState>; 4] =
    [None, Some(AdminState::Up), Some(AdminState::Drain), Some(AdminState::Down)];

/// What broken answers are counted as, whatever the reason.
const MALFORMED: &str = "malformed_response";

/// Numbers endpoints: addresses repeat over pools and come back after removal, identities do not.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// One address of one pool, for as long as some generation names it or some exchange uses it.
#[derive(Debug)]
pub struct Endpoint {
    label: Arc<str>,
    id: u64,
    address: Address,
    /// Attempts holding a slot, over all workers.
    in_flight: AtomicU32,
    /// Written by the probes only; true before the first verdict.
    healthy: AtomicBool,
    /// When it came back to the pool, by [`millis`]; 0 = it was never away. Slow start counts from here.
    back: AtomicU64,
    /// Until when it is ejected, by [`millis`]; 0 = it never was.
    ejected_until: AtomicU64,
    /// Ejections so far.
    ejections: AtomicU64,
    /// Failed attempts in a row.
    streak: AtomicU32,
    /// The operator's word, which wins over the file's `state`: an index into [`OVERRIDES`].
    overridden: AtomicU8,
    /// [`Latency::to_bits`]; kept in pools that balance by it.
    latency: AtomicU64,
    /// Attempts whose head is still owed; counted in the same pools.
    unanswered: AtomicU32,
    /// A number made of the address, the same in every process.
    seed: u64,
    counters: Tally,
    probes: Mutex<VecDeque<ProbeRecord>>,
    /// Where it is at present, if its address is a name.
    pub(super) names: Names,
}

/// The counters as they grow.
#[derive(Debug, Default)]
struct Tally {
    requests: AtomicU64,
    connects: AtomicU64,
    reuses: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    failures: [AtomicU64; FAILURES.len()],
}

/// A reading of an endpoint's counters; all of them only grow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    /// Attempts: retries and those that found no connection included.
    pub requests: u64,
    /// Connections opened.
    pub connects: u64,
    /// Requests that found a kept-alive connection.
    pub reuses: u64,
    /// Bytes read from the endpoint, heads included, TLS framing not.
    pub bytes_in: u64,
    /// Bytes written to it, likewise.
    pub bytes_out: u64,
    /// Failed attempts by reason; reasons that never happened are left out.
    pub failures: Vec<(&'static str, u64)>,
}

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeRecord {
    /// When it ended.
    pub at: Now,
    /// How long it took.
    pub took: Duration,
    /// The status that came, where one came.
    pub status: Option<u16>,
    /// Why it failed, as a stable token; `None` = success.
    pub fault: Option<&'static str>,
}

impl Endpoint {
    /// A new endpoint: healthy until a probe says otherwise, nothing in flight.
    #[must_use]
    pub fn new(address: Address) -> Arc<Self> {
        let label: Arc<str> = address.to_string().into();
        Arc::new(Self {
            seed: digest(label.as_bytes()),
            label,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            address,
            in_flight: AtomicU32::new(0),
            healthy: AtomicBool::new(true),
            back: AtomicU64::new(0),
            ejected_until: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            streak: AtomicU32::new(0),
            overridden: AtomicU8::new(0),
            latency: AtomicU64::new(0),
            unanswered: AtomicU32::new(0),
            counters: Tally::default(),
            probes: Mutex::default(),
            names: Names::default(),
        })
    }

    /// A number no other endpoint of this process ever has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// `address` as written in the file.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// `address` as logs name it.
    #[must_use]
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// Attempts in flight over all workers.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The last verdict of the probes.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Publishes a verdict. Only the probes call this.
    pub fn set_healthy(&self, healthy: bool) {
        if healthy && !self.healthy() {
            self.come_back(now());
        }
        self.healthy.store(healthy, Ordering::Relaxed);
    }

    /// A number made of the address, the same in every process.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The estimated time to a response head in microseconds, as of the moment `millis`; 0 = nothing is known. While a
    /// head is owed the estimate stays as it is.
    pub(super) fn latency(&self, millis: u64) -> u32 {
        let latency = Latency::from_bits(self.latency.load(Ordering::Relaxed));
        match self.unanswered.load(Ordering::Relaxed) {
            0 => latency.micros(millis as u32),
            _ => latency.undecayed(),
        }
    }

    /// The estimated time to a response head in microseconds as of now; 0 = nothing is known.
    #[must_use]
    pub fn estimated_latency(&self) -> u32 {
        self.latency(present())
    }

    /// Takes an attempt into the estimate.
    pub(super) fn observe_latency(&self, took: Duration, failed: bool, millis: u64) {
        self.update_latency(|latency| latency.observe(took, failed, millis as u32));
    }

    /// One head more is owed, or, with false, one less.
    pub(super) fn owe(&self, more: bool) {
        if more {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
        } else {
            self.unanswered.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes an attempt into the estimate that was given up unanswered after `took`.
    pub(super) fn observe_given_up(&self, took: Duration, millis: u64) {
        self.update_latency(|latency| latency.at_least(took, millis as u32));
    }

    fn update_latency(&self, next: impl Fn(Latency) -> Latency) {
        let next = |bits| Some(next(Latency::from_bits(bits)).to_bits());
        // Every closure result is Some: this cannot fail.
        let _ = self.latency.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// The operator's word, if there is one.
    #[must_use]
    pub fn overridden(&self) -> Option<AdminState> {
        OVERRIDES.get(usize::from(self.overridden.load(Ordering::Relaxed))).copied().flatten()
    }

    /// The state that counts where the file says `configured`.
    #[must_use]
    pub fn state(&self, configured: AdminState) -> AdminState {
        self.overridden().unwrap_or(configured)
    }

    /// Sets the operator's word, or takes it back.
    pub fn set_override(&self, word: Option<AdminState>) {
        let index = OVERRIDES.iter().position(|known| *known == word).unwrap_or_default();
        self.overridden.store(u8::try_from(index).unwrap_or_default(), Ordering::Relaxed);
    }

    /// Whether it is ejected at the moment `millis`.
    pub(super) fn is_ejected_at(&self, millis: u64) -> bool {
        self.ejected_until.load(Ordering::Relaxed) > millis
    }

    /// Whether it is ejected now.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.is_ejected_at(present())
    }

    /// Ejections so far.
    #[must_use]
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// Publishes an ejection; slow start counts from its end.
    pub(super) fn eject(&self, until: u64) {
        self.ejected_until.store(until, Ordering::Relaxed);
        self.back.store(until, Ordering::Relaxed);
        self.streak.store(0, Ordering::Relaxed);
        self.ejections.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that an attempt was answered. Cost: one load, while all is well.
    pub(super) fn end_streak(&self) {
        if self.streak.load(Ordering::Relaxed) > 0 {
            self.streak.store(0, Ordering::Relaxed);
        }
    }

    /// Notes that an attempt failed: how many have in a row, and how many attempts there were in all.
    pub(super) fn add_to_streak(&self) -> (u32, u64) {
        let streak = self.streak.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        (streak, self.counters.requests.load(Ordering::Relaxed).max(1))
    }

    /// How long ago it came back, as of the moment `millis`; `None` = it was never away.
    pub(super) fn back_since(&self, millis: u64) -> Option<Duration> {
        match self.back.load(Ordering::Relaxed) {
            0 => None,
            back => Some(Duration::from_millis(millis.saturating_sub(back))),
        }
    }

    /// It takes traffic (again) from `at` on.
    pub(super) fn come_back(&self, at: Instant) {
        self.back.store(millis(at), Ordering::Relaxed);
    }

    /// Whether a connection may be used once more: not when the address it leads to has left the endpoint's name.
    pub(super) fn keeps(&self, lead: Option<&mut Lead>) -> bool {
        lead.is_none_or(|lead| self.names.has(lead))
    }

    /// A reading of the counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let failures = FAILURES.iter().zip(&self.counters.failures);
        Counters {
            requests: read(&self.counters.requests),
            connects: read(&self.counters.connects),
            reuses: read(&self.counters.reuses),
            bytes_in: read(&self.counters.bytes_in),
            bytes_out: read(&self.counters.bytes_out),
            failures: failures
                .map(|(kind, counter)| (kind.row().reason, read(counter)))
                .filter(|(_, count)| *count > 0)
                .collect(),
        }
    }

    /// Attempts ever made.
    pub(super) fn attempts(&self) -> u64 {
        self.counters.requests.load(Ordering::Relaxed)
    }

    /// The last probes, oldest first; at most 16.
    #[must_use]
    pub fn probes(&self) -> Vec<ProbeRecord> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Takes a slot unless `max_connections` are taken already. Cost: one compare-exchange.
    #[must_use]
    pub fn take(self: &Arc<Self>, max_connections: u32) -> Option<InFlightGuard> {
        let room = |taken: u32| (taken < max_connections).then(|| taken + 1);
        self.in_flight.fetch_update(Ordering::AcqRel, Ordering::Relaxed, room).ok()?;
        Some(InFlightGuard { endpoint: Arc::clone(self), _entry: None })
    }

    pub(super) fn count_attempt(&self, reused: bool) {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        if reused {
            self.counters.reuses.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_connect(&self) {
        self.counters.connects.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_read(&self, bytes: u64) {
        self.counters.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn count_written(&self, bytes: u64) {
        self.counters.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a failure of the endpoint's side; the client's own failures are not its fault.
    pub(super) fn count_failure(&self, kind: ErrorKind) {
        let counters = FAILURES.iter().zip(&self.counters.failures);
        if let Some((_, counter)) =
            counters.into_iter().find(|(listed, _)| discriminant(*listed) == discriminant(&kind))
        {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn record_probe(&self, record: ProbeRecord) {
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        if probes.len() == PROBES_KEPT {
            probes.pop_front();
        }
        probes.push_back(record);
    }
}

/// The right to use one endpoint for one attempt; given back on drop, whatever the reason.
#[derive(Debug)]
pub struct InFlightGuard {
    endpoint: Arc<Endpoint>,
    /// Counts for the pool, where that has bounds; dropped after the endpoint's own count.
    _entry: Option<Entry>,
}

impl InFlightGuard {
    /// The endpoint it counts for.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The same, counting for the pool too.
    pub(super) fn with(self, entry: Option<Entry>) -> Self {
        let mut counting = self;
        counting._entry = entry;
        counting
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A picked endpoint: which one of the pool, and the right to use it.
#[derive(Debug)]
pub struct Slot {
    /// Index into [`Pool::endpoints`](super::Pool::endpoints).
    pub index: usize,
    /// Counts for the endpoint until dropped.
    pub guard: InFlightGuard,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Arc<Endpoint> {
        Endpoint::new(Address::Name("origin.example".into(), 80))
    }

    #[test]
    fn slots_never_exceed_the_limit_and_come_back() {
        let endpoint = endpoint();
        let first = endpoint.take(2).expect("room");
        let _second = endpoint.take(2).expect("room");
        assert!(endpoint.take(2).is_none());
        drop(first);
        assert_eq!(endpoint.in_flight(), 1);
        assert!(endpoint.take(2).is_some(), "the slot given back is free again");
        assert!(endpoint.take(0).is_none());
    }

    #[test]
    fn failures_are_counted_by_reason_and_only_the_origins() {
        let endpoint = endpoint();
        endpoint.count_failure(ErrorKind::ConnectRefused);
        endpoint.count_failure(ErrorKind::ConnectRefused);
        endpoint.count_failure(ErrorKind::BodyTimeout);
        assert_eq!(endpoint.counters().failures, vec![("connect_refused", 2)]);
    }
}
