//! What an I/O error was, in our words.

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
pub(super) fn of_head(error: &io::Error) -> ErrorKind {
    match tls_error(error) {
        Some(_) => ErrorKind::TlsHandshake,
        None if is_reset(error) => ErrorKind::ConnectionReset,
        None => ErrorKind::ConnectionClosed,
    }
}

/// A failure inside a response body.
pub(super) fn of_body(error: &io::Error) -> ErrorKind {
    if is_reset(error) { ErrorKind::ConnectionReset } else { ErrorKind::ResponseTruncated }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe
    )
}
