//! RFC 9111 over the wire: what is stored, what is served from it, and what never is.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::support::client::{Answer, Request};
use crate::support::gate::Gate;
use crate::support::origin::{End, Origin, Reply};
use crate::support::tidegate::{Tidegate, front};

/// A Tidegate that caches by a policy with these keys.
fn caching(origin: &Origin, keys: &str) -> Tidegate {
    Tidegate::start(&(front(origin, "cache = \"pages\"") + "[cache.pages]\n" + keys))
}

/// An answer that is good for a minute.
fn fresh(body: &str) -> Reply {
    Reply::new(200).field("Cache-Control", "max-age=60").body(body)
}

/// The words of Cache-Status behind the cache's name.
fn cache_status(answer: &Answer) -> String {
    let status = answer.field("cache-status").unwrap_or_else(|| panic!("no Cache-Status: {:?}", answer.fields));
    let words = status.strip_prefix("tidegate; ").unwrap_or_else(|| panic!("another's: {status}"));
    words.to_owned()
}

#[test]
fn the_key_is_told_where_a_policy_says_so() {
    let origin = Origin::always(Reply::new(200).field("Cache-Control", "max-age=60").body("x"));
    for (keys, expected) in [
        ("", None),
        ("cache_status_key = false\n", None),
        ("cache_status_key = true\nkey = { headers = [\"X-Kind\"] }\n", Some("/a?b cache=pages header:x-kind=1\"")),
    ] {
        let gate = Tidegate::start(&(front(&origin, "cache = \"pages\"") + "[cache.pages]\n" + keys));
        for result in ["MISS", "HIT"] {
            let answer = gate.client().ask(&Request::get("/a?b").field("X-Kind", "1")).expect(200);
            assert_eq!(answer.field("x-cache"), Some(result));
            let told = answer.field("cache-status").unwrap().split_once("key=").map(|(_, key)| key.to_owned());
            let fits = |expected: &str| told.as_ref().is_some_and(|told| told.ends_with(expected));
            assert!(expected.map_or(told.is_none(), fits), "{keys} {told:?}");
        }
    }
}

#[test]
fn a_fresh_answer_is_served_again() {
    let origin = Origin::always(fresh("page"));
    let gate = caching(&origin, "");
    let first = gate.get("/").expect(200);
    assert!(cache_status(&first).starts_with("fwd=uri-miss"), "{}", cache_status(&first));
    assert!(!first.fields.has("age"));
    // On other connections, so on whichever worker.
    for _ in 0..4 {
        let again = gate.get("/").expect(200);
        assert_eq!(again.text(), "page");
        assert!(cache_status(&again).starts_with("hit"), "{}", cache_status(&again));
        assert!(again.field("age").is_some_and(|age| age.parse::<u32>().is_ok_and(|age| age < 60)));
        assert!(again.field("x-cache").is_some_and(|word| word.to_ascii_lowercase().contains("hit")));
    }
    let head = gate.client().ask(&Request::new("HEAD", "/")).expect(200);
    assert_eq!(head.field("content-length"), Some("4"));
    assert_eq!(origin.requests(), 1);
    // The store counts what its housekeeping has seen.
    gate.wait_status("one entry", |status| (status["store"]["entries"] == 1).then_some(()));
}

#[test]
fn a_large_answer_is_the_same_from_a_file() {
    let body: Vec<u8> = (0_u32..300_000).flat_map(u32::to_be_bytes).collect();
    let origin = Origin::always(Reply::new(200).field("Cache-Control", "max-age=60").body(body.clone()));
    let gate = caching(&origin, "");
    let same = |answer: Answer| assert!(answer.expect(200).body == body);
    let in_files = |gate: &Tidegate| gate.status()["store"]["files"].as_u64();
    for _ in 0..10 {
        same(gate.get("/"));
    }
    assert_eq!(gate.wait_status("the move", |_| in_files(&gate).filter(|files| *files == 1)), 1);
    // Kept alive and pipelined: what follows a file begins where the file ends.
    let mut client = gate.client();
    client.send([Request::get("/").bytes(), Request::get("/").bytes()].concat());
    for _ in 0..2 {
        same(client.answer("GET").expect("an answer"));
    }
    same(client.get("/"));
    assert_eq!(client.ask(&Request::new("HEAD", "/")).expect(200).field("content-length"), Some("1200000"));
    assert_eq!(origin.requests(), 1);
}

