//! Copies of requests for another pool: sent beside the original, their answers read and thrown away.
//!
//! The original knows nothing of its copy. A body at hand is shared; one that streams is noted down as it passes, up to
//! `max_body`, and the copy leaves when the end of it has gone by. Whatever becomes of a copy is a count in the metrics.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue};
use http_body::{Body as _, Frame, SizeHint};

use super::attempts;
use super::context::Trace;
use super::forward::{Order, repeat};
use super::worker::Worker;
use crate::body::{Body, Interim, Source};
use crate::error::ProxyError;
use crate::policy::mirror::{self, MirrorFacts, NotMirrored};
use crate::snapshot::{Mirror, MirrorGuard};
use crate::upstream::OutRequest;

/// By what the pool tells a copy from the real thing.
const MARK: HeaderName = HeaderName::from_static("x-mirrored");

/// Bytes of an answer that are read so that its connection can be kept. A longer one costs more to read than a connection
/// to open.
const ANSWER_BYTES: usize = 1024 * 1024;

/// Longest life of a copy, whatever the timeouts of its pool: nobody waits for it.
const LIFE: Duration = Duration::from_secs(60);

/// What is counted of a copy whose answer came.
const ANSWERED: &str = "answered";

/// Sends a copy of `request`, if it is one to be copied. The original is as it was, but that a body which streams may
/// from now on be listened to. Cost where it is not copied: the decision, and a count.
pub(super) fn copy(worker: &Rc<Worker>, mirror: &Arc<Mirror>, request: &mut OutRequest) {
    let facts = MirrorFacts {
        method: &request.method,
        upgrade: request.upgrade,
        length: request.body.exact_len(),
        random: worker.random(),
    };
    let decided = mirror::decide(&facts, &mirror.params);
    let place = match decided.and_then(|()| mirror.enter().ok_or(NotMirrored::InFlight)) {
        Ok(place) => place,
        Err(reason) => return worker.metrics.mirror(reason.token()),
    };
    let mut copied = repeat(request);
    copied.interim = Interim::default();
    // Its pool has timeouts of its own.
    copied.timeouts = None;
    copied.headers.insert(MARK, HeaderValue::from_static("1"));
    let copy = Twin { worker: Rc::clone(worker), mirror: Arc::clone(mirror), request: copied, place };
    if request.body.at_hand().is_some() {
        return copy.send();
    }
    let body = std::mem::take(&mut request.body);
    request.body = Body::stream(Noted { body, noted: BytesMut::new(), copy: Some(Box::new(copy)) });
}

/// A copy that has not been sent.
struct Twin {
    worker: Rc<Worker>,
    mirror: Arc<Mirror>,
    request: OutRequest,
    place: MirrorGuard,
}

impl Twin {
    /// Sends it, in a task of its own.
    fn send(self) {
        let Self { worker, mirror, request, place } = self;
        let order =
            Order { pool: Arc::clone(&mirror.pool), request, key: None, stay: None, mirror: None, is_copy: true };
        tokio::task::spawn_local(async move {
            let outcome = tokio::time::timeout(LIFE, ask(&worker, order)).await;
            worker.metrics.mirror(match outcome {
                Ok(Ok(())) => ANSWERED,
                Ok(Err(error)) => error.kind.row().reason,
                Err(_elapsed) => "total_timeout",
            });
            drop(place);
        });
    }

    fn give_up(self, reason: NotMirrored) {
        self.worker.metrics.mirror(reason.token());
    }
}

async fn ask(worker: &Rc<Worker>, order: Order) -> Result<(), ProxyError> {
    let mut body = attempts::send(worker, order, &mut Trace::default()).await?.response.body;
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame?.data_ref().map_or(0, Bytes::len);
        if read > ANSWER_BYTES {
            break;
        }
    }
    Ok(())
}

/// The body of an original, and what has gone by of it.
struct Noted {
    body: Body,
    noted: BytesMut,
    /// Gone once it is sent or given up.
    copy: Option<Box<Twin>>,
}

impl Noted {
    fn note(&mut self, piece: &Bytes) {
        let Some(copy) = &self.copy else { return };
        if (self.noted.len() + piece.len()) as u64 > copy.mirror.params.max_body {
            self.noted = BytesMut::new();
            self.give_up(NotMirrored::BodyTooLarge);
        } else {
            // Copied: a short piece may hold a long buffer.
            self.noted.extend_from_slice(piece);
        }
    }

    /// The whole body has gone by.
    fn finish(&mut self) {
        if let Some(mut copy) = self.copy.take() {
            copy.request.body = Body::full(std::mem::take(&mut self.noted));
            copy.send();
        }
    }

    fn give_up(&mut self, reason: NotMirrored) {
        if let Some(copy) = self.copy.take() {
            copy.give_up(reason);
        }
    }
}

impl Source for Noted {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(piece) = frame.data_ref() {
                    self.note(piece);
                }
                if frame.is_trailers() || self.body.is_end_stream() {
                    self.finish();
                }
            }
            Some(Err(_)) => self.give_up(NotMirrored::BodyCut),
            None => self.finish(),
        }
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn is_end(&self) -> bool {
        self.body.is_end_stream()
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.give_up(NotMirrored::BodyCut);
    }
}
