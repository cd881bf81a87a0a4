//! What is made of stored bodies in the background: the golden cases of each optimiser, and how a child reaches a client.

use std::path::{Path, PathBuf};

use tidegate::policy::optimise::Optimiser;
use tidegate::transform::shrink::shrink;

use crate::support::client::{Answer, Request};
use crate::support::gate::poll;
use crate::support::origin::{Origin, Reply};
use crate::support::tidegate::{Tidegate, front};

/// The cases of optimisers: a folder each, named for the optimiser and what it shows, with `before.*` and either
/// `after.*` or the reason in `refused`. `UPDATE_GOLDEN=1` writes what follows `before`.
#[test]
fn golden_cases() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/rewrite");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    let mut seen = Vec::new();
    for case in cases {
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(optimiser) = Optimiser::ALL.into_iter().find(|optimiser| name.starts_with(optimiser.token())) else {
            continue;
        };
        let file = |stem: &str| {
            let mut files = std::fs::read_dir(&case).unwrap().map(|entry| entry.unwrap().path());
            files.find(|path| path.file_stem().is_some_and(|found| found == stem))
        };
        let before = file("before").unwrap();
        let body = std::fs::read(&before).unwrap();
        let made = shrink(optimiser, &body);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            match &made {
                Ok(small) => {
                    std::fs::write(case.join("after").with_extension(before.extension().unwrap()), small).unwrap()
                }
                Err(refusal) => std::fs::write(case.join("refused"), format!("{}\n", refusal.token())).unwrap(),
            }
        }
        match (file("after"), file("refused"), made) {
            (Some(after), None, Ok(small)) => {
                assert_eq!(String::from_utf8_lossy(&small), std::fs::read_to_string(after).unwrap(), "{name}");
                assert!(small.len() < body.len(), "{name} shows no gain");
                assert_eq!(shrink(optimiser, &small).as_ref(), Ok(&small), "{name}: once more changes nothing");
            }
            (None, Some(refused), Err(refusal)) => {
                assert_eq!(refusal.token(), std::fs::read_to_string(refused).unwrap().trim(), "{name}");
            }
            (_, _, made) => panic!("{name}: {made:?}"),
        }
        seen.push(optimiser);
    }
    for optimiser in Optimiser::ALL {
        assert!(seen.contains(&optimiser), "{} has no case", optimiser.token());
    }
}

/// For `tests/shrink-corpus/run`: every script, style sheet, JSON file and picture under `SHRINK_CORPUS` is shrunk beside
/// itself (`NAME.small`), or its refusal written to `NAME.refused`.
#[test]
#[ignore = "needs a corpus: run tests/shrink-corpus/run"]
fn a_corpus_of_real_files() {
    let mut folders = vec![PathBuf::from(std::env::var_os("SHRINK_CORPUS").expect("SHRINK_CORPUS"))];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let optimiser = match path.extension().and_then(|extension| extension.to_str()) {
                Some("js" | "mjs") => Optimiser::JsWs,
                Some("css") => Optimiser::CssWs,
                Some("json") => Optimiser::JsonWs,
                Some("svg") => Optimiser::SvgWs,
                _ => continue,
            };
            let beside = |suffix: &str| PathBuf::from(format!("{}.{suffix}", path.display()));
            match shrink(optimiser, &std::fs::read(&path).unwrap()) {
                Ok(small) => std::fs::write(beside("small"), small).unwrap(),
                Err(refusal) => std::fs::write(beside("refused"), refusal.token()).unwrap(),
            }
        }
    }
}

const POLICY: &str = "[rewrite.small]\nlevel = \"safe\"\n[cache.pages]\n[compress.all]\ncodings = [\"br\", \"gzip\"]\n";

fn optimising(origin: &Origin, more: &str) -> Tidegate {
    let keys = "rewrite = \"small\"\ncache = \"pages\"\ncompress = \"all\"\n";
    Tidegate::start(&(front(origin, keys) + POLICY + more))
}

