//! A request head: where it ends, and what it says (RFC 9112 §2 to §5).
//!
//! [`Scanner`] finds the end of the head as bytes arrive and refuses on sight what lenient parsers accept: a bare LF, a
//! bare CR, a NUL. Every byte is looked at once, however slowly it comes. [`parse`] then reads a complete head with
//! `httparse` and applies the rules it does not know: one `Host` that agrees with the target, honest framing, the
//! methods and targets we serve. A head is copied once, to its exact size; field values are slices of that copy.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{EXPECT, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use super::look_alike::look_alike;
use crate::authority::Authority;
use crate::body::http1::{Declared, Framing, field_line_fault, is_token};
use crate::error::ErrorKind;
use crate::listener::Limits;

/// A request head that passed every check.
#[derive(Debug)]
pub(super) struct Head {
    /// Token as sent.
    pub(super) method: Method,
    /// Path and query, or `*`.
    pub(super) target: Bytes,
    /// 1.0 or 1.1.
    pub(super) version: Version,
    /// Empty only for an HTTP/1.0 request without `Host`.
    pub(super) authority: Authority,
    /// All fields as sent.
    pub(super) headers: HeaderMap,
    /// How long the body is.
    pub(super) framing: Framing,
    /// What the client wants with the connection afterwards (RFC 9112 §9.3).
    pub(super) keep_alive: bool,
    /// `Expect: 100-continue` on a request with a body.
    pub(super) expects_continue: bool,
    /// The protocol named for an upgrade; never `h2c`.
    pub(super) upgrade: Option<Box<str>>,
}

/// How far a head has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scan {
    /// The end is not there yet.
    Partial,
    /// The head lies in this range; what precedes it are tolerated blank lines.
    Complete(Range<usize>),
    /// What arrived cannot become a head.
    Fault(ErrorKind),
}

/// Empty lines tolerated before a request line (RFC 9112 §2.2); some clients send one after a body.
const BLANK_LINES: usize = 2;
/// Room for method, version and spaces beside the target in a request line.
const REQUEST_LINE_EXTRA: usize = 64;
/// Fields parsed without an allocation; a listener whose limit is higher pays one per head.
const FIELDS_ON_STACK: usize = 128;

/// Finds the end of a head in a growing buffer.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// First byte not looked at yet.
    at: usize,
    /// First byte of the line `at` is in.
    line: usize,
    /// First byte of the request line.
    start: usize,
}

impl Scanner {
    /// Looks at the bytes that came since the last call; `bytes` only grows between calls.
    pub(super) fn scan(&mut self, bytes: &[u8], limits: &Limits) -> Scan {
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'\r' => match bytes.get(self.at + 1) {
                    Some(b'\n') => {
                        let line = self.line..self.at;
                        self.at += 2;
                        self.line = self.at;
                        match self.end_of_line(line, limits) {
                            Scan::Partial => continue,
                            done => return done,
                        }
                    }
                    Some(_) => return Scan::Fault(ErrorKind::BadRequest("bare_cr")),
                    None => break,
                },
                b'\n' => return Scan::Fault(ErrorKind::BadRequest("bare_lf")),
                0 => return Scan::Fault(ErrorKind::BadRequest("nul")),
                _ => self.at += 1,
            }
        }
        self.over_limit(limits).map_or(Scan::Partial, Scan::Fault)
    }

    fn end_of_line(&mut self, line: Range<usize>, limits: &Limits) -> Scan {
        if line.start == self.start && line.len() > limits.uri + REQUEST_LINE_EXTRA {
            return Scan::Fault(ErrorKind::UriTooLong);
        }
        if !line.is_empty() {
            return Scan::Partial;
        }
        if line.start > self.start {
            return self.over_limit(limits).map_or(Scan::Complete(self.start..self.at), Scan::Fault);
        }
        self.start = self.at;
        if self.start > 2 * BLANK_LINES { Scan::Fault(ErrorKind::BadRequest("blank_lines")) } else { Scan::Partial }
    }

    fn over_limit(&self, limits: &Limits) -> Option<ErrorKind> {
        let length = self.at - self.start;
        if self.line == self.start && length > limits.uri + REQUEST_LINE_EXTRA {
            Some(ErrorKind::UriTooLong)
        } else {
            (length > limits.header_bytes).then_some(ErrorKind::HeaderTooLarge)
        }
    }
}

/// Reads a complete head (request line to the empty line inclusive), or says why it is refused.
pub(super) fn parse(bytes: &Bytes, limits: &Limits) -> Result<Head, ErrorKind> {
    if limits.headers <= FIELDS_ON_STACK {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_ON_STACK];
        parse_into(bytes, limits, fields.get_mut(..limits.headers).unwrap_or_default())
    } else {
        parse_into(bytes, limits, &mut vec![MaybeUninit::uninit(); limits.headers])
    }
}

