//! What a [`Status`] says, as gauges and counters.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::page::{Kind, Page};
use crate::observe::status::{
    CacheAnswers, ConnectionsStatus, DiscoveryStatus, EndpointStatus, ListenerStatus, PoolStatus, Reload, Status,
    StoreStatus, WorkshopStatus,
};

pub(super) fn render(page: &mut Page, status: &Status) {
    process(page, status);
    configuration(page, status);
    connections(page, &status.connections);
    certificates(page, &status.listeners);
    pools(page, &status.pools);
    discovery(page, &status.pools);
    endpoints(page, &status.pools);
    cache(page, &status.cache);
    store(page, &status.store);
    workshop(page, &status.workshop);
}

fn workshop(page: &mut Page, workshop: &WorkshopStatus) {
    let help = "Orders for better children of stored responses that wait.";
    page.single("tidegate_optimise_queue", Kind::Gauge, help, workshop.queued);
    let help = "What came of making better children, by optimiser or coding.";
    page.family("tidegate_optimised_total", Kind::Counter, help);
    for made in &workshop.outcomes {
        page.sample("", &[("filter", made.filter), ("outcome", made.outcome)], made.count);
    }
    let help = "Bytes by which better children are smaller than what they were made from.";
    page.single("tidegate_optimise_saved_bytes_total", Kind::Counter, help, workshop.saved_bytes);
    let help = "Pairs of optimiser and URL that are left out for having failed again and again.";
    page.single("tidegate_optimise_quarantined", Kind::Gauge, help, workshop.quarantine.len());
}

fn process(page: &mut Page, status: &Status) {
    page.family("tidegate_build_info", Kind::Gauge, "Always 1; the version is a label.");
    page.sample("", &[("version", status.version)], 1);
    page.single(
        "tidegate_start_time_seconds",
        Kind::Gauge,
        "When the process started, since the Unix epoch.",
        epoch_seconds(status.started),
    );
    page.single("tidegate_draining", Kind::Gauge, "1 while a graceful stop is under way.", u8::from(status.draining));
    page.single(
        "tidegate_access_log_lines_dropped_total",
        Kind::Counter,
        "Access log lines lost: the queue was full, or writing failed.",
        status.log_lines_dropped,
    );
}

fn configuration(page: &mut Page, status: &Status) {
    page.single("tidegate_config_generation", Kind::Gauge, "Number of the snapshot in force.", status.generation);
    page.family("tidegate_worker_config_generation", Kind::Gauge, "Number of the snapshot each worker follows.");
    for worker in &status.workers {
        page.sample("", &[("worker", &worker.id.to_string())], worker.generation);
    }
    page.family("tidegate_config_reloads_total", Kind::Counter, "Reloads by result.");
    page.sample("", &[("result", "ok")], status.reloads_ok);
    page.sample("", &[("result", "failed")], status.reloads_failed);
    if let Some(Reload { ok, at, .. }) = &status.last_reload {
        let help = "1 when the last reload was published, 0 when it was refused.";
        page.single("tidegate_config_last_reload_successful", Kind::Gauge, help, u8::from(*ok));
        let help = "When the last reload was decided, since the Unix epoch.";
        page.single("tidegate_config_last_reload_timestamp_seconds", Kind::Gauge, help, epoch_seconds(*at));
    }
}

fn connections(page: &mut Page, connections: &ConnectionsStatus) {
    page.single("tidegate_connections", Kind::Gauge, "Client connections open.", connections.active);
    let help = "Client connections accepted, refused ones included.";
    page.single("tidegate_connections_accepted_total", Kind::Counter, help, connections.accepted);
    let mut by_reason = |name, help, counts: &BTreeMap<&'static str, u64>| {
        page.family(name, Kind::Counter, help);
        for (reason, count) in counts {
            page.sample("", &[("reason", reason)], count);
        }
    };
    by_reason("tidegate_connections_refused_total", "Client connections closed at once.", &connections.refused);
    let help = "PROXY headers and TLS handshakes that failed.";
    by_reason("tidegate_handshake_failures_total", help, &connections.handshake_failures);
    let help = "Requests that could not be read.";
    by_reason("tidegate_framing_faults_total", help, &connections.framing_faults);
}

