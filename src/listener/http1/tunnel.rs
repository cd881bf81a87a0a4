//! An upgraded connection: bytes both ways until both sides have ended, or neither has said anything for too long.
//!
//! A side that ends is half-closed on the other, once what it sent has been written; the opposite direction goes on.

use std::cell::RefCell;
use std::task::Poll;

use bytes::Bytes;

use super::wire::Wire;
use crate::body::Upgrade;
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::listener::flow::Flow;
use crate::listener::lifecycle::Seat;
use crate::listener::timer::Side;
use crate::listener::transport::Transport;
use crate::listener::{Phase, Sent};

/// Copies both ways. The outbox still holds the head that announced the tunnel.
pub(super) async fn run<S: Transport>(wire: &RefCell<Wire<S>>, upgrade: Upgrade, seat: &Seat) -> Sent {
    let Upgrade { io: mut origin, read_ahead, idle, guard } = upgrade;
    let mut up = Flow::new(Bytes::from(wire.borrow_mut().take_inbox()));
    let mut down = Flow::new(read_ahead);
    wire.borrow_mut().timer.set(Side::Read, idle);
    let ended = std::future::poll_fn(|cx| {
        let wire = &mut *wire.borrow_mut();
        if seat.poll_phase(cx) == Phase::Closing {
            return Poll::Ready(Err(ErrorKind::ClientGone));
        }
        let moved = up.moved + down.moved;
        let head = wire.poll_flush(cx).map_err(|_| ErrorKind::ClientGone)?;
        let up_end = up.poll_copy(cx, wire.io(), &mut *origin).map_err(|side| side.blame())?;
        let down_end = match head {
            Poll::Ready(()) => down.poll_copy(cx, &mut *origin, wire.io()).map_err(|side| side.flip().blame())?,
            Poll::Pending => Poll::Pending,
        };
        if up_end.is_ready() && down_end.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if up.moved + down.moved > moved {
            wire.timer.set(Side::Read, idle);
        }
        wire.timer.poll(cx).map(|_| Err(ErrorKind::ReadTimeout))
    })
    .await;
    drop(guard);
    let error = ended.err().map(|kind| ProxyError::new(kind, Stage::Listener));
    Sent { body_bytes: down.moved, complete: error.is_none(), error }
}
