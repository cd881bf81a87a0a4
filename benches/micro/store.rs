//! The store by itself: finding, storing into a full one, purging.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use divan::Bencher;
use http::{HeaderMap, StatusCode};
use tidegate::clock::Clock;
use tidegate::policy::cache::KeyParams;
use tidegate::policy::cache::freshness::{Freshness, Lifetime, LifetimeSource};
use tidegate::policy::cache::key::{CacheKey, KeyFacts, build};
use tidegate::policy::cache::purge::Target;
use tidegate::policy::cache::storing::Terms;
use tidegate::policy::cache::tags::Tags;
use tidegate::policy::cache::vary::Selecting;
use tidegate::store::{Found, Head, Joined, Purge, Share, Sink, Store};

const BODY: Bytes = Bytes::from_static(&[7; 1024]);

/// A store with as many objects as told, and room for them.
struct Shop {
    store: Store,
    share: Arc<Share>,
    next: AtomicU64,
}

impl Shop {
    fn new(objects: u64, size: u64) -> Self {
        let store = Store::new(size);
        let share = store.share("pages", None);
        let shop = Self { store, share, next: AtomicU64::new(0) };
        (0..objects).for_each(|_| shop.put());
        shop.store.housekeep();
        shop
    }

    fn key(&self, number: u64) -> CacheKey {
        let path = format!("/{number}");
        let facts = KeyFacts {
            scheme: "http",
            host: "shop.example",
            path: &path,
            query: None,
            policy: "pages",
            route: None,
            content: None,
            headers: &HeaderMap::new(),
        };
        build(&facts, &KeyParams::default(), self.store.seeds())
    }

    /// Stores one more.
    fn put(&self) {
        let key = self.key(self.next.fetch_add(1, Ordering::Relaxed));
        let Joined::Leader(lead) = self.store.join(&key, 0) else { unreachable!("nobody else asks") };
        let expected = (Some(BODY.len() as u64), 1 << 20);
        let Ok(mut fill) = self.store.begin(lead, key, &self.share, head(), expected) else { unreachable!("it fits") };
        fill.push(BODY);
        fill.finish(None).map(drop).unwrap_or_else(|reason| unreachable!("{}", reason.token()));
    }
}

fn head() -> Head {
    let lifetime = Lifetime { duration: Duration::from_secs(60), source: LifetimeSource::MaxAge };
    Head {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        terms: Terms {
            freshness: Freshness { lifetime, initial_age: Duration::ZERO, received: Clock::System.now() },
            no_cache: false,
            must_revalidate: false,
            purged: false,
            stale_while_revalidate: None,
            stale_if_error: None,
            took: Duration::ZERO,
        },
        selecting: Selecting::default(),
        tags: Tags::default(),
        rules: 0,
    }
}

#[divan::bench]
fn found(bencher: Bencher<'_, '_>) {
    let shop = Shop::new(1000, 64 << 20);
    let (key, request) = (shop.key(500), HeaderMap::new());
    assert!(matches!(shop.store.find(key.hash, &request, 0), Found::Base(_)));
    bencher.bench_local(|| shop.store.find(key.hash, &request, 0));
}

#[divan::bench]
fn not_found(bencher: Bencher<'_, '_>) {
    let shop = Shop::new(1000, 64 << 20);
    let (key, request) = (shop.key(5000), HeaderMap::new());
    bencher.bench_local(|| shop.store.find(key.hash, &request, 0));
}

/// Each drives out another.
#[divan::bench]
fn stored_into_a_full_store(bencher: Bencher<'_, '_>) {
    let shop = Shop::new(20_000, 16 << 20);
    bencher.bench_local(|| shop.put());
}

#[divan::bench(args = [100, 10_000], sample_count = 20, sample_size = 1)]
fn purged(bencher: Bencher<'_, '_>, objects: u64) {
    let everything = || Purge { target: Target::All, urls: Vec::new(), policies: None, soft: false };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    bencher.with_inputs(|| Shop::new(objects, 256 << 20)).bench_local_refs(|shop| {
        let purged = runtime.block_on(shop.store.purge(everything()));
        assert_eq!(purged.responses, objects);
    });
}
