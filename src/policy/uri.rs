//! The one normal form of a request target. Routing, guarding, keying and forwarding all see this form, so that no two
//! of them can read one target in two ways.
//!
//! What is done (RFC 3986 §6.2.2), in this order:
//!
//! 1. Escapes: `%41` of an unreserved character becomes the character, every other escape gets upper-case digits, bytes
//!    that RFC 3986 does not allow raw (non-ASCII, `"<>^{|}` and the backtick) become escapes.
//! 2. Path only: empty segments go (`//` is `/`), `.` and `..` are resolved and stop at the root (§5.2.4); as step 1
//!    comes first, `%2e` is a dot here.
//!
//! What stays: `%2F` and `%5C` are data, never separators; `;` parameters; the order and spelling of the query apart
//! from its escapes; an empty query (`/a?` is not `/a`). A query with a bad escape (`?off=100%`) is no URI, but forms and
//! scripts send such and servers take them: none of its escapes is touched, as any decoding could join the stray `%`
//! with its neighbours.
//!
//! What is refused, because an origin may read it otherwise than we do: a bad escape in the path, a control byte or
//! `%00`, a raw backslash in the path, a fragment, and dot segments in disguise (`/..;x/`, `/..%2Fadmin`), see
//! [`UriFault::DisguisedDots`].
//!
//! The function is idempotent. Bound: the result is at most three times as long as the target, which the listener's
//! `limits.uri` bounds.

use std::borrow::Cow;

use bytes::Bytes;
use http::uri::PathAndQuery;

use crate::error::ErrorKind;

/// A target in normal form: origin form, or `*`. Cloning copies a reference count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalUri(PathAndQuery);

impl Default for NormalUri {
    /// `/`
    fn default() -> Self {
        Self(PathAndQuery::from_static("/"))
    }
}

impl NormalUri {
    /// The path; begins with `/`, except for the target `*`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.path()
    }

    /// What follows the first `?`, possibly empty.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.0.query()
    }

    /// Path and query as they go to the origin.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The same, in the type that HTTP libraries take without another check.
    #[must_use]
    pub fn path_and_query(&self) -> &PathAndQuery {
        &self.0
    }

    /// The same query under another path, normalised again. A path that brings a query of its own (a rewrite to
    /// `/search?id=$1`) has this one added behind it.
    ///
    /// # Errors
    /// As [`normalise`]: a rewritten path may be no path any more.
    pub fn with_path(&self, path: &str) -> Result<Self, UriFault> {
        let mut target = String::with_capacity(path.len() + 1 + self.query().map_or(0, str::len));
        target.push_str(path);
        if let Some(query) = self.query() {
            target.push(if path.contains('?') { '&' } else { '?' });
            target.push_str(query);
        }
        normalise(&Bytes::from(target))
    }
}

/// Why a target is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UriFault {
    /// Neither a path nor `*`.
    NotOriginForm,
    /// `%` without two hexadecimal digits, in the path.
    BadEscape,
    /// A raw control byte or space.
    Control,
    /// `%00`: C strings end there.
    EncodedNul,
    /// A raw `\` in the path: some origins take it for `/`.
    Backslash,
    /// `#` is never sent (RFC 9110 §4.2.5).
    Fragment,
    /// `.` or `..` beside `;`, `%3B`, `%2F` or `%5C`: plain text to us, a dot segment to origins that drop parameters or decode
    /// early, so a way around a path rule.
    DisguisedDots,
}

impl UriFault {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::NotOriginForm => "uri_not_origin_form",
            Self::BadEscape => "uri_bad_escape",
            Self::Control => "uri_control_byte",
            Self::EncodedNul => "uri_encoded_nul",
            Self::Backslash => "uri_backslash",
            Self::Fragment => "uri_fragment",
            Self::DisguisedDots => "uri_disguised_dots",
        }
    }
}

impl From<UriFault> for ErrorKind {
    fn from(fault: UriFault) -> Self {
        Self::BadRequest(fault.token())
    }
}

/// The normal form of `target`.
///
/// Cost: a target that is normal already (nearly all are) is shared, not copied; any other costs two buffers.
///
/// # Errors
/// A [`UriFault`] for what has no unambiguous normal form.
pub fn normalise(target: &Bytes) -> Result<NormalUri, UriFault> {
    let normal = if is_normal(target) { target.clone() } else { Bytes::from(rebuild(target)?) };
    PathAndQuery::from_maybe_shared(normal).map(NormalUri).map_err(|_| UriFault::NotOriginForm)
}

/// True when nothing has to be done; may be false for a normal target (dots at the start of a segment, encoded
/// separators), never true for another.
fn is_normal(target: &[u8]) -> bool {
    if target == b"*" {
        return true;
    }
    if target.first() != Some(&b'/') {
        return false;
    }
    let (mut in_query, mut previous) = (false, 0);
    let mut rest = target.iter();
    while let Some(&byte) = rest.next() {
        match byte {
            b'?' => in_query = true,
            b'/' | b'.' if !in_query && previous == b'/' => return false,
            b'%' => match (rest.next().copied(), rest.next().copied()) {
                (Some(high), Some(low)) if is_normal_escape(high, low) => {}
                _ => return false,
            },
            _ if is_plain(byte) => {}
            _ => return false,
        }
        previous = byte;
    }
    true
}

