use proptest::prelude::*;

use super::*;
use crate::policy::rewrite::ElementRule;

fn params(rules: &[(&str, &[ElementAction])], on_error: OnError) -> RewriteParams {
    let rule = |(select, actions): &(&str, &[ElementAction])| ElementRule {
        select: (*select).into(),
        actions: actions.to_vec(),
        ..ElementRule::default()
    };
    RewriteParams { elements: rules.iter().map(rule).collect(), on_error, ..RewriteParams::default() }
}

fn compile(rules: &[(&str, &[ElementAction])]) -> RuleSet {
    RuleSet::compile(&params(rules, OnError::Pass)).expect("good rules")
}

fn rewrite<'a>(
    rules: &RuleSet,
    charset: Option<&str>,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> (BytesMut, Result<(), Fault>, Option<Fault>) {
    let mut rewriter = rules.rewriter(charset);
    let mut output = BytesMut::new();
    let run = || {
        for chunk in chunks {
            rewriter.push(chunk, &mut output)?;
            rewriter.flush(&mut output)?;
        }
        rewriter.finish(&mut output)
    };
    let result = run();
    (output, result, rewriter.failure().get())
}

/// Pushes `input` whole, byte by byte, and in threes.
#[track_caller]
fn check_bytes(rules: &RuleSet, charset: Option<&str>, input: &[u8], expected: &[u8]) {
    for size in [input.len().max(1), 1, 3] {
        let (output, result, failed) = rewrite(rules, charset, input.chunks(size));
        assert_eq!(output, expected, "{} by {size}", input.escape_ascii());
        assert_eq!((result, failed), (Ok(()), None));
    }
}

#[track_caller]
fn check(select: &str, action: ElementAction, input: &str, expected: &str) {
    check_bytes(&compile(&[(select, &[action])]), None, input.as_bytes(), expected.as_bytes());
}

fn replace(attribute: &str, from: &str, to: &str) -> ElementAction {
    ElementAction::Replace { attribute: attribute.into(), from: from.into(), to: to.into() }
}

fn set(name: &str, value: &str) -> ElementAction {
    ElementAction::Set { name: name.into(), value: value.into() }
}

#[test]
fn rules_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<RuleSet>();
}

#[test]
fn every_action() {
    use ElementAction::{After, Append, Before, Inner, Prepend, Remove, ReplaceWith, Unset, Unwrap};
    let html = || "<i>!</i>".to_owned();
    for (action, expected) in [
        (Append(html()), "<p>a<b class=x>c<i>!</i></b>d</p>"),
        (Prepend(html()), "<p>a<b class=x><i>!</i>c</b>d</p>"),
        (Before(html()), "<p>a<i>!</i><b class=x>c</b>d</p>"),
        (After(html()), "<p>a<b class=x>c</b><i>!</i>d</p>"),
        (ReplaceWith(html()), "<p>a<i>!</i>d</p>"),
        (Inner(html()), "<p>a<b class=x><i>!</i></b>d</p>"),
        (Remove, "<p>ad</p>"),
        (Unwrap, "<p>acd</p>"),
        (set("id", "a\"b"), "<p>a<b class=x id=\"a&quot;b\">c</b>d</p>"),
        (set("class", "y"), "<p>a<b class=\"y\">c</b>d</p>"),
        (Unset("class".into()), "<p>a<b>c</b>d</p>"),
        (replace("class", "x", "zz"), "<p>a<b class=\"zz\">c</b>d</p>"),
        (replace("class", "q", "zz"), "<p>a<b class=x>c</b>d</p>"),
        (replace("id", "x", "zz"), "<p>a<b class=x>c</b>d</p>"),
    ] {
        check("b", action, "<p>a<b class=x>c</b>d</p>", expected);
    }
}

