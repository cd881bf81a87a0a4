//! A stream as a pair of byte streams (RFC 8441 §4, §5): DATA frames are what is read and written, END_STREAM is the end.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes asked of flow control at a time.
const PIECE: usize = 64 * 1024;

/// Both directions of one stream. Dropped before both have ended, it resets the stream.
#[derive(Debug)]
pub struct StreamTunnel {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// What is left of the last DATA frame.
    piece: Bytes,
    /// Bytes of messages on this connection.
    payload: Rc<Cell<u64>>,
}

impl StreamTunnel {
    /// A stream whose heads have been exchanged. What moves is added to `payload`.
    #[must_use]
    pub fn new(send: SendStream<Bytes>, receive: RecvStream, payload: Rc<Cell<u64>>) -> Self {
        Self { send, receive, piece: Bytes::new(), payload }
    }

    fn count(&self, bytes: usize) {
        self.payload.set(self.payload.get() + bytes as u64);
    }
}

fn broken(error: h2::Error) -> io::Error {
    error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
}

impl AsyncRead for StreamTunnel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.piece.is_empty() {
            match ready!(this.receive.poll_data(cx)) {
                Some(Ok(piece)) => {
                    // Fails only for a stream that is gone, which the next poll will say.
                    let _ = this.receive.flow_control().release_capacity(piece.len());
                    this.count(piece.len());
                    this.piece = piece;
                }
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = to.remaining().min(this.piece.len());
        to.put_slice(this.piece.get(..length).unwrap_or_default());
        this.piece.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamTunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if from.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.send.reserve_capacity(from.len().min(PIECE));
        while this.send.capacity() == 0 {
            match ready!(this.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let part = from.get(..this.send.capacity().min(from.len())).unwrap_or_default();
        this.send.send_data(Bytes::copy_from_slice(part), false).map_err(broken)?;
        this.count(part.len());
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().send.send_data(Bytes::new(), true).map_err(broken))
    }
}
