//! What goes wrong around the messages: certificates, networks, sockets, too much at once, everybody at once.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidegate::clock::Clock;

use super::{KEYS, ask_both, expect_fault};
use crate::support::client::Request;
use crate::support::gate::poll;
use crate::support::origin::{Origin, Reply};
use crate::support::pki::Pki;
use crate::support::tidegate::{PLAIN, Setup, Tidegate, pool};

/// A pool of addresses as they are written, and a route to it.
fn facing(addresses: &[&str], keys: &str) -> String {
    let endpoints: Vec<_> = addresses.iter().map(|address| format!("{{ address = \"{address}\" }}")).collect();
    let web = format!("[[pool]]\nname = \"web\"\nendpoints = [{}]\n{keys}", endpoints.join(", "));
    format!("{PLAIN}{web}[[route]]\npool = \"web\"\n")
}

/// A port that was ours a moment ago and refuses now.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn addresses_nobody_can_be_reached_at_are_named() {
    let setup = Setup::new();
    let (absent, dead) = (setup.path().join("absent.sock"), setup.path().join("dead.sock"));
    drop(UnixListener::bind(&dead).unwrap());
    let (absent, dead) = (format!("unix:{}", absent.display()), format!("unix:{}", dead.display()));
    let refusing = nobody().to_string();
    let table = [
        // A link-local address without its link leads nowhere, on every machine and without a packet.
        ("unroutable", "[fe80::1]:9", "destination_ip_unroutable", "unroutable"),
        ("refusing", &refusing, "connection_refused", "connect_refused"),
        ("no socket", &absent, "connection_refused", "connect_refused"),
        ("nobody behind the socket", &dead, "connection_refused", "connect_refused"),
    ];
    for (what, address, token, reason) in table {
        let gate = Tidegate::start(&facing(&[address], KEYS));
        for answer in ask_both(&gate) {
            expect_fault(what, &answer, 502, token);
        }
        assert!(gate.access_log(2).iter().all(|record| record["reason"] == reason), "{what}");
        gate.expect_idle();
    }
}

#[test]
fn certificates_that_do_not_hold_are_refused() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let names = ["farm.example"];
    let table = [
        ("expired", pki.expired(&names)),
        ("foreign", stranger.server(&names)),
        ("for another name", pki.server(&["other.example"])),
        ("for clients only", pki.client("farm.example")),
    ];
    for (what, shown) in table {
        for protocol in ["http/1.1", "auto"] {
            let origin = Origin::tls(pki.origin(&shown, false), |_| Reply::ok("x"));
            let tls =
                format!("protocol = \"{protocol}\"\ntls = {{ ca = \"ca.pem\", server_name = \"farm.example\" }}\n");
            let text = facing(&[&origin.address().to_string()], &format!("{tls}{KEYS}"));
            let gate = Setup::new().file("ca.pem", pki.ca()).start(&text);
            for answer in ask_both(&gate) {
                expect_fault(what, &answer, 502, "tls_certificate_error");
            }
            assert_eq!(origin.requests(), 0, "{what}");
            gate.expect_idle();
        }
    }
}

#[test]
fn who_speaks_tls_and_who_does_not_find_out() {
    // A plain origin that meets a handshake.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let gate = Tidegate::start(&facing(&[&address], &format!("tls = {{ insecure = true }}\n{KEYS}")));
    for answer in ask_both(&gate) {
        expect_fault("TLS to a plain port", &answer, 502, "tls_protocol_error");
    }
    gate.expect_idle();
    // And the reverse.
    let pki = Pki::new();
    let origin = Origin::tls(pki.origin(&pki.server(&["farm.example"]), false), |_| Reply::ok("x"));
    let gate = Tidegate::start(&facing(&[&origin.address().to_string()], KEYS));
    for answer in ask_both(&gate) {
        assert!(matches!(answer.status, 502 | 504), "{:?}", answer.fields);
    }
    gate.expect_idle();
}

/// Longer than all the buffers between an origin and a client that does not read.
const FLOOD: usize = 64 << 20;

/// An origin that writes [`FLOOD`] bytes to each who asks, as quickly as they are taken; how many were.
fn flood() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let written = Arc::<AtomicUsize>::default();
    std::thread::spawn({
        let written = written.clone();
        move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 4096]);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {FLOOD}\r\n\r\n");
                let _ = stream.write_all(head.as_bytes());
                let piece = vec![b'x'; 64 << 10];
                while stream.write_all(&piece).is_ok() {
                    written.fetch_add(piece.len(), Ordering::SeqCst);
                }
            }
        }
    });
    (address, written)
}

