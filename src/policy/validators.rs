//! The algebra of entity-tags: naming bytes that we made from an origin's (RFC 9110 §8.8.3, §13.1).
//!
//! Bytes we did not change keep the origin's tag. Changed bytes get a tag that is derived from it and can be read back,
//! the same on every node and without any state:
//!
//! ```text
//! "<origin>--<coding><level>.<rules>[.<dictionary>]"
//!
//! "v7"  →  "v7--br4.0"   W/"v7"  →  W/"v7--id0.9e3779b97f4a7c15"   "v7"  →  "v7--dcz19.0.3f9ac81b77b01c4e"
//! ```
//!
//! `coding` is `id` where only rewriting changed the bytes; `rules` is the rule set's fingerprint in hexadecimal, 0
//! without one; a body that is coded against a dictionary names it by the first 64 bits of its SHA-256. A weak tag stays
//! weak.
//!
//! Two tags name the same *decoded* representation when their origin's tags and rules are equal, whatever the codings.
//! That is what `If-None-Match` asks here; `If-Range` asks for the very bytes. An optimiser's work means the same as what
//! it was made of, so that who has the original may keep it; who has the work may keep it only while that is what is
//! served. A file that is pinned, an optimiser that is switched off, a purge: each calls the altered copies back.
//!
//! Stored answers without a tag get one of our own ([`own_tag`]), from which others are derived like from an origin's.
//!
//! A body that was rewritten and then coded has two suffixes. On the way to the origin tags are translated back
//! ([`translate`]). Two Tidegates in a row compose: each strips what it added.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::header::{ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::cache::dates;
use super::dictionary::{Delta, DeltaCoding};
use super::encoding::Coding;
use super::optimise;
use super::own_tag;

/// An entity-tag: what stands between the quotes, and whether `W/` stands before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntityTag<'a> {
    /// Equal decoded content does not promise equal bytes.
    pub weak: bool,
    /// Without the quotes; visible characters and obs-text, no `"`.
    pub opaque: &'a [u8],
}

/// How bytes were made from the origin's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Derivation {
    /// The content coding, if any.
    pub coding: Option<Coding>,
    /// Its level; 0 without a coding.
    pub level: u8,
    /// Fingerprint of the rewrite rules; 0 without any.
    pub rules: u64,
    /// Coded against a dictionary, in place of `coding`.
    pub delta: Option<Delta>,
}

impl<'a> EntityTag<'a> {
    /// Parses one entity-tag, quotes and all.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let (tag, rest) = Self::take(text.trim_ascii())?;
        rest.is_empty().then_some(tag)
    }

    /// Takes an entity-tag off the front of `text`.
    fn take(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (weak, quoted) = match text.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, text),
        };
        let body = quoted.strip_prefix(b"\"")?;
        let end = body.iter().position(|&byte| byte == b'"')?;
        let (opaque, rest) = body.split_at_checked(end)?;
        let valid = opaque.iter().all(|&byte| byte > b' ' && byte != 0x7f);
        valid.then_some((Self { weak, opaque }, rest.strip_prefix(b"\"")?))
    }

    /// The tag as a field value.
    #[must_use]
    pub fn to_value(self) -> HeaderValue {
        to_value(self.weak, &[self.opaque])
    }

    /// The tag for bytes made from this tag's. Cost: one allocation.
    #[must_use]
    pub fn derive(self, derivation: Derivation) -> HeaderValue {
        let suffix = format!("{SEPARATOR}{derivation}");
        to_value(self.weak, &[self.opaque, suffix.as_bytes()])
    }

    /// The origin's tag, and what was done to its bytes; `None` = nothing.
    #[must_use]
    pub fn split(self) -> (Self, Option<Derivation>) {
        let derived = || {
            let at = self.opaque.windows(SEPARATOR.len()).rposition(|window| window == SEPARATOR.as_bytes())?;
            let (origin, suffix) = self.opaque.split_at_checked(at)?;
            let derivation = Derivation::parse(suffix.get(SEPARATOR.len()..)?)?;
            Some((Self { opaque: origin, ..self }, Some(derivation)))
        };
        derived().unwrap_or((self, None))
    }

    /// True when both name the same decoded representation; weakness does not count.
    #[must_use]
    pub fn same_decoded(self, other: EntityTag<'_>) -> bool {
        let ((one, rules), (two, rules_too)) = (self.decoded(), other.decoded());
        one == two && rules == rules_too
    }

    /// True when who has what this tag names need not get what `current` names: it is the same decoded representation, or
    /// the one that an optimiser made `current` of. Not the other way about.
    #[must_use]
    pub fn may_stay_for(self, current: EntityTag<'_>) -> bool {
        let original = match current.split() {
            (original, Some(made)) if optimise::is_fingerprint(made.rules) => original,
            _ => current,
        };
        self.same_decoded(current) || self.same_decoded(original)
    }

    /// The first origin's opaque tag, and a number for all rules that were applied since.
    fn decoded(self) -> (&'a [u8], u64) {
        let (mut tag, mut rules) = (self, 0_u64);
        while let (origin, Some(derivation)) = tag.split() {
            tag = origin;
            if derivation.rules != 0 {
                rules = rules.rotate_left(1) ^ derivation.rules;
            }
        }
        (tag.opaque, rules)
    }

    /// Strong comparison (RFC 9110 §8.8.3.2): true when both name the same bytes.
    #[must_use]
    pub fn same_bytes(self, other: EntityTag<'_>) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }
}

