//! How long an exchange waits for its origin: one lazily armed timer per connection.
//!
//! Nothing is done to the timer per frame or even per request: it stays armed for some moment not later than the next
//! deadline, and when it fires early it is set again. A busy connection touches the timer wheel once per period.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::connect::now;
use crate::error::ErrorKind;
use crate::policy::pool::PoolTimeouts;

/// Who owes what, and how far it has come: while two looks find the same, nothing has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// The client owes the next piece of the request.
    Client,
    /// The origin owes the head, or room for more of the request, after so many bytes written.
    Head(u64),
    /// The origin owes more of the body, after so many bytes moved either way.
    Body(u64),
}

/// How far a request has come whose head is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    /// All of it is with the connection.
    pub(super) sent: bool,
    /// The client owes the next piece.
    pub(super) waiting: bool,
    /// Bytes written.
    pub(super) written: u64,
}

#[derive(Debug)]
pub(super) struct Patience {
    sleep: Pin<Box<Sleep>>,
    awaited: Awaited,
    /// When `awaited` last changed.
    since: Instant,
    /// Those of the exchange under way.
    bounds: PoolTimeouts,
    total: Option<Instant>,
}

impl Patience {
    /// A timer for a new connection, whose first exchange has these `bounds`.
    pub(super) fn new(bounds: &PoolTimeouts) -> Self {
        let sleep = Box::pin(tokio::time::sleep(bounds.first_byte));
        let since = now();
        Self { sleep, awaited: Awaited::Head(0), since, bounds: *bounds, total: None }
    }

    /// Begins an exchange at `started` within `bounds`.
    pub(super) fn begin(&mut self, started: Instant, bounds: &PoolTimeouts) {
        self.since = started;
        self.bounds = *bounds;
        self.total = bounds.total.and_then(|total| started.checked_add(total));
    }

    /// Ready with the timeout that was hit while waiting for a head.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>, progress: Progress) -> Poll<ErrorKind> {
        let bounds = &self.bounds;
        let sent = Awaited::Head(progress.written);
        let (awaited, silence, kind) = match (progress.sent, progress.waiting) {
            (true, _) => (sent, Some(bounds.first_byte), ErrorKind::FirstByteTimeout),
            (false, false) => (sent, Some(bounds.idle), ErrorKind::WriteTimeout),
            // A slow client is the listener's business.
            (false, true) => (Awaited::Client, None, ErrorKind::BodyTimeout),
        };
        self.poll(cx, awaited, silence, kind)
    }

    /// Ready with the timeout that was hit inside a body, after so many bytes `moved` either way.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>, moved: u64) -> Poll<ErrorKind> {
        self.poll(cx, Awaited::Body(moved), Some(self.bounds.idle), ErrorKind::ReadTimeout)
    }

    /// Ready with `kind` when `awaited` has been the same for `silence` (`None` = for ever), or when the total is used up.
    /// Cost while things move: one clock reading per call.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        awaited: Awaited,
        silence: Option<Duration>,
        kind: ErrorKind,
    ) -> Poll<ErrorKind> {
        if awaited != self.awaited {
            self.awaited = awaited;
            self.since = now();
        }
        let silent = silence.and_then(|silence| self.since.checked_add(silence));
        let due = match (silent, self.total) {
            (Some(silent), Some(total)) => silent.min(total),
            (Some(due), None) | (None, Some(due)) => due,
            (None, None) => return Poll::Pending,
        };
        if self.sleep.deadline().into_std() > due {
            self.sleep.as_mut().reset(due.into());
        }
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let now = now();
            if now >= due {
                let total = self.total.is_some_and(|total| now >= total);
                return Poll::Ready(if total { ErrorKind::TotalTimeout } else { kind });
            }
            self.sleep.as_mut().reset(due.into());
        }
    }
}
