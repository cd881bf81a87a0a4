//! Links of a page repaired: in the attributes that hold URLs, in style sheets within it, and in `<meta>`.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::BytesMut;
use lol_html::html_content::{ContentType, Element, TextChunk};
use lol_html::{HandlerResult, Settings, element, text};

use super::actions::{UNTOUCHED, is_text};
use crate::policy::links::Links;
use crate::transform::style_links::StyleLinks;

/// Attributes that hold one URL.
const URLS: [&str; 11] = [
    "href",
    "src",
    "action",
    "formaction",
    "poster",
    "data",
    "cite",
    "background",
    "manifest",
    "data-src",
    "data-href",
];
/// Attributes that hold candidates with descriptors.
const SETS: [&str; 3] = ["srcset", "imagesrcset", "data-srcset"];
/// All elements that may have one of them.
const SELECT: &str = "[href],[src],[action],[formaction],[poster],[data],[cite],[background],[manifest],[data-src],[data-href],\
                      [srcset],[imagesrcset],[data-srcset],[style],meta[content]";

/// Has `settings` repair links.
pub(super) fn install<'s>(settings: Settings<'static, 's>, links: &Arc<Links>) -> Settings<'static, 's> {
    let of_elements = Arc::clone(links);
    let style = RefCell::new(StyleLinks::new(Arc::clone(links)));
    let fresh = Arc::clone(links);
    settings
        .append_element_content_handler(element!(SELECT, move |element| repair(&of_elements, element)))
        .append_element_content_handler(text!("style:not([data-noaccel])", move |chunk| {
            let mut style = style.borrow_mut();
            in_style(&mut style, chunk);
            if chunk.last_in_text_node() {
                *style = StyleLinks::new(Arc::clone(&fresh));
            }
            Ok(())
        }))
}

fn repair(links: &Arc<Links>, element: &mut Element<'_, '_>) -> HandlerResult {
    if element.has_attribute(UNTOUCHED) {
        return Ok(());
    }
    let mut changes = Vec::new();
    let mut seen = Vec::new();
    for attribute in element.attributes() {
        let (name, value) = (attribute.name(), attribute.value());
        // Of a name that comes twice, browsers know the first.
        if seen.contains(&name) {
            continue;
        }
        seen.push(name.clone());
        if !is_text(&value) {
            continue;
        }
        let repaired = match name.as_str() {
            name if URLS.contains(&name) => links.repair(&value),
            name if SETS.contains(&name) => links.repair_srcset(&value),
            "style" => StyleLinks::repair(links, &value),
            _ => None,
        };
        changes.extend(repaired.map(|value| (name, value)));
    }
    if element.tag_name() == "meta"
        && let Some(content) = element.get_attribute("content").filter(|content| is_text(content))
    {
        let refreshes = element.get_attribute("http-equiv").is_some_and(|name| name.eq_ignore_ascii_case("refresh"));
        let repaired = if refreshes { links.repair_refresh(&content) } else { links.repair(&content) };
        changes.extend(repaired.map(|value| ("content".to_owned(), value)));
    }
    changes.iter().try_for_each(|(name, value)| element.set_attribute(name, value))?;
    Ok(())
}

/// The text of a `style` element goes through the document's charset: bytes that are no text come out as U+FFFD, which is what
/// browsers read there.
fn in_style(style: &mut StyleLinks, chunk: &mut TextChunk<'_>) {
    let mut output = BytesMut::new();
    style.take(chunk.as_str().as_bytes(), &mut output);
    if chunk.last_in_text_node() {
        style.release(&mut output);
    }
    if output != chunk.as_str().as_bytes() {
        chunk.replace(&String::from_utf8_lossy(&output), ContentType::Html);
    }
}