#[test]
fn what_must_not_be_shared_is_never_stored() {
    let table = [
        ("a cookie is set", fresh_with("Set-Cookie", "id=1")),
        ("private", Reply::new(200).field("Cache-Control", "private, max-age=60").body("x")),
        ("no-store", Reply::new(200).field("Cache-Control", "no-store, max-age=60").body("x")),
        ("zero lifetime", Reply::new(200).field("Cache-Control", "max-age=0").body("x")),
        ("s-maxage wins", Reply::new(200).field("Cache-Control", "max-age=60, s-maxage=0").body("x")),
        ("anything varies", fresh_with("Vary", "*")),
        ("expired", Reply::new(200).field("Expires", "0").body("x")),
        ("no freshness at all", Reply::ok("x")),
        ("an error", Reply::new(500).body("x")),
    ];
    for (what, reply) in table {
        let origin = Origin::always(reply);
        let gate = caching(&origin, "");
        for _ in 0..3 {
            gate.get("/");
        }
        assert_eq!(origin.requests(), 3, "{what}");
    }
}

fn fresh_with(name: &str, value: &str) -> Reply {
    Reply::new(200).field("Cache-Control", "max-age=60").field(name, value).body("x")
}

#[test]
fn what_a_policy_forces_still_spares_what_is_private() {
    let table = [
        (Reply::ok("x"), 1),
        (Reply::new(200).field("Cache-Control", "max-age=0").body("x"), 1),
        (Reply::new(200).field("Cache-Control", "private").body("x"), 2),
        (Reply::new(200).field("Cache-Control", "no-store").body("x"), 2),
        (Reply::new(200).field("Set-Cookie", "id=1").body("x"), 2),
    ];
    for (n, (reply, fetches)) in table.into_iter().enumerate() {
        let origin = Origin::always(reply);
        let gate = caching(&origin, "override_ttl = \"1h\"\n");
        gate.get("/");
        gate.get("/");
        assert_eq!(origin.requests(), fetches, "row {n}");
    }
}

#[test]
fn requests_that_bypass_the_cache_neither_read_nor_fill_it() {
    let bypass = "bypass = [{ cookie = \"session\" }, { path = \"/account/\" }, { header = \"X-No-Cache\" }]\n";
    let table = [
        Request::get("/").field("Cookie", "a=1; session=2"),
        Request::get("/account/orders"),
        Request::get("/").field("X-No-Cache", "1"),
        Request::get("/").field("Authorization", "Basic eDp5"),
        Request::new("POST", "/").body("x"),
        Request::get("/").body("a GET with a body"),
    ];
    for ask in table {
        let origin = Origin::always(fresh("x"));
        let gate = caching(&origin, bypass);
        for _ in 0..2 {
            gate.client().ask(&ask).expect(200);
        }
        assert_eq!(origin.requests(), 2, "{ask:?}");
    }
}

