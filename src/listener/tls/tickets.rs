//! Session tickets: resumption without a memory of sessions.
//!
//! The keys are shared by all listeners and workers, rotate by time, survive reloads, and can be kept over a restart. A
//! ticket is sealed with AES-256-GCM under the current key and carries that key's id; what it vouches for (the
//! certificates shown, and whether and by whom the client was verified) is bound in as associated data. rustls does not
//! verify a client certificate again on resumption, so a ticket from before client certificates were asked for, or asked
//! for by another CA, must not open.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rustls::server::ProducesTickets;

use crate::clock::{Clock, Now};

/// How long one key seals; a ticket opens for at most twice as long. It bounds what a stolen key reveals, and keeps
/// random nonces far from repeating.
pub const ROTATION: Duration = Duration::from_secs(12 * 60 * 60);

const ID: usize = 16;
const SECRET: usize = 32;
/// One exported key: id, secret, beginning of its use.
const RECORD: usize = ID + SECRET + 8;

/// The ticket keys of the process: the one that seals, and the one before it, which still opens.
#[derive(Debug)]
pub struct TicketKeys(RwLock<Keys>);

#[derive(Debug)]
struct Keys {
    current: Arc<Key>,
    previous: Option<Arc<Key>>,
}

struct Key {
    id: [u8; ID],
    secret: [u8; SECRET],
    aead: RandomizedNonceKey,
    /// Seconds since the Unix epoch.
    since: u64,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("since", &self.since).finish_non_exhaustive()
    }
}

/// The machine's random source failed, or a stored key is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no ticket key could be made")]
pub struct TicketKeyError;

impl Key {
    fn new(id: [u8; ID], secret: [u8; SECRET], since: u64) -> Result<Self, TicketKeyError> {
        let aead = RandomizedNonceKey::new(&AES_256_GCM, &secret).or(Err(TicketKeyError))?;
        Ok(Self { id, secret, aead, since })
    }

    fn random(now: Now) -> Result<Arc<Self>, TicketKeyError> {
        let (mut id, mut secret) = ([0; ID], [0; SECRET]);
        aws_lc_rs::rand::fill(&mut id).or(Err(TicketKeyError))?;
        aws_lc_rs::rand::fill(&mut secret).or(Err(TicketKeyError))?;
        Self::new(id, secret, now.unix_seconds()).map(Arc::new)
    }

    fn age(&self, now: Now) -> Duration {
        Duration::from_secs(now.unix_seconds().saturating_sub(self.since))
    }

    fn record(&self) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        let bytes = self.id.into_iter().chain(self.secret).chain(self.since.to_be_bytes());
        record.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
        record
    }

    fn from_record(record: &[u8]) -> Option<Arc<Self>> {
        let (id, rest) = record.split_first_chunk::<ID>()?;
        let (secret, rest) = rest.split_first_chunk::<SECRET>()?;
        let since = u64::from_be_bytes(rest.try_into().ok()?);
        Self::new(*id, *secret, since).ok().map(Arc::new)
    }
}

impl TicketKeys {
    /// A fresh key.
    pub fn generate(now: Now) -> Result<Arc<Self>, TicketKeyError> {
        Ok(Arc::new(Self(RwLock::new(Keys { current: Key::random(now)?, previous: None }))))
    }

