//! What an outbox needs of a connection, and how a plain socket is sent pieces of files.

use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

use crate::body::FilePiece;

/// A connection to be written to; some can be sent bytes of files.
pub trait SendsFiles: AsyncWrite + Unpin {
    /// True where the kernel can send from files: no TLS in between.
    const SENDS_FILES: bool = false;

    /// Sends bytes of a file without copying them, at most a mebibyte at a time; 0 = the file has ended.
    ///
    /// # Errors
    /// The connection's; `Unsupported` where [`SendsFiles::SENDS_FILES`] is false.
    fn poll_send_file(&mut self, _cx: &mut Context<'_>, _piece: &FilePiece) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// Most bytes of a file sent in one call, so that one client on a fast network does not hold up the others.
const FILE_CHUNK: usize = 1024 * 1024;

impl SendsFiles for TcpStream {
    const SENDS_FILES: bool = true;

    fn poll_send_file(&mut self, cx: &mut Context<'_>, piece: &FilePiece) -> Poll<io::Result<usize>> {
        poll_once_writable(self, cx, |socket| {
            let mut offset = piece.offset();
            Ok(rustix::fs::sendfile(socket, piece, Some(&mut offset), piece.len().min(FILE_CHUNK))?)
        })
    }
}

/// Runs a system call of our own as the runtime runs its: when the socket is writable, again when it turned out not to be.
fn poll_once_writable(
    socket: &TcpStream,
    cx: &mut Context<'_>,
    call: impl Fn(&TcpStream) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_write_ready(cx))?;
        match socket.try_io(Interest::WRITABLE, || call(socket)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return Poll::Ready(done),
        }
    }
}

#[cfg(test)]
impl SendsFiles for Vec<u8> {}
