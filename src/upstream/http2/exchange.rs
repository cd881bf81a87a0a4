//! One attempt on a stream: the request goes out, and the response head is waited for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Error, RecvStream};
use http::{Response as HttpResponse, StatusCode};

use super::fault::{Within, is_unprocessed, of_stream};
use super::sessions::{Lease, Place};
use super::upload::Upload;
use super::{INTERIM_HEADS, answer, fits, request};
use crate::body::{Body, Interim, Response};
use crate::error::{ErrorKind, ProxyError, Retry, Stage};
use crate::upstream::attempt::failure;
use crate::upstream::client::{Failure, OutRequest};
use crate::upstream::endpoint::Slot;
use crate::upstream::owed::Owed;
use crate::upstream::patience::{Patience, Progress};
use crate::upstream::pool::Pool;

/// Everything an attempt needs but the request.
pub(in crate::upstream) struct Attempt {
    pub(in crate::upstream) pool: Arc<Pool>,
    pub(in crate::upstream) lease: Lease,
    pub(in crate::upstream) slot: Slot,
    pub(in crate::upstream) started: Instant,
    pub(in crate::upstream) reused: bool,
}

/// An exchange under way. Dropping it resets its stream; the connection goes on.
pub(super) struct Exchange {
    /// What is left of the request body; `None` when the request went out with its head.
    pub(super) upload: Option<Box<Upload>>,
    pub(super) patience: Patience,
    pub(super) pool: Arc<Pool>,
    /// The stream's place on its connection.
    pub(super) lease: Lease,
    /// The slot at the endpoint.
    pub(super) slot: Slot,
    /// Bytes of the upload that the connection's account knows of.
    counted: u64,
}

impl Attempt {
    /// The response once its head is there. A body that streams is taken out of `request`, and put back when all that
    /// was taken of it is at hand.
    pub(in crate::upstream) async fn run(self, request: &mut OutRequest, owed: &Owed) -> Result<Response, Failure> {
        let Self { pool, lease, slot, started, reused } = self;
        let endpoint = Arc::clone(slot.guard.endpoint());
        let bounds = *request.timeouts(&pool);
        let tunnel = request::protocol(request).is_some();
        let place =
            Place { pool: &pool, index: slot.index, endpoint: &endpoint, limit: bounds.connect, tunnel, again: false };
        let head = request::head(request, place, request.body.exact_len())
            .map_err(|kind| Failure { error: ProxyError::new(kind, Stage::Forward), replayable: false })?;
        let bodiless = matches!(request.body, Body::Empty);
        let received = lease.session.received();
        let sent = match lease.session.sender() {
            Some(mut sender) => sender.send_request(head, bodiless && !tunnel),
            None => return Err(refused(ErrorKind::ConnectionClosed)),
        };
        let (response, stream) = match sent {
            Ok(sent) => sent,
            // Nothing of it went out: the connection is going away.
            Err(error) => return Err(refused(of_stream(&error, &lease.session, Within::Head))),
        };
        let mut patience = Patience::new(&bounds);
        patience.begin(started, &bounds);
        let (upload, stream) = match bodiless {
            true => (None, Some(stream)),
            false => (Some(Box::new(Upload::new(stream, std::mem::take(&mut request.body)))), None),
        };
        let mut exchange = Exchange { upload, patience, pool, lease, slot, counted: 0 };
        let broken = match head_of(&mut exchange, response, &request.interim, owed).await {
            Ok(head) if tunnel && head.status().is_success() => {
                return Ok(answer::switch(exchange, stream, head, request));
            }
            Ok(head) => return Ok(answer::response(exchange, head, &request.method).await),
            Err(broken) => broken,
        };
        let error = exchange.client_fault();
        let Exchange { upload, lease, .. } = exchange;
        let unread = lease.session.received() == received;
        let whole = request.take_back(upload.map(|upload| upload.into_whole()));
        if let Some(error) = error {
            return Err(Failure { error, replayable: false });
        }
        let failure = match broken {
            Broken::Unprocessed(kind) if whole => {
                lease.session.note_refusal();
                refused(kind)
            }
            Broken::Unprocessed(kind) | Broken::Other(kind) => failure(kind, false, reused && unread, whole),
        };
        if !matches!(failure.error.retry, Retry::StaleConnection | Retry::Unprocessed) {
            endpoint.count_failure(failure.error.kind);
        }
        Err(failure)
    }
}