#[test]
fn keys_leave_out_what_they_are_told_to() {
    let keys = "ttl = \"1m\"\nstrip_cookies = [\"_ga*\"]\nkey = { ignore_query = [\"utm_*\"], sort_query = true }\n";
    // Each asks for what the first one asked for, or does not.
    let table = [
        (Request::get("/p?a=1&b=2"), 1),
        (Request::get("/p?b=2&a=1"), 1),
        (Request::get("/p?a=1&utm_source=x&b=2"), 1),
        (Request::get("//x/../p?a=1&b=2"), 1),
        (Request::get("/p?a=1&b=2").host("SHOP.example"), 1),
        (Request::get("/p?a=1&b=2").field("Cookie", "_ga=1; _gat=2"), 1),
        (Request::get("/p?a=1&b=3"), 2),
        (Request::get("/p?a=1&b=2").host("other.example"), 3),
        (Request::get("/P?a=1&b=2"), 4),
        // A cookie that stays may make the answer its owner's.
        (Request::get("/p?a=1&b=2&c=3").field("Cookie", "id=1"), 5),
        (Request::get("/p?a=1&b=2&c=3").field("Cookie", "id=2"), 6),
    ];
    let origin = Origin::always(Reply::ok("x"));
    let gate = caching(&origin, keys);
    for (ask, fetches) in table {
        gate.client().ask(&ask).expect(200);
        assert_eq!(origin.requests(), fetches, "{ask:?}");
    }
    assert!(!origin.seen()[0].fields.has("cookie"));
}

#[test]
fn variants_are_kept_apart() {
    let origin = Origin::start(|seen| {
        let language = seen.field("accept-language").unwrap_or("none");
        Reply::new(200).field("Cache-Control", "max-age=60").field("Vary", "Accept-Language").body(language)
    });
    let gate = caching(&origin, "");
    for _ in 0..2 {
        for language in ["de", "fr"] {
            let answer = gate.client().ask(&Request::get("/").field("Accept-Language", language)).expect(200);
            assert_eq!(answer.text(), language);
        }
    }
    assert_eq!(origin.requests(), 2);
}

#[test]
fn a_client_that_has_it_gets_304() {
    let tagged = Reply::new(200).field("Cache-Control", "max-age=60").field("ETag", "\"v1\"");
    let origin = Origin::always(tagged.field("Last-Modified", "Mon, 02 Jan 2023 10:00:00 GMT").body("page"));
    let gate = caching(&origin, "");
    gate.get("/").expect(200);
    let table = [
        ("If-None-Match", "\"v1\"", 304),
        ("If-None-Match", "W/\"v1\"", 304),
        ("If-None-Match", "\"v0\", \"v1\"", 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", "\"v2\"", 200),
        ("If-Modified-Since", "Mon, 02 Jan 2023 10:00:00 GMT", 304),
        ("If-Modified-Since", "Sun, 01 Jan 2023 10:00:00 GMT", 200),
    ];
    for (name, value, status) in table {
        let answer = gate.client().ask(&Request::get("/").field(name, value)).expect(status);
        assert_eq!(answer.field("etag"), Some("\"v1\""), "{name}: {value}");
    }
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_stale_answer_is_validated_and_freshened() {
    let origin = Origin::start(|seen| {
        let same = seen.field("if-none-match") == Some("\"v1\"");
        let reply = if same { Reply::new(304) } else { Reply::new(200) };
        let reply = reply.field("Cache-Control", "max-age=0, must-revalidate").field("ETag", "\"v1\"");
        if same { reply } else { reply.body("page") }
    });
    let gate = caching(&origin, "");
    for turn in 0..3 {
        assert_eq!(gate.get("/").expect(200).text(), "page", "turn {turn}");
    }
    let seen = origin.seen();
    assert_eq!(seen.len(), 3);
    assert!(!seen[0].fields.has("if-none-match"));
    assert!(seen[1..].iter().all(|seen| seen.field("if-none-match") == Some("\"v1\"")), "{seen:?}");
}

#[test]
fn many_who_want_the_same_cost_one_fetch() {
    let ready = Gate::new();
    let origin = Origin::always(fresh("page").hold(&ready));
    let gate = caching(&origin, "");
    let address = gate.listener("http");
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let mut client = crate::support::client::Client::connect(address);
            client.send(Request::get("/").bytes());
            client
        })
        .collect();
    origin.wait_requests(1);
    ready.open();
    for mut client in clients {
        assert_eq!(client.answer("GET").expect("an answer").expect(200).text(), "page");
    }
    assert_eq!(origin.requests(), 1);
    gate.expect_idle();
}

