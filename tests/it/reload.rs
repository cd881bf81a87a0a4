//! Edits of a running configuration: live at once, whole or not at all, and nothing open is lost.

use rustix::process::Signal;

use crate::support::client::{Client, Request};
use crate::support::origin::{Origin, Reply};
use crate::support::pki::Pki;
use crate::support::tidegate::{PLAIN, Setup, Tidegate, front, pool};

/// A route that answers by itself, so that a generation can be told from outside.
fn says(word: &str) -> String {
    format!("{PLAIN}[[route]]\nrespond = {{ status = 200, body = \"{word}\" }}\n")
}

#[test]
fn every_way_of_saving_is_seen() {
    let gate = Tidegate::start(&says("one"));
    let mut client = gate.client();
    assert_eq!(client.get("/").expect(200).text(), "one");
    let first = gate.generation();

    gate.edit(|text| text.replace("one", "two"));
    gate.wait_generation(first + 1);
    assert_eq!(client.get("/").expect(200).text(), "two", "written in place");

    gate.edit_by_rename(|text| text.replace("two", "three"));
    gate.wait_generation(first + 2);
    assert_eq!(client.get("/").expect(200).text(), "three", "renamed over");

    gate.edit_by_rename(|text| text.replace("three", "four"));
    gate.signal(Signal::HUP);
    gate.wait_generation(first + 3);
    assert_eq!(client.get("/").expect(200).text(), "four", "on SIGHUP");
}

#[test]
fn included_files_come_and_go() {
    let route =
        |word: &str| format!("[[route]]\npath = \"/{word}/\"\nrespond = {{ status = 200, body = \"{word}\" }}\n");
    let gate = Setup::new().file("conf.d/a.toml", route("a")).start(&says("main"));
    let mut client = gate.client();
    assert_eq!(client.get("/a/").text(), "a");
    let first = gate.generation();
    gate.write("conf.d/b.toml", route("b"));
    gate.wait_generation(first + 1);
    assert_eq!(client.get("/b/").text(), "b");
    std::fs::remove_file(gate.path("conf.d/a.toml")).unwrap();
    gate.wait_generation(first + 2);
    assert_eq!((client.get("/a/").text(), client.get("/b/").text()), ("main".into(), "b".into()));
}

#[test]
fn a_swapped_symlink_is_seen() {
    // As Kubernetes publishes a ConfigMap: conf.d/pools.toml -> ..data/pools.toml, and ..data is swapped.
    let route = |word: &str| format!("[[route]]\npath = \"/x/\"\nrespond = {{ status = 200, body = \"{word}\" }}\n");
    let setup = Setup::new().file("conf.d/..1/x.toml", route("one")).file("conf.d/..2/x.toml", route("two"));
    std::os::unix::fs::symlink("..1", setup.path().join("conf.d/..data")).unwrap();
    std::os::unix::fs::symlink("..data/x.toml", setup.path().join("conf.d/x.toml")).unwrap();
    let gate = setup.start(&says("main"));
    assert_eq!(gate.get("/x/").text(), "one");
    let first = gate.generation();
    std::os::unix::fs::symlink("..2", gate.path("conf.d/..data_tmp")).unwrap();
    std::fs::rename(gate.path("conf.d/..data_tmp"), gate.path("conf.d/..data")).unwrap();
    gate.wait_generation(first + 1);
    assert_eq!(gate.get("/x/").text(), "two");
}

