//! Which addresses are bound: the difference between two snapshots, applied to sockets.
//!
//! A listener that stays is not touched: its sockets, its queue of waiting connections and its open connections do not
//! notice a reload. New sockets are bound *before* a snapshot is published, so that a refused address refuses the whole
//! reload.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::config::Config;
use crate::listener::{self, Phase};
use crate::snapshot::{Listener, Snapshot};

/// What tells one listener from another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    name: Arc<str>,
    address: SocketAddr,
}

impl Key {
    fn of(listener: &Listener) -> Self {
        Self { name: Arc::clone(&listener.settings.name), address: listener.address }
    }

    /// True when this is the key of `listener`.
    pub(super) fn names(&self, listener: &Listener) -> bool {
        self.address == listener.address && self.name == listener.settings.name
    }
}

/// One worker's socket of one listener.
#[derive(Debug)]
pub(super) struct Assignment {
    /// Finds the listener's settings in the running snapshot.
    pub(super) key: Key,
    /// Bound and listening.
    pub(super) socket: TcpListener,
    /// When to stop.
    pub(super) phase: watch::Receiver<Phase>,
}

/// The listeners that are open.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    open: BTreeMap<Key, watch::Sender<Phase>>,
    bound: Arc<Bound>,
}

/// Where listeners really listen: a configured port may be 0. Written on reload, read by the admin listener.
#[derive(Debug, Default)]
pub(super) struct Bound(Mutex<BTreeMap<Key, SocketAddr>>);

impl Bound {
    /// The address of a listener that is open.
    pub(super) fn of(&self, listener: &Listener) -> Option<SocketAddr> {
        self.lock().get(&Key::of(listener)).copied()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, SocketAddr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sockets bound for a snapshot that is not published yet: one per worker for every new listener.
#[derive(Debug)]
pub(super) struct Prepared(Vec<(Key, Vec<TcpListener>)>);

/// A listener whose address could not be bound.
#[derive(Debug)]
pub(super) struct BindFault {
    /// Its name.
    pub(super) listener: Arc<str>,
    /// Its address.
    pub(super) address: SocketAddr,
    /// What the system said.
    pub(super) error: io::Error,
}

impl Listeners {
    /// Binds what `config` has and we have not, `workers` sockets each.
    pub(super) fn prepare(&self, config: &Config, workers: usize) -> Result<Prepared, Vec<BindFault>> {
        let (mut prepared, mut faults) = (Vec::new(), Vec::new());
        for listener in &config.listeners {
            let key = Key { name: listener.name.as_str().into(), address: listener.address };
            if self.open.contains_key(&key) {
                continue;
            }
            match bind_all(listener.address, workers) {
                Ok(sockets) => prepared.push((key, sockets)),
                Err(error) => faults.push(BindFault { listener: key.name, address: key.address, error }),
            }
        }
        if faults.is_empty() { Ok(Prepared(prepared)) } else { Err(faults) }
    }

    /// Opens what was prepared and drains what `snapshot` no longer has. Returns each new listener's sockets.
    pub(super) fn apply(&mut self, prepared: Prepared, snapshot: &Snapshot) -> Vec<Vec<Assignment>> {
        let stays = |key: &Key| snapshot.listeners.iter().any(|listener| key.names(listener));
        self.bound.lock().retain(|key, _| stays(key));
        self.open.retain(|key, phase| {
            let stays = stays(key);
            if !stays {
                phase.send_replace(Phase::Draining);
            }
            stays
        });
        prepared.0.into_iter().map(|(key, sockets)| self.open_one(&key, sockets)).collect()
    }

    fn open_one(&mut self, key: &Key, sockets: Vec<TcpListener>) -> Vec<Assignment> {
        let (sender, phase) = watch::channel(Phase::Running);
        if let Some(Ok(address)) = sockets.first().map(TcpListener::local_addr) {
            self.bound.lock().insert(key.clone(), address);
        }
        self.open.insert(key.clone(), sender);
        sockets.into_iter().map(|socket| Assignment { key: key.clone(), socket, phase: phase.clone() }).collect()
    }

    /// Where listeners really listen.
    pub(super) fn bound(&self) -> &Arc<Bound> {
        &self.bound
    }

    /// Tells every listener.
    pub(super) fn set_phase(&self, phase: Phase) {
        for sender in self.open.values() {
            sender.send_replace(phase);
        }
    }
}

/// `count` sockets on one address. The first is tried without `SO_REUSEPORT`, which would let a second instance of this
/// program in silently.
fn bind_all(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    if address.port() != 0 {
        drop(TcpListener::bind(address)?);
    }
    let first = listener::bind(address)?;
    let bound = first.local_addr()?;
    let rest = (1..count).map(|_| listener::bind(bound));
    std::iter::once(Ok(first)).chain(rest).collect()
}
