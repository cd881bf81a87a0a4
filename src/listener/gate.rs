//! How many connections may be open, and what became of those that came.
//!
//! Process-wide: all listeners on all workers share one [`Gate`]. The total is one atomic; connections of one client are
//! counted in a map split over [`SHARDS`] locks, each held for one lookup. An IPv6 client is its /64, since one host can
//! use all of it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Locks the per-client counts are split over; several times the workers, so that two rarely meet.
const SHARDS: usize = 64;

/// The connection limits of the process, and its connection counters.
#[derive(Debug)]
pub struct Gate {
    limit: AtomicUsize,
    active: AtomicUsize,
    clients: Vec<Mutex<HashMap<IpAddr, usize>>>,
    counters: Counters,
}

/// Why a connection was closed as soon as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `server.max_connections` are open.
    Full,
    /// `limits.connections_per_client` of this client are open.
    ClientFull,
}

impl Refusal {
    /// Stable name in metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Full => "max_connections",
            Self::ClientFull => "connections_per_client",
        }
    }
}

impl Gate {
    /// A gate for `limit` connections in all.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit),
            active: AtomicUsize::new(0),
            clients: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
            counters: Counters::default(),
        })
    }

    /// Changes the limit; open connections stay.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Connections open now.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// What became of the connections so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts one more connection in.
    pub(super) fn enter(self: &Arc<Self>) -> Result<ConnectionGuard, Refusal> {
        let before = self.active.fetch_add(1, Ordering::Relaxed);
        // Made before the check, so that a refusal counts itself out again.
        let guard = ConnectionGuard { gate: Arc::clone(self), client: None };
        if before < self.limit.load(Ordering::Relaxed) { Ok(guard) } else { Err(Refusal::Full) }
    }

    fn with_count<R>(&self, client: IpAddr, change: impl FnOnce(&mut HashMap<IpAddr, usize>) -> R) -> Option<R> {
        let shard = match client {
            IpAddr::V4(address) => spread(u64::from(address.to_bits())),
            IpAddr::V6(address) => spread(u64::try_from(address.to_bits() >> 64).unwrap_or_default()),
        };
        let shard = self.clients.get(shard)?;
        Some(change(&mut shard.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// A shard for a client number; multiplicative hashing, so that neighbours part.
fn spread(number: u64) -> usize {
    usize::try_from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).unwrap_or_default() % SHARDS
}

/// The address a client is counted by.
fn counted_as(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// One open connection; counts itself out on drop.
#[derive(Debug)]
pub(super) struct ConnectionGuard {
    gate: Arc<Gate>,
    client: Option<IpAddr>,
}

impl ConnectionGuard {
    /// Counts the connection to its client, once that is known for sure.
    pub(super) fn claim(&mut self, client: IpAddr, limit: usize) -> Result<(), Refusal> {
        let client = counted_as(client);
        let claimed = self.gate.with_count(client, |counts| {
            let count = counts.entry(client).or_default();
            let room = *count < limit;
            *count += usize::from(room);
            if *count == 0 {
                counts.remove(&client);
            }
            room
        });
        if claimed != Some(true) {
            return Err(Refusal::ClientFull);
        }
        self.client = Some(client);
        Ok(())
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.gate.active.fetch_sub(1, Ordering::Relaxed);
        if let Some(client) = self.client {
            self.gate.with_count(client, |counts| {
                if let Some(count) = counts.get_mut(&client) {
                    *count -= 1;
                    if *count == 0 {
                        counts.remove(&client);
                    }
                }
            });
        }
    }
}

/// Events by reason.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<&'static str, u64>>);

impl Tally {
    /// Counts one event. Cost: a lock; only for what ends a connection.
    pub(super) fn add(&self, reason: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    /// All counts, by reason.
    #[must_use]
    pub fn read(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What became of connections; read by the metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted, refused ones included.
    pub accepted: AtomicU64,
    /// Closed at once, by [`Refusal::reason`]; and `descriptors` when there were none left to accept with.
    pub refused: Tally,
    /// PROXY headers and TLS handshakes that failed.
    pub handshake_failures: Tally,
    /// Requests that could not be read, by reason.
    pub framing_faults: Tally,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_gate_refuses_until_somebody_leaves() {
        let gate = Gate::new(2);
        let first = gate.enter().expect("room");
        let _second = gate.enter().expect("room");
        assert_eq!(gate.enter().err(), Some(Refusal::Full));
        assert_eq!(gate.active(), 2, "a refusal counts itself out");
        drop(first);
        assert!(gate.enter().is_ok());
        gate.set_limit(1);
        assert_eq!(gate.enter().err(), Some(Refusal::Full));
    }

    #[test]
    fn clients_are_counted_by_address_and_v6_by_its_64() {
        let gate = Gate::new(100);
        let claim = |client: &str| {
            let mut guard = gate.enter()?;
            guard.claim(client.parse().expect("an address"), 1).map(|()| guard)
        };
        let _one = claim("2001:db8::1").expect("the first");
        assert_eq!(claim("2001:db8::ffff").err(), Some(Refusal::ClientFull));
        let _other = claim("2001:db8:0:1::1").expect("another network");
        let mapped = claim("::ffff:10.0.0.1").expect("the first");
        assert_eq!(claim("10.0.0.1").err(), Some(Refusal::ClientFull));
        drop(mapped);
        assert!(claim("10.0.0.1").is_ok());
        assert!(gate.clients.iter().map(|shard| shard.lock().expect("lock").len()).sum::<usize>() == 2, "no leftovers");
    }
}
