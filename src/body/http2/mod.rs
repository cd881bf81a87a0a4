//! What both sides of HTTP/2 share: how the `h2` crate reaches a connection.
//!
//! | file | subject |
//! |---|---|
//! | `cork` | one write a turn |

mod cork;

pub use cork::{Cork, Corked, cork};
