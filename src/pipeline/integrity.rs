//! Which files are named by a digest on some page (Subresource Integrity): their bytes are never altered, or browsers
//! would refuse them.
//!
//! Every page, script and JSON text that passes while any policy alters scripts or style sheets is searched for digests, in
//! the stream. A file is altered only while no such digest is its own; one that is named later loses what was made of it.
//! What pages of other sites check is not seen here: such files are loaded by CORS, and answers that allow it are left as
//! they are.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};

use super::worker::Worker;
use crate::body::{Body, Response, Source};
use crate::error::ProxyError;
use crate::policy::encoding::Coding;
use crate::policy::mend;
use crate::policy::optimise;
use crate::store::Life;
use crate::transform::Filter;
use crate::transform::coding::{DECODED_MAX, Decoder};
use crate::transform::integrity::{Digest, Scanner};

/// Digests that are remembered. Beyond, no script or style sheet is altered any more: better none than a wrong one.
const NAMED_MAX: usize = 65_536;
/// Files that were altered and may still be named.
const ALTERED_MAX: usize = 65_536;

/// What is known of digests. One a process.
#[derive(Debug, Default)]
pub(super) struct Integrity(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    named: HashSet<Digest>,
    altered: HashMap<Digest, Weak<Life>>,
}

impl Integrity {
    /// Takes note that a page names this digest.
    pub(super) fn name(&self, digest: Digest) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if book.named.len() < NAMED_MAX && book.named.insert(digest) {
            let altered = book.altered.remove(&digest).and_then(|life| life.upgrade());
            drop(book);
            if let Some(life) = altered {
                life.pin();
            }
        }
    }

    /// Whether the file with these bytes may be altered; it is remembered as one that is.
    pub(super) fn allows(&self, bytes: &[u8], life: &std::sync::Arc<Life>) -> bool {
        let digests = [&SHA256, &SHA384, &SHA512].map(|algorithm| short(algorithm, bytes));
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if book.altered.len() + digests.len() > ALTERED_MAX {
            book.altered.retain(|_, life| life.strong_count() > 0);
        }
        let full = book.named.len() >= NAMED_MAX || book.altered.len() + digests.len() > ALTERED_MAX;
        if full || life.is_pinned() || digests.iter().any(|digest| book.named.contains(digest)) {
            return false;
        }
        book.altered.extend(digests.map(|digest| (digest, std::sync::Arc::downgrade(life))));
        true
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
        let decoder = mend::only_coding(&response.headers).map(decoder);
        let inner = std::mem::take(&mut response.body);
        response.body = match inner {
            Body::Empty => Body::Empty,
            inner => {
                let workshop = worker.shared.workshop.clone();
                Body::stream(Watched { inner, decoder, scanner: Scanner::default(), workshop })
            }
        };
    }
    response
}

fn decoder(coding: Coding) -> Decoder {
    Decoder::new(coding, DECODED_MAX)
}

/// A body that passes as it is, and is searched for digests.
struct Watched {
    inner: Body,
    /// Reads a copy of what is coded; `None` also once it cannot be read.
    decoder: Option<Decoder>,
    scanner: Scanner,
    workshop: super::workshop::Workshop,
}

impl Watched {
    fn look(&mut self, data: &[u8]) {
        let integrity = self.workshop.integrity();
        match &mut self.decoder {
            None => self.scanner.push(data, |digest| integrity.name(digest)),
            Some(decoder) => {
                let mut plain = BytesMut::new();
                // What cannot be decoded here cannot be by a browser either.
                if decoder.push(data, &mut plain).is_ok() {
                    self.scanner.push(&plain, |digest| integrity.name(digest));
                }
            }
        }
    }
}

impl Source for Watched {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let polled = std::pin::Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.look(&data.clone());
        }
        polled
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }

    fn is_end(&self) -> bool {
        self.inner.is_end_stream()
    }
}
