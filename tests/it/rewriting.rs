//! Element rules on the wire: what they change, what they leave alone, and what becomes of the fields.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::support::client::Request;
use crate::support::origin::{End, Origin, Reply};
use crate::support::tidegate::{Tidegate, front};

const PAGE: &str = "<!doctype html><html><head><title>T</title></head><body><a href=\"http://old.example/x?a=1\">x</a>\
                    <p class=\"ad\">buy</p><img src=a.png></body></html>";

fn rewriting(origin: &Origin, rules: &str, more: &str) -> Tidegate {
    Tidegate::start(&(front(origin, &format!("rewrite = \"pages\"\n{more}")) + "[rewrite.pages]\n" + rules))
}

fn html() -> Reply {
    Reply::new(200).field("Content-Type", "text/html; charset=utf-8")
}

fn rule(select: &str, action: &str) -> String {
    format!("[[rewrite.pages.element]]\nselect = \"{select}\"\n{action}\n")
}

const HEAD_MARK: (&str, &str) = ("</head>", "<meta name=a></head>");

fn mark() -> String {
    rule("head", "append = '<meta name=a>'")
}

#[test]
fn rules_change_what_they_select() {
    let ad = "<p class=\"ad\">buy</p>";
    let table = [
        (
            "a[href^='http://old.example/']",
            "replace = { attribute = 'href', from = 'http://old.example/', to = 'https://new.example/' }",
            ("http://old.example/", "https://new.example/"),
        ),
        ("head", "append = '<meta name=a>'", HEAD_MARK),
        ("head", "prepend = '<meta name=a>'", ("<head>", "<head><meta name=a>")),
        (".ad", "before = '<hr>'", (ad, "<hr><p class=\"ad\">buy</p>")),
        (".ad", "after = '<hr>'", (ad, "<p class=\"ad\">buy</p><hr>")),
        (".ad", "replace_with = '<hr>'", (ad, "<hr>")),
        (".ad", "inner = 'sold'", (ad, "<p class=\"ad\">sold</p>")),
        (".ad", "remove = true", (ad, "")),
        (".ad", "unwrap = true", (ad, "buy")),
        ("img", "set = { loading = 'lazy' }", ("<img src=a.png>", "<img src=a.png loading=\"lazy\">")),
        (".ad", "unset = ['class']", (ad, "<p>buy</p>")),
    ];
    let origin = Origin::always(html().body(PAGE));
    for (select, action, (from, to)) in table {
        let gate = rewriting(&origin, &rule(select, action), "");
        assert_eq!(gate.get("/").expect(200).text(), PAGE.replace(from, to), "{select}: {action}");
    }
}

#[test]
fn the_cut_of_the_stream_does_not_matter() {
    let chunked = PAGE.as_bytes().chunks(7).fold(html(), |reply, chunk| reply.chunk(chunk)).last_chunk(&[]);
    for reply in [html().body(PAGE), html().body(PAGE).dribble(), chunked, html().until_close(PAGE)] {
        let origin = Origin::always(reply);
        let gate = rewriting(&origin, &mark(), "");
        assert_eq!(gate.get("/").expect(200).text(), PAGE.replace(HEAD_MARK.0, HEAD_MARK.1));
    }
}

#[test]
fn a_coded_page_is_read_before_it_is_rewritten() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(PAGE.as_bytes()).unwrap();
    let origin = Origin::always(html().field("Content-Encoding", "gzip").body(encoder.finish().unwrap()));
    let gate = rewriting(&origin, &mark(), "");
    let answer = gate.get("/").expect(200);
    assert_eq!(answer.field("content-encoding"), None);
    assert_eq!(answer.text(), PAGE.replace(HEAD_MARK.0, HEAD_MARK.1));
}

#[test]
fn deflate_is_read_in_both_its_meanings() {
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), Compression::default());
    let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(PAGE.as_bytes()).unwrap();
    bare.write_all(PAGE.as_bytes()).unwrap();
    for coded in [zlib.finish().unwrap(), bare.finish().unwrap()] {
        let origin = Origin::always(html().field("Content-Encoding", "deflate").body(coded));
        let gate = rewriting(&origin, &mark(), "");
        let answer = gate.get("/").expect(200);
        assert_eq!(answer.field("content-encoding"), None);
        assert_eq!(answer.text(), PAGE.replace(HEAD_MARK.0, HEAD_MARK.1));
    }
}

#[test]
fn what_becomes_of_answers_is_counted() {
    let origin = Origin::table(vec![
        ("/", html().body(PAGE)),
        ("/kept", html().field("Cache-Control", "no-transform").body(PAGE)),
        ("/odd", Reply::new(200).field("Content-Type", "text/html; charset=utf-16").body(PAGE)),
    ]);
    let gate = rewriting(&origin, &mark(), "");
    for target in ["/", "/kept", "/odd"] {
        gate.get(target).expect(200);
    }
    let metrics = gate.metrics();
    for outcome in ["applied", "no_transform", "charset"] {
        assert!(metrics.contains(&format!("tidegate_rewrites_total{{outcome=\"{outcome}\"}} 1\n")), "{outcome}");
    }
}

