//! The access record of one exchange: opened when the response head is ready, closed when its last byte is out.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::context::Exchange;
use super::worker::Worker;
use crate::body::{Peer, Sent};
use crate::clock::Now;
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::observe::{AccessRecord, ExchangeOutcome};
use crate::policy::cache::status::CacheStatus;

/// Travels with the response. Dropped without [`Record::sent`] it writes nothing: the drivers always call it.
pub struct Record {
    worker: Rc<Worker>,
    /// Boxed: the drivers hand the record from state to state.
    access: Box<AccessRecord>,
    cache_why: Option<(&'static str, &'static str)>,
}

impl Record {
    /// Takes over what the exchange found out.
    pub(super) fn open(
        exchange: Box<Exchange>,
        status: StatusCode,
        fields: &HeaderMap,
        error: Option<ProxyError>,
    ) -> Self {
        let Exchange { worker, peer, now, head, route, request_id, trace, cache, dictionary, .. } = *exchange;
        let mut access = begin(&peer, now);
        access.scheme = if peer.tls.is_some() { "https" } else { "http" };
        access.host = Bytes::from(String::from(head.authority.into_text()));
        access.target = head.target;
        access.version = head.version;
        access.method = Some(head.method);
        access.request_id = Some(request_id);
        access.status = status;
        let cache_why = cache.as_ref().map(CacheStatus::why);
        access.cache = cache.as_ref().map(CacheStatus::result);
        access.cache_detail = cache.as_ref().and_then(|cache| cache.detail);
        access.dictionary = dictionary;
        access.route = route.map(|route| Arc::clone(&route.name));
        let last = || trace.attempts.last().map(|attempt| Arc::clone(&attempt.endpoint));
        access.endpoint = trace.answered.or_else(last);
        access.pool = trace.pool;
        access.attempts = trace.attempts;
        access.phases = trace.phases;
        access.reason = error.map(|error| error.kind.row().reason);
        worker.access_log.capture_request(&mut access, &head.headers);
        worker.access_log.capture_response(&mut access, fields);
        Self { worker, access, cache_why }
    }

    /// Writes the record of an exchange whose client went away before it was answered.
    pub(super) fn abandoned(exchange: Box<Exchange>) {
        let error = ProxyError::new(ErrorKind::ClientGone, Stage::Listener);
        let record = Self::open(exchange, error.kind.row().status, &HeaderMap::new(), Some(error));
        record.sent(Sent { body_bytes: 0, complete: false, error: Some(error) });
    }

    /// A record of something that never became a request.
    pub(super) fn refused(worker: &Rc<Worker>, peer: &Rc<Peer>, error: ProxyError) -> Self {
        let mut access = begin(peer, worker.now());
        let row = error.kind.row();
        access.status = row.status;
        access.reason = Some(row.reason);
        Self { worker: Rc::clone(worker), access, cache_why: None }
    }

    /// The response has left, or the connection broke under it: counts and logs the exchange.
    pub fn sent(mut self, sent: Sent) {
        let access = &mut self.access;
        access.bytes = sent.body_bytes;
        access.complete = sent.complete;
        access.duration = self.worker.now().since(access.time);
        access.reason = access.reason.or_else(|| sent.error.map(|error| error.kind.row().reason));
        self.worker.metrics.observe(&ExchangeOutcome {
            listener: &access.listener,
            route: access.route.as_deref(),
            status: access.status,
            cache: access.cache,
            cache_why: self.cache_why,
            bytes: access.bytes,
            duration: access.duration,
            reason: access.reason,
        });
        self.worker.access_log.write(access);
    }
}

fn begin(peer: &Peer, now: Now) -> Box<AccessRecord> {
    let mut access = Box::new(AccessRecord::new(now, peer.client, Arc::clone(&peer.listener)));
    access.tls = peer.tls.as_ref().map(|tls| tls.version);
    access
}
