//! Values with a unit, an address or a grammar of their own, each with its bounds in its type, so that the reader, the
//! message and the schema say the same.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Method};
use ipnet::IpNet;
use regex::{Regex, RegexBuilder};
use serde_json::{Value as Json, json};

use super::diagnostics::Diagnostics;
use super::shape::{Place, Refused, Shape, mismatch, read_text};
use super::tree::{Node, Value};
use crate::policy::pool::Address;

/// Bytes a compiled regular expression may take: enough for any honest path pattern, far from hurting a worker.
const REGEX_BYTES: usize = 256 * 1024;

/// Longest name of an entry; names become metric labels and parts of URLs.
const NAME_BYTES: usize = 64;

/// A whole number, MIN to MAX.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Int<const MIN: i64, const MAX: i64>(pub(super) i64);

impl<const MIN: i64, const MAX: i64> Int<MIN, MAX> {
    /// The number in the type the model wants; zero where that is too narrow, which the bounds of every key exclude.
    pub(super) fn get<T: TryFrom<i64> + Default>(self) -> T {
        T::try_from(self.0).unwrap_or_default()
    }
}

impl<const MIN: i64, const MAX: i64> Shape for Int<MIN, MAX> {
    fn read(node: &Node, place: &Place, faults: &mut Diagnostics) -> Option<Self> {
        match node.value {
            Value::Integer(number) if (MIN..=MAX).contains(&number) => Some(Self(number)),
            Value::Integer(_) => {
                mismatch(node, place, &format!("{MIN}..={MAX}"), faults);
                None
            }
            _ => {
                mismatch(node, place, "a whole number", faults);
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }

    fn show(&self) -> Json {
        json!(self.0)
    }
}

impl Shape for bool {
    fn read(node: &Node, place: &Place, faults: &mut Diagnostics) -> Option<Self> {
        if let Value::Boolean(truth) = node.value {
            return Some(truth);
        }
        mismatch(node, place, "true or false", faults);
        None
    }

    fn schema() -> Json {
        json!({ "type": "boolean" })
    }

    fn show(&self) -> Json {
        json!(self)
    }
}

impl Shape for String {
    fn read(node: &Node, place: &Place, faults: &mut Diagnostics) -> Option<Self> {
        read_text(node, place, faults, |text| Ok(text.to_owned()))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }

    fn show(&self) -> Json {
        json!(self)
    }
}

/// A duration from MIN to MAX milliseconds: `500ms 10s 5m 1h 2d`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Span<const MIN: u64, const MAX: u64>(pub(super) Duration);

impl<const MIN: u64, const MAX: u64> Span<MIN, MAX> {
    /// A default.
    pub(super) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A default of less than a second.
    pub(super) const fn milliseconds(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// `None` for `0s`, where that means "none".
    pub(super) fn nonzero(self) -> Option<Duration> {
        (!self.0.is_zero()).then_some(self.0)
    }
}

impl<const MIN: u64, const MAX: u64> Shape for Span<MIN, MAX> {
    fn read(node: &Node, place: &Place, faults: &mut Diagnostics) -> Option<Self> {
        if let Value::Integer(number) = node.value {
            let help = format!("write \"{number}s\" or \"{number}ms\"");
            faults.push(place.fault(format!("must be a duration with a unit, got {number}"), help));
            return None;
        }
        read_text(node, place, faults, |text| {
            let span = parse_duration(text)?;
            if (Duration::from_millis(MIN)..=Duration::from_millis(MAX)).contains(&span) {
                return Ok(Self(span));
            }
            let (min, max) = (show_duration(Duration::from_millis(MIN)), show_duration(Duration::from_millis(MAX)));
            Err(Refused::new(format!("must be {min} to {max}, got {text:?}"), ""))
        })
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$|\\$\\{" })
    }

    fn show(&self) -> Json {
        json!(show_duration(self.0))
    }
}

fn parse_duration(text: &str) -> Result<Duration, Refused> {
    let refused = || {
        Refused::new(
            format!("must be a duration, got {text:?}"),
            "write it as \"500ms\", \"10s\", \"5m\", \"1h\" or \"2d\"",
        )
    };
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| refused())?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => return Err(refused()),
    };
    milliseconds.map(Duration::from_millis).ok_or_else(refused)
}

/// A duration in its largest whole unit.
pub(super) fn show_duration(span: Duration) -> String {
    let milliseconds = span.as_millis();
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)]
        .into_iter()
        .find(|(_, unit)| milliseconds >= *unit && milliseconds.is_multiple_of(*unit))
        .map_or_else(
            || if milliseconds == 0 { "0s".to_owned() } else { format!("{milliseconds}ms") },
            |(name, unit)| format!("{}{name}", milliseconds / unit),
        )
}

