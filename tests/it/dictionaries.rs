//! Compression dictionaries (RFC 9842): a client that has an earlier version of a file gets what differs, and nobody else
//! does. What is sent is undone by decoders that are not ours; `tests/dictionaries/run` has a browser do it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::ClientConfig;

use crate::support::client::{Answer, Client, Request};
use crate::support::gate::poll;
use crate::support::origin::{Origin, Reply};
use crate::support::pki::Pki;
use crate::support::tidegate::{Setup, Tidegate, pool};

const SITE: &str = "site.example";
const POLICY: &str =
    "[rewrite.pages]\nlevel = \"safe\"\nforbid = [\"js-ws\", \"etag-own\", \"immutable\", \"hints-preload\"]\n";

/// A Tidegate with a listener for TLS, and what a client needs to trust it.
struct Site {
    gate: Tidegate,
    trust: Arc<ClientConfig>,
}

impl Site {
    fn start(origin: &Origin, policy: &str, cache: &str) -> Self {
        let pki = Pki::new();
        let own = pki.server(&[SITE]);
        let listeners = "[[listener]]\nname = \"https\"\naddress = \"127.0.0.1:0\"\n\
            tls = { certificates = [{ cert = \"site.pem\", key = \"site.key\" }] }\n\
            [[listener]]\nname = \"http\"\naddress = \"127.0.0.1:0\"\n";
        let route =
            "[[route]]\nname = \"all\"\npool = \"web\"\nrewrite = \"pages\"\ncache = \"files\"\ncompress = \"all\"\n";
        let text = format!(
            "{listeners}{}{route}{policy}[cache.files]\n{cache}\n[compress.all]\ncodings = [\"br\", \"gzip\"]\n",
            pool("web", &[origin], "")
        );
        let gate = Setup::new().file("site.pem", &own.cert).file("site.key", &own.key).start(&text);
        Self { gate, trust: pki.trusting(&["http/1.1"]) }
    }

    fn ask(&self, request: &Request) -> Answer {
        Client::connect_tls(self.gate.listener("https"), &self.trust, SITE).unwrap().ask(request)
    }

    fn get(&self, target: &str) -> Answer {
        self.ask(&Request::get(target).host(SITE).field("Accept-Encoding", "gzip, br")).expect(200)
    }

    /// As a browser asks that has `dictionary`.
    fn get_with(&self, target: &str, dictionary: &[u8], codings: &str) -> Answer {
        self.ask(&offering(target, dictionary, codings)).expect(200)
    }

    /// Waits until so many versions are kept.
    fn kept(&self, versions: u64) {
        self.gate.wait_status("dictionaries", |status| {
            (status["store"]["dictionaries"]["versions"].as_u64() == Some(versions)).then_some(())
        });
    }

    /// How many requests that offered a dictionary came to this.
    fn outcome(&self, outcome: &str) -> u64 {
        let name = format!("tidegate_dictionary_requests_total{{outcome=\"{outcome}\"}} ");
        let metrics = self.gate.metrics();
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_default()
    }
}

fn offering(target: &str, dictionary: &[u8], codings: &str) -> Request {
    let digest = digest(&SHA256, dictionary);
    let offered = format!(":{}:", base64(digest.as_ref()));
    Request::get(target).host(SITE).field("Accept-Encoding", codings).field("Available-Dictionary", &offered)
}

/// The lines of `Vary`.
fn vary(answer: &Answer) -> String {
    answer.fields.all("vary").join(", ")
}

fn base64(bytes: &[u8]) -> String {
    String::from_utf8(tidegate::policy::base64::encode(bytes)).unwrap()
}

/// The version of a script with this number: versions differ in a few lines, those from 100 on in very many.
fn script(version: usize) -> String {
    let every = if version < 100 { 40 } else { 2 };
    let line = |n: usize| {
        let changed = if n.is_multiple_of(every) { version.wrapping_mul(n) } else { 0 };
        let number = n.wrapping_mul(2_654_435_761) ^ changed;
        let remark = n.wrapping_mul(2_246_822_519) % 65_521;
        format!("    // remark {remark:x}\n    export function f{n}(a, b) {{ return a * {number} + b; }}\n")
    };
    (0..600).map(line).collect()
}

fn cached(body: impl AsRef<[u8]>) -> Reply {
    let head = Reply::new(200).field("Content-Type", "text/javascript").field("Cache-Control", "max-age=600");
    head.field("ETag", "\"v1\"").body(body)
}

/// `/app.0000000N.js` is version N.
fn versions() -> Origin {
    Origin::start(|seen| {
        let number = seen.target.split('.').nth(1).and_then(|version| version.parse().ok());
        cached(script(number.unwrap_or_default()))
    })
}

fn file(version: usize) -> String {
    format!("/app.{version:08}.js")
}

