//! `tidegate explain`: what it says is what happens, and asking changes nothing.

use serde_json::{Value, json};

use crate::support::client::{HOST, Request};
use crate::support::gate::{Gate, poll};
use crate::support::origin::{Origin, Reply};
use crate::support::tidegate::{PLAIN, Tidegate, pool};

/// Two pages of each kind under one policy, a route without a cache, one that answers by itself.
fn farm(origin: &Origin) -> Tidegate {
    let keys = "ttl = \"60s\"\nstale_if_unreachable = \"0s\"\nstrip_cookies = [\"theme\"]\nkey = { tracking = true, cookies = [\"lang\"] }\n\
                bypass = [{ path = \"/account/\" }]\n";
    let routes = "[[route]]\nname = \"plain\"\npath = \"/plain/\"\npool = \"web\"\n\
                  [[route]]\nname = \"own\"\npath = \"/own\"\nrespond = { status = 200, body = \"own\" }\n\
                  [[route]]\nname = \"pages\"\npool = \"web\"\ncache = \"pages\"\ncompress = \"all\"\n";
    let policies = format!("[cache.pages]\n{keys}[compress.all]\n");
    Tidegate::start(&format!("{PLAIN}{}{routes}{policies}", pool("web", &[origin], "")))
}

/// What each kind of page says: the first segment of its path names it.
fn page(target: &str) -> Reply {
    let reply = Reply::new(200).field("Content-Type", "text/html").field("Cache-Tag", "a b");
    let body = "tide ".repeat(1000);
    match target.split('/').nth(1).unwrap_or_default() {
        "stale" => reply.field("Cache-Control", "max-age=60").field("Age", "90").field("ETag", "\"s\"").body(body),
        "granted" => {
            let control = "max-age=60, stale-while-revalidate=1000";
            reply.field("Cache-Control", control).field("Age", "90").field("ETag", "\"s\"").body(body)
        }
        "never" => reply.field("Cache-Control", "private").body(body),
        "vary" => reply.field("Cache-Control", "max-age=60").field("Vary", "X-Kind").body(body),
        _ => reply.field("Cache-Control", "max-age=60").field("ETag", "\"e\"").body(body),
    }
}

fn explain(gate: &Tidegate, request: &Request) -> Value {
    let fields = request.fields.iter().map(|(name, value)| format!(" -H {name}:{value}")).collect::<String>();
    let Request { method, target, host, .. } = request;
    let told = gate.tell(&format!("explain http://{host}{target} -X {method}{fields} --json")).unwrap();
    serde_json::from_str(&told).unwrap()
}

#[test]
fn what_is_said_is_what_happens() {
    let origin = Origin::start(|seen| page(&seen.target));
    let gate = farm(&origin);
    for warm in ["/fresh/a", "/stale/a", "/granted/a", "/never/a"] {
        gate.get(warm).expect(200);
    }
    gate.client().ask(&Request::get("/vary/a").field("X-Kind", "1")).expect(200);
    let get = Request::get;
    for (request, next, cache_status) in [
        (get("/fresh/a"), "hit", "hit; ttl"),
        (get("/fresh/a?utm_source=x").field("Cookie", "theme=dark"), "hit", "hit; ttl"),
        (get("/fresh/a").field("Cookie", "lang=de"), "fetch", "fwd=uri-miss"),
        (get("/fresh/a").field("Cache-Control", "no-cache"), "validate", "fwd=request"),
        (Request::new("HEAD", "/fresh/a"), "hit", "hit; ttl"),
        (Request::new("HEAD", "/fresh/head"), "forward_alone", "fwd=uri-miss; detail=head"),
        (get("/fresh/b"), "fetch", "fwd=uri-miss"),
        (get("/stale/a").field("Cache-Control", "max-stale=1000"), "hit_stale", "detail=max_stale"),
        (get("/stale/a"), "validate", "fwd=stale"),
        (get("/granted/a"), "hit_stale_and_refresh", "detail=stale_while_revalidate"),
        (get("/never/a"), "forward_alone", "fwd=uri-miss; detail=private"),
        (get("/vary/a").field("X-Kind", "1"), "hit", "hit; ttl"),
        (get("/vary/a").field("X-Kind", "2"), "fetch", "fwd=vary-miss"),
        (get("/nowhere").field("Cache-Control", "only-if-cached"), "only_if_cached", "detail=only_if_cached"),
        (get("/part").field("Range", "bytes=0-1"), "forward_part", "fwd=uri-miss; detail=range"),
        (get("/account/x"), "bypass", "fwd=bypass; detail=bypass_path"),
        (Request::new("POST", "/fresh/a"), "bypass", "fwd=method"),
    ] {
        let told = explain(&gate, &request);
        assert_eq!(told["next"], next, "{request:?}: {told:#}");
        let answer = gate.client().ask(&request);
        let happened = answer.field("cache-status").unwrap();
        assert!(happened.contains(cache_status), "{request:?}: {happened}");
        let fwd = told["cache"]["fwd"].as_str().map(|fwd| format!("fwd={fwd}"));
        assert!(fwd.is_none_or(|fwd| happened.contains(&fwd)), "{request:?}: {happened}: {told:#}");
    }
}

