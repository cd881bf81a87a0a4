//! How long origins may take, as their pool and as the route says; and what each bound is called when it is hit.

use std::net::TcpListener;

use crate::support::client::{Answer, Request};
use crate::support::gate::Gate;
use crate::support::h2;
use crate::support::origin::{Origin, Reply};
use crate::support::tidegate::{PLAIN, Tidegate};

/// Bounds that nothing here comes near.
const LONG: &str = "connect = \"50s\", first_byte = \"50s\", idle = \"50s\", total = \"50s\"";

/// A Tidegate whose pool and route have these timeouts; an empty text is none.
fn start(address: &str, pool: &str, route: &str, keys: &str) -> Tidegate {
    let timeouts = |text: &str| if text.is_empty() { String::new() } else { format!("timeouts = {{ {text} }}\n") };
    Tidegate::start(&format!(
        "{PLAIN}[[pool]]\nname = \"web\"\nendpoints = [{{ address = \"{address}\" }}]\nretry = {{ attempts = 1 }}\n{}{keys}[[route]]\npool = \"web\"\n{}",
        timeouts(pool),
        timeouts(route)
    ))
}

/// A listener to which no connection is completed: its backlog is full. Keeps what fills it.
fn full_backlog() -> (TcpListener, Vec<std::net::TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let patience = std::time::Duration::from_millis(200);
    let filling = (0..8).map_while(|_| std::net::TcpStream::connect_timeout(&address, patience).ok());
    let filling = filling.collect();
    (listener, filling)
}

type Ask = fn(&Tidegate) -> Answer;

fn get(gate: &Tidegate) -> Answer {
    let mut client = gate.client();
    client.send(Request::get("/").bytes());
    client.answer("GET").expect("an answer")
}

/// More than all the buffers on the way take.
fn upload(gate: &Tidegate) -> Answer {
    h2::Client::connect(gate.listener("http")).ask(&Request::new("POST", "/").body(vec![b'x'; 32 << 20]))
}

#[test]
fn each_bound_has_its_own_name_by_pool_and_by_route() {
    let never = Gate::new();
    let (full, _filling) = full_backlog();
    // Connections to it are completed by the system; nobody ever reads them.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = Origin::always(Reply::ok("late").hold(&never));
    let halting = Origin::always(Reply::new(200).announced(9, "half").wait(&never));
    let endless = Origin::always(Reply::ok("x".repeat(1 << 20)).dribble());
    let at = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
    let by = |origin: &Origin| origin.address().to_string();
    let tls = "tls = { insecure = true }\n";
    let table: [(&str, String, &str, Ask, u16, &str, &str); 8] = [
        ("connect", at(&full), "", get, 504, "connection_timeout", "connect_timeout"),
        ("connect", at(&mute), tls, get, 504, "connection_timeout", "tls_timeout"),
        (
            "connect",
            at(&mute),
            "tls = { insecure = true }\nprotocol = \"h2\"\n",
            get,
            504,
            "connection_timeout",
            "tls_timeout",
        ),
        ("first_byte", by(&silent), "", get, 504, "http_response_timeout", "first_byte_timeout"),
        ("idle", at(&mute), "", upload, 504, "connection_write_timeout", "write_timeout"),
        ("total", by(&silent), "", get, 504, "http_response_timeout", "total_timeout"),
        ("idle", by(&halting), "", get, 200, "", "read_timeout"),
        ("total", by(&endless), "", get, 200, "", "total_timeout"),
    ];
    for (key, address, keys, ask, status, token, reason) in table {
        let short = format!("{key} = \"300ms\"");
        let long: Vec<_> = LONG.split(", ").filter(|bound| !bound.starts_with(key)).collect();
        let alone = format!("{}, {short}", long.join(", "));
        for (place, pool, route) in [("pool", alone.as_str(), ""), ("route", LONG, short.as_str())] {
            let what = format!("{reason} by {place}");
            let gate = start(&address, pool, route, keys);
            let answer = ask(&gate);
            // What was begun is cut.
            assert_eq!((answer.status, answer.complete), (status, status != 200), "{what}: {:?}", answer.fields);
            let said = format!("tidegate; error={token}; details=\"{reason}\"");
            assert_eq!(answer.field("proxy-status"), (!token.is_empty()).then_some(said.as_str()), "{what}");
            assert_eq!(gate.access_log(1)[0]["reason"], reason, "{what}");
            assert_eq!(gate.status()["pools"][0]["endpoints"][0]["failures_by_reason"][reason], 1, "{what}");
            gate.expect_idle();
        }
    }
    never.open();
}

#[test]
fn a_route_may_wait_for_longer_than_its_pool() {
    let origin = Origin::always(Reply::ok("x".repeat(200)).dribble());
    let brief = "total = \"10ms\"";
    for (route, status) in [("", 504), ("total = \"0s\"", 200), ("total = \"50s\"", 200), ("idle = \"50s\"", 504)] {
        let held = Gate::new();
        let slow = Origin::always(Reply::ok("slow").hold(&held));
        let gate = start(&slow.address().to_string(), brief, route, "");
        let mut client = gate.client();
        client.send(Request::get("/").bytes());
        slow.wait_requests(1);
        if status == 200 {
            // Far longer than the pool would have waited.
            start(&origin.address().to_string(), "", "", "").get("/").expect(200);
            held.open();
        }
        assert_eq!(client.answer("GET").expect("an answer").status, status, "{route}");
        held.open();
        gate.expect_idle();
    }
}
