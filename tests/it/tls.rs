//! TLS on both sides: which certificate, which protocol, who may resume, who must show a certificate.

use std::sync::Arc;

use rustls::{ClientConfig, ProtocolVersion};

use crate::support::client::{Client, Request};
use crate::support::gate::poll;
use crate::support::h2;
use crate::support::origin::{Origin, Reply};
use crate::support::pki::{Issued, Pki, Wishes};
use crate::support::tidegate::{PLAIN, Setup, Tidegate, front, pool};

const HTTP1: &[&str] = &["http/1.1"];

impl Setup {
    /// Files `NAME.pem` and `NAME.key`.
    fn certificate(self, name: &str, issued: &Issued) -> Self {
        self.file(&format!("{name}.pem"), &issued.cert).file(&format!("{name}.key"), &issued.key)
    }
}

/// A listener named "https" with these certificates, in front of one origin.
fn https(origin: &Origin, certificates: &[&str], more: &str) -> String {
    let pairs: Vec<String> =
        certificates.iter().map(|name| format!("{{ cert = \"{name}.pem\", key = \"{name}.key\" }}")).collect();
    let tls = format!("tls = {{ certificates = [{}]{more} }}\n", pairs.join(", "));
    front(origin, "") + "[[listener]]\nname = \"https\"\naddress = \"127.0.0.1:0\"\n" + &tls
}

fn connect(gate: &Tidegate, config: &Arc<ClientConfig>, name: &str) -> Result<Client, std::io::Error> {
    Client::connect_tls(gate.listener("https"), config, name)
}

/// One GET over TLS; `None` when handshake or exchange fails, as a refused client certificate does in TLS 1.3.
fn get(gate: &Tidegate, config: &Arc<ClientConfig>, name: &str) -> Option<(u16, bool)> {
    let mut client = connect(gate, config, name).ok()?;
    client.send_in_vain(Request::get("/").host(name).bytes());
    let status = client.answer("GET")?.status;
    Some((status, client.resumed()))
}

#[test]
fn a_certificate_without_names_serves_with_a_warning() {
    let nameless = Pki::new().server(&[]);
    let tls = format!(
        "{}tls = {{ certificates = [{{ cert = \"site.pem\", key = \"site.key\" }}] }}\n[[route]]\nrespond = {{ status = 200 }}\n",
        PLAIN
    );
    let gate = Setup::new().file("site.pem", &nameless.cert).file("site.key", &nameless.key).start(&tls);
    gate.wait_words("certificate stands for no name");
    assert!(gate.ask("check").is_ok(), "it is a warning");
}

