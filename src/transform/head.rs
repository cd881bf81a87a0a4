//! What the head of an HTML document loads: its style sheets and scripts, for early hints.
//!
//! A reader, not a filter: nothing is changed. It stops at `<body>`, or after [`READ_MAX`] bytes. What a browser may leave
//! out (other media, `nomodule`, `noscript`, alternate sheets) is left out, and a document that moves its base is not read.

use std::cell::RefCell;
use std::rc::Rc;

use lol_html::html_content::Element;
use lol_html::{HandlerResult, HtmlRewriter, MemorySettings, OutputSink, Settings, element};

use crate::policy::hints::{Cors, Kind, Resource};

/// Bytes of a document that are read: heads longer than that are rare, and what comes late in them is no early hint.
pub const READ_MAX: usize = 64 * 1024;
/// Resources that are taken down; more are never told.
const RESOURCES_MAX: usize = 32;
/// Bytes that may be held for a tag that is not complete yet.
const MEMORY_MAX: usize = 128 * 1024;

/// Reads the head of one document.
pub struct HeadReader {
    /// `None` once it is known what there is.
    rewriter: Option<Box<HtmlRewriter<'static, Nowhere>>>,
    found: Rc<RefCell<Found>>,
    read: usize,
}

#[derive(Debug, Default)]
struct Found {
    resources: Vec<Resource>,
    /// The head is over.
    ended: bool,
    /// The document cannot be told from its head.
    given_up: bool,
    /// Within an element whose content a browser may not use.
    hidden: u32,
}

/// What comes out of the rewriter is what went in.
struct Nowhere;

impl OutputSink for Nowhere {
    fn handle_chunk(&mut self, _chunk: &[u8]) {}
}

impl Default for HeadReader {
    fn default() -> Self {
        let found = Rc::new(RefCell::new(Found::default()));
        let at = |found: &Rc<RefCell<Found>>| Rc::clone(found);
        let (body, base, link, script, noscript) = (at(&found), at(&found), at(&found), at(&found), at(&found));
        let settings = Settings::new()
            .with_memory_settings(MemorySettings::new().with_max_allowed_memory_usage(MEMORY_MAX))
            .with_strict(false)
            .append_element_content_handler(element!("body", move |_| {
                body.borrow_mut().ended = true;
                Ok(())
            }))
            .append_element_content_handler(element!("base[href]", move |_| {
                base.borrow_mut().given_up = true;
                Ok(())
            }))
            .append_element_content_handler(element!("noscript, template", move |element| hide(&noscript, element)))
            .append_element_content_handler(element!("link[rel][href]", move |element| {
                link.borrow_mut().add(sheet(element));
                Ok(())
            }))
            .append_element_content_handler(element!("script[src]", move |element| {
                script.borrow_mut().add(self::script(element));
                Ok(())
            }));
        Self { rewriter: Some(Box::new(HtmlRewriter::new(settings, Nowhere))), found, read: 0 }
    }
}

impl HeadReader {
    /// Takes in one piece; true once more would tell nothing.
    pub fn push(&mut self, piece: &[u8]) -> bool {
        let Some(rewriter) = &mut self.rewriter else { return true };
        let piece = piece.get(..READ_MAX - self.read).unwrap_or(piece);
        self.read += piece.len();
        let failed = rewriter.write(piece).is_err();
        let mut found = self.found.borrow_mut();
        found.given_up |= failed;
        let over = found.ended || found.given_up || self.read >= READ_MAX;
        if over {
            self.rewriter = None;
        }
        over
    }

    /// What was found; `None` where it cannot be told.
    #[must_use]
    pub fn finish(self) -> Option<Vec<Resource>> {
        let found = self.found.take();
        (!found.given_up).then_some(found.resources)
    }
}

impl std::fmt::Debug for HeadReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeadReader").field("read", &self.read).finish_non_exhaustive()
    }
}

impl Found {
    fn add(&mut self, resource: Option<Resource>) {
        if self.hidden == 0 && !self.ended && self.resources.len() < RESOURCES_MAX {
            self.resources.extend(resource);
        }
    }
}

fn hide(found: &Rc<RefCell<Found>>, element: &mut Element<'_, '_>) -> HandlerResult {
    // In SVG and MathML it may be closed at once.
    if !element.can_have_content() {
        return Ok(());
    }
    found.borrow_mut().hidden += 1;
    let found = Rc::clone(found);
    element.on_end_tag(lol_html::end_tag!(move |_| {
        found.borrow_mut().hidden -= 1;
        Ok(())
    }))?;
    Ok(())
}