/// What a client with `dictionary` makes of an answer, by zstd and brotli themselves.
fn undone(answer: &Answer, dictionary: &[u8]) -> Vec<u8> {
    let digest = digest(&SHA256, dictionary);
    let mut plain = Vec::with_capacity(4 << 20);
    match answer.field("content-encoding") {
        Some("dcz") => {
            let stream = answer.body.strip_prefix(b"\x5e\x2a\x4d\x18\x20\0\0\0").expect("the head of dcz");
            let frame = stream.strip_prefix(digest.as_ref()).expect("the dictionary's digest");
            let mut decoder = zstd_safe::DCtx::create();
            decoder.ref_prefix(dictionary).unwrap();
            decoder.decompress(&mut plain, frame).map_err(zstd_safe::get_error_name).unwrap();
        }
        Some("dcb") => {
            let stream = answer.body.strip_prefix(b"\xffDCB").expect("the head of dcb");
            let stream = stream.strip_prefix(digest.as_ref()).expect("the dictionary's digest");
            let (mut input, mut output) = ([0; 4096], [0; 4096]);
            let dictionary = dictionary.to_vec();
            brotli_decompressor::BrotliDecompressCustomDict(
                &mut &*stream,
                &mut plain,
                &mut input,
                &mut output,
                dictionary,
            )
            .unwrap();
        }
        other => panic!("no delta: {other:?}"),
    }
    plain
}

const BROWSER: &str = "gzip, deflate, br, zstd, dcb, dcz";

#[test]
fn who_has_the_former_version_gets_what_differs() {
    let origin = versions();
    let site = Site::start(&origin, POLICY, "");
    let first = site.get(&file(1));
    assert_eq!(first.field("use-as-dictionary"), Some("match=\"/app.*.js\", match-dest=(\"script\")"));
    assert_eq!(vary(&first), "Accept-Encoding, Available-Dictionary", "whatever it got");
    site.kept(1);
    site.get(&file(2));
    for (codings, coding) in [(BROWSER, "dcz"), ("gzip, dcb", "dcb")] {
        let delta = site.get_with(&file(2), script(1).as_bytes(), codings);
        assert_eq!(delta.field("content-encoding"), Some(coding));
        assert_eq!(undone(&delta, script(1).as_bytes()), script(2).into_bytes(), "{coding}");
        assert!(delta.body.len() < 500, "{coding}: {}", delta.body.len());
        assert_eq!(delta.field("content-length"), Some(delta.body.len().to_string().as_str()));
        assert_eq!(delta.field("use-as-dictionary"), first.field("use-as-dictionary"), "it is the next dictionary");
        assert_eq!(vary(&delta), vary(&first));
        let short = base16(&digest(&SHA256, script(1).as_bytes()).as_ref()[..8]);
        let level = if coding == "dcz" { 3 } else { 5 };
        let tag = format!("\"v1--{coding}{level}.0.{short}\"");
        assert_eq!(delta.field("etag"), Some(tag.as_str()));
        let again = offering(&file(2), script(1).as_bytes(), codings).field("If-None-Match", &tag);
        assert_eq!(site.ask(&again).status, 304);
        let head = Request::new("HEAD", &file(2)).host(SITE).field("Accept-Encoding", codings);
        let offered = format!(":{}:", base64(digest(&SHA256, script(1).as_bytes()).as_ref()));
        let head = site.ask(&head.field("Available-Dictionary", &offered)).expect(200);
        assert_eq!(vary(&head), vary(&delta));
        for name in ["etag", "content-length", "content-encoding"] {
            assert_eq!(head.field(name), delta.field(name), "{name}");
        }
    }
    let plain = site.get(&file(2));
    assert_eq!(plain.field("content-encoding"), Some("br"), "everybody else gets what they got before");
    assert_eq!(origin.requests(), 2);
    assert_eq!((site.outcome("dcz"), site.outcome("dcb")), (2, 2));
    let lines = site.gate.access_log(8);
    assert!(lines.iter().any(|line| line["dictionary"] == "dcz"), "{lines:?}");
    assert!(lines.iter().any(|line| line["dictionary"].is_null()));
}

fn base16(bytes: &[u8]) -> String {
    let number = bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{number:x}")
}

#[test]
fn a_delta_in_demand_is_made_anew_at_its_strongest_level() {
    let origin = versions();
    let site = Site::start(&origin, POLICY, "");
    site.get(&file(1));
    site.kept(1);
    site.get(&file(100));
    for (codings, strong) in [("dcz", "--dcz19.0."), ("dcb", "--dcb11.0.")] {
        let fast = site.get_with(&file(100), script(1).as_bytes(), codings);
        let made = poll("the strongest delta", || {
            let answer = site.get_with(&file(100), script(1).as_bytes(), codings);
            Some(answer).filter(|answer| answer.field("etag").is_some_and(|tag| tag.contains(strong)))
        });
        assert_eq!(undone(&made, script(1).as_bytes()), script(100).into_bytes());
        assert!(made.body.len() + 128 <= fast.body.len(), "{} {}", made.body.len(), fast.body.len());
    }
}

