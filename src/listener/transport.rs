//! What a driver needs of a connection.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::body::http1::{READ_CHUNK, SendsFiles, borrow_buffer, return_buffer};

/// A client connection as the drivers see it.
pub(super) trait Transport: AsyncRead + SendsFiles + 'static {
    /// Arranges that closing looks like a failure to the client, not like the end of a body.
    fn abort(&mut self);
}

impl Transport for TcpStream {
    fn abort(&mut self) {
        // A socket that is gone already cannot look complete either.
        let _ = self.set_zero_linger();
    }
}

impl SendsFiles for TlsStream<ReadAhead> {}

impl Transport for TlsStream<ReadAhead> {
    fn abort(&mut self) {
        self.get_mut().0.io.abort();
    }
}

#[cfg(test)]
impl SendsFiles for tokio::io::DuplexStream {}

#[cfg(test)]
impl Transport for tokio::io::DuplexStream {
    fn abort(&mut self) {}
}

/// A socket under TLS: reads in large pieces, where rustls would ask for 4 KiB at a time, and begins with what was read
/// before (behind a PROXY header). Holds a buffer only while bytes wait in it.
pub(super) struct ReadAhead {
    io: TcpStream,
    buffer: BytesMut,
}

impl ReadAhead {
    /// A socket from which `buffer` was read already.
    pub(super) fn new(io: TcpStream, buffer: BytesMut) -> Self {
        Self { io, buffer }
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.buffer.is_empty() {
            if to.remaining() >= READ_CHUNK {
                return Pin::new(&mut this.io).poll_read(cx, to);
            }
            if this.buffer.capacity() == 0 {
                this.buffer = borrow_buffer();
            }
            let polled = pin!(this.io.read_buf(&mut this.buffer)).poll(cx);
            if this.buffer.is_empty() {
                return_buffer(&mut this.buffer);
            }
            ready!(polled)?;
        }
        let length = to.remaining().min(this.buffer.len());
        to.put_slice(this.buffer.get(..length).unwrap_or_default());
        this.buffer.advance(length);
        if this.buffer.is_empty() {
            return_buffer(&mut this.buffer);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, from)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
