//! RFC 9112: what is read as a message, what is refused as ambiguous, and how bodies travel.

use crate::support::client::{Client, Request};
use crate::support::gate::Gate;
use crate::support::h2;
use crate::support::origin::{End, Origin, Reply};
use crate::support::rng::Rng;
use crate::support::tidegate::{Tidegate, front};

/// A request line and a Host, ready for what comes next.
const POST: &str = "POST / HTTP/1.1\r\nHost: shop.example\r\n";

#[test]
fn refuses_ambiguous_heads_and_closes() {
    let origin = Origin::always(Reply::ok("reached"));
    let gate = Tidegate::start(&front(&origin, ""));
    let behind = "GET /smuggled HTTP/1.1\r\nHost: shop.example\r\n\r\n";
    let table = [
        ("length and chunked", format!("{POST}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("chunked and length", format!("{POST}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n")),
        ("two lengths", format!("{POST}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd")),
        ("two equal lengths", format!("{POST}Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd")),
        ("a list of lengths", format!("{POST}Content-Length: 3, 4\r\n\r\nabcd")),
        ("a signed length", format!("{POST}Content-Length: +4\r\n\r\nabcd")),
        ("a negative length", format!("{POST}Content-Length: -4\r\n\r\nabcd")),
        ("a length in hex", format!("{POST}Content-Length: 0x4\r\n\r\nabcd")),
        ("an empty length", format!("{POST}Content-Length: \r\n\r\n")),
        ("a length beyond 64 bits", format!("{POST}Content-Length: 99999999999999999999999\r\n\r\n")),
        ("chunked twice", format!("{POST}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n")),
        ("chunked in two fields", format!("{POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n")),
        ("chunked not last", format!("{POST}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n")),
        ("nearly chunked", format!("{POST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
        ("quoted chunked", format!("{POST}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n")),
        ("an underscore look-alike", format!("{POST}Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("a length look-alike", format!("{POST}Content_Length: 4\r\n\r\n")),
        ("chunked in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into()),
        ("a space before the colon", format!("{POST}Content-Length : 4\r\n\r\nabcd")),
        ("a folded line", format!("{POST}X-Folded: a\r\n b\r\n\r\n")),
        ("a folded first line", "GET / HTTP/1.1\r\n Host: shop.example\r\n\r\n".into()),
        ("bare LF all over", "GET / HTTP/1.1\nHost: shop.example\n\n".into()),
        ("a bare LF between fields", "GET / HTTP/1.1\r\nHost: shop.example\nX-A: b\r\n\r\n".into()),
        ("a bare CR in a value", format!("{POST}X-A: b\rc\r\n\r\n")),
        ("a NUL in a value", format!("{POST}X-A: b\0c\r\n\r\n")),
        ("no name", format!("{POST}: value\r\n\r\n")),
        ("no colon", format!("{POST}X-A\r\n\r\n")),
        ("a name with a space", format!("{POST}X A: b\r\n\r\n")),
        ("no Host", "GET / HTTP/1.1\r\n\r\n".into()),
        ("two Hosts", "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n".into()),
        ("a Host that is none", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into()),
        ("Host against target", "GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n".into()),
        ("two spaces in the request line", "GET  / HTTP/1.1\r\nHost: shop.example\r\n\r\n".into()),
        ("a tab in the request line", "GET\t/ HTTP/1.1\r\nHost: shop.example\r\n\r\n".into()),
        ("no version", "GET /\r\nHost: shop.example\r\n\r\n".into()),
        ("a broken escape", "GET /%zz HTTP/1.1\r\nHost: shop.example\r\n\r\n".into()),
        ("an escaped NUL", "GET /%00 HTTP/1.1\r\nHost: shop.example\r\n\r\n".into()),
    ];
    for (what, bytes) in table {
        let mut client = gate.client();
        client.send_in_vain(bytes + behind);
        let answer = client.answer("POST").unwrap_or_else(|| panic!("{what}: closed without an answer"));
        assert_eq!((answer.status, answer.complete), (400, true), "{what}");
        client.expect_close();
    }
    assert_eq!(origin.requests(), 0, "nothing of this reaches an origin: {:?}", origin.seen());
}

#[test]
fn a_broken_chunk_never_completes_a_request() {
    let origin = Origin::always(Reply::ok("reached"));
    let gate = Tidegate::start(&front(&origin, ""));
    let bodies = [
        "zz\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nX Y: z\r\n\r\n",
    ];
    for body in bodies {
        let mut client = gate.client();
        client.send_in_vain(format!("{POST}Transfer-Encoding: chunked\r\n\r\n{body}"));
        let answer = client.answer("POST").unwrap_or_else(|| panic!("{body:?}: closed without an answer"));
        assert_eq!(answer.status, 400, "{body:?}");
        client.expect_close();
    }
    assert!(origin.seen().iter().all(|seen| !seen.complete), "no origin took one for whole");
    gate.expect_idle();
}

#[test]
fn refuses_versions_it_does_not_speak() {
    let origin = Origin::always(Reply::ok("reached"));
    let gate = Tidegate::start(&front(&origin, ""));
    for version in ["HTTP/1.2", "HTTP/2.0", "HTTP/3"] {
        let mut client = gate.client();
        client.send(format!("GET / {version}\r\nHost: shop.example\r\n\r\n"));
        let status = client.answer("GET").expect("an answer").status;
        assert!(matches!(status, 400 | 505), "{version}: {status}");
    }
    assert_eq!(origin.requests(), 0);
}

#[test]
fn pipelined_requests_are_answered_in_order_however_they_are_cut() {
    let origin = Origin::start(|seen| match seen.method.as_str() {
        "POST" => Reply::echo(),
        _ => Reply::ok(format!("answer to {}", seen.target)),
    });
    let gate = Tidegate::start(&front(&origin, ""));
    let chunked = "Transfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n";
    let bytes = [
        b"\r\n".to_vec(),
        Request::get("/first").bytes(),
        Request::new("POST", "/second").body("body").bytes(),
        format!("POST /third HTTP/1.1\r\nHost: shop.example\r\n{chunked}").into_bytes(),
        Request::get("/last").field("Connection", "close").bytes(),
    ]
    .concat();
    let mut rng = Rng::new();
    for _ in 0..20 {
        let mut client = gate.client();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(1 + rng.below(rest.len()));
            client.send(piece);
            rest = behind;
        }
        for expected in ["answer to /first", "body", "abcde", "answer to /last"] {
            assert_eq!(client.answer("GET").expect("an answer").expect(200).text(), expected);
        }
        client.expect_close();
    }
}

#[test]
fn http_1_0_gets_what_it_can_read() {
    let origin = Origin::table(vec![
        ("/sized", Reply::ok("sized")),
        ("/stream", Reply::new(200).chunk("str").chunk("eam").last_chunk(&[])),
    ]);
    let gate = Tidegate::start(&front(&origin, ""));
    for (path, body) in [("/sized", "sized"), ("/stream", "stream")] {
        let mut client = gate.client();
        client.send(format!("GET {path} HTTP/1.0\r\nHost: shop.example\r\n\r\n"));
        let answer = client.answer("GET").unwrap().expect(200);
        assert_eq!(answer.text(), body);
        assert!(!answer.fields.has("transfer-encoding"), "{path}: HTTP/1.0 knows no chunks");
        client.expect_close();
    }
    let mut client = gate.client();
    for _ in 0..2 {
        client.send("GET /sized HTTP/1.0\r\nHost: shop.example\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(client.answer("GET").unwrap().expect(200).text(), "sized");
    }
    assert!(origin.seen().iter().all(|seen| seen.version == "HTTP/1.1"), "versions are of one hop");
}

#[test]
fn expect_continue_is_answered_before_the_body_is_sent() {
    let origin = Origin::always(Reply::echo());
    let gate = Tidegate::start(&front(&origin, ""));
    let mut client = gate.client();
    client.send(format!("{POST}Expect: 100-continue\r\nContent-Length: 4\r\n\r\n"));
    assert_eq!(client.head().0, 100);
    client.send("body");
    assert_eq!(client.answer("POST").unwrap().expect(200).text(), "body");

    let mut client = gate.client();
    client.send(format!("{POST}Expect: a-miracle\r\nContent-Length: 4\r\n\r\nbody"));
    assert_eq!(client.answer("POST").unwrap().status, 417);
}

#[test]
fn an_early_answer_reaches_a_client_that_still_uploads() {
    let origin = Origin::always(Reply::new(413).body("too much").early());
    let gate = Tidegate::start(&front(&origin, ""));
    let mut client = gate.client();
    // More than any buffer on the way takes, less than announced: the client is in the middle of it.
    client.send(format!("{POST}Content-Length: 50000000\r\n\r\n"));
    client.send_in_vain(vec![b'x'; 8 << 20]);
    assert_eq!(client.answer("POST").expect("the answer").expect(413).text(), "too much");
    gate.expect_idle();
    // One that writes everything before it reads, as simple clients do, is not cut off in its upload.
    let mut client = gate.client();
    client.send(format!("{POST}Content-Length: 12582912\r\n\r\n"));
    client.send(vec![b'x'; 12 << 20]);
    assert_eq!(client.answer("POST").expect("the answer").expect(413).text(), "too much");
}

#[test]
fn trailers_pass_both_ways() {
    let reply = Reply::new(200).field("Trailer", "X-Sum").chunk("body").last_chunk(&[("X-Sum", "42")]);
    let origin = Origin::always(reply);
    let gate = Tidegate::start(&front(&origin, ""));
    let mut client = gate.client();
    client.send(format!(
        "{POST}TE: trailers\r\nTrailer: X-Up\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Up: 1\r\n\r\n"
    ));
    let answer = client.answer("POST").unwrap().expect(200);
    assert_eq!((answer.text().as_str(), answer.trailers.get("x-sum")), ("body", Some("42")));
    let seen = origin.only();
    assert_eq!((seen.body.as_slice(), seen.trailers.get("x-up")), (&b"a"[..], Some("1")));

    let answer = h2::Client::connect(gate.listener("http")).get("/").expect(200);
    assert_eq!((answer.text().as_str(), answer.trailers.get("x-sum")), ("body", Some("42")));
}

#[test]
fn trailers_cannot_say_what_a_head_may_not() {
    let smuggled = [("Connection", "X-Sum"), ("Content-Length", "9"), ("Set-Cookie", "a=b"), ("X-Kept", "1")];
    let reply = Reply::new(200).field("Trailer", "X-Kept").chunk("body").last_chunk(&smuggled);
    let origin = Origin::always(reply);
    let gate = Tidegate::start(&front(&origin, ""));
    let mut client = gate.client();
    client.send(format!(
        "{POST}TE: trailers\r\nTrailer: X-Forwarded-For, X-Kept\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\
         X-Forwarded-For: 192.0.2.1\r\nX-Kept: 1\r\n\r\n"
    ));
    let names = ["x-kept", "x-forwarded-for", "connection", "content-length", "set-cookie"];
    let answer = client.answer("POST").unwrap().expect(200);
    let expected = [Some("1"), None, None, None, None];
    assert_eq!(names.map(|name| answer.trailers.get(name)), expected);
    assert_eq!(
        names.map(|name| origin.only().trailers.get(name).map(str::to_owned)),
        expected.map(|v| v.map(str::to_owned))
    );
    let answer = h2::Client::connect(gate.listener("http")).get("/").expect(200);
    assert_eq!(names.map(|name| answer.trailers.get(name)), expected);
}

#[test]
fn early_hints_reach_the_client() {
    let origin = Origin::always(Reply::ok("page").interim(103, &[("Link", "</a.css>; rel=preload")]));
    let gate = Tidegate::start(&front(&origin, ""));
    for answer in [gate.get("/"), h2::Client::connect(gate.listener("http")).get("/")] {
        let answer = answer.expect(200);
        let [(status, fields)] = answer.interim.as_slice() else { panic!("one interim head: {:?}", answer.interim) };
        assert_eq!((*status, fields.get("link")), (103, Some("</a.css>; rel=preload")));
    }
    // HTTP/1.0 knows no interim answers.
    let mut client = gate.client();
    client.send("GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n");
    assert_eq!(client.answer("GET").unwrap().expect(200).interim, []);
}

#[test]
fn a_websocket_carries_bytes_both_ways() {
    let origin = Origin::always(Reply::upgrade("websocket"));
    let gate = Tidegate::start(&front(&origin, ""));
    let mut client = upgrade(&gate);
    for message in ["hello", "again"] {
        client.send(message);
        assert_eq!(client.read(5), message.as_bytes());
    }
    drop(client);
    origin.wait_closed(1);
    gate.expect_idle();
}

fn upgrade(gate: &Tidegate) -> Client {
    let mut client = gate.client();
    client.send(Request::get("/ws").field("Connection", "Upgrade").field("Upgrade", "websocket").bytes());
    let (status, fields) = client.head();
    assert_eq!((status, fields.get("upgrade")), (101, Some("websocket")));
    client
}

#[test]
fn an_upgrade_to_something_else_is_no_answer() {
    for fields in [vec![], vec![("Upgrade", "other")]] {
        let reply = fields.iter().fold(Reply::new(101), |reply, (name, value)| reply.field(name, value));
        let origin = Origin::always(reply.field("Connection", "Upgrade").end(End::Tunnel));
        let gate = Tidegate::start(&front(&origin, ""));
        let mut client = gate.client();
        let ask = Request::get("/ws").field("Connection", "Upgrade").field("Upgrade", "websocket");
        assert_eq!(client.ask(&ask).status, 502, "{fields:?}");
        gate.expect_idle();
    }
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    let origin = Origin::always(Reply::new(403).body("no"));
    let gate = Tidegate::start(&front(&origin, ""));
    let mut client = gate.client();
    let ask = Request::get("/ws").field("Connection", "Upgrade").field("Upgrade", "websocket");
    assert_eq!(client.ask(&ask).expect(403).text(), "no");
    assert_eq!(client.get("/next").status, 403, "the connection goes on");
}

#[test]
fn events_arrive_while_the_stream_is_open() {
    let more = Gate::new();
    let reply = Reply::new(200).field("Content-Type", "text/event-stream").chunk("data: 1\n\n").wait(&more);
    let origin = Origin::always(reply.chunk("data: 2\n\n").last_chunk(&[]));
    // Compression must not hold an event back either, were it to apply.
    let config =
        front(&origin, "compress = \"all\"") + "[compress.all]\ncodings = [\"gzip\"]\ntypes = [\"text/html\"]\n";
    let gate = Tidegate::start(&config);
    let mut client = gate.client();
    client.send(Request::get("/events").field("Accept-Encoding", "gzip").bytes());
    assert_eq!(client.head().0, 200);
    assert_eq!(client.chunk(), "data: 1\n\n");
    more.open();
    assert_eq!(client.chunk(), "data: 2\n\n");
}

#[test]
fn answers_without_a_body_keep_the_connection_in_step() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/none" => Reply::new(204),
        "/same" => Reply::new(304).field("ETag", "\"a\""),
        _ => Reply::ok("twelve bytes"),
    });
    let gate = Tidegate::start(&front(&origin, ""));
    let mut client = gate.client();
    let answer = client.ask(&Request::new("HEAD", "/page")).expect(200);
    assert_eq!(answer.field("content-length"), Some("12"));
    let answer = client.get("/none").expect(204);
    assert!(!answer.fields.has("content-length") && !answer.fields.has("transfer-encoding"));
    assert_eq!(client.get("/same").expect(304).field("etag"), Some("\"a\""));
    assert_eq!(client.get("/page").expect(200).text(), "twelve bytes");
}

#[test]
fn http_2_streams_do_not_wait_for_each_other() {
    let held = Gate::new();
    let origin = Origin::start(move |seen| match seen.target.as_str() {
        "/slow" => Reply::ok("slow").hold(&held),
        "/last" => {
            held.open();
            Reply::ok("last")
        }
        "/echo" => Reply::echo(),
        _ => Reply::ok("quick"),
    });
    let gate = Tidegate::start(&front(&origin, ""));
    let mut requests: Vec<Request> = vec![Request::get("/slow")];
    requests.extend((0..20).map(|n| Request::get(&format!("/{n}"))));
    requests.push(Request::new("POST", "/echo").body(vec![b'x'; 300_000]));
    requests.push(Request::get("/last"));
    let answers = h2::Client::connect(gate.listener("http")).ask_all(&requests);
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.complete));
    assert_eq!(answers[0].text(), "slow");
    assert_eq!(answers[21].body.len(), 300_000);
}

#[test]
fn large_bodies_pass_whole_both_ways() {
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let origin = Origin::always(Reply::echo());
    let gate = Tidegate::start(&front(&origin, ""));
    let upload = Request::new("PUT", "/up").body(body.clone());
    // The echo begins when all is up, so a client that writes first and reads then is not stuck.
    assert!(gate.client().ask(&upload).expect(200).body == body, "over HTTP/1.1");
    assert!(h2::Client::connect(gate.listener("http")).ask(&upload).expect(200).body == body, "over HTTP/2");
}
