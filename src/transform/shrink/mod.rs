//! Smaller bodies that mean the same: white space and comments go, every token stays as it was written.
//!
//! Each module has a tokenizer of its own format, a printer, and a proof: what was printed is read again, and must be the
//! same tokens with white space (and line ends, where a format looks at them) in every place where it counts. What cannot
//! be read for certain is refused by name; nothing is guessed, repaired or renamed. A proof that fails is a refusal too.
//!
//! All work is linear in the input and keeps its nesting on the heap, so that no input can exhaust a stack.
//!
//! Comments that say a licence (`/*! … */`, `@license`, `@preserve`, `@copyright`) are kept. Scripts and style sheets that
//! name a source map are refused: it would speak of lines that are no more.

mod css;
mod js;
mod json;
mod svg;

use crate::policy::optimise::Optimiser;

/// Why a body is left as it is; a stable token each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Not UTF-8.
    NotUtf8,
    /// Not what its type says, or cut off.
    Malformed,
    /// It can be read in two ways, by its tokens alone.
    Ambiguous,
    /// It may look at its own source text.
    Introspective,
    /// It has a part that works in ways white space may matter to: scripts in pictures, entities, two equal keys.
    Active,
    /// It names a source map, which speaks of its lines and columns.
    SourceMap,
    /// What was printed does not prove equal. Should never be seen.
    Unproven,
}

impl Refusal {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::NotUtf8 => "not_utf8",
            Self::Malformed => "malformed",
            Self::Ambiguous => "ambiguous",
            Self::Introspective => "introspective",
            Self::Active => "active",
            Self::SourceMap => "source_map",
            Self::Unproven => "unproven",
        }
    }
}

/// Byte order mark of UTF-8: kept in front of whatever follows.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// The body as `optimiser` makes it; it may be as long as it was. Cost: two passes and one copy.
///
/// # Errors
/// Why it is left as it is.
pub fn shrink(optimiser: Optimiser, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let text = std::str::from_utf8(body).map_err(|_| Refusal::NotUtf8)?;
    let (bom, text) = match text.strip_prefix('\u{feff}') {
        Some(rest) => (BOM, rest),
        None => (&b""[..], text),
    };
    if matches!(optimiser, Optimiser::JsWs | Optimiser::CssWs) && text.contains("sourceMappingURL=") {
        return Err(Refusal::SourceMap);
    }
    let small = match optimiser {
        Optimiser::JsWs => js::shrink(text),
        Optimiser::CssWs => css::shrink(text),
        Optimiser::JsonWs if bom.is_empty() => json::shrink(text),
        // A byte order mark is no JSON (RFC 8259 §8.1).
        Optimiser::JsonWs => Err(Refusal::Malformed),
        Optimiser::SvgWs => svg::shrink(text),
    }?;
    Ok([bom, small.as_bytes()].concat())
}

/// True for a comment, with its delimiters, that must stay.
fn is_kept_comment(comment: &str) -> bool {
    let inside = comment.get(2..).unwrap_or_default();
    inside.starts_with('!')
        || ["@license", "@preserve", "@copyright", "@cc_on", "sourceURL="].iter().any(|mark| inside.contains(mark))
}

#[cfg(test)]
mod tests;
