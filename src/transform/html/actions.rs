//! What an element rule does to an element.

use std::cell::Cell;
use std::rc::Rc;

use lol_html::HandlerResult;
use lol_html::html_content::{ContentType, Element, EndTag};

use super::Rule;
use crate::policy::rewrite::ElementAction;

/// One rule at work on one body.
pub(super) struct Worker {
    rule: Rule,
    /// It has acted.
    acted: Rc<Cell<bool>>,
    /// An element has come that makes it unnecessary.
    unnecessary: Rc<Cell<bool>>,
}

impl Worker {
    /// `unnecessary` is set from outside.
    pub(super) fn new(rule: Rule, unnecessary: Rc<Cell<bool>>) -> Self {
        Self { rule, acted: Rc::default(), unnecessary }
    }

    /// Acts on an element that was selected. What goes to its end is decided there, by all that came before.
    pub(super) fn act(&self, element: &mut Element<'_, '_>) -> HandlerResult {
        if element.has_attribute(UNTOUCHED) || self.rule.once && self.acted.get() || self.unnecessary.get() {
            return Ok(());
        }
        self.acted.set(true);
        for action in self.rule.actions.iter() {
            match action {
                ElementAction::Append(html) if self.rule.unless.is_some() => self.append(html, element)?,
                action => act(action, element)?,
            }
        }
        Ok(())
    }

    fn append(&self, html: &str, element: &mut Element<'_, '_>) -> HandlerResult {
        let (html, unnecessary) = (html.to_owned(), Rc::clone(&self.unnecessary));
        let at_the_end = move |end: &mut EndTag<'_>| {
            if !unnecessary.get() {
                end.before(&html, ContentType::Html);
            }
            Ok(())
        };
        // An element that has no end has no inside either.
        let _no_end = element.on_end_tag(Box::new(at_the_end));
        Ok(())
    }
}

/// False for a value with bytes that are no text in the document's charset: they would not come back as they were.
pub(super) fn is_text(value: &str) -> bool {
    !value.contains(char::REPLACEMENT_CHARACTER)
}

pub(super) fn attribute_name(action: &ElementAction) -> Option<&str> {
    match action {
        ElementAction::Replace { attribute: name, .. }
        | ElementAction::Set { name, .. }
        | ElementAction::Unset(name) => Some(name),
        _ => None,
    }
}

/// WHATWG HTML §13.1.2.3.
pub(super) fn is_attribute_name(name: &str) -> bool {
    let forbidden = |c: char| c.is_control() || matches!(c, ' ' | '"' | '\'' | '>' | '/' | '=');
    !name.is_empty() && !name.contains(forbidden)
}

fn act(action: &ElementAction, element: &mut Element<'_, '_>) -> HandlerResult {
    match action {
        ElementAction::Replace { attribute, from, to } => {
            let may_change = |value: &String| value.contains(from.as_str()) && is_text(value);
            if let Some(value) = element.get_attribute(attribute).filter(may_change) {
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
pub(super) const UNTOUCHED: &str = "data-noaccel";
