//! One question on a connection of its own, for probes: no task, no pool, nothing kept.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request};

use super::builder;
use crate::error::ErrorKind;
use crate::upstream::stream::Stream;

/// What was answered.
#[derive(Debug)]
pub(in crate::upstream) struct Told {
    pub(in crate::upstream) head: http::response::Parts,
    pub(in crate::upstream) body: Bytes,
    pub(in crate::upstream) trailers: HeaderMap,
}

/// Sends `request` with `body` over a fresh stream and reads the answer to its end, `limit` bytes at most.
///
/// # Errors
/// `ConnectionClosed` when the connection or the stream broke, `MalformedResponse` when the body is longer than `limit`.
pub(in crate::upstream) async fn ask(
    stream: Stream,
    request: Request<()>,
    body: Bytes,
    limit: usize,
) -> Result<Told, ErrorKind> {
    let (sender, mut connection) = builder().handshake(stream).await.map_err(|_| ErrorKind::ConnectionClosed)?;
    let mut asking = std::pin::pin!(exchange(sender, request, body, limit));
    poll_fn(|cx| {
        if let Poll::Ready(told) = asking.as_mut().poll(cx) {
            return Poll::Ready(told);
        }
        match Pin::new(&mut connection).poll(cx) {
            // What the end of the connection means for the question is for the question to say.
            Poll::Ready(_) => match asking.as_mut().poll(cx) {
                Poll::Ready(told) => Poll::Ready(told),
                Poll::Pending => Poll::Ready(Err(ErrorKind::ConnectionClosed)),
            },
            Poll::Pending => asking.as_mut().poll(cx),
        }
    })
    .await
}

async fn exchange(
    mut sender: SendRequest<Bytes>,
    request: Request<()>,
    body: Bytes,
    limit: usize,
) -> Result<Told, ErrorKind> {
    let broken = |error: h2::Error| match error.reason() {
        Some(_) if error.is_library() => ErrorKind::MalformedResponse("not_http2"),
        _ => ErrorKind::ConnectionClosed,
    };
    let (response, mut upload) = sender.send_request(request, body.is_empty()).map_err(broken)?;
    if !body.is_empty() {
        upload.send_data(body, true).map_err(broken)?;
    }
    let (head, mut stream) = response.await.map_err(broken)?.into_parts();
    let mut read = BytesMut::new();
    while let Some(piece) = stream.data().await {
        let piece = piece.map_err(broken)?;
        // Fails only for a stream that is gone, which the next piece will say.
        let _ = stream.flow_control().release_capacity(piece.len());
        read.extend_from_slice(&piece);
        if read.len() > limit {
            return Err(ErrorKind::MalformedResponse("health_page_large"));
        }
    }
    let trailers = stream.trailers().await.map_err(broken)?.unwrap_or_default();
    Ok(Told { head, body: read.freeze(), trailers })
}
