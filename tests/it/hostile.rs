//! Bodies that nobody should send: delivered intact where rules do not apply to them, rewritten where they do, cut visibly
//! where half looks whole; within memory and time.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use flate2::Compression;
use flate2::write::GzEncoder;
use tidegate::clock::Clock;
use tidegate::policy::optimise::Optimiser;
use tidegate::policy::rewrite::RewriteParams;
use tidegate::transform::Filter;
use tidegate::transform::html::RuleSet;
use tidegate::transform::shrink::shrink;

use crate::golden::policy;
use crate::support::client::Request;
use crate::support::origin::{Origin, Reply};
use crate::support::rng::Rng;
use crate::support::tidegate::{Tidegate, front};

const MIB: usize = 1 << 20;

/// Rules that look at everything and change what is marked.
const RULES: &str = "links = [{ from = \"http://old.example\", to = \"/\" }]\n\
                     [[element]]\nselect = \"mark\"\nset = { id = \"1\" }\n";

fn rewritten(rules: &RuleSet, charset: Option<&str>, body: &[u8], size: usize) -> Vec<u8> {
    let (mut rewriter, mut output) = (rules.rewriter(charset), BytesMut::new());
    for piece in body.chunks(size) {
        rewriter.push(piece, &mut output).unwrap();
    }
    rewriter.finish(&mut output).unwrap();
    output.to_vec()
}

/// Pages that have nothing for the rules, however they are cut.
#[test]
fn what_the_rules_do_not_concern_comes_out_as_it_went_in() {
    let rules = RuleSet::compile(&policy(RULES)).unwrap();
    let wide = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_be_bytes).collect() };
    let late = format!("{}<meta charset=iso-2022-jp><p>\u{1b}$B<mark\u{1b}(B", " ".repeat(2000));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("10 MB of <", "<".repeat(10 * MIB).into()),
        ("10 MB of <!--", "<!--".repeat(10 * MIB / 4).into()),
        ("10 MB of quotes", format!("<a b={}", "\"'".repeat(5 * MIB)).into()),
        ("nested comments", "<!-- <!-- <mark> --> -->".repeat(10_000).into()),
        ("unclosed comment", format!("<!-- {}", "<mark>".repeat(100_000)).into()),
        ("unclosed everything", "<div><p><b><a href=x><table><tr><td><select><option>".repeat(2000).into()),
        ("deep", "<div>".repeat(50_000).into()),
        ("ends without beginnings", "</div></p></mark></>".repeat(10_000).into()),
        ("unclosed tag", format!("<p {}", "a=b ".repeat(100_000)).into()),
        ("unclosed script", format!("<script>{}", "<mark>'</scrip>".repeat(10_000)).into()),
        ("unclosed title", "<title><mark>".repeat(1000).into()),
        ("NUL bytes", b"<p\0 a\0=\0>\0</p\0>\0".repeat(10_000)),
        ("all bytes", (0..=255_u8).cycle().filter(|byte| *byte != b'<').take(MIB).collect()),
        ("UTF-16", wide("<mark>\u{e9}</mark>").repeat(1000)),
        ("UTF-16 whose bytes spell a tag", b"\xfe\xff<mark>".to_vec()),
        ("ISO-2022-JP", b"<meta charset=iso-2022-jp><p>\x1b$B<mark>\x1b(B</p>".to_vec()),
        ("a late charset", late.replace("<mark", "<mork").into()),
        ("nothing", Vec::new()),
    ];
    for (what, body) in cases {
        let sizes: &[usize] = if body.len() > MIB { &[64 * 1024] } else { &[1, 1021] };
        for &size in sizes {
            assert!(rewritten(&rules, None, &body, size) == body, "{what} by {size}");
        }
    }
}

/// A wrong charset costs nothing but what is inserted.
#[test]
fn a_wrong_charset_loses_no_byte() {
    let rules = RuleSet::compile(&policy(RULES)).unwrap();
    let body = b"<meta charset=utf-8><p>\xff\xe9\x80</p><mark>\xff</mark>";
    for charset in [None, Some("utf-8"), Some("windows-1252"), Some("shift_jis"), Some("gb18030"), Some("nonsense")] {
        for size in [1, 3, 100] {
            let made = rewritten(&rules, charset, body, size);
            let expected = b"<meta charset=utf-8><p>\xff\xe9\x80</p><mark id=\"1\">\xff</mark>";
            assert_eq!(made, expected, "{charset:?} by {size}");
        }
    }
}