#[test]
fn what_is_no_page_passes_untouched() {
    let table = [
        ("another type", Reply::new(200).field("Content-Type", "text/plain")),
        ("no-transform", html().field("Cache-Control", "no-transform")),
        ("a part", Reply::new(206).field("Content-Type", "text/html").field("Content-Range", "bytes 0-9/99")),
        ("an unknown coding", html().field("Content-Encoding", "x-own")),
    ];
    for (what, reply) in table {
        let origin = Origin::always(reply.field("ETag", "\"v1\"").body(PAGE));
        let gate = rewriting(&origin, &mark(), "");
        let answer = gate.get("/");
        assert_eq!(
            (answer.text().as_str(), answer.field("etag"), answer.complete),
            (PAGE, Some("\"v1\""), true),
            "{what}"
        );
    }
}

#[test]
fn a_range_is_no_way_around_the_rules() {
    let origin = Origin::start(|seen| {
        let part = seen.fields.has("range");
        let reply = Reply::new(if part { 206 } else { 200 });
        let kind = match seen.target.as_str() {
            "/several" if part => "multipart/byteranges; boundary=x",
            "/picture" => "image/png",
            _ => "text/html",
        };
        let reply = reply.field("Content-Type", kind);
        let single = part && seen.target != "/several";
        let reply = if single { reply.field("Content-Range", "bytes 0-9/99") } else { reply };
        reply.body(if part { &PAGE[..10] } else { PAGE })
    });
    let gate = rewriting(&origin, &mark(), "");
    for (target, status, text) in [
        ("/page", 200, PAGE.replace(HEAD_MARK.0, HEAD_MARK.1)),
        ("/several", 200, PAGE.replace(HEAD_MARK.0, HEAD_MARK.1)),
        ("/picture", 206, PAGE[..10].to_owned()),
    ] {
        let before = origin.requests();
        let answer = gate.client().ask(&Request::get(target).field("Range", "bytes=0-9")).expect(status);
        assert_eq!(answer.text(), text, "{target}");
        assert_eq!(origin.requests() - before, if status == 200 { 2 } else { 1 }, "{target}");
    }
}

#[test]
fn changed_bytes_have_another_tag_and_no_stale_digest() {
    let reply = html().field("ETag", "\"v1\"").field("Content-MD5", "eA==").field("Accept-Ranges", "bytes");
    let origin = Origin::always(reply.field("Last-Modified", "Mon, 02 Jan 2023 10:00:00 GMT").body(PAGE));
    let gate = rewriting(&origin, &mark(), "");
    let answer = gate.get("/").expect(200);
    let tag = answer.field("etag").expect("a tag").to_owned();
    assert!(tag.starts_with("\"v1--"), "{tag}");
    for name in ["content-md5", "accept-ranges"] {
        assert!(!answer.fields.has(name), "{name} is about other bytes");
    }
    let unchanged = gate.client().ask(&Request::get("/").field("If-None-Match", &tag));
    assert_eq!(origin.seen().pop().unwrap().field("if-none-match"), Some("\"v1\""));
    assert_eq!(unchanged.status, 200, "this origin ignores conditions");
}

#[test]
fn an_edited_rule_shows_on_pages_that_are_stored() {
    let origin = Origin::always(html().field("Cache-Control", "max-age=60").body(PAGE));
    let gate = rewriting(&origin, &(mark() + "[cache.pages]\n"), "cache = \"pages\"");
    for _ in 0..2 {
        assert_eq!(gate.get("/").expect(200).text(), PAGE.replace(HEAD_MARK.0, HEAD_MARK.1));
    }
    assert_eq!(origin.requests(), 1, "what the rules made is what is kept");
    gate.reload(|text| text.replace("<meta name=a>", "<meta name=b>"));
    assert_eq!(gate.get("/").expect(200).text(), PAGE.replace("</head>", "<meta name=b></head>"));
    assert_eq!(origin.requests(), 2);
}

#[test]
fn half_a_page_stays_half_a_page() {
    let origin = Origin::always(html().announced(PAGE.len() + 10, PAGE).end(End::Close));
    let gate = rewriting(&origin, &mark(), "");
    let answer = gate.get("/");
    assert!(!answer.complete || answer.status == 502, "half looks whole: {answer:?}");
    gate.expect_idle();
}

