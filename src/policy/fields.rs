//! Field rules between two hops: what a request says to the origin, what a response says to the client (RFC 9110 §7.6).
//!
//! Requests ([`forward_request`]):
//! - hop-by-hop fields go, and so does what `Connection` names, except fields that are meant for everybody
//!   (`is_end_to_end`): or a client could have `Cookie` or `Host` removed on the way past a rule that read it;
//! - `TE: trailers` stays, as gRPC needs it; `Trailer` stays, as trailers are passed on;
//! - `Upgrade` stays where the exchange asks for it and [`may_upgrade`] allows; `h2c` and `HTTP2-Settings` never pass;
//! - `Expect` goes: the listener answered it;
//! - what tells of the client (`X-Forwarded-*`, `Forwarded`, `X-Real-IP` …) is kept from trusted peers only, then ours is
//!   added. A fetch on behalf of the cache names no client at all;
//! - `Via` and `CDN-Loop` get our name with a per-process id; a request that carries it already has been here
//!   ([`Identity::is_loop`]).
//!
//! Responses ([`forward_response`]): hop-by-hop fields go, `Via` is added, `Date` where the origin sent none (§6.6.1).
//! The route's edits ([`FieldEdits`]) come last and apart, as what is stored must not carry them.
//!
//! `traceparent`, `tracestate`, `baggage` and `Max-Forwards` pass untouched.
//!
//! Cost of a request: one pass over the names, and two small allocations.

use std::fmt::Write as _;
use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE,
    DATE, ETAG, EXPECT, Entry, FORWARDED, HOST, RANGE, SET_COOKIE, TE, UPGRADE, VARY, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use crate::clock::Now;

/// `request`/`response` `{ set, remove }` of a route: removals first, then sets.
#[derive(Debug, Clone, Default)]
pub struct FieldEdits {
    /// `remove`
    pub remove: Vec<HeaderName>,
    /// `set`: replaces all fields of that name.
    pub set: Vec<(HeaderName, HeaderValue)>,
}

impl FieldEdits {
    /// Applies the edits.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
    }
}

/// `CDN-Loop` (RFC 8586).
pub const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// `X-Request-ID`
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// Fields that [`forward_request`] adds; room for them is made once.
const FIELDS_ADDED: usize = 8;

/// Bytes that `Forwarded` takes as a rule; a long host name makes it grow.
const FORWARDED_ROOM: usize = 96;

/// Bytes of an `X-Request-ID` that is kept; a longer one is replaced, since it goes into every log line.
const REQUEST_ID_MAX: usize = 128;

/// The names this process goes by in `Via` and `CDN-Loop`, prepared once.
///
/// To origins it shows a per-process pseudonym, so that two nodes in a row are no loop; to clients only `tidegate`.
#[derive(Debug, Clone)]
pub struct Identity {
    pseudonym: HeaderValue,
    via_request: ViaValues,
    via_response: ViaValues,
}

/// One `Via` value per version a message can arrive with.
#[derive(Debug, Clone)]
struct ViaValues {
    http_1_0: HeaderValue,
    http_1_1: HeaderValue,
    http_2: HeaderValue,
}

impl Identity {
    /// The identity of this process; `id` is a random number drawn at start.
    #[must_use]
    pub fn new(id: u64) -> Self {
        let pseudonym = format!("tidegate-{id:016x}");
        Self {
            via_request: ViaValues::new(&pseudonym),
            via_response: ViaValues::new("tidegate"),
            pseudonym: ascii_value(pseudonym),
        }
    }

    /// True when a request has passed this very process before: answered 508.
    #[must_use]
    pub fn is_loop(&self, headers: &HeaderMap) -> bool {
        let own = self.pseudonym.as_bytes();
        let via = members(headers, &VIA).any(|member| {
            let mut words = member.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            words.nth(1) == Some(own)
        });
        via || members(headers, &CDN_LOOP).any(|member| before(member, b';') == own)
    }
}

impl ViaValues {
    fn new(name: &str) -> Self {
        let value = |version| ascii_value(format!("{version} {name}"));
        Self { http_1_0: value("1.0"), http_1_1: value("1.1"), http_2: value("2") }
    }

