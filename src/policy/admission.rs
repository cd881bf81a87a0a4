//! Whether a request is acceptable at all, before any route is asked.
//!
//! The listener has seen to the wire: framing, syntax of fields, sizes. What is judged here needs no bytes: the method,
//! the form of the target, expectations, and field names made to be mistaken for others. Every refusal is an [`ErrorKind`] whose
//! reason names it. `Max-Forwards` is left alone: the methods it counts for are refused or the origin's business.

use http::header::EXPECT;
use http::{HeaderMap, Method, Version};

use super::fields::{overrides_target, tells_of_client};
use crate::error::ErrorKind;

/// What admission sees of a request.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionFacts<'a> {
    /// The method.
    pub method: &'a Method,
    /// The version on the client's hop.
    pub version: Version,
    /// The normalised path.
    pub path: &'a str,
    /// All request fields.
    pub headers: &'a HeaderMap,
    /// The exchange asks to switch protocols.
    pub upgrade: bool,
}

/// Admits a request whose authority the driver has found to be valid. Cost: one pass over the fields.
///
/// # Errors
/// `MethodRefused`, `ExpectationFailed`, `BadRequest` (target form) or `AmbiguousFraming` (look-alikes).
pub fn admit(facts: &AdmissionFacts<'_>) -> Result<(), ErrorKind> {
    // An extended CONNECT (RFC 8441) opens a WebSocket through us; a plain one asks for a tunnel to anywhere.
    let extended_connect = facts.upgrade && facts.version == Version::HTTP_2;
    if *facts.method == Method::TRACE || *facts.method == Method::CONNECT && !extended_connect {
        return Err(ErrorKind::MethodRefused);
    }
    if facts.path == "*" && *facts.method != Method::OPTIONS {
        return Err(ErrorKind::BadRequest("asterisk_target"));
    }
    for (name, value) in facts.headers {
        if is_lookalike(name.as_str()) {
            return Err(ErrorKind::AmbiguousFraming("header_lookalike"));
        }
        if *name == EXPECT && !value.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return Err(ErrorKind::ExpectationFailed);
        }
    }
    Ok(())
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
        expected: Result<(), ErrorKind>,
    ) {
        let headers = fields(lines);
        let mut facts = AdmissionFacts {
            method: &Method::GET,
            version: Version::HTTP_11,
            path: "/",
            headers: &headers,
            upgrade: false,
        };
        edit(&mut facts);
        assert_eq!(admit(&facts), expected, "{facts:?}");
    }

    #[test]
    fn methods_and_target_forms() {
        let host = [("host", "a")];
        check(|_| {}, &host, Ok(()));
        check(|facts| facts.method = &Method::TRACE, &host, Err(ErrorKind::MethodRefused));
        check(|facts| facts.method = &Method::CONNECT, &host, Err(ErrorKind::MethodRefused));
        let upgrade = |version| {
            move |facts: &mut AdmissionFacts<'_>| {
                (facts.method, facts.upgrade, facts.version) = (&Method::CONNECT, true, version);
            }
        };
        check(upgrade(Version::HTTP_11), &host, Err(ErrorKind::MethodRefused));
        check(upgrade(Version::HTTP_2), &host, Ok(()));
        check(|facts| facts.path = "*", &host, Err(ErrorKind::BadRequest("asterisk_target")));
        check(|facts| (facts.path, facts.method) = ("*", &Method::OPTIONS), &host, Ok(()));
    }

    #[test]
    fn expectations_and_lookalikes() {
        let lookalike = Err(ErrorKind::AmbiguousFraming("header_lookalike"));
        for (name, value, expected) in [
            ("expect", "100-Continue", Ok(())),
            ("expect", "200-ok", Err(ErrorKind::ExpectationFailed)),
            ("content_length", "1", lookalike),
            ("transfer_encoding", "chunked", lookalike),
            ("x_forwarded-for", "1.1.1.1", lookalike),
            ("x_real_ip", "1.1.1.1", lookalike),
            ("x_original_url", "/admin", lookalike),
            ("my_own_field", "1", Ok(())),
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