/// A script that has more to lose than the margin, and does not compress away.
fn script() -> String {
    let line = |n: u32| {
        let word = n.wrapping_mul(2_654_435_761);
        format!("    // remark {word:x} of {:x}\n    const a{n} = [ {word} ,  \"{word:x}\" ];\n", word.rotate_left(9))
    };
    (0..100).map(line).collect()
}

fn cached(kind: &str) -> Reply {
    Reply::new(200).field("Content-Type", kind).field("Cache-Control", "max-age=600").field("ETag", "\"v1\"")
}

fn ask(gate: &Tidegate, target: &str, coding: &str) -> Answer {
    gate.client().ask(&Request::get(target).field("Accept-Encoding", coding)).expect(200)
}

/// Asks until the tag says that a better child is served.
fn better(gate: &Tidegate, target: &str, coding: &str, tag: &str) -> Answer {
    poll("a better child", || Some(ask(gate, target, coding)).filter(|answer| answer.field("etag") == Some(tag)))
}

/// Asks often enough to be in demand, and waits until the workshop has counted `outcome`.
fn demand(gate: &Tidegate, target: &str, filter: &str, outcome: &str) {
    for _ in 0..8 {
        ask(gate, target, "identity");
    }
    gate.wait_status("the workshop", |status| {
        let outcomes = status["workshop"]["outcomes"].as_array()?;
        outcomes.iter().find(|made| made["filter"] == filter && made["outcome"] == outcome).map(|_| ())
    });
}

