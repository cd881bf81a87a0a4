//! HTML by the operator's element rules, streaming, on `lol_html`.
//!
//! [`RuleSet::compile`] parses the selectors once per configuration; [`RuleSet::rewriter`] makes a [`HtmlRewriter`] per
//! body. Rules run in file order, the actions of a rule in theirs. What no rule touches leaves as the very bytes it came
//! as, whatever its charset; where links are repaired, text of `style` elements that is no text in it is the exception. Inserted text is HTML as the operator wrote it, not escaped; attribute values are escaped
//! as far as quotes go.
//!
//! An element lasts to its end tag. Where that is left out, as HTML allows for some, it lasts as long as what it is in, which is
//! what removing, unwrapping and appending go by.
//!
//! Rules work on ASCII tags, so the document has to be one in which those are tags: UTF-16 and ISO-2022-JP, told by a byte
//! order mark, `Content-Type` or a `meta` element, and files of other formats pass as they came. An element with the
//! attribute `data-noaccel` is left alone.
//!
//! Memory: one body holds at most `MEMORY_MAX` (a tag, comment or attribute that is not complete yet, and the stack of
//! open elements). Beyond that, or when an inserted name cannot be written in the document's charset, rewriting fails
//! and `on_error` decides: `pass` lets the rest through unmodified, with no byte lost and none doubled; `fail` is an
//! error.

mod actions;
mod links;
mod looking;
mod pages;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use encoding_rs::Encoding;
use lol_html::errors::RewritingError;
use lol_html::html_content::Element;
use lol_html::{AsciiCompatibleEncoding, ElementContentHandlers, MemorySettings, OutputSink, Selector, Settings};

use super::style_links::StyleLinks;
use super::{Fault, Filter};
use crate::policy::links::Links;
use crate::policy::page::PageFilters;
use crate::policy::rewrite::{ElementAction, OnError, RewriteParams};
use actions::{attribute_name, is_attribute_name};
use looking::{Looking, Verdict};

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
    rules: Arc<[Rule]>,
    links: Arc<Links>,
    pages: Arc<PageFilters>,
    on_error: OnError,
}

/// One rule, its selectors parsed.
#[derive(Debug, Clone)]
struct Rule {
    select: Selector,
    actions: Arc<[ElementAction]>,
    once: bool,
    unless: Option<Selector>,
}

impl RuleSet {
    /// True without rules: then there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.links.is_empty() && self.pages.is_empty()
    }

    /// Parses the selectors and checks the attribute names.
    ///
    /// # Errors
    /// The first rule that cannot be used.
    pub fn compile(params: &RewriteParams) -> Result<Self, RuleFault> {
        let mut rules = Vec::with_capacity(params.elements.len());
        for (index, rule) in params.elements.iter().enumerate() {
            let fault = |reason| RuleFault { index, reason };
            let parse = |key: &str, text: &str| {
                text.parse::<Selector>().map_err(|error| fault(format!("{key} \"{text}\": {error}")))
            };
            let select = parse("select", &rule.select)?;
            let unless = rule.unless.as_deref().map(|unless| parse("unless", unless)).transpose()?;
            if let Some(name) = rule.actions.iter().filter_map(attribute_name).find(|name| !is_attribute_name(name)) {
                return Err(fault(format!("\"{name}\" is no attribute name")));
            }
            rules.push(Rule { select, actions: rule.actions.as_slice().into(), once: rule.once, unless });
        }
        let (links, pages) = (Arc::new(params.links.clone()), Arc::new(params.pages.clone()));
        Ok(Self { rules: rules.into(), links, pages, on_error: params.on_error })
    }

    /// The same for a style sheet, of which only the links are repaired.
    #[must_use]
    pub fn style_rewriter(&self) -> StyleLinks {
        StyleLinks::new(Arc::clone(&self.links))
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
        if !self.links.is_empty() {
            settings = links::install(settings, &self.links);
        }
        settings = pages::install(settings, &self.pages);
        let found: Vec<Rc<Cell<bool>>> = self.rules.iter().map(|_| Rc::default()).collect();
        for (rule, found) in self.rules.iter().zip(&found) {
            let Some(unless) = &rule.unless else { continue };
            let found = Rc::clone(found);
            let handlers = ElementContentHandlers::default().element(move |_: &mut Element<'_, '_>| {
                found.set(true);
                Ok(())
            });
            settings = settings.append_element_content_handler((Cow::Borrowed(unless), handlers));
        }
        for (rule, found) in self.rules.iter().zip(found) {
            let worker = actions::Worker::new(rule.clone(), found);
            let handlers =
                ElementContentHandlers::default().element(move |element: &mut Element<'_, '_>| worker.act(element));
            settings = settings.append_element_content_handler((Cow::Borrowed(&rule.select), handlers));
        }
        lol_html::HtmlRewriter::new(settings, sink)
    }
}

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
mod tests;
