//! What may be made of a stored body off the request path, and what is remembered of it.
//!
//! An *optimiser* makes a smaller body that means the same. It works on a complete stored body, on a thread that no
//! client waits for; the first answers go without, later hits get the child. Private answers, parts, `no-transform` and
//! what cannot be decoded never get here: the first are not stored, the others [`decide`] turns away.
//!
//! The child of a base is keyed by (base, [`Optimiser::fingerprint`], coding, level). The fingerprint is the same on every
//! node and says in an entity-tag what was done, so that a tag can be read back by somebody who knows no configuration:
//! [`is_fingerprint`].
//!
//! Negative results are results: a body that did not get smaller, or that an optimiser refused, keeps its [`Made::Nothing`]
//! for its life. A filter that fails again and again on what one URL brings is left out there for a day: [`quarantine`].

pub mod quarantine;

use http::header::ACCESS_CONTROL_ALLOW_ORIGIN;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::encoding::{Coding, content_codings, forbids_transform, media_type};
use super::rewrite::{charset, is_ascii_compatible};

/// One optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Optimiser {
    /// White space and comments of scripts.
    JsWs,
    /// White space and comments of style sheets.
    CssWs,
    /// White space of JSON.
    JsonWs,
    /// White space and comments of static SVG.
    SvgWs,
}

/// Part of every fingerprint: raise it when an optimiser comes to give other bytes.
const VERSION: u64 = 2;

impl Optimiser {
    /// All there are. The place of each is its bit in fingerprints: only ever append.
    pub const ALL: [Self; 4] = [Self::JsWs, Self::CssWs, Self::JsonWs, Self::SvgWs];

    /// Its name in the configuration, in metrics and in the quarantine.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::JsWs => "js-ws",
            Self::CssWs => "css-ws",
            Self::JsonWs => "json-ws",
            Self::SvgWs => "svg-ws",
        }
    }

    /// The optimiser of that name.
    #[must_use]
    pub fn from_token(token: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|optimiser| optimiser.token() == token)
    }

    fn bit(self) -> u16 {
        Self::ALL.iter().position(|optimiser| *optimiser == self).map_or(0, |place| 1 << place)
    }

    /// Names what it does in entity-tags and keys of children; never 0.
    #[must_use]
    pub fn fingerprint(self) -> u64 {
        u64::from(self.bit()) << 8 | VERSION
    }

    /// The optimiser for a media type.
    fn of_type(media_type: &str) -> Option<Self> {
        let listed = |names: &[&str]| names.iter().any(|name| media_type.eq_ignore_ascii_case(name));
        if listed(&["text/javascript", "application/javascript", "application/x-javascript"]) {
            Some(Self::JsWs)
        } else if listed(&["text/css"]) {
            Some(Self::CssWs)
        } else if listed(&["image/svg+xml"]) {
            Some(Self::SvgWs)
        } else if listed(&["application/json", "application/ld+json", "application/manifest+json"]) {
            Some(Self::JsonWs)
        } else {
            None
        }
    }

    /// True when what it changes may be guarded by an `integrity` attribute on some page.
    #[must_use]
    pub fn is_of_subresources(self) -> bool {
        matches!(self, Self::JsWs | Self::CssWs | Self::JsonWs)
    }

    /// True when source maps speak of the lines it moves.
    fn moves_lines(self) -> bool {
        matches!(self, Self::JsWs | Self::CssWs)
    }
}

/// True when `rules`, as they stand in an entity-tag, name optimisers: bodies that mean the same as their base.
#[must_use]
pub fn is_fingerprint(rules: u64) -> bool {
    let bits = rules >> 8;
    rules & 0xff == VERSION && bits != 0 && bits < 1 << Optimiser::ALL.len()
}

/// Whether a body of this type may name other files by a digest: pages, scripts, and data that loaders read.
#[must_use]
pub fn may_name_others(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|name| {
        let is_page = ["text/html", "application/xhtml+xml"].iter().any(|page| name.eq_ignore_ascii_case(page));
        let of_json = name.len().checked_sub("+json".len()).and_then(|at| name.get(at..));
        is_page
            || of_json.is_some_and(|end| end.eq_ignore_ascii_case("+json"))
            || matches!(Optimiser::of_type(name), Some(Optimiser::JsWs | Optimiser::JsonWs))
    })
}

