//! RFC 5861 over the wire: stale answers, what is fetched behind them, and origins that fail under many clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidegate::clock::Clock;

use crate::support::client::{Answer, Client, Request};
use crate::support::gate::{Gate, poll};
use crate::support::origin::{End, Origin, Reply, Seen};
use crate::support::tidegate::{PLAIN, Tidegate, pool};

/// A Tidegate that caches by a policy with these keys, in front of an origin it does not wait for long.
fn caching(origin: &Origin, keys: &str) -> Tidegate {
    let impatient =
        "timeouts = { connect = \"300ms\", first_byte = \"300ms\", idle = \"300ms\" }\nretry = { attempts = 1 }\n";
    let pool = pool("web", &[origin], impatient);
    Tidegate::start(&format!("{PLAIN}{pool}[[route]]\npool = \"web\"\ncache = \"pages\"\n[cache.pages]\n{keys}"))
}

/// An answer that is stale on arrival by 40 s, with this directive.
fn stale(directive: &str, body: &str) -> Reply {
    let control = format!("max-age=60, {directive}");
    Reply::new(200).field("Cache-Control", &control).field("Age", "100").field("ETag", "\"1\"").body(body)
}

#[test]
fn interim_heads_of_a_fetch_behind_an_answer_reach_nobody() {
    let origin =
        twofold(stale("stale-while-revalidate=1000", "old"), |_| fresh("new").interim(103, &[("Link", "</a>")]));
    let gate = caching(&origin, "");
    gate.get("/").expect(200);
    let mut client = gate.client();
    poll("what was fetched behind", || {
        let answer = client.ask(&Request::get("/")).expect(200);
        assert_eq!(answer.interim, []);
        (answer.text() == "new").then_some(())
    });
    assert_eq!(origin.requests(), 2);
}

fn fresh(body: &str) -> Reply {
    Reply::new(200).field("Cache-Control", "max-age=60").body(body)
}

