//! Content codings: which one a client gets, and whether coding a response is worth it (RFC 9110 §8.4, §12.5.3).

use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, COOKIE,
};
use http::{HeaderMap, StatusCode};

use super::dictionary::DeltaCoding;

/// A content coding we can make and read (RFC 9110 §8.4.1, RFC 8878, RFC 7932).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the registered names")]
pub enum Coding {
    Zstd,
    Br,
    Gzip,
}

impl Coding {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Br, Self::Gzip];

    /// The registered name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }

    /// The coding of that name, in any case; `x-gzip` is gzip (RFC 9110 §8.4.1.3).
    #[must_use]
    pub fn from_token(token: &[u8]) -> Option<Self> {
        if token.eq_ignore_ascii_case(b"x-gzip") {
            return Some(Self::Gzip);
        }
        Self::ALL.into_iter().find(|coding| token.eq_ignore_ascii_case(coding.token().as_bytes()))
    }
}

/// What can be read: the codings we make, and deflate, which we do not (RFC 9110 §8.4.1.2: two formats go by that name).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readable {
    /// One that is made here as well.
    Coding(Coding),
    /// `deflate`
    Deflate,
}

impl Readable {
    /// The coding of that name, in any case.
    #[must_use]
    pub fn from_token(token: &[u8]) -> Option<Self> {
        let deflate = token.eq_ignore_ascii_case(b"deflate").then_some(Self::Deflate);
        Coding::from_token(token).map(Self::Coding).or(deflate)
    }
}

impl From<Coding> for Readable {
    fn from(coding: Coding) -> Self {
        Self::Coding(coding)
    }
}

/// `[compress.NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompressParams {
    /// `codings` in the operator's order of preference.
    pub codings: Vec<Coding>,
    /// `types`: lower case, exact or `type/*`.
    pub types: Vec<String>,
    /// `min_size` in bytes; a body of unknown length counts as large enough.
    pub min_size: u64,
    /// `strong`: stored bodies in demand are coded again at the strongest level, in the background.
    pub strong: bool,
    /// `breach`: what becomes of answers that may mix a client's secrets with text that others choose.
    pub breach: Breach,
}

/// `breach`: how the length of a coded answer is kept from telling secrets in it (the attack of that name). It concerns
/// answers that are not stored, to requests with cookies or credentials: those are what one client's secrets are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Breach {
    /// They are coded like all others.
    #[default]
    Off,
    /// They are coded, with padding of a random length that decodes to nothing. Makes the attack longer, not impossible.
    Pad,
    /// They are not coded.
    Identity,
}

/// Whether an answer to this request, which is not stored, may hold the client's secrets.
#[must_use]
pub fn is_personal(request: &HeaderMap) -> bool {
    request.contains_key(COOKIE) || request.contains_key(AUTHORIZATION)
}

/// Whether padding can be hidden in this coding: brotli's encoder has no place for it.
#[must_use]
pub fn can_pad(coding: Coding) -> bool {
    coding != Coding::Br
}

/// Why a client gets the body without a coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Identity {
    /// No `Accept-Encoding`: any coding would be allowed, but such clients are mostly unable to decode.
    NotAsked,
    /// The field cannot be parsed.
    Malformed,
    /// The client prefers no coding to every offered one.
    Preferred,
    /// The client accepts none of the offered codings.
    NoneOffered,
    /// The client refuses identity as well. It is sent all the same, which RFC 9110 §12.5.3 allows: a 415 or 406 would
    /// serve nobody.
    NotAcceptable,
}

impl Identity {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::Malformed => "malformed",
            Self::Preferred => "identity_preferred",
            Self::NoneOffered => "none_offered",
            Self::NotAcceptable => "not_acceptable",
        }
    }
}

/// The coding for a client: the one it weighs highest among `offered`, ties by the order of `offered`.
///
/// All `Accept-Encoding` lines count as one list. Identity wins only where the client names it with a higher weight.
/// Cost: one pass over the field, no allocation.
///
/// # Errors
/// Why there is none.
pub fn negotiate(headers: &HeaderMap, offered: &[Coding]) -> Result<Coding, Identity> {
    if !headers.contains_key(ACCEPT_ENCODING) {
        return Err(Identity::NotAsked);
    }
    let weights = Weights::read(headers).ok_or(Identity::Malformed)?;
    let mut best: Option<(Coding, u16)> = None;
    for &coding in offered {
        let weight = weights.of(coding);
        if weight > best.map_or(0, |(_, most)| most) {
            best = Some((coding, weight));
        }
    }
    match best {
        Some((_, weight)) if weights.identity.is_some_and(|identity| identity > weight) => Err(Identity::Preferred),
        Some((coding, _)) => Ok(coding),
        None if weights.identity.or(weights.any.filter(|&any| any == 0)) == Some(0) => Err(Identity::NotAcceptable),
        None => Err(Identity::NoneOffered),
    }
}

