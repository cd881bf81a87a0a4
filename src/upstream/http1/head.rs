//! A response head: where it ends, and what it says (RFC 9112 §4 to §6).
//!
//! It is parsed where it lies, as a rule in one piece, then copied once to its exact size; field values are slices of
//! that copy.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};

use crate::body::http1::{Declared, Decoder, Framing, field_line_fault};
use crate::error::ErrorKind;

/// Bytes of a response head. What origins send in practice stays under 16 KiB.
pub(super) const HEAD_BYTES: usize = 64 * 1024;
/// Fields of a response head.
const HEAD_FIELDS: usize = 100;
/// Fields that are added to a head on its way to the client; room for them is made at once.
const FIELDS_ADDED: usize = 4;

/// A response head that passed every check.
#[derive(Debug)]
pub(in crate::upstream) struct Head {
    pub(in crate::upstream) status: StatusCode,
    /// As received.
    pub(in crate::upstream) headers: HeaderMap,
    /// Another exchange may follow on the connection (RFC 9112 §9.3). Never after an answer in HTTP/1.0: such an origin
    /// may not know the framing of the next request.
    pub(in crate::upstream) keep_alive: bool,
    declared: Option<Framing>,
}

impl Head {
    /// Reads the body behind this head (RFC 9112 §6.3). `head_only`: the request was HEAD.
    pub(in crate::upstream) fn body(&self, head_only: bool) -> Decoder {
        let bodyless = matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        match self.declared {
            _ if head_only || bodyless || self.status.is_informational() => Decoder::new(Framing::Empty),
            Some(framing) => Decoder::new(framing),
            None => Decoder::until_close(),
        }
    }

    /// `Content-Length`, where there is one.
    pub(in crate::upstream) fn content_length(&self) -> Option<u64> {
        match self.declared? {
            Framing::Empty => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        }
    }
}

/// The head at the front of `bytes` and its length; `None` while its end is not there.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, ErrorKind> {
    // The parser would skip blank lines in front. Behind an answer that has ended they are unsolicited bytes.
    if bytes.first().is_some_and(|byte| *byte != b'H') {
        return malformed("status_line");
    }
    let mut fields = [const { MaybeUninit::uninit() }; HEAD_FIELDS];
    let mut raw = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut raw, bytes, &mut fields);
    let head = match parsed {
        Ok(httparse::Status::Complete(length)) => bytes.get(..length).unwrap_or_default(),
        Ok(httparse::Status::Partial) if has_bare_lf(bytes) => return malformed("bare_lf"),
        Ok(httparse::Status::Partial) => return too_large(bytes.len()).map_or(Ok(None), Err),
        Err(httparse::Error::TooManyHeaders) => return Err(ErrorKind::ResponseHeaderTooLarge),
        Err(error) => return malformed(diagnose(error, bytes)),
    };
    if has_bare_lf(head) {
        return malformed("bare_lf");
    }
    if let Some(kind) = too_large(head.len()) {
        return Err(kind);
    }
    let Some(status) = raw.code.and_then(|code| StatusCode::from_u16(code).ok()) else {
        return malformed("status_line");
    };
    let version = if raw.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let fields = collect(head, raw.headers)?;
    let declared = fields.declared.framing(version).map_err(ErrorKind::MalformedResponse)?;
    let keep_alive = version == Version::HTTP_11 && !fields.close;
    Ok(Some((Head { status, headers: fields.headers, keep_alive, declared }, head.len())))
}

fn malformed<T>(reason: &'static str) -> Result<T, ErrorKind> {
    Err(ErrorKind::MalformedResponse(reason))
}

fn too_large(length: usize) -> Option<ErrorKind> {
    (length > HEAD_BYTES).then_some(ErrorKind::ResponseHeaderTooLarge)
}

/// Whether a line ends in LF alone, which the parser takes. Without a branch, so that it runs at many bytes a step.
fn has_bare_lf(bytes: &[u8]) -> bool {
    let behind = bytes.get(1..).unwrap_or_default();
    let bare = |(before, byte): (&u8, &u8)| u8::from(*byte == b'\n') & u8::from(*before != b'\r');
    bytes.first() == Some(&b'\n') || bytes.iter().zip(behind).map(bare).fold(0, |any, bare| any | bare) != 0
}

/// Whether the end of a head may be among the bytes from `from` on.
pub(super) fn may_end(bytes: &[u8], from: usize) -> bool {
    let tail = bytes.get(from.saturating_sub(3)..).unwrap_or_default();
    tail.windows(2).any(|pair| pair == b"\n\n") || tail.windows(3).any(|three| three == b"\n\r\n")
}

struct Fields {
    headers: HeaderMap,
    declared: Declared,
    close: bool,
}

