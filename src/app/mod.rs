//! The composition root: builds the parts, wires them, follows signals and files, drains.
//!
//! The main thread starts everything and then supervises: it reads and publishes configurations, and it ends the
//! process. Exchanges run on the workers (one thread per core); probes, the admin listener and the demo origins on a
//! small runtime of their own, so that load cannot starve them and they cannot hold a worker.

pub mod demo;
mod listeners;
pub(crate) mod privileges;
mod reload;
mod start;
mod state_dir;
mod view;
mod workers;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::admin::Fault;
use crate::listener::Phase;
use crate::snapshot::watch::Watch;

use crate::clock::Clock;
use reload::Reloading;
pub use start::{Started, start};

/// How long the last log lines may take at exit.
const FLUSH: Duration = Duration::from_secs(1);

/// How often ticket keys are looked at for rotation.
const ROTATION: Duration = Duration::from_secs(600);

/// A request to reload now, and where the answer goes.
type ReloadRequest = oneshot::Sender<Result<u64, Vec<Fault>>>;

/// Runs the product until a signal ends it.
///
/// Exit code 0 after a stop that was asked for, 1 when the configuration is faulty or something could not be started;
/// what was wrong is on standard error.
#[must_use]
pub fn run(main: &Path) -> ExitCode {
    match start(main, Clock::System) {
        Ok(started) => {
            let Started { side, reloading, requests, log, announcement } = started;
            let clean = side.block_on(supervise(reloading, requests, &announcement));
            side.shutdown_timeout(FLUSH);
            let _lines_may_be_lost = log.flush(FLUSH);
            if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(words) => {
            #[expect(clippy::print_stderr, reason = "there is no log yet, or it is what failed")]
            {
                eprintln!("{words}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The signals of CONFIG's command line section.
struct Signals {
    hang_up: Signal,
    reopen: Signal,
    terminate: Signal,
    quit: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Finish what runs, within `server.shutdown_grace`.
    Graceful,
    /// Close everything.
    AtOnce,
}

/// Follows files, signals and the admin listener until told to stop; true when every thread ended well.
async fn supervise(mut reloading: Reloading, mut requests: mpsc::Receiver<ReloadRequest>, announcement: &str) -> bool {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "cannot listen for signals");
            return false;
        }
    };
    // Not before: whoever reads it may send a signal at once, and a HUP nobody listens for ends the process.
    #[expect(clippy::print_stderr, reason = "words for whoever started the process, whatever the log level")]
    {
        eprint!("{announcement}");
    }
    let mut watch = Watch::new();
    let mut rotation = tokio::time::interval(ROTATION);
    let stop = loop {
        watch.follow(reloading.watched());
        reloading.set_watch_mode(watch.mode());
        tokio::select! {
            () = watch.changed() => reloading.look().await,
            () = reloading.endpoints_changed() => reloading.follow_endpoints(),
            _ = signals.hang_up.recv() => { let _logged = reloading.reload().await; }
            Some(reply) = requests.recv() => {
                // The asker may have gone; the reload stands.
                let _gone = reply.send(reloading.reload().await);
            }
            _ = signals.reopen.recv() => reloading.reopen_logs(),
            _ = rotation.tick() => reloading.rotate_ticket_keys(),
            _ = signals.terminate.recv() => break Stop::Graceful,
            _ = signals.quit.recv() => break Stop::Graceful,
            _ = signals.interrupt.recv() => break Stop::AtOnce,
        }
    };
    drain(reloading, stop, &mut signals).await
}

/// Ends all workers: within the grace period, or at once when asked again.
async fn drain(reloading: Reloading, stop: Stop, signals: &mut Signals) -> bool {
    let grace = reloading.shutdown_grace();
    tracing::info!(?stop, ?grace, "stopping");
    reloading.set_phase(if stop == Stop::Graceful { Phase::Draining } else { Phase::Closing });
    let (workers, listeners, _lock, access_log) = reloading.into_rest();
    let mut ended = tokio::task::spawn_blocking(move || workers.join());
    let enough = async {
        tokio::select! {
            _ = signals.terminate.recv() => {}
            _ = signals.interrupt.recv() => {}
            () = tokio::time::sleep(grace) => tracing::warn!("the grace period is over; closing what is left"),
        }
    };
    let joined = tokio::select! {
        joined = &mut ended => joined,
        () = enough => {
            listeners.set_phase(Phase::Closing);
            ended.await
        }
    };
    let _lines_may_be_lost = access_log.flush(FLUSH);
    joined.unwrap_or(false)
}

/// A number to start a worker's random numbers from; differs between workers and runs.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0_u8)
}
