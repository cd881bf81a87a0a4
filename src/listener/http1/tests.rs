//! The driver over an in-memory pipe.

use std::time::Duration;

use bytes::Bytes;

use crate::body::{Body, StoredBody};
use crate::error::ErrorKind;
use crate::listener::testing::{Served, Speaks, run, settings};
use crate::listener::{Phase, Sent, Settings};

/// Everything the server answers to `input`, until it closes; `date` lines removed.
fn converse(input: impl AsRef<[u8]>) -> String {
    converse_with(settings(), input)
}

fn converse_with(settings: Settings, input: impl AsRef<[u8]>) -> String {
    run(async {
        let mut served = Served::start(Speaks::Http1, settings);
        served.write(input).await;
        undated(&served.read_to_end().await)
    })
}

fn undated(text: &str) -> String {
    text.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}

/// Status and body of the last of `answers`.
fn last(answers: &str) -> (u16, String) {
    let head = answers.rsplit("HTTP/1.1 ").next().expect("an answer");
    let status = head.get(..3).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let body = head.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (status, body.unwrap_or_default())
}

#[test]
fn one_request_one_answer() {
    let answer = converse("GET /a?b=c HTTP/1.1\r\nHost: Shop.Example:8443\r\n\r\n");
    assert_eq!(answer, "HTTP/1.1 200 OK\r\ncontent-length: 29\r\n\r\nGET shop.example:8443 /a?b=c ");
}

