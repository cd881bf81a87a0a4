//! One generation's view of a `[[pool]]`: parameters beside live endpoints.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use rustls::pki_types::ServerName;

use super::connect::now;
use super::endpoint::Endpoint;
use super::farm::Farm;
use super::moment::present;
use super::room::{Entry, PoolCounters, Room};
use super::tls::ClientTls;
use crate::policy::balance::{AdminState, Balance, EndpointView, NoEndpoint};
use crate::policy::health::outlier::{Failing, Failure};
use crate::policy::health::slow_start;
use crate::policy::pool::{Address, EndpointParams, HostHeader, PoolParams};

/// Identity of a pool over generations: a pool keeps it as long as its name stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolId(u64);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Departed endpoints that a pool remembers: as many as an answer that flaps may have, without growing for ever.
const DEPARTED: usize = 128;

/// What an exchange needs to know of a pool. Immutable; a reload builds another one.
#[derive(Debug)]
pub struct Pool {
    /// `name`, shared with logs.
    pub name: Arc<str>,
    /// `[[pool]]` without `tls`.
    pub params: PoolParams,
    /// Live endpoints, in the order of `params.endpoints`.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Endpoints that were discovered once and are not there at present, the latest first.
    departed: Vec<Arc<Endpoint>>,
    /// `tls`; `None` = plain.
    pub tls: Option<Arc<ClientTls>>,
    /// Stays the same over reloads.
    pub id: PoolId,
    /// Bounds and queue, kept over reloads.
    pub(super) room: Arc<Room>,
    /// What it shares with the other pools.
    pub(super) farm: Arc<Farm>,
    /// Something is learnt from the attempts: how they end is told to [`Pool::learn`].
    pub(super) learns: bool,
    /// The pool has bounds of its own.
    has_bounds: bool,
    /// Per endpoint: what goes into `Host`; `None` = leave the client's.
    hosts: Vec<Option<HeaderValue>>,
    /// The name of its sticky cookie.
    pub(super) cookie: Option<String>,
    /// Per endpoint: what stands for it in a sticky cookie; empty in pools that are not sticky.
    pub(super) tokens: Vec<Box<str>>,
    /// Per endpoint: the name its certificate must carry.
    server_names: Vec<ServerName<'static>>,
}

impl Pool {
    /// The next generation of a pool. `previous` is the pool of the same name, if there was one: endpoints whose address
    /// stayed keep their live state, and an unchanged `tls` keeps its sessions and connections. In a pool that discovers
    /// its endpoints, one that was there a while ago takes up its state too: an answer may flap, and neither an operator's
    /// word nor a count of exchanges must be lost on that.
    #[must_use]
    pub fn build(params: PoolParams, tls: Option<Arc<ClientTls>>, previous: Option<&Self>, farm: &Arc<Farm>) -> Self {
        let mut kept = previous.map(Self::known).unwrap_or_default();
        let mut live = |next: &EndpointParams| {
            let known = kept.iter().position(|(endpoint, _)| *endpoint.address() == next.address);
            // Removed from the list, so that an address written twice becomes two endpoints, not one counted twice.
            let (endpoint, took) =
                known.map_or_else(|| (Endpoint::new(next.address.clone()), false), |at| kept.remove(at));
            if previous.is_some() && !took && takes_traffic(next, &endpoint) {
                // One that joins a pool at work has as much to warm up as one that comes back.
                endpoint.come_back(now());
            }
            endpoint
        };
        let endpoints = params.endpoints.iter().map(&mut live).collect();
        let departed = kept.into_iter().map(|(endpoint, _)| endpoint);
        let departed = departed.take(if params.discover.is_some() { DEPARTED } else { 0 }).collect();
        let tls = match (tls, previous.and_then(|pool| pool.tls.as_ref())) {
            (Some(new), Some(old)) if new.spec() == old.spec() => Some(Arc::clone(old)),
            (tls, _) => tls,
        };
        let sticky = params.endpoints.iter().filter(|_| params.sticky.is_some());
        let tokens = sticky.map(|endpoint| farm.token(&params.name, &endpoint.address)).collect();
        let hosts = params.endpoints.iter().map(|endpoint| host(&params.host, &endpoint.address)).collect();
        let found = params.discover.as_ref().and_then(|discover| discover.source.certificate_name());
        let server_names = params.endpoints.iter().map(|endpoint| server_name(tls.as_deref(), endpoint, found));
        Self {
            server_names: server_names.collect(),
            room: previous.map_or_else(Arc::default, |pool| Arc::clone(&pool.room)),
            farm: Arc::clone(farm),
            learns: params.balance == Balance::PeakEwma || params.adaptive.is_some() || params.outlier.is_some(),
            has_bounds: params.queue.is_some() || params.max_in_flight.is_some() || params.adaptive.is_some(),
            hosts,
            cookie: params.sticky.as_ref().map(|sticky| farm.cookie(&sticky.cookie, &params.name)),
            tokens,
            endpoints,
            departed,
            tls,
            name: params.name.as_str().into(),
            id: previous.map_or_else(|| PoolId(NEXT_ID.fetch_add(1, Ordering::Relaxed)), |pool| pool.id),
            params,
        }
    }

