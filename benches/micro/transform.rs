//! Bytes to bytes, on a page of 64 KiB.

use bytes::BytesMut;
use divan::Bencher;
use divan::counter::BytesCount;
use tidegate::policy::encoding::Coding;
use tidegate::policy::rewrite::{ElementAction, ElementRule, OnError, RewriteParams};
use tidegate::transform::Filter;
use tidegate::transform::coding::{Encoder, fast_level};
use tidegate::transform::html::RuleSet;

const PAGE: usize = 64 * 1024;

/// Text that compresses like text: words by a fixed rule, with markup between them.
fn page() -> Vec<u8> {
    let words = ["tide", "gate", "water", "level", "moon", "harbour", "lock", "keeper", "spring", "neap"];
    let mut text = String::from("<!doctype html><title>Tides</title><body>");
    let mut state = 7_usize;
    while text.len() < PAGE {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = words.iter().cycle().nth((state >> 33) % words.len()).copied().unwrap_or_default();
        text += &if (state >> 40).is_multiple_of(9) {
            format!("<p><a href=\"/{word}\">{word}</a> ")
        } else {
            format!("{word} ")
        };
    }
    text.into_bytes()
}

fn run(mut filter: impl Filter, page: &[u8]) -> usize {
    let mut output = BytesMut::new();
    for piece in page.chunks(16 * 1024) {
        filter.push(piece, &mut output).expect("a good page");
    }
    filter.finish(&mut output).expect("a good page");
    output.len()
}

#[divan::bench(args = [Coding::Zstd, Coding::Br, Coding::Gzip])]
fn encoded(bencher: Bencher<'_, '_>, coding: Coding) {
    let page = page();
    bencher.counter(BytesCount::new(page.len())).bench_local(|| run(Encoder::new(coding, fast_level(coding)), &page));
}

#[divan::bench]
fn elements_rewritten(bencher: Bencher<'_, '_>) {
    let page = page();
    let params = RewriteParams {
        elements: vec![ElementRule {
            select: "a".into(),
            actions: vec![ElementAction::Set { name: "rel".into(), value: "nofollow".into() }],
            ..ElementRule::default()
        }],
        on_error: OnError::Fail,
        ..RewriteParams::default()
    };
    let rules = RuleSet::compile(&params).unwrap_or_else(|fault| panic!("{}", fault.reason));
    bencher.counter(BytesCount::new(page.len())).bench_local(|| run(rules.rewriter(None), &page));
}
