//! Probes by gRPC: `grpc.health.v1.Health/Check` against servers that say all they can say.

use std::sync::Arc;

use crate::support::frames::{Frames, Step, code};
use crate::support::gate::{Gate, Watched};
use crate::support::h2_origin::{H2Origin, Habits, Reply, Seen};
use crate::support::pki::Pki;
use crate::support::tidegate::{PLAIN, Setup, Tidegate};

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// The answer of a server that says this status.
fn says(status: u8) -> Reply {
    let reply = Reply::ok([0, 0, 0, 0, 2, 8, status]).field("content-type", "application/grpc");
    reply.trailer("grpc-status", "0")
}

/// A call that failed before there was a message: its status is in the only head.
fn trailers_only(code: &str) -> Reply {
    Reply::new(200).field("content-type", "application/grpc").field("grpc-status", code)
}

fn watching(address: impl std::fmt::Display, more: &str) -> String {
    let health = "health = { grpc = \"shop.v1.Shop\", interval = \"100ms\", timeout = \"100ms\", rise = 1, fall = 1 }";
    format!(
        "{PLAIN}[[pool]]\nname = \"web\"\nprotocol = \"h2\"\nendpoints = [{{ address = \"{address}\" }}]\n{health}\n{more}\n[[route]]\npool = \"web\"\n"
    )
}

/// The detail of the last probe, once there is one that says so.
#[track_caller]
fn wait_verdict(gate: &Tidegate, healthy: bool, detail: &str) {
    gate.wait_status(&format!("{healthy} {detail}"), |status| {
        let row = &status["pools"][0]["endpoints"][0];
        let probes = row["last_probes"].as_array()?;
        let told = probes.last()?["detail"].as_str()? == detail;
        (row["healthy"] == healthy && told).then_some(())
    });
}

#[test]
fn a_server_is_well_when_it_says_serving_and_not_otherwise() {
    let never = Gate::new();
    let word = Watched::<Reply>::default();
    word.update(|word| *word = says(1));
    let script = {
        let word = word.clone();
        move |_: &Seen| word.read(Reply::clone)
    };
    let origin = H2Origin::start(script);
    let gate = Tidegate::start(&watching(origin.address(), ""));
    wait_verdict(&gate, true, "200");
    let asked = origin.seen().swap_remove(0);
    assert_eq!((asked.method.as_str(), asked.uri.ends_with(CHECK)), ("POST", true), "{asked:?}");
    assert_eq!(asked.body, [&[0, 0, 0, 0, 14, 0x0a, 12][..], b"shop.v1.Shop"].concat());
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "100m")] {
        assert_eq!(asked.fields.get(name), Some(value));
    }
    for (reply, detail) in [
        (says(2), "grpc_not_serving 200"),
        (says(0), "grpc_not_serving 200"),
        (says(3), "grpc_not_serving 200"),
        (trailers_only("12"), "grpc_unimplemented 200"),
        (trailers_only("5"), "grpc_not_found 200"),
        (trailers_only("14"), "grpc_error 200"),
        (trailers_only("0"), "grpc_malformed 200"),
        (Reply::ok([0, 0, 0, 0, 2, 8, 1]), "grpc_no_status 200"),
        (Reply::ok("<html>").trailer("grpc-status", "0"), "grpc_malformed 200"),
        (Reply::ok(vec![0; 100_000]).trailer("grpc-status", "0"), "health_page_large"),
        (Reply::new(404), "unexpected_status 404"),
        (says(1).hold(&never), "total_timeout"),
    ] {
        word.update(|word| *word = reply);
        wait_verdict(&gate, false, detail);
        word.update(|word| *word = says(1));
        wait_verdict(&gate, true, "200");
    }
}

#[test]
fn the_call_goes_over_the_pools_tls() {
    let pki = Pki::new();
    let mut config = (*pki.origin(&pki.server(&["origin.example"]), false)).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    let origin = H2Origin::with(Habits { tls: Some(config), ..Habits::default() }, |_| says(1));
    for (name, detail) in [("origin.example", "200"), ("other.example", "tls_certificate")] {
        let keys = format!("tls = {{ ca = \"ca.pem\", server_name = \"{name}\" }}");
        let gate = Setup::new().file("ca.pem", pki.ca()).start(&watching(origin.address(), &keys));
        wait_verdict(&gate, detail == "200", detail);
    }
}

#[test]
fn a_call_that_is_reset_or_not_understood_is_no_verdict_in_favour() {
    let reset = Frames::always(vec![Step::Reset(code::INTERNAL_ERROR)]);
    let gate = Tidegate::start(&watching(reset.address(), ""));
    wait_verdict(&gate, false, "connection_closed");
    let plain = crate::support::origin::Origin::always(crate::support::origin::Reply::ok("HTTP/1.1 only"));
    let gate = Tidegate::start(&watching(plain.address(), ""));
    wait_verdict(&gate, false, "not_http2");
}
