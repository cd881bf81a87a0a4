//! The golden cases of what is done to pages and style sheets in the stream: a folder each under `fixtures/rewrite`, with
//! `rules.toml` (the keys of a `[rewrite.NAME]`), `before.*`, fields in `head` where they matter, and either `after.*` or the
//! reason in `skipped`.
//!
//! Each case is run whole, byte by byte and at random cuts. What is named for a filter or for links is run twice as well:
//! once more changes nothing. `UPDATE_GOLDEN=1` writes what follows `before`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tidegate::config::{self, Files};
use tidegate::policy::rewrite::{Document, RewriteFacts, RewriteParams, applies};
use tidegate::transform::Filter;
use tidegate::transform::html::RuleSet;

use crate::support::rng::Rng;

/// One configuration, in memory.
struct InMemory(BTreeMap<PathBuf, String>);

impl Files for InMemory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.get(path).map(|text| text.clone().into_bytes()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn glob(&self, _pattern: &str) -> Result<Vec<PathBuf>, String> {
        Ok(Vec::new())
    }

    fn variable(&self, _name: &str) -> Option<String> {
        None
    }
}

/// The policy whose keys are `rules`.
pub fn policy(rules: &str) -> RewriteParams {
    let rules = rules.replace("[[element]]", "[[rewrite.case.element]]");
    let text = format!(
        "[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n[[pool]]\nname = \"b\"\nendpoints = [{{ address = \"127.0.0.1:1\" }}]\n\
         [[route]]\npool = \"b\"\nrewrite = \"case\"\n[rewrite.case]\n{rules}"
    );
    let main = Path::new("/case.toml");
    let loaded = config::load(main, &InMemory(BTreeMap::from([(main.to_owned(), text)])));
    let config = loaded.config.unwrap_or_else(|faults| panic!("{faults:?}"));
    config.rewrites[0].params.clone()
}

/// What becomes of a body that arrives in these pieces, or why nothing does.
fn run(params: &RewriteParams, headers: &HeaderMap, pieces: &[&[u8]]) -> Result<Vec<u8>, &'static str> {
    let facts = RewriteFacts { status: StatusCode::OK, headers };
    let plan = applies(&facts, params).map_err(|reason| reason.token())?;
    let rules = RuleSet::compile(params).unwrap();
    let mut output = BytesMut::new();
    match plan.document {
        Document::Html => push(rules.rewriter(plan.charset), pieces, &mut output),
        Document::Css => push(rules.style_rewriter(), pieces, &mut output),
    }
    Ok(output.to_vec())
}

fn push(mut filter: impl Filter, pieces: &[&[u8]], output: &mut BytesMut) {
    for piece in pieces {
        filter.push(piece, output).unwrap();
        filter.flush(output).unwrap();
    }
    filter.finish(output).unwrap();
}

/// `body` at cuts that a seed decides.
fn cut(mut body: &[u8], seed: u64) -> Vec<&[u8]> {
    let mut rng = Rng::seeded(seed);
    let mut pieces = Vec::new();
    while !body.is_empty() {
        let (piece, rest) = body.split_at((1 + rng.below(40)).min(body.len()));
        pieces.push(piece);
        body = rest;
    }
    pieces
}

fn head(case: &Path, extension: &str) -> HeaderMap {
    let kind = match extension {
        "css" => "text/css",
        "json" => "application/json",
        _ => "text/html",
    };
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
    for line in std::fs::read_to_string(case.join("head")).unwrap_or_default().lines() {
        let (name, value) = line.split_once(": ").unwrap();
        headers.insert(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
    headers
}

fn text(body: &[u8]) -> String {
    body.escape_ascii().to_string().replace("\\n", "\n")
}

#[test]
fn cases() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/rewrite");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|case| case.join("rules.toml").is_file());
    cases.sort();
    assert!(cases.len() > 20, "the cases are there");
    for case in cases {
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        let mut files = std::fs::read_dir(&case).unwrap().map(|entry| entry.unwrap().path());
        let before = files.find(|path| path.file_stem().is_some_and(|stem| stem == "before")).unwrap();
        let extension = before.extension().unwrap().to_str().unwrap();
        let (after, skipped) = (case.join("after").with_extension(extension), case.join("skipped"));
        let params = policy(&std::fs::read_to_string(case.join("rules.toml")).unwrap());
        let (body, headers) = (std::fs::read(&before).unwrap(), head(&case, extension));
        let whole = run(&params, &headers, &[&body]);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            match &whole {
                Ok(made) => std::fs::write(&after, made).unwrap(),
                Err(reason) => std::fs::write(&skipped, format!("{reason}\n")).unwrap(),
            }
        }
        let made = match (std::fs::read(&after), std::fs::read_to_string(&skipped), whole) {
            (Ok(expected), Err(_), Ok(made)) => {
                assert_eq!(text(&made), text(&expected), "{name}");
                made
            }
            (Err(_), Ok(reason), Err(skipped)) => {
                assert_eq!(reason.trim(), skipped, "{name}");
                continue;
            }
            (_, _, whole) => panic!("{name}: {whole:?}"),
        };
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(run(&params, &headers, &bytes).as_ref(), Ok(&made), "{name}, byte by byte");
        for seed in 0..16 {
            assert_eq!(run(&params, &headers, &cut(&body, seed)).as_ref(), Ok(&made), "{name}, cut by {seed}");
        }
        if !name.starts_with("rule-") {
            assert_eq!(run(&params, &headers, &[&made]).map(|made| text(&made)), Ok(text(&made)), "{name}, once more");
        }
        if name.starts_with("skip-") {
            assert_eq!(made, body, "{name}");
        }
    }
}
