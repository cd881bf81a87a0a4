//! BYTES → BYTES: pure, streaming transformations. No bodies, no async, no sockets.
//!
//! Every rewriter, encoder and decoder is a [`Filter`]. Tests push every input whole, byte by byte and at random cuts.

pub mod coding;
pub mod delta;
pub mod head;
pub mod html;
pub mod integrity;
pub mod shrink;
pub mod style_links;

use bytes::BytesMut;

/// Why a transformation failed; a stable token each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A buffer outgrew its bound, or there was no memory for it.
    MemoryLimit,
    /// The input is not what it was said to be.
    Malformed,
    /// The input ended in the middle.
    Truncated,
    /// The output outgrew its bound.
    OutputLimit,
}

impl Fault {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::MemoryLimit => "memory_limit",
            Self::Malformed => "malformed_body",
            Self::Truncated => "truncated_body",
            Self::OutputLimit => "output_limit",
        }
    }
}

/// A streaming transformation of bytes.
///
/// Law: the concatenated output does not depend on how the input was cut into pieces, nor on where `flush` was called
/// (an encoder's bytes may differ after a flush; what they decode to may not).
pub trait Filter {
    /// Takes in one piece and appends whatever is ready to `output`.
    ///
    /// # Errors
    /// The named fault; the filter is dead then.
    fn push(&mut self, input: &[u8], output: &mut BytesMut) -> Result<(), Fault>;

    /// Appends all that can be given away without seeing more input.
    ///
    /// # Errors
    /// As [`Self::push`].
    fn flush(&mut self, output: &mut BytesMut) -> Result<(), Fault>;

    /// The input is complete: appends the rest.
    ///
    /// # Errors
    /// As [`Self::push`]; also when the input ended in the middle.
    fn finish(&mut self, output: &mut BytesMut) -> Result<(), Fault>;
}
