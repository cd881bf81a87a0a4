//! A connection that gathers what the `h2` crate writes and lets go of it once per turn.
//!
//! The crate flushes one DATA frame at a time, which costs a system call, and a TLS record set, per response. Here its
//! writes are appended to a buffer and its flushes do nothing; whoever drives the connection flushes when the crate has nothing more to say.
//! The buffer holds at most [`FULL`] bytes and one frame: a full buffer is written before more is taken.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::http1::{borrow_buffer, return_buffer};

/// Bytes gathered at most before they are written.
const FULL: usize = 128 * 1024;

#[derive(Debug)]
struct State<S> {
    io: S,
    /// Read before the crate took over.
    first: BytesMut,
    gathered: BytesMut,
    /// Bytes the peer has sent so far.
    received: u64,
    /// Bytes the transport has taken so far.
    written: u64,
    /// The transport may hold something back.
    unflushed: bool,
}

impl<S: AsyncWrite + Unpin> State<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>, progress: &mut bool) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *progress = true;
            self.unflushed = true;
            self.written += written as u64;
            self.gathered.advance(written);
        }
        return_buffer(&mut self.gathered);
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// What the `h2` crate reads from and writes to.
#[derive(Debug)]
pub struct Corked<S>(Rc<RefCell<State<S>>>);

/// The hand of whoever drives it.
#[derive(Debug)]
pub struct Cork<S>(Rc<RefCell<State<S>>>);

/// A corked connection from which `first` was read already.
#[must_use]
pub fn cork<S>(io: S, first: BytesMut) -> (Corked<S>, Cork<S>) {
    let state = State { io, first, gathered: BytesMut::new(), received: 0, written: 0, unflushed: false };
    let state = Rc::new(RefCell::new(state));
    (Corked(Rc::clone(&state)), Cork(state))
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    /// Writes what was gathered; `progress` is set when any byte moved.
    ///
    /// # Errors
    /// The transport's.
    pub fn poll_release(&self, cx: &mut Context<'_>, progress: &mut bool) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_drain(cx, progress)
    }
}

impl<S> Cork<S> {
    /// Bytes the peer has sent so far, but for those read before the crate took over.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.0.borrow().received
    }

    /// Bytes written to the peer so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.0.borrow().written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.0.borrow_mut();
        if state.first.is_empty() {
            let before = to.filled().len();
            ready!(Pin::new(&mut state.io).poll_read(cx, to))?;
            state.received += (to.filled().len() - before) as u64;
            return Poll::Ready(Ok(()));
        }
        let length = to.remaining().min(state.first.len());
        to.put_slice(&state.first.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(from)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.borrow_mut();
        if state.gathered.len() >= FULL {
            ready!(state.poll_drain(cx, &mut false))?;
        }
        if state.gathered.capacity() == 0 {
            state.gathered = borrow_buffer();
        }
        from.iter().for_each(|slice| state.gathered.extend_from_slice(slice));
        Poll::Ready(Ok(from.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        ready!(state.poll_drain(cx, &mut false))?;
        Pin::new(&mut state.io).poll_shutdown(cx)
    }
}
