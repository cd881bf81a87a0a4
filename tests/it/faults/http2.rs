//! The faults of RFC 9113's framing, streams and windows, written frame by frame.

use std::net::SocketAddr;

use super::{KEYS, ask_both, expect_fault};
use crate::support::client::Request;
use crate::support::frames::{Frames, Manners, Step, code, head};
use crate::support::gate::Gate;
use crate::support::h2;
use crate::support::origin::{End, Origin, Reply};
use crate::support::tidegate::{PLAIN, Tidegate};

/// Timeouts that no fault but silence should need, however slow the machine.
const PATIENT: &str = "timeouts = { connect = \"5s\", first_byte = \"5s\", idle = \"5s\" }\nretry = { attempts = 1 }\n";

/// What waits is to be cut off soon, all else is to end by itself.
fn keys_for(steps: &[Step]) -> &'static str {
    if steps.iter().any(|step| matches!(step, Step::Wait(_))) { KEYS } else { PATIENT }
}

/// A pool in HTTP/2 by prior knowledge.
fn facing_http2(address: SocketAddr, keys: &str) -> Tidegate {
    let keys = format!("protocol = \"h2\"\n{keys}");
    let web = format!("[[pool]]\nname = \"web\"\nendpoints = [{{ address = \"{address}\" }}]\n{keys}");
    Tidegate::start(&format!("{PLAIN}{web}[[route]]\npool = \"web\"\n"))
}

