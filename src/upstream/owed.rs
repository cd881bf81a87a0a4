//! How long an origin takes to a response head: from the last byte of the request on, since what the client takes to send
//! a body says nothing about the origin.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connect::now;
use super::endpoint::Endpoint;
use super::moment::present;
use super::pool::Pool;
use crate::body::Body;
use crate::policy::balance::Balance;

/// One attempt's head.
pub(super) struct Owed {
    /// Where heads that are owed are counted; `None` in pools that do not balance by latency.
    endpoint: Option<Arc<Endpoint>>,
    /// Since when; `None` while the request is being sent, and once the attempt has ended.
    since: Cell<Option<Instant>>,
}

impl Owed {
    /// For an attempt that began at `started`. Cost: nothing in pools that do not balance by latency.
    pub(super) fn new(pool: &Pool, endpoint: &Arc<Endpoint>, body: &Body, started: Instant) -> Self {
        let counted = pool.params.balance == Balance::PeakEwma;
        let owed = Self { endpoint: counted.then(|| Arc::clone(endpoint)), since: Cell::new(None) };
        if matches!(body, Body::Empty | Body::Full(_)) {
            owed.begin(started);
        }
        owed
    }

    /// The whole request is with the connection. Cost: one clock reading, the first time.
    pub(super) fn request_sent(&self) {
        if self.since.get().is_none() {
            self.begin(now());
        }
    }

    fn begin(&self, at: Instant) {
        self.since.set(Some(at));
        if let Some(endpoint) = &self.endpoint {
            endpoint.owe(true);
        }
    }

    /// The attempt has ended by itself at `at`, well or not: how long the origin took, or `None` when the request was not
    /// all sent.
    pub(super) fn end(&self, at: Instant) -> Option<Duration> {
        let since = self.since.take()?;
        if let Some(endpoint) = &self.endpoint {
            endpoint.owe(false);
        }
        Some(at.saturating_duration_since(since))
    }
}

impl Drop for Owed {
    /// An attempt that is given up would have taken at least as long.
    fn drop(&mut self) {
        if let (Some(endpoint), Some(since)) = (&self.endpoint, self.since.get()) {
            endpoint.owe(false);
            endpoint.observe_given_up(now().saturating_duration_since(since), present());
        }
    }
}
