//! Whether a request is acceptable at all, before any route is asked.
//!
//! The listener has seen to the wire: framing, syntax of fields, sizes. What is judged here needs no bytes: the method,
//! the authority, expectations, and field names made to be mistaken for others. Every refusal is an [`ErrorKind`] whose
//! reason names it. `Max-Forwards` is left alone: the methods it counts for are refused or the origin's business.

use std::net::Ipv6Addr;

use http::header::{EXPECT, HOST};
use http::uri::Scheme;
use http::{HeaderMap, Method, Version};

use super::fields::{overrides_target, tells_of_client};
use crate::error::ErrorKind;

/// Bytes of a host; DNS allows no more (RFC 1035 §2.3.4).
const HOST_MAX: usize = 255;

/// A valid `host[:port]`, in lower case, without a trailing dot or an empty port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Authority {
    /// The host, and `:port` where one was given.
    text: Box<str>,
    /// Bytes of `text` that are the host.
    host: usize,
    port: Option<u16>,
}

impl Authority {
    fn new(mut text: String, port: Option<u16>) -> Self {
        let host = text.len();
        if let Some(port) = port {
            text.push(':');
            text.push_str(&port.to_string());
        }
        Self { text: text.into(), host, port }
    }

    /// The host: a name, an IPv4 address, or a bracketed IPv6 address. Empty only for HTTP/1.0 without `Host`.
    #[must_use]
    pub fn host(&self) -> &str {
        self.text.get(..self.host).unwrap_or_default()
    }

    /// The port, where one was given.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The same without the port that `scheme` has by itself: one form for what means the same (RFC 9110 §4.2.3).
    #[must_use]
    pub fn for_scheme(&self, scheme: &Scheme) -> &str {
        let own = if *scheme == Scheme::HTTPS { 443 } else { 80 };
        match self.port {
            Some(port) if port != own => &self.text,
            _ => self.host(),
        }
    }
}

impl std::fmt::Display for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why an authority is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthorityFault {
    /// No host: never valid for http and https (RFC 9110 §4.2.1).
    Empty,
    /// The host is longer than 255 bytes.
    TooLong,
    /// Neither a name of letters, digits, `-`, `_`, `~` in non-empty labels, nor an address. Narrower than RFC 3986,
    /// which allows escapes and punctuation no DNS name has; user information (`@`) is refused with them.
    BadHost,
    /// Not 1..=65535.
    BadPort,
}

impl AuthorityFault {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Empty => "host_empty",
            Self::TooLong => "host_too_long",
            Self::BadHost => "host_invalid",
            Self::BadPort => "host_bad_port",
        }
    }
}

impl From<AuthorityFault> for ErrorKind {
    fn from(fault: AuthorityFault) -> Self {
        Self::BadRequest(fault.token())
    }
}

/// Parses a `Host` value or an authority (RFC 9110 §7.2, RFC 3986 §3.2). Cost: one allocation, the host.
///
/// # Errors
/// An [`AuthorityFault`].
pub fn parse_authority(text: &[u8]) -> Result<Authority, AuthorityFault> {
    let text = std::str::from_utf8(text).map_err(|_| AuthorityFault::BadHost)?;
    let (host, port) = match text.rfind(':') {
        // The last colon of a bare IPv6 address is not before a port.
        Some(colon) if !text.ends_with(']') => {
            let (host, port) = text.split_at(colon);
            (host, parse_port(port.trim_start_matches(':'))?)
        }
        _ => (text, None),
    };
    if host.is_empty() {
        return Err(AuthorityFault::Empty);
    }
    if host.len() > HOST_MAX {
        return Err(AuthorityFault::TooLong);
    }
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address: Ipv6Addr = address.parse().map_err(|_| AuthorityFault::BadHost)?;
        return Ok(Authority::new(format!("[{address}]"), port));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let label_ok = |label: &[u8]| {
        !label.is_empty() && label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~'))
    };
    if !name.as_bytes().split(|&byte| byte == b'.').all(label_ok) {
        return Err(AuthorityFault::BadHost);
    }
    Ok(Authority::new(name.to_ascii_lowercase(), port))
}

