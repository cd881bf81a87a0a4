//! A complete body of the store, and a reader's place in it.
//!
//! The bytes stand in chunks of memory, as they came in, or in one sealed file of memory ([`MemoryFile`]), from which a
//! plain socket is served without a copy. Either way every reader can have them as chunks.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::memory_file::{FilePiece, MemoryFile};

/// Something to be dropped when the last holder of a body is gone.
pub type Keeper = Arc<dyn Any + Send + Sync>;

/// A complete body shared with the store: a list of chunks and a place in it. Cloning copies a few pointers.
#[derive(Debug, Clone)]
pub struct StoredBody {
    chunks: Arc<[Bytes]>,
    /// Where the one chunk stands in a file of memory.
    file: Option<Arc<MemoryFile>>,
    trailers: Option<Arc<HeaderMap>>,
    next: usize,
    remaining: u64,
    _keeper: Keeper,
}

impl StoredBody {
    /// A body out of its chunks.
    #[must_use]
    pub fn new(chunks: Arc<[Bytes]>, trailers: Option<Arc<HeaderMap>>, keeper: Keeper) -> Self {
        let remaining = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        Self { chunks, file: None, trailers, next: 0, remaining, _keeper: keeper }
    }

    /// The same body in a file of memory; `keeper` lives as long as anybody can read it there. Cost: a copy of the whole
    /// body, and a descriptor for as long as it lives.
    ///
    /// # Errors
    /// When the kernel refuses the file: descriptors or memory are short.
    pub fn in_file(&self, keeper: Keeper) -> std::io::Result<Self> {
        let file = Arc::new(MemoryFile::new(&self.chunks, Arc::clone(&keeper))?);
        let mut body = Self::new(Arc::from([file.bytes()]), self.trailers.clone(), keeper);
        body.file = Some(file);
        Ok(body)
    }

    /// True when it stands in a file of memory.
    #[must_use]
    pub fn is_in_file(&self) -> bool {
        self.file.is_some()
    }

    /// What is left of the bytes, to be sent from their file; `None` when they stand elsewhere or were taken already.
    /// Trailers follow as the next frame.
    pub(super) fn take_file(&mut self) -> Option<FilePiece> {
        let file = self.file.as_ref().filter(|_| self.next == 0 && self.remaining > 0)?;
        self.next = 1;
        self.remaining = 0;
        Some(FilePiece::whole(file))
    }

    /// Bytes not yet taken by this reader; of a fresh clone, the length of the body.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The chunks, for encoders and hashing.
    #[must_use]
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// The bytes `range`, which must lie within the body, without trailers. Nothing is copied. Cost: a look at each chunk
    /// up to the end of the range.
    #[must_use]
    pub fn slice(&self, range: Range<u64>) -> Self {
        let mut begin = 0;
        let parts = self.chunks.iter().filter_map(|chunk| {
            let end = begin + chunk.len() as u64;
            let (from, to) = (range.start.max(begin), range.end.min(end));
            let within = |at: u64| usize::try_from(at - begin).unwrap_or(usize::MAX);
            let part = (from < to).then(|| chunk.slice(within(from)..within(to)));
            begin = end;
            part
        });
        Self::new(parts.collect(), None, Arc::clone(&self._keeper))
    }

    /// The trailer fields, if any.
    #[must_use]
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_deref()
    }

    pub(super) fn is_end(&self) -> bool {
        self.next >= self.chunks.len() && self.trailers.is_none()
    }

    pub(super) fn next_frame(&mut self) -> Option<Frame<Bytes>> {
        if let Some(chunk) = self.chunks.get(self.next) {
            self.next += 1;
            self.remaining -= chunk.len() as u64;
            return Some(Frame::data(chunk.clone()));
        }
        self.trailers.take().map(|trailers| Frame::trailers(trailers.as_ref().clone()))
    }
}
