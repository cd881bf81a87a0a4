//! Content codings: which one a client gets, what is left alone, and what becomes of validators.

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use tokio::io::AsyncReadExt;

use crate::support::client::{Answer, Request};
use crate::support::origin::{Origin, Reply};
use crate::support::tidegate::{Tidegate, front};

const POLICY: &str = r#"
[compress.all]
codings = ["zstd", "br", "gzip"]
types = ["text/*", "application/json"]
min_size = "1KiB"
[cache.pages]
"#;

fn compressing(origin: &Origin, more: &str) -> Tidegate {
    Tidegate::start(&(front(origin, &format!("compress = \"all\"\n{more}")) + POLICY))
}

fn page() -> String {
    "The tide is high but I'm holding on. ".repeat(200)
}

/// The body without its content coding.
fn decoded(answer: &Answer) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut bytes = Vec::new();
    let body = answer.body.as_slice();
    let read = runtime.block_on(async {
        match answer.field("content-encoding") {
            None => AsyncReadExt::read_to_end(&mut { body }, &mut bytes).await,
            Some("gzip") => GzipDecoder::new(body).read_to_end(&mut bytes).await,
            Some("br") => BrotliDecoder::new(body).read_to_end(&mut bytes).await,
            Some("zstd") => ZstdDecoder::new(body).read_to_end(&mut bytes).await,
            Some(other) => panic!("a coding we never make: {other}"),
        }
    });
    read.expect("a body in the coding it says");
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_client_chooses_among_what_we_offer() {
    let origin = Origin::always(Reply::new(200).field("Content-Type", "text/html; charset=utf-8").body(page()));
    let gate = compressing(&origin, "");
    let table = [
        (Some("gzip"), Some("gzip")),
        (Some("br, gzip"), Some("br")),
        (Some("gzip, br, zstd"), Some("zstd")),
        (Some("gzip;q=1, br;q=0.5"), Some("gzip")),
        (Some("gzip;q=0, br;q=0.1"), Some("br")),
        (Some("*"), Some("zstd")),
        (Some("*;q=0.5, zstd;q=0"), Some("br")),
        (Some("GZip"), Some("gzip")),
        (Some("identity"), None),
        (Some("deflate, compress"), None),
        (Some("gzip;q=0.5, identity;q=1"), None),
        (Some(""), None),
        (Some("gzip;q=what"), None),
        (None, None),
    ];
    let mut client = gate.client();
    for (accepted, expected) in table {
        let ask = Request::get("/");
        let ask = accepted.map_or(ask.clone(), |accepted| ask.field("Accept-Encoding", accepted));
        let answer = client.ask(&ask).expect(200);
        assert_eq!(answer.field("content-encoding"), expected, "{accepted:?}");
        assert!(decoded(&answer) == page(), "{accepted:?}");
        let vary = answer.fields.all("vary").join(",").to_ascii_lowercase();
        assert!(vary.contains("accept-encoding"), "{accepted:?}: what is negotiated says so");
    }
}

#[test]
fn what_gains_nothing_or_must_not_change_is_left_alone() {
    let of = |kind: &str| Reply::new(200).field("Content-Type", kind);
    let table = [
        ("a small body", of("text/plain").body("short")),
        ("an image", of("image/png").body(page())),
        ("no type", Reply::new(200).body(page())),
        ("no-transform", of("text/plain").field("Cache-Control", "no-transform").body(page())),
        ("coded already", of("text/plain").field("Content-Encoding", "x-own").body(page())),
        (
            "a part",
            Reply::new(206)
                .field("Content-Type", "text/plain")
                .field("Content-Range", "bytes 0-7399/9999")
                .body(page()),
        ),
        ("events", of("text/event-stream").body(page())),
    ];
    for (what, reply) in table {
        let origin = Origin::always(reply);
        let gate = compressing(&origin, "");
        let answer = gate.client().ask(&Request::get("/").field("Accept-Encoding", "gzip"));
        assert!(answer.complete && answer.field("content-encoding") != Some("gzip"), "{what}: {:?}", answer.fields);
    }
}

