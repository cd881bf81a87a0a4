//! Filters that change no body: tags of our own, `immutable`, early hints.

use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::digest::{SHA256, digest};

use crate::support::client::{Answer, Request};
use crate::support::gate::poll;
use crate::support::h2;
use crate::support::origin::{Origin, Reply};
use crate::support::tidegate::{Tidegate, front};

const MODIFIED: &str = "Mon, 02 Jan 2023 10:00:00 GMT";

fn safe(origin: &Origin, more: &str) -> Tidegate {
    let keys = "rewrite = \"safe\"\ncache = \"pages\"\ncompress = \"all\"\n";
    let policies =
        "[cache.pages]\nbypass = [{ header = \"X-Fresh\" }]\n[compress.all]\n[rewrite.safe]\nlevel = \"safe\"\n";
    Tidegate::start(&(front(origin, keys) + policies + more))
}

fn ask(gate: &Tidegate, target: &str, fields: &[(&str, &str)]) -> Answer {
    let request = Request::get(target).field("Accept-Encoding", "identity");
    gate.client().ask(&fields.iter().fold(request, |request, (name, value)| request.field(name, value)))
}

fn script() -> String {
    (0..200).map(|n| format!("    /* {n} */ var a{n} = [ {n} , \"{n}\" ] ;\n")).collect()
}

/// Asks until an answer has a tag, and returns that.
fn tag(gate: &Tidegate, target: &str) -> String {
    poll("a tag", || ask(gate, target, &[]).expect(200).field("etag").map(str::to_owned))
}

#[test]
fn stored_answers_without_a_tag_get_a_strong_one() {
    let edition = AtomicUsize::new(0);
    let origin = Origin::start(move |seen| {
        let reply = Reply::new(200).field("Content-Type", "text/plain").field("Last-Modified", MODIFIED);
        match seen.target.as_str() {
            "/tagged" => reply.field("Cache-Control", "max-age=600").field("ETag", "\"v1\"").body("text"),
            _ => {
                let text = format!("text {}", edition.fetch_add(1, Ordering::Relaxed) / 2);
                reply.field("Cache-Control", "max-age=600").body(text.repeat(400))
            }
        }
    });
    let gate = safe(&origin, "");
    assert_eq!(ask(&gate, "/a", &[]).expect(200).field("etag"), None, "who fetches it cannot wait for its end");
    let own = tag(&gate, "/a");
    assert!(own.starts_with("\"tg.") && own.len() == 2 + 3 + 32, "{own}");
    assert_eq!(ask(&gate, "/a", &[("If-None-Match", &own)]).expect(304).field("etag"), Some(own.as_str()));
    assert_eq!(ask(&gate, "/a", &[("If-None-Match", "\"tg.0\"")]).status, 200);
    let part = ask(&gate, "/a", &[("Range", "bytes=2-5"), ("If-Range", &own)]).expect(206);
    assert_eq!((part.text().as_str(), part.field("etag")), ("xt 0", Some(own.as_str())));
    let coded = ask(&gate, "/a", &[("Accept-Encoding", "gzip")]).expect(200);
    let derived = format!("{}--gzip", own.trim_end_matches('"'));
    assert!(coded.field("etag").is_some_and(|tag| tag.starts_with(&derived)), "{:?}", coded.field("etag"));
    // The same bytes have the same name, others another.
    let mut names = vec![own.clone()];
    for _ in 0..2 {
        gate.tell("purge --all").unwrap();
        names.push(tag(&gate, "/a"));
    }
    assert_eq!((&names[1], names[2] == own), (&own, false), "{names:?}");
    // What is asked for later is studied later.
    ask(&gate, "/tagged", &[]);
    ask(&gate, "/tagged", &[]);
    tag(&gate, "/b");
    assert_eq!(tag(&gate, "/tagged"), "\"v1\"", "an origin's own tag stays");
    // No origin has ever seen our tag.
    ask(&gate, "/a", &[("X-Fresh", "1"), ("If-None-Match", &format!("{own}, \"v0\""))]);
    assert_eq!(origin.seen().pop().unwrap().field("if-none-match"), Some("\"v0\""));
}

