//! What all pools of the process share, over all generations.

use std::sync::atomic::{AtomicU32, Ordering};

use aws_lc_rs::hmac;

use super::pool::Pool;
use crate::policy::pool::Address;

/// Digits of a session token: 128 bits, far from being guessed.
const TOKEN_DIGITS: usize = 32;

/// Digits of a pool's own in the name of its cookie: enough to tell the pools of one host apart.
const COOKIE_DIGITS: usize = 6;

/// See the module.
#[derive(Debug)]
pub struct Farm {
    /// Makes session tokens. Who has it can lead a client to an endpoint of his choice, and nothing else.
    sessions: hmac::Key,
    /// Exchanges under way that were counted when they began.
    in_flight: AtomicU32,
    /// `server.max_misses`; `u32::MAX` = no bound, and nothing is counted.
    max_misses: AtomicU32,
}

impl Farm {
    /// A farm whose session tokens are made with `secret`: the same secret makes the same tokens, in any process.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self {
            sessions: hmac::Key::new(hmac::HMAC_SHA256, secret),
            in_flight: AtomicU32::new(0),
            max_misses: AtomicU32::new(u32::MAX),
        }
    }

    /// Sets how many exchanges may be with the farm at once, over all pools; `None` = any number. Those under way go on.
    pub fn set_max_misses(&self, max: Option<u32>) {
        self.max_misses.store(max.unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    pub(super) fn is_bounded(&self) -> bool {
        self.max_misses.load(Ordering::Relaxed) < u32::MAX
    }

    /// Counts one exchange more, unless there are too many.
    pub(super) fn enter(&self) -> bool {
        let max = self.max_misses.load(Ordering::Relaxed);
        let room = |taken: u32| (taken < max).then(|| taken + 1);
        self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
    }

    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// What stands for an endpoint of a pool in a sticky cookie. It depends on their names alone, so it survives reloads,
    /// restarts and the endpoint's absence.
    pub(super) fn token(&self, pool: &str, address: &Address) -> Box<str> {
        // A name has no line breaks: two different pairs never spell the same text.
        self.digits(&format!("sticky\n{pool}\n{address}"), TOKEN_DIGITS).into()
    }

    /// The name of a pool's cookie, which begins with `cookie`: the same for as long as the pool keeps its name. It does not
    /// tell that name.
    pub(super) fn cookie(&self, cookie: &str, pool: &str) -> String {
        format!("{cookie}-{}", self.digits(&format!("cookie\n{pool}"), COOKIE_DIGITS))
    }

    fn digits(&self, text: &str, count: usize) -> String {
        let tag = hmac::sign(&self.sessions, text.as_bytes());
        let digits: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        digits.chars().take(count).collect()
    }
}

impl Pool {
    /// The endpoint that a client's cookie stands for; `None` when it is none of ours, or its endpoint is gone. Takes the
    /// same time for every wrong value.
    #[must_use]
    pub fn endpoint_of(&self, token: &[u8]) -> Option<usize> {
        let same = |known: &str| aws_lc_rs::constant_time::verify_slices_are_equal(known.as_bytes(), token).is_ok();
        self.tokens.iter().position(|known| same(known))
    }

    /// The name of its cookie; `None` in pools that are not sticky.
    #[must_use]
    pub fn cookie(&self) -> Option<&str> {
        self.cookie.as_deref()
    }

    /// The cookie's value for an endpoint; `None` in pools that are not sticky.
    #[must_use]
    pub fn token_of(&self, index: usize) -> Option<&str> {
        self.tokens.get(index).map(|token| &**token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_of_one_endpoint_of_one_pool_under_one_secret() {
        let address = |port| Address::Name("a".into(), port);
        let farm = Farm::new(b"one");
        let token = farm.token("web", &address(1));
        assert_eq!(token.len(), TOKEN_DIGITS);
        assert_eq!(token, Farm::new(b"one").token("web", &address(1)), "in any process");
        for other in [
            farm.token("web", &address(2)),
            farm.token("api", &address(1)),
            Farm::new(b"two").token("web", &address(1)),
        ] {
            assert_ne!(token, other);
        }
    }
}