#[test]
fn those_who_waited_for_what_is_not_shared_each_get_their_own() {
    let ready = Gate::new();
    let counter = AtomicUsize::new(0);
    let held = ready.clone();
    let origin = Origin::start(move |_| {
        let body = format!("for client {}", counter.fetch_add(1, Ordering::SeqCst));
        Reply::new(200).field("Cache-Control", "private").body(body).hold(&held)
    });
    let gate = caching(&origin, "");
    let mut clients: Vec<_> = (0..6).map(|_| gate.client()).collect();
    for client in &mut clients {
        client.send(Request::get("/").bytes());
    }
    origin.wait_requests(1);
    ready.open();
    let mut bodies: Vec<String> =
        clients.iter_mut().map(|client| client.answer("GET").expect("an answer").expect(200).text()).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!((bodies.len(), origin.requests()), (6, 6));
}

#[test]
fn an_origin_that_negotiates_gzip_is_asked_once() {
    let page = "a page that compresses well. ".repeat(100);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(page.as_bytes()).unwrap();
    let zipped = encoder.finish().unwrap();
    let plain = page.clone();
    let origin = Origin::start(move |seen| {
        let reply = Reply::new(200).field("Cache-Control", "max-age=60").field("Vary", "Accept-Encoding");
        match seen.field("accept-encoding") {
            Some(accepted) if accepted.contains("gzip") => reply.field("Content-Encoding", "gzip").body(&zipped),
            _ => reply.body(&plain),
        }
    });
    let gate = caching(&origin, "");
    let spellings = ["gzip", "gzip, deflate, br", "br;q=1.0, gzip;q=0.8, *;q=0.1", "identity", "GZIP", "deflate"];
    for spelling in spellings {
        let answer = gate.client().ask(&Request::get("/").field("Accept-Encoding", spelling)).expect(200);
        assert!(answer.fields.all("vary").join(",").to_ascii_lowercase().contains("accept-encoding"), "{spelling}");
        let text = match answer.field("content-encoding") {
            None => answer.text(),
            Some(coding) => {
                assert!(spelling.to_ascii_lowercase().contains(coding), "{spelling} got {coding}");
                std::io::read_to_string(flate2::read::GzDecoder::new(answer.body.as_slice())).unwrap()
            }
        };
        assert!(text == page, "{spelling}");
    }
    assert_eq!(origin.requests(), 1, "{:?}", origin.seen());
}

#[test]
fn half_an_answer_is_never_stored() {
    let cut = |reply: Reply| reply.field("Cache-Control", "max-age=60");
    let table = [
        cut(Reply::new(200)).announced(100, "half").end(End::Close),
        cut(Reply::new(200)).announced(100, "half").end(End::Reset),
        cut(Reply::new(200)).chunk("half").end(End::Close),
        cut(Reply::new(200)).chunk("half").end(End::Reset),
    ];
    for broken in table {
        let turn = AtomicUsize::new(0);
        let origin = Origin::start(move |_| match turn.fetch_add(1, Ordering::SeqCst) {
            0 => broken.clone(),
            _ => fresh("whole"),
        });
        let gate = caching(&origin, "");
        let first = gate.get("/");
        assert!(!first.complete || first.status == 502, "half looks whole: {first:?}");
        assert_eq!(gate.get("/").expect(200).text(), "whole");
        assert_eq!(gate.get("/").expect(200).text(), "whole");
        assert_eq!(origin.requests(), 2);
        gate.expect_idle();
    }
}

#[test]
fn objects_over_the_limit_pass_without_being_kept() {
    let body = vec![b'x'; 5000];
    let long = || Reply::new(200).field("Cache-Control", "max-age=60");
    for (what, reply) in [("sized", long().body(&body)), ("chunked", long().chunk(&body).last_chunk(&[]))] {
        let origin = Origin::always(reply);
        let gate = caching(&origin, "max_object = \"4KiB\"\n");
        for _ in 0..2 {
            let answer = gate.get("/").expect(200);
            assert_eq!(answer.body.len(), body.len(), "{what}: {:?}", answer.fields);
        }
        assert_eq!(origin.requests(), 2);
        // The store counts what it let go of a moment later; that the object is too large is remembered, and weighs nothing.
        gate.wait_status("nothing to be kept", |status| (status["store"]["bytes"] == 0).then_some(()));
    }
}

