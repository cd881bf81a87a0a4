//! Which route an exchange takes, and what the route makes of its target.
//!
//! Which route wins does not depend on file order where anything else tells two apart. In this order:
//!
//! 1. an exact host, then a wildcard (longest first), then no `host`;
//! 2. an exact path, then the longest prefix, then regular expressions in file order, then no `path`. The prefix `/`
//!    constrains nothing and ranks with no path, or it would hide every regular expression;
//! 3. the most conditions: each `when` counts one, so do a `methods` and a `listener` list;
//! 4. file order.
//!
//! A route wins only if all of it matches: when none of an exact host's routes does, the wildcards' are asked, and so on.
//! [`RouteTable::find`] and [`RouteTable::explain`] share every comparison, so `tidegate route` cannot disagree with the
//! live path.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;

use http::header::COOKIE;
use http::{HeaderMap, Method};
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use regex::Regex;

use super::fields::FieldEdits;
use super::uri::{NormalUri, UriFault};

/// What a `[[route]]` matches on; empty lists match everything.
#[derive(Debug, Clone, Default)]
pub struct RouteMatch {
    /// `name`, or `route N` by position in the files.
    pub name: String,
    /// Names of the listeners it belongs to; `None` = all that are not redirecting.
    pub listeners: Option<Vec<String>>,
    /// `host`: any of these; empty = any host.
    pub hosts: Vec<HostPattern>,
    /// `path`.
    pub path: PathPattern,
    /// `methods`; empty = all. GET also admits HEAD only when HEAD is listed.
    pub methods: Vec<Method>,
    /// `when`: all must hold.
    pub when: Vec<Condition>,
}

/// One entry of `host`; lower case, no port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// `shop.example`
    Exact(String),
    /// `*.shop.example`, kept as `.shop.example`; matches one or more labels in front.
    Wildcard(String),
}

/// `path`.
#[derive(Debug, Clone, Default)]
pub enum PathPattern {
    /// No `path` key.
    #[default]
    Any,
    /// `= /x`
    Exact(String),
    /// `/static/`, kept without the trailing slash: matches `/static` and `/static/x`, not `/staticx`.
    Prefix(String),
    /// `~ ^/x`
    Regex(Regex),
}

/// One entry of `when`.
#[derive(Debug, Clone)]
pub enum Condition {
    /// `{ header = "X-Beta", … }`
    Header(http::HeaderName, Test),
    /// `{ query = "v", … }`
    Query(String, Test),
    /// `{ cookie = "ab", … }`
    Cookie(String, Test),
    /// `{ client = ["10.0.0.0/8"] }`
    Client(Vec<IpNet>),
}

/// What is asked of a header, query parameter or cookie.
#[derive(Debug, Clone)]
pub enum Test {
    /// `present = true | false`
    Present(bool),
    /// `equals = "…"`
    Equals(String),
    /// `matches = "…"`
    Matches(Regex),
}

/// `request` of a route, applied in this order: strip, rewrite, add, then fields.
#[derive(Debug, Clone, Default)]
pub struct RequestEdits {
    /// `strip_prefix`: without a trailing slash, like [`PathPattern::Prefix`].
    pub strip_prefix: Option<String>,
    /// `rewrite`: pattern and replacement (`$1`) on the path.
    pub rewrite: Option<(Regex, String)>,
    /// `add_prefix`: without a trailing slash.
    pub add_prefix: Option<String>,
    /// `set` and `remove`
    pub fields: FieldEdits,
}

/// What routing sees of a request.
#[derive(Debug, Clone, Copy)]
pub struct RouteFacts<'a> {
    /// Name of the listener it came by.
    pub listener: &'a str,
    /// The listener has `redirect_to_https`: only routes that name it apply.
    pub listener_redirects: bool,
    /// Host without port, lower case.
    pub host: &'a str,
    /// Normalised path.
    pub path: &'a str,
    /// Normalised query.
    pub query: Option<&'a str>,
    /// The method.
    pub method: &'a Method,
    /// All request fields.
    pub headers: &'a HeaderMap,
    /// The client's address, as far as it can be trusted.
    pub client: IpAddr,
}

