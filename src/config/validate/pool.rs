//! `[[pool]]`.

use std::ops::RangeInclusive;

use http::HeaderName;

use super::{Validation, items};
use crate::config::model::{PoolConfig, UpstreamTlsConfig};
use crate::config::raw::{
    RawAdaptive, RawBalance, RawEndpoint, RawFailing, RawHealth, RawOriginProtocol, RawOutlier, RawPool, RawPoolTls,
    RawRetry, RawRetryOn, RawSameSite, RawSendProxyProtocol, RawState, RawSticky,
};
use crate::config::shape::Given;
use crate::config::source::Location;
use crate::config::units::{is_host_or_ip, show_duration};
use crate::policy::adaptive::AdaptiveParams;
use crate::policy::balance::hash::HashBy;
use crate::policy::balance::sticky::{SameSite, StickyParams};
use crate::policy::balance::{AdminState, Balance};
use crate::policy::health::grpc::SERVICE_BYTES;
use crate::policy::health::outlier::{Failing, OutlierParams};
use crate::policy::health::{HealthParams, ProbeKind};
use crate::policy::pool::{
    Address, EndpointParams, HostHeader, KeepAlive, OriginProtocol, PoolParams, PoolTimeouts, ProxyProtocol,
    QueueParams,
};
use crate::policy::retry::RetryParams;

