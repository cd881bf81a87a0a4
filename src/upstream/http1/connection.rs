//! One connection's bytes: written, read, counted, and read as an answer.
//!
//! An origin may answer and close while the request body is still going out (413, 401). The next write then fails, with
//! the answer here already. So a failed write is not reported: writing stops, reading goes on and finds the answer, or
//! the end of the connection. That end is then a reset and no clean close: the kernel tells of a reset once, and the
//! write was told. An answer that lasts until close would else look complete.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use tokio::io::AsyncReadExt;

use super::head::{self, HEAD_BYTES, Head};
use crate::body::http1::{Decoded, Decoder, Fault, Outbox, READ_CHUNK, borrow_buffer, return_buffer};
use crate::error::ErrorKind;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::fault;
use crate::upstream::stream::Stream;

/// Room made for one read, and for one read of a body that keeps filling it: as much as a socket has by default.
const ROOM: (usize, usize) = (READ_CHUNK / 2, 64 * 1024);
/// 1xx heads one exchange may get; more is a flood.
const INTERIM_HEADS: u32 = 32;

/// A connection to an endpoint, speaking HTTP/1.1.
#[derive(Debug)]
pub(in crate::upstream) struct Connection {
    stream: Stream,
    /// Whose counters grow with the bytes.
    counted: Option<Arc<Endpoint>>,
    inbox: BytesMut,
    /// What goes out next.
    pub(in crate::upstream) outbox: Outbox,
    read: u64,
    written: u64,
    write_failed: bool,
    /// The origin has closed its side, or the connection broke.
    ended: bool,
    /// Room for the next read.
    room: usize,
    /// Bytes of the inbox in which the end of a head was not found.
    looked_at: usize,
    /// 1xx heads of the exchange at hand.
    interims: u32,
}

impl Connection {
    /// HTTP/1.1 over a fresh stream.
    pub(in crate::upstream) fn new(stream: Stream, counted: Option<Arc<Endpoint>>) -> Self {
        Self {
            stream,
            counted,
            inbox: BytesMut::new(),
            outbox: Outbox::default(),
            read: 0,
            written: 0,
            write_failed: false,
            ended: false,
            room: ROOM.0,
            looked_at: 0,
            interims: 0,
        }
    }

    /// Bytes read so far, over all exchanges.
    pub(in crate::upstream) fn read(&self) -> u64 {
        self.read
    }

    /// Bytes written so far, over all exchanges.
    pub(in crate::upstream) fn written(&self) -> u64 {
        self.written
    }

    /// False once a write has failed: what is not written never will be.
    pub(in crate::upstream) fn takes_writes(&self) -> bool {
        !self.write_failed
    }

    /// Starts over for the next exchange.
    pub(in crate::upstream) fn begin(&mut self) {
        self.room = ROOM.0;
        self.interims = 0;
    }

    /// True between two exchanges: all is written, and nothing has come that nobody asked for. No system call.
    pub(in crate::upstream) fn is_settled(&self) -> bool {
        !self.ended && !self.write_failed && self.inbox.is_empty() && self.outbox.is_settled()
    }

    /// True when the connection could take a request now. Looks at the socket once, without leaving a waker behind:
    /// nobody is to be woken for an idle connection. No system call while nothing has come.
    pub(in crate::upstream) fn is_reusable(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.is_settled() && self.poll_read(&mut cx).is_pending()
    }

