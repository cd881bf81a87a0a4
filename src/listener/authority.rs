//! The host and port a request is for: one strict grammar for `Host`, absolute targets and `:authority`.
//!
//! Narrower than RFC 3986 §3.2 on purpose: no user information, no percent-encoding, no sub-delimiters. What is left
//! cannot mean one host to us and another to an origin.

use std::net::Ipv6Addr;

/// The authority lower-cased, without an empty port; `None` when it is not `host`, `host:port`, `[v6]` or `[v6]:port`.
pub(super) fn normalize(authority: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(authority).ok()?;
    let (host, port) = split(text)?;
    let port_fits = port.is_none_or(|port| port.bytes().all(|b| b.is_ascii_digit()) && fits_port(port));
    if !port_fits {
        return None;
    }
    let kept = match port {
        Some("") => host.len(),
        _ => text.len(),
    };
    Some(text.get(..kept)?.to_ascii_lowercase().into_boxed_str())
}

/// Host (with its brackets) and what follows the colon.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(inner) = text.strip_prefix('[') {
        let (address, _) = inner.split_once(']')?;
        address.parse::<Ipv6Addr>().ok()?;
        let (host, rest) = text.split_at_checked(address.len() + 2)?;
        return match rest {
            "" => Some((host, None)),
            _ => Some((host, Some(rest.strip_prefix(':')?))),
        };
    }
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let named = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    (!host.is_empty() && host.len() <= MAX_HOST && host.bytes().all(named)).then_some((host, port))
}

/// The longest host name (RFC 1035 §2.3.4 plus the root's dot).
const MAX_HOST: usize = 254;

fn fits_port(port: &str) -> bool {
    port.is_empty() || (port.len() <= 5 && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_lower_case_and_what_is_odd_does_not_pass() {
        let passes = [
            ("Shop.Example", "shop.example"),
            ("shop.example:8443", "shop.example:8443"),
            ("shop.example:", "shop.example"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]", "[::1]"),
            ("[2001:DB8::1]:443", "[2001:db8::1]:443"),
            ("under_score", "under_score"),
        ];
        for (given, expected) in passes {
            assert_eq!(normalize(given.as_bytes()).as_deref(), Some(expected), "{given}");
        }
        let odd = [
            "",
            ":80",
            "a b",
            "a,b",
            "user@host",
            "a/b",
            "a:b",
            "a:80:80",
            "a:+1",
            "a:99999",
            "[::1",
            "[::1]80",
            "[x]",
            "a%2eb",
            "a\u{e9}",
            "a#b",
            "a?b",
            "a\\b",
        ];
        for given in odd {
            assert_eq!(normalize(given.as_bytes()), None, "{given:?}");
        }
    }
}
