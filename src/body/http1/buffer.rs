//! The read buffers that the connections of a worker share: one that waits holds none.

use std::cell::RefCell;

use bytes::BytesMut;

/// Bytes read from a socket at a time.
pub const READ_CHUNK: usize = 16 * 1024;
/// Buffers a worker keeps for its connections to borrow; more than are in use between two polls buys nothing.
const SPARE: usize = 16;

thread_local! {
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for [`READ_CHUNK`] bytes. Cost: none but the first time.
#[must_use]
pub fn borrow_buffer() -> BytesMut {
    let spare = BUFFERS.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| BytesMut::with_capacity(READ_CHUNK))
}

/// Takes back what `buffer` holds in memory and leaves it without any.
pub fn return_buffer(buffer: &mut BytesMut) {
    let mut buffer = std::mem::take(buffer);
    buffer.clear();
    if buffer.try_reclaim(READ_CHUNK) && buffer.capacity() <= 2 * READ_CHUNK {
        BUFFERS.with_borrow_mut(|spare| {
            if spare.len() < SPARE {
                spare.push(buffer);
            }
        });
    }
}