#[test]
fn selectors_and_hostile_markup() {
    let to_new = || replace("href", "http://old.example/", "https://new.example/");
    let select = "a[href^='http://old.example/']";
    for (input, expected) in [
        ("<a href='http://old.example/x?a=1&amp;b=2'>x</a>", "<a href=\"https://new.example/x?a=1&amp;b=2\">x</a>"),
        ("<A HREF=http://old.example/>x</A>", "<A HREF=\"https://new.example/\">x</A>"),
        ("<a href=http://other.example/>x</a>", "<a href=http://other.example/>x</a>"),
        ("<!-- <a href='http://old.example/'> -->", "<!-- <a href='http://old.example/'> -->"),
        ("<script>'<a href=http://old.example/>'</script>", "<script>'<a href=http://old.example/>'</script>"),
        ("<textarea><a href=http://old.example/></textarea>", "<textarea><a href=http://old.example/></textarea>"),
        ("<a href=http://old.example/", "<a href=http://old.example/"),
        ("<a <b href=http://old.example/", "<a <b href=http://old.example/"),
        ("a < b && c > d &nbsp", "a < b && c > d &nbsp"),
        ("", ""),
    ] {
        check(select, to_new(), input, expected);
    }
}

#[test]
fn what_is_no_ascii_markup_passes_as_it_came() {
    let rules = compile(&[("p", &[set("x", "1")])]);
    let wide: Vec<u8> = "<p>".bytes().flat_map(|byte| [byte, 0]).collect();
    let marked = [&b"\xff\xfe"[..], &wide].concat();
    for input in [
        &wide[..],
        &marked,
        b"\x1f\x8b\x08\x00<p>",
        b"%PDF-1.7 <p>",
        b"<meta charset=iso-2022-jp><p>",
        b"<!-- <meta charset=utf-8> --><META content='text/html; Charset = \"ISO-2022-JP\"' http-equiv=x><p>",
    ] {
        check_bytes(&rules, None, input, input);
    }
    let late = [b"<p>".repeat(500), b"<meta charset=iso-2022-jp>".to_vec()].concat();
    let changed = String::from_utf8_lossy(&late).replace("<p>", "<p x=\"1\">");
    check_bytes(&rules, None, &late, changed.as_bytes());
    for (charset, input, expected) in [
        (None, &b"<meta charset=utf-16><p>"[..], &b"<meta charset=utf-16><p x=\"1\">"[..]),
        (None, b"<meta charset=nonsense><p>", b"<meta charset=nonsense><p x=\"1\">"),
        (Some("utf-8"), b"<meta charset=iso-2022-jp><p>", b"<meta charset=iso-2022-jp><p x=\"1\">"),
        (Some("shift_jis"), b"\x95\x5c<p>", b"\x95\x5c<p x=\"1\">"),
        (Some("iso-8859-1"), b"\xef\xbb\xbf<p>", b"\xef\xbb\xbf<p x=\"1\">"),
    ] {
        check_bytes(&rules, charset, input, expected);
    }
}

#[test]
fn a_byte_order_mark_wins_over_the_declared_charset() {
    let rules = compile(&[("p", &[ElementAction::Append("\u{e9}".into())])]);
    let input = "\u{feff}<p></p>".as_bytes();
    check_bytes(&rules, Some("iso-8859-1"), input, "\u{feff}<p>\u{e9}</p>".as_bytes());
}

#[test]
fn authors_can_keep_rules_off_an_element() {
    check("p", set("x", "1"), "<p data-noaccel>a</p><p>b</p>", "<p data-noaccel>a</p><p x=\"1\">b</p>");
}

#[test]
fn rules_run_in_order_on_elements_of_the_origin_only() {
    let rules = compile(&[
        ("a", &[set("x", "1"), replace("x", "1", "2")]),
        ("a", &[replace("x", "2", "3"), ElementAction::After("<a>new</a>".into())]),
    ]);
    check_bytes(&rules, None, b"<a>old</a>", b"<a x=\"3\">old</a><a>new</a>");
}