/// Which optimisers a policy has switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Optimisers(u16);

impl Optimisers {
    /// `level = "safe"`: what is proven to mean the same.
    #[must_use]
    pub fn safe() -> Self {
        Optimiser::ALL.into_iter().fold(Self::default(), Self::with)
    }

    /// With one more.
    #[must_use]
    pub fn with(self, optimiser: Optimiser) -> Self {
        Self(self.0 | optimiser.bit())
    }

    /// Without one.
    #[must_use]
    pub fn without(self, optimiser: Optimiser) -> Self {
        Self(self.0 & !optimiser.bit())
    }

    /// Those that still may work where these fields are set on every response behind the store.
    #[must_use]
    pub fn under(self, set: &[(HeaderName, HeaderValue)]) -> Self {
        let headers = HeaderMap::from_iter(set.iter().cloned());
        let barred = |optimiser: &Optimiser| {
            forbids_transform(&headers)
                || optimiser.is_of_subresources() && is_checked_elsewhere(&headers)
                || optimiser.moves_lines() && has_source_map(&headers)
        };
        Optimiser::ALL.into_iter().filter(barred).fold(self, Self::without)
    }

    /// Whether it is on.
    #[must_use]
    pub fn contains(self, optimiser: Optimiser) -> bool {
        self.0 & optimiser.bit() != 0
    }

    /// True when some page's `integrity` attributes must be known before anything is changed.
    #[must_use]
    pub fn heed_integrity(self) -> bool {
        Optimiser::ALL.into_iter().any(|optimiser| optimiser.is_of_subresources() && self.contains(optimiser))
    }
}

/// All that a route wants made of its stored bodies. Compared on every hit, hence small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recipe {
    /// Optimisers that are on.
    pub optimisers: Optimisers,
    /// Codings are made again at their strongest level once a body is in demand.
    pub strong: bool,
}

impl Recipe {
    /// True when there is nothing to make.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// The recipe as 24 bits; 0 = nothing to make.
    #[must_use]
    pub fn number(self) -> u32 {
        u32::from(self.optimisers.0) << 1 | u32::from(self.strong)
    }
}

/// What became of the making for one coding of one base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// Nobody has asked yet.
    Unasked,
    /// It is waiting or being made.
    UnderWay,
    /// Nothing is better than what a hit has at hand.
    Nothing,
    /// A child with this level and these rules.
    Child {
        /// Of the encoder; 0 without a coding.
        level: u8,
        /// Fingerprint of the optimisers; 0 = the base's bytes.
        rules: u64,
    },
}

/// Hits from which a body counts as in demand. One that is asked for once or twice costs more to improve than it saves.
const DEMAND: u64 = 3;
/// Body bytes for which one more hit is asked: strong codings take seconds of processor time per megabyte.
const DEMAND_STEP: u64 = 64 * 1024;

/// Whether a base of so many bytes, found so often, is worth the work.
#[must_use]
pub fn is_in_demand(hits: u64, bytes: u64) -> bool {
    hits >= DEMAND.max(bytes / DEMAND_STEP)
}

/// Largest body, decoded, that is worked on. Larger ones are rarely text, and would hold the one thread for long.
pub const BODY_MAX: u64 = 4 * 1024 * 1024;

/// The strongest level of a coding that stays within the window a client must have (RFC 8878 §3.1.1.1.2, RFC 9659).
#[must_use]
pub fn strong_level(coding: Coding) -> u8 {
    match coding {
        Coding::Gzip => 9,
        Coding::Br => 11,
        Coding::Zstd => 19,
    }
}

/// Whether `smaller` gains enough on `larger` to be worth its place: 1 %, and 128 bytes.
#[must_use]
pub fn is_gain(larger: u64, smaller: u64) -> bool {
    larger.saturating_sub(smaller) >= (larger / 100).max(128)
}

/// What is known of a stored response.
#[derive(Debug, Clone, Copy)]
pub struct OptimiseFacts<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: &'a HeaderMap,
}