fn sheet(element: &Element<'_, '_>) -> Option<Resource> {
    let relation = element.get_attribute("rel")?;
    let has = |name: &str| relation.split_ascii_whitespace().any(|token| token.eq_ignore_ascii_case(name));
    let media = element.get_attribute("media");
    let always = media.is_none_or(|media| ["", "all", "screen"].contains(&media.trim().to_ascii_lowercase().as_str()));
    let used = has("stylesheet") && !has("alternate") && always && !element.has_attribute("disabled");
    used.then(|| resource(element, Kind::Style, "href")).flatten()
}

fn script(element: &Element<'_, '_>) -> Option<Resource> {
    if element.has_attribute("nomodule") {
        return None;
    }
    let kind = match element.get_attribute("type").unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "" | "text/javascript" | "application/javascript" | "application/x-javascript" => Kind::Script,
        "module" => Kind::Module,
        _ => return None,
    };
    resource(element, kind, "src")
}

/// `None` where a preload would be another request than the element's own: with a digest to check, or a policy of referrers.
fn resource(element: &Element<'_, '_>, kind: Kind, attribute: &str) -> Option<Resource> {
    if ["integrity", "referrerpolicy", "data-noaccel"].iter().any(|name| element.has_attribute(name)) {
        return None;
    }
    let cors = match element.get_attribute("crossorigin") {
        None => Cors::None,
        Some(value) if value.trim().eq_ignore_ascii_case("use-credentials") => Cors::Credentials,
        Some(_) => Cors::Anonymous,
    };
    let url = element.get_attribute(attribute)?.trim().replace("&amp;", "&");
    // Another character reference would have to be decoded as browsers do.
    (!url.contains("&#")).then_some(Resource { kind, url, cors })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(page: &str, size: usize) -> Option<Vec<String>> {
        let mut reader = HeadReader::default();
        let _over = page.as_bytes().chunks(size).any(|piece| reader.push(piece));
        let name = |resource: Resource| format!("{:?} {} {:?}", resource.kind, resource.url, resource.cors);
        reader.finish().map(|found| found.into_iter().map(name).collect())
    }

    #[test]
    fn heads_are_read_however_they_are_cut() {
        for (page, expected) in [
            (
                "<link rel=stylesheet href=/a.css><script src='/b.js'></script><script type=module crossorigin src=c></script>",
                Some(&["Style /a.css None", "Script /b.js None", "Module c Anonymous"][..]),
            ),
            ("<LINK REL='Preload StyleSheet' HREF=\"/a?b=1&amp;c=2\">", Some(&["Style /a?b=1&c=2 None"])),
            ("<link rel=stylesheet media=print href=a><link rel='alternate stylesheet' href=b>", Some(&[])),
            ("<script nomodule src=a></script><script type=text/x src=b></script>", Some(&[])),
            ("<link rel=stylesheet href=a integrity=sha256-x><script src=b data-noaccel></script>", Some(&[])),
            ("<noscript><link rel=stylesheet href=a></noscript><link rel=stylesheet href=b>", Some(&["Style b None"])),
            ("<noscript><link rel=stylesheet href=a>", Some(&[])),
            ("<!--[if IE]><script src=a></script><![endif]--><script>'<script src=b>'</script>", Some(&[])),
            ("<body><script src=a></script>", Some(&[])),
            ("<base href=/x/><script src=a></script>", None),
            ("<script src='/a&#47;b'></script>", Some(&[])),
            ("", Some(&[])),
        ] {
            for size in [1, 3, 1000] {
                let expected = expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
                assert_eq!(read(page, size), expected, "{page} by {size}");
            }
        }
    }

    #[test]
    fn reading_ends() {
        let long = format!("{}<script src=late></script>", " ".repeat(READ_MAX));
        assert_eq!(read(&long, 1000), Some(Vec::new()));
        assert_eq!(read(&format!("<a b='{}", "x".repeat(10 << 20)), 4096), Some(Vec::new()));
        let many = "<script src=a></script>".repeat(1000);
        assert_eq!(read(&many, 4096).map(|found| found.len()), Some(RESOURCES_MAX));
    }
}
