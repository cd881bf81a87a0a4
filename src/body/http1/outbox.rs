//! Bytes on their way out.
//!
//! Small writes (heads, chunk lines) are collected in front, large pieces queue behind without a copy, and one gathering
//! write takes both: a head and its body leave in one system call, and in one TLS record where they fit. Pieces of files
//! go by a call of their own, in which the kernel takes them from the file.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};

use super::buffer::{borrow_buffer, return_buffer};
use super::send_file::SendsFiles;
use crate::body::FilePiece;

/// Bytes collected before the body is not asked for more: two full TLS buffers, and enough for one large write.
const FULL: usize = 128 * 1024;
/// Pieces given to one gathering write.
const SLICES: usize = 32;

/// What waits to be written, in order: `front`, then `queue`.
#[derive(Debug, Default)]
pub struct Outbox {
    front: BytesMut,
    queue: VecDeque<Piece>,
    /// Bytes in `queue`.
    queued: usize,
    /// Something was written that the transport may still hold back (TLS does).
    unflushed: bool,
}

/// A large piece.
#[derive(Debug)]
enum Piece {
    Memory(Bytes),
    File(FilePiece),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File(piece) => piece.len(),
        }
    }

    fn advance(&mut self, written: usize) {
        match self {
            Self::Memory(bytes) => bytes.advance(written),
            Self::File(piece) => piece.advance(written),
        }
    }

    fn memory(&self) -> Option<&[u8]> {
        match self {
            Self::Memory(bytes) => Some(bytes),
            Self::File(_) => None,
        }
    }
}

impl Outbox {
    /// Bytes not written yet.
    #[must_use]
    pub fn unwritten(&self) -> usize {
        self.front.len() + self.queued
    }

    /// True when everything is with the transport, flushed.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.unwritten() == 0 && !self.unflushed
    }

    /// True while another piece may be added.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.unwritten() < FULL && self.queue.len() < SLICES - 1
    }

    /// Adds a large piece without copying it.
    pub fn push(&mut self, piece: Bytes) {
        self.queued += piece.len();
        self.queue.push_back(Piece::Memory(piece));
    }

    /// Adds a piece of a file; the transport must be one that sends files.
    pub fn push_file(&mut self, piece: FilePiece) {
        self.queued += piece.len();
        self.queue.push_back(Piece::File(piece));
    }

    /// Adds what `write` appends.
    pub fn compose(&mut self, write: impl FnOnce(&mut BytesMut)) {
        if self.queue.is_empty() {
            if self.front.capacity() == 0 {
                self.front = borrow_buffer();
            }
            write(&mut self.front);
        } else {
            let mut small = BytesMut::new();
            write(&mut small);
            self.push(small.freeze());
        }
    }

    /// Ready once everything is with the transport. `moved` grows by the bytes it took.
    ///
    /// # Errors
    /// The transport's; what is left is not to be written any more.
    pub fn poll_write<S: SendsFiles>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut S,
        moved: &mut u64,
    ) -> Poll<io::Result<()>> {
        while self.unwritten() > 0 {
            let written = ready!(self.poll_write_some(cx, io))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *moved += written as u64;
            self.unflushed = true;
            self.advance(written);
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
            return_buffer(&mut self.front);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_some<S: SendsFiles>(&self, cx: &mut Context<'_>, io: &mut S) -> Poll<io::Result<usize>> {
        // One slice goes by the plain call: the runtime spares a short plain write its next, useless attempt. What stands
        // before a file is not held back for it (`MSG_MORE`): a head of its own packet costs the kernel a quarter less for
        // 100 KiB than a head that the pages of the file are appended to.
        match (self.front.is_empty(), self.queue.front()) {
            (false, None | Some(Piece::File(_))) => return Pin::new(io).poll_write(cx, &self.front),
            (true, Some(Piece::File(piece))) => return io.poll_send_file(cx, piece),
            (true, Some(Piece::Memory(only))) if self.queue.len() == 1 => return Pin::new(io).poll_write(cx, only),
            _ => {}
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let pieces = std::iter::once(&self.front[..]).chain(self.queue.iter().map_while(Piece::memory));
        let mut used = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces.filter(|piece| !piece.is_empty())) {
            *slice = IoSlice::new(piece);
            used += 1;
        }
        Pin::new(io).poll_write_vectored(cx, slices.get(..used).unwrap_or_default())
    }

    fn advance(&mut self, mut written: usize) {
        let from_front = written.min(self.front.len());
        self.front.advance(from_front);
        written -= from_front;
        self.queued -= written;
        while let Some(piece) = self.queue.front_mut() {
            if written < piece.len() {
                piece.advance(written);
                return;
            }
            written -= piece.len();
            self.queue.pop_front();
        }
    }
}
