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

/// Which bound was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exceeded {
    /// Nothing moved for as long as it may.
    Silence,
    /// The exchange as a whole took too long.
    Total,
}

/// Who owes what, and how far it has come: while two looks find the same, nothing has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
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
    total: Option<Instant>,
}

impl Patience {
    /// A timer for a new connection; `first` is the first bound it will be asked for.
    pub(super) fn new(first: Duration) -> Self {
        let sleep = Box::pin(tokio::time::sleep(first));
        let since = now();
        Self { sleep, awaited: Awaited::Head(0), since, total: None }
    }

    /// Begins an exchange at `started`.
    pub(super) fn begin(&mut self, started: Instant, total: Option<Duration>) {
        self.since = started;
        self.total = total.and_then(|total| started.checked_add(total));
    }

    /// Ready with the timeout that was hit while waiting for a head.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        progress: Progress,
        bounds: &PoolTimeouts,
    ) -> Poll<ErrorKind> {
        let sent = Awaited::Head(progress.written);
        let (awaited, silence, kind) = match (progress.sent, progress.waiting) {
            (true, _) => (sent, Some(bounds.first_byte), ErrorKind::FirstByteTimeout),
            (false, false) => (sent, Some(bounds.idle), ErrorKind::WriteTimeout),
            // A slow client is the listener's business.
            (false, true) => (Awaited::Client, None, ErrorKind::BodyTimeout),
        };
        self.poll(cx, awaited, silence).map(|exceeded| match exceeded {
            Exceeded::Silence => kind,
            Exceeded::Total => ErrorKind::TotalTimeout,
        })
    }

    /// Ready when `awaited` has been the same for `silence` (`None` = for ever), or the total is used up. Cost while
    /// things move: one clock reading per call.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, awaited: Awaited, silence: Option<Duration>) -> Poll<Exceeded> {
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
                return Poll::Ready(if total { Exceeded::Total } else { Exceeded::Silence });
            }
            self.sleep.as_mut().reset(due.into());
        }
    }
}
