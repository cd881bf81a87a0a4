//! What an error of the `h2` crate was, in our words.

use std::io;

use h2::{Error, Reason};

use super::session::Session;
use crate::error::ErrorKind;
use crate::upstream::fault;

/// How far the exchange had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    Head,
    Body,
}

/// True when the origin says that it has not looked at the request: the stream lies above the last one of its GOAWAY, or
/// was refused (RFC 9113 §8.7). Any request may then be sent again.
pub(super) fn is_unprocessed(error: &Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    error.is_remote() && (refused || error.is_go_away())
}

/// What broke a stream.
pub(super) fn of_stream(error: &Error, session: &Session, within: Within) -> ErrorKind {
    match error.reason() {
        Some(reason) if error.is_remote() && error.is_reset() => of_reset(reason),
        Some(_) if error.is_remote() => ErrorKind::ConnectionClosed,
        // How the crate refuses a head that is longer than we take.
        Some(Reason::REFUSED_STREAM) if error.is_library() => ErrorKind::ResponseHeaderTooLarge,
        Some(_) if error.is_library() && error.is_go_away() && !session.is_settled() => {
            ErrorKind::MalformedResponse("not_http2")
        }
        Some(reason) if error.is_library() => ErrorKind::MalformedResponse(of_breach(reason)),
        _ => session.fault().unwrap_or_else(|| error.get_io().map_or(lost(within), |error| of_socket(error, within))),
    }
}

/// RST_STREAM from the origin. Some codes say that it could not make sense of what we sent.
fn of_reset(reason: Reason) -> ErrorKind {
    match reason {
        Reason::PROTOCOL_ERROR => ErrorKind::MalformedResponse("reset_protocol_error"),
        Reason::HTTP_1_1_REQUIRED => ErrorKind::MalformedResponse("reset_http_1_1_required"),
        Reason::FLOW_CONTROL_ERROR => ErrorKind::MalformedResponse("reset_flow_control_error"),
        _ => ErrorKind::ConnectionReset,
    }
}

/// What the origin did that RFC 9113 forbids.
fn of_breach(reason: Reason) -> &'static str {
    match reason {
        Reason::PROTOCOL_ERROR => "http2_protocol_error",
        Reason::FLOW_CONTROL_ERROR => "http2_flow_control_error",
        Reason::FRAME_SIZE_ERROR => "http2_frame_size_error",
        Reason::COMPRESSION_ERROR => "http2_compression_error",
        Reason::STREAM_CLOSED => "http2_stream_closed",
        Reason::ENHANCE_YOUR_CALM => "http2_frame_flood",
        _ => "http2_error",
    }
}

/// The connection failed. The crate keeps the kind of error and little else.
fn of_socket(error: &io::Error, within: Within) -> ErrorKind {
    match (error.kind(), within) {
        (io::ErrorKind::InvalidData, Within::Head) => ErrorKind::TlsHandshake,
        // How the crate names the end of the connection.
        (io::ErrorKind::BrokenPipe, within) => lost(within),
        (_, Within::Head) => fault::of_head(error),
        (_, Within::Body) => fault::of_body(error),
    }
}

fn lost(within: Within) -> ErrorKind {
    match within {
        Within::Head => ErrorKind::ConnectionClosed,
        Within::Body => ErrorKind::ResponseTruncated,
    }
}
