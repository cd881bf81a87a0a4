//! HTTP/1.0 and 1.1 (RFC 9112), strict: what two servers could read in two ways is refused by name.
//!
//! | file | subject |
//! |---|---|
//! | `head` | where a request head ends, what it says |
//! | `look_alike` | field names that some origin takes for framing |
//! | `encode` | response heads |
//! | `wire` | one connection's bytes and deadlines |
//! | `driver` | the loop over exchanges |
//! | `tunnel` | what follows an upgrade |
//!
//! Bodies are read and written by [`crate::body::http1`], as those of the origins are.
//!
//! Absent on purpose: `h2c` upgrades, CONNECT, `Transfer-Encoding` other than `chunked`, HTTP/0.9.

mod driver;
mod encode;
mod head;
mod look_alike;
mod tunnel;
mod wire;

#[cfg(test)]
mod tests;

pub(super) use driver::serve;
pub(super) use look_alike::look_alike;
