//! The harness: a real Tidegate between a scripted origin and a client that can say anything.
//!
//! Everything here blocks on plain sockets, each origin connection on its own thread, so that a test reads from top to
//! bottom. Order is forced with [`gate::Gate`]s that the test opens, never with sleeps, and every wait has the bound
//! [`PATIENCE`], after which it fails and says what it was waiting for.
//!
//! * [`tidegate`] starts the built program on ports of the system's choosing, edits its files, reads its logs;
//! * [`origin`] answers what a script says, whole or broken, and remembers what it was asked; [`h2_origin`] does so in
//!   HTTP/2, and [`frames`] breaks its rules frame by frame; [`dns`] says where it is, or does not;
//! * [`client`] speaks HTTP/1 in raw bytes, plain or over TLS; [`h2`] speaks HTTP/2;
//! * [`pki`] makes certificates; [`wire`] and [`gate`] are what the others stand on.

use std::time::Duration;

pub mod client;
pub mod dns;
pub mod frames;
pub mod gate;
pub mod h2;
pub mod h2_origin;
pub mod origin;
pub mod pki;
pub mod rng;
pub mod tidegate;
pub mod wire;

/// Longest wait for anything that should happen: far more than a slow machine needs, less than anybody's patience.
pub const PATIENCE: Duration = Duration::from_secs(10);
