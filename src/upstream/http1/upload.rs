//! A request body on its way to the origin, while it is still coming.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame};

use crate::body::Body;
use crate::body::http1::{Framing, Outbox, chunk_head, last_chunk};
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::policy::fields::forward_trailers;

/// The client's body did not have the length it announced.
const LENGTH: ErrorKind = ErrorKind::Internal("upload_length");

/// What is left of a request body, and how it fares.
#[derive(Debug)]
pub(in crate::upstream) struct Upload {
    body: Body,
    /// Bytes still owed under `Content-Length`; `None` = chunked.
    owed: Option<u64>,
    touched: bool,
    finished: bool,
    waiting: bool,
    fault: Option<ProxyError>,
}

impl Upload {
    /// `body`, to be sent in `framing`.
    pub(in crate::upstream) fn new(body: Body, framing: Framing) -> Self {
        let owed = match framing {
            Framing::Empty => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        };
        Self { body, owed, touched: false, finished: owed == Some(0), waiting: false, fault: None }
    }

    /// True when all of the body is in the outbox.
    pub(in crate::upstream) fn finished(&self) -> bool {
        self.finished
    }

    /// True while the client owes the next piece.
    pub(in crate::upstream) fn waiting(&self) -> bool {
        self.waiting
    }

    /// The failure of the client's side that ended the body, if one did.
    pub(in crate::upstream) fn fault(&self) -> Option<ProxyError> {
        self.fault
    }

    /// The body back, when none of it has gone: it can be sent once more.
    pub(in crate::upstream) fn into_untouched(self) -> Option<Body> {
        (!self.touched).then_some(self.body)
    }

    /// Moves what the client has sent to `outbox`, as far as there is room.
    pub(in crate::upstream) fn poll_fill(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) {
        self.waiting = false;
        while !self.finished && self.fault.is_none() && outbox.has_room() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => {
                    self.waiting = true;
                    return;
                }
                Poll::Ready(frame) => self.add(frame, outbox),
            }
        }
    }

    fn add(&mut self, frame: Option<Result<Frame<Bytes>, ProxyError>>, outbox: &mut Outbox) {
        self.touched = true;
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) => {
                    self.add_piece(piece, outbox);
                    if self.fault.is_none() && self.body.is_end_stream() {
                        self.end(None, outbox);
                    }
                }
                Err(frame) => self.end(frame.into_trailers().ok(), outbox),
            },
            Some(Err(error)) => self.fault = Some(error),
            None => self.end(None, outbox),
        }
    }

    fn add_piece(&mut self, piece: Bytes, outbox: &mut Outbox) {
        if piece.is_empty() {
            return;
        }
        match &mut self.owed {
            None => {
                outbox.compose(|to| chunk_head(to, piece.len()));
                outbox.push(piece);
                outbox.push(Bytes::from_static(b"\r\n"));
            }
            Some(owed) => match owed.checked_sub(piece.len() as u64) {
                Some(left) => {
                    *owed = left;
                    outbox.push(piece);
                }
                None => self.fault = Some(ProxyError::new(LENGTH, Stage::Forward)),
            },
        }
    }

    /// The body has ended. Trailers go without an announcement: whoever needs them knows their names.
    fn end(&mut self, trailers: Option<http::HeaderMap>, outbox: &mut Outbox) {
        match self.owed {
            None => {
                let trailers = trailers.map(|mut trailers| {
                    forward_trailers(&mut trailers);
                    trailers
                });
                outbox.compose(|to| last_chunk(to, trailers.as_ref()));
                self.finished = true;
            }
            Some(0) => self.finished = true,
            Some(_) => self.fault = Some(ProxyError::new(LENGTH, Stage::Forward)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use super::*;
    use crate::body::Source;
    use crate::upstream::http1::framing;

    /// Frames, and the length they are said to have.
    struct Frames(VecDeque<Frame<Bytes>>, Option<u64>);

    impl Source for Frames {
        fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }

        fn size_hint(&self) -> http_body::SizeHint {
            self.1.map_or_else(http_body::SizeHint::default, http_body::SizeHint::with_exact)
        }
    }

    /// What goes out for `frames`, and whether it is all.
    fn sent(frames: impl IntoIterator<Item = Frame<Bytes>>, length: Option<u64>) -> (String, bool) {
        let body = Body::stream(Frames(frames.into_iter().collect(), length));
        let framing = framing(&body);
        let (mut upload, mut outbox, mut wire) = (Upload::new(body, framing), Outbox::default(), Vec::new());
        let mut cx = Context::from_waker(Waker::noop());
        upload.poll_fill(&mut cx, &mut outbox);
        assert!(outbox.poll_write(&mut cx, &mut wire, &mut 0).is_ready());
        assert_eq!(upload.fault().is_none(), upload.finished());
        (String::from_utf8(wire).unwrap(), upload.finished())
    }

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_body_goes_out_as_announced_or_not_at_all() {
        assert_eq!(sent([data("ab"), data("c")], Some(3)), ("abc".into(), true));
        assert_eq!(sent([data("ab"), data("")], Some(3)), ("ab".into(), false));
        assert_eq!(sent([data("ab"), data("cd")], Some(3)), ("ab".into(), false));
        assert_eq!(sent([data("ab"), data(""), data("c")], None), ("2\r\nab\r\n1\r\nc\r\n0\r\n\r\n".into(), true));
        assert_eq!(sent([], None), ("0\r\n\r\n".into(), true));
    }

    #[test]
    fn trailers_go_out_without_what_belongs_to_this_hop() {
        let fields = [("x-sum", "9"), ("content-length", "2"), ("connection", "x")];
        let fields = fields.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let trailers = Frame::trailers(http::HeaderMap::from_iter(fields));
        assert_eq!(sent([data("ab"), trailers], None), ("2\r\nab\r\n0\r\nx-sum: 9\r\n\r\n".into(), true));
    }
}
