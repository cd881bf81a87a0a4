//! Content codings as streams: gzip (RFC 1952), brotli (RFC 7932), zstd (RFC 8878 and RFC 9659).
//!
//! Same input and level give the same bytes in every process: entity-tags rely on it. Levels are always explicit; 0 to
//! what the coding knows, more counts as its highest.
//!
//! A [`Decoder`] reads what a stranger wrote, so it is bounded: memory by the largest window a content coding may ask
//! for, output by `RATIO_MAX` and by a limit the caller gives. Input that ends early is [`Fault::Truncated`],
//! never a short body; an input of no bytes at all is an empty body, as many origins send it.
//!
//! The codecs are async-compression's, driven through its synchronous layer: no task and no reader comes between a piece
//! and its coded bytes.

use std::cell::RefCell;
use std::io;

use async_compression::Level;
use async_compression::codecs::brotli::params::EncoderParams;
use async_compression::codecs::zstd::params::DParameter;
use async_compression::codecs::{
    BrotliDecoder, BrotliEncoder, DecodeV2, DeflateDecoder, EncodeV2, GzipDecoder, GzipEncoder, ZlibDecoder,
    ZstdDecoder, ZstdEncoder,
};
use async_compression::core::util::{PartialBuffer, WriteBuffer};
use bytes::BytesMut;

use super::{Fault, Filter};
use crate::policy::encoding::{Coding, Readable};

/// Output per input byte above which a stream counts as a bomb. Real pages and scripts stay below 100; gzip itself ends
/// at 1032, brotli and zstd go far beyond.
const RATIO_MAX: u64 = 250;
/// Output that is never called a bomb for its ratio: short runs of one byte are common and harmless.
const RATIO_FREE: u64 = 1024 * 1024;
/// Largest zstd window, as a power of two: the 8 MiB of RFC 9659 §3.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Highest zstd level whose window still is within [`ZSTD_WINDOW_LOG_MAX`].
const ZSTD_LEVEL_MAX: u8 = 19;
/// Brotli's window while encoding, as a power of two: 512 KiB cover a page, and bound an encoder to about 2 MiB.
const BROTLI_WINDOW_LOG: i32 = 19;
/// How a brotli stream begins that asks for a window beyond RFC 7932 §9.1, of up to 1 GiB: the one pattern of the first
/// seven bits that the format leaves free. The codec would follow it.
const BROTLI_LARGE_WINDOW: u8 = 0b001_0001;
const BROTLI_LARGE_WINDOW_MASK: u8 = 0b111_1111;
/// How a frame begins that decoders pass over (RFC 8878 §3.1.2).
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// Bytes of a gzip head as our encoder writes it, and the flag that says that an extra field follows it.
const GZIP_HEAD: usize = 10;
const GZIP_EXTRA: u8 = 4;
/// Bytes handed over between a codec and its output in one step.
const STEP: usize = 16 * 1024;

/// Most bytes one body may decode to; the ratio to what came in is bounded besides.
pub const DECODED_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// The level for bodies that are coded while a client waits.
#[must_use]
pub fn fast_level(coding: Coding) -> u8 {
    match coding {
        Coding::Gzip => 5,
        Coding::Br => 4,
        Coding::Zstd => 3,
    }
}

/// Finished encoders that a thread keeps for bodies to come, 1.3 MiB each: as many as small bodies are coded at once.
const IDLE_MAX: usize = 4;

thread_local! {
    /// Zstandard's at their fast level, which begin the next frame where they ended the last. Making one takes 40 to 55
    /// microseconds, coding 1 KiB 4 and 10 KiB 18; gzip's cost 3, and brotli's cannot be used again.
    static IDLE: RefCell<Vec<Box<dyn EncodeV2 + Send>>> = const { RefCell::new(Vec::new()) };
}

fn zstd(level: u8) -> Box<dyn EncodeV2 + Send> {
    let idle = if level == fast_level(Coding::Zstd) { IDLE.with_borrow_mut(Vec::pop) } else { None };
    // Level 0 would mean zstd's default, not its least.
    idle.unwrap_or_else(|| Box::new(ZstdEncoder::new(level.clamp(1, ZSTD_LEVEL_MAX).into())))
}

