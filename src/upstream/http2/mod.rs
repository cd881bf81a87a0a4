//! HTTP/2 towards an origin (RFC 9113): drives the client of the `h2` crate.
//!
//! | file | subject |
//! |---|---|
//! | `sessions` | a worker's connections per endpoint: which one takes the next stream, who waits, who opens another |
//! | `session` | one connection and the task that drives it: SETTINGS, GOAWAY, PING, floods |
//! | `request` | the head that goes out |
//! | `upload` | the body that goes out, under the origin's flow control |
//! | `exchange` | one stream, up to the response head |
//! | `answer` | the body that comes back |
//! | `fault` | what an error of the crate was, in our words |
//! | `ask` | one question on a connection of its own, for probes |
//!
//! A connection has a task, unlike those of HTTP/1.1: its frames belong to many exchanges. An exchange is polled where
//! its client is; dropping it resets its stream (`CANCEL`) and leaves the connection to the others.
//!
//! What an origin may do, and what becomes of it:
//!
//! | origin | outcome |
//! |---|---|
//! | does not speak HTTP/2 | `MalformedResponse("not_http2")`, over TLS `TlsHandshake` |
//! | GOAWAY | no new streams; those it still answers go on, the others go elsewhere, silently ([`Retry::Unprocessed`]) |
//! | RST_STREAM `REFUSED_STREAM` | likewise elsewhere |
//! | RST_STREAM with another code before the head | `ConnectionReset`; behind it, the answer is cut |
//! | RST_STREAM `NO_ERROR` behind a whole answer | the answer is whole, the upload ends (§8.1); whole is what END_STREAM or `Content-Length` says is |
//! | ends or breaks the connection | `ConnectionClosed`, `ConnectionReset`; within a body `ResponseTruncated` |
//! | sends fewer or more bytes than its `Content-Length`, connection-specific fields, bad pseudo-fields | `MalformedResponse` |
//! | more than 64 KiB or 100 fields of head | `ResponseHeaderTooLarge`; of trailers, or more than 256 KiB, `MalformedResponse` |
//! | 1xx | passed on, but 100; more than 32, or 101, are `MalformedResponse` |
//! | DATA in answer to HEAD, or behind 204 or 304 | not read; the stream is reset |
//! | floods of frames, or of frames that carry no message | the connection is closed: `MalformedResponse` |
//! | never opens its window | `WriteTimeout` |
//! | says nothing for 20 s with a stream open, and does not answer a PING either | `ConnectionReset` |
//!
//! Memory of one stream: [`STREAM_WINDOW`] of answer that was not taken yet, one piece of upload with the crate, and
//! what is kept of an upload to send it again ([`upload::KEPT`]).
//!
//! [`Retry::Unprocessed`]: crate::error::Retry::Unprocessed

mod answer;
mod ask;
mod exchange;
mod fault;
mod request;
mod session;
mod sessions;
#[cfg(test)]
mod tests;
mod upload;

use h2::client::Builder;
use http::HeaderMap;

pub(super) use ask::ask;
pub(super) use exchange::Attempt;
pub(super) use request::head;
pub(super) use sessions::{Acquired, Lease, Place, Sessions};

/// Bytes of one answer the origin may send ahead of the client: what a slow client costs.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Streams on one connection, whatever the origin allows: more share a fate and a congestion window to no gain.
const STREAMS: usize = 128;
/// Bytes of all answers together. The windows of all streams, so that clients that do not read do not stop those that
/// do by what they leave; [`SMALL_FRAMES`] bounds how small the pieces may be.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;
/// The largest frame taken; the protocol's minimum.
const FRAME: u32 = 16 * 1024;
/// Bytes of a response head or of trailers, as for HTTP/1.1.
const HEAD_BYTES: usize = 64 * 1024;
/// Fields of a response head, likewise.
const HEAD_FIELDS: usize = 100;
/// Bytes of a head the crate takes: beyond it closes the connection, and all streams on it suffer for one.
const HEAD_BYTES_READ: u32 = 256 * 1024;
/// What frames of DATA below 256 bytes may lack to that while nobody has read them, all streams together; beyond it the
/// crate closes the connection, since each costs memory that no window counts. One stream filled byte by byte: a single
/// client that does not read costs the others nothing.
const SMALL_FRAMES: usize = STREAM_WINDOW as usize * 256;
/// 1xx heads one exchange may get; more is a flood.
const INTERIM_HEADS: u32 = 32;
/// Bytes of one upload the crate may hold.
const SEND_BUFFER: usize = 128 * 1024;
/// Streams we reset that the crate remembers, to ignore what the origin sent before it knew.
const RESET_MEMORY: usize = 128;
/// What the crate is told of the streams the origin allows before the origin says it: a number no SETTINGS can carry,
/// so that one can see whether they came.
const UNSAID: usize = usize::MAX - 1;

/// True when a head or trailers are within bounds.
fn fits(fields: &HeaderMap) -> bool {
    let bytes = fields.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    fields.len() <= HEAD_FIELDS && bytes <= HEAD_BYTES
}

/// How every connection to an origin begins.
fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .max_concurrent_streams(0)
        .initial_max_send_streams(UNSAID)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEAD_BYTES_READ)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(SMALL_FRAMES)
        .max_concurrent_reset_streams(RESET_MEMORY);
    builder
}