fn is_normal_escape(high: u8, low: u8) -> bool {
    !high.is_ascii_lowercase()
        && !low.is_ascii_lowercase()
        && hex(high, low).is_some_and(|byte| byte != 0 && !is_unreserved(byte) && byte != b'/' && byte != b'\\')
}

fn rebuild(target: &[u8]) -> Result<Vec<u8>, UriFault> {
    if target.first() != Some(&b'/') {
        return Err(UriFault::NotOriginForm);
    }
    let (path, query) = split_query(target);
    let mut normal = remove_dots(&escape(path, Part::Path)?)?;
    if let Some(query) = query {
        normal.push(b'?');
        let part = if has_bad_escape(query) { Part::VerbatimQuery } else { Part::Query };
        normal.extend_from_slice(&escape(query, part)?);
    }
    Ok(normal)
}

fn has_bad_escape(query: &[u8]) -> bool {
    let mut behind_percents = query.split(|&byte| byte == b'%').skip(1);
    behind_percents.any(|rest| !matches!(rest, [high, low, ..] if hex(*high, *low).is_some()))
}

fn split_query(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut parts = target.splitn(2, |&byte| byte == b'?');
    (parts.next().unwrap_or_default(), parts.next())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Path,
    Query,
    /// A query whose escapes stay as they are.
    VerbatimQuery,
}

/// Step 1 of the module's list.
fn escape(raw: &[u8], part: Part) -> Result<Vec<u8>, UriFault> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw.iter();
    while let Some(&byte) = rest.next() {
        match byte {
            b'%' if part == Part::VerbatimQuery => {
                if rest.as_slice().starts_with(b"00") {
                    return Err(UriFault::EncodedNul);
                }
                out.push(byte);
            }
            b'%' => {
                let digits = rest.next().zip(rest.next());
                match digits.and_then(|(&high, &low)| hex(high, low)).ok_or(UriFault::BadEscape)? {
                    0 => return Err(UriFault::EncodedNul),
                    byte if is_unreserved(byte) => out.push(byte),
                    byte => push_escape(&mut out, byte),
                }
            }
            b'#' => return Err(UriFault::Fragment),
            b'\\' if part == Part::Path => return Err(UriFault::Backslash),
            0..=b' ' | 0x7f => return Err(UriFault::Control),
            _ if is_plain(byte) => out.push(byte),
            _ => push_escape(&mut out, byte),
        }
    }
    Ok(out)
}

