//! The store from outside: what is found, what is kept within which bounds, what dies with what.

use std::sync::Barrier;

use bytes::Bytes;
use http::header::{ACCEPT_LANGUAGE, ETAG};
use http::{HeaderName, HeaderValue, StatusCode};

use super::*;
use crate::body::Body;
use crate::clock::Clock;
use crate::policy::cache::freshness::{Freshness, Lifetime, LifetimeSource};
use crate::policy::cache::storing::Terms;
use crate::policy::cache::vary::Selecting;
use crate::policy::encoding::Coding;

const BR: ChildKind = ChildKind { coding: Some(Coding::Br), level: 5, rules: 0 };
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

fn key(number: u64) -> CacheKey {
    // A hash of the number, as keys are: moka's sketch relies on spread.
    let hash = u128::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    CacheKey { text: format!("http://h/{number}").into(), hash, uri: hash }
}

fn headers(lines: &[(HeaderName, &'static str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
}

fn head(lifetime: u64) -> Head {
    let lifetime = Lifetime { duration: Duration::from_secs(lifetime), source: LifetimeSource::MaxAge };
    let freshness = Freshness { lifetime, initial_age: Duration::ZERO, received: Clock::System.now() };
    Head {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        terms: Terms { freshness, no_cache: false, must_revalidate: false },
        selecting: Selecting::default(),
        rules: 0,
    }
}

fn lead(store: &Store, key: &CacheKey) -> FetchLead {
    match store.join(key, 0) {
        Joined::Leader(lead) => lead,
        Joined::Follower(_) => panic!("somebody leads already"),
    }
}

fn begin(store: &Store, share: &Arc<Share>, key: &CacheKey, expected: Option<u64>) -> Result<Fill, NotKept> {
    let started = store.begin(lead(store, key), key.clone(), share, head(60), (expected, 64 * MIB));
    started.map_err(|(_, reason)| reason)
}

/// Stores a body of `length` bytes in one piece.
fn put(store: &Store, share: &Arc<Share>, key: &CacheKey, length: usize) -> Result<Arc<Base>, NotKept> {
    put_head(store, share, key, head(60), length)
}

fn put_head(
    store: &Store,
    share: &Arc<Share>,
    key: &CacheKey,
    head: Head,
    length: usize,
) -> Result<Arc<Base>, NotKept> {
    let lead = lead(store, key);
    let started = store.begin(lead, key.clone(), share, head, (Some(length as u64), 64 * MIB));
    let mut fill = started.map_err(|(_, reason)| reason)?;
    fill.push(Bytes::from(vec![7; length]));
    fill.finish(None)
}

fn put_child(store: &Store, base: &Arc<Life>) -> Result<Arc<Child>, NotKept> {
    let Joined::Leader(lead) = store.join_child(base, BR) else { panic!("somebody makes it already") };
    let mut fill = store.begin_child(lead, base, MIB).map_err(|(_, reason)| reason)?;
    fill.push(Bytes::from_static(b"compressed"));
    fill.finish(None)
}

fn found(store: &Store, key: &CacheKey) -> Option<Arc<Base>> {
    match store.find(key.hash, &HeaderMap::new(), 0) {
        Found::Base(base) => Some(base),
        _ => None,
    }
}

fn used(store: &Store) -> u64 {
    store.stats().used
}

#[test]
fn what_is_stored_is_found_and_counted() {
    let store = Store::new(MIB);
    let share = store.share("static", None);
    let base = put(&store, &share, &key(1), 1000).expect("fits");
    let again = found(&store, &key(1)).expect("stored");
    assert!(Arc::ptr_eq(&base, &again));
    assert_eq!((again.body().remaining(), again.life().hits()), (1000, 1));
    assert_eq!((used(&store), share.used()), (base.bytes(), base.bytes()));
    assert!(found(&store, &key(2)).is_none());
    assert!(matches!(store.find(key(1).hash, &HeaderMap::new(), 99), Found::Nothing), "rewritten by other rules");
    let newer = put(&store, &share, &key(1), 10).expect("fits");
    assert!(base.life().is_dead(), "replaced");
    assert_eq!(used(&store), newer.bytes());
}

#[test]
fn variants_stand_side_by_side_up_to_a_cap() {
    let store = Store::new(MIB);
    let share = store.share("static", None);
    let speaking = |language: &str| {
        let mut request = HeaderMap::new();
        request.insert(ACCEPT_LANGUAGE, HeaderValue::try_from(language).expect("a valid value"));
        request
    };
    let store_in = |language: &str| {
        let head = Head { selecting: Selecting::new(&[ACCEPT_LANGUAGE], &speaking(language)), ..head(60) };
        put_head(&store, &share, &key(1), head, 10).expect("fits")
    };
    let (de, en) = (store_in("de"), store_in("en"));
    for (language, expected) in [("de", &de), ("en", &en)] {
        match store.find(key(1).hash, &speaking(language), 0) {
            Found::Base(base) => assert!(Arc::ptr_eq(&base, expected), "{language}"),
            other => panic!("{language}: {other:?}"),
        }
    }
    match store.find(key(1).hash, &speaking("fr"), 0) {
        Found::OtherVariants(variant) => assert_ne!(variant, en.head().variant_of(&speaking("en"), store.seeds())),
        other => panic!("{other:?}"),
    }
    for number in 0..MAX_VARIANTS {
        store_in(&format!("x-{number}"));
    }
    assert!(de.life().is_dead() && en.life().is_dead(), "the oldest went");
    assert!(matches!(store.find(key(1).hash, &speaking("x-0"), 0), Found::Base(_)));
}

#[test]
fn churn_never_exceeds_the_size() {
    const SIZE: u64 = 2 * MIB;
    let store = Store::new(SIZE);
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for worker in 0..4u64 {
            let (store, start) = (&store, &start);
            scope.spawn(move || {
                let share = store.share(if worker % 2 == 0 { "even" } else { "odd" }, Some(SIZE / 2));
                start.wait();
                for round in 0..1500 {
                    let number = worker * 10_000 + round;
                    let length = usize::try_from((number * 7919) % (64 * KIB)).expect("small");
                    let _ = put(store, &share, &key(number), length);
                    // Three others may each stand between charging and making room.
                    assert!(used(store) <= SIZE + 3 * 70 * KIB, "{} bytes", used(store));
                    let _ = found(store, &key(number / 2));
                }
            });
        }
    });
    store.housekeep();
    let stats = store.stats();
    assert!(stats.used <= SIZE && stats.used > SIZE / 2, "{stats:?}");
    assert!(stats.evictions > 1000, "{stats:?}");
    assert!(stats.shares.iter().all(|share| share.used <= SIZE / 2), "{stats:?}");
    let places = store.0.memory.primary_places();
    let kept: u64 = places.iter().filter_map(|place| store.0.memory.get(*place)).map(|entry| entry.bytes()).sum();
    assert_eq!(kept, stats.used, "the books agree with moka");
    store.clear();
    assert_eq!(used(&store), 0);
}