#[test]
fn hostile_heads_are_refused_by_name() {
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n").into_bytes();
    let get = |fields: &str| format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n").into_bytes();
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n").into_bytes();
    let cases: Vec<(Vec<u8>, u16, &str)> = vec![
        // Framing
        (post("Content-Length: 5\r\nTransfer-Encoding: chunked"), 400, "te_with_cl"),
        (post("Content-Length: 5\r\nContent-Length: 5"), 400, "cl_repeated"),
        (post("Content-Length: 5, 5"), 400, "cl_list"),
        (post("Content-Length: +5"), 400, "cl_invalid"),
        (post("Content-Length:"), 400, "cl_invalid"),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400, "te_repeated"),
        (post("Transfer-Encoding: xchunked"), 400, "te_not_chunked"),
        (post("Transfer-Encoding: chunked, identity"), 400, "te_not_chunked"),
        (post("Transfer-Encoding: \u{b}chunked"), 400, "field_value"),
        (post("Transfer_Encoding: chunked"), 400, "te_lookalike"),
        (post("Content_Length: 5"), 400, "cl_lookalike"),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), 400, "te_in_http10"),
        // Fields
        (post("Transfer-Encoding : chunked"), 400, "space_before_colon"),
        (get("Host: a\r\nX: a\r\n b"), 400, "obs_fold"),
        (get("Host: a\r\n X: a"), 400, "obs_fold"),
        (get("Host: a\r\nX\u{e9}: a"), 400, "field_name"),
        (get("Host: a\r\n: a"), 400, "field_name"),
        (get("Host: a\r\nX"), 400, "field_without_colon"),
        (get("Host: a\r\nX: a\0b"), 400, "nul"),
        (get("Host: a\r\nX: a\x7fb"), 400, "field_value"),
        (get("Host: a\nX: b"), 400, "bare_lf"),
        (b"GET / HTTP/1.1\nHost: a\n\n".to_vec(), 400, "bare_lf"),
        (get("Host: a\rX: b"), 400, "bare_cr"),
        (get(&format!("Host: a\r\n{}", "X: y\r\n".repeat(20).trim_end())), 431, "too_many_headers"),
        (get(&format!("Host: a\r\nX: {}", "y".repeat(5000))), 431, "header_too_large"),
        // Request line
        (line("GET  / HTTP/1.1"), 400, "request_line_spaces"),
        (line("GET / HTTP/1.1 "), 400, "request_line_spaces"),
        (line("GET\t/ HTTP/1.1"), 400, "method"),
        (line("G(T / HTTP/1.1"), 400, "method"),
        (line(" GET / HTTP/1.1"), 400, "method"),
        (line("GET /"), 400, "http09"),
        (line("GET / HTTP/2.0"), 505, "version_refused"),
        (line("GET / HTTP/1.2"), 505, "version_refused"),
        (line("GET / http/1.1"), 400, "version"),
        (line("GET / HTTP/1.10"), 400, "version"),
        (line("GET /\u{e9} HTTP/1.1"), 400, "target_character"),
        (line("GET /a#b HTTP/1.1"), 400, "target_character"),
        (line("GET a HTTP/1.1"), 400, "target_form"),
        (line("GET * HTTP/1.1"), 400, "target_form"),
        (line("GET ftp://a/ HTTP/1.1"), 400, "target_form"),
        (line("GET http://user@a/ HTTP/1.1"), 400, "target_authority"),
        (line("GET http://b/ HTTP/1.1"), 400, "host_differs"),
        (line("CONNECT a:443 HTTP/1.1"), 405, "method_refused"),
        (line(&format!("GET /{} HTTP/1.1", "a".repeat(256))), 414, "uri_too_long"),
        (format!("GET /{}", "a".repeat(400)).into_bytes(), 414, "uri_too_long"),
        (b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400, "blank_lines"),
        (b"\x16\x03\x01\x02\0\x01\0".to_vec(), 400, "nul"),
        // Host
        (get("X: a"), 400, "host_missing"),
        (get("Host: a\r\nHost: a"), 400, "host_repeated"),
        (get("Host: a b"), 400, "host_invalid"),
        (get("Host:"), 400, "host_empty"),
        (get("Host: a/b"), 400, "host_invalid"),
        // Others
        (post("Content-Length: 5\r\nExpect: 200-maybe"), 417, "expectation_failed"),
    ];
    for (input, status, reason) in cases {
        let shown = String::from_utf8_lossy(&input).chars().take(80).collect::<String>();
        // What follows must not be taken for a request.
        let answers = converse([input.as_slice(), b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
        assert_eq!(last(&answers), (status, reason.to_owned()), "{shown:?}");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{shown:?}");
        assert!(answers.contains("connection: close\r\n"), "{shown:?}");
    }
}

#[test]
fn unusual_heads_that_are_fine_are_taken() {
    let cases = [
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET a / "),
        ("GET http://A/x HTTP/1.1\r\nHost: a\r\n\r\n", "GET a /x "),
        ("GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n", "GET a /?q "),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS a * "),
        ("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS a * "),
        ("GET / HTTP/1.1\r\nHost:a\r\nX:\t\r\nY: \u{e9}\r\n\r\n", "GET a / "),
        ("PURGE /{|}\"^` HTTP/1.1\r\nHost: a\r\n\r\n", "PURGE a /{|}\"^` "),
        ("GET / HTTP/1.0\r\n\r\n", "GET  / "),
    ];
    for (input, body) in cases {
        assert_eq!(last(&converse(input)), (200, body.to_owned()), "{input:?}");
    }
}

#[test]
fn bodies_arrive_and_pipelined_requests_are_answered_in_order() {
    let input = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
                 POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\nX-Sum: 7\r\n\r\n\
                 HEAD /3 HTTP/1.1\r\nHost: a\r\n\r\n\
                 GET /close HTTP/1.1\r\nHost: a\r\n\r\n\
                 GET /5 HTTP/1.1\r\nHost: a\r\n\r\n";
    let expected = "HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\nPOST a /1 abc\
                    HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nPOST a /2 de x-sum=7\
                    HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n\
                    HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbye";
    assert_eq!(converse(input), expected);
}

#[test]
fn a_request_may_come_a_byte_at_a_time() {
    run(async {
        let mut served = Served::start(Speaks::Http1, settings());
        for byte in b"\r\nPOST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n" {
            served.write([*byte]).await;
            tokio::task::yield_now().await;
        }
        assert!(served.read_until("POST a / a").await.starts_with("HTTP/1.1 200 OK\r\n"));
    });
}

#[test]
fn each_body_gets_the_framing_its_client_understands() {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let old = |path: &str| format!("GET {path} HTTP/1.0\r\n\r\n");
    let ok = "HTTP/1.1 200 OK\r\n";
    let closed = "connection: close\r\n\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    let cases = [
        (get("/pieces"), format!("{ok}{chunked}{closed}4\r\none \r\n4\r\ntwo \r\n5\r\nthree\r\n0\r\n\r\n")),
        (get("/trailers"), format!("{ok}{chunked}{closed}4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n")),
        (old("/pieces"), format!("{ok}{closed}one two three")),
        (old("/trailers"), format!("{ok}{closed}body")),
        (get("/empty"), format!("HTTP/1.1 204 No Content\r\n{closed}")),
        (get("/not-modified"), format!("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n{closed}")),
    ];
    for (input, expected) in cases {
        assert_eq!(converse(&input), expected, "{input:?}");
    }
    let kept = converse("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET /x HTTP/1.0\r\n\r\n");
    assert_eq!(kept.matches("connection: keep-alive").count(), 1, "{kept:?}");
    assert_eq!(last(&kept), (200, "GET  /x ".to_owned()));
    let large = converse(get("/large"));
    assert_eq!(last(&large).1.len(), 1 << 20);
}

