//! A body that is written once and read by many while it grows: the heart of collapsing and filling.
//!
//! One writer (the fill) appends chunks, any number of readers on any worker follow at their own speed. While the bytes
//! fit `limit` all of them are kept, so that the finished spool becomes the stored body without a copy. A body that
//! outgrows the limit cannot be stored any more: the spool then keeps a window of [`WINDOW`] bytes, which moves on with
//! its slowest reader. How long that one may hold up the others is the writer's business: it can cut those who lag, who
//! get an error, which their client sees as a cut connection.
//!
//! Whoever counts the bytes hangs a [`Keeper`] on the spool: it lives as long as anybody can read them, also after the
//! store has let go of the body.
//!
//! What may be stored is copied, once, into memory of its own size: chunks come as slices of a connection's read buffer,
//! and one kilobyte kept would keep all of that buffer.
//!
//! One mutex a spool; it is taken per chunk, never per byte, and never on a hit (a hit reads a [`StoredBody`]).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::stored::{Keeper, StoredBody};
use crate::error::{ErrorKind, ProxyError, Stage};

/// Bytes a spool keeps for its readers once the body is too large to be stored.
pub const WINDOW: usize = 1024 * 1024;

/// Chunks smaller than this on average are joined when the body is complete: each costs a place in the list besides.
const SMALL_CHUNK: usize = 4 * 1024;

/// Largest body whose chunks are joined; the copy is made on a worker, in one go.
const JOINED_MAX: usize = 1024 * 1024;

/// How a spooled body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpoolEnd {
    /// All bytes arrived.
    Complete,
    /// The source failed; readers pass the error on after the bytes they can still have.
    Failed(ProxyError),
}

/// A growing body; see the module. Cheap to clone, shared by all workers.
#[derive(Debug, Clone)]
pub struct Spool(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    chunks: VecDeque<Bytes>,
    /// Number of the first chunk in `chunks`; above zero only in window mode.
    first: usize,
    /// Bytes in `chunks`.
    kept: usize,
    /// Most bytes that may be kept for storing.
    limit: usize,
    /// True once `limit` was passed: nothing will be stored.
    window: bool,
    /// `Content-Length` of the source, where it gave one.
    expected: Option<u64>,
    total: u64,
    trailers: Option<HeaderMap>,
    end: Option<SpoolEnd>,
    readers: Vec<Option<ReaderSlot>>,
    /// It has had a reader.
    was_read: bool,
    /// Given up, because the last reader left: nobody may begin to read any more.
    abandoned: bool,
    writer: Option<Waker>,
    /// To be woken when the last reader leaves.
    watcher: Option<Waker>,
    keeper: Keeper,
}

#[derive(Debug, Default)]
struct ReaderSlot {
    /// Number of the next chunk this reader takes.
    next: usize,
    waker: Option<Waker>,
}

impl State {
    fn wake_readers(&mut self) {
        for slot in self.readers.iter_mut().flatten() {
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
    }

    fn head(&self) -> usize {
        self.first + self.chunks.len()
    }

    /// Where the readers stand that have not been cut.
    fn places(&self) -> impl Iterator<Item = usize> {
        self.readers.iter().flatten().map(|slot| slot.next).filter(|next| *next >= self.first)
    }

    /// Drops the oldest chunk; false when there is none.
    fn drop_first(&mut self) -> bool {
        let Some(chunk) = self.chunks.pop_front() else { return false };
        self.kept -= chunk.len();
        self.first += 1;
        true
    }

    /// In window mode: drops what every reader has taken.
    fn trim(&mut self) {
        let slowest = self.places().min().unwrap_or(usize::MAX);
        while self.first < slowest && self.drop_first() {}
    }
}

impl Spool {
    /// A spool that keeps at most `limit` bytes, with its writer. `expected` is the announced length, if any.
    #[must_use]
    pub fn new(limit: usize, expected: Option<u64>, keeper: Keeper) -> (Self, SpoolWriter) {
        let spool = Self(Arc::new(Mutex::new(State {
            chunks: VecDeque::new(),
            first: 0,
            kept: 0,
            limit,
            window: false,
            expected,
            total: 0,
            trailers: None,
            end: None,
            readers: Vec::new(),
            was_read: false,
            abandoned: false,
            writer: None,
            watcher: None,
            keeper,
        })));
        (spool.clone(), SpoolWriter { spool, keeping: true, ended: false })
    }