#[test]
fn later_hits_get_what_the_workshop_made() {
    let origin = Origin::always(cached("text/javascript").body(script()));
    let gate = optimising(&origin, "");
    let first = ask(&gate, "/a.js", "identity");
    assert_eq!((first.text(), first.field("etag")), (script(), Some("\"v1\"")), "the first answers go without");
    let small = better(&gate, "/a.js", "identity", "\"v1--id0.102\"");
    assert_eq!(small.body, shrink(Optimiser::JsWs, script().as_bytes()).unwrap());
    assert_eq!(small.field("content-length"), Some(small.body.len().to_string().as_str()));
    let coded = better(&gate, "/a.js", "gzip", "\"v1--gzip9.102\"");
    assert_eq!(coded.field("content-encoding"), Some("gzip"));
    assert!(coded.body.len() < small.body.len());
    // Whichever of them a client has, it has this representation.
    for tag in ["\"v1\"", "\"v1--id0.102\"", "\"v1--gzip5.0\"", "\"v1--br11.102\""] {
        let request = Request::get("/a.js").field("Accept-Encoding", "gzip").field("If-None-Match", tag);
        assert_eq!(gate.client().ask(&request).status, 304, "{tag}");
    }
    let head = gate.client().ask(&Request::new("HEAD", "/a.js").field("Accept-Encoding", "gzip")).expect(200);
    for name in ["etag", "content-length", "content-encoding", "vary"] {
        assert_eq!(head.field(name), coded.field(name), "{name}");
    }
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_part_is_cut_from_the_bytes_of_the_origin() {
    let origin = Origin::always(cached("text/javascript").body(script()));
    let gate = optimising(&origin, "");
    better(&gate, "/a.js", "identity", "\"v1--id0.102\"");
    let part = |condition: &str| {
        let request = Request::get("/a.js").field("Range", "bytes=10-19").field("If-Range", condition);
        gate.client().ask(&request)
    };
    let own = part("\"v1\"");
    assert_eq!((own.status, own.text()), (206, script()[10..20].to_owned()));
    assert_eq!(part("\"v1--id0.102\"").status, 200, "offsets into other bytes mean nothing");
}

#[test]
fn what_must_not_be_touched_is_not_and_the_reason_is_counted() {
    let table = [
        ("/forbidden.js", cached("text/javascript").field("X-Accel", "1"), "no_transform"),
        ("/cors.js", cached("text/javascript").field("Access-Control-Allow-Origin", "*"), "cors"),
        ("/charset.js", cached("text/javascript; charset=utf-16"), "charset"),
    ];
    for (target, reply, reason) in table {
        let reply = if reason == "no_transform" { reply.field("Cache-Control", "no-transform") } else { reply };
        let origin = Origin::always(reply.body(script()));
        let gate = optimising(&origin, "");
        demand(&gate, target, "js-ws", reason);
        let answer = ask(&gate, target, "identity");
        assert_eq!((answer.text(), answer.field("etag")), (script(), Some("\"v1\"")), "{target}");
    }
    let origin = Origin::always(cached("text/javascript").body(script()));
    let gate = Tidegate::start(
        &(front(&origin, "rewrite = \"small\"\ncache = \"pages\"\n")
            + "[rewrite.small]\nlevel = \"safe\"\nforbid = [\"js-ws\"]\n[cache.pages]\n"),
    );
    for _ in 0..8 {
        assert_eq!(ask(&gate, "/", "identity").field("etag"), Some("\"v1\""));
    }
    assert_eq!(gate.status()["workshop"]["outcomes"].as_array().map(Vec::len), Some(0), "nothing is even tried");
}

#[test]
fn a_file_that_a_page_names_by_its_digest_stays_as_it_is() {
    use aws_lc_rs::digest::{SHA384, digest};
    let bytes = digest(&SHA384, script().as_bytes());
    let name = base64(bytes.as_ref());
    let page = format!("<!doctype html><script src=a.js integrity=\"sha384-{name}\"></script>");
    let origin = Origin::start(move |seen| match seen.target.as_str() {
        "/" => Reply::new(200).field("Content-Type", "text/html").body(&page),
        _ => cached("text/javascript").body(script()),
    });
    // Named first, asked for later.
    let gate = optimising(&origin, "");
    gate.get("/").expect(200);
    demand(&gate, "/a.js", "js-ws", "integrity");
    assert_eq!(ask(&gate, "/a.js", "identity").text(), script());
    // Altered already when it is named: its own bytes again, from then on.
    let gate = optimising(&origin, "");
    better(&gate, "/a.js", "identity", "\"v1--id0.102\"");
    let altered = Request::get("/a.js").field("If-None-Match", "\"v1--id0.102\"");
    gate.client().ask(&altered).expect(304);
    gate.get("/").expect(200);
    assert_eq!(ask(&gate, "/a.js", "identity").text(), script());
    assert_eq!(gate.client().ask(&altered).expect(200).text(), script(), "altered copies are called back");
    let coded = ask(&gate, "/a.js", "gzip");
    assert!(coded.field("etag").is_some_and(|tag| tag.ends_with(".0\"")), "{:?}", coded.field("etag"));
}

#[test]
fn every_file_with_the_bytes_that_a_page_names_stays_as_it_is() {
    use aws_lc_rs::digest::{SHA256, digest};
    let data = format!("[\n{}\n    0\n]", "    \"tide\" ,\n".repeat(400));
    let names = [script(), data.clone()].map(|body| base64(digest(&SHA256, body.as_bytes()).as_ref()));
    let page = format!("<!doctype html><script>load('sha256-{}', 'sha256-{}')</script>", names[0], names[1]);
    let origin = Origin::start(move |seen| match seen.target.as_str() {
        "/" => Reply::new(200).field("Content-Type", "text/html").body(&page),
        "/a.json" => cached("application/json").body(&data),
        _ => cached("text/javascript").body(script()),
    });
    let gate = optimising(&origin, "");
    better(&gate, "/a.js", "identity", "\"v1--id0.102\"");
    better(&gate, "/b.js", "identity", "\"v1--id0.102\"");
    gate.get("/").expect(200);
    for target in ["/a.js", "/b.js"] {
        assert_eq!(ask(&gate, target, "identity").text(), script(), "{target}");
    }
    demand(&gate, "/a.json", "json-ws", "integrity");
}

#[test]
fn what_a_route_sets_counts_for_optimisers() {
    let origin = Origin::always(cached("text/javascript").body(script()));
    let keys = "rewrite = \"small\"\ncache = \"pages\"\nresponse = { set = { Access-Control-Allow-Origin = \"*\" } }\n";
    let gate = Tidegate::start(&(front(&origin, keys) + "[rewrite.small]\nlevel = \"safe\"\n[cache.pages]\n"));
    for _ in 0..8 {
        assert_eq!(ask(&gate, "/", "identity").field("etag"), Some("\"v1\""));
    }
    assert_eq!(gate.status()["workshop"]["outcomes"].as_array().map(Vec::len), Some(0), "nothing is even tried");
}

#[test]
fn a_confirmation_that_forbids_it_takes_the_altered_copy_away() {
    let origin = Origin::start(|seen| match seen.field("if-none-match") {
        Some(_) => Reply::new(304).field("ETag", "\"v1\"").field("Cache-Control", "max-age=600, no-transform"),
        None => cached("text/javascript").body(script()),
    });
    let gate = optimising(&origin, "");
    better(&gate, "/a.js", "identity", "\"v1--id0.102\"");
    gate.tell("purge --all --soft").unwrap();
    let answer = ask(&gate, "/a.js", "identity");
    assert_eq!(origin.requests(), 2);
    assert_eq!((answer.text(), answer.field("etag")), (script(), Some("\"v1\"")));
}

#[test]
fn a_date_names_no_part_where_other_bytes_share_it() {
    let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
    let now = "Mon, 07 Nov 1994 08:49:37 GMT";
    for (kind, status) in [("text/javascript", 200), ("image/png", 206)] {
        let reply = Reply::new(200).field("Content-Type", kind).field("Cache-Control", "max-age=999999999");
        let origin = Origin::always(reply.field("Last-Modified", modified).field("Date", now).body(script()));
        let gate = optimising(&origin, "");
        ask(&gate, "/a", "identity");
        let request = Request::get("/a").field("Range", "bytes=10-19").field("If-Range", modified);
        assert_eq!(gate.client().ask(&request).status, status, "{kind}");
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |group: &[u8], n: usize| {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        char::from(DIGITS[(bits >> (18 - 6 * n) & 63) as usize])
    };
    bytes.chunks(3).flat_map(|group| (0..=group.len()).map(move |n| digit(group, n))).collect()
}

#[test]
fn codings_in_demand_are_made_again_at_the_strongest_level() {
    let text = include_str!("../../fixtures/site/tide-tables.txt");
    let origin = Origin::always(cached("text/plain").body(text));
    let gate = optimising(&origin, "");
    let first = ask(&gate, "/", "gzip");
    assert_eq!(first.field("etag"), Some("\"v1--gzip5.0\""));
    let strong = better(&gate, "/", "gzip", "\"v1--gzip9.0\"");
    assert!(strong.body.len() < first.body.len());
    assert_eq!(better(&gate, "/", "br", "\"v1--br11.0\"").field("content-encoding"), Some("br"));
}

#[test]
fn what_fails_again_and_again_is_left_out_until_somebody_says_otherwise() {
    let broken = "const open = \"";
    let origin = Origin::always(cached("text/javascript").body(broken));
    let gate = optimising(&origin, "");
    let refused = |status: &serde_json::Value, outcome: &str| {
        let outcomes = status["workshop"]["outcomes"].as_array().unwrap().clone();
        let found = outcomes.into_iter().find(|made| made["filter"] == "js-ws" && made["outcome"] == outcome);
        found.map_or(0, |made| made["count"].as_u64().unwrap())
    };
    let version = |outcome: &str, n: u64| {
        gate.tell("purge --all").unwrap();
        for _ in 0..8 {
            ask(&gate, "/a.js", "identity");
        }
        gate.wait_status("another verdict", |status| (refused(status, outcome) == n).then_some(()));
    };
    (1..=3).for_each(|n| version("malformed", n));
    version("quarantine", 1);
    let held = gate.status()["workshop"]["quarantine"].clone();
    assert_eq!((held[0]["filter"].as_str(), held.as_array().map(Vec::len)), (Some("js-ws"), Some(1)));
    assert!(gate.metrics().contains("tidegate_optimise_quarantined 1\n"));
    assert!(gate.metrics().contains("tidegate_optimised_total{filter=\"js-ws\",outcome=\"malformed\"} 3\n"));
    let cleared = gate.admin_post("/quarantine/clear").expect(200);
    assert_eq!(cleared.text(), "{\"cleared\":1}");
    version("malformed", 4);
}