#[test]
fn an_altered_copy_without_a_tag_has_no_date_either() {
    let reply = Reply::new(200).field("Content-Type", "text/javascript").field("Cache-Control", "max-age=600");
    let origin = Origin::always(reply.field("Last-Modified", MODIFIED).body(script()));
    let gate = safe(&origin, "forbid = [\"etag-own\"]\n");
    let small = poll("an altered copy", || {
        Some(ask(&gate, "/a.js", &[]).expect(200)).filter(|answer| answer.body.len() < script().len())
    });
    assert_eq!((small.field("etag"), small.field("last-modified")), (None, None));
    // The original may stay: it means the same.
    ask(&gate, "/b.js", &[]).expect(200);
    assert_eq!(ask(&gate, "/b.js", &[("If-Modified-Since", MODIFIED)]).status, 304);
}

#[test]
fn a_name_that_is_a_digest_makes_a_file_immutable() {
    let name: String =
        digest(&SHA256, script().as_bytes()).as_ref().iter().take(6).map(|b| format!("{b:02x}")).collect();
    let cached = |life: &str| {
        let reply = Reply::new(200).field("Content-Type", "text/javascript");
        reply.field("Cache-Control", life).body(script())
    };
    let origin = Origin::start(move |seen| match seen.target.as_str() {
        target if target.starts_with("/short") => cached("max-age=3600"),
        _ => cached("public, max-age=86400"),
    });
    let gate = safe(&origin, "");
    let life = |target: &str| -> Vec<String> {
        let answer = ask(&gate, target, &[]).expect(200);
        answer.fields.all("cache-control").iter().map(|value| (*value).to_owned()).collect()
    };
    let marked = format!("/app.{name}.js");
    poll("the mark", || (life(&marked) == ["public, max-age=86400", "immutable"]).then_some(()));
    let confirmed = ask(&gate, &marked, &[("If-None-Match", &tag(&gate, &marked))]).expect(304);
    assert_eq!(confirmed.fields.all("cache-control").len(), 2, "a 304 says the same");
    // One fetch does not make another name credible.
    life("/app.0123456789ab.js");
    life("/app.0123456789ab.js");
    gate.wait_status("the study", |status| {
        let outcomes = status["workshop"]["outcomes"].as_array()?;
        outcomes.iter().find(|made| made["filter"] == "immutable" && made["outcome"] == "not_yet").map(|_| ())
    });
    assert_eq!(life("/app.0123456789ab.js"), ["public, max-age=86400"]);
    let short = format!("/short.{name}.js");
    life(&short);
    tag(&gate, &short);
    assert_eq!(life(&short), ["max-age=3600"], "no life is lengthened, and a short one is not meant to stay");
}

#[test]
fn browsers_that_wait_for_the_farm_are_told_what_the_page_named_before() {
    let page = "<!doctype html><head><link rel=stylesheet href=/a.css><script src=b.js></script>\
                <script src=//cdn.example/c.js></script></head><body><script src=late.js></script>";
    let broken = "<!doctype html><title>Oops</title>";
    let origin = Origin::start(move |seen| {
        let html = |status: u16| Reply::new(status).field("Content-Type", "text/html");
        match (seen.target.as_str(), seen.fields.has("x-break")) {
            ("/kept", _) => html(200).field("Cache-Control", "max-age=600").body(page),
            ("/private", _) => html(200).field("Cache-Control", "private").body(page),
            (_, true) => html(500).body(broken),
            _ => html(200).body(page),
        }
    });
    let gate = safe(&origin, "");
    let mut client = h2::Client::connect(gate.listener("http"));
    let navigation = |target: &str| Request::get(target).field("Sec-Fetch-Mode", "navigate");
    let link = "</a.css>; rel=preload; as=style, <b.js>; rel=preload; as=script";
    for target in ["/page", "/kept"] {
        for _ in 0..5 {
            assert_eq!(client.ask(&navigation(target)).expect(200).interim, [], "{target}");
            gate.tell("purge --all").unwrap();
        }
        let answer = client.ask(&navigation(target)).expect(200);
        let [(103, fields)] = answer.interim.as_slice() else { panic!("one hint: {:?}", answer.interim) };
        assert_eq!(fields.get("link"), Some(link), "{target}");
    }
    assert_eq!(client.ask(&navigation("/kept")).expect(200).interim, [], "a hit waits for nobody");
    assert_eq!(client.ask(&Request::get("/page")).expect(200).interim, [], "no navigation");
    assert_eq!(gate.client().ask(&navigation("/page")).expect(200).interim, [], "HTTP/1.1");
    for _ in 0..6 {
        assert_eq!(client.ask(&navigation("/private")).expect(200).interim, [], "one person's page teaches nobody");
    }
    assert_eq!(client.ask(&navigation("/page").field("X-Break", "1")).status, 500);
    assert_eq!(client.ask(&navigation("/page")).expect(200).interim, [], "forgotten");
}

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// An order to do without these filters, for the host that the tests ask for.
fn order(names: &str, key: &str) -> String {
    use aws_lc_rs::hmac;
    let seconds = tidegate::clock::Clock::System.now().unix_seconds() + 600;
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let signature = hmac::sign(&key, format!("{}:{seconds}:{names}", crate::support::client::HOST).as_bytes());
    let signature: String = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{seconds}:{names}:{signature}")
}