fn parse_port(digits: &str) -> Result<Option<u16>, AuthorityFault> {
    if digits.is_empty() {
        return Ok(None);
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AuthorityFault::BadPort);
    }
    digits.parse().ok().filter(|&port| port > 0).map(Some).ok_or(AuthorityFault::BadPort)
}

/// What admission sees of a request.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionFacts<'a> {
    /// The method.
    pub method: &'a Method,
    /// The version on the client's hop.
    pub version: Version,
    /// The normalised path.
    pub path: &'a str,
    /// `Host`, the authority of an absolute target, or `:authority`; empty where there is none.
    pub authority: &'a str,
    /// All request fields.
    pub headers: &'a HeaderMap,
    /// The exchange asks to switch protocols.
    pub upgrade: bool,
}

/// The authority of an acceptable request.
///
/// Cost: one pass over the field names, one allocation.
///
/// # Errors
/// `MethodRefused`, `ExpectationFailed`, `BadRequest` (authority, target form) or `AmbiguousFraming` (look-alikes).
pub fn admit(facts: &AdmissionFacts<'_>) -> Result<Authority, ErrorKind> {
    // An extended CONNECT (RFC 8441) opens a WebSocket through us; a plain one asks for a tunnel to anywhere.
    let extended_connect = facts.upgrade && facts.version == Version::HTTP_2;
    if *facts.method == Method::TRACE || *facts.method == Method::CONNECT && !extended_connect {
        return Err(ErrorKind::MethodRefused);
    }
    if facts.path == "*" && *facts.method != Method::OPTIONS {
        return Err(ErrorKind::BadRequest("asterisk_target"));
    }
    let authority = admit_authority(facts)?;
    if facts.headers.keys().any(|name| is_lookalike(name.as_str())) {
        return Err(ErrorKind::AmbiguousFraming("header_lookalike"));
    }
    let expectations = facts.headers.get_all(EXPECT).iter();
    if expectations.into_iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(ErrorKind::ExpectationFailed);
    }
    Ok(authority)
}

/// RFC 9112 §3.2: HTTP/1.1 has exactly one `Host`; where another authority is given, both are the same.
fn admit_authority(facts: &AdmissionFacts<'_>) -> Result<Authority, ErrorKind> {
    let mut hosts = facts.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(ErrorKind::BadRequest("host_duplicate"));
    }
    match host {
        None if facts.version == Version::HTTP_11 => return Err(ErrorKind::BadRequest("host_missing")),
        None if facts.version <= Version::HTTP_10 && facts.authority.is_empty() => return Ok(Authority::default()),
        _ => {}
    }
    let authority = parse_authority(facts.authority.as_bytes())?;
    match host {
        Some(host)
            if !host.as_bytes().eq_ignore_ascii_case(facts.authority.as_bytes())
                && parse_authority(host.as_bytes())? != authority =>
        {
            Err(ErrorKind::BadRequest("host_mismatch"))
        }
        _ => Ok(authority),
    }
}

/// True for names that become another, trusted one where an origin turns `-` into `_` (CGI and its heirs do), such as
/// `Content_Length` or `X_Forwarded_For`.
fn is_lookalike(name: &str) -> bool {
    if !name.contains('_') {
        return false;
    }
    let meant = name.replace('_', "-");
    tells_of_client(&meant)
        || overrides_target(&meant)
        || matches!(
            meant.as_str(),
            "content-length" | "transfer-encoding" | "content-encoding" | "content-type" | "x-request-id" | "cdn-loop"
        )
}