/// Codes one body. `flush` makes all that was pushed decodable as it stands, at a cost in size.
///
/// Codecs get their input in steps of `STEP`, however it came: deflate's output depends on how its input is cut.
pub struct Encoder {
    coding: Coding,
    level: u8,
    /// Input that does not fill a step yet.
    pending: BytesMut,
    /// `None` once finished.
    codec: Option<Box<dyn EncodeV2 + Send>>,
    /// Bytes that say nothing, still to be put into the stream.
    padding: u8,
    /// The first bytes of a padded gzip stream, until its head is whole.
    head: BytesMut,
}

impl Encoder {
    /// An encoder for one body.
    #[must_use]
    pub fn new(coding: Coding, level: u8) -> Self {
        let precise = Level::Precise(level.into());
        let codec: Box<dyn EncodeV2 + Send> = match coding {
            Coding::Gzip => Box::new(GzipEncoder::new(precise.into())),
            Coding::Br => {
                let params = EncoderParams::default().quality(precise).window_size(BROTLI_WINDOW_LOG);
                Box::new(BrotliEncoder::new(params))
            }
            Coding::Zstd => zstd(level),
        };
        Self { coding, level, pending: BytesMut::new(), codec: Some(codec), padding: 0, head: BytesMut::new() }
    }

    /// The same with so many bytes in its head that decode to nothing: a skippable frame of zstd (RFC 8878 §3.1.2), the
    /// extra field of gzip (RFC 1952 §2.3.1.1). Brotli's has none.
    #[must_use]
    pub fn padded(coding: Coding, level: u8, padding: u8) -> Self {
        Self { padding, ..Self::new(coding, level) }
    }

    /// Puts the padding into what comes first.
    fn pad(&mut self, coded: &mut BytesMut) {
        let zeros = vec![0; self.padding.into()];
        match self.coding {
            Coding::Br => {}
            Coding::Zstd => {
                let frame = [&SKIPPABLE[..], &[self.padding, 0, 0, 0], &zeros, coded].concat();
                *coded = BytesMut::from(&frame[..]);
            }
            Coding::Gzip => {
                self.head.unsplit(std::mem::take(coded));
                if self.head.len() < GZIP_HEAD {
                    return;
                }
                let mut head = self.head.split_to(GZIP_HEAD);
                if let Some(flags) = head.get_mut(3) {
                    *flags |= GZIP_EXTRA;
                }
                head.extend_from_slice(&[self.padding, 0]);
                head.extend_from_slice(&zeros);
                head.unsplit(std::mem::take(&mut self.head));
                *coded = head;
            }
        }
        self.padding = 0;
    }

    /// Runs `code`, and pads what it gives first.
    fn coded(
        &mut self,
        output: &mut BytesMut,
        code: impl FnOnce(&mut Self, &mut BytesMut) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if self.padding == 0 {
            return code(self, output);
        }
        let mut coded = BytesMut::new();
        code(self, &mut coded)?;
        if !coded.is_empty() {
            self.pad(&mut coded);
            output.unsplit(coded);
        }
        Ok(())
    }

    /// Codes `input` to its last byte.
    fn encode(&mut self, input: &[u8], output: &mut BytesMut) -> Result<(), Fault> {
        let Some(codec) = &mut self.codec else { return Ok(()) };
        let mut input = PartialBuffer::new(input);
        while !input.unwritten().is_empty() {
            step(output, |room| codec.encode(&mut input, room)).map_err(|_| Fault::MemoryLimit)?;
        }
        Ok(())
    }

    /// Codes what is pending, and hands it all out by `end`, which says when nothing is left.
    fn drain(
        &mut self,
        output: &mut BytesMut,
        mut end: impl FnMut(&mut dyn EncodeV2, &mut WriteBuffer<'_>) -> io::Result<bool>,
    ) -> Result<(), Fault> {
        let rest = std::mem::take(&mut self.pending);
        self.encode(&rest, output)?;
        let Some(codec) = &mut self.codec else { return Ok(()) };
        while !step(output, |room| end(codec.as_mut(), room)).map_err(|_| Fault::MemoryLimit)? {}
        Ok(())
    }
}

impl Encoder {
    fn take(&mut self, mut input: &[u8], output: &mut BytesMut) -> Result<(), Fault> {
        if !self.pending.is_empty() {
            let (head, tail) = input.split_at(input.len().min(STEP - self.pending.len()));
            self.pending.extend_from_slice(head);
            input = tail;
            if self.pending.len() < STEP {
                return Ok(());
            }
            let full = std::mem::take(&mut self.pending);
            self.encode(&full, output)?;
        }
        let mut steps = input.chunks_exact(STEP);
        for full in steps.by_ref() {
            self.encode(full, output)?;
        }
        self.pending.extend_from_slice(steps.remainder());
        Ok(())
    }
}

impl Filter for Encoder {
    fn push(&mut self, input: &[u8], output: &mut BytesMut) -> Result<(), Fault> {
        self.coded(output, |encoder, output| encoder.take(input, output))
    }

