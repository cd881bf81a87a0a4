//! Waiting for an event with a bound, in place of sleeping and hoping.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tidegate::clock::Clock;

use super::PATIENCE;

/// Shut until the test opens it; clones are the same gate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Watched<bool>);

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn open(&self) {
        self.0.update(|open| *open = true);
    }

    /// False when nobody opened it in [`PATIENCE`]: the test that forgot it has failed by then.
    pub fn pass(&self) -> bool {
        self.0.wait(|open| open.then_some(())).is_some()
    }
}

/// A value that others change and a test waits for; clones share it.
#[derive(Debug, Default)]
pub struct Watched<T>(Arc<(Mutex<T>, Condvar)>);

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Watched<T> {
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
        result
    }

    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.0.0.lock().unwrap())
    }

    /// The first thing `found` returns; `None` when it found nothing in [`PATIENCE`].
    pub fn wait<R>(&self, mut found: impl FnMut(&T) -> Option<R>) -> Option<R> {
        let mut result = None;
        let guard = self.0.0.lock().unwrap();
        let _ = self.0.1.wait_timeout_while(guard, PATIENCE, |value| {
            result = found(value);
            result.is_none()
        });
        result
    }
}

/// The first thing `found` returns, asked again and again: for what announces itself to nobody, such as a number on a
/// status page. Prefer [`Watched::wait`].
///
/// # Panics
///
/// When it found nothing in [`PATIENCE`]; the message names `what`.
#[track_caller]
pub fn poll<R>(what: &str, mut found: impl FnMut() -> Option<R>) -> R {
    let began = Clock::System.now();
    loop {
        if let Some(result) = found() {
            return result;
        }
        assert!(Clock::System.now().since(began) < PATIENCE, "waited in vain for {what}");
        // Between two questions only; nothing depends on its length.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn a_gate_lets_through_whoever_waits_when_it_opens() {
    let gate = Gate::new();
    let waiter = std::thread::spawn({
        let gate = gate.clone();
        move || gate.pass()
    });
    gate.open();
    assert!(waiter.join().unwrap());
}

/// Waits until the wall clock shows another second, for what is dated in whole ones.
pub fn next_second() {
    let second = || Clock::System.now().unix_seconds();
    let before = second();
    poll("the next second", || (second() > before).then_some(()));
}
