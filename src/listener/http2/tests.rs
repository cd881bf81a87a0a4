//! The driver over an in-memory pipe, with the `h2` client at the other end.

use std::time::Duration;

use bytes::Bytes;
use h2::client::{SendRequest, handshake};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error::ErrorKind;
use crate::listener::Phase;
use crate::listener::gate::Gate;
use crate::listener::testing::{Scripted, Served, Speaks, run, settings};

/// A connected client; the pipe is driven in the background.
struct Client {
    requests: SendRequest<Bytes>,
    handler: Scripted,
    gate: std::sync::Arc<Gate>,
    ended: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    async fn connect() -> (Self, Served) {
        let mut served = Served::start(Speaks::Http2, settings());
        let pipe = std::mem::replace(&mut served.client, tokio::io::duplex(1).0);
        let (requests, connection) = handshake(pipe).await.expect("a handshake");
        let ended = tokio::task::spawn_local(connection);
        (Self { requests, handler: served.handler.clone(), gate: served.gate.clone(), ended }, served)
    }

    /// Sends a request with an optional body and waits for the head of its answer.
    async fn send(
        &mut self,
        request: Request<()>,
        body: Option<&'static str>,
    ) -> Result<Response<RecvStream>, h2::Error> {
        let mut requests = self.requests.clone().ready().await?;
        let (answer, mut stream) = requests.send_request(request, body.is_none())?;
        if let Some(body) = body {
            stream.send_data(Bytes::from_static(body.as_bytes()), false)?;
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "7".parse().expect("a value"));
            stream.send_trailers(trailers)?;
        }
        answer.await
    }

    async fn get(&mut self, path: &str) -> Result<Response<RecvStream>, h2::Error> {
        self.send(get(path), None).await
    }
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://a{path}")).body(()).expect("a request")
}

/// Body text, trailers, and how it ended.
async fn read(answer: Response<RecvStream>) -> (String, HeaderMap, Option<Reason>) {
    let mut body = answer.into_body();
    let mut text = String::new();
    while let Some(piece) = body.data().await {
        match piece {
            Ok(piece) => {
                text.push_str(&String::from_utf8_lossy(&piece));
                let _ = body.flow_control().release_capacity(piece.len());
            }
            Err(error) => return (text, HeaderMap::new(), error.reason()),
        }
    }
    let trailers = body.trailers().await.ok().flatten();
    (text, trailers.unwrap_or_default(), None)
}

#[test]
fn requests_arrive_whole_and_answers_return_whole() {
    run(async {
        let (mut client, _served) = Client::connect().await;
        let request = Request::post("http://A:80/x?y").header("x-show-fields", "1");
        let request = request.header("cookie", "a=1").header("cookie", "b=2").body(()).expect("a request");
        let answer = client.send(request, Some("abc")).await.expect("an answer");
        assert!(answer.headers().contains_key("date"));
        let (text, ..) = read(answer).await;
        assert_eq!(text, "POST a:80 /x?y cookie=a=1; b=2 host=a:80 abc x-sum=7");

        let answer = client.get("/trailers").await.expect("an answer");
        let (text, trailers, _) = read(answer).await;
        assert_eq!((text.as_str(), &trailers["x-sum"]), ("body", &"42".parse().expect("a value")));

        let answer = client.get("/large").await.expect("an answer");
        assert_eq!(answer.headers()["content-length"], "1048576");
        assert_eq!(read(answer).await.0.len(), 1 << 20);

        let answer = client.send(Request::head("http://a/").body(()).expect("one"), None).await.expect("an answer");
        assert_eq!((answer.headers()["content-length"].as_bytes(), answer.body().is_end_stream()), (&b"9"[..], true));
        let answer = client.get("/not-modified").await.expect("an answer");
        assert_eq!((answer.headers()["content-length"].as_bytes(), answer.status().as_u16()), (&b"9"[..], 304));
        let answer = client.get("/empty").await.expect("an answer");
        assert!(!answer.headers().contains_key("content-length") && answer.body().is_end_stream());
        assert!(client.handler.sent.borrow().iter().all(|sent| sent.complete));
    });
}