#[test]
fn the_cache_outlives_a_reload() {
    let origin = Origin::always(fresh("page"));
    let gate = caching(&origin, "");
    gate.get("/").expect(200);
    gate.reload(|text| text + "[[route]]\npath = \"/new/\"\nrespond = { status = 204 }\n");
    assert!(cache_status(&gate.get("/").expect(200)).starts_with("hit"));
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_cacheable_fetch_names_no_client() {
    let origin = Origin::always(fresh("page"));
    let gate = caching(&origin, "");
    let ask = Request::get("/").field("Accept-Encoding", "x-odd").field("X-Forwarded-For", "6.6.6.6");
    gate.client().ask(&ask).expect(200);
    let seen = origin.only();
    assert!(!seen.fields.has("x-forwarded-for"), "{:?}", seen.fields);
    assert!(!seen.fields.all("accept-encoding").contains(&"x-odd"));
}

#[test]
fn what_a_write_made_untrue_is_not_joined_either() {
    let (old, new) = (Gate::new(), Gate::new());
    let turn = AtomicUsize::new(0);
    let (first, second) = (old.clone(), new.clone());
    let origin = Origin::start(move |seen| match (seen.method.as_str(), turn.fetch_add(1, Ordering::SeqCst)) {
        ("POST", _) => Reply::new(204),
        (_, 0) => fresh("old").hold(&first),
        _ => fresh("new").hold(&second),
    });
    let gate = caching(&origin, "");
    let mut before = gate.client();
    before.send(Request::get("/").bytes());
    origin.wait_requests(1);
    gate.client().ask(&Request::new("POST", "/").body("write")).expect(204);
    let mut after = gate.client();
    after.send(Request::get("/").bytes());
    origin.wait_requests(3);
    new.open();
    assert_eq!(after.answer("GET").unwrap().text(), "new");
    old.open();
    assert_eq!(before.answer("GET").unwrap().text(), "old", "it asked before the write");
    let last = gate.get("/").expect(200);
    assert_eq!((last.text().as_str(), origin.requests()), ("new", 3), "{:?}", last.fields);
}

#[test]
fn what_outgrows_its_bound_is_passed_on_alone_from_then_on() {
    let body = vec![b'x'; 100_000];
    let chunked = body.chunks(10_000).fold(fresh_chunked(), |reply, chunk| reply.chunk(chunk));
    let origin = Origin::always(chunked.last_chunk(&[]));
    let gate = Tidegate::start(
        &(front(&origin, "cache = \"pages\"\ncompress = \"all\"")
            + "[cache.pages]\nmax_object = \"50KiB\"\n[compress.all]\ncodings = [\"gzip\"]\ntypes = [\"text/*\"]\nmin_size = \"1KiB\"\n"),
    );
    for (turn, coding) in ["identity", "gzip", "gzip"].into_iter().enumerate() {
        let answer = gate.client().ask(&Request::get("/").field("Accept-Encoding", coding)).expect(200);
        let text = match answer.field("content-encoding") {
            None => answer.body.clone(),
            Some(_) => std::io::read_to_string(flate2::read::MultiGzDecoder::new(&*answer.body)).unwrap().into(),
        };
        assert!(answer.complete && text == body, "{coding}");
        let told = cache_status(&answer);
        let fits = match turn {
            0 => told.starts_with("fwd=uri-miss; ttl=") && told.ends_with("; stored"),
            _ => told == "fwd=uri-miss; detail=too_large",
        };
        assert!(fits, "{turn}: {told}");
    }
    gate.wait_status("nothing kept", |status| (status["store"]["bytes"].as_u64()? < 1024).then_some(()));
}

fn fresh_chunked() -> Reply {
    Reply::new(200).field("Cache-Control", "max-age=60").field("Content-Type", "text/plain")
}