    fn of(&self, received: Version) -> HeaderValue {
        match received {
            Version::HTTP_09 | Version::HTTP_10 => &self.http_1_0,
            Version::HTTP_2 => &self.http_2,
            _ => &self.http_1_1,
        }
        .clone()
    }
}

/// A field value out of text that is printable ASCII by construction; empty if it were not.
fn ascii_value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// What forwarding a request has to know beside its fields.
#[derive(Debug, Clone)]
pub struct RequestFacts<'a> {
    /// The version the client spoke on its hop.
    pub version: Version,
    /// The client's hop was TLS.
    pub https: bool,
    /// The port the client connected to.
    pub port: u16,
    /// The transport's (or PROXY protocol's) peer; `None` = a fetch for the cache, which speaks for no client.
    pub peer: Option<IpAddr>,
    /// The peer is one of `trusted_proxies`.
    pub trusted: bool,
    /// The protocol to switch to, where the exchange asks for it.
    pub upgrade: Option<&'a str>,
    /// [`kept_request_id`], or a new one.
    pub request_id: HeaderValue,
}

/// The `X-Request-ID` to keep: a trusted peer's, of a sane length and printable.
#[must_use]
pub fn kept_request_id(headers: &HeaderMap, trusted: bool) -> Option<&HeaderValue> {
    let sane = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        (1..=REQUEST_ID_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    headers.get(X_REQUEST_ID).filter(|_| trusted).filter(sane)
}

/// A copy to be forwarded: with room for what [`forward_request`] adds, which would else move all of it.
#[must_use]
pub fn copy_with_room(headers: &HeaderMap) -> HeaderMap {
    let mut copy = HeaderMap::with_capacity(headers.len() + FIELDS_ADDED);
    for (name, value) in headers {
        copy.append(name.clone(), value.clone());
    }
    copy
}

/// Turns the fields a client sent into those the origin gets. `Host` and `Content-Length` are left as they are.
pub fn forward_request(headers: &mut HeaderMap, facts: &RequestFacts<'_>, identity: &Identity) {
    let keep_client = facts.trusted && facts.peer.is_some();
    let te_trailers = members(headers, &TE).any(|member| before(member, b';').eq_ignore_ascii_case(b"trailers"));
    strip(headers, |name| {
        *name == EXPECT || !keep_client && (tells_of_client(name.as_str()) || overrides_target(name.as_str()))
    });

    if let Some(protocol) = facts.upgrade.filter(|protocol| may_upgrade(protocol))
        && let Ok(protocol) = HeaderValue::from_str(protocol)
    {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else if te_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }

    headers.reserve(FIELDS_ADDED);
    add_forwarding(headers, facts);
    headers.insert(X_REQUEST_ID, facts.request_id.clone());
    headers.append(VIA, identity.via_request.of(facts.version));
    headers.append(CDN_LOOP, identity.pseudonym.clone());
}

/// What forwarding a response has to know beside its fields.
#[derive(Debug, Clone, Copy)]
pub struct ResponseFacts {
    /// The version the origin spoke.
    pub version: Version,
    /// The status is 101: `Upgrade` stays.
    pub switching: bool,
    /// When the head arrived.
    pub now: Now,
}

/// Turns the fields an origin sent into those that are stored and go to the client.
pub fn forward_response(headers: &mut HeaderMap, facts: ResponseFacts, identity: &Identity) {
    let upgrade = facts.switching.then(|| headers.get(UPGRADE).cloned()).flatten();
    strip(headers, |_| false);
    if let Some(protocol) = upgrade {
        headers.insert(UPGRADE, protocol);
    }
    if !headers.contains_key(DATE) {
        headers.insert(DATE, ascii_value(httpdate::fmt_http_date(facts.now.wall)));
    }
    headers.append(VIA, identity.via_response.of(facts.version));
}

/// Removes hop-by-hop fields (RFC 9110 §7.6.1) and what `Connection` names from the trailers of a message; framing and
/// routing fields have no business there either (§6.5.1).
pub fn forward_trailers(trailers: &mut HeaderMap) {
    strip(trailers, is_end_to_end);
}

/// Whether an `Upgrade` to `protocol` is passed on. Another version of HTTP, or TLS, would carry requests past every
/// rule here.
#[must_use]
pub fn may_upgrade(protocol: &str) -> bool {
    let name = protocol.split('/').next().unwrap_or_default().trim();
    !name.is_empty() && !["h2c", "h2", "http", "tls"].iter().any(|refused| name.eq_ignore_ascii_case(refused))
}

/// Removes hop-by-hop fields, what `Connection` names, and whatever else `doomed` says.
fn strip(headers: &mut HeaderMap, doomed: impl Fn(&HeaderName) -> bool) {
    let mut names: Vec<HeaderName> =
        headers.keys().filter(|name| is_hop_by_hop(name) || doomed(name)).cloned().collect();
    if names.contains(&CONNECTION) {
        let nominated = members(headers, &CONNECTION).filter(|option| !is_common_option(option));
        let named = nominated.filter_map(|option| HeaderName::from_bytes(option).ok());
        names.extend(named.filter(|name| !is_end_to_end(name)));
    }
    for name in names {
        headers.remove(name);
    }
}

/// Options that name no field worth looking for: nearly all there are.
fn is_common_option(option: &[u8]) -> bool {
    [b"close".as_slice(), b"keep-alive", b"upgrade"].iter().any(|common| option.eq_ignore_ascii_case(common))
}

/// Asked of every field of every message, hence by text: one comparison in most cases.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "http2-settings"
    )
}