#[test]
fn what_is_inserted_is_written_in_the_documents_charset() {
    let rules = compile(&[("p", &[ElementAction::Append("\u{e9}".into())])]);
    let utf_8 = "\u{e9}".as_bytes();
    let insert = |before: &[u8], inserted: &[u8]| [before, b"<p>\xe9", inserted, b"</p>"].concat();
    let meta = &b"<meta charset=windows-1252>"[..];
    for (charset, before, inserted) in [
        (Some("iso-8859-1"), &b""[..], &b"\xe9"[..]),
        (Some("UTF-8"), b"", utf_8),
        (Some("utf-8"), meta, utf_8),
        (None, meta, b"\xe9"),
        (None, b"", utf_8),
        (Some("nonsense"), b"", utf_8),
    ] {
        check_bytes(&rules, charset, &insert(before, b""), &insert(before, inserted));
    }
}

/// A tag that goes on and on outgrows the memory bound.
fn endless() -> Vec<u8> {
    let mut page = b"<a>one</a><a y='".to_vec();
    page.resize(MEMORY_MAX + 200_000, b'y');
    page.extend_from_slice(b"'><a>two</a>");
    page
}

#[test]
fn a_failed_rewrite_loses_nothing() {
    let page = endless();
    let rules = compile(&[("a", &[set("x", "1")])]);
    let expected = [b"<a x=\"1\">one</a>", &page[10..]].concat();
    for size in [page.len(), 65_536, 4099, 1_000_000] {
        let (output, result, failed) = rewrite(&rules, None, page.chunks(size));
        assert!(output == expected, "by {size}: {} of {}", output.len(), expected.len());
        assert_eq!((result, failed), (Ok(()), Some(Fault::MemoryLimit)));
    }
    let rules = RuleSet::compile(&params(&[("a", &[set("x", "1")])], OnError::Fail)).expect("good rules");
    let (_, result, failed) = rewrite(&rules, None, page.chunks(4099));
    assert_eq!((result, failed), (Err(Fault::MemoryLimit), Some(Fault::MemoryLimit)));
}

#[test]
fn a_failing_action_loses_nothing() {
    let rules = compile(&[("a", &[set("\u{20ac}", "1")])]);
    let page = b"<p>\xe9</p><a>one</a><a>two</a>";
    for size in [page.len(), 1, 5] {
        let (output, result, failed) = rewrite(&rules, Some("iso-8859-2"), page.chunks(size));
        assert_eq!(output, page[..], "by {size}");
        assert_eq!((result, failed), (Ok(()), Some(Fault::Malformed)));
    }
}

#[test]
fn unusable_rules_are_named() {
    for (rules, index) in [
        (vec![("a", &[][..]), ("a[", &[])], 1),
        (vec![("a:hover", &[])], 0),
        (vec![("", &[])], 0),
        (vec![("a", &[set("x y", "")][..])], 0),
        (vec![("a", &[ElementAction::Unset(String::new())][..])], 0),
    ] {
        let fault = RuleSet::compile(&params(&rules, OnError::Pass)).expect_err("bad rules");
        assert_eq!(fault.index, index, "{fault}");
    }
}

proptest! {
    #[test]
    fn cuts_do_not_show(
        page in "(<a href='/x'>|</a>|<p |class=b>|text é|<!--|-->|<script>|</script>|&amp;|<|>|\"|<b/>){0,30}",
        cuts in proptest::collection::vec(1..40_usize, 1..20),
    ) {
        let rules = compile(&[
            ("a", &[replace("href", "x", "y"), ElementAction::Append("<i>".into())]),
            ("p.b, b", &[ElementAction::Remove]),
        ]);
        let whole = rewrite(&rules, None, std::iter::once(page.as_bytes()));
        let mut rest = page.as_bytes();
        let mut cuts = cuts.into_iter().cycle();
        let pieces = std::iter::from_fn(|| {
            let (piece, behind) = rest.split_at(cuts.next()?.min(rest.len()));
            rest = behind;
            (!piece.is_empty()).then_some(piece)
        });
        prop_assert_eq!(rewrite(&rules, None, pieces), whole);
    }

    #[test]
    fn what_no_rule_matches_is_not_touched(page in proptest::collection::vec(any::<u8>(), 0..300)) {
        let rules = compile(&[("never", &[ElementAction::Remove])]);
        let (output, result, _) = rewrite(&rules, None, page.chunks(7));
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(&output[..], &page[..]);
    }
}