#[test]
fn an_edited_rule_shows_to_clients_that_have_the_old_page() {
    // The origin's page never changes, and it knows its date as well as its tag.
    let origin = Origin::start(|seen| {
        let tag = seen.field("if-none-match");
        let same = tag.map_or(seen.fields.has("if-modified-since"), |tag| tag == "\"v1\"");
        let reply = if same { Reply::new(304) } else { html() };
        let reply = reply.field("ETag", "\"v1\"").field("Last-Modified", "Mon, 02 Jan 2023 10:00:00 GMT");
        if same { reply } else { reply.body(PAGE) }
    });
    let gate = rewriting(&origin, &mark(), "");
    let first = gate.get("/").expect(200);
    let (tag, date) = (first.field("etag").unwrap(), first.field("last-modified").unwrap());
    let again = Request::get("/").field("If-None-Match", tag).field("If-Modified-Since", date);
    let unchanged = gate.client().ask(&again).expect(304);
    assert_eq!(unchanged.field("etag"), Some(tag));
    let by_date = Request::get("/").field("If-Modified-Since", date);
    gate.client().ask(&by_date).expect(304);
    // Dates count whole seconds.
    crate::support::gate::next_second();
    gate.reload(|text| text.replace("<meta name=a>", "<meta name=b>"));
    for ask in [again, by_date] {
        let changed = gate.client().ask(&ask).expect(200);
        assert_eq!(changed.text(), PAGE.replace("</head>", "<meta name=b></head>"), "{ask:?}");
    }
}

#[test]
fn a_broken_coding_never_looks_whole() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(PAGE.repeat(50).as_bytes()).unwrap();
    let whole = encoder.finish().unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle..].fill(0x5a);
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..64 {
        bomb.write_all(&vec![b' '; 1 << 20]).unwrap();
    }
    let table = [
        ("cut", whole[..whole.len() - 9].to_vec()),
        ("damaged", damaged),
        ("no gzip", PAGE.into()),
        ("bomb", bomb.finish().unwrap()),
    ];
    for (what, body) in table {
        let coded = html().field("Content-Encoding", "gzip").field("Cache-Control", "max-age=60");
        let origin = Origin::always(coded.body(body));
        for keys in ["", "cache = \"pages\""] {
            let gate = rewriting(&origin, &(mark() + "[cache.pages]\n"), keys);
            for _ in 0..2 {
                let mut client = gate.client();
                client.send(Request::get("/").bytes());
                let answer = client.answer("GET").unwrap_or_default();
                assert!(!answer.complete || answer.status == 502, "{what}: looks whole ({} B)", answer.body.len());
                assert!(answer.body.len() < 8 << 20, "{what}: {} B", answer.body.len());
            }
            gate.expect_idle();
        }
    }
}

#[test]
fn links_of_another_place_are_repaired_wherever_they_stand() {
    let links =
        "links = [{ from = \"http://old.example\", to = \"https://new.example\" }]\nhttps = [\"shop.example\"]\n";
    let page =
        "<link href=//old.example/a.css><a href=\"http://old.example/x\">x</a><img src=http://shop.example/a.png>";
    let sheet = "a { background: url(http://old.example/a.png) } /* http://old.example/ */";
    let field = |reply: Reply, kind: &str| reply.field("Content-Type", kind).field("ETag", "\"v1\"");
    let origin = Origin::table(vec![
        ("/", field(Reply::new(200), "text/html").body(page)),
        ("/a.css", field(Reply::new(200), "text/css").body(sheet)),
        ("/a.js", field(Reply::new(200), "text/javascript").body("'http://old.example/'")),
        (
            "/moved",
            Reply::new(302)
                .field("Location", "http://old.example/there?a=http://old.example/")
                .field("Refresh", "0; url=http://old.example/there")
                .field("Link", "<http://old.example/a.css>; rel=preload")
                .field("Set-Cookie", "a=1; Domain=.old.example; Path=/")
                .body(""),
        ),
    ]);
    let gate = rewriting(&origin, links, "");
    let answer = gate.get("/").expect(200);
    assert_eq!(
        answer.text(),
        "<link href=\"https://new.example/a.css\"><a href=\"https://new.example/x\">x</a>\
         <img src=\"https://shop.example/a.png\">"
    );
    let answer = gate.get("/a.css").expect(200);
    assert_eq!(answer.text(), sheet.replacen("http://old", "https://new", 1));
    assert!(answer.field("etag").is_some_and(|tag| tag.starts_with("\"v1--id0.")), "{:?}", answer.field("etag"));
    let script = gate.get("/a.js").expect(200);
    assert_eq!((script.text().as_str(), script.field("etag")), ("'http://old.example/'", Some("\"v1\"")));
    let moved = gate.get("/moved").expect(302);
    for (name, expected) in [
        ("location", "https://new.example/there?a=http://old.example/"),
        ("refresh", "0; url=https://new.example/there"),
        ("link", "<https://new.example/a.css>; rel=preload"),
        ("set-cookie", "a=1; Domain=new.example; Path=/"),
    ] {
        assert_eq!(moved.field(name), Some(expected));
    }
    // As they came, without the rule.
    gate.reload(|text| text.replace(links, &mark()));
    assert_eq!(gate.get("/a.css").expect(200).text(), sheet);
}
