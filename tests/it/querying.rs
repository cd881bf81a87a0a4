//! QUERY over the wire (RFC 10008): content that is gathered, content that is not, and one fetch for those who ask the same.
//! What is stored and reused is said by `fixtures/cache/query.case`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::{Answer, Client, Request};
use crate::support::gate::Gate;
use crate::support::origin::{Origin, Reply};
use crate::support::tidegate::{PLAIN, Tidegate, front, pool};

/// A Tidegate that answers questions of up to 1 KiB from its store.
fn caching(origin: &Origin) -> Tidegate {
    Tidegate::start(&(front(origin, "cache = \"asked\"") + POLICY))
}

const POLICY: &str = "[cache.asked]\nquery_body = \"1KiB\"\n";

/// A QUERY in one chunk for each of `pieces`.
fn chunked(pieces: &[&str]) -> String {
    let chunks: String = pieces.iter().map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len())).collect();
    let head = "QUERY / HTTP/1.1\r\nHost: shop.example\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked";
    format!("{head}\r\n\r\n{chunks}0\r\nX-Sum: 7\r\n\r\n")
}

fn sized(content: &str) -> Request {
    Request::new("QUERY", "/").field("Content-Type", "text/plain").body(content)
}

/// Every byte tells where it stands.
fn numbered(length: usize) -> String {
    (0..).flat_map(|number| format!("{number} ").into_bytes()).take(length).map(char::from).collect()
}

fn fresh() -> Reply {
    Reply::new(200).field("Cache-Control", "max-age=60")
}

fn said(client: &mut Client) -> Answer {
    client.answer("QUERY").expect("an answer").expect(200)
}

fn cache_status(answer: &Answer) -> &str {
    answer.field("cache-status").and_then(|status| status.strip_prefix("tidegate; ")).expect("our Cache-Status")
}

#[test]
fn content_beyond_the_bound_reaches_the_origin_whole() {
    let origin = Origin::always(fresh().body("x"));
    let gate = caching(&origin);
    let (long, just) = (numbered(100_000), numbered(1025));
    let parts: Vec<_> = long.as_bytes().chunks(333).map(|part| str::from_utf8(part).unwrap()).collect();
    let asked = [
        (&long, sized(&long).bytes()),
        (&just, sized(&just).bytes()),
        (&just, chunked(&[&just]).into_bytes()),
        (&long, chunked(&[&long[..700], &long[700..]]).into_bytes()),
        (&long, chunked(&parts).into_bytes()),
    ];
    let mut client = gate.client();
    for (number, (content, request)) in asked.into_iter().enumerate() {
        client.send(request);
        assert_eq!(cache_status(&said(&mut client)), "fwd=bypass; detail=query_body_too_large");
        let seen = origin.wait_requests(number + 1).remove(number);
        assert_eq!(seen.trailers.get("x-sum"), (number > 1).then_some("7"));
        assert!(seen.complete && seen.body == content.as_bytes(), "{number}: {} bytes arrived", seen.body.len());
    }
}

#[test]
fn content_within_the_bound_is_one_question_however_it_is_framed() {
    let origin = Origin::always(fresh().body("x"));
    let gate = caching(&origin);
    let content = numbered(1024);
    let first = gate.client().ask(&sized(&content)).expect(200);
    assert!(cache_status(&first).contains("stored"), "{}", cache_status(&first));
    let seen = origin.only();
    assert_eq!((seen.field("content-length"), seen.body.as_slice()), (Some("1024"), content.as_bytes()));
    for pieces in [&[content.as_str()][..], &[&content[..1], &content[1..700], &content[700..]]] {
        let mut client = gate.client();
        client.send(chunked(pieces));
        let again = said(&mut client);
        assert!(cache_status(&again).starts_with("hit"), "{}", cache_status(&again));
    }
    assert_eq!(origin.requests(), 1);
}

#[test]
fn who_asks_the_same_at_once_shares_one_fetch() {
    let ready = Gate::new();
    let origin = Origin::start({
        let ready = ready.clone();
        move |seen| fresh().hold(&ready).body(seen.field("content-length").unwrap_or("none"))
    });
    let gate = caching(&origin);
    let mut clients: Vec<_> = (0..12).map(|_| gate.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(sized(["a", "bb"][number % 2]).bytes());
    }
    origin.wait_requests(2);
    ready.open();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(said(client).text(), ["1", "2"][number % 2]);
    }
    assert_eq!(origin.requests(), 2);
}

#[test]
fn it_is_asked_again_with_its_content() {
    for (failure, keys) in [
        (Reply::raw(""), "retry = { attempts = 2 }"),
        (Reply::new(503).body("busy"), "retry = { attempts = 2, on = [\"503\"] }"),
    ] {
        let asked = Arc::new(AtomicUsize::new(0));
        // Whoever is asked first fails.
        let origins = [asked.clone(), asked].map(|asked| {
            let failure = failure.clone();
            Origin::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
                0 => failure.clone(),
                _ => fresh().body("x"),
            })
        });
        let other = format!("[[route]]\nname = \"all\"\npool = \"web\"\ncache = \"asked\"\n{POLICY}");
        let gate = Tidegate::start(&(PLAIN.to_owned() + &pool("web", &[&origins[0], &origins[1]], keys) + &other));
        gate.client().ask(&sized("a")).expect(200);
        let seen = origins.iter().flat_map(Origin::seen).map(|seen| (seen.method, seen.body));
        let seen: Vec<_> = seen.collect();
        let once = ("QUERY".to_owned(), b"a".to_vec());
        assert_eq!(seen, [once.clone(), once], "{keys}");
    }
}

#[test]
fn content_that_does_not_come_ends_in_time() {
    let origin = Origin::always(fresh().body("x"));
    let text = front(&origin, "cache = \"asked\"") + POLICY;
    let gate = Tidegate::start(&text.replace(PLAIN, &format!("{PLAIN}timeouts = {{ body = \"100ms\" }}\n")));
    let mut client = gate.client();
    client.send("QUERY / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(client.answer("QUERY").expect("an answer").status, 408);
    client.expect_close();
    assert_eq!(origin.requests(), 0);
}