/// What became of one route, for `tidegate route URL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// This route is taken.
    Won,
    /// It matches, but the route at index `winner` is the more specific one.
    Outranked {
        /// Index of the route that is taken.
        winner: usize,
        /// What told them apart.
        by: Criterion,
    },
    /// It does not belong to this listener.
    OtherListener,
    /// None of its hosts matches.
    OtherHost,
    /// Its path does not match.
    OtherPath,
    /// Its methods do not hold the request's.
    OtherMethod,
    /// The condition at this index of `when` does not hold.
    ConditionFails(usize),
}

/// What tells two matching routes apart, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the module's list says what each one means")]
pub enum Criterion {
    Host,
    Path,
    Conditions,
    FileOrder,
}

impl Verdict {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Outranked { by: Criterion::Host, .. } => "outranked_by_host",
            Self::Outranked { by: Criterion::Path, .. } => "outranked_by_path",
            Self::Outranked { by: Criterion::Conditions, .. } => "outranked_by_conditions",
            Self::Outranked { by: Criterion::FileOrder, .. } => "outranked_by_file_order",
            Self::OtherListener => "other_listener",
            Self::OtherHost => "other_host",
            Self::OtherPath => "other_path",
            Self::OtherMethod => "other_method",
            Self::ConditionFails(_) => "condition_fails",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Won => f.write_str("matches, and nothing more specific does"),
            Self::Outranked { by, .. } => f.write_str(match by {
                Criterion::Host => "matches, but the winner's host is more specific",
                Criterion::Path => "matches, but the winner's path is more specific",
                Criterion::Conditions => "matches, but the winner has more conditions",
                Criterion::FileOrder => "matches as well as the winner, which comes first in the files",
            }),
            Self::OtherListener => f.write_str("is not for this listener"),
            Self::OtherHost => f.write_str("is for other hosts"),
            Self::OtherPath => f.write_str("is for other paths"),
            Self::OtherMethod => f.write_str("is for other methods"),
            Self::ConditionFails(index) => write!(f, "its condition {} (`when`) does not hold", index + 1),
        }
    }
}

/// All routes, arranged for finding.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<RouteMatch>,
    /// Indices into `routes`, the most specific first, for each host pattern.
    exact: HashMap<String, Vec<usize>>,
    /// Keyed with the leading dot.
    wildcard: HashMap<String, Vec<usize>>,
    hostless: Vec<usize>,
}

impl RouteTable {
    /// Arranges `routes`, which are in file order; [`RouteTable::find`] answers with an index into this list.
    #[must_use]
    pub fn build(routes: Vec<RouteMatch>) -> Self {
        let mut order: Vec<usize> = (0..routes.len()).collect();
        order.sort_by_key(|&index| routes.get(index).map(|route| (path_rank(route, index), condition_rank(route))));
        let mut table = Self::default();
        for index in order {
            let Some(route) = routes.get(index) else { continue };
            if route.hosts.is_empty() {
                table.hostless.push(index);
            }
            for host in &route.hosts {
                let list = match host {
                    HostPattern::Exact(host) => table.exact.entry(host.clone()),
                    HostPattern::Wildcard(suffix) => table.wildcard.entry(suffix.clone()),
                };
                list.or_default().push(index);
            }
        }
        Self { routes, ..table }
    }

    /// The index of the route that wins; `None` = 404.
    ///
    /// Cost: a hash look-up per label of the host, then a comparison per candidate; no allocation.
    #[must_use]
    pub fn find(&self, facts: &RouteFacts<'_>) -> Option<usize> {
        let labels = if self.wildcard.is_empty() { "" } else { facts.host };
        let dots = labels.bytes().enumerate().filter(|(_, byte)| *byte == b'.');
        let wildcards = dots.filter_map(|(dot, _)| self.wildcard.get(labels.get(dot..)?));
        self.exact
            .get(facts.host)
            .into_iter()
            .chain(wildcards)
            .chain(std::iter::once(&self.hostless))
            .flatten()
            .copied()
            .find(|&index| self.routes.get(index).is_some_and(|route| matches_behind_host(route, facts).is_ok()))
    }

