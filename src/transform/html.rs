//! HTML by the operator's element rules, streaming, on `lol_html`.
//!
//! [`RuleSet::compile`] parses the selectors once per configuration; [`RuleSet::rewriter`] makes a [`HtmlRewriter`] per
//! body. Rules run in file order, the actions of a rule in theirs. What no rule touches leaves as the very bytes it came
//! as, whatever its charset. Inserted text is HTML as the operator wrote it, not escaped; attribute values are escaped
//! as far as quotes go.
//!
//! Rules work on ASCII tags, so the document has to be one in which those are tags: UTF-16 and ISO-2022-JP, told by a byte
//! order mark, `Content-Type` or a `meta` element, and files of other formats pass as they came. An element with the
//! attribute `data-noaccel` is left alone.
//!
//! Memory: one body holds at most `MEMORY_MAX` (a tag, comment or attribute that is not complete yet, and the stack of
//! open elements). Beyond that, or when an inserted name cannot be written in the document's charset, rewriting fails
//! and `on_error` decides: `pass` lets the rest through unmodified, with no byte lost and none doubled; `fail` is an
//! error.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use encoding_rs::Encoding;
use lol_html::errors::RewritingError;
use lol_html::html_content::{ContentType, Element};
use lol_html::{
    AsciiCompatibleEncoding, ElementContentHandlers, HandlerResult, MemorySettings, OutputSink, Selector, Settings,
};

use super::{Fault, Filter};
use crate::policy::rewrite::{ElementAction, OnError, RewriteParams};

/// Bytes one body may hold back. A tag of this size is no tag, and a thousand such bodies at once still fit a server.
const MEMORY_MAX: usize = 1024 * 1024;
/// Most input handed over at once: what is left of it may have to be kept, and must not meet the bound by itself.
const STEP: usize = 64 * 1024;

/// A rule that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("element rule {}: {reason}", index + 1)]
pub struct RuleFault {
    /// Index of the rule in its file order.
    pub index: usize,
    /// In words.
    pub reason: String,
}

/// Rules ready for use; shared by all bodies that they apply to.
#[derive(Debug, Clone)]
pub struct RuleSet {
    rules: Arc<[(Selector, Arc<[ElementAction]>)]>,
    on_error: OnError,
}

impl RuleSet {
    /// True without rules: then there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Parses the selectors and checks the attribute names.
    ///
    /// # Errors
    /// The first rule that cannot be used.
    pub fn compile(params: &RewriteParams) -> Result<Self, RuleFault> {
        let mut rules = Vec::with_capacity(params.elements.len());
        for (index, rule) in params.elements.iter().enumerate() {
            let fault = |reason| RuleFault { index, reason };
            let selector: Selector =
                rule.select.parse().map_err(|error| fault(format!("select \"{}\": {error}", rule.select)))?;
            if let Some(name) = rule.actions.iter().filter_map(attribute_name).find(|name| !is_attribute_name(name)) {
                return Err(fault(format!("\"{name}\" is no attribute name")));
            }
            rules.push((selector, Arc::from(rule.actions.as_slice())));
        }
        Ok(Self { rules: rules.into(), on_error: params.on_error })
    }

    /// A rewriter for one body. `charset` is what `Content-Type` says; a byte order mark wins over it. Without either, or
    /// with one that is not known, the document's own declaration counts, and UTF-8 before it comes.
    #[must_use]
    pub fn rewriter(&self, charset: Option<&str>) -> HtmlRewriter {
        let declared = charset.and_then(|charset| Encoding::for_label(charset.as_bytes()));
        HtmlRewriter {
            state: State::Looking(Looking { rules: self.clone(), declared, head: Vec::new() }),
            sink: Sink::default(),
            on_error: self.on_error,
            failed: Failure::default(),
        }
    }