/// What an `Accept-Encoding` field says, in thousandths; the highest weight of a repeated member counts.
#[derive(Debug, Default)]
pub(super) struct Weights {
    zstd: Option<u16>,
    br: Option<u16>,
    gzip: Option<u16>,
    dcz: Option<u16>,
    dcb: Option<u16>,
    identity: Option<u16>,
    any: Option<u16>,
}

impl Weights {
    /// What all lines of the field say; `None` = malformed.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let mut weights = Self::default();
        for line in headers.get_all(ACCEPT_ENCODING) {
            for member in line.as_bytes().split(|&byte| byte == b',') {
                weights.note(member.trim_ascii())?;
            }
        }
        Some(weights)
    }

    /// Of a coding with a dictionary, for which `*` does not stand.
    pub(super) fn of_delta(&self, coding: DeltaCoding) -> u16 {
        let named = match coding {
            DeltaCoding::Dcz => self.dcz,
            DeltaCoding::Dcb => self.dcb,
        };
        named.unwrap_or(0)
    }

    /// Of whatever needs no dictionary, no coding included where it is named.
    pub(super) fn highest_ordinary(&self) -> u16 {
        let codings = Coding::ALL.into_iter().map(|coding| self.of(coding)).max();
        codings.max(self.identity).unwrap_or(0)
    }

    /// Takes one member of the list; `None` = malformed.
    fn note(&mut self, member: &[u8]) -> Option<()> {
        if member.is_empty() {
            return Some(());
        }
        let mut parts = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().filter(|name| !name.is_empty() && name.iter().all(|&byte| is_token_byte(byte)))?;
        let weight = match (parts.next(), parts.next()) {
            (None, _) => 1000,
            (Some(weight), None) => parse_weight(weight)?,
            _ => return None,
        };
        let slot = match Coding::from_token(name) {
            Some(Coding::Zstd) => &mut self.zstd,
            Some(Coding::Br) => &mut self.br,
            Some(Coding::Gzip) => &mut self.gzip,
            None if name == b"*" => &mut self.any,
            None if name.eq_ignore_ascii_case(b"dcz") => &mut self.dcz,
            None if name.eq_ignore_ascii_case(b"dcb") => &mut self.dcb,
            None if name.eq_ignore_ascii_case(b"identity") => &mut self.identity,
            None => return Some(()),
        };
        *slot = (*slot).max(Some(weight));
        Some(())
    }

    fn of(&self, coding: Coding) -> u16 {
        let named = match coding {
            Coding::Zstd => self.zstd,
            Coding::Br => self.br,
            Coding::Gzip => self.gzip,
        };
        named.or(self.any).unwrap_or(0)
    }
}

/// RFC 9110 §5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `q=` and a weight of RFC 9110 §12.4.2, in thousandths.
fn parse_weight(text: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', whole @ (b'0' | b'1'), rest @ ..] = text else { return None };
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return None,
    };
    let thousandths = [100, 10, 1].iter().zip(digits).map(|(unit, digit)| unit * u16::from(digit - b'0')).sum::<u16>();
    let weight = u16::from(whole - b'0') * 1000 + thousandths;
    (weight <= 1000).then_some(weight)
}

/// What is known of a response that may be coded.
#[derive(Debug, Clone, Copy)]
pub struct EncodeFacts<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// Bytes of its body, where known.
    pub length: Option<u64>,
}

/// Why a response is not coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotWorth {
    /// The status has no body, or a part of one.
    Status,
    /// It is a part: another coding of a part is no part of the coded whole.
    Partial,
    /// It has a content coding.
    AlreadyCoded,
    /// `Cache-Control: no-transform`.
    NoTransform,
    /// `types` does not list its type, or it has none.
    Type,
    /// An event stream: an encoder would hold events back.
    EventStream,
    /// Below `min_size`.
    TooSmall,
}

