//! Collapsing: many requests, one fetch (or one encoding).
//!
//! The first to ask for a key leads, everybody else follows and waits for the leader's one word: something to share
//! (which stays joinable for late-comers until the leader lets go of its [`Landing`]), a release (everybody goes alone),
//! or a failure. A leader that goes away without a word leaves a vacancy: its followers join again, and exactly one of
//! them leads. Over all workers; one short lock per join and per end, none while waiting.
//!
//! How long to wait is the follower's business: dropping the handle leaves the queue. The number of followers is bounded
//! by the connections that may be open.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::ledger::lock;
use crate::error::ProxyError;

/// Locks the keys are spread over; more than workers that could meet on one.
const SHARDS: usize = 32;

/// What followers can be given.
pub trait Joinable: Clone {
    /// False once a late-comer can no longer get all of it: it then leads a flight of its own.
    fn is_joinable(&self) -> bool;
}

/// A word that holds nothing but that it was given: followers look again, late-comers never join.
#[derive(Debug, Clone, Copy)]
pub struct Done;

impl Joinable for Done {
    fn is_joinable(&self) -> bool {
        false
    }
}

/// The leader's word.
#[derive(Debug, Clone)]
pub enum Outcome<T> {
    /// Something every follower can use.
    Shared(T),
    /// The answer is the leader's alone, for this reason: everybody goes alone.
    Released(&'static str),
    /// The fetch failed; asking again would only add to the trouble.
    Failed(ProxyError),
    /// The leader went away without a word: join again.
    LeaderGone,
}

/// The part one got.
#[derive(Debug)]
pub enum Joined<K: Copy + Eq + Hash, T: Joinable> {
    /// Do it, and say how it went.
    Leader(LeadGuard<K, T>),
    /// Wait for the leader's word.
    Follower(FollowHandle<T>),
}

/// All flights of one kind.
#[derive(Debug)]
pub struct Flights<K, T>(Arc<Table<K, T>>);

#[derive(Debug)]
struct Table<K, T> {
    shards: [Mutex<HashMap<K, Flight<T>>>; SHARDS],
    hasher: RandomState,
    next_number: AtomicU64,
}

#[derive(Debug)]
struct Flight<T> {
    /// Tells this flight from a later one under the same key.
    number: u64,
    epoch: u64,
    word: watch::Receiver<Option<Outcome<T>>>,
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Arc::new(Table {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            next_number: AtomicU64::new(0),
        }))
    }
}

impl<K: Copy + Eq + Hash, T: Joinable> Flights<K, T> {
    /// Leads the flight for `key`, or follows the one that is under way. `epoch` is the state of the world now, handed back
    /// by [`LeadGuard::epoch`]; a flight that began before `since` is not joined, for what it brings may be what was
    /// purged meanwhile.
    #[must_use]
    pub fn join(&self, key: K, epoch: u64, since: u64) -> Joined<K, T> {
        let mut shard = lock(self.0.shard(&key));
        if let Some(follower) = shard.get(&key).and_then(|flight| flight.follow(since)) {
            return Joined::Follower(follower);
        }
        let (say, word) = watch::channel(None);
        let number = self.0.next_number.fetch_add(1, Ordering::Relaxed);
        shard.insert(key, Flight { number, epoch, word });
        Joined::Leader(LeadGuard { landing: Landing { table: self.0.clone(), key, also: None, number }, say, epoch })
    }

    /// Follows the flight for `key` that is under way, if there is one that [`Flights::join`] would follow.
    #[must_use]
    pub fn follow(&self, key: K, since: u64) -> Option<FollowHandle<T>> {
        lock(self.0.shard(&key)).get(&key)?.follow(since)
    }

    /// The keys of flights under way that `wanted` picks. Cost: each shard's lock, and a look at every flight.
    pub(super) fn under_way(&self, wanted: impl Fn(&K) -> bool) -> Vec<K> {
        self.0.shards.iter().flat_map(|shard| lock(shard).keys().copied().filter(&wanted).collect::<Vec<_>>()).collect()
    }