/// Fields meant for all recipients, which `Connection` must not name (RFC 9110 §7.6.1), and which are no trailers
/// (§6.5.1).
fn is_end_to_end(name: &HeaderName) -> bool {
    [
        AUTHORIZATION,
        CACHE_CONTROL,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        COOKIE,
        ETAG,
        HOST,
        RANGE,
        SET_COOKIE,
        VARY,
        VIA,
        CDN_LOOP,
        X_REQUEST_ID,
    ]
    .contains(name)
        || tells_of_client(name.as_str())
}

/// Fields that origins read the client's address, scheme or host from.
pub(super) fn tells_of_client(name: &str) -> bool {
    name.starts_with("x-forwarded")
        || matches!(
            name,
            "forwarded"
                | "x-real-ip"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "x-original-forwarded-for"
                | "client-ip"
                | "true-client-ip"
                | "cf-connecting-ip"
                | "fastly-client-ip"
                | "front-end-https"
        )
}

/// Fields by which some origins let a front server replace the target; a client's copy goes around every route.
pub(super) fn overrides_target(name: &str) -> bool {
    matches!(
        name,
        "x-original-url" | "x-rewrite-url" | "x-original-uri" | "x-original-host" | "x-host" | "x-http-host-override"
    )
}

/// Adds `X-Forwarded-*` and `Forwarded` (RFC 7239). A trusted peer's account of scheme, host and port stands.
fn add_forwarding(headers: &mut HeaderMap, facts: &RequestFacts<'_>) {
    let host = headers.get(HOST).cloned();
    let scheme = if facts.https { "https" } else { "http" };
    // Both fields are slices of one text: the address stands in the longer one too.
    let mut forwarded = BytesMut::with_capacity(FORWARDED_ROOM);
    let address = facts.peer.map(|peer| {
        let peer = peer.to_canonical();
        let (before, after) = if peer.is_ipv4() { ("for=", ";") } else { ("for=\"[", "]\";") };
        forwarded.put_slice(before.as_bytes());
        let start = forwarded.len();
        spell(&mut forwarded, peer);
        let end = forwarded.len();
        forwarded.put_slice(after.as_bytes());
        start..end
    });
    // Admission refuses such a Host; should one come by, it must not end the quoted string early.
    if let Some(host) = host.as_ref().and_then(|host| host.to_str().ok()).filter(|host| !host.contains(['"', '\\'])) {
        for part in ["host=\"", host, "\";"] {
            forwarded.put_slice(part.as_bytes());
        }
    }
    forwarded.put_slice(b"proto=");
    forwarded.put_slice(scheme.as_bytes());
    let forwarded = forwarded.freeze();
    if let Some(address) = address {
        append_member(headers, X_FORWARDED_FOR, forwarded.slice(address));
    }
    append_member(headers, FORWARDED, forwarded);

    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(scheme));
    if let Some(host) = host {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
    headers.entry(X_FORWARDED_PORT).or_insert_with(|| HeaderValue::from(facts.port));
}

