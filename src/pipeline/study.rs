//! What only the bytes of a stored response tell: a tag of our own, and whether its URL keeps its bytes.
//!
//! Done in the workshop on the first hit, and once more whenever the head has arrived anew, for then the URL was asked
//! again and has brought the same bytes or others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512};
use md5::{Digest as _, Md5};

use super::workshop::{decoded, lock};
use crate::clock::Now;
use crate::policy::filter::Filter;
use crate::policy::immutable::{self, TERM, Verdict, Witness};
use crate::policy::own_tag;
use crate::policy::validators::EntityTag;
use crate::store::{Base, Life};

/// The filter whose question is counted.
pub(super) const FILTER: &str = Filter::Immutable.token();
/// URLs whose bytes are watched. Beyond, those go that nobody has fetched for long, and where there are none, no more are
/// watched.
const WATCHED_MAX: usize = 8192;
/// Hosts that are remembered for having put other bytes under a name that looked like a digest.
const LIARS_MAX: usize = 1024;

/// What is known of the names of files. One a process.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    watched: HashMap<u128, Watched>,
    /// And when they did.
    liars: HashMap<Box<str>, Now>,
}

#[derive(Debug)]
struct Watched {
    host: Box<str>,
    witness: Witness,
    /// What was last stored under the name.
    life: Weak<Life>,
}

/// Studies a stored response. What came of the question whether it is immutable, as a stable name; `None` where it was not
/// worth asking.
pub(super) fn run(base: &Base, names: &Names, now: Now) -> Option<&'static str> {
    let (head, life) = (base.head(), base.life());
    let tag = life.own_tag_or(|| own_tag::of_digest(stored_digest(base)));
    let place = life.key().place();
    let version = immutable::version(place.path)?;
    if !head.selecting.is_empty() || !immutable::is_fit(head.status, &head.headers) {
        life.set_immutable(false);
        return None;
    }
    if is_digest(version, base) {
        life.set_immutable(true);
        return Some("digest");
    }
    let digest = EntityTag::parse(tag.as_bytes()).and_then(own_tag::digest)?;
    Some(names.observe(life, place.host, digest, now))
}

/// Whether a part of the name is a digest of the body.
fn is_digest(version: &str, base: &Base) -> bool {
    let Some(plain) = decoded(base) else { return false };
    let mut digests = [&SHA256, &SHA1_FOR_LEGACY_USE_ONLY, &SHA384, &SHA512].into_iter();
    digests.any(|algorithm| immutable::is_beginning_of(version, digest::digest(algorithm, &plain).as_ref()))
        || immutable::is_beginning_of(version, &Md5::digest(&plain))
}

/// Half of the SHA-256 of the bytes as they are stored.
fn stored_digest(base: &Base) -> u128 {
    let mut context = digest::Context::new(&SHA256);
    base.body().chunks().iter().for_each(|chunk| context.update(chunk));
    u128::from_be_bytes(context.finish().as_ref().first_chunk().copied().unwrap_or_default())
}

impl Names {
    /// Takes note that the URL of `life` has brought bytes with this digest.
    fn observe(&self, life: &Arc<Life>, host: &str, digest: u128, now: Now) -> &'static str {
        let mut book = lock(&self.0);
        let key = life.key().hash;
        let former = book.watched.get(&key).map(|watched| watched.witness);
        let (witness, verdict) = Witness::after(former, digest, now);
        if former.is_none() && book.watched.len() >= WATCHED_MAX {
            book.watched.retain(|_, watched| !watched.witness.is_over(now));
            if book.watched.len() >= WATCHED_MAX {
                return "full";
            }
        }
        book.watched.insert(key, Watched { host: host.into(), witness, life: Arc::downgrade(life) });
        if verdict == Verdict::Lied {
            book.accuse(host, now);
        }
        let believed = verdict == Verdict::Kept && !book.is_liar(host, now);
        life.set_immutable(believed);
        match verdict {
            Verdict::NotYet => "not_yet",
            Verdict::Lied => "lied",
            Verdict::Kept if believed => "kept",
            Verdict::Kept => "not_believed",
        }
    }
}

impl Book {
    /// What was said of other files of this host is taken back.
    fn accuse(&mut self, host: &str, now: Now) {
        if self.liars.len() >= LIARS_MAX {
            self.liars.retain(|_, since| now.since(*since) < TERM);
        }
        if self.liars.len() < LIARS_MAX || self.liars.contains_key(host) {
            self.liars.insert(host.into(), now);
        }
        let theirs = self.watched.values().filter(|watched| &*watched.host == host);
        theirs.filter_map(|watched| watched.life.upgrade()).for_each(|life| life.set_immutable(false));
    }