#[test]
fn a_coded_body_has_a_tag_of_its_own_that_is_understood() {
    let reply = Reply::new(200).field("Content-Type", "text/html").field("ETag", "\"v1\"");
    let origin = Origin::always(reply.field("Cache-Control", "max-age=60").body(page()));
    let gate = compressing(&origin, "cache = \"pages\"");
    let asked = |coding: &str| Request::get("/").field("Accept-Encoding", coding);
    let plain = gate.client().ask(&asked("identity")).expect(200);
    assert_eq!(plain.field("etag"), Some("\"v1\""));
    let coded = gate.client().ask(&asked("gzip")).expect(200);
    let tag = coded.field("etag").expect("a tag").to_owned();
    assert!(tag.starts_with("\"v1--gzip"), "{tag}");
    // Any tag of the same representation will do for a conditional GET (RFC 9110 §8.8.3.3).
    for (coding, known) in
        [("gzip", tag.as_str()), ("gzip", "\"v1\""), ("identity", tag.as_str()), ("br", tag.as_str())]
    {
        let answer = gate.client().ask(&asked(coding).field("If-None-Match", known));
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{coding} {known}");
    }
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_coded_body_is_made_once() {
    let reply = Reply::new(200).field("Content-Type", "text/html").field("Cache-Control", "max-age=60");
    let origin = Origin::always(reply.body(page()));
    let config = front(&origin, "compress = \"all\"\ncache = \"pages\"") + POLICY;
    let gate = Tidegate::start(&config);
    let ask = Request::get("/").field("Accept-Encoding", "br");
    let first = gate.client().ask(&ask).expect(200);
    let answers: Vec<Answer> = (0..3).map(|_| gate.client().ask(&ask).expect(200)).collect();
    for answer in answers.iter().chain([&first]) {
        assert_eq!(answer.field("content-encoding"), Some("br"));
        assert!(decoded(answer) == page());
    }
    assert!(answers[2].fields.has("content-length"), "a stored coding has a length");
    assert_eq!(origin.requests(), 1);
}

#[test]
fn an_upload_names_its_representation_by_the_tag_the_origin_knows() {
    let origin = Origin::start(|seen| match seen.method.as_str() {
        "PUT" => Reply::new(204),
        _ => Reply::new(200).field("Content-Type", "text/html").field("ETag", "\"v1\"").body(page()),
    });
    let gate = compressing(&origin, "");
    let answer = gate.client().ask(&Request::get("/").field("Accept-Encoding", "gzip")).expect(200);
    let tag = answer.field("etag").expect("a tag").to_owned();
    gate.client().ask(&Request::new("PUT", "/").field("If-Match", &tag).body("new")).expect(204);
    let put = origin.seen().pop().unwrap();
    assert_eq!(put.field("if-match"), Some("\"v1\""), "from {tag}");
}

fn text() -> Reply {
    Reply::new(200).field("Content-Type", "text/plain")
}

fn head_of(gate: &Tidegate, coding: &str) -> Answer {
    gate.client().ask(&Request::new("HEAD", "/").field("Accept-Encoding", coding)).expect(200)
}

#[test]
fn head_says_what_get_would() {
    let tagged = || text().field("ETag", "\"v1\"").field("Accept-Ranges", "bytes");
    let cacheable = || tagged().field("Cache-Control", "max-age=60");
    let table = [
        ("passing, with a length", tagged().body(page()), ""),
        ("passing, chunked", tagged().chunk(page()).last_chunk(&[]), ""),
        ("stored, with a length", cacheable().body(page()), "cache = \"pages\"\n"),
        ("stored, chunked", cacheable().chunk(page()).last_chunk(&[]), "cache = \"pages\"\n"),
    ];
    for (what, reply, keys) in table {
        let origin = Origin::always(reply);
        let gate = compressing(&origin, keys);
        for coding in ["br", "identity"] {
            for _ in 0..2 {
                let get = gate.client().ask(&Request::get("/").field("Accept-Encoding", coding)).expect(200);
                let head = head_of(&gate, coding);
                for name in ["content-encoding", "content-type", "etag", "vary", "accept-ranges"] {
                    assert_eq!(head.fields.all(name), get.fields.all(name), "{what}, {coding}: {name}");
                }
                // RFC 9110 §8.6: a HEAD may leave the length out, but never says another one.
                let length = head.field("content-length").map(|length| length.parse::<usize>().unwrap());
                assert!(length.is_none_or(|length| length == get.body.len()), "{what}, {coding}: {length:?}");
            }
        }
    }
}

#[test]
fn a_304_names_the_tag_the_client_has() {
    let origin = Origin::start(|seen| match seen.field("if-none-match") {
        Some("\"v1\"") => Reply::new(304).field("ETag", "\"v1\""),
        _ => text().field("ETag", "\"v1\"").body(page()),
    });
    let gate = compressing(&origin, "");
    let ask = Request::get("/").field("Accept-Encoding", "gzip");
    let tag = gate.client().ask(&ask).expect(200).field("etag").unwrap().to_owned();
    assert_ne!(tag, "\"v1\"");
    for (listed, expected) in [(tag.clone(), &*tag), (format!("\"v0\", {tag}"), &*tag), ("\"v1\"".into(), "\"v1\"")] {
        let ask = ask.clone().field("If-None-Match", &listed);
        let answer = gate.client().ask(&ask);
        // An origin that knows one tag only gets a list of two and sends the page.
        if answer.status == 304 {
            assert_eq!(answer.field("etag"), Some(expected), "{listed}");
        }
    }
    assert_eq!(gate.client().ask(&ask.field("If-None-Match", &tag)).status, 304);
}

#[test]
fn what_a_fetch_for_the_store_brought_coded_is_decoded_for_those_who_cannot() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, page().as_bytes()).unwrap();
    let coded = encoder.finish().unwrap();
    for keep in ["max-age=60", "no-store"] {
        let coded = coded.clone();
        let origin = Origin::start(move |seen| {
            let reply = text().field("Vary", "Accept-Encoding").field("Cache-Control", keep);
            match seen.field("accept-encoding") {
                Some(accepted) if accepted.contains("gzip") => reply.field("Content-Encoding", "gzip").body(&coded),
                _ => reply.body(page()),
            }
        });
        let gate = Tidegate::start(&(front(&origin, "cache = \"pages\"\n") + "[cache.pages]\n"));
        for accepted in ["identity", "gzip", "br", "identity"] {
            let answer = gate.client().ask(&Request::get("/").field("Accept-Encoding", accepted)).expect(200);
            let expected = (accepted == "gzip").then_some("gzip");
            assert_eq!(answer.field("content-encoding"), expected, "{keep}: {accepted}");
            assert!(decoded(&answer) == page(), "{keep}: {accepted}");
        }
        assert!(keep == "no-store" || origin.requests() == 1);
    }
}