/// Appends an address. IPv4 without the formatting machinery, which costs ten times as much, at every exchange.
fn spell(to: &mut BytesMut, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    to.put_u8(b'.');
                }
                if octet >= 100 {
                    to.put_u8(b'0' + octet / 100);
                }
                if octet >= 10 {
                    to.put_u8(b'0' + octet / 10 % 10);
                }
                to.put_u8(b'0' + octet % 10);
            }
        }
        // Writing to memory that grows does not fail.
        IpAddr::V6(address) => drop(write!(to, "{address}")),
    }
}

/// Appends a list member, joining all lines of the field into one: many origins read only one of them.
fn append_member(headers: &mut HeaderMap, name: HeaderName, member: Bytes) {
    match headers.entry(name) {
        Entry::Vacant(place) => {
            if let Ok(value) = HeaderValue::from_maybe_shared(member) {
                place.insert(value);
            }
        }
        Entry::Occupied(mut lines) => {
            let mut joined = BytesMut::new();
            for line in lines.iter() {
                joined.put_slice(line.as_bytes());
                joined.put_slice(b", ");
            }
            joined.put_slice(&member);
            if let Ok(value) = HeaderValue::from_maybe_shared(joined.freeze()) {
                lines.insert(value);
            }
        }
    }
}

/// Whether a field is there. Asked of requests about fields they mostly do not have: looking at as many names as a request
/// has costs less than to hash the one that is sought.
#[must_use]
pub fn has(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.keys().any(|present| present == name)
}

/// The lines of a field that is mostly absent; see [`has`].
pub fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a HeaderValue> {
    has(headers, name).then(|| headers.get_all(name).iter()).into_iter().flatten()
}

/// Takes out what is mostly not there: fields with `unwanted` names.
pub fn remove_where(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| unwanted(name)).cloned() {
        headers.remove(name);
    }
}

/// The members of a comma-separated field over all its lines, trimmed, empty ones left out (RFC 9110 §5.6.1). Quoted
/// strings are not looked into: none of the fields read so here has any before the part that is compared.
fn members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    lines(headers, name)
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