/// What the TLS handshake settled, as far as it decides where a connection may lead.
#[derive(Debug, Clone, Copy)]
pub struct TlsFacts<'a> {
    /// The listener asks clients for certificates.
    pub client_auth: bool,
    /// The name the client asked for in the handshake.
    pub server_name: Option<&'a str>,
    /// The certificate (group) it was shown.
    pub certificate: usize,
}

/// True when a request for `host` does not belong on this connection: answered 421.
///
/// Only where clients show certificates: the handshake asked for one on behalf of one host, and must not open another.
/// `host_certificate` is the certificate that a handshake for `host` would be shown.
#[must_use]
pub fn misdirected(host: &str, host_certificate: Option<usize>, tls: &TlsFacts<'_>) -> bool {
    tls.client_auth && tls.server_name != Some(host) && host_certificate != Some(tls.certificate)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn the_schemes_own_port_is_left_out() {
        for (text, http, https) in [
            ("a.example", "a.example", "a.example"),
            ("a.example:80", "a.example", "a.example:80"),
            ("a.example:443", "a.example:443", "a.example"),
            ("[::1]:8443", "[::1]:8443", "[::1]:8443"),
        ] {
            let authority = parse_authority(text.as_bytes()).expect(text);
            assert_eq!((authority.for_scheme(&Scheme::HTTP), authority.for_scheme(&Scheme::HTTPS)), (http, https));
        }
    }

    #[test]
    fn authorities() {
        let long = "a".repeat(HOST_MAX + 1);
        for (text, expected) in [
            ("Example.COM", Ok("example.com")),
            ("example.com:8443", Ok("example.com:8443")),
            ("example.com.", Ok("example.com")),
            ("example.com:", Ok("example.com")),
            ("a_b.~c-1", Ok("a_b.~c-1")),
            ("127.0.0.1:80", Ok("127.0.0.1:80")),
            ("[::1]", Ok("[::1]")),
            ("[2001:DB8:0::1]:443", Ok("[2001:db8::1]:443")),
            ("", Err(AuthorityFault::Empty)),
            (":80", Err(AuthorityFault::Empty)),
            (".", Err(AuthorityFault::BadHost)),
            ("a..b", Err(AuthorityFault::BadHost)),
            (".a", Err(AuthorityFault::BadHost)),
            ("a b", Err(AuthorityFault::BadHost)),
            ("user@a", Err(AuthorityFault::BadHost)),
            ("a/b", Err(AuthorityFault::BadHost)),
            ("a%20b", Err(AuthorityFault::BadHost)),
            ("a,b", Err(AuthorityFault::BadHost)),
            ("caf\u{e9}", Err(AuthorityFault::BadHost)),
            ("::1", Err(AuthorityFault::BadHost)),
            ("[::1%25eth0]", Err(AuthorityFault::BadHost)),
            ("[1.2.3.4]", Err(AuthorityFault::BadHost)),
            ("[::1", Err(AuthorityFault::BadHost)),
            ("[::1]80", Err(AuthorityFault::BadPort)),
            ("a:0", Err(AuthorityFault::BadPort)),
            ("a:65536", Err(AuthorityFault::BadPort)),
            ("a:+80", Err(AuthorityFault::BadPort)),
            ("a:80:80", Err(AuthorityFault::BadHost)),
            (&long, Err(AuthorityFault::TooLong)),
        ] {
            let got = parse_authority(text.as_bytes());
            assert_eq!(got.map(|authority| authority.to_string()).as_deref(), expected.as_ref().copied(), "{text}");
        }
        assert_eq!(parse_authority(b"a\xff"), Err(AuthorityFault::BadHost));
    }

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), value.parse().expect("a value"));
        }
        headers
    }

    #[track_caller]
    fn check(
        edit: impl FnOnce(&mut AdmissionFacts<'_>),
        lines: &[(&'static str, &str)],
        expected: Result<&str, ErrorKind>,
    ) {
        let headers = fields(lines);
        let mut facts = AdmissionFacts {
            method: &Method::GET,
            version: Version::HTTP_11,
            path: "/",
            authority: headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
            headers: &headers,
            upgrade: false,
        };
        edit(&mut facts);
        let got = admit(&facts).map(|authority| authority.to_string());
        assert_eq!(got.as_deref(), expected.as_ref().copied(), "{facts:?}");
    }

    #[test]
    fn methods_and_target_forms() {
        let host = [("host", "a")];
        check(|_| {}, &host, Ok("a"));
        check(|facts| facts.method = &Method::TRACE, &host, Err(ErrorKind::MethodRefused));
        check(|facts| facts.method = &Method::CONNECT, &host, Err(ErrorKind::MethodRefused));
        let upgrade = |version| {
            move |facts: &mut AdmissionFacts<'_>| {
                (facts.method, facts.upgrade, facts.version) = (&Method::CONNECT, true, version);
            }
        };
        check(upgrade(Version::HTTP_11), &host, Err(ErrorKind::MethodRefused));
        check(upgrade(Version::HTTP_2), &host, Ok("a"));
        check(|facts| facts.path = "*", &host, Err(ErrorKind::BadRequest("asterisk_target")));
        check(|facts| (facts.path, facts.method) = ("*", &Method::OPTIONS), &host, Ok("a"));
    }

    #[test]
    fn hosts() {
        let version = |version| move |facts: &mut AdmissionFacts<'_>| facts.version = version;
        check(|_| {}, &[], Err(ErrorKind::BadRequest("host_missing")));
        check(|_| {}, &[("host", "")], Err(ErrorKind::BadRequest("host_empty")));
        check(|_| {}, &[("host", "a"), ("host", "a")], Err(ErrorKind::BadRequest("host_duplicate")));
        check(|_| {}, &[("host", "a b")], Err(ErrorKind::BadRequest("host_invalid")));
        check(version(Version::HTTP_10), &[], Ok(""));
        check(version(Version::HTTP_10), &[("host", "a")], Ok("a"));
        check(version(Version::HTTP_2), &[], Err(ErrorKind::BadRequest("host_empty")));
        let absolute = |facts: &mut AdmissionFacts<'_>| facts.authority = "b.example";
        check(absolute, &[("host", "B.example")], Ok("b.example"));
        check(absolute, &[("host", "b.example.")], Ok("b.example"));
        check(absolute, &[("host", "a.example")], Err(ErrorKind::BadRequest("host_mismatch")));
        check(absolute, &[("host", "?")], Err(ErrorKind::BadRequest("host_invalid")));
    }

    #[test]
    fn expectations_and_lookalikes() {
        let lookalike = Err(ErrorKind::AmbiguousFraming("header_lookalike"));
        for (name, value, expected) in [
            ("expect", "100-Continue", Ok("a")),
            ("expect", "200-ok", Err(ErrorKind::ExpectationFailed)),
            ("content_length", "1", lookalike),
            ("transfer_encoding", "chunked", lookalike),
            ("x_forwarded-for", "1.1.1.1", lookalike),
            ("x_real_ip", "1.1.1.1", lookalike),
            ("x_original_url", "/admin", lookalike),
            ("my_own_field", "1", Ok("a")),
        ] {
            check(|_| {}, &[("host", "a"), (name, value)], expected);
        }
    }

    #[test]
    fn a_certificate_opens_no_other_host() {
        for (client_auth, server_name, host, host_certificate, expected) in [
            (false, Some("a"), "b", Some(2), false),
            (true, Some("a"), "a", Some(1), false),
            (true, Some("a"), "b", Some(1), false),
            (true, Some("a"), "b", Some(2), true),
            (true, Some("a"), "b", None, true),
            (true, None, "b", Some(2), true),
            (true, None, "b", Some(1), false),
        ] {
            let tls = TlsFacts { client_auth, server_name, certificate: 1 };
            assert_eq!(misdirected(host, host_certificate, &tls), expected, "{tls:?} {host}");
        }
    }
}
