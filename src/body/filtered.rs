//! A body on its way through a transformation.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use super::{Body, Source};
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::transform::{Fault, Filter};

/// Most input that one poll puts through a filter before it yields, so that one large body cannot hold its worker.
const INPUT_PER_POLL: usize = 32 * 1024;

/// `inner` through `filter`, streaming: one frame of input makes at most one frame of output.
///
/// When the source pauses, what the filter holds back is flushed, so that a page that arrives in pieces (server-sent
/// events, a slow template) reaches the client in the same pieces. Trailers pass untouched. The length is never known.
pub struct Filtered<F> {
    inner: Body,
    filter: F,
    /// Where in the flow a failing filter is reported.
    stage: Stage,
    /// Taken in since the last flush; nothing to flush otherwise.
    dirty: bool,
    state: State,
}

enum State {
    Running,
    /// The filter is finished; these trailers are still to go.
    Trailers(Option<HeaderMap>),
    Done,
}

impl<F: Filter> Filtered<F> {
    /// Puts `inner` through `filter`.
    #[must_use]
    pub fn new(inner: Body, filter: F, stage: Stage) -> Self {
        Self { inner, filter, stage, dirty: false, state: State::Running }
    }

    fn fault(&mut self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        self.state = State::Done;
        tracing::debug!(reason = fault.token(), stage = ?self.stage, "a transformation failed");
        Poll::Ready(Some(Err(ProxyError::new(ErrorKind::RewriteFailed, self.stage))))
    }
}

impl<F: Filter> Source for Filtered<F> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        match &mut self.state {
            State::Running => {}
            State::Trailers(trailers) => {
                let trailers = trailers.take();
                self.state = State::Done;
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
            State::Done => return Poll::Ready(None),
        }
        let mut output = BytesMut::new();
        let mut taken = 0;
        loop {
            let trailers = match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Pending => {
                    if self.dirty && output.is_empty() {
                        self.dirty = false;
                        if let Err(fault) = self.filter.flush(&mut output) {
                            return self.fault(fault);
                        }
                    }
                    return if output.is_empty() { Poll::Pending } else { ready(output) };
                }
                Poll::Ready(Some(Err(error))) => {
                    self.state = State::Done;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.dirty = true;
                        taken += data.len();
                        if let Err(fault) = self.filter.push(&data, &mut output) {
                            return self.fault(fault);
                        }
                        if !output.is_empty() {
                            return ready(output);
                        }
                        if taken >= INPUT_PER_POLL {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        continue;
                    }
                    Err(frame) => frame.into_trailers().ok(),
                },
                Poll::Ready(None) => None,
            };
            if let Err(fault) = self.filter.finish(&mut output) {
                return self.fault(fault);
            }
            self.state = State::Trailers(trailers);
            return if output.is_empty() { self.poll_frame(cx) } else { ready(output) };
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }

    fn is_end(&self) -> bool {
        matches!(self.state, State::Done)
    }
}

fn ready(output: BytesMut) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
    Poll::Ready(Some(Ok(Frame::data(output.freeze()))))
}