#[test]
fn hostile_requests_are_refused_by_name_and_the_connection_goes_on() {
    run(async {
        let (mut client, _served) = Client::connect().await;
        let long = format!("http://a/{}", "x".repeat(300));
        let mut many = Request::get("http://a/");
        for number in 0..25 {
            many = many.header(format!("x-{number}"), "y");
        }
        let cases = [
            (Request::get("http://a/").header("host", "b"), 400, "host_differs"),
            (Request::get("http://a,b/"), 400, "authority_invalid"),
            (Request::get("http://user@a/"), 400, "authority_invalid"),
            (Request::get("http://a/").header("host", "a/b"), 400, "host_invalid"),
            (Request::get("http://a/").header("content_length", "5"), 400, "cl_lookalike"),
            (Request::get("http://a/").header("transfer_encoding", "chunked"), 400, "te_lookalike"),
            (Request::get("http://a/").header("x", " y"), 400, "field_value_spaces"),
            (Request::get("http://a/").header("expect", "no"), 417, "expectation_failed"),
            (Request::connect("a:443"), 405, "method_refused"),
            (Request::get(long), 414, "uri_too_long"),
            (many, 431, "too_many_headers"),
        ];
        for (request, status, reason) in cases {
            let answer = client.send(request.body(()).expect("a request"), None).await.expect(reason);
            assert_eq!(answer.status().as_u16(), status, "{reason}");
            assert_eq!(read(answer).await.0, reason);
        }
        assert!(client.gate.counters().framing_faults.read().contains_key("host_differs"));
        let answer = client.get("/").await.expect("an answer");
        assert_eq!(read(answer).await.0, "GET a / ");
    });
}

#[test]
fn a_body_that_breaks_off_ends_in_a_reset() {
    for (path, kind) in [
        ("/broken", ErrorKind::ResponseTruncated),
        ("/short", ErrorKind::ResponseTruncated),
        ("/long", ErrorKind::Internal("body_longer_than_announced")),
    ] {
        run(async {
            let (mut client, _served) = Client::connect().await;
            if let Ok(answer) = client.get(path).await {
                assert_eq!(read(answer).await.2, Some(Reason::INTERNAL_ERROR), "{path}");
            }
            let sent = client.handler.sent.borrow()[0];
            assert_eq!((sent.complete, sent.error.map(|error| error.kind)), (false, Some(kind)), "{path}");
        });
    }
}

#[test]
fn a_reset_by_the_client_drops_the_handler() {
    run(async {
        let (mut client, _served) = Client::connect().await;
        let (answer, mut stream) = client.requests.send_request(get("/never"), true).expect("sent");
        tokio::time::sleep(Duration::from_secs(1000)).await;
        assert_eq!(client.handler.abandoned.get(), 0);
        stream.send_reset(Reason::CANCEL);
        drop((answer, stream));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(client.handler.abandoned.get(), 1);
    });
}

#[test]
fn a_client_that_resets_without_end_is_sent_away() {
    run(async {
        let (client, _served) = Client::connect().await;
        let mut rounds = 0;
        while rounds < 1000 {
            let Ok(mut requests) = client.requests.clone().ready().await else { break };
            let Ok((_answer, mut stream)) = requests.send_request(get("/never"), true) else { break };
            tokio::time::sleep(Duration::from_millis(1)).await;
            stream.send_reset(Reason::CANCEL);
            rounds += 1;
        }
        assert!((super::RESETS..super::RESETS + 10).contains(&rounds), "{rounds}");
        let error = client.ended.await.expect("not cancelled").expect_err("sent away");
        assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    });
}

#[test]
fn interim_heads_arrive_and_100_only_when_the_body_is_wanted() {
    run(async {
        let (mut client, _served) = Client::connect().await;
        let request = Request::post("http://a/").header("expect", "100-continue").body(()).expect("a request");
        let (mut answer, mut stream) = client.requests.send_request(request, false).expect("sent");
        let interim = std::future::poll_fn(|cx| answer.poll_informational(cx)).await.expect("one").expect("interim");
        assert_eq!(interim.status(), StatusCode::CONTINUE);
        stream.send_data(Bytes::from_static(b"abc"), true).expect("sent");
        assert_eq!(read(answer.await.expect("an answer")).await.0, "POST a / abc");

        let (mut answer, _) = client.requests.send_request(get("/interim"), true).expect("sent");
        let interim = std::future::poll_fn(|cx| answer.poll_informational(cx)).await.expect("one").expect("interim");
        assert_eq!(
            (interim.status(), interim.headers()["link"].as_bytes()),
            (StatusCode::EARLY_HINTS, &b"</a.css>"[..])
        );
        assert_eq!(read(answer.await.expect("an answer")).await.0, "after hints");
    });
}