    /// Every endpoint that it remembers, and whether that takes traffic.
    fn known(&self) -> Vec<(Arc<Endpoint>, bool)> {
        let pairs = self.params.endpoints.iter().zip(&self.endpoints);
        let present = pairs.map(|(params, live)| (Arc::clone(live), takes_traffic(params, live)));
        present.chain(self.departed.iter().map(|endpoint| (Arc::clone(endpoint), false))).collect()
    }

    /// What a pick sees of the endpoints, written over `views`. Cost: no allocation once `views` has grown; the clock is
    /// read only for pools in which something depends on it.
    pub fn view(&self, tried: &[usize], views: &mut Vec<EndpointView>) {
        views.clear();
        let pairs = self.params.endpoints.iter().zip(&self.endpoints).enumerate();
        views.extend(pairs.map(|(index, (params, live))| EndpointView {
            weight: u32::from(params.weight),
            in_flight: live.in_flight(),
            max_connections: params.max_connections.unwrap_or(u32::MAX),
            healthy: live.healthy(),
            state: live.state(params.state),
            tier: params.tier,
            tried: tried.contains(&index),
            latency: 0,
            seed: live.seed(),
        }));
        let by_latency = self.params.balance == Balance::PeakEwma;
        if by_latency || self.params.slow_start.is_some() || self.params.outlier.is_some() {
            self.view_in_time(present(), by_latency, views);
        }
    }

    /// The part of the view that depends on the time.
    #[inline(never)]
    fn view_in_time(&self, millis: u64, by_latency: bool, views: &mut [EndpointView]) {
        for ((view, params), live) in views.iter_mut().zip(&self.params.endpoints).zip(&self.endpoints) {
            view.healthy &= self.params.outlier.is_none() || !live.is_ejected_at(millis);
            if by_latency {
                view.latency = live.latency(millis);
            }
            if let Some(ramp) = self.params.slow_start {
                view.weight = slow_start::share(params.weight, live.back_since(millis), ramp);
            }
        }
    }

    /// The right to one exchange more; `Ok(None)` where there is nothing to count.
    ///
    /// # Errors
    /// Why there is no room, for an exchange that has `waited` for it or not. A copy takes none of the farm's places.
    pub(super) fn enter(&self, waited: bool, is_copy: bool) -> Result<Option<Entry>, NoEndpoint> {
        if !self.has_bounds && !self.farm.is_bounded() {
            return Ok(None);
        }
        if !waited && self.room.waiting() > 0 {
            return Err(NoEndpoint::AllFull);
        }
        let entry = self.room.enter(self.max_in_flight()).ok_or(NoEndpoint::AllFull)?;
        if is_copy {
            return Ok(Some(entry));
        }
        entry.within(&self.farm).ok_or(NoEndpoint::Shed).map(Some)
    }

    /// How many exchanges the pool takes at once as of now; `u32::MAX` = any number.
    #[must_use]
    pub fn max_in_flight(&self) -> u32 {
        self.room.limit(self.params.max_in_flight, self.params.adaptive.as_ref())
    }

    /// What it shares with the other pools.
    #[must_use]
    pub fn farm(&self) -> &Arc<Farm> {
        &self.farm
    }

