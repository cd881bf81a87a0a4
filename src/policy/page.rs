//! Filters that change a page while it streams: which of them are on, and what they go by. What they do to which element is in
//! `transform::html`.

use super::hash::Fnv;

/// The filters of a policy that change pages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PageFilters {
    /// `lazy`
    pub lazy: Option<LazyParams>,
    /// `third-party-defer`
    pub defer: Option<DeferParams>,
}

/// `lazy`: pictures and frames that are far down are loaded when they come near the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LazyParams {
    /// Pictures and frames that are left as they are, from the top.
    pub first: u64,
    /// Bytes of the page within which they are left as they are.
    pub bytes: u64,
}

/// `third-party-defer`: scripts of these hosts run when the page has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeferParams {
    /// Names, or `*.NAME` for all below one.
    pub hosts: Vec<String>,
}

impl PageFilters {
    /// True when none is on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what changes the bytes of a page to a fingerprint.
    pub(super) fn hash(&self, hash: &mut Fnv) {
        if let Some(lazy) = &self.lazy {
            [LAZY, lazy.first, lazy.bytes].into_iter().for_each(|number| hash.number(number));
        }
        if let Some(defer) = &self.defer {
            hash.number(DEFER);
            defer.hosts.iter().for_each(|host| hash.text(host));
        }
    }
}

/// What stands in a fingerprint before the parameters of a filter.
const LAZY: u64 = 200;
const DEFER: u64 = 201;

impl DeferParams {
    /// Whether a script with this `src` is one of a listed host.
    #[must_use]
    pub fn lists(&self, src: &str) -> bool {
        let src = src.trim_ascii();
        let behind = match src.split_once("//") {
            Some(("", behind)) => behind,
            Some((scheme, behind)) if ["http:", "https:"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
                behind
            }
            _ => return false,
        };
        let authority = behind.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        let host = authority.rsplit_once(':').map_or(authority, |(host, _port)| host);
        self.hosts.iter().any(|listed| match listed.strip_prefix('*') {
            Some(below) => host.len() > below.len() && ends_with(host, below),
            None => host.eq_ignore_ascii_case(listed),
        })
    }
}

fn ends_with(host: &str, end: &str) -> bool {
    host.len().checked_sub(end.len()).and_then(|at| host.get(at..)).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_hosts_are_listed() {
        let params = DeferParams { hosts: vec!["tags.example".into(), "*.cdn.example".into()] };
        for (src, expected) in [
            ("https://tags.example/a.js", true),
            (" //TAGS.example:8443/a.js", true),
            ("http://a.b.cdn.example?x", true),
            ("https://cdn.example/a.js", false),
            ("https://xtags.example/a.js", false),
            ("https://tags.example.evil/a.js", false),
            ("/tags.example/a.js", false),
            ("/a?b=//tags.example/", false),
            ("data://tags.example/", false),
            ("", false),
        ] {
            assert_eq!(params.lists(src), expected, "{src}");
        }
    }
}