    /// Writes what waits. True when all of it is with the transport, and the transport still takes bytes.
    pub(in crate::upstream) fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        if self.write_failed {
            return false;
        }
        let mut moved = 0;
        let polled = self.outbox.poll_write(cx, &mut self.stream, &mut moved);
        if moved > 0 {
            self.written += moved;
            if let Some(endpoint) = &self.counted {
                endpoint.count_written(moved);
            }
        }
        if let Poll::Ready(Err(_)) = polled {
            self.write_failed = true;
            self.outbox = Outbox::default();
        }
        matches!(polled, Poll::Ready(Ok(())))
    }

    /// The final head; each interim one goes to `interim`, but 100, which is for this hop: our own side has told the
    /// client to go on.
    pub(in crate::upstream) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        mut interim: impl FnMut(Head),
    ) -> Poll<Result<Head, ErrorKind>> {
        loop {
            let head = ready!(self.poll_any_head(cx))?;
            match head.status {
                StatusCode::SWITCHING_PROTOCOLS => return Poll::Ready(Ok(head)),
                status if !status.is_informational() => return Poll::Ready(Ok(head)),
                status => {
                    self.interims += 1;
                    if self.interims > INTERIM_HEADS {
                        return Poll::Ready(Err(ErrorKind::MalformedResponse("interim_flood")));
                    }
                    if status != StatusCode::CONTINUE {
                        interim(head);
                    }
                }
            }
        }
    }

    fn poll_any_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, ErrorKind>> {
        loop {
            if let Some(head) = self.take_head()? {
                return Poll::Ready(Ok(head));
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::ConnectionClosed)),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(fault::of_head(&error))),
            }
        }
    }

    /// The head in the inbox, if it is whole. What has come is parsed at its first sight, which nearly always shows all
    /// of it; after that only when it may have its end, or has doubled: an origin that sends its head byte by byte costs
    /// no more than twice what one that sends it at once does.
    fn take_head(&mut self) -> Result<Option<Head>, ErrorKind> {
        let (length, seen) = (self.inbox.len(), self.looked_at);
        if length == 0 || (seen > 0 && length < 2 * seen && length <= HEAD_BYTES && !head::may_end(&self.inbox, seen)) {
            return Ok(None);
        }
        match head::parse(&self.inbox)? {
            Some((head, length)) => {
                self.inbox.advance(length);
                self.looked_at = 0;
                Ok(Some(head))
            }
            None => {
                self.looked_at = length;
                Ok(None)
            }
        }
    }

    /// The next piece of the answer's body.
    pub(in crate::upstream) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        decoder: &mut Decoder,
    ) -> Poll<Result<Decoded, ErrorKind>> {
        loop {
            match decoder.decode(&mut self.inbox) {
                Ok(Decoded::Need) => {}
                Ok(decoded) => return Poll::Ready(Ok(decoded)),
                Err(fault) => return Poll::Ready(Err(malformed(fault))),
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) if decoder.is_until_close() => return Poll::Ready(Ok(Decoded::End)),
                Ok(0) => return Poll::Ready(Err(ErrorKind::ResponseTruncated)),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(fault::of_body(&error))),
            }
        }
    }

    /// The body behind a head when all of it has come: it need not be streamed then.
    pub(in crate::upstream) fn take_whole(&mut self, decoder: &mut Decoder) -> Option<Bytes> {
        let length = decoder.remaining()?;
        if length > self.inbox.len() as u64 {
            return None;
        }
        match decoder.decode(&mut self.inbox) {
            Ok(Decoded::Data(whole)) => Some(whole),
            _ => None,
        }
    }

    /// The stream under HTTP and what was read too far, where HTTP has ended (101).
    pub(in crate::upstream) fn into_stream(self) -> (Stream, Bytes) {
        (self.stream, self.inbox.freeze())
    }

    /// Reads once into the inbox; zero means the origin closed its side. A connection that waits holds no buffer.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.inbox.capacity() == 0 {
            self.inbox = borrow_buffer();
        }
        self.inbox.reserve(self.room);
        let room = self.inbox.capacity() - self.inbox.len();
        let polled = pin!(self.stream.read_buf(&mut self.inbox)).poll(cx);
        if self.inbox.is_empty() {
            return_buffer(&mut self.inbox);
        }
        match ready!(polled) {
            Ok(0) if self.write_failed => {
                self.ended = true;
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            Ok(read) => {
                self.ended = read == 0;
                self.room = if read == room { ROOM.1.min(2 * room) } else { ROOM.0 };
                self.read += read as u64;
                if let Some(endpoint) = &self.counted {
                    endpoint.count_read(read as u64);
                }
                Poll::Ready(Ok(read))
            }
            Err(error) => {
                self.ended = true;
                Poll::Ready(Err(error))
            }
        }
    }
}

/// A broken body, in the words of a failed answer.
fn malformed(fault: Fault) -> ErrorKind {
    ErrorKind::MalformedResponse(match fault {
        Fault::Ambiguous(reason) | Fault::Malformed(reason) => reason,
        Fault::TrailersTooLarge => "trailers_too_large",
        Fault::TooManyTrailers => "too_many_trailers",
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::upstream::stream::Plain;

    #[tokio::test]
    async fn what_came_before_a_failed_write_is_still_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut http = Connection::new(Stream::Plain(Plain::Tcp(stream)), None);
        let write = async |http: &mut Connection, text: &'static [u8]| {
            http.outbox.push(Bytes::from_static(text));
            std::future::poll_fn(|cx| Poll::Ready(http.poll_write(cx))).await
        };
        assert!(write(&mut http, b"half of a").await);
        peer.readable().await.unwrap();
        peer.write_all(b"HTTP/1.1 413\r\n\r\nno").await.unwrap();
        // Closed with bytes unread: the kernel resets the connection, and the next write fails.
        drop(peer);
        assert!(!write(&mut http, b"request").await);
        let head = std::future::poll_fn(|cx| http.poll_head(cx, drop)).await.unwrap();
        let mut body = head.body(false);
        let first = std::future::poll_fn(|cx| http.poll_body(cx, &mut body)).await;
        assert_eq!((head.status.as_u16(), first), (413, Ok(Decoded::Data(Bytes::from_static(b"no")))));
        let end = std::future::poll_fn(|cx| http.poll_body(cx, &mut body)).await;
        assert_eq!(end, Err(ErrorKind::ConnectionReset), "the reset comes after the answer");
        assert_eq!((http.read(), http.written(), http.is_settled()), (18, 9, false));
    }
}