    fn is_liar(&self, host: &str, now: Now) -> bool {
        self.liars.get(host).is_some_and(|since| now.since(*since) < TERM)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::header::CACHE_CONTROL;
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;
    use crate::clock::Clock;
    use crate::policy::cache::freshness::{Freshness, Lifetime, LifetimeSource};
    use crate::policy::cache::key::CacheKey;
    use crate::policy::cache::storing::Terms;
    use crate::policy::cache::tags::Tags;
    use crate::policy::cache::vary::Selecting;
    use crate::store::{Head, Joined, Sink as _, Store};

    /// What a fetch of `url` at `now` has brought.
    fn stored(store: &Store, url: &str, body: &str, now: Now) -> Arc<Base> {
        let hash = url.bytes().fold(1_u128, |hash, byte| hash.wrapping_mul(0x0100_0193).wrapping_add(u128::from(byte)));
        let key = CacheKey { text: url.into(), hash, uri: hash, search: None };
        let lifetime = Lifetime { duration: Duration::from_secs(86_400), source: LifetimeSource::MaxAge };
        let terms = Terms {
            freshness: Freshness { lifetime, initial_age: Duration::ZERO, received: now },
            no_cache: false,
            must_revalidate: false,
            stale_while_revalidate: None,
            stale_if_error: None,
            took: Duration::ZERO,
            purged: false,
        };
        let headers = HeaderMap::from_iter([(CACHE_CONTROL, HeaderValue::from_static("max-age=86400"))]);
        let (selecting, tags) = (Selecting::default(), Tags::default());
        let head = Head { status: StatusCode::OK, headers, terms, selecting, tags, rules: 0 };
        let Joined::Leader(lead) = store.join(&key, 0) else { panic!("nobody else fetches") };
        let fill = store.begin(lead, key, &store.share("files", None), head, (Some(body.len() as u64), 1 << 20));
        let Ok(mut fill) = fill else { panic!("there is room") };
        fill.push(Bytes::copy_from_slice(body.as_bytes()));
        fill.finish(None).expect("it is kept")
    }

    #[test]
    fn a_host_that_lies_once_is_not_believed_for_a_week() {
        let (store, names, start) = (Store::new(1 << 20), Names::default(), Clock::System.now());
        let hours = |hours: u64| start.plus(Duration::from_secs(3600 * hours));
        let fetch = |url: &str, body: &str, at: u64| {
            let base = stored(&store, url, body, hours(at));
            let outcome = run(&base, &names, hours(at));
            (base, outcome)
        };
        let (app, other) = ("https://a.example/app.0123abcd.js", "https://a.example/lib.89ab0123.js");
        let elsewhere = "https://b.example/app.0123abcd.js";
        let mut lives = Vec::new();
        for url in [app, other, elsewhere] {
            assert_eq!(fetch(url, "one", 0).1, Some("not_yet"));
            assert_eq!(fetch(url, "one", 1).1, Some("not_yet"));
            let (base, outcome) = fetch(url, "one", 24);
            assert_eq!((outcome, base.life().is_immutable()), (Some("kept"), true), "{url}");
            lives.push(base);
        }
        let (base, outcome) = fetch(app, "two", 25);
        assert_eq!((outcome, base.life().is_immutable()), (Some("lied"), false));
        let believed: Vec<_> = lives[1..].iter().map(|base| base.life().is_immutable()).collect();
        assert_eq!(believed, [false, true], "what was said of its other files is taken back, and only of its");
        assert_eq!(fetch(other, "one", 26).1, Some("not_believed"));
        assert_eq!(fetch(other, "one", 25 + 7 * 24).1, Some("kept"), "after a week");
        // A digest of the bytes is a proof whoever names it.
        let digest: String =
            digest::digest(&SHA256, b"three").as_ref().iter().take(4).map(|b| format!("{b:02x}")).collect();
        let (base, outcome) = fetch(&format!("https://a.example/x.{digest}.js"), "three", 26);
        assert_eq!((outcome, base.life().is_immutable()), (Some("digest"), true));
        assert_eq!(fetch("https://a.example/plain.js", "one", 0).1, None);
    }
}