    /// Flights under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// True when nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Joinable> Flight<T> {
    fn follow(&self, since: u64) -> Option<FollowHandle<T>> {
        let is_joinable = match &*self.word.borrow() {
            Some(Outcome::Shared(shared)) => shared.is_joinable(),
            _ => true,
        };
        (self.epoch >= since && is_joinable).then(|| FollowHandle { word: self.word.clone() })
    }
}

impl<K: Hash, T> Table<K, T> {
    #[expect(clippy::indexing_slicing, reason = "the index is a remainder by the length")]
    fn shard(&self, key: &K) -> &Mutex<HashMap<K, Flight<T>>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }
}

/// The leader's duty to give its word. Dropped without one, it leaves a vacancy.
#[derive(Debug)]
pub struct LeadGuard<K: Copy + Eq + Hash, T> {
    // Dropped first: the flight is out of the table before its followers see that the leader is gone.
    landing: Landing<K, T>,
    say: watch::Sender<Option<Outcome<T>>>,
    epoch: u64,
}

impl<K: Copy + Eq + Hash, T: Joinable> LeadGuard<K, T> {
    /// Gives followers something to share. Late-comers get it too, until the landing is dropped.
    #[must_use]
    pub fn share(self, shared: T) -> Landing<K, T> {
        self.say.send_replace(Some(Outcome::Shared(shared)));
        self.landing
    }

    /// Sends everybody on their own way, for this reason.
    pub fn release(self, reason: &'static str) {
        self.end(Outcome::Released(reason));
    }

    /// Lets everybody fail alike.
    pub fn fail(self, error: ProxyError) {
        self.end(Outcome::Failed(error));
    }

    /// What [`Flights::join`] was told.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// True while somebody waits for the word.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        // One receiver is the table's, and one more for another key.
        self.say.receiver_count() > 1 + usize::from(self.landing.also.is_some())
    }

    /// Makes the flight one for `key` as well, unless somebody leads that already. Once only.
    pub fn also(&mut self, key: K) {
        let Landing { table, also, number, .. } = &mut self.landing;
        if let Entry::Vacant(place) = lock(table.shard(&key)).entry(key) {
            place.insert(Flight { number: *number, epoch: self.epoch, word: self.say.subscribe() });
            *also = Some(key);
        }
    }

    fn end(self, outcome: Outcome<T>) {
        // Out of the table first, so that nobody joins a flight that is over.
        drop(self.landing);
        self.say.send_replace(Some(outcome));
    }

    /// The key it leads.
    #[must_use]
    pub fn key(&self) -> K {
        self.landing.key
    }
}

/// Keeps a flight joinable; dropping it takes the flight out of the table.
#[derive(Debug)]
pub struct Landing<K: Copy + Eq + Hash, T> {
    table: Arc<Table<K, T>>,
    key: K,
    /// A second key it is found by.
    also: Option<K>,
    number: u64,
}

impl<K: Copy + Eq + Hash, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        for key in std::iter::once(self.key).chain(self.also) {
            let mut shard = lock(self.table.shard(&key));
            if shard.get(&key).is_some_and(|flight| flight.number == self.number) {
                shard.remove(&key);
            }
        }
    }
}

/// A place in the queue behind a leader.
#[derive(Debug, Clone)]
pub struct FollowHandle<T> {
    word: watch::Receiver<Option<Outcome<T>>>,
}