impl NotWorth {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Partial => "partial",
            Self::AlreadyCoded => "already_coded",
            Self::NoTransform => "no_transform",
            Self::Type => "type",
            Self::EventStream => "event_stream",
            Self::TooSmall => "too_small",
        }
    }
}

/// Whether a response may be coded and is worth it; what the client accepts is [`negotiate`]'s question. Where the
/// answer is yes, the response varies by `Accept-Encoding` whichever coding is chosen.
///
/// # Errors
/// Why not.
pub fn worth_encoding(facts: &EncodeFacts<'_>, params: &CompressParams) -> Result<(), NotWorth> {
    if content_codings(facts.headers).next().is_some() {
        return Err(NotWorth::AlreadyCoded);
    }
    worth_recoding(facts, params)?;
    match facts.length {
        Some(length) if length < params.min_size => Err(NotWorth::TooSmall),
        _ => Ok(()),
    }
}

/// The same for a response that has a coding, which would be replaced by another; its length says nothing then.
///
/// # Errors
/// Why not.
pub fn worth_recoding(facts: &EncodeFacts<'_>, params: &CompressParams) -> Result<(), NotWorth> {
    is_whole(facts)?;
    if forbids_transform(facts.headers) {
        return Err(NotWorth::NoTransform);
    }
    let media_type = media_type(facts.headers).ok_or(NotWorth::Type)?;
    if media_type.eq_ignore_ascii_case("text/event-stream") {
        return Err(NotWorth::EventStream);
    }
    if params.types.iter().any(|listed| is_listed(media_type, listed)) { Ok(()) } else { Err(NotWorth::Type) }
}

/// Whether a response has a body, and all of it: what its coding can be put on or taken off.
///
/// # Errors
/// `Status` or `Partial`.
pub fn is_whole(facts: &EncodeFacts<'_>) -> Result<(), NotWorth> {
    if !has_body(facts.status) {
        return Err(NotWorth::Status);
    }
    if facts.status == StatusCode::PARTIAL_CONTENT || facts.headers.contains_key(CONTENT_RANGE) {
        return Err(NotWorth::Partial);
    }
    Ok(())
}

/// RFC 9110 §6.4.1, apart from what the method says.
pub(super) fn has_body(status: StatusCode) -> bool {
    !status.is_informational()
        && ![StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED].contains(&status)
}

/// The names in `Content-Encoding` over all lines, `identity` left out, in the order they were applied.
pub(super) fn content_codings(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity"))
}

/// RFC 9111 §5.2.2.6.
pub(super) fn forbids_transform(headers: &HeaderMap) -> bool {
    headers
        .get_all(CACHE_CONTROL)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// The `type/subtype` of `Content-Type`, as spelled.
pub(super) fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    value.split(';').next().map(str::trim).filter(|media_type| media_type.contains('/'))
}

