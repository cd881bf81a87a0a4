//! Compression dictionaries (RFC 9842): a client that has an earlier version of a file gets what differs.
//!
//! An answer that may become a dictionary says so in `Use-As-Dictionary`, with the [`family`] it is a version of. A later
//! request for another member of the family offers it by its digest; where the bytes of that digest are still here, the
//! answer is coded against them, a *delta*. Every answer that could have been one varies by what was offered.
//!
//! Only what is stored takes part, and of that only what the same bytes answer for everybody: neither private answers nor
//! those that vary by a cookie or anything else of one client.

mod naming;

use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ORIGIN, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::encoding::{Coding, Weights, content_codings, forbids_transform, media_type};

pub use naming::family;

/// `Use-As-Dictionary`
pub const USE_AS_DICTIONARY: HeaderName = HeaderName::from_static("use-as-dictionary");
/// `Available-Dictionary`
pub const AVAILABLE_DICTIONARY: HeaderName = HeaderName::from_static("available-dictionary");
/// `Dictionary-ID`
pub const DICTIONARY_ID: HeaderName = HeaderName::from_static("dictionary-id");

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Smallest body that is worth its field: below, ordinary codings leave nothing to save.
pub const BODY_MIN: u64 = 2 * 1024;

/// A content coding that needs a dictionary (RFC 9842 §4, §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeltaCoding {
    /// Dictionary-compressed Zstandard.
    Dcz,
    /// Dictionary-compressed Brotli.
    Dcb,
}

impl DeltaCoding {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Dcz, Self::Dcb];

    /// The registered name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Dcz => "dcz",
            Self::Dcb => "dcb",
        }
    }

    /// The coding of that name, in lower case.
    #[must_use]
    pub fn from_token(token: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|coding| coding.token() == token)
    }

    /// The level while a client waits.
    #[must_use]
    pub fn fast_level(self) -> u8 {
        match self {
            Self::Dcz => 3,
            Self::Dcb => 5,
        }
    }

    /// The level once the delta is in demand.
    #[must_use]
    pub fn strong_level(self) -> u8 {
        match self {
            Self::Dcz => 19,
            Self::Dcb => 11,
        }
    }
}

/// How a body is coded against a dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Delta {
    /// The coding.
    pub coding: DeltaCoding,
    /// The first 64 bits of the dictionary's SHA-256.
    pub dictionary: u64,
}

/// `dict` of `[rewrite.NAME]`, where it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DictionaryParams {
    /// `codings` in the operator's order of preference.
    pub codings: Vec<DeltaCoding>,
    /// `keep`: versions of a file that are kept as dictionaries.
    pub keep: usize,
}

impl Default for DictionaryParams {
    /// What `level = "safe"` brings.
    fn default() -> Self {
        Self { codings: DeltaCoding::ALL.to_vec(), keep: 5 }
    }
}

/// What a file is loaded as: a dictionary is only offered where the next version is loaded alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Destination {
    /// Scripts.
    Script,
    /// Style sheets.
    Style,
    /// WebAssembly, which browsers load by `fetch`, for no destination of its own.
    Any,
}

impl Destination {
    fn of_type(media_type: &str) -> Option<Self> {
        let is = |names: &[&str]| names.iter().any(|name| media_type.eq_ignore_ascii_case(name));
        if is(&["text/javascript", "application/javascript", "application/x-javascript"]) {
            Some(Self::Script)
        } else if is(&["text/css"]) {
            Some(Self::Style)
        } else if is(&["application/wasm"]) {
            Some(Self::Any)
        } else {
            None
        }
    }
}

/// Why an answer neither becomes a dictionary nor is coded against one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoFamily {
    /// Not a 200.
    Status,
    /// Neither a script nor a style sheet nor WebAssembly.
    Type,
    /// `Cache-Control: no-transform`.
    NoTransform,
    /// It varies by something of the request.
    Varies,
    /// It has several codings, or one that cannot be read.
    Undecodable,
    /// It was not asked for over TLS.
    Plain,
    /// Its name has no version in it.
    Name,
}

impl NoFamily {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Type => "type",
            Self::NoTransform => "no_transform",
            Self::Varies => "varies",
            Self::Undecodable => "undecodable",
            Self::Plain => "plain",
            Self::Name => "name",
        }
    }
}

