//! `[[listener]]`, and which addresses get in each other's way.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Validation, items};
use crate::config::model::{
    CertificateConfig, ClientAuthConfig, Config, ListenerConfig, ListenerLimits, ListenerTimeouts, RedirectToHttps,
    TlsConfig,
};
use crate::config::raw::{
    RawCertificate, RawClientAuth, RawClientAuthMode, RawListener, RawListenerLimits, RawListenerTimeouts, RawProtocol,
    RawRedirectToHttps, RawRoot, RawTls, RawTlsVersion,
};
use crate::config::shape::{Given, Place};
use crate::config::units::{is_host_name, is_host_or_ip};
use crate::policy::pool::Address;

impl Validation<'_> {
    /// One listener.
    pub(super) fn listener(&mut self, raw: &Given<RawListener>) -> ListenerConfig {
        if let (Some(tls), false) = (raw.tls.given(), raw.redirect_to_https.is_absent()) {
            let help = "remove one of them: this listener is HTTPS already";
            self.faults.push(tls.place.fault("and redirect_to_https exclude each other", help));
        }
        let speaks = |protocol| raw.protocols.values().any(|listed| *listed == protocol);
        ListenerConfig {
            name: raw.name.given().map(|name| name.value.0.clone()).unwrap_or_default(),
            address: raw
                .address
                .given()
                .map_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0), |given| given.value),
            at: raw.address.given().map_or_else(|| raw.place.at.clone(), |given| given.place.at.clone()),
            h2: speaks(RawProtocol::H2),
            http1: speaks(RawProtocol::Http1),
            proxy_protocol: raw
                .proxy_protocol
                .given()
                .map(|proxy| items(&proxy.trusted).iter().map(|network| network.value).collect()),
            trusted_proxies: raw.trusted_proxies.values().copied().collect(),
            timeouts: timeouts(&raw.timeouts),
            limits: limits(&raw.limits),
            tls: raw.tls.given().map(|tls| self.tls(tls)),
            redirect_to_https: raw.redirect_to_https.given().map(|redirect| match &redirect.value {
                RawRedirectToHttps::Port(port) => RedirectToHttps::Port(*port),
                RawRedirectToHttps::Base(base) => RedirectToHttps::Base(base.clone()),
            }),
        }
    }

    fn tls(&mut self, raw: &Given<RawTls>) -> TlsConfig {
        if raw.certificates.is_absent() == raw.self_signed.is_absent() {
            self.faults.push(raw.place.fault("must have exactly one of certificates and self_signed", ""));
        }
        let names = items(&raw.self_signed);
        for name in names {
            let bare = name.strip_prefix("*.").unwrap_or(name);
            if !is_host_name(bare) && !is_host_or_ip(name) {
                let what = format!("must be a host name or an IP address, got {:?}", name.value);
                self.faults.push(name.place.fault(what, ""));
            }
        }
        TlsConfig {
            certificates: items(&raw.certificates).iter().map(|pair| self.certificate(pair)).collect(),
            self_signed: names.iter().map(|name| name.to_ascii_lowercase()).collect(),
            tls13_only: raw.min_version.value == RawTlsVersion::Tls13,
            strict_sni: raw.strict_sni.value,
            client_auth: raw.client_auth.given().map(|auth| self.client_auth(auth)),
            at: raw.place.at.clone(),
        }
    }

    /// A certificate and its key, read.
    pub(super) fn certificate(&mut self, raw: &RawCertificate) -> CertificateConfig {
        let mut read = |key: Option<&Given<String>>| {
            key.map(|file| (self.contents(file), file.place.at.clone())).unwrap_or_default()
        };
        let ((cert, cert_pem), at) = read(raw.cert.given());
        let ((key, key_pem), key_at) = read(raw.key.given());
        CertificateConfig { cert, key, cert_pem, key_pem, at, key_at }
    }

    fn client_auth(&mut self, raw: &RawClientAuth) -> ClientAuthConfig {
        let (ca_pem, at) =
            raw.ca.given().map(|file| (self.contents(file).1, file.place.at.clone())).unwrap_or_default();
        ClientAuthConfig { ca_pem, at, required: raw.mode.value == RawClientAuthMode::Require }
    }

    /// Reports listeners that could not be bound beside each other, the admin listener and demo origins included.
    pub(super) fn addresses(&mut self, raw: &RawRoot, config: &Config) {
        let mut taken: Vec<(SocketAddr, Place, String)> = Vec::new();
        let listeners = items(&raw.listener).iter().filter_map(|listener| {
            let given = listener.address.given()?;
            let name = listener.name.given().map(|name| name.value.0.clone()).unwrap_or_default();
            Some((given.value, given.place.clone(), format!("listener {name:?}")))
        });
        let admin = match config.admin.address {
            Address::Ip(address) => Some((address, raw.admin.address.given().map(|given| given.place.clone()))),
            Address::Name(..) | Address::Unix(_) => None,
        };
        let admin = admin.map(|(address, place)| (address, place.unwrap_or_default(), "the admin listener".to_owned()));
        let origins = raw.demo.given().into_iter().flat_map(|demo| {
            let count: u16 = demo.origins.given().map_or(0, |origins| origins.get());
            let first: u16 = demo.port.get();
            (first..first + count).map(|port| {
                (SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port), demo.place.clone(), "a demo origin".to_owned())
            })
        });
        // Those that may stand in no file come first, so that the fault is shown at the one that does.
        for (address, place, what) in admin.into_iter().chain(origins).chain(listeners) {
            if let Some((other, other_place, other_what)) = taken.iter().find(|(other, ..)| overlap(*other, address)) {
                let said = format!("= \"{address}\" overlaps with {other_what} on {other}");
                let fault = place.fault(said, "give each its own address or port");
                let shown = other_place.at.line_column().is_some();
                self.faults.push(if shown {
                    fault.related(&other_place.at, format!("{other_what} is here"))
                } else {
                    fault
                });
            }
            taken.push((address, place, what));
        }
    }
}

/// True when both cannot be bound: the same port, on one address or on one that includes the other. `[::]` does not
/// include IPv4: listeners bind it for IPv6 alone. Port 0 is a different one each time.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let includes = |outer: SocketAddr, inner: SocketAddr| {
        outer.ip() == inner.ip() || (outer.ip().is_unspecified() && outer.is_ipv4() == inner.is_ipv4())
    };
    a.port() == b.port() && a.port() != 0 && (includes(a, b) || includes(b, a))
}

fn timeouts(raw: &RawListenerTimeouts) -> ListenerTimeouts {
    ListenerTimeouts {
        handshake: raw.handshake.0,
        headers: raw.headers.0,
        body: raw.body.0,
        write: raw.write.0,
        idle: raw.idle.0,
    }
}

fn limits(raw: &RawListenerLimits) -> ListenerLimits {
    ListenerLimits {
        header_bytes: raw.header_bytes.bytes(),
        headers: raw.headers.get::<u32>() as usize,
        uri: raw.uri.bytes(),
        streams: raw.streams.get(),
        connections_per_client: raw.connections_per_client.get::<u32>() as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn an_address_overlaps_with_what_it_includes() {
        for (a, b, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("[::]:80", "[::1]:80", true),
            ("[::]:80", "0.0.0.0:80", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            assert_eq!(overlap(a.parse().unwrap(), b.parse().unwrap()), expected, "{a} {b}");
        }
    }
}
