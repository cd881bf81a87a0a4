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