impl Validation<'_> {
    /// One pool.
    pub(super) fn pool(&mut self, raw: &Given<RawPool>) -> PoolConfig {
        let (endpoints, endpoints_at) = self.endpoints(items(&raw.endpoints));
        self.somewhere(raw);
        let params = PoolParams {
            name: raw.name.given().map(|name| name.value.0.clone()).unwrap_or_default(),
            balance: match raw.balance.value {
                RawBalance::RoundRobin => Balance::RoundRobin,
                RawBalance::LeastConnections => Balance::LeastConnections,
                RawBalance::RandomTwo => Balance::RandomTwo,
                RawBalance::PeakEwma => Balance::PeakEwma,
                RawBalance::Hash => Balance::Hash,
            },
            hash: self.hash(raw),
            slow_start: raw.slow_start.nonzero(),
            queue: raw.queue.given().map(|queue| QueueParams { max: queue.max.get(), timeout: queue.timeout.0 }),
            max_in_flight: raw.max_in_flight.given().map(|max| max.get()),
            adaptive: raw.adaptive.given().map(|adaptive| self.adaptive(adaptive)),
            sticky: raw.sticky.given().and_then(|sticky| self.sticky(sticky)),
            endpoints,
            discover: raw.discover.given().and_then(|discover| self.discover(discover)),
            resolver: self.resolver(items(&raw.resolver)),
            host: self.host_header(&raw.host),
            health: raw.health.given().map(|health| self.health(health, raw)),
            outlier: raw.outlier.given().map(|raw| outlier(raw)),
            panic: raw.panic.0,
            retry: retry(&raw.retry),
            hedge: raw.hedge.given().and_then(|hedge| Some(hedge.after.given()?.0)),
            timeouts: PoolTimeouts {
                connect: raw.timeouts.connect.0,
                first_byte: raw.timeouts.first_byte.0,
                idle: raw.timeouts.idle.0,
                total: raw.timeouts.total.nonzero(),
            },
            keep_alive: KeepAlive {
                idle: raw.keep_alive.idle.get::<u32>() as usize,
                timeout: raw.keep_alive.timeout.0,
            },
            protocol: match raw.protocol.value {
                RawOriginProtocol::Http1 => OriginProtocol::Http1,
                RawOriginProtocol::Http2 => OriginProtocol::Http2,
                RawOriginProtocol::Auto => OriginProtocol::Auto,
            },
            proxy_protocol: self.proxy_protocol(raw),
        };
        PoolConfig { params, tls: raw.tls.given().map(|tls| self.pool_tls(tls)), endpoints_at }
    }

    fn adaptive(&mut self, raw: &RawAdaptive) -> AdaptiveParams {
        let (min, max): (u32, u32) = (raw.min.get(), raw.max.get());
        if min > max {
            self.faults.push(raw.min.place.fault(format!("is {min}, more than max, which is {max}"), ""));
        }
        // Whoever reads this clamps by it.
        AdaptiveParams { min: min.min(max), max }
    }

    fn sticky(&mut self, raw: &RawSticky) -> Option<StickyParams> {
        let cookie = raw.cookie.given()?;
        // A cookie's name is a token, as a field's is (RFC 6265 §4.1.1); a star in it would be a pattern to whoever
        // strips cookies.
        if cookie.parse::<HeaderName>().is_err() || cookie.contains('*') {
            let what = format!("must be the name of a cookie, got {:?}", cookie.value);
            self.faults.push(cookie.place.fault(what, ""));
        }
        let same_site = match raw.same_site.value {
            RawSameSite::Strict => SameSite::Strict,
            RawSameSite::Lax => SameSite::Lax,
            RawSameSite::None => SameSite::None,
        };
        Some(StickyParams { cookie: cookie.value.clone(), ttl: raw.ttl.nonzero(), same_site })
    }

    /// `hash`, which stands with `balance = "hash"` and with no other.
    fn hash(&mut self, raw: &RawPool) -> Option<HashBy> {
        let by_hash = raw.balance.value == RawBalance::Hash;
        let Some(given) = raw.hash.given() else {
            if by_hash && raw.hash.is_absent() {
                let help = "add hash = \"client-ip\", \"uri\", \"header:NAME\" or \"cookie:NAME\"";
                self.faults.push(raw.balance.place.fault("= \"hash\" needs something to hash", help));
            }
            return None;
        };
        if !by_hash {
            let what = "has no effect without balance = \"hash\"";
            self.faults.push(given.place.fault(what, "add balance = \"hash\", or remove it"));
        }
        self.hash_by(given)
    }

    /// What requests are told apart by.
    pub(super) fn hash_by(&mut self, given: &Given<String>) -> Option<HashBy> {
        let by = hash_by(given);
        if by.is_none() {
            let what =
                format!("must be \"client-ip\", \"uri\", \"header:NAME\" or \"cookie:NAME\", got {:?}", given.value);
            self.faults.push(given.place.fault(what, ""));
        }
        by
    }

    /// The endpoints and where their addresses stand; an address may be there once.
    pub(super) fn endpoints(&mut self, raw: &[Given<RawEndpoint>]) -> (Vec<EndpointParams>, Vec<Location>) {
        let mut endpoints: Vec<EndpointParams> = Vec::new();
        let mut places: Vec<Location> = Vec::new();
        for endpoint in raw {
            let Some(given) = endpoint.address.given() else { continue };
            let address = match &given.value {
                Address::Unix(path) => Address::Unix(given.place.at.resolve(&path.to_string_lossy())),
                other => other.clone(),
            };
            let first = endpoints.iter().zip(&places).find(|(earlier, _)| earlier.address == address);
            if let Some((_, first)) = first {
                let fault = given.place.fault(format!("= \"{address}\" is listed twice"), "raise its weight instead");
                self.faults.push(fault.related(first, "first listed here"));
            }
            endpoints.push(EndpointParams {
                address,
                weight: endpoint.weight.get(),
                max_connections: endpoint.max_connections.given().map(|max| max.get()),
                tier: endpoint.backup.value.into(),
                state: match endpoint.state.value {
                    RawState::Up => AdminState::Up,
                    RawState::Drain => AdminState::Drain,
                    RawState::Down => AdminState::Down,
                },
                discovered: false,
            });
            places.push(given.place.at.clone());
        }
        (endpoints, places)
    }

    fn host_header(&mut self, raw: &Given<String>) -> HostHeader {
        match raw.as_str() {
            "preserve" => HostHeader::Preserve,
            "endpoint" => HostHeader::Endpoint,
            name => {
                let host =
                    name.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(name, |(h, _)| h);
                if !is_host_or_ip(host.trim_matches(['[', ']'])) {
                    let what = format!("must be \"preserve\", \"endpoint\" or a host name, got {name:?}");
                    self.faults.push(raw.place.fault(what, ""));
                }
                HostHeader::Name(name.to_owned())
            }
        }
    }

    /// A connection that carries the exchanges of many clients cannot say whose it is.
    fn proxy_protocol(&mut self, raw: &RawPool) -> Option<ProxyProtocol> {
        let given = raw.send_proxy_protocol.given()?;
        if raw.protocol.value != RawOriginProtocol::Http1 {
            let what = "needs protocol = \"http/1.1\": an HTTP/2 connection carries many clients";
            self.faults.push(given.place.fault(what, "remove one of them; Forwarded names the client too"));
        }
        Some(match given.value {
            RawSendProxyProtocol::V1 => ProxyProtocol::V1,
            RawSendProxyProtocol::V2 => ProxyProtocol::V2,
        })
    }

    fn health(&mut self, raw: &Given<RawHealth>, pool: &RawPool) -> HealthParams {
        if raw.timeout.0 > raw.interval.0 {
            // A probe that outlives the interval would meet the next one.
            let (timeout, interval) = (show_duration(raw.timeout.0), show_duration(raw.interval.0));
            let what = format!("is {timeout}, longer than the interval of {interval}");
            self.faults.push(raw.timeout.place.fault(what, "make timeout shorter or interval longer"));
        }
        let fast = raw.fast_interval.given();
        if let Some(fast) = fast.filter(|fast| fast.0 > raw.interval.0) {
            let (slow, interval) = (show_duration(fast.0), show_duration(raw.interval.0));
            let what = format!("is {slow}, longer than the interval of {interval}");
            self.faults.push(fast.place.fault(what, ""));
        }
        HealthParams {
            kind: self.probe_kind(raw, pool),
            interval: raw.interval.0,
            fast_interval: fast.map_or(raw.interval.0, |fast| fast.0),
            timeout: raw.timeout.0,
            rise: raw.rise.get(),
            fall: raw.fall.get(),
        }
    }

    /// `path`, or `grpc`, or `tcp = true`; `expect` and `expect_body` mean something with the first alone.
    fn probe_kind(&mut self, raw: &Given<RawHealth>, pool: &RawPool) -> ProbeKind {
        let expect = self.expect(&raw.expect);
        let of_path = [
            raw.path.given().map(|path| &path.place),
            raw.expect.written.then_some(&raw.expect.place),
            raw.expect_body.given().map(|text| &text.place),
        ];
        if raw.tcp.value {
            for place in of_path.into_iter().chain([raw.grpc.given().map(|service| &service.place)]).flatten() {
                self.faults.push(place.fault("has no effect with tcp = true", "remove one of them"));
            }
            return ProbeKind::Tcp;
        }
        if let Some(service) = raw.grpc.given() {
            for place in of_path.into_iter().flatten() {
                self.faults.push(place.fault("has no effect with grpc", "remove one of them"));
            }
            let over_http2 = match pool.protocol.value {
                RawOriginProtocol::Http1 => false,
                RawOriginProtocol::Http2 => true,
                RawOriginProtocol::Auto => !pool.tls.is_absent(),
            };
            if !over_http2 {
                self.faults.push(service.place.fault("needs HTTP/2 to the origin", "add protocol = \"h2\""));
            }
            if service.len() > SERVICE_BYTES {
                let what = format!("must have {SERVICE_BYTES} bytes at most");
                self.faults.push(service.place.fault(what, ""));
            }
            return ProbeKind::Grpc { service: service.value.clone() };
        }
        if raw.path.is_absent() {
            let help = "add path = \"/\", or grpc = \"\" for a gRPC server";
            self.faults.push(raw.place.fault("needs a path, grpc, or tcp = true", help));
        }
        let path = raw.path.given().map(|given| {
            if !given.starts_with('/') || given.bytes().any(|b| !b.is_ascii_graphic()) {
                let what = format!("must be a path, got {:?}", given.value);
                self.faults.push(given.place.fault(what, "begin it with \"/\" and percent-encode what is not ASCII"));
            }
            given.value.clone()
        });
        let expect_body = raw.expect_body.given().map(|text| text.value.clone());
        ProbeKind::Http { path: path.unwrap_or_default(), expect, expect_body }
    }

    /// `200-399` or `200,204,301-302`.
    fn expect(&mut self, raw: &Given<String>) -> Vec<RangeInclusive<u16>> {
        let ranges: Option<Vec<_>> = raw.split(',').map(|range| status_range(range.trim())).collect();
        ranges.unwrap_or_else(|| {
            let what = format!("must be statuses, got {:?}", raw.value);
            self.faults.push(raw.place.fault(what, "write \"200-399\" or \"200,204,301-302\""));
            Vec::new()
        })
    }

    fn pool_tls(&mut self, raw: &Given<RawPoolTls>) -> UpstreamTlsConfig {
        if let Some(name) = raw.server_name.given().filter(|name| !is_host_or_ip(name)) {
            let what = format!("must be a host name or an IP address, got {:?}", name.value);
            self.faults.push(name.place.fault(what, "leave out scheme and port"));
        }
        if let (true, Some(ca)) = (raw.insecure.value, raw.ca.given()) {
            self.faults.push(ca.place.warning("has no effect: insecure = true verifies nothing", "remove one of them"));
        }
        let at = raw.ca.given().map_or(&raw.place, |ca| &ca.place).at.clone();
        UpstreamTlsConfig {
            server_name: raw.server_name.given().map(|name| name.to_ascii_lowercase()),
            ca_pem: raw.ca.given().map(|ca| self.contents(ca).1),
            client: raw.client.given().map(|client| self.certificate(client)),
            insecure: raw.insecure.value,
            at,
        }
    }
}

