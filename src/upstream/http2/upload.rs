//! A request body on its way to the origin, as fast as the client sends and the origin's window allows.
//!
//! What has gone is kept up to a bound while no answer has begun: an origin that goes away without having looked at the
//! request gets nothing lost.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;
use http_body::{Body as _, Frame};

use crate::body::{Body, Sequence};
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::policy::fields::forward_trailers;

/// Bytes asked of flow control at a time: a stream that waits holds no more of the crate's buffer.
const PIECE: usize = 64 * 1024;
/// Bytes of an upload that are kept to be sent again; more than that cannot be.
pub(super) const KEPT: usize = 64 * 1024;
/// The client's body did not have the length it announced.
const LENGTH: ErrorKind = ErrorKind::Internal("upload_length");

/// What is left of a request body, and how it fares.
pub(super) struct Upload {
    stream: SendStream<Bytes>,
    body: Body,
    /// Bytes still owed under `Content-Length`, where that was announced.
    owed: Option<u64>,
    /// What is left of the present piece.
    piece: Bytes,
    /// What was taken of the body; `None` = too much to keep.
    kept: Option<Vec<Bytes>>,
    kept_bytes: usize,
    sent: u64,
    state: State,
    waiting: bool,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sending,
    /// All of it is with the crate.
    Finished,
    /// The origin has ended the stream: it wants no more.
    Stopped,
    /// The client's side failed.
    Failed(ProxyError),
}

impl Upload {
    /// `body`, of which nothing was sent, onto `stream`.
    pub(super) fn new(stream: SendStream<Bytes>, body: Body) -> Self {
        Self {
            stream,
            owed: body.exact_len(),
            body,
            piece: Bytes::new(),
            kept: Some(Vec::new()),
            kept_bytes: 0,
            sent: 0,
            state: State::Sending,
            waiting: false,
        }
    }

    /// True when nothing more will be sent.
    pub(super) fn finished(&self) -> bool {
        matches!(self.state, State::Finished | State::Stopped)
    }

    /// True while the client owes the next piece.
    pub(super) fn waiting(&self) -> bool {
        self.waiting
    }

    /// The failure of the client's side that ended the body, if one did.
    pub(super) fn fault(&self) -> Option<ProxyError> {
        match self.state {
            State::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Bytes given to the crate.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// The answer has begun: nothing will be sent again.
    pub(super) fn forget(&mut self) {
        self.kept = None;
    }

    /// The body back as it was, where all that was taken of it is at hand.
    pub(super) fn into_whole(mut self) -> Option<Body> {
        let (kept, rest) = (self.kept.take()?, std::mem::take(&mut self.body));
        if kept.is_empty() {
            return Some(rest);
        }
        let taken = kept.into_iter().map(Body::full);
        Some(Body::stream(Sequence::new(taken.chain([rest]))))
    }

    /// Moves what the client has sent to the crate, as far as the origin's window allows.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        self.waiting = false;
        while self.state == State::Sending {
            if !self.piece.is_empty() {
                if self.poll_piece(cx).is_pending() {
                    return;
                }
                continue;
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(frame) => self.take(frame),
                Poll::Pending => {
                    self.waiting = true;
                    return;
                }
            }
        }
    }

    fn take(&mut self, frame: Option<Result<Frame<Bytes>, ProxyError>>) {
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) => self.take_piece(piece),
                Err(frame) => {
                    self.kept = None;
                    self.end(frame.into_trailers().ok());
                }
            },
            Some(Err(error)) => self.state = State::Failed(error),
            None => self.end(None),
        }
    }

    fn take_piece(&mut self, piece: Bytes) {
        if let Some(owed) = &mut self.owed {
            match owed.checked_sub(piece.len() as u64) {
                Some(left) => *owed = left,
                None => return self.state = State::Failed(ProxyError::new(LENGTH, Stage::Forward)),
            }
        }
        self.kept_bytes += piece.len();
        match &mut self.kept {
            Some(kept) if self.kept_bytes <= KEPT => kept.push(piece.clone()),
            _ => self.kept = None,
        }
        self.piece = piece;
        if self.piece.is_empty() && self.body.is_end_stream() {
            self.end(None);
        }
    }

    /// Gives back what flow control has set aside for it: nobody may look after it for a while, and the window is the
    /// connection's. The next [`Upload::poll`] asks anew.
    pub(super) fn rest(&mut self) {
        if self.state == State::Sending && !self.piece.is_empty() {
            self.stream.reserve_capacity(0);
        }
    }

    /// Gives the crate as much of the piece as flow control allows.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.reserve_capacity(self.piece.len().min(PIECE));
        while self.stream.capacity() == 0 {
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => {
                    self.state = State::Stopped;
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        let part = self.piece.split_to(self.stream.capacity().min(self.piece.len()));
        self.sent += part.len() as u64;
        // A last piece that is known to be the last spares an empty frame.
        let last = self.piece.is_empty() && self.owed.is_none_or(|owed| owed == 0) && self.body.is_end_stream();
        self.state = match self.stream.send_data(part, last) {
            Err(_) => State::Stopped,
            Ok(()) if last => State::Finished,
            Ok(()) => State::Sending,
        };
        Poll::Ready(())
    }

    fn end(&mut self, trailers: Option<HeaderMap>) {
        if self.owed.is_some_and(|owed| owed > 0) {
            self.state = State::Failed(ProxyError::new(LENGTH, Stage::Forward));
            return;
        }
        let ended = match trailers {
            Some(mut trailers) => {
                forward_trailers(&mut trailers);
                self.stream.send_trailers(trailers)
            }
            None => self.stream.send_data(Bytes::new(), true),
        };
        self.state = if ended.is_ok() { State::Finished } else { State::Stopped };
    }
}

impl Drop for Upload {
    /// Half a body must not look like a whole one, nor keep the stream open behind a whole answer.
    fn drop(&mut self) {
        if !self.finished() {
            self.stream.send_reset(Reason::CANCEL);
        }
    }
}