const SEPARATOR: &str = "--";
const NO_CODING: &str = "id";

impl Derivation {
    /// The name of the coding; `None` = there is none.
    #[must_use]
    pub fn token(self) -> Option<&'static str> {
        self.delta.map(|delta| delta.coding.token()).or(self.coding.map(Coding::token))
    }

    /// Reads what [`Derivation`] is written as, in exactly that spelling.
    fn parse(suffix: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(suffix).ok()?;
        let mut parts = text.split('.');
        let (made, rules, dictionary) = (parts.next()?, parts.next()?, parts.next());
        let name_end = made.find(|c: char| c.is_ascii_digit())?;
        let (name, level) = made.split_at(name_end);
        let (coding, delta) = match (name, dictionary) {
            (NO_CODING, None) => (None, None),
            (name, None) => (Some(Coding::ALL.into_iter().find(|coding| coding.token() == name)?), None),
            (name, Some(dictionary)) => {
                let dictionary = u64::from_str_radix(dictionary, 16).ok()?;
                (None, Some(Delta { coding: DeltaCoding::from_token(name)?, dictionary }))
            }
        };
        let rules = u64::from_str_radix(rules, 16).ok()?;
        let derivation = Self { coding, level: level.parse().ok()?, rules, delta };
        (derivation.to_string() == text).then_some(derivation)
    }
}

impl fmt::Display for Derivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}.{:x}", self.token().unwrap_or(NO_CODING), self.level, self.rules)?;
        self.delta.map_or(Ok(()), |delta| write!(f, ".{:x}", delta.dictionary))
    }
}

fn to_value(weak: bool, opaque: &[&[u8]]) -> HeaderValue {
    let mut text = Vec::with_capacity(4 + opaque.iter().map(|part| part.len()).sum::<usize>());
    text.extend_from_slice(if weak { b"W/\"" } else { b"\"" });
    for part in opaque {
        text.extend_from_slice(part);
    }
    text.push(b'"');
    // The bytes of an opaque tag are valid in a field value by the check in `take`.
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("\"\""))
}

/// A member of `If-None-Match` or `If-Match`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListedTag<'a> {
    /// `*`
    Any,
    /// An entity-tag.
    Tag(EntityTag<'a>),
}

/// The members of a list of entity-tags over all its lines. What is no entity-tag is passed over: a condition that
/// cannot be read does not hold, and the others in the list still do.
pub fn listed_tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = ListedTag<'a>> {
    headers.get_all(name).iter().flat_map(|line| {
        let mut rest = line.as_bytes();
        std::iter::from_fn(move || {
            loop {
                rest = rest.trim_ascii_start();
                if let Some((tag, behind)) = EntityTag::take(rest) {
                    rest = behind;
                    return Some(ListedTag::Tag(tag));
                }
                let end = rest.iter().position(|&byte| byte == b',').unwrap_or(rest.len());
                let (member, behind) = rest.split_at_checked(end)?;
                rest = behind.strip_prefix(b",").unwrap_or(behind);
                match member.trim_ascii() {
                    b"*" => return Some(ListedTag::Any),
                    _ if rest.is_empty() => return None,
                    _ => {}
                }
            }
        })
    })
}

