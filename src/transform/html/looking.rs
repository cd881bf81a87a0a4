//! What kind of document it is: whether tags can be told from text in it.

use encoding_rs::Encoding;

use super::RuleSet;

/// The beginning of a document, until it shows whether tags can be told from text in it.
pub(super) struct Looking {
    pub(super) rules: RuleSet,
    /// By `Content-Type`.
    pub(super) declared: Option<&'static Encoding>,
    pub(super) head: Vec<u8>,
}

/// What the beginning of a document shows.
pub(super) enum Verdict {
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
    pub(super) fn verdict(&self, complete: bool) -> Option<Verdict> {
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
