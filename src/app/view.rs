//! The state of the process as the admin listener shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::uri::Scheme;
use tokio::sync::{mpsc, oneshot};

use super::ReloadRequest;
use super::listeners::Bound;
use super::reload::Ledger;
use crate::admin::status::{
    CertificateStatus, ConnectionsStatus, DictionariesStatus, DiscoveryStatus, EndpointStatus, ListenerStatus,
    PoolStatus, ProbeStatus, PurgesStatus, Status, StoreShare, StoreStatus, WorkerStatus,
};
use crate::admin::{Explained, Fault, States, View};
use crate::clock::Clock;
use crate::config::model::ListenerConfig;
use crate::config::routing::{self, Asked};
use crate::listener::Gate;
use crate::observe::{AccessLog, Metrics};
use crate::pipeline::{self, Supposed, Workshop};
use crate::policy::balance::{AdminState, Balance};
use crate::policy::cache::purge::Target;
use crate::snapshot::{Action, Current, Listener};
use crate::store::{Purged, Purger, Store};
use crate::upstream::{Findings, Pool, ProbeRecord, Report};

/// Everything the admin listener reads.
pub(super) struct Overview {
    pub(super) current: Arc<Current>,
    pub(super) store: Store,
    pub(super) purger: Purger,
    pub(super) workshop: Workshop,
    pub(super) access_log: AccessLog,
    pub(super) gate: Arc<Gate>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) findings: Arc<Findings>,
    /// The generation each worker follows.
    pub(super) generations: Vec<Arc<AtomicU64>>,
    pub(super) bound: Arc<Bound>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) ask: mpsc::Sender<ReloadRequest>,
    pub(super) clock: Clock,
}

impl View for Overview {
    fn status(&self) -> Status {
        let snapshot = self.current.load();
        let ledger = self.ledger.read();
        let counters = self.gate.counters();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            started: ledger.started,
            generation: snapshot.generation,
            draining: ledger.draining,
            watch: ledger.watch,
            last_reload: ledger.last,
            reloads_ok: ledger.succeeded,
            reloads_failed: ledger.failed,
            log_lines_dropped: self.access_log.dropped(),
            workers: self.workers(),
            connections: ConnectionsStatus {
                active: self.gate.active() as u64,
                accepted: counters.accepted.load(Ordering::Relaxed),
                refused: counters.refused.read(),
                handshake_failures: counters.handshake_failures.read(),
                framing_faults: counters.framing_faults.read(),
            },
            listeners: snapshot.listeners.iter().map(|listener| self.listener(listener)).collect(),
            pools: snapshot.pools.iter().map(|pool| pool_status(pool, self.findings.report(&pool.name))).collect(),
            cache: self.metrics.cache_answers(),
            store: self.store(),
            workshop: self.workshop.status(),
        }
    }

    fn metrics(&self) -> String {
        self.metrics.render(&self.status())
    }

    fn ready(&self) -> Result<(), &'static str> {
        if self.ledger.read().draining { Err("draining") } else { Ok(()) }
    }

    fn token(&self) -> Option<Arc<str>> {
        self.current.load().config.admin.token.as_deref().map(Arc::from)
    }

    fn set_state(&self, pool: &str, endpoint: &str, word: Option<AdminState>) -> Result<States, &'static str> {
        let snapshot = self.current.load();
        let pool = snapshot.pools.iter().find(|known| known.params.name == pool).ok_or("no_such_pool")?;
        let index = pool.set_override(endpoint, word).ok_or("no_such_endpoint")?;
        let both = pool.params.endpoints.get(index).zip(pool.endpoints.get(index));
        let (params, live) = both.ok_or("no_such_endpoint")?;
        let effective = live.state(params.state);
        let cleared = word.is_none();
        let pool = &pool.params.name;
        tracing::info!(pool, endpoint, state = effective.token(), cleared, "the operator set an endpoint's state");
        Ok(States { effective, configured: params.state, in_flight: live.in_flight() })
    }

    fn reload(&self) -> BoxFuture<'static, Result<u64, Vec<Fault>>> {
        let ask = self.ask.clone();
        async move {
            let (reply, answer) = oneshot::channel();
            let gone = |_| vec![Fault { file: String::new(), line: None, column: None, message: "stopping".into() }];
            ask.send(reply).await.map_err(|_| gone(()))?;
            answer.await.map_err(|_| gone(()))?
        }
        .boxed()
    }

    fn explain(&self, asked: &Asked) -> Result<Explained, String> {
        let snapshot = self.current.load();
        let port_of = |configured: &ListenerConfig| {
            let built = snapshot.listeners.iter().find(|built| *built.settings.name == *configured.name);
            built.and_then(|built| self.bound.of(built)).unwrap_or(configured.address).port()
        };
        let finding = routing::find(asked, &snapshot.config, &snapshot.table, port_of);
        let finding = finding.map_err(|fault| fault.to_string())?;
        let route = finding.winner().and_then(|(index, _)| snapshot.routes.get(index));
        let (next, pools) = match route.map(|route| &route.action) {
            None if finding.listener.redirect_to_https.is_some() => ("redirect_to_https", Vec::new()),
            None => ("not_found", Vec::new()),
            Some(Action::Redirect(..)) => ("redirect", Vec::new()),
            Some(Action::Respond(..)) => ("respond", Vec::new()),
            Some(Action::Forward(forwarding)) => {
                ("forward", forwarding.destinations.iter().map(|target| target.pool.name.to_string()).collect())
            }
        };
        let scheme = if finding.listener.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let supposed = Supposed {
            method: &asked.method,
            scheme: &scheme,
            authority: &finding.authority,
            uri: &finding.target,
            headers: asked.headers.clone(),
        };
        let route = route.filter(|_| next == "forward");
        let cache = route.and_then(|route| pipeline::explain(supposed, route, &self.store, self.clock.now()));
        Ok(Explained {
            generation: snapshot.generation,
            next: cache.as_ref().map_or(next, |cache| cache.next),
            routing: finding.json(),
            routing_text: finding.text(),
            pools,
            cache,
        })
    }

    fn purge(&self, target: Target, soft: bool, dry: bool) -> BoxFuture<'static, Purged> {
        let purge = self.current.load().purge(target, soft, None, self.store.seeds());
        let purger = self.purger.clone();
        async move { purger.run(purge, "admin", dry).await }.boxed()
    }

    fn clear_quarantine(&self) -> usize {
        self.workshop.clear_quarantine()
    }
}