#[test]
fn a_policy_evicts_its_own_entries_only() {
    let store = Store::new(8 * MIB);
    let (calm, busy) = (store.share("calm", None), store.share("busy", Some(100 * KIB)));
    for number in 0..10 {
        put(&store, &calm, &key(number), 10_000).expect("fits");
    }
    let favourite = key(1000);
    put(&store, &busy, &favourite, 10_000).expect("fits");
    for number in 1001..1100 {
        assert!(found(&store, &favourite).is_some(), "used entries are passed over");
        put(&store, &busy, &key(number), 10_000).expect("makes room for itself");
        assert!(busy.used() <= 100 * KIB);
    }
    assert!((0..10).all(|number| found(&store, &key(number)).is_some()));
    assert!(found(&store, &key(1001)).is_none());
    assert_eq!(put(&store, &busy, &key(1), 200_000).err(), Some(NotKept::OverShare), "could never fit");
    assert!(busy.used() > 80 * KIB, "and evicts nothing in vain");
    let smaller = store.share("busy", Some(50 * KIB));
    store.housekeep();
    assert!(Arc::ptr_eq(&busy, &smaller) && busy.used() <= 50 * KIB, "a lowered limit is enforced");
}

#[test]
fn fills_in_flight_take_room_from_what_is_stored() {
    let store = Store::new(MIB);
    let share = store.share("static", None);
    for number in 0..200 {
        put(&store, &share, &key(number), 8000).expect("fits");
    }
    let fill = begin(&store, &share, &key(1000), Some(900 * KIB)).expect("room is made");
    assert!(used(&store) <= MIB);
    assert_eq!(begin(&store, &share, &key(1001), Some(900 * KIB)).err(), Some(NotKept::OverStore));
    drop(fill);
    assert!(used(&store) < 200 * KIB, "an abandoned fill gives its reservation back");
    assert_eq!(store.0.fetches.len(), 0);
}

