//! A body that passes as it is while somebody looks at its plain bytes.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use crate::body::{Body, Source};
use crate::error::ProxyError;
use crate::policy::mend;
use crate::transform::Filter;
use crate::transform::coding::{DECODED_MAX, Decoder};

/// Who looks.
pub(super) trait Onlooker {
    /// Takes in one piece, without its content coding; false when it has seen enough.
    fn look(&mut self, plain: &[u8]) -> bool;

    /// The body came to its end before enough was seen.
    fn end(&mut self) {}
}

/// Has `body` looked at on its way. `headers` say what coding it has. Cost: one pass over a copy where it is coded.
pub(super) fn watch(body: Body, headers: &HeaderMap, onlooker: impl Onlooker + 'static) -> Body {
    match body {
        Body::Empty => Body::Empty,
        inner => {
            let decoder = mend::only_coding(headers).map(|coding| Decoder::new(coding, DECODED_MAX));
            Body::stream(Watched { inner, decoder, onlooker: Some(onlooker) })
        }
    }
}

struct Watched<O> {
    inner: Body,
    decoder: Option<Decoder>,
    /// `None` once it has seen enough.
    onlooker: Option<O>,
}

impl<O: Onlooker> Watched<O> {
    fn look(&mut self, data: &[u8]) {
        let Some(onlooker) = &mut self.onlooker else { return };
        let wants_more = match &mut self.decoder {
            None => onlooker.look(data),
            Some(decoder) => {
                let mut plain = BytesMut::new();
                // What cannot be decoded here cannot be by a browser either.
                decoder.push(data, &mut plain).is_ok() && onlooker.look(&plain)
            }
        };
        if !wants_more {
            self.onlooker = None;
        }
    }
}

impl<O: Onlooker> Source for Watched<O> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let polled = std::pin::Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.look(&data.clone());
                }
            }
            Poll::Ready(None) => {
                if let Some(mut onlooker) = self.onlooker.take() {
                    onlooker.end();
                }
            }
            Poll::Ready(Some(Err(_))) => self.onlooker = None,
            Poll::Pending => {}
        }
        polled
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }

    fn is_end(&self) -> bool {
        // Whoever has not seen enough is told of the end.
        self.onlooker.is_none() && self.inner.is_end_stream()
    }
}