    /// What became of each route, in file order.
    #[must_use]
    pub fn explain(&self, facts: &RouteFacts<'_>) -> Vec<(usize, Verdict)> {
        let winner = self.find(facts).and_then(|index| Some((index, self.routes.get(index)?)));
        let verdict = |index: usize, route: &RouteMatch| {
            if host_rank(route, facts.host).is_none() {
                return Verdict::OtherHost;
            }
            match (matches_behind_host(route, facts), winner) {
                (Err(verdict), _) => verdict,
                (Ok(()), Some((winner, best))) if winner != index => {
                    Verdict::Outranked { winner, by: criterion((winner, best), (index, route), facts.host) }
                }
                (Ok(()), _) => Verdict::Won,
            }
        };
        self.routes.iter().enumerate().map(|(index, route)| (index, verdict(index, route))).collect()
    }
}

type HostRank = (u8, Reverse<usize>);
type PathRank = (u8, Reverse<usize>, usize);

/// Smaller is more specific; `None` = no host of the route matches.
fn host_rank(route: &RouteMatch, host: &str) -> Option<HostRank> {
    if route.hosts.is_empty() {
        return Some((2, Reverse(0)));
    }
    let rank = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(exact) => (exact == host).then_some((0, Reverse(0))),
        HostPattern::Wildcard(suffix) => {
            (host.len() > suffix.len() && host.ends_with(suffix.as_str())).then_some((1, Reverse(suffix.len())))
        }
    };
    route.hosts.iter().filter_map(rank).min()
}

/// Smaller is more specific. Only regular expressions are told apart by their place in the files already here.
fn path_rank(route: &RouteMatch, index: usize) -> PathRank {
    match &route.path {
        PathPattern::Exact(_) => (0, Reverse(0), 0),
        PathPattern::Prefix(prefix) if !prefix.is_empty() => (1, Reverse(prefix.len()), 0),
        PathPattern::Regex(_) => (2, Reverse(0), index),
        PathPattern::Prefix(_) | PathPattern::Any => (3, Reverse(0), 0),
    }
}

fn condition_rank(route: &RouteMatch) -> Reverse<usize> {
    Reverse(route.when.len() + usize::from(!route.methods.is_empty()) + usize::from(route.listeners.is_some()))
}

fn criterion(winner: (usize, &RouteMatch), other: (usize, &RouteMatch), host: &str) -> Criterion {
    if host_rank(winner.1, host) != host_rank(other.1, host) {
        Criterion::Host
    } else if path_rank(winner.1, winner.0) != path_rank(other.1, other.0) {
        Criterion::Path
    } else if condition_rank(winner.1) != condition_rank(other.1) {
        Criterion::Conditions
    } else {
        Criterion::FileOrder
    }
}

/// Whether everything but the host matches.
fn matches_behind_host(route: &RouteMatch, facts: &RouteFacts<'_>) -> Result<(), Verdict> {
    let listens = match &route.listeners {
        Some(names) => names.iter().any(|name| name == facts.listener),
        None => !facts.listener_redirects,
    };
    if !listens {
        return Err(Verdict::OtherListener);
    }
    if !route.path.matches(facts.path) {
        return Err(Verdict::OtherPath);
    }
    if !route.methods.is_empty() && !route.methods.contains(facts.method) {
        return Err(Verdict::OtherMethod);
    }
    match route.when.iter().position(|condition| !condition.holds(facts)) {
        Some(index) => Err(Verdict::ConditionFails(index)),
        None => Ok(()),
    }
}