/// By the first name of each certificate; of several for one name (RSA and ECDSA) the one that ends first.
fn certificates(page: &mut Page, listeners: &[ListenerStatus]) {
    let mut ends = BTreeMap::<(&str, &str), SystemTime>::new();
    for listener in listeners {
        for certificate in &listener.certificates {
            let name = certificate.names.first().map_or("", String::as_str);
            let end = ends.entry((&listener.name, name)).or_insert(certificate.expires);
            *end = certificate.expires.min(*end);
        }
    }
    let help = "End of a certificate's validity, since the Unix epoch.";
    page.family("tidegate_certificate_expiry_timestamp_seconds", Kind::Gauge, help);
    for ((listener, name), end) in ends {
        page.sample("", &[("listener", listener), ("name", name)], epoch_seconds(end));
    }
}

fn pools(page: &mut Page, pools: &[PoolStatus]) {
    page.family(
        "tidegate_pool_max_in_flight",
        Kind::Gauge,
        "What a pool takes at once as of now, where it is bounded.",
    );
    for (pool, max) in pools.iter().filter_map(|pool| Some((pool, pool.max_in_flight?))) {
        page.sample("", &[("pool", &pool.name)], max);
    }
    let mut family = |name, kind, help, value: fn(&PoolStatus) -> u64| {
        page.family(name, kind, help);
        for pool in pools {
            page.sample("", &[("pool", &pool.name)], value(pool));
        }
    };
    let help = "1 where the certificates of a pool's origins are not verified (insecure = true).";
    family("tidegate_pool_insecure", Kind::Gauge, help, |pool| pool.insecure.into());
    family("tidegate_pool_waiting", Kind::Gauge, "Exchanges in the pool's queue.", |pool| pool.waiting.into());
    family("tidegate_pool_queued_total", Kind::Counter, "Exchanges that have been in the queue.", |pool| pool.queued);
    let help = "Exchanges that found the queue full.";
    family("tidegate_pool_queue_full_total", Kind::Counter, help, |pool| pool.queue_full);
    let help = "Exchanges that waited in vain.";
    family("tidegate_pool_queue_timeouts_total", Kind::Counter, help, |pool| pool.queue_timeouts);
    let help = "Attempts that repeated another, hedges included.";
    family("tidegate_pool_retries_total", Kind::Counter, help, |pool| pool.retries);
    let help = "Attempts that were not repeated because the budget was spent.";
    family("tidegate_pool_retries_denied_total", Kind::Counter, help, |pool| pool.retries_denied);
    let help = "Attempts made beside another that was slow.";
    family("tidegate_pool_hedges_total", Kind::Counter, help, |pool| pool.hedges);
}

fn discovery(page: &mut Page, pools: &[PoolStatus]) {
    let mut family = |name, kind, help, value: fn(&DiscoveryStatus) -> u64| {
        page.family(name, kind, help);
        for (pool, discovery) in pools.iter().filter_map(|pool| Some((pool, pool.discovery.as_ref()?))) {
            page.sample("", &[("pool", &pool.name)], value(discovery));
        }
    };
    family("tidegate_discovery_endpoints", Kind::Gauge, "Endpoints of the last good answer.", |found| {
        found.found as u64
    });
    let help = "Endpoints that the last good answer had beyond discover.max.";
    family("tidegate_discovery_left_off", Kind::Gauge, help, |found| found.left_off as u64);
    let help = "1 while questions bring no answer, or not all of it, and the last good one stays.";
    family("tidegate_discovery_failing", Kind::Gauge, help, |found| found.fault.is_some().into());
    family("tidegate_discovery_answers_total", Kind::Counter, "Good answers.", |found| found.answers);
    family("tidegate_discovery_failures_total", Kind::Counter, "Questions that brought no answer.", |found| {
        found.failures
    });
    let help = "Answers that changed the endpoints.";
    family("tidegate_discovery_changes_total", Kind::Counter, help, |found| found.changes);
    let help = "When the last good answer came, since the Unix epoch; 0 = there was none.";
    family("tidegate_discovery_last_answer_timestamp_seconds", Kind::Gauge, help, |found| {
        found.answered.map_or(0, epoch_seconds)
    });
}