#[test]
fn an_early_answer_ends_the_upload() {
    run(async {
        let (mut client, _served) = Client::connect().await;
        let request = Request::post("http://a/early").body(()).expect("a request");
        let (answer, mut stream) = client.requests.send_request(request, false).expect("sent");
        let answer = answer.await.expect("an answer");
        assert_eq!((answer.status().as_u16(), read(answer).await.0.as_str()), (413, "too large"));
        let reset = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.expect("a reset");
        assert_eq!(reset, Reason::NO_ERROR);
    });
}

#[test]
fn silence_in_a_body_and_stalled_streams_end() {
    run(async {
        let (mut client, _served) = Client::connect().await;
        let request = Request::post("http://a/").body(()).expect("a request");
        let (answer, _stream) = client.requests.send_request(request, false).expect("sent");
        let answer = answer.await.expect("an answer");
        assert_eq!((answer.status().as_u16(), read(answer).await.0.as_str()), (408, "body_timeout"));

        // Nobody makes room for the body: the stream is cut, not the connection.
        let answer = client.get("/large").await.expect("an answer");
        let mut body = answer.into_body();
        tokio::time::sleep(Duration::from_secs(31)).await;
        let ended = loop {
            match body.data().await.expect("not the end") {
                Ok(piece) => body.flow_control().release_capacity(piece.len()).expect("room"),
                Err(error) => break error,
            }
        };
        assert_eq!(ended.reason(), Some(Reason::CANCEL));
        assert_eq!(read(client.get("/").await.expect("an answer")).await.0, "GET a / ");
    });
}

#[test]
fn both_directions_flow_at_once() {
    run(async {
        let (mut client, _served) = Client::connect().await;
        let request = Request::post("http://a/duplex").body(()).expect("a request");
        let (answer, mut stream) = client.requests.send_request(request, false).expect("sent");
        let mut body = answer.await.expect("an answer").into_body();
        for _ in 0..3 {
            stream.send_data(Bytes::from_static(b"ping"), false).expect("sent");
            assert_eq!(body.data().await.expect("a piece").expect("a piece"), "ping");
        }
        stream.send_data(Bytes::new(), true).expect("sent");
        while let Some(piece) = body.data().await {
            assert_eq!(piece.expect("an orderly end"), "");
        }
    });
}

#[test]
fn idle_connections_are_sent_away_and_draining_ones_finish() {
    run(async {
        let (mut client, served) = Client::connect().await;
        read(client.get("/").await.expect("an answer")).await;
        served.finished().await;
        client.ended.await.expect("not cancelled").expect("an orderly end");

        let (mut client, served) = Client::connect().await;
        let (answer, _) = client.requests.send_request(get("/interim"), true).expect("sent");
        tokio::task::yield_now().await;
        served.enter(Phase::Draining);
        assert_eq!(read(answer.await.expect("an answer")).await.0, "after hints");
        served.finished().await;
        client.ended.await.expect("not cancelled").expect("an orderly end");

        let (mut client, served) = Client::connect().await;
        let (answer, _) = client.requests.send_request(get("/never"), true).expect("sent");
        tokio::time::sleep(Duration::from_millis(1)).await;
        served.enter(Phase::Closing);
        assert!(answer.await.is_err());
        served.finished().await;
        assert_eq!(client.handler.abandoned.get(), 1);
    });
}

#[test]
fn a_client_that_sends_nothing_but_noise_is_sent_away() {
    run(async {
        let mut served = Served::start(Speaks::Http2, settings());
        let pipe = &mut served.client;
        pipe.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("a preface");
        // Frames of an unknown type, which are to be ignored (RFC 9113 §5.5), until nobody takes them any more.
        let frame = [b"\0\x40\0\xf0\0\0\0\0\0".as_slice(), &[0; 0x4000]].concat();
        let mut taken = 0;
        while taken < 2 * super::QUIET && pipe.write_all(&frame).await.is_ok() {
            taken += frame.len() as u64;
        }
        assert!((super::QUIET..2 * super::QUIET).contains(&taken), "{taken}");
        let mut words = Vec::new();
        pipe.read_to_end(&mut words).await.expect("the end");
        let last = words.split_at(words.len() - 8).1;
        assert_eq!(last, [0, 0, 0, 0, 0, 0, 0, 11], "a GOAWAY with ENHANCE_YOUR_CALM");
        assert_eq!(served.gate.counters().framing_faults.read()["http2_noise_flood"], 1);
    });
}
