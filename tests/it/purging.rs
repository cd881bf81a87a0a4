//! What is forgotten on demand: by whom, by which name, and over what it races.

use crate::support::client::{Answer, Client, HOST, Request};
use crate::support::gate::Gate;
use crate::support::origin::{Origin, Reply};
use crate::support::tidegate::{Setup, Tidegate, front};

/// A Tidegate whose one policy has these keys.
fn caching(origin: &Origin, keys: &str) -> Tidegate {
    Tidegate::start(&(front(origin, "cache = \"pages\"") + "[cache.pages]\n" + keys))
}

const OPEN: &str = "purge = { allow = [\"127.0.0.0/8\"] }\n";

/// Tagged with its path's segments.
fn tagged(origin: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Origin {
    Origin::start(move |seen| {
        let tags = seen.target.replace('/', " ");
        origin(&seen.target).field("Cache-Control", "max-age=60").field("Surrogate-Key", &tags).body("x")
    })
}

fn result(answer: &Answer) -> &str {
    answer.field("x-cache").expect("a route with a cache")
}

fn purge(gate: &Tidegate, target: &str, fields: &[(&str, &str)]) -> Answer {
    let fields = fields.iter().fold(Request::new("PURGE", target), |ask, (name, value)| ask.field(name, value));
    gate.client().ask(&fields)
}

#[test]
fn a_url_is_purged_with_everything_that_answers_it() {
    let rule = "params=(\"u\")";
    let origin = tagged(move |_| Reply::new(200).field("No-Vary-Search", rule));
    let gate = caching(&origin, OPEN);
    gate.get("/p?u=1&a=1");
    gate.get("/p?u=1&a=2");
    assert_eq!(result(&gate.get("/p?u=2&a=1")), "HIT");
    assert_eq!(purge(&gate, "/p?a=1&u=3", &[]).expect(200).text(), "{\"purged\":1,\"arriving\":0}\n");
    assert_eq!(result(&gate.get("/p?u=1&a=1")), "MISS");
    assert_eq!(result(&gate.get("/p?u=4&a=2")), "HIT");
}

#[test]
fn purge_is_for_those_a_policy_admits() {
    let origin = tagged(|_| Reply::new(200));
    let closed = caching(&origin, "");
    closed.get("/a").expect(200);
    let answer = purge(&closed, "/a", &[]).expect(405);
    assert!(answer.fields.has("allow"));
    assert_eq!(result(&closed.get("/a")), "HIT");

    let elsewhere = caching(&origin, "purge = { allow = [\"192.0.2.0/24\"] }\n");
    elsewhere.get("/a");
    purge(&elsewhere, "/a", &[("X-Forwarded-For", "192.0.2.1")]).expect(403);
    assert_eq!(result(&elsewhere.get("/a")), "HIT");
    assert!(elsewhere.access_log(3).iter().any(|record| record["reason"] == "purge_address"));

    let open = caching(&origin, OPEN);
    open.get("/a");
    purge(&open, "/a", &[("X-Forwarded-For", "127.0.0.1")]).expect(403);
    assert_eq!(purge(&open, "/a", &[]).expect(200).text(), "{\"purged\":1,\"arriving\":0}\n");
    purge(&open, "/a", &[]).expect(404);
    assert_eq!(result(&open.get("/a")), "MISS");
    let line = open.wait_words("purged");
    for part in ["127.0.0.1", "url", "/a", "responses=1"] {
        assert!(line.contains(part), "{line}");
    }

    let keys = "purge = { allow = [\"127.0.0.0/8\"], token_file = \"purge.token\" }\n";
    let text = front(&origin, "cache = \"pages\"") + "[cache.pages]\n" + keys;
    let guarded = Setup::new().file("purge.token", "a token long enough to be one".replace(' ', "-")).start(&text);
    guarded.get("/a");
    purge(&guarded, "/a", &[]).expect(403);
    purge(&guarded, "/a", &[("Authorization", "Bearer wrong")]).expect(403);
    purge(&guarded, "/a", &[("Authorization", "Bearer a-token-long-enough-to-be-one")]).expect(200);
    assert!(origin.seen().iter().all(|seen| seen.method == "GET"), "no PURGE went to the farm");
}

#[test]
fn without_a_cache_purge_is_the_farms_business() {
    let origin = Origin::always(Reply::ok("purged by the farm"));
    let gate = Tidegate::start(&front(&origin, ""));
    assert_eq!(purge(&gate, "/a", &[]).expect(200).text(), "purged by the farm");
    assert_eq!(origin.only().method, "PURGE");
}

#[test]
fn each_way_to_name_things_reaches_them() {
    let paths = ["/", "/a", "/a/b", "/c?x=1", "/c"];
    /// Target and fields of a PURGE, and the paths it reaches.
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);
    let table: [Row<'_>; 7] = [
        ("/a", &[], &["/a"]),
        ("/c?x=1", &[], &["/c?x=1"]),
        ("/nowhere", &[], &[]),
        ("/", &[("Surrogate-Key", "b")], &["/a/b"]),
        ("/", &[("xkey-purge", "b, c")], &["/a/b", "/c"]),
        ("/a/.*", &[("X-Purge-Method", "regex")], &["/a", "/a/b"]),
        ("/.*", &[("X-Purge-Method", "regex")], &paths),
    ];
    for (target, fields, gone) in table {
        let origin = tagged(|_| Reply::new(200));
        let gate = caching(&origin, OPEN);
        for path in paths {
            assert!(!gate.get(path).expect(200).fields.has("surrogate-key"), "not for clients");
        }
        purge(&gate, target, fields).expect(if gone.is_empty() { 404 } else { 200 });
        for path in paths {
            let expected = if gone.contains(&path) { "MISS" } else { "HIT" };
            assert_eq!(result(&gate.get(path)), expected, "{target} {fields:?}: {path}");
        }
    }
}