/// Step 2 of the module's list; `path` begins with `/`.
fn remove_dots(path: &[u8]) -> Result<Vec<u8>, UriFault> {
    let mut out = Vec::with_capacity(path.len());
    let mut ends_in_slash = false;
    for segment in path.split(|&byte| byte == b'/').skip(1) {
        ends_in_slash = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => out.truncate(out.iter().rposition(|&byte| byte == b'/').unwrap_or(0)),
            _ if hides_dots(segment) => return Err(UriFault::DisguisedDots),
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    if ends_in_slash {
        out.push(b'/');
    }
    Ok(out)
}

/// True when a reader that decodes `%2F`, `%5C` and `%3B` early, or drops `;` parameters, would find a dot segment.
fn hides_dots(segment: &[u8]) -> bool {
    let decoded = if segment.contains(&b'%') {
        let text = String::from_utf8_lossy(segment);
        Cow::Owned(text.replace("%2F", "/").replace("%5C", "/").replace("%3B", ";").into_bytes())
    } else {
        Cow::Borrowed(segment)
    };
    decoded
        .split(|&byte| byte == b'/')
        .filter_map(|piece| piece.split(|&byte| byte == b';').next())
        .any(|piece| matches!(piece, b"." | b".."))
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What may stand raw in path and query: unreserved, sub-delims, `:@/?` (RFC 3986 §3.3) and, tolerated because
/// browsers send them so, square brackets.
fn is_plain(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'/' | b'!' | b'$' | b'&'..=b',' | b':' | b';' | b'=' | b'?' | b'@' | b'[' | b']')
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

fn push_escape(out: &mut Vec<u8>, byte: u8) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 };
    out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(target: &[u8], expected: Result<&str, UriFault>) {
        let got = normalise(&Bytes::copy_from_slice(target));
        assert_eq!(got.as_ref().map(NormalUri::as_str), expected.as_ref().copied(), "{}", target.escape_ascii());
    }

    #[test]
    fn equivalent_spellings_get_one_form() {
        for (target, expected) in [
            ("/", "/"),
            ("*", "*"),
            ("/a/b?c=d&e[]=f", "/a/b?c=d&e[]=f"),
            ("/%7euser/%41", "/~user/A"),
            ("/a%2fb%3a", "/a%2Fb%3A"),
            ("/a%5cb", "/a%5Cb"),
            ("/a/./b/../c", "/a/c"),
            ("/a/%2e/b/%2E%2e/c", "/a/c"),
            ("/../../etc/passwd", "/etc/passwd"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/..", "/"),
            ("//a///b//", "/a/b/"),
            ("/a//../b", "/b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/a?", "/a?"),
            ("/a?b=//../%2e%2f", "/a?b=//../.%2F"),
            ("/a?b?c", "/a?b?c"),
            ("/a?b=\\", "/a?b=%5C"),
            ("/a?{\"b\"|^`}<>", "/a?%7B%22b%22%7C%5E%60%7D%3C%3E"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/%0a%0d", "/%0A%0D"),
            ("/%41?off=100%", "/A?off=100%"),
            ("/a?%", "/a?%"),
            ("/a?%4", "/a?%4"),
            ("/a?%zz&b=%41%2f", "/a?%zz&b=%41%2f"),
            ("/a?q=%u4f60", "/a?q=%u4f60"),
            ("/a?%%341", "/a?%%341"),
            ("/a?%4\u{e9}<", "/a?%4%C3%A9%3C"),
        ] {
            check(target.as_bytes(), Ok(expected));
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (target, fault) in [
            ("", UriFault::NotOriginForm),
            ("a", UriFault::NotOriginForm),
            ("*?x", UriFault::NotOriginForm),
            ("http://host/", UriFault::NotOriginForm),
            ("/%", UriFault::BadEscape),
            ("/%4", UriFault::BadEscape),
            ("/%4g", UriFault::BadEscape),
            ("/%+1", UriFault::BadEscape),
            ("/%zz?100%", UriFault::BadEscape),
            ("/a?%&%00", UriFault::EncodedNul),
            ("/a?%\r\nX: y", UriFault::Control),
            ("/a?% ", UriFault::Control),
            ("/%00", UriFault::EncodedNul),
            ("/?%00", UriFault::EncodedNul),
            ("/a b", UriFault::Control),
            ("/a\0", UriFault::Control),
            ("/a\x7f", UriFault::Control),
            ("/a?\t", UriFault::Control),
            ("/a\\b", UriFault::Backslash),
            ("/a#b", UriFault::Fragment),
            ("/a?b#c", UriFault::Fragment),
            ("/static/..;x/admin", UriFault::DisguisedDots),
            ("/static/.;/admin", UriFault::DisguisedDots),
            ("/static/..%3bx/admin", UriFault::DisguisedDots),
            ("/static/..%2fadmin", UriFault::DisguisedDots),
            ("/static/%2e%2e%5cadmin", UriFault::DisguisedDots),
            ("/static/x%2F..", UriFault::DisguisedDots),
        ] {
            check(target.as_bytes(), Err(fault));
        }
    }

    #[test]
    fn a_normal_target_is_shared() {
        let target = Bytes::from_static(b"/shop/item%20one?colour=red");
        let normal = normalise(&target).expect("normal");
        assert_eq!(normal.as_str().as_ptr(), target.as_ptr());
        assert_eq!((normal.path(), normal.query()), ("/shop/item%20one", Some("colour=red")));
    }

    #[test]
    fn another_path_keeps_the_query_and_is_normalised() {
        let normal = normalise(&Bytes::from_static(b"/a?q=1")).expect("normal");
        assert_eq!(normal.with_path("/x/../y").expect("a path").as_str(), "/y?q=1");
        assert_eq!(normal.with_path("/y?r=2").expect("a path").as_str(), "/y?r=2&q=1");
        assert_eq!(normal.with_path("y"), Err(UriFault::NotOriginForm));
    }

    proptest! {
        #[test]
        fn the_normal_form_is_its_own(tail in "([a-z./;?%\\[é]|%2[eEfF]|%5c|%%34|\\.\\.|//){0,24}") {
            let target = Bytes::from(format!("/{tail}"));
            if let Ok(once) = normalise(&target) {
                let twice = normalise(&Bytes::copy_from_slice(once.as_str().as_bytes())).expect("normal");
                prop_assert_eq!(&once, &twice);
                let segments: Vec<_> = once.path().split('/').skip(1).collect();
                prop_assert!(segments.iter().all(|segment| !matches!(*segment, "." | "..")));
                prop_assert!(segments.split_last().is_some_and(|(_, head)| head.iter().all(|segment| !segment.is_empty())));
            }
        }

        #[test]
        fn any_bytes_are_answered(target in proptest::collection::vec(any::<u8>(), 0..40)) {
            let target = Bytes::from(target);
            if is_normal(&target) {
                prop_assert!(target == b"*"[..] || rebuild(&target).as_deref() == Ok(&target[..]));
            }
            let _ = normalise(&target);
        }
    }
}
