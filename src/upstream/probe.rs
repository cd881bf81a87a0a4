//! Active health checks. Runs beside the workers, never on one.
//!
//! Each endpoint that is probed has a task. A reload hands the task its new parameters instead of replacing
//! it, so that the verdict and the count towards the next one go on, and so that an endpoint's health has one writer.
//!
//! A probe is a connection of its own over the pool's TLS, with a GET on it, a gRPC call, or nothing, bounded by
//! `health.timeout` from connect to the last byte. An endpoint that is sick or has just failed is probed each
//! `fast_interval`. Endpoints in state "down" are not probed. An endpoint that stops being probed counts as healthy.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, TE, USER_AGENT};
use http::{HeaderMap, HeaderName, Method};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::client::OutRequest;
use super::connect::{Opening, connect};
use super::endpoint::{Endpoint, ProbeRecord};
use super::http1::{Connection, RequestHead};
use super::http2::{self, Place};
use super::pool::{Pool, authority};
use crate::body::http1::{Decoded, Framing};
use crate::body::{Body, Interim};
use crate::clock::Clock;
use crate::error::ErrorKind;
use crate::policy::balance::AdminState;
use crate::policy::health::active::{ActiveHealth, Transition, first_delay, next_delay};
use crate::policy::health::{HealthParams, ProbeKind, grpc};
use bytes::Bytes;

/// Bytes of body a probe reads; an endpoint whose health page is larger is not what was meant.
const BODY_BYTES: usize = 64 * 1024;

/// What probes say they are.
const AGENT: &str = "tidegate-probe";

/// The tasks that watch the endpoints of the running generation. Dropping it ends them.
#[derive(Debug)]
pub struct Probes {
    runtime: Handle,
    watched: HashMap<u64, watch::Sender<Target>>,
}

/// What a task works on: replaced on reload.
#[derive(Debug, Clone)]
struct Target {
    pool: Arc<Pool>,
    index: usize,
    endpoint: Arc<Endpoint>,
}

impl Probes {
    /// Nothing is watched yet; tasks will run on `runtime`.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self { runtime, watched: HashMap::new() }
    }

    /// Watches exactly the endpoints of `pools` from now on.
    pub fn follow(&mut self, pools: &[Arc<Pool>]) {
        let mut before = std::mem::take(&mut self.watched);
        for pool in pools {
            for (index, endpoint) in pool.endpoints.iter().enumerate() {
                let target = Target { pool: Arc::clone(pool), index, endpoint: Arc::clone(endpoint) };
                let sender = match before.remove(&endpoint.id()) {
                    Some(sender) => {
                        sender.send_replace(target);
                        sender
                    }
                    None if pool.params.health.is_some() => self.watch(target),
                    None => {
                        // Whatever a probe found while there were some, nobody would take it back.
                        endpoint.set_healthy(true);
                        continue;
                    }
                };
                self.watched.insert(endpoint.id(), sender);
            }
        }
    }

    fn watch(&self, target: Target) -> watch::Sender<Target> {
        let (sender, targets) = watch::channel(target);
        self.runtime.spawn(watch_health(targets));
        sender
    }
}

impl Target {
    /// How to probe; `None` = not at all.
    fn health(&self) -> Option<&HealthParams> {
        let state = self.pool.params.endpoints.get(self.index).map(|endpoint| endpoint.state);
        self.pool.params.health.as_ref().filter(|_| state != Some(AdminState::Down))
    }
}