    fn flush(&mut self, output: &mut BytesMut) -> Result<(), Fault> {
        self.coded(output, |encoder, output| encoder.drain(output, |codec, room| codec.flush(room)))
    }

    fn finish(&mut self, output: &mut BytesMut) -> Result<(), Fault> {
        self.coded(output, |encoder, output| encoder.drain(output, |codec, room| codec.finish(room)))?;
        if let Some(codec) = self.codec.take()
            && self.coding == Coding::Zstd
            && self.level == fast_level(Coding::Zstd)
        {
            IDLE.with_borrow_mut(|idle| idle.extend((idle.len() < IDLE_MAX).then_some(codec)));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("coding", &self.coding).finish_non_exhaustive()
    }
}

/// Lets a codec write up to `STEP` bytes, and appends them to `output`. Not in place: `output` may be kept for long, and
/// must not hold more than its bytes.
fn step<R>(output: &mut BytesMut, run: impl FnOnce(&mut WriteBuffer<'_>) -> R) -> R {
    let mut bytes = [0; STEP];
    let mut room = WriteBuffer::new_initialized(&mut bytes);
    let done = run(&mut room);
    output.extend_from_slice(room.written());
    done
}

/// Decodes one body. Nothing is held back, so `flush` does nothing.
pub struct Decoder {
    coding: Readable,
    codec: Box<dyn DecodeV2 + Send>,
    /// The first byte of what is called deflate, until the second shows whether it is zlib's.
    first: Option<u8>,
    bound: Bound,
    /// The last byte was the last one of a member (gzip), a frame (zstd) or the stream (brotli).
    ended: bool,
}

impl Decoder {
    /// A decoder for one body of at most `limit` decoded bytes.
    #[must_use]
    pub fn new(coding: impl Into<Readable>, limit: u64) -> Self {
        let coding = coding.into();
        let codec: Box<dyn DecodeV2 + Send> = match coding {
            Readable::Coding(Coding::Gzip) => Box::new(GzipDecoder::new()),
            Readable::Coding(Coding::Br) => Box::new(BrotliDecoder::new()),
            Readable::Coding(Coding::Zstd) => {
                Box::new(ZstdDecoder::new_with_params(&[DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX)]))
            }
            Readable::Deflate => Box::new(ZlibDecoder::new()),
        };
        Self { coding, codec, first: None, bound: Bound { taken: 0, given: 0, limit }, ended: false }
    }

    /// One step of the codec, which has more to do as long as it fills its room.
    fn step(&mut self, input: &mut PartialBuffer<&[u8]>, output: &mut BytesMut) -> Result<Progress, Fault> {
        let before = output.len();
        // Deflate calls it an error to be asked when there is nothing to do. No member ends in a flush: its last bytes, a
        // checksum, decode to nothing.
        let flush =
            matches!(self.coding, Readable::Coding(Coding::Gzip) | Readable::Deflate) && input.unwritten().is_empty();
        let progress = step(output, |room| {
            let ended = if flush { self.codec.flush(room).map(|_| false) } else { self.codec.decode(input, room) };
            ended.map(|ended| Progress { ended, filled: room.has_no_spare_space() })
        });
        self.bound.give(output.len() - before)?;
        progress.map_err(|_| Fault::Malformed)
    }

    /// What follows an end: another member or frame, but nothing behind brotli and deflate.
    fn begin_next(&mut self) -> Result<(), Fault> {
        if matches!(self.coding, Readable::Coding(Coding::Br) | Readable::Deflate) {
            return Err(Fault::Malformed);
        }
        self.ended = false;
        self.codec.reinit().map_err(|_| Fault::MemoryLimit)
    }
}

/// How a step of a decoder ended.
struct Progress {
    ended: bool,
    filled: bool,
}

impl Decoder {
    /// RFC 9110 §8.4.1.2 means zlib's format by deflate; some servers send the bare stream all the same. Says whether the
    /// beginning has come.
    fn tell_deflate(&mut self, input: &mut &[u8], output: &mut BytesMut) -> Result<bool, Fault> {
        if self.coding != Readable::Deflate || self.bound.taken > 0 {
            return Ok(true);
        }
        let Some((&next, rest)) = input.split_first() else { return Ok(false) };
        let Some(first) = self.first.take() else {
            self.first = Some(next);
            *input = rest;
            return self.tell_deflate(input, output);
        };
        // RFC 1950 §2.2: the method is 8, and the two bytes as a number are a multiple of 31.
        if first & 0x0f != 8 || u16::from_be_bytes([first, next]) % 31 != 0 {
            self.codec = Box::new(DeflateDecoder::new());
        }
        self.decode(&[first], output)?;
        Ok(true)
    }