fn hash_by(text: &str) -> Option<HashBy> {
    match text.split_once(':') {
        None if text == "client-ip" => Some(HashBy::ClientIp),
        None if text == "uri" => Some(HashBy::Uri),
        Some(("header", name)) => name.parse().ok().map(HashBy::Header),
        // A cookie's name is a token, as a field's is (RFC 6265 §4.1.1), but its case matters.
        Some(("cookie", name)) => name.parse::<HeaderName>().ok().map(|_| HashBy::Cookie(name.to_owned())),
        _ => None,
    }
}

fn status_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    let (first, last) = (status(first)?, status(last)?);
    (first <= last).then_some(first..=last)
}

fn outlier(raw: &RawOutlier) -> OutlierParams {
    let failing = |word: &RawFailing| match word {
        RawFailing::Connect => Failing::Connect,
        RawFailing::Reset => Failing::Reset,
        RawFailing::Timeout => Failing::Timeout,
        RawFailing::ServerError => Failing::ServerError,
    };
    OutlierParams {
        consecutive_errors: raw.consecutive_errors.get(),
        error_share: raw.error_share.given().map(|share| share.0),
        on: raw.on.values().map(failing).collect(),
        eject_for: raw.eject_for.0,
        max_ejected: raw.max_ejected.0,
    }
}

fn retry(raw: &RawRetry) -> RetryParams {
    let on = |kind| raw.on.values().any(|listed| *listed == kind);
    let statuses =
        [(RawRetryOn::BadGateway, 502), (RawRetryOn::ServiceUnavailable, 503), (RawRetryOn::GatewayTimeout, 504)];
    RetryParams {
        attempts: raw.attempts.get(),
        on_connect: on(RawRetryOn::Connect),
        on_reset: on(RawRetryOn::Reset),
        on_timeout: on(RawRetryOn::Timeout),
        on_status: statuses.into_iter().filter(|(kind, _)| on(*kind)).map(|(_, status)| status).collect(),
        budget: raw.budget.0,
        backoff: raw.backoff.0,
    }
}

#[cfg(test)]
mod tests {
    use super::status_range;

    #[test]
    fn statuses_come_alone_or_as_a_range() {
        for (text, expected) in [
            ("200", Some(200..=200)),
            ("200-399", Some(200..=399)),
            ("399-200", None),
            ("99", None),
            ("200-", None),
            ("2xx", None),
        ] {
            assert_eq!(status_range(text), expected, "{text}");
        }
    }
}