/// Probes the endpoint until it is gone.
async fn watch_health(mut targets: watch::Receiver<Target>) {
    let mut verdict = ActiveHealth::standing(targets.borrow().endpoint.healthy());
    let mut begun = false;
    loop {
        let target = targets.borrow_and_update().clone();
        let Some(params) = target.health() else {
            verdict = ActiveHealth::default();
            begun = false;
            target.endpoint.set_healthy(true);
            match targets.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        let interval = if verdict.is_settled() { params.interval } else { params.fast_interval };
        let delay = if begun { next_delay(interval, random()) } else { first_delay(interval, random()) };
        match pause(&mut targets, params, delay).await {
            Pause::Over => (),
            Pause::Replaced => continue,
            Pause::Gone => return,
        }
        begun = true;
        let target = targets.borrow_and_update().clone();
        if target.endpoint.overridden() == Some(AdminState::Down) {
            // It is not expected to answer. What it does when it is wanted again begins anew.
            verdict = ActiveHealth::default();
            target.endpoint.set_healthy(true);
        } else if let Some(params) = target.health() {
            let record = probe(&target.pool, target.index, params).await;
            judge(&target, params, &mut verdict, record);
        }
    }
}

/// How a pause ended.
enum Pause {
    /// The time has passed.
    Over,
    /// `health` has changed: what we waited for is no longer what is wanted.
    Replaced,
    /// The endpoint has left the configuration.
    Gone,
}

async fn pause(targets: &mut watch::Receiver<Target>, params: &HealthParams, delay: Duration) -> Pause {
    let replaced = async {
        loop {
            match targets.changed().await {
                Err(_) => return Pause::Gone,
                Ok(()) if targets.borrow_and_update().health() != Some(params) => return Pause::Replaced,
                Ok(()) => (),
            }
        }
    };
    tokio::time::timeout(delay, replaced).await.unwrap_or(Pause::Over)
}

/// Records an outcome, and publishes and logs what it changes.
fn judge(target: &Target, params: &HealthParams, verdict: &mut ActiveHealth, record: ProbeRecord) {
    let endpoint = &target.endpoint;
    let transition = verdict.observe(record.fault.is_none(), params);
    endpoint.set_healthy(verdict.is_healthy());
    let (pool, address) = (&target.pool.params.name, endpoint.address());
    match transition {
        Some(Transition::Rose) => tracing::info!(pool, endpoint = %address, "endpoint is healthy"),
        Some(Transition::Fell) => {
            let reason = record.fault.unwrap_or_default();
            tracing::warn!(pool, endpoint = %address, reason, status = record.status, "endpoint is unhealthy");
        }
        None => (),
    }
    endpoint.record_probe(record);
}

/// One probe, from connect to the last byte of the answer.
async fn probe(pool: &Pool, index: usize, params: &HealthParams) -> ProbeRecord {
    let started = Clock::System.now();
    let ask = async {
        let connected = connect(pool, index, params.timeout, Opening::default()).await?;
        match &params.kind {
            ProbeKind::Tcp => Ok((None, None)),
            ProbeKind::Grpc { service } if connected.http2 => {
                let head = call(pool, index, params.timeout)?;
                let told = http2::ask(connected.stream, head, grpc::question(service).into(), BODY_BYTES).await?;
                let status = told.head.status.as_u16();
                Ok((Some(status), grpc::fault(status, &told.head.headers, &told.body, &told.trailers)))
            }
            ProbeKind::Grpc { .. } => Err(ErrorKind::MalformedResponse("not_http2")),
            ProbeKind::Http { path, .. } => {
                let (status, body) = if connected.http2 {
                    let fields = HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static(AGENT))]);
                    let head = question(pool, index, (Method::GET, path, fields), params.timeout)?;
                    let told = http2::ask(connected.stream, head, Bytes::new(), BODY_BYTES).await?;
                    (told.head.status.as_u16(), told.body.to_vec())
                } else {
                    let mut http = Connection::new(connected.stream, None);
                    write(&mut http, pool, index, path)?;
                    read(&mut http).await?
                };
                Ok((Some(status), params.kind.fault(status, &body)))
            }
        }
    };
    let outcome = tokio::time::timeout(params.timeout, ask).await.unwrap_or(Err(ErrorKind::TotalTimeout));
    let at = Clock::System.now();
    let (status, fault) = outcome.unwrap_or_else(|kind| (None, Some(kind.row().reason)));
    ProbeRecord { at, took: at.since(started), status, fault }
}

/// A call of gRPC (gRPC over HTTP/2, "Requests").
fn call(pool: &Pool, index: usize, limit: Duration) -> Result<http::Request<()>, ErrorKind> {
    let within = HeaderValue::try_from(format!("{}m", limit.as_millis()));
    let fields = HeaderMap::from_iter([
        (USER_AGENT, HeaderValue::from_static(AGENT)),
        (CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
        (TE, HeaderValue::from_static("trailers")),
        (HeaderName::from_static("grpc-timeout"), within.map_err(|_| ErrorKind::Internal("health_timeout_unusable"))?),
    ]);
    question(pool, index, (Method::POST, grpc::PATH, fields), limit)
}

/// A question as HTTP/2 has it.
fn question(
    pool: &Pool,
    index: usize,
    (method, path, headers): (Method, &str, HeaderMap),
    limit: Duration,
) -> Result<http::Request<()>, ErrorKind> {
    let endpoint = pool.endpoints.get(index).ok_or(ErrorKind::NoEndpoint)?;
    let request = OutRequest {
        method,
        target: Bytes::copy_from_slice(path.as_bytes()),
        headers,
        body: Body::Empty,
        interim: Interim::default(),
        upgrade: false,
        websocket_key: None,
        client: None,
        timeouts: None,
    };
    http2::head(&request, Place { pool, index, endpoint, limit, tunnel: false, again: false }, None)
}

/// Puts the question into the outbox.
fn write(http: &mut Connection, pool: &Pool, index: usize, path: &str) -> Result<(), ErrorKind> {
    let own = pool.endpoints.get(index).map(|endpoint| authority(endpoint.address())).unwrap_or_default();
    let host = pool.host(index).cloned().or_else(|| HeaderValue::try_from(own).ok());
    let headers = HeaderMap::from_iter([
        (USER_AGENT, HeaderValue::from_static(AGENT)),
        (CONNECTION, HeaderValue::from_static("close")),
    ]);
    let unusable = ErrorKind::Internal("health_path_unusable");
    let head = RequestHead {
        method: &Method::GET,
        target: path.as_bytes(),
        host: host.as_ref().ok_or(unusable)?,
        headers: &headers,
        framing: Framing::Empty,
    };
    if !head.is_writable() {
        return Err(unusable);
    }
    http.outbox.compose(|to| head.write(to));
    Ok(())
}

/// Sends the question and reads the answer to its end: status and body.
async fn read(http: &mut Connection) -> Result<(u16, Vec<u8>), ErrorKind> {
    let head = std::future::poll_fn(|cx| {
        http.poll_write(cx);
        http.poll_head(cx, drop)
    });
    let head = head.await?;
    let mut body = head.body(false);
    let mut read = Vec::new();
    while !body.is_done() {
        match std::future::poll_fn(|cx| http.poll_body(cx, &mut body)).await? {
            Decoded::Data(piece) => read.extend_from_slice(&piece),
            Decoded::Need | Decoded::Trailers(_) | Decoded::End => break,
        }
        if read.len() > BODY_BYTES {
            return Err(ErrorKind::MalformedResponse("health_page_large"));
        }
    }
    Ok((head.status.as_u16(), read))
}

/// A number to spread probes by; quality does not matter, being different in every process does.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}
