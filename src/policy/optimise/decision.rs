//! Which optimiser works on a stored response, or why none does.

use http::header::ACCESS_CONTROL_ALLOW_ORIGIN;
use http::{HeaderMap, StatusCode};

use super::optimiser::{Optimiser, Optimisers};
use crate::policy::encoding::{Coding, content_codings, forbids_transform, media_type};
use crate::policy::rewrite::{charset, is_ascii_compatible};

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

pub(super) fn is_checked_elsewhere(headers: &HeaderMap) -> bool {
    headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN)
}

/// ECMA-426 §12.
pub(super) fn has_source_map(headers: &HeaderMap) -> bool {
    headers.contains_key("sourcemap") || headers.contains_key("x-sourcemap")
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE};

    use super::*;

    const SOURCE_MAP: HeaderName = HeaderName::from_static("sourcemap");

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
        let on = Optimisers::all();
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
}