#[test]
fn the_name_chooses_the_certificate() {
    let pki = Pki::new();
    let exact = pki.server(&["shop.example"]);
    let wild = pki.server(&["*.shop.example"]);
    let default = pki.server(&["default.example", "127.0.0.1"]);
    let origin = Origin::always(Reply::ok("x"));
    let setup = Setup::new().certificate("default", &default).certificate("exact", &exact).certificate("wild", &wild);
    let gate = setup.start(&https(&origin, &["default", "exact", "wild"], ""));
    let table = [
        ("shop.example", &exact),
        ("SHOP.example", &exact),
        ("a.shop.example", &wild),
        ("default.example", &default),
        // An address is no server name: the client sends none.
        ("127.0.0.1", &default),
    ];
    for (name, expected) in table {
        let client = connect(&gate, &pki.trusting(HTTP1), name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let shown = client.session().peer_certificates().unwrap();
        assert_eq!(shown[0], expected.chain()[0], "{name}");
    }
    // A name nobody has gets the default certificate, which the client then refuses.
    assert!(connect(&gate, &pki.trusting(HTTP1), "stranger.example").is_err());
}

#[test]
fn strict_sni_shows_nothing_to_strangers() {
    let pki = Pki::new();
    let origin = Origin::always(Reply::ok("x"));
    let setup = Setup::new().certificate("site", &pki.server(&["shop.example", "127.0.0.1"]));
    let gate = setup.start(&https(&origin, &["site"], ", strict_sni = true"));
    assert_eq!(get(&gate, &pki.trusting(HTTP1), "shop.example"), Some((200, false)));
    assert!(connect(&gate, &pki.trusting(HTTP1), "127.0.0.1").is_err(), "no name, no certificate");
}

#[test]
fn one_name_may_have_an_ecdsa_and_an_rsa_certificate() {
    let pki = Pki::new();
    let (ecdsa, rsa) = (pki.server(&["shop.example"]), pki.rsa(&["shop.example"]));
    let origin = Origin::always(Reply::ok("x"));
    let setup = Setup::new().certificate("rsa", &rsa).certificate("ecdsa", &ecdsa);
    let gate = setup.start(&https(&origin, &["rsa", "ecdsa"], ""));
    let only_rsa = pki.wishing(&Wishes { rsa_only: true, ..Wishes::default() });
    for (config, expected) in [(pki.trusting(HTTP1), &ecdsa), (only_rsa, &rsa)] {
        let client = connect(&gate, &config, "shop.example").expect("a handshake");
        assert_eq!(client.session().peer_certificates().unwrap()[0], expected.chain()[0]);
    }
}

#[test]
fn protocol_and_version_are_negotiated() {
    let pki = Pki::new();
    let origin = Origin::always(Reply::ok("x"));
    let text = https(&origin, &["site"], "");
    let gate = Setup::new().certificate("site", &pki.server(&["shop.example"])).start(&text);
    for (offered, expected) in [(&["h2", "http/1.1"][..], Some("h2")), (HTTP1, Some("http/1.1")), (&[], None)] {
        let client = connect(&gate, &pki.trusting(offered), "shop.example").expect("a handshake");
        assert_eq!(client.session().alpn_protocol(), expected.map(str::as_bytes), "{offered:?}");
        assert_eq!(client.session().protocol_version(), Some(ProtocolVersion::TLSv1_3));
    }
    let answer = h2::Client::connect_tls(gate.listener("https"), &pki.trusting(&["h2"]), "shop.example").get("/");
    assert_eq!(answer.expect(200).text(), "x");
    assert_eq!(origin.only().field("x-forwarded-proto"), Some("https"));

    let old = pki.wishing(&Wishes { tls12_only: true, ..Wishes::default() });
    assert_eq!(get(&gate, &old, "shop.example"), Some((200, false)), "TLS 1.2 is spoken by default");
    gate.reload(|text| text.replace("key = \"site.key\" }]", "key = \"site.key\" }], min_version = \"1.3\""));
    assert_eq!(get(&gate, &pki.wishing(&Wishes { tls12_only: true, ..Wishes::default() }), "shop.example"), None);
}

#[test]
fn a_session_is_resumed_across_a_reload_unless_what_it_vouches_for_changed() {
    let pki = Pki::new();
    let origin = Origin::always(Reply::ok("x"));
    let setup = Setup::new()
        .certificate("site", &pki.server(&["shop.example"]))
        .certificate("other", &pki.server(&["shop.example"]))
        .file("ca.pem", pki.ca());
    let gate = setup.start(&https(&origin, &["site"], ""));
    for tls12_only in [false, true] {
        let config = pki.wishing(&Wishes { tls12_only, ..Wishes::default() });
        assert_eq!(get(&gate, &config, "shop.example"), Some((200, false)));
        assert_eq!(get(&gate, &config, "shop.example"), Some((200, true)));
        gate.reload(|text| text + &format!("[[route]]\npath = \"/{tls12_only}/\"\nrespond = {{ status = 204 }}\n"));
        assert_eq!(get(&gate, &config, "shop.example"), Some((200, true)), "the keys outlive a reload");
        gate.reload(|text| text.replace("\"site.", "\"other."));
        assert_eq!(get(&gate, &config, "shop.example"), Some((200, false)), "another certificate voids tickets");
        gate.reload(|text| text.replace("\"other.", "\"site."));
    }
    // From plain to mutual: what was resumed without a certificate must now show one.
    let (plain, shown) = (pki.trusting(HTTP1), pki.client("client.example"));
    let mutual = pki.wishing(&Wishes { shown: Some(&shown), ..Wishes::default() });
    for config in [&plain, &mutual] {
        assert_eq!(get(&gate, config, "shop.example"), Some((200, false)));
        assert_eq!(get(&gate, config, "shop.example"), Some((200, true)));
    }
    let demand = "key = \"site.key\" }], client_auth = { ca = \"ca.pem\", mode = \"require\" }";
    gate.reload(|text| text.replace("key = \"site.key\" }]", demand));
    assert_eq!(get(&gate, &plain, "shop.example"), None, "no certificate, no service");
    assert_eq!(get(&gate, &mutual, "shop.example"), Some((200, false)), "the old ticket is void");
    assert_eq!(get(&gate, &mutual, "shop.example"), Some((200, true)), "the new one is not");
}

#[test]
fn clients_show_certificates_where_they_must() {
    let pki = Pki::new();
    let known = pki.client("known.example");
    let unknown = Pki::new().client("unknown.example");
    let origin = Origin::always(Reply::ok("x"));
    // What a client may do: without a certificate, with one of ours, with one of somebody else's.
    for (mode, expected) in [("request", [true, true, false]), ("require", [false, true, false])] {
        let setup = Setup::new().certificate("site", &pki.server(&["shop.example"])).file("ca.pem", pki.ca());
        let more = format!(", client_auth = {{ ca = \"ca.pem\", mode = \"{mode}\" }}");
        let gate = setup.start(&https(&origin, &["site"], &more));
        for (shown, served) in [None, Some(&known), Some(&unknown)].into_iter().zip(expected) {
            let config = pki.wishing(&Wishes { shown, ..Wishes::default() });
            let answer = get(&gate, &config, "shop.example").map(|(status, _)| status);
            assert_eq!(answer, served.then_some(200), "{mode}, {:?}", shown.map(|s| &s.cert));
        }
    }
}

#[test]
fn a_host_outside_the_scope_of_client_authentication_is_misdirected() {
    let pki = Pki::new();
    let origin = Origin::always(Reply::ok("x"));
    let setup = Setup::new()
        .certificate("site", &pki.server(&["shop.example"]))
        .certificate("other", &pki.server(&["other.example"]))
        .file("ca.pem", pki.ca());
    let more = ", client_auth = { ca = \"ca.pem\", mode = \"request\" }";
    let gate = setup.start(&https(&origin, &["site", "other"], more));
    let mut client = connect(&gate, &pki.trusting(HTTP1), "shop.example").expect("a handshake");
    assert_eq!(client.ask(&Request::get("/").host("other.example")).status, 421);
    assert_eq!(client.ask(&Request::get("/").host("shop.example")).status, 200);
}

#[test]
fn a_bad_certificate_is_a_fault_of_the_configuration() {
    let pki = Pki::new();
    let good = pki.server(&["shop.example"]);
    let table = [
        ("another's key", good.with_key_of(&pki.server(&["shop.example"]))),
        ("expired", pki.expired(&["shop.example"])),
        ("no PEM", Issued { cert: "nothing".into(), key: good.key.clone() }),
        ("no key", Issued { cert: good.cert.clone(), key: "nothing".into() }),
    ];
    let origin = Origin::always(Reply::ok("x"));
    for (what, bad) in &table {
        let setup = Setup::new().certificate("site", bad);
        let Err((status, words)) = setup.try_start(&https(&origin, &["site"], "")) else {
            panic!("{what}: it started")
        };
        assert_eq!(status.code(), Some(1), "{what}: {words}");
        assert!(words.contains("tidegate.toml:"), "{what}: the fault has a place: {words}");
    }
    // On a running server the old certificate stays.
    let gate = Setup::new().certificate("site", &good).start(&https(&origin, &["site"], ""));
    gate.write("site.pem", &table[1].1.cert);
    gate.wait_status("the fault", |status| (status["last_reload"]["ok"] == false).then_some(()));
    assert_eq!(get(&gate, &pki.trusting(HTTP1), "shop.example"), Some((200, false)));
}

#[test]
fn self_signed_certificates_are_made_once() {
    let origin = Origin::always(Reply::ok("x"));
    let tls = "[[listener]]\nname = \"https\"\naddress = \"127.0.0.1:0\"\ntls = { self_signed = [\"shop.example\"] }\n";
    let gate = Tidegate::start(&(front(&origin, "") + tls));
    // Nobody vouches for it, so a careful client refuses.
    assert!(connect(&gate, &Pki::new().trusting(HTTP1), "shop.example").is_err());
    assert!(gate.path("state").read_dir().expect("a state folder").next().is_some(), "it is kept");
}

#[test]
fn a_redirecting_listener_points_at_https() {
    let origin = Origin::always(Reply::ok("x"));
    for (to, expected) in [
        ("8443", "https://shop.example:8443/a?b=c"),
        ("443", "https://shop.example/a?b=c"),
        ("\"https://www.example/base\"", "https://www.example/base/a?b=c"),
    ] {
        let redirecting = "[[listener]]\nname = \"redirect\"\naddress = \"127.0.0.1:0\"\n";
        let gate = Tidegate::start(&(front(&origin, "") + redirecting + &format!("redirect_to_https = {to}\n")));
        let ask = Request::get("/a?b=c").host("shop.example:8080");
        let answer = Client::connect(gate.listener("redirect")).ask(&ask);
        assert_eq!((answer.status, answer.field("location")), (308, Some(expected)));
    }
    assert_eq!(origin.requests(), 0);
}

#[test]
fn proxy_protocol_is_read_from_trusted_sources_only() {
    let origin = Origin::always(Reply::ok("x"));
    let v1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 4242 80\r\n".to_vec();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend([192, 0, 2, 7, 192, 0, 2, 1, 0x10, 0x92, 0, 80]);
    for (trusted, served) in [("127.0.0.0/8", true), ("10.0.0.0/8", false)] {
        let listener = format!("{PLAIN}proxy_protocol = {{ trusted = [\"{trusted}\"] }}\n");
        let gate = Tidegate::start(&front(&origin, "").replace(PLAIN, &listener));
        for header in [&v1, &v2] {
            let before = origin.requests();
            let mut client = gate.client();
            client.send_in_vain([header.as_slice(), &Request::get("/").bytes()].concat());
            let answer = client.answer("GET").map(|answer| answer.status);
            assert_eq!(answer == Some(200), served, "{trusted}: {answer:?}");
            assert_eq!(origin.requests() - before, usize::from(served));
            if served {
                assert_eq!(origin.seen()[before].field("x-forwarded-for"), Some("192.0.2.7"));
            }
        }
        // Whoever is trusted must say who it speaks for; others must not need to.
        let mut client = gate.client();
        client.send_in_vain(Request::get("/").bytes());
        let answer = client.answer("GET").map(|answer| answer.status);
        assert_eq!(answer == Some(200), !served, "{trusted}, no header: {answer:?}");
    }
}

#[test]
fn the_certificate_shown_to_origins_is_replaced_with_its_files() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let demanding = Origin::tls(pki.origin(&pki.server(&["farm.example"]), true), |_| Reply::ok("x"));
    let client = "client = { cert = \"gate.pem\", key = \"gate.key\" }";
    let tls = format!("tls = {{ ca = \"ca.pem\", server_name = \"farm.example\", {client} }}");
    let [good, bad, better] = [pki.client("one"), stranger.client("two"), pki.client("three")];
    let setup = Setup::new().file("ca.pem", pki.ca()).certificate("gate", &good);
    let web = pool("web", &[&demanding], &tls);
    let gate = setup.start(&format!("{PLAIN}{web}[[route]]\npool = \"web\"\n"));
    gate.get("/").expect(200);
    for (certificate, status) in [(&bad, 502), (&better, 200)] {
        let before = demanding.connections();
        gate.write("gate.key", &certificate.key);
        gate.write("gate.pem", &certificate.cert);
        // Connections that were opened with the old one serve nobody any more.
        poll("the new certificate to be shown", || {
            let answer = gate.get("/");
            (answer.status == status && demanding.connections() > before).then_some(())
        });
        for _ in 0..4 {
            gate.get("/").expect(status);
        }
    }
    gate.expect_idle();
}