#[test]
fn asking_changes_nothing() {
    let origin = Origin::start(|seen| page(&seen.target));
    let gate = farm(&origin);
    for warm in ["/fresh/a", "/granted/a", "/never/a"] {
        gate.get(warm).expect(200);
    }
    let counted = || {
        let metrics = gate.metrics();
        let counts = |line: &&str| line.starts_with("tidegate_requests") || line.starts_with("tidegate_cache");
        metrics.lines().filter(counts).map(str::to_owned).collect::<Vec<_>>()
    };
    // An exchange is counted when its last byte is out.
    poll("three exchanges", || counted().iter().any(|line| line.ends_with("cache=\"miss\"} 3")).then_some(()));
    let before = counted();
    for target in ["/fresh/a", "/granted/a", "/never/a", "/new", "/account/x"] {
        let (first, second) = (explain(&gate, &Request::get(target)), explain(&gate, &Request::get(target)));
        assert_eq!(first["cache"]["stored"][0]["hits"], second["cache"]["stored"][0]["hits"], "{second:#}");
        assert_eq!(first["next"], second["next"], "{second:#}");
    }
    assert_eq!(counted(), before);
    assert_eq!(origin.requests(), 3);
}

#[test]
fn what_is_stored_is_shown() {
    let origin = Origin::start(|seen| page(&seen.target));
    let gate = farm(&origin);
    let coded = Request::get("/vary/a").field("X-Kind", "1").field("Accept-Encoding", "gzip");
    gate.client().ask(&coded).expect(200);
    // Its coding is kept once the second answer comes from there.
    gate.client().ask(&coded).expect(200);
    gate.tell("purge http://a.example/nothing").unwrap();
    let told = explain(&gate, &Request::get("/vary/a").field("X-Kind", "1"));
    let stored = &told["cache"]["stored"][0];
    for (name, expected) in [
        ("selected", json!(true)),
        ("status", json!(200)),
        ("state", json!("fresh")),
        ("lifetime", json!(60)),
        ("lifetime_by", json!("max_age")),
        ("tags", json!(["a", "b"])),
        ("vary", json!([{ "name": "x-kind", "value": "1" }])),
        ("body", json!(5000)),
        ("in_file", json!(false)),
        ("hits", json!(1)),
        ("content_type", json!("text/html")),
    ] {
        assert_eq!(stored[name], expected, "{name}: {told:#}");
    }
    assert_eq!(stored["children"][0]["coding"], "gzip", "{told:#}");
    assert!(stored["bytes"].as_u64() > Some(5000), "{told:#}");
    assert_eq!(told["cache"]["key"], format!("http://{HOST}/vary/a cache=pages cookie:lang"), "{told:#}");
    assert_eq!(told["cache"]["would_store"], json!({ "stored": true, "reason": "max_age" }));
    assert_eq!(told["pools"], json!(["web"]));
    assert_eq!(told["routing"]["route"], "pages");

    // The same answer to somebody with credentials would not be stored.
    let login = Request::get("/vary/a").field("X-Kind", "1").field("Authorization", "x");
    assert_eq!(explain(&gate, &login)["cache"]["would_store"]["reason"], "authorization");

    gate.tell(&format!("purge http://{HOST}/vary/a --soft")).unwrap();
    let told = explain(&gate, &Request::get("/vary/a").field("X-Kind", "1"));
    assert_eq!(told["cache"]["stored"][0]["state"], "purged");
    assert_eq!((&told["next"], &told["cache"]["reason"]), (&json!("validate"), &json!("purged")));

    gate.get("/never/a").expect(200);
    let told = explain(&gate, &Request::get("/never/a"));
    assert_eq!(told["cache"]["refusal"]["reason"], "private");
    assert!(told["cache"]["refusal"]["alone_for"].as_u64() > Some(0), "{told:#}");
}