    /// The keys as bytes, for `state_dir`; secret.
    #[must_use]
    pub fn export(&self) -> Vec<u8> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(&keys.current).chain(&keys.previous).flat_map(|key| key.record()).collect()
    }

    /// The keys out of [`TicketKeys::export`]; `None` when they are damaged, or too old to open anything.
    #[must_use]
    pub fn import(bytes: &[u8], now: Now) -> Option<Arc<Self>> {
        if !bytes.len().is_multiple_of(RECORD) {
            return None;
        }
        let mut keys = bytes.chunks_exact(RECORD).map(Key::from_record);
        let current = keys.next()??;
        let previous = keys.next().flatten().filter(|key| key.age(now) < 2 * ROTATION);
        (current.age(now) < 2 * ROTATION).then(|| Arc::new(Self(RwLock::new(Keys { current, previous }))))
    }

    /// Makes a new key when the current one has sealed long enough; true when it did, so that the caller may store the
    /// keys. Also happens on its own, with the first ticket sealed after that time.
    pub fn rotate(&self, now: Now) -> bool {
        let due = |keys: &Keys| keys.current.age(now) >= ROTATION;
        if !due(&self.0.read().unwrap_or_else(PoisonError::into_inner)) {
            return false;
        }
        // Without randomness the old key goes on; a resumption less is not worth a failed handshake.
        let Ok(fresh) = Key::random(now) else { return false };
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if !due(&keys) {
            return false;
        }
        keys.previous = Some(std::mem::replace(&mut keys.current, fresh));
        true
    }

    fn current(&self) -> Arc<Key> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).current)
    }

    fn find(&self, id: &[u8; ID], now: Now) -> Option<Arc<Key>> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let key = std::iter::once(&keys.current).chain(&keys.previous).find(|key| key.id == *id)?;
        (key.age(now) < 2 * ROTATION).then(|| Arc::clone(key))
    }
}

/// Seals and opens the tickets of one [`super::ServerTls`].
#[derive(Debug)]
pub(super) struct Ticketer {
    pub(super) keys: Arc<TicketKeys>,
    /// Digest of what a ticket vouches for.
    pub(super) binding: [u8; 32],
    pub(super) clock: Clock,
}

impl Ticketer {
    fn associated(&self, id: &[u8; ID]) -> Aad<Vec<u8>> {
        Aad::from([id.as_slice(), &self.binding].concat())
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(ROTATION.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys.rotate(self.clock.now());
        let key = self.keys.current();
        let mut sealed = plain.to_vec();
        let nonce = key.aead.seal_in_place_append_tag(self.associated(&key.id), &mut sealed).ok()?;
        Some([key.id.as_slice(), nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (id, rest) = ticket.split_first_chunk::<ID>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.keys.find(id, self.clock.now())?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.aead.open_in_place(nonce, self.associated(id), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticketer(keys: &Arc<TicketKeys>, binding: u8, clock: &Clock) -> Ticketer {
        Ticketer { keys: Arc::clone(keys), binding: [binding; 32], clock: clock.clone() }
    }

    #[test]
    fn a_ticket_opens_for_two_rotations_and_only_under_its_binding() {
        let clock = Clock::manual();
        let keys = TicketKeys::generate(clock.now()).expect("randomness");
        let tickets = ticketer(&keys, 1, &clock);
        let ticket = tickets.encrypt(b"session").expect("sealed");
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(b"session".as_slice()));
        assert_eq!(ticketer(&keys, 2, &clock).decrypt(&ticket), None, "vouches for something else");
        let mut forged = ticket.clone();
        *forged.last_mut().expect("not empty") ^= 1;
        assert_eq!(tickets.decrypt(&forged), None);
        assert_eq!(tickets.decrypt(b"short"), None);

        clock.advance(ROTATION);
        let next = tickets.encrypt(b"next").expect("sealed");
        assert_ne!(next[..ID], ticket[..ID], "a new key seals");
        assert!(tickets.decrypt(&ticket).is_some(), "the one before still opens");
        clock.advance(ROTATION);
        assert_eq!(tickets.decrypt(&ticket), None, "too old, rotated or not");
        assert!(tickets.decrypt(&next).is_some());
    }

    #[test]
    fn exported_keys_open_what_was_sealed_before() {
        let clock = Clock::manual();
        let keys = TicketKeys::generate(clock.now()).expect("randomness");
        let first = ticketer(&keys, 1, &clock).encrypt(b"first").expect("sealed");
        clock.advance(ROTATION);
        let second = ticketer(&keys, 1, &clock).encrypt(b"second").expect("sealed");
        let bytes = keys.export();
        let kept = TicketKeys::import(&bytes, clock.now()).expect("keys");
        for ticket in [first, second] {
            assert!(ticketer(&kept, 1, &clock).decrypt(&ticket).is_some());
        }
        assert!(TicketKeys::import(&bytes[1..], clock.now()).is_none());
        assert!(TicketKeys::import(&[], clock.now()).is_none());
        clock.advance(2 * ROTATION);
        assert!(TicketKeys::import(&bytes, clock.now()).is_none());
    }
}
