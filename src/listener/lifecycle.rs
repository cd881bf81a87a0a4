//! Where one listener on one worker stands, and who is still on board.
//!
//! Each connection takes a [`Seat`]: it reads the phase from a cell and leaves a waker, so that a thousand idle
//! connections hear of a drain without a thousand futures on a shared channel.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Phase;

/// The phase and the seats; one per listener and worker.
#[derive(Debug, Default)]
pub(super) struct Lifecycle {
    phase: Cell<Phase>,
    seats: RefCell<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
    /// Waits for the last seat to be given up.
    empty: Option<Waker>,
}

impl Seats {
    fn taken(&self) -> usize {
        self.wakers.len() - self.free.len()
    }
}

impl Lifecycle {
    /// Moves to `phase` and wakes everybody.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        for waker in self.seats.borrow_mut().wakers.iter_mut().filter_map(Option::take) {
            waker.wake();
        }
    }

    /// Takes a seat.
    pub(super) fn seat(self: &Rc<Self>) -> Seat {
        let mut seats = self.seats.borrow_mut();
        let number = seats.free.pop().unwrap_or_else(|| {
            seats.wakers.push(None);
            seats.wakers.len() - 1
        });
        Seat { lifecycle: Rc::clone(self), number }
    }

    /// Ready once every seat has been given up.
    pub(super) fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut seats = self.seats.borrow_mut();
        if seats.taken() == 0 {
            return Poll::Ready(());
        }
        seats.empty = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// One connection's place; given up on drop.
#[derive(Debug)]
pub(super) struct Seat {
    lifecycle: Rc<Lifecycle>,
    number: usize,
}

impl Seat {
    /// The present phase.
    pub(super) fn phase(&self) -> Phase {
        self.lifecycle.phase.get()
    }

    /// The present phase; the caller is woken when it changes.
    pub(super) fn poll_phase(&self, cx: &mut Context<'_>) -> Phase {
        let mut seats = self.lifecycle.seats.borrow_mut();
        if let Some(place) = seats.wakers.get_mut(self.number) {
            match place {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *place = Some(cx.waker().clone()),
            }
        }
        self.lifecycle.phase.get()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.lifecycle.seats.borrow_mut();
        if let Some(place) = seats.wakers.get_mut(self.number) {
            *place = None;
        }
        seats.free.push(self.number);
        if seats.taken() == 0
            && let Some(waker) = seats.empty.take()
        {
            waker.wake();
        }
    }
}
