//! Bytes one way between the two sides of a tunnel, whatever they are made of.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::body::http1::{READ_CHUNK, borrow_buffer, return_buffer};
use crate::error::ErrorKind;

/// The end of a flow that failed.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    From,
    To,
}

impl End {
    pub(super) fn flip(self) -> Self {
        match self {
            Self::From => Self::To,
            Self::To => Self::From,
        }
    }

    /// The fault, of a flow from the client to the origin.
    pub(super) fn blame(self) -> ErrorKind {
        match self {
            Self::From => ErrorKind::ClientGone,
            Self::To => ErrorKind::ConnectionReset,
        }
    }
}

/// One direction.
pub(super) struct Flow {
    first: Bytes,
    buffer: BytesMut,
    ended: bool,
    shut: bool,
    /// Bytes written so far.
    pub(super) moved: u64,
}

impl Flow {
    /// A flow that begins with `first`.
    pub(super) fn new(first: Bytes) -> Self {
        Self { first, buffer: BytesMut::new(), ended: false, shut: false, moved: 0 }
    }

    /// Ready when `from` has ended and `to` has been told.
    pub(super) fn poll_copy<A, B>(&mut self, cx: &mut Context<'_>, from: &mut A, to: &mut B) -> Poll<Result<(), End>>
    where
        A: AsyncRead + Unpin + ?Sized,
        B: AsyncWrite + Unpin + ?Sized,
    {
        loop {
            ready!(self.poll_write(cx, to)).or(Err(End::To))?;
            if self.ended {
                return self.poll_shut(cx, to);
            }
            if self.buffer.capacity() == 0 {
                self.buffer = borrow_buffer();
            }
            self.buffer.reserve(READ_CHUNK / 2);
            let reading = &mut *from;
            match pin!(reading.read_buf(&mut self.buffer)).poll(cx) {
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(End::From)),
                Poll::Pending => {
                    return_buffer(&mut self.buffer);
                    ready!(Pin::new(&mut *to).poll_flush(cx)).or(Err(End::To))?;
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_write<B: AsyncWrite + Unpin + ?Sized>(&mut self, cx: &mut Context<'_>, to: &mut B) -> Poll<io::Result<()>> {
        loop {
            let first = !self.first.is_empty();
            let waiting = if first { &self.first[..] } else { &self.buffer[..] };
            if waiting.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let written = ready!(Pin::new(&mut *to).poll_write(cx, waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.moved += written as u64;
            if first { self.first.advance(written) } else { self.buffer.advance(written) }
        }
    }

    fn poll_shut<B: AsyncWrite + Unpin + ?Sized>(&mut self, cx: &mut Context<'_>, to: &mut B) -> Poll<Result<(), End>> {
        if !self.shut {
            // The peer may have closed both of its halves already; then there is nobody to tell.
            let _ = ready!(Pin::new(to).poll_shutdown(cx));
            self.shut = true;
        }
        Poll::Ready(Ok(()))
    }
}