/// An origin that answers its first request one way and every later one another.
fn twofold(first: Reply, then: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Origin {
    let turn = AtomicUsize::new(0);
    Origin::start(move |seen| match turn.fetch_add(1, Ordering::SeqCst) {
        0 => first.clone(),
        _ => then(seen),
    })
}

fn cache_status(answer: &Answer) -> &str {
    answer.field("cache-status").expect("a cached route")
}

#[test]
fn one_fetch_runs_behind_any_number_of_stale_answers_and_outlives_its_client() {
    let ready = Gate::new();
    let held = ready.clone();
    let origin = twofold(stale("stale-while-revalidate=1000", "old"), move |_| fresh("new").hold(&held));
    let gate = caching(&origin, "");
    gate.get("/").expect(200);
    // The client whose request begins the fetch is gone long before that has ended.
    gate.get("/").expect(200);
    origin.wait_requests(2);
    for _ in 0..10 {
        let answer = gate.get("/").expect(200);
        assert_eq!(answer.text(), "old");
        assert!(cache_status(&answer).ends_with("detail=stale_while_revalidate"), "{}", cache_status(&answer));
        assert_eq!(answer.field("x-cache"), Some("STALE"));
    }
    ready.open();
    poll("the new answer", || (gate.get("/").expect(200).text() == "new").then_some(()));
    assert_eq!(origin.requests(), 2);
    assert_eq!(origin.seen()[1].field("if-none-match"), Some("\"1\""));
    // Two workers write it, in no common order.
    assert!(gate.access_log(3).iter().any(|line| line["cache"] == "stale"));
    gate.expect_idle();
}

#[test]
fn all_who_wait_for_a_validation_that_fails_get_what_is_stored() {
    let table = [
        ("an error", Reply::new(503).body("sorry"), "fwd-status=503"),
        ("a cut", Reply::raw("HTTP/1.1 200"), "stale_if_error"),
        ("a cut body", Reply::new(200).field("Cache-Control", "max-age=9").announced(9, "half"), "stale_if_error"),
    ];
    for (what, reply, word) in table {
        let ready = Gate::new();
        let held = ready.clone();
        let origin = twofold(stale("stale-if-error=1000", "old"), move |_| reply.clone().end(End::Close).hold(&held));
        let gate = caching(&origin, "");
        gate.get("/").expect(200);
        let address = gate.listener("http");
        let mut clients: Vec<_> = (0..16).map(|_| Client::connect(address)).collect();
        for client in &mut clients {
            client.send(Request::get("/").bytes());
        }
        origin.wait_requests(2);
        // Those who come a moment late are answered at once.
        ready.open();
        let answers: Vec<_> = clients.iter_mut().map(|client| client.answer("GET").expect("an answer")).collect();
        assert!(answers.iter().all(|answer| answer.text() == "old" && answer.complete), "{what}: {answers:?}");
        assert!(answers.iter().any(|answer| cache_status(answer).contains(word)), "{what}: {answers:?}");
        // Who comes more than a second late, on a crowded machine, may ask once more.
        assert!(origin.requests() <= 3, "{what}");
        gate.expect_idle();
    }
}

#[test]
fn an_origin_that_is_down_is_asked_rarely_however_many_ask_for_it() {
    for directive in ["stale-while-revalidate=1000, stale-if-error=1000", "stale-if-error=1000"] {
        let origin = twofold(stale(directive, "old"), |_| Reply::new(500).body("broken"));
        let gate = caching(&origin, "");
        gate.get("/").expect(200);
        let mut client = gate.client();
        let began = Clock::System.now();
        for _ in 0..500 {
            assert_eq!(client.get("/").expect(200).text(), "old");
        }
        let passed = Clock::System.now().since(began);
        // One at once, then at most one a second.
        let most = 2 + passed.as_secs();
        let asked = origin.requests() as u64 - 1;
        assert!((1..=most).contains(&asked), "{directive}: {asked} requests in {passed:?}");
    }
}

#[test]
fn an_origin_that_is_gone_or_silent_is_stood_in_for() {
    let never = Gate::new();
    let origin = twofold(stale("x", "old"), move |_| fresh("late").hold(&never));
    let gate = caching(&origin, "");
    gate.get("/").expect(200);
    let answer = gate.get("/").expect(200);
    assert_eq!(answer.text(), "old");
    assert!(cache_status(&answer).contains("fwd=stale"), "{}", cache_status(&answer));
    assert!(cache_status(&answer).ends_with("detail=stale_if_unreachable"), "{}", cache_status(&answer));

    let origin = Origin::always(stale("x", "old"));
    let gate = caching(&origin, "");
    gate.get("/").expect(200);
    origin.stop();
    let answer = gate.get("/").expect(200);
    assert!(cache_status(&answer).ends_with("detail=stale_if_unreachable"), "{}", cache_status(&answer));
    // What is not stored, or must not be stale, is an error as before.
    gate.get("/other").expect(502);
    let origin = Origin::always(stale("must-revalidate", "old"));
    let gate = caching(&origin, "stale_if_error = \"1d\"\n");
    gate.get("/").expect(200);
    origin.stop();
    let answer = gate.get("/").expect(502);
    assert_eq!(cache_status(&answer), "tidegate; fwd=stale; detail=fetch_failed");
}

#[test]
fn a_long_body_that_breaks_off_later_leaves_what_is_stored_alone() {
    let long = vec![b'x'; 200_000];
    let cut = Arc::new(Reply::new(200).field("Cache-Control", "max-age=60").announced(300_000, &long).end(End::Close));
    let origin = twofold(stale("stale-if-error=1000", "old"), move |_| (*cut).clone());
    let gate = caching(&origin, "");
    gate.get("/").expect(200);
    // It began to reach its client: nothing can be put in its place any more.
    assert!(!gate.get("/").complete);
    gate.expect_idle();
    let next = gate.get("/").expect(200);
    assert_eq!((next.text().as_str(), origin.requests()), ("old", 2), "{}", cache_status(&next));
}

#[test]
fn a_confirmation_that_may_not_be_stored_for_the_one_who_asked_is_no_word_on_what_is_stored() {
    let page = |status| {
        Reply::new(status)
            .field("ETag", "\"1\"")
            .field("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
            .field("Age", "900")
    };
    let stated = |status| page(status).field("Cache-Control", "max-age=60");
    for (keys, field, value, stored, confirmed) in [
        ("", "Authorization", "Basic eDp5", stated(200), stated(304)),
        ("ttl = \"1s\"\n", "Cookie", "a=b", page(200), page(304)),
    ] {
        let origin = twofold(stored.body("old"), move |seen| {
            let known = seen.field("if-none-match").is_some();
            if known { confirmed.clone() } else { Reply::new(500) }
        });
        let gate = caching(&origin, keys);
        gate.get("/").expect(200);
        let answer = gate.client().ask(&Request::get("/").field(field, value)).expect(200);
        assert_eq!(answer.text(), "old", "{field}");
        assert_eq!(gate.get("/").expect(200).text(), "old", "{field}: it is still there to be validated");
        let conditions: Vec<_> = origin.seen().iter().map(|seen| seen.field("if-none-match").is_some()).collect();
        assert_eq!(conditions, [false, true, true], "{field}");
    }
}