fn endpoints(page: &mut Page, pools: &[PoolStatus]) {
    let mut family = |name, kind, help, value: fn(&EndpointStatus) -> u64| {
        page.family(name, kind, help);
        for (pool, endpoint) in pools.iter().flat_map(|pool| pool.endpoints.iter().map(move |each| (pool, each))) {
            page.sample("", &[("pool", &pool.name), ("endpoint", &endpoint.address)], value(endpoint));
        }
    };
    family("tidegate_endpoint_healthy", Kind::Gauge, "The verdict of the probes: 1 up, 0 down.", |e| e.healthy.into());
    family("tidegate_endpoint_overridden", Kind::Gauge, "1 while an operator's word counts.", |e| {
        e.overridden.is_some().into()
    });
    family("tidegate_endpoint_ejected", Kind::Gauge, "1 while an endpoint is out for how it answered.", |e| {
        e.ejected.into()
    });
    family("tidegate_endpoint_ejections_total", Kind::Counter, "Ejections.", |e| e.ejections);
    family("tidegate_endpoint_in_flight", Kind::Gauge, "Exchanges whose response has not ended.", |e| e.in_flight);
    family("tidegate_endpoint_attempts_total", Kind::Counter, "Attempts made.", |e| e.requests);
    family("tidegate_endpoint_failures_total", Kind::Counter, "Attempts that failed.", |e| e.failures);
    let help = "Estimated time to a response head, where a pool balances by it.";
    page.family("tidegate_endpoint_latency_seconds", Kind::Gauge, help);
    for (pool, endpoint) in pools.iter().flat_map(|pool| pool.endpoints.iter().map(move |each| (pool, each))) {
        if let Some(micros) = endpoint.latency_us {
            page.sample("", &[("pool", &pool.name), ("endpoint", &endpoint.address)], f64::from(micros) / 1e6);
        }
    }
}

fn cache(page: &mut Page, cache: &CacheAnswers) {
    let help = "Part of the exchanges, and of the body bytes, that the cache answered without asking the farm anew.";
    page.family("tidegate_cache_hit_ratio", Kind::Gauge, help);
    for (by, ratio) in cache.ratios() {
        if let Some(ratio) = ratio {
            page.sample("", &[("by", by)], ratio);
        }
    }
}

fn store(page: &mut Page, store: &StoreStatus) {
    page.single("tidegate_store_bytes", Kind::Gauge, "Bytes kept in the memory store.", store.bytes);
    page.single("tidegate_store_size_bytes", Kind::Gauge, "Bytes the memory store may keep.", store.size);
    page.single("tidegate_store_entries", Kind::Gauge, "Stored responses, children included.", store.entries);
    page.single("tidegate_store_files", Kind::Gauge, "Bodies that stand in files of memory.", store.files);
    let help = "Earlier versions of files that are kept to code later ones against.";
    page.single("tidegate_dictionaries", Kind::Gauge, help, store.dictionaries.versions);
    let help = "Bytes they take in the store.";
    page.single("tidegate_dictionary_bytes", Kind::Gauge, help, store.dictionaries.bytes);
    page.single(
        "tidegate_store_evictions_total",
        Kind::Counter,
        "Stored responses removed for want of room.",
        store.evictions,
    );
    page.single("tidegate_purges_total", Kind::Counter, "Purges, dry runs not counted.", store.purged.purges);
    page.family("tidegate_purged_responses_total", Kind::Counter, "Stored responses that purges reached.");
    page.sample("", &[("kind", "removed")], store.purged.removed);
    page.sample("", &[("kind", "made_stale")], store.purged.softened);
    page.family("tidegate_store_policy_bytes", Kind::Gauge, "Bytes kept by each cache policy.");
    for policy in &store.policies {
        page.sample("", &[("policy", &policy.name)], policy.bytes);
    }
}

/// Whole seconds since the Unix epoch; zero before it.
fn epoch_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