fn parse_into<'b>(
    bytes: &'b Bytes,
    limits: &Limits,
    fields: &mut [MaybeUninit<httparse::Header<'b>>],
) -> Result<Head, ErrorKind> {
    let mut raw = httparse::Request::new(&mut []);
    match raw.parse_with_uninit_headers(bytes, fields) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(ErrorKind::TooManyHeaders),
        _ => return Err(diagnose(bytes)),
    }
    let (Some(method), Some(target), Some(minor)) = (raw.method, raw.path, raw.version) else {
        return Err(diagnose(bytes));
    };
    if target.len() > limits.uri {
        return Err(ErrorKind::UriTooLong);
    }
    let method = Method::from_bytes(method.as_bytes()).or(Err(ErrorKind::BadRequest("method")))?;
    let version = if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let Collected { headers, declared, host, connection } = collect(bytes, raw.headers)?;
    let (target, named) = split_target(&method, bytes.slice_ref(target.as_bytes()))?;
    let authority = agree(version, named, host)?;
    let framing = declared.framing(version).map_err(ErrorKind::AmbiguousFraming)?.unwrap_or(Framing::Empty);
    Ok(Head {
        keep_alive: !connection.close && (version == Version::HTTP_11 || connection.keep_alive),
        expects_continue: version == Version::HTTP_11 && framing != Framing::Empty && expects_continue(&headers)?,
        upgrade: connection.upgrade.then(|| upgrade(version, &headers)).flatten(),
        method,
        target,
        version,
        authority,
        headers,
        framing,
    })
}

/// What one pass over the fields finds.
struct Collected {
    /// All of them; the values share the head's copy.
    headers: HeaderMap,
    /// What frames the body.
    declared: Declared,
    host: Option<Authority>,
    connection: Connection,
}