#[test]
fn readers_of_what_was_evicted_cannot_pin_any_amount() {
    let store = Store::new(8 * MIB);
    let share = store.share("static", None);
    let length = usize::try_from(MIB).expect("small");
    let mut readers = Vec::new();
    let refused = (0..100).find_map(|number| {
        let stored = put(&store, &share, &key(number), length);
        readers.extend(stored.as_ref().ok().map(|base| base.body().clone()));
        stored.err()
    });
    assert_eq!(refused, Some(NotKept::OverStore));
    // The size, a quarter of it, and the slack.
    assert!((70..=76).contains(&readers.len()), "{} bodies are held", readers.len());
    drop(readers);
    put(&store, &share, &key(200), length).expect("room again");
}

#[test]
fn what_is_not_whole_is_not_stored() {
    let store = Store::new(MIB);
    let share = store.share("static", Some(512 * KIB));
    let mut short = begin(&store, &share, &key(1), Some(10)).expect("fits");
    short.push(Bytes::from_static(b"half"));
    assert_eq!(short.finish(None).err(), Some(NotKept::CutShort));

    let too_large = store.begin(lead(&store, &key(2)), key(2), &share, head(60), (Some(2000), 1000));
    assert_eq!(too_large.err().map(|(_, reason)| reason), Some(NotKept::TooLarge));

    let grown = store.begin(lead(&store, &key(3)), key(3), &share, head(60), (None, 1000));
    let mut grown = grown.map_err(|(_, reason)| reason).expect("the length is unknown");
    grown.push(Bytes::from(vec![1; 2000]));
    assert_eq!(grown.refused(), Some(NotKept::TooLarge));
    assert_eq!(grown.finish(None).err(), Some(NotKept::TooLarge));

    let mut endless = begin(&store, &share, &key(4), None).expect("the length is unknown");
    while endless.refused().is_none() {
        endless.push(Bytes::from(vec![1; 64 * 1024]));
        assert!(share.used() <= 512 * KIB);
    }
    assert_eq!(endless.finish(None).err(), Some(NotKept::OverShare));
    assert!((1..5).all(|number| found(&store, &key(number)).is_none()));
    assert_eq!(used(&store), 0);
}

#[test]
fn a_dead_base_yields_no_child() {
    let store = Store::new(MIB);
    let share = store.share("static", None);
    let base = put(&store, &share, &key(1), 1000).expect("fits");
    let child = put_child(&store, base.life()).expect("fits");
    assert!(Arc::ptr_eq(&store.child(base.life(), BR).expect("made"), &child));
    assert_eq!(used(&store), base.bytes() + child.bytes());

    assert_eq!(store.invalidate(key(1).uri), 1);
    assert!(store.child(base.life(), BR).is_none());
    assert_eq!(put_child(&store, base.life()).err(), Some(NotKept::Invalidated), "made too late");
    store.housekeep();
    assert_eq!(used(&store), 0, "its bytes are given back");
    store.housekeep();
    assert_eq!(store.stats().entries, 0);
}

#[test]
fn a_child_can_be_made_while_its_base_arrives() {
    let store = Store::new(MIB);
    let share = store.share("static", None);
    for survives in [true, false] {
        let mut fill = begin(&store, &share, &key(1), None).expect("fits");
        fill.push(Bytes::from_static(b"text"));
        let life = fill.filling().life().clone();
        let child = put_child(&store, &life).expect("fits");
        if survives {
            let base = fill.finish(None).expect("complete");
            assert!(Arc::ptr_eq(&store.child(base.life(), BR).expect("made"), &child));
        } else {
            drop(fill);
            store.housekeep();
            assert!(life.is_dead() && store.0.memory.get(Place::Child(life.id(), BR)).is_none());
        }
    }
}

#[test]
fn freshening_keeps_body_and_children() {
    let store = Store::new(MIB);
    let share = store.share("static", None);
    let base = put(&store, &share, &key(1), 1000).expect("fits");
    put_child(&store, base.life()).expect("fits");
    let fresh = Head { headers: headers(&[(ETAG, "\"a\"")]), ..head(90) };
    let fresh = store.freshen(&base, fresh).expect("still stored");
    let again = found(&store, &key(1)).expect("still stored");
    assert!(Arc::ptr_eq(&fresh, &again));
    assert_eq!(again.head().headers.get(ETAG).expect("the new head"), "\"a\"");
    assert!(store.child(again.life(), BR).is_some());
    assert_eq!(share.used(), fresh.bytes() + store.child(again.life(), BR).expect("made").bytes());

    store.invalidate(key(1).uri);
    assert!(store.freshen(&fresh, head(90)).is_none(), "what is gone does not come back");
    assert!(found(&store, &key(1)).is_none());
}