/// Why no optimiser works on a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotOptimised {
    /// No optimiser that is on is for this type.
    Type,
    /// Not a 200.
    Status,
    /// `Cache-Control: no-transform`.
    NoTransform,
    /// It has several codings, or one that cannot be read.
    Undecodable,
    /// Its charset is not one in which ASCII bytes mean ASCII and nothing else.
    Charset,
    /// Other sites may load it by CORS, and check it against an `integrity` that is on their pages.
    Cors,
    /// A field names a source map, which would lie about other lines.
    SourceMap,
}

impl NotOptimised {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Status => "status",
            Self::NoTransform => "no_transform",
            Self::Undecodable => "undecodable",
            Self::Charset => "charset",
            Self::Cors => "cors",
            Self::SourceMap => "source_map",
        }
    }
}

/// Which optimiser is to work on a stored response.
///
/// # Errors
/// Why none; with the optimiser that was kept from it, where there is one.
pub fn decide(facts: &OptimiseFacts<'_>, on: Optimisers) -> Result<Optimiser, (Option<Optimiser>, NotOptimised)> {
    let optimiser = media_type(facts.headers).and_then(Optimiser::of_type).filter(|optimiser| on.contains(*optimiser));
    let Some(optimiser) = optimiser else { return Err((None, NotOptimised::Type)) };
    judge(facts, optimiser).map_err(|reason| (Some(optimiser), reason))?;
    Ok(optimiser)
}

fn judge(facts: &OptimiseFacts<'_>, optimiser: Optimiser) -> Result<(), NotOptimised> {
    if facts.status != StatusCode::OK {
        return Err(NotOptimised::Status);
    }
    if forbids_transform(facts.headers) {
        return Err(NotOptimised::NoTransform);
    }
    let mut codings = content_codings(facts.headers);
    let readable = codings.next().is_none_or(|coding| Coding::from_token(coding).is_some());
    if !readable || codings.next().is_some() {
        return Err(NotOptimised::Undecodable);
    }
    // Bodies are checked to be UTF-8; a charset in which those bytes would say something else is turned away here.
    if !charset(facts.headers).is_none_or(is_ascii_compatible) {
        return Err(NotOptimised::Charset);
    }
    if optimiser.is_of_subresources() && is_checked_elsewhere(facts.headers) {
        return Err(NotOptimised::Cors);
    }
    if optimiser.moves_lines() && has_source_map(facts.headers) {
        return Err(NotOptimised::SourceMap);
    }
    Ok(())
}

fn is_checked_elsewhere(headers: &HeaderMap) -> bool {
    headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN)
}

