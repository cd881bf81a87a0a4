//! Bounds on what a client may send and how long it may take.

use crate::support::client::Request;
use crate::support::origin::{Origin, Reply};
use crate::support::tidegate::{PLAIN, Tidegate, front};

/// A Tidegate whose listener has these keys.
fn limited(origin: &Origin, keys: &str) -> Tidegate {
    Tidegate::start(&front(origin, "").replace(PLAIN, &format!("{PLAIN}{keys}\n")))
}

#[test]
fn heads_that_are_too_large_are_refused_by_name() {
    let origin = Origin::always(Reply::ok("x"));
    let gate = limited(&origin, "limits = { header_bytes = \"4KiB\", headers = 20, uri = \"1KiB\" }");
    let fields = |n: usize| (0..n).fold(Request::get("/"), |ask, n| ask.field(&format!("X-{n}"), "v"));
    let table = [
        ("a usual one", Request::get("/").field("X-A", &"v".repeat(1000)), 200),
        ("a long target", Request::get(&format!("/{}", "x".repeat(2000))), 414),
        ("a long field", Request::get("/").field("X-A", &"v".repeat(5000)), 431),
        ("many fields", fields(30), 431),
        ("as many as may be", fields(15), 200),
    ];
    for (what, ask, status) in table {
        let mut client = gate.client();
        client.send_in_vain(ask.bytes());
        let answer = client.answer("GET").unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!(answer.status, status, "{what}");
        if status != 200 {
            client.expect_close();
        }
    }
    // A head that never ends is refused before it is all there.
    let mut client = gate.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.example\r\nX-A: ");
    client.send_in_vain("v".repeat(100_000));
    assert_eq!(client.answer("GET").expect("an answer").status, 431);
    assert_eq!(origin.requests(), 2);
}

#[test]
fn those_who_take_too_long_are_let_go() {
    let origin = Origin::always(Reply::ok("x"));
    let keys = "timeouts = { headers = \"100ms\", body = \"100ms\", idle = \"100ms\" }";
    let gate = limited(&origin, keys);
    // Part of a head, then silence.
    let mut client = gate.client();
    client.send("GET / HTTP/1.1\r\nHost: shop");
    assert_eq!(client.answer("GET").expect("an answer").status, 408);
    client.expect_close();
    // Part of a body.
    let mut client = gate.client();
    client.send("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(client.answer("POST").expect("an answer").status, 408);
    client.expect_close();
    // Nothing at all, at first or after an answer: there is nobody to answer.
    let mut client = gate.client();
    client.expect_close();
    let mut client = gate.client();
    client.get("/").expect(200);
    client.expect_close();
    gate.expect_idle();
}

#[test]
fn one_client_has_only_so_many_connections() {
    let origin = Origin::always(Reply::ok("x"));
    let gate = limited(&origin, "limits = { connections_per_client = 3 }");
    let mut open: Vec<_> = (0..3).map(|_| gate.client()).collect();
    for client in &mut open {
        client.get("/").expect(200);
    }
    let mut fourth = gate.client();
    fourth.send_in_vain(Request::get("/").bytes());
    assert_ne!(fourth.answer("GET").map(|answer| answer.status), Some(200));
    drop(open);
    crate::support::gate::poll("a place to be free again", || {
        let mut client = gate.client();
        client.send_in_vain(Request::get("/").bytes());
        client.answer("GET").filter(|answer| answer.status == 200)
    });
}

#[test]
fn a_silent_handshake_ends() {
    let origin = Origin::always(Reply::ok("x"));
    let listener = "[[listener]]\nname = \"https\"\naddress = \"127.0.0.1:0\"\ntls = { self_signed = [\"shop.example\"] }\n\
                    timeouts = { handshake = \"100ms\" }\n";
    let gate = Tidegate::start(&(front(&origin, "") + listener));
    crate::support::client::Client::connect(gate.listener("https")).expect_close();
}
