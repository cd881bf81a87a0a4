//! Decisions that every exchange takes.

use std::hash::RandomState;
use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use divan::{Bencher, black_box};
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL};
use http::{HeaderMap, HeaderValue, Method};
use tidegate::policy::cache::KeyParams;
use tidegate::policy::cache::directives::{RequestDirectives, ResponseDirectives};
use tidegate::policy::cache::key::{self, KeyFacts, Seeds};
use tidegate::policy::encoding::{Coding, negotiate};
use tidegate::policy::route::{HostPattern, PathPattern, RouteFacts, RouteMatch, RouteTable};
use tidegate::policy::uri::normalise;

fn field(name: http::HeaderName, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
}

#[divan::bench]
fn target_normalised(bencher: Bencher<'_, '_>) {
    let target = Bytes::from_static(b"/shop/coats/../shoes/%7Eleather?size=42&colour=brown&page=3");
    bencher.bench_local(|| normalise(black_box(&target)));
}

#[divan::bench]
fn key_built(bencher: Bencher<'_, '_>) {
    let seeds = Seeds { first: RandomState::new(), second: RandomState::new() };
    let (headers, params) = (HeaderMap::new(), KeyParams::default());
    let facts = KeyFacts {
        scheme: "https",
        host: "shop.example",
        path: "/shop/shoes/leather",
        query: Some("size=42&colour=brown&page=3"),
        policy: "pages",
        route: None,
        content: None,
        headers: &headers,
    };
    bencher.bench_local(|| key::build(black_box(&facts), &params, &seeds));
}

/// Among as many routes as told, a tenth of them on the host.
#[divan::bench(args = [10, 1000])]
fn route_found(bencher: Bencher<'_, '_>, routes: usize) {
    let route = |n: usize| RouteMatch {
        name: n.to_string(),
        hosts: vec![HostPattern::Exact(format!("shop-{}.example", n / 10))],
        path: PathPattern::Prefix(format!("/part-{}", n % 10)),
        ..RouteMatch::default()
    };
    let table = RouteTable::build((0..routes).map(route).collect());
    let headers = HeaderMap::new();
    let facts = RouteFacts {
        listener: "http",
        listener_redirects: false,
        host: "shop-0.example",
        path: "/part-9/a",
        query: None,
        method: &Method::GET,
        headers: &headers,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    assert_eq!(table.find(&facts), Some(9));
    bencher.bench_local(|| table.find(black_box(&facts)));
}

#[divan::bench]
fn request_directives_parsed(bencher: Bencher<'_, '_>) {
    let headers = field(CACHE_CONTROL, "max-age=0, max-stale=60");
    bencher.bench_local(|| RequestDirectives::parse(black_box(&headers)));
}

#[divan::bench]
fn response_directives_parsed(bencher: Bencher<'_, '_>) {
    let headers = field(CACHE_CONTROL, "public, max-age=600, s-maxage=3600, stale-while-revalidate=60");
    bencher.bench_local(|| ResponseDirectives::parse(black_box(&headers)));
}

#[divan::bench]
fn coding_negotiated(bencher: Bencher<'_, '_>) {
    let headers = field(ACCEPT_ENCODING, "gzip, deflate, br;q=0.9, zstd");
    bencher.bench_local(|| negotiate(black_box(&headers), &[Coding::Zstd, Coding::Br, Coding::Gzip]));
}
