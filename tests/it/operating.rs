//! The process as its operator handles it: signals, the user it runs as, unix sockets, a second instance.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::process::Signal;

use crate::support::client::{Client, Request};
use crate::support::gate::{Gate, poll};
use crate::support::origin::{Origin, Reply};
use crate::support::pki::Pki;
use crate::support::tidegate::{PLAIN, Setup, Tidegate, front};

/// A route that answers by itself.
const HELLO: &str = "[[route]]\nrespond = { status = 200, body = \"hello\" }\n";

fn hello() -> String {
    format!("{PLAIN}{HELLO}")
}

#[test]
fn hang_up_reloads_though_nothing_changed() {
    let gate = Tidegate::start(&hello());
    let before = gate.generation();
    gate.signal(Signal::HUP);
    gate.wait_generation(before + 1);
    assert_eq!(gate.get("/").expect(200).text(), "hello");
}

#[test]
fn a_log_that_was_moved_is_opened_anew() {
    let setup = Setup::new();
    let log = setup.path().join("access.log");
    let gate = setup.start(&hello());
    gate.reload(|text| text.replace("to = \"stdout\"", "to = \"access.log\""));
    let wait_for = |file: &Path, part: &str| {
        poll("a record", || std::fs::read_to_string(file).ok().filter(|text| text.contains(part)));
    };
    gate.get("/one").expect(200);
    wait_for(&log, "/one");
    let moved = gate.path("access.log.1");
    std::fs::rename(&log, &moved).unwrap();
    gate.get("/two").expect(200);
    wait_for(&moved, "/two");
    gate.signal(Signal::USR1);
    poll("a new file", || log.exists().then_some(()));
    gate.get("/three").expect(200);
    wait_for(&log, "/three");
    assert!(!std::fs::read_to_string(&moved).unwrap().contains("/three"));
}

#[test]
fn an_endpoint_may_be_a_unix_socket() {
    let setup = Setup::new();
    let socket = setup.path().join("origin.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nunix here").unwrap();
        }
    });
    let pool = format!("[[pool]]\nname = \"web\"\nendpoints = [{{ address = \"unix:{}\" }}]\n", socket.display());
    let gate = setup.start(&format!("{PLAIN}{pool}[[route]]\npool = \"web\"\n"));
    assert_eq!(gate.get("/").expect(200).text(), "unix here");
    assert_eq!(gate.access_log(1)[0]["endpoint"], format!("unix:{}", socket.display()));
}

#[test]
fn the_admin_listener_may_be_a_unix_socket() {
    let setup = Setup::new();
    let socket = setup.path().join("admin.sock");
    let config = "[server]\nstate_dir = \"state\"\n[admin]\naddress = \"unix:admin.sock\"\n";
    let mut gate = setup
        .file("tidegate.toml", format!("{config}{}", hello()))
        .try_start_file("tidegate.toml")
        .unwrap_or_else(|(_, words)| panic!("{words}"));
    assert!(gate.ask("status").unwrap().contains("generation 1"));
    assert_eq!(gate.ask("reload").unwrap(), "generation 2\n");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it is for its owner alone");
    gate.signal(Signal::TERM);
    assert_eq!(gate.exit_status().code(), Some(0));
    assert!(!socket.exists(), "it is cleared away");
}

#[test]
fn a_second_term_cuts_what_the_first_one_waits_for() {
    let never = Gate::new();
    let origin = Origin::always(Reply::new(200).chunk("begun").wait(&never).last_chunk(&[]));
    let mut gate = Tidegate::start(&front(&origin, ""));
    let mut client = gate.client();
    client.send(Request::get("/").bytes());
    assert_eq!(client.head().0, 200);
    assert_eq!(client.chunk(), "begun");
    gate.signal(Signal::TERM);
    gate.wait_words("stopping");
    gate.signal(Signal::TERM);
    gate.exit_status();
    client.expect_close();
    never.open();
}

#[test]
fn an_address_is_served_by_one_instance() {
    let gate = Tidegate::start(&hello());
    let taken = gate.listener("http").to_string();
    let Err((status, words)) = Setup::new().try_start(&hello().replace("127.0.0.1:0", &taken)) else {
        panic!("two instances share {taken}")
    };
    assert_eq!(status.code(), Some(1));
    assert!(words.contains(&taken) && words.contains("in use"), "{words}");
}

/// The user id a process runs with, from `/proc`.
fn user_of(process: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("a line of user ids");
    line.split_whitespace().nth(1).and_then(|effective| effective.parse().ok()).expect("a number")
}

/// Starts as "nobody", in a folder with these permissions.
fn start_as_nobody(folder: u32) -> Tidegate {
    let setup = Setup::new();
    std::fs::set_permissions(setup.path(), PermissionsExt::from_mode(folder)).unwrap();
    let state = setup.path().join("state");
    let process = format!("[server]\nuser = \"nobody\"\nstate_dir = {state:?}\n[admin]\naddress = \"127.0.0.1:0\"\n");
    let setup = setup.file("tidegate.toml", process + &hello());
    setup.try_start_file("tidegate.toml").unwrap_or_else(|(_, words)| panic!("{words}"))
}