#[test]
fn operators_purge_by_command() {
    let origin = tagged(|_| Reply::new(200));
    let gate = caching(&origin, "");
    let ask = |words: &str| gate.tell(words).unwrap_or_else(|words| panic!("{words}"));
    let fill = || ["/a", "/a/b", "/c"].map(|path| gate.get(path).expect(200));
    let host = format!("http://{HOST}");
    for (words, gone) in [
        (format!("purge {host}/a"), 1),
        (format!("purge https://{HOST}/a"), 1),
        (format!("purge --prefix {host}/a"), 2),
        (format!("purge --host {HOST}"), 3),
        ("purge --tag c --tag b".to_owned(), 2),
        ("purge --all".to_owned(), 3),
        ("purge --tag nothing".to_owned(), 0),
    ] {
        fill();
        let dry = ask(&format!("{words} --dry-run"));
        assert!(dry.starts_with(&format!("would purge {gone} responses")), "{words}: {dry}");
        assert_eq!(dry.lines().count(), gone + 1, "{words}: {dry}");
        let json: serde_json::Value = serde_json::from_str(&ask(&format!("{words} --json"))).unwrap();
        assert_eq!(json["purged"], gone, "{words}");
        let missed = fill().iter().filter(|answer| result(answer) == "MISS").count();
        assert_eq!(missed, gone, "{words}");
    }
    assert!(gate.tell("purge nowhere").unwrap_err().contains("url_invalid"));
    assert!(gate.tell("purge --all --host h").is_err());
}

#[test]
fn a_soft_purge_has_it_validated() {
    let origin = Origin::start(|seen| {
        let reply = Reply::new(if seen.fields.has("if-none-match") { 304 } else { 200 });
        reply.field("Cache-Control", "max-age=60").field("ETag", "\"a\"").field("xkey", "t").body("")
    });
    let gate = caching(&origin, OPEN);
    gate.get("/");
    for field in ["Fastly-Soft-Purge", "xkey-softpurge"] {
        purge(&gate, "/", &[(field, if field.starts_with('x') { "t" } else { "1" })]).expect(200);
        assert_eq!(result(&gate.get("/")), "REVALIDATED");
        assert_eq!(result(&gate.get("/")), "HIT");
    }
    assert_eq!(origin.requests(), 3);
}

#[test]
fn a_purge_wins_over_fetches_in_flight() {
    for hold_head in [true, false] {
        let held = Gate::new();
        let origin = Origin::start({
            let held = held.clone();
            move |seen| {
                let reply = Reply::new(200).field("Cache-Control", "max-age=60").field("xkey", "t");
                match seen.fields.has("x-first") {
                    true if hold_head => reply.body("old").hold(&held),
                    true => reply.chunk("o").wait(&held).chunk("ld").last_chunk(&[]),
                    false => reply.body("new"),
                }
            }
        });
        let gate = caching(&origin, OPEN);
        let mut client = Client::connect(gate.listener("http"));
        client.send(Request::get("/").field("X-First", "1").bytes());
        origin.wait_requests(1);
        if !hold_head {
            client.head();
        }
        purge(&gate, "/", &[("xkey-purge", "t")]).expect(if hold_head { 404 } else { 200 });
        if !hold_head {
            // The head is known as purged: who comes now does not join.
            assert_eq!(gate.get("/").expect(200).text(), "new");
        }
        held.open();
        if hold_head {
            assert_eq!(client.answer("GET").unwrap().text(), "old", "delivered nevertheless");
            assert_eq!(gate.get("/").expect(200).text(), "new");
        }
        let again = gate.get("/").expect(200);
        assert_eq!((again.text().as_str(), result(&again)), ("new", "HIT"), "head held: {hold_head}");
        assert_eq!(origin.requests(), 2);
    }
}

