//! From a configuration file to a running process.
//!
//! The order matters: configuration (with all the files it names), state directory and lock, sockets, then the ordinary
//! user, and only then threads, which inherit the user.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use super::listeners::{BindFault, Bound, Listeners};
use super::reload::{Ledger, Reloading, access_log_fault};
use super::state_dir::StateDir;
use super::view::Overview;
use super::workers::{Equipment, Workers};
use super::{ReloadRequest, demo, privileges, random_seed};
use crate::admin;
use crate::clock::Clock;
use crate::config::model::Config;
use crate::listener::Gate;
use crate::listener::tls::{TicketKeys, is_valid_at, self_signed};
use crate::observe::{AccessLog, Metrics, ProcessLog};
use crate::pipeline::{Shared, Workshop};
use crate::policy::fields::Identity;
use crate::policy::pool::Address;
use crate::snapshot::build::{self, Parts};
use crate::snapshot::endpoint_files::EndpointFiles;
use crate::snapshot::reload::Reader;
use crate::snapshot::{Current, Snapshot};
use crate::store::{Purger, Store};
use crate::upstream::{Discovery, Farm, Probes};

/// How often the store does its pending work.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// How many callers of `POST /reload` may wait.
const RELOAD_QUEUE: usize = 16;

/// A process that serves, until this is dropped; signals and files are followed by `supervise` only.
pub struct Started {
    /// Probes, admin, demo origins; `supervise` runs on it too.
    pub(super) side: Runtime,
    /// Everything a reload touches.
    pub(super) reloading: Reloading,
    /// Reloads asked for by the admin listener.
    pub(super) requests: mpsc::Receiver<ReloadRequest>,
    /// The process's own messages.
    pub(super) log: Arc<ProcessLog>,
    /// Where the process listens, for whoever started it: said once signals are heeded.
    pub(super) announcement: String,
}

impl Started {
    /// Where the listener `name` really listens: a configured port may be 0. `None` when there is no such listener.
    #[must_use]
    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        let snapshot = self.reloading.current.load();
        let listener = snapshot.listeners.iter().find(|listener| *listener.settings.name == *name)?;
        self.reloading.listeners.bound().of(listener)
    }
}

