//! A [`Status`] for people: one screen for a small farm, a line per thing.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::Status;
use super::status::{
    CacheAnswers, ConnectionsStatus, DictionariesStatus, DiscoveryStatus, EndpointStatus, ListenerStatus, PoolStatus,
    PurgesStatus, Reload, StoreStatus, WorkshopStatus,
};
use crate::observe::timestamp::rfc3339;

/// The whole status.
pub(super) fn render(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(status, &mut text);
    text
}

fn write(status: &Status, out: &mut String) -> fmt::Result {
    let state = if status.draining { "draining" } else { "running" };
    writeln!(out, "tidegate {}, {state} since {}", status.version, rfc3339(status.started))?;
    writeln!(out, "generation {}, watching by {}", status.generation, status.watch)?;
    let behind = status.workers.iter().filter(|worker| worker.generation != status.generation).count();
    writeln!(out, "workers {}, of which {behind} on an older generation", status.workers.len())?;
    write_reloads(status, out)?;
    if status.log_lines_dropped > 0 {
        writeln!(out, "access log lines lost: {}", status.log_lines_dropped)?;
    }

    write_connections(&status.connections, out)?;
    writeln!(out, "\nlisteners")?;
    status.listeners.iter().try_for_each(|listener| write_listener(listener, out))?;
    for pool in &status.pools {
        let insecure = if pool.insecure { " (certificates NOT verified)" } else { "" };
        writeln!(out, "\npool {}, {}{insecure}", pool.name, pool.balance)?;
        write_bounds(pool, out)?;
        pool.discovery.iter().try_for_each(|discovery| write_discovery(discovery, out))?;
        pool.endpoints.iter().try_for_each(|endpoint| write_endpoint(endpoint, out))?;
    }
    write_cache(&status.cache, out)?;
    write_store(&status.store, out)?;
    write_workshop(&status.workshop, out)
}

fn write_reloads(status: &Status, out: &mut String) -> fmt::Result {
    writeln!(out, "reloads {} ok, {} failed", status.reloads_ok, status.reloads_failed)?;
    let Some(Reload { ok, at, errors }) = &status.last_reload else { return Ok(()) };
    writeln!(out, "last reload {} at {}", if *ok { "ok" } else { "FAILED" }, rfc3339(*at))?;
    errors.iter().try_for_each(|fault| writeln!(out, "  {fault}"))
}

fn write_connections(connections: &ConnectionsStatus, out: &mut String) -> fmt::Result {
    let total = |counts: &BTreeMap<&'static str, u64>| counts.values().sum::<u64>();
    let ConnectionsStatus { active, accepted, refused, handshake_failures, framing_faults: _ } = connections;
    let (refused, failures) = (total(refused), total(handshake_failures));
    writeln!(out, "\nconnections {active} open, {accepted} accepted, {refused} refused, {failures} failed handshakes")
}

fn write_listener(listener: &ListenerStatus, out: &mut String) -> fmt::Result {
    let ListenerStatus { name, address, certificates } = listener;
    writeln!(out, "  {name:<16} {address}")?;
    for certificate in certificates {
        writeln!(out, "    certificate {}, until {}", certificate.names.join(" "), rfc3339(certificate.expires))?;
    }
    Ok(())
}

/// Nothing for a pool without bounds whose queue was never needed.
fn write_bounds(pool: &PoolStatus, out: &mut String) -> fmt::Result {
    let PoolStatus { waiting, queued, queue_full, queue_timeouts, .. } = pool;
    if let Some(max) = pool.max_in_flight {
        writeln!(out, "  at most {max} in flight")?;
    }
    if queued + queue_full > 0 {
        writeln!(out, "  {waiting} waiting, {queued} have waited, {queue_timeouts} in vain, {queue_full} refused")?;
    }
    if pool.retries + pool.retries_denied > 0 {
        let PoolStatus { retries, retries_denied, hedges, .. } = pool;
        writeln!(out, "  {retries} retries, of which {hedges} hedges, {retries_denied} beyond the budget")?;
    }
    Ok(())
}

fn write_discovery(discovery: &DiscoveryStatus, out: &mut String) -> fmt::Result {
    let DiscoveryStatus { source, found, left_off, answered, fault, details, .. } = discovery;
    write!(out, "  {found} endpoints found by {source}")?;
    if *left_off > 0 {
        write!(out, ", {left_off} more left off")?;
    }
    if let Some(answered) = answered {
        write!(out, ", last at {}", rfc3339(*answered))?;
    }
    if let Some(fault) = fault {
        write!(out, ", FAILING now: {fault}")?;
    }
    writeln!(out)?;
    details.iter().flat_map(|detail| detail.lines()).try_for_each(|line| writeln!(out, "    {line}"))
}

