//! Filters that change elements of a page: `lazy` and `third-party-defer`.

use std::cell::Cell;
use std::rc::Rc;

use lol_html::html_content::Element;
use lol_html::{HandlerResult, Settings, element};

use super::actions::UNTOUCHED;
use crate::policy::page::{DeferParams, LazyParams, PageFilters};

/// Classes by which scripts that load pictures late know theirs.
const LATE: [&str; 4] = ["lazy", "lazyload", "lazyloaded", "lazyloading"];

/// Has `settings` do what is on.
pub(super) fn install<'s>(mut settings: Settings<'static, 's>, filters: &PageFilters) -> Settings<'static, 's> {
    if let Some(params) = filters.lazy {
        let lazy = Lazy { params, seen: Cell::new(0), unused: Rc::default() };
        let unused = Rc::clone(&lazy.unused);
        settings = settings
            .append_element_content_handler(element!("noscript, template", move |element| {
                // In SVG and MathML they may be closed at once.
                if !element.can_have_content() {
                    return Ok(());
                }
                unused.set(unused.get() + 1);
                let unused = Rc::clone(&unused);
                element.on_end_tag(lol_html::end_tag!(move |_| {
                    unused.set(unused.get().saturating_sub(1));
                    Ok(())
                }))?;
                Ok(())
            }))
            .append_element_content_handler(element!("img, iframe", move |element| lazy.look(element)));
    }
    if let Some(params) = filters.defer.clone() {
        settings =
            settings.append_element_content_handler(element!("script[src]", move |element| defer(&params, element)));
    }
    settings
}

/// Pictures and frames of one page.
struct Lazy {
    params: LazyParams,
    /// So far.
    seen: Cell<u64>,
    /// Open elements whose content is not part of the page, or only without scripts.
    unused: Rc<Cell<u32>>,
}

impl Lazy {
    fn look(&self, element: &mut Element<'_, '_>) -> HandlerResult {
        if self.unused.get() > 0 {
            return Ok(());
        }
        self.seen.set(self.seen.get() + 1);
        let is_far =
            self.seen.get() > self.params.first && element.source_location().bytes().start as u64 >= self.params.bytes;
        if is_far && may_wait(element) {
            element.set_attribute("loading", "lazy")?;
        }
        Ok(())
    }
}

/// False where its author has said when it is loaded, or a script waits for it, or where it is never seen: without a box
/// it would never come near the window, and what counts visitors or keeps a session alive would never be loaded.
fn may_wait(element: &Element<'_, '_>) -> bool {
    let said = ["loading", "fetchpriority", "onload", "onerror", "data-src", "data-srcset", UNTOUCHED];
    let classes = element.get_attribute("class").unwrap_or_default();
    !said.iter().any(|name| element.has_attribute(name))
        && element.has_attribute("src")
        && !classes.split_ascii_whitespace().any(|class| LATE.contains(&class))
        && !is_invisible(element)
}

fn is_invisible(element: &Element<'_, '_>) -> bool {
    let is_dot = |name| element.get_attribute(name).is_some_and(|length| ["0", "1"].contains(&length.trim()));
    let style =
        element.get_attribute("style").unwrap_or_default().replace(char::is_whitespace, "").to_ascii_lowercase();
    element.has_attribute("hidden")
        || is_dot("width")
        || is_dot("height")
        || ["display:none", "visibility:hidden"].iter().any(|hides| style.contains(hides))
}

/// Only classic scripts wait; what has a word of its own about when it runs keeps it.
fn defer(params: &DeferParams, element: &mut Element<'_, '_>) -> HandlerResult {
    let said = ["async", "defer", "nomodule", "onload", UNTOUCHED];
    let kind = element.get_attribute("type").unwrap_or_default();
    let is_classic =
        ["", "text/javascript", "application/javascript"].contains(&kind.trim().to_ascii_lowercase().as_str());
    let is_listed = element.get_attribute("src").is_some_and(|src| params.lists(&src));
    if is_classic && is_listed && !said.iter().any(|name| element.has_attribute(name)) {
        element.set_attribute("defer", "")?;
    }
    Ok(())
}
