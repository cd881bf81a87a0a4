//! What both sides of HTTP/2 share: how the `h2` crate reaches a connection.
//!
//! | file | subject |
//! |---|---|
//! | `cork` | one write a turn |
//! | `tunnel` | a stream as bytes both ways |

mod cork;
mod tunnel;

pub use cork::{Cork, Corked, cork};
pub use tunnel::StreamTunnel;
