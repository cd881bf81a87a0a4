//! The host and port a request is for: one strict grammar for `Host`, absolute targets and `:authority` (RFC 9110 §4.2,
//! §7.2).
//!
//! Narrower than RFC 3986 §3.2 on purpose: no user information, no percent-encoding, no sub-delimiters, which no name in
//! DNS has. What is left cannot mean one host to us and another to an origin.

use std::fmt::Write as _;
use std::net::Ipv6Addr;

use http::uri::Scheme;

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

/// Why an authority is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthorityFault {
    /// No host: never valid for http and https (RFC 9110 §4.2.1).
    Empty,
    /// The host is longer than 255 bytes.
    TooLong,
    /// Neither a name of letters, digits, `-`, `_`, `~` in non-empty labels, nor an address.
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

impl Authority {
    /// Parses a `Host` value or an authority. Cost: one allocation, the text.
    ///
    /// # Errors
    /// An [`AuthorityFault`].
    pub fn parse(text: &[u8]) -> Result<Self, AuthorityFault> {
        let text = std::str::from_utf8(text).map_err(|_| AuthorityFault::BadHost)?;
        let colon = text.bytes().rposition(|byte| byte == b':');
        // The last colon of a bare IPv6 address is not before a port.
        let (host, digits) = match colon.filter(|_| !text.ends_with(']')).and_then(|colon| text.split_at_checked(colon))
        {
            Some((host, port)) => (host, port.get(1..).unwrap_or_default()),
            None => (text, ""),
        };
        let port = parse_port(digits)?;
        if host.is_empty() {
            return Err(AuthorityFault::Empty);
        }
        if host.len() > HOST_MAX {
            return Err(AuthorityFault::TooLong);
        }
        // What needs no change is as long as it was given: no room is left over to be given back.
        let mut text = String::with_capacity(host.len() + port.map_or(0, |_| 1 + digits.len()));
        if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            let address: Ipv6Addr = address.parse().map_err(|_| AuthorityFault::BadHost)?;
            // Writing to a string cannot fail.
            let _ = write!(text, "[{address}]");
        } else {
            let name = host.strip_suffix('.').unwrap_or(host);
            if !is_name(name.as_bytes()) {
                return Err(AuthorityFault::BadHost);
            }
            text.push_str(name);
            text.make_ascii_lowercase();
        }
        let host = text.len();
        match port {
            // As given; the machinery that spells numbers costs as much as all the rest.
            Some(_) if !digits.starts_with('0') => text.extend([":", digits]),
            Some(port) => drop(write!(text, ":{port}")),
            None => {}
        }
        Ok(Self { text: text.into(), host, port })
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

    /// `host[:port]`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same, owned. Cost: nothing.
    #[must_use]
    pub fn into_text(self) -> Box<str> {
        self.text
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

/// Labels of letters, digits, `-`, `_` and `~`, none of them empty.
fn is_name(name: &[u8]) -> bool {
    let mut label = 0;
    for byte in name {
        match byte {
            b'.' if label > 0 => label = 0,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => label += 1,
            _ => return false,
        }
    }
    label > 0
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schemes_own_port_is_left_out() {
        for (text, http, https) in [
            ("a.example", "a.example", "a.example"),
            ("a.example:80", "a.example", "a.example:80"),
            ("a.example:443", "a.example:443", "a.example"),
            ("[::1]:8443", "[::1]:8443", "[::1]:8443"),
        ] {
            let authority = Authority::parse(text.as_bytes()).expect(text);
            assert_eq!((authority.for_scheme(&Scheme::HTTP), authority.for_scheme(&Scheme::HTTPS)), (http, https));
        }
    }

    #[test]
    fn authorities() {
        let long = "a".repeat(HOST_MAX + 1);
        for (text, expected) in [
            ("Example.COM", Ok("example.com")),
            ("example.com:8443", Ok("example.com:8443")),
            ("example.com:0080", Ok("example.com:80")),
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
            let got = Authority::parse(text.as_bytes());
            assert_eq!(got.map(|authority| authority.to_string()).as_deref(), expected.as_ref().copied(), "{text}");
        }
        assert_eq!(Authority::parse(b"a\xff"), Err(AuthorityFault::BadHost));
    }
}
