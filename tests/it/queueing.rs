//! What becomes of exchanges that find no room: in line, refused, given up.

use crate::support::client::{Client, Request};
use crate::support::gate::{Gate, poll};
use crate::support::origin::{Origin, Reply};
use crate::support::tidegate::{PLAIN, Tidegate, pool};

/// A plain listener, one pool of these origins with these keys, a route for everything.
fn start(origins: &[&Origin], keys: &str, more: &str) -> Tidegate {
    Tidegate::start(&format!("{PLAIN}{}[[route]]\npool = \"web\"\n{more}", pool("web", origins, keys)))
}

/// A client that has asked and has not read the answer.
fn asked(gate: &Tidegate, target: &str) -> Client {
    let mut client = gate.client();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n"));
    client
}

fn wait_waiting(gate: &Tidegate, n: u64) {
    gate.wait_status("the queue", |status| (status["pools"][0]["waiting"] == n).then_some(()));
}

/// An origin that answers nothing but `/free` before the gate opens.
fn held(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |seen| if seen.target == "/free" { Reply::ok("x") } else { Reply::ok("x").hold(&gate) })
}

#[test]
fn who_waits_is_served_in_order_whatever_worker_has_it() {
    let done = Gate::new();
    let origin = held(&done);
    let gate = start(&[&origin], "queue = { max = 20, timeout = \"30s\" }\nmax_in_flight = 1", "");
    let mut clients = vec![asked(&gate, "/0")];
    origin.wait_requests(1);
    for turn in 1..=12 {
        clients.push(asked(&gate, &format!("/{turn}")));
        wait_waiting(&gate, turn);
    }
    assert_eq!(origin.requests(), 1);
    done.open();
    for mut client in clients {
        client.answer("GET").expect("an answer").expect(200);
    }
    let order: Vec<_> = origin.seen().into_iter().map(|seen| seen.target).collect();
    let expected: Vec<_> = (0..=12).map(|turn| format!("/{turn}")).collect();
    assert_eq!(order, expected);
    gate.expect_idle();
    let status = gate.status();
    assert_eq!(status["pools"][0]["queued"], 12);
    assert!(gate.metrics().contains("tidegate_pool_queued_total{pool=\"web\"} 12"));
}

#[test]
fn a_slot_of_an_endpoint_lets_the_next_one_in() {
    let done = Gate::new();
    let origin = held(&done);
    let text = format!(
        "{PLAIN}[[pool]]\nname = \"web\"\nqueue = {{}}\nendpoints = [{{ address = \"{}\", max_connections = 2 }}]\n[[route]]\npool = \"web\"\n",
        origin.address()
    );
    let gate = Tidegate::start(&text);
    let clients: Vec<_> = (0..6).map(|turn| asked(&gate, &format!("/{turn}"))).collect();
    wait_waiting(&gate, 4);
    assert_eq!(origin.wait_requests(2).len(), 2);
    done.open();
    for mut client in clients {
        client.answer("GET").expect("an answer").expect(200);
    }
    gate.expect_idle();
}

#[test]
fn a_full_queue_and_a_long_wait_are_told_apart() {
    let done = Gate::new();
    let origin = held(&done);
    let gate = start(&[&origin], "queue = { max = 1, timeout = \"100ms\" }\nmax_in_flight = 1", "");
    let mut first = asked(&gate, "/");
    origin.wait_requests(1);
    let answer = gate.get("/");
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
    assert!(answer.field("proxy-status").is_some_and(|said| said.contains("connection_limit_reached")));
    assert_eq!(gate.access_log(1)[0]["reason"], "queue_timeout");
    gate.reload(|text| text.replace("100ms", "30s"));
    let mut second = asked(&gate, "/");
    wait_waiting(&gate, 1);
    assert_eq!(gate.get("/").status, 503);
    assert_eq!(gate.access_log(2)[1]["reason"], "queue_full");
    done.open();
    for client in [&mut first, &mut second] {
        client.answer("GET").expect("an answer").expect(200);
    }
    gate.expect_idle();
    let status = gate.status();
    let row = &status["pools"][0];
    assert_eq!([&row["queued"], &row["queue_full"], &row["queue_timeouts"]], [2, 1, 1]);
}

#[test]
fn who_goes_away_leaves_the_line() {
    let done = Gate::new();
    let origin = held(&done);
    let gate = start(&[&origin], "queue = { max = 9, timeout = \"30s\" }\nmax_in_flight = 1", "");
    let mut first = asked(&gate, "/first");
    origin.wait_requests(1);
    let gone = asked(&gate, "/gone");
    wait_waiting(&gate, 1);
    let mut last = asked(&gate, "/last");
    wait_waiting(&gate, 2);
    gone.abort();
    wait_waiting(&gate, 1);
    done.open();
    for client in [&mut first, &mut last] {
        client.answer("GET").expect("an answer").expect(200);
    }
    assert!(origin.seen().iter().all(|seen| seen.target != "/gone"));
    gate.expect_idle();
}

#[test]
fn a_pool_has_no_more_in_flight_than_it_may() {
    for keys in ["max_in_flight = 3", "adaptive = { min = 3, max = 3 }"] {
        let done = Gate::new();
        let origins = [held(&done), held(&done)];
        let gate = start(&[&origins[0], &origins[1]], keys, "");
        let clients: Vec<_> = (0..3).map(|_| asked(&gate, "/")).collect();
        poll("three under way", || (origins.iter().map(Origin::requests).sum::<usize>() == 3).then_some(()));
        let refused = gate.get("/");
        assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1")), "{keys}");
        assert_eq!(gate.access_log(1)[0]["reason"], "pool_full");
        assert_eq!(gate.status()["pools"][0]["max_in_flight"], 3);
        done.open();
        for mut client in clients {
            client.answer("GET").expect("an answer").expect(200);
        }
        gate.expect_idle();
        gate.get("/").expect(200);
    }
}

#[test]
fn under_overload_misses_are_shed_and_hits_go_on() {
    let done = Gate::new();
    let origin = Origin::start({
        let done = done.clone();
        move |seen| match seen.target.as_str() {
            "/stored" => Reply::new(200).field("Cache-Control", "max-age=3600").body("kept"),
            "/stale" => Reply::new(200)
                .field("ETag", "\"1\"")
                .field("Cache-Control", "max-age=0, stale-if-error=600")
                .body("old"),
            _ => Reply::ok("x").hold(&done),
        }
    });
    let text = format!(
        "{PLAIN}{}[[route]]\npool = \"web\"\ncache = \"all\"\n[cache.all]\n",
        pool("web", &[&origin], "queue = {}")
    );
    let gate = Tidegate::start(&text);
    gate.get("/stored").expect(200);
    gate.get("/stale").expect(200);
    gate.reload(|text| text.replace("workers = 2", "workers = 2\nmax_misses = 2"));
    let clients = [asked(&gate, "/a"), asked(&gate, "/b")];
    origin.wait_requests(4);
    for _ in 0..4 {
        let miss = gate.client().ask(&Request::get("/c"));
        assert_eq!((miss.status, miss.field("retry-after")), (503, Some("1")), "at once, not after a queue");
        assert_eq!(gate.get("/stored").expect(200).text(), "kept");
    }
    assert_eq!(gate.get("/stale").expect(200).text(), "old", "what is stale is better than a refusal");
    assert!(gate.metrics().contains("tidegate_errors_total{reason=\"shed\"}"));
    done.open();
    for mut client in clients {
        client.answer("GET").expect("an answer").expect(200);
    }
    gate.expect_idle();
    gate.get("/d").expect(200);
}