fn with(status: u16, fields: &[(&'static str, &str)]) -> Step {
    Step::Head(status, fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(), false)
}

fn data(text: &str) -> Step {
    Step::Data(text.into(), false)
}

fn end(text: &str) -> Step {
    Step::Data(text.into(), true)
}

#[test]
fn faults_before_the_head_become_answers() {
    let never = Gate::new();
    let many: Vec<_> = (0..101).map(|_| ("x-a", "v".to_owned())).collect();
    let (broken, breach, large) = ("connection_terminated", "http_protocol_error", "http_response_header_section_size");
    let table = vec![
        ("closes", vec![Step::Close], 502, broken),
        ("resets the connection", vec![Step::Abort], 502, broken),
        ("says nothing", vec![Step::Wait(never.clone())], 504, "http_response_timeout"),
        ("resets: no error", vec![Step::Reset(code::NO_ERROR)], 502, broken),
        ("resets: internal error", vec![Step::Reset(code::INTERNAL_ERROR)], 502, broken),
        ("resets: cancel", vec![Step::Reset(code::CANCEL)], 502, broken),
        ("resets: calm", vec![Step::Reset(code::ENHANCE_YOUR_CALM)], 502, broken),
        ("resets: refused, again and again", vec![Step::Reset(code::REFUSED_STREAM)], 502, broken),
        ("resets: our fault", vec![Step::Reset(code::PROTOCOL_ERROR)], 502, breach),
        ("resets: wants HTTP/1.1", vec![Step::Reset(code::HTTP_1_1_REQUIRED)], 502, breach),
        ("goes away, again and again", vec![Step::GoAway(code::INTERNAL_ERROR, false)], 502, broken),
        ("goes away with the stream", vec![Step::GoAway(code::NO_ERROR, true), Step::Close], 502, broken),
        ("sends 40 interim heads", vec![Step::Head(103, Vec::new(), false); 40], 502, breach),
        ("switches", vec![with(101, &[])], 502, breach),
        ("has a head of 100 KiB", vec![with(200, &[("x-a", &"v".repeat(100 << 10))]), end("x")], 502, large),
        ("has a head of 300 KiB", vec![with(200, &[("x-a", &"v".repeat(300 << 10))]), end("x")], 502, breach),
        ("has 101 fields", vec![Step::Head(200, many, false), end("x")], 502, large),
        ("has a field of a connection", vec![with(200, &[("connection", "close")]), end("x")], 502, breach),
        ("has a name in capitals", vec![with(200, &[("X-A", "1")]), end("x")], 502, breach),
        ("has no status", vec![with(0, &[]), end("x")], 502, breach),
        (
            "has two lengths",
            vec![with(200, &[("content-length", "1"), ("content-length", "2")]), end("x")],
            502,
            breach,
        ),
        ("has a bad length", vec![with(200, &[("content-length", "x")]), end("x")], 502, breach),
        ("begins with DATA", vec![end("x")], 502, breach),
        ("pushes", vec![Step::Frame(5, 4, true, vec![0, 0, 0, 2, 0x82], 1)], 502, breach),
        ("has broken HPACK", vec![Step::Frame(1, 4, true, vec![0xff; 8], 1)], 502, breach),
        ("sends a frame of 16 MiB", vec![Step::Raw(vec![0xff; 64])], 502, breach),
        ("names stream 0", vec![Step::Frame(0, 0, false, vec![1], 1)], 502, breach),
        (
            "never ends its CONTINUATIONs",
            vec![Step::Frame(1, 0, true, vec![0x88], 1), Step::Frame(9, 0, true, vec![0x88; 4096], 4000)],
            502,
            breach,
        ),
        ("floods with PRIORITY", vec![Step::Frame(2, 0, true, vec![0, 0, 0, 0, 1], 700_000)], 502, breach),
        ("floods with unknown frames", vec![Step::Frame(0xbe, 0, false, vec![0; 8000], 1200)], 502, breach),
    ];
    for (what, steps, status, token) in table {
        let keys = keys_for(&steps);
        let origin = Frames::always(steps);
        let gate = facing_http2(origin.address(), keys);
        for answer in ask_both(&gate) {
            expect_fault(what, &answer, status, token);
        }
        gate.expect_idle();
    }
    never.open();
}

#[test]
fn faults_behind_the_head_cut_the_answer() {
    let never = Gate::new();
    let length = || with(200, &[("content-length", "10")]);
    let call = || with(200, &[("content-type", "application/grpc"), ("trailer", "grpc-status")]);
    let table = vec![
        ("closes", vec![head(200), data("half"), Step::Close]),
        ("resets the connection", vec![head(200), data("half"), Step::Abort]),
        ("stalls", vec![head(200), data("half"), Step::Wait(never.clone())]),
        ("resets: no error", vec![head(200), data("half"), Step::Reset(code::NO_ERROR)]),
        ("resets: internal error", vec![head(200), data("half"), Step::Reset(code::INTERNAL_ERROR)]),
        ("resets: refused", vec![head(200), data("half"), Step::Reset(code::REFUSED_STREAM)]),
        ("resets: cancel", vec![head(200), data("half"), Step::Reset(code::CANCEL)]),
        ("resets: calm", vec![head(200), data("half"), Step::Reset(code::ENHANCE_YOUR_CALM)]),
        ("resets: our fault", vec![head(200), data("half"), Step::Reset(code::PROTOCOL_ERROR)]),
        ("resets where trailers were due", vec![call(), data("half"), Step::Reset(code::INTERNAL_ERROR)]),
        ("goes away and stalls", vec![head(200), data("half"), Step::GoAway(0, true), Step::Wait(never.clone())]),
        ("goes away and closes", vec![head(200), data("half"), Step::GoAway(code::INTERNAL_ERROR, true), Step::Close]),
        ("ends too early", vec![length(), end("half")]),
        ("ends too early with trailers", vec![length(), data("half"), Step::Trailers(Vec::new())]),
        ("sends too much", vec![length(), end("more than ten")]),
        ("has a length and no body", vec![Step::Head(200, vec![("content-length", "10".into())], true)]),
        ("has trailers in capitals", vec![head(200), data("half"), Step::Trailers(vec![("X-A", "1".into())])]),
        ("opens the window too far", vec![head(200), Step::Frame(8, 0, false, vec![0x7f, 255, 255, 255], 2), end("x")]),
        ("floods with empty DATA", vec![head(200), Step::Frame(0, 0, true, Vec::new(), 200_000), Step::Close]),
        (
            "has trailers of 100 KiB",
            vec![head(200), data("half"), Step::Trailers(vec![("x-a", "v".repeat(100 << 10))])],
        ),
        ("pads more than there is", vec![head(200), Step::Frame(0, 8, true, vec![9, 1], 1)]),
    ];
    for (what, steps) in table {
        let keys = keys_for(&steps);
        let origin = Frames::always(steps);
        let gate = facing_http2(origin.address(), keys);
        for answer in ask_both(&gate) {
            // The second request may meet a connection whose origin does not read any more.
            assert!(!answer.complete || matches!(answer.status, 502 | 504), "{what}: looks whole: {answer:?}");
        }
        gate.expect_idle();
    }
    never.open();
}

#[test]
fn half_an_answer_to_half_an_upload_does_not_look_whole() {
    // "No error" says that the upload is not wanted, not that the answer is all there.
    let steps = vec![head(200), data("half"), Step::Reset(code::NO_ERROR)];
    let origin = Frames::start(Manners::early(), move |_| steps.clone());
    let gate = facing_http2(origin.address(), PATIENT);
    let mut client = gate.client();
    client.send("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 10\r\n\r\nfirst");
    let answer = client.answer("POST");
    assert!(answer.as_ref().is_none_or(|answer| !answer.complete || answer.status == 502), "{answer:?}");
    assert_eq!(origin.requests(), 1);
    gate.expect_idle();
}

#[test]
fn oddities_that_are_no_faults() {
    let quiet = |kind, payload: &[u8]| Step::Frame(kind, 0, false, payload.to_vec(), 3);
    let table = vec![
        ("a head alone", vec![Step::Head(200, Vec::new(), true)], "GET", 200, ""),
        ("trailers alone", vec![Step::Head(200, vec![("grpc-status", "0".into())], true)], "GET", 200, ""),
        ("no trailers", vec![with(200, &[("trailer", "x-sum")]), end("hello")], "GET", 200, "hello"),
        ("an empty end", vec![head(200), data("hello"), end("")], "GET", 200, "hello"),
        ("padding", vec![head(200), Step::Frame(0, 9, true, b"\x03hello\0\0\0".to_vec(), 1)], "GET", 200, "hello"),
        ("PINGs", vec![quiet(6, &[1; 8]), head(200), quiet(6, &[2; 8]), end("hello")], "GET", 200, "hello"),
        ("unknown frames", vec![quiet(0xbe, b"?"), head(200), quiet(0xbf, b""), end("hello")], "GET", 200, "hello"),
        ("more SETTINGS", vec![quiet(4, &[0, 3, 0, 0, 0, 1]), head(200), end("hello")], "GET", 200, "hello"),
        ("100 to this hop", vec![with(100, &[]), head(200), end("hello")], "GET", 200, "hello"),
        ("DATA for HEAD", vec![head(200), data("hello"), end("")], "HEAD", 200, ""),
        ("DATA behind 204", vec![head(204), end("hello")], "GET", 204, ""),
        ("a length behind 304", vec![with(304, &[("content-length", "5")]), end("")], "GET", 304, ""),
        (
            "no error behind a whole answer",
            vec![with(413, &[("content-length", "5")]), end("hello"), Step::Reset(code::NO_ERROR)],
            "POST",
            413,
            "hello",
        ),
    ];
    for (what, steps, method, status, body) in table {
        let origin = Frames::start(Manners::early(), move |_| steps.clone());
        let gate = facing_http2(origin.address(), PATIENT);
        let request = if method == "POST" { Request::new(method, "/").body("x") } else { Request::new(method, "/") };
        for answer in [gate.client().ask(&request), h2::Client::connect(gate.listener("http")).ask(&request)] {
            assert_eq!((answer.status, answer.text().as_str(), answer.complete), (status, body, true), "{what}");
        }
        gate.expect_idle();
    }
}

#[test]
fn windows_that_stay_shut_end_in_time() {
    let stingy = Manners { stingy: true, ..Manners::good() };
    let zero = Manners { settings: Some(vec![(4, 0)]), stingy: true, ..Manners::default() };
    for (what, manners, length) in [("a window of 64 KiB", stingy, 200_000), ("no window", zero, 100)] {
        let origin = Frames::start(manners, |_| Vec::new());
        let gate = facing_http2(origin.address(), KEYS);
        let answer = gate.client().ask(&Request::new("POST", "/").body("x".repeat(length)));
        // What came before the SETTINGS were there was sent under the protocol's own window.
        let token = if origin.body() == length { "http_response_timeout" } else { "connection_write_timeout" };
        expect_fault(what, &answer, 504, token);
        assert!(origin.body() <= 65_535, "{what}");
        gate.expect_idle();
    }
}

#[test]
fn an_http_1_origin_behind_an_http2_pool_is_named() {
    let origin = Origin::always(Reply::new(400).body("what?").end(End::Close).early());
    let gate = facing_http2(origin.address(), KEYS);
    let answer = gate.get("/");
    expect_fault("HTTP/1.1", &answer, 502, "http_protocol_error");
    assert!(answer.text().contains("not_http2"), "{}", answer.text());
    gate.expect_idle();
}