/// The fields as a map, and what those of them say that frame the message.
fn collect(head: &[u8], fields: &[httparse::Header<'_>]) -> Result<Fields, ErrorKind> {
    let copy = Bytes::copy_from_slice(head);
    let mut headers = HeaderMap::with_capacity(fields.len() + FIELDS_ADDED);
    let (mut declared, mut close) = (Declared::default(), false);
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).or(malformed("field_name"))?;
        match name.as_str() {
            "transfer-encoding" => declared.add_coding(field.value),
            "content-length" => declared.add_length(field.value),
            "connection" => {
                close |= says_close(field.value);
                // About this connection and nothing else: no stage would look at it, but each would have to drop it.
                if is_keep_alive(field.value) {
                    continue;
                }
            }
            _ => {}
        }
        let value = place(head, field.value).map(|range| copy.slice(range)).unwrap_or_default();
        headers.append(name, HeaderValue::from_maybe_shared(value).or(malformed("field_value"))?);
    }
    Ok(Fields { headers, declared, close })
}

/// Where `part` lies in `whole`; `None` when it is empty.
fn place(whole: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    (!part.is_empty()).then_some(start..start + part.len())
}

fn says_close(connection: &[u8]) -> bool {
    connection.split(|byte| *byte == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// True for the one option that nearly every origin sends.
fn is_keep_alive(connection: &[u8]) -> bool {
    connection.eq_ignore_ascii_case(b"keep-alive")
}

/// Why `httparse` did not accept a head. Runs on refused heads only.
fn diagnose(error: httparse::Error, head: &[u8]) -> &'static str {
    if has_bare_lf(head) {
        return "bare_lf";
    }
    match error {
        httparse::Error::Version => "version",
        httparse::Error::Status | httparse::Error::Token => "status_line",
        _ => {
            let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
            lines.by_ref().skip(1).find_map(field_line_fault).unwrap_or("head_malformed")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: [&[u8]; 18] = [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.0 200",
        b"HTTP/1.1 ",
        b"\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"Connection: close",
        b": ",
        b"Empty:",
        b" ",
        b"\t",
        b"\xff",
        b"204",
        b"x: y",
    ];

    /// The status and number of fields, as soon as prefixes that grow by `step` show them.
    fn parse_in_steps(input: &[u8], step: usize) -> Option<Result<(u16, usize, usize), ErrorKind>> {
        let ends = (1..=input.len()).filter(|end| end % step == 0 || *end == input.len());
        let parsed = ends.map(|end| parse(&input[..end])).find_map(Result::transpose)?;
        Some(parsed.map(|(head, length)| (head.status.as_u16(), head.headers.len(), length)))
    }

    proptest::proptest! {
        #[test]
        fn any_cut_finds_the_same_head_and_none_makes_the_parser_panic(
            parts in proptest::collection::vec(proptest::sample::select(PARTS.to_vec()), 0..12),
            step in 1_usize..9,
        ) {
            let input = [b"HTTP/1.1 200 OK\r\n", parts.concat().as_slice(), b"\r\n\r\n"].concat();
            let whole = parse_in_steps(&input, input.len());
            let cut = parse_in_steps(&input, step);
            if let Some(Ok(found)) = whole {
                proptest::prop_assert_eq!(cut, Some(Ok(found)));
                let end = (1..=input.len()).find(|end| may_end(&input[..*end], 0));
                proptest::prop_assert_eq!(end, Some(found.2), "the end of a head is found");
            } else {
                proptest::prop_assert!(!matches!(cut, Some(Ok(_))), "{:?}", cut);
            }
        }
    }

    #[test]
    fn a_broken_head_is_refused_by_name() {
        let cases: [(&[u8], &str); 16] = [
            (b"\r\nHTTP/1.1 200 OK\r\n\r\n", "status_line"),
            (b"ICY 200 OK\r\n\r\n", "status_line"),
            (b"HTTP/2.0 200 OK\r\n\r\n", "version"),
            (b"HTTP/1.1 20 OK\r\n\r\n", "status_line"),
            (b"HTTP/1.1 099 OK\r\n\r\n", "status_line"),
            (b"HTTP/1.1 200 OK\n\n", "bare_lf"),
            (b"HTTP/1.1 200 OK\r\nX: 1\n\r\n", "bare_lf"),
            (b"HTTP/1.1 200 OK\nX: 1", "bare_lf"),
            (b"HTTP/1.1 200 OK\r\nX: 1\r2\r\n\r\n", "field_value"),
            (b"HTTP/1.1 200 OK\r\nX: 1\x002\r\n\r\n", "field_value"),
            (b"HTTP/1.1 200 OK\r\nX : 1\r\n\r\n", "space_before_colon"),
            (b"HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\n\r\n", "obs_fold"),
            (b"HTTP/1.1 200 OK\r\n: 1\r\n\r\n", "field_name"),
            (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "field_without_colon"),
            (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "te_in_http10"),
            (b"HTTP/1.1 204 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "te_with_cl"),
        ];
        for (input, reason) in cases {
            let refused = parse(input).map(|found| found.is_some());
            assert_eq!(refused, Err(ErrorKind::MalformedResponse(reason)), "{}", input.escape_ascii());
        }
    }

    #[test]
    fn values_are_what_was_sent() {
        let (head, length) = parse(b"HTTP/1.1 200\r\nA:\r\nB:  b \r\nb: c\r\n\r\nbody").unwrap().unwrap();
        let values: Vec<_> = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(values, [("a", b"".as_slice()), ("b", b"b"), ("b", b"c")]);
        assert_eq!((length, head.keep_alive), (34, true));
    }
}