    /// Exchanges that wait for a slot.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.room.waiting()
    }

    /// What the pool has seen.
    #[must_use]
    pub fn counters(&self) -> PoolCounters {
        self.room.counters()
    }

    /// Sets the operator's word about the endpoint of this address, which wins over the file's `state` and stays over
    /// reloads; `None` takes it back. Returns the endpoint's index, or `None` when there is no such endpoint.
    pub fn set_override(&self, address: &str, word: Option<AdminState>) -> Option<usize> {
        let index = self.endpoints.iter().position(|endpoint| **endpoint.label() == *address)?;
        let (params, live) = (self.params.endpoints.get(index)?, self.endpoints.get(index)?);
        let before = live.state(params.state);
        live.set_override(word);
        if before != AdminState::Up && live.state(params.state) == AdminState::Up {
            live.come_back(now());
            self.room.wake();
        }
        Some(index)
    }

    /// To be called about once a second: has whoever waits look for what came free without anybody's giving it back, and
    /// tells the retry budget of the traffic.
    pub fn tick(&self) {
        self.room.wake();
        // One worker is enough.
        if let Ok(mut budget) = self.room.budget.try_lock() {
            budget.follow(self.attempts(), Duration::from_millis(present()));
        }
    }

    /// The right to repeat an attempt. One that was `unsent` costs nothing; any other is taken out of the retry budget.
    /// False when that is spent.
    #[must_use]
    pub fn take_retry(&self, unsent: bool) -> bool {
        let allowed = unsent || {
            let mut budget = self.room.budget.lock().unwrap_or_else(PoisonError::into_inner);
            budget.take(self.attempts(), Duration::from_millis(present()), self.params.retry.budget)
        };
        self.room.count_retry(allowed);
        allowed
    }

    /// The right to make an attempt beside one that is slow; out of the same budget.
    #[must_use]
    pub fn take_hedge(&self) -> bool {
        let allowed = self.take_retry(false);
        if allowed {
            self.room.count_hedge();
        }
        allowed
    }

    /// Attempts ever made at its endpoints, those that it remembers included: a farm that flaps makes no less traffic.
    fn attempts(&self) -> u64 {
        self.endpoints.iter().chain(&self.departed).map(|endpoint| endpoint.attempts()).sum()
    }

    /// Takes in how an attempt ended, in a pool that `learns`, and how long its origin took; `None` = it spoke before the
    /// request was all sent, which says how quick the client is.
    #[inline(never)]
    pub(super) fn learn(&self, endpoint: &Endpoint, took: Option<Duration>, failing: Option<Failing>) {
        let (millis, failed) = (present(), failing.is_some());
        if self.params.balance == Balance::PeakEwma && (took.is_some() || failed) {
            endpoint.observe_latency(took.unwrap_or_default(), failed, millis);
        }
        if let (Some(adaptive), Some(took)) = (&self.params.adaptive, took) {
            self.room.learn(took, failed, Duration::from_millis(millis), adaptive);
        }
        match failing {
            None => endpoint.end_streak(),
            Some(failing) => self.blame(endpoint, failing),
        }
    }

    /// Takes in a failure of an endpoint, and ejects it when that is one too many.
    pub(super) fn blame(&self, endpoint: &Endpoint, failing: Failing) {
        let Some(params) = &self.params.outlier else { return };
        let (streak, attempts) = endpoint.add_to_streak();
        let failure = Failure { endpoint: endpoint.id(), failing, streak, attempts };
        let up: Vec<u64> = self.up().map(|endpoint| endpoint.id()).collect();
        let mut outliers = self.room.outliers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ejection) = outliers.observe(&failure, &up, Duration::from_millis(present()), params) else { return };
        endpoint.eject(u64::try_from(ejection.until.as_millis()).unwrap_or(u64::MAX));
        drop(outliers);
        let (reason, last, lasts) = (ejection.reason, ejection.failing.token(), ejection.lasts.as_millis());
        let (pool, address) = (&self.params.name, endpoint.address());
        tracing::warn!(pool, endpoint = %address, reason, last, for_ms = lasts, "endpoint is ejected");
    }

    /// Endpoints that would take traffic if they were well.
    fn up(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        let pairs = self.params.endpoints.iter().zip(&self.endpoints);
        pairs.filter(|(params, live)| takes_traffic(params, live)).map(|(_, live)| live)
    }

    /// What `Host` the endpoint sees; `None` = the client's (`host = "preserve"`).
    pub(super) fn host(&self, index: usize) -> Option<&HeaderValue> {
        self.hosts.get(index)?.as_ref()
    }

    pub(super) fn server_name(&self, index: usize) -> Option<&ServerName<'static>> {
        self.server_names.get(index)
    }
}

/// Whether an endpoint would take traffic if it were well.
fn takes_traffic(params: &EndpointParams, live: &Endpoint) -> bool {
    live.state(params.state) == AdminState::Up && params.weight > 0
}

/// `host` for one endpoint. A value that is no field value falls back to the client's: validation has refused it before.
fn host(host: &HostHeader, address: &Address) -> Option<HeaderValue> {
    let text = match host {
        HostHeader::Preserve => return None,
        HostHeader::Name(name) => name.clone(),
        HostHeader::Endpoint => authority(address),
    };
    HeaderValue::try_from(text).ok()
}

/// The endpoint's address as an authority; a unix socket has none and goes by `localhost`.
pub(super) fn authority(address: &Address) -> String {
    match address {
        Address::Unix(_) => "localhost".to_owned(),
        Address::Ip(_) | Address::Name(..) => address.to_string(),
    }
}

/// The name a certificate is checked against: `server_name`, else the endpoint's host name or IP address. One that was
/// `found` by a name goes by that.
fn server_name(tls: Option<&ClientTls>, endpoint: &EndpointParams, found: Option<&str>) -> ServerName<'static> {
    let configured = tls.and_then(|tls| tls.spec().server_name.as_deref());
    let host = match (configured.or(found.filter(|_| endpoint.discovered)), &endpoint.address) {
        (Some(name), _) => name,
        (None, Address::Ip(address)) => return ServerName::IpAddress(address.ip().into()),
        (None, Address::Name(name, _)) => name,
        (None, Address::Unix(_)) => "localhost",
    };
    // A name that cannot be in a certificate matches none: the handshake then fails with a certificate error.
    let unmatchable = || ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into());
    ServerName::try_from(host.to_owned()).unwrap_or_else(|_| unmatchable())
}
