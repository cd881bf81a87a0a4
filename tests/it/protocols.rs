//! What is spoken to the origins, when all is well: HTTP/2 by prior knowledge and by ALPN, its connections and streams.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::support::client::{Answer, Client, Request};
use crate::support::frames::{Frames, Manners, Step, code, head};
use crate::support::gate::{Gate, next_second};
use crate::support::h2;
use crate::support::h2_origin::{H2Origin, Habits, Reply};
use crate::support::origin::{self, Origin};
use crate::support::pki::Pki;
use crate::support::tidegate::{PLAIN, Setup, Tidegate};
use crate::support::wire::{Stream, Wire};

/// A plain listener and one HTTP/2 origin by prior knowledge; `more` is further keys of the pool.
fn text(address: SocketAddr, more: &str) -> String {
    let pool =
        format!("[[pool]]\nname = \"web\"\nprotocol = \"h2\"\nendpoints = [{{ address = \"{address}\" }}]\n{more}\n");
    format!("{PLAIN}{pool}[[route]]\npool = \"web\"\n")
}

/// The same with one worker: what is counted per worker is counted once.
fn one_worker(address: SocketAddr, more: &str) -> Tidegate {
    Setup::new().start_alone(&text(address, more))
}

/// Asks all at once, each on a connection of its own.
fn ask_all(gate: &Tidegate, requests: Vec<Request>) -> Vec<Answer> {
    let address = gate.listener("http");
    let ask = move |request: Request| std::thread::spawn(move || Client::connect(address).ask(&request));
    let asking: Vec<_> = requests.into_iter().map(ask).collect();
    asking.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn messages_arrive_whole_both_ways() {
    let origin = H2Origin::start(|seen| match seen.method.as_str() {
        "POST" => Reply::echo().field("x-kind", "echo"),
        "HEAD" => Reply::new(200).field("content-length", "7"),
        _ => Reply::ok("hello").interim(103, "link", "</a.css>").field("x-kind", "plain").trailer("x-sum", "5"),
    });
    let gate = Tidegate::start(&text(origin.address(), ""));
    let (mut first, mut second) = (gate.client(), h2::Client::connect(gate.listener("http")));
    for http2 in [false, true] {
        let mut ask = |request: &Request| if http2 { second.ask(request) } else { first.ask(request) };
        let answer = ask(&Request::get("/a?b=c").field("x-from", "client")).expect(200);
        assert_eq!((answer.text().as_str(), answer.field("x-kind")), ("hello", Some("plain")));
        assert_eq!(answer.trailers.get("x-sum"), Some("5"));
        assert_eq!(answer.interim[0].0, 103);
        let large = "x".repeat(100_000);
        let answer = ask(&Request::new("POST", "/up").body(large.clone())).expect(200);
        assert!(answer.text() == large, "{} bytes", answer.body.len());
        let answer = ask(&Request::new("HEAD", "/")).expect(200);
        assert_eq!((answer.field("content-length"), answer.body.len()), (Some("7"), 0));
    }
    let seen = origin.seen();
    assert_eq!(seen[0].uri, "http://shop.example/a?b=c");
    assert_eq!(seen[0].fields.get("x-from"), Some("client"));
    assert!(!seen[0].fields.has("connection") && !seen[0].fields.has("host"), "{:?}", seen[0].fields);
    assert_eq!(seen[1].fields.get("content-length"), Some("100000"));
    assert!(seen.iter().all(|seen| seen.complete));
    gate.expect_idle();
}

#[test]
fn the_authority_follows_the_pools_host() {
    let origin = H2Origin::start(|_| Reply::ok("x"));
    for (more, expected) in [
        ("", "shop.example".to_owned()),
        ("host = \"farm.example\"", "farm.example".to_owned()),
        ("host = \"endpoint\"", origin.address().to_string()),
    ] {
        let gate = Tidegate::start(&text(origin.address(), more));
        gate.get("/").expect(200);
        let seen = origin.seen().pop().unwrap();
        assert_eq!(seen.uri, format!("http://{expected}/"));
    }
}

#[test]
fn alpn_decides_over_tls() {
    let pki = Pki::new();
    let own = pki.server(&["origin.example"]);
    let speaking = |names: &[&str]| {
        let mut config = (*pki.origin(&own, false)).clone();
        config.alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    };
    let h2 = H2Origin::with(Habits { tls: Some(speaking(&["h2"])), ..Habits::default() }, |_| Reply::ok("two"));
    let h1 = Origin::tls(speaking(&["http/1.1"]), |_| origin::Reply::ok("one"));
    let mute = Origin::tls(speaking(&[]), |_| origin::Reply::ok("one"));
    for (protocol, address, expected) in [
        ("h2", h2.address(), Ok("two")),
        ("auto", h2.address(), Ok("two")),
        ("auto", h1.address(), Ok("one")),
        ("auto", mute.address(), Ok("one")),
        ("http/1.1", h1.address(), Ok("one")),
        ("h2", h1.address(), Err(502)),
        ("h2", mute.address(), Err(502)),
        ("http/1.1", h2.address(), Err(502)),
    ] {
        let keys = format!("protocol = \"{protocol}\"\ntls = {{ ca = \"ca.pem\", server_name = \"origin.example\" }}");
        let pool = format!("[[pool]]\nname = \"web\"\nendpoints = [{{ address = \"{address}\" }}]\n{keys}\n");
        let setup = Setup::new().file("ca.pem", pki.ca());
        let gate = setup.start_alone(&format!("{PLAIN}{pool}[[route]]\npool = \"web\"\n"));
        for _ in 0..2 {
            let answer = gate.get("/");
            let found = if answer.status == 200 { Ok(answer.text()) } else { Err(answer.status) };
            assert_eq!(found, expected.map(str::to_owned), "{protocol} {address}");
        }
        gate.expect_idle();
    }
    assert_eq!(h2.connections(), 4, "one for each pool that speaks it, and two that were refused");
    assert!(h2.seen().iter().all(|seen| seen.uri.starts_with("https://")));
}

#[test]
fn streams_share_a_connection_up_to_what_the_origin_allows() {
    for (streams, connections) in [(None, 1), (Some(100), 1), (Some(3), 4), (Some(1), 12)] {
        let shut = Gate::new();
        let held = shut.clone();
        let habits = Habits { streams, ..Habits::default() };
        let origin = H2Origin::with(habits, move |_| Reply::ok("x").hold(&held));
        let gate = one_worker(origin.address(), "");
        let address = gate.listener("http");
        let ask = || std::thread::spawn(move || Client::connect(address).get("/").expect(200));
        let asking: Vec<_> = (0..12).map(|_| ask()).collect();
        origin.wait_open(12);
        assert_eq!(origin.connections(), connections, "{streams:?}");
        shut.open();
        asking.into_iter().for_each(|asking| drop(asking.join().unwrap()));
        assert!(origin.busiest() <= streams.unwrap_or(100) as usize, "{streams:?}: {}", origin.busiest());
        gate.expect_idle();
    }
}

#[test]
fn who_finds_no_stream_waits_for_one_within_bounds() {
    let habits = Habits { streams: Some(2), ..Habits::default() };
    let shut = Gate::new();
    let held = shut.clone();
    let origin = H2Origin::with(habits, move |seen| match seen.uri.ends_with("/held") {
        true => Reply::ok("held").hold(&held),
        false => Reply::ok("x"),
    });
    let gate = one_worker(origin.address(), "keep_alive = { idle = 1 }\ntimeouts = { connect = \"300ms\" }");
    // Many more than there are streams, all short: each gets its turn.
    let answers = ask_all(&gate, (0..40).map(|_| Request::get("/")).collect());
    assert!(answers.iter().all(|answer| answer.status == 200), "{:?}", answers.iter().map(|a| a.status));
    assert_eq!((origin.connections(), origin.busiest()), (1, 2));
    // All streams taken for good: a clean refusal in bounded time.
    let address = gate.listener("http");
    let hold = || std::thread::spawn(move || Client::connect(address).get("/held").expect(200));
    let holding = [hold(), hold()];
    origin.wait_open(2);
    let answer = gate.get("/").expect(503);
    assert_eq!(answer.field("proxy-status"), Some("tidegate; error=connection_limit_reached; details=\"pool_full\""));
    shut.open();
    holding.into_iter().for_each(|holding| drop(holding.join().unwrap()));
    gate.get("/").expect(200);
    gate.expect_idle();
}

#[test]
fn goaway_fails_no_request() {
    // Every connection says GOAWAY at its third request; what is beyond goes elsewhere, uploads included.
    let habits = Habits { requests: Some(3), ..Habits::default() };
    let origin = H2Origin::with(habits, |_| Reply::echo());
    let gate = one_worker(origin.address(), "");
    for round in 0..5 {
        let requests = (0..8).map(|n| Request::new("POST", "/").body(format!("{round} {n}"))).collect();
        for (n, answer) in ask_all(&gate, requests).into_iter().enumerate() {
            assert_eq!(answer.expect(200).text(), format!("{round} {n}"));
        }
    }
    assert!(origin.connections() >= 5, "{}", origin.connections());
    gate.expect_idle();
}

#[test]
fn a_request_the_origin_has_not_looked_at_is_sent_again_whatever_its_method() {
    for (what, refusal) in [
        ("refused", Step::Reset(code::REFUSED_STREAM)),
        ("beyond GOAWAY", Step::GoAway(code::NO_ERROR, false)),
        ("beyond an angry GOAWAY", Step::GoAway(code::ENHANCE_YOUR_CALM, false)),
    ] {
        for early in [false, true] {
            let manners = Manners { early, ..Manners::good() };
            let refusal = refusal.clone();
            let origin = Frames::start(manners, move |number| match number {
                0 => vec![refusal.clone()],
                _ => vec![head(200), Step::Data(b"yes".to_vec(), true)],
            });
            let gate = one_worker(origin.address(), "retry = { attempts = 1 }");
            let answer = gate.client().ask(&Request::new("POST", "/").body("once only")).expect(200);
            assert_eq!((answer.text().as_str(), origin.requests()), ("yes", 2), "{what}");
            assert_eq!(origin.connections(), 2, "{what}: not where it was refused");
            gate.expect_idle();
        }
    }
    // Where there is another endpoint that one is asked, however seldom it would be.
    let refusing = Frames::always(vec![Step::Reset(code::REFUSED_STREAM)]);
    let willing = H2Origin::start(|_| Reply::ok("yes"));
    let endpoints =
        format!("{{ address = \"{}\", weight = 100 }}, {{ address = \"{}\" }}", refusing.address(), willing.address());
    let pool =
        format!("[[pool]]\nname = \"web\"\nprotocol = \"h2\"\nendpoints = [{endpoints}]\nretry = {{ attempts = 1 }}\n");
    let gate = Setup::new().start_alone(&format!("{PLAIN}{pool}[[route]]\npool = \"web\"\n"));
    for _ in 0..10 {
        assert_eq!(gate.get("/").expect(200).text(), "yes");
    }
    gate.expect_idle();
    // It is asked once more, and not for ever.
    let origin = Frames::always(vec![Step::Reset(code::REFUSED_STREAM)]);
    let gate = one_worker(origin.address(), "retry = { attempts = 1 }");
    gate.get("/").expect(502);
    assert_eq!(origin.requests(), 2);
}

#[test]
fn a_connection_that_goes_away_ends_what_it_has_begun() {
    let shut = Gate::new();
    let steps = vec![
        head(200),
        Step::Data(b"one ".to_vec(), false),
        Step::GoAway(code::NO_ERROR, true),
        Step::Wait(shut.clone()),
        Step::Data(b"two".to_vec(), true),
    ];
    let origin = Frames::start(Manners::good(), move |number| match number {
        0 => steps.clone(),
        _ => vec![head(200), Step::Data(b"new".to_vec(), true)],
    });
    let gate = one_worker(origin.address(), "");
    let mut slow = gate.client();
    slow.send(Request::get("/").bytes());
    assert_eq!(slow.head().0, 200);
    assert_eq!(slow.chunk(), "one ");
    assert_eq!(gate.get("/").expect(200).text(), "new", "on another connection");
    shut.open();
    assert_eq!(slow.chunk(), "two");
    assert_eq!(origin.connections(), 2);
    gate.expect_idle();
}

#[test]
fn both_directions_stream_at_once() {
    let origin = H2Origin::start(|_| Reply::echo());
    let gate = Tidegate::start(&text(origin.address(), ""));
    let mut both = h2::Both::open(gate.listener("http"), "/chat");
    for round in 0..20 {
        let said = format!("ping {round}");
        both.say(&said);
        assert_eq!(both.hear(said.len()), said, "heard before the next is said");
    }
    both.end(&[("x-end", "1")]);
    assert_eq!(both.trailers().get("x-end"), Some("1"));
    // From HTTP/1.1, where a chunk each way does the same.
    let mut client = gate.client();
    client.send("POST /chat HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    assert_eq!(client.head().0, 200);
    assert_eq!(client.chunk(), "one");
    client.send("3\r\ntwo\r\n");
    assert_eq!(client.chunk(), "two");
    client.send("0\r\n\r\n");
    gate.expect_idle();
}

#[test]
fn who_goes_away_resets_a_stream_and_not_the_connection() {
    let shut = Gate::new();
    let held = shut.clone();
    let origin = H2Origin::start(move |seen| match seen.uri.ends_with("/held") {
        true => Reply::ok("held").hold(&held),
        false => Reply::ok("x"),
    });
    let gate = one_worker(origin.address(), "");
    gate.get("/").expect(200);
    let mut client = gate.client();
    client.send(Request::get("/held").bytes());
    origin.wait_open(1);
    client.abort();
    origin.wait_resets(1);
    gate.expect_idle();
    gate.get("/").expect(200);
    assert_eq!(origin.connections(), 1);
    shut.open();
}

#[test]
fn an_origin_that_is_silent_for_long_is_asked_whether_it_lives() {
    // The one never reads again, the other answers the PING and then, at last, the request.
    let never = Gate::new();
    let dead = Frames::always(vec![Step::Wait(never.clone())]);
    let answer = vec![head(200), Step::Data(b"at last".to_vec(), true)];
    let slow = Frames::start(Manners { on_ping: answer, ..Manners::good() }, |_| Vec::new());
    let patient = "timeouts = { first_byte = \"10m\" }\nretry = { attempts = 1 }";
    let gates = [&dead, &slow].map(|origin| one_worker(origin.address(), patient));
    let [mut first, mut second] = [gates[0].client(), gates[1].client()];
    first.wait_up_to(std::time::Duration::from_secs(60));
    second.wait_up_to(std::time::Duration::from_secs(60));
    first.send(Request::get("/").bytes());
    second.send(Request::get("/").bytes());
    assert_eq!(second.answer("GET").expect("an answer").expect(200).text(), "at last");
    let answer = first.answer("GET").expect("an answer").expect(502);
    assert_eq!(
        answer.field("proxy-status"),
        Some("tidegate; error=connection_terminated; details=\"connection_reset\"")
    );
    gates.iter().for_each(Tidegate::expect_idle);
    never.open();
}

#[test]
fn a_kept_connection_is_closed_when_its_time_is_over() {
    let origin = Origin::always(origin::Reply::ok("x"));
    let keys = "keep_alive = { timeout = \"1s\" }";
    let gate = Setup::new().start_alone(&text(origin.address(), keys).replace("protocol = \"h2\"\n", ""));
    gate.get("/").expect(200);
    gate.get("/").expect(200);
    assert_eq!(origin.connections(), 1);
    // Nobody asks for anything: the sweep alone does it.
    origin.wait_closed(1);
    gate.get("/").expect(200);
    assert_eq!(origin.connections(), 2);
    let origin = H2Origin::start(|_| Reply::ok("x"));
    let gate = one_worker(origin.address(), keys);
    gate.get("/").expect(200);
    // Its time and the time between two sweeps.
    for _ in 0..3 {
        next_second();
    }
    gate.get("/").expect(200);
    assert_eq!(origin.connections(), 2);
}

#[test]
fn an_idle_connection_is_kept_for_as_long_as_it_should() {
    let origin = H2Origin::start(|_| Reply::ok("x"));
    let gate = one_worker(origin.address(), "keep_alive = { timeout = \"10s\" }");
    gate.get("/").expect(200);
    gate.get("/").expect(200);
    assert_eq!(origin.connections(), 1);
    // None is kept: each exchange has its own.
    let gate = one_worker(origin.address(), "keep_alive = { idle = 0 }");
    gate.get("/").expect(200);
    gate.get("/").expect(200);
    assert_eq!(origin.connections(), 3);
}

#[test]
fn probes_speak_it_too() {
    let origin = H2Origin::start(|seen| match seen.uri.ends_with("/up") {
        true => Reply::new(204),
        false => Reply::new(500),
    });
    for (path, healthy) in [("/up", true), ("/down", false)] {
        let health = format!("health = {{ path = \"{path}\", interval = \"20ms\", timeout = \"20ms\", fall = 1 }}");
        let gate = Tidegate::start(&text(origin.address(), &health));
        gate.wait_status("a probe", |status| {
            let endpoint = &status["pools"][0]["endpoints"][0];
            let probes = endpoint["last_probes"].as_array()?;
            (probes.last()?["ok"] == healthy && endpoint["healthy"] == healthy).then_some(())
        });
    }
}

#[test]
fn a_call_that_fails_here_fails_as_a_call() {
    let never = Gate::new();
    let unreachable = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let slow = Frames::always(vec![Step::Wait(never.clone())]);
    let broken = Frames::always(vec![Step::Head(200, vec![("connection", "close".into())], false)]);
    for (address, status) in [(unreachable, "14"), (slow.address(), "4"), (broken.address(), "13")] {
        let gate = Tidegate::start(&text(address, "timeouts = { first_byte = \"300ms\" }\nretry = { attempts = 1 }"));
        let call = Request::new("POST", "/shop.Cart/Add").field("content-type", "application/grpc+proto");
        let answer = h2::Client::connect(gate.listener("http")).ask(&call.clone().field("te", "trailers")).expect(200);
        assert_eq!(answer.field("content-type"), Some("application/grpc"));
        assert_eq!((answer.field("grpc-status"), answer.body.len()), (Some(status), 0), "{:?}", answer.fields);
        assert!(answer.field("grpc-message").is_some() && answer.field("proxy-status").is_some());
        // Everybody else is told in HTTP.
        assert!(gate.get("/").status >= 500);
    }
    never.open();
}

#[test]
fn calls_pass_with_their_trailers() {
    let origin = H2Origin::start(|seen| match seen.uri.ends_with("/Fails") {
        true => Reply::new(200).field("grpc-status", "5").field("content-type", "application/grpc"),
        false => Reply::echo().field("content-type", "application/grpc").trailer("grpc-status", "0"),
    });
    let gate = Tidegate::start(&text(origin.address(), ""));
    let mut client = h2::Client::connect(gate.listener("http"));
    let call = |path| Request::new("POST", path).field("content-type", "application/grpc").field("te", "trailers");
    let answer = client.ask(&call("/Works").body(b"\0\0\0\0\x01x".to_vec())).expect(200);
    assert_eq!((answer.trailers.get("grpc-status"), answer.body.len()), (Some("0"), 6));
    let answer = client.ask(&call("/Fails")).expect(200);
    assert_eq!((answer.field("grpc-status"), answer.body.len()), (Some("5"), 0), "a head that is all of it");
    assert!(origin.seen().iter().all(|seen| seen.fields.get("te") == Some("trailers")));
}

/// An extended CONNECT for a WebSocket (RFC 8441).
fn websocket(path: &str) -> http::Request<()> {
    let request = http::Request::builder().method("CONNECT").uri(format!("http://shop.example{path}"));
    let request = request.extension(::h2::ext::Protocol::from_static("websocket"));
    request.header("sec-websocket-version", "13").body(()).unwrap()
}

#[test]
fn websockets_pass_from_every_side_to_every_side() {
    let one = Origin::start(|seen| {
        let key = http::HeaderValue::from_str(seen.field("sec-websocket-key").expect("a key")).unwrap();
        let accept = tidegate::policy::websocket::accept(&key);
        origin::Reply::upgrade("websocket").field("sec-websocket-accept", accept.to_str().unwrap())
    });
    let two = H2Origin::with(Habits { extended: true, ..Habits::default() }, |_| Reply::echo());
    for (what, protocol, address) in [("h1", "http/1.1", one.address()), ("h2", "h2", two.address())] {
        let config = text(address, "").replace("protocol = \"h2\"", &format!("protocol = \"{protocol}\""));
        let gate = Tidegate::start(&config);
        let mut both = h2::Both::begin(gate.listener("http"), websocket("/chat"));
        for round in 0..5 {
            let said = format!("frame {round}");
            both.say(&said);
            assert_eq!(both.hear(said.len()), said, "HTTP/2 to {what}");
        }
        gate.wait_status("the tunnel counts", |status| {
            (status["pools"][0]["endpoints"][0]["in_flight"] == 1).then_some(())
        });
        drop(both);
        gate.expect_idle();
        let mut client = gate.client();
        let upgrade = "GET /chat HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
        client
            .send(format!("{upgrade}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"));
        let (status, fields) = client.head();
        assert_eq!((status, fields.get("upgrade")), (101, Some("websocket")), "HTTP/1.1 to {what}");
        assert_eq!(fields.get("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        client.abort();
        gate.expect_idle();
    }
    let seen = &two.seen()[0];
    assert_eq!((seen.method.as_str(), seen.protocol.as_deref()), ("CONNECT", Some("websocket")));
    assert_eq!(seen.uri, "http://shop.example/chat");
    assert!(!seen.fields.has("sec-websocket-key") && !seen.fields.has("upgrade"), "{:?}", seen.fields);
}

#[test]
fn a_websocket_that_is_refused_is_refused_cleanly() {
    let plain = H2Origin::start(|_| Reply::ok("x"));
    let lying = Origin::always(origin::Reply::upgrade("websocket").field("sec-websocket-accept", "nonsense"));
    let never = Origin::always(origin::Reply::ok("no sockets here"));
    for (address, protocol, status) in
        [(plain.address(), "h2", 502), (lying.address(), "http/1.1", 502), (never.address(), "http/1.1", 200)]
    {
        let config = text(address, "").replace("protocol = \"h2\"", &format!("protocol = \"{protocol}\""));
        let gate = Tidegate::start(&config);
        let both = h2::Both::begin(gate.listener("http"), websocket("/chat"));
        assert_eq!(both.status, status, "{protocol}");
        drop(both);
        gate.expect_idle();
    }
}

#[test]
fn an_origin_is_told_who_the_client_is_ahead_of_everything_else() {
    for (version, begins) in
        [("v1", &b"PROXY TCP4 127.0.0.1 127.0.0.1 "[..]), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01")]
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let reading = std::thread::spawn(move || {
            let mut heads = Vec::new();
            for _ in 0..2 {
                let mut wire = Wire::new(Stream::Plain(listener.accept().unwrap().0));
                let header = if version == "v1" { wire.until(b"\r\n").unwrap() } else { wire.take(28) };
                assert!(wire.head().is_some());
                wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
                assert!(wire.some().is_empty(), "the connection serves nobody else");
                heads.push(header);
            }
            heads
        });
        let keys = format!("send_proxy_protocol = \"{version}\"");
        let gate = Tidegate::start(&text(address, &keys).replace("protocol = \"h2\"\n", ""));
        let mut client = gate.client();
        client.get("/").expect(200);
        client.get("/").expect(200);
        for header in reading.join().unwrap() {
            assert!(header.starts_with(begins), "{}", header.escape_ascii());
        }
        gate.expect_idle();
    }
    let refused = Setup::new().try_start(&text("127.0.0.1:1".parse().unwrap(), "send_proxy_protocol = \"v2\""));
    assert!(refused.err().is_some_and(|(_, words)| words.contains("needs protocol = \"http/1.1\"")));
}
