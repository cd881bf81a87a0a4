//! The life of one HTTP/1 connection: head, handler, answer, and again.
//!
//! One exchange at a time, answers in the order of the requests; bytes of later requests wait in the wire's inbox. The
//! answer may begin and end before the request body has arrived: the body's reader lives inside the response body where
//! both directions flow at once. What is left of a body nobody reads closes the connection, lingering, unless it has
//! arrived already. A client that closes its side, even only the sending half, has gone: its handler is dropped.

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use http::{StatusCode, Version};
use http_body::Body as _;

use super::encode::{self, Asked, BodyFraming};
use super::head::Head;
use super::tunnel;
use super::wire::{self, Arrival, Incoming, Tick, Wire};
use crate::body::http1::{Framing, Outbox, chunk_head, last_chunk};
use crate::body::{Body, FilePiece, Interim, Request, Response};
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::listener::connection::Connection;
use crate::listener::transport::Transport;
use crate::listener::{Handler, Phase, Sent, date};

/// What becomes of the connection after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// The next request.
    Next,
    /// Closed in order; with `linger` the client may still be sending.
    Close { linger: bool },
    /// Dropped as it is: a body was cut, the client is gone, or a tunnel has ended.
    Drop,
}

/// Serves requests until either side has had enough. `read_ahead`: bytes already read from `io`.
pub(crate) async fn serve<S: Transport, H: Handler>(io: S, read_ahead: BytesMut, connection: Connection<H>) {
    let wire = Rc::new(RefCell::new(Wire::new(io, read_ahead, connection.settings.clone())));
    let driver = Driver { wire, connection };
    let mut after = After::Next;
    while after == After::Next {
        let arrival = std::future::poll_fn(|cx| driver.wire.borrow_mut().poll_head(cx, &driver.connection.seat));
        after = match arrival.await {
            // Boxed, so that a connection between two requests holds none of an exchange's memory.
            Arrival::Request(head) => Box::pin(driver.exchange(head)).await,
            Arrival::Refused(kind) => Box::pin(driver.refuse(kind)).await,
            Arrival::Quiet => After::Close { linger: false },
        };
        driver.wire.borrow_mut().next();
    }
    if let After::Close { linger } = after
        && driver.connection.seat.phase() != Phase::Closing
    {
        wire::close(&driver.wire, linger).await;
    }
}

struct Driver<S: Transport, H> {
    wire: Rc<RefCell<Wire<S>>>,
    connection: Connection<H>,
}

impl<S: Transport, H: Handler> Driver<S, H> {
    /// Answers bytes that are no request, and closes: nobody can say where the next one would begin.
    async fn refuse(&self, kind: ErrorKind) -> After {
        self.connection.counters().framing_faults.add(kind.row().reason);
        self.answer_fault(kind).await
    }

    /// Answers a fault and closes.
    async fn answer_fault(&self, kind: ErrorKind) -> After {
        let error = ProxyError::new(kind, Stage::Listener);
        let (response, record) = self.connection.handler.refuse(&self.connection.peer, error);
        match self.respond(Asked::NOTHING_READABLE, response, record).await {
            After::Drop => After::Drop,
            After::Next | After::Close { .. } => After::Close { linger: true },
        }
    }

    async fn exchange(&self, head: Box<Head>) -> After {
        let asked = Asked::new(&head.method, head.version, head.keep_alive);
        let protocol = head.upgrade.clone();
        let Some((mut response, record)) = self.answer(head, asked).await else { return After::Drop };
        if !response.status.is_informational() {
            return self.respond(asked, response, record).await;
        }
        let ready = self.wire.borrow_mut().settle_body() && self.wire.borrow().body_done();
        match (response.upgrade.take(), protocol) {
            (Some(upgrade), Some(protocol)) if ready && response.status == StatusCode::SWITCHING_PROTOCOLS => {
                self.wire.borrow_mut().outbox.compose(|to| encode::switching(to, &response, &protocol));
                let sent = tunnel::run(&self.wire, *upgrade, &self.connection.seat).await;
                self.connection.handler.sent(record, sent);
                After::Drop
            }
            // An interim status is no final answer.
            _ => {
                let kind = ErrorKind::Internal("unexpected_upgrade");
                let error = Some(ProxyError::new(kind, Stage::Listener));
                self.connection.handler.sent(record, Sent { body_bytes: 0, complete: false, error });
                self.answer_fault(kind).await
            }
        }
    }

    /// The handler's answer; `None` when the client has gone. The handler, and with it what it held of the request body,
    /// is dropped before the body's fate is judged.
    async fn answer(&self, head: Box<Head>, asked: Asked) -> Option<(Response, H::Record)> {
        let interim = Interim::default();
        let request = self.request(*head, interim.clone());
        let mut handling = pin!(self.connection.handler.handle(Rc::clone(&self.connection.peer), request));
        std::future::poll_fn(|cx| self.poll_answer(cx, handling.as_mut(), &interim, asked)).await
    }