#[test]
fn who_does_not_verify_is_told_so_everywhere() {
    let pki = Pki::new();
    let origin = Origin::tls(pki.origin(&pki.server(&["farm.example"]), false), |_| Reply::ok("x"));
    let [open, sure] = ["open", "sure"].map(|name| {
        let tls = if name == "open" { "insecure = true" } else { "ca = \"ca.pem\"" };
        pool(name, &[&origin], &format!("tls = {{ {tls} }}"))
    });
    let routes = "[[route]]\npool = \"open\"\n[[route]]\npath = \"/sure\"\npool = \"sure\"\n";
    let gate = Setup::new().file("ca.pem", pki.ca()).start(&format!("{PLAIN}{open}{sure}{routes}"));
    gate.get("/").expect(200);
    gate.wait_words("insecure = true: origin certificates are not verified");
    let status = gate.status();
    let shown: Vec<_> = status["pools"].as_array().unwrap().iter().map(|pool| &pool["insecure"]).collect();
    assert_eq!(shown, [true, false]);
    let metrics = gate.metrics();
    assert!(metrics.contains("tidegate_pool_insecure{pool=\"open\"} 1"), "{metrics}");
    assert!(!metrics.contains("tidegate_pool_insecure{pool=\"sure\"} 1"), "{metrics}");
    let words = gate.tell("status").expect("a status");
    let said: Vec<_> = words.lines().filter(|line| line.contains("NOT verified")).collect();
    assert!(said.len() == 1 && said[0].contains("pool open"), "{words}");
}

