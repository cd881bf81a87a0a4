//! Origins that are dead, slow, broken or lying: the client gets a clean answer or a cut connection, never a hang and
//! never half a body that looks whole; and nothing is left behind.

use std::net::TcpListener;

use crate::support::client::{Answer, Client, Request};
use crate::support::gate::Gate;
use crate::support::h2;
use crate::support::origin::{End, Origin, Reply};
use crate::support::tidegate::{PLAIN, Tidegate, front, pool};

/// Short timeouts and no second attempt, so that each fault shows itself.
const KEYS: &str =
    "timeouts = { connect = \"300ms\", first_byte = \"200ms\", idle = \"200ms\" }\nretry = { attempts = 1 }\n";

fn facing(origin: &Origin) -> Tidegate {
    Tidegate::start(&format!("{PLAIN}{}[[route]]\npool = \"web\"\n", pool("web", &[origin], KEYS)))
}

/// One GET over HTTP/1.1, which may end without an answer, and one over HTTP/2.
fn ask_both(gate: &Tidegate) -> [Answer; 2] {
    let mut client = gate.client();
    client.send(Request::get("/").bytes());
    let first = client.answer("GET").unwrap_or_default();
    [first, h2::Client::connect(gate.listener("http")).get("/")]
}

#[test]
fn faults_before_the_head_become_answers() {
    let never = Gate::new();
    let table = [
        ("closes at once", Reply::raw(""), 502, "connection_terminated"),
        ("resets at once", Reply::raw("").end(End::Reset), 502, "connection_terminated"),
        ("half-closes", Reply::raw("").end(End::HalfClose), 502, "connection_terminated"),
        ("closes within the head", Reply::raw("HTTP/1.1 200 OK\r\nContent-"), 502, "connection_terminated"),
        ("says nothing", Reply::ok("late").hold(&never), 504, "http_response_timeout"),
        ("is no HTTP", Reply::raw("SSH-2.0-OpenSSH_9.2\r\n\r\n"), 502, "http_protocol_error"),
        ("has no status", Reply::raw("HTTP/1.1 abc OK\r\n\r\n"), 502, "http_protocol_error"),
        (
            "has two lengths",
            Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
            502,
            "http_protocol_error",
        ),
        ("has a bad length", Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nab"), 502, "http_protocol_error"),
        (
            "has an endless head",
            Reply::raw(format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "v".repeat(2_000_000))),
            502,
            "http_response_header_section_size",
        ),
        ("switches unasked", Reply::raw("HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"), 502, "http_protocol_error"),
    ];
    for (what, reply, status, token) in table {
        let origin = Origin::always(reply);
        let gate = facing(&origin);
        for answer in ask_both(&gate) {
            assert_eq!((answer.status, answer.complete), (status, true), "{what}: {:?}", answer.fields);
            let proxy_status = answer.field("proxy-status").unwrap_or_default().to_owned();
            assert!(proxy_status.starts_with("tidegate; error="), "{what}: {proxy_status}");
            assert!(proxy_status.contains(token), "{what}: {proxy_status} instead of {token}");
        }
        gate.expect_idle();
    }
    never.open();
}

#[test]
fn faults_behind_the_head_cut_the_answer() {
    let never = Gate::new();
    let table = [
        ("ends too early", Reply::new(200).announced(10, "half").end(End::Close)),
        ("resets", Reply::new(200).announced(10, "half").end(End::Reset)),
        ("stalls", Reply::new(200).announced(10, "half").wait(&never)),
        ("ends between chunks", Reply::new(200).chunk("half").end(End::Close)),
        ("ends within a chunk", Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf")),
        ("sends a bad chunk", Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nxyz\r\n")),
        ("resets between chunks", Reply::new(200).chunk("half").end(End::Reset)),
    ];
    for (what, reply) in table {
        let origin = Origin::always(reply);
        let gate = facing(&origin);
        for answer in ask_both(&gate) {
            assert!(!answer.complete || answer.status == 502, "{what}: looks whole: {answer:?}");
        }
        gate.expect_idle();
    }
    never.open();
}

#[test]
fn http_1_0_clients_are_not_told_a_cut_is_the_end() {
    // Without chunks the end of the connection ends the body; only a reset can say that it is no end.
    let origin = Origin::always(Reply::new(200).chunk("half").end(End::Close));
    let gate = facing(&origin);
    let mut client = gate.client();
    client.send("GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n");
    assert!(client.answer("GET").is_none_or(|answer| !answer.complete || answer.status == 502));
}

#[test]
fn nobody_there_is_said_at_once() {
    // A port that was ours a moment ago and refuses now.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let web = format!("[[pool]]\nname = \"web\"\nendpoints = [{{ address = \"{address}\" }}]\n{KEYS}");
    let gate = Tidegate::start(&format!("{PLAIN}{web}[[route]]\npool = \"web\"\n"));
    for answer in ask_both(&gate) {
        let answer = answer.expect(502);
        assert!(answer.field("proxy-status").is_some_and(|s| s.contains("connection_refused")), "{:?}", answer.fields);
    }
    gate.expect_idle();
}

#[test]
fn a_client_that_goes_away_frees_the_endpoint() {
    let never = Gate::new();
    let origin = Origin::start({
        let never = never.clone();
        move |seen| match seen.target.as_str() {
            "/head" => Reply::ok("late").hold(&never),
            _ => Reply::new(200).chunk("begun").wait(&never).last_chunk(&[]),
        }
    });
    let gate = Tidegate::start(&front(&origin, ""));
    type Leave = fn(Client);
    let leave = [("quietly", drop as Leave), ("with a reset", Client::abort as Leave)];
    let mut asked = 0;
    for target in ["/head", "/body"] {
        for (how, leave) in leave {
            let mut client = gate.client();
            client.send(Request::get(target).bytes());
            asked += 1;
            origin.wait_requests(asked);
            if target == "/body" {
                assert_eq!(client.head().0, 200, "{how}");
                assert_eq!(client.chunk(), "begun");
            }
            leave(client);
            gate.expect_idle();
        }
    }
    never.open();
}

#[test]
fn an_upload_that_breaks_off_is_not_taken_for_whole() {
    let origin = Origin::always(Reply::ok("x"));
    let gate = Tidegate::start(&front(&origin, ""));
    for framing in ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let mut client = gate.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: shop.example\r\n{framing}"));
        client.abort();
        gate.expect_idle();
    }
    assert!(origin.seen().iter().all(|seen| !seen.complete), "{:?}", origin.seen());
}

#[test]
fn a_slow_origin_is_waited_for_within_its_bounds() {
    // Each piece comes in time, all together take longer than the longest silence allowed.
    let origin = Origin::always(Reply::ok("x".repeat(2000)).dribble());
    let gate = facing(&origin);
    assert_eq!(gate.get("/").expect(200).body.len(), 2000);
}
