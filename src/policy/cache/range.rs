//! Parts of a response (RFC 9110 §14): what a `Range` asks for, whether it gets it, and what an origin's `Content-Range`
//! tells about the whole.
//!
//! Ranges count the bytes of the *selected representation*, and only a strong validator says that two answers were cut
//! from the same one. A content coding that is put on here is no good for that: its bytes depend on where the encoder
//! was flushed while the origin paused, so the same tag may stand for other bytes once the child is made anew. Whoever
//! asks for a range therefore gets it from the bytes as they are stored (with the origin's own coding, or that one taken
//! off, which always gives the same bytes) under the tag of those bytes. An `If-Range` with the tag of a coding of ours
//! does not match that tag, and its client gets the whole, in a coding of its choice: what it had is of no use then, but
//! never mixed with something else.

use std::ops::Range;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, IF_RANGE, LAST_MODIFIED,
    RANGE, TRAILER,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::storing::{self, NotStored};
use super::{CacheParams, RequestFacts, ResponseFacts, dates};
use crate::policy::fields;
use crate::policy::validators::EntityTag;

/// Most parts of one answer. Download tools ask for two to eight; a document viewer for a dozen.
pub const MAX_PARTS: usize = 16;

/// Most ranges looked at: more than [`MAX_PARTS`], for neighbours are joined.
const MAX_SPECS: usize = 64;

/// Ranges that may begin within an earlier one. More of them are "a broken client or a deliberate denial-of-service
/// attack" (§14.2).
const MAX_OVERLAPS: usize = 2;

/// What a part of a multipart answer costs besides its bytes: boundary, two fields. Generous.
const PART_OVERHEAD: u64 = 160;

/// A run of bytes; never empty. Both positions count from 0 and are included, as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Position of its first byte.
    pub first: u64,
    /// Position of its last byte.
    pub last: u64,
}

impl Part {
    /// Its bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a part is never empty")]
    pub fn len(self) -> u64 {
        self.last - self.first + 1
    }

    /// The same with its end left out, as slices are named.
    #[must_use]
    pub fn range(self) -> Range<u64> {
        self.first..self.last + 1
    }

    /// `Content-Range` of this part of a whole of `whole` bytes (§14.4).
    #[must_use]
    pub fn content_range(self, whole: u64) -> HeaderValue {
        let text = format!("bytes {}-{}/{whole}", self.first, self.last);
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("bytes */*"))
    }
}

/// `Content-Range` of an answer that no range could be cut for: 416 (§15.5.17).
#[must_use]
pub fn unsatisfied(whole: u64) -> HeaderValue {
    HeaderValue::try_from(format!("bytes */{whole}")).unwrap_or(HeaderValue::from_static("bytes */*"))
}

/// What a request gets of a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All of it, and why.
    Whole(WholeReason),
    /// One part.
    One(Part),
    /// Several, in the order they are to be sent: two to [`MAX_PARTS`], no two of them touching, together smaller than
    /// the whole with all that a multipart body costs.
    Several(Vec<Part>),
    /// None of what was asked for exists: 416.
    Nothing,
}

/// Why a request gets the whole. A recipient may always ignore `Range` (§14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WholeReason {
    /// No `Range`, or a method other than GET, for which it means nothing.
    NotAsked,
    /// The response is no 200.
    Status,
    /// `If-Range` names something else than the very bytes at hand, or cannot be read (§13.1.5).
    IfRange,
    /// The field cannot be read, or came twice.
    Malformed,
    /// Another unit than bytes.
    OtherUnit,
    /// More ranges than are worth an answer.
    TooMany,
    /// Ranges that overlap in a way no honest client needs.
    Overlapping,
    /// The parts would take as many bytes as the whole.
    NotSmaller,
    /// Several parts of a coded body: the field that names the coding would speak of the multipart body.
    Coded,
    /// There is nothing to cut a suffix from.
    Empty,
}