#[test]
fn root_becomes_the_named_user_and_can_still_reload() {
    let gate = start_as_nobody(0o755);
    if rustix::process::geteuid().is_root() {
        assert_ne!(user_of(gate.id()), 0);
    } else {
        gate.wait_words("server.user is ignored");
    }
    gate.reload(|text| text.replace("hello", "hello again"));
    assert_eq!(gate.get("/").expect(200).text(), "hello again");
}

#[test]
fn folders_that_cannot_be_watched_are_polled() {
    // Only an ordinary user can be kept from watching a folder: reading it is forbidden, passing through it is not. The
    // tests of `snapshot::watch` see the rest.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let gate = start_as_nobody(0o711);
    gate.wait_words("cannot watch");
    gate.wait_status("polling", |status| (status["watch"] == "poll").then_some(()));
    gate.reload(|text| text.replace("hello", "hello again"));
    assert_eq!(gate.get("/").expect(200).text(), "hello again");
}

#[test]
fn a_reload_changes_tls_limits_and_the_log_level() {
    let pki = Pki::new();
    let site = pki.server(&["shop.example"]);
    let large = "x".repeat(4000);
    let origin = Origin::always(Reply::new(200).field("Cache-Control", "max-age=60").chunk(&large).last_chunk(&[]));
    let text = front(&origin, "cache = \"pages\"") + "[cache.pages]\nmax_object = \"2KiB\"\n";
    let gate = Setup::new().file("site.pem", &site.cert).file("site.key", &site.key).start(&text);
    let address = gate.listener("http");
    let long = Request::get("/").field("X-Long", &"v".repeat(4000));
    gate.client().ask(&long).expect(200);

    gate.reload(|text| text.replace(PLAIN, &format!("{PLAIN}limits = {{ header_bytes = \"2KiB\" }}\n")));
    assert_eq!(gate.client().ask(&long).status, 431);

    gate.reload(|text| text.replace("[log]", "[log]\nlevel = \"debug\""));
    gate.get("/unkept").expect(200);
    gate.wait_words("a response was not kept");

    let tls = format!("{PLAIN}tls = {{ certificates = [{{ cert = \"site.pem\", key = \"site.key\" }}] }}\n");
    gate.reload(|text| text.replace(PLAIN, &tls));
    assert_eq!(gate.listener("http"), address, "it was not bound again");
    Client::connect_tls(address, &pki.trusting(&[]), "shop.example").unwrap().get("/").expect(200);
    gate.reload(|text| text.replace(&tls, PLAIN));
    gate.get("/").expect(200);
}

#[test]
fn local_replies_are_the_operators_pages_or_small_ones_of_our_own() {
    let setup = Setup::new().file("pages/lost.html", "<h1>Lost</h1>").file("pages/busy.json", "{\"busy\":true}");
    let errors = "[errors]\n404 = \"pages/lost.html\"\n503 = \"pages/busy.json\"\n";
    let route = "[[pool]]\nname = \"down\"\nendpoints = [{ address = \"127.0.0.1:1\", state = \"down\" }]\n\
                 [[route]]\npath = \"/down/\"\npool = \"down\"\n[[route]]\npath = \"/dead/\"\npool = \"dead\"\n\
                 [[pool]]\nname = \"dead\"\nendpoints = [{ address = \"127.0.0.1:1\" }]\n";
    let gate = setup.start(&format!("{errors}{PLAIN}{route}"));
    let ask = |target: &str, accept: &str| {
        let answer = gate.client().ask(&Request::get(target).field("Accept", accept));
        (answer.status, answer.field("content-type").unwrap_or_default().to_owned(), answer.text())
    };
    let html = "text/html; charset=utf-8";
    assert_eq!(ask("/", "*/*"), (404, html.to_owned(), "<h1>Lost</h1>".to_owned()));
    assert_eq!(ask("/down/", "*/*"), (503, "application/json".to_owned(), "{\"busy\":true}".to_owned()));
    let (status, kind, body) = ask("/dead/", "text/html,*/*");
    assert_eq!((status, kind.as_str()), (502, html));
    assert!(body.contains("502 Bad Gateway"), "{body}");
    let (status, kind, body) = ask("/dead/", "application/json");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, kind.as_str(), &body["status"]), (502, "application/json", &502.into()));
    // An edited page is live like any other file.
    let before = gate.generation();
    gate.write("pages/lost.html", "<h1>Still lost</h1>");
    gate.wait_generation(before + 1);
    assert_eq!(ask("/", "*/*").2, "<h1>Still lost</h1>");
}

#[test]
fn the_access_log_may_be_a_template() {
    let gate = Tidegate::start(&hello());
    gate.reload(|text| {
        text.replace("format = \"json\"", "format = \"{{{client}}} {status} {req.x-a} {res.content-type} end\"")
    });
    gate.client().ask(&Request::get("/").field("X-A", "b c")).expect(200);
    assert_eq!(gate.access_lines(1)[0], "{127.0.0.1} 200 b c text/plain; charset=utf-8 end");
}
