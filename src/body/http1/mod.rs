//! What both sides of HTTP/1.1 share (RFC 9112): a client's connection and an origin's speak the same bytes, so they are
//! read and written by the same code.
//!
//! | file | subject |
//! |---|---|
//! | `buffer` | the read buffers that a worker's connections share |
//! | `decode` | the body out of the bytes that arrive |
//! | `encode` | fields, chunks and trailers |
//! | `fault` | why field lines are none |
//! | `framing` | how long a body is |
//! | `outbox` | bytes on their way out, gathered |
//! | `send_file` | what the outbox needs of a connection; sockets that are sent files |
//!
//! What a *head* may say differs per side, and so do the words for its faults: that is for the drivers.

mod buffer;
mod decode;
mod encode;
mod fault;
mod framing;
mod outbox;
mod send_file;

pub use buffer::{READ_CHUNK, borrow_buffer, return_buffer};
pub use decode::{Decoded, Decoder, Fault};
pub use encode::{chunk_head, field, fields, is_hop_field, last_chunk, length_field};
pub use fault::{field_line_fault, is_token};
pub use framing::{Declared, Framing};
pub use outbox::Outbox;
pub use send_file::SendsFiles;