/// What is known of a stored response.
#[derive(Debug, Clone, Copy)]
pub struct FamilyFacts<'a> {
    /// `http` or `https`, as it was asked for.
    pub scheme: &'a str,
    /// Normalised, client-facing.
    pub path: &'a str,
    /// Without `?`.
    pub query: Option<&'a str>,
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// It is stored for requests with certain fields only.
    pub varies: bool,
}

/// A family of versions of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// The URL pattern of its members, on their own origin.
    pub pattern: String,
    /// What they are loaded as.
    pub destination: Destination,
}

impl Family {
    /// The family a stored response belongs to. Cost: some look-ups, one string.
    ///
    /// # Errors
    /// Why it has none.
    pub fn of(facts: &FamilyFacts<'_>) -> Result<Self, NoFamily> {
        if facts.scheme != "https" {
            return Err(NoFamily::Plain);
        }
        if facts.status != StatusCode::OK {
            return Err(NoFamily::Status);
        }
        let destination = media_type(facts.headers).and_then(Destination::of_type).ok_or(NoFamily::Type)?;
        if forbids_transform(facts.headers) {
            return Err(NoFamily::NoTransform);
        }
        if facts.varies {
            return Err(NoFamily::Varies);
        }
        let mut codings = content_codings(facts.headers);
        let readable = codings.next().is_none_or(|coding| Coding::from_token(coding).is_some());
        if !readable || codings.next().is_some() {
            return Err(NoFamily::Undecodable);
        }
        let pattern = family(facts.path, facts.query).ok_or(NoFamily::Name)?;
        Ok(Self { pattern, destination })
    }

    /// True where these fields, set on every response behind the store, forbid it.
    #[must_use]
    pub fn is_barred_by(set: &[(HeaderName, HeaderValue)]) -> bool {
        forbids_transform(&HeaderMap::from_iter(set.iter().cloned()))
    }

    /// The value of `Use-As-Dictionary` (RFC 9842 §2.1). It gives no `id`: dictionaries are found by their digest, and what
    /// clients would have to repeat in every request could tell them apart.
    #[must_use]
    pub fn use_as_dictionary(&self) -> HeaderValue {
        let destination = match self.destination {
            Destination::Script => ", match-dest=(\"script\")",
            Destination::Style => ", match-dest=(\"style\")",
            Destination::Any => "",
        };
        // The pattern has no character that a quoted string or a field value could not hold.
        let text = format!("match=\"{}\"{destination}", self.pattern);
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// Why a client that offers a dictionary gets an ordinary coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoDelta {
    /// It accepts no coding with a dictionary, or likes others better.
    NotAccepted,
    /// It may not read the answer: another site asks for it (RFC 9842 §9.3.3).
    Foreign,
    /// What it offers is not kept here, or not for this file.
    Unknown,
    /// It asks for a part.
    Range,
}

impl NoDelta {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::NotAccepted => "not_accepted",
            Self::Foreign => "foreign",
            Self::Unknown => "unknown",
            Self::Range => "range",
        }
    }
}

/// What a request offers, as the member of a structured field: `:…:` without parameters. `None` where it offers nothing, or
/// cannot be read. Cost without the field: one look-up.
#[must_use]
pub fn offered(request: &HeaderMap) -> Option<&[u8]> {
    let mut lines = request.get_all(AVAILABLE_DICTIONARY).iter();
    let (only, None) = (lines.next()?, lines.next()) else { return None };
    let value = only.as_bytes().trim_ascii();
    let end = value.iter().position(|&byte| byte == b';').unwrap_or(value.len());
    value.get(..end).map(<[u8]>::trim_ascii_end)
}

/// How a digest is offered: its bytes as the item of a structured field (RFC 9651 §4.1.8).
#[must_use]
pub fn offer(digest: &[u8; 32]) -> Box<[u8]> {
    [b":", &super::base64::encode(digest)[..], b":"].concat().into()
}

/// The coding for a client that offers a dictionary: of `codings`, in their order, the one it weighs highest, where it
/// weighs none of the ordinary ones (and not `identity`) higher. Only a coding it names counts: `*` does not stand for
/// what needs more than a decoder.
///
/// # Errors
/// [`NoDelta::NotAccepted`], or [`NoDelta::Foreign`] where the answer with these fields may not be read by the page that
/// asks.
pub fn negotiate(request: &HeaderMap, response: &HeaderMap, codings: &[DeltaCoding]) -> Result<DeltaCoding, NoDelta> {
    let weights = Weights::read(request).ok_or(NoDelta::NotAccepted)?;
    let mut best: Option<(DeltaCoding, u16)> = None;
    for &coding in codings {
        let weight = weights.of_delta(coding);
        if weight > best.map_or(0, |(_, most)| most) {
            best = Some((coding, weight));
        }
    }
    let (coding, _) = best.filter(|(_, weight)| weights.highest_ordinary() <= *weight).ok_or(NoDelta::NotAccepted)?;
    if is_readable(request, response) { Ok(coding) } else { Err(NoDelta::Foreign) }
}

