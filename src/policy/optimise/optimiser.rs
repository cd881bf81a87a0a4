//! The optimisers: their names, what each is for, and how tags name them.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::decision::{has_source_map, is_checked_elsewhere};
use crate::policy::encoding::{forbids_transform, media_type};

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
    pub const fn token(self) -> &'static str {
        match self {
            Self::JsWs => "js-ws",
            Self::CssWs => "css-ws",
            Self::JsonWs => "json-ws",
            Self::SvgWs => "svg-ws",
        }
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
    pub(super) fn of_type(media_type: &str) -> Option<Self> {
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
    pub(super) fn moves_lines(self) -> bool {
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
pub struct Optimisers(pub(super) u16);

impl Optimisers {
    /// All of them.
    #[must_use]
    pub fn all() -> Self {
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

#[cfg(test)]
mod tests {
    use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE};

    use super::*;

    #[test]
    fn what_a_route_sets_bars_optimisers() {
        let on = Optimisers::all();
        let svg = Optimisers::default().with(Optimiser::SvgWs);
        for (name, value, left) in [
            (CACHE_CONTROL, "max-age=9", on),
            (CACHE_CONTROL, "max-age=9, no-transform", Optimisers::default()),
            (ACCESS_CONTROL_ALLOW_ORIGIN, "*", svg),
            (HeaderName::from_static("sourcemap"), "a.map", svg.with(Optimiser::JsonWs)),
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
        }
        for rules in [0, 1, VERSION, 0x100, 0x9e37_79b9_7f4a_7c15, 1 << 20 | VERSION] {
            assert!(!is_fingerprint(rules), "{rules:x}");
        }
    }
}