#[test]
fn those_who_wait_for_a_purged_fetch_make_one_more() {
    const WAITING: usize = 8;
    let held = Gate::new();
    let first = std::sync::atomic::AtomicBool::new(true);
    let origin = Origin::start({
        let held = held.clone();
        move |_| {
            let reply = Reply::new(200).field("Cache-Control", "max-age=60").field("xkey", "t");
            let is_first = first.swap(false, std::sync::atomic::Ordering::SeqCst);
            if is_first { reply.body("old").hold(&held) } else { reply.body("new") }
        }
    });
    let gate = caching(&origin, OPEN);
    let mut leader = gate.client();
    leader.send(Request::get("/").bytes());
    origin.wait_requests(1);
    purge(&gate, "/", &[("xkey-purge", "t")]).expect(404);
    let mut waiting: Vec<_> = (0..WAITING).map(|_| gate.client()).collect();
    for client in &mut waiting {
        client.send(Request::get("/").bytes());
    }
    held.open();
    assert_eq!(leader.answer("GET").unwrap().text(), "old");
    for client in &mut waiting {
        assert_eq!(client.answer("GET").unwrap().text(), "new", "they asked after the purge");
    }
    assert_eq!(origin.requests(), 2);
}

#[test]
fn ten_thousand_tags_are_delivered_and_not_stored() {
    let tags = (0..10_000).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
    let origin = Origin::start(move |seen| {
        let count = if seen.target == "/few" { 1000 } else { 10_000 };
        let tags = tags.split(' ').take(count).collect::<Vec<_>>().join(" ");
        Reply::new(200).field("Cache-Control", "max-age=60").field("xkey", &tags).body("x")
    });
    let gate = caching(&origin, "");
    for _ in 0..2 {
        let answer = gate.get("/many").expect(200);
        assert_eq!(answer.text(), "x");
        assert!(answer.field("cache-status").unwrap().contains("detail=too_many_tags"), "{:?}", answer.fields);
    }
    gate.get("/few").expect(200);
    assert_eq!(result(&gate.get("/few")), "HIT");
    assert!(gate.tell("purge --tag 999").unwrap().starts_with("purged 1 "));
}

#[test]
fn an_answer_invalidates_groups_of_its_origin() {
    let origin = Origin::start(|seen| match seen.method.as_str() {
        "POST" => Reply::new(200).field("Cache-Group-Invalidation", "\"a\", \"b\";x").body(""),
        // Not on an answer to a safe method.
        _ => Reply::new(200)
            .field("Cache-Control", "max-age=60")
            .field("Cache-Group-Invalidation", "\"c\"")
            .field("Cache-Groups", &format!("\"{}\"", seen.target.trim_start_matches('/')))
            .body("x"),
    });
    let gate = caching(&origin, "");
    let other = |path: &str| gate.client().ask(&Request::get(path).host("other.example"));
    for path in ["/a", "/b", "/c"] {
        assert!(gate.get(path).expect(200).fields.has("cache-groups"), "for caches on the way");
    }
    other("/a");
    gate.client().ask(&Request::new("POST", "/form").body("x")).expect(200);
    assert_eq!(["/a", "/b", "/c"].map(|path| result(&gate.get(path)).to_owned()), ["MISS", "MISS", "HIT"]);
    assert_eq!(result(&other("/a")), "HIT", "another origin");
}

#[test]
fn what_another_route_changes_is_untrue_as_well() {
    let origin = tagged(|_| Reply::new(200));
    let pages =
        front(&origin, "cache = \"pages\"\nmethods = [\"GET\"]") + "[cache.pages]\nkey = { sort_query = true }\n";
    let gate = Tidegate::start(&(pages + "[[route]]\nname = \"forms\"\npool = \"web\"\n"));
    gate.get("/a?y&x").expect(200);
    assert_eq!(result(&gate.get("/a?x&y")), "HIT");
    gate.client().ask(&Request::new("POST", "/a?y&x").body("1")).expect(200);
    assert_eq!(result(&gate.get("/a?x&y")), "MISS");
}