fn collect(bytes: &Bytes, fields: &[httparse::Header<'_>]) -> Result<Collected, ErrorKind> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    let (mut declared, mut connection, mut host) = (Declared::default(), Connection::default(), None);
    for field in fields {
        if let Some(reason) = look_alike(field.name.as_bytes()) {
            return Err(ErrorKind::AmbiguousFraming(reason));
        }
        let name = HeaderName::from_bytes(field.name.as_bytes()).or(Err(ErrorKind::BadRequest("field_name")))?;
        match name.as_str() {
            "transfer-encoding" => declared.add_coding(field.value),
            "content-length" => declared.add_length(field.value),
            "connection" => connection.add(field.value),
            "host" if host.is_some() => return Err(ErrorKind::BadRequest("host_repeated")),
            "host" => host = Some(Authority::parse(field.value)?),
            _ => {}
        }
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
        headers.append(name, value.or(Err(ErrorKind::BadRequest("field_value")))?);
    }
    Ok(Collected { headers, declared, host, connection })
}

/// Path and query, and the authority an absolute target named (RFC 9112 §3.2).
fn split_target(method: &Method, target: Bytes) -> Result<(Bytes, Option<Authority>), ErrorKind> {
    if *method == Method::CONNECT {
        return Err(ErrorKind::MethodRefused);
    }
    if !target.iter().all(|byte| matches!(byte, 0x21..=0x7e) && *byte != b'#') {
        return Err(ErrorKind::BadRequest("target_character"));
    }
    match target.first() {
        Some(b'/') => return Ok((target, None)),
        Some(b'*') if target.len() == 1 && *method == Method::OPTIONS => return Ok((target, None)),
        _ => {}
    }
    let Some(after_scheme) = scheme_length(&target) else { return Err(ErrorKind::BadRequest("target_form")) };
    let rest = target.slice(after_scheme..);
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let named =
        Authority::parse(rest.get(..end).unwrap_or_default()).or(Err(ErrorKind::BadRequest("target_authority")))?;
    let path = rest.slice(end..);
    let path = match path.first() {
        Some(b'/') => path,
        None if *method == Method::OPTIONS => Bytes::from_static(b"*"),
        _ => {
            let mut rooted = BytesMut::with_capacity(path.len() + 1);
            rooted.put_u8(b'/');
            rooted.put(path);
            rooted.freeze()
        }
    };
    Ok((path, Some(named)))
}

/// Length of `http://` or `https://` at the start of an absolute target.
fn scheme_length(target: &[u8]) -> Option<usize> {
    let starts = |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    [&b"http://"[..], &b"https://"[..]].into_iter().find(|scheme| starts(scheme)).map(<[u8]>::len)
}

/// The one authority: `Host`, and the target's where it named one; they must not differ (RFC 9112 §3.2.2 lets the target
/// win, which is how a request reaches two different hosts on two hops).
fn agree(version: Version, named: Option<Authority>, host: Option<Authority>) -> Result<Authority, ErrorKind> {
    match (named, host) {
        (_, None) if version == Version::HTTP_11 => Err(ErrorKind::BadRequest("host_missing")),
        (Some(named), Some(host)) if named != host => Err(ErrorKind::BadRequest("host_differs")),
        (Some(one), _) | (None, Some(one)) => Ok(one),
        (None, None) => Ok(Authority::default()),
    }
}

/// What `Connection` asks for.
#[derive(Debug, Default)]
struct Connection {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

impl Connection {
    /// Reads one line of the field.
    fn add(&mut self, line: &[u8]) {
        for option in line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }
}

/// The first protocol of `Upgrade`; `h2c` is dropped (deprecated by RFC 9113 §3.1), as is any upgrade from HTTP/1.0.
fn upgrade(version: Version, headers: &HeaderMap) -> Option<Box<str>> {
    let named = headers.get(UPGRADE)?.to_str().ok()?.split(',').next()?.trim();
    (version == Version::HTTP_11 && !named.is_empty() && !named.eq_ignore_ascii_case("h2c")).then(|| named.into())
}

/// Whether `Expect` asks for 100; any other expectation is refused (RFC 9110 §10.1.1).
fn expects_continue(headers: &HeaderMap) -> Result<bool, ErrorKind> {
    match headers.get(EXPECT) {
        None => Ok(false),
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(true),
        Some(_) => Err(ErrorKind::ExpectationFailed),
    }
}

/// Why `httparse` did not accept a head. Runs on refused heads only.
fn diagnose(head: &[u8]) -> ErrorKind {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let request_line = lines.next().unwrap_or_default();
    if let Some(fault) = request_line_fault(request_line) {
        return fault;
    }
    ErrorKind::BadRequest(lines.find_map(field_line_fault).unwrap_or("head_malformed"))
}

fn request_line_fault(line: &[u8]) -> Option<ErrorKind> {
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let fault = match parts.as_slice() {
        [method, ..] if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) => "method",
        [_, _] => "http09",
        [_, _, b"HTTP/1.0" | b"HTTP/1.1"] => return None,
        [_, _, version] if is_version(version) => return Some(ErrorKind::VersionRefused),
        [_, _, _] => "version",
        _ => "request_line_spaces",
    };
    Some(ErrorKind::BadRequest(fault))
}

/// `HTTP/` digit `.` digit.
fn is_version(text: &[u8]) -> bool {
    matches!(text.strip_prefix(b"HTTP/"), Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { header_bytes: 200, headers: 5, uri: 40, streams: 1, connections_per_client: 1 };

    const PARTS: [&[u8]; 22] = [
        b"GET ",
        b"POST ",
        b"/",
        b"* ",
        b"/a?b ",
        b"http://a/ ",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"Host: a",
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"Connection: close",
        b": ",
        b" ",
        b"\t",
        b"\xff",
        b"x-very-long-name-to-get-over-the-limit: and-a-value-that-is-just-as-long",
    ];

    fn scan_in_steps(input: &[u8], step: usize) -> Scan {
        let mut scanner = Scanner::default();
        let ends = (1..=input.len()).filter(|end| end % step == 0 || *end == input.len());
        let scans = ends.map(|end| scanner.scan(&input[..end], &LIMITS));
        scans.into_iter().find(|scan| *scan != Scan::Partial).unwrap_or(Scan::Partial)
    }

    proptest::proptest! {
        #[test]
        fn any_cut_finds_the_same_head_and_none_makes_the_parser_panic(
            parts in proptest::collection::vec(proptest::sample::select(PARTS.to_vec()), 0..20),
            step in 1_usize..9,
        ) {
            let input = [parts.concat().as_slice(), b"\r\n\r\n"].concat();
            let whole = scan_in_steps(&input, input.len());
            if let Scan::Complete(range) = &whole {
                proptest::prop_assert_eq!(&whole, &scan_in_steps(&input, step));
                let head = Bytes::copy_from_slice(&input[range.clone()]);
                if let Ok(head) = parse(&head, &LIMITS) {
                    proptest::prop_assert!(head.version == Version::HTTP_10 || !head.authority.host().is_empty());
                    proptest::prop_assert!(head.target.starts_with(b"/") || &head.target[..] == b"*");
                }
            }
        }
    }
}