    /// A reader from the first byte, or `None` when the beginning is no longer kept, or the writer gave up.
    #[must_use]
    pub fn reader(&self) -> Option<SpoolReader> {
        let mut state = self.lock();
        if state.first > 0 || state.abandoned {
            return None;
        }
        state.was_read = true;
        let free = state.readers.iter().position(Option::is_none);
        let slot = free.unwrap_or(state.readers.len());
        match state.readers.get_mut(slot) {
            Some(place) => *place = Some(ReaderSlot::default()),
            None => state.readers.push(Some(ReaderSlot::default())),
        }
        drop(state);
        Some(SpoolReader { spool: self.clone(), slot, taken: 0, done: false })
    }

    /// True while a reader could still have all of it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let state = self.lock();
        state.first == 0 && !state.abandoned
    }

    /// The complete body, once the writer has finished and everything was kept.
    #[must_use]
    pub fn freeze(&self) -> Option<StoredBody> {
        let state = self.lock();
        if state.window || state.end != Some(SpoolEnd::Complete) {
            return None;
        }
        let trailers = state.trailers.clone().map(Arc::new);
        let chunks: Arc<[Bytes]> = state.chunks.iter().cloned().collect();
        let (kept, keeper) = (state.kept, Arc::clone(&state.keeper));
        drop(state);
        let small = chunks.len() > 1 && kept / SMALL_CHUNK < chunks.len();
        let joined = (small && kept <= JOINED_MAX).then(|| Arc::from([Bytes::from(chunks.concat())]));
        Some(StoredBody::new(joined.unwrap_or(chunks), trailers, keeper))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A poisoned lock means a panic between two plain field updates; the state is still a consistent prefix.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one writer of a spool. Dropping it before [`SpoolWriter::finish`] fails the spool, so that no reader can take a
/// cut-off body for a whole one.
#[derive(Debug)]
pub struct SpoolWriter {
    spool: Spool,
    /// What is pushed may still be stored.
    keeping: bool,
    ended: bool,
}

impl SpoolWriter {
    /// Waits until the spool has room: at once while everything is kept, else until the slowest reader has caught up.
    /// `Ready(false)` means that nobody will read or store what is written, so the writer may stop.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.spool.lock();
        if !state.window {
            return Poll::Ready(true);
        }
        if state.places().next().is_none() {
            state.trim();
            return Poll::Ready(false);
        }
        state.trim();
        if state.kept <= WINDOW {
            return Poll::Ready(true);
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Cuts the readers that hold up the fastest one, as far as is needed to make room: they have lost the next chunk they
    /// would take. Never the fastest itself, whose pace is the writer's.
    pub fn cut_laggards(&mut self) {
        let mut state = self.spool.lock();
        let fastest = state.places().max().unwrap_or(usize::MAX);
        while state.kept > WINDOW && state.first < fastest && state.drop_first() {}
    }

    /// Waits until the last of its readers has left, for a writer that goes on for them alone. From then on nobody may
    /// begin to read: the writer is to be dropped.
    pub fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.spool.lock();
        state.abandoned |= state.was_read && state.readers.iter().all(Option::is_none);
        if state.abandoned {
            return Poll::Ready(());
        }
        state.watcher = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Appends one chunk and wakes the readers. Cost: one lock, and a copy while the body may still be stored.
    pub fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        let chunk = if self.keeping { Bytes::copy_from_slice(&chunk) } else { chunk };
        let mut state = self.spool.lock();
        state.kept += chunk.len();
        state.total += chunk.len() as u64;
        state.chunks.push_back(chunk);
        if state.kept > state.limit {
            state.window = true;
        }
        self.keeping = !state.window;
        state.wake_readers();
    }

    /// True once the body has outgrown what may be stored.
    #[must_use]
    pub fn outgrown(&self) -> bool {
        self.spool.lock().window
    }

    /// Bytes held for readers or for storing.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.spool.lock().kept
    }

    /// Gives up storing the body: from now on it only passes through the window to its readers.
    pub fn stop_keeping(&mut self) {
        self.spool.lock().window = true;
    }

    /// Ends the body well.
    pub fn finish(mut self, trailers: Option<HeaderMap>) {
        self.end(SpoolEnd::Complete, trailers);
    }

    /// Ends the body with the source's failure.
    pub fn fail(mut self, error: ProxyError) {
        self.end(SpoolEnd::Failed(error), None);
    }

    fn end(&mut self, end: SpoolEnd, trailers: Option<HeaderMap>) {
        self.ended = true;
        let mut state = self.spool.lock();
        // A source that ends short of its own Content-Length is a failure however it ended.
        let short = state.expected.is_some_and(|expected| expected != state.total);
        state.end = Some(match end {
            SpoolEnd::Complete if short => SpoolEnd::Failed(ProxyError::new(ErrorKind::ResponseTruncated, Stage::Fill)),
            other => other,
        });
        state.trailers = trailers;
        state.wake_readers();
    }
}

impl Drop for SpoolWriter {
    fn drop(&mut self) {
        if !self.ended {
            self.end(SpoolEnd::Failed(ProxyError::new(ErrorKind::ResponseTruncated, Stage::Fill)), None);
        }
    }
}

/// One reader of a spool, from the first byte on.
#[derive(Debug)]
pub struct SpoolReader {
    spool: Spool,
    slot: usize,
    taken: u64,
    done: bool,
}

impl SpoolReader {
    /// Bytes the writer has written so far, dropped ones included.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.spool.lock().total
    }

