//! The only place where time is read.
//!
//! Everything that decides takes a [`Now`] as an argument, so that a test can say what time it is. Both readings are
//! taken together: the monotonic one measures durations (age, timeouts, back-off), the wall one is compared with what
//! other machines wrote (`Date`, `Expires`, certificate validity).

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Never goes back; durations are differences of this one.
    pub mono: Instant,
    /// What a `Date` field is compared with; may jump.
    pub wall: SystemTime,
}

impl Now {
    /// The same moment moved forward on both clocks.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self { mono: self.mono + by, wall: self.wall + by }
    }

    /// Time since `earlier` on the monotonic clock; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.mono.saturating_duration_since(earlier.mono)
    }

    /// Whole seconds since the Unix epoch; zero before it.
    #[must_use]
    pub fn unix_seconds(self) -> u64 {
        self.wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
    }
}

/// Where [`Now`] comes from: the machine, or a test's hand.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's clocks; a change of the wall clock is seen within a second. Cost of a reading: one vDSO call.
    System,
    /// Moves only when told to; clones share the same hand.
    Manual(Arc<Mutex<Now>>),
}

impl Clock {
    /// A clock that stands at the present until [`Clock::advance`] moves it.
    #[must_use]
    pub fn manual() -> Self {
        Self::Manual(Arc::new(Mutex::new(Self::System.now())))
    }

    /// One reading of both clocks.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that may read the clocks")]
    pub fn now(&self) -> Now {
        match self {
            Self::System => since_anchor(Instant::now()),
            Self::Manual(hand) => *hand.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        }
    }

    /// Moves a manual clock forward; the machine's clock is not ours to move, so there it does nothing.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(hand) = self {
            let mut now = hand.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *now = now.plus(by);
        }
    }
}

/// How long a thread goes by the monotonic clock alone before it reads the wall clock again.
const ANCHOR_AGE: Duration = Duration::from_secs(1);

thread_local! {
    /// The last reading of both clocks on this thread.
    static ANCHOR: Cell<Option<Now>> = const { Cell::new(None) };
}

/// Both clocks at `mono`, by the last reading of both while that is recent: exchanges read the time several times each, and
/// the wall clock is a second call with nothing new to say.
#[expect(clippy::disallowed_methods, reason = "the one place that may read the clocks")]
fn since_anchor(mono: Instant) -> Now {
    if let Some(anchor) = ANCHOR.get() {
        let passed = mono.saturating_duration_since(anchor.mono);
        if passed < ANCHOR_AGE {
            return anchor.plus(passed);
        }
    }
    let now = Now { mono, wall: SystemTime::now() };
    ANCHOR.set(Some(now));
    now
}

/// The machine's monotonic clock, for durations of what happens on sockets. Cost: one vDSO call.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that may read the clocks")]
pub fn instant() -> Instant {
    Instant::now()
}

/// The clock the runtime's timers run by: what a `Sleep` deadline is measured in. It is the machine's monotonic clock,
/// except under a test's paused time. Cost: one vDSO call.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that may read the clocks")]
pub fn timer_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
