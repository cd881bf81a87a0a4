//! `[[listener]]`.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::{DAY, HOUR, KIB, MIB};
use crate::config::diagnostics::Diagnostics;
use crate::config::shape::{List, Place, Refused, Shape, read_text};
use crate::config::table::{table, words};
use crate::config::tree::{Node, Value};
use crate::config::units::{Int, Name, Size, Span};

table! {
    /// Where clients connect.
    RawListener {
        /// Unique; routes name it.
        name: Name [required],
        /// An IP address and port, such as 0.0.0.0:8443 or [::]:8443.
        address: SocketAddr [required],
        /// What it speaks: by ALPN with TLS, by prior knowledge without.
        protocols: List<RawProtocol, 1> = List::of([RawProtocol::H2, RawProtocol::Http1]),
        /// Expects a PROXY protocol header (v1 or v2) from trusted balancers. Absent: off.
        proxy_protocol: RawProxyProtocol,
        /// Networks whose X-Forwarded-* and Forwarded are believed.
        trusted_proxies: List<IpNet> = List::default(),
        /// How long clients may take.
        timeouts: RawListenerTimeouts [nested],
        /// How much clients may send.
        limits: RawListenerLimits [nested],
        /// Terminates TLS. Absent: plain HTTP.
        tls: RawTls,
        /// Answers every request with a redirect to HTTPS: the port there, or a base URL. Absent: serves.
        redirect_to_https: RawRedirectToHttps,
    }
}

words! {
    /// One of `protocols`.
    RawProtocol {
        "h2" => H2,
        "http/1.1" => Http1,
    }
    later { "h3" }
}

table! {
    /// PROXY protocol.
    RawProxyProtocol {
        /// Networks that must, and alone may, send the header.
        trusted: List<IpNet, 1> [required],
    }
}

table! {
    /// How long clients may take.
    RawListenerTimeouts {
        /// PROXY header and TLS handshake together.
        handshake: Span<10, HOUR> = Span::seconds(10),
        /// From the first byte of a request to the end of its head.
        headers: Span<10, HOUR> = Span::seconds(10),
        /// Longest silence inside a request body.
        body: Span<10, HOUR> = Span::seconds(30),
        /// Longest time a write may make no progress.
        write: Span<10, HOUR> = Span::seconds(30),
        /// Longest silence between two requests.
        idle: Span<10, DAY> = Span::seconds(60),
    }
}

table! {
    /// How much clients may send.
    RawListenerLimits {
        /// Bytes of a request head.
        header_bytes: Size<KIB, MIB> = Size(32 * KIB),
        /// Number of header fields.
        headers: Int<8, 1000> = Int(100),
        /// Bytes of the request target.
        uri: Size<64, MIB> = Size(8 * KIB),
        /// Concurrent HTTP/2 streams of a connection.
        streams: Int<1, 10_000> = Int(128),
        /// Connections of one client address (IPv6: of one /64).
        connections_per_client: Int<1, 1_000_000> = Int(1000),
    }
}

table! {
    /// TLS termination: certificates from files, or a self-signed one.
    RawTls {
        /// Certificate chains and keys, PEM. Several may serve one name with other key types; ECDSA is preferred.
        certificates: List<RawCertificate, 1>,
        /// Development: names for a certificate made on first start and kept in state_dir.
        self_signed: List<String, 1>,
        /// Oldest version of TLS.
        min_version: RawTlsVersion = RawTlsVersion::Tls12,
        /// Refuses handshakes whose server name no certificate covers, instead of showing the first certificate.
        strict_sni: bool = false,
        /// Asks clients for certificates. Absent: does not.
        client_auth: RawClientAuth,
    }
}

words! {
    /// `min_version`
    RawTlsVersion {
        "1.2" => Tls12,
        "1.3" => Tls13,
    }
}

table! {
    /// A certificate and its key.
    RawCertificate {
        /// PEM file of the chain, relative to this file.
        cert: String [required],
        /// PEM file of the key, relative to this file.
        key: String [required],
    }
}

table! {
    /// Client certificates.
    RawClientAuth {
        /// PEM file of the authorities that clients' certificates must chain to.
        ca: String [required],
        /// request: a client may come without; require: it may not.
        mode: RawClientAuthMode = RawClientAuthMode::Require,
    }
}

words! {
    /// `mode`
    RawClientAuthMode {
        "request" => Request,
        "require" => Require,
    }
}

/// `redirect_to_https`
#[derive(Debug, Clone)]
pub(in crate::config) enum RawRedirectToHttps {
    /// A port.
    Port(u16),
    /// A base URL without a trailing slash.
    Base(String),
}

type Port = Int<1, 65_535>;

impl Shape for RawRedirectToHttps {
    fn read(node: &Node, place: &Place, faults: &mut Diagnostics) -> Option<Self> {
        if let Value::Integer(_) = node.value {
            return Port::read(node, place, faults).map(|port| Self::Port(port.get()));
        }
        read_text(node, place, faults, |text| {
            let refused = |help: &str| Refused::new(format!("must be a port or a base URL, got {text:?}"), help);
            let uri: http::Uri = text.parse().map_err(|_| refused("write 8443 or \"https://shop.example\""))?;
            match (uri.scheme_str(), uri.query()) {
                (Some("https"), None) => Ok(Self::Base(text.trim_end_matches('/').to_owned())),
                _ => Err(refused("the URL must begin with https:// and have no query")),
            }
        })
    }

    fn schema() -> Json {
        json!({ "anyOf": [Port::schema(), { "type": "string", "pattern": "^https://|\\$\\{" }] })
    }
}
