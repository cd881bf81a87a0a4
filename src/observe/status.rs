//! The state of the process as plain values: what `app` gathers for `/status` and, at scrape time, for `/metrics`.
//!
//! Gathered on demand beside the workers; nothing here is kept up to date. Counters run since the start of the process,
//! or since the thing they count was first configured.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::timestamp;

/// Everything there is to see.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The program's version.
    pub version: &'static str,
    /// When the process started.
    #[serde(serialize_with = "timestamp::serialize")]
    pub started: SystemTime,
    /// Number of the snapshot in force.
    pub generation: u64,
    /// True from the moment a graceful stop began.
    pub draining: bool,
    /// How edits are noticed: `inotify` or `poll`.
    pub watch: &'static str,
    /// The last reload; `None` before the first.
    pub last_reload: Option<Reload>,
    /// Reloads that published a snapshot.
    pub reloads_ok: u64,
    /// Reloads that were refused.
    pub reloads_failed: u64,
    /// Access log lines lost.
    pub log_lines_dropped: u64,
    /// One per worker.
    pub workers: Vec<WorkerStatus>,
    /// Client connections, over all listeners.
    pub connections: ConnectionsStatus,
    /// In file order.
    pub listeners: Vec<ListenerStatus>,
    /// In file order.
    pub pools: Vec<PoolStatus>,
    /// What came of exchanges on routes with a cache.
    pub cache: CacheAnswers,
    /// The memory store.
    pub store: StoreStatus,
    /// What is made of stored bodies in the background.
    pub workshop: WorkshopStatus,
}

/// One worker.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerStatus {
    /// Its number, from 0.
    pub id: usize,
    /// The snapshot it follows.
    pub generation: u64,
}

/// How a reload went.
#[derive(Debug, Clone, Serialize)]
pub struct Reload {
    /// True when a snapshot was published (or nothing had changed).
    pub ok: bool,
    /// When it was decided.
    #[serde(serialize_with = "timestamp::serialize")]
    pub at: SystemTime,
    /// Every fault found; empty when `ok`.
    pub errors: Vec<Fault>,
}

/// One configuration fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// As the operator names it.
    pub file: String,
    /// From 1; `None` when the fault has no place in a file.
    pub line: Option<usize>,
    /// From 1.
    pub column: Option<usize>,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl fmt::Display for Fault {
    /// `FILE:LINE:COLUMN: MESSAGE`, as compilers do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        for place in [self.line, self.column].into_iter().flatten() {
            write!(f, ":{place}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// What became of client connections.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ConnectionsStatus {
    /// Open now.
    pub active: u64,
    /// Accepted so far, refused ones included.
    pub accepted: u64,
    /// Closed at once, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// PROXY headers and TLS handshakes that failed, by reason.
    pub handshake_failures: BTreeMap<&'static str, u64>,
    /// Requests that could not be read, by reason.
    pub framing_faults: BTreeMap<&'static str, u64>,
}

/// One listener.
#[derive(Debug, Clone, Serialize)]
pub struct ListenerStatus {
    /// `name`
    pub name: String,
    /// The bound address.
    pub address: String,
    /// Certificates in use; empty on a plain listener.
    pub certificates: Vec<CertificateStatus>,
}

/// One certificate of a listener.
#[derive(Debug, Clone, Serialize)]
pub struct CertificateStatus {
    /// The names it is for.
    pub names: Vec<String>,
    /// End of its validity.
    #[serde(serialize_with = "timestamp::serialize")]
    pub expires: SystemTime,
}

/// One pool.
#[derive(Debug, Clone, Serialize)]
pub struct PoolStatus {
    /// `name`
    pub name: String,
    /// `balance`
    pub balance: &'static str,
    /// True when certificates of its endpoints are not verified.
    pub insecure: bool,
    /// What it takes at once as of now, by `max_in_flight` and `adaptive`; `None` = any number.
    pub max_in_flight: Option<u32>,
    /// Exchanges in its queue.
    pub waiting: u32,
    /// Exchanges that have been in its queue.
    pub queued: u64,
    /// Exchanges that found the queue full.
    pub queue_full: u64,
    /// Exchanges that waited in vain.
    pub queue_timeouts: u64,
    /// Attempts that repeated another, hedges included.
    pub retries: u64,
    /// Attempts that were not repeated because the budget was spent.
    pub retries_denied: u64,
    /// Attempts made beside another that was slow.
    pub hedges: u64,
    /// How its endpoints are found; `None` where all of them are written.
    pub discovery: Option<DiscoveryStatus>,
    /// In file order, and behind them those that were found.
    pub endpoints: Vec<EndpointStatus>,
}

/// How discovery goes in a pool.
#[derive(Debug, Clone, Serialize)]
pub struct DiscoveryStatus {
    /// What is asked or read.
    pub source: String,
    /// Endpoints of the last good answer.
    pub found: usize,
    /// Those that were left off for being too many.
    pub left_off: usize,
    /// When the last good answer came.
    #[serde(serialize_with = "timestamp::serialize_option")]
    pub answered: Option<SystemTime>,
    /// Why the last question brought none, or not all of it.
    pub fault: Option<&'static str>,
    /// What is wrong with files.
    pub details: Vec<String>,
    /// Good answers.
    pub answers: u64,
    /// Questions that brought none.
    pub failures: u64,
    /// Answers that changed the endpoints.
    pub changes: u64,
}

/// One endpoint of a pool.
#[derive(Debug, Clone, Serialize)]
pub struct EndpointStatus {
    /// As written in the configuration.
    pub address: String,
    /// `weight`
    pub weight: u16,
    /// The state that counts: `up`, `drain` or `down`.
    pub state: &'static str,
    /// The operator's word, where it stands against the file's `state`.
    #[serde(rename = "override")]
    pub overridden: Option<&'static str>,
    /// The verdict of the probes; true before the first one and without probes.
    pub healthy: bool,
    /// Out because of how it answered, whatever the probes say.
    pub ejected: bool,
    /// Ejections so far.
    pub ejections: u64,
    /// `backup`
    pub backup: bool,
    /// 0, or behind how many tiers of endpoints it waits.
    pub tier: u8,
    /// Not written, but found.
    pub discovered: bool,
    /// Exchanges whose response has not ended.
    pub in_flight: u64,
    /// Estimated time to a response head in microseconds, 0 = nothing known; only where the pool balances by it.
    pub latency_us: Option<u32>,
    /// Attempts made.
    pub requests: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// The same by reason.
    pub failures_by_reason: BTreeMap<&'static str, u64>,
    /// The latest probes, oldest first; bounded by whoever keeps them.
    pub last_probes: Vec<ProbeStatus>,
}

/// One probe.
#[derive(Debug, Clone, Serialize)]
pub struct ProbeStatus {
    /// When its verdict came.
    #[serde(serialize_with = "timestamp::serialize")]
    pub at: SystemTime,
    /// The verdict.
    pub ok: bool,
    /// Stable token of a failure, or the status that came, or both.
    pub detail: String,
    /// From connect to the last byte, or to the failure.
    pub took_ms: u64,
}

/// What came of exchanges on routes with a cache, since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CacheAnswers {
    /// Exchanges.
    pub requests: u64,
    /// Those that were answered without asking the farm anew.
    pub hits: u64,
    /// Body bytes sent.
    pub bytes: u64,
    /// Those that were sent without asking the farm anew.
    pub hit_bytes: u64,
}

