//! The socket under an HTTP connection: TCP or unix, plain or TLS, and a meter on it.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

/// A transport before TLS.
#[derive(Debug)]
pub(super) enum Plain {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A transport as HTTP sees it. The TLS state is boxed: it is a kilobyte that plain connections need not carry.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(Plain),
    Tls(Box<TlsStream<Plain>>),
}

/// Calls one method on whichever stream is inside.
macro_rules! delegate {
    ($self:ident, $type:ident { $($variant:ident),+ }, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            $($type::$variant($stream) => { let $stream = Pin::new($stream); $call })+
        }
    };
}

impl AsyncRead for Plain {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self, Plain { Tcp, Unix }, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Plain {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, Plain { Tcp, Unix }, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, Plain { Tcp, Unix }, stream => stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, Plain { Tcp, Unix }, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, Plain { Tcp, Unix }, stream => stream.poll_shutdown(cx))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self, Stream { Plain, Tls }, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, Stream { Plain, Tls }, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, Stream { Plain, Tls }, stream => stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, Stream { Plain, Tls }, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, Stream { Plain, Tls }, stream => stream.poll_shutdown(cx))
    }
}

/// Bytes that passed a connection so far. One per connection, read by whoever drives it.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) read: Cell<u64>,
    pub(super) written: Cell<u64>,
}

/// A stream under hyper's care.
///
/// An origin may answer and close while the request body is still going out (413, 401). The next write then fails, and
/// hyper would give up before reading the answer that is already here. So a failed write is not reported: writing stops,
/// reading goes on and finds the answer, or the end of the connection. That end is then a reset and no clean close: the
/// kernel tells of a reset once, and the write was told. An answer that lasts until close would else look complete.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    meter: Rc<Meter>,
    write_failed: bool,
}

impl Wire {
    pub(super) fn new(stream: Stream) -> (Self, Rc<Meter>) {
        let meter = Rc::new(Meter::default());
        (Self { stream, meter: Rc::clone(&meter), write_failed: false }, meter)
    }

    /// The stream itself, where HTTP ends (101).
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Counts what was written; without it, stops writing.
    fn settle_write(&mut self, written: Option<usize>) -> Poll<io::Result<usize>> {
        match written {
            Some(written) => {
                self.meter.written.set(self.meter.written.get() + written as u64);
                Poll::Ready(Ok(written))
            }
            None => {
                self.write_failed = true;
                Poll::Pending
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        if read == 0 && this.write_failed {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        this.meter.read.set(this.meter.read.get() + read as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.write_failed {
            return Poll::Pending;
        }
        let outcome = ready!(Pin::new(&mut this.stream).poll_write(cx, buf));
        this.settle_write(outcome.ok())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.write_failed {
            return Poll::Pending;
        }
        let outcome = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, bufs));
        this.settle_write(outcome.ok())
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.write_failed {
            return Poll::Pending;
        }
        match ready!(Pin::new(&mut this.stream).poll_flush(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(_) => {
                this.write_failed = true;
                Poll::Pending
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_came_before_a_failed_write_is_still_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        let (mut wire, meter) = Wire::new(Stream::Plain(Plain::Tcp(stream)));
        wire.write_all(b"half of a").await.unwrap();
        peer.readable().await.unwrap();
        peer.write_all(b"413").await.unwrap();
        // Closed with bytes unread: the kernel resets the connection, and the next write fails.
        drop(peer);
        let write = std::future::poll_fn(|cx| Pin::new(&mut wire).poll_write(cx, b"request"));
        assert!(futures_util::FutureExt::now_or_never(write).is_none(), "the failure is not reported");
        let mut answer = [0; 3];
        wire.read_exact(&mut answer).await.unwrap();
        assert_eq!((&answer, meter.read.get(), meter.written.get()), (b"413", 3, 9));
        assert!(wire.read(&mut answer).await.is_err(), "the reset comes after the answer");
    }
}