/// RFC 9842 §9.3.3: whether the context that asks may read the answer, as far as its request tells.
fn is_readable(request: &HeaderMap, response: &HeaderMap) -> bool {
    let (Some(site), Some(mode)) = (request.get(SEC_FETCH_SITE), request.get(SEC_FETCH_MODE)) else { return true };
    if site == "same-origin" || mode == "navigate" || mode == "same-origin" {
        return true;
    }
    let (Some(allowed), Some(origin)) = (response.get(ACCESS_CONTROL_ALLOW_ORIGIN), request.get(ORIGIN)) else {
        return false;
    };
    mode == "cors" && (allowed == "*" || allowed == origin)
}

/// Says that the response depends on the dictionary that was offered (RFC 9842 §6.2). That it depends on `Accept-Encoding`
/// is said by the caller.
pub fn varies_by_dictionary(headers: &mut HeaderMap) {
    let said = headers.get_all(VARY).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    let mut said = said.map(<[u8]>::trim_ascii);
    if !said.any(|name| name == b"*" || name.eq_ignore_ascii_case(AVAILABLE_DICTIONARY.as_str().as_bytes())) {
        headers.append(VARY, HeaderValue::from_static("Available-Dictionary"));
    }
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE};

    use super::*;

    fn fields(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn public_versions_of_files_are_families() {
        let script = (CONTENT_TYPE, "text/javascript; charset=utf-8");
        let facts = |lines: &[(HeaderName, &str)], change: fn(FamilyFacts<'_>) -> FamilyFacts<'_>| {
            let headers = fields(lines);
            let facts = FamilyFacts {
                scheme: "https",
                path: "/app.3f9ac81b.js",
                query: None,
                status: StatusCode::OK,
                headers: &headers,
                varies: false,
            };
            Family::of(&change(facts)).map(|family| family.use_as_dictionary())
        };
        type Change = fn(FamilyFacts<'_>) -> FamilyFacts<'_>;
        let same: Change = |facts| facts;
        for (lines, change, expected) in [
            (vec![script.clone()], same, Ok("match=\"/app.*.js\", match-dest=(\"script\")")),
            (vec![(CONTENT_TYPE, "Text/CSS")], same, Ok("match=\"/app.*.js\", match-dest=(\"style\")")),
            (vec![(CONTENT_TYPE, "application/wasm")], same, Ok("match=\"/app.*.js\"")),
            (
                vec![script.clone(), (CONTENT_ENCODING, "gzip")],
                same,
                Ok("match=\"/app.*.js\", match-dest=(\"script\")"),
            ),
            (vec![script.clone(), (CONTENT_ENCODING, "gzip, br")], same, Err(NoFamily::Undecodable)),
            (vec![script.clone(), (CONTENT_ENCODING, "dcb")], same, Err(NoFamily::Undecodable)),
            (vec![script.clone(), (CACHE_CONTROL, "no-transform")], same, Err(NoFamily::NoTransform)),
            (vec![(CONTENT_TYPE, "text/html")], same, Err(NoFamily::Type)),
            (vec![], same, Err(NoFamily::Type)),
            (vec![script.clone()], |facts| FamilyFacts { scheme: "http", ..facts }, Err(NoFamily::Plain)),
            (vec![script.clone()], |facts| FamilyFacts { varies: true, ..facts }, Err(NoFamily::Varies)),
            (
                vec![script.clone()],
                |facts| FamilyFacts { status: StatusCode::NOT_FOUND, ..facts },
                Err(NoFamily::Status),
            ),
            (vec![script], |facts| FamilyFacts { path: "/app.js", ..facts }, Err(NoFamily::Name)),
        ] {
            let expected = expected.map(HeaderValue::from_static);
            assert_eq!(facts(&lines, change), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_digest_is_offered_as_a_structured_field() {
        let digest = offer(&[0; 32]);
        assert_eq!(&*digest, b":AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:");
        let text = std::str::from_utf8(&digest).expect("text");
        for (lines, expected) in [
            (vec![text.to_owned()], true),
            (vec![format!(" {text} ")], true),
            (vec![format!("{text};x=1")], true),
            (vec![text.replace("A=", "B=")], false),
            (vec![text.to_owned(), text.to_owned()], false),
            (vec![String::new()], false),
            (vec![], false),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| (AVAILABLE_DICTIONARY, line.as_str())).collect();
            assert_eq!(offered(&fields(&lines)) == Some(&*digest), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_delta_goes_to_who_names_it_and_likes_nothing_better() {
        use DeltaCoding::{Dcb, Dcz};
        let both = &[Dcz, Dcb][..];
        for (accept, codings, expected) in [
            ("gzip, deflate, br, zstd, dcb, dcz", both, Ok(Dcz)),
            ("gzip, deflate, br, zstd, dcb, dcz", &[Dcb, Dcz], Ok(Dcb)),
            ("gzip, DCB", both, Ok(Dcb)),
            ("dcz;q=0.5, dcb;q=0.6", both, Ok(Dcb)),
            ("dcz;q=0.5, br", both, Err(NoDelta::NotAccepted)),
            ("dcz;q=0.5, identity", both, Err(NoDelta::NotAccepted)),
            ("dcz;q=0, dcb;q=0", both, Err(NoDelta::NotAccepted)),
            ("*", both, Err(NoDelta::NotAccepted)),
            ("gzip, br", both, Err(NoDelta::NotAccepted)),
            ("dcz;q=9", both, Err(NoDelta::NotAccepted)),
            ("dcz", &[], Err(NoDelta::NotAccepted)),
        ] {
            let request = fields(&[(ACCEPT_ENCODING, accept)]);
            assert_eq!(negotiate(&request, &HeaderMap::new(), codings), expected, "{accept}");
        }
        assert_eq!(negotiate(&HeaderMap::new(), &HeaderMap::new(), both), Err(NoDelta::NotAccepted));
    }

    #[test]
    fn who_may_not_read_the_answer_gets_no_delta() {
        let (site, mode) = (SEC_FETCH_SITE, SEC_FETCH_MODE);
        let allow = |value| vec![(ACCESS_CONTROL_ALLOW_ORIGIN, value)];
        for (request, response, readable) in [
            (vec![], vec![], true),
            (vec![(site.clone(), "same-origin"), (mode.clone(), "no-cors")], vec![], true),
            (vec![(site.clone(), "cross-site")], vec![], true),
            (vec![(site.clone(), "cross-site"), (mode.clone(), "navigate")], vec![], true),
            (vec![(site.clone(), "cross-site"), (mode.clone(), "no-cors")], vec![], false),
            (vec![(site.clone(), "same-site"), (mode.clone(), "no-cors")], allow("*"), false),
            (vec![(site.clone(), "cross-site"), (mode.clone(), "cors")], allow("*"), false),
            (vec![(site.clone(), "cross-site"), (mode.clone(), "cors"), (ORIGIN, "https://a.test")], vec![], false),
            (vec![(site.clone(), "cross-site"), (mode.clone(), "cors"), (ORIGIN, "https://a.test")], allow("*"), true),
            (
                vec![(site.clone(), "cross-site"), (mode.clone(), "cors"), (ORIGIN, "https://a.test")],
                allow("https://a.test"),
                true,
            ),
            (vec![(site, "cross-site"), (mode, "cors"), (ORIGIN, "https://a.test")], allow("https://b.test"), false),
        ] {
            let mut asked = fields(&request);
            asked.insert(ACCEPT_ENCODING, HeaderValue::from_static("dcz"));
            let expected = if readable { Ok(DeltaCoding::Dcz) } else { Err(NoDelta::Foreign) };
            assert_eq!(negotiate(&asked, &fields(&response), &DeltaCoding::ALL), expected, "{request:?} {response:?}");
        }
    }

    #[test]
    fn what_it_varies_by_is_said_once() {
        for (before, lines) in [("Accept-Encoding", 2), ("available-dictionary, Accept-Encoding", 1), ("*", 1)] {
            let mut headers = fields(&[(VARY, before)]);
            varies_by_dictionary(&mut headers);
            assert_eq!(headers.get_all(VARY).iter().count(), lines, "{before}");
        }
    }
}