#[test]
fn origins_are_verified() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let own = pki.client("gate.example");
    let site = pki.server(&["farm.example"]);
    let open = Origin::tls(pki.origin(&site, false), |_| Reply::ok("open"));
    let demanding = Origin::tls(pki.origin(&site, true), |_| Reply::ok("demanding"));
    let named = "server_name = \"farm.example\"";
    let client = "client = { cert = \"gate.pem\", key = \"gate.key\" }";
    let table = [
        (&open, format!("ca = \"ca.pem\", {named}"), 200),
        (&open, format!("ca = \"stranger.pem\", {named}"), 502),
        (&open, "ca = \"ca.pem\", server_name = \"other.example\"".to_owned(), 502),
        (&open, named.to_owned(), 502),
        (&open, "insecure = true".to_owned(), 200),
        (&demanding, format!("ca = \"ca.pem\", {named}"), 502),
        (&demanding, format!("ca = \"ca.pem\", {named}, {client}"), 200),
    ];
    for (origin, keys, expected) in table {
        let setup = Setup::new().file("ca.pem", pki.ca()).file("stranger.pem", stranger.ca()).certificate("gate", &own);
        let web = pool("web", &[origin], &format!("tls = {{ {keys} }}"));
        let gate = setup.start(&format!("{PLAIN}{web}[[route]]\npool = \"web\"\n"));
        let answer = gate.get("/");
        assert_eq!(answer.status, expected, "{keys}: {:?}", answer.fields);
        if expected == 502 && std::ptr::eq(origin, &open) {
            let status = answer.field("proxy-status").unwrap_or_default().to_owned();
            assert!(status.contains("tls_certificate_error"), "{keys}: {status}");
        }
    }
}
