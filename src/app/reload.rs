//! From a changed file to a published snapshot: everything or nothing.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::listeners::Listeners;
use super::start::TICKET_FILE;
use super::state_dir::StateDir;
use super::workers::Workers;
use crate::admin::Fault;
use crate::admin::status::Reload;
use crate::clock::Clock;
use crate::config::{Config, Diagnostic, Diagnostics};
use crate::listener::{Gate, Phase};
use crate::observe::{AccessLog, ProcessLog};
use crate::snapshot::build::{self, Parts};
use crate::snapshot::endpoint_files::EndpointFiles;
use crate::snapshot::reload::Reader;
use crate::snapshot::watch::Mode;
use crate::snapshot::{Current, Snapshot};
use crate::upstream::{Discovery, Probes};

/// What the admin listener tells about reloads; written by the supervisor, read by anybody.
#[derive(Debug)]
pub(super) struct Ledger(Mutex<LedgerState>);

/// See [`Ledger`].
#[derive(Debug, Clone)]
pub(super) struct LedgerState {
    /// When the process started.
    pub(super) started: SystemTime,
    /// How file changes are noticed.
    pub(super) watch: &'static str,
    /// Stopping.
    pub(super) draining: bool,
    /// The last reload that was tried.
    pub(super) last: Option<Reload>,
    /// Reloads that were published.
    pub(super) succeeded: u64,
    /// Reloads that were refused.
    pub(super) failed: u64,
}

impl Ledger {
    pub(super) fn new(clock: &Clock) -> Self {
        Self(Mutex::new(LedgerState {
            started: clock.now().wall,
            watch: Mode::Inotify.as_str(),
            draining: false,
            last: None,
            succeeded: 0,
            failed: 0,
        }))
    }

    /// A copy of what stands there now.
    pub(super) fn read(&self) -> LedgerState {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, LedgerState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything a reload touches.
pub(super) struct Reloading {
    pub(super) reader: Reader,
    pub(super) parts: Parts,
    pub(super) current: Arc<Current>,
    pub(super) listeners: Listeners,
    pub(super) workers: Workers,
    pub(super) probes: Probes,
    pub(super) discovery: Discovery,
    pub(super) endpoint_files: EndpointFiles,
    pub(super) gate: Arc<Gate>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) state: Arc<StateDir>,
    pub(super) access_log: AccessLog,
    pub(super) process_log: Arc<ProcessLog>,
    pub(super) clock: Clock,
}

impl Reloading {
    /// What to watch.
    pub(super) fn watched(&self) -> impl Iterator<Item = &Path> {
        self.reader.watched()
    }

    /// Notes how changes are noticed.
    pub(super) fn set_watch_mode(&self, mode: Mode) {
        self.ledger.lock().watch = mode.as_str();
    }

    /// Reloads if any file has changed since the last reading; files of endpoints are read in any case.
    pub(super) async fn look(&mut self) {
        let read = self.reader.read();
        if read.changed {
            let _logged = self.take_up(read).await;
        } else {
            let snapshot = self.current.load();
            self.endpoint_files.read(snapshot.pools.iter().map(|pool| &pool.params), &self.parts.findings);
        }
    }

    /// Reloads, changed or not. Returns the generation in force, or every fault.
    pub(super) async fn reload(&mut self) -> Result<u64, Vec<Fault>> {
        let read = self.reader.read();
        self.take_up(read).await
    }

    /// Until other endpoints are known than before.
    pub(super) async fn endpoints_changed(&self) {
        self.parts.findings.changed().await;
    }

    /// Publishes a snapshot with the endpoints that are known now, where they are others.
    pub(super) fn follow_endpoints(&mut self) {
        if let Some(next) = self.current.load().with_endpoints(&self.parts.findings) {
            let next = Arc::new(next);
            self.current.publish(Arc::clone(&next));
            self.probes.follow(&next.pools);
            self.discovery.follow(&next.pools);
        }
    }