/// `keys` of the route, besides the rules.
fn gate(origin: &Origin, keys: &str) -> Tidegate {
    let rules = RULES.replace("[[element]]", "[[rewrite.pages.element]]");
    let keys = format!("rewrite = \"pages\"\n{keys}");
    Tidegate::start(
        &(front(origin, &keys) + "[cache.pages]\n[compress.all]\n[rewrite.pages]\nlevel = \"safe\"\n" + &rules),
    )
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// What lies about its coding never arrives looking whole, and what does not lie arrives.
#[test]
fn codings_that_lie_break_visibly_or_not_at_all() {
    let page = b"<p>a</p><mark>b</mark>".repeat(2000);
    let expected = String::from_utf8(page.clone()).unwrap().replace("<mark>", "<mark id=\"1\">");
    let whole = gzip(&page);
    let zstd_as_gzip = b"\x28\xb5\x2f\xfd\x04\x00\x01\x00\x00".to_vec();
    let table: Vec<(&str, &str, Vec<u8>, bool)> = vec![
        ("honest", "gzip", whole.clone(), true),
        ("truncated", "gzip", whole[..whole.len() / 2].to_vec(), false),
        ("without its trailer", "gzip", whole[..whole.len() - 8].to_vec(), false),
        ("not coded", "gzip", page, false),
        ("another coding", "gzip", zstd_as_gzip, false),
        ("another name", "br", whole.clone(), false),
        ("coded, not said", "", whole.clone(), true),
        ("unknown", "x-own", whole, true),
    ];
    for (what, coding, body, arrives) in table {
        let reply = Reply::new(200).field("Content-Type", "text/html").field("Cache-Control", "max-age=60");
        let reply = if coding.is_empty() { reply } else { reply.field("Content-Encoding", coding) };
        let origin = Origin::always(reply.body(&body));
        let gate = gate(&origin, "cache = \"pages\"\ncompress = \"all\"\n");
        for _ in 0..2 {
            let mut client = gate.client();
            client.send(Request::get("/").field("Accept-Encoding", "identity").bytes());
            let answer = client.answer("GET").unwrap_or_default();
            if !arrives {
                assert!(!answer.complete || answer.status == 502, "{what}: looks whole ({} B)", answer.body.len());
            } else if coding == "gzip" {
                assert_eq!((answer.complete, answer.text() == expected), (true, true), "{what}");
            } else {
                assert_eq!((answer.complete, answer.body == body), (true, true), "{what}");
            }
        }
        gate.expect_idle();
    }
}

/// A page of 50 MB passes in a stream, and the process does not grow by it.
#[test]
fn a_page_of_50_megabytes_is_streamed() {
    let paragraph = format!("<p>{}</p><mark>b</mark>\n", "text ".repeat(200));
    let piece = paragraph.repeat(2 * MIB / paragraph.len());
    let reply = Reply::new(200).field("Content-Type", "text/html");
    let page = (0..25).fold(reply, |reply, _| reply.chunk(&piece)).last_chunk(&[]);
    let origin =
        Origin::table(vec![("/", page), ("/small", Reply::new(200).field("Content-Type", "text/html").body("<p>"))]);
    let gate = gate(&origin, "");
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gate.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
    };
    gate.get("/small").expect(200);
    let before = resident();
    let answer = gate.get("/").expect(200);
    assert_eq!(answer.body.len(), 25 * (piece.len() + piece.matches("<mark>").count() * " id=\"1\"".len()));
    // What is on its way in buffers of sockets and allocators, but not the page.
    assert!(resident() - before < 40, "grew from {before} to {} MiB", resident());
}

/// Seconds that the mutation test may take: a moment by default, `MUTATION_SECONDS` in CI.
fn budget() -> Duration {
    let seconds = std::env::var("MUTATION_SECONDS").ok().map(|seconds| seconds.parse().expect("a number of seconds"));
    Duration::from_secs_f64(seconds.unwrap_or(1.5))
}

/// Changes a body at random places: bytes set, doubled, dropped, pieces of it repeated or moved.
fn mutate(body: &mut Vec<u8>, rng: &mut Rng) {
    const INTERESTING: [&[u8]; 12] =
        [b"<", b">", b"\"", b"'", b"<!--", b"-->", b"\0", b"\xff", b"</script>", b"/*", b"url(", b"\\"];
    for _ in 0..1 + rng.below(6) {
        let at = rng.below(body.len() + 1);
        let end = (at + rng.below(24)).min(body.len());
        match rng.below(5) {
            0 => body.truncate(at),
            1 => drop(body.drain(at..end)),
            2 => drop(body.splice(at..at, INTERESTING[rng.below(INTERESTING.len())].iter().copied())),
            3 => {
                let piece = body[at..end].to_vec();
                let to = rng.below(body.len() + 1);
                drop(body.splice(to..to, piece));
            }
            _ => body.iter_mut().skip(at).take(1).for_each(|byte| *byte = byte.wrapping_add(1 + rng.below(255) as u8)),
        }
    }
}

/// The golden cases, mutated: nothing panics, cuts do not show, and what an optimiser made is settled.
#[test]
fn mutations_of_the_golden_cases_keep_the_laws() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/rewrite");
    let mut seeds: Vec<(Option<Optimiser>, Option<RewriteParams>, Vec<u8>)> = Vec::new();
    for case in std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()) {
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        let mut files = std::fs::read_dir(&case).unwrap().map(|entry| entry.unwrap().path());
        let before = files.find(|path| path.file_stem().is_some_and(|stem| stem == "before")).unwrap();
        let optimiser = Optimiser::ALL.into_iter().find(|optimiser| name.starts_with(optimiser.token()));
        let rules = std::fs::read_to_string(case.join("rules.toml")).ok().map(|rules| policy(&rules));
        seeds.push((optimiser, rules, std::fs::read(before).unwrap()));
    }
    let (clock, mut rng, mut rounds) = (Clock::System, Rng::new(), 0);
    let start = clock.now();
    while clock.now().since(start) < budget() {
        let (optimiser, rules, body) = &seeds[rng.below(seeds.len())];
        let mut body = body.clone();
        mutate(&mut body, &mut rng);
        if let Some(optimiser) = optimiser
            && let Ok(small) = shrink(*optimiser, &body)
        {
            assert_eq!(shrink(*optimiser, &small).as_ref(), Ok(&small), "{:?} {}", optimiser, body.escape_ascii());
        }
        if let Some(rules) = rules {
            let rules = RuleSet::compile(rules).unwrap();
            let whole = rewritten(&rules, Some("utf-8"), &body, body.len().max(1));
            let size = 1 + rng.below(50);
            assert!(rewritten(&rules, Some("utf-8"), &body, size) == whole, "by {size}: {}", body.escape_ascii());
        }
        rounds += 1;
    }
    assert!(rounds > 100, "only {rounds} rounds");
}