impl PathPattern {
    /// Whether a normalised path matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => behind_prefix(path, prefix).is_some(),
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

/// What follows `prefix` in `path`: empty, or beginning with `/`. `None` where the prefix does not end on a segment.
///
/// `prefix` is without its trailing slash, so `/static` has `/static` and `/static/x` but not `/staticx`.
#[must_use]
pub fn behind_prefix<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Condition {
    fn holds(&self, facts: &RouteFacts<'_>) -> bool {
        match self {
            Self::Header(name, test) => test.holds(facts.headers.get_all(name).iter().map(|value| value.as_bytes())),
            Self::Query(name, test) => test.holds_for_query(facts.query.unwrap_or_default(), name),
            Self::Cookie(name, test) => test.holds(cookies(facts.headers, name)),
            Self::Client(networks) => {
                let client = facts.client.to_canonical();
                networks.iter().any(|network| network.contains(&client))
            }
        }
    }
}

impl Test {
    /// Whether one of `values` passes; `present = false` passes when there is none.
    fn holds<'a>(&self, mut values: impl Iterator<Item = &'a [u8]>) -> bool {
        match self {
            Self::Present(present) => values.next().is_some() == *present,
            Self::Equals(wanted) => values.any(|value| value == wanted.as_bytes()),
            Self::Matches(regex) => {
                values.any(|value| std::str::from_utf8(value).is_ok_and(|text| regex.is_match(text)))
            }
        }
    }

    /// The same for the parameters called `name`. Names and values are percent-decoded; `+` stays `+`.
    fn holds_for_query(&self, query: &str, name: &str) -> bool {
        let mut values = query
            .split('&')
            .filter(|parameter| !parameter.is_empty())
            .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
            .filter(|(key, _)| percent_decode_str(key).eq(name.bytes()))
            .map(|(_, value)| percent_decode_str(value));
        match self {
            Self::Present(present) => values.next().is_some() == *present,
            Self::Equals(wanted) => values.any(|value| value.eq(wanted.bytes())),
            Self::Matches(regex) => values.any(|value| value.decode_utf8().is_ok_and(|text| regex.is_match(&text))),
        }
    }
}

/// The values of the cookies called `name` (RFC 6265 §4.2.1), over all Cookie fields.
fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b';')).filter_map(
        move |pair| {
            let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
            value.strip_prefix(b"=")
        },
    )
}

impl RequestEdits {
    /// The target as the origin shall see it. `*` stays.
    ///
    /// Cost: none without path edits.
    ///
    /// # Errors
    /// A [`UriFault`] when the edits make something that is no path, such as a rewrite that drops the leading slash.
    pub fn apply(&self, uri: &NormalUri) -> Result<NormalUri, UriFault> {
        let unedited = self.strip_prefix.is_none() && self.rewrite.is_none() && self.add_prefix.is_none();
        if unedited || uri.path() == "*" {
            return Ok(uri.clone());
        }
        let mut path = uri.path();
        if let Some(prefix) = &self.strip_prefix {
            path = match behind_prefix(path, prefix) {
                Some("") => "/",
                Some(rest) => rest,
                None => path,
            };
        }
        let rewritten = self.rewrite.as_ref().map(|(from, to)| from.replace(path, to.as_str()));
        let path = rewritten.as_deref().unwrap_or(path);
        match &self.add_prefix {
            Some(prefix) => uri.with_path(&format!("{prefix}{path}")),
            None => uri.with_path(path),
        }
    }
}

