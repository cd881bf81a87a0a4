//! Origins that are dead, slow, broken or lying: the client gets a clean answer or a cut connection, never a hang and
//! never half a body that looks whole; and nothing is left behind.

// What only HTTP/2 can get wrong.
mod http2;
// Certificates, networks, whole farms.
mod farm;

use std::net::TcpListener;
use std::time::Duration;

use tidegate::clock::Clock;

use crate::support::client::{Answer, Client, Request};
use crate::support::gate::Gate;
use crate::support::h2;
use crate::support::origin::{End, Origin, Reply};
use crate::support::tidegate::{PLAIN, Tidegate, front, pool};

/// Short timeouts and no second attempt, so that each fault shows itself.
const KEYS: &str =
    "timeouts = { connect = \"900ms\", first_byte = \"600ms\", idle = \"600ms\" }\nretry = { attempts = 1 }\n";

fn facing(origin: &Origin) -> Tidegate {
    Tidegate::start(&format!("{PLAIN}{}[[route]]\npool = \"web\"\n", pool("web", &[origin], KEYS)))
}

/// How long a fault may keep a client, whatever it is: every bound in [`KEYS`] several times over.
const IN_TIME: Duration = Duration::from_secs(10);

/// One GET over HTTP/1.1, which may end without an answer, and one over HTTP/2.
#[track_caller]
fn ask_both(gate: &Tidegate) -> [Answer; 2] {
    let began = Clock::System.now();
    let mut client = gate.client();
    client.send(Request::get("/").bytes());
    let first = client.answer("GET").unwrap_or_default();
    let answers = [first, h2::Client::connect(gate.listener("http")).get("/")];
    let took = Clock::System.now().since(began);
    assert!(took < IN_TIME, "{took:?}");
    answers
}

/// Fails unless this is our own answer to a fault with this RFC 9209 token.
#[track_caller]
fn expect_fault(what: &str, answer: &Answer, status: u16, token: &str) {
    assert_eq!((answer.status, answer.complete), (status, true), "{what}: {:?}", answer.fields);
    let proxy_status = answer.field("proxy-status").unwrap_or_default();
    assert!(proxy_status.starts_with(&format!("tidegate; error={token};")), "{what}: {proxy_status}, not {token}");
}

#[test]
fn faults_before_the_head_become_answers() {
    let never = Gate::new();
    let table = [
        ("closes at once", Reply::raw(""), 502, "connection_terminated"),
        ("resets at once", Reply::raw("").end(End::Reset), 502, "connection_terminated"),
        ("half-closes", Reply::raw("").end(End::HalfClose), 502, "connection_terminated"),
        ("closes within the head", Reply::raw("HTTP/1.1 200 OK\r\nContent-"), 502, "connection_terminated"),
        (
            "resets within the head",
            Reply::raw("HTTP/1.1 200 OK\r\nContent-").end(End::Reset),
            502,
            "connection_terminated",
        ),
        ("says nothing", Reply::ok("late").hold(&never), 504, "http_response_timeout"),
        ("is no HTTP", Reply::raw("SSH-2.0-OpenSSH_9.2\r\n\r\n"), 502, "http_protocol_error"),
        ("is HTTP/0.9", Reply::raw("<html>old</html>\n"), 502, "http_protocol_error"),
        ("is HTTP/0.9 and short", Reply::raw("old"), 502, "http_protocol_error"),
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
        (
            "has a field of 100 KiB",
            Reply::new(200).field("X-A", &"v".repeat(100 << 10)).body("x"),
            502,
            "http_response_header_section_size",
        ),
        (
            "has 101 fields",
            (0..101).fold(Reply::new(200), |reply, _| reply.field("X-A", "v")).body("x"),
            502,
            "http_response_header_section_size",
        ),
        (
            "floods with interim heads",
            Reply::raw("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(40) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            502,
            "http_protocol_error",
        ),
        ("has only interim heads", Reply::raw("HTTP/1.1 103 Early Hints\r\n\r\n"), 502, "connection_terminated"),
        ("switches unasked", Reply::raw("HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"), 502, "http_protocol_error"),
    ];
    for (what, reply, status, token) in table {
        let origin = Origin::always(reply);
        let gate = facing(&origin);
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
fn oddities_that_are_no_faults() {
    let table = [
        ("more than was announced", Reply::new(200).announced(4, "half and more"), "half"),
        (
            "trailers that do not come",
            Reply::new(200).field("Trailer", "X-Sum").chunk("all of it").last_chunk(&[]),
            "all of it",
        ),
        ("a few interim heads", Reply::ok("hello").interim(103, &[("Link", "</a>")]).interim(102, &[]), "hello"),
        ("a body until the end", Reply::new(200).until_close("hello"), "hello"),
    ];
    for (what, reply, body) in table {
        let origin = Origin::start(move |seen| if seen.target == "/" { reply.clone() } else { Reply::ok("next") });
        let gate = facing(&origin);
        for answer in ask_both(&gate) {
            assert_eq!((answer.status, answer.text().as_str(), answer.complete), (200, body, true), "{what}");
            assert!(answer.trailers.get("x-sum").is_none(), "{what}");
            // What was sent too much is nobody's answer.
            assert_eq!(gate.get("/next").expect(200).text(), "next", "{what}");
        }
        gate.expect_idle();
    }
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
        expect_fault("nobody there", &answer, 502, "connection_refused");
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
