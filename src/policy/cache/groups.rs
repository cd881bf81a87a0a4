//! Cache groups (RFC 9875): responses of one origin that name themselves as belonging together, and answers to unsafe
//! requests that make such groups untrue.
//!
//! Both fields are lists of strings (RFC 9651 §3.1): a member of another type, or a line that cannot be parsed, makes the
//! whole field void (RFC 9651 §4.2). Groups are exact, case-sensitive, and mean nothing on another origin (§2.1). The
//! RFC asks for room for 32 groups of 32 characters; the limits here are those of tags ([`super::tags::MAX_TAGS`]).

use http::{HeaderMap, HeaderName, Method};

use super::invalidation::is_safe;

/// The groups a response belongs to (RFC 9875 §2).
pub const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
/// The groups that an unsafe request made untrue (RFC 9875 §3).
pub const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// Most groups one answer may invalidate; those behind it are not heard. More than RFC 9875 §3 asks for.
const INVALIDATED_MAX: usize = 128;

/// The groups that an answer to `method` invalidates: none when the method is safe (§3). The answer's status is not
/// asked: an origin that names groups means them.
#[must_use]
pub fn invalidated(method: &Method, response: &HeaderMap) -> Vec<Vec<u8>> {
    if is_safe(method) || !response.contains_key(CACHE_GROUP_INVALIDATION) {
        return Vec::new();
    }
    let mut groups = strings(response, &CACHE_GROUP_INVALIDATION).unwrap_or_default();
    groups.truncate(INVALIDATED_MAX);
    groups
}

/// The strings of a field that is a list of strings; parameters are skipped. `None` when it is anything else.
#[must_use]
pub fn strings(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<Vec<u8>>> {
    // Lines join by commas (RFC 9651 §4.2), and a member does not reach over their ends: line by line is the same.
    let mut all = Vec::new();
    for line in headers.get_all(name) {
        list(line.as_bytes(), &mut all)?;
    }
    Some(all)
}

/// One line. An empty line is an empty list.
fn list(line: &[u8], all: &mut Vec<Vec<u8>>) -> Option<()> {
    let mut rest = line.trim_ascii();
    while !rest.is_empty() {
        let (member, behind) = string(rest)?;
        all.push(member);
        rest = parameters(behind)?.trim_ascii_start();
        if let Some(next) = rest.strip_prefix(b",") {
            rest = next.trim_ascii_start();
            // A comma must be followed by a member (RFC 9651 §4.2.1).
            if rest.is_empty() {
                return None;
            }
        } else if !rest.is_empty() {
            return None;
        }
    }
    Some(())
}

/// RFC 9651 §4.2.5: printable ASCII in quotes, `\"` and `\\` escaped.
pub(super) fn string(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = text.strip_prefix(b"\"")?;
    let mut string = Vec::new();
    loop {
        let (byte, behind) = rest.split_first()?;
        rest = behind;
        match byte {
            b'"' => return Some((string, rest)),
            b'\\' => {
                let (escaped, behind) = rest.split_first().filter(|(byte, _)| matches!(byte, b'"' | b'\\'))?;
                string.push(*escaped);
                rest = behind;
            }
            b' '..=b'~' => string.push(*byte),
            _ => return None,
        }
    }
}

/// Skips `;key=value` (RFC 9651 §4.2.3.2). Values are looked at only as far as to find their end.
fn parameters(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text;
    while let Some(parameter) = rest.strip_prefix(b";") {
        let parameter = parameter.trim_ascii_start();
        let is_key = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(byte);
        let first = parameter.first()?;
        if !(first.is_ascii_lowercase() || *first == b'*') {
            return None;
        }
        let (_, behind) = parameter.split_at_checked(parameter.iter().take_while(|byte| is_key(byte)).count())?;
        rest = match behind.strip_prefix(b"=") {
            None => behind,
            Some(value) if value.starts_with(b"\"") => string(value)?.1,
            Some(value) => {
                let end = value.iter().take_while(|byte| byte.is_ascii_graphic() && !b",;\"".contains(byte)).count();
                value.get(end..).filter(|_| end > 0)?
            }
        };
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(lines: &[&'static str]) -> Option<Vec<String>> {
        let headers = lines.iter().map(|line| (CACHE_GROUPS, HeaderValue::from_static(line))).collect();
        let text = |member| String::from_utf8(member).expect("text");
        Some(strings(&headers, &CACHE_GROUPS)?.into_iter().map(text).collect())
    }

    #[test]
    fn lists_of_strings() {
        for (lines, expected) in [
            (&[][..], Some(&[][..])),
            (&[""], Some(&[])),
            (&["\"a\""], Some(&["a"])),
            (&["\"a\", \"b c\" ,\"a\""], Some(&["a", "b c", "a"])),
            (&["\"a\"", "\"b\""], Some(&["a", "b"])),
            (&["\"a,b\";x;y=1;z=\"q,\", \"\""], Some(&["a,b", ""])),
            (&["\"\\\"\\\\\""], Some(&["\"\\"])),
            (&["\"a\";x=:aGk=:"], Some(&["a"])),
            (&["a"], None),
            (&["\"a\", b"], None),
            (&["\"a\" \"b\""], None),
            (&["\"a\","], None),
            (&[",\"a\""], None),
            (&["\"a"], None),
            (&["\"\\a\""], None),
            (&["(\"a\")"], None),
            (&["\"a\"", "1"], None),
            (&["\"a\";X"], None),
            (&["\"a\";x="], None),
            (&["\"\t\""], None),
        ] {
            let expected = expected.map(|list| list.iter().map(|&member| member.to_owned()).collect::<Vec<_>>());
            assert_eq!(read(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn only_unsafe_methods_invalidate() {
        let headers =
            [(CACHE_GROUP_INVALIDATION, HeaderValue::from_static("\"a\", \"b\""))].into_iter().collect::<HeaderMap>();
        for (method, expected) in [("POST", 2), ("PATCH", 2), ("MADE-UP", 2), ("GET", 0), ("HEAD", 0), ("QUERY", 0)] {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            assert_eq!(invalidated(&method, &headers).len(), expected, "{method}");
        }
    }
}
