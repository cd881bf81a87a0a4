//! Moments as numbers, so that they fit into atomics: milliseconds since the first look at this clock.

use std::sync::LazyLock;
use std::time::Instant;

use super::connect::now;

static FIRST: LazyLock<Instant> = LazyLock::new(now);

/// `at` in milliseconds, at least 1, so that 0 can stand for "never".
pub(super) fn millis(at: Instant) -> u64 {
    let since = at.saturating_duration_since(*FIRST).as_millis();
    u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
}

/// The present in milliseconds. Cost: one reading of the clock.
pub(super) fn present() -> u64 {
    millis(now())
}