fn resident(gate: &Tidegate) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn a_flood_waits_for_the_client_and_not_in_memory() {
    let ahead = "buffer_response = \"1MiB\"\n";
    for more in ["", ahead] {
        let (address, written) = flood();
        let gate = Tidegate::start(&(facing(&[&address.to_string()], "") + more));
        gate.get("/nothing-read-yet").expect(200);
        let before = resident(&gate);
        let start = written.load(Ordering::SeqCst);
        let mut client = gate.client();
        client.send(Request::get("/").bytes());
        assert_eq!(client.head().0, 200);
        let (mut last, mut quiet) = (0, 0);
        poll("the flood to stand still", || {
            let now = written.load(Ordering::SeqCst);
            quiet = if now == last { quiet + 1 } else { 0 };
            last = now;
            (quiet > 60).then_some(())
        });
        assert!(last - start < FLOOD / 2, "{more}: {} bytes went somewhere", last - start);
        let grown = resident(&gate).saturating_sub(before);
        assert!(grown < 8 << 20, "{more}: {grown} bytes more");
        // It goes on with whoever reads.
        assert_eq!(client.read(FLOOD).len(), FLOOD, "{more}");
        let mut client = gate.client();
        client.send(Request::get("/").bytes());
        assert_eq!(client.head().0, 200);
        client.abort();
        gate.expect_idle();
    }
}

#[test]
fn when_all_are_down_that_is_said_at_once() {
    let dead: Vec<_> = (0..3).map(|_| nobody().to_string()).collect();
    let dead: Vec<_> = dead.iter().map(String::as_str).collect();
    let sick = Origin::always(Reply::new(500).body(""));
    let health =
        "health = { path = \"/healthz\", interval = \"20ms\", timeout = \"20ms\", fall = 1 }\npanic = \"0%\"\n";
    let sick_address = sick.address().to_string();
    let down = facing(&dead, "").replace("\" }", "\", state = \"down\" }");
    let table = [
        ("refusing", facing(&dead, "retry = { attempts = 3 }\n"), 502, "connection_refused"),
        ("down", down, 503, "destination_unavailable"),
        ("sick", facing(&[&sick_address, dead[0]], health), 503, "destination_unavailable"),
    ];
    for (what, text, status, token) in table {
        let gate = Tidegate::start(&text);
        if what == "sick" {
            gate.wait_status("both verdicts", |status| {
                let mut endpoints = status["pools"][0]["endpoints"].as_array()?.iter();
                endpoints.all(|row| row["healthy"] == false).then_some(())
            });
        }
        for answer in ask_both(&gate) {
            expect_fault(what, &answer, status, token);
        }
        gate.expect_idle();
    }
}

#[test]
fn an_endpoint_that_flaps_is_nobodys_concern_but_its_own() {
    // 200 ms well, 200 ms closing on everybody, probes included; the other one is always well.
    let began = Clock::System.now();
    let flapping = Origin::start(move |_| match Clock::System.now().since(began).as_millis() / 200 % 2 {
        0 => Reply::ok("a"),
        _ => Reply::raw(""),
    });
    let steady = Origin::always(Reply::ok("b"));
    let keys = "health = { path = \"/\", interval = \"50ms\", timeout = \"50ms\", rise = 1, fall = 1 }\n\
                outlier = { consecutive_errors = 2, eject_for = \"100ms\" }\n\
                retry = { attempts = 2, on = [\"connect\", \"reset\"], budget = \"100%\", backoff = \"0s\" }\n";
    let gate =
        Tidegate::start(&format!("{PLAIN}{}[[route]]\npool = \"web\"\n", pool("web", &[&flapping, &steady], keys)));
    let mut client = gate.client();
    let mut answers = String::new();
    while Clock::System.now().since(began) < Duration::from_secs(3) {
        let asked = Clock::System.now();
        answers += &client.get("/").expect(200).text();
        assert!(Clock::System.now().since(asked) < Duration::from_secs(2));
    }
    assert!(answers.contains('a') && answers.contains('b'), "both had their part");
    assert!(gate.endpoint(&flapping)["failures"].as_u64() > Some(0), "and it did flap");
    gate.expect_idle();
}
