//! A stream that has left HTTP (RFC 8441): bytes both ways until both sides have ended, or neither has said anything for
//! too long. When the connection closes, the stream does.

use std::task::Poll;

use bytes::Bytes;

use crate::body::Upgrade;
use crate::body::http2::StreamTunnel;
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::listener::Sent;
use crate::listener::flow::Flow;
use crate::listener::timer::{Side, Timer};

/// Copies both ways.
pub(super) async fn run(mut client: StreamTunnel, upgrade: Upgrade) -> Sent {
    let Upgrade { io: mut origin, read_ahead, idle, guard } = upgrade;
    let (mut up, mut down) = (Flow::new(Bytes::new()), Flow::new(read_ahead));
    let mut timer = Timer::default();
    timer.set(Side::Read, idle);
    let ended = std::future::poll_fn(|cx| {
        let moved = up.moved + down.moved;
        let up_end = up.poll_copy(cx, &mut client, &mut *origin).map_err(|side| side.blame())?;
        let down_end = down.poll_copy(cx, &mut *origin, &mut client).map_err(|side| side.flip().blame())?;
        if up_end.is_ready() && down_end.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if up.moved + down.moved > moved {
            timer.set(Side::Read, idle);
        }
        timer.poll(cx).map(|_| Err(ErrorKind::ReadTimeout))
    })
    .await;
    drop(guard);
    let error = ended.err().map(|kind| ProxyError::new(kind, Stage::Listener));
    Sent { body_bytes: down.moved, complete: error.is_none(), error }
}
