//! Where a route's traffic goes besides its one pool, and what is held in memory for slow clients: splits by client,
//! mirrors, buffers on both sides.

use crate::support::client::{Client, Request};
use crate::support::gate::{Gate, poll};
use crate::support::h2;
use crate::support::h2_origin;
use crate::support::origin::{Origin, Reply};
use crate::support::tidegate::{PLAIN, Tidegate, pool};

/// Which pool answers this user.
fn home(client: &mut Client, user: usize) -> String {
    client.ask(&Request::get("/").field("Cookie", &format!("a=b; user=u{user}"))).expect(200).text()
}

#[test]
fn a_split_by_cookie_keeps_everyone_where_they_are() {
    let origins = ["main", "canary"].map(|name| Origin::always(Reply::ok(name)));
    let pools = pool("main", &[&origins[0]], "") + &pool("canary", &[&origins[1]], "");
    let split = "[[route]]\nsplit = [{ pool = \"main\", weight = 80 }, { pool = \"canary\", weight = 20 }]\nsplit_by = \"cookie:user\"\n";
    let gate = Tidegate::start(&format!("{PLAIN}{pools}{split}"));
    let mut client = gate.client();
    let before: Vec<_> = (0..200).map(|user| home(&mut client, user)).collect();
    let again: Vec<_> = (0..200).map(|user| home(&mut gate.client(), user)).collect();
    assert_eq!(before, again, "over connections and workers");
    let canaries = |homes: &[String]| homes.iter().filter(|home| *home == "canary").count();
    // 20 % of 200, give or take five standard deviations.
    assert!((12..=68).contains(&canaries(&before)), "{}", canaries(&before));
    gate.reload(|text| text.replace("weight = 80", "weight = 60").replace("weight = 20", "weight = 40"));
    let mut client = gate.client();
    let after: Vec<_> = (0..200).map(|user| home(&mut client, user)).collect();
    assert!(before.iter().zip(&after).all(|(old, new)| old == "main" || new == "canary"), "nobody left the canary");
    assert!(canaries(&after) > canaries(&before), "{} after {}", canaries(&after), canaries(&before));
    // Who has no such cookie goes anywhere.
    let anywhere: Vec<_> = (0..60).map(|_| client.get("/").expect(200).text()).collect();
    assert!((1..60).contains(&canaries(&anywhere)), "{anywhere:?}");
}

#[test]
fn a_split_by_client_or_header_is_stable_too() {
    let origins = ["a", "b"].map(|name| Origin::always(Reply::ok(name)));
    let pools = pool("a", &[&origins[0]], "") + &pool("b", &[&origins[1]], "");
    for (by, differs) in [("client-ip", false), ("header:X-User", true)] {
        let split = format!(
            "[[route]]\nsplit = [{{ pool = \"a\", weight = 1 }}, {{ pool = \"b\", weight = 1 }}]\nsplit_by = \"{by}\"\n"
        );
        let gate = Tidegate::start(&format!("{PLAIN}{pools}{split}"));
        let ask =
            |user: usize| gate.client().ask(&Request::get("/").field("X-User", &format!("u{user}"))).expect(200).text();
        let homes: Vec<_> = (0..40).map(|user| ask(user / 2)).collect();
        assert!(homes.chunks(2).all(|pair| pair[0] == pair[1]), "{by}: {homes:?}");
        assert_eq!(homes.iter().any(|home| *home != homes[0]), differs, "{by}: {homes:?}");
    }
}

/// Two pools, "web" and "shadow", and a route with this mirror.
fn mirrored(web: &Origin, shadow: &Origin, mirror: &str, more: &str) -> Tidegate {
    let keys = "retry = { attempts = 1 }";
    let pools = pool("web", &[web], keys) + &pool("shadow", &[shadow], keys);
    Tidegate::start(&format!(
        "{PLAIN}{pools}[[route]]\npool = \"web\"\nmirror = {{ pool = \"shadow\"{mirror} }}\n{more}\n"
    ))
}

/// How many requests had this outcome of their mirror.
fn outcomes(gate: &Tidegate, outcome: &str) -> u64 {
    let mark = format!("tidegate_mirrored_total{{outcome=\"{outcome}\"}} ");
    let metrics = gate.metrics();
    metrics.lines().find_map(|line| line.strip_prefix(&mark)?.parse().ok()).unwrap_or(0)
}

#[track_caller]
fn wait_outcomes(gate: &Tidegate, outcome: &str, count: u64) {
    poll(outcome, || (outcomes(gate, outcome) == count).then_some(()));
}

