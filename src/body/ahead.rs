//! A body that is read ahead of whoever takes it, by a bounded number of bytes: its source is done with sooner.
//!
//! One task reads, one body is read, both on one worker. What waits is copied into pieces of its own: a short chunk may
//! be a slice of a long buffer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use super::{Body, Source};
use crate::error::ProxyError;

/// Size of the pieces that what waits is kept in: what a connection reads at a time.
const PIECE: usize = 16 * 1024;

/// What has been read and not been taken.
#[derive(Debug)]
struct Shelf {
    pieces: VecDeque<BytesMut>,
    /// Bytes in `pieces`.
    kept: usize,
    limit: usize,
    /// How the source ended.
    end: Option<Result<Option<HeaderMap>, ProxyError>>,
    /// What is left to take, where the length is known.
    left: Option<u64>,
    /// Nobody takes anything any more.
    left_alone: bool,
    taker: Option<Waker>,
    reader: Option<Waker>,
}

impl Shelf {
    fn put(&mut self, chunk: &[u8]) {
        self.kept += chunk.len();
        // Whoever takes everything at once gets it as it comes.
        let size = if self.pieces.is_empty() { chunk.len() } else { PIECE };
        let mut rest = chunk;
        while !rest.is_empty() {
            match self.pieces.back_mut() {
                Some(piece) if piece.len() < piece.capacity() => {
                    let (fits, more) = rest.split_at(rest.len().min(piece.capacity() - piece.len()));
                    piece.extend_from_slice(fits);
                    rest = more;
                }
                _ => self.pieces.push_back(BytesMut::with_capacity(size)),
            }
        }
        wake(&mut self.taker);
    }

    fn finish(&mut self, end: Result<Option<HeaderMap>, ProxyError>) {
        self.end = Some(end);
        wake(&mut self.taker);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// `body`, read up to `limit` bytes ahead (one frame more at most) by the future, which is to be spawned on the same
/// worker. It ends with the source; when the body is dropped it drops the source at once. Errors and trailers come behind
/// the bytes before them.
pub fn read_ahead(body: Body, limit: usize) -> (Body, impl Future<Output = ()> + 'static) {
    let shelf = Rc::new(RefCell::new(Shelf {
        pieces: VecDeque::new(),
        kept: 0,
        limit,
        end: None,
        left: body.exact_len(),
        left_alone: false,
        taker: None,
        reader: None,
    }));
    (Body::stream(Ahead(Rc::clone(&shelf))), read(body, shelf))
}

async fn read(mut body: Body, shelf: Rc<RefCell<Shelf>>) {
    std::future::poll_fn(|cx| {
        loop {
            {
                let mut shelf = shelf.borrow_mut();
                if shelf.left_alone {
                    return Poll::Ready(());
                }
                shelf.reader = Some(cx.waker().clone());
                if shelf.kept >= shelf.limit {
                    return Poll::Pending;
                }
            }
            let frame = std::task::ready!(Pin::new(&mut body).poll_frame(cx));
            let mut shelf = shelf.borrow_mut();
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(chunk))) => shelf.put(&chunk),
                Some(Ok(Err(frame))) => {
                    shelf.finish(Ok(frame.into_trailers().ok()));
                    return Poll::Ready(());
                }
                Some(Err(error)) => {
                    shelf.finish(Err(error));
                    return Poll::Ready(());
                }
                None => {
                    shelf.finish(Ok(None));
                    return Poll::Ready(());
                }
            }
        }
    })
    .await;
}

/// The side that takes.
struct Ahead(Rc<RefCell<Shelf>>);

impl Source for Ahead {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let mut shelf = self.0.borrow_mut();
        if let Some(piece) = shelf.pieces.pop_front() {
            shelf.kept -= piece.len();
            shelf.left = shelf.left.map(|left| left.saturating_sub(piece.len() as u64));
            wake(&mut shelf.reader);
            return Poll::Ready(Some(Ok(Frame::data(piece.freeze()))));
        }
        match shelf.end.take() {
            None => {
                shelf.taker = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(Ok(trailers)) => {
                shelf.end = Some(Ok(None));
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Some(Err(error)) => {
                shelf.end = Some(Ok(None));
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.0.borrow().left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    fn is_end(&self) -> bool {
        let shelf = self.0.borrow();
        shelf.pieces.is_empty() && matches!(shelf.end, Some(Ok(None)))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let mut shelf = self.0.borrow_mut();
        shelf.left_alone = true;
        wake(&mut shelf.reader);
    }
}
