//! Bytes in a sealed file of memory (`memfd_create`), and pieces of it on their way to a socket.
//!
//! What a plain socket is sent from ordinary memory, the kernel copies; what it is sent from a file, it takes by page.
//! Everybody else reads the same pages through a mapping.
//!
//! This is the one module of the crate for memory that may use `unsafe`: a mapping of a file is a slice only as long as
//! nobody can change the file, which the seals see to.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Mmap, MmapOptions};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::stored::Keeper;

/// A file of memory that can neither be changed nor resized any more.
#[derive(Debug)]
pub struct MemoryFile {
    file: std::fs::File,
    map: Mmap,
    _keeper: Keeper,
}

impl MemoryFile {
    /// A file with the bytes of `chunks`; `keeper` lives as long as the file. Cost: a copy of all bytes.
    ///
    /// # Errors
    /// What the kernel says: descriptors or memory are short.
    pub fn new(chunks: &[Bytes], keeper: Keeper) -> io::Result<Self> {
        let mut file: std::fs::File =
            memfd_create("tidegate-body", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?.into();
        for chunk in chunks {
            file.write_all(chunk)?;
        }
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let map = map(&file)?;
        Ok(Self { file, map, _keeper: keeper })
    }

    /// All of it, without a copy; the file lives as long as any slice of this.
    #[must_use]
    pub fn bytes(self: &Arc<Self>) -> Bytes {
        Bytes::from_owner(View(Arc::clone(self)))
    }
}

/// Maps a sealed file.
#[allow(unsafe_code, reason = "the module for memory, DESIGN invariant 9")]
fn map(sealed: &std::fs::File) -> io::Result<Mmap> {
    // Private, since before Linux 6.7 a file sealed against writing cannot be mapped shared; the pages are the file's.
    // SAFETY: `map_copy_read_only` asks that the mapped bytes do not change and that the file does not shrink while the mapping
    // lives. The caller has sealed the file against writing, shrinking and growing, and sealed the seals; the kernel
    // refuses to undo that for as long as the file exists, in this process or any other.
    unsafe { MmapOptions::new().map_copy_read_only(sealed) }
}

/// The mapping, as an owner of [`Bytes`].
struct View(Arc<MemoryFile>);

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        &self.0.map
    }
}

/// A part of a file of memory that is still to be sent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FilePiece {
    file: Arc<MemoryFile>,
    offset: u64,
    len: usize,
}

impl FilePiece {
    pub(super) fn whole(file: &Arc<MemoryFile>) -> Self {
        Self { file: Arc::clone(file), offset: 0, len: file.map.len() }
    }

    /// Bytes still to be sent.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a piece is dropped when its last byte was sent")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where in the file they begin.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Passes over bytes that were sent, at most all of them.
    pub fn advance(&mut self, sent: usize) {
        let sent = sent.min(self.len);
        self.offset += sent as u64;
        self.len -= sent;
    }
}

impl AsFd for FilePiece {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(chunks: &[&'static [u8]]) -> io::Result<Arc<MemoryFile>> {
        let chunks: Vec<_> = chunks.iter().map(|chunk| Bytes::from_static(chunk)).collect();
        MemoryFile::new(&chunks, Arc::new(())).map(Arc::new)
    }

    #[test]
    fn the_bytes_outlive_their_file_and_nobody_can_change_them() {
        let file = file(&[b"high ", b"water"]).expect("a file");
        let written = (&file.file).write(b"low").expect_err("sealed");
        assert_eq!(written.kind(), io::ErrorKind::PermissionDenied);
        assert!(file.file.set_len(2).is_err() && file.file.set_len(1 << 20).is_err());
        let tail = file.bytes().slice(5..);
        drop(file);
        assert_eq!(tail, "water");
    }

    #[test]
    fn a_piece_ends_where_its_file_ends() {
        let mut piece = FilePiece::whole(&file(&[b"12345"]).expect("a file"));
        piece.advance(2);
        assert_eq!((piece.offset(), piece.len()), (2, 3));
        piece.advance(9);
        assert_eq!((piece.offset(), piece.len()), (5, 0));
    }
}