fn before(member: &[u8], separator: u8) -> &[u8] {
    member.split(|&byte| byte == separator).next().unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::clock::Clock;

    fn fields(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').expect("a field");
            headers.append(name.parse::<HeaderName>().expect("a name"), value.trim().parse().expect("a value"));
        }
        headers
    }

    /// Sorted `name: value` lines without those that every forwarded request has alike.
    fn shown(headers: &HeaderMap) -> Vec<String> {
        let same = ["via", "cdn-loop", "x-request-id"];
        let mut lines: Vec<_> = headers
            .iter()
            .filter(|(name, _)| !same.contains(&name.as_str()))
            .map(|(name, value)| format!("{name}: {}", value.as_bytes().escape_ascii()))
            .collect();
        lines.sort();
        lines
    }

    fn facts() -> RequestFacts<'static> {
        RequestFacts {
            version: Version::HTTP_11,
            https: true,
            port: 443,
            peer: None,
            trusted: false,
            upgrade: None,
            request_id: HeaderValue::from_static("ours"),
        }
    }

    /// What a fetch for the cache (which adds the least) sends for `given`.
    #[track_caller]
    fn check(given: &str, facts: &RequestFacts<'_>, expected: &str) {
        let mut headers = fields(given);
        forward_request(&mut headers, facts, &Identity::new(1));
        for name in ["forwarded", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"] {
            headers.remove(name);
        }
        assert_eq!(shown(&headers), shown(&fields(expected)), "{given}");
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        for (given, expected) in [
            ("Host: a\nAccept: */*", "Host: a\nAccept: */*"),
            ("Connection: close\nKeep-Alive: timeout=5\nProxy-Connection: x\nTransfer-Encoding: chunked", ""),
            ("Connection: close, X-Hop\nConnection: X-Other\nX-Hop: 1\nX-Other: 2\nX-Stays: 3", "X-Stays: 3"),
            (
                "Connection: Host, Content-Length, cookie, AUTHORIZATION\nHost: a\nContent-Length: 1\nCookie: c\nAuthorization: b",
                "Host: a\nContent-Length: 1\nCookie: c\nAuthorization: b",
            ),
            ("Connection: \"bad name\", ,\nX: 1", "X: 1"),
            ("TE: gzip, Trailers;q=1\nTrailer: X-Sum", "TE: trailers\nConnection: te\nTrailer: X-Sum"),
            ("TE: gzip", ""),
            ("Upgrade: websocket\nConnection: upgrade", ""),
            ("Upgrade: h2c\nHTTP2-Settings: AAMA\nConnection: Upgrade, HTTP2-Settings", ""),
            ("Proxy-Authorization: Basic x", ""),
            ("Expect: 100-continue\nMax-Forwards: 3", "Max-Forwards: 3"),
            ("traceparent: 00-a-b-01\ntracestate: x=y", "traceparent: 00-a-b-01\ntracestate: x=y"),
        ] {
            check(given, &facts(), expected);
        }
    }

    #[test]
    fn upgrades_pass_unless_they_smuggle_http() {
        for (protocol, expected) in [
            ("websocket", "Upgrade: websocket\nConnection: upgrade"),
            ("h2c", ""),
            ("HTTP/2.0", ""),
            ("TLS/1.2", ""),
            ("", ""),
        ] {
            check("", &RequestFacts { upgrade: Some(protocol), ..facts() }, expected);
        }
    }

    #[test]
    fn addresses_are_spelled_as_everywhere() {
        for address in ["0.0.0.0", "1.10.100.255", "203.0.113.99", "::1", "2001:db8::a:b"] {
            let mut spelled = BytesMut::new();
            spell(&mut spelled, address.parse().expect("an address"));
            assert_eq!(spelled, address);
        }
    }

    #[test]
    fn the_client_is_named_and_spoofed_names_are_not_believed() {
        let spoofed = "Host: a:81\nX-Forwarded-For: 6.6.6.6\nX-Forwarded-For: 7.7.7.7\nForwarded: for=6.6.6.6\n\
                       X-Forwarded-Proto: ftp\nX-Forwarded-Prefix: /x\nX-Real-IP: 6.6.6.6\nX-Original-URL: /admin\n\
                       X-Host: evil\nX-HTTP-Host-Override: evil";
        let own = |peer: &str, quoted: &str| {
            format!(
                "Host: a:81\nX-Forwarded-For: {peer}\nForwarded: for={quoted};host=\"a:81\";proto=https\n\
                 X-Forwarded-Proto: https\nX-Forwarded-Host: a:81\nX-Forwarded-Port: 443"
            )
        };
        let nobody = "Host: a:81\nForwarded: host=\"a:81\";proto=https\nX-Forwarded-Proto: https\n\
                      X-Forwarded-Host: a:81\nX-Forwarded-Port: 443";
        let added = "Host: a:81\nX-Forwarded-For: 6.6.6.6, 7.7.7.7, 9.9.9.9\n\
                     Forwarded: for=6.6.6.6, for=9.9.9.9;host=\"a:81\";proto=https\nX-Forwarded-Proto: ftp\n\
                     X-Forwarded-Host: a:81\nX-Forwarded-Port: 443\nX-Forwarded-Prefix: /x\nX-Real-IP: 6.6.6.6\n\
                     X-Original-URL: /admin\nX-Host: evil\nX-HTTP-Host-Override: evil";
        for (peer, trusted, expected) in [
            (Some("9.9.9.9"), false, own("9.9.9.9", "9.9.9.9")),
            (Some("::ffff:9.9.9.9"), false, own("9.9.9.9", "9.9.9.9")),
            (Some("2001:db8::1"), false, own("2001:db8::1", "\"[2001:db8::1]\"")),
            (Some("9.9.9.9"), true, added.to_owned()),
            (None, false, nobody.to_owned()),
            (None, true, nobody.to_owned()),
        ] {
            let mut headers = fields(spoofed);
            let peer = peer.map(|peer| peer.parse().expect("an address"));
            forward_request(&mut headers, &RequestFacts { peer, trusted, ..facts() }, &Identity::new(1));
            assert_eq!(shown(&headers), shown(&fields(&expected)), "{peer:?} {trusted}");
        }
    }

    #[test]
    fn a_request_id_is_kept_only_from_those_we_trust() {
        let long = format!("X-Request-ID: {}", "a".repeat(REQUEST_ID_MAX + 1));
        for (given, trusted, expected) in [
            ("X-Request-ID: theirs", true, Some("theirs")),
            ("X-Request-ID: theirs", false, None),
            ("X-Request-ID: two words", true, None),
            ("X-Request-ID:", true, None),
            (&long, true, None),
            ("", true, None),
        ] {
            let headers = fields(given);
            assert_eq!(kept_request_id(&headers, trusted).map(HeaderValue::as_bytes), expected.map(str::as_bytes));
        }
    }

    #[test]
    fn our_own_name_in_a_request_is_a_loop() {
        let (own, other) = (Identity::new(0xabc), Identity::new(0xdef));
        let mut headers = fields("Host: a\nVia: 1.0 fred (tidegate-0000000000000def)\nCDN-Loop: edge; x=1");
        assert!(!own.is_loop(&headers));
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            forward_request(&mut headers, &RequestFacts { version, ..facts() }, &own);
        }
        assert!(own.is_loop(&headers) && !other.is_loop(&headers));
        let via: Vec<_> = headers.get_all(VIA).iter().skip(1).collect();
        assert_eq!(
            via,
            ["1.0 tidegate-0000000000000abc", "1.1 tidegate-0000000000000abc", "2 tidegate-0000000000000abc"]
        );
        headers.remove(VIA);
        assert!(own.is_loop(&headers), "CDN-Loop alone shows it");
        assert!(own.is_loop(&fields("Via: 1.1 x,2   tidegate-0000000000000abc (c)")));
    }

    #[test]
    fn responses_lose_hop_by_hop_fields_and_gain_ours() {
        let Now { mono, .. } = Clock::manual().now();
        let now = Now { mono, wall: SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777) };
        let edits = FieldEdits {
            remove: vec![HeaderName::from_static("server"), HeaderName::from_static("x-b")],
            set: vec![(HeaderName::from_static("x-b"), HeaderValue::from_static("2"))],
        };
        let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT";
        for (given, switching, expected) in [
            ("Server: s\nX-B: 1\nX-B: 1\nETag: \"a\"", false, format!("{date}\nX-B: 2\nETag: \"a\"")),
            ("Date: x\nConnection: ETag, X-Hop\nX-Hop: 1\nETag: \"a\"", false, "Date: x\nX-B: 2\nETag: \"a\"".into()),
            ("Date: x\nUpgrade: websocket\nConnection: upgrade", true, "Date: x\nX-B: 2\nUpgrade: websocket".into()),
            ("Date: x\nUpgrade: h2c\nTransfer-Encoding: chunked", false, "Date: x\nX-B: 2".into()),
        ] {
            let mut headers = fields(given);
            let facts = ResponseFacts { version: Version::HTTP_11, switching, now };
            forward_response(&mut headers, facts, &Identity::new(1));
            edits.apply(&mut headers);
            assert_eq!(headers.remove(VIA).expect("added"), "1.1 tidegate");
            assert_eq!(shown(&headers), shown(&fields(&expected)), "{given}");
        }
    }

    #[test]
    fn trailers_carry_no_framing() {
        let mut trailers =
            fields("Content-Length: 3\nTransfer-Encoding: x\nHost: a\nSet-Cookie: x\nX-Sum: 1\nGrpc-Status: 0");
        forward_trailers(&mut trailers);
        assert_eq!(shown(&trailers), ["grpc-status: 0", "x-sum: 1"]);
    }
}