#[test]
fn the_length_of_a_personal_answer_tells_no_secret() {
    use std::collections::BTreeSet;
    let origin = Origin::always(text().field("ETag", "\"v1\"").body(page()));
    for (breach, codings) in [("off", "br"), ("pad", "gzip"), ("identity", "")] {
        let policy = format!("[compress.all]\ncodings = [\"br\", \"gzip\"]\nbreach = \"{breach}\"\n");
        let gate = Tidegate::start(&(front(&origin, "compress = \"all\"\n") + &policy));
        let ask = |more: &str| {
            let ask = Request::get("/").field("Accept-Encoding", "br, gzip");
            let ask = if more.is_empty() { ask } else { ask.field(more, "secret=1") };
            let answer = gate.client().ask(&ask).expect(200);
            assert!(decoded(&answer) == page() && answer.field("vary") == Some("Accept-Encoding"), "{breach} {more}");
            answer
        };
        assert_eq!(ask("").field("content-encoding"), Some("br"), "{breach}: of nobody in particular");
        for field in ["Cookie", "Authorization"] {
            assert_eq!(ask(field).field("content-encoding").unwrap_or_default(), codings, "{breach} {field}");
        }
        let lengths: BTreeSet<usize> = (0..16).map(|_| ask("Cookie").body.len()).collect();
        assert_eq!(lengths.len() > 1, breach == "pad", "{breach} {lengths:?}");
        let tag = ask("Cookie").field("etag").unwrap().to_owned();
        assert!(breach != "pad" || tag == "W/\"v1--gzip5.0\"" || tag == "\"v1--gzip5.0\"", "{tag}");
    }
}

#[test]
fn streams_are_not_held_back() {
    let kinds = [("text/event-stream", None), ("text/html", Some("gzip"))];
    for (kind, coding) in kinds {
        let gate_ = crate::support::gate::Gate::new();
        let reply = Reply::new(200).field("Content-Type", kind).chunk("data: 1\n\n").wait(&gate_);
        let origin = Origin::always(reply.chunk("data: 2\n\n").last_chunk(&[("X-Sum", "1")]));
        for keys in ["", "cache = \"pages\"\n"] {
            let gate = compressing(&origin, keys);
            let mut client = gate.client();
            client.send(Request::get("/").field("Accept-Encoding", "gzip").bytes());
            let (status, fields) = client.head();
            assert_eq!((status, fields.get("content-encoding")), (200, coding), "{kind}");
            // The piece arrives while the origin pauses, not when it goes on.
            let first = client.raw_chunk();
            assert!(!first.is_empty() && (coding.is_some() || first == b"data: 1\n\n"), "{kind}: {first:?}");
        }
        gate_.open();
    }
}