/// Starts everything. `clock` is what exchanges, freshness and certificates go by; a test may keep its hand on it. Timeouts
/// and probes run by the machine's whatever it is.
///
/// # Errors
/// Words for the operator: every fault of the configuration, or what could not be started.
pub fn start(main: &Path, clock: Clock) -> Result<Started, String> {
    let mut reader = Reader::new(main);
    let read = reader.read();
    let config = read.config.map_err(|faults| format!("{faults}{} is not served", main.display()))?;
    let state = open_state(&config.server.state_dir)?;
    let count = config.server.workers.unwrap_or_else(cores);
    let mut listeners = Listeners::default();
    let prepared = listeners.prepare(&config, count).map_err(|faults| bind_faults(&faults))?;
    if let Some(user) = &config.server.user {
        become_user(&user.name, &state)?;
    }

    let log = Arc::new(ProcessLog::start(&config.log.level).map_err(words("cannot start the process log"))?);
    for warning in read.warnings.iter() {
        tracing::warn!("{warning}");
    }
    raise_descriptors();
    let store = Store::new(config.store.size);
    let parts = Parts {
        store: store.clone(),
        tickets: load_tickets(&state, &clock)?,
        farm: Arc::new(Farm::new(&load_session_key(&state)?)),
        findings: Arc::default(),
        self_signed: Box::new({
            let (state, clock) = (Arc::clone(&state), clock.clone());
            move |names| kept_self_signed(&state, names, &clock)
        }),
    };
    parts.farm.set_max_misses(config.server.max_misses);
    let side = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("side")
        .enable_all()
        .build()
        .map_err(words("cannot start the side runtime"))?;
    let mut discovery = Discovery::new(side.handle().clone(), Arc::clone(&parts.findings));
    let mut endpoint_files = EndpointFiles::default();
    side.block_on(discovery.introduce(config.pools.iter().map(|pool| &pool.params)));
    endpoint_files.read(config.pools.iter().map(|pool| &pool.params), &parts.findings);
    let snapshot = build::build(Arc::clone(&config), None, &parts, &clock).map_err(|faults| faults.to_string())?;
    let snapshot = Arc::new(snapshot);
    for warning in &snapshot.warnings {
        tracing::warn!("{warning}");
    }

    let access_log = AccessLog::off();
    access_log.configure(snapshot.access_log.clone()).map_err(|error| access_log_fault(&config, &error).to_string())?;
    let current = Arc::new(Current::new(Arc::clone(&snapshot)));
    let gate = Gate::new(config.server.max_connections);
    let metrics = Metrics::new();
    let purger = Purger::new(store.clone(), side.handle().clone());
    let workshop = Workshop::open(store.clone(), clock.clone()).map_err(words("cannot start the workshop"))?;
    let shared = Arc::new(Shared {
        current: Arc::clone(&current),
        store: store.clone(),
        purger: purger.clone(),
        workshop: workshop.clone(),
        access_log: access_log.clone(),
        identity: Identity::new(random_seed()),
        clock: clock.clone(),
    });
    let workers = Workers::start(count, &Equipment { shared, gate: Arc::clone(&gate), metrics: Arc::clone(&metrics) })
        .map_err(words("cannot start the workers"))?;
    let ledger = Arc::new(Ledger::new(&clock));
    let mut probes = Probes::new(side.handle().clone());
    if let Some(demo) = &config.demo {
        side.block_on(demo::start(demo.origins, demo.port)).map_err(|error| {
            let last = usize::from(demo.port) + demo.origins - 1;
            format!("cannot start the demo origins on 127.0.0.1:{} to {last}: {error} (see demo.port)", demo.port)
        })?;
    }
    probes.follow(&snapshot.pools);
    discovery.follow(&snapshot.pools);
    for assignments in listeners.apply(prepared, &snapshot) {
        workers.assign(assignments.into_iter());
    }
    side.spawn(housekeep(store.clone()));

    let (ask, requests) = mpsc::channel(RELOAD_QUEUE);
    let admin_socket = side
        .block_on(admin::bind(&config.admin.address))
        .map_err(|error| format!("cannot bind the admin listener on {}: {error}", config.admin.address))?;
    let announcement = announcement(&config, &snapshot, listeners.bound(), admin_socket.address());
    let view = Overview {
        current: Arc::clone(&current),
        store,
        purger,
        workshop,
        access_log: access_log.clone(),
        gate: Arc::clone(&gate),
        metrics,
        findings: Arc::clone(&parts.findings),
        generations: workers.generations(),
        bound: Arc::clone(listeners.bound()),
        ledger: Arc::clone(&ledger),
        ask,
        clock: clock.clone(),
    };
    side.spawn(admin::serve(admin_socket, Arc::new(view)));
    let reloading = Reloading {
        reader,
        parts,
        current,
        listeners,
        workers,
        probes,
        discovery,
        endpoint_files,
        gate,
        ledger,
        state,
        access_log,
        process_log: Arc::clone(&log),
        clock,
    };
    Ok(Started { side, reloading, requests, log, announcement })
}

fn bind_faults(faults: &[BindFault]) -> String {
    let line = |fault: &BindFault| format!("listener \"{}\": {}: {}", fault.listener, fault.address, fault.error);
    faults.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Puts what was being done before what went wrong.
fn words<E: std::fmt::Display>(doing: &'static str) -> impl FnOnce(E) -> String {
    move |error| format!("{doing}: {error}")
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn open_state(path: &Path) -> Result<Arc<StateDir>, String> {
    StateDir::open(path).map(Arc::new).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => {
            format!("state_dir {} is in use by another instance", path.display())
        }
        _ => format!("state_dir {}: {error}", path.display()),
    })
}

/// The file in `state_dir` that keeps ticket keys over a restart.
pub(super) const TICKET_FILE: &str = "ticket-keys";

/// The kept ticket keys, or fresh ones: without them clients only lose a resumption.
fn load_tickets(state: &StateDir, clock: &Clock) -> Result<Arc<TicketKeys>, String> {
    let kept = state.read(TICKET_FILE).ok().flatten().and_then(|bytes| TicketKeys::import(&bytes, clock.now()));
    if let Some(kept) = kept {
        return Ok(kept);
    }
    let fresh = TicketKeys::generate(clock.now()).map_err(words("no ticket keys"))?;
    state.write(TICKET_FILE, &fresh.export()).map_err(words("cannot keep ticket keys in state_dir"))?;
    Ok(fresh)
}

/// The file in `state_dir` that keeps the secret of sticky cookies over a restart.
const SESSION_FILE: &str = "session-key";