/// Whether `If-None-Match` names what the client may keep for the current representation, so that a GET is answered 304
/// (RFC 9110 §13.1.2). False without the field. `None` = the representation has no tag: only `*` names it.
#[must_use]
pub fn none_match_hits(headers: &HeaderMap, current: Option<EntityTag<'_>>) -> bool {
    listed_tags(headers, &IF_NONE_MATCH).any(|listed| match listed {
        ListedTag::Any => true,
        ListedTag::Tag(tag) => current.is_some_and(|current| tag.may_stay_for(current)),
    })
}

/// The mandatory rules of a route, as far as validators show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The fingerprint.
    pub fingerprint: u64,
    /// When they came into force: what they rewrite is dated no earlier.
    pub since: SystemTime,
}

/// Translates the conditions of a request from the tags clients know to the tags the origin knows. `rules` are those that
/// would be applied now.
///
/// - `If-None-Match`: a tag made with other rules is dropped; a 304 for it would keep the old rewriting alive. So is one
///   that was made from bytes here ([`own_tag`]), which no origin knows. When none
///   is left, `If-Modified-Since` goes too: it was only there for recipients that cannot read tags (RFC 9110 §13.1.3).
/// - `If-Modified-Since` from before the rules came into force goes, for the same reason. That costs a resource without
///   a tag, which the rules may not even touch, its 304.
/// - `If-Match`: all tags are translated; which rules made the client's copy does not matter to the origin's lost-update
///   check.
/// - `If-Range` with a derived tag goes together with `Range`: offsets into bytes we made mean nothing to the origin.
///
/// A request without derived tags is not touched otherwise. Cost then: one look at four fields.
pub fn translate(headers: &mut HeaderMap, rules: Option<Rules>) {
    if !headers.keys().any(|name| name.as_str().starts_with("if-")) {
        return;
    }
    let dated = headers.contains_key(IF_MODIFIED_SINCE);
    let tagged = headers.contains_key(IF_NONE_MATCH);
    translate_list(headers, &IF_NONE_MATCH, |tag| tag.as_origin_knows_it(rules));
    translate_list(headers, &IF_MATCH, |tag| Some(tag.undone()));
    if dated && (tagged && !headers.contains_key(IF_NONE_MATCH) || rules.is_some_and(|rules| rules.outdate(headers))) {
        headers.remove(IF_MODIFIED_SINCE);
    }
    let range_tag = headers.get(IF_RANGE).and_then(|value| EntityTag::parse(value.as_bytes()));
    if range_tag.is_some_and(|tag| tag.split().1.is_some()) {
        headers.remove(IF_RANGE);
        headers.remove(RANGE);
    }
}

/// The tag by which the client of `request` knows what a 304 to its translated conditions speaks of, where that is
/// another one than the origin's: a 304 carries the tag that the 200 would have carried (RFC 9110 §15.4.5).
#[must_use]
pub fn known_to_client(request: &HeaderMap, not_modified: &HeaderMap, rules: Option<Rules>) -> Option<HeaderValue> {
    let given = EntityTag::parse(not_modified.get(ETAG)?.as_bytes())?;
    let mut known = None;
    for listed in listed_tags(request, &IF_NONE_MATCH) {
        match listed {
            ListedTag::Tag(tag) if tag.opaque == given.opaque => return None,
            ListedTag::Tag(tag) if tag.as_origin_knows_it(rules).is_some_and(|tag| tag.opaque == given.opaque) => {
                known.get_or_insert(tag);
            }
            ListedTag::Tag(_) | ListedTag::Any => {}
        }
    }
    known.map(EntityTag::to_value)
}

impl Rules {
    /// True when the request's date is from before the rules; dates count whole seconds.
    fn outdate(&self, headers: &HeaderMap) -> bool {
        let date = dates::read(headers, &IF_MODIFIED_SINCE);
        let before = date.and_then(|date| self.since.duration_since(date).ok());
        before.is_some_and(|before| before >= Duration::from_secs(1))
    }
}