fn is_listed(media_type: &str, listed: &str) -> bool {
    match listed.strip_suffix('*') {
        Some(family) => media_type.get(..family.len()).is_some_and(|start| start.eq_ignore_ascii_case(family)),
        None => media_type.eq_ignore_ascii_case(listed),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::Coding::{Br, Gzip, Zstd};
    use super::*;

    fn fields(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn clients_get_what_they_weigh_highest() {
        let all = &[Zstd, Br, Gzip][..];
        for (accept, offered, expected) in [
            (&["gzip, deflate, br, zstd"][..], all, Ok(Zstd)),
            (&["gzip, deflate, br"], all, Ok(Br)),
            (&["gzip", "br"], all, Ok(Br)),
            (&["gzip, br"], &[Gzip, Br], Ok(Gzip)),
            (&["gzip;q=1.0, br;q=0.5"], all, Ok(Gzip)),
            (&["GZIP ; Q=0.001"], all, Ok(Gzip)),
            (&["x-gzip"], all, Ok(Gzip)),
            (&["gzip;q=0.2, gzip;q=0.9, br;q=0.5"], all, Ok(Gzip)),
            (&["*"], all, Ok(Zstd)),
            (&["*;q=0.5, br;q=1"], all, Ok(Br)),
            (&["zstd;q=0, *"], all, Ok(Br)),
            (&["*;q=0, gzip"], all, Ok(Gzip)),
            (&["gzip;q=0.5, identity;q=0.5"], all, Ok(Gzip)),
            (&["gzip;q=0.5, identity"], all, Err(Identity::Preferred)),
            (&["identity;q=0, gzip"], all, Ok(Gzip)),
            (&["identity;q=0"], all, Err(Identity::NotAcceptable)),
            (&["*;q=0"], all, Err(Identity::NotAcceptable)),
            (&["*;q=0, identity"], all, Err(Identity::NoneOffered)),
            (&["gzip;q=0"], all, Err(Identity::NoneOffered)),
            (&["deflate, compress"], all, Err(Identity::NoneOffered)),
            (&["zstd"], &[], Err(Identity::NoneOffered)),
            (&[""], all, Err(Identity::NoneOffered)),
            (&[", ,gzip,"], all, Ok(Gzip)),
            (&[], all, Err(Identity::NotAsked)),
            (&["gzip;q=2"], all, Err(Identity::Malformed)),
            (&["gzip;q=1.001"], all, Err(Identity::Malformed)),
            (&["gzip;q=0.1234"], all, Err(Identity::Malformed)),
            (&["gzip;q="], all, Err(Identity::Malformed)),
            (&["gzip;q=0.5;x=1"], all, Err(Identity::Malformed)),
            (&["gzip;level=1"], all, Err(Identity::Malformed)),
            (&["br, gz ip"], all, Err(Identity::Malformed)),
            (&[";q=1"], all, Err(Identity::Malformed)),
        ] {
            let lines: Vec<_> = accept.iter().map(|value| (ACCEPT_ENCODING, *value)).collect();
            assert_eq!(negotiate(&fields(&lines), offered), expected, "{accept:?}");
        }
    }

    #[test]
    fn coding_must_be_allowed_and_worth_it() {
        let params = CompressParams {
            codings: vec![Gzip],
            types: vec!["text/*".into(), "application/json".into()],
            min_size: 1024,
            strong: false,
            breach: Breach::Off,
        };
        let html = (CONTENT_TYPE, "text/html; charset=utf-8");
        for (status, length, lines, expected) in [
            (200, Some(1024), vec![html.clone()], Ok(())),
            (404, None, vec![(CONTENT_TYPE, "Application/JSON")], Ok(())),
            (200, None, vec![(CONTENT_TYPE, "TEXT/Plain")], Ok(())),
            (200, Some(1023), vec![html.clone()], Err(NotWorth::TooSmall)),
            (204, None, vec![html.clone()], Err(NotWorth::Status)),
            (304, None, vec![html.clone()], Err(NotWorth::Status)),
            (206, None, vec![html.clone()], Err(NotWorth::Partial)),
            (416, None, vec![html.clone(), (CONTENT_RANGE, "bytes */1")], Err(NotWorth::Partial)),
            (200, None, vec![html.clone(), (CONTENT_ENCODING, "br")], Err(NotWorth::AlreadyCoded)),
            (200, None, vec![html.clone(), (CONTENT_ENCODING, "unknown")], Err(NotWorth::AlreadyCoded)),
            (200, None, vec![html.clone(), (CONTENT_ENCODING, "identity")], Ok(())),
            (200, None, vec![html, (CACHE_CONTROL, "max-age=1, No-Transform")], Err(NotWorth::NoTransform)),
            (200, None, vec![(CONTENT_TYPE, "text/event-stream")], Err(NotWorth::EventStream)),
            (200, None, vec![(CONTENT_TYPE, "image/png")], Err(NotWorth::Type)),
            (200, None, vec![(CONTENT_TYPE, "textual/x")], Err(NotWorth::Type)),
            (200, None, vec![(CONTENT_TYPE, "text")], Err(NotWorth::Type)),
            (200, None, vec![], Err(NotWorth::Type)),
        ] {
            let headers = fields(&lines);
            let status = StatusCode::from_u16(status).expect("a status");
            let facts = EncodeFacts { status, headers: &headers, length };
            assert_eq!(worth_encoding(&facts, &params), expected, "{facts:?}");
        }
    }

    #[test]
    fn tokens_name_their_coding() {
        for coding in Coding::ALL {
            assert_eq!(Coding::from_token(coding.token().to_uppercase().as_bytes()), Some(coding));
        }
        assert_eq!(Coding::from_token(b"deflate"), None);
    }
}