#[test]
fn a_body_that_breaks_off_never_looks_complete() {
    let cases = [
        ("/broken", "4\r\nhalf\r\n", ErrorKind::ResponseTruncated),
        ("/short", "half", ErrorKind::ResponseTruncated),
        ("/long", "", ErrorKind::Internal("body_longer_than_announced")),
    ];
    for (path, expected, kind) in cases {
        run(async {
            let mut served = Served::start(Speaks::Http1, settings());
            served.write(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            assert_eq!(last(&served.read_to_end().await).1, expected, "{path}");
            let sent = served.handler.sent.borrow()[0];
            assert!(!sent.complete, "{path}");
            assert_eq!(sent.error.map(|error| error.kind), Some(kind), "{path}");
        });
    }
}

#[test]
fn the_client_is_told_to_continue_only_when_its_body_is_wanted() {
    run(async {
        let mut served = Served::start(Speaks::Http1, settings());
        let head = |path: &str| {
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        };
        served.write(head("/")).await;
        assert_eq!(served.read_until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        served.write("abc").await;
        served.read_until("POST a / abc").await;
        // The body comes with the head: nobody waits for a 100.
        served.write(head("/x") + "abc").await;
        let answer = served.read_until("POST a /x abc").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
        // Answered without the body: whether it comes is anybody's guess, so the connection ends.
        served.write(head("/early")).await;
        let answer = served.read_to_end().await;
        assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("connection: close"), "{answer:?}");
    });
}

#[test]
fn interim_heads_go_before_the_answer_but_not_to_old_clients() {
    let answer = converse("GET /interim HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK"), "{answer:?}");
    let answer = converse("GET /interim HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer:?}");
}