impl WholeReason {
    /// Stable name; `None` where nobody asked for anything else.
    #[must_use]
    pub fn token(self) -> Option<&'static str> {
        Some(match self {
            Self::NotAsked => return None,
            Self::Status => "range_status",
            Self::IfRange => "if_range",
            Self::Malformed => "range_malformed",
            Self::OtherUnit => "range_unit",
            Self::TooMany => "range_too_many",
            Self::Overlapping => "range_overlapping",
            Self::NotSmaller => "range_not_smaller",
            Self::Coded => "range_coded",
            Self::Empty => "range_empty",
        })
    }
}

/// A response that parts may be cut from.
#[derive(Debug, Clone, Copy)]
pub struct WholeFacts<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, as they would go out with all of it.
    pub headers: &'a HeaderMap,
    /// Its bytes.
    pub length: u64,
    /// No other bytes go out under the same `Last-Modified`: those of another coding, or of an optimiser, would not be told
    /// from these by it.
    pub dated_alone: bool,
}

/// True when the request asks for a part.
#[must_use]
pub fn is_asked(method: &Method, request: &HeaderMap) -> bool {
    *method == Method::GET && fields::has(request, &RANGE)
}

/// True when one part is asked for that begins within the first `limit` bytes, however many there are: what a fetch of
/// the whole brings soonest.
#[must_use]
pub fn begins_within(request: &HeaderMap, limit: u64) -> bool {
    parse(request).is_ok_and(|specs| matches!(specs[..], [Spec::From(first, _)] if first < limit))
}

/// What of `whole` goes to this request. `If-None-Match` and its kin come first (§13.2.2): they have been answered
/// before this is asked. Cost without `Range`: one map lookup; otherwise a pass over the field.
#[must_use]
pub fn decide(method: &Method, request: &HeaderMap, whole: &WholeFacts<'_>) -> Wanted {
    if !is_asked(method, request) {
        return Wanted::Whole(WholeReason::NotAsked);
    }
    if whole.status != StatusCode::OK {
        return Wanted::Whole(WholeReason::Status);
    }
    let specs = match parse(request) {
        Ok(specs) => specs,
        Err(reason) => return Wanted::Whole(reason),
    };
    if !condition_holds(request, whole) {
        return Wanted::Whole(WholeReason::IfRange);
    }
    select(&specs, whole)
}

/// One member of a range set (§14.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spec {
    /// `first-[last]`
    From(u64, u64),
    /// `-length`
    Suffix(u64),
}

impl Spec {
    /// `None` when it is not valid. A number too large to be one is larger than any length.
    fn parse(text: &[u8]) -> Option<Self> {
        let dash = text.iter().position(|&byte| byte == b'-')?;
        let (first, rest) = text.split_at_checked(dash)?;
        let last = rest.strip_prefix(b"-")?;
        match (first, last) {
            ([], []) => None,
            ([], length) => Some(Self::Suffix(number(length)?)),
            (first, []) => Some(Self::From(number(first)?, u64::MAX)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From(first, last))
            }
        }
    }

    /// The bytes it names, where there are any (§14.1.2).
    fn of(self, length: u64) -> Option<Part> {
        let end = length.checked_sub(1)?;
        match self {
            Self::From(first, last) => (first <= end).then(|| Part { first, last: last.min(end) }),
            Self::Suffix(0) => None,
            Self::Suffix(count) => Some(Part { first: length.saturating_sub(count), last: end }),
        }
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    let only_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    only_digits.then(|| digits.iter().fold(0, add))
}

fn parse(request: &HeaderMap) -> Result<Vec<Spec>, WholeReason> {
    let mut lines = request.get_all(RANGE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return Err(WholeReason::Malformed) };
    let text = line.as_bytes();
    let equals = text.iter().position(|&byte| byte == b'=').ok_or(WholeReason::Malformed)?;
    let (unit, set) = text.split_at_checked(equals).ok_or(WholeReason::Malformed)?;
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return Err(WholeReason::OtherUnit);
    }
    let mut specs = Vec::new();
    let members = set.get(1..).unwrap_or_default().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    for member in members.filter(|member| !member.is_empty()) {
        if specs.len() == MAX_SPECS {
            return Err(WholeReason::TooMany);
        }
        specs.push(Spec::parse(member).ok_or(WholeReason::Malformed)?);
    }
    if specs.is_empty() { Err(WholeReason::Malformed) } else { Ok(specs) }
}