    /// The rewriter for a body whose charset is `declared` outside of its markup.
    fn begin(&self, declared: Option<&'static Encoding>, sink: Sink) -> lol_html::HtmlRewriter<'static, Sink> {
        let declared = declared.and_then(AsciiCompatibleEncoding::new);
        let memory = MemorySettings::new()
            .with_max_allowed_memory_usage(MEMORY_MAX)
            .with_graceful_bail_out_on_memory_limit_exceeded(true);
        let mut settings = Settings::new()
            .with_memory_settings(memory)
            .with_graceful_bail_out_on_content_handler_error(true)
            // Strict mode gives up on markup that browsers read in two ways; real pages are full of it.
            .with_strict(false)
            .with_encoding(declared.unwrap_or_else(AsciiCompatibleEncoding::utf_8))
            .with_adjust_charset_on_meta_tag(declared.is_none());
        for (selector, actions) in self.rules.iter() {
            let actions = Arc::clone(actions);
            let handlers = ElementContentHandlers::default().element(move |element: &mut Element<'_, '_>| {
                if element.has_attribute(UNTOUCHED) {
                    return Ok(());
                }
                actions.iter().try_for_each(|action| act(action, element))
            });
            settings = settings.append_element_content_handler((Cow::Borrowed(selector), handlers));
        }
        lol_html::HtmlRewriter::new(settings, sink)
    }
}

fn attribute_name(action: &ElementAction) -> Option<&str> {
    match action {
        ElementAction::Replace { attribute: name, .. }
        | ElementAction::Set { name, .. }
        | ElementAction::Unset(name) => Some(name),
        _ => None,
    }
}

/// WHATWG HTML §13.1.2.3.
fn is_attribute_name(name: &str) -> bool {
    let forbidden = |c: char| c.is_control() || matches!(c, ' ' | '"' | '\'' | '>' | '/' | '=');
    !name.is_empty() && !name.contains(forbidden)
}

fn act(action: &ElementAction, element: &mut Element<'_, '_>) -> HandlerResult {
    match action {
        ElementAction::Replace { attribute, from, to } => {
            if let Some(value) = element.get_attribute(attribute).filter(|value| value.contains(from.as_str())) {
                element.set_attribute(attribute, &value.replace(from.as_str(), to))?;
            }
        }
        ElementAction::Set { name, value } => element.set_attribute(name, value)?,
        ElementAction::Unset(name) => element.remove_attribute(name),
        ElementAction::Append(html) => element.append(html, ContentType::Html),
        ElementAction::Prepend(html) => element.prepend(html, ContentType::Html),
        ElementAction::Before(html) => element.before(html, ContentType::Html),
        ElementAction::After(html) => element.after(html, ContentType::Html),
        ElementAction::ReplaceWith(html) => element.replace(html, ContentType::Html),
        ElementAction::Inner(html) => element.set_inner_content(html, ContentType::Html),
        ElementAction::Remove => element.remove(),
        ElementAction::Unwrap => element.remove_and_keep_content(),
    }
    Ok(())
}

/// The attribute by which a page's author keeps rules off one element.
const UNTOUCHED: &str = "data-noaccel";

/// Rewrites one body. What cannot be decided yet (half a tag; in which charset tags would be written, for at most 1 KiB) is
/// held back; `flush` has nothing to add.
pub struct HtmlRewriter {
    state: State,
    sink: Sink,
    on_error: OnError,
    failed: Failure,
}

/// Tells, from outside of the stream, whether a rewriter has failed; shared with it.
#[derive(Debug, Clone, Default)]
pub struct Failure(Rc<Cell<Option<Fault>>>);

impl Failure {
    /// Why the rest of the body passes unmodified, or was refused; such a body is not to be stored.
    #[must_use]
    pub fn get(&self) -> Option<Fault> {
        self.0.get()
    }
}

enum State {
    /// What kind of document it is does not show yet.
    Looking(Looking),
    Rewriting(Box<lol_html::HtmlRewriter<'static, Sink>>),
    /// Rewriting has failed, or is finished, or would not be understood: what comes goes.
    Passing,
}

/// The beginning of a document, until it shows whether tags can be told from text in it.
struct Looking {
    rules: RuleSet,
    /// By `Content-Type`.
    declared: Option<&'static Encoding>,
    head: Vec<u8>,
}

/// What the beginning of a document shows.
enum Verdict {
    /// Tags are ASCII; the charset, where it is known from outside of the markup.
    Rewrite(Option<&'static Encoding>),
    /// Not HTML, or in a charset whose bytes are not ASCII where they look like it.
    Pass,
}

/// How far browsers look for a declaration (WHATWG HTML §13.2.3.2).
const LOOK: usize = 1024;
/// Longest mark of a foreign format, or byte order mark.
const MARK: usize = 4;
/// How files begin that are not HTML whatever their head says: gzip, zstd, PNG, GIF, JPEG, PDF, ZIP; and UTF-16, with a
/// byte order mark or with markup in it.
const FOREIGN: [&[u8]; 11] = [
    b"\x1f\x8b",
    b"\x28\xb5\x2f\xfd",
    b"\x89PNG",
    b"GIF8",
    b"\xff\xd8\xff",
    b"%PDF",
    b"PK\x03\x04",
    b"\xfe\xff",
    b"\xff\xfe",
    b"<\0",
    b"\0<",
];
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

impl Looking {
    /// Depends on the first [`LOOK`] bytes alone, however they come; `None` while they may say something else yet.
    fn verdict(&self, complete: bool) -> Option<Verdict> {
        let head = self.head.get(..LOOK).unwrap_or(&self.head);
        if head.len() < MARK && !complete {
            return None;
        }
        if FOREIGN.iter().any(|mark| head.starts_with(mark)) {
            return Some(Verdict::Pass);
        }
        if head.starts_with(UTF8_MARK) {
            return Some(Verdict::Rewrite(Some(encoding_rs::UTF_8)));
        }
        if self.declared.is_some() {
            return Some(Verdict::Rewrite(self.declared));
        }
        match declaration(head) {
            // A document that says so in ASCII is not in UTF-16 (§13.2.3.2, step 15).
            Some(encoding) if encoding.output_encoding() == encoding && !encoding.is_ascii_compatible() => {
                Some(Verdict::Pass)
            }
            Some(_) => Some(Verdict::Rewrite(None)),
            None => (complete || head.len() == LOOK).then_some(Verdict::Rewrite(None)),
        }
    }
}

/// The charset that the first `meta` element with a known one declares; comments are passed over.
fn declaration(mut head: &[u8]) -> Option<&'static Encoding> {
    let position =
        |text: &[u8], part: &[u8]| text.windows(part.len()).position(|window| window.eq_ignore_ascii_case(part));
    loop {
        let tag = head.get(head.iter().position(|byte| *byte == b'<')?..)?;
        if tag.starts_with(b"<!--") {
            head = tag.get(position(tag, b"-->")?..)?;
            continue;
        }
        head = tag.get(1..)?;
        if !tag.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"<meta")) {
            continue;
        }
        // Unfinished, it may go on to say anything.
        let inside = tag.get(..tag.iter().position(|byte| *byte == b'>')?)?;
        let Some(at) = position(inside, b"charset") else { continue };
        let value = inside.get(at + b"charset".len()..)?.trim_ascii_start();
        let Some(value) = value.strip_prefix(b"=") else { continue };
        let value = value.trim_ascii_start();
        let value = value.strip_prefix(b"\"").or_else(|| value.strip_prefix(b"'")).unwrap_or(value);
        let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b';' | b'/');
        let label = value.split(ends).next().unwrap_or_default();
        if let Some(encoding) = Encoding::for_label(label) {
            return Some(encoding);
        }
    }
}