#[test]
fn a_copy_is_marked_and_the_original_waits_for_nothing() {
    let held = Gate::new();
    let (web, shadow) = (Origin::always(Reply::ok("real")), Origin::always(Reply::new(500).body("no").hold(&held)));
    let gate = mirrored(&web, &shadow, "", "");
    let mut client = gate.client();
    for turn in 0..3 {
        let answer = client.ask(&Request::get(&format!("/{turn}?q=1")).field("X-Own", "kept")).expect(200);
        assert_eq!(answer.text(), "real", "however long the copy takes");
    }
    let copies = shadow.wait_requests(3);
    let mut targets: Vec<_> = copies.iter().map(|copy| copy.target.as_str()).collect();
    targets.sort_unstable();
    assert_eq!(targets, ["/0?q=1", "/1?q=1", "/2?q=1"]);
    for copy in &copies {
        assert_eq!(
            (copy.field("x-mirrored"), copy.field("x-own"), copy.field("host")),
            (Some("1"), Some("kept"), Some("shop.example"))
        );
    }
    assert!(web.seen().iter().all(|seen| seen.field("x-mirrored").is_none()), "the original is not");
    held.open();
    wait_outcomes(&gate, "answered", 3);
    gate.expect_idle();
    // Connections are kept for the next copies.
    client.get("/").expect(200);
    wait_outcomes(&gate, "answered", 4);
    assert!(shadow.connections() <= 3, "{}", shadow.connections());
    let log = gate.access_log(4);
    assert!(log.iter().all(|record| record["attempts"].as_array().is_none_or(|all| all.len() <= 1)), "{log:?}");
}

#[test]
fn copies_take_no_place_of_a_client() {
    let held = Gate::new();
    let (web, shadow) = (Origin::always(Reply::ok("real")), Origin::always(Reply::ok("late").hold(&held)));
    let gate = mirrored(&web, &shadow, "", "");
    gate.reload(|text| text.replace("workers = 2", "workers = 2\nmax_misses = 2"));
    for turn in 1..=4 {
        assert_eq!(gate.get("/").expect(200).text(), "real", "{turn} copies under way");
        shadow.wait_requests(turn);
    }
    held.open();
    wait_outcomes(&gate, "answered", 4);
    gate.expect_idle();
}

#[test]
fn a_copy_that_fails_fails_alone() {
    let web = Origin::always(Reply::ok("real"));
    let table = [
        (Reply::raw(""), "connection_closed"),
        (Reply::new(200).announced(9, "half").end(crate::support::origin::End::Close), "response_truncated"),
        (Reply::ok("x"), "connect_refused"),
    ];
    for (reply, outcome) in table {
        let shadow = Origin::always(reply);
        if outcome == "connect_refused" {
            shadow.stop();
        }
        let gate = mirrored(&web, &shadow, "", "");
        assert_eq!(gate.get("/").expect(200).text(), "real");
        wait_outcomes(&gate, outcome, 1);
        gate.expect_idle();
    }
}

#[test]
fn uploads_are_copied_when_asked_for_and_as_far_as_they_are_short() {
    let (web, shadow) = (Origin::always(Reply::echo()), Origin::always(Reply::ok("x")));
    let gate = mirrored(&web, &shadow, "", "");
    gate.client().ask(&Request::new("POST", "/").body("once")).expect(200);
    wait_outcomes(&gate, "unsafe_method", 1);
    assert_eq!(shadow.requests(), 0);

    let gate = mirrored(&web, &shadow, ", unsafe_methods = true, max_body = 10", "");
    let mut client = gate.client();
    assert_eq!(client.ask(&Request::new("POST", "/sized").body("ten bytes!")).expect(200).text(), "ten bytes!");
    client.send("PUT /chunked HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\nX-T: t\r\n\r\n");
    assert_eq!(client.answer("PUT").expect("an answer").expect(200).text(), "abcdef");
    client.ask(&Request::new("DELETE", "/none")).expect(200);
    wait_outcomes(&gate, "answered", 3);
    let mut copies: Vec<_> = shadow.seen().into_iter().map(|copy| (copy.method, copy.body, copy.complete)).collect();
    copies.sort();
    let copy = |method: &str, body: &str| (method.to_owned(), body.as_bytes().to_vec(), true);
    assert_eq!(copies, [copy("DELETE", ""), copy("POST", "ten bytes!"), copy("PUT", "abcdef")]);
    // Longer, known before and not.
    client.ask(&Request::new("POST", "/sized").body("eleven byte")).expect(200);
    wait_outcomes(&gate, "body_too_large", 1);
    client.send("PUT / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n6\r\nghijkl\r\n0\r\n\r\n");
    assert_eq!(client.answer("PUT").expect("an answer").expect(200).text(), "abcdefghijkl");
    wait_outcomes(&gate, "body_too_large", 2);
    // Half of one is none.
    client.send("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 9\r\n\r\nhalf");
    client.abort();
    wait_outcomes(&gate, "body_cut", 1);
    assert_eq!(shadow.requests(), 3);
    gate.expect_idle();
}

