//! Purging: who may, what a purge is to reach, and how a `PURGE` request says so.
//!
//! A purge is the operator's act, not HTTP's: nothing of RFC 9110 or 9111 speaks of it. The fields understood here are
//! those that the plug-ins of content management systems send already.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{AUTHORIZATION, FORWARDED};
use http::{HeaderMap, HeaderName, Method, Uri};
use ipnet::IpNet;

use super::storing::NotStored;
use super::tags::Tags;
use crate::authority::Authority;
use crate::policy::uri::{self, NormalUri};

/// The method. Neither registered nor safe.
const PURGE: &str = "PURGE";

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Fastly's way to ask for a soft purge.
const FASTLY_SOFT_PURGE: HeaderName = HeaderName::from_static("fastly-soft-purge");
/// The tags to purge, as the plug-ins for Varnish's xkey send them.
const XKEY_PURGE: HeaderName = HeaderName::from_static("xkey-purge");
const XKEY_SOFTPURGE: HeaderName = HeaderName::from_static("xkey-softpurge");
/// `regex`: the path is a pattern. What WordPress' plug-in for Varnish sends.
const X_PURGE_METHOD: HeaderName = HeaderName::from_static("x-purge-method");

/// What makes a pattern of a path, normalised as paths are.
const PATTERN_SIGNS: [&str; 10] = ["*", "(", "+", "$", "|", "%7C", "[", "%5B", "%5C", "%5E"];

/// True for the method that is ours.
#[must_use]
pub fn is_purge(method: &Method) -> bool {
    method.as_str() == PURGE
}

/// `purge`: both must hold where both are given; never neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeParams {
    /// `allow`; empty = any address, with the token.
    pub allow: Vec<IpNet>,
    /// Contents of `token_file`.
    pub token: Option<String>,
}

/// Who asks for a purge.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// The transport's, or the one a trusted PROXY protocol header gave. Never a field's.
    pub address: IpAddr,
    /// The request's fields.
    pub headers: &'a HeaderMap,
}

/// Why somebody may not purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdmitted {
    /// There is no `purge` table, or nothing in it.
    Disabled,
    /// The address is in none of the allowed networks.
    Address,
    /// The address is a proxy's that passes on somebody else's request: it does not vouch for that one.
    Relayed,
    /// No token, or not the right one.
    Token,
}

impl NotAdmitted {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Disabled => "purge_disabled",
            Self::Address => "purge_address",
            Self::Relayed => "purge_relayed",
            Self::Token => "purge_token",
        }
    }
}

impl PurgeParams {
    /// Whether this sender may purge. The comparison of tokens takes the same time wherever they differ.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn admit(&self, sender: &Sender<'_>) -> Result<(), NotAdmitted> {
        let address = sender.address.to_canonical();
        if !self.allow.is_empty() && !self.allow.iter().any(|network| network.contains(&address)) {
            return Err(NotAdmitted::Address);
        }
        let Some(token) = &self.token else {
            if self.allow.is_empty() {
                return Err(NotAdmitted::Disabled);
            }
            // A forwarding field never lets anybody in, but it shows that the address speaks for somebody else.
            let relayed = sender.headers.contains_key(X_FORWARDED_FOR) || sender.headers.contains_key(FORWARDED);
            return if relayed { Err(NotAdmitted::Relayed) } else { Ok(()) };
        };
        let right = bearer(sender.headers)
            .is_some_and(|given| aws_lc_rs::constant_time::verify_slices_are_equal(given, token.as_bytes()).is_ok());
        if right { Ok(()) } else { Err(NotAdmitted::Token) }
    }
}

/// The token of `Authorization: Bearer` (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// What a purge reaches. `host` is in lower case, with the port where one is meant that is not the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Every variant of one URL, by http and https, under every key that policies make of it.
    Url {
        /// With exactly this port.
        host: String,
        /// Path and query, normalised.
        uri: NormalUri,
    },
    /// Everything under a path, on whole segments, whatever its query.
    Prefix {
        /// Without a port: on any.
        host: String,
        /// Normalised, without a slash at the end.
        path: String,
    },
    /// Everything of a host; without a port: on any.
    Host(String),
    /// Everything that bears any of these tags.
    Tags(Vec<Vec<u8>>),
    /// Everything of one origin in any of these cache groups (RFC 9875): what an answer of that origin asks for.
    Groups {
        /// `http` or `https`.
        scheme: String,
        /// With exactly this port.
        host: String,
        /// Never empty.
        groups: Vec<Vec<u8>>,
    },
    /// Everything.
    All,
}

