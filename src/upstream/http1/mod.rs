//! HTTP/1.1 towards an origin (RFC 9112), strict: an answer that two readers could cut in two ways is refused by name.
//!
//! | file | subject |
//! |---|---|
//! | `connection` | one connection's bytes, and what they amount to |
//! | `request` | the head that goes out |
//! | `upload` | the body that goes out |
//! | `head` | the head that comes back |
//!
//! Nothing here waits, knows of time, or has a task: whoever has an exchange on a connection polls it. Bodies are read
//! and written by [`crate::body::http1`], as those of the clients are.
//!
//! What an origin may do with an answer, and what becomes of it; each `MalformedResponse` has the reason in it:
//!
//! | origin sends | outcome |
//! |---|---|
//! | `Transfer-Encoding` and `Content-Length`, two of either, a list, any coding but `chunked`, a coding in HTTP/1.0 | `MalformedResponse` |
//! | obs-fold, a space before the colon, a NUL, a bare CR or LF, no status line, HTTP/0.9 | `MalformedResponse` |
//! | more than 64 KiB or 100 fields of head | `ResponseHeaderTooLarge` |
//! | 100 | dropped; other 1xx are passed on; more than 32 are `MalformedResponse` |
//! | 101 nobody asked for, to another protocol, or before it has the whole request | `MalformedResponse` |
//! | a chunk line, extensions or trailers that are broken or too long | `MalformedResponse`, what came before is passed on |
//! | an end before the end that was announced | `ResponseTruncated` |
//! | bytes behind the answer, or on an idle connection | not read; the connection is not used again |
//!
//! Lenient, because real origins need it: a status line may end behind the status (`HTTP/1.1 200`), a body may end with
//! its connection, a status may be one nobody has registered, and a 204 or 304 may carry a `Content-Length`, which says
//! nothing there (§6.3). Not lenient about bare LF, though §2.2 would allow it: no origin in use depends on it.

mod connection;
mod head;
mod request;
mod upload;

pub(super) use connection::Connection;
pub(super) use head::Head;
pub(super) use request::{RequestHead, framing, is_writable};
pub(super) use upload::Upload;
