//! Which files are named by a digest on some page (Subresource Integrity): their bytes are never altered, or browsers
//! would refuse them.
//!
//! Every page, script and JSON text that passes while any policy alters scripts or style sheets is searched for digests, in
//! the stream. A file is altered only while no such digest is its own; one that is named later loses what was made of it.
//! What pages of other sites check is not seen here: such files are loaded by CORS, and answers that allow it are left as
//! they are. Nor is a page of this site that passes another process or comes from another server: there the operator has
//! to `forbid` the optimisers.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, SHA512, digest};

use super::watched::{self, Onlooker};
use super::worker::Worker;
use super::workshop::Workshop;
use crate::body::Response;
use crate::policy::optimise;
use crate::store::Life;
use crate::transform::integrity::{Digest, Scanner};

/// Digests of a generation; two are remembered. Those of the former that no page has named again since are forgotten when
/// the younger is full.
const NAMED_MAX: usize = 32_768;
/// Digests of files that were altered and may still be named. Beyond, no further file is altered.
const ALTERED_MAX: usize = 65_536;
/// Stored responses with the same bytes that may all be altered.
const EQUAL_MAX: usize = 16;

/// What is known of digests. One a process.
#[derive(Debug, Default)]
pub(super) struct Integrity(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    named: Named,
    altered: HashMap<Digest, Vec<Weak<Life>>>,
}

/// The digests that pages name, in two generations.
#[derive(Debug, Default)]
struct Named {
    young: HashSet<Digest>,
    former: HashSet<Digest>,
}

impl Named {
    /// True for one that was not known.
    fn insert(&mut self, digest: Digest) -> bool {
        if !self.young.insert(digest) {
            return false;
        }
        let known = self.former.contains(&digest);
        if self.young.len() >= NAMED_MAX {
            let forgotten = self.former.difference(&self.young).count();
            tracing::warn!(
                forgotten,
                kept = self.young.len(),
                "pages name very many digests: the oldest are forgotten"
            );
            self.former = std::mem::take(&mut self.young);
        }
        !known
    }

    fn contains(&self, digest: &Digest) -> bool {
        self.young.contains(digest) || self.former.contains(digest)
    }
}

impl Integrity {
    /// Takes note that a page names this digest.
    pub(super) fn name(&self, digest: Digest) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if book.named.insert(digest) {
            let altered = book.altered.remove(&digest).unwrap_or_default();
            drop(book);
            altered.iter().filter_map(Weak::upgrade).for_each(|life| life.pin());
        }
    }

    /// Takes note that the file with these bytes is altered, where it may be.
    ///
    /// # Errors
    /// Why not, as a stable name.
    pub(super) fn allow(&self, bytes: &[u8], life: &Arc<Life>) -> Result<(), &'static str> {
        let digests = [&SHA256, &SHA384, &SHA512].map(|algorithm| short(algorithm, bytes));
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if life.is_pinned() || digests.iter().any(|digest| book.named.contains(digest)) {
            return Err("integrity");
        }
        if book.altered.len() + digests.len() > ALTERED_MAX {
            book.altered.retain(|_, lives| lives.iter().any(|life| life.strong_count() > 0));
        }
        let mut room = book.altered.len() + digests.len() <= ALTERED_MAX;
        for digest in &digests {
            if let Some(lives) = book.altered.get_mut(digest) {
                lives.retain(|other| other.strong_count() > 0 && !std::ptr::eq(other.as_ptr(), Arc::as_ptr(life)));
                room &= lives.len() < EQUAL_MAX;
            }
        }
        if !room {
            return Err("integrity_full");
        }
        for digest in digests {
            book.altered.entry(digest).or_default().push(Arc::downgrade(life));
        }
        Ok(())
    }

    /// Searches bytes at hand.
    pub(super) fn search(&self, bytes: &[u8]) {
        Scanner::default().push(bytes, |digest| self.name(digest));
    }
}

fn short(algorithm: &'static Algorithm, bytes: &[u8]) -> Digest {
    let digest = digest(algorithm, bytes);
    let first = digest.as_ref().first_chunk::<16>().copied().unwrap_or_default();
    Digest::from_be_bytes(first)
}

/// Has the body of `response` searched on its way, where it may name other files.
pub(super) fn watch(worker: &Worker, mut response: Response) -> Response {
    if optimise::may_name_others(&response.headers) {
        let search = Search { scanner: Scanner::default(), workshop: worker.shared.workshop.clone() };
        response.body = watched::watch(std::mem::take(&mut response.body), &response.headers, search);
    }
    response
}

/// Searches one body.
struct Search {
    scanner: Scanner,
    workshop: Workshop,
}

impl Onlooker for Search {
    fn look(&mut self, plain: &[u8]) -> bool {
        let integrity = self.workshop.integrity();
        self.scanner.push(plain, |digest| integrity.name(digest));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_no_more_is_forgotten_at_last() {
        let mut named = Named::default();
        let count = Digest::try_from(NAMED_MAX).expect("small");
        for digest in 0..count {
            assert!(named.insert(digest));
        }
        assert!(named.contains(&0) && !named.insert(0), "known, and named again");
        for digest in count..2 * count {
            assert!(named.insert(digest), "room for what is new");
        }
        assert!(named.contains(&0) && !named.contains(&1) && named.contains(&(2 * count - 1)));
        assert!(named.young.len() + named.former.len() <= 2 * NAMED_MAX);
    }
}
