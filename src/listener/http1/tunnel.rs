//! An upgraded connection: bytes both ways until both sides have ended, or neither has said anything for too long.
//!
//! A side that ends is half-closed on the other, once what it sent has been written; the opposite direction goes on.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::wire::Wire;
use crate::body::Upgrade;
use crate::body::http1::{READ_CHUNK, borrow_buffer, return_buffer};
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::listener::lifecycle::Seat;
use crate::listener::timer::Side;
use crate::listener::transport::Transport;
use crate::listener::{Phase, Sent};

/// Copies both ways. The outbox still holds the head that announced the tunnel.
pub(super) async fn run<S: Transport>(wire: &RefCell<Wire<S>>, upgrade: Upgrade, seat: &Seat) -> Sent {
    let Upgrade { io: mut origin, read_ahead, idle, guard } = upgrade;
    let mut up = Flow::new(Bytes::from(wire.borrow_mut().take_inbox()));
    let mut down = Flow::new(read_ahead);
    wire.borrow_mut().timer.set(Side::Read, idle);
    let ended = std::future::poll_fn(|cx| {
        let wire = &mut *wire.borrow_mut();
        if seat.poll_phase(cx) == Phase::Closing {
            return Poll::Ready(Err(ErrorKind::ClientGone));
        }
        let moved = up.moved + down.moved;
        let head = wire.poll_flush(cx).map_err(|_| ErrorKind::ClientGone)?;
        let up_end = up.poll_copy(cx, wire.io(), &mut *origin).map_err(|side| side.blame())?;
        let down_end = match head {
            Poll::Ready(()) => down.poll_copy(cx, &mut *origin, wire.io()).map_err(|side| side.flip().blame())?,
            Poll::Pending => Poll::Pending,
        };
        if up_end.is_ready() && down_end.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if up.moved + down.moved > moved {
            wire.timer.set(Side::Read, idle);
        }
        wire.timer.poll(cx).map(|_| Err(ErrorKind::ReadTimeout))
    })
    .await;
    drop(guard);
    let error = ended.err().map(|kind| ProxyError::new(kind, Stage::Listener));
    Sent { body_bytes: down.moved, complete: error.is_none(), error }
}

/// The end of a flow that failed.
#[derive(Debug, Clone, Copy)]
enum End {
    From,
    To,
}

impl End {
    fn flip(self) -> Self {
        match self {
            Self::From => Self::To,
            Self::To => Self::From,
        }
    }

    /// The fault, of a flow from the client to the origin.
    fn blame(self) -> ErrorKind {
        match self {
            Self::From => ErrorKind::ClientGone,
            Self::To => ErrorKind::ConnectionReset,
        }
    }
}

/// One direction.
struct Flow {
    first: Bytes,
    buffer: BytesMut,
    ended: bool,
    shut: bool,
    moved: u64,
}

impl Flow {
    fn new(first: Bytes) -> Self {
        Self { first, buffer: BytesMut::new(), ended: false, shut: false, moved: 0 }
    }

    /// Ready when `from` has ended and `to` has been told.
    fn poll_copy<A, B>(&mut self, cx: &mut Context<'_>, from: &mut A, to: &mut B) -> Poll<Result<(), End>>
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