/// A redirect's `to` with `$uri` (path and query), `$path`, `$query` (without `?`), `$host` (without port) and `$scheme`
/// filled in;
/// other `$` are text.
///
/// Safe as a field value: a [`NormalUri`] is printable ASCII and begins with exactly one slash, so that a bare `$uri`
/// never becomes another site's `//host`.
#[must_use]
pub fn expand_redirect(to: &str, scheme: &str, host: &str, uri: &NormalUri) -> String {
    let mut out = String::with_capacity(to.len() + uri.as_str().len());
    let mut pieces = to.split('$');
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let end = piece.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(piece.len());
        let (name, rest) = piece.split_at(end);
        match name {
            "uri" => out.push_str(uri.as_str()),
            "path" => out.push_str(uri.path()),
            "query" => out.push_str(uri.query().unwrap_or_default()),
            "host" => out.push_str(host),
            "scheme" => out.push_str(scheme),
            _ => {
                out.push('$');
                out.push_str(name);
            }
        }
        out.push_str(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderName;

    use super::*;
    use crate::policy::uri::normalise;

    /// `listener METHOD host/path?query`, then `Name: value` lines.
    struct Asked {
        listener: String,
        method: Method,
        host: String,
        uri: NormalUri,
        headers: HeaderMap,
    }

    fn ask(request: &str) -> Asked {
        let mut lines = request.lines();
        let words: Vec<_> = lines.next().expect("a request line").split(' ').collect();
        let (host, target) = words[2].split_at(words[2].find('/').expect("a path"));
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").expect("a field");
            headers.append(name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
        }
        Asked {
            listener: words[0].into(),
            method: words[1].parse().expect("a method"),
            host: host.into(),
            uri: normalise(&Bytes::copy_from_slice(target.as_bytes())).expect("a target"),
            headers,
        }
    }

    impl Asked {
        fn facts(&self) -> RouteFacts<'_> {
            RouteFacts {
                listener: &self.listener,
                listener_redirects: self.listener == "http",
                host: &self.host,
                path: self.uri.path(),
                query: self.uri.query(),
                method: &self.method,
                headers: &self.headers,
                client: "::ffff:10.1.2.3".parse().expect("an address"),
            }
        }
    }

    /// A route on `host` (`*.x` = wildcard, empty = none) and `path` as an operator writes it (empty = none).
    fn on(host: &str, path: &str) -> RouteMatch {
        let hosts = match host.strip_prefix('*') {
            _ if host.is_empty() => Vec::new(),
            Some(suffix) => vec![HostPattern::Wildcard(suffix.into())],
            None => vec![HostPattern::Exact(host.into())],
        };
        let path = match path.split_once(' ') {
            _ if path.is_empty() => PathPattern::Any,
            Some(("=", exact)) => PathPattern::Exact(exact.into()),
            Some((_, regex)) => PathPattern::Regex(Regex::new(regex).expect("a pattern")),
            None => PathPattern::Prefix(path.trim_end_matches('/').into()),
        };
        RouteMatch { hosts, path, ..RouteMatch::default() }
    }

    fn when(condition: Condition) -> RouteMatch {
        RouteMatch { when: vec![condition], ..RouteMatch::default() }
    }

    #[track_caller]
    fn check(routes: &[RouteMatch], request: &str, expected: Option<usize>) {
        let table = RouteTable::build(routes.to_vec());
        let asked = ask(request);
        assert_eq!(table.find(&asked.facts()), expected, "{request}");
        let won: Vec<_> =
            table.explain(&asked.facts()).into_iter().filter(|(_, verdict)| *verdict == Verdict::Won).collect();
        assert_eq!(won.first().map(|(index, _)| *index), expected, "explain agrees about {request}");
        assert!(won.len() <= 1);
    }

    #[test]
    fn hosts_outrank_paths_and_paths_outrank_conditions() {
        let routes = [
            on("", "= /a"),
            on("*.example", "= /a"),
            on("*.shop.example", "/"),
            on("shop.example", "/static/"),
            on("shop.example", "/static/js/"),
            on("shop.example", "= /static/js/app"),
            on("shop.example", "~ ^/s"),
            on("shop.example", "~ ^/st"),
            on("shop.example", ""),
        ];
        for (request, expected) in [
            ("https GET shop.example/static/js/app", Some(5)),
            ("https GET shop.example/static/js/app2", Some(4)),
            ("https GET shop.example/static/js", Some(4)),
            ("https GET shop.example/static", Some(3)),
            ("https GET shop.example/static/jsx", Some(3)),
            ("https GET shop.example/staticx", Some(6)),
            ("https GET shop.example/a", Some(8)),
            ("https GET www.shop.example/a", Some(2)),
            ("https GET a.b.shop.example/x", Some(2)),
            ("https GET www.example/a", Some(1)),
            ("https GET www.example/b", None),
            ("https GET other.test/a", Some(0)),
            ("https GET notshop.example/b", None),
        ] {
            check(&routes, request, expected);
            let mut reversed = routes.to_vec();
            reversed.reverse();
            // File order tells apart only the two regular expressions.
            if expected != Some(6) {
                check(&reversed, request, expected.map(|index| routes.len() - 1 - index));
            }
        }
    }

    #[test]
    fn a_prefix_of_everything_does_not_hide_regular_expressions() {
        check(&[on("", "/"), on("", "~ \\.php$")], "https GET h/x.php", Some(1));
    }

    #[test]
    fn a_specific_host_whose_routes_fail_leaves_the_request_to_others() {
        let routes = [on("shop.example", "/only"), on("*.example", "/other"), on("", "")];
        check(&routes, "https GET shop.example/other", Some(1));
        check(&routes, "https GET shop.example/else", Some(2));
    }

    #[test]
    fn more_conditions_win_and_then_file_order() {
        let beta = Condition::Header(HeaderName::from_static("x-beta"), Test::Equals("1".into()));
        let routes = [
            on("", "/a"),
            on("", "/a"),
            RouteMatch { when: vec![beta.clone()], ..on("", "/a") },
            RouteMatch { when: vec![beta], methods: vec![Method::POST], ..on("", "/a") },
            RouteMatch { listeners: Some(vec!["inner".into()]), ..on("", "/a") },
        ];
        check(&routes, "https GET h/a", Some(0));
        check(&routes, "https GET h/a\nX-Beta: 1", Some(2));
        check(&routes, "https POST h/a\nX-Beta: 1", Some(3));
        check(&routes, "inner GET h/a", Some(4));
    }

    #[test]
    fn listeners_and_methods_admit_only_what_they_list() {
        let open = on("", "");
        let named = RouteMatch { listeners: Some(vec!["http".into()]), ..on("", "") };
        let get = RouteMatch { methods: vec![Method::GET], ..on("", "") };
        check(std::slice::from_ref(&open), "http GET h/", None);
        check(std::slice::from_ref(&open), "https GET h/", Some(0));
        check(std::slice::from_ref(&named), "http GET h/", Some(0));
        check(std::slice::from_ref(&named), "https GET h/", None);
        check(std::slice::from_ref(&get), "https GET h/", Some(0));
        check(std::slice::from_ref(&get), "https HEAD h/", None);
    }

    #[test]
    fn conditions() {
        let regex = |pattern: &str| Test::Matches(Regex::new(pattern).expect("a pattern"));
        let header = |test| Condition::Header(HeaderName::from_static("x-a"), test);
        let query = |test| Condition::Query("v".into(), test);
        let cookie = |test| Condition::Cookie("ab".into(), test);
        let client = |network: &str| Condition::Client(vec![network.parse().expect("a network")]);
        for (condition, request, holds) in [
            (header(Test::Present(true)), "l GET h/", false),
            (header(Test::Present(false)), "l GET h/", true),
            (header(Test::Present(true)), "l GET h/\nX-A: ", true),
            (header(Test::Equals("b".into())), "l GET h/\nX-A: a\nX-A: b", true),
            (header(Test::Equals("b".into())), "l GET h/\nX-A: B", false),
            (header(regex("^b+$")), "l GET h/\nX-A: bbb", true),
            (query(Test::Present(true)), "l GET h/?w=1&v", true),
            (query(Test::Present(true)), "l GET h/?w=v", false),
            (query(Test::Present(false)), "l GET h/", true),
            (query(Test::Equals("".into())), "l GET h/?v=", true),
            (query(Test::Equals("a b".into())), "l GET h/?v=a%20b", true),
            (query(Test::Equals("2".into())), "l GET h/?v=1&v=2", true),
            (query(regex("^a/b$")), "l GET h/?v=a%2Fb", true),
            (cookie(Test::Equals("2".into())), "l GET h/\nCookie: x=1; ab=2", true),
            (cookie(Test::Equals("2".into())), "l GET h/\nCookie: x=1\nCookie: ab=2", true),
            (cookie(Test::Present(true)), "l GET h/\nCookie: abc=2; xab=1", false),
            (client("10.0.0.0/8"), "l GET h/", true),
            (client("192.168.0.0/16"), "l GET h/", false),
        ] {
            check(&[when(condition)], request, holds.then_some(0));
        }
    }

    #[test]
    fn explain_says_why() {
        let routes = [
            on("h", ""),
            on("h", "/a"),
            on("", "/a"),
            on("h", "/a"),
            RouteMatch { listeners: Some(vec!["inner".into()]), ..on("h", "") },
            on("other", ""),
            on("h", "/b"),
            RouteMatch { methods: vec![Method::POST], ..on("h", "/a") },
            RouteMatch { path: on("", "/a").path, ..when(Condition::Query("q".into(), Test::Present(true))) },
            RouteMatch { methods: vec![Method::GET], ..on("h", "/a") },
        ];
        let asked = ask("https GET h/a");
        let tokens: Vec<_> = RouteTable::build(routes.to_vec())
            .explain(&asked.facts())
            .into_iter()
            .map(|(_, verdict)| verdict.token())
            .collect();
        assert_eq!(
            tokens,
            [
                "outranked_by_path",
                "outranked_by_conditions",
                "outranked_by_host",
                "outranked_by_conditions",
                "other_listener",
                "other_host",
                "other_path",
                "other_method",
                "condition_fails",
                "won",
            ]
        );
        let two = RouteTable::build(vec![on("", ""), on("", "")]).explain(&asked.facts());
        assert_eq!(two[1].1.token(), "outranked_by_file_order");
    }

    #[test]
    fn targets_are_edited_in_order() {
        let rewrite = |from: &str, to: &str| Some((Regex::new(from).expect("a pattern"), to.to_owned()));
        let strip = |prefix: &str| Some(prefix.to_owned());
        for (strip_prefix, rewrite, add_prefix, target, expected) in [
            (None, None, None, "/a/b?q", Ok("/a/b?q")),
            (strip("/static"), None, None, "/static", Ok("/")),
            (strip("/static"), None, None, "/static/x?q", Ok("/x?q")),
            (strip("/static"), None, None, "/staticx", Ok("/staticx")),
            (None, None, strip("/v2"), "/x", Ok("/v2/x")),
            (strip("/a"), rewrite("^/old/(.*)", "/new/$1"), strip("/v2"), "/a/old/x?q", Ok("/v2/new/x?q")),
            (None, rewrite("^/item/([0-9]+)$", "/item?id=$1"), None, "/item/7?q", Ok("/item?id=7&q")),
            (None, rewrite("^/b/(.*)", "/c/../$1"), None, "/b/x", Ok("/x")),
            (None, rewrite("^/", ""), None, "/b", Err(UriFault::NotOriginForm)),
            (strip("/a"), None, strip("/v2"), "*", Ok("*")),
        ] {
            let edits = RequestEdits { strip_prefix, rewrite, add_prefix, ..RequestEdits::default() };
            let uri = normalise(&Bytes::from_static(target.as_bytes())).expect("a target");
            assert_eq!(edits.apply(&uri).as_ref().map(NormalUri::as_str), expected.as_ref().copied(), "{target}");
        }
    }

    #[test]
    fn redirects_are_filled_in() {
        let uri = normalise(&Bytes::from_static(b"//a?b=$host")).expect("a target");
        for (to, expected) in [
            ("https://new.example$uri", "https://new.example/a?b=$host"),
            ("https://$host/x$path?$query&y", "https://old.example/x/a?b=$host&y"),
            ("$uri", "/a?b=$host"),
            ("/$unknown/$", "/$unknown/$"),
        ] {
            assert_eq!(expand_redirect(to, "https", "old.example", &uri), expected);
        }
    }
}