/// §13.1.5: true without the field; else only where it names the very bytes at hand, by a strong tag or a date that is as
/// good as one.
fn condition_holds(request: &HeaderMap, facts: &WholeFacts<'_>) -> bool {
    let whole = facts.headers;
    let mut lines = request.get_all(IF_RANGE).iter();
    let Some(line) = lines.next() else { return true };
    if lines.next().is_some() {
        return false;
    }
    if let Some(tag) = EntityTag::parse(line.as_bytes()) {
        let current = whole.get(ETAG).and_then(|current| EntityTag::parse(current.as_bytes()));
        return current.is_some_and(|current| current.same_bytes(tag));
    }
    let Some(date) = line.to_str().ok().and_then(dates::parse) else { return false };
    let Some(modified) = dates::read(whole, &LAST_MODIFIED) else { return false };
    // What was modified within the second it was dated may have been modified once more (§8.8.2.2).
    let dated = dates::read(whole, &DATE);
    facts.dated_alone && date == modified && dated.is_some_and(|dated| dated > modified)
}

fn select(specs: &[Spec], whole: &WholeFacts<'_>) -> Wanted {
    let length = whole.length;
    let mut asked: Vec<_> = specs.iter().filter_map(|spec| spec.of(length)).enumerate().collect();
    if asked.is_empty() {
        let suffix = |spec: &Spec| matches!(spec, Spec::Suffix(count) if *count > 0);
        // Such a suffix is satisfiable, but no Content-Range can name the no bytes it has.
        return if specs.iter().any(suffix) { Wanted::Whole(WholeReason::Empty) } else { Wanted::Nothing };
    }
    asked.sort_unstable_by_key(|(_, part)| part.first);
    let mut joined: Vec<(usize, Part)> = Vec::with_capacity(asked.len());
    let mut overlaps = 0;
    for (place, part) in asked {
        match joined.last_mut() {
            Some((first_place, before)) if part.first <= before.last + 1 => {
                overlaps += usize::from(part.first <= before.last);
                before.last = before.last.max(part.last);
                *first_place = (*first_place).min(place);
            }
            _ => joined.push((place, part)),
        }
    }
    if overlaps > MAX_OVERLAPS {
        return Wanted::Whole(WholeReason::Overlapping);
    }
    // In the order they were asked for (§15.3.7.2).
    joined.sort_unstable_by_key(|(place, _)| *place);
    let parts: Vec<_> = joined.into_iter().map(|(_, part)| part).collect();
    match parts[..] {
        [only] => Wanted::One(only),
        _ if parts.len() > MAX_PARTS => Wanted::Whole(WholeReason::TooMany),
        _ if whole.headers.contains_key(CONTENT_ENCODING) => Wanted::Whole(WholeReason::Coded),
        _ if multipart_bytes(&parts) >= length => Wanted::Whole(WholeReason::NotSmaller),
        _ => Wanted::Several(parts),
    }
}

/// What a body of these parts takes at most.
fn multipart_bytes(parts: &[Part]) -> u64 {
    parts.iter().fold(PART_OVERHEAD, |sum, part| sum.saturating_add(part.len()).saturating_add(PART_OVERHEAD))
}

/// Fields that speak of the content of a message: of a part they would speak of the part.
const OF_CONTENT: [HeaderName; 4] =
    [CONTENT_LENGTH, TRAILER, HeaderName::from_static("content-md5"), HeaderName::from_static("content-digest")];

/// Turns the head of a 200 into that of a 206 with this one part of `whole` bytes (§15.3.7.1).
pub fn mend_one(headers: &mut HeaderMap, part: Part, whole: u64) {
    drop_of_content(headers);
    headers.insert(CONTENT_RANGE, part.content_range(whole));
}