#[test]
fn copies_are_a_share_bounded_and_only_of_what_the_farm_is_asked() {
    let stored = || Reply::new(200).field("Cache-Control", "max-age=600").body("kept");
    let held = Gate::new();
    let (web, shadow) = (Origin::always(stored()), Origin::always(Reply::ok("x")));
    let gate = mirrored(&web, &shadow, "", "cache = \"all\"\n[cache.all]");
    for _ in 0..5 {
        gate.get("/").expect(200);
    }
    wait_outcomes(&gate, "answered", 1);
    assert_eq!((web.requests(), shadow.requests()), (1, 1), "hits are nobody else's business");

    let gate = mirrored(&web, &shadow, ", share = \"25%\"", "");
    let mut client = gate.client();
    for _ in 0..200 {
        client.get("/").expect(200);
    }
    let sampled = 200 - outcomes(&gate, "not_sampled");
    // 25 % of 200, give or take five standard deviations.
    assert!((20..=80).contains(&sampled), "{sampled}");
    wait_outcomes(&gate, "answered", sampled);

    let slow = Origin::always(Reply::ok("x").hold(&held));
    let gate = mirrored(&web, &slow, ", max_in_flight = 2", "");
    for _ in 0..6 {
        gate.get("/").expect(200);
    }
    wait_outcomes(&gate, "in_flight", 4);
    slow.wait_requests(2);
    gate.reload(|text| text.replace("max_in_flight = 2", "max_in_flight = 1"));
    gate.get("/").expect(200);
    wait_outcomes(&gate, "in_flight", 5);
    held.open();
    wait_outcomes(&gate, "answered", 2);
    gate.expect_idle();
    gate.get("/").expect(200);
    wait_outcomes(&gate, "answered", 3);
}

/// One endpoint that takes one exchange at a time, and a route with these keys.
fn narrow(origin: &Origin, keys: &str) -> Tidegate {
    let address = origin.address();
    Tidegate::start(&format!(
        "{PLAIN}[[pool]]\nname = \"web\"\nendpoints = [{{ address = \"{address}\", max_connections = 1 }}]\n[[route]]\npool = \"web\"\n{keys}\n"
    ))
}

#[test]
fn a_slow_upload_holds_no_endpoint_when_it_is_buffered() {
    let origin = Origin::always(Reply::echo());
    for (keys, free) in [("", false), ("buffer_request = \"1KiB\"", true)] {
        for (framing, rest) in [
            ("Content-Length: 10\r\n\r\nfirst", " last"),
            ("Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n", "5\r\n last\r\n0\r\n\r\n"),
        ] {
            let gate = narrow(&origin, keys);
            let before = origin.connections();
            let mut slow = gate.client();
            slow.send(format!("POST / HTTP/1.1\r\nHost: shop.example\r\n{framing}"));
            if !free {
                poll("the endpoint to be taken", || (gate.endpoint(&origin)["in_flight"] == 1).then_some(()));
            }
            assert_eq!(gate.get("/").status, if free { 200 } else { 503 }, "{keys}: {framing}");
            slow.send(rest);
            assert_eq!(slow.answer("POST").expect("an answer").expect(200).text(), "first last", "{keys}: {framing}");
            assert!(origin.connections() > before);
            gate.expect_idle();
        }
    }
    // Whoever goes away before the end has bothered nobody.
    let gate = narrow(&origin, "buffer_request = \"1KiB\"");
    let before = origin.requests();
    let mut client = gate.client();
    client.send("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 10\r\n\r\nhalf");
    client.abort();
    assert_eq!(gate.access_log(1)[0]["complete"], false);
    assert_eq!(origin.requests(), before);
    gate.expect_idle();
}

#[test]
fn what_is_longer_than_the_buffer_streams() {
    let origin = Origin::always(Reply::echo());
    let gate = narrow(&origin, "buffer_request = \"8\"");
    let long = "x".repeat(100_000);
    assert_eq!(gate.client().ask(&Request::new("POST", "/").body(long.clone())).expect(200).text(), long);
    let mut client = gate.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n5\r\n then\r\n",
    );
    poll("the endpoint to be taken", || (gate.endpoint(&origin)["in_flight"] == 1).then_some(()));
    client.send("4\r\n end\r\n0\r\n\r\n");
    assert_eq!(client.answer("POST").expect("an answer").expect(200).text(), "first then end");
    gate.expect_idle();
}

