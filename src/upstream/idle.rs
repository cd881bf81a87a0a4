//! The idle connections of one worker.
//!
//! An idle connection has no task. Its socket stays registered for reading, so its end is noticed by polling it, which
//! costs no system call while nothing has come: once at checkout, and once a second for all of them. The connection
//! used last is used next (LIFO): the rest of a set that has grown too large ages out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::endpoint::Endpoint;
use super::link::Link;
use super::numbers::OwnNumbers;
use super::pool::Pool;

/// What makes two connections interchangeable: the endpoint, and under which TLS identity it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    endpoint: u64,
    tls: u64,
}

impl Key {
    pub(super) fn new(pool: &Pool, endpoint: &Endpoint) -> Self {
        Self { endpoint: endpoint.id(), tls: pool.tls.as_ref().map_or(0, |tls| tls.id()) }
    }
}

struct Parked {
    link: Box<Link>,
    expires: Instant,
}

struct IdleSet {
    endpoint: Arc<Endpoint>,
    parked: Vec<Parked>,
}

/// All idle connections of one worker.
#[derive(Default)]
pub(super) struct IdleSets(HashMap<Key, IdleSet, OwnNumbers>);

impl IdleSets {
    /// The most recently used connection that is still alive.
    pub(super) fn checkout(&mut self, pool: &Pool, endpoint: &Endpoint, now: Instant) -> Option<Box<Link>> {
        let set = self.0.get_mut(&Key::new(pool, endpoint))?;
        while let Some(mut parked) = set.parked.pop() {
            if parked.expires > now && endpoint.keeps(parked.link.lead.as_mut()) && parked.link.http.is_reusable() {
                return Some(parked.link);
            }
        }
        None
    }

    /// Keeps a connection that has finished its exchange, unless it is not fit for another or there are enough.
    pub(super) fn park(&mut self, pool: &Pool, endpoint: &Arc<Endpoint>, mut link: Box<Link>, now: Instant) {
        let keep_alive = pool.params.keep_alive;
        if keep_alive.idle == 0 || pool.params.proxy_protocol.is_some() || !link.http.is_settled() {
            return;
        }
        if !endpoint.keeps(link.lead.as_mut()) {
            return;
        }
        let set = self
            .0
            .entry(Key::new(pool, endpoint))
            .or_insert_with(|| IdleSet { endpoint: Arc::clone(endpoint), parked: Vec::new() });
        if set.parked.len() < keep_alive.idle {
            set.parked.push(Parked { link, expires: now + keep_alive.timeout });
        }
    }

    /// Drops what has ended or expired.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.0.retain(|_, set| {
            let IdleSet { endpoint, parked } = set;
            parked.retain_mut(|parked| {
                parked.expires > now && endpoint.keeps(parked.link.lead.as_mut()) && parked.link.http.is_reusable()
            });
            !set.parked.is_empty()
        });
    }

    /// Drops the connections of endpoints that are not wanted any more.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Endpoint) -> bool) {
        self.0.retain(|_, set| keep(&set.endpoint));
    }

    pub(super) fn len(&self) -> usize {
        self.0.values().map(|set| set.parked.len()).sum()
    }
}
