//! What both drivers know about the connection they drive.

use std::rc::Rc;
use std::sync::Arc;

use super::gate::{Counters, Gate};
use super::lifecycle::Seat;
use super::{Handler, Settings};
use crate::body::Peer;
use crate::clock::Clock;

/// A client connection past PROXY protocol and TLS, ready for HTTP.
pub(super) struct Connection<H> {
    /// Who is there.
    pub(super) peer: Rc<Peer>,
    /// The listener's settings when the connection was accepted; kept to its end.
    pub(super) settings: Arc<Settings>,
    /// Who answers.
    pub(super) handler: H,
    /// The place in the listener's life.
    pub(super) seat: Seat,
    /// For `Date`.
    pub(super) clock: Clock,
    /// Where faults are counted.
    pub(super) gate: Arc<Gate>,
}

impl<H: Handler> Connection<H> {
    /// By the listener's TLS, not by what the client claims.
    pub(super) fn scheme(&self) -> http::uri::Scheme {
        if self.peer.tls.is_some() { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP }
    }

    /// The process's counters.
    pub(super) fn counters(&self) -> &Counters {
        self.gate.counters()
    }
}