#[test]
fn an_invalidation_wins_over_a_fill_in_flight() {
    let store = Store::new(MIB);
    let share = store.share("static", None);
    let mut fill = begin(&store, &share, &key(1), None).expect("fits");
    fill.push(Bytes::from_static(b"old"));
    assert_eq!(store.invalidate(key(1).uri), 0);
    assert_eq!(fill.finish(None).err(), Some(NotKept::Invalidated));
    assert!(found(&store, &key(1)).is_none());
    assert_eq!(used(&store), 0);
    put(&store, &share, &key(1), 10).expect("a later fetch is stored again");
}

#[test]
fn an_invalidation_reaches_every_key_of_its_uri() {
    let store = Store::new(MIB);
    let share = store.share("static", None);
    let keyed = |number| CacheKey { uri: key(0).uri, ..key(number) };
    for number in 0..4 {
        put(&store, &share, &keyed(number), 10).expect("fits");
    }
    put(&store, &share, &key(9), 10).expect("fits");
    assert_eq!(store.invalidate(key(0).uri), 4);
    assert!((0..4).all(|number| found(&store, &keyed(number)).is_none()));
    assert!(found(&store, &key(9)).is_some());
    assert!(store.0.ledger.keys_of(key(0).uri).is_empty());
}

#[test]
fn a_new_size_keeps_what_fits() {
    let store = Store::new(4 * MIB);
    let share = store.share("static", None);
    let bases: Vec<_> = (0..100).map(|number| put(&store, &share, &key(number), 10_000).expect("fits")).collect();
    put_child(&store, bases[0].life()).expect("fits");
    store.resize(16 * MIB);
    assert!((0..100).all(|number| found(&store, &key(number)).is_some()));
    assert!(store.child(bases[0].life(), BR).is_some());
    store.resize(512 * KIB);
    assert!(used(&store) <= 512 * KIB, "{:?}", store.stats());
    let kept = (0..100).filter(|number| found(&store, &key(*number)).is_some()).count();
    assert!(kept > 20, "{kept} of 100 fit and were kept");
    assert_eq!(kept, bases.iter().filter(|base| !base.life().is_dead()).count());
}

#[test]
fn a_refusal_is_remembered_for_a_while() {
    let store = Store::new(MIB);
    let clock = Clock::manual();
    store.remember_refusal(1, "private", clock.now());
    assert_eq!(store.refusal(1, clock.now()), Some("private"));
    assert_eq!(store.refusal(2, clock.now()), None);
    clock.advance(HIT_FOR_MISS);
    assert_eq!(store.refusal(1, clock.now()), None);
}

#[tokio::test]
async fn late_comers_read_what_is_still_arriving_and_then_what_is_stored() {
    let store = Store::new(MIB);
    let share = store.share("static", None);
    let mut fill = begin(&store, &share, &key(1), None).expect("fits");
    fill.push(Bytes::from_static(b"hello "));
    let Joined::Follower(follower) = store.join(&key(1), 0) else { panic!("the flight is under way") };
    let Outcome::Shared(Fetched::Filling(filling)) = follower.outcome().await else { panic!("a response arrives") };
    assert!(filling.serves(&HeaderMap::new(), 0) && !filling.serves(&HeaderMap::new(), 1));
    let mut body = Body::Spool(filling.reader().expect("from the start"));
    fill.push(Bytes::from_static(b"world"));
    fill.finish(None).expect("complete");
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        read.extend_from_slice(frame.expect("whole").data_ref().expect("data"));
    }
    assert_eq!(read, b"hello world");
    assert!(found(&store, &key(1)).is_some() && store.0.fetches.is_empty());
}

#[tokio::test]
async fn a_response_for_one_request_only_releases_the_others() {
    let store = Store::new(MIB);
    let share = store.share("static", None);
    let lead = lead(&store, &key(1));
    let Joined::Follower(follower) = store.join(&key(1), 0) else { panic!("the flight is under way") };
    let fill = store.begin(lead, key(1), &share, head(0), (None, MIB)).map_err(|(_, reason)| reason).expect("fits");
    assert!(matches!(follower.outcome().await, Outcome::Released(NOT_SHAREABLE)));
    fill.finish(None).expect("stored nevertheless");
    assert!(found(&store, &key(1)).is_some());
}
