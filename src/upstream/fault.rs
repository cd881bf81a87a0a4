//! What an I/O or protocol error was, in our words.

use std::error::Error;
use std::io;

use rustix::io::Errno;

use crate::error::ErrorKind;

/// A failed `connect`. Running out of descriptors or ports of our own is not the endpoint's failure.
pub(super) fn of_connect(error: &io::Error) -> ErrorKind {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
    if exhausted.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) {
        return ErrorKind::Overloaded;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            ErrorKind::ConnectRefused
        }
        io::ErrorKind::TimedOut => ErrorKind::ConnectTimeout,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => ErrorKind::ConnectionReset,
        _ => ErrorKind::DestinationUnroutable,
    }
}

/// A failed TLS handshake: the certificate's fault, or anything else.
pub(super) fn of_handshake(error: &io::Error) -> ErrorKind {
    match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            ErrorKind::TlsCertificate
        }
        _ => ErrorKind::TlsHandshake,
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// A failure before the response head was complete.
pub(super) fn of_head(error: &hyper::Error) -> ErrorKind {
    if error.is_parse_too_large() {
        return ErrorKind::ResponseHeaderTooLarge;
    }
    if error.is_parse() {
        return ErrorKind::MalformedResponse;
    }
    match io_cause(error) {
        Some(cause) if tls_error(cause).is_some() => ErrorKind::TlsHandshake,
        Some(cause) if is_reset(cause) => ErrorKind::ConnectionReset,
        _ => ErrorKind::ConnectionClosed,
    }
}

/// A failure inside a response body.
pub(super) fn of_body(error: &hyper::Error) -> ErrorKind {
    match io_cause(error) {
        Some(cause) if is_reset(cause) => ErrorKind::ConnectionReset,
        Some(cause) if matches!(cause.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => {
            ErrorKind::MalformedResponse
        }
        _ => ErrorKind::ResponseTruncated,
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe
    )
}

/// The I/O error at the bottom, if there is one.
fn io_cause(error: &hyper::Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