#[test]
fn a_bad_edit_changes_nothing_and_says_all_that_is_wrong() {
    let origin = Origin::always(Reply::ok("x"));
    let gate = Tidegate::start(&front(&origin, ""));
    let before = gate.generation();
    gate.edit(|text| text + "colour = \"red\"\n[[route]]\npool = \"nowhere\"\n");
    let errors = gate.wait_status("the fault", |status| {
        let reload = &status["last_reload"];
        (reload["ok"] == false).then(|| reload["errors"].as_array().cloned().unwrap_or_default())
    });
    for part in ["colour", "nowhere"] {
        let of_it =
            |fault: &&serde_json::Value| fault["message"].as_str().is_some_and(|message| message.contains(part));
        let fault = errors.iter().find(of_it).unwrap_or_else(|| panic!("{part}: {errors:?}"));
        assert!(fault["file"].as_str().is_some_and(|file| file.ends_with("tidegate.toml")), "{fault}");
        assert!(fault["line"].as_u64() > Some(1), "{fault}");
    }
    gate.wait_words("nowhere");
    assert_eq!((gate.generation(), gate.get("/").status), (before, 200));
    gate.reload(|text| {
        text.replace("colour = \"red\"\n[[route]]\npool = \"nowhere\"\n", "[[route]]\npath = \"/x/\"\npool = \"web\"\n")
    });
    gate.wait_status("the mended file", |status| (status["last_reload"]["ok"] == true).then_some(()));
}

#[test]
fn an_edit_that_says_the_same_makes_no_generation() {
    let gate = Tidegate::start(&says("one"));
    let before = gate.generation();
    gate.edit(|text| text);
    // What comes after it is seen, so it was too.
    gate.edit(|text| text.replace("one", "two"));
    gate.wait_generation(before + 1);
    assert_eq!(gate.generation(), before + 1);
}

#[test]
fn listeners_come_and_go_without_the_others_noticing() {
    let gate = Tidegate::start(&says("x"));
    let mut open = gate.client();
    open.get("/").expect(200);
    let address = gate.listener("http");
    let second = "[[listener]]\nname = \"second\"\naddress = \"127.0.0.1:0\"\n";
    gate.reload(|text| format!("{text}{second}"));
    let added = gate.listener("second");
    Client::connect(added).get("/").expect(200);
    open.get("/").expect(200);
    gate.reload(|text| text.replace(second, ""));
    crate::support::gate::poll("the listener to close", || std::net::TcpStream::connect(added).err());
    open.get("/").expect(200);
    assert_eq!(gate.listener("http"), address, "it was not bound again");
    gate.get("/").expect(200);
}

#[test]
fn what_is_open_stays_open() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/ws" => Reply::upgrade("websocket"),
        _ => Reply::ok("x"),
    });
    let gate = Tidegate::start(&front(&origin, ""));
    let mut socket = gate.client();
    socket.send(Request::get("/ws").field("Connection", "Upgrade").field("Upgrade", "websocket").bytes());
    assert_eq!(socket.head().0, 101);
    let mut kept = gate.client();
    kept.get("/").expect(200);
    let requests = gate.endpoint(&origin)["requests"].as_u64().expect("a counter");
    let other = Origin::always(Reply::ok("y"));
    gate.reload(|text| text + &pool("other", &[&other], "") + "[[route]]\npath = \"/other/\"\npool = \"other\"\n");
    socket.send("still here");
    assert_eq!(socket.read(10), b"still here");
    assert_eq!(kept.get("/other/").expect(200).text(), "y", "a connection follows the new routes");
    assert_eq!(gate.endpoint(&origin)["requests"].as_u64(), Some(requests), "counters of the unchanged go on");
    assert_eq!(gate.endpoint(&origin)["in_flight"], 1);
}

#[test]
fn certificates_are_swapped() {
    let pki = Pki::new();
    let (old, new) = (pki.server(&["shop.example"]), pki.server(&["shop.example"]));
    let tls = "[[listener]]\nname = \"https\"\naddress = \"127.0.0.1:0\"\n\
               tls = { certificates = [{ cert = \"site.pem\", key = \"site.key\" }] }\n";
    let gate = Setup::new().file("site.pem", &old.cert).file("site.key", &old.key).start(&(says("x") + tls));
    let shown = || {
        let client = Client::connect_tls(gate.listener("https"), &pki.trusting(&[]), "shop.example").unwrap();
        client.session().peer_certificates().unwrap()[0].clone()
    };
    assert_eq!(shown(), old.chain()[0]);
    let before = gate.generation();
    // Between the two writes the pair does not match: a fault that passes, never a moment without a certificate.
    gate.write("site.pem", &new.cert);
    gate.write("site.key", &new.key);
    gate.wait_generation(before + 1);
    assert_eq!(shown(), new.chain()[0]);
}
