//! Parts of bodies, and bodies made of parts. Nothing is copied: what is sent are slices of what is held.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::{Body, Source, SpoolReader};
use crate::error::{ErrorKind, ProxyError, Stage};

/// A part of a body that is still arriving: what comes before it is passed over as it arrives, what comes behind it is
/// not waited for. A body that ends before the part does is an error, never a short part. Trailers belong to the whole
/// and are left out.
#[derive(Debug)]
pub struct Arriving {
    reader: Option<SpoolReader>,
    skip: u64,
    left: u64,
}

impl Arriving {
    /// The bytes `range` of what `reader` reads from its beginning. Cost: one lock, and a look at each chunk that is
    /// passed over.
    #[must_use]
    pub fn new(mut reader: SpoolReader, range: Range<u64>) -> Self {
        let skip = range.start - reader.pass_over(range.start);
        Self { reader: Some(reader), skip, left: range.end - range.start }
    }

    /// The part of `chunk` that is asked for; empty when it lies before it.
    fn cut(&mut self, mut chunk: Bytes) -> Bytes {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
        self.skip -= skipped as u64;
        chunk = chunk.slice(skipped..);
        chunk.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= chunk.len() as u64;
        chunk
    }
}

impl Source for Arriving {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        loop {
            if self.left == 0 {
                // Those who still read do not have to wait for this one.
                self.reader = None;
            }
            let Some(reader) = &mut self.reader else { return Poll::Ready(None) };
            let frame = match std::task::ready!(reader.poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data().ok(),
                Some(Err(error)) => {
                    self.reader = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => None,
            };
            let Some(chunk) = frame else {
                self.reader = None;
                return Poll::Ready(Some(Err(ProxyError::new(ErrorKind::ResponseTruncated, Stage::Fill))));
            };
            let chunk = self.cut(chunk);
            if !chunk.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }

    fn is_end(&self) -> bool {
        self.reader.is_none() || self.left == 0
    }
}

/// Bodies one behind the other. The length is known where theirs are; trailers are passed on as they come, so only the
/// last may have any.
#[derive(Debug)]
pub struct Sequence(VecDeque<Body>);

impl Sequence {
    /// The bodies in the order in which they are sent.
    #[must_use]
    pub fn new(bodies: impl IntoIterator<Item = Body>) -> Self {
        Self(bodies.into_iter().collect())
    }
}

impl Source for Sequence {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        while let Some(first) = self.0.front_mut() {
            match std::task::ready!(Pin::new(first).poll_frame(cx)) {
                Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
                Some(Err(error)) => {
                    self.0.clear();
                    return Poll::Ready(Some(Err(error)));
                }
                None => self.0.pop_front(),
            };
        }
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.0.iter().try_fold(0_u64, |sum, body| body.exact_len()?.checked_add(sum));
        length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    fn is_end(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::body::{Spool, SpoolWriter};

    fn spool(length: u64) -> (Spool, SpoolWriter) {
        Spool::new(1000, Some(length), Arc::new(()))
    }

    /// What a poll gave: bytes, the end, an error, or nothing yet.
    fn poll(source: &mut impl Source) -> Option<Result<Bytes, ErrorKind>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match source.poll_frame(&mut cx) {
            Poll::Pending => None,
            Poll::Ready(None) => Some(Ok(Bytes::new())),
            Poll::Ready(Some(frame)) => {
                Some(frame.map(|frame| frame.into_data().unwrap_or_default()).map_err(|error| error.kind))
            }
        }
    }

    fn bytes(text: &'static str) -> Option<Result<Bytes, ErrorKind>> {
        Some(Ok(Bytes::from_static(text.as_bytes())))
    }

    #[test]
    fn a_part_is_sent_as_it_arrives_and_its_reader_leaves_at_its_end() {
        let (spool, mut writer) = spool(10);
        writer.push(Bytes::from_static(b"0123"));
        let mut part = Arriving::new(spool.reader().expect("nothing dropped yet"), 5..8);
        assert_eq!((poll(&mut part), part.size_hint().exact()), (None, Some(3)));
        writer.push(Bytes::from_static(b"45"));
        assert_eq!(poll(&mut part), bytes("5"));
        assert_eq!(poll(&mut part), None);
        writer.push(Bytes::from_static(b"6789"));
        assert_eq!((poll(&mut part), part.is_end()), (bytes("67"), true));
        assert_eq!(poll(&mut part), bytes(""));
        assert!(part.reader.is_none(), "it would hold up those who read on");
    }

    #[test]
    fn what_has_arrived_is_passed_over_at_once() {
        let (spool, mut writer) = spool(12);
        for chunk in ["0123", "4567", "89ab"] {
            writer.push(Bytes::from_static(chunk.as_bytes()));
        }
        for (range, expected) in [(0..2, "01"), (4..6, "45"), (5..8, "567"), (8..12, "89ab"), (11..12, "b")] {
            let mut part = Arriving::new(spool.reader().expect("nothing dropped yet"), range.clone());
            assert!(part.skip < 4, "{range:?}: only within a chunk");
            assert_eq!(poll(&mut part), bytes(expected));
            assert_eq!(poll(&mut part), bytes(""));
        }
    }

    #[test]
    fn a_body_that_ends_before_its_part_is_an_error() {
        for finishes in [true, false] {
            let (spool, mut writer) = spool(10);
            let mut part = Arriving::new(spool.reader().expect("nothing dropped yet"), 2..6);
            writer.push(Bytes::from_static(b"0123"));
            if finishes {
                writer.finish(None)
            } else {
                drop(writer)
            }
            assert_eq!(poll(&mut part), bytes("23"));
            assert_eq!(poll(&mut part), Some(Err(ErrorKind::ResponseTruncated)));
            assert!(part.is_end());
        }
    }

    #[test]
    fn bodies_in_a_row() {
        let mut row = Sequence::new(["one ", "", "two"].map(Body::full));
        assert_eq!(row.size_hint().exact(), Some(7));
        assert_eq!((poll(&mut row), poll(&mut row)), (bytes("one "), bytes("two")));
        assert_eq!((poll(&mut row), row.is_end()), (bytes(""), true));
    }
}