/// A number of bytes from MIN to MAX: `64KiB 512MiB 2GiB`, `64k 512m 2g`, or a plain number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size<const MIN: u64, const MAX: u64>(pub(super) u64);

impl<const MIN: u64, const MAX: u64> Size<MIN, MAX> {
    /// The size in memory terms; no key allows more than an address space holds.
    pub(super) fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> Shape for Size<MIN, MAX> {
    fn read(node: &Node, place: &Place, faults: &mut Diagnostics) -> Option<Self> {
        let bytes = match node.value {
            Value::Integer(number) => u64::try_from(number).ok(),
            _ => Some(read_text(node, place, faults, parse_size)?),
        };
        if let Some(bytes) = bytes.filter(|bytes| (MIN..=MAX).contains(bytes)) {
            return Some(Self(bytes));
        }
        mismatch(node, place, &format!("{} to {}", show_size(MIN), show_size(MAX)), faults);
        None
    }

    fn schema() -> Json {
        json!({ "anyOf": [
            { "type": "string", "pattern": "^[0-9]+([KMGT]iB|[kmgtKMGT])?$|\\$\\{" },
            { "type": "integer", "minimum": MIN, "maximum": MAX },
        ] })
    }

    fn show(&self) -> Json {
        json!(show_size(self.0))
    }
}

fn parse_size(text: &str) -> Result<u64, Refused> {
    let refused = || {
        let help = "write it as \"64KiB\", \"512MiB\" or \"2GiB\" (powers of 1024; also \"64k\", \"512m\", \"2g\")";
        Refused::new(format!("must be a size, got {text:?}"), help)
    };
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| refused())?;
    let shift = match unit {
        "" => 0,
        "KiB" | "k" | "K" => 10,
        "MiB" | "m" | "M" => 20,
        "GiB" | "g" | "G" => 30,
        "TiB" | "t" | "T" => 40,
        _ => return Err(refused()),
    };
    number.checked_mul(1 << shift).ok_or_else(refused)
}

/// A size in its largest whole unit.
pub(super) fn show_size(bytes: u64) -> String {
    [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)]
        .into_iter()
        .find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift)
        .map_or_else(|| bytes.to_string(), |(name, shift)| format!("{}{name}", bytes >> shift))
}

/// A share: `5%`, kept as 0..=1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share(pub(super) f64);

impl Shape for Share {
    fn read(node: &Node, place: &Place, faults: &mut Diagnostics) -> Option<Self> {
        if matches!(node.value, Value::Integer(_) | Value::Float(_)) {
            mismatch(node, place, "a share such as \"50%\"", faults);
            return None;
        }
        read_text(node, place, faults, |text| {
            let percent = text.strip_suffix('%').filter(|number| !number.starts_with(['+', '-']));
            match percent.and_then(|number| number.parse::<f64>().ok()) {
                Some(percent) if (0.0..=100.0).contains(&percent) => Ok(Self(percent / 100.0)),
                _ => Err(Refused::new(format!("must be a share from \"0%\" to \"100%\", got {text:?}"), "")),
            }
        })
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?%$|\\$\\{" })
    }

    fn show(&self) -> Json {
        json!(format!("{}%", self.0 * 100.0))
    }
}

/// The name of an entry: letters, digits, `_`, `-` and `.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(pub(super) String);

impl Name {
    /// Why a text cannot be a name.
    pub(super) fn refused(text: &str) -> Option<Refused> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        (text.is_empty() || text.len() > NAME_BYTES || !text.chars().all(plain)).then(|| {
            let help = format!("use 1 to {NAME_BYTES} letters, digits, \"_\", \"-\" and \".\"");
            Refused::new(format!("cannot be {text:?}"), help)
        })
    }
}

impl Shape for Name {
    fn read(node: &Node, place: &Place, faults: &mut Diagnostics) -> Option<Self> {
        read_text(node, place, faults, |text| Self::refused(text).map_or_else(|| Ok(Self(text.to_owned())), Err))
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// Implements [`Shape`] for a type that is written as a text.
macro_rules! written_as_text {
    ($($Type:ty => $parse:expr;)*) => {$(
        impl $crate::config::shape::Shape for $Type {
            fn read(
                node: &$crate::config::tree::Node,
                place: &$crate::config::shape::Place,
                faults: &mut $crate::config::diagnostics::Diagnostics,
            ) -> Option<Self> {
                $crate::config::shape::read_text(node, place, faults, $parse)
            }

            fn schema() -> serde_json::Value {
                serde_json::json!({ "type": "string" })
            }
        }
    )*};
}
pub(super) use written_as_text;

written_as_text! {
    Address => parse_address;
    SocketAddr => parse_socket_address;
    IpNet => parse_network;
    HeaderName => parse_header_name;
    Method => parse_method;
    Regex => parse_regex;
}

fn parse_address(text: &str) -> Result<Address, Refused> {
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(Refused::new("names no socket", "write \"unix:/path\""));
        }
        return Ok(Address::Unix(PathBuf::from(path)));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Address::Ip(address));
    }
    let refused = |help: &str| Refused::new(format!("must be host:port, [v6]:port or unix:/path, got {text:?}"), help);
    if text.contains("://") {
        return Err(refused("leave out the scheme: encryption to the origin is the pool's tls"));
    }
    if let Ok(IpAddr::V6(address)) = text.parse() {
        return Err(refused(&format!("write \"[{address}]:port\"")));
    }
    let Some((host, port)) = text.rsplit_once(':') else { return Err(refused("add a port")) };
    match port.parse::<u16>() {
        Ok(port) if port > 0 && is_host_name(host) => Ok(Address::Name(host.to_ascii_lowercase(), port)),
        Ok(port) if port > 0 => Err(refused("")),
        _ => Err(refused("the port must be 1..=65535")),
    }
}