/// Turns the head of a 200 into that of a 206 with several parts between `boundary` (§15.3.7.2); returns the media type
/// that each part says for itself.
pub fn mend_several(headers: &mut HeaderMap, boundary: &str) -> Option<HeaderValue> {
    drop_of_content(headers);
    headers.remove(CONTENT_RANGE);
    let multipart = HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}")).ok()?;
    headers.insert(CONTENT_TYPE, multipart)
}

fn drop_of_content(headers: &mut HeaderMap) {
    for name in &OF_CONTENT {
        headers.remove(name);
    }
}

/// Says that ranges of this response will be answered.
pub fn offer(headers: &mut HeaderMap) {
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
}

/// What stands before a part in a multipart body (RFC 2046 §5.1.1). `leads`: it is the first.
#[must_use]
pub fn part_head(boundary: &str, leads: bool, media_type: Option<&HeaderValue>, part: Part, whole: u64) -> Bytes {
    let mut head = Vec::with_capacity(128);
    if !leads {
        head.extend_from_slice(b"\r\n");
    }
    for text in [b"--", boundary.as_bytes(), b"\r\n"] {
        head.extend_from_slice(text);
    }
    if let Some(media_type) = media_type {
        for text in [b"Content-Type: ", media_type.as_bytes(), b"\r\n"] {
            head.extend_from_slice(text);
        }
    }
    for text in [b"Content-Range: ", part.content_range(whole).as_bytes(), b"\r\n\r\n"] {
        head.extend_from_slice(text);
    }
    head.into()
}

/// What ends a multipart body.
#[must_use]
pub fn multipart_end(boundary: &str) -> Bytes {
    format!("\r\n--{boundary}--\r\n").into()
}

/// Why the whole is not fetched behind a part that had to be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotFilled {
    /// The answer is neither 206 nor 200.
    Status,
    /// `Content-Range` does not say how large the whole is.
    SizeUnknown,
    /// The whole exceeds `max_object`.
    TooLarge,
    /// The whole would not be stored.
    NotStored(NotStored),
}

impl NotFilled {
    /// True when the next request for the whole would most likely learn the same.
    #[must_use]
    pub fn is_lasting(self) -> bool {
        match self {
            Self::TooLarge => true,
            Self::NotStored(reason) => reason.is_lasting(),
            Self::Status | Self::SizeUnknown => false,
        }
    }

    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::SizeUnknown => "size_unknown",
            Self::TooLarge => "too_large",
            Self::NotStored(reason) => reason.token(),
        }
    }
}

/// Whether the whole of what a range was forwarded for should be fetched into the store, judged by the origin's answer
/// to the range. An origin that ignores `Range` and sends a 200 is asked once more too: it would send as much to every
/// further range.
///
/// # Errors
/// Why not.
pub fn worth_filling(
    request: &RequestFacts<'_>,
    response: &ResponseFacts<'_>,
    params: &CacheParams,
) -> Result<(), NotFilled> {
    let mut headers = response.headers.clone();
    if response.status == StatusCode::PARTIAL_CONTENT {
        let whole = ContentRange::of(response.headers).and_then(|range| range.whole);
        if whole.ok_or(NotFilled::SizeUnknown)? > params.max_object {
            return Err(NotFilled::TooLarge);
        }
        headers.remove(CONTENT_LENGTH);
        headers.remove(CONTENT_RANGE);
    } else if response.status != StatusCode::OK {
        return Err(NotFilled::Status);
    }
    let whole = ResponseFacts { status: StatusCode::OK, headers: &headers, ..*response };
    storing::decide(request, &whole, params).map(drop).map_err(NotFilled::NotStored)
}

/// A `Content-Range` in bytes (§14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// Which part it is; `None` = none (`*`, in a 416).
    pub part: Option<Part>,
    /// How large the whole is, where the sender knew.
    pub whole: Option<u64>,
}

