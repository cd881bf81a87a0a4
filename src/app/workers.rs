//! One thread per core, each with its own runtime, listeners and upstream connections; no work moves between them.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::listeners::Assignment;
use crate::body::{Peer, Request, Response, Sent};
use crate::error::ProxyError;
use crate::listener::{self, Gate, Handler};
use crate::observe::Metrics;
use crate::pipeline::{self, Record, Shared, Worker};

/// How often a worker closes idle upstream connections that timed out or died.
const SWEEP: Duration = Duration::from_secs(1);

/// The threads and the way to reach them.
pub(super) struct Workers {
    workers: Vec<Handle>,
}

/// One thread as the others see it.
struct Handle {
    thread: JoinHandle<()>,
    assignments: mpsc::UnboundedSender<Assignment>,
    generation: Arc<AtomicU64>,
}

/// What every worker is started with.
#[derive(Clone)]
pub(super) struct Equipment {
    pub(super) shared: Arc<Shared>,
    pub(super) gate: Arc<Gate>,
    pub(super) metrics: Arc<Metrics>,
}

impl Workers {
    /// Starts `count` threads that wait for listeners.
    ///
    /// # Errors
    /// What the system said when a thread or runtime could not be made.
    pub(super) fn start(count: usize, equipment: &Equipment) -> io::Result<Self> {
        let workers = (0..count).map(|number| start_one(number, equipment.clone())).collect::<io::Result<_>>()?;
        Ok(Self { workers })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.workers.len()
    }

    /// Hands each worker its own socket of a listener; `sockets` holds one per worker.
    pub(super) fn assign(&self, assignments: impl Iterator<Item = Assignment>) {
        for (worker, assignment) in self.workers.iter().zip(assignments) {
            // A worker that is gone has panicked; the process reports that when it joins the thread.
            let _gone = worker.assignments.send(assignment);
        }
    }

    /// The generation each worker last followed.
    pub(super) fn generations(&self) -> Vec<Arc<AtomicU64>> {
        self.workers.iter().map(|worker| Arc::clone(&worker.generation)).collect()
    }

    /// Waits for all threads; they end once their listeners have drained. True when none panicked.
    pub(super) fn join(self) -> bool {
        let threads: Vec<_> = self.workers.into_iter().map(|worker| worker.thread).collect();
        threads.into_iter().all(|thread| thread.join().is_ok())
    }
}

fn start_one(number: usize, equipment: Equipment) -> io::Result<Handle> {
    // Unbounded, but only a reload sends here: one message per added listener.
    let (assignments, inbox) = mpsc::unbounded_channel();
    let generation = Arc::new(AtomicU64::new(0));
    let followed = Arc::clone(&generation);
    let thread =
        std::thread::Builder::new().name(format!("worker-{number}")).spawn(
            move || match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => runtime.block_on(work(equipment, &followed, inbox)),
                Err(error) => tracing::error!(%error, worker = number, "cannot start the worker's runtime"),
            },
        )?;
    Ok(Handle { thread, assignments, generation })
}

/// A worker's life: serve what it is assigned, follow the snapshot, sweep idle connections; ends when `inbox` is
/// closed and all its listeners have drained.
async fn work(equipment: Equipment, generation: &AtomicU64, mut inbox: mpsc::UnboundedReceiver<Assignment>) {
    let Equipment { shared, gate, metrics } = equipment;
    let mut published = shared.current.subscribe();
    let worker = Rc::new(Worker::new(shared, metrics.worker(), super::random_seed()));
    let mut serving = JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP);
    follow(&worker, generation);
    loop {
        tokio::select! {
            assignment = inbox.recv() => match assignment {
                Some(assignment) => {
                    serving.spawn_local(serve(Rc::clone(&worker), Arc::clone(&gate), assignment));
                }
                None => break,
            },
            Ok(()) = published.changed() => follow(&worker, generation),
            _ = sweep.tick() => worker.sweep(),
            Some(_) = serving.join_next(), if !serving.is_empty() => {}
        }
    }
    while serving.join_next().await.is_some() {}
}

/// Takes up the published snapshot, and lets go of connections to endpoints it no longer has.
fn follow(worker: &Worker, generation: &AtomicU64) {
    let snapshot = worker.snapshot();
    worker.follow(&snapshot);
    generation.store(snapshot.generation, Ordering::Relaxed);
}

async fn serve(worker: Rc<Worker>, gate: Arc<Gate>, assignment: Assignment) {
    let Assignment { key, socket, phase } = assignment;
    let clock = worker.shared.clock.clone();
    let lookup = Rc::clone(&worker);
    let settings = move || {
        let snapshot = lookup.snapshot();
        snapshot.listeners.iter().find(|listener| key.names(listener)).map(|listener| Arc::clone(&listener.settings))
    };
    if let Err(error) = listener::serve(socket, settings, Exchanges(worker), gate, phase, clock).await {
        tracing::error!(%error, "a listener failed");
    }
}

/// Connects the drivers with the pipeline, which do not know each other.
#[derive(Clone)]
struct Exchanges(Rc<Worker>);

impl Handler for Exchanges {
    type Record = Record;

    fn handle(&self, peer: Rc<Peer>, request: Request) -> impl Future<Output = (Response, Record)> + 'static {
        pipeline::handle(Rc::clone(&self.0), peer, request)
    }

    fn refuse(&self, peer: &Rc<Peer>, error: ProxyError) -> (Response, Record) {
        pipeline::refuse(&self.0, peer, error)
    }

    fn sent(&self, record: Record, sent: Sent) {
        record.sent(sent);
    }
}