fn write_endpoint(endpoint: &EndpointStatus, out: &mut String) -> fmt::Result {
    let EndpointStatus { address, weight, state, healthy, tier, in_flight, requests, failures, .. } = endpoint;
    let health = match (healthy, endpoint.ejected) {
        (false, _) => "FAILING",
        (true, true) => "EJECTED",
        (true, false) => "healthy",
    };
    let backup = match tier {
        0 => String::new(),
        1 => ", backup".to_owned(),
        further => format!(", backup in tier {further}"),
    };
    write!(out, "  {address:<22} {state:<5} {health}, weight {weight}{backup}, {in_flight} in flight, ")?;
    write!(out, "{requests} attempts, {failures} failures")?;
    if let Some(word) = endpoint.overridden {
        write!(out, ", set to {word} by the operator")?;
    }
    if endpoint.ejections > 0 {
        write!(out, ", ejected {} times", endpoint.ejections)?;
    }
    if let Some(latency) = endpoint.latency_us {
        write!(out, ", about {latency} us")?;
    }
    if let Some(probe) = endpoint.last_probes.last() {
        write!(out, ", last probe {} at {}", probe.detail, rfc3339(probe.at))?;
    }
    writeln!(out)
}

fn write_cache(cache: &CacheAnswers, out: &mut String) -> fmt::Result {
    let CacheAnswers { requests, hits, bytes, hit_bytes } = cache;
    write!(out, "\ncache {hits} of {requests} requests and {hit_bytes} of {bytes} bytes without the farm")?;
    let [requests, bytes] = cache.ratios().map(|(_, ratio)| ratio.map(|ratio| 100.0 * ratio));
    if let Some(requests) = requests {
        write!(out, ": {requests:.1} % of requests")?;
    }
    if let Some(bytes) = bytes {
        write!(out, ", {bytes:.1} % of bytes")?;
    }
    writeln!(out)
}

fn write_store(store: &StoreStatus, out: &mut String) -> fmt::Result {
    let StoreStatus { bytes, size, entries, evictions, files, dictionaries, purged, policies } = store;
    writeln!(out, "\nstore {bytes} of {size} bytes, {entries} entries, {files} in files, {evictions} evicted")?;
    let DictionariesStatus { files, versions, bytes } = dictionaries;
    writeln!(out, "dictionaries {versions} of {files} files, {bytes} bytes")?;
    let PurgesStatus { purges, removed, softened } = purged;
    writeln!(out, "purges {purges}, which removed {removed} and made {softened} stale")?;
    for policy in policies {
        match policy.max_bytes {
            Some(max) => writeln!(out, "  {:<16} {} of {max} bytes", policy.name, policy.bytes)?,
            None => writeln!(out, "  {:<16} {} bytes", policy.name, policy.bytes)?,
        }
    }
    Ok(())
}

fn write_workshop(workshop: &WorkshopStatus, out: &mut String) -> fmt::Result {
    let WorkshopStatus { queued, saved_bytes, outcomes, quarantine } = workshop;
    if outcomes.is_empty() && *queued == 0 {
        return Ok(());
    }
    writeln!(out, "\nworkshop {queued} waiting, {saved_bytes} bytes saved")?;
    for made in outcomes {
        writeln!(out, "  {:<16} {} {}", made.filter, made.count, made.outcome)?;
    }
    for held in quarantine {
        writeln!(out, "  {:<16} QUARANTINED for {} since {}", held.filter, held.url, rfc3339(held.since))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::status::tests::sample;

    #[test]
    fn one_screen_says_it_all() {
        let expected = "\
tidegate 0.1.0, running since 2026-11-23T06:40:15.000Z
generation 7, watching by inotify
workers 2, of which 1 on an older generation
reloads 6 ok, 1 failed
last reload FAILED at 2026-11-23T06:41:39.000Z
  conf.d/pools.toml:12:9: weight must be 0..=1000, got -1
access log lines lost: 3

connections 4 open, 40 accepted, 2 refused, 1 failed handshakes

listeners
  https            0.0.0.0:8443
    certificate shop.example *.shop.example, until 2030-03-17T17:46:40.000Z
    certificate shop.example *.shop.example, until 2027-01-15T08:00:00.000Z

pool web, peak-ewma (certificates NOT verified)
  at most 200 in flight
  2 waiting, 30 have waited, 5 in vain, 4 refused
  6 retries, of which 8 hedges, 7 beyond the budget
  1 endpoints found by dns web.internal:8080, 2 more left off, last at 2026-11-23T06:41:30.000Z, FAILING now: timeout
  10.0.0.11:8080         up    FAILING, weight 3, backup, 5 in flight, 100 attempts, 9 failures, \
set to up by the operator, ejected 3 times, about 1500 us, last probe 503 at 2026-11-23T06:41:30.000Z

cache 6 of 8 requests and 900 of 1000 bytes without the farm: 75.0 % of requests, 90.0 % of bytes

store 1000 of 2000 bytes, 10 entries, 2 in files, 1 evicted
dictionaries 3 of 1 files, 300 bytes
purges 3, which removed 20 and made 1 stale
  static           900 of 1500 bytes
  api              100 bytes

workshop 2 waiting, 12345 bytes saved
  br               5 made
  js-ws            3 ambiguous
  js-ws            QUARANTINED for https://shop.example/a.js since 2026-11-23T06:41:30.000Z
";
        assert_eq!(render(&sample()), expected);
    }
}