    /// Waits until `bytes` have arrived; false when the body ended before.
    pub fn poll_arrived(&mut self, cx: &mut Context<'_>, bytes: u64) -> Poll<bool> {
        let mut state = self.spool.lock();
        if state.total >= bytes || state.end.is_some() {
            return Poll::Ready(state.total >= bytes);
        }
        if let Some(Some(slot)) = state.readers.get_mut(self.slot) {
            slot.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The length of the whole body, where its source announced one.
    #[must_use]
    pub fn expected(&self) -> Option<u64> {
        self.spool.lock().expected
    }

    /// Passes over whole chunks that have arrived, together `bytes` at most; returns what they had.
    pub(super) fn pass_over(&mut self, bytes: u64) -> u64 {
        let mut guard = self.spool.lock();
        let state = &mut *guard;
        let Some(Some(slot)) = state.readers.get_mut(self.slot) else { return 0 };
        // Once chunks have been dropped, only reading on tells whether this reader fell behind.
        let ahead = state.chunks.iter().skip(slot.next).take_while(|_| state.first == 0);
        let mut passed = 0;
        for chunk in ahead {
            if passed + chunk.len() as u64 > bytes {
                break;
            }
            passed += chunk.len() as u64;
            slot.next += 1;
        }
        self.taken += passed;
        passed
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let mut guard = self.spool.lock();
        let state = &mut *guard;
        let (first, head) = (state.first, state.head());
        let Some(Some(slot)) = state.readers.get_mut(self.slot) else { return Poll::Ready(None) };
        let next = slot.next;
        if next < first {
            self.done = true;
            return Poll::Ready(Some(Err(ProxyError::new(ErrorKind::Internal("fell_behind_fill"), Stage::Fill))));
        }
        if next < head {
            slot.next += 1;
            let chunk = state.chunks.get(next - first).cloned().unwrap_or_default();
            if let Some(waker) = state.writer.take() {
                waker.wake();
            }
            self.taken += chunk.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match state.end {
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(SpoolEnd::Complete) => {
                self.done = true;
                Poll::Ready(state.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Some(SpoolEnd::Failed(error)) => {
                self.done = true;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    pub(super) fn is_end(&self) -> bool {
        self.done
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let state = self.spool.lock();
        let length = state.expected.or((state.end == Some(SpoolEnd::Complete)).then_some(state.total));
        length.map_or_else(SizeHint::default, |length| SizeHint::with_exact(length.saturating_sub(self.taken)))
    }
}

impl Drop for SpoolReader {
    fn drop(&mut self) {
        let mut state = self.spool.lock();
        if let Some(slot) = state.readers.get_mut(self.slot) {
            *slot = None;
        }
        if let Some(waker) = state.writer.take() {
            waker.wake();
        }
        if state.readers.iter().all(Option::is_none)
            && let Some(waker) = state.watcher.take()
        {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(reader: &mut SpoolReader) -> Poll<Option<Result<Bytes, ErrorKind>>> {
        let mut cx = Context::from_waker(Waker::noop());
        reader.poll_frame(&mut cx).map(|frame| {
            frame.map(|frame| frame.map(|f| f.into_data().unwrap_or_default()).map_err(|error| error.kind))
        })
    }

    fn bytes(text: &'static str) -> Poll<Option<Result<Bytes, ErrorKind>>> {
        Poll::Ready(Some(Ok(Bytes::from_static(text.as_bytes()))))
    }

    #[test]
    fn readers_follow_and_the_finished_spool_is_the_stored_body() {
        let (spool, mut writer) = Spool::new(100, None, Arc::new(()));
        let mut early = spool.reader().expect("nothing dropped yet");
        assert_eq!(poll(&mut early), Poll::Pending);
        writer.push(Bytes::from_static(b"one "));
        assert_eq!(poll(&mut early), bytes("one "));
        writer.push(Bytes::from_static(b"two"));
        let mut late = spool.reader().expect("nothing dropped yet");
        assert_eq!(poll(&mut late), bytes("one "));
        writer.finish(None);
        assert_eq!(poll(&mut early), bytes("two"));
        assert_eq!(poll(&mut early), Poll::Ready(None));
        assert_eq!(spool.freeze().expect("complete").remaining(), 7);
    }

    #[test]
    fn what_is_kept_stands_in_memory_of_its_own() {
        let buffer = Bytes::from(vec![1; 64 * 1024]);
        for (sizes, chunks) in [(&[10][..], 1), (&[10, 20, 30], 1), (&[SMALL_CHUNK, 2 * SMALL_CHUNK], 2)] {
            let (spool, mut writer) = Spool::new(usize::MAX, None, Arc::new(()));
            for size in sizes {
                writer.push(buffer.slice(..*size));
            }
            writer.finish(None);
            let body = spool.freeze().expect("complete");
            assert_eq!((body.chunks().len(), body.remaining()), (chunks, sizes.iter().sum::<usize>() as u64));
            assert!(buffer.is_unique(), "a slice of the buffer is still held: {sizes:?}");
        }
    }

    #[test]
    fn a_slice_shares_the_bytes_and_keeps_the_keeper() {
        let keeper: Keeper = Arc::new(());
        let chunks: Arc<[Bytes]> = as_bytes(&["0123", "4567", "89"]).into();
        let body = StoredBody::new(chunks, Some(Arc::new(HeaderMap::new())), Arc::clone(&keeper));
        for (range, expected) in [
            (0..10, &["0123", "4567", "89"][..]),
            (0..4, &["0123"]),
            (3..5, &["3", "4"]),
            (4..8, &["4567"]),
            (5..7, &["56"]),
            (9..10, &["9"]),
        ] {
            let slice = body.slice(range.clone());
            assert_eq!((slice.chunks(), slice.remaining()), (&as_bytes(expected)[..], range.end - range.start));
            assert!(slice.trailers().is_none());
            assert!(slice.chunks().iter().all(|part| body.chunks().iter().any(|chunk| holds(chunk, part))));
        }
        let slice = body.slice(2..3);
        drop(body);
        assert_eq!(Arc::strong_count(&keeper), 2, "the slice counts as a holder");
        drop(slice);
        assert_eq!(Arc::strong_count(&keeper), 1);
    }

    fn as_bytes(texts: &[&'static str]) -> Vec<Bytes> {
        texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
    }

    /// True when `part` lies in the memory of `chunk`.
    fn holds(chunk: &Bytes, part: &Bytes) -> bool {
        chunk.as_ptr_range().start <= part.as_ptr_range().start && part.as_ptr_range().end <= chunk.as_ptr_range().end
    }

    #[test]
    fn a_short_or_abandoned_body_never_looks_complete() {
        for abandon in [true, false] {
            let (spool, mut writer) = Spool::new(100, Some(10), Arc::new(()));
            let mut reader = spool.reader().expect("nothing dropped yet");
            writer.push(Bytes::from_static(b"half"));
            if abandon {
                drop(writer)
            } else {
                writer.finish(None)
            }
            assert_eq!(poll(&mut reader), bytes("half"));
            assert_eq!(poll(&mut reader), Poll::Ready(Some(Err(ErrorKind::ResponseTruncated))));
            assert!(spool.freeze().is_none());
        }
    }

    #[test]
    fn a_reader_can_wait_for_what_it_needs() {
        for ends in [true, false] {
            let (spool, mut writer) = Spool::new(100, None, Arc::new(()));
            let mut reader = spool.reader().expect("nothing dropped yet");
            let mut cx = Context::from_waker(Waker::noop());
            writer.push(Bytes::from_static(b"1234"));
            assert_eq!(reader.poll_arrived(&mut cx, 4), Poll::Ready(true));
            assert_eq!(reader.poll_arrived(&mut cx, 5), Poll::Pending);
            if ends {
                writer.finish(None);
                assert_eq!(reader.poll_arrived(&mut cx, 5), Poll::Ready(false));
            } else {
                writer.push(Bytes::from_static(b"5"));
                assert_eq!(reader.poll_arrived(&mut cx, 5), Poll::Ready(true));
            }
            assert_eq!(poll(&mut reader), bytes("1234"), "nothing was taken");
        }
    }

    #[test]
    fn a_writer_may_give_up_once_the_last_reader_has_left() {
        let (spool, mut writer) = Spool::new(100, None, Arc::new(()));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(writer.poll_abandoned(&mut cx), Poll::Pending, "nobody has come yet");
        let (one, other) = (spool.reader().expect("whole"), spool.reader().expect("whole"));
        drop(one);
        assert_eq!(writer.poll_abandoned(&mut cx), Poll::Pending);
        drop(other);
        let late = spool.reader().expect("nobody has given up yet");
        assert_eq!(writer.poll_abandoned(&mut cx), Poll::Pending, "another one came in time");
        drop(late);
        assert_eq!(writer.poll_abandoned(&mut cx), Poll::Ready(()));
        assert!(spool.reader().is_none() && !spool.is_whole(), "nobody joins what is given up");
    }

    #[test]
    fn an_outgrown_body_goes_on_in_a_window_and_cuts_laggards() {
        let (spool, mut writer) = Spool::new(10, None, Arc::new(()));
        let mut fast = spool.reader().expect("nothing dropped yet");
        let mut slow = spool.reader().expect("nothing dropped yet");
        let mut cx = Context::from_waker(Waker::noop());
        let chunk = Bytes::from(vec![7; WINDOW / 2]);
        for _ in 0..3 {
            assert_eq!(writer.poll_ready(&mut cx), Poll::Ready(true));
            writer.push(chunk.clone());
        }
        assert!(writer.outgrown());
        assert_eq!(writer.poll_ready(&mut cx), Poll::Pending, "the window is full and nobody has read");
        for _ in 0..3 {
            assert!(matches!(poll(&mut fast), Poll::Ready(Some(Ok(_)))));
        }
        assert_eq!(writer.poll_ready(&mut cx), Poll::Pending, "the slow one may catch up yet");
        assert!(matches!(poll(&mut slow), Poll::Ready(Some(Ok(_)))));
        assert_eq!(writer.poll_ready(&mut cx), Poll::Ready(true), "and has made room");
        for _ in 0..2 {
            writer.push(chunk.clone());
        }
        writer.cut_laggards();
        assert_eq!(writer.poll_ready(&mut cx), Poll::Ready(true));
        assert_eq!(poll(&mut slow), Poll::Ready(Some(Err(ErrorKind::Internal("fell_behind_fill")))));
        writer.push(chunk);
        writer.cut_laggards();
        assert_eq!(writer.poll_ready(&mut cx), Poll::Pending, "the fastest is never cut");
        assert!(matches!(poll(&mut fast), Poll::Ready(Some(Ok(_)))));
        assert_eq!(writer.poll_ready(&mut cx), Poll::Ready(true));
        drop(fast);
        assert_eq!(writer.poll_ready(&mut cx), Poll::Ready(false), "one that was cut does not count");
        drop(slow);
        assert_eq!(writer.poll_ready(&mut cx), Poll::Ready(false), "nobody reads and nothing will be stored");
        assert!(spool.reader().is_none(), "the beginning is gone");
    }
}