#[test]
fn an_early_answer_reaches_a_client_that_still_uploads() {
    run(async {
        let mut served = Served::start(Speaks::Http1, settings());
        served.write("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
        let answer = served.read_until("too large").await;
        assert!(answer.contains("connection: close"), "{answer:?}");
        // The server swallows what follows for a while instead of resetting the connection.
        served.write([b'x'; 100_000]).await;
        assert_eq!(served.read_to_end().await, "");
    });
}

#[test]
fn an_early_answer_keeps_the_connection_when_the_body_is_already_there() {
    let answers = converse(
        "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(last(&answers), (200, "GET a /next ".to_owned()));
}

#[test]
fn both_directions_flow_at_once() {
    run(async {
        let mut served = Served::start(Speaks::Http1, settings());
        served.write("POST /duplex HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        served.read_until("\r\n\r\n").await;
        for _ in 0..3 {
            served.write("4\r\nping\r\n").await;
            assert_eq!(served.read_until("\r\n").await, "4\r\n");
            assert_eq!(served.read_until("\r\n").await, "ping\r\n");
        }
        served.write("0\r\n\r\n").await;
        assert_eq!(served.read_until("0\r\n\r\n").await, "0\r\n\r\n");
        served.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        served.read_until("GET a / ").await;
    });
}

#[test]
fn a_client_that_leaves_frees_its_handler_even_behind_pipelined_requests() {
    for pipelined in ["", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        run(async {
            let mut served = Served::start(Speaks::Http1, settings());
            served.write(format!("GET /never HTTP/1.1\r\nHost: a\r\n\r\n{pipelined}")).await;
            tokio::time::sleep(Duration::from_secs(1000)).await;
            assert_eq!(served.handler.abandoned.get(), 0, "no timeout of the listener ends a handler");
            tokio::io::AsyncWriteExt::shutdown(&mut served.client).await.expect("half-closed");
            served.finished().await;
            assert_eq!(served.handler.abandoned.get(), 1);
        });
    }
}

#[test]
fn an_upload_that_is_cut_short_is_no_body() {
    run(async {
        let mut served = Served::start(Speaks::Http1, settings());
        served.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await;
        tokio::io::AsyncWriteExt::shutdown(&mut served.client).await.expect("half-closed");
        assert_eq!(last(&served.read_to_end().await), (499, "client_gone".to_owned()));
    });
}

#[test]
fn a_body_that_cannot_be_trusted_is_refused_by_name() {
    let post = |body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let cases = [
        (post("+3\r\nabc\r\n"), (400, "chunk_size")),
        (post("3\nabc\r\n"), (400, "bare_lf")),
        (post("0\r\nContent-Length: 3\r\n\r\n"), (400, "trailer_forbidden")),
        (post("0\r\nHost: b\r\n\r\n"), (400, "trailer_forbidden")),
        (post(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(40))), (431, "too_many_headers")),
        (post(&format!("0\r\nX: {}\r\n\r\n", "y".repeat(9000))), (431, "header_too_large")),
    ];
    for (input, (status, reason)) in cases {
        assert_eq!(last(&converse(&input)), (status, reason.to_owned()), "{input:?}");
    }
}

#[test]
fn silence_ends_a_connection_in_its_own_way_at_each_place() {
    let seconds = Duration::from_secs;
    let cases = [
        ("", seconds(60), None),
        ("GET / HT", seconds(10), Some((408, "header_timeout"))),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na", seconds(30), Some((408, "body_timeout"))),
    ];
    for (input, after, expected) in cases {
        run(async {
            let mut served = Served::start(Speaks::Http1, settings());
            let began = crate::clock::timer_now();
            served.write(input).await;
            let answer = served.read_to_end().await;
            let took = crate::clock::timer_now() - began;
            assert!(took >= after && took < after + seconds(1), "{input:?} took {took:?}");
            match expected {
                None => assert_eq!(answer, ""),
                Some((status, reason)) => assert_eq!(last(&answer), (status, reason.to_owned())),
            }
        });
    }
}

#[test]
fn a_dripping_head_is_cut_off_in_all() {
    run(async {
        let mut served = Served::start(Speaks::Http1, settings());
        let mut dripped = 0;
        served.write("GET / HTTP/1.1\r\nX: ").await;
        while dripped < 20 && served.handler.sent.borrow().is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut served.client, b"y").await;
            dripped += 1;
        }
        assert!((9..=11).contains(&dripped), "{dripped}");
    });
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    run(async {
        let mut served = Served::start(Speaks::Http1, settings());
        served.write("GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
        served.finished().await;
        let sent = served.handler.sent.borrow()[0];
        assert!(!sent.complete && sent.body_bytes < 100_000, "{sent:?}");
    });
}

#[test]
fn draining_closes_idle_connections_and_finishes_busy_ones() {
    run(async {
        let mut idle = Served::start(Speaks::Http1, settings());
        idle.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        idle.read_until("GET a / ").await;
        idle.enter(Phase::Draining);
        assert_eq!(idle.read_to_end().await, "");

        let mut busy = Served::start(Speaks::Http1, settings());
        busy.write("GET /interim HTTP/1.1\r\nHost: a\r\n\r\n").await;
        busy.read_until("</a.css>\r\n\r\n").await;
        busy.enter(Phase::Draining);
        let answer = busy.read_to_end().await;
        assert!(answer.contains("connection: close") && answer.ends_with("after hints"), "{answer:?}");

        let mut stuck = Served::start(Speaks::Http1, settings());
        stuck.write("GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await;
        tokio::task::yield_now().await;
        stuck.enter(Phase::Closing);
        stuck.finished().await;
        assert_eq!(stuck.handler.abandoned.get(), 1);
    });
}

#[test]
fn a_connection_made_just_before_a_drain_still_gets_its_answer() {
    run(async {
        let mut late = Served::start(Speaks::Http1, settings());
        late.enter(Phase::Draining);
        tokio::time::sleep(Duration::from_millis(500)).await;
        late.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(late.read_to_end().await.ends_with("connection: close\r\n\r\nGET a / "));

        let silent = Served::start(Speaks::Http1, settings());
        silent.enter(Phase::Draining);
        tokio::time::timeout(Duration::from_secs(2), silent.finished()).await.expect("not for long");
    });
}

#[test]
fn a_slow_reader_is_not_blamed_on_the_client() {
    run(async {
        let mut served = Served::start(Speaks::Http1, settings());
        served.write("POST /slow-reader HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        served.write("bc").await;
        served.read_until("abc").await;
    });
}

#[test]
fn an_upgraded_connection_carries_bytes_both_ways_to_either_end() {
    run(async {
        let mut served = Served::start(Speaks::Http1, settings());
        let head =
            "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nfirst ";
        served.write(head).await;
        let answer = served.read_until("hello first ").await;
        assert!(
            answer.starts_with("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"),
            "{answer:?}"
        );
        served.write("second ").await;
        served.read_until("second ").await;
        // Our end of input travels through; what the other side says after it still comes back.
        tokio::io::AsyncWriteExt::shutdown(&mut served.client).await.expect("half-closed");
        assert_eq!(served.read_to_end().await, "!");
        served.finished().await;
        let expected = Sent { body_bytes: 20, complete: true, error: None };
        assert_eq!(*served.handler.sent.borrow(), [expected]);
    });
}

#[test]
fn a_silent_tunnel_is_cut_and_h2c_is_no_upgrade() {
    run(async {
        let mut served = Served::start(Speaks::Http1, settings());
        served.write("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        served.read_until("hello ").await;
        assert_eq!(served.read_to_end().await, "");
        let sent = served.handler.sent.borrow()[0];
        assert_eq!(sent.error.map(|error| error.kind), Some(ErrorKind::ReadTimeout));
    });
    let answer = converse("GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: h2c\r\n\r\n");
    assert_eq!(last(&answer), (200, "GET a /x ".to_owned()));
}

#[test]
fn an_answer_leaves_in_one_write() {
    run(async {
        let (client, server) = tokio::io::duplex(1024);
        let io = Counting { io: server, writes: std::rc::Rc::default() };
        let writes = std::rc::Rc::clone(&io.writes);
        let mut outbox = crate::body::http1::Outbox::default();
        outbox.compose(|to| to.extend_from_slice(b"head"));
        outbox.push(Bytes::from_static(b"body"));
        let mut io = io;
        std::future::poll_fn(|cx| outbox.poll_write(cx, &mut io, &mut 0)).await.expect("written");
        drop(io);
        let mut client = client;
        assert_eq!(crate::listener::testing::read_to_end(&mut client).await, "headbody");
        assert_eq!(writes.get(), 1);
    });
}

#[test]
fn a_file_goes_out_in_its_place_among_the_pieces() {
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let connecting = tokio::net::TcpStream::connect(listener.local_addr().expect("an address"));
        let (client, server) = tokio::join!(connecting, listener.accept());
        let (mut client, mut server) = (client.expect("connected"), server.expect("accepted").0);
        // More than the socket takes at once, so that every kind of piece is cut somewhere.
        let bytes: Vec<u8> = (0_u32..500_000).flat_map(u32::to_be_bytes).collect();
        let stored = StoredBody::new([Bytes::from(bytes.clone())].into(), None, std::sync::Arc::new(()));
        let mut outbox = crate::body::http1::Outbox::default();
        let mut expected = Vec::new();
        for _ in 0..2 {
            outbox.compose(|to| to.extend_from_slice(b"head"));
            let mut body = Body::Stored(stored.in_file(std::sync::Arc::new(())).expect("a file"));
            outbox.push_file(body.take_file().expect("all of it"));
            assert!(body.take_file().is_none() && body.frame().await.is_none());
            outbox.push(Bytes::from(bytes.clone()));
            expected.extend([b"head", &bytes[..], &bytes].concat());
        }
        assert_eq!(outbox.unwritten(), expected.len());
        let write = async move {
            std::future::poll_fn(|cx| outbox.poll_write(cx, &mut server, &mut 0)).await.expect("written");
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(write, tokio::io::AsyncReadExt::read_to_end(&mut client, &mut received));
        read.expect("read");
        assert!(received == expected, "{} bytes of {}", received.len(), expected.len());
    });
}

/// Counts gathering writes, which a pipe does not have.
struct Counting {
    io: tokio::io::DuplexStream,
    writes: std::rc::Rc<std::cell::Cell<usize>>,
}

impl tokio::io::AsyncWrite for Counting {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.writes.set(self.writes.get() + 1);
        std::pin::Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        self.poll_write(cx, &all)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl crate::body::http1::SendsFiles for Counting {}
