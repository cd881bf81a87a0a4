//! Reading a body out of the bytes that arrived (RFC 9112 §6 and §7), strictly.
//!
//! Pure: bytes in, frames out; whoever calls reads the socket. A chunk size is 1 to 16 hexadecimal digits and nothing
//! else in front of them; extensions are skipped but bounded; every line ends in CRLF. Trailers are bounded like a head;
//! what they may say (RFC 9110 §6.5.1) is for the caller.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::framing::Framing;

/// Why bytes are no body. Each holds a stable name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Another reader might see the end of the body elsewhere.
    Ambiguous(&'static str),
    /// Plainly wrong, or more than anybody sends.
    Malformed(&'static str),
    /// The trailer section has too many bytes.
    TrailersTooLarge,
    /// The trailer section has too many fields.
    TooManyTrailers,
}

/// Longest line of a chunk header, extensions included.
const CHUNK_LINE: usize = 256;
/// Bytes of chunk extensions in one body; nobody sends any, and each costs a parse.
const EXTENSIONS: usize = 4 * 1024;
/// Bytes of a trailer section.
const TRAILERS: usize = 8 * 1024;
/// Fields in a trailer section.
const TRAILER_FIELDS: usize = 32;
/// Pieces smaller than this are copied, so that they do not pin a whole read buffer.
const SHARE_FROM: usize = 4 * 1024;

/// Where in a body the next byte belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Inside a body or chunk of known length.
    Bytes(u64),
    /// Inside a body that ends with its connection.
    UntilClose,
    /// At a chunk header.
    Size,
    /// At the CRLF behind a chunk.
    ChunkEnd,
    /// In the trailer section.
    Trailers,
    /// Behind the body.
    End,
}

/// What the bytes at hand amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// More bytes are needed.
    Need,
    /// A piece of the body; never empty.
    Data(Bytes),
    /// The trailer fields; the body ends here.
    Trailers(HeaderMap),
    /// The body has ended.
    End,
}

/// The reading state of one body.
#[derive(Debug)]
pub struct Decoder {
    place: Place,
    chunked: bool,
    extensions: usize,
}

impl Decoder {
    /// A decoder at the start of a body.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let place = match framing {
            Framing::Empty => Place::End,
            Framing::Length(length) => Place::Bytes(length),
            Framing::Chunked => Place::Size,
        };
        Self { place, chunked: framing == Framing::Chunked, extensions: 0 }
    }

    /// A decoder for a body that ends with its connection (responses only). It never says [`Decoded::End`]: whoever sees
    /// the connection end knows.
    #[must_use]
    pub fn until_close() -> Self {
        Self { place: Place::UntilClose, chunked: false, extensions: 0 }
    }

    /// True for a body that ends with its connection.
    #[must_use]
    pub fn is_until_close(&self) -> bool {
        self.place == Place::UntilClose
    }

    /// True when every byte of the body has been taken.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.place == Place::End
    }

    /// Bytes still to come, where a length was announced.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match self.place {
            Place::End => Some(0),
            Place::Bytes(length) if !self.chunked => Some(length),
            _ => None,
        }
    }

    /// Takes the next piece out of `input`. Cost: one small copy, or a reference count for large pieces.
    ///
    /// # Errors
    /// Why `input` is no body; the bytes behind the fault belong to nobody.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Decoded, Fault> {
        loop {
            match self.place {
                Place::End => return Ok(Decoded::End),
                Place::Bytes(_) | Place::UntilClose if input.is_empty() => return Ok(Decoded::Need),
                Place::Bytes(left) => {
                    let piece = take(left, input);
                    self.place = match (left - piece.len() as u64, self.chunked) {
                        (0, true) => Place::ChunkEnd,
                        (0, false) => Place::End,
                        (left, _) => Place::Bytes(left),
                    };
                    return Ok(Decoded::Data(piece));
                }
                Place::UntilClose => return Ok(Decoded::Data(take(u64::MAX, input))),
                Place::Size => match self.chunk_size(input)? {
                    None => return Ok(Decoded::Need),
                    Some(0) => self.place = Place::Trailers,
                    Some(size) => self.place = Place::Bytes(size),
                },
                Place::ChunkEnd => match input.get(..2) {
                    Some(b"\r\n") => {
                        input.advance(2);
                        self.place = Place::Size;
                    }
                    Some(_) => return Err(Fault::Ambiguous("chunk_end")),
                    None if input.first().is_some_and(|byte| *byte != b'\r') => {
                        return Err(Fault::Ambiguous("chunk_end"));
                    }
                    None => return Ok(Decoded::Need),
                },
                Place::Trailers => return self.trailers(input),
            }
        }
    }

    /// The size of the chunk whose header is next; `None` until its line is complete.
    fn chunk_size(&mut self, input: &mut BytesMut) -> Result<Option<u64>, Fault> {
        let seen = input.get(..input.len().min(CHUNK_LINE)).unwrap_or_default();
        let Some(end) = line_end(seen)? else {
            // What is there must already look right, so that a fault is not waited for.
            parse_size(seen.split(|byte| *byte == b'\r').next().unwrap_or_default(), true)?;
            return if seen.len() == CHUNK_LINE { Err(Fault::Malformed("chunk_line_long")) } else { Ok(None) };
        };
        let (size, extension) = parse_size(seen.get(..end).unwrap_or_default(), false)?;
        self.extensions += extension;
        if self.extensions > EXTENSIONS {
            return Err(Fault::Malformed("chunk_extensions"));
        }
        input.advance(end + 2);
        Ok(Some(size))
    }

    fn trailers(&mut self, input: &mut BytesMut) -> Result<Decoded, Fault> {
        if input.starts_with(b"\r\n") {
            input.advance(2);
            self.place = Place::End;
            return Ok(Decoded::End);
        }
        let Some(length) = section_end(input)? else {
            let over = input.len() > TRAILERS;
            return if over { Err(Fault::TrailersTooLarge) } else { Ok(Decoded::Need) };
        };
        if length > TRAILERS {
            return Err(Fault::TrailersTooLarge);
        }
        let trailers = parse_trailers(&input.split_to(length))?;
        self.place = Place::End;
        Ok(Decoded::Trailers(trailers))
    }
}