#[test]
fn who_has_the_key_sees_what_each_filter_does_and_the_answer_without_it() {
    let origin = Origin::table(vec![
        (
            "/a.js",
            Reply::new(200)
                .field("Content-Type", "text/javascript")
                .field("Cache-Control", "max-age=600")
                .body(script()),
        ),
        (
            "/",
            Reply::new(200).field("Content-Type", "text/html").field("Cache-Control", "max-age=600").body("<p>a</p>"),
        ),
    ]);
    let rules = "debug = { key_file = \"key\" }\n[[rewrite.safe.element]]\nselect = \"p\"\nset = { id = \"b\" }\n";
    let keys = "rewrite = \"safe\"\ncache = \"pages\"\n";
    let text = front(&origin, keys) + "[cache.pages]\n[rewrite.safe]\nlevel = \"safe\"\n" + rules;
    let gate = crate::support::tidegate::Setup::new().file("key", KEY).start(&text);
    let altered = poll("an altered copy", || {
        Some(ask(&gate, "/a.js", &[])).filter(|answer| answer.field("etag").is_some_and(|tag| tag.contains("--id0.1")))
    });
    assert_eq!(altered.field("accel-status"), None, "nobody has asked");
    let with = |target: &str, names: &str| ask(&gate, target, &[("Accel-Debug", &order(names, KEY))]).expect(200);
    let seen = with("/a.js", "");
    assert_eq!(
        seen.field("accel-status"),
        Some(
            "js-ws; done, etag-own; done, immutable; skip=name, hints-preload; skip=not_of_use, dict; skip=plain, \
             rules; skip=not_html"
        )
    );
    assert_eq!((seen.body == altered.body, seen.field("cache-control")), (true, Some("max-age=600")));
    let without = with("/a.js", "js-ws+etag-own");
    assert_eq!(
        (without.text(), without.field("etag"), without.field("cache-control")),
        (script(), None, Some("no-store"))
    );
    assert!(without.field("accel-status").is_some_and(|told| told.starts_with("js-ws; off, ")), "{without:?}");
    assert_eq!(ask(&gate, "/a.js", &[]).body, altered.body, "others have theirs as before");
    // The element rules.
    assert_eq!(ask(&gate, "/", &[]).text(), "<p id=\"b\">a</p>");
    let before = origin.requests();
    assert_eq!(with("/", "rules").text(), "<p>a</p>");
    assert_eq!(origin.requests() - before, 1, "what is stored has been through them");
    assert!(with("/", "").field("accel-status").is_some_and(|told| told.ends_with("rules; done")));
    assert_eq!(ask(&gate, "/", &[]).text(), "<p id=\"b\">a</p>");
    // Neither a wrong signature nor another's host counts, and the farm never sees the field.
    for wrong in [order("*", "another key"), order("*", KEY).replacen(':', ":js-ws+", 1), "x".to_owned()] {
        let answer = ask(&gate, "/a.js", &[("Accel-Debug", &wrong)]).expect(200);
        assert_eq!((answer.body == altered.body, answer.field("accel-status")), (true, None), "{wrong}");
    }
    assert!(origin.seen().iter().all(|seen| !seen.fields.has("accel-debug")));
}