/// An attempt the origin did not look at.
fn refused(kind: ErrorKind) -> Failure {
    Failure { error: ProxyError::new(kind, Stage::Forward).with_retry(Retry::Unprocessed), replayable: true }
}

/// Why no head came.
enum Broken {
    Unprocessed(ErrorKind),
    Other(ErrorKind),
}

impl Exchange {
    /// True when nothing more of the request will be sent.
    pub(super) fn is_sent(&self) -> bool {
        self.upload.as_ref().is_none_or(|upload| upload.finished())
    }

    /// The failure of the client's side that ended the request body, if one did.
    pub(super) fn client_fault(&self) -> Option<ProxyError> {
        self.upload.as_ref()?.fault()
    }

    /// Sends as much of the request as there is and the origin takes.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) {
        if let Some(upload) = &mut self.upload {
            upload.poll(cx);
            self.lease.session.count_payload(upload.sent() - self.counted);
            self.counted = upload.sent();
        }
    }

    /// Bytes of the request that are with the crate.
    pub(super) fn sent(&self) -> u64 {
        self.counted
    }
}

/// Sends the request until the head is there; each interim head but 100 goes to `interim`.
async fn head_of(
    exchange: &mut Exchange,
    mut response: ResponseFuture,
    interim: &Interim,
    owed: &Owed,
) -> Result<HttpResponse<RecvStream>, Broken> {
    let mut interims = 0;
    std::future::poll_fn(|cx| {
        exchange.poll_send(cx);
        if exchange.is_sent() {
            owed.request_sent();
        }
        if let Some(error) = exchange.client_fault() {
            return Poll::Ready(Err(Broken::Other(error.kind)));
        }
        match poll_head(cx, &mut response, interim, &mut interims) {
            Poll::Ready(Ok(head)) => Poll::Ready(check(head).map_err(Broken::Other)),
            Poll::Ready(Err(Fault::Crate(error))) => {
                let kind = of_stream(&error, &exchange.lease.session, Within::Head);
                Poll::Ready(Err(if is_unprocessed(&error) { Broken::Unprocessed(kind) } else { Broken::Other(kind) }))
            }
            Poll::Ready(Err(Fault::Ours(kind))) => Poll::Ready(Err(Broken::Other(kind))),
            Poll::Pending => {
                let progress = Progress {
                    sent: exchange.is_sent(),
                    waiting: exchange.upload.as_ref().is_some_and(|upload| upload.waiting()),
                    written: exchange.sent(),
                };
                exchange.patience.poll_head(cx, progress).map(|kind| Err(Broken::Other(kind)))
            }
        }
    })
    .await
}

/// Why there is no head.
enum Fault {
    Crate(Error),
    Ours(ErrorKind),
}

fn poll_head(
    cx: &mut Context<'_>,
    response: &mut ResponseFuture,
    interim: &Interim,
    interims: &mut u32,
) -> Poll<Result<HttpResponse<RecvStream>, Fault>> {
    while let Some(head) = ready!(response.poll_informational(cx)) {
        let (head, ()) = head.map_err(Fault::Crate)?.into_parts();
        *interims += 1;
        if *interims > INTERIM_HEADS {
            return Poll::Ready(Err(Fault::Ours(ErrorKind::MalformedResponse("interim_flood"))));
        }
        match head.status {
            // It does not exist here (RFC 9113 §8.6).
            StatusCode::SWITCHING_PROTOCOLS => {
                return Poll::Ready(Err(Fault::Ours(ErrorKind::MalformedResponse("switch_in_http2"))));
            }
            // For this hop: our own side has told the client to go on.
            StatusCode::CONTINUE => {}
            // Where too many wait for a slow client, one is dropped (RFC 9110 §15.2).
            status => drop(interim.send(status, head.headers)),
        }
    }
    Pin::new(response).poll(cx).map_err(Fault::Crate)
}

fn check(head: HttpResponse<RecvStream>) -> Result<HttpResponse<RecvStream>, ErrorKind> {
    if fits(head.headers()) { Ok(head) } else { Err(ErrorKind::ResponseHeaderTooLarge) }
}

/// The first piece of a body, where it has come with the head.
pub(super) async fn first_piece(body: &mut RecvStream) -> Poll<Option<Result<Bytes, Error>>> {
    std::future::poll_fn(|cx| Poll::Ready(body.poll_data(cx))).await
}