#[test]
fn who_must_not_or_cannot_have_a_delta_gets_an_ordinary_coding() {
    let origin = versions();
    let site = Site::start(&origin, POLICY, "");
    site.get(&file(1));
    site.kept(1);
    site.get(&file(2));
    let old = script(1);
    let offer = |codings: &str| offering(&file(2), old.as_bytes(), codings);
    let foreign = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")];
    for (request, coding, outcome) in [
        (offering(&file(2), b"never seen", BROWSER), Some("br"), "unknown"),
        (offer("gzip, br"), Some("br"), "not_accepted"),
        (offer("br, dcz;q=0.5"), Some("br"), "not_accepted"),
        (offer("*"), Some("br"), "not_accepted"),
        (
            foreign.iter().fold(offer(BROWSER), |request, (name, value)| request.field(name, value)),
            Some("br"),
            "foreign",
        ),
        (offer(BROWSER).field("Range", "bytes=0-99"), None, "range"),
    ] {
        let answer = site.ask(&request);
        assert_eq!(answer.field("content-encoding"), coding, "{outcome}");
        assert!(site.outcome(outcome) > 0, "{outcome}");
    }
    // The same file on another host, and another file on this one, are none of its versions.
    site.ask(&Request::get(&file(2)).host("other.example"));
    let other_host = offering(&file(2), old.as_bytes(), BROWSER).host("other.example");
    let before = site.outcome("unknown");
    assert_ne!(site.ask(&other_host).field("content-encoding"), Some("dcz"));
    site.get("/other.00000002.js");
    let other_file = site.get_with("/other.00000002.js", old.as_bytes(), BROWSER);
    assert_ne!(other_file.field("content-encoding"), Some("dcz"));
    assert_eq!(site.outcome("unknown"), before + 2);
}

#[test]
fn only_what_is_the_same_for_everybody_becomes_a_dictionary() {
    type Change = fn(Reply) -> Reply;
    let table: [(&str, &str, Change); 6] = [
        ("/no-version.js", "no version in its name", |reply| reply),
        ("/app.00000001.js", "no-transform", |reply| reply.field("Cache-Control", "no-transform")),
        ("/app.00000001.js", "varies", |reply| reply.field("Vary", "Cookie")),
        ("/app.00000001.js", "private", |reply| reply.field("Cache-Control", "private")),
        ("/app.00000001.js", "a cookie is set", |reply| reply.field("Set-Cookie", "a=b")),
        ("/app.00000001.html", "a page", |reply| reply),
    ];
    for (target, what, change) in table {
        let page = what == "a page";
        let origin = Origin::start(move |_| {
            let kind = if page { "text/html" } else { "text/javascript" };
            let head = Reply::new(200).field("Content-Type", kind).field("Cache-Control", "max-age=600");
            change(head.field("Use-As-Dictionary", "match=\"/*\"")).body(script(1))
        });
        let site = Site::start(&origin, POLICY, "");
        for _ in 0..3 {
            let answer = site.get(target);
            let stored = what != "private" && what != "a cookie is set";
            if stored {
                assert_eq!(answer.field("use-as-dictionary"), None, "{what}: the origin's offer leads nowhere");
            }
            assert!(!vary(&answer).contains("Available"), "{what}");
        }
        assert_eq!(site.gate.status()["store"]["dictionaries"]["versions"], 0, "{what}");
    }
}

#[test]
fn nothing_happens_without_tls_or_where_it_is_forbidden() {
    let origin = versions();
    let site = Site::start(&origin, POLICY, "");
    for _ in 0..2 {
        let answer = site.gate.client().ask(&Request::get(&file(1)).host(SITE)).expect(200);
        assert_eq!(answer.field("use-as-dictionary"), None);
    }
    let forbidden = "[rewrite.pages]\nlevel = \"safe\"\nforbid = [\"dict\"]\n";
    let site = Site::start(&origin, forbidden, "");
    for _ in 0..2 {
        assert_eq!(site.get(&file(1)).field("use-as-dictionary"), None);
    }
    assert_eq!(site.gate.status()["store"]["dictionaries"]["versions"], 0);
}

#[test]
fn the_farm_hears_nothing_of_dictionaries() {
    let origin = versions();
    let site = Site::start(&origin, POLICY, "");
    site.ask(&offering(&file(1), b"anything", BROWSER).field("Dictionary-ID", "\"x\"")).expect(200);
    let seen = origin.only();
    for name in ["available-dictionary", "dictionary-id"] {
        assert_eq!(seen.field(name), None, "{name}");
    }
    assert_eq!(seen.field("accept-encoding"), Some("identity"));
}