#[test]
fn a_buffered_upload_can_be_sent_once_more() {
    let breaking = Origin::always(Reply::raw(""));
    let steady = Origin::always(Reply::echo());
    let web = format!(
        "[[pool]]\nname = \"web\"\nretry = {{ attempts = 2 }}\nendpoints = [{{ address = \"{}\" }}, {{ address = \"{}\", backup = true }}]\n",
        breaking.address(),
        steady.address()
    );
    for (keys, status) in [("", 502), ("buffer_request = \"1KiB\"", 200)] {
        let gate = Tidegate::start(&format!("{PLAIN}{web}[[route]]\npool = \"web\"\n{keys}\n"));
        let mut client = gate.client();
        client
            .send("PUT / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n");
        let answer = client.answer("PUT").expect("an answer").expect(status);
        assert_eq!(answer.text() == "whole", status == 200, "{keys}");
        gate.expect_idle();
    }
}

#[test]
fn what_both_sides_stream_is_not_waited_for() {
    let origin = h2_origin::H2Origin::start(|_| h2_origin::Reply::echo());
    let web = format!(
        "[[pool]]\nname = \"web\"\nprotocol = \"h2\"\nendpoints = [{{ address = \"{}\" }}]\n",
        origin.address()
    );
    let keys = "buffer_request = \"1MiB\"\nbuffer_response = \"1MiB\"\n";
    let gate = Tidegate::start(&format!("{PLAIN}{web}[[route]]\npool = \"web\"\n{keys}"));
    let call = http::Request::builder().method("POST").uri("http://shop.example/chat");
    let call = call.header("content-type", "application/grpc").body(()).unwrap();
    let mut both = h2::Both::begin(gate.listener("http"), call);
    for round in 0..5 {
        let said = format!("message {round}");
        both.say(&said);
        assert_eq!(both.hear(said.len()), said);
    }
    both.end(&[("x-end", "1")]);
    assert_eq!(both.trailers().get("x-end"), Some("1"));
    gate.expect_idle();
}

#[test]
fn a_slow_client_holds_no_endpoint_when_its_answer_is_buffered() {
    // More than the sockets on the way hold, so that only what was read ahead can be the difference.
    let long: String = (0..2 << 20).map(|n| format!("{n:015}\n")).collect();
    let origin = Origin::start({
        let long = long.clone();
        move |seen| match seen.target.as_str() {
            "/sized" => Reply::ok(&long),
            "/chunked" => Reply::new(200).chunk(&long).last_chunk(&[("X-Sum", "1")]),
            _ => Reply::ok("short"),
        }
    });
    for (keys, free) in [("", false), ("buffer_response = \"1MiB\"", false), ("buffer_response = \"64MiB\"", true)] {
        for target in ["/sized", "/chunked"] {
            let gate = narrow(&origin, keys);
            let before = origin.requests();
            let mut slow = gate.client();
            slow.send(Request::get(target).bytes());
            origin.wait_requests(before + 1);
            if free {
                gate.expect_idle();
                gate.get("/").expect(200);
            } else {
                assert_eq!(gate.get("/").status, 503, "{keys}: {target}");
            }
            let answer = slow.answer("GET").expect("an answer").expect(200);
            assert!(answer.complete && answer.text() == long, "{keys}: {target}: {} bytes", answer.body.len());
            assert_eq!(answer.trailers.get("x-sum"), (target == "/chunked").then_some("1"), "{keys}");
            gate.expect_idle();
        }
    }
}

#[test]
fn what_breaks_behind_the_buffer_breaks_the_answer() {
    let never = Gate::new();
    let table = [
        Reply::new(200).announced(10, "half").end(crate::support::origin::End::Close),
        Reply::new(200).chunk("half").end(crate::support::origin::End::Reset),
        Reply::new(200).chunk("half").wait(&never),
    ];
    for reply in table {
        let origin = Origin::always(reply);
        let web = pool("web", &[&origin], "timeouts = { idle = \"300ms\" }");
        let gate = Tidegate::start(&format!("{PLAIN}{web}[[route]]\npool = \"web\"\nbuffer_response = \"1MiB\"\n"));
        let mut client = gate.client();
        client.send(Request::get("/").bytes());
        assert!(client.answer("GET").is_none_or(|answer| !answer.complete || answer.status == 502));
        gate.expect_idle();
    }
    // And a client that goes away takes the exchange along.
    let origin = Origin::always(Reply::new(200).chunk("half").wait(&never).last_chunk(&[]));
    let gate = narrow(&origin, "buffer_response = \"1MiB\"");
    let mut client = gate.client();
    client.send(Request::get("/").bytes());
    assert_eq!(client.head().0, 200);
    assert_eq!(client.chunk(), "half");
    client.abort();
    gate.expect_idle();
    never.open();
}
