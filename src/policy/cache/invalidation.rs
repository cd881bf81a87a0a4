//! What an unsafe request makes untrue in the cache (RFC 9111 §4.4): its target, and what `Location` and
//! `Content-Location` of the answer name on the same origin.

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, Method, StatusCode};

/// The target of the request, as its key sees it.
#[derive(Debug, Clone, Copy)]
pub struct TargetFacts<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host, with the port where it is not the scheme's own; lower case.
    pub host: &'a str,
    /// Normalised, client-facing.
    pub path: &'a str,
}

/// True when an answer with this status to this method invalidates the target: an unsafe method (an unknown one counts as
/// such) and no error. Cost: none.
#[must_use]
pub fn applies(method: &Method, status: StatusCode) -> bool {
    !is_safe(method) && (status.is_success() || status.is_redirection())
}

/// True for methods that ask and change nothing (RFC 9110 §9.2.1).
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
        || matches!(method.as_str(), "QUERY" | "PROPFIND" | "REPORT" | "SEARCH")
}

/// Path and query, not yet normalised, of what the answer names besides the target. Names on another origin are left out:
/// an origin must not empty its neighbour's cache.
pub fn also(target: &TargetFacts<'_>, response: &HeaderMap) -> impl Iterator<Item = String> {
    [LOCATION, CONTENT_LOCATION]
        .into_iter()
        .filter_map(|name| response.get(name)?.to_str().ok())
        .filter_map(|reference| resolve(target, reference.trim()))
}

/// RFC 3986 §5.2 as far as it is needed: dot segments are the business of the normalisation that follows.
fn resolve(target: &TargetFacts<'_>, reference: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default();
    let same_scheme = reference
        .split_once(':')
        .filter(|(scheme, rest)| scheme.eq_ignore_ascii_case(target.scheme) && rest.starts_with("//"));
    let reference = same_scheme.map_or(reference, |(_, rest)| rest);
    if let Some(rest) = reference.strip_prefix("//") {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end)?;
        return same_host(target, authority)
            .then(|| if path.starts_with('/') { path.into() } else { format!("/{path}") });
    }
    if reference.starts_with('/') {
        return Some(reference.to_owned());
    }
    // A colon before the first slash: another scheme.
    let first_segment = reference.split(['/', '?']).next().unwrap_or_default();
    if reference.is_empty() || first_segment.contains(':') {
        return None;
    }
    if reference.starts_with('?') {
        return Some(format!("{}{reference}", target.path));
    }
    let directory = target.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    Some(format!("{directory}/{reference}"))
}

fn same_host(target: &TargetFacts<'_>, authority: &str) -> bool {
    let default_port = if target.scheme == "https" { ":443" } else { ":80" };
    let bare = |host: &str| host.strip_suffix(default_port).unwrap_or(host).to_ascii_lowercase();
    bare(authority) == bare(target.host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::policy::cache::tests::headers;

    #[test]
    fn which_answers_invalidate() {
        for (method, status, expected) in [
            ("POST", 200, true),
            ("POST", 303, true),
            ("PUT", 204, true),
            ("DELETE", 404, false),
            ("DELETE", 500, false),
            ("FROBNICATE", 200, true),
            ("GET", 200, false),
            ("QUERY", 200, false),
        ] {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            assert_eq!(
                applies(&method, StatusCode::from_u16(status).expect("a status")),
                expected,
                "{method} {status}"
            );
        }
    }

    #[test]
    fn named_resources() {
        let target = TargetFacts { scheme: "https", host: "shop.example", path: "/a/b" };
        for (reference, expected) in [
            ("/x?y=1", Some("/x?y=1")),
            ("https://shop.example/x", Some("/x")),
            ("HTTPS://Shop.Example:443/x#f", Some("/x")),
            ("https://shop.example", Some("/")),
            ("https://shop.example?q", Some("/?q")),
            ("//shop.example/x", Some("/x")),
            ("c", Some("/a/c")),
            ("../c", Some("/a/../c")),
            ("?q=2", Some("/a/b?q=2")),
            ("http://shop.example/x", None),
            ("https://shop.example:8443/x", None),
            ("https://other.example/x", None),
            ("https://shop.example@other.example/x", None),
            ("//other.example/x", None),
            ("mailto:x", None),
            ("", None),
        ] {
            let response = headers(&[("location", reference)], Clock::System.now());
            assert_eq!(also(&target, &response).next().as_deref(), expected, "{reference}");
        }
    }
}