impl Overview {
    fn workers(&self) -> Vec<WorkerStatus> {
        let generations = self.generations.iter().enumerate();
        generations
            .map(|(id, generation)| WorkerStatus { id, generation: generation.load(Ordering::Relaxed) })
            .collect()
    }

    fn listener(&self, listener: &Listener) -> ListenerStatus {
        let certificates = listener.settings.tls.iter().flat_map(|tls| tls.certificates());
        ListenerStatus {
            name: listener.settings.name.to_string(),
            address: self.bound.of(listener).unwrap_or(listener.address).to_string(),
            certificates: certificates
                .map(|certificate| CertificateStatus {
                    names: certificate.names.clone(),
                    expires: certificate.not_after,
                })
                .collect(),
        }
    }

    fn store(&self) -> StoreStatus {
        let stats = self.store.stats();
        StoreStatus {
            bytes: stats.used,
            size: stats.size,
            entries: stats.entries,
            evictions: stats.evictions,
            files: stats.files as u64,
            dictionaries: DictionariesStatus {
                files: stats.dictionaries.families as u64,
                versions: stats.dictionaries.versions as u64,
                bytes: stats.dictionaries.bytes,
            },
            purged: PurgesStatus {
                purges: stats.purges.purges,
                removed: stats.purges.removed,
                softened: stats.purges.softened,
            },
            policies: stats
                .shares
                .into_iter()
                .map(|share| StoreShare { name: share.name.into(), bytes: share.used, max_bytes: share.limit })
                .collect(),
        }
    }
}

fn pool_status(pool: &Pool, report: Option<Report>) -> PoolStatus {
    let by_latency = pool.params.balance == Balance::PeakEwma;
    let endpoints = pool.params.endpoints.iter().zip(&pool.endpoints).map(|(params, live)| {
        let counters = live.counters();
        EndpointStatus {
            address: params.address.to_string(),
            weight: params.weight,
            state: live.state(params.state).token(),
            overridden: live.overridden().map(AdminState::token),
            latency_us: by_latency.then(|| live.estimated_latency()),
            healthy: live.healthy(),
            ejected: live.is_ejected(),
            ejections: live.ejections(),
            backup: params.tier > 0,
            tier: params.tier,
            discovered: params.discovered,
            in_flight: u64::from(live.in_flight()),
            requests: counters.requests,
            failures: counters.failures.iter().map(|(_, count)| count).sum(),
            failures_by_reason: counters.failures.into_iter().collect(),
            last_probes: live.probes().iter().map(probe_status).collect(),
        }
    });
    let counters = pool.counters();
    PoolStatus {
        name: pool.params.name.clone(),
        balance: pool.params.balance.token(),
        insecure: pool.tls.as_ref().is_some_and(|tls| tls.spec().insecure),
        max_in_flight: Some(pool.max_in_flight()).filter(|max| *max < u32::MAX),
        waiting: pool.waiting(),
        queued: counters.queued,
        queue_full: counters.full,
        queue_timeouts: counters.timeouts,
        retries: counters.retries,
        retries_denied: counters.retries_denied,
        hedges: counters.hedges,
        discovery: report.map(discovery_status),
        endpoints: endpoints.collect(),
    }
}

fn discovery_status(report: Report) -> DiscoveryStatus {
    let Report { source, found, left_off, answered, fault, details, answers, failures, changes } = report;
    DiscoveryStatus { source, found, left_off, answered, fault, details, answers, failures, changes }
}

fn probe_status(probe: &ProbeRecord) -> ProbeStatus {
    let (fault, status) = (probe.fault.map(str::to_owned), probe.status.map(|status| status.to_string()));
    ProbeStatus {
        at: probe.at.wall,
        ok: probe.fault.is_none(),
        detail: [fault, status].into_iter().flatten().collect::<Vec<_>>().join(" "),
        took_ms: u64::try_from(probe.took.as_millis()).unwrap_or(u64::MAX),
    }
}