/// At most `left` bytes off the front.
fn take(left: u64, input: &mut BytesMut) -> Bytes {
    let length = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
    if length >= SHARE_FROM {
        return input.split_to(length).freeze();
    }
    let piece = Bytes::copy_from_slice(input.get(..length).unwrap_or_default());
    input.advance(length);
    piece
}

/// Position of the CRLF that ends the first line; a CR or LF on its own is refused.
fn line_end(line: &[u8]) -> Result<Option<usize>, Fault> {
    let Some(at) = line.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else { return Ok(None) };
    match (line.get(at), line.get(at + 1)) {
        (Some(b'\n'), _) => Err(Fault::Malformed("bare_lf")),
        (_, Some(b'\n')) => Ok(Some(at)),
        (_, Some(_)) => Err(Fault::Malformed("bare_cr")),
        (_, None) => Ok(None),
    }
}

/// Size and extension length of a chunk header line; a `partial` line may still lack its digits.
fn parse_size(line: &[u8], partial: bool) -> Result<(u64, usize), Fault> {
    let fault = Err(Fault::Ambiguous("chunk_size"));
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at_checked(digits).unwrap_or_default();
    if digits.len() > 16 || (digits.is_empty() && !(partial && line.is_empty())) {
        return fault;
    }
    let size =
        digits.iter().fold(0_u64, |size, digit| (size << 4) | u64::from((*digit as char).to_digit(16).unwrap_or(0)));
    match rest.trim_ascii_start().first() {
        None if rest.is_empty() || partial => Ok((size, 0)),
        Some(b';') if rest.iter().all(|byte| !byte.is_ascii_control() || *byte == b'\t') => Ok((size, rest.len())),
        _ => fault,
    }
}

/// Length of a trailer section up to and including its empty line.
fn section_end(input: &[u8]) -> Result<Option<usize>, Fault> {
    let mut from = 0;
    while let Some(line) = input.get(from..) {
        match line_end(line)? {
            None => return Ok(None),
            Some(0) => return Ok(Some(from + 2)),
            Some(end) => from += end + 2,
        }
    }
    Ok(None)
}