impl<T: Joinable> FollowHandle<T> {
    /// The leader's word, at once where it has been given. Cancel-safe.
    pub async fn outcome(mut self) -> Outcome<T> {
        match self.word.wait_for(Option::is_some).await {
            Ok(word) => word.clone().unwrap_or(Outcome::LeaderGone),
            Err(_closed) => Outcome::LeaderGone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, Stage};
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use tokio::sync::Barrier;

    #[derive(Debug, Clone)]
    struct Word(Arc<AtomicBool>);

    impl Joinable for Word {
        fn is_joinable(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn word(joinable: bool) -> Word {
        Word(Arc::new(AtomicBool::new(joinable)))
    }

    type Table = Flights<u32, Word>;

    fn lead(flights: &Table) -> LeadGuard<u32, Word> {
        match flights.join(1, 0, 0) {
            Joined::Leader(lead) => lead,
            Joined::Follower(_) => panic!("somebody leads already"),
        }
    }

    fn follow(flights: &Table) -> FollowHandle<Word> {
        match flights.join(1, 0, 0) {
            Joined::Leader(_) => panic!("nobody leads"),
            Joined::Follower(follower) => follower,
        }
    }

    #[tokio::test]
    async fn every_word_reaches_every_follower() {
        let flights = Table::default();
        let error = ProxyError::new(ErrorKind::ConnectRefused, Stage::Forward);

        let leader = lead(&flights);
        let (before, mut landing) = (follow(&flights), None);
        landing.replace(leader.share(word(true)));
        assert!(matches!(before.outcome().await, Outcome::Shared(_)));
        assert!(matches!(follow(&flights).outcome().await, Outcome::Shared(_)), "a late-comer");
        drop(landing);
        assert!(flights.is_empty());

        let leader = lead(&flights);
        assert!(!leader.is_followed());
        let follower = follow(&flights);
        assert!(leader.is_followed());
        leader.release("private");
        assert!(flights.is_empty());
        assert!(matches!(follower.outcome().await, Outcome::Released("private")));

        let leader = lead(&flights);
        let follower = follow(&flights);
        leader.fail(error);
        assert!(matches!(follower.outcome().await, Outcome::Failed(given) if given == error));

        let leader = lead(&flights);
        let follower = follow(&flights);
        drop(leader);
        assert!(matches!(follower.outcome().await, Outcome::LeaderGone));
        drop(lead(&flights));
    }

    #[tokio::test]
    async fn a_flight_with_two_keys_is_one() {
        let flights = Table::default();
        let mut leader = lead(&flights);
        leader.also(2);
        assert!(!leader.is_followed());
        let Joined::Follower(follower) = flights.join(2, 0, 0) else { panic!("it is led already") };
        assert!(leader.is_followed());
        let landing = leader.share(word(true));
        assert!(matches!(follower.outcome().await, Outcome::Shared(_)));
        assert!(matches!(flights.join(2, 0, 0), Joined::Follower(_)), "a late-comer");
        drop(landing);
        assert!(flights.is_empty());
        let (mut one, Joined::Leader(two)) = (lead(&flights), flights.join(2, 0, 0)) else { panic!("nobody leads") };
        one.also(2);
        drop(one);
        assert_eq!(flights.len(), 1, "a key that somebody else leads stays theirs");
        drop(two);
    }

    #[tokio::test]
    async fn what_can_no_longer_be_joined_is_succeeded_not_disturbed() {
        let flights = Table::default();
        let joinable = word(true);
        let first = lead(&flights).share(joinable.clone());
        joinable.0.store(false, Ordering::Relaxed);
        let second = lead(&flights);
        let follower = follow(&flights);
        drop(first);
        assert_eq!(flights.len(), 1, "the end of the first does not end the second");
        second.release("done");
        assert!(matches!(follower.outcome().await, Outcome::Released("done")));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn leaders_that_vanish_are_succeeded_by_exactly_one() {
        const TASKS: usize = 64;
        const VANISH: usize = 10;
        let flights = Arc::new(Table::default());
        let (leading, led, start) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(TASKS)));
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let (flights, leading, led, start) = (flights.clone(), leading.clone(), led.clone(), start.clone());
                tokio::spawn(async move {
                    start.wait().await;
                    loop {
                        match flights.join(1, 0, 0) {
                            Joined::Leader(lead) => {
                                assert_eq!(leading.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
                                tokio::task::yield_now().await;
                                let vanishes = led.fetch_add(1, Ordering::SeqCst) < VANISH;
                                leading.fetch_sub(1, Ordering::SeqCst);
                                if vanishes {
                                    drop(lead);
                                    continue;
                                }
                                return Some(lead.share(word(true)));
                            }
                            Joined::Follower(follower) => match follower.outcome().await {
                                Outcome::Shared(_) => return None,
                                Outcome::LeaderGone => {}
                                other => panic!("{other:?}"),
                            },
                        }
                    }
                })
            })
            .collect();
        let mut landings = Vec::new();
        for task in tasks {
            landings.extend(task.await.expect("no panic"));
        }
        assert_eq!((landings.len(), led.load(Ordering::SeqCst)), (1, VANISH + 1));
    }
}
