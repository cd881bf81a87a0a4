//! The rewriting stage against bare `lol_html`, in MB/s over one page with ten element rules.
//!
//! `cargo bench --bench rewriting` prints both and their ratio, over interleaved rounds of one process: absolute figures
//! drift with the machine, the ratio does not. Bare is `lol_html` with the same ten selectors and handlers, fed the same
//! pieces, into a sink that counts; ours is the filter of the stage, output buffers and the look at the document's
//! beginning included.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails by panicking, and talks")]

use bytes::BytesMut;
use lol_html::html_content::ContentType;
use lol_html::{HtmlRewriter, Settings, element};
use tidegate::clock::Clock;
use tidegate::policy::rewrite::{ElementAction, ElementRule, RewriteParams};
use tidegate::transform::Filter;
use tidegate::transform::html::RuleSet;

/// Rounds of each, alternating; the best of them counts.
const ROUNDS: usize = 15;
/// What a connection is read in.
const PIECE: usize = 16 * 1024;

const SELECTORS: [&str; 10] = [
    "a[href^='http://old.example/']",
    "head",
    "img",
    ".banner > p",
    "script[src]",
    "link[rel=stylesheet]",
    "form",
    "#footer",
    "table td.price",
    "iframe",
];

/// About 1.2 MB of what shops send.
fn page() -> String {
    let item = |n: u32| {
        format!(
            "<li class=\"item c{}\"><a href=\"http://old.example/p/{n}\">Lantern {n}</a> <img src=\"/i/{n}.png\" alt=\"A lantern\">\n\
             <table><tr><td class=\"name\">Storm lantern &amp; hook</td><td class=\"price\">{}.50</td></tr></table>\n\
             <p>Hangs in the wind, burns for {n} hours, and needs no more than a drop of oil.</p></li>\n",
            n % 7,
            n % 90
        )
    };
    let items: String = (0..4000).map(item).collect();
    format!(
        "<!doctype html><html><head><meta charset=utf-8><title>Harbour</title></head><body><ul>{items}</ul><div id=footer></div></body></html>"
    )
}

fn ours(rules: &RuleSet, page: &[u8]) -> usize {
    let (mut rewriter, mut total) = (rules.rewriter(Some("utf-8")), 0);
    for piece in page.chunks(PIECE) {
        // As in the pipeline: each piece has a buffer of its own.
        let mut output = BytesMut::new();
        rewriter.push(piece, &mut output).unwrap();
        total += output.len();
    }
    let mut output = BytesMut::new();
    rewriter.finish(&mut output).unwrap();
    total + output.len()
}

fn bare(page: &[u8]) -> usize {
    let mut total = 0;
    let handlers = SELECTORS.iter().enumerate().map(|(n, selector)| {
        element!(*selector, move |element| {
            if n == 0 {
                if let Some(value) = element.get_attribute("href").filter(|value| value.contains("http://old.example/"))
                {
                    element.set_attribute("href", &value.replace("http://old.example/", "https://new.example/"))?;
                }
            } else {
                element.append("<!---->", ContentType::Html);
            }
            Ok(())
        })
    });
    let settings = handlers
        .fold(Settings::new().with_strict(false), |settings, handler| settings.append_element_content_handler(handler));
    let mut rewriter = HtmlRewriter::new(settings, |chunk: &[u8]| total += chunk.len());
    for piece in page.chunks(PIECE) {
        rewriter.write(piece).unwrap();
    }
    rewriter.end().unwrap();
    total
}

fn main() {
    let page = page();
    let action = |n: usize| match n {
        0 => ElementAction::Replace {
            attribute: "href".into(),
            from: "http://old.example/".into(),
            to: "https://new.example/".into(),
        },
        _ => ElementAction::Append("<!---->".into()),
    };
    let rule = |(n, select): (usize, &&str)| ElementRule {
        select: (**select).into(),
        actions: vec![action(n)],
        ..ElementRule::default()
    };
    let elements = SELECTORS.iter().enumerate().map(rule).collect();
    let rules = RuleSet::compile(&RewriteParams { elements, ..RewriteParams::default() }).unwrap();
    assert_eq!(ours(&rules, page.as_bytes()), bare(page.as_bytes()), "both do the same work");

    let seconds = |run: &dyn Fn() -> usize| {
        let began = Clock::System.now();
        std::hint::black_box(run());
        Clock::System.now().since(began).as_secs_f64()
    };
    let (mut best_ours, mut best_bare) = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        best_ours = best_ours.min(seconds(&|| ours(&rules, page.as_bytes())));
        best_bare = best_bare.min(seconds(&|| bare(page.as_bytes())));
    }
    let rate = |seconds: f64| page.len() as f64 / 1e6 / seconds;
    println!("page {} bytes, ten rules, pieces of {PIECE} bytes, best of {ROUNDS}", page.len());
    println!("lol_html  {:8.1} MB/s", rate(best_bare));
    println!("tidegate  {:8.1} MB/s   {:.2} x", rate(best_ours), best_bare / best_ours);
}