#[test]
fn the_last_versions_are_kept_and_a_purge_takes_them_along() {
    let origin = versions();
    let site = Site::start(&origin, &format!("{POLICY}dict = {{ match = \"auto\", keep = 2 }}\n"), "");
    for version in 1..=4 {
        site.get(&file(version));
        site.kept(version.min(2) as u64);
    }
    // Version 1 and 2 made way for 3 and 4. What is evicted from the store stays as a dictionary; what is purged does not.
    poll("the newest versions", || {
        let delta = site.get_with(&file(4), script(3).as_bytes(), "dcz");
        (delta.field("content-encoding") == Some("dcz")).then_some(())
    });
    assert_eq!(site.get_with(&file(4), script(2).as_bytes(), "dcz").field("content-encoding"), None);
    site.gate.tell(&format!("purge https://{SITE}{}", file(3))).unwrap();
    assert_eq!(site.get_with(&file(4), script(3).as_bytes(), "dcz").field("content-encoding"), None);
    site.kept(1);
}

#[test]
fn a_dictionary_outlives_the_response_it_was() {
    let fetches = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetches);
    let origin = Origin::start(move |seen| {
        if seen.target == file(1) {
            count.fetch_add(1, Ordering::SeqCst);
        }
        match seen.target.strip_prefix("/filler") {
            Some(_) => cached("x".repeat(60_000)),
            None => cached(script(seen.target.split('.').nth(1).and_then(|v| v.parse().ok()).unwrap_or_default())),
        }
    });
    let site = Site::start(&origin, POLICY, "max_bytes = \"1MiB\"");
    site.get(&file(1));
    site.kept(1);
    for filler in 0..40 {
        site.get(&format!("/filler{filler}"));
    }
    poll("eviction", || {
        let told = site.gate.tell(&format!("explain https://{SITE}{}", file(1))).unwrap();
        told.contains("stored    0").then_some(())
    });
    site.get(&file(2));
    let delta = site.get_with(&file(2), script(1).as_bytes(), BROWSER);
    assert_eq!(undone(&delta, script(1).as_bytes()), script(2).into_bytes());
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
}

#[test]
fn a_reload_keeps_dictionaries_until_they_are_switched_off() {
    let origin = versions();
    let site = Site::start(&origin, POLICY, "");
    site.get(&file(1));
    site.kept(1);
    site.gate.reload(|text| text.replace("\"hints-preload\"]", "\"hints-preload\", \"svg-ws\"]"));
    site.get(&file(2));
    let delta = site.get_with(&file(2), script(1).as_bytes(), BROWSER);
    assert_eq!(undone(&delta, script(1).as_bytes()), script(2).into_bytes());
    site.gate.reload(|text| text.replace("\"svg-ws\"]", "\"svg-ws\", \"dict\"]"));
    site.kept(0);
    let plain = site.get_with(&file(2), script(1).as_bytes(), BROWSER);
    assert_eq!((plain.field("content-encoding"), plain.field("use-as-dictionary")), (Some("br"), None));
    assert_eq!(vary(&plain), "Accept-Encoding");
}

#[test]
fn optimised_versions_are_coded_against_each_other() {
    let origin = versions();
    let policy = "[rewrite.pages]\nlevel = \"safe\"\nforbid = [\"etag-own\", \"immutable\", \"hints-preload\"]\n";
    let site = Site::start(&origin, policy, "");
    let optimised = |version: usize| {
        poll("an optimised version", || {
            let answer = site.ask(&Request::get(&file(version)).host(SITE));
            answer.field("etag").is_some_and(|tag| tag.contains("--id0.")).then_some(answer.body)
        })
    };
    let (old, new) = (optimised(1), optimised(2));
    assert_ne!(old, script(1).as_bytes(), "white space went");
    // Of each version both are kept: as it came, and as it was made.
    site.kept(4);
    for (dictionary, body) in [(&old[..], &new[..]), (script(1).as_bytes(), script(2).as_bytes())] {
        let delta = site.get_with(&file(2), dictionary, BROWSER);
        assert!(delta.body.len() < 500, "{}", delta.body.len());
        assert_eq!(undone(&delta, dictionary), body);
    }
}

#[test]
fn explain_names_the_family() {
    let origin = versions();
    let site = Site::start(&origin, POLICY, "");
    site.get(&file(1));
    site.kept(1);
    let told = site.gate.tell(&format!("explain https://{SITE}{}", file(1))).unwrap();
    assert!(told.contains("match=\"/app.*.js\", match-dest=(\"script\"); 1 kept"), "{told}");
}