impl HtmlRewriter {
    /// Whether it fails, for whoever decides about storing.
    #[must_use]
    pub fn failure(&self) -> Failure {
        self.failed.clone()
    }

    fn fail(&mut self, error: &RewritingError) -> Result<(), Fault> {
        // By now the sink has had all input there was, as it came.
        self.state = State::Passing;
        let fault = match error {
            RewritingError::MemoryLimitExceeded(_) => Fault::MemoryLimit,
            _ => Fault::Malformed,
        };
        self.failed.0.set(Some(fault));
        match self.on_error {
            OnError::Pass => Ok(()),
            OnError::Fail => Err(fault),
        }
    }
}

impl HtmlRewriter {
    /// Goes on from looking, once it is clear how; the beginning is to be fed then.
    fn settle(&mut self, complete: bool) -> Option<Vec<u8>> {
        let State::Looking(looking) = &mut self.state else { return None };
        let verdict = looking.verdict(complete)?;
        let head = std::mem::take(&mut looking.head);
        self.state = match verdict {
            Verdict::Rewrite(charset) => State::Rewriting(Box::new(looking.rules.begin(charset, self.sink.clone()))),
            Verdict::Pass => State::Passing,
        };
        Some(head)
    }

    fn feed(&mut self, input: &[u8], output: &mut BytesMut) -> Result<(), Fault> {
        let mut result = Ok(());
        std::mem::swap(&mut *self.sink.0.borrow_mut(), output);
        for step in input.chunks(STEP) {
            result = match &mut self.state {
                State::Rewriting(rewriter) => rewriter.write(step).or_else(|error| self.fail(&error)),
                State::Looking(_) | State::Passing => {
                    self.sink.0.borrow_mut().extend_from_slice(step);
                    Ok(())
                }
            };
            if result.is_err() {
                break;
            }
        }
        std::mem::swap(&mut *self.sink.0.borrow_mut(), output);
        result
    }
}

impl Filter for HtmlRewriter {
    fn push(&mut self, input: &[u8], output: &mut BytesMut) -> Result<(), Fault> {
        if let State::Looking(looking) = &mut self.state {
            looking.head.extend_from_slice(input);
            return self.settle(false).map_or(Ok(()), |head| self.feed(&head, output));
        }
        self.feed(input, output)
    }

    fn flush(&mut self, _output: &mut BytesMut) -> Result<(), Fault> {
        Ok(())
    }

    fn finish(&mut self, output: &mut BytesMut) -> Result<(), Fault> {
        if let Some(head) = self.settle(true) {
            self.feed(&head, output)?;
        }
        let State::Rewriting(rewriter) = std::mem::replace(&mut self.state, State::Passing) else { return Ok(()) };
        std::mem::swap(&mut *self.sink.0.borrow_mut(), output);
        let result = rewriter.end().or_else(|error| self.fail(&error));
        std::mem::swap(&mut *self.sink.0.borrow_mut(), output);
        result
    }
}

impl std::fmt::Debug for HtmlRewriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HtmlRewriter").field("failed", &self.failed).finish_non_exhaustive()
    }
}

/// Where `lol_html` writes to; it owns its sink, so we share it. It holds bytes only while a call lasts.
#[derive(Clone, Default)]
struct Sink(Rc<RefCell<BytesMut>>);

impl OutputSink for Sink {
    fn handle_chunk(&mut self, chunk: &[u8]) {
        self.0.borrow_mut().extend_from_slice(chunk);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::rewrite::ElementRule;

    fn params(rules: &[(&str, &[ElementAction])], on_error: OnError) -> RewriteParams {
        let rule = |(select, actions): &(&str, &[ElementAction])| ElementRule {
            select: (*select).into(),
            actions: actions.to_vec(),
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
}