fn parse_trailers(section: &[u8]) -> Result<HeaderMap, Fault> {
    let malformed = || Fault::Malformed("trailers");
    let mut fields = [httparse::EMPTY_HEADER; TRAILER_FIELDS];
    let fields = match httparse::parse_headers(section, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => fields,
        Err(httparse::Error::TooManyHeaders) => return Err(Fault::TooManyTrailers),
        _ => return Err(malformed()),
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).or(Err(malformed()))?;
        trailers.append(name, HeaderValue::from_bytes(field.value).or(Err(malformed()))?);
    }
    Ok(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces of `step` bytes and returns body, trailers and what is left over.
    fn read(framing: Framing, input: &[u8], step: usize) -> Result<(Vec<u8>, usize, Vec<u8>), Fault> {
        let (mut decoder, mut buffer) = (Decoder::new(framing), BytesMut::new());
        let (mut body, mut trailers) = (Vec::new(), 0);
        let mut pieces = input.chunks(step);
        loop {
            match decoder.decode(&mut buffer)? {
                Decoded::Need => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return Err(Fault::Malformed("cut")),
                },
                Decoded::Data(piece) => body.extend_from_slice(&piece),
                Decoded::Trailers(fields) => trailers = fields.len(),
                Decoded::End => break,
            }
        }
        pieces.for_each(|piece| buffer.extend_from_slice(piece));
        Ok((body, trailers, buffer.to_vec()))
    }

    #[test]
    fn bodies_read_the_same_however_they_are_cut() {
        type Case = (Framing, &'static [u8], &'static [u8], usize, &'static [u8]);
        let cases: [Case; 6] = [
            (Framing::Empty, b"GET", b"", 0, b"GET"),
            (Framing::Length(3), b"abcGET", b"abc", 0, b"GET"),
            (Framing::Chunked, b"3\r\nabc\r\n0\r\n\r\nGET", b"abc", 0, b"GET"),
            (Framing::Chunked, b"3;x=y\r\nabc\r\n00A ;z\r\n0123456789\r\n0\r\n\r\n", b"abc0123456789", 0, b""),
            (Framing::Chunked, b"1\r\na\r\n0\r\nx-sum: 1\r\nx-b: 2\r\n\r\nGET", b"a", 2, b"GET"),
            (Framing::Chunked, b"0000000000000001\r\na\r\n0\r\n\r\n", b"a", 0, b""),
        ];
        for (framing, input, body, trailers, rest) in cases {
            for step in [1, 2, 3, 7, 1000] {
                let expected = Ok((body.to_vec(), trailers, rest.to_vec()));
                assert_eq!(read(framing, input, step), expected, "{:?} by {step}", String::from_utf8_lossy(input));
            }
        }
    }

    #[test]
    fn a_hostile_chunk_is_refused_by_name_however_it_is_cut() {
        let long = [b"1;".as_slice(), &[b'x'; 300], b"\r\na\r\n0\r\n\r\n"].concat();
        let many =
            b"1;xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\na\r\n"
                .repeat(60);
        let fields = [b"0\r\n".as_slice(), &b"x: y\r\n".repeat(40), b"\r\n"].concat();
        let large = [b"0\r\nx: ".as_slice(), &[b'y'; 9000], b"\r\n\r\n"].concat();
        use Fault::{Ambiguous, Malformed};
        let cases: [(&[u8], Fault); 20] = [
            (b"\r\nabc", Ambiguous("chunk_size")),
            (b" 3\r\nabc\r\n", Ambiguous("chunk_size")),
            (b"+3\r\nabc\r\n", Ambiguous("chunk_size")),
            (b"-3\r\nabc\r\n", Ambiguous("chunk_size")),
            (b"0x3\r\nabc\r\n", Ambiguous("chunk_size")),
            (b"3 \r\nabc\r\n", Ambiguous("chunk_size")),
            (b"g\r\n", Ambiguous("chunk_size")),
            (b"00000000000000003\r\nabc\r\n", Ambiguous("chunk_size")),
            (b"3\nabc\r\n", Malformed("bare_lf")),
            (b"3\rabc\r\n", Malformed("bare_cr")),
            (b"3;a\nb\r\nabc\r\n", Malformed("bare_lf")),
            (b"3;a\0\r\nabc\r\n", Ambiguous("chunk_size")),
            (b"3\r\nabcd\r\n", Ambiguous("chunk_end")),
            (b"3\r\nabc\n0\r\n\r\n", Ambiguous("chunk_end")),
            (b"0\r\nx y: 1\r\n\r\n", Malformed("trailers")),
            (b"0\r\nx: 1\n\r\n", Malformed("bare_lf")),
            (&long, Malformed("chunk_line_long")),
            (&many, Malformed("chunk_extensions")),
            (&fields, Fault::TooManyTrailers),
            (&large, Fault::TrailersTooLarge),
        ];
        for (input, expected) in cases {
            for step in [1, 4, 10_000] {
                let start = String::from_utf8_lossy(&input[..input.len().min(40)]).into_owned();
                assert_eq!(read(Framing::Chunked, input, step), Err(expected), "{start:?} by {step}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn a_body_is_the_same_in_any_cut(
            parts in proptest::collection::vec(proptest::sample::select(PARTS.to_vec()), 0..12),
            step in 1_usize..9,
        ) {
            let input = parts.concat();
            let whole = read(Framing::Chunked, &input, input.len().max(1));
            let cut = read(Framing::Chunked, &input, step);
            proptest::prop_assert_eq!(whole.ok(), cut.ok());
        }
    }

    const PARTS: [&[u8]; 14] = [
        b"1\r\na\r\n",
        b"0\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"0",
        b"3;x=y\r\n",
        b"abc",
        b"x: y\r\n",
        b" ",
        b"g",
        b"10\r\n",
        b"ffffffffffffffff\r\n",
        b"a: b\n",
    ];
}