    fn decode(&mut self, input: &[u8], output: &mut BytesMut) -> Result<(), Fault> {
        self.bound.take(input.len());
        let mut input = PartialBuffer::new(input);
        while !input.unwritten().is_empty() {
            if self.ended {
                self.begin_next()?;
            }
            loop {
                let Progress { ended, filled } = self.step(&mut input, output)?;
                self.ended = ended;
                if ended || (input.unwritten().is_empty() && !filled) {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Filter for Decoder {
    fn push(&mut self, mut input: &[u8], output: &mut BytesMut) -> Result<(), Fault> {
        if !self.tell_deflate(&mut input, output)? {
            return Ok(());
        }
        let first = input.first().filter(|_| self.bound.taken == 0);
        if self.coding == Readable::Coding(Coding::Br)
            && first.is_some_and(|byte| byte & BROTLI_LARGE_WINDOW_MASK == BROTLI_LARGE_WINDOW)
        {
            return Err(Fault::Malformed);
        }
        self.decode(input, output)
    }

    fn flush(&mut self, _output: &mut BytesMut) -> Result<(), Fault> {
        Ok(())
    }

    fn finish(&mut self, _output: &mut BytesMut) -> Result<(), Fault> {
        let nothing = self.bound.taken == 0 && self.first.is_none();
        if self.ended || nothing { Ok(()) } else { Err(Fault::Truncated) }
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("coding", &self.coding).field("bound", &self.bound).finish_non_exhaustive()
    }
}

/// Counts bytes coming in and going out, and says when it is too many.
#[derive(Debug)]
struct Bound {
    taken: u64,
    given: u64,
    /// By the caller.
    limit: u64,
}

impl Bound {
    fn take(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes as u64);
    }

    fn give(&mut self, bytes: usize) -> Result<(), Fault> {
        self.given = self.given.saturating_add(bytes as u64);
        let by_ratio = self.taken.saturating_mul(RATIO_MAX).max(RATIO_FREE);
        if self.given > by_ratio.min(self.limit) { Err(Fault::OutputLimit) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: u64 = 64 * 1024 * 1024;

    fn encode<'a>(coding: Coding, level: u8, chunks: impl Iterator<Item = &'a [u8]>, flush: bool) -> BytesMut {
        let mut encoder = Encoder::new(coding, level);
        let mut coded = BytesMut::new();
        for chunk in chunks {
            encoder.push(chunk, &mut coded).expect("memory");
            if flush {
                encoder.flush(&mut coded).expect("memory");
            }
        }
        encoder.finish(&mut coded).expect("memory");
        coded
    }

    fn decode<'a>(coding: Coding, limit: u64, chunks: impl Iterator<Item = &'a [u8]>) -> Result<BytesMut, Fault> {
        let mut decoder = Decoder::new(coding, limit);
        let mut plain = BytesMut::new();
        for chunk in chunks {
            decoder.push(chunk, &mut plain)?;
        }
        decoder.finish(&mut plain)?;
        Ok(plain)
    }

    fn page() -> Vec<u8> {
        (0..3000_u32)
            .flat_map(|n| format!("<li class=item>{}</li>\n", n.wrapping_mul(2_654_435_761)).into_bytes())
            .collect()
    }

    #[test]
    fn pages_shrink_and_come_back_however_they_are_cut() {
        let page = page();
        for coding in Coding::ALL {
            let coded = encode(coding, fast_level(coding), page.chunks(page.len()), false);
            assert!(coded.len() * 2 < page.len(), "{coding:?} {}", coded.len());
            for size in [1, 1000, STEP + 1] {
                let same = coded == encode(coding, fast_level(coding), page.chunks(size), false);
                assert!(same, "{coding:?} pushed by {size}");
            }
            for size in [1, 7, 4096, coded.len()] {
                assert!(decode(coding, LIMIT, coded.chunks(size)).expect("whole") == page, "{coding:?} {size}");
            }
        }
    }

    #[test]
    fn an_encoder_that_is_used_again_gives_the_same_bytes() {
        let page = page();
        let zstd = |body: &[u8], flush| encode(Coding::Zstd, fast_level(Coding::Zstd), body.chunks(1000), flush);
        let fresh = |body: &[u8]| {
            let body = body.to_vec();
            std::thread::spawn(move || encode(Coding::Zstd, fast_level(Coding::Zstd), body.chunks(1000), false)).join()
        };
        let bodies = [&page[..], b"short", b"", &page[..5000], &page[..], &[b'x'; 100_000]];
        for (body, flush) in bodies.into_iter().zip([false, true].into_iter().cycle()) {
            let used = zstd(body, flush);
            assert_eq!(decode(Coding::Zstd, LIMIT, std::iter::once(&used[..])).expect("whole"), body);
            assert!(zstd(body, false) == fresh(body).expect("no panic"), "{} bytes", body.len());
        }
        assert!(IDLE.with_borrow(Vec::len) == 1, "one was enough");
        // One that is given up half way is not kept: it has a frame begun.
        let mut broken = Encoder::new(Coding::Zstd, fast_level(Coding::Zstd));
        broken.push(&page, &mut BytesMut::new()).expect("memory");
        drop(broken);
        assert!(IDLE.with_borrow(Vec::is_empty));
        let many: Vec<_> = (0..2 * IDLE_MAX).map(|_| Encoder::new(Coding::Zstd, fast_level(Coding::Zstd))).collect();
        many.into_iter().for_each(|mut encoder| encoder.finish(&mut BytesMut::new()).expect("memory"));
        assert_eq!(IDLE.with_borrow(Vec::len), IDLE_MAX);
    }

    #[test]
    fn what_is_flushed_can_be_decoded_at_once() {
        for coding in Coding::ALL {
            let mut encoder = Encoder::new(coding, fast_level(coding));
            let mut decoder = Decoder::new(coding, LIMIT);
            for event in ["data: one\n\n", "data: two\n\n"] {
                let (mut coded, mut plain) = (BytesMut::new(), BytesMut::new());
                encoder.push(event.as_bytes(), &mut coded).expect("memory");
                encoder.flush(&mut coded).expect("memory");
                decoder.push(&coded, &mut plain).expect("whole");
                assert_eq!(plain, event, "{coding:?}");
            }
        }
    }

    #[test]
    fn a_cut_stream_is_never_a_short_body() {
        let page = page();
        for coding in Coding::ALL {
            let coded = encode(coding, fast_level(coding), page.chunks(page.len()), false);
            for end in [1, 3, 10, coded.len() / 2, coded.len() - 1] {
                assert_eq!(decode(coding, LIMIT, coded[..end].chunks(64)), Err(Fault::Truncated), "{coding:?} {end}");
            }
            assert_eq!(decode(coding, LIMIT, std::iter::empty()), Ok(BytesMut::new()), "{coding:?}");
        }
    }

    #[test]
    fn padding_has_its_length_and_says_nothing() {
        let page = page();
        for coding in [Coding::Gzip, Coding::Zstd] {
            let plain = encode(coding, 1, page.chunks(page.len()), false).len();
            for padding in [0, 1, 255] {
                for size in [1, 1000, page.len()] {
                    let (mut encoder, mut coded) = (Encoder::padded(coding, 1, padding), BytesMut::new());
                    for chunk in page.chunks(size) {
                        encoder.push(chunk, &mut coded).expect("memory");
                    }
                    encoder.finish(&mut coded).expect("memory");
                    let frame = if coding == Coding::Gzip { 2 } else { 8 };
                    let expected = plain + if padding == 0 { 0 } else { frame + usize::from(padding) };
                    assert_eq!(coded.len(), expected, "{coding:?} {padding} by {size}");
                    assert!(
                        decode(coding, LIMIT, coded.chunks(7)).expect("whole") == page,
                        "{coding:?} {padding} by {size}"
                    );
                }
            }
        }
    }

    #[test]
    fn deflate_is_read_in_both_its_meanings() {
        use std::io::Write as _;
        let page = page();
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        zlib.write_all(&page).expect("memory");
        bare.write_all(&page).expect("memory");
        for coded in [zlib.finish().expect("memory"), bare.finish().expect("memory")] {
            let decode = |coded: &[u8], size: usize| {
                let (mut decoder, mut plain) = (Decoder::new(Readable::Deflate, LIMIT), BytesMut::new());
                coded.chunks(size).try_for_each(|chunk| decoder.push(chunk, &mut plain))?;
                decoder.finish(&mut plain).map(|()| plain)
            };
            for size in [1, 2, 3, 4096, coded.len()] {
                assert!(decode(&coded, size).expect("whole") == page, "by {size}");
            }
            for end in [1, 2, coded.len() / 2] {
                assert_eq!(decode(&coded[..end], 64), Err(Fault::Truncated), "{end}");
            }
            assert_eq!(decode(&[&coded[..], b"more"].concat(), 64), Err(Fault::Malformed));
        }
        assert_eq!(Decoder::new(Readable::Deflate, LIMIT).finish(&mut BytesMut::new()), Ok(()));
    }

    #[test]
    fn foreign_bytes_are_corrupt() {
        for coding in Coding::ALL {
            let coded = encode(coding, fast_level(coding), std::iter::once(&b"hello"[..]), false);
            for bytes in
                [b"<html>this is not coded</html>".to_vec(), [&coded[..], b"<html>one more thing</html>"].concat()]
            {
                assert_eq!(decode(coding, LIMIT, bytes.chunks(8)), Err(Fault::Malformed), "{coding:?}");
            }
        }
    }

    #[test]
    fn bodies_that_fill_whole_steps_come_back() {
        for (coding, length) in Coding::ALL.into_iter().flat_map(|coding| (1..4).map(move |n| (coding, n * STEP))) {
            let body = vec![b'x'; length];
            let coded = encode(coding, fast_level(coding), body.chunks(length), false);
            for size in [1, coded.len()] {
                assert!(
                    decode(coding, LIMIT, coded.chunks(size)).expect("whole") == body,
                    "{coding:?} {length} {size}"
                );
            }
        }
    }

    #[test]
    fn a_window_beyond_the_format_is_refused() {
        assert_eq!(decode(Coding::Br, LIMIT, std::iter::once(&[0x10][..])), Err(Fault::Truncated));
        assert_eq!(decode(Coding::Br, LIMIT, std::iter::once(&[0x11][..])), Err(Fault::Malformed));
    }

    #[test]
    fn bombs_are_stopped_before_they_fill_memory() {
        let zeros = vec![0; 32 * 1024 * 1024];
        for coding in Coding::ALL {
            let bomb = encode(coding, fast_level(coding), zeros.chunks(1024 * 1024), false);
            assert_eq!(decode(coding, u64::MAX, bomb.chunks(512)), Err(Fault::OutputLimit), "{coding:?} by ratio");
            let page = page();
            let coded = encode(coding, fast_level(coding), page.chunks(page.len()), false);
            let limit = page.len() as u64;
            assert_eq!(decode(coding, limit, coded.chunks(512)).expect("just fits"), page);
            assert_eq!(decode(coding, limit - 1, coded.chunks(512)), Err(Fault::OutputLimit), "{coding:?} by limit");
        }
    }

    #[test]
    fn streams_may_have_several_parts() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            let one = encode(coding, 1, std::iter::once(&b"one"[..]), false);
            assert_eq!(decode(coding, LIMIT, [one.clone(), one].concat().chunks(5)).expect("whole"), b"oneone"[..]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn decoding_undoes_encoding(
            body in proptest::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..5000),
            coding in proptest::sample::select(&Coding::ALL[..]),
            level in 0..25_u8,
            cut in 1..5000_usize,
            flush: bool,
        ) {
            // Brotli's highest levels take seconds on a debug build and differ in effort only.
            let level = if coding == Coding::Br { level.min(9) } else { level };
            let coded = encode(coding, level, body.chunks(cut), flush);
            prop_assert_eq!(decode(coding, LIMIT, coded.chunks(cut)), Ok(BytesMut::from(&body[..])));
        }

        #[test]
        fn any_bytes_are_answered(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            coding in proptest::sample::select(&Coding::ALL[..]),
        ) {
            let _ = decode(coding, LIMIT, bytes.chunks(7));
        }
    }
}