impl CacheAnswers {
    /// The part of the requests, and of the bytes, that the farm was not asked for; `None` where nothing was asked for.
    #[must_use]
    pub fn ratios(&self) -> [(&'static str, Option<f64>); 2] {
        let ratio = |hits: u64, all: u64| (all > 0).then(|| hits as f64 / all as f64);
        [("requests", ratio(self.hits, self.requests)), ("bytes", ratio(self.hit_bytes, self.bytes))]
    }
}

/// What was purged since the start of the process.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct PurgesStatus {
    /// Purges, dry runs not counted.
    pub purges: u64,
    /// Stored responses they removed.
    pub removed: u64,
    /// Stored responses they made stale.
    pub softened: u64,
}

/// The memory store.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StoreStatus {
    /// Bytes kept.
    pub bytes: u64,
    /// `[store] size`
    pub size: u64,
    /// Stored responses, children included.
    pub entries: u64,
    /// Stored responses removed for want of room.
    pub evictions: u64,
    /// Bodies that stand in files of memory, each with a descriptor.
    pub files: u64,
    /// Earlier versions of files that later ones are coded against.
    pub dictionaries: DictionariesStatus,
    /// What was purged.
    pub purged: PurgesStatus,
    /// One per `[cache.NAME]`.
    pub policies: Vec<StoreShare>,
}

/// What is kept to code against.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct DictionariesStatus {
    /// Files that have versions.
    pub files: u64,
    /// Versions of them.
    pub versions: u64,
    /// Bytes they take; `bytes` of the store has them.
    pub bytes: u64,
}

/// What one cache policy keeps.
#[derive(Debug, Clone, Serialize)]
pub struct StoreShare {
    /// NAME
    pub name: String,
    /// Bytes kept.
    pub bytes: u64,
    /// `max_bytes`; `None` = the whole store.
    pub max_bytes: Option<u64>,
}

/// Work on stored bodies off the request path.
#[derive(Debug, Clone, Default, Serialize)]
pub struct WorkshopStatus {
    /// Orders waiting.
    pub queued: u64,
    /// Bytes by which what was made is smaller than what it was made from.
    pub saved_bytes: u64,
    /// How often what came of it.
    pub outcomes: Vec<OptimiserCount>,
    /// What is left out for having failed again and again.
    pub quarantine: Vec<QuarantineStatus>,
}

/// One outcome of one optimiser or coding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OptimiserCount {
    /// The optimiser, or the coding made at its strongest level.
    pub filter: &'static str,
    /// `made`, or why not: a stable token.
    pub outcome: &'static str,
    /// How often.
    pub count: u64,
}