impl ContentRange {
    /// The only one of a response. `None` when there is none, or it says what cannot be.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(CONTENT_RANGE).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return None };
        Self::parse(line.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (unit, rest) = text.trim().split_once(' ')?;
        let (part, whole) = rest.split_once('/')?;
        let whole = if whole == "*" { None } else { Some(number(whole.as_bytes())?) };
        let part = match part {
            "*" => None,
            part => {
                let (first, last) = part.split_once('-')?;
                Some(Part { first: number(first.as_bytes())?, last: number(last.as_bytes())? })
            }
        };
        let fits = match (part, whole) {
            (Some(Part { first, last }), whole) => first <= last && whole.is_none_or(|whole| last < whole),
            (None, whole) => whole.is_some(),
        };
        (unit.eq_ignore_ascii_case("bytes") && fits).then_some(Self { part, whole })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;
    use crate::policy::cache::tests::{headers, params};

    fn part(first: u64, last: u64) -> Part {
        Part { first, last }
    }

    fn one(first: u64, last: u64) -> Wanted {
        Wanted::One(part(first, last))
    }

    /// What `Range: text` gets of `length` bytes without validators.
    fn asked(text: &str, length: u64) -> Wanted {
        let request = headers(&[("range", text)], Clock::System.now());
        decide(
            &Method::GET,
            &request,
            &WholeFacts { status: StatusCode::OK, headers: &HeaderMap::new(), length, dated_alone: true },
        )
    }

    fn whole(reason: WholeReason) -> Wanted {
        Wanted::Whole(reason)
    }

    #[test]
    fn one_range() {
        for (text, length, expected) in [
            ("bytes=0-0", 10, one(0, 0)),
            ("bytes=0-", 10, one(0, 9)),
            ("bytes=2-5", 10, one(2, 5)),
            ("bytes=5-99", 10, one(5, 9)),
            ("bytes=9-", 10, one(9, 9)),
            ("BYTES=1-1", 10, one(1, 1)),
            ("bytes= 1-2 ,", 10, one(1, 2)),
            ("bytes=,,1-2", 10, one(1, 2)),
            ("bytes=0003-004", 10, one(3, 4)),
            ("bytes=-3", 10, one(7, 9)),
            ("bytes=-10", 10, one(0, 9)),
            ("bytes=-99", 10, one(0, 9)),
            ("bytes=-18446744073709551616", 10, one(0, 9)),
            ("bytes=0-18446744073709551616", 10, one(0, 9)),
            ("bytes=10-", 10, Wanted::Nothing),
            ("bytes=99999999999999999999-", 10, Wanted::Nothing),
            ("bytes=-0", 10, Wanted::Nothing),
            ("bytes=0-", 0, Wanted::Nothing),
            ("bytes=-0", 0, Wanted::Nothing),
            ("bytes=-1", 0, whole(WholeReason::Empty)),
            ("bytes=0-0", u64::MAX, one(0, 0)),
            ("bytes=0-", u64::MAX, one(0, u64::MAX - 1)),
        ] {
            assert_eq!(asked(text, length), expected, "{text} of {length}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_ignored() {
        for (text, reason) in [
            ("bytes", WholeReason::Malformed),
            ("bytes=", WholeReason::Malformed),
            ("bytes=,", WholeReason::Malformed),
            ("bytes=-", WholeReason::Malformed),
            ("bytes=1", WholeReason::Malformed),
            ("bytes=2-1", WholeReason::Malformed),
            ("bytes=1-2-3", WholeReason::Malformed),
            ("bytes=--1", WholeReason::Malformed),
            ("bytes=a-b", WholeReason::Malformed),
            ("bytes=1 - 2", WholeReason::Malformed),
            ("bytes=+1-2", WholeReason::Malformed),
            ("bytes=0-1,x", WholeReason::Malformed),
            ("bytes=0x0-0x1", WholeReason::Malformed),
            ("bytes =0-1", WholeReason::OtherUnit),
            ("seconds=0-1", WholeReason::OtherUnit),
            ("=0-1", WholeReason::OtherUnit),
            ("", WholeReason::Malformed),
        ] {
            assert_eq!(asked(text, 10), whole(reason), "{text}");
        }
        let now = Clock::System.now();
        let twice = headers(&[("range", "bytes=0-1"), ("range", "bytes=2-3")], now);
        let facts = WholeFacts { status: StatusCode::OK, headers: &HeaderMap::new(), length: 10, dated_alone: true };
        assert_eq!(decide(&Method::GET, &twice, &facts), whole(WholeReason::Malformed));
        let once = headers(&[("range", "bytes=0-1")], now);
        assert_eq!(decide(&Method::HEAD, &once, &facts), whole(WholeReason::NotAsked));
        assert_eq!(decide(&Method::GET, &HeaderMap::new(), &facts), whole(WholeReason::NotAsked));
        let missing = WholeFacts { status: StatusCode::NOT_FOUND, ..facts };
        assert_eq!(decide(&Method::GET, &once, &missing), whole(WholeReason::Status));
    }

    #[test]
    fn what_begins_near_the_beginning() {
        for (text, expected) in [
            ("bytes=0-", true),
            ("bytes=99-99", true),
            ("bytes=100-", false),
            ("bytes=-5", false),
            ("bytes=0-1,50-", false),
            ("bytes=x", false),
        ] {
            assert_eq!(begins_within(&headers(&[("range", text)], Clock::System.now()), 100), expected, "{text}");
        }
    }

    #[test]
    fn several_ranges() {
        let many = |count: u64, step: u64| {
            let specs: Vec<_> = (0..count).map(|n| format!("{}-{}", n * step, n * step)).collect();
            format!("bytes={}", specs.join(","))
        };
        let several = |parts: &[(u64, u64)]| Wanted::Several(parts.iter().map(|&(a, b)| part(a, b)).collect());
        for (text, expected) in [
            ("bytes=0-9,100-109".to_owned(), several(&[(0, 9), (100, 109)])),
            ("bytes=100-109, 0-9".to_owned(), several(&[(100, 109), (0, 9)])),
            ("bytes=-5,0-4".to_owned(), several(&[(99_995, 99_999), (0, 4)])),
            ("bytes=0-9,200000-".to_owned(), one(0, 9)),
            ("bytes=200000-,300000-".to_owned(), Wanted::Nothing),
            // Neighbours and two that overlap are joined, at the place of the first of them.
            ("bytes=0-9,10-19".to_owned(), one(0, 19)),
            ("bytes=10-19,0-9".to_owned(), one(0, 19)),
            ("bytes=0-9,5-19,100-109".to_owned(), several(&[(0, 19), (100, 109)])),
            ("bytes=100-109,0-9,5-19".to_owned(), several(&[(100, 109), (0, 19)])),
            ("bytes=0-,0-,0-".to_owned(), one(0, 99_999)),
            ("bytes=0-,0-,0-,0-".to_owned(), whole(WholeReason::Overlapping)),
            ("bytes=0-99999,5-10,20-30,40-50".to_owned(), whole(WholeReason::Overlapping)),
            ("bytes=0-50000,60000-".to_owned(), several(&[(0, 50_000), (60_000, 99_999)])),
            ("bytes=0-49999,50001-".to_owned(), whole(WholeReason::NotSmaller)),
            (many(16, 100), several(&(0..16).map(|n| (n * 100, n * 100)).collect::<Vec<_>>())),
            (many(17, 100), whole(WholeReason::TooMany)),
            (many(64, 1), one(0, 63)),
            (many(65, 1), whole(WholeReason::TooMany)),
        ] {
            assert_eq!(asked(&text, 100_000), expected, "{text}");
        }
        let now = Clock::System.now();
        let request = headers(&[("range", "bytes=0-9,100-109")], now);
        let coded = headers(&[("content-encoding", "gzip")], now);
        let facts = WholeFacts { status: StatusCode::OK, headers: &coded, length: 100_000, dated_alone: true };
        assert_eq!(decide(&Method::GET, &request, &facts), whole(WholeReason::Coded));
    }

    #[test]
    fn only_what_names_the_very_bytes_keeps_a_range() {
        let now = Clock::System.now();
        for (condition, response, holds) in [
            ("\"a\"", &[("etag", "\"a\"")][..], true),
            ("\"a\"", &[("etag", "\"b\"")], false),
            ("\"a\"", &[], false),
            ("W/\"a\"", &[("etag", "W/\"a\"")], false),
            ("\"a\"", &[("etag", "W/\"a\"")], false),
            ("W/\"a\"", &[("etag", "\"a\"")], false),
            ("\"a--br4.0\"", &[("etag", "\"a\"")], false),
            ("\"a\"", &[("etag", "\"a--id0.0\"")], false),
            ("\"a--id0.7\"", &[("etag", "\"a--id0.7\"")], true),
            ("a", &[("etag", "\"a\"")], false),
            ("*", &[("etag", "\"a\"")], false),
            ("\"a\", \"b\"", &[("etag", "\"a\"")], false),
            ("@-10", &[("last-modified", "@-10"), ("date", "@0")], true),
            ("@-10", &[("last-modified", "@-10"), ("date", "@-9")], true),
            ("@-10", &[("last-modified", "@-10"), ("date", "@-10")], false),
            ("@-10", &[("last-modified", "@-10")], false),
            ("@-9", &[("last-modified", "@-10"), ("date", "@0")], false),
            ("@-11", &[("last-modified", "@-10"), ("date", "@0")], false),
            ("@0", &[("etag", "\"a\""), ("date", "@0")], false),
            ("yesterday", &[("last-modified", "yesterday"), ("date", "@0")], false),
        ] {
            let request = headers(&[("range", "bytes=0-1"), ("if-range", condition)], now);
            let response = headers(response, now);
            let facts = WholeFacts { status: StatusCode::OK, headers: &response, length: 10, dated_alone: true };
            let expected = if holds { one(0, 1) } else { whole(WholeReason::IfRange) };
            assert_eq!(decide(&Method::GET, &request, &facts), expected, "{condition} {response:?}");
        }
        let both = headers(&[("range", "bytes=0-1"), ("if-range", "\"a\""), ("if-range", "\"a\"")], now);
        let dated = headers(&[("last-modified", "@-10"), ("date", "@0")], now);
        let request = headers(&[("range", "bytes=0-1"), ("if-range", "@-10")], now);
        let facts = WholeFacts { status: StatusCode::OK, headers: &dated, length: 10, dated_alone: false };
        assert_eq!(
            decide(&Method::GET, &request, &facts),
            whole(WholeReason::IfRange),
            "a coded body has the same date"
        );
        let tagged = headers(&[("etag", "\"a\"")], now);
        let facts = WholeFacts { status: StatusCode::OK, headers: &tagged, length: 10, dated_alone: true };
        assert_eq!(decide(&Method::GET, &both, &facts), whole(WholeReason::IfRange));
    }

    #[test]
    fn a_part_says_nothing_of_the_whole_that_is_not_true_of_it() {
        let now = Clock::System.now();
        let lines = [
            ("content-type", "text/plain"),
            ("content-length", "10"),
            ("content-digest", "sha-256=:AAAA:"),
            ("repr-digest", "sha-256=:AAAA:"),
            ("etag", "\"a\""),
        ];
        let mut fields = headers(&lines, now);
        mend_one(&mut fields, part(2, 5), 10);
        let left = [("content-type", "text/plain"), ("repr-digest", "sha-256=:AAAA:"), ("etag", "\"a\"")];
        let expected = headers(&[&left[..], &[("content-range", "bytes 2-5/10")]].concat(), now);
        assert_eq!(fields, expected);

        let mut fields = headers(&lines, now);
        let media_type = mend_several(&mut fields, "B");
        assert_eq!(media_type.as_ref().map(HeaderValue::as_bytes), Some(&b"text/plain"[..]));
        assert_eq!(fields[CONTENT_TYPE], "multipart/byteranges; boundary=B");
        assert!(!fields.contains_key(CONTENT_RANGE) && !fields.contains_key(CONTENT_LENGTH));
        let text = [
            part_head("B", true, media_type.as_ref(), part(0, 1), 10),
            part_head("B", false, None, part(4, 5), 10),
            multipart_end("B"),
        ]
        .concat();
        let expected = "--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n\
            \r\n--B\r\nContent-Range: bytes 4-5/10\r\n\r\n\r\n--B--\r\n";
        assert_eq!(String::from_utf8_lossy(&text), expected);
        assert_eq!(unsatisfied(10), "bytes */10");
    }

    #[test]
    fn content_range_is_read() {
        for (text, expected) in [
            ("bytes 0-9/100", Some((Some(part(0, 9)), Some(100)))),
            ("Bytes 0-9/*", Some((Some(part(0, 9)), None))),
            ("bytes */100", Some((None, Some(100)))),
            ("bytes */*", None),
            ("bytes 9-0/100", None),
            ("bytes 0-100/100", None),
            ("bytes 0-9", None),
            ("bytes=0-9/100", None),
            ("bytes -9/100", None),
            ("items 0-9/100", None),
            ("bytes 0-9/x", None),
        ] {
            let expected = expected.map(|(part, whole)| ContentRange { part, whole });
            assert_eq!(ContentRange::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn the_whole_is_fetched_behind_a_part_where_it_would_be_kept() {
        const FRESH: (&str, &str) = ("cache-control", "max-age=60");
        let now = Clock::System.now();
        for (request, status, lines, expected) in [
            (&[][..], 206, &[FRESH, ("content-range", "bytes 0-9/1000"), ("content-length", "10")][..], Ok(())),
            (&[], 206, &[FRESH, ("content-range", "bytes 0-9/1001")], Err("too_large")),
            (&[], 206, &[FRESH, ("content-range", "bytes 0-9/*")], Err("size_unknown")),
            (&[], 206, &[FRESH], Err("size_unknown")),
            (&[], 206, &[FRESH, ("content-range", "bytes 9-0/10")], Err("size_unknown")),
            (&[], 206, &[("cache-control", "private"), ("content-range", "bytes 0-9/10")], Err("private")),
            (
                &[("cache-control", "no-store")],
                206,
                &[FRESH, ("content-range", "bytes 0-9/10")],
                Err("request_no_store"),
            ),
            (&[], 200, &[FRESH, ("content-length", "1000")], Ok(())),
            (&[], 200, &[FRESH, ("content-length", "1001")], Err("too_large")),
            (&[], 200, &[FRESH], Ok(())),
            (&[], 416, &[FRESH, ("content-range", "bytes */10")], Err("status")),
            (&[], 404, &[FRESH], Err("status")),
        ] {
            let (request, response) = (headers(request, now), headers(lines, now));
            let request = RequestFacts { method: &Method::GET, path: "/", headers: &request, has_body: false };
            let status = StatusCode::from_u16(status).expect("a status");
            let response = ResponseFacts { status, headers: &response, sent: now, received: now };
            let verdict = worth_filling(&request, &response, &params()).map_err(NotFilled::token);
            assert_eq!(verdict, expected, "{status} {lines:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_the_answer_fits_the_whole(set in "[0-9,\\- ]{0,60}", length in 0_u64..5000) {
            let text = format!("bytes={set}");
            match asked(&text, length) {
                Wanted::One(part) => prop_assert!(part.first <= part.last && part.last < length),
                Wanted::Several(mut parts) => {
                    prop_assert!((2..=MAX_PARTS).contains(&parts.len()));
                    prop_assert!(parts.iter().all(|part| part.first <= part.last && part.last < length));
                    parts.sort_unstable_by_key(|part| part.first);
                    prop_assert!(parts.windows(2).all(|pair| pair[0].last + 1 < pair[1].first));
                    prop_assert!(parts.iter().map(|part| part.len()).sum::<u64>() < length);
                }
                Wanted::Whole(_) | Wanted::Nothing => {}
            }
        }

        #[test]
        fn any_field_is_answered(text in "[ -~]{0,60}", condition in "[ -~]{0,30}") {
            let mut request = HeaderMap::new();
            request.insert(RANGE, HeaderValue::try_from(text).expect("printable"));
            request.insert(IF_RANGE, HeaderValue::try_from(condition).expect("printable"));
            let facts = WholeFacts { status: StatusCode::OK, headers: &HeaderMap::new(), length: 100, dated_alone: true };
            prop_assert!(matches!(decide(&Method::GET, &request, &facts), Wanted::Whole(_)));
        }
    }
}