/// The kept secret, or a fresh one: without it clients only lose their place.
fn load_session_key(state: &StateDir) -> Result<Vec<u8>, String> {
    if let Some(kept) = state.read(SESSION_FILE).ok().flatten().filter(|kept| kept.len() == SESSION_KEY_BYTES) {
        return Ok(kept);
    }
    let mut fresh = vec![0; SESSION_KEY_BYTES];
    aws_lc_rs::rand::fill(&mut fresh).map_err(words("no secret for sticky cookies"))?;
    state.write(SESSION_FILE, &fresh).map_err(words("cannot keep the secret of sticky cookies in state_dir"))?;
    Ok(fresh)
}

/// Bytes of that secret: what HMAC-SHA256 makes full use of.
const SESSION_KEY_BYTES: usize = 32;

/// The self-signed certificate for `names` that `state_dir` keeps, made on first use and again before it expires.
fn kept_self_signed(state: &StateDir, names: &[String], clock: &Clock) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
    let stem =
        format!("self-signed-{}", names.join("_").replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "_"));
    let (cert, key) = (format!("{stem}.pem"), format!("{stem}.key"));
    if let (Some(chain), Some(secret)) = (state.read(&cert)?, state.read(&key)?)
        && is_valid_at(&chain, clock.now())
    {
        return Ok((chain, secret));
    }
    let (chain, secret) = self_signed(names, clock.now()).map_err(std::io::Error::other)?;
    state.write(&key, secret.as_bytes())?;
    state.write(&cert, chain.as_bytes())?;
    Ok((chain.into_bytes(), secret.into_bytes()))
}

fn become_user(name: &str, state: &StateDir) -> Result<(), String> {
    if !privileges::is_root() {
        tracing::info!(user = name, "server.user is ignored: the process was not started as root");
        return Ok(());
    }
    let passwd = std::fs::read_to_string("/etc/passwd").map_err(words("cannot read /etc/passwd"))?;
    let user = privileges::find(&passwd, name).ok_or_else(|| format!("server.user: there is no user \"{name}\""))?;
    state.give_to(user.uid, user.gid).map_err(words("cannot hand over state_dir"))?;
    privileges::become_user(user).map_err(words("cannot change the user"))
}

/// Raises the bound on open descriptors to what the system allows this process: each connection needs one or two, and the
/// usual bound of 1024 is kept for programs that use `select`. Children are not started, so nobody inherits it.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "cannot raise the bound on open descriptors");
    }
}

/// Lets the store evict and account, so that no exchange has to.
async fn housekeep(store: Store) {
    let mut tick = tokio::time::interval(HOUSEKEEPING);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = store.due() => {}
        }
        store.housekeep();
    }
}

/// Where the process listens and, with the demo running, what is worth trying.
fn announcement(config: &Config, snapshot: &Snapshot, bound: &Bound, admin: &Address) -> String {
    let mut text = String::new();
    let mut examples = Vec::new();
    for listener in &snapshot.listeners {
        let Some(address) = bound.of(listener) else { continue };
        let scheme = if listener.settings.tls.is_some() { "https" } else { "http" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "listening on {scheme}://{address} (listener \"{}\")", listener.settings.name);
        examples.push(format!("{scheme}://{address}"));
    }
    let (admin, ask_admin) = match admin {
        Address::Unix(path) => (admin.to_string(), format!("--unix-socket {} 'http://admin", path.display())),
        tcp => (format!("http://{tcp}"), format!("'http://{tcp}")),
    };
    let _ = writeln!(text, "admin on {admin}");
    if config.demo.is_some() {
        let https = examples.iter().find(|url| url.starts_with("https")).or(examples.first());
        let base = https.map_or("http://127.0.0.1:8080", String::as_str);
        let _ = writeln!(
            text,
            "\ntry:\n  curl -ki {base}/\n  curl -sk --compressed -o /dev/null -w 'HTTP/%{{http_version}}, %{{size_download}} bytes\\n' {base}/tide-tables.txt\n  curl -s {ask_admin}/status?format=text'"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_of_sessions_is_kept() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = StateDir::open(&folder.path().join("state")).expect("nobody else");
        let first = load_session_key(&state).expect("made");
        assert!(first.len() == SESSION_KEY_BYTES && first.iter().any(|byte| *byte != 0));
        assert_eq!(load_session_key(&state).expect("kept"), first);
        state.write(SESSION_FILE, b"damaged").expect("written");
        let second = load_session_key(&state).expect("made anew");
        assert!(second.len() == SESSION_KEY_BYTES && second != first);
    }
}