impl Target {
    /// The target of `http://HOST/PATH?QUERY` or `https://…`.
    ///
    /// # Errors
    /// `url_invalid`, or the token of what is wrong with host, path or query.
    pub fn url(text: &str) -> Result<Self, &'static str> {
        let (host, uri) = split(text)?;
        Ok(Self::Url { host, uri })
    }

    /// Everything under `https://HOST/PATH`.
    ///
    /// # Errors
    /// As [`Target::url`]; `prefix_with_query` where there is a query.
    pub fn prefix(text: &str) -> Result<Self, &'static str> {
        let (host, uri) = split(text)?;
        if uri.query().is_some() {
            return Err("prefix_with_query");
        }
        Ok(Self::Prefix { host, path: uri.path().trim_end_matches('/').to_owned() })
    }

    /// Everything of `HOST` or `HOST:PORT`.
    ///
    /// # Errors
    /// The token of what is wrong with it.
    pub fn host(text: &str) -> Result<Self, &'static str> {
        let authority = Authority::parse(text.as_bytes()).map_err(|fault| fault.token())?;
        Ok(Self::Host(authority.to_string()))
    }

    /// Stable name of its kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Url { .. } => "url",
            Self::Prefix { .. } => "prefix",
            Self::Host(_) => "host",
            Self::Tags(_) => "tag",
            Self::Groups { .. } => "group",
            Self::All => "all",
        }
    }
}

impl std::fmt::Display for Target {
    /// What it is without its kind, for logs. Not bounded, and not escaped where a tag is not.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url { host, uri } => write!(f, "{host}{}", uri.as_str()),
            Self::Prefix { host, path } => write!(f, "{host}{path}/"),
            Self::Host(host) => f.write_str(host),
            Self::Tags(tags) => listed(tags, f),
            Self::Groups { host, groups, .. } => {
                write!(f, "{host}: ")?;
                listed(groups, f)
            }
            Self::All => f.write_str("everything"),
        }
    }
}

fn listed(names: &[Vec<u8>], f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    names.iter().enumerate().try_for_each(|(number, name)| {
        let separator = if number == 0 { "" } else { " " };
        write!(f, "{separator}{}", String::from_utf8_lossy(name))
    })
}

fn split(text: &str) -> Result<(String, NormalUri), &'static str> {
    let url: Uri = text.parse().map_err(|_| "url_invalid")?;
    let scheme = url.scheme().filter(|scheme| matches!(scheme.as_str(), "http" | "https")).ok_or("url_invalid")?;
    let authority = url.authority().ok_or("url_invalid")?;
    let authority = Authority::parse(authority.as_str().as_bytes()).map_err(|fault| fault.token())?;
    let target = url.path_and_query().map_or("/", |target| target.as_str());
    let uri = uri::normalise(&Bytes::copy_from_slice(target.as_bytes())).map_err(|fault| fault.token())?;
    Ok((authority.for_scheme(scheme).to_owned(), uri))
}

/// What a `PURGE` request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What is to go.
    pub target: Target,
    /// It is not to be removed but validated before it is used again.
    pub soft: bool,
}

impl Ask {
    /// Reads a `PURGE` for `uri` on `host`: the tags in its fields where it has some (`fields` are those of responses),
    /// everything under its path with `X-Purge-Method: regex`, else its URL.
    ///
    /// # Errors
    /// Why it is not understood, as a stable token: then nothing is purged rather than something else.
    pub fn read(host: &str, uri: &NormalUri, headers: &HeaderMap, fields: &[HeaderName]) -> Result<Self, &'static str> {
        let soft =
            headers.get(FASTLY_SOFT_PURGE).is_some_and(|value| value == "1") || headers.contains_key(XKEY_SOFTPURGE);
        let fields: Vec<_> = fields.iter().cloned().chain([XKEY_PURGE, XKEY_SOFTPURGE]).collect();
        if fields.iter().any(|field| headers.contains_key(field)) {
            let tags = Tags::read(headers, &fields).map_err(NotStored::token)?;
            if tags.is_empty() {
                return Err("purge_without_tags");
            }
            return Ok(Self { target: Target::Tags(tags.names().map(Vec::from).collect()), soft });
        }
        let is_pattern = headers.get(X_PURGE_METHOD).is_some_and(|value| value == "regex");
        let target = if is_pattern {
            let path = uri.path().strip_suffix(".*").filter(|_| uri.query().is_none());
            // Only a whole segment that stands for anything: patterns beyond that are not evaluated.
            let path = path.and_then(|path| path.strip_suffix('/'));
            let path = path.filter(|path| !PATTERN_SIGNS.iter().any(|sign| path.contains(sign)));
            Target::Prefix { host: host.to_owned(), path: path.ok_or("purge_pattern")?.to_owned() }
        } else {
            Target::Url { host: host.to_owned(), uri: uri.clone() }
        };
        Ok(Self { target, soft })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::policy::cache::tags::DEFAULT_FIELDS;
    use crate::policy::cache::tests::headers;