impl<'a> EntityTag<'a> {
    /// The tag without what this node put behind it: a content coding, and the rules that came before it. `None` for a tag
    /// made with other rules. Without rules here, rules in the tag are those of a Tidegate that is the origin, which gets
    /// its tag back. An optimiser's tag is taken for one of those: a copy that was altered here is not to be confirmed by
    /// an origin that knows nothing of it.
    fn as_origin_knows_it(self, rules: Option<Rules>) -> Option<Self> {
        let plain = match self.split() {
            (plain, Some(Derivation { rules: 0, .. })) => plain,
            _ => self,
        };
        match (plain.split(), rules) {
            // No origin has ever seen it.
            ((origin, _), _) if origin.is_own() => None,
            ((origin, Some(derivation)), Some(rules)) if derivation.rules == rules.fingerprint => Some(origin),
            ((_, Some(derivation)), Some(_)) if derivation.rules != 0 => None,
            _ => Some(plain),
        }
    }

    /// True for a tag that was made from bytes here, weakened or not.
    fn is_own(self) -> bool {
        own_tag::digest(Self { weak: false, ..self }).is_some()
    }

    /// The tag without anything that was ever derived from it.
    fn undone(self) -> Self {
        match self.split() {
            (origin, Some(_)) => origin.undone(),
            _ => self,
        }
    }
}