    fn request(&self, head: Head, interim: Interim) -> Request {
        let turn = self.wire.borrow_mut().begin_body(head.framing, head.expects_continue);
        let body = match head.framing {
            Framing::Empty => Body::Empty,
            Framing::Length(_) | Framing::Chunked => Body::stream(Incoming { wire: Rc::clone(&self.wire), turn }),
        };
        Request {
            method: head.method,
            scheme: self.connection.scheme(),
            authority: head.authority,
            target: head.target,
            version: head.version,
            headers: head.headers,
            body,
            interim,
            upgrade: head.upgrade,
        }
    }

    /// Waits for the handler while the connection's own business goes on; `None` when the client has gone.
    fn poll_answer<F: Future<Output = (Response, H::Record)>>(
        &self,
        cx: &mut Context<'_>,
        mut handling: Pin<&mut F>,
        interim: &Interim,
        asked: Asked,
    ) -> Poll<Option<F::Output>> {
        self.wire.borrow_mut().remember_driver(cx);
        loop {
            let answer = handling.as_mut().poll(cx);
            self.interim(cx, interim, asked, answer.is_pending());
            if let Poll::Ready(answer) = answer {
                return Poll::Ready(Some(answer));
            }
            match self.wire.borrow_mut().poll_background(cx, &self.connection.seat) {
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(Tick::BodyNews)) => {}
                Poll::Ready(Ok(Tick::Written)) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Writes the interim heads that are due: the pipeline's, and the 100 the request body's reader asked for.
    fn interim(&self, cx: &mut Context<'_>, interim: &Interim, asked: Asked, waiting: bool) {
        let mut wire = self.wire.borrow_mut();
        if wire.take_continue_wanted() {
            wire.outbox.compose(|to| encode::interim(to, StatusCode::CONTINUE, &http::HeaderMap::new()));
        }
        loop {
            let next = if waiting { interim.poll_take(cx) } else { interim.take().map_or(Poll::Pending, Poll::Ready) };
            let Poll::Ready((status, headers)) = next else { return };
            let wanted = match status {
                StatusCode::CONTINUE => wire.take_expects_continue(),
                StatusCode::SWITCHING_PROTOCOLS => false,
                status => status.is_informational(),
            };
            if wanted && asked.version == Version::HTTP_11 {
                wire.outbox.compose(|to| encode::interim(to, status, &headers));
            }
        }
    }

    /// Writes a final response and hands its record back.
    async fn respond(&self, asked: Asked, mut response: Response, record: H::Record) -> After {
        let framing = encode::framing(asked, &response);
        let draining = self.connection.seat.phase() != Phase::Running;
        let close = response.close
            || draining
            || !asked.keep_alive
            || framing == BodyFraming::Close
            || !self.wire.borrow_mut().settle_body();
        let date = date::field(self.connection.clock.now());
        self.wire.borrow_mut().outbox.compose(|to| encode::head(to, asked, &response, framing, close, &date));
        let body = match framing {
            BodyFraming::None(_) => Body::Empty,
            _ => std::mem::take(&mut response.body),
        };
        drop(response);
        let mut sending = Sending { body: Some(body), framing, announced: length(framing), taken: 0, failed: None };
        let written = std::future::poll_fn(|cx| self.poll_send(cx, &mut sending)).await;
        drop(sending.body.take());
        let mut wire = self.wire.borrow_mut();
        let left = wire.outbox.unwritten() as u64;
        let error = sending.failed.or(written.err().map(|kind| ProxyError::new(kind, Stage::Listener)));
        let settled = wire.settle_body() && wire.body_done();
        if error.is_some() && framing == BodyFraming::Close {
            wire.io().abort();
        }
        if let Some(ErrorKind::AmbiguousFraming(reason) | ErrorKind::BadRequest(reason)) = wire.fault() {
            self.connection.counters().framing_faults.add(reason);
        }
        drop(wire);
        let sent = Sent { body_bytes: sending.taken.saturating_sub(left), complete: error.is_none(), error };
        self.connection.handler.sent(record, sent);
        match (error, close, settled) {
            (Some(_), _, _) => After::Drop,
            (None, false, true) => After::Next,
            // A client that meant to go on may be sending its next request.
            (None, _, settled) => After::Close { linger: !settled || asked.keep_alive },
        }
    }

    /// Moves the response body to the client. Ready when all of it is written, or when no more of it will be.
    fn poll_send(&self, cx: &mut Context<'_>, sending: &mut Sending) -> Poll<Result<(), ErrorKind>> {
        loop {
            let waiting = self.fill_outbox(cx, sending);
            let mut wire = self.wire.borrow_mut();
            if sending.body.is_none() {
                // Nothing to watch for: the answer is complete, or cut short, but for its writing.
                return match wire.poll_flush(cx) {
                    Poll::Ready(written) => Poll::Ready(written.or(Err(ErrorKind::ClientGone))),
                    Poll::Pending => self.poll_stall(cx, &mut wire),
                };
            }
            match wire.poll_background(cx, &self.connection.seat) {
                Poll::Ready(Err(kind)) => return Poll::Ready(Err(kind)),
                Poll::Ready(Ok(Tick::BodyNews)) => {}
                Poll::Ready(Ok(Tick::Written)) if !waiting => {}
                Poll::Ready(Ok(Tick::Written)) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_stall(&self, cx: &mut Context<'_>, wire: &mut Wire<S>) -> Poll<Result<(), ErrorKind>> {
        let closing = self.connection.seat.poll_phase(cx) == Phase::Closing;
        if closing || wire.timer.poll(cx).is_ready() { Poll::Ready(Err(ErrorKind::ClientGone)) } else { Poll::Pending }
    }

    /// Takes what the body has ready, as far as the outbox has room; true when it is the body that is waited for.
    fn fill_outbox(&self, cx: &mut Context<'_>, sending: &mut Sending) -> bool {
        while let Some(body) = &mut sending.body {
            if !self.wire.borrow().outbox.has_room() {
                return false;
            }
            if S::SENDS_FILES
                && let Some(piece) = body.take_file()
            {
                if sending.add_file(piece, &mut self.wire.borrow_mut().outbox) {
                    sending.body = None;
                }
                continue;
            }
            let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
                // All announced bytes are there: the end of the source is not waited for.
                if sending.framing == BodyFraming::Length(sending.taken) {
                    sending.body = None;
                }
                return true;
            };
            let ended = {
                let mut wire = self.wire.borrow_mut();
                sending.add(frame, &mut wire.outbox)
            };
            if ended {
                sending.body = None;
            }
        }
        false
    }
}

fn length(framing: BodyFraming) -> Option<u64> {
    match framing {
        BodyFraming::Length(length) => Some(length),
        _ => None,
    }
}

/// A response body on its way out.
struct Sending {
    /// `None` once it has ended, well or not.
    body: Option<Body>,
    framing: BodyFraming,
    announced: Option<u64>,
    /// Body bytes given to the outbox.
    taken: u64,
    failed: Option<ProxyError>,
}

type Frame = Option<Result<http_body::Frame<bytes::Bytes>, ProxyError>>;

impl Sending {
    /// Adds one frame; true when it was the last. A body that breaks off, or is not as long as announced, ends without
    /// its terminator, and the connection will be cut.
    fn add(&mut self, frame: Frame, outbox: &mut Outbox) -> bool {
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) if piece.is_empty() => false,
                Ok(piece) => self.add_piece(piece, outbox),
                Err(frame) => {
                    if self.framing == BodyFraming::Chunked {
                        let trailers = frame.into_trailers().ok();
                        outbox.compose(|to| last_chunk(to, trailers.as_ref()));
                    }
                    self.check_length();
                    true
                }
            },
            Some(Err(error)) => {
                self.failed = Some(error);
                true
            }
            None => {
                if self.framing == BodyFraming::Chunked {
                    outbox.compose(|to| last_chunk(to, None));
                }
                self.check_length();
                true
            }
        }
    }

    fn add_piece(&mut self, piece: bytes::Bytes, outbox: &mut Outbox) -> bool {
        self.frame(piece.len(), outbox, |outbox| outbox.push(piece))
    }

    /// Adds bytes that stand in a file; as [`Sending::add`].
    fn add_file(&mut self, piece: FilePiece, outbox: &mut Outbox) -> bool {
        self.frame(piece.len(), outbox, |outbox| outbox.push_file(piece))
    }

    /// Counts `length` bytes, and frames what `push` adds.
    fn frame(&mut self, length: usize, outbox: &mut Outbox, push: impl FnOnce(&mut Outbox)) -> bool {
        let taken = self.taken + length as u64;
        if self.announced.is_some_and(|announced| taken > announced) {
            self.failed = Some(ProxyError::new(ErrorKind::Internal("body_longer_than_announced"), Stage::Listener));
            return true;
        }
        self.taken = taken;
        let chunked = self.framing == BodyFraming::Chunked;
        if chunked {
            outbox.compose(|to| chunk_head(to, length));
        }
        push(outbox);
        if chunked {
            outbox.push(bytes::Bytes::from_static(b"\r\n"));
        }
        false
    }

    fn check_length(&mut self) {
        if self.announced.is_some_and(|announced| self.taken < announced) {
            self.failed = Some(ProxyError::new(ErrorKind::ResponseTruncated, Stage::Listener));
        }
    }
}