    async fn take_up(&mut self, read: crate::snapshot::reload::Read) -> Result<u64, Vec<Fault>> {
        for warning in read.warnings.iter() {
            tracing::warn!("{warning}");
        }
        let known = (self.parts.findings.remember(), self.endpoint_files.clone());
        if let Ok(config) = &read.config {
            self.discovery.introduce(config.pools.iter().map(|pool| &pool.params)).await;
            self.endpoint_files.read(config.pools.iter().map(|pool| &pool.params), &self.parts.findings);
        }
        let published = read.config.and_then(|config| {
            let previous = self.current.load();
            let next = build::build(config, Some(&previous), &self.parts, &self.clock)?;
            for warning in &next.warnings {
                tracing::warn!("{warning}");
            }
            self.publish(&previous, &Arc::new(next))
        });
        if published.is_err() {
            // What it asked for is not to show in the running one.
            self.parts.findings.go_back_to(known.0);
            self.endpoint_files = known.1;
        }
        let mut ledger = self.ledger.lock();
        let (ok, faults) = match &published {
            Ok(generation) => {
                ledger.succeeded += 1;
                tracing::info!(generation, "configuration published");
                (true, Vec::new())
            }
            Err(faults) => {
                ledger.failed += 1;
                tracing::error!("configuration refused, the running one goes on:\n{faults}");
                (false, faults.iter().map(fault).collect::<Vec<_>>())
            }
        };
        ledger.last = Some(Reload { ok, at: self.clock.now().wall, errors: faults.clone() });
        published.map_err(|_| faults)
    }

    /// Binds what is new, then swaps.
    fn publish(&mut self, previous: &Snapshot, next: &Arc<Snapshot>) -> Result<u64, Diagnostics> {
        let prepared = self.listeners.prepare(&next.config, self.workers.count()).map_err(|faults| {
            let mut diagnostics = Diagnostics::default();
            for fault in faults {
                let listener = next.config.listeners.iter().find(|listener| *listener.name == *fault.listener);
                let message =
                    format!("listener \"{}\": cannot bind {}: {}", fault.listener, fault.address, fault.error);
                if let Some(listener) = listener {
                    diagnostics.push(Diagnostic::at(&listener.at, message, "is another process listening there?"));
                }
            }
            diagnostics
        })?;
        if let Err(error) = self.access_log.configure(next.access_log.clone()) {
            return Err(access_log_fault(&next.config, &error));
        }
        self.adjust(previous, next);
        self.current.publish(Arc::clone(next));
        for assignments in self.listeners.apply(prepared, next) {
            self.workers.assign(assignments.into_iter());
        }
        self.probes.follow(&next.pools);
        self.discovery.follow(&next.pools);
        Ok(next.generation)
    }

    /// What lives beside the snapshot.
    fn adjust(&self, previous: &Snapshot, next: &Snapshot) {
        self.gate.set_limit(next.config.server.max_connections);
        self.parts.store.resize(next.config.store.size);
        self.parts.farm.set_max_misses(next.config.server.max_misses);
        self.process_log.set_level(&next.config.log.level);
        let (before, after) = (&previous.config.server, &next.config.server);
        if before.workers != after.workers || before.user != after.user || before.state_dir != after.state_dir {
            tracing::warn!("server.workers, server.user and server.state_dir take effect at the next start");
        }
        if previous.config.admin.address != next.config.admin.address || previous.config.demo != next.config.demo {
            tracing::warn!("admin.address and [demo] take effect at the next start");
        }
    }

    /// Opens log files anew, after a rotation moved them.
    pub(super) fn reopen_logs(&self) {
        self.access_log.reopen();
    }

    /// Makes new ticket keys when it is time, and keeps them over a restart.
    pub(super) fn rotate_ticket_keys(&self) {
        if self.parts.tickets.rotate(self.clock.now())
            && let Err(error) = self.state.write(TICKET_FILE, &self.parts.tickets.export())
        {
            tracing::warn!(%error, "ticket keys are not kept over a restart");
        }
    }

    /// `server.shutdown_grace`
    pub(super) fn shutdown_grace(&self) -> Duration {
        self.current.load().config.server.shutdown_grace
    }

    /// Tells every listener, and the admin listener when it is the end.
    pub(super) fn set_phase(&self, phase: Phase) {
        self.ledger.lock().draining = phase != Phase::Running;
        self.listeners.set_phase(phase);
    }

    /// What is needed to the end: threads to wait for, whom to tell, the lock that keeps others out, the log to flush.
    pub(super) fn into_rest(self) -> (Workers, Listeners, Arc<StateDir>, AccessLog) {
        (self.workers, self.listeners, self.state, self.access_log)
    }
}

/// The access log's file cannot be opened.
pub(super) fn access_log_fault(config: &Config, error: &std::io::Error) -> Diagnostics {
    let mut diagnostics = Diagnostics::default();
    if let Some(access) = &config.log.access {
        diagnostics.push(Diagnostic::at(&access.at, format!("log.access.to: {error}"), ""));
    }
    diagnostics
}

fn fault(diagnostic: &Diagnostic) -> Fault {
    let place = diagnostic.at.line_column();
    Fault {
        file: diagnostic.at.path().display().to_string(),
        line: place.map(|(line, _)| line),
        column: place.map(|(_, column)| column),
        message: diagnostic.message.clone(),
    }
}