/// One optimiser that is left out for one URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuarantineStatus {
    /// The optimiser.
    pub filter: &'static str,
    /// The URL.
    pub url: String,
    /// Since when; it lasts a day.
    #[serde(serialize_with = "timestamp::serialize")]
    pub since: SystemTime,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::time::Duration;

    /// A small farm with one thing of each kind.
    pub(crate) fn sample() -> Status {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let certificate =
            |expires| CertificateStatus { names: vec!["shop.example".into(), "*.shop.example".into()], expires };
        Status {
            version: "0.1.0",
            started: at(1_795_416_015),
            generation: 7,
            draining: false,
            watch: "inotify",
            last_reload: Some(Reload {
                ok: false,
                at: at(1_795_416_099),
                errors: vec![Fault {
                    file: "conf.d/pools.toml".into(),
                    line: Some(12),
                    column: Some(9),
                    message: "weight must be 0..=1000, got -1".into(),
                }],
            }),
            reloads_ok: 6,
            reloads_failed: 1,
            log_lines_dropped: 3,
            workers: vec![WorkerStatus { id: 0, generation: 7 }, WorkerStatus { id: 1, generation: 6 }],
            connections: ConnectionsStatus {
                active: 4,
                accepted: 40,
                refused: BTreeMap::from([("max_connections", 2)]),
                handshake_failures: BTreeMap::from([("handshake_timeout", 1)]),
                framing_faults: BTreeMap::new(),
            },
            listeners: vec![ListenerStatus {
                name: "https".into(),
                address: "0.0.0.0:8443".into(),
                certificates: vec![certificate(at(1_900_000_000)), certificate(at(1_800_000_000))],
            }],
            pools: vec![PoolStatus {
                name: "web".into(),
                balance: "peak-ewma",
                insecure: true,
                max_in_flight: Some(200),
                waiting: 2,
                queued: 30,
                queue_full: 4,
                queue_timeouts: 5,
                retries: 6,
                retries_denied: 7,
                hedges: 8,
                discovery: Some(DiscoveryStatus {
                    source: "dns web.internal:8080".into(),
                    found: 1,
                    left_off: 2,
                    answered: Some(at(1_795_416_090)),
                    fault: Some("timeout"),
                    details: Vec::new(),
                    answers: 60,
                    failures: 4,
                    changes: 3,
                }),
                endpoints: vec![EndpointStatus {
                    address: "10.0.0.11:8080".into(),
                    weight: 3,
                    state: "up",
                    overridden: Some("up"),
                    healthy: false,
                    ejected: true,
                    ejections: 3,
                    backup: true,
                    tier: 1,
                    discovered: true,
                    in_flight: 5,
                    latency_us: Some(1500),
                    requests: 100,
                    failures: 9,
                    failures_by_reason: BTreeMap::from([("connect_refused", 7), ("connection_reset", 2)]),
                    last_probes: vec![ProbeStatus {
                        at: at(1_795_416_090),
                        ok: false,
                        detail: "503".into(),
                        took_ms: 3,
                    }],
                }],
            }],
            cache: CacheAnswers { requests: 8, hits: 6, bytes: 1000, hit_bytes: 900 },
            store: StoreStatus {
                bytes: 1000,
                size: 2000,
                entries: 10,
                evictions: 1,
                files: 2,
                dictionaries: DictionariesStatus { files: 1, versions: 3, bytes: 300 },
                purged: PurgesStatus { purges: 3, removed: 20, softened: 1 },
                policies: vec![
                    StoreShare { name: "static".into(), bytes: 900, max_bytes: Some(1500) },
                    StoreShare { name: "api".into(), bytes: 100, max_bytes: None },
                ],
            },
            workshop: WorkshopStatus {
                queued: 2,
                saved_bytes: 12_345,
                outcomes: vec![
                    OptimiserCount { filter: "br", outcome: "made", count: 5 },
                    OptimiserCount { filter: "js-ws", outcome: "ambiguous", count: 3 },
                ],
                quarantine: vec![QuarantineStatus {
                    filter: "js-ws",
                    url: "https://shop.example/a.js".into(),
                    since: at(1_795_416_090),
                }],
            },
        }
    }

    #[test]
    fn a_fault_reads_like_a_compilers() {
        let check = |line, column, expected: &str| {
            let fault = Fault { file: "a.toml".into(), line, column, message: "bad".into() };
            assert_eq!(fault.to_string(), expected);
        };
        check(Some(3), Some(4), "a.toml:3:4: bad");
        check(None, None, "a.toml: bad");
    }

    #[test]
    fn the_json_form_has_its_times_as_text() {
        let json = serde_json::to_value(sample()).unwrap();
        assert_eq!(json["started"], "2026-11-23T06:40:15.000Z");
        assert_eq!(json["last_reload"]["errors"][0]["line"], 12);
        assert_eq!(json["store"]["policies"][1]["max_bytes"], serde_json::Value::Null);
        assert_eq!(json["listeners"][0]["certificates"][1]["expires"], "2027-01-15T08:00:00.000Z");
    }
}