fn translate_list(
    headers: &mut HeaderMap,
    name: &HeaderName,
    origins: impl Fn(EntityTag<'_>) -> Option<EntityTag<'_>>,
) {
    let is_ours = |listed| matches!(listed, ListedTag::Tag(tag) if EntityTag::split(tag).1.is_some() || tag.is_own());
    if !listed_tags(headers, name).any(is_ours) {
        return;
    }
    let mut translated: Vec<HeaderValue> = Vec::new();
    for listed in listed_tags(headers, name) {
        let value = match listed {
            ListedTag::Any => HeaderValue::from_static("*"),
            ListedTag::Tag(tag) => match origins(tag) {
                Some(origin) => origin.to_value(),
                None => continue,
            },
        };
        if !translated.contains(&value) {
            translated.push(value);
        }
    }
    headers.remove(name);
    let joined = translated.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b", "[..]);
    if !joined.is_empty()
        && let Ok(value) = HeaderValue::from_bytes(&joined)
    {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tag(text: &str) -> EntityTag<'_> {
        EntityTag::parse(text.as_bytes()).expect("a tag")
    }

    #[test]
    fn tags_are_derived_and_read_back() {
        for (origin, coding, level, rules, expected) in [
            ("\"v7\"", Some(Coding::Br), 4, 0, "\"v7--br4.0\""),
            ("W/\"v7\"", Some(Coding::Zstd), 19, 0xabc, "W/\"v7--zstd19.abc\""),
            ("\"\"", None, 0, u64::MAX, "\"--id0.ffffffffffffffff\""),
            ("\"a--br4.0\"", Some(Coding::Gzip), 5, 0, "\"a--br4.0--gzip5.0\""),
        ] {
            let derivation = Derivation { coding, level, rules, delta: None };
            let derived = tag(origin).derive(derivation);
            assert_eq!(derived, expected);
            let read = EntityTag::parse(derived.as_bytes()).expect("a tag");
            assert_eq!(read.split(), (tag(origin), Some(derivation)));
            assert!(tag(origin).same_decoded(read) == (rules == 0));
        }
        let delta = Some(Delta { coding: DeltaCoding::Dcz, dictionary: 0xabc });
        let derived = tag("\"v7\"").derive(Derivation { coding: None, level: 19, rules: 0, delta });
        assert_eq!(derived, "\"v7--dcz19.0.abc\"");
        let read = EntityTag::parse(derived.as_bytes()).expect("a tag");
        assert_eq!(read.split(), (tag("\"v7\""), Some(Derivation { coding: None, level: 19, rules: 0, delta })));
        assert!(read.same_decoded(tag("\"v7--br4.0\"")), "whatever it is coded against");
        for text in [
            "\"a--dcz19.0\"",
            "\"a--br4.0.abc\"",
            "\"a--dcz19.0.0abc\"",
            "\"a--dcz19.0.abc.abc\"",
            "\"a\"",
            "\"a--b\"",
            "\"a--br.0\"",
            "\"a--br04.0\"",
            "\"a--br4.0A\"",
            "\"a--br4\"",
            "\"a--xz1.0\"",
            "\"a--br999.0\"",
        ] {
            assert_eq!(tag(text).split(), (tag(text), None), "{text} is the origin's own");
        }
    }

    #[test]
    fn parsing() {
        for (text, expected) in [
            ("\"a\"", Some((false, "a"))),
            (" W/\"a,b\" ", Some((true, "a,b"))),
            ("\"\"", Some((false, ""))),
            ("w/\"a\"", None),
            ("a", None),
            ("\"a", None),
            ("\"a b\"", None),
            ("\"a\"b", None),
            ("", None),
        ] {
            let expected = expected.map(|(weak, opaque)| EntityTag { weak, opaque: opaque.as_bytes() });
            assert_eq!(EntityTag::parse(text.as_bytes()), expected, "{text}");
        }
    }

    fn fields(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn if_none_match_hits_any_coding_of_the_same_rules() {
        for (line, current, expected) in [
            ("\"a\"", "\"a\"", true),
            ("W/\"a\"", "\"a\"", true),
            ("\"a--br4.0\"", "\"a\"", true),
            ("\"a\"", "\"a--br4.0\"", true),
            ("\"a--gzip5.7\"", "\"a--br4.7\"", true),
            ("\"a--gzip5.7\"", "\"a--br4.8\"", false),
            ("\"a\"", "\"a--id0.8\"", false),
            ("\"b\", nonsense, \"a\"", "\"a\"", true),
            ("\"b\" \"a\"", "\"a\"", true),
            ("b,,\"a,c\"", "\"a,c\"", true),
            ("*", "\"a\"", true),
            ("\"unclosed, \"a\"", "\"a\"", true),
            ("\"a--gzip5.0--id0.7\"", "\"a--br4.7\"", true),
            ("\"a--gzip5.8--id0.7\"", "\"a--br4.7\"", false),
            ("a", "\"a\"", false),
            ("", "\"a\"", false),
            // The original may stay where an optimiser's work is served; the work only while it is.
            ("\"a\"", "\"a--br11.102\"", true),
            ("\"a--gzip5.0\"", "\"a--br11.102\"", true),
            ("\"a--id0.7\"", "\"a--id0.7--br11.102\"", true),
            ("\"a--id0.102\"", "\"a--br11.102\"", true),
            ("\"a--id0.102\"", "\"a\"", false),
            ("\"a--br11.102\"", "\"a--br4.0\"", false),
            ("\"a--id0.102\"", "\"a--id0.202\"", false),
            ("\"a--id0.102--br4.0\"", "\"a--id0.102\"", true),
        ] {
            let current = Some(tag(current));
            assert_eq!(none_match_hits(&fields(&[(IF_NONE_MATCH, line)]), current), expected, "{line} {current:?}");
        }
        let current = Some(tag("\"a\""));
        assert!(none_match_hits(&fields(&[(IF_NONE_MATCH, "\"b\""), (IF_NONE_MATCH, "\"a\"")]), current));
        assert!(!none_match_hits(&HeaderMap::new(), current));
        assert!(none_match_hits(&fields(&[(IF_NONE_MATCH, "*")]), None));
        assert!(!none_match_hits(&fields(&[(IF_NONE_MATCH, "\"a\"")]), None));
    }

    #[test]
    fn only_strong_tags_name_bytes() {
        for (one, other, expected) in [
            ("\"a\"", "\"a\"", true),
            ("W/\"a\"", "W/\"a\"", false),
            ("\"a\"", "W/\"a\"", false),
            ("\"a\"", "\"a--br4.0\"", false),
        ] {
            assert_eq!(tag(one).same_bytes(tag(other)), expected, "{one} {other}");
        }
    }

    const RULES: Option<Rules> = Some(Rules { fingerprint: 7, since: SystemTime::UNIX_EPOCH });

    #[test]
    fn without_rules_here_rules_in_a_tag_are_the_origins() {
        let mut headers = fields(&[(IF_NONE_MATCH, "\"a--id0.8--br4.0\"")]);
        translate(&mut headers, None);
        assert_eq!(headers[IF_NONE_MATCH], "\"a--id0.8\"");
        let mut headers = fields(&[(IF_NONE_MATCH, "\"a--br11.102\"")]);
        translate(&mut headers, None);
        assert_eq!(headers[IF_NONE_MATCH], "\"a--br11.102\"", "no origin confirms what was altered here");
    }

    #[test]
    fn a_date_does_not_stand_in_for_tags_or_outlive_rules() {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (tags, since, kept) in [
            (None, since, true),
            (None, since + Duration::from_millis(999), true),
            (None, since + Duration::from_secs(1), false),
            (Some("\"a--id0.7\""), since, true),
            (Some("\"a--id0.8\""), since, false),
            (Some("unreadable"), since, true),
        ] {
            let mut headers = fields(&[(IF_MODIFIED_SINCE, date)]);
            if let Some(tags) = tags {
                headers.insert(IF_NONE_MATCH, tags.parse().expect("a value"));
            }
            translate(&mut headers, Some(Rules { fingerprint: 7, since }));
            assert_eq!(headers.contains_key(IF_MODIFIED_SINCE), kept, "{tags:?} {since:?}");
        }
    }

    #[test]
    fn a_304_is_translated_back() {
        for (listed, given, expected) in [
            ("\"a--br4.0\"", "\"a\"", Some("\"a--br4.0\"")),
            ("\"b\", \"a--id0.7--br4.0\"", "W/\"a\"", Some("\"a--id0.7--br4.0\"")),
            ("\"a--br4.0\", \"a\"", "\"a\"", None),
            ("\"a--id0.8\"", "\"a\"", None),
            ("\"b\"", "\"a\"", None),
            ("*", "\"a\"", None),
        ] {
            let (request, answer) = (fields(&[(IF_NONE_MATCH, listed)]), fields(&[(ETAG, given)]));
            let known = known_to_client(&request, &answer, RULES);
            assert_eq!(known.as_ref().map(HeaderValue::as_bytes), expected.map(str::as_bytes), "{listed} {given}");
        }
    }

    #[test]
    fn conditions_are_translated_for_the_origin() {
        for (name, value, expected) in [
            (IF_NONE_MATCH, "x, \"a\"", Some("x, \"a\"")),
            (IF_NONE_MATCH, "x, \"a--br4.7\", W/\"b\"", Some("\"a\", W/\"b\"")),
            (IF_NONE_MATCH, "\"a--br4.7\", \"a--gzip5.0\", \"a\"", Some("\"a\"")),
            (IF_NONE_MATCH, "\"a--br4.8\", \"b\"", Some("\"b\"")),
            (IF_NONE_MATCH, "\"a--br4.8\"", None),
            (IF_NONE_MATCH, "\"a--id0.7--br4.0\"", Some("\"a\"")),
            (IF_NONE_MATCH, "\"a--id0.8--br4.0\"", None),
            (IF_NONE_MATCH, "\"a--br4.0--gzip5.0\"", Some("\"a--br4.0\"")),
            (IF_NONE_MATCH, "*", Some("*")),
            (IF_NONE_MATCH, "\"a--id0.7--br11.102\", \"b\"", Some("\"b\"")),
            (IF_MATCH, "\"a--br4.8\"", Some("\"a\"")),
            (IF_MATCH, "\"a--id0.8--br4.0\"", Some("\"a\"")),
            (IF_RANGE, "\"a\"", Some("\"a\"")),
            (IF_RANGE, "\"a--br4.7\"", None),
            (IF_RANGE, "Sun, 06 Nov 1994 08:49:37 GMT", Some("Sun, 06 Nov 1994 08:49:37 GMT")),
        ] {
            let mut headers = fields(&[(name.clone(), value), (RANGE, "bytes=0-1")]);
            translate(&mut headers, RULES);
            assert_eq!(headers.get(&name).map(HeaderValue::as_bytes), expected.map(str::as_bytes), "{name}: {value}");
            assert_eq!(headers.contains_key(RANGE), name != IF_RANGE || expected.is_some(), "{name}: {value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_derived_is_read_back(
            opaque in "[!#-~]{0,12}(--br4\\.0)?",
            weak: bool,
            coding in proptest::option::of(proptest::sample::select(&Coding::ALL[..])),
            level: u8,
            rules: u64,
        ) {
            let origin = EntityTag { weak, opaque: opaque.as_bytes() };
            let derivation = Derivation { coding, level, rules, delta: None };
            let value = origin.derive(derivation);
            let read = EntityTag::parse(value.as_bytes()).expect("a tag");
            prop_assert_eq!(read.split(), (origin, Some(derivation)));
        }

        #[test]
        fn any_list_is_answered(line in "[ -~]{0,40}") {
            let headers = fields(&[(IF_NONE_MATCH, &line)]);
            prop_assert!(listed_tags(&headers, &IF_NONE_MATCH).count() <= 40);
        }
    }
}