    #[test]
    fn both_must_hold_and_fields_vouch_for_nobody() {
        let office = "10.0.0.0/8".parse::<IpNet>().expect("a network");
        let by_address = PurgeParams { allow: vec![office], token: None };
        let by_token = PurgeParams { allow: Vec::new(), token: Some("s3cret".into()) };
        let by_both = PurgeParams { allow: vec![office], token: Some("s3cret".into()) };
        let (inside, outside) = ("10.1.2.3", "192.0.2.1");
        let right = &[("authorization", "bearer s3cret")][..];
        for (params, address, lines, expected) in [
            (&by_address, inside, &[][..], Ok(())),
            (&by_address, "::ffff:10.1.2.3", &[], Ok(())),
            (&by_address, outside, &[], Err(NotAdmitted::Address)),
            (&by_address, outside, &[("x-forwarded-for", inside)], Err(NotAdmitted::Address)),
            (&by_address, inside, &[("x-forwarded-for", inside)], Err(NotAdmitted::Relayed)),
            (&by_address, inside, &[("forwarded", "for=192.0.2.1")], Err(NotAdmitted::Relayed)),
            (&by_token, outside, right, Ok(())),
            (&by_token, outside, &[], Err(NotAdmitted::Token)),
            (&by_token, outside, &[("authorization", "Bearer s3cre")], Err(NotAdmitted::Token)),
            (&by_token, outside, &[("authorization", "Basic s3cret")], Err(NotAdmitted::Token)),
            (&by_both, inside, right, Ok(())),
            (&by_both, inside, &[("authorization", "Bearer s3cret"), ("x-forwarded-for", "a")], Ok(())),
            (&by_both, outside, right, Err(NotAdmitted::Address)),
            (&by_both, inside, &[], Err(NotAdmitted::Token)),
            (&PurgeParams { allow: Vec::new(), token: None }, inside, &[], Err(NotAdmitted::Disabled)),
        ] {
            let headers = headers(lines, Clock::System.now());
            let sender = Sender { address: address.parse().expect("an address"), headers: &headers };
            assert_eq!(params.admit(&sender), expected, "{address} {lines:?}");
        }
    }

    #[test]
    fn requests_say_what_they_mean() {
        let check = |target: &'static str, lines: &[(&'static str, &str)], expected: Result<&str, &str>| {
            let uri = uri::normalise(&Bytes::from_static(target.as_bytes())).expect("a target");
            let headers = headers(lines, Clock::System.now());
            let ask = Ask::read("h", &uri, &headers, &DEFAULT_FIELDS);
            let soft = |soft| if soft { " soft" } else { "" };
            let told = ask.map(|ask| format!("{} {}{}", ask.target.kind(), ask.target, soft(ask.soft)));
            assert_eq!(told, expected.map(str::to_owned), "{target} {lines:?}");
        };
        check("/a?b", &[], Ok("url h/a?b"));
        check("/a", &[("fastly-soft-purge", "1")], Ok("url h/a soft"));
        check("/a", &[("fastly-soft-purge", "0")], Ok("url h/a"));
        check("/", &[("surrogate-key", "y x")], Ok("tag x y"));
        check("/", &[("xkey-purge", "x, y")], Ok("tag x y"));
        check("/", &[("xkey-softpurge", "x")], Ok("tag x soft"));
        check("/", &[("cache-tag", "x"), ("xkey", "z")], Ok("tag x z"));
        check("/", &[("surrogate-key", " ")], Err("purge_without_tags"));
        check("/", &[("xkey", &"x".repeat(2000))], Err("tag_too_long"));
        check("/.*", &[("x-purge-method", "regex")], Ok("prefix h/"));
        check("/a/.*", &[("x-purge-method", "regex")], Ok("prefix h/a/"));
        check("/a.*", &[("x-purge-method", "regex")], Err("purge_pattern"));
        check("/a|b/.*", &[("x-purge-method", "regex")], Err("purge_pattern"));
        check("/a", &[("x-purge-method", "regex")], Err("purge_pattern"));
        check("/.*", &[("x-purge-method", "default")], Ok("url h/.*"));
    }

    #[test]
    fn operators_name_targets_as_urls() {
        let told = |target: Result<Target, &'static str>| target.map(|target| format!("{} {target}", target.kind()));
        for (target, expected) in [
            (Target::url("https://Shop.example:443/a/../b?c"), Ok("url shop.example/b?c")),
            (Target::url("http://shop.example:443"), Ok("url shop.example:443/")),
            (Target::url("/a"), Err("url_invalid")),
            (Target::url("ftp://h/"), Err("url_invalid")),
            (Target::url("http://a b/"), Err("url_invalid")),
            (Target::prefix("https://h/a/"), Ok("prefix h/a/")),
            (Target::prefix("https://h"), Ok("prefix h/")),
            (Target::prefix("https://h/a?b"), Err("prefix_with_query")),
            (Target::host("H.example"), Ok("host h.example")),
            (Target::host("h:8443"), Ok("host h:8443")),
            (Target::host("h/x"), Err("host_invalid")),
        ] {
            assert_eq!(told(target), expected.map(str::to_owned), "{expected:?}");
        }
    }
}