#[test]
fn a_fetch_that_is_under_way_is_joined() {
    let held = Gate::new();
    let release = held.clone();
    let origin = Origin::start(move |seen| page(&seen.target).hold(&held));
    let gate = farm(&origin);
    let mut client = gate.client();
    client.send(Request::get("/fresh/a").bytes());
    origin.wait_requests(1);
    let told = explain(&gate, &Request::get("/fresh/a"));
    assert_eq!((&told["cache"]["joins"], &told["cache"]["fetches"]), (&json!(true), &json!(1)), "{told:#}");
    let told = explain(&gate, &Request::get("/fresh/b"));
    assert_eq!((&told["cache"]["joins"], &told["cache"]["fetches"]), (&json!(false), &json!(0)), "{told:#}");
    release.open();
    client.answer("GET").unwrap().expect(200);
}

#[test]
fn people_read_it_too() {
    let origin = Origin::start(|seen| page(&seen.target));
    let gate = farm(&origin);
    gate.get("/fresh/a").expect(200);
    let words = gate.tell(&format!("explain http://{HOST}/fresh/a")).unwrap();
    for part in [
        "route     pages\n",
        "\nnext      hit\n",
        "\nstored    1 under this key\n* 200 fresh, ",
        " of 60 s by max_age, 0 hits\n",
        "\n    tags      a b\n",
        "an answer like the stored one would be stored, its lifetime by max_age\n",
    ] {
        assert!(words.contains(part), "{part:?}: {words}");
    }
    for (target, next) in [("/plain/a", "forward"), ("/own", "respond")] {
        let words = gate.tell(&format!("explain http://{HOST}{target}")).unwrap();
        assert!(words.ends_with(&format!("\nnext      {next}\n")), "{words}");
    }
    let words = gate.tell("explain https://x.example/").unwrap_err();
    assert!(words.contains("no listener serves https"), "{words}");
    let words = gate.tell("explain http://x.example/ --listener nothing").unwrap_err();
    assert!(words.contains("there is no listener"), "{words}");
}

#[test]
fn what_clients_identify_themselves_by_is_not_shown() {
    let reply = Reply::new(200).field("Cache-Control", "public, max-age=60").field("Vary", "Cookie, Authorization");
    let origin = Origin::always(reply.body("a"));
    let gate = farm(&origin);
    let request = Request::get("/a").field("Cookie", "session=5ec4e7").field("Authorization", "Bearer:5ec4e7");
    gate.client().ask(&request).expect(200);
    let told = explain(&gate, &Request::get("/a"));
    assert_eq!(told["cache"]["stored"].as_array().map(Vec::len), Some(1), "{told:#}");
    let vary = &told["cache"]["stored"][0]["vary"];
    let shown =
        json!([{ "name": "authorization", "value": "(13 bytes)" }, { "name": "cookie", "value": "(14 bytes)" }]);
    assert_eq!(vary, &shown);
}
