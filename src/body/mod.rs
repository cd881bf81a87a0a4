//! The single body type, and the messages that carry it.
//!
//! A body is a closed enum: every source of bytes in the process is a variant, so the compiler knows each one and the
//! hot path boxes nothing. A body is polled on one worker and need not be `Send`; the two variants that read what other
//! workers wrote ([`Body::Spool`], [`Body::Stored`]) hold only shared, thread-safe parts.

mod ahead;
mod filtered;
pub mod http1;
pub mod http2;
mod memory_file;
mod message;
mod parts;
mod spool;
mod stored;

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::error::ProxyError;

pub use ahead::read_ahead;
pub use filtered::Filtered;
pub use memory_file::{FilePiece, MemoryFile};
pub use message::{Interim, Peer, Request, Response, Sent, TlsPeer, Upgrade};
pub use parts::{Arriving, Sequence};
pub use spool::{Spool, SpoolEnd, SpoolReader, SpoolWriter, WINDOW};
pub use stored::{Keeper, StoredBody};

/// A source of body bytes that lives in another layer (a client's connection, an origin's, a transformation).
///
/// Boxed once per body, not once per frame.
pub trait Source {
    /// The next frame, as [`http_body::Body::poll_frame`].
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>>;

    /// Bytes still to come, where known: exact lengths become `Content-Length`.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }

    /// True when no frame will follow.
    fn is_end(&self) -> bool {
        false
    }
}

/// The bytes of a request or response.
#[derive(Default)]
pub enum Body {
    /// No body, or nothing left of it.
    #[default]
    Empty,
    /// Bytes at hand: local replies, and answers that came in one piece.
    Full(Bytes),
    /// A stored response, complete and shared with the store.
    Stored(StoredBody),
    /// A response on its way into the store; this reader follows the fill.
    Spool(SpoolReader),
    /// A stream from a socket or through a transformation.
    Stream(Box<dyn Source>),
}

/// A body that was to be read to its end.
pub enum Gathered {
    /// All of it.
    Whole(Bytes),
    /// It is longer than its bound: the body, with the part that was read in front.
    Longer(Body),
}

impl Body {
    /// A body out of bytes at hand.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }

    /// A body out of a streaming source.
    #[must_use]
    pub fn stream(source: impl Source + 'static) -> Self {
        Self::Stream(Box::new(source))
    }

    /// The exact number of bytes, where it is known before reading.
    #[must_use]
    pub fn exact_len(&self) -> Option<u64> {
        self.size_hint().exact()
    }

    /// The same body once more, where all of it is at hand. Cost: a reference.
    #[must_use]
    pub fn at_hand(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Full(bytes) => Some(Self::Full(bytes.clone())),
            Self::Stored(_) | Self::Spool(_) | Self::Stream(_) => None,
        }
    }

    /// What stands next in a file of memory, to be sent from there; `None` when the next frame is to be polled for.
    pub fn take_file(&mut self) -> Option<FilePiece> {
        match self {
            Self::Stored(stored) => stored.take_file(),
            _ => None,
        }
    }

    /// Reads a body to its end, if it is no longer than `bound` bytes. Trailers are left out (RFC 9110 §6.5.1). Cost: a
    /// copy, since a short chunk may hold a long buffer.
    ///
    /// # Errors
    /// The body's own.
    pub async fn gather(mut self, bound: u64) -> Result<Gathered, ProxyError> {
        let mut content = BytesMut::new();
        while let Some(frame) = self.frame().await {
            let Ok(chunk) = frame?.into_data() else { continue };
            content.extend_from_slice(&chunk);
            if content.len() as u64 > bound {
                return Ok(Gathered::Longer(Self::stream(Sequence::new([Self::full(content), self]))));
            }
        }
        Ok(Gathered::Whole(content.freeze()))
    }

    /// The next frame; for use outside of `poll` functions.
    pub async fn frame(&mut self) -> Option<Result<Frame<Bytes>, ProxyError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Empty => "Empty",
            Self::Full(_) => "Full",
            Self::Stored(_) => "Stored",
            Self::Spool(_) => "Spool",
            Self::Stream(_) => "Stream",
        };
        f.debug_struct(name).field("len", &self.exact_len()).finish()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            full @ Self::Full(_) => match std::mem::take(full) {
                Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                _ => Poll::Ready(None),
            },
            Self::Stored(stored) => Poll::Ready(stored.next_frame().map(Ok)),
            Self::Spool(reader) => reader.poll_frame(cx),
            Self::Stream(source) => source.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Stored(stored) => stored.is_end(),
            Self::Spool(reader) => reader.is_end(),
            Self::Stream(source) => source.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stored(stored) => SizeHint::with_exact(stored.remaining()),
            Self::Spool(reader) => reader.size_hint(),
            Self::Stream(source) => source.size_hint(),
        }
    }
}
