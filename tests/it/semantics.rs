//! RFC 9110: what an intermediary adds, removes, refuses and leaves alone.

use crate::support::client::{Client, Request};
use crate::support::origin::{End, Origin, Reply};
use crate::support::tidegate::{PLAIN, Tidegate, front, pool};

#[test]
fn announces_itself_in_via_and_names_the_client() {
    let origin = Origin::always(Reply::new(200).field("Via", "1.1 farm").body("x"));
    let gate = Tidegate::start(&front(&origin, ""));
    let answer = gate.get("/").expect(200);
    let via = answer.fields.all("via").join(", ");
    assert!(via.starts_with("1.1 farm, 1.1 "), "{via}");
    let seen = origin.only();
    assert!(seen.field("via").is_some_and(|via| via.starts_with("1.1 ")), "{:?}", seen.fields);
    let port = gate.listener("http").port().to_string();
    let expected = [("For", "127.0.0.1"), ("Proto", "http"), ("Host", "shop.example"), ("Port", port.as_str())];
    for (what, value) in expected {
        assert_eq!(seen.field(&format!("x-forwarded-{what}")), Some(value), "{what}");
    }
    assert!(seen.fields.has("x-request-id"));
}

const SPOOFED: [(&str, &str); 5] = [
    ("X-Forwarded-For", "6.6.6.6"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Port", "666"),
    ("Forwarded", "for=6.6.6.6"),
];

#[test]
fn forwarding_fields_of_strangers_are_dropped() {
    let origin = Origin::always(Reply::ok("x"));
    let gate = Tidegate::start(&front(&origin, ""));
    let ask = SPOOFED.iter().fold(Request::get("/"), |ask, (name, value)| ask.field(name, value));
    gate.client().ask(&ask).expect(200);
    let seen = origin.only();
    for (name, value) in SPOOFED {
        assert!(!seen.fields.all(name).iter().any(|v| v.contains(value)), "{name}: {:?}", seen.fields.all(name));
    }
}

#[test]
fn forwarding_fields_of_trusted_proxies_are_kept() {
    let origin = Origin::always(Reply::ok("x"));
    let trusting = format!("{PLAIN}trusted_proxies = [\"127.0.0.0/8\"]\n");
    let gate = Tidegate::start(&front(&origin, "").replace(PLAIN, &trusting));
    gate.client().ask(&Request::get("/").field("X-Forwarded-For", "9.9.9.9").field("X-Forwarded-Proto", "https"));
    let seen = origin.only();
    assert_eq!(seen.fields.all("x-forwarded-for").join(", "), "9.9.9.9, 127.0.0.1");
    assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
}

#[test]
fn hop_by_hop_fields_stay_on_their_hop() {
    let reply = Reply::new(200)
        .field("Connection", "X-Mine")
        .field("X-Mine", "1")
        .field("Keep-Alive", "timeout=5")
        .field("X-Kept", "2")
        .field("Set-Cookie", "a=1")
        .field("Set-Cookie", "b=2");
    let origin = Origin::always(reply.body("x"));
    let gate = Tidegate::start(&front(&origin, ""));
    let ask = Request::get("/")
        .field("Connection", "keep-alive, X-Gone")
        .field("X-Gone", "1")
        .field("Keep-Alive", "300")
        .field("Proxy-Connection", "keep-alive")
        .field("TE", "gzip")
        .field("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .field("X-Kept", "2");
    let answer = gate.client().ask(&ask).expect(200);
    let seen = origin.only();
    for name in ["x-gone", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(!seen.fields.has(name), "{name} went to the origin");
    }
    assert!(seen.field("traceparent").is_some_and(|id| id.contains("4bf92f3577b34da6a3ce929d0e0e4736")));
    assert_eq!(seen.field("x-kept"), Some("2"));
    for name in ["x-mine", "keep-alive"] {
        assert!(!answer.fields.has(name), "{name} came from the origin");
    }
    assert_eq!(answer.field("x-kept"), Some("2"));
    assert_eq!(answer.fields.all("set-cookie"), ["a=1", "b=2"]);
}

#[test]
fn h2c_upgrades_are_ignored_and_not_forwarded() {
    let origin = Origin::always(Reply::ok("plain"));
    let gate = Tidegate::start(&front(&origin, ""));
    let ask = Request::get("/")
        .field("Connection", "Upgrade, HTTP2-Settings")
        .field("Upgrade", "h2c")
        .field("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA");
    assert_eq!(gate.client().ask(&ask).expect(200).text(), "plain");
    let seen = origin.only();
    assert!(!seen.fields.has("upgrade") && !seen.fields.has("http2-settings"), "{:?}", seen.fields);
}

#[test]
fn connect_and_trace_are_refused() {
    let origin = Origin::always(Reply::ok("x"));
    let gate = Tidegate::start(&front(&origin, ""));
    for line in ["CONNECT shop.example:443 HTTP/1.1", "TRACE / HTTP/1.1"] {
        let mut client = gate.client();
        client.send(format!("{line}\r\nHost: shop.example:443\r\n\r\n"));
        assert_eq!(client.answer("GET").expect("an answer").status, 405, "{line}");
    }
    assert_eq!(origin.requests(), 0);
}

#[test]
fn a_loop_is_found() {
    let origin = Origin::always(Reply::ok("x"));
    let gate = Tidegate::start(&front(&origin, ""));
    let own = gate.listener("http").to_string();
    gate.reload(|text| text.replace(&origin.address().to_string(), &own));
    let answer = gate.get("/");
    assert_eq!(answer.status, 508);
    assert!(answer.field("proxy-status").is_some_and(|s| s.contains("proxy_loop_detected")), "{:?}", answer.fields);
}

#[test]
fn targets_are_normalised_once() {
    let origin = Origin::always(Reply::ok("x"));
    let gate = Tidegate::start(&front(&origin, ""));
    let table = [
        ("/a/./b/../c", "/a/c"),
        ("//a///b", "/a/b"),
        ("/%7Euser/%41", "/~user/A"),
        ("/a%2fb", "/a%2Fb"),
        ("/a/%2e%2E/b", "/b"),
        ("/../../x", "/x"),
        ("/a?q=//../%7E", "/a?q=//../~"),
        ("/a?off=100%&q=%7E", "/a?off=100%&q=%7E"),
        ("http://shop.example/x", "/x"),
    ];
    let mut client = gate.client();
    for (asked, _) in table {
        client.get(asked).expect(200);
    }
    let seen: Vec<String> = origin.seen().into_iter().map(|seen| seen.target).collect();
    let expected: Vec<&str> = table.iter().map(|(_, expected)| *expected).collect();
    assert_eq!(seen, expected);
}

#[test]
fn the_origin_sees_the_host_its_pool_says() {
    let origin = Origin::always(Reply::ok("x"));
    let address = origin.address().to_string();
    let table =
        [("", "shop.example"), ("host = \"endpoint\"", address.as_str()), ("host = \"in.example\"", "in.example")];
    for (n, (key, expected)) in table.into_iter().enumerate() {
        let route = "[[route]]\npool = \"web\"\n";
        let gate = Tidegate::start(&format!("{PLAIN}{}{route}", pool("web", &[&origin], key)));
        gate.get("/").expect(200);
        assert_eq!(origin.seen()[n].field("host"), Some(expected), "{key}");
    }
}

#[test]
fn one_host_has_one_spelling_behind_the_gate() {
    let origin = Origin::always(Reply::ok("x"));
    let gate = Tidegate::start(&front(&origin, ""));
    let table = [
        ("shop.example", "shop.example"),
        ("SHOP.Example.", "shop.example"),
        ("shop.example:", "shop.example"),
        ("shop.example:80", "shop.example"),
        ("shop.example:08080", "shop.example:8080"),
        ("[::0:1]", "[::1]"),
    ];
    let mut client = gate.client();
    for (sent, _) in table {
        client.send(format!("GET / HTTP/1.1\r\nHost: {sent}\r\n\r\n"));
        client.answer("GET").expect("an answer").expect(200);
    }
    client.send("GET / HTTP/1.0\r\n\r\n");
    client.answer("GET").expect("an answer").expect(200);
    let seen = origin.seen();
    let fields = |name| seen.iter().map(|seen| seen.field(name).unwrap_or("none")).collect::<Vec<_>>();
    let mut expected: Vec<&str> = table.iter().map(|(_, expected)| *expected).collect();
    let address = origin.address().to_string();
    assert_eq!(fields("x-forwarded-host"), [expected.as_slice(), &["none"]].concat());
    expected.push(&address);
    assert_eq!(fields("host"), expected);
}

#[test]
fn a_kept_connection_that_the_origin_closed_is_replaced_silently() {
    // Each connection serves one request and dies on the second without a byte.
    let origin = Origin::start(|seen| match seen.turn {
        0 => Reply::ok("fresh"),
        _ => Reply::raw("").end(End::Close),
    });
    let gate = Tidegate::start(&front(&origin, ""));
    let mut client = gate.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").expect(200).text(), "fresh");
    }
}

#[test]
fn routes_edit_redirect_and_answer_themselves() {
    let origin = Origin::always(Reply::new(200).field("Server", "secret/1.0").body("x"));
    let config = format!(
        r#"{PLAIN}{}
[[route]]
path = "/static/"
pool = "web"
request = {{ strip_prefix = "/static", add_prefix = "/v2", set = {{ X-Env = "prod" }}, remove = ["X-Debug"] }}
response = {{ set = {{ X-Frame-Options = "DENY" }}, remove = ["Server"] }}
[[route]]
path = "/old/"
redirect = {{ to = "https://new.example$uri", status = 308 }}
[[route]]
path = "= /closed"
respond = {{ status = 503, body = "closed today" }}
[[route]]
path = "/beta/"
when = [{{ header = "X-Beta", equals = "1" }}]
respond = {{ status = 200, body = "beta" }}
"#,
        pool("web", &[&origin], "")
    );
    let gate = Tidegate::start(&config);
    let mut client: Client = gate.client();
    let answer = client.ask(&Request::get("/static/a.css").field("X-Debug", "1")).expect(200);
    assert_eq!((answer.field("server"), answer.field("x-frame-options")), (None, Some("DENY")));
    let seen = origin.only();
    assert_eq!((seen.target.as_str(), seen.field("x-env"), seen.field("x-debug")), ("/v2/a.css", Some("prod"), None));
    let answer = client.get("/old/page?q=1").expect(308);
    assert_eq!(answer.field("location"), Some("https://new.example/old/page?q=1"));
    assert_eq!(client.get("/closed").expect(503).text(), "closed today");
    assert_eq!(client.ask(&Request::get("/beta/x").field("X-Beta", "1")).expect(200).text(), "beta");
    assert_eq!(client.get("/beta/x").status, 404);
    assert_eq!(client.get("/staticx").status, 404);
}