/// True for a DNS name or something shaped like one (RFC 1123 §2.1, with the `_` that internal names use).
pub(super) fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    // All digits and dots would be a mistyped IPv4 address.
    host.len() <= 253
        && host.strip_suffix('.').unwrap_or(host).split('.').all(is_label)
        && !host.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// True for a DNS name, or an IP address without brackets.
pub(super) fn is_host_or_ip(host: &str) -> bool {
    is_host_name(host) || host.parse::<IpAddr>().is_ok()
}

fn parse_socket_address(text: &str) -> Result<SocketAddr, Refused> {
    text.parse().map_err(|_| {
        let help = match text.rsplit_once(':') {
            Some(("localhost", port)) => format!("write \"127.0.0.1:{port}\" or \"[::1]:{port}\""),
            Some(("" | "*", port)) => format!("write \"0.0.0.0:{port}\" or \"[::]:{port}\""),
            _ => "write \"0.0.0.0:8080\" or \"[::]:8080\"".to_owned(),
        };
        Refused::new(format!("must be an IP address and a port, got {text:?}"), help)
    })
}

fn parse_network(text: &str) -> Result<IpNet, Refused> {
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let network = network.ok_or_else(|| {
        Refused::new(
            format!("must be a network, got {text:?}"),
            "write \"10.0.0.0/8\", \"2001:db8::/32\" or one address",
        )
    })?;
    if network.trunc() != network {
        let help = format!("write \"{}\"", network.trunc());
        return Err(Refused::new(format!("has bits behind its prefix: {text:?}"), help));
    }
    Ok(network)
}

/// A field name (RFC 9110 §5.1).
pub(super) fn parse_header_name(text: &str) -> Result<HeaderName, Refused> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| Refused::new(format!("must be a header name, got {text:?}"), ""))
}

fn parse_method(text: &str) -> Result<Method, Refused> {
    let refused = |help: &str| Refused::new(format!("must be a method, got {text:?}"), help);
    if text.bytes().any(|b| b.is_ascii_lowercase()) {
        return Err(refused(&format!("methods are case-sensitive: write {:?}", text.to_ascii_uppercase())));
    }
    if matches!(text, "CONNECT" | "TRACE") {
        return Err(refused("CONNECT and TRACE are always refused"));
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| refused(""))
}

/// A regular expression in the syntax of the `regex` crate: linear time, no look-around, no back-references.
pub(super) fn parse_regex(text: &str) -> Result<Regex, Refused> {
    RegexBuilder::new(text).size_limit(REGEX_BYTES).build().map_err(|error| {
        let reason = error.to_string();
        let last = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Refused::new(format!("must be a regular expression, got {text:?}"), last)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_back_as_shown() {
        for text in ["500ms", "10s", "5m", "1h", "2d", "0s", "90s", "1500ms"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["64KiB", "512MiB", "2GiB", "1TiB", "1000", "0"] {
            assert_eq!(show_size(parse_size(text).unwrap()), text);
        }
        for (short, long) in [("64k", "64KiB"), ("512m", "512MiB"), ("2G", "2GiB")] {
            assert_eq!(parse_size(short), parse_size(long));
        }
    }

    #[test]
    fn what_has_no_unit_or_overflows_is_refused() {
        for text in ["", "10", "s", "1.5s", "-1s", "10 s", "10S", "99999999999999999999d", "213503982335d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for text in ["", "KiB", "64kb", "64KB", "1.5GiB", "-1", "99999999999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_have_three_forms() {
        for (text, shown) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("Web.internal:8080", "web.internal:8080"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
        ] {
            assert_eq!(parse_address(text).unwrap().to_string(), shown);
        }
        for text in ["web", "web:0", "web:70000", "::1", "10.0.0.300:80", "http://web:80", "unix:", "a b:80", "-a:80"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }
}