/// ECMA-426 §12.
fn has_source_map(headers: &HeaderMap) -> bool {
    headers.contains_key("sourcemap") || headers.contains_key("x-sourcemap")
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE};

    use super::*;

    fn decided(
        status: u16,
        lines: &[(HeaderName, &str)],
        on: Optimisers,
    ) -> Result<Optimiser, (Option<Optimiser>, NotOptimised)> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value.parse().expect("a value"));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        decide(&OptimiseFacts { status, headers: &headers }, on)
    }

    #[test]
    fn the_type_says_which_and_the_head_whether() {
        let script = (CONTENT_TYPE, "text/javascript; charset=utf-8");
        let on = Optimisers::safe();
        for (status, lines, expected) in [
            (200, vec![script.clone()], Ok(Optimiser::JsWs)),
            (200, vec![(CONTENT_TYPE, "Text/CSS")], Ok(Optimiser::CssWs)),
            (200, vec![(CONTENT_TYPE, "application/ld+json")], Ok(Optimiser::JsonWs)),
            (200, vec![(CONTENT_TYPE, "image/svg+xml")], Ok(Optimiser::SvgWs)),
            (200, vec![(CONTENT_TYPE, "text/html")], Err((None, NotOptimised::Type))),
            (200, vec![(CONTENT_TYPE, "text/x-json")], Err((None, NotOptimised::Type))),
            (200, vec![], Err((None, NotOptimised::Type))),
            (404, vec![script.clone()], Err((Some(Optimiser::JsWs), NotOptimised::Status))),
            (
                200,
                vec![script.clone(), (CACHE_CONTROL, "max-age=9, no-transform")],
                Err((Some(Optimiser::JsWs), NotOptimised::NoTransform)),
            ),
            (200, vec![script.clone(), (CONTENT_ENCODING, "gzip")], Ok(Optimiser::JsWs)),
            (
                200,
                vec![script.clone(), (CONTENT_ENCODING, "gzip, br")],
                Err((Some(Optimiser::JsWs), NotOptimised::Undecodable)),
            ),
            (
                200,
                vec![script.clone(), (CONTENT_ENCODING, "own")],
                Err((Some(Optimiser::JsWs), NotOptimised::Undecodable)),
            ),
            (
                200,
                vec![(CONTENT_TYPE, "text/css; charset=Shift_JIS")],
                Err((Some(Optimiser::CssWs), NotOptimised::Charset)),
            ),
            (
                200,
                vec![script.clone(), (ACCESS_CONTROL_ALLOW_ORIGIN, "*")],
                Err((Some(Optimiser::JsWs), NotOptimised::Cors)),
            ),
            (
                200,
                vec![(CONTENT_TYPE, "application/json"), (ACCESS_CONTROL_ALLOW_ORIGIN, "*")],
                Err((Some(Optimiser::JsonWs), NotOptimised::Cors)),
            ),
            (200, vec![(CONTENT_TYPE, "application/geo+json")], Err((None, NotOptimised::Type))),
            (200, vec![script, (SOURCE_MAP, "a.map")], Err((Some(Optimiser::JsWs), NotOptimised::SourceMap))),
            (200, vec![(CONTENT_TYPE, "application/json"), (SOURCE_MAP, "a.map")], Ok(Optimiser::JsonWs)),
        ] {
            assert_eq!(decided(status, &lines, on), expected, "{status} {lines:?}");
        }
        let without = on.without(Optimiser::CssWs);
        assert_eq!(decided(200, &[(CONTENT_TYPE, "text/css")], without), Err((None, NotOptimised::Type)));
    }

    const SOURCE_MAP: HeaderName = HeaderName::from_static("sourcemap");

    #[test]
    fn what_a_route_sets_bars_optimisers() {
        let on = Optimisers::safe();
        let svg = Optimisers::default().with(Optimiser::SvgWs);
        for (name, value, left) in [
            (CACHE_CONTROL, "max-age=9", on),
            (CACHE_CONTROL, "max-age=9, no-transform", Optimisers::default()),
            (ACCESS_CONTROL_ALLOW_ORIGIN, "*", svg),
            (SOURCE_MAP, "a.map", svg.with(Optimiser::JsonWs)),
        ] {
            assert_eq!(on.under(&[(name.clone(), HeaderValue::from_static(value))]), left, "{name}: {value}");
        }
    }

    #[test]
    fn pages_and_data_may_name_files() {
        for (name, expected) in [
            ("text/html", true),
            ("text/javascript", true),
            ("application/json", true),
            ("application/importmap+json", true),
            ("text/css", false),
            ("+jso", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(name))]);
            assert_eq!(may_name_others(&headers), expected, "{name}");
        }
    }

    #[test]
    fn fingerprints_are_told_from_rules() {
        for optimiser in Optimiser::ALL {
            assert!(is_fingerprint(optimiser.fingerprint()), "{optimiser:?}");
            assert_eq!(Optimiser::from_token(optimiser.token()), Some(optimiser));
        }
        for rules in [0, 1, VERSION, 0x100, 0x9e37_79b9_7f4a_7c15, 1 << 20 | VERSION] {
            assert!(!is_fingerprint(rules), "{rules:x}");
        }
    }

    #[test]
    fn demand_grows_with_size_and_a_gain_must_show() {
        assert!(!is_in_demand(2, 10) && is_in_demand(3, 10));
        assert!(!is_in_demand(15, 1024 * 1024) && is_in_demand(16, 1024 * 1024));
        assert!(is_gain(1000, 872) && !is_gain(1000, 873));
        assert!(is_gain(100_000, 99_000) && !is_gain(100_000, 99_001) && !is_gain(10, 20));
    }
}
