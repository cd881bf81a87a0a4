//! The one timer of a connection.
//!
//! A deadline that moves on every request must not cost a timer operation on every request: setting a deadline only
//! notes it. The runtime's timer is touched when it would fire too late, or when it fired and the deadline had moved on.
//! Cost of [`Timer::set`]: one clock reading.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::clock::timer_now;

/// What a deadline is about; one of each may run at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Something is to arrive: a handshake, a head, a piece of a body.
    Read,
    /// Something is to leave.
    Write,
}

/// Two deadlines over one `Sleep`; none is allocated until the first wait.
#[derive(Debug, Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    read: Option<Instant>,
    write: Option<Instant>,
}

impl Timer {
    /// Puts the deadline of `side` `after` from now. A moment beyond what the clock can hold is no deadline.
    pub(super) fn set(&mut self, side: Side, after: Duration) {
        *self.place(side) = timer_now().checked_add(after);
    }

    /// Sets the deadline of `side` unless it is running already.
    pub(super) fn start(&mut self, side: Side, after: Duration) {
        if self.place(side).is_none() {
            self.set(side, after);
        }
    }

    /// Lets the deadline of `side` pass no later than `after` from now.
    pub(super) fn shorten(&mut self, side: Side, after: Duration) {
        let latest = timer_now().checked_add(after);
        let place = self.place(side);
        *place = [*place, latest].into_iter().flatten().min();
    }

    /// Stops waiting for `side`.
    pub(super) fn clear(&mut self, side: Side) {
        *self.place(side) = None;
    }

    /// Ready with the side whose deadline has passed, and forgets that deadline.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Side> {
        let (due, side) = match (self.read, self.write) {
            (Some(read), Some(write)) if write < read => (write, Side::Write),
            (Some(read), _) => (read, Side::Read),
            (None, Some(write)) => (write, Side::Write),
            (None, None) => return Poll::Pending,
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= due {
                *self.place(side) = None;
                return Poll::Ready(side);
            }
            sleep.as_mut().reset(due);
        }
    }

    fn place(&mut self, side: Side) -> &mut Option<Instant> {
        match side {
            Side::Read => &mut self.read,
            Side::Write => &mut self.write,
        }
    }
}
